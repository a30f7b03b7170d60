"""Whole runs in one process, on real git and real processes."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from pathlib import Path

import pytest
from targets import (
    CONFIG,
    MEASURE,
    PARTS,
    fold,
    git,
    launch_inline,
    make_config,
    make_patches,
    make_repo,
    measure_by_hand,
)

from swarm.coordinator import Coordinator
from swarm.entities import FINAL_INDEX
from swarm.errors import ConfigError, HarnessError, PreconditionError, RunInUseError
from swarm.launch import discard, open_run
from swarm.ledger import Ledger, launched, read
from swarm.node import MeasureJob
from swarm.records import Measured, Proposed
from swarm.runtime import Inline


def snapshot(top: Path) -> dict[str, tuple[str, int, int]]:
    """Take content, mode and mtime of everything in a directory, `.git` included."""
    seen: dict[str, tuple[str, int, int]] = {}
    for path in sorted(top.rglob("*")):
        stat = path.lstat()
        content = os.readlink(path) if path.is_symlink() else ""
        if path.is_file() and not path.is_symlink():
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        mtime = 0 if path.is_dir() else stat.st_mtime_ns
        seen[str(path.relative_to(top))] = (content, stat.st_mode, mtime)
    return seen


def test_a_run_improves_and_its_best_branch_says_so(tmp_path: Path) -> None:
    top = make_repo(tmp_path / "repo")
    opened, state = launch_inline(make_config(top))
    target = state.targets["main"]
    assert state.phase == "finished"
    assert sum(target.verdicts.values()) == 12
    assert target.result is not None
    assert target.result.gain > 0
    best = git(top, "rev-parse", "swarm/toy/best")
    assert best == target.best
    by_hand = measure_by_hand(top, best, tmp_path / "checkout")
    assert by_hand == pytest.approx(target.primary(best).mean)
    story = git(top, "log", "--format=%B", "main..swarm/toy/best")
    for trailer in ("Swarm-Run: toy", "Swarm-Experiment: ", "Swarm-Agent: a", "Swarm-Metric: loss"):
        assert trailer in story
    assert fold(opened).targets["main"].verdicts == target.verdicts


def test_the_users_repository_stays_as_it_was(weird_path: Path) -> None:
    top = make_repo(weird_path / "repo")
    (top / "untracked.txt").write_text("mine")
    before = snapshot(top)
    launch_inline(make_config(top))
    after = snapshot(top)
    new = {p for p in after if p not in before and not p.startswith(".swarm")}
    allowed = (".git/objects/pack", ".git/refs/heads/swarm", ".git/logs/refs/heads/swarm")
    assert not {p for p in new if not p.startswith(allowed)}
    assert {p: after.get(p) for p in before} == before
    assert git(top, "status", "--porcelain") == "?? untracked.txt"
    assert git(top, "for-each-ref", "--format=%(refname)") == (
        "refs/heads/main\nrefs/heads/swarm/toy/best"
    )


def test_four_agents_with_disjoint_scopes_meet_on_one_best(tmp_path: Path) -> None:
    top = make_repo(tmp_path / "repo")
    agents = ", ".join(f"{{count: 1, proposer: mutate, scope: [parts/{name}]}}" for name in PARTS)
    text = CONFIG.replace("[{count: 3, proposer: mutate}]", f"[{agents}]")
    _, state = launch_inline(make_config(top, text, "budget.experiments=24"))
    target = state.targets["main"]
    merged = [e for e in state.experiments.values() if e.merged and len(e.merged) == 40]
    assert {e.agent for e in merged} == {"a1", "a2", "a3", "a4"}
    changed = git(top, "diff", "--name-only", "main", "swarm/toy/best").splitlines()
    assert changed == [f"parts/{name}" for name in PARTS]
    stacks = [p for p in target.promotions if p.stacked]
    assert stacks, "wins of different agents can only meet in a measured stack"
    for promotion in stacks:
        assert (promotion.tree, state.slots[0].machine) in target.records
    assert "Swarm-Stack: loss" in git(top, "log", "--format=%B", "swarm/toy/best")
    for experiment in state.experiments.values():
        own = f"parts/{list(PARTS)[int(experiment.agent[1]) - 1]}"
        assert set(experiment.proposal.files) <= {own}


def scripted(top: Path, patches: list[dict[str, object]], *sets: str, **more: str):
    folder = make_patches(top.parent / "patches", patches)
    text = CONFIG.replace(
        "[{count: 3, proposer: mutate}]",
        f"[{{count: 1, proposer: {{kind: scripted, patches: {json.dumps(str(folder))}}}}}]",
    )
    for old, new in more.items():
        text = text.replace(f"{old}:", f"{old}: {new} #")
    return make_config(top, text, *sets)


def verdicts(state) -> list[tuple[str | None, str]]:
    return [(e.verdict, e.reason) for e in state.experiments.values()]


def test_every_way_to_fail_is_a_verdict(tmp_path: Path) -> None:
    files = {
        "work.py": "VALUE = 5.0\n",
        "run.sh": "exec python3 -S -E work_or_not.py\n",
        "work_or_not.py": "exec(open('work.py').read())\nprint('METRIC loss=%r' % VALUE)\n",
        "check.py": "import sys\nsys.exit('forbidden' in open('work.py').read())\n",
    }
    top = make_repo(tmp_path / "repo", files)
    bad = [
        "raise SystemExit(3)\n",
        "import time\ntime.sleep(1000)\n",
        "VALUE = float('nan')\n",
        "VALUE = 'text'\n",
        "VALUE = 1.0  # forbidden\n",
        "VALUE = 5.0\n",
        "import os\nos.kill(os.getpid(), 11)\n",
    ]
    patches: list[dict[str, object]] = [
        {"summary": f"bad {i}", "files": {"work.py": text}} for i, text in enumerate(bad)
    ]
    patches.insert(0, {"summary": "outside", "files": {"check.py": "\n"}})
    patches.append({"summary": "worse", "files": {"work.py": "VALUE = 6.0\n"}})
    patches.append({"summary": "worse again", "files": {"work.py": "VALUE = 6.0\n"}})
    coloured = "\x1b[32mbetter\x1b[0m"
    patches.append({"summary": coloured, "files": {"work.py": "VALUE = 4.0\n"}})
    config = scripted(
        top,
        patches,
        "target.scope=[work.py]",
        "target.run=sh run.sh",
        "target.guard=[python3 check.py]",
        # Long enough for all the others, whatever else this machine does meanwhile.
        "target.timeout=10s",
        "budget.experiments=20",
    )
    opened, state = launch_inline(config)
    found = {e.proposal.summary: e.verdict for e in state.experiments.values()}
    assert found.pop("outside", None) in ("invalid", None)
    assert found["bad 0"] == "crash"
    assert found["bad 1"] == "timeout"
    assert found["bad 2"] == "invalid"
    assert found["bad 3"] == "invalid"
    assert found["bad 4"] == "guard_failed"
    assert found["bad 6"] == "crash"
    assert found["worse"] == "discard"
    assert found["worse again"] == "duplicate"
    assert found["better"] == "keep"
    assert state.reason == "every proposer has tried all it can think of"
    log = opened.rundir.path / state.experiments[2].logs[0]
    assert "swarm: run" in log.read_text()
    (kept,) = (e for e in state.experiments.values() if e.verdict == "keep")
    guarded = ["swarm: guard" in (opened.rundir.path / log).read_text() for log in kept.logs]
    assert len(guarded) > 1
    assert guarded == [True] + [False] * (len(guarded) - 1), "the guards run once a commit"
    for number, experiment in state.experiments.items():
        if experiment.proposal.commit:
            ref = f"refs/swarm/toy/experiments/{number}"
            assert git(opened.rundir.hub, "rev-parse", ref) == experiment.proposal.commit


def test_a_conflict_becomes_an_idea_that_is_carried_over(tmp_path: Path) -> None:
    """Two agents change the same line; the later win is ported by a proposer, not lost."""
    top = make_repo(tmp_path / "repo", {"measure.py": MEASURE, "parts/a.py": "ALPHA = 0.25\n"})
    _, state = launch_inline(make_config(top, CONFIG, "budget.experiments=25"))
    conflicts = [e for e in state.experiments.values() if e.merged == "conflict"]
    ports = [e for e in state.experiments.values() if e.proposal.port_of is not None]
    for port in ports:
        assert port.proposal.port_of in {e.number for e in conflicts}
    assert all(e.merged != "queued" for e in state.experiments.values())


def test_an_interrupted_run_resumes_where_it_was(tmp_path: Path) -> None:
    top = make_repo(tmp_path / "repo")
    config = make_config(top, CONFIG, "target.env={SLEEP: '0.1'}")
    opened = open_run(config)
    coordinator = Coordinator(opened.rundir, opened.config, Inline(), prefixes=opened.prefixes)
    threading.Timer(2.0, lambda: opened.rundir.request("interrupt")).start()
    first = coordinator.run()
    assert first.phase == "interrupted"
    decided = {n: e.verdict for n, e in first.experiments.items() if e.verdict}
    again, state = launch_inline(config)
    assert again.rundir == opened.rundir
    assert again.resumed
    assert state.phase == "finished"
    assert sum(state.targets["main"].verdicts.values()) == 12
    assert {n: state.experiments[n].verdict for n in decided} == decided
    numbers = [e.number for e in read(opened.rundir.ledger) if isinstance(e, Proposed)]
    assert numbers == sorted(set(numbers))


class Counts(Inline):
    """Counts what it was given to measure."""

    begun = 0

    def measure(self, job: MeasureJob) -> None:
        self.begun += 1
        super().measure(job)


def test_pause_holds_and_resume_goes_on(tmp_path: Path) -> None:
    top = make_repo(tmp_path / "repo")
    opened = open_run(make_config(top, CONFIG, "target.env={SLEEP: '0.05'}"))
    runtime = Counts()
    coordinator = Coordinator(opened.rundir, opened.config, runtime, prefixes=opened.prefixes)
    worker = threading.Thread(target=coordinator.run)
    worker.start()
    opened.rundir.request("pause")
    deadline = time.monotonic() + 20
    while coordinator.state.phase != "paused" and time.monotonic() < deadline:
        time.sleep(0.05)
    while coordinator.state.spend.measurements < runtime.begun and time.monotonic() < deadline:
        time.sleep(0.05)  # what was begun is finished
    measured = coordinator.state.spend.measurements
    time.sleep(1.0)
    assert coordinator.state.phase == "paused"
    assert coordinator.state.spend.measurements == measured
    opened.rundir.request("resume")
    worker.join(60)
    assert coordinator.state.phase == "finished"


def test_a_finished_name_starts_the_next_and_a_named_one_is_given_back(tmp_path: Path) -> None:
    top = make_repo(tmp_path / "repo")
    config = make_config(top, CONFIG, "budget.experiments=2")
    opened, _ = launch_inline(config)
    second, _ = launch_inline(config)
    assert (opened.rundir.run, second.rundir.run) == ("toy", "toy-2")
    assert open_run(config).rundir.run == "toy-3"
    assert open_run(config, name="toy").finished


def test_a_resume_refuses_another_config_and_names_the_keys(tmp_path: Path) -> None:
    top = make_repo(tmp_path / "repo")
    open_run(make_config(top))
    open_run(make_config(top, CONFIG, "budget.experiments=99"))
    with pytest.raises(ConfigError, match=r"target\.timeout"):
        open_run(make_config(top, CONFIG, "target.timeout=30s"))


def test_a_held_run_is_not_launched_twice(tmp_path: Path) -> None:
    top = make_repo(tmp_path / "repo")
    opened = open_run(make_config(top))
    for held in (Ledger(opened.rundir.ledger), launched(opened.rundir.ledger)):
        with held, pytest.raises(RunInUseError):
            open_run(make_config(top), wait_s=0.2)


def test_a_base_that_cannot_be_measured_says_what_was_looked_for(tmp_path: Path) -> None:
    top = make_repo(tmp_path / "repo")
    opened = open_run(make_config(top, CONFIG, "target.run=echo hello"))
    coordinator = Coordinator(opened.rundir, opened.config, Inline(), prefixes=opened.prefixes)
    with pytest.raises(HarnessError) as caught:
        coordinator.run()
    assert "METRIC loss" in str(caught.value)
    assert "hello" in str(caught.value)
    discard(opened)
    assert not opened.rundir.path.exists()


def test_a_scope_that_matches_nothing_leaves_nothing_behind(tmp_path: Path) -> None:
    top = make_repo(tmp_path / "repo")
    with pytest.raises(ConfigError, match="matches no file"):
        open_run(make_config(top, CONFIG, "target.scope=[nothing.py]"))
    assert not (top / ".swarm" / "runs" / "toy").exists()


def test_gpus_that_are_not_there_are_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    top = make_repo(tmp_path / "repo")
    opened = open_run(make_config(top, CONFIG, "target.slot.gpus=1"))
    coordinator = Coordinator(opened.rundir, opened.config, Inline(), prefixes=opened.prefixes)
    with pytest.raises(PreconditionError, match="GPU"):
        coordinator.run()


def test_setup_runs_once_and_what_it_leaves_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NODE_EXTRA_CA_CERTS", "certificates.pem")
    sees = 'test "$NODE_EXTRA_CA_CERTS" && test -e "$SWARM_HARNESS/speed/speed.py"'
    files = {
        ".gitignore": "cache/\n",
        "value.txt": "3.0\n",
        "measure.sh": "test -f cache/ready && echo METRIC loss=$(cat value.txt)\n",
    }
    top = make_repo(tmp_path / "repo", files)
    counter = tmp_path / "count"
    config = scripted(
        top,
        [{"summary": "lower", "files": {"value.txt": "2.0\n"}}],
        "target.scope=[value.txt]",
        "target.run=sh measure.sh",
        f"target.setup={sees} && mkdir cache && touch cache/ready && echo x >> '{counter}'",
    )
    _, state = launch_inline(config)
    assert [e.verdict for e in state.experiments.values()] == ["keep"]
    assert counter.read_text() == "x\n"


def test_constraints_are_checked_before_the_metric(tmp_path: Path) -> None:
    files = {
        "value.txt": "3.0\n",
        "size.txt": "10\n",
        "m.sh": "echo METRIC loss=$(cat value.txt); echo METRIC size=$(cat size.txt)\n",
    }
    top = make_repo(tmp_path / "repo", files)
    config = scripted(
        top,
        [
            {"summary": "fat", "files": {"value.txt": "1.0\n", "size.txt": "12\n"}},
            {"summary": "slim", "files": {"value.txt": "2.0\n", "size.txt": "10.2\n"}},
        ],
        "target.scope=[value.txt, size.txt]",
        "target.run=sh m.sh",
        "target.constraints=[{metric: size, max_regression: 5%}]",
    )
    _, state = launch_inline(config)
    found = {e.proposal.summary: e.verdict for e in state.experiments.values()}
    assert found == {"fat": "constraint_failed", "slim": "keep"}


def test_a_noisy_target_is_measured_until_it_is_clear(tmp_path: Path) -> None:
    top = make_repo(tmp_path / "repo")
    config = make_config(
        top, CONFIG, "target.env={NOISE: '0.2'}", "judge.baseline=5", "budget.experiments=10"
    )
    opened, state = launch_inline(config)
    target = state.targets["main"]
    base = target.primary(target.info.base)
    assert base.n >= 5
    assert target.spreads
    finals = [
        e.measurement.index
        for e in read(opened.rundir.ledger)
        if isinstance(e, Measured) and e.purpose == "final"
    ]
    assert all(i >= FINAL_INDEX for i in finals)
    for experiment in state.experiments.values():
        if experiment.verdict == "discard" and experiment.z is not None:
            assert experiment.z < 2.0
        if experiment.verdict == "keep":
            assert experiment.z is not None
            assert experiment.z >= 2.0


def test_a_dirty_tree_can_be_the_base(tmp_path: Path) -> None:
    top = make_repo(tmp_path / "repo")
    (top / "parts" / "a.py").write_text("ALPHA = 1.9\nANGLE = 9.0\n")
    with pytest.raises(PreconditionError, match="uncommitted"):
        open_run(make_config(top))
    before = snapshot(top)
    _, state = launch_inline(
        make_config(top, CONFIG, "target.dirty=snapshot", "budget.experiments=6")
    )
    assert state.phase == "finished"
    after = {p: s for p, s in snapshot(top).items() if p in before}
    assert after == before
    shown = git(top, "show", f"{state.targets['main'].info.base}:parts/a.py")
    assert "1.9" in shown


def test_a_target_below_the_top_of_its_repository(tmp_path: Path) -> None:
    files = {"sub/dir/measure.py": MEASURE, "sub/dir/parts/a.py": "A = 9.0\n", "README": "other\n"}
    top = make_repo(tmp_path / "repo", files)
    _, state = launch_inline(
        make_config(top, CONFIG, "target.repo=sub/dir", "budget.experiments=5")
    )
    assert state.targets["main"].result is not None
    changed = git(top, "diff", "--name-only", "main", "swarm/toy/best").splitlines()
    assert changed == ["sub/dir/parts/a.py"]


def test_a_group_cannot_reach_beyond_the_targets_scope(tmp_path: Path) -> None:
    top = make_repo(tmp_path / "repo")
    group = "agents=[{{count: 1, proposer: mutate, scope: [{}]}}]"
    with pytest.raises(ConfigError, match=r"agents\.0\.scope"):
        open_run(make_config(top, CONFIG, group.format("measure.py")))
    wide = group.format("measure.py, parts/a.py")
    _, state = launch_inline(make_config(top, CONFIG, wide, "budget.experiments=6"))
    changed = {f for e in state.experiments.values() for f in e.proposal.files}
    assert changed == {"parts/a.py"}


def test_a_branch_in_the_way_is_said_at_launch_and_a_win_is_never_lost(tmp_path: Path) -> None:
    top = make_repo(tmp_path / "repo")
    git(top, "branch", "swarm/toy")
    with pytest.raises(PreconditionError, match="no room"):
        open_run(make_config(top))
    assert not (top / ".swarm" / "runs" / "toy").exists()


def test_a_candidate_that_digs_a_deep_tree_harms_nobody(tmp_path: Path) -> None:
    dig = "import os\nfor _ in range(1500):\n    os.mkdir('d' * 50)\n    os.chdir('d' * 50)\n"
    files = {
        "work.py": "VALUE = 5.0\n",
        "measure.py": "exec(open('work.py').read())\nprint('METRIC loss=%r' % VALUE)\n",
    }
    top = make_repo(tmp_path / "repo", files)
    config = scripted(
        top,
        [
            {"summary": "dig", "files": {"work.py": f"VALUE = 6.0\n{dig}"}},
            {"summary": "better", "files": {"work.py": "VALUE = 4.0\n"}},
        ],
        "target.scope=[work.py]",
        "target.slot.count=1",
    )
    _, state = launch_inline(config)
    found = {e.proposal.summary: e.verdict for e in state.experiments.values()}
    assert found == {"dig": "discard", "better": "keep"}
