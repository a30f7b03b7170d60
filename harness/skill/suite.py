"""The suite file: what it may say, and everything that can be wrong with it.

Owns the keys, their defaults and the complaints, which come all at once, each with file, line and
key. Texts are questioned as in a checklist, and by its form; what concerns files, tool calls and
scores is a suite's own. Starts no process and asks no model.
"""

import difflib
import glob
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import form
import readers
from form import FormError, ModelForm, Question, Reader

Kind = Literal["skill", "prompt", "harness"]
INPUT = "{{input}}"
"""Where a prompt wants the request."""
REQUEST = "{{request}}"
"""Where a question for the judge wants the request of the case."""
ID_LIMIT = 200
STEPS = 12
"""Each brings four metrics, and swarm records a hundred."""
LABEL = 100
"""Characters of what a check wants that are told with its failure."""


JUDGE = ModelForm(model="claude-sonnet-5-5")
"""Another model than a runner's own default."""


# --- what is under test -----------------------------------------------------------------------


@dataclass(frozen=True)
class Under:
    """What is measured: one text, or files that a program finds for itself."""

    kind: Kind
    text: str = ""
    """Of a skill or a prompt."""
    name: str = ""
    files: Mapping[str, Path] = field(default_factory=dict[str, Path])
    """Copied into every scratch workspace, by their path there."""
    offered: bool = False
    """A skill that is only named, and that the model may open with a call of `Skill`."""

    @property
    def length(self) -> int:
        """Characters of all of it."""
        read = (path.read_bytes().decode("utf-8", "replace") for path in self.files.values())
        return len(self.text) + sum(map(len, read))


class FrontMatter(NamedTuple):
    """The head of a SKILL.md, as far as it is understood."""

    name: str
    description: str


def front_matter(text: str) -> FrontMatter:
    """Read `name` and `description` between the two lines of dashes that a skill begins with."""
    found = re.match(r"---\s*\n(.*?)\n---\s*(?:\n|\Z)", text, re.DOTALL)
    head = found[1] if found else ""

    def value(key: str) -> str:
        line = re.search(rf"^{key}:[ \t]*(.*(?:\n[ \t]+.*)*)", head, re.MULTILINE)
        return " ".join(line[1].split()).lstrip(">|- ").strip("\"'") if line else ""

    return FrontMatter(value("name"), value("description"))


# --- who runs it ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Messages:
    """A model behind the Messages API."""

    model: ModelForm = field(
        default_factory=lambda: ModelForm(temperature=None, max_tokens=4000, timeout_s=300.0)
    )
    max_turns: int = 20
    tools: bool = True


@dataclass(frozen=True)
class Headless:
    """A program that works in the workspace by itself."""

    cli: tuple[str, ...]
    """`claude` alone stands for Claude Code and its options."""
    model: str | None = None
    max_turns: int = 50
    args: tuple[str, ...] = ()


# --- checks -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Says:
    """A question about a text: the last answer, or a file."""

    question: Question
    file: str | None
    with_files: bool = False
    """The answer, and after it all text files that the run has changed."""


@dataclass(frozen=True)
class Exact:
    """The text is this one, blanks at both ends aside."""

    text: str
    file: str | None
    wanted: bool = True


@dataclass(frozen=True)
class Exits:
    """A command ends with status 0 in the workspace that the run left."""

    command: str | tuple[str, ...]
    timeout_s: float


@dataclass(frozen=True)
class SameAs:
    """A file says the same as the reference, whatever its form."""

    reference: Path
    file: str


@dataclass(frozen=True)
class Created:
    """Files are there that were not there before."""

    globs: tuple[str, ...]


@dataclass(frozen=True)
class Unchanged:
    """Files are as they were."""

    globs: tuple[str, ...]


@dataclass(frozen=True)
class Calls:
    """Tools were called so often, all of them together."""

    names: tuple[str, ...]
    least: int
    most: int | None


@dataclass(frozen=True)
class Within:
    """The run used no more than this."""

    limits: Mapping[str, float]


@dataclass(frozen=True)
class Scores:
    """A command prints a number from 0 to 100, and it is high enough."""

    command: str | tuple[str, ...]
    least: float
    timeout_s: float


What = Says | Exact | Exits | SameAs | Created | Unchanged | Calls | Within | Scores


