"""Histories of other tools: each form is read with its traps, and what is written is read back."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from story import HOSTILE, morning

from swarm.errors import PreconditionError, UsageError
from swarm.formats.family import FORMS, Asked, Entry, Files, History, attempts, of_run, tally
from swarm.formats.family.lines import marks
from swarm.formats.family.pi import confidence
from swarm.records import VERDICTS, Goal, MetricSpec

WRITTEN = [name for name, form in FORMS.items() if form.write is not None]


def read(form: str, files: Files | str, goal: Goal | None = None, **more: str) -> History:
    texts = {"results.tsv": files} if isinstance(files, str) else files
    assert FORMS[form].known(texts), "the form is recognised"
    return FORMS[form].read(texts, Asked("old", goal=goal, **more))


def rows(told: History) -> list[tuple[int, str, float | None]]:
    return [(e.number, e.status, e.value) for e in told.entries]


# --- hand-written files, each with the traps of its kind ----------------------------------------

KARPATHY = """commit\tval_bpb\tmemory_gb\tstatus\tdescription
baseline\t0.997900\t44.0\tkeep\tbaseline
b2c3d4e\t0.993200\t44.2\tKEEP \tincrease LR to 0.04, with commas
c3d4e5f\t1.005000\t44.0\tdiscard\tswitch to GeLU
d4e5f6a\t0.000000\t0.0\tcrash\tdouble width (OOM)
e5f6a7b\t0.995000\t44.0\tskipped\tnobody knows
"""


def test_karpathys_table() -> None:
    told = read("karpathy", KARPATHY)
    assert told.metric == MetricSpec(name="val_bpb", goal="minimize")
    assert rows(told) == [
        (0, "baseline", 0.9979),
        (1, "keep", 0.9932),
        (2, "discard", 1.005),
        (3, "crash", None),
        (4, "discard", None),
    ]
    assert tally(told) == (4, 1, 2, 1, 0.9979, 0.9932), "0.000000 is no best"
    assert told.entries[0].commit is None
    assert told.entries[1].commit == "b2c3d4e"
    said = "1 with the unknown status 'skipped', read as a discard without a value"
    assert told.notes == (said,)


@pytest.mark.parametrize(
    ("header", "row", "number", "agent"),
    [
        ("experiment_id\tstatus\tval_bpb\tmemory_gb\tdescription", "7\tkeep\t0.9\t1\tx", 7, ""),
        (
            "agent\tcommit\tval_bpb\tmemory_gb\tstatus\tdescription",
            "h1\tabcdef1\t0.9\t1\tkeep\tx",
            1,
            "h1",
        ),
        ("session\tcommit\tval_bpb\tquality\tstatus\tdescription", "s\ta\t0.9\t5\tkeep\tx", 1, ""),
    ],
)
def test_dialects_of_karpathys_table(header: str, row: str, number: int, agent: str) -> None:
    first = row.replace("0.9", "1.5").replace("7\t", "3\t")
    told = read("karpathy", f"{header}\n{first}\n{row}\n")
    assert rows(told) == [(0, "baseline", 1.5), (number, "keep", 0.9)]
    assert told.entries[1].agent == agent


def test_a_loss_of_nothing_is_no_loss() -> None:
    lines = ("a1\t1.5\t1.0\tkeep\tbase", "b2\t0.000000\t0.0\tdiscard\ttoo slow to end")
    table = "commit\t{}\tmemory_gb\tstatus\tdescription\n" + "\n".join(lines) + "\n"
    told = read("karpathy", table.format("val_loss"))
    assert rows(told) == [(0, "baseline", 1.5), (1, "discard", None)]
    errors = read("karpathy", table.format("errors"), "minimize")
    assert rows(errors)[1] == (1, "discard", 0.0), "of errors there may be none"


def test_a_table_of_scores_before_and_after() -> None:
    head = "timestamp\tcommit\tskill\told_score\tnew_score\tstatus\tdimension\tnote\teval_mode\n"
    lines = (
        "2026-05-01T10:00\tbaseline\tpoem\t-\t60.5\tbaseline\t-\tas it was\tdry_run",
        "2026-05-01T10:05\tabcdef1\tpoem\t60.5\t64\tkeep\tform\trhyme words\tdry_run",
        "2026-05-01T10:10\tabcdef2\tpoem\t64\t63.5\trevert\tform\tno rhymes\tdry_run",
        "2026-05-01T11:00\tbaseline\tsong\t-\t40\tbaseline\t-\tas it was\tfull_test",
        "2026-05-01T11:05\tabcdef3\tsong\t41\t44\tkeep\ttune\thumming\tfull_test",
    )
    told = read("karpathy", head + "\n".join(lines) + "\n")
    assert told.metric == MetricSpec(name="new_score", goal="maximize")
    assert rows(told) == [
        (0, "baseline", 60.5),
        (1, "keep", 64.0),
        (2, "discard", 63.5),
        (0, "baseline", 40.0),
        (4, "keep", 44.0),
    ]
    assert [e.gain for e in told.experiments] == [3.5, -0.5, 3.0], "over what the row says"
    assert [e.summary for e in told.experiments] == ["rhyme words", "no rhymes", "humming"]
    assert told.notes == ()


def test_a_part_of_a_table_has_no_baseline() -> None:
    told = read("karpathy", "commit\tloss\tstatus\tdescription\nab\t3\tdiscard\tx\n", "minimize")
    assert rows(told) == [(0, "discard", 3.0)]
    assert tally(told).baseline is None


def test_labclaws_table() -> None:
    text = "commit\tmetric\tstatus\tdescription\n"
    text += "aaaaaaa\t10\tkeep\tbaseline\nbbbbbbb\tERR\tcrash\tx\nccccccc\t0\tcrash\ty\n"
    told = read("labclaw", text + "ddddddd\t0\tdiscard\tz\n", "minimize", metric="ms")
    assert rows(told)[1:] == [(1, "crash", None), (2, "crash", None), (3, "discard", 0.0)]
    assert told.metric.name == "ms"
    assert tally(told).best == 10, "neither a crash nor what was thrown away is the best"
    assert not FORMS["karpathy"].known({"results.tsv": text})


def jsonl(*lines: object) -> str:
    return "".join(
        line + "\n" if isinstance(line, str) else json.dumps(line) + "\n" for line in lines
    )


def read_pi(*lines: object) -> History:
    return read("pi", {"log.jsonl": jsonl(*lines)})


def test_pis_log() -> None:
    told = read_pi(
        {"type": "config", "metricName": "total_ms", "metricUnit": "ms"},
        {"run": 1, "commit": "a" * 7, "metric": 50, "status": "keep", "description": "b"},
        {"type": "hook", "run": 1, "event": "after"},
        "{torn",
        "[]",
        {"run": 2, "metric": 0, "status": "crash", "description": "x", "timestamp": "no"},
        {
            "run": 3,
            "metric": 40,
            "status": "checks_failed",
            "asi": {"hypothesis": "why", "rollback_reason": "a test fails"},
        },
        {"run": 4, "status": "discard"},
        {"run": 5, "metric": 45, "status": "sparkling", "timestamp": 1_700_000_000_000},
        {"run": True, "metric": 1},
    )
    assert told.metric == MetricSpec(name="total_ms", goal="minimize", unit="ms")
    assert rows(told) == [
        (0, "baseline", 50.0),
        (1, "crash", None),
        (2, "guard_failed", 40.0),
        (3, "discard", None),
        (4, "keep", 45.0),
    ]
    assert told.notes == ("1 with the unknown status 'sparkling', read as keep, as pi does",)
    assert tally(told).best == 45
    assert (told.entries[2].rationale, told.entries[2].reason) == ("why", "a test fails")
    assert told.entries[4].at == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)


def test_a_first_run_that_failed_its_checks_is_nothing_to_compare_with() -> None:
    told = read_pi(
        {"type": "config", "metricName": "us", "bestDirection": "lower"},
        {"run": 1, "metric": 0, "status": "checks_failed", "description": "checks hang"},
        {"run": 2, "metric": 265, "status": "keep"},
        {"run": 3, "metric": 153, "status": "keep"},
    )
    assert rows(told) == [(0, "baseline", None), (1, "keep", 265.0), (2, "keep", 153.0)]
    assert (tally(told).baseline, tally(told).best) == (None, 153)


def test_each_of_pis_segments_has_a_baseline_of_its_own() -> None:
    def config(**more: str) -> dict[str, str]:
        return {"type": "config", "metricName": "acc", "bestDirection": "higher", **more}

    def run(number: int, value: float, status: str = "keep") -> dict[str, object]:
        return {"run": number, "metric": value, "status": status, "description": f"r{number}"}

    told = read_pi(
        config(metricName="other"),
        run(1, 1),
        config(),
        run(1, 10),
        run(2, 12),
        config(name="again"),
        run(3, 5),
        run(4, 6),
        config(),
    )
    assert [(e.status, e.value) for e in told.entries] == [
        ("baseline", 10.0),
        ("keep", 12.0),
        ("baseline", 5.0),
        ("keep", 6.0),
    ]
    assert [a.gain for a in attempts(told)] == [2.0, 1.0], "never across segments"
    assert tally(told) == (2, 2, 0, 0, 5.0, 6.0)
    assert told.notes == ("1 segment about another metric left out",)


UDITGOENKA = """# metric_direction: higher_is_better
iteration\ttimestamp\tcommit\tmetric\tdelta\tguard\tguard-metric\tstatus\tdescription
0\t2026-03-01T10:00:00Z\taaaaaaa\t80.0\t0.0\tpass\t-\tbaseline\tstart
1\t2026-03-01T10:05:00Z\tbbbbbbb\t82.5\t+2.5\tpass\t-\tkeep\tmore tests
2\t2026-03-01T10:10:00Z\t-\t-\t-\t-\t-\tno-op\tnothing changed
3\t2026-03-01T10:15:00Z\t-\t0\t-\t-\t-\tmetric-error\tno number
4\t2026-03-01T10:20:00Z\tccccccc\t90.0\t+7.5\tfail\t12\tdiscard\tskips the slow ones
5\t2026-03-01T10:25:00Z\t-\t-\t-\t-\t-\thook-blocked\trm -rf
"""


def test_uditgoenkas_log() -> None:
    handed = json.dumps({"config": {"metric": "coverage", "direction": "higher", "scope": "a, b"}})
    told = read("uditgoenka", {"x-results.tsv": UDITGOENKA, "handoff.json": handed})
    assert told.metric == MetricSpec(name="coverage", goal="maximize")
    assert rows(told) == [
        (0, "baseline", 80.0),
        (1, "keep", 82.5),
        (2, "invalid", None),
        (3, "crash", None),
        (4, "guard_failed", 90.0),
        (5, "invalid", None),
    ]
    assert told.scope == ("a", "b")
    assert tally(told).best == 82.5
    torn = read("uditgoenka", {"x-results.tsv": UDITGOENKA, "handoff.json": "{"})
    assert torn.metric.name == "metric"
    wrong = {"x-results.tsv": UDITGOENKA, "handoff.json": handed.replace("higher", "lower")}
    assert read("uditgoenka", wrong).metric.goal == "maximize", "the log itself goes first"
    with pytest.raises(UsageError, match="--goal says minimize, and the file says maximize"):
        read("uditgoenka", UDITGOENKA, "minimize")


def test_leos_log() -> None:
    head = "# Autoresearch log\n# metric_direction: lower\n"
    head += "iteration\tcommit\tmetric\tdelta\tguard\tstatus\tdescription\n"
    lines = (
        "0\taaaaaaa\t100\t0\t-\tbaseline\tstart",
        "5a\t-\t70\t-30\tpass\tkeep\tone helper",
        "5b\t-\t95\t-5\tpass\tdiscard\tanother",
        "5\tbbbbbbb\t90\t-10\tpass\tkeep\tboth",
        "6\t-\t-\t-\t-\tpivot\tgo elsewhere",
        "7\t-\t91\t+1\tfail\tdiscard\tslow",
    )
    told = read("leo", head + "\n".join(lines) + "\n")
    assert rows(told) == [(0, "baseline", 100.0), (5, "keep", 90.0), (7, "guard_failed", 91.0)]
    assert tally(told).best == 90, "70 is a helper's own, not the row that counts"
    assert told.notes == ("3 rows of helpers or decisions passed over",)
    above = (
        "# goal: fewer of them\n# metric: number of failures\n# scope: src/**,  tests/a.py\n"
        "# verify: make count | tail -1\n"
    )
    head = head.replace("lower", "lower (as few as can be)")
    more = read("leo", above + head + "\n".join(lines) + "\n")
    assert more.metric.name == "number of failures"
    assert (more.scope, more.run) == (("src/**", "tests/a.py"), "make count | tail -1")
    assert not FORMS["uditgoenka"].known({"results.tsv": head})


def record(number: int, status: str, score: float | None, **more: object) -> str:
    said = {"id": number, "title": f"t{number}", "status": status, "commit": None, "score": score}
    return json.dumps({**said, **more})


def test_autoimproves_records() -> None:
    files = {
        "baseline.json": json.dumps({"score": 10, "commit": "a" * 40, "timestamp": "2026-01-01"}),
        "003-c.json": record(3, "kept", 13, supersedes=[1], reasoning="all of 1", duration_s=4.5),
        "001-a.json": record(1, "kept", 11, commit="b" * 40, files_changed=["x.py"]),
        "002-b.json": record(2, "error", None),
        "004-d.json": record(4, "discarded", 12, supersedes=[2]),
        "005-e.json": record(5, "test_failed", None),
        "006-f.json": record(6, "guard_failed", 99),
        "007-g.json": record(7, "kept_equal", 13),
        "improve.md": "# autoimprove: x\n## Change\nscope: a.py\n## Check\nrun: x\ngoal: higher\n"
        "## Stop\nrounds: 3\n## Instructions\nbe good\n",
    }
    told = read("autoimprove", files)
    assert told.metric == MetricSpec(name="score", goal="maximize")
    assert [(n, s) for n, s, _ in rows(told)] == [
        (0, "baseline"),
        (1, "keep"),
        (2, "crash"),
        (3, "keep"),
        (4, "discard"),
        (5, "guard_failed"),
        (6, "constraint_failed"),
        (7, "keep"),
    ]
    assert tally(told).best == 13, "99 broke a guard"
    assert [a.number for a in attempts(told)] == [2, 3, 4, 5, 6, 7], "1 is hidden, 2 is not"
    with pytest.raises(UsageError, match="does not say whether a higher or a lower score"):
        read("autoimprove", {n: t for n, t in files.items() if n != "improve.md"})
    with pytest.raises(UsageError, match=re.escape("`004-d.json` is no JSON object")):
        read("autoimprove", {**files, "004-d.json": "[1"})


SKILL = """experiment\tscore\tmax_score\tpass_rate\tstatus\tdescription\tlength\tholdout_score
0\t14\t20\t70.0%\tbaseline\tas it was\t900\t6/8
1\t16\t20\t80.0%\tkeep\tan example\t950\t7/8
2\t16\t20\t80.0%\tdiscard\tequal\t951\t7/8
"""


def test_a_skill_loops_folder() -> None:
    log = "# log\n## Experiment 1 — keep\n**Score:** 16/20\n**Reasoning:** models copy examples\n"
    told = read("skill", {"results.tsv": SKILL, "changelog.md": log})
    assert rows(told) == [(0, "baseline", 0.7), (1, "keep", 0.8), (2, "discard", 0.8)]
    assert told.entries[1].rationale == "models copy examples"
    assert told.entries[1].summary == "an example"
    assert told.metric == MetricSpec(name="pass_rate", goal="maximize")
    with pytest.raises(UsageError, match="the file says maximize"):
        read("skill", SKILL, "minimize")


def test_a_skill_loop_whose_guards_fail() -> None:
    table = (
        "experiment\tscore\tmax_score\tpass_rate\tstatus\tdescription\tobjective\n"
        "0\t3\t9\t33.3%\tbaseline\tas it was\n"
        "1\t\t\t\tguard_fail\tthe build broke\t\n"
        "2\t\t\t\ttimeout\ttoo much\n"
        "3\t6\t9\t66.7%\tkeep\tless\t\n"
    )
    told = read("skill", table)
    assert [(n, s) for n, s, _ in rows(told)] == [
        (0, "baseline"),
        (1, "guard_failed"),
        (2, "timeout"),
        (3, "keep"),
    ]
    assert [e.value for e in told.entries] == [1 / 3, None, None, 2 / 3]
    with pytest.raises(UsageError, match="experiment 3 has neither score"):
        read("skill", table.replace("3\t6\t9\t66.7%", "3\t\t\t"))


def test_a_skill_loop_without_a_table() -> None:
    said = [
        {"id": 0, "score": 7, "max_score": 10, "pass_rate": 70.0, "status": "baseline"},
        {"id": 1, "pass_rate": 75.0, "status": "keep", "description": "only a rate"},
    ]
    told = read("skill", {"results.json": json.dumps({"experiments": said})})
    assert rows(told) == [(0, "baseline", 0.7), (1, "keep", 0.75)]
    with pytest.raises(UsageError, match="experiment 1 has neither score"):
        read("skill", "experiment\tscore\tmax_score\tstatus\n1\t\t0\tkeep\n")


def test_agenthubs_lines() -> None:
    text = (
        "commit:aaaaaaa platform:H100 80GB val_bpb:0.9979 vram_gb:44.0 | baseline\n"
        "hello everybody\n"
        "commit:bbbbbbb platform:H100 80GB val_bpb:0.99 vram_gb:44.2 | LR up | and down\n"
        "commit:ccccccc platform:H100 80GB val_bpb:1.0 vram_gb:44.0 | GeLU (DISCARD)\n"
        "commit:ddddddd platform:H100 80GB val_bpb:--- vram_gb:--- | wide (CRASH: OOM (80 GB))\n"
    )
    told = read("agenthub", {"hub.txt": text})
    assert rows(told) == [
        (0, "baseline", 0.9979),
        (1, "keep", 0.99),
        (2, "discard", 1.0),
        (3, "crash", None),
    ]
    assert [e.summary for e in told.entries[1:]] == ["LR up | and down", "GeLU", "wide"]
    assert told.entries[3].reason == "OOM (80 GB)"
    assert (told.platform, told.notes) == ("H100 80GB", ("1 line passed over",))
    with pytest.raises(UsageError, match="lines of 2 metrics: val_bpb, loss"):
        read("agenthub", {"hub.txt": text + text.replace("val_bpb", "loss")})


def test_corals_attempts() -> None:
    def attempt(sha: str, score: float | None, status: str, hour: int, **more: object) -> str:
        at = f"2026-01-01T{hour:02d}:00:00"
        said = {"commit_hash": sha * 40, "agent_id": "a-1", "title": sha, "score": score}
        return json.dumps({**said, "status": status, "timestamp": at, **more})

    files = {
        "z.json": attempt("a", 1.0, "baseline", 1),
        "y.json": attempt("b", 2.0, "improved", 2, feedback="good\nmore"),
        "x.json": attempt("c", 2.0, "baseline", 3),
        "w.json": attempt("d", 99.0, "improved", 4, metadata={"budget_class": "grader_error"}),
        "v.json": attempt("e", None, "pending", 5),
        "u.json": attempt("f", 50.0, "improved", 6, metadata={"budget_class": "tune"}),
        "t.json": attempt("0", None, "timeout", 7),
        "s.json": "{torn",
        "task.yaml": "task:\n  name: x\ngrader:\n  direction: maximize\n",
    }
    told = read("coral", files)
    assert rows(told) == [
        (0, "baseline", 1.0),
        (1, "keep", 2.0),
        (2, "discard", 2.0),
        (3, "crash", None),
        (4, "timeout", None),
    ]
    assert tally(told).best == 2, "what the grader could not grade is no best"
    assert told.entries[1].reason == "good"
    assert told.notes == ("2 attempts open or of tuning left out",)


# --- what no reader may stumble over -------------------------------------------------------------

HEAD = "commit\tval_bpb\tmemory_gb\tstatus\tdescription\n"


@pytest.mark.parametrize("word", ["crash", "Crashed", "TIMEOUT", "OOM", "error", "failed"])
def test_no_failure_has_a_value_by_whatever_word(word: str) -> None:
    first = read("karpathy", f"{HEAD}a\t0.000000\t0\t{word}\tb\na\t1.2\t0\tkeep\tx\n")
    assert rows(first) == [(0, "baseline", None), (1, "keep", 1.2)]
    assert tally(first).best == 1.2
    later = read("karpathy", f"{HEAD}a\t5\t0\tkeep\tb\na\t0.000000\t0\t{word}\tx\n")
    assert tally(later)[1:4] == (0, 0, 1)
    assert attempts(later)[0].gain is None


@pytest.mark.parametrize(
    ("header", "row", "metric"),
    [
        (
            "timestamp\tcommit\tbranch\tval_bpb\tstatus\tdescription",
            "t\ta\tb\t3\tkeep\tx",
            "val_bpb",
        ),
        ("time\tcommit\tbranch\tspeed\tstatus\tdescription", "t\ta\tb\t3\tkeep\tx", "speed"),
        ("commit\tdelta\tmetric\tstatus\tdescription", "a\t9\t3\tkeep\tx", "metric"),
        ("commit\t\tspeed\tstatus\tdescription", "a\t9\t3\tkeep\tx", "speed"),
    ],
)
def test_the_metric_is_what_has_numbers(header: str, row: str, metric: str) -> None:
    told = read("karpathy", f"{header}\n{row}\n{row}\n", "minimize")
    assert (told.metric.name, told.entries[1].value) == (metric, 3.0)


def test_other_tables_are_no_history() -> None:
    assert not any(f.known({"jobs.tsv": "id\tstatus\n1\tdone\n"}) for f in FORMS.values())
    assert not any(f.known({"eval.json": '{"id": 3, "score": 0.4}'}) for f in FORMS.values())


def test_a_gain_that_the_file_states_is_believed() -> None:
    lines = ("1\t-\ta\t8.0\t-2.0\t-\t-\tkeep\tx", "2\t-\tb\t9.0\t-0.5\t-\t-\tkeep\ty")
    head = "# metric_direction: lower_is_better\n" + UDITGOENKA.split("\n")[1] + "\n"
    told = read("uditgoenka", head + "0\t-\tc\t10\t0\t-\t-\tbaseline\ts\n" + "\n".join(lines))
    assert [a.gain for a in attempts(told)] == [2.0, 0.5], "2 was not made on top of 1"
    files = {"001.json": record(1, "kept", 8, baseline_score=10), "002.json": record(2, "kept", 9)}
    told = read("autoimprove", files, "minimize")
    assert [a.gain for a in attempts(told)] == [2.0, None], "nobody says what 2 was compared with"


def test_marks_of_agenthub_count_where_they_are_marks() -> None:
    line = "commit:abc1234 platform:H100 val_bpb:{} vram_gb:3 | {}\n"
    said = ("base", "(CRASH: OOM) double width", "(DISCARD: overfit) x", "a rule on (crash)")
    values = ("1.0", "0.000000", "0.5", "0.9")
    text = "".join(line.format(v, s) for v, s in zip(values, said, strict=True))
    told = read("agenthub", {"hub.txt": text})
    assert rows(told)[1:] == [(1, "crash", None), (2, "discard", 0.5), (3, "keep", 0.9)]
    assert [e.summary for e in told.entries[1:]] == ["double width", "x", "a rule on (crash)"]


def test_a_skill_rule_on_crashes_is_no_crash() -> None:
    row = "1\t9\t10\t90%\tkeep\tAdd a rule on (CRASH) reports\n"
    told = read("skill", "# mine\n" + SKILL.split("\n1")[0] + "\n" + row)
    assert rows(told)[1] == (1, "keep", 0.9)
    assert told.entries[1].summary == "Add a rule on (CRASH) reports"
    with pytest.raises(UsageError, match="experiment 1 has 40 of 10 checks"):
        read("skill", SKILL.split("\n1")[0] + "\n1\t40\t10\t\tkeep\tx\n")


def test_a_word_may_have_more_behind_it() -> None:
    head = (
        "# metric_direction: lower\niteration\tcommit\tmetric\tdelta\tguard\tstatus\tdescription\n"
    )
    lines = (
        "0\ta\t9\t0\t-\tbaseline\tstart",
        "1\tb\t7\t-2\tpass\tKeep (reworked)\tmended",
        "2\tc\t6\t-1\tfail\tguard-failed\tfast and wrong",
        "3\td\t5\t-2\t-\t(keep)\tnobody knows",
    )
    told = read("leo", head + "\n".join(lines) + "\n")
    assert rows(told) == [
        (0, "baseline", 9.0),
        (1, "keep", 7.0),
        (2, "guard_failed", 6.0),
        (3, "discard", None),
    ]
    assert told.notes == ("1 with the unknown status '(keep)', read as a discard without a value",)


def test_words_are_read_in_any_case() -> None:
    told = read_pi({"run": 1, "metric": 5}, {"run": 2, "status": "CRASH "})
    assert told.entries[1].status == "crash"
    assert (
        read("autoimprove", {"1.json": record(1, "KEPT", 1)}, "minimize").entries[0].status
        == "keep"
    )


def test_pi_without_a_config_is_what_the_person_says() -> None:
    files = {"log.jsonl": jsonl({"run": 1, "metric": 5}, {"run": 2, "metric": 6})}
    assert read("pi", files).metric.goal == "minimize", "as pi has it"
    assert read("pi", files, "maximize").metric.goal == "maximize"


def test_corals_direction_is_the_graders_and_times_may_be_numbers() -> None:
    task = "task:\n  description: |\n    direction: lower it\ngrader:\n  direction: maximize\n"
    said = [("f", 1.0, "baseline", 1712345678.5), ("a", 2.0, "improved", 1712345679.5)]
    files = {
        f"{sha}.json": json.dumps(
            {"commit_hash": sha * 40, "score": score, "status": status, "timestamp": at}
        )
        for sha, score, status, at in said
    }
    told = read("coral", {**files, "task.yaml": task})
    assert told.metric.goal == "maximize"
    assert rows(told) == [(0, "baseline", 1.0), (1, "keep", 2.0)]


def test_only_a_later_record_supersedes() -> None:
    files = {
        "1.json": record(1, "kept", 1, supersedes=[1, 2]),
        "2.json": record(2, "kept", 2),
        "3.json": record(3, "kept", 3, supersedes=["2", [1], None]),
    }
    told = read("autoimprove", files, "maximize")
    assert [e.superseded for e in told.entries] == [False, True, False]


def test_small_numbers_are_not_rounded_into_crashes() -> None:
    entries = (
        Entry(number=0, status="baseline", value=3.2e-7),
        Entry(number=1, status="keep", value=-1.25e-7),
    )
    told = History(name="old", metric=MetricSpec(name="v", goal="minimize"), entries=entries)
    for form in ("karpathy", "labclaw", "uditgoenka", "leo", "agenthub"):
        assert [e.value for e in back(form, told).entries] == [3.2e-7, -1.25e-7]


ODD: list[object] = [
    ["lower"],
    {"a": 1},
    "\ud800",
    "9" * 5000,
    10**400,
    -1,
    True,
    None,
    float("nan"),
    float("inf"),
    "[" * 200_000,
    "\x1b[31m",
]


@pytest.mark.parametrize("odd", ODD, ids=lambda o: repr(o)[:12])
def test_a_value_of_any_kind_is_read_or_refused(odd: object) -> None:
    """Every field of every JSON form holds it once: what comes out is a history or an error."""
    pi = {"run": 2, "commit": "a", "metric": 1, "status": "keep", "description": "d"}
    config = {"type": "config", "metricName": "m", "bestDirection": "lower", "metricUnit": "s"}
    made = {"id": 2, "title": "t", "status": "kept", "score": 1, "commit": "a", "supersedes": []}
    made |= {"reasoning": "r", "files_changed": [], "duration_s": 1, "timestamp": "2026"}
    coral = {"commit_hash": "a", "agent_id": "b", "title": "t", "score": 1, "status": "improved"}
    coral |= {"timestamp": "2026", "feedback": "f", "metadata": {"budget_class": "real"}}
    row = {"id": 1, "score": 1, "max_score": 2, "pass_rate": 1, "status": "keep"}

    def put(fields: dict[str, object], key: str) -> str:
        return json.dumps({**fields, key: odd})

    tried: list[tuple[str, Files]] = []
    tried += [("pi", {"log.jsonl": f'{{"run": 1}}\n{put(pi, key)}\n'}) for key in pi]
    tried += [("pi", {"log.jsonl": put(config, key) + '\n{"run": 1}\n'}) for key in config]
    first = record(1, "kept", 1)
    tried += [("autoimprove", {"1.json": first, "2.json": put(made, key)}) for key in made]
    tried += [("coral", {"a.json": put(coral, key)}) for key in coral]
    tried += [("skill", {"results.json": f'{{"experiments": [{put(row, k)}]}}'}) for k in row]
    handed = [{"handoff.json": put({"config": {}}, "config")}]
    handed += [{"handoff.json": f'{{"config": {put({}, k)}}}'} for k in ("metric", "scope")]
    tried += [("uditgoenka", {"x-results.tsv": UDITGOENKA, **more}) for more in handed]
    for form, files in tried:
        if not FORMS[form].known(files):
            continue
        try:
            told = FORMS[form].read(
                files, Asked("old", goal=None if form == "skill" else "maximize")
            )
        except UsageError:
            continue
        assert attempts(told) is not None
        told.model_dump_json().encode()


def test_long_numbers_and_texts_are_no_burden() -> None:
    digits = "9" * 5000
    head = "experiment_id\tcommit\tval_bpb\tstatus\tdescription\n"
    text = f"{head}{digits}\ta\t1\tkeep\tb\n{digits}\ta\t1e308\tkeep\t{'x' * 10**6}\n"
    told = read("karpathy", text + "3\ta\t-1e308\tkeep\ty\n")
    assert max(len(e.summary) for e in told.entries) == 2000
    assert [a.gain for a in attempts(told)] == [None, None], "no gain is infinite"
    assert not FORMS["agenthub"].known({"a.txt": "commit:a platform:" + " " * 10**6 + "x"})
    assert marks("(CRASH:" * 10**5 + "x").crash is None


# --- what is written is read back ----------------------------------------------------------------

EXACT = frozenset({"pi", "autoimprove", "skill"})
"""Forms that hold every digit; the others have six after the point."""
LOOPS = {"guard_failed": "guard_failed", "invalid": "invalid", "duplicate": "invalid"}
FINER: dict[str, dict[str, str]] = {
    "pi": {"guard_failed": "guard_failed"},
    "uditgoenka": LOOPS,
    "leo": LOOPS,
    "autoimprove": {v: v for v in ("guard_failed", "constraint_failed")},
}
"""What a form makes of verdicts beyond keep, discard and crash."""


def back(form: str, told: History) -> History:
    """Write a history and read it, as another tool's files."""
    write = FORMS[form].write
    assert write is not None
    files = {PurePosixPath(name).name: text for name, text in write(told).items()}
    assert all(text.endswith("\n") for text in files.values())
    found = {n: form for n, form in FORMS.items() if form.known(files)}
    # A summary beside a table must not make it another form; records are told apart by their keys.
    assert set(found) == {form}
    return FORMS[form].read(files, Asked("old", goal=told.metric.goal))


