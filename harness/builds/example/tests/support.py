"""What the tests stand on."""

import subprocess
import sys
import unittest
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent


class Built(unittest.TestCase):
    """A test that has a fresh bundle."""

    def setUp(self):
        subprocess.run([sys.executable, "build.py"], cwd=TOP, check=True)
        self.bundle = str(TOP / "dist" / "units.pyz")
