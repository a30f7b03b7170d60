"""Merging by lines: neighbours merge, the same line does not."""

from hypothesis import given
from hypothesis import strategies as st

from swarm.merge3 import merge3

BASE = b"a = 1\nb = 2\nc = 3\n"


def test_neighbouring_lines_merge() -> None:
    ours, theirs = BASE.replace(b"a = 1", b"a = 9"), BASE.replace(b"b = 2", b"b = 8")
    assert merge3(BASE, ours, theirs) == b"a = 9\nb = 8\nc = 3\n"


def test_the_same_line_is_a_conflict_unless_changed_alike() -> None:
    one, two = BASE.replace(b"2", b"7"), BASE.replace(b"2", b"8")
    assert merge3(BASE, one, two) is None
    assert merge3(BASE, one, one) == one


def test_a_removed_line_and_its_neighbour_merge() -> None:
    assert merge3(BASE, b"a = 1\nc = 3\n", BASE.replace(b"3", b"4")) == b"a = 1\nc = 4\n"


def test_two_insertions_at_one_place_are_a_conflict() -> None:
    assert merge3(BASE, b"x\n" + BASE, b"y\n" + BASE) is None


def test_an_insertion_before_a_changed_line_keeps_both() -> None:
    ours = BASE.replace(b"b = 2\n", b"x = 0\nb = 2\n")
    assert merge3(BASE, ours, BASE.replace(b"2", b"5")) == b"a = 1\nx = 0\nb = 5\nc = 3\n"


def test_binary_content_is_left_alone() -> None:
    assert merge3(b"\0", b"\0a", b"b\0") is None


lines = st.lists(st.sampled_from([b"a\n", b"b\n", b"c\n", b"d\n"]), max_size=12)


@given(lines, lines)
def test_one_sided_changes_always_merge(base: list[bytes], new: list[bytes]) -> None:
    old, text = b"".join(base), b"".join(new)
    assert merge3(old, text, old) == text
    assert merge3(old, old, text) == text


@given(lines, lines, lines)
def test_the_sides_are_equal(base: list[bytes], ours: list[bytes], theirs: list[bytes]) -> None:
    old, left, right = (b"".join(t) for t in (base, ours, theirs))
    assert merge3(old, left, right) == merge3(old, right, left)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=20), st.data())
def test_changes_of_different_lines_always_merge(values: list[int], data: st.DataObject) -> None:
    """Each line is unique, so the differ cannot align it with another."""
    base = [f"line {i} = {v}\n" for i, v in enumerate(values)]
    mine = data.draw(st.sets(st.integers(0, len(base) - 1)))
    ours = [line.upper() if i in mine else line for i, line in enumerate(base)]
    theirs = [line if i in mine else line.replace("=", "!=") for i, line in enumerate(base)]
    both = [o if i in mine else t for i, (o, t) in enumerate(zip(ours, theirs, strict=True))]
    merged = merge3(*("".join(t).encode() for t in (base, ours, theirs)))
    assert merged == "".join(both).encode()
