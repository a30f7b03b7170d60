"""What a launch sets up, worked out from the config and the fold: agents, posts, site, seeds.

Pure but for the program, which is read anew each time it is asked for. Starts nothing.
"""

from __future__ import annotations

import hashlib
import logging
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

from swarm.agent import Terms as AgentTerms
from swarm.config import RunConfig, TargetConfig
from swarm.entities import Target
from swarm.evaluate import Harness
from swarm.groups import AgentGroup
from swarm.keys import of, secrets
from swarm.metering import Provider
from swarm.node import TargetSite
from swarm.prices import ANTHROPIC, price_given
from swarm.reading import MetricRule
from swarm.records import AgentInfo
from swarm.runtime import Post
from swarm.sandbox import Limits
from swarm.state import RunState

log = logging.getLogger("swarm")


def agent_infos(config: RunConfig) -> tuple[AgentInfo, ...]:
    """Name the agents of a config: a1, a2, ... in the order of its groups."""
    names = [target.name for target in config.targets]
    return tuple(
        AgentInfo(
            name=name,
            targets=tuple(n for n in names if config.agents[group].serves(n)),
            proposer=config.agents[group].proposer.label,
            group=group,
            thinks=config.agents[group].proposer.thinks,
        )
        for name, group in config.agent_names()
    )


