"""The metering proxy: how a measurement asks models without a key and without a network."""

from swarm.metering.asked import Tally
from swarm.metering.meter import DOOR_PORT, WORD, Meter
from swarm.metering.purse import Metered, Provider, Tokens

__all__ = ["DOOR_PORT", "WORD", "Meter", "Metered", "Provider", "Tally", "Tokens"]
