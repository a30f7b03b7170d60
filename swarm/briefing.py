"""All that a proposer is told. Pure: values in, briefing out; no file, no clock, no randomness."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from itertools import takewhile
from typing import NamedTuple

from pydantic import Field

from swarm import prose
from swarm.formats.fence import RULE, fenced
from swarm.formats.fitting import ENOUGH, Section, block, lay_out, rows
from swarm.formats.text import number, one_line, signed
from swarm.groups import Role
from swarm.lessons import History, case_history, changes, digest
from swarm.nearness import by_nearness, features, words
from swarm.records import CASES, VERDICTS, Attempt, MetricSpec, Noun, Twin

CHARS = 4
"""Characters that a token is taken for."""
OWN = 5
"""An agent's own last experiments that are told in detail."""
MOST = 100
"""Most experiments of others in one briefing: more only blur the picture."""
DETAILED = 12
"""The nearest of them are told with their reasons."""
SUMMARY = 200
"""Characters of a one-line text."""
FEW = 3000
"""Characters that a crash or a port has in any case."""
LITTLE = 800
"""Characters that the list of keeps has in any case, and that of failing cases."""
CASE = 60
"""Characters of a case's id."""
FAILURES = ("crash", "timeout", "guard_failed", "constraint_failed", "invalid")


class Idea(Noun):
    """A proven change that did not fit on `best` textually; to be carried over by a proposer."""

    number: int
    summary: str
    rationale: str
    diff: str
    edit: dict[str, object] | None = None


class Version(Noun):
    """An earlier version of a short text, and what it measured as."""

    number: int
    """Of the experiment; 0 is the base."""
    value: float
    """Its mean."""
    files: tuple[tuple[str, str], ...]
    """Path and text of each."""


class Directive(Noun):
    """What kind of change is wanted in this round, and why."""

    role: Role = "explore"
    pivot: bool = False
    """The agent's last ideas failed in a row: begin afresh, in another direction."""
    plateau: bool = False
    """Nobody has found anything for long: change the structure, not a constant or a wording."""
    streak: int = 0
    """Experiments of this agent in a row without a keep."""
    retry: int | None = None
    """An earlier experiment to be tried again, because `best` has moved far since."""


class Crash(Noun):
    """An experiment of the agent's own that crashed and may be mended. Its change, not the
    incumbent, is in the worktree.
    """

    number: int
    summary: str
    rationale: str
    diff: str
    reason: str
    tail: str


class Repeat(Noun):
    """The agent's last proposal, which was not taken because it repeats an earlier one."""

    twin: Twin
    summary: str


class CaseCount(Noun):
    """How often one case was run on the incumbent, and passed."""

    id: str
    passes: int
    runs: int


class Suite(Noun):
    """How the incumbent stands with the cases of a suite."""

    size: int
    """All its cases; those that are not listed always pass."""
    failing: tuple[CaseCount, ...] = ()
    """They never pass."""
    flaky: tuple[CaseCount, ...] = ()
    """They pass at times."""
    must_pass: frozenset[str] = frozenset()


class Briefing(Noun):
    """What one proposal is made from."""

    run: str
    agent: str
    metric: MetricSpec
    scope: tuple[str, ...]
    program: str = ""
    """The objective and the rules, in the user's words."""
    limits: tuple[str, ...] = ()
    """The constraints and the limits on a change, one sentence each."""
    counts: tuple[str, ...] = ()
    """What a change is kept for, where that is not the metric alone; one sentence each."""
    seed: int
    """Differs for every proposal of a run; all randomness of a proposer comes from it."""
    incumbent: str
    """The commit in the worktree, which the candidate will be compared with."""
    incumbent_mean: float | None = None
    incumbent_se: float | None = None
    noise: float | None = None
    """Run-to-run standard deviation of the metric, None until it is known."""
    detectable: float | None = None
    """The smallest gain that can be told from noise, in the metric's unit."""
    level: int = 0
    """How many promotions `best` has seen."""
    suite: Suite | None = None
    """Of a target that reports cases, once its incumbent was measured."""
    directive: Directive = Directive()
    attempts: tuple[Attempt, ...] = Field(default=(), repr=False)
    """Every experiment of the target so far, by any agent, in flight included, by number."""
    earlier: tuple[Attempt, ...] = Field(default=(), repr=False)
    """Experiments of an earlier run, which this one was started from."""
    others: tuple[str, ...] = ()
    """Summaries of changes by others that are prepared but have no number yet."""
    port: Idea | None = None
    crash: Crash | None = None
    repeat: Repeat | None = None
    versions: tuple[Version, ...] = Field(default=(), repr=False)
    """Of a short text in prose: its best versions so far, the best last, without the incumbent."""


