"""The command line as people and programs meet it: real processes, real runs, real signals."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import typer
from story import HOSTILE, Story, half_a_morning, long_night, morning

from swarm import clean, commands, demo, views
from swarm.cli import app, main
from swarm.errors import PreconditionError
from swarm.ledger import Ledger
from swarm.records import Draining, Measured, Paused
from swarm.rundir import RunDir
from swarm.sandbox import probe

HEAVY = ("ray", "torch", "anthropic", "genai_prices", "git", "matplotlib", "numpy", "libcst")
SWARM = [sys.executable, "-m", "swarm"]


def swarm(
    *words: str, cwd: Path, input_: str | None = "", **env: str
) -> subprocess.CompletedProcess[str]:
    """Run a command line to its end."""
    return subprocess.run(
        [*SWARM, *words],
        cwd=cwd,
        env={**os.environ, **env},
        input=input_,
        capture_output=True,
        text=True,
        timeout=60,
    )


def begin(*words: str, cwd: Path, **env: str) -> subprocess.Popen[str]:
    """Start a command line and go on."""
    return subprocess.Popen(
        [*SWARM, *words],
        cwd=cwd,
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


class Call(NamedTuple):
    """What came of a command line."""

    code: object
    out: str
    err: str


Caller = Callable[..., Call]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Caller:
    """Run a command line in this process: the same code, without the time to start Python."""

    def call(*words: str, cwd: Path, **env: str) -> Call:
        with monkeypatch.context() as patch:
            patch.chdir(cwd)
            for name, value in env.items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as ended:
                main(words)
        return Call(ended.value.code, *capsys.readouterr())

    return call


def tell(top: Path, story: Story, name: str = "tiny-gpt") -> RunDir:
    """Lay a run directory down as if the story had happened here."""
    rundir = RunDir(top / ".swarm" / "runs" / name)
    rundir.logs.mkdir(parents=True)
    lines = [e.model_dump_json(exclude_none=True) + "\n" for e in story.events]
    rundir.ledger.write_text("".join(lines))
    for event in story.events:
        if isinstance(event, Measured):
            log = rundir.path / event.measurement.log
            log.parent.mkdir(exist_ok=True)
            log.write_text(f"val_bpb: {log.name}\n")
    return rundir


@pytest.fixture
def told(tmp_path: Path) -> Path:
    """A directory with a finished run in it."""
    tell(tmp_path, morning())
    return tmp_path


# --- shape and weight ---------------------------------------------------------------------------


def test_every_command_takes_json_and_shows_an_example() -> None:
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        assert f"Example: swarm {name}" in (command.help or ""), name
        assert any("--json" in parameter.opts for parameter in command.params), name


@pytest.mark.parametrize(
    ("words", "code"), [(["schema"], 0), (["statsu"], 2), (["status"], 3), (["--help"], 0)]
)
def test_a_real_process_ends_with_the_code(tmp_path: Path, words: list[str], code: int) -> None:
    done = swarm(*words, cwd=tmp_path)
    assert done.returncode == code
    assert bool(done.stdout) == (code == 0)
    assert bool(done.stderr) == (code != 0)


def test_importing_the_command_line_loads_nothing_heavy(tmp_path: Path) -> None:
    heavy = (*HEAVY, "pydantic", "rich", "yaml", "psutil")
    code = f"import sys, swarm.cli; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("words", [["status"], ["experiments"], ["show", "1"], ["logs", "1"]])
def test_looking_at_a_run_loads_nothing_heavy(told: Path, words: list[str]) -> None:
    code = (
        "import sys\nfrom swarm.cli import main\n"
        f"try: main({words!r})\n"
        f"finally: print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=told, capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stderr.strip() == "[]"


def test_help_costs_little_more_than_its_library(tmp_path: Path) -> None:
    def cpu_s(*command: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, cwd=tmp_path, stdout=subprocess.DEVNULL, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    library = min(cpu_s(sys.executable, "-c", "import typer") for _ in range(5))
    assert min(cpu_s(*SWARM, "--help") for _ in range(5)) < 4 * library


def test_version(tmp_path: Path) -> None:
    assert swarm("--version", cwd=tmp_path).stdout.startswith("swarm 0.")


# --- what is refused ----------------------------------------------------------------------------

GOOD = """\
target:
  scope: [x.py]
  run: python3 x.py
  metric: {name: loss, goal: minimize}
