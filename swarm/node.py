"""What one machine of a run owns: its mirror, what `setup` left, its exports; and how it measures.

Everything here is rebuildable and lies in node-local scratch. Several processes of one machine
(slots, agents) open the same `Node`; a file lock guards the steps that must happen once. Knows
neither Ray nor the ledger, and decides nothing.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from swarm.bundled import HARNESS, programs
from swarm.errors import HarnessError, PreconditionError, SwarmError
from swarm.evaluate import (
    Harness,
    Result,
    Room,
    Stage,
    Way,
    command_words,
    environment,
    evaluate,
    log_tail,
    open_log,
)
from swarm.metering import DOOR_PORT, Meter, Provider
from swarm.records import Failure, Measurement, ProcessStamp, Purpose, SlotInfo
from swarm.removal import remove_tree
from swarm.repo import Mirror
from swarm.sandbox import (
    WORK,
    Command,
    Door,
    Limits,
    Mount,
    Rung,
    Sandbox,
    View,
    holds,
    program_at,
    tools_of,
)
from swarm.scope import Scope

SETUP_TIMEOUT_S = 3600.0
LOG_LIMIT = 256 * 1024
"""Bytes of a measurement's log that travel to the run directory: half head, half tail."""


@dataclass(frozen=True)
class TargetSite:
    """What a node must know of a target to measure it."""

    name: str
    base: str
    base_tree: str
    prefix: str
    """The target's directory below the git top level, "" for the top itself."""
    scope: tuple[str, ...]
    harness: Harness
    setup: str | tuple[str, ...] | None = None
    max_files: int | None = None
    max_lines: int | None = None
    exclude: tuple[str, ...] = ()
    hide: tuple[str, ...] = ()
    read_only: tuple[str, ...] = ()
    provider: Provider | None = None


@dataclass(frozen=True)
class NodeSite:
    """Everything a node is built from; picklable."""

    run: str
    key: str
    """Names the run's directory below the node's scratch; unlike `run`, unique on a machine."""
    targets: tuple[TargetSite, ...]
    bundle: bytes
    """A pack of all that agents and slots start from."""
    tips: tuple[str, ...]
    rung: Rung
    limits: Limits = field(default_factory=Limits)
    network: bool = False
    """Whether the untrusted stages have one."""
    gpus: bool = False
    shielded: tuple[str, ...] = ()
    """Directories of which no candidate sees anything, where they lie on this machine."""


@dataclass(frozen=True)
class MeasureJob:
    """One measurement to be made."""

    slot: str
    target: str
    commit: str
    tree: str
    index: int
    seed: int
    machine: str
    purpose: Purpose
    experiment: int | None
    cases: tuple[str, ...] | None = None
    """The cases of a suite to be run; None for all."""
    guarded: bool = False
    """Whether the commit has passed its guards before."""
    pack: bytes | None = None
    """Objects that the slot's node lacks."""


@dataclass(frozen=True)
class MeasureDone:
    """A measurement that was made, or that failed in a way that says something of the commit."""

    job: MeasureJob
    measurement: Measurement
    log: bytes
    busy_seconds: float


def scratch_root() -> Path:
    """Give the node-local directory below which all rebuildable files lie."""
    chosen = os.environ.get("SWARM_SCRATCH")
    if chosen:
        return Path(chosen).expanduser().resolve()
    from platformdirs import user_cache_path

    return user_cache_path("swarm")


def machine_kind(gpu_name: str | None = None) -> str:
    """Name the kind of this machine: measurements of different kinds are never compared."""
    if gpu_name:
        return gpu_name
    model = ""
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        model = next((line.split(":", 1)[1] for line in file if line.startswith("model name")), "")
    return " ".join((model or platform.processor() or platform.machine()).split()) or "cpu"


