"""What a run has to survive: kills between two steps, races, full disks, hostile leftovers."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha1
from pathlib import Path

import pytest
import rungs
from targets import CONFIG, git, launch_inline, make_config, make_patches, make_repo

from swarm import config as configs
from swarm.agent import Hands, ProposeJob, Ready
from swarm.briefing import Briefing
from swarm.config import RunConfig, SlotConfig
from swarm.coordinator import Coordinator
from swarm.errors import PreconditionError
from swarm.evaluate import Harness
from swarm.launch import Opened, open_run
from swarm.ledger import read
from swarm.node import Bench, MeasureJob, Node, NodeSite, TargetSite
from swarm.proposers import Draft, Workspace
from swarm.reading import MetricRule
from swarm.records import AnyEvent, Promoted, Proposed, SlotInfo, Stacked
from swarm.repo import Hub, create_hub, inspect
from swarm.runtime import Inline, Lost, Post, _gpus_of, slot_count


def countdown(tmp_path: Path, wins: int, *sets: str) -> tuple[Path, RunConfig]:
    """Make a target whose value is a file, and one agent that lowers it `wins` times."""
    top = make_repo(tmp_path / "repo", {"v.txt": "20\n", "m.sh": "echo METRIC loss=$(cat v.txt)\n"})
    patches = [{"summary": f"step {i}", "files": {"v.txt": f"{19 - i}\n"}} for i in range(wins)]
    folder = make_patches(tmp_path / "patches", patches)
    agents = f"[{{count: 1, proposer: {{kind: scripted, patches: {json.dumps(str(folder))}}}}}]"
    text = CONFIG.replace("[{count: 3, proposer: mutate}]", agents)
    return top, make_config(top, text, "target.scope=[v.txt]", "target.run=sh m.sh", *sets)


def test_refs_that_move_twice_before_they_are_settled(tmp_path: Path) -> None:
    top, config = countdown(tmp_path, 4)
    opened, state = launch_inline(config)
    assert [e.verdict for e in state.experiments.values()] == ["keep"] * 4
    best = state.targets["main"].best
    assert git(top, "rev-parse", "swarm/toy/best") == best
    assert (
        git(opened.rundir.hub, "rev-parse", "swarm/toy/a1")
        == state.agents["a1"].loops["main"].incumbent
    )


class OneDies(Inline):
    """Agents of which the first that is sent objects dies before it has stored them."""

    died = False

    def propose(self, job: ProposeJob) -> None:
        if job.pack is None or self.died:
            super().propose(job)
        else:
            self.died = True
            self._outbox.put(Lost(job.agent, "killed"))
            self._outbox.put(Ready(job.agent))


def test_objects_are_sent_again_when_their_receiver_died(tmp_path: Path) -> None:
    _, config = countdown(tmp_path, 3)
    opened = open_run(config)
    runtime = OneDies()
    state = Coordinator(opened.rundir, opened.config, runtime, prefixes=opened.prefixes).run()
    assert runtime.died
    assert [e.verdict for e in state.experiments.values()] == ["keep"] * 3


class Moody:
    """A proposer with a fault that some seeds bring out."""

    def __init__(self, fault: BaseException) -> None:
        self.fault: BaseException | None = fault

    def propose(self, workspace: Workspace, briefing: Briefing) -> Draft:
        fault, self.fault = self.fault, None
        if fault is not None:
            raise fault
        value = int((workspace.root / "v.txt").read_text()) - 1
        (workspace.root / "v.txt").write_text(f"{value}\n")
        return Draft(f"down to {value}")


@pytest.mark.parametrize("fault", [RecursionError("too deep"), SystemExit(3)])
def test_a_fault_of_a_proposer_does_not_stop_its_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: BaseException
) -> None:
    _, config = countdown(tmp_path, 1, "budget.experiments=3", "lookahead=0")
    proposer = Moody(fault)
    make = Post.hands
    monkeypatch.setattr(Post, "hands", lambda post, node: _with(make(post, node), proposer))
    _, state = launch_inline(config)
    verdicts = [e.verdict for e in state.experiments.values()]
    if isinstance(fault, SystemExit):  # it would end a process: the agent is put up again
        assert verdicts == ["keep"] * 3
    else:
        assert verdicts == ["invalid", "keep", "keep"]
        assert "RecursionError: too deep" in state.experiments[1].reason


def _with(hands: Hands, proposer: Moody) -> Hands:
    hands._proposer = proposer
    return hands


def bench_of(tmp_path: Path, run: str) -> tuple[Bench, MeasureJob]:
    """Open a slot on a repository of one file, and give it with a job on the base."""
    top = make_repo(tmp_path / "repo", {"v.txt": "1\n"})
    source = inspect(top)
    create_hub({"": source}, tmp_path / "hub.git", "toy")
    harness = Harness(run=run, metric=MetricRule(name="loss", goal="minimize"), timeout_s=10)
    target = TargetSite("main", source.base, source.base_tree, "", ("v.txt",), harness)
    bundle = Hub(tmp_path / "hub.git", "toy").bundle([source.base])
    node = Node(NodeSite("toy", "toy-1", (target,), bundle, (source.base,), rungs.PROCESS))
    node.prepare()
    job = MeasureJob("s1", "main", source.base, source.base_tree, 0, 1, "cpu", "baseline", None)
    return Bench(node, SlotInfo(name="s1", node="local", machine="cpu")), job


@pytest.mark.parametrize("make", ["mkfifo", "mkdir", "ln -s /etc/passwd"])
def test_a_candidate_that_replaces_its_log(tmp_path: Path, make: str) -> None:
    """Nobody waits for ever at a pipe, follows a link, or stumbles over it the next time."""
    bench, job = bench_of(tmp_path, f"echo METRIC loss=1; rm ../log; {make} ../log")
    try:
        for _ in range(2):
            done = bench.measure(job)
            assert done.measurement.failure is not None
            assert done.measurement.failure.kind == "invalid"
            assert b"root" not in done.log
    finally:
        bench.close()


@pytest.mark.parametrize("to", ["nowhere", "elsewhere"])
def test_a_candidate_that_puts_a_link_in_place_of_its_directory(tmp_path: Path, to: str) -> None:
    """It spoils neither the next measurement of its slot nor what the link leads to."""
    target = tmp_path / "elsewhere"
    (target / "private").mkdir(parents=True, mode=0o500)
    (target / "private" / "file").write_text("mine")
    (target / "private").chmod(0o500)
    move = f"mv ../run ../moved; ln -s '{tmp_path / to}' ../run; echo METRIC loss=1"
    bench, job = bench_of(tmp_path, move)
    try:
        for _ in range(2):
            assert bench.measure(job).measurement.failure is None
    finally:
        bench.close()
    assert (target / "private" / "file").read_text() == "mine"
    assert (target / "private").stat().st_mode & 0o777 == 0o500


def test_a_run_that_ends_while_its_next_launch_waits_is_not_run_again(tmp_path: Path) -> None:
    _, config = countdown(tmp_path, 1)
    opened = open_run(config)
    coordinator = Coordinator(opened.rundir, opened.config, Inline(), prefixes=opened.prefixes)
    worker = threading.Thread(target=coordinator.run)
    worker.start()
    second = open_run(config)
    worker.join()
    assert coordinator.state.phase == "finished"
    assert second.rundir.run == "toy-2"


def test_a_run_made_twice_at_once_is_made_once(tmp_path: Path) -> None:
    top, file = make_repo(tmp_path / "repo"), tmp_path / "toy.yaml"
    file.write_text(CONFIG.replace("repo: .", "repo: repo"))
    code = (
        "import sys; from pathlib import Path; from swarm import config, launch; "
        "from swarm.errors import SwarmError\n"
        "try: launch.open_run(config.load(Path(sys.argv[1]), []), wait_s=5); print('opened')\n"
        "except SwarmError as error: print(error.kind)\n"
    )
    argv = [sys.executable, "-c", code, str(file)]
    racers = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    said = [process.communicate()[0].strip() for process in racers]
    assert set(said) <= {"opened", "run_in_use"}
    assert "opened" in said
    assert [p.name for p in (top / ".swarm" / "runs").iterdir()] == ["toy"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if mount is None or umount is None:
        pytest.skip("no mount")
    argv = [mount, "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)]
    if subprocess.run(argv, capture_output=True, check=False).returncode:
        pytest.skip("not allowed to mount")
    yield place
    subprocess.run([umount, "-l", str(place)], check=True)


class Fills(Inline):
    """A machine whose disk is full from the third experiment on."""

    def __init__(self, filler: Path) -> None:
        super().__init__()
        self.filler = filler

    def measure(self, job: MeasureJob) -> None:
        if (job.experiment or 0) >= 3 and not self.filler.exists():
            with suppress(OSError), open(self.filler, "wb", buffering=0) as file:
                while True:
                    file.write(b"0" * 512)
        super().measure(job)


def test_a_full_disk_ends_in_words_and_the_run_goes_on_later(small_disk: Path) -> None:
    _, config = countdown(small_disk, 12, "target.env={}")
    opened = open_run(config)
    filler = small_disk / "filler"
    coordinator = Coordinator(opened.rundir, opened.config, Fills(filler), prefixes=opened.prefixes)
    with pytest.raises(PreconditionError) as caught:
        coordinator.run()
    assert caught.value.hint is not None
    assert "disk space" in caught.value.hint
    with pytest.raises(PreconditionError):
        launch_inline(config)
    filler.unlink()
    again, state = launch_inline(config)
    assert again.resumed
    assert state.phase == "finished"
    assert sum(state.targets["main"].verdicts.values()) == 12
    git(again.rundir.hub, "fsck", "--strict")


class Waits(Inline):
    """Measures the second candidate, and what comes at the end, when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.go, self.end = threading.Event(), threading.Event()

    def measure(self, job: MeasureJob) -> None:
        told = self.end if job.purpose == "final" else self.go

        def wait() -> None:
            told.wait(60)
            Inline.measure(self, job)

        if job.purpose == "final" or (job.experiment or 0) > 1:
            threading.Thread(target=wait).start()  # the coordinator itself goes on
        else:
            super().measure(job)