"""


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["launch", "nowhere.yaml"], 2, "nowhere.yaml: no such file"),
        (["launch", "wrong.yaml"], 2, "wrong.yaml:4:30: "),
        (["launch", "good.yaml", "--name", "../x"], 2, "cannot be used"),
        (["launch", "good.yaml", "--set", "nonsense"], 2, "nonsense"),
        (["launch", "good.yaml"], 3, "not in a git repository"),
        (["launch", "good.yaml", "--dry-run"], 3, "not in a git repository"),
        (["launch", "."], 2, "there is nothing here to launch; looked for swarm.yaml, improve.md"),
        (["status"], 3, "no run found at or above"),
        (["statsu"], 2, "Did you mean 'status'?"),
        (["status", "--jsn"], 2, "--json"),
        (["show"], 2, "Missing argument 'N'"),
        (["show", "one"], 2, "valid integer"),
    ],
)
def test_bad_input(call: Caller, tmp_path: Path, words: list[str], code: int, said: str) -> None:
    (tmp_path / "good.yaml").write_text(GOOD)
    (tmp_path / "wrong.yaml").write_text(GOOD.replace("minimize", "lower"))
    done = call(*words, cwd=tmp_path)
    assert (done.code, done.out) == (code, "")
    assert said in done.err
    assert done.err.startswith("swarm: ")
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["status", "other"], 3, "there are: tiny-gpt"),
        (["status", "../x"], 2, "not a run id"),
        (["show", "99"], 2, "there are 1 to 12"),
        (["diff", "99"], 2, "there are 1 to 12"),
        (["diff", "7"], 3, "has no commit"),
        (["diff", "1"], 3, "is gone"),
        (["logs", "7"], 3, "was never measured"),
        (["experiments", "--verdict", "kept"], 2, "keep, discard"),
        (["pause"], 3, "no process carries it out"),
        (["watch"], 3, "config.json"),
        (["clean"], 2, "--yes"),
    ],
)
def test_bad_input_with_a_run(
    call: Caller, told: Path, words: list[str], code: int, said: str
) -> None:
    done = call(*words, cwd=told)
    assert done.code == code
    assert said in done.err


@pytest.mark.parametrize(
    ("words", "code", "kind"),
    [
        (["launch", "wrong.yaml", "--json"], 2, "config"),
        (["status", "--json"], 3, "precondition"),
        (["statsu", "--json"], 2, "usage"),
    ],
)
def test_errors_are_json_where_json_was_asked_for(
    call: Caller, tmp_path: Path, words: list[str], code: int, kind: str
) -> None:
    (tmp_path / "wrong.yaml").write_text(GOOD.replace("minimize", "lower"))
    done = call(*words, cwd=tmp_path)
    error = json.loads(done.out)["error"]
    assert done.code == code
    assert set(error) == {"kind", "message", "hint", "path", "line"}
    assert error["kind"] == kind
    if kind == "config":
        assert error["line"] == 4
    assert done.err == ""


def test_a_fault_of_our_own_keeps_its_traceback(
    call: Caller, told: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_down(*_: object, **__: object) -> None:
        raise ZeroDivisionError("by design")

    monkeypatch.setattr(commands, "status", break_down)
    done = call("status", "--json", cwd=told)
    assert done.code == 1
    assert json.loads(done.out)["error"]["kind"] == "unexpected"
    assert "Traceback" in done.err
    assert "by design" in done.err


# --- looking ------------------------------------------------------------------------------------


def test_json_is_what_the_views_say(call: Caller, told: Path) -> None:
    state = morning().state
    found = json.loads(call("experiments", "--json", cwd=told).out)
    assert found == views.experiments_json(state)
    found = json.loads(call("show", "9", "--json", cwd=told).out)
    assert found == views.experiment_json(state, 9)
    status = json.loads(call("status", "--json", cwd=told).out)
    assert status["state"] == "finished"
    assert status["dir"] == str(told / ".swarm" / "runs" / "tiny-gpt")


def test_a_report_in_three_forms(call: Caller, told: Path) -> None:
    text = call("report", cwd=told).out
    assert text.startswith("# Report on run `tiny-gpt`\n\nThe run is **finished**")
    data = json.loads(call("report", "--json", cwd=told).out)
    assert data["targets"][0]["headline"]["fresh"]["gain"] == pytest.approx(0.156)
    assert data["spend"]["experiments"] == 12
    made = call("report", "--html", "--out", "page.html", cwd=told)
    assert made.out == ""
    assert "wrote page.html" in made.err
    page = (told / "page.html").read_text()
    assert page.startswith("<!DOCTYPE html>")
    assert "data:image/png;base64," in page


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--html", "--json"], 2, "two forms of one report"),
        (["--out", "no/such/place.md"], 3, "cannot write no/such/place.md"),
    ],
)
def test_a_report_that_cannot_be(
    call: Caller, told: Path, words: list[str], code: int, said: str
) -> None:
    done = call("report", *words, cwd=told)
    assert done.code == code
    assert said in done.out + done.err


def test_status_for_a_person(call: Caller, told: Path) -> None:
    text = call("status", cwd=told).out
    assert "val_bpb" in text
    assert "tried     12: 4 keep, 2 discard, 1 crash" in text
    assert "open to candidates: files, network" in text


def test_a_run_directory_works_wherever_it_is(
    call: Caller, told: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    moved = tmp_path_factory.mktemp("elsewhere") / "copy"
    (told / ".swarm" / "runs" / "tiny-gpt").rename(moved)
    away = tmp_path_factory.mktemp("away")
    assert "tiny-gpt" in call("status", "--dir", str(moved), cwd=away).out
    assert "log" in call("show", "1", "--dir", str(moved), cwd=away).out
    assert "experiment" in call("show", "1", cwd=moved).out


def test_the_newest_run_is_meant(call: Caller, tmp_path: Path) -> None:
    old = tell(tmp_path, morning(), "old")
    tell(tmp_path, half_a_morning(), "new")
    os.utime(old.ledger, (1, 1))
    below = tmp_path / "deep" / "down"
    below.mkdir(parents=True)
    found = json.loads(call("status", "--json", cwd=below).out)
    assert found["state"] == "interrupted"
    found = json.loads(call("show", "12", "--run", "old", "--json", cwd=below).out)
    assert found["number"] == 12


def test_a_narrow_terminal_is_enough(call: Caller, told: Path) -> None:
    for words in (["experiments"], ["status"], ["clean", "--dry-run"]):
        lines = call(*words, cwd=told, COLUMNS="44").out.splitlines()
        assert lines
        assert max(map(len, lines)) <= 44, words


def test_strangers_command_no_terminal(call: Caller, tmp_path: Path) -> None:
    story = half_a_morning()
    number = story.propose("a3", HOSTILE)
    story.fail(number, "crash", HOSTILE, HOSTILE)
    story.decide(number, "crash", HOSTILE)
    tell(tmp_path, story)
    for words in (["experiments"], ["show", str(number)]):
        for more in ([], ["--json"]):
            out = call(*words, *more, cwd=tmp_path, COLUMNS="100").out
            assert "MemoryError" in out or "markup" in out
            assert not any(c in out for c in "\x1b\r\u202e"), words


def test_a_reader_may_leave(tmp_path: Path) -> None:
    tell(tmp_path, long_night(400))
    with begin("watch", "--json", cwd=tmp_path) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["kind"] == "run_started"
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 0


def test_logs(call: Caller, told: Path) -> None:
    assert call("logs", "4", cwd=told).out == "val_bpb: candidate-1.log\n"
    every = call("logs", "4", "--all", cwd=told).out
    assert "==> candidate-0.log <==" in every
    assert "==> control" in every or "==> candidate-1.log <==" in every
    never = call("logs", "7", cwd=told)
    assert (never.code, "experiment 7 was never measured: it is `invalid`" in never.err) == (
        3,
        True,
    )
    base = json.loads(call("logs", "0", "--all", "--json", cwd=told).out)
    assert [log["purpose"] for log in base[:5]] == ["baseline"] * 5


# --- a run that lives ---------------------------------------------------------------------------


@pytest.fixture
def living(tmp_path: Path) -> Iterator[tuple[RunDir, Ledger, Story]]:
    """A run whose coordinator is this test: it holds the ledger."""
    story = half_a_morning()
    rundir = tell(tmp_path, story)
    with Ledger(rundir.ledger) as ledger:
        yield rundir, ledger, story


def test_logs_are_followed_to_the_verdict(living: tuple[RunDir, Ledger, Story]) -> None:
    rundir, ledger, story = living
    process = begin("logs", "5", "--follow", cwd=rundir.path)
    time.sleep(1.0)
    before = len(story.events)
    story.measure(5, 2.8)
    story.decide(5, "keep", "better")
    folder = rundir.logs / "5"
    folder.mkdir()
    (folder / "candidate-0.log").write_text("val_bpb: 2.8\n")
    ledger.append(story.events[before:])
    out, err = process.communicate(timeout=20)
    assert out == "==> candidate-0.log <==\nval_bpb: 2.8\n"
    assert "experiment 5: keep: better" in err
    assert process.returncode == 0


def answer(rundir: RunDir, ledger: Ledger) -> None:
    """Do what is asked, as a coordinator does."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for verb in rundir.requests():
            ledger.append([Paused() if verb == "pause" else Draining(reason=verb)])
            return
        time.sleep(0.05)


