"""What the commands do that look at a run or speak to one, whether it lives, is dead, or a copy.

Owns how a run directory is read for a command and what goes to stdout. Starts no run and writes to
none, save for requests to its coordinator and `lessons.md`; changes the user's repository in
`apply` alone.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from json import dumps
from pathlib import Path
from typing import Any, Literal

from swarm import budget, tables, views
from swarm import config as configs
from swarm.config import RunConfig
from swarm.entities import Target
from swarm.errors import ConfigError, PreconditionError, UsageError
from swarm.ledger import Tail, is_live, is_written
from swarm.records import VERDICTS, AnyEvent, Measured
from swarm.rundir import RunDir, find
from swarm.state import RunState
from swarm.terminal import emit, emit_foreign, emit_json, say, width

POLL_S = 0.5
ANSWER_S = 10.0
"""How long a coordinator may take to answer a request before we go without its answer."""


@dataclass
class Seen:
    """A run as its directory tells it, and the reader that brings what comes next."""

    rundir: RunDir
    state: RunState
    tail: Tail
    count: int = 0
    """Events folded so far."""

    @property
    def live(self) -> bool:
        """Tell whether a process carries the run out now, or is about to."""
        return is_live(self.rundir.ledger)

    @property
    def over(self) -> bool:
        """Tell whether nothing more will come unless somebody launches the run again."""
        return views.phase(self.state, live=self.live) in views.ENDED

    def news(self) -> Iterator[AnyEvent]:
        """Fold and give what was written since the last look."""
        for event in self.tail.poll():
            self.state.apply(event)
            self.count += 1
            yield event

    def catch_up(self) -> None:
        """Fold what was written since the last look."""
        for _ in self.news():
            pass


def look(name: str | None, directory: Path | None) -> Seen:
    """Find a run and read its ledger.

    Raises:
        PreconditionError: there is no such run, or it cannot be read.
        UsageError: the name cannot be a run's.
    """
    rundir = find(name, directory)
    seen = Seen(rundir, RunState(), Tail(rundir.ledger))
    seen.catch_up()
    return seen


# --- looking ------------------------------------------------------------------------------------


def status(seen: Seen, *, json: bool) -> None:
    """Show how far a run has come."""
    found = _status(seen)
    if json:
        emit_json(found)
    else:
        config = None if seen.over else _config(seen)
        nearly = [] if config is None else budget.nearly(config, seen.state, datetime.now(UTC))
        emit(tables.status(found, seen.state, width(), [words for _, words in nearly]))


def _status(seen: Seen) -> dict[str, Any]:
    # A launch that has not written yet has run for no time, whatever the one before left open.
    begun = is_written(seen.rundir.ledger)
    now = (None if begun else seen.state.last_at) or datetime.now(UTC)
    return views.status_json(
        seen.state, live=seen.live, dir=seen.rundir.path, now=now, config=_config(seen)
    )


def _config(seen: Seen) -> RunConfig | None:
    """Give the config of a run, None if it cannot be read: the ledger alone is enough to look."""
    with suppress(OSError, ConfigError):
        return configs.restore(seen.rundir.config.read_text(encoding="utf-8"))
    return None


def experiments(seen: Seen, *, verdict: str | None, json: bool) -> None:
    """List the experiments.

    Raises:
        UsageError: there is no such verdict.
    """
    if verdict is not None and verdict not in VERDICTS:
        raise UsageError(f"{verdict!r} is not a verdict", hint=f"there are: {', '.join(VERDICTS)}")
    rows = views.experiments_json(seen.state)
    rows = [row for row in rows if verdict is None or row["verdict"] == verdict]
    if json:
        emit_json(rows)
    elif rows:
        emit(tables.experiments(rows, seen.state, width()))
    else:
        say("swarm: no experiments" + (f" with the verdict {verdict}" if verdict else " yet"))


def show(seen: Seen, number: int, *, json: bool) -> None:
    """Show all about one experiment.

    Raises:
        UsageError: there is no such experiment.
    """
    found = views.experiment_json(seen.state, number, _config(seen))
    if json:
        emit_json(found)
    else:
        metric = seen.state.targets[found["target"]].info.metric.name
        emit(tables.experiment(found, metric, width()))


def diff(seen: Seen, number: int, *, json: bool) -> None:
    """Print the change of one experiment.

    Raises:
        UsageError: there is no such experiment.
        PreconditionError: it has no commit, or the run's repository is gone.
    """
    from swarm.repo import Hub

    found = views.experiment_json(seen.state, number)
    if found["commit"] is None:
        raise PreconditionError(
            f"experiment {number} has no commit: {found['reason'] or 'nothing was proposed'}",
            hint=f"swarm show {number}",
        )
    if not seen.rundir.hub.exists():
        raise PreconditionError(
            f"the run's repository {seen.rundir.hub} is gone", path=seen.rundir.hub
        )
    patch = Hub(seen.rundir.hub, seen.state.run).diff(found["base"], found["commit"])
    if json:
        wanted = ("number", "base", "commit", "files", "lines_added", "lines_removed")
        emit_json({**{key: found[key] for key in wanted}, "diff": patch})
    else:
        emit_foreign(patch, patch=True)


def lessons(seen: Seen, *, json: bool) -> None:
    """Print what a run has learned so far, and write it to its `lessons.md`.

    Raises:
        PreconditionError: its ledger is empty.
    """
    from swarm import lessons
    from swarm.report import write_lessons

    names = list(seen.state.targets)
    if not names:
        raise _not_begun(seen)
    write_lessons(seen.rundir, seen.state)
    if json:
        facts = {name: lessons.facts(seen.state, name) for name in names}
        emit_json(facts[names[0]] if len(names) == 1 else facts)
        return
    for name in names:
        emit_foreign(lessons.render(seen.state, name, escape=str))  # a terminal renders no page


def _not_begun(seen: Seen) -> PreconditionError:
    what = f"run `{seen.rundir.run}` has not begun: its ledger is empty"
    return PreconditionError(what, hint="launch it again", path=seen.rundir.ledger)


Form = Literal["markdown", "html", "json"]


def report(seen: Seen, *, form: Form, out: Path | None) -> None:
    """Print the report of a run, or write it to a file.

    Raises:
        PreconditionError: its ledger is empty, or the file cannot be written.
    """
    from swarm.report import save

    if not seen.state.targets:
        raise _not_begun(seen)
    text = _reported(seen, form)
    if out is None:
        emit_foreign(text)
        return
    try:
        save(out, text)
    except OSError as error:
        raise cannot_write(out, error) from error
    say(f"swarm: wrote {out}")


def cannot_write(out: Path, error: OSError) -> PreconditionError:
    """Give the error for a file that `--out` names."""
    what = f"cannot write {out}: {error.strerror}"
    return PreconditionError(what, hint="give another --out", path=out)


def _reported(seen: Seen, form: Form) -> str:
    from swarm import findings
    from swarm.report import digest, draw, report_html, report_markdown

    state, config = seen.state, _config(seen)
    found = findings.find(state, config, live=seen.live, digest=digest(seen.rundir))
    if form == "html":
        return report_html(state, found, draw(state))
    if form == "markdown":
        return report_markdown(state, found)
    told = _status(seen)
    more = {key: told[key] for key in ("proposers", "spend", "sandbox")}
    return dumps({**found.model_dump(mode="json"), **more}, indent=2) + "\n"


# --- logs ---------------------------------------------------------------------------------------


def logs(seen: Seen, number: int, *, follow: bool, every: bool, json: bool) -> None:
    """Print the logs of an experiment's measurements, or of the base's for number 0.

    Raises:
        UsageError: there is no such experiment.
        PreconditionError: it has no log.
    """
    verdict = views.experiment_json(seen.state, number)["verdict"] if number != 0 else None
    # No further than what was folded: what came since is for those who follow.
    events = islice(Tail(seen.rundir.ledger).poll(), seen.count)
    found = [event for event in events if _logged(event, number)]
    if not found and not follow:
        missing = f"experiment {number} " + (
            "has no log yet" if verdict is None else f"was never measured: it is `{verdict}`"
        )
        raise PreconditionError(
            missing if number else "the base was not measured yet",
            hint=f"swarm show {number}" if number else "swarm status",
        )
    shown = [_log(seen.rundir, e) for e in (found if every or follow else found[-1:])]
    if json and not follow:
        emit_json(shown)
        return
    for log in shown:
        _print_log(log, titled=every or follow, json=json)
    if follow:
        _follow_logs(seen, number, json=json)


def _follow_logs(seen: Seen, number: int, *, json: bool) -> None:
    """Print what else is logged, until the verdict is there or nobody writes any more."""
    found = seen.state.experiments.get(number)
    while not seen.over and (found is None or found.verdict is None):
        for event in seen.news():
            if _logged(event, number):
                _print_log(_log(seen.rundir, event), titled=True, json=json)
        time.sleep(POLL_S)
    if found is not None:
        say(f"swarm: experiment {number}: {found.verdict or 'in flight'}: {found.reason}")


def _logged(event: AnyEvent, number: int) -> bool:
    return isinstance(event, Measured) and event.measurement.log.startswith(f"logs/{number}/")


def _log(rundir: RunDir, event: AnyEvent) -> dict[str, Any]:
    assert isinstance(event, Measured)
    result = event.measurement
    path = rundir.path / result.log
    try:
        text = path.read_bytes().decode("utf-8", "replace")
    except OSError as error:
        text = f"(cannot read {path}: {error.strerror})\n"
    return {
        "path": str(path),
        "target": event.target,
        "purpose": event.purpose,
        "index": result.index,
        "failure": result.failure.kind if result.failure else None,
        "seconds": result.seconds,
        "text": text,
    }


def _print_log(log: dict[str, Any], *, titled: bool, json: bool) -> None:
    if json:
        emit_json(log, line=True)
        return
    if titled:
        emit(f"==> {Path(log['path']).name} <==")
    emit_foreign(log["text"])


# --- watching -----------------------------------------------------------------------------------


def watch(seen: Seen, *, json: bool) -> None:
    """Follow a run until it ends.

    Raises:
        PreconditionError: its config cannot be read.
    """
    if json:
        _stream(seen)
        return
    from swarm.live import LiveView

    try:
        config = configs.restore(seen.rundir.config.read_text(encoding="utf-8"))
    except OSError as error:
        raise PreconditionError(
            f"cannot read {seen.rundir.config}: {error.strerror}",
            hint="the run directory is damaged; `swarm status` needs the ledger alone",
            path=seen.rundir.config,
        ) from error
    with LiveView(seen.rundir, config) as view:
        view.tick(datetime.now(UTC))
        while not seen.over:
            time.sleep(POLL_S)
            seen.catch_up()
            view.tick(datetime.now(UTC))
    status(seen, json=False)


def _stream(seen: Seen) -> None:
    """Print the events of a run as they come, from its beginning to its end."""
    tail = Tail(seen.rundir.ledger)
    while True:
        over = seen.over  # asked first: what is written before the end must not be missed
        for event in tail.poll():
            emit_json(event.model_dump(mode="json", exclude_none=True), line=True)
        if over:
            return
        seen.catch_up()
        time.sleep(POLL_S)


# --- steering -----------------------------------------------------------------------------------

Verb = Literal["pause", "resume", "stop"]
_REACHED: dict[Verb, frozenset[str]] = {
    "pause": frozenset({"paused"}),
    "resume": frozenset({"running"}),
    "stop": frozenset({"draining", "finished"}),
}


def ask(seen: Seen, verb: Verb, *, json: bool) -> None:
    """Ask the coordinator of a run for something, and wait a little for it to do so.

    Asking for what is the case already is no error.

    Raises:
        PreconditionError: no process carries the run out.
    """
    run, reached = seen.rundir.run, _REACHED[verb]
    if _phase(seen) not in reached:
        _check_listening(seen, verb)
        seen.rundir.request(verb)
        _await_answer(seen, reached)
    state = _phase(seen)
    answered = state in reached
    if json:
        emit_json({"run": run, "asked": verb, "state": state, "answered": answered})
    else:
        words = f"run {run} is {state}"
        emit(words if answered else f"{words}; it was asked to {verb} and has not answered yet")


def _phase(seen: Seen) -> str:
    return views.phase(seen.state, live=seen.live)


def _check_listening(seen: Seen, verb: Verb) -> None:
    run, state = seen.rundir.run, _phase(seen)
    if not seen.live:
        hint = "`swarm launch CONFIG` resumes it"
        if state == "finished":
            hint = f"`swarm report {run}` tells how it ended"
        raise PreconditionError(
            f"cannot {verb} run `{run}`: it is {state}, and no process carries it out", hint=hint
        )
    if state == "draining":
        raise PreconditionError(
            f"cannot {verb} run `{run}`: it is ending", hint="`swarm watch` shows how it ends"
        )


def _await_answer(seen: Seen, reached: frozenset[str]) -> None:
    deadline = time.monotonic() + ANSWER_S
    while seen.state.phase not in reached and seen.live and time.monotonic() < deadline:
        time.sleep(0.1)
        seen.catch_up()


def apply_best(seen: Seen, *, onto: str | None, target: str | None, json: bool) -> None:
    """Bring the user's branch to the best of a run.

    Args:
        seen: the run.
        onto: a new branch to make instead.
        target: whose best, where the run has several targets.
        json: print JSON.

    Raises:
        PreconditionError: nothing was won, or the repository cannot take it as it is.
        UsageError: it does not say which of several targets is meant.
    """
    from swarm import findings
    from swarm.best import home
    from swarm.repo import Hub, apply, locate

    run, chosen = seen.state.run, _target_of(seen, target)
    if not chosen.promotions:
        whose = f"run `{run}`" if target is None else f"target `{target}` of run `{run}`"
        why = "could not be measured" if chosen.failed else "has not improved on its base"
        raise PreconditionError(
            f"{whose} {why}: there is nothing to apply",
            hint="`swarm experiments` shows what was tried",
        )
    for doubt in findings.headline(chosen, _config(seen)).doubts:
        say(f"swarm: warning: {doubt.words}")
    top = home(seen.rundir, seen.state, chosen)
    ref = f"refs/heads/{seen.state.branch(chosen.info.name, 'best')}"
    # The repository may have refused it while the run lived; usually this changes nothing.
    Hub(seen.rundir.hub, run).deliver(locate(top).git_dir, ref)
    done = apply(top, ref, onto=onto)
    if json:
        emit_json({"run": run, "repo": str(top), "commit": chosen.best, "done": done})
    else:
        emit(done)


def _target_of(seen: Seen, name: str | None) -> Target:
    targets = seen.state.targets
    if not targets:
        raise _not_begun(seen)
    if name is None and len(targets) == 1:
        return next(iter(targets.values()))
    if name in targets:
        return targets[name]
    known = ", ".join(targets)
    what = f"run `{seen.state.run}` has no target `{name}`" if name else "which target is meant?"
    raise UsageError(what, hint=f"--target names one of {known}")
