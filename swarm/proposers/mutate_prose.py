"""The mutation sites of prose for a model: prompts, skills, instructions in Markdown or plain text.

Sentences and sections that can go, sections that can move, modal words that can be made stronger or
weaker, examples that can be added or dropped. Whole sentences and sections only, so that what is
left still reads; what `outline` calls sealed is never touched. Knows no history and no file system:
text in, sites out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from swarm.proposers.examples import Example
from swarm.proposers.mutate_sites import Option, Site, unique_keys
from swarm.proposers.outline import (
    PLACEHOLDER,
    Block,
    Outline,
    Section,
    Span,
    anchor,
    is_anchored,
    mask,
    whole,
)

LARGEST = 100_000
"""Characters: a longer text is a document, not instructions."""
MOST_SIBLINGS = 30
"""Sections of a larger group are not moved."""
MOST_EXAMPLES = 5
"""More examples than this are not added to one text."""
ENDS = frozenset(".!?…。！？")


def sites(path: str, text: str, examples: Sequence[Example] = ()) -> list[Site]:
    """Find what may be changed in a text; `examples` are those that may be added."""
    if len(text) > LARGEST:
        return []
    outline = Outline(text)
    found = [
        *_sections(path, outline),
        *_sentences(path, outline),
        *_modals(path, outline),
        *_examples(path, outline, examples),
    ]
    return unique_keys(found)


def untouchable(text: str) -> list[Span]:
    """Give the parts of which not even a number may be changed: what is sealed, placeholders."""
    if len(text) > LARGEST:
        return []
    sealed = [Span(b.start, b.end) for b in Outline(text).blocks if b.kind == "sealed"]
    return sealed + [Span(*found.span()) for found in PLACEHOLDER.finditer(text)]


# --- sections ----------------------------------------------------------------------------------


def _sections(path: str, outline: Outline) -> Iterator[Site]:
    """Offer to delete and to move; paragraphs stand for sections in a text that has none."""
    groups = outline.sections()
    free = [s for group in groups for s in group if _can_go(outline, s)]
    if not free:
        groups = _runs(outline.paragraphs())
        free = [s for group in groups for s in group if _can_go(outline, s)]
        free = [s for s in free if s.last - s.first > 1 or _several(outline, s)]
    for section in free:
        span = outline.cut(section.first, section.last)
        yield _removal(path, outline, "section", section.title, span, 0.5)
    for group in groups:
        yield from _moves(path, outline, group)


def _runs(sections: Sequence[Section]) -> list[list[Section]]:
    """Part where something stands between two that is neither."""
    runs: list[list[Section]] = []
    for section in sections:
        if runs and runs[-1][-1].last == section.first:
            runs[-1].append(section)
        else:
            runs.append([section])
    return runs


def _several(outline: Outline, section: Section) -> bool:
    return len(outline.sentences(outline.blocks[section.first])) > 1


def _inside(outline: Outline, section: Section) -> str:
    return outline.text[outline.blocks[section.first].start : outline.blocks[section.last - 1].end]


def _can_go(outline: Outline, section: Section) -> bool:
    """Tell whether a text is still one without the section, and no link to it is left behind."""
    inside = _inside(outline, section)
    rest = [*outline.blocks[: section.first], *outline.blocks[section.last :]]
    if not any(block.kind in ("text", "item") for block in rest) or PLACEHOLDER.search(inside):
        return False
    own = outline.blocks[section.first : section.last]
    if any(b.kind == "sealed" and is_anchored(outline.text[b.start : b.end]) for b in own):
        return False
    if outline.blocks[section.first].kind != "heading":
        return whole(inside)
    names = {anchor(outline.text[slice(*outline.words(b))]) for b in _headings(outline, section)}
    outside = outline.text.replace(inside, "", 1)
    linked = set(re.findall(r"\]\(#([^)\s]+)\)", outside))
    return whole(inside) and not names & linked


def _headings(outline: Outline, section: Section) -> list[Block]:
    return [b for b in outline.blocks[section.first : section.last] if b.kind == "heading"]


def _moves(path: str, outline: Outline, group: Sequence[Section]) -> Iterator[Site]:
    """Offer each section the first and the last place, and those of its neighbours."""
    parts = [_inside(outline, s) for s in group]
    if not 2 <= len(group) <= MOST_SIBLINGS or not all(whole(part) for part in parts):
        return
    start = outline.blocks[group[0].first].start
    end = outline.blocks[group[-1].last - 1].end
    titles = [*(s.title for s in group), ""]
    for place, section in enumerate(group):
        if PLACEHOLDER.search(parts[place]):
            continue  # where a program puts its text is the program's affair
        others = [i for i in range(len(group)) if i != place]
        options: dict[str, Option] = {}
        for to in dict.fromkeys((0, place - 1, place + 1, len(group) - 1)):
            if to == place or not 0 <= to < len(group):
                continue
            order = [*others[:to], place, *others[to:]]
            behind = titles[order[to + 1]] if to + 1 < len(order) else ""
            text = _reordered(outline.text, parts, order, start, end)
            if text == outline.text[start:end]:
                continue
            where = f"before {behind}" if behind else "to the end"
            options.setdefault(where, Option(where, text, 0.6))
        here = f"before {titles[place + 1]}" if titles[place + 1] else "to the end"
        if not options:
            continue
        yield Site(
            key=f"{path}:move {section.title[:60]}",
            path=path,
            label=section.title,
            kind="move",
            start=start,
            end=end,
            text=outline.text[start:end],
            value=here,
            weight=0.3,
            options=tuple(options.values()),
        )


def _reordered(text: str, parts: list[str], order: list[int], start: int, end: int) -> str:
    """Put the parts into another order; the blank lines between places stay where they are."""
    gaps: list[str] = []
    at = start
    for part in parts:
        at = text.index(part, at) + len(part.rstrip())
        after = re.compile(r"\s*").match(text, at, end)
        gaps.append(after.group() if after else "")
    bodies = [parts[i].rstrip() for i in order]
    return "".join(body + gap for body, gap in zip(bodies, gaps, strict=True))


# --- sentences ---------------------------------------------------------------------------------


def _sentences(path: str, outline: Outline) -> Iterator[Site]:
    for index, block in enumerate(outline.blocks):
        if block.kind not in ("text", "item"):
            continue
        pieces = outline.sentences(block)
        for place, piece in enumerate(pieces):
            said = outline.text[piece.start : piece.end]
            if not _is_sentence(said, block) or PLACEHOLDER.search(said) or not whole(said):
                continue
            if len(pieces) == 1:
                site = _alone(path, outline, index, said)
                if site is not None:
                    yield site
                continue
            if place + 1 < len(pieces):
                span = Span(piece.start, pieces[place + 1].start)
            else:
                span = Span(pieces[place - 1].end, piece.end)
            yield _removal(path, outline, "sentence", said, span, 0.35)


def _is_sentence(said: str, block: Block) -> bool:
    plain = said.rstrip("\"'”’)]*_`」』")
    ended = bool(plain) and plain[-1] in ENDS
    listed = block.kind == "item" and not plain.endswith(":")
    return (ended or listed) and re.search(r"\w", said) is not None


def _alone(path: str, outline: Outline, index: int, said: str) -> Site | None:
    """Offer to delete a block that is one sentence, if nothing hangs on it."""
    blocks, block = outline.blocks, outline.blocks[index]
    above = blocks[index - 1] if index else None
    below = blocks[index + 1] if index + 1 < len(blocks) else None
    below_heading = above is None or above.kind == "heading"
    if block.kind == "text" and (block.indent or not (below_heading or outline.apart(index))):
        return None  # it goes on with what is above
    if block.kind == "item" and below is not None and below.indent > block.indent:
        return None  # others are below it
    if below_heading and (below is None or below.kind == "heading"):
        return None  # that would leave an empty section: the section itself can go
    if block.kind == "item" and not _has_siblings(outline, index):
        return None
    span = outline.cut(index, index + 1)
    new = ""
    if block.number:
        span, new = _renumbered(outline, index, span)
    return _removal(path, outline, "sentence", said, span, 0.35, new)


def _has_siblings(outline: Outline, index: int) -> bool:
    near = [i for i in (index - 1, index + 1) if 0 <= i < len(outline.blocks)]
    here = outline.blocks[index]
    return any(
        outline.blocks[i].kind == "item" and outline.blocks[i].indent == here.indent for i in near
    )


def _renumbered(outline: Outline, index: int, span: Span) -> tuple[Span, str]:
    """Let the items behind a deleted one count on without a gap."""
    text, here = outline.text, outline.blocks[index]
    pieces: list[str] = []
    at = span.end
    end = span.end
    for block in outline.blocks[index + 1 :]:
        if block.kind == "heading" or block.indent < here.indent:
            break
        if block.indent > here.indent:
            continue
        if not block.number:
            break
        mark = text.index(block.number, block.start)
        lower = f"{int(block.number[:-1]) - 1}{block.number[-1]}"
        pieces.append(text[at:mark] + lower)
        at = end = mark + len(block.number)
    return Span(span.start, end), "".join(pieces)


def _removal(
    path: str, outline: Outline, kind: str, label: str, span: Span, weight: float, new: str = ""
) -> Site:
    assert kind in ("section", "sentence")
    return Site(
        key=f"{path}:{kind} {_signature(label)}",
        path=path,
        label=label,
        kind="section" if kind == "section" else "sentence",
        start=span.start,
        end=span.end,
        text=outline.text[span.start : span.end],
        value=_signature(label),
        weight=weight,
        options=(Option(None, new),),
    )


def _signature(said: str) -> str:
    """Name a sentence by its words, whatever their case and the blanks between them."""
    return " ".join(re.findall(r"\w+", said.lower()))[:80]


# --- modal words -------------------------------------------------------------------------------

Change = Callable[[re.Match[str]], Sequence[tuple[str, float]]]


class _Rule(NamedTuple):
    """A way to say how binding something is, and what it may become, each with its weight."""

    pattern: re.Pattern[str]
    change: Change


_GERUNDS = {"using": "use", "writing": "write", "making": "make", "adding": "add", "giving": "give",
            "including": "include", "repeating": "repeat", "mentioning": "mention",
            "starting": "start", "ending": "end", "asking": "ask", "saying": "say",
            "changing": "change", "being": "be", "having": "have", "doing": "do",
            "providing": "provide", "explaining": "explain", "listing": "list"}  # fmt: skip
_LADDER = {
    "may": (("should", 1.0), ("must", 0.6)),
    "might": (("should", 1.0), ("must", 0.6)),
    "could": (("should", 1.0), ("must", 0.6)),
    "ought to": (("must", 1.0),),
    "should": (("must", 1.0), ("may", 0.4)),
    "must": (("should", 0.5),),
    "usually": (("always", 1.0),),
    "generally": (("always", 1.0),),
    "normally": (("always", 1.0),),
    "typically": (("always", 1.0),),
    "often": (("always", 0.8),),
    "rarely": (("never", 1.0),),
    "seldom": (("never", 1.0),),
    "always": (("usually", 0.4),),
    "never": (("rarely", 0.3),),
}
_LOUD = frozenset({"must", "always", "never"})


def _step(found: re.Match[str]) -> Sequence[tuple[str, float]]:
    word = found["word"]
    steps = [(_like(word, new), weight) for new, weight in _LADDER[" ".join(word.lower().split())]]
    if word.lower() in _LOUD and not word.isupper():
        steps.append((word.upper(), 0.5))
    return steps


def _dropped(found: re.Match[str]) -> Sequence[tuple[str, float]]:
    rest = found["rest"]
    first = found.group().lstrip()[:1]
    return [(rest[:1].upper() + rest[1:] if first.isupper() else rest, 1.0)]


def _avoid(found: re.Match[str]) -> Sequence[tuple[str, float]]:
    return _commanded(found, "never", 1.0)


def _prefer(found: re.Match[str]) -> Sequence[tuple[str, float]]:
    return _commanded(found, "always", 0.8)


def _commanded(found: re.Match[str], adverb: str, weight: float) -> Sequence[tuple[str, float]]:
    """Make a command of `avoid X` and `prefer X`: a verb that is known, or to use a thing."""
    thing = found["rest"]
    verb = _GERUNDS.get(thing.lower())
    if verb is None and thing.lower().endswith("ing"):
        return ()
    said = f"{adverb} {verb}" if verb else f"{adverb} use {thing}"
    return [(_like(found["word"], said), weight)]


def _never(found: re.Match[str]) -> Sequence[tuple[str, float]]:
    rest = found["rest"]
    return [(f"Try not to {rest}", 0.4), (f"{found['word'].upper()} {rest}", 0.5)]


def _not(found: re.Match[str]) -> Sequence[tuple[str, float]]:
    return [(_like(found["word"], "never"), 0.8)]


def _like(model: str, word: str) -> str:
    if model.isupper() and len(model) > 1:
        return word.upper()
    return word[:1].upper() + word[1:] if model[:1].isupper() else word


_RULES = (
    _Rule(re.compile(r"\A(?P<word>Never|never)\s+(?P<rest>[a-z]\w*)"), _never),
    _Rule(re.compile(r"\A(?P<word>Do not|Don't|Don’t|DO NOT)(?=\s+[a-zA-Z])"), _not),
    _Rule(re.compile(r"(?:\A|(?<=\b(?:and|you) ))(?:[Pp]lease )?[Tt]ry to (?P<rest>\w+)"),
          _dropped),
    _Rule(re.compile(r"(?<=\b(?:must|also) )try to (?P<rest>\w+)"), _dropped),
    _Rule(re.compile(r"(?<=\b(?:should|always) )try to (?P<rest>\w+)"), _dropped),
    _Rule(re.compile(r"\A(?:Ideally|If possible|Where possible),\s+(?P<rest>\w+)"), _dropped),
    _Rule(re.compile(r",? (?:if|where|when|whenever|as far as) possible(?P<rest>)(?=[.,;!]|\Z)"),
          _dropped),
    _Rule(re.compile(r"(?:\A|(?<=should )|(?<=must ))(?P<word>[Aa]void)\s+(?P<rest>[a-zA-Z-]+)"),
          _avoid),
    _Rule(re.compile(r"\A(?P<word>[Pp]refer)\s+(?P<rest>(?!to\b)[a-zA-Z-]+)"), _prefer),
    _Rule(re.compile(r"(?<![\w-])(?P<word>should|must|ought to)(?![\w-])", re.I), _step),
    _Rule(re.compile(r"(?<![\w-])(?P<word>MAY|MIGHT|COULD)(?![\w-])"), _step),
    _Rule(re.compile(r"(?:(?<=\byou )|(?<=\bYou )|(?<=\bit )|(?<=\bIt )|(?<=answer )|(?<=reply )|"
                     r"(?<=response )|(?<=output )|(?<=summary ))(?P<word>may|might|could)(?!\w)"),
          _step),
    _Rule(re.compile(r"(?<![\w-])(?P<word>usually|generally|normally|typically|often|rarely|seldom|"
                     r"always|never)(?![\w-])", re.I), _step),
)  # fmt: skip


def _modals(path: str, outline: Outline) -> Iterator[Site]:
    for block in outline.blocks:
        if block.kind in ("text", "item"):
            for piece in outline.sentences(block):
                yield from _modals_in(path, outline, piece)


def _modals_in(path: str, outline: Outline, piece: Span) -> Iterator[Site]:
    """Offer each word of a sentence that says how binding it is; the first rule has it."""
    said = outline.text[piece.start : piece.end]
    lead = len(said) - len(said.lstrip("*_\"'“("))
    plain = mask(said)[lead:]
    taken: list[Span] = []
    for rule in _RULES:
        for found in rule.pattern.finditer(plain):
            span = Span(*found.span())
            if any(span.start < t.end and t.start < span.end for t in taken):
                continue
            steps = rule.change(found)
            if not steps:
                continue
            taken.append(span)
            start = piece.start + lead + span.start
            around = plain[: span.start] + " _ " + plain[span.end :]
            yield Site(
                key=f"{path}:modal {_signature(around)}",
                path=path,
                label=" ".join(said.split()),
                kind="modal",
                start=start,
                end=start + len(found.group()),
                text=found.group(),
                value=found.group(),
                weight=0.5,
                options=tuple(Option(new, new, weight) for new, weight in steps),
            )


# --- examples ----------------------------------------------------------------------------------

_BLOCK = re.compile(r"[ \t]*<example>\s*\n.*?</example>[ \t]*(?:\r\n|\n|\Z)", re.DOTALL)


def _examples(path: str, outline: Outline, examples: Sequence[Example]) -> Iterator[Site]:
    """Offer to add each example that is not there, and to drop each that is."""
    text = outline.text
    line_end = "\r\n" if "\r\n" in text else "\n"
    there = list(_BLOCK.finditer(text))
    wanted = {e.id: _written(e).replace("\n", line_end) for e in examples if _fits(e, text)}
    at, before, after = _place(outline)
    for name, written in wanted.items():
        present = next((m for m in there if m.group().strip() == written.strip()), None)
        if present is not None:
            start = present.start()
            end = re.compile(r"\s*").match(text, present.end()).end()  # type: ignore[union-attr]
            yield _example(path, name, (start, end), text[start:end], "", present=True)
        elif len(there) < MOST_EXAMPLES:
            new = (before + written + after).replace("\n\n\n", "\n\n")
            new = new if line_end == "\n" else re.sub(r"(?<!\r)\n", line_end, new)
            yield _example(path, name, (at, at), "", new, present=False)


def _example(
    path: str, name: str, span: tuple[int, int], text: str, new: str, *, present: bool
) -> Site:
    return Site(
        key=f"{path}:example {name}",
        path=path,
        label=name,
        kind="example",
        start=span[0],
        end=span[1],
        text=text,
        value=present,
        weight=0.3 if present else 0.8,
        options=(Option(not present, new),),
    )


def _written(example: Example) -> str:
    return (
        f"<example>\n<input>\n{example.request}\n</input>\n"
        f"<output>\n{example.answer}\n</output>\n</example>\n"
    )


def _fits(example: Example, text: str) -> bool:
    """Tell whether an example can stand in a text without being taken for something else."""
    both = f"{example.request}\n{example.answer}"
    if re.search(r"</?(?:example|input|output)\b", both) or PLACEHOLDER.search(both):
        return False
    # Where `{name}` is filled in by a program, every other brace is a mistake to it.
    braces = re.search(r"(?<!\{)\{[A-Za-z_]\w*\}(?!\})", text) is not None
    return not (braces and re.search(r"[{}]", both))


def _place(outline: Outline) -> tuple[int, str, str]:
    """Say where an example goes, and what stands before and behind it.

    Behind the last example; at the end of a section of examples; before the part in which a
    program puts its text; else at the end.
    """
    text, blocks = outline.text, outline.blocks
    ends = [match.end() for match in _BLOCK.finditer(text)]
    if ends:
        return ends[-1], "\n" if text[: ends[-1]].endswith("\n") else "\n\n", ""
    sections = [s for group in outline.sections() for s in group]
    named = next((s for s in sections if re.match(r"(?i)(few-shot )?examples?\b", s.title)), None)
    if named is not None:
        end = blocks[named.last - 1].end
        return end, "\n" if text[:end].endswith("\n") else "\n\n", ""
    level = min((s.level for s in sections if s.level > 1), default=2)
    title = f"{'#' * level} Examples\n\n" if sections else ""
    filled = next((i for i, b in enumerate(blocks) if _is_filled(text, b)), None)
    if filled is not None:
        below = filled and blocks[filled - 1].kind == "heading" and blocks[filled - 1].level > 1
        first = filled - 1 if below else filled
        return blocks[first].start, title if below else "", "\n"
    end = len(text)
    return end, ("\n" if text.endswith("\n") else "\n\n" if text else "") + title, ""


def _is_filled(text: str, block: Block) -> bool:
    inside = text[block.start : block.end]
    return inside.startswith(("---", "+++")) is False and PLACEHOLDER.search(inside) is not None
