"""The structure of a text in prose: blocks, sections, sentences, and what must stay whole.

Owns how Markdown and plain text are read for editing: which parts are words that may be changed
and which are sealed (front matter, code, tables, quotes, markup, placeholders). Only as much of
Markdown as an edit must respect; nothing is rendered. Knows no edits: text in, spans out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

BlockKind = Literal["heading", "text", "item", "sealed"]

PLACEHOLDER = re.compile(
    r"\{\{.*?\}\}|\{%.*?%\}|\$\{[^}\n]*\}|\$[A-Z][A-Z0-9_]+|<<[^<>\n]+>>|%\(\w+\)s|\[\[[^\]\n]+\]\]"
    r"|\{[A-Za-z_][\w.]*(?:![rsa])?(?::[^{}\n]*)?\}|\[[A-Z][A-Z0-9 _]+\]",
    re.DOTALL,
)
"""What a program puts something in place of: `{{input}}`, `{name}`, `$ARGUMENTS`, `[TOPIC]`."""
_INLINE = re.compile(
    r"(`+).+?\1|!?\[[^\]\n]*\](?:\([^)\n]*\)|\[[^\]\n]*\])|<[^<>\n]+>|\b[a-z][a-z0-9+.-]*://[^\s)>]+"
    r"|(?<![\w/])@[\w./-]+|(?<!\w)[\w.-]*/[\w./-]+",
    re.DOTALL,
)
_FENCE = re.compile(r"[ \t]*(?:(?:[-*+]|\d{1,9}[.)])[ \t]+)?(?P<mark>`{3,}|~{3,})")
_WHOLE = re.compile(r"[ \t]*<(?P<tag>examples?|pre|script|style|svg|code)\b[^>]*>", re.IGNORECASE)
_TAG = re.compile(r"[ \t]*</?[A-Za-z][^<>]*>[ \t]*")
_TAGS = re.compile(r"<(?P<end>/?)(?P<name>[A-Za-z][\w.-]*)(?:\s[^<>]*)?(?P<empty>/?)>")
_HEADING = re.compile(r" {0,3}(?P<marks>#{1,6})(?:[ \t]+(?P<title>.*?))?[ \t]*#*[ \t]*")
_UNDERLINE = re.compile(r" {0,3}(?:=+|-{2,})[ \t]*")
_RULE = re.compile(r" {0,3}([-*_])(?:[ \t]*\1){2,}[ \t]*")
_ITEM = re.compile(r"(?P<indent>[ \t]*)(?P<mark>[-*+]|\d{1,9}[.)])[ \t]+(?=\S)")
_DELIMITERS = re.compile(r"[ \t]*\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*")
_DEFINITION = re.compile(r"[ \t]*\[[^\]\n]+\]:[ \t]")
_END = re.compile(r"[.!?…]+[\"'”’)\]*_]*(?=\s+[\"'“‘(\[*_`]*[A-ZÀ-Þ0-9`]|\s*\Z)|[。！？]+[」』”]*")
_ABBREVIATED = re.compile(r"(?:\b(?:e\.g|i\.e|vs|cf|Dr|Mr|Mrs|Ms|No|Fig|approx|incl)|\b[A-Z])\.$")


@dataclass(frozen=True, slots=True)
class Block:
    """Lines that belong together; blank lines are between blocks."""

    kind: BlockKind
    start: int
    end: int
    """Behind the line end of its last line."""
    body: int
    """Where its words begin, behind the mark of a heading or an item."""
    indent: int = 0
    level: int = 0
    """Of a heading, 1 to 6."""
    number: str = ""
    """The mark of an item in a numbered list: `2.`."""


class Section(NamedTuple):
    """A heading and all below it, or a paragraph of a text without headings."""

    title: str
    level: int
    first: int
    """Its blocks, as indices: from `first` to before `last`."""
    last: int


class Span(NamedTuple):
    """A part of the text."""

    start: int
    end: int


class Outline:
    """A text, taken apart."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.blocks = tuple(_blocks(text))

    def words(self, block: Block) -> Span:
        """Give the words of a block, without its mark and its line end."""
        return Span(block.body, block.body + len(self.text[block.body : block.end].rstrip()))

    def sentences(self, block: Block) -> list[Span]:
        """Take the words of a block apart; what is not a sentence is one piece with its end."""
        start, end = self.words(block)
        masked = mask(self.text[start:end])
        found: list[Span] = []
        begin = 0
        for stop in _END.finditer(masked):
            if _ABBREVIATED.search(masked[max(0, stop.start() - 8) : stop.start() + 1]):
                continue
            found.append(Span(start + begin, start + stop.end()))
            begin = stop.end() + len(masked[stop.end() :]) - len(masked[stop.end() :].lstrip())
        if begin < len(masked):
            found.append(Span(start + begin, end))
        return found

    def sections(self) -> list[list[Section]]:
        """Give the sections in groups of siblings: those of one level below one heading."""
        heads = [i for i, block in enumerate(self.blocks) if block.kind == "heading"]
        groups: dict[int, list[Section]] = {}
        above: list[Section] = []
        for place, index in enumerate(heads):
            level = self.blocks[index].level
            later = (h for h in heads[place + 1 :] if self.blocks[h].level <= level)
            start, end = self.words(self.blocks[index])
            title = self.text[start:end].partition("\n")[0].strip()
            found = Section(title, level, index, next(later, len(self.blocks)))
            while above and above[-1].level >= level:
                above.pop()
            groups.setdefault(above[-1].first if above else -1, []).append(found)
            above.append(found)
        return [group for group in groups.values() if len({s.level for s in group}) == 1]

    def paragraphs(self) -> list[Section]:
        """Give the paragraphs, each with the list or code that it leads to."""
        found: list[Section] = []
        for index, block in enumerate(self.blocks):
            begins = block.kind == "text" and not block.indent and self.apart(index)
            leads = index > 0 and self.text[: self.blocks[index - 1].end].rstrip().endswith(":")
            if begins and not (found and found[-1].last == index and leads):
                start, end = self.words(block)
                found.append(Section(self.text[start:end], 0, index, index + 1))
            elif found and found[-1].last == index and self._follows(block):
                found[-1] = found[-1]._replace(last=index + 1)
        return found

    def _follows(self, block: Block) -> bool:
        """Tell whether a block may belong to the paragraph above: no heading, and nothing alone."""
        inside = self.text[block.start : block.end]
        return block.kind != "heading" and PLACEHOLDER.fullmatch(inside.strip()) is None

    def apart(self, index: int) -> bool:
        """Tell whether a blank line, or nothing, is above a block."""
        return index == 0 or self.blocks[index - 1].end < self.blocks[index].start

    def cut(self, first: int, last: int) -> Span:
        """Give what goes when the blocks from `first` to before `last` go, blank lines included."""
        start, end = self.blocks[first].start, self.blocks[last - 1].end
        if last == len(self.blocks):
            return Span(self.blocks[first - 1].end if first and self.apart(first) else start, end)
        joined = not self.apart(last)
        return Span(start, self.blocks[last].start if joined or self.apart(first) else end)


