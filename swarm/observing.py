"""Look at a target as a launch would, measure it as a run would, and leave nothing.

Owns what `swarm check` measures and in which order, on a scratch of its own: the same node,
sandbox, slots and seeds as a run's; and a bench on which `swarm init` tries drafted tests out.
Knows no terminal, and judges nothing: that is `diagnosis`.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import shlex
import time
import zlib
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, TypeVar

import psutil

from swarm import budget, mustering
from swarm.bundled import HARNESS
from swarm.config import RunConfig
from swarm.entities import FINAL_INDEX, Target
from swarm.errors import (
    BudgetRefusedError,
    ConfigError,
    PreconditionError,
    SwarmError,
    remedy,
)
from swarm.evaluate import environment, log_tail
from swarm.formats.text import duration
from swarm.keys import take
from swarm.launch import check_groups, check_target, warm_start
from swarm.node import MeasureDone, MeasureJob, Node, NodeSite, machine_kind, scratch_root
from swarm.observations import (
    TELLING_S,
    Copy,
    Observations,
    Take,
    crowded,
    figures,
    named_as_missing,
    tells_of_no_network,
    unmoved,
)
from swarm.proposers.ready import check as check_proposers
from swarm.records import Purpose, TargetInfo
from swarm.removal import remove_tree
from swarm.repo import (
    SWARM,
    Hub,
    Rejected,
    Source,
    check_branch_room,
    create_hub,
    inspect,
    tracked_files,
)
from swarm.runtime import Inline, Lost, Muster, local_gpus, slot_count
from swarm.sandbox import WORK, Command, Sandbox, probe, system

NONSENSE = "]}) swarm check has put this line in place of the file\n"
"""No program, no JSON and no YAML."""
POLL_S = 0.5
LOOK_S = 60.0
YOUNG_S = 60.0
"""A scratch directory younger than this may not be locked yet by the check that makes it."""
COLD = 1.5
"""A first measurement so much slower than those at once says nothing of an idle machine."""
LOG_READ = 4 * 2**20
"""Bytes of what a program of our own printed on the base that are read."""
_HEAD = "check-"

T = TypeVar("T")
Tell = Callable[[str], None]
Tidying = Callable[[], AbstractContextManager[None]]
"""Within it nothing interrupts."""


def observe(
    config: RunConfig, tell: Tell, tidying: Tidying = nullcontext, *, key: str = "target"
) -> Observations:
    """Look at everything a launch would look at, and measure the base.

    Args:
        config: as loaded.
        tell: is told how far it has come.
        tidying: a context in which signals wait, for what must be done whatever happens.
        key: where the target stands in the config.
    """
    with tidying():  # git reads on when it is interrupted, and a snapshot writes
        keys = take(config.askers, os.environ)
        source, seen = _preconditions(config, keys, key)
    if source is None:
        return seen
    with _scratch(tidying) as root:
        try:
            return _Lab(config, keys, source, root, tell, tidying).work(seen)
        except PreconditionError as error:
            return replace(seen, refusals=(*seen.refusals, error))


class Ran(NamedTuple):
    """How a program ended that was run on the base."""

    status: int | None
    timed_out: bool
    log: str
    """The end of what it printed, stdout and stderr together."""


class Bench:
    """The base of a target, set up, to run programs of our own on: nothing of them is kept."""

    def __init__(self, lab: _Lab) -> None:
        self._lab = lab

    @property
    def walls(self) -> bool:
        """Whether what is run is kept from the machine."""
        return self._lab.walls

    def run(
        self, files: Mapping[str, str], command: str | tuple[str, ...], timeout_s: float
    ) -> Ran:
        """Run a command in a fresh export of the base, as a guard is, with some files added.

        Args:
            files: texts by path, relative to the target's directory.
            command: a text for the shell, or argv.
            timeout_s: after that it is ended, with all its processes.
        """
        return self._lab.run(files, command, timeout_s)


@contextmanager
def bench(config: RunConfig, tell: Tell, tidying: Tidying = nullcontext) -> Generator[Bench]:
    """Set the base of a target up on a scratch of its own; all is gone afterwards.

    Raises:
        RepositoryError: the repository cannot be used as it is.
        HarnessError: `setup` failed.
    """
    with tidying():
        source = inspect(config.target.repo, config.target.base, dirty=config.target.dirty)
    with _scratch(tidying) as root:
        lab = _Lab(config, {}, source, root, tell, tidying)
        lab.prepare()
        yield Bench(lab)


def _preconditions(
    config: RunConfig, keys: Mapping[str, str], key: str
) -> tuple[Source | None, Observations]:
    """Collect what a launch would refuse; no source if nothing can be measured."""
    refusals: list[SwarmError] = []
    target = config.target
    found = _try(refusals, lambda: inspect(target.repo, target.base, dirty=target.dirty))
    files = None
    if (source := found) is not None:
        files = _try(refusals, lambda: check_target(target, source, key))
        if files is not None:
            _try(refusals, lambda: check_groups(config, target, source, key))
        _try(refusals, lambda: check_branch_room(source, config.name))
        _try(refusals, lambda: warm_start(config, source.top))
    _try(refusals, lambda: check_proposers(config, keys))
    _try(refusals, lambda: budget.check(config, keys))
    slots = _try(
        refusals, lambda: slot_count(target.slot, cpus=os.cpu_count() or 1, gpus=local_gpus())
    )
    memory = _machine_memory() / 2**20
    seen = Observations(refusals=tuple(refusals), slots=slots or 0, memory_mb=memory)
    return (None if files is None or slots is None else found), seen


def _try(refusals: list[SwarmError], look: Callable[[], T]) -> T | None:
    try:
        return look()
    except (ConfigError, PreconditionError, BudgetRefusedError) as error:
        refusals.append(error)
        return None


def _machine_memory() -> float:
    """Give the bytes that processes here may have: the machine's, or those of its container."""
    total = float(psutil.virtual_memory().total)
    with suppress(OSError, ValueError):
        total = min(total, float(Path("/sys/fs/cgroup/memory.max").read_text()))
    return total


