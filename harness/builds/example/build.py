"""Build dist/units.pyz: one file that Python runs.

python build.py
"""

import csv
import shutil
import zipfile
from fractions import Fraction
from pathlib import Path

ROOT = Path(__file__).resolve().parent
DIST = ROOT / "dist"


def rows():
    """Read what is known of each unit: its name, its dimension, its size, its zero."""
    with open(ROOT / "data" / "units.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def known(name):
    """Find one unit."""
    return next(row for row in rows() if row["name"] == name)


def tables():
    """Write a module with the factor and the offset between any two units of one dimension."""
    lines = ["PAIRS = {"]
    for one in rows():
        for other in rows():
            if known(one["name"])["dimension"] == known(other["name"])["dimension"]:
                size = Fraction(one["size"]) / Fraction(other["size"])
                zero = (Fraction(one["zero"]) - Fraction(other["zero"])) / Fraction(other["size"])
                lines.append(f"    ({one['name']!r}, {other['name']!r}): ('{size}', '{zero}'),")
    return "\n".join([*lines, "}", ""])


def checksum(data):
    """Give the CRC-32 of a file, as zip has it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xEDB88320 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def collect():
    """Give the files of the bundle, by their path in it."""
    files = {}
    for path in sorted((ROOT / "src").rglob("*")):
        if path.is_file() and path.suffix != ".pyc":
            files[path.relative_to(ROOT / "src").as_posix()] = path.read_bytes()
    files["units/tables.py"] = tables().encode()
    sums = {name: checksum(data) for name, data in files.items()}
    files["units/checksums.py"] = f"SUMS = {sums}\n".encode()
    files["__main__.py"] = b"from units.main import main\n\nmain()\n"
    return files


def bundle(files, method=zipfile.ZIP_STORED):
    """Write the bundle: without dates, so that it is the same every time."""
    shutil.rmtree(DIST, ignore_errors=True)
    DIST.mkdir()
    with zipfile.ZipFile(DIST / "units.pyz", "w") as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)


if __name__ == "__main__":
    bundle(collect())
