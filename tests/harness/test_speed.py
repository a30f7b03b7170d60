"""The speed harness: real functions and commands, other tools' files, and candidates that cheat."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import psutil
import pytest
from targets import check_nobody_left

TOP = Path(__file__).parents[2]
SPEED = TOP / "harness" / "speed"
NAP = f"4322.{os.getpid():08}"
"""Seconds of a nap, by which a test finds its own."""
SHORT = ("--calls", "3", "--repeats", "3", "--warmup", "1", "--memory", "0")


class Done(NamedTuple):
    """What came of a call."""

    status: int
    stdout: str
    stderr: str
    metrics: dict[str, float]
    feedback: str


def speed(folder: Path, *args: str, **env: str) -> Done:
    """Run the harness in a directory, as swarm does."""
    result = folder.parent / f"{folder.name}.result.json"
    result.unlink(missing_ok=True)
    done = subprocess.run(
        [sys.executable, str(SPEED / "speed.py"), *args],
        env={"PATH": os.environ["PATH"], "SWARM_RESULT": str(result), **env},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    read = json.loads(result.read_text()) if result.exists() else {"metrics": {}, "feedback": ""}
    return Done(done.returncode, done.stdout, done.stderr, read["metrics"], read["feedback"])


def measured(folder: Path, *args: str, **env: str) -> Done:
    """Run the harness; it must find figures."""
    done = speed(folder, *args, **env)
    assert done.status == 0, done.stderr
    return done


def write(folder: Path, **files: str) -> Path:
    """Write modules into a directory."""
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.py").write_text(textwrap.dedent(text))
    return folder


INPUTS = """
def numbers(chance):
    return [[chance.random() for _ in range(50)], chance.randrange(1000)]

def right(arguments, output):
    return output == sorted(arguments[0])
"""
SORTS = "def sort(numbers, _): return sorted(numbers)"
ASKED = ("call", "work:sort", "--inputs", "own:numbers", "--check", "own:right")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with a candidate that sorts, and what belongs to the harness."""
    return write(tmp_path / "target", own=INPUTS, work=SORTS)


# --- a function -------------------------------------------------------------------------------


def test_a_function_has_figures_in_the_result_file_and_in_the_output(weird_path: Path) -> None:
    write(weird_path, own=INPUTS, work=SORTS)
    before = sorted(p.name for p in weird_path.iterdir())
    done = measured(weird_path, *ASKED, "--calls", "20", "--repeats", "5")
    assert {"seconds_min", "seconds_median", "seconds_mad", "relative", "peak_kb"} <= set(
        done.metrics
    )
    assert 0 < done.metrics["seconds_min"] <= done.metrics["seconds_median"] < 1
    printed = dict(
        line[7:].split("=") for line in done.stdout.splitlines() if line[:7] == "METRIC "
    )
    assert {name: float(value) for name, value in printed.items()} == pytest.approx(done.metrics)
    assert done.feedback.startswith("5 repeats of 20 calls")
    assert "not checked" not in done.feedback
    assert sorted(p.name for p in weird_path.iterdir()) == before, "nothing is left"


def test_a_repeat_gets_as_many_calls_as_it_needs_to_be_timed(place: Path) -> None:
    slow = """
    import time
    def sort(numbers, _):
        time.sleep(0.1)
        return sorted(numbers)
    """
    write(place, work=slow)
    done = measured(place, *ASKED, "--least", "0.5", "--repeats", "2", "--memory", "0")
    calls = int(done.feedback.split(" repeats of ")[1].split()[0])
    assert 1 <= calls <= 6
    # How many are needed is looked at once, and a busy machine may be slower just then.
    assert calls * done.metrics["seconds_min"] > 0.2
    assert done.metrics["seconds_min"] >= 0.1


