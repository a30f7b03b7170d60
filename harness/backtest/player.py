"""The program around a candidate that is a Python function: one event after the other.

    python player.py MODULE:FUNCTION [HIDDEN ...]

Runs inside the candidate's walls. The function gets the event, with the labels that there are, and
all earlier events whose outcome is known, and gives what goes under `p` (or `value`). What it
prints goes to stderr.

That it is refused a file with a hidden name is told, even if it makes nothing of that. A function
can prevent that, as it runs in this very process; but it gets no file by it.
"""

import importlib
import json
import os
import sys
from typing import Any


def watch(names: list[str]) -> list[str]:
    """Note the names of hidden files that are asked for from now on, and refused."""
    looked: list[str] = []
    trying = False

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal trying
        if event != "open" or trying or not isinstance(args[0], str | bytes):
            return
        name = os.path.basename(os.fsdecode(args[0]))
        if name in names:
            trying = True  # what this opens itself comes by here, too
            if refused(args[0]):
                looked.append(name)
            trying = False

    sys.addaudithook(hook)
    return looked


def refused(path: str | bytes) -> bool:
    """Tell whether there is a file that may not be read; one of its own may have the same name."""
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
    except PermissionError:
        return True
    except (OSError, ValueError):
        pass
    return False


def main() -> None:
    """Answer until there are no more questions."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.path.insert(0, os.getcwd())
    looked = watch(sys.argv[2:])
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
        said = predict({**event, "labels": question["labels"]}, list(history))
        key = "p" if question["labels"] else "value"
        answer = {"turn": question["turn"], key: said, "looked": looked[:1]}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