def test_requests_are_answered(call: Caller, living: tuple[RunDir, Ledger, Story]) -> None:
    rundir, ledger, _ = living
    for verb, state in (("pause", "paused"), ("stop", "draining")):
        thread = threading.Thread(target=answer, args=(rundir, ledger))
        thread.start()
        done = call(verb, "--json", cwd=rundir.path)
        thread.join()
        found = json.loads(done.out)
        assert (done.code, found["state"], found["answered"]) == (0, state, True)
    assert call("stop", cwd=rundir.path).out == "run tiny-gpt is draining\n"  # no error twice
    assert call("pause", cwd=rundir.path).code == 3


def test_stopping_what_is_over_is_no_error(call: Caller, told: Path) -> None:
    done = call("stop", cwd=told)
    assert (done.code, done.out) == (0, "run tiny-gpt is finished\n")


# --- launching ----------------------------------------------------------------------------------

MEASURE = """\
import time
from x import VALUE
time.sleep(0.01)
print(f"loss: {abs(VALUE - 3)}")
"""
CONFIG = """\
target:
  scope: [x.py]
  run: python3 measure.py
  metric: {name: loss, goal: minimize}
  slot: {count: 1}
agents: [{count: 1, proposer: mutate}]
judge: {baseline: 2, confirm: 2}
budget: {experiments: 4}
"""


