"""The backtest harness: real candidates behind real walls, and every way to look ahead."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import psutil
import pytest
from landlock import walled
from messages_server import Fault, Json, MessagesServer, Reply, conversation

TOP = Path(__file__).parents[2]
BACKTEST = TOP / "harness" / "backtest"
FUNCTION = ("--files", "own", "--python", "own.guess:predict")
PROGRAM = ("--files", "own", "--", sys.executable, "own/main.py")


class Done(NamedTuple):
    """What came of a call."""

    status: int
    stdout: str
    stderr: str
    told: dict[str, Any]

    @property
    def metrics(self) -> dict[str, float]:
        return self.told["metrics"]


def backtest(folder: Path, *args: str, **env: str) -> Done:
    """Run the harness in a directory, as swarm does."""
    result = folder.parent / f"{folder.name}.result.json"
    result.unlink(missing_ok=True)
    words = [*args[:1], "events.jsonl", "outcomes.jsonl", *args[1:]]
    done = subprocess.run(
        [sys.executable, str(BACKTEST / "backtest.py"), *words],
        env={"PATH": os.environ["PATH"], "SWARM_RESULT": str(result), **env},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    read = json.loads(result.read_text()) if result.exists() else {}
    return Done(done.returncode, done.stdout, done.stderr, read)


def measured(folder: Path, *args: str, **env: str) -> Done:
    """Score a candidate; there must be figures."""
    done = backtest(folder, "score", *args, **env)
    assert done.status == 0, done.stderr
    assert "metrics" in done.told, done.stdout
    return done


def write(folder: Path, outcomes: Sequence[Any], **files: str) -> Path:
    """Write a day's event for each outcome, and the candidate's modules."""
    (folder / "own").mkdir(parents=True, exist_ok=True)
    days = [f"2024-{1 + n // 28:02}-{1 + n % 28:02}" for n in range(len(outcomes))]
    events = [{"id": f"e{n}", "at": day, "given": {"n": n}} for n, day in enumerate(days)]
    lines(folder / "events.jsonl", events)
    lines(
        folder / "outcomes.jsonl", [{"id": f"e{n}", "outcome": o} for n, o in enumerate(outcomes)]
    )
    for name, text in files.items():
        (folder / "own" / f"{name}.py").write_text(textwrap.dedent(text))
    return folder


def lines(path: Path, rows: Sequence[Any]) -> None:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def loop(*answering: str, head: str = "", first: str = "", last: str = "") -> str:
    """Give a program that answers question `q`; its own lines are the body of the loop."""
    body = "".join(f"    {line}\n" for line in answering)
    return (
        f"import json, os, sys, time\n{head}\n"
        "def say(**answer):\n    print(json.dumps(answer), flush=True)\n"
        f"{first}\nfor line in sys.stdin:\n    q = json.loads(line)\n{body}{last}\n"
    )


def module(name: str) -> ModuleType:
    """Load a module of the harness that needs no other."""
    spec = importlib.util.spec_from_file_location(f"backtest_{name}", BACKTEST / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


# --- figures ----------------------------------------------------------------------------------


def test_figures_are_those_that_a_person_works_out() -> None:
    scores = module("scores")
    base = {"a": 0.5, "b": 0.25, "c": 0.25}
    said = [{"a": 0.7, "b": 0.2, "c": 0.1}, {"a": 0.4, "b": 0.4, "c": 0.2}]
    judged = [scores.Judged(said[0], base, "a"), scores.Judged(said[1], base, "b", False)]
    found = scores.of(judged, False)
    assert found["log_loss"] == pytest.approx((-math.log(0.7) - math.log(0.4)) / 2)
    assert found["brier"] == pytest.approx((0.09 + 0.04 + 0.01 + 0.16 + 0.36 + 0.04) / 2)
    assert found["base_brier"] == pytest.approx((0.375 + 0.875) / 2)
    assert found["skill"] == pytest.approx(1 - 0.35 / 0.625)
    assert found["accuracy"] == 0.75, "two labels share the first place of the second event"
    assert found["coverage"] == 0.5
    assert found["ece"] == pytest.approx((0.3 + 0.1) / 2)
    assert found["events"] == 2


def test_true_and_false_have_one_probability_and_its_distance() -> None:
    scores = module("scores")
    half = {"false": 0.5, "true": 0.5}
    said = {"false": 0.2, "true": 0.8}
    judged = [scores.Judged(said, half, label) for label in ("true", "false")]
    found = scores.of(judged, True)
    assert found["brier"] == pytest.approx((0.04 + 0.64) / 2)
    assert found["base_brier"] == 0.25
    assert found["ece"] == pytest.approx(0.3), "said 0.8 twice, and one came true"
    sure = scores.of([scores.Judged({"false": 0.0, "true": 1.0}, half, "false")], True)
    assert sure["log_loss"] == pytest.approx(-math.log(1e-6)), "clipped, not infinite"


def test_numbers_have_distances() -> None:
    scores = module("scores")
    found = scores.of_numbers([scores.Guessed(1, 2, 3), scores.Guessed(5, 2, 4)])
    assert found["absolute_error"] == 1.5
    assert found["squared_error"] == 2.5
    assert found["bias"] == -0.5
    assert found["skill"] == pytest.approx(1 - 2.5 / 2.5)


# --- the walk ---------------------------------------------------------------------------------


@walled
def test_an_event_is_met_with_what_was_known_before_it_and_no_more(tmp_path: Path) -> None:
    # Events of one moment, an outcome that is known late, and one that is known at the very moment.
    # The first two know nothing: numbers are not judged there.
    at = ["2024-01-01", "2024-01-01", "2024-01-02T12:00:00Z", "2024-01-02T13:00:00+01:00",
          "2024-01-03", "2024-01-09"]  # fmt: skip
    known_at = {0: "2024-01-05", 4: "2024-01-09"}
    expected = [0, 0, 1, 1, 3, 4]
    write(tmp_path, expected, guess="def predict(event, history): return len(history)")
    lines(
        tmp_path / "events.jsonl",
        [{"id": f"e{n}", "at": each, "given": {}} for n, each in enumerate(at)],
    )
    lines(
        tmp_path / "outcomes.jsonl",
        [
            {"id": f"e{n}", "outcome": o} | ({"known_at": known_at[n]} if n in known_at else {})
            for n, o in enumerate(expected)
        ],
    )
    found = measured(tmp_path, *FUNCTION).metrics
    assert (found["events"], found["absolute_error"]) == (4, 0)


@walled
def test_numbers_are_judged_where_there_is_a_past_and_no_zero_stands_for_it(tmp_path: Path) -> None:
    """A base of 0 before the first outcome would make anybody look skilled."""
    guess = """
    def predict(event, history): return 302 if history else None
    """
    write(tmp_path, [300, 299, 302, 301, 303, 300], guess=guess)
    found = measured(tmp_path, *FUNCTION).metrics
    assert (found["events"], found["coverage"]) == (5, 1)
    assert found["base_absolute_error"] < 3
    assert found["skill"] < 0.5
    assert "the last 5 of them count" in backtest(tmp_path, "check").stdout
    done = backtest(tmp_path, "score", "--until", "2024-01-02", *FUNCTION)
    assert (done.status, "is an earlier outcome known" in done.stderr) == (2, True), done.stderr


@walled
def test_huge_numbers_are_refused_or_can_be_counted_with(tmp_path: Path) -> None:
    for value, said in ((1e308, "no number up to 1e+100"), (-1e154, "no number up to 1e+100")):
        write(tmp_path, [1, 2, 3], guess=f"def predict(event, history): return {value}")
        assert said in backtest(tmp_path, "score", *FUNCTION).told["invalid"]
    for outcomes in ([1, 2, 3], [1, 2e-160, 1]):  # and a base that is nearly perfect
        write(tmp_path, outcomes, guess="def predict(event, history): return 1e99")
        done = measured(tmp_path, *FUNCTION)
        assert all(map(math.isfinite, done.metrics.values())), done.metrics
        assert len(done.told["feedback"]) < 200
    write(tmp_path, [1, 1e200])
    done = backtest(tmp_path, "check")
    assert done.status == 2
    assert "outcomes.jsonl:2: `outcome` is a number beyond 1e+100" in done.stderr


@walled
def test_a_function_is_told_the_labels(tmp_path: Path) -> None:
    guess = """
    def predict(event, history):
        return {name: 1 / len(event["labels"]) for name in event["labels"]}
    """
    write(tmp_path, ["x", "y", "z"], guess=guess)
    assert measured(tmp_path, *FUNCTION).metrics["log_loss"] == pytest.approx(math.log(3))


@walled
def test_a_function_gets_the_past_with_its_outcomes(weird_path: Path) -> None:
    """It can only be right by reading what it is given: the outcome is that of the day before."""
    guess = """
    seen = []
    def predict(event, history):
        print("what it prints is no answer")
        assert all(set(h) == {"id", "at", "given", "outcome"} for h in history)
        assert [h["id"] for h in history] == seen, seen
        seen.append(event["id"])
        event["given"].clear()
        return {"x": 1.0} if not history or history[-1]["outcome"] == "x" else {"y": 0.9995}
    """
    write(weird_path, ["x"] * 30 + ["y"] * 30, guess=guess)
    before = sorted(p.name for p in (weird_path / "own").iterdir())
    done = measured(weird_path, *FUNCTION)
    assert done.metrics["accuracy"] == pytest.approx(59 / 60)
    printed = dict(li[7:].split("=") for li in done.stdout.splitlines() if li[:7] == "METRIC ")
    assert {name: float(v) for name, v in printed.items()} == pytest.approx(done.metrics, rel=1e-4)
    assert sorted(p.name for p in (weird_path / "own").iterdir()) == before, "nothing is left"


@walled
def test_what_is_earlier_is_walked_and_not_judged_and_what_is_later_is_not_walked(
    tmp_path: Path,
) -> None:
    guess = """
    def predict(event, history):
        assert event["given"]["n"] < 40
        return 0.9 if len(history) >= 20 else 0.1
    """
    write(tmp_path, [False] * 20 + [True] * 20 + [False] * 20, guess=guess)
    some = ("--from", "2024-01-21", "--until", "2024-02-13")
    done = measured(tmp_path, *some, *FUNCTION)
    assert done.metrics["events"] == 20
    assert done.metrics["accuracy"] == 1
    assert done.metrics["log_loss"] == pytest.approx(-math.log(0.9))
    # The base rate knows the events that were only walked: (0+1)/(20+2) at first, 20/41 at last.
    expected = [-math.log((n + 1) / (n + 22)) for n in range(20)]
    assert done.metrics["base_log_loss"] == pytest.approx(sum(expected) / 20)
    checked = backtest(tmp_path, "check", *some)
    assert "60 events; an outcome is one of false, true" in checked.stdout
    assert "40 are walked, the last 20 of them count: 2024-01-21 to 2024-02-12" in checked.stdout
    nothing = backtest(tmp_path, "score", "--from", "2025-01-01", *FUNCTION)
    assert nothing.status == 2
    assert "no event lies between --from and --until" in nothing.stderr


@walled
def test_to_say_nothing_counts_as_the_base_rate(tmp_path: Path) -> None:
    write(tmp_path, [True, False] * 10, guess="def predict(event, history): return None")
    found = measured(tmp_path, *FUNCTION, "--cases").told
    assert found["metrics"]["coverage"] == 0
    assert found["metrics"]["log_loss"] == found["metrics"]["base_log_loss"]
    assert found["metrics"]["skill"] == 0
    assert [case["id"] for case in found["cases"]] == [f"e{n}" for n in range(20)]


@walled
def test_weights_are_a_file_beside_the_code(tmp_path: Path) -> None:
    guess = """
    import json, pathlib
    weights = json.loads(pathlib.Path(__file__).with_name("weights.json").read_text())
    def predict(event, history):
        return {"yes": weights["yes"], "no": 1 - weights["yes"]}
    """
    write(tmp_path, ["yes", "yes", "no"], guess=guess)
    (tmp_path / "own" / "weights.json").write_text('{"yes": 0.75}')
    expected = -(2 * math.log(0.75) + math.log(0.25)) / 3
    assert measured(tmp_path, *FUNCTION).metrics["log_loss"] == pytest.approx(expected)


@walled
def test_the_feedback_tells_where_it_is_weak_and_of_no_single_event(tmp_path: Path) -> None:
    guess = "def predict(event, history): return 0.9 if event['given']['n'] < 40 else 0.2"
    write(tmp_path, [True] * 80, guess=guess)
    told = measured(tmp_path, *FUNCTION).told["feedback"]
    assert "80 events, 2024-01-01 to 2024-03-24: log_loss 0.8574 (standard error" in told
    assert "2024-01-01 to 2024-01-20: 0.1054, base rate" in told
    assert "2024-03-05 to 2024-03-24: 1.6094, base rate" in told
    assert "40 events with 0.90 for the most probable label: it came in 1.00 of them" in told
    assert "40 events with 0.80 for the most probable label: it came in 0.00 of them" in told
    few = measured(tmp_path, "--until", "2024-01-06", *FUNCTION).told["feedback"]
    assert few.count("\n") == 0, "parts of few events would tell of each"


# --- walls ------------------------------------------------------------------------------------


@contextmanager
def socket_listening() -> Generator[int, None, None]:
    """Listen on loopback, as swarm's way to models does."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


