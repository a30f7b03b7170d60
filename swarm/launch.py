"""Open a run directory: make a new one, or come back to an old one. All or nothing.

Owns the rules of run ids and of what may change on a resume, and the checks that a run needs
before anything is started. Starts nothing itself.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import zlib
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from pydantic import ValidationError

from swarm import config as configs
from swarm import lessons
from swarm.config import RunConfig, TargetConfig
from swarm.errors import (
    ConfigError,
    PreconditionError,
    Problem,
    RunInUseError,
    SwarmError,
    remedy,
)
from swarm.formats.family import History, attempts
from swarm.ledger import Ledger, launched, read
from swarm.mustering import agent_infos
from swarm.records import MetricSpec, RunStarted, TargetInfo, WarmStarted
from swarm.repo import (
    Source,
    check_branch_room,
    create_hub,
    create_run_ignore,
    inspect,
    locate,
    tracked_files,
)
from swarm.rundir import RUN_NAME, RunDir, all_runs, imported, runs_folder
from swarm.scope import Scope
from swarm.state import RunState


@dataclass(frozen=True)
class Opened:
    """A run directory that is ready for a coordinator."""

    rundir: RunDir
    config: RunConfig
    prefixes: dict[str, str]
    """Each target's directory below its git top level."""
    resumed: bool
    finished: bool = False
    """True for a finished run that was asked for by `--name`: there is nothing to start."""


def open_run(config: RunConfig, *, name: str | None = None, wait_s: float = 30.0) -> Opened:
    """Find or make the run directory that a launch of this config means.

    Args:
        config: as loaded, `--set` applied.
        name: `--name`; None means the config's own name.
        wait_s: how long to wait for another launch of the same run to go away.

    Raises:
        ConfigError: the run exists and the config differs in more than `budget` and `agents`,
            the scope matches nothing, or `warm_start` names no run that helps.
        RepositoryError: the target's repository cannot be used.
        RunInUseError: another launch holds the run.
        PreconditionError: the run directory cannot be written.
    """
    places = {target.name: locate(target.repo) for target in config.targets}
    prefixes = {name: place.prefix for name, place in places.items()}
    place = places[config.target.name]
    wanted = name or config.name
    rundir = RunDir(runs_folder(place.top) / wanted)
    while rundir.exists():
        if not _is_finished(rundir):
            ledger = rundir.ledger  # fail early, before anything is started
            with launched(ledger, wait_s=wait_s), Ledger(ledger, wait_s=wait_s):
                if not _is_finished(rundir):  # its last launch may have come to the end meanwhile
                    return _resume(rundir, config, place.top, prefixes)
        if name is not None:
            return Opened(rundir, _stored(rundir), prefixes, resumed=True, finished=True)
        rundir = RunDir(rundir.path.with_name(_next_id(rundir.run, wanted)))
    sources = {t.name: inspect(t.repo, t.base, dirty=t.dirty) for t in config.targets}
    try:
        return _create(rundir, config, sources)
    except OSError as error:
        raise _not_made(rundir, error) from error


def _is_finished(rundir: RunDir) -> bool:
    return RunState(read(rundir.ledger)).phase == "finished"


def _next_id(taken: str, stem: str) -> str:
    number = int(taken[len(stem) + 1 :] or 1) if taken != stem else 1
    return f"{stem}-{number + 1}"


def check_target(config: TargetConfig, source: Source, key: str = "target") -> tuple[str, ...]:
    """Give the tracked files in scope on the base, or say what is wrong with the scope.

    `key` is where the target stands in the config.
    """
    scope = config.area
    files = tracked_files(source)
    found = tuple(f for f in files if f in scope)
    if not found:
        alike = get_close_matches(config.scope[0].rpartition("/")[2], files, 3, 0.3)
        first = list(dict.fromkeys([*alike, *sorted(files)]))
        more = f" and {len(first) - 6} more" if len(first) > 6 else ""
        near = (", ".join(first[:6]) or "nothing") + more
        raise ConfigError(
            config.repo,
            [Problem(f"{key}.scope {list(config.scope)} matches no file of the base commit")],
            hint=f"scope is relative to {key}.repo; tracked there: {near}",
        )
    _check_artefacts(config, files, key)
    return found


def _check_artefacts(config: TargetConfig, files: tuple[str, ...], key: str) -> None:
    """Refuse an artefact that the base has already: every scorer would get that one."""
    named = {a.removeprefix("./") for a in config.artefacts} if config.score else set[str]()
    if committed := sorted(named & set(files)):
        what = f"{key}.artefacts names `{committed[0]}`, which the base has: the scorer would get"
        raise ConfigError(
            config.repo,
            [Problem(f"{what} that file, and never what `run` leaves there")],
            hint=f"git rm --cached {committed[0]} and commit, or let `run` write another file",
        )


