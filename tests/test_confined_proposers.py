"""Proposers are confined too: what a program from the command line can reach on each rung."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import rungs
from proposer_contract import brief, plant
from targets import check_nobody_left, processes_with
from test_sandbox import wait_until

from swarm.groups import HeadlessProposer
from swarm.proposers import NoProposalError, Workspace
from swarm.proposers.headless import Headless
from swarm.sandbox import Rung
from swarm.sandbox.ladder import RungName
from swarm.scope import Scope

KEY = "sk-planted-key-of-another-0123456789"
ON_EACH = pytest.mark.parametrize("name", rungs.NAMES)

SPY = (
    f"KEY = {KEY!r}"
    + """
import glob, json, os, subprocess, sys, time
places = json.loads(sys.argv[1])
found = {"env": [v for v in os.environ.values() if KEY in v]}
for what, path in places["read"].items():
    try:
        found[what] = open(path).read()
    except OSError as error:
        found[what] = None
for what, path in places["write"].items():
    try:
        open(path, "a").write("spoilt")
        found[what] = "written"
    except OSError:
        found[what] = None
found["proc"] = 0
for file in glob.glob("/proc/[0-9]*/environ"):
    try:
        found["proc"] += KEY.encode() in open(file, "rb").read()
    except OSError:
        pass
code = "import os, sys, time; os.setsid(); os.fork() and os._exit(0); time.sleep(1000)"
subprocess.Popen([sys.executable, "-S", "-c", code, places["mark"]])
open("train.py", "w").write("LEARNING_RATE = 0.002\\n")
open("found.json", "w").write(json.dumps(found))
print("lr 0.001 -> 0.002")
"""
)


class Room:
    """A worktree with much around it that is nobody's business."""

    def __init__(self, root: Path, rung: Rung) -> None:
        self.rung, self.root, self.home = rung, root / "node" / "worktree", root / "home"
        plant(self.root, {"train.py": "LEARNING_RATE = 0.001\n", "answers/key.txt": "42"})
        plant(root, {"home/.ssh/id": "mine", "repo/answers.txt": "42", "spy.py": SPY})
        plant(root, {"node/other/train.py": "theirs", "node/hub.git/config": "hub"})
        self.scratch = root / "node" / "scratch"
        self.scratch.mkdir()

    def space(self, root: Path) -> Workspace:
        return Workspace(
            self.root,
            Scope(("train.py", "found.json")),
            ("train.py",),
            lambda: None,
            hidden=Scope(("answers/",), guarded=False),
            rung=self.rung,
            shielded=(str(root / "repo"), str(root / "node")),
            scratch=self.scratch,
        )


