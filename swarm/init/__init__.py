"""`swarm init`: from a repository to a config that `swarm check` accepts, and to a running loop.

Owns the order of things and what is told: look, ask, draft guard tests and try them on the base,
write, check, perhaps launch. What is found is in `survey`, what is made of it in `targets`.
Writes nothing but the config, `swarm_guards/` and a suite, and overwrites nothing unasked.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from swarm import config as configs
from swarm.check import STOPPING, Checked, check
from swarm.config import RunConfig
from swarm.errors import HarnessError, PreconditionError, UsageError
from swarm.foreground import Order, launch_config
from swarm.formats.text import count, counted
from swarm.groups import MessagesProposer
from swarm.init import asking, writing
from swarm.init.drafts import DraftFile, shared
from swarm.init.machine import look
from swarm.init.proposal import Because, Proposal
from swarm.init.questions import Answers, decide, proposers
from swarm.init.survey import Facts, Read, survey
from swarm.init.targets import proposals
from swarm.init.trying import Tried, command_of, try_out
from swarm.keys import wanted
from swarm.observing import bench
from swarm.proposers import NoProposalError
from swarm.records import Usage
from swarm.repo import inspect, tracked_files
from swarm.signals import Stopped, signals_raise, signals_wait
from swarm.terminal import emit, emit_json, say

MODEL = "claude-opus-5-5"
READ_LIMIT = 500_000
"""Bytes; a larger file is data."""


@dataclass(frozen=True)
class Wish:
    """What `swarm init` was asked for."""

    directory: Path
    goal: str = ""
    yes: bool = False
    launch: bool = False
    out: Path | None = None
    force: bool = False
    json: bool = False
    model: str = MODEL

    @property
    def config(self) -> Path:
        """Where the config goes."""
        return self.out if self.out is not None else self.directory / "swarm.yaml"


@dataclass
class _Work:
    """What is known so far."""

    wish: Wish
    facts: Facts
    read: Read
    options: tuple[Proposal, ...]
    answers: Answers
    tried: Tried = field(default_factory=Tried)
    usage: Usage = field(default_factory=Usage)


def start(wish: Wish) -> int:
    """Do what `swarm init` does, and give the exit code.

    Raises:
        UsageError: there is nobody to ask and no `--yes`, or the config is there already.
        RepositoryError: the directory is in no repository that can be used.
        PreconditionError: nothing there could be measured.
    """
    _refuse(wish)
    environ = dict(os.environ)
    try:
        work = _look_and_ask(wish)
        with signals_raise(*STOPPING, for_good=True):
            _draft(work, environ)
            written = _write(work)
            checked = check(wish.config, ())
    except EOFError:
        say("swarm: no answer; nothing done")
        return 1
    except Stopped as stopped:
        say("swarm: ended")
        return 128 + stopped.number
    _tell(work, written, checked)
    if not wish.launch or checked.exit_code != 0:
        return checked.exit_code
    # The check has taken the keys out of the environment, as a launch does.
    os.environ.update({n: v for n, v in environ.items() if n not in os.environ})
    return launch_config(Order(wish.config, json=wish.json))


def _refuse(wish: Wish) -> None:
    if not wish.directory.is_dir():
        raise UsageError(f"`{wish.directory}` is not a directory", hint="name one: swarm init DIR")
    if wish.config.exists() and not wish.force:
        raise UsageError(
            f"`{wish.config}` exists already, and nothing is overwritten unasked",
            hint="name another file with --out, or overwrite it with --force; "
            f"`swarm check {wish.config}` tries it out",
        )
    if not wish.config.absolute().parent.is_dir():
        raise UsageError(
            f"there is no directory `{wish.config.parent}` for the config",
            hint="make it first, or correct --out",
        )
    if not wish.yes and not sys.stdin.isatty():
        raise UsageError(
            "there are questions, and nobody is there to answer them",
            hint="--yes takes the default of each",
        )


# --- looking and asking -------------------------------------------------------------------------


def _look_and_ask(wish: Wish) -> _Work:
    source = inspect(wish.directory, dirty="snapshot")
    top = source.top / source.prefix
    files = tracked_files(source)

    def read(name: str) -> str:
        path = top / name
        try:
            if path.is_symlink() or path.stat().st_size > READ_LIMIT:
                return ""
            return path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    facts = survey(files, read)
    say(f"swarm: found {'; '.join(writing.found_words(facts))}")
    modules = [*facts.imports, *(["pytest"] if facts.pytest else [])]
    machine = look(top, dict.fromkeys(modules) if facts.language == "python" else ())
    options = proposals(facts, machine, wish.goal)
    if not options:
        raise PreconditionError(
            f"nothing in `{wish.directory}` could be measured without being told how: no Python, "
            "Node, Rust or Go sources, no SKILL.md, no benchmark",
            hint="write a command that prints `METRIC name=value`, and a config of five lines "
            "around it: the README shows one",
            path=wish.directory,
        )
    priced = "ANTHROPIC_BASE_URL" not in os.environ
    who = proposers(machine, wish.model, priced=priced)
    ask = None if wish.yes else (say, sys.stdin.readline)
    answers = decide(options, who, files, ask=ask)
    say(f"swarm: {answers.proposal.title}: {answers.proposal.reason}")
    return _Work(wish, facts, read, options, answers)


# --- guard tests --------------------------------------------------------------------------------


def _draft(work: _Work, environ: Mapping[str, str]) -> None:
    """Draft guard tests, and try them on the base."""
    given: list[DraftFile] = []
    model = _model(work, environ)
    if model is not None:
        with signals_wait():
            given = _asked(work, model)
    try:
        with bench(_parsed(work, ()), lambda text: say(f"swarm: {text}"), signals_wait) as base:
            work.tried = try_out(
                base,
                work.facts,
                work.read,
                work.answers.proposal,
                given,
                lambda text: say(f"swarm: {text}"),
            )
    except HarnessError as error:
        work.tried = Tried(unfit=(f"no test could be tried: {error.message.splitlines()[0]}",))


def _model(
    work: _Work, environ: Mapping[str, str]
) -> tuple[MessagesProposer, dict[str, str]] | None:
    """Give the model that could draft tests, and its keys; None if there is none."""
    config = MessagesProposer(
        kind="messages", model=work.wish.model, max_tokens=16_000, timeout=asking.TIMEOUT_S
    )
    keys = {name: environ[name] for name in wanted(config) if environ.get(name)}
    able = keys.keys() & {"ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"}
    return (config, keys) if able and work.facts.language == "python" else None


def _asked(work: _Work, model: tuple[MessagesProposer, dict[str, str]]) -> list[DraftFile]:
    config, keys = model
    say(f"swarm: asking {config.model} for guard tests")
    try:
        kind = work.answers.proposal.kind
        found, work.usage = asking.draft(work.facts, work.read, kind, work.wish.goal, config, keys)
    except NoProposalError as error:
        work.usage = error.usage
        say(f"swarm: {config.model} drafts none: {error.reason}; those of templates are taken")
        return []
    if found is None:
        say(f"swarm: {config.model} answered no tests; those of templates are taken")
    return [] if found is None else [found]


# --- writing ------------------------------------------------------------------------------------


def _text(work: _Work, guards: tuple[Because, ...]) -> str:
    wish, proposal = work.wish, work.answers.proposal
    repo = os.path.relpath(wish.directory.resolve(), wish.config.absolute().parent.resolve())
    others = tuple(p for p in work.options if p.title != proposal.title)
    return writing.config_text(
        proposal,
        work.answers.proposer,
        work.facts,
        name=writing.run_name(wish.directory.resolve().name, proposal.kind),
        repo=repo,
        out=str(wish.config) if wish.out is not None else wish.config.name,
        guards=(*proposal.guard, *guards),
        bugs=work.tried.bugs,
        others=others,
    )


def _parsed(work: _Work, guards: tuple[Because, ...]) -> RunConfig:
    return configs.parse(_text(work, guards), work.wish.config)


def _files(work: _Work) -> dict[Path, str]:
    """Give all that is to be written beside the config."""
    top, proposal = work.wish.directory, work.answers.proposal
    found = {top / path: text for path, text in proposal.helpers.items()}
    beside = {shared(f.language) for f in (*work.tried.locked, *work.tried.failing)}
    found |= {top / path: text for path, text in beside}
    found |= {top / file.path: file.render() for file in work.tried.locked}
    found |= {top / file.finding_path: file.render(failing=True) for file in work.tried.failing}
    for skill in proposal.scope:
        suite = top / Path(skill).parent / "suite.yaml"
        if skill in work.facts.skills and not suite.exists():
            found[suite] = writing.suite_text(skill, work.read(skill))
    return found


def _write(work: _Work) -> list[Path]:
    """Write the config and what belongs to it; nothing that is there is overwritten unasked."""
    guards = tuple(
        Because(
            command_of(file, work.answers.proposal),
            f"{counted(len(file.drafts), 'drafted test')} that the base passes",
        )
        for file in work.tried.locked
    )
    files = _files(work)
    there = [path for path in files if path.exists() and path.read_text() != files[path]]
    if there and not work.wish.force:
        raise UsageError(
            f"`{there[0]}` exists already, and nothing is overwritten unasked",
            hint="--force overwrites it; or move it away",
        )
    text = _text(work, guards)
    configs.parse(text, work.wish.config)
    files[work.wish.config] = text
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return list(files)


# --- words --------------------------------------------------------------------------------------


def _tell(work: _Work, written: list[Path], checked: Checked) -> None:
    tried = work.tried
    ready = checked.exit_code == 0
    config = work.wish.config
    if work.wish.json:
        emit_json(_json(work, written, checked), line=work.wish.launch and ready)
        return
    checked.tell()
    emit("")
    for path in written:
        emit(f"wrote    {path}")
    tests = sum(len(file.drafts) for file in tried.locked)
    emit(f"locked   {counted(tests, 'drafted test')} that the base passes, as guards")
    for words in tried.unfit:
        emit(f"not used {words}")
    for bug in tried.bugs:
        emit(f"BUG      found before the first experiment: {bug.told}")
        emit(f"         {bug.path} shows it; it is no guard")
    if work.usage.usd:
        emit(f"spent    ${work.usage.usd:.4f}, {count(_tokens(work.usage))} tokens for drafting")
    if not ready:
        emit(f"next     mend what the check says, then: swarm check {config}")
        failing = any(f.kind == "guard_fails" for f in checked.findings)
        if failing and any(p.kind == "tests" for p in work.options):
            emit("         or have that for a goal: swarm init --force --goal 'mend failing tests'")
    elif not work.wish.launch:
        base = work.wish.directory
        own = dict.fromkeys(base / p.relative_to(base).parts[0] for p in written if p != config)
        names = shlex.join(map(str, (config, *own)))
        emit(f"next     git add {names} && git commit    # so that `swarm apply` is at hand later")
        emit(f"         swarm launch {config}")


def _json(work: _Work, written: list[Path], checked: Checked) -> dict[str, Any]:
    proposal, tried = work.answers.proposal, work.tried
    return {
        "config": str(work.wish.config),
        "ok": checked.exit_code == 0,
        "files": [str(path) for path in written],
        "found": writing.found_words(work.facts),
        "target": _target_json(proposal),
        "others": [_target_json(p) for p in work.options if p.title != proposal.title],
        "proposer": work.answers.proposer.title,
        "guards": {
            "locked": [d.name for file in tried.locked for d in file.drafts],
            "bugs": [
                {
                    "about": bug.about,
                    "tests": list(bug.tests),
                    "given": list(bug.given),
                    "error": bug.error,
                    "place": bug.place,
                    "path": bug.path,
                }
                for bug in tried.bugs
            ],
            "not_used": list(tried.unfit),
        },
        "usd": work.usage.usd,
        "tokens": _tokens(work.usage),
        "check": checked.json,
    }


def _target_json(proposal: Proposal) -> dict[str, Any]:
    return {
        "kind": proposal.kind,
        "title": proposal.title,
        "reason": proposal.reason,
        "scope": list(proposal.scope),
        "guard": [because.command for because in proposal.guard],
        "run": proposal.run.command,
        "metric": proposal.metric,
        "goal": proposal.goal,
    }


def _tokens(usage: Usage) -> int:
    return usage.input_tokens + usage.cached_tokens + usage.output_tokens
