"""`swarm golden`: what a person types becomes a golden set that the harness measures with."""

from __future__ import annotations

import io
import json
import os
import pty
import random
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_docs import TOP

from swarm.cli import main
from swarm.errors import PreconditionError, UsageError
from swarm.formats import golden
from swarm.formats.golden import Label, Query
from swarm.golden import searching
from swarm.golden.answers import UnclearError, answered
from swarm.golden.asking import is_held_out
from swarm.golden.book import Book
from swarm.golden.findings import LEAST, Score, figures, findings, score
from swarm.golden.searching import Result, pool
from swarm.signals import Stopped, signals_raise, signals_wait

SWARM = [sys.executable, "-m", "swarm"]
HARNESS = [sys.executable, str(TOP / "harness" / "retrieval" / "retrieval.py")]
DEADLINE_S = 120.0
DOCS = {
    "lamps": "How to return a lamp that does not shine",
    "hours": "Opening hours of all shops",
    "posting": "What it costs to post a lamp",
    "jobs": "We look for people who shine",
    "evil": "An \x1b[2Jescape, \x1b]0;title\x07 and a \u202elamp",
}
ASKED = ["return a lamp", "opening hours", "who can shine", "post", "nothing at all"]
SEARCH = f"""\
import json, sys
DOCS = {DOCS!r}
def found(query):
    words = query.lower().split()
    points = {{name: sum(w in text.lower().split() for w in words) for name, text in DOCS.items()}}
    best = sorted((n for n in points if points[n]), key=lambda n: -points[n])
    return [{{"id": n, "title": n.title(), "text": DOCS[n]}} for n in best]
if len(sys.argv) > 1:
    print(json.dumps(found(sys.argv[1])))
else:
    for line in sys.stdin:
        asked = json.loads(line)
        print("looking", flush=True)
        print(json.dumps({{"id": asked["id"], "results": found(asked["query"])}}))
"""
BATCH = f"{sys.executable} search.py"
EACH = f"{sys.executable} search.py {{query}}"


class Call(NamedTuple):
    """What came of a command line."""

    code: object
    out: str
    err: str

    @property
    def said(self) -> dict[str, Any]:
        return json.loads(self.out)


Caller = Callable[..., Call]


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """A directory with a search and queries."""
    (tmp_path / "search.py").write_text(SEARCH)
    asked = ["# asked last week", "  # by mail", *ASKED]
    (tmp_path / "queries.txt").write_text("\n".join(asked) + "\n")
    return tmp_path


@pytest.fixture
def call(top: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Caller:
    """Run `swarm golden` in this process, with answers on stdin."""

    def call(*words: str, answers: str = "") -> Call:
        with monkeypatch.context() as patch:
            patch.chdir(top)
            patch.setattr(sys, "stdin", io.StringIO(answers))
            with pytest.raises(SystemExit) as ended:
                main(["golden", *words])
        return Call(ended.value.code, *capsys.readouterr())

    return call


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(li) for li in path.read_text("utf-8").split("\n") if li.startswith("{")]


def harness(top: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*HARNESS, *words], cwd=top, capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )


# --- from queries to a set that measures --------------------------------------------------------


def test_what_is_graded_is_what_the_harness_measures(top: Path) -> None:
    """As a real process, from a text file to the metrics of `harness/retrieval`."""
    answers = "1\n1\nk shine\n2=3 1=1\nt costs to  post\na lamps=1\n1\nn\n"
    done = subprocess.run(
        [*SWARM, "golden", "queries.txt", "--search", BATCH, "--held-out", "0%", "--json"],
        cwd=top,
        input=answers,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["queries"], said["answerable"], said["unlabelled"]) == (5, 4, 0)
    found = lines(top / "golden.jsonl")
    assert [each["query"] for each in found] == ASKED
    assert [each["id"] for each in found] == ["q1", "q2", "q3", "q4", "q5"]
    assert found[0]["relevant"] == {"lamps": 3, "posting": 0, "evil": 0}
    assert found[2]["relevant"] == {"lamps": 3, "jobs": 1}
    assert found[2]["keywords"] == ["shine"]
    assert found[3]["relevant"] == {"posting": 3, "lamps": 1}
    assert found[3]["snippets"] == ["costs to  post"]
    assert found[4]["relevant"] == {"hours": 0}
    assert lines(top / "queries.jsonl") == [{"id": e["id"], "query": e["query"]} for e in found]
    assert harness(top, "check", "golden.jsonl", "queries.jsonl").returncode == 0
    measured = harness(top, "measure", "golden.jsonl", "--", sys.executable, "search.py")
    assert measured.returncode == 0, measured.stderr
    metrics = dict(re.findall(r"^METRIC (\w+)=(\S+)$", measured.stdout, re.M))
    (ours,) = said["searches"]
    assert float(metrics["mrr"]) == pytest.approx(ours["mrr"], abs=1e-5)
    assert float(metrics["hit_rate"]) == pytest.approx(ours["hit_rate"])
    assert float(metrics["snippets"]) == 1


