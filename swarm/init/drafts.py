"""Drafted guard tests: what they are, how a file of them looks, and what a run of it says.

A file holds a head (imports, helpers) and one function a test; run by itself it prints a line for
each. So tests that the base passes and tests that it fails can be parted. Pure; where the tests
come from is in `templates`, `edges` and `asking`, what runs them in `trying`.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

from swarm.init.survey import GUARDS

FINDINGS = f"{GUARDS}/findings"
"""Where tests go that the base fails."""
MARK = "swarm-guard"
"""Begins each line that a file of tests prints about one of them."""
Language = Literal["python", "node"]


class Draft(NamedTuple):
    """One drafted test."""

    name: str
    source: str
    """The whole function."""
    given: str = ""
    """What it is asked with, as a person would write it."""


@dataclass(frozen=True)
class DraftFile:
    """A file of drafted tests."""

    name: str
    """Without folder and ending."""
    about: str
    """What they watch over, a sentence."""
    head: str
    drafts: tuple[Draft, ...]
    language: Language = "python"

    @property
    def path(self) -> str:
        """Where it goes when the base passes it."""
        return f"{GUARDS}/{self.name}{_ENDINGS[self.language]}"

    @property
    def finding_path(self) -> str:
        """Where it goes when the base fails it."""
        return f"{FINDINGS}/{self.name}{_ENDINGS[self.language]}"

    def only(self, names: Collection[str]) -> DraftFile:
        """Leave out all but some of the tests."""
        return replace(self, drafts=tuple(d for d in self.drafts if d.name in names))

    def render(self, *, failing: bool = False) -> str:
        """Give the text of the file."""
        say = _FAILING if failing else _PASSING
        words = f"{self.about}\n\n{say}\n"
        tests = "\n\n\n".join(draft.source.strip("\n") for draft in self.drafts)
        if self.language == "node":
            comment = "".join(f"// {line}".rstrip() + "\n" for line in words.splitlines())
            return f"{comment}\n{self.head.strip()}\n\n{tests}\n\n{_NODE_TAIL}"
        # Forms that a docstring cannot hold have no place in a sentence.
        said = words.replace("\\", "/").replace('"""', "'''")
        return f'"""{said}"""\n\n{self.head.strip()}\n\n\n{tests}\n\n\n{_PYTHON_TAIL}'


_ENDINGS: dict[Language, str] = {"python": ".py", "node": ".mjs"}
_PASSING = (
    "Drafted by `swarm init`, and passed by the base: a change that breaks one of these is not\n"
    "measured. Edit it, add to it, or take out what need not hold. Run it, or have pytest run it."
)
_FAILING = (
    "Drafted by `swarm init`, and FAILED by the base: bugs found before the first experiment.\n"
    "No guard, or nothing could be measured. Once one is mended, move its test up a folder."
)
_PYTHON_TAIL = f"""\
if __name__ == "__main__":
    from {GUARDS}.running import run

    run(globals())
"""
_NODE_TAIL = "await run(tests);\n"
HERE = f"""\
import sys
from pathlib import Path

TOP = next(p for p in Path(__file__).resolve().parents if p.name == "{GUARDS}").parent
sys.path[:0] = [str(TOP), str(TOP / "src")]"""
"""The first lines of a Python file of tests: the repository before all else on the path."""
NODE_HERE = f"""\
const top = new URL(import.meta.url.replace(/{GUARDS}\\/.*$/, ""));
const {{ load, run, told }} = await import(new URL("{GUARDS}/running.mjs", top));
const tests = {{}};"""
PROGRAMS = Path(__file__).with_name("programs")
"""What is written into repositories as it is."""


def slug(text: str) -> str:
    """Make a part of a function's name."""
    return re.sub(r"\W+", "_", text).strip("_").lower() or "it"


def program(name: str) -> str:
    """Give the text of a program that comes with swarm."""
    return (PROGRAMS / name).read_text(encoding="utf-8")


def shared(language: Language) -> tuple[str, str]:
    """Give path and text of what all files of tests of a language need beside them."""
    name = f"running{_ENDINGS[language]}"
    return f"{GUARDS}/{name}", program(name)


class Ending(NamedTuple):
    """How one test ended on the base."""

    test: str
    end: Literal["passed", "failed", "unfit", "hung"]
    """`unfit`: the test itself is wrong; `hung`: it did not end in time."""
    error: str = ""
    place: str = ""


