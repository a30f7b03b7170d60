"""One measurement: what a bad ending is called, what is seen, cases, the final command."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import rungs
from story import MACHINE, morning
from targets import CONFIG, launch_inline, make_config, make_repo
from world import config

from swarm.actions import Propose
from swarm.entities import FINAL_INDEX
from swarm.evaluate import Harness, Result, Room, Stage, environment, evaluate, log_tail
from swarm.jobs import job_of
from swarm.ledger import read
from swarm.reading import MetricRule
from swarm.records import Case, Failure, Measured, Measurement, Sealed
from swarm.sandbox import WORK, Mount, Sandbox, View

BPB = MetricRule("val_bpb", "minimize")
SUITE = MetricRule("cases", "maximize")


# --- the environment ---------------------------------------------------------------------------


def test_environment_is_an_allow_list() -> None:
    launcher = {
        "PATH": "/v/bin:/usr/bin",
        "VIRTUAL_ENV": "/v",
        "LANG": "C.UTF-8",
        "LC_ALL": "C",
        "TZ": "UTC",
        "HOME": "/home/me",
        "ANTHROPIC_API_KEY": "secret",
        "RAY_ADDRESS": "x",
        "GIT_DIR": "/x",
        "PYTHONPATH": "/x",
        "OMP_NUM_THREADS": "1",
        "PATH_TO_SECRET": "x",
    }
    kept = {name: launcher[name] for name in ("PATH", "VIRTUAL_ENV", "LANG", "LC_ALL", "TZ")}
    assert environment(launcher, {}, {}) == kept
    assert "VIRTUAL_ENV" not in environment(launcher | {"PATH": "/usr/bin"}, {}, {})
    given = {"OMP_NUM_THREADS": "4", "SWARM_SEED": "mine"}
    env = environment(launcher, given, {"SWARM_SEED": "7"})
    assert (env["OMP_NUM_THREADS"], env["SWARM_SEED"]) == ("4", "7")
    assert environment({}, {}, {}) == {"PATH": os.defpath}


# --- one measurement ---------------------------------------------------------------------------


class Bench:
    """An export for each stage, a sandbox, and a short way to measure."""

    def __init__(self, root: Path, box: Sandbox) -> None:
        self.box = box
        self.log = root / "logs" / "1" / "0.log"
        self.export, self.guard, self.score = (root / n for n in ("export", "guard", "score"))
        for export in (self.export, self.guard, self.score):
            (export / "sub").mkdir(parents=True)

    def room(self, stage: Stage) -> Room:
        """Give the directory of a stage; unlike a slot's, the same one each time."""
        export = {"run": self.export, "guard": self.guard, "score": self.score}[stage]
        return Room(export, View((Mount(export, WORK, writable=True),)))

    def seen(self, stage: Stage) -> str:
        """Give the working directory of a stage as its commands see it."""
        room = self.room(stage)
        return self.box.inside(room.export / "sub", room.view)

    def measure(
        self,
        run: str | tuple[str, ...],
        *,
        cases: tuple[str, ...] | None = None,
        guarded: bool = False,
        final: bool = False,
        final_command: str | None = None,
        cancel: threading.Event | None = None,
        **changes: object,
    ) -> Result:
        fields: dict[str, object] = {"run": run, "metric": BPB, "timeout_s": 20.0}
        fields["final"] = final_command
        return evaluate(
            Harness(**(fields | changes)),  # type: ignore[arg-type]
            self.room,
            "sub",
            harnesses=self.log.parent,
            sandbox=self.box,
            seed=42,
            label="e7",
            log=self.log,
            gpus="",
            cases=cases,
            guarded=guarded,
            final=final,
            cancel=cancel,
        )


@pytest.fixture(params=rungs.NAMES)
def bench(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Bench]:
    with Sandbox(rungs.rung(request.param), scratch=tmp_path / "scratch") as box:
        yield Bench(tmp_path, box)
    assert not (tmp_path / "scratch").exists()


