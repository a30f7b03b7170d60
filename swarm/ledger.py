"""The event log of a run: append-only, one JSON object a line, one writer, synced on demand.

Owns the file, its locks and the torn last line. Knows events only as things with a `seq`: what they
mean is `state`'s business. Readers need no lock, so views work while the run lives and after.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from swarm.errors import LedgerError, RunInUseError, remedy
from swarm.records import EVENT, LEDGER_VERSION, AnyEvent

_WRITER, _LAUNCH = ".lock", ".launch"
"""What is locked beside a ledger, by who writes it and by who has it written."""


class Ledger:
    """The writer. Holding one is holding the run: a second writer is refused by a file lock."""

    def __init__(self, path: Path, *, wait_s: float = 0.0) -> None:
        """Open or create the ledger, waiting up to `wait_s` seconds for another writer to go.

        Raises:
            RunInUseError: another process still writes it.
            LedgerError: the file is damaged before its last line, of another version, or cannot
                be opened.
        """
        self.path = path
        self._dirty = False
        try:
            self._lock = _lock(path, wait_s)
        except OSError as error:
            raise _trouble("open", path, error) from error
        try:
            self._size, self._seq = _intact(path)
            self._file = open(path, "ab", buffering=0)  # noqa: SIM115 - open as long as we are
            self._file.truncate(self._size)
        except OSError as error:
            os.close(self._lock)
            raise _trouble("open", path, error) from error
        except BaseException:
            os.close(self._lock)
            raise

    def append(self, events: Sequence[AnyEvent]) -> list[AnyEvent]:
        """Write the events and return them as written, with `seq` and `at`; see `sync`."""
        if not events:
            return []
        now = datetime.now(UTC)
        written = [
            e.model_copy(update={"seq": self._seq + i, "at": now}) for i, e in enumerate(events)
        ]
        lines = [_line(e) for e in written]
        data = b"".join(line for _, line in lines)
        try:
            self._write(data)
        except OSError as error:
            with suppress(OSError):  # what cannot be cut off now is a torn line to the next open
                self._file.truncate(self._size)
            raise _trouble("write", self.path, error) from error
        self._size += len(data)
        self._seq += len(written)
        return [event for event, _ in lines]

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]
        self._dirty = True

    def sync(self) -> None:
        """Make all that was appended durable. To be called before any action that rests on it."""
        if not self._dirty:
            return
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise _trouble("write", self.path, error) from error
        self._dirty = False

    def close(self) -> None:
        """Give the run back."""
        try:
            self.sync()
        finally:
            self._file.close()
            os.close(self._lock)

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Tail:
    """A reader that gives each event once, also while the ledger grows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0
        self._line = 0

    def poll(self) -> Iterator[AnyEvent]:
        """Give the events written since the last call; an unfinished last line waits."""
        try:
            with open(self.path, "rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return
        for line in data[: data.rfind(b"\n") + 1].splitlines(keepends=True):
            self._line += 1
            event = _parse(self.path, self._line, line)
            self._offset += len(line)
            yield event


def read(path: Path) -> Iterator[AnyEvent]:
    """Give all events of a ledger; a torn last line is left out."""
    if not path.exists():
        raise LedgerError(f"{path} does not exist", path=path)
    yield from Tail(path).poll()


@contextmanager
def launched(path: Path, *, wait_s: float = 0.0) -> Generator[None]:
    """Say that this process has the run carried out, from before its ledger has a writer.

    Raises:
        RunInUseError: another process has it carried out.
        LedgerError: the lock cannot be opened.
    """
    try:
        fd = _lock(path, wait_s, suffix=_LAUNCH)
    except OSError as error:
        raise _trouble("open", path.with_suffix(_LAUNCH), error) from error
    try:
        yield
    finally:
        os.close(fd)


def is_live(path: Path) -> bool:
    """Tell whether a process carries out the run of this ledger, or is about to."""
    return is_written(path) or _is_held(path, _LAUNCH)


def is_written(path: Path) -> bool:
    """Tell whether a process is writing this ledger now."""
    return _is_held(path, _WRITER)


def _is_held(path: Path, suffix: str) -> bool:
    try:
        os.close(_lock(path, 0.0, suffix=suffix, create=False))
    except RunInUseError:
        return True
    except OSError:
        return False
    return False


def _lock(path: Path, wait_s: float, *, suffix: str = _WRITER, create: bool = True) -> int:
    # A probe shares the lock, so that two probes never take each other for a writer.
    flags, kind = (os.O_RDWR | os.O_CREAT, fcntl.LOCK_EX) if create else (0, fcntl.LOCK_SH)
    fd = os.open(path.with_suffix(suffix), flags, 0o644)
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(fd, kind | fcntl.LOCK_NB)
            return fd
        except BlockingIOError:
            if time.monotonic() >= deadline:
                os.close(fd)
                raise RunInUseError(
                    f"the run in {path.parent} is in use by another process",
                    hint="`swarm status` shows it; `swarm stop` ends it; --name starts another",
                    path=path,
                ) from None
            time.sleep(0.1)
        except BaseException:
            os.close(fd)
            raise


def _trouble(verb: str, path: Path, error: OSError) -> LedgerError:
    return LedgerError(f"cannot {verb} {path}: {error.strerror}", hint=remedy(error), path=path)


def _line(event: AnyEvent) -> tuple[AnyEvent, bytes]:
    """Give the event as it will be read back, and its line."""
    try:
        text = event.model_dump_json(exclude_none=True)
        if "\ufffd" in text:  # a key that is no Unicode is written so without a word
            event = EVENT.validate_json(text)
        return event, text.encode() + b"\n"
    except PydanticSerializationError:
        # Text from outside (a file's name, say) need not be Unicode; JSON is.
        event = EVENT.validate_python(_unicode(event.model_dump()))
        return event, event.model_dump_json(exclude_none=True).encode() + b"\n"


def _unicode(value: Any) -> Any:
    match value:
        case str():
            return value.encode("utf-8", "replace").decode()
        case dict():
            fields = cast("dict[str, object]", value)
            return {_unicode(k): _unicode(v) for k, v in fields.items()}
        case list() | tuple():
            return [_unicode(v) for v in cast("list[object]", value)]
        case _:
            return value


def _intact(path: Path) -> tuple[int, int]:
    """Give the size of the file without a torn last line, and the next sequence number."""
    if not path.exists():
        return 0, 0
    size, seq, number = 0, 0, 0
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                break
            event = _parse(path, number, line)
            size += len(line)
            seq = event.seq + 1
    return size, seq


def _parse(path: Path, number: int, line: bytes) -> AnyEvent:
    try:
        event = EVENT.validate_json(line)
    except ValidationError as error:
        version = _version(line)
        if version is not None and version != LEDGER_VERSION:
            raise _other_version(path, number, version) from None
        first = error.errors()[0]
        raise _damaged(path, number, f"not an event: {first['msg']} at {first['loc']}") from None
    if event.v != LEDGER_VERSION:
        raise _other_version(path, number, event.v)
    if event.seq != number - 1:
        raise _damaged(path, number, f"event {event.seq} stands where {number - 1} belongs")
    return event


def _other_version(path: Path, number: int, version: object) -> LedgerError:
    return LedgerError(
        f"{path}:{number}: ledger version {version}; this swarm reads {LEDGER_VERSION}",
        hint="use the swarm that wrote it, or launch under another --name",
        path=path,
        line=number,
    )


def _damaged(path: Path, number: int, what: str) -> LedgerError:
    return LedgerError(
        f"{path}:{number}: {what}",
        hint="the file was changed by hand or the disk is damaged; restore it from a backup",
        path=path,
        line=number,
    )


def _version(line: bytes) -> object:
    try:
        fields = json.loads(line)
    except ValueError:
        return None
    return cast("dict[str, object]", fields).get("v") if isinstance(fields, dict) else None
