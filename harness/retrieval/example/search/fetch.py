"""How much is fetched from each index, and how much is shown."""

SHOWN = 10
FETCH = SHOWN
