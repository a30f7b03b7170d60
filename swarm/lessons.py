"""What a run has learned: in a few lines for a briefing, and as a page for people. Pure.

Owns how experiments are summed up by what they are about. What an outcome means was decided by
others; nothing is concluded here that was not measured.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from swarm.entities import Experiment, Target, attempt_of, landed
from swarm.formats.fence import head
from swarm.formats.text import markdown, one_line, signed
from swarm.judge import Count, Record
from swarm.nearness import by_nearness, features, files
from swarm.records import Attempt
from swarm.state import RunState

OFTEN = 3
"""So many tries without a keep are a lesson."""
HELPS = 0.25
"""What helps is kept at least so often, as a share of its tries."""
TOPICS = 8
"""Most topics of one sort in a digest."""
SORTS = ("worked", "unsettled", "failed", "broken", "repeats")
LEGACY = 500
"""Most experiments that a later run is told of."""
CASES_KEPT = 50
"""Most cases that it is told each of them fixed, and broke."""
_NO_TRY = (None, "invalid", "duplicate", "aborted")
_BROKEN = ("crash", "timeout", "guard_failed", "constraint_failed")


class Topic(NamedTuple):
    """What several experiments have in common, and how they ended."""

    name: str
    tries: int
    keeps: int
    broken: int
    """Crashed, timed out, or refused by a guard or a limit."""
    best: float | None
    """The largest gain, signed so that positive is better."""

    def line(self) -> str:
        """Say it in one line."""
        said = f"{self.name}: {self.keeps} of {self.tries} kept"
        if self.best is not None:
            said += f", best {signed(self.best, 3)}"
        return said + (f", {self.broken} did not run" if self.broken else "")


class History(NamedTuple):
    """What experiments have done to one case of a suite, each by its number."""

    fixed: tuple[int, ...] = ()
    broken: tuple[int, ...] = ()

    def words(self, most: int = 3) -> str:
        """Say it, the newest first; empty where nothing has happened."""
        told = (("fixed by", self.fixed), ("broken by", self.broken))
        parts = [f"{what} {_few([f'#{n}' for n in of[::-1]], most)}" for what, of in told if of]
        return "; ".join(parts)


def _few(names: Sequence[str], most: int) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def changes(fixed: Sequence[str], broken: Sequence[str], most: int = 5) -> str:
    """Say which cases a change fixed and which it broke: `fixed c3, c9; broke c7`."""
    told = (("fixed", fixed), ("broke", broken))
    parts = [f"{what} {_few([one_line(c, 60) for c in of], most)}" for what, of in told if of]
    return "; ".join(parts)


def case_history(attempts: Iterable[Attempt]) -> dict[str, History]:
    """Give what experiments of one run have done to each case, those that did nothing left out."""
    found: dict[str, History] = defaultdict(History)
    for a in sorted(attempts, key=lambda a: a.number):
        for case in a.fixed:
            found[case] = found[case]._replace(fixed=(*found[case].fixed, a.number))
        for case in a.broken:
            found[case] = found[case]._replace(broken=(*found[case].broken, a.number))
    return dict(found)


class Digest(NamedTuple):
    """The lessons of all experiments in a few lines each."""

    works: tuple[Topic, ...]
    fails: tuple[Topic, ...]
    untouched: tuple[str, ...]
    """Files that are named in the scope and were never changed."""
    brittle: tuple[tuple[str, int], ...] = ()
    """Cases that many changes broke, with how many."""


def digest(
    attempts: Iterable[Attempt], earlier: Iterable[Attempt] = (), scope: Sequence[str] = ()
) -> Digest:
    """Sum up what was tried, in this run and in an earlier one, by files and words.

    Args:
        attempts: experiments of this run.
        earlier: experiments of the run that this one was started from.
        scope: patterns of what may be changed.
    """
    mine = list(attempts)
    tried = [a for a in (*mine, *earlier) if a.verdict not in _NO_TRY]
    topics = _topics(tried)
    works = [t for t in topics if t.keeps >= HELPS * t.tries]
    works.sort(key=lambda t: (-t.keeps / (t.tries + 2), -t.tries))
    fails = sorted((t for t in topics if not t.keeps and t.tries >= OFTEN), key=lambda t: -t.tries)
    touched = frozenset(f[5:] for a in tried for f in features(a) if f[:5] == "file ")
    plain = [p for p in scope if not p.startswith("!") and not p.endswith("/")]
    named = [p for p in plain if not any(c in p for c in "*?[")]
    untouched = tuple(p for p in named if p not in touched) if touched else ()
    return Digest(tuple(works[:TOPICS]), tuple(fails[:TOPICS]), untouched, _brittle(mine))


def _brittle(attempts: Iterable[Attempt]) -> tuple[tuple[str, int], ...]:
    often = [(c, len(h.broken)) for c, h in case_history(attempts).items()]
    often = sorted((-times, case) for case, times in often if times >= OFTEN)
    return tuple((case, -times) for times, case in often[:TOPICS])


def _topics(tried: Sequence[Attempt]) -> list[Topic]:
    """Give what at least two experiments are about; words that always go together are one."""
    of: dict[str, list[int]] = defaultdict(list)
    for place, attempt in enumerate(tried):
        for feature in sorted(features(attempt)):
            if not feature[0].isdigit():
                of[feature].append(place)
    together: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for feature, places in of.items():
        if len(places) > 1:
            together[tuple(places)].append(feature)
    found = [_topic(names, [tried[p] for p in places]) for places, names in together.items()]
    return sorted(found, key=lambda t: t.name)


def _topic(names: list[str], found: list[Attempt]) -> Topic:
    said = found[0].summary.lower()
    plain = sorted((n for n in names if n[:5] != "file "), key=lambda n: (said.find(n), n))
    where = [n[5:] for n in sorted(names) if n[:5] == "file "]
    named = [" ".join(plain[:6]), ", ".join(where[:3])]
    gains = [a.gain for a in found if a.gain is not None]
    return Topic(
        one_line(" in ".join(n for n in named if n), 80),
        len(found),
        sum(a.verdict == "keep" for a in found),
        sum(a.verdict in _BROKEN for a in found),
        max(gains, default=None),
    )


# --- for a later run ----------------------------------------------------------------------------


def legacy(state: RunState, target_name: str) -> tuple[Attempt, ...]:
    """Give what a later run is told of this one: keeps first, then what says most, trimmed.

    What this run was itself told of an earlier one goes on with it.
    """
    target = state.targets[target_name]
    newest = {a.number: a for a in target.attempts}
    own = [a for _, a in sorted(newest.items())]
    sigma = next((s.sigma for s in target.spreads.values() if s.sigma is not None), None)
    return handed_on((*own, *target.earlier), sigma)


def handed_on(attempts: Sequence[Attempt], sigma: float | None = None) -> tuple[Attempt, ...]:
    """Choose what a later run is told; `sigma` is the spread of one measurement, if known."""
    done = [a for a in attempts if a.verdict not in _NO_TRY]
    keeps = [a for a in done if a.verdict == "keep"]
    rest = by_nearness([a for a in done if a.verdict != "keep"], (), sigma)
    return tuple(_trimmed(a) for a in (*keeps, *rest)[:LEGACY])


def _trimmed(a: Attempt) -> Attempt:
    room = {"diff": 2000, "rationale": 500, "reason": 500, "feedback": 500}
    update: dict[str, object] = {name: head(getattr(a, name), most) for name, most in room.items()}
    cases: dict[str, object] = {"fixed": a.fixed[:CASES_KEPT], "broken": a.broken[:CASES_KEPT]}
    return a.model_copy(update={**update, **cases, "tail": ""})


# --- for people ---------------------------------------------------------------------------------


def facts(state: RunState, target_name: str) -> dict[str, Any]:
    """Give what a run has learned in the shapes of `swarm lessons --json`.

    `worked`, largest gain first; `unsettled`, whose z was positive and too small; `failed`, worst
    first; `broken` did not run or broke a limit; `repeats` brought nothing new; `cases` says of a
    suite how best stands with each case that it does not always pass, or that was ever fixed or
    broken, and by which experiments; `earlier` is what the run was started from.
    """
    target = state.targets[target_name]
    done = [
        e
        for _, e in sorted(state.experiments.items())
        if e.target == target_name and e.verdict not in (None, "aborted")
    ]
    rows = [_row(e) for e in done]
    found: dict[str, list[dict[str, Any]]] = {sort: [] for sort in SORTS}
    for row in rows:
        found[_sort(row)].append(row)
    for sort, upwards in (("worked", -1), ("unsettled", -1), ("failed", 1)):
        found[sort].sort(key=lambda r: (upwards * (r["gain"] or 0.0), r["number"]))
    attempts = [attempt_of(e) for e in done]
    summed = digest(attempts, target.earlier)
    metric = target.info.metric
    return {
        "run": state.run,
        "target": target_name,
        "metric": metric.name,
        "goal": metric.goal,
        "unit": metric.unit,
        "experiments": len(done),
        **found,
        "topics": [t._asdict() for t in (*summed.works, *summed.fails)],
        "cases": list(_case_rows(target, attempts)),
        "earlier": [_earlier_row(a) for a in target.earlier],
    }


def _case_rows(target: Target, attempts: Sequence[Attempt]) -> Iterator[dict[str, Any]]:
    """Give each case of a suite that fails at times on best or that some change has moved."""
    machine, history = target.machine(target.best), case_history(attempts)
    record = Record() if machine is None else target.record(target.best, machine)
    for case in target.suite:
        stands, what = record.cases.get(case, Count()), history.get(case, History())
        if stands.passes < stands.runs or any(what):
            yield {
                "id": case,
                "passes": stands.passes,
                "runs": stands.runs,
                "fixed": list(what.fixed),
                "broken": list(what.broken),
            }


def _sort(row: dict[str, Any]) -> str:
    match row["verdict"]:
        case "keep":
            return "worked"
        case "duplicate":
            return "repeats"
        case "discard":
            return "unsettled" if row["z"] is not None and row["z"] >= 0 else "failed"
        case _:
            return "broken"


def _row(e: Experiment) -> dict[str, Any]:
    return {
        "number": e.number,
        "agent": e.agent,
        "summary": e.proposal.summary,
        "rationale": e.proposal.rationale,
        "files": sorted(e.proposal.files),
        "verdict": e.verdict,
        "gain": e.gain,
        "z": e.z,
        "fixed_cases": list(e.fixed),
        "broken_cases": list(e.broken),
        "merged": e.merged,
        "reason": e.reason or e.proposal.invalid or "",
    }


def _earlier_row(a: Attempt) -> dict[str, Any]:
    return {
        "number": a.number,
        "agent": a.agent,
        "summary": a.summary,
        "rationale": a.rationale,
        "files": sorted(files(a)),
        "verdict": a.verdict,
        "gain": a.gain,
        "fixed_cases": list(a.fixed),
        "broken_cases": list(a.broken),
        "reason": a.reason,
    }


Escape = Callable[[str], str]
"""Makes a stranger's line harmless where it is shown."""


