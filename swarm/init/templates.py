"""Guard tests drafted from templates: what the search for a goal is likely to break.

Speed breaks edge cases, accuracy invites leakage, size loses what is needed at run time, and a
search trips over what people type. Pure: facts in, `DraftFile`s out. Tests that keep what the base
does now need to know what that is: `probe` gives a program that says it, `edges` the tests.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, cast

from swarm.init.drafts import Draft, DraftFile
from swarm.init.python_code import (
    BYTES,
    LIST,
    MAPPING,
    NUMBER,
    TEXT,
    UNKNOWN,
    Class,
    Code,
    Function,
    Parameter,
)
from swarm.init.survey import GUARDS, Facts, Package, Split, module_name

MOST_FUNCTIONS = 25
MOST_CASES = 12
"""Of one function."""
LONGEST = 300
"""Characters of an answer that a test compares."""

SPECIAL = (
    ("a double quote", '"'),
    ("an unbalanced quote", '"unbalanced'),
    ("a single quote", "o'clock"),
    ("C++", "C++"),
    ("C#", "C#"),
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

_HERE = f"""\
import sys
from pathlib import Path

TOP = next(p for p in Path(__file__).resolve().parents if p.name == "{GUARDS}").parent
sys.path[:0] = [str(TOP / "src"), str(TOP)]"""


def _slug(text: str) -> str:
    return re.sub(r"\W+", "_", text).strip("_").lower() or "it"


# --- searches -----------------------------------------------------------------------------------


def searches(facts: Facts) -> Iterator[DraftFile]:
    """Draft tests that special characters in a query do not raise, for each search function."""
    for package in facts.packages:
        for path, code in package.modules.items():
            for function in code.searches:
                yield _search_file(module_name(package, path), code, function, facts.tables)


def _search_file(
    module: str, code: Code, function: Function, tables: tuple[str, ...]
) -> DraftFile:
    call = ".".join(part for part in (module, function.owner, function.name) if part)
    about = f"Special characters in a query of {call} must not raise"
    sql = "\n".join(f"    {statement!r}," for statement in tables)
    owner = next((c for c in code.classes if c.name == function.owner), None)
    head = f'''\
import sqlite3
import tempfile
{_HERE}
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


def search(query):
    """Ask {call} with made-up values for all else. Correct them where they do not fit."""
    import {module} as module

{_calling(code, owner, function)}
    return list(found) if hasattr(found, "__next__") else found


def plain():
    """Ask for a plain word: where even that fails the tests are wrong, and no bug is found."""
    try:
        search({PLAIN!r})
    except Exception as error:
        raise ImportError(f"a plain word cannot be asked: {{type(error).__name__}}: {{error}}")'''
    drafts = [
        Draft(
            f"test_{_slug(function.name)}_with_{_slug(name)}",
            f"def test_{_slug(function.name)}_with_{_slug(name)}():\n"
            f'    """{about}."""\n'
            f"    plain()\n"
            f"    answer({query!r})",
            repr(query),
        )
        for name, query in SPECIAL
    ]
    head += '''


def answer(query):
    try:
        search(query)
    except ValueError as refused:
        if not str(refused):
            raise'''
    name = f"special_characters_{_slug(call)}"
    return DraftFile(name, f"{about}.", head, tuple(drafts))


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
    known = all(p.kind or _DATABASE.fullmatch(p.name) or _FOLDER.fullmatch(p.name) or p.name in
                ("docs", "documents", "rows", "entries") for p in function.parameters)
    return wanted in about and known and (bool(named & about) or len(named) == 1)


_ORDINARY = {TEXT: repr(PLAIN), NUMBER: "3", LIST: "[]", MAPPING: "{}", BYTES: "b'word'"}


# --- edge cases ---------------------------------------------------------------------------------

_LONG = "'ab ' * 4000"
_EDGES: Mapping[str, tuple[tuple[str, str], ...]] = {
    TEXT: (
        ("an empty text", "''"),
        ("blanks", "'  \\t\\n '"),
        ("one letter", "'a'"),
        ("a long text", _LONG),
        ("accents and an emoji", "'\\xc9t\\xe9 \\U0001f389'"),
        ("special characters", "'a\"b\\'c\\\\d%e'"),
        ("a line end", "'one\\ntwo'"),
    ),
    NUMBER: (
        ("zero", "0"),
        ("one", "1"),
        ("minus one", "-1"),
        ("a large number", "1000"),
        ("a fraction", "0.5"),
    ),
    LIST: (
        ("an empty list", "[]"),
        ("one element", "[1]"),
        ("duplicates", "[2, 1, 2, 1]"),
        ("negative numbers", "[0, -1, 5]"),
        ("texts", "['b', '', 'a']"),
        ("a long list", "list(range(500, 0, -1))"),
    ),
    MAPPING: (("an empty mapping", "{}"), ("one pair", "{'a': 1}")),
    BYTES: (("no bytes", "b''"), ("every byte", "bytes(range(256))")),
}
_ANY = (
    *_EDGES[TEXT][:3],
    _EDGES[TEXT][4],
    *_EDGES[NUMBER][:3],
    *_EDGES[LIST][:4],
    ("an empty mapping", "{}"),
)
_USUAL = {
    TEXT: "'some plain words'",
    NUMBER: "3",
    LIST: "[3, 1, 2]",
    MAPPING: "{'a': 1, 'b': 2}",
    BYTES: "b'some plain words'",
}
_ABSENT = ("None", "None")
INSIDE = (
    *("IndexError", "ZeroDivisionError", "UnboundLocalError", "RecursionError", "AttributeError"),
    *("NameError", "OperationalError", "UnicodeEncodeError", "UnicodeDecodeError"),
)
"""Errors that come from the inside of a function and tell its caller nothing."""
_SAME = re.compile(r"(normali[sz]e|clean|strip|slugify|slug|dedupe|deduplicate|unique|canonical\w*)(_.*)?")
_PAIRS = (
    *(("encode", "decode"), ("dumps", "loads"), ("compress", "decompress"), ("pack", "unpack")),
    *(("serialize", "deserialize"), ("escape", "unescape"), ("quote", "unquote")),
    *(("encrypt", "decrypt"), ("flatten", "unflatten")),
)


class Case(NamedTuple):
    """One call of one function."""

    module: str
    function: str
    name: str
    """Of the test, without `test_`."""
    arguments: str
    given: str
    typed: bool
    """Whether the function says that it takes such values."""


def cases(facts: Facts) -> tuple[Case, ...]:
    """Give the calls by which edge cases of public functions are tried."""
    found: list[Case] = []
    functions = 0
    for package in facts.packages:
        for path, code in package.modules.items():
            if code.has_main or basename_is_private(path):
                continue
            searched = {s.name for s in code.searches}
            for function in code.functions:
                calls = [] if function.name in searched else list(_calls(function))
                if not function.quiet or not calls or functions >= MOST_FUNCTIONS:
                    continue
                functions += 1
                module = module_name(package, path)
                for word, arguments, typed in calls[:MOST_CASES]:
                    name = f"{_slug(function.name)}_with_{_slug(word)}"
                    given = f"{function.name}({arguments})"
                    found.append(Case(module, function.name, name, arguments, given, typed))
    names = [c.name for c in found]
    return tuple(
        c._replace(name=f"{_slug(c.module)}_{c.name}") if names.count(c.name) > 1 else c
        for c in found
    )


def basename_is_private(path: str) -> bool:
    """Tell whether a module is for its package alone."""
    name = path.rpartition("/")[2]
    return name.startswith("_") and name != "__init__.py"


def _calls(function: Function) -> Iterator[tuple[str, str, bool]]:
    parameters = function.parameters
    if not parameters:
        return
    if len(parameters) == 1:
        kind = parameters[0].kind
        for word, value in (*_EDGES.get(kind, _ANY), _ABSENT):
            yield word, value, kind != UNKNOWN and word != "None"
        return
    if any(p.kind == UNKNOWN for p in parameters) or len(parameters) > 4:
        return
    usual = [_USUAL[p.kind] for p in parameters]
    yield "usual values", ", ".join(usual), True
    for i, parameter in enumerate(parameters):
        for word, value in _EDGES[parameter.kind]:
            given = [*usual[:i], value, *usual[i + 1 :]]
            yield f"{word} as {parameter.name}", ", ".join(given), True


_TELL = f'''\
def told(call):
    """Say what a call gives, so that two runs and two machines say the same."""
    try:
        value = call()
    except Exception as error:
        return ["raises", type(error).__name__, str(error)[:200]]
    if hasattr(value, "__next__"):
        value = list(value)
    return ["gives", spelled(value)]


def spelled(value):
    if isinstance(value, float):
        return format(value, ".9g")
    if isinstance(value, dict):
        pairs = (spelled(k) + ": " + spelled(v) for k, v in value.items())
        return "{{" + ", ".join(pairs) + "}}"
    if isinstance(value, (set, frozenset)):
        return type(value).__name__ + "(" + ", ".join(sorted(map(spelled, value))) + ")"
    if isinstance(value, (list, tuple)):
        return type(value).__name__ + "(" + ", ".join(map(spelled, value)) + ")"
    text = repr(value)
    if " at 0x" in text:
        return "a " + type(value).__name__
    if len(text) > {LONGEST}:
        import hashlib

        return text[:20] + "... " + hashlib.sha256(text.encode(errors="replace")).hexdigest()[:16]
    return text
'''


def probe(found: Iterable[Case]) -> str:
    """Give a program that makes the calls and prints what comes, one JSON line each."""
    rows = ",\n    ".join(
        f"({c.name!r}, {c.module!r}, {c.function!r}, lambda f: f({c.arguments}))" for c in found
    )
    return f'''\
import importlib
import json
{_HERE}


{_TELL}

CALLS = [
    {rows},
]
for name, module, function, call in CALLS:
    try:
        found = getattr(importlib.import_module(module), function)
    except BaseException:
        continue
    said = told(lambda: call(found))
    print("\\n" + json.dumps({{"case": name, "said": said}}), flush=True)
'''


def told(log: str) -> dict[str, tuple[str, ...]]:
    """Read what the program has printed."""
    found: dict[str, tuple[str, ...]] = {}
    for line in log.splitlines():
        try:
            said: object = json.loads(line) if line.startswith('{"case"') else None
        except ValueError:
            continue
        if isinstance(said, dict):
            row = cast("dict[str, Any]", said)
            found[str(row["case"])] = tuple(map(str, row["said"]))
    return found


def edges(
    found: Iterable[Case], first: Mapping[str, tuple[str, ...]], again: Mapping[str, tuple[str, ...]]
) -> Iterator[DraftFile]:
    """Draft tests that keep what two runs of the base agree on."""
    kept: list[Draft] = []
    modules: dict[str, None] = {}
    for case in found:
        said = first.get(case.name)
        if said is None or said != again.get(case.name):
            continue
        modules[case.module] = None
        kept.append(_edge(case, said))
    if kept:
        head = f"import importlib\n{_HERE}\n\n\n{_TELL}\n\n{_CALLED}"
        yield DraftFile(
            "edge_cases", "Edge cases of public functions: what the base makes of them.", head,
            tuple(kept),
        )


_CALLED = '''\
def function(module, name):
    return getattr(importlib.import_module(module), name)'''


def _edge(case: Case, said: tuple[str, ...]) -> Draft:
    begin = f"def test_{case.name}():\n"
    get = f"    call = function({case.module!r}, {case.function!r})\n"
    ask = f"    said = told(lambda: call({case.arguments}))\n"
    if said[0] == "gives":
        return Draft(
            f"test_{case.name}",
            f"{begin}{get}{ask}    assert said == ['gives', {said[1]!r}], said",
            case.given,
        )
    if case.typed and said[1] in INSIDE:
        about = f"{case.module}.{case.function} answers edge cases, or refuses them in words"
        return Draft(
            f"test_{case.name}",
            f'{begin}    """{about}."""\n{get}    call({case.arguments})',
            case.given,
        )
    # Which error it is may change, that it is one may not.
    return Draft(
        f"test_{case.name}", f"{begin}{get}{ask}    assert said[0] == 'raises', said", case.given
    )


def properties(facts: Facts) -> Iterator[DraftFile]:
    """Draft tests of what must hold by the names of functions: twice is once, there and back."""
    drafts: list[Draft] = []
    for package in facts.packages:
        for path, code in package.modules.items():
            if code.has_main or basename_is_private(path):
                continue
            module = module_name(package, path)
            quiet = {f.name: f for f in code.functions if f.quiet and len(f.parameters) == 1}
            for name, function in quiet.items():
                kind = function.parameters[0].kind
                if _SAME.fullmatch(name) and kind in (TEXT, LIST):
                    drafts += _twice(module, name, kind)
            for there, back in _PAIRS:
                for name in quiet:
                    other = re.sub(rf"(^|_){there}($|_)", rf"\g<1>{back}\g<2>", name)
                    if other != name and other in quiet:
                        kind = quiet[name].parameters[0].kind
                        drafts += _there_and_back(module, name, other, kind or TEXT)
    if drafts:
        about = "Properties that the names of functions promise."
        yield DraftFile("properties", about, f"import importlib\n{_HERE}\n\n\n{_CALLED}", tuple(drafts))


def _twice(module: str, name: str, kind: str) -> Iterator[Draft]:
    for word, value in _EDGES[kind]:
        test = f"test_{_slug(name)}_twice_is_once_with_{_slug(word)}"
        yield Draft(
            test,
            f'def {test}():\n    """{module}.{name} applied twice is the same as once."""\n'
            f"    call = function({module!r}, {name!r})\n"
            f"    once = call({value})\n"
            f"    if isinstance(once, type({value})):\n"
            f"        assert call(once) == once, (once, call(once))",
            value,
        )


def _there_and_back(module: str, there: str, back: str, kind: str) -> Iterator[Draft]:
    for word, value in _EDGES[kind]:
        test = f"test_{_slug(back)}_undoes_{_slug(there)}_with_{_slug(word)}"
        yield Draft(
            test,
            f'def {test}():\n    """{module}.{back} undoes {there}."""\n'
            f"    there, back = function({module!r}, {there!r}), function({module!r}, {back!r})\n"
            f"    found = back(there({value}))\n"
            f"    assert found == {value}, found",
            value,
        )


# --- leakage ------------------------------------------------------------------------------------


def leakage(facts: Facts) -> Iterator[DraftFile]:
    """Draft tests that data held out is not trained on."""
    if facts.splits:
        drafts = [d for split in facts.splits for d in _leak(split)]
        about = "Data that is held out is not among the data to train on."
        yield DraftFile("leakage", about, f"{_HERE}\n\n\n{_ROWS}", tuple(drafts))


_ROWS = '''\
def rows(name):
    """Give the rows of a file; the first, a table's head, is no row."""
    lines = (TOP / name).read_text(encoding="utf-8", errors="replace").splitlines()
    head = 1 if name.endswith((".csv", ".tsv")) else 0
    return [" ".join(line.split()) for line in lines[head:] if line.strip()]'''


def _leak(split: Split) -> Iterator[Draft]:
    test = f"test_{_slug(split.held_out)}_is_not_in_{_slug(split.train)}"
    yield Draft(
        test,
        f'def {test}():\n    """No row of {split.held_out} is in {split.train}."""\n'
        f"    train = set(rows({split.train!r}))\n"
        f"    leaked = [row for row in rows({split.held_out!r}) if row in train]\n"
        f"    assert not leaked, f'{{len(leaked)}} rows are in both, such as {{leaked[0][:80]!r}}'",
        split.held_out,
    )
    other = f"test_{_slug(split.held_out)}_has_no_row_twice"
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
        yield DraftFile("runtime", about, f"import importlib\n{_HERE}", tuple(drafts))


def _importable(package: Package) -> Iterator[Draft]:
    for path, code in package.modules.items():
        if code.has_main or basename_is_private(path):
            continue
        module = module_name(package, path)
        test = f"test_{_slug(module)}_offers_what_it_did"
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
    """Draft tests of a SKILL.md: its front matter, its headings, its commands, what it refers to."""
    headings = re.findall(r"^#{1,3} +(.+?) *$", _prose(text), re.M)
    code = [line.strip() for line in _blocks(text) if line.strip() and not line.strip().startswith("#")]
    links = [
        link
        for link in re.findall(r"\]\(([^)#\s]+)", text)
        if not re.match(r"[a-z]+:|/", link)
    ]
    folder = path.rpartition("/")[0]
    head = f"import re\n{_HERE}\nSKILL = TOP / {path!r}\n\n\ndef text():\n    return SKILL.read_text(encoding='utf-8')"
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
            f"test_the_link_to_{_slug(link)}_leads_somewhere",
            f"def test_the_link_to_{_slug(link)}_leads_somewhere():\n"
            f'    """What {path} refers to is there."""\n'
            f"    if {link!r} in text():\n"
            f"        assert (TOP / {folder!r} / {link!r}).exists(), 'there is no {link}'",
            link,
        )
        for link in dict.fromkeys(links)
    ]
    about = f"What must stay true of {path}, however short it becomes."
    return DraftFile(f"skill_{_slug(folder or 'top')}", about, head, tuple(drafts))


def _kept(what: str, found: list[str]) -> Iterator[Draft]:
    for number, line in enumerate(dict.fromkeys(found), start=1):
        test = f"test_{_slug(what)}_{number}_is_kept"
        yield Draft(
            test,
            f'def {test}():\n    """Every {what} is kept."""\n    assert {line!r} in text(), {line!r}',
            line,
        )


def _prose(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)


def _blocks(text: str) -> list[str]:
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S)
    return [line for block in blocks for line in block.splitlines()]


# --- Node ---------------------------------------------------------------------------------------

_JS_EFFECTS = re.compile(
    r"child_process|\bfs\b|\bfetch\(|process\.(exit|stdin|argv)|https?['\"]|\bnet['\"]|WebSocket"
    r"|createServer|\bprompt\(|\bdocument\b|\bwindow\b"
)
_JS_VALUES = (
    ("an empty text", '""'),
    ("blanks", '"  \\t\\n "'),
    ("a word", '"Some Words"'),
    ("special characters", "\"a\\\"b'c\\\\d%e\""),
    ("an emoji", '"\\u00c9t\\u00e9 \\ud83c\\udf89"'),
    ("zero", "0"),
    ("minus one", "-1"),
    ("an empty list", "[]"),
    ("duplicates", "[2, 1, 2]"),
    ("an empty object", "{}"),
    ("null", "null"),
)
_JS_TOLD = f"""\
const top = new URL(import.meta.url.replace(/{GUARDS}\\/.*$/, ""));
const load = (path) => import(new URL(path, top));
const spelled = (value) => {{
  if (typeof value === "function") return "a function";
  if (typeof value === "bigint" || typeof value === "symbol") return String(value);
  if (typeof value === "number") return Number.isInteger(value) ? `${{value}}` : value.toPrecision(9);
  const text = JSON.stringify(value);
  return text === undefined ? "undefined" : text.length > {LONGEST} ? `${{text.slice(0, {LONGEST})}}...` : text;
}};
const told = async (call) => {{
  try {{
    return `gives ${{spelled(await call())}}`;
  }} catch (error) {{
    return "raises";
  }}
}};
"""


def node_modules(facts: Facts, read: Mapping[str, str]) -> tuple[str, ...]:
    """Name the modules whose exports may be called: none that reaches beyond itself."""
    found = [f for f in facts.sources.get("node", ()) if f.endswith((".js", ".mjs", ".cjs"))]
    return tuple(f for f in found if f in read and not _JS_EFFECTS.search(read[f]))[:20]


def node_probe(modules: Iterable[str]) -> str:
    """Give a program that prints what modules export, and what functions make of edge cases."""
    values = ", ".join(f"[{json.dumps(word)}, {value}]" for word, value in _JS_VALUES)
    return f"""\
{_JS_TOLD}
const values = [{values}];
for (const path of {json.dumps(list(modules))}) {{
  let module;
  try {{
    module = await load(path);
  }} catch {{
    continue;
  }}
  const all = {{ ...(module.default && typeof module.default === "object" ? module.default : {{}}), ...module }};
  for (const [name, found] of Object.entries(all)) {{
    if (name === "default" || name === "module.exports" || typeof found !== "function") continue;
    if (/^class\\b/.test(Function.prototype.toString.call(found)) || found.length > 1) continue;
    for (const [word, value] of values) {{
      const said = await told(() => found(structuredClone(value)));
      console.log("\\n" + JSON.stringify({{ case: [path, name, word].join("\\t"), said: [said] }}));
    }}
  }}
}}
process.exit(0);
"""


def node_edges(
    first: Mapping[str, tuple[str, ...]], again: Mapping[str, tuple[str, ...]]
) -> Iterator[DraftFile]:
    """Draft tests that keep what two runs of the base agree on, for exported functions."""
    values, drafts = dict(_JS_VALUES), list[Draft]()
    for case, said in first.items():
        if said != again.get(case) or case.count("\t") != 2:
            continue
        path, name, word = case.split("\t")
        test = f"test_{_slug(path)}_{_slug(name)}_with_{_slug(word)}"
        drafts.append(
            Draft(
                test,
                f"tests.{test} = async () => {{\n"
                f"  const module = await load({json.dumps(path)});\n"
                f"  const call = module.{name} ?? module.default.{name};\n"
                f"  const said = await told(() => call({values[word]}));\n"
                f"  if (said !== {json.dumps(said[0])}) throw new Error(said);\n}};",
                f"{name}({values[word]})",
            )
        )
    if drafts:
        about = "Edge cases of exported functions: what the base makes of them."
        yield DraftFile("edge_cases", about, f"{_JS_TOLD}const tests = {{}};", tuple(drafts), "node")
