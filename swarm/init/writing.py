"""The config that `swarm init` writes, with a reason beside every key, and a suite to start from.

Pure: decisions in, text out. What the text says is read by `config` like anybody's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from swarm.init.drafts import Bug
from swarm.init.proposal import Because, Proposal
from swarm.init.questions import Proposer
from swarm.init.survey import GUARDS, Facts

_PLAIN = re.compile(r"[A-Za-z0-9_./~][A-Za-z0-9_./~+-]*( [A-Za-z0-9_./~+-]+)*")
_WORDS = frozenset(("true", "false", "yes", "no", "on", "off", "null", "~", "y", "n"))


def quoted(text: str) -> str:
    """Give a text as a YAML scalar, plain where it may be."""
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS and not re.match(r"[\d.+-]", text):
        return text
    if text == ".":
        return text
    return "'" + text.replace("'", "''") + "'"


def listed(items: Iterable[str]) -> str:
    """Give texts as a YAML list on one line."""
    return "[" + ", ".join(quoted(item) for item in items) + "]"


def run_name(folder: str, kind: str) -> str:
    """Make a name for the run, which becomes a part of its branches' names."""
    stem = re.sub(r"[^a-z0-9_-]+", "-", folder.lower()).strip("-_") or "run"
    return f"{stem[:60]}-{kind}"


def config_text(
    proposal: Proposal,
    proposer: Proposer,
    facts: Facts,
    *,
    name: str,
    repo: str,
    out: str,
    guards: Sequence[Because],
    bugs: Sequence[Bug],
    others: Sequence[Proposal],
) -> str:
    """Write the config.

    Args:
        proposal: what is optimised.
        proposer: who proposes.
        facts: about the repository.
        name: of the run.
        repo: the target's directory, relative to the config's.
        out: the config's own name, as a command would name it.
        guards: commands that the base passes, the drafted ones included.
        bugs: what the base fails.
        others: what else could be optimised.
    """
    lines = [
        f"# {_sentence(proposal.title)} Written by `swarm init`; every key may be changed.",
        f"# Found: {'; '.join(found_words(facts))}.",
        "#",
        f"#   swarm check {out}     tries it out: noise, time, cost, and what is wrong",
        f"#   swarm launch {out}    starts it, or goes on with it",
        f"name: {quoted(name)}    # a part of the branches' names: swarm/{name}/best",
        "",
        "target:",
        *_target(proposal, repo, guards, bugs),
        "",
        "agents:    # who proposes: mutate (no key), messages (a model), headless (a coding agent)",
        *(f"  - {line}" for line in proposer.agents),
        "",
        *_judge(proposal),
        *_budget(proposer),
        *_others(others),
    ]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _target(
    proposal: Proposal, repo: str, guards: Sequence[Because], bugs: Sequence[Bug]
) -> Iterator[str]:
    yield f"  repo: {quoted(repo)}"
    yield "  # The base is HEAD with what is on disk, so that nothing need be committed first. With"
    yield "  # `refuse` (the default) a launch insists that tracked files are committed."
    yield "  dirty: snapshot"
    yield f"  # What an experiment may change. All else is that of the base: tests, {GUARDS}, ..."
    yield f"  scope: {listed(proposal.scope)}"
    if proposal.program:
        yield "  # What the proposers are told; read again for every briefing."
        yield from _program(proposal.program)
    if proposal.setup is not None:
        yield from _key("setup", proposal.setup)
    yield "  # What must exit 0 before a change is measured."
    if guards:
        yield "  guard:"
        for because in guards:
            yield f"    - {quoted(because.command)}    # {because.reason}"
    else:
        yield "  guard: []"
    if bugs:
        yield "  # Bugs found before the first experiment. The base fails these: no guards."
        for bug in bugs:
            yield f"  #   {_line(bug.told)}"
            yield f"  #     {bug.path}"
    yield from _key("run", proposal.run)
    yield "  # The number, and which way is better."
    yield f"  metric: {_metric(proposal)}"
    if proposal.read_only:
        yield "  # Outside the repository, and needed to measure."
        yield f"  read_only: {listed(proposal.read_only)}"
    yield f"  timeout: {proposal.timeout}    # for each command by itself"
    yield from _slot(proposal)
    if proposal.env:
        pairs = ", ".join(f"{name}: {quoted(value)}" for name, value in proposal.env.items())
        yield "  # The environment of a measurement; of yours it has only PATH and the language."
        yield f"  env: {{{pairs}}}"
    if proposal.notes:
        yield "  #"
        yield from (f"  # {note}" for note in proposal.notes)


def _key(name: str, because: Because) -> Iterator[str]:
    yield f"  # {_sentence(because.reason)}"
    yield f"  {name}: {quoted(because.command)}"


def _program(text: str) -> Iterator[str]:
    if "\n" not in text.strip():
        yield f"  program: {quoted(text.strip())}"
        return
    yield "  program: |"
    yield from (f"    {line}" for line in text.strip().splitlines())


