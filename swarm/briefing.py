"""All that a proposer is told. Pure: values in, briefing out; no file, no clock, no randomness."""

from __future__ import annotations

from typing import NamedTuple

from pydantic import Field

from swarm.groups import Role
from swarm.records import Attempt, MetricSpec, Noun, Twin


class Idea(Noun):
    """A proven change that did not fit on `best` textually; to be carried over by a proposer."""

    number: int
    summary: str
    rationale: str
    diff: str
    edit: dict[str, object] | None = None


class Directive(Noun):
    """What kind of change is wanted in this round, and why."""

    role: Role = "explore"
    pivot: bool = False
    """The agent's last ideas failed in a row: begin afresh, in another direction."""
    plateau: bool = False
    """Nobody has found anything for long: change the structure, not a constant or a wording."""
    streak: int = 0
    """Experiments of this agent in a row without a keep."""
    retry: int | None = None
    """An earlier experiment to be tried again, because `best` has moved far since."""


class Crash(Noun):
    """An experiment of the agent's own that crashed and may be mended. Its change, not the
    incumbent, is in the worktree.
    """

    number: int
    summary: str
    rationale: str
    diff: str
    reason: str
    tail: str


class Repeat(Noun):
    """The agent's last proposal, which was not taken because it repeats an earlier one."""

    twin: Twin
    summary: str


class Briefing(Noun):
    """What one proposal is made from."""

    run: str
    agent: str
    metric: MetricSpec
    scope: tuple[str, ...]
    program: str = ""
    """The objective and the rules, in the user's words."""
    limits: tuple[str, ...] = ()
    """The constraints and the limits on a change, one sentence each."""
    seed: int
    """Differs for every proposal of a run; all randomness of a proposer comes from it."""
    incumbent: str
    """The commit in the worktree, which the candidate will be compared with."""
    incumbent_mean: float | None = None
    incumbent_se: float | None = None
    noise: float | None = None
    """Run-to-run standard deviation of the metric, None until it is known."""
    detectable: float | None = None
    """The smallest gain that can be told from noise, in the metric's unit."""
    level: int = 0
    """How many promotions `best` has seen."""
    directive: Directive = Directive()
    attempts: tuple[Attempt, ...] = Field(default=(), repr=False)
    """Every experiment of the target so far, by any agent, in flight included, by number."""
    earlier: tuple[Attempt, ...] = Field(default=(), repr=False)
    """Experiments of an earlier run, which this one was started from."""
    others: tuple[str, ...] = ()
    """Summaries of changes by others that are prepared but have no number yet."""
    port: Idea | None = None
    crash: Crash | None = None
    repeat: Repeat | None = None


class Text(NamedTuple):
    """A briefing in words."""

    prefix: str
    """The same for every experiment of a group as long as the program does not change."""
    round: str
    """What is known now."""

    @property
    def whole(self) -> str:
        """Both, for proposers that take one text."""
        return f"{self.prefix}\n\n{self.round}"


def render(briefing: Briefing, *, allowance: int = 12_000) -> Text:
    """Put a briefing into words, in at most about `allowance` tokens beyond the program.

    Text that agents, candidates and harnesses wrote is delimited as data.
    """
    raise NotImplementedError
