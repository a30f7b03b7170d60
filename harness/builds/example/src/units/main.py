"""The command line: `units 3 km in m`."""

import sys

from units.convert import UnknownUnit, convert
from units.numbers import read, show


def main():
    """Convert what the command line says."""
    words = sys.argv[1:]
    if len(words) != 4 or words[2] != "in":
        sys.exit("usage: units NUMBER UNIT in UNIT")
    try:
        print(show(convert(read(words[0]), words[1], words[3])), words[3])
    except (UnknownUnit, ValueError) as error:
        sys.exit(f"units: {error}")
