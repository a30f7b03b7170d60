"""A run while it goes on, for one person at a terminal: a panel, or a line for each event.

Reads the ledger and nothing else, so it works for `launch` and `watch` alike, near and far. What is
in flight is not on the ledger; what an agent does is derived from what it has not finished yet.
Decides nothing, and no trouble of its own may reach the run.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta, tzinfo
from types import TracebackType
from typing import NamedTuple, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from swarm import budget
from swarm.config import RunConfig
from swarm.entities import Agent, Experiment, Target
from swarm.errors import SwarmError
from swarm.formats.text import counted, duration, number, one_line, signed
from swarm.ledger import Tail
from swarm.lessons import changes
from swarm.records import (
    CASES,
    DRIFT,
    AnyEvent,
    Decided,
    Draining,
    Ended,
    Exhausted,
    Failed,
    Finished,
    FreshResult,
    Interrupted,
    Launched,
    Measured,
    Measurement,
    NotMerged,
    Parked,
    Paused,
    Promoted,
    Repaired,
    Resumed,
    Verdict,
    Waiting,
    WarmStarted,
    Warned,
)
from swarm.rules import JudgeConfig
from swarm.rundir import RunDir
from swarm.state import RunState
from swarm.views import (
    bought,
    compared,
    costs,
    doing,
    own_record,
    rule_of,
    sd,
    share,
    standing,
    used_up,
    waits,
    why_idle,
)

log = logging.getLogger("swarm")

REDRAW = timedelta(seconds=0.25)
BACKLOG = 20
"""Lines of what was before, shown to one who joins a run."""
RECENT = 8
SUMMARY = 120
REASON = 200
FEW, SHORT = 3, 60
"""Most cases of a line that a change fixed, and broke; characters that may be spent on them."""
WIDE = 90
"""Columns from which there is room for everything."""
COLOURS: dict[Verdict, str] = {
    "keep": "green",
    "crash": "red",
    "timeout": "red",
    "aborted": "red",
    "guard_failed": "yellow",
    "constraint_failed": "yellow",
    "invalid": "yellow",
}


# --- one line an event -------------------------------------------------------------------------


def plain_line(
    event: AnyEvent,
    state: RunState,
    zone: tzinfo | None = None,
    config: RunConfig | None = None,
) -> str | None:
    """Say an event in one line, or None if nobody would miss it.

    Args:
        event: as read from the ledger.
        state: the run with this event folded in.
        zone: of the clock shown; the local one by default.
        config: for the costs that give points; without it, none are told at the end.
    """
    words = _words(event, state, config)
    if words is None or event.at is None:
        return words
    return f"[{event.at.astimezone(zone):%H:%M:%S}] {words}"


def _words(event: AnyEvent, state: RunState, config: RunConfig | None) -> str | None:
    match event:
        case Decided():
            return _decided(state, state.experiments[event.number], config)
        case Measured():
            return _measured(event, state)
        case Promoted():
            return _promoted(event, state)
        case NotMerged():
            again = "" if event.final else "; it is tried again on the next best"
            who = _who(state, state.experiments[event.number])
            reason = one_line(event.reason, REASON)
            return f"{who} not merged  {event.outcome}: {reason}{again}"
        case Parked():
            return f"{event.agent} parked  {one_line(event.reason, REASON)}"
        case Waiting():
            wait = "" if event.at is None else duration((event.until - event.at).total_seconds())
            return f"{event.agent} waiting {wait}  {one_line(event.reason, REASON)}"
        case Repaired():
            experiment, made = state.experiments[event.number], event.proposal
            what = "gave up mending" if experiment.gave_up else "changed after a crash"
            words = one_line(made.invalid or made.summary, SUMMARY)
            return f"{_who(state, experiment)} {what}  {words}".rstrip()
        case Exhausted():
            where = f" on {one_line(event.target, 40)}" if len(state.targets) > 1 else ""
            return f"{event.agent} parked{where}  {one_line(event.reason, REASON)}"
        case Ended():
            verb = "failed" if event.failed else "ended"
            first = event.reason.partition("\n")[0]
            return f"{verb}  {one_line(event.target, 40)}: {one_line(first, REASON)}"
        case _:
            return _turn(event, state, config)


def _who(state: RunState, experiment: Experiment) -> str:
    """Name an experiment with its agent, and with its target where there are several."""
    where = f"{one_line(experiment.target, 40)} " if len(state.targets) > 1 else ""
    return f"#{experiment.number} {where}{experiment.agent}"


def _of(state: RunState, target: Target) -> str:
    """Name a target where there are several."""
    return f"{one_line(target.info.name, 40)} " if len(state.targets) > 1 else ""


def _turn(event: AnyEvent, state: RunState, config: RunConfig | None) -> str | None:
    """Say an event in the life of the run itself."""
    match event:
        case Launched():
            slots, agents = counted(len(event.slots), "slot"), counted(len(event.agents), "agent")
            return f"launched  {agents}, {slots}, sandbox {event.sandbox}"
        case WarmStarted():
            return f"warm start  {len(event.attempts)} experiments of {one_line(event.run, 80)}"
        case Warned():
            return f"warning  {one_line(event.message, REASON)}"
        case Paused():
            return "paused"
        case Resumed():
            return "resumed"
        case Draining():
            return f"draining  {one_line(event.reason, REASON)}"
        case Interrupted():
            why = "" if event.reason == "interrupted" else f"  {one_line(event.reason, REASON)}"
            return f"interrupted{why}"
        case Finished():
            return f"finished  {one_line(event.reason, REASON)}{_results(state, config)}"
        case Failed():
            # What follows the first line, the end of a log, is said when the launch ends.
            first = event.error.partition("\n")[0]
            return f"failed  {one_line(first, REASON)}"
        case _:
            return None


def _decided(state: RunState, experiment: Experiment, config: RunConfig | None) -> str:
    target, verdict = state.targets[experiment.target], experiment.verdict
    head = f"{_who(state, experiment)} {verdict}  "
    summary = one_line(experiment.proposal.summary, SUMMARY)
    ours = own_record(state, experiment).primary
    if verdict not in ("keep", "discard") or not ours.n or experiment.machine is None:
        reason = one_line(experiment.reason, REASON)
        return head + (reason if summary in ("", reason) else f"{reason}  {summary}")
    theirs = target.record(experiment.base, experiment.machine).primary
    before = f"{number(theirs.mean)} -> " if theirs.n else ""
    z = "" if experiment.z is None else f" (z={experiment.z:+.1f})"
    moved = changes(experiment.fixed, experiment.broken, FEW)
    z += f" {moved}" if moved and len(moved) <= SHORT else ""
    z += _less(state, experiment, rule_of(config, target))
    return f"{head}{_metric(target)} {before}{_share(target, ours.mean)}{z}  {summary}".rstrip()


def _less(state: RunState, experiment: Experiment, rule: JudgeConfig | None) -> str:
    """Say for which costs an experiment was kept."""
    names = bought(experiment.reason, rule) if experiment.verdict == "keep" else ()
    if not names or experiment.machine is None:
        return ""
    ours = own_record(state, experiment).others
    target = state.targets[experiment.target]
    theirs = target.record(experiment.base, experiment.machine).others
    told = [
        f"{one_line(name, 40)} {number(theirs[name].mean)} -> {number(ours[name].mean)}"
        for name in names
        if name in ours and name in theirs
    ]
    return f" for less {', '.join(told)}" if told else ""


def _measured(event: Measured, state: RunState) -> str | None:
    """Say what was measured of base and best; a candidate's numbers come with its verdict."""
    target, result = state.targets[event.target], event.measurement
    if event.purpose not in ("baseline", "final"):
        return None
    of = "" if event.purpose == "baseline" else " base"
    if of and result.commit != target.info.base:
        of = " best"
    head = f"{_of(state, target)}{event.purpose}{of}"
    if result.failure is not None:
        return f"{head} {result.failure.kind}  {one_line(result.failure.reason, REASON)}"
    line = f"{head}  {_value(target, result)}{_sealed(target, result)}"
    sample = target.record(result.commit, result.machine).primary
    if event.purpose == "baseline" and sample.n > 1:
        line += f"  (mean {number(sample.mean)}, sd {number(sd(sample), 2)}, n={sample.n})"
    return line


