"""A run of swarm as a history that the family's tools can be given."""

from __future__ import annotations

from swarm.entities import Experiment, Target
from swarm.formats.family.history import NOT_RUN, Entry, History
from swarm.formats.results_tsv import fullest, memory_mb, record_of
from swarm.judge import Record, Sample
from swarm.state import RunState


def of_run(state: RunState, target_name: str, scope: tuple[str, ...] = ()) -> History:
    """Give the baseline of a target and what was decided of it, by number.

    Args:
        state: of any run, alive or over.
        target_name: one of its targets.
        scope: what may change there, for the forms that say so.
    """
    target = state.targets[target_name]
    done = [
        _entry(target, e)
        for _, e in sorted(state.experiments.items())
        if e.target == target_name and e.verdict not in (None, "aborted")
    ]
    machine = target.machine(target.best)
    best = Record() if machine is None else target.record(target.best, machine)
    return History(
        name=state.run,
        metric=target.info.metric,
        entries=(_baseline(target).model_copy(update={"at": state.started_at}), *done),
        platform=next(iter(target.spreads), ""),
        scope=scope,
        phase=state.phase,
        suite=len(target.suite) or None,
        breakdown=tuple((case, n.passes, n.runs) for case, n in sorted(best.cases.items())),
    )


def _baseline(target: Target) -> Entry:
    record = fullest(target, target.info.base)
    sample = target.primary(target.info.base)
    return Entry(
        number=0,
        status="baseline",
        value=sample.mean if sample.n else None,
        commit=target.info.base,
        summary="baseline",
        n=max(1, sample.n),
        seconds=record.others.get("seconds", Sample()).mean * sample.n,
        memory_gb=memory_mb(record, 0.0) / 1024 or None,
    )


def _entry(target: Target, e: Experiment) -> Entry:
    record = record_of(target, e)
    assert e.verdict is not None
    assert e.verdict != "aborted"
    return Entry(
        number=e.number,
        status=e.verdict,
        value=record.primary.mean if record.primary.n and e.verdict not in NOT_RUN else None,
        commit=e.proposal.commit,
        agent=e.agent,
        summary=e.proposal.summary,
        rationale=e.proposal.rationale,
        reason=e.reason or e.proposal.invalid or "",
        gain=e.gain,
        n=max(1, record.primary.n),
        seconds=e.seconds,
        memory_gb=memory_mb(record, e.peak_memory_mb) / 1024 or None,
        at=e.at,
        files=tuple(sorted(e.proposal.files)),
    )
