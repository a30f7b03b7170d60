"""Earlier versions of a text with their scores, for a briefing: which are told, read from the hub.

Owns when a target counts as a small text in prose and which versions are worth their room. How they
are put into words is `briefing`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from swarm.actions import Propose
from swarm.briefing import Version
from swarm.config import RunConfig
from swarm.entities import Target
from swarm.formats.text import is_prose
from swarm.repo import Hub
from swarm.scope import Scope
from swarm.state import RunState

MOST = 8
LONGEST = 4_000
"""Characters of one version: of a longer text two would crowd out all else that is told."""
MEASURED = frozenset({"keep", "discard"})


def told(
    hub: Hub, prefixes: Mapping[str, str], state: RunState, config: RunConfig, action: Propose
) -> tuple[Version, ...]:
    """Give the best versions so far, the best last; none where the scope is not a short text.

    Only for proposers that read, and never the incumbent: that one is in their worktree.
    """
    agent = state.agents[action.agent]
    if not agent.info.thinks or action.repair is not None or action.port is not None:
        return ()
    prefix, area = prefixes[action.target], config.named(action.target).area
    scope = Scope(config.agents[agent.info.group].scope or (".",), within=area)
    here = _texts(hub.path, hub.run, action.base, prefix, scope)
    if not here:
        return ()
    target = state.targets[action.target]
    found: list[Version] = []
    seen = {tuple(sorted(here.items()))}
    for number, commit, value in ranked(state, target):
        texts = _texts(hub.path, hub.run, commit, prefix, scope)
        key = tuple(sorted(texts.items()))
        if texts and key not in seen:
            seen.add(key)
            found.append(Version(number=number, value=value, files=key))
        if len(found) == MOST:
            break
    return tuple(reversed(found))


def ranked(state: RunState, target: Target) -> list[tuple[int, str, float]]:
    """Give all that was measured as number, commit and mean, the best first; 0 is the base."""
    commits = [(0, target.info.base)]
    commits += [
        (e.number, e.proposal.commit)
        for e in state.experiments.values()
        if e.target == target.info.name and e.verdict in MEASURED and e.proposal.commit is not None
    ]
    found = [(n, c, s.mean) for n, c in commits if (s := target.primary(c)).n]
    sign = 1 if target.info.metric.goal == "minimize" else -1
    return sorted(found, key=lambda item: (sign * item[2], item[0]))


@lru_cache(maxsize=256)
def _texts(hub: Path, run: str, commit: str, prefix: str, scope: Scope) -> dict[str, str]:
    """Read the files in scope of a commit; nothing where they are not a short text in prose.

    A commit never changes, so what was read of it stays true.
    """
    return Hub(hub, run).texts(commit, prefix, scope, is_prose, LONGEST) or {}
