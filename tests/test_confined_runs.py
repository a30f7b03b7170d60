"""Runs in the sandbox: what `setup` leaves, `hide`, `read_only`, the network, refused starts."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest
import rungs
from targets import git, launch_inline, make_config, make_patches, make_repo

from swarm import coordinator
from swarm.bundled import bundled
from swarm.coordinator import Coordinator
from swarm.errors import ConfigError, PreconditionError
from swarm.launch import open_run
from swarm.ledger import read
from swarm.records import Interrupted, Launched
from swarm.runtime import Inline
from swarm.sandbox import Rung, ladder
from swarm.sandbox.ladder import RungName

CONFIG = """
target:
  repo: repo
  scope: [x.txt]
  run: echo METRIC loss=$(cat x.txt)
  metric: {name: loss, goal: minimize}
  timeout: 20s
  slot: {count: 1}
agents: [{count: 1, proposer: {kind: scripted, patches: patches}}]
judge: {baseline: 2, confirm: 2}
budget: {experiments: 1}
"""
ON_EACH = pytest.mark.parametrize("name", rungs.NAMES)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    make_repo(tmp_path / "repo", {"x.txt": "5\n", ".gitignore": ".venv/\n.cache/\n"})
    make_patches(tmp_path / "patches", [{"summary": "four", "files": {"x.txt": "4\n"}}])
    return tmp_path


def on(name: RungName, monkeypatch: pytest.MonkeyPatch) -> Rung:
    """Take a rung that this machine may not take by itself."""
    rung = rungs.rung(name)
    monkeypatch.setattr(coordinator, "probe", lambda mode, gpus=False: rung)
    return rung


@ON_EACH
def test_what_setup_left_is_there_and_only_to_be_read(
    place: Path, name: RungName, monkeypatch: pytest.MonkeyPatch
) -> None:
    rung = on(name, monkeypatch)
    setup = "mkdir .cache; echo 1 > .cache/data; python3 -m venv --without-pip .venv"
    run = (
        "cat .cache/data; echo 2 >> .cache/data; .venv/bin/python -c 'print(\"it runs\")'; "
        "echo METRIC loss=$(cat x.txt)"
    )
    opened, state = launch_inline(
        make_config(place, CONFIG, f"target.setup={setup}", f"target.run={run}")
    )
    assert state.experiments[1].verdict == "keep"
    log = (opened.rundir.logs / "1").glob("*")
    said = [p.read_text().splitlines() for p in sorted(log)]
    assert all("it runs" in lines for lines in said)
    kept = all(lines.count("2") == 0 for lines in said)
    assert kept == rung.walls


@ON_EACH
def test_read_only_is_shown_and_kept_as_it_is(
    place: Path, name: RungName, monkeypatch: pytest.MonkeyPatch
) -> None:
    rung = on(name, monkeypatch)
    (place / "data").mkdir()
    (place / "data" / "rows").write_text("7\n")
    run = f"cat {place}/data/rows; echo 8 >> {place}/data/rows; echo METRIC loss=$(cat x.txt)"
    sets = ("target.read_only=[data]", f"target.run={run}")
    _, state = launch_inline(make_config(place, CONFIG, *sets))
    assert state.experiments[1].verdict == "keep"
    assert ((place / "data" / "rows").read_text() == "7\n") == rung.walls


@ON_EACH
def test_what_is_hidden_is_never_in_scope_and_only_the_scorer_sees_it(
    tmp_path: Path, name: RungName, monkeypatch: pytest.MonkeyPatch
) -> None:
    on(name, monkeypatch)
    make_repo(tmp_path / "repo", {"x.txt": "5\n", "answers/key.txt": "1\n"})
    patches = [
        {"summary": "adds an answer", "files": {"answers/more.txt": "9\n"}},
        {"summary": "four", "files": {"x.txt": "4\n"}},
    ]
    make_patches(tmp_path / "patches", patches)
    sets = (
        "target.scope=[.]",
        "target.hide=[answers/]",
        "target.run=test ! -e answers && cp x.txt out.txt",
        "target.score=echo METRIC loss=$(($(cat out.txt) - $(cat answers/key.txt)))",
        "target.final=echo METRIC loss=$(($(cat out.txt) + $(cat answers/key.txt)))",
        "budget.experiments=2",
    )
    _, state = launch_inline(make_config(tmp_path, CONFIG, *sets))
    first, second = state.experiments[1], state.experiments[2]
    assert (first.verdict, "outside the scope" in first.reason) == ("invalid", True)
    target = state.targets["main"]
    assert second.verdict == "keep"
    assert target.primary(target.info.base).mean == 4
    assert target.primary(target.best).mean == 3
    assert target.info.scored
    assert target.result is not None
    assert target.result.confirmed is not None
    assert target.result.confirmed.gain == 1


def test_hiding_all_of_the_scope_is_refused(place: Path) -> None:
    with pytest.raises(ConfigError, match="matches no file"):
        open_run(make_config(place, CONFIG, "target.hide=[x.txt]"))


@pytest.mark.parametrize("network", ["off", "on"])
def test_the_network_is_there_by_word_of_the_config_alone(
    place: Path, network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    on("bubblewrap", monkeypatch)
    called: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def listen() -> None:
            while True:
                try:
                    server.accept()[0].close()
                except OSError:
                    return
                called.append(port)

        port = server.getsockname()[1]
        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        (place / "repo" / "call.py").write_text(
            f"import socket\nsocket.create_connection(('127.0.0.1', {port}), 2)\n"
        )
        git(place / "repo", "add", "-A")
        git(place / "repo", "commit", "-qm", "call")
        run = "target.run=python3 -S call.py; echo METRIC loss=$(cat x.txt)"
        sets = (run, f"sandbox.network={network}")
        _, state = launch_inline(make_config(place, CONFIG, *sets))
        assert state.experiments[1].verdict == "keep"
        server.shutdown(socket.SHUT_RDWR)
    thread.join(5)
    assert bool(called) == (network == "on")


def test_require_refuses_to_start_and_says_what_to_install(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ladder, "which", lambda _: None)
    ladder._best.cache_clear()
    try:
        with pytest.raises(PreconditionError, match="`sandbox: require` cannot be met") as caught:
            launch_inline(make_config(place, CONFIG, "sandbox=require"))
    finally:
        ladder._best.cache_clear()
    assert "apt install bubblewrap" in (caught.value.hint or "")
    assert git(place / "repo", "branch", "--list", "swarm/*") == ""


def test_a_run_is_never_resumed_on_a_lower_rung(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on("landlock", monkeypatch)
    config = make_config(place, CONFIG, "budget.experiments=5")
    opened = open_run(config, wait_s=5)
    first = Coordinator(opened.rundir, opened.config, Inline(), prefixes=opened.prefixes)
    first.interrupt("a break")
    first.run()
    events = list(read(opened.rundir.ledger))
    assert [e.sandbox for e in events if isinstance(e, Launched)] == ["landlock"]
    assert isinstance(events[-1], Interrupted)
    monkeypatch.setattr(coordinator, "probe", lambda mode, gpus=False: rungs.PROCESS)
    again = open_run(config, wait_s=5)
    with pytest.raises(PreconditionError, match="began in sandbox `landlock`") as caught:
        Coordinator(again.rundir, again.config, Inline(), prefixes=again.prefixes).run()
    assert "--name NEW" in (caught.value.hint or "")
    # A better one is welcome.
    on("bubblewrap", monkeypatch)
    Coordinator(again.rundir, again.config, Inline(), prefixes=again.prefixes).run()


def test_a_node_that_lacks_the_rung_says_so(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Rung("bubblewrap", (), program="/nowhere/bwrap")
    monkeypatch.setattr(coordinator, "probe", lambda mode, gpus=False: broken)
    with pytest.raises(PreconditionError, match="does not hold on") as caught:
        launch_inline(make_config(place, CONFIG))
    assert "swarm doctor" in (caught.value.hint or "")


@ON_EACH
def test_the_harnesses_that_came_with_swarm_are_there_to_be_read_and_not_to_be_changed(
    place: Path, name: RungName, monkeypatch: pytest.MonkeyPatch
) -> None:
    on(name, monkeypatch)
    write = 'echo "# mine" >> "$SWARM_HARNESS/toy/measure.py"'
    run = (
        f'grep -q METRIC "$SWARM_HARNESS/toy/measure.py" && echo METRIC loss=$(cat x.txt); {write}'
    )
    if name == "process":  # nothing keeps a root from writing here, and it must not be tried
        run = run.removesuffix(f"; {write}")
    else:
        run += " 2>/dev/null; true"
    before = (bundled("harness") / "toy" / "measure.py").read_text()
    config = make_config(place, CONFIG, f"target.run={run!r}")
    _, state = launch_inline(config)
    assert state.experiments[1].verdict == "keep"
    assert (bundled("harness") / "toy" / "measure.py").read_text() == before


@ON_EACH
def test_the_answers_of_the_examples_that_came_with_swarm_are_not_there(
    place: Path, name: RungName, monkeypatch: pytest.MonkeyPatch
) -> None:
    on(name, monkeypatch)
    golden = bundled("harness") / "retrieval" / "example" / "golden.jsonl"
    assert golden.is_file()
    missing = 'test ! -e "$SWARM_HARNESS/retrieval/example"'
    if name != "process":  # there all is open that the user may read
        missing += f" && ! cat {golden} 2>/dev/null"
    run = f'test -f "$SWARM_HARNESS/retrieval/retrieval.py" && {missing}'
    config = make_config(place, CONFIG, f"target.run={run + ' && echo METRIC loss=$(cat x.txt)'!r}")
    _, state = launch_inline(config)
    assert state.experiments[1].verdict == "keep"


def test_an_artefact_that_the_base_has_already_is_refused(place: Path) -> None:
    (place / "repo" / "found.txt").write_text("stale\n")
    git(place / "repo", "add", "found.txt")
    git(place / "repo", "commit", "-qm", "a result by mistake")
    more = ("target.score=cat found.txt", "target.artefacts=[found.txt]")
    with pytest.raises(ConfigError, match=r"artefacts names .*, which the base has") as told:
        open_run(make_config(place, CONFIG, *more))
    assert "git rm --cached found.txt" in (told.value.hint or "")
    git(place / "repo", "rm", "-q", "found.txt")
    git(place / "repo", "commit", "-qm", "gone")
    assert open_run(make_config(place, CONFIG, *more)).rundir.exists()
