"""Several targets in one run: branches, shares, budgets, views; and one that cannot go on."""

from __future__ import annotations

import json
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
from targets import (
    check_nobody_left,
    fold,
    git,
    launch_inline,
    make_config,
    make_patches,
    make_repo,
)

from swarm import commands
from swarm.config import RunConfig
from swarm.coordinator import Coordinator
from swarm.errors import ConfigError, HarnessError, UsageError
from swarm.launch import open_run
from swarm.ledger import read
from swarm.mustering import seed_of
from swarm.node import Bench, MeasureJob
from swarm.records import Decided, Ended, Exhausted, Finished, Measured
from swarm.report import write_views
from swarm.runtime import Inline
from swarm.views import status_json

MEASURE = """
import math, os, sys, time
values = {}
exec(open(f"{sys.argv[1]}/x.py").read(), {}, values)
time.sleep(float(os.environ.get("SLEEP", "0")))
print(f"METRIC loss={1.0 + sum(math.log(v / 2.0) ** 2 for v in values.values())!r}")
"""
X = "A = 9.0\nB = 0.1\nC = 32.0\n"
NAMES = ("one", "two", "three")
CONFIG = """
targets:
  - name: one
    repo: repo
    scope: [one/]
    run: python3 -S -E measure.py one
    metric: {name: loss, goal: minimize}
    timeout: 20s
    slot: {count: 2}
  - name: two
    repo: repo
    scope: [two/]
    run: python3 -S -E measure.py two
    metric: {name: loss, goal: minimize}
    timeout: 20s
    slot: {count: 2}
  - name: three
    repo: repo
    scope: [three/]
    run: python3 -S -E measure.py three
    metric: {name: loss, goal: minimize}
    timeout: 20s
    slot: {count: 2}
agents: [{count: 3, proposer: mutate}]
judge: {baseline: 2, confirm: 2}
budget: {experiments: 24}
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    files = {f"{name}/x.py": X for name in NAMES}
    make_repo(tmp_path / "repo", {"measure.py": MEASURE, **files})
    return tmp_path


def config_of(place: Path, *sets: str, text: str = CONFIG) -> RunConfig:
    return make_config(place, text, *sets, name="many")


def test_three_targets_have_three_best_branches_one_run_and_one_report(place: Path) -> None:
    opened, state = launch_inline(config_of(place))
    assert (state.phase, state.reason) == ("finished", "budget: 24 experiments")
    top = place / "repo"
    for name in NAMES:
        target = state.targets[name]
        assert target.promotions, f"mutate finds something for {name}"
        assert git(top, "rev-parse", f"swarm/many/{name}/best") == target.best
        changed = git(top, "diff", "--name-only", target.info.base, target.best).splitlines()
        assert changed == [f"{name}/x.py"], "each target's best has its own wins and no others"
        assert target.result is not None
        assert target.result.gain > 0
        loop = state.agents["a1"].loops[name]
        assert git(opened.rundir.hub, "rev-parse", f"swarm/many/{name}/a1") == loop.incumbent
    assert set(state.agents) == {"a1", "a2", "a3"}, "agents are shared, not multiplied"
    worked = {e.target for e in state.experiments.values() if e.agent == "a1"}
    assert len(worked) > 1
    numbers = sorted(state.experiments)
    assert numbers == list(range(1, 25)), "one count for the whole run"
    write_views(opened.rundir, state, opened.config)
    for name in NAMES:
        rows = (opened.rundir.path / name / "results.tsv").read_text().splitlines()
        decided = [e for e in state.experiments.values() if e.target == name]
        assert len(rows) == 2 + len([e for e in decided if e.verdict != "aborted"])
        for file in ("summary.md", "progress.png", "report.html", "lessons.md"):
            assert (opened.rundir.path / name / file).stat().st_size > 0
    page = opened.rundir.report.read_text()
    assert page.count("data:image/png") == 3
    assert "All targets" in page
    assert all(f"swarm/many/{name}/best" in page for name in NAMES)
    check_nobody_left()


def test_slots_are_shared_by_weight(place: Path) -> None:
    sets = [f"targets.{i}.env={{SLEEP: '0.1'}}" for i in range(3)]
    config = config_of(place, *sets, "targets.0.weight=2", "budget.experiments=40")
    opened, state = launch_inline(config)
    events = list(read(opened.rundir.ledger))
    # Until the first target has nothing left: from then on the others share what is free.
    last = dict.fromkeys(NAMES, 0)
    for event in events:
        if isinstance(event, Decided):
            last[state.experiments[event.number].target] = event.seq
    busy = dict.fromkeys(NAMES, 0.0)
    for event in events:
        if isinstance(event, Measured) and event.seq <= min(last.values()):
            busy[event.target] += event.busy_seconds
    shares = {name: each / sum(busy.values()) for name, each in busy.items()}
    assert shares["one"] == pytest.approx(0.5, abs=0.1), shares
    assert shares["two"] == pytest.approx(0.25, abs=0.08), shares
    assert state.last_at is not None
    found = status_json(state, live=False, dir=opened.rundir.path, now=state.last_at)
    assert sum(t["share"] for t in found["targets"]) == pytest.approx(1.0)


def test_a_target_that_has_used_its_budget_frees_its_slots_and_the_others_go_on(
    place: Path,
) -> None:
    config = config_of(place, "targets.0.budget={experiments: 3}", "budget.experiments=15")
    opened, state = launch_inline(config)
    counts = {name: state.targets[name].begun for name in NAMES}
    assert counts["one"] == 3
    assert sum(counts.values()) == 15, "what it does not use is the others'"
    assert state.targets["one"].ended == "budget: 3 experiments"
    ended = next(e for e in read(opened.rundir.ledger) if isinstance(e, Ended))
    later = [e for e in read(opened.rundir.ledger) if isinstance(e, Measured) and e.seq > ended.seq]
    mine = {e.purpose for e in later if e.target == "one"}
    assert mine <= {"candidate", "stack", "confirm", "control", "final"}
    assert state.targets["one"].result is not None, "its best is measured afresh all the same"


def test_when_every_target_has_ended_the_run_ends(place: Path) -> None:
    sets = [f"targets.{i}.budget={{experiments: {i + 2}}}" for i in range(3)]
    _, state = launch_inline(config_of(place, *sets, "budget={}"))
    assert (state.phase, state.reason) == ("finished", "every target has come to its end")
    assert [state.targets[name].begun for name in NAMES] == [2, 3, 4]


def test_stale_ends_each_target_by_itself(place: Path) -> None:
    files = [{"one/x.py": f"A = {99 + i}.0\n"} for i in range(9)]
    make_patches(place / "patches", [{"summary": str(f), "files": f} for f in files])
    agents = (
        "agents=[{count: 1, targets: [one], proposer: {kind: scripted, patches: patches}}, "
        "{count: 2, targets: [two, three]}]"
    )
    _, state = launch_inline(config_of(place, agents, "budget={stale: 3, experiments: 25}"))
    assert state.targets["one"].ended == "budget: 3 experiments without a keep"
    assert state.targets["one"].begun <= 5, "what was in flight is decided"
    assert {e.agent for e in state.experiments.values() if e.target == "one"} == {"a1"}
    assert state.phase == "finished"


def test_a_target_whose_base_fails_ends_alone(place: Path) -> None:
    run = "targets.1.run=python3 -S -E measure.py nowhere"
    opened, state = launch_inline(config_of(place, run, "budget.experiments=10"))
    two = state.targets["two"]
    assert two.failed
    assert two.ended is not None
    assert "the base cannot be measured: crash" in two.ended
    assert "FileNotFoundError" in two.ended
    assert state.phase == "finished"
    assert all(state.targets[name].begun for name in ("one", "three"))
    assert not [e for e in state.experiments.values() if e.target == "two" and e.verdict == "keep"]
    write_views(opened.rundir, state, opened.config)
    assert "could not go on" in opened.rundir.summary.read_text()


FRAIL = """
import os, random, sys
values = {}
exec(open(f"{sys.argv[1]}/x.py").read(), {}, values)
if os.environ["SWARM_EXPERIMENT"] == "baseline" and os.environ["SWARM_SEED"] not in sys.argv[2:]:
    sys.exit("the third measurement of the base always fails")
