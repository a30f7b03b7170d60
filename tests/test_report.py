"""What a run is reported as: JSON shapes key by key, the summary, the page and the picture."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any

import pytest
from story import HOSTILE, Story, begun, half_a_morning, long_night, morning

from swarm import tables
from swarm.config import RunConfig
from swarm.errors import UsageError
from swarm.findings import find
from swarm.formats.results_tsv import parse
from swarm.picture import gather, progress_png
from swarm.records import (
    VERDICTS,
    Dropped,
    Prepared,
    Proposed,
    Repaired,
    Returned,
    Twin,
    Usage,
    Waiting,
)
from swarm.report import write_views
from swarm.rundir import RunDir
from swarm.summary import summary_markdown, summary_text
from swarm.views import compared, experiment_json, experiments_json, status_json

PNG = b"\x89PNG\r\n\x1a\n"


def status(told: Story, *, live: bool = False) -> dict[str, Any]:
    made = status_json(told.state, live=live, dir=Path("/runs/tiny-gpt"), now=told.now)
    json.dumps(made, allow_nan=False)
    return made


# --- status --json -----------------------------------------------------------------------------


def test_status_has_exactly_the_keys_of_the_interface() -> None:
    made = status(morning())
    assert list(made) == [
        *("run", "dir", "state", "targets", "agents", "spend", "sandbox", "proposers", "forecast"),
    ]
    assert (made["run"], made["dir"], made["state"]) == ("tiny-gpt", "/runs/tiny-gpt", "finished")
    (target,) = made["targets"]
    assert list(target) == [
        *("name", "metric", "goal", "baseline", "best", "result", "confirmed", "experiments"),
        *("branch", "ended", "failed", "share", "usd", "tokens"),
    ]
    assert list(target["baseline"]) == ["mean", "sd", "n"]
    assert list(target["best"]) == ["commit", "mean", "se", "n", "gain", "gain_pct"]
    assert list(target["result"]) == ["gain", "se"]
    assert list(target["experiments"]) == ["total", *VERDICTS]
    for agent in made["agents"]:
        assert list(agent) == [
            *("name", "state", "proposer", "experiments", "keeps", "usd"),
            *("invalid", "gain", "tokens", "waiting_until"),
        ]
    for one in made["proposers"]:
        assert list(one) == [
            *("proposer", "agents", "experiments", "keeps", "invalid", "invalid_rate", "gain"),
            *("usd", "tokens", "gain_per_usd", "gain_per_experiment"),
        ]


def test_status_values() -> None:
    told = morning()
    target = status(told)["targets"][0]
    assert (target["metric"], target["goal"]) == ("val_bpb", "minimize")
    assert target["baseline"]["mean"] == pytest.approx(2.981)
    assert target["baseline"]["sd"] == pytest.approx(0.006964, abs=1e-6)
    assert target["baseline"]["n"] == 5
    best = target["best"]
    assert best["commit"] == told.target.best
    assert len(best["commit"]) == 40
    assert (best["mean"], best["n"]) == (pytest.approx(2.824), 2)
    assert best["gain"] == pytest.approx(0.157), "positive is better, whatever the goal"
    assert best["gain_pct"] == pytest.approx(100 * 0.157 / 2.981)
    assert target["result"]["gain"] == pytest.approx(0.156)
    assert target["experiments"]["total"] == 12
    assert target["experiments"]["keep"] == 4
    assert target["experiments"]["aborted"] == 0
    made = status(told)
    assert [a["experiments"] for a in made["agents"]] == [4, 4, 4]
    assert made["spend"]["experiments"] == 12
    assert made["spend"]["tokens"] == 12_000
    assert made["sandbox"] == {"rung": "process", "open": ["files", "network"]}


def test_status_of_a_young_run() -> None:
    told = Story()
    target = status(told)["targets"][0]
    assert target["baseline"] == {"mean": None, "sd": None, "n": 0}
    assert target["best"]["gain"] is None
    assert target["best"]["commit"] == told.base
    assert target["result"] is None
    told.launch()
    told.baseline(0.0, 0.0)
    best = status(told)["targets"][0]["best"]
    assert (best["gain"], best["gain_pct"], best["se"]) == (0.0, None, 0.0)
    assert str(best["gain"]) == "0.0", "no minus zero"


@pytest.mark.parametrize("goal", ["minimize", "maximize"])
def test_a_negative_baseline_keeps_the_sign_of_a_gain(goal: Any) -> None:
    told = Story(goal=goal)
    told.launch()
    told.baseline(-4.0, -4.1, -3.9)
    one = told.propose("a1", "x")
    told.measure(one, -5.0 if goal == "minimize" else -3.0)
    told.decide(one, "keep")
    told.promote(one)
    best = status(told)["targets"][0]["best"]
    assert best["gain"] == pytest.approx(1.0)
    assert best["gain_pct"] == pytest.approx(25.0)


@pytest.mark.parametrize(
    ("then", "live", "dead"),
    [
        (lambda t: None, "running", "interrupted"),
        (lambda t: t.drain(), "draining", "interrupted"),
        (lambda t: t.finish(), "finished", "finished"),
        (lambda t: t.give_up("all parked"), "running", "failed"),  # a launch takes it up again
        (lambda t: t.interrupt(), "running", "interrupted"),
    ],
)
def test_what_a_run_is_depends_on_whether_anybody_carries_it_out(
    then: Callable[[Story], None], live: str, dead: str
) -> None:
    told = half_a_morning()
    then(told)
    assert status(told, live=True)["state"] == live
    assert status(told)["state"] == dead
    again = find(told.state, live=True)
    assert (again.state, again.reason == "") == (live, live == "running"), again.reason


def test_what_agents_do() -> None:
    told = half_a_morning()
    assert [a["state"] for a in status(told, live=True)["agents"]] == [
        "measuring",
        "measuring",
        "proposing",
    ]
    assert {a["state"] for a in status(told)["agents"]} == {"stopped"}
    told.drain()
    assert status(told, live=True)["agents"][2]["state"] == "waiting"


def test_time_stands_still_when_the_run_is_dead() -> None:
    told = begun()
    later = told.now + timedelta(hours=5)
    dead = status_json(told.state, live=False, dir=Path("/r"), now=later)
    live = status_json(told.state, live=True, dir=Path("/r"), now=later)
    assert dead["spend"]["seconds"] < 120
    assert live["spend"]["seconds"] > 5 * 3600


# --- proposers, waiting, the forecast ----------------------------------------------------------


def renamed(told: Story, **labels: str) -> Story:
    """Give agents other proposers."""
    for name, label in labels.items():
        agent = told.state.agents[name]
        agent.info = agent.info.model_copy(update={"proposer": label})
    return told


def limited(*groups: dict[str, Any], **budget: float) -> RunConfig:
    metric = {"name": "val_bpb", "goal": "minimize"}
    target = {"scope": ["train.py"], "run": "python train.py", "metric": metric}
    agents = {"agents": list(groups)} if groups else {}
    return RunConfig.model_validate({"target": target, "budget": budget, **agents})


def laid_out(told: Story, warnings: tuple[str, ...] = (), **budget: float) -> str:
    made = status_json(
        told.state, live=True, dir=Path("/r"), now=told.now, config=limited(**budget)
    )
    return tables.status(made, told.state, 120, warnings, UTC)


def test_proposers_are_compared() -> None:
    told = renamed(morning(), a1="messages/claude-opus-5-5", a2="messages/claude-opus-5-5")
    claude, mutate = status(told)["proposers"]
    assert (claude["proposer"], claude["agents"]) == ("messages/claude-opus-5-5", 2)
    assert (claude["experiments"], claude["keeps"]) == (8, 3)
    assert (claude["usd"], claude["tokens"]) == (pytest.approx(0.08), 8000)
    gain = told.experiment(1).gain + told.experiment(5).gain  # 10 did not reach best
    assert claude["gain"] == pytest.approx(gain)
    assert claude["gain_per_usd"] == pytest.approx(gain / 0.08)
    assert claude["gain_per_experiment"] == pytest.approx(gain / 8)
    assert (mutate["proposer"], mutate["invalid"]) == ("mutate", 1)
    assert (claude["invalid_rate"], mutate["invalid_rate"]) == (0, 0.25)
    assert sum(a["gain"] for a in status(told)["agents"]) == pytest.approx(
        claude["gain"] + mutate["gain"]
    )


def test_what_was_paid_for_in_vain_is_counted() -> None:
    told = half_a_morning()
    assert "of it" not in laid_out(told) + summary_text(told.state)
    bought = told.experiment(5).proposal
    free = bought.model_copy(update={"usage": Usage(seconds=1.0)})
    for proposal in (bought, bought, free):
        told.add(Prepared(agent="a1", target="main", proposal=proposal))
        told.add(Dropped(agent="a1", target="main", reason="it does not apply any more"))
    told.add(Dropped(agent="a1", target="main", reason="there is none"))
    told.add(Returned(agent="a3", target="main", proposal=bought, twin=Twin(same="tree", number=2)))
    spend = status(told)["spend"]
    assert (spend["dropped"], spend["returned"]) == (2, 1)
    vain = "of it 2 proposals prepared and dropped, 1 proposal returned as a repeat"
    assert f"         {vain}" in laid_out(told).splitlines()
    assert vain in summary_text(told.state)


def test_what_costs_nothing_has_no_gain_for_its_money() -> None:
    (one,) = status(Story())["proposers"]
    assert (one["gain_per_usd"], one["gain_per_experiment"], one["invalid_rate"]) == (None,) * 3
    assert compared(Story().state) == {}, "nothing to tell of"


def test_proposers_in_words() -> None:
    told = renamed(morning(), a1="messages/claude-opus-5-5")
    words = "mutate: 8 experiments, 3 keeps, 12% invalid, gain +0.0935, $0.08 (1.17 per $), 8k tok"
    assert any(line.startswith(words) for line in summary_text(told.state).splitlines())
    page = summary_markdown(told.state)
    assert "- messages/claude-opus-5-5: 4 experiments, 1 keep, gain +0.07, \\$0.04" in page
    assert "mutate                    8 experiments, 3 keeps, 12% invalid" in laid_out(told)


def test_an_agent_that_waits() -> None:
    told = half_a_morning()
    until = told.now + timedelta(minutes=5)
    told.add(
        Waiting(agent="a3", target="main", until=until, reason="429: too many requests"), after=0
    )
    agent = status(told, live=True)["agents"][2]
    assert (agent["state"], agent["waiting_until"]) == ("waiting", until.isoformat())
    assert (
        "a3               1      0  waiting until 12:07: 429: too many requests  mutate"
        in laid_out(told).splitlines()
    )
    told.now = until
    agent = status(told, live=True)["agents"][2]
    assert agent["state"] == "proposing"
    told.propose("a3", "again")
    assert status(told, live=True)["agents"][2]["waiting_until"] is None
    until = told.now + timedelta(minutes=5)
    told.add(Waiting(agent="a3", target="main", until=until, reason="529: overloaded"), after=0)
    assert status(told, live=True)["agents"][2]["state"] == "waiting", "its experiment is in flight"


@pytest.mark.parametrize("width", [40, 60, 80])
@pytest.mark.parametrize("label", ["mutate", "messages/claude-opus-5-5"])
def test_until_when_an_agent_waits_fits_a_terminal(width: int, label: str) -> None:
    told = renamed(half_a_morning(), a3=label)
    until = told.now + timedelta(minutes=59)
    told.add(
        Waiting(agent="a3", target="main", until=until, reason="429: " + "too many " * 20), after=0
    )
    made = tables.status(status(told, live=True), told.state, width, zone=UTC).splitlines()
    (line,) = (line for line in made if line.startswith("a3"))
    assert len(line) <= width
    if width >= 60:
        assert "  waiting until 13:01" in line
    if width == 80:
        assert line.endswith(label)
        assert ("13:01: 429: too many" in line) == (label == "mutate"), "what has room is told"


def test_a_group_without_budget_left_says_so() -> None:
    told = half_a_morning()
    spent = limited({"count": 3, "proposer": "mutate", "budget": {"experiments": 5}})
    made = status_json(told.state, live=True, dir=Path("/r"), now=told.now, config=spent)
    assert [a["state"] for a in made["agents"]] == ["measuring", "measuring", "out of budget"]
    assert "out of budget  mutate" in tables.status(made, told.state, 120)


def test_every_agent_has_its_line_on_a_narrow_terminal() -> None:
    made = tables.status(status(Story(agents=9)), Story(agents=9).state, 40)
    assert [line[:2] for line in made.splitlines() if line[:1] == "a"] == [
        "ag", *(f"a{i}" for i in range(1, 10)),
    ]  # fmt: skip


def test_the_forecast() -> None:
    told = half_a_morning()
    kept = {"live": True, "dir": Path("/r"), "now": told.now}
    assert status_json(told.state, **kept)["forecast"] is None
    assert status_json(told.state, **kept, config=limited())["forecast"] is None
    made = status_json(told.state, **kept, config=limited(usd=0.1))["forecast"]
    seconds = told.state.elapsed(told.now)
    assert made == {
        "seconds": pytest.approx(seconds),
        "usd": pytest.approx(0.1),
        "limit": "usd",
    }
    assert "forecast ends in 2m 25s, about $0.10" in laid_out(told, usd=0.1).splitlines()
    said = laid_out(told, ("84 % of the budget is used: ...",)).splitlines()
    assert "warning  84 % of the budget is used: ..." in said
    assert not any(line.startswith("forecast") for line in said)
    told.drain()
    assert status_json(told.state, **kept, config=limited(usd=0.1))["forecast"] is None


def test_what_it_took_to_propose_is_shown() -> None:
    told = half_a_morning()
    old = told.experiment(4).proposal
    again = old.model_copy(update={"tree": "7" * 40, "commit": "8" * 40})
    told.add(Returned(agent="a3", target="main", proposal=old, twin=Twin(same="tree", number=2)))
    told.add(Prepared(agent="a3", target="main", proposal=again))
    told.add(Proposed(number=6, target="main", agent="a3", proposal=again))
    told.fail(6, "crash", "exit status 1")
    mended = old.model_copy(update={"tree": "9" * 40, "commit": "a" * 40})
    told.add(Repaired(number=6, proposal=mended))
    made = experiment_json(told.state, 6)
    assert (made["returned"], made["repairs"]) == ({"same": "tree", "number": 2}, 1)
    lines = tables.experiment(made, "val_bpb", 100).splitlines()
    assert "proposed in 6s, 2k tokens, $0.02" in lines
    assert "repeat   its first proposal had the same tree as experiment 2" in lines
    assert "crashed  and went back to its proposer once" in lines
    assert "took     20s" in lines
    free = experiment_json(told.state, 4)
    assert (free["returned"], free["repairs"], free["gave_up"]) == (None, 0, False)


# --- experiments --json, show --json -----------------------------------------------------------

KEYS = [
    "number", "target", "agent", "base", "commit", "summary", "verdict", "values", "n", "z",
    "seconds", "usd", "tokens", "merged",
]  # fmt: skip


def test_experiments_have_exactly_the_keys_of_the_interface() -> None:
    told = morning()
    made = experiments_json(told.state)
    json.dumps(made, allow_nan=False)
    assert [e["number"] for e in made] == list(range(1, 13))
    assert all(list(e) == KEYS for e in made)
    one, three, seven, eight = made[0], made[2], made[6], made[7]
    assert one["values"] == {"val_bpb": pytest.approx(2.91125), "accuracy": 0.5}
    assert (one["n"], one["z"], one["verdict"]) == (4, 9.1, "keep")
    assert (one["base"], one["commit"]) == (told.base, told.commit(1))
    assert len(one["merged"]) == 40
    assert (one["usd"], one["tokens"], one["seconds"]) == (0.01, 1000, 20.0)
    assert (three["verdict"], three["values"], three["n"]) == ("crash", {}, 0)
    assert (seven["verdict"], seven["commit"], seven["merged"]) == ("invalid", None, None)
    assert (eight["verdict"], eight["values"], eight["n"]) == ("duplicate", {}, 0)
    assert made[9]["merged"] == "conflict"
    assert made[8]["merged"] == told.target.best


def test_an_experiment_in_flight() -> None:
    told = half_a_morning()
    four, five = experiments_json(told.state)[3:]
    assert (four["verdict"], four["z"], four["n"]) == (None, None, 1)
    assert (five["verdict"], five["values"], five["n"]) == (None, {}, 0)
    told.measure(5, 2.86)
    told.decide(5, "keep", z=6.0)
    assert experiments_json(told.state)[4]["merged"] == "queued"


def test_all_about_one_experiment() -> None:
    told = morning()
    made = experiment_json(told.state, 3)
    json.dumps(made, allow_nan=False)
    assert list(made)[: len(KEYS)] == KEYS
    assert made["failure"]["tail"].endswith("out of memory\n")
    assert made["logs"] == ["logs/3/candidate-0.log"]
    assert made["files"] == ["train.py"]
    assert made["rationale"] == "Because of experiment 2."
    assert "\n\nrationale: Because of experiment 2." in tables.experiment(made, "val_bpb", None)
    assert made["reason"] == "exit status 1"
    nine = experiment_json(told.state, 9)
    assert (nine["stacked"], nine["failure"]) == (True, None)
    assert nine["incumbent"]["mean"] == pytest.approx(2.91125)
    assert experiment_json(told.state, 1)["stacked"] is False
    assert experiment_json(told.state, 10)["stacked"] is None
    with pytest.raises(UsageError, match="no experiment 99"):
        experiment_json(told.state, 99)


# --- the summary -------------------------------------------------------------------------------


def test_the_summary_opens_with_the_familys_block() -> None:
    told = morning()
    lines = summary_text(told.state).splitlines()
    assert lines[:11] == [
        "=== Autoresearch Summary ===",
        "Branch: swarm/tiny-gpt/best",
        "Experiments run: 12",
        "Kept: 4",
        "Discarded: 6",
        "Crashed: 2",
        "Baseline metric: 2.981",
        "Best metric: 2.824 (improvement: +0.157, +5.27 %)",
        "",
        "Top improvements:",
        f"1. {str(told.experiment(1).merged)[:7]} — LEARNING_RATE 0.001 -> 0.002 in train.py — "
        "2.91125 (+0.07 on its incumbent, #1 a1)",
    ]
    assert "Failed ideas (for reference):" in lines
    assert "- BATCH 16 -> 4096 in train.py — crash: exit status 1" in lines


@pytest.mark.parametrize(
    "line",
    [
        "result: best − base = +0.156 ± 0.0027 (n=5+5, measured afresh, + is better)",
        "baseline: 2.981 ± 0.007 (sd, n=5)",
        "noise: one measurement varies by 0.0043 (sd, 13 degrees of freedom); "
        "smallest detectable gain ≈ 0.0054 with 5+5 runs",
        "verdicts: 4 keep, 2 discard, 1 crash, 1 timeout, 1 invalid, 1 duplicate, "
        "1 guard_failed, 1 constraint_failed",
        "merges: 3 on best (2 fast-forward, 1 stacked), 1 conflict",
        "sandbox: process; open to candidates: files, network",
        "run `tiny-gpt`: finished (budget reached)",
    ],
)
def test_the_summary_is_honest(line: str) -> None:
    assert line in summary_text(morning().state).splitlines()


def test_the_summary_does_not_claim_what_was_not_seen() -> None:
    told = half_a_morning()
    assert "by the records, not yet measured afresh" in summary_text(told.state)
    told = begun()
    assert "result: no improvement was found" in summary_text(told.state)
    assert "self-reported" in summary_text(told.state)
    told = half_a_morning()
    told.finish(told.finals((2.98, 2.99), (2.979, 2.988)))
    assert "it cannot be told from no improvement" in summary_text(told.state)
    told = Story()
    assert "baseline: not measured" in summary_text(told.state)
    told.launch()
    told.baseline(3.0, 3.0)
    assert "noise: none, all repeats agreed exactly" in summary_text(told.state)


def hostile() -> Story:
    told = begun()
    one = told.propose("a1", HOSTILE)
    told.measure(one, 2.9)
    told.decide(one, "keep", HOSTILE, 5.0)
    told.promote(one)
    two = told.propose("a2", HOSTILE)
    told.fail(two, "crash", HOSTILE, HOSTILE)
    told.decide(two, "crash", HOSTILE)
    told.drain(HOSTILE)
    return told


def test_hostile_text_is_neutralised() -> None:
    told = hostile()
    for text in (summary_text(told.state), summary_markdown(told.state)):
        assert text.replace("\n", "").isprintable()
        assert len(text) < 5000
        assert "evil.example" not in text
    page = summary_markdown(told.state)
    assert "<b>" not in page
    assert "[bold red]" not in page.replace("\\[", "")
    (row,) = (line for line in page.splitlines() if line.startswith("| 1 |"))
    assert row.replace("\\|", "").count("|") == 8


def test_the_page() -> None:
    page = summary_markdown(morning().state)
    assert page.startswith("# Run `tiny-gpt`\n\nfinished (budget reached)\n")
    assert "**Best − base = +0.156 ± 0.0027" in page
    assert "![progress](progress.png)" in page
    assert "| 10 | a2 | 2.829 | 1 | +0.032 | HEADS 4 -&gt; 8 in train.py | conflict |" in page


# --- the picture -------------------------------------------------------------------------------


@pytest.mark.parametrize("told", [morning(), begun(), Story(), hostile()])
def test_the_picture(told: Story, tmp_path: Path) -> None:
    path = tmp_path / "progress.png"
    progress_png(told.state, "main", path)
    made = path.read_bytes()
    assert made.startswith(PNG)
    assert len(made) > 10_000


def test_a_long_run_is_drawn_too(tmp_path: Path) -> None:
    told = long_night(300)
    progress_png(told.state, "main", tmp_path / "progress.png")
    data = gather(told.state, told.target)
    worst = max(d.y for d in data.dots)
    best = min(d.y for d in data.dots)
    assert worst > data.high, "a disaster is clipped"
    assert data.low < best
    assert data.high - data.low < 3 * (1.02 - best), "so that the rest can be read"


def test_what_is_drawn() -> None:
    data = gather(morning().state, morning().target)
    assert (data.total, data.kept, data.crashes) == (12, 4, [3, 6])
    kinds = {(d.x, d.kind) for d in data.dots}
    assert {(1, "on best"), (9, "kept"), (9, "stack"), (10, "kept"), (12, "discarded")} <= kinds
    steps = [(x, round(y, 3)) for x, y in data.steps]
    assert steps == [(0, 2.981), (1, 2.911), (5, 2.861), (9, 2.824)]
    assert data.baseline == pytest.approx(2.981)


def test_the_goal_turns_the_picture() -> None:
    up = gather(long_night(60, goal="maximize").state, long_night(60, goal="maximize").target)
    ys = [y for _, y in up.steps]
    assert ys == sorted(ys)
    assert len(ys) > 3
    assert up.high > max(d.y for d in up.dots)


# --- files -------------------------------------------------------------------------------------


def test_the_views_are_written(tmp_path: Path) -> None:
    told, rundir = morning(), RunDir(tmp_path)
    rundir.results.write_text("old")
    write_views(rundir, told.state)
    assert len(parse(rundir.results.read_text())) == 13
    assert rundir.progress.read_bytes().startswith(PNG)
    assert rundir.summary.read_text() == summary_markdown(told.state)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "lessons.md",
        "progress.png",
        "report.html",
        "results.tsv",
        "summary.md",
    ]
    assert rundir.summary.stat().st_mode & 0o777 == 0o644


def test_one_view_that_fails_does_not_cost_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told, rundir = morning(), RunDir(tmp_path)
    rundir.summary.mkdir()  # nothing can be renamed onto a directory
    with caplog.at_level(logging.WARNING, "swarm"):
        write_views(rundir, told.state)
    assert rundir.progress.exists()
    assert rundir.results.exists()
    assert "could not write" in caplog.text


def test_matplotlib_is_not_loaded_before_a_picture_is_drawn() -> None:
    code = "import sys, swarm.report; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
