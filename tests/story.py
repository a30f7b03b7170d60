"""Runs that never ran: event lists for the tests of what reads a ledger.

`Story` writes events one after another, as a coordinator would. `morning()` tells a realistic run
of twelve experiments in which everything happens once; `long_night(n)` is a long one for pictures.
"""

from __future__ import annotations

import hashlib
import random
from datetime import UTC, datetime, timedelta
from typing import Any

from swarm.entities import FINAL_INDEX, Experiment, Target
from swarm.records import (
    AgentInfo,
    AnyEvent,
    Decided,
    Draining,
    Event,
    Failed,
    Failure,
    FailureKind,
    Finished,
    FreshResult,
    Goal,
    Interrupted,
    Launched,
    Measured,
    Measurement,
    MergeOutcome,
    MetricSpec,
    NotMerged,
    ProcessStamp,
    Promoted,
    Proposal,
    Proposed,
    Purpose,
    RunStarted,
    SlotInfo,
    Stacked,
    Synced,
    TargetInfo,
    Usage,
    Verdict,
)
from swarm.state import RunState

START = datetime(2026, 3, 14, 12, 0, 0, tzinfo=UTC)
MACHINE = "cpu-x86"
HOSTILE = (
    "\x1b[31mred\x1b[0m \x1b]8;;http://evil.example\x07link\x1b]8;;\x07\r\n"
    "[bold red]markup[/] \u202egnp.exe\u202c $x^2$ | <b>tab</b>\there " + "A" * 10_000
)


def sha(*words: object) -> str:
    """Make a full sha out of anything."""
    return hashlib.sha1(repr(words).encode()).hexdigest()


