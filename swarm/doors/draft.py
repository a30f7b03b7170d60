"""A config in the making: what a front door has made of files or words, before it is validated.

Owns the two steps of every door: a first look at the repository, then the whole config, by the same
rules as one that is written in YAML. Knows no format.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from swarm import config as configs
from swarm.config import RunConfig
from swarm.errors import RepositoryError
from swarm.groups import CLIS
from swarm.quantities import is_ref_part
from swarm.repo import Source, inspect, tracked_files
from swarm.yaml_marks import Loc, Place, Places, Spot


class Entered(NamedTuple):
    """What came through a door."""

    config: RunConfig
    notes: tuple[str, ...] = ()
    """What was assumed, to be said to the person."""


class Ground(NamedTuple):
    """The repository that a draft is about."""

    source: Source
    files: tuple[str, ...]
    """Tracked on the base, relative to the target's directory."""
    folder: Path
    """The target's directory."""


@dataclass
class Draft:
    """Keys and values as a config file would have them."""

    path: Path
    """The file that it comes from; relative paths start from its directory."""
    data: dict[str, Any]
    lines: list[str] = field(default_factory=list[str])
    spots: dict[Loc, Spot] = field(default_factory=dict[Loc, Spot])
    """Where values were written; others are placed at the start of the file."""
    notes: list[str] = field(default_factory=list[str])

    @property
    def target(self) -> dict[str, Any]:
        """The target's keys."""
        return self.data["target"]

    def settle(self, overrides: Sequence[str] = ()) -> RunConfig:
        """Validate it, `--set` applied; the draft stays as it is.

        Raises:
            ConfigError: all that is wrong with it, at the places where it was written.
        """
        data, places = deepcopy(self.data), self._places()
        return configs.settle(configs.document(self.path, self.lines, data, places), overrides)

    def overridden(self, overrides: Sequence[str]) -> dict[str, Any]:
        """Give the keys and values with `--set` applied."""
        document = configs.document(self.path, self.lines, deepcopy(self.data), self._places())
        for override in overrides:
            document.override(override)
        return document.data

    def look(self, overrides: Sequence[str] = ()) -> Ground:
        """Look at the repository, before what depends on its files is decided.

        Raises:
            ConfigError: the draft is wrong as it is.
            RepositoryError: the repository cannot be used.
        """
        target = self.settle(overrides).target
        try:
            source = inspect(target.repo, target.base, dirty=target.dirty)
        except RepositoryError:
            # A run is resumed whatever is on disk by now; a new one will be refused for it.
            source = inspect(target.repo, target.base, dirty="snapshot")
        return Ground(source, tracked_files(source), target.repo)

    def _places(self) -> Places:
        start = Place(None, Spot(1, 1))
        return {(): start} | {loc: Place(None, spot) for loc, spot in self.spots.items()}


def slug(text: str, otherwise: str) -> str:
    """Make a run's name of words."""
    words = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    short = words if len(words) <= 40 else words[:41].rpartition("-")[0] or words[:40]
    return short if is_ref_part(short) else otherwise


def proposing(config: RunConfig) -> list[str]:
    """Say who proposes, if no model does: none is asked unasked, as it costs and is sent files."""
    if any(group.proposer.thinks for group in config.agents):
        return []
    return [
        "agents   mutate, which changes constants and statements and asks no model; with one: "
        f"--agent MODEL, or a coding agent: --agent {'|'.join(CLIS)}"
    ]