class Check(NamedTuple):
    """Something that must hold for a case to pass."""

    what: What
    label: str
    """How it is told of."""
    where: str
    """File and line."""

    @property
    def of_files(self) -> bool:
        """Whether it looks at what the run left, and at nothing else of it."""
        match self.what:
            case Says(question, file, _):
                return file is not None and not isinstance(question.check, form.Asks)
            case Exact(_, file):
                return file is not None
            case Exits() | SameAs() | Created() | Unchanged():
                return True
            case _:
                return False


@dataclass(frozen=True)
class Case:
    """A request, and what must come of it."""

    id: str
    request: str
    where: str
    workspace: Path | None = None
    files: Mapping[str, Path] = field(default_factory=dict[str, Path])
    """Copied on top of the workspace, by their path there."""
    checks: tuple[Check, ...] = ()
    reference: Path | None = None
    held_out: bool = False
    group: str | None = None

    @property
    def wants_files(self) -> bool:
        """Whether the request can only be met by leaving files."""
        wanted = (c for c in self.checks if not isinstance(c.what, Unchanged))
        return self.reference is not None or any(check.of_files for check in wanted)


@dataclass(frozen=True)
class Suite:
    """A suite file, read and found good."""

    path: Path
    folder: Path
    """Where all its paths start from."""
    under: Under
    runner: Messages | Headless
    questions: tuple[Question, ...]
    cases: tuple[Case, ...]
    cases_at: str
    """File and line of the cases."""
    steps: tuple[str, ...] = ()
    repeats: int = 1
    jobs: int = 4
    timeout_s: float = 300.0
    judge: ModelForm = JUDGE

    @property
    def judged(self) -> bool:
        """Whether anything is asked of the judge."""
        checks = [c.what for case in self.cases for c in case.checks]
        asked = [*self.questions, *(what.question for what in checks if isinstance(what, Says))]
        return any(isinstance(question.check, form.Asks) for question in asked)


# --- reading ----------------------------------------------------------------------------------

TEXT_KINDS = tuple(kind for kind in form.KINDS if kind != "command")
LIMITS = ("tokens", "output_tokens", "tool_calls", "turns", "seconds", "usd")
CHECK_KINDS = (
    *TEXT_KINDS, "exact", "not_exact", "command", "same_as", "created", "unchanged", "calls",
    "not_calls", "within", "score",
)  # fmt: skip
OPTIONS: Mapping[str, tuple[str, ...]] = {
    "command": ("timeout",),
    "same_as": ("file",),
    "created": (),
    "unchanged": (),
    "calls": ("at_least", "at_most"),
    "not_calls": (),
    "within": (),
    "score": ("min", "timeout"),
    "exact": ("file",),
    "not_exact": ("file",),
}
"""What may stand beside a kind; texts have `file`, `expect` and `timeout`."""
COMMAND_S = 60.0


def load(path: Path, *, hidden: bool = False) -> Suite:
    """Read a suite, or a file of another tool's that is one.

    Args:
        path: the file.
        hidden: what answers and checks are may be out of sight here, so none of it is read.

    Raises:
        FormError: all that is wrong with it.
    """
    value, places = readers.read(path)
    reader = _Suites(path, places)
    reader.hidden = hidden
    suite = reader.suite(value)
    if reader.problems:
        raise FormError("\n".join(reader.problems))
    return suite


