"""Answers one question after the other: `python -m elo.main`."""

import json
import sys

from elo.ratings import Match, Ratings


def main() -> None:
    """Read questions, print answers, learn what has become known."""
    ratings = Ratings()
    met: dict[str, Match] = {}
    for line in sys.stdin:
        question = json.loads(line)
        for known in question["known"]:
            ratings.learn(met.pop(known["id"]), known["outcome"])
        event = question["event"]
        match = met[event["id"]] = event["given"]
        answer = {"turn": question["turn"], "p": ratings.chances(match)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