def test_a_best_that_was_checked_out_is_delivered_at_the_end(tmp_path: Path) -> None:
    top, config = countdown(tmp_path, 5)
    opened = open_run(config)
    runtime = Waits()
    coordinator = Coordinator(opened.rundir, opened.config, runtime, prefixes=opened.prefixes)
    worker = threading.Thread(target=coordinator.run)
    worker.start()
    while not git(top, "branch", "--list", "swarm/toy/best"):
        time.sleep(0.02)
    git(top, "checkout", "-q", "swarm/toy/best")
    runtime.go.set()
    target = coordinator.state.targets["main"]
    while len(target.promotions) < 5:
        time.sleep(0.02)
    git(top, "checkout", "-q", "main")
    runtime.end.set()
    worker.join()
    assert git(top, "rev-parse", "swarm/toy/best") == target.best


def test_a_hub_of_thousands_of_loose_objects_is_packed_without_a_loss(tmp_path: Path) -> None:
    _, config = countdown(tmp_path, 2)
    opened = open_run(config)
    hub = opened.rundir.hub
    # Only those of eight thousand by which it is told: writing all of them takes long.
    texts = (f"{i}\n" for i in range(8000))
    seen = [t for t in texts if sha1(f"blob {len(t)}\0{t}".encode()).hexdigest()[:2] == "17"]
    blobs = "".join(f"blob\ndata <<X\n{text}X\n" for text in seen)
    importing = ["git", "-c", "fastimport.unpackLimit=100000", "fast-import", "--quiet"]
    subprocess.run(importing, cwd=hub, input=blobs, text=True, check=True)
    assert Hub(hub, "toy").is_loose()
    (hub / "objects" / "17" / "tmp_obj_killed").write_text("half")
    coordinator = Coordinator(opened.rundir, opened.config, Inline(), prefixes=opened.prefixes)
    state = coordinator.run()
    assert not Hub(hub, "toy").is_loose()
    for number, experiment in state.experiments.items():
        commit = experiment.proposal.commit
        assert git(hub, "rev-parse", f"refs/swarm/toy/experiments/{number}") == commit
    git(hub, "fsck", "--no-dangling")
    assert not (hub / "objects" / "17" / "tmp_obj_killed").exists()


