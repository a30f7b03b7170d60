"""Sections, the building blocks of a config, and pydantic's complaints about them in our words.

Owns how a section behaves and how each kind of mistake is worded and placed. Knows no key.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, ClassVar, cast, get_args

from pydantic import BaseModel, ConfigDict, ValidationInfo, model_validator
from pydantic_core import ErrorDetails

from swarm.errors import UsageError
from swarm.quantities import show, wrong
from swarm.yaml_marks import Document, Loc


class Section(BaseModel):
    """Base of all parts of a config. A section with nothing in it is one that is not given."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )
    later: ClassVar[tuple[str, ...]] = ()
    """Keys that are planned: refused, but not as if nobody had heard of them."""
    internal: ClassVar[tuple[str, ...]] = ()
    """Fields that are no keys."""

    @model_validator(mode="before")
    @classmethod
    def _nothing_given(cls, data: Any) -> Any:
        return {} if data is None else data

    @classmethod
    def keys(cls) -> list[str]:
        """Give the names of the keys as they are written."""
        fields = cls.model_fields.items()
        return [field.alias or name for name, field in fields if name not in cls.internal]


def resolve(path: str, info: ValidationInfo) -> Path:
    """Make a path absolute; relative ones are relative to the config file.

    Without a folder in the context (a stored config is read back) nothing is touched.
    """
    context = cast("dict[str, Path] | None", info.context)
    base = context["folder"] if context else None
    return Path(path) if base is None else (base / Path(path).expanduser()).resolve()


def is_file(path: Path) -> bool:
    """Tell whether there is such a file; a text too long for a path is none."""
    try:
        return path.is_file()
    except OSError:
        return False


def existing(paths: Any, info: ValidationInfo) -> tuple[str, ...]:
    """Read a path or a list of paths that must be there, made absolute."""
    if not isinstance(paths, str | list | tuple):
        raise wrong(f"a path or a list of paths is wanted, not {show(paths)}")
    listed = [paths] if isinstance(paths, str) else cast("list[Any]", paths)
    found: list[str] = []
    for item in listed:
        if not isinstance(item, str) or not item:
            raise wrong(f"a path is wanted, not {show(item)}")
        path = resolve(item, info)
        if info.context is not None and not path.exists():
            raise wrong(f"no such file or directory: {path}")
        found.append(str(path))
    return tuple(found)


_WORDING = {
    "missing": "this key is required",
    "string_type": "a text is wanted, not {input}; quote it if it is one",
    "string_too_short": "this must not be empty",
    "int_type": "a whole number is wanted, not {input}",
    "float_type": "a number is wanted, not {input}",
    "finite_number": "a finite number is wanted, not {input}",
    "bool_type": "true or false is wanted, not {input}",
    "greater_than": "a number above {gt} is wanted, not {input}",
    "greater_than_equal": "{ge} or more is wanted, not {input}",
    "less_than_equal": "{le} or less is wanted, not {input}",
    "too_short": "this must not be empty",
    "tuple_type": "a list is wanted, not {input}",
    "dict_type": "a mapping of keys is wanted, not {input}",
    "model_type": "a mapping of keys is wanted, not {input}",
    "model_attributes_type": "a mapping of keys is wanted, not {input}",
}


def report(document: Document, root: type[Section], error: ErrorDetails) -> None:
    """Add one of pydantic's errors to the document's problems."""
    loc, section = _locate(root, error["loc"])
    kind, context = error["type"], error.get("ctx", {})
    if kind == "extra_forbidden":
        report_unknown(document, section, loc)
    elif kind == "config_keys":
        found = cast("list[tuple[str | Loc, str]]", context["found"])
        for key, message in found:
            path = (key,) if isinstance(key, str) else key
            document.report((*loc, *path), message, suggestion=context["suggestion"])
    elif kind == "literal_error":
        words = [w.strip("' ") for w in context["expected"].replace(" or ", ",").split(",")]
        message = f"one of {', '.join(words)} is wanted, not {show(error['input'])}"
        document.report(loc, message, suggestion=closest(str(error["input"]), words, 0.5))
    else:
        words = {"msg": error["msg"], "input": show(error["input"]), **context}
        words |= {k: f"{v:g}" for k, v in context.items() if isinstance(v, float)}
        message = _WORDING.get(kind, "{msg}").format_map(words)
        document.report(loc, message, at_key=error["loc"][-1:] == ("[key]",))


def report_unknown(document: Document, section: type[Section], loc: Loc) -> None:
    """Add the problem that `section` has no key like the last of `loc`."""
    key = str(loc[-1])
    if key in section.later:
        document.report(loc, "this key is not supported yet", at_key=True)
    else:
        suggestion = closest(key, section.keys())
        document.report(loc, "unknown key", at_key=True, suggestion=suggestion)


def unknown(what: str, word: str, names: Sequence[str], known: str) -> UsageError:
    """Give the error for a word that is none of these; `known` lists them for people."""
    near = closest(word, names, 0.4)
    meant = f"did you mean `{near}`? " if near else ""
    return UsageError(f"there is no {what} {word!r}", hint=f"{meant}there is {known}")


def closest(word: str, words: Sequence[str], likeness: float = 0.6) -> str | None:
    """Give the word that was probably meant."""
    near = get_close_matches(word, words, 1, likeness)
    return near[0] if near else None


def _locate(root: type[Section], loc: tuple[int | str, ...]) -> tuple[Loc, type[Section]]:
    """Give the path in the file that pydantic means, and the section its last key belongs to."""
    here = [root]
    owner, path = root, list[int | str]()
    for part in loc:
        if len(here) > 1 and isinstance(part, str):  # the tag of a union, not a key
            here = [s for s in here if get_args(s.model_fields["kind"].annotation) == (part,)]
        elif part != "[key]":  # pydantic's mark for an error in the key itself
            path.append(part)
            if isinstance(part, str) and here:
                owner = here[0]
                fields = (f for n, f in owner.model_fields.items() if part in (n, f.alias))
                here = [s for field in fields for s in sections_in(field.annotation)]
    return tuple(path), owner


def sections_in(annotation: Any) -> list[type[Section]]:
    """Give the sections that a field's type is made of."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [s for inner in get_args(annotation) for s in sections_in(inner)]
