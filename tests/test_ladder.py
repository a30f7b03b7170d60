"""The ladder: which rung is taken, what it says, and what a command sees on each."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import rungs
from targets import processes_with
from test_sandbox import alive, pids, wait_until

from swarm.errors import PreconditionError
from swarm.sandbox import (
    OUT,
    WORK,
    Command,
    Limits,
    Mount,
    Outcome,
    Rung,
    Sandbox,
    View,
    holds,
    ladder,
    probe,
)
from swarm.sandbox.system import system

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs namespaces")
pytestmark = linux
WALLED = ("bubblewrap", "landlock")


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    """Nothing that one test made of the machine is remembered by the next."""
    ladder._best.cache_clear()
    yield
    ladder._best.cache_clear()


# --- which rung --------------------------------------------------------------------------------


def test_the_best_rung_is_taken_and_says_what_is_open() -> None:
    best, off = probe("auto"), probe("off")
    assert off.name == "off"
    assert "files" in (off.warning or "")
    if best.name == "bubblewrap" and not best.open:
        assert best.warning is None
        assert probe("require") == best
    else:
        assert best.warning is not None


def test_without_bubblewrap_the_next_rung_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    rungs.rung("landlock")
    monkeypatch.setattr(ladder, "which", lambda _: None)
    found = probe("auto")
    assert (found.name, found.why) == ("landlock", "bwrap is not installed")
    assert "names of files" in (found.warning or "")
    with pytest.raises(PreconditionError, match="bwrap is not installed") as caught:
        probe("require")
    assert "apt install bubblewrap" in (caught.value.hint or "")
    assert "`landlock`" in (caught.value.hint or "")


def test_a_bubblewrap_that_is_installed_and_fails_is_not_believed_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho 'bwrap: Creating new namespace failed' >&2; exit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(ladder, "which", lambda _: str(broken))
    monkeypatch.setattr(ladder, "_try_landlock", lambda _: "Landlock does not hold: none")
    found = probe("auto")
    assert found.name == "process"
    assert found.why == (
        "bwrap does not hold: Creating new namespace failed; Landlock does not hold: none"
    )
    assert "Creating new namespace failed" in (found.warning or "")
    with pytest.raises(PreconditionError, match="Creating new namespace failed"):
        probe("require")


def test_an_older_bubblewrap_says_what_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = rungs.rung("bubblewrap").program
    older = tmp_path / "bwrap"
    # It knows all flags but two, and refuses those as the old one does.
    older.write_text(
        "#!/bin/sh\n"
        'case " $* " in\n'
        f"  *' --help '*) {real} --help | grep -v -e '--disable-userns ' -e '--size ';;\n"
        "  *' --disable-userns '*|*' --size '*) echo 'bwrap: Unknown option' >&2; exit 1;;\n"
        f'  *) exec {real} "$@";;\n'
        "esac\n"
    )
    older.chmod(0o755)
    monkeypatch.setattr(ladder, "which", lambda _: str(older))
    ladder._best.cache_clear()
    found = probe("auto")
    assert found.name == "bubblewrap"
    assert found.open == ("new user namespaces", "the size of /tmp")
    with pytest.raises(PreconditionError, match="new user namespaces"):
        probe("require")


def test_another_machine_is_asked_for_the_same_rung() -> None:
    rung = rungs.rung("bubblewrap")
    assert holds(rung) is None
    gone = Rung("bubblewrap", (), program="/nowhere/bwrap")
    assert "No such file" in (holds(gone) or "") or "not found" in (holds(gone) or "")
    assert holds(rungs.PROCESS) is None


# --- what is seen ------------------------------------------------------------------------------


class Bench:
    """A sandbox on one rung, with the directories that a measurement has."""

    def __init__(self, root: Path, rung: Rung, limits: Limits) -> None:
        self.root, self.log = root, root / "log"
        self.work, self.out, self.data = root / "work", root / "out", root / "data"
        for folder in (self.work, self.out, self.data):
            folder.mkdir()
        (self.data / "rows").write_text("rows\n")
        self.view = View(
            (
                Mount(self.work, WORK, writable=True),
                Mount(self.out, OUT, writable=True),
                Mount(self.data),
            )
        )
        self.box = Sandbox(rung, scratch=root / "scratch", limits=limits)

    def sh(self, script: str, timeout_s: float = 20, view: View | None = None) -> Outcome:
        """Run a script; `self.text` is what it said."""
        env = {"PATH": os.environ["PATH"]}
        argv = ("/bin/sh", "-c", script)
        return self.box.run(
            Command(argv, self.work, env, timeout_s, self.log, view=view or self.view)
        )

    @property
    def text(self) -> str:
        return self.log.read_text(errors="replace")


@pytest.fixture(params=WALLED)
def bench(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Bench]:
    limits = Limits(memory=400 * 2**20, processes=64, file_size=2 * 2**20, tmp=4 * 2**20)
    bench = Bench(tmp_path, rungs.rung(request.param), limits)
    yield bench
    bench.box.close()


def test_it_writes_its_own_directories_and_nothing_else(bench: Bench) -> None:
    out = bench.box.inside(bench.out, bench.view)
    script = (
        f"echo 1 > here && echo 2 > {out}/there && echo 3 > $HOME/x && echo 4 > $TMPDIR/y "
        f"&& echo 5 > /dev/shm/z && echo 6 > /dev/null || exit 9; "
        f"echo x > {bench.root}/new 2>/dev/null; "
        f"for f in {bench.data}/new {bench.data}/rows /etc/new /usr/new /new; do "
        "  echo x > $f && echo WROTE $f; done 2>/dev/null; cat " + f"{bench.data}/rows"
    )
    outcome = bench.sh(script)
    assert outcome.status == 0
    assert bench.text == "rows\n"
    assert (bench.work / "here").read_text() == "1\n"
    assert (bench.out / "there").read_text() == "2\n"
    assert sorted(p.name for p in bench.root.iterdir()) == ["data", "log", "out", "scratch", "work"]


def test_nothing_is_left_in_private_places(bench: Bench) -> None:
    assert bench.sh("touch /tmp/left /dev/shm/left $HOME/left").status == 0
    assert bench.sh("ls -A /tmp /dev/shm $HOME | grep left").status == 1
    assert not Path("/tmp/left").exists()
    assert not Path("/dev/shm/left").exists()


def test_the_rest_of_the_machine_is_not_there(bench: Bench, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("planted")
    home = os.path.expanduser("~")
    script = f"cat {secret}; ls -A {home}/; cat /etc/shadow; ls -A {tmp_path}"
    bench.sh(f"({script}) 2>/dev/null | grep -v -e '^data$' -e '^out$' -e '^work$' -e '^.pyenv$'")
    assert "planted" not in bench.text
    assert "root:" not in bench.text


def test_it_sees_its_own_processes_and_no_network(bench: Bench) -> None:
    assert bench.sh("ls /proc | grep -c '^[0-9]'; cat /proc/net/dev | grep -c : ").status == 0
    processes, links = map(int, bench.text.split())
    assert processes < 8
    assert links == 1


def test_with_network_it_sees_that_of_the_machine(bench: Bench) -> None:
    view = View(bench.view.mounts, network=True)
    script = "import os; print(os.stat('/proc/self/ns/net').st_ino)"
    run = f'{sys.executable} -S -c "{script}"'
    assert bench.sh(run, view=view).status == 0
    assert int(bench.text) == os.stat("/proc/self/ns/net").st_ino
    assert bench.sh(run).status == 0
    assert int(bench.text) != os.stat("/proc/self/ns/net").st_ino


def test_no_capability_and_no_new_namespace(bench: Bench) -> None:
    assert bench.sh("grep CapEff /proc/self/status; grep NoNewPrivs /proc/self/status").status == 0
    assert bench.text.split() == ["CapEff:", "0000000000000000", "NoNewPrivs:", "1"]
    bench.sh("unshare -Urm mount -t tmpfs none /tmp && echo MOUNTED; mount -o remount,rw /")
    assert "MOUNTED" not in bench.text
    assert bench.sh("echo x > /etc/x").status != 0


def test_limits_end_it_and_the_next_command_runs(bench: Bench) -> None:
    eat = "x = bytearray(3_000_000_000); import time; time.sleep(5)"
    assert bench.sh(f'{sys.executable} -S -c "{eat}"').over == "memory"
    fork = "import os\nwhile 1:\n try: os.fork()\n except OSError: pass"
    outcome = bench.sh(f"{sys.executable} -S -c '{fork}'", timeout_s=5)
    assert outcome.over == "processes"
    assert outcome.seconds < 7
    assert bench.sh("head -c 9000000 /dev/zero > big").status == 128 + signal.SIGXFSZ
    assert (bench.work / "big").stat().st_size == 2 * 2**20
    full = bench.sh("for i in 1 2 3; do head -c 2000000 /dev/zero > /tmp/$i; done; du -xsk /tmp")
    assert full.status == 0
    assert int(bench.text.split()[-2]) <= 4 * 1024 + 16
    assert bench.sh("echo fine").status == 0


def test_shared_pages_are_counted_once(bench: Bench) -> None:
    script = (
        "import os, time\nheld = bytearray(b'x' * 150_000_000)\n"
        "for _ in range(5):\n if not os.fork(): time.sleep(1.5); os._exit(0)\n"
        "time.sleep(1)\nfor _ in range(5): os.wait()\n"
    )
    (bench.work / "share.py").write_text(script)
    outcome = bench.sh(f"{sys.executable} -S share.py")
    assert (outcome.status, outcome.over) == (0, None)
    assert outcome.peak_memory_mb > 400


def test_walls_that_cannot_be_built_are_no_fault_of_the_command(bench: Bench) -> None:
    view = View((*bench.view.mounts, Mount(bench.root / "gone")))
    outcome = bench.sh("echo hello", view=view)
    if bench.box.rung.name == "bubblewrap":
        assert outcome.status is None
        assert "cannot be set up" in (outcome.error or "")
        assert not outcome.unstarted
    assert bench.sh("echo fine").status == 0


def test_a_program_that_is_not_there_is_unstarted(bench: Bench) -> None:
    env = {"PATH": os.defpath}
    command = Command(("no-such",), bench.work, env, 5, bench.log, view=bench.view)
    outcome = bench.box.run(command)
    assert outcome.unstarted
    assert outcome.error == "cannot run 'no-such': No such file or directory"


OWNER = """
import os, sys
from pathlib import Path
from swarm.sandbox import Command, Mount, Rung, Sandbox, View, probe
from swarm.sandbox.ladder import OPEN
root, name, nap = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
rung = probe("auto") if name == "bubblewrap" else Rung(name, OPEN[name])
box = Sandbox(rung, scratch=root / "scratch")
(root / "supervisor").write_text(str(box.supervisor.pid))
script = f"trap '' TERM; setsid sleep {nap} & touch up; sleep {nap}"
env = {"PATH": os.environ["PATH"]}
box.run(Command(("/bin/sh", "-c", script), root / "work", env, 1000, root / "log"))
"""


@pytest.mark.parametrize("name", WALLED)
def test_nothing_survives_the_death_of_owner_and_supervisor_together(
    tmp_path: Path, name: ladder.RungName
) -> None:
    rungs.rung(name)
    (tmp_path / "work").mkdir()
    nap = str(10**6 + os.getpid())
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(tmp_path), name, nap])
    try:
        assert wait_until((tmp_path / "work" / "up").exists)
        (supervisor,) = pids(tmp_path / "supervisor")
        os.kill(owner.pid, signal.SIGSTOP)
        os.kill(supervisor, signal.SIGKILL)
    finally:
        owner.kill()
        owner.wait()

    def left() -> list[str]:
        return processes_with(f"sleep {nap}")

    assert wait_until(lambda: not alive(supervisor) and not left(), 5)


# --- the system --------------------------------------------------------------------------------


def test_tools_on_the_path_are_shown_and_homes_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    for folder in (".local/bin", ".local/share/app", ".local/lib", "bin", "venv/bin", "real"):
        (home / folder).mkdir(parents=True)
    (home / "venv" / "pyvenv.cfg").write_text("")
    (home / "real" / "tool").write_text("")
    (home / ".local" / "bin" / "tool").symlink_to(home / "real" / "tool")
    monkeypatch.setenv("HOME", str(home))
    path = os.pathsep.join(
        str(p) for p in (home / ".local/bin", home / "bin", home / "venv/bin", home, "relative")
    )
    shown = {p for p in system(path).shown if p.startswith(str(home))}
    names = (".local/bin", ".local/lib", "bin", "venv", "real/tool")
    assert shown == {str(home / name) for name in names}


@pytest.mark.parametrize("name", WALLED)
def test_tools_are_found_by_way_of_a_link(
    tmp_path: Path, name: ladder.RungName, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where `/home` is a link, or an environment is named by one."""
    for folder in ("true/env/bin", "true/env/lib", "work"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "true/env/pyvenv.cfg").write_text("")
    tool = tmp_path / "true/env/bin/tool"
    tool.write_text(f"#!/bin/sh\nls {tmp_path}/linked/pyvenv.cfg {tmp_path}/home/env/lib/..\n")
    tool.chmod(0o755)
    (tmp_path / "linked").symlink_to(tmp_path / "true/env")
    (tmp_path / "home").symlink_to(tmp_path / "true")
    for path in ("linked/bin", "home/env/bin"):
        with Sandbox(rungs.rung(name), scratch=tmp_path / "s") as box:
            env = {"PATH": f"{tmp_path}/{path}{os.pathsep}{os.defpath}"}
            work = tmp_path / "work"
            command = Command(("/bin/sh", "-c", "tool; exit 0"), work, env, 5, tmp_path / "log")
            assert box.run(command).status == 0
        said = (tmp_path / "log").read_text()
        assert "not found" not in said
        assert "pyvenv.cfg" in said


