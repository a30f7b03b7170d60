"""The directory of `swarm demo`: a small repository of its own, made from what swarm brings along.

Owns where the bundled files are and what makes a directory a demo. Starts nothing.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from swarm.bundled import bundled
from swarm.errors import PreconditionError
from swarm.repo import init_repository

CONFIG = "demo.yaml"
MARK = ".swarm-demo"
"""A file that tells a demo from a directory of the user's."""
LAST_WORDS = """\
  all of this lies in      {directory}: go there first
  your own repository:     the README's example is five lines of config
  a model as proposer:     the README's next example; it needs a key, or a model of your own"""


def prepare(directory: Path) -> Path:
    """Make the demo, or find the one that is there, and give the path of its config.

    Raises:
        PreconditionError: the directory holds something else, or swarm came without the files.
    """
    if (directory / MARK).exists() and (directory / CONFIG).exists():
        return directory / CONFIG
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise PreconditionError(
            f"`{directory}` exists and is no swarm demo",
            hint="name another directory: swarm demo DIR",
            path=directory,
        )
    harness, config = bundled("harness") / "gpt", bundled("configs") / CONFIG
    if not (harness / "train.py").exists() or not config.exists():
        raise PreconditionError(
            f"this installation of swarm lacks the demo's files ({harness}, {config})",
            hint="install swarm again",
        )
    parent = directory.absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    if find_spec("torch") is None:
        raise PreconditionError(
            "the demo trains a small GPT and needs torch, which this Python lacks",
            hint="pip install 'swarm[torch]', or run the toy target: configs/toy.yaml",
        )
    # Built beside its final place, so that a half-made demo is never taken for one.
    making = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=parent))
    try:
        _fill(making, harness, config)
        making.chmod(0o755)
        if directory.exists():
            directory.rmdir()
        os.rename(making, directory)
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return directory / CONFIG


def _fill(top: Path, harness: Path, config: Path) -> None:
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")
    shutil.copytree(harness, top, dirs_exist_ok=True, ignore=ignored)
    text = config.read_text(encoding="utf-8")
    text = re.sub(r"(?m)^(\s+repo:).*$", r"\1 .", text)
    # swarm need not be on PATH, and the `python` there need not have torch: this one has.
    python = shlex.quote(sys.executable)
    text = re.sub(r"(?m)^(\s+run:) python ", lambda m: f"{m[1]} {python} ", text)
    (top / CONFIG).write_text(text, encoding="utf-8")
    (top / MARK).write_text("Made by `swarm demo`; it may be changed and removed.\n")
    init_repository(top, "The demo target of swarm")
