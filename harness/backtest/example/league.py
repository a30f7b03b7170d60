"""Makes the matches of a league that does not exist: `python league.py`, always the same ones.

Twelve teams play each other twice a season, four seasons long. How strong they are drifts from week
to week, and in the summers most of what sets them apart is gone. Who plays at home has an
advantage. Season 1 is for everybody (`past/`); all four are for the scorer.
"""

import json
import math
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

SEED = 7
TEAMS = (
    *("Ash", "Birch", "Cedar", "Elm", "Fir", "Hazel"),
    *("Larch", "Maple", "Oak", "Pine", "Rowan", "Willow"),
)
SEASONS, FIRST = 4, 2021
SPREAD, DRIFT, SUMMER = 0.9, 0.16, 0.1
HOME, DRAW = 0.55, 0.55


def rounds(chance: random.Random) -> Iterator[list[tuple[str, str]]]:
    """Give who plays whom, everybody once at home and once away."""
    ring = chance.sample(TEAMS, len(TEAMS))
    half: list[list[tuple[str, str]]] = []
    for number in range(len(ring) - 1):
        pairs = [(ring[i], ring[-1 - i]) for i in range(len(ring) // 2)]
        half.append([(a, b) if number % 2 else (b, a) for a, b in pairs])
        ring.insert(1, ring.pop())
    yield from half
    yield from ([(b, a) for a, b in pairs] for pairs in half)


def logistic(x: float) -> float:
    """Give the chance that belongs to a difference of strength."""
    return 1 / (1 + math.exp(-x))


def played(chance: random.Random, ahead: float) -> str:
    """Let a match be played."""
    home, away = logistic(ahead - DRAW), logistic(-ahead - DRAW)
    return chance.choices(["home", "away", "draw"], [home, away, 1 - home - away])[0]


def matches() -> Iterator[tuple[dict[str, object], dict[str, object]]]:
    """Give every match and its result."""
    chance = random.Random(SEED)
    strength = {team: chance.gauss(0, SPREAD) for team in TEAMS}
    number = 0
    for season in range(FIRST, FIRST + SEASONS):
        day = datetime(season, 8, 14, 15, tzinfo=UTC)
        for pairs in rounds(chance):
            for home, away in pairs:
                number += 1
                name = f"m{number:03}"
                given = {"season": season, "home": home, "away": away}
                result = played(chance, strength[home] - strength[away] + HOME)
                over = (day + timedelta(hours=2)).isoformat()
                yield (
                    {"id": name, "at": day.isoformat(), "given": given},
                    {"id": name, "outcome": result, "known_at": over},
                )
            day += timedelta(days=7)
            for team in TEAMS:
                strength[team] += chance.gauss(0, DRIFT)
        for team in TEAMS:
            strength[team] = SUMMER * strength[team] + chance.gauss(0, SPREAD * (1 - SUMMER))


def write(folder: Path, season: int | None = None) -> None:
    """Write both files, of one season or of all."""
    folder.mkdir(exist_ok=True)
    every = list(matches())
    some = [pair for pair in every if season is None or f"'season': {season}," in str(pair[0])]
    for name, lines in zip(("events", "outcomes"), zip(*some, strict=True), strict=True):
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    here = Path(__file__).resolve().parent
    write(here)
    write(here / "past", FIRST)
