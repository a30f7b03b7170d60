"""The report of a run: what it says of a gain, of cases and of an unfinished run, and that nothing
that a stranger wrote can break it. The HTML is read by a parser, as a browser would.
"""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from story import Story, begun, half_a_morning, morning
from suite_story import SuiteStory, evening

from swarm.config import RunConfig
from swarm.entities import FINAL_INDEX
from swarm.findings import Findings, find
from swarm.grounds import grounds
from swarm.live import plain_line
from swarm.records import (
    Case,
    Failure,
    FreshResult,
    Sealed,
    Warned,
)
from swarm.report import draw, report_html, report_markdown, write_views
from swarm.rundir import RunDir
from swarm.summary import summary_markdown, summary_text
from swarm.views import bought

EVIL = (
    "<script>alert(1)</script> | `code` ![x](http://evil.example/x.png) [l](javascript:alert(1)) "
    "<http://evil.example>\n# heading\n\n> quote \x1b[31mred\x1b[0m &lt;b&gt; \\| \\`"
)


def config(judge: dict[str, Any] | None = None, **target: Any) -> RunConfig:
    metric = {"name": "val_bpb", "goal": "minimize"}
    whole = {"scope": ["train.py"], "run": "python train.py", "metric": metric, **target}
    return RunConfig.model_validate({"target": whole, "judge": judge or {}})


def page(told: Story, config: RunConfig | None = None, **more: Any) -> str:
    return report_markdown(told.state, find(told.state, config, **more))


