import unittest

from stock import Stock, StockError


class TestChange(unittest.TestCase):
    def setUp(self) -> None:
        self.stock = Stock()
        self.stock.add("lamp", 3, 1999)

    def test_negative(self) -> None:
        with self.assertRaises(StockError):
            self.stock.add("lamp", -1, 1999)
