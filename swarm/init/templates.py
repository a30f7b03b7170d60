"""Guard tests drafted from templates: what the search for a goal is likely to break.

A search trips over what people type, accuracy invites leakage, size loses what is needed at run
time, and a skill its commands. Edge cases, which speed breaks, are in `edges`. Pure: facts in,
`DraftFile`s out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from swarm.init.drafts import HERE, Draft, DraftFile, slug
from swarm.init.python_code import (
    BYTES,
    LIST,
    MAPPING,
    NUMBER,
    TEXT,
    Class,
    Code,
    Function,
    Parameter,
)
from swarm.init.survey import Facts, Package, Split, is_private, module_name

SPECIAL = (
    ("a double quote", '"'),
    ("an unbalanced quote", '"unbalanced'),
    ("a single quote", "o'clock"),
    ("C plus plus", "C++"),
    ("C sharp", "C#"),
    ("a star", "*"),
    ("a leading star", "*word"),
    ("a hyphen", "-"),
    ("a hyphen inside", "well-known"),
    ("the word AND", "AND"),
    ("the words OR NOT", "cats OR NOT"),
    ("the word NEAR", "NEAR("),
    ("a bracket", "("),
    ("a colon", "title:word"),
    ("a caret", "^word"),
    ("a backslash", "\\"),
    ("a percent sign", "100%"),
    ("a dot", "node.js"),
    ("an emoji", "\N{PARTY POPPER}"),
    ("nothing", ""),
)
"""What people type into a search, by name."""
PLAIN = "word"


# --- searches -----------------------------------------------------------------------------------


def searches(facts: Facts) -> Iterator[DraftFile]:
    """Draft tests that special characters in a query do not raise, for each search function."""
    for package in facts.packages:
        for path, code in package.modules.items():
            for function in code.searches:
                yield _search_file(module_name(package, path), code, function, facts.tables)


def _search_file(module: str, code: Code, function: Function, tables: tuple[str, ...]) -> DraftFile:
    call = ".".join(part for part in (module, function.owner, function.name) if part)
    about = f"Special characters in a query of {call} must not raise"
    owner = next((c for c in code.classes if c.name == function.owner), None)
    calling = _calling(code, owner, function)
    needs = "import tempfile\n" if "tempfile." in calling else ""
    if "database()" in calling:
        sql = "\n".join(f"    {statement!r}," for statement in tables)
        needs += "import sqlite3\n"
        making = _DATABASE_MAKING.format(sql=sql)
    else:
        making = ""
    head = f'''\
{needs}{HERE}

{making}
def search(query):
    """Ask {call} with made-up values for all else. Correct them where they do not fit."""
    import {module} as module

{calling}
    return list(found) if hasattr(found, "__next__") else found


def plain():
    """Ask for a plain word: where even that fails the tests are wrong, and no bug is found."""
    try:
        search({PLAIN!r})
    except Exception as error:
        raise ImportError(f"a plain word cannot be asked: {{type(error).__name__}}: {{error}}")'''
    drafts = [
        Draft(
            f"test_{slug(function.name)}_with_{slug(name)}",
            f"def test_{slug(function.name)}_with_{slug(name)}():\n"
            f'    """{about}."""\n'
            f"    plain()\n"
            f"    answer({query!r})",
            repr(query),
        )
        for name, query in SPECIAL
    ]
    head += """


def answer(query):
    try:
        search(query)
    except ValueError as refused:
        if not str(refused):
            raise"""
    name = f"special_characters_{slug(call)}"
    return DraftFile(name, f"{about}.", head, tuple(drafts))


_DATABASE_MAKING = '''
TABLES = [
{sql}
]
"""What the repository's own SQL makes."""


def database():
    connection = sqlite3.connect(":memory:")
    for statement in TABLES:
        try:
            connection.execute(statement)
        except sqlite3.Error:
            pass
    return connection

