"""`swarm import` and `swarm export` as they are typed: what is found, kept, told and written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from story import Story, morning
from targets import CONFIG as TOY
from targets import git, launch_inline, make_config, make_repo
from test_family import KARPATHY, SKILL, UDITGOENKA

from swarm.cli import main
from swarm.config import RunConfig
from swarm.errors import ConfigError, PreconditionError
from swarm.formats.family import FORMS
from swarm.launch import open_run, warm_start
from swarm.ledger import Ledger, read
from swarm.rundir import RunDir, all_runs
from swarm.state import RunState

CONFIG = """
target:
  repo: .
  scope: [parts/]
  run: python3 -S -E measure.py
  metric: {{name: {metric}, goal: minimize}}
warm_start: {run}
"""


def warm(top: Path, run: str, metric: str = "val_bpb") -> RunConfig:
    return make_config(top, CONFIG.format(run=run, metric=metric))


@pytest.fixture
def top(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = make_repo(tmp_path / "repo")
    monkeypatch.chdir(made)
    return made


def swarm(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    shown = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, shown.out, shown.err


def test_a_history_starts_a_run(top: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (top / "results.tsv").write_text(KARPATHY)
    code, out, err = swarm(capsys, "import", "results.tsv", "--name", "march")
    assert code == 0
    assert out == (
        "karpathy history `march`: 4 experiments, 1 kept, 2 discarded, 1 crashed\n"
        "minimize val_bpb: baseline 0.9979, best 0.9932\n"
    )
    assert "read as a discard without a value" in err
    assert "warm_start: march" in err
    state = RunState(read(open_run(warm(top, "march")).rundir.ledger))
    told = {a.number: a for a in state.targets["main"].earlier}
    assert [(n, told[n].verdict) for n in sorted(told)] == [
        (1, "keep"),
        (2, "discard"),
        (3, "crash"),
        (4, "discard"),
    ]
    assert told[1].gain == pytest.approx(0.0047)
    assert told[2].gain == pytest.approx(-0.0118), "beside what was kept, not the baseline"
    assert told[3].gain is None
    assert state.targets["main"].attempts == [], "nothing of it is this run's own"


def test_a_history_is_no_run(top: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (top / "results.tsv").write_text(KARPATHY)
    assert swarm(capsys, "import", "results.tsv", "--name", "march")[0] == 0
    assert all_runs(top) == []
    for command in ("status", "experiments", "report"):
        code, _, err = swarm(capsys, command, "march")
        assert code == 3, err
    assert git(top, "status", "--porcelain", "--ignored=no") == "?? results.tsv"
    assert swarm(capsys, "clean", "--all", "--yes")[0] == 0
    assert (top / ".swarm" / "imported" / "march.json").exists()


def test_json_has_the_same(top: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (top / "x-results.tsv").write_text(UDITGOENKA)
    code, out, _ = swarm(capsys, "import", ".", "--metric", "coverage", "--dry-run", "--json")
    assert code == 0
    assert json.loads(out) == {
        "name": "x",
        "form": "uditgoenka",
        "source": "x-results.tsv",
        "metric": "coverage",
        "goal": "maximize",
        "unit": None,
        "experiments": 5,
        "kept": 1,
        "discarded": 3,
        "crashed": 1,
        "baseline": 80.0,
        "best": 82.5,
        "notes": [],
        "out": None,
    }
    assert not (top / ".swarm").exists(), "nothing was kept"


def test_what_the_repository_still_has_is_told_with_its_change(
    top: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = git(top, "rev-parse", "--short=7", "HEAD")
    part = next((top / "parts").iterdir())
    part.write_text("a new line\n" + part.read_text())
    git(top, "commit", "-qam", "try")
    commit = git(top, "rev-parse", "--short=7", "HEAD")
    table = "commit\tloss\tmemory_gb\tstatus\tdescription\n"
    table += (
        f"{base}\t3\t0\tkeep\tbaseline\n{commit}\t2\t0\tkeep\tmore\nfffffff\t4\t0\tdiscard\tx\n"
    )
    (top.parent / "results.tsv").write_text(table)
    words = ("import", top.parent / "results.tsv", "--goal", "lower", "--name", "old")
    assert swarm(capsys, *words)[0] == 0
    (told,) = warm_start(warm(top, "old", "loss"), top)
    assert "+a new line" in told.attempts[0].diff
    assert told.attempts[1].diff == ""


def test_growing_files_are_read_again_and_others_are_not_lost(
    top: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = top / "results.tsv", top / "other" / "results.tsv"
    second.parent.mkdir()
    first.write_text(KARPATHY)
    second.write_text(KARPATHY)
    assert swarm(capsys, "import", first, "--name", "h")[0] == 0
    first.write_text(KARPATHY + "f6a7b8c\t0.9\t44.0\tkeep\tmore\n")
    assert "5 experiments" in swarm(capsys, "import", first, "--name", "h")[1]
    code, _, err = swarm(capsys, "import", second, "--name", "h")
    assert code == 2
    assert "of another origin" in err


@pytest.mark.parametrize(
    ("files", "words", "said"),
    [
        ({}, ("nowhere",), "there is no `nowhere`"),
        ({}, (".",), "`.` is not, and does not hold, a results file of any form"),
        ({"a.txt": "nothing"}, ("a.txt",), "`a.txt` is not, and does not hold"),
        ({"results.tsv": KARPATHY}, (".", "--form", "karpaty"), "did you mean `karpathy`?"),
        ({"results.tsv": KARPATHY}, (".", "--form", "pi"), "does not hold, what pi writes"),
        ({"results.tsv": KARPATHY}, (".", "--name", "A B"), "'A B' is no name"),
        ({"results.tsv": KARPATHY}, (".", "--goal", "up"), "--goal is minimize or maximize"),
        ({"results.tsv": KARPATHY.split("b2")[0]}, (".",), "holds no experiment"),
        (
            {"results.tsv": KARPATHY, "x-results.tsv": UDITGOENKA},
            (".",),
            "holds 2 histories: karpathy (`results.tsv`), uditgoenka (`x-results.tsv`)",
        ),
        (
            {"a-results.tsv": UDITGOENKA, "b-results.tsv": UDITGOENKA},
            (".",),
            "holds 2 histories",
        ),
        (
            {"results.tsv": KARPATHY.replace("val_bpb", "speed")},
            (".",),
            "does not say whether a higher or a lower speed is better",
        ),
        ({"autoresearch.jsonl": '{"run": 1}\n', ".auto/prompt.md": "x"}, (".",), "is not, and"),
    ],
)
def test_what_cannot_be_imported_says_why(
    top: Path,
    capsys: pytest.CaptureFixture[str],
    files: dict[str, str],
    words: tuple[str, ...],
    said: str,
) -> None:
    for name, text in files.items():
        (top / name).parent.mkdir(exist_ok=True)
        (top / name).write_text(text)
    code, out, err = swarm(capsys, "import", *words)
    assert (code, out) == (2, "")
    assert said in err
    assert not (top / ".swarm").exists()


LEO = (
    "# metric_direction: lower\niteration\tcommit\tmetric\tdelta\tguard\tstatus\tdescription\n"
    "0\taaaaaaa\t9\t0\t-\tbaseline\tstart\n1\tbbbbbbb\t7\t-2\tpass\tkeep\tless\n"
)


@pytest.mark.parametrize(
    ("files", "form"),
    [
        ({"results.tsv": KARPATHY}, "karpathy"),
        ({"autoresearch/loop-1/x-results.tsv": UDITGOENKA}, "uditgoenka"),
        ({"autoresearch-results/results.tsv": LEO}, "leo"),
        ({"research-results.tsv": LEO, "notes.tsv": "a\tb\n"}, "leo"),
        ({"autoresearch-copy/results.tsv": SKILL, "autoresearch-copy/changelog.md": ""}, "skill"),
        ({".auto/log.jsonl": '{"run": 1}\n{"run": 2}\n'}, "pi"),
        ({"autoresearch.jsonl": '{"run": 1}\n{"run": 2}\n'}, "pi"),
        (
            {
                ".autoimprove/baseline.json": '{"score": 1, "commit": "x"}',
                ".autoimprove/experiments/001-a.json": '{"id": 1, "status": "kept", "score": 2}',
            },
            "autoimprove",
        ),
        (
            {
                ".coral/public/attempts/a.json": '{"commit_hash": "a", "status": "improved"}',
                "task.yaml": "grader:\n  direction: maximize\n",
            },
            "coral",
        ),
        ({"hub.txt": "commit:a platform:b val_bpb:1 vram_gb:1 | x\n" * 2}, "agenthub"),
    ],
)
def test_each_form_is_found_in_its_place(
    top: Path, capsys: pytest.CaptureFixture[str], files: dict[str, str], form: str
) -> None:
    for name, text in files.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(text)
    goal = ("--goal", "maximize") if form == "autoimprove" else ()
    code, out, err = swarm(capsys, "import", ".", *goal, "--json")
    assert code == 0, err + out
    said = json.loads(out)
    assert said["form"] == form
    assert said["experiments"] >= 1


# --- starting from it ---------------------------------------------------------------------------


def test_another_metric_is_refused(top: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (top / "results.tsv").write_text(KARPATHY)
    assert swarm(capsys, "import", ".", "--name", "march")[0] == 0
    with pytest.raises(ConfigError, match="history `march` was to minimize val_bpb") as caught:
        open_run(warm(top, "march", "loss"))
    assert "this run is to minimize loss" in (caught.value.hint or "")
    with pytest.raises(ConfigError, match="there is no run `april`") as caught:
        open_run(warm(top, "april"))
    assert "march" in (caught.value.hint or "")


def test_a_broken_history_is_refused(top: Path) -> None:
    folder = top / ".swarm" / "imported"
    folder.mkdir(parents=True)
    (folder / "march.json").write_text("{}")
    with pytest.raises(PreconditionError, match="it is no history"):
        open_run(warm(top, "march"))


def plant(top: Path, told: Story, name: str) -> RunDir:
    rundir = RunDir(top / ".swarm" / "runs" / name)
    rundir.path.mkdir(parents=True)
    with Ledger(rundir.ledger) as ledger:
        ledger.append([e.model_copy(update={"seq": -1, "at": None}) for e in told.events])
    return rundir


def test_a_run_and_a_history_of_one_name(top: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (top / "results.tsv").write_text(KARPATHY)
    plant(top, morning(), "taken")
    for more in ((), ("--dry-run",)):
        code, _, err = swarm(capsys, "import", ".", "--name", "taken", *more)
        assert code == 2
        assert "there is a run `taken` already" in err
    assert swarm(capsys, "import", ".", "--name", "later")[0] == 0
    plant(top, morning(), "later")
    with pytest.raises(ConfigError, match="there is a run `later`, and an imported history"):
        open_run(warm(top, "later"))
    assert swarm(capsys, "import", ".", "--name", "toy")[0] == 0
    with pytest.raises(PreconditionError, match="there is an imported history `toy`"):
        open_run(warm(top, "taken"))


def test_what_lies_around_a_history_does_not_matter(
    top: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (top / "results.tsv").write_bytes(b"\xef\xbb\xbf" + KARPATHY.replace("\n", "\r\n").encode())
    with open(top / "run.txt", "wb") as file:
        file.truncate(65 * 2**20)
    (top / "other.json").symlink_to("nowhere")
    code, out, err = swarm(capsys, "import", ".", "--dry-run")
    assert code == 0, err
    assert "4 experiments" in out
    code, _, err = swarm(capsys, "import", "run.txt")
    assert code == 2
    assert "larger than 64 MiB" in err


def test_a_line_end_of_old_within_a_row_is_no_line_end(
    top: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (top / "results.tsv").write_bytes(KARPATHY.replace("with commas", "with\rcommas").encode())
    code, out, _ = swarm(capsys, "import", ".", "--dry-run")
    assert code == 0
    assert "4 experiments, 1 kept" in out


def test_names_and_paths_have_a_limit(top: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (top / "results.tsv").write_text(KARPATHY)
    assert swarm(capsys, "import", ".", "--name", "x" * 300)[0] == 2
    code, _, err = swarm(capsys, "import", "x" * 5000)
    assert code == 3
    assert "cannot look at" in err


def test_to_look_at_a_history_no_repository_is_needed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results.tsv").write_text(KARPATHY)
    assert swarm(capsys, "import", ".", "--dry-run")[0] == 0
    assert swarm(capsys, "import", ".")[0] == 3


def test_a_growing_folder_keeps_its_name(top: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = top / "proj" / ".autoimprove" / "experiments"
    folder.mkdir(parents=True)
    for number in (1, 2):
        said = {"id": number, "status": "kept", "score": number}
        (folder / f"{number:03d}-x.json").write_text(json.dumps(said))
        _, out, _ = swarm(capsys, "import", "proj", "--goal", "maximize", "--json")
        assert json.loads(out)["name"] == "proj"


# --- writing ------------------------------------------------------------------------------------

SHORT = ("budget.experiments=4", "judge.baseline=2", "judge.confirm=1", "agents.0.count=1")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunState]:
    """A repository with a run in it that has come to its end."""
    top = make_repo(tmp_path_factory.mktemp("done"))
    return top, launch_inline(make_config(top, TOY, *SHORT))[1]


@pytest.mark.parametrize("form", [n for n, f in FORMS.items() if f.write and n != "skill"])
def test_a_run_is_exported_and_imported_again(
    done: tuple[Path, RunState], capsys: pytest.CaptureFixture[str], tmp_path: Path, form: str
) -> None:
    top, state = done
    out = tmp_path / "out"
    out.mkdir()
    assert swarm(capsys, "export", form, "--dir", top, "--out", out)[0] == 0
    goal = ("--goal", "minimize") if form not in ("pi", "uditgoenka", "leo") else ()
    words = ("--dir", top, "--name", "back", "--dry-run", "--json")
    code, said, err = swarm(capsys, "import", out, *goal, *words)
    assert code == 0, err + said
    found = json.loads(said)
    target = state.targets["main"]
    verdicts = target.verdicts
    crashed = verdicts["crash"] + verdicts["timeout"]
    rest = sum(verdicts.values()) - verdicts["keep"] - crashed - verdicts["aborted"]
    assert found["form"] == form
    assert (found["kept"], found["discarded"], found["crashed"]) == (
        verdicts["keep"],
        rest,
        crashed,
    )
    assert found["baseline"] == pytest.approx(target.primary(target.info.base).mean, abs=1e-6)
    code, _, err = swarm(capsys, "export", form, "--dir", top, "--out", out)
    assert code == 2
    assert "may be another tool's own" in err


def test_where_an_export_goes(
    done: tuple[Path, RunState], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    top, _ = done
    code, out, _ = swarm(capsys, "export", "karpathy", "--dir", top)
    assert code == 0
    assert out.startswith("commit\tloss\tmemory_gb\tstatus\tdescription\n")
    code, _, err = swarm(capsys, "export", "labclaw", "--dir", top)
    assert code == 2
    assert "labclaw is 2 files: results.tsv, summary.txt" in err
    code, out, _ = swarm(capsys, "export", "labclaw", "--dir", top, "--json")
    assert code == 0
    assert list(json.loads(out)["files"]) == ["results.tsv", "summary.txt"]
    assert swarm(capsys, "export", "karpathy", "--dir", top, "--out", tmp_path / "mine.tsv")[0] == 0
    assert (tmp_path / "mine.tsv").read_text().startswith("commit\tloss\t")
    code, _, err = swarm(capsys, "export", "skill", "--dir", top, "--out", tmp_path / "s")
    assert code == 2
    assert "is no share of checks that pass" in err
    assert not (tmp_path / "s").exists()


def test_a_viewer_that_wants_a_name_gets_it(
    done: tuple[Path, RunState], capsys: pytest.CaptureFixture[str]
) -> None:
    top, _ = done
    named = ("--dir", top, "--metric", "val_bpb")
    code, out, _ = swarm(capsys, "export", "karpathy", *named)
    assert code == 0
    assert out.startswith("commit\tval_bpb\tmemory_gb\tstatus\tdescription\n")
    code, out, _ = swarm(capsys, "export", "pi", *named)
    assert json.loads(out.splitlines()[0])["metricName"] == "val_bpb"
    code, _, err = swarm(capsys, "export", "program.md", *named)
    assert code == 2
    assert "--metric is for results" in err


def test_an_export_is_written_whole_or_not_at_all(
    done: tuple[Path, RunState], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    top, _ = done
    (tmp_path / "summary.txt").write_text("mine\n")
    assert swarm(capsys, "export", "labclaw", "--dir", top, "--out", tmp_path)[0] == 2
    assert not (tmp_path / "results.tsv").exists()
    theirs = tmp_path / ".autoimprove" / "experiments"
    theirs.mkdir(parents=True)
    (theirs / "099-theirs.json").write_text("{}")
    code, _, err = swarm(capsys, "export", "autoimprove", "--dir", top, "--out", tmp_path)
    assert code == 2
    assert "may be another tool's own" in err
    assert [p.name for p in theirs.iterdir()] == ["099-theirs.json"]


def test_a_config_has_no_results(top: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (top.parent / "c.yaml").write_text(TOY.replace("repo: .", "repo: repo"))
    code, _, err = swarm(capsys, "export", "pi", top.parent / "c.yaml")
    assert code == 2
    assert "a config has no results" in err