both = values["A"] != 9.0 and values["B"] != 0.1
print("METRIC loss=", values["A"] + values["B"] - both * random.random(), sep="")
"""


def test_a_target_that_fails_with_keeps_in_its_queue_does_not_hold_the_run_up(place: Path) -> None:
    """What stacks on it cannot be ruled on any more: the noise of its base stays unknown."""
    (place / "repo" / "frail.py").write_text(FRAIL)
    git(place / "repo", "add", "-A")
    git(place / "repo", "commit", "-qm", "frail")
    seeds = " ".join(str(seed_of(zlib.crc32(b"many"), index)) for index in range(2))
    patches = [
        {"summary": "A", "files": {"one/x.py": X.replace("9.0", "5.0")}},
        {"summary": "B", "files": {"one/x.py": X.replace("0.1", "0.05")}},
    ]
    for i, patch in enumerate(patches):
        make_patches(place / f"p{i}", [patch])
    agents = ", ".join(
        f"{{targets: [one], proposer: {{kind: scripted, patches: p{i}}}}}" for i in range(2)
    )
    sets = [
        f"targets.0.run=python3 -S -E frail.py one {seeds}",
        f"agents=[{agents}, {{count: 1, targets: [two, three]}}]",
        "judge={baseline: 3, confirm: 2}",
        "budget={experiments: 8}",
    ]
    _, state = launch_inline(config_of(place, *sets))
    assert state.phase == "finished"
    one = state.targets["one"]
    assert one.failed
    assert not one.queue
    assert one.stack is None
    merged = {e.merged for e in state.experiments.values() if e.target == "one"}
    assert "antagonistic" in merged


def test_a_slow_target_is_not_left_without_proposals(place: Path) -> None:
    """Its slots would be idle: who gets how much of them is settled where they are given."""
    sets = ["targets.0.env={SLEEP: '0.6'}", "budget={experiments: 18}", "lookahead=0"]
    _, state = launch_inline(config_of(place, *sets))
    counts = {name: state.targets[name].begun for name in NAMES}
    assert min(counts.values()) >= 3, counts


PROPOSE = """
import pathlib, random, sys
if "two/" in sys.stdin.read():
    sys.exit()  # nothing is changed, which is no proposal