'''


def _calling(code: Code, owner: Class | None, function: Function) -> str:
    """Give the lines that make what a search needs and call it."""
    values = {p.name: _made(p, code) for p in function.parameters}
    values[function.given] = "query"
    arguments = ", ".join(values.values())
    if owner is None:
        return f"    found = module.{function.name}({arguments})"
    making = ", ".join(_made(p, code) for p in owner.parameters)
    return f"    found = module.{owner.name}({making}).{function.name}({arguments})"


_DATABASE = re.compile(r"(db|conn|connection|con|cursor|cur|database|c)")
_FOLDER = re.compile(r".*(path|file|filename|dir|directory|root)|db_?name")
_BUILDER = re.compile(r"(open|build|make|create|connect|load|init|new)(_.*)?")


def _made(parameter: Parameter, code: Code) -> str:
    """Give an expression for a parameter, by its name and kind."""
    name = parameter.name
    builder = next(
        (f for f in code.functions if _BUILDER.fullmatch(f.name) and _fits(f, name)), None
    )
    if builder is not None:
        made = ", ".join(_made(p, Code()) for p in builder.parameters)
        return f"module.{builder.name}({made})"
    if _DATABASE.fullmatch(name):
        return "database()"
    if _FOLDER.fullmatch(name):
        return '":memory:"' if "db" in name or name == "path" else "tempfile.mkdtemp()"
    return _ORDINARY.get(parameter.kind, "None")


def _fits(function: Function, wanted: str) -> bool:
    """Tell whether a function seems to make what a parameter asks for."""
    about = {"index", "idx", "db", "conn", "connection", "database", "store", "engine", "corpus"}
    named = set(function.name.split("_"))
    known = all(
        p.kind
        or _DATABASE.fullmatch(p.name)
        or _FOLDER.fullmatch(p.name)
        or p.name in ("docs", "documents", "rows", "entries")
        for p in function.parameters
    )
    return wanted in about and known and (bool(named & about) or len(named) == 1)


_ORDINARY = {TEXT: repr(PLAIN), NUMBER: "3", LIST: "[]", MAPPING: "{}", BYTES: "b'word'"}


# --- leakage ------------------------------------------------------------------------------------


def leakage(facts: Facts) -> Iterator[DraftFile]:
    """Draft tests that data held out is not trained on."""
    if facts.splits:
        drafts = [d for split in facts.splits for d in _leak(split)]
        about = "Data that is held out is not among the data to train on."
        yield DraftFile("leakage", about, f"{HERE}\n\n\n{_ROWS}", tuple(drafts))


_ROWS = '''\
def rows(name):
    """Give the rows of a file; the first, a table's head, is no row."""
    lines = (TOP / name).read_text(encoding="utf-8", errors="replace").splitlines()
    head = 1 if name.endswith((".csv", ".tsv")) else 0
    return [" ".join(line.split()) for line in lines[head:] if line.strip()]'''


def _leak(split: Split) -> Iterator[Draft]:
    test = f"test_{slug(split.held_out)}_is_not_in_{slug(split.train)}"
    yield Draft(
        test,
        f'def {test}():\n    """No row of {split.held_out} is in {split.train}."""\n'
        f"    train = set(rows({split.train!r}))\n"
        f"    leaked = [row for row in rows({split.held_out!r}) if row in train]\n"
        f"    assert not leaked, f'{{len(leaked)}} rows are in both, such as {{leaked[0][:80]!r}}'",
        split.held_out,
    )
    other = f"test_{slug(split.held_out)}_has_no_row_twice"
    yield Draft(
        other,
        f'def {other}():\n    """No row of {split.held_out} counts twice."""\n'
        f"    found = rows({split.held_out!r})\n"
        f"    again = len(found) - len(set(found))\n"
        f"    assert not again, f'{{again}} rows are there more than once'",
        split.held_out,
    )


# --- what is needed at run time -----------------------------------------------------------------


def runtime(facts: Facts) -> Iterator[DraftFile]:
    """Draft tests that what others import is still there, and what it needs as well."""
    drafts: list[Draft] = []
    for package in facts.packages[:5]:
        drafts += _importable(package)
    if drafts:
        about = "What others import is there, and what it needs at run time can be imported."
        yield DraftFile("runtime", about, f"import importlib\n{HERE}", tuple(drafts))


def _importable(package: Package) -> Iterator[Draft]:
    for path, code in package.modules.items():
        if code.has_main or is_private(path):
            continue
        module = module_name(package, path)
        test = f"test_{slug(module)}_offers_what_it_did"
        names = sorted(set(code.public))
        yield Draft(
            test,
            f'def {test}():\n    """{module} offers all that it did."""\n'
            f"    found = importlib.import_module({module!r})\n"
            f"    gone = [name for name in {names!r} if not hasattr(found, name)]\n"
            f"    assert not gone, gone",
            module,
        )


# --- skills -------------------------------------------------------------------------------------


def skill(path: str, text: str) -> DraftFile:
    """Draft tests of a SKILL.md: front matter, headings, commands, and what it refers to."""
    headings = re.findall(r"^#{1,3} +(.+?) *$", _prose(text), re.M)
    code = [
        line.strip() for line in _blocks(text) if line.strip() and not line.strip().startswith("#")
    ]
    links = [
        link for link in re.findall(r"\]\(([^)#\s]+)", text) if not re.match(r"[a-z]+:|/", link)
    ]
    folder = path.rpartition("/")[0]
    head = f"import re\n{HERE}\n\n\ndef text():\n    return (TOP / {path!r}).read_text('utf-8')"
    drafts = [
        Draft(
            f"test_front_matter_says_{key}",
            f'def test_front_matter_says_{key}():\n    """The front matter says `{key}`."""\n'
            f"    front = re.match(r'---\\n(.*?)\\n---\\n', text(), re.S)\n"
            f"    assert front and re.search(r'(?m)^{key}: *\\S', front[1]), 'there is none'",
            key,
        )
        for key in ("name", "description")
    ]
    drafts += _kept("heading", headings)
    drafts += _kept("line of code", code[:40])
    drafts += [
        Draft(
            f"test_the_link_to_{slug(link)}_leads_somewhere",
            f"def test_the_link_to_{slug(link)}_leads_somewhere():\n"
            f'    """What {path} refers to is there."""\n'
            f"    if {link!r} in text():\n"
            f"        assert (TOP / {folder!r} / {link!r}).exists(), 'there is no {link}'",
            link,
        )
        for link in dict.fromkeys(links)
    ]
    about = f"What must stay true of {path}, however short it becomes."
    return DraftFile(f"skill_{slug(folder or 'top')}", about, head, tuple(drafts))


def _kept(what: str, found: list[str]) -> Iterator[Draft]:
    for number, line in enumerate(dict.fromkeys(found), start=1):
        test = f"test_{slug(what)}_{number}_is_kept"
        yield Draft(
            test,
            f'def {test}():\n    """Every {what} is kept."""\n'
            f"    assert {line!r} in text(), {line!r}",
            line,
        )


def _prose(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)


def _blocks(text: str) -> list[str]:
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S)
    return [line for block in blocks for line in block.splitlines()]
