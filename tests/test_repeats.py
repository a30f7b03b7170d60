"""No work twice: what counts as a repeat, and what only looks like one."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from story import Story, sha

from swarm.novelty import change_key, places, summary_key
from swarm.records import Prepared, Proposal, Proposed, Returned, Twin
from swarm.repeats import FAR, twin_of


def diff(old: str = "d = 1", new: str = "d = 2", *, at: int = 10, file: str = "net.py") -> str:
    """Give git's diff of one line that was replaced."""
    head = f"diff --git a/{file} b/{file}\nindex 1..2 100644\n--- a/{file}\n+++ b/{file}\n"
    return f"{head}@@ -{at},3 +{at},3 @@ class A\n before\n-{old}\n+{new}\n after\n"


class Told(Story):
    """A story whose agents think."""

    made = 0

    def proposal(
        self,
        diff: str,
        summary: str,
        *,
        on: str | None = None,
        files: Sequence[str] = ("net.py",),
        port_of: int | None = None,
    ) -> Proposal:
        self.made += 1
        base = on or self.state.agents["a1"].loops["main"].incumbent
        commit, tree = sha("commit", self.made), sha("tree", self.made)
        return Proposal(
            base=base,
            commit=commit,
            tree=tree,
            summary=summary,
            diff=diff,
            files=tuple(files),
            port_of=port_of,
        )

    def number(self, proposal: Proposal, agent: str = "a1") -> int:
        number = self.state.next_number
        self.add(Proposed(number=number, target="main", agent=agent, proposal=proposal))
        return number

    def discard(self, proposal: Proposal, agent: str = "a1") -> int:
        number = self.number(proposal, agent)
        self.measure(number, 3.05)
        self.decide(number, "discard", "worse", -3.0)
        return number

    def keep(self, proposal: Proposal, agent: str = "a1", *, promote: bool = True) -> int:
        number = self.number(proposal, agent)
        self.measure(number, 2.9 - 0.1 * number)
        self.decide(number, "keep", "better", 9.0)
        if promote:
            self.promote(number)
        return number

    def twin(self, proposal: Proposal, agent: str = "a1") -> Twin | None:
        return twin_of(self.state, agent, "main", proposal)


@pytest.fixture
def story() -> Told:
    story = Told(agents=2)
    story.launch()
    story.baseline(3.0, 3.01, 2.99)
    return story


# --- repeats ------------------------------------------------------------------------------------


def test_the_same_change_is_a_repeat(story: Told) -> None:
    first = story.discard(story.proposal(diff(), "double the width"))
    again = story.proposal(diff(new="d =  2 "), "try a wider layer here")
    assert story.twin(again, "a2") == Twin(number=first, same="change")


def test_the_same_words_are_a_repeat(story: Told) -> None:
    first = story.number(story.proposal(diff(), "Double the width!"))
    again = story.proposal(diff(new="d = 3"), "double the WIDTH")
    assert story.twin(again, "a2") == Twin(number=first, same="summary")


def test_the_same_change_is_a_repeat_when_best_has_moved(story: Told) -> None:
    first = story.discard(story.proposal(diff(), "double the width"))
    story.keep(story.proposal(diff("x", "y", at=1), "another y than x"), "a2")
    again = story.proposal(diff(at=12), "try a wider layer", on=story.target.best)
    assert story.twin(again) == Twin(number=first, same="change")
    for n in range(FAR):
        on = story.target.best
        story.keep(story.proposal(diff("x", f"y{n}", at=1), f"now y{n} for x", on=on), "a2")
    assert story.twin(again.model_copy(update={"base": story.target.best})) is None


# --- what only looks like one --------------------------------------------------------------------


