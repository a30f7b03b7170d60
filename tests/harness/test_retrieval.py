"""The retrieval harness: real commands that search, hand-computed measures, files with mistakes."""

from __future__ import annotations

import importlib
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

import pytest
from targets import check_nobody_left

PROGRAM = Path(__file__).parents[2] / "harness" / "retrieval" / "retrieval.py"
GOLDEN: list[dict[str, Any]] = [
    {"id": "q1", "query": "red lamp", "relevant": {"a": 3, "b": 1, "c": 0},
     "keywords": ["lamp", "Red  light"], "snippets": ["a lamp that is red"]},
    {"id": "q2", "query": "green chair", "relevant": {"d": 2}},
    {"id": "q3", "query": "nothing has this", "relevant": {"a": 0}},
    {"id": "q4", "query": "later", "relevant": {"e": 1}, "held_out": True},
]  # fmt: skip
RESULTS: list[dict[str, Any]] = [
    {"id": "q1", "results": [
        {"id": "x", "title": "Lamps", "text": "red\nLIGHT"}, {"id": "x"}, {"id": "b"},
        {"id": "a", "text": "Here is\n a lamp  that is RED."}]},
    {"id": "q2", "results": ["x", "y", "d"]},
    {"id": "q3", "results": ["a"]},
    {"id": "q4", "results": ["e"]},
]  # fmt: skip
SEARCH = """
import json, sys
for line in sys.stdin:
    asked = json.loads(line)
    found = [{"id": "d" if "chair" in asked["query"] else "a", "text": "a\\u2028b"}]
    print(json.dumps({"id": asked["id"], "results": found}, ensure_ascii=False))
print("done")
"""


class Done(NamedTuple):
    """What came of a call."""

    status: int
    stdout: str
    stderr: str
    metrics: dict[str, float]
    feedback: str
    cases: dict[str, bool]


def retrieval(folder: Path, *args: str, **env: str) -> Done:
    """Run the harness in a directory, as swarm does."""
    result = folder.parent / f"{folder.name}.result.json"
    result.unlink(missing_ok=True)
    done = subprocess.run(
        [sys.executable, str(PROGRAM), *args],
        env={"PATH": os.environ["PATH"], "SWARM_RESULT": str(result), "LANG": "C.UTF-8"} | env,
        cwd=folder,
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=120,
    )
    empty: dict[str, Any] = {"metrics": {}, "feedback": ""}
    read = json.loads(result.read_text()) if result.exists() else empty
    cases = {case["id"]: case["pass"] for case in read.get("cases", [])}
    return Done(done.returncode, done.stdout, done.stderr, read["metrics"], read["feedback"], cases)


