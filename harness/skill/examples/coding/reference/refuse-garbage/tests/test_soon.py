import unittest

import spans


class TestChange(unittest.TestCase):
    def test_soon(self) -> None:
        with self.assertRaises(ValueError):
            spans.parse("soon")
