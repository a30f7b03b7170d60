"""What a candidate has left, as far as a scorer may get it: files, and nothing that could be run.

Moves files from the directory of `run` into that of `score`. Both are looked at when no process of
the candidate is left. Knows no sandbox and no git.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from swarm.scope import Scope, is_guarded

MOST = 20_000
"""Files; more are a mistake, or an attack on whoever walks over them."""
_CODE = re.compile(r"\.(?:py[cowd]?|so(?:\.[0-9.]+)?|pth|dylib|dll|jar|class)$", re.IGNORECASE)
_STEERING = frozenset(
    (
        *("pytest.ini", ".pytest.ini", "tox.ini", "setup.cfg", "pyproject.toml", "package.json"),
        *(".npmrc", ".coveragerc", ".env"),
    )
)
"""Files that tools look for beside what they are to work on."""
_FOLDERS = re.compile(r"\.git$|__pycache__$|node_modules$|.*\.(?:dist|egg)-info$", re.IGNORECASE)


class TooManyError(Exception):
    """The candidate has left more files than anybody wants to look at."""


def carry(left: Path, into: Path, wanted: Scope) -> int:
    """Move artefacts from `left` to `into` and give their number.

    Only regular files that match `wanted` and have no other name, that are no code, no programs and
    no settings of tools, and where `into` has nothing yet.

    Raises:
        TooManyError: there are more than `MOST`.
    """
    moved = 0
    for number, path in enumerate(_files(left), start=1):
        if number > MOST:
            raise TooManyError(f"`run` left more than {MOST:,} files")
        if path in wanted and _harmless(left / path) and _place(into, path):
            with suppress(OSError):
                os.chmod(left / path, 0o644)
                os.rename(left / path, into / path)
                moved += 1
    return moved


def _files(root: Path) -> Iterator[str]:
    pending = [""]
    while pending:
        folder = pending.pop()
        try:
            with os.scandir(root / folder) as found:
                entries = list(found)
        except OSError:
            continue
        for entry in entries:
            path = f"{folder}/{entry.name}" if folder else entry.name
            if not entry.is_dir(follow_symlinks=False):
                yield path
            elif not _FOLDERS.match(entry.name):
                pending.append(path)


def _harmless(path: Path) -> bool:
    """Tell whether a file is plain data under one name."""
    name = path.name
    if _CODE.search(name) or name.lower() in _STEERING or is_guarded(name):
        return False
    try:
        info = path.lstat()
        if not stat.S_ISREG(info.st_mode) or info.st_nlink != 1 or info.st_mode & 0o111:
            return False
        # No permission to read is given back here, since none of it is the file's own to refuse.
        os.chmod(path, 0o644)
        with open(path, "rb") as file:
            return not file.read(4).startswith((b"\x7fELF", b"#!"))
    except OSError:
        return False


def _place(root: Path, path: str) -> bool:
    """Make the folders of a path; False when there is something in the way, or at the path."""
    folder = root
    for part in Path(path).parts[:-1]:
        folder /= part
        try:
            if not stat.S_ISDIR(folder.lstat().st_mode):
                return False
        except FileNotFoundError:
            folder.mkdir()
        except OSError:
            return False
    return not os.path.lexists(root / path)