def lines(file: Path, rows: list[Any]) -> None:
    file.write_text("# a line that says nothing\n\n" + "".join(json.dumps(r) + "\n" for r in rows))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A golden set, its queries, results, and a search."""
    folder = tmp_path / "place"
    folder.mkdir()
    lines(folder / "golden.jsonl", GOLDEN)
    lines(folder / "queries.jsonl", [{"id": q["id"], "query": q["query"]} for q in GOLDEN])
    lines(folder / "results.jsonl", RESULTS)
    (folder / "search.py").write_text(SEARCH)
    return folder


# --- the measures -----------------------------------------------------------------------------


def test_measures_are_those_that_a_person_computes(place: Path) -> None:
    """q1: after `x`, which counts once, comes grade 1 at rank 2 and grade 3 at rank 3."""
    done = retrieval(place, "score", "golden.jsonl", "results.jsonl")
    assert done.status == 0, done.stderr
    # The gain of grade 3 is 7, of 2 is 3, of 1 is 1; rank r is divided by log2(r + 1).
    one = (1 / math.log2(3) + 7 / 2) / (7 + 1 / math.log2(3))
    two = (3 / 2) / 3
    assert done.metrics == {
        "hit_rate": 1.0,
        "mrr": pytest.approx((1 / 2 + 1 / 3) / 2),
        "ndcg": pytest.approx((one + two) / 2),
        "recall": 1.0,
        "keywords": 1.0,  # `lamp` in the text of `a`, `red light` over a line end in another case
        "snippets": 1.0,
        "combined": pytest.approx(0.4 + 0.3 * (5 / 12) + 0.3 * (one + two) / 2),
        "queries": 2,  # q3 has no answer and no keyword, q4 is held out
        "unanswered": 0,
    }


def test_only_the_first_k_results_count(place: Path) -> None:
    done = retrieval(place, "score", "golden.jsonl", "results.jsonl", "--k", "2")
    assert done.metrics["hit_rate"] == 0.5
    assert done.metrics["mrr"] == 0.25
    assert done.metrics["recall"] == 0.25, "one of two for q1, none for q2"
    ideal = 7 + 1 / math.log2(3)
    assert done.metrics["ndcg"] == pytest.approx(1 / math.log2(3) / ideal / 2)
    assert done.metrics["snippets"] == 0.0, "it is in the third result"


def test_a_query_without_an_answer_counts_as_0(place: Path) -> None:
    lines(place / "results.jsonl", RESULTS[1:2])
    done = retrieval(place, "score", "golden.jsonl", "results.jsonl")
    assert done.metrics["hit_rate"] == 0.5
    assert done.metrics["unanswered"] == 2
    assert done.metrics["keywords"] == 0.0


def test_weights_say_what_combined_is_made_of(place: Path) -> None:
    weights = ("--weights", "mrr=3,snippets=1")
    done = retrieval(place, "score", "golden.jsonl", "results.jsonl", *weights)
    assert done.metrics["combined"] == pytest.approx((3 * 5 / 12 + 1) / 4)
    lacking = ("--held-out", "--weights", "snippets=1")
    done = retrieval(place, "score", "golden.jsonl", "results.jsonl", *lacking)
    assert done.status == 2
    assert "has what `snippets` needs" in done.stderr


def test_what_is_held_out_is_measured_apart_and_told_to_nobody(place: Path) -> None:
    done = retrieval(place, "score", "golden.jsonl", "results.jsonl", "--held-out")
    assert (done.metrics["queries"], done.metrics["ndcg"]) == (1, 1.0)
    assert "later" not in done.feedback
    both = retrieval(place, "score", "golden.jsonl", "results.jsonl")
    assert "later" not in both.feedback


def test_cases_are_the_queries_that_hit(place: Path) -> None:
    done = retrieval(place, "score", "golden.jsonl", "results.jsonl", "--cases", "--k", "2")
    assert done.cases == {"q1": True, "q2": False}


def test_feedback_names_the_worst_queries_and_answers_only_if_told_to(place: Path) -> None:
    asked = ("score", "golden.jsonl", "results.jsonl")
    said = retrieval(place, *asked).feedback.splitlines()
    assert said[1:] == [
        "q2 'green chair': first relevant result at 3 in 3",
        "q1 'red lamp': first relevant result at 2 in 3",
    ]
    told = retrieval(place, *asked, "--tell").feedback.splitlines()
    assert told[2].endswith("best: a, b"), "best first, and not `c`, which is not relevant"


def test_texts_that_are_known_count_and_not_what_the_search_prints(place: Path) -> None:
    """The search says of `x` what q1 wants to read; only `a` really holds a part of it."""
    documents = [
        {"id": "a", "title": "A lamp", "text": "that is  Red."},
        {"id": "b", "text": "chairs"},
        {"id": 7, "text": ""},
    ]
    lines(place / "texts.jsonl", documents)
    asked = ("score", "golden.jsonl", "results.jsonl", "--texts", "texts.jsonl")
    done = retrieval(place, *asked)
    assert done.status == 0, done.stderr
    assert (done.metrics["keywords"], done.metrics["snippets"]) == (0.5, 1.0)
    trusting = retrieval(place, *asked[:3])
    assert trusting.metrics["keywords"] == 1.0
    lines(place / "texts.jsonl", [*documents, {"id": "c"}])
    done = retrieval(place, *asked)
    assert done.status == 2
    assert "texts.jsonl:6: `title` or `text` must be a text" in done.stderr


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ("ndcg=.5,ndcg=.1", "ndcg is there twice"),
        ("ndcg=1e308,mrr=1e308", "their sum must be above 0"),
        ("ndcg=0", "their sum must be above 0"),
        ("ndgc=1", "'ndgc=1' is no weight"),
    ],
)
def test_weights_that_make_no_mean_are_refused(place: Path, weights: str, said: str) -> None:
    done = retrieval(place, "score", "golden.jsonl", "results.jsonl", "--weights", weights)
    assert done.status == 2
    assert said in done.stderr


@pytest.mark.parametrize("seconds", ["1" + "0" * 400, "1e308", "-1", '"1"', "NaN"])
def test_a_time_that_is_none_is_no_time(place: Path, seconds: str) -> None:
    line = f'{{"id": "q1", "results": ["a"], "seconds": {seconds}}}'
    (place / "results.jsonl").write_text(line + "\n")
    done = retrieval(place, "score", "golden.jsonl", "results.jsonl")
    assert done.status == 0, done.stderr
    assert "latency_ms" not in done.metrics


def test_two_results_are_compared_query_by_query(place: Path) -> None:
    rows = [{"id": f"q{n}", "query": f"query {n}", "relevant": {"a": 1}} for n in range(40)]
    lines(place / "golden.jsonl", rows)
    before = [{"id": row["id"], "results": ["x", "a"]} for row in rows]
    after = [{"id": row["id"], "results": ["a"]} for row in rows[:30]] + before[30:39]
    lines(place / "before.jsonl", before)
    lines(place / "after.jsonl", after)
    asked = ("compare", "golden.jsonl", "before.jsonl", "after.jsonl", "--metric", "mrr")
    done = retrieval(place, *asked)
    assert "mrr: 0.5000 -> 0.8625, +0.3625" in done.stdout
    assert "better for 30 of 40 queries, worse for 1" in done.stdout
    low, high = (float(word) for word in done.stdout.split("queries: ")[1].split(" to "))
    # The standard error is 0.037 here, of 30 gains of 0.5, one loss of it and nine of nothing.
    assert 0.25 < low < 0.33
    assert 0.40 < high < 0.48
    same = retrieval(place, "compare", "golden.jsonl", "before.jsonl", "before.jsonl")
    assert "95 % interval over queries: +0.0000 to +0.0000" in same.stdout
    lines(place / "golden.jsonl", rows[:1])
    assert "interval over queries: none, as one query" in retrieval(place, *asked).stdout


# --- asking -----------------------------------------------------------------------------------


def test_a_search_reads_all_queries_and_what_it_says_besides_is_passed_over(place: Path) -> None:
    done = retrieval(place, "ask", "queries.jsonl", "--", sys.executable, "search.py")
    assert done.status == 0, done.stderr
    rows = [json.loads(line) for line in (place / "results.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == ["q1", "q2", "q3", "q4"]
    # A line separator within a text is no end of a line of JSON.
    assert rows[1]["results"] == [{"id": "d", "text": "a\u2028b"}]
    scored = retrieval(place, "score", "golden.jsonl", "results.jsonl")
    assert scored.metrics["mrr"] == 1.0
    assert scored.metrics["latency_ms"] > 0


def test_measuring_in_one_stage_is_asking_and_scoring(place: Path) -> None:
    done = retrieval(place, "measure", "golden.jsonl", "--", sys.executable, "search.py")
    assert done.status == 0, done.stderr
    assert done.metrics["mrr"] == 1.0
    assert done.metrics["queries"] == 2


def test_a_search_may_be_started_once_a_query(place: Path) -> None:
    code = "import json, sys; print(json.dumps([{'id': 'd' if 'chair' in sys.argv[1] else 'a'}]))"
    whole = f'{sys.executable} -c "{code}" {{query}}'
    for command in ([sys.executable, "-c", code, "{query}"], [whole]):
        done = retrieval(place, "measure", "golden.jsonl", "--", *command)
        assert done.status == 0, done.stderr
        assert done.metrics["mrr"] == 1.0


HARM = [{"id": "q1", "query": "$(touch harmed) `touch harmed` '; touch harmed #"}]


@pytest.mark.parametrize(
    "command",
    [
        ("echo '[]'; : # it's not here\n: ${X#x} {query}",),
        ("printf '%s\n' '[]'; : {query}",),
        ("sh", "-c", "echo '[]'; : \"$1\"", "sh", "{query}"),
    ],
)
def test_a_query_is_never_read_by_the_shell(place: Path, command: tuple[str, ...]) -> None:
    lines(place / "queries.jsonl", HARM)
    done = retrieval(place, "ask", "queries.jsonl", "--", *command)
    assert done.status == 0, done.stderr
    assert not (place / "harmed").exists()


@pytest.mark.parametrize(
    "command",
    [
        ('echo "{query}" >&2; echo []',),
        ("echo '{query}' >&2; echo []",),
        ("sh -c 'echo {query} >&2'; echo []",),
        ("echo `echo {query}` >&2; echo []",),
        ("cat >&2 <<end\n{query}\nend\necho []",),
        ('echo []; : "{query}',),
        ("echo [] # {query}",),
        ("sh", "-c", "echo [] # {query}"),
        ("bash", "-lc", "echo [] # {query}"),
        (sys.executable, "-c", "print('[]') # {query}"),
    ],
)
def test_a_query_that_would_be_read_as_code_is_refused(
    place: Path, command: tuple[str, ...]
) -> None:
    lines(place / "queries.jsonl", HARM)
    done = retrieval(place, "ask", "queries.jsonl", "--", *command)
    assert done.status == 2
    assert "`{query}` stands " in done.stderr
    assert not (place / "harmed").exists()


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ('["d"]\n2', "d"),
        ('["d"]\n{"took_ms": 3}', "d"),
        ('[3, 4]\n{"results": ["d"]}\n[]', "d"),
        ('{\n "results": [\n  "d"\n ]\n}', "d"),
        ('["d"]\n[]', "2 lines of the output have results"),
        ('{"took_ms": 3}', "no line of the output has results"),
        ("nothing", "no line of the output has results ('nothing"),
    ],
)
def test_the_answer_is_the_line_that_has_results(place: Path, output: str, said: str) -> None:
    (place / "said.txt").write_text(output)
    lines(place / "queries.jsonl", [{"id": "q2", "query": "green chair"}])
    done = retrieval(place, "ask", "queries.jsonl", "--", "cat said.txt; : {query}")
    if said == "d":
        assert done.status == 0, done.stderr
        row = json.loads((place / "results.jsonl").read_text())
        assert [result["id"] for result in row["results"]] == ["d"]
    else:
        assert done.status == 1
        assert f"query 'q2': {said}" in done.stderr


def test_what_was_cut_is_not_judged_as_if_it_were_whole(place: Path) -> None:
    row = json.dumps({"id": "q2", "results": [f"x{n}" for n in range(119)] + ["d"]})
    (place / "search.py").write_text(f"print({row!r})")
    command = ("--", sys.executable, "search.py")
    asked = ("score", "golden.jsonl", "results.jsonl")
    assert retrieval(place, "ask", "queries.jsonl", *command).status == 0
    assert retrieval(place, *asked, "--k", "100").metrics["hit_rate"] == 0.0
    shallow = retrieval(place, *asked, "--k", "120")
    assert shallow.status == 1
    assert "only 100 results were kept for query 'q2', and --k is 120; ask again" in shallow.stderr
    assert retrieval(place, "ask", "queries.jsonl", "--k", "120", *command).status == 0
    assert retrieval(place, *asked, "--k", "200").metrics["hit_rate"] == 0.5, "there is no more"


@pytest.mark.parametrize("wait", ["nan", "-1", "0", "inf", "soon"])
def test_a_time_limit_that_never_comes_is_refused(place: Path, wait: str) -> None:
    done = retrieval(place, "ask", "queries.jsonl", f"--timeout={wait}", "--", "sleep", "30")
    assert done.status == 2
    assert "is no number of seconds above 0" in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody tells the end")
def test_nobody_sleeps_while_a_command_that_is_clocked_comes_to_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A pause between two looks would be clocked with a short command."""
    monkeypatch.syspath_prepend(str(PROGRAM.parents[1] / "checklist"))
    processes = importlib.import_module("processes")
    given: dict[str, Any] = {"cwd": Path("/"), "env": dict(os.environ), "stdin": b""}
    calls: list[object] = []
    sys.setprofile(lambda _, event, called: calls.append(called) if event == "c_call" else None)
    try:
        ended = processes.run("sleep 0.3; exit 3", **given, timeout_s=100.0, cancel=Event())
        late = processes.run("sleep 60", **given, timeout_s=0.2, cancel=Event())
    finally:
        sys.setprofile(None)
    assert (ended.status, ended.problem) == (3, "exit 3")
    assert ended.seconds > 0.25
    assert late.problem == "took longer than 0.2 s"
    assert os.pidfd_open in calls, "the profile has seen what was called"
    assert time.sleep not in calls


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise SystemExit(3)", "exit 3"),
        ("print('hello')", "no line of the output has results ('hello"),
        ("print('[' * 100000)", "no line of the output has results"),
        ('print(\'{"id": "q9", "results": []}\')', "answers 'q9', which is no query"),
        ('print(\'{"id": "q1", "results": []}\\n\' * 2)', "answers 'q1' a second time"),
        ('print(\'{"id": "q1", "results": {}}\')', "`results` must be a list"),
        ('print(\'{"id": "q1", "results": [{"text": "x"}]}\')', "every result needs an `id`"),
        ("import time; time.sleep(60)", "took longer than 1 s"),
    ],
)
def test_a_search_that_fails_is_no_answer(place: Path, code: str, said: str) -> None:
    (place / "search.py").write_text(code)
    wait = ("--timeout", "1") if "sleep" in code else ()
    done = retrieval(place, "ask", "queries.jsonl", *wait, "--", sys.executable, "search.py")
    assert done.status == 1
    assert said in done.stderr