def check_same(form: str, told: History, again: History) -> None:
    assert [e.outcome for e in again.entries] == [e.outcome for e in told.entries]
    assert [e.status == "baseline" for e in again.entries] == [
        e.status == "baseline" for e in told.entries
    ]
    for ours, theirs in zip(told.entries, again.entries, strict=True):
        if (kept := FINER.get(form, {}).get(ours.status)) is not None:
            # leo has a number in every row, and what has none is a no-op.
            assert theirs.status == ("invalid" if form == "leo" and ours.value is None else kept)
    for ours, theirs in zip(told.entries, again.entries, strict=True):
        if ours.value is None or ours.outcome == "crash":
            assert theirs.value is None
        elif form in EXACT:
            assert theirs.value == pytest.approx(ours.value, rel=1e-12, abs=1e-12)
        else:
            assert theirs.value == pytest.approx(ours.value, abs=6e-7)
    before, after = tally(told), tally(again)
    assert after[:4] == before[:4]
    assert after.baseline == pytest.approx(before.baseline, abs=6e-7)
    assert after.best == pytest.approx(before.best, abs=6e-7)


EARLY = datetime(2000, 1, 1)  # noqa: DTZ001  hypothesis adds the zone
texts = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        ["", "a\tb\nc", "# x", "(DISCARD)", "x (CRASH: y)", "a | b", "(NOT MEASURED)", HOSTILE[:90]]
    ),
)


