"""The loop of a run: what happened goes to the ledger, the plan says what is next, and it is done.

The one writer of ledger and hub. Every event is durable before the action that it allows, so a
kill at any moment loses at most work in flight. Decides nothing: that is `plan`. Knows of Ray and
threads only that a `Runtime` carries jobs.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from swarm import __version__, best, mustering, versions
from swarm.actions import (
    Action,
    Crew,
    Emit,
    Fail,
    Finish,
    Leave,
    Measure,
    Number,
    Promote,
    Propose,
    Stack,
    View,
)
from swarm.agent import ProposeDone, Ready
from swarm.briefing import Idea
from swarm.config import RunConfig
from swarm.entities import Loop
from swarm.errors import GitError, HarnessError, PreconditionError, RunFailedError, remedy
from swarm.formats import results_tsv
from swarm.jobs import job_of
from swarm.keys import blot, blot_bytes, secrets
from swarm.ledger import Ledger, read
from swarm.node import MeasureDone, MeasureJob, NodeSite
from swarm.plan import plan
from swarm.records import (
    AnyEvent,
    Decided,
    Draining,
    Dropped,
    Ended,
    Exhausted,
    Failed,
    Failure,
    Finished,
    Interrupted,
    Launched,
    Measured,
    Measurement,
    Parked,
    Paused,
    Prepared,
    Promoted,
    Proposal,
    Proposed,
    Repaired,
    Resumed,
    Returned,
    Spent,
    Started,
    Synced,
    Waiting,
    Warned,
)
from swarm.repeats import twin_of
from swarm.repo import Hub
from swarm.rundir import RunDir
from swarm.runtime import Done, Lost, Muster, Runtime, Up
from swarm.sandbox import INSTALL, RUNGS, Rung, end_leftover, probe, stamp
from swarm.state import RunState

log = logging.getLogger("swarm")

POLL_S = 0.2
"""How long to wait for something to happen before looking at control requests and the clock."""
MANY_REFS = 32
"""Updates of refs that are worth a git process while there is other work."""
SHORTEST_WAIT_S = 1.0
"""However soon a provider would be asked again: it has just refused several times."""
MAX_LOST = 5
"""Times in a row that an agent may be lost before it is parked."""


class Coordinator:
    """One run, from launch to end. Create it, then call `run` once."""

    def __init__(
        self,
        rundir: RunDir,
        config: RunConfig,
        runtime: Runtime,
        *,
        prefixes: Mapping[str, str],
        keys: Mapping[str, str] | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        lock_wait_s: float = 30.0,
    ) -> None:
        self._dir, self._config, self._runtime, self._clock = rundir, config, runtime, clock
        self._prefixes, self._keys = prefixes, keys or {}
        self._secrets = secrets(self._keys)
        self._ledger = Ledger(rundir.ledger, wait_s=lock_wait_s)
        self.state = RunState(read(rundir.ledger))
        self._hub = Hub(rundir.hub, self.state.run)
        self._crew = Crew(slots={})
        self._known: dict[str, set[str]] = {}
        self._newest: dict[str, str] = {}
        self._sent: dict[tuple[str, str], int] = {}
        """How many of a target's attempts an agent has been told: by agent and target."""
        self._aimed: dict[str, str] = {}
        """The target of each agent's last proposal, whatever becomes of it."""
        self._lost: dict[str, int] = {}
        self._refs: dict[str, tuple[str, str | None]] = {}
        """Where the hub's refs have to go, and from where. They wait for company: a git process
        costs milliseconds."""
        self._over = False
        self._packing = True
        self._undelivered = False
        """The user's repository refused `best` the last time."""

    def run(self) -> RunState:
        """Start or resume, and go on until the run ends or is interrupted.

        Raises:
            HarnessError: the base of the target cannot be measured.
            RunFailedError: no agent is left that could go on.
            PreconditionError: what the config asks for is not there.
        """
        try:
            self._recover()
            self._launch()
            while not self._over:
                self._drive()
                if len(self._refs) >= MANY_REFS:
                    self._settle()
                if not self._over:
                    self._wait()
                    self._listen()
            self._settle()
            self._tidy()
            if self._undelivered:  # what was in the way may be gone
                self._deliver()
            return self.state
        except OSError as error:
            if remedy(error) is None:
                raise
            what = f"cannot write {error.filename or self._dir.path}: {error.strerror}"
            raise PreconditionError(what, hint=remedy(error), path=self._dir.path) from error
        finally:
            try:
                self._runtime.close()
            finally:
                self._ledger.close()

    def interrupt(self, reason: str) -> None:
        """Finish what is being measured, start nothing, leave a resumable run. Any thread."""
        self._crew.interrupted = reason

    # --- start ---

    def _recover(self) -> None:
        """End what an earlier launch left running, and make the hub say what the ledger says."""
        for process in self.state.processes:
            ours = process.pid == os.getpid()  # a resume in the process that ran it before
            if process.host == socket.gethostname() and not ours and end_leftover(process):
                log.warning("ended a leftover of an earlier launch: %s", process.role)
        self._hub.recover()
        refs = self._hub.refs()
        wanted = {r: c for r, c in self._wanted_refs().items() if refs.get(r) != c}
        lost = {c for c in set(wanted.values()) if not self._hub.has(c)}
        self._hub.update_refs((r, c, None) for r, c in wanted.items() if c not in lost)
        self._do_without(lost)
        if any(t.promotions for t in self.state.targets.values()):
            self._deliver()

    def _do_without(self, lost: set[str]) -> None:
        """Give up what the machine took with it: unlike the ledger, git's files are not synced."""
        vital = {t.best for t in self.state.targets.values()} | self._incumbents()
        if gone := vital & lost:
            raise PreconditionError(
                f"the hub {self._hub.path} lacks the commit {gone.pop()}, on which the run stands",
                hint="the machine went down before it was on the disk; launch under another --name",
                path=self._hub.path,
            )
        reason = "its commit was not on the disk when the machine went down"
        for target in self.state.targets.values():
            for number, experiment in list(target.open.items()):
                if experiment.proposal.commit in lost:
                    self._record(Decided(number=number, verdict="aborted", reason=reason))
            stack = target.stack
            if stack is not None and not self._hub.has(stack.commit):
                self._lay(target.info.name, stack.number)
        for name, target, loop in list(self._loops()):
            commit = loop.prepared.commit if loop.prepared is not None else None
            if commit is not None and not self._hub.has(commit):
                self._record(Dropped(agent=name, target=target, reason=reason))

    def _loops(self) -> Iterator[tuple[str, str, Loop]]:
        """Give every loop with its agent and its target."""
        for name, agent in self.state.agents.items():
            for target, loop in agent.loops.items():
                yield name, target, loop

    def _incumbents(self) -> set[str]:
        return {loop.incumbent for _, _, loop in self._loops()}

    def _branch(self, target: str, name: str) -> str:
        return f"refs/heads/{self.state.branch(target, name)}"

    def _wanted_refs(self) -> dict[str, str]:
        targets = self.state.targets.items()
        wanted = {self._branch(name, "best"): target.best for name, target in targets}
        for name, target, loop in self._loops():
            wanted[self._branch(target, name)] = loop.incumbent
        for number in self.state.experiments:
            wanted.update(self._experiment_refs(number))
        return wanted

    def _experiment_refs(self, number: int) -> list[tuple[str, str]]:
        """Give the refs that keep an experiment's commits, those that crashed included."""
        run, experiment = self.state.run, self.state.experiments[number]
        found = [
            (f"refs/swarm/{run}/crashed/{number}-{i}", commit)
            for i, commit in enumerate(experiment.crashed, start=1)
        ]
        if experiment.proposal.commit is not None:
            found.append((f"refs/swarm/{run}/experiments/{number}", experiment.proposal.commit))
        return found

    def _launch(self) -> None:
        rung = self._rung()
        tips = self._incumbents()
        tips |= {c for t in self.state.targets.values() for c in (t.info.base, t.best)}
        tips |= {
            c
            for t in self.state.targets.values()
            for e in t.open.values()
            if (c := e.proposal.commit) is not None
        }
        sites = mustering.target_sites(self._config, self.state, self._prefixes, self._keys)
        site = NodeSite(
            run=self.state.run,
            key=self._dir.scratch_key,
            targets=sites,
            bundle=self._hub.bundle(sorted(tips)),
            tips=tuple(sorted(tips)),
            rung=rung,
            **mustering.terms_of(
                self._config, [Path(t.info.repo) for t in self.state.targets.values()]
            ),
        )
        infos = mustering.agent_infos(self._config)
        posts = mustering.posts(self._config, infos, self._keys)
        self._crew.away = {info.name for info in infos}
        slots = self._runtime.start(Muster(site, self._config.target.slot, posts))
        self._crew.slots = {s.name: s for s in slots}
        for node in {s.node for s in slots} | {self._runtime.node_of(i.name) for i in infos}:
            self._known[node] = set(tips)
        self._record(
            Launched(
                process=stamp("coordinator"),
                runtime=self._runtime.name,
                slots=slots,
                agents=infos,
                sandbox=rung.name,
                sandbox_open=rung.open,
                version=__version__,
            )
        )
        # Of every agent of before: it may be gone, on another node, or come up too late to tell.
        self._take_unpaid(self._runtime.unpaid([*self.state.agents]))

    def _rung(self) -> Rung:
        """Find the isolation of this launch: never weaker than that of the one before."""
        config = self._config
        rung = probe(config.sandbox.mode, gpus=bool(config.target.slot.gpus))
        before = self.state.launch
        if before is not None and RUNGS.index(rung.name) > RUNGS.index(before.sandbox):
            raise PreconditionError(
                f"the run began in sandbox `{before.sandbox}`, and here is only `{rung.name}`"
                + (f": {rung.why}" if rung.why else ""),
                hint=f"{INSTALL}; --name NEW starts another run with what there is",
            )
        if rung.warning:
            log.warning("%s", rung.warning)
        return rung

    # --- the loop ---

    def _drive(self) -> None:
        """Plan and act until there is nothing more to do now."""
        while not self._over:
            view = View(self.state, self._crew, self._config, self._clock())
            actions = plan(view)
            if not actions:
                return
            events: list[AnyEvent] = []
            for action in actions:
                if isinstance(action, Emit):
                    _say(action.event)
                    events.append(action.event)
                    continue
                self._record(*events)
                events = []
                self._ledger.sync()
                self._act(action)
            self._record(*events)

    def _wait(self) -> None:
        """Take what comes in; when nothing does, there is time to settle."""
        done = self._runtime.wait(POLL_S)
        if not done:
            self._settle()
            self._tidy()
        self._take(done)

    def _tidy(self) -> None:
        """Pack the hub now and then: ten thousand experiments are 180 MB of loose files, or 8."""
        if self._packing and self._hub.is_loose():
            try:
                self._hub.compact()
            except GitError as error:
                log.warning("cannot pack the hub: %s", error)
            self._packing = not self._hub.is_loose()  # or it would be tried for ever

    def _act(self, action: Action) -> None:
        match action:
            case Measure():
                self._measure(action)
            case Propose():
                self._propose(action)
            case Number(agent, target):
                prepared = self.state.agents[agent].loops[target].prepared
                assert prepared is not None
                self._number(agent, target, prepared)
            case Stack(target, number):
                self._lay(target, number)
            case Promote():
                self._promote(action)
            case Finish(reason, results):
                self._call_off()
                self._record(Finished(reason=reason, results=results))
                self._over = True
            case Leave(reason):
                self._call_off()
                self._record(Interrupted(reason=reason))
                self._over = True
            case Fail():
                self._fail(action)
            case Emit():
                raise AssertionError("events are recorded by _drive")

    def _record(self, *events: AnyEvent) -> None:
        """Write events and fold them. They are made durable before the next action."""
        for event in self._ledger.append(events):
            self.state.apply(event)
            for ref, new, old in self._refs_after(event):
                # git takes one update of a ref at a time: from where it is to where it ends.
                self._refs[ref] = (new, self._refs[ref][1] if ref in self._refs else old)
            if isinstance(event, Decided) and event.verdict != "aborted":
                target = self.state.targets[self.state.experiments[event.number].target]
                part = self._dir.part(target.info.part)
                results_tsv.append(part.results, self.state, event.number)

    def _settle(self) -> None:
        """Bring the hub's refs after the ledger. Late is no harm: a resume does the same."""
        self._ledger.sync()
        if self._refs:
            self._hub.update_refs((ref, new, old) for ref, (new, old) in self._refs.items())
            self._refs = {}

    def _refs_after(self, event: AnyEvent) -> list[tuple[str, str, str | None]]:
        match event:
            case Proposed() | Repaired() if event.proposal.commit is not None:
                found = self._experiment_refs(event.number)
                return [(ref, commit, None) for ref, commit in found]
            case Decided(verdict="keep"):
                experiment = self.state.experiments[event.number]
                agent, target = experiment.agent, experiment.target
                incumbent = self.state.agents[agent].loops[target].incumbent
                return [(self._branch(target, agent), incumbent, None)]
            case Synced():
                return [(self._branch(event.target, event.agent), event.commit, None)]
            case Promoted():
                return [(self._branch(event.target, "best"), event.new, event.old)]
            case _:
                return []

    # --- work out, results in ---

    def _measure(self, action: Measure) -> None:
        self._crew.measuring[action.slot] = action
        slot = self._crew.slots[action.slot]
        self._runtime.measure(
            MeasureJob(
                slot=action.slot,
                target=action.target,
                commit=action.commit,
                tree=action.tree,
                index=action.index,
                seed=mustering.seed_of(self.state.seed, action.index),
                machine=action.machine,
                purpose=action.purpose,
                experiment=action.experiment,
                cases=action.cases,
                guarded=self.state.targets[action.target].measured(action.commit),
                pack=self._pack(slot.node, action.commit),
            )
        )

    def _pack(self, node: str, commit: str) -> bytes | None:
        """Give the objects that a node lacks for a commit, until it has shown that it has them.

        Whoever is sent them may die first, and others of the node may need them at the same time.
        """
        if commit in self._known[node]:
            return None
        bases = [t.info.base for t in self.state.targets.values()]
        newest = self._newest.get(node)
        return self._hub.pack(commit, [*bases, *([newest] if newest else [])])

    def _arrived(self, node: str, commit: str) -> None:
        """Note that a node has worked with a commit."""
        if commit not in self._known[node]:
            self._known[node].add(commit)
            self._newest[node] = commit

    def _propose(self, action: Propose) -> None:
        self._crew.proposing[action.agent] = action
        self._aimed[action.agent] = action.target
        target = self.state.targets[action.target]
        sent = self._sent.get((action.agent, action.target), 0)
        self._sent[action.agent, action.target] = len(target.attempts)
        if action.port is not None:
            self._crew.offered.add(action.port)
        port = self._idea(action.port)
        job = job_of(self.state, self._config, action, sent=sent, port=port)
        texts = versions.told(self._hub, self._prefixes, self.state, self._config, action)
        pack = self._pack(self._runtime.node_of(action.agent), job.start or job.base)
        self._runtime.propose(replace(job, pack=pack, versions=texts))

    def _idea(self, number: int | None) -> Idea | None:
        if number is None:
            return None
        experiment = self.state.experiments[number]
        proposal = experiment.proposal
        assert proposal.commit is not None
        return Idea(
            number=number,
            summary=proposal.summary,
            rationale=proposal.rationale,
            diff=self._hub.diff(proposal.base, proposal.commit),
            edit=proposal.edit,
        )

    def _take(self, batch: list[Done]) -> None:
        events: list[AnyEvent] = []
        for done in batch:
            match done:
                case MeasureDone():
                    events.append(self._measured(done))
                case Up(process):
                    events.append(Started(process=process))
                case Lost():
                    events += self._on_lost(done)
                case Ready():
                    events += self._ready(done)
                case ProposeDone():
                    self._record(*events)
                    events = []
                    self._proposed(done)
        self._record(*events)

    def _measured(self, done: MeasureDone) -> Measured:
        job = done.job
        action = self._crew.measuring.pop(job.slot)
        number = job.experiment
        if number is None:
            number = self.state.targets[action.target].number_of.get(job.tree, 0)
        failure = done.measurement.failure
        if failure is None or failure.kind != "aborted":
            self._arrived(self._crew.slots[job.slot].node, job.commit)
        # A record has its own count of measurements; an experiment may be stacked more than once.
        which = f"-{job.tree[:7]}" if job.purpose == "stack" else ""
        repairs = self.state.experiments[number].repairs if number else 0
        if job.purpose == "candidate" and repairs:
            which = f"-mended-{repairs}"  # what crashed has a log of its own
        # The base of every target has the number 0.
        part = "" if number else self.state.targets[action.target].info.part
        name = f"{job.purpose}{which}-{job.index}.log"
        path = self._dir.logs / str(number) / part / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(blot_bytes(done.log, self._secrets))
        relative = path.relative_to(self._dir.path).as_posix()
        return Measured(
            target=action.target,
            purpose=job.purpose,
            experiment=job.experiment,
            slot=job.slot,
            busy_seconds=done.busy_seconds,
            measurement=self._blotted(done.measurement).model_copy(update={"log": relative}),
        )

    def _blotted(self, measurement: Measurement) -> Measurement:
        """Take keys out of a candidate's words: it may have found one where `/proc` is open."""
        update: dict[str, object] = {"feedback": blot(measurement.feedback, self._secrets)}
        if (failure := measurement.failure) is not None:
            words = {"reason": failure.reason, "tail": failure.tail}
            blotted = {name: blot(text, self._secrets) for name, text in words.items()}
            update["failure"] = failure.model_copy(update=blotted)
        return measurement.model_copy(update=update)

    def _on_lost(self, lost: Lost) -> list[AnyEvent]:
        lost = replace(lost, reason=blot(lost.reason, self._secrets))
        log.warning("lost %s: %s", lost.place, lost.reason.strip().rpartition("\n")[2])
        action = self._crew.measuring.pop(lost.place, None)
        if action is not None:
            failure = Failure(kind="aborted", reason=f"slot {lost.place} died: {lost.reason}"[:500])
            measurement = Measurement(
                commit=action.commit,
                tree=action.tree,
                index=action.index,
                machine=action.machine,
                failure=failure,
            )
            return [
                Measured(
                    target=action.target,
                    purpose=action.purpose,
                    experiment=action.experiment,
                    slot=lost.place,
                    measurement=measurement,
                )
            ]
        if lost.place not in self.state.agents:
            return []
        self._crew.proposing.pop(lost.place, None)
        self._crew.away.add(lost.place)
        for name in self.state.targets:  # its memory is gone: send the history again
            self._sent.pop((lost.place, name), None)
        self._lost[lost.place] = self._lost.get(lost.place, 0) + 1
        if self._lost[lost.place] < MAX_LOST:
            return []
        return [Parked(agent=lost.place, reason=f"it died again and again: {lost.reason}"[:500])]

    def _ready(self, ready: Ready) -> list[AnyEvent]:
        """Note that an agent is up, and what the one before it spent without a result."""
        self._crew.away.discard(ready.agent)
        return self._unpaid(ready)

    def _unpaid(self, ready: Ready) -> list[AnyEvent]:
        due = self.state.agents[ready.agent].proposals
        return [
            Spent(
                agent=ready.agent,
                target=self._aimed.get(ready.agent),
                usage=usage,
                reason="it was cut off",
            )
            for ordinal, usage in sorted(ready.unpaid)
            if ordinal >= due
        ]

    def _proposed(self, done: ProposeDone) -> None:
        action = self._crew.proposing.pop(done.agent)
        self._lost.pop(done.agent, None)
        if self._came_to_nothing(done, action.target):
            if action.port is not None and not done.exhausted:
                self._crew.offered.discard(action.port)  # nobody has tried it
            return
        node, commit = self._runtime.node_of(done.agent), done.proposal.commit
        self._arrived(node, done.proposal.base)
        if commit is not None and done.pack is not None:
            self._hub.unpack(done.pack)
            self._arrived(node, commit)
        if action.repair is not None:
            self._mended(done, action.repair)
            return
        agent, proposal, name = self.state.agents[done.agent], done.proposal, action.target
        loop = agent.loops[name]
        twin = twin_of(self.state, done.agent, name, proposal) if agent.info.thinks else None
        if twin is not None and loop.returned is None:
            self._record(Returned(agent=done.agent, target=name, proposal=proposal, twin=twin))
            return
        if twin is not None:
            proposal = proposal.model_copy(update={"twin": twin})
        idle = not loop.open and not self._crew.interrupted
        if idle and self.state.phase == "running" and self.state.targets[name].ended is None:
            self._number(done.agent, name, proposal)
        else:
            self._record(Prepared(agent=done.agent, target=name, proposal=proposal))

    def _came_to_nothing(self, done: ProposeDone, target: str) -> bool:
        """Note a proposer that has no more ideas, has to wait, or is locked out."""
        reason = done.proposal.invalid or "it made nothing"
        usage, name = done.proposal.usage, done.agent
        if done.wait_s is not None:
            wait_s = max(SHORTEST_WAIT_S, done.wait_s)
            until = self._clock() + timedelta(seconds=wait_s)
            log.warning("%s waits for %.0f s: %s", name, wait_s, reason)
            self._record(
                Waiting(agent=name, target=target, until=until, reason=reason, usage=usage)
            )
        elif done.locked_out is not None:
            self._record(Spent(agent=name, target=target, usage=usage, reason=reason))
            self._lock_out(name, reason, done.locked_out)
        elif done.exhausted:
            self._record(Exhausted(agent=name, target=target, reason=reason))
        else:
            return False
        return True

    def _lock_out(self, name: str, reason: str, hint: str) -> None:
        """Park those of an agent's group that are not parked yet: the first of them says why."""
        agents = self.state.agents
        group = agents[name].info.group
        left = [n for n, a in agents.items() if a.info.group == group and a.parked is None]
        if left:
            log.error("%s is locked out: %s", name, reason)
        self._record(*(Parked(agent=n, reason=reason, hint=hint) for n in left))

    def _mended(self, done: ProposeDone, number: int) -> None:
        """Take the answer to a crash; too late for an experiment that was decided meanwhile."""
        experiment, usage = self.state.experiments[number], done.proposal.usage
        if experiment.verdict is None:
            self._record(Repaired(number=number, proposal=done.proposal))
        else:
            why, name = f"experiment {number} was decided meanwhile", experiment.target
            self._record(Spent(agent=done.agent, target=name, usage=usage, reason=why))

    def _number(self, agent: str, name: str, proposal: Proposal) -> None:
        """Make a proposal an experiment, carried over to the agent's incumbent if that moved."""
        loop, target = self.state.agents[agent].loops[name], self.state.targets[name]
        moved = target.tree_of[proposal.base] != target.tree_of[loop.incumbent]
        if proposal.commit is not None and moved:
            rebased = best.rebase(self._hub, proposal, loop.incumbent, self._clock())
            if rebased is None:
                if loop.prepared is None:
                    self._record(Prepared(agent=agent, target=name, proposal=proposal))
                reason = "it does not apply to the agent's new incumbent"
                self._record(Dropped(agent=agent, target=name, reason=reason))
                return
            proposal = rebased
        number = self.state.next_number
        self._record(Proposed(number=number, target=name, agent=agent, proposal=proposal))

    # --- best ---

    def _lay(self, target: str, number: int) -> None:
        self._record(best.lay(self._hub, self.state, target, number, self._clock()))

    def _promote(self, action: Promote) -> None:
        event = best.promotion(self._hub, self.state, action, self._clock())
        self._record(event)
        self._settle()
        self._deliver()

    def _deliver(self) -> None:
        self._undelivered = not best.deliver(self._hub, self.state, self._dir)

    # --- control and trouble ---

    def _listen(self) -> None:
        for verb in self._dir.requests():
            phase = self.state.phase
            if verb == "pause" and phase == "running":
                self._record(Paused())
            elif verb == "resume" and phase == "paused":
                self._record(Resumed())
            elif verb == "stop" and phase in ("running", "paused"):
                self._record(Draining(reason="stopped by `swarm stop`"))
            elif verb == "interrupt":
                self.interrupt("interrupted")

    def _call_off(self) -> None:
        """End the proposals that nobody waits for any more, and note what they have cost."""
        busy = self._crew.away | self._crew.proposing.keys()
        agents = [a for a in sorted(busy) if self.state.agents[a].info.thinks]
        self._take_unpaid(self._runtime.call_off(agents))

    def _take_unpaid(self, found: list[Ready]) -> None:
        for ready in found:
            self._record(*self._unpaid(ready))

    def _fail(self, action: Fail) -> None:
        self._call_off()
        self._record(Failed(error=action.error, hint=action.hint, results=action.results))
        self._settle()
        self._over = True
        if action.on_base is not None:
            raise HarnessError(action.error, hint=action.hint)
        raise RunFailedError(action.error, hint=action.hint)


def _say(event: AnyEvent) -> None:
    """Put into the log what a person should hear of at once."""
    if isinstance(event, Warned):
        log.warning("%s", event.message)
    elif isinstance(event, Ended) and event.failed:
        log.error("target `%s` has ended: %s", event.target, event.reason)