def test_nothing_that_a_search_started_is_left(place: Path) -> None:
    mark = f"left-by-{place.parent.name}"
    sleep = f"[sys.executable, '-c', 'import time; time.sleep(300)', {mark!r}]"
    code = f"import subprocess, sys; subprocess.Popen({sleep})"
    (place / "search.py").write_text(code + SEARCH)
    done = retrieval(place, "ask", "queries.jsonl", "--", sys.executable, "search.py")
    assert done.status == 0, done.stderr
    check_nobody_left(mark)


# --- files ------------------------------------------------------------------------------------


def test_queries_are_printed_without_what_is_known_of_them(place: Path) -> None:
    done = retrieval(place, "queries", "golden.jsonl")
    (place / "queries.jsonl").write_text(done.stdout)
    assert json.loads(done.stdout.splitlines()[0]) == {"id": "q1", "query": "red lamp"}
    checked = retrieval(place, "check", "golden.jsonl", "queries.jsonl")
    assert checked.stdout == "4 queries, 1 of them held out, 3 with a relevant result\n"
    (place / "queries.jsonl").write_text('{"id": "q1", "query": "blue lamp"}\n')
    wrong = retrieval(place, "check", "golden.jsonl", "queries.jsonl")
    assert wrong.status == 2
    assert "query 'q1' is another one in golden.jsonl" in wrong.stderr


