"""The kinds of values a config is made of: durations, counts, percentages, names, commands.

Owns how each is written, what it becomes and what is said when it is wrong. Knows no key.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer
from pydantic_core import PydanticCustomError


def wrong(message: str) -> PydanticCustomError:
    """Give the error for a value; raise it in a validator."""
    return PydanticCustomError("config", "{message}", {"message": message})


def wrong_at(
    found: Sequence[tuple[str | tuple[int | str, ...], str]], suggestion: str | None = None
) -> PydanticCustomError:
    """Give the error for some keys of one section: pairs of key, or path of keys, and message."""
    context = {"found": found, "suggestion": suggestion}
    return PydanticCustomError("config_keys", "some keys are wrong", context)


def show(value: object) -> str:
    """Name a value in a message, in YAML's words."""
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case str():
            return repr(value if len(value) <= 60 else value[:57] + "...")
        case dict():
            return "a mapping"
        case list() | tuple():
            return "a list"
        case _:
            return str(value)[:60]


# --- numbers with a suffix ---------------------------------------------------------------------

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_THOUSANDS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}
_NUMBER = r"[0-9]{1,15}(?:\.[0-9]{1,15})?"

_DURATION = rf"^({_NUMBER}) ?(ms|s|m|h|d)$"
_SIZE = rf"^({_NUMBER}) ?([KMGT]?)(?:i?B)?$"
_COUNT = rf"^({_NUMBER}) ?([kMG])$"
_PERCENT = rf"^({_NUMBER}) ?%$"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _duration(value: Any) -> float:
    seconds = -1.0
    if _is_number(value):
        seconds = float(value)
    elif isinstance(value, str) and (match := re.match(_DURATION, value)):
        seconds = float(match[1]) * _SECONDS[match[2]]
    if not 0 < seconds < float("inf"):
        raise wrong(f"a duration such as 90s, 3m or 4h is wanted, not {show(value)}")
    return seconds


def _whole(value: Any, pattern: str, units: dict[str, int], wanted: str) -> int:
    amount = Decimal(-1)
    if _is_number(value):
        amount = Decimal(str(value))
    elif isinstance(value, str) and (match := re.match(pattern, value)):
        amount = Decimal(match[1]) * units[match[2]]
    if not (1 <= amount <= 10**15) or amount != int(amount):
        raise wrong(f"{wanted} is wanted, not {show(value)}")
    return int(amount)


def _size(value: Any) -> int:
    return _whole(value, _SIZE, _BYTES, "a size such as 512M or 8G")


def _count(value: Any) -> int:
    return _whole(value, _COUNT, _THOUSANDS, "a whole number above 0 such as 100, 10k or 5M")


def _percent(value: Any) -> float:
    if not isinstance(value, str) or not (match := re.match(_PERCENT, value)):
        raise wrong(f"a percentage such as 5% is wanted, not {show(value)}")
    return float(Decimal(match[1]).scaleb(-2))


def _write_percent(value: float) -> str:
    return f"{Decimal(repr(value)).scaleb(2):f}%"


_PositiveNumber = Annotated[float, Field(gt=0)]
_PositiveInt = Annotated[int, Field(ge=1)]

Duration = Annotated[
    float,
    BeforeValidator(
        _duration,
        json_schema_input_type=_PositiveNumber | Annotated[str, Field(pattern=_DURATION)],
    ),
]
"""Seconds; written `90s 3m 4h 2d`, or as a plain number of seconds."""

Size = Annotated[
    int,
    BeforeValidator(
        _size, json_schema_input_type=_PositiveInt | Annotated[str, Field(pattern=_SIZE)]
    ),
]
"""Bytes; written `512M 8G` (powers of 1024)."""


def _size_or_auto(value: Any) -> Any:
    return value if value == "auto" else _size(value)


SizeOrAuto = Annotated[
    int | Literal["auto"],
    BeforeValidator(
        _size_or_auto,
        json_schema_input_type=_PositiveInt
        | Literal["auto"]
        | Annotated[str, Field(pattern=_SIZE)],
    ),
]

Count = Annotated[
    int,
    BeforeValidator(
        _count, json_schema_input_type=_PositiveInt | Annotated[str, Field(pattern=_COUNT)]
    ),
]
"""A number of things; written `100 10k 5M` (powers of 1000)."""

