"""A `.auto/` folder of pi-autoresearch as a run.

Owns what each of its files becomes: `prompt.md` the program and the scope, `measure.sh` the
command, `checks.sh` the guard, the config line of `log.jsonl` the metric, `config.json` the limit.
The flat files of older versions are read only where there is no `.auto/`. Writes none of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, cast

from swarm.doors.draft import Draft, Entered, Ground, proposing, slug
from swarm.doors.scopes import Unresolved, globs_of
from swarm.doors.surroundings import check_programs, give_gpus, surround
from swarm.errors import ConfigError, PreconditionError, Problem
from swarm.yaml_marks import read


class Layout(NamedTuple):
    """Where the files lie, relative to the directory."""

    prompt: str
    measure: str
    checks: str
    log: str
    config: str
    hooks: str


NEW = Layout(
    *(".auto/prompt.md", ".auto/measure.sh", ".auto/checks.sh", ".auto/log.jsonl"),
    *(".auto/config.json", ".auto/hooks"),
)
OLD = Layout(
    *("autoresearch.md", "autoresearch.sh", "autoresearch.checks.sh", "autoresearch.jsonl"),
    *("autoresearch.config.json", "autoresearch.hooks"),
)


class Metric(NamedTuple):
    """What is optimised."""

    name: str
    goal: str
    unit: str | None = None


def layout_of(folder: Path) -> Layout | None:
    """Find the files; any artefact in `.auto/` makes the old ones count for nothing."""
    if (folder / ".auto").is_dir() and any((folder / ".auto").iterdir()):
        return NEW
    return OLD if (folder / OLD.measure).is_file() else None


def enter_auto(folder: Path, layout: Layout, overrides: Sequence[str] = ()) -> Entered:
    """Make a run of it.

    Raises:
        ConfigError: a file is missing or says too little.
        PreconditionError: the repository or a program is not as it is needed.
    """
    absent = [n for n in (layout.prompt, layout.measure) if not (folder / n).is_file()]
    if absent:
        problems = [Problem(f"there is no {name}") for name in absent]
        hint = "prompt.md says what may change and why, measure.sh prints `METRIC name=value`"
        raise ConfigError(folder, problems, hint=hint)
    draft = _draft(folder, layout)
    ground = draft.look(overrides)
    _committed(folder, layout, ground)
    prompt = read(folder / layout.prompt)
    draft.target["scope"] = _files(folder, layout, prompt, "Files in Scope", ground)
    draft.target["exclude"] = [*_off_limits(prompt, ground), ".auto/", *OLD]
    surround(draft, ground)
    give_gpus(draft, ground, draft.target["scope"])
    config = draft.settle(overrides)
    check_programs(config)
    return Entered(config, (*draft.notes, *proposing(config)))


def _draft(folder: Path, layout: Layout) -> Draft:
    settings = _object(folder / layout.config)
    metric = _metric(folder, layout)
    directory = settings.get("workingDir")
    if directory not in (None, "", "."):
        raise ConfigError(
            folder / layout.config,
            [Problem("`workingDir`: the files have to lie in the directory that is measured")],
            hint=f"swarm launch {directory}   (with the files there)",
        )
    target: dict[str, Any] = {
        "repo": ".",
        "scope": ["."],
        "program": layout.prompt,
        "run": f"bash {layout.measure}",
        "metric": {"name": metric.name, "goal": metric.goal},
    }
    unit = metric.unit or next((u for end, u in _UNITS if metric.name.endswith(end)), None)
    if unit is not None:
        target["metric"]["unit"] = unit
    if (folder / layout.checks).is_file():
        target["guard"] = [f"bash {layout.checks}"]
    data: dict[str, Any] = {
        "name": slug(folder.absolute().name, "auto"),
        "target": target,
    }
    draft = Draft(folder / "auto", data)
    most = settings.get("maxIterations")
    if type(most) is int and most > 0:
        data["budget"] = {"experiments": most}
    draft.notes.append(f"layout   pi-autoresearch: {layout.prompt}, {layout.measure}")
    if (folder / layout.hooks).is_dir():
        draft.notes.append(f"warning  hooks are not run: {layout.hooks}")
    return draft


# --- files --------------------------------------------------------------------------------------


def _object(path: Path) -> dict[str, Any]:
    """Read a JSON object, {} if there is no such file."""
    if not path.is_file():
        return {}
    text = read(path)
    try:
        found: object = json.loads(text)
    except ValueError as error:
        line = getattr(error, "lineno", None)
        raise ConfigError(path, [Problem(f"not JSON: {error}", line)]) from None
    if not isinstance(found, dict):
        raise ConfigError(path, [Problem("a JSON object is wanted")])
    return cast("dict[str, Any]", found)


def _committed(folder: Path, layout: Layout, ground: Ground) -> None:
    """Refuse commands that no export would hold."""
    scripts = [n for n in (layout.measure, layout.checks) if (folder / n).is_file()]
    loose = [name for name in scripts if name not in ground.files]
    if loose:
        names = " ".join(loose)
        raise PreconditionError(
            f"not in the base commit, so that no measurement would have it: {', '.join(loose)}",
            hint=f"git add -f {names} && git commit -m 'how it is measured'",
            path=folder,
        )


# --- the metric ---------------------------------------------------------------------------------

_PRIMARY = re.compile(
    r"primary\W*?[:\s*`]+([\w.µ]+)`?\s*(?:\(\s*([^,()]*?)\s*,?\s*(lower|higher) is better\s*\))?",
    re.IGNORECASE,
)
_UNITS = (("µs", "µs"), ("_ms", "ms"), ("_s", "s"), ("_sec", "s"), ("_kb", "kb"), ("_mb", "mb"))
"""What the end of a name says of its unit, where the log does not."""
_GOALS = {"lower": "minimize", "higher": "maximize"}


def _metric(folder: Path, layout: Layout) -> Metric:
    """Find the metric in the last config line of the log, else in the prompt."""
    log = folder / layout.log
    configs = [c for c in _lines(log) if c.get("type") == "config"] if log.is_file() else []
    for config in reversed(configs):
        name = config.get("metricName")
        if isinstance(name, str) and name:
            unit = config.get("metricUnit")
            # A direction that is not given is `lower`.
            goal = _GOALS["higher" if config.get("bestDirection") == "higher" else "lower"]
            return Metric(name, goal, unit if isinstance(unit, str) and unit else None)
    section = "\n".join(_section(read(folder / layout.prompt), "Metrics"))
    if match := _PRIMARY.search(section):
        goal = _GOALS[(match[3] or "lower").lower()]
        return Metric(match[1], goal, match[2] or None)
    raise ConfigError(
        folder / layout.prompt,
        [Problem("the metric is not named: neither here below `## Metrics`, nor in " + layout.log)],
        hint="write below `## Metrics`:  - **Primary**: total_ms (ms, lower is better)",
    )


def _lines(log: Path) -> list[dict[str, Any]]:
    """Give the objects of a log; what cannot be read is skipped, as the tool itself does."""
    found: list[dict[str, Any]] = []
    for line in read(log).splitlines():
        with suppress(ValueError):
            value: object = json.loads(line)
            if isinstance(value, dict):
                found.append(cast("dict[str, Any]", value))
    return found


# --- the prompt ---------------------------------------------------------------------------------


def _section(text: str, title: str) -> list[str]:
    """Give the lines below a heading of the second level."""
    found: list[str] = []
    inside = False
    for line in text.splitlines():
        if line.startswith("## "):
            inside = line[3:].strip().lower().startswith(title.lower())
        elif inside:
            found.append(line)
    return found


def _named(lines: Sequence[str]) -> list[str]:
    """Give what a list names: what stands in backticks, else the first word of a point."""
    found: list[str] = []
    for line in lines:
        point = re.match(r"\s*(?:[-*+]|\d+\.)\s+(.*)", line)
        if point is None:
            continue
        quoted = re.findall(r"`([^`\s]+)`", re.split(r"\s(?:—|–|--|-)\s|:\s", point[1])[0])
        words = re.split(r"[\s:,]", point[1].strip("*_ "))
        found += quoted or [word for word in words[:1] if word]
    return found


def _files(folder: Path, layout: Layout, prompt: str, title: str, ground: Ground) -> list[str]:
    named = _named(_section(prompt, title))
    found = globs_of(named, ground) if named else Unresolved(title, ground.files[:8])
    if isinstance(found, Unresolved):
        lines = prompt.splitlines()
        at = next((i for i, x in enumerate(lines, 1) if x.lower().startswith("## files")), None)
        what = found.message if named else f"`## {title}` lists no file; there are "
        more = "" if named else ", ".join(found.candidates)
        raise ConfigError(
            folder / layout.prompt,
            [Problem(what + more, at)],
            hint=f"list the files that may change below `## {title}`:  - `src/main.py`",
        )
    return found


def _off_limits(prompt: str, ground: Ground) -> list[str]:
    """Give what is off limits, as far as it names files: the rest is for the proposers to read."""
    named = (globs_of([name], ground) for name in _named(_section(prompt, "Off Limits")))
    return [glob for found in named if not isinstance(found, Unresolved) for glob in found]
