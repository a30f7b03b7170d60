"""The checklist file: what it may say, and everything that can be wrong with it.

Owns the keys, their defaults and the complaints, which come all at once and each with its key.
Starts no process and asks no model.
"""

import ast
import difflib
import glob
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, cast

FEWEST, MOST = 3, 6
"""Fewer questions measure little; more are each too cheap to give up for the others."""


class FormError(Exception):
    """The checklist, or the command line, cannot be used; the message has a line each."""


# --- questions --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Contains:
    """All texts are there; or, for `not_contains`, none is."""

    texts: tuple[str, ...]
    wanted: bool


@dataclass(frozen=True)
class Matches:
    """A regular expression is found somewhere; or, for `not_regex`, nowhere."""

    pattern: str
    wanted: bool


@dataclass(frozen=True)
class Length:
    """The length lies within limits, given as `min_words` and so on."""

    limits: Mapping[str, int]


@dataclass(frozen=True)
class Schema:
    """The output is JSON of this schema."""

    schema: Any


@dataclass(frozen=True)
class Exits:
    """A command ends with status 0."""

    command: str | tuple[str, ...]


@dataclass(frozen=True)
class Calls:
    """A Python function returns something true."""

    file: Path
    function: str


@dataclass(frozen=True)
class Asks:
    """A model says yes."""

    text: str


Check = Contains | Matches | Length | Schema | Exits | Calls | Asks


@dataclass(frozen=True)
class Question:
    """One question, the same for every output."""

    name: str
    check: Check
    expect: bool = True
    """The answer that passes."""
    timeout_s: float = 10.0


# --- the rest of the file ---------------------------------------------------------------------


class Input(NamedTuple):
    """What one output is made from."""

    id: str
    content: bytes
    filename: str


class Prices(NamedTuple):
    """USD for a million tokens."""

    input: float
    output: float
    cache_read: float | None = None
    """None: as `input`."""


@dataclass(frozen=True)
class ModelForm:
    """A model, and the server that has it; the defaults are a judge's."""

    base_url: str | None = None
    key_env: str | None = None
    model: str = "claude-haiku-5-5"
    """A small one, and not the one that proposes: a model is kind to its own texts."""
    temperature: float | None = 0.0
    max_tokens: int = 1024
    """The answer is one word; the rest is room for models that think first."""
    timeout_s: float = 60.0
    retries: int = 5
    usd_per_mtok: Prices | None = None


@dataclass(frozen=True)
class Checklist:
    """A checklist file, read and found good."""

    folder: Path
    """Where relative paths start from, and where commands run."""
    questions: tuple[Question, ...]
    inputs: tuple[Input, ...]
    generate: str | tuple[str, ...]
    timeout_s: float = 60.0
    jobs: int = 4
    repeats: int = 1
    judge: ModelForm = field(default_factory=ModelForm)

    @property
    def asks(self) -> bool:
        """Whether any question is for a model."""
        return any(isinstance(question.check, Asks) for question in self.questions)


MODEL_KEYS = (
    "base_url", "key_env", "model", "temperature", "max_tokens", "timeout", "retries",
    "usd_per_mtok",
)  # fmt: skip
LENGTHS = ("min_words", "max_words", "min_chars", "max_chars")
KINDS = (
    "contains", "not_contains", "regex", "not_regex", *LENGTHS,
    "json_schema", "command", "python", "ask",
)  # fmt: skip


def load(path: Path) -> Checklist:
    """Read a checklist file.

    Raises:
        FormError: all that is wrong with it.
    """
    value, places = parse(path)
    reader = Reader(path, places)
    given = reader.mapping(value, "")
    reader.known(
        given, ("questions", "inputs", "generate", "timeout", "jobs", "repeats", "judge"), ""
    )
    for key in ("questions", "inputs", "generate"):
        if key not in given:
            reader.wrong(key, "this key is required")
    checklist = Checklist(
        folder=reader.folder,
        questions=reader.questions(given.get("questions")),
        inputs=reader.inputs(given.get("inputs")),
        generate=reader.command(given.get("generate"), "generate"),
        timeout_s=reader.seconds(given, "timeout", "", Checklist.timeout_s),
        jobs=reader.whole(given, "jobs", "", Checklist.jobs),
        repeats=reader.whole(given, "repeats", "", Checklist.repeats),
        judge=reader.judge(given.get("judge")),
    )
    if reader.problems:
        raise FormError("\n".join(reader.problems))
    return checklist


