"""The tools that a model is given, on real files: what they do, and what they never do."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from proposer_contract import brief, plant, snapshot, workspace

from swarm.proposers import Workspace, file_tools
from swarm.proposers.file_tools import LIMIT, ToolError
from swarm.records import Attempt
from swarm.scope import Scope

FILES = {
    "train.py": "LR = 0.001\nDROPOUT = 0.2\n",
    "conf/model.yaml": "lr: 0.01\r\nname: adam\r\n",
    "README.md": "Only to be read.\n",
    "answers/key.txt": "42\n",
    "answers/conftest.py": "SECRET = 42\n",
    "tests/conftest.py": "# guarded\n",
    ".git": "gitdir: elsewhere\n",
}


@pytest.fixture
def space(tmp_path: Path) -> Workspace:
    """Plant a worktree with something secret beside it."""
    (tmp_path / "secret.txt").write_text("secret")
    opened = workspace(plant(tmp_path / "worktree", FILES), ("*.py", "conf/", "new/", "answers/"))
    return replace(opened, hidden=Scope(("answers/",)))


def do(space: Workspace, name: str, /, **given: Any) -> str:
    """Run a tool."""
    return file_tools.run(space, brief(), name, given)


def fails(space: Workspace, name: str, /, **given: Any) -> str:
    """Run a tool that must fail, and leave everything as it is."""
    before = snapshot(space.root.parent)
    with pytest.raises(ToolError) as caught:
        do(space, name, **given)
    assert snapshot(space.root.parent) == before
    return str(caught.value)


# --- confinement ----------------------------------------------------------------------------------

OUTSIDE = [
    "../secret.txt",
    "conf/../../secret.txt",
    "conf/../train.py",
    "/etc/passwd",
    ".git",
    ".GIT/config",
    "conf/.git/hooks/x",
    "",
    ".",
    "a\0b",
    "x" * 300,
    "y/" * 600 + "z",
    "answers/key.txt",
    "answers/conftest.py",
    "./answers//key.txt",
    "conf",
    "train.py/below",
]


@pytest.mark.parametrize("path", OUTSIDE)
def test_no_path_leads_out(space: Workspace, path: str) -> None:
    fails(space, "read_file", path=path)
    fails(space, "edit_file", path=path, old="2", new="3")
    fails(space, "write_file", path=path, content="x")
    fails(space, "delete_file", path=path)


@pytest.mark.parametrize("path", ["README.md", "tests/conftest.py", "conf.py/../x", "sub/x.py"])
def test_only_the_scope_is_written(space: Workspace, path: str) -> None:
    fails(space, "write_file", path=path, content="x")
    fails(space, "delete_file", path=path)


def test_links_are_not_followed(space: Workspace, tmp_path: Path) -> None:
    root = space.root
    (root / "link.py").symlink_to(tmp_path / "secret.txt")
    (root / "inner.py").symlink_to("train.py")
    (root / "dangling.py").symlink_to(tmp_path / "not-there.py")
    (root / "new").symlink_to(tmp_path)
    for path in ("link.py", "inner.py", "dangling.py", "new/secret.txt", "new/other.py"):
        assert "link" in fails(space, "read_file", path=path)
        assert "link" in fails(space, "write_file", path=path, content="x")
        assert "link" in fails(space, "edit_file", path=path, old="s", new="x")
        assert "link" in fails(space, "delete_file", path=path)
    assert "link.py" not in do(space, "list_files")
    assert "secret" not in do(space, "search", pattern="secret")
    assert not (tmp_path / "not-there.py").exists()


def test_only_regular_files(space: Workspace) -> None:
    os.mkfifo(space.root / "pipe.py")
    for name, given in (
        ("read_file", {}),
        ("write_file", {"content": "x"}),
        ("edit_file", {"old": "a", "new": "b"}),
        ("delete_file", {}),
    ):
        with pytest.raises(ToolError, match="no regular file"):
            do(space, name, path="pipe.py", **given)
    assert "pipe" not in do(space, "list_files")


def test_hidden_files_are_nowhere(space: Workspace) -> None:
    assert "answers" not in do(space, "list_files")
    assert "42" not in do(space, "search", pattern="42")
    for pattern in ("answers/*", "**/conftest.py", "*/conf*.py", "answers"):
        assert file_tools.is_hidden(Scope((pattern,)), "answers/conftest.py"), pattern
    assert not file_tools.is_hidden(Scope(("answers/",)), "tests/conftest.py")


# --- reading --------------------------------------------------------------------------------------


def test_lists_what_may_be_changed_apart(space: Workspace) -> None:
    free, _, fixed = do(space, "list_files").partition("You may only read:")
    assert free.split("\n")[1:3] == ["train.py", "conf/model.yaml"]
    assert "README.md" in fixed
    assert ".git" not in fixed
    assert "train.py" not in do(space, "list_files", glob="*.yaml")
    assert "conf/model.yaml" in do(space, "list_files", glob="*.yaml")
    assert "conf/model.yaml" in do(space, "list_files", glob="conf/")


@pytest.mark.parametrize(
    ("glob", "found"),
    [
        ("*.py", {"a.py", "src/b.py", "src/deep/c.py", "conftest.py"}),
        ("src/", {"src/b.py", "src/deep/c.py"}),
        ("src", {"src/b.py", "src/deep/c.py"}),
        ("./src/*.py", {"src/b.py"}),
        ("src/**/*.py", {"src/b.py", "src/deep/c.py"}),
        ("src/**.py", {"src/b.py", "src/deep/c.py"}),
        ("**/c.py", {"src/deep/c.py"}),
        ("deep", {"src/deep/c.py"}),
        (".", {"a.py", "src/b.py", "src/deep/c.py", "conftest.py", "n.txt"}),
        ("[ab].py", {"a.py", "src/b.py"}),
        ("[", set[str]()),
    ],
)
def test_globs(tmp_path: Path, glob: str, found: set[str]) -> None:
    names = {"a.py", "src/b.py", "src/deep/c.py", "conftest.py", "n.txt"}
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x\n")
    bare = Workspace(tmp_path, Scope(("**",)), (), lambda: None)
    listed = file_tools.list_files(bare, glob)
    assert set(listed.splitlines()) & names == found


@pytest.mark.timeout(20)
@pytest.mark.parametrize("glob", ["*" * 40 + "z", "*a" * 30 + "z", "a/" + "**/" * 300 + "z"])
def test_no_glob_takes_for_ever(tmp_path: Path, glob: str) -> None:
    (tmp_path / ("a" * 200)).write_text("x\n")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / ("a" * 200)).write_text("x\n")
    bare = Workspace(tmp_path, Scope(("**",)), (), lambda: None)
    assert "a" not in file_tools.list_files(bare, glob).splitlines()[1:]


def test_reads_lines_with_numbers(space: Workspace) -> None:
    assert do(space, "read_file", path="train.py") == "    1\tLR = 0.001\n    2\tDROPOUT = 0.2"
    assert do(space, "read_file", path="./conf/model.yaml", start=2) == "    2\tname: adam"
    assert do(space, "read_file", path="train.py", start="2", end=9) == "    2\tDROPOUT = 0.2"
    assert "ends before" in do(space, "read_file", path="train.py", start=9)
    fails(space, "read_file", path="train.py", start=0)
    fails(space, "read_file", path="train.py", start=2, end=1)
    assert "no file" in fails(space, "read_file", path="none.py")


def test_long_files_are_read_in_parts(space: Workspace) -> None:
    plant(space.root, {"long.py": "".join(f"line {n} {'x' * 40}\n" for n in range(1, 2001))})
    text = do(space, "read_file", path="long.py")
    assert len(text) < LIMIT + 200
    start = int(text.rpartition("start=")[2].rstrip("]"))
    assert do(space, "read_file", path="long.py", start=start).startswith(
        f"{start:>5}\tline {start} "
    )
    plant(space.root, {"wide.py": "y" * 100_000})
    assert "more characters" in do(space, "read_file", path="wide.py")


def test_says_what_is_no_text(space: Workspace) -> None:
    (space.root / "data.py").write_bytes(b"\x7fELF\0\0" + b"x" * 94)
    assert "binary file of 100 bytes" in fails(space, "read_file", path="data.py")
    assert "binary" in fails(space, "edit_file", path="data.py", old="x", new="y")
    (space.root / "latin.py").write_bytes(b"# caf\xe9\n")
    assert "caf" in do(space, "read_file", path="latin.py")
    assert "UTF-8" in fails(space, "edit_file", path="latin.py", old="# caf", new="y")
    with open(space.root / "huge.py", "wb") as file:
        file.write(b"x\n" * 100)
        file.truncate(3)
        file.seek(50_000_000)
        file.write(b"x")
    assert "50000001 bytes" in fails(space, "read_file", path="huge.py")
    (space.root / "empty.py").write_bytes(b"")
    assert "empty" in do(space, "read_file", path="empty.py")
    os.mkdir(os.fsencode(space.root / "conf") + b"/\xff\xfe")
    assert do(space, "list_files")


def test_searches_by_line(space: Workspace) -> None:
    assert do(space, "search", pattern=r"^LR\s*=") == "train.py:1: LR = 0.001"
    assert do(space, "search", pattern="name", glob="*.yaml") == "conf/model.yaml:2: name: adam"
    assert "no match" in do(space, "search", pattern="nothing like it")
    assert "unterminated" in fails(space, "search", pattern="(a")
    fails(space, "search", pattern="x" * 5000)


def test_a_search_has_limits(space: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(space.root, {"a.py": "a" * 60 + "!\n", "many.py": "match me\n" * 20_000})
    with monkeypatch.context() as patched:
        patched.setattr(file_tools, "SEARCH_S", 0.7)
        started = time.monotonic()
        assert "too long" in fails(space, "search", pattern=r"^(a+)+$")
        assert time.monotonic() - started < 3
    found = do(space, "search", pattern="match")
    assert len(found) <= LIMIT
    assert "there is more" in found


# --- changing -------------------------------------------------------------------------------------


def test_edits_one_place_and_keeps_the_rest(space: Workspace) -> None:
    place = space.root / "conf/model.yaml"
    place.chmod(0o755)
    assert do(space, "edit_file", path="conf/model.yaml", old="0.01\nname", new="0.02\n\nname")
    assert place.read_bytes() == b"lr: 0.02\r\n\r\nname: adam\r\n"
    assert place.stat().st_mode & 0o777 == 0o755
    do(space, "write_file", path="conf/model.yaml", content="a\nb\n")
    assert place.read_bytes() == b"a\r\nb\r\n"
    assert place.stat().st_mode & 0o777 == 0o755


def test_an_edit_must_be_unique(space: Workspace) -> None:
    plant(space.root, {"twice.py": "aaa\nx = 1\ny = 1\n"})
    assert "lines 2, 3" in fails(space, "edit_file", path="twice.py", old="= 1", new="= 2")
    assert "more than once" in fails(space, "edit_file", path="twice.py", old="aa", new="b")
    assert "not in" in fails(space, "edit_file", path="twice.py", old="z = 1", new="= 2")
    assert "spaces" in fails(space, "edit_file", path="twice.py", old="x =  1", new="= 2")
    assert "same" in fails(space, "edit_file", path="twice.py", old="x", new="x")
    assert "empty" in fails(space, "edit_file", path="twice.py", old="", new="x")
    assert "no file" in fails(space, "edit_file", path="none.py", old="a", new="x")
    do(space, "edit_file", path="twice.py", old="x = 1\n", new="")
    assert (space.root / "twice.py").read_text() == "aaa\ny = 1\n"


def test_writes_and_deletes(space: Workspace) -> None:
    do(space, "write_file", path="new/deep/file.txt", content="ä\n")
    assert (space.root / "new/deep/file.txt").read_bytes() == "ä\n".encode()
    do(space, "write_file", path="train.py", content="")
    assert (space.root / "train.py").read_bytes() == b""
    do(space, "delete_file", path="train.py")
    assert not (space.root / "train.py").exists()
    assert "no file" in fails(space, "delete_file", path="train.py")
    assert "at most" in fails(space, "write_file", path="train.py", content="x" * 2_000_000)
    assert "not valid text" in fails(space, "write_file", path="train.py", content="a\ud800")


# --- experiments and inputs -----------------------------------------------------------------------


def test_shows_an_experiment(space: Workspace) -> None:
    told = Attempt(
        number=3,
        agent="a2",
        base="c",
        tree="t",
        summary="lr up",
        verdict="discard",
        gain=-0.25,
        rationale="because",
        reason="worse",
        diff="-a\n+b\n" * 9000,
        feedback="case 7 fails",
        tail="the end",
        values={"loss": 2.25},
    )
    old = told.model_copy(update={"number": 9, "summary": "of old"})
    known = brief(attempts=(told,), earlier=(old,))
    text = file_tools.run(space, known, "view_experiment", {"number": 3})
    for part in ("discard", "-0.25", "lr up", "because", "worse", "case 7", "the end", "loss=2.25"):
        assert part in text
    assert len(text) < LIMIT + 100
    text = file_tools.run(space, known, "view_experiment", {"number": "9"})
    assert "earlier run" in text
    with pytest.raises(ToolError, match="no experiment 4"):
        file_tools.run(space, known, "view_experiment", {"number": 4})


@pytest.mark.parametrize("given", [None, 3, "x", [], {"path": None}, {"path": []}, {"p": "x"}])
def test_wrong_inputs_are_said_to_be_wrong(space: Workspace, given: object) -> None:
    for tool in file_tools.TOOLS:
        if tool.name != "list_files" or not isinstance(given, dict):
            with pytest.raises(ToolError):
                file_tools.run(space, brief(), tool.name, given)
    with pytest.raises(ToolError, match="no tool"):
        file_tools.run(space, brief(), "bash", {"command": "ls"})


def test_schemas_are_closed() -> None:
    for tool in file_tools.TOOLS:
        schema = tool.spec()["input_schema"]
        assert schema["additionalProperties"] is False
        assert set(schema["required"]) <= set(schema["properties"])
