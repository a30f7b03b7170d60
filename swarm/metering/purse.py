"""What one measurement may use of models, and has: limits, reservations, prices."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import NamedTuple

from swarm.prices import Price, price_at


class Refusal(Exception):
    """A request that is not sent on, or (from 500) not answered."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status, self.kind = status, kind


@dataclass(frozen=True)
class Provider:
    """Whom a target's harness may ask; picklable."""

    base_url: str
    key: str = field(default="", repr=False)
    models: tuple[str, ...] = ()
    """Globs of the models that may be asked; empty for any."""
    prices: Price | None = None
    """None for those of the price table."""
    usd: float | None = None
    """Most USD for one measurement."""
    tokens: int | None = None


class Metered(NamedTuple):
    """What one measurement has used."""

    usd: float = 0.0
    tokens: int = 0
    requests: int = 0
    refused: int = 0
    unpriced: tuple[str, ...] = ()
    """Models that were asked and whose price is not known."""


class Tokens(NamedTuple):
    """Tokens of one answer; `input` neither come from nor go to the cache."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0


class Claim(NamedTuple):
    """What is set aside for a request under way."""

    usd: float
    tokens: int


class Purse:
    """What one measurement has used, and may still use."""

    def __init__(self, provider: Provider) -> None:
        self._provider, self._used, self._closed = provider, Metered(), False
        self._claims: list[Claim] = []
        self._changed = threading.Condition()

    @property
    def used(self) -> Metered:
        """What has been used so far."""
        with self._changed:
            return self._used

    def admits(self, model: str) -> bool:
        """Tell whether a model may be asked."""
        globs = self._provider.models
        return not globs or any(fnmatchcase(model, glob) for glob in globs)

    def claim(self, model: str, most: Tokens) -> Claim:
        """Set aside what a request may take at most; refuse it if a limit is reached.

        While others are under way who may use up what is left, wait until they have settled: only
        a request that is alone can go beyond a limit, and only what fits is under way at once.
        """
        usd = None if self._provider.usd is None else self._price(model, most)
        if usd is None and self._provider.usd is not None:
            words = f"what {model!r} costs is not known, so target.provider.usd cannot be kept"
            raise Refusal(403, "permission_error", f"{words}: give target.provider.prices")
        claim = Claim(usd or 0.0, sum(most))
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._spent() or self._fits(claim))
            if self._closed:
                raise ConnectionAbortedError
            if spent := self._spent():
                raise Refusal(403, "permission_error", spent)
            self._claims.append(claim)
        return claim

    def settle(self, claim: Claim, model: str, took: Tokens) -> None:
        """Count what a request has taken in place of what was set aside for it."""
        usd = self._price(model, took) if any(took) else 0.0
        with self._changed:
            self._claims.remove(claim)
            used = self._used
            unknown = usd is None and model not in used.unpriced
            self._used = used._replace(
                usd=used.usd + (usd or 0.0),
                tokens=used.tokens + sum(took),
                requests=used.requests + 1,
                unpriced=(*used.unpriced, model) if unknown else used.unpriced,
            )
            self._changed.notify_all()

    def refuse(self) -> None:
        """Count a request that was not sent on."""
        with self._changed:
            self._used = self._used._replace(refused=self._used.refused + 1)

    def close(self) -> None:
        """Let nobody wait any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _spent(self) -> str | None:
        """Name the limit that is reached, if one is."""
        for name, limit, used in self._limits():
            if limit is not None and used >= limit:
                return f"target.provider.{name} ({limit:g} for each measurement) is used up"
        return None

    def _fits(self, claim: Claim) -> bool:
        if not self._claims:
            return True
        held = [sum(parts) for parts in zip(claim, *self._claims, strict=True)]
        return all(
            limit is None or used + more <= limit
            for (_, limit, used), more in zip(self._limits(), held, strict=True)
        )

    def _limits(self) -> tuple[tuple[str, float | None, float], ...]:
        return (
            ("usd", self._provider.usd, self._used.usd),
            ("tokens", self._provider.tokens, self._used.tokens),
        )

    def _price(self, model: str, tokens: Tokens) -> float | None:
        price = self._provider.prices or price_at(model, self._provider.base_url)
        return None if price is None else price.usd(**tokens._asdict())
