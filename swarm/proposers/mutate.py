"""The offline proposer: changes one constant, choice, operator, statement or sentence.

No key, no model, no network: the control arm that every model has to beat. Owns which site to
change next and how far, learned from the run's history. Knows no file format (`mutate_python`,
`mutate_text`, `mutate_prose` find the sites) and not how experiments are judged.

How it learns. Every number is believed to have a best value: along its scale the metric is a
parabola around the present value, `gain(d) = a·d + b·d²`. What all agents measured of the site,
failed experiments included, narrows `a` and `b` down (a Bayesian regression of two unknowns). A
proposal draws one parabola for each site and takes the highest summit (Thompson sampling). So a
direction that paid is continued, more boldly; after a loss the other side is tried; when both lost
the step shrinks; what changes nothing is left alone; what is unknown and has a telling name comes
first. A choice, an operator, a removal, a move or an example is one unknown each, treated alike.
Beliefs fade as the incumbent moves on, so that a site is tried again, rarely.
"""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from swarm.briefing import Briefing
from swarm.formats.text import is_prose
from swarm.proposers import (
    Draft,
    ExhaustedError,
    NoProposalError,
    Workspace,
    mutate_prose,
    mutate_python,
    mutate_text,
)
from swarm.proposers.examples import Example, ExamplesError, read
from swarm.proposers.mutate_names import compiles
from swarm.proposers.mutate_sites import Edit, Site, position
from swarm.records import Attempt

LARGEST_BYTES = 1_000_000
MOST_SITES = 500
"""Of one file, the most promising; a file of more is data."""
TRIES = 24
SWEEP = 200
"""How many edits one proposal compares with the measured trees before it gives up."""
FAILED = frozenset({"crash", "timeout", "invalid", "guard_failed", "constraint_failed"})
FAILURE = -1.0
"""What a failure counts as, in units of a typical effect: a clear loss."""
FADE = 0.03
"""Variance that one keep adds to every older observation: the ground has shifted."""
BOLDER = 1.4
"""A direction that paid may be followed by this much more than the step that paid."""


@lru_cache(maxsize=64)
def sites(path: str, text: str, examples: tuple[Example, ...] = ()) -> tuple[Site, ...]:
    """Find the sites of a file by its format; the most promising ones of a very large one.

    `examples` may be added to a text in prose.
    """
    found: list[Site]
    try:
        found = (mutate_python if path.endswith(".py") else mutate_text).sites(path, text)
    except SyntaxError:
        found = mutate_text.sites(path, text)
    if is_prose(path):
        kept = mutate_prose.untouchable(text)
        found = [s for s in found if not any(a < s.end and s.start < b for a, b in kept)]
        found += mutate_prose.sites(path, text, examples)
    if len(found) > MOST_SITES:
        found = sorted(found, key=lambda site: -site.weight)[:MOST_SITES]
    return tuple(found)


@dataclass(frozen=True, slots=True)
class _Trial:
    """One attempt at a site, of any agent."""

    number: int
    agent: str
    base: str
    verdict: str | None
    gain: float | None
    start: Any
    to: Any
    direction: str
    age: int = 0
    """How many keeps of the target came later."""


@dataclass
class _History:
    """What the attempts of a briefing say, by site."""

    unit: float
    """A typical effect, in the metric's own unit; gains are divided by it."""
    error: float
    """Standard error of one gain, in `unit`s."""
    trials: dict[str, list[_Trial]] = field(default_factory=dict[str, list[_Trial]])
    soundness: dict[str, float] = field(default_factory=dict[str, float])
    """Share of the attempts of a kind that could be measured."""
    busy: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])
    """(site, direction) that somebody is trying, or has won and not yet merged."""


@dataclass(frozen=True, slots=True)
class _Pick:
    edit: Edit
    worth: float


class Mutate:
    """One agent's mutations. All its state is the briefing's history."""

    def __init__(self, agent: str, examples: tuple[str, ...] = ()) -> None:
        self.agent = agent
        self._examples = examples
        """Globs of the files with examples for a text in prose."""

    def propose(self, workspace: Workspace, briefing: Briefing) -> Draft:
        """Change one site.

        Raises:
            ExhaustedError: every edit of every site was tried on this incumbent, or none exists.
            NoProposalError: none of those looked at was new, or the examples cannot be read.
        """
        rng = random.Random(briefing.seed)
        texts = _read(workspace)
        try:
            examples = read(workspace.root, self._examples, workspace.hidden)
        except ExamplesError as error:
            raise NoProposalError(str(error)) from error
        found = [site for path, text in texts.items() for site in sites(path, text, examples)]
        if not found:
            raise ExhaustedError("no file in scope holds a number, a choice or a statement to try")
        history = read_history(briefing, {site.key: site.value for site in found})
        trying = _Trying(workspace, texts)
        if briefing.port is not None:
            ported = _port(found, briefing)
            if ported is not None and trying.fits(ported):
                why = f"Carries experiment {briefing.port.number} over to this incumbent."
                return self._draft(ported, why, briefing.port.number)
        for pick in _rank(found, history, briefing.incumbent, rng)[:TRIES]:
            if trying.fits(pick.edit):
                return self._draft(pick.edit, _reason(pick.edit, history, briefing))
        edit = trying.sweep(found, rng)
        return self._draft(edit, _reason(edit, history, briefing))

    def _draft(self, edit: Edit, rationale: str, port_of: int | None = None) -> Draft:
        return Draft(edit.summary(), rationale, edit=edit.to_json(), port_of=port_of)


