"""Who proposes changes: the config of agent groups, their proposers, prices and limits.

Owns the `agents` part of a config. Knows which settings go together, not what a proposer does.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, cast
from urllib.parse import urlsplit

from pydantic import (
    BeforeValidator,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from swarm.quantities import (
    Count,
    Duration,
    EnvName,
    Flag,
    Globs,
    Number,
    TargetName,
    Text,
    Url,
    Whole,
    show,
    some,
    wrong,
    wrong_at,
)
from swarm.sections import Section, closest, is_file, resolve

CliName = Literal["claude", "codex", "gemini", "opencode", "aider"]
CLIS: tuple[CliName, ...] = ("claude", "codex", "gemini", "opencode", "aider")
Role = Literal["explore", "refine", "simplify", "combine", "restructure"]


class Prices(Section):
    """What proposing costs, where swarm does not know: USD for a million tokens, or flat."""

    input: Annotated[Number, Field(ge=0)] | None = None
    """Tokens read, not from the cache."""
    output: Annotated[Number, Field(ge=0)] | None = None
    """Tokens written."""
    cache_read: Annotated[Number, Field(ge=0)] | None = None
    """Tokens read from the cache; the price of `input` if not given."""
    cache_write: Annotated[Number, Field(ge=0)] | None = None
    """Tokens read and put into the cache; the price of `input` if not given."""
    proposal: Annotated[Number, Field(ge=0)] | None = None
    """Flat, for each proposal; for programs that do not tell their tokens."""

    @model_validator(mode="after")
    def _enough(self) -> Prices:
        by_token = self.input is not None and self.output is not None
        if (self.input is None) != (self.output is None):
            raise wrong("prices by token need both `input` and `output`")
        if not by_token and self.proposal is None:
            raise wrong("give `input` and `output` (USD for a million tokens), or `proposal`")
        return self


class MutateProposer(Section):
    """Changes constants and settings in the code, learning from the run so far. Needs no key."""

    thinks: ClassVar[bool] = False
    kind: Literal["mutate"]
    """Changes constants and settings, no model involved."""

    @property
    def label(self) -> str:
        """How the ledger and all views call it."""
        return self.kind


class ScriptedProposer(Section):
    """Applies patch files in order: for tests, replays and hand-made candidates."""

    thinks: ClassVar[bool] = False
    kind: Literal["scripted"]
    """Applies patch files, in order."""
    patches: tuple[Path, ...]
    """A directory of `*.patch`, `*.diff` and `*.json` files, taken in order of name, or a list of
    files."""
    loop: Flag = False
    """Begin again after the last patch."""

    @field_validator("patches", mode="before", json_schema_input_type=str | list[str])
    @classmethod
    def _expand(cls, patches: Any, info: ValidationInfo) -> tuple[str, ...]:
        single = isinstance(patches, str)
        if not single and not isinstance(patches, list | tuple):
            raise wrong(f"a directory or a list of patch files is wanted, not {show(patches)}")
        listed = [patches] if single else cast("list[Any]", patches)
        found: list[Path] = []
        for item in listed:
            if not isinstance(item, str):
                raise wrong(f"a path is wanted, not {show(item)}")
            path = resolve(item, info)
            if info.context is None or is_file(path):
                found.append(path)
            elif single and path.is_dir():
                found += sorted(p for p in path.iterdir() if p.suffix in PATCHES)
            else:
                raise wrong(f"no such file: {path}")
        if not found:
            where = patches if single else "an empty list"
            raise wrong(f"no patch file ({', '.join(PATCHES)}) in {where}")
        return tuple(map(str, found))

    @property
    def label(self) -> str:
        """How the ledger and all views call it."""
        return self.kind


def _thinking(value: Any) -> Any:
    if value is None or value in ("adaptive", "off"):
        return value
    if type(value) is int and value >= 1024:
        return value
    raise wrong(f"adaptive, off, or a number of tokens from 1024 is wanted, not {show(value)}")


class MessagesProposer(Section):
    """A language model behind the Messages API: Anthropic's, or any server that speaks it."""

    thinks: ClassVar[bool] = True
    kind: Literal["messages"]
    """A language model behind the Messages API, with tools to read and edit the files in scope."""
    model: Annotated[Text, Field(min_length=1)]
    """The model's name, as the server knows it."""
    base_url: Url | None = None
    """The server; by default `ANTHROPIC_BASE_URL`, else Anthropic's. Ollama:
    `http://localhost:11434`."""
    key: EnvName | None = None
    """Name of the environment variable that holds the key: by default `ANTHROPIC_API_KEY` for
    Anthropic's own server and for `ANTHROPIC_BASE_URL`, and none for another `base_url`."""
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    """How hard the model works, for models that know it."""
    thinking: Annotated[
        Literal["adaptive", "off"] | int | None,
        BeforeValidator(
            _thinking,
            json_schema_input_type=Literal["adaptive", "off", None]
            | Annotated[int, Field(ge=1024)],
        ),
    ] = None
    """Extended thinking: `adaptive`, `off`, or a number of tokens; by default the model's own."""
    max_turns: Annotated[Whole, Field(ge=1)] = 40
    """Most requests for one proposal."""
    max_tokens: Annotated[Whole, Field(ge=256)] = 16000
    """Most tokens of one answer."""
    timeout: Duration = Field(default=900.0, json_schema_extra={"default": "15m"})
    """Longest time for one proposal."""
    stream: Flag = True
    """Stream the answers, so that long ones do not time out; `false` for servers that cannot."""
    conversation: Literal["fresh", "keep"] = "fresh"
    """`fresh` begins each experiment anew, `keep` goes on in one conversation until a pivot."""
    extra: dict[str, Any] = Field(default={})
    """More fields of the request, for servers that want them: `{temperature: 0.8}`."""
    prices: Prices | None = None
    """What tokens cost, where swarm does not know it."""

    @model_validator(mode="after")
    def _room_to_think(self) -> MessagesProposer:
        if isinstance(self.thinking, int) and self.thinking >= self.max_tokens:
            raise wrong_at([("thinking", f"must be below `max_tokens` ({self.max_tokens})")])
        return self

    @property
    def label(self) -> str:
        """How the ledger and all views call it."""
        return f"{self.kind}/{self.model}"

    @property
    def key_name(self) -> str | None:
        """The variable whose value may be shown to the server; None if there is none.

        A key goes only where it belongs: Anthropic's is not for whatever `base_url` names.
        """
        return key_for(self.base_url, self.key)


