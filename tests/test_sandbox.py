"""The sandbox against real processes: nobody survives, nothing leaks, output is capped."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import rungs

from swarm.errors import PreconditionError
from swarm.records import ProcessStamp
from swarm.sandbox import MARKER, Command, Outcome, Sandbox, end_leftover, probe, stamp

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")

DAEMON = """
import os, signal, sys, time
if os.fork(): os._exit(0)
os.setsid()
if os.fork(): os._exit(0)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGHUP, signal.SIG_IGN)
open(sys.argv[1], "a").write(f"{os.getpid()}\\n")
time.sleep(1000)
"""
"""Leaves its parent, its session and its process group, and ignores being asked to go."""


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.01)
    return condition()


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def pids(path: Path) -> list[int]:
    return [int(word) for word in path.read_text().split()] if path.exists() else []


class Bench:
    """A sandbox with short ways to use it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.log = root / "log"
        self.box = Sandbox(rungs.PROCESS, scratch=root / "scratch")

    def command(self, *argv: str, **changes: object) -> Command:
        fields: dict[str, object] = {
            "argv": argv,
            "cwd": self.root,
            "env": {"PATH": os.environ["PATH"]},
            "timeout_s": 20.0,
            "log": self.log,
        }
        return Command(**(fields | changes))  # type: ignore[arg-type]

    def run(self, *argv: str, cancel: threading.Event | None = None, **changes: object) -> Outcome:
        return self.box.run(self.command(*argv, **changes), cancel)

    def sh(self, script: str, **changes: object) -> Outcome:
        return self.run("/bin/sh", "-c", script, **changes)  # type: ignore[arg-type]

    def python(self, script: str, *argv: str, **changes: object) -> Outcome:
        return self.run(sys.executable, "-S", "-c", script, *argv, **changes)  # type: ignore[arg-type]

    @property
    def text(self) -> str:
        return self.log.read_text(errors="replace")


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    stamp = bench.box.supervisor
    assert stamp is not None
    yield bench
    bench.box.close()
    assert wait_until(lambda: not alive(stamp.pid), 2)


# --- how a command ends ------------------------------------------------------------------------


def test_exit_status_output_and_clock(bench: Bench) -> None:
    outcome = bench.sh("echo out; echo err >&2; sleep 0.2; exit 3")
    assert (outcome.status, outcome.timed_out, outcome.cancelled, outcome.error) == (
        3,
        False,
        False,
        None,
    )
    assert bench.text == "out\nerr\n"
    assert 0.2 <= outcome.seconds < 2
    assert not outcome.truncated


def test_stderr_can_be_kept_apart_and_is_capped_by_itself(bench: Bench, tmp_path: Path) -> None:
    errors = tmp_path / "errors"
    script = "echo out; echo err >&2; seq 1 20000 >&2; echo out again; exec >&-; echo last >&2"
    outcome = bench.sh(script, errors=errors, output_limit=2000)
    assert (outcome.status, outcome.error) == (0, None)
    assert bench.text == "out\nout again\n"
    told = errors.read_text()
    assert told.startswith("err\n1\n")
    assert told.endswith("20000\nlast\n")
    assert len(told) < 2200
    assert outcome.truncated


def test_errors_that_cannot_be_written_are_the_sandboxs_error(bench: Bench, tmp_path: Path) -> None:
    outcome = bench.sh("echo out", errors=tmp_path / "missing" / "errors")
    assert outcome.status is None
    assert outcome.error is not None
    assert "missing" in outcome.error
    assert bench.sh("echo out").status == 0


def test_a_signal_is_a_negative_status(bench: Bench) -> None:
    assert bench.sh("kill -SEGV $$").status == -signal.SIGSEGV


def test_cpu_time_counts_all_processes(bench: Bench) -> None:
    burn = "import time\nwhile time.process_time() < 0.2: pass"
    outcome = bench.sh(f"for i in 1 2; do {sys.executable} -S -c '{burn}' & done; wait")
    assert outcome.cpu_seconds >= 0.4


@linux
def test_timeout_kills_daemons_that_ignore_signals(bench: Bench, tmp_path: Path) -> None:
    daemon = tmp_path / "daemon.py"
    daemon.write_text(DAEMON)
    start = time.monotonic()
    outcome = bench.sh(
        f"trap '' TERM; for i in 1 2 3; do {sys.executable} -S daemon.py pids & done; sleep 1000",
        timeout_s=4.0,
    )
    assert outcome.timed_out
    assert outcome.status == -signal.SIGKILL
    assert time.monotonic() - start < 6
    left = pids(tmp_path / "pids")
    assert len(left) == 3
    assert not any(alive(pid) for pid in left)


