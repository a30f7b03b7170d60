"""What tests of pages need besides Python: Chromium, node, Lighthouse, as far as they are here."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parent.parent
OWN = TOP / ".npm" / "node_modules" / "lighthouse"
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def _missing() -> str | None:
    if not any(shutil.which(name) for name in CHROMIUMS):
        return "NO CHROMIUM HERE: `apt install chromium`"
    if shutil.which("node") is None:
        return "NO NODE HERE: Lighthouse needs Node 18 or newer"
    if not OWN.is_dir():
        return "NO LIGHTHOUSE HERE: `make lighthouse` installs it"
    return None


MISSING = _missing()
needed = pytest.mark.skipif(MISSING is not None, reason=MISSING or "")