def cut_after(opened: Opened, kind: str) -> AnyEvent:
    """Take a run back to just after its first event of a kind, and give that event."""
    lines = opened.rundir.ledger.read_bytes().splitlines(keepends=True)
    events = list(read(opened.rundir.ledger))
    end = next(i for i, event in enumerate(events) if event.kind == kind) + 1
    opened.rundir.ledger.write_bytes(b"".join(lines[:end]))
    return events[end - 1]


def lose(hub: Path, commit: str) -> None:
    """Take a commit from a hub, as a machine does that goes down before it is on the disk."""
    for ref in git(hub, "for-each-ref", "--points-at", commit, "--format=%(refname)").split():
        git(hub, "update-ref", "-d", ref)
    (hub / "objects" / commit[:2] / commit[2:]).write_bytes(b"")


def test_an_experiment_whose_commit_was_lost_is_aborted(tmp_path: Path) -> None:
    _, config = countdown(tmp_path, 4)
    opened, _ = launch_inline(config)
    event = cut_after(opened, "proposed")
    assert isinstance(event, Proposed)
    assert event.proposal.commit is not None
    lose(opened.rundir.hub, event.proposal.commit)
    again, state = launch_inline(config)
    assert again.resumed
    assert state.phase == "finished"
    assert state.experiments[1].verdict == "aborted"
    assert "machine went down" in state.experiments[1].reason
    assert [e.verdict for e in state.experiments.values()][1:] == ["keep"] * 3


