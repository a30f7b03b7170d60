"""A program from the command line at work on a case: Claude Code, or any other.

Owns its command line, what of its environment leads it to the model, and how its output is
understood: the events of `--output-format stream-json`, or plain text. Whatever it finds in the
workspace (`.claude/`, CLAUDE.md, hooks) is under test and is obeyed.
"""

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple, cast

import processes
from model import ModelError, usage_of
from outcome import File
from suite import INPUT, Case, Headless, Under
from transcript import Did, Said, Transcript, Turn, as_mapping
from workspace import put

STAMP = Path(__file__).with_name("stamp.py")
LIMIT = 32 * 2**20
"""Bytes of output; every file that a program reads is in its events."""
ALLOWED = "Bash,Read,Edit,Write,Glob,Grep,Skill,Task,Agent,TodoWrite"
CLAUDE_ENV = {
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "DISABLE_AUTOUPDATER": "1",
}
REFUSED = re.compile(r"API Error|/login\b|not logged in|authentication|credit balance", re.I)


def work(
    case: Case,
    under: Under,
    runner: Headless,
    place: Path,
    env: Mapping[str, str],
    timeout_s: float,
    cancel: Event,
) -> Transcript:
    """Have the program do what a case asks.

    Raises:
        ModelError: it cannot reach its model.
    """
    argv, request = command(case, under, runner)
    ended = processes.run(
        (sys.executable, "-S", str(STAMP), *argv),
        cwd=place,
        env={**env, **_to_the_model(), "PROMPT": request},
        stdin=request.encode(),
        timeout_s=timeout_s,
        cancel=cancel,
        limit=LIMIT,
    )
    lines = [_Line.read(line) for line in ended.output.splitlines()]
    found = _of_events(lines)
    if found is None:
        answer = "\n".join(line.text for line in lines).strip()
        found = Transcript([Turn((Said(answer),), seconds=ended.seconds)])
    if ended.problem is None or (found.problem is None and found.stopped != "end"):
        return found
    stopped = "timeout" if "took longer" in ended.problem else "failed"
    return found._replace(stopped=stopped, problem=found.problem or f"the program {ended.problem}")


def install(place: Path, under: Under, runner: Headless) -> None:
    """Put a skill where Claude Code finds it; other programs get its text with the request."""
    if under.kind == "skill" and runner.cli == ("claude",):
        put(place, f".claude/skills/{under.name}/SKILL.md", File(under.text.encode()))


def command(case: Case, under: Under, runner: Headless) -> tuple[tuple[str, ...], str]:
    """Give the command line and what the program reads."""
    request = case.request
    claude = runner.cli == ("claude",)
    if under.kind == "prompt" and INPUT in under.text:
        request = under.text.replace(INPUT, request)
    elif under.kind != "harness" and not claude:
        request = f"{under.text}\n\n{request}"
    if not claude:
        return (*runner.cli, *runner.args), request
    model = () if runner.model is None else ("--model", runner.model)
    system = ()
    if under.kind == "prompt" and INPUT not in under.text:
        system = ("--append-system-prompt", under.text)
    # `acceptEdits` and a list of tools, for root may not skip all questions.
    return (
        *("claude", "--print", "--output-format", "stream-json", "--verbose"),
        *("--permission-mode", "acceptEdits", "--allowedTools", ALLOWED),
        *("--max-turns", str(runner.max_turns), "--no-session-persistence"),
        *model,
        *system,
        *runner.args,
    ), request


def _to_the_model() -> dict[str, str]:
    """Lead the program to the model as swarm opens it, by the names that programs know."""
    url, token = os.environ.get("SWARM_MODEL_URL"), os.environ.get("SWARM_MODEL_TOKEN")
    if not url:
        return {**CLAUDE_ENV}
    named = {"SWARM_MODEL_URL": url, "ANTHROPIC_BASE_URL": url}
    if token:
        named |= {"SWARM_MODEL_TOKEN": token, "ANTHROPIC_API_KEY": token}
    return {**CLAUDE_ENV, **named}


# --- its output -------------------------------------------------------------------------------