REACH = """
import ctypes, os, pathlib, socket, subprocess
parent = os.getppid()
def attempts():
    yield lambda: open(TOP + "/outcomes.jsonl").read()
    yield lambda: open(TOP + "/events.jsonl").read()
    yield lambda: os.listdir(TOP)
    yield lambda: subprocess.run(["cat", TOP + "/outcomes.jsonl"], check=True)
    yield lambda: os.link(TOP + "/outcomes.jsonl", os.environ["HOME"] + "/mine")
    yield lambda: open(HARNESS + "/backtest.py").read()
    yield lambda: open(f"/proc/{parent}/environ").read()
    yield lambda: open(f"/proc/{parent}/mem", "rb")
    yield lambda: open(f"/proc/{parent}/cmdline").read()
    yield lambda: os.listdir(f"/proc/{parent}/fd")
    yield lambda: peek(parent)
    yield lambda: open(TOP + "/note", "w")
    yield lambda: open(TOP + "/own/note", "w")
    yield lambda: open("own/note", "w")
    yield lambda: open("/tmp/backtest-note", "w")
    yield lambda: os.truncate(TOP + "/outcomes.jsonl", 0)
    yield lambda: socket.create_connection(("127.0.0.1", PORT), 5)
    yield lambda: os.environ["SWARM_RESULT"]
    yield lambda: os.environ["SWARM_MODEL_TOKEN"]

class Piece(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("size", ctypes.c_size_t)]

def peek(pid):
    libc, mine = ctypes.CDLL(None, use_errno=True), ctypes.create_string_buffer(8)
    here = Piece(ctypes.addressof(mine), 8)
    there = Piece(int(open(f"/proc/self/maps").read().split("-")[0], 16), 8)
    if libc.process_vm_readv(pid, ctypes.byref(here), 1, ctypes.byref(there), 1, 0) < 0:
        if ctypes.get_errno() == 1:
            raise PermissionError
"""