@linux
def test_the_end_of_a_command_ends_its_daemons(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "daemon.py").write_text(DAEMON)
    outcome = bench.sh(
        f"{sys.executable} -S daemon.py pids; while [ ! -s pids ]; do sleep 0.01; done; echo done"
    )
    assert outcome.status == 0
    assert outcome.seconds < 5
    assert bench.text == "done\n"
    (pid,) = pids(tmp_path / "pids")
    assert not alive(pid)


@linux
def test_who_forks_faster_than_it_is_looked_for_is_caught(bench: Bench) -> None:
    runner = "import os\nfor _ in range(10**6):\n if os.fork(): os._exit(0)\n os.setsid()"
    outcome = bench.sh(f"{sys.executable} -S -c '{runner}' & sleep 1000", timeout_s=0.3)
    assert outcome.timed_out
    assert outcome.error is None


def test_cancel_takes_effect_at_once(bench: Bench) -> None:
    cancel = threading.Event()
    set_at: list[float] = []

    def later() -> None:
        set_at.append(time.monotonic())
        cancel.set()

    timer = threading.Timer(0.3, later)
    timer.start()
    outcome = bench.sh("sleep 1000 & sleep 1000", cancel=cancel)
    took = time.monotonic() - set_at[0]
    timer.join()
    assert outcome.cancelled
    assert not outcome.timed_out
    assert took < 0.5
    assert bench.sh("true", cancel=threading.Event()).status == 0


def test_a_cancellation_before_the_start_starts_nothing(bench: Bench) -> None:
    cancel = threading.Event()
    cancel.set()
    assert bench.sh("echo started", cancel=cancel) == Outcome(None, cancelled=True)
    assert not bench.log.exists()


def test_an_interrupted_owner_leaves_nothing(bench: Bench, tmp_path: Path) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    def send() -> None:
        assert wait_until(lambda: len(pids(tmp_path / "pids")) == 2)
        os.kill(os.getpid(), signal.SIGALRM)

    before = signal.signal(signal.SIGALRM, interrupt)
    sender = threading.Thread(target=send)
    sender.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            bench.sh("echo $$ > pids; sleep 1000 & echo $! >> pids; wait")
    finally:
        sender.join()
        signal.signal(signal.SIGALRM, before)
    left = pids(tmp_path / "pids")
    assert len(left) == 2
    assert not any(map(alive, left))
    assert bench.sh("true").status == 0


def test_commands_are_run_from_threads_that_end(bench: Bench) -> None:
    """What a parent-death signal would break: the thread that started it is gone."""
    for _ in range(2):
        outcomes: list[Outcome] = []
        thread = threading.Thread(target=lambda o=outcomes: o.append(bench.sh("sleep 0.05")))
        thread.start()
        thread.join()
        assert outcomes[0].status == 0
    assert bench.sh("true").status == 0


# --- what cannot be started --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("no-such-program",), "cannot run 'no-such-program': No such file"),
        (("./missing",), "cannot run './missing': No such file"),
        (("./plain",), "cannot run './plain': Permission denied"),
        (("/bin/echo", "a\0b"), "null byte"),
    ],
)
def test_what_cannot_be_executed_says_why(
    bench: Bench, tmp_path: Path, argv: tuple[str, ...], said: str
) -> None:
    (tmp_path / "plain").write_text("#!/bin/sh\n")
    outcome = bench.run(*argv)
    assert outcome.status is None
    assert outcome.unstarted
    assert said in (outcome.error or "")


def test_a_missing_directory_says_so(bench: Bench, tmp_path: Path) -> None:
    outcome = bench.run("/bin/true", cwd=tmp_path / "gone")
    assert outcome.unstarted
    assert "cannot enter" in (outcome.error or "")


def test_a_log_that_cannot_be_written_is_the_sandboxs_error(bench: Bench, tmp_path: Path) -> None:
    outcome = bench.run("/bin/true", log=tmp_path / "gone" / "log")
    assert not outcome.unstarted
    assert "cannot write the log" in (outcome.error or "")


# --- what a command sees -----------------------------------------------------------------------


