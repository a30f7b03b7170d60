"""What the obedient model can do as a programmer: one task each, done well or as it slips.

Owns the code that it writes, as edits of files it has read. It is found by words of the request and
the workspace, not by a case's name, and it is the model's own: no file of the examples is read.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Trap = Literal["none", "explore", "plan", "review", "ask", "test"]


class Edit(NamedTuple):
    """One text for another in a file; an empty `old` means the end of the file."""

    path: str
    old: str
    new: str


class Task(NamedTuple):
    """One thing that it was asked to do, somewhere."""

    words: str
    """Stems, all of which the request has."""
    main: str
    """The file that it is about."""
    trap: Trap
    """What has to be done beforehand or afterwards, or it does not come out well."""
    good: tuple[Edit, ...]
    slip: tuple[Edit, ...] = ()
    """What it writes when the trap is not seen; nothing if that is the same."""
    test: str = ""
    """The body of a test, for a skill that wants one."""
    asks: str = ""
    """What it would like to know before it begins."""


def after(path: str, marker: str, code: str) -> Edit:
    """Put code behind a text that is there once."""
    return Edit(path, marker, marker + code)


COUNT = '    """Count the words of a text."""\n    return len(words(text))\n'
WORDTOOL = (
    Task(
        "longest",
        "wordtool.py",
        "plan",
        good=(
            after(
                "wordtool.py",
                COUNT,
                "\n\ndef longest(text: str) -> str:\n"
                '    """Give the longest word, of several the first; nothing without words."""\n'
                '    return max(words(text), key=len, default="")\n',
            ),
        ),
        slip=(
            after(
                "wordtool.py",
                COUNT,
                "\n\ndef longest(text: str) -> str:\n"
                '    """Give the longest word."""\n'
                "    return max(words(text), key=len)\n",
            ),
        ),
        test='self.assertEqual(wordtool.longest("a bb cc"), "bb")',
    ),
    Task(
        "letters",
        "wordtool.py",
        "none",
        good=(
            after(
                "wordtool.py",
                COUNT,
                "\n\ndef letters(text: str) -> int:\n"
                '    """Count the letters of all words."""\n'
                "    return sum(len(word) for word in words(text))\n",
            ),
        ),
        test='self.assertEqual(wordtool.letters("to be!"), 4)',
    ),
    Task(
        "rename count_words",
        "wordtool.py",
        "review",
        good=(
            Edit("wordtool.py", "def count(", "def count_words("),
            Edit("wordtool.py", "print(count(", "print(count_words("),
            Edit("tests/test_wordtool.py", "wordtool.count(", "wordtool.count_words("),
        ),
        slip=(
            Edit("wordtool.py", "def count(", "def count_words("),
            Edit("tests/test_wordtool.py", "wordtool.count(", "wordtool.count_words("),
        ),
        test='self.assertFalse(hasattr(wordtool, "count"))',
    ),
    Task(
        "little_words",
        "wordtool.py",
        "ask",
        good=(
            Edit(
                "wordtool.py",
                'MARKS = ".,;:!?\\"\'()"\n',
                'MARKS = ".,;:!?\\"\'()"\nLITTLE = frozenset(("a", "an", "and", "of", "the"))\n',
            ),
            Edit(
                "wordtool.py",
                COUNT,
                '    """Count the words of a text, but for the little ones."""\n'
                "    return sum(word not in LITTLE for word in words(text))\n",
            ),
        ),
        test='self.assertEqual(wordtool.count("the lamp of a king"), 2)',
        asks="Which words do you count as little ones, and in which languages?",
    ),
    Task(
        "average",
        "wordtool.py",
        "plan",
        good=(
            after(
                "wordtool.py",
                COUNT,
                "\n\ndef average(text: str) -> float:\n"
                '    """Give the mean length of a word, 0 without words."""\n'
                "    found = words(text)\n"
                "    return sum(map(len, found)) / len(found) if found else 0.0\n",
            ),
        ),
        slip=(
            after(
                "wordtool.py",
                COUNT,
                "\n\ndef average(text: str) -> float:\n"
                '    """Give the mean length of a word."""\n'
                "    found = words(text)\n"
                "    return sum(map(len, found)) / len(found)\n",
            ),
        ),
        test='self.assertEqual(wordtool.average("to three"), 3.5)',
    ),
)

AMOUNT = (
    '        """Tell how many there are of an item, 0 of one that was never there."""\n'
    "        return self._amounts.get(name, 0)\n"
)
REMOVE = (
    "\n    def remove(self, name: str, amount: int) -> None:\n"
    '        """Take some of an item out."""\n'
    "        if amount > self.amount(name):\n"
    "            raise {error}\n"
    "        self._amounts[name] -= amount\n"
)
RENAME = (
    "\n    def rename(self, old: str, new: str) -> None:\n"
    '        """Give an item another name."""\n{guard}'
    "        self._amounts[new] = self._amounts.pop(old)\n"
    "        self._prices[new] = self._prices.pop(old)\n"
)
GUARD = (
    "        if old not in self._amounts:\n"
    '            raise StockError(f"there is no {old}")\n'
    "        if new in self._amounts:\n"
    '            raise StockError(f"there is a {new} already")\n'
)
VALUE = (
    '\n    def value(self) -> {kind}:\n        """Tell what everything is worth, {unit}."""\n'
    "        return sum(n * self._prices[name] for name, n in self._amounts.items()){divided}\n"
)
STOCK = (
    Task(
        "remove",
        "stock.py",
        "explore",
        good=(
            after(
                "stock.py",
                AMOUNT,
                REMOVE.replace("{error}", 'StockError(f"there are not {amount} of {name}")'),
            ),
        ),
        slip=(
            after(
                "stock.py", AMOUNT, REMOVE.replace("{error}", 'ValueError("not enough in stock")')
            ),
        ),
        test='self.stock.remove("lamp", 2)\n        self.assertEqual(self.stock.amount("lamp"), 1)',
    ),
    Task(
        "worth",
        "stock.py",
        "explore",
        good=(after("stock.py", AMOUNT, VALUE.format(kind="int", unit="in cents", divided="")),),
        slip=(
            after(
                "stock.py", AMOUNT, VALUE.format(kind="float", unit="in euros", divided=" / 100")
            ),
        ),
        test="self.assertGreater(self.stock.value(), 0)",
    ),
    Task(
        "negative",
        "stock.py",
        "test",
        good=(
            after(
                "stock.py",
                '        """Put in more of an item; the price is the newest for all of it."""\n',
                "        if amount < 0:\n"
                '            raise StockError(f"{amount} of {name} cannot be added")\n',
            ),
        ),
        test='with self.assertRaises(StockError):\n            self.stock.add("lamp", -1, 1999)',
    ),
    Task(
        "runs_low",
        "stock.py",
        "ask",
        good=(
            after(
                "stock.py",
                AMOUNT,
                "\n    def low(self) -> list[str]:\n"
                '        """Name the items of which fewer than 5 are left."""\n'
                "        return sorted(name for name, n in self._amounts.items() if n < 5)\n",
            ),
        ),
        test='self.assertEqual(self.stock.low(), ["lamp"])',
        asks="Below which number does an item run low, and who is to be told?",
    ),
    Task(
        "another_name",
        "stock.py",
        "explore",
        good=(after("stock.py", AMOUNT, RENAME.replace("{guard}", GUARD)),),
        slip=(after("stock.py", AMOUNT, RENAME.replace("{guard}", "")),),
        test='self.stock.rename("lamp", "light")\n'
        '        self.assertEqual(self.stock.amount("light"), 3)',
    ),
)

PARSED = (
    '    """Turn a span into seconds."""\n'
    "    return sum(int(number) * UNITS[unit] for number, unit in PART.findall(text))\n"
)
SPANS = (
    Task(
        "days read",
        "spans.py",
        "review",
        good=(
            Edit("spans.py", 'UNITS = {"h"', 'UNITS = {"d": 86400, "h"'),
            Edit("spans.py", "[hms]", "[dhms]"),
        ),
        slip=(
            Edit("spans.py", 'UNITS = {"h"', 'UNITS = {"d": 86400, "h"'),
            Edit("spans.py", "[hms]", "[dhm]"),
        ),
        test='self.assertEqual(spans.parse("1d1h"), 90000)',
    ),
    Task(
        "mean",
        "spans.py",
        "plan",
        good=(
            after(
                "spans.py",
                PARSED,
                "\n\ndef mean(texts: list[str]) -> int:\n"
                '    """Give the mean of several spans in whole seconds, 0 of none."""\n'
                "    return sum(map(parse, texts)) // len(texts) if texts else 0\n",
            ),
        ),
        slip=(
            after(
                "spans.py",
                PARSED,
                "\n\ndef mean(texts: list[str]) -> int:\n"
                '    """Give the mean of several spans in whole seconds."""\n'
                "    return sum(map(parse, texts)) // len(texts)\n",
            ),
        ),
        test='self.assertEqual(spans.mean(["1m", "2m"]), 90)',
    ),
    Task(
        "total",
        "spans.py",
        "none",
        good=(
            after(
                "spans.py",
                PARSED,
                "\n\ndef total(texts: list[str]) -> int:\n"
                '    """Add several spans up, in seconds."""\n'
                "    return sum(map(parse, texts))\n",
            ),
        ),
        test='self.assertEqual(spans.total(["1m", "30s"]), 90)',
    ),
    Task(
        "soon",
        "spans.py",
        "test",
        good=(
            Edit(
                "spans.py",
                PARSED,
                '    """Turn a span into seconds.\n\n'
                "    Raises:\n        ValueError: it is no span.\n"
                '    """\n'
                '    if not re.fullmatch(rf"({PART.pattern})+", text):\n'
                '        raise ValueError(f"not a span: {text!r}")\n'
                "    return sum(int(n) * UNITS[unit] for n, unit in PART.findall(text))\n",
            ),
        ),
        test='with self.assertRaises(ValueError):\n            spans.parse("soon")',
    ),
    Task(
        "days show",
        "spans.py",
        "review",
        good=(
            Edit("spans.py", 'UNITS = {"h"', 'UNITS = {"d": 86400, "h"'),
            Edit("spans.py", "[hms]", "[dhms]"),
        ),
        slip=(
            Edit("spans.py", '"s": 1}', '"s": 1, "d": 86400}'),
            Edit("spans.py", "number, seconds = divmod(seconds, size)", "number = seconds // size"),
        ),
        test='self.assertEqual(spans.show(86400), "1d")',
    ),
)

TASKS = (*WORDTOOL, *STOCK, *SPANS)
