"""What a run has found, as a page for people: Markdown, or one HTML file; and all files of views.

The page is written once, as Markdown, from `findings`; the HTML is that same Markdown rendered,
with the picture inside and without scripts or anything from outside. What strangers wrote is
escaped in the Markdown already, and HTML in it is not let through. The one importer of
markdown-it.
"""

from __future__ import annotations

import base64
import hashlib
import html
import logging
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from swarm import findings, lessons
from swarm.config import RunConfig
from swarm.entities import Target, landed
from swarm.findings import (
    CaseHistory,
    CostChange,
    Findings,
    Gain,
    Headline,
    Kept,
    Refused,
    TargetFindings,
)
from swarm.formats import results_tsv
from swarm.formats.text import first_line, markdown, number, one_line, sanitise, signed
from swarm.picture import progress_png
from swarm.rundir import RunDir
from swarm.state import RunState
from swarm.summary import merge_line, noise_words, spend_lines, summary_markdown, trust_lines
from swarm.views import proposers

log = logging.getLogger("swarm")

LINE = 200
"""Characters of a text by a stranger."""
CASE = 60
"""Characters of a case's id."""
CASES_SHOWN = 200
PICTURE = "progress.png"

_MEANINGS = {
    "keep": "told apart from its incumbent, and better",
    "discard": "not told apart from its incumbent, or worse",
    "crash": "the harness failed; never scored",
    "timeout": "the harness took too long; never scored",
    "invalid": "nothing to measure, or a number that is not believed",
    "duplicate": "had been proposed before; not measured again",
    "guard_failed": "a guard did not exit with 0",
    "constraint_failed": "beyond a limit, however good the metric",
    "aborted": "the machinery died; not counted",
}


def _text(text: str, width: int = LINE) -> str:
    """Make a stranger's text a harmless part of a line of the page."""
    return markdown(one_line(text, width))


# --- the page, as Markdown ---------------------------------------------------------------------


def report_markdown(
    state: RunState, found: Findings, pictures: Mapping[str, str] | None = None
) -> str:
    """Give the report as Markdown.

    Args:
        state: what the ledger tells: spend, merges, proposers.
        found: what was found in it.
        pictures: by target, the addresses of those that are to be shown.
    """
    parts = [f"# Report on run `{found.run}`", _standing(found)]
    parts += [f"> **Warning:** {_text(words, 400)}" for words in found.warnings]
    if len(found.targets) > 1:
        parts += _overview(found)
    for target in found.targets:
        parts += _target(state, found, target, (pictures or {}).get(target.name))
    if found.targets:
        parts += _whole_run(state, found)
    return sanitise("\n\n".join(parts)) + "\n"


def _standing(found: Findings) -> str:
    """Say whether what follows is the end."""
    reason = "" if found.reason in ("", found.state) else f": {_text(found.reason, 400)}"
    if found.state == "finished":
        return f"The run is **finished**{reason}."
    hint = f" {_text(found.hint)}." if found.hint else ""
    if found.live:
        return f"The run is **{found.state}**{reason}: this is how far it has come, not its end."
    return (
        f"The run is **{found.state}**{reason}, and no process carries it out.{hint} Launched "
        "again, it goes on from here. This is how far it has come, not its end."
    )


def _overview(found: Findings) -> Iterator[str]:
    """Put the targets side by side: each has its own metric, so nothing is added up."""
    yield "## All targets"
    yield _table(
        ["target", "metric", "fresh result", "base → best", "experiments", "kept", "slots' time"],
        [
            [
                _text(t.name, CASE),
                f"{t.goal} {_text(t.metric, CASE)}",
                *_gain(t.headline.fresh or t.headline.search)[:2],
                str(sum(t.verdicts.values())),
                str(t.verdicts["keep"]),
                "" if t.share is None else f"{t.share:.0%}",
            ]
            for t in found.targets
        ],
        right={2, 3, 4, 5, 6},
    )
    for target in found.targets:
        if target.ended is not None:
            verb = "could not go on" if target.failed else "came to its end before the run"
            yield f"{_text(target.name, CASE)} {verb}: {_text(first_line(target.ended), 400)}."