@contextmanager
def _scratch(tidying: Tidying) -> Generator[Path]:
    """Give a directory that is gone afterwards; those of killed checks go with it."""
    root = scratch_root() / f"{_HEAD}{os.getpid()}-{secrets.token_hex(4)}"
    try:
        try:
            root.mkdir(parents=True)
            for old in root.parent.glob(f"{_HEAD}*"):
                _remove_dead(old)
            held = os.open(root / "alive", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            what = f"cannot write the scratch directory {root.parent}: {error.strerror}"
            hint = remedy(error) or "set SWARM_SCRATCH to a directory on a local disk"
            raise PreconditionError(what, hint=hint, path=root.parent) from error
        fcntl.flock(held, fcntl.LOCK_EX)
        try:
            yield root
        finally:
            os.close(held)
    finally:
        with tidying():
            _end_workers(root)
            if not remove_tree(root):
                raise SwarmError(f"{root} could not be removed", hint="remove it by hand")


def _end_workers(root: Path) -> None:
    """End the git that an interruption left at work there: it would make anew what is removed."""
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error, OSError):
            if Path(child.cwd()).is_relative_to(root):
                child.kill()
                child.wait(5)


def _remove_dead(old: Path) -> None:
    """Remove what a check left that was killed: nobody holds its lock."""
    with suppress(OSError):
        if time.time() - old.stat().st_mtime < YOUNG_S:
            return
        fd = os.open(old / "alive", os.O_RDWR)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove_tree(old)
        finally:
            os.close(fd)


class _Made(NamedTuple):
    """A commit and its tree."""

    commit: str
    tree: str