Percent = Annotated[
    float,
    BeforeValidator(_percent, json_schema_input_type=Annotated[str, Field(pattern=_PERCENT)]),
    PlainSerializer(_write_percent, return_type=str),
]
"""A share: `5%` is 0.05."""


def _margin(value: Any) -> float | str:
    if _is_number(value) and 0 <= value < float("inf"):
        return float(value)
    if isinstance(value, str) and (match := re.match(_PERCENT, value)):
        return f"{Decimal(match[1]).normalize():f}%"
    raise wrong(f"a number from 0 up or a percentage such as 0.5% is wanted, not {show(value)}")


Margin = Annotated[
    float | str,
    BeforeValidator(
        _margin,
        json_schema_input_type=Annotated[float, Field(ge=0)]
        | Annotated[str, Field(pattern=_PERCENT)],
    ),
]
"""A difference of values: a number, or a percentage of the value it is a difference to."""


def margin(size: float | str, of: float) -> float:
    """Give a `Margin` as a number; a percentage is one of the magnitude of `of`."""
    if not isinstance(size, str):
        return size
    return float(Decimal(size.removesuffix("%")).scaleb(-2)) * abs(of)


# --- plain numbers and text --------------------------------------------------------------------


def _no_nul(value: str) -> str:
    if "\0" in value:
        raise wrong("the character NUL is not allowed")
    return value


# Strict: pydantic would take "3", 3.0 and true for the number 3.
Whole = Annotated[int, Field(strict=True)]
Number = Annotated[float, Field(strict=True)]
Flag = Annotated[bool, Field(strict=True)]
Text = Annotated[str, Field(strict=True), AfterValidator(_no_nul)]


def _whole_or_auto(value: Any) -> Any:
    if value == "auto" or (type(value) is int and value >= 1):
        return value
    raise wrong(f"`auto` or a whole number above 0 is wanted, not {show(value)}")


WholeOrAuto = Annotated[
    int | Literal["auto"],
    BeforeValidator(_whole_or_auto, json_schema_input_type=_PositiveInt | Literal["auto"]),
]


def _whole_or_all(value: Any) -> Any:
    if value == "all" or (type(value) is int and value >= 2):
        return value
    raise wrong(f"`all` or a whole number above 1 is wanted, not {show(value)}")


WholeOrAll = Annotated[
    int | Literal["all"],
    BeforeValidator(
        _whole_or_all, json_schema_input_type=Annotated[int, Field(ge=2)] | Literal["all"]
    ),
]

# --- names -------------------------------------------------------------------------------------

_REF_PART = r"^[a-z0-9][a-z0-9._-]*$"
_METRIC = r"^[^\s=:,]+$"
_ENV_NAME = r"^[A-Za-z_][A-Za-z0-9_]*$"
_ADDRESS = r"^(local|([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5})$"
RESERVED_ENV = ("CUDA_VISIBLE_DEVICES",)


def is_ref_part(name: str) -> bool:
    """Tell whether a name may stand in a branch name (`git check-ref-format`) and as a folder."""
    legal = re.fullmatch(_REF_PART[1:-1], name) is not None and len(name) <= 100
    return legal and ".." not in name and not name.endswith((".", ".lock"))


NAME_RULE = (
    "a name becomes part of a git branch: lower-case letters, digits, `.`, `_` and `-`, "
    "a letter or digit first, no `..`, no `.` or `.lock` last"
)


def _ref_part(name: str) -> str:
    if not is_ref_part(name):
        raise wrong(f"{show(name)} cannot be used: {NAME_RULE}")
    return name


def _target_name(name: str) -> str:
    if name == "best":
        raise wrong("a target cannot be called `best`: that is the name of its best branch")
    return name


def _metric_name(name: str) -> str:
    if not re.fullmatch(_METRIC[1:-1], name):
        raise wrong(f"a metric's name has no blanks, `=`, `:` or `,`: {show(name)}")
    return name


def _env_name(name: str) -> str:
    if not re.fullmatch(_ENV_NAME[1:-1], name):
        raise wrong("an environment variable's name is made of letters, digits and `_`")
    if name.startswith("SWARM_") or name in RESERVED_ENV:
        raise wrong("swarm sets this variable itself")
    return name


def _env_value(value: Any) -> Any:
    # Numbers come as written (`config` reads them verbatim); here remain null, lists, mappings.
    if not isinstance(value, str):
        raise wrong(f'a text is wanted, not {show(value)}; use "" for an empty one')
    return value


