"""The bundle does what it should."""

import ast
import subprocess
import sys
import unittest
import zipfile

from support import Built


class Conversions(Built):
    def units(self, *words):
        done = subprocess.run(
            [sys.executable, "-I", self.bundle, *words], capture_output=True, text=True, check=False
        )
        return done.stdout.strip() or done.stderr.strip()

    def test_lengths(self):
        self.assertEqual(self.units("3", "km", "in", "m"), "3000 m")
        self.assertEqual(self.units("1", "mile", "in", "inch"), "63360 inch")

    def test_masses_are_exact(self):
        self.assertEqual(self.units("1", "pound", "in", "g"), "453.59237 g")

    def test_thirds_are_thirds(self):
        self.assertEqual(self.units("1/3", "yard", "in", "foot"), "1 foot")
        self.assertEqual(self.units("1", "m_per_s", "in", "km_per_h"), "3.6 km_per_h")

    def test_temperatures_have_a_zero_of_their_own(self):
        self.assertEqual(self.units("212", "F", "in", "C"), "100 C")
        self.assertEqual(self.units("0", "C", "in", "K"), "273.15 K")

    def test_what_cannot_be_shown_exactly(self):
        self.assertEqual(self.units("1", "foot", "in", "mile"), "~0.000189393939394 mile")

    def test_a_number_of_a_calendar(self):
        self.assertEqual(self.units("2", "week", "in", "day"), "14 day")

    def test_volumes(self):
        self.assertEqual(self.units("1", "gallon", "in", "pint"), "8 pint")

    def test_energies(self):
        self.assertEqual(self.units("1", "kWh", "in", "kJ"), "3600 kJ")

    def test_areas(self):
        self.assertEqual(self.units("1", "square_km", "in", "hectare"), "100 hectare")

    def test_the_checksums_are_those_of_the_files(self):
        with zipfile.ZipFile(self.bundle) as archive:
            told = archive.read("units/checksums.py").decode()
            crcs = {info.filename: info.CRC for info in archive.infolist()}
        sums = ast.literal_eval(told.removeprefix("SUMS = "))
        self.assertIn("units/convert.py", sums)
        self.assertEqual(sums, {name: crcs[name] for name in sums})

    def test_nonsense(self):
        self.assertEqual(self.units("1", "km", "in", "kg"), "units: cannot convert km to kg")
        self.assertEqual(self.units("1", "km"), "usage: units NUMBER UNIT in UNIT")


if __name__ == "__main__":
    unittest.main()
