"""What lies in a shop's store room, and what it costs."""


class StockError(Exception):
    """Somebody asked for what the store room cannot do."""


class Stock:
    """Items by name: how many there are, and the price of one."""

    def __init__(self) -> None:
        self._amounts: dict[str, int] = {}
        self._prices: dict[str, int] = {}

    def add(self, name: str, amount: int, price: int) -> None:
        """Put in more of an item; the price is the newest for all of it."""
        self._amounts[name] = self._amounts.get(name, 0) + amount
        self._prices[name] = price

    def amount(self, name: str) -> int:
        """Tell how many there are of an item, 0 of one that was never there."""
        return self._amounts.get(name, 0)

    def price(self, name: str) -> int:
        """Tell the price of one."""
        if name not in self._prices:
            raise StockError(f"there is no {name}")
        return self._prices[name]
