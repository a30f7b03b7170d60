"""A coding agent from the command line as a proposer."""

from __future__ import annotations

from collections.abc import Mapping

from swarm.briefing import Briefing
from swarm.groups import HeadlessProposer
from swarm.proposers import Draft, Workspace


class Headless:
    """One agent's program."""

    def __init__(self, config: HeadlessProposer, agent: str, keys: Mapping[str, str]) -> None:
        self.config, self.agent, self.keys = config, agent, keys

    def propose(self, workspace: Workspace, briefing: Briefing) -> Draft:
        """Have the program make one change."""
        raise NotImplementedError
