"""The skill that swarm brings along for coding agents: every word that it says in code is true.

Its blocks are run as they stand, in their order, in a repository of their own; what they print is
held against the keys that the pages name. Its `launch` runs without Ray, and with scripted patches.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import shlex
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import typer
import yaml
from messages_server import MessagesServer, Reply, conversation, tool_names
from targets import git, make_patches, make_repo, processes_with
from test_claude_code import CLAUDE, KEY, answers
from test_docs import FORBIDDEN, blocks, prose

import swarm
from swarm import config as configs
from swarm import doctor, errors, observations, records, views
from swarm.budget import Forecast
from swarm.bundled import bundled
from swarm.cli import app
from swarm.entities import Phase
from swarm.groups import CliName
from swarm.records import VERDICTS
from swarm.sandbox.ladder import ORDER

TOP = Path(__file__).resolve().parent.parent
PLUGIN = TOP / "plugin"
SKILL = PLUGIN / "skills" / "swarm" / "SKILL.md"
KEYS = SKILL.parent / "references" / "json.md"
PAGES = [SKILL, *sorted(SKILL.parent.glob("references/*.md"))]
pages = pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
needs_claude = pytest.mark.skipif(
    CLAUDE is None, reason="NO CLAUDE CODE: `make claude` installs it, or set SWARM_TEST_CLAUDE"
)


def spans(page: Path) -> list[str]:
    """Give what a page has in code within its sentences."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose(page))]


def lines_of(page: Path) -> list[str]:
    """Give the lines of its blocks for the shell."""
    return [line for block in blocks(page, "sh") for line in block.splitlines()]


def commands_in(text: str) -> Iterator[list[str]]:
    """Give each command line of swarm's that a text holds, without what the shell makes of it."""
    for found in re.finditer(r"(?:^|\s)swarm ((?:[a-z]+)(?: .*)?)$", text):
        yield shlex.split(re.split(r" [0-9]?[<>&] ?", found[1])[0])


# --- its form -----------------------------------------------------------------------------------


def test_the_manifests_fit_together() -> None:
    plugin = json.loads((PLUGIN / ".claude-plugin" / "plugin.json").read_text())
    market = json.loads((PLUGIN / ".claude-plugin" / "marketplace.json").read_text())
    assert (plugin["name"], plugin["version"]) == ("swarm", swarm.__version__)
    (entry,) = market["plugins"]
    assert (entry["name"], entry["description"]) == (plugin["name"], plugin["description"])
    assert (PLUGIN / entry["source"]).resolve() == PLUGIN


def test_the_skill_has_the_form_that_agents_read() -> None:
    text = SKILL.read_text(encoding="utf-8")
    _, front, body = text.split("---\n", 2)
    told = yaml.safe_load(front)
    assert set(told) == {"name", "description"}
    assert told["name"] == SKILL.parent.name
    assert "Use when" in told["description"]
    assert len(told["description"]) <= 1024
    assert len(body.splitlines()) < 250