def check_groups(config: RunConfig, target: TargetConfig, source: Source, key: str) -> None:
    """Refuse a group whose scope leaves it nothing: it narrows the target's and cannot leave it."""
    whole, files = target.area, tracked_files(source)
    for index, group in enumerate(config.agents):
        own = Scope(group.scope or (), within=whole)
        mine = group.scope is not None and group.serves(target.name)
        if mine and not any(f in own for f in files):
            what = f"agents.{index}.scope {list(group.scope or ())} matches no file of {key}.scope"
            raise ConfigError(
                config.source,
                [Problem(what)],
                hint=f"a group's scope narrows {key}.scope, which is {list(whole.patterns)}",
            )


def warm_start(config: RunConfig, top: Path) -> list[WarmStarted]:
    """Read what the earlier run has tried that the config's `warm_start` names, if it names one.

    It may also name a history that `swarm import` has read. A target learns from the one of its
    name there, or from the only one.

    Args:
        config: as loaded.
        top: git top level of the first target's repository; runs are looked for there by name.

    Raises:
        ConfigError: there is no such run or history, or it was about other targets or another
            metric.
        PreconditionError: it cannot be read.
    """
    if config.warm_start is None:
        return []
    if (history := _imported(config, config.warm_start, top)) is not None:
        return [_from_history(config, history)]
    rundir = _earlier(config, config.warm_start, top)
    try:
        state = RunState(read(rundir.ledger))
    except SwarmError as error:
        what = f"cannot read the run that warm_start names: {error.message}"
        raise PreconditionError(what, hint=_OTHER_RUN, path=rundir.ledger) from error
    if not state.targets:
        what = "the run that warm_start names has not begun"
        raise PreconditionError(what, hint=_OTHER_RUN, path=rundir.ledger)
    found: list[WarmStarted] = []
    for target in config.targets:
        lone = len(state.targets) == len(config.targets) == 1
        name = next(iter(state.targets)) if lone else target.name
        if name not in state.targets:
            continue
        _check_same(config, target, state.targets[name].info.metric, f"run `{state.run}`")
        attempts = lessons.legacy(state, name)
        found.append(WarmStarted(target=target.name, run=state.run, attempts=attempts))
    if not found:
        known = ", ".join(f"`{name}`" for name in state.targets)
        problem = f"`warm_start`: run `{state.run}` has no target in common with this one: {known}"
        raise ConfigError(config.source, [Problem(problem)], hint=_OTHER_RUN)
    return found


_OTHER_RUN = "name another run in `warm_start`, or leave the key out"


def _check_same(config: RunConfig, target: TargetConfig, theirs: MetricSpec, whose: str) -> None:
    """Refuse what was about another metric: its gains would mislead."""
    ours = target.metric.spec
    if (ours.name, ours.goal) != (theirs.name, theirs.goal):
        problem = f"`warm_start`: {whose} was to {theirs.goal} {theirs.name}"
        hint = f"this run is to {ours.goal} {ours.name}; {_OTHER_RUN}"
        raise ConfigError(config.source, [Problem(problem)], hint=hint)


def _imported(config: RunConfig, named: str, top: Path) -> History | None:
    """Give the imported history of this name; None where there is none."""
    if not RUN_NAME.fullmatch(named) or not (path := imported(top, named)).exists():
        return None
    if RunDir(runs_folder(top) / named).exists():
        problem = f"`warm_start`: there is a run `{named}`, and an imported history"
        hint = f"name the run by its directory, or remove the history `{path}`"
        raise ConfigError(config.source, [Problem(problem)], hint=hint)
    return read_imported(path)


def read_imported(path: Path) -> History:
    """Read a history that `swarm import` has kept.

    Raises:
        PreconditionError: it cannot be read, or is none.
    """
    try:
        return History.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no history"
        what = f"cannot read the imported history: {why}"
        raise PreconditionError(what, hint="remove it and import it again", path=path) from error


def _from_history(config: RunConfig, history: History) -> WarmStarted:
    """Give what a run of one target is told of an imported history."""
    if len(config.targets) > 1:
        problem = f"`warm_start`: `{history.name}` is a history of one target, and this run has"
        problem += f" {len(config.targets)}"
        hint = "start a run of one target from it, and name that run here"
        raise ConfigError(config.source, [Problem(problem)], hint=hint)
    _check_same(config, config.target, history.metric, f"the imported history `{history.name}`")
    told = lessons.handed_on(attempts(history))
    return WarmStarted(target=config.target.name, run=history.name, attempts=told)


def _earlier(config: RunConfig, named: str, top: Path) -> RunDir:
    """Find an earlier run: a name among the runs of the repository, or a directory."""
    runs = runs_folder(top)
    if RUN_NAME.fullmatch(named) and RunDir(runs / named).exists():
        return RunDir(runs / named)
    rundir = RunDir((config.source.parent / Path(named).expanduser()).resolve())
    if rundir.exists():
        return rundir
    problem = Problem(f"`warm_start`: there is no run `{named}` in {runs}, nor a run directory")
    histories = sorted(p.stem for p in imported(top, "*").parent.glob("*.json"))
    known = ", ".join([*(r.run for r in all_runs(top)[:8]), *histories[:8]])
    hint = f"there are: {known}" if known else "leave the key out: there are no runs here"
    raise ConfigError(config.source, [problem], hint=hint)


