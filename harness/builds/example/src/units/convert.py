"""From one unit to another."""

from fractions import Fraction

from units.tables import PAIRS


class UnknownUnit(Exception):
    """There is no way from one unit to the other."""


def convert(value, source, target):
    """Give a value in another unit."""
    if (source, target) not in PAIRS:
        raise UnknownUnit(f"cannot convert {source} to {target}")
    size, zero = PAIRS[source, target]
    return value * Fraction(size) + Fraction(zero)
