"""The picture of a run, `progress.png`, in the grammar that this family of tools shares.

Grey for what was discarded, green for what was kept, a step line for the running best. Owns where
ink goes: what is clipped, which keeps are labelled and where a label has room. The one importer of
matplotlib, and only when a picture is really drawn.
"""

# matplotlib's stubs leave **kwargs untyped, so nearly every call of it is "partially unknown".
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from swarm.entities import Target
from swarm.formats.text import counted, number, one_line, signed
from swarm.records import Verdict
from swarm.state import RunState
from swarm.views import own_record, standing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

SIZE, DPI = (14.0, 7.5), 150
LABEL = 45
"""Characters of a label, as in autoresearch's picture."""
LABEL_SIZE = 8.5
MOST_LABELS = 24
DEAR = 60.0
"""A label that would cost more than this is left out."""
INK, FAINT, GREY = "#22272e", "#8b949e", "#b6bcc4"
GREEN, DARK_GREEN, RED = "#2da44e", "#116329", "#cf222e"
LOOKS = {
    "kept": ("o", "white", GREEN),
    "on best": ("o", GREEN, DARK_GREEN),
    "stack": ("D", DARK_GREEN, DARK_GREEN),
}
"""Marker, fill and edge of what was kept: as it was, taken to `best`, stacked on `best`."""
BROKEN: frozenset[Verdict | None] = frozenset({"crash", "timeout"})


Kind = Literal["discarded", "kept", "on best", "stack"]


class Dot(NamedTuple):
    """One experiment that was measured, or the stack that took it to `best`."""

    x: int
    y: float
    se: float | None
    kind: Kind
    label: str

    @property
    def good(self) -> bool:
        """Whether it counts for the running best."""
        return self.kind != "discarded"


class Data(NamedTuple):
    """What is drawn, before anything is known about pixels."""

    dots: list[Dot]
    crashes: list[int]
    total: int
    kept: int
    steps: list[tuple[int, float]]
    """The running best: each experiment that improved it, from the baseline at 0 on."""
    baseline: float | None
    noise: float | None
    low: float
    high: float

    @property
    def last(self) -> int:
        """The largest experiment number drawn."""
        return max([1, *(d.x for d in self.dots), *self.crashes])


def gather(state: RunState, target: Target) -> Data:
    """Read the picture's data off a run."""
    dots = list(_stacks(state, target))
    crashes: list[int] = []
    total = kept = 0
    forward = {p.number for p in target.promotions if not p.stacked}
    for e in state.experiments.values():
        if e.target != target.info.name or e.verdict in (None, "aborted"):
            continue
        total, kept = total + 1, kept + (e.verdict == "keep")
        sample = own_record(state, e).primary
        if e.verdict in BROKEN:
            crashes.append(e.number)
        elif sample.n:
            kind: Kind = "discarded" if e.verdict != "keep" else "kept"
            kind = "on best" if e.number in forward else kind
            se = target.spread(e.machine or "").se(sample)
            label = f"#{e.number} {one_line(e.proposal.summary, LABEL)}"
            dots.append(Dot(e.number, sample.mean, se, kind, label))
    where = standing(target)
    baseline = where.baseline.mean if where.baseline.n else None
    steps = list(_running_best(dots, baseline, target.info.metric.sign))
    noise = where.spread.sigma
    low, high = _limits(dots, baseline, noise or 0.0, target.info.metric.sign)
    return Data(dots, crashes, total, kept, steps, baseline, noise, low, high)


def _stacks(state: RunState, target: Target) -> Iterator[Dot]:
    """Give a dot for every stack that became `best`: there the wins of several agents add up."""
    for promoted in target.promotions:
        sample = target.primary(promoted.new)
        if promoted.stacked and sample.n:
            summary = state.experiments[promoted.number].proposal.summary
            label = f"#{promoted.number} stacked: {one_line(summary, LABEL)}"
            yield Dot(promoted.number, sample.mean, target.se(promoted.new), "stack", label)


def _running_best(
    dots: Sequence[Dot], baseline: float | None, sign: int
) -> Iterator[tuple[int, float]]:
    best = baseline
    if best is not None:
        yield 0, best
    for dot in sorted(dots):
        if dot.good and (best is None or sign * dot.y > sign * best):
            best = dot.y
            yield dot.x, dot.y


