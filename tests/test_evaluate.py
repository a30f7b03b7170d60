"""The harness contract: where a metric may stand, what a bad ending is called, what is seen."""

from __future__ import annotations

import json
import math
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.evaluate import (
    MOST_METRICS,
    Harness,
    MetricRule,
    Result,
    environment,
    evaluate,
    log_tail,
    plain,
    read_metrics,
)
from swarm.sandbox import Sandbox, probe

BPB = MetricRule("val_bpb", "minimize")
PATTERN = MetricRule("val_bpb", "minimize", pattern=r"^final\s+(\S+)")
JSON = MetricRule("p95", "minimize", json_path="summary.p95")

SUMMARY = """\
step 10 | loss 3.2\rstep 20 | loss 3.1\rstep 30 | loss 3.0
---
val_bpb:          0.997900
training_seconds: 300.1
peak_vram_mb:     45060.2
num_steps:        953
device: H100
"""


# --- reading the metric ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "output", "result", "value"),
    [
        # 1. the result file, before everything else
        (BPB, "val_bpb: 2", '{"metrics": {"val_bpb": 1}}', 1),
        (PATTERN, "final 2", '{"metrics": {"val_bpb": 1.5}}', 1.5),
        (BPB, "val_bpb: 2", '{"metrics": {"other": 1}}', 2),
        (BPB, "val_bpb: 2", "{}", 2),
        # 2. the pattern, or the path into the last JSON line that has it
        (PATTERN, "final 1\nfinal 2\nnot final 3\n", None, 2),
        (PATTERN, "final 1e-3 x\n", None, 0.001),
        (PATTERN, "final 1\nval_bpb: 7\n", None, 1),
        (PATTERN, "val_bpb: 7\n", None, 7),
        (JSON, '{"summary": {"p95": 3}}\n{"summary": {"p95": 4.5}}\n', None, 4.5),
        (JSON, '{"summary": {"p95": 3}}\ndone {"p95": 1}\n{"event": "done"}\n{broken\n', None, 3),
        (MetricRule("v", "maximize", json_path="r.1.v"), '{"r": [{"v": 1}, {"v": 2}]}', None, 2),
        (MetricRule("v", "maximize", json_path="0"), "[5]\n", None, 5),
        # 3. lines
        (BPB, SUMMARY, None, 0.9979),
        (BPB, "METRIC val_bpb=0.5\n", None, 0.5),
        (BPB, "SCORE: 12\n", None, 12),
        (BPB, "METRIC val_bpb=1\nSCORE: 2\nval_bpb: 3\n", None, 3),
        (BPB, "val_bpb: 3\nMETRIC val_bpb=1\n", None, 1),
        (BPB, "val_bpb: 1\rval_bpb: 2\r\nother", None, 2),
        (BPB, "\x1b[32mval_bpb: 4\x1b[0m\n", None, 4),
        (BPB, "val_bpb: -.5e-2\t\n", None, -0.005),
        (MetricRule("latency.p95-ms", "minimize"), "METRIC latency.p95-ms=3\n", None, 3),
    ],
)
def test_where_a_metric_may_stand(
    rule: MetricRule, output: str, result: str | None, value: float
) -> None:
    reading = read_metrics(rule, output, result)
    assert reading.problem is None
    assert reading.values[rule.name] == value


