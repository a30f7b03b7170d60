"""What a command needs around it where it is measured: set-up, variables, programs, data, GPUs.

Owns the habits of uv and of the package managers of JavaScript, and where a missing program is
noticed. Reads the repository's files and looks along PATH; starts nothing.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from swarm.config import RunConfig
from swarm.doors.draft import Draft, Ground
from swarm.errors import PreconditionError
from swarm.runtime import local_gpus

_KEYWORDS = frozenset(
    (
        *("if", "then", "else", "elif", "fi", "while", "until", "do", "done", "esac"),
        *("{", "}", "!", "[["),
    )
)
_BUILTIN = frozenset(
    (
        *(".", ":", "[", "alias", "bg", "break", "cd", "command", "continue", "echo", "eval"),
        *("exec", "exit", "export", "false", "fg", "getopts", "hash", "jobs", "kill", "local"),
        *("printf", "pwd", "read", "readonly", "return", "set", "shift", "test", "times", "trap"),
        *("true", "type", "ulimit", "umask", "unalias", "unset", "wait"),
    )
)
_PREFIXES = frozenset({"env", "time", "nice", "nohup", "exec", "command", "timeout"})


def programs(command: str | tuple[str, ...]) -> list[str]:
    """Name the programs that a command starts, as far as that can be seen from its words."""
    if not isinstance(command, str):
        return [command[0]]
    lexer = shlex.shlex(command.replace("\n", " ; "), posix=True, punctuation_chars="|&;()<>")
    lexer.whitespace_split = True
    try:
        words = list(lexer)
    except ValueError:
        return []
    found: list[str] = []
    first, aside = True, False
    for word in words:
        if set(word) <= set("|&;()"):
            first = True
        elif set(word) <= set("<>&|"):
            aside = True  # the next word is a file
        elif aside:
            aside = False
        elif first and word in ("for", "case", "function"):
            return found
        elif first and not re.match(r"\w+=", word) and word not in _KEYWORDS:
            found.append(word)
            first = word in _PREFIXES
    return found


def missing(commands: Iterable[str | tuple[str, ...]], path: str | None = None) -> list[str]:
    """Name the programs that PATH does not have. What is a path, or computed, is not looked for."""
    names = dict.fromkeys(name for command in commands for name in programs(command))
    plain = (n for n in names if re.fullmatch(r"[A-Za-z][\w.+-]*", n) and n not in _BUILTIN)
    return [name for name in plain if shutil.which(name, path=path) is None]


_INSTALL: Mapping[str, str] = {
    "uv": "install uv (https://docs.astral.sh/uv), or run it without: "
    "`--set 'target.run=python train.py' --set target.setup=null`",
    "npm": "install Node.js, which brings npm",
    "npx": "install Node.js, which brings npx",
    "node": "install Node.js",
    "pytest": "install pytest, or write `python -m pytest`",
    "ruff": "install ruff: `pip install ruff`",
}


def check_programs(config: RunConfig) -> None:
    """Refuse what could not start, before anything is started.

    Raises:
        PreconditionError: naming every program that is not there.
    """
    target = config.target
    commands = [target.setup, *target.guard, target.run, target.score, target.final]
    path = target.env.get("PATH")
    lacking = missing((c for c in commands if c is not None), path)
    if lacking:
        names = ", ".join(f"`{name}`" for name in lacking)
        remedies = dict.fromkeys(
            _INSTALL.get(name, f"install `{name}`, or put it on PATH") for name in lacking
        )
        verb = "is" if len(lacking) == 1 else "are"
        raise PreconditionError(
            f"the target cannot be measured: {names} {verb} not on PATH", hint="; ".join(remedies)
        )


# --- set-up --------------------------------------------------------------------------------------

_LOCKS = (
    ("pnpm", "pnpm-lock.yaml", "pnpm install --frozen-lockfile"),
    ("yarn", "yarn.lock", "yarn install --frozen-lockfile"),
    ("bun", "bun.lock", "bun install --frozen-lockfile"),
    ("npm", "package-lock.json", "npm ci"),
)


def surround(draft: Draft, ground: Ground) -> None:
    """Add to a draft what its commands need, and say so: a measurement has no network."""
    target = draft.target
    commands = [target["run"], *target.get("guard", [])]
    used = {name for command in commands for name in programs(command)}
    files = frozenset(ground.files)
    if "uv" in used and "pyproject.toml" in files:
        _uv(draft, ground)
    if used & {"npm", "npx", "node", "pnpm", "yarn", "bun"} and _has_dependencies(ground.folder):
        install = next((how for _, lock, how in _LOCKS if lock in files), "npm install")
        _set_up(draft, install, "it leaves node_modules, which every measurement sees")


def _set_up(draft: Draft, command: str, why: str) -> None:
    if "setup" not in draft.target:
        draft.target["setup"] = command
        draft.notes.append(f"setup    {command}   (once, with the network; {why})")


def _uv(draft: Draft, ground: Ground) -> None:
    # `env` is there in `setup` as well, and what keeps `uv run` from syncing is not meant for it.
    _set_up(draft, "env -u UV_NO_SYNC uv sync", "it leaves .venv, which every measurement sees")
    env: dict[str, str] = draft.target.setdefault("env", {})
    env.setdefault("UV_NO_SYNC", "1")
    if "[build-system]" in _text(ground.folder / "pyproject.toml"):
        # `uv sync` installs the project itself as a link to where it was set up: the base.
        src = any(f.startswith("src/") for f in ground.files)
        env.setdefault("PYTHONPATH", "src" if src else ".")


def _has_dependencies(folder: Path) -> bool:
    with suppress(ValueError):
        found: object = json.loads(_text(folder / "package.json") or "{}")
        if isinstance(found, dict):
            package = cast("dict[str, Any]", found)
            return any(package.get(k) for k in ("dependencies", "devDependencies"))
    return False


def _text(path: Path) -> str:
    with suppress(OSError, UnicodeDecodeError):
        return path.read_text(encoding="utf-8")
    return ""


# --- data and GPUs -------------------------------------------------------------------------------


def with_caches(command: str, caches: Iterable[Path]) -> str:
    """Have a command find folders below the user's ~/.cache although its HOME is a private one."""
    home = Path.home()
    links = ""
    for cache in caches:
        inside = Path(os.path.relpath(cache, home))
        parent = shlex.quote(str(inside.parent))
        links += f'mkdir -p "$HOME"/{parent} && ln -sfn {shlex.quote(str(cache))} '
        links += f'"$HOME"/{shlex.quote(str(inside))} && '
    return links + command


_GPU_LIBRARIES = re.compile(r"^\s*(?:import|from)\s+(?:torch|jax|tensorflow|cupy|triton)\b", re.M)


def give_gpus(draft: Draft, ground: Ground, scope: Iterable[str]) -> None:
    """Give each slot a GPU where there are some, and the code in question uses them."""
    gpus = local_gpus()
    named = re.findall(r"[\w./-]+\.py\b", str(draft.target["run"]))
    texts = (_text(ground.folder / name) for name in dict.fromkeys((*named, *scope)))
    if gpus and any(_GPU_LIBRARIES.search(text) for text in texts):
        draft.target.setdefault("slot", {})["gpus"] = 1
        draft.notes.append(f"slots    one GPU each, of {gpus}")
