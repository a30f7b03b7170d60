"""Make the corpus: what Python's own library says of itself, cut into chunks.

    python chunks.py corpus.jsonl

A chunk is one function, class or method: its id (`textwrap.dedent`), its name in words, the first
sentence of its documentation, and what follows, up to 300 characters together. Read from the
sources of the library and from the interpreter's own built-ins, so it differs a little from one
version of Python to the next.
"""

import ast
import builtins
import importlib
import json
import re
import sys
import sysconfig
from pathlib import Path

LEFT_OUT = {
    *("test", "tests", "idlelib", "lib2to3", "site-packages", "__pycache__", "turtledemo"),
    *("encodings", "ensurepip", "pydoc_data", "msilib", "distutils", "venv"),
}
"""Folders of the library that hold tests, tables, or programs."""
COMPILED = (
    *("array", "binascii", "cmath", "errno", "faulthandler", "gc", "itertools", "marshal", "math"),
    *("sys", "time", "unicodedata", "zlib", "select", "_thread", "_weakref", "atexit", "_heapq"),
    *("_bisect", "_operator", "_functools", "_struct", "_random", "_statistics", "_csv"),
)
"""Modules without a source; an underscore in front is not part of their public name."""
SHORTEST, LONGEST = 30, 300
"""Characters of documentation: what is shorter is not worth finding, what is longer is cut."""


def main() -> None:
    """Write the corpus."""
    found = {}
    for name, text in [*from_sources(), *from_interpreter()]:
        if len(text) >= SHORTEST:
            found.setdefault(name, " ".join(text.split())[:LONGEST])
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        for name in sorted(found):
            first, rest = sentence(found[name])
            chunk = {"id": name, "name": words(name), "summary": first, "text": rest}
            file.write(json.dumps(chunk) + "\n")
    print(f"{len(found)} chunks")


def sentence(text):
    """Split after the first sentence, if it is neither too short nor too long to be one."""
    first = re.match(r".{20,200}?[.:](?=\s|$)", text)
    end = first.end() if first else min(len(text), 120)
    return text[:end], text[end:].strip()


def words(name):
    """Give a name in words: `shutil.copyTree` is `shutil copy tree`."""
    split = ""
    for before, letter in zip(" " + name, name, strict=False):
        split += f" {letter}" if letter.isupper() and before.islower() else letter
    return " ".join(split.replace(".", " ").replace("_", " ").lower().split())


def from_sources():
    """Give what the sources of the library document."""
    top = Path(sysconfig.get_path("stdlib"))
    for path in sorted(top.rglob("*.py")):
        parts = path.relative_to(top).with_suffix("").parts
        if LEFT_OUT & set(parts) or any(p.startswith("_") and p != "__init__" for p in parts):
            continue
        try:
            tree = ast.parse(path.read_bytes())
        except SyntaxError:
            continue
        module = ".".join(p for p in parts if p != "__init__")
        yield from documented(tree, module)


def documented(node, name):
    """Give the documented names in a piece of source."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if child.name.startswith("_"):
                continue
            own = f"{name}.{child.name}"
            if text := ast.get_docstring(child):
                yield own, text
            if isinstance(child, ast.ClassDef):
                yield from documented(child, own)


def from_interpreter():
    """Give what has no source: built-in types and functions, and modules in C."""
    for name, value in sorted(vars(builtins).items()):
        if not name.startswith("_") and value.__doc__:
            yield name, value.__doc__
            if isinstance(value, type) and not issubclass(value, BaseException):
                yield from members(value, name)
    for module in COMPILED:
        try:
            found = vars(importlib.import_module(module))
        except ImportError:
            continue
        public = module.lstrip("_")
        for name, value in sorted(found.items()):
            if not name.startswith("_") and callable(value) and isinstance(value.__doc__, str):
                yield f"{public}.{name}", value.__doc__


def members(kind, name):
    """Give the methods of a built-in type."""
    for method, value in sorted(vars(kind).items()):
        if not method.startswith("_") and isinstance(getattr(value, "__doc__", None), str):
            yield f"{name}.{method}", value.__doc__


if __name__ == "__main__":
    main()