def _url(value: str) -> str:
    if not re.fullmatch(r"https?://[^\s/]\S*", value):
        raise wrong(f"an address such as http://localhost:11434 is wanted, not {show(value)}")
    return value


def _address(value: str) -> str:
    if not re.fullmatch(_ADDRESS[1:-1], value) or (
        value != "local" and int(value.rsplit(":", 1)[1]) not in range(1, 65536)
    ):
        raise wrong(f"`local` or `host:port` is wanted, not {show(value)}")
    return value


def _schema_pattern(pattern: str) -> Any:
    return Field(json_schema_extra={"pattern": pattern})


RunName = Annotated[Text, AfterValidator(_ref_part), _schema_pattern(_REF_PART)]
TargetName = Annotated[
    Text, AfterValidator(_ref_part), AfterValidator(_target_name), _schema_pattern(_REF_PART)
]
MetricName = Annotated[Text, AfterValidator(_metric_name), _schema_pattern(_METRIC)]
EnvName = Annotated[Text, AfterValidator(_env_name)]
EnvValue = Annotated[Text, BeforeValidator(_env_value, json_schema_input_type=str | float | bool)]
Url = Annotated[Text, AfterValidator(_url)]
Address = Annotated[Text, AfterValidator(_address), _schema_pattern(_ADDRESS)]

# --- commands, globs, patterns -----------------------------------------------------------------


def _command(value: Any) -> Any:
    if isinstance(value, str) and value.strip():
        return value
    if isinstance(value, list | tuple) and value:
        argv = cast("list[object]", value)
        if all(isinstance(a, str) for a in argv) and argv[0]:
            return tuple(cast("list[str]", argv))
    raise wrong(
        "a command is wanted: a text for the shell, or a list of words"
        f" (argv), not {show(cast('object', value)) if value else 'an empty one'}"
    )


def _commands(value: Any) -> Any:
    if isinstance(value, str):
        return [value]
    if isinstance(value, list | tuple):
        items = cast("list[object]", value)
        for item in items:
            if isinstance(item, str) and item.startswith("-"):
                raise wrong(
                    f"this is a list of commands, and {item!r} is none; write one command as"
                    " a text, or as a list in the list: [[pytest, -q]]"
                )
        return items
    return value


def _globs(value: Any) -> Any:
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list | tuple):
        raise wrong(f"a glob or a list of globs is wanted, not {show(value)}")
    return cast("list[object]", value)


def _not_empty(value: Any) -> Any:
    if not value:
        raise wrong("at least one is needed")
    return value


def some() -> Any:
    """Refuse an empty list. (pydantic's own check also counts the items that are wrong.)"""
    return AfterValidator(_not_empty)


def _glob(value: str) -> str:
    if not value.strip() or any(ord(c) < 32 for c in value):
        raise wrong(f"a path or glob is wanted, not {show(value)}")
    if value.startswith(("/", "~")) or ".." in value.split("/") or "\\" in value:
        raise wrong(f"{show(value)} must lie below `repo`: relative, with `/`, without `..`")
    if value.startswith("!"):
        raise wrong(f"{show(value)}: a scope lists what may change; exclusions do not exist")
    return value


def _one_group(pattern: str) -> str:
    try:
        groups = re.compile(pattern, re.MULTILINE).groups
    except (re.error, OverflowError, RecursionError) as error:
        raise wrong(f"not a regular expression: {error}") from None
    if groups != 1:
        raise wrong(f"must have exactly one group, the number: this has {groups or 'none'}")
    return pattern


_ShellOrArgv = Annotated[str, Field(min_length=1)] | Annotated[list[str], Field(min_length=1)]
Command = Annotated[
    str | tuple[str, ...], BeforeValidator(_command, json_schema_input_type=_ShellOrArgv)
]
"""A string is for `/bin/sh -c`, a tuple is argv."""
Commands = Annotated[
    tuple[Command, ...],
    BeforeValidator(_commands, json_schema_input_type=str | list[_ShellOrArgv]),
]
Glob = Annotated[Text, AfterValidator(_glob)]
Globs = Annotated[
    tuple[Glob, ...],
    some(),
    BeforeValidator(_globs, json_schema_input_type=str | Annotated[list[str], Field(min_length=1)]),
]
Hidden = Annotated[
    tuple[Glob, ...], BeforeValidator(_globs, json_schema_input_type=str | list[str])
]
"""Globs, or none."""
MetricPattern = Annotated[Text, AfterValidator(_one_group)]