def test_inputs_follow_the_seed_and_no_two_calls_get_the_same(place: Path) -> None:
    shows = INPUTS.replace("    return output", "    print('# of', arguments)\n    return output")
    write(place, own=shows)

    def seen(seed: str) -> list[str]:
        done = measured(place, *ASKED, *SHORT, SWARM_SEED=seed)
        return [line for line in done.stdout.splitlines() if line[:5] == "# of "]

    one, again, other = seen("1"), seen("1"), seen("2")
    assert len(one) == 9
    assert len(set(one)) == 9
    assert one == again
    assert not set(one) & set(other)


def test_prepare_makes_what_json_cannot_say_and_every_call_gets_its_own(place: Path) -> None:
    write(
        place,
        own=INPUTS + "\ndef bag(numbers, _): return [bytearray(b'ab'), set(numbers)]\n"
        "def fine(arguments, output): return output == [3, len(set(arguments[0]))]\n",
        work="def take(data, numbers):\n    data.append(1)\n    return [len(data), len(numbers)]",
    )
    asked = ["call", "work:take", "--inputs", "own:numbers", "--prepare", "own:bag"]
    assert measured(place, *asked, "--check", "own:fine", *SHORT).feedback.startswith("3 repeats")


def test_a_profile_says_where_the_time_goes(place: Path) -> None:
    slow = """
    def slow():
        return sum([i * i for i in range(9000)])
    def sort(numbers, _):
        return slow() and sorted(numbers)
    """
    write(place, work=slow)
    done = measured(place, *ASKED, *SHORT, "--profile", "3")
    assert "slow  work.py:2" in done.feedback.split("as a profiler sees it:")[1]
    assert "subject.py" not in done.feedback


# --- memory -----------------------------------------------------------------------------------

MAKES = """
def make(count):
    kept = [None] * count
    for number in range(count):
        kept[number] = bytes(300)
    return len(kept)
"""


def can_count() -> None:
    """Skip where nothing counts allocations."""
    if sys.platform != "linux" or not shutil.which("ldd"):
        pytest.skip("NO GLIBC HERE: allocations cannot be counted")
    said = subprocess.run(["ldd", "--version"], capture_output=True, text=True, check=False).stdout
    if "GLIBC" not in said and "GNU" not in said:
        pytest.skip("NO GLIBC HERE: allocations cannot be counted")


def test_allocations_are_counted_exactly_and_always_the_same(tmp_path: Path) -> None:
    can_count()
    place = write(tmp_path / "target", work=MAKES)

    def needs(count: int) -> dict[str, float]:
        return measured(
            place, "call", "work:make", "--args", f"[{count}]", "--repeats", "1"
        ).metrics

    few, many, again = needs(1000), needs(3000), needs(1000)
    assert few["allocations"] == again["allocations"]
    # Numbers above 256 are objects of their own, one at a time.
    assert many["allocations"] - few["allocations"] == pytest.approx(2 * 2000, abs=10)
    assert many["allocated_kb"] - few["allocated_kb"] == pytest.approx(2000 * 365 / 1024, rel=0.05)
    assert many["peak_kb"] - few["peak_kb"] == pytest.approx(2000 * 341 / 1024, rel=0.05)


