"""The config of a run: every key, its default, its meaning, and what is said when it is wrong.

Owns `RunConfig`, loading it from YAML with all problems at once, its JSON Schema, and the
resolved form that a run stores. Looks at no file but the config itself, `program` and the scripted
patches; the agents' part is in `groups`. Knows no git and no Ray: whether `repo` exists is found
out by those who use it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import (
    BeforeValidator,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.json_schema import SkipJsonSchema

from swarm.errors import ConfigError, Problem
from swarm.groups import AgentGroup, ProposerConfig
from swarm.quantities import (
    NAME_RULE,
    Address,
    Command,
    Commands,
    Count,
    Duration,
    EnvName,
    EnvValue,
    Globs,
    Hidden,
    MetricName,
    MetricPattern,
    Number,
    Percent,
    RunName,
    TargetName,
    Text,
    Whole,
    WholeOrAuto,
    is_ref_part,
    show,
    some,
    wrong,
    wrong_at,
)
from swarm.records import CASES, Goal, MetricSpec
from swarm.rules import JudgeConfig, Limit, disorder
from swarm.scope import Scope
from swarm.sections import Section, existing, is_file, report, report_unknown, resolve
from swarm.trust import ProviderConfig, SandboxConfig
from swarm.yaml_marks import Document, Loc, Places, compose, read

# --- target ------------------------------------------------------------------------------------


class MetricConfig(Section):
    """The number that is optimised, and where it is found in the harness's output."""

    name: MetricName
    """Name of the primary metric, as the harness reports it."""
    goal: Goal
    """Which way is better."""
    pattern: MetricPattern | None = None
    """Regular expression with one group, the number; the last match in the log wins. `^` and `$`
    match at line ends."""
    json_path: Annotated[Text, Field(min_length=1)] | None = Field(default=None, alias="json")
    """Path into the last JSON line of the log, such as `eval.loss`, or into JSON over several
    lines."""
    lines: Literal["named", "last"] = "named"
    """Which lines may hold it by themselves: `named` the forms that the harness page lists; `last`
    also the last line of the output, if it has one number or is what pytest or ruff close with, and
    neither `pattern` nor `json` is given. With `last`, a line `SCORE: value` comes before these
    two."""
    unit: Text | None = None
    """Shown beside values; with `lines: last`, a size or time in another unit is turned into it."""

    @model_validator(mode="after")
    def _one_source(self) -> MetricConfig:
        if self.pattern is not None and self.json_path is not None:
            raise wrong_at([("json", "give `pattern` or `json`, not both")])
        if self.name == CASES:
            if self.goal != "maximize":
                raise wrong_at([("goal", "the share of cases that pass can only be maximized")])
            for key in ("pattern", "json"):
                if getattr(self, "json_path" if key == "json" else key) is not None:
                    found = "cases are read from the file $SWARM_RESULT, not from the log"
                    raise wrong_at([(key, found)])
        return self

    @property
    def spec(self) -> MetricSpec:
        """The metric as records know it."""
        return MetricSpec(name=self.name, goal=self.goal, unit=self.unit)


class ConstraintConfig(Section):
    """A limit on a metric: a candidate beyond it is not kept, however good it is."""

    metric: MetricName
    """Name of the metric, as the harness reports it."""
    pattern: MetricPattern | None = None
    """Regular expression with one group, the number, where the harness does not report it by
    name."""
    max: Number | None = None
    """Largest value allowed."""
    min: Number | None = None
    """Smallest value allowed."""
    max_regression: Percent | None = None
    """How much worse than on the base it may be."""
    goal: Goal | None = None
    """Which way is better, for `max_regression`; none: that of the target's own metric, and for any
    other that less is better, as it is of costs."""

    @model_validator(mode="after")
    def _limits(self) -> ConstraintConfig:
        if self.max is None and self.min is None and self.max_regression is None:
            raise wrong("a constraint needs `max`, `min` or `max_regression`")
        if self.goal is not None and self.max_regression is None:
            raise wrong_at(
                [("goal", "is only for `max_regression`; `max` and `min` say their side")]
            )
        if self.max is not None and self.min is not None and self.min > self.max:
            raise wrong_at([("min", f"above `max` ({self.max:g}): nothing could satisfy both")])
        return self

    @property
    def limit(self) -> Limit:
        """What the judge is told of it."""
        return Limit(self.metric, self.max, self.min, self.max_regression, self.goal)


