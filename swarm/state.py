"""The run as its events tell it: folds the ledger, one event at a time, in place.

Owns what `plan` and all views read. Decides nothing and touches nothing outside. Folding an event
costs the same at experiment 3,000 as at experiment 3.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime

from swarm.entities import (
    MEMORY,
    THIN,
    Agent,
    Experiment,
    Loop,
    Phase,
    Spend,
    Target,
    attempt_of,
    bounded,
    means,
    note,
)
from swarm.judge import Record
from swarm.records import (
    DRIFT,
    AgentInfo,
    AnyEvent,
    Decided,
    Draining,
    Dropped,
    Ended,
    Exhausted,
    Failed,
    Finished,
    FreshResult,
    Interrupted,
    Launched,
    Measured,
    Measurement,
    MergeOutcome,
    NotMerged,
    Parked,
    Paused,
    Prepared,
    ProcessStamp,
    Promoted,
    Proposal,
    Proposed,
    Repaired,
    Resumed,
    Returned,
    RunStarted,
    SlotInfo,
    Spent,
    Stacked,
    Started,
    Synced,
    Usage,
    Waiting,
    WarmStarted,
    Warned,
)


class RunState:
    """Everything a run has come to, from its ledger alone."""

    def __init__(self, events: Iterable[AnyEvent] = ()) -> None:
        self.run = ""
        self.seed = 0
        self.targets: dict[str, Target] = {}
        self.agents: dict[str, Agent] = {}
        self.experiments: dict[int, Experiment] = {}
        self.spend = Spend()
        self.phase: Phase = "running"
        self.reason = ""
        self.hint: str | None = None
        self.started_at: datetime | None = None
        self.launched_at: datetime | None = None
        """When the present launch began, moved on by the pauses in it."""
        self.paused_at: datetime | None = None
        self.last_at: datetime | None = None
        self.launch: Launched | None = None
        self.processes: list[ProcessStamp] = []
        self.warnings: dict[str, str] = {}
        """What was warned of, once: a limit that is nearly used up, or `drift` -> the words."""
        self.next_number = 1
        for event in events:
            self.apply(event)

    def apply(self, event: AnyEvent) -> None:
        """Fold one event."""
        if self.started_at is None:
            self.started_at = event.at
        handler = getattr(self, f"_on_{event.kind}")
        handler(event)
        if event.at is not None:
            self.last_at = event.at

    def branch(self, target: str, name: str) -> str:
        """Give the branch of `best`, or of an agent, on a target."""
        part = self.targets[target].info.part
        return "/".join(("swarm", self.run, *([part] if part else []), name))

    def closing(self, target: Target) -> bool:
        """Tell whether nothing new is begun on a target: what is there is brought to its end."""
        return self.phase == "draining" or target.ended is not None

    def prepared(self, target: str) -> Iterator[tuple[str, Proposal]]:
        """Give what agents have prepared for a target, each with the agent's name."""
        for name, agent in self.agents.items():
            loop = agent.loops.get(target)
            if loop is not None and loop.prepared is not None:
                yield name, loop.prepared

    @property
    def drifts(self) -> list[str]:
        """What was warned of machines that drift."""
        found = self.warnings.items()
        return [words for limit, words in found if limit.partition(".")[0] == DRIFT]

    @property
    def slots(self) -> tuple[SlotInfo, ...]:
        """The slots of the last launch."""
        return self.launch.slots if self.launch else ()

    def elapsed(self, now: datetime) -> float:
        """Seconds that the run has been running, over all its launches, pauses left out."""
        return self.spend.seconds + self._running_for(now)

    def _running_for(self, now: datetime) -> float:
        if self.launched_at is None:
            return 0.0
        end = now if self.paused_at is None else min(now, self.paused_at)
        return max(0.0, (end - self.launched_at).total_seconds())

    # --- the life of a run ---

    def _on_run_started(self, event: RunStarted) -> None:
        self.run, self.seed = event.run, event.seed
        for info in event.targets:
            target = Target(info, best=info.base)
            target.tree_of[info.base] = info.base_tree
            target.number_of[info.base_tree] = 0
            self.targets[info.name] = target
        self._enrol(event.agents)

    def _on_launched(self, event: Launched) -> None:
        if self.last_at is not None:  # of a launch that was killed
            self.spend.seconds += self._running_for(self.last_at)
        self.launch, self.launched_at = event, event.at
        self.paused_at = event.at if self.phase == "paused" else None
        self.processes = [event.process]
        if self.phase != "paused":
            self.phase, self.reason, self.hint = "running", "", None
        self._enrol(event.agents)
        here = {info.name for info in event.agents}
        for name, agent in self.agents.items():
            agent.gone = name not in here
            agent.parked = "it is not in the config any more" if agent.gone else None
            for loop in agent.loops.values():
                loop.exhausted, loop.invalid_streak = None, 0
        kinds = {s.machine for s in event.slots}
        for target in self.targets.values():
            target.failed_on_base.clear()  # it may have been repaired
            target.ended, target.failed, target.aborts = None, False, []
            for experiment in target.open.values():
                if experiment.machine not in kinds:  # compare it where there are slots now
                    experiment.machine, experiment.controls = None, 0

    def _enrol(self, agents: Iterable[AgentInfo]) -> None:
        for info in agents:
            agent = self.agents.setdefault(info.name, Agent(info))
            agent.info = info
            for name in info.targets:
                agent.loops.setdefault(name, Loop(self.targets[name].best))

    def _on_started(self, event: Started) -> None:
        self.processes.append(event.process)

    def _on_paused(self, event: Paused) -> None:
        self.phase, self.paused_at = "paused", event.at

    def _on_resumed(self, event: Resumed) -> None:
        if self.launched_at is not None and self.paused_at is not None and event.at is not None:
            self.launched_at += event.at - self.paused_at
        self.phase, self.paused_at = "running", None

    def _on_draining(self, event: Draining) -> None:
        self.phase, self.reason = "draining", event.reason

    def _close_launch(self, event: AnyEvent) -> None:
        if event.at is not None:
            self.spend.seconds += self._running_for(event.at)
        self.launched_at = self.paused_at = None

    def _on_interrupted(self, event: Interrupted) -> None:
        self._close_launch(event)
        self.phase, self.reason = "interrupted", event.reason

    def _on_failed(self, event: Failed) -> None:
        self._close_launch(event)
        self.phase, self.reason, self.hint = "failed", event.error, event.hint
        self._take_results(event.results)

    def _on_finished(self, event: Finished) -> None:
        self._close_launch(event)
        self.phase, self.reason = "finished", event.reason
        self._take_results(event.results)

    def _take_results(self, results: dict[str, FreshResult]) -> None:
        for name, result in results.items():
            self.targets[name].result = result

    # --- agents ---

    def _on_prepared(self, event: Prepared) -> None:
        loop = self.agents[event.agent].loops[event.target]
        loop.instead_of = loop.returned and loop.returned.twin
        loop.prepared, loop.returned = event.proposal, None
        self._pay(event.agent, event.target, event.proposal.usage)

    def _on_returned(self, event: Returned) -> None:
        self.agents[event.agent].loops[event.target].returned = event
        self.spend.returned += event.proposal.usage.paid
        self._pay(event.agent, event.target, event.proposal.usage)

    def _on_spent(self, event: Spent) -> None:
        self._pay(event.agent, event.target, event.usage)

    def _on_waiting(self, event: Waiting) -> None:
        agent = self.agents[event.agent]
        self._pay(event.agent, event.target, event.usage)
        agent.waiting_until, agent.waiting_reason = event.until, event.reason

    def _on_warned(self, event: Warned) -> None:
        self.warnings[event.limit] = event.message

    def _on_warm_started(self, event: WarmStarted) -> None:
        self.targets[event.target].earlier = event.attempts

    def _on_dropped(self, event: Dropped) -> None:
        loop = self.agents[event.agent].loops[event.target]
        self.spend.dropped += loop.prepared is not None and loop.prepared.usage.paid
        loop.prepared = loop.instead_of = None

    def _on_synced(self, event: Synced) -> None:
        self.agents[event.agent].loops[event.target].incumbent = event.commit
        self.targets[event.target].tree_of[event.commit] = event.tree

    def _on_parked(self, event: Parked) -> None:
        agent = self.agents[event.agent]
        agent.parked, agent.hint = event.reason, event.hint

    def _on_exhausted(self, event: Exhausted) -> None:
        agent = self.agents[event.agent]
        agent.loops[event.target].exhausted = event.reason

    def _on_ended(self, event: Ended) -> None:
        target = self.targets[event.target]
        target.ended, target.failed = event.reason, event.failed

    def _pay(self, name: str, target: str | None, usage: Usage) -> None:
        agent = self.agents[name]
        agent.proposals += 1
        agent.waiting_until, agent.waiting_reason = None, ""
        agent.usd += usage.usd
        agent.tokens += usage.tokens
        self.spend.usd += usage.usd
        self.spend.tokens += usage.tokens
        if target is not None:
            self.targets[target].usd += usage.usd
            self.targets[target].tokens += usage.tokens

    # --- experiments ---

    def _on_proposed(self, event: Proposed) -> None:
        agent, target = self.agents[event.agent], self.targets[event.target]
        proposal, loop = event.proposal, agent.loops[event.target]
        if loop.prepared is None:
            self._pay(event.agent, event.target, proposal.usage)
        experiment = Experiment(event.number, event.target, event.agent, proposal, at=event.at)
        experiment.returned = loop.returned.twin if loop.returned else loop.instead_of
        loop.prepared = loop.returned = loop.instead_of = None
        experiment.level = len(target.promotions)
        experiment.usd, experiment.tokens = proposal.usage.usd, proposal.usage.tokens
        self.experiments[event.number] = target.open[event.number] = experiment
        self.next_number = max(self.next_number, event.number + 1)
        self.spend.experiments += 1
        agent.experiments += 1
        loop.experiments += 1
        loop.open.add(event.number)
        if proposal.commit is not None and proposal.tree is not None:
            target.tree_of[proposal.commit] = proposal.tree
            if proposal.twin is None:
                target.number_of.setdefault(proposal.tree, event.number)
                target.tried.add(event.number, proposal)
        if proposal.port_of is not None and proposal.port_of in self.experiments:
            self.experiments[proposal.port_of].ported_by = event.number
            if proposal.port_of in target.ports:
                target.ports.remove(proposal.port_of)
        target.attempts.append(attempt_of(experiment))

    def _on_decided(self, event: Decided) -> None:
        experiment = self.experiments[event.number]
        target, agent = self.targets[experiment.target], self.agents[experiment.agent]
        loop = agent.loops[experiment.target]
        experiment.verdict, experiment.reason = event.verdict, event.reason
        experiment.z, experiment.gain = event.z, event.gain
        experiment.fixed, experiment.broken = event.fixed, event.broken
        target.open.pop(event.number, None)
        loop.open.discard(event.number)
        target.verdicts[event.verdict] += 1
        target.attempts.append(attempt_of(experiment, means(target, experiment)))
        loop.invalid_streak = loop.invalid_streak + 1 if event.verdict == "invalid" else 0
        if event.verdict == "aborted":
            self.spend.experiments -= 1
            agent.experiments -= 1
            loop.experiments -= 1
            tree = experiment.proposal.tree or ""
            if target.number_of.get(tree) == event.number:
                del target.number_of[tree]
            target.tried.drop(event.number, experiment.proposal)
            return
        target.since_keep += 1
        loop.streak += 1
        agent.invalid += event.verdict == "invalid"
        if event.verdict != "keep":
            return
        proposal = experiment.proposal
        assert proposal.commit is not None
        assert proposal.tree is not None
        target.since_keep = loop.streak = 0
        target.queue.append(event.number)
        if not target.spread(experiment.machine or "").deterministic:
            target.unconfirmed[proposal.tree] = proposal.commit
        experiment.merged = "queued"
        agent.keeps += 1
        loop.queued.add(event.number)
        loop.incumbent = proposal.commit

    def _on_repaired(self, event: Repaired) -> None:
        experiment, proposal = self.experiments[event.number], event.proposal
        target = self.targets[experiment.target]
        self._pay(experiment.agent, experiment.target, proposal.usage)
        experiment.repairs += 1
        experiment.usd += proposal.usage.usd
        experiment.tokens += proposal.usage.tokens
        if proposal.commit is None or proposal.tree is None:
            experiment.gave_up = True
            return
        if target.number_of.get(proposal.tree) == event.number:
            experiment.gave_up = True  # it is what has crashed already
            return
        if experiment.proposal.commit is not None:
            experiment.crashed.append(experiment.proposal.commit)
        usage = experiment.proposal.usage + proposal.usage
        experiment.proposal = proposal.model_copy(update={"usage": usage})
        experiment.failed, experiment.machine, experiment.controls = None, None, 0
        target.tree_of[proposal.commit] = proposal.tree
        target.number_of.setdefault(proposal.tree, event.number)
        target.tried.add(event.number, proposal)
        target.attempts.append(attempt_of(experiment))

    def _on_measured(self, event: Measured) -> None:
        target, result = self.targets[event.target], event.measurement
        self.spend.measurements += 1
        self.spend.busy_seconds += event.busy_seconds
        self.spend.usd += result.usd
        self.spend.tokens += result.tokens
        target.usd += result.usd
        target.tokens += result.tokens
        target.busy_seconds += event.busy_seconds
        target.measurements += 1
        for each in self.targets.values():
            each.lately *= 1 - 1 / (MEMORY * len(self.targets))
        target.lately += event.busy_seconds
        aborted = result.failure is not None and result.failure.kind == "aborted"
        reasons = [*target.aborts, result.failure.reason] if aborted and result.failure else []
        target.aborts = reasons
        if event.purpose == "final":
            if not aborted:
                self._take_final(target, result)
        elif not aborted:
            self._take(target, event)
        experiment = self.experiments.get(event.experiment or 0)
        if experiment is not None and experiment.verdict is None:
            note(experiment, event, aborted)
        if event.purpose == "stack" and target.stack is not None and result.failure is not None:
            if aborted:
                target.stack_aborts += 1
            else:
                target.stack_failed = result

    def _take_final(self, target: Target, result: Measurement) -> None:
        target.finals_tried.setdefault(result.commit, set()).add(result.index)
        value = target.value(result) if result.failure is None else None
        if value is not None:
            target.finals.setdefault(result.commit, []).append(value)
        sealed = result.sealed
        if sealed is None:
            return
        if sealed.failure is not None:
            target.sealed_failed[result.commit] = sealed.failure.reason
        elif (value := sealed.values.get(target.info.metric.name)) is not None:
            target.sealed.setdefault(result.commit, []).append(bounded(value))

    def _take(self, target: Target, event: Measured) -> None:
        result = event.measurement
        key = (result.tree, result.machine)
        record = target.records.setdefault(key, Record())
        record.attempts = max(record.attempts, result.index + 1)
        if event.purpose == "baseline" and result.failure is not None:
            target.failed_on_base.append(result)
        if event.purpose == "control":
            target.compared[result.tree] = 0
            stack = target.stack
            if event.experiment is None and stack and result.tree == target.tree_of[stack.onto]:
                target.stack_controls[result.machine] += 1
        if result.failure is not None:
            target.unconfirmed.pop(result.tree, None)  # no top-up will come
            return
        target.take(result, record)
        if record.primary.n >= THIN:
            target.unconfirmed.pop(result.tree, None)
        if event.purpose == "candidate" and result.index == 0 and event.experiment is not None:
            base = target.tree_of[self.experiments[event.experiment].base]
            target.compared[base] = target.compared.get(base, 0) + 1

    def _loop(self, experiment: Experiment) -> Loop:
        return self.agents[experiment.agent].loops[experiment.target]

    # --- merging ---

    def _on_stacked(self, event: Stacked) -> None:
        target = self.targets[event.target]
        target.stack, target.stack_controls = event, Counter()
        target.stack_failed, target.stack_aborts = None, 0
        target.tree_of[event.commit] = event.tree
        target.number_of.setdefault(event.tree, event.number)

    def _on_promoted(self, event: Promoted) -> None:
        target = self.targets[event.target]
        target.best = event.new
        target.tree_of[event.new] = event.tree
        target.promotions.append(event)
        target.finals, target.finals_tried = {}, {}
        target.sealed, target.sealed_failed = {}, {}
        noisy = not all(s.deterministic for s in target.spreads.values())
        if event.stacked and noisy and target.primary(event.new).n < THIN:
            target.unconfirmed[event.tree] = event.new
        for agent in self.agents.values():
            if (loop := agent.loops.get(event.target)) is not None:
                # It had tried all it could think of on the old best.
                loop.exhausted, loop.invalid_streak = None, 0
        experiment = self.experiments[event.number]
        self.agents[experiment.agent].gain += experiment.gain or 0.0
        self._leave_queue(target, event.number, event.new)

    def _on_not_merged(self, event: NotMerged) -> None:
        target = self.targets[event.target]
        experiment = self.experiments[event.number]
        experiment.merge_reason = event.reason
        if event.outcome == "conflict":
            experiment.conflict_onto = event.onto
            # It may wait long for the next best; its agent need not wait with it.
            self._loop(experiment).queued.discard(event.number)
        if event.final:
            self._leave_queue(target, event.number, event.outcome)
            if event.outcome == "conflict":
                target.ports.append(event.number)

    def _leave_queue(self, target: Target, number: int, merged: str | MergeOutcome) -> None:
        experiment = self.experiments[number]
        experiment.merged = merged
        if number in target.queue:
            target.queue.remove(number)
        self._loop(experiment).queued.discard(number)
        if target.stack is not None and target.stack.number == number:
            target.stack = None