def test_where_allocations_cannot_be_counted_the_peak_still_is(tmp_path: Path) -> None:
    """Without the C library's log there is a note, and no number that would be another one."""
    place = write(tmp_path / "target", work=MAKES)
    copied = Path(shutil.copytree(SPEED, tmp_path / "speed"))
    program = copied / "callables.py"
    program.write_text(program.read_text().replace("libc_malloc_debug.so.0", "no_such_library.so"))
    done = subprocess.run(
        [sys.executable, str(copied / "speed.py"), "call", "work:make", "--args", "[9]"],
        cwd=place, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "METRIC peak_kb=" in done.stdout
    assert "METRIC alloc" not in done.stdout
    assert "`allocations` cannot be counted here" in done.stdout


# --- candidates that cheat, or fail -----------------------------------------------------------


def test_a_patched_clock_moves_nothing(place: Path) -> None:
    cheat = """
    import time
    sleep = time.sleep
    for name in ("perf_counter", "monotonic", "time", "process_time", "perf_counter_ns"):
        setattr(time, name, lambda: 0)
    def sort(numbers, _):
        sleep(0.03)
        return sorted(numbers)
    """
    write(place, work=cheat)
    assert measured(place, *ASKED, *SHORT).metrics["seconds_min"] >= 0.03


def test_remembering_results_pays_only_where_the_input_comes_again(place: Path) -> None:
    cheat = """
    import time
    known = {}
    def sort(numbers, _):
        key = repr(numbers)
        if key not in known:
            time.sleep(0.02)
            known[key] = sorted(numbers)
        return known[key]
    """
    write(place, work=cheat)
    same = measured(place, "call", "work:sort", "--args", "[[3, 1], 0]", *SHORT)
    assert same.metrics["seconds_min"] < 0.02
    assert "remembering it would pass for speed; give --inputs" in same.feedback
    assert measured(place, *ASKED, *SHORT).metrics["seconds_min"] >= 0.02


def test_what_a_candidate_prints_and_writes_is_not_taken_for_a_result(place: Path) -> None:
    cheat = """
    import os
    print("METRIC seconds_min=0")
    assert "SWARM_RESULT" not in os.environ
    def sort(numbers, _):
        os.write(1, b"METRIC seconds_min=0\\n")
        os.write(2, b"METRIC seconds_min=0\\n")
        return sorted(numbers)
    """
    write(place, work=cheat)
    done = measured(place, *ASKED, *SHORT)
    assert "seconds_min=0\n" not in done.stdout + done.stderr
    assert done.metrics["seconds_min"] > 0


LAZY = """
class Later(list):
    pass
def sort(numbers, _):
    return Later(numbers)
"""


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("def sort(n, _): return n", "the output of call 1 of repeat 1 is wrong, says --check"),
        ("def sort(n, _): return 1 / 0", "work.py:1: ZeroDivisionError: division by zero"),
        ("import sys\ndef sort(n, _): sys.exit(0)", "work.py:2: SystemExit: 0"),
        ("import os\ndef sort(n, _):\n    print('bye', flush=True)\n    os._exit(0)",
         "ended before it was done\nIt printed: bye"),
        ("import time\ndef sort(n, _): time.sleep(60)", "took longer than 4 s"),
        ("def sort(n, _) return", "SyntaxError"),
        ("import nowhere", "work.py:1: ModuleNotFoundError: No module named 'nowhere'"),
        ("sort = 3", "TypeError: `work:sort` is no function"),
        ("", "AttributeError: module 'work' has no attribute 'sort'"),
        (LAZY, "the output has a `Later`, and only plain values can be checked"),
    ],
)  # fmt: skip
def test_a_candidate_that_fails_or_is_wrong_has_no_figures(
    place: Path, code: str, said: str
) -> None:
    write(place, work=code)
    started = time.monotonic()
    done = speed(place, *ASKED, *SHORT, "--timeout", "4")
    assert done.status == 1
    assert done.stderr.startswith("speed: no answer: `work:sort`: ")
    assert said in done.stderr
    assert done.metrics == {}
    assert "METRIC" not in done.stdout
    assert time.monotonic() - started < 30


def test_outputs_of_the_memory_pass_are_checked_too(place: Path) -> None:
    can_count()
    code = "import os\ndef sort(n, _): return n if 'LD_PRELOAD' in os.environ else sorted(n)"
    write(place, work=code)
    done = speed(place, *ASKED, *SHORT[:-1], "2")
    assert done.status == 1
    assert "the output of call 1 of the memory pass is wrong" in done.stderr


def test_a_reference_is_an_oracle_and_a_check_may_raise(place: Path) -> None:
    write(
        place, own=INPUTS + "\ndef oracle(n, _): return sorted(n)\ndef fails(a, o): assert a == 3\n"
    )
    asked = ["call", "work:sort", "--inputs", "own:numbers", *SHORT]
    assert speed(place, *asked, "--reference", "own:oracle").status == 0
    done = speed(place, *asked, "--check", "own:fails")
    assert done.status == 1
    assert "is wrong, says --check (AssertionError: " in done.stderr
    write(place, work="def sort(n, _): return n")
    assert speed(place, *asked, "--reference", "own:oracle").status == 1


