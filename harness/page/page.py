"""How good a web page is, by Lighthouse in a Chromium, and whether it still looks the same.

    python page.py shoot SITE --build CMD --serve dist --reference pictures
    python page.py look SITE --build CMD --serve dist --reference pictures --tolerance 1%
    python page.py measure SITE --build CMD --serve dist --runs 3 [--reference pictures]

A site is built, served on loopback, and visited. `shoot` makes the pictures that `look` compares
with; `look` belongs into `guard`. `measure` writes the metrics to the file named by SWARM_RESULT
and prints them as METRIC lines.

It owns the command line, the names of the metrics, the feedback, and the exit status: 0 measured
(or made, or alike), 1 the site cannot be built or visited, or looks different, 2 the command
line, a tool or a reference cannot be used.
"""

import argparse
import importlib.util
import json
import math
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from threading import Event
from typing import NamedTuple

sys.dont_write_bytecode = True  # the checkout may be read-only, and must stay clean when it is not
sys.path.append(str(Path(__file__).resolve().parent.parent / "checklist"))

import browser  # noqa: E402
import processes  # noqa: E402
import reports  # noqa: E402
import serving  # noqa: E402
from ending import NoAnswerError, UsageError, leave_on, status_of  # noqa: E402

SIZES = ((412, 823), (1350, 940))
"""Lighthouse's phone and its desktop."""
PHONE = 600
"""Narrower windows are phones."""
WORST = 10
"""Findings that the feedback names."""
QUIET = (
    "pauseAfterFcpMs",
    "pauseAfterLoadMs",
    "networkQuietThresholdMs",
    "cpuQuietThresholdMs",
)
"""Lighthouse's settings for how long nothing may happen before a page counts as loaded."""

Given = argparse.Namespace


class Look(NamedTuple):
    """A page in a window: what is compared of it."""

    path: str
    name: str
    """What the names of its files begin with."""
    size: tuple[int, int]


class Changed(NamedTuple):
    """How far a page looks different: the largest share of all looks."""

    pixels: float
    text: float


# --- pictures ---------------------------------------------------------------------------------


def shoot(given: Given) -> None:
    """Make the pictures that others are compared with."""
    tools, wanted = browser.tools(), looks(given)
    into: Path = given.reference
    _need_pillow()  # whoever compares will have the same `python`
    _make(into, "--reference")
    with _served(given) as address:
        _seen(given, tools, address, wanted, into)
    for each in wanted:
        print("\n".join(f"{into / each.name}{kind}" for kind in browser.KINDS))


def look(given: Given) -> None:
    """Fail if the page looks different."""
    tools, wanted = browser.tools(), looks(given)
    before = _references(given, wanted)
    with _served(given) as address, tempfile.TemporaryDirectory() as folder:
        _seen(given, tools, address, wanted, Path(folder))
        changed = _compared(given, before, Path(folder))
    for share, what in ((changed.pixels, "the pixels of a picture"), (changed.text, "the words")):
        if share > given.tolerance:
            what = f"{share:.2%} of {what} differ; {given.tolerance:.2%} may"
            raise NoAnswerError(f"the page looks different: {what}")


def looks(given: Given) -> list[Look]:
    """Name the looks: each page in each size."""
    found = [
        Look(path, f"{_slug(path)}-{width}", (width, height))
        for path in given.path
        for width, height in given.sizes
    ]
    if len({each.name for each in found}) < len(found):
        raise UsageError(f"--path: pictures of two pages would have one name: {given.path}")
    return found


def _slug(path: str) -> str:
    kept = "".join(c if c.isascii() and c.isalnum() else "-" for c in path.strip("/"))
    return kept or "index"


def _references(given: Given, wanted: Sequence[Look]) -> dict[str, bytes]:
    """Read the references: before the build, which could put others in their place."""
    _need_pillow()
    names = [each.name + kind for each in wanted for kind in browser.KINDS]
    try:
        return {name: (given.reference / name).read_bytes() for name in names}
    except OSError as error:
        what = f"{error.filename}: {error.strerror}"
        raise UsageError(f"--reference: {what}; `page.py shoot` makes the pictures") from None


def _need_pillow() -> None:
    """Say at once that pictures cannot be compared: no other part needs a library."""
    if importlib.util.find_spec("PIL") is None:
        what = "`pip install pillow` for this `python`, or have swarm's environment active"
        raise UsageError(f"{sys.executable} has no Pillow to compare pictures with: {what}")


