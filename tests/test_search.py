"""Whole runs whose agents are models: the real SDK, real HTTP, real git, and a scripted model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from messages_server import Fault, Json, MessagesServer, Reply, Script, faults, turns
from model import agent_of, searcher
from targets import check_nobody_left, fold, make_config, make_repo, measure_by_hand

from swarm.config import RunConfig
from swarm.coordinator import Coordinator
from swarm.launch import Opened, open_run
from swarm.ledger import read
from swarm.records import Decided, Measured, Proposed, Repaired, Returned, Spent
from swarm.rundir import RunDir
from swarm.runtime import Inline
from swarm.state import RunState

KEY = "sk-ant-test-0123456789abcdef"
PRICES = {"input": 3, "output": 15, "cache_read": 0.3, "cache_write": 3.75}
CONFIG = """
target:
  repo: {repo}
  scope: [parts/]
  program: Bring the loss down. Each part holds constants that do not interact.
  run: python3 -S -E measure.py
  metric: {{name: loss, goal: minimize}}
  timeout: 20s
  slot: {{count: 2}}
agents:
  - count: 4
    proposer:
      kind: messages
      model: scripted
      base_url: {url}
      key: ANTHROPIC_API_KEY
      prices: {{input: 3, output: 15, cache_read: 0.3, cache_write: 3.75}}
judge: {{baseline: 2, confirm: 2}}
budget: {{experiments: {experiments}}}
"""


def config_of(top: Path, url: str, *sets: str, experiments: int = 24) -> RunConfig:
    text = CONFIG.format(repo=".", url=url, experiments=experiments)
    return make_config(top, text, *sets)


def run(config: RunConfig) -> tuple[Opened, RunState]:
    opened = open_run(config, wait_s=5)
    coordinator = Coordinator(
        opened.rundir,
        opened.config,
        Inline(),
        prefixes=opened.prefixes,
        keys={"ANTHROPIC_API_KEY": KEY},
    )
    return opened, coordinator.run()


def usd(server: MessagesServer) -> float:
    """Reckon what the server's own count costs."""
    total = server.usage.total
    per_token = {
        "input": total.input,
        "output": total.output,
        "cache_read": total.cache_read,
        "cache_write": total.cache_creation,
    }
    return sum(PRICES[kind] * tokens / 1e6 for kind, tokens in per_token.items())


def check_spend(state: RunState, server: MessagesServer) -> None:
    """The ledger and the provider agree, to the token."""
    assert state.spend.tokens == server.usage.tokens
    assert state.spend.usd == pytest.approx(usd(server))
    assert sum(a.tokens for a in state.agents.values()) == state.spend.tokens


@pytest.fixture
def top(tmp_path: Path) -> Path:
    return make_repo(tmp_path / "repo")


@pytest.mark.timeout(120)
def test_four_models_search_together(top: Path, tmp_path: Path) -> None:
    with MessagesServer(searcher(), key=KEY) as server:
        opened, state = run(config_of(top, server.url))
        check_spend(state, server)
        check_cache(server)
    assert state.phase == "finished"
    assert state.spend.experiments == 24
    target = state.targets["main"]
    assert target.verdicts["keep"] >= 6
    assert len({state.experiments[p.number].agent for p in target.promotions}) >= 3, "wins merge"
    base, best = (measure_by_hand(top, c, tmp_path / "by-hand") for c in ("main", target.best))
    assert best < base - 1
    verdicts = set(target.verdicts)
    assert {"keep", "invalid"} <= verdicts
    assert vars(fold(opened)).keys() == vars(state).keys()
    for event in read(opened.rundir.ledger):
        if isinstance(event, Proposed) and event.proposal.commit is not None:
            assert event.proposal.summary
            assert event.proposal.diff.startswith("diff --git ")
            assert event.proposal.usage.output_tokens > 0


def check_cache(server: MessagesServer) -> None:
    """From an agent's second experiment on, the prefix is paid for by the cache."""
    first: dict[str, set[str]] = {}
    read_, whole = 0, 0
    for asked, tokens in zip(server.requests, server.usage.requests, strict=True):
        agent = agent_of(asked.body)
        rounds = first.setdefault(agent, set())
        rounds.add(json.dumps(asked.body["messages"][0]))
        if len(rounds) > 1:
            read_ += tokens.cache_read
            whole += tokens.input + tokens.cache_read + tokens.cache_creation
    assert whole
    assert read_ / whole >= 0.8, f"only {read_ / whole:.0%} of the input came from the cache"


@pytest.mark.timeout(120)
def test_a_search_survives_a_provider_that_fails_three_times_in_ten(top: Path) -> None:
    script = faults(0.3, seed=3)(searcher(trouble=False))
    with MessagesServer(script) as server:
        _, state = run(config_of(top, server.url, experiments=12))
        check_spend(state, server)
    assert state.phase == "finished"
    assert state.spend.experiments == 12
    assert state.targets["main"].verdicts["keep"] >= 3


def test_a_crash_goes_back_to_its_model_and_is_mended(top: Path) -> None:
    def script(request: Json) -> Reply:
        crash = "ZeroDivisionError" in json.dumps(request["messages"][0])
        if turns(request) == 0:
            content = "ALPHA = 2.0\n" if crash else "1 / 0\n"
            return Reply.calling("write_file", path="parts/a.py", content=content)
        summary = "mend the crash" if crash else "divide"
        return Reply.calling("submit", summary=summary, rationale="to see what happens")

    with MessagesServer(script) as server:
        opened, state = run(config_of(top, server.url, "agents.0.count=1", experiments=1))
        check_spend(state, server)
    repaired = [e for e in read(opened.rundir.ledger) if isinstance(e, Repaired)]
    assert len(repaired) == 1
    one = state.experiments[1]
    assert one.verdict in ("keep", "discard"), one.reason
    assert one.proposal.summary == "mend the crash"
    assert len(one.crashed) == 1
    assert len(set(one.logs)) == len(one.logs), "what crashed has a log of its own"
    kinds = [
        e.measurement.failure.kind if e.measurement.failure else "value"
        for e in read(opened.rundir.ledger)
        if isinstance(e, Measured) and e.purpose == "candidate"
    ]
    assert kinds[:2] == ["crash", "value"], "the mended change is measured under the same number"


