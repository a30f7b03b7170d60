"""What could be optimised in a repository, best first. Pure: facts in, `Proposal`s out.

Asks nobody, writes nothing; which of them is taken is decided in `questions`.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import replace

from swarm.init import languages, measures
from swarm.init.machine import Machine
from swarm.init.proposal import Because, Proposal, wish
from swarm.init.survey import Facts


def proposals(facts: Facts, machine: Machine, goal: str = "") -> tuple[Proposal, ...]:
    """Give what could be optimised, best first; `goal` is a person's wish in words."""
    found = [_completed(p, facts, machine) for p in _all(facts, machine)]
    wanted = wish(goal)
    if wanted:
        found.sort(key=lambda p: p.kind != wanted)  # stable: the order is kept within both halves
    if goal:
        found = [replace(p, program=p.program or goal.strip()) for p in found]
    return tuple(found)


def _all(facts: Facts, machine: Machine) -> Iterator[Proposal]:
    if facts.autoresearch:
        yield measures.autoresearch(facts, machine)
    if facts.skills:
        yield from measures.skills(facts)
    for script in dict.fromkeys((*facts.benches, *facts.scorers)):
        if script.metrics and not (
            facts.autoresearch and script.path in ("train.py", "prepare.py")
        ):
            yield from measures.scorer(facts, machine, script)
    for script in facts.benches:
        if not script.metrics:
            yield from measures.timed(facts, machine, script)
    makers = {
        "python": languages.python,
        "node": languages.node,
        "rust": languages.rust,
        "go": languages.go,
    }
    for language in facts.languages:
        yield from makers[language](facts, machine)


def _completed(proposal: Proposal, facts: Facts, machine: Machine) -> Proposal:
    """Add what all targets of this repository need: tests as guards, packages, the path."""
    guard = (*proposal.guard, *_guards(facts, machine)) if not proposal.guard else proposal.guard
    uses_python = any(machine.python.word in c.command for c in (proposal.run, *guard))
    env = dict(proposal.env)
    if uses_python and facts.packages:
        roots = dict.fromkeys(p.root or "." for p in facts.packages)
        env.setdefault("PYTHONPATH", ":".join(roots))
    if "rust" in facts.languages and machine.rustup_home:
        env["RUSTUP_HOME"] = machine.rustup_home
        proposal = replace(proposal, read_only=(*proposal.read_only, machine.rustup_home))
    made = replace(proposal, guard=guard, env=env, python=machine.python.word)
    if uses_python and machine.python.missing and made.setup is None:
        made = _with_packages(made, facts, machine)
    return made


def _guards(facts: Facts, machine: Machine) -> tuple[Because, ...]:
    """Give the commands that run the repository's own tests."""
    python = shlex.quote(machine.python.word)
    found: list[Because] = []
    if any(t.endswith(".py") for t in facts.tests):
        where = _ci_note(facts, "pytest")
        if facts.pytest:
            command = f"{python} -m pytest -q -p no:cacheprovider"
            folders = dict.fromkeys(
                t.partition("/")[0] if "/" in t else t for t in facts.tests if t.endswith(".py")
            )
            names = [f for f in folders if f != "conftest.py"]
            inside = [n for n in names if any(p.path == n for p in facts.packages)]
            if names and not inside:
                command += " " + " ".join(map(shlex.quote, names))
            found.append(Because(command, f"the tests that are here already{where}"))
        else:
            found.append(
                Because(f"{python} -m unittest", f"the tests that are here already{where}")
            )
    if facts.node is not None and "test" in facts.node.scripts and "npm" in machine.tools:
        if "no test specified" not in facts.node.scripts["test"]:
            found.append(Because("npm test --silent", "`test` of package.json"))
    elif facts.node is not None and any(t.endswith((".js", ".mjs")) for t in facts.tests):
        found.append(Because("node --test", "the tests that are here already"))
    if facts.crate is not None and "cargo" in machine.tools:
        found.append(
            Because(
                'cargo test --quiet --offline --target-dir "$TMPDIR/target"',
                "the crate's tests; built apart, as what is measured comes and goes",
            )
        )
    if facts.go_module and "go" in machine.tools:
        found.append(Because("go test ./...", "the module's tests"))
    return tuple(found)


def _ci_note(facts: Facts, word: str) -> str:
    said = next((c for c in facts.ci_commands if word in c), None)
    return f"; CI runs `{said}`" if said else ""


def _with_packages(proposal: Proposal, facts: Facts, machine: Machine) -> Proposal:
    """Have `setup` install what the interpreter here lacks, and use that one."""
    wanted = [f"-r {facts.requirements_file}"] if facts.requirements_file else []
    wanted += map(shlex.quote, facts.requirements)
    if facts.pytest:
        wanted.append("pytest")
    if not wanted:
        wanted += map(shlex.quote, machine.python.missing)
    setup = (
        "python3 -m venv .venv && echo '*' > .venv/.gitignore"
        f" && .venv/bin/python -m pip install --quiet {' '.join(wanted)}"
    )
    word, own = shlex.quote(machine.python.word), ".venv/bin/python"

    def use(because: Because) -> Because:
        return because._replace(command=because.command.replace(word, own))

    lacks = ", ".join(machine.python.missing)
    return replace(
        proposal,
        python=own,
        setup=Because(setup, f"no Python here can import {lacks}; the network is there in `setup`"),
        run=use(proposal.run),
        guard=tuple(map(use, proposal.guard)),
    )