# --- the worktree ------------------------------------------------------------------------------


def _read(workspace: Workspace) -> dict[str, str]:
    """Read the files in scope that are text of a reasonable size."""
    texts: dict[str, str] = {}
    for name in workspace.files:
        path = workspace.root / name
        if path.is_symlink() or not path.is_file() or path.stat().st_size > LARGEST_BYTES:
            continue
        try:
            text = path.read_bytes().decode()
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            texts[name] = text
    return texts


class _Trying:
    """Applies edits to the worktree until one gives a tree that nobody has measured."""

    def __init__(self, workspace: Workspace, texts: Mapping[str, str]) -> None:
        self._workspace = workspace
        self._texts = texts
        self._seen: set[tuple[str, str]] = set()

    def fits(self, edit: Edit) -> bool:
        """Apply the edit; take it back if the result is no program or already measured."""
        path = edit.site.path
        old = self._texts[path]
        new = edit.apply(old)
        if new == old or (path, new) in self._seen:
            return False
        self._seen.add((path, new))
        # A file that could not be parsed before is edited as text, and cannot get worse.
        if path.endswith(".py") and not compiles(path, new) and compiles(path, old):
            return False
        file = self._workspace.root / path
        file.write_bytes(new.encode())
        if self._workspace.measured() is None:
            return True
        file.write_bytes(old.encode())
        return False

    def sweep(self, found: Iterable[Site], rng: random.Random) -> Edit:
        """Take any edit that is left, likelier sites first."""
        order = sorted(found, key=lambda site: -site.weight * rng.uniform(0.5, 1.0))
        left = SWEEP
        for site in order:
            for edit in site.edits():
                if left == 0:
                    raise NoProposalError(f"none of {SWEEP} edits gave a tree that is new")
                known = len(self._seen)
                if self.fits(edit):
                    return edit
                left -= len(self._seen) - known
        raise ExhaustedError("every edit of every site in scope was tried on this incumbent")


def _port(found: list[Site], briefing: Briefing) -> Edit | None:
    wanted = briefing.port.edit if briefing.port is not None else None
    if not wanted:
        return None
    site = next((s for s in found if s.key == wanted.get("site")), None)
    to = wanted.get("to")
    if site is None or not (to is None or isinstance(to, bool | int | float | str)):
        return None
    return site.set(to)


# --- history -----------------------------------------------------------------------------------