class _Lab:
    """The base of a target, ready to be measured, in a scratch of its own."""

    def __init__(
        self,
        config: RunConfig,
        keys: Mapping[str, str],
        source: Source,
        root: Path,
        tell: Tell,
        tidying: Tidying,
    ) -> None:
        self._config, self._source, self._root = config, source, root
        self._tell, self._tidying = tell, tidying
        self._rule = config.rule()
        self._info = TargetInfo(
            name=config.target.name,
            metric=config.target.metric.spec,
            repo=str(source.top),
            base=source.base,
            base_tree=source.base_tree,
            scored=config.target.score is not None,
        )
        self._seed = zlib.crc32(config.name.encode())
        create_hub({"": source}, root / "hub.git", config.name)
        site = mustering.target_site(
            config.target, config, Target(self._info, best=source.base), source.prefix, keys
        )
        # Values that cannot be true are wanted here, to say what is wrong with them.
        self._site = NodeSite(
            run=config.name,
            key=root.name,
            targets=(replace(site, harness=replace(site.harness, bounds=None)),),
            bundle=Hub(root / "hub.git", config.name).bundle([source.base]),
            tips=(source.base,),
            rung=probe(config.sandbox.mode, gpus=bool(config.target.slot.gpus)),
            **mustering.terms_of(config, [source.top]),
        )

    def work(self, seen: Observations) -> Observations:
        """Set up, measure the base, then the base with nonsense in scope."""
        rung = self._site.rung
        seen = replace(seen, info=self._info, sandbox=rung.name, sandbox_warning=rung.warning)
        if self._config.target.setup is not None:
            self._tell("setting up")
        with self._slots(self._site, seen.slots) as slots:
            seen = self._baseline(seen, slots)
            if seen.good and self._config.target.final is not None:
                self._tell("trying `final`")
                final = slots.measure(self._job(FINAL_INDEX, "final"))[0]
                seen = replace(seen, final=final.measurement)
        if not seen.good:
            return seen
        seen = self._with_nonsense(seen)
        if unmoved(seen, self._config):
            seen = replace(seen, copies=self._copies())
        return seen

    @property
    def walls(self) -> bool:
        """Whether commands are kept from the machine."""
        return self._site.rung.walls

    def prepare(self) -> None:
        """Make what measurements start from, `setup` included."""
        if self._config.target.setup is not None:
            self._tell("setting up")
        Node(self._site).prepare()

    def run(
        self, files: Mapping[str, str], command: str | tuple[str, ...], timeout_s: float
    ) -> Ran:
        """Run a command as a guard, with some files added to the base."""
        export, log = self._root / "try", self._root / "try.log"
        remove_tree(export)
        log.unlink(missing_ok=True)
        node = Node(self._site)
        room = node.room(self._source.base, export, "guard")
        top = room.export / self._source.prefix
        for path, text in files.items():
            (top / path).parent.mkdir(parents=True, exist_ok=True)
            (top / path).write_text(text, encoding="utf-8")
        argv = ("/bin/sh", "-c", command) if isinstance(command, str) else command
        own = {HARNESS: str(node.harnesses), "SWARM_SEED": str(self._seed)}
        with Sandbox(
            self._site.rung, scratch=self._root / "try.tmp", limits=self._site.limits
        ) as sandbox:
            outcome = sandbox.run(
                Command(
                    argv=argv,
                    cwd=top,
                    env=environment(os.environ, self._config.target.env, own),
                    timeout_s=timeout_s,
                    log=log,
                    view=room.view,
                )
            )
        said = log.read_bytes()[-LOG_READ:].decode("utf-8", "replace") if log.exists() else ""
        return Ran(outcome.status, outcome.timed_out, outcome.error or said)

    @contextmanager
    def _slots(self, site: NodeSite, count: int) -> Generator[_Slots]:
        runtime = Inline()
        slot = self._config.target.slot.model_copy(update={"count": count})
        try:
            Node(site).prepare()  # this takes its time, and may be interrupted
            with self._tidying():
                runtime.start(Muster(site, slot, ()))
            yield _Slots(runtime)
        finally:
            with self._tidying():
                runtime.close()

    def _job(self, index: int, purpose: Purpose, made: _Made | None = None) -> MeasureJob:
        made = made or _Made(self._source.base, self._source.base_tree)
        return MeasureJob(
            slot="s1",
            target=self._config.target.name,
            commit=made.commit,
            tree=made.tree,
            index=index,
            seed=mustering.seed_of(self._seed, index),
            machine=machine_kind(),
            purpose=purpose,
            experiment=None,
        )

    # --- the base

    def _baseline(self, seen: Observations, slots: _Slots) -> Observations:
        """Measure one alone, then all slots at once, until the noise is known."""
        wanted = self._rule.baseline
        seen = self._round(seen, slots, 1)
        while seen.good and len(seen.takes) < wanted and len(seen.takes) - len(seen.good) < 2:
            found = figures(seen, self._config)
            if found is None or (found.exact and len(seen.takes) > 1):
                break
            seen = self._round(seen, slots, 1 if crowded(seen) else seen.slots)
        first, crowd = seen.takes[0], [t for t in seen.good if not t.alone]
        if first.measurement.failure is None and crowd:
            usual = min(t.measurement.seconds for t in crowd)
            took = first.measurement.seconds
            if took > COLD * usual and took - usual > TELLING_S:
                seen = self._round(seen, slots, 1)
        return seen

    def _round(self, seen: Observations, slots: _Slots, together: int) -> Observations:
        begun, wanted = len(seen.takes), max(self._rule.baseline, len(seen.takes) + 1)
        which = f"{begun + 1}" if together == 1 else f"{begun + 1} to {begun + together}"
        how = "alone" if together == 1 else f"{together} at once"
        about = max((t.busy_seconds for t in seen.takes), default=0.0)
        took = f"; the last took {duration(about)}" if about >= 1 else ""
        most = max(wanted, begun + together)
        self._tell(f"measuring the base, {which} of at most {most}, {how}{took}")
        jobs = [
            replace(self._job(begun + i, "baseline"), slot=f"s{i + 1}") for i in range(together)
        ]
        done = slots.measure(*jobs)
        alone = together == 1
        takes = [Take(d.measurement, alone, d.busy_seconds) for d in done]
        failed = [d.log for d in done if d.measurement.failure is not None]
        logs = failed or ([] if begun else [d.log for d in done])
        absent = dict.fromkeys(seen.absent)
        for log in logs:
            absent |= dict.fromkeys(self._absent(log.decode("utf-8", "replace")))
        seen = replace(seen, takes=(*seen.takes, *takes), absent=tuple(absent))
        return self._walled_off(seen, [log.decode("utf-8", "replace") for log in failed])

    def _walled_off(self, seen: Observations, logs: list[str]) -> Observations:
        """Note what failed measurements asked for that lies outside their walls."""
        if not self._site.rung.walls:
            return seen
        words = [word for log in logs for word in named_as_missing(log)]
        outside = (w for w in words if os.path.isabs(w) and os.path.exists(w))
        seen_there = system(os.environ.get("PATH", os.defpath))
        own = (WORK, str(self._root), str(self._source.top), "/proc", "/dev")
        shown = (*own, *seen_there.shown, *(place for place, _ in seen_there.links))
        unseen = [w for w in outside if not w.startswith(shown)]
        offline = not self._site.network and any(map(tells_of_no_network, logs))
        return replace(
            seen,
            unseen=tuple(dict.fromkeys([*seen.unseen, *unseen])),
            offline=seen.offline or offline,
        )

    def _absent(self, log: str) -> list[str]:
        """Give what a log names as not found, and the user's working tree has."""
        whole = replace(self._source, prefix="")
        tracked = frozenset(tracked_files(whole))
        found: dict[str, None] = {}
        for word in named_as_missing(log):
            for path in self._places(word):
                below = f"{path}/"
                known = path in tracked or any(t.startswith(below) for t in tracked)
                if not known and os.path.lexists(self._source.top / path):
                    found[path] = None
                    break
        return list(found)

    def _places(self, word: str) -> list[str]:
        """Give where a path of a log may lie in the repository."""
        if word.startswith(f"{WORK}/"):
            tries = [word[len(WORK) + 1 :]]
        elif word.startswith(f"{self._root}/"):
            inside = re.match(
                r"slots/[^/]+/(?:run|guard|score)/(.+)", word[len(str(self._root)) + 1 :]
            )
            tries = [inside[1]] if inside else []
        elif word.startswith("/"):
            return []
        else:
            tries = [f"{self._source.prefix}/{word}" if self._source.prefix else word, word]
        paths = [os.path.normpath(path) for path in tries]
        own = (".", "..", ".git", ".swarm")
        return [p for p in paths if p.split("/", 1)[0] not in own]

    # --- nonsense in scope

    def _with_nonsense(self, seen: Observations) -> Observations:
        """Measure the base with every file in scope replaced, twice if that is close."""
        with self._tidying():
            commit = self._nonsense()
        if commit is None:
            return seen
        own = self._site.targets[0]
        harness = replace(own.harness, guard=(), final=None)
        site = replace(self._site, targets=(replace(own, harness=harness),))
        with self._slots(site, 1) as slots:
            for index in range(2):
                self._tell("measuring it with nonsense in place of all files in scope")
                done = slots.measure(self._job(index, "candidate", commit))[0]
                seen = replace(seen, nonsense=(*seen.nonsense, done.measurement))
                found = figures(seen, self._config)
                if found is None or found.exact or not unmoved(seen, self._config):
                    break
        return seen

    def _nonsense(self) -> _Made | None:
        """Commit it to the mirror; None if git will not have it."""
        base, prefix = self._source.base, self._source.prefix
        scope = self._config.target.area
        mirror = Node(self._site).mirror
        worktree = mirror.worktree("nonsense", self._root / "nonsense", base, SWARM)
        for file in worktree.files(base, prefix, scope):
            (worktree.path / prefix / file).write_text(NONSENSE, encoding="utf-8")
        made = worktree.snapshot(base, prefix, scope)
        if isinstance(made, Rejected):
            return None
        commit = worktree.commit(made.tree, base, "Nonsense\n", datetime.now(UTC))
        return _Made(commit, made.tree)

    def _copies(self) -> tuple[Copy, ...]:
        """Ask the interpreter of `run` where it finds the packages of the scope."""
        names = _packages(check_target(self._config.target, self._source))
        if not names:
            return ()
        room = Node(self._site).room(self._source.base, self._root / "look", "run")
        with Sandbox(self._site.rung, scratch=self._root / "look.tmp") as sandbox:
            log = self._root / "look.log"
            outcome = sandbox.run(
                Command(
                    argv=(_interpreter(self._config.target.run), "-c", _FIND, *names),
                    cwd=room.export / self._source.prefix,
                    env=environment(os.environ, self._config.target.env, {}),
                    timeout_s=LOOK_S,
                    log=log,
                    errors=self._root / "look.errors",
                    view=room.view,
                )
            )
            top = sandbox.inside(room.export, room.view)
        found: dict[str, str] = {}
        if outcome.status == 0:
            with suppress(ValueError):
                found = json.loads(log_tail(log, 1))
        return tuple(
            Copy(name, place)
            for name, place in found.items()
            if not Path(place).is_relative_to(top)
        )


