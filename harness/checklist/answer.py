"""The child that answers a question whose code may crash or never end: one answer, one process.

    python answer.py ORDER.json < OUTPUT

Prints `{"yes": ..., "reason": ...}`, where null is no answer and fails whatever is expected. Exit
status 3 says that the question itself is broken. What a question's own code prints goes to stderr,
so that it is never taken for the answer.
"""

import importlib.util
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

BROKEN = 3


class Said(Exception):
    """An answer other than yes, with its reason."""

    def __init__(self, reason: str, yes: bool | None = False) -> None:
        super().__init__(reason)
        self.yes = yes


def matches(order: dict[str, Any], output: str) -> str:
    """Look for a regular expression."""
    found = re.search(order["pattern"], output, re.MULTILINE)
    if found and not order["wanted"]:
        raise Said(f"`{order['pattern']}` matches {found.group()[:80]!r}")
    if not found and order["wanted"]:
        raise Said(f"`{order['pattern']}` matches nothing")
    return ""


def schema(order: dict[str, Any], output: str) -> str:
    """Hold JSON against a schema."""
    from jsonschema import validators
    from referencing import Registry

    def refuse(name: str) -> NoReturn:
        raise Said(f"not JSON: {name} is no JSON number")

    try:
        value = json.loads(output, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise Said(f"not JSON: {error}") from None
    default = validators.Draft202012Validator
    kind = validators.validator_for(order["schema"], default=default)
    # An empty registry: a schema that refers to an address must not have it fetched.
    registry: Any = Registry()  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    error: Any = next(iter(kind(order["schema"], registry=registry).iter_errors(value)), None)
    if error is not None:
        raise Said(f"{error.json_path}: {error.message[:200]}")
    return ""


def calls(order: dict[str, Any], output: str) -> str:
    """Call a function of the user's with the output."""
    function = _find(Path(order["file"]), order["function"])
    try:
        said = bool(function(output))
    except BaseException as error:
        what = f"{order['function']}: {type(error).__name__}: {str(error)[:200]}"
        raise Said(what, None) from None
    if not said:
        raise Said(f"{order['function']} says no")
    return ""


def _find(file: Path, name: str) -> Callable[[str], object]:
    # The file may import its neighbours, and gets none of this folder's modules by accident.
    here = str(Path(__file__).parent)
    sys.path[:] = [str(file.parent), *(entry for entry in sys.path if entry != here)]
    try:
        spec = importlib.util.spec_from_file_location(file.stem, file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return getattr(module, name)
    except BaseException as error:
        print(f"{file.name} cannot be imported: {type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(BROKEN)


def main() -> None:
    """Answer the one question on the command line."""
    sys.dont_write_bytecode = True
    stdout = os.dup(1)
    os.dup2(2, 1)
    order = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    output = sys.stdin.buffer.read().decode("utf-8", "replace")
    check = {"matches": matches, "schema": schema, "calls": calls}[order["kind"]]
    try:
        reason, yes = check(order, output), True
    except Said as said:
        reason, yes = str(said), said.yes
    os.write(stdout, json.dumps({"yes": yes, "reason": reason}).encode())
    # At once: threads that a question's code left behind must not hold the answer up.
    os._exit(0)


if __name__ == "__main__":
    main()
