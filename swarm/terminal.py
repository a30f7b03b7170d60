"""What reaches the person or program at the other end: data on stdout, talk on stderr.

Owns the two streams, their failures and the rule that nothing written by a stranger commands a
terminal. Knows no run and no command.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from contextlib import suppress
from typing import Any, TextIO

from swarm.formats.text import sanitise


class ReaderGone(Exception):
    """Whoever read our stdout has closed it: there is nobody left to tell."""


def emit(text: str, end: str = "\n") -> None:
    """Write data to stdout at once.

    Raises:
        ReaderGone: nobody reads it any more; later writes go nowhere, quietly.
    """
    try:
        sys.stdout.write(text + end)
        sys.stdout.flush()
    except BrokenPipeError:
        silence_stdout()
        raise ReaderGone from None
    except UnicodeEncodeError:  # a terminal that knows no UTF-8
        encoding = sys.stdout.encoding or "ascii"
        sys.stdout.write((text + end).encode(encoding, "replace").decode(encoding))
        sys.stdout.flush()


def emit_json(value: Any, *, line: bool = False) -> None:
    """Write a JSON value to stdout; as a single `line` where more may follow."""
    # ASCII only: what a stranger wrote cannot command a terminal from inside a JSON string either.
    emit(json.dumps(value, indent=None if line else 2, default=str))


def emit_foreign(text: str, *, patch: bool = False) -> None:
    """Write a stranger's text to stdout: as it is to a pipe or file, made harmless on a terminal.

    A `patch` is coloured where the terminal wants it.
    """
    if sys.stdout.isatty():
        text = sanitise(text)
        if patch and coloured(sys.stdout):
            text = "\n".join(map(_coloured, text.splitlines()))
    emit(text, end="" if text.endswith("\n") or not text else "\n")


_COLOURS = {"+": "\x1b[32m", "-": "\x1b[31m", "@": "\x1b[36m"}


def _coloured(line: str) -> str:
    return f"{_COLOURS[line[0]]}{line}\x1b[0m" if line[:1] in _COLOURS else line


def say(text: str) -> None:
    """Talk to the person on stderr; a closed stderr is no error."""
    with suppress(OSError, ValueError):
        safe = sanitise(text).encode(sys.stderr.encoding or "ascii", "replace")
        print(safe.decode(sys.stderr.encoding or "ascii"), file=sys.stderr, flush=True)


def silence_stdout() -> None:
    """Let everything that is still written to stdout go nowhere."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def width() -> int | None:
    """Give the columns of the terminal; None where lines need not fit anywhere."""
    if sys.stdout.isatty() or os.environ.get("COLUMNS"):
        return max(20, shutil.get_terminal_size().columns)
    return None


def coloured(stream: TextIO) -> bool:
    """Tell whether a stream wants colours."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return stream.isatty()