def make_repository(top: Path, measure: str = MEASURE) -> Path:
    top.mkdir(parents=True, exist_ok=True)
    files = {"x.py": "VALUE = 10\n", "measure.py": measure, "toy.yaml": CONFIG}
    for name, text in files.items():
        (top / name).write_text(text)
    who = ("-c", "user.name=user", "-c", "user.email=user@example.invalid")
    for words in (["init", "-q", "-b", "main"], ["add", "-A"], [*who, "commit", "-qm", "base"]):
        subprocess.run(["git", *words], cwd=top, check=True)
    return top


def test_from_launch_to_clean(tmp_path: Path) -> None:
    top = make_repository(tmp_path / "repository")
    plan = json.loads(swarm("launch", "toy.yaml", "--dry-run", "--json", cwd=top).stdout)
    assert plan["plan"]["files"] == ["x.py"]
    assert not (top / ".swarm").exists()

    done = swarm("launch", "toy.yaml", "--inline", "--json", cwd=top)
    assert done.returncode == 0, done.stderr
    launched, ended = map(json.loads, done.stdout.splitlines())
    assert (launched["event"], launched["run"]) == ("launched", "toy")
    assert ended["status"]["state"] == "finished"
    assert Path(ended["files"]["results.tsv"]).exists()
    assert ("open to candidates are" in done.stderr) == (probe("auto").warning is not None)

    again = swarm("launch", "toy.yaml", "--inline", "--name", "toy", cwd=top)
    assert again.returncode == 0
    assert "finished" in again.stdout
    assert "swarm apply toy" in again.stderr

    keeps = json.loads(swarm("experiments", "--verdict", "keep", "--json", cwd=top).stdout)
    patch = swarm("diff", str(keeps[0]["number"]), cwd=top).stdout
    assert "-VALUE = 10" in patch
    assert swarm("apply", "--onto", "won", cwd=top).returncode == 0
    assert "fast-forwarded" in swarm("apply", cwd=top).stdout
    assert (top / "x.py").read_text() != "VALUE = 10\n"

    rundir = RunDir(top / ".swarm" / "runs" / "toy")
    assert clean.scratch_of(rundir).is_dir()
    gone = json.loads(swarm("clean", "--yes", "--json", cwd=top).stdout)
    assert gone["freed_bytes"] > 0
    assert not rundir.path.exists()
    assert not clean.scratch_of(rundir).exists()