def seed_of(run_seed: int, index: int) -> int:
    """Give `SWARM_SEED` of measurement `index` of any commit: the same for both sides of a duel."""
    digest = hashlib.sha256(f"{run_seed}:{index}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def proposal_seed(run_seed: int, agent: str, made: int) -> int:
    """Give the seed of an agent's next proposal, of which it has made `made`."""
    digest = hashlib.sha256(f"{run_seed}:{agent}:{made}".encode()).digest()
    return int.from_bytes(digest[:6], "big")


_LAST: dict[Path, str] = {}
"""Programs as they were last read: one that is being saved may be gone for a moment."""


def program(config: TargetConfig) -> str:
    """Read the program again at every briefing, so that a running search can be steered."""
    path = config.program_file
    if path is None:
        return config.program
    try:
        _LAST[path] = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        kept = "its last text is used" if path in _LAST else "there is no program"
        log.warning("cannot read the program %s, so %s: %s", path, kept, error)
    return _LAST.get(path, "")


class Terms(TypedDict):
    """The part of a node's site that says how candidates are kept; the same for run and check."""

    limits: Limits
    network: bool
    gpus: bool
    shielded: tuple[str, ...]


def terms_of(config: RunConfig, tops: Sequence[Path]) -> Terms:
    """Give how candidates are kept; of the repositories at `tops` none of them sees a thing."""
    box, gpus = config.sandbox, config.target.slot.gpus
    return Terms(
        limits=Limits(box.memory_for(gpus), box.processes, box.file_size, box.tmp),
        network=box.network == "on",
        gpus=bool(gpus),
        shielded=tuple(dict.fromkeys(map(str, (*tops, *(t.repo for t in config.targets))))),
    )


def provider_of(config: TargetConfig, keys: Mapping[str, str]) -> Provider | None:
    """Give what the metering proxy of a target needs; `keys` are those of all who ask."""
    given = config.provider
    if given is None:
        return None
    own = of(given, keys)
    base_url = given.base_url or own.get("ANTHROPIC_BASE_URL") or ANTHROPIC
    key = own.get(given.key_name or "", "") or own.get("ANTHROPIC_AUTH_TOKEN", "")
    prices = None if given.prices is None else price_given(given.prices)
    return Provider(base_url, key, given.models, prices, given.usd, given.tokens)


def target_sites(
    config: RunConfig, state: RunState, prefixes: Mapping[str, str], keys: Mapping[str, str]
) -> tuple[TargetSite, ...]:
    """Give what a node must know of all targets.

    Args:
        config: the run's config.
        state: what has happened.
        prefixes: each target's directory below its git top level.
        keys: those of all who ask a model.
    """
    return tuple(
        target_site(target, config, state.targets[target.name], prefixes[target.name], keys)
        for target in config.targets
    )


def target_site(
    config: TargetConfig,
    run: RunConfig,
    target: Target,
    prefix: str,
    keys: Mapping[str, str],
) -> TargetSite:
    """Give what a node must know of a target; `keys` are those of all who ask a model."""
    judge = run.rule(config.name)
    metric, points = config.metric, judge.points
    costs = () if points is None else [p.name for p in points.of if not isinstance(p, str)]
    return TargetSite(
        name=config.name,
        base=target.info.base,
        base_tree=target.info.base_tree,
        prefix=prefix,
        scope=config.scope,
        harness=Harness(
            run=config.run,
            guard=config.guard,
            metric=MetricRule(
                name=metric.name,
                goal=metric.goal,
                pattern=metric.pattern,
                json_path=metric.json_path,
                lines=metric.lines,
                unit=metric.unit,
            ),
            timeout_s=config.timeout,
            env=config.env,
            also=(*(c.metric for c in config.constraints), *costs),
            patterns={c.metric: c.pattern for c in config.constraints if c.pattern is not None},
            aggregate=judge.aggregate,
            bounds=judge.bounds,
            final=config.final,
            score=config.score,
            artefacts=config.artefacts,
            output_limit=run.sandbox.output,
        ),
        setup=config.setup,
        max_files=config.change.max_files,
        max_lines=config.change.max_lines,
        exclude=config.exclude,
        hide=config.hide,
        read_only=tuple(map(str, config.read_only)),
        provider=provider_of(config, keys),
    )


def posts(
    config: RunConfig, infos: tuple[AgentInfo, ...], keys: Mapping[str, str]
) -> tuple[Post, ...]:
    """Give what each agent is set up from; `keys` are those of all proposers."""
    seen: dict[int, int] = {}
    found: list[Post] = []
    for info in infos:
        group: AgentGroup = config.agents[info.group]
        index = seen[info.group] = seen.get(info.group, -1) + 1
        own = of(group.proposer, keys)
        terms = {name: _terms(config.named(name), group, secrets(own)) for name in info.targets}
        found.append(Post(info, group.proposer, index, group.count, terms, own))
    return tuple(found)


def _terms(config: TargetConfig, group: AgentGroup, hidden: tuple[str, ...]) -> AgentTerms:
    """Give what does not change for an agent of a group on a target."""
    scope, limits = group.scope or config.scope, limits_on(config)
    return AgentTerms(config.metric.spec, scope, limits, hidden)


def limits_on(config: TargetConfig) -> tuple[str, ...]:
    """Put constraints and the limits on a change into words, one sentence each."""
    found: list[str] = []
    for c in config.constraints:
        if c.max is not None:
            found.append(f"`{c.metric}` must not be above {c.max:g}.")
        if c.min is not None:
            found.append(f"`{c.metric}` must not be below {c.min:g}.")
        if c.max_regression is not None:
            share = f"{100 * c.max_regression:g} %"
            side = "above" if c.limit.worse(config.metric.spec) > 0 else "below"
            found.append(
                f"`{c.metric}` must not be more than {share} {side} its value on the base."
            )
    if config.exclude:
        never = ", ".join(f"`{glob}`" for glob in config.exclude)
        found.append(f"Although the scope has it, {never} must stay as it is.")
    if config.change.max_files is not None:
        found.append(f"A change touches at most {config.change.max_files} files.")
    if config.change.max_lines is not None:
        found.append(
            f"A change has at most {config.change.max_lines} lines, added and removed together."
        )
    found += [f"Before it is measured, `{_words(g)}` must succeed." for g in config.guard]
    found.append(f"One measurement may take at most {config.timeout:g} seconds.")
    return tuple(found)


def _words(command: str | tuple[str, ...]) -> str:
    return command if isinstance(command, str) else shlex.join(command)