@pytest.mark.parametrize(
    ("rule", "output", "result", "said"),
    [
        (BPB, "", None, "looked for `val_bpb` in SWARM_RESULT (not written); a line `METRIC"),
        (BPB, " val_bpb: 1\nbest val_bpb: 2\nval_bpb = 3\nval_bpb: 4 of 5\n", None, "no metric"),
        (BPB, "val_bpbx: 1\nMETRIC val_bpb.x=1\n", None, "no metric"),
        (BPB, "val_bpb: 1\nval_bpb: nan\n", None, "not a finite number: 'nan'"),
        (BPB, "val_bpb: 1\nMETRIC val_bpb=inf\n", None, "not a finite number: 'inf'"),
        (BPB, "val_bpb: 1e999\n", None, "not a finite number"),
        (BPB, "METRIC val_bpb=1_000\n", None, "not a number: '1_000'"),
        (BPB, "METRIC val_bpb=fast\n", None, "not a number: 'fast'"),
        (PATTERN, "nothing", None, r"metric.pattern '^final\\s+(\\S+)'"),
        (PATTERN, "final nan\nval_bpb: 1", None, "not a finite number: 'nan'"),
        (PATTERN, "final 0,98", None, "not a number: '0,98'"),
        (JSON, "{}", None, "metric.json `summary.p95`"),
        (JSON, '{"summary": {"p95": NaN}}', None, "not a finite number"),
        (JSON, '{"summary": {"p95": "3"}}', None, "not a number"),
        (JSON, '{"summary": {"p95": true}}', None, "not a number"),
        (BPB, "val_bpb: 1", '{"metrics": {"val_bpb": NaN}}', "from SWARM_RESULT is not a finite"),
        (BPB, "val_bpb: 1", '{"metrics": {"val_bpb": -Infinity}}', "not a finite number"),
        (BPB, "val_bpb: 1", '{"metrics": {"val_bpb": 1e400}}', "not a finite number"),
        (BPB, "val_bpb: 1", '{"metrics": {"val_bpb": 1' + 400 * "0" + "}}", "not a finite"),
        (BPB, "val_bpb: 1", '{"metrics": {"val_bpb": "0.5"}}', "not a number"),
        (BPB, "val_bpb: 1", '{"metrics": {"val_bpb": null}}', "not a number"),
        (BPB, "val_bpb: 1", "", "SWARM_RESULT is not JSON"),
        (BPB, "val_bpb: 1", "{", "SWARM_RESULT is not JSON"),
        (BPB, "val_bpb: 1", "[" * 100_000, "SWARM_RESULT is not JSON"),
        (BPB, "val_bpb: 1", "[]", "not a JSON object"),
        (BPB, "val_bpb: 1", '{"metrics": []}', "`metrics` in SWARM_RESULT"),
        (BPB, "val_bpb: 1", '{"feedback": 3}', "`feedback` in SWARM_RESULT"),
        (BPB, "val_bpb: 1", '{"cases": {}}', "`cases` in SWARM_RESULT"),
        (BPB, "val_bpb: 1", '{"cases": [{"id": 1}]}', "no `id` that is a string"),
        (BPB, "val_bpb: 1", '{"cases": [3]}', "no `id` that is a string"),
        (BPB, "val_bpb: 1", '{"cases": [{"id": "a"}, {"id": "a"}]}', "'a' is twice"),
    ],
)
def test_no_metric_says_what_was_looked_for(
    rule: MetricRule, output: str, result: str | None, said: str
) -> None:
    reading = read_metrics(rule, output, result)
    assert reading.values == {}
    assert said in (reading.problem or "")


def test_other_metrics_come_along() -> None:
    reading = read_metrics(BPB, SUMMARY, None)
    assert reading.values == {
        "val_bpb": 0.9979,
        "training_seconds": 300.1,
        "peak_vram_mb": 45060.2,
        "num_steps": 953,
    }
    output = "epoch: 3\nMETRIC p95_ms=1\nMETRIC p95_ms=2\nMETRIC bad=nan\nMETRIC µs=5\nval_bpb: 1\n"
    assert read_metrics(BPB, output, None).values == {"val_bpb": 1, "p95_ms": 2, "µs": 5}
    assert read_metrics(BPB, output, None, also=["epoch"]).values["epoch"] == 3
    result = json.dumps({"metrics": {"val_bpb": 2, "p95_ms": 9, "gone": math.inf, "text": "x"}})
    assert read_metrics(BPB, output, result).values == {"val_bpb": 2, "p95_ms": 9, "µs": 5}


def test_feedback_is_data_without_control_sequences() -> None:
    result = json.dumps({"metrics": {"val_bpb": 1}, "feedback": "\x1b[2Jcase c1\nfailed\x07"})
    assert read_metrics(BPB, "", result).feedback == "case c1\nfailed"
    assert len(read_metrics(BPB, "", json.dumps({"feedback": "x" * 10**6})).feedback) < 50_000