@st.composite
def entry(draw: st.DrawFn, number: int, values: st.SearchStrategy[float]) -> Entry:
    status = draw(st.sampled_from([v for v in VERDICTS if v != "aborted"]))
    value = draw(st.none() | values) if status != "keep" else draw(values)
    if status in ("crash", "timeout", "invalid", "duplicate"):
        value = None
    return Entry(
        number=number,
        status=status,
        value=value,
        commit=draw(st.none() | st.just("0123456789abcdef" * 2 + "01234567")),
        summary=draw(texts),
        rationale=draw(texts),
        reason=draw(texts),
        n=draw(st.integers(1, 9)),
        memory_gb=draw(st.none() | st.floats(0, 900)),
        at=draw(st.none() | st.datetimes(EARLY, timezones=st.just(UTC))),
    )


@st.composite
def histories(draw: st.DrawFn, values: st.SearchStrategy[float], form: str) -> History:
    goal = "maximize" if form == "skill" else draw(st.sampled_from(("minimize", "maximize")))
    spec = MetricSpec(name="val", goal=goal)
    begun = values if form == "leo" else st.none() | values
    base = Entry(number=0, status="baseline", value=draw(begun), commit="c" * 40)
    count = draw(st.integers(0, 6))
    steps = [draw(st.integers(1, 3)) for _ in range(count)]
    entries = [draw(entry(sum(steps[: i + 1]), values)) for i in range(count)]
    suite = draw(st.none() | st.integers(1, 50))
    return History(name="old", metric=spec, entries=(base, *entries), suite=suite)


