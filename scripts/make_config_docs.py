"""Write what is generated from the config's models: docs/config.md and configs/schema.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from swarm.config import RunConfig, schema
from swarm.sections import Section, sections_in

ROOT = Path(__file__).parent.parent

HEAD = """\
# The config

<!-- Written by scripts/make_config_docs.py from the doc lines in swarm/config.py: edit those. -->

A run is described by one YAML file. This is a whole one; everything else has a default:

```yaml
# yaml-language-server: $schema=schema.json
target:
  scope: [train.py]
  run: python train.py
  metric: {name: val_loss, goal: minimize}
```

The first line gives completion in editors; `configs/schema.json` is the schema.

- Durations are written `90s`, `3m`, `4h`, `2d`, or as a number of seconds; counts `100`, `10k`,
  `5M`; percentages `5%`.
- A command is a text for `/bin/sh -c`, or a list of words (argv) that no shell sees.
- `scope` is relative to `repo`; other paths are relative to the config file.
- Words are words: `no`, `off`, `017`, `1:30` and dates are text, only `true` and `false` are not;
  `1e-3` is a number. In `env` and in argv, numbers are taken as they are written: `3.10` stays so.
- Anchors, aliases and `<<` work. A key that is given twice is an error, and so is an unknown one.
- `--set path.to.key=value` overrides a key, with a YAML value and list indices:
  `--set agents.0.count=3 --set 'target.scope=[train.py, data.py]'`.
- Mistakes are reported all at once, as `file:line:column`. What concerns several keys together
  (bounds that are reversed, points without cases) is looked at only when each key alone is right.
"""


SHOWN_AT = {"TargetConfig": "target", "JudgeConfig": "judge"}
"""Sections that stand at several places, and the one where they are shown."""
ONE_OF = ("target", "targets")
"""Keys of which a config has one."""


def main() -> None:
    """Write both files."""
    (ROOT / "configs/schema.json").write_text(schema_text(), encoding="utf-8")
    (ROOT / "docs").mkdir(exist_ok=True)
    (ROOT / "docs/config.md").write_text(page(), encoding="utf-8")


def schema_text() -> str:
    """Give the text of configs/schema.json."""
    return json.dumps(schema(), indent=2) + "\n"


def page() -> str:
    """Give the text of docs/config.md."""
    whole = schema()
    parts = [HEAD, *_section("Top level", whole, whole["$defs"])]
    parts.append("## Not yet\n\nThese keys are planned, and refused until then:\n")
    parts += [f"- {_keys(words)}{where}" for where, words in _later(RunConfig, "")]
    return "\n".join(parts)


def _keys(words: tuple[str, ...]) -> str:
    return ", ".join(f"`{w}`" for w in words)


def _section(title: str, node: dict[str, Any], defs: dict[str, Any]) -> list[str]:
    """Give a section's table, then those of the sections in it."""
    lines = [f"## {title}\n"]
    if "$schema" not in node:
        lines.append(_line(node["description"]) + "\n")
    lines += ["| key | value | default | meaning |", "|---|---|---|---|"]
    below: list[str] = []
    prefix = "" if title == "Top level" else title.strip("`") + "."
    for key, value in node["properties"].items():
        needed = key in node.get("required", ())
        default = "required" if needed else _default(value, defs)
        if title == "Top level" and key in ONE_OF:
            default = "one of the two is required"
        written = _written(value, defs).replace("|", r"\|")
        meaning = _line(value.get("description") or _target(value, defs)["description"])
        lines.append(f"| `{key}` | {written} | {default} | {meaning} |")
        for name, listed in _refs(value):
            dotted = prefix + key + ("[]" if listed else "")
            kind = defs[name]["properties"].get("kind", {}).get("const")
            if dotted != SHOWN_AT.get(name, dotted):
                continue
            heading = f"`{dotted}`" + (f" of kind `{kind}`" if kind else "")
            if kind is None or len(defs[name]["properties"]) > 1:
                below += _section(heading, defs[name], defs)
    return [*lines, "", *below]


def _target(value: dict[str, Any], defs: dict[str, Any]) -> dict[str, Any]:
    """Give the section that is referred to. (pydantic says the same words only once, there.)"""
    return defs[value["$ref"].rsplit("/", 1)[1]]


def _line(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|")


def _default(value: dict[str, Any], defs: dict[str, Any]) -> str:
    default = value.get("default")
    if default is None and "default" in value:
        return "none"
    if default in ("", []):
        return "empty"
    if isinstance(default, dict):
        word = _shorthand(default)
        return f"`{word}`" if word else ""
    if isinstance(default, list) and all(isinstance(item, str) for item in default):
        return f"`[{', '.join(repr(item) for item in default)}]`"
    if isinstance(default, list):
        groups = [f"{{count: {g['count']}, proposer: {g['proposer']['kind']}}}" for g in default]
        return f"`[{', '.join(groups)}]`"
    if isinstance(default, bool):
        default = str(default).lower()
    elif isinstance(default, float):
        default = f"{default:g}"
    return f"`{default}`" if "default" in value else "the file's stem"


def _shorthand(default: dict[str, Any]) -> str | None:
    return default.get("kind") or default.get("mode")


def _refs(value: Any, listed: bool = False) -> list[tuple[str, bool]]:
    """Give the sections that a value may be, each with whether it is one of a list."""
    if isinstance(value, list):
        return [ref for item in value for ref in _refs(item, listed)]
    if not isinstance(value, dict):
        return []
    if "$ref" in value:
        return [(value["$ref"].rsplit("/", 1)[1], listed)]
    inner = _refs(value.get("anyOf"), listed)
    return inner + _refs(value.get("items"), True)


def _written(value: dict[str, Any], defs: dict[str, Any]) -> str:
    """Say in a few words what may be written."""
    if "anyOf" in value:
        parts = [_written(v, defs) for v in value["anyOf"] if v.get("type") != "null"]
        return " or ".join(dict.fromkeys(" or ".join(parts).split(" or ")))
    if "$ref" in value:
        kind = _target(value, defs)["properties"].get("kind", {}).get("const")
        return f"section ({kind})" if kind else "section"
    if "const" in value:
        return f"`{value['const']}`"
    if "enum" in value:
        return " or ".join(f"`{v}`" for v in value["enum"])
    match value.get("type"):
        case "array":
            return f"list of {_written(value['items'], defs)}"
        case "object":
            return "mapping of names to text"
        case "integer" if {"minimum", "maximum"} <= value.keys():
            return f"{value['minimum']} to {value['maximum']}"
        case "integer":
            return f"whole number ≥ {value['minimum']}"
        case "number" if "minimum" in value:
            return f"number ≥ {value['minimum']}"
        case "number" if "exclusiveMinimum" in value:
            return f"number > {value['exclusiveMinimum']}"
        case "string":
            return _UNITS.get(value.get("pattern", "").rsplit(" ?", 1)[-1], "text")
        case other:
            return str(other)


_UNITS = {"(ms|s|m|h|d)$": "duration", "([kMG])$": "count", "%$": "percentage"}


def _later(section: type[Section], path: str) -> list[tuple[str, tuple[str, ...]]]:
    """Give the planned keys of a section and of those in it, with where they belong."""
    own = [(f" in `{path}`" if path else "", section.later)] if section.later else []
    for key, field in section.model_fields.items():
        dotted = f"{path}.{key}" if path else key
        for inner in sections_in(field.annotation):
            own += _later(inner, dotted)
    return own


if __name__ == "__main__":
    main()
