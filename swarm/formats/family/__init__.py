"""The results files of the autoresearch family: read from, and written to, one `History`.

Owns the table of forms: what each is called, where its files lie and what they are known by. Pure:
`importing` and `exporting` touch the disk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from swarm.formats.family import autoimprove, coral, lines, loops, pi, skills, tables
from swarm.formats.family.history import (
    Asked,
    Entry,
    Files,
    History,
    Tally,
    attempts,
    tally,
)
from swarm.formats.family.run import of_run

__all__ = [
    "FORMS",
    "Asked",
    "Entry",
    "Files",
    "Form",
    "History",
    "Tally",
    "attempts",
    "of_run",
    "tally",
]


class Form(NamedTuple):
    """One tool's way to write a history down."""

    says: str
    """Whose it is, for help and errors."""
    finds: tuple[str, ...]
    """Globs below a directory; the first that finds something is it."""
    known: Callable[[Files], bool]
    read: Callable[[Files, Asked], History]
    write: Callable[[History], Files] | None = None
    """None of one that is only read."""
    beside: tuple[str, ...] = ()
    """Files that say more, relative to the directory of what was found."""
    many: bool = False
    """Whether a history is many files."""
    instead: str | None = None
    """A directory that makes all but the first glob void: what they find is of an older version."""


FORMS: Mapping[str, Form] = {
    "karpathy": Form(
        "autoresearch's results.tsv, and its dialects",
        ("results.tsv", "*.tsv"),
        tables.is_karpathy,
        tables.read,
        tables.karpathy,
    ),
    "labclaw": Form(
        "the autoresearch skill of labclaw",
        ("results.tsv", "*.tsv"),
        tables.is_labclaw,
        tables.read,
        tables.labclaw,
    ),
    "pi": Form(
        "pi-autoresearch's log",
        (pi.LOG, "log.jsonl", "autoresearch.jsonl"),
        pi.is_pi,
        pi.read,
        pi.write,
        instead=".auto",
    ),
    "uditgoenka": Form(
        "a loop of uditgoenka's",
        ("*-results.tsv", "autoresearch/*/*-results.tsv", "*/*-results.tsv"),
        loops.is_uditgoenka,
        loops.read,
        loops.uditgoenka,
        beside=("handoff.json",),
    ),
    "leo": Form(
        "leo's log",
        ("autoresearch-results/results.tsv", "results.tsv", "*-results.tsv"),
        loops.is_leo,
        loops.read,
        loops.leo,
    ),
    "autoimprove": Form(
        "autoimprove's records",
        (".autoimprove/experiments/*.json", "experiments/*.json", "*.json"),
        autoimprove.is_autoimprove,
        autoimprove.read,
        autoimprove.write,
        beside=("../baseline.json", "../../improve.md", "../improve.md"),
        many=True,
    ),
    "skill": Form(
        "the folder of a skill loop",
        (
            *("autoresearch-*/results.tsv", "auto*-*/results.tsv", "results.tsv"),
            *("autoresearch-*/results.json", "auto*-*/results.json", "results.json"),
        ),
        skills.is_skill,
        skills.read,
        skills.write,
        beside=("results.json", "changelog.md"),
    ),
    "coral": Form(
        "CORAL's attempts",
        (".coral/public/attempts/*.json", "public/attempts/*.json", "attempts/*.json", "*.json"),
        coral.is_coral,
        coral.read,
        beside=("../../../task.yaml",),
        many=True,
    ),
    "agenthub": Form(
        "agenthub's lines",
        ("agenthub.txt", "*.txt"),
        lines.is_agenthub,
        lines.read,
        lines.write,
    ),
}
