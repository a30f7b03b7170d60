"""A suite to be tried, a model to try it with, and the program called as swarm calls it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any, NamedTuple

from messages_server import Json, Reply, blocks, call, said, texts, turns

TOP = Path(__file__).parents[1]
PROGRAM = [sys.executable, str(TOP / "harness" / "skill" / "skill.py")]

SKILL = """\
---
name: editor
description: Edits small programs and says so.
---
Work in small steps.
"""
SUITE = """
under: {kind: skill, path: SKILL.md}
runner: {base_url: URL, model: small}
cases:
  - id: greet
    request: Make hello.py say hello.
    workspace: work
    checks:
      - {command: 'python3 hello.py | grep -q hello'}
      - {created: [notes/*.md]}
      - {unchanged: ['keep/**']}
  - id: answer
    request: Say a number.
    checks: [{regex: '[0-9]'}]
"""


class Done(NamedTuple):
    """What came of a call."""

    status: int
    stdout: str
    stderr: str
    result: dict[str, Any]

    @property
    def passed(self) -> dict[str, bool]:
        """Which case passes."""
        return {case["id"]: case["pass"] for case in self.result["cases"]}

    @property
    def metrics(self) -> dict[str, float]:
        """All figures."""
        return self.result["metrics"]

    @property
    def feedback(self) -> str:
        """What a proposer is told."""
        return self.result["feedback"]


def plant(folder: Path, files: dict[str, str]) -> Path:
    """Write files."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    return folder


def tried(folder: Path, suite: str, url: str = "http://127.0.0.1:9", **files: str) -> Path:
    """Write a suite with its skill and its workspace; give the suite."""
    own = {
        "SKILL.md": SKILL,
        "work/hello.py": "print('nothing')\n",
        "work/keep/me.txt": "as it is\n",
        **files,
    }
    plant(folder, {**own, "suite.yaml": suite.replace("URL", url)})
    return folder / "suite.yaml"


def skill(*args: object, cwd: Path | None = None, **env: str) -> Done:
    """Call the program from another directory, as swarm does."""
    words = [str(arg) for arg in args]
    where = next((Path(w).parent for w in words[1:] if w.endswith((".yaml", ".json", ".md"))), None)
    result = (cwd or where or Path("/tmp")) / "result.json"
    result.unlink(missing_ok=True)
    done = subprocess.run(
        [*PROGRAM, *words],
        env={"PATH": os.environ["PATH"], "SWARM_RESULT": str(result), **env},
        cwd=cwd or "/",
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    read = json.loads(result.read_text()) if result.exists() else {}
    return Done(done.returncode, done.stdout, done.stderr, read)


def request_of(body: Json) -> str:
    """Give what a conversation began with."""
    return texts(blocks(body["messages"][0]["content"]))


def using(*calls: tuple[str, dict[str, Any]], text: str = "") -> Reply:
    """Answer with calls of tools, after a text."""
    made = [call(name, given) for name, given in calls]
    return Reply((*([said(text)] if text else []), *made))


def editor(body: Json) -> Reply:
    """Do what SUITE asks, in three turns."""
    if "number" in request_of(body):
        return Reply.saying("It is 42.")
    return [
        using(("list_files", {}), text="## Explore\nI look."),
        using(
            ("edit_file", {"path": "hello.py", "old": "nothing", "new": "hello"}),
            ("write_file", {"path": "notes/a.md", "content": "done\n"}),
            text="## Execute",
        ),
        Reply.saying("It says hello now."),
    ][turns(body)]