@pytest.mark.parametrize("late", [False, True])
def test_nothing_brings_the_candidate_into_the_process_with_the_clock(
    place: Path, late: bool
) -> None:
    lines = (
        INPUTS.replace("    return [[", "    import work\n    return [[")
        if late
        else INPUTS + "\nimport work"
    )
    write(place, own=lines)
    done = speed(place, *ASKED, *SHORT)
    assert done.status == 2
    assert (
        "imports `work`, which is what is measured, into the process that has the clock"
        in done.stderr
    )
    assert done.metrics == {}


def test_no_file_of_the_candidate_passes_for_one_of_pythons_in_that_process(place: Path) -> None:
    write(place, own="import html\n" + INPUTS, html="import os\nos._exit(0)")
    assert measured(place, *ASKED, *SHORT, PYTHONPATH=str(place)).metrics["seconds_min"] > 0


def test_no_process_is_left_when_the_harness_is_ended(place: Path) -> None:
    code = """
    import subprocess, time
    def sort(n, _):
        subprocess.Popen(["sleep", "4321"])
        time.sleep(60)
    """
    write(place, work=code)
    harness = subprocess.Popen([sys.executable, str(SPEED / "speed.py"), *ASKED, *SHORT], cwd=place)

    def below() -> list[psutil.Process]:
        return psutil.Process(harness.pid).children(recursive=True)

    deadline = time.monotonic() + 30
    while not any("4321" in p.cmdline() for p in below()) and time.monotonic() < deadline:
        time.sleep(0.05)
    left = below()
    assert len(left) == 2
    harness.send_signal(signal.SIGTERM)
    assert harness.wait(30) == 128 + signal.SIGTERM
    assert psutil.wait_procs(left, timeout=10)[1] == []


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["call", "work"], "`module:function` is wanted, not 'work'"),
        (["call", "work:sort", "--args", "{}"], "--args: a JSON list of arguments is wanted"),
        (["call", "work:sort", "--args", "[1"], "--args: not JSON"),
        (["call", "work:sort", "--args", "[]", "--inputs", "own:numbers"], "give one of them"),
        (["call", "work:sort", "--inputs", "own"], "`module:function` is wanted"),
        (["call", "work:sort", "--inputs", "own:none"], "`own:none` cannot be imported"),
        (["call", "work:sort", "--inputs", "bad:one"], "a list of arguments is wanted, not 1"),
        (["call", "work:sort", "--inputs", "bad:fails"], "--inputs: fails: KeyError: 'x'"),
        (["call", "work:sort", "--inputs", "bad:odd"], "make it from one with --prepare"),
        (["call", "work:sort", "--repeats", "0"], "1 or more is wanted, not 0"),
        (["call", "work:sort", "--timeout", "nan"], "a number of seconds above 0 is wanted"),
        (["command", "--expect", "none.txt", "--", "true"], "--expect: there is no file none.txt"),
        (["hyperfine"], "give a file that it has exported, or --run COMMAND"),
        (["hyperfine", "none.json"], "none.json: cannot be read: No such file or directory"),
        (["score", "x", "work:sort", "--inputs", "own:numbers"], "--calls, and --check"),
        (["call", "work:sort", "--args", "[[1], 0]", "--save", "no/file"], "no/file cannot be"),
        ([], "the following arguments are required"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_said(place: Path, args: list[str], said: str) -> None:
    write(place, bad="def one(c): return 1\ndef fails(c): return {}['x']\ndef odd(c): return [b'']")
    done = speed(place, *args)
    assert done.status == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.metrics == {}


def test_a_seed_must_be_a_number(place: Path) -> None:
    done = speed(place, *ASKED, *SHORT, SWARM_SEED="x")
    assert (done.status, done.stderr) == (
        2, "speed: SWARM_SEED: a whole number is wanted, not 'x'\n",
    )  # fmt: skip


# --- a score ----------------------------------------------------------------------------------


def test_a_score_checks_what_a_call_kept_where_the_candidate_does_not_run(place: Path) -> None:
    file = place / "kept.json"
    options = [*ASKED[1:], *SHORT]
    first = measured(place, "call", *options, "--save", str(file))
    (place / "work.py").write_text("raise SystemExit('never imported')")
    again = measured(place, "score", str(file), *options)
    assert again.metrics == pytest.approx(first.metrics)
    assert "all outputs right" in again.feedback

    other = speed(place, "score", str(file), *options, "--repeats", "2")
    assert other.status == 1
    assert "other repeats than 2 of 3 calls" in other.stderr
    assert speed(place, "score", str(file), *options, SWARM_SEED="9").status == 1

    kept = json.loads(file.read_text())
    kept["repeats"][1][-1][2][0] = 7.0
    file.write_text(json.dumps(kept))
    forged = speed(place, "score", str(file), *options)
    assert forged.status == 1
    assert "the output of call 3 of repeat 2 is wrong" in forged.stderr
    file.write_text('{"repeats": [[]]}')
    assert "not what `call --save` writes" in speed(place, "score", str(file), *options).stderr


# --- commands ---------------------------------------------------------------------------------


def test_a_command_has_time_on_the_wall_processor_time_and_memory(tmp_path: Path) -> None:
    sleeps = measured(tmp_path, "command", "--repeats", "3", "--", "sleep", "0.2").metrics
    assert 0.2 <= sleeps["seconds_min"] <= sleeps["seconds_median"]
    assert sleeps["cpu_seconds_median"] < 0.1
    spin = "import time\nwhile time.process_time() < 0.3: pass\nx = bytearray(60_000_000)"
    spins = measured(tmp_path, "command", "--repeats", "2", "--", sys.executable, "-S", "-c", spin)
    assert 0.3 <= spins.metrics["cpu_seconds_min"] < 3
    assert 59_000 < spins.metrics["rss_kb"] < 120_000
    assert spins.metrics["cpu_relative"] > 2 * sleeps["cpu_relative"]
    assert "outputs are not checked" in spins.feedback


def test_each_run_has_a_seed_and_a_home_of_its_own_and_no_way_to_the_result(tmp_path: Path) -> None:
    script = (
        'echo "$SWARM_SEED $HOME $TMPDIR $SWARM_RESULT" >> seen; test ! -e "$TMPDIR/known";'
        ' touch "$TMPDIR/known"'
    )
    measured(tmp_path, "command", "--repeats", "3", "--seed", "5", "--", "sh", "-ec", script)
    rows = [line.split() for line in (tmp_path / "seen").read_text().splitlines()]
    assert len(rows) == 4, "one of them warms up"
    assert len({row[0] for row in rows}) == 4
    assert len({row[1] for row in rows}) == 4
    assert all(row[1] == row[2] and len(row) == 3 for row in rows)


def test_what_a_command_prints_is_compared(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("b\na\n")
    (tmp_path / "out.txt").write_text("a\nb\n")
    asked = ["command", "--repeats", "2", "--stdin", "in.txt", "--expect", "out.txt"]
    done = measured(tmp_path, *asked, "--check", "grep -q a", "--", "sort")
    assert done.feedback == "2 runs"
    wrong = speed(tmp_path, *asked, "--", "cat")
    assert wrong.status == 1
    assert "`cat` printed something else than out.txt says: b a" in wrong.stderr
    refused = speed(
        tmp_path, *asked, "--check", "echo too short >&2; exit 1", "--seed", "7", "--", "sort"
    )
    assert refused.status == 1
    assert "SWARM_SEED=7 is wrong, says --check (too short): a b" in refused.stderr


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["sh", "-c", "echo no disk >&2; exit 3"], "`sh`: exit 3: no disk"),
        (["sh", "-c", "kill -9 $$"], "`sh`: killed by signal 9"),
        (["./nowhere"], "`./nowhere` cannot be started"),
        (["sh", "-c", f"sleep {NAP} & sleep {NAP}"], "`sh` took longer than 0.5 s"),
    ],
)
def test_a_command_that_fails_has_no_figures(tmp_path: Path, argv: list[str], said: str) -> None:
    limit = "0.5" if "longer" in said else "20"
    done = speed(tmp_path, "command", "--timeout", limit, "--", *argv)
    assert done.status == 1
    assert said in done.stderr
    assert done.metrics == {}
    check_nobody_left(NAP)


