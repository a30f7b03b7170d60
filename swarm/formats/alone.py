"""One measurement without swarm: the guards, the run, the score, and what they said, in lines.

    python3 .autoresearch/measure.py [INDEX]     INDEX 0, 1, 2 ... chooses the seed (default 0)

`swarm export program.md` puts this file into the page as it is; the settings lie beside it in
`settings.json`. The output of the commands comes first, then `---` and one `name: value` a line.
Exit status: 0 measured, 1 a command failed or gave no number, 2 the settings are wrong, 3 a guard
failed, 4 out of time. Nothing is kept apart here: what is measured can read and write everything.
"""

from __future__ import annotations

import json
import math
import operator
import os
import re
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
TOGETHER: dict[str, Any] = {
    "last": operator.itemgetter(-1),
    "min": min,
    "max": max,
    "mean": statistics.fmean,
    "median": statistics.median,
}


def main() -> int:
    """Measure once, and give the exit status."""
    place = Path(__file__).resolve().parent / "settings.json"
    try:
        given = json.loads(place.read_text(encoding="utf-8"))
        index = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    except (OSError, ValueError) as error:
        print(f"cannot begin: {error}")
        return 2
    for command in given["guard"]:
        status, _, _, _ = execute(command, given, index, "guard")
        if status:
            print(f"\nguard failed: {command}")
            return 3
    status, log, report, seconds = execute(given["run"], given, index, "run")
    if not status and given["score"] is not None:
        status, log, report, _ = execute(given["score"], given, index, "score")
    if status:
        print(f"\nout of time: {given['timeout']:g} s" if status == 124 else f"\nexit {status}")
        return 4 if status == 124 else 1
    value, others, problem = read(given, log, report)
    if value is None:
        print(f"\nno number: {problem}")
        return 1
    # Kilobytes on Linux, bytes on macOS; the largest of all processes that were waited for.
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    peak_mb = peak / (2**20 if sys.platform == "darwin" else 1024)
    own = {"seconds": seconds, "peak_memory_mb": peak_mb} | others
    print("\n---")
    for name, number in {given["metric"]: value, **own}.items():
        print(f"{name}: {number!r}")
    return 0


def execute(
    command: Any, given: dict[str, Any], index: int, stage: str
) -> tuple[int, str, str | None, float]:
    """Run a command; give its status (124 out of time), output, result file and seconds."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        env = {k: v for k, v in os.environ.items() if k != "SWARM_CASES"}
        env |= given["env"]
        env |= {"SWARM_SEED": str(given["seed"] + index), "SWARM_EXPERIMENT": stage}
        env["SWARM_RESULT"] = str(result)
        words = ["/bin/sh", "-c", command] if isinstance(command, str) else command
        started = time.monotonic()
        process = subprocess.Popen(
            words,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=given["timeout"])
            status = process.returncode
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            status = 124
        seconds = time.monotonic() - started
        log = output.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n")
        print(log, flush=True)
        report = result.read_text(encoding="utf-8", errors="replace") if result.exists() else None
        return status, log, report, seconds


def read(
    given: dict[str, Any], log: str, report: str | None
) -> tuple[float | None, dict[str, float], str]:
    """Give the metric, the other metrics, and why there is none."""
    try:
        told: Any = json.loads(report) if report is not None else {}
    except ValueError as error:
        return None, {}, f"the result file is not JSON: {error}"
    metrics: dict[str, Any] = told.get("metrics") or {}
    if told.get("feedback"):
        print(told["feedback"])
    others: dict[str, float] = {}
    for name in given["also"]:
        for text in re.findall(rf"^{re.escape(name)}:[ \t]*({NUMBER})[ \t]*$", log, re.M):
            others[name] = float(text)
    for name, text in re.findall(rf"^METRIC[ \t]+(\S+)=({NUMBER})[ \t]*$", log, re.M):
        others[name] = float(text)
    others |= {name: float(v) for name, v in metrics.items() if isinstance(v, int | float)}
    others.pop(given["metric"], None)
    if given["metric"] == "cases":
        cases: list[Any] = told.get("cases") or []
        failed = [case["id"] for case in cases if not case["pass"]]
        print("cases that fail:", ", ".join(failed) or "none")
        return (
            ((len(cases) - len(failed)) / len(cases) if cases else None),
            others,
            "no cases were reported",
        )
    found = values(given, log, metrics)
    try:
        numbers = [float(v) for v in found]
    except (TypeError, ValueError):
        return None, others, f"not a number: {found!r}"
    if not numbers:
        return None, others, f"`{given['metric']}` is neither in the result file nor in the output"
    value = float(TOGETHER[given["aggregate"]](numbers))
    low, high = given["bounds"]
    inside = (low is None or low <= value) and (high is None or value <= high)
    if not math.isfinite(value) or not inside:
        return None, others, f"{value} cannot be true"
    return value, others, ""


def values(given: dict[str, Any], log: str, metrics: dict[str, Any]) -> list[Any]:
    """Give what stands at the first place that has the metric."""
    name = given["metric"]
    if name in metrics:
        return listed(metrics[name])
    if given["pattern"]:
        found = [m[1] for m in re.finditer(given["pattern"], log, re.M) if m[1] is not None]
        if found:
            return found
    for line in reversed(log.split("\n")) if given["json"] else ():
        try:
            told: Any = json.loads(line)
            for part in given["json"].split("."):
                told = told[int(part) if isinstance(told, list) else part]
        except (ValueError, KeyError, IndexError, TypeError):
            continue
        return listed(told)
    forms = rf"METRIC[ \t]+{re.escape(name)}=|SCORE:[ \t]*|{re.escape(name)}:[ \t]*"
    return re.findall(rf"^(?:{forms})({NUMBER})[ \t]*$", log, re.M)


def listed(value: Any) -> list[Any]:
    """Give a list as it is, and one value as a list of one."""
    return list(value) if isinstance(value, list) else [value]  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]


if __name__ == "__main__":
    sys.exit(main())
