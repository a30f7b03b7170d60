"""Drafts that keep what the base does at the edges: empty, huge, odd, twice, there and back.

What that is has to be asked of the base first: `probe` and `node_probe` give programs that say it,
`edges` and `node_edges` the tests. Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, cast

from swarm.init.drafts import HERE, NODE_HERE, Draft, DraftFile, slug
from swarm.init.python_code import BYTES, LIST, MAPPING, NUMBER, TEXT, UNKNOWN, Function
from swarm.init.survey import GUARDS, Facts, is_private, module_name

MOST_FUNCTIONS = 25
MOST_CASES = 12
"""Of one function."""
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
_ANY = (*_EDGES[TEXT][:3], *_EDGES[NUMBER][:3], *_EDGES[LIST][:4], ("an empty mapping", "{}"))
"""Where it cannot be seen what a function takes."""
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
_SAME = re.compile(
    r"(normali[sz]e|clean|strip|slugify|slug|dedupe|deduplicate|unique|canonical\w*)(_.*)?"
)
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
            if code.has_main or is_private(path):
                continue
            searched = {s.name for s in code.searches}
            for function in code.functions:
                calls = [] if function.name in searched else list(_calls(function))
                if not function.quiet or not calls or functions >= MOST_FUNCTIONS:
                    continue
                functions += 1
                module = module_name(package, path)
                for word, arguments, typed in calls[:MOST_CASES]:
                    name = f"{slug(function.name)}_with_{slug(word)}"
                    given = f"{function.name}({arguments})"
                    found.append(Case(module, function.name, name, arguments, given, typed))
    names = [c.name for c in found]
    return tuple(
        c._replace(name=f"{slug(c.module)}_{c.name}") if names.count(c.name) > 1 else c
        for c in found
    )


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


def probe(found: Iterable[Case]) -> str:
    """Give a program that makes the calls and prints what comes, one JSON line each."""
    rows = ",\n    ".join(
        f"({c.name!r}, {c.module!r}, {c.function!r}, lambda f: f({c.arguments}))" for c in found
    )
    return f"""\
import importlib
import json
{HERE}

from {GUARDS}.running import told

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
"""


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
    found: Iterable[Case],
    first: Mapping[str, tuple[str, ...]],
    again: Mapping[str, tuple[str, ...]],
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
        head = f"{HERE}\n\nfrom {GUARDS}.running import function, told"
        yield DraftFile(
            "edge_cases",
            "Edge cases of public functions: what the base makes of them.",
            head,
            tuple(kept),
        )


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
            if code.has_main or is_private(path):
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
        head = f"{HERE}\n\nfrom {GUARDS}.running import function"
        yield DraftFile("properties", about, head, tuple(drafts))


def _twice(module: str, name: str, kind: str) -> Iterator[Draft]:
    for word, value in _EDGES[kind]:
        test = f"test_{slug(name)}_twice_is_once_with_{slug(word)}"
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
        test = f"test_{slug(back)}_undoes_{slug(there)}_with_{slug(word)}"
        yield Draft(
            test,
            f'def {test}():\n    """{module}.{back} undoes {there}."""\n'
            f"    there, back = function({module!r}, {there!r}), function({module!r}, {back!r})\n"
            f"    found = back(there({value}))\n"
            f"    assert found == {value}, found",
            value,
        )


# --- Node ---------------------------------------------------------------------------------------

_JS_EFFECTS = re.compile(
    r"child_process|\bfs\b|\bfetch\(|process\.(exit|stdin|argv)|https?['\"]|\bnet['\"]|WebSocket"
    r"|createServer|\bprompt\(|\bdocument\b|\bwindow\b"
)
_JS_VALUES = (
    ("an empty text", '""'),
    ("blanks", '"  \\t\\n "'),
    ("a word", '"Some Words"'),
    ("special characters", '"a\\"b\'c\\\\d%e"'),
    ("an emoji", '"\\u00c9t\\u00e9 \\ud83c\\udf89"'),
    ("zero", "0"),
    ("minus one", "-1"),
    ("an empty list", "[]"),
    ("duplicates", "[2, 1, 2]"),
    ("an empty object", "{}"),
    ("null", "null"),
)


def node_modules(facts: Facts, read: Mapping[str, str]) -> tuple[str, ...]:
    """Name the modules whose exports may be called: none that reaches beyond itself."""
    found = [f for f in facts.sources.get("node", ()) if f.endswith((".js", ".mjs", ".cjs"))]
    return tuple(f for f in found if f in read and not _JS_EFFECTS.search(read[f]))[:20]


def node_probe(modules: Iterable[str]) -> str:
    """Give a program that prints what modules export, and what functions make of edge cases."""
    values = ", ".join(f"[{json.dumps(word)}, {value}]" for word, value in _JS_VALUES)
    return f"""\
{NODE_HERE}
const values = [{values}];
for (const path of {json.dumps(list(modules))}) {{
  let module;
  try {{
    module = await load(path);
  }} catch {{
    continue;
  }}
  const inner = typeof module.default === "object" ? module.default : {{}};
  const all = {{ ...inner, ...module }};
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
        test = f"test_{slug(path)}_{slug(name)}_with_{slug(word)}"
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
        yield DraftFile("edge_cases", about, NODE_HERE, tuple(drafts), "node")
