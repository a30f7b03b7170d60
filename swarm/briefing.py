"""All that a proposer is told. Pure: values in, briefing out; no file, no clock, no randomness."""

from __future__ import annotations

from pydantic import Field

from swarm.records import Attempt, MetricSpec, Noun


class Idea(Noun):
    """A proven change that did not fit on `best` textually; to be carried over by a proposer."""

    number: int
    summary: str
    rationale: str
    diff: str
    edit: dict[str, object] | None = None


class Briefing(Noun):
    """What one proposal is made from."""

    run: str
    agent: str
    metric: MetricSpec
    scope: tuple[str, ...]
    program: str = ""
    """The objective and the rules, in the user's words."""
    seed: int
    """Differs for every proposal of a run; all randomness of a proposer comes from it."""
    incumbent: str
    """The commit in the worktree, which the candidate will be compared with."""
    incumbent_mean: float | None = None
    incumbent_se: float | None = None
    noise: float | None = None
    """Run-to-run standard deviation of the metric, None until it is known."""
    attempts: tuple[Attempt, ...] = Field(default=(), repr=False)
    """Every experiment of the target so far, by any agent, in flight included, by number."""
    port: Idea | None = None
