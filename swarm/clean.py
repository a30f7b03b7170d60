"""What runs leave on the disk, and its removal.

Owns the rules of what may go: never anything of a live run, an unfinished run only by request,
scratch always, since it can be rebuilt. Removal is a rename first, so that no half of a run is
ever taken for one.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import typer

from swarm.errors import RunInUseError, SwarmError, UsageError
from swarm.ledger import is_live, read
from swarm.node import scratch_root
from swarm.removal import remove_tree
from swarm.rundir import RunDir, all_runs, find
from swarm.state import RunState
from swarm.tables import table
from swarm.terminal import emit, emit_json, say, width
from swarm.views import phase

HALF_MADE_S = 3600.0
"""Age from which a directory that a killed launch was still building is nobody's any more."""
_HIDDEN = (".making-", ".removing-")


@dataclass(frozen=True)
class Item:
    """One directory, and what is to become of it."""

    run: str
    what: Literal["run", "scratch", "remains"]
    state: str
    bytes: int
    path: Path
    remove: bool
    why: str


def clean_up(
    name: str | None,
    directory: Path | None,
    *,
    every: bool,
    keep_gb: float | None,
    yes: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Do what `swarm clean` does.

    Raises:
        RunInUseError: the one run that was named is alive.
        UsageError: there is nobody to ask, and no --yes.
    """
    start = (directory or Path.cwd()).resolve()
    one = name is not None or (start / "ledger.jsonl").exists()
    runs = [find(name, directory)] if one else all_runs(start)
    runs = [r for r in runs if not r.run.startswith(_HIDDEN)]
    if one and is_live(runs[0].ledger):
        raise RunInUseError(
            f"run `{runs[0].run}` is alive", hint=f"`swarm stop {runs[0].run}` ends it first"
        )
    items = [*decide(runs, every=every, keep_gb=keep_gb)]
    if runs and not one:
        items += _remains(runs[0].path.parent)
    doomed = [item for item in items if item.remove]
    if not as_json:
        _tell(items, dry_run=dry_run)
    if not dry_run and doomed and (yes or _confirmed(doomed)):
        for item in doomed:
            _remove(item)
    elif not dry_run:
        doomed = []
    if as_json:
        rows = [asdict(item) for item in items]
        freed = sum(item.bytes for item in doomed)
        emit_json({"dry_run": dry_run, "freed_bytes": freed, "items": rows})


def decide(runs: list[RunDir], *, every: bool, keep_gb: float | None) -> list[Item]:
    """Say of every run, the newest first, and of its scratch, whether it goes."""
    items: list[Item] = []
    kept = 0
    for run in runs:
        state, size = _state(run), _size(run.path)
        allowed = state == "finished" or (every and state != "live")
        fits = keep_gb is not None and kept + size <= keep_gb * 1e9
        remove = allowed and not fits
        kept += 0 if remove else size
        why = _why(state, allowed=allowed, fits=fits)
        items.append(Item(run.run, "run", state, size, run.path, remove, why))
        scratch = scratch_of(run)
        if scratch.exists():
            gone, word = state != "live", "in use" if state == "live" else "can be rebuilt"
            items.append(Item(run.run, "scratch", state, _size(scratch), scratch, gone, word))
    return items


def _why(state: str, *, allowed: bool, fits: bool) -> str:
    if state == "live":
        return "it is alive"
    if not allowed:
        return "it is not finished (--all)"
    return "it fits" if fits else "it is over" if state == "finished" else "--all"


def _state(run: RunDir) -> str:
    if is_live(run.ledger):
        return "live"
    try:
        return phase(RunState(read(run.ledger)), live=False)
    except SwarmError:
        return "damaged"


def _remains(folder: Path) -> Iterator[Item]:
    """Give what launches and cleanings left half done when they were killed."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith(_HIDDEN) and path.is_dir():
            old = time.time() - path.stat().st_mtime > HALF_MADE_S
            word = "half done" if old else "half done, perhaps still at work"
            yield Item(path.name, "remains", "-", _size(path), path, old, word)


def scratch_of(run: RunDir) -> Path:
    """Give the directory of a run in this machine's scratch."""
    return scratch_root() / run.scratch_key


def remove_scratch(run: RunDir) -> None:
    """Remove what a run left in this machine's scratch."""
    _remove_tree(scratch_of(run))


def _size(path: Path) -> int:
    """Give the bytes that a directory takes on the disk; links are not followed."""
    total = 0
    for folder, folders, files in os.walk(path):
        for name in (*folders, *files):
            try:
                total += os.lstat(os.path.join(folder, name)).st_blocks * 512
            except OSError:
                continue
    return total


def _remove(item: Item) -> None:
    if item.what != "run":
        _remove_tree(item.path)
        return
    if is_live(item.path / "ledger.jsonl"):  # it was launched while we asked
        say(f"swarm: run {item.run} is alive now, so it stays")
        return
    aside = item.path.with_name(f".removing-{item.path.name}-{os.getpid()}")
    item.path.rename(aside)
    _remove_tree(aside)


def _remove_tree(path: Path) -> None:
    if not remove_tree(path):
        say(f"swarm: warning: {path} could not be removed completely")


def _tell(items: list[Item], *, dry_run: bool) -> None:
    if not items:
        say("swarm: there is nothing to clean")
        return
    rows = [("", "run", "", "state", "size", "why")]
    for item in items:
        fate = ("would go" if dry_run else "goes") if item.remove else "stays"
        rows.append((fate, item.run, item.what, item.state, megabytes(item.bytes), item.why))
    emit(table(rows, right=frozenset({4}), width=width()))


def megabytes(size: float) -> str:
    """Give a size in the largest unit that fits it: `3.2 MB`, `1.4 GB`."""
    for limit, unit in ((1e9, "GB"), (1e6, "MB")):
        if size >= limit:
            return f"{size / limit:.1f} {unit}"
    return f"{size / 1e3:.0f} kB"


def _confirmed(doomed: list[Item]) -> bool:
    runs = [item for item in doomed if item.what == "run"]
    if not runs:
        return True
    if not sys.stdin.isatty():
        raise UsageError(
            f"{len(runs)} runs would be removed, and nobody is there to confirm it",
            hint="--yes removes them, --dry-run only lists them",
        )
    size = megabytes(sum(item.bytes for item in doomed))
    plural = "s" if len(runs) > 1 else ""
    return typer.confirm(f"Remove {len(runs)} run{plural} for good ({size})?", err=True)
