"""`swarm check` on real small targets: each finding has one that provokes it."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import psutil
import pytest
from targets import check_nobody_left, git, make_config, make_repo
from test_run import snapshot

from swarm import diagnosis, observing
from swarm.check import check_config
from swarm.config import RunConfig
from swarm.diagnosis import Finding, diagnose
from swarm.entities import FINAL_INDEX
from swarm.judge import Count, Record
from swarm.judge.suite import pair, z_cases
from swarm.launch import open_run
from swarm.ledger import read
from swarm.mustering import seed_of
from swarm.observations import (
    Observations,
    Take,
    detectable_cases,
    figures,
    named_as_missing,
)
from swarm.observing import observe
from swarm.records import Case, Measurement, MetricSpec, TargetInfo
from swarm.sandbox import probe
from swarm.state import RunState

SWARM = [sys.executable, "-m", "swarm"]
ALWAYS = {"self_reported", "sandbox"}
SHARED = "sandbox=off"
"""For harnesses that meet, or count their runs, in a file outside their export."""

VALUE = """
import os, random
from value import VALUE
noise = random.Random(os.environ["SWARM_SEED"]).gauss(0, float(os.environ.get("NOISE", "0")))
print(f"METRIC loss={VALUE + noise!r}")
"""
GOOD = {"measure.py": VALUE, "value.py": "VALUE = 10.0\n"}

TEXT = """
target:
  repo: .
  scope: [value.py]
  run: python3 -S measure.py
  metric: {name: loss, goal: minimize}
  timeout: 60s
  slot: {count: 2}
agents: [{count: 1, proposer: mutate}]
"""


@pytest.fixture(autouse=True)
def telling(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Only a test about times lets a difference of times tell something: a process starts late."""

    def tell(seconds: float) -> None:
        for module in (observing, diagnosis):
            monkeypatch.setattr(module, "TELLING_S", seconds)

    tell(60.0)
    return tell


class Checked:
    """What `swarm check` made of a target."""

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self.said: list[str] = []
        self.seen: Observations = observe(config, self.said.append)
        self.findings: list[Finding] = diagnose(self.seen, config)
        self.kinds = {f.kind for f in self.findings} - ALWAYS
        assert not list(Path(os.environ["SWARM_SCRATCH"]).iterdir())

    def one(self, kind: str) -> Finding:
        """Give the only finding of a kind."""
        (found,) = (f for f in self.findings if f.kind == kind)
        return found


Look = Callable[..., Checked]


@pytest.fixture
def look(tmp_path: Path) -> Look:
    """Check a target that is made of some files."""

    def look(files: dict[str, str], *sets: str, text: str = TEXT) -> Checked:
        top = tmp_path / "repo"
        if not top.exists():
            make_repo(top, {name: textwrap.dedent(body) for name, body in files.items()})
        return Checked(make_config(top, text, *sets))

    return look


# --- targets with nothing wrong -----------------------------------------------------------------


def test_a_noisy_target_is_measured_five_times_and_nothing_is_wrong(look: Look) -> None:
    checked = look(GOOD, "target.env.NOISE=0.01")
    assert checked.kinds == set()
    found = figures(checked.seen, checked.config)
    assert found is not None
    assert len(found.values) == 5
    assert [t.alone for t in checked.seen.takes][:3] == [True, False, False]
    assert not found.exact
    assert found.sigma is not None
    assert found.detectable == pytest.approx(2 * found.sigma * (2 / 5) ** 0.5)
    assert found.per_experiment == 1.4
    assert checked.seen.nonsense[0].failure is not None


def test_an_exact_target_is_measured_once_alone_and_once_on_each_slot(look: Look) -> None:
    checked = look(GOOD, "target.slot.count=3")
    assert checked.kinds == set()
    assert [t.alone for t in checked.seen.takes] == [True, False, False, False]
    found = figures(checked.seen, checked.config)
    assert found is not None
    assert found.exact
    assert (found.mean, found.sigma, found.detectable, found.per_experiment) == (10, 0, 0, 1)


def test_the_seeds_are_those_of_a_run(look: Look) -> None:
    show = """
    import os
    from value import VALUE
    print("METRIC loss=" + os.environ["SWARM_SEED"])
    """
    checked = look({**GOOD, "measure.py": show})
    state = RunState(read(open_run(checked.config).rundir.ledger))
    wanted = [float(seed_of(state.seed, index)) for index in range(5)]
    values = {t.measurement.index: t.measurement.values["loss"] for t in checked.seen.takes}
    assert [values[i] for i in range(5)] == wanted


