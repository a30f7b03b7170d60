"""A model that does what the text in its system prompt says, and nothing that it does not say.

    python tests/obedient_model.py          # prints its address, serves until its stdin ends

It speaks the Messages API (`messages_server`) and stands in for a model where the true effects of
changing a skill are wanted without one: in the worked examples and their tests. Its answers are
computed from the text that it is given (`obedience`), whatever text that is. It owns who answers:
a programmer where tools are offered, a judge where yes or no is wanted, else a writer. `slips` is
the share of sentences of its prompt that it overlooks, and of its rulings that are wrong, drawn by
the seed.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import threading
from collections import Counter

from messages_server import Json, MessagesServer, Reply, Script, texts, tool_names
from obedience import Skill
from obedient_coder import work
from obedient_writer import commit, copy, judge

QUOTED = re.compile(r"^(=== \w+ ===)\n(.*)\n\1$", re.MULTILINE | re.DOTALL)
"""What a judge is shown stands between two lines with the same mark."""


MARK = re.compile(r"=== \w+ ===")


def is_judge(request: Json) -> bool:
    """Tell whether yes or no is wanted, and no work."""
    asked = texts(request["messages"][-1]["content"])
    return not tool_names(request) and re.search(r"(?i)\byes or no\b", asked) is not None


def answer(request: Json) -> Reply:
    """Answer as whoever is asked."""
    asked = texts(request["messages"][-1]["content"])
    if tool_names(request):
        return work(request)
    if is_judge(request):
        return Reply.saying("yes" if _ruling(asked) else "no")
    skill = Skill(texts(request.get("system", "")))
    write = commit if re.search(r"(?m)^Change:", asked) else copy
    return Reply.saying(write(skill, asked))


def _ruling(asked: str) -> bool:
    quoted = QUOTED.search(asked)
    output = quoted[2] if quoted else asked
    return judge(asked.replace(output, ""), output)


def slipping(share: float, seed: int) -> Script:
    """Give the model in a state in which it overlooks a sentence now and then, and misjudges.

    The n-th time that it is asked the same thing, the draw is the same with the same seed.
    """
    lock, times = threading.Lock(), Counter[str]()

    def script(request: Json) -> Reply:
        first = MARK.sub("", texts(request["messages"][0]["content"]))
        with lock:
            times[first] += len(request["messages"]) == 1
            dice = random.Random(f"{seed} {times[first]} {first}")
        if is_judge(request):
            ruling = texts(list(answer(request).content)) == "yes"
            return Reply.saying("yes" if ruling is (dice.random() >= share) else "no")
        sentences = re.split(r"(?<=[.!?])(\s+)", texts(request.get("system", "")))
        seen = (s for s in sentences if s.isspace() or dice.random() >= share)
        return answer({**request, "system": "".join(seen)})

    return script


def main() -> None:
    """Serve until stdin ends, so that nothing is left when the starter is gone."""
    parser = argparse.ArgumentParser(description="A model on loopback that obeys its prompt.")
    parser.add_argument("--slips", type=float, default=0.0, help="share of sentences overlooked")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    script = slipping(given.slips, given.seed) if given.slips else answer
    with MessagesServer(script) as server:
        print(server.url, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