ODD = [{"id": "q1", "query": "caf\u00e9 \u2603 \ud800", "relevant": {"a": 3}, "keywords": ["x"]}]


@pytest.mark.parametrize("encoding", ["ascii", "iso-8859-1", "utf-8"])
def test_queries_are_in_utf_8_wherever_they_are_printed(place: Path, encoding: str) -> None:
    lines(place / "golden.jsonl", ODD)
    done = retrieval(place, "queries", "golden.jsonl", PYTHONIOENCODING=encoding)
    assert done.status == 0, done.stderr
    assert "caf\u00e9 \u2603" in done.stdout
    (place / "queries.jsonl").write_text(done.stdout, encoding="utf-8")
    assert retrieval(place, "check", "golden.jsonl", "queries.jsonl").status == 0
    asked = ("score", "golden.jsonl", "results.jsonl")
    scored = retrieval(place, *asked, PYTHONIOENCODING=encoding)
    assert scored.status == 0, scored.stderr
    assert scored.metrics["mrr"] == pytest.approx(1 / 3)


def test_a_result_that_cannot_be_written_is_one_line(place: Path) -> None:
    asked = ("score", "golden.jsonl", "results.jsonl")
    done = retrieval(place, *asked, SWARM_RESULT=str(place / "none" / "result"))
    assert done.status == 2
    assert "none/result cannot be written: No such file" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_key_that_is_there_twice_is_a_mistake(place: Path) -> None:
    row = '{"id": "q1", "query": "x", "relevant": {"a": 3, "a": 0}}\n'
    (place / "golden.jsonl").write_text(row)
    done = retrieval(place, "score", "golden.jsonl", "results.jsonl")
    assert done.status == 2
    assert "golden.jsonl:1: not JSON: the key 'a' is there twice" in done.stderr


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"id": "q1", "query": "twice", "relevant": {"a": 1}}, "'q1' is there already, in line 3"),
        ({"id": "q9", "query": " ", "relevant": {}}, "`query` must be a text"),
        ({"id": "q9", "query": "x", "relevant": {"a": 4}}, "the grade of 'a' is 4"),
        ({"id": "q9", "query": "x", "relevant": {"a": True}}, "the grade of 'a' is True"),
        ({"id": "q9", "query": "x", "relevant": ["a"]}, "must map ids to grades"),
        ({"id": "q9", "query": "x", "relevnt": {}}, "unknown key 'relevnt'; there are"),
        ({"id": "q9", "query": "x", "relevant": {}, "keywords": "a"}, "must be a list of texts"),
        ({"id": "q9", "query": "x", "relevant": {}, "keywords": ["  "]}, "that are not empty"),
        ({"id": "q9", "query": "x", "relevant": {}, "held_out": 1}, "must be true or false"),
        (["q9"], "not a JSON object"),
    ],
)
def test_a_mistake_in_a_golden_set_has_its_line(place: Path, row: Any, said: str) -> None:
    with (place / "golden.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    done = retrieval(place, "score", "golden.jsonl", "results.jsonl")
    assert done.status == 2
    assert "golden.jsonl:7: " in done.stderr
    assert said in done.stderr


def test_results_that_cannot_be_read_are_the_fault_of_the_search(place: Path) -> None:
    for text, said in (("{", "results.jsonl:1: not JSON"), (None, "cannot be read: No such file")):
        (place / "results.jsonl").unlink()
        if text is not None:
            (place / "results.jsonl").write_text(text)
        done = retrieval(place, "score", "golden.jsonl", "results.jsonl")
        assert (done.status, done.metrics) == (1, {})
        assert said in done.stderr


# --- lists ------------------------------------------------------------------------------------

BOOKS = [
    {"id": "b1", "tags": ["crime", "dark"]},
    {"id": "b2", "tags": ["crime", "dark"]},
    {"id": "b3", "tags": ["crime", "funny"]},
    {"id": "b4", "tags": ["travel"]},
]


LISTS = ("lists", "items.jsonl", "results.jsonl", "--queries", "queries.jsonl")


def shelves(place: Path, items: list[Any], shown: dict[str, list[str]]) -> None:
    """Lay out items, and lists of them for `r1` and `r2`."""
    lines(place / "items.jsonl", items)
    lines(place / "queries.jsonl", [{"id": name, "query": "what"} for name in ("r1", "r2")])
    rows = [{"id": name, "results": results} for name, results in shown.items()]
    lines(place / "results.jsonl", rows)


def test_how_varied_a_list_is(place: Path) -> None:
    """Distances: b1-b2 0, b1-b3 and b2-b3 2/3, all others 1."""
    shelves(place, BOOKS, {"r1": ["b1", "b2", "b3"], "r2": ["b1", "b4"]})
    done = retrieval(place, *LISTS)
    assert done.status == 0, done.stderr
    # The tags of r1 are crime 3, dark 2, funny 1; of r2 each of three once.
    simpson = [1 - (9 + 4 + 1) / 36, 1 - 3 / 9]
    assert done.metrics == {
        "lists": 2,
        "unanswered": 0,
        "diversity": pytest.approx((4 / 9 + 1) / 2, abs=1e-6),
        "density": pytest.approx((1 / 3 + 0) / 2),
        "simpson": pytest.approx(sum(simpson) / 2),
        "coverage": 1.0,
    }


@pytest.mark.parametrize("second", [{}, {"r2": []}])
def test_a_list_that_is_missing_or_empty_counts_as_one_without_variety(
    place: Path, second: dict[str, list[str]]
) -> None:
    shelves(place, BOOKS, {"r1": ["b1", "b4"]} | second)
    done = retrieval(place, *LISTS)
    assert done.metrics == {
        "lists": 2,
        "unanswered": 0 if second else 1,
        "diversity": 0.5,
        "density": 0.5,
        "simpson": pytest.approx((1 - 3 / 9) / 2),
        "coverage": 0.5,
    }


def test_a_list_that_nobody_asked_for_is_refused(place: Path) -> None:
    shelves(place, BOOKS, {"r1": ["b1"], "r2": ["b2"], "r3\nMETRIC diversity=1": ["b1", "b4"]})
    done = retrieval(place, *LISTS)
    assert (done.status, done.stdout) == (1, "")
    assert "a list for 'r3\\nMETRIC diversity=1', which is no query" in done.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "one of the arguments --golden --queries is required"),
        (("--queries", "queries.jsonl", "--golden", "golden.jsonl"), "not allowed with"),
        (("--queries", "queries.jsonl", "--held-out"), "--held-out needs --golden"),
        (("--queries", "queries.jsonl", "--radius", "nan"), "'nan' is no distance above 0"),
    ],
)
def test_options_that_say_nothing_of_lists_are_refused(
    place: Path, options: tuple[str, ...], said: str
) -> None:
    shelves(place, BOOKS, {"r1": ["b1"]})
    done = retrieval(place, *LISTS[:3], *options)
    assert (done.status, done.metrics) == (2, {})
    assert said in done.stderr