def test_nothing_is_left_and_the_repository_stays_as_it_was(weird_path: Path) -> None:
    top = make_repo(weird_path / "repo", GOOD)
    (top / "untracked.txt").write_text("mine")
    before = snapshot(top)
    checked = Checked(make_config(top, TEXT, "target.setup=mkdir -p built"))
    assert checked.kinds == set()
    assert snapshot(top) == before
    check_nobody_left()


def test_it_is_told_how_far_it_is(look: Look) -> None:
    said = look(GOOD, "target.env.NOISE=0.01").said
    assert said[0].startswith("measuring the base, 1 of at most 5, alone")
    assert said[1].startswith("measuring the base, 2 to 3 of at most 5, 2 at once")
    assert "nonsense" in said[-1]


# --- what a launch would refuse -----------------------------------------------------------------


def test_all_that_a_launch_would_refuse_is_said_at_once(look: Look) -> None:
    checked = look(
        GOOD,
        "target.scope=[nowhere.py]",
        "target.slot.gpus=1",
        "agents=[{count: 1, proposer: {kind: headless, cli: [no-such-program]}}]",
    )
    assert [f.kind for f in checked.findings if f.level == "error"] == [
        "config",
        "precondition",
        "precondition",
    ]
    text = " ".join(f.message for f in checked.findings)
    assert "matches no file" in text
    assert "no-such-program" in text
    assert "slot.gpus" in text
    assert checked.seen.takes == ()


def test_a_proposer_that_is_not_ready_does_not_hold_the_measuring_up(look: Look) -> None:
    agents = "agents=[{count: 1, proposer: {kind: headless, cli: [no-such-program]}}]"
    checked = look(GOOD, agents)
    assert checked.kinds == {"precondition"}
    assert len(checked.seen.good) == 3


def test_a_budget_that_cannot_be_kept_to(look: Look) -> None:
    agents = "agents=[{count: 1, proposer: {kind: headless, cli: [echo]}}]"
    checked = look(GOOD, agents, "budget.usd=5")
    assert checked.kinds == {"budget"}


def test_a_repository_that_cannot_be_used(tmp_path: Path) -> None:
    checked = Checked(make_config(tmp_path, TEXT))
    assert "not in a git repository" in checked.one("repository").message


def test_a_setup_that_fails_is_said_with_the_end_of_its_output(look: Look) -> None:
    found = look(GOOD, "target.setup=echo broken pipes; exit 3").one("setup")
    assert found.level == "error"
    assert "broken pipes" in found.message


def test_a_guard_that_refuses_the_base(look: Look) -> None:
    found = look(GOOD, "target.guard=[echo ugly; exit 1]").one("guard_fails")
    assert found.level == "error"
    assert "ugly" in found.message


# --- the base fails -----------------------------------------------------------------------------


def test_a_base_that_fails_is_measured_once(look: Look) -> None:
    checked = look({**GOOD, "measure.py": "raise SystemExit('no luck')"})
    assert checked.kinds == {"base_fails"}
    assert "no luck" in checked.one("base_fails").message
    assert len(checked.seen.takes) == 1


def test_a_base_that_fails_once_is_a_warning(look: Look, tmp_path: Path) -> None:
    count = tmp_path / "count"
    count.write_text("0")
    stumble = """
    import fcntl, os
    from value import VALUE
    with open(os.environ["COUNT"], "r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        n = int(file.read()) + 1
        file.seek(0)
        file.write(str(n))
    assert n != 3, "stumbled"
    print(f"METRIC loss={VALUE + n / 1000}")
    """
    checked = look({**GOOD, "measure.py": stumble}, f"target.env.COUNT={count}", SHARED)
    found = checked.one("base_fails")
    assert found.level == "warning"
    assert "stumbled" in found.message
    assert len(checked.seen.good) >= 4


