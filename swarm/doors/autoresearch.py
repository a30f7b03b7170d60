"""The layout of autoresearch as a run: `prepare.py` stays, `train.py` changes, `program.md` tells.

Owns how the layout is told from one that only looks like it, and the choices that it stands for:
five minutes of training, ten until the end, equal but simpler is kept, data in the user's cache.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from swarm.doors.draft import Draft, Entered, proposing, slug
from swarm.doors.surroundings import check_programs, give_gpus, surround, with_caches
from swarm.errors import ConfigError, PreconditionError, Problem
from swarm.runtime import local_gpus
from swarm.yaml_marks import read

FILES = ("prepare.py", "train.py", "program.md")
METRIC, PATTERN = "val_bpb", r"^val_bpb:\s*([-\d.eE]+)"
BUDGET_S, TIMEOUT_S = 300.0, 600.0
"""Seconds of training, and until the end of a run that hangs, where prepare.py says no other."""
DATA, MODELS = Path(".cache/autoresearch"), Path(".cache/huggingface/hub")
"""Below the user's home: data and tokenizer; kernels that train.py loads by name."""
ELSE = "for another layout: `swarm try OBJECTIVE MEASURE SCOPE`, or `swarm init` for a config"


def is_layout(folder: Path) -> bool:
    """Tell whether a directory has the three files."""
    return all((folder / name).is_file() for name in FILES)


def enter_autoresearch(folder: Path, overrides: Sequence[str] = ()) -> Entered:
    """Make a run of an untouched checkout.

    Raises:
        ConfigError: it only looks like the layout; all that is missing is named.
        PreconditionError: the repository, the data or a program is not as it is needed.
    """
    prepare, train = read(folder / "prepare.py"), read(folder / "train.py")
    problems = _strange(prepare, train)
    if problems:
        what = "this has the files of autoresearch, and is another layout"
        raise ConfigError(folder, problems, hint=f"{what}; {ELSE}")
    draft = _draft(folder, prepare, train)
    ground = draft.look(overrides)
    lacking = [name for name in FILES if name not in ground.files]
    if lacking:
        names = " ".join(lacking)
        raise PreconditionError(
            f"not in the base commit of {folder}: {', '.join(lacking)}",
            hint=f"git add {names} && git commit -m base",
            path=folder,
        )
    surround(draft, ground)
    give_gpus(draft, ground, ["train.py"])
    if not local_gpus():
        draft.target["slot"] = {"count": 1}
        draft.notes.append("slots    one, since no NVIDIA GPU is visible here")
    config = draft.settle(overrides)
    check_programs(config)
    return Entered(config, (*draft.notes, *proposing(config)))


def _draft(folder: Path, prepare: str, train: str) -> Draft:
    seconds = _time_budget(prepare)
    caches = _caches(prepare, train)
    target: dict[str, Any] = {
        "repo": ".",
        "scope": ["train.py"],
        "program": "program.md",
        "run": with_caches("uv run train.py", caches),
        "metric": {"name": METRIC, "goal": "minimize", "pattern": PATTERN},
        "timeout": max(TIMEOUT_S, 2 * seconds),
        "read_only": [str(cache) for cache in caches],
    }
    if MODELS in [cache.relative_to(Path.home()) for cache in caches]:
        target["env"] = {"HF_HUB_OFFLINE": "1"}
    data: dict[str, Any] = {
        "name": slug(folder.absolute().name, "autoresearch"),
        "target": target,
        # Of five minutes each, more would take the first hour away.
        "judge": {"keep_if_equal": "simpler", "baseline": 3, "runs": 3, "confirm": 3},
    }
    gpus = local_gpus()
    if gpus > 1:
        data["agents"] = [{"count": gpus + 1, "proposer": "mutate"}]
    draft = Draft(folder / "autoresearch", data)
    draft.notes += [
        f"layout   autoresearch: train.py changes, {seconds:g} s of training, "
        f"{target['timeout']:g} s at most",
        "equal    a change that measures as equal is kept if it is simpler",
    ]
    return draft


def _time_budget(prepare: str) -> float:
    found = re.search(r"^TIME_BUDGET\s*=\s*(\d+(?:\.\d+)?)\b", prepare, re.MULTILINE)
    return float(found[1]) if found else BUDGET_S


def _caches(prepare: str, train: str) -> list[Path]:
    """Give the folders of the user's cache that a measurement reads.

    Raises:
        PreconditionError: there are no data yet.
    """
    found: list[Path] = []
    data = Path.home() / DATA
    if "autoresearch" in prepare and ".cache" in prepare:
        if not data.is_dir():
            raise PreconditionError(
                f"there are no data: {data} does not exist",
                hint="uv run prepare.py   (once; it downloads the data and makes the tokenizer)",
                path=data,
            )
        found.append(data)
    if re.search(r"^\s*(?:from|import)\s+(?:kernels|huggingface_hub)\b", train, re.MULTILINE):
        models = Path.home() / MODELS
        found += [models] if models.is_dir() else []
    return found


def _strange(prepare: str, train: str) -> list[Problem]:
    """Say what of the layout is not there, with the line that is there instead."""
    found: list[Problem] = []
    if not re.search(r"^\s*(?:from\s+prepare\s+import|import\s+prepare\b)", train, re.MULTILINE):
        found.append(Problem("train.py does not import prepare.py"))
    if not re.search(r"^def evaluate_bpb\b", prepare, re.MULTILINE):
        line = _line_of(prepare, r"^def (evaluate\w*|eval\w*)")
        instead = f"prepare.py:{line[0]}: `{line[1]}` is" if line else "prepare.py: nothing is"
        found.append(Problem(f"{instead} there in place of `def evaluate_bpb`"))
    if not re.search(r"\bval_bpb:", train):
        line = _line_of(train, r"print\(.*?[\"']\s*(\w+):")
        instead = f"train.py:{line[0]}: prints `{line[1]}:`" if line else "train.py: prints nothing"
        found.append(Problem(f"{instead} where a line `val_bpb: ...` is wanted"))
    return found


def _line_of(text: str, pattern: str) -> tuple[int, str] | None:
    for number, line in enumerate(text.splitlines(), start=1):
        if match := re.search(pattern, line):
            return number, match[1]
    return None