@walled
def test_nothing_of_the_outcomes_can_be_reached_and_little_else(tmp_path: Path) -> None:
    """The candidate tells how far it has got by what it answers, which is all that leaves it."""
    with socket_listening() as port:
        # The first of all events is not judged.
        head = (
            f"TOP, HARNESS, PORT = {str(tmp_path)!r}, {str(BACKTEST)!r}, {port}\n{REACH}\n"
            "got = [0]\n"
            "for attempt in attempts():\n"
            "    try:\n        attempt()\n        got.append(1)\n"
            "    except (OSError, KeyError, subprocess.CalledProcessError):\n"
            "        got.append(0)\n"
        )
        # As many events as attempts: of each, whether it was of use.
        write(
            tmp_path,
            [0] * (1 + REACH.count("yield lambda")),
            main=loop("say(turn=q['turn'], value=got[q['event']['given']['n']])", head=head),
        )
        found = measured(tmp_path, *PROGRAM, SWARM_MODEL_TOKEN="secret")
    assert found.metrics["absolute_error"] == 0
    assert found.metrics["events"] == REACH.count("yield lambda")
    assert (tmp_path / "outcomes.jsonl").stat().st_size > 0
    assert not (tmp_path / "note").exists()


@walled
def test_without_walls_it_is_said_that_nothing_is_proven(tmp_path: Path) -> None:
    """The same look, which succeeds here: so the walls are what keeps it out above."""
    head = (
        f"lines = open({str(tmp_path / 'outcomes.jsonl')!r}).read().splitlines()\n"
        "found = {line['id']: line['outcome'] for line in map(json.loads, lines)}"
    )
    main = loop("say(turn=q['turn'], p=float(found[q['event']['id']]))", head=head)
    write(tmp_path, [True, False, False, True], main=main)
    done = measured(tmp_path, "--open", *PROGRAM)
    assert done.metrics["accuracy"] == 1
    assert "is not proven" in done.told["feedback"]
    kept_out = backtest(tmp_path, "score", *PROGRAM)
    assert kept_out.status == 0
    said = "it ended over outcomes.jsonl, which no candidate may read"
    assert kept_out.told == {"invalid": said}