@pytest.mark.parametrize(
    ("left", "run", "named"),
    [
        ("data/words.txt", "python3 -S -c 'open(\"data/words.txt\")'", "data/words.txt"),
        ("helpers/__init__.py", "python3 -S -c 'import helpers.deep'", "helpers"),
        ("extra.py", "python3 -S extra.py", "extra.py"),
        ("tool.sh", "./tool.sh", "tool.sh"),
        ("words.txt", "cat words.txt", "words.txt"),
    ],
)
def test_a_file_that_only_the_working_tree_has_is_named(
    tmp_path: Path, left: str, run: str, named: str
) -> None:
    top = make_repo(tmp_path / "repo", {**GOOD, ".gitignore": "/data/\n"})
    (top / left).parent.mkdir(exist_ok=True)
    (top / left).write_text("")
    checked = Checked(make_config(top, TEXT, f"target.run={json.dumps(run)}"))
    assert checked.kinds == {"base_fails", "missing_file"}
    found = checked.one("missing_file")
    assert found.level == "error"
    assert f"`{named}`" in found.message


def test_a_file_that_is_nowhere_is_not_called_untracked(look: Look) -> None:
    checked = look(GOOD, "target.run=cat nothing.txt measure.txt")
    assert checked.kinds == {"base_fails"}


def test_a_log_names_what_it_did_not_find() -> None:
    log = (
        "python3: can't open file '/x/export/run.py': [Errno 2] No such file or directory\n"
        "Error: Cannot find module './lib/a.js'\n"
        "all is well with fine.txt\n"
        "ModuleNotFoundError: No module named 'pkg.sub'\n"
    )
    words = named_as_missing(log)
    assert {"/x/export/run.py", "./lib/a.js", "pkg/sub.py", "pkg", "src/pkg"} <= set(words)
    assert "fine.txt" not in words


def test_a_file_that_the_base_can_do_without_is_a_warning(tmp_path: Path) -> None:
    cached = """
    from value import VALUE
    try:
        open("cache/index.bin")
    except OSError as error:
        print(f"slow path: {error}")
    print(f"METRIC loss={VALUE}")
    """
    files = {f"deep/{name}": text for name, text in GOOD.items()}
    top = make_repo(tmp_path / "repo", {**files, "deep/measure.py": textwrap.dedent(cached)})
    (top / "deep" / "cache").mkdir()
    (top / "deep" / "cache" / "index.bin").write_text("")
    checked = Checked(make_config(top, TEXT, "target.repo=deep"))
    assert checked.kinds == {"missing_file"}
    found = checked.one("missing_file")
    assert found.level == "warning"
    assert "`deep/cache/index.bin`" in found.message


# --- the scope ----------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", ["0", "0.01"])
def test_a_scope_that_the_harness_does_not_use(look: Look, noise: str) -> None:
    files = {**GOOD, "other.py": "OTHER = 1\n"}
    checked = look(files, "target.scope=[other.py]", f"target.env.NOISE={noise}")
    assert checked.kinds == {"scope_ignored"} | ({"constant"} if noise == "0" else set())
    assert checked.one("scope_ignored").level == "warning"
    assert len(checked.seen.nonsense) == (1 if noise == "0" else 2)


def test_an_installed_copy_is_measured_instead_of_the_export(look: Look, tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", "--symlinks", str(venv)], check=True
    )
    (site,) = venv.glob("lib/python*/site-packages")
    (site / "mine").mkdir()
    (site / "mine" / "__init__.py").write_text("VALUE = 3.0\n")
    files = {
        "src/mine/__init__.py": "VALUE = 10.0\n",
        "bench/measure.py": 'import mine\nprint(f"METRIC loss={mine.VALUE}")\n',
    }
    run = f"target.run='{venv}/bin/python bench/measure.py'"
    checked = look(files, "target.scope=[src/]", run)
    assert checked.kinds == {"scope_ignored"}
    found = checked.one("scope_ignored")
    assert f"`mine` from {site}/mine/__init__.py" in found.message
    assert "PYTHONPATH" in found.hint
    # What the hint says helps.
    assert look(files, "target.scope=[src/]", run, "target.env.PYTHONPATH=src").kinds == set()


def test_what_the_walls_keep_from_the_base_is_named(look: Look, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "rows.txt").write_text("rows")
    read = f"""
    import socket
    open("{data}/rows.txt").read()
    from value import VALUE
    print(f"METRIC loss={{VALUE}}")
    """
    checked = look({**GOOD, "measure.py": read})
    if probe("auto").walls:
        found = checked.one("walled_off")
        assert f"`{data}/rows.txt`" in found.message
        assert "read_only" in found.hint
    assert look({}, f"target.read_only=[{data}]").kinds == set()


def test_a_base_that_asks_for_the_network(look: Look) -> None:
    ask = """
    import socket
    from value import VALUE
    socket.create_connection(("198.51.100.1", 9), timeout=1)
    """
    checked = look({**GOOD, "measure.py": ask})
    if probe("auto").walls:
        assert "network: on" in checked.one("offline").hint