def test_the_same_lines_elsewhere_are_another_change(story: Told) -> None:
    """Two layers have `dropout = 0.1`: that the first was changed says nothing of the second."""
    story.discard(story.proposal(diff(at=10), "less dropout in the encoder"))
    other = story.proposal(diff(at=90), "less dropout in the decoder")
    assert story.twin(other) is None
    story.add(Prepared(agent="a2", target="main", proposal=other))
    third = story.proposal(diff(at=50), "less dropout between the two")
    assert story.twin(third) is None


def test_what_the_incumbent_has_can_be_done_once_more(story: Told) -> None:
    """One more layer, which helped, and then one more."""
    layer = diff("pass", "net.append(Layer())")
    first = story.keep(story.proposal(layer, "add one more layer"), promote=False)
    more = story.proposal(layer, "add one more layer")
    assert more.base != story.experiment(first).base
    assert story.twin(more) is None, "its own keep, which waits for the merger"
    story.promote(first)
    on_best = story.proposal(layer, "add one more layer", on=story.target.best)
    assert story.twin(on_best, "a2") is None
    before = story.proposal(layer, "add one more layer", on=story.target.info.base)
    assert story.twin(before, "a2") == Twin(number=first, same="change"), "it is there already"


def test_a_summary_that_never_changes_says_nothing(story: Told) -> None:
    """A program that prints the same line every time is measured all the same."""
    said = "I have changed the file."
    first = story.discard(story.proposal(diff(), said))
    second = story.proposal(diff(new="d = 3"), said)
    twin = Twin(number=first, same="summary")
    assert story.twin(second) == twin
    story.add(Returned(agent="a1", target="main", proposal=second, twin=twin))
    assert story.twin(second) == twin, "the same change again, and nothing else said of it"
    assert story.twin(story.proposal(diff(new="d = 4"), said)) is None


@pytest.mark.parametrize("said", ["Done.", "aider v0.86.1", "change net.py", ""])
def test_a_summary_that_says_nothing_is_none(story: Told, said: str) -> None:
    story.discard(story.proposal(diff(), said))
    assert story.twin(story.proposal(diff(new="d = 3"), said)) is None


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("set the bias to -1", "set the bias to 1"),
        ("lr 0.1 -> -0.2", "lr 0.1 -> 0.2"),
        ("scale by x + 1", "scale by x * 1"),
        ("stop if a < b", "stop if a > b"),
        ("lr 1e-3 to 2e-3", "lr 1e-3 to 2e-4"),
    ],
)
def test_summaries_that_differ(one: str, two: str) -> None:
    assert summary_key(one) != summary_key(two)


@pytest.mark.parametrize(
    "said", ["DELTA: 7 -> 9", "delta 7 => 9.", "`DELTA` 7→9", "Delta: 7 - 9", "delta 7->9"]
)
def test_summaries_that_say_the_same(said: str) -> None:
    assert summary_key(said) == "delta 7 9"


# --- changes ------------------------------------------------------------------------------------


def test_comments_are_not_taken_for_headers() -> None:
    one, two = (diff(f"-- {word}, of 3", "select 1", file="a.sql") for word in ("up", "no"))
    assert change_key(one) != change_key(two)


def test_nothing_but_blank_lines_is_no_key() -> None:
    head = "diff --git a/p.md b/p.md\n--- a/p.md\n+++ b/p.md\n@@ -1,2 +1,3 @@\n a\n"
    assert change_key(f"{head}+\n b\n") == ""


def test_a_diff_that_was_cut_is_no_key() -> None:
    assert change_key(diff() + "\n[... 900 more characters]\n") == ""
    assert change_key(diff("[... 1, 2]", "[]")) != ""


def test_places_are_those_of_the_base() -> None:
    assert places(diff(at=10)) == {("+++ net.py", 11), ("+++ net.py", 12)}
    assert places(diff(at=10)) == places(diff(new="d = 5", at=10))
    new = "diff --git a/n b/n\nnew file mode 100644\n--- /dev/null\n+++ b/n\n@@ -0,0 +1 @@\n+x\n"
    assert {at for _, at in places(new)} == {1}