class ChangeConfig(Section):
    """How large one experiment's change may be."""

    max_files: Annotated[Whole, Field(ge=1)] | None = None
    """Most files one experiment may touch."""
    max_lines: Annotated[Whole, Field(ge=1)] | None = None
    """Most lines, added and removed together."""


class SlotConfig(Section):
    """What one measurement is given."""

    gpus: Annotated[Number, Field(ge=0)] = 0.0
    """GPUs for each slot; below 1 for a share of one."""
    cpus: Annotated[Number, Field(gt=0)] = 1.0
    """CPU cores for each slot."""
    count: WholeOrAuto = "auto"
    """How many slots; `auto` for as many as the cluster has room for."""

    @field_validator("gpus")
    @classmethod
    def _whole_gpus(cls, gpus: float) -> float:
        if gpus > 1 and not gpus.is_integer():
            raise wrong(f"a share of one GPU or a whole number of them is wanted, not {gpus:g}")
        return gpus


class TargetBudget(Section):
    """What may be used for one target. One that has come to its end frees its slots."""

    experiments: Count | None = None
    """Most experiments, aborted ones not counted."""
    time: Duration | None = None
    """Longest time, from the beginning of the run."""
    usd: Annotated[Number, Field(gt=0)] | None = None
    """Most USD, for proposing and measuring together."""
    tokens: Count | None = None
    """Most tokens, read, cached and written."""
    stale: Count | None = None
    """End after this many experiments in a row without a keep."""
    target: Number | None = None
    """End when the best record reaches this value of the metric."""