def _target(
    state: RunState, found: Findings, target: TargetFindings, picture: str | None
) -> Iterator[str]:
    yield f"## {_text(target.name)}: {target.goal} {_text(target.metric)}"
    yield from _gains(target, over=found.state == "finished")
    if picture is not None:
        yield f"![progress of the run]({picture})"
    yield "### Noise"
    yield _noise(target)
    yield "### Verdicts"
    yield _table(
        ["verdict", "experiments", "meaning"],
        [[v, str(n), _MEANINGS[v]] for v, n in target.verdicts.items() if n],
        right={1},
    )
    yield _sentence(markdown(merge_line(state, state.targets[target.name]))) + "."
    yield from _kept_section(target)
    yield from _refused_section(target.refused)
    yield from _cases_section(target)
    yield from _demands(target)


def _noise(target: TargetFindings) -> str:
    if target.scatter is None:
        return "Not known: no commit was measured twice."
    words = f"{_sentence(markdown(noise_words(target.scatter)))}."
    return words if target.scatter.deterministic else f"{words} Smaller gains are mostly missed."


def _gains(target: TargetFindings, *, over: bool) -> Iterator[str]:
    """The headline: the gain three ways, what each is, and what speaks against it."""
    head = target.headline
    if head.search is None:
        yield f"**No improvement was found{'' if over else ' so far'}:** best is the base."
        return
    rows = [
        ["search gain", *_gain(head.search), "by the records. These runs chose the winners, so "
         "it is an upper bound"],
        ["**fresh result**", *_gain(head.fresh), "base and best measured again at the end, in "
         "turn, with seeds used nowhere else. Believe this one"],
    ]  # fmt: skip
    if head.final is not None:
        rows.append(["confirmed gain", *_gain(head.confirmed), "the same by `final`, which no "
                     "proposer saw. Believe it most of all"])  # fmt: skip
    rows += [
        [f"cost {_text(cost.name, CASE)}", *_gain(cost),
         "by the records; positive is less of it, which gives points"]
        for cost in head.costs
    ]  # fmt: skip
    yield _table(["", "gain ± s.e.", "base → best", "n", "what it is"], rows, right={1, 2, 3})
    yield "Positive is better. " + _about_final(head)
    if head.for_costs:
        yield "All that is on best was kept for costs, not for the metric."
    for doubt in head.doubts:
        yield f"> **Warning:** {_text(doubt.words, 400)}."


def _gain(gain: Gain | CostChange | None) -> list[str]:
    if gain is None:
        return ["not measured", "", ""]
    percent = f" ({signed(100 * gain.gain / abs(gain.base_mean), 3)} %)" if gain.base_mean else ""
    return [
        f"{signed(gain.gain, 4)} ± {number(gain.se, 2)}{percent}",
        f"{number(gain.base_mean)} → {number(gain.best_mean)}",
        f"{gain.base_n}+{gain.best_n}",
    ]


def _about_final(head: Headline) -> str:
    if head.final is None:
        return "There is no `final` command, so nothing confirms the gain on other data."
    said = f"`final` is: {_text(head.final)}. It ran at the end only and gated nothing."
    if head.final_failed is not None:
        return f"{said} **It failed** {_text(head.final_failed, 400)}."
    if head.confirmed is None:
        return f"`final` is: {_text(head.final)}. It runs at the end and has confirmed nothing yet."
    return said


def _kept_section(target: TargetFindings) -> Iterator[str]:
    if not target.kept:
        return
    yield "### Kept"
    yield "\n".join(line for kept in target.kept for line in _kept(kept, target.unit))
    if target.kept_unnamed:
        yield f"And {target.kept_unnamed} more: `swarm experiments --verdict keep`."


