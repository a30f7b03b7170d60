"""`results.tsv`: what is written is the family's table, and every dialect of it is read."""

from __future__ import annotations

from pathlib import Path

import pytest
import story
from story import HOSTILE, Story, begun, half_a_morning, morning

from swarm.errors import UsageError
from swarm.formats import results_tsv
from swarm.formats.results_tsv import parse

KARPATHY = """commit\tval_bpb\tmemory_gb\tstatus\tdescription
baseline\t0.997900\t44.0\tkeep\tbaseline
b2c3d4e\t0.993200\t44.2\tKEEP \tincrease LR to 0.04, with commas
c3d4e5f\t1.005000\t44.0\tdiscard\tswitch to GeLU
d4e5f6a\t0.000000\t0.0\tCrash\tdouble width (OOM)
"""


def test_the_first_columns_are_the_familys_own() -> None:
    lines = results_tsv.table(morning().state).splitlines()
    assert lines[0].split("\t")[:5] == ["commit", "val_bpb", "memory_gb", "status", "description"]
    assert lines[0].split("\t")[5:] == ["experiment", "agent", "n", "se", "seconds", "usd"]
    assert lines[1].split("\t")[1:6] == ["2.981000", "2.0", "keep", "baseline", "0"]
    assert len(lines[1].split("\t")[0]) == 7
    assert {len(line.split("\t")) for line in lines} == {11}


def test_verdicts_in_the_familys_words() -> None:
    state = morning().state
    rows = {int(r.extra["experiment"]): r for r in parse(results_tsv.table(state))}
    assert sorted(rows) == list(range(13))
    assert [rows[n].status for n in (1, 2, 3, 6)] == ["keep", "discard", "crash", "crash"]
    for number in (4, 7, 8, 11, 12):  # undecided, invalid, duplicate, guard, constraint
        assert rows[number].status == "discard"
    assert results_tsv.row(state, 3).split("\t")[1:4] == ["0.000000", "0.0", "crash"]
    assert rows[3].value is None
    assert rows[8].value is None, "a duplicate was not measured"
    assert rows[1].value == pytest.approx(2.91125)
    assert rows[1].extra["n"] == "4"
    assert rows[7].description.startswith("the diff touches prepare.py")


def test_nothing_unmeasured_can_win() -> None:
    rows = parse(results_tsv.table(morning().state))
    kept = [r.value for r in rows if r.status == "keep" and r.value is not None]
    everything = [r.value for r in rows if r.value is not None]
    assert min(kept) == pytest.approx(2.829)
    assert min(everything) > 2


def test_open_and_aborted_experiments_are_left_out() -> None:
    told = half_a_morning()
    told.decide(5, "aborted", "the machine died")
    numbers = [r.extra["experiment"] for r in parse(results_tsv.table(told.state))]
    assert numbers == ["0", "1", "2", "3"]


def test_appending_gives_the_table(tmp_path: Path) -> None:
    path = tmp_path / "results.tsv"
    told = begun()
    for i in range(4):
        number = told.propose("a1", f"change {i}")
        told.measure(number, 3.0 + i)
        told.decide(number, "discard", z=-5.0)
        results_tsv.append(path, told.state, number)
        assert path.read_text() == results_tsv.table(told.state)


def test_appending_repairs_a_torn_file(tmp_path: Path) -> None:
    path = tmp_path / "results.tsv"
    told = half_a_morning()
    path.write_text("commit\tval_bpb\tmem")
    results_tsv.append(path, told.state, 3)
    assert path.read_text() == results_tsv.table(told.state)
    path.write_text("")
    results_tsv.append(path, told.state, 3)
    assert path.read_text() == results_tsv.table(told.state)
    assert [p.name for p in tmp_path.iterdir()] == ["results.tsv"]


def test_no_row_before_the_baseline(tmp_path: Path) -> None:
    path = tmp_path / "results.tsv"
    told = Story()
    told.launch()
    first = told.propose("a1", "", invalid="empty")
    told.decide(first, "invalid", "empty")
    results_tsv.append(path, told.state, first)
    assert not path.exists()
    told.baseline(2.98, 2.99)
    second = told.propose("a1", "", invalid="empty")
    told.decide(second, "invalid", "empty")
    results_tsv.append(path, told.state, second)
    assert [r.extra["experiment"] for r in parse(path.read_text())] == ["0", "1", "2"]