@walled
def test_a_function_that_looks_is_invalid_even_if_it_swallows_the_refusal(tmp_path: Path) -> None:
    guess = f"""
    from pathlib import Path
    mine = Path("own/events.jsonl").read_text()
    def predict(event, history):
        try:
            return float("true" in open({str(tmp_path / "outcomes.jsonl")!r}).read())
        except OSError:
            return 0.5
    """
    write(tmp_path, [True, False], guess=guess)
    (tmp_path / "own" / "events.jsonl").write_text("")
    done = backtest(tmp_path, "score", *FUNCTION)
    assert done.told == {"invalid": "it tried to open outcomes.jsonl, which no candidate may read"}
    done = backtest(tmp_path, "rehearse", *FUNCTION)
    assert "log_loss 0.6931" in done.stdout, "there nothing is hidden, and nothing is reached"


@walled
def test_a_file_of_its_own_may_have_the_name_of_a_hidden_one(tmp_path: Path) -> None:
    guess = f"""
    import os
    open(os.environ["TMPDIR"] + "/outcomes.jsonl", "a").close()
    def predict(event, history):
        open({str(tmp_path / "past" / "events.jsonl")!r}).close()
        open(os.environ["TMPDIR"] + "/outcomes.jsonl").close()
        try:
            open("own/events.jsonl")
        except FileNotFoundError:
            return 0.5
    """
    write(tmp_path, [True, False], guess=guess)
    (tmp_path / "past").mkdir()
    (tmp_path / "past" / "events.jsonl").write_text("")
    assert measured(tmp_path, *FUNCTION, "--read", "past").metrics["events"] == 2
    done = backtest(tmp_path, "score", *FUNCTION)
    assert done.told == {"invalid": "it ended over events.jsonl, which no candidate may read"}


