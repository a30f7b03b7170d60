"""Numbers as people write them."""

from fractions import Fraction


def read(text):
    """Read `3`, `3.5`, `1/3` or `2e3`."""
    return Fraction(text.replace(",", "."))


def show(value):
    """Write a number: exactly where twelve digits are enough, else about."""
    if value.denominator == 1:
        return str(value.numerator)
    near = float(value)
    return f"{near:.12g}" if Fraction(f"{near:.12g}") == value else f"~{near:.12g}"
