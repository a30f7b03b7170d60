"""`swarm init` on small repositories: a config that `check` accepts, guards, and bugs found."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from messages_server import MessagesServer, Reply
from targets import check_nobody_left, git, make_repo

from swarm import config as configs
from swarm.errors import SwarmError
from swarm.init import Wish, start
from swarm.init.drafts import Draft, DraftFile, Ending, endings, sort_out, split_python
from swarm.init.edges import cases, told
from swarm.init.machine import Machine, Python
from swarm.init.proposal import wish
from swarm.init.python_code import printed_metrics, read_code
from swarm.init.survey import Facts, globs, survey
from swarm.init.targets import proposals
from swarm.init.writing import quoted

SWARM = [sys.executable, "-m", "swarm"]
MACHINE = Machine(python=Python("python3", ()), tools=frozenset({"node", "npm", "cargo", "go"}))

WORDS = '''
"""Small tools for texts."""
import re
from collections import Counter


def slugify(text: str) -> str:
    """Make a slug."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def capitalise(text: str) -> str:
    return text[0].upper() + text[1:]


def top(words: list, n: int) -> list:
    return [word for word, _ in Counter(words).most_common(n)]
'''
LIBRARY = {
    "pyproject.toml": '[project]\nname = "textkit"\nversion = "1.0"\n',
    "src/textkit/__init__.py": "from textkit.words import capitalise, slugify, top\n",
    "src/textkit/words.py": WORDS,
    "tests/test_words.py": (
        "from textkit import slugify, top\n\n\n"
        "def test_slug():\n    assert slugify('Hello, World') == 'hello-world'\n\n\n"
        "def test_top():\n    assert top(['a', 'b', 'a'], 1) == ['a']\n"
    ),
    ".github/workflows/ci.yml": "jobs:\n  test:\n    steps:\n      - run: pytest -q\n",
}
NODE = {
    "package.json": '{"name": "slug", "type": "module", "scripts": {"test": "node --test"}}',
    "src/index.js": (
        "// Make a slug.\n"
        "export function slug(text) {\n"
        '  return text.toLowerCase().replace(/[^a-z0-9]+/g, "-");\n}\n'
    ),
    "test/slug.test.js": (
        'import test from "node:test";\nimport assert from "node:assert";\n'
        'import { slug } from "../src/index.js";\n'
        'test("slug", () => assert.equal(slug("A b"), "a-b"));\n'
    ),
}
RUST = {
    "Cargo.toml": '[package]\nname = "wordcount"\nversion = "0.1.0"\nedition = "2021"\n',
    ".gitignore": "target/\n",
    "src/lib.rs": (
        "pub fn count(text: &str) -> usize {\n    text.split_whitespace().count()\n}\n\n"
        "#[cfg(test)]\nmod tests {\n    #[test]\n    fn two() {\n"
        '        assert_eq!(super::count("a b"), 2);\n    }\n}\n'
    ),
    "src/main.rs": 'fn main() {\n    println!("{}", wordcount::count("a b c"));\n}\n',
}
SKILL = {
    "SKILL.md": (
        "---\nname: release-notes\ndescription: Write release notes\n---\n\n# Release notes\n\n"
        "Read the commits, as in [the guide](guide.md), with [a tool](scripts/sort.py).\n\n"
        "```sh\ngit log --oneline\n```\n\nPlease do always remember to keep the lines short.\n"
    ),
    "guide.md": "A guide.\n",
}
RESEARCH = {
    "prepare.py": '"""Fixed."""\n\n\ndef evaluate_bpb(rate):\n    return 1.0 + (rate - 0.3) ** 2\n',
    "train.py": (
        "from prepare import evaluate_bpb\n\nRATE = 0.1\nprint('---')\n"
        'print(f"val_bpb:          {evaluate_bpb(RATE):.6f}")\nprint("peak_vram_mb:     1024.0")\n'
    ),
    "program.md": "# Program\n\nLower val_bpb.\n",
}
SEARCH = {
    "notes/__init__.py": "",
    "notes/index.py": '''
