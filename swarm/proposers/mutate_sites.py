"""What a mutation site is: one token of a file, what it may become, and how likely that pays.

Owns the arithmetic of number tokens (scales, steps, notation) and the hints that names give.
Knows no file format (`mutate_python`, `mutate_text` find the tokens) and no history (`mutate`
decides what to try).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

Kind = Literal[
    "number", "bool", "choice", "operator", "remove", "drop",
    "section", "sentence", "move", "modal", "example",
]  # fmt: skip
GONE: frozenset[Kind] = frozenset({"remove", "drop", "section", "sentence"})
"""Kinds whose one change is that the token goes."""
Scale = Literal["log", "share"]
"""A unit is a doubling: of the value (`log`), or of a share's distance to 0 or 1, whichever end is
nearer (`share`)."""
Value = int | float | bool | str | None

LADDER = (1.0, -1.0, 0.5, -0.5, 2.0, -2.0, 0.25, -0.25)
"""The finite set of steps that stands for a number's whole range when all else was tried."""
LARGEST = 1e12
_NUMBER = re.compile(r"-?(?:\d[\d_]*)?(?:\d|\.\d*)(?:[eE][-+]?\d+)?")
_WORDS = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+")


class Option(NamedTuple):
    """One thing that a token which is no number may become."""

    value: Value
    text: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Site:
    """A token that can be changed. `text` is what `[start:end]` of the file holds."""

    key: str
    """Survives unrelated edits: path, place in the structure, name; never a line number."""
    path: str
    label: str
    """How a summary calls it."""
    kind: Kind
    start: int
    end: int
    text: str
    value: Value
    weight: float
    """How much a change here is likely to matter: about 1 for a learning rate, 0.02 for a `+`."""
    slope: float = 0.0
    """Which direction tends to pay, before anything is known: -1 ... +1."""
    scale: Scale = "log"
    options: tuple[Option, ...] = ()

    def edits(self) -> list[Edit]:
        """Give the finite list of edits: every option, and the ladder of a number."""
        found = [self._option(option) for option in self.options]
        found += [edit for step in LADDER if (edit := self.moved(step)) is not None]
        return list({edit.new: edit for edit in found}.values())

    def moved(self, step: float) -> Edit | None:
        """Step a number on its scale; None where that leads nowhere."""
        if self.kind != "number" or not isinstance(self.value, int | float) or not self.value:
            return None
        value = move(self.value, step, self.scale)
        return None if value is None else self._number(value, step)

    def set(self, value: Value) -> Edit | None:
        """Give the edit that makes the site hold `value`; None if it does already or cannot."""
        for option in self.options:
            if option.value == value and type(option.value) is type(value):
                return self._option(option)
        if self.kind != "number" or isinstance(value, bool) or not isinstance(value, int | float):
            return None
        if not math.isfinite(value) or isinstance(value, float) is not isinstance(
            self.value, float
        ):
            return None
        here, there = (position(v, self.scale) for v in (self.value, value))
        return self._number(value, there - here if None not in (here, there) else 0.0)  # type: ignore[operator]

    def _number(self, value: float, step: float) -> Edit | None:
        text = write_number(value, self.text)
        if text == self.text or value == self.value:
            return None
        up = value > self.value  # type: ignore[operator]
        return Edit(self, text, value, "up" if up else "down", round(abs(step), 3))

    def _option(self, option: Option) -> Edit:
        direction = self.kind if self.kind in GONE else str(option.value)
        return Edit(self, option.text, option.value, direction, option.weight)


@dataclass(frozen=True, slots=True)
class Edit:
    """One change of one site."""

    site: Site
    new: str
    to: Value
    direction: str
    """`up` or `down` for a step of a number, else what it becomes."""
    step: float
    """Size on the site's scale for a step of a number, else the option's weight."""

    def apply(self, text: str) -> str:
        """Splice the file's text; nothing but the token changes."""
        return text[: self.site.start] + self.new + text[self.site.end :]

    def to_json(self) -> dict[str, Any]:
        """Give what comes back in `Attempt.edit`."""
        return {
            "site": self.site.key,
            "kind": self.site.kind,
            "from": self.site.value,
            "to": self.to,
            "direction": self.direction,
            "step": self.step,
        }

    def summary(self) -> str:
        """Say in one line what changes."""
        site = self.site
        match site.kind:
            case "remove":
                what = f"remove statement `{_one_line(site.label)}`"
            case "drop":
                what = f"drop argument {_one_line(site.label)}"
            case "section" | "sentence":
                what = f"delete the {site.kind} `{_one_line(site.label)}`"
            case "move":
                what = f"move `{_one_line(site.label)}` {_where(str(self.to))}"
            case "modal":
                became = f"{site.text.strip()} -> {self.new}" if self.new else f"drop `{site.text}`"
                what = f"{_one_line(became)} in `{_one_line(site.label)}`"
            case "example":
                name = _one_line(site.label)
                what = f"example added from case {name}" if self.to else f"example {name} dropped"
            case _:
                what = f"{_one_line(site.label)} {_one_line(site.text)} -> {_one_line(self.new)}"
        return f"{what} in {site.path}"