def key_for(base_url: str | None, key: str | None) -> str | None:
    """Name the variable whose value may be shown to a server: the given one, or Anthropic's own."""
    own = base_url is None or urlsplit(base_url).hostname == "api.anthropic.com"
    return key or ("ANTHROPIC_API_KEY" if own else None)


def _by_cli(value: Any) -> Any:
    words = cast("list[object]", value) if isinstance(value, list | tuple) else []
    if value in CLIS or (words and all(isinstance(w, str) and w for w in words)):
        return cast("object", value)
    near = closest(value, CLIS, 0.5) if isinstance(value, str) else None
    meant = f"; did you mean `{near}`?" if near else ""
    known = ", ".join(CLIS)
    given = show(cast("object", value))
    raise wrong(f"one of {known}, or a list of words (argv), is wanted, not {given}{meant}")


_INTERPRETERS = re.compile(r"(python|node|perl|ruby|bash|sh|uv|env|npx)[\d.]*")


def _program(argv: tuple[str, ...]) -> str:
    """Name what an argv runs: behind an interpreter it is the first word that is no option."""
    names = [Path(word).name for word in argv if not word.startswith("-")]
    scripts = (name for name in names if not _INTERPRETERS.fullmatch(name) and name != "run")
    return next(scripts, names[0] if names else argv[0])


