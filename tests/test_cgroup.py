"""Cgroups, where this machine lets us make them: limits by force, and nothing left of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import rungs

from swarm.sandbox import Command, Limits, Sandbox, cgroup
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


BOMB = """
import os
while True:
    try: os.fork() or os.setsid()
    except OSError: pass
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


def test_a_bomb_that_leaves_its_groups_cannot_outrun_the_end(group: Cgroup) -> None:
    """Killed one by one it would fork into the places of its dead."""
    group.begin(None, 200)
    process = run(group, BOMB)
    until = time.monotonic() + 60
    while not group.over_tasks():
        assert time.monotonic() < until
        time.sleep(0.01)
    group.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not [pid for join in group.joins for pid in Path(join).read_text().split()]


def test_two_of_one_name_are_apart_and_both_below_our_own(group: Cgroup) -> None:
    again = cgroup.make("test")
    assert again is not None
    try:
        assert not set(again.joins) & set(group.joins)
        assert [Path(j).parent.parent for j in again.joins] == [
            Path(j).parent.parent for j in group.joins
        ]
    finally:
        again.close()


def test_daemons_are_ended(group: Cgroup) -> None:
    group.begin(None, None)
    process = run(
        group,
        "import os, time\nif not os.fork():\n os.setsid()\n"
        " if not os.fork(): print(os.getpid(), flush=True); time.sleep(60)",
    )
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    group.kill()
    process.communicate()
    with suppress(psutil.NoSuchProcess):
        assert psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_the_commands_of_a_sandbox_are_born_in_it(tmp_path: Path) -> None:
    limits = Limits(memory=100 * 2**20, processes=50)
    with Sandbox(rungs.PROCESS, scratch=tmp_path / "s", limits=limits) as box:
        if box._cgroup is None:
            pytest.skip("NO CGROUP CAN BE MADE HERE")
        names = {Path(join).parent.name for join in box._cgroup.joins}
        script = "cat /proc/self/cgroup /proc/self/oom_score_adj"
        command = Command(("/bin/sh", "-c", script), tmp_path, {}, 5, tmp_path / "log")
        assert box.run(command).status == 0
        said = (tmp_path / "log").read_text()
        assert all(name in said for name in names)
        assert int(said.splitlines()[-1]) >= 900  # before its supervisor, and before others
        # A child that is ended for memory is the command's doing, however it ends itself.
        eat = f"{sys.executable} -S -c 'x = bytearray(b\"x\" * 300_000_000)'; exit 0"
        env = {"PATH": os.environ["PATH"]}
        command = Command(("/bin/sh", "-c", eat), tmp_path, env, 20, tmp_path / "log")
        first = box.supervisor
        assert box.run(command).over == "memory"
        assert box.supervisor == first


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