class TargetConfig(Section):
    """What is optimised: a repository, the files that may change, the command that measures."""

    name: TargetName = "main"
    """Name of the target; not `best`."""
    repo: Path = Field(default=Path(), validate_default=True)
    """A directory in a git repository; the harness runs there."""
    base: Annotated[Text, Field(min_length=1)] = "HEAD"
    """The commit to start from."""
    dirty: Literal["refuse", "snapshot"] = "refuse"
    """What to do when the repository has uncommitted changes."""
    scope: Globs
    """Globs of the files an experiment may change, relative to `repo`."""
    exclude: Hidden = ()
    """Globs of files that an experiment may not change although `scope` has them: tests,
    generated code."""
    hide: Hidden = ()
    """Globs of files that only `score` and `final` see: answers, held-out data. Never in scope."""
    read_only: tuple[Path, ...] = ()
    """Files and directories outside the repository that a measurement may read: data, caches."""
    program: Text = ""
    """What the proposers are told about the goal: a text, or the path of a file, which is read
    again for every briefing."""
    setup: Command | None = None
    """Command run once a node in a checkout of the base, with network; what it leaves ignored by
    git is there in every measurement."""
    guard: Commands = ()
    """Commands that must exit 0 before a commit is measured."""
    run: Command
    """Command that measures: a text for the shell, or a list of words."""
    score: Command | None = None
    """Command that computes the metric from what `run` has left, in an export of its own that has
    what `hide` names; then nothing that `run` says counts."""
    artefacts: Hidden = ("*",)
    """Globs of the files of `run` that `score` and `final` get, `*` for all of them in all folders,
    `[]` for none; never code, links or programs, and never in place of a file of the base."""
    final: Command | None = None
    """Command for the end of the run only, after `run` and where `score` runs: other seeds, other
    data, held-out cases. Its metric confirms the gain; no proposer sees it, nothing depends on
    it."""
    provider: ProviderConfig | None = None
    """Models that the harness may ask while it measures; `{}` for Anthropic's."""
    metric: MetricConfig
    """The number that is optimised."""
    constraints: tuple[ConstraintConfig, ...] = ()
    """Limits on other metrics."""
    change: ChangeConfig = ChangeConfig()
    """How large one change may be."""
    timeout: Duration = Field(default=600.0, json_schema_extra={"default": "10m"})
    """Longest time for one measurement."""
    slot: SlotConfig = SlotConfig()
    """What one measurement is given."""
    env: dict[EnvName, EnvValue] = Field(default={})
    """Environment variables of the harness. Values are taken as they are written."""
    weight: Annotated[Number, Field(gt=0)] = 1.0
    """Its share of the slots' time among the `targets`."""
    budget: TargetBudget = TargetBudget()
    """When nothing new is begun on this one of the `targets`."""
    judge: JudgeConfig | None = None
    """Keys that stand, for this target, in place of those of the run's `judge`."""

    @field_validator("constraints")
    @classmethod
    def _one_pattern(cls, found: tuple[ConstraintConfig, ...]) -> tuple[ConstraintConfig, ...]:
        patterns: dict[str, str] = {}
        for constraint in found:
            pattern = constraint.pattern
            if pattern is not None and patterns.setdefault(constraint.metric, pattern) != pattern:
                raise wrong(f"{show(constraint.metric)} is read by two patterns: name it twice")
        return found

    @field_validator("read_only", mode="before", json_schema_input_type=str | list[str])
    @classmethod
    def _there(cls, paths: Any, info: ValidationInfo) -> Any:
        return existing(paths, info)

    @field_validator("repo", mode="before")
    @classmethod
    def _absolute(cls, repo: Any, info: ValidationInfo) -> str:
        if not isinstance(repo, str | Path) or str(repo) == "":
            raise wrong(f"a path is wanted, not {show(repo)}")
        return str(resolve(str(repo), info))

    @field_validator("program")
    @classmethod
    def _find_program(cls, program: str, info: ValidationInfo) -> str:
        if info.context is None or not program or "\n" in program.strip():
            return program
        path = resolve(program.strip(), info)
        if is_file(path):
            return str(path)
        # A mistyped path must not pass for a text of one word.
        if program.startswith(("/", "~", "./", "../")) or _looks_like_file(program):
            raise wrong(f"no such file: {path} (`program` is a text or a file's path)")
        return program

    @model_validator(mode="after")
    def _not_the_metric_itself(self) -> TargetConfig:
        own = self.metric.name
        if any(c.metric == own and c.pattern is not None for c in self.constraints):
            what = f"{show(own)} is the metric itself: `pattern` is for others"
            raise wrong_at([("constraints", what)])
        return self

    @property
    def area(self) -> Scope:
        """What an experiment may change: what `exclude` or `hide` name never is."""
        return Scope(self.scope, without=Scope((*self.exclude, *self.hide), guarded=False))

    @property
    def hidden(self) -> Scope:
        """What only the trusted stages see."""
        return Scope(self.hide, guarded=False)

    @property
    def program_file(self) -> Path | None:
        """The file that holds the program, None when the program is given as text."""
        one_line = "\n" not in self.program
        return Path(self.program) if one_line and self.program.startswith("/") else None


def _looks_like_file(text: str) -> bool:
    return not any(c.isspace() for c in text.strip()) and text.strip().endswith((".md", ".txt"))


# --- the run -----------------------------------------------------------------------------------


class MergeConfig(Section):
    """How wins are brought together."""

    later = ("every", "batch")

    sync: Literal["best", "none"] = "best"
    """Whether agents go on from `best`, or stay islands."""


class BudgetConfig(Section):
    """When the run ends. Without limits it runs until it is stopped."""

    experiments: Count | None = None
    """Most experiments, aborted ones not counted."""
    time: Duration | None = None
    """Longest time, over all launches of the run."""
    usd: Annotated[Number, Field(gt=0)] | None = None
    """Most USD, for proposing and measuring together."""
    tokens: Count | None = None
    """Most tokens, read, cached and written."""
    stale: Count | None = None
    """End after this many experiments of every target in a row without a keep."""
    target: Number | None = None
    """End when the best record reaches this value of the metric."""


