"""A scratch copy of a case's workspace: made, looked through, and made again from an outcome.

Owns what lies in it and which of its files count as changed. Links that a run leaves are not taken
along, nor are caches and other litter of tools.
"""

import hashlib
import os
import shutil
import stat
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from outcome import File, Outcome
from suite import Case, Under

LITTER = frozenset(
    {".git", "__pycache__", "node_modules", ".venv", ".pytest_cache", ".ruff_cache", ".mypy_cache"}
)
FILE_LIMIT, TOTAL_LIMIT, FILES_LIMIT = 2**20, 8 * 2**20, 500


class TooMuch(Exception):
    """A run has left more than anybody looks at."""


class Left(NamedTuple):
    """What a run has changed."""

    files: Mapping[str, File]
    deleted: Sequence[str]


def build(place: Path, case: Case, under: Under) -> None:
    """Make the workspace of a case in a directory that is not there yet."""
    if case.workspace is not None:
        shutil.copytree(case.workspace, place, symlinks=True)
        for folder, _, names in os.walk(place):  # what comes from an export may be read-only
            for path in (Path(folder), *(Path(folder, name) for name in names)):
                if not path.is_symlink():
                    path.chmod(path.stat().st_mode | stat.S_IWUSR)
    else:
        place.mkdir(parents=True)
    for name, source in {**under.files, **case.files}.items():
        put(place, name, File(source.read_bytes(), os.access(source, os.X_OK)))


def rebuild(place: Path, case: Case, under: Under, outcome: Outcome) -> None:
    """Make the workspace as a run has left it."""
    build(place, case, under)
    for name in outcome.deleted:
        path = place / name
        if path.is_file() and inside(place, path):
            path.unlink()
    for name, file in outcome.files.items():
        put(place, name, file)


def lay(place: Path, overlay: Path) -> None:
    """Lay the files of a directory over a workspace."""
    for source in sorted(overlay.rglob("*")):
        if source.is_file():
            name = source.relative_to(overlay).as_posix()
            put(place, name, File(source.read_bytes(), os.access(source, os.X_OK)))


def put(place: Path, name: str, file: File) -> None:
    """Write a file, never through a link."""
    path = place / name
    if not inside(place, path.parent):
        raise TooMuch(f"{name} lies behind a link")
    if path.is_symlink() or path.is_file():
        path.unlink()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(file.content)
    path.chmod(0o755 if file.executable else 0o644)


def inside(place: Path, path: Path) -> bool:
    """Tell whether a path, with all its links followed, is in the workspace."""
    return path.resolve().is_relative_to(place.resolve())


def snapshot(place: Path) -> dict[str, str]:
    """Give the regular files with what tells them apart."""
    found: dict[str, str] = {}
    for folder, folders, names in os.walk(place):
        folders[:] = sorted(set(folders) - LITTER)
        for name in sorted(names):
            path = Path(folder, name)
            mode = path.lstat().st_mode
            if stat.S_ISREG(mode) and not name.endswith(".pyc"):
                with path.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                found[path.relative_to(place).as_posix()] = f"{digest} {bool(mode & 0o100)}"
    return found


def changes(place: Path, before: Mapping[str, str]) -> Left:
    """Give what is new, changed or gone since a snapshot.

    Raises:
        TooMuch: more files, or larger ones, than anybody looks at.
    """
    after = snapshot(place)
    names = [name for name, seen in after.items() if before.get(name) != seen]
    if len(names) > FILES_LIMIT:
        raise TooMuch(f"it left {len(names)} new or changed files, more than {FILES_LIMIT}")
    files: dict[str, File] = {}
    room = TOTAL_LIMIT
    for name in names:
        path = place / name
        size = path.stat().st_size
        room -= size
        if size > FILE_LIMIT or room < 0:
            raise TooMuch(f"{name} has {size} bytes; files up to {FILE_LIMIT} bytes are looked at")
        files[name] = File(path.read_bytes(), os.access(path, os.X_OK))
    return Left(files, sorted(before.keys() - after.keys()))


def fits(name: str, pattern: str) -> bool:
    """Tell whether a path matches a glob; `**` stands for any directories, `dir/` for all in it."""
    if pattern.endswith("/"):
        pattern += "**"
    return _fits(tuple(name.split("/")), tuple(pattern.removeprefix("./").split("/")))


def _fits(words: tuple[str, ...], parts: tuple[str, ...]) -> bool:
    if not parts:
        return not words
    if parts[0] == "**":
        if len(parts) == 1:
            return bool(words)
        return any(_fits(words[n:], parts[1:]) for n in range(len(words) + 1))
    return bool(words) and fnmatchcase(words[0], parts[0]) and _fits(words[1:], parts[1:])
