"""The obedient model as a writer: landing-page copy from a brief, a commit message from a change.

Owns what it writes when a skill demands nothing (its habits, by a hash of the input), and what each
demand changes. A limit in words is filled, as models do; what is beyond it is not written.
"""

from __future__ import annotations

import hashlib
import re

from obedience import Skill, has

NATURAL = 60
"""Words of copy that it writes when nobody says how many, and up to 90 more by the brief."""
HABIT = 0.3
"""Share of inputs for which it does by itself what is wanted."""
VAGUE = (
    "In today's busy world, every moment counts.",
    "Imagine a day on which everything simply works.",
    "Welcome to a whole new way of doing things.",
)
HYPE = (
    "It is a revolutionary step, seamless from the first day.",
    "This is a game-changing and truly innovative choice.",
    "Elevate every day with cutting-edge thinking.",
)
FILLER = (
    "Care went into every part of it, and it shows.",
    "It is made by people who use it themselves.",
    "There is nothing to set up and little to learn.",
    "It fits in with what is there already.",
    "Whoever tries it once tends to stay with it.",
    "Questions are answered by people who know it well.",
    "It was tried for a long time before it was sold.",
    "It looks good, too, wherever it is kept.",
    "It is as much at home in the city as far away from it.",
    "And it is easy to give away, should that ever be wanted.",
)
STORY = (
    "Our story began in a small workshop with a big table.",
    "The values of that table have stayed with us, year after year.",
    "We believe that good things are made slowly and with patience.",
)


def draw(*parts: object) -> int:
    """Draw a number that hangs on these parts alone."""
    text = "\0".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def fields(text: str) -> dict[str, str]:
    """Read lines such as `Facts: runs 40 hours`."""
    return {k.lower(): v.strip() for k, v in re.findall(r"(?m)^(\w+):[ \t]*(.+)$", text)}


# --- landing-page copy ----------------------------------------------------------------------------


def copy(skill: Skill, brief: str) -> str:
    """Write copy for a brief with the lines Product, For, Does and Facts."""
    given = fields(brief)
    product = given.get("product", brief.strip().split("\n")[0]).split(",")[0]
    kind = given.get("product", "").partition(",")[2].strip()
    does = given.get("does", "get things done").rstrip(".")
    facts = [fact.strip(" .") for fact in given.get("facts", "").split(";") if fact.strip()]

    def habit(what: str, share: float) -> bool:
        return draw(what, product) % 100 < 100 * share

    leads = _leads(skill)
    lines = [f"You {does} with {product}."] if leads or habit("lead", HABIT) else []
    if not lines:
        lines = [VAGUE[draw("vague", product) % len(VAGUE)], f"{product} is {kind or 'here'}."]
    lines.append(_fact(facts, exact=_exact(skill, habit("number", HABIT))))
    if not _plain(skill, habit("plain", HABIT)):
        lines.append(HYPE[draw("hype", product) % len(HYPE)])
    lines.append(f"Order {product} today.")
    if skill.asks("story history values mission philosophy heritage"):
        lines += STORY
    return " ".join(_cut(skill, lines, product))


def _leads(skill: Skill) -> bool:
    place = "first_sentence first_line open start begin lead headline"
    return skill.asks(place, "reader customer visitor gain benefit outcome result problem you")


def _exact(skill: Skill, habit: bool) -> bool:
    leaning = skill.leaning("number figure statistic digit percent measur quantif how_many")
    return leaning > 0 or (leaning == 0 and habit)


def _plain(skill: Skill, habit: bool) -> bool:
    grand = skill.leaning(
        "buzzword jargon cliche cliché hype superlative marketing_speak grand excit enthusias"
    )
    plain = skill.leaning("plain everyday simple_word ordinary_word") - grand
    return plain > 0 or (plain == 0 and habit)


def _fact(facts: list[str], *, exact: bool) -> str:
    with_number = [fact for fact in facts if re.search(r"\d", fact)]
    if exact and with_number:
        return f"It {with_number[0]}."
    without = [fact for fact in facts if not re.search(r"\d", fact)]
    return f"It {without[0]}." if without else "It does more than anyone would expect."


def _cut(skill: Skill, lines: list[str], product: str) -> list[str]:
    """Fill up with what says nothing, or leave out what goes beyond the limit."""
    sentences = skill.most("sentence")
    if sentences is not None:
        return lines[:sentences]
    limit = skill.most("words")
    if limit is None and skill.asks("short brief concise terse"):
        limit = 90
    natural = NATURAL + draw("length", product) % 91 + skill.rambles // 2
    natural = max(natural, skill.least("words") or 0)
    room = natural if limit is None else min(natural, limit)
    taken, used = list[str](), 0
    filler = [] if skill.forbids("filler pad repeat waffl empty_sentence") else _filler(product)
    for line in [*lines, *filler]:
        size = len(line.split())
        if taken and used + size > room:
            if line in lines:
                continue
            break
        taken.append(line)
        used += size
    return taken


def _filler(product: str) -> list[str]:
    start = draw("filler", product) % len(FILLER)
    turned = [*FILLER[start:], *FILLER[:start]]
    return turned * 6


# --- commit messages ------------------------------------------------------------------------------


def commit(skill: Skill, change: str) -> str:
    """Write the message of a change with the lines Change, Purpose and File."""
    given = fields(change)
    what = given.get("change", "change some things").rstrip(".")
    reason = given.get("purpose", "it was asked for").rstrip(".")
    place = given.get("file", "the code")
    habit = draw("plain", what) % 4 == 0
    if habit or skill.asks("imperativ command_form verb present_tense"):
        subject = what[:1].upper() + what[1:]
    else:
        subject = f"This commit updates {place} in order to {what}"
    limit = skill.most("(?:character|letter)s?")
    if limit is not None and len(subject) > limit:
        subject = subject[: limit + 1].rsplit(" ", 1)[0].rstrip(",")
    dot = skill.leaning("full_stop period dot punctuation")
    if dot > 0 or (dot == 0 and draw("dot", what) % 3):
        subject += "."
    lines = [subject]
    if skill.asks("why reason motivation because purpose", "body say explain give tell name state"):
        lines += ["", f"Needed because {reason}."]
    if skill.asks("every list_all each", "file line hunk detail"):
        lines += ["", f"Touched: {place}. All lines of it were looked at, one after another."]
    lines += [""] * bool(skill.rambles) + ["More of the same. " * (skill.rambles // 20)]
    return "\n".join(lines).strip()


# --- the judge ------------------------------------------------------------------------------------


def judge(question: str, output: str) -> bool:
    """Answer a yes/no question about a text: of its opening, its reasons, or what it asks for."""
    asked, text = question.lower(), output.strip().lower()
    first = re.split(r"(?<=[.!?])\s", text)[0]
    if has(asked, "first_sentence opening begin start"):
        vague = has(first, "in_today imagine welcome introducing are_you_ready")
        return has(first, "you your") and not vague
    if has(asked, "why reason"):
        return has(text, "because so_that since in_order_that otherwise")
    if has(asked, "next_step do_next call_to_action asked_to"):
        return has(text, "order try buy start sign_up download get_in_touch")
    return bool(text)