def _compared(given: Given, before: Mapping[str, bytes], folder: Path) -> Changed:
    """Compare all pictures and words, say what differs, and give the largest shares that do."""
    import pictures

    if given.save is not None:
        _make(given.save, "--save")
    pixels, text = [0.0], [0.0]
    for name, reference in before.items():
        page = (folder / name).read_bytes()
        if name.endswith(".txt"):
            text.append(pictures.words_changed(reference, page))
            print(f"# {name}: {text[-1]:.2%} of the words differ")
            continue
        drawn = given.save / f"diff-{name}" if given.save is not None else None
        found = pictures.difference(reference, page, given.near, drawn)
        pixels.append(found.share)
        print("# " + _said(name, found.share, found.rows, found.sizes, drawn))
    return Changed(max(pixels), max(text))


def _make(folder: Path, option: str) -> None:
    """Make a folder of the command line's."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{option}: {folder}: {error.strerror}") from None


def _said(
    name: str,
    share: float,
    rows: tuple[int, int] | None,
    sizes: tuple[tuple[int, int], tuple[int, int]],
    drawn: Path | None,
) -> str:
    """Say in a line what differs."""
    where = f", rows {rows[0]} to {rows[1]}" if rows else ""
    (width, height), (now_width, now_height) = sizes
    grown = f", {width}x{height} became {now_width}x{now_height}" if sizes[0] != sizes[1] else ""
    shown = f"; {drawn}" if drawn is not None else ""
    return f"{name}: {share:.2%} of the pixels differ{where}{grown}{shown}"


# --- Lighthouse -------------------------------------------------------------------------------


def measure(given: Given) -> None:
    """Measure the page, and compare its pictures if there are references."""
    weights: Mapping[str, float] = given.weights or dict.fromkeys(given.only, 1.0)
    for name in weights:
        if reports.category(name) not in given.only:
            raise UsageError(f"--weights: `{name}` is not measured: --only leaves it out")
    if given.save is not None and given.reference is None:
        raise UsageError("--save: there is nothing to compare with: give --reference, too")
    tools = browser.tools()
    wanted = looks(given) if given.reference is not None else []
    before = _references(given, wanted) if wanted else {}
    with _served(given) as address, tempfile.TemporaryDirectory() as folder:
        pages = _seen(given, tools, address, wanted, Path(folder), given.runs)
        each = [reports.metrics(found, weights) for found in pages.values()]
        numbers = {name: fmean(page[name] for page in each) for name in each[0]}
        if before:
            changed = _compared(given, before, Path(folder))
            numbers |= {"pixels_changed": changed.pixels, "text_changed": changed.text}
    notes = [line for path, found in pages.items() for line in _notes(path, found, weights)]
    if given.keep is not None:
        try:
            given.keep.write_text(json.dumps(pages), encoding="utf-8")
        except OSError as error:
            raise UsageError(f"--keep: {given.keep}: {error.strerror}") from None
    report(numbers, notes)


def _notes(path: str, found: Sequence[reports.Report], weights: Mapping[str, float]) -> list[str]:
    """Say what the page does not pass, and how far the runs were apart."""
    version = found[0].get("lighthouseVersion")
    runs = f"{len(found)} run{'s' * (len(found) != 1)}"
    notes = [f"{path}: Lighthouse {version}, median of {runs}"]
    if wide := reports.spread(found, weights):
        notes.append("  between the runs: " + ", ".join(f"{n} {w:.4g}" for n, w in wide.items()))
    for finding in reports.findings(found[-1])[:WORST]:
        lost = f"-{finding.lost:.1f}" if finding.lost else "info"
        place = f": {finding.places[0]}" if finding.places else ""
        more = f" and {len(finding.places) - 1} more" if len(finding.places) > 1 else ""
        shown = f" ({finding.shown})" if finding.shown else ""
        notes.append(f"  {finding.category} {lost}  {finding.title}{shown}{place}{more}")
    return notes


def report(numbers: Mapping[str, float], notes: Sequence[str]) -> None:
    """Print the metrics, and write them where swarm looks for them."""
    for name, value in numbers.items():
        print(f"METRIC {name}={value:.9g}")
    print("\n".join(f"# {line}" for line in notes))
    file = os.environ.get("SWARM_RESULT")
    if file:
        result = {"metrics": numbers, "feedback": "\n".join(notes)}
        Path(file).write_text(json.dumps(result), encoding="utf-8")


# --- the site ---------------------------------------------------------------------------------


@contextmanager
def _served(given: Given) -> Generator[str]:
    """Build the site and serve it, and give its address."""
    folder, compress = _built(given), given.compress == "on"
    if given.build is None:  # built by somebody who is gone
        with serving.serving(folder, compress=compress) as address:
            yield address
        return
    with (
        tempfile.TemporaryDirectory() as own,
        serving.serving(_copied(folder, Path(own, "site")), compress=compress) as address,
    ):
        yield address


def _built(given: Given) -> Path:
    """Build the site, if it is not, and give the folder that is served."""
    site: Path = given.site
    if not site.is_dir():
        raise UsageError(f"there is no folder {site}")
    if given.build is not None:
        done = processes.run(
            given.build,
            cwd=site,
            env=browser.environment(),
            stdin=b"",
            timeout_s=given.timeout,
            cancel=Event(),
        )
        if done.problem is not None:
            print(done.output, end="")
            raise NoAnswerError(f"--build: {done.problem}")
    folder = site / given.serve
    if not folder.is_dir():
        made = "the build has left" if given.build is not None else "there is"
        raise NoAnswerError(f"--serve: {made} no folder {folder}")
    if not folder.resolve().is_relative_to(site.resolve()):
        raise NoAnswerError(f"--serve: {folder} leads out of {site}")
    return folder


def _copied(folder: Path, into: Path) -> Path:
    """Copy what was built: what the build has left running does not have it at hand."""
    try:
        shutil.copytree(folder, into, symlinks=True, ignore=shutil.ignore_patterns(".git"))
    except (OSError, shutil.Error) as error:
        raise NoAnswerError(f"--serve: {folder} cannot be copied: {error}") from None
    return into


def _seen(
    given: Given,
    tools: browser.Tools,
    address: str,
    wanted: Sequence[Look],
    into: Path,
    runs: int = 0,
) -> dict[str, Sequence[reports.Report]]:
    """Visit each page: the looks that are wanted into a folder, and Lighthouse's reports."""
    found: dict[str, Sequence[reports.Report]] = {}
    for path in given.path:
        shots = [
            browser.Picture(*each.size, each.size[0] < PHONE, into.resolve() / each.name)
            for each in wanted
            if each.path == path
        ]
        asked = browser.Visit(address + path, given.timeout, shots, runs)
        if runs:
            asked = asked._replace(form_factor=given.form_factor, flags=_flags(given))
        found[path] = browser.visit(asked, tools)
    return found


