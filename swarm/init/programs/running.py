"""What the drafted tests beside this file share. Written by `swarm init`; it may be changed."""

from __future__ import annotations

import hashlib
import importlib
import json
import sys
import traceback
from typing import Any, Callable  # noqa: UP035  an older Python may run this

LONGEST = 300
"""Characters of an answer that are compared one by one."""


def run(found: dict[str, Any]) -> None:
    """Run the tests of a file, say how each ended, and exit 1 if any failed."""
    all_passed = True
    for name, test in sorted(found.items()):
        if name.startswith("test_") and callable(test):
            say({"begun": name})
            ended: BaseException | None = None
            try:
                test()
            except (Exception, SystemExit) as error:
                ended = error
            all_passed = all_passed and ended is None
            say(how_it_ended(name, ended, str(found["TOP"]) + "/", found["__file__"]))
    sys.exit(0 if all_passed else 1)


def say(what: dict[str, str]) -> None:
    """Print a line that is not mistaken for what the code under test prints."""
    print("\nswarm-guard " + json.dumps(what), flush=True)


def how_it_ended(name: str, error: BaseException | None, top: str, file: str) -> dict[str, str]:
    """Say how a test ended: an error from the test's own lines means that the test is wrong."""
    if error is None:
        return {"test": name, "end": "passed"}
    frames = traceback.extract_tb(error.__traceback__)
    ours = (file, __file__)
    own = frames[-1].filename in ours and not isinstance(error, AssertionError)
    unfit = own or isinstance(error, (ImportError, SyntaxError))
    others = [f for f in frames if f.filename not in ours and f.filename.startswith(top)]
    place = f"{others[-1].filename[len(top) :]}:{others[-1].lineno}" if others else ""
    said = traceback.format_exception_only(type(error), error)[-1].strip()
    end = "unfit" if unfit else "failed"
    return {"test": name, "end": end, "error": said, "place": place}


def function(module: str, name: str) -> Callable[..., Any]:
    """Give a function of the repository."""
    return getattr(importlib.import_module(module), name)


def told(call: Callable[[], Any]) -> list[str]:
    """Say what a call gives, so that two runs and two machines say the same."""
    try:
        value = call()
    except Exception as error:
        return ["raises", type(error).__name__]
    return ["gives", spelled(list(value) if hasattr(value, "__next__") else value)]


def spelled(value: Any) -> str:
    """Spell a value out: floats rounded, sets in order, no addresses, no long texts."""
    if isinstance(value, float):
        return format(value, ".9g")
    if isinstance(value, dict):
        pairs = (spelled(k) + ": " + spelled(v) for k, v in value.items())  # type: ignore[reportUnknownVariableType]
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, (set, frozenset)):
        return type(value).__name__ + "(" + ", ".join(sorted(map(spelled, value))) + ")"  # type: ignore[reportUnknownArgumentType]
    if isinstance(value, (list, tuple)):
        return type(value).__name__ + "(" + ", ".join(map(spelled, value)) + ")"  # type: ignore[reportUnknownArgumentType]
    text = repr(value)
    if " at 0x" in text:
        return "a " + type(value).__name__
    if len(text) <= LONGEST:
        return text
    return text[:20] + "... " + hashlib.sha256(text.encode(errors="replace")).hexdigest()[:16]
