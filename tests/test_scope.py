"""Which paths an experiment may change."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.scope import GUARDED_NAMES, Scope, is_guarded


@pytest.mark.parametrize(
    ("pattern", "inside", "outside"),
    [
        ("train.py", ["train.py"], ["train.pyc", "a/train.py", "train", "trainxpy", "Train.py"]),
        ("./train.py", ["train.py"], ["./train.py"]),
        ("src", ["src", "src/a", "src/a/b.py"], ["srcs/a", "a/src/b"]),
        ("src/", ["src/a", "src/a/b.py"], ["srcs", "xsrc/a"]),
        ("*.py", ["a.py", ".py"], ["a/b.py", "a.pyc"]),
        ("src/*.py", ["src/a.py"], ["src/a/b.py", "src/a.py/c"]),
        ("src/*/", ["src/a/b", "src/a/b/c"], ["src2/a/b"]),
        ("src/**", ["src/a", "src/a/b"], ["src", "srcs/a"]),
        ("**/x.py", ["x.py", "a/x.py", "a/b/x.py"], ["ax.py", "a/bx.py"]),
        ("src/**/x.py", ["src/x.py", "src/a/x.py", "src/a/b/x.py"], ["src/ax.py", "x.py"]),
        ("a?c", ["abc"], ["ac", "a/c", "abbc"]),
        ("[ab].py", ["a.py", "b.py"], ["c.py", "ab.py", "[ab].py"]),
        ("[!a].py", ["b.py"], ["a.py", "/.py"]),
        ("src[!x]a.py", ["src-a.py"], ["src/a.py", "srcxa.py"]),
        ("src[+-9]a.py", ["src.a.py", "src5a.py"], ["src/a.py"]),
        ("[a-c]", ["a", "b", "c"], ["d", "-"]),
        ("[z-a]", [], ["a", "z", "-"]),
        ("[!z-a]", ["a", "z", "-"], ["/", "ab"]),
        ("[^a]", ["^", "a"], ["b"]),
        ("[a[]", ["a", "["], ["b"]),
        ("[a&&b]", ["a", "&", "b"], ["c"]),
        ("[a", ["[a"], ["a"]),
        ("a+b(c).py", ["a+b(c).py"], ["aab(c).py", "a+bc.py"]),
        (".", ["a", "a/b"], ["conftest.py"]),
        ("**", ["a", "a/b"], ["a/.gitattributes"]),
        ("ünï/*", ["ünï/ä"], ["uni/a"]),
        ("a b/c d", ["a b/c d"], ["a", "b/c"]),
    ],
)
def test_patterns(pattern: str, inside: list[str], outside: list[str]) -> None:
    scope = Scope([pattern])
    assert [p for p in inside if p not in scope] == []
    assert [p for p in outside if p in scope] == []


@pytest.mark.parametrize("name", [*GUARDED_NAMES, "x.pth"])
@pytest.mark.parametrize("folder", ["", "src/", "src/deep/"])
def test_names_that_steer_tools_are_admitted_by_their_literal_path_only(
    name: str, folder: str
) -> None:
    path = folder + name
    assert is_guarded(path)
    for pattern in (".", "**", "src", "src/", f"**/{name}", f"{folder}*", "src/**"):
        if pattern != path:
            assert path not in Scope([pattern])
    assert path in Scope([path])
    assert path in Scope([".", path])
    assert f"{folder}my_{name}" in Scope(["."]) or name == "x.pth"


def test_a_scope_is_the_union_of_its_patterns() -> None:
    scope = Scope(["a.py", "b/*.py"])
    assert "a.py" in scope
    assert "b/c.py" in scope
    assert "c.py" not in scope
    assert "a.py" in repr(scope)


names = st.text(st.sampled_from("ab.-_ é"), min_size=1, max_size=4).filter(lambda n: n.strip("."))
paths = st.lists(names, min_size=1, max_size=4).map("/".join)


@given(paths, names)
def test_a_literal_path_covers_itself_and_what_is_below(path: str, name: str) -> None:
    scope = Scope([path])
    assert path in scope
    assert f"{path}/{name}" in scope
    assert path + "x" not in scope
    assert "x" + path not in scope


@given(st.text(st.sampled_from("ab[]!^-*?&|~\\."), min_size=1, max_size=8), paths)
def test_without_two_stars_no_pattern_crosses_into_another_part(pattern: str, path: str) -> None:
    """Any text is a pattern, and only `**`, a literal directory and `.` reach below a part."""
    scope = Scope([pattern])
    literal = not set("*?[") & set(pattern)
    if "/" in path and "**" not in pattern and not literal:
        assert path not in scope


def test_a_scope_cannot_leave_the_wider_one() -> None:
    narrow = Scope(["src/", "bench.py"], within=Scope(["src/"]))
    assert "src/a.py" in narrow
    assert "bench.py" not in narrow
    assert narrow == Scope(["src/", "bench.py"], within=Scope(["src/"]))
    assert narrow != Scope(["src/", "bench.py"])
