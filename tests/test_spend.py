"""What was paid for is on the ledger, whoever dies and whatever the next launch looks like."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from messages_server import Json, MessagesServer, Reply, Script, turns
from model import agent_of, searcher
from targets import git, make_config, make_repo

from swarm.agent import Hands, ProposeDone, ProposeJob
from swarm.briefing import Briefing
from swarm.coordinator import Coordinator
from swarm.errors import RunFailedError
from swarm.launch import Opened, open_run
from swarm.ledger import read
from swarm.node import Node
from swarm.proposers import Draft, Workspace
from swarm.records import Parked, Proposal, SlotInfo, Spent, Usage
from swarm.runtime import Inline, Muster, Post
from swarm.state import RunState

KEY = "sk-ant-test-0123456789abcdef"
CONFIG = """
target:
  repo: .
  scope: [parts/]
  program: Bring the loss down.
  run: python3 -S -E measure.py
  metric: {{name: loss, goal: minimize}}
  timeout: 20s
  slot: {{count: 2}}
agents:
  - count: {agents}
    proposer:
      kind: messages
      model: scripted
      base_url: {url}
      key: ANTHROPIC_API_KEY
      prices: {{input: 3, output: 15}}
judge: {{baseline: 2, confirm: 2}}
budget: {{experiments: {experiments}}}
"""


class Ending(Inline):
    """Threads that leave the run as an interrupt does, after so many proposals."""

    def __init__(self, proposals: int) -> None:
        super().__init__()
        self.left = proposals
        self.coordinator: Coordinator | None = None

    def propose(self, job: ProposeJob) -> None:
        self.left -= 1
        if self.left < 0 and self.coordinator is not None:
            self.coordinator.interrupt("that was all")
        super().propose(job)


def run(
    top: Path, url: str, *, agents: int, experiments: int, leave_after: int = 10_000
) -> tuple[Opened, RunState]:
    text = CONFIG.format(url=url, agents=agents, experiments=experiments)
    opened = open_run(make_config(top, text), wait_s=5)
    runtime = Ending(leave_after)
    keys = {"ANTHROPIC_API_KEY": KEY}
    coordinator = runtime.coordinator = Coordinator(
        opened.rundir, opened.config, runtime, prefixes=opened.prefixes, keys=keys
    )
    return opened, coordinator.run()


def cut_off(opened: Opened, state: RunState, agent: str) -> Usage:
    """Leave what a kill in mid-conversation leaves: a note of the next proposal's cost."""
    usage = Usage(usd=0.25, input_tokens=1000, output_tokens=10)
    folder = Path(os.environ["SWARM_SCRATCH"]) / opened.rundir.scratch_key / "usage"
    folder.mkdir(exist_ok=True)
    path = folder / f"{agent}-{state.agents[agent].proposals}.json"
    path.write_text(usage.model_dump_json())
    return usage


@pytest.fixture
def top(tmp_path: Path) -> Path:
    return make_repo(tmp_path / "repo")


def check(opened: Opened, before: RunState, after: RunState, usage: Usage, agent: str) -> None:
    old = before.agents[agent].tokens
    assert after.agents[agent].tokens >= old + usage.tokens
    spent = [e for e in read(opened.rundir.ledger) if isinstance(e, Spent)]
    assert [(e.agent, e.usage) for e in spent if e.usage == usage] == [(agent, usage)]


@pytest.mark.timeout(120)
def test_what_an_agent_spent_that_is_in_the_config_no_more(top: Path) -> None:
    with MessagesServer(searcher(trouble=False)) as server:
        opened, before = run(top, server.url, agents=2, experiments=6, leave_after=3)
        assert before.phase == "interrupted"
        usage = cut_off(opened, before, "a2")
        opened, after = run(top, server.url, agents=1, experiments=6)
    assert after.phase == "finished"
    check(opened, before, after, usage, "a2")


@pytest.mark.timeout(120)
def test_what_was_spent_before_a_launch_that_has_nothing_left_to_do(top: Path) -> None:
    with MessagesServer(searcher(trouble=False)) as server:
        opened, before = run(top, server.url, agents=2, experiments=9, leave_after=4)
        assert before.phase == "interrupted"
        usage = cut_off(opened, before, "a1")
        opened, after = run(top, server.url, agents=2, experiments=1)
    assert after.phase == "finished"
    check(opened, before, after, usage, "a1")


