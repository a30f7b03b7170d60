"""A query and its results on the terminal, and what is typed there.

Owns the looks. All of it is talk, so it goes to stderr; answers come from stdin, a line each. What
searches print is a stranger's text, and made harmless.
"""

from __future__ import annotations

import re
import sys

from rich.console import Console
from rich.table import Table
from rich.text import Text

from swarm.formats.golden import Label, Query
from swarm.formats.text import duration, one_line, sanitise
from swarm.golden.asking import Progress, Sight
from swarm.golden.searching import Result

LINES = (1, 3)
"""Of one result's text at least and at most: as many as the terminal has room for."""
AROUND = 6
"""Lines of the terminal that no result takes."""
PLAIN_WIDTH = 100
"""Where there is no terminal."""
SHORT = 3
"""Letters of a word below which it is not looked for in the results."""
COMMON = (
    "all", "and", "any", "are", "can", "does", "for", "from", "how", "not", "that", "the", "this",
    "was", "what", "with",
)  # fmt: skip
"""Words that are everywhere; marked, they would hide the others."""
ECHO = 200
"""Characters of an answer that are shown where nobody sees it typed."""
_MARK = "bold yellow"


class TerminalPage:
    """Somebody at a terminal, or a program that answers on stdin."""

    def __init__(self) -> None:
        terminal = sys.stderr.isatty()
        width = None if terminal else PLAIN_WIDTH
        self._console = Console(file=sys.stderr, width=width, highlight=False, emoji=False)
        self._echo = not sys.stdin.isatty()
        # What is no text then comes as one answer that is none, and not as an error of reading.
        if (reconfigure := getattr(sys.stdin, "reconfigure", None)) is not None:
            reconfigure(errors="surrogateescape")

    def show(self, query: Query, sight: Sight, label: Label | None, at: Progress) -> None:
        """Show a query with its results, and its label if it has one."""
        pace = "" if at.left_s is None else f"   about {duration(at.left_s)} left"
        head = Text(f"{at.number} of {at.of}   {one_line(query.id, 60)}{pace}", style="dim")
        self._console.print("", head, Text(one_line(query.text), style="bold"), "", sep="\n")
        words = re.findall(r"\w+", query.text)
        words = [w for w in words if len(w) >= SHORT and w.lower() not in COMMON]
        grid = Table.grid(padding=(0, 1))
        grid.add_column(justify="right", width=4)
        grid.add_column(overflow="fold")
        for number, result in enumerate(sight.results, start=1):
            shown = self._result(result, label, self._room(len(sight.results)))
            shown.highlight_words(words, _MARK, case_sensitive=False)
            grid.add_row(Text(str(number), style="cyan"), shown)
        self._console.print(grid)
        for failure in sight.failures:
            self._console.print(Text(f"  the search {one_line(failure, 300)}", style="red"))
        if not sight.results and not sight.failures:
            self._console.print(Text("  nothing was found", style="dim"))
        if label is not None:
            self._console.print(Text(f"  {_known(label, sight)}", style="dim"))

    def _room(self, results: int) -> int:
        """Give the characters of a text that fit when so many are shown."""
        least, most = LINES
        lines = (self._console.height - AROUND) // max(1, results) - 1
        return min(most, max(least, lines)) * (self._console.width - 6)

    def _result(self, result: Result, label: Label | None, room: int) -> Text:
        name, title = one_line(result.id, 200), one_line(result.title, 200)
        shown = Text().append(name, style="bold")
        if title and title != name:
            shown.append(f"  {title}")
        if label is not None and result.id in label.relevant:
            shown.append(f"  ={label.relevant[result.id]}", style="green")
        if text := one_line(result.text, room):
            shown.append(f"\n{text}")
        return shown

    def say(self, text: str) -> None:
        """Say something in between."""
        self._console.print(Text(sanitise(text)))

    def hear(self) -> str:
        """Give the next answer.

        Raises:
            EOFError: there are no more.
        """
        self._console.print(Text("> ", style="bold"), end="")
        line = sys.stdin.readline()
        if not line or self._echo:
            self._console.print(Text(one_line(line, ECHO)))
        if not line:
            raise EOFError
        return line


def _known(label: Label, sight: Sight) -> str:
    """Say what a label has beside the grades of what is shown."""
    shown = {result.id for result in sight.results}
    graded = label.relevant.items()
    others = [f"{one_line(n, 60)}={grade}" for n, grade in graded if n not in shown and grade]
    said = ["answered before", *others]
    said += [f"keywords {one_line(', '.join(label.keywords), 200)}"] if label.keywords else []
    said += [f"passage {one_line(each, 60)!r}" for each in label.snippets]
    return "; ".join(said)