def test_a_stack_whose_commit_was_lost_is_laid_again(tmp_path: Path) -> None:
    top = make_repo(tmp_path / "repo")
    agents = ", ".join(f"{{count: 1, proposer: mutate, scope: [parts/{p}.py]}}" for p in "ab")
    text = CONFIG.replace("[{count: 3, proposer: mutate}]", f"[{agents}]")
    config = make_config(top, text, "budget.experiments=5", "judge.confirm=1")
    opened, _ = launch_inline(config)
    event = cut_after(opened, "stacked")
    assert isinstance(event, Stacked)
    lose(opened.rundir.hub, event.commit)
    time.sleep(1.1)  # in the same second it would be the same commit, and git would not write it
    _, state = launch_inline(config)
    assert state.phase == "finished"
    laid = [e for e in read(opened.rundir.ledger) if isinstance(e, Stacked)]
    assert [e.number for e in laid[:2]] == [event.number] * 2
    assert laid[1].tree == event.tree


def test_a_run_whose_best_was_lost_says_so(tmp_path: Path) -> None:
    _, config = countdown(tmp_path, 2)
    opened, _ = launch_inline(config)
    event = cut_after(opened, "promoted")
    assert isinstance(event, Promoted)
    lose(opened.rundir.hub, event.new)
    with pytest.raises(PreconditionError, match=event.new):
        launch_inline(config)


@pytest.mark.parametrize(
    ("gpus", "count", "devices"),
    [
        (0.5, 4, ["0", "0", "1", "1"]),
        (0.3, 6, ["0", "0", "0", "1", "1", "1"]),
        (0.6, 2, ["0", "1"]),
        (0.1, 20, ["0"] * 10 + ["1"] * 10),
        (1, 2, ["0", "1"]),
        (2, 1, ["0,1"]),
    ],
)
def test_a_share_of_a_gpu_lies_on_one_gpu(gpus: float, count: int, devices: list[str]) -> None:
    assert slot_count(SlotConfig(gpus=gpus), cpus=4, gpus=2) == count
    assert [_gpus_of(i, gpus) for i in range(count)] == devices


def test_a_moved_repository_takes_its_run_along(tmp_path: Path) -> None:
    top, config = countdown(tmp_path, 4)
    program = top / "program.md"
    program.write_text("lower it")
    text = json.loads(configs.dump(config))
    text["target"]["program"] = str(program)
    del text["source"]
    config = configs.parse(json.dumps(text), top / "toy.yaml", ())
    opened, _ = launch_inline(config)
    cut_after(opened, "proposed")
    git(top, "branch", "-D", "swarm/toy/best")
    moved = tmp_path / "moved"
    top.rename(moved)
    there = json.loads(json.dumps(text).replace(str(top), str(moved)))
    again, state = launch_inline(configs.parse(json.dumps(there), moved / "toy.yaml", ()))
    assert again.resumed
    assert state.phase == "finished"
    assert git(moved, "rev-parse", "swarm/toy/best") == state.targets["main"].best