@pytest.mark.parametrize("form", WRITTEN)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_round_trip_keeps_verdicts_and_values(form: str, data: st.DataObject) -> None:
    numbers = st.floats(0, 1) if form == "skill" else st.floats(-1e6, 1e6)
    told = data.draw(histories(numbers, form))
    check_same(form, told, back(form, told))


@pytest.mark.parametrize("form", [name for name in WRITTEN if name != "skill"])
def test_a_run_comes_back_from_every_form(form: str) -> None:
    told = of_run(morning().state, "main", ("train.py",))
    counts = Counter(e.outcome for e in told.experiments)
    assert counts == {"keep": 4, "discard": 6, "crash": 2}
    again = back(form, told)
    check_same(form, told, again)
    assert again.metric.goal == "minimize"
    assert tally(again).best == pytest.approx(2.829)


def test_no_share_is_no_skill_loop() -> None:
    told = of_run(morning().state, "main")
    with pytest.raises(UsageError, match="val_bpb is no share of checks that pass"):
        back("skill", told)


# --- what others make of it ----------------------------------------------------------------------


def written(form: str, told: History | None = None) -> Files:
    write: Callable[[History], Files] | None = FORMS[form].write
    assert write is not None
    return write(told or of_run(morning().state, "main", ("train.py",)))