def test_a_good_measurement(bench: Bench) -> None:
    result = bench.measure("pwd; echo val_bpb: 0.5; echo METRIC mem=3; sleep 0.1")
    assert result.failure is None
    assert result.values == {"val_bpb": 0.5, "mem": 3}
    assert 0.1 <= result.seconds < 5
    assert result.peak_memory_mb > 0
    header, cwd, *_ = bench.log.read_text().splitlines()
    assert header == "=== swarm: run: pwd; echo val_bpb: 0.5; echo METRIC mem=3; sleep 0.1 ==="
    assert cwd == bench.seen("run")


def test_a_list_is_argv_and_the_result_file_counts(bench: Bench) -> None:
    script = (
        "import json, os; print('val_bpb: 9', os.environ['SWARM_RESULT']);"
        "json.dump({'metrics': {'val_bpb': 0.25}, 'feedback': 'slow',"
        "'cases': [{'id': 'a', 'pass': True}]},"
        "open(os.environ['SWARM_RESULT'], 'w'))"
    )
    result = bench.measure((sys.executable, "-S", "-c", script))
    assert result[:3] == ({"val_bpb": 0.25}, "slow", None)
    assert result.cases == (Case(id="a", passed=True),)
    path = Path(bench.log.read_text().split()[-1])
    assert not path.exists()
    assert bench.export not in path.parents
    bench.measure((sys.executable, "-S", "-c", script))
    fixed = bench.box.rung.own_files
    assert (bench.log.read_text().split()[-1] == str(path)) == fixed