def test_environment_is_exactly_what_was_given(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_KEY", "s")
    assert bench.run("/usr/bin/env", env={"A": "1 ü", "HOME": "/h"}).status == 0
    seen = dict(line.split("=", 1) for line in bench.text.splitlines())
    assert len(seen.pop(MARKER)) == 32
    assert seen == {"A": "1 ü", "HOME": "/h", "TMPDIR": str(tmp_path / "scratch" / "tmp")}


@linux
def test_the_supervisors_environment_holds_nothing(bench: Bench) -> None:
    stamp = bench.box.supervisor
    assert stamp is not None
    assert set(psutil.Process(stamp.pid).environ()) == {"PATH"}


def test_directory_session_signals_and_stdin(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "in").write_text("fed")
    script = (
        "import os, signal, sys; print(os.getcwd()); print(os.getsid(0) == os.getpid());"
        "print([s for s in signal.valid_signals() if signal.getsignal(s) == signal.SIG_IGN"
        " and s not in (signal.SIGPIPE, signal.SIGXFSZ)]); print(sys.stdin.read());"
        "print(sorted(os.listdir('/dev/fd'))[:3], len(os.listdir('/dev/fd')))"
    )
    bench.python(script, cwd=tmp_path / "sub", stdin=tmp_path / "in")
    assert bench.text.splitlines() == [
        str(tmp_path / "sub"),
        "True",
        "[]",
        "fed",
        "['0', '1', '2'] 4",  # the fourth reads the directory
    ]
    assert bench.sh("cat").status == 0


def test_private_directories_are_empty_at_every_start(bench: Bench) -> None:
    fill = 'for d in "$HOME" "$TMPDIR"; do mkdir -p $d/a/b; echo x > $d/a/b/c; chmod 0 $d/a; done'
    assert bench.sh(fill).status == 0
    assert bench.sh('test -z "$(ls -A "$HOME"; ls -A "$TMPDIR")"').status == 0
    assert bench.sh('rmdir "$HOME" && ln -s / "$HOME"').status == 0
    assert (
        bench.sh('test -d "$HOME" && test ! -L "$HOME" && test -z "$(ls -A "$HOME")"').status == 0
    )
    assert Path("/usr").exists()


# --- output ------------------------------------------------------------------------------------


def test_a_flood_is_capped_with_head_and_tail_kept(bench: Bench) -> None:
    limit = 2**20
    outcome = bench.sh(
        "echo FIRST; yes 0123456789abcdef | head -c 200000000; echo; echo LAST",
        output_limit=limit,
    )
    assert outcome.status == 0
    assert outcome.truncated
    text = bench.text
    assert text.startswith("FIRST\n")
    assert text.endswith("\nLAST\n")
    (marker,) = [line for line in text.split("\n") if line.startswith("[swarm: ")]
    dropped = int(marker.split()[1])
    assert len(text) - len(marker) - 1 + dropped == 6 + 200_000_000 + 1 + 5
    assert limit * 0.99 < len(text) <= limit + len(marker) + 2
    # Half a line must not look like a whole one.
    assert {len(line) for line in text.split("\n")[1:-4] if line != marker} == {16}


def test_output_within_the_limit_is_kept_byte_for_byte(bench: Bench) -> None:
    noise = bytes(range(256)) * 40 + b"\xff\xfe\xed\r\r\n\x1b[31m"
    (bench.root / "noise").write_bytes(noise)
    outcome = bench.sh("cat noise", output_limit=len(noise))
    assert not outcome.truncated
    assert bench.log.read_bytes() == noise
    assert bench.sh("cat noise", output_limit=len(noise) - 1).truncated
    assert bench.sh("echo kept").status == 0
    assert bench.sh("echo more", append=True).status == 0
    assert bench.text == "kept\nmore\n"


def test_the_head_is_visible_while_the_command_runs(bench: Bench) -> None:
    cancel = threading.Event()
    thread = threading.Thread(target=lambda: bench.sh("echo early; sleep 1000", cancel=cancel))
    thread.start()
    try:
        assert wait_until(lambda: bench.log.exists() and bench.text == "early\n")
    finally:
        cancel.set()
        thread.join()


def test_closed_output_does_not_end_or_spin_a_command(bench: Bench) -> None:
    assert bench.sh("exec >&- 2>&-; sleep 0.2; exit 7").status == 7


# --- memory ------------------------------------------------------------------------------------


def test_peak_memory_of_one_process(bench: Bench) -> None:
    outcome = bench.python("x = bytearray(100 * 2**20); import time; time.sleep(0.1)")
    assert outcome.peak_memory_mb == pytest.approx(108, rel=0.15)


@linux
def test_peak_memory_counts_processes_together(bench: Bench) -> None:
    one = f"{sys.executable} -S -c 'x = bytearray(60 * 2**20); import time; time.sleep(0.8)'"
    outcome = bench.sh(f"{one} & {one} & wait")
    assert outcome.peak_memory_mb == pytest.approx(137, rel=0.15)


# --- nothing leaks -----------------------------------------------------------------------------


@linux
def test_300_commands_leave_no_process_and_no_descriptor(bench: Bench) -> None:
    stamp = bench.box.supervisor
    assert stamp is not None
    supervisor, own = psutil.Process(stamp.pid), psutil.Process()
    bench.sh("true")
    before = supervisor.num_fds(), own.num_fds()
    for number in range(300):
        if number % 3 == 0:
            bench.sh("sleep 1000 & setsid sleep 1000 & exit 0")
        else:
            bench.run("/bin/true" if number % 3 == 1 else "/nonexistent")
    assert (supervisor.num_fds(), own.num_fds()) == before
    assert supervisor.children() == []
    assert bench.box.supervisor == stamp


OWNER = """
import os, sys, threading
from pathlib import Path
from swarm.sandbox import Command, Rung, Sandbox
root = Path(sys.argv[1])
box = Sandbox(Rung("process", ()), scratch=root / "scratch")
(root / "supervisor").write_text(str(box.supervisor.pid))
script = (
    "trap '' TERM; echo $$ >> pids; sleep 1000 & echo $! >> pids;"
    f"{sys.executable} -S daemon.py pids; sleep 1000"
)
box.run(Command(("/bin/sh", "-c", script), root, dict(os.environ), 1000, root / "log"))
"""


@linux
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_survives_the_death_of_the_owner(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "daemon.py").write_text(DAEMON)
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(tmp_path)])
    try:
        assert wait_until(lambda: len(pids(tmp_path / "pids")) == 3)
    finally:
        owner.send_signal(number)
        owner.wait()
    everyone = [*pids(tmp_path / "pids"), *pids(tmp_path / "supervisor")]
    assert len(everyone) == 4
    assert wait_until(lambda: not any(map(alive, everyone)), 2)