def _value(target: Target, result: Measurement) -> str:
    """Give what a good measurement found; a part of a suite has no value of its own."""
    if result.asked is not None:
        return f"{len(result.asked)} of {len(target.suite)} cases again"
    value = target.value(result)
    return f"{_metric(target)} {'—' if value is None else _share(target, value)}"


def _share(target: Target, value: float) -> str:
    """Give a value of the metric; of a suite, with the count of cases: `0.75 (30/40)`."""
    if target.info.metric.name != CASES or not target.suite:
        return number(value)
    whole = len(target.suite)
    return f"{number(value, 3)} ({number(value * whole, 4)}/{whole})"


def _sealed(target: Target, result: Measurement) -> str:
    """Say what the `final` command found; it is for people alone."""
    sealed = result.sealed
    if sealed is None:
        return ""
    if sealed.failure is not None:
        return f"; `final` failed: {one_line(sealed.failure.reason, REASON)}"
    return f"; `final` {number(sealed.values.get(target.info.metric.name))}"


def _promoted(event: Promoted, state: RunState) -> str:
    target, who = state.targets[event.target], _who(state, state.experiments[event.number])
    how = "stacked" if event.stacked else "fast-forward"
    where = standing(target)
    gain = (
        ""
        if where.gain is None
        else f"  {_metric(target)} {_share(target, where.best.mean)}{_gain(target)}"
    )
    return f"best is now {who} ({how}, {event.new[:7]}){gain}"


