"""`swarm import`: the history of another tool, so that a run can be started from it.

Owns how its files are found and told apart, and where the history is kept: it is no run, and is
found by `warm_start` only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from swarm import lessons
from swarm.errors import PreconditionError, UsageError, remedy
from swarm.formats.family import FORMS, Asked, Files, Form, History, tally
from swarm.formats.text import counted, number, one_line, sanitise
from swarm.launch import read_imported
from swarm.records import DIFF_LIMIT, Goal
from swarm.repo import Place, change, create_run_ignore, locate
from swarm.report import save
from swarm.rundir import RUN_NAME, RunDir, imported, runs_folder
from swarm.sections import closest
from swarm.terminal import emit, emit_json, say

BIGGEST = 64 * 2**20
"""Bytes of one file: a history is text that people read."""


class Wish(NamedTuple):
    """What `swarm import` was asked for."""

    path: Path
    form: str | None = None
    goal: Goal | None = None
    metric: str | None = None
    name: str | None = None
    directory: Path | None = None
    """Whose repository is to have it; None is where we are."""
    dry_run: bool = False
    json: bool = False


class _Found(NamedTuple):
    form: str
    at: Path
    """The file, or the directory of many."""
    files: Files


def import_history(wish: Wish) -> None:
    """Do what `swarm import` does.

    Raises:
        UsageError: nothing is found, or it says too little.
        PreconditionError: a file cannot be read or written.
        RepositoryError: there is no repository to keep it in.
    """
    place = locate(wish.directory or Path.cwd())
    found = _find(wish.path, wish.form)
    name = wish.name or _name_of(found.at)
    if not RUN_NAME.fullmatch(name):
        raise UsageError(f"{name!r} is no name for a history", hint="use a-z, 0-9, `.`, `_`, `-`")
    read = FORMS[found.form].read(found.files, Asked(name, wish.metric, wish.goal))
    if not read.experiments:
        raise UsageError(f"`{found.at}` holds no experiment", hint="there is nothing to learn from")
    kept = _with_changes(read, place)
    out = imported(place.top, name)
    if not wish.dry_run:
        _keep(out, kept, found.at, place.top)
    _tell(kept, found, None if wish.dry_run else out, as_json=wish.json)


# --- finding -----------------------------------------------------------------------------------


def _find(path: Path, form: str | None) -> _Found:
    """Find the one history that is meant."""
    if form is not None and form not in FORMS:
        near = closest(form, tuple(FORMS), 0.4)
        meant = f"did you mean `{near}`? " if near else ""
        raise UsageError(f"there is no form {form!r}", hint=f"{meant}there is {_known()}")
    if not path.exists():
        raise UsageError(f"there is no `{path}`", hint="give a results file, or its directory")
    tried = FORMS if form is None else {form: FORMS[form]}
    found = [f for name, known in tried.items() for f in _all_of(path, name, known)]
    if not found:
        wanted = "a results file of any form" if form is None else f"what {form} writes"
        looked = "; ".join(f"{n}: {', '.join(f.finds[:2])}" for n, f in tried.items())
        where = "" if path.is_file() else f" Looked for {looked}."
        raise UsageError(f"`{path}` is not, and does not hold, {wanted}.{where}", hint=_known())
    if len(found) > 1:
        several = ", ".join(f"{f.form} (`{f.at}`)" for f in found[:6])
        raise UsageError(
            f"`{path}` holds {len(found)} histories: {several}",
            hint="give the file itself, or --form",
        )
    return found[0]


def _known() -> str:
    return "; ".join(f"`{name}`: {form.says}" for name, form in FORMS.items())


def _all_of(path: Path, name: str, form: Form) -> Iterator[_Found]:
    """Give all histories of one form that lie at a path."""
    for mains in _mains(path, form):
        at = mains[0]
        beside = (at.parent / more for more in form.beside)
        paths = [*mains, *(p for p in beside if p.is_file() and p not in mains)]
        texts = {p.name: _text(p) for p in paths}
        if form.known({p.name: texts[p.name] for p in mains}):
            yield _Found(name, at.parent if form.many and len(mains) > 1 else at, texts)


def _mains(path: Path, form: Form) -> list[list[Path]]:
    if path.is_file():
        return [[path]]
    for place, glob in enumerate(form.finds):
        if place and form.instead and (path / form.instead).is_dir():
            return []
        found = sorted(p for p in path.glob(glob) if p.is_file())
        if found:
            return [found] if form.many else [[p] for p in found]
    return []


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > BIGGEST:
            raise UsageError(f"`{path}` is larger than {BIGGEST >> 20} MiB", hint="cut it")
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        what = f"cannot read `{path}`: {error.strerror}"
        raise PreconditionError(what, hint=remedy(error), path=path) from error


def _name_of(at: Path) -> str:
    """Name a history after its file, or its folder where the file's name says nothing."""
    said = at.stem.removesuffix("-results")
    if at.is_dir() or said in ("results", "log", "autoresearch", "agenthub"):
        folders = (p.name for p in at.resolve().parents if not p.name.startswith("."))
        said = next((n for n in folders if n not in ("experiments", "public", "")), "history")
    return re.sub(r"[^a-z0-9._-]+", "-", said.lower()).strip("-._") or "history"


# --- keeping -----------------------------------------------------------------------------------


def _with_changes(history: History, place: Place) -> History:
    """Give the experiments their diffs, as far as the repository still has their commits."""
    known = 0
    entries = list(history.entries)
    for at, entry in enumerate(entries):
        told = entry.commit is not None and entry.status != "baseline" and known < lessons.LEGACY
        if told and (diff := change(place, entry.commit or "")):
            known += 1
            entries[at] = entry.model_copy(update={"diff": sanitise(diff)[:DIFF_LIMIT]})
    return history.model_copy(update={"entries": tuple(entries)})


def _keep(out: Path, history: History, source: Path, top: Path) -> None:
    if RunDir(runs_folder(top) / history.name).exists():
        raise UsageError(
            f"there is a run `{history.name}` already", hint="give the history another --name"
        )
    kept = history.model_copy(update={"source": str(source.resolve())})
    # What has grown since is read anew; what came from elsewhere is not lost.
    if out.exists() and read_imported(out).source != kept.source:
        raise UsageError(
            f"there is a history `{history.name}` already, of another origin",
            hint=f"give another --name, or remove `{out}`",
        )
    try:
        create_run_ignore(top / ".swarm")
        out.parent.mkdir(exist_ok=True)
        save(out, kept.model_dump_json(indent=1) + "\n")
    except OSError as error:
        what = f"cannot write `{out}`: {error.strerror}"
        raise PreconditionError(what, hint=remedy(error), path=out) from error


def _tell(history: History, found: _Found, out: Path | None, *, as_json: bool) -> None:
    sums, spec = tally(history), history.metric
    if as_json:
        emit_json(
            {
                "name": history.name,
                "form": found.form,
                "source": str(found.at),
                "metric": spec.name,
                "goal": spec.goal,
                "unit": spec.unit,
                **sums._asdict(),
                "notes": list(history.notes),
                "out": None if out is None else str(out),
            }
        )
        return
    emit(
        f"{found.form} history `{history.name}`: {counted(sums.experiments, 'experiment')}, "
        f"{sums.kept} kept, {sums.discarded} discarded, {sums.crashed} crashed"
    )
    emit(
        f"{spec.goal} {one_line(spec.name)}: baseline {number(sums.baseline)}, "
        f"best {number(sums.best)}"
    )
    for note in history.notes:
        say(f"swarm: {note}")
    if out is not None:
        say(f"swarm: start a run from it with `warm_start: {history.name}` in its config")
