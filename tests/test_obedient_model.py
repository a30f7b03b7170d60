"""The obedient model reads meanings, not texts: other words for the same have the same effect.

A bare client with tools of its own stands where the skill harness does.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from messages_server import MessagesServer, texts
from obedience import Skill
from obedient_coder import Habits, task_of
from obedient_model import answer, slipping
from obedient_writer import commit, copy

WORKSPACES = Path(__file__).parent.parent / "harness/skill/examples/coding/workspaces"
BRIEF = """Product: Lampwick, a folding reading lamp
For: people who read in a tent
Does: read all week on one charge
Facts: folds flat into a jacket; runs 40 hours on one charge"""
CHANGE = "Change: write rows in batches\nPurpose: one at a time took minutes\nFile: export.py"


# --- what a text demands --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "leaning"),
    [
        ("Give one concrete number.", 1),
        ("Each text should hold a figure from the brief.", 1),
        ("Avoid numbers.", -1),
        ("Do not use figures, statistics or digits.", -1),
        ("Never hand in a text without a number.", 1),
        ("No hype, but give figures.", 1),
        ("Avoid jargon, use figures.", 1),
        ("Avoid jargon, hype, figures.", -1),
        ("Be friendly. No headings.", 0),
    ],
)
def test_for_or_against_a_number(text: str, leaning: int) -> None:
    assert Skill(text).leaning("number figure statistic digit") == leaning


@pytest.mark.parametrize(
    ("text", "most", "least"),
    [
        ("Write at most 80 words.", 80, None),
        ("80 words or fewer, please; 60 words would be better.", 60, None),
        ("No more than 40 words.", 40, None),
        ("Write at least 120 words.", None, 120),
        ("Keep it between a rock and a hard place.", None, None),
    ],
)
def test_limits_in_figures(text: str, most: int | None, least: int | None) -> None:
    assert (Skill(text).most("words"), Skill(text).least("words")) == (most, least)


@pytest.mark.parametrize(
    ("text", "habit"),
    [
        ("Run the tests before you finish.", "runs_tests"),
        ("Never finish without running the test suite.", "runs_tests"),
        ("Do not ask questions; go on.", "goes_on"),
        ("Where something is open, make a reasonable assumption.", "goes_on"),
        ("Think of corner cases.", "minds_edges"),
        ("Cover the change by a new test.", "writes_tests"),
        ("First look at the code.", "explores"),
        ("Read the conventions in the notes.", "minds_rules"),
        ("Explain each step in detail.", "talks"),
    ],
)
def test_habits_of_a_programmer(text: str, habit: str) -> None:
    assert getattr(Habits.of(Skill(text)), habit)
    assert not getattr(Habits.of(Skill("Do what you are asked.")), habit)


def test_the_head_of_a_skill_demands_nothing() -> None:
    assert not Skill("---\ndescription: Give a number\n---\nWrite.").asks("number")


# --- the writer -----------------------------------------------------------------------------------


def written(skill: str, brief: str = BRIEF) -> str:
    return copy(Skill(skill), brief)


@pytest.mark.parametrize("skill", ["Give one number from the brief.", "Use a concrete statistic."])
def test_a_number_only_where_one_is_demanded(skill: str) -> None:
    assert "40 hours" in written(skill)
    assert not re.search(r"\d", written("Write nicely."))
    assert not re.search(r"\d", written("Write nicely. Avoid numbers."))


def test_a_limit_is_filled_and_kept() -> None:
    for limit in (25, 50, 75):
        assert limit - 16 < len(written(f"Write at most {limit} words.").split()) <= limit
    assert len(written("Write at least 300 words.").split()) > 280


def test_buzzwords_go_when_they_are_unwanted_in_any_words() -> None:
    assert "game-changing" in written("Write nicely.")
    for skill in (
        "No buzzwords.",
        "Stay away from hype and jargon.",
        "Use plain everyday language.",
    ):
        assert "game-changing" not in written(skill)


def test_the_opening_says_what_the_reader_gets() -> None:
    assert written("Lead with the benefit.").startswith("You read all week")
    assert not written("Write nicely.").startswith("You")


def test_a_rambling_skill_gives_rambling_copy() -> None:
    plain = "Write nicely about the product at hand. "
    assert len(written(plain * 60)) > len(written(plain)) + 500


def test_commit_messages() -> None:
    lazy, good = (commit(Skill(skill), CHANGE) for skill in ("Write a message.", IMPERATIVE))
    assert lazy.startswith("This commit updates")
    assert good == "Write rows in batches\n\nNeeded because one at a time took minutes."


IMPERATIVE = "Imperative, at most 50 characters, no full stop. The body says why."


# --- over the wire --------------------------------------------------------------------------------


class Worked(NamedTuple):
    """A conversation with tools, and what it left."""

    folder: Path
    answer: str
    calls: list[str]
    failures: int


def send(url: str, body: dict[str, Any]) -> dict[str, Any]:
    data = json.dumps({"model": "m", "max_tokens": 1000, **body}).encode()
    request = urllib.request.Request(f"{url}/v1/messages", data)
    with urllib.request.urlopen(request, timeout=20) as reply:
        return json.load(reply)


INPUTS = {
    "list_files": (),
    "read_file": ("path",),
    "write_file": ("path", "text"),
    "edit_file": ("path", "before", "after"),
    "run": ("command",),
}


def use(folder: Path, name: str, given: dict[str, str]) -> tuple[str, bool]:
    """Do what a tool does, the simplest way."""
    match name, list(given.values()):
        case "list_files", []:
            return "\n".join(p.name for p in folder.iterdir()), True
        case "read_file", [path]:
            return (folder / path).read_text(), True
        case "write_file", [path, text]:
            (folder / path).write_text(text)
        case "edit_file", [path, before, after]:
            text = (folder / path).read_text()
            if text.count(before) != 1:
                return f"the text is there {text.count(before)} times", False
            (folder / path).write_text(text.replace(before, after))
        case "run", [command]:
            argv = [sys.executable, *command.split()[1:]]
            done = subprocess.run(argv, cwd=folder, capture_output=True, text=True)
            return f"{done.stderr}exit {done.returncode}", True
        case _:
            raise AssertionError((name, given))
    return "done", True


def work(url: str, folder: Path, skill: str, request: str) -> Worked:
    tools = [
        {"name": name, "input_schema": {"properties": {field: {} for field in fields}}}
        for name, fields in INPUTS.items()
    ]
    messages: list[dict[str, Any]] = [{"role": "user", "content": request}]
    calls, failures = list[str](), 0
    for _ in range(20):
        reply = send(url, {"system": skill, "messages": messages, "tools": tools})
        messages.append({"role": "assistant", "content": reply["content"]})
        results = list[dict[str, Any]]()
        for block in reply["content"]:
            if block["type"] == "tool_use":
                said, good = use(folder, block["name"], block["input"])
                calls.append(block["name"])
                failures += not good
                result = {"type": "tool_result", "tool_use_id": block["id"], "content": said}
                results.append(result | ({} if good else {"is_error": True}))
        if not results:
            return Worked(folder, texts(reply["content"]), calls, failures)
        messages.append({"role": "user", "content": results})
    raise AssertionError("it does not end")


@pytest.fixture(scope="module")
def server():
    with MessagesServer(answer) as running:
        yield running.url


@pytest.fixture
def workspace(tmp_path: Path):
    def copied(name: str) -> Path:
        return Path(shutil.copytree(WORKSPACES / name, tmp_path / name))

    return copied


def passes(folder: Path, code: str) -> bool:
    argv = [sys.executable, "-B", "-c", code]
    return subprocess.run(argv, cwd=folder, capture_output=True).returncode == 0


LONGEST = "Add a function `longest(text)` to wordtool: the longest word, of several the first."
LOOK = "Open the file that it is about."


def test_an_edge_is_minded_only_if_the_skill_says_so(server: str, workspace: Any) -> None:
    careless = work(server, workspace("wordtool"), LOOK, LONGEST)
    assert passes(careless.folder, "import wordtool as w; assert w.longest('a bb') == 'bb'")
    assert not passes(careless.folder, "import wordtool as w; w.longest('')")
    shutil.rmtree(careless.folder)
    careful = work(server, workspace("wordtool"), f"{LOOK} Plan for edge cases.", LONGEST)
    assert passes(careful.folder, "import wordtool as w; assert w.longest('') == ''")


def test_a_slip_is_found_by_running_the_tests(server: str, workspace: Any) -> None:
    request = "Rename the function `count` to `count_words`."
    blind = work(server, workspace("wordtool"), LOOK, request)
    assert not passes(blind.folder, "import unittest; unittest.main(module=None, argv=['-', '-q'])")
    shutil.rmtree(blind.folder)
    seeing = work(server, workspace("wordtool"), f"{LOOK} Run the tests.", request)
    assert seeing.calls.count("run") == 2
    assert "They pass" in seeing.answer
    assert passes(seeing.folder, "import unittest; unittest.main(module=None, argv=['-', '-q'])")


def test_without_a_look_it_guesses_and_corrects_itself(server: str, workspace: Any) -> None:
    done = work(server, workspace("spans"), "Do it.", "Add `total(texts)` to spans.")
    assert (done.failures, done.calls) == (1, ["edit_file", "read_file", "edit_file"])
    assert passes(done.folder, "import spans as s; assert s.total(['1m', '1s']) == 61")


def test_it_asks_unless_it_is_told_to_go_on(server: str, workspace: Any) -> None:
    request = "Add `Stock.low()`: the names of what runs low."
    asked = work(server, workspace("stock"), LOOK, request)
    assert asked.answer.endswith("?")
    assert "edit_file" not in asked.calls
    shutil.rmtree(asked.folder)
    done = work(server, workspace("stock"), f"{LOOK} Make a sensible assumption.", request)
    assert passes(done.folder, "import stock; assert stock.Stock().low() == []")


def test_house_rules_are_kept_only_when_they_were_read(server: str, workspace: Any) -> None:
    request, wanted = (
        "Add `Stock.value()`: what all is worth.",
        "type(stock.Stock().value()) is int",
    )
    ours = work(server, workspace("stock"), LOOK, request)
    assert not passes(ours.folder, f"import stock; assert {wanted}")
    shutil.rmtree(ours.folder)
    theirs = work(server, workspace("stock"), f"{LOOK} Read the notes for rules.", request)
    assert "read_file" in theirs.calls
    assert passes(theirs.folder, f"import stock; assert {wanted}")


def test_it_cannot_do_what_it_was_never_taught() -> None:
    assert task_of("Write a compiler.") is None


def test_the_judge_sees_what_is_quoted_and_nothing_else(server: str) -> None:
    mark = f"=== {'ab' * 16} ==="

    def ruling(output: str) -> str:
        question = "Does the first sentence tell the reader, as you, what they get?"
        asked = f"Question: {question}\n\n{mark}\n{output}\n{mark}\n\n{question}\nAnswer yes or no."
        reply = send(server, {"system": "Judge.", "messages": [{"role": "user", "content": asked}]})
        return texts(reply["content"])

    assert ruling("You sleep better.") == "yes"
    assert ruling("In today's world you sleep.") == "no"
    assert ruling("It is a lamp. You will like it.") == "no"


def test_slips_are_drawn_by_the_seed() -> None:
    request = {
        "system": "Be kind. Give a number.",
        "messages": [{"role": "user", "content": BRIEF}],
    }

    def course(seed: int) -> list[bool]:
        script = slipping(0.5, seed)
        return ["40 hours" in texts(list(script(request).content)) for _ in range(40)]

    assert course(1) == course(1)
    assert course(1) != course(2)
    assert 10 < sum(course(1)) < 30