def _metric(proposal: Proposal) -> str:
    pairs = [f"name: {quoted(proposal.metric)}", f"goal: {proposal.goal}"]
    if proposal.pattern is not None:
        pairs.append(f"pattern: {_single(proposal.pattern)}")
    if proposal.unit is not None:
        pairs.append(f"unit: {quoted(proposal.unit)}")
    return "{" + ", ".join(pairs) + "}"


def _single(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _slot(proposal: Proposal) -> Iterator[str]:
    if proposal.gpus:
        yield f"  slot: {{gpus: {proposal.gpus}}}    # one measurement on each GPU"
    elif proposal.alone:
        yield "  slot: {count: 1}    # one at a time: beside another one times are not fair"
    else:
        yield "  slot: {cpus: 1}    # as many measurements at once as there are cores"


def _judge(proposal: Proposal) -> Iterator[str]:
    pairs: list[str] = []
    if proposal.aggregate is not None:
        pairs.append(f"aggregate: {proposal.aggregate}")
    if proposal.alone:
        pairs.append("window: 5")
    if proposal.keep_if_equal is not None:
        pairs.append(f"keep_if_equal: {proposal.keep_if_equal}")
    if pairs:
        why: list[str] = []
        if proposal.aggregate is not None:
            why.append("of several values in one measurement the least counts")
        if proposal.alone:
            why.append("old measurements count no more, as machines drift")
        if proposal.keep_if_equal is not None:
            why.append("a change that is no worse and has fewer lines is kept")
        yield f"# {_sentence('; '.join(why))}"
        yield f"judge: {{{', '.join(pairs)}}}"
        yield ""


def _budget(proposer: Proposer) -> Iterator[str]:
    limits = ["experiments: 60", "time: 8h", "stale: 30"]
    if proposer.paid:
        limits.insert(0, "usd: 10")
    yield "# The run ends at the first of these; `stale` is experiments in a row without a keep."
    yield f"budget: {{{', '.join(limits)}}}"


def _others(others: Sequence[Proposal]) -> Iterator[str]:
    if others:
        yield ""
        yield "# What else could be optimised here (`swarm init` asks; --goal TEXT prefers one):"
        yield from (f"#   {p.kind:9} {_line(p.title)}: {_line(p.run.command)}" for p in others)


def _sentence(text: str) -> str:
    clean = _line(text)
    return clean[:1].upper() + clean[1:] + ("" if clean.endswith(".") else ".")


def _line(text: str) -> str:
    one = " ".join(text.split())
    return one if len(one) <= 180 else one[:177] + "..."


def found_words(facts: Facts) -> list[str]:
    """Say what was found, in a few words each."""
    names = {"python": "Python", "node": "Node", "rust": "Rust", "go": "Go"}
    found = [f"{names[lang]} ({len(facts.sources[lang])} files)" for lang in facts.languages]
    plain = (
        (facts.tests, "tests"),
        (facts.benches, "benchmarks"),
        (facts.ci, "CI"),
        (facts.dockerfiles, "Dockerfile"),
        (facts.skills, "SKILL.md"),
        (facts.instructions, "instructions for coding agents"),
        (facts.notebooks, "notebooks"),
        (facts.suites, "suites of cases"),
        (facts.searches, "searches"),
        (facts.splits, "data to train and to test on"),
        (facts.improve, "a config of another tool"),
    )
    found += [f"{what}" for there, what in plain if there]
    if facts.autoresearch:
        found.append("the autoresearch layout")
    return found or ["nothing that swarm knows"]


# --- a suite to start from ----------------------------------------------------------------------


def suite_text(skill: str, text: str) -> str:
    """Draft a suite for a SKILL.md: questions that code answers, and a first case to edit."""
    front = re.match(r"---\n(.*?)\n---", text, re.S)
    said = re.search(r"^description: *(.+)$", front[1], re.M) if front else None
    about = said[1].strip("\"' ") if said else "what the skill is for"
    return f"""\
# Cases for {skill}, drafted by `swarm init`; yours to edit. Three to ten make a useful suite.
under: {{kind: skill, path: {quoted(skill.rpartition("/")[2])}}}
runner: {{kind: messages, model: claude-haiku-5-5, max_turns: 20}}    # works by the skill
timeout: 5m
questions:                       # asked about the answer to every case; code, not a model, looks
  answers: {{regex: '\\w{{3,}}'}}
  short: {{max_words: 400}}
  no_apology: {{not_regex: '(?i)\\bas an ai\\b|\\bi cannot\\b'}}
cases:
  - id: first
    # What somebody would ask for who needs this skill. Replace it by a real request.
    request: {quoted(f"A small example, please, of this: {about}")}
    checks:
      - {{regex: '\\S'}}
  # - id: with-files
  #   request: Add a --count flag to wordtool.
  #   workspace: workspaces/wordtool      # copied afresh for every run
  #   checks:
  #     - {{command: python -m pytest -q}}
  #     - {{unchanged: ['tests/**']}}
"""
