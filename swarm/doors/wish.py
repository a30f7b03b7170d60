"""`swarm try`: an objective, a command that prints a number, and the files that may change.

Owns what is made of the three: the goal, the name of the metric, the scope, the agents, and the
YAML that says the same. The command itself is taken as it is written.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from swarm.config import RunConfig
from swarm.doors.draft import Draft, Entered, Ground, proposing, slug
from swarm.doors.objective import direction, metric_name
from swarm.doors.scopes import Unresolved, globs_of, measured_by, resolve, told
from swarm.doors.surroundings import check_programs, give_gpus, surround, with_caches
from swarm.errors import ConfigError, PreconditionError, Problem, UsageError
from swarm.formats.improve_md import parts
from swarm.formats.text import duration
from swarm.groups import CLIS
from swarm.quantities import Duration, MetricName
from swarm.records import Goal
from swarm.yaml_marks import to_yaml

TIMEOUT = "5m"
STALE = 20
"""Experiments without a keep after which a try is over."""
_TAIL = re.compile(r"(\|\s*tail)\s+(?:-n\s*)?-?1\s*$")
_DATA = Path(".cache/autoresearch")
_DURATION: TypeAdapter[float] = TypeAdapter(Duration)
_NAME: TypeAdapter[str] = TypeAdapter(MetricName)


@dataclass(frozen=True)
class Wish:
    """What `swarm try` was asked for."""

    objective: str
    measure: str
    scope: str
    timeout: str = TIMEOUT
    goal: Goal | None = None
    metric: str | None = None
    save: Path | None = None
    folder: Path = Path()

    @property
    def words(self) -> tuple[str, ...]:
        """The command line that says the same."""
        words = ["swarm", "try", self.objective, self.measure, self.scope]
        words += [self.timeout] if self.timeout != TIMEOUT else []
        words += ["--goal", self.goal] if self.goal is not None else []
        return (*words, *(["--metric", self.metric] if self.metric is not None else []))

    def enter(self, overrides: Sequence[str] = ()) -> Entered:
        """Make a run of it; write it to `save`, too, if that is given.

        Raises:
            UsageError: the words do not tell what is wanted.
            ConfigError: a `--set` is wrong.
            PreconditionError: the repository or a program is not as it is needed.
        """
        draft = self._draft()
        try:
            ground = draft.look(overrides)
            self._set_scope(draft, ground, overrides)
            self._surround(draft, ground)
            config = draft.settle(overrides)
        except ConfigError as error:
            raise _without_places(error) from None
        check_programs(config)
        if self.save is not None:
            self._write(draft, overrides)
        return Entered(config, (*_summary(config), *draft.notes))

    def _draft(self) -> Draft:
        if not self.objective.strip():
            raise UsageError("the objective is empty", hint="say what is to get better")
        if not self.measure.strip():
            raise UsageError("there is no measure", hint="give a command that prints a number")
        name = self._metric()
        metric = {"name": name, "goal": self._goal(), "lines": "last"}
        target: dict[str, Any] = {
            "repo": ".",
            "scope": ["."],
            "program": f"# Objective\n\n{self.objective.strip()}\n",
            "run": self.measure,
            "metric": metric,
            "timeout": self._timeout(),
        }
        data: dict[str, Any] = {
            "name": slug(self.objective, "try"),
            "target": target,
            "judge": {"keep_if_equal": "simpler"},
            "budget": {"stale": STALE},
        }
        draft = Draft(self.folder / "swarm try", data)
        ruff = re.search(r"\bruff\s+check\b", self.measure)
        if ruff and _TAIL.search(self.measure):
            # ruff says behind its count how much of it is fixable.
            target["run"] = _TAIL.sub(r"\1 -n 5", self.measure)
            draft.notes.append(f"measure  {target['run']}   (ruff's count is not its last line)")
        return draft

    def _goal(self) -> Goal:
        if self.goal is not None:
            return self.goal
        found = direction(self.objective)
        if found is None:
            raise UsageError(
                f"the objective {self.objective!r} does not tell whether the number is to go down "
                "or up",
                hint="add --goal minimize or --goal maximize",
            )
        return found.goal

    def _metric(self) -> str:
        if self.metric is None:
            return metric_name(self.objective, self.measure)
        try:
            return _NAME.validate_python(self.metric)
        except ValidationError as error:
            raise UsageError(f"--metric: {error.errors()[0]['msg']}") from None

    def _timeout(self) -> str | float:
        text = self.timeout.strip()
        value = float(text) if re.fullmatch(r"\d+(?:\.\d+)?", text) else text
        try:
            _DURATION.validate_python(value)
            return value
        except ValidationError as error:
            raise UsageError(
                f"TIMEOUT: {error.errors()[0]['msg']}", hint="for one measurement; 5m without it"
            ) from None

    def _set_scope(self, draft: Draft, ground: Ground, overrides: Sequence[str]) -> None:
        named = parts(self.scope)
        if not named:
            raise UsageError("there is no scope", hint="name the files that may change")
        found = globs_of(named, ground)
        if isinstance(found, Unresolved) and " " in self.scope:
            several = globs_of(self.scope.replace(",", " ").split(), ground)
            if not isinstance(several, Unresolved):
                found = several
            else:
                resolved = resolve(self.scope, ground, draft.settle(overrides))
                if not isinstance(resolved, Unresolved):
                    found, note = resolved
                    draft.notes.append(note)
                    draft.target["program"] += f"\n{told(self.scope)}\n"
        if isinstance(found, Unresolved):
            raise UsageError(
                f"SCOPE: {found.message}", hint="a file, a directory, or globs with commas"
            )
        draft.target["scope"] = found
        if measuring := measured_by(self.measure, found, ground.files):
            shown = ", ".join(measuring[:4]) + (", ..." if len(measuring) > 4 else "")
            draft.notes.append(
                f"warning  the scope holds what measures it: {shown}; a change there can make the "
                "number say anything. Name a narrower scope, or keep it as it is: "
                f"--set 'target.exclude=[{', '.join(measuring[:4])}]'"
            )

    def _surround(self, draft: Draft, ground: Ground) -> None:
        target = draft.target
        data = Path.home() / _DATA
        prepare = ground.folder / "prepare.py"
        surround(draft, ground)
        if prepare.is_file() and data.is_dir() and "autoresearch" in prepare.read_text("utf-8"):
            target["run"] = with_caches(target["run"], [data])
            target["read_only"] = [str(data)]
            draft.notes.append(f"data     {data}, read-only")
        files = [path for path in target["scope"] if path.endswith(".py")]
        give_gpus(draft, ground, files)

    def _write(self, draft: Draft, overrides: Sequence[str]) -> None:
        """Write the config as YAML, so that it says the same from where it lies."""
        assert self.save is not None
        draft = Draft(draft.path, deepcopy(draft.data))
        if self.save.exists():
            raise UsageError(f"--save: {self.save} exists", hint="name another file")
        here, there = self.folder.absolute(), self.save.absolute().parent
        draft.target["repo"] = os.path.relpath(here, there)
        if overrides:
            draft.data = draft.overridden(overrides)
        head = f"# swarm try: {' '.join(self.objective.split())}\n"
        try:
            self.save.write_text(head + to_yaml(draft.data), encoding="utf-8")
        except OSError as error:
            what = f"cannot write {self.save}: {error.strerror}"
            raise PreconditionError(what, path=self.save) from error


def _summary(config: RunConfig) -> list[str]:
    """Say what is about to be tried, a line each."""
    target, budget = config.target, config.budget
    return [
        f"metric   {target.metric.goal} {target.metric.name}, from the last line that is printed",
        f"measure  {target.run}   (at most {duration(target.timeout)})",
        f"scope    {', '.join(target.scope)}",
        *(
            ["equal    a change that measures as equal is kept if it is simpler"]
            if config.rule().keep_if_equal == "simpler"
            else []
        ),
        *(
            [f"end      after {budget.stale} experiments in a row without a keep"]
            if budget.stale is not None
            else []
        ),
        *proposing(config),
    ]


def _without_places(error: ConfigError) -> ConfigError:
    """Drop the places: there is no file in which anybody could look at them."""
    problems = [Problem(p.message, suggestion=p.suggestion) for p in error.problems]
    return ConfigError("swarm try", problems, hint=error.hint)


def goal_of(word: str | None) -> Goal | None:
    """Read `--goal`, in our words or those of other tools."""
    goals: dict[str, Goal] = {"lower": "minimize", "higher": "maximize"}
    match word:
        case None | "minimize" | "maximize":
            return word
        case _ if word in goals:
            return goals[word]
        case _:
            raise UsageError(f"--goal is minimize or maximize, not {word!r}")


def agents_of(word: str) -> str:
    """Give the `--set` that a `--agent` is short for: mutate, a coding agent, or a model's name."""
    if word == "mutate":
        proposer = "mutate"
    elif word in CLIS:
        proposer = f"{{kind: headless, cli: {word}}}"
    elif re.fullmatch(r"[\w.:/@+-]+", word):
        proposer = f'{{kind: messages, model: "{word}"}}'
    else:
        raise UsageError(
            f"--agent {word!r} is neither mutate nor {', '.join(CLIS)} nor the name of a model"
        )
    return f"agents=[{{count: 2, proposer: {proposer}}}]"