def test_of_a_repository_only_environments_on_the_path_are_shown(tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    for folder in ("bin", ".venv/bin", "node_modules/.bin"):
        (repo / folder).mkdir(parents=True)
    (repo / ".venv" / "pyvenv.cfg").write_text("")
    path = os.pathsep.join(str(repo / f) for f in ("bin", ".venv/bin", "node_modules/.bin"))
    shown = {p for p in system(path, (str(repo),)).shown if p.startswith(str(repo))}
    assert shown == {str(repo / ".venv"), str(repo / "node_modules")}


def test_an_environment_below_a_mask_is_shown_again(tmp_path: Path) -> None:
    repo = tmp_path / "prefix" / "lib" / "repo"
    for folder in (tmp_path / "prefix" / "bin", repo / ".venv" / "bin"):
        folder.mkdir(parents=True)
    (repo / ".venv" / "pyvenv.cfg").write_text("")
    path = os.pathsep.join(str(p) for p in (tmp_path / "prefix/bin", repo / ".venv/bin"))
    found = system(path, (str(repo),))
    assert str(repo) in found.masked
    assert str(repo / ".venv") in found.shown


def test_a_repository_below_the_system_is_masked(tmp_path: Path) -> None:
    place = "/usr/share" if os.path.isdir("/usr/share") else "/usr/lib"
    assert place in system(os.defpath, (place,)).masked
    view = View(shielded=(place,))
    with Sandbox(rungs.rung("bubblewrap"), scratch=tmp_path / "s") as box:
        view = View((Mount(tmp_path, WORK, writable=True),), shielded=(place,))
        argv = ("/bin/sh", "-c", f"ls -A {place}; echo end")
        command = Command(argv, tmp_path, {"PATH": os.defpath}, 5, tmp_path / "log", view=view)
        assert box.run(command).status == 0
    assert (tmp_path / "log").read_text() == "end\n"