@walled
def test_files_that_are_to_be_hidden_may_not_lie_with_the_candidate(tmp_path: Path) -> None:
    write(tmp_path, [True, False], guess="def predict(event, history): return 0.5")
    os.rename(tmp_path / "outcomes.jsonl", tmp_path / "own" / "outcomes.jsonl")
    (tmp_path / "outcomes.jsonl").symlink_to("own/outcomes.jsonl")
    done = backtest(tmp_path, "score", *FUNCTION)
    assert done.status == 2
    assert "outcomes.jsonl lies where the candidate may read" in done.stderr
    below = "must lie below the working directory"
    for files, said in (("..", below), (".", below), ("no", "there is no no")):
        done = backtest(tmp_path, "score", "--files", files, *FUNCTION[2:])
        assert (done.status, said in done.stderr) == (2, True), done.stderr
    done = backtest(tmp_path, "score", *FUNCTION[2:])
    assert "name the files of the candidate" in done.stderr
    done = backtest(tmp_path, "score", *FUNCTION, "--read", "/no/such")
    assert (done.status, "--read: there is no /no/such" in done.stderr) == (2, True)


@walled
def test_what_it_starts_ends_with_it(tmp_path: Path) -> None:
    """A process that outlived its walk could carry what it has seen into the next one."""
    daemon = (
        "if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n"
        f"        os.close(1)\n        os.execvp('sleep', ['sleep', '{NAP}'])\n    os._exit(0)\n"
    )
    main = loop("say(turn=q['turn'], p=0.5)", first=daemon)
    write(tmp_path, [True, False, True], main=main)
    done = measured(tmp_path, *PROGRAM)
    assert done.metrics["log_loss"] == pytest.approx(math.log(2))
    assert [p for p in psutil.process_iter() if sleeps(p)] == []


@walled
def test_a_signal_ends_the_candidate_too(tmp_path: Path) -> None:
    write(tmp_path, [True, False], main="import time\nwhile True: time.sleep(0.1)\n")
    words = ["score", "events.jsonl", "outcomes.jsonl", *PROGRAM]
    harness = subprocess.Popen(
        [sys.executable, str(BACKTEST / "backtest.py"), *words], cwd=tmp_path
    )
    try:
        watched, deadline = psutil.Process(harness.pid), time.monotonic() + 60
        while not (children := watched.children()) and time.monotonic() < deadline:
            time.sleep(0.02)
        harness.terminate()
        assert harness.wait(60) == 128 + signal.SIGTERM
    finally:
        harness.kill()
        harness.wait()
    assert children
    assert [child for child in children if child.is_running()] == []


NAP = f"9875.{os.getpid()}"


def sleeps(process: psutil.Process) -> bool:
    try:
        return process.cmdline() == ["sleep", NAP]
    except psutil.Error:
        return False


# --- rules of the walk ------------------------------------------------------------------------

GOOD = "say(turn=q['turn'], p=0.5)"
BREACHES = {
    "twice": ((GOOD, GOOD), # whether the second answer is there before or after the next question
              "it said something before it was asked|answer does not repeat its"),
    "late": (("seen.append(q['turn'])", "say(turn=seen[0], p=0.5)"),
             "an answer does not repeat its `turn`"),
    "ahead": (("say(turn='none', p=0.5)",), "an answer does not repeat its `turn`"),
    "no json": (("print('SECRET', flush=True)",), "an answer is no line of JSON"),
    "no object": (("print('[1]', flush=True)",), "an answer is no JSON object"),
    "no p": (("say(turn=q['turn'], q=0.5)",), "an answer has no `p`"),
    "a word": (("say(turn=q['turn'], p='SECRET')",), "a `p` that is neither"),
    "beyond": (("say(turn=q['turn'], p=1.5)",), "a probability that is no number from 0 to 1"),
    "nan": (("say(turn=q['turn'], p={'true': float('nan')})",), "no number from 0 to 1"),
    "huge": (("say(turn=q['turn'], p=10**400)",), "a `p` that is neither"),
    "label": (("say(turn=q['turn'], p={'SECRET': 1})",), "a label that there is not"),
    "sum": (("say(turn=q['turn'], p={'true': 0.5, 'false': 0.4})",), "do not add up to 1"),
    "chance": (("say(turn=q['turn'], p=int.from_bytes(os.urandom(4), 'big') / 2**32)",),
               "walked again, it says something else"),
    "endless": (("print('SECRET' * 10**6, flush=True)",), "an answer has no end"),
}  # fmt: skip


