"""Files of other tools that are suites: read as they are, or turned into a suite for good.

Owns what is known of their keys: Anthropic's `evals.json` and trigger sets, `tests.yaml` of
EvalView, and the EVAL blocks of skill loops. What they say becomes a suite's own keys, and is
checked there; a key that has no counterpart is an error, for a check that is passed over passes.
"""

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import form
from form import FormError, Parsed

HEAD = re.compile(r"^\W*EVAL\s+(\d+)\s*:\s*(.+?)\W*$", re.MULTILINE | re.IGNORECASE)
PARTS = ("question", "pass", "fail")
RUBRIC = "On this rubric, does the text deserve at least {least} of 100? Rubric: {prompt}"


def read(path: Path) -> Parsed:
    """Read a suite, whoever's it is.

    Raises:
        FormError: it cannot be read, or says what no suite can.
    """
    if path.suffix in (".md", ".txt"):
        return Parsed(_of_blocks(path), {})
    value, places = form.parse(path)
    converted = _converted(path, value)
    if converted is None:
        return Parsed(value, places)
    whole, key = converted
    return Parsed(whole, _moved(places, key, "cases"))


def read_cases(path: Path) -> Parsed:
    """Read a file of cases: a list, one case, or another tool's file.

    Raises:
        FormError: it cannot be read, or says what no suite can.
    """
    value, places = form.parse(path)
    converted = _converted(path, value)
    if converted is not None:
        whole, key = converted
        return Parsed(whole["cases"], _moved(places, key, ""))
    if isinstance(value, dict):
        lines = {f"1.{key}": line for key, line in places.items()}
        return Parsed([value], {"1": min(lines.values(), default=1), **lines})
    return Parsed(value, places)


def _converted(path: Path, value: Any) -> tuple[dict[str, Any], str] | None:
    """Give a suite, and the key under which the file has its cases; None for what is none."""
    if isinstance(value, list):
        items = _mappings(value)
        if items and all("query" in item and "should_trigger" in item for item in items):
            return _of_triggers(path, items), ""
    if isinstance(value, dict):
        given = cast("dict[str, Any]", value)
        if "evals" in given and "cases" not in given:
            return _of_evals(path, given), "evals"
        if "tests" in given and "cases" not in given:
            return _of_tests(path, given), "tests"
    return None


def _moved(places: Mapping[str, int], old: str, new: str) -> dict[str, int]:
    prefix = f"{old}." if old else ""
    kept = {name: n for name, n in places.items() if name.startswith(prefix) and name != old}
    return {form.key_at(new, name.removeprefix(prefix)): line for name, line in kept.items()}


def _mappings(value: Any) -> list[dict[str, Any]]:
    listed = cast("list[Any]", value) if isinstance(value, list) else []
    return [cast("dict[str, Any]", item) for item in listed if isinstance(item, dict)]


def _only(path: Path, what: str, given: Iterable[str], known: Iterable[str]) -> None:
    unknown = sorted(set(map(str, given)) - set(known))
    if unknown:
        names = ", ".join(f"`{name}`" for name in unknown)
        raise FormError(
            f"{path}: {what}: {names} has no counterpart in a suite; take it out, or write the "
            "suite by hand (docs/skills.md)"
        )


def _skill(path: Path, named: Any = None) -> str:
    """Find the skill that a file beside it or below it is about."""
    here = path.absolute().parent
    tried = [here / str(named), here / str(named) / "SKILL.md"] if named else []
    tried += [here.parent / "SKILL.md", here / "SKILL.md"]
    for place in tried:
        if place.is_file():
            return os.path.relpath(place, here)
    raise FormError(f"{path}: no SKILL.md beside it or one folder up; write a suite that names it")


# --- Anthropic --------------------------------------------------------------------------------


