"""What the fake coding agents have in common: a part to play, and notes of what they were given.

The part is `part.json` beside the program. What the process saw is written to `seen.json` there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PART: dict[str, Any] = json.loads((HERE / "part.json").read_text())
DAEMON = "import os, time; os.setsid(); os.fork() and os._exit(0); time.sleep(1000)"


def listing(home: Path) -> list[str]:
    """List a home, links with what they point to."""
    found: list[str] = []
    for folder, folders, names in os.walk(home):
        for name in sorted([*folders, *names]):
            path = Path(folder, name)
            arrow = f" -> {os.readlink(path)}" if path.is_symlink() else ""
            found.append(path.relative_to(home).as_posix() + arrow)
    return sorted(found)


def begin() -> str:
    """Note what was handed in; give the briefing as it came on stdin."""
    told = sys.stdin.read()
    briefing = Path(os.environ["SWARM_BRIEFING"])
    seen = {
        "argv": sys.argv,
        "env": dict(os.environ),
        "cwd": os.getcwd(),
        "stdin": told,
        "file": briefing.read_text(),
        "home": listing(Path(os.environ["HOME"])),
        "files": sorted(p.as_posix() for p in Path().rglob("*")),
    }
    (HERE / "seen.json").write_text(json.dumps(seen))
    return told


def act() -> str:
    """Play what all programs play alike; give the rest to be played."""
    part = PART.get("do", "edit")
    for name, text in {**PART.get("edits", {}), **PART.get("litter", {})}.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)
    if part == "hang":
        # A daemon that has left the group, and a child that holds the pipes.
        subprocess.Popen([sys.executable, "-S", "-c", DAEMON, PART["mark"]])
        subprocess.Popen(["sleep", "1000"], env={"MARK": PART["mark"]})
        print(PART.get("before", ""), flush=True)
        time.sleep(1000)
    if part == "garbage":
        print("Segmentation fault (core dumped)", "{", "\x1b[31m", sep="\n")
        raise SystemExit(PART.get("status", 0))
    if part == "flood":
        line = "x" * 99 + "\n"
        for _ in range(PART["bytes"] // 100):
            sys.stdout.write(line)
            sys.stderr.write(line)
    return part
