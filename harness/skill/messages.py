"""A model behind the Messages API at work on a case, turn by turn.

Owns the conversation: what the model is told, when it is at its end, and what was used. A server
that cannot be asked is an error of the harness; what goes wrong once the model is at work is the
run's own end. Knows no checks.
"""

import time
from typing import Any, cast

import tools
from model import ModelError, Server, cost, usage_of
from outcome import Stopped
from suite import INPUT, Case, Messages, Under
from transcript import Did, Said, Transcript, Turn, as_mapping

TOO_LARGE = (400, 413)
"""How a server refuses a conversation that has grown beyond the model's context."""
STOPS: dict[str, Stopped] = {"refusal": "refusal", "max_tokens": "max_tokens"}


def work(
    case: Case, under: Under, runner: Messages, server: Server, room: tools.Room, timeout_s: float
) -> Transcript:
    """Have the model do what a case asks.

    Raises:
        ModelError: the server cannot be reached, or refuses.
    """
    deadline = time.monotonic() + timeout_s
    body = _beginning(case, under, runner)
    turns: list[Turn] = []
    while True:
        started = time.monotonic()
        if started > deadline:
            return Transcript(turns, "timeout", f"took longer than {timeout_s:g} s")
        try:
            reply = server.send(body)
        except ModelError as error:
            if not turns or error.status not in TOO_LARGE:
                raise
            return Transcript(turns, "failed", f"the server refuses to go on: {error}"[:500])
        seconds = time.monotonic() - started
        blocks = [as_mapping(b) for b in cast("list[object]", reply.get("content") or [])]
        # Some servers give empty texts, and none takes one back.
        blocks = [b for b in blocks if b.get("type") != "text" or str(b.get("text", "")).strip()]
        calls = [block for block in blocks if block.get("type") == "tool_use"]
        stopped = STOPS.get(str(reply.get("stop_reason")))
        if stopped is not None or not calls:
            # A call that was cut off is no call.
            turns.append(_turn(runner, reply, seconds, _said(blocks)))
            return Transcript(turns, stopped or "end")
        parts, results = _called(blocks, room, deadline)
        turns.append(_turn(runner, reply, seconds, parts))
        if len(turns) >= runner.max_turns:
            return Transcript(turns, "max_turns")
        _marked(results)
        earlier = cast("list[dict[str, Any]]", body["messages"])
        for message in earlier[1:]:
            for block in cast("list[dict[str, Any]]", message["content"]):
                if block.get("type") == "tool_result":
                    block.pop("cache_control", None)
        body["messages"] = [
            *earlier,
            {"role": "assistant", "content": blocks},
            {"role": "user", "content": results},
        ]


def _beginning(case: Case, under: Under, runner: Messages) -> dict[str, Any]:
    request, system = case.request, under.text
    specs = list(tools.SPECS) if runner.tools else []
    if under.offered:
        system = tools.offer(under)
        specs.append(tools.SKILL)
    elif under.kind == "prompt" and INPUT in under.text:
        request, system = under.text.replace(INPUT, case.request), ""
    body: dict[str, Any] = {
        "model": runner.model.model,
        "max_tokens": runner.model.max_tokens,
        "messages": [{"role": "user", "content": request}],
    }
    if system.strip():
        body["system"] = _marked([{"type": "text", "text": system}])
    if specs:
        body["tools"] = specs
    if runner.model.temperature is not None:
        body["temperature"] = runner.model.temperature
    return body


def _marked(blocks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Have the provider remember all up to here: each turn sends the whole conversation again."""
    blocks[-1]["cache_control"] = {"type": "ephemeral"}
    return blocks


def _turn(
    runner: Messages, reply: dict[str, Any], seconds: float, parts: tuple[Said | Did, ...]
) -> Turn:
    usage = usage_of(reply)
    usd = cost(runner.model.usd_per_mtok, usage)
    return Turn(parts, usage.input, usage.output, usage.cached, usd, seconds)


def _said(blocks: list[dict[str, Any]]) -> tuple[Said, ...]:
    return tuple(Said(str(b.get("text", ""))) for b in blocks if b.get("type") == "text")


def _called(
    blocks: list[dict[str, Any]], room: tools.Room, deadline: float
) -> tuple[tuple[Said | Did, ...], list[dict[str, Any]]]:
    """Run all calls of an answer, in order."""
    parts: list[Said | Did] = []
    results: list[dict[str, Any]] = []
    for block in blocks:
        if block.get("type") == "text":
            parts.append(Said(str(block.get("text", ""))))
        if block.get("type") != "tool_use":
            continue
        name, given = str(block.get("name", "")), as_mapping(block.get("input"))
        started = time.monotonic()
        result = tools.run(room, name, given, deadline - started)
        parts.append(Did(name, given, result.good, time.monotonic() - started))
        content = result.text if result.text.strip() else "(empty)"
        answer = {"type": "tool_result", "tool_use_id": block.get("id"), "content": content}
        results.append(answer if result.good else {**answer, "is_error": True})
    return tuple(parts), results
