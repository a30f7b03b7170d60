import unittest

import spans


class TestSpans(unittest.TestCase):
    def test_parse(self) -> None:
        self.assertEqual(spans.parse("1h30m"), 5400)
        self.assertEqual(spans.parse("45s"), 45)

    def test_show(self) -> None:
        self.assertEqual(spans.show(5400), "1h30m")
        self.assertEqual(spans.show(61), "1m1s")
        self.assertEqual(spans.show(0), "0s")

    def test_there_and_back(self) -> None:
        for seconds in (1, 59, 60, 3599, 3600, 7325):
            self.assertEqual(spans.parse(spans.show(seconds)), seconds)