class Parsed(NamedTuple):
    """What a file says, and where it says it."""

    value: Any
    places: Mapping[str, int]
    """The line of each key, written as in a complaint: `questions.short`, `inputs.1.file`."""


def parse(path: Path) -> Parsed:
    """Read a YAML or JSON file.

    Raises:
        FormError: there is none, or it is neither.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FormError(f"{path}: cannot be read: {error}") from None
    if path.suffix == ".json":
        try:
            return Parsed(json.loads(text), _places_in_json(text))
        except ValueError as error:
            raise FormError(f"{path}: not JSON: {error}") from None
    try:
        import yaml
    except ImportError:
        remedy = "pip install PyYAML, or write it as a .json file"
        raise FormError(f"{path}: this Python has no PyYAML; {remedy}") from None

    class Loader(yaml.SafeLoader):
        """YAML in which a key that is given twice is a mistake, and not a lost question."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            seen: set[str] = set()
            for key, _ in node.value:
                name = str(key.value)
                if name in seen:
                    place = key.start_mark
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {name!r} is given twice", place
                    )
                seen.add(name)
            return super().construct_mapping(node, deep)

    loader: Any = Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return Parsed(None, {})
        return Parsed(loader.construct_document(node), _places(node))
    except yaml.MarkedYAMLError as error:
        place = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        # The mistake that everybody makes once, in a file of questions.
        hint = "; put a text that ends in `?` in quotes" if "?" in (error.problem or "") else ""
        raise FormError(f"{path}{place}: not YAML: {error.problem}{hint}") from None
    except yaml.YAMLError as error:
        raise FormError(f"{path}: not YAML: {' '.join(str(error).split())}") from None


def _places_in_json(text: str) -> dict[str, int]:
    """Find the lines of JSON, which is YAML too, but for tabs at a line's beginning."""
    try:
        import yaml

        return _places(yaml.compose(text.replace("\t", " "), yaml.SafeLoader))  # pyright: ignore[reportUnknownMemberType]
    except Exception:  # no PyYAML, or something that is not quite YAML: no lines, then
        return {}


def _places(node: Any, at: str = "", inside: tuple[Any, ...] = ()) -> dict[str, int]:
    entries: object = node.value
    if node in inside or not isinstance(entries, list):  # an alias may lead in a circle
        return {}
    found: dict[str, int] = {}
    for n, entry in enumerate(cast("list[Any]", entries), start=1):
        pair = cast("tuple[Any, Any]", entry) if isinstance(entry, tuple) else (None, entry)
        key, below = pair
        name = key_at(at, str(n) if key is None else str(key.value))
        found[name] = (key or below).start_mark.line + 1
        found |= _places(below, name, (*inside, node))
    return found