def _of_evals(path: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    here = path.absolute().parent
    _only(path, "the file", given, ("skill_name", "evals"))
    cases: list[dict[str, Any]] = []
    items = _mappings(given["evals"])
    if not items:
        raise FormError(f"{path}: evals: a list of mappings is wanted")
    for n, item in enumerate(items, start=1):
        known = ("id", "prompt", "expected_output", "files", "expectations", "name")
        _only(path, f"evals.{n}", item, known)
        expectations = [str(text) for text in item.get("expectations") or ()]
        if not expectations and item.get("expected_output"):
            expectations = [
                f"The text is, or tells of having made, this: {item['expected_output']}"
            ]
        case: dict[str, Any] = {
            "id": str(item.get("id", n)),
            "request": item.get("prompt"),
            "checks": [
                {"ask": f"Is this true of the text? {text}", "with_files": True}
                for text in expectations
            ],
        }
        if item.get("files"):
            case["files"] = [_near(here, str(name)) for name in item["files"]]
        cases.append(case)
    return {"under": {"kind": "skill", "path": _skill(path)}, "cases": cases}


def _near(here: Path, name: str) -> str:
    """Give a path from the file's folder; evals.json gives it from the skill's."""
    found = next((p for p in (here.parent / name, here / name) if p.exists()), here / name)
    return os.path.relpath(found, here)


def _of_triggers(path: Path, items: list[dict[str, Any]]) -> dict[str, Any]:
    cases: list[dict[str, Any]] = []
    for n, item in enumerate(items, start=1):
        _only(path, f"entry {n}", item, ("query", "should_trigger", "id"))
        cases.append(
            {
                "id": str(item.get("id", n)),
                "request": item["query"],
                "checks": [_trigger(bool(item["should_trigger"]))],
            }
        )
    return {"under": {"kind": "skill", "path": _skill(path), "offered": True}, "cases": cases}


def _trigger(wanted: bool) -> dict[str, Any]:
    return {"calls": ["Skill"]} if wanted else {"not_calls": ["Skill"]}


# --- EvalView ---------------------------------------------------------------------------------


def _of_tests(path: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    known = ("name", "description", "skill", "agent", "min_pass_rate", "tests", "model")
    _only(path, "the file", given, known)
    agent = cast("dict[str, Any]", given.get("agent") or {})
    _only(path, "agent", agent, ("type", "max_turns", "timeout", "model"))
    runner: dict[str, Any] = {"kind": "messages"}
    if agent.get("type") == "claude-code":
        runner = {"kind": "headless", "cli": "claude"}
    for key in ("max_turns", "model"):
        if agent.get(key) is not None:
            runner[key] = agent[key]
    items = _mappings(given["tests"])
    triggers = [bool(item["should_trigger"]) for item in items if "should_trigger" in item]
    under: dict[str, Any] = {"kind": "skill", "path": _skill(path, given.get("skill"))}
    if False in triggers:
        under["offered"] = True
    suite: dict[str, Any] = {"under": under, "runner": runner}
    if agent.get("timeout") is not None:
        suite["timeout"] = agent["timeout"]
    cases = [_test(path, n, item, "offered" in under) for n, item in enumerate(items, start=1)]
    return {**suite, "cases": cases}


def _test(path: Path, n: int, item: Mapping[str, Any], offered: bool) -> dict[str, Any]:
    at = f"tests.{n}"
    known = ("name", "description", "category", "input", "should_trigger", "expected", "rubric")
    _only(path, at, item, known)
    checks = (
        [_trigger(bool(item["should_trigger"]))] if offered and "should_trigger" in item else []
    )
    expected = cast("dict[str, Any]", item.get("expected") or {})
    rules = {
        "files_created": "created",
        "output_contains": "contains",
        "output_not_contains": "not_contains",
        "tool_calls_contain": "calls",
    }
    _only(path, f"{at}.expected", expected, (*rules, "max_output_tokens"))
    for name, value in expected.items():
        if name == "max_output_tokens":
            checks.append({"within": {"output_tokens": value}})
        elif name == "tool_calls_contain":
            checks += [{"calls": [tool]} for tool in value]
        else:
            checks.append({rules[name]: value})
    if rubric := cast("dict[str, Any]", item.get("rubric") or {}):
        _only(path, f"{at}.rubric", rubric, ("prompt", "min_score"))
        least = rubric.get("min_score", 70)
        asked = RUBRIC.format(least=least, prompt=rubric.get("prompt", ""))
        checks.append({"ask": asked, "with_files": True})
    case = {"id": item.get("name"), "request": item.get("input"), "checks": checks}
    return {**case, "group": item["category"]} if item.get("category") else case


# --- EVAL blocks ------------------------------------------------------------------------------


def evals(text: str) -> dict[str, dict[str, str]]:
    """Read `EVAL n: name` blocks as questions for the judge, by their names."""
    heads = list(HEAD.finditer(text))
    ends = [*(head.start() for head in heads[1:]), len(text)]
    found: dict[str, dict[str, str]] = {}
    for head, end in zip(heads, ends, strict=False):  # without heads there is one end too many
        block = text[head.end() : end]
        parts = {name: _part(block, name) for name in PARTS}
        question = parts["question"] or head[2].strip()
        if parts["pass"]:
            question += f" Yes, if: {parts['pass']}"
        if parts["fail"]:
            question += f" No, if: {parts['fail']}"
        words = re.sub(r"[^A-Za-z0-9]+", "_", head[2]).strip("_").lower()
        name = words if re.match(r"[a-z]", words) else f"eval_{head[1]}"
        found[name if name not in found else f"{name}_{head[1]}"] = {"ask": question}
    return found


def _part(block: str, name: str) -> str:
    line = re.search(
        rf"^\W*{name}(?:\s+condition)?\W*:\W*(.+(?:\n[ \t]+\S.*)*)", block, re.M | re.I
    )
    return " ".join(line[1].split()).strip("*` ") if line else ""


def _of_blocks(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FormError(f"{path}: cannot be read: {error}") from None
    questions = evals(text)
    if not questions:
        raise FormError(f"{path}: it has no `EVAL 1: ...` block")
    inputs = _inputs(text)
    if not inputs:
        raise FormError(
            f"{path}: no inputs to ask about: list them below a line `Test inputs:`, or name this "
            f"file in a suite, `questions: {path.name}`"
        )
    cases = [{"id": str(n), "request": text} for n, text in enumerate(inputs, start=1)]
    skill = {"kind": "skill", "path": _skill(path)}
    return {"under": skill, "questions": questions, "cases": cases}


def _inputs(text: str) -> list[str]:
    """Read the list below a line `Test inputs:`."""
    found: list[str] = []
    inside = False
    for line in text.splitlines():
        item = re.match(r"\s*(?:[-*]|\d+[.)])\s+(.+)", line)
        if inside and item:
            found.append(item[1].strip("\"'` "))
        elif line.strip():
            inside = re.fullmatch(r"\W*test inputs?\W*", line, re.IGNORECASE) is not None
    return found


# --- written down -----------------------------------------------------------------------------


def as_yaml(path: Path) -> str:
    """Give another tool's file as a suite in YAML.

    Raises:
        FormError: it cannot be read, says what no suite can, or is a suite already.
    """
    import yaml

    value = read(path).value
    if path.suffix not in (".md", ".txt") and _converted(path, form.parse(path).value) is None:
        raise FormError(f"{path}: no evals.json, trigger set, tests.yaml or EVAL blocks")
    head = f"# Made from {path.name}; all paths start from this file's folder.\n"
    return head + yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100)