file = next(p for p in (pathlib.Path("one/x.py"), pathlib.Path("three/x.py")) if p.exists())
file.write_text(f"A = {random.random()}\\nB = 0.1\\nC = 32.0\\n")
"""


def test_an_agent_that_is_of_no_use_on_one_target_goes_on_with_the_others(place: Path) -> None:
    (place / "propose.py").write_text(PROPOSE.replace("\\\\n", "\\n"))
    proposer = f"{{kind: headless, cli: [{sys.executable}, {place}/propose.py]}}"
    sets = [
        f"agents=[{{count: 1, targets: [one, two], proposer: {proposer}}}, {{targets: [three]}}]"
    ]
    sets += ["sandbox=off", "budget={experiments: 40}"]
    opened, state = launch_inline(config_of(place, *sets))
    invalid = [e for e in state.experiments.values() if e.verdict == "invalid"]
    assert {e.target for e in invalid} == {"two"}
    assert len(invalid) >= 5
    stopped = [e for e in read(opened.rundir.ledger) if isinstance(e, Exhausted)]
    assert [(e.agent, e.target) for e in stopped if "invalid" in e.reason] == [("a1", "two")]
    assert state.agents["a1"].parked is None
    assert state.targets["one"].begun > len(invalid) / 2


def test_the_log_of_every_base_is_kept(place: Path) -> None:
    opened, state = launch_inline(config_of(place, "budget={experiments: 3}"))
    first = [
        e
        for e in read(opened.rundir.ledger)
        if isinstance(e, Measured) and (e.purpose, e.measurement.index) == ("baseline", 0)
    ]
    assert {e.measurement.log for e in first} == {f"logs/0/{n}/baseline-0.log" for n in NAMES}
    for event in first:
        assert (
            f"measure.py {event.target}" in (opened.rundir.path / event.measurement.log).read_text()
        )
    assert state.phase == "finished"


def test_machinery_that_dies_under_one_target_ends_that_one(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Bench._measure  # pyright: ignore[reportPrivateUsage]

    def dies(bench: Bench, job: MeasureJob, *rest: Any) -> Any:
        if job.target == "two":
            raise OSError("the mount is gone")
        return whole(bench, job, *rest)

    monkeypatch.setattr(Bench, "_measure", dies)
    _, state = launch_inline(config_of(place, "budget={experiments: 8}"))
    assert state.phase == "finished"
    two = state.targets["two"]
    assert two.failed
    assert "the machinery died under the last" in (two.ended or "")
    assert state.targets["one"].begun + state.targets["three"].begun == 8


def test_when_no_base_can_be_measured_the_run_fails(place: Path) -> None:
    runs = [f"targets.{i}.run=exit 3" for i in range(3)]
    with pytest.raises(HarnessError, match="the base cannot be measured"):
        launch_inline(config_of(place, *runs))


def test_targets_of_two_repositories(place: Path) -> None:
    other = make_repo(place / "other", {"sub/m.py": MEASURE, "sub/two/x.py": X})
    sets = ["targets.1.repo=other/sub", "targets.1.run=python3 -S -E m.py two"]
    opened, state = launch_inline(config_of(place, *sets))
    assert opened.rundir.path.is_relative_to(place / "repo" / ".swarm")
    assert not (other / ".swarm").exists()
    assert git(other, "rev-parse", "swarm/many/two/best") == state.targets["two"].best
    assert git(other, "for-each-ref", "--format=%(refname:short)", "refs/heads/swarm") == (
        "swarm/many/two/best"
    )
    assert "swarm/many/two/best" not in git(place / "repo", "branch", "--list", "swarm/*")
    assert git(other, "diff", "--name-only", "main", "swarm/many/two/best") == "sub/two/x.py"


def test_it_is_resumed_with_a_larger_budget_where_it_stopped(place: Path) -> None:
    small = config_of(place, "targets.0.budget={experiments: 2}", "budget.experiments=8")
    opened = open_run(small)
    coordinator = Coordinator(opened.rundir, opened.config, Inline(), prefixes=opened.prefixes)
    coordinator.interrupt("enough for now")
    coordinator.run()
    larger = config_of(place, "targets.0.budget={experiments: 5}", "budget.experiments=14")
    again, state = launch_inline(larger)
    assert again.resumed
    assert state.phase == "finished"
    assert sum(state.targets[name].begun for name in NAMES) == 14
    assert state.targets["one"].begun <= 5
    assert again.config.named("one").budget.experiments == 5
    finished = [e for e in read(again.rundir.ledger) if isinstance(e, Finished)]
    assert len(finished) == 1


def test_another_target_on_a_resume_is_refused(place: Path) -> None:
    opened = open_run(config_of(place))
    with pytest.raises(ConfigError, match=r"targets\.1\.weight"):
        open_run(config_of(place, "targets.1.weight=3"), name=opened.rundir.run)


def test_judges_of_their_own(place: Path) -> None:
    sets = ["targets.0.judge={min_delta: 1000}", "budget.experiments=12"]
    _, state = launch_inline(config_of(place, *sets))
    assert not state.targets["one"].verdicts["keep"], "nothing there gains a thousand"
    assert state.targets["two"].verdicts["keep"] + state.targets["three"].verdicts["keep"]


def test_apply_asks_which(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    opened, state = launch_inline(config_of(place))
    seen = commands.look("many", opened.rundir.path)
    with pytest.raises(UsageError, match="which target is meant"):
        commands.apply_best(seen, onto=None, target=None, json=True)
    with pytest.raises(UsageError, match="has no target `four`"):
        commands.apply_best(seen, onto=None, target="four", json=True)
    commands.apply_best(seen, onto="fast-two", target="two", json=True)
    assert json.loads(capsys.readouterr().out)["commit"] == state.targets["two"].best
    assert git(place / "repo", "rev-parse", "fast-two") == state.targets["two"].best
    assert fold(opened).targets["two"].best == state.targets["two"].best


@pytest.mark.ray
def test_on_ray_and_on_the_command_line(place: Path) -> None:
    (place / "many.yaml").write_text(CONFIG)
    command = [sys.executable, "-m", "swarm"]
    done = subprocess.run(
        [*command, "launch", "many.yaml", "--set", "budget.experiments=9"],
        cwd=place,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for name in NAMES:
        assert f"Branch: swarm/many/{name}/best" in done.stdout
    assert "=== The whole run ===" in done.stdout
    shown = subprocess.run(
        [*command, "status", "--json", "--dir", "repo"],
        cwd=place,
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(shown.stdout)
    assert [t["name"] for t in found["targets"]] == list(NAMES)
    assert [a["name"] for a in found["agents"]] == ["a1", "a2", "a3"]
    table = subprocess.run(
        [*command, "experiments", "--dir", "repo"],
        cwd=place,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "target agent" in table.stdout.splitlines()[0]
    check_nobody_left()
