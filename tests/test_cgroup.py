"""Cgroups, where this machine lets us make them: limits by force, and nothing left of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarm.sandbox import cgroup
from swarm.sandbox.cgroup import Cgroup

EAT = "held = bytearray(b'x' * 300_000_000)"
FORK = """
import os, sys
refused = 0
for _ in range(200):
    try:
        if not os.fork(): signal = __import__("signal"); signal.pause()
    except OSError: refused += 1
print(refused)
"""


@pytest.fixture
def group() -> Iterator[Cgroup]:
    made = cgroup.make("test")
    if made is None:
        pytest.skip("NO CGROUP CAN BE MADE HERE")
    folders = [Path(join).parent for join in made.joins]
    yield made
    made.close()
    assert not [f for f in folders if f.exists()]


def run(group: Cgroup, code: str) -> subprocess.Popen[str]:
    enter = "".join(f"open({join!r}, 'w').write('0')\n" for join in group.joins)
    words = [sys.executable, "-S", "-c", enter + code]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True)


def test_memory_is_kept_to_and_counted_anew(group: Cgroup) -> None:
    group.begin(100 * 2**20, None)
    process = run(group, EAT)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert group.over_memory()
    group.begin(1000 * 2**20, None)
    assert not group.over_memory()
    process = run(group, EAT)
    process.communicate()
    assert (process.returncode, group.over_memory()) == (0, False)


def test_tasks_are_kept_to_and_everybody_can_be_ended(group: Cgroup) -> None:
    group.begin(None, 40)
    process = run(group, FORK)
    assert process.stdout is not None
    assert int(process.stdout.readline()) >= 160
    assert group.over_tasks()
    group.kill()
    process.communicate()
    assert all(Path(join).read_text() == "" for join in group.joins)
    group.begin(None, None)
    assert not group.over_tasks()


def test_what_a_dead_maker_left_is_swept(group: Cgroup) -> None:
    place = Path(group.joins[0]).parent.parent
    stale = place / "swarm-old-999999-1"
    stale.mkdir()
    again = cgroup.make("again")
    assert again is not None
    again.close()
    assert not stale.exists()


def test_an_ordinary_user_gets_none_and_leaves_nothing() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to be somebody else")
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setgroups([])
        os.setgid(12345)
        os.setuid(12345)
        os.write(write_end, str(cgroup.make("user")).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(write_end)
    assert os.read(read_end, 100) == b"None"
    os.close(read_end)


def test_places_in_an_invented_tree_of_version_2(tmp_path: Path) -> None:
    """Only where to look, and in which order: the kernel's part cannot be invented."""
    proc, top = tmp_path / "proc/self", tmp_path / "sys/fs/cgroup"
    proc.mkdir(parents=True)
    (proc / "cgroup").write_text("0::/user.slice/session-1.scope\n")
    (proc / "mountinfo").write_text(
        "30 23 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw\n"
    )
    (top / "user.slice/session-1.scope").mkdir(parents=True)
    for place, given in (
        (top, "cpu memory pids"),
        (top / "user.slice", "pids"),
        (top / "user.slice/session-1.scope", ""),
    ):
        (place / "cgroup.subtree_control").write_text(given)
    found = list(cgroup._places(tmp_path))
    assert [(f.path, f.controllers, f.unified) for f in found] == [
        (top / "user.slice", ("pids",), True),
        (top, ("memory", "pids"), True),
    ]
