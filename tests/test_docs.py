"""The pages are true: links lead somewhere, commands exist, configs load, words are ours."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from swarm import config as configs

TOP = Path(__file__).resolve().parent.parent
PAGES = [TOP / "README.md", *sorted((TOP / "docs").glob("*.md"))]
FENCE = re.compile(r"^(?P<indent> *)```(?P<kind>\w*)\n(?P<body>.*?)^(?P=indent)```$", re.M | re.S)
FORBIDDEN = (
    "session", "job", "task", "problem", "evaluator script", "fitness", "reward", "eval result",
    "llm client", "prompt", "context", "trial", "iteration", "champion", "worker", "quota",
    "integrator", "database", "manager",
)  # fmt: skip
"""What other tools say for our terms."""

pages = pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)


def prose(page: Path) -> str:
    """Give a page without its fenced blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def blocks(page: Path, kind: str) -> list[str]:
    """Give the fenced blocks of a kind."""
    found = FENCE.finditer(page.read_text(encoding="utf-8"))
    return [m["body"] for m in found if m["kind"] == kind]


def anchors(page: Path) -> set[str]:
    """Give what `#...` may name in a page, as GitHub makes it."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.fixture(scope="module")
def commands() -> set[str]:
    shown = subprocess.run(
        [sys.executable, "-m", "swarm", "--help"], capture_output=True, text=True, check=True
    ).stdout
    return set(re.findall(r"^  ([a-z]+)  ", shown.split("Commands:")[1], re.M))


@pages
def test_every_relative_link_resolves(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name} links to {link}"
        assert target.is_relative_to(TOP), f"{page.name} links out of the repository: {link}"
        if anchor:
            assert anchor in anchors(target), f"{page.name} links to {link}"


@pages
def test_every_command_named_exists(page: Path, commands: set[str]) -> None:
    spans = re.findall(r"`([^`\n]+)`", prose(page))
    lines = [line for kind in ("sh", "") for b in blocks(page, kind) for line in b.splitlines()]
    named = {m[1] for text in (*spans, *lines) if (m := re.match(r"(?:\$ )?swarm ([a-z]+)", text))}
    assert named <= commands


def test_the_readme_lists_every_command(commands: set[str]) -> None:
    text = prose(TOP / "README.md")
    assert [c for c in sorted(commands) if f"`swarm {c}" not in text] == []


@pages
def test_every_config_shown_loads(page: Path, tmp_path: Path) -> None:
    (tmp_path / "ideas").mkdir()
    (tmp_path / "ideas" / "1.patch").write_text("--- a/x\n+++ b/x\n")
    (tmp_path / "program.md").write_text("Lower the loss.\n")
    for text in blocks(page, "yaml"):
        if re.search(r"^target:", text, re.M):
            configs.parse(text, tmp_path / "run.yaml")


@pages
def test_headings_use_our_words(page: Path) -> None:
    for heading in re.findall(r"^#+ (.+)$", prose(page), re.M):
        for word in FORBIDDEN:
            assert not re.search(rf"\b{word}s?\b", heading.lower()), f"{page.name}: {heading}"


@pages
def test_pages_are_plain(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"(?<![\w.`/])/(?:work|root|home|Users)/", text), "a path of one machine"
    assert "TODO" not in text
    assert "PLACE" not in text, "something was to be filled in"