class Text(NamedTuple):
    """A briefing in words."""

    prefix: str
    """The same for every experiment of a group as long as the program does not change."""
    round: str
    """What is known now."""

    @property
    def whole(self) -> str:
        """Both, for proposers that take one text."""
        return f"{self.prefix}\n\n{self.round}"


def render(briefing: Briefing, *, allowance: int = 8_000) -> Text:
    """Put a briefing into words, in at most about `allowance` tokens beyond the program.

    Text that agents, candidates and harnesses wrote is delimited as data. The program is never
    cut; the rest is shortened from the least important on, and says what was left out.
    """
    prefix = _prefix(briefing)
    room = CHARS * allowance - (len(prefix) - len(briefing.program))
    sections = _sections(briefing)
    ranked = sorted(range(len(sections)), key=lambda i: sections[i][0])
    order = sorted(range(len(ranked)), key=lambda place: ranked[place])
    return Text(prefix, lay_out([sections[i][1] for i in ranked], order, max(0, room)))


# --- what stays ---------------------------------------------------------------------------------


def _prefix(b: Briefing) -> str:
    metric = b.metric
    unit = f", in {one_line(metric.unit)}" if metric.unit else ""
    name, way = one_line(metric.name), prose.DIRECTION[metric.goal]
    objective = f"{metric.goal.capitalize()} `{name}`{unit}: {way}."
    objective = "\n".join([objective, *map(one_line, b.counts)])
    parts = [f"# Your part\n\n{prose.PART}", f"## The objective\n\n{objective}"]
    if b.program.strip():
        said = "In the words of the person who asks for it:"
        end = "" if b.program.endswith("\n") else "\n"
        parts.append(f"## The program\n\n{said}\n\n<program>\n{b.program}{end}</program>")
    parts += [
        "## The scope\n\nYou may change files that match these patterns, and no others:\n"
        + "\n".join(f"- `{one_line(p)}`" for p in b.scope),
        f"## The rules\n\n{prose.RULES}",
    ]
    if b.limits:
        parts.append("## The limits\n\n" + "\n".join(f"- {one_line(t)}" for t in b.limits))
    parts.append(f"## What is data\n\n{RULE}")
    return "\n\n".join(parts)


# --- what is known now --------------------------------------------------------------------------


def _sections(b: Briefing) -> list[tuple[int, Section]]:
    """Give all that may be said in this round in order of reading, each with its rank."""
    told = _Told(b)
    return [
        (0, Section("Where things stand", 1, lambda _: _standing(b), least=ENOUGH)),
        (1, Section("What is asked of you now", 1, lambda _: _directive(b), least=ENOUGH)),
        (2, Section("Your last proposal was not taken", 1, lambda _: _repeat(b), least=ENOUGH)),
        (3, Section("A crash to mend", 0.4, partial(_crash, b), least=FEW)),
        (4, Section("A change to carry over", 0.4, partial(_port, b), least=FEW)),
        (5, Section("Cases that your incumbent fails", 0.15, partial(_cases, b), least=LITTLE)),
        (9, Section("An idea to try again", 0.2, partial(_retry, b))),
        (6, Section("Your last failure", 0.15, partial(_failure, told))),
        (7, Section("Tried in vain", 0.1, partial(_exhausted, b, told))),
        (8, Section("Being tried right now", 0.08, partial(_in_flight, b))),
        (10, Section("Your own last experiments", 0.15, partial(_own, b, told))),
        (11, Section("Kept so far", 0.15, partial(_kept, b, told), least=LITTLE)),
        (12, Section("Versions of the text, the best last", 0.3, partial(_versions, b))),
        (13, Section("What else was tried, the nearest first", 0.25, partial(_nearest, b, told))),
        (14, Section("What the harness said last", 0.1, partial(_feedback, told))),
        (15, Section("Lessons", 0.08, partial(_lessons, told))),
        (16, Section("Tried in an earlier run", 0.15, partial(_earlier, b, told))),
    ]


