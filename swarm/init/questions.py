"""The questions of `swarm init`, three at most, each with an answer that may be taken as it is.

Owns their words and what may be answered. Asks through two functions, so that it knows no terminal.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from swarm.errors import UsageError
from swarm.init.machine import Machine
from swarm.init.proposal import Proposal
from swarm.init.survey import GUARDS
from swarm.scope import Scope

MOST_SHOWN = 6
TRIES = 3
"""After so many answers that are none, nobody seems to be reading."""
Say = Callable[[str], None]
Hear = Callable[[], str]
"""Gives one line, "" at the end of the input."""


class Proposer(NamedTuple):
    """Somebody who could propose changes."""

    title: str
    agents: tuple[str, ...]
    """Lines of the config's list `agents`."""
    paid: bool = False
    """Whether each proposal costs money by tokens whose price is known."""


class Answers(NamedTuple):
    """What was decided."""

    proposal: Proposal
    proposer: Proposer


def proposers(machine: Machine, model: str, *, priced: bool) -> tuple[Proposer, ...]:
    """Give who could propose here, the most able first; `mutate` always can."""
    found: list[Proposer] = []
    control = "{count: 1, proposer: mutate}   # without a model: shows what the model is worth"
    if machine.key:
        line = f"{{count: 3, proposer: {{kind: messages, model: {model}}}}}"
        found.append(Proposer(f"{model}, by the key in your environment", (line, control), priced))
    for cli in machine.clis:
        line = f"{{count: 2, proposer: {{kind: headless, cli: {cli}}}}}"
        found.append(Proposer(f"{cli}, which is installed here", (line, control)))
    line = "{count: 2, proposer: mutate}   # changes constants and settings; needs no key"
    return (*found, Proposer("mutate: constants and settings, without a model", (line,)))


def decide(
    options: Sequence[Proposal],
    who: Sequence[Proposer],
    files: Sequence[str],
    *,
    ask: tuple[Say, Hear] | None,
) -> Answers:
    """Take the first of everything, or ask.

    Args:
        options: what could be optimised, best first.
        who: could propose.
        files: of the base, which a scope must match some of.
        ask: how to ask and hear; None to take the defaults.

    Raises:
        UsageError: the answers make no sense, again and again.
        EOFError: there are no more answers.
    """
    if ask is None:
        return Answers(options[0], who[0])
    shown = options[:MOST_SHOWN]
    titles = [f"{p.title} ({p.kind}: {p.reason})" for p in shown]
    proposal = shown[_choose(ask, "1/3  What is to get better?", titles)]
    proposal = replace(proposal, scope=_scope(ask, proposal.scope, files))
    proposer = who[_choose(ask, "3/3  Who proposes the changes?", [p.title for p in who])]
    return Answers(proposal, proposer)


def _choose(ask: tuple[Say, Hear], question: str, options: Sequence[str]) -> int:
    say, hear = ask
    say(question)
    for number, option in enumerate(options, start=1):
        say(f"     {number}  {option}")
    for _ in range(TRIES):
        say("     a number, or Enter for 1:")
        answer = _heard(hear)
        if not answer:
            return 0
        if answer.isdecimal() and 1 <= int(answer) <= len(options):
            return int(answer) - 1
        say(f"     {answer!r} is none of 1 to {len(options)}")
    raise _lost()


def _scope(
    ask: tuple[Say, Hear], default: tuple[str, ...], files: Sequence[str]
) -> tuple[str, ...]:
    say, hear = ask
    say("2/3  Which files may change? Paths or globs, such as src/**/*.py; with commas between.")
    for _ in range(TRIES):
        say(f"     Enter for {', '.join(default)}:")
        answer = _heard(hear)
        if not answer:
            return default
        patterns = tuple(p for p in re.split(r"[,\s]+", answer) if p)
        scope = Scope(patterns)
        if any(f"{GUARDS}/x.py" in Scope((p,)) for p in patterns):
            say(f"     {GUARDS} holds the guards and cannot be among them")
        elif any(f in scope for f in files):
            return patterns
        else:
            say(f"     no file of the base matches {', '.join(patterns)}")
    raise _lost()


def _heard(hear: Hear) -> str:
    line = hear()
    if not line:
        raise EOFError
    return line.strip()


def _lost() -> UsageError:
    return UsageError(
        f"{TRIES} answers that were none; nothing is written",
        hint="`swarm init --yes` takes the default of every question",
    )
