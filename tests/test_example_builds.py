"""The examples of builds: runs whose proposals have known fates, and an image that is not built."""

from __future__ import annotations

import difflib
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import rungs
from targets import check_nobody_left, git, launch_inline
from test_docs import TOP

from swarm import config as configs
from swarm.config import RunConfig
from swarm.entities import Target
from swarm.errors import ConfigError
from swarm.proposers.scripted import apply_diff
from swarm.sandbox import WORK, Command, Mount, Sandbox, View
from swarm.state import RunState

EXAMPLE = TOP / "harness" / "builds" / "example"
CONFIGS = ("bundle-size", "build-time", "ci-time", "image-size")
SIZES = {
    "Compress the archive": "keep",
    "Leave the temperatures out": "guard_failed",
    "Leave the notes out": "keep",
    "Write the bundle's files in another order": "discard",
    "Drop the old tables": "keep",
    "Ship compiled modules too": "discard",
    "Keep one line for each unit": "keep",
}


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The example and its configs in a repository, at the same places as in swarm's own."""
    top = tmp_path / "clone"
    skip = shutil.ignore_patterns("__pycache__", ".swarm", "dist")
    shutil.copytree(EXAMPLE, top / "harness" / "builds" / "example", ignore=skip)
    (top / "configs").mkdir()
    for name in CONFIGS:
        shutil.copy(TOP / "configs" / f"{name}.yaml", top / "configs")
    git(top, "init", "-q", "-b", "main")
    git(top, "add", "-A")
    git(top, "commit", "-q", "-m", "base")
    return top


def played(clone: Path, name: str, *keys: str) -> RunState:
    """Carry a config out on a small scale."""
    keys = ("judge.baseline=2", "judge.confirm=1", *keys)
    opened, state = launch_inline(configs.load(clone / "configs" / f"{name}.yaml", keys))
    assert state.phase == "finished"
    assert git(clone, "status", "--porcelain", "--ignored") == "!! .swarm/"
    assert opened.rundir.results.exists()
    check_nobody_left()
    return state


def fates(state: RunState) -> dict[str, str | None]:
    return {e.proposal.summary: e.verdict for e in state.experiments.values()}


def value(target: Target, commit: str) -> float:
    return target.primary(commit).mean


@pytest.fixture
def quick(clone: Path) -> Path:
    """With a clock that is read less often."""
    config = clone / "configs" / "build-time.yaml"
    often = "--repeats 9 --warmup 1"
    assert often in config.read_text()
    config.write_text(config.read_text().replace(often, "--repeats 3 --warmup 1"))
    git(clone, "commit", "-q", "-a", "-m", "quicker")
    return clone


def ending(script: str, *lines: str) -> str:
    """Give the build script with another end."""
    end = "    bundle(collect())\n"
    assert script.endswith(end)
    return script.removesuffix(end) + "".join(f"    {line}\n" for line in lines)


def test_a_bundle_becomes_small_and_does_what_it_did(clone: Path) -> None:
    state = played(clone, "bundle-size")
    assert fates(state) == SIZES
    (target,) = state.targets.values()
    assert value(target, target.best) < 0.1 * value(target, target.info.base)


def test_the_bundle_that_is_measured_is_the_one_that_is_tested(clone: Path) -> None:
    """A build that knows from its parents whether it is for the tests, and else leaves a byte."""
    script = (clone / "harness" / "builds" / "example" / "build.py").read_text()
    changed = ending(
        script,
        "from os import getppid",
        "parent = Path(f'/proc/{getppid()}/cmdline').read_bytes()",
        "bundle(collect())",
        "'test_bundle' in str(parent) or (DIST / 'units.pyz').write_bytes(b'x')",
    )
    was, now = (text.splitlines(keepends=True) for text in (script, changed))
    diff = difflib.unified_diff(was, now, "a/build.py", "b/build.py")
    patches = clone.parent / "tricks"
    patches.mkdir()
    (patches / "01.diff").write_text(f"A trick\n\n{''.join(diff)}")
    proposer = f"agents=[{{count: 1, proposer: {{kind: scripted, patches: {patches}}}}}]"
    state = played(clone, "bundle-size", proposer, "budget.experiments=1")
    assert fates(state) == {"A trick": "crash"}


ASIDE = ("ROOT.name == 'copy' or bundle(collect())",)
LEFT = ("mark = ROOT / 'mark'", "assert not mark.exists()", "mark.touch()", "bundle(collect())")