class Story:
    """Writes a ledger's events; `state` is always folded up to the last one."""

    def __init__(
        self,
        *,
        run: str = "tiny-gpt",
        metric: str = "val_bpb",
        goal: Goal = "minimize",
        agents: int = 3,
        slots: int = 2,
        unit: str | None = None,
        seconds: float = 20.0,
    ) -> None:
        self.events: list[AnyEvent] = []
        self.state = RunState()
        self.now = START
        self.seconds = seconds
        self.base, self.base_tree = sha(run, "base"), sha(run, "base tree")
        self._run, self._slots = run, slots
        spec = MetricSpec(name=metric, goal=goal, unit=unit)
        target = TargetInfo(
            name="main", metric=spec, repo="/repo", base=self.base, base_tree=self.base_tree
        )
        self._agents = tuple(
            AgentInfo(name=f"a{i}", targets=("main",), proposer="mutate")
            for i in range(1, agents + 1)
        )
        self.add(RunStarted(run=run, targets=(target,), agents=self._agents, seed=7))

    @property
    def target(self) -> Target:
        return self.state.targets["main"]

    def experiment(self, number: int) -> Experiment:
        return self.state.experiments[number]

    def commit(self, number: int) -> str:
        commit = self.experiment(number).proposal.commit
        assert commit is not None
        return commit

    def add(self, event: Event, after: float = 0.1) -> AnyEvent:
        """Write one event, `after` seconds later than the last one."""
        self.now += timedelta(seconds=after)
        update: dict[str, Any] = {"seq": len(self.events), "at": self.now}
        written: Any = event.model_copy(update=update)
        self.events.append(written)
        self.state.apply(written)
        return written

    def launch(self, open_: tuple[str, ...] = ("files", "network")) -> None:
        stamp = ProcessStamp(role="coordinator", host="h", pid=42, started=1.0)
        slots = tuple(
            SlotInfo(name=f"s{i}", node="n1", machine=MACHINE) for i in range(self._slots)
        )
        self.add(
            Launched(
                process=stamp,
                runtime="inline",
                slots=slots,
                agents=self._agents,
                sandbox="process",
                sandbox_open=open_,
                version="0.1.0",
            )
        )

    def _measured(
        self, commit: str, tree: str, purpose: Purpose, number: int | None, **fields: Any
    ) -> None:
        record = self.target.records.get((tree, MACHINE))
        index = fields.pop("index", record.attempts if record else 0)
        measurement = Measurement(
            commit=commit,
            tree=tree,
            index=index,
            machine=MACHINE,
            seconds=self.seconds,
            log=f"logs/{number or 0}/{purpose}-{index}.log",
            **fields,
        )
        event = Measured(
            target="main",
            purpose=purpose,
            experiment=number,
            slot="s0",
            busy_seconds=self.seconds + 1,
            measurement=measurement,
        )
        self.add(event, 1.2 * self.seconds / self._slots)

    def value(self, value: float, memory_mb: float = 2048.0, **others: float) -> dict[str, Any]:
        name = self.target.info.metric.name
        return {"values": {name: value, **others}, "peak_memory_mb": memory_mb}

    def baseline(self, *values: float) -> None:
        for value in values:
            self._measured(self.base, self.base_tree, "baseline", None, **self.value(value))

    def propose(
        self, agent: str, summary: str, *, on: str | None = None, same_as: int | None = None,
        invalid: str | None = None, port_of: int | None = None, usd: float = 0.01,
    ) -> int:  # fmt: skip
        """Number a proposal; it is on the agent's incumbent unless `on` says otherwise."""
        number = self.state.next_number
        tree = None if same_as is None else self.experiment(same_as).proposal.tree
        if tree is None and invalid is None:
            tree = sha(self._run, "tree", number)
        proposal = Proposal(
            base=on or self.state.agents[agent].loops["main"].incumbent,
            commit=None if invalid else sha(self._run, "commit", number),
            tree=None if invalid else tree,
            summary=summary,
            rationale=f"Because of experiment {number - 1}.",
            usage=Usage(usd=usd, input_tokens=900, output_tokens=100, seconds=3.0),
            edit={"site": number},
            invalid=invalid,
            port_of=port_of,
            files=() if invalid else ("train.py",),
            lines_added=1,
            lines_removed=1,
        )
        self.add(Proposed(number=number, target="main", agent=agent, proposal=proposal))
        return number

    def measure(self, number: int, *values: float, purpose: Purpose = "candidate") -> None:
        proposal = self.experiment(number).proposal
        assert proposal.commit is not None
        assert proposal.tree is not None
        for value in values:
            self._measured(
                proposal.commit, proposal.tree, purpose, number, **self.value(value, accuracy=0.5)
            )

    def control(self, number: int, value: float) -> None:
        base = self.experiment(number).base
        tree = self.target.tree_of[base]
        self._measured(base, tree, "control", number, **self.value(value))

    def fail(self, number: int, kind: FailureKind, reason: str, tail: str = "") -> None:
        proposal = self.experiment(number).proposal
        assert proposal.commit is not None
        assert proposal.tree is not None
        failure = Failure(kind=kind, reason=reason, tail=tail)
        self._measured(proposal.commit, proposal.tree, "candidate", number, failure=failure)

    def decide(
        self, number: int, verdict: Verdict, reason: str = "", z: float | None = None
    ) -> None:
        experiment = self.experiment(number)
        gain = None
        if experiment.proposal.commit is not None and verdict in ("keep", "discard"):
            ours = self.target.primary(experiment.proposal.commit)
            theirs = self.target.primary(experiment.base)
            gain = self.target.info.metric.sign * (ours.mean - theirs.mean) if ours.n else None
        self.add(
            Decided(number=number, verdict=verdict, reason=reason, z=z, gain=gain, incumbent_n=5)
        )

    def promote(self, number: int, *, values: tuple[float, ...] = ()) -> None:
        """Fast-forward `best` to an experiment, or to its stack when one is being measured."""
        target, stack = self.target, self.target.stack
        proposal = self.experiment(number).proposal
        assert proposal.tree is not None
        if stack is not None:
            for value in values:
                self._measured(stack.commit, stack.tree, "stack", number, **self.value(value))
        self.add(
            Promoted(
                target="main",
                number=number,
                old=target.best,
                new=sha(self._run, "best", number) if stack is None else stack.commit,
                tree=proposal.tree if stack is None else stack.tree,
                stacked=stack is not None,
            )
        )

    def stack(self, number: int, predicted: float = 0.01) -> None:
        self.add(
            Stacked(
                target="main",
                number=number,
                onto=self.target.best,
                commit=sha(self._run, "stack", number, self.target.best),
                tree=sha(self._run, "stack tree", number, self.target.best),
                predicted=predicted,
            )
        )

    def not_merged(
        self, number: int, outcome: MergeOutcome, reason: str, *, final: bool = True
    ) -> None:
        onto = self.target.best
        self.add(
            NotMerged(
                target="main", number=number, outcome=outcome, reason=reason, onto=onto, final=final
            )
        )

    def sync(self, agent: str) -> None:
        best = self.target.best
        self.add(Synced(agent=agent, target="main", commit=best, tree=self.target.tree_of[best]))

    def drain(self, reason: str = "budget: 12 experiments") -> None:
        self.add(Draining(reason=reason))

    def finals(self, base: tuple[float, ...], best: tuple[float, ...]) -> FreshResult:
        """Measure base and best afresh and say what follows; `finish` takes it."""
        commits = (self.base, self.target.best)
        for i, pair in enumerate(zip(base, best, strict=True)):
            for commit, value in zip(commits, pair, strict=True):
                tree = self.target.tree_of[commit]
                fields = self.value(value)
                self._measured(commit, tree, "final", None, index=FINAL_INDEX + i, **fields)
        means = sum(base) / len(base), sum(best) / len(best)
        sigma = self.target.spreads[MACHINE].sigma or 0.0
        return FreshResult(
            gain=self.target.info.metric.sign * (means[1] - means[0]),
            se=sigma * (2 / len(base)) ** 0.5,
            n=len(base),
            base_mean=means[0],
            best_mean=means[1],
        )

    def finish(self, result: FreshResult | None = None, reason: str = "budget reached") -> None:
        results = {} if result is None else {"main": result}
        self.add(Finished(reason=reason, results=results))

    def interrupt(self) -> None:
        self.add(Interrupted(reason="SIGINT"))

    def give_up(self, error: str, hint: str | None = None) -> None:
        self.add(Failed(error=error, hint=hint))