def _kept(kept: Kept, unit: str | None) -> Iterator[str]:
    there = landed(kept.merged) is not None
    fate = f"on best as `{kept.commit[:7]}`" if there else kept.merged or "not merged"
    yield f"- **#{kept.number}** {kept.agent}: {_text(kept.summary) or '(no summary)'}; {fate}"
    if kept.reason:
        yield f"  - {_text(kept.reason, 300)}"
    for remark in kept.remarks:
        yield f"  - **{_text(remark)}**"
    unit = f" {_text(unit, 20)}" if unit else ""
    gain = f"{signed(kept.gain, 4)} when it was judged; " if kept.gain is not None else ""
    if kept.n:
        now = f"{number(kept.mean)} ± {number(kept.se, 2)}{unit} (n={kept.n})"
        yield f"  - {gain}its record now: {now}"
    if kept.files:
        files = ", ".join(_text(name, CASE) for name in kept.files[:8])
        more = f" and {len(kept.files) - 8} more" if len(kept.files) > 8 else ""
        yield f"  - +{kept.lines_added} −{kept.lines_removed} lines in {files}{more}"
    for word, names in (("fixed", kept.fixed), ("broke", kept.broken)):
        if names:
            shown = ", ".join(_text(name, CASE) for name in names[:12])
            yield f"  - {word} {shown}" + (f" and {len(names) - 12} more" if names[12:] else "")
    if kept.feedback:
        yield f"  - the harness said: {_text(kept.feedback)}"


def _refused_section(refused: tuple[Refused, ...]) -> Iterator[str]:
    if not refused:
        return
    yield "### Refused (the latest)"
    yield "\n".join(
        f"- #{r.number} {r.agent} **{r.verdict}**: {_text(r.reason)}"
        + (f" — {_text(r.summary, 100)}" if r.summary and r.summary not in r.reason else "")
        for r in refused
    )


def _cases_section(target: TargetFindings) -> Iterator[str]:
    suite = target.suite
    if suite is None:
        return
    yield "### Cases"
    if suite.named:
        yield _table(
            ["case", "base", "best", "fixed by", "broken by", ""],
            [_case(case) for case in suite.named[:CASES_SHOWN]],
            right={1, 2},
        )
    if len(suite.named) > CASES_SHOWN:
        yield f"And {len(suite.named) - CASES_SHOWN} more."
    if suite.quiet == suite.total:
        yield f"All {suite.total} cases pass on best, and none has ever changed or is flaky."
        return
    yield "Passes of runs, by the records. Flaky: mixed results on one commit. " + (
        f"The other {suite.quiet} of {suite.total} cases pass on best and have never changed."
        if suite.quiet
        else f"None of the {suite.total} cases passed all the time."
    )


def _case(case: CaseHistory) -> list[str]:
    def by(numbers: Iterable[int]) -> str:
        return ", ".join(f"#{n}" for n in numbers)

    marks = [] if case.best[0] else ["fails"] if case.best[1] else ["not run"]
    marks += ["flaky"] if case.flaky else []
    sides = (f"{passes}/{runs}" for passes, runs in (case.base, case.best))
    return [_text(case.id, CASE), *sides, by(case.fixed_by), by(case.broken_by), ", ".join(marks)]


def _demands(target: TargetFindings) -> Iterator[str]:
    """What a candidate had to hold to, as configured."""
    lines = [f"constraint: {words}" for words in target.constraints]
    if target.must_pass:
        lines.append(f"must pass: {', '.join(target.must_pass[:20])}")
    if target.points:
        lines.append(f"points: {target.points}")
    lines += target.rule
    if lines:
        yield "### Demands"
        yield "\n".join(f"- {_text(line, 400)}" for line in lines)


def _whole_run(state: RunState, found: Findings) -> Iterator[str]:
    yield "## Proposers"
    yield _table(
        ["proposer", "agents", "experiments", "keeps", "invalid", "gain", "usd", "tokens"],
        [
            [_text(label, CASE), *(str(n) for n in (u.agents, u.experiments, u.keeps, u.invalid)),
             "" if u.gain is None else signed(u.gain, 3), f"{u.usd:.2f}", str(u.tokens)]
            for label, u in proposers(state).items()
        ],
        right=set(range(1, 8)),
    )  # fmt: skip
    if len(state.targets) == 1:
        yield "The gain is the sum over what reached best, by each experiment's own comparison."
    else:
        yield "Gains of several targets do not add up: each has its own metric."
    yield "## Cost"
    yield "\n".join(f"- {markdown(line)}" for line in spend_lines(state))
    yield "## Trust"
    yield "\n".join(f"- {markdown(line)}" for line in trust_lines(state))
    yield "## To reproduce"
    yield "\n".join(_reproduce(found))