# --- other tools' files -----------------------------------------------------------------------

HYPERFINE: dict[str, Any] = {
    "results": [
        {
            "command": "./old", "mean": 0.22, "stddev": 0.02, "median": 0.2, "user": 0.1,
            "system": 0.05, "min": 0.1, "max": 0.4, "times": [0.4, 0.1, 0.2],
            "exit_codes": [0, 0, 0], "memory_usage_byte": [2048, 4096, 1024],
        },
        {"command": "./new", "mean": 0.06, "median": 0.05, "min": 0.025, "max": 0.1},
    ]
}  # fmt: skip
BENCHMARKS: dict[str, Any] = {
    "machine_info": {},
    "benchmarks": [
        {
            "name": "test_parse[a]", "fullname": "tests/test_it.py::test_parse[a]", "group": None,
            "stats": {"min": 0.001, "max": 0.004, "mean": 0.0021, "median": 0.002, "rounds": 9},
        },
        {
            "name": "test_render", "fullname": "tests/test_it.py::test_render",
            "stats": {"min": 0.03, "mean": 0.05, "median": 0.05, "data": [0.03, 0.05, 0.06]},
        },
    ],
}  # fmt: skip


def export(folder: Path, content: Any) -> str:
    (folder / "times.json").write_text(json.dumps(content))
    return "times.json"


