"""Where runs lie, which one is meant, and how one is spoken to."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from swarm.errors import PreconditionError, UsageError
from swarm.rundir import RunDir, all_runs, find, runs_folder


def make(top: Path, name: str, age: float = 0.0) -> RunDir:
    run = RunDir(runs_folder(top) / name)
    run.path.mkdir(parents=True)
    run.ledger.write_text("")
    os.utime(run.ledger, (1e9 - age, 1e9 - age))
    return run


def test_without_a_name_the_newest_run_is_meant(tmp_path: Path) -> None:
    old, new = make(tmp_path, "zz", age=10), make(tmp_path, "aa")
    assert find(None, tmp_path) == new
    assert find("zz", tmp_path) == old
    assert [r.run for r in all_runs(tmp_path)] == ["aa", "zz"]


def test_runs_are_searched_upwards_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make(tmp_path, "demo")
    below = tmp_path / "src" / "deep"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert find(None) == RunDir(run.path.resolve())
    make(tmp_path / "src", "inner")
    assert find(None).run == "inner", "the nearest counts"


def test_a_run_directory_means_its_run_unless_another_is_named(tmp_path: Path) -> None:
    demo, other = make(tmp_path, "demo"), make(tmp_path, "other", age=10)
    assert find(None, demo.path) == demo
    assert find(None, other.path) == other
    assert find("demo", other.path) == demo
    copy = tmp_path / "elsewhere"
    demo.path.rename(copy)
    assert find(None, copy) == RunDir(copy), "a copy of a run can be looked at"


def test_a_run_in_the_making_is_not_seen(tmp_path: Path) -> None:
    make(tmp_path, "demo", age=10)
    make(tmp_path, ".making-x1")
    (runs_folder(tmp_path) / "empty").mkdir()
    assert [r.run for r in all_runs(tmp_path)] == ["demo"]


def test_what_is_not_there_is_said_with_what_is(tmp_path: Path) -> None:
    with pytest.raises(PreconditionError, match="no run found") as caught:
        find(None, tmp_path)
    assert "swarm launch" in (caught.value.hint or "")
    make(tmp_path, "demo")
    with pytest.raises(PreconditionError, match="no run `dmo`") as caught:
        find("dmo", tmp_path)
    assert "demo" in (caught.value.hint or "")


@pytest.mark.parametrize("name", ["../demo", "/etc", "", "Demo", "-x", "a b"])
def test_a_name_that_no_run_can_have_is_refused(tmp_path: Path, name: str) -> None:
    make(tmp_path, "demo")
    with pytest.raises(UsageError):
        find(name, tmp_path)


def test_requests_are_taken_once_in_their_order(tmp_path: Path) -> None:
    run = make(tmp_path, "demo")
    assert run.requests() == []
    for verb in ("pause", "resume", "stop"):
        run.request(verb)
    assert run.requests() == ["pause", "resume", "stop"]
    assert run.requests() == []


def test_what_is_not_a_request_is_thrown_away(tmp_path: Path) -> None:
    run = make(tmp_path, "demo")
    run.request("pause")
    control = run.path / "control"
    for name, text in {
        "1.json": "{",
        "2.json": "[]",
        "3.json": '{"verb": "rm -rf"}',
        "4.json": '{"verb": ["stop"]}',
        "5.json": "",
    }.items():
        (control / name).write_text(text)
    (control / "6.json").write_bytes(b"\xff\xfe")
    (control / ".half.json").write_text('{"verb": "stop"}')
    assert run.requests() == ["pause"]
    assert [p.name for p in control.iterdir()] == [".half.json"], "it may still be being written"


def test_all_paths_lie_in_the_run_directory(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "demo")
    places = [run.ledger, run.config, run.hub, run.logs, run.results, run.progress, run.summary]
    assert all(p.parent == run.path for p in (*places, run.ray_log))
    assert len(set(places)) == len(places)
    assert not run.exists()
