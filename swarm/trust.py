"""What strangers may do, as a config says it: the sandbox of candidates, the models they may ask.

Owns the keys and their defaults; how walls are built is `sandbox`'s, how models are reached
`metering`'s.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from swarm.groups import Prices, key_for
from swarm.quantities import Count, EnvName, Number, Size, SizeOrAuto, Text, Url, Whole
from swarm.sections import Section

MEMORY = 8 * 2**30
"""Bytes of a measurement that uses no GPU, unless the config says something else."""


class SandboxConfig(Section):
    """How candidates are kept apart from the machine. A word is short for `{mode: word}`."""

    mode: Literal["auto", "require", "off"] = "auto"
    """`auto` takes the strongest isolation there is and says what it leaves open; `require` refuses
    to start without bubblewrap; `off` takes none."""
    network: Literal["off", "on"] = "off"
    """Whether `guard` and `run` reach the network. `setup` always does, `score` and `final` never
    do."""
    memory: SizeOrAuto | None = "auto"
    """Most memory of a measurement, all its processes together; null for no limit. `auto` is 8G
    without GPUs, and no limit with them."""
    processes: Annotated[Whole, Field(ge=4)] | None = 512
    """Most processes of a measurement at once; null for no limit."""
    file_size: Size | None = Field(default=2 * 2**30, json_schema_extra={"default": "2G"})
    """Largest file that a measurement may write; null for no limit."""
    tmp: Size | None = Field(default=2 * 2**30, json_schema_extra={"default": "2G"})
    """Most that /tmp holds, and /dev/shm. Both are in memory, and not counted in `memory` where
    the kernel does not do it."""
    output: Size = Field(default=16 * 2**20, json_schema_extra={"default": "16M"})
    """Most output that is kept of one command while it is read: its first and its last half."""

    def memory_for(self, gpus: float) -> int | None:
        """Give the limit in bytes for slots with so many GPUs."""
        if self.memory == "auto":
            return None if gpus else MEMORY
        return self.memory


class ProviderConfig(Section):
    """Models that the harness may ask while it measures: through swarm, which holds the key."""

    base_url: Url | None = None
    """The server; by default `ANTHROPIC_BASE_URL`, else Anthropic's."""
    key: EnvName | None = None
    """Name of the environment variable that holds the key: by default `ANTHROPIC_API_KEY` for
    Anthropic's own server and for `ANTHROPIC_BASE_URL`, and none for another `base_url`."""
    models: tuple[Text, ...] = ()
    """Globs of the models that may be asked; empty for any."""
    prices: Prices | None = None
    """What tokens cost, where swarm does not know it."""
    usd: Annotated[Number, Field(gt=0)] | None = None
    """Most USD for one measurement; beyond it every request is refused."""
    tokens: Count | None = None
    """Most tokens for one measurement; beyond it every request is refused."""

    @property
    def key_name(self) -> str | None:
        """The variable whose value may be shown to the server; None if there is none."""
        return key_for(self.base_url, self.key)
