"""Builds the site: `src/` and what is made from nothing, into `dist/`. Needs Python only."""

import base64
import random
import shutil
import struct
import zlib
from pathlib import Path

HERE = Path(__file__).resolve().parent
DIST = HERE / "dist"
YEARS = range(1900, 2100)
WIDTH, HEIGHT = 640, 360


def tides():
    """High water of every day, as the script of the page reads it: far more than it needs."""
    chance = random.Random(1886)
    table = {year: base64.b64encode(chance.randbytes(9_000)).decode() for year in YEARS}
    lines = [f"TIDES[{year}] = '{days}';" for year, days in table.items()]
    return "const TIDES = {};\n" + "\n".join(lines) + "\n"


def pixel(x, y):
    """The sea, the sky, a rock and a tower."""
    if abs(x - 420) < 16 + (y - 60) * 0.08 and 60 <= y < 270:
        return (214, 40, 40) if (y // 35) % 2 else (245, 240, 230)
    if (x - 420) ** 2 / 150**2 + (y - 290) ** 2 / 40**2 < 1:
        return (70, 62, 58)
    if y >= 270:
        return (20, 70 + (y - 270) // 3, 110 + (x * y) % 7)
    return (120 + y // 4, 170 + y // 6, 225)


def picture():
    """A PNG file."""
    rows = (b"\0" + b"".join(bytes(pixel(x, y)) for x in range(WIDTH)) for y in range(HEIGHT))
    head = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(b"".join(rows), 0)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )


def main():
    shutil.rmtree(DIST, ignore_errors=True)
    shutil.copytree(HERE / "src", DIST)
    (DIST / "tides.js").write_text(tides())
    (DIST / "tower.png").write_bytes(picture())


if __name__ == "__main__":
    main()