def test_what_a_candidate_sees(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    monkeypatch.setenv("PYTHONPATH", "/x")
    monkeypatch.setenv("LC_TIME", "C")
    bench.measure("env; echo val_bpb: 1", env={"OMP_NUM_THREADS": "4"})
    seen = dict(
        line.split("=", 1) for line in bench.log.read_text().splitlines()[1:] if "=" in line
    )
    assert not {"OPENAI_API_KEY", "PYTHONPATH"} & set(seen)
    assert seen["SWARM_SEED"] == "42"
    assert seen["SWARM_EXPERIMENT"] == "e7"
    assert seen["CUDA_VISIBLE_DEVICES"] == ""
    assert seen["OMP_NUM_THREADS"] == "4"
    assert seen["LC_TIME"] == "C"
    assert seen["PATH"] == os.environ["PATH"]
    if bench.box.rung.walls:
        assert (seen["HOME"], seen["TMPDIR"]) == ("/tmp/home", "/tmp")
    else:
        for name in ("HOME", "TMPDIR"):
            assert bench.box.scratch in Path(seen[name]).parents


@pytest.mark.parametrize(
    ("run", "kind", "said", "tail"),
    [
        ("echo val_bpb: 1; echo oops >&2; exit 3", "crash", "exit status 3", "oops"),
        ("ulimit -c 0; kill -SEGV $$", "crash", "killed by SIGSEGV", ""),
        ("kill -KILL $$", "crash", "killed by SIGKILL (out of memory?)", ""),
        ("sh -c 'kill -KILL $$'; exit $?", "crash", "exit status 137: killed by SIGKILL", ""),
        ("exit 200", "crash", "exit status 200", ""),
        (("no-such-program",), "crash", "cannot run 'no-such-program'", ""),
        ("echo val_bpb: 1; sleep 1000", "timeout", "timed out after 3 s", "val_bpb: 1"),
        ("echo hello", "invalid", "no metric: looked for `val_bpb`", "hello"),
        ("echo val_bpb: nan", "invalid", "not a finite number", "val_bpb: nan"),
        ("echo val_bpb: 1; echo { > $SWARM_RESULT", "invalid", "SWARM_RESULT is not JSON", ""),
        ("echo val_bpb: 1; mkdir $SWARM_RESULT", "invalid", "not a regular file", ""),
        ("echo val_bpb: 1; mkfifo $SWARM_RESULT", "invalid", "not a regular file", ""),
        ("echo val_bpb: 1; ln -s /etc/passwd $SWARM_RESULT", "invalid", "cannot be read", ""),
        ("echo val_bpb: 1; truncate -s 9M $SWARM_RESULT", "invalid", "larger than 8 MiB", ""),
    ],
)
def test_every_bad_ending_has_its_name(
    bench: Bench, run: str | tuple[str, ...], kind: str, said: str, tail: str
) -> None:
    result = bench.measure(run, timeout_s=3 if kind == "timeout" else 20)
    assert result.failure is not None
    assert result.failure.kind == kind
    assert said in result.failure.reason
    assert tail in result.failure.tail
    assert result.values == {}


def test_only_without_walls_a_command_can_kill_its_supervisor(bench: Bench) -> None:
    result = bench.measure("kill -KILL $PPID; sleep 0.2; exit 7")
    assert result.failure is not None
    if bench.box.rung.walls:
        assert (result.failure.kind, result.failure.reason) == ("crash", "exit status 7")
    else:
        assert (result.failure.kind, result.failure.reason) == ("aborted", "supervisor died")


def test_a_cancelled_measurement_is_aborted(bench: Bench) -> None:
    cancel = threading.Event()
    timer = threading.Timer(0.2, cancel.set)
    timer.start()
    result = bench.measure("echo val_bpb: 1; sleep 1000", cancel=cancel)
    timer.join()
    assert result.failure is not None
    assert (result.failure.kind, result.failure.reason) == ("aborted", "cancelled")


def test_guards_come_first_and_in_an_export_of_their_own(bench: Bench) -> None:
    guard = ("pwd; touch left; echo val_bpb: 7", ("/bin/sh", "-c", "test -e left"))
    result = bench.measure("test ! -e left && echo nothing", guard=guard)
    assert result.failure is not None
    # What a guard prints is in the same log, but it is not the run's.
    assert result.failure.kind == "invalid"
    log = bench.log.read_text()
    assert log.index("=== swarm: guard: pwd") < log.index("=== swarm: run: test")
    assert bench.seen("guard") in log


@pytest.mark.parametrize(
    ("guard", "said"),
    [
        ("echo broken; exit 1", "guard `echo broken; exit 1`: exit status 1"),
        ("echo broken; sleep 1000", "timed out after 3 s"),
        (("echo broken",), "cannot run"),
    ],
)
def test_a_failed_guard_ends_it(bench: Bench, guard: str | tuple[str, ...], said: str) -> None:
    limit = 3 if "sleep" in guard else 20
    result = bench.measure("touch ran; echo val_bpb: 1", guard=("true", guard), timeout_s=limit)
    assert result.failure is not None
    assert result.failure.kind == "guard_failed"
    assert said in result.failure.reason
    assert "broken" in result.failure.tail
    assert (result.values, result.seconds) == ({}, 0.0)
    assert not (bench.export / "sub" / "ran").exists()


def test_a_guard_cannot_write_the_result(bench: Bench) -> None:
    write = 'echo \'{"metrics": {"val_bpb": 1}}\' > $SWARM_RESULT'
    result = bench.measure("true", guard=(write,))
    assert result.failure is not None
    assert result.failure.kind == "invalid"


# --- two stages --------------------------------------------------------------------------------


def test_a_score_is_all_that_counts(bench: Bench) -> None:
    write = 'echo \'{"metrics": {"val_bpb": 0}, "feedback": "mine"}\' > $SWARM_RESULT'
    run = f"echo 5 > answer; echo METRIC val_bpb=0; echo other: 1; {write}"
    result = bench.measure(run, score="echo val_bpb: $(cat answer)")
    assert (result.values, result.feedback, result.failure) == ({"val_bpb": 5}, "", None)
    silent = bench.measure("echo METRIC val_bpb=0", score="true")
    assert silent.failure is not None
    assert (silent.failure.kind, silent.values) == ("invalid", {})


def test_a_score_needs_a_run_that_went_well_and_has_its_own_endings(bench: Bench) -> None:
    failed = bench.measure("exit 4", score="touch scored; echo val_bpb: 1")
    assert failed.failure is not None
    assert failed.failure.reason == "exit status 4"
    assert not (bench.score / "sub" / "scored").exists()
    bad = bench.measure("echo { > $SWARM_RESULT", score="exit 5")
    assert bad.failure is not None
    assert bad.failure.reason == "exit status 5"


def test_what_a_scorer_gets_of_a_run(bench: Bench) -> None:
    (bench.score / "sub" / "kept").write_text("base")
    run = (
        "mkdir -p out deep/er node_modules; echo 1 > out/data.json; echo 2 > deep/er/text; "
        "echo x > json.py; echo x > out/lib.so; echo x > out/lib.so.1; echo x > a.pth; "
        "echo x > conftest.py; echo x > pytest.ini; echo x > node_modules/x; echo x > kept; "
        "ln -s /etc/passwd link; ln kept hard; cp /bin/true program; printf '#!/bin/sh' > script; "
        "printf x > tool; chmod +x tool; mkfifo pipe; mkdir -p kept2; echo x > .npmrc"
    )
    result = bench.measure(run, score="find . -type f | sort; echo val_bpb: 1", artefacts=("*",))
    assert result.failure is None
    found = bench.log.read_text().split("=== swarm: score", 1)[1].splitlines()[1:-1]
    assert found == ["./deep/er/text", "./kept", "./out/data.json"]
    assert (bench.score / "sub" / "kept").read_text() == "base"


def test_artefacts_are_those_that_are_named(bench: Bench) -> None:
    run = "mkdir out; touch out/a.json out/b.txt c.json"
    result = bench.measure(run, score="find . -type f; echo val_bpb: 1", artefacts=("out/*.json",))
    assert result.failure is None
    assert bench.log.read_text().splitlines()[-2:] == ["./out/a.json", "val_bpb: 1"]


def test_there_may_be_no_artefacts(bench: Bench) -> None:
    result = bench.measure("touch a b", score="find . -type f; echo val_bpb: 1", artefacts=())
    assert result.failure is None
    assert "./" not in bench.log.read_text().split("=== swarm: score", 1)[1].split("===", 1)[1]


def test_a_scorer_may_call_a_measurement_invalid(bench: Bench) -> None:
    told = '{"metrics": {"val_bpb": 0}, "invalid": "it answered before it was asked"}'
    result = bench.measure("echo 1 > answer", score=f"echo '{told}' > $SWARM_RESULT")
    assert result.failure is not None
    assert result.failure.kind == "invalid"
    said = "invalid, says the harness: it answered before it was asked"
    assert (result.failure.reason, result.values) == (said, {})


# --- suites ------------------------------------------------------------------------------------

HARNESS = """
import json, os
asked = ["c1", "c 2", "c\u00fc"]
if "SWARM_CASES" in os.environ:
    asked = open(os.environ["SWARM_CASES"], encoding="utf-8").read().splitlines()
cases = [{"id": name, "pass": name != "c1"} for name in asked]
json.dump({"cases": cases}, open(os.environ["SWARM_RESULT"], "w"))
print("file", os.environ.get("SWARM_CASES", "none"))
"""


def test_a_suite_is_run_whole_or_in_part(bench: Bench) -> None:
    run = (sys.executable, "-S", "-c", HARNESS)
    whole = bench.measure(run, metric=SUITE)
    assert whole.failure is None
    assert whole.values == {"cases": 2 / 3}
    assert [case.id for case in whole.cases] == ["c1", "c 2", "c\u00fc"]
    assert bench.log.read_text().endswith("file none\n")
    part = bench.measure(run, metric=SUITE, cases=("c\u00fc", "c1"))
    assert part.failure is None
    assert part.values == {}
    assert part.cases == (Case(id="c\u00fc", passed=True), Case(id="c1", passed=False))
    path = Path(bench.log.read_text().split()[-1])
    assert bench.export not in path.parents
    assert not path.exists()


def test_a_part_of_a_suite_needs_no_guard_and_must_report(bench: Bench) -> None:
    run = (sys.executable, "-S", "-c", HARNESS)
    guard = ("test -z ${SWARM_CASES+set} && touch guarded",)
    assert bench.measure(run, metric=SUITE, guard=guard).failure is None
    assert (bench.guard / "sub" / "guarded").exists()
    (bench.guard / "sub" / "guarded").unlink()
    again = bench.measure(run, metric=SUITE, guard=guard, cases=("c1",), guarded=True)
    assert again.failure is None
    assert not (bench.guard / "sub" / "guarded").exists()
    silent = bench.measure("echo METRIC cases=1", metric=SUITE, cases=("c1",))
    assert silent.failure is not None
    assert (silent.failure.kind, silent.values, silent.cases) == ("invalid", {}, ())
    assert "no cases: looked for `cases` in SWARM_RESULT (not written)" in silent.failure.reason


def test_several_values_and_bounds(bench: Bench) -> None:
    run = "for t in 9 -3 4; do echo val_bpb: $t; done"
    assert bench.measure(run, aggregate="median").values == {"val_bpb": 4}
    assert bench.measure(run, aggregate="median", bounds=(0, 10)).failure is None
    result = bench.measure(run, aggregate="min", bounds=(0, 10))
    assert result.failure is not None
    assert result.failure.kind == "invalid"
    assert result.failure.reason == "`val_bpb` = -3 is outside judge.bounds [0, 10]"
    assert result.values == {}


# --- the final command -------------------------------------------------------------------------


def test_the_final_command_is_only_run_when_asked_for(bench: Bench) -> None:
    run = 'echo val_bpb: 1; echo \'{"metrics": {"val_bpb": 2}}\' > $SWARM_RESULT; echo it > here'
    final = (
        'cat here; pwd; test ! -e "$SWARM_RESULT" && echo $SWARM_SEED $SWARM_EXPERIMENT; '
        "echo SCORE: 3"
    )
    result = bench.measure(run, final_command=final)
    assert (result.values, result.sealed) == ({"val_bpb": 2}, None)
    assert "swarm: final" not in bench.log.read_text()
    result = bench.measure(run, final_command=final, final=True)
    assert (result.values, result.failure) == ({"val_bpb": 2}, None)
    assert result.sealed == Sealed(values={"val_bpb": 3})
    after = bench.log.read_text().split("=== swarm: final: cat here; ")[1].splitlines()
    assert after[1:] == ["it", bench.seen("score"), "42 e7", "SCORE: 3"]


@pytest.mark.parametrize(
    ("final", "kind", "said"),
    [
        ("exit 3", "crash", "exit status 3"),
        ("sleep 1000", "timeout", "timed out after 3 s"),
        (
            "echo nothing",
            "invalid",
            "no metric: looked for `val_bpb` in SWARM_RESULT (not written)",
        ),
        ("echo { > $SWARM_RESULT", "invalid", "SWARM_RESULT is not JSON"),
        ("mkdir $SWARM_RESULT", "invalid", "not a regular file"),
        ("echo val_bpb: 99", "invalid", "outside judge.bounds"),
    ],
)
def test_a_failed_final_command_voids_nothing(
    bench: Bench, final: str, kind: str, said: str
) -> None:
    limit = 3 if kind == "timeout" else 20
    result = bench.measure(
        "echo val_bpb: 1", final_command=final, final=True, bounds=(0, 10), timeout_s=limit
    )
    assert (result.values, result.failure) == ({"val_bpb": 1}, None)
    assert result.sealed is not None
    assert result.sealed.failure is not None
    assert result.sealed.failure.kind == kind
    assert said in result.sealed.failure.reason
    assert result.sealed.values == {}


def test_the_final_command_comes_after_a_good_run_alone(bench: Bench) -> None:
    result = bench.measure("exit 1", final_command="touch ran; echo val_bpb: 1", final=True)
    assert result.sealed is None
    assert not (bench.score / "sub" / "ran").exists()


def test_a_final_command_that_swarm_itself_cut_off_is_made_again(bench: Bench) -> None:
    if bench.box.rung.walls:
        pytest.skip("no command reaches its supervisor there")
    kill = "kill -KILL $PPID; sleep 1000"
    result = bench.measure("echo val_bpb: 1", final_command=kill, final=True)
    assert result.failure is not None
    assert (result.failure.kind, result.values, result.sealed) == ("aborted", {}, None)


def test_a_run_confirms_its_gain_by_the_final_command_at_its_end_alone(tmp_path: Path) -> None:
    top = make_repo(tmp_path / "repo")
    chosen = make_config(
        top,
        CONFIG.replace(
            "\nagents:", "\n  final: for v in 100 300 50; do echo METRIC loss=$v; done\nagents:"
        ),
        "judge.aggregate=min",
        "judge.bounds=[-1000, 1000]",
        "budget.experiments=6",
    )
    opened, state = launch_inline(chosen)
    measured = [e for e in read(opened.rundir.ledger) if isinstance(e, Measured)]
    finals = [e for e in measured if e.purpose == "final"]
    assert finals
    assert {e.purpose for e in measured if e.measurement.sealed is not None} == {"final"}
    for event in finals:
        assert event.measurement.sealed == Sealed(values={"loss": 50})
    result = state.targets["main"].result
    assert result is not None
    assert result.gain > 0
    assert result.confirmed is not None
    assert result.confirmed.gain == 0


def test_no_briefing_has_anything_of_the_final_command() -> None:
    story = morning()
    rules = config(agents=3, experiments=None, goal="minimize")
    asked = Propose("a1", "main", story.state.agents["a1"].loops["main"].incumbent)
    before = job_of(story.state, rules, asked, sent=0, port=None)
    failure = Failure(kind="crash", reason="held-out reason", tail="held-out output")
    for sealed in (Sealed(values={"val_bpb": 0.125}), Sealed(failure=failure)):
        measurement = Measurement(
            commit=story.base,
            tree=story.base_tree,
            index=FINAL_INDEX,
            machine=MACHINE,
            values={"val_bpb": 0.5},
            feedback="of the final measurement",
            sealed=sealed,
        )
        story.add(Measured(target="main", purpose="final", measurement=measurement))
    assert job_of(story.state, rules, asked, sent=0, port=None) == before
    assert before.attempts


# --- output and log ----------------------------------------------------------------------------


def test_the_metric_at_the_end_of_a_flood_survives(bench: Bench) -> None:
    run = "printf 'no newline yet'; yes | head -c 5000000; echo; echo val_bpb: 3"
    assert bench.measure(run, output_limit=10_000).values == {"val_bpb": 3}
    assert "bytes of output left out]" in bench.log.read_text()


def test_garbage_in_the_output_is_survived(bench: Bench) -> None:
    run = r"printf '\377\376\000\033[31mval_bpb: 2\033[0m\r\nval_bpb: 1\n\302'; cat /bin/true"
    assert bench.measure(run).values == {"val_bpb": 1}


def test_the_tail_of_a_log_is_short_and_clean(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("".join(f"line {i}\n" for i in range(100)) + "1%\r50%\r\x1b[1m100%\r\nend\n\n\n")
    tail = log_tail(log).split("\n")
    assert len(tail) == 40
    assert tail[-3:] == ["line 99", "100%", "end"]
    log.write_text("x" * 10**6)
    assert len(log_tail(log)) < 10_000
    assert log_tail(tmp_path / "gone") == ""
