"""What a text demands of whoever obeys it, by the words that carry its meaning.

Owns how a skill's text is read by the obedient model: clauses, negation, limits in figures. Knows
no skill of the examples; another wording with the same meaning-carrying words demands the same.
"""

from __future__ import annotations

import re
from functools import cached_property

NEGATION = re.compile(
    r"\b(?:no|not|never|avoid\w*|without|don't|nor|skip\w*|drop\w*|omit\w*|ban\w*|forbid\w*"
    r"|leave out|instead of|rather than|stay away|free of|refrain)\b"
)
SENTENCE = re.compile(r"(?<=[.!?])\s+|\n(?=\s*(?:[-*#]|\d+[.)]))|\n\s*\n")
CLAUSE = re.compile(r"([,;:()—]|\bbut\b|\band then\b)")
ANEW = re.compile(r"\s*(?:and )?(?:use|give|write|do|name|say|be|make|add|include|keep|always)\b")
"""A clause that begins so is a demand of its own."""
SHORT = 4
"""Words; a clause no longer than this goes on with the negation of the one before, as in a list."""
ENOUGH = 150
"""Words of a skill that a model reads without beginning to ramble itself."""


def has(text: str, stems: str) -> bool:
    """Tell whether one of some stems, written with blanks between them, begins a word of a text."""
    wanted = "|".join(re.escape(stem).replace("_", r"\s+") for stem in stems.split())
    return re.search(rf"\b(?:{wanted})", text) is not None


class Skill:
    """A system prompt as its reader takes it."""

    def __init__(self, text: str) -> None:
        body = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
        self.text = body.lower().replace("’", "'").replace("do not", "don't")
        self.sentences = [s for s in map(self._flat, SENTENCE.split(self.text)) if s]

    @staticmethod
    def _flat(sentence: str) -> str:
        return " ".join(sentence.split())

    @cached_property
    def words(self) -> int:
        """Count the words."""
        return len(self.text.split())

    @property
    def rambles(self) -> int:
        """Count the words beyond what is read with ease."""
        return max(0, self.words - ENOUGH)

    def leaning(self, *groups: str, besides: str = "") -> int:
        """Tell for or against what sentences with a word of every group speak, as a number.

        The negation that counts is that of the clause in which the first group's word stands.
        Sentences with a word of `besides` are about something else.
        """
        score = 0
        for sentence in self.sentences:
            if besides and has(sentence, besides):
                continue
            if all(has(sentence, group) for group in groups):
                score += self._polarity(sentence, groups[0])
        return score

    def asks(self, *groups: str, besides: str = "") -> bool:
        """Tell whether the text is for it."""
        return self.leaning(*groups, besides=besides) > 0

    def forbids(self, *groups: str) -> bool:
        """Tell whether the text is against it."""
        return self.leaning(*groups) < 0

    def names(self, step: str) -> bool:
        """Tell whether a heading or the start of a list's item is this word."""
        return re.search(rf"(?m)^\s*(?:#+|[-*]|\d+[.)])\s*\W*{step}\b", self.text) is not None

    def most(self, unit: str) -> int | None:
        """Give the smallest upper limit that is set in figures, as in `at most 80 words`."""
        return min(self._limits(unit, lower=False), default=None)

    def least(self, unit: str) -> int | None:
        """Give the largest lower limit."""
        return max(self._limits(unit, lower=True), default=None)

    def _limits(self, unit: str, *, lower: bool) -> list[int]:
        found: list[int] = []
        for sentence in self.sentences:
            for match in re.finditer(rf"(\d+|one|two|three)\s+(?:short\s+)?{unit}", sentence):
                around = sentence[max(0, match.start() - 40) : match.end()]
                least = has(around, "at_least minimum no_fewer no_less more_than")
                least = least and not has(around, "no_more not_more never_more")
                if least is lower:
                    number = match[1]
                    found.append({"one": 1, "two": 2, "three": 3}.get(number) or int(number))
        return found

    @staticmethod
    def _polarity(sentence: str, stems: str) -> int:
        negated = False
        for clause in CLAUSE.split(sentence):
            # `never without` is a demand: two negations cancel out.
            count = len(NEGATION.findall(clause))
            if count or len(clause.split()) > SHORT or ANEW.match(clause) or clause == "but":
                negated = count % 2 == 1
            if has(clause, stems):
                return -1 if negated else 1
        return 1
