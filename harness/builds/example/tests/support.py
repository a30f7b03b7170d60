"""What the tests stand on."""

import os
import subprocess
import sys
import unittest
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent


class Built(unittest.TestCase):
    """A test that has a bundle: the one that $BUNDLE names, or else a fresh one."""

    def setUp(self):
        self.bundle = os.environ.get("BUNDLE") or built()


def built():
    """Build, and give the path of the bundle."""
    subprocess.run([sys.executable, "build.py"], cwd=TOP, check=True)
    return str(TOP / "dist" / "units.pyz")