class _Line(NamedTuple):
    """A line, and when it came."""

    at: float
    text: str

    @classmethod
    def read(cls, line: str) -> "_Line":
        stamp, tab, text = line.partition("\t")
        try:
            return cls(float(stamp), text) if tab else cls(0.0, line)
        except ValueError:
            return cls(0.0, line)

    @property
    def event(self) -> dict[str, Any]:
        if not self.text.startswith("{"):
            return {}
        try:
            return as_mapping(json.loads(self.text))
        except (ValueError, RecursionError):
            return {}


class _Message:
    """An answer in the making: its events come one block at a time."""

    def __init__(self) -> None:
        self.blocks: list[dict[str, Any]] = []
        self.usage: dict[str, Any] = {}
        self.seconds = 0.0


def _of_events(lines: Sequence[_Line]) -> Transcript | None:
    """Understand the events; None if these are none."""
    messages: dict[str, _Message] = {}
    results: dict[str, tuple[bool, float]] = {}
    ending: dict[str, Any] = {}
    before = lines[0].at if lines else 0.0
    for line in lines:
        event, took = line.event, max(0.0, line.at - before)
        message = as_mapping(event.get("message"))
        blocks = [as_mapping(b) for b in _listed(message.get("content"))]
        if event.get("type") == "assistant":
            key = str(message.get("id") or len(messages))
            own = messages.setdefault(key, _Message())
            own.blocks += blocks
            own.usage = as_mapping(message.get("usage")) or own.usage
            own.seconds += took
        elif event.get("type") == "user":
            for block in blocks:
                if block.get("type") == "tool_result":
                    good = block.get("is_error") is not True
                    results[str(block.get("tool_use_id"))] = good, took
                    took = 0.0  # the calls of one answer come back together
        elif event.get("type") == "result":
            ending = event
        else:
            continue
        before = line.at
    if not messages and not ending:
        return None
    turns = [_turn(message, results) for message in messages.values()]
    return _ended(_priced(turns, ending), ending)


def _listed(value: object) -> list[object]:
    if isinstance(value, str):
        return [{"type": "text", "text": value}]
    return cast("list[object]", value) if isinstance(value, list) else []


def _turn(message: _Message, results: dict[str, tuple[bool, float]]) -> Turn:
    parts: list[Said | Did] = []
    for block in message.blocks:
        if block.get("type") == "text":
            parts.append(Said(str(block.get("text", ""))))
        elif block.get("type") == "tool_use":
            good, seconds = results.get(str(block.get("id")), (True, 0.0))
            given = as_mapping(block.get("input"))
            parts.append(Did(str(block.get("name", "")), given, good, seconds))
    usage = usage_of({"usage": message.usage})
    return Turn(tuple(parts), usage.input, usage.output, usage.cached, None, message.seconds)


def _priced(turns: list[Turn], ending: dict[str, Any]) -> list[Turn]:
    """Divide what the program says it cost, and the tokens that only its end tells of."""
    total = usage_of({"usage": as_mapping(ending.get("usage"))})
    spoken = [(turn.input, turn.output) for turn in turns]
    extra_in = max(0, total.input - sum(i for i, _ in spoken))
    extra_out = max(0, total.output - sum(o for _, o in spoken))
    if turns and (extra_in or extra_out):
        last = turns[-1]
        turns[-1] = last._replace(input=last.input + extra_in, output=last.output + extra_out)
    usd, tokens = ending.get("total_cost_usd"), sum(t.input + t.output for t in turns)
    if not isinstance(usd, int | float) or not tokens:
        return turns
    return [t._replace(usd=usd * (t.input + t.output) / tokens) for t in turns]


def _ended(turns: list[Turn], ending: dict[str, Any]) -> Transcript:
    text = ending.get("result")
    answer = text if isinstance(text, str) and text else None
    subtype = str(ending.get("subtype", ""))
    if subtype == "error_max_turns":
        return Transcript(turns, "max_turns", answer=answer)
    if ending.get("is_error") is True:
        why = answer or subtype or "it failed"
        status = ending.get("api_error_status")
        if isinstance(status, int) or REFUSED.search(why):
            raise ModelError(f"the program cannot ask its model: {why[:300]}")
        return Transcript(turns, "failed", f"the program failed: {why[:300]}", answer)
    if not ending:
        return Transcript(turns, "failed", "the program ended in mid-work")
    stop = ending.get("stop_reason")
    return Transcript(turns, "refusal" if stop == "refusal" else "end", answer=answer)