def endings(log: str, *, timed_out: bool = False) -> list[Ending]:
    """Read what a file of tests has printed about each of them."""
    found: dict[str, Ending] = {}
    begun = ""
    for line in log.splitlines():
        head, _, rest = line.partition(f"{MARK} ")
        if head.strip() or not rest:
            continue
        try:
            said = cast("dict[str, Any]", json.loads(rest))
        except ValueError:
            continue
        begun = str(said.get("begun", ""))
        end = said.get("end")
        if end in ("passed", "failed", "unfit"):
            test = str(said.get("test", ""))
            found[test] = Ending(test, end, str(said.get("error", "")), str(said.get("place", "")))
    if begun and timed_out:
        found[begun] = Ending(begun, "hung", "it did not end in time")
    elif begun:
        # It took the whole process with it.
        found[begun] = Ending(begun, "failed", "the process ended in the middle of the test")
    return list(found.values())


class Bug(NamedTuple):
    """Tests of one kind that the base fails: a bug found before the first experiment."""

    about: str
    tests: tuple[str, ...]
    given: tuple[str, ...]
    """The inputs that show it."""
    of: int
    """How many inputs were tried."""
    error: str
    """The last line of the first one's traceback."""
    place: str
    path: str
    """The file that shows it."""

    @property
    def told(self) -> str:
        """The bug in a sentence."""
        many = f"{len(self.tests)} of {self.of} tests fail on the base"
        if self.of == 1:
            many = "the base fails that"
        if self.given[0]:
            many += (", such as" if len(self.tests) > 1 else ",") + f" with {self.given[0]}"
        where = f" ({self.place})" if self.place else ""
        return f"{self.about}: {many}: {self.error}{where}"


class Sorted(NamedTuple):
    """What became of one drafted file on the base."""

    locked: DraftFile | None
    """The tests that the base passes."""
    failing: DraftFile | None
    bugs: tuple[Bug, ...]
    unfit: tuple[Ending, ...]
    """Tests that could not be used for reasons of their own; no bugs."""


def sort_out(file: DraftFile, ended: Iterable[Ending]) -> Sorted:
    """Part the tests of a file by how they ended on the base."""
    by_test = {e.test: e for e in ended}
    passed = [d.name for d in file.drafts if _ended(by_test, d) == "passed"]
    failed = [d for d in file.drafts if _ended(by_test, d) in ("failed", "hung")]
    unfit = [by_test[d.name] for d in file.drafts if _ended(by_test, d) == "unfit"]
    groups: dict[str, list[Draft]] = {}
    for draft in failed:
        groups.setdefault(_group(draft), []).append(draft)
    bugs: list[Bug] = []
    for group, drafts in groups.items():
        first = by_test[drafts[0].name]
        tried = sum(_group(d) == group for d in file.drafts)
        names, given = tuple(d.name for d in drafts), tuple(d.given for d in drafts)
        bugs.append(Bug(group, names, given, tried, first.error, first.place, file.finding_path))
    return Sorted(
        file.only(passed) if passed else None,
        file.only([d.name for d in failed]) if failed else None,
        tuple(bugs),
        tuple(unfit),
    )


def _ended(by_test: dict[str, Ending], draft: Draft) -> str:
    found = by_test.get(draft.name)
    return "" if found is None else found.end


def _group(draft: Draft) -> str:
    """Name what a test is about: its docstring, which tests of one kind share, or its name."""
    found = re.search(r'^ +"""(.+?)\.?"""', draft.source, re.M) or re.search(
        r"^ +// (.+?)\.?$", draft.source, re.M
    )
    return found[1] if found else draft.name.removeprefix("test_").replace("_", " ")


def split_python(text: str, name: str, about: str) -> DraftFile | None:
    """Take a Python file of tests apart: functions `test_...` without arguments, and the rest."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return None
    lines = text.splitlines()
    drafts: list[Draft] = []
    taken: set[int] = set()
    for node in tree.body:
        begin = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
        rows = range(begin - 1, node.end_lineno or node.lineno)
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            taken |= set(rows)
            if not node.args.args and not node.decorator_list:
                drafts.append(Draft(node.name, "\n".join(lines[i] for i in rows)))
        elif isinstance(node, ast.If) and "__main__" in ast.dump(node.test):
            taken |= set(rows)
    head = "\n".join(line for i, line in enumerate(lines) if i not in taken)
    return DraftFile(name, about, head, tuple(drafts)) if drafts else None
