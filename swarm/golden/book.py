"""The golden set on the disk: whole after every answer, whatever ends the process.

Owns how it is read, and how a label comes into it: the file is written anew beside its place and
moved there, so that a kill leaves it with the label or without, and nothing between. A line that
is no label is therefore a person's, and a mistake. Lines that a person wrote, comments among them,
stay as they are. What a line means is `formats.golden`'s.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from swarm.errors import PreconditionError, UsageError, remedy
from swarm.formats import golden
from swarm.formats.golden import Label


class Book:
    """A golden set that grows label by label."""

    def __init__(self, path: Path) -> None:
        """Open it; a file that is not there is an empty set.

        Raises:
            UsageError: it is no golden set, or lines of it are wrong.
            PreconditionError: it cannot be read.
        """
        self.path = path
        self._data = _bytes(path)
        text = decoded(self._data, path)
        self._lines = text.split("\n")[:-1] if text.endswith("\n") else text.split("\n")
        self._lines = [] if self._lines == [""] else self._lines
        self.labels = {label.id: label for label in golden.labels(text, path)}

    def put(self, label: Label) -> None:
        """Have a label on the disk, in place of the one with its id.

        Raises:
            PreconditionError: it cannot be written, or somebody else has changed the file.
        """
        lines = list(self._lines)
        old = self.labels.get(label.id)
        label = replace(label, line=len(lines) + 1 if old is None else old.line)
        lines[label.line - 1 :] = [label.write(), *lines[label.line :]]
        data = "".join(f"{line}\n" for line in lines).encode()
        with alone(self.path):
            if _bytes(self.path) != self._data:
                raise PreconditionError(
                    f"`{self.path}` was changed by somebody else, and the last answer is not in it",
                    hint="run the same command again: it goes on from what is there now",
                    path=self.path,
                )
            save(self.path, data)
        self._lines, self._data = lines, data
        self.labels[label.id] = label


def read(path: Path) -> str:
    """Give the text of a file.

    Raises:
        UsageError: it is not there, or not UTF-8.
        PreconditionError: it cannot be read.
    """
    if not path.exists():
        raise UsageError(f"there is no file `{path}`", path=path)
    return decoded(_bytes(path), path)


def save(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all, and have it on the disk.

    Raises:
        PreconditionError: that is not possible.
    """
    place = path.resolve()  # a link stays one
    part = place.with_name(f".{place.name}.{secrets.token_hex(4)}.part")
    try:
        try:
            with open(part, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if place.exists():
                part.chmod(place.stat().st_mode & 0o7777)
            part.replace(place)
        except BaseException:
            with suppress(OSError):
                part.unlink()
            raise
        folder = os.open(place.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        what = f"cannot write `{path}`: {error.strerror}"
        hint = remedy(error, "run the same command again: it goes on")
        raise PreconditionError(what, hint=hint, path=path) from error


@contextmanager
def alone(path: Path) -> Generator[None]:
    """Keep other processes of ours from writing a file between a look at it and a write.

    The lock is on its folder, so nothing is left lying there. A disk without such locks, as some
    that are shared by machines, goes without.
    """
    try:
        folder = os.open(path.resolve().parent, os.O_RDONLY)
    except OSError as error:
        what = f"cannot write `{path}`: {error.strerror}"
        raise PreconditionError(what, path=path) from error
    try:
        with suppress(OSError):
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def decoded(data: bytes, path: Path) -> str:
    """Give bytes as text.

    Raises:
        UsageError: it is not UTF-8.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{path}:{line}: this is not UTF-8", path=path, line=line) from None


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        what = f"cannot read `{path}`: {error.strerror}"
        raise PreconditionError(what, path=path) from error