def render(state: RunState, target_name: str, escape: Escape = markdown) -> str:
    """Give what a run has learned as a page: what was tried, why, and how it ended.

    Args:
        state: what the ledger tells.
        target_name: the target meant.
        escape: `str` for a page that is read as it is and by no Markdown renderer.
    """
    found = facts(state, target_name)
    goal = f"{found['goal']} {escape(one_line(found['metric']))}"
    whole = found["experiments"]
    parts = [
        f"# Lessons of run `{one_line(found['run'])}`: {goal}",
        f"{whole} experiment{'' if whole == 1 else 's'}: "
        + ", ".join(f"{len(found[sort])} {said}" for sort, said in _COUNTED if found[sort])
        + ". Gains are signed so that positive is better."
        if whole
        else "Nothing has been decided yet.",
    ]
    for sort, title in _TITLES:
        if found[sort]:
            parts.append(f"## {title}")
            parts += _entries(sort, found[sort], found["unit"], escape)
    if found["topics"]:
        parts.append("## What experiments have in common")
        topics = [Topic(**t).line() for t in found["topics"]]
        parts.append("\n".join(f"- {escape(one_line(line))}" for line in topics))
    if found["cases"]:
        parts.append("## Cases of the suite")
        parts.append("\n".join(_case_lines(found["cases"], escape)))
    if found["earlier"]:
        parts.append("## From the run that this one was started from")
        earlier = sorted(found["earlier"], key=lambda r: -(r["gain"] or 0.0))
        parts.append("\n".join(_entry(r, found["unit"], escape) for r in earlier))
    return "\n\n".join(parts) + "\n"