class _Told:
    """The experiments of a briefing, sorted out."""

    def __init__(self, b: Briefing) -> None:
        done = [a for a in b.attempts if a.verdict not in (None, "aborted")]
        self.done = sorted(done, key=lambda a: a.number)
        self.own = [a for a in self.done if a.agent == b.agent][::-1]
        """The agent's own, the newest first."""
        keeps = [a for a in self.done if a.verdict == "keep"]
        self.keeps = sorted(keeps, key=lambda a: (-a.level, -(a.gain or 0.0), -a.number))
        recent = {a.number for a in self.own[:OWN]}
        rest = [a for a in self.done if a.verdict != "keep" and a.number not in recent]
        self.focus = _focus(b, self.own)
        self.rest = by_nearness(rest, self.focus, b.noise)
        self.lessons = digest(b.attempts, b.earlier, b.scope)


def _focus(b: Briefing, own: list[Attempt]) -> frozenset[str]:
    """Give what the next change is likely to be about."""
    found = frozenset[str]().union(*(features(a) for a in own[:3]))
    said = [x.summary for x in (b.port, b.crash, b.repeat) if x is not None]
    said += [a.summary for a in b.attempts if a.number == b.directive.retry]
    return found.union(*(words(text) for text in said))


def _value(b: Briefing, value: float | None) -> str:
    unit = f" {one_line(b.metric.unit)}" if b.metric.unit else ""
    return f"{number(value)}{unit}"


def _standing(b: Briefing) -> str:
    name, way = one_line(b.metric.name), prose.DIRECTION[b.metric.goal]
    lines = [f"You are {one_line(b.agent)}. Your incumbent has not been measured yet."]
    if b.incumbent_mean is not None:
        error = f" ± {number(b.incumbent_se, 2)} (s.e.)" if b.incumbent_se is not None else ""
        value = f"{number(b.incumbent_mean)}{error}"
        unit = f" {one_line(b.metric.unit)}" if b.metric.unit else ""
        lines = [f"You are {one_line(b.agent)}. Your incumbent has {name} = {value}{unit}; {way}."]
    if b.suite is not None:
        lines.append(_suite(b.suite))
    if b.noise:
        lines.append(f"One measurement varies by about {number(b.noise, 2)} by itself (s.d.).")
        if b.detectable is not None:
            least = _value(b, _rounded(b.detectable))
            if b.suite is not None and b.metric.name == CASES:
                least += f" ({number(b.detectable * b.suite.size, 2)} of {b.suite.size} cases)"
            lines.append(f"A gain below {least} cannot be detected.")
    elif b.noise == 0:
        lines.append("Measurements repeat exactly, so that any gain can be detected.")
    else:
        lines.append("How much measurements vary by themselves is not known yet.")
    steps = "once" if b.level == 1 else f"{b.level} times"
    lines.append(f"`best` has moved {steps} so far." if b.level else "`best` is still the base.")
    lines.append(_counts(b.attempts))
    return "\n".join(lines)


def _suite(suite: Suite) -> str:
    fail, flaky = len(suite.failing), len(suite.flaky)
    always = suite.size - fail - flaky
    mixed = f", {flaky} pass{'es' if flaky == 1 else ''} at times" if flaky else ""
    return (
        f"Of the {suite.size} cases {always} always pass{'es' if always == 1 else ''}{mixed}, "
        f"{fail or 'none'} never do{'es' if fail == 1 else ''}."
    )