def test_vectors_are_compared_by_their_angle(place: Path) -> None:
    vectors = [[1.0, 0.0], [2.0, 0.0], [0.0, 5.0], [-1.0, 0.0]]
    rows = [{"id": f"b{n}", "vector": vector} for n, vector in enumerate(vectors, 1)]
    shelves(place, rows, {"r1": ["b1", "b2", "b3"], "r2": ["b1", "b4"]})
    done = retrieval(place, *LISTS)
    assert done.metrics["diversity"] == pytest.approx((2 / 3 + 1) / 2)
    assert done.metrics["coverage"] == 1.0
    assert "simpson" not in done.metrics


@pytest.mark.parametrize("size", [1e200, 1e-200, 1e308, 5e-324])
def test_how_long_a_vector_is_says_nothing(place: Path, size: float) -> None:
    vectors = [[size, size], [size, 0.0], [1.0, 1.0]]
    rows = [{"id": f"b{n}", "vector": vector} for n, vector in enumerate(vectors, 1)]
    shelves(place, rows, {"r1": ["b1", "b2"], "r2": ["b1", "b3"]})
    done = retrieval(place, *LISTS)
    assert done.metrics["diversity"] == pytest.approx((1 - math.sqrt(0.5)) / 2)


def test_relevance_is_the_gain_of_the_lists(place: Path) -> None:
    lines(place / "items.jsonl", BOOKS)
    golden = [
        {"id": "r1", "query": "Ann", "relevant": {"b3": 3}},
        {"id": "r2", "query": "Bob", "relevant": {"b1": 1}},
    ]
    lines(place / "golden.jsonl", golden)
    lines(place / "results.jsonl", [{"id": "r1", "results": ["b1", "b2", "b3"]}])
    asked = ("lists", "items.jsonl", "results.jsonl", "--golden", "golden.jsonl")
    done = retrieval(place, *asked)
    assert done.metrics["lists"] == 2, "Bob's list is missing, and counts"
    assert done.metrics["relevance"] == pytest.approx(0.5 / 2)
    assert done.metrics["diversity"] == pytest.approx(4 / 9 / 2)
    assert done.metrics["density"] == pytest.approx((1 / 3 + 1) / 2), "an empty list has no variety"
    assert done.metrics["simpson"] == pytest.approx((1 - (9 + 4 + 1) / 36) / 2)
    golden = [{"id": "r1", "query": "Ann", "relevant": {}, "keywords": ["dark"]}]
    lines(place / "golden.jsonl", golden)
    done = retrieval(place, *asked)
    assert done.status == 2
    assert "there is no query with a relevant result to judge by" in done.stderr


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"id": "b9"}, "an item needs `tags` or a `vector`"),
        ({"id": "b9", "vector": [0, 0]}, "a `vector` of zeros has no direction"),
        ({"id": "b9", "vector": [1, 0]}, "or all need tags"),
        ({"id": "b9", "vector": [10**400, 0]}, "must be a list of numbers"),
        ({"id": "b1", "tags": ["x"]}, "the id 'b1' is there already"),
    ],
)
def test_a_mistake_in_items_has_its_line(place: Path, row: Any, said: str) -> None:
    lines(place / "items.jsonl", [*BOOKS, row])
    done = retrieval(place, *LISTS)
    assert done.status == 2
    assert "items.jsonl:7: " in done.stderr
    assert said in done.stderr


def test_what_is_no_item_is_the_fault_of_the_search(place: Path) -> None:
    shelves(place, BOOKS, {"r1": ["b1", "b7"]})
    done = retrieval(place, *LISTS)
    assert done.status == 1
    assert "list 'r1' has 'b7', which is no item" in done.stderr