@walled
@pytest.mark.parametrize("which", BREACHES)
def test_who_breaks_a_rule_is_invalid_and_tells_nothing(tmp_path: Path, which: str) -> None:
    body, said = BREACHES[which]
    write(tmp_path, [True, False] * 4, main=loop(*body, head="seen = []"))
    done = backtest(tmp_path, "score", *PROGRAM)
    assert done.status == 0, done.stderr
    assert list(done.told) == ["invalid"]
    assert any(words in done.told["invalid"] for words in said.split("|")), done.told
    assert "SECRET" not in done.stdout + done.stderr + str(done.told)


@walled
def test_who_goes_on_after_the_last_question_is_invalid(tmp_path: Path) -> None:
    write(tmp_path, [True, False], main=loop(GOOD, last="print('and so on')"))
    done = backtest(tmp_path, "score", *PROGRAM)
    assert done.told == {"invalid": "it went on after the last answer"}


@walled
def test_chance_is_fine_with_the_seed_or_when_it_is_walked_once(tmp_path: Path) -> None:
    seeded = "import random; chance = random.Random(os.environ['SWARM_SEED'])"
    write(
        tmp_path,
        [True, False] * 4,
        main=loop("say(turn=q['turn'], p=chance.random())", head=seeded),
    )
    one, two, three = (
        measured(tmp_path, *PROGRAM, SWARM_SEED=seed).metrics["log_loss"] for seed in "112"
    )
    assert one == two != three
    write(tmp_path, [True, False] * 4, main=loop(*BREACHES["chance"][0]))
    assert measured(tmp_path, "--once", *PROGRAM).metrics["events"] == 8


@walled
def test_what_fails_is_shown_in_the_rehearsal_only(tmp_path: Path) -> None:
    write(tmp_path, [True, False] * 4, guess="def predict(event, history): return 1 / len(history)")
    done = backtest(tmp_path, "score", *FUNCTION)
    assert (done.status, done.told) == (1, {})
    assert "it ended before its last answer; how, where, and what it printed is not" in done.stderr
    assert "ZeroDivisionError" not in done.stderr
    done = backtest(tmp_path, "rehearse", *FUNCTION)
    assert (done.status, done.told) == (1, {})
    assert "it ended before its last answer: event 1, with status 1\nIt printed: " in done.stderr
    assert "ZeroDivisionError" in done.stderr
    write(tmp_path, [True, False] * 4, guess="def predict(event, history): return 2")
    done = backtest(tmp_path, "rehearse", *FUNCTION)
    assert (done.status, done.told) == (0, {})
    assert "`score` will call this invalid: an answer has a probability" in done.stdout
    write(tmp_path, [True, False] * 4, guess="def predict(event, history): return 0.5")
    assert "log_loss 0.6931" in backtest(tmp_path, "rehearse", *FUNCTION).stdout


ENDS = ("os._exit(33)", "sys.exit('SECRET')", "os.kill(os.getpid(), 9)", "os.kill(os.getpid(), 40)")


@walled
def test_by_its_end_it_tells_nothing(tmp_path: Path) -> None:
    """It has seen outcomes: a status, a signal or the number of an event could say which."""
    said: set[str] = set()
    for number, end in enumerate(ENDS):
        main = loop(f"if q['event']['id'] == 'e{number}': {end}", GOOD)
        write(tmp_path, [True, False] * 3, main=main)
        done = backtest(tmp_path, "score", *PROGRAM)
        assert (done.status, done.told) == (1, {})
        said.add(done.stdout + done.stderr)
    assert len(said) == 1, said
    assert "SECRET" not in str(said)
    done = backtest(tmp_path, "rehearse", *PROGRAM)
    assert "ended before its last answer: event 4, by signal 40" in done.stderr


