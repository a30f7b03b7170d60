"""The corpus of the example: the docstrings of this Python's standard library, and its index.

    python build.py DIRECTORY

One chunk for each documented module, class, function and method with a public name; its id is its
full name, such as `textwrap.dedent`. Modules in Python are parsed and not imported. Those in C
have no source here, so a few of them are looked into.

Writes `chunks.db` (SQLite): `chunks` with what a result shows, `words` as a full-text index of it,
`pieces` with what a piece of a word tells. `vectors.npz`: a vector of each chunk, and what makes
one of a query.
"""

import ast
import importlib
import inspect
import re
import sqlite3
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

try:
    import numpy as np
    import vectors
except ModuleNotFoundError as error:
    sys.exit(
        f"build.py: {sys.executable} has no {error.name}; activate the environment in which swarm "
        "is installed, or install numpy in this one"
    )

SKIPPED = {
    "__pycache__", "idle_test", "idlelib", "lib2to3", "pydoc_data", "site-packages", "test",
    "tests", "turtledemo", "encodings", "ensurepip", "distutils", "tkinter",
}  # fmt: skip
IN_C = ("builtins", "binascii", "datetime", "gc", "itertools", "math", "select", "time", "zlib")
READ = 2000
"""Letters of a docstring that its vector is made of; the rest is details."""


class Chunk(NamedTuple):
    """One docstring, and what it belongs to."""

    id: str
    kind: str
    text: str


# --- chunks -----------------------------------------------------------------------------------


def corpus() -> list[Chunk]:
    """Give all chunks, each id once, in the order of their ids."""
    found: dict[str, Chunk] = {}
    for chunk in (*in_python(), *in_c()):
        found.setdefault(chunk.id, chunk)
    return [found[name] for name in sorted(found)]


def in_python() -> Iterator[Chunk]:
    """Parse the library's source files."""
    top = Path(sysconfig.get_path("stdlib"))
    for path in sorted(top.rglob("*.py")):
        parts = path.relative_to(top).with_suffix("").parts
        if SKIPPED & set(parts) or parts[0].startswith("_"):
            continue
        # What is defined in `pathlib._local` is known as `pathlib`.
        names = [name for name in parts if not name.startswith("_")]
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            continue
        yield from documented(tree, ".".join(names), "module")


def documented(node: ast.Module | ast.ClassDef, name: str, kind: str) -> Iterator[Chunk]:
    """Give a module or class and what is in it, as far as it has docstrings."""
    if text := ast.get_docstring(node):
        yield Chunk(name, kind, text)
    for child in members(node):
        if isinstance(child, ast.ClassDef) and not child.name.startswith("_"):
            yield from documented(child, f"{name}.{child.name}", "class")
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(child)
            if text and not child.name.startswith("_"):
                own = "method" if isinstance(node, ast.ClassDef) else "function"
                yield Chunk(f"{name}.{child.name}", own, text)


def members(node: ast.AST) -> Iterator[ast.AST]:
    """Give what stands in a module or class, also under an `if` or `try`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If | ast.Try | ast.ExceptHandler):
            yield from members(child)
        else:
            yield child


def in_c() -> Iterator[Chunk]:
    """Look into modules that have no source: functions, types, and their methods."""
    for module in map(importlib.import_module, IN_C):
        own = "" if module.__name__ == "builtins" else f"{module.__name__}."
        for name, value in vars(module).items():
            if name.startswith("_") or not (inspect.isclass(value) or inspect.isroutine(value)):
                continue
            if text := inspect.getdoc(value):
                yield Chunk(own + name, "class" if inspect.isclass(value) else "function", text)
            for inner, method in vars(value).items() if inspect.isclass(value) else ():
                if not inner.startswith("_") and (text := inspect.getdoc(method)):
                    yield Chunk(f"{own}{name}.{inner}", "method", text)


def spoken(name: str) -> str:
    """Take a name apart into words: `http.HTTPStatus` is `http HTTP Status`."""
    return " ".join(re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+", name))


# --- the index --------------------------------------------------------------------------------


def write(chunks: list[Chunk], folder: Path) -> None:
    """Write the index of all chunks."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "chunks.db"
    file.unlink(missing_ok=True)
    with sqlite3.connect(file) as db:
        db.execute("CREATE TABLE chunks (number INTEGER PRIMARY KEY, id, kind, text)")
        rows = ((number, *chunk) for number, chunk in enumerate(chunks))
        db.executemany("INSERT INTO chunks VALUES (?, ?, ?, ?)", rows)
        db.execute(
            "CREATE VIRTUAL TABLE words USING fts5 (name, place, text, tokenize='porter unicode61')"
        )
        texts = [(n, *map(spoken, halves(c.id)), c.text) for n, c in enumerate(chunks)]
        db.executemany("INSERT INTO words (rowid, name, place, text) VALUES (?, ?, ?, ?)", texts)
        embedded(chunks, db, folder / "vectors.npz")
    db.close()


def halves(name: str) -> tuple[str, str]:
    """Give a thing's own name, and the place where it is."""
    place, _, own = name.rpartition(".")
    return own, place


def embedded(chunks: list[Chunk], db: sqlite3.Connection, file: Path) -> None:
    """Write the vectors of all chunks, and what makes one of a query."""
    counts = [vectors.pieces(f"{spoken(c.id)} {c.text[:READ]}") for c in chunks]
    weights = vectors.weights(counts)
    rows = np.stack([vectors.hashed(each, lambda p: weights.get(p, 0.0)) for each in counts])
    turn = vectors.learn(rows)
    np.savez(file, chunks=vectors.embed(rows, turn), turn=turn)
    db.execute("CREATE TABLE pieces (piece PRIMARY KEY, weight) WITHOUT ROWID")
    db.executemany("INSERT INTO pieces VALUES (?, ?)", sorted(weights.items()))


def main() -> None:
    """Write the index."""
    chunks = corpus()
    write(chunks, Path(sys.argv[1]))
    print(f"{len(chunks)} chunks")


if __name__ == "__main__":
    main()