class ClusterConfig(Section):
    """Where the run executes."""

    address: Address = "local"
    """`local` starts a cluster of its own; `host:port` joins a running one."""


OWN_FOLDERS = ("logs", "control")
"""Beside these in the run directory lie the folders of the targets, by their names."""
_WHOSE = "the targets have metrics of their own: give it in the budget of each target"


def _given(rule: JudgeConfig) -> dict[str, Any]:
    """Give what a judge's section says, its preset's part included."""
    return {name: getattr(rule, name) for name in rule.model_fields_set}


def _by_mode(value: Any) -> Any:
    return {"mode": value} if isinstance(value, str | bool) else value


class RunConfig(Section):
    """The config of a run of swarm."""

    internal = ("source",)

    # No default in the schema: it is the file's stem.
    name: RunName = Field(default_factory=lambda: "run")
    """Name of the run, a part of its branches' names; by default the config file's stem."""
    one: TargetConfig | None = Field(default=None, alias="target")
    """What is optimised."""
    several: Annotated[tuple[TargetConfig, ...], some()] | None = Field(
        default=None, alias="targets"
    )
    """What is optimised, where it is more than one thing: agents and slots are shared by them all.
    In place of `target`."""
    agents: Annotated[tuple[AgentGroup, ...], some()] = (AgentGroup(count=2),)
    """Who proposes changes: groups of agents."""
    lookahead: Annotated[Whole, Field(ge=0, le=1)] = 1
    """Proposals an agent prepares while its last one is measured."""
    repair: Annotated[Whole, Field(ge=0, le=5)] = 1
    """How often a change that crashes goes back to its proposer with the end of its log."""
    judge: JudgeConfig = JudgeConfig()
    """When a candidate counts as better."""
    merge: MergeConfig = MergeConfig()
    """How wins are brought together."""
    budget: BudgetConfig = BudgetConfig()
    """When the run ends."""
    sandbox: Annotated[
        SandboxConfig,
        BeforeValidator(
            _by_mode, json_schema_input_type=Literal["auto", "require", "off"] | SandboxConfig
        ),
    ] = SandboxConfig()
    """How candidates are kept apart from the machine."""
    cluster: ClusterConfig = ClusterConfig()
    """Where the run executes."""
    warm_start: Annotated[Text, Field(min_length=1)] | None = None
    """An earlier run, by name or directory, or a history that `swarm import` has read; the
    proposers learn from its experiments."""
    source: SkipJsonSchema[Path] = Path()
    """The config file. Not a key: swarm notes it."""

    @model_validator(mode="after")
    def _rules_for_each(self) -> RunConfig:
        """Give each target its own judge: the run's, with what the target says for itself."""
        self._targets_given()
        ruled = tuple(
            target.model_copy(update={"judge": self._rule_for(target, at)})
            for target, at in zip(self.targets, self._places(), strict=True)
        )
        # A frozen section is in the making up to its last validator.
        if self.one is not None:
            object.__setattr__(self, "one", ruled[0])
        else:
            object.__setattr__(self, "several", ruled)
        self._fit_together()
        return self

    def _targets_given(self) -> None:
        if self.one is None and self.several is None:
            raise wrong_at([("target", "this key is required (or `targets`, a list)")])
        if self.one is not None and self.several is not None:
            raise wrong_at([("targets", "give `target` or `targets`, not both")])

    def _places(self) -> list[Loc]:
        if self.several is None:
            return [("target",)]
        return [("targets", i) for i in range(len(self.several))]

    def _rule_for(self, target: TargetConfig, at: Loc) -> JudgeConfig:
        """Put a target's judge together; a suite starts from another preset if none is named."""
        shared, own = self.judge, target.judge or JudgeConfig()
        given = {**_given(shared), **_given(own)}
        if target.metric.name == CASES and "preset" not in given:
            given = {"preset": "suite", **given}
        rule = JudgeConfig.model_validate(given)
        if found := disorder(rule):
            key, message = found
            raise wrong_at(
                [((*at, "judge", key) if key in _given(own) else ("judge", key), message)]
            )
        if target.metric.name != CASES and rule.points is not None:
            where = (*at, "judge") if target.judge and target.judge.points else ("judge",)
            what = "`points` count cases that pass, so target.metric is `cases`"
            raise wrong_at([(where, what)])
        return rule

    def _fit_together(self) -> None:
        """See that the targets can share names, slots, agents and limits."""
        found: list[tuple[str | Loc, str]] = []
        names = [target.name for target in self.targets]
        for i, target in enumerate(self.several or ()):
            if target.name in names[:i]:
                first = names.index(target.name)
                what = f"targets.{first} is called `{target.name}` too: give each its own name"
                found.append((("targets", i, "name"), what))
            if "." in target.name or target.name in OWN_FOLDERS:
                what = f"`{target.name}` is a file or folder of the run: take another name"
                found.append((("targets", i, "name"), what))
            if target.slot != self.targets[0].slot:
                what = f"targets share their slots: it must be the same as that of `{names[0]}`"
                found.append((("targets", i, "slot"), what))
        for i, group in enumerate(self.agents):
            for j, name in enumerate(group.targets or ()):
                if name not in names:
                    what = f"there is no target `{name}`, only {', '.join(names)}"
                    found.append((("agents", i, "targets", j), what))
            if group.budget.target is not None and len(names) > 1:
                found.append((("agents", i, "budget", "target"), _WHOSE))
        idle = [n for n in names if not any(g.serves(n) for g in self.agents)]
        if idle:
            found.append(("agents", f"no group works on {', '.join(f'`{n}`' for n in idle)}"))
        if self.budget.target is not None and len(names) > 1:
            found.append((("budget", "target"), _WHOSE))
        if found:
            raise wrong_at(found)

    @property
    def askers(self) -> tuple[ProposerConfig | ProviderConfig, ...]:
        """Everybody who asks a model: the proposers, and the harness if it may."""
        harness = [t.provider for t in self.targets if t.provider is not None]
        return (*(group.proposer for group in self.agents), *harness)

    @property
    def targets(self) -> tuple[TargetConfig, ...]:
        """All targets of the run."""
        return (self.one,) if self.one is not None else self.several or ()

    @property
    def target(self) -> TargetConfig:
        """The first target: the only one, where the config is of one."""
        return self.targets[0]

    def places(self) -> list[tuple[TargetConfig, str]]:
        """Give each target with where it stands in the config, for messages."""
        keys = (".".join(map(str, place)) for place in self._places())
        return list(zip(self.targets, keys, strict=True))

    def named(self, name: str) -> TargetConfig:
        """Give the target of a name."""
        return next(target for target in self.targets if target.name == name)

    def rule(self, name: str | None = None) -> JudgeConfig:
        """Give the judge of the target of a name, of the first by default."""
        rule = self.named(name or self.target.name).judge
        assert rule is not None  # since validation
        return rule

    def with_targets(self, targets: Iterable[TargetConfig]) -> RunConfig:
        """Give the same config with other targets, of the same names in the same order."""
        found = tuple(targets)
        update = {"one": found[0]} if self.one is not None else {"several": found}
        return self.model_copy(update=update)

    def only(self, name: str) -> RunConfig:
        """Give the config of a run that has none but the target of this name."""
        return self.model_copy(update={"one": self.named(name), "several": None})

    def part(self, target: TargetConfig) -> str:
        """Give a target's part of the run's branches and files: none where there is one target."""
        return "" if self.several is None else target.name

    def agent_names(self) -> list[tuple[str, int]]:
        """All agents by name, each with the index of its group in `agents`."""
        groups = [i for i, group in enumerate(self.agents) for _ in range(group.count)]
        return [(f"a{n}", group) for n, group in enumerate(groups, start=1)]


