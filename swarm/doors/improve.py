"""An improve.md as a run: autoimprove's keys in swarm's words.

Owns what each key becomes. How the file is written is `formats.improve_md`'s. autoimprove's own
records (`.autoimprove/`) are neither read nor written: a run's results are swarm's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from swarm.doors.draft import Draft, Entered, Ground, proposing, slug
from swarm.doors.scopes import Unresolved, globs_of, measured_by, resolve, told
from swarm.doors.surroundings import check_programs, give_gpus, surround
from swarm.errors import ConfigError, Problem
from swarm.formats.improve_md import Improve, parse
from swarm.scope import Scope
from swarm.sections import closest
from swarm.yaml_marks import Loc, Spot, read

METRIC = "score"
PROVIDERS: Mapping[str, dict[str, Any]] = {
    "anthropic": {"kind": "messages"},
    "ollama": {"kind": "messages", "base_url": "http://localhost:11434"},
    "claude": {"kind": "headless", "cli": "claude"},
    "claude-code": {"kind": "headless", "cli": "claude"},
    "codex": {"kind": "headless", "cli": "codex"},
    "openai": {"kind": "headless", "cli": "codex"},
    "gemini": {"kind": "headless", "cli": "gemini"},
    "google": {"kind": "headless", "cli": "gemini"},
    "opencode": {"kind": "headless", "cli": "opencode"},
    "aider": {"kind": "headless", "cli": "aider"},
    "mutate": {"kind": "mutate"},
}
"""What proposes for each `provider`."""
_OWN = ("improve.md", ".autoimprove/")
"""Files of the tool itself, which no experiment changes."""


def enter_improve(path: Path, overrides: Sequence[str] = ()) -> Entered:
    """Make a run of an improve.md.

    Raises:
        ConfigError: all that is wrong with the file, each with its line.
        PreconditionError: the repository or a program is not as it is needed.
    """
    text = read(path)
    asked = parse(text, path)
    draft = _draft(asked, path, text.splitlines())
    ground = draft.look(overrides)
    _set_scope(draft, asked, ground, overrides)
    draft.target["exclude"] = _kept(asked, draft, ground)
    surround(draft, ground)
    scope: list[str] = draft.target["scope"]
    give_gpus(draft, ground, scope)
    if found := measured_by(asked.run, scope, [f for f in ground.files if not _is_kept(f, draft)]):
        draft.notes.append(f"warning  the scope holds what measures it: {', '.join(found[:5])}")
    config = draft.settle(overrides)
    check_programs(config)
    return Entered(config, (*draft.notes, *proposing(config)))


def line_of_score(path: Path) -> int | None:
    """Give the line at which a file says where its number stands."""
    try:
        spot = parse(read(path), path).spots.get("score")
    except ConfigError:
        return None
    return spot.line if spot is not None else None


def _draft(asked: Improve, path: Path, lines: list[str]) -> Draft:
    """Put what the file asks for into the config's keys, and note where each value stands."""
    metric: dict[str, Any] = {"name": METRIC, "goal": asked.goal, "lines": "last"}
    if asked.score.pattern is not None:
        metric["pattern"] = asked.score.pattern
    elif asked.score.json is not None:
        metric["json"] = asked.score.json
    target: dict[str, Any] = {
        "repo": ".",
        "scope": ["."],
        "program": _program(asked),
        "run": asked.run,
        "metric": metric,
    }
    if asked.test is not None:
        target["guard"] = [asked.test]
    if asked.guards:
        target["constraints"] = [
            {"metric": g.name, "pattern": g.pattern}
            | ({} if g.maximum is None else {"max": g.maximum})
            | ({} if g.minimum is None else {"min": g.minimum})
            for g in asked.guards
        ]
    if asked.timeout is not None:
        target["timeout"] = asked.timeout
    limits = {
        "time": asked.budget,
        "experiments": asked.rounds,
        "target": asked.target,
        "stale": asked.stale,
    }
    data: dict[str, Any] = {
        "name": slug(asked.title or path.absolute().parent.name, "improve"),
        "target": target,
        "budget": {key: value for key, value in limits.items() if value is not None},
    }
    draft = Draft(path, data, lines, _spots(asked))
    if asked.keep_if_equal:
        data["judge"] = {"keep_if_equal": "simpler"}
        draft.notes.append("equal    a change that measures as equal is kept if it is simpler")
    _set_agents(draft, asked)
    return draft