def test_hyperfine_gives_the_geometric_mean_of_all_or_of_those_that_are_named(
    tmp_path: Path,
) -> None:
    file = export(tmp_path, HYPERFINE)
    both = measured(tmp_path, "hyperfine", file)
    assert both.metrics == pytest.approx(
        {"seconds_min": 0.05, "seconds_median": 0.1, "seconds_mean": 0.1148912529}
    )
    assert "geometric mean of all" in both.feedback
    one = measured(tmp_path, "hyperfine", file, "--select", "./old").metrics
    assert one == pytest.approx(
        {
            "seconds_min": 0.1, "seconds_median": 0.2, "seconds_mad": 0.1, "seconds_mean": 0.22,
            "cpu_seconds_mean": 0.15, "rss_kb": 4.0,
        }
    )  # fmt: skip


def test_pytest_benchmark_gives_the_same_figures(tmp_path: Path) -> None:
    file = export(tmp_path, BENCHMARKS)
    both = measured(tmp_path, "pytest-benchmark", file).metrics
    assert both["seconds_median"] == pytest.approx(0.01)
    name = "tests/test_it.py::test_render"
    one = measured(tmp_path, "pytest-benchmark", file, "--select", name).metrics
    assert one == pytest.approx(
        {"seconds_min": 0.03, "seconds_median": 0.05, "seconds_mad": 0.01, "seconds_mean": 0.05}
    )


FAILED = {**HYPERFINE["results"][0], "exit_codes": [0, 1, 0]}
TWICE = {"benchmarks": 2 * BENCHMARKS["benchmarks"][:1]}


