"""`swarm import`: the history of another tool, so that a run can be started from it.

Owns how its files are found and told apart, and where the history is kept: it is no run, and is
found by `warm_start` only.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from swarm import lessons
from swarm.errors import PreconditionError, RepositoryError, UsageError, remedy
from swarm.formats.family import FORMS, Asked, Files, Form, History, tally
from swarm.formats.text import counted, number, one_line, sanitise
from swarm.launch import read_imported
from swarm.records import DIFF_LIMIT, Goal
from swarm.repo import Place, changes, create_run_ignore, locate
from swarm.report import save
from swarm.rundir import RUN_NAME, RunDir, imported, runs_folder
from swarm.sections import unknown
from swarm.terminal import emit, emit_json, say

BIGGEST = 64 * 2**20
"""Bytes of one file: a history is text that people read."""
LONGEST_NAME = 100


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
    place = _repository(wish)
    found = _find(wish.path, wish.form)
    name = wish.name or _name_of(found.at)
    if not RUN_NAME.fullmatch(name) or len(name) > LONGEST_NAME:
        raise UsageError(
            f"{one_line(name, 60)!r} is no name for a history",
            hint=f"use a-z, 0-9, `.`, `_`, `-`, {LONGEST_NAME} characters at most",
        )
    history = _read(found, Asked(name, wish.metric, wish.goal))
    out = None
    if place is not None:
        out = _free(history, place.top)
        history = _with_changes(history, place)
    if out is not None and not wish.dry_run:
        _keep(out, history)
    _tell(history, found, None if wish.dry_run else out, as_json=wish.json)


def _repository(wish: Wish) -> Place | None:
    """Find who is to have it; to look at a history none is needed."""
    try:
        return locate(wish.directory or Path.cwd())
    except RepositoryError:
        if wish.dry_run:
            return None
        raise


# --- finding -----------------------------------------------------------------------------------


def _find(path: Path, form: str | None) -> _Found:
    """Find the one history that is meant."""
    if form is not None and form not in FORMS:
        raise unknown("form", form, tuple(FORMS), _known())
    tried = FORMS if form is None else {form: FORMS[form]}
    try:
        if not path.exists():
            raise UsageError(f"there is no `{path}`", hint="give a results file, or its directory")
        found = [f for name, known in tried.items() for f in _all_of(path, name, known)]
    except OSError as error:
        what = f"cannot look at `{one_line(str(path), 200)}`: {error.strerror}"
        raise PreconditionError(what, hint=remedy(error), path=path) from error
    if not found:
        wanted = "a results file of any form" if form is None else f"what {form} writes"
        raise UsageError(f"`{path}` is not, and does not hold, {wanted}", hint=_known())
    if len(found) > 1:
        several = ", ".join(f"{f.form} (`{f.at}`)" for f in found[:6])
        raise UsageError(
            f"`{path}` holds {len(found)} histories: {several}",
            hint="give the file itself, or --form",
        )
    return found[0]


def _known() -> str:
    return "; ".join(f"`{name}` ({form.finds[0]}): {form.says}" for name, form in FORMS.items())


def _all_of(path: Path, name: str, form: Form) -> Iterator[_Found]:
    """Give all histories of one form that lie at a path."""
    for mains in _mains(path, form):
        at = mains[0].parent if form.many and path.is_dir() else mains[0]
        beside = [mains[0].parent / more for more in form.beside]
        # Only what was named must be readable: what lies around it may be anything.
        texts = {p: _text(p, named=p == path) for p in (*mains, *beside)}
        files = {
            os.path.relpath(p, mains[0].parent): text
            for p, text in texts.items()
            if text is not None
        }
        own = {name: text for name, text in files.items() if "/" not in name}
        if own and form.known(own):
            yield _Found(name, at, files)


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


def _text(path: Path, *, named: bool) -> str | None:
    """Give the text of a file, its line ends as they are; None of one that is none of ours."""
    try:
        if path.stat().st_size <= BIGGEST:
            return path.read_bytes().decode("utf-8-sig", "replace")
    except OSError as error:
        if not named:
            return None
        what = f"cannot read `{path}`: {error.strerror}"
        raise PreconditionError(what, hint=remedy(error), path=path) from error
    if named:
        raise UsageError(f"`{path}` is larger than {BIGGEST >> 20} MiB", hint="cut it")
    return None


def _name_of(at: Path) -> str:
    """Name a history after its file, or its folder where the file's name says nothing."""
    said = at.stem.removesuffix("-results")
    if at.is_dir() or said in ("results", "log", "autoresearch", "agenthub"):
        own = [at, *at.resolve().parents] if at.is_dir() else at.resolve().parents
        folders = (p.resolve().name for p in own)
        shared = ("experiments", "public", "attempts", "")
        said = next((n for n in folders if n not in shared and n[0] != "."), "history")
    name = re.sub(r"[^a-z0-9._-]+", "-", said.lower()).strip("-._")
    return name[:LONGEST_NAME] or "history"


# --- reading and keeping -----------------------------------------------------------------------


def _read(found: _Found, asked: Asked) -> History:
    try:
        history = FORMS[found.form].read(found.files, asked)
    except ValueError as error:  # a stranger's file may hold what no reader has thought of
        what = f"`{found.at}` cannot be read as {found.form}: {one_line(str(error), 200)}"
        raise UsageError(what, hint="mend the file, or give another --form") from error
    if not history.experiments:
        raise UsageError(f"`{found.at}` holds no experiment", hint="there is nothing to learn from")
    return history.model_copy(update={"source": str(found.at.resolve())})


def _with_changes(history: History, place: Place) -> History:
    """Give the experiments their diffs, as far as the repository still has their commits."""
    commits = [e.commit for e in history.experiments if e.commit is not None]
    known = changes(place, commits, lessons.LEGACY)
    entries = tuple(
        e.model_copy(update={"diff": sanitise(known[e.commit])[:DIFF_LIMIT]})
        if e.status != "baseline" and e.commit in known
        else e
        for e in history.entries
    )
    return history.model_copy(update={"entries": entries})


def _free(history: History, top: Path) -> Path:
    """Give the file that a history is kept in, if its name is free."""
    if RunDir(runs_folder(top) / history.name).exists():
        raise UsageError(
            f"there is a run `{history.name}` already", hint="give the history another --name"
        )
    out = imported(top, history.name)
    # What has grown since is read anew; what came from elsewhere is not lost.
    if out.exists() and read_imported(out).source != history.source:
        raise UsageError(
            f"there is a history `{history.name}` already, of another origin",
            hint=f"give another --name, or remove `{out}`",
        )
    return out


def _keep(out: Path, history: History) -> None:
    try:
        create_run_ignore(out.parent.parent)
        out.parent.mkdir(exist_ok=True)
        save(out, history.model_dump_json(indent=1) + "\n")
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