@linux
@pytest.mark.parametrize("how", ["KILL", "STOP"])
def test_a_command_that_attacks_its_supervisor(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr("swarm.sandbox.box._OVERDUE_S", 0.5)
    (tmp_path / "daemon.py").write_text(DAEMON)
    first = bench.box.supervisor
    outcome = bench.sh(
        f"{sys.executable} -S daemon.py pids; while [ ! -s pids ]; do sleep 0.01; done;"
        f"echo $$ >> pids; kill -{how} $PPID; sleep 1000",
        timeout_s={"KILL": 20.0, "STOP": 4.0}[how],
    )
    assert outcome.status is None
    late = "supervisor hangs: no answer 0.5 s after it was due"
    assert outcome.error == {"KILL": "supervisor died", "STOP": late}[how]
    left = pids(tmp_path / "pids")
    assert len(left) == 2
    assert wait_until(lambda: not any(map(alive, left)), 2)
    assert first is not None
    assert not alive(first.pid)
    assert bench.sh("echo again").status == 0
    assert bench.text == "again\n"
    assert bench.box.supervisor not in (None, first)


@linux
def test_a_supervisor_that_died_between_two_commands_is_replaced(bench: Bench) -> None:
    first = bench.box.supervisor
    assert first is not None
    os.kill(first.pid, signal.SIGKILL)
    assert wait_until(lambda: not alive(first.pid))
    assert bench.sh("exit 4").status == 4


@linux
def test_an_asked_supervisor_takes_its_command_along(bench: Bench, tmp_path: Path) -> None:
    outcome = bench.sh("echo $$ > pids; kill -TERM $PPID; sleep 1000")
    assert outcome.error == "supervisor died"
    assert not any(map(alive, pids(tmp_path / "pids")))


# --- leftovers ---------------------------------------------------------------------------------


@linux
def test_end_leftover_ends_the_tree_of_the_very_same_process(tmp_path: Path) -> None:
    script = "sleep 1000 & echo $! >> pids; (setsid sleep 1000 & echo $! >> pids; wait); wait"
    root = subprocess.Popen(["/bin/sh", "-c", script], cwd=tmp_path)
    try:
        assert wait_until(lambda: len(pids(tmp_path / "pids")) == 2)
        true = stamp("supervisor", root.pid)
        assert not end_leftover(true.model_copy(update={"host": "elsewhere"}))
        assert not end_leftover(true.model_copy(update={"started": true.started - 60}))
        assert alive(root.pid)
        assert end_leftover(true)
    finally:
        root.kill()
        root.wait()
    assert wait_until(lambda: not any(map(alive, pids(tmp_path / "pids"))), 2)
    assert not end_leftover(true)


def test_a_stamp_is_this_process() -> None:
    own = stamp("coordinator")
    assert isinstance(own, ProcessStamp)
    assert (own.role, own.pid) == ("coordinator", os.getpid())
    assert abs(own.started - time.time()) < 24 * 3600


# --- the ladder --------------------------------------------------------------------------------


def test_windows_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swarm.sandbox.ladder.os.name", "nt")
    with pytest.raises(PreconditionError, match="cannot run candidates"):
        probe("auto")


def test_closing_removes_the_private_directories(tmp_path: Path) -> None:
    with Sandbox(rungs.PROCESS, scratch=tmp_path / "scratch") as box:
        command = Command(("/bin/true",), tmp_path, {}, 10, tmp_path / "log")
        times = [box.run(command).seconds for _ in range(20)]
    assert not (tmp_path / "scratch").exists()
    assert statistics.median(times) < 0.1
