"""Where the files of a run lie, how a run is found, and how it is spoken to from outside.

Owns names and paths only; what the files hold belongs to others. Control is a folder of small
files, so that it works across processes and machines that share nothing but the run directory.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from swarm.errors import PreconditionError, UsageError

Verb = Literal["pause", "resume", "stop", "interrupt"]
RUN_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")


@dataclass(frozen=True)
class Views:
    """A folder of the files that are made from the ledger."""

    path: Path

    @property
    def results(self) -> Path:
        """The `results.tsv` view."""
        return self.path / "results.tsv"

    @property
    def progress(self) -> Path:
        """The picture of the run."""
        return self.path / "progress.png"

    @property
    def summary(self) -> Path:
        """The summary in Markdown."""
        return self.path / "summary.md"

    @property
    def report(self) -> Path:
        """The report as one HTML file."""
        return self.path / "report.html"

    @property
    def lessons(self) -> Path:
        """What was learned, in Markdown."""
        return self.path / "lessons.md"


@dataclass(frozen=True)
class RunDir(Views):
    """The durable directory of one run, and the files made from all of it."""

    def part(self, part: str) -> Views:
        """Give where the files of a target lie: in a folder of its name, if it has a part."""
        return Views(self.path / part) if part else self

    @property
    def run(self) -> str:
        """The run's id."""
        return self.path.name

    @property
    def ledger(self) -> Path:
        """The truth."""
        return self.path / "ledger.jsonl"

    @property
    def config(self) -> Path:
        """The resolved config."""
        return self.path / "config.json"

    @property
    def hub(self) -> Path:
        """The run's own repository."""
        return self.path / "hub.git"

    @property
    def logs(self) -> Path:
        """Logs of measurements, a folder an experiment; `0` is the base."""
        return self.path / "logs"

    @property
    def ray_log(self) -> Path:
        """What Ray's own processes had to say."""
        return self.path / "ray.log"

    def repository(self, noted: Path, first: Path) -> Path:
        """Give where a target's repository is now.

        The run lies in that of the first target, which may have been moved with what is below it,
        or is seen from a machine that has it at another place. A copy of a run lies in none.

        Args:
            noted: where the target's repository was when the run began.
            first: where that of the first target was.
        """
        top = self.path.parent.parent.parent
        if self.path.parent != runs_folder(top) or not (top / ".git").exists():
            return noted
        return top / noted.relative_to(first) if noted.is_relative_to(first) else noted

    @property
    def scratch_key(self) -> str:
        """Names the run below a node's scratch; unlike its id, unique on a machine."""
        return f"{self.path.name}-{hashlib.sha256(str(self.path).encode()).hexdigest()[:10]}"

    def exists(self) -> bool:
        """Tell whether a run was ever started here."""
        return self.ledger.exists()

    def request(self, verb: Verb) -> None:
        """Ask the coordinator, wherever it runs, for something."""
        folder = self.path / "control"
        folder.mkdir(exist_ok=True)
        name = f"{time.time_ns()}-{os.getpid()}.json"
        temporary = folder / f".{name}"
        temporary.write_text(json.dumps({"verb": verb}))
        temporary.rename(folder / name)

    def requests(self) -> list[Verb]:
        """Take what was asked since the last call, oldest first."""
        folder = self.path / "control"
        try:
            names = sorted(n for n in os.listdir(folder) if n.endswith(".json") and n[0] != ".")
        except FileNotFoundError:
            return []
        verbs: list[Verb] = []
        for name in names:
            try:
                verb = json.loads((folder / name).read_text()).get("verb")
            except (OSError, ValueError, AttributeError):
                verb = None
            (folder / name).unlink(missing_ok=True)
            if verb in get_args(Verb):
                verbs.append(cast("Verb", verb))
        return verbs


def runs_folder(top: Path) -> Path:
    """Give the folder of all runs of a repository, by its git top level."""
    return top / ".swarm" / "runs"


def imported(top: Path, name: str) -> Path:
    """Give the file of a history that `swarm import` has read; it is no run."""
    return top / ".swarm" / "imported" / f"{name}.json"


def all_runs(start: Path) -> list[RunDir]:
    """Give the runs of the nearest `.swarm` at or above `start`, the newest first."""
    for folder in (start, *start.parents):
        runs = runs_folder(folder)
        if runs.is_dir():
            # Other names are runs in the making, or what a kill left of one.
            named = [RunDir(p) for p in runs.iterdir() if RUN_NAME.fullmatch(p.name)]
            found = [(_written(r), r) for r in named if r.exists()]
            return [r for _, r in sorted(found, key=lambda item: item[0], reverse=True)]
    return []


def _written(run: RunDir) -> float:
    try:
        return run.ledger.stat().st_mtime
    except FileNotFoundError:  # removed while we looked
        return 0.0


def find(name: str | None, directory: Path | None = None) -> RunDir:
    """Find a run by name, the newest without one, searching upwards from the working directory.

    Args:
        name: the run's id, or None.
        directory: a run directory, or where to search from instead of the working directory.

    Raises:
        PreconditionError: there is no such run.
        UsageError: the name cannot be a run's.
    """
    start = (directory or Path.cwd()).resolve()
    if name in (None, start.name) and RunDir(start).exists():
        return RunDir(start)
    if name is not None and not RUN_NAME.fullmatch(name):
        raise UsageError(f"{name!r} is not a run id", hint="run ids look like `demo` or `demo-2`")
    runs = all_runs(start)
    if not runs:
        raise PreconditionError(
            f"no run found at or above {start}",
            hint="start one with `swarm launch CONFIG`, or point to one with --dir",
        )
    if name is None:
        return runs[0]
    for run in runs:
        if run.run == name:
            return run
    known = ", ".join(r.run for r in runs[:8])
    raise PreconditionError(f"no run `{name}` in {runs[0].path.parent}", hint=f"there are: {known}")
