"""No work twice: whether a proposal repeats something measured, in flight, or prepared. Pure."""

from __future__ import annotations

from swarm.novelty import keys
from swarm.records import Proposal, Twin
from swarm.state import RunState

FAR = 3
"""Promotions of `best` after which an old outcome says little of the same change made now."""


def twin_of(state: RunState, agent: str, proposal: Proposal) -> Twin | None:
    """Find what a proposal repeats, or None.

    An idea that is carried over (a port) repeats itself, which is its purpose; and what was tried
    on a base that `best` has left far behind may be tried again.
    """
    target = state.targets[state.agents[agent].info.target]
    if proposal.tree is None:
        return None
    if proposal.tree in target.number_of:
        return Twin(number=target.number_of[proposal.tree], same="tree")
    if proposal.port_of is not None:
        return None
    for same, number in target.tried.find(proposal):
        if len(target.promotions) - state.experiments[number].level < FAR:
            return Twin(number=number, same=same)
    return _prepared_by_another(state, agent, proposal)


def _prepared_by_another(state: RunState, agent: str, proposal: Proposal) -> Twin | None:
    target = state.agents[agent].info.target
    mine = dict(keys(proposal))
    for name, other in state.agents.items():
        theirs = other.prepared
        if theirs is None or name == agent or other.info.target != target:
            continue
        if theirs.tree == proposal.tree:
            return Twin(number=None, same="tree")
        for same, key in keys(theirs):
            if mine.get(same) == key:
                return Twin(number=None, same=same)
    return None