# --- in and out --------------------------------------------------------------------------------


def load(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a config file; each override is `path.to.key=value` with a YAML value.

    Raises:
        ConfigError: all that is wrong with it, each with its place.
    """
    return parse(read(path), path, overrides)


def parse(text: str, path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a config's text as `load` does; `path` is where relative paths start from.

    Raises:
        ConfigError: all that is wrong with it, each with its place.
    """
    return settle(compose(text, path, _verbatim), overrides)


def document(path: Path, lines: list[str], data: dict[str, Any], places: Places) -> Document:
    """Make a config of what is no YAML, with the places where its values were written."""
    return Document(path, lines, _verbatim, data, places)


def settle(document: Document, overrides: Sequence[str] = ()) -> RunConfig:
    """Make the config of a document; relative paths start from where it lies.

    Raises:
        ConfigError: all that is wrong with it, each with its place.
    """
    path = document.path
    for override in overrides:
        document.override(override)
    data = document.data
    if "source" in data:
        report_unknown(document, RunConfig, ("source",))
    if data.get("name") is None:
        data["name"] = path.stem
        if not is_ref_part(path.stem):
            message = f"the file's stem {path.stem!r} cannot be used, so give one: {NAME_RULE}"
            document.report(("name",), message)
            data["name"] = "run"
    absolute = path.absolute()
    data["source"] = str(absolute)
    config: RunConfig | None = None
    try:
        config = RunConfig.model_validate(data, context={"folder": absolute.parent})
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            report(document, RunConfig, detail)
    if config is None or document.problems:
        document.fail()
    return config


def _verbatim(loc: Loc) -> bool:
    """Tell where a number is wanted as it is written: in the environment and in argv."""
    match loc:
        case ("targets", int(), *rest) | ("target", *rest):
            pass
        case _:
            return False
    match rest:
        case ["env" | "run" | "setup" | "score" | "final", _] | ["guard", _, _]:
            return True
        case _:
            return False


def schema() -> dict[str, Any]:
    """Give the JSON Schema of a config file."""
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    one_of = [{"required": ["target"]}, {"required": ["targets"]}]
    return {**head, **RunConfig.model_json_schema(), "title": "swarm config", "oneOf": one_of}


def dump(config: RunConfig) -> str:
    """Give the resolved config as JSON, all defaults filled in."""
    return config.model_dump_json(indent=2, by_alias=True) + "\n"


def restore(text: str) -> RunConfig:
    """Read back what `dump` wrote.

    Raises:
        ConfigError: it is not a config of this version of swarm.
    """
    try:
        return RunConfig.model_validate_json(text)
    except ValidationError as error:
        problems = [
            Problem(f"{'.'.join(map(str, e['loc']))}: {e['msg']}")
            for e in error.errors(include_url=False)
        ]
        hint = "it was written by another version of swarm, or changed by hand"
        raise ConfigError("the stored config", problems, hint=hint) from None


def changed_keys(old: RunConfig, new: RunConfig) -> list[str]:
    """Give the dotted paths that differ and that a resumed run cannot take over.

    `budget` and `agents` may change; `name` and the file's place say nothing about the run.
    """
    free = {"budget", "agents", "name", "source"}
    before, after = (json.loads(dump(c)) for c in (old, new))
    for config in (before, after):
        for target in config["targets"] or [config["target"]]:
            del target["budget"]
    found = [d for k in before if k not in free for d in _differences(before[k], after[k], k)]
    # What the run's judge says stands in each target's again.
    shared = tuple(d.removeprefix("judge") for d in found if d.startswith("judge."))
    return [d for d in found if not (".judge." in d and d.endswith(shared))]


def _differences(old: Any, new: Any, path: str) -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        a, b = cast("dict[str, Any]", old), cast("dict[str, Any]", new)
        keys = [*a, *(k for k in b if k not in a)]
        return [d for k in keys for d in _differences(a.get(k), b.get(k), f"{path}.{k}")]
    if path == "targets" and isinstance(old, list) and isinstance(new, list):
        one, two = cast("list[Any]", old), cast("list[Any]", new)
        if len(one) == len(two):
            pairs = enumerate(zip(one, two, strict=True))
            return [d for i, (x, y) in pairs for d in _differences(x, y, f"{path}.{i}")]
    return [] if old == new else [path]