class HeadlessProposer(Section):
    """A coding agent from the command line, or any program that edits files."""

    thinks: ClassVar[bool] = True
    kind: Literal["headless"]
    """A coding agent run without its screen, in the worktree."""
    cli: Annotated[
        CliName | tuple[Text, ...],
        BeforeValidator(
            _by_cli, json_schema_input_type=CliName | Annotated[list[str], Field(min_length=1)]
        ),
    ]
    """Which one; or the words of a command that reads the briefing on stdin, edits files in its
    working directory, and says in its last line what it did."""
    model: Annotated[Text, Field(min_length=1)] | None = None
    """The model's name, as the program knows it; by default the program's own."""
    args: tuple[Text, ...] = ()
    """More words for the command line."""
    env: tuple[EnvName, ...] = ()
    """Environment variables that are handed over, beyond those that the program is known to
    need."""
    timeout: Duration = Field(default=900.0, json_schema_extra={"default": "15m"})
    """Longest time for one proposal."""
    prices: Prices | None = None
    """What tokens, or a proposal, cost, where swarm does not know it."""

    @model_validator(mode="after")
    def _own_words(self) -> HeadlessProposer:
        if isinstance(self.cli, tuple) and (self.model is not None or self.args):
            raise wrong_at([("cli", "put `model` and `args` into the command itself")])
        return self

    @property
    def label(self) -> str:
        """How the ledger and all views call it."""
        name = self.cli if isinstance(self.cli, str) else _program(self.cli)
        return f"{self.kind}/{name}" + (f"/{self.model}" if self.model else "")


ProposerConfig = MutateProposer | ScriptedProposer | MessagesProposer | HeadlessProposer
PATCHES = (".patch", ".diff", ".json")
PROPOSERS = ("messages", "headless", "mutate", "scripted")


def _by_kind(value: Any) -> Any:
    if isinstance(value, str):
        value = {"kind": value}
    if not isinstance(value, dict):
        return value
    data = cast("dict[str, Any]", value)
    kind = data.get("kind")
    if kind is None:
        raise wrong_at([("kind", "this key is required")])
    if kind not in PROPOSERS:
        message = f"there is no {show(kind)}, only {', '.join(PROPOSERS[:-1])} and {PROPOSERS[-1]}"
        raise wrong_at([("kind", message)], suggestion=closest(str(kind), PROPOSERS, 0.5))
    return data


class AgentBudget(Section):
    """What one group of agents may use together."""

    experiments: Count | None = None
    """Most experiments of the group together."""
    time: Duration | None = None
    """Stop proposing after this time, over all launches of the run."""
    usd: Annotated[Number, Field(gt=0)] | None = None
    """Most USD, for proposing and measuring."""
    tokens: Count | None = None
    """Most tokens, read, cached and written."""
    stale: Count | None = None
    """Stop proposing after this many experiments of the group in a row without a keep."""
    target: Number | None = None
    """Stop proposing when the best record reaches this value of the metric."""


class AgentGroup(Section):
    """Agents of one kind."""

    count: Annotated[Whole, Field(ge=1, le=1000)] = 1
    """How many agents."""
    proposer: Annotated[
        ProposerConfig,
        Field(discriminator="kind"),
        BeforeValidator(_by_kind, json_schema_input_type=Literal["mutate"] | ProposerConfig),
    ] = MutateProposer(kind="mutate")
    """Where their changes come from; a word is short for `{kind: word}`."""
    role: Role | None = None
    """What kind of change they look for; by default swarm varies it."""
    targets: Annotated[tuple[TargetName, ...], some()] | None = None
    """Names of the targets that they work on; by default all of them."""
    scope: Globs | None = None
    """A narrower scope: their part of the system."""
    budget: AgentBudget = AgentBudget()
    """What the group may use together."""

    def serves(self, target: str) -> bool:
        """Tell whether the group works on the target of a name."""
        return self.targets is None or target in self.targets
