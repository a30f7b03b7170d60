"""Spans of time as people write them: `1h30m` is 5400 seconds."""

import re

UNITS = {"h": 3600, "m": 60, "s": 1}
"""In seconds, the longest first."""
PART = re.compile(r"(\d+)([hms])")


def parse(text: str) -> int:
    """Turn a span into seconds.

    Raises:
        ValueError: it is no span.
    """
    if not re.fullmatch(rf"({PART.pattern})+", text):
        raise ValueError(f"not a span: {text!r}")
    return sum(int(n) * UNITS[unit] for n, unit in PART.findall(text))


def show(seconds: int) -> str:
    """Write seconds as a span."""
    parts: list[str] = []
    for unit, size in UNITS.items():
        number, seconds = divmod(seconds, size)
        if number:
            parts.append(f"{number}{unit}")
    return "".join(parts) or "0s"
