"""`swarm launch` as a process: from a config file to an exit code.

Owns the first words and the last, signals, the log file, and the loop that shows a run while it
goes on. Knows nothing of how a run is carried out: `RayRun` and `InlineRun` look the same here.
"""

from __future__ import annotations

import logging
import os
import shlex
import signal
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Protocol

from swarm import budget
from swarm import config as configs
from swarm.clean import remove_scratch
from swarm.config import BudgetConfig, RunConfig, TargetBudget, TargetConfig
from swarm.doors import enter, place
from swarm.doors.wish import Wish, agents_of
from swarm.errors import (
    BudgetRefusedError,
    HarnessError,
    PreconditionError,
    SwarmError,
    UsageError,
)
from swarm.formats.text import counted, duration
from swarm.keys import take
from swarm.launch import Opened, check_groups, check_target, discard, open_run, warm_start
from swarm.ledger import is_written, launched, read
from swarm.proposers.ready import check
from swarm.quantities import NAME_RULE, is_ref_part
from swarm.rundir import RunDir, runs_folder
from swarm.runtime import local_gpus, slot_count
from swarm.state import RunState
from swarm.terminal import ReaderGone, emit, emit_json, say
from swarm.views import status_json

if TYPE_CHECKING:
    from swarm.live import LiveView
    from swarm.repo import Source

POLL_S = 0.2
LOOKS_S = 1.0
"""Those who look whether the run lives may hold its lock, for no time."""


@dataclass(frozen=True)
class Order:
    """What `swarm launch` was asked for, or `swarm try`."""

    config: Path | Wish
    overrides: tuple[str, ...] = ()
    agent: str | None = None
    name: str | None = None
    address: str | None = None
    inline: bool = False
    json: bool = False

    def load(self) -> RunConfig:
        """Make the config, `--set` applied, and say what was assumed on the way.

        Raises:
            ConfigError: it is wrong.
            UsageError: the command line is.
            PreconditionError: what it is made from is not as it is needed.
        """
        if self.name is not None and not is_ref_part(self.name):
            raise UsageError(f"--name {self.name!r} cannot be used: {NAME_RULE}")
        if self.inline and self.address is not None:
            raise UsageError("--inline runs without Ray, so --address means nothing with it")
        # What is set by hand wins over what a word stands for.
        agents = [agents_of(self.agent)] if self.agent is not None else []
        overrides = (*agents, *self.overrides)
        if isinstance(self.config, Path):
            entered = enter(self.config, overrides)
        else:
            entered = self.config.enter(overrides)
        for note in entered.notes:
            say(f"swarm: {note}")
        return entered.config

    @property
    def words(self) -> list[str]:
        """The command line that asks for the same."""
        if isinstance(self.config, Path):
            words = ["swarm", "launch", str(self.config)]
        else:
            words = list(self.config.words)
        words += ["--agent", self.agent] if self.agent else []
        words += ["--name", self.name] if self.name else []
        return words + [word for given in self.overrides for word in ("--set", given)]


class Running(Protocol):
    """A run that is being carried out somewhere."""

    def __enter__(self) -> Running:
        """Start it. In the main thread."""
        ...

    def poll(self, timeout_s: float) -> bool:
        """Wait a little; True when it has ended. Raises what it ended with."""
        ...

    def kill(self) -> None:
        """End everything at once."""
        ...

    def __exit__(self, *_: object) -> None:
        """Take everything down."""
        ...


# --- signals ------------------------------------------------------------------------------------


class Stopped(Exception):
    """A signal came while there was nothing yet that could be finished."""