def test_a_scorer_that_a_candidate_can_reach(look: Look) -> None:
    files = {"code/solve.py": "A = 1\n", "code/score.py": "print('METRIC loss=1.5')\n"}
    sets = ("target.run=cat code/solve.py", "target.score=python3 code/score.py")
    checked = look(files, "target.scope=[code/]", *sets)
    assert checked.one("scorer_in_reach").level == "warning"
    assert "self_reported" not in {f.kind for f in checked.findings}
    assert "scorer_in_reach" not in look(files, "target.scope=[code/solve.py]", *sets).kinds


def test_a_constant_metric(look: Look) -> None:
    checked = look({**GOOD, "measure.py": "print('METRIC loss=1.5')"})
    assert checked.kinds == {"scope_ignored", "constant"}
    assert "all 4 measurements" in checked.one("constant").message


# --- suites -------------------------------------------------------------------------------------

SUITE = """
import json, os
from value import PASS
cases = [{"id": f"c{i}", "pass": bool(p)} for i, p in enumerate(PASS)]
flip = os.environ.get("FLIP")
if flip:  # every second run passes it: each adds a byte to a file
    with open(flip, "ab") as file:
        file.write(b".")
        cases[1]["pass"] = file.tell() % 2 == 0
questions = os.environ.get("QUESTIONS")
for case in cases if questions else []:
    case["question"] = "Is it polite?" if int(case["id"][1:]) % 2 else "Is it short?"
json.dump({"cases": cases}, open(os.environ["SWARM_RESULT"], "w"))
"""
CASES = "target.metric={name: cases, goal: maximize}"
FLIP = "target.env.FLIP={}"


def suite(passes: list[int]) -> dict[str, str]:
    return {"measure.py": SUITE, "value.py": f"PASS = {passes}\n"}


def test_a_suite_with_room_is_fine(look: Look) -> None:
    must = "judge.must_pass=[c0]"
    assert look(suite([1, 0, 1, 0]), CASES, must).kinds == set()


@pytest.mark.parametrize(("passes", "words"), [([1, 1, 1], "all 3"), ([0, 0, 0], "none of 3")])
def test_a_suite_without_room(look: Look, passes: list[int], words: str) -> None:
    checked = look(suite(passes), CASES)
    assert checked.kinds == {"no_headroom"}
    assert words in checked.one("no_headroom").message


def test_a_suite_that_passes_whole_may_still_cost_less(look: Look) -> None:
    checked = look(suite([1, 1, 1]), CASES, "judge.points=[cases, {improves: seconds}]")
    assert checked.kinds == {"no_headroom"}
    found = checked.one("no_headroom")
    assert found.level == "note"
    assert "only less of seconds to gain" in found.message
    assert look(suite([1, 1]), CASES, "judge.points=[cases]").one("no_headroom").level == "warning"


def test_points_for_a_cost_that_nobody_reports(look: Look) -> None:
    checked = look(suite([1, 0]), CASES, "judge.points=[cases, {improves: secnds}]")
    assert checked.kinds == {"points_unknown"}
    found = checked.one("points_unknown")
    assert found.level == "error"
    assert "'secnds'" in found.message
    assert found.hint == "did you mean 'seconds'?"


def test_must_pass_names_a_case_that_is_not_there(look: Look) -> None:
    checked = look(suite([1, 0]), CASES, "judge.must_pass=[c00]")
    assert checked.kinds == {"must_pass_unknown"}
    assert checked.one("must_pass_unknown").level == "error"
    assert "c0" in checked.one("must_pass_unknown").hint


def test_must_pass_names_a_flaky_case(look: Look, tmp_path: Path) -> None:
    checked = look(
        suite([1, 0, 1, 1, 0]),
        *(CASES, FLIP.format(tmp_path / "flips"), "judge.must_pass=[c1]", SHARED),
    )
    assert checked.kinds == {"must_pass_flaky", "flaky"}


def test_flaky_cases_are_named(look: Look, tmp_path: Path) -> None:
    checked = look(suite([1, 0, 1, 1, 0]), CASES, FLIP.format(tmp_path / "flips"), SHARED)
    assert checked.kinds == {"flaky"}
    found = checked.one("flaky")
    assert found.level == "note"
    assert re.search(r"1 of 5 cases is flaky at the base: c1 \([1-4] of 5\)$", found.message)
    assert "up to 12 runs" in found.hint
    assert "llm-judged" not in found.hint
    plain = look(
        suite([1, 0, 1, 1, 0]),
        *(CASES, FLIP.format(tmp_path / "flips"), "judge.preset=default", SHARED),
    )
    assert "`judge: {preset: suite}`" in plain.one("flaky").hint