def test_karpathys_reader_finds_its_columns_and_no_other() -> None:
    (text,) = written("karpathy").values()
    lines = [line.split("\t") for line in text.splitlines()]
    assert lines[0] == ["commit", "val_bpb", "memory_gb", "status", "description"]
    assert {len(line) for line in lines} == {5}
    assert {line[3] for line in lines[1:]} == {"keep", "discard", "crash"}
    assert [line[1:3] for line in lines if line[3] == "crash"] == [["0.000000", "0.0"]] * 2


def test_labclaws_summary_adds_up() -> None:
    files = written("labclaw")
    assert files["results.tsv"].startswith("commit\tmetric\tstatus\tdescription\n")
    assert files["results.tsv"].count("\tERR\tcrash\t") == 2
    said = files["summary.txt"]
    assert said.startswith("=== Autoresearch Summary ===\nBranch: swarm/tiny-gpt/best\n")
    assert "Experiments run: 12\nKept: 4\nDiscarded: 6\nCrashed: 2\n" in said
    assert re.search(r"^Best metric: 2\.829 \(improvement: \+0\.15\d*\)$", said, re.M)


def test_pis_status_reads_runs_metrics_and_confidence() -> None:
    (text,) = written("pi").values()
    lines = [json.loads(line) for line in text.splitlines()]
    assert lines[0]["bestDirection"] == "lower"
    assert [line["run"] for line in lines[1:]] == list(range(1, 14))
    assert {line["status"] for line in lines[1:]} == {"keep", "discard", "crash", "checks_failed"}
    assert [line["metric"] for line in lines if line.get("status") == "crash"] == [0, 0]
    assert lines[-1]["confidence"] > 0
    assert lines[1]["confidence"] is None
    reasons = [line.get("asi", {}).get("rollback_reason") for line in lines[1:]]
    assert reasons[7] == "the diff touches prepare.py, which is out of scope"
    kept = [line["status"] == "keep" for line in lines[1:]]
    assert not any(reason for reason, keep in zip(reasons, kept, strict=True) if keep)


