"""The program in which a candidate's function runs: imports it, calls it, says when it is done.

    python -P subject.py COMMANDS REPLIES

Started by `callables`, with two file descriptors for lines of JSON. It reads no clock: whatever the
candidate does to this process, the time is taken in another one. It counts memory, as nobody else
can: allocations by glibc's `mtrace`, which logs each to a file that the other process reads, and
the peak by `tracemalloc`.
"""

import ctypes
import gc
import importlib
import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any, cast

VERSIONS = (b"GLIBC_2.2.5", b"GLIBC_2.17", b"GLIBC_2.27", b"GLIBC_2.2", b"GLIBC_2.0")
"""Of `mtrace`, by machine: x86-64, 64-bit ARM and POWER, RISC-V, s390, 32-bit x86."""
PLAIN = (str, int, float, bool, type(None))


class Subject:
    """A function and the arguments of its next calls."""

    def __init__(self) -> None:
        self.function: Callable[..., Any] = print
        self.prepare: Callable[..., Any] | None = None
        self.gc = False
        self.arguments: list[Any] = []
        self.outputs: list[Any] = []
        self.done = 0

    def load(self, name: str, prepare: str | None, gc_on: bool) -> None:
        """Import what is measured."""
        sys.path.insert(0, os.getcwd())
        self.function = found(name)
        self.prepare = found(prepare) if prepare else None
        self.gc = gc_on

    def take(self, arguments: list[Any]) -> None:
        """Get ready for calls, one for each list of arguments."""
        self.outputs = []
        prepare = self.prepare
        self.arguments = arguments if prepare is None else [prepare(*each) for each in arguments]
        gc.collect()
        (gc.enable if self.gc else gc.disable)()

    def go(self) -> None:
        """Make all calls; this is what is timed."""
        function, outputs = self.function, self.outputs
        for each in self.arguments:
            outputs.append(function(*each))

    def give(self) -> list[Any]:
        """Give the outputs of these calls."""
        for output in self.outputs:
            check_plain(output)
        return self.outputs

    def count(self, index: int) -> bool:
        """Make one call with all allocations logged; give whether they can be."""
        switches = mtrace()
        if switches is None:
            return False
        on, off = switches
        function, each = self.function, self.arguments[index]
        gc.collect()
        gc.disable()
        on()
        try:
            output = function(*each)
        finally:
            off()
        self.outputs.append(output)
        return True

    def peak(self, index: int) -> int:
        """Make one call and give how many bytes more it held at its highest than before."""
        import tracemalloc

        function, each = self.function, self.arguments[index]
        gc.collect()
        gc.disable()
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            function(*each)
            return tracemalloc.get_traced_memory()[1] - before
        finally:
            tracemalloc.stop()

    def profile(self, rows: int) -> list[list[Any]]:
        """Make all calls under a profiler; give functions, their calls, and their share of time."""
        import cProfile

        profiler = cProfile.Profile()
        profiler.runcall(self.go)
        stats: list[Any] = [s for s in profiler.getstats() if not isinstance(s.code, str)]
        whole = sum(s.inlinetime for s in profiler.getstats()) or 1.0
        stats.sort(key=lambda s: s.inlinetime, reverse=True)
        own = [s for s in stats if s.code.co_filename != __file__]
        return [
            [place(s.code.co_filename, s.code.co_firstlineno), s.code.co_name, s.callcount,
             s.inlinetime / whole]
            for s in own[:rows]
        ]  # fmt: skip


def found(name: str) -> Any:
    """Import `module:function`."""
    module, _, path = name.partition(":")
    value: Any = importlib.import_module(module)
    for part in path.split("."):
        value = getattr(value, part)
    if not callable(value):
        raise TypeError(f"`{name}` is no function")
    return value


def place(file: str, line: int) -> str:
    """Give a place in a file, short."""
    return f"{os.path.relpath(file) if file.startswith(os.getcwd()) else file}:{line}"


def check_plain(value: Any) -> None:
    """Refuse a value that could do its work later, when no clock runs any more."""
    kind = cast("type[Any]", type(value))
    if kind in (list, tuple):
        for each in value:
            check_plain(each)
    elif kind is dict:
        for key, each in value.items():
            check_plain(key)
            check_plain(each)
    elif kind not in PLAIN:
        what = f"the output has a `{kind.__name__}`, and only plain values can be checked"
        raise TypeError(f"{what}: text, numbers, True, False, None, and lists and dicts of them")


def mtrace() -> tuple[Callable[[], None], Callable[[], None]] | None:
    """Find what switches the log of allocations on and off; None where there is no such thing."""
    libc = ctypes.CDLL(None)
    try:
        dlvsym = libc.dlvsym
    except AttributeError:
        return None
    dlvsym.restype, dlvsym.argtypes = ctypes.c_void_p, [ctypes.c_void_p] + 2 * [ctypes.c_char_p]
    kind = ctypes.PYFUNCTYPE(None)
    # By version: without one, the C library's own comes first, which does nothing any more.
    for version in VERSIONS if "libc_malloc_debug" in os.environ.get("LD_PRELOAD", "") else ():
        on, off = dlvsym(None, b"mtrace", version), dlvsym(None, b"muntrace", version)
        if on and off:
            return kind(on), kind(off)
    return None


def complaint(error: BaseException) -> dict[str, str]:
    """Say what went wrong, and where."""
    said = traceback.format_exception_only(error)[-1].strip()
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename != __file__]
    own = [f for f in frames if not f.filename.startswith("<")]
    where = f"{place(own[-1].filename, own[-1].lineno or 0)}: " if own else ""
    return {"error": f"{where}{said}"}


def main() -> None:
    """Carry out one command after another, until there are no more."""
    commands = os.fdopen(int(sys.argv[1]), encoding="utf-8")
    replies = int(sys.argv[2])
    subject = Subject()

    def reply(value: object) -> None:
        data = json.dumps(value).encode() + b"\n"
        while data:
            data = data[os.write(replies, data) :]

    done = b'{"value": null}\n'
    for line in commands:
        try:
            if line == '"go"\n':  # nothing but the calls between this line and the answer
                subject.go()
                os.write(replies, done)
                continue
            name, *arguments = json.loads(line)
            reply({"value": getattr(subject, name)(*arguments)})
        except BaseException as error:  # an exit, too, is the candidate's
            reply(complaint(error))


if __name__ == "__main__":
    main()
