"""What a run has learned: in a few lines, as a page, as JSON, and for the run after it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from story import HOSTILE, Story, half_a_morning, long_night, morning
from suite_story import evening
from targets import make_config, make_repo

from swarm.config import RunConfig
from swarm.errors import ConfigError, PreconditionError
from swarm.launch import open_run
from swarm.ledger import Ledger, read
from swarm.lessons import CASES_KEPT, LEGACY, Digest, changes, digest, facts, legacy, render
from swarm.records import Attempt, Verdict, WarmStarted
from swarm.rundir import RunDir
from swarm.state import RunState


def attempt(
    number: int, summary: str, verdict: Verdict | None, gain: float | None = None, **more: object
) -> Attempt:
    told: dict[str, object] = {"number": number, "agent": "a1", "base": "c", "tree": "t"}
    said = {"summary": summary, "verdict": verdict, "gain": gain}
    return Attempt.model_validate({**told, **said, **more})


# --- in a few lines -----------------------------------------------------------------------------


def test_a_digest_says_what_helps_and_what_never_did() -> None:
    found = digest(
        [
            attempt(1, "warmup 100 -> 200", "keep", 0.02),
            attempt(2, "warmup 200 -> 400", "discard", -0.01),
            *(attempt(n, f"dropout rate 0.{n}", "discard", -0.1 * n) for n in (3, 4, 5)),
            attempt(6, "dropout rate 0.9", "crash"),
        ]
    )
    assert [t.line() for t in found.works] == ["warmup: 1 of 2 kept, best +0.02"]
    assert [t.line() for t in found.fails] == [
        "dropout rate: 0 of 4 kept, best -0.3, 1 did not run"
    ]


def test_a_digest_counts_an_earlier_run_and_no_repeats() -> None:
    mine = [attempt(1, "warmup longer", "discard", -1.0), attempt(2, "warmup too", "duplicate")]
    old = [attempt(1, "warmup shorter", "discard"), attempt(2, "no warmup", "timeout")]
    assert not digest(mine).fails
    assert digest(mine, old).fails[0].tries == 3


def test_a_digest_names_what_was_never_changed() -> None:
    diff = "--- a/train.py\n+++ b/train.py\n@@ -1 +1 @@\n-A = 1\n+A = 2\n"
    scope = ("train.py", "prompt.md", "conf/", "*.yaml", "!secret.py")
    found = digest([attempt(1, "A up", "discard", diff=diff)], scope=scope)
    assert found.untouched == ("prompt.md",)
    said = attempt(2, "TONE dry -> warm in prompt.md", "discard")
    assert digest([said], scope=scope).untouched == ("train.py",), "a summary tells it as well"
    assert digest([], scope=scope).untouched == (), "nothing is known before the first"


def test_a_digest_names_the_cases_that_break_often() -> None:
    broke = [attempt(n, f"idea {n}", "discard", broken=("c1", "c2")[: n % 2 + 1]) for n in range(6)]
    old = [attempt(n, "x", "discard", broken=("c9",)) for n in range(5)]
    assert digest(broke, old).brittle == (("c1", 6), ("c2", 3))


def test_what_a_change_did_to_cases_in_words() -> None:
    assert changes(("c3", "c9"), ("c7",)) == "fixed c3, c9; broke c7"
    assert changes((), tuple("abcdefg"), 2) == "broke a, b and 5 more"
    assert changes((), ()) == ""
    assert "\x1b" not in changes((HOSTILE,), ())


def test_nothing_tried_teaches_nothing() -> None:
    found = digest([])
    assert found == Digest((), (), ())


# --- for people ---------------------------------------------------------------------------------


def test_the_page_tells_all_experiments_once() -> None:
    page = render(morning().state, "main")
    for number in range(1, 13):
        assert len(re.findall(rf"\*\*#{number}\*\* ", page)) == 1
    sections = re.findall(r"^## (.+)$", page, re.M)
    assert sections == [
        "What worked",
        "Never settled",
        "What did not help",
        "What did not run, or broke a limit",
        "What repeated another",
        "What experiments have in common",
    ]
    assert "- **#10** HEADS 4 -&gt; 8 in train.py; gain +0.032; z +4.2; kept, conflict" in page
    assert "  - why: Because of experiment 9." in page


def test_a_run_that_has_tried_nothing_says_so() -> None:
    story = Story()
    assert "Nothing has been decided yet." in render(story.state, "main")
    assert facts(story.state, "main")["experiments"] == 0


def test_a_run_in_flight_can_be_read() -> None:
    found = facts(half_a_morning().state, "main")
    assert found["experiments"] == 3
    assert [r["number"] for r in found["worked"]] == [1]


def test_the_facts_are_json() -> None:
    found = json.loads(json.dumps(facts(long_night(80).state, "main")))
    sorts = ("worked", "unsettled", "failed", "broken", "repeats")
    assert sum(len(found[sort]) for sort in sorts) == found["experiments"] == 80
    gains = [r["gain"] for r in found["worked"]]
    assert gains == sorted(gains, reverse=True)
    losses = [r["gain"] for r in found["failed"]]
    assert losses == sorted(losses)


def test_each_case_with_a_history_is_told_once() -> None:
    story = evening()
    page = render(story.state, "main")
    assert "- **#1** Use a list; gain -0.16; z -2; fixed c10; broke c1, c2; discard" in page
    listed = page.split("## Cases of the suite\n\n")[1].split("\n\n")[0].splitlines()
    assert listed == [
        "- **c10**: passes 0 of 1 on best; fixed by #4, #1",
        "- **c5**: passes 0 of 1 on best; fixed by #3",
        *(f"- **c{n}**: passes 0 of 1 on best; never fixed" for n in (6, 7, 8, 9)),
        "- **c1**: passes 1 of 1 on best; broken by #4, #3, #1",
        "- **c2**: passes 1 of 1 on best; broken by #1",
        "- **c4**: passes 1 of 1 on best; fixed by #2",
    ]
    found = json.loads(json.dumps(facts(story.state, "main")))
    assert found["cases"][0] == {
        "id": "c1",
        "passes": 1,
        "runs": 1,
        "fixed": [],
        "broken": [1, 3, 4],
    }
    assert found["worked"][0]["fixed_cases"] == ["c4"]
    assert "## Cases of the suite" not in render(morning().state, "main")


def test_strangers_write_no_markup() -> None:
    story = half_a_morning()
    number = story.propose("a1", HOSTILE + "\n# A heading")
    story.decide(number, "invalid", HOSTILE)
    page, read = render(story.state, "main"), render(story.state, "main", escape=str)
    for text in (page, read):
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", text)
        assert "# A heading" not in text.splitlines()
    assert "<b>" not in page
    assert "http://evil" not in page


def plant(top: Path, story: Story, name: str) -> RunDir:
    """Write a story as a run of a repository."""
    rundir = RunDir(top / ".swarm" / "runs" / name)
    rundir.path.mkdir(parents=True)
    with Ledger(rundir.ledger) as ledger:
        ledger.append(story.events)
    return rundir


def swarm(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "swarm", *words],
        cwd=cwd,
        env={**os.environ, "PYTHONWARNINGS": "error"},
        capture_output=True,
        text=True,
    )


def test_the_command_prints_and_writes_the_page(tmp_path: Path) -> None:
    rundir, told = plant(tmp_path, morning(), "tiny-gpt"), morning()
    done = swarm("lessons", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert rundir.lessons.read_text() == render(told.state, "main")
    assert done.stdout == render(told.state, "main", escape=str)
    assert "**#10** HEADS 4 -> 8 in train.py;" in done.stdout, "nothing is escaped for a terminal"
    assert not re.search(r"&\w+;|\\_", done.stdout)
    found = json.loads(swarm("lessons", "tiny-gpt", "--json", cwd=tmp_path).stdout)
    assert found == json.loads(json.dumps(facts(told.state, "main")))


def test_an_empty_ledger_is_a_precondition(tmp_path: Path) -> None:
    rundir = RunDir(tmp_path / ".swarm" / "runs" / "void")
    rundir.path.mkdir(parents=True)
    rundir.ledger.touch()
    done = swarm("lessons", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (3, "")
    assert "has not begun" in done.stderr


# --- for the run after it -----------------------------------------------------------------------

CONFIG = """
target:
  repo: .
  scope: [parts/]
  run: python3 -S -E measure.py
  metric: {{name: {metric}, goal: {goal}}}
