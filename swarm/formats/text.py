"""Text written by strangers, made safe to show; numbers and durations, made short for people;
which files hold prose.

Owns no format. What an agent or a candidate wrote may hold terminal commands, links, reversed
text or ten thousand characters: nothing of it reaches a terminal, a table or a picture unfiltered.
"""

from __future__ import annotations

import math
import re

_SEQUENCES = re.compile(
    # Strings that a terminal swallows up to their end: OSC (links, titles), DCS, SOS, PM, APC.
    # The next beginning ends the search for an end, else many of them take quadratic time.
    r"(?:\x1b[\]PX^_]|[\x90\x98\x9d\x9e\x9f])[^\x07\x1b\x90\x98\x9c-\x9f]*+(?:\x07|\x1b\\|\x9c)"
    r"|(?:\x1b\[|\x9b)[0-?]*+[ -/]*+[@-~]?"  # CSI: colours, cursor, screen
    r"|\x1b[ -/]*+[0-~]?"  # all other escapes
)
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 and C1, save tab and newline
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # text direction
    "\u2028\u2029\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"  # separators, marks, hidden tags
)
_IGNORED = re.compile(
    "[\x00-\x06\x0e-\x1a\x1c-\x1f\x7f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)
"""What a terminal does not show and a reader does not see, also inside of a sequence."""
_SURROGATES = re.compile("[\ud800-\udfff]")


def sanitise(text: str) -> str:
    """Remove all that could command a terminal or deceive the eye; newlines and tabs stay.

    A carriage return ends a line, as it does in logs.
    """
    text = _SEQUENCES.sub("", _IGNORED.sub("", text))
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return _SURROGATES.sub("\ufffd", _INVISIBLE.sub("", text))


def counted(n: int, what: str) -> str:
    """Give a count with its noun: `1 file`, `2 files`."""
    return f"{n} {what}{'s' * (n != 1)}"


def first_line(text: str) -> str:
    """Give the line that says what; what follows in a message is the end of some output."""
    return text.partition("\n")[0]


def one_line(text: str, width: int | None = None) -> str:
    """Sanitise, join the lines, and cut to `width` characters with an ellipsis."""
    if width is not None:  # no need to filter megabytes for one line
        text = text[: 64 * width + 4096]
    line = " ".join(sanitise(text).split())
    if width is None or len(line) <= width:
        return line
    return line[: max(0, width - 1)].rstrip() + "…"


def printable(text: str) -> str:
    """Sanitise, and make a blank of every character that is not printable, line ends too."""
    return "".join(c if c.isprintable() else " " for c in sanitise(text))


def markdown(text: str) -> str:
    """Escape text of strangers for a page: no markup, no link, no HTML."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*_\[\]#|!~$])", r"\\\1", text)
    return text.replace("://", "&#58;//")  # pages make links of bare addresses


def number(value: float | None, digits: int = 6) -> str:
    """Give a value with at most `digits` significant digits; a dash for none."""
    if value is None or not math.isfinite(value):
        return "—" if value is None or math.isnan(value) else str(value)
    return f"{value + 0.0:.{digits}g}"


def signed(value: float | None, digits: int = 6) -> str:
    """Give a difference with its sign, never `-0`."""
    if value is None or not math.isfinite(value):
        return number(value, digits)
    return f"{value + 0.0:+.{digits}g}"


def duration(seconds: float) -> str:
    """Give a span of time in its two largest units: `42s`, `3m 20s`, `7h 5m`, `2d 4h`."""
    whole = max(0, round(seconds))
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "m"), (rest, "s")]
    first = next((i for i, (amount, _) in enumerate(parts) if amount), 3)
    shown = [f"{amount}{unit}" for amount, unit in parts[first : first + 2] if amount]
    return " ".join(shown) or "0s"


def count(amount: int) -> str:
    """Give a large count in the config's own notation: `812`, `4.2k`, `1.3M`."""
    for size, letter in ((1_000_000, "M"), (1_000, "k")):
        if amount >= size:
            return f"{amount / size:.3g}{letter}"
    return str(amount)


_PROSE = frozenset({"md", "markdown", "mdc", "mdx", "txt", "prompt"})
_LISTS = re.compile(
    r"(?:(?:dev-|test-)?requirements|constraints|CMakeLists|robots|humans|words|vocab).*\.txt", re.I
)
"""Files of the suffix `txt` that are no prose."""


def is_prose(path: str) -> bool:
    """Tell by its name whether a file holds prose: a prompt, a skill, instructions."""
    name = path.rsplit("/", 1)[-1]
    return name.rpartition(".")[2].lower() in _PROSE and _LISTS.fullmatch(name) is None
