"""`swarm export`: a config or a run in a form that others can read.

Owns the table of forms, how the thing to be exported is found (a config file, or a run), and where
the files go. What a form says is in `formats`.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

from swarm import commands, jobs, lessons, mustering
from swarm import config as configs
from swarm.bundled import HARNESS, bundled
from swarm.config import RunConfig
from swarm.doors import enter
from swarm.errors import PreconditionError, UsageError
from swarm.formats import family, program_md
from swarm.formats.family import Files, History, of_run
from swarm.report import save
from swarm.sections import unknown
from swarm.state import RunState
from swarm.terminal import emit_foreign, emit_json, say


class Source(NamedTuple):
    """What is exported: a config, or a run with the config that it has."""

    config: RunConfig
    state: RunState | None = None
    metric: str | None = None
    """What the metric is called in results, where another tool looks for a certain name."""


class Form(NamedTuple):
    """One form that a source can be put into."""

    says: str
    """What it is, in a few words, for help and errors."""
    write: Callable[[Source], Files]
    """Its files, by the path that they have below a directory."""
    ours: bool = False
    """Whether the first line tells that swarm wrote it, so that it may be overwritten."""


def program(source: Source) -> str:
    """Give the protocol as one agent alone would follow it.

    Raises:
        UsageError: the page cannot say how the number is read.
    """
    config, state, metric = source
    target = config.target
    if metric is not None:
        raise UsageError("--metric is for results, and program.md has none", hint="leave it out")
    if target.metric.lines == "last":
        raise UsageError(
            "the number is read from the last line of the output, which program.md cannot say",
            hint="give the metric a `pattern` with one group, or print `METRIC name=value`",
        )
    found = None if state is None else state.targets.get(target.name)
    asks = (target.run, target.score, target.setup, *target.guard)
    text = " ".join(part for c in asks if c for part in ((c,) if isinstance(c, str) else c))
    told = program_md.Told(
        program=mustering.program(target),
        limits=mustering.limits_on(target),
        counts=jobs.what_counts(config.rule(), target.metric.spec),
        base=None if found is None else found.info.base,
        harness=str(bundled("harness")) if HARNESS in text else None,
        lessons="" if state is None or found is None else lessons.render(state, target.name),
    )
    return program_md.write(config, told)


def _program(source: Source) -> Files:
    return {"program.md": program(source)}


def results(write: Callable[[History], Files], source: Source) -> Files:
    """Give what a run has tried as another tool would have noted it.

    Raises:
        UsageError: the source is no run, or has no experiment yet.
    """
    config, state, metric = source
    target = config.target
    if state is None:
        raise UsageError(
            "a config has no results", hint="name a run; `swarm experiments` lists what one has"
        )
    if target.name not in state.targets:
        raise PreconditionError(
            f"run `{state.run}` has not begun", hint="export it when it has measured its base"
        )
    run = target.run if isinstance(target.run, str) else shlex.join(target.run)
    told = of_run(state, target.name, target.scope)
    spec = told.metric.model_copy(update={"name": metric or told.metric.name})
    return write(told.model_copy(update={"run": run, "metric": spec}))


FORMS: Mapping[str, Form] = {
    "program.md": Form(
        "the whole protocol, for one coding agent without swarm",
        _program,
        ours=True,
    ),
    **{
        name: Form(f"results for {form.says}", partial(results, form.write))
        for name, form in family.FORMS.items()
        if form.write is not None
    },
}


def export(
    form: str,
    source: str | None,
    *,
    directory: Path | None,
    overrides: tuple[str, ...],
    target: str | None,
    metric: str | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Do what `swarm export` does; `target` says which of several, `metric` its name there.

    Raises:
        UsageError: there is no such form.
        ConfigError: the config is wrong.
        PreconditionError: there is no such run, or the file cannot be written.
    """
    if form not in FORMS:
        known = "; ".join(f"`{name}`: {known.says}" for name, known in FORMS.items())
        raise unknown("form", form, tuple(FORMS), known)
    found = _narrowed(_find(source, directory, overrides), target)
    files = FORMS[form].write(found._replace(metric=metric))
    if out is not None:
        placed = _placed(out, files)
        _check_free(form, placed)
        for path, text in placed.items():
            _save(path, text, below=out)
    elif len(files) > 1 and not as_json:
        raise UsageError(
            f"{form} is {len(files)} files: {', '.join(list(files)[:3])}",
            hint="say with --out which directory they go to",
        )
    if as_json:
        emit_json({"form": form, "out": None if out is None else str(out), "files": dict(files)})
    elif out is None:
        emit_foreign(next(iter(files.values())))


def _find(name: str | None, directory: Path | None, overrides: tuple[str, ...]) -> Source:
    """Take a file for a config, and anything else for the name of a run."""
    path = None if name is None else Path(name)
    if path is not None and (path.exists() or path.suffix in (".yaml", ".yml")):
        return Source(enter(path, overrides).config)
    if overrides:
        raise UsageError("--set changes a config, and a run has its own", hint="give a config file")
    seen = commands.look(name, directory)
    stored = seen.rundir.config
    try:
        config = configs.restore(stored.read_text(encoding="utf-8"))
    except OSError as error:
        what = f"cannot read the config of run `{seen.rundir.run}`: {error.strerror}"
        raise PreconditionError(what, hint="export from the config file", path=stored) from error
    return Source(config, seen.state)


def _narrowed(source: Source, target: str | None) -> Source:
    """Keep to one target: a form speaks of one metric."""
    names = [t.name for t in source.config.targets]
    if target is None and len(names) == 1:
        target = names[0]
    if target not in names:
        what = "which target is meant?" if target is None else f"there is no target `{target}`"
        raise UsageError(what, hint=f"--target names one of {', '.join(names)}")
    config = source.config.only(target)
    own = config.target.budget.model_dump(exclude_none=True)
    return source._replace(
        config=config.model_copy(update={"budget": config.budget.model_copy(update=own)})
    )


def _placed(out: Path, files: Files) -> dict[Path, str]:
    """Say where each file goes: one alone to `out` itself, unless it has a place in a directory."""
    alone = len(files) == 1 and "/" not in next(iter(files))
    if alone and not out.is_dir():
        return {out: next(iter(files.values()))}
    return {out / name: text for name, text in files.items()}


def _check_free(form: str, placed: dict[Path, str]) -> None:
    """Refuse to write over what is not ours, before anything is written."""
    ours = FORMS[form].ours
    many = form in family.FORMS and family.FORMS[form].many
    for out, text in placed.items():
        try:
            taken = out.exists() and not (ours and _is_ours(out, text))
            mixed = many and out.parent.is_dir() and any(out.parent.iterdir())
        except OSError as error:
            raise commands.cannot_write(out, error) from error
        if taken or mixed:
            # Another tool's results look like those that are exported in its form.
            whose = "was not written by `swarm export`" if ours else "may be another tool's own"
            raise UsageError(
                f"`{out if taken else out.parent}` exists, and {whose}",
                hint="give another --out, or remove it first",
            )


def _save(out: Path, text: str, *, below: Path) -> None:
    try:
        if out != below:
            out.parent.mkdir(parents=True, exist_ok=True)
        save(out, text)
    except OSError as error:
        raise commands.cannot_write(out, error) from error
    say(f"swarm: wrote {out}")


def _is_ours(out: Path, text: str) -> bool:
    """Tell whether a file begins as an export does; a person's own is not overwritten."""
    with open(out, encoding="utf-8", errors="replace") as file:
        return file.readline().rstrip("\n") == text.partition("\n")[0]