def _cases(b: Briefing, room: int) -> str:
    """Tell what fails: first what changes have fixed most often, so that it can be; flaky last."""
    if b.suite is None:
        return ""
    done, suite = case_history(b.attempts), b.suite

    def telling(c: CaseCount) -> tuple[int, int, int]:
        fixed = len(done.get(c.id, History()).fixed)
        return -fixed, -c.runs, abs(2 * c.passes - c.runs)

    found = [*sorted(suite.failing, key=telling), *sorted(suite.flaky, key=telling)]
    lines: list[str] = []
    for c in found:
        what = "flaky, passes" if c.passes else "passes"
        must = "; must pass" if c.id in suite.must_pass else ""
        history = done.get(c.id, History()).words()
        said = f"; {history}" if history else ""
        lines.append(f"{one_line(c.id, CASE)}: {what} {c.passes} of {c.runs}{must}{said}")

    def more(shown: int) -> str:
        left = found[shown:]
        flaky = sum(bool(c.passes) for c in left)
        return f"{len(left)} more: {len(left) - flaky} failing, {flaky} flaky"

    return rows(lines, room, "cases, the most telling first", more)


def _rounded(value: float) -> float:
    return float(f"{value:.2g}")


def _counts(attempts: Sequence[Attempt]) -> str:
    attempts = [a for a in attempts if a.verdict != "aborted"]
    if not attempts:
        return "Nothing has been tried yet: yours is the first experiment."
    gains = "Gains below are signed so that positive is better."
    whole = "1 experiment" if len(attempts) == 1 else f"{len(attempts)} experiments"
    return f"{whole} so far: {_by_verdict(attempts)}. {gains}"


def _by_verdict(attempts: Sequence[Attempt]) -> str:
    count = Counter(a.verdict for a in attempts)
    found = [f"{count[v]} {v}" for v in VERDICTS if count[v]]
    return ", ".join([*found, *([f"{count[None]} in flight"] if count[None] else [])])


def _directive(b: Briefing) -> str:
    if b.crash is not None:
        return "Mend the change that crashed, or give it up."
    if b.port is not None:
        return "Carry a proven change over to the present code."
    wanted = b.directive
    parts = [prose.ROLES[wanted.role]]
    if wanted.plateau:
        parts.append(prose.PLATEAU)
    if wanted.pivot:
        parts.append(prose.PIVOT.format(streak=wanted.streak or OWN))
    return "\n\n".join(parts)


def _repeat(b: Briefing) -> str:
    if b.repeat is None:
        return ""
    twin = b.repeat.twin
    found = next((a for a in b.attempts if a.number == twin.number), None)
    if twin.number is None:
        what, how = "a change that another agent has prepared", "it is about to be measured"
    elif twin.number == 0:
        what, how = "the base itself", "it changes nothing"
    else:
        what = f"experiment #{twin.number}"
        how = "its outcome is not known yet" if found is None else _outcome(found)
    same = {
        "tree": "the files come out the same",
        "change": "it is the same change",
        "summary": "it says the same",
    }[twin.same]
    lines = [f"It repeats {what} ({same}): {how}. Make another change."]
    if twin.same != "tree":
        lines.append("If yours is truly different, say in the summary how.")
    texts = [f"yours: {one_line(b.repeat.summary, SUMMARY)}"]
    if found is not None:
        texts.append(f"#{found.number}: {one_line(found.summary, SUMMARY)}")
        texts += [f"its outcome: {why}"] if (why := one_line(found.reason, SUMMARY)) else []
    return "\n".join([*lines, fenced("\n".join(texts), "the two")])


def _outcome(a: Attempt) -> str:
    """Say in a few words of ours how an experiment ended."""
    if a.verdict is None:
        return "in flight"
    if a.gain is None or a.verdict not in ("keep", "discard"):
        return a.verdict
    return f"{a.verdict}, gain {signed(a.gain, 3)}"


# --- one thing to be done -----------------------------------------------------------------------


def _idea(words_of: str, idea: Idea | Crash | Attempt, room: int, *, more: str = "") -> str:
    """Give our words, then what a change was, then its diff as far as there is room."""
    texts = [one_line(idea.summary, SUMMARY) or "(no summary)"]
    texts += [f"why: {why}"] if (why := one_line(idea.rationale, 600)) else []
    said = f"{words_of}\n{fenced(chr(10).join(texts), f'#{idea.number}')}"
    if more:
        said += f"\n{more}"
    if len(said) > room:
        return ""
    diff = block(idea.diff, room - len(said) - 1, f"the diff of #{idea.number}")
    if not diff and idea.diff:
        return f"{said}\n(Its diff is left out for lack of room.)"
    return f"{said}\n{diff}" if diff else said


