"""What tokens cost. The one importer of the price table, which is in the package: no network."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from swarm.groups import HeadlessProposer, MessagesProposer, Prices, ProposerConfig
from swarm.keys import is_local

if TYPE_CHECKING:
    from genai_prices.types import TieredPrices

MILLION = 1_000_000
WRITING = 1.25
"""What putting a token into the cache costs against reading it, where the table has no price."""
ANTHROPIC = "https://api.anthropic.com"
ANTHROPIC_URL = "ANTHROPIC_BASE_URL"
_SERVER_OF = {"claude": ANTHROPIC_URL, "codex": "OPENAI_BASE_URL"}
"""The variables that tell these programs to ask another server, perhaps one on this machine."""


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

    Of prices that depend on how long a request is, the lowest step is taken: most requests of a
    proposer stay below the next. Those that depend on the date are today's.

    Args:
        proposer: whose prices.
        keys: may hold `ANTHROPIC_BASE_URL` or `OPENAI_BASE_URL`, which decide whose they are.
    """
    match proposer:
        case MessagesProposer() | HeadlessProposer() if proposer.prices is not None:
            return price_given(proposer.prices)
        case MessagesProposer():
            return _by_server(proposer.model, proposer.base_url or keys.get(ANTHROPIC_URL) or "")
        case HeadlessProposer(cli=str() as cli):
            if is_local(keys.get(_SERVER_OF.get(cli, ""), "")):
                return Price()
            return None if proposer.model is None else _by_name(proposer.model)
        case HeadlessProposer():
            return None
        case _:
            return Price()


def price_at(model: str, base_url: str) -> Price | None:
    """Look up what a model costs at a server; 0 on this machine, None if it is not known."""
    return _by_server(model, base_url)


def reports_usd(proposer: ProposerConfig) -> bool:
    """Tell whether a proposer's program says itself what it has cost."""
    return isinstance(proposer, HeadlessProposer) and proposer.cli in ("claude", "opencode")


def reports_tokens(proposer: ProposerConfig) -> bool:
    """Tell whether it is known how many tokens a proposer takes; of any program it is not."""
    return not (isinstance(proposer, HeadlessProposer) and isinstance(proposer.cli, tuple))


def price_given(prices: Prices) -> Price:
    """Turn the config's prices, in USD for a million tokens, into those of one token."""
    read, written = prices.input or 0.0, prices.output or 0.0
    cache_read = read if prices.cache_read is None else prices.cache_read
    cache_write = read if prices.cache_write is None else prices.cache_write
    return Price(
        read / MILLION,
        written / MILLION,
        cache_read / MILLION,
        cache_write / MILLION,
        prices.proposal or 0.0,
    )


def _by_server(model: str, url: str) -> Price | None:
    """Look a model up at the server that is asked for it; an empty address is Anthropic's own."""
    if url and is_local(url):
        return Price()
    if not url or urlsplit(url).hostname == "api.anthropic.com":
        return _listed(model, provider="anthropic")
    return _listed(model, url=url)


def _by_name(model: str) -> Price | None:
    """Look a model up by its name alone, or by `provider/model`."""
    provider, slash, name = model.partition("/")
    return _listed(name, provider=provider) if slash else _listed(model)


def _listed(model: str, *, provider: str | None = None, url: str | None = None) -> Price | None:
    from genai_prices import Usage, calc_price

    nothing = Usage(input_tokens=0, output_tokens=0)
    try:
        if url is not None:
            found = calc_price(nothing, model, provider_api_url=url)
        else:
            found = calc_price(nothing, model, provider_id=provider)
    except LookupError:
        return None
    rates = found.model_price
    read, written = _rate(rates.input_mtok), _rate(rates.output_mtok)
    if read is None or written is None:
        return None
    cache_read, cache_write = _rate(rates.cache_read_mtok), _rate(rates.cache_write_mtok)
    return Price(
        read,
        written,
        read if cache_read is None else cache_read,
        WRITING * read if cache_write is None else cache_write,
    )


def _rate(listed: Decimal | TieredPrices | None) -> float | None:
    """Give the USD for one token from what the table has for a million."""
    if listed is None:
        return None
    return float(listed if isinstance(listed, Decimal) else listed.base) / MILLION