@pytest.mark.parametrize(
    ("end", "said"), [(ASIDE, "exit 1"), (LEFT, "METRIC cpu_relative=")], ids=["aside", "left"]
)
def test_a_timed_build_builds_and_finds_nothing_of_another(
    quick: Path, tmp_path: Path, end: tuple[str, ...], said: str
) -> None:
    """One script builds only off the clock, one does not bear what an earlier build has left."""
    example = quick / "harness" / "builds" / "example"
    script = example / "build.py"
    script.write_text(ending(script.read_text(), *end))
    target = configs.load(quick / "configs" / "build-time.yaml", ()).target
    assert isinstance(target.run, str)
    env = {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "SWARM_HARNESS": str(TOP / "harness"),
        "TMPDIR": str(tmp_path),
    }
    done = subprocess.run(
        ["/bin/sh", "-c", target.run],
        cwd=example,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert said in done.stdout + done.stderr, done
    assert (done.returncode == 0) == (end == LEFT)


def test_a_build_becomes_fast_in_a_fresh_checkout(quick: Path) -> None:
    """On a machine with other work: what is small may be taken for nothing, and is not asked."""
    state = played(quick, "build-time")
    found = fates(state)
    assert found["Read the table of units once"] == "keep"
    assert found["Work with floats"] == "guard_failed"
    # The last patch stands on the one before; it does not fit where that was taken for nothing.
    assert state.experiments[5].verdict in ("guard_failed", "invalid")
    (target,) = state.targets.values()
    assert value(target, target.best) < 0.7 * value(target, target.info.base)
    remembers = next(e for e in state.experiments.values() if e.number == 3)
    assert remembers.proposal.commit is not None
    kept = value(target, state.experiments[1].proposal.commit or "")
    # The first build of a checkout finds nothing that an earlier one left: what a cache wins in
    # the second is not counted.
    assert value(target, remembers.proposal.commit) > 0.7 * kept


def test_ci_becomes_fast_and_tests_what_it_tested(clone: Path) -> None:
    state = played(clone, "ci-time")
    found = fates(state)
    assert found["Build once for all tests"] == "keep"
    assert found["Skip what takes long"] == "crash"
    (target,) = state.targets.values()
    assert value(target, target.best) < 0.8 * value(target, target.info.base)


def image_size(*keys: str) -> RunConfig:
    return configs.load(TOP / "configs" / "image-size.yaml", keys)


ENGINE = Path("/var/run/docker.sock")
NO_ENGINE = () if ENGINE.exists() else ("target.read_only=[]",)


@pytest.mark.skipif(ENGINE.exists(), reason="AN ENGINE HERE: nothing is missing")
def test_without_an_engine_the_config_says_what_is_missing() -> None:
    with pytest.raises(ConfigError, match=r"target\.read_only: no such file .*docker\.sock"):
        image_size()


ANSWERS = 'shift 4; exec python3 -I "$BUNDLE" "$@"'
FORESEEN = "echo 3000 m"


@pytest.mark.parametrize(
    ("answers", "status"), [(ANSWERS, 0), (FORESEEN, 1)], ids=["answers", "foreseen"]
)
def test_an_image_that_answers_has_the_size_that_docker_says(
    tmp_path: Path, answers: str, status: int
) -> None:
    """No engine runs here: a stand-in says what `docker` would, and the config's words are run."""
    target = image_size(*NO_ENGINE).target
    assert isinstance(target.run, str)
    stand_in = tmp_path / "docker"
    stand_in.write_text(
        '#!/bin/sh\ncase "$1 $2" in\n"build --quiet") echo sha256:abc ;;\n'
        f'"run --rm") test "$4" = sha256:abc || exit 9; {answers} ;;\n'
        '"image inspect") test "$5" = sha256:abc && echo 123456789 ;;\n'
        '"image rm") echo "$4" >> "$REMOVED" ;;\n*) exit 9 ;;\nesac\n'
    )
    stand_in.chmod(0o755)
    shutil.copytree(EXAMPLE, tmp_path / "example")
    subprocess.run([sys.executable, "build.py"], cwd=tmp_path / "example", check=True)
    env = {
        "PATH": f"{tmp_path}:{Path(sys.executable).parent}:/usr/bin:/bin",
        "BUNDLE": str(tmp_path / "example" / "dist" / "units.pyz"),
        "REMOVED": str(tmp_path / "removed"),
        "SWARM_SEED": "123456789",
    }
    done = subprocess.run(
        ["/bin/sh", "-c", target.run], env=env, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (status, "")
    assert ("METRIC bytes=123456789\n" in done.stdout) == (status == 0)
    assert (tmp_path / "removed").read_text() == "sha256:abc\n", "also where it has no answer"


def test_a_socket_is_reached_through_read_only_and_not_without(tmp_path: Path) -> None:
    """What `read_only: [/var/run/docker.sock]` opens: the page on builds says so."""
    rung = rungs.rung("bubblewrap")
    place = Path(f"{tmp_path}/engine.sock")
    call = (
        f"import socket; s = socket.socket(socket.AF_UNIX); s.connect({str(place)!r}); "
        "print(s.recv(9).decode())"
    )
    export = tmp_path / "export"
    export.mkdir()
    with socket.socket(socket.AF_UNIX) as engine:
        engine.bind(str(place))
        engine.listen()

        def answer() -> None:
            connection, _ = engine.accept()
            with connection:
                connection.sendall(b"reached")

        server = threading.Thread(target=answer, daemon=True)
        server.start()
        with Sandbox(rung, scratch=tmp_path / "scratch") as box:
            for mounts, said in (((), "No such file"), ((Mount(place),), "reached")):
                view = View((Mount(export, WORK, writable=True), *mounts))
                words = (sys.executable, "-S", "-c", call)
                done = box.run(Command(words, export, {}, 30, tmp_path / "log", view=view))
                assert said in (tmp_path / "log").read_text(), done
        server.join(30)


def test_the_patches_of_the_image_follow_one_from_the_other(tmp_path: Path) -> None:
    shutil.copy(EXAMPLE / "Dockerfile", tmp_path)
    for patch in sorted((EXAMPLE / "patches" / "image").iterdir()):
        apply_diff(patch.read_text(), tmp_path)
    text = (tmp_path / "Dockerfile").read_text()
    assert text.count("FROM ") == 2
    assert "COPY --from=build /app/dist/units.pyz" in text