def _reproduce(found: Findings) -> Iterator[str]:
    seed = f"- seed of the run: {found.seed}; measurement i of any commit has the same `SWARM_SEED`"
    yield seed
    if found.config_sha256:
        yield f"- `config.json` of the run directory: sha256 `{found.config_sha256}`"
    if found.version:
        yield f"- swarm {_text(found.version, 40)}"
    for target in found.targets:
        yield f"- base: `{target.base}`; best: `{target.best}`"
        yield f"- the wins: `git log {target.base[:10]}..{target.branch}`"
    yield f"- all experiments: `swarm experiments {found.run}`"
    yield f"- any verdict in figures: `swarm show N --run {found.run}`; its patch: `swarm diff N`"


def _table(heading: list[str], rows: list[list[str]], *, right: set[int]) -> str:
    marks = ["---:" if i in right else "---" for i in range(len(heading))]
    if not rows:
        return "None yet."
    return "\n".join(f"| {' | '.join(row)} |" for row in [heading, marks, *rows])


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


# --- the page, as HTML -------------------------------------------------------------------------

_STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --faint: #59636e; --line: #d1d9e0;
  --ground: #ffffff; --soft: #f6f8fa; --mark: #9a6700; --wash: #fff8c5; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --faint: #9198a1;
  --line: #3d444d; --ground: #0d1117; --soft: #151b23; --mark: #d29922; --wash: #2b2410; } }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: var(--ink);
  background: var(--ground); font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1, h2 { border-bottom: 1px solid var(--line); padding-bottom: .3rem; }
h1, h2, h3 { line-height: 1.25; margin: 1.6rem 0 .8rem; }
table { border-collapse: collapse; display: block; overflow-x: auto; overflow-wrap: normal; }
th, td { border: 1px solid var(--line); padding: .3rem .7rem; vertical-align: top; }
th { background: var(--soft); text-align: left; }
td { font-variant-numeric: tabular-nums; }
[style*="right"] { white-space: nowrap; }
code { background: var(--soft); padding: .1rem .3rem; border-radius: .25rem; font-size: 90%; }
blockquote { margin: 1rem 0; padding: .1rem 1rem; border-left: .3rem solid var(--mark);
  background: var(--wash); }
