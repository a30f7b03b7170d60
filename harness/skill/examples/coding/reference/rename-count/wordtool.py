"""Counts the words of a text: `python wordtool.py FILE`."""

import sys
from pathlib import Path

MARKS = ".,;:!?\"'()"


def words(text: str) -> list[str]:
    """Split a text into words, in lower case and without punctuation."""
    stripped = (word.strip(MARKS).lower() for word in text.split())
    return [word for word in stripped if word]


def count_words(text: str) -> int:
    """Count the words of a text."""
    return len(words(text))


def main(argv: list[str]) -> int:
    """Print how many words a file holds."""
    if len(argv) != 1:
        print("usage: wordtool.py FILE", file=sys.stderr)
        return 2
    print(count_words(Path(argv[0]).read_text(encoding="utf-8")))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
