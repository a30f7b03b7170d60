"""`swarm check`: a target is tried out before the night, from a config file to an exit code.

Owns how it is told, as text and as JSON. What is measured is in `observing`, what
it means in `diagnosis`.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from swarm.config import RunConfig
from swarm.diagnosis import Finding, diagnose
from swarm.doors import enter
from swarm.errors import ConfigError, PreconditionError
from swarm.formats.text import count, counted, duration, number, sanitise
from swarm.observations import Figures, Observations, figures
from swarm.observing import observe
from swarm.signals import Stopped, signals_raise, signals_wait
from swarm.terminal import emit, emit_json, say

STOPPING = (signal.SIGINT, signal.SIGTERM)
"""Signals that end it in good order."""


def check_config(path: Path, overrides: Sequence[str] = (), *, as_json: bool) -> int:
    """Do what `swarm check` does, and give the exit code.

    Raises:
        ConfigError: the config is wrong, with all that is.
        PreconditionError: what it is made from is not as it is needed.
    """
    try:
        with signals_raise(*STOPPING, for_good=True):
            checked = check(path, overrides)
    except Stopped as stopped:
        say("swarm: ended; nothing is left")
        return 128 + stopped.number
    if as_json:
        emit_json(checked.json)
    else:
        checked.tell()
    return checked.exit_code


def check(path: Path, overrides: Sequence[str]) -> Checked:
    """Try a config out, one target after the other.

    Raises:
        ConfigError: the config is wrong, with all that is.
        Stopped: a signal came that is made to raise; nothing is left.
    """
    entered = enter(path, overrides)
    for note in entered.notes:
        say(f"swarm: {note}")
    looks: list[Look] = []
    for target, key in entered.config.places():
        own = entered.config.only(target.name)
        seen = observe(own, lambda text: say(f"swarm: {text}"), signals_wait, key=key)
        looks.append(Look(own, seen, diagnose(seen, own)))
    return Checked(path, tuple(looks))


class Look(NamedTuple):
    """What was found of one target."""

    config: RunConfig
    seen: Observations
    findings: list[Finding]

    @property
    def sound(self) -> bool:
        """Whether a run can be started."""
        return all(finding.level != "error" for finding in self.findings)


class Checked(NamedTuple):
    """What came of a check."""

    path: Path
    looks: tuple[Look, ...]

    @property
    def findings(self) -> list[Finding]:
        """All that was found, of all targets."""
        return [finding for look in self.looks for finding in look.findings]

    @property
    def exit_code(self) -> int:
        """0 without errors, 2 where the config itself is wrong."""
        refusals = (error for look in self.looks for error in look.seen.refusals)
        if any(isinstance(error, ConfigError) for error in refusals):
            return ConfigError.exit_code
        return 0 if all(look.sound for look in self.looks) else PreconditionError.exit_code

    @property
    def json(self) -> dict[str, Any]:
        """What `--json` prints; several targets are a list of what one would be."""
        found = [_json(self.path, look) for look in self.looks]
        sound = all(look.sound for look in self.looks)
        return found[0] if len(found) == 1 else {"ok": sound, "targets": found}

    def tell(self) -> None:
        """Say it on stdout."""
        for look in self.looks:
            _tell(look)


# --- words --------------------------------------------------------------------------------------


def _tell(look: Look) -> None:
    config, seen, findings = look
    found = figures(seen, config)
    metric = config.target.metric
    emit(f"{config.target.name}: {metric.goal} {metric.name}; {counted(seen.slots, 'slot')}")
    if found is not None:
        for name, words in _rows(found, config):
            emit(f"  {name:12}  {words}")
    if seen.sandbox is not None:
        emit(f"  {'sandbox':12}  {seen.sandbox}")
    for finding in findings:
        lines = sanitise(finding.message).splitlines()
        emit(f"{finding.level:8} {finding.kind}: {lines[0]}")
        for line in lines[1:]:
            emit(f"{'':9}{line}")
        emit(f"{'':9}-> {sanitise(finding.hint)}")
    errors = sum(finding.level == "error" for finding in findings)
    warnings = sum(finding.level == "warning" for finding in findings)
    if errors:
        emit(f"not ready: {counted(errors, 'error')}, {counted(warnings, 'warning')}")
    else:
        emit(f"ready, with {counted(warnings, 'warning')}" if warnings else "ready")


def _rows(found: Figures, config: RunConfig) -> list[tuple[str, str]]:
    unit = f" {sanitise(config.target.metric.unit)}" if config.target.metric.unit else ""
    n = len(found.values)
    spread = "" if found.sigma is None else f", σ {number(found.sigma, 3)}"
    rows = [("base", f"{number(found.mean)}{unit}{spread} ({counted(n, 'measurement')})")]
    if found.detectable is not None:
        rows.append(("detectable", _detectable(found, found.detectable, config.rule().runs)))
    cost = [f"{number(found.seconds, 3)} s", f"{number(found.peak_memory_mb, 4)} MiB at most"]
    if found.usd is not None:
        cost.append(f"${found.usd:.4f}")
    if found.tokens is not None:
        cost.append(f"{count(round(found.tokens))} tokens")
    rows.append(("measurement", ", ".join(cost)))
    each = "1 measurement" if found.exact else f"about {found.per_experiment:g} measurements"
    rows.append(("experiment", f"{each}, {_spent(found)}"))
    # Two digits: more of them would be more than is known.
    night = f"{float(f'{found.per_night:.2g}'):,.0f}"
    rows.append(("night", f"about {night} experiments in 8 hours, if proposals come as fast"))
    return rows


def _detectable(found: Figures, least: float, runs: int) -> str:
    if found.cases:
        many = f"{least * found.cases:.1f} of {counted(found.cases, 'case')}"
        if found.flaky:
            return f"a gain of about {many} by {runs} + {runs} runs, fewer by luck only"
        return f"any gain of {many if least else 'a case'}: none is flaky"
    if found.exact:
        what = f"of {number(least, 3)}" if least else "however small"
        return f"any gain {what}: no two measurements differ"
    share = f" ({least / abs(found.mean):.2%})" if found.mean else ""
    return f"a gain of {number(least, 3)}{share} by {runs} + {runs} measurements"


def _spent(found: Figures) -> str:
    usd = "" if found.usd is None else f", ${found.per_experiment * found.usd:.4f}"
    seconds = found.per_experiment * found.seconds
    return (duration(seconds) if seconds >= 60 else f"{number(seconds, 3)} s") + usd


def _json(path: Path, look: Look) -> dict[str, Any]:
    config, seen, findings = look
    found, metric = figures(seen, config), config.target.metric
    baseline = found and {
        "mean": found.mean,
        "sd": found.sigma,
        "n": len(found.values),
        "values": found.values,
    }
    return {
        "config": str(path),
        "target": config.target.name,
        "ok": look.sound,
        "metric": metric.name,
        "goal": metric.goal,
        "unit": metric.unit,
        "baseline": baseline,
        "deterministic": found and found.exact,
        "detectable": found and found.detectable,
        "cases": found and found.cases,
        "flaky": found and found.flaky,
        "seconds": found and found.seconds,
        "peak_memory_mb": found and found.peak_memory_mb,
        "usd": found and found.usd,
        "tokens": found and found.tokens,
        "slots": seen.slots,
        "sandbox": seen.sandbox,
        "measurements_per_experiment": found and found.per_experiment,
        "experiments_per_night": found and found.per_night,
        "findings": [asdict(finding) for finding in findings],
    }