def test_pi_can_go_on_where_a_run_ends() -> None:
    def ran(number: int, value: float, status: str = "keep") -> Entry:
        return Entry.model_validate({"number": number, "status": status, "value": value})

    entries = (ran(0, 3.0, "baseline"), ran(1, 2.0), ran(0, 2.5, "baseline"), ran(2, 2.4))
    spec = MetricSpec(name="m", goal="minimize")
    (text,) = written("pi", History(name="h", metric=spec, entries=entries)).values()
    runs = [line for line in map(json.loads, text.splitlines()) if "run" in line]
    assert [line["run"] for line in runs] == [1, 2, 3, 4], "pi counts on over segments"
    assert [line["segment"] for line in runs] == [0, 0, 1, 1]
    # Each of these would be asked for again in every run that pi adds.
    assert [line["metrics"] for line in runs] == [{}] * 4


def test_leos_scripts_take_its_log() -> None:
    """They know rows that count up by one, and nothing but numbers in `metric`."""
    text = written("leo", gaps())["autoresearch-results/results.tsv"]
    rows = [line.split("\t") for line in text.splitlines() if not line.startswith("#")][1:]
    assert [row[0] for row in rows] == ["0", "1", "2", "3", "4", "5"]
    assert all(Decimal(row[2]).is_finite() and Decimal(row[3]).is_finite() for row in rows)
    assert [row[2] for row in rows] == [f"{v:.6f}" for v in (3, 2, 2, 2, 2.5, 2)]
    assert [row[5] for row in rows] == ["baseline", "keep", "crash", "no-op", "discard", "no-op"]
    assert [row[3] for row in rows] == ["0", "-1.000000", "0", "0", "+0.500000", "0"]
    unmeasured = gaps().model_copy(
        update={"entries": (Entry(number=0, status="baseline"), *gaps().experiments)}
    )
    with pytest.raises(PreconditionError, match="the baseline has no value, and leo's log begins"):
        written("leo", unmeasured)