@ON_EACH
def test_what_a_program_can_reach(
    tmp_path: Path, name: RungName, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = Room(tmp_path, rungs.rung(name))
    monkeypatch.setenv("HOME", str(room.home))
    mark = f"mark-of-{os.getpid()}-{name}"
    read = {
        "home": room.home / ".ssh" / "id",
        "repo": tmp_path / "repo" / "answers.txt",
        "other": tmp_path / "node" / "other" / "train.py",
        "hub": tmp_path / "node" / "hub.git" / "config",
        "hidden": room.root / "answers" / "key.txt",
    }
    write = {f"{what} written": path for what, path in read.items() if what != "hidden"}
    places: dict[str, Any] = {"mark": mark}
    places["read"] = {what: str(path) for what, path in read.items()}
    places["write"] = {what: str(path) for what, path in write.items()}
    # Another process of this user holds a key in its environment.
    other = subprocess.Popen(["sleep", "60"], env={"THEIR_KEY": KEY})
    config = HeadlessProposer(
        kind="headless",
        cli=(sys.executable, "-S", str(tmp_path / "spy.py"), json.dumps(places)),
    )
    try:
        draft = Headless(config, "a1", {}).propose(room.space(tmp_path), brief())
    finally:
        other.kill()
        other.wait()
    assert draft.summary == "lr 0.001 -> 0.002"
    assert (room.root / "train.py").read_text() == "LEARNING_RATE = 0.002\n"
    found = json.loads((room.root / "found.json").read_text())
    assert found.pop("env") == []
    assert found.pop("hidden") is None
    in_proc = found.pop("proc")
    if room.rung.walls:
        assert in_proc == 0
        assert all(path.read_text().count("spoilt") == 0 for path in read.values())
        # What is written beside it lands in a private /tmp, where this test's folder is.
        for what, told in found.items():
            assert told is None or what.endswith("written"), what
    else:
        # Said in the warning of that rung.
        assert {"files", "/proc of others"} <= set(room.rung.open)
        assert in_proc >= 1
        assert all(told is not None for told in found.values())
    assert (room.root / "answers" / "key.txt").read_text() == "42"
    assert wait_until(lambda: processes_with(mark) == [], 5)
    check_nobody_left()


LOGIN = """#!{python} -SE
import json, os, pathlib, sys
home = pathlib.Path(os.environ["HOME"]) / ".codex"
names = sorted(p.name for p in home.iterdir() if not p.is_dir() and p.stat().st_size or p.is_dir())
held = {{str(p.relative_to(home)) for p in home.rglob("*") if p.is_file() and p.stat().st_size}}
(home / "auth.new").write_text("renewed")
(home / "auth.new").replace(home / "auth.json")
pathlib.Path("train.py").write_text("LEARNING_RATE = 0.002\\n")
pathlib.Path("found.json").write_text(json.dumps([sorted(held), sys.argv]))
message = {{"type": "item.completed", "item": {{"type": "agent_message", "text": "SUMMARY: x"}}}}
print(json.dumps(message))
print(json.dumps({{"type": "turn.completed", "usage": {{"input_tokens": 1, "output_tokens": 1}}}}))
"""


@ON_EACH
def test_a_login_is_lent_and_one_that_is_renewed_is_the_users(
    tmp_path: Path, name: RungName, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = Room(tmp_path, rungs.rung(name))
    plant(room.home, {".codex/auth.json": "old", ".codex/config.toml": "x = 1"})
    plant(room.home, {".codex/sessions/other.jsonl": "of other work", ".codex/history.jsonl": "h"})
    program = tmp_path / "bin" / "codex"
    plant(tmp_path, {"bin/codex": LOGIN.format(python=sys.executable)})
    program.chmod(0o755)
    monkeypatch.setenv("HOME", str(room.home))
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    config = HeadlessProposer(kind="headless", cli="codex")
    Headless(config, "a1", {}).propose(room.space(tmp_path), brief())
    held, argv = json.loads((room.root / "found.json").read_text())
    private = {"sessions/other.jsonl", "history.jsonl"}
    assert {"auth.json", "config.toml"} <= set(held)
    assert (set(held) & private == set()) == room.rung.walls
    assert (room.home / ".codex" / "auth.json").read_text() == "renewed"
    assert (room.home / ".codex" / "sessions" / "other.jsonl").read_text() == "of other work"
    # Two sandboxes cannot be built into each other.
    own = "danger-full-access" if room.rung.walls else "workspace-write"
    assert argv[argv.index("--sandbox") + 1] == own


def test_walls_that_cannot_be_built_are_an_ordinary_failure(tmp_path: Path) -> None:
    room = Room(tmp_path, rungs.rung("bubblewrap"))
    broken = Rung("bubblewrap", (), program="/bin/false")
    space = room.space(tmp_path)
    config = HeadlessProposer(kind="headless", cli=("true",))
    space = Workspace(**{**vars(space), "rung": broken})
    with pytest.raises(NoProposalError, match="the sandbox cannot be set up") as caught:
        Headless(config, "a1", {}).propose(space, brief())
    assert type(caught.value) is NoProposalError


def test_it_has_a_network(tmp_path: Path) -> None:
    room = Room(tmp_path, rungs.rung("bubblewrap"))
    script = "import os; open('found.json', 'w').write(str(os.stat('/proc/self/ns/net').st_ino))"
    config = HeadlessProposer(kind="headless", cli=(sys.executable, "-S", "-c", script))
    Headless(config, "a1", {}).propose(room.space(tmp_path), brief())
    assert int((room.root / "found.json").read_text()) == os.stat("/proc/self/ns/net").st_ino