@pytest.mark.timeout(120)
def test_a_group_that_is_locked_out_is_parked_once(top: Path) -> None:
    with MessagesServer(searcher(), key="another key altogether") as server:
        with pytest.raises(RunFailedError):
            run(top, server.url, agents=3, experiments=4)
        text = CONFIG.format(url=server.url, agents=3, experiments=4)
        opened = open_run(make_config(top, text), wait_s=5)
    parked = [e.agent for e in read(opened.rundir.ledger) if isinstance(e, Parked)]
    assert parked == ["a1", "a2", "a3"]


class Wasteful:
    """A proposer that pays, and then has a fault of its own."""

    def propose(self, workspace: Workspace, briefing: Briefing) -> Draft:
        workspace.spent(Usage(usd=0.25, input_tokens=70, output_tokens=7))
        raise ZeroDivisionError("in the proposer")


class WastefulPost(Post):
    def hands(self, node: Node) -> Hands:
        return Hands(node, self.info, Wasteful(), self.terms["main"])


class WastefulRuntime(Inline):
    def start(self, muster: Muster) -> tuple[SlotInfo, ...]:
        posts = tuple(WastefulPost(**vars(post)) for post in muster.posts)
        return super().start(replace(muster, posts=posts))


@pytest.mark.timeout(120)
def test_what_a_proposer_spent_before_it_failed(top: Path) -> None:
    text = CONFIG.format(url="http://127.0.0.1:9", agents=1, experiments=2)
    opened = open_run(make_config(top, text), wait_s=5)
    runtime = WastefulRuntime()
    state = Coordinator(opened.rundir, opened.config, runtime, prefixes=opened.prefixes).run()
    made = [e for e in state.experiments.values() if e.verdict == "invalid"]
    assert len(made) == 2
    assert "ZeroDivisionError" in made[0].reason
    assert all(e.proposal.usage.tokens == 77 for e in made)
    assert state.spend.tokens >= 154


class Overloaded(Inline):
    """A provider that is overloaded when a change is to be carried over for the first time."""

    def __init__(self) -> None:
        super().__init__()
        self.ports: list[int] = []

    def propose(self, job: ProposeJob) -> None:
        if job.port is not None:
            self.ports.append(job.port.number)
            if len(self.ports) == 1:
                invalid = Proposal(base=job.base, invalid="overloaded")
                self._outbox.put(ProposeDone(job.agent, invalid, wait_s=1.0))
                return
        super().propose(job)


def colliding() -> Script:
    """Two agents win at the same line at first, then each elsewhere."""
    made: Counter[str] = Counter()

    def script(request: Json) -> Reply:
        agent = agent_of(request)
        if turns(request):
            return Reply.calling("submit", summary=f"{agent} tries {made[agent]}", rationale="")
        made[agent] += 1
        if made[agent] == 1:
            value = {"a1": 2.0, "a2": 1.9}[agent]
            return Reply.calling("write_file", path="parts/a.py", content=f"ALPHA = {value}\n")
        name, value = {"a1": ("b", 16.0), "a2": ("d", 7.0)}[agent]
        content = f"{'BETA' if name == 'b' else 'DELTA'} = {value * 0.8 ** made[agent]}\n"
        return Reply.calling("write_file", path=f"parts/{name}.py", content=content)

    return script


@pytest.mark.timeout(120)
def test_a_port_is_offered_again_if_its_agent_had_to_wait(top: Path) -> None:
    (top / "parts" / "a.py").write_text("ALPHA = 0.25\n")
    git(top, "commit", "-qam", "one constant")
    with MessagesServer(colliding()) as server:
        text = CONFIG.format(url=server.url, agents=2, experiments=10)
        opened = open_run(make_config(top, text), wait_s=5)
        runtime, keys = Overloaded(), {"ANTHROPIC_API_KEY": KEY}
        Coordinator(
            opened.rundir, opened.config, runtime, prefixes=opened.prefixes, keys=keys
        ).run()
    assert len(runtime.ports) == 2
    assert runtime.ports[0] == runtime.ports[1]
