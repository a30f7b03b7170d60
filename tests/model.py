"""A scripted model that searches: what it answers follows from the conversation alone.

It works on the target of `targets`: each agent has a part, whose constants it moves towards 2. Some
of its proposals are of the kinds that models make too: a crash, a repeat, an answer without a
submit, an edit out of scope.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable

from messages_server import Json, Reply, Script, call, conversation, results, said, texts, turns

PARTS = ("a.py", "b.py", "c.py", "d.py")


def agent_of(request: Json) -> str:
    """Give the agent that a request comes from."""
    found = re.search(r"You are (a\d+)\b", conversation(request))
    assert found is not None, "the briefing says who is asked"
    return found[1]


def searcher(trouble: bool = True, before: Callable[[str, int], None] | None = None) -> Script:
    """Make a model. `before` is told agent and turn when a request comes, and may hold it up."""

    def script(request: Json) -> Reply:
        agent, turn = agent_of(request), turns(request)
        if before is not None:
            before(agent, turn)
        round_ = _round(request)
        part = f"parts/{PARTS[(int(agent[1:]) - 1) % len(PARTS)]}"
        if "ZeroDivisionError" in round_ and "call `skip`" in round_:
            return _mend(part, turn)
        if trouble and (odd := _trouble(request, agent, turn, round_, part)) is not None:
            return odd
        return _move(request, agent, turn, part)

    return script


def _round(request: Json) -> str:
    """Give the first message: what is known in this round."""
    return texts(request["messages"][0]["content"])


def _trouble(request: Json, agent: str, turn: int, round_: str, part: str) -> Reply | None:
    kind = zlib.crc32(f"{agent} {round_}".encode()) % 12
    if kind == 0:
        return Reply.saying("I have nothing to say.")
    if kind == 1 and turn == 0:
        content = (call("write_file", {"path": "measure.py", "content": "print('METRIC loss=0')"}),)
        return Reply(content)
    if kind == 2 and turn == 0:
        return Reply.calling("write_file", path=part, content="1 / 0\n")
    if kind == 2 and turn == 1:
        return Reply.calling("submit", summary=f"divide {round_.count('#')}", rationale="a bug")
    return None


def _move(request: Json, agent: str, turn: int, part: str) -> Reply:
    """Read the part, move one of its constants half the way to 2, submit."""
    if turn == 0:
        return Reply((said("I read the part first."), call("read_file", {"path": part})))
    if turn == 1:
        found = re.findall(r"^\s*\d+\W+([A-Z]+) = ([\d.]+)$", _last(request), re.MULTILINE)
        far = [(name, value) for name, value in found if abs(float(value) - 2) > 0.02]
        if not far:
            return Reply.saying("Nothing is left to do.")
        name, value = far[zlib.crc32(_round(request).encode()) % len(far)]
        new = f"{(float(value) * 2) ** 0.5:.4f}"
        return Reply.calling("edit_file", path=part, old=f"{name} = {value}", new=f"{name} = {new}")
    edit = [
        block["input"]
        for message in request["messages"]
        if message["role"] == "assistant"
        for block in message["content"]
        if block["type"] == "tool_use" and block["name"] == "edit_file"
    ]
    if not edit or any(result.get("is_error") for result in results(request)):
        return Reply.saying("I cannot go on.")
    summary = f"{edit[-1]['old']} -> {edit[-1]['new'].split()[-1]}"
    return Reply.calling("submit", summary=summary, rationale="it is nearer to what pays")


def _mend(part: str, turn: int) -> Reply:
    if turn == 0:
        return Reply.calling("write_file", path=part, content=f"MENDED{part[6].upper()} = 2.5\n")
    return Reply.calling("submit", summary="mend the crash", rationale="no division")


def _last(request: Json) -> str:
    return "\n".join(texts(result.get("content", "")) for result in results(request))