img { max-width: 100%; background: #ffffff; border-radius: .4rem; }
li ul { color: var(--faint); font-size: 94%; }
@media print { :root { color-scheme: light; --ink: #000; --faint: #333; --line: #999;
  --ground: #fff; --soft: #fff; --wash: #fff; --mark: #000; } body { max-width: none; margin: 0; }
  h2, h3 { break-after: avoid; } tr, img, blockquote { break-inside: avoid; }
  body { font-size: 10pt; } table { display: table; } [style*="right"] { white-space: normal; } }
"""
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}</body>
</html>
"""
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def report_html(state: RunState, found: Findings, pictures: Mapping[str, bytes]) -> str:
    """Give the report as one HTML file that needs nothing else.

    Args:
        state: what the ledger tells.
        found: what was found in it.
        pictures: by target, the PNGs that `progress_png` draws, as far as there are any.
    """
    from markdown_it import MarkdownIt  # a page is rarely made; `swarm --help` need not wait

    names = [target.name for target in found.targets if pictures.get(target.name)]
    page = report_markdown(state, found, dict.fromkeys(names, PICTURE))
    reader = MarkdownIt("commonmark", {"html": False}).enable("table")
    reader.disable(["link", "autolink", "html_inline", "html_block", "reference"])
    tokens = reader.parse(page)
    drawn = iter(names)
    for token in tokens:
        for child in token.children or ():
            if child.type == "image":  # one a target, in their order, and none leads anywhere else
                data = base64.b64encode(pictures[next(drawn)]).decode()
                child.attrSet("src", f"data:image/png;base64,{data}")
    return _PAGE.format(
        policy=_POLICY,
        title=html.escape(f"swarm: {found.run}"),
        style=_STYLE,
        body=reader.renderer.render(tokens, reader.options, {}),
    )


# --- files -------------------------------------------------------------------------------------


def write_views(rundir: RunDir, state: RunState, config: RunConfig | None = None) -> None:
    """Write `results.tsv`, `progress.png`, `summary.md`, `lessons.md` and `report.html` anew.

    Views can be made again at any time, so one that fails is a warning and the others are written.
    """
    if not state.targets:
        return

    def text(made: Callable[[], str]) -> Callable[[Path], None]:
        return lambda path: _write_text(path, made())

    for target in state.targets.values():
        _write_target(rundir, state, target, config)
    views: list[tuple[Path, Callable[[Path], None]]] = [
        (rundir.summary, text(lambda: summary_markdown(state, config))),
        (rundir.report, text(lambda: _page_beside(rundir, state, config))),
    ]
    _write(views)


def _write_target(
    rundir: RunDir, state: RunState, target: Target, config: RunConfig | None
) -> None:
    """Write the files of one target: beside those of the run, or in a folder of its own."""
    name, place = target.info.name, rundir.part(target.info.part)
    place.path.mkdir(exist_ok=True)
    views: list[tuple[Path, Callable[[Path], None]]] = [
        (place.results, lambda path: _write_text(path, results_tsv.table(state, name))),
        (place.lessons, lambda path: _write_text(path, lessons.render(state, name))),
        (place.progress, lambda path: progress_png(state, name, path)),
    ]
    if target.info.part:

        def summary(path: Path) -> None:
            _write_text(path, summary_markdown(state, config, only=name))

        def report(path: Path) -> None:
            _write_text(path, _page_beside(rundir, state, config, only=name))

        views += [(place.summary, summary), (place.report, report)]
    _write(views)


def write_lessons(rundir: RunDir, state: RunState) -> None:
    """Write the `lessons.md` of each target anew. What cannot be written is a warning."""
    for name, target in state.targets.items():
        page = lessons.render(state, name)
        place = rundir.part(target.info.part).lessons
        _write([(place, lambda path, page=page: _write_text(path, page))])


def _page_beside(
    rundir: RunDir, state: RunState, config: RunConfig | None, only: str | None = None
) -> str:
    """Give the report with the pictures that lie in the run directory already."""
    found = findings.find(state, config, digest=digest(rundir), only=only)
    places = {name: rundir.part(t.info.part).progress for name, t in state.targets.items()}
    pictures = {name: place.read_bytes() for name, place in places.items() if place.exists()}
    return report_html(state, found, pictures)


def digest(rundir: RunDir) -> str | None:
    """Give the sha256 of a run's config file, None if it cannot be read."""
    with suppress(OSError):
        return hashlib.sha256(rundir.config.read_bytes()).hexdigest()
    return None


def draw(state: RunState) -> dict[str, bytes]:
    """Draw the picture of each target as it is now, as far as there is a way to."""
    found: dict[str, bytes] = {}
    with tempfile.TemporaryDirectory(prefix="swarm-") as folder:
        path = Path(folder, "progress.png")
        for name in state.targets:
            try:
                progress_png(state, name, path)
                found[name] = path.read_bytes()
            except Exception as error:
                log.warning("could not draw the picture: %s: %s", type(error).__name__, error)
    return found


def save(path: Path, text: str) -> None:
    """Write a report to a file, whole or not at all."""
    _atomically(path, lambda temporary: _write_text(temporary, text))


def _write(views: list[tuple[Path, Callable[[Path], None]]]) -> None:
    for path, make in views:
        try:
            _atomically(path, make)
        except Exception as error:
            log.warning("could not write %s: %s: %s", path, type(error).__name__, error)


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")


def _atomically(path: Path, make: Callable[[Path], None]) -> None:
    """Make a file beside its place and move it there, so that no reader sees half of it."""
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        make(temporary)
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