def test_many_metrics_do_not_flood_the_ledger() -> None:
    output = "".join(f"METRIC m{i}={i}\n" for i in range(10_000)) + "zz: 1\nval_bpb: 2\n"
    values = read_metrics(BPB, output, None, also=["zz", "m9999"]).values
    assert len(values) <= MOST_METRICS + 1
    assert (values["val_bpb"], values["zz"], values["m9999"]) == (2, 1, 9999)


@pytest.mark.parametrize(
    "line",
    ["1" * 10**6 + "x", "METRIC " * 150_000, "val_bpb:" + " " * 10**6 + "x", "\x1b[" * 500_000],
)
@pytest.mark.timeout(20)
def test_hostile_output_is_read_in_linear_time(line: str) -> None:
    assert read_metrics(BPB, f"---\nval_bpb: 1\nx: {line}\n{line}\n", None).values["val_bpb"] == 1


def test_rules_that_cannot_work_are_refused() -> None:
    with pytest.raises(ValueError, match="one group"):
        MetricRule("x", "minimize", pattern="x: (a)(b)")
    with pytest.raises(ValueError, match="cases"):
        MetricRule("cases", "maximize")


FORMS: list[Callable[[str], str]] = [
    lambda v: f"val_bpb: {v}",
    lambda v: f"METRIC val_bpb={v}",
    lambda v: f"SCORE: {v}",
]
lines = st.tuples(st.sampled_from(FORMS), st.floats()).map(lambda p: (p[0](repr(p[1])), p[1]))
noise = st.text(alphabet="abc :=0.\t\x1b[m", max_size=12).map(lambda s: ("# " + s, None))


@given(st.lists(st.one_of(lines, noise), min_size=1), st.sampled_from(["\n", "\r", "\r\n"]))
def test_the_last_value_wins_and_is_never_other_than_finite(
    written: list[tuple[str, float | None]], end: str
) -> None:
    reading = read_metrics(BPB, end.join(text for text, _ in written) + end, None)
    values = [value for _, value in written if value is not None]
    if values and math.isfinite(values[-1]):
        assert reading == ({"val_bpb": values[-1]}, "", None)
    else:
        assert reading.values == {}
        assert reading.problem


@given(st.text(max_size=200), st.text(max_size=200) | st.none())
def test_any_text_gives_finite_values_or_a_problem(output: str, result: str | None) -> None:
    for rule in (BPB, PATTERN, JSON):
        reading = read_metrics(rule, output, result)
        assert all(math.isfinite(value) for value in reading.values.values())
        assert (reading.problem is None) == (rule.name in reading.values)


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)


@given(
    st.fixed_dictionaries({}, optional=dict.fromkeys(("metrics", "cases", "feedback"), json_values))
)
def test_any_json_result_gives_finite_values_or_a_problem(result: dict[str, object]) -> None:
    reading = read_metrics(BPB, "val_bpb: 1", json.dumps(result))
    assert all(math.isfinite(value) for value in reading.values.values())
    assert (reading.problem is None) == ("val_bpb" in reading.values)


@given(st.text())
def test_plain_text_has_no_control_characters(text: str) -> None:
    shown = plain(text)
    assert not any(ord(c) < 32 and c not in "\n\t" for c in shown)
    assert plain(shown) == shown


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
    """An export, a sandbox, and a short way to measure."""

    def __init__(self, root: Path, box: Sandbox) -> None:
        self.box = box
        self.log = root / "logs" / "1" / "0.log"
        self.export = root / "export"
        self.guard = root / "guard"
        for export in (self.export, self.guard):
            (export / "sub").mkdir(parents=True)

    def measure(
        self,
        run: str | tuple[str, ...],
        *,
        cancel: threading.Event | None = None,
        **changes: object,
    ) -> Result:
        fields: dict[str, object] = {"run": run, "metric": BPB, "timeout_s": 20.0}
        return evaluate(
            Harness(**(fields | changes)),  # type: ignore[arg-type]
            self.export,
            "sub",
            sandbox=self.box,
            seed=42,
            label="e7",
            log=self.log,
            gpus="",
            cancel=cancel,
            guard_export=lambda: self.guard,
        )


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with Sandbox(probe("auto"), scratch=tmp_path / "scratch") as box:
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
    assert cwd == str(bench.export / "sub")


