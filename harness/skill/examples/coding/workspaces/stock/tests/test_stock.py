import unittest

from stock import Stock, StockError


class TestStock(unittest.TestCase):
    def setUp(self) -> None:
        self.stock = Stock()
        self.stock.add("lamp", 3, 1999)

    def test_amounts_add_up(self) -> None:
        self.stock.add("lamp", 4, 1999)
        self.assertEqual(self.stock.amount("lamp"), 7)

    def test_what_was_never_there(self) -> None:
        self.assertEqual(self.stock.amount("rug"), 0)

    def test_the_newest_price(self) -> None:
        self.stock.add("lamp", 1, 2199)
        self.assertEqual(self.stock.price("lamp"), 2199)

    def test_no_price(self) -> None:
        with self.assertRaises(StockError):
            self.stock.price("rug")
