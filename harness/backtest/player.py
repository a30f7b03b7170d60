"""The program around a candidate that is a Python function: one event after the other.

    python player.py MODULE:FUNCTION

Runs inside the candidate's walls. The function gets the event and all earlier events whose outcome
is known, and gives what goes under `p` (or `value`). What it prints goes to stderr.
"""

import importlib
import json
import os
import sys
from typing import Any


def main() -> None:
    """Answer until there are no more questions."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.path.insert(0, os.getcwd())
    module, _, name = sys.argv[1].partition(":")
    predict: Any = importlib.import_module(module)
    for part in name.split("."):
        predict = getattr(predict, part)
    met: dict[str, dict[str, Any]] = {}
    history: list[dict[str, Any]] = []
    for line in sys.stdin:
        question = json.loads(line)
        known = question["known"]
        history += [{**met.pop(each["id"]), "outcome": each["outcome"]} for each in known]
        event = met[question["event"]["id"]] = question["event"]
        said = predict(dict(event), list(history))
        key = "p" if question["labels"] else "value"
        print(json.dumps({"turn": question["turn"], key: said}), file=answers, flush=True)


if __name__ == "__main__":
    main()
