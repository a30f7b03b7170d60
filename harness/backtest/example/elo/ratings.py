"""Elo's ratings: a team that does better than expected gains points from the other."""

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from elo import settings

Match = Mapping[str, Any]
POINTS = {"home": 1.0, "draw": 0.5, "away": 0.0}


def logistic(x: float) -> float:
    """Give the chance that belongs to a difference."""
    return 1 / (1 + math.exp(-x))


class Ratings:
    """What is known of all teams; a new one has 0."""

    def __init__(self) -> None:
        self.of: dict[str, float] = defaultdict(float)
        self.season = 0

    def chances(self, match: Match) -> dict[str, float]:
        """Give the probabilities of a match."""
        self.begin(match["season"])
        ahead = self.ahead(match)
        home, away = logistic(ahead - settings.DRAW), logistic(-ahead - settings.DRAW)
        return {"home": home, "draw": 1 - home - away, "away": away}

    def learn(self, match: Match, result: str) -> None:
        """Take the result of a match in."""
        move = settings.STEP * (POINTS[result] - logistic(self.ahead(match)))
        self.of[match["home"]] += move
        self.of[match["away"]] -= move

    def ahead(self, match: Match) -> float:
        """Give how far the home team is ahead."""
        points = self.of[match["home"]] + settings.HOME - self.of[match["away"]]
        return points / settings.SCALE

    def begin(self, season: int) -> None:
        """Begin a season, if it is a new one."""
        if season != self.season:
            self.season = season
            for team in self.of:
                self.of[team] *= settings.LEFT