warm_start: {run}
"""


def warm(top: Path, run: str, metric: str = "val_bpb", goal: str = "minimize") -> RunConfig:
    return make_config(top, CONFIG.format(run=run, metric=metric, goal=goal))


@pytest.fixture
def top(tmp_path: Path) -> Path:
    return make_repo(tmp_path / "repo")


def told(config: RunConfig) -> RunState:
    return RunState(read(open_run(config).rundir.ledger))


def test_a_run_is_told_what_an_earlier_one_tried(top: Path) -> None:
    plant(top, morning(), "old")
    target = told(warm(top, "old")).targets["main"]
    assert {a.number for a in target.earlier} == {1, 2, 3, 4, 5, 6, 9, 10, 11, 12}
    assert [a.number for a in target.earlier[:4]] == [1, 5, 9, 10], "keeps come first"
    assert not target.attempts


def test_a_directory_is_as_good_as_a_name(top: Path, tmp_path: Path) -> None:
    plant(tmp_path / "elsewhere", morning(), "old")
    away = "../elsewhere/.swarm/runs/old"  # relative to the config file
    assert told(warm(top, away)).targets["main"].earlier
    absolute = str(tmp_path / away.removeprefix("../"))
    named = open_run(warm(top, absolute), name="another")
    assert RunState(read(named.rundir.ledger)).targets["main"].earlier


def test_what_was_handed_on_is_handed_on_again(top: Path) -> None:
    plant(top, morning(), "old")
    first = open_run(warm(top, "old"), name="second")
    assert len(told(warm(top, first.rundir.run)).targets["main"].earlier) == 10


def test_a_resume_does_not_read_it_again(top: Path) -> None:
    old = plant(top, morning(), "old")
    opened = open_run(warm(top, "old"))
    old.ledger.unlink()
    assert open_run(warm(top, "old")).resumed
    events = list(read(opened.rundir.ledger))
    assert sum(isinstance(e, WarmStarted) for e in events) == 1


def test_it_cannot_change_on_a_resume(top: Path) -> None:
    plant(top, morning(), "old")
    plant(top, morning(), "older")
    open_run(warm(top, "old"))
    with pytest.raises(ConfigError, match="`warm_start` differs"):
        open_run(warm(top, "older"))


@pytest.mark.parametrize(
    ("run", "changes", "said"),
    [
        ("none", {}, "there is no run `none`"),
        ("../nowhere", {}, "nor a run directory"),
        ("old", {"metric": "loss"}, "run `tiny-gpt` was to minimize val_bpb"),
        ("old", {"goal": "maximize"}, "run `tiny-gpt` was to minimize val_bpb"),
    ],
)
def test_a_run_that_does_not_help_is_refused(
    top: Path, run: str, changes: dict[str, str], said: str
) -> None:
    plant(top, morning(), "old")
    with pytest.raises(ConfigError, match=re.escape(said)) as caught:
        open_run(warm(top, run, **changes))
    assert caught.value.hint
    assert [p.name for p in (top / ".swarm" / "runs").iterdir()] == ["old"]


@pytest.mark.parametrize("content", ["", "not json\n", '{"v": 99}\n'])
def test_a_run_that_cannot_be_read_is_refused(top: Path, content: str) -> None:
    rundir = RunDir(top / ".swarm" / "runs" / "old")
    rundir.path.mkdir(parents=True)
    rundir.ledger.write_text(content)
    with pytest.raises(PreconditionError, match="that warm_start names") as caught:
        open_run(warm(top, "old"))
    assert "leave the key out" in (caught.value.hint or "")


def test_what_is_handed_on_is_bounded() -> None:
    story = long_night(700)
    found = legacy(story.state, "main")
    keeps = story.state.targets["main"].verdicts["keep"]
    assert len(found) == LEGACY
    assert [a.verdict for a in found[:keeps]] == ["keep"] * keeps
    assert len({a.number for a in found}) == LEGACY
    texts = {"diff": "d" * 8000, "rationale": "r" * 1000, "feedback": "f" * 2000}
    long = attempt(1, "x", "keep", 1.0, **texts, broken=[f"c{i}" for i in range(900)])
    story.target.earlier = (long,)
    trimmed = next(a for a in legacy(story.state, "main") if a.summary == "x")
    assert len(trimmed.diff) <= 2000
    assert len(trimmed.rationale + trimmed.feedback) <= 1000
    assert len(trimmed.broken) == CASES_KEPT
