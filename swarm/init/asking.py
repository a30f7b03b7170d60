"""Guard tests drafted by a model: one question, and what is made of the answer.

Owns the words of the question. How a model is asked is `proposers.messages`' matter; whether its
tests hold is found out on the base, like that of any other draft.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from swarm.groups import MessagesProposer
from swarm.init.drafts import HERE, DraftFile, split_python
from swarm.init.proposal import Kind
from swarm.init.survey import Facts, Read
from swarm.proposers.messages import ask
from swarm.records import Usage

MOST_CHARS = 60_000
"""Of source that the model is shown."""
TIMEOUT_S = 300.0
_RISKS: Mapping[Kind, str] = {
    "speed": "edge cases of public functions: empty, None, huge, unicode, special characters, "
    "duplicates, order, idempotence, arguments that must not be changed",
    "accuracy": "leakage: held-out data or answers that reach what is trained or tuned, a metric "
    "that can be had without the work, seeds and splits that must stay fixed",
    "size": "what is needed at run time: imports, data files, entry points, public names, defaults",
    "tests": "behaviour that the present tests do not ask for and that a quick mend would break",
    "quality": "facts, names, commands and promises that must survive a rewording",
}
_SYSTEM = """\
You write guard tests for a Python repository. An automatic search will change its code to make one
number better, and will take whatever it can get. Your tests say what must not break.

Answer with one Python file in a fenced block, and nothing else. It has imports, perhaps helpers,
and 8 to 20 functions named test_..., without arguments and decorators, each with a docstring of one
sentence and plain asserts. Each asks one thing. No pytest, no network, no sleep, no randomness, no
files but in a temporary directory. The repository's own directory is on sys.path.

Test what the code promises by names, docstrings and types, also where you suspect that it does not
keep it: a test that fails now is a bug found, and is welcome. Do not test how it is done."""


def draft(
    facts: Facts,
    read: Read,
    kind: Kind,
    goal: str,
    config: MessagesProposer,
    keys: Mapping[str, str],
) -> tuple[DraftFile | None, Usage]:
    """Have a model draft tests; None if its answer holds none.

    Raises:
        NoProposalError: there was no answer.
    """
    reply = ask(config, keys, _SYSTEM, _question(facts, read, kind, goal))
    block = re.search(r"```(?:python|py)?\n(.*?)```", reply.text, re.S)
    text = block[1] if block else reply.text
    about = f"Tests that {config.model} has drafted: {_RISKS[kind]}."
    found = split_python(_path_first(text), "drafted", about)
    return found, reply.usage


def _path_first(text: str) -> str:
    """Put the repository before all else on the path, wherever the file lies."""
    return f"{HERE}\n\n{re.sub(r'(?m)^from __future__ .*$', '', text)}"


def _question(facts: Facts, read: Read, kind: Kind, goal: str) -> str:
    wish = f" In the words of its owner: {goal}" if goal else ""
    parts = [f"The search is for {kind}.{wish}\nIt is likely to break {_RISKS[kind]}.\n"]
    room = MOST_CHARS
    for path in facts.sources.get("python", ()):
        text = read(path)
        if len(text) <= room:
            room -= len(text)
            parts.append(f"=== {path} ===\n{text}")
    left = [p for p in facts.tests if p.endswith(".py")]
    if left:
        parts.append("The tests that there are: " + ", ".join(left[:30]))
    return "\n".join(parts)