def mask(text: str) -> str:
    """Blot out code, links, tags, paths and placeholders, character for character."""
    for pattern in (_INLINE, PLACEHOLDER):
        text = pattern.sub(lambda found: "X" * len(found.group()), text)
    return text


def whole(text: str) -> bool:
    """Tell whether a part can go or be moved alone: all brackets, quotes, marks, tags are pairs."""
    plain = mask(text)
    pairs = all(plain.count(a) == plain.count(b) for a, b in ("()", "[]", "{}", "“”"))
    even = all(plain.count(mark) % 2 == 0 for mark in ('"', "`", "**", "__"))
    open_: Counter[str] = Counter()
    for tag in _TAGS.finditer(text):
        open_[tag["name"].lower()] += 0 if tag["empty"] else -1 if tag["end"] else 1
    return pairs and even and not any(open_.values())


def is_anchored(text: str) -> bool:
    """Tell whether a sealed block is something that other places rely on: an import, a link."""
    return text.startswith("@") or _DEFINITION.match(text) is not None


def anchor(title: str) -> str:
    """Give what `#...` in a link calls a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


# --- blocks ------------------------------------------------------------------------------------


class _Line(NamedTuple):
    start: int
    end: int
    text: str
    """Without its line end."""

    @property
    def blank(self) -> bool:
        return not self.text.strip()


def _lines(text: str) -> list[_Line]:
    found: list[_Line] = []
    at = 0
    for match in re.finditer(r"[^\r\n]*(?:\r\n|\r|\n|\Z)", text):
        if match.group():
            found.append(_Line(at, match.end(), match.group().rstrip("\r\n")))
            at = match.end()
    return found


def _blocks(text: str) -> Iterator[Block]:
    lines = _lines(text)
    at = _front_matter(lines)
    if at:
        yield _sealed(lines[0], lines[at - 1])
    listed = False
    """Whether a list is open: what is indented belongs to it."""
    while at < len(lines):
        line = lines[at]
        if line.blank:
            at += 1
            continue
        last = _sealed_to(lines, at, listed)
        if last is not None:
            yield _sealed(line, lines[last])
            at = last + 1
            listed = listed and _indent(line) > 0
            continue
        heading = _HEADING.fullmatch(line.text)
        if heading is not None:
            body = line.start + (heading.start("title") if heading["title"] else len(line.text))
            yield Block("heading", line.start, line.end, body, level=len(heading["marks"]))
            at, listed = at + 1, False
            continue
        block, at = _words(lines, at)
        listed = block.kind == "item" or (listed and block.indent > 0)
        yield block


def _front_matter(lines: list[_Line]) -> int:
    """Give the number of lines that a front matter takes."""
    if not lines or lines[0].text.lstrip("\ufeff").rstrip() not in ("---", "+++"):
        return 0
    ends = (lines[0].text.lstrip("\ufeff").rstrip(), "...")
    return next((i + 1 for i in range(1, len(lines)) if lines[i].text.rstrip() in ends), 0)


def _sealed_to(lines: list[_Line], at: int, listed: bool) -> int | None:
    """Give the last line of what begins here and must stay as it is, None for words."""
    line = lines[at].text
    fence = _FENCE.match(line)
    if fence is not None:
        mark = fence["mark"]
        close = re.compile(rf"[ \t]*{re.escape(mark[0])}{{{len(mark)},}}[ \t]*")
        return _until(lines, at + 1, close.fullmatch)
    if line.lstrip().startswith("<!--"):
        return _until(lines, at, lambda text: "-->" in text)
    tag = _WHOLE.match(line)
    if tag is not None:
        return _until(lines, at, lambda text: f"</{tag['tag'].lower()}>" in text.lower())
    if _is_table(lines, at):
        return _run(lines, at, lambda text: "|" in text)
    if line.lstrip().startswith(">"):
        return _run(lines, at, lambda text: text.lstrip().startswith(">"))
    if not listed and (line.startswith(("    ", "\t"))):
        return _run(lines, at, lambda text: text.startswith(("    ", "\t")))
    alone = _RULE.fullmatch(line) or _DEFINITION.match(line) or _TAG.fullmatch(line)
    if alone or line.startswith("@") or PLACEHOLDER.fullmatch(line.strip()):
        return at
    return None


def _is_table(lines: list[_Line], at: int) -> bool:
    line = lines[at].text
    following = lines[at + 1].text if at + 1 < len(lines) else ""
    ruled = "|" in line and "-" in following and _DELIMITERS.fullmatch(following) is not None
    return line.lstrip().startswith("|") or ruled


def _until(lines: list[_Line], at: int, ends: Callable[[str], object]) -> int:
    return next((i for i in range(at, len(lines)) if ends(lines[i].text)), len(lines) - 1)


def _run(lines: list[_Line], at: int, belongs: Callable[[str], object]) -> int:
    last = at
    while last + 1 < len(lines) and not lines[last + 1].blank and belongs(lines[last + 1].text):
        last += 1
    return last


def _words(lines: list[_Line], at: int) -> tuple[Block, int]:
    """Read a paragraph, an item of a list, or a heading that is underlined."""
    line = lines[at]
    item = _ITEM.match(line.text)
    last = at
    while last + 1 < len(lines) and not lines[last + 1].blank:
        following = lines[last + 1].text
        if item is None and last == at and _UNDERLINE.fullmatch(following):
            level = 1 if following.strip()[0] == "=" else 2
            return Block("heading", line.start, lines[at + 1].end, line.start, level=level), at + 2
        if _ITEM.match(following) or _HEADING.fullmatch(following):
            break
        if _sealed_to(lines, last + 1, listed=True) is not None:
            break
        last += 1
    start, end = line.start, lines[last].end
    if item is not None:
        number = item["mark"] if item["mark"][0].isdigit() else ""
        body = start + item.end()
        return Block("item", start, end, body, indent=_indent(line), number=number), last + 1
    body = start + len(line.text) - len(line.text.lstrip())
    return Block("text", start, end, body, indent=_indent(line)), last + 1


def _sealed(first: _Line, last: _Line) -> Block:
    return Block("sealed", first.start, last.end, first.start, indent=_indent(first))


def _indent(line: _Line) -> int:
    return len(line.text.expandtabs(4)) - len(line.text.expandtabs(4).lstrip())