def test_one_start_a_query_gives_the_same_set(top: Path, call: Caller) -> None:
    answers = "1\n1\n2=3 1=1\n1\nn\n"
    assert call("queries.txt", "--search", BATCH, answers=answers).code == 0
    assert call("queries.txt", "--search", EACH, "--out", "b.jsonl", answers=answers).code == 0
    assert (top / "golden.jsonl").read_bytes() == (top / "b.jsonl").read_bytes()


def test_json_lines_keep_their_ids(top: Path, call: Caller) -> None:
    (top / "mine.jsonl").write_text('{"id": "x", "query": "lamp"}\n{"query": "hours", "by": "Z"}\n')
    assert call("mine.jsonl", "--search", BATCH, answers="1\n1\n").code == 0
    assert [each["id"] for each in lines(top / "golden.jsonl")] == ["x", "q2"]


def test_talk_is_harmless_and_has_the_text(top: Path, call: Caller) -> None:
    done = call("queries.txt", "--search", BATCH, answers="q\n")
    assert "An escape, and a lamp" in done.err
    assert not re.search("[\x1b\x07\u202e]", done.err)
    assert done.out == "", "nothing was labelled, so there is nothing to tell"
    assert not (top / "queries.jsonl").exists()


# --- several searches ---------------------------------------------------------------------------


def test_a_pool_has_each_result_once_and_hides_the_order() -> None:
    ours = [Result(str(n), text="ours") for n in range(10)]
    theirs = [Result(str(n), "title") for n in range(9, 20)]
    pooled = pool(Query("x", "q1"), [ours, theirs])
    assert sorted(result.id for result in pooled) == sorted(str(n) for n in range(20))
    assert Result("9", "title", "ours") in pooled
    assert pooled == pool(Query("x", "q1"), [theirs, ours]), "no matter which search comes first"
    assert pooled != pool(Query("x", "q2"), [ours, theirs])
    assert pool(Query("x", "q1"), [ours]) == tuple(ours), "one search keeps its order"


def test_searches_are_pooled_and_measured_one_by_one(top: Path, call: Caller) -> None:
    (top / "lazy.sh").write_text('echo \'[{"id": 7, "text": "seven"}]\'\n')
    searches = ("--search", BATCH, "--search", "sh lazy.sh {query}")
    done = call("queries.txt", *searches, "--json", answers="a lost\nn\n" + "1=2\n" * 4)
    assert done.code == 0, done.err
    assert all("7" in each["relevant"] for each in lines(top / "golden.jsonl"))
    assert [each["command"] for each in done.said["searches"]] == [BATCH, "sh lazy.sh {query}"]
    assert done.said["searches"][1]["queries"] == 5


# --- interrupted --------------------------------------------------------------------------------


def wait_for(what: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not what():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)


def begin(top: Path, *words: str, **streams: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen([*SWARM, "golden", "queries.txt", *words], cwd=top, **streams)


def alive_in(group: int) -> bool:
    """Tell whether a process of a group still runs; one that only waits to be reaped does not."""
    members = [p for p in psutil.process_iter(["status"]) if _group(p.pid) == group]
    return any(p.info["status"] != psutil.STATUS_ZOMBIE for p in members)


def _group(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None


def labelled(top: Path) -> int:
    path = top / "golden.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
def test_each_answer_is_saved_before_the_next_question(
    top: Path, call: Caller, ending: signal.Signals
) -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    with begin(top, "--search", BATCH, **pipes) as process:
        assert process.stdin is not None
        for n in (1, 2):
            process.stdin.write(b"1\n")
            process.stdin.flush()
            wait_for(lambda n=n: labelled(top) == n)
        process.send_signal(ending)
        _, err = process.communicate(timeout=DEADLINE_S)
    if ending == signal.SIGINT:
        assert process.returncode == 130
        assert b"what was answered is in golden.jsonl" in err
    before = (top / "golden.jsonl").read_bytes()
    done = call("queries.txt", "--search", BATCH, answers="1\n1\nn\n")
    assert done.code == 0, done.err
    assert "3 of 5" in done.err
    assert "2 of 5" not in done.err
    assert (top / "golden.jsonl").read_bytes().startswith(before)
    assert [each["query"] for each in lines(top / "golden.jsonl")] == ASKED


WRITER = """\
import sys
from pathlib import Path
from swarm.formats.golden import Label
from swarm.golden.book import Book
book = Book(Path(sys.argv[1]))
for n in range(10**6):
    book.put(Label(f"q{n % 20}", "long " * 2000, {"doc": n % 4}))
"""


def test_a_kill_in_the_middle_of_a_write_leaves_a_whole_set(tmp_path: Path) -> None:
    path, chance = tmp_path / "golden.jsonl", random.Random(5)
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(path)]) as process:
            seen = path.stat().st_ino if path.exists() else 0
            wait_for(lambda seen=seen: path.exists() and path.stat().st_ino != seen)
            time.sleep(chance.uniform(0, 0.1))
            process.kill()
        book = Book(path)
        assert book.labels
        assert path.read_bytes().endswith(b"\n")