def read_history(briefing: Briefing, present: Mapping[str, Any]) -> _History:
    """Sort the attempts by site; `present` is what each site holds in the worktree."""
    judged = [abs(a.gain) for a in briefing.attempts if a.gain is not None]
    noise = briefing.noise or 0.0
    moved = sorted(g for g in judged if g > 2 * noise and g > 0)
    # The median of the effects that stand out; before there are any, a small multiple of noise.
    unit = moved[len(moved) // 2] if moved else 3 * noise
    unit = unit or (abs(briefing.incumbent_mean or 0.0) * 0.02) or 1.0
    error = math.sqrt(2) * noise / unit if briefing.noise is not None else 0.3
    history = _History(unit=unit, error=max(error, 0.05))
    sound: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    keeps = 0
    recent = max((a.number for a in briefing.attempts), default=0) - 2 * len(
        {a.agent for a in briefing.attempts}
    )
    grouped: dict[str, list[_Trial]] = defaultdict(list)
    for attempt in reversed(briefing.attempts):
        trial = _trial(attempt, keeps)
        if attempt.verdict == "keep":
            keeps += 1
        if trial is None or attempt.edit is None:
            continue
        key = str(attempt.edit["site"])
        grouped[key].append(trial)
        kind = str(attempt.edit.get("kind"))
        if trial.verdict is None:
            history.busy.add((key, trial.direction))
        elif trial.verdict in FAILED:
            failed[kind] += 1
        elif trial.verdict in ("keep", "discard"):
            sound[kind] += 1
            waiting = trial.verdict == "keep" and trial.number > recent
            if waiting and present.get(key) == trial.start:
                history.busy.add((key, trial.direction))
    history.trials = {key: trials[::-1] for key, trials in grouped.items()}
    for kind in {*sound, *failed}:
        history.soundness[kind] = (sound[kind] + 3) / (sound[kind] + failed[kind] + 3)
    return history


def _trial(attempt: Attempt, age: int) -> _Trial | None:
    edit = attempt.edit
    if not edit or not isinstance(edit.get("site"), str):
        return None
    return _Trial(
        number=attempt.number,
        agent=attempt.agent,
        base=attempt.base,
        verdict=attempt.verdict,
        gain=attempt.gain,
        start=edit.get("from"),
        to=edit.get("to"),
        direction=str(edit.get("direction")),
        age=age,
    )


def _outcome(trial: _Trial, history: _History) -> float | None:
    """Give what a trial showed, in units; None if it showed nothing."""
    if trial.gain is not None and math.isfinite(trial.gain):
        return max(-3.0, min(3.0, trial.gain / history.unit))
    return FAILURE if trial.verdict in FAILED else None


def _retired(site: Site, trials: list[_Trial], history: _History) -> bool:
    """Tell whether a site has had its chances: it only ever failed, or never changed a thing."""
    fresh = [t for t in trials if t.age < 6]
    failed = sum(t.verdict in FAILED for t in fresh)
    gains = [t.gain / history.unit for t in fresh if t.gain is not None]
    if not gains:
        return failed >= 2
    enough = 2 if all(g == 0 for g in gains) else 4
    return len(gains) >= enough and all(abs(g) <= 0.5 * history.error for g in gains)


# --- beliefs -----------------------------------------------------------------------------------


def _rank(found: list[Site], history: _History, incumbent: str, rng: random.Random) -> list[_Pick]:
    """Draw a belief for each site; give each site's best new edit, the most promising first."""
    picks: list[_Pick] = []
    for site in found:
        trials = history.trials.get(site.key, [])
        if _retired(site, trials, history):
            rng.random()  # the draw of one site must not depend on another's retirement
            continue
        weight = site.weight * history.soundness.get(site.kind, 1.0)
        if site.kind == "number" and site.value:
            candidates = _draw_number(site, weight, trials, history, rng)
        else:
            candidates = _draw_options(site, weight, trials, history, rng)
        tried = {str(t.to) for t in trials if t.base == incumbent}
        free = [
            pick
            for pick in candidates
            if (site.key, pick.edit.direction) not in history.busy
            and str(pick.edit.to) not in tried
        ]
        if free:
            picks.append(max(free, key=lambda pick: pick.worth))
    return sorted(picks, key=lambda pick: -pick.worth)


def _draw_number(
    site: Site, weight: float, trials: list[_Trial], history: _History, rng: random.Random
) -> list[_Pick]:
    here = position(site.value, site.scale)
    assert here is not None, site
    a, b, reach = _draw_parabola(site, here, weight, trials, history, rng)
    best = max(-reach, min(reach, -a / (2 * b)))
    picks: list[_Pick] = []
    for step in (best, *(s for s in (1.0, -1.0, 0.5, -0.5, 0.25, -0.25) if abs(s) <= reach)):
        edit = site.moved(step) if abs(step) >= 0.08 else None
        there = position(edit.to, site.scale) if edit is not None else None
        if edit is not None and there is not None:
            d = there - here  # what rounding made of the step
            picks.append(_Pick(edit, a * d + b * d * d))
    return picks + _draw_options(site, 0.7 * weight, trials, history, rng)


def _draw_parabola(
    site: Site,
    here: float,
    weight: float,
    trials: list[_Trial],
    history: _History,
    rng: random.Random,
) -> tuple[float, float, float]:
    """Draw `a`, `b` of gain(d) = a·d + b·d², and how far from here that may be trusted."""
    seen: list[tuple[float, float, float, float]] = []
    reach = 1.0
    strong = 0.0
    for trial in trials:
        start, to = position(trial.start, site.scale), position(trial.to, site.scale)
        y = _outcome(trial, history)
        if start is None or to is None or y is None:
            continue
        x1, x2 = to - here, start - here
        far = max(abs(x1), abs(x2))
        variance = history.error**2 + FADE * trial.age + (0.15 * far * far) ** 2 + 0.01
        seen.append((x1 - x2, x1 * x1 - x2 * x2, y, variance))
        strong = max(strong, abs(y) - 2 * history.error)
        if trial.verdict == "keep":
            reach = max(reach, min(3.0, BOLDER * abs(to - start)))
    # A dull name that turned out to matter is believed like a telling one.
    width = max(weight, min(1.0, strong))
    return (*_posterior_draw(site.slope * weight, width, seen, rng), reach)


def _posterior_draw(
    slope: float, width: float, seen: list[tuple[float, float, float, float]], rng: random.Random
) -> tuple[float, float]:
    """Draw from the posterior of a two-parameter linear regression with a normal prior."""
    prior_a, prior_b = 1 / width**2, 1 / (0.35 * width) ** 2
    mean_b = -0.45 * width
    aa, ab, bb = prior_a, 0.0, prior_b
    va, vb = slope * prior_a, mean_b * prior_b
    for u, v, y, variance in seen:
        aa += u * u / variance
        ab += u * v / variance
        bb += v * v / variance
        va += u * y / variance
        vb += v * y / variance
    determinant = aa * bb - ab * ab
    mean_a, mean_b = (bb * va - ab * vb) / determinant, (aa * vb - ab * va) / determinant
    # Cholesky factor of the covariance, the inverse of [[aa, ab], [ab, bb]].
    spread_a = math.sqrt(bb / determinant)
    tilt = -ab / determinant / spread_a
    rest = math.sqrt(max(aa / determinant - tilt * tilt, 0.0))
    first, second = rng.gauss(0, 1), rng.gauss(0, 1)
    a = mean_a + spread_a * first
    return a, min(mean_b + tilt * first + rest * second, -0.05 * width)


def _draw_options(
    site: Site, weight: float, trials: list[_Trial], history: _History, rng: random.Random
) -> list[_Pick]:
    picks: list[_Pick] = []
    for edit in (e for o in site.options if (e := site.set(o.value)) is not None):
        width = 0.6 * weight * max(edit.step, 0.1)
        precision, mean = 1 / width**2, -0.1 * width
        total = mean * precision
        for trial in trials:
            y = _outcome(trial, history)
            if y is None or trial.start == trial.to:
                continue
            forth = trial.start == site.value and trial.to == edit.to
            back = trial.to == site.value and trial.start == edit.to
            if forth or back:
                variance = history.error**2 + FADE * trial.age + 0.01
                precision += 1 / variance
                total += (y if forth else -y) / variance
        worth = total / precision + rng.gauss(0, 1) / math.sqrt(precision)
        picks.append(_Pick(edit, worth))
    return picks


# --- reasons -----------------------------------------------------------------------------------

_DOING = {
    "up": "raising it",
    "down": "lowering it",
    "remove": "removing it",
    "drop": "dropping it",
    "section": "deleting it",
    "sentence": "deleting it",
    "True": "having it",
    "False": "not having it",
}


def _reason(edit: Edit, history: _History, briefing: Briefing) -> str:
    """Say in one sentence why this site and this direction, now."""
    trials = [t for t in history.trials.get(edit.site.key, []) if t.verdict is not None]
    same = next((t for t in reversed(trials) if t.direction == edit.direction), None)
    other = next((t for t in reversed(trials) if t.direction != edit.direction), None)
    stepped = edit.direction in ("up", "down")
    if not trials:
        telling = edit.site.weight >= 0.5 and edit.site.kind in ("number", "bool", "choice")
        return f"Not tried yet{', and constants of this name often matter' * telling}."
    if same and same.verdict == "keep":
        return f"{_told(same, briefing)}; {'going further' if stepped else 'trying it again'}."
    if same and other and stepped and other.verdict != "keep":
        numbers = " and ".join(str(n) for n in sorted((same.number, other.number)))
        return f"Neither direction won in experiments {numbers}; trying another step."
    if same:
        what = "the step or the incumbent" if stepped else "the incumbent"
        return f"{_told(same, briefing)}; {what} is another now."
    assert other is not None
    if not stepped:
        return f"{_told(other, briefing)}; trying `{edit.to}`."
    if other.verdict == "keep":
        return f"{_told(other, briefing)}; checking that it did not go too far."
    return f"{_told(other, briefing)}; trying the other way."


def _told(trial: _Trial, briefing: Briefing) -> str:
    doing = _DOING.get(trial.direction, f"`{trial.to}`")
    doing = doing[0].upper() + doing[1:]
    if trial.gain is None:
        return f"{doing} gave {trial.verdict} in experiment {trial.number}"
    size = abs(trial.gain)
    mean = briefing.incumbent_mean
    shown = f"{100 * size / abs(mean):.2g} %" if mean else f"{size:.3g}"
    if trial.gain == 0:
        return f"{doing} changed nothing in experiment {trial.number}"
    verb = ("won by" if trial.verdict == "keep" else "gained") if trial.gain > 0 else "lost"
    return f"{doing} {verb} {shown} in experiment {trial.number}"