def begun() -> Story:
    """A run with its baseline, and nothing else yet."""
    story = Story()
    story.launch()
    story.baseline(2.981, 2.990, 2.972, 2.985, 2.977)
    return story


def half_a_morning() -> Story:
    """Up to the middle of things: 1 to 3 decided, 4 and 5 open."""
    story = begun()
    one = story.propose("a1", "LEARNING_RATE 0.001 -> 0.002 in train.py")
    two = story.propose("a2", "DEPTH 4 -> 6 in train.py")
    three = story.propose("a3", "BATCH 16 -> 4096 in train.py")
    story.measure(one, 2.911)
    story.decide(one, "keep", "0.07 better than the incumbent: z = +9.1 from 1 against 5 runs", 9.1)
    story.measure(two, 3.012)
    story.decide(two, "discard", "0.031 worse than the incumbent: z = -4.0", -4.0)
    story.fail(three, "crash", "exit status 1", "Traceback\nMemoryError: out of memory\n")
    story.decide(three, "crash", "exit status 1")
    story.promote(one)
    story.measure(one, 2.909, 2.913, purpose="confirm")
    for agent in ("a1", "a2", "a3"):
        story.sync(agent)
    four = story.propose("a1", "WARMUP 100 -> 200 in train.py")
    story.propose("a2", "WEIGHT_DECAY 0.1 -> 0.05 in train.py")
    story.measure(four, 2.905)
    story.control(four, 2.912)
    return story