import sqlite3


def open_index(path=":memory:"):
    connection = sqlite3.connect(path)
    connection.execute("CREATE VIRTUAL TABLE IF NOT EXISTS notes USING fts5(title, body)")
    return connection


def search(connection, query, limit=10):
    """Give the titles of the notes that match."""
    rows = connection.execute(
        "SELECT title FROM notes WHERE notes MATCH ? ORDER BY rank LIMIT ?", (query, limit)
    )
    return [title for (title,) in rows]
''',
    "bench.py": """
from notes.index import open_index, search

index = open_index()
index.execute("INSERT INTO notes VALUES ('Cats', 'They sleep a lot')")
print(f"recall: {len(search(index, 'sleep')):.3f}")
""",
}


class Started:
    """What `swarm init --yes --json` made of a repository."""

    def __init__(self, top: Path, capsys: pytest.CaptureFixture[str], **more: Any) -> None:
        self.top = top
        self.code = start(Wish(top, yes=True, json=True, **more))
        out = capsys.readouterr()
        self.talk = out.err
        self.said: dict[str, Any] = json.loads(out.out)
        self.path = Path(self.said["config"])
        self.text = self.path.read_text()
        self.config = configs.load(self.path)
        check_nobody_left()

    @property
    def errors(self) -> list[str]:
        """What the check calls errors."""
        return [f["message"] for f in self.said["check"]["findings"] if f["level"] == "error"]


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same interpreter everywhere, and nobody who could be asked."""
    for name in list(os.environ):
        if name.startswith(("ANTHROPIC_", "OPENAI_", "GEMINI_", "GOOGLE_", "CLAUDE_", "CODEX_")):
            monkeypatch.delenv(name)
    folder = str(Path(sys.executable).parent)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("VIRTUAL_ENV", str(Path(folder).parent))


# --- repositories of five kinds -----------------------------------------------------------------


def test_a_python_library(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    started = Started(make_repo(tmp_path / "textkit", LIBRARY), capsys)
    assert (started.code, started.errors) == (0, [])
    target = started.config.target
    assert started.said["target"]["kind"] == "speed"
    assert target.scope == ("src/**/*.py",)
    assert (target.metric.name, target.metric.goal) == ("seconds", "minimize")
    assert "-m pytest" in str(target.guard[0])
    assert "CI runs `pytest -q`" in started.text
    # The edge cases that the base passes are guards, and the one it fails is a bug.
    assert any("edge_cases.py" in str(guard) for guard in target.guard)
    assert "test_slugify_with_an_empty_text" in started.said["guards"]["locked"]
    (bug,) = started.said["guards"]["bugs"]
    assert bug["given"] == ["capitalise('')"]
    assert bug["error"] == "IndexError: string index out of range"
    assert bug["place"].startswith("src/textkit/words.py:")
    assert bug["tests"][0] not in started.said["guards"]["locked"]
    assert (started.top / bug["path"]).exists()


def test_a_node_package(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    started = Started(make_repo(tmp_path / "slug", NODE), capsys)
    assert (started.code, started.errors) == (0, [])
    assert started.config.target.scope == ("src/**/*.js",)
    assert started.config.target.guard[0] == "npm test --silent"
    assert started.said["check"]["deterministic"]
    assert "test_src_index_js_slug_with_an_empty_text" in started.said["guards"]["locked"]
    # A change that breaks an edge case is caught by the guard.
    run, source = ["node", "swarm_guards/edge_cases.mjs"], started.top / "src" / "index.js"
    assert subprocess.run(run, cwd=started.top, capture_output=True, check=False).returncode == 0
    source.write_text(source.read_text().replace("return", 'if (!text) return "none"; return'))
    assert subprocess.run(run, cwd=started.top, capture_output=True, check=False).returncode == 1


@pytest.mark.skipif(shutil.which("cargo") is None, reason="no cargo")
def test_a_crate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    started = Started(make_repo(tmp_path / "wordcount", RUST), capsys)
    assert (started.code, started.errors) == (0, [])
    assert started.config.target.scope == ("src/**/*.rs",)
    assert "cargo test" in str(started.config.target.guard[0])
    assert started.said["check"]["baseline"]["mean"] > 10_000


def test_a_skill(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    started = Started(make_repo(tmp_path / "skill", SKILL), capsys)
    assert (started.code, started.errors) == (0, [])
    assert started.config.target.scope == ("SKILL.md",)
    assert started.said["check"]["baseline"]["mean"] == len(SKILL["SKILL.md"])
    assert "test_line_of_code_1_is_kept" in started.said["guards"]["locked"]
    (bug,) = started.said["guards"]["bugs"]
    assert bug["given"] == ["scripts/sort.py"]
    # A suite for a model to work through is drafted beside it, and one that is there is left.
    assert "kind: skill" in (started.top / "suite.yaml").read_text()
    assert "skill/skill.py" in started.text


def test_the_autoresearch_layout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    started = Started(make_repo(tmp_path / "gpt", RESEARCH), capsys)
    assert (started.code, started.errors) == (0, [])
    config = started.config
    assert config.target.scope == ("train.py",)
    assert config.target.metric.name == "val_bpb"
    assert config.judge.keep_if_equal == "simpler"
    assert config.target.program_file == started.top / "program.md"
    assert started.said["check"]["baseline"]["mean"] == pytest.approx(1.04)


# --- bugs found before the first experiment -----------------------------------------------------


def test_an_unquoted_fts5_query_is_a_bug_found_before_the_first_experiment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    top = make_repo(tmp_path / "notes", SEARCH)
    started = Started(top, capsys)
    assert (started.code, started.errors) == (0, [])
    assert started.said["target"]["metric"] == "recall"
    (bug,) = started.said["guards"]["bugs"]
    assert "notes.index.search" in bug["about"]
    assert {"'C++'", "'*'", "'-'", "'AND'", "'\"'", "'\"unbalanced'"} <= set(bug["given"])
    assert "OperationalError" in bug["error"]
    assert bug["place"].startswith("notes/index.py:")
    # It guards nothing, and what passes does.
    locked = started.said["guards"]["locked"]
    assert "test_search_with_an_emoji" in locked
    assert not set(locked) & set(bug["tests"])
    assert not any("findings" in str(guard) for guard in started.config.target.guard)
    assert "Bugs found before the first experiment" in started.text
    # The file shows the bug to whoever runs it, and goes quiet once it is mended.
    run = [sys.executable, str(top / bug["path"])]
    assert subprocess.run(run, capture_output=True, check=False).returncode == 1
    index = top / "notes" / "index.py"
    quoting = "    query = '\"' + query.replace('\"', '\"\"') + '\"'\n    rows ="
    index.write_text(index.read_text().replace("    rows =", quoting))
    assert subprocess.run(run, capture_output=True, check=False).returncode == 0


def test_bugs_are_told_in_words(tmp_path: Path) -> None:
    top = make_repo(tmp_path / "notes", SEARCH)
    done = subprocess.run(
        [*SWARM, "init", str(top), "--yes"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "BUG      found before the first experiment: Special characters" in done.stdout
    assert "ready" in done.stdout
    assert f"next     git add {top}/swarm.yaml {top}/swarm_guards && git commit" in done.stdout
    assert f"swarm launch {top}/swarm.yaml" in done.stdout


def test_leaked_rows_are_a_bug(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {
        "model.py": "WEIGHT = 2.0\n",
        "evaluate.py": "from model import WEIGHT\nprint(f'accuracy: {WEIGHT / 4}')\n",
        "data/train.csv": "x,y\n1,2\n3,4\n",
        "data/test.csv": "x,y\n3,4\n5,6\n",
    }
    started = Started(make_repo(tmp_path / "model", files), capsys)
    assert (started.code, started.errors) == (0, [])
    assert started.said["target"]["kind"] == "accuracy"
    assert started.config.target.scope == ("model.py",)
    (bug,) = started.said["guards"]["bugs"]
    assert "1 rows are in both, such as '3,4'" in bug["error"]
    assert started.said["guards"]["locked"] == ["test_data_test_csv_has_no_row_twice"]


def test_a_goal_of_size_watches_what_is_needed_at_run_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {**LIBRARY, "src/textkit/broken.py": "import no_such_package_anywhere\n"}
    del files["tests/test_words.py"]
    top = make_repo(tmp_path / "textkit", files)
    started = Started(top, capsys, goal="a smaller package")
    assert (started.code, started.errors) == (0, [])
    assert started.said["target"]["kind"] == "size"
    assert "test_textkit_offers_what_it_did" in started.said["guards"]["locked"]
    # What cannot be imported here is said, and is no bug of the code.
    assert "test_textkit_broken_offers_what_it_did" not in started.said["guards"]["locked"]
    assert any("no_such_package_anywhere" in said for said in started.said["guards"]["not_used"])
    assert [bug["given"] for bug in started.said["guards"]["bugs"]] == [["capitalise('')"]]
    assert started.config.target.program == "a smaller package"


def test_a_search_that_cannot_be_called_is_said_and_is_no_bug(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {**SEARCH, "notes/index.py": SEARCH["notes/index.py"].replace("(path", "_at(path")}
    files["notes/index.py"] = (
        files["notes/index.py"]
        .replace("def search(connection, query", "def search(shelf, query")
        .replace("rows = connection", "rows = shelf.connection")
    )
    files["bench.py"] = "print('recall: 1.0')\nimport notes.index\n"
    started = Started(make_repo(tmp_path / "notes", files), capsys)
    assert started.said["guards"]["bugs"] == []
    (said,) = started.said["guards"]["not_used"]
    assert "20 tests could not be tried" in said
    assert "a plain word cannot be asked" in said


# --- a model that drafts ------------------------------------------------------------------------

ANSWER = '''Here it is:
```python
from notes.index import open_index, search


def test_nothing_is_found_in_an_empty_index():
    """An empty index has no matches."""
    assert search(open_index(), "word") == []


def test_a_number_is_a_query():
    """A number may be asked for."""
    search(open_index(), "#1")


def test_of_what_is_not_there():
    """This test is wrong itself."""
    search(open_index(), "word", nonsense=True)
```
'''


def test_a_model_drafts_tests_where_there_is_a_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    def script(request: dict[str, Any]) -> Reply:
        asked.append(request)
        return Reply.saying(ANSWER)

    with MessagesServer(script) as server:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-test-0123456789")
        started = Started(make_repo(tmp_path / "notes", SEARCH), capsys)
    assert started.code == 0, started.errors
    assert len(asked) == 1
    assert "tools" not in asked[0]
    assert "def search(connection, query" in json.dumps(asked[0]["messages"])
    assert "test_nothing_is_found_in_an_empty_index" in started.said["guards"]["locked"]
    drafted = [b for b in started.said["guards"]["bugs"] if b["path"].endswith("drafted.py")]
    assert [b["about"] for b in drafted] == ["A number may be asked for"]
    assert any(
        "drafted: 1 test could not be tried" in s for s in started.said["guards"]["not_used"]
    )
    assert started.said["tokens"] > 0
    assert started.config.agents[0].proposer.kind == "messages"
    assert "sk-test" not in started.text


def test_templates_do_where_the_model_does_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with MessagesServer(lambda _: Reply.failing(401, "no such key")) as server:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-test-0123456789")
        started = Started(make_repo(tmp_path / "notes", SEARCH), capsys)
    assert "drafts none" in started.talk
    assert "no such key" in started.talk
    assert len(started.said["guards"]["bugs"]) == 1


# --- questions ----------------------------------------------------------------------------------


def typed(top: Path, text: str, *arguments: str) -> tuple[int, str]:
    """Run `swarm init` on a terminal and type something."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*SWARM, "init", str(top), *arguments],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    os.close(theirs)
    os.write(ours, text.encode())
    out, _ = process.communicate(timeout=240)
    os.close(ours)
    return process.returncode, out


def test_three_questions_on_a_terminal(tmp_path: Path) -> None:
    top = make_repo(tmp_path / "slug", {**NODE, "src/other.js": "export const x = 1;\n"})
    code, out = typed(top, "9\n1\nnowhere/*.js\nswarm_guards/\nsrc/index.js\n\n")
    assert code == 0, out
    assert out.index("1/3  What is to get better?") < out.index("2/3") < out.index("3/3")
    assert "'9' is none of 1 to 2" in out
    assert "no file of the base matches nowhere/*.js" in out
    assert "swarm_guards holds the guards" in out
    assert configs.load(top / "swarm.yaml").target.scope == ("src/index.js",)


def test_the_end_of_the_input_writes_nothing(tmp_path: Path) -> None:
    top = make_repo(tmp_path / "slug", NODE)
    code, out = typed(top, "\x04")
    assert code == 1, out
    assert "nothing done" in out
    assert git(top, "status", "--porcelain") == ""


def test_without_a_terminal_yes_is_needed(tmp_path: Path) -> None:
    top = make_repo(tmp_path / "slug", NODE)
    done = subprocess.run(
        [*SWARM, "init", str(top)], input="", capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "--yes takes the default of each" in done.stderr
    assert git(top, "status", "--porcelain") == ""


# --- what is refused ----------------------------------------------------------------------------


def refusal(top: Path) -> tuple[int, dict[str, Any]]:
    """Give exit code and error of an `init` that is refused."""
    with pytest.raises(SwarmError) as refused:
        start(Wish(top, yes=True))
    return refused.value.exit_code, refused.value.to_json()["error"]


def test_nothing_is_overwritten_unasked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    top = make_repo(tmp_path / "skill", SKILL)
    (top / "swarm.yaml").write_text("mine\n")
    code, error = refusal(top)
    assert (code, error["kind"]) == (2, "usage")
    assert "--force" in error["hint"]
    assert (top / "swarm.yaml").read_text() == "mine\n"
    (top / "swarm.yaml").unlink()
    guard = top / "swarm_guards" / "skill_top.py"
    guard.parent.mkdir()
    guard.write_text("mine = True\n")
    code, error = refusal(top)
    assert code == 2
    assert str(guard) in error["message"]
    assert not (top / "swarm.yaml").exists()
    assert Started(top, capsys, force=True).code == 0
    assert guard.read_text() != "mine = True\n"
    # A suite of one's own stays, even so.
    (top / "suite.yaml").write_text("cases: [mine]\n")
    assert Started(top, capsys, force=True).code == 0
    assert (top / "suite.yaml").read_text() == "cases: [mine]\n"


def test_what_is_no_repository_is_told_what_to_do(tmp_path: Path) -> None:
    code, error = refusal(tmp_path)
    assert (code, error["kind"]) == (3, "repository")
    assert "git init" in error["hint"]
    git(tmp_path, "init", "-q")
    code, error = refusal(tmp_path)
    assert code == 3
    assert "has no commit yet" in error["message"]
    code, error = refusal(tmp_path / "nowhere")
    assert (code, error["kind"]) == (2, "usage")


def test_what_cannot_be_measured_is_said(tmp_path: Path) -> None:
    top = make_repo(tmp_path / "prose", {"README.md": "# Nothing to run\n"})
    code, error = refusal(top)
    assert (code, error["kind"]) == (3, "precondition")
    assert "METRIC name=value" in error["hint"]


def test_a_base_that_fails_its_own_tests_is_not_called_ready(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = NODE["test/slug.test.js"].replace('"a-b"', '"a_b"')
    top = make_repo(tmp_path / "slug", {**NODE, "test/slug.test.js": broken})
    started = Started(top, capsys)
    assert started.code == 3
    assert any("guard" in message for message in started.errors)


def test_a_folder_of_a_repository_and_a_config_elsewhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {f"packages/a slug/{name}": text for name, text in NODE.items()}
    top = make_repo(tmp_path / "many", files) / "packages" / "a slug"
    started = Started(top, capsys, out=tmp_path / "slug.yaml")
    assert (started.code, started.errors) == (0, [])
    assert started.config.target.repo == top
    assert (top / "swarm_guards" / "edge_cases.mjs").exists()


@pytest.mark.ray
def test_launch_goes_on_to_a_running_loop(tmp_path: Path) -> None:
    top = make_repo(tmp_path / "gpt", RESEARCH)
    done = subprocess.run(
        [*SWARM, "init", str(top), "--yes", "--launch", "--json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    first, *_, last = done.stdout.splitlines()
    assert json.loads(first)["ok"]
    assert json.loads(last)["status"]["targets"][0]["best"]["mean"] < 1.04
    assert "swarm/gpt-accuracy/best" in git(top, "branch", "--list", "swarm/*")
    check_nobody_left()


# --- what is found, without running anything ----------------------------------------------------


def facts_of(files: dict[str, str]) -> Facts:
    return survey(files, lambda name: files.get(name, ""))


def test_a_go_module_is_known_also_where_there_is_no_go() -> None:
    facts = facts_of({"go.mod": "module example.com/x\n", "main.go": "package main\n"})
    first, second = proposals(facts, MACHINE)
    assert (facts.go_module, first.metric, first.scope) == ("example.com/x", "bytes", ("main.go",))
    assert [g.command for g in first.guard] == ["go test ./..."]
    assert "go test -count=1" in second.run.command


def test_what_a_survey_finds() -> None:
    facts = facts_of(
        {
            "Dockerfile": "FROM scratch\n",
            "CLAUDE.md": "Be kind.\n",
            "play.ipynb": "{}",
            "improve.md": "# autoimprove: x\n",
            "Makefile": "test:\n\ttrue\n",
            ".gitlab-ci.yml": "test:\n  script:\n    - tox -e py\n    - echo done\n",
            "pkg/__init__.py": "",
            "pkg/a.py": "import numpy\nimport pkg.b\nimport os\n",
            "pkg/b.py": "",
            "benchmarks/speed.py": "print(f'p95_ms: {1.0}')\n",
        }
    )
    assert facts.dockerfiles == ("Dockerfile",)
    assert facts.instructions == ("CLAUDE.md",)
    assert facts.notebooks == ("play.ipynb",)
    assert facts.improve == ("improve.md",)
    assert facts.make_targets == ("test",)
    assert facts.ci_commands == ("tox -e py",)
    assert facts.imports == ("numpy",)
    (bench,) = facts.benches
    assert bench.metrics == ("p95_ms",)
    first = proposals(facts, MACHINE)[0]
    assert (first.kind, first.metric, first.goal) == ("speed", "p95_ms", "minimize")
    assert first.scope == ("pkg/**/*.py",)


def test_a_package_that_nobody_here_can_import_is_installed_by_setup() -> None:
    files = {**LIBRARY, "requirements.txt": "numpy\n"}
    machine = Machine(python=Python("python3", ("numpy", "pytest")))
    first = proposals(facts_of(files), machine)[0]
    assert first.setup is not None
    assert "pip install --quiet -r requirements.txt pytest" in first.setup.command
    assert first.run.command.startswith(".venv/bin/python ")
    assert first.guard[0].command.startswith(".venv/bin/python -m pytest")


def test_a_wish_in_words_is_understood() -> None:
    kinds = [wish(w) for w in ("make it faster", "a smaller bundle", "better recall", "hm")]
    assert kinds == ["speed", "size", "accuracy", None]


def test_few_globs_cover_the_sources_and_nothing_else() -> None:
    files = ["a.py", "pkg/x.py", "pkg/sub/y.py", "pkg/tests/test_x.py", "lib/z.py", "lib/data.csv"]
    sources = ["a.py", "pkg/x.py", "pkg/sub/y.py", "lib/z.py"]
    assert globs(sources, files) == ("a.py", "lib/**/*.py", "pkg/*.py", "pkg/sub/*.py")


def test_printed_metrics_are_seen() -> None:
    text = (
        'print(f"METRIC p95_ms={x}")\nprint("accuracy:", 3)\nprint(f"loss: {y}")\n'
        'print("val_bpb: %f" % z)\nprint("Hello world")\nprint(f"done in {t}")\n'
    )
    assert printed_metrics(text) == ("p95_ms", "accuracy", "loss", "val_bpb")


def test_functions_that_do_things_are_never_called() -> None:
    code = (
        "import shutil\n\n\ndef wipe(path: str):\n    shutil.rmtree(path)\n\n\n"
        "def delete_all(text: str):\n    return text\n\n\n"
        "def load(text: str):\n    return open(text).read()\n\n\n"
        "def upper(text: str):\n    return text.upper()\n"
    )
    found = cases(facts_of({"pkg/__init__.py": "", "pkg/a.py": code}))
    assert {case.function for case in found} == {"upper"}
    assert [f.quiet for f in read_code(code).functions] == [False, False, False, True]


def test_code_that_cannot_be_read_says_nothing() -> None:
    assert read_code("def broken(:\n").functions == ()
    assert told('{"case": broken\n{"case": "a", "said": ["gives", "1"]}\n') == {"a": ("gives", "1")}


# --- drafted tests ------------------------------------------------------------------------------


def test_how_tests_ended_is_read_between_what_the_code_prints() -> None:
    log = (
        'noise\nswarm-guard {"begun": "test_a"}\nswarm-guard {"test": "test_a", "end": "passed"}\n'
        'swarm-guard broken\nswarm-guard {"begun": "test_b"}\nlast words'
    )
    assert [(e.test, e.end) for e in endings(log)] == [("test_a", "passed"), ("test_b", "failed")]
    assert endings(log, timed_out=True)[1].end == "hung"


def test_tests_are_parted_by_how_they_ended() -> None:
    drafts = [Draft(f"test_{n}", f'def test_{n}():\n    """It holds."""', n) for n in "abc"]
    file = DraftFile("file", "About.", "", tuple(drafts))
    ended = [
        Ending("test_a", "passed"),
        Ending("test_b", "failed", "ValueError: no", "x.py:3"),
        Ending("test_c", "unfit", "TypeError: what"),
    ]
    found = sort_out(file, ended)
    assert found.locked is not None
    assert [d.name for d in found.locked.drafts] == ["test_a"]
    (bug,) = found.bugs
    assert bug.told == "It holds: 1 of 3 tests fail on the base, with b: ValueError: no (x.py:3)"
    assert [e.test for e in found.unfit] == ["test_c"]


def test_a_file_of_tests_is_taken_apart() -> None:
    text = "import os\nX = 1\n\n\ndef test_a():\n    pass\n\n\ndef test_b(fixture):\n    pass\n"
    found = split_python(text, "drafted", "About.")
    assert found is not None
    assert [d.name for d in found.drafts] == ["test_a"]
    assert "X = 1" in found.head
    assert "test_b" not in found.render()
    assert split_python("not python at all", "drafted", "About.") is None


@pytest.mark.parametrize("text", ["a b", "it's", "a: b", "# no", "'*'", "yes", "1.5", "-x", "{a}"])
def test_texts_survive_the_config(text: str, tmp_path: Path) -> None:
    config = configs.parse(
        f"target: {{scope: [a], run: {quoted(text)}, metric: {{name: m, goal: minimize}}}}",
        tmp_path / "run.yaml",
    )
    assert config.target.run == text