def _where(place: str) -> str:
    behind = place.removeprefix("before ")
    return place if behind == place else f"before `{_one_line(behind)}`"


def _one_line(text: str, limit: int = 60) -> str:
    flat = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return flat if len(flat) <= limit else flat[: limit - 3] + "..."


def unique_keys(sites: Iterable[Site]) -> list[Site]:
    """Tell sites of equal key apart by their order of appearance: `key`, `key#2`, `key#3`."""
    seen: Counter[str] = Counter()
    named: list[Site] = []
    for site in sites:
        seen[site.key] += 1
        count = seen[site.key]
        named.append(site if count == 1 else replace(site, key=f"{site.key}#{count}"))
    return named


# --- numbers -----------------------------------------------------------------------------------


def read_number(token: str) -> int | float | None:
    """Read a decimal number token; None for hex, complex, infinite and absurdly large ones."""
    if not _NUMBER.fullmatch(token):
        return None
    try:
        value = float(token) if re.search(r"[.eE]", token) else int(token)
    except ValueError:
        return None
    return value if math.isfinite(value) and abs(value) <= LARGEST else None


def position(value: Value, scale: Scale) -> float | None:
    """Where a number stands on its scale; None for what has no place there, such as 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value:
        return None
    if scale == "share":
        if not 0 < value < 1:
            return None
        return 1 + math.log2(value) if value <= 0.5 else -1 - math.log2(1 - value)
    return math.log2(abs(value))


def move(value: float, step: float, scale: Scale) -> int | float | None:
    """Step a number on its scale to a readable neighbour. Sign and type stay."""
    if isinstance(value, int):
        moved = _move_count(abs(value), step)
        return None if moved is None else int(math.copysign(1, value)) * moved
    here = position(value, scale)
    if here is None:
        return None
    if scale == "log":
        raw = 2.0 ** max(-60.0, min(60.0, here + step))
        moved_to = _round_away(raw, abs(value))
        return math.copysign(moved_to, value) if 1e-12 <= moved_to <= LARGEST else None
    there = max(-40.0, min(40.0, here + step))
    if there <= 0:
        moved_to = _round_away(2.0 ** (there - 1), value)
    else:
        moved_to = round(1 - _round_away(2.0 ** (-there - 1), 1 - value), 12)
    return moved_to if 0 < moved_to < 1 and moved_to != value else None


def _move_count(value: int, step: float) -> int | None:
    """Step a positive integer: powers of two by doublings, small ones by one, others by ratio."""
    power = value & (value - 1) == 0
    if power and value >= 4 and abs(step) >= 0.75:
        shift = round(step)
        moved = value << shift if shift > 0 else value >> -shift
    elif power and value >= 16:
        moved = value * 3 // 2 if step > 0 else value * 3 // 4
    elif value >= 100:
        moved = int(_round_away(value * 2.0**step, float(value)))
    else:
        moved = round(value * 2.0**step)
        if moved == value:
            moved += 1 if step > 0 else -1
    return moved if 1 <= moved <= LARGEST and moved != value else None


def _round_away(raw: float, value: float) -> float:
    """Round to the fewest significant digits, at least two, that still differ from `value`."""
    for digits in range(2, 9):
        rounded = float(f"{raw:.{digits}g}")
        if not math.isclose(rounded, value, rel_tol=1e-9):
            return rounded
    return raw


def write_number(value: float, like: str) -> str:
    """Write a number in the notation of the token `like`; a float stays recognisably a float."""
    if isinstance(value, int):
        return f"{value:_}" if "_" in like else str(value)
    mantissa, mark, exponent = like.partition("e" if "e" in like else "E")
    if value and (mark or not 1e-9 <= abs(value) < 1e15) and not 0.1 <= abs(value) < 1000:
        head, _, power = f"{value:.12e}".partition("e")
        head = head.rstrip("0").rstrip(".")
        if "." in mantissa and "." not in head:
            head += ".0"  # YAML 1.1 reads `1e-5` as a string, `1.0e-5` as a number
        sign = "-" if int(power) < 0 else "+" if exponent.startswith("+") or not mark else ""
        width = len(exponent.lstrip("+-"))
        return f"{head}{mark or 'e'}{sign}{abs(int(power)):0{width}d}"
    text = f"{value:.15f}".rstrip("0")
    return text + "0" if text.endswith(".") else text


# --- what names tell ---------------------------------------------------------------------------


class Hint(NamedTuple):
    """What the name of a constant says about it."""

    weight: float
    slope: float = 0.0
    scale: Scale | None = None


# First match wins. Slopes are mild: they say what short training budgets tend to reward, and a
# single measured experiment outweighs them.
_HINTS: tuple[tuple[str, Hint], ...] = (
    (r"every|interval|verbose|debug|print|log|logs|logging|save|plot|port|timeout", Hint(0.15)),
    (r"eval|evals|val|valid|validation|test|tests", Hint(0.1)),
    (r"eps|epsilon|tiny|strict|device|dtype", Hint(0.1)),
    (r"dim|axis|ndim|index|idx|rank|padding|ignore|pad|id", Hint(0.05)),
    (r"lr|learning rate|rate|eta|step size", Hint(1.0, 0.25, "log")),
    (r"dropout|drop|drop path", Hint(0.9, -0.4, "share")),
    (r"weight decay|decay|l1|l2|reg|regularization|penalty|lambda|alpha", Hint(0.75)),
    (r"warmup|warmdown|cooldown|final|anneal|floor", Hint(0.7, -0.1)),
    (r"batch|batch size|microbatch", Hint(0.9, -0.2)),
    (r"depth|layers|layer|blocks|heads|head|experts|expansion|mult|ratio", Hint(0.8)),
    (r"width|hidden|embd|embed|embedding|model|channels|units|features|inner", Hint(0.8)),
    (r"beta|betas|beta1|beta2|momentum|ema|gamma|rho|smoothing|polyak", Hint(0.75, -0.1, "share")),
    (r"clip|init|std|gain|scale|temperature|softcap|gamma|bias|norm", Hint(0.65)),
    (r"steps|epochs|iterations|iters|rounds|estimators|trees|leaves|neighbors", Hint(0.7)),
    (r"k|top|chunk|overlap|threshold|cutoff|limit|size|cache|buffer|block|tile", Hint(0.65)),
    (r"context|sequence|seq|length|len|window|max|min|kernel|stride|bins|patience", Hint(0.55)),
    (r"workers|threads|prefetch|unroll|parallel|fuse|fused|compile", Hint(0.55)),
    (r"activation|act|optimizer|optim|schedule|scheduler|loss|pool|reduction", Hint(0.8)),
    (r"solver|method|mode|strategy|policy|algorithm|backend|nonlinearity", Hint(0.6)),
)
_COMPILED = tuple((re.compile(rf"(?:^| )(?:{p})s?(?: |$)"), hint) for p, hint in _HINTS)
_PLAIN = Hint(0.4)
# Changing these makes a number look better without making anything better: a lucky seed, a model
# that sees the answer.
_NEVER = re.compile(
    r"(?:^| )(?:seed|seeds|random state|causal|version|versions|year|split|checksum)(?: |$)"
)


def words(name: str) -> str:
    """Spell an identifier as lower-case words: `maxLR` and `MAX_LR` are both `max lr`."""
    return " ".join(part.lower() for part in _WORDS.findall(name))


def hint(name: str) -> Hint | None:
    """Say how promising a constant of this name is; None if it must not be touched."""
    spelled = words(name)
    if _NEVER.search(spelled):
        return None
    for pattern, found in _COMPILED:
        if pattern.search(spelled):
            return found
    return _PLAIN


_OFF = re.compile(
    r"dropout|drop|decay|l1|l2|reg|penalty|lambda|warmup|smoothing|jitter|noise|sleep|delay|"
    r"overlap|momentum|final|floor|workers|bias"
)


def number_site(
    key: str, path: str, label: str, name: str, span: tuple[int, int], text: str, factor: float
) -> Site | None:
    """Make the site of a number token, or None where it is no decimal or its name forbids it."""
    value = read_number(text)
    told = hint(name)
    if value is None or told is None:
        return None
    share = isinstance(value, float) and (
        0 < value < 1 and (told.scale == "share" or (value >= 0.8 and told.scale is None))
    )
    options: tuple[Option, ...] = ()
    can_be_off = _OFF.search(words(name)) is not None
    if not value:
        options = tuple(
            Option(v, write_number(v, text), 0.5)
            for v in ((1,) if isinstance(value, int) else (0.1, 0.01) if can_be_off else (0.1, 1.0))
        )
    elif can_be_off:
        zero = 0 if isinstance(value, int) else 0.0
        options = (Option(zero, write_number(zero, "0"), 0.5),)
    return Site(
        key=key,
        path=path,
        label=label,
        kind="number",
        start=span[0],
        end=span[1],
        text=text,
        value=value,
        weight=told.weight * factor,
        slope=told.slope,
        scale="share" if share else "log",
        options=options,
    )


# --- choices -----------------------------------------------------------------------------------

FAMILIES: tuple[tuple[str, ...], ...] = (
    ("relu", "gelu", "silu", "tanh", "leaky_relu", "elu"),
    ("sgd", "adam", "adamw", "rmsprop"),
    ("cosine", "linear", "constant"),
    ("mean", "sum"),
    ("pre", "post"),
    ("layernorm", "rmsnorm", "batchnorm"),
    ("xavier", "kaiming", "orthogonal"),
    ("mse", "l1", "huber", "smooth_l1"),
    ("gini", "entropy", "log_loss"),
    ("uniform", "distance"),
    ("l1", "l2", "elasticnet"),
    ("rbf", "linear", "poly", "sigmoid"),
    ("avg", "max"),
    ("high", "highest", "medium"),
    ("float32", "bfloat16", "float16"),
)
MEMBERS: tuple[tuple[str, ...], ...] = (
    ("relu", "gelu", "silu", "tanh", "elu"),
    ("ReLU", "GELU", "SiLU", "Tanh", "ELU"),
    ("SGD", "Adam", "AdamW", "RMSprop"),
    ("xavier_uniform_", "kaiming_uniform_", "orthogonal_"),
    ("xavier_normal_", "kaiming_normal_"),
    ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss"),
    ("bfloat16", "float16", "float32"),
    ("LayerNorm", "RMSNorm"),
)
# Words that name data or places rather than ways of doing something.
_DATA = {"train", "training", "val", "valid", "validation", "test", "eval", "dev", "holdout"}
_PLACES = {"cuda", "cpu", "mps", "r", "w", "a", "rb", "wb", "utf-8", "ascii", "__main__"}


def is_choice(value: str) -> bool:
    """Tell whether a string can be the name of a way to do something."""
    return (
        value not in _DATA | _PLACES and re.fullmatch(r"[A-Za-z][\w.+-]{0,39}", value) is not None
    )


def relatives(value: str, families: tuple[tuple[str, ...], ...] = FAMILIES) -> list[str]:
    """Give the other members of the known families that a word belongs to."""
    found = [o for family in families if value in family for o in family if o != value]
    return list(dict.fromkeys(found))


def listed(comment: str, word: str) -> list[str]:
    """Read the alternatives that a comment lists: `relu | gelu | silu`."""
    for group in re.findall(r"[\w.+-]+(?:\s*[|/]\s*[\w.+-]+)+", re.sub("[\"'`]", "", comment)):
        members = re.split(r"\s*[|/]\s*", group)
        if word in members:
            return [m for m in dict.fromkeys(members) if m != word and is_choice(m)]
    return []


def comment_after(text: str, end: int) -> str:
    """Give the comment that follows on the line."""
    line = re.compile(r"[^\r\n]*").match(text, end)
    return line.group().partition("#")[2] if line else ""


def whole_lines(text: str, start: int, end: int) -> tuple[int, int] | None:
    """Widen a span to its whole lines, the newline included; None if it shares them."""
    begin = max(text.rfind("\n", 0, start), text.rfind("\r", 0, start)) + 1
    rest = re.compile(r"[ \t]*(?:#[^\r\n]*)?(?:\r\n|\r|\n|\Z)").match(text, end)
    if text[begin:start].strip(" \t\f\ufeff") or rest is None:
        return None
    return begin, rest.end()
