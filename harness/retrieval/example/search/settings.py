"""How much is looked at."""

FETCH = 10
"""Hits that each of the two ways brings along."""
SHOWN = 10
"""Results of a query."""