class Signals:
    """Counts SIGINT and SIGTERM: the first asks for a drain, the second ends at once."""

    def __init__(self) -> None:
        self.count = 0
        self.last = signal.SIGINT
        self.draining = False
        """Set once there is a loop that looks at `count`."""

    @property
    def exit_code(self) -> int:
        """128 and the signal's number, as shells have it."""
        return 128 + self.last

    def take_over(self) -> None:
        """Handle the signals here from now on. Ray sets handlers of its own when it starts."""
        for which in (signal.SIGINT, signal.SIGTERM):
            signal.signal(which, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        self.last = signal.Signals(number)
        if not self.draining:
            raise Stopped


@contextmanager
def _signals() -> Generator[Signals, None, None]:
    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
    signals = Signals()
    signals.take_over()
    try:
        yield signals
    finally:
        for which, handler in before.items():
            signal.signal(which, handler)


# --- the log ------------------------------------------------------------------------------------


def log_path(rundir: RunDir) -> Path:
    """Give the file where swarm itself logs, whatever process the coordinator is in."""
    return rundir.path / "swarm.log"


@contextmanager
def _logging_to(path: Path) -> Generator[None, None, None]:
    logger = logging.getLogger("swarm")
    handler = logging.FileHandler(path, encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(handler)
    propagated, logger.propagate = logger.propagate, False
    try:
        yield
    finally:
        logger.propagate = propagated
        logger.removeHandler(handler)
        handler.close()


class Warnings:
    """Reads what is written to the log as a warning or worse from now on."""

    def __init__(self, path: Path) -> None:
        self.last: list[str] = []
        """What was new the last time, and is still to be said."""
        self._path = path
        self._offset = path.stat().st_size if path.exists() else 0

    def news(self) -> list[str]:
        """Give what is new."""
        try:
            with open(self._path, "rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return []
        data = data[: data.rfind(b"\n") + 1]
        self._offset += len(data)
        lines = (line.split(" ", 3) for line in data.decode("utf-8", "replace").splitlines())
        severe = ("WARNING", "ERROR", "CRITICAL")
        return [words[3] for words in lines if len(words) == 4 and words[2] in severe]


# --- launching ----------------------------------------------------------------------------------


def launch_config(order: Order) -> int:
    """Do what `swarm launch` does, and give the exit code.

    Raises:
        SwarmError: it could not be started, or it failed.
    """
    opened = open_run(order.load(), name=order.name)
    if opened.finished:
        _tell_end(opened, order)
        return 0
    with launched(opened.rundir.ledger, wait_s=LOOKS_S):
        return _launch(opened, order)


def _launch(opened: Opened, order: Order) -> int:
    opened.rundir.requests()  # what was asked of an earlier launch is not meant for this one
    _tell_start(opened, order)
    log = log_path(opened.rundir)
    try:
        with _logging_to(log), _signals() as signals:
            keys = take(opened.config.askers, os.environ)
            check(opened.config, keys)
            budget.check(opened.config, keys)
            code = _carry_out(opened, order, signals, keys)
    except SwarmError as error:
        if not (_is_refusal(error) and _leave_nothing(opened)):
            _write_views(opened)
        if isinstance(error, HarnessError):
            place(error, opened.config.source)
        raise
    except Exception as error:
        error.add_note(f"the log of the run is {log}")
        raise
    return code


def _carry_out(opened: Opened, order: Order, signals: Signals, keys: dict[str, str]) -> int:
    warnings = Warnings(log_path(opened.rundir))
    try:
        with _runner(opened, order, keys) as running:
            signals.take_over()
            signals.draining = True
            killed = _follow(running, opened, signals, warnings)
    except Stopped:
        killed = True
    except SystemExit:  # Ray's own answer to SIGTERM, until we have taken the signals over
        signals.last, killed = signal.SIGTERM, True
    if killed:
        gone = not _has_values(opened) and _leave_nothing(opened)
        say("swarm: ended at once; " + ("nothing is left of it" if gone else _how_to_resume(order)))
        return signals.exit_code
    _write_views(opened)
    phase = _tell_end(opened, order)
    return signals.exit_code if signals.count and phase != "finished" else 0


def _runner(opened: Opened, order: Order, keys: dict[str, str]) -> Running:
    if order.inline:
        from swarm.inline_run import InlineRun

        return InlineRun(opened.rundir, opened.config, prefixes=opened.prefixes, keys=keys)
    say("  Ray     being started: this takes some seconds")
    from swarm.cluster import RayRun

    return RayRun(
        opened.rundir, opened.config, prefixes=opened.prefixes, keys=keys, address=order.address
    )


def _follow(running: Running, opened: Opened, signals: Signals, warnings: Warnings) -> bool:
    """Go along with the run to its end; True if it was killed."""
    from swarm.live import LiveView

    drained, shown = False, True
    with LiveView(opened.rundir, opened.config) as view:
        try:
            while not running.poll(POLL_S):
                if signals.count > 1:
                    running.kill()
                    return True
                if signals.count and not drained:
                    drained = True
                    opened.rundir.request("interrupt")
                    say("swarm: finishing what is being measured; again to stop at once")
                shown = _show(view, warnings, shown=shown)
        finally:  # also when the run has failed: its last lines tell why
            shown = shown and _tick(view)
        for _ in range(2):
            shown = _show(view, warnings, shown=shown)
    return False


def _show(view: LiveView, warnings: Warnings, *, shown: bool) -> bool:
    """Show how things stand, and say what the log warned of the last time and the view has not."""
    shown = shown and _tick(view)
    for message in warnings.last:
        if message not in view.warned:
            say(f"swarm: warning: {message}")
    warnings.last = warnings.news()  # the view tells it first, where the ledger has it too
    return shown


def _tick(view: LiveView) -> bool:
    """Tick once. A view that breaks must not end the run: it is left alone, False."""
    try:
        view.tick(datetime.now(UTC))
    except Exception:
        logging.getLogger("swarm").exception("the live view broke")
        return False
    return True


def _is_refusal(error: SwarmError) -> bool:
    refusals = (HarnessError, BudgetRefusedError)
    return isinstance(error, refusals) or type(error) is PreconditionError


def _has_values(opened: Opened) -> bool:
    targets = _state(opened).targets.values()
    return any(record.primary.n for target in targets for record in target.records.values())


def _leave_nothing(opened: Opened) -> bool:
    """Remove a new run in which no experiment was judged yet: there is nothing to resume."""
    with suppress(SwarmError):
        experiments = _state(opened).experiments.values()
        begun = any(e.verdict not in (None, "duplicate", "invalid") for e in experiments)
        if opened.resumed or begun or is_written(opened.rundir.ledger):
            return False
        remove_scratch(opened.rundir)
        discard(opened)
        return True
    return False


def _state(opened: Opened) -> RunState:
    return RunState(read(opened.rundir.ledger))


def _write_views(opened: Opened) -> None:
    """Write the reports. A report that cannot be written must not hide how the run ended."""
    from swarm.report import write_views

    try:
        write_views(opened.rundir, _state(opened), opened.config)
    except Exception as error:
        logging.getLogger("swarm").exception("the views could not be written")
        say(f"swarm: warning: the views could not be written: {error}")


# --- words --------------------------------------------------------------------------------------


def _tell_start(opened: Opened, order: Order) -> None:
    config = opened.config
    labels = Counter[str]()
    for group in config.agents:
        labels[group.proposer.label] += group.count
    agents = ", ".join(f"{n} {label}" for label, n in labels.items())
    verb = "resuming" if opened.resumed else "starting"
    say(
        f"swarm: {verb} run {opened.rundir.run}\n"
        + "".join(f"  target  {_aim(target)}\n" for target in config.targets)
        + f"  agents  {agents}; slots {_slots(config)}\n"
        f"  budget  {_budget(config)}\n"
        f"  files   {opened.rundir.path}"
    )
    if opened.resumed and _state(opened).phase == "paused":
        say("swarm: the run is paused and starts nothing; `swarm resume` goes on")
    if order.json:
        _announce(
            {
                "event": "launched",
                "run": opened.rundir.run,
                "dir": str(opened.rundir.path),
                "resumed": opened.resumed,
                "pid": os.getpid(),
            }
        )


def _aim(target: TargetConfig) -> str:
    """Say what is to become of a target."""
    scope = ", ".join(target.scope)
    return f"{target.name}: {target.metric.goal} {target.metric.name} by changing {scope}"


def _announce(event: dict[str, Any]) -> None:
    # A run goes on when nobody reads its announcements any more.
    with suppress(ReaderGone):
        emit_json(event, line=True)


def _slots(config: RunConfig) -> str:
    slot = config.target.slot
    each = f"{slot.cpus:g} CPU" + (f" and {slot.gpus:g} GPU" if slot.gpus else "")
    return f"{slot.count} with {each} each"


def _budget(config: RunConfig) -> str:
    whole = _limits(config.budget)
    own = [f"{t.name}: {said}" for t in config.targets if (said := _limits(t.budget))]
    said = "; ".join([*([whole] if whole else []), *own])
    return said or "none: it runs until it is stopped (Ctrl-C, or `swarm stop`)"


def _limits(budget: BudgetConfig | TargetBudget) -> str:
    given = budget.model_dump(exclude_none=True)
    return ", ".join(
        f"{k} {duration(v) if k == 'time' else format(v, 'g')}" for k, v in given.items()
    )


def _tell_end(opened: Opened, order: Order) -> str:
    """Print how the run stands now, say what can be done next, and give its phase."""
    from swarm.summary import summary_text

    state, rundir = _state(opened), opened.rundir
    improved = any(t.promotions for t in state.targets.values())
    with suppress(ReaderGone):
        if order.json:
            now = datetime.now(UTC)
            parts = [rundir.part(target.info.part) for target in state.targets.values()]
            views = [rundir.summary, *(p for part in parts for p in (part.results, part.progress))]
            names = {str(path.relative_to(rundir.path)): str(path) for path in views}
            record = {
                "event": "done",
                "status": status_json(state, live=False, dir=rundir.path, now=now),
                "files": {name: path for name, path in names.items() if Path(path).exists()},
            }
            emit_json(record, line=True)
        else:
            emit(summary_text(state, opened.config).rstrip())
    for line in _what_next(state, order, improved):
        say(line)
    return state.phase


def _what_next(state: RunState, order: Order, improved: bool) -> Iterator[str]:
    name = state.run
    if order.json:  # otherwise the summary has said so
        yield f"swarm: run {name} is {state.phase}"
    if improved:
        for target in state.targets.values():
            if target.promotions:
                branch = state.branch(target.info.name, "best")
                yield f"  see what was won:        git diff {target.info.base[:10]} {branch}"
        which = "" if len(state.targets) == 1 else " --target NAME --onto BRANCH"
        yield f"  bring it to your branch: swarm apply {name}{which}"
    if state.experiments:
        yield f"  see all that was tried:  swarm experiments {name}, then swarm show N"
    if state.phase != "finished":
        yield f"  {_how_to_resume(order)}"


def _how_to_resume(order: Order) -> str:
    return f"resume it: {shlex.join(order.words)}"


# --- dry run ------------------------------------------------------------------------------------


def dry_run_of(order: Order) -> None:
    """Print the resolved config, and say what a launch would start. Nothing is touched.

    Raises:
        SwarmError: the launch would be refused.
    """
    import json

    from swarm.repo import inspect

    config = order.load()
    found: dict[str, tuple[Source, tuple[str, ...]]] = {}
    for target, key in config.places():
        source = inspect(target.repo, target.base, dirty=target.dirty)
        found[target.name] = source, check_target(target, source, key)
        check_groups(config, target, source, key)
    top = found[config.target.name][0].top
    warm_start(config, top)
    keys = take(config.askers, dict(os.environ))
    check(config, keys)
    budget.check(config, keys)
    own = order.inline or (order.address is None and config.cluster.address == "local")
    slots = None
    if own:
        slots = slot_count(config.target.slot, cpus=os.cpu_count() or 1, gpus=local_gpus())
    rundir = RunDir(runs_folder(top) / (order.name or config.name))
    before = RunState(read(rundir.ledger)).phase if rundir.exists() else None
    if order.json:
        emit_json(
            {
                "plan": {
                    "run": rundir.run,
                    "before": before,
                    **_planned(*found[config.target.name]),
                    "targets": {name: _planned(*one) for name, one in found.items()},
                    "agents": [name for name, _ in config.agent_names()],
                    "slots": slots,
                },
                "config": json.loads(configs.dump(config)),
            }
        )
        return
    emit(configs.dump(config), end="")
    room = "as many slots as the cluster has" if slots is None else counted(slots, "slot")
    say(
        f"swarm: nothing was started. A launch would {_would(before, order)} run {rundir.run}:\n"
        + "".join(_planned_words(name, *one) for name, one in found.items())
        + f"  {counted(len(config.agent_names()), 'agent')}, {room}"
    )


def _planned(source: Source, files: tuple[str, ...]) -> dict[str, Any]:
    return {"repo": str(source.top), "base": source.base, "files": files}


def _planned_words(name: str, source: Source, files: tuple[str, ...]) -> str:
    shown = ", ".join(files[:6]) + (f" and {len(files) - 6} more" if len(files) > 6 else "")
    return (
        f"  target {name}: repository {source.top} at {source.base}\n"
        f"  {counted(len(files), 'file')} in scope: {shown}\n"
    )


def _would(before: str | None, order: Order) -> str:
    if before is None:
        return "start"
    if before != "finished":
        return "resume"
    return "only print the summary of" if order.name else "start a numbered successor of"
