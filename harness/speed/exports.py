"""What other tools have measured: the JSON of hyperfine and of pytest-benchmark.

Reads them and says what is wrong with them, file by file and benchmark by benchmark. Both give
seconds. Measures nothing itself.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import figures
from figures import UsageError

Figures = dict[str, float]


class Benchmark(NamedTuple):
    """One benchmark of a file."""

    names: tuple[str, ...]
    """What it may be called by."""
    figures: Figures


def hyperfine(path: Path) -> list[Benchmark]:
    """Read `hyperfine --export-json`.

    Raises:
        UsageError: it is no such file, or a command in it failed.
    """
    return [
        _command(entry, f"{path}: results[{n}]") for n, entry in enumerate(_list(path, "results"))
    ]


def _command(entry: Any, where: str) -> Benchmark:
    command = entry.get("command")
    if not isinstance(command, str):
        raise UsageError(f"{where}: has no `command`; is this what hyperfine exports?")
    codes: list[Any] = entry.get("exit_codes") or []
    bad = [code for code in codes if code != 0]
    if bad:
        raise UsageError(f"{where}: `{command}` ended with {bad[0]}; a failure is no time")
    times = entry.get("times")
    if isinstance(times, list) and times:
        seconds = [
            _seconds(t, f"{where}.times[{n}]") for n, t in enumerate(cast("list[Any]", times))
        ]
        found = figures.of(seconds)
    else:  # exported without single times
        found = {
            f"seconds_{name}": _seconds(entry.get(name), f"{where}.{name}")
            for name in ("min", "median")
        }
    found["seconds_mean"] = _seconds(entry.get("mean"), f"{where}.mean")
    if entry.get("user") is not None and entry.get("system") is not None:
        cpu = [_number(entry[name], f"{where}.{name}") for name in ("user", "system")]
        found["cpu_seconds_mean"] = sum(cpu)
    memory = entry.get("memory_usage_byte")
    if isinstance(memory, list) and memory:
        found["rss_kb"] = (
            max(_number(m, f"{where}.memory_usage_byte") for m in cast("list[Any]", memory)) / 1024
        )
    return Benchmark((command,), found)


def pytest_benchmark(path: Path) -> list[Benchmark]:
    """Read `pytest --benchmark-json`.

    Raises:
        UsageError: it is no such file.
    """
    return [
        _test(entry, f"{path}: benchmarks[{n}]")
        for n, entry in enumerate(_list(path, "benchmarks"))
    ]


def _test(entry: Any, where: str) -> Benchmark:
    name, stats = entry.get("name"), entry.get("stats")
    if not isinstance(name, str) or not isinstance(stats, dict):
        raise UsageError(
            f"{where}: has no `name` and `stats`; is this what pytest-benchmark writes?"
        )
    stats = cast("dict[str, Any]", stats)
    data = stats.get("data")
    if isinstance(data, list) and data:  # with --benchmark-save-data
        found = figures.of(
            [_seconds(d, f"{where}.stats.data[{n}]") for n, d in enumerate(cast("list[Any]", data))]
        )
    else:
        found = {
            f"seconds_{key}": _seconds(stats.get(key), f"{where}.stats.{key}")
            for key in ("min", "median")
        }
    found["seconds_mean"] = _seconds(stats.get("mean"), f"{where}.stats.mean")
    also = entry.get("fullname")
    return Benchmark((name, also) if isinstance(also, str) else (name,), found)


READERS: Mapping[str, Callable[[Path], list[Benchmark]]] = {
    "hyperfine": hyperfine,
    "pytest-benchmark": pytest_benchmark,
}


def chosen(benchmarks: Sequence[Benchmark], select: Sequence[str], path: Path) -> list[Benchmark]:
    """Take those that are named, in the order of the file; all of them if none is.

    Raises:
        UsageError: a name is not there, or stands for more than one.
    """
    known = ", ".join(f"`{each.names[0]}`" for each in benchmarks)
    for name in select:
        count = sum(name in each.names for each in benchmarks)
        if count != 1:
            what = f"{count} benchmarks are called" if count else "there is no benchmark"
            raise UsageError(f"{path}: {what} {name!r}; there are {known}")
    return [b for b in benchmarks if not select or any(name in b.names for name in select)]


def _list(path: Path, key: str) -> list[dict[str, Any]]:
    try:
        whole = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"{path}: not JSON: {error}") from None
    entries = cast("dict[str, Any]", whole).get(key) if isinstance(whole, dict) else None
    if not isinstance(entries, list) or not entries:
        raise UsageError(f"{path}: there is no list `{key}` with something in it")
    for number, entry in enumerate(cast("list[Any]", entries)):
        if not isinstance(entry, dict):
            raise UsageError(f"{path}: {key}[{number}]: an object is wanted")
    return cast("list[dict[str, Any]]", entries)


def _seconds(value: Any, where: str) -> float:
    number = _number(value, where)
    if number <= 0:
        raise UsageError(f"{where}: a time above 0 is wanted, not {value!r}")
    return number


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UsageError(f"{where}: a number is wanted, not {value!r}")
    return float(value)