@walled
def test_how_far_it_is_walked_again_cannot_be_foreseen(tmp_path: Path) -> None:
    """All that a candidate has to go by is the seed; from the second event on it rolls dice."""
    answer = "say(turn=q['turn'], p=0.5 if q['event']['id'] == 'e0' else os.urandom(1)[0] / 255)"
    write(tmp_path, [True, False] * 50, main=loop(answer))
    told = [backtest(tmp_path, "score", *PROGRAM, SWARM_SEED="7").told for _ in range(3)]
    assert any("walked again" in each.get("invalid", "") for each in told)


@walled
def test_who_takes_too_long_or_cannot_be_run_has_no_answer(tmp_path: Path) -> None:
    write(tmp_path, [True, False], main="import time\nfor n in range(900): time.sleep(0.1)\n")
    started = time.monotonic()
    done = backtest(tmp_path, "score", "--timeout", "0.5", *PROGRAM)
    assert done.status == 1
    assert "took longer than 0.5 s for an answer (does it flush them?); how, where" in done.stderr
    assert time.monotonic() - started < 60
    for how in (("--files", "own"), ("--files", "own", "--open")):
        done = backtest(tmp_path, "rehearse", *how, "--", "no-such-program")
        assert done.status == 1
        assert "cannot run 'no-such-program'" in done.stderr


# --- files ------------------------------------------------------------------------------------

E1 = '{"id": "a", "at": "2024-01-01", "given": {}}'
E2 = '{"id": "b", "at": "2024-01-02", "given": {}}'
O1, O2 = '{"id": "a", "outcome": true}', '{"id": "b", "outcome": false}'