def _limits(
    dots: Sequence[Dot], baseline: float | None, noise: float, sign: int
) -> tuple[float, float]:
    """Give the value range: all that is good is in it, the worst is clipped to keep it readable."""
    goods = sorted(sign * d.y for d in dots)  # from here on more is better
    zero = sign * baseline if baseline is not None else (goods[0] if goods else 0.0)
    top = max([zero, *goods])
    kept = [sign * d.y for d in dots if d.good]
    span = max(top - zero, 6 * noise, 1e-9 + 1e-6 * abs(zero))
    bottom = min([zero, *kept]) - 3 * noise
    usual = goods[len(goods) // 5] if goods else bottom  # four of five are above
    bottom = min(bottom, max(usual, zero - 0.6 * span))
    low, high = bottom - 0.10 * (top - bottom + noise), top + 0.22 * span
    return (low, high) if sign > 0 else (-high, -low)


# --- drawing -----------------------------------------------------------------------------------


def progress_png(state: RunState, target: str, path: Path) -> None:
    """Draw the progress of a target into a PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    chosen = state.targets[target]
    data = gather(state, chosen)
    figure = Figure(figsize=SIZE, dpi=DPI, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0.065, 0.105, 0.915, 0.765))
    _frame(figure, axes, state, chosen, data)
    _baseline(axes, data)
    _dots(axes, data, chosen.info.metric.sign)
    _legend(axes, chosen.info.metric.sign)
    _labels(canvas, axes, data, chosen.info.metric.sign)
    figure.savefig(path, format="png", dpi=DPI)


def _frame(figure: Figure, axes: Axes, state: RunState, target: Target, data: Data) -> None:
    from matplotlib.ticker import MaxNLocator, ScalarFormatter

    metric = target.info.metric
    words = f"{counted(data.total, 'Experiment')}, {counted(data.kept, 'Kept Improvement')}"
    left = axes.get_position().x0
    figure.text(left, 0.945, words, size=17, weight="bold", color=INK)
    about = _drawable(_about(state, target, data), 11)
    figure.text(left, 0.905, about, size=11, color="#57606a", parse_math=False)
    way = "lower is better" if metric.goal == "minimize" else "higher is better"
    unit = f", {one_line(metric.unit, 20)}" if metric.unit else ""
    label = _drawable(f"{one_line(metric.name, 40)}{unit} ({way})", 11)
    axes.set_ylabel(label, size=11, color=INK, parse_math=False)
    axes.set_xlabel("Experiment", size=11, color=INK, loc="left")
    axes.set_xlim(-0.02 * data.last - 0.3, 1.015 * data.last + 0.3)
    axes.set_ylim(data.low, data.high)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=12, integer=True))
    axes.yaxis.set_major_formatter(ScalarFormatter(useOffset=False))
    axes.grid(visible=True, axis="y", color="#eaeef2", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors="#57606a", labelsize=10, length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color("#d0d7de")


def _about(state: RunState, target: Target, data: Data) -> str:
    """Say in one line which run this is and what it reached."""
    if target.tree_of[target.best] == target.info.base_tree:
        reached = "no improvement was found" if data.total else "nothing decided yet"
    elif target.result is not None:
        result = target.result
        reached = f"best − base = {signed(result.gain, 4)} ± {number(result.se, 2)}"
        reached += f", measured afresh ({result.n}+{result.n} runs)"
    else:
        where = standing(target)
        reached = f"best − base = {signed(where.gain, 4)} ± {number(where.gain_se, 2)} by records"
    if data.noise is not None:
        reached += f"   ·   noise of one run: {number(data.noise, 2)}"
    return f"{state.run}   ·   {reached}"


def _baseline(axes: Axes, data: Data) -> None:
    if data.baseline is None:
        return
    if data.noise:
        low, high = data.baseline - data.noise, data.baseline + data.noise
        axes.axhspan(low, high, color="#eef1f4", linewidth=0, zorder=0.5)
    axes.axhline(data.baseline, color=FAINT, linewidth=1, linestyle=(0, (4, 3)), zorder=1)


def _dots(axes: Axes, data: Data, sign: int) -> None:
    inside = [d for d in data.dots if data.low <= d.y <= data.high]
    grey = [d for d in inside if not d.good]
    many = len(data.dots) > 120
    axes.plot(
        [d.x for d in grey], [d.y for d in grey], "o",
        color=GREY, markersize=3.6 if many else 5.5, alpha=0.75, markeredgewidth=0, zorder=2,
    )  # fmt: skip
    edge = data.low if sign > 0 else data.high
    clipped = [d.x for d in data.dots if not data.low <= d.y <= data.high]
    marks: list[tuple[list[int], str, str, float]] = [
        (clipped, "v" if sign > 0 else "^", GREY, 5.0),
        (data.crashes, "x", RED, 4.5),
    ]
    for xs, marker, colour, size in marks:
        axes.plot(
            xs, [edge] * len(xs), marker, color=colour,
            markersize=size, alpha=0.8, clip_on=False, zorder=4,
        )  # fmt: skip
    xs = [x for x, _ in data.steps] + [data.last]
    ys = [y for _, y in data.steps] + [y for _, y in data.steps[-1:]]
    if data.steps:
        axes.step(xs, ys, where="post", color=GREEN, linewidth=1.8, alpha=0.85, zorder=3)
    _keeps(axes, [d for d in inside if d.good], 5.5 if many else 8.0)


def _keeps(axes: Axes, keeps: Sequence[Dot], size: float) -> None:
    for dot in keeps:
        if dot.se:
            ends = [dot.y - dot.se, dot.y + dot.se]
            axes.plot([dot.x, dot.x], ends, color=GREEN, linewidth=1, alpha=0.6, zorder=3.5)
    for kind, (marker, fill, edge) in LOOKS.items():
        some = [d for d in keeps if d.kind == kind]
        axes.plot(
            [d.x for d in some], [d.y for d in some], marker, markersize=size,
            markerfacecolor=fill, markeredgecolor=edge, markeredgewidth=1.2, zorder=5,
        )  # fmt: skip


def _legend(axes: Axes, sign: int) -> None:
    from matplotlib.lines import Line2D

    def dot(label: str, marker: str, face: str, edge: str) -> Line2D:
        return Line2D(
            [], [], linestyle="none", marker=marker, markersize=6, label=label,
            markerfacecolor=face, markeredgecolor=edge,
        )  # fmt: skip

    handles = [
        *(dot(kind.capitalize(), *look) for kind, look in LOOKS.items()),
        Line2D([], [], color=GREEN, linewidth=1.8, label="Running best"),
        Line2D([], [], color=FAINT, linewidth=1, linestyle=(0, (4, 3)), label="Baseline ± sd"),
        dot("Discarded", "o", GREY, GREY),
        dot("Off the scale", "v" if sign > 0 else "^", GREY, GREY),
        dot("Crashed", "x", RED, RED),
    ]
    axes.legend(
        handles=handles, loc="upper right", bbox_to_anchor=(1.0, -0.055), ncols=len(handles),
        frameon=False, fontsize=9.5, labelcolor="#57606a", handletextpad=0.4, columnspacing=1.4,
        borderaxespad=0.2,
    )  # fmt: skip


# --- labels ------------------------------------------------------------------------------------


class Box(NamedTuple):
    """A rectangle in pixels."""

    x0: float
    y0: float
    x1: float
    y1: float

    def meets(self, other: Box) -> bool:
        """Tell whether the two have a pixel in common."""
        return (
            self.x0 < other.x1 and other.x0 < self.x1 and self.y0 < other.y1 and other.y0 < self.y1
        )


class Room:
    """Which pixels are taken, and what it costs to write over them."""

    def __init__(self, axes: Axes, data: Data) -> None:
        frame = axes.get_window_extent()
        self.frame = Box(frame.x0, frame.y0 + 4, frame.x1, frame.y1 - 4)
        self.labels: list[Box] = []
        self.things: list[tuple[Box, float]] = []
        self._transform = axes.transData
        for dot in data.dots:
            x, y = self.at(dot.x, dot.y)
            reach, price = (11.0, 30.0) if dot.good else (6.0, 3.0)
            self.things.append((Box(x - reach, y - reach, x + reach, y + reach), price))
        ends = [*data.steps[1:], *((data.last, y) for _, y in data.steps[-1:])]
        for start, end in zip(data.steps, ends, strict=True):
            (x0, y0), (x1, y1) = self.at(*start), self.at(*end)
            self.things.append((Box(x0, y0 - 2, x1, y0 + 2), 30.0))
            self.things.append((Box(x1 - 2, min(y0, y1), x1 + 2, max(y0, y1)), 30.0))

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Give the pixel of a point of the data."""
        pixel = self._transform.transform((x, y))
        return float(pixel[0]), float(pixel[1])

    def cost(self, box: Box, leader: Sequence[Box]) -> float:
        """Give the price of a label there; infinite outside the frame and over other labels."""
        frame = self.frame
        if box.x0 < frame.x0 or box.x1 > frame.x1 or box.y0 < frame.y0 or box.y1 > frame.y1:
            return math.inf
        if any(part.meets(label) for part in (box, *leader) for label in self.labels):
            return math.inf
        return sum(price for thing, price in self.things if box.meets(thing))

    def take(self, box: Box, leader: Sequence[Box]) -> None:
        """Give a place to a label and to the line that leads to it."""
        self.labels.append(box)
        self.things += [(part, 40.0) for part in leader]


def _leader(start: tuple[float, float], end: tuple[float, float]) -> list[Box]:
    """Cut a slanted line into small boxes; its first part is the dot's own."""
    parts = max(2, round(math.dist(start, end) / 8))
    boxes: list[Box] = []
    for i in range(1, parts + 1):
        x, y = (a + (b - a) * i / parts for a, b in zip(start, end, strict=True))
        boxes.append(Box(x - 3, y - 3, x + 3, y + 3))
    return boxes


def _labels(canvas: FigureCanvasAgg, axes: Axes, data: Data, sign: int) -> None:
    """Label the keeps where there is room: first those that moved the running best, by size."""
    before = [y for _, y in data.steps]
    gains = {step: abs(step[1] - before[i]) for i, step in enumerate(data.steps[1:])}
    moved = [d for d in data.dots if d.good and (d.x, d.y) in gains]
    chosen = sorted(moved, key=lambda d: -gains[d.x, d.y])
    named = {d.x for d in moved}
    chosen += [d for d in data.dots if d.good and d.x not in named]
    room = Room(axes, data)
    if data.baseline is not None:
        y = room.at(0, data.baseline)[1]
        room.things.append((Box(room.frame.x0, y - 2, room.frame.x1, y + 2), 8.0))
    for dot in chosen[:MOST_LABELS]:
        _label(canvas, axes, room, dot, sign)


def _label(canvas: FigureCanvasAgg, axes: Axes, room: Room, dot: Dot, sign: int) -> None:
    """Write one label in the cheapest place near its dot, or not at all."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.patheffects import withStroke

    text = _drawable(dot.label, LABEL_SIZE)
    font = FontProperties(size=LABEL_SIZE)
    width, height, _ = canvas.get_renderer().get_text_width_height_descent(text, font, False)
    x, y = room.at(dot.x, dot.y)
    scale = DPI / 72  # pixels a point
    best, price = None, DEAR
    for dx, dy in _places(sign):
        end = x + dx * scale, y + dy * scale
        left = end[0] - (width if dx < 0 else 0)
        box = Box(left - 4, end[1] - height / 2 - 4, left + width + 4, end[1] + height / 2 + 4)
        leader = _leader((x, y), end)[:-2]  # its end is the label's own
        cost = room.cost(box, leader) + 0.25 * math.hypot(dx, dy)
        if cost < price:
            best, price = (dx, dy, box, leader), cost
    if best is None:
        return
    dx, dy, box, leader = best
    room.take(box, leader)
    axes.annotate(
        text, (dot.x, dot.y), (dx, dy), textcoords="offset points", fontsize=LABEL_SIZE,
        ha="right" if dx < 0 else "left", va="center", color=INK, parse_math=False, zorder=6,
        path_effects=[withStroke(linewidth=2.5, foreground="white")],
        arrowprops={
            "arrowstyle": "-", "color": FAINT, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 5,
            "relpos": (1.0 if dx < 0 else 0.0, 0.5),
        },
    )  # fmt: skip


def _places(sign: int) -> Iterator[tuple[float, float]]:
    """Give where a label may stand, in points from its dot.

    Left of a keep, on the good side of the running best, nothing can be but other labels.
    """
    for dy in (10, 20, 30, 40, 52, 64, 78, 92, 108, 126, 145):
        for dx in (-7, -16, -32, 7, 16):
            yield dx, sign * dy
    for dy in (10, 20, 30, 40, 52, 64, 78):
        for dx in (7, 16):
            yield dx, -sign * dy


def _drawable(text: str, size: float) -> str:
    """Replace what the font has no picture of; it would be an empty box and a warning."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    font = get_font(findfont(FontProperties(size=size)))
    return "".join(c if font.get_char_index(ord(c)) else "?" for c in text)
