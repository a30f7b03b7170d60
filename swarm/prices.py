"""What tokens cost. The one importer of the price table, which is in the package: no network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from swarm.groups import ProposerConfig


class Price(NamedTuple):
    """USD for one token of each kind, and flat for a proposal."""

    input: float = 0.0
    output: float = 0.0
    cache_read: float = 0.0
    cache_write: float = 0.0
    proposal: float = 0.0

    def usd(self, *, input: int, output: int, cache_read: int = 0, cache_write: int = 0) -> float:  # noqa: A002
        """Give the cost of tokens; `input` are those that neither come from nor go to the cache."""
        return (
            input * self.input
            + output * self.output
            + cache_read * self.cache_read
            + cache_write * self.cache_write
        )


def price_of(proposer: ProposerConfig, keys: Mapping[str, str]) -> Price | None:
    """Give a proposer's prices: the config's, else the table's; 0 for a server on this machine
    and for proposers without a model; None if they are not known.

    `keys` may hold `ANTHROPIC_BASE_URL`, which decides whose prices they are.
    """
    raise NotImplementedError