class Page(HTMLParser):
    """Gathers what a browser would make of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.rows: list[int] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append(0)
        if tag in ("td", "th"):
            self.rows[-1] += 1

    def handle_data(self, data: str) -> None:
        self.words += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def html_page(told: Story, config: RunConfig | None = None, picture: bytes | None = None) -> Page:
    return Page(
        report_html(
            told.state, find(told.state, config), {} if picture is None else {"main": picture}
        )
    )


# --- how far a gain can be believed ------------------------------------------------------------


def ended(base: float, best: float, se: float, confirmed: FreshResult | None = None) -> Story:
    """A run whose records say +0.12, and whose end says what it is given."""
    told = half_a_morning()
    told.drain()
    result = told.finals((base, base), (best, best))
    told.finish(result.model_copy(update={"se": se, "confirmed": confirmed}))
    return told


def doubts(told: Story) -> list[tuple[str, str]]:
    (target,) = find(told.state).targets
    return [(doubt.of, doubt.kind) for doubt in target.headline.doubts]


def fresh(gain: float, se: float) -> FreshResult:
    return FreshResult(gain=gain, se=se, n=2, base_mean=3.0, best_mean=3.0 - gain)


@pytest.mark.parametrize(
    ("gain", "se", "confirmed", "wanted"),
    [
        (0.07, 0.003, None, []),
        (0.04, 0.003, None, []),
        (0.03, 0.003, None, [("fresh", "shrunk")]),
        (0.05, 0.03, None, [("fresh", "unsure")]),
        (0.0, 0.0, None, [("fresh", "unsure"), ("fresh", "shrunk")]),
        (-0.05, 0.003, None, [("fresh", "loss"), ("fresh", "shrunk")]),
        (0.07, 0.003, fresh(0.065, 0.004), []),
        (0.07, 0.003, fresh(0.065, 0.04), [("confirmed", "unsure")]),
        (0.07, 0.003, fresh(0.01, 0.004), [("confirmed", "shrunk")]),
        (0.07, 0.003, fresh(-0.01, 0.004), [("confirmed", "loss"), ("confirmed", "shrunk")]),
    ],
)
def test_doubts(
    gain: float, se: float, confirmed: FreshResult | None, wanted: list[tuple[str, str]]
) -> None:
    told = ended(2.98, 2.98 - gain, se, confirmed)
    assert doubts(told) == wanted
    assert page(told).count("> **Warning:**") == len(wanted)


def test_the_gain_three_ways() -> None:
    told = ended(2.98, 2.91, 0.003, fresh(0.02, 0.004))
    text = page(told, config(final="python score.py --sealed"))
    rows = [line.split(" | ") for line in text.splitlines() if line[:1] == "|"]
    assert rows[2][:2] == ["| search gain", "+0.06975 ± 0.0036 (+2.34 %)"]
    assert rows[4][:2] == ["| confirmed gain", "+0.02 ± 0.004 (+0.667 %)"]
    assert "| **fresh result** | +0.07 ± 0.003 (+2.35 %) | 2.98 → 2.91 | 2+2 |" in text
    assert "python score.py --sealed. It ran at the end only and gated nothing." in text
    assert "the search may have fitted what it was measured on" in text
    lines = summary_text(told.state, config(final="x")).splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("result: "))
    assert lines[at + 1].startswith("search gain: +0.06975 ± 0.0036 (n=5+4) by the records")
    assert lines[at + 2].startswith("confirmed: +0.02 ± 0.004 (n=2+2) by `final`")
    assert lines[at + 3].startswith("warning: the confirmed gain, +0.02 ± 0.004, is less than half")


def test_a_final_command_that_fails_is_told() -> None:
    told = half_a_morning()
    told.drain()
    failed = Sealed(failure=Failure(kind="crash", reason=f"no held-out data {EVIL}"))
    best = told.target.best
    told._measured(  # pyright: ignore[reportPrivateUsage]
        best,
        told.target.tree(best),
        "final",
        None,
        index=FINAL_INDEX,
        sealed=failed,
        **told.value(2.9),
    )
    told.finish(fresh(0.07, 0.003))
    text = page(told)
    assert "**It failed** on best: no held-out data" in text
    assert "confirmed: no, `final` failed on best: no held-out data" in summary_text(told.state)
    assert "| confirmed gain | not measured |" in text


def test_without_a_final_command_nothing_is_called_confirmed() -> None:
    assert "There is no `final` command" in page(morning())
    assert "confirmed" not in summary_text(morning().state)
    assert "has confirmed nothing yet" in page(half_a_morning(), config(final="score"))


def test_warnings_of_the_run_are_told() -> None:
    told = half_a_morning()
    told.add(Warned(limit="drift", message="the machine drifts: set judge.window to 5"))
    assert "> **Warning:** the machine drifts" in page(told)
    assert "warning: the machine drifts" in summary_text(told.state)
    told.add(Warned(limit="usd", message="90 % of the budget is used"))
    assert "> **Warning:** 90 % of the budget" in page(told)
    told.finish()
    assert "> **Warning:** the machine drifts" in page(told)
    assert "90 %" not in page(told) + summary_text(told.state), "it has ended by that"


# --- runs that are not over --------------------------------------------------------------------


def test_a_run_that_lives_does_not_claim_an_end() -> None:
    text = page(half_a_morning(), live=True)
    assert "The run is **running**: this is how far it has come, not its end." in text
    assert "| **fresh result** | not measured |" in text


def test_a_run_that_was_killed_says_that_nobody_carries_it_out() -> None:
    text = page(half_a_morning())
    assert "The run is **interrupted**, and no process carries it out." in text
    assert "goes on from here" in text


def test_a_run_that_failed_says_why() -> None:
    told = half_a_morning()
    told.give_up("all agents are parked", "give them a key")
    assert "**failed**: all agents are parked, and no process carries it out. give" in page(told)


@pytest.mark.parametrize("told", [Story(), begun()])
def test_a_run_without_an_experiment(told: Story) -> None:
    text = page(told, live=True)
    assert "**No improvement was found so far:** best is the base." in text
    assert "None yet." in text
    assert html_page(told).named("h1")


# --- suites ------------------------------------------------------------------------------------


def test_cases_that_changed_are_flaky_or_fail_are_named() -> None:
    told = evening()
    (target,) = find(told.state).targets
    assert target.suite is not None
    named = {case.id: case for case in target.suite.named}
    assert target.suite.total == 10
    assert target.suite.quiet == 10 - len(named) == 1, "c3 alone always passed"
    assert (named["c4"].base, named["c4"].best) == ((0, 5), (1, 1))
    assert (named["c4"].fixed_by, named["c4"].broken_by) == ((2,), ())
    assert (named["c1"].fixed_by, named["c1"].broken_by) == ((), (1, 3, 4))
    assert (named["c6"].base, named["c6"].flaky) == ((3, 5), True)
    text = page(told)
    assert "| c1 | 5/5 | 1/1 |  | #1, #3, #4 |  |" in text
    assert "| c4 | 0/5 | 1/1 | #2 |  |  |" in text
    assert "| c6 | 3/5 | 0/1 |  |  | fails, flaky |" in text
    assert "The other 1 of 10 cases pass on best and have never changed." in text
    assert "  - fixed c4" in text


def test_what_was_demanded_is_told() -> None:
    asked = config(
        {"must_pass": ["c1", "c2"], "points": ["cases", {"improves": "seconds"}]},
        metric={"name": "cases", "goal": "maximize"},
        constraints=[{"metric": "usd", "max": 0.5}, {"metric": "p95_ms", "max_regression": "5%"}],
    )
    text = page(evening(), asked)
    assert "- constraint: usd: at most 0.5" in text
    assert "- constraint: p95\\_ms: at most 5 % worse than the base" in text
    assert "- must pass: c1, c2" in text
    assert "- points: one for each passed case, one for less seconds; in this order" in text
    assert "### Demands" not in page(evening())


def by_costs() -> tuple[SuiteStory, RunConfig]:
    """One keep, for half the time, that changed no case; measured afresh at the end."""
    told = SuiteStory()

    def run(number: int | None, t: float) -> None:
        proposal = None if number is None else told.experiment(number).proposal
        commit, tree = told.base, told.base_tree
        if proposal is not None:
            assert proposal.commit is not None
            assert proposal.tree is not None
            commit, tree = proposal.commit, proposal.tree
        cases = tuple(Case(id=f"c{i}", passed=i < 3) for i in range(4))
        purpose = "baseline" if number is None else "candidate"
        told._measured(  # pyright: ignore[reportPrivateUsage]
            commit, tree, purpose, number, cases=cases, values={"cases": 0.75, "t": t}
        )

    for t in (118.0, 119.0, 120.0):
        run(None, t)
    one = told.propose("a1", "cache")
    for t in (58.0, 60.0):
        run(one, t)
    same = "cases: no better than the incumbent; no spread between runs"
    told.decide(one, "keep", f"{same}; t: 60 better than the incumbent: z = +9.1 from 2 against 3 "
                "runs")  # fmt: skip
    told.promote(one)
    told.drain()
    told.finish(FreshResult(gain=0.0, se=0.0, n=5, base_mean=0.75, best_mean=0.75))
    asked = config(
        {"points": ["cases", {"improves": "t"}]}, metric={"name": "cases", "goal": "maximize"}
    )
    return told, asked


def test_what_was_kept_for_a_cost_is_told_by_that_cost() -> None:
    told, asked = by_costs()
    text = page(told, asked)
    row = r"\| cost t \| \+60 ± .* \(\+50\.4 %\) \| 119 → 59 \| 3\+2 \| by the records"
    assert re.search(row, text)
    assert "All that is on best was kept for costs, not for the metric." in text
    assert "not told apart from zero" not in text
    summary = summary_text(told.state, asked)
    assert "cost t: 119 -> 59 (n=3+2, by the records, less is better)" in summary
    assert "(improvement: +0, +0 %; t: 119 -> 59)" in summary
    assert "it cannot be told from no improvement" not in summary
    assert "what is on best was kept for its costs" in summary
    lines = [plain_line(event, told.state, config=asked) or "" for event in told.events]
    assert any("keep  cases 0.75 -> 0.75 (3/4) for less t 119 -> 59  cache" in x for x in lines)
    assert lines[-1].endswith("best - base = +0 ± 0 (n=5+5); t: 119 -> 59")


@pytest.mark.parametrize(
    ("reason", "costs"),
    [
        ("cases: 0.25 better than the incumbent; no spread between runs", ()),
        ("cases: as many of 4 cases pass: z = +0.00 from 2 against 5 runs; t: 6 better than the "
         "incumbent: z = +3.00 from 2 against 5 runs", ("t",)),
        ("cases: as many; t: 6 better than the incumbent; no spread between runs", ("t",)),
        ("t: 6 better than the incumbent: z = +0.40 from 5 against 5 runs; cases: 2 of 4 cases "
         "more pass: z = +3.00 from 2 against 5 runs", ()),
        ("+2 points: +0 for cases; t: 6 better than the incumbent: z = +3.00 from 2 against 5 "
         "runs; u: 1 better than the incumbent: z = +0.40 from 2 against 5 runs; w: 9 better than "
         "the incumbent; no spread between runs", ("t", "w")),
        ("0.1 better than the incumbent: z = +3.00 from 2 against 5 runs", ()),
    ],
)  # fmt: skip
def test_the_costs_of_a_keep_are_read_from_its_reason(reason: str, costs: tuple[str, ...]) -> None:
    assert bought(reason) == costs


def test_all_that_is_set_of_the_rule_is_among_the_demands() -> None:
    asked = config(
        {"preset": "strict", "bounds": [0, None], "max_gain": "30%", "min_delta": 0.01,
         "keep_if_equal": "simpler", "window": 5}
    )  # fmt: skip
    text = page(morning(), asked).partition("### Demands")[2].replace("\\", "")
    for words in ("preset: strict", "bounds: at least 0;", "max_gain: 30%;", "min_delta: 0.01;",
                  "keep_if_equal: simpler;", "window: 5; only the last 5 runs"):  # fmt: skip
        assert f"- {words}" in text
    assert "### Demands" not in page(morning(), config({}))


def test_a_keep_beyond_max_gain_is_remarked_on() -> None:
    told = begun()
    one, two = told.propose("a1", "x"), told.propose("a2", "y")
    told.measure(one, 1.0, 1.0)
    told.decide(one, "keep", "better", 90.0)
    told.measure(two, 2.9, 2.9)
    told.decide(two, "keep", "better", 9.0)
    asked = config({"max_gain": 0.5})
    remark = "beyond max_gain (0.5), came again in every run: look at its diff"
    (target,) = find(told.state, asked).targets
    assert [kept.remarks for kept in target.kept] == [(remark,), ()]
    assert "  - **beyond max\\_gain (0.5), came again in every run" in page(told, asked)
    assert remark in grounds(told.state, one, asked).words
    assert remark not in grounds(told.state, two, asked).words
    told.measure(one, 2.9, purpose="confirm")
    again = "beyond max_gain (0.5), came again in 2 of 3 runs: look at its diff"
    assert again in grounds(told.state, one, asked).words
    assert remark not in grounds(told.state, one).words


def test_what_was_refused_is_told_newest_first_and_once() -> None:
    told = begun()
    for words in ("no patch", "empty"):
        number = told.propose("a1", words, invalid=words)
        told.decide(number, "invalid", words)
    refused = page(told).partition("### Refused (the latest)\n\n")[2].splitlines()
    assert refused[:2] == ["- #2 a1 **invalid**: empty", "- #1 a1 **invalid**: no patch"]
    for i in range(30):
        told.decide(told.propose("a1", f"i{i}", invalid="x"), "invalid", "x")
    (target,) = find(told.state).targets
    assert [r.number for r in target.refused] == list(range(32, 12, -1))


# --- strangers ---------------------------------------------------------------------------------


def hostile() -> tuple[Story, RunConfig]:
    """All that a stranger can write into a run holds the same attack."""
    told = SuiteStory(agents=1)
    for good in (True, False):
        cases = (Case(id=EVIL, passed=good), Case(id="plain", passed=True))
        told._measured(  # pyright: ignore[reportPrivateUsage]
            told.base, told.base_tree, "baseline", None, cases=cases, values={"cases": 1.0}
        )
    one = told.propose("a1", EVIL)
    tree = told.experiment(one).proposal.tree
    assert tree is not None
    told._measured(  # pyright: ignore[reportPrivateUsage]
        told.commit(one), tree, "candidate", one,
        cases=(Case(id=EVIL, passed=True),), values={"cases": 0.5}, feedback=EVIL,
    )  # fmt: skip
    told.decide(one, "keep", EVIL, 3.0)
    told.promote(one)
    two = told.propose("a1", EVIL)
    told.fail(two, "crash", EVIL, EVIL)
    told.decide(two, "crash", EVIL)
    told.add(Warned(limit="drift", message=EVIL))
    told.drain(EVIL)
    asked = config(
        {"must_pass": [EVIL]}, metric={"name": "cases", "goal": "maximize"}, final=f"x {EVIL}"
    )
    return told, asked


def test_no_stranger_breaks_the_page() -> None:
    told, asked = hostile()
    text = report_html(told.state, find(told.state, asked), {"main": b"PNG"})
    made = Page(text)
    allowed = {"html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "p", "strong",
               "table", "thead", "tbody", "tr", "th", "td", "ul", "li", "code", "blockquote", "img",
               "br"}  # fmt: skip
    assert {tag for tag, _ in made.tags} <= allowed
    assert [image["src"] for image in made.named("img")] == ["data:image/png;base64,UE5H"]
    assert not any(key.startswith("on") or key == "href" for _, a in made.tags for key in a)
    assert text.replace("\n", "").isprintable()
    assert made.words.count("<script>alert(1)</script>") >= 6, "it is shown, as text"
    assert "![x](http://evil.example/x.png)" in made.words, "and as it was written"
    assert len(made.named("h1")) == 1
    assert "heading" not in [tag for tag, _ in made.tags]


def test_no_stranger_breaks_the_tables() -> None:
    told, asked = hostile()
    rows = html_page(told, asked).rows
    calm = html_page(evening(), asked).rows
    assert set(rows) <= set(calm), "each row has as many cells as its heading"
    text = page(told, asked)
    (row,) = [line for line in text.splitlines() if line.startswith("| &lt;script")]
    assert len(re.split(r"(?<!\\)\|", row.replace("\\\\", ""))) == 8


def test_the_summary_page_holds_the_attack_too() -> None:
    told, asked = hostile()
    assert "<script" not in summary_markdown(told.state, asked)


# --- the file ----------------------------------------------------------------------------------


def test_the_html_needs_nothing_else() -> None:
    told = morning()
    text = report_html(told.state, find(told.state), draw(told.state))
    made = Page(text)
    (image,) = made.named("img")
    assert str(image["src"]).startswith("data:image/png;base64,iVBOR")
    assert made.named("script") == made.named("link") == made.named("a") == []
    assert "default-src 'none'" in text
    assert not re.search(r"url\(|@import|https?://", text)
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text


def test_both_forms_say_the_same() -> None:
    told = morning()
    markdown, made = page(told), html_page(told)
    for heading in re.findall(r"^#+ (.+)$", markdown, re.M):
        assert re.sub(r"[\\`]", "", heading) in made.words
    assert "0.07 better than the incumbent: z = +9.1 from 1 against 5 runs" in made.words
    assert markdown.count("\n| ") - markdown.count("\n| ---") == len(made.rows)


def test_it_lies_beside_the_summary_when_a_run_ends(tmp_path: Path) -> None:
    rundir = RunDir(tmp_path)
    rundir.config.write_text("{}")
    write_views(rundir, morning().state)
    made = Page(rundir.report.read_text())
    assert "finished" in made.words
    assert "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a" in made.words
    assert len(made.named("img")) == 1


def test_a_report_as_data_reads_back() -> None:
    found = find(evening().state, digest="d")
    assert Findings.model_validate_json(found.model_dump_json()) == found