def test_a_base_that_cannot_be_measured_leaves_nothing(tmp_path: Path) -> None:
    top = make_repository(tmp_path / "repository", "raise SystemExit('no \\x1b[31m luck')\n")
    done = swarm("launch", "toy.yaml", "--inline", cwd=top)
    assert done.returncode == 3
    assert "luck" in done.stderr
    assert "\x1b" not in done.stderr
    assert list((top / ".swarm" / "runs").iterdir()) == []
    assert list(Path(os.environ["SWARM_SCRATCH"]).iterdir()) == []


def test_the_last_lines_of_a_run_are_told_once(tmp_path: Path) -> None:
    top = make_repository(tmp_path / "repository")
    bad = {"summary": "outside", "files": {"measure.py": "\n"}}
    patches = [tmp_path / f"{index}.json" for index in range(6)]
    for patch in patches:
        patch.write_text(json.dumps(bad))
    proposer = {"kind": "scripted", "patches": [str(patch) for patch in patches]}
    agents = f"agents={json.dumps([{'count': 1, 'proposer': proposer}])}"
    more = ("--set", agents, "--set", "budget.experiments=6")
    done = swarm("launch", "toy.yaml", "--inline", *more, cwd=top)
    lines = done.stderr.splitlines()
    assert done.returncode == 4, done.stderr
    assert sum("] #5 a1 invalid  " in line for line in lines) == 1
    assert sum("] a1 parked  5 invalid proposals" in line for line in lines) == 1
    assert "  agents  1 scripted; slots 1 with 1 CPU each" in lines
    assert sum("% of the budget is used" in line for line in lines) == 1


def await_event(process: subprocess.Popen[str], rundir: RunDir, kind: str, times: int = 1) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        if rundir.exists() and rundir.ledger.read_text().count(f'"kind":"{kind}"') >= times:
            return
        time.sleep(0.1)
    raise AssertionError(process.communicate())