@pages
def test_links_lead_to_files_that_come_along(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        assert (page.parent / link).resolve() in PAGES, link


@pages
def test_headings_use_our_words(page: Path) -> None:
    for heading in re.findall(r"^#+ (.+)$", prose(page), re.M):
        assert not [w for w in FORBIDDEN if re.search(rf"\b{w}s?\b", heading.lower())], heading


def test_the_wheel_takes_it_along() -> None:
    table = tomllib.loads((TOP / "pyproject.toml").read_text())
    included = table["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert included == {name: f"swarm/_bundled/{name}" for name in ("harness", "configs", "plugin")}
    assert bundled("plugin") == PLUGIN


def test_doctor_says_where_it_lies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def found() -> dict[str, Any]:
        assert doctor.examine(as_json=True) in (0, 3)
        findings = json.loads(capsys.readouterr().out)["findings"]
        return next(finding for finding in findings if finding["name"] == "plugin")

    there = found()
    assert (there["level"], there["found"]) == ("info", str(PLUGIN))
    assert f"claude --plugin-dir {shlex.quote(str(PLUGIN))}" in there["remedy"]
    monkeypatch.setattr(doctor, "bundled", lambda name: tmp_path / name)
    assert found()["level"] == "warning"


def test_doctor_says_where_the_harnesses_lie(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line of docs/retrieval.md finds the programs in a checkout and in an installed wheel."""
    doctor.examine(as_json=False)
    said = capsys.readouterr().out
    line = re.search(
        r"^H=\$\(swarm doctor \| (.+)\)$", (TOP / "docs" / "retrieval.md").read_text(), re.M
    )
    assert line is not None
    done = subprocess.run(
        ["/bin/sh", "-c", line[1]], input=said, capture_output=True, text=True, check=True
    )
    assert (Path(done.stdout.strip()) / "retrieval" / "retrieval.py").is_file()
    monkeypatch.setattr(doctor, "bundled", lambda name: tmp_path / name)
    doctor.examine(as_json=False)
    assert "warning  harness" in capsys.readouterr().out


# --- what it says -------------------------------------------------------------------------------


@pages
def test_every_command_can_be_typed(page: Path) -> None:
    known = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    titles = re.findall(r"^## (swarm .+)$", prose(page), re.M)
    said = [*lines_of(page), *spans(page), *(part for t in titles for part in t.split(", "))]
    typed = [words for text in said for words in commands_in(text)]
    assert typed
    for name, *words in typed:
        assert name in known, name
        if words:  # a name alone is no command line
            known[name].make_context(f"swarm {name}", words)  # it complains as the real one does


@pages
def test_every_config_shown_loads(page: Path, tmp_path: Path) -> None:
    (tmp_path / "program.md").write_text("Lower the loss.\n")
    shown = blocks(page, "yaml")
    assert bool(shown) == (page != KEYS)
    for text in shown:
        config = configs.parse(text, tmp_path / "swarm.yaml")
        assert config.budget.model_dump(exclude_none=True), "a config without a budget"
        if any(group.proposer.kind in ("messages", "headless") for group in config.agents):
            assert config.budget.usd is not None


def test_the_exit_codes_are_those_of_the_errors() -> None:
    said = set(re.findall(r"^\| (\d[\d, ]*) \|", prose(SKILL), re.M))
    codes = {int(code) for codes in said for code in codes.split(", ")}
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    known = {k.exit_code for k in kinds if issubclass(k, errors.SwarmError)}
    assert codes == {0, 130, 143} | known


def test_the_states_are_those_of_a_run() -> None:
    table = prose(SKILL).split("| `state` | do |")[1].split("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.M)) == set(get_args(Phase))


# --- followed word by word ----------------------------------------------------------------------

EVALUATE = """\
import random, os
import model
loss = abs(model.RATE - 2) + random.Random(os.environ["SWARM_SEED"]).gauss(0, 0.01)
print(f"METRIC loss={loss}")
"""
NOTES = """\
import re

NOTES = ["milk", "bread"]


def search(query):
    return [note for note in NOTES if re.search(query, note)]
"""
PATCHES: list[dict[str, Any]] = [
    {"summary": "a larger rate", "files": {"model.py": "RATE = 1.5\n"}},
    {"summary": "a smaller rate", "files": {"model.py": "RATE = 0.5\n"}},
    {"summary": "no rate", "files": {"model.py": "RATE = 1 / 0\n"}},
]
SHIM = """\
#!/bin/sh
if [ "$1" = launch ]; then
  set -- "$@" --inline --set 'agents={agents}' --set judge.baseline=3 --set judge.confirm=2
fi
exec {python} -m swarm "$@"
"""
BESIDES = (
    "swarm stop tuned --json",
    "swarm experiments tuned --json",
    "swarm clean tuned --dry-run --json",
)
"""What the pages describe, and no block of the skill runs."""
PATIENCE_S = 240


class Desk:
    """A repository in which the skill is followed, and what its commands have printed."""

    def __init__(self, root: Path) -> None:
        self.root = make_repo(
            root / "repository",
            {"model.py": "RATE = 1.0\n", "evaluate.py": EVALUATE, "notes.py": NOTES},
        )
        (self.root / "program.md").write_text("Lower the loss.\n")
        self.temporary = root / "temporary"
        self.printed: dict[str, list[Any]] = {}
        """By the words of a command, without what belongs to this run."""
        bin_ = root / "bin"
        for folder in (bin_, self.temporary, root / "scratch", root / "home"):
            folder.mkdir()
        proposer = {"kind": "scripted", "patches": str(make_patches(root / "patches", PATCHES))}
        agents = json.dumps([{"count": 1, "proposer": proposer}])
        (bin_ / "swarm").write_text(SHIM.format(agents=agents, python=shlex.quote(sys.executable)))
        (bin_ / "swarm").chmod(0o755)
        roles = ("AUTHOR_NAME", "AUTHOR_EMAIL", "COMMITTER_NAME", "COMMITTER_EMAIL")
        who = {f"GIT_{role}": "user@example.invalid" for role in roles}
        own = {
            "PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}",
            "SWARM_SCRATCH": str(root / "scratch"),
            "TMPDIR": str(self.temporary),
            "HOME": str(root / "home"),
            "NO_COLOR": "1",
        }
        foreign = ("SWARM_", "ANTHROPIC_", "GIT_", "RAY_", "CUDA_")
        kept = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
        self.env = {**kept, **own, **who}

    def run(self, line: str) -> list[Any]:
        """Run a line as it stands, and keep what it has printed as JSON."""
        done = subprocess.run(
            ["bash", "-c", line], cwd=self.root, env=self.env, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=PATIENCE_S,
        )  # fmt: skip
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        if line.endswith("&"):
            return self._launched(line)
        found = [json.loads(done.stdout)] if "--json" in line else []
        for words in commands_in(line):
            self.printed.setdefault(title(words), []).extend(found)
        return found

    def writing(self, page: Path) -> str:
        """Give a line that writes the config of a page, as if the draft was corrected."""
        (config,) = blocks(page, "yaml")
        return f"cat > swarm.yaml <<'END'\n{config}END"

    def check_applied(self) -> None:
        """The win is on a branch of its own, and nothing else has changed or is left."""
        shown = git(self.root, "show", "tuned-result:model.py")
        assert (shown, (self.root / "model.py").read_text()) == ("RATE = 1.5", "RATE = 1.0\n")
        wait_for(lambda: not processes_with(self.env["SWARM_SCRATCH"]))
        assert processes_with(self.env["SWARM_SCRATCH"]) == []

    def _launched(self, line: str) -> list[Any]:
        """Wait as the skill says, until the run is over and its process has said so."""
        log = self.temporary / "tuned.jsonl"

        def ended() -> bool:
            text = log.read_text() if log.exists() else ""
            return text.endswith("\n") and ('"done"' in text or '"error"' in text)

        assert wait_for(ended), (self.temporary / "tuned.log").read_text()
        told = [json.loads(said) for said in log.read_text().splitlines()]
        (words,) = commands_in(line)
        self.printed.setdefault(title(words), []).extend(told)
        return told


def wait_for(happens: Callable[[], bool]) -> bool:
    """Wait until something is so; False when it does not come."""
    deadline = time.monotonic() + PATIENCE_S
    while not (so := happens()) and time.monotonic() < deadline:
        time.sleep(0.3)
    return so


def title(words: list[str]) -> str:
    """Name what a command line prints: `launch --dry-run`, `status`."""
    return " ".join([words[0], *(word for word in words if word == "--dry-run")])


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    desk = Desk(tmp_path_factory.mktemp("skill"))
    for line in lines_of(SKILL):
        if line.startswith("git add"):
            desk.run(desk.writing(SKILL))
        desk.run(line)
    for line in BESIDES:
        desk.run(line)
    return desk


def test_following_it_ends_with_the_win_on_a_branch_of_its_own(desk: Desk) -> None:
    (reported,) = desk.printed["report"]
    (target,) = reported["targets"]
    assert [kept["number"] for kept in target["kept"]] == [1]
    assert target["headline"]["fresh"]["gain"] == pytest.approx(0.5, abs=0.1)
    verdicts = [e["verdict"] for e in desk.printed["experiments"][0]]
    assert verdicts == ["keep", "discard", "crash"]
    desk.check_applied()


def test_an_error_is_what_it_says(desk: Desk) -> None:
    refused = subprocess.run(
        [sys.executable, "-m", "swarm", "pause", "tuned", "--json"],
        cwd=desk.root, env=desk.env, capture_output=True, text=True,
    )  # fmt: skip
    assert refused.returncode == 3
    said = next(span for span in spans(SKILL) if span.startswith('{"error": {'))
    assert re.findall(r'"(\w+)":', said) == re.findall(r'"(\w+)":', refused.stdout)


def reaches(value: Any, path: str) -> bool:
    """Tell whether a value has a key; `a[].b` is in some item of a list."""
    head, _, rest = path.partition(".")
    name, each = head.removesuffix("[]"), head.endswith("[]")
    if name:
        if not isinstance(value, dict) or name not in value:
            return False
        value = value[name]
    if each:
        return isinstance(value, list) and any(not rest or reaches(item, rest) for item in value)
    return not rest or reaches(value, rest)


def sections() -> Iterator[tuple[list[str], list[str]]]:
    """Give each table of keys: which commands print them, and the keys."""
    for part in re.split(r"^## ", KEYS.read_text(encoding="utf-8"), flags=re.M)[1:]:
        head, body = part.split("\n", 1)
        cells = re.findall(r"^\| (`.+?) \|", body, re.M)
        keys = [key for cell in cells for key in re.findall(r"`([^`]+)`", cell)]
        yield [title(w) for text in head.split(", ") for w in commands_in(text)], keys


def test_every_key_named_is_printed(desk: Desk) -> None:
    count = 0
    for names, keys in sections():
        objects = [found for name in names for found in desk.printed.get(name, ())]
        assert objects, f"nothing was printed by {names}"
        assert [k for k in keys if not any(reaches(o, k) for o in objects)] == [], names
        count += len(keys)
    assert count > 100  # the tables were found


# --- every word in code -------------------------------------------------------------------------

OURS = {
    ".", ".auto/", ".swarm/", ".venv/bin/swarm", "improve.md", "program.md", "swarm.yaml", "swarm",
    "swarm_guards/", "swarm/", "swarm/tuned/best", "tuned", "tuned-2", "tuned.jsonl", "tuned.log",
    "METRIC loss=0.123", "METRIC name=value", "name: value", "90s", "5m", "8h", "5%", "[]",
    "nohup", "setsid", "kill -0", "kill -INT", "PATH", "env -u ...",
}  # fmt: skip
"""Names of the example, and of the world around it."""


def keys_of(value: Any) -> set[str]:
    """Give the names of all keys in what was printed."""
    if isinstance(value, list):
        return set().union(*map(keys_of, value)) if value else set()
    return set(value).union(*map(keys_of, value.values())) if isinstance(value, dict) else set()


def words_of(schema: Any) -> set[str]:
    """Give all keys of the config, and all values that are words."""
    if isinstance(schema, list):
        return set().union(*map(words_of, schema)) if schema else set()
    if not isinstance(schema, dict):
        return set()
    values = [*schema.get("enum", ()), schema.get("const")]
    own = {*schema.get("properties", ()), *(word for word in values if isinstance(word, str))}
    return own.union(*map(words_of, schema.values()))


def closed_sets() -> set[str]:
    """Give the words that swarm chooses among when it prints a state, a verdict, a finding."""
    check, words = ((TOP / "docs" / name).read_text() for name in ("check.md", "words.md"))
    levels = get_args(get_type_hints(doctor.Finding)["level"]) + get_args(observations.Level)
    doing = [*re.findall(r'return "(.+)"', inspect.getsource(views.doing)), "proposing"]
    merged = (*get_args(records.MergeOutcome), *re.findall(r"^\| `(queued)` \|", words, re.M))
    kinds = re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`.+?) \|", check, re.M)))
    looked_at = re.findall(r'Finding\(\s*"([a-z ]+)"', inspect.getsource(doctor))
    return {*VERDICTS, *get_args(Phase), *levels, *doing, *merged, *kinds, *looked_at, *ORDER}


def is_setting(span: str, folder: Path) -> bool:
    """Tell whether the config takes `key: value`, at the top, in `target` or in `judge`."""
    target = "scope: [a], run: a, metric: {name: loss, goal: minimize}"
    (folder / "program.md").touch()
    for text in (
        f"target: {{{target}}}\n{span}\n",
        f"target: {{{target}, {span}}}\n",
        f"target: {{{target}}}\njudge: {{{span}}}\n",
    ):
        with suppress(errors.ConfigError):
            configs.parse(text, folder / "swarm.yaml")
            return True
    return False


@pages
def test_every_word_in_code_is_known(desk: Desk, page: Path, tmp_path: Path) -> None:
    objects = [found for printed in desk.printed.values() for found in printed]
    error = errors.SwarmError("").to_json()
    harness = (TOP / "docs" / "harness.md").read_text()
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    options = {o for c in commands.values() for p in c.params for o in p.opts}
    config = words_of(configs.schema())
    known = OURS | keys_of([*objects, error]) | config | closed_sets() | set(commands) | options
    known |= {*get_args(CliName), *Forecast._fields, "launched", "done"}
    known |= {folder.name for folder in (TOP / "harness").iterdir()}

    def is_known(span: str) -> bool:
        if span.startswith("{"):
            names = re.findall(r'"(\w+)":', span)
            return bool(names) and all(n in known or f'"{n}"' in harness for n in names)
        if span.startswith("$"):
            return f"`{span[1:]}`" in harness
        if re.match(r"[a-z_]+: ", span) and span not in known:
            return is_setting(span, tmp_path)
        if span not in known and re.fullmatch(r"[\w.\[\]]+", span):
            return any(reaches(o, span) for o in objects) or config.issuperset(span.split("."))
        return span in known or span.split(" ")[0] in options or any(commands_in(span))

    assert [span for span in spans(page) if not is_known(span)] == []


# --- the real Claude Code -----------------------------------------------------------------------


@pytest.fixture
def claude(tmp_path: Path) -> dict[str, str]:
    """Give the environment of a Claude Code that knows nothing yet."""
    (tmp_path / "home").mkdir()
    kept = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    kept = {k: v for k, v in kept.items() if not k.startswith(("CLAUDE", "ANTHROPIC_"))}
    quiet = {"DISABLE_AUTOUPDATER": "1", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"}
    return {**kept, **quiet, "HOME": str(tmp_path / "home"), "TERM": "dumb"}


def ask(env: dict[str, str], *words: str, cwd: Path) -> str:
    """Run Claude Code to its end and give what it has said."""
    assert CLAUDE is not None
    done = subprocess.run(
        [CLAUDE, *words], cwd=cwd, env=env, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=PATIENCE_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@needs_claude
@pytest.mark.parametrize("manifest", ["plugin.json", "marketplace.json"])
def test_claude_code_finds_it_valid(claude: dict[str, str], tmp_path: Path, manifest: str) -> None:
    place = str(PLUGIN / ".claude-plugin" / manifest)
    assert "Validation passed" in ask(claude, "plugin", "validate", "--strict", place, cwd=tmp_path)


@needs_claude
def test_claude_code_loads_the_skill(claude: dict[str, str], tmp_path: Path) -> None:
    def script(request: dict[str, Any]) -> Reply:
        if "Skill" in tool_names(request) and not answers(request):
            return Reply.calling("Skill", skill="swarm:swarm")
        return Reply.saying("I have read it.")

    with MessagesServer(script, key=KEY) as server:
        env = {**claude, "ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": server.url}
        ask(env, "--plugin-dir", str(PLUGIN), "-p", "Lower the loss.", cwd=tmp_path)
        said = [conversation(request.body) for request in server.requests]
    assert any("swarm:swarm" in text for text in said)
    body = SKILL.read_text(encoding="utf-8").split("---\n", 2)[2]
    assert any(body.strip().splitlines()[2] in text for text in said)


@needs_claude
def test_claude_code_installs_it_from_its_folder(claude: dict[str, str], tmp_path: Path) -> None:
    ask(claude, "plugin", "marketplace", "add", str(PLUGIN), cwd=tmp_path)
    ask(claude, "plugin", "install", "swarm@swarm", cwd=tmp_path)
    assert "swarm@swarm" in ask(claude, "plugin", "list", cwd=tmp_path)


@needs_claude
@pytest.mark.slow
def test_claude_code_carries_out_what_it_has_read(claude: dict[str, str], tmp_path: Path) -> None:
    """The model is a script that does what stands in the text which Claude Code hands it."""
    desk = Desk(tmp_path / "desk")
    over = "until swarm status tuned --json | grep -q 'state.*finished'; do sleep 1; done"

    def script(request: dict[str, Any]) -> Reply:
        told = answers(request)
        if not told:
            return Reply.calling("Skill", skill="swarm:swarm")
        handed = tmp_path / "handed.md"
        handed.write_text(conversation(request), encoding="utf-8")
        todo = lines_of(handed)
        todo.insert(todo.index("git add swarm.yaml program.md"), desk.writing(handed))
        todo.insert(todo.index("swarm status tuned --json"), over)
        done = len(told) - 1
        if done == len(todo):
            return Reply.saying("It is on the branch tuned-result.")
        return Reply.calling("Bash", command=todo[done], timeout=1000 * PATIENCE_S)

    with MessagesServer(script, key=KEY) as server:
        keys = {"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": server.url}
        env = {**claude, **desk.env, **keys, "HOME": claude["HOME"]}
        allowed = ("--allowedTools", "Bash,Skill")
        ask(env, "--plugin-dir", str(PLUGIN), *allowed, "-p", "Lower the loss.", cwd=desk.root)
    desk.check_applied()
