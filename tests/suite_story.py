"""Runs of a suite that never ran, see `story`: cases are written as a pattern, `110-0`.

`1` is a case that passed, `0` one that failed, `-` one that was not asked for.
"""

from __future__ import annotations

from typing import Any

from story import Story

from swarm.entities import FINAL_INDEX
from swarm.records import (
    CASES,
    Case,
    Decided,
    FreshResult,
    Purpose,
    Sealed,
    Verdict,
)


def names(pattern: str, wanted: str) -> tuple[str, ...]:
    """Give the cases of a pattern whose mark is one of those wanted."""
    return tuple(f"c{i}" for i, mark in enumerate(pattern, 1) if mark in wanted)


class SuiteStory(Story):
    """Writes the events of a run whose metric is the share of cases that pass."""

    def __init__(self, *baseline: str, agents: int = 3) -> None:
        super().__init__(run="skill", metric=CASES, goal="maximize", agents=agents)
        self.launch()
        for pattern in baseline:
            self.run(self.base, self.base_tree, "baseline", None, pattern)

    def run(
        self, commit: str, tree: str, purpose: Purpose, number: int | None, pattern: str,
        **fields: Any,
    ) -> None:  # fmt: skip
        """Write one measurement of a commit."""
        asked, passed = names(pattern, "01"), names(pattern, "1")
        partial = "-" in pattern
        self._measured(
            commit,
            tree,
            purpose,
            number,
            cases=tuple(Case(id=c, passed=c in passed) for c in asked),
            asked=asked if partial else None,
            values={} if partial else {CASES: len(passed) / len(pattern)},
            **fields,
        )

    def candidate(self, number: int, *patterns: str) -> None:
        """Measure an experiment."""
        proposal = self.experiment(number).proposal
        assert proposal.commit is not None
        assert proposal.tree is not None
        for pattern in patterns:
            self.run(proposal.commit, proposal.tree, "candidate", number, pattern)

    def ruled(
        self, number: int, verdict: Verdict, z: float = 3.0, *, fixed: str = "", broken: str = ""
    ) -> None:
        """Decide an experiment; `fixed` and `broken` are cases with blanks between them."""
        ours = self.target.primary(self.commit(number)).mean
        gain = ours - self.target.primary(self.experiment(number).base).mean
        self.add(
            Decided(
                number=number,
                verdict=verdict,
                reason="by its cases",
                z=z,
                gain=gain,
                fixed=tuple(fixed.split()),
                broken=tuple(broken.split()),
            )
        )

    def tried(self, agent: str, summary: str, pattern: str, verdict: Verdict, **more: Any) -> int:
        """Tell a whole experiment; a keep goes to `best`, and its agent with it."""
        number = self.propose(agent, summary, on=self.target.best)
        self.candidate(number, pattern)
        self.ruled(number, verdict, **more)
        if verdict == "keep":
            self.promote(number)
        return number

    def sealed_finals(self, pattern: str, base: float, best: float) -> FreshResult:
        """Measure base and best afresh, and with the sealed command; `finish` takes the result."""
        for commit, value in ((self.base, base), (self.target.best, best)):
            tree, sealed = self.target.tree_of[commit], Sealed(values={CASES: value})
            self.run(commit, tree, "final", None, pattern, index=FINAL_INDEX, sealed=sealed)
        confirmed = FreshResult(gain=best - base, se=0.01, n=1, base_mean=base, best_mean=best)
        return FreshResult(
            gain=0.2, se=0.02, n=1, base_mean=0.4, best_mean=0.6, confirmed=confirmed
        )


BASELINE = ("1110010000", "1110000000", "1110010000", "1110000000", "1110010000")


def evening() -> SuiteStory:
    """Ten cases: three always pass, one is flaky, six fail; four experiments, one kept."""
    story = SuiteStory(*BASELINE)
    story.tried("a1", "Use a list", "0010000001", "discard", z=-2.0, fixed="c10", broken="c1 c2")
    story.tried("a2", "Show an example", "1111000000", "keep", fixed="c4")
    story.tried("a3", "Be brief", "0111100000", "discard", z=0.5, fixed="c5", broken="c1")
    story.tried("a1", "Number the steps", "0111000001", "discard", z=0.0, fixed="c10", broken="c1")
    return story