_COUNTED = (
    ("worked", "worked"),
    ("unsettled", "never settled"),
    ("failed", "did not help"),
    ("broken", "did not run or broke a limit"),
    ("repeats", "repeated another"),
)
_TITLES = (
    ("worked", "What worked"),
    ("unsettled", "Never settled"),
    ("failed", "What did not help"),
    ("broken", "What did not run, or broke a limit"),
    ("repeats", "What repeated another"),
)


def _entries(
    sort: str, found: list[dict[str, Any]], unit: str | None, escape: Escape
) -> Iterator[str]:
    """Give the entries of a sort: failures by file, what broke by verdict."""
    if sort not in ("failed", "broken"):
        yield "\n".join(_entry(r, unit, escape) for r in found)
        return
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in found:
        groups[", ".join(row["files"]) if sort == "failed" else row["verdict"]].append(row)
    for name, group in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0])):
        if name:
            yield f"### {escape(one_line(name, 120))}"
        yield "\n".join(_entry(r, unit, escape) for r in group)


def _case_lines(rows: list[dict[str, Any]], escape: Escape) -> Iterator[str]:
    """Tell each case in a line: those that fail on best first, the surest failures before others.

    What no change has fixed is what is left to be learned.
    """
    for row in sorted(rows, key=lambda r: (r["passes"] / max(1, r["runs"]), -r["runs"], r["id"])):
        history = History(tuple(row["fixed"]), tuple(row["broken"])).words() or "never fixed"
        stands = f"passes {row['passes']} of {row['runs']} on best" if row["runs"] else "not run"
        yield f"- **{escape(one_line(row['id'], 60))}**: {stands}; {history}"


def _entry(row: dict[str, Any], unit: str | None, escape: Escape) -> str:
    """Tell one experiment in a line, with its reasons below."""
    said = [f"**#{row['number']}** {escape(one_line(row['summary'], 200)) or '(no summary)'}"]
    if row["gain"] is not None:
        shown = f" {escape(one_line(unit))}" if unit else ""
        said.append(f"gain {signed(row['gain'], 3)}{shown}")
    if row.get("z") is not None:
        said.append(f"z {signed(row['z'], 2)}")
    if moved := changes(row["fixed_cases"], row["broken_cases"]):
        said.append(escape(moved))
    said.append(_fate(row, escape))
    lines = [f"- {'; '.join(s for s in said if s)}"]
    for word, text in (("why", row["rationale"]), ("ended", row["reason"])):
        if short := escape(one_line(text, 400)):
            lines.append(f"  - {word}: {short}")
    return "\n".join(lines)


def _fate(row: dict[str, Any], escape: Escape) -> str:
    merged = row.get("merged")
    if row["verdict"] != "keep" or merged is None:
        return escape(str(row["verdict"]))
    sha = landed(merged)
    return f"kept, {merged}" if sha is None else f"kept, on best as `{sha[:7]}`"