def _port(b: Briefing, room: int) -> str:
    if b.port is None:
        return ""
    found = next((a for a in b.attempts if a.number == b.port.number), None)
    how = f"\nIts outcome: {_outcome(found)}." if found is not None and found.verdict else ""
    return _idea(prose.PORT + how, b.port, room)


def _retry(b: Briefing, room: int) -> str:
    found = next((a for a in b.attempts if a.number == b.directive.retry), None)
    if found is None or b.crash is not None or b.port is not None:
        return ""
    ago = max(0, b.level - found.level)
    how = f"How it ended then, {ago} promotions of `best` ago: {_outcome(found)}."
    return _idea(f"{prose.RETRY}\n{how}", found, room)


def _crash(b: Briefing, room: int) -> str:
    if b.crash is None:
        return ""
    reason = one_line(b.crash.reason, SUMMARY) or "no reason is known"
    why = fenced(reason, "why it failed")
    log = block(b.crash.tail, room // 3, "the end of its log", end=True)
    return _idea(prose.CRASH, b.crash, room, more=f"{why}\n{log}" if log else why)


# --- the memory ---------------------------------------------------------------------------------


def _failure(told: _Told, room: int) -> str:
    """Tell the agent's last failure, if it is among its last three experiments."""
    found = next((a for a in told.own[:3] if a.verdict in FAILURES), None)
    if found is None:
        return ""
    reason = fenced(one_line(found.reason, 400) or "no reason is known", "why")
    if found.verdict == "invalid" and found is told.own[0]:
        said = f"{prose.INVALID}\n{reason}"
    else:
        what = one_line(found.summary, SUMMARY)
        said = f"#{found.number} ended as {found.verdict}.\n{fenced(what, 'what it was')}\n{reason}"
    if len(said) > room:
        return ""
    log = block(
        found.tail, room - len(said) - 1, f"the end of the log of #{found.number}", end=True
    )
    return f"{said}\n{log}" if log else said


def _exhausted(b: Briefing, told: _Told, room: int) -> str:
    """Tell what a pivot leads away from."""
    if not b.directive.pivot or b.crash is not None or b.port is not None:
        return ""
    failed = list(takewhile(lambda a: a.verdict != "keep", told.own))
    return rows([_row(a) for a in failed], room, "what you tried", _more(failed))


def _in_flight(b: Briefing, room: int) -> str:
    skip = b.crash.number if b.crash is not None else None
    open_ = [a for a in b.attempts if a.verdict is None and a.number != skip]
    who = {b.agent: "you"}
    lines = [
        f"#{a.number} {who.get(a.agent, a.agent)}: {one_line(a.summary, SUMMARY)}" for a in open_
    ]
    lines += [one_line(text, SUMMARY) for text in b.others]
    return rows(lines, room, "what others, or you, have begun", _plain_more(len(lines)))


def _own(b: Briefing, told: _Told, room: int) -> str:
    mine = told.own[:OWN]
    more = _more(told.own) if mine else _plain_more(0)
    return rows([_detail(a, b) for a in mine], room, "your experiments, the newest first", more)


def _kept(b: Briefing, told: _Told, room: int) -> str:
    """Tell all keeps, with their reasons only if that costs none its place."""
    label, more = "changes that were kept, the newest first", _more(told.keeps)
    made = rows([_row(a, b, why=True) for a in told.keeps], room, label, more)
    if made.endswith(">"):
        return made
    return rows([_row(a) for a in told.keeps], room, label, more)


def _versions(b: Briefing, room: int) -> str:
    """Show whole texts with their values, from the worst to the best, as many as fit."""
    name = one_line(b.metric.name)
    shown: list[str] = []
    left = room - len(prose.VERSIONS) - 80  # for what was left out
    for version in reversed(b.versions):
        what = f"#{version.number}" if version.number else "the base"
        said = f"{what}, {name} = {_value(b, version.value)}:"
        parts = [fenced(text, f"{one_line(path, 120)} of {what}") for path, text in version.files]
        whole = "\n".join([said, *parts])
        left -= len(whole) + 1
        if left < 0:
            break
        shown.append(whole)
    if not shown:
        return ""
    missing = len(b.versions) - len(shown)
    more = [f"({missing} more, none of them better than these, are left out.)"] if missing else []
    return "\n".join([prose.VERSIONS, *more, *reversed(shown)])


def _nearest(b: Briefing, told: _Told, room: int) -> str:
    near = told.rest[:MOST]
    lines = [_row(a, b, why=place < DETAILED) for place, a in enumerate(near)]
    made = rows(lines, room, "experiments of all agents", _more(told.rest))
    left = len(told.rest) - len(near)
    if made and left and "\n... and " not in made:
        made += f"\n... and {_more(told.rest)(len(near))}."
    return made


def _feedback(told: _Told, room: int) -> str:
    """Tell the newest feedback on this agent's work, or on anybody's."""
    said = (a for a in (*told.own, *told.done[::-1]) if a.feedback.strip())
    found = next(said, None)
    if found is None:
        return ""
    label = f"the harness on #{found.number}, {_outcome(found)}"
    return block(found.feedback, room, label)


def _lessons(told: _Told, room: int) -> str:
    found = told.lessons
    lines = [f"helped: {t.line()}" for t in found.works]
    lines += [f"never helped: {t.line()}" for t in found.fails]
    lines += [f"often broken: {one_line(c, CASE)}, by {n} changes" for c, n in found.brittle]
    lines += [f"never changed: {one_line(name, 120)}" for name in found.untouched]
    return rows(lines, room, "what experiments have in common", _plain_more(len(lines)))


def _earlier(b: Briefing, told: _Told, room: int) -> str:
    """Tell experiments of an earlier run, on an older base: keeps first, then the nearest."""
    done = [a for a in b.earlier if a.verdict not in (None, "aborted", "duplicate", "invalid")]
    keeps = [a for a in done if a.verdict == "keep"]
    keeps.sort(key=lambda a: (-(a.gain or 0.0), a.number))
    rest = by_nearness([a for a in done if a.verdict != "keep"], told.focus, b.noise)
    found = [*keeps, *rest]
    lines = [_row(a, b, why=place < DETAILED) for place, a in enumerate(found)]
    said = "On another base than today's, and numbered apart:\n"
    made = rows(lines, room - len(said), "experiments of an earlier run", _more(found))
    return said + made if made else ""


def _row(a: Attempt, b: Briefing | None = None, *, why: bool = False) -> str:
    """Tell an experiment in one line, or in two with its reasons."""
    moved = f"; {said}" if (said := changes(a.fixed, a.broken)) else ""
    line = f"#{a.number} {_outcome(a)}{moved}: {one_line(a.summary, SUMMARY) or '(no summary)'}"
    if not why:
        return line
    unit = f" {one_line(b.metric.unit, 20)}" if b and b.metric.unit else ""
    value = a.values.get(b.metric.name) if b else None
    ended = f"to {number(value)}{unit}; " if value is not None else ""
    ended += one_line(a.reason, SUMMARY)
    found = [("tried because", one_line(a.rationale, 240)), ("ended", ended.rstrip("; "))]
    return "\n".join([line, *(f"    {word}: {text}" for word, text in found if text)])


def _detail(a: Attempt, b: Briefing) -> str:
    said = one_line(a.feedback, 300)
    return _row(a, b, why=True) + (f"\n    the harness said: {said}" if said else "")


def _more(found: Sequence[Attempt]) -> Callable[[int], str]:
    """Say in words which experiments were left out, given how many are shown."""

    def words_for(shown: int) -> str:
        return f"{len(found) - shown} more: {_by_verdict(found[shown:])}"

    return words_for


def _plain_more(whole: int) -> Callable[[int], str]:
    return lambda shown: f"{whole - shown} more"
