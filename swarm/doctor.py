"""What swarm needs on this machine: looked at one by one, each with a remedy.

Owns the list of checks. Imports none of the libraries that it asks about; starts nothing but
`git --version` and the like, and an empty sandbox. Of keys it shows the names of their variables,
never a value.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path
from typing import Literal

import swarm
from swarm.bundled import bundled
from swarm.clean import megabytes
from swarm.errors import SwarmError
from swarm.formats.text import sanitise
from swarm.node import scratch_root
from swarm.proposers.clis import TABLE
from swarm.proposers.ready import has_login, key_names, programs
from swarm.repo import git_version
from swarm.runtime import local_gpus
from swarm.sandbox import INSTALL, probe
from swarm.terminal import emit, emit_json

FREE_BYTES = 1e9
"""Below this the first large target fills the disk."""
VERSION_S = 10.0
"""A program that takes longer to say its version is not waited for."""
SHM_BYTES = 128e6
"""Ray's object store takes 100 MB of it."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. A `problem` stops swarm, a `warning` may slow or limit it."""

    name: str
    level: Literal["ok", "info", "warning", "problem"]
    found: str
    remedy: str | None = None


def examine(*, as_json: bool) -> int:
    """Print all findings and give the exit code: 3 if swarm cannot work here."""
    findings = [finding for check in CHECKS for finding in check()]
    fit = all(finding.level != "problem" for finding in findings)
    if as_json:
        emit_json({"ok": fit, "findings": [asdict(finding) for finding in findings]})
    else:
        wide = max(len(finding.name) for finding in findings)
        for finding in findings:
            emit(f"{finding.level:8} {finding.name:{wide}}  {finding.found}")
            if finding.remedy is not None:
                emit(f"{'':8} {'':{wide}}  -> {finding.remedy}")
    return 0 if fit else 3


def _python() -> Iterator[Finding]:
    found = f"{platform.python_version()} at {sys.executable}"
    if os.name != "posix":
        yield Finding("system", "problem", platform.platform(), "use Linux, macOS or WSL 2")
    # An older Python cannot even install swarm.
    yield Finding("python", "ok", found)


def _package() -> Iterator[Finding]:
    own = Path(swarm.__file__).resolve().parent
    yield Finding("swarm", "ok", f"{swarm.__version__} at {own}")
    foreign = sorted({path for entry in sys.path for path in _packages_in(entry) if path != own})
    if foreign:
        yield Finding(
            "other swarm",
            "warning",
            ", ".join(map(str, foreign)),
            "another package of this name is importable and may take the place of this one; "
            "uninstall it, or give swarm an environment of its own",
        )
    names = {d.name.lower(): d for d in distributions() if d.name.lower() == "swarm"}
    for distribution in names.values():
        if distribution.version != swarm.__version__:
            yield Finding(
                "metadata",
                "warning",
                f"the installed distribution is {distribution.version}",
                "install swarm again",
            )


def _packages_in(entry: str) -> Iterator[Path]:
    folder = Path(entry or ".").resolve()
    if (folder / "swarm" / "__init__.py").is_file():
        yield folder / "swarm"
    if (folder / "swarm.py").is_file():
        yield folder / "swarm.py"


def _git() -> Iterator[Finding]:
    try:
        found = git_version()
    except SwarmError as error:
        yield Finding("git", "problem", error.message, error.hint)
    else:
        yield Finding("git", "ok", ".".join(map(str, found)))


def _libraries() -> Iterator[Finding]:
    try:
        yield Finding("ray", "ok", version("ray"))
    except PackageNotFoundError:
        yield Finding("ray", "problem", "not installed", "pip install 'ray>=2.60,<3'")
    try:
        yield Finding("torch", "info", version("torch"))
    except PackageNotFoundError:
        yield Finding("torch", "info", "not installed; only targets that use it need it")


def _hardware() -> Iterator[Finding]:
    usable = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    yield Finding("cpus", "info", f"{usable} usable of {os.cpu_count()}")
    gpus = local_gpus()
    yield Finding("gpus", "info", str(gpus) if gpus else "none: targets run on CPU slots")
    shm = Path("/dev/shm")
    if shm.is_dir():
        size = shutil.disk_usage(shm).total
        if size < SHM_BYTES:
            remedy = "in a container: start it with --shm-size=1g"
            yield Finding("/dev/shm", "warning", f"only {megabytes(size)}", remedy)
        else:
            yield Finding("/dev/shm", "ok", megabytes(size))


