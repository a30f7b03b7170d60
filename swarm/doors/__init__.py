"""Front doors: files that people have already, and words, as the config of a run.

Owns which door a path leads to. Each door makes the same `RunConfig` as a YAML file does, by the
same rules, and says what it has assumed. Starts nothing and writes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from swarm import config as configs
from swarm.doors.auto import enter_auto, layout_of
from swarm.doors.autoresearch import FILES, enter_autoresearch, is_layout
from swarm.doors.draft import Entered
from swarm.doors.improve import enter_improve, line_of_score
from swarm.errors import ConfigError, HarnessError, Problem
from swarm.patterns import CORRECT_IT

__all__ = ["CONFIGS", "Entered", "enter", "place"]

CONFIGS = ("swarm.yaml", "swarm.yml")
"""What a config is called that a directory stands for."""
IMPROVE = "improve.md"


def enter(path: Path, overrides: Sequence[str] = ()) -> Entered:
    """Make a run of a config file, an improve.md, or a directory that a tool has laid out.

    Raises:
        ConfigError: it is none of these, or something is wrong with it.
        PreconditionError: the repository or a program is not as it is needed.
    """
    if path.is_dir():
        folder = path.parent if path.resolve().name == ".auto" else path
        return _enter_folder(folder, overrides)
    if path.suffix.lower() != ".md":
        return Entered(configs.load(path, overrides))
    if path.name == "program.md" and is_layout(path.parent):
        return enter_autoresearch(path.parent, overrides)
    return enter_improve(path, overrides)


def _enter_folder(folder: Path, overrides: Sequence[str]) -> Entered:
    for name in CONFIGS:
        if (folder / name).is_file():
            return Entered(configs.load(folder / name, overrides), (f"config   {folder / name}",))
    if (folder / IMPROVE).is_file():
        return enter_improve(folder / IMPROVE, overrides)
    layout = layout_of(folder)
    if layout is not None:
        return enter_auto(folder, layout, overrides)
    if is_layout(folder):
        return enter_autoresearch(folder, overrides)
    raise ConfigError(folder, [Problem(_nothing(folder))], hint=_HINT)


def _nothing(folder: Path) -> str:
    wanted = f"{CONFIGS[0]}, {IMPROVE}, .auto/, or {', '.join(FILES[:-1])} and {FILES[-1]}"
    there = [name for name in FILES if (folder / name).is_file()]
    some = f"; of the last three there is {' and '.join(there)}" if there else ""
    return f"there is nothing here to launch; looked for {wanted}{some}"


_HINT = (
    "`swarm init` writes a config; `swarm try OBJECTIVE MEASURE SCOPE` needs none; or name a file: "
    "swarm launch FILE"
)


def place(error: HarnessError, source: Path) -> None:
    """Have an error say where its cause is written, where `source` is an improve.md."""
    if error.hint != CORRECT_IT or source.suffix.lower() != ".md":
        return
    line = line_of_score(source)
    if line is not None:
        error.path, error.line = str(source), line
        error.message = f"{source.name}:{line}: {error.message}"
        error.hint = f"correct `score` on line {line} of {source.name}, as shown"
        error.args = (error.message,)
