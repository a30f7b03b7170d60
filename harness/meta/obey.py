"""The agent of the inner run: does to params.py what a program in plain sentences says. No model.

It gets a briefing on stdin, edits params.py, and says in its last line what it did. It stands for
a model that reads a program: it owns what sentences it understands and how firmly each binds it.

    Multiply it by 2, or divide it by 2.       how far one step goes
    Start with `gain` and `depth`.             these come before all others
    Leave `offset` alone.                      it is never changed
    Raise a number first ... / Lower it first  which way it is tried first
    Go on in a direction that was kept.        after a keep, the same number the same way

A sentence with must, always or never, or a plain command, is always followed; one with should,
every second time; one with may, might or could, not at all.
"""

import re
import sys
from pathlib import Path
from typing import NamedTuple

PARAMS = Path("params.py")
NUMBER = re.compile(r"^(?P<name>\w+) = (?P<value>[\d.e+-]+)$", re.M)
ROW = re.compile(
    r"^#(?P<number>\d+) (?P<verdict>\w+)[^:]*: "
    r"(?P<name>\w+) (?P<old>[\d.e+-]+) -> (?P<new>[\d.e+-]+)$",
    re.M,
)


class Step(NamedTuple):
    """One change that was tried before."""

    number: int
    verdict: str
    name: str
    old: float
    new: float

    @property
    def up(self) -> bool:
        return self.new > self.old


class Program(NamedTuple):
    """What the sentences come to in this round."""

    factor: float = 1.1
    first: tuple[str, ...] = ()
    alone: frozenset[str] = frozenset()
    raise_first: bool = True
    persist: bool = False


def understand(text: str, round_: int) -> Program:
    """Read the sentences of a program; `round_` says which of the weak ones bind now."""
    found = Program()
    for sentence in re.split(r"(?<=[.!?])\s+|\n\s*\n|\n\s*[-*] ", text):
        said = sentence.lower()
        if not binds(said, round_):
            continue
        names = re.findall(r"`(\w+)`", sentence)
        step = re.search(r"(?:multiply|divide|factor)\D*(\d+(?:\.\d+)?)", said)
        if step and float(step[1]) > 1:
            found = found._replace(factor=float(step[1]))
        elif re.search(r"\b(?:start|begin) with\b", said) and names:
            found = found._replace(first=tuple(names))
        elif re.search(r"\b(?:leave|never change|do not change)\b", said) and names:
            found = found._replace(alone=found.alone | frozenset(names))
        elif "go on in" in said and "direction" in said:
            found = found._replace(persist=True)
        elif re.search(r"\b(?:raise|lower)\b.*\bfirst\b", said):
            found = found._replace(raise_first=said.find("raise") < said.find("first")
                                   and "raise" in said.split("first")[0])  # fmt: skip
    return found


def binds(said: str, round_: int) -> bool:
    """Tell whether a sentence is followed in this round."""
    if re.search(r"\b(?:may|might|could)\b", said):
        return False
    return round_ % 2 == 0 if re.search(r"\bshould\b", said) else True


def choose(program: Program, values: dict[str, float], tried: list[Step]) -> tuple[str, float]:
    """Give the number to change, and its new value."""
    last = tried[-1] if tried else None
    if program.persist and last and last.verdict == "keep" and last.name in values:
        return last.name, stepped(values[last.name], program.factor, last.up)
    names = [name for name in values if name not in program.alone]
    order = sorted(
        names,
        key=lambda name: (
            name not in program.first,
            sum(step.name == name for step in tried) if name not in program.first else 0,
            program.first.index(name) if name in program.first else names.index(name),
        ),
    )
    factor = program.factor
    for _ in range(6):
        for name in order:
            for up in (program.raise_first, not program.raise_first):
                new = stepped(values[name], factor, up)
                if not any(s.name == name and same(s.old, values[name]) and same(s.new, new)
                           for s in tried):  # fmt: skip
                    return name, new
        factor = 1 + (factor - 1) / 2  # all was tried: go on in smaller steps
    sys.exit("nothing is left to try")


def stepped(value: float, factor: float, up: bool) -> float:
    """Step a value, to six digits as it is written."""
    return float(f"{value * factor if up else value / factor:.6g}")


def same(one: float, other: float) -> bool:
    """Compare two values as they are written."""
    return f"{one:.6g}" == f"{other:.6g}"


def main() -> None:
    """Make one change."""
    briefing = sys.stdin.read()
    told = re.search(r"^<program>\n(.*?)^</program>$", briefing, re.M | re.S)
    rows = {int(m["number"]): m for m in ROW.finditer(briefing)}
    tried = [
        Step(n, m["verdict"], m["name"], float(m["old"]), float(m["new"]))
        for n, m in sorted(rows.items())
    ]
    text = PARAMS.read_text(encoding="utf-8")
    values = {m["name"]: float(m["value"]) for m in NUMBER.finditer(text)}
    program = understand(told[1] if told else "", len(tried))
    name, new = choose(program, values, tried)
    PARAMS.write_text(
        re.sub(rf"^{name} = .*$", f"{name} = {new:.6g}", text, flags=re.M), encoding="utf-8"
    )
    print(f"{name} {values[name]:.6g} -> {new:.6g}")


if __name__ == "__main__":
    main()