def _spots(asked: Improve) -> dict[Loc, Spot]:
    """Say where the values of the config stand in the file."""
    homes: dict[str, Loc] = {
        "scope": ("target", "scope"),
        "exclude": ("target", "exclude"),
        "run": ("target", "run"),
        "test": ("target", "guard"),
        "score": ("target", "metric"),
        "timeout": ("target", "timeout"),
        "budget": ("budget", "time"),
        "rounds": ("budget", "experiments"),
        "target": ("budget", "target"),
        "stale": ("budget", "stale"),
        "provider": ("agents",),
        "model": ("agents",),
        "guard.0": ("target", "constraints"),
    }
    return {home: asked.spots[key] for key, home in homes.items() if key in asked.spots}


def _program(asked: Improve) -> str:
    # More than one line, or a single word could be taken for the name of a file.
    parts = [f"# {asked.title or 'improve'}", asked.instructions]
    if asked.context:
        parts.append("For context read, and do not change: " + ", ".join(asked.context))
    if any(" " in part for part in asked.scope):
        parts.append(told(", ".join(asked.scope)))
    return "\n\n".join(part for part in parts if part) + "\n"


def _set_agents(draft: Draft, asked: Improve) -> None:
    """Choose who proposes: what the file names, else swarm's default."""
    provider, model = asked.provider, asked.model
    if provider is None and model is None:
        return
    name = (provider or "anthropic").lower()
    spot = asked.spots["provider" if provider is not None else "model"]
    if name not in PROVIDERS:
        near = closest(name, list(PROVIDERS), 0.5)
        what = f"`provider`: one of {', '.join(PROVIDERS)} is wanted, not {provider!r}"
        raise ConfigError(draft.path, [_at(draft, what, spot, near)])
    proposer = dict(PROVIDERS[name])
    if proposer["kind"] == "messages" and model is None:
        what = f"`provider` {name} needs a `model` below it, as `model: claude-opus-5-5`"
        raise ConfigError(draft.path, [_at(draft, what, spot)])
    if model is not None and proposer["kind"] != "mutate":
        proposer["model"] = model
    draft.data["agents"] = [{"count": 2, "proposer": proposer}]


def _at(draft: Draft, what: str, spot: Spot, suggestion: str | None = None) -> Problem:
    return Problem(what, spot.line, spot.column, draft.lines[spot.line - 1], suggestion)


def _set_scope(draft: Draft, asked: Improve, ground: Ground, overrides: Sequence[str]) -> None:
    found = globs_of(asked.scope, ground)
    if isinstance(found, Unresolved) and any(" " in part for part in asked.scope):
        words = ", ".join(asked.scope)
        resolved = resolve(words, ground, draft.settle(overrides))
        if isinstance(resolved, Unresolved):
            found = resolved
        else:
            found, note = resolved
            draft.notes.append(note)
    if isinstance(found, Unresolved):
        spot = asked.spots["scope"]
        hint = "name files or globs, separated by commas"
        if " " in found.words:
            hint += "; or a model below `## Agent` (provider: anthropic), which finds them"
        raise ConfigError(draft.path, [_at(draft, f"`scope`: {found.message}", spot)], hint=hint)
    draft.target["scope"] = found


def _kept(asked: Improve, draft: Draft, ground: Ground) -> list[str]:
    """Give what stays as it is: what the file says, the tests it names, and the file itself."""
    named = [*asked.exclude, *asked.test_files, *asked.context]
    found = {name: globs_of([name], ground) for name in named}
    lost = [name for name, globs in found.items() if isinstance(globs, Unresolved)]
    if lost:
        words = ", ".join(lost)
        draft.notes.append(f"warning  to stay as it is, and no tracked file: {words}")
        draft.target["program"] += f"\nDo not change: {words}\n"
    globs = [g for globs in found.values() if not isinstance(globs, Unresolved) for g in globs]
    return list(dict.fromkeys([*globs, draft.path.name, *_OWN]))


def _is_kept(file: str, draft: Draft) -> bool:
    return file in Scope(draft.target["exclude"], guarded=False)