def _flags(given: Given) -> dict[str, object]:
    """Give Lighthouse's settings."""
    quiet: int | None = given.wait
    flags: dict[str, object] = {
        "throttlingMethod": given.throttling,
        "onlyCategories": [reports.CATEGORIES[name] for name in given.only],
        "disableFullPageScreenshot": True,
    }
    if quiet is not None:
        flags.update(dict.fromkeys(QUIET, quiet))
    return flags


# --- the command line -------------------------------------------------------------------------


def sizes(text: str) -> list[tuple[int, int]]:
    """Read `WIDTHxHEIGHT,...`."""
    found: list[tuple[int, int]] = []
    for part in text.split(","):
        width, _, height = part.partition("x")
        if not (width.isdecimal() and height.isdecimal() and int(width) * int(height) > 0):
            raise argparse.ArgumentTypeError(f"WIDTHxHEIGHT is wanted, as 412x823, not {part!r}")
        found.append((int(width), int(height)))
    if len({width for width, _ in found}) < len(found):
        raise argparse.ArgumentTypeError("each width once: a picture is named by it")
    return found


def share(text: str) -> float:
    """Read a share: `1%`, or 0.01."""
    value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"a share from 0% to 100% is wanted, not {text}")
    return value


def weights(text: str) -> dict[str, float]:
    """Read `name=number,...`."""
    found: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = part.partition("=")
        if name.strip() not in reports.SCORED:
            known = ", ".join(reports.SCORED)
            raise argparse.ArgumentTypeError(f"{name.strip()!r} is none of {known}")
        value = float(number)
        if not 0 <= value < math.inf:
            raise argparse.ArgumentTypeError(f"a weight of 0 or more is wanted, not {part!r}")
        found[name.strip()] = value
    if not sum(found.values()):
        raise argparse.ArgumentTypeError("all weights are 0")
    return found