@pytest.mark.parametrize("last", ['{"id": "q9", "query": "x", "relevant": {"a": 3},}', "{"])
def test_a_mistake_in_the_last_line_is_said_and_the_line_stays(
    top: Path, call: Caller, last: str
) -> None:
    """It has no end yet, as an editor may leave it; swarm itself never leaves half a line."""
    text = f'# mine\n{{"id": "q1", "query": "return a lamp", "relevant": {{"lamps": 3}}}}\n{last}'
    (top / "golden.jsonl").write_text(text)
    done = call("queries.txt", "--search", BATCH, answers="1\n1\n1\nn\n")
    assert done.code == 2
    assert "golden.jsonl:3: not JSON" in done.err
    assert (top / "golden.jsonl").read_text() == text


@pytest.mark.parametrize(
    ("ending", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)]
)
def test_a_signal_ends_the_search_that_runs(top: Path, ending: signal.Signals, code: int) -> None:
    command = "echo $$ > pid; mv pid there; sleep 98765 & wait"
    with begin(
        top,
        *("--search", command),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(ending, signal.SIG_DFL),  # we may be under nohup
    ) as process:
        wait_for((top / "there").exists)
        process.send_signal(ending)
        _, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == code
    assert b"the same command goes on" in err
    group = int((top / "there").read_text())
    wait_for(lambda: not alive_in(group))


def held(ending: signal.Signals, reached: list[str]) -> None:
    with signals_raise(signal.SIGTERM), signals_wait():
        signal.raise_signal(ending)
        reached.append("the end")


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_waits_while_a_search_is_started(ending: signal.Signals) -> None:
    before, reached = signal.getsignal(ending), list[str]()
    with pytest.raises(Stopped if ending == signal.SIGTERM else KeyboardInterrupt):
        held(ending, reached)
    assert reached == ["the end"]
    assert signal.getsignal(ending) == before


def test_what_a_search_leaves_running_is_ended(top: Path, call: Caller) -> None:
    command = f"echo $$ > pid; sleep 98765 & {BATCH}"
    assert call("queries.txt", "--search", command, answers="q\n").code == 0
    group = int((top / "pid").read_text())
    wait_for(lambda: not alive_in(group))


def test_answers_that_end_early_are_no_loss(top: Path, call: Caller) -> None:
    done = call("queries.txt", "--search", BATCH, "--json", answers="1\n1\n")
    assert done.code == 3
    assert done.said["error"]["message"].startswith("the answers ended early: 2 of 5")
    assert len(lines(top / "golden.jsonl")) == 2
    assert call("queries.txt", "--search", BATCH, answers="1\n1\nn\n").code == 0
    assert len(lines(top / "golden.jsonl")) == 5


def test_an_answer_that_is_none_ends_a_script(top: Path, call: Caller) -> None:
    """What follows would be taken for answers to other queries."""
    done = call("queries.txt", "--search", BATCH, answers="1\n9\n1\n")
    assert done.code == 2
    assert "answer 2, to query `q2`: there is no result 9; there are 1" in done.err
    assert len(lines(top / "golden.jsonl")) == 1


def test_queries_may_be_put_in_between_later(top: Path, call: Caller) -> None:
    assert call("queries.txt", "--search", BATCH, answers="1\n1\ns\ns\ns\n").code == 0
    (top / "queries.txt").write_text("lamp\n" + "\n".join(ASKED) + "\n")
    done = call("queries.txt", "--search", BATCH, answers="1\n1\n1\nn\n")
    assert done.code == 0, done.err
    found = {each["id"]: each["query"] for each in lines(top / "golden.jsonl")}
    assert (found["q1"], found["q2"]) == ("return a lamp", "opening hours")
    assert sorted(found.values()) == sorted([*ASKED, "lamp"])


def test_nothing_is_asked_twice_unless_it_is_named(top: Path, call: Caller) -> None:
    words = ("queries.txt", "--search", BATCH, "--held-out", "100%")
    assert call(*words, answers="k lamp\n1\n" + "1\n" * 3 + "n\n").code == 0
    before = (top / "golden.jsonl").read_text().split("\n")
    again = call(*words, answers="")
    assert again.code == 0, "nothing is left to ask, so no answer is missing"
    assert "asking" not in again.err
    done = call("queries.txt", "--search", BATCH, "--again", "q1", answers="2=1\n")
    assert done.code == 0, done.err
    after = (top / "golden.jsonl").read_text().split("\n")
    assert after[1:] == before[1:]
    first = json.loads(after[0])
    assert first["relevant"] == {"posting": 1, "lamps": 0, "evil": 0}
    assert first["keywords"] == ["lamp"]
    assert first["held_out"] is True, "what is held out stays so"
    assert call(*words, "--again", "q9").code == 2