def test_a_list_is_argv_and_the_result_file_counts(bench: Bench) -> None:
    script = (
        "import json, os; print('val_bpb: 9', os.environ['SWARM_RESULT']);"
        "json.dump({'metrics': {'val_bpb': 0.25}, 'feedback': 'slow', 'cases': [{'id': 'a'}]},"
        "open(os.environ['SWARM_RESULT'], 'w'))"
    )
    result = bench.measure((sys.executable, "-S", "-c", script))
    assert result[:3] == ({"val_bpb": 0.25}, "slow", None)
    path = Path(bench.log.read_text().split()[-1])
    assert not path.exists()
    assert bench.export not in path.parents
    bench.measure((sys.executable, "-S", "-c", script))
    assert bench.log.read_text().split()[-1] != str(path)


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
    for name in ("HOME", "TMPDIR"):
        assert bench.box.scratch in Path(seen[name]).parents


@pytest.mark.parametrize(
    ("run", "kind", "said", "tail"),
    [
        ("echo val_bpb: 1; echo oops >&2; exit 3", "crash", "exit status 3", "oops"),
        ("kill -SEGV $$", "crash", "killed by SIGSEGV", ""),
        ("kill -KILL $$", "crash", "killed by SIGKILL (out of memory?)", ""),
        ("sh -c 'kill -KILL $$'; exit $?", "crash", "exit status 137: killed by SIGKILL", ""),
        ("exit 200", "crash", "exit status 200", ""),
        (("no-such-program",), "crash", "cannot run 'no-such-program'", ""),
        ("echo val_bpb: 1; sleep 1000", "timeout", "timed out after 0.5 s", "val_bpb: 1"),
        ("echo hello", "invalid", "no metric: looked for `val_bpb`", "hello"),
        ("echo val_bpb: nan", "invalid", "not a finite number", "val_bpb: nan"),
        ("echo val_bpb: 1; echo { > $SWARM_RESULT", "invalid", "SWARM_RESULT is not JSON", ""),
        ("echo val_bpb: 1; mkdir $SWARM_RESULT", "invalid", "not a regular file", ""),
        ("echo val_bpb: 1; mkfifo $SWARM_RESULT", "invalid", "not a regular file", ""),
        ("echo val_bpb: 1; ln -s /etc/passwd $SWARM_RESULT", "invalid", "cannot be read", ""),
        ("echo val_bpb: 1; truncate -s 9M $SWARM_RESULT", "invalid", "larger than 8 MiB", ""),
        ("kill -KILL $PPID; sleep 1000", "aborted", "supervisor died", ""),
    ],
)
def test_every_bad_ending_has_its_name(
    bench: Bench, run: str | tuple[str, ...], kind: str, said: str, tail: str
) -> None:
    result = bench.measure(run, timeout_s=0.5 if kind == "timeout" else 20)
    assert result.failure is not None
    assert result.failure.kind == kind
    assert said in result.failure.reason
    assert tail in result.failure.tail
    assert result.values == {}


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
    assert str(bench.guard / "sub") in log


@pytest.mark.parametrize(
    ("guard", "said"),
    [
        ("echo broken; exit 1", "guard `echo broken; exit 1`: exit status 1"),
        ("echo broken; sleep 1000", "timed out after 0.5 s"),
        (("echo broken",), "cannot run"),
    ],
)
def test_a_failed_guard_ends_it(bench: Bench, guard: str | tuple[str, ...], said: str) -> None:
    result = bench.measure("touch ran; echo val_bpb: 1", guard=("true", guard), timeout_s=0.5)
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


def test_a_guard_without_an_export_is_a_mistake(bench: Bench, tmp_path: Path) -> None:
    harness = Harness(run="true", metric=BPB, guard=("true",))
    with pytest.raises(ValueError, match="guard"):
        evaluate(
            harness,
            bench.export,
            "",
            sandbox=bench.box,
            seed=0,
            label="",
            log=tmp_path / "log",
            gpus="",
        )


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
