"""What a person types at a query, as a label: pure.

Owns the answers that there are and what each does to a label. Knows no terminal and no file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

from swarm.formats.golden import Label
from swarm.formats.text import one_line

Verb = Literal["grade", "stay", "skip", "back", "keep", "stop", "help"]
BEST = 3
"""The grade of a number that stands alone."""
HELP = """\
  1 3             results 1 and 3 are what was meant (grade 3), all others shown are not relevant
  1 4=1           1 is what was meant, 4 is near; grades are 3, 2, 1 and 0
  n               none of those shown is relevant
  a doc-id        add a good result that was not found; `a doc-id=1` with a grade
  k word, word    words that a good result should contain; `k` alone removes them
  t some text     a passage that a good result should contain; `t` alone removes all
  s               skip this query for now
  b               back to the query before
  Enter           leave a query that has been answered as it is
  q               stop; the same command goes on here
`a`, `k` and `t` come first; the grades, or `n`, end a query."""
_WIDTH = 60
"""Characters of what was typed that are said back."""
_GRADED = re.compile(r"(\d{1,6})(?:=([0-3]))?")


class UnclearError(Exception):
    """What was typed is no answer; the text says why."""


class Answer(NamedTuple):
    """What was typed."""

    verb: Verb
    label: Label
    """What is now known of the query; `grade` ends it, `stay` waits for more."""


def answered(line: str, label: Label, shown: Sequence[str], *, failed: bool = False) -> Answer:
    """Read one line.

    Args:
        line: as it was typed.
        label: what is known of the query so far.
        shown: ids of the results, in the order of their numbers.
        failed: a search has failed on this query, so that not all was seen.

    Raises:
        UnclearError: it is no answer.
    """
    try:
        line.encode()
    except UnicodeEncodeError:
        raise UnclearError("some bytes of it are no text") from None
    word, _, rest = line.strip().partition(" ")
    rest = rest.strip()
    verbs: dict[str, Verb] = {"": "keep", "s": "skip", "b": "back", "q": "stop", "?": "help"}
    if not rest and word in verbs:
        return Answer(verbs[word], label)
    match word:
        case "a":
            return Answer("stay", _added(label, rest, shown))
        case "k":
            words = tuple(dict.fromkeys(w.strip() for w in rest.split(",") if w.strip()))
            return Answer("stay", replace(label, keywords=words))
        case "t":
            snippets = tuple(dict.fromkeys((*label.snippets, rest))) if rest else ()
            return Answer("stay", replace(label, snippets=snippets))
        case _:
            grades = {} if word == "n" and not rest else _numbers(line, len(shown))
            label = graded(label, shown, grades)
            if failed and not label.answerable:
                raise UnclearError(
                    "the search failed, so nobody knows whether there is none; s skips"
                )
            return Answer("grade", label)


def graded(label: Label, shown: Sequence[str], grades: Mapping[int, int]) -> Label:
    """Grade all results that were shown, 0 where nothing is said.

    What is not among them keeps its grade: it was added, or another search had found it.
    """
    seen = {name: grades.get(number, 0) for number, name in enumerate(shown, start=1)}
    others = {name: grade for name, grade in label.relevant.items() if name not in seen}
    best_first = sorted((seen | others).items(), key=lambda pair: -pair[1])
    return replace(label, relevant=dict(best_first))


def _added(label: Label, rest: str, shown: Sequence[str]) -> Label:
    name, grade = rest, BEST
    # An id may end like a grade: the whole is looked up first.
    if rest not in shown and (match := re.fullmatch(r"(.*\S)=([0-3])", rest)):
        name, grade = match[1], int(match[2])
    if not name:
        raise UnclearError("add what? `a doc-id`, or `a doc-id=1`")
    if name in shown:
        number = shown.index(name) + 1
        raise UnclearError(f"`{one_line(name, _WIDTH)}` is result {number}; give it a grade there")
    return replace(label, relevant={**label.relevant, name: grade})


def _numbers(line: str, most: int) -> dict[int, int]:
    grades: dict[int, int] = {}
    for part in re.sub(r"\s*=\s*", "=", line.strip()).replace(",", " ").split():
        match = _GRADED.fullmatch(part)
        if match is None:
            said = one_line(part, _WIDTH)
            raise UnclearError(f"{said!r} is no answer; type such as `1 3`, `1=3 4=1`, n, s or ?")
        number = int(match[1])
        if not 1 <= number <= most:
            raise UnclearError(f"there is no result {number}; there are {most}")
        if number in grades:
            raise UnclearError(f"result {number} is named twice")
        grades[number] = BEST if match[2] is None else int(match[2])
    return grades