class _Suites(Reader):
    """Turns parsed YAML into the nouns above and gathers what is wrong."""

    hidden = False
    same_model = False

    def suite(self, value: Any) -> Suite:
        given = self.mapping(value, "")
        keys = (
            "under", "runner", "steps", "repeats", "jobs", "timeout", "judge", "questions", "cases",
        )  # fmt: skip
        self.known(given, keys, "")
        for key in ("under", "cases"):
            if key not in given:
                self.wrong(key, "this key is required")
        runner = self.runner(given.get("runner"))
        questions = self.asked(given.get("questions"))
        suite = Suite(
            path=self.path,
            folder=self.folder,
            under=self.under(given.get("under"), runner) if "under" in given else Under("skill"),
            runner=runner,
            questions=questions,
            cases=self.cases(given.get("cases"), questions) if "cases" in given else (),
            cases_at=self.where("cases"),
            steps=self.steps(given.get("steps")),
            repeats=self.whole(given, "repeats", "", Suite.repeats),
            jobs=self.whole(given, "jobs", "", Suite.jobs),
            timeout_s=self.seconds(given, "timeout", "", Suite.timeout_s),
            judge=self.judged_by(given.get("judge"), runner),
        )
        asker = next((key for key in self.places if key.endswith(".ask")), "judge")
        if suite.judged and not self.same_model:
            tested = runner.model.model if isinstance(runner, Messages) else runner.model
            if tested == suite.judge.model:
                key = "judge.model" if "judge.model" in self.places else asker
                self.wrong(
                    key,
                    f"the judge is {tested!r}, and so is the model whose work it judges; a model "
                    "is kind to its own texts: name another one, or say `same_model: true`",
                )
        return suite

    # --- what is under test -------------------------------------------------------------------

    def under(self, value: Any, runner: Messages | Headless) -> Under:
        at = "under"
        given = self.mapping(value, at)
        self.known(given, ("kind", "path", "files", "root", "offered"), at)
        kind = given.get("kind", "skill")
        if kind not in ("skill", "prompt", "harness"):
            self.wrong("under.kind", f"`skill`, `prompt` or `harness`, not {form.shown(kind)}")
            return Under("skill")
        offered = self.flag(given, "offered", at)
        if offered and kind != "skill":
            self.wrong("under.offered", f"only a skill can be offered, not a {kind}")
        root = self.folder / self.text(given.get("root", "."), "under.root")
        if kind == "harness":
            if isinstance(runner, Messages):
                self.wrong(
                    "under.kind",
                    "a harness is found by a program in its workspace; say "
                    "`runner: {kind: headless, cli: claude}`",
                )
            globs = self.texts(given.get("path"), "under.path")
            if "files" in given:
                self.wrong("under.files", "a harness names all its files in `path`")
            return Under("harness", name="harness", files=self.found(globs, root, "under.path"))
        path = self.folder / self.text(given.get("path"), "under.path")
        text = ""
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            if given.get("path"):
                self.wrong("under.path", f"cannot be read: {error}")
        files = self.texts(given["files"], "under.files") if "files" in given else ()
        name = front_matter(text).name or (
            path.parent.resolve().name if path.stem.lower() == "skill" else path.stem
        )
        if offered and not front_matter(text).description:
            self.wrong("under.offered", f"{path.name} has no `description:` to offer it by")
        found = self.found(files, root, "under.files") if files else {}
        return Under(cast("Kind", kind), text, name, found, offered)

    def found(self, globs: tuple[str, ...], root: Path, key: str) -> dict[str, Path]:
        """Find files by globs, dotfiles too."""
        files: dict[str, Path] = {}
        for pattern in filter(None, globs):
            if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
                self.wrong(key, f"{pattern}: give a path below {root}, or name another `root`")
                continue
            names = glob.glob(pattern, root_dir=root, recursive=True, include_hidden=True)
            own = {name: root / name for name in sorted(names) if (root / name).is_file()}
            if not own:
                self.wrong(key, f"no such file: {pattern} (paths start from {root})")
            files |= own
        return files

    # --- who runs it --------------------------------------------------------------------------

    def runner(self, value: Any) -> Messages | Headless:
        at = "runner"
        given = self.mapping(value, at) if value is not None else {}
        kind = given.get("kind", "messages")
        if kind == "headless":
            self.known(given, ("kind", "cli", "model", "max_turns", "args"), at)
            cli = given.get("cli", "claude")
            words = self.texts(cli, "runner.cli")
            model = self.text(given["model"], "runner.model") if "model" in given else None
            turns = self.whole(given, "max_turns", at, Headless.max_turns)
            args = self.texts(given["args"], "runner.args") if "args" in given else ()
            return Headless(words, model, turns, args)
        if kind != "messages":
            self.wrong("runner.kind", f"`messages` or `headless`, not {form.shown(kind)}")
        self.known(given, ("kind", "tools", "max_turns", *form.MODEL_KEYS), at)
        default = Messages()
        return Messages(
            self.model(given, at, default.model),
            self.whole(given, "max_turns", at, default.max_turns),
            self.flag(given, "tools", at, default=True),
        )

    def judged_by(self, value: Any, runner: Messages | Headless) -> ModelForm:
        given = self.mapping(value, "judge") if value is not None else {}
        self.known(given, (*form.MODEL_KEYS, "same_model"), "judge")
        self.same_model = self.flag(given, "same_model", "judge")
        judge = self.model(given, "judge", JUDGE)
        if judge.base_url is None and isinstance(runner, Messages) and runner.model.base_url:
            # One address serves both, unless the file says otherwise.
            ours = runner.model
            return replace(judge, base_url=ours.base_url, key_env=judge.key_env or ours.key_env)
        return judge

    def steps(self, value: Any) -> tuple[str, ...]:
        if value is None:
            return ()
        names = self.texts(value, "steps")
        for name in names:
            if name and not re.fullmatch(r"[A-Za-z][\w-]*", name):
                self.wrong("steps", f"a step's name is one word, not {name!r}")
            if name.lower() == "other":
                self.wrong("steps", "`other` is what is outside of all steps")
        if len(names) > STEPS:
            self.wrong("steps", f"at most {STEPS}: each has figures of its own")
        if len({name.lower() for name in names}) < len(names):
            self.wrong("steps", "two steps have the same name")
        return tuple(name.lower() for name in names)

    # --- questions ----------------------------------------------------------------------------

    def asked(self, value: Any) -> tuple[Question, ...]:
        """Read the questions of all cases, or the file with EVAL blocks that holds them."""
        if not isinstance(value, str):
            return self.questions(value)
        if self.hidden and not (self.folder / value).exists():
            return ()
        try:
            text = (self.folder / value).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            self.wrong("questions", f"cannot be read: {error}")
            return ()
        found = readers.evals(text)
        if not found:
            self.wrong("questions", f"{value} has no `EVAL 1: ...` block")
        return self.questions(found or None)

    # --- cases --------------------------------------------------------------------------------

    def cases(self, value: Any, questions: tuple[Question, ...]) -> tuple[Case, ...]:
        found = self.listed(value, "cases", held_out=False)
        if not found and not self.problems and not self.hidden:
            self.wrong("cases", "at least one is needed")
        seen: dict[str, str] = {}
        for case in found:
            if not case.checks and not questions and not self.hidden:
                self.problems.append(
                    f"{case.where}: case `{case.id}` asks for nothing; give `checks`, a "
                    "`reference`, or `questions` for all cases"
                )
            ids = [case.id, *(f"{question.name}/{case.id}" for question in questions)]
            for name in ids:
                if name in seen:
                    self.problems.append(
                        f"{case.where}: the id `{name}` is taken by the case at {seen[name]}; "
                        "give one of them another `id`"
                    )
                    break
            seen |= dict.fromkeys(ids, case.where)
        return tuple(found)

    def listed(self, value: Any, at: str, *, held_out: bool) -> list[Case]:
        if isinstance(value, dict) and "file" in value:
            value = [value]
        if not isinstance(value, list):
            self.wrong(at, f"a list of cases, or `{{file: cases/*.yaml}}`, not {form.shown(value)}")
            return []
        cases: list[Case] = []
        for n, item in enumerate(cast("list[Any]", value), start=1):
            key = form.key_at(at, str(n))
            if isinstance(item, dict) and "file" in item:
                cases += self.included(cast("dict[str, Any]", item), key)
            elif case := self.case(item, key, held_out=held_out):
                cases.append(case)
        return cases

    def included(self, item: dict[str, Any], at: str) -> list[Case]:
        given = self.mapping(item, at)
        self.known(given, ("file", "held_out"), at)
        pattern = self.text(given.get("file"), f"{at}.file")
        paths = sorted(glob.glob(pattern, root_dir=self.folder, recursive=True)) if pattern else []
        if pattern and not paths and not self.hidden:
            self.wrong(f"{at}.file", f"no such file: {pattern} (paths start from {self.folder})")
        held_out, cases = self.flag(given, "held_out", at), list[Case]()
        for name in paths:
            try:
                value, places = readers.read_cases(self.folder / name)
            except FormError as error:
                self.problems += str(error).splitlines()
                continue
            reader = _Suites(self.path.parent / name)
            reader.places, reader.folder, reader.hidden = places, self.folder, self.hidden
            reader.problems = self.problems
            cases += reader.listed(value, "", held_out=held_out)
        return cases

    def case(self, value: Any, at: str, *, held_out: bool) -> Case | None:
        given = self.mapping(value, at)
        if not given:
            return None
        keys = (
            "id", "request", "workspace", "files", "checks", "reference", "held_out", "group",
        )  # fmt: skip
        self.known(given, keys, at)
        name = given.get("id")
        name = str(name) if type(name) is int else self.text(name, form.key_at(at, "id"))
        if name and (not name.isprintable() or name != name.strip() or len(name) > ID_LIMIT):
            self.wrong(
                form.key_at(at, "id"), f"one printable line of at most {ID_LIMIT} characters"
            )
        workspace = self.folder_of(given, "workspace", at)
        reference = None if self.hidden else self.folder_of(given, "reference", at)
        checks = () if self.hidden else self.checks(given.get("checks"), form.key_at(at, "checks"))
        if reference and not checks:
            checks = self.all_of(reference, self.where(form.key_at(at, "reference")))
        group = self.text(given["group"], form.key_at(at, "group")) if "group" in given else None
        return Case(
            id=name,
            request=self.text(given.get("request"), form.key_at(at, "request")),
            where=self.where(at),
            workspace=workspace,
            files=self.extra(given.get("files"), form.key_at(at, "files")),
            checks=checks,
            reference=reference,
            held_out=self.flag(given, "held_out", at, default=held_out),
            group=group,
        )

    def extra(self, value: Any, at: str) -> dict[str, Path]:
        if not value:
            return {}
        files: dict[str, Path] = {}
        for name in self.texts(value, at):
            path = self.folder / name
            if name and not path.is_file():
                self.wrong(at, f"no such file: {name} (paths start from {self.folder})")
            elif name:
                files[path.name] = path
        return files

    def folder_of(self, given: Mapping[str, Any], name: str, at: str) -> Path | None:
        if given.get(name) is None:
            return None
        text = self.text(given[name], form.key_at(at, name))
        if text and not (self.folder / text).is_dir():
            self.wrong(form.key_at(at, name), f"no such directory: {text} (from {self.folder})")
        return self.folder / text

    def all_of(self, reference: Path, where: str) -> tuple[Check, ...]:
        """A reference without checks: every file of it is wanted."""
        names = sorted(p.relative_to(reference).as_posix() for p in reference.rglob("*"))
        files = [name for name in names if (reference / name).is_file()]
        return tuple(Check(SameAs(reference / f, f), f"same as {f}", where) for f in files)

    # --- checks -------------------------------------------------------------------------------

    def checks(self, value: Any, at: str) -> tuple[Check, ...]:
        if value is None:
            return ()
        if isinstance(value, str):
            return self.checks_in(value, at)
        if not isinstance(value, list):
            self.wrong(at, f"a list of checks, or the path of a file, not {form.shown(value)}")
            return ()
        numbered = enumerate(cast("list[Any]", value), start=1)
        return tuple(
            c for n, item in numbered if (c := self.check_of(item, form.key_at(at, str(n))))
        )

    def checks_in(self, name: str, at: str) -> tuple[Check, ...]:
        """Read checks from a file of their own, which may be hidden where the model works."""
        try:
            value, places = form.parse(self.folder / name)
        except FormError as error:
            self.wrong(at, str(error))
            return ()
        reader = _Suites(self.folder / name, places)
        reader.folder, reader.problems = self.folder, self.problems
        return reader.checks(value if value is not None else [], "")

    def check_of(self, value: Any, at: str) -> Check | None:
        given = self.mapping(value, at)
        kinds = [key for key in given if key in CHECK_KINDS]
        texts = set(kinds) <= set(form.LENGTHS)
        if not kinds:
            if isinstance(value, dict):
                named = ", ".join(CHECK_KINDS)
                near = [difflib.get_close_matches(name, CHECK_KINDS, 1) for name in given]
                hint = next((f"did you mean `{n[0]}`?" for n in near if n), f"give one of {named}")
                self.wrong(at, f"checks nothing; {hint}")
            return None
        if len(kinds) > 1 and not texts:
            self.wrong(at, f"one kind is wanted, not {' and '.join(kinds)}; make two checks")
            return None
        kind = kinds[0]
        options = OPTIONS.get(kind, ("file", "with_files", "expect", "timeout"))
        self.known(given, (*kinds, *options), at)
        what = self.what(kind, kinds, given, at)
        if what is None:
            return None
        file = f" in {given['file']}" if given.get("file") and kind != "same_as" else ""
        label = f"{kind} {_label(given[kind])}{file}"
        return Check(what, label, self.where(at))

    def what(self, kind: str, kinds: list[str], given: dict[str, Any], at: str) -> What | None:
        value, key = given[kind], form.key_at(at, kind)
        file = self.relative(given["file"], form.key_at(at, "file")) if "file" in given else None
        match kind:
            case "exact" | "not_exact":
                return Exact(self.text(value, key), file, kind == "exact")
            case "command":
                seconds = self.seconds(given, "timeout", at, COMMAND_S)
                return Exits(self.command(value, key), seconds)
            case "score":
                least = self.number(given.get("min", 50), form.key_at(at, "min"))
                if least > 100:
                    self.wrong(form.key_at(at, "min"), "a score is from 0 to 100")
                seconds = self.seconds(given, "timeout", at, COMMAND_S)
                return Scores(self.command(value, key), least, seconds)
            case "same_as":
                path = self.folder / self.text(value, key)
                if not path.is_file():
                    self.wrong(key, f"no such file: {value} (paths start from {self.folder})")
                if file is None:
                    self.wrong(at, "which `file` of the workspace is to be the same?")
                return SameAs(path, file or "")
            case "created":
                return Created(self.texts(value, key))
            case "unchanged":
                return Unchanged(self.texts(value, key))
            case "calls" | "not_calls":
                return self.calls_of(kind, given, at)
            case "within":
                return self.within(value, key)
            case _:
                return self.says(kinds, given, at, file)

    def says(
        self, kinds: list[str], given: dict[str, Any], at: str, file: str | None
    ) -> Says | None:
        expect = {"yes": True, "no": False}.get(str(given.get("expect")), given.get("expect", True))
        if not isinstance(expect, bool):
            self.wrong(f"{at}.expect", f"yes or no is wanted, not {form.shown(expect)}")
        check = self.check(kinds, given, at)
        seconds = self.seconds(given, "timeout", at, Question.timeout_s)
        both = self.flag(given, "with_files", at)
        if both and file is not None:
            self.wrong(form.key_at(at, "with_files"), "that is for the answer, not for one `file`")
        question = Question(at, check, expect is not False, seconds) if check else None
        return Says(question, file, both) if question else None

    def calls_of(self, kind: str, given: dict[str, Any], at: str) -> Calls:
        names = self.texts(given[kind], form.key_at(at, kind))
        if kind == "not_calls":
            return Calls(names, 0, 0)
        bounded = "at_most" in given
        least = self.whole(given, "at_least", at, 0 if bounded else 1, least=0)
        most = self.whole(given, "at_most", at, 0, least=0) if bounded else None
        if most is not None and most < least:
            self.wrong(
                form.key_at(at, "at_most"), f"below `at_least` ({least}): nothing could pass"
            )
        return Calls(names, least, most)

    def within(self, value: Any, at: str) -> Within:
        given = self.mapping(value, at)
        self.known(given, LIMITS, at)
        if isinstance(value, dict) and not given:
            self.wrong(at, f"limits nothing; give some of {', '.join(LIMITS)}")
        named = {name: v for name, v in given.items() if name in LIMITS}
        return Within({n: self.number(v, form.key_at(at, n)) for n, v in named.items()})

    # --- plain values -------------------------------------------------------------------------

    def relative(self, value: Any, key: str) -> str:
        name = self.text(value, key)
        if Path(name).is_absolute() or ".." in Path(name).parts:
            self.wrong(key, f"a path inside the workspace is wanted, not {name!r}")
        return name

    def flag(self, given: Mapping[str, Any], name: str, at: str, *, default: bool = False) -> bool:
        value = given.get(name, default)
        if not isinstance(value, bool):
            self.wrong(form.key_at(at, name), f"true or false is wanted, not {form.shown(value)}")
            return default
        return value


def _label(value: Any) -> str:
    """Give what a check wants in a few words."""
    match value:
        case str():
            said = f"`{' '.join(value.split())}`"
        case list():
            said = ", ".join(str(item) for item in cast("list[Any]", value))
        case dict():
            said = ", ".join(f"{k} {v}" for k, v in cast("dict[Any, Any]", value).items())
        case _:
            said = str(value)
    return said if len(said) <= LABEL else f"{said[:LABEL]}..."
