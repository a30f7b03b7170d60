"""No work twice: whether a proposal repeats something measured, in flight, or prepared. Pure."""

from __future__ import annotations

from swarm.entities import Experiment, Loop, Target
from swarm.novelty import Likeness, change_key, keys, places, summary_key
from swarm.records import Proposal, Twin
from swarm.state import RunState

FAR = 3
"""Promotions of `best` after which an old outcome says little of the same change made now."""


def twin_of(state: RunState, agent: str, name: str, proposal: Proposal) -> Twin | None:
    """Find what an agent's proposal for the target of this name repeats, or None.

    An idea that is carried over (a port) repeats itself, which is its purpose; and what was tried
    on a base that `best` has left far behind may be tried again.
    """
    target = state.targets[name]
    if proposal.tree is None:
        return None
    if proposal.tree in target.number_of:
        return Twin(number=target.number_of[proposal.tree], same="tree")
    if proposal.port_of is not None:
        return None
    for same, number in target.tried.find(proposal):
        earlier = state.experiments[number]
        near = len(target.promotions) - earlier.level < FAR
        if near and not _is_another(state, agent, proposal, earlier, same):
            return Twin(number=number, same=same)
    return _prepared_by_another(state, agent, name, proposal)


def _is_another(
    state: RunState, agent: str, proposal: Proposal, earlier: Experiment, same: Likeness
) -> bool:
    """Tell whether a likeness to an experiment is none.

    What the incumbent has already, and is done to it again, is done elsewhere or once more.
    """
    target = state.targets[earlier.target]
    if _is_in(target, agent, proposal.base, earlier):
        return True
    if same == "summary":
        return _insists(state.agents[agent].loops[earlier.target], proposal)
    return _is_elsewhere(target, proposal, earlier.proposal)


def _is_in(target: Target, agent: str, base: str, earlier: Experiment) -> bool:
    """Tell whether a base came about by an experiment that was kept."""
    if earlier.verdict != "keep" or earlier.merged in ("conflict", "antagonistic"):
        return False
    if earlier.agent == agent:
        return base != earlier.base
    since = False
    for promotion in target.promotions:
        since = since or promotion.number == earlier.number
        if since and promotion.new == base:
            return True
    return False


def _insists(loop: Loop, proposal: Proposal) -> bool:
    """Tell whether it was told of this summary, and made another change under the same one.

    Such a summary (`Done.`) tells nothing of the change.
    """
    before = loop.returned
    if before is None or before.twin.same != "summary":
        return False
    if summary_key(before.proposal.summary) != summary_key(proposal.summary):
        return False
    return change_key(before.proposal.diff) != change_key(proposal.diff)


def _is_elsewhere(target: Target, one: Proposal, two: Proposal) -> bool:
    """Tell whether the same change was made to another place of the same base."""
    same_base = target.tree_of.get(one.base) == target.tree_of.get(two.base)
    same_lines = change_key(one.diff) == change_key(two.diff)
    return same_base and same_lines and places(one.diff) != places(two.diff)


def _prepared_by_another(state: RunState, agent: str, name: str, proposal: Proposal) -> Twin | None:
    target, mine = state.targets[name], dict(keys(proposal))
    for other, theirs in state.prepared(name):
        if other == agent:
            continue
        if theirs.tree == proposal.tree:
            return Twin(number=None, same="tree")
        for same, key in keys(theirs):
            if mine.get(same) != key:
                continue
            if same == "summary" and _insists(state.agents[agent].loops[name], proposal):
                continue
            if same == "summary" or not _is_elsewhere(target, proposal, theirs):
                return Twin(number=None, same=same)
    return None