@pytest.mark.parametrize(
    ("events", "outcomes", "said"),
    [
        ("", "", "events.jsonl: there is no event in it"),
        (f"{E2}\n\n{E1}", f"{O1}\n{O2}", "events.jsonl:3: `a` is before the event of"),
        (f"{E1}\n{E1}", O1, "events.jsonl:2: the id 'a' is there already, in line 1"),
        (E1, f"{O1}\n{O1}", "outcomes.jsonl:2: the id 'a' is there already, in line 1"),
        (f"{E1}\n{E2}", O1, "events.jsonl:2: event `b` has no outcome in outcomes.jsonl"),
        (E1, f"{O1}\n{O2}", "outcomes.jsonl:2: there is no event `b` in events.jsonl"),
        (f"{E1}\n{E2}", f'{O1}\n{{"id": "b", "outcome": 1}}',
         "one outcome is a number and true or false; all must be of one kind"),
        (f"{E1}\n{E2}", f'{O1}\n{{"id": "b", "outcome": null}}', "outcomes.jsonl:2: `outcome`"),
        (E1, '{"id": "a", "outcome": NaN}', "outcomes.jsonl:1: `outcome` must be true or false"),
        (E1, '{"id": "a", "outcome": "x"}', "every outcome is 'x': nothing to foretell"),
        (E1, '{"id": "a", "outcome": true, "known_at": "2023-12-31"}', "before the event itself"),
        (E1.replace("2024-01-01", "1.1.2024"), O1, "events.jsonl:1: `at` must be as 2024-05-31 or"),
        (E1.replace("{}", "3"), O1, "events.jsonl:1: `given` must be an object"),
        (E1.replace("given", "facts"), O1, "events.jsonl:1: unknown key 'facts'"),
        ("{", O1, "events.jsonl:1: not JSON"),
        ("[]", O1, "events.jsonl:1: not a JSON object"),
        (E1, O1.replace("true", '"\\ud800"'), "outcomes.jsonl:1: half a character"),
        (E1.replace("{}", '{"x":' * 10**5 + "1" + "}" * 10**5), O1, "events.jsonl:1: too many"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file_is_said_with_its_line(
    tmp_path: Path, events: str, outcomes: str, said: str
) -> None:
    (tmp_path / "events.jsonl").write_text(events)
    (tmp_path / "outcomes.jsonl").write_text(outcomes)
    done = backtest(tmp_path, "check")
    assert done.status == 2
    assert said in done.stderr


def test_what_is_wrong_with_the_command_line_is_said(tmp_path: Path) -> None:
    write(tmp_path, [True, False], guess="")
    (tmp_path / "text.md").write_text(TEXT)
    for args, said in (
        (("score", "--files", "own"), "say what the candidate is"),
        (("score", *FUNCTION, "--", "true"), "say what the candidate is"),
        (("score", "--prompt", "p.md"), "name the model"),
        (("score", "--prompt", "p.md", "--model", "m"), "p.md cannot be read"),
        (("score", "--prompt", "text.md", "--model", "m"), "there is no model to ask; swarm sets"),
        (("check", "--from", "may"), "'may' is no date"),
        (("score", *FUNCTION, "--timeout", "0"), "no number of seconds above 0"),
        (("score", *FUNCTION, "--temperature", "nan"), "'nan' is neither none nor a number"),
        (("rehearse", *FUNCTION, "--cases"), "unrecognized arguments: --cases"),
    ):
        done = backtest(tmp_path, *args)
        assert (done.status, said in done.stderr) == (2, True), done.stderr
    write(tmp_path, [1, 2], guess="")
    done = backtest(tmp_path, "score", *FUNCTION, "--cases")
    assert (done.status, "--cases: a number is neither" in done.stderr) == (2, True), done.stderr


def test_a_result_that_cannot_be_written_and_labels_that_cannot_be_shown(tmp_path: Path) -> None:
    write(tmp_path, ["\u4e2d", "x"])
    assert "one of x, \\u4e2d" in backtest(tmp_path, "check", PYTHONIOENCODING="latin-1").stdout
    (tmp_path / "text.md").write_text("Guess!")
    words = ("score", "--prompt", "text.md", "--model", "m")
    done = backtest(tmp_path, *words, SWARM_RESULT="/nodir/x")
    assert (done.status, "SWARM_RESULT: /nodir/x cannot be written" in done.stderr) == (2, True)


# --- a text for a model -----------------------------------------------------------------------

NESTED = '{"p": ' + "[" * 10**5 + "]" * 10**5 + "}"
TEXT = "Past:\n{history}\nNow: {event}\nWhich of {labels}? Answer with JSON."


def asking(folder: Path, answer: Any, *args: str) -> tuple[Done, list[str]]:
    """Score a text with a scripted model; give also what the model was asked."""
    seen: list[str] = []

    def script(request: Json) -> Reply:
        seen.append(conversation(request))
        found = answer(seen[-1])
        return found if isinstance(found, Reply) else Reply.saying(found)

    (folder / "text.md").write_text(TEXT)
    with MessagesServer(script) as server:
        words = ("score", "--prompt", "text.md", "--model", "small", *args)
        done = backtest(folder, *words, SWARM_MODEL_URL=server.url, SWARM_MODEL_TOKEN="t")
    return done, seen


def test_a_model_is_asked_with_the_text_and_what_was_known(tmp_path: Path) -> None:
    write(tmp_path, ["x", "y", "y", "y"])
    done, seen = asking(tmp_path, lambda text: 'I think so.\n{"p": {"y": 0.8, "x": 0.2}}')
    assert done.status == 0, done.stderr
    assert done.metrics["log_loss"] == pytest.approx(-(3 * math.log(0.8) + math.log(0.2)) / 4)
    of = {text.split('Now: {"at": "2024-01-0')[1][0]: text for text in seen}
    assert sorted(of) == ["1", "2", "3", "4"]
    assert "(nothing is known yet)" in of["1"]
    assert (
        of["3"]
        .lstrip()
        .startswith(
            'Past:\n{"at": "2024-01-01", "n": 0, "outcome": "x"}\n'
            '{"at": "2024-01-02", "n": 1, "outcome": "y"}\nNow: '
        )
    )
    assert all('"outcome"' not in text.split("Now:")[1] for text in seen)
    assert "Which of x, y?" in of["4"]
    done, seen = asking(tmp_path, lambda text: "0.5", "--history", "1")
    assert max(text.count('"outcome"') for text in seen) == 1
    assert done.metrics["coverage"] == 0, "of labels, one number is no forecast"


def test_a_number_or_plain_labels_are_an_answer_and_all_else_is_silence(tmp_path: Path) -> None:
    write(tmp_path, [True, False, True, True])
    answers = {"01": "0.9", "02": '{"true": 0.1, "false": 0.9}', "03": f"It will rain. {NESTED}",
               "04": '{"p": 7} or rather {"p": 0.9}'}  # fmt: skip
    done, _ = asking(tmp_path, lambda text: answers[text.split("2024-01-")[-1][:2]])
    assert done.metrics["coverage"] == 0.75
    assert done.metrics["accuracy"] == 3.5 / 4, "of the third the base rate does not know"


def test_a_text_without_a_place_for_the_event_is_invalid_and_a_refusal_is_no_answer(
    tmp_path: Path,
) -> None:
    write(tmp_path, [True, False])
    done, _ = asking(tmp_path, lambda text: Reply(fault=Fault("status", 400)))
    assert (done.status, done.told) == (1, {})
    assert "refuses: 400" in done.stderr
    (tmp_path / "none.md").write_text("Guess!")
    done = backtest(tmp_path, "score", "--prompt", "none.md", "--model", "m")
    assert "has no {event}" in done.told["invalid"]