@pytest.mark.parametrize(
    ("mode", "content", "said"),
    [
        ("hyperfine", BENCHMARKS, "there is no list `results` with something in it"),
        ("hyperfine", {"results": []}, "there is no list `results` with something in it"),
        ("hyperfine", {"results": [3]}, "results[0]: an object is wanted"),
        ("hyperfine", {"results": [{}]}, "results[0]: has no `command`; is this what"),
        ("hyperfine", {"results": [FAILED]}, "results[0]: `./old` ended with 1; a failure is"),
        ("hyperfine", {"results": [{"command": "a", "times": [0.1, "x"]}]},
         "results[0].times[1]: a number is wanted, not 'x'"),
        ("hyperfine", {"results": [{"command": "a", "times": [0.1, -1]}]},
         "results[0].times[1]: a time above 0 is wanted, not -1"),
        ("hyperfine", {"results": [{"command": "a"}]}, "results[0].min: a number is wanted"),
        ("pytest-benchmark", {"benchmarks": [{"name": "a"}]}, "benchmarks[0]: has no `name` and"),
        ("pytest-benchmark", {"benchmarks": [{"name": "a", "stats": {"min": True}}]},
         "benchmarks[0].stats.min: a number is wanted, not True"),
        ("pytest-benchmark", TWICE, "2 benchmarks are called 'test_parse[a]'"),
        ("pytest-benchmark", BENCHMARKS, ""),
        ("pytest-benchmark", "text", "there is no list `benchmarks`"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file_is_said(
    tmp_path: Path, mode: str, content: Any, said: str
) -> None:
    file = export(tmp_path, content)
    select = ["--select", "test_parse[a]"] if content is TWICE else []
    select = ["--select", "test_pars"] if not said else select
    done = speed(tmp_path, mode, file, *select)
    assert done.status == 2
    expected = said or "there is no benchmark 'test_pars'; there are `test_parse[a]`, `test_render`"
    assert f"speed: times.json: {expected}" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_that_is_not_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "times.json").write_text("{")
    done = speed(tmp_path, "hyperfine", "times.json")
    assert (done.status, done.stderr[:28]) == (2, "speed: times.json: not JSON:")


def test_hyperfine_itself_can_be_asked(tmp_path: Path) -> None:
    if shutil.which("hyperfine") is None:
        pytest.skip("NO HYPERFINE HERE")
    asked = ["hyperfine", "--repeats", "3", "--warmup", "0", "--run"]
    done = measured(tmp_path, *asked, "sleep 0.05", "--run", "sleep 0.2")
    assert 0.08 <= done.metrics["seconds_min"] < 1  # it takes the shell's own time off
    assert "sleep 0.05: " in done.feedback
    failed = speed(tmp_path, *asked, "sh -c 'exit 4'")
    assert failed.status == 1
    assert "non-zero exit code" in failed.stderr


def test_without_hyperfine_the_way_out_is_named(tmp_path: Path) -> None:
    done = speed(tmp_path, "hyperfine", "--run", "true", PATH=str(tmp_path))
    assert done.status == 2
    assert "hyperfine is not installed; `speed.py command` needs nothing" in done.stderr


# --- figures ----------------------------------------------------------------------------------


@pytest.fixture
def figures() -> ModuleType:
    spec = importlib.util.spec_from_file_location("speed_figures", SPEED / "figures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_an_outlier_moves_neither_median_nor_spread(figures: ModuleType) -> None:
    assert figures.of([3.0, 1.0, 2.0, 100.0, 2.5]) == {
        "seconds_min": 1.0, "seconds_median": 2.5, "seconds_mad": 0.5,
    }  # fmt: skip


def test_a_mean_of_benchmarks_moves_by_the_same_factor_whichever_gets_faster(
    figures: ModuleType,
) -> None:
    def mean(short: float, long: float) -> float:
        return figures.together([{"s": short, "only": 1.0}, {"s": long}])["s"]

    assert mean(0.5, 100.0) == pytest.approx(mean(1.0, 50.0))
    assert mean(0.5, 100.0) == pytest.approx(mean(1.0, 100.0) / 2**0.5)


@pytest.mark.parametrize(
    ("seconds", "text"), [(2.0, "2 s"), (0.0123, "12.3 ms"), (4.5e-6, "4.5 µs"), (3e-9, "3 ns")]
)
def test_durations_are_shown_as_a_person_would_write_them(
    figures: ModuleType, seconds: float, text: str
) -> None:
    assert figures.shown(seconds) == text