def _results(state: RunState, config: RunConfig | None) -> str:
    told = ""
    for target in state.targets.values():
        if (found := target.result) is not None:
            head = f"{_of(state, target)}best - base"
            told += f"; {head} = {_fresh(found)}{_confirmed(found.confirmed)}"
            rule = config and rule_of(config, target)
            told += "".join(f"; {cost.words()}" for cost in costs(target, rule))
    return told


def _fresh(result: FreshResult) -> str:
    return f"{signed(result.gain, 4)} ± {number(result.se, 2)} (n={result.n}+{result.n})"


def _confirmed(result: FreshResult | None) -> str:
    return "" if result is None else f"; confirmed gain {_fresh(result)}"


def _metric(target: Target) -> str:
    return one_line(target.info.metric.name, 40)


def _gain(target: Target) -> str:
    where = standing(target)
    percent = "" if where.gain_pct is None else f", {signed(where.gain_pct, 3)} %"
    return f" (gain {signed(where.gain, 4)}{percent})"


# --- the panel ---------------------------------------------------------------------------------


def panel(
    state: RunState,
    config: RunConfig,
    recent: Sequence[Text],
    *,
    now: datetime,
    width: int,
    height: int,
) -> RenderableType:
    """Give the whole picture of a run that goes on, for a terminal of this size."""
    lines = recent[-max(2, min(RECENT, height // 4)) :]
    bars, proposers = _bars(state, config, now), list(_proposers(state))
    extra = max(0, len(bars) - 3) + len(proposers) + len(state.drifts)
    several = len(state.targets) > 1
    extra += len(state.targets) + 2 if several else 3
    room = max(3, height - len(lines) - 10 - extra)
    return Group(
        Text(""),
        _head(state, config, now),
        *([_targets(state, config, max(3, height // 3), width)] if several else []),
        _facts(state, config, now),
        _budget(state, bars, width),
        *proposers,
        Text(""),
        _agents(state, config, room, width, now),
        *([Text("")] if lines else []),
        *lines,
    )


def _head(state: RunState, config: RunConfig, now: datetime) -> Text:
    head = Text(no_wrap=True, overflow="ellipsis")
    head.append(f"swarm {one_line(state.run, 40)}", style="bold")
    colour = {"running": "green", "failed": "red"}.get(state.phase, "yellow")
    head.append(f"  {state.phase}", style=colour)
    head.append(f"  {duration(state.elapsed(now))}")
    left = budget.forecast(config, state, now)
    if left is not None and state.phase == "running":
        head.append(f", {left.words()}", style="dim")
    return head


def _grid() -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, style="dim", min_width=len("experiments"))
    return grid


def _facts(state: RunState, config: RunConfig, now: datetime) -> Table:
    grid = _grid()
    grid.add_column(no_wrap=True, overflow="ellipsis")
    for target in state.targets.values() if len(state.targets) == 1 else ():
        metric = target.info.metric
        way = "lower is better" if metric.goal == "minimize" else "higher is better"
        unit = f" in {one_line(metric.unit, 20)}" if metric.unit else ""
        grid.add_row("metric", Text(f"{_metric(target)}{unit}, {way}"))
        grid.add_row("baseline", _baseline(target, config))
        grid.add_row("best", _best(target))
    slots, elapsed = len(state.slots), state.elapsed(now)
    if slots and elapsed > 0:
        share = min(1.0, state.spend.busy_seconds / (elapsed * slots))
        grid.add_row("slots", Text(f"{slots}, {share:.0%} busy so far"))
    for drift in state.drifts:
        grid.add_row(DRIFT, Text(one_line(drift, REASON), style="yellow"))
    if state.spend.usd:
        grid.add_row("spent", Text(f"${state.spend.usd:.2f}"))
    return grid


def _targets(state: RunState, config: RunConfig, room: int, width: int) -> RenderableType:
    """Put several targets side by side, one a line."""
    table = Table(box=None, padding=(0, 2, 0, 0), expand=True, header_style="dim", pad_edge=False)
    table.add_column("target", no_wrap=True, overflow="ellipsis")
    if width >= WIDE:
        table.add_column("baseline", no_wrap=True)
    table.add_column("best", no_wrap=True, overflow="ellipsis", ratio=1)
    for name in ("exp", "keep", "slots"):
        table.add_column(name, justify="right", no_wrap=True)
    targets = list(state.targets.values())
    for target in targets[:room]:
        part = share(state, target)
        best = Text(f"{_metric(target)} ").append_text(_best(target))
        if target.ended is not None:
            best.append("  failed" if target.failed else "  ended", style="dim")
        table.add_row(
            Text(one_line(target.info.name, 24)),
            *([_baseline(target, config)] if width >= WIDE else []),
            best,
            Text(str(target.begun)),
            Text(str(target.verdicts["keep"])),
            Text("" if part is None else f"{part:.0%}"),
        )
    if len(targets) > room:
        return Group(table, Text(f"... and {len(targets) - room} more targets", style="dim"))
    return table


def _baseline(target: Target, config: RunConfig) -> Text:
    where = standing(target)
    n = where.baseline.n
    if not n:
        return Text("being measured", style="yellow")
    spread = "" if n < 2 else f" ± {number(sd(where.baseline), 2)}"
    done = n >= rule_of(config, target).baseline or where.spread.deterministic
    mean = _share(target, where.baseline.mean)
    return Text(f"{mean}{spread} (n={n}{'' if done else ' so far'})")


def _best(target: Target) -> Text:
    where = standing(target)
    if target.tree_of[target.best] == target.info.base_tree or not where.best.n:
        return Text("still the baseline")
    se = number(where.spread.se(where.best), 2)
    text = Text(f"{_share(target, where.best.mean)} ± {se} (n={where.best.n})")
    return text.append(_gain(target), style="green" if (where.gain or 0) > 0 else "yellow")


class _Bar(NamedTuple):
    """How much of one limit is used."""

    name: str
    share: float
    words: str


def _bars(state: RunState, config: RunConfig, now: datetime) -> list[_Bar]:
    bars: list[_Bar] = []
    for use in budget.uses(config, state, now):
        if use.name == "experiments":  # the open ones too: they are on their way
            use = use._replace(used=state.spend.experiments)
        bars.append(_Bar(use.name, use.share, use.of().removesuffix(f" {use.name}")))
    stale = config.budget.stale
    if stale is not None:
        going = [t.since_keep for t in state.targets.values() if t.ended is None]
        since = min(going, default=stale)
        bars.append(_Bar("stale", since / stale, f"{since} of {stale} without a keep"))
    return bars


def _budget(state: RunState, bars: list[_Bar], width: int) -> RenderableType:
    """Draw how much of each limit is used."""
    if not bars:
        done = state.spend.experiments
        return Text(f"{done} experiments; no limit: it runs until it is stopped")
    grid = _grid()
    grid.add_column(width=max(10, min(30, width - 42)))
    grid.add_column(no_wrap=True, overflow="ellipsis")
    for bar in bars:
        nearly = bar.share >= budget.NEARLY and bar.name != "stale"
        words = Text(bar.words, style="yellow" if nearly else "")
        grid.add_row(bar.name, ProgressBar(total=1, completed=min(1, bar.share)), words)
    return grid


def _proposers(state: RunState) -> Iterator[Text]:
    """Compare the proposers, one a line."""
    for label, use in compared(state).items():
        line = Text(no_wrap=True, overflow="ellipsis")
        line.append(f"{one_line(label, 40)}  ", style="dim")
        yield line.append(use.words())


def _agents(
    state: RunState, config: RunConfig, room: int, width: int, now: datetime
) -> RenderableType:
    table = Table(box=None, padding=(0, 2, 0, 0), expand=True, header_style="dim", pad_edge=False)
    table.add_column("agent", no_wrap=True)
    if width >= WIDE:
        table.add_column("proposer", no_wrap=True)
    table.add_column("exp", justify="right", no_wrap=True)
    table.add_column("keep", justify="right", no_wrap=True)
    table.add_column("doing", no_wrap=True, overflow="ellipsis", ratio=1)
    names, over = list(state.agents), used_up(config, state, now)
    for name in names[:room]:
        agent = state.agents[name]
        cells = [Text(one_line(name, 12))]
        if width >= WIDE:
            cells.append(Text(one_line(agent.info.proposer, 28)))
        keeps = Text(str(agent.keeps), style="green" if agent.keeps else "")
        table.add_row(*cells, Text(str(agent.experiments)), keeps, _doing(state, agent, now, over))
    if len(names) > room:
        return Group(table, Text(f"... and {len(names) - room} more agents", style="dim"))
    return table


def _doing(state: RunState, agent: Agent, now: datetime, over: frozenset[int]) -> Text:
    what = doing(state, agent, live=True, now=now, used_up=over)
    if what == "parked":
        why = one_line(why_idle(state, agent) or "", REASON)
        return Text(f"parked: {why}", style="yellow")
    wait = waits(state, agent, now)
    if what == "waiting" and wait is not None:
        reason = one_line(agent.waiting_reason, REASON)
        flying = f" (#{min(agent.open)} in flight)" if agent.open else ""
        return Text(f"waiting {duration(wait)}{flying}: {reason}", style="yellow")
    if what != "measuring":
        return Text(what, style="dim")
    first = state.experiments[min(agent.open)]
    times = _times(state, first)
    more = f" and {len(agent.open) - 1} more" if len(agent.open) > 1 else ""
    text = Text(f"measuring #{first.number}{more}{times}  ")
    return text.append(one_line(first.proposal.summary, SUMMARY), style="dim")


def _times(state: RunState, experiment: Experiment) -> str:
    """Say how often an open experiment was measured, and how many cases more often than others."""
    record = own_record(state, experiment)
    n = record.primary.n
    if not n:
        return ""
    again = sum(count.runs > n for count in record.cases.values())
    more = f", {again} of {len(record.cases)} cases again" if again else ""
    return f" (once{more})" if n == 1 else f" ({n} times{more})"


# --- the view ----------------------------------------------------------------------------------


class LiveView:
    """Shows a run as it goes on. Enter it, call `tick` a few times a second, leave it."""

    def __init__(self, rundir: RunDir, config: RunConfig, console: Console | None = None) -> None:
        """Show `rundir` on `console`, by default on stderr: stdout is for data."""
        self._console = console or Console(stderr=True)
        self._config = config
        self._tail = Tail(rundir.ledger)
        self._blind = False
        self._drawn: datetime | None = None
        self._changed = True
        self._recent: deque[Text] = deque(maxlen=RECENT)
        self._live: Live | None = None
        self.state = RunState()
        self.warned: set[str] = set()
        """Warnings of the run that were shown."""

    def __enter__(self) -> Self:
        lines = self._catch_up()
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            self._live = Live(console=self._console, auto_refresh=False, redirect_stdout=False)
            self._live.start()
        else:
            for line in lines:
                self._say(line)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live is not None:
            with suppress(OSError, ValueError):
                self._live.stop()

    def tick(self, now: datetime) -> None:
        """Take in what is new, and show it; drawing is limited to a few times a second."""
        for event in self._poll():
            line = plain_line(event, self.state, config=self._config)
            self._remember(event, line)
            if line is not None and self._live is None:
                self._say(line)
        over = self.state.launched_at is None
        if self._live is None or (
            self._drawn is not None and now - self._drawn < REDRAW and not (over and self._changed)
        ):
            return
        self._drawn, self._changed = now, False
        with suppress(OSError, ValueError):  # a terminal that has gone is no trouble of the run
            self._live.update(self._panel(now), refresh=True)

    def _panel(self, now: datetime) -> RenderableType:
        width, height = self._console.size
        return panel(
            self.state, self._config, list(self._recent), now=now, width=width, height=height
        )

    def _catch_up(self) -> list[str]:
        """Fold what is there already, and give the last lines of it since the last launch."""
        lines: deque[str] = deque(maxlen=BACKLOG)
        for event in self._poll():
            line = plain_line(event, self.state, config=self._config)
            if isinstance(event, Launched):
                lines.clear()
                self._recent.clear()
            self._remember(event, line)
            if line is not None:
                lines.append(line)
        return list(lines) if self.state.launched_at is not None else []

    def _poll(self) -> Iterator[AnyEvent]:
        """Give each new event, folded in. An unreadable ledger ends the view, not the run."""
        if self._blind:
            return
        try:
            for event in self._tail.poll():
                self.state.apply(event)
                self._changed = True
                yield event
        except (SwarmError, OSError) as error:
            self._blind = True
            log.warning("the live view has stopped: %s", one_line(str(error), REASON))

    def _remember(self, event: AnyEvent, line: str | None) -> None:
        if isinstance(event, Warned):
            self.warned.add(event.message)
        if line is None or isinstance(event, Measured):
            return
        style = COLOURS.get(event.verdict, "dim") if isinstance(event, Decided) else "cyan"
        self._recent.append(Text(line, style=style, no_wrap=True, overflow="ellipsis"))

    def _say(self, line: str) -> None:
        encoding = self._console.encoding or "ascii"
        with suppress(OSError, ValueError):
            self._console.file.write(line.encode(encoding, "replace").decode(encoding) + "\n")
            self._console.file.flush()