class Node:
    """One machine's share of a run, seen from one of its targets."""

    def __init__(self, site: NodeSite, target: str | None = None) -> None:
        """Open the node; `target` names what it is to serve, the first target by default."""
        self.site = site
        self.root = scratch_root() / site.key
        self.target = next(t for t in site.targets if target in (None, t.name))
        self.hidden = Scope(self.target.hide, guarded=False)
        kept = Scope((*self.target.exclude, *self.target.hide), guarded=False)
        self.scope = Scope(self.target.scope, without=kept)

    def serving(self, target: str) -> Node:
        """Give the same node, seen from another target."""
        return self if target == self.target.name else Node(self.site, target)

    @cached_property
    def mirror(self) -> Mirror:
        """The node's own repository."""
        return Mirror(self.root / "mirror.git")

    @cached_property
    def harnesses(self) -> Path:
        """The programs of the harnesses that come with swarm, where `$SWARM_HARNESS` leads."""
        return programs(self.root / "harness")

    def prepare(self) -> None:
        """Build mirror and set-up results of all targets; done once a node, whoever comes first.

        Raises:
            HarnessError: `setup` failed; the message carries the end of its output.
            PreconditionError: this machine does not have the isolation that the run began with.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        rung = self.site.rung
        reason = holds(rung, gpus=self.site.gpus)
        if reason is not None:
            raise PreconditionError(
                f"sandbox `{rung.name}` does not hold on {platform.node()}: {reason}",
                hint="all nodes need the same isolation; `swarm doctor` on each says what it has",
            )
        with self._locked("prepare"):
            mirror = Mirror.create(self.root / "mirror.git", self.site.bundle)
            if not all(mirror.has(t) for t in self.site.tips):
                mirror.unpack(self.site.bundle)
            for target in self.site.targets:
                if target.setup is not None:
                    self.serving(target.name)._set_up(mirror, target.setup)

    @cached_property
    def _setup(self) -> Path:
        """What `setup` leaves; targets that agree in what is set up share it."""
        target = self.target
        same = repr((target.base, target.prefix, target.setup, sorted(target.harness.env.items())))
        return self.root / "setups" / hashlib.sha256(same.encode()).hexdigest()[:12]

    def _set_up(self, mirror: Mirror, setup: str | tuple[str, ...]) -> None:
        done, checkout = self._setup / "done", self._setup / "checkout"
        if done.exists():
            return
        shutil.rmtree(self._setup, ignore_errors=True)
        self._setup.mkdir(parents=True)
        base = self.target.base
        mirror.export(base, base, self.target.prefix, self.scope, checkout)
        log = self._setup / "log"
        # It is the user's own, and gets what it needs: the network, caches, local indexes.
        own = {HARNESS: str(self.harnesses), **_network_settings()}
        with Sandbox(Rung("off", ()), scratch=self._setup / "tmp") as sandbox:
            outcome = sandbox.run(
                Command(
                    argv=("/bin/sh", "-c", setup) if isinstance(setup, str) else setup,
                    cwd=checkout / self.target.prefix,
                    env=environment(os.environ, self.target.harness.env, own),
                    timeout_s=SETUP_TIMEOUT_S,
                    log=log,
                )
            )
        if outcome.status != 0:
            how = "timed out" if outcome.timed_out else f"ended with status {outcome.status}"
            raise HarnessError(
                f"target `{self.target.name}`: setup {how}: {setup!r}\n"
                f"--- end of its output ---\n{log_tail(log)}",
                hint="run the setup command by hand in a clean checkout of the base",
            )
        self._record_left_by_setup(mirror, checkout)
        done.touch()

    def _record_left_by_setup(self, mirror: Mirror, checkout: Path) -> None:
        # Python makes its caches anew; each would be a mount of its own.
        found = mirror.ignored(checkout, self.target.base)
        left = [p for p in found if not p.endswith(("__pycache__", ".pyc"))]
        (self._setup / "left").write_bytes(b"\0".join(os.fsencode(p) for p in left))

    def left_by_setup(self) -> list[str]:
        """Paths, relative to the top, that `setup` made and git ignores."""
        with suppress(FileNotFoundError):
            data = (self._setup / "left").read_bytes()
            return [os.fsdecode(p) for p in data.split(b"\0") if p]
        return []

    def export(self, commit: str, dest: Path, *, hidden: bool = False) -> Path:
        """Make a fresh directory of the commit, all out of scope from base, `hide` left out.

        What `setup` left is linked in, except where it is mounted. `hidden` leaves `hide` in.
        """
        self.mirror.export(commit, self.target.base, self.target.prefix, self.scope, dest)
        if not hidden:
            self._leave_out(dest / self.target.prefix)
        if not self.site.rung.own_files:
            for path in self._provided(hidden):
                link, source = dest / path, self._setup / "checkout" / path
                if not os.path.lexists(link):
                    link.parent.mkdir(parents=True, exist_ok=True)
                    link.symlink_to(source)
        return dest

    def _leave_out(self, top: Path) -> None:
        """Remove what only the trusted stages see."""
        for folder, folders, names in os.walk(top) if self.hidden.patterns else ():
            for name in [*folders, *names]:
                path = Path(folder, name)
                if path.relative_to(top).as_posix() in self.hidden:
                    remove_tree(path)
            folders[:] = [n for n in folders if os.path.lexists(Path(folder, n))]

    def _provided(self, hidden: bool) -> list[str]:
        """Give what `setup` left and a stage may have."""
        skip = len(self.target.prefix) + 1 if self.target.prefix else 0
        return [p for p in self.left_by_setup() if hidden or p[skip:] not in self.hidden]

    @cached_property
    def _programs(self) -> list[str]:
        """What the commands name that PATH does not lead to: interpreters, swarm's harnesses."""
        words = [w for c in self.target.harness.commands for w in command_words(c)]
        found = [p for word in words for p in program_at(word, self.site.shielded)]
        if any(HARNESS in word for word in words):
            found.append(str(self.harnesses))
        return list(dict.fromkeys(found))

    def room(self, commit: str, dest: Path, stage: Stage) -> Room:
        """Make the directory of a stage, and say what may be seen from it."""
        trusted = stage == "score"
        export = self.export(commit, dest, hidden=trusted)
        mounts = [Mount(export, WORK, writable=True)]
        for path in self._provided(trusted):
            source = self._setup / "checkout" / path
            # At its own place too: the programs of a virtual environment name it in full.
            mounts += [Mount(source, f"{WORK}/{path}"), Mount(source)]
            mounts += [Mount(Path(tool)) for tool in tools_of(source)]
        mounts += [Mount(Path(path)) for path in (*self._programs, *self.target.read_only)]
        view = View(
            tuple(mounts),
            network=self.site.network and not trusted,
            gpus=self.site.gpus,
            shielded=(*self.site.shielded, str(scratch_root())),
        )
        return Room(export, view)

    @contextmanager
    def _locked(self, name: str) -> Generator[None]:
        fd = os.open(self.root / f"{name}.lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)


def _network_settings() -> dict[str, str]:
    """`setup` may reach the network, so it keeps the variables that say how."""
    tools = ("PIP_", "UV_", "NPM_CONFIG_", "npm_config_")
    names = (*tools, "SSL_CERT_", "REQUESTS_CA_", "NODE_EXTRA_CA_CERTS")
    proxies = ("http_proxy", "https_proxy", "no_proxy")
    return {k: v for k, v in os.environ.items() if k.startswith(names) or k.lower() in proxies}


class Bench:
    """One slot at work: measures one commit at a time, each in a fresh export."""

    def __init__(self, node: Node, slot: SlotInfo, gpus: str = "") -> None:
        self.node, self.slot, self._gpus = node, slot, gpus
        self._dir = node.root / "slots" / slot.name
        _remove(self._dir)
        self._dir.mkdir(parents=True, exist_ok=True)
        self._sandbox = Sandbox(
            node.site.rung, scratch=self._dir / "private", limits=node.site.limits
        )

    @property
    def supervisor(self) -> ProcessStamp | None:
        """The process under which everything of this slot runs."""
        return self._sandbox.supervisor

    def measure(self, job: MeasureJob, cancel: threading.Event | None = None) -> MeasureDone:
        """Export, guard, run, score, clean up. Never raises for what the candidate did."""
        started = time.monotonic()
        log = self._dir / "log"
        try:
            _remove(log)
            measurement = self._measure(job, log, cancel)
        except (SwarmError, OSError) as error:
            # Our own machinery failed, which says nothing of the commit.
            failure = Failure(kind="aborted", reason=f"{type(error).__name__}: {error}")
            measurement = _measurement(job, Result({}, "", failure, 0.0, 0.0))
        finally:
            self._clean()
        said = _ends_of(log)
        with suppress(OSError):  # where `/proc` is open it may hold a key, and here nobody knows
            _remove(log)
        return MeasureDone(job, measurement, said, time.monotonic() - started)

    def _measure(self, job: MeasureJob, log: Path, cancel: threading.Event | None) -> Measurement:
        node = self.node.serving(job.target)
        if job.pack is not None:
            node.mirror.unpack(job.pack)
        label = str(job.experiment) if job.experiment is not None else job.purpose
        with self._way(node.target.provider) as (way, meter):
            result = evaluate(
                node.target.harness,
                lambda stage: node.room(job.commit, self._dir / stage, stage),
                node.target.prefix,
                harnesses=node.harnesses,
                sandbox=self._sandbox,
                seed=job.seed,
                label=label,
                log=log,
                gpus=self._gpus,
                cases=job.cases,
                guarded=job.guarded,
                final=job.purpose == "final",
                cancel=cancel,
                way=way,
            )
        measurement = _measurement(job, result)
        if meter is None:
            return measurement
        used = meter.used
        return measurement.model_copy(update={"usd": used.usd, "tokens": used.tokens})

    @contextmanager
    def _way(self, provider: Provider | None) -> Generator[tuple[Way | None, Meter | None]]:
        """Open the way to the models, for one measurement."""
        site = self.node.site
        if provider is None:
            yield None, None
            return
        # Where the candidate has no network it has a loopback of its own, reached by the door.
        apart = site.rung.walls and not site.network
        path = self._dir / "door"
        with Meter(provider, door=path if apart else None) as meter:
            yield Way(meter.url, meter.token, Door(path, DOOR_PORT) if apart else None), meter

    def _clean(self) -> None:
        """Leave nothing of what a candidate had, or has put beside it."""
        for path in self._dir.iterdir():
            if path.name not in ("private", "log"):
                with suppress(OSError):
                    _remove(path)

    def close(self) -> None:
        """End the supervisor and whatever it still holds."""
        self._sandbox.close()
        with suppress(OSError):
            _remove(self._dir)


def _measurement(job: MeasureJob, result: Result) -> Measurement:
    return Measurement(
        commit=job.commit,
        tree=job.tree,
        index=job.index,
        machine=job.machine,
        values=result.values,
        failure=result.failure,
        seconds=result.seconds,
        peak_memory_mb=result.peak_memory_mb,
        feedback=result.feedback,
        cases=result.cases,
        asked=job.cases,
        sealed=result.sealed,
    )


def _remove(path: Path) -> None:
    """Remove whatever a candidate has made of a path; what will not go is moved out of the way."""
    if not remove_tree(path):
        path.rename(path.with_name(f".left-{time.monotonic_ns()}"))


def _ends_of(log: Path) -> bytes:
    with suppress(OSError), open_log(log) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        if size <= LOG_LIMIT:
            return file.read()
        head = file.read(LOG_LIMIT // 2)
        file.seek(-(LOG_LIMIT // 2), os.SEEK_END)
        return head + b"\n[... cut ...]\n" + file.read()
    return b""
