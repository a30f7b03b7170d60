"""What of a target is in reach of its candidates, and what of the machine is not. Pure.

Owns the findings of a check that concern trust: the sandbox, the scorer, files and networks that a
target asks for and that its walls keep away.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from swarm.config import RunConfig
from swarm.formats.text import one_line
from swarm.observations import Finding, Observations


def standing(config: RunConfig) -> Iterator[Finding]:
    """Say what is so whatever was measured."""
    if config.target.score is None:
        yield _self_reported(config)
    yield from _reach_of_scorer(config)


def observed(seen: Observations) -> Iterator[Finding]:
    """Say what the walls leave open, and what they kept from the base."""
    if seen.sandbox_warning is not None:
        what, _, hint = seen.sandbox_warning.partition("; ")
        yield Finding("sandbox", "warning", what, hint)
    broken = any(t.measurement.failure is not None for t in seen.takes)
    if seen.unseen and broken:
        names = ", ".join(f"`{one_line(path)}`" for path in seen.unseen[:5])
        yield Finding(
            "walled_off",
            "error",
            f"the base asks for {names}: it is on this machine, and not in the sandbox",
            "name it in `target.read_only`, or have `setup` make what is needed of it",
        )
    if seen.offline and broken:
        yield Finding(
            "offline",
            "error",
            "the base asks for the network, and a measurement has none",
            "fetch in `setup`, which has it; or `sandbox: {network: on}`, which opens it to all "
            "candidates",
        )


def _self_reported(config: RunConfig) -> Finding:
    return Finding(
        "self_reported",
        "note",
        f"`{config.target.metric.name}` is reported by the process that runs the candidate's own "
        "code, which could print any number",
        "let `target.score` compute it from what `run` leaves; else read the diff of a gain that "
        "looks too good: `judge.bounds` and `judge.max_gain` stop what cannot be true",
    )


def _reach_of_scorer(config: RunConfig) -> Iterator[Finding]:
    """Say so where a candidate can put files beside the code that is trusted."""
    target = config.target
    scripts = [w for c in (target.score, target.final) if c is not None for w in _words_of(c)]
    for script in dict.fromkeys(w for w in scripts if re.fullmatch(r"[\w./-]+\.py", w)):
        beside = (PurePosixPath(script).parent / "json.py").as_posix()
        if beside in target.area:
            yield Finding(
                "scorer_in_reach",
                "warning",
                f"`scope` covers the directory of `{script}`, so a candidate can add modules that "
                f"it imports instead of its own",
                "narrow `scope`, move the scorer to a directory of its own, or run it by "
                "`python -P` (without its directory on the path)",
            )


def _words_of(command: str | tuple[str, ...]) -> list[str]:
    return command.split() if isinstance(command, str) else list(command)