def test_many_flaky_cases_are_counted() -> None:
    rng = random.Random(3)
    runs = [{f"c{i}": rng.random() < 0.5 for i in range(8)} for _ in range(5)]
    runs[0] = dict.fromkeys(runs[0], True)
    runs[1] = dict.fromkeys(runs[0], False)
    checked = diagnose(seen_suite(runs), make_config(Path("/nowhere"), TEXT, CASES))
    (found,) = (f for f in checked if f.kind == "flaky")
    assert found.message.startswith("8 of 8 cases are flaky at the base: c0 (")
    assert found.message.endswith(" and 3 more")
    assert "`judge: {preset: llm-judged}`" in found.hint


def test_a_suite_says_in_cases_what_is_detectable(
    target: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (target / "measure.py").write_text(SUITE)
    (target / "value.py").write_text("PASS = [1, 0, 1, 1, 0]\n")
    git(target, "commit", "-qam", "a suite")
    config = target.parent / "good.yaml"
    assert check_config(config, (CASES,), as_json=False) == 0
    assert "  detectable    any gain of a case: none is flaky\n" in capsys.readouterr().out
    assert (
        check_config(config, (CASES, FLIP.format(tmp_path / "flips"), SHARED), as_json=False) == 0
    )
    out = capsys.readouterr().out
    assert re.search(r"  a gain of about [01]\.\d of 5 cases by 12 \+ 12 runs, fewer by luck", out)


def test_what_is_detectable_of_a_suite_is_what_the_judge_keeps() -> None:
    """Two cases are fixed, and as many flaky ones stand by as make two just detectable."""
    config = make_config(Path("/nowhere"), TEXT, CASES)
    rule, rng = config.rule(), random.Random(11)
    flaky, runs = 13, rule.runs
    assert detectable_cases([Count(500, 1000)] * flaky, rule) == pytest.approx(2, abs=0.05)

    def side(fixed: bool) -> Record:
        record = Record()
        for _ in range(runs):
            tossed = {f"f{i}": rng.random() < 0.5 for i in range(flaky)}
            record.take_cases({**tossed, "a": fixed, "b": fixed, "c": True})
        return record

    found = [z_cases(pair(side(True), side(False))) for _ in range(600)]
    assert fmean(found) == pytest.approx(rule.keep_above, abs=0.15)
    kept = sum(z >= rule.keep_above for z in found) / len(found)
    assert 0.4 < kept < 0.6


def seen_suite(runs: list[dict[str, bool]]) -> Observations:
    """Give what is seen of a suite that gave these results."""
    spec = MetricSpec(name="cases", goal="maximize")
    info = TargetInfo(name="main", metric=spec, repo="/", base="a" * 40, base_tree="b" * 40)
    takes = [
        Take(
            Measurement(
                commit=info.base,
                tree=info.base_tree,
                index=i,
                machine="m",
                values={"cases": fmean(cases.values())},
                cases=tuple(Case(id=c, passed=p) for c, p in cases.items()),
                seconds=1.0,
            ),
            alone=True,
        )
        for i, cases in enumerate(runs)
    ]
    return Observations(info=info, slots=1, takes=tuple(takes))


def test_a_question_with_the_same_answer_for_all_outputs_is_named(look: Look) -> None:
    passes = [0, 1, 1, 1, 0, 1, 1, 1, 0, 1]
    checked = look(suite(passes), CASES, "target.env.QUESTIONS=1")
    assert checked.kinds == {"question_same"}
    assert "'Is it polite?'" in checked.one("question_same").message
    found = checked.one("question_same")
    assert "yes for all 5" in found.message
    assert found.level == "error"


def test_a_question_that_always_fails_is_the_room_of_the_search(look: Look) -> None:
    passes = [0, 0, 1, 0, 0, 0, 1, 0, 0, 0]
    checked = look(suite(passes), CASES, "target.env.QUESTIONS=1")
    assert checked.kinds == {"question_same"}
    found = checked.one("question_same")
    assert found.level == "warning"
    assert "does not discriminate: the answer is no for all 5 outputs; fine if" in found.message
    assert "'Is it polite?'" in found.message


def test_four_outputs_are_too_few_to_refuse_a_question(look: Look) -> None:
    checked = look(suite([0, 1, 1, 1, 0, 1, 1, 1]), CASES, "target.env.QUESTIONS=1")
    assert checked.kinds == set()


# --- noise --------------------------------------------------------------------------------------


def test_more_noise_than_gain(look: Look) -> None:
    checked = look(GOOD, "target.env.NOISE=2")
    assert checked.kinds == {"noise"}
    assert "of the mean" in checked.one("noise").message
    assert "aggregate: min" in checked.one("noise").hint


def test_what_is_set_already_is_not_advised(look: Look) -> None:
    sets = ("target.env.NOISE=2", "judge.aggregate=min")
    assert "aggregate: min" not in look(GOOD, *sets).one("noise").hint


def test_a_max_gain_within_the_noise(look: Look) -> None:
    checked = look(GOOD, "target.env.NOISE=0.01", "judge.max_gain=0.005")
    assert checked.kinds == {"max_gain"}
    assert "honest noise would be quarantined" in checked.one("max_gain").message
    assert look(GOOD, "target.env.NOISE=0.01", "judge.max_gain=20%").kinds == set()


def test_a_min_delta_below_the_noise(look: Look) -> None:
    checked = look(GOOD, "target.env.NOISE=0.01", "judge.min_delta=0.001")
    assert checked.kinds == {"noise"}
    assert "min_delta" in checked.one("noise").message


def test_a_budget_target_that_the_noise_hides(look: Look) -> None:
    checked = look(GOOD, "target.env.NOISE=0.01", "budget.target=9.99")
    assert checked.kinds <= {"noise", "target_reached"}
    assert checked.kinds
    far = look(GOOD, "target.env.NOISE=0.01", "budget.target=5")
    assert far.kinds == set()


def test_a_budget_target_that_is_reached(look: Look) -> None:
    assert look(GOOD, "budget.target=11").kinds == {"target_reached"}


# --- slots, time, memory ------------------------------------------------------------------------


@pytest.mark.slow
def test_slots_that_wait_for_each_other(
    look: Look, tmp_path: Path, telling: Callable[[float], None]
) -> None:
    telling(0.5)
    # As one GPU would be: whoever comes second waits.
    locked = """
    import fcntl, os, time
    from value import VALUE
    with open(os.environ["LOCK"], "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        time.sleep(2.2)
    print(f"METRIC loss={VALUE}")
    """
    lock = f"target.env.LOCK={tmp_path / 'lock'}"
    checked = look({**GOOD, "measure.py": locked}, lock, SHARED)
    assert checked.kinds == {"contention"}
    assert "s alone and" in checked.one("contention").message
    assert "window: 5" in checked.one("contention").hint
    assert "window" not in look(GOOD, lock, "judge.window=5", SHARED).one("contention").hint
    assert look(GOOD, lock, "target.slot.count=1", SHARED).kinds == set()


def test_a_metric_that_is_another_one_beside_others(look: Look, tmp_path: Path) -> None:
    crowd = """
    import os, pathlib, time
    from value import VALUE
    marks = pathlib.Path(os.environ["MARKS"])
    mark = marks / str(os.getpid())
    counted = marks.parent / "counted"
    mark.touch()
    until = time.monotonic() + 8  # alone nobody comes
    while len(names := os.listdir(marks)) < 2 and time.monotonic() < until:
        time.sleep(0.02)
    (counted / mark.name).touch()
    while not all((counted / name).exists() for name in names):  # who leaves is missed
        time.sleep(0.02)
    mark.unlink()
    print(f"METRIC loss={VALUE + len(names) + os.getpid() % 10 / 1e4}")
    """
    marks = tmp_path / "marks"
    marks.mkdir()
    (tmp_path / "counted").mkdir()
    checked = look({**GOOD, "measure.py": crowd}, f"target.env.MARKS={marks}", SHARED)
    assert "contention" in checked.kinds
    assert "more than chance" in checked.one("contention").message


def test_chance_is_not_called_contention() -> None:
    config = make_config(Path("/nowhere"), TEXT)
    info = TargetInfo(
        name="main", metric=config.target.metric.spec, repo="/", base="a" * 40, base_tree="b" * 40
    )
    alarms, rng = 0, random.Random(7)
    for _ in range(1000):
        takes = [
            Take(
                Measurement(
                    commit=info.base,
                    tree=info.base_tree,
                    index=i,
                    machine="m",
                    values={"loss": rng.gauss(10, 0.1)},
                    seconds=1.0,
                ),
                alone=i == 0,
            )
            for i in range(5)
        ]
        seen = Observations(info=info, slots=2, takes=tuple(takes))
        alarms += any(f.kind == "contention" for f in diagnose(seen, config))
    assert alarms <= 9, "three sigmas are 2.7 in a thousand"


SLOW = """
import time
from value import VALUE
time.sleep(3)
print(f"METRIC loss={VALUE}")
"""


def test_a_timeout_that_is_near(look: Look) -> None:
    checked = look({**GOOD, "measure.py": SLOW}, "target.timeout=5900ms")
    assert checked.kinds == {"timeout_near"}
    wanted = re.search(r"set `timeout` to (\d+)s", checked.one("timeout_near").hint)
    assert wanted is not None
    assert int(wanted[1]) >= 9


def test_a_timeout_that_is_too_short(look: Look) -> None:
    checked = look({**GOOD, "measure.py": SLOW}, "target.timeout=400ms")
    assert checked.kinds == {"timeout"}
    assert checked.one("timeout").level == "error"


def test_more_memory_than_there_is(look: Look) -> None:
    hungry = """
    from value import VALUE
    import time
    held = b"x" * (200 * 2**20)
    time.sleep(0.3)
    print(f"METRIC loss={VALUE}")
    """
    many = psutil.virtual_memory().total // (200 * 2**20) + 1
    checked = look({**GOOD, "measure.py": hungry}, f"target.slot.count={many}")
    assert checked.kinds == {"memory"}
    assert [t.alone for t in checked.seen.takes] == [True, True]


def test_a_first_measurement_that_warms_something_up(
    look: Look, tmp_path: Path, telling: Callable[[float], None]
) -> None:
    telling(3.0)
    warm = """
    import os, pathlib, time
    from value import VALUE
    cache = pathlib.Path(os.environ["CACHE"])
    if not cache.exists():
        time.sleep(6)
        cache.touch()
    print(f"METRIC loss={VALUE}")
    """
    checked = look({**GOOD, "measure.py": warm}, f"target.env.CACHE={tmp_path / 'cache'}", SHARED)
    assert checked.kinds == {"warm_up"}
    # The slow first one says nothing of an idle machine, so another is made.
    assert [t.alone for t in checked.seen.takes] == [True, False, False, True]


# --- limits and `final` -------------------------------------------------------------------------


def test_a_base_outside_of_the_bounds(look: Look) -> None:
    checked = look(GOOD, "judge.bounds=[0, 1]")
    assert checked.kinds == {"bounds"}
    assert checked.one("bounds").level == "error"


def test_a_constraint_that_the_base_breaks(look: Look) -> None:
    sets = "target.constraints=[{metric: seconds, max: 0.0001}]"
    assert look(GOOD, sets).one("constraint").level == "warning"


@pytest.mark.parametrize("limit", ["max: 5", "max_regression: 5%"])
def test_a_constraint_on_what_nobody_reports(look: Look, limit: str) -> None:
    checked = look(GOOD, f"target.constraints=[{{metric: second, {limit}}}]")
    assert checked.kinds == {"constraint"}
    assert checked.one("constraint").level == "error"
    assert "did you mean 'seconds'?" in checked.one("constraint").hint


@pytest.mark.parametrize("final", ["echo METRIC loss=77.5; exit 9", "echo METRIC loss=none77.5"])
def test_a_final_that_fails_is_said_without_its_output(look: Look, final: str) -> None:
    checked = look(GOOD, f"target.final={json.dumps(final)}")
    assert checked.kinds == {"final_fails"}
    found = checked.one("final_fails")
    assert "77.5" not in found.message + found.hint
    assert checked.seen.final is not None
    assert checked.seen.final.index == FINAL_INDEX


def test_a_final_that_works_says_nothing(look: Look) -> None:
    assert look(GOOD, "target.final=python3 -S measure.py").kinds == set()


def test_what_a_measurement_costs_is_taken_from_the_harness(look: Look) -> None:
    costly = GOOD["measure.py"] + "print('METRIC usd=0.25')\nprint('METRIC tokens=1200')\n"
    checked = look({**GOOD, "measure.py": costly})
    found = figures(checked.seen, checked.config)
    assert found is not None
    assert (found.usd, found.tokens) == (0.25, 1200)


def test_a_run_on_a_cluster_is_checked_on_this_machine_only(look: Look) -> None:
    checked = look(GOOD, "cluster.address='10.0.0.1:6379'")
    assert checked.kinds == {"elsewhere"}
    assert checked.one("elsewhere").level == "note"


# --- the command --------------------------------------------------------------------------------


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A good target with its config beside it."""
    top = make_repo(tmp_path / "repo", GOOD)
    (tmp_path / "good.yaml").write_text(TEXT.replace("repo: .", "repo: repo"))
    return top


def test_the_text_says_the_figures(target: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check_config(target.parent / "good.yaml", (), as_json=False) == 0
    out, err = capsys.readouterr()
    assert "base          10, σ 0 (3 measurements)" in out
    assert "experiments in 8 hours" in out
    assert out.splitlines()[-1] == "ready"
    assert "swarm: measuring the base, 1 of" in err


def test_the_json_is_all_of_stdout(target: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sets = ("judge.bounds=[0, 1]",)
    assert check_config(target.parent / "good.yaml", sets, as_json=True) == 3
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is False
    assert found["baseline"] == {"mean": 10, "sd": 0, "n": 3, "values": [10, 10, 10]}
    assert found["slots"] == 2
    assert {f["kind"] for f in found["findings"]} - {"sandbox"} == {"bounds", "self_reported"}
    assert set(found["findings"][0]) == {"kind", "level", "message", "hint"}
    wanted = {"config", "metric", "detectable", "seconds", "peak_memory_mb"}
    assert wanted | {"experiments_per_night"} <= set(found)


def test_a_scope_without_files_ends_as_a_config_error(target: Path) -> None:
    config = target.parent / "good.yaml"
    assert check_config(config, ("target.scope=[no.py]",), as_json=True) == 2


@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("where", ["setup", "run"])
def test_a_signal_ends_it_and_nothing_is_left(target: Path, which: int, where: str) -> None:
    before = snapshot(target)
    begun = target.parent / "begun"
    process = subprocess.Popen(
        [
            *(*SWARM, "check", "good.yaml", "--set", SHARED),
            *("--set", f"target.{where}=touch '{begun}'; sleep 60"),
        ],
        cwd=target.parent,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 30
    while not begun.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(which)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 128 + which
    assert "nothing is left" in err
    assert "Traceback" not in err
    assert list(Path(os.environ["SWARM_SCRATCH"]).iterdir()) == []
    check_nobody_left()
    assert snapshot(target) == before


@pytest.mark.slow
@pytest.mark.parametrize("tenths", range(3, 20))
def test_ctrl_c_twice_at_any_moment_leaves_nothing(target: Path, tenths: int) -> None:
    process = subprocess.Popen(
        [*SWARM, "check", "good.yaml", "--set", "target.setup=sleep 0.3"],
        cwd=target.parent,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    # A terminal sends it to the whole group, git included.
    for pause in (tenths / 10, 0.03):
        time.sleep(pause)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode in (0, 130, -signal.SIGINT)  # the last while Python itself starts
    assert list(Path(os.environ["SWARM_SCRATCH"]).glob("*")) == []
    assert "swarm's own" not in err
    check_nobody_left()


@pytest.mark.slow
def test_what_a_killed_check_left_goes_with_the_next(target: Path) -> None:
    scratch = Path(os.environ["SWARM_SCRATCH"])
    begun = target.parent / "begun"
    process = subprocess.Popen(
        [*SWARM, "check", "good.yaml", "--set", f"target.run=touch '{begun}'; sleep 60"],
        cwd=target.parent,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 30
    while not begun.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    (left,) = scratch.iterdir()
    os.utime(left, (1e9, 1e9))
    config = make_config(target, TEXT)
    observe(config, lambda _: None)
    assert list(scratch.iterdir()) == [left], "a living one keeps its own"
    process.kill()
    process.wait()
    check_nobody_left()
    os.utime(left, (1e9, 1e9))
    Checked(config)


def test_a_snapshot_of_the_working_tree_is_checked_too(tmp_path: Path) -> None:
    top = make_repo(tmp_path / "repo", GOOD)
    (top / "value.py").write_text("VALUE = 11.0\n")
    checked = Checked(make_config(top, TEXT, "target.dirty=snapshot"))
    assert checked.kinds == set()
    assert checked.seen.good[0].measurement.values["loss"] == 11
    assert git(top, "status", "--porcelain") == "M value.py"
