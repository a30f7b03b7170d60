"""Drafted tests, tried out on the base: those it passes are locked, those it fails are findings.

Owns the order in which that is done. The sandbox is `observing`'s, the tests are `templates`'.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from swarm.formats.text import counted
from swarm.init import edges, templates
from swarm.init.drafts import Bug, DraftFile, Ending, Sorted, endings, shared, sort_out
from swarm.init.proposal import Proposal
from swarm.init.survey import GUARDS, Facts, Read
from swarm.observing import Bench

FILE_S = 60.0
"""Longest time for one file of tests on the base."""
HUNG = 3
"""Tests that may hang before the rest of their file is given up."""
Say = Callable[[str], None]


@dataclass(frozen=True)
class Tried:
    """What became of all drafts."""

    locked: tuple[DraftFile, ...] = ()
    failing: tuple[DraftFile, ...] = ()
    bugs: tuple[Bug, ...] = ()
    unfit: tuple[str, ...] = ()
    """What could not be tried, and why; no bugs."""


def try_out(
    bench: Bench, facts: Facts, read: Read, proposal: Proposal, given: Iterable[DraftFile], say: Say
) -> Tried:
    """Draft what the goal asks for, and try it and the `given` files out on the base."""
    files = [*_drafted(bench, facts, read, proposal, say), *given]
    sorted_, unfit = list[Sorted](), list[str]()
    for file in files:
        say(f"trying {counted(len(file.drafts), 'drafted test')} of {file.name} on the base")
        ended, problem = _run(bench, file, proposal)
        if problem:
            unfit.append(f"{file.name}: {problem}")
            continue
        found = sort_out(file, ended)
        unfit += _words(file, found)
        steady = _steady(bench, found.locked, proposal)
        if found.locked is not None and steady != found.locked:
            left = len(steady.drafts) if steady is not None else 0
            flaky = len(found.locked.drafts) - left
            unfit.append(f"{file.name}: {counted(flaky, 'test')} passed once and not again")
        sorted_.append(found._replace(locked=steady))
    return Tried(
        tuple(s.locked for s in sorted_ if s.locked is not None),
        tuple(s.failing for s in sorted_ if s.failing is not None),
        tuple(bug for s in sorted_ for bug in s.bugs),
        tuple(unfit),
    )


def _steady(bench: Bench, file: DraftFile | None, proposal: Proposal) -> DraftFile | None:
    """Leave out what the base does not pass a second time: it would be a guard by chance."""
    if file is None:
        return None
    ended, _ = _run(bench, file, proposal)
    kept = file.only({e.test for e in ended if e.end == "passed"})
    return kept if kept.drafts else None


def _words(file: DraftFile, found: Sorted) -> Iterator[str]:
    """Say once what several tests of a file could not be used for."""
    reasons: dict[str, list[Ending]] = {}
    for ending in found.unfit:
        reasons.setdefault(ending.error, []).append(ending)
    for reason, those in reasons.items():
        yield f"{file.name}: {counted(len(those), 'test')} could not be tried: {reason}"


def _drafted(
    bench: Bench, facts: Facts, read: Read, proposal: Proposal, say: Say
) -> Iterator[DraftFile]:
    """Draft by templates what a search for this goal is likely to break."""
    yield from templates.searches(facts)
    skills = [path for path in proposal.scope if path in facts.skills]
    for path in skills:
        yield templates.skill(path, read(path))
    if skills:
        return
    if proposal.kind == "accuracy":
        yield from templates.leakage(facts)
        return
    if proposal.kind == "size":
        yield from templates.runtime(facts)
    yield from edges.properties(facts)
    if not bench.walls:
        say("no sandbox here keeps a call of a function from this machine: no edge cases are tried")
        return
    yield from _edges(bench, facts, read, proposal)


def _edges(bench: Bench, facts: Facts, read: Read, proposal: Proposal) -> Iterator[DraftFile]:
    """Draft tests of what the base does, by letting it do it twice."""
    beside = dict((shared("python"), shared("node")))
    if cases := edges.cases(facts):
        asked = f"{GUARDS}/asked.py"
        command = f"{shlex.quote(proposal.python)} {asked}"
        text = edges.probe(cases)
        # Other hashes, so that what depends on the order of a set is seen to vary.
        first, again = (
            edges.told(
                bench.run({asked: text, **beside}, f"PYTHONHASHSEED={n} {command}", FILE_S).log
            )
            for n in (1, 2)
        )
        yield from edges.edges(cases, first, again)
    sources = {f: read(f) for f in facts.sources.get("node", ())}
    if modules := edges.node_modules(facts, sources):
        asked, text = f"{GUARDS}/asked.mjs", edges.node_probe(modules)
        first, again = (
            edges.told(bench.run({asked: text, **beside}, f"node {asked}", FILE_S).log)
            for _ in range(2)
        )
        yield from edges.node_edges(first, again)


def command_of(file: DraftFile, proposal: Proposal) -> str:
    """Give the command that runs a file of tests."""
    word = "node" if file.language == "node" else shlex.quote(proposal.python)
    return f"{word} {file.path}"


def _run(bench: Bench, file: DraftFile, proposal: Proposal) -> tuple[list[Ending], str]:
    """Run a file's tests on the base; with why, if none of them could be."""
    done: list[Ending] = []
    left = file
    for _ in range(HUNG):
        files = {left.path: left.render(), **dict((shared("python"), shared("node")))}
        ran = bench.run(files, command_of(left, proposal), FILE_S)
        ended = endings(ran.log, timed_out=ran.timed_out)
        if not ended:
            lines = [line for line in ran.log.splitlines() if line.strip()]
            why = lines[-1].strip() if lines else f"it ended with status {ran.status}"
            return done, "" if done else f"the tests could not be tried: {why}"
        done += ended
        names = {e.test for e in ended}
        left = left.only([d.name for d in left.drafts if d.name not in names])
        if not left.drafts:
            break
    return done, ""
