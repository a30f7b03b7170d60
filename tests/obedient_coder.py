"""The obedient model as a programmer: explores, plans, edits and reviews as far as it is told to.

Owns the course of a conversation with tools. It keeps nothing between requests: each time it goes
through the conversation from its beginning, so that any number of them go on at once. What it can
write is in `obedient_ability`; how well it does depends on the skill alone.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from messages_server import Json, Reply, blocks, call, said, texts
from obedience import Skill
from obedient_ability import TASKS, Edit, Task

TALK = (
    "Let me say in so many words what has been asked, what I have seen so far, and what I am about "
    "to do next, so that nobody who reads along is left behind: the request is restated, each file "
    "is gone through in turn, and the reasons for each step are laid out at length, one by one."
)

NATURAL = 70
"""Words of its last answer when nobody says how many."""
CLOSING = (
    "What was there before works as it did. The change is as small as I could make it, and "
    "nothing was moved that did not have to be moved. The names follow those around them. If the "
    "request meant more than this, say so, and I will look at it again with that in mind."
)


class Result(NamedTuple):
    """What a tool said."""

    text: str
    failed: bool


Turn = Generator[list[Json], list[Result], None]
"""Gives what it says and calls, takes the results; the last message calls nothing."""


@dataclass(frozen=True)
class Habits:
    """What a skill makes it do."""

    explores: bool
    minds_rules: bool
    minds_edges: bool
    runs_tests: bool
    writes_tests: bool
    goes_on: bool
    talks: bool
    headings: frozenset[str]
    closing: int
    """Words of its last answer."""

    @classmethod
    def of(cls, skill: Skill) -> Habits:
        """Read them from its text."""
        look = "look read list open explor inspect study search"
        explores = skill.asks(look, "file code project note convention rule document readme")
        return cls(
            explores=explores,
            minds_rules=explores and skill.asks("note convention rule readme document", look),
            minds_edges=skill.asks("edge corner boundar unusual special_case empty"),
            runs_tests=skill.asks("run execut", "test suite"),
            writes_tests=skill.asks("write add cover bring come include", "test", besides="run"),
            goes_on=skill.asks("assum sensibl reasonabl") or skill.forbids("ask question clarif"),
            talks=skill.rambles > 100 or skill.asks("restat narrat at_length in_detail explain"),
            headings=frozenset(s for s in STEPS if skill.names(s)),
            closing=min(NATURAL, skill.most("words") or NATURAL),
        )


STEPS = ("explore", "plan", "execute", "review")


def task_of(request: str) -> Task | None:
    """Find what is asked for among what it can do."""
    text = request.lower()
    for task in TASKS:
        stems = (re.escape(stem).replace("_", r"[_\s]+") for stem in task.words.split())
        if all(re.search(rf"\b{stem}", text) for stem in stems):
            return task
    return None


def work(request: Json) -> Reply:
    """Go on with a conversation from where it is."""
    skill = Skill(texts(request.get("system", "")))
    messages = request["messages"]
    task = task_of(texts(messages[0]["content"]))
    if task is None:
        return Reply.saying("I do not know how that is done.")
    turn = _work(Habits.of(skill), task, _tools(request))
    content = next(turn)
    for at in range(2, len(messages), 2):
        content = turn.send(_results(messages[at]))
    return Reply(tuple(content))


def _results(message: Json) -> list[Result]:
    found = (block for block in blocks(message["content"]) if block["type"] == "tool_result")
    return [Result(texts(b.get("content", "")), bool(b.get("is_error"))) for b in found]


class _Tools:
    """Calls of the tools that are offered; inputs go by their order in the schema."""

    def __init__(self, offered: Sequence[Json]) -> None:
        self._inputs = {t["name"]: list(t["input_schema"].get("properties", {})) for t in offered}

    def __call__(self, name: str, *given: Any) -> Json:
        return call(name, dict(zip(self._inputs[name], given, strict=False)))


def _tools(request: Json) -> _Tools:
    return _Tools(request.get("tools", ()))


def _work(habits: Habits, task: Task, tool: _Tools) -> Turn:
    def begin(step: str, words: str) -> list[Json]:
        head = f"## {step.capitalize()}\n\n" if step in habits.headings else ""
        more = f" {TALK}" if habits.talks else ""
        return [said(f"{head}{words}{more}")]

    if habits.explores:
        yield [*begin("explore", "I look at what is there."), tool("list_files")]
        yield [tool("read_file", task.main)]
        if habits.minds_rules:
            notes = "NOTES.md" if task.main == "stock.py" else "README.md"
            yield [tool("read_file", notes)]
    if task.trap == "ask" and not habits.goes_on:
        yield [said(f"Before I change anything I have a question. {task.asks}")]
        return
    edges = " Edges: nothing at all, one thing, what is not there." if habits.minds_edges else ""
    opening = begin("plan", f"I will change {task.main} for this.{edges}")
    opening += begin("execute", "Now the change.")
    if not habits.explores:
        # It has not seen the file, and guesses what stands in it.
        yield [*opening, tool("edit_file", task.main, "def main() -> None:", "def main() -> int:")]
        opening = []
        yield [said("That is not what it looks like."), tool("read_file", task.main)]
    edits = _written(habits, task)
    yield [*opening, *(tool("edit_file", *edit) for edit in edits)]
    if habits.writes_tests:
        yield [tool("write_file", *_test(task))]
    tried = "They were not run."
    if habits.runs_tests:
        tests = [*begin("review", "I run the tests."), tool("run", "python3 -B -m unittest -q")]
        (ran,) = yield tests
        if _fails(ran):
            yield [said("That was wrong; I correct it."), *_mend(task, tool)]
            (ran,) = yield [tool("run", "python3 -B -m unittest -q")]
        tried = "They fail." if _fails(ran) else "They pass."
    closing = begin("review", "") if not habits.runs_tests and "review" in habits.headings else []
    done = f"Done: {', '.join(sorted({e.path for e in edits}))}. Tests: {tried}"
    more = CLOSING.split()[: max(0, habits.closing - len(done.split()))]
    yield [*closing, said(" ".join([done, *more]))]


def _written(habits: Habits, task: Task) -> tuple[Edit, ...]:
    seen = {"explore": habits.minds_rules, "plan": habits.minds_edges, "review": False}
    return task.good if seen.get(task.trap, True) or not task.slip else task.slip


def _fails(ran: Result) -> bool:
    return ran.failed or "FAILED" in ran.text or "Error" in ran.text


def _mend(task: Task, tool: _Tools) -> list[Json]:
    """Take back what slipped, and put in what was meant."""
    wrong = [edit for edit in task.slip if edit not in task.good]
    right = [edit for edit in task.good if edit not in task.slip]
    back = (tool("edit_file", edit.path, edit.new, edit.old) for edit in wrong)
    return [*back, *(tool("edit_file", *edit) for edit in right)]


def _test(task: Task) -> tuple[str, str]:
    """Give the path and the text of a test for what was done."""
    module = task.main.removesuffix(".py")
    imports, setup = f"import {module}\n", ""
    if module == "stock":
        imports = "from stock import Stock, StockError\n"
        setup = (
            "    def setUp(self) -> None:\n        self.stock = Stock()\n"
            '        self.stock.add("lamp", 3, 1999)\n\n'
        )
        if "StockError" not in task.test:
            imports = "from stock import Stock\n"
    name = re.sub(r"\W", "_", task.words.split()[-1])
    text = (
        f"import unittest\n\n{imports}\n\nclass TestChange(unittest.TestCase):\n{setup}"
        f"    def test_{name}(self) -> None:\n        {task.test}\n"
    )
    return f"tests/test_{name}.py", text