def gaps() -> History:
    """Give a history in which numbers are missing, and values."""

    def ran(number: int, value: float | None, status: str = "keep") -> Entry:
        return Entry.model_validate({"number": number, "status": status, "value": value})

    entries = (
        *(ran(0, 3.0, "baseline"), ran(2, 2.0), ran(3, None, "crash")),
        *(ran(5, None, "duplicate"), ran(8, 2.5, "discard"), ran(9, None, "guard_failed")),
    )
    return History(name="h", metric=MetricSpec(name="m", goal="minimize"), entries=entries)


@pytest.mark.parametrize("form", ["karpathy", "labclaw", "uditgoenka", "leo"])
def test_readers_that_know_quotes_find_every_row(form: str) -> None:
    """Readers go on, from a quote at a cell's start, over tabs and line ends."""
    entries = [
        Entry(number=n, status="baseline" if n == 0 else "keep", value=3.0 - n, summary=said)
        for n, said in enumerate(("start", '"a" is b', '"open', 'an "open', 'end"'))
    ]
    spec = MetricSpec(name="m", goal="minimize")
    files = written(form, History(name="h", metric=spec, entries=tuple(entries)))
    text = next(t for name, t in files.items() if name.endswith(".tsv"))
    lines = [line for line in text.splitlines(keepends=True) if not line.startswith("#")]
    told = [row[-1] for row in csv.reader(lines, delimiter="\t")]
    assert told == ["description", "start", "'a' is b", "'open", 'an "open', 'end"']