def test_a_repeat_is_returned_once_and_costs_no_slot(top: Path) -> None:
    def script(request: Json) -> Reply:
        if not any(m["role"] == "assistant" for m in request["messages"]):
            return Reply.calling(
                "edit_file", path="parts/d.py", old="DELTA = 7.0", new="DELTA = 9.0"
            )
        return Reply.calling("submit", summary="DELTA 7 -> 9", rationale="again and again")

    with MessagesServer(script) as server:
        opened, state = run(config_of(top, server.url, "agents.0.count=2", experiments=4))
        check_spend(state, server)
    events = list(read(opened.rundir.ledger))
    assert sum(isinstance(e, Returned) for e in events) >= 3
    verdicts = [e.verdict for e in events if isinstance(e, Decided)]
    assert sorted(verdicts) == ["discard", "duplicate", "duplicate", "duplicate"]
    measured = {e.experiment for e in events if isinstance(e, Measured) and e.experiment}
    assert len(measured) == 1


def test_a_wrong_key_stops_its_group_and_then_the_run(top: Path) -> None:
    from swarm.errors import RunFailedError

    with (
        MessagesServer(searcher(), key="another key altogether") as server,
        pytest.raises(RunFailedError) as caught,
    ):
        run(config_of(top, server.url, experiments=4))
    assert "ANTHROPIC_API_KEY" in str(caught.value)
    assert caught.value.message.count("a1") == 1, "one message for the group"
    assert KEY not in str(caught.value)


def test_agents_wait_as_long_as_the_provider_says_and_others_go_on(top: Path) -> None:
    def script(request: Json) -> Reply:
        if agent_of(request) == "a2":
            return Reply.failing(429, "come back later", retry_after=3600)
        return searcher(trouble=False)(request)

    with MessagesServer(script) as server:
        opened, state = run(config_of(top, server.url, "agents.0.count=2", experiments=3))
        check_spend(state, server)
    waits = [e for e in read(opened.rundir.ledger) if e.kind == "waiting"]
    assert [e.agent for e in waits] == ["a2"]
    assert waits[0].at is not None
    assert 3500 < (waits[0].until - waits[0].at).total_seconds() < 3700
    assert {e.agent for e in state.experiments.values()} == {"a1"}


# --- as a user would -----------------------------------------------------------------------------


@pytest.fixture
def gone() -> Iterator[None]:
    """Afterwards nothing of the run may be alive."""
    yield
    check_nobody_left()


def launch(top: Path, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "swarm", "launch", str(top.parent / "search.yaml"), *more],
        cwd=top,
        env={**os.environ, "ANTHROPIC_API_KEY": KEY},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def write_config(top: Path, url: str, experiments: int) -> None:
    text = CONFIG.format(repo="repo", url=url, experiments=experiments)
    (top.parent / "search.yaml").write_text(text)


class Freeze:
    """A script that lets conversations hang half-way from a signal on."""

    def __init__(self, script: Script) -> None:
        self.script, self.frozen, self.hung = script, False, 0

    def __call__(self, request: Json) -> Reply:
        if self.frozen and turns(request):
            self.hung += 1
            return Reply(fault=Fault("hang"))
        return self.script(request)


@pytest.mark.ray
@pytest.mark.timeout(280)
@pytest.mark.usefixtures("gone")
@pytest.mark.parametrize(
    "inline",
    [pytest.param(True, id="inline"), pytest.param(False, id="ray", marks=pytest.mark.slow)],
)
def test_a_kill_in_mid_conversation_loses_no_experiment_and_no_spend(
    top: Path, inline: bool
) -> None:
    script = Freeze(searcher(trouble=False))
    more = ["--inline"] if inline else []
    rundir = RunDir(top / ".swarm" / "runs" / "search")
    with MessagesServer(script, key=KEY) as server:
        write_config(top, server.url, 12)
        process = launch(top, *more)
        deadline = time.monotonic() + 90
        while not rundir.ledger.exists() or len(RunState(read(rundir.ledger)).experiments) < 4:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        script.frozen = True
        while script.hung < 4:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.5)  # what was answered has reached the disk
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        before = list(read(rundir.ledger))
        server.release()
        script.frozen = False
        second = launch(top, *more)
        out, err = second.communicate(timeout=150)
        assert second.returncode == 0, err
        events = list(read(rundir.ledger))
        state = RunState(events)
        check_spend(state, server)
    assert events[: len(before)] == before
    assert state.spend.experiments == 12
    assert any(isinstance(e, Spent) for e in events), "what was cut off is on the ledger"
    assert "Autoresearch Summary" in out
    check_no_key(top, out + err)


def check_no_key(top: Path, said: str) -> None:
    """The key is nowhere: no file of the run, of its scratch or of Ray, no output."""
    assert KEY not in said
    for place in (top, top.parent / "search.yaml", Path(os.environ["SWARM_SCRATCH"])):
        found = subprocess.run(
            ["grep", "-rlaF", KEY, str(place)], capture_output=True, text=True, check=False
        )
        assert found.stdout == ""
