"""Two looks of a page, compared pixel by pixel and word by word.

Owns what counts as a pixel and as a word that differs. The only importer of Pillow, which is there
with matplotlib: decoding PNG in plain Python takes seconds for one page. Knows no browser.
"""

import io
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from ending import NoAnswerError, UsageError
from PIL import Image, ImageChops

NEAR = 24
"""Of 255: how far each colour of a pixel may be off. Smoothing of edges moves by less than that."""
MARK = (255, 0, 80)
FADED = 0.75


class Difference(NamedTuple):
    """What came of a comparison."""

    share: float
    """Of all pixels: those that differ, with all that only one of the pictures has."""
    rows: tuple[int, int] | None
    """From the first to the last row in which some do."""
    sizes: tuple[tuple[int, int], tuple[int, int]]
    """Width and height of the reference, and of the page."""


def difference(reference: bytes, page: bytes, near: int, drawn: Path | None = None) -> Difference:
    """Compare two PNG files, and draw what differs, if asked to.

    Raises:
        NoAnswerError: the page's picture cannot be read.
        UsageError: the reference cannot be read, or nothing can be drawn there.
    """
    before = _read(reference, "the reference", UsageError)
    if page == reference and drawn is None:
        return Difference(0.0, None, (before.size, before.size))
    after = _read(page, "the page's picture", NoAnswerError)
    size = max(before.width, after.width), max(before.height, after.height)
    off = ImageChops.difference(_padded(before, size), _padded(after, size))
    bands = [band.point([0] * (near + 1) + [255] * (255 - near)) for band in off.split()]
    mask = ImageChops.lighter(ImageChops.lighter(bands[0], bands[1]), bands[2])
    for picture in (before, after):  # what only one of them has differs, whatever its colour
        mask.paste(255, (picture.width, 0, *size))
        mask.paste(255, (0, picture.height, *size))
    box = mask.getbbox()
    if drawn is not None:
        _draw(_padded(after, size), mask, drawn)
    changed = mask.histogram()[255]
    rows = (box[1], box[3]) if box else None
    return Difference(changed / (size[0] * size[1]), rows, (before.size, after.size))


def words_changed(reference: bytes, page: bytes) -> float:
    """Give the share of the words that only one of two texts has, of those of the longer one.

    Their order is on the pictures.
    """
    before, after = (Counter(data.decode("utf-8", "replace").split()) for data in (reference, page))
    most = max(before.total(), after.total())
    return 1 - (before & after).total() / most if most else 0.0


def _read(data: bytes, name: str, error: type[Exception]) -> Image.Image:
    try:
        with Image.open(io.BytesIO(data)) as picture:
            return picture.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as wrong:
        raise error(f"{name} is not a picture that can be read: {wrong}") from None


def _padded(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    wide = Image.new("RGB", size)
    wide.paste(picture)
    return wide


def _draw(page: Image.Image, mask: Image.Image, into: Path) -> None:
    """Draw the page, faded, with what differs in red."""
    faded = Image.blend(page, Image.new("RGB", page.size, "white"), FADED)
    faded.paste(MARK, (0, 0), mask)
    try:
        faded.save(into)
    except OSError as error:
        raise UsageError(f"{into} cannot be written: {error.strerror}") from None