def test_pis_confidence_by_hand() -> None:
    def ran(number: int, value: float | None, status: str = "keep") -> Entry:
        return Entry.model_validate({"number": number, "status": status, "value": value})

    segment = [
        ran(0, 100.0, "baseline"),
        ran(1, 90.0),
        ran(2, 0.0, "discard"),
        ran(3, None, "crash"),
    ]
    assert confidence(segment, -1) is None, "two values above 0 are too few"
    segment.append(ran(4, 98.0, "discard"))
    # 100, 90, 98: the median is 98, the deviations 2, 8 and 0.
    assert confidence(segment, -1) == pytest.approx(10 / 2)
    assert confidence(segment, 1) is None, "nothing kept is higher than the baseline"


def test_a_folder_of_autoimprove_has_one_file_each() -> None:
    files = written("autoimprove")
    assert len(files) == 13
    said = [json.loads(text) for name, text in files.items() if "/experiments/" in name]
    assert [s["id"] for s in said] == list(range(1, 13))
    assert all((s["commit"] is None) == (s["status"] != "kept") for s in said)
    assert all(
        re.fullmatch(r"\.autoimprove/experiments/\d{3}-[a-z0-9-]+\.json", n)
        for n in list(files)[1:]
    )


def test_a_skill_loops_files_agree() -> None:
    entries = (
        Entry(number=0, status="baseline", value=0.5, n=2),
        Entry(number=1, status="keep", value=0.75, n=2, summary="an example", rationale="copied"),
        Entry(number=2, status="timeout", summary="too long"),
    )
    spec = MetricSpec(name="cases", goal="maximize")
    told = History(
        name="s", metric=spec, entries=entries, suite=8, breakdown=(("c1", 2, 2), ("c2", 1, 2))
    )
    files = written("skill", told)
    table = files["autoresearch-s/results.tsv"].splitlines()
    assert table[1] == "0\t8\t16\t50.0%\tbaseline\tbaseline"
    assert table[2] == "1\t12\t16\t75.0%\tkeep\tan example"
    assert table[3] == "2\t0\t8\t0.0%\tdiscard\ttoo long (CRASH: timeout)"
    said = json.loads(files["autoresearch-s/results.json"])
    assert (said["baseline_score"], said["best_score"], said["current_experiment"]) == (50, 75, 2)
    assert said["eval_breakdown"][1] == {"name": "c2", "pass_count": 1, "total": 2}
    ends = {
        phase: json.loads(written("skill", told.model_copy(update={"phase": phase}))[name])[
            "status"
        ]
        for phase in ("finished", "draining", "interrupted")
        for name in ("autoresearch-s/results.json",)
    }
    assert ends == {"finished": "complete", "draining": "running", "interrupted": "idle"}
    assert (
        "## Experiment 1 — keep\n\n**Score:** 12/16 (75.0%)" in files["autoresearch-s/changelog.md"]
    )