class Reader:
    """Turns parsed YAML into the nouns above and gathers what is wrong."""

    def __init__(self, path: Path, places: Mapping[str, int] | None = None) -> None:
        self.path, self.folder = path, path.absolute().parent
        self.places = places or {}
        self.problems: list[str] = []

    def wrong(self, key: str, message: str) -> None:
        where = self.where(key)
        self.problems.append(f"{where}: {key}: {message}" if key else f"{where}: {message}")

    def where(self, key: str) -> str:
        """Give the file, and the line of a key or of what it stands in."""
        while key and key not in self.places:
            key = key.rpartition(".")[0]
        return f"{self.path}:{self.places[key]}" if key else str(self.path)

    # --- plain values -------------------------------------------------------------------------

    def mapping(self, value: Any, key: str) -> dict[str, Any]:
        if isinstance(value, dict):
            given = cast("dict[Any, Any]", value)
            for name in given:
                if not isinstance(name, str):
                    self.wrong(key, f"the key {name!r} is not a text; put it in quotes")
            return {name: v for name, v in given.items() if isinstance(name, str)}
        self.wrong(key, f"a mapping (`key: value`) is wanted, not {shown(value)}")
        return {}

    def known(self, given: Iterable[str], keys: tuple[str, ...], at: str) -> None:
        for name in given:
            if name not in keys:
                near = difflib.get_close_matches(name, keys, 1)
                hint = f"did you mean `{near[0]}`?" if near else f"known are {', '.join(keys)}"
                self.wrong(key_at(at, name), f"unknown key; {hint}")

    def text(self, value: Any, key: str) -> str:
        if isinstance(value, str) and value.strip():
            return value
        self.wrong(key, f"a text is wanted, not {shown(value)}")
        return ""

    def whole(
        self, given: Mapping[str, Any], name: str, at: str, default: int, least: int = 1
    ) -> int:
        value = given.get(name, default)
        if type(value) is int and value >= least:
            return value
        self.wrong(
            key_at(at, name), f"a whole number from {least} up is wanted, not {shown(value)}"
        )
        return default

    def number(self, value: Any, key: str) -> float:
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e9:
            return float(value)
        self.wrong(key, f"a number from 0 up is wanted, not {shown(value)}")
        return 0.0

    def seconds(self, given: Mapping[str, Any], name: str, at: str, default: float) -> float:
        value = given.get(name, default)
        found = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|h)?", str(value))
        if found and not isinstance(value, bool) and float(found[1]) > 0:
            return float(found[1]) * {"s": 1, "m": 60, "h": 3600, None: 1}[found[2]]
        self.wrong(key_at(at, name), f"seconds, or a text such as 90s or 2m, not {shown(value)}")
        return default

    def command(self, value: Any, key: str) -> str | tuple[str, ...]:
        if isinstance(value, list):
            words = cast("list[Any]", value)
            if words and all(isinstance(word, str) for word in words):
                return tuple(cast("list[str]", words))
        elif isinstance(value, str) and value.strip():
            return value
        if value is not None or key != "generate":
            self.wrong(key, f"a text for the shell or a list of texts, not {shown(value)}")
        return ()

    def texts(self, value: Any, key: str) -> tuple[str, ...]:
        listed = cast("list[Any]", value) if isinstance(value, list) else [value]
        if not listed:
            self.wrong(key, "an empty list: every output would pass")
        return tuple(self.text(item, key) for item in listed)

    # --- questions ----------------------------------------------------------------------------

    def questions(self, value: Any) -> tuple[Question, ...]:
        if value is None:
            return ()
        given = self.mapping(value, "questions")
        if isinstance(value, dict) and not given:
            self.wrong("questions", f"at least one is needed, better {FEWEST} to {MOST}")
        return tuple(q for name, v in given.items() if (q := self.question(name, v)))

    def question(self, name: str, value: Any) -> Question | None:
        at = f"questions.{name}"
        if not re.fullmatch(r"[A-Za-z_][\w-]*", name):
            self.wrong(at, "a question's name is of letters, digits, `_` and `-`")
        given = self.mapping(value, at)
        self.known(given, (*KINDS, "expect", "timeout"), at)
        kinds = [key for key in given if key in KINDS]
        expect = {"yes": True, "no": False}.get(str(given.get("expect")), given.get("expect", True))
        if not isinstance(expect, bool):
            self.wrong(f"{at}.expect", f"yes or no is wanted, not {shown(expect)}")
        if not kinds:
            if isinstance(value, dict):
                self.wrong(at, f"asks nothing; give one of {', '.join(KINDS)}")
            return None
        if len(kinds) > 1 and not set(kinds) <= set(LENGTHS):
            self.wrong(at, f"one kind is wanted, not {' and '.join(kinds)}; make two questions")
            return None
        check = self.check(kinds, given, at)
        timeout_s = self.seconds(given, "timeout", at, Question.timeout_s)
        return Question(name, check, expect is not False, timeout_s) if check else None

    def check(self, kinds: list[str], given: dict[str, Any], at: str) -> Check | None:
        kind = kinds[0]
        value, key = given[kind], f"{at}.{kind}"
        match kind:
            case "contains" | "not_contains":
                return Contains(self.texts(value, key), kind == "contains")
            case "regex" | "not_regex":
                return self.matches(value, key, kind == "regex")
            case "json_schema":
                return self.schema(value, key)
            case "command":
                return Exits(self.command(value, key))
            case "python":
                return self.calls(value, key)
            case "ask":
                return Asks(self.text(value, key).strip())
            case _:
                return self.length({name: self.whole(given, name, at, 1) for name in kinds}, at)

    def length(self, limits: dict[str, int], at: str) -> Length:
        for unit in ("words", "chars"):
            low, high = limits.get(f"min_{unit}"), limits.get(f"max_{unit}")
            if low is not None and high is not None and low > high:
                self.wrong(f"{at}.min_{unit}", f"above `max_{unit}` ({high}): nothing could pass")
        return Length(limits)

    def matches(self, value: Any, key: str, wanted: bool) -> Matches:
        pattern = self.text(value, key)
        try:
            re.compile(pattern)
        except re.error as error:
            self.wrong(key, f"not a regular expression: {error}")
        return Matches(pattern, wanted)

    def schema(self, value: Any, key: str) -> Schema:
        if isinstance(value, str):
            try:
                value = json.loads((self.folder / value).read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                self.wrong(key, f"no schema can be read there: {error}")
                return Schema(True)
        try:
            from jsonschema import validators
            from jsonschema.exceptions import SchemaError
        except ImportError:
            self.wrong(key, "this Python has no jsonschema; pip install jsonschema")
            return Schema(True)
        if not isinstance(value, dict):
            self.wrong(key, f"a schema or the path of its file is wanted, not {shown(value)}")
            return Schema(True)
        schema = cast("dict[str, Any]", value)
        default = validators.Draft202012Validator
        try:
            validators.validator_for(schema, default=default).check_schema(schema)  # pyright: ignore[reportUnknownMemberType]
        except SchemaError as error:
            self.wrong(key, f"not a JSON schema: {error.message}")
        return Schema(schema)

    def calls(self, value: Any, key: str) -> Calls | None:
        name, colon, function = self.text(value, key).rpartition(":")
        if not colon or not function.isidentifier() or not name:
            self.wrong(key, f"`file.py:function` is wanted, not {shown(value)}")
            return None
        file = self.folder / name
        try:
            tree = ast.parse(file.read_bytes())
        except (OSError, SyntaxError, ValueError) as error:
            self.wrong(key, f"{name} cannot be read as Python: {error}")
            return None
        defined = [n.name for n in tree.body if isinstance(n, ast.FunctionDef)]
        if function not in defined:
            near = difflib.get_close_matches(function, defined, 1)
            hint = f"; did you mean `{near[0]}`?" if near else ""
            self.wrong(key, f"{name} defines no function `{function}`{hint}")
        return Calls(file, function)

    # --- inputs -------------------------------------------------------------------------------

    def inputs(self, value: Any) -> tuple[Input, ...]:
        if value is None:
            return ()
        if not isinstance(value, list) or not value:
            self.wrong("inputs", f"a list of texts and files is wanted, not {shown(value)}")
            return ()
        listed = enumerate(cast("list[Any]", value), start=1)
        found = [entry for n, item in listed for entry in self.entries(n, item)]
        seen: set[str] = set()
        for entry in found:
            if not entry.id.isprintable() or entry.id != entry.id.strip() or not entry.id:
                self.wrong("inputs", f"the id {entry.id!r} is not a plain text; give another `id`")
            if entry.id in seen:
                self.wrong("inputs", f"two inputs have the id `{entry.id}`; give one another `id`")
            seen.add(entry.id)
        return tuple(found)

    def entries(self, n: int, item: Any) -> list[Input]:
        at = f"inputs.{n}"
        if isinstance(item, str):
            return [Input(str(n), self.text(item, at).encode(), "input.txt")]
        given = self.mapping(item, at)
        self.known(given, ("id", "text", "file"), at)
        name = self.text(given["id"], f"{at}.id") if "id" in given else None
        if ("text" in given) == ("file" in given):
            if isinstance(item, dict):
                self.wrong(at, "give `text` or `file`, one of the two")
            return []
        if "text" in given:
            text = self.text(given["text"], f"{at}.text")
            return [Input(name or str(n), text.encode(), "input.txt")]
        return self.files(self.text(given["file"], f"{at}.file"), name, f"{at}.file")

    def files(self, pattern: str, name: str | None, key: str) -> list[Input]:
        if not pattern:
            return []
        found = sorted(glob.glob(pattern, root_dir=self.folder, recursive=True))
        paths = [path for path in map(self.folder.joinpath, found) if path.is_file()]
        if not paths:
            self.wrong(key, f"no such file: {pattern} (paths start from {self.folder})")
        if name is not None and len(paths) > 1:
            self.wrong(key, f"{len(paths)} files cannot share the id `{name}`; leave `id` out")
        try:
            return [Input(name or path.stem, path.read_bytes(), path.name) for path in paths]
        except OSError as error:
            self.wrong(key, f"cannot be read: {error}")
            return []

    # --- the judge ----------------------------------------------------------------------------

    def judge(self, value: Any) -> ModelForm:
        if value is None:
            return ModelForm()
        given = self.mapping(value, "judge")
        self.known(given, MODEL_KEYS, "judge")
        return self.model(given, "judge", ModelForm())

    def model(self, given: Mapping[str, Any], at: str, default: ModelForm) -> ModelForm:
        """Read the keys of `MODEL_KEYS` from a mapping that may have others."""
        base_url = self.text(given["base_url"], f"{at}.base_url") if "base_url" in given else None
        if base_url and not re.fullmatch(r"https?://[^\s/]\S*", base_url):
            self.wrong(f"{at}.base_url", "an address such as http://localhost:11434 is wanted")
        temperature = given.get("temperature", default.temperature)
        if temperature is not None:
            temperature = self.number(temperature, f"{at}.temperature")
        return ModelForm(
            base_url=base_url,
            key_env=self.text(given["key_env"], f"{at}.key_env") if "key_env" in given else None,
            model=self.text(given.get("model", default.model), f"{at}.model"),
            temperature=temperature,
            max_tokens=self.whole(given, "max_tokens", at, default.max_tokens),
            timeout_s=self.seconds(given, "timeout", at, default.timeout_s),
            retries=self.whole(given, "retries", at, default.retries, least=0),
            usd_per_mtok=self.prices(given.get("usd_per_mtok"), f"{at}.usd_per_mtok"),
        )

    def prices(self, value: Any, at: str) -> Prices | None:
        if value is None:
            return None
        given = self.mapping(value, at)
        self.known(given, ("input", "output", "cache_read"), at)
        read, written = (self.number(given.get(k), f"{at}.{k}") for k in ("input", "output"))
        cached = given.get("cache_read")
        known = None if cached is None else self.number(cached, f"{at}.cache_read")
        return Prices(read, written, known)


def key_at(at: str, name: str) -> str:
    """Give the full name of a key."""
    return f"{at}.{name}" if at else name


def shown(value: Any) -> str:
    """Give a value as a complaint names it."""
    match value:
        case None:
            return "nothing"
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case _:
            return repr(cast("object", value))[:60]
