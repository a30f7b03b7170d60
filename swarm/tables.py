"""A run as text for a person: pure functions from the JSON of `report`, and from state, to lines.

Owns columns and widths. Every word that an agent or a candidate wrote passes `one_line` or
`sanitise` on its way. Knows no terminal: the width is an argument, None for no limit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, tzinfo
from textwrap import wrap
from typing import Any

from swarm.budget import Forecast
from swarm.entities import Target
from swarm.formats.text import count, duration, first_line, number, one_line, sanitise, signed
from swarm.records import VERDICTS
from swarm.state import RunState
from swarm.views import compared, in_vain, waits, why

REASON = 50
"""Characters of why an agent waits."""
SHORTEST = 8
"""Fewer characters of it say nothing."""
LEAST = 14
"""Characters for what an agent does, on the narrowest terminal."""
Json = Mapping[str, Any]


def table(rows: Sequence[Sequence[str]], *, right: frozenset[int], width: int | None) -> str:
    """Lay out rows in columns; the last column gets what room is left, and is cut to it."""
    columns = len(rows[0])
    wide = [max(len(row[i]) for row in rows) for i in range(columns - 1)]
    room = None if width is None else max(8, width - sum(wide) - 2 * len(wide))
    lines: list[str] = []
    for row in rows:
        cells = [
            cell.rjust(w) if i in right else cell.ljust(w)
            for i, (cell, w) in enumerate(zip(row[:-1], wide, strict=True))
        ]
        lines.append("  ".join([*cells, one_line(row[-1], room)]).rstrip())
    return "\n".join(lines if width is None else (one_edge(line, width) for line in lines))


def one_edge(line: str, width: int) -> str:
    """Cut a line that is still too long; leading blanks stay, they are layout."""
    return line if len(line) <= width else line[: width - 1] + "…"


# --- status -------------------------------------------------------------------------------------


def status(
    found: Json,
    state: RunState,
    width: int | None,
    warnings: Sequence[str] = (),
    zone: tzinfo | None = None,
) -> str:
    """Lay out `status_json`.

    Args:
        found: what it gave.
        state: adds why a run is where it is.
        width: of the terminal.
        warnings: words on limits that are nearly used up.
        zone: of the clock shown; the local one by default.
    """
    head = f"{found['run']}  {found['state']}"
    reason, hint = why(state, found["state"])
    if reason not in ("", found["state"]):
        head += f": {one_line(reason)}"
    lines = [head]
    if hint:
        lines.append(f"  hint: {one_line(hint)}")
    for target in found["targets"]:
        several = len(found["targets"]) > 1
        lines += _target(target, state.targets[target["name"]], several=several)
    lines += ["", *_agents(found["agents"], state, width, zone).split("\n")]
    known = compared(state)
    if known:
        labels = [one_line(label, 40) for label in known]
        wide = max(map(len, labels))
        lines += [
            "",
            *(f"{n:<{wide}}  {u.words()}" for n, u in zip(labels, known.values(), strict=True)),
        ]
    spend = state.spend
    parts = [
        f"{spend.experiments} experiments",
        f"{spend.measurements} measurements",
        duration(found["spend"].get("seconds") or spend.seconds),
    ]
    if spend.usd:
        parts.append(f"${spend.usd:.2f}")
    if spend.tokens:
        parts.append(f"{count(spend.tokens)} tokens")
    lines += ["", f"spend    {', '.join(parts)}"]
    if vain := in_vain(spend):
        lines.append(f"         of it {', '.join(vain)}")
    if found["forecast"] is not None:
        lines.append(f"forecast {Forecast(**found['forecast']).words()}")
    lines += [f"warning  {words}" for words in warnings]
    if state.launch is not None:
        lines.append(f"sandbox  {_sandbox(state)}")
    lines.append(f"files    {found['dir']}")
    return "\n".join(line if width is None else one_edge(line, width) for line in lines)


def _target(found: Json, target: Target, *, several: bool) -> list[str]:
    metric = target.info.metric
    unit = f" {metric.unit}" if metric.unit else ""
    lines = ["", f"{found['name']}: {metric.goal} {metric.name}{unit}"]
    baseline, best, result = found["baseline"], found["best"], found["result"]
    if baseline and baseline.get("n"):
        lines.append(f"  baseline  {_mean(baseline['mean'], baseline['sd'], baseline['n'], 'sd')}")
    if best and best.get("n") and target.promotions:
        line = f"  best      {_mean(best['mean'], best['se'], best['n'], 'se')}"
        if best["gain"] is not None:
            line += f"  gain {signed(best['gain'], 4)}"
            percent = best["gain_pct"]
            line += f" ({signed(percent, 3)}%)" if percent is not None else ""
        lines += [line, f"            {best['commit'][:10]}"]
    if result is not None:
        line = f"  result    {signed(result['gain'], 4)} ± {number(result['se'], 2)}"
        lines.append(f"{line}, measured afresh at the end")
    confirmed = found["confirmed"]
    if confirmed is not None:
        gain = f"{signed(confirmed['gain'], 4)} ± {number(confirmed['se'], 2)}"
        lines.append(f"  confirmed {gain}, by `final`")
    counts = found["experiments"]
    some = [f"{counts[v]} {v}" for v in VERDICTS if counts.get(v)]
    flying = len(target.open)
    if flying:
        some.append(f"{flying} in flight")
    lines.append(f"  tried     {counts['total']}" + (f": {', '.join(some)}" if some else ""))
    if several and found["share"] is not None:
        lines.append(f"  slots     {found['share']:.0%} of their time")
    if target.ended is not None:
        verb = "failed" if target.failed else "ended"
        lines.append(f"  {verb:<9} {one_line(first_line(target.ended))}")
    return lines


def _mean(mean: float | None, spread: float | None, n: int | str, what: str) -> str:
    """Say a mean with its `what`; `n` is a count of runs, or the words on which they are."""
    runs = n if isinstance(n, str) else f"n={n}"
    if spread is None:
        return f"{number(mean)} ({runs})"
    return f"{number(mean)} ± {number(spread, 2)} {what} ({runs})"


def _agents(agents: Sequence[Json], state: RunState, width: int | None, zone: tzinfo | None) -> str:
    rows = [("agent", "experiments", "keeps", "state", "proposer")]
    room = REASON
    if width is not None:  # what is written beside it has its place first
        names = max((len(a["name"]) for a in agents), default=0)
        label = max((len(one_line(a["proposer"])) for a in agents), default=0)
        rest = max(names, len("agent")) + len("experiments") + len("keeps") + 4 * 2
        room = max(LEAST, min(REASON + 20, width - rest - max(len("proposer"), label)))
    rows += [
        (
            a["name"],
            str(a["experiments"]),
            str(a["keeps"]),
            _doing(a, state, room, width is not None, zone),
            one_line(a["proposer"]),
        )
        for a in agents
    ]
    return table(rows, right=frozenset({1, 2}), width=width)


def _doing(found: Json, state: RunState, room: int, cut: bool, zone: tzinfo | None) -> str:
    what, agent = one_line(str(found["state"])), state.agents[found["name"]]
    if what != "waiting" or agent.waiting_until is None or waits(state, agent) is None:
        return what
    said = f"{what} until {_clock(agent.waiting_until, state.last_at, zone)}"
    left = room - len(said) - 2 if cut else REASON
    reason = one_line(agent.waiting_reason, left) if left >= SHORTEST else ""
    return f"{said}: {reason}" if reason else said


def _clock(at: datetime, now: datetime | None, zone: tzinfo | None) -> str:
    """Give the local time, with the day where the time alone could mean another one."""
    far = now is not None and at - now > timedelta(hours=20)
    return f"{at.astimezone(zone):{'%b %d %H:%M' if far else '%H:%M'}}"


def _sandbox(state: RunState) -> str:
    launch = state.launch
    assert launch is not None
    if not launch.sandbox_open:
        return launch.sandbox
    return f"{launch.sandbox}; open to candidates: {', '.join(launch.sandbox_open)}"


# --- experiments --------------------------------------------------------------------------------


def experiments(rows: Sequence[Json], state: RunState, width: int | None) -> str:
    """Lay out `experiments_json`, one experiment a line."""
    metrics = {name: target.info.metric.name for name, target in state.targets.items()}
    heading = next(iter(metrics.values())) if len(set(metrics.values())) == 1 else "value"
    columns = ["n", "verdict", heading, "agent", "z", "merged", "summary"]
    several = len(metrics) > 1
    if several:
        columns[3] = "target agent"
    lines = [columns, *(_row(row, metrics[row["target"]], several) for row in rows)]
    while width is not None and len(columns) > 4 and _fixed(lines) + MIN_SUMMARY > width:
        columns = [*columns[:-2], columns[-1]]
        lines = [[*line[:-2], line[-1]] for line in lines]
    return table(lines, right=frozenset({0, 2, 4}), width=width)


MIN_SUMMARY = 30
"""Columns that a summary needs to say something; lesser columns give way on a narrow terminal."""


def _fixed(lines: Sequence[Sequence[str]]) -> int:
    return sum(max(len(line[i]) for line in lines) + 2 for i in range(len(lines[0]) - 1))


def _row(row: Json, metric: str, several: bool) -> list[str]:
    value = row["values"].get(metric)
    return [
        str(row["number"]),
        row["verdict"] or "in flight",
        "" if value is None else number(value),
        f"{row['target']} {row['agent']}" if several else row["agent"],
        "" if row["z"] is None else signed(row["z"], 3),
        _merged(row["merged"]),
        row["summary"],
    ]


def _merged(merged: str | None) -> str:
    if merged is None:
        return ""
    return merged[:10] if len(merged) == 40 else merged


# --- one experiment -----------------------------------------------------------------------------


def experiment(found: Json, metric: str, width: int | None) -> str:
    """Lay out `experiment_json`; `metric` is the name of the primary one."""
    verdict, reason = found["verdict"] or "in flight", one_line(found["reason"])
    lines = [
        f"experiment {found['number']}  {verdict}" + (f": {reason}" if reason else ""),
        f"  {one_line(found['summary'] or 'no summary')}",
        "",
        f"target   {found['target']}",
        f"agent    {found['agent']}",
        f"base     {found['base']}",
        f"commit   {found['commit'] or 'none'}",
    ]
    if found["files"]:
        files = ", ".join(one_line(f) for f in found["files"])
        lines.append(f"changes  +{found['lines_added']} -{found['lines_removed']} in {files}")
    if found["port_of"] is not None:
        lines.append(f"port of  experiment {found['port_of']}")
    lines += _proposing(found)
    lines += [*_measured(found, metric), *_why(found["grounds"], width)]
    if found["merged"] is not None:
        how = " (stacked with others)" if found["stacked"] else ""
        lines.append(f"merged   {found['merged']}{how}")
    lines += [f"log      {one_line(path)}" for path in found["logs"]]
    lines = [line if width is None else one_edge(line, width) for line in lines]
    if found["rationale"]:
        lines += ["", f"rationale: {sanitise(found['rationale']).strip()}"]
    failure = found["failure"]
    if failure is not None:
        lines += ["", f"{failure['kind']}: {one_line(failure['reason'])}"]
        if failure["tail"]:
            lines += ["", sanitise(failure["tail"]).rstrip()]
    return "\n".join(lines)


def _proposing(found: Json) -> list[str]:
    """Say what proposing took, where it took something, and whether it took more than one try."""
    usage, parts, lines = found["usage"], list[str](), list[str]()
    tokens = _tokens(usage)
    if usage["usd"] or tokens or usage["seconds"] >= 1:
        parts.append(f"in {duration(usage['seconds'])}")
    if tokens:
        parts.append(f"{count(tokens)} tokens")
    if usage["usd"]:
        parts.append(f"${usage['usd']:.2f}")
    if parts:
        lines.append(f"proposed {', '.join(parts)}")
    twin = found["returned"]
    if twin is not None:
        of = {None: "what another agent had prepared", 0: "the base"}
        what = of.get(twin["number"], f"experiment {twin['number']}")
        lines.append(f"repeat   its first proposal had the same {twin['same']} as {what}")
    if found["repairs"]:
        times = "once" if found["repairs"] == 1 else f"{found['repairs']} times"
        end = ", which gave up" if found["gave_up"] else ""
        lines.append(f"crashed  and went back to its proposer {times}{end}")
    return lines


def _why(found: Json, width: int | None) -> list[str]:
    """Explain the verdict, a sentence a line, in full: what is cut here explains nothing."""
    lines: list[str] = []
    for words in found["words"]:
        lead = "         " if lines else "why      "
        lines += wrap(
            one_line(words),
            width=max(LEAST + len(lead), width or 100),
            initial_indent=lead,
            subsequent_indent="           ",
        )
    return lines


def _tokens(usage: Json) -> int:
    return usage["input_tokens"] + usage["cached_tokens"] + usage["output_tokens"]


def _measured(found: Json, metric: str) -> list[str]:
    values, lines = dict(found["values"]), list[str]()
    if metric in values:
        lines.append(
            f"value    {metric} {_mean(values.pop(metric), found['se'], found['n'], 'se')}"
        )
    lines += [f"         {one_line(name)} {number(value)}" for name, value in values.items()]
    incumbent = found["incumbent"]
    if incumbent["n"]:
        side = found["grounds"]["incumbent"]
        n, of = side["n"], side["of"]
        runs = f"n={n}" if n == of else f"last {n} of {of} runs"
        lines.append(f"against  {_mean(side['mean'], side['se'], runs, 'se')}")
    if found["gain"] is not None:
        z = "" if found["z"] is None else f", z {signed(found['z'], 3)}"
        lines.append(f"gain     {signed(found['gain'], 4)}{z} (positive is better)")
    parts = [duration(found["seconds"])]
    if found["peak_memory_mb"]:
        parts.append(f"{number(found['peak_memory_mb'], 4)} MiB at most")
    if found["usd"] > found["usage"]["usd"]:
        parts.append(f"${found['usd']:.2f} in all")
    if found["tokens"] > _tokens(found["usage"]):
        parts.append(f"{count(found['tokens'])} tokens in all")
    return [*lines, f"took     {', '.join(parts)}"]