def test_a_set_that_somebody_else_changes_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "golden.jsonl"
    one, other = Book(path), Book(path)
    other.put(Label("q1", "a", {"x": 1}))
    with pytest.raises(PreconditionError, match="changed by somebody else"):
        one.put(Label("q2", "b", {}))
    assert [each["id"] for each in lines(path)] == ["q1"]


RIVAL = """\
import sys
from pathlib import Path
from swarm.errors import PreconditionError
from swarm.formats.golden import Label
from swarm.golden.book import Book
for n in range(60):
    while True:
        book = Book(Path(sys.argv[1]))
        try:
            book.put(Label(f"{sys.argv[2]}{n}", "x", {}))
            break
        except PreconditionError as error:
            assert "changed by somebody else" in str(error), error
"""


def test_two_at_once_lose_no_label(tmp_path: Path) -> None:
    """What is refused is said; what was saved is there."""
    path = tmp_path / "golden.jsonl"
    rivals = [
        subprocess.Popen([sys.executable, "-c", RIVAL, str(path), name], cwd=TOP) for name in "abc"
    ]
    assert [rival.wait(DEADLINE_S) for rival in rivals] == [0, 0, 0]
    ids = [each["id"] for each in lines(path)]
    assert sorted(ids) == sorted(f"{name}{n}" for name in "abc" for n in range(60))
    assert [each.name for each in tmp_path.iterdir()] == ["golden.jsonl"]


def test_a_full_disk_is_said_and_leaves_nothing(top: Path) -> None:
    """A limit on the size of files fails a write as a full disk does."""
    query = "long " * 1000
    (top / "queries.txt").write_text(f"{query}\n")
    command = [*SWARM, "golden", "queries.txt", "--search", "printf []; : {query}"]
    done = subprocess.run(
        command,
        cwd=top,
        input="n\n",
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
        # Or a module that is compiled here would be cut off, too, for all that import it later.
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)),
    )
    assert done.returncode == 3, done.stderr
    assert "cannot write `golden.jsonl`: File too large" in done.stderr
    assert "then run the same command again: it goes on" in done.stderr
    assert sorted(each.name for each in top.iterdir()) == ["queries.txt", "search.py"]


# --- a terminal ---------------------------------------------------------------------------------