def _create(rundir: RunDir, config: RunConfig, sources: dict[str, Source]) -> Opened:
    for target, key in config.places():
        check_target(target, sources[target.name], key)
        check_groups(config, target, sources[target.name], key)
    top = sources[config.target.name].top
    if imported(top, rundir.run).exists():
        raise PreconditionError(
            f"there is an imported history `{rundir.run}`, and `warm_start` could not tell it from"
            " a run of that name",
            hint="launch under another --name, or remove the history",
            path=imported(top, rundir.run),
        )
    warm = warm_start(config, top)
    for source in sources.values():
        check_branch_room(source, rundir.run)
    create_run_ignore(top / ".swarm")
    rundir.path.parent.mkdir(parents=True, exist_ok=True)
    # Built beside its final place and moved there, so that a half-made run is never seen.
    making = Path(tempfile.mkdtemp(prefix=".making-", dir=rundir.path.parent))
    try:
        draft = RunDir(making)
        parts = {config.part(target): sources[target.name] for target in config.targets}
        create_hub(parts, draft.hub, rundir.run)
        draft.config.write_text(configs.dump(config), encoding="utf-8")
        for folder in (draft.logs, *(draft.part(part).path for part in parts)):
            folder.mkdir(exist_ok=True)
        with Ledger(draft.ledger) as ledger:
            ledger.append([_run_started(rundir.run, config, sources), *warm])
        making.rename(rundir.path)
    finally:
        shutil.rmtree(making, ignore_errors=True)
    prefixes = {name: source.prefix for name, source in sources.items()}
    return Opened(rundir, config, prefixes, resumed=False)


def _not_made(rundir: RunDir, error: OSError) -> PreconditionError:
    if rundir.exists():
        return RunInUseError(
            f"another launch has just started run `{rundir.run}`",
            hint="`swarm status` shows it; --name starts another",
            path=rundir.path,
        )
    what = f"cannot make the run directory {rundir.path}: {error.strerror}"
    hint = remedy(error) or "make room for it, or launch under another --name"
    return PreconditionError(what, hint=hint, path=rundir.path)


def _run_started(run: str, config: RunConfig, sources: dict[str, Source]) -> RunStarted:
    infos = tuple(
        TargetInfo(
            name=target.name,
            metric=target.metric.spec,
            repo=str(sources[target.name].top),
            base=sources[target.name].base,
            base_tree=sources[target.name].base_tree,
            part=config.part(target),
            scored=target.score is not None,
        )
        for target in config.targets
    )
    seed = zlib.crc32(run.encode())
    return RunStarted(run=run, targets=infos, agents=agent_infos(config), seed=seed)


def _resume(rundir: RunDir, config: RunConfig, top: Path, prefixes: dict[str, str]) -> Opened:
    stored = _moved(_stored(rundir), RunState(read(rundir.ledger)), top)
    changed = configs.changed_keys(stored, config)
    if changed:
        raise ConfigError(
            config.source,
            [
                Problem(f"`{key}` differs from what run `{rundir.run}` began with")
                for key in changed
            ],
            hint="only `budget` and `agents` may change on a resume; --name NEW starts another run",
        )
    merged = stored.with_targets(
        target.model_copy(update={"budget": config.named(target.name).budget})
        for target in stored.targets
    ).model_copy(update={"budget": config.budget, "agents": config.agents})
    _store(rundir, merged)
    return Opened(rundir, merged, prefixes, resumed=True)


def _moved(stored: RunConfig, state: RunState, top: Path) -> RunConfig:
    """Give a config as it reads now that the first target's repository, its run with it, lies at
    `top`.
    """
    noted = Path(next(iter(state.targets.values())).info.repo)

    def now(path: Path) -> Path:
        return top / path.relative_to(noted) if path.is_relative_to(noted) else path

    def moved(target: TargetConfig) -> TargetConfig:
        program = target.program_file
        update = {
            "repo": now(target.repo),
            "program": target.program if program is None else str(now(program)),
            "read_only": tuple(now(path) for path in target.read_only),
        }
        return target.model_copy(update=update)

    return stored.with_targets(moved(target) for target in stored.targets)


def _store(rundir: RunDir, config: RunConfig) -> None:
    """Replace the stored config as a whole: half a one would be a run that nobody can resume."""
    draft = rundir.config.with_suffix(".new")
    try:
        with open(draft, "w", encoding="utf-8") as file:
            file.write(configs.dump(config))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(rundir.config)
    except OSError as error:
        what = f"cannot write {rundir.config}: {error.strerror}"
        raise PreconditionError(what, hint=remedy(error), path=rundir.config) from error


def _stored(rundir: RunDir) -> RunConfig:
    try:
        return configs.restore(rundir.config.read_text(encoding="utf-8"))
    except OSError as error:
        raise PreconditionError(
            f"cannot read {rundir.config}: {error.strerror}",
            hint="the run directory is damaged; launch under another --name",
            path=rundir.config,
        ) from error


def discard(opened: Opened) -> None:
    """Remove a run that failed before its first experiment, so that the next launch is fresh."""
    shutil.rmtree(opened.rundir.path, ignore_errors=True)