class _Slots:
    """The slots of a lab, all idle."""

    def __init__(self, runtime: Inline) -> None:
        self._runtime = runtime

    def measure(self, *jobs: MeasureJob) -> list[MeasureDone]:
        """Make measurements at once, each on its slot, and wait for all of them."""
        for job in jobs:
            self._runtime.measure(job)
        done: list[MeasureDone] = []
        while len(done) < len(jobs):
            for event in self._runtime.wait(POLL_S):
                if isinstance(event, Lost):
                    raise SwarmError(f"slot {event.place} broke: {event.reason}")
                if isinstance(event, MeasureDone):
                    done.append(event)
        return done


_FIND = """\
import importlib.util, json, sys
sys.path[:] = [entry for entry in sys.path if entry]
found = {}
for name in sys.argv[1:]:
    spec = importlib.util.find_spec(name)
    if spec is not None:
        place = spec.origin or next(iter(spec.submodule_search_locations or ()), None)
        if place and place not in ("built-in", "frozen"):
            found[name] = place
print(json.dumps(found))
"""


def _packages(files: Sequence[str]) -> list[str]:
    """Name the Python packages and modules that files belong to."""
    found: dict[str, None] = {}
    for file in files:
        parts = file.removesuffix(".py").split("/")
        if not file.endswith(".py"):
            continue
        if parts[0] in ("src", "lib", "python") and len(parts) > 1:
            parts = parts[1:]
        if parts[0].isidentifier():
            found[parts[0]] = None
    return list(found)


def _interpreter(run: str | tuple[str, ...]) -> str:
    """Give the Python of a command, as far as it can be seen."""
    words: Sequence[str] = ()
    with suppress(ValueError):
        words = shlex.split(run) if isinstance(run, str) else run
    named = (w for w in words if re.fullmatch(r"(.*/)?python[0-9.]*", w))
    return next(named, "python3")