def test_on_a_terminal(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers that are none, back, help, additions, colours, and Ctrl-D at the end."""
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "60")
    ours, theirs = pty.openpty()
    typed = "what\n1\nb\n?\n1 2=1\n\nk hours, open\n1\n\x04"
    with begin(
        top, "--search", BATCH, stdin=theirs, stdout=subprocess.PIPE, stderr=theirs
    ) as process:
        os.close(theirs)
        os.write(ours, typed.encode())
        seen = b""
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
            if not piece:
                break
            seen += piece
        out, _ = process.communicate(timeout=DEADLINE_S)
    os.close(ours)
    text = seen.decode()
    assert process.returncode == 3, text
    assert out == b"", "all of it is talk"
    assert "'what' is no answer" in text
    assert "n               none of those shown" in text
    assert "answered before" in text
    assert "grades end a query" in text, "Enter alone says nothing of a query that has no label"
    assert "about 0s left" not in text.split("2 of 5")[0]
    assert re.search("\x1b\\[[0-9;]*m(?i:lamp)\x1b\\[0m", text), "words of the query are marked"
    assert "\x1b[2J" not in text
    found = lines(top / "golden.jsonl")
    assert found[0]["relevant"]["posting"] == 1
    assert found[1]["keywords"] == ["hours", "open"]
    assert len(found) == 2


# --- searches that fail -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "what"),
    [
        ("no-such-program-anywhere", "exit status 127"),
        ("no-such-program-anywhere {query}", "exit status 127"),
        ("echo bad luck >&2; exit 5", "exit status 5: bad luck"),
        ("kill -9 $$", "signal 9"),
        ("echo hello", "no line of its output has results ('hello"),
        (
            'echo \'{"id": "zzz", "results": []}\'',
            "line 1 of its output answers `zzz`, which is no",
        ),
        (f'{BATCH}; echo \'{{"id": "q1", "results": []}}\'', "answers `q1`, a second time"),
        ('echo \'{"id": "q1", "results": {}}\'', "there is no list `results`"),
        ('echo \'{"id": "q1", "results": [{"text": "x"}]}\'', "every result needs an `id`"),
        ("sleep 60", "took longer than --timeout 1s"),
        ("yes", "printed more than 1 MiB"),
        ("yes >&2", "printed more than 1 MiB"),
    ],
)
def test_a_search_that_cannot_be_used_says_why(
    call: Caller, monkeypatch: pytest.MonkeyPatch, command: str, what: str
) -> None:
    monkeypatch.setattr(searching, "MOST_BYTES", 2**20)
    timeout = "1s" if "sleep" in command else "5m"
    done = call("queries.txt", "--search", command, "--timeout", timeout, answers="1\n")
    assert done.code == 3
    assert what in done.err
    assert "print a line for each query" in done.err


@pytest.mark.parametrize("within", ['"{query}"', "'{query}'", "`echo {query}`", "<<end\n{query}"])
def test_a_query_that_the_shell_would_read_is_refused(top: Path, call: Caller, within: str) -> None:
    """As the harness does, which has the same commands."""
    (top / "queries.txt").write_text("$(touch harmed) `touch harmed`\n")
    done = call("queries.txt", "--search", f"echo {within}", answers="n\n")
    assert done.code == 2
    assert "`{query}` stands in quotes" in done.err
    assert "write it without: ./search --json -- {query}" in done.err
    assert not (top / "harmed").exists()


@pytest.mark.parametrize(
    ("output", "grades"),
    [
        ('["lamp"]\n{"took_ms": 3}', {"lamp": 3}),
        ('[3]\n{"results": ["lamp"]}\n[]', {"lamp": 3}),
        ('["lamp"]\n[]', None),
    ],
)
def test_the_answer_is_the_line_that_has_results(
    top: Path, call: Caller, output: str, grades: dict[str, int] | None
) -> None:
    """As in the harness."""
    (top / "said.txt").write_text(output)
    (top / "queries.txt").write_text("lamp\n")
    done = call("queries.txt", "--search", "cat said.txt; : {query}", answers="1\n")
    if grades is None:
        assert "printed what cannot be read: 2 lines have results" in done.err
    else:
        assert done.code == 0, done.err
        assert lines(top / "golden.jsonl")[0]["relevant"] == grades


def test_a_search_that_fails_on_one_query_can_be_gone_past(top: Path, call: Caller) -> None:
    (top / "queries.txt").write_text("it's $HOME; lamp\nboom\nhours\n")
    command = f"test {{query}} != boom && {EACH}"
    done = call("queries.txt", "--search", command, answers="1\nn\n")
    assert done.code == 2
    assert "the search ended with exit status 1" in done.err
    assert "nobody knows whether there is none" in done.err
    done = call("queries.txt", "--search", command, "--json", answers="s\n1\n")
    assert done.code == 0, done.err
    ids = {f["kind"]: f["ids"] for f in done.said["findings"]}
    assert ids["unlabelled"] == ids["search_failed"] == ["q2"]
    assert lines(top / "golden.jsonl")[0]["query"] == "it's $HOME; lamp"
    assert [each["id"] for each in lines(top / "queries.jsonl")] == ["q1", "q3"]


# --- answers ------------------------------------------------------------------------------------

BLANK = Label("q1", "lamp", {})


@pytest.mark.parametrize(
    ("line", "relevant"),
    [
        ("1 3", {"a": 3, "c": 3, "b": 0}),
        ("1,3", {"a": 3, "c": 3, "b": 0}),
        ("2 = 1 , 1=2", {"a": 2, "b": 1, "c": 0}),
        ("1=0", {"a": 0, "b": 0, "c": 0}),
        (" n ", {"a": 0, "b": 0, "c": 0}),
    ],
)
def test_grades(line: str, relevant: dict[str, int]) -> None:
    answer = answered(line, BLANK, ["a", "b", "c"])
    assert answer.verb == "grade"
    assert answer.label.relevant == relevant
    assert list(answer.label.relevant.values()) == sorted(relevant.values(), reverse=True)


@pytest.mark.parametrize(
    "line", ["0", "4", "1 1", "1=4", "1=-1", "x", "n 1", "a", "1 n", "a b", "=1", "one", "q now"]
)
def test_what_is_no_answer_changes_nothing(line: str) -> None:
    with pytest.raises(UnclearError):
        answered(line, BLANK, ["a", "b", "c"])


def test_an_id_that_ends_like_a_grade_is_looked_up_as_it_is() -> None:
    with pytest.raises(UnclearError, match="`x=1` is result 2"):
        answered("a x=1", BLANK, ["a", "x=1"])
    assert answered("a y=1", BLANK, ["a", "x=1"]).label.relevant == {"y": 1}


@pytest.mark.parametrize("line", ["n", "1=0", "1=0 2=0"])
def test_none_is_no_answer_where_a_search_has_failed(line: str) -> None:
    """Nobody knows whether there is none, until one is known."""
    with pytest.raises(UnclearError, match="nobody knows"):
        answered(line, BLANK, ["a", "b"], failed=True)
    added = answered("a doc", BLANK, ["a", "b"], failed=True).label
    assert answered(line, added, ["a", "b"], failed=True).label.relevant["doc"] == 3
    assert answered("1=1", BLANK, ["a", "b"], failed=True).label.relevant == {"a": 1, "b": 0}


def test_what_is_said_back_is_short(top: Path, call: Caller) -> None:
    done = call("queries.txt", "--search", BATCH, answers="x" * 5000 + "\n")
    assert done.code == 2
    assert "is no answer" in done.err
    assert "x" * 250 not in done.err


def test_bytes_that_are_no_text_are_no_answer(top: Path) -> None:
    for locale in ("C", "C.UTF-8"):
        done = subprocess.run(
            [*SWARM, "golden", "queries.txt", "--search", BATCH],
            cwd=top,
            input=b"a \xff\n1\n",
            env={**os.environ, "LC_ALL": locale},
            capture_output=True,
            timeout=DEADLINE_S,
            check=False,
        )
        assert done.returncode == 2, done.stderr
        assert b"answer 1, to query `q1`: some bytes of it are no text" in done.stderr
    assert not (top / "golden.jsonl").exists()


def test_additions_stay_when_grades_follow() -> None:
    label = BLANK
    for line in ("a doc=1=2", "a far away", "k x,, y , x", "t some words", "n"):
        label = answered(line, label, ["a"]).label
    assert label.relevant == {"far away": 3, "doc=1": 2, "a": 0}
    assert label.keywords == ("x", "y")
    assert label.snippets == ("some words",)
    for line in ("k", "t", "a doc=1=0"):
        label = answered(line, label, ["a"]).label
    assert (label.keywords, label.snippets, label.relevant["doc=1"]) == ((), (), 0)


def test_what_is_held_out_depends_on_the_id_alone() -> None:
    held = [is_held_out(f"q{n}", 0.25) for n in range(2000)]
    assert 400 < sum(held) < 600
    assert not any(is_held_out(f"q{n}", 0) for n in range(50))
    assert all(is_held_out(f"q{n}", 1) for n in range(50))
    wider = [is_held_out(f"q{n}", 0.5) for n in range(2000)]
    assert all(wide for narrow, wide in zip(held, wider, strict=True) if narrow)


# --- what is found ------------------------------------------------------------------------------


def made(n: int, **changes: Any) -> list[Label]:
    """Give a set with which nothing is wrong, but that it may be small."""
    return [
        Label(f"q{i}", f"query {i}", {"a": 3, "b": 1, "c": 0}, held_out=i % 4 == 0)
        for i in range(n)
    ] + ([Label("x", "one more", {"a": 3}, **changes)] if changes else [])


def kinds(labels: list[Label], *scores: Score) -> set[str]:
    return {finding.kind for finding in findings(labels, (), scores, {})}


def test_a_good_set_has_no_findings() -> None:
    assert kinds(made(100), Score("s", 75, 60, 0.6)) == set()


@pytest.mark.parametrize(
    ("labels", "scores", "kind"),
    [
        ([Label("q1", "a", {"x": 0})], [], "nothing_counts"),
        ([Label("q1", "a", {"x": 3}, held_out=True)], [], "nothing_counts"),
        ([Label("q1", "a", {"x": 3})], [], "nothing_held_out"),
        ([*made(100), Label("z", "z", {"x": 0})], [], "unanswerable"),
        (made(40), [], "few_queries"),
        (made(100), [Score("s", 75, 75, 1.0)], "too_easy"),
        (made(100), [Score("s", 75, 72, 0.9)], "little_room"),
        ([*made(100), Label("z", " QUERY  7", {"x": 3})], [], "duplicates"),
        ([*made(100), Label("z", "z", {"x": 3, "y": 3})], [], "all_alike"),
        ([Label(f"q{n}", str(n), {"x": 3, "y": 3, "z": 0}) for n in range(100)], [], "one_grade"),
    ],
)
def test_what_is_wrong_with_a_set_is_found(
    labels: list[Label], scores: list[Score], kind: str
) -> None:
    assert kind in kinds(labels, *scores)


def test_the_smallest_difference_is_that_of_a_sign_test() -> None:
    assert 2 * 0.5**LEAST < 0.05 < 2 * 0.5 ** (LEAST - 1)
    assert figures(made(40)).detectable == LEAST / 30
    assert figures(made(4)).detectable is None
    (few,) = findings(made(40), (), (), {})
    assert "must answer 6 more of them and lose none, +0.20 in hit rate" in few.message


def test_a_score_leaves_out_what_was_not_asked() -> None:
    labels = [*made(3), Label("none", "x", {"a": 0})]
    seen = {"q0": ["c", "b"], "q1": ["c"], "none": ["a"]}
    assert score("s", labels, seen) == Score("s", queries=2, hits=1, mrr=0.25)
    assert score("s", labels, {}) is None


# --- files --------------------------------------------------------------------------------------

WRONG = [
    ("nonsense", "not JSON"),
    ("[]", "not a JSON object"),
    ('{"query": "a"}', "`id` must be a text"),
    ('{"id": "q1", "query": " "}', "`query` must be a text"),
    ('{"id": "q1", "query": "a", "relevance": {}}', "unknown key `relevance`"),
    ('{"id": "q1", "query": "a", "relevant": ["x"]}', "`relevant` must map ids to grades"),
    ('{"id": "q1", "query": "a", "relevant": {"x": 4}}', "the grade of `x` is 4"),
    ('{"id": "q1", "query": "a", "relevant": {"x": true}}', "the grade of `x` is true"),
    ('{"id": "q1", "query": "a", "keywords": "x"}', "`keywords` must be a list"),
    ('{"id": "q1", "query": "a", "snippets": [""]}', "`snippets` must be a list"),
    ('{"id": "q1", "query": "a", "held_out": 1}', "`held_out` must be"),
    ('{"id": "q0", "query": "a"}', "the id `q0` is there already, in line 2"),
    ('{"id": "q1", "query": "a", "relevant": {"z": 1, "z": 2}}', "not JSON: the key `z` is there"),
    ('{"id": "q1", "query": "a", "query": "b"}', "not JSON: the key `query` is there twice"),
    ('\ufeff{"id": "q1", "query": "a"}', "not JSON: Unexpected UTF-8 BOM"),
    ('  # {"id": "q1", "query": "a"}', "not JSON"),
]
RIGHT = ["", '{"id": "q1", "query": "b", "relevant": {"z": 0}, "held_out": true}', "#", " \t"]


def test_the_harness_refuses_the_same_lines_at_the_same_place(top: Path, call: Caller) -> None:
    whole = '# a comment\n{"id": "q0", "query": "a", "relevant": {"x": 3}, "note": ["any"]}\n\n'
    path = top / "set.jsonl"
    for line, what in WRONG:
        path.write_text(whole + line + "\n")
        done = call("--check", "set.jsonl")
        assert done.code == 2, line
        assert f"set.jsonl:4: {what}" in done.err
        theirs = harness(top, "check", "set.jsonl")
        assert theirs.returncode == 2, line
        assert "set.jsonl:4: " in theirs.stderr
    for mark in ("", "\ufeff"):
        path.write_text("\n".join([mark + whole, *RIGHT]))
        assert call("--check", "set.jsonl").code == 0
        assert harness(top, "check", "set.jsonl").returncode == 0


def test_all_mistakes_are_said_at_once() -> None:
    with pytest.raises(UsageError) as wrong:
        golden.labels("\n".join(line for line, _ in WRONG), "x.jsonl")
    assert wrong.value.line == 1
    assert wrong.value.message.count("x.jsonl:") == 10
    assert wrong.value.message.endswith("more")


def test_a_check_looks_at_all_and_changes_nothing(top: Path, call: Caller) -> None:
    path = top / "golden.jsonl"
    path.write_text('{"id": "q1", "query": "return a lamp", "relevant": {"lamps": 3}}\n')
    before = sorted(top.iterdir())
    done = call("--check", "golden.jsonl", "--search", BATCH, "--json")
    assert done.code == 0, done.err
    assert done.said["searches"][0]["mrr"] == 1
    assert {"too_easy", "few_queries"} <= {f["kind"] for f in done.said["findings"]}
    with_queries = call("queries.txt", "--check", "--out", "golden.jsonl")
    assert with_queries.code == 0
    assert "unlabelled: 4 queries not labelled: opening hours" in with_queries.out
    path.write_text('{"id": "q1", "query": "return a lamp", "relevant": {"lamps": 0}}\n')
    assert call("--check", "golden.jsonl").code == 2, "nothing can be measured with it"
    path.write_text("")
    assert call("--check", "golden.jsonl").code == 2
    assert "`swarm golden" in harness(top, "check", "golden.jsonl").stderr
    assert call("--check", "nowhere.jsonl").code == 2
    assert sorted(top.iterdir()) == before


@pytest.mark.parametrize("name", ["queries.txt", "plain.jsonl", "asked.jsonl", "unnamed.jsonl"])
def test_queries_that_are_taken_for_a_set_are_told_from_one(
    top: Path, call: Caller, name: str
) -> None:
    (top / "plain.jsonl").write_text("{braces} in a template\nlamp\n")
    (top / "asked.jsonl").write_text('{"id": "q1", "query": "lamp"}\n')
    (top / "unnamed.jsonl").write_text('# mine\n{"query": "lamp"}\n')
    done = call(name, "--check")
    assert done.code == 2
    assert "name the set: --out golden.jsonl" in done.err
    assert "not JSON" not in done.err


@pytest.mark.parametrize(
    ("files", "words", "what"),
    [
        ({}, ["queries.txt"], "which search"),
        ({"empty.txt": "# nothing\n"}, ["empty.txt", "--search", BATCH], "there is no query"),
        ({}, ["queries.txt", "--search", BATCH, "--held-out", "0.3"], "a percentage such as 5%"),
        ({}, ["queries.txt", "--search", BATCH, "--held-out", "120%"], "more than all"),
        ({}, ["queries.txt", "--search", BATCH, "--out", "no/golden.jsonl"], "no directory `no`"),
        ({}, ["queries.txt", "--search", BATCH, "--out", "queries.jsonl"], "without answers"),
        (
            {"queries.jsonl": '{"id": "q1", "query": "another list"}\n'},
            ["queries.txt", "--search", BATCH],
            "has others in it",
        ),
        (
            {"queries.jsonl": '{"query": "lamp"}\n'},
            ["queries.jsonl", "--search", BATCH],
            "give its lines ids",
        ),
        (
            {
                "other.jsonl": '{"id": "q1", "query": "lamp"}\n',
                "golden.jsonl": '\n{"id": "q1", "query": "opening hours"}\n',
            },
            ["other.jsonl", "--search", BATCH],
            "golden.jsonl:2: query `q1` is 'opening hours' there and 'lamp'",
        ),
        ({}, ["queries.txt", "--search", BATCH, "--out", "queries.txt"], "name the set: --out"),
        ({"x": "{a} b\nlamp\n"}, ["x", "--search", BATCH], "put another query first"),
        ({"x": '{"query": "b",}\n'}, ["x", "--search", BATCH], "x:1: not JSON"),
        ({"bad.txt": b"a\n\xff\n"}, ["bad.txt", "--search", BATCH], "bad.txt:2: this is not UTF-8"),
    ],
)
def test_what_cannot_be_is_refused_before_the_first_question(
    top: Path, call: Caller, files: dict[str, str | bytes], words: list[str], what: str
) -> None:
    for name, text in files.items():
        (top / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    done = call(*words, answers="1\n" * 9)
    assert done.code == 2
    assert what in done.err
    assert "1 of " not in done.err


def test_a_list_of_the_persons_own_is_left_as_it_is(top: Path, call: Caller) -> None:
    text = '{"id": "q1", "query": "lamp", "from": "mail"}\n{"id": "q2", "query": "hours"}\n'
    (top / "queries.jsonl").write_text(text)
    assert call("queries.jsonl", "--search", BATCH, answers="1\nq\n").code == 0
    assert (top / "queries.jsonl").read_text() == text


def test_a_list_that_grows_keeps_what_a_person_wrote(top: Path, call: Caller) -> None:
    text = '# from the mails\n{"id": "q1", "query": "return a lamp", "from": "mail"}'
    (top / "queries.jsonl").write_text(text)
    assert call("queries.txt", "--search", BATCH, answers="1\n1\nq\n").code == 0
    more = '{"id": "q2", "query": "opening hours"}'
    assert (top / "queries.jsonl").read_text() == f"{text}\n{more}\n"


texts = st.text(st.characters(exclude_characters="\0"), min_size=1).filter(str.strip)


@given(
    st.lists(
        st.builds(
            Label,
            id=texts,
            query=texts,
            relevant=st.dictionaries(st.text(), st.integers(0, 3), max_size=4),
            keywords=st.lists(texts, max_size=3).map(tuple),
            snippets=st.lists(texts, max_size=3).map(tuple),
            held_out=st.booleans(),
            note=st.none() | st.text() | st.lists(st.integers()),
        ),
        unique_by=lambda label: label.id,
        max_size=4,
    )
)
def test_a_label_is_read_as_it_was_written(written: list[Label]) -> None:
    text = "".join(label.write() + "\n" for label in written)
    read = golden.labels(text.encode().decode(), "x.jsonl")
    assert [each.write() for each in read] == [each.write() for each in written]


def test_queries_that_no_argument_can_hold_are_asked_all_the_same(top: Path, call: Caller) -> None:
    """Half a surrogate pair and NUL are legal JSON; a file can say them, a command line cannot."""
    odd = '{"id": "q\\ud800", "query": "lamp \\ud800"}\n{"id": "nul", "query": "hours\\u0000"}\n'
    (top / "odd.jsonl").write_text(odd)
    done = call("odd.jsonl", "--search", BATCH, "--search", EACH, answers="1\na hours\ns\n")
    assert done.code == 0, done.err
    assert done.err.count("the search could not be started") == 2
    assert harness(top, "check", "golden.jsonl").returncode == 0


def test_a_query_without_a_line_is_no_query_without_a_result(top: Path, call: Caller) -> None:
    done = call("queries.txt", "--search", f"head -1 | {BATCH}", answers="1\nn\n")
    assert done.code == 2
    assert "the search printed no line for it" in done.err
    assert "query `q2`: the search failed" in done.err


def test_ids_of_strangers_are_harmless_wherever_they_are_shown(top: Path, call: Caller) -> None:
    """In results, in what is known of a query, in between, and in what is wrong with an answer."""
    (top / "hostile.sh").write_text("""echo '["\\u001b[2Jid"]'\n""")
    answers = "1\nb\nk one, two\nt some words\na \x1b[2Jid\n"
    done = call("queries.txt", "--search", "sh hostile.sh {query}", answers=answers)
    assert done.code == 2
    assert "so far: id=3; keywords one, two; 1 passage. Now the grades" in done.err
    assert "`id` is result 1" in done.err
    assert "\x1b" not in done.err
    assert lines(top / "golden.jsonl")[0]["relevant"] == {"\x1b[2Jid": 3}