def morning() -> Story:
    """Twelve experiments, finished: every verdict but `aborted`, and every way to `best`."""
    story = half_a_morning()
    story.measure(4, 2.908)
    story.decide(4, "discard", "undecided after 5 runs", 0.9)
    story.measure(5, 2.861)
    story.decide(5, "keep", "0.05 better: z = +6.5", 6.5)
    story.promote(5)
    story.measure(5, 2.858, 2.864, purpose="confirm")
    first_best = story.experiment(1).merged
    six = story.propose("a3", "while True: a loop without an end", on=first_best)
    story.fail(six, "timeout", "still running after 600 s")
    story.decide(six, "timeout", "still running after 600 s")
    seven = story.propose("a3", "", invalid="the diff touches prepare.py, which is out of scope")
    story.decide(seven, "invalid", "the diff touches prepare.py, which is out of scope")
    eight = story.propose("a1", "WARMUP 100 -> 200 in train.py again", on=first_best, same_as=4)
    story.decide(eight, "duplicate", "same tree as experiment 4")
    nine = story.propose("a3", "OPTIMIZER 'adam' -> 'muon' in train.py", on=first_best)
    story.measure(nine, 2.868)
    story.decide(nine, "keep", "0.04 better: z = +5.1", 5.1)
    story.stack(nine, predicted=0.024)
    story.measure(nine, 2.866, 2.870, purpose="confirm")
    story.promote(nine, values=(2.822, 2.826))
    ten = story.propose("a2", "HEADS 4 -> 8 in train.py")
    story.measure(ten, 2.829)
    story.decide(ten, "keep", "0.03 better: z = +4.2", 4.2)
    story.not_merged(ten, "conflict", "train.py line 12", final=False)
    story.not_merged(ten, "conflict", "train.py line 12")
    eleven = story.propose("a1", "tests removed", on=first_best)
    story.fail(eleven, "guard_failed", "`pytest -q` exited with 1")
    story.decide(eleven, "guard_failed", "`pytest -q` exited with 1")
    twelve = story.propose("a2", "WIDTH 256 -> 1024 in train.py", on=first_best)
    story.measure(twelve, 2.801)
    story.decide(twelve, "constraint_failed", "peak_memory_mb = 9000 is over 8000")
    story.drain()
    result = story.finals((2.980, 2.975, 2.986, 2.979, 2.983), (2.824, 2.829, 2.821, 2.826, 2.823))
    story.finish(result)
    return story


SUMMARIES = (
    "LEARNING_RATE 0.001 -> 0.002 in train.py",
    "Use a cosine schedule with a floor of 10 % instead of a linear one",
    "DEPTH 8 -> 9",
    "Replace GELU by squared ReLU in the MLP",
    "Tie the embedding weights",
    "HEAD_DIM 64 -> 128, fewer and wider heads, keeps the parameter count",
    "Warm up for 40 steps",
    "Batch size 32 -> 24: more steps in the same time",
    "RMSNorm without a learned scale",
    "Rotary base 10000 -> 50000",
)


def long_night(n: int, *, goal: Goal = "minimize", seed: int = 1) -> Story:
    """A long run: rarely a win, ever smaller wins, now and then a disaster or a crash."""
    rng = random.Random(seed)
    story = Story(run=f"night-{n}", goal=goal, agents=8, slots=8, seconds=4.0)
    story.launch()
    sign, sigma = story.target.info.metric.sign, 0.0012
    story.baseline(*(1.02 + rng.gauss(0, sigma) for _ in range(5)))
    truth = {story.base: 1.02}
    for i in range(n):
        number = story.propose(f"a{1 + i % 8}", rng.choice(SUMMARIES), on=story.target.best)
        fate = rng.random()
        if fate < 0.06:
            story.fail(number, "crash", "exit status 1")
            story.decide(number, "crash", "exit status 1")
            continue
        step = rng.expovariate(1 / 0.006) * 0.985**i
        win = fate > 0.88 or i in (2, 5)
        effect = step + 2.5 * sigma if win else -rng.expovariate(1 / 0.01)
        if fate < 0.09:
            effect = -rng.uniform(0.3, 3.0)
        value = truth[story.target.best] + sign * effect
        story.measure(number, value + rng.gauss(0, sigma))
        if not win:
            story.decide(number, "discard", "worse", -1.0)
            continue
        story.decide(number, "keep", "better", 4.0)
        story.measure(number, *(value + rng.gauss(0, sigma) for _ in range(2)), purpose="confirm")
        if rng.random() < 0.8:
            story.promote(number)
            truth[story.target.best] = value
    return story