def categories(text: str) -> list[str]:
    """Read `name,...`."""
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in reports.CATEGORIES:
            known = ", ".join(reports.CATEGORIES)
            raise argparse.ArgumentTypeError(f"{name!r} is none of {known}")
    return names


def from_(least: int, most: float = math.inf) -> Callable[[str], int]:
    """Read a whole number, `least` or more."""

    def whole_number(text: str) -> int:
        if not least <= int(text) <= most:
            what = f"{least} or more" if most == math.inf else f"from {least} to {most}"
            raise argparse.ArgumentTypeError(f"{what} is wanted, not {text}")
        return int(text)

    return whole_number


def address_path(text: str) -> str:
    """Read the path of a page."""
    if not text.startswith("/") or text.startswith("//"):
        raise argparse.ArgumentTypeError(f"a path such as /about.html is wanted, not {text!r}")
    return text


def seconds(text: str) -> float:
    """Read a duration above 0."""
    if not 0 < float(text) < math.inf:
        raise argparse.ArgumentTypeError(f"a number of seconds above 0 is wanted, not {text}")
    return float(text)


def parser() -> argparse.ArgumentParser:
    """Give all that can be typed."""
    top = argparse.ArgumentParser(prog="page", description="How good a page is, and how it looks.")
    modes = top.add_subparsers(dest="mode", required=True)

    def mode(name: str, does: Callable[[Given], None], about: str) -> argparse.ArgumentParser:
        made = modes.add_parser(name, help=about)
        made.set_defaults(does=does)
        add = made.add_argument
        add("site", type=Path, help="the folder in which it is built")
        add("--build", metavar="CMD", help="a command for the shell [the site is built already]")
        add("--serve", metavar="DIR", default=".", help="what is served, in SITE [SITE itself]")
        add("--path", action="append", type=address_path, help="a page; again for more [/]")
        add("--sizes", type=sizes, default=list(SIZES), help="of windows [412x823,1350x940]")
        add("--compress", choices=("on", "off"), default="on", help="texts, by the server [on]")
        add("--timeout", type=seconds, default=180.0, help="for a build, a look, or a run [180]")
        return made

    def comparing(made: argparse.ArgumentParser, *, needed: bool) -> None:
        add = made.add_argument
        add("--reference", type=Path, required=needed, help="a folder that `shoot` has filled")
        add("--near", type=from_(0, 255), default=24, help="how far a colour may be off [24]")
        add("--save", type=Path, metavar="DIR", help="draw what differs into this folder")

    shooting = mode("shoot", shoot, "make the pictures that others are compared with")
    shooting.add_argument("--reference", type=Path, required=True, help="the folder to fill")

    looking = mode("look", look, "fail if the page looks different")
    comparing(looking, needed=True)
    looking.add_argument("--tolerance", type=share, default=0.01,
        help="of the pixels, and of the words [1%%]")  # fmt: skip

    measuring = mode("measure", measure, "measure with Lighthouse")
    comparing(measuring, needed=False)
    add = measuring.add_argument
    add("--runs", type=from_(1), default=3, help="the median of so many counts [3]")
    known = ", ".join(reports.SCORED)
    add("--weights", type=weights, metavar="NAME=W,...",
        help=f"of the scores in `composite`: {known} [1 for each category]")  # fmt: skip
    add("--only", type=categories, default=list(reports.CATEGORIES), metavar="NAME,...",
        help="measure some categories, which is quicker [all four]")  # fmt: skip
    add("--form-factor", choices=("mobile", "desktop"), default="mobile", help="[mobile]")
    add("--throttling", choices=("simulate", "devtools", "provided"), default="simulate",
        help="how a slow network and processor are come by [simulate]")  # fmt: skip
    add("--wait", type=from_(0), metavar="MS",
        help="how long nothing may happen before a page is loaded [Lighthouse's 1000]")  # fmt: skip
    add("--keep", type=Path, metavar="FILE", help="write Lighthouse's reports as JSON")
    return top


def main() -> int:
    """Do what the command line says."""
    given = parser().parse_args()
    given.path = list(dict.fromkeys(given.path or ["/"]))
    leave_on(signal.SIGTERM, signal.SIGHUP)
    return status_of("page", lambda: given.does(given))


if __name__ == "__main__":
    sys.exit(main())
