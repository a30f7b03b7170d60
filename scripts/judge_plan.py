"""The real plan in an invented world: `plan` on a `RunState`, one agent and one slot, no processes.

Slow, so for few campaigns: it shows that the schedule of `judge_rules.Ours` is that of a run. With
the same seed the two make the same measurements in the same order, and come to the same end.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from judge_worlds import Count, Scalar, SpentError, finish, scalar_bench

from swarm.actions import Action, Crew, Emit, Measure, Promote, Propose, View
from swarm.config import RunConfig
from swarm.mustering import agent_infos
from swarm.plan import plan
from swarm.records import (
    Decided,
    Event,
    Launched,
    Measured,
    Measurement,
    MetricSpec,
    ProcessStamp,
    Promoted,
    Proposal,
    Proposed,
    RunStarted,
    SlotInfo,
    TargetInfo,
)
from swarm.rules import JudgeConfig
from swarm.state import RunState

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SLOT = SlotInfo(name="s0", node="n", machine="cpu")


class PlannedRun:
    """Coordinator, agent and slot at once; a commit is a name, and what it is worth."""

    def __init__(self, world: Scalar, rule: JudgeConfig, seed: str) -> None:
        self.config = RunConfig.model_validate(
            {
                "name": "bench",
                "target": {
                    "scope": ["x"],
                    "run": "true",
                    "metric": {"name": "score", "goal": "maximize"},
                },
                "agents": [{"count": 1, "proposer": "mutate"}],
                "lookahead": 0,
                "judge": rule,
                "budget": {"experiments": 10**6},
            }
        )
        self.bench, self.count = scalar_bench(world, seed), Count()
        self.truth = {"base": 0.0}
        self.state, self.crew = RunState(), Crew(slots={SLOT.name: SLOT})
        metric = MetricSpec(name="score", goal="maximize")
        target = TargetInfo(name="main", metric=metric, repo="/", base="base", base_tree="base")
        agents = agent_infos(self.config)
        self._write(RunStarted(run="bench", targets=(target,), agents=agents))
        stamp = ProcessStamp(role="coordinator", host="h", pid=1, started=0.0)
        here: dict[str, Any] = {"runtime": "bench", "sandbox": "process", "version": "0"}
        self._write(Launched(process=stamp, slots=(SLOT,), agents=agents, **here))

    def live(self) -> Count:
        """Plan and act until the measurements are spent."""
        try:
            while True:
                for action in plan(View(self.state, self.crew, self.config, NOW)):
                    self._act(action)
        except SpentError:
            pass
        target = self.state.targets["main"]
        best = self.truth[target.best]
        record, base = target.primary(target.best).mean, target.primary("base").mean
        finish(self.count, self.bench, best, base, record)
        return self.count

    def _act(self, action: Action) -> None:
        match action:
            case Emit(event):
                if isinstance(event, Decided):
                    base = self.state.experiments[event.number].base
                    effect = self.truth[f"c{event.number}"] - self.truth[base]
                    self.count.decided(effect, event.verdict == "keep")
                self._write(event)
            case Measure():
                self._measure(action)
            case Propose(agent, target, base):
                number = self.state.next_number
                commit = f"c{number}"
                self.truth[commit] = self.truth[base] + self.bench.effect()
                proposal = Proposal(base=base, commit=commit, tree=commit, summary=commit)
                self._write(Proposed(number=number, target=target, agent=agent, proposal=proposal))
            case Promote(target, number, stacked):
                new, old = f"c{number}", self.state.targets[target].best
                where: dict[str, Any] = {"old": old, "new": new, "tree": new, "stacked": stacked}
                self._write(Promoted(target=target, number=number, **where))
            case _:
                raise AssertionError(f"one agent without an end does not ask for {action}")

    def _measure(self, action: Measure) -> None:
        value = self.bench.measure(self.truth[action.commit], action.index)
        result = Measurement(
            commit=action.commit,
            tree=action.tree,
            index=action.index,
            machine=action.machine,
            values={"score": value},
        )
        number, purpose = action.experiment, action.purpose
        self._write(Measured(target="main", purpose=purpose, experiment=number, measurement=result))

    def _write(self, event: Event) -> None:
        self.state.apply(event.model_copy(update={"at": NOW}))  # pyright: ignore[reportArgumentType]


def planned_campaign(world: Scalar, rule: JudgeConfig, seed: str) -> Count:
    """Let the plan decide on proposals until the measurements are spent."""
    return PlannedRun(world, rule, seed).live()