def test_signals_leave_a_run_that_can_be_resumed(tmp_path: Path) -> None:
    top = make_repository(tmp_path / "repository", MEASURE.replace("0.01", "0.2"))
    rundir = RunDir(top / ".swarm" / "runs" / "toy")
    endless = ["launch", "toy.yaml", "--inline", "--set", "budget.experiments=1000"]

    process = begin(*endless, cwd=top)
    await_event(process, rundir, "proposed")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert "again to stop at once" in err
    assert "resume it: swarm launch toy.yaml" in err
    assert json.loads(swarm("status", "--json", cwd=top).stdout)["state"] == "interrupted"

    process = begin(*endless, cwd=top)
    await_event(process, rundir, "launched", 2)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 143, (out, err)

    more = ["--set", "budget.experiments=3"]
    done = swarm("launch", "toy.yaml", "--inline", *more, cwd=top)
    assert done.returncode == 0
    assert "resuming run toy" in done.stderr


# --- housekeeping -------------------------------------------------------------------------------


def test_clean_spares_what_may_be_needed(call: Caller, tmp_path: Path) -> None:
    for name, story in (("done", morning()), ("open", half_a_morning()), ("busy", morning())):
        tell(tmp_path, story, name)
        clean.scratch_of(RunDir(tmp_path / ".swarm" / "runs" / name)).mkdir()
    runs = tmp_path / ".swarm" / "runs"

    def left() -> set[str]:
        return {path.name for path in runs.iterdir()}

    with Ledger(runs / "busy" / "ledger.jsonl"):
        call("clean", "--all", "--dry-run", cwd=tmp_path)
        assert left() == {"done", "open", "busy"}
        call("clean", "--yes", "--keep-gb", "1", cwd=tmp_path)
        assert left() == {"done", "open", "busy"}
        assert [p.name[:5] for p in clean.scratch_root().iterdir()] == ["busy-"]
        call("clean", "--yes", cwd=tmp_path)
        assert left() == {"open", "busy"}
        assert call("clean", "busy", "--all", "--yes", cwd=tmp_path).code == 3
        call("clean", "--all", "--yes", cwd=tmp_path)
        assert left() == {"busy"}


def test_doctor(tmp_path: Path) -> None:
    done = swarm("doctor", "--json", cwd=tmp_path)
    found = json.loads(done.stdout)
    assert done.returncode == (0 if found["ok"] else 3)
    assert {"python", "git", "ray", "cpus", "gpus", "scratch"} <= {
        finding["name"] for finding in found["findings"]
    }
    without_git = swarm("doctor", cwd=tmp_path, PATH=str(tmp_path))
    assert without_git.returncode == 3
    assert "install git" in without_git.stdout


def test_schema(call: Caller, tmp_path: Path) -> None:
    assert json.loads(call("schema", cwd=tmp_path).out)["title"] == "swarm config"


def test_a_demo_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundled = tmp_path / "bundled"
    for name, text in {
        "harness/gpt/train.py": "LR = 1\n",
        "harness/gpt/__pycache__/train.pyc": "",
        "configs/demo.yaml": "target:\n  repo: ../harness/gpt  # here\n  scope: [train.py]\n",
    }.items():
        (bundled / name).parent.mkdir(parents=True, exist_ok=True)
        (bundled / name).write_text(text)
    monkeypatch.setattr(demo, "bundled", lambda name: bundled / name)
    config = demo.prepare(tmp_path / "demo")
    assert config.read_text() == "target:\n  repo: .\n  scope: [train.py]\n"
    assert (tmp_path / "demo" / ".git").is_dir()
    assert not (tmp_path / "demo" / "__pycache__").exists()
    (tmp_path / "demo" / "train.py").write_text("LR = 2\n")
    assert demo.prepare(tmp_path / "demo") == config
    assert (tmp_path / "demo" / "train.py").read_text() == "LR = 2\n"
    with pytest.raises(PreconditionError, match="is no swarm demo"):
        demo.prepare(tmp_path)
