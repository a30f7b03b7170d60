"""The live view: a line for each event that matters, or a panel that fits its terminal."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text
from story import HOSTILE, Story, begun, half_a_morning, long_night, morning
from suite_story import BASELINE, SuiteStory, evening

from swarm.config import RunConfig
from swarm.formats.text import count, duration, number, one_line, sanitise, signed
from swarm.live import LiveView, panel, plain_line
from swarm.records import (
    AnyEvent,
    Failure,
    Parked,
    Proposal,
    Repaired,
    Sealed,
    Waiting,
    WarmStarted,
    Warned,
)
from swarm.rundir import RunDir
from swarm.state import RunState

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def config(**budget: float) -> RunConfig:
    target: dict[str, Any] = {
        "scope": ["train.py"],
        "run": "python train.py",
        "metric": {"name": "val_bpb", "goal": "minimize"},
    }
    return RunConfig.model_validate({"target": target, "budget": budget})


def lines_of(told: Story) -> list[str]:
    state, lines = RunState(), list[str]()
    for event in told.events:
        state.apply(event)
        line = plain_line(event, state, UTC)
        if line is not None:
            lines.append(line)
    return lines


def shown(told: Story, *, width: int = 100, height: int = 40, **budget: float) -> str:
    console = Console(width=width, height=height, file=io.StringIO(), record=True)
    made = panel(
        told.state, config(**budget), [Text("a line")], now=told.now, width=width, height=height
    )
    console.print(made)
    return console.export_text()


def write(path: Path, events: Iterable[AnyEvent]) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.writelines(e.model_dump_json(exclude_none=True) + "\n" for e in events)


# --- safe text ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hostile", "harmless"),
    [
        ("plain text, ünïcode ✓ 漢字", "plain text, ünïcode ✓ 漢字"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b[2J\x1b[Hcleared", "cleared"),
        ("\x9b31mred", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x9d0;title\x9ctext", "text"),
        ("\x1bPq#0\x1b\\sixel", "sixel"),
        ("\x1b]0;never ended", "0;never ended"),
        ("\x1b\x1b[0m[31mtwice", "[31mtwice"),
        ("\x1bcreset", "reset"),
        ("\x1b(0line", "line"),
        ("\x1b\x00[31mred\x1b[\u202e0m", "red"),
        ("\x1b[38;5;196mred\x1b[0;1m", "red"),
        ("end\x1b", "end"),
        ("end\x1b[", "end"),
        ("a\x00b\x07c\x08d\x7fe\x85f", "abcdef"),
        ("gnp.\u202eexe\u2066x\u2069\u200f", "gnp.exex"),
        ("a\r\nb\rc\td", "a\nb\nc\td"),
        ("lone \ud800 surrogate", "lone \ufffd surrogate"),
        ("tag\U000e0041ged\ufeff\u2028", "tagged"),
        ("[red]markup[/]", "[red]markup[/]"),
    ],
)
def test_sanitise(hostile: str, harmless: str) -> None:
    assert sanitise(hostile) == harmless
    assert sanitise(sanitise(hostile)) == sanitise(hostile)
    sanitise(hostile).encode()


def test_sanitising_takes_no_time() -> None:
    for piece in ("\x1b[", "\x1b]", "\x1b[1;", "\x9d", "\x1b ", "\r"):
        sanitise(piece * 200_000)
    sanitise("\x1b[" + "1;" * 200_000)


def test_one_line() -> None:
    assert one_line("a\n\n b\t\tc ") == "a b c"
    assert one_line("abcdef", 4) == "abc…"
    assert one_line("abcd", 4) == "abcd"
    assert len(one_line(HOSTILE * 100, 80)) == 80


def test_numbers_for_people() -> None:
    assert [number(v) for v in (2.98123456, 1e-9, 0.0, -0.0, None, float("nan"))] == [
        "2.98123", "1e-09", "0", "0", "—", "—",
    ]  # fmt: skip
    assert [signed(v, 3) for v in (0.0512, -2.0, -0.0, None)] == ["+0.0512", "-2", "+0", "—"]
    assert [duration(s) for s in (0, 42.4, 200, 3600, 25_500, 187_200, -3)] == [
        "0s", "42s", "3m 20s", "1h", "7h 5m", "2d 4h", "0s",
    ]  # fmt: skip
    assert [count(n) for n in (812, 4_200, 1_300_000)] == ["812", "4.2k", "1.3M"]


# --- plain lines -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "launched  3 agents, 2 slots, sandbox process",
        "baseline  val_bpb 2.981",
        "baseline  val_bpb 2.977  (mean 2.981, sd 0.007, n=5)",
        "#1 a1 keep  val_bpb 2.981 -> 2.911 (z=+9.1)  LEARNING_RATE 0.001 -> 0.002 in train.py",
        "#2 a2 discard  val_bpb 2.981 -> 3.012 (z=-4.0)  DEPTH 4 -> 6 in train.py",
        "#3 a3 crash  exit status 1  BATCH 16 -> 4096 in train.py",
        "#7 a3 invalid  the diff touches prepare.py, which is out of scope",
        "best is now #1 a1 (fast-forward, c981645)  val_bpb 2.911 (gain +0.07, +2.35 %)",
        "best is now #9 a3 (stacked, 2c5d3ac)  val_bpb 2.824 (gain +0.157, +5.27 %)",
        "#10 a2 not merged  conflict: train.py line 12; it is tried again on the next best",
        "#10 a2 not merged  conflict: train.py line 12",
        "draining  budget: 12 experiments",
        "final base  val_bpb 2.98",
        "final best  val_bpb 2.824",
        "finished  budget reached; best - base = +0.156 ± 0.0027 (n=5+5)",
    ],
)
def test_a_line_for_each_event_that_matters(line: str) -> None:
    lines = lines_of(morning())
    assert line in [ln.split("] ", 1)[1] for ln in lines]
    assert lines[0].startswith("[12:00:00] launched")


def test_the_rest_of_the_life_of_a_run() -> None:
    told = half_a_morning()
    told.add(Parked(agent="a2", reason="5 invalid proposals in a row"))
    told.interrupt()
    told.launch()
    told.give_up("the base cannot be measured\n--- end of its output ---\nboom")
    said = [line.split("] ", 1)[1] for line in lines_of(told)]
    assert said[-4:-1] == [
        "a2 parked  5 invalid proposals in a row",
        "interrupted  SIGINT",
        "launched  3 agents, 2 slots, sandbox process",
    ]
    assert said[-1] == "failed  the base cannot be measured"


def test_waiting_mending_and_warnings_are_said() -> None:
    told = half_a_morning()
    until = told.now + timedelta(seconds=91)
    told.add(Waiting(agent="a3", target="main", until=until, reason="429"), after=1)
    told.add(Warned(limit="usd", message="80 % of the budget is used: $16.03 of $20.00"))
    told.add(Repaired(number=5, proposal=told.experiment(4).proposal))
    none = Proposal(base=told.base, invalid="I cannot mend it")
    told.add(Repaired(number=5, proposal=none))
    told.add(WarmStarted(target="main", run="last-night", attempts=()))
    assert [line.split("] ", 1)[1] for line in lines_of(told)[-5:]] == [
        "a3 waiting 1m 30s  429",
        "warning  80 % of the budget is used: $16.03 of $20.00",
        "#5 a2 changed after a crash  WARMUP 100 -> 200 in train.py",
        "#5 a2 gave up mending  I cannot mend it",
        "warm start  0 experiments of last-night",
    ]


# --- suites ------------------------------------------------------------------------------------


def told_lines(story: Story) -> list[str]:
    return [line.split("] ", 1)[1] for line in lines_of(story)]


def test_a_suite_is_told_in_cases() -> None:
    said = told_lines(evening())
    for line in (
        "baseline  cases 0.4 (4/10)",
        "baseline  cases 0.4 (4/10)  (mean 0.36, sd 0.055, n=5)",
        "#1 a1 discard  cases 0.36 -> 0.2 (2/10) (z=-2.0) fixed c10; broke c1, c2  Use a list",
        "#2 a2 keep  cases 0.36 -> 0.4 (4/10) (z=+3.0) fixed c4  Show an example",
    ):
        assert line in said
    made = shown(evening())
    assert "0.36 (3.6/10) ± 0.055 (n=5)" in made
    assert "0.4 (4/10) ± 0.055 (n=1)" in made


def test_many_cases_do_not_push_the_summary_away() -> None:
    story = SuiteStory(*BASELINE)
    long = " ".join(f"a-case-with-a-long-name-{i}" for i in range(9))
    story.tried("a1", "Too clever", "0000000000", "discard", z=-5.0, broken=long)
    assert told_lines(story)[-1] == "#1 a1 discard  cases 0.36 -> 0 (0/10) (z=-5.0)  Too clever"
    story.tried("a1", "Short names", "0000000000", "discard", z=-5.0, broken="c1 c2 c3 c4 c5")
    assert told_lines(story)[-1].endswith("broke c1, c2, c3 and 2 more  Short names")


def test_a_part_of_a_suite_has_no_value_of_its_own() -> None:
    story = SuiteStory(*BASELINE)
    story.run(story.base, story.base_tree, "baseline", None, "---110----")
    assert told_lines(story)[-1].startswith("baseline  3 of 10 cases again  (mean 0.36")
    one = story.propose("a1", "Show an example")
    story.candidate(one, "1111010000")
    assert "measuring #1 (once)" in shown(story)
    story.candidate(one, "---1-1----")
    assert "measuring #1 (once, 2 of 10 cases again)" in shown(story)
    story.candidate(one, "1111010000")
    assert "measuring #1 (2 times, 2 of 10 cases again)" in shown(story)


def test_what_final_found_is_told_to_the_user() -> None:
    story = evening()
    result = story.sealed_finals("1111000000", 0.43219, 0.87654)
    failed = Sealed(failure=Failure(kind="crash", reason="exit status 2"))
    story.run(story.base, story.base_tree, "final", None, "1111000000", index=9, sealed=failed)
    story.finish(result)
    assert told_lines(story)[-4:] == [
        "final base  cases 0.4 (4/10); `final` 0.43219",
        "final best  cases 0.4 (4/10); `final` 0.87654",
        "final base  cases 0.4 (4/10); `final` failed: exit status 2",
        "finished  budget reached; best - base = +0.2 ± 0.02 (n=1+1); "
        "confirmed gain +0.4443 ± 0.01 (n=1+1)",
    ]


def test_drift_is_told_once_and_stays_in_sight() -> None:
    told = half_a_morning()
    words = "the machine drifts: val_bpb of the same commit has moved"
    told.add(Warned(limit="drift", message=words))
    assert sum(words in line for line in lines_of(told)) == 1
    for _ in range(20):
        told.add(Parked(agent="a2", reason="nothing left"))
    assert f"drift        {words}" in shown(told)
    assert "drift" not in shown(half_a_morning())


def hostile() -> Story:
    told = begun()
    told.launch((HOSTILE,))
    one = told.propose("a1", HOSTILE)
    told.measure(one, 2.9)
    told.decide(one, "keep", HOSTILE, 5.0)
    told.not_merged(one, "conflict", HOSTILE)
    two = told.propose("a2", HOSTILE)
    told.fail(two, "crash", HOSTILE)
    told.decide(two, "crash", HOSTILE)
    told.propose("a2", HOSTILE)
    told.add(
        Waiting(agent="a2", target="main", until=told.now + timedelta(hours=1), reason=HOSTILE)
    )
    told.add(Warned(limit="usd", message=HOSTILE))
    told.add(Parked(agent="a3", reason=HOSTILE))
    told.drain(HOSTILE)
    return told


def test_hostile_text_stays_text() -> None:
    lines = lines_of(hostile())
    assert all(line.isprintable() for line in lines)
    assert max(map(len, lines)) < 700
    assert any("[bold red]markup[/]" in line for line in lines), "markup is shown, not obeyed"
    for width in (60, 120):
        made = shown(hostile(), width=width)
        assert made.replace("\n", "").isprintable()
        assert "evil.example" not in made


# --- the panel ---------------------------------------------------------------------------------


def test_the_panel_tells_how_it_stands() -> None:
    made = shown(half_a_morning(), experiments=12, time=3600, stale=30)
    for part in (
        "swarm tiny-gpt",
        "running",
        "ends in 7m 16s, about $0.20",
        "2.981 ± 0.007 (n=5)",
        "2.91125 ± 0.0027 (n=4)",
        "gain +0.06975, +2.34 %",
        "5 of 12",
        "of 1h",
        "2 of 30 without a keep",
        "measuring #4 (once)  WARMUP 100 -> 200",
        "proposing",
        "mutate",
        "a line",
    ):
        assert part in made


def test_the_panel_tells_what_it_costs() -> None:
    told = half_a_morning()
    agent = told.state.agents["a1"]
    agent.info = agent.info.model_copy(update={"proposer": "messages/claude-opus-5-5"})
    until = told.now + timedelta(minutes=5)
    told.add(
        Waiting(agent="a3", target="main", until=until, reason="429: too many requests"), after=0
    )
    made = shown(told, usd=0.06, tokens=50_000)
    for part in (
        "ends in 29s, about $0.06",
        "$0.05 of $0.06",
        "5k of 50k\n",
        "messages/claude-opus-5-5  2 experiments, 1 keep, gain +0.07, $0.02 (3.5 per $)",
        "mutate  3 experiments, 0 keeps, gain +0, $0.03 (0 per $), 3k tokens",
        "waiting 5m: 429: too many requests",
    ):
        assert part in re.sub(" +\n", "\n", made)


def test_the_panel_of_a_young_run() -> None:
    told = Story()
    assert "being measured" in shown(told)
    told.launch()
    told.baseline(2.98, 2.99)
    made = shown(told)
    assert "n=2 so far" in made
    assert "still the baseline" in made
    assert "no limit: it runs until it is stopped" in made


@pytest.mark.parametrize("width", [20, 40, 60, 80, 200])
@pytest.mark.parametrize("height", [5, 24])
def test_the_panel_fits_its_terminal(width: int, height: int) -> None:
    for told in (half_a_morning(), hostile(), long_night(30)):
        made = shown(told, width=width, height=height, experiments=500, time=3600, stale=30)
        assert max(cell_len(line) for line in made.splitlines()) <= width


def test_many_agents_do_not_push_the_rest_away() -> None:
    told = Story(agents=64)
    told.launch()
    made = shown(told, height=30)
    assert "... and 4" in made
    assert len(made.splitlines()) <= 30


# --- the view ----------------------------------------------------------------------------------


def plain_console() -> Console:
    return Console(file=io.StringIO(), force_terminal=False, width=80)


def text_of(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_without_a_terminal_a_line_for_each_event(tmp_path: Path) -> None:
    told, rundir, console = morning(), RunDir(tmp_path), plain_console()
    with LiveView(rundir, config(), console) as view:
        view.tick(told.now)
        assert text_of(console) == ""
        write(rundir.ledger, told.events[:10])
        view.tick(told.now)
        before = text_of(console).splitlines()
        assert [line.split("] ")[1].split()[0] for line in before] == ["launched"] + [
            "baseline"
        ] * 5
        write(rundir.ledger, told.events[10:])
        view.tick(told.now)
    after = text_of(console).splitlines()
    assert len(after) == len(lines_of(told))
    assert after[: len(before)] == before
    assert "\x1b" not in text_of(console)


def test_joining_a_run_shows_its_last_lines(tmp_path: Path) -> None:
    told, rundir, console = half_a_morning(), RunDir(tmp_path), plain_console()
    write(rundir.ledger, told.events)
    with LiveView(rundir, config(), console):
        joined = text_of(console).splitlines()
    assert joined[0].endswith("sandbox process")
    long = long_night(60)
    (tmp_path / "long").mkdir()
    rundir, console = RunDir(tmp_path / "long"), plain_console()
    write(rundir.ledger, long.events)
    with LiveView(rundir, config(), console):
        assert len(text_of(console).splitlines()) == 20


def test_resuming_a_run_does_not_tell_it_again(tmp_path: Path) -> None:
    told, rundir, console = half_a_morning(), RunDir(tmp_path), plain_console()
    told.interrupt()
    write(rundir.ledger, told.events)
    with LiveView(rundir, config(), console) as view:
        assert text_of(console) == ""
        n = len(told.events)
        told.launch()
        write(rundir.ledger, told.events[n:])
        view.tick(told.now)
    assert "launched" in text_of(console)


def test_a_damaged_ledger_ends_the_view_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told, rundir, console = begun(), RunDir(tmp_path), plain_console()
    write(rundir.ledger, told.events)
    with open(rundir.ledger, "a") as file:
        file.write("{}\n")
    with LiveView(rundir, config(), console) as view:
        view.tick(told.now)
        view.tick(told.now)
    assert caplog.text.count("the live view has stopped") == 1


def test_a_closed_stderr_is_no_trouble(tmp_path: Path) -> None:
    told, rundir, console = begun(), RunDir(tmp_path), plain_console()
    write(rundir.ledger, told.events)
    console.file.close()
    with LiveView(rundir, config(), console) as view:
        view.tick(told.now)


@pytest.mark.parametrize("width", [60, 120])
def test_on_a_terminal_a_panel(tmp_path: Path, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    told, rundir = hostile(), RunDir(tmp_path)
    console = Console(file=io.StringIO(), force_terminal=True, width=width, height=30)
    write(rundir.ledger, told.events)
    with LiveView(rundir, config(experiments=12), console) as view:
        view.tick(told.now)
        once = len(text_of(console))
        view.tick(told.now + timedelta(milliseconds=100))
        assert len(text_of(console)) == once, "not more often than a person can read"
        view.tick(told.now + timedelta(milliseconds=300))
        assert len(text_of(console)) > once
    made = text_of(console)
    assert "swarm tiny-gpt" in made
    assert "evil.example" not in made
    rest = ANSI.sub("", made)
    assert rest.replace("\n", "").replace("\r", "").isprintable()
    assert max(cell_len(line) for line in rest.splitlines()) <= width


def test_a_dumb_terminal_gets_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    told, rundir = begun(), RunDir(tmp_path)
    write(rundir.ledger, told.events)
    console = Console(file=io.StringIO(), force_terminal=True, width=60)
    with LiveView(rundir, config(), console) as view:
        view.tick(told.now)
    assert "\x1b" not in text_of(console)
    assert "baseline" in text_of(console)
