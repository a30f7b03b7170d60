"""What this machine has that a proposal needs: interpreters, tools, and who could propose.

Looks only, and starts nothing but an interpreter that is asked what it can import. Of keys it knows
the names of their variables, never a value.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from swarm.proposers.ready import has_login, key_names, programs
from swarm.runtime import local_gpus

ASK_S = 30.0
_MISSING = (
    "import importlib.util as u,sys; print(*[n for n in sys.argv[1:] if u.find_spec(n) is None])"
)


@dataclass(frozen=True)
class Python:
    """An interpreter, as a command names it."""

    word: str
    missing: tuple[str, ...]
    """What it was asked for and cannot import."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What there is."""

    python: Python
    tools: frozenset[str] = frozenset()
    """Programs on PATH, of those that matter here."""
    rustup_home: str = ""
    """Where rustup keeps its toolchains, if `cargo` is rustup's."""
    gpus: int = 0
    caches: tuple[str, ...] = ()
    """Data directories outside the repository that are there."""
    key: bool = False
    """Whether there is a key for the Messages API."""
    clis: tuple[str, ...] = ()
    """Coding agents that are installed and logged in, or have a key."""


TOOLS = ("node", "npm", "cargo", "go", "uv", "make")
_CACHES = ("~/.cache/autoresearch",)


def look(top: Path, modules: Iterable[str], environ: Mapping[str, str] = os.environ) -> Machine:
    """Look at this machine, for a target that needs some Python modules."""
    path = environ.get("PATH") or os.defpath
    tools = frozenset(tool for tool in TOOLS if shutil.which(tool, path=path))
    names = key_names(environ)
    return Machine(
        python=_python(top, tuple(modules), path),
        tools=tools,
        rustup_home=_rustup(path, environ) if "cargo" in tools else "",
        gpus=local_gpus(),
        caches=tuple(c for c in _CACHES if Path(c).expanduser().is_dir()),
        key=any(n in names for n in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN")),
        clis=tuple(
            cli.name
            for cli, _ in programs(environ)
            if has_login(cli, environ) or any(name in names for name in cli.unlocking)
        ),
    )


def _python(top: Path, modules: tuple[str, ...], path: str) -> Python:
    """Find the interpreter that can import most of what is needed, the nearest one first."""
    own = [str(p) for name in (".venv", "venv") if (p := top / name / "bin" / "python").exists()]
    words = [*own, *(w for w in ("python3", "python") if shutil.which(w, path=path))]
    found = [Python(word, _missing(word, modules, path)) for word in (*words, sys.executable)]
    return min(found, key=lambda python: len(python.missing))


def _missing(word: str, modules: tuple[str, ...], path: str) -> tuple[str, ...]:
    with tempfile.TemporaryDirectory(prefix="swarm-init-") as folder:
        try:
            done = subprocess.run(
                [word, "-c", _MISSING, *modules],
                env={"PATH": path, "HOME": os.environ.get("HOME", folder)},
                cwd=folder,
                text=True,
                capture_output=True,
                stdin=subprocess.DEVNULL,
                timeout=ASK_S,
                check=True,
            )
        except (OSError, subprocess.SubprocessError):
            return (*modules, "itself")
    return tuple(done.stdout.split())


def _rustup(path: str, environ: Mapping[str, str]) -> str:
    cargo = shutil.which("cargo", path=path)
    home = Path(environ.get("RUSTUP_HOME") or "~/.rustup").expanduser()
    if cargo and home.is_dir():
        folder = Path(cargo).parent
        if Path(cargo).resolve().name == "rustup" or (folder / "rustup").exists():
            return str(home)
    return ""
