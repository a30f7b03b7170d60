"""A language model behind the Messages API as a proposer."""

from __future__ import annotations

from collections.abc import Mapping

from swarm.briefing import Briefing
from swarm.groups import MessagesProposer
from swarm.proposers import Draft, Workspace


class Messages:
    """One agent's model."""

    def __init__(self, config: MessagesProposer, agent: str, keys: Mapping[str, str]) -> None:
        self.config, self.agent, self.keys = config, agent, keys

    def propose(self, workspace: Workspace, briefing: Briefing) -> Draft:
        """Have the model make one change."""
        raise NotImplementedError