def test_descriptions_cannot_break_the_table() -> None:
    told = begun()
    number = told.propose("a1", HOSTILE)
    told.measure(number, 3.1)
    told.decide(number, "discard")
    line = results_tsv.row(told.state, number)
    assert line.count("\t") == 10
    assert line.endswith("\n")
    assert line[:-1].replace("\t", "").isprintable()
    assert "\x1b" not in line
    assert "\u202e" not in line
    assert len(line) < 500
    assert "evil.example" not in line
    number = told.propose("a1", '"dropout" off')
    told.measure(number, 3.1)
    told.decide(number, "discard")
    # pandas and csv would read on from a quote at a cell's start.
    assert "\t'dropout' off\t" in results_tsv.row(told.state, number)


def test_memory_is_the_gpus_when_the_harness_tells() -> None:
    told = begun()
    number = told.propose("a1", "x")
    proposal = told.experiment(number).proposal
    assert proposal.commit
    assert proposal.tree
    values = told.value(3.0, peak_vram_mb=45056.0)
    told._measured(proposal.commit, proposal.tree, "candidate", number, **values)
    told.decide(number, "discard")
    assert results_tsv.row(told.state, number).split("\t")[2] == "44.0"


def test_karpathys_table() -> None:
    rows = parse(KARPATHY)
    assert [r.commit for r in rows] == ["baseline", "b2c3d4e", "c3d4e5f", "d4e5f6a"]
    assert [r.status for r in rows] == ["keep", "keep", "discard", "crash"]
    assert [r.value for r in rows] == [0.9979, 0.9932, 1.005, None]
    assert rows[3].memory_gb is None
    assert rows[1].description == "increase LR to 0.04, with commas"
    assert {r.metric for r in rows} == {"val_bpb"}


@pytest.mark.parametrize(
    ("header", "line", "metric", "value", "extra"),
    [
        (
            "experiment_id\tstatus\tval_bpb\tmemory_gb\tdescription",
            "e7\tkeep\t0.98\t44\tx",
            "val_bpb",
            0.98,
            {"experiment_id": "e7"},
        ),
        (
            "agent\tcommit\tval_bpb\tmemory_gb\tstatus\tdescription",
            "gpu3\tabc1234\t0.97\t44\tkeep\tx",
            "val_bpb",
            0.97,
            {"agent": "gpu3"},
        ),
        ("commit\tmetric\tstatus\tdescription", "abc1234\tERR\tcrash\tx", "metric", None, {}),
        (
            "session\tcommit\tp95\tquality_guard\tstatus\tdescription",
            "s1\tabc1234\t12.5\t0.99\tdiscard\tx",
            "p95",
            12.5,
            {"session": "s1", "quality_guard": "0.99"},
        ),
        (
            "commit\tval_bpb\tmemory_gb\tstatus\thypothesis\tdescription",
            "abc1234\t0.9\t1\tkeep\tbecause\tx",
            "val_bpb",
            0.9,
            {"hypothesis": "because"},
        ),
    ],
)
def test_dialects(
    header: str, line: str, metric: str, value: float | None, extra: dict[str, str]
) -> None:
    (row,) = parse(f"{header}\n{line}\n")
    assert (row.metric, row.value, row.extra) == (metric, value, extra)
    assert row.description == "x"


@pytest.mark.parametrize("name", ["seconds", "memory_gb", "status", "n"])
def test_a_metric_with_a_taken_name(name: str) -> None:
    told = story.Story(metric=name)
    told.launch()
    told.baseline(5.0, 5.5)
    table = results_tsv.table(told.state)
    if name in results_tsv.OWN:  # a reader by name finds the metric, once
        assert table.splitlines()[0].split("\t").count(name) == 1
    (row,) = parse(table)
    assert (row.metric, row.value, row.status) == (name, 5.25, "keep")
    assert row.memory_gb == 2.0


def test_odd_files() -> None:
    assert parse("") == []
    assert parse("\n# metric_direction: lower\n") == []
    with pytest.raises(UsageError, match="not a results table"):
        parse("hello\nworld\n")
    text = "\ufeff# metric_direction: lower_is_better\r\n" + KARPATHY.replace("\n", "\r\n") + "\r\n"
    assert parse(text) == parse(KARPATHY)
    stray = "commit\tm\tstatus\tdescription\nabc\t1\tkeep\ta\tb\x0cc\nabd\tnan\tkeep\nabe\n"
    rows = parse(stray)
    assert rows[0].description == "a\tb\x0cc"
    assert (rows[1].value, rows[2].status) == (None, "")