def _disk() -> Iterator[Finding]:
    scratch = scratch_root()
    try:
        scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=scratch):
            pass
    except OSError as error:
        remedy = "set SWARM_SCRATCH to a directory on a local disk"
        yield Finding("scratch", "problem", f"cannot write {scratch}: {error.strerror}", remedy)
    else:
        yield _room("scratch", scratch, "set SWARM_SCRATCH to a larger disk, or `swarm clean`")
    yield _room("runs", Path.cwd(), "free some space, or `swarm clean`")


def _room(name: str, path: Path, remedy: str) -> Finding:
    free = shutil.disk_usage(path).free
    found = f"{megabytes(free)} free at {path}"
    return (
        Finding(name, "ok", found)
        if free >= FREE_BYTES
        else Finding(name, "warning", found, remedy)
    )


def _isolation() -> Iterator[Finding]:
    rung = probe("auto", gpus=local_gpus() > 0)
    if rung.warning is None:
        yield Finding(
            "sandbox", "ok", f"{rung.name}: nothing of this machine is open to candidates"
        )
        return
    found = f"{rung.name}: open to candidates are {', '.join(rung.open)}"
    yield Finding("sandbox", "warning", found + (f" ({rung.why})" if rung.why else ""), INSTALL)
    if sys.platform == "linux":
        shut = [name for name, closed in _CLOSED.items() if _setting(name) == closed]
        found = f"closed by {', '.join(shut)}" if shut else "no setting closes them"
        yield Finding("user namespaces", "info", found)


def _proposers() -> Iterator[Finding]:
    names = key_names()
    found = f"set: {', '.join(names)}" if names else "none set; `mutate` needs none"
    yield Finding("provider keys", "info", found)
    installed = {cli.name: path for cli, path in programs()}
    for name, cli in TABLE.items():
        if (path := installed.get(name)) is None:
            yield Finding(name, "info", f"not on PATH; {cli.title} is installed by `{cli.install}`")
            continue
        found = f"{_version(path)} at {path}"
        way_in = [key for key in cli.unlocking if key in names]
        if has_login(cli):
            way_in.insert(0, "a login")
        if way_in:
            yield Finding(name, "ok", f"{found}, with {' and '.join(way_in)}")
        else:
            remedy = f"{cli.login}, or export {cli.unlocking[0]}=..."
            yield Finding(name, "info", f"{found}, without a login or a key", remedy)


def _harness() -> Iterator[Finding]:
    place = bundled("harness")
    if place.is_dir():
        yield Finding("harness", "info", str(place))
    else:
        yield Finding("harness", "warning", f"not found at {place}", "install swarm again")


def _plugin() -> Iterator[Finding]:
    place = bundled("plugin")
    if (place / "skills" / "swarm" / "SKILL.md").is_file():
        remedy = f"a skill for coding agents: claude --plugin-dir {shlex.quote(str(place))}"
        yield Finding("plugin", "info", str(place), remedy)
    else:
        yield Finding("plugin", "warning", f"not found at {place}", "install swarm again")


def _version(program: Path) -> str:
    """Ask a program for its version, in a home of its own and without any key."""
    with tempfile.TemporaryDirectory() as home, tempfile.TemporaryFile() as output:
        env = {"PATH": os.environ.get("PATH", os.defpath), "HOME": home, "TERM": "dumb"}
        try:
            process = subprocess.Popen(
                [str(program), "--version"],
                env=env,
                cwd=home,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            return f"cannot be started ({error.strerror})"
        with suppress(subprocess.TimeoutExpired):
            process.wait(VERSION_S)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        output.seek(0)
        words = output.read(200).decode("utf-8", "replace").strip()
    line = next(iter(sanitise(words).strip().splitlines()), "version unknown")
    return "".join(c for c in line if c.isprintable())


_CLOSED = {
    "user/max_user_namespaces": "0",
    "kernel/unprivileged_userns_clone": "0",
    "kernel/apparmor_restrict_unprivileged_userns": "1",
}
"""Kernel settings, with the value that keeps user namespaces from ordinary users."""


def _setting(name: str) -> str | None:
    try:
        return Path("/proc/sys", name).read_text().strip()
    except OSError:
        return None


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    _python,
    _package,
    _git,
    _libraries,
    _hardware,
    _disk,
    _isolation,
    _proposers,
    _harness,
    _plugin,
)
