"""What is known of each coding agent: its words, its files, its variables, its output. Pure.

One `Cli` for each; nothing here starts a program or reads a file. None of them is given a shell
where it can do without one, and none is told of a git repository: there is none in a worktree.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple, cast
from zoneinfo import ZoneInfo

from swarm.formats.text import printable
from swarm.groups import CliName

WAIT_S = 300.0
"""How long an overloaded provider is left alone when it does not say how long."""
LONGEST_WAIT_S = 7 * 86400.0
AIDER_FILES = 50
"""It reads all the files that it is given; of a larger scope, the first so many."""


class Tokens(NamedTuple):
    """What a program says that it used; `input` neither comes from nor goes to the cache."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0


NONE = Tokens()


@dataclass(frozen=True)
class Report:
    """A program's output, understood."""

    text: str = ""
    """The model's last words."""
    tokens: Tokens = NONE
    usd: float | None = None
    """What the program itself says that it cost."""
    error: str | None = None
    status: int | None = None
    """The HTTP status with which its provider refused, where it says so."""
    ended: bool = True
    """Whether it says that it came to an end, good or bad."""


class HomePath(NamedTuple):
    """Something below the user's home that a program reads."""

    path: str
    moved_by: str | None = None
    """The variable that names another place for it."""
    copied: bool = False
    """Copied, not linked: it is replaced, not written into, and the change need not last."""
    fields: tuple[str, ...] = ()
    """Of a copied JSON object, what is copied; the rest tells of the user's other work."""
    logins: tuple[str, ...] = ()
    """Behind walls, its files that are the user's own there, to be read and renewed."""
    settings: tuple[str, ...] = ()
    """Behind walls, its files that are copied. Never lent: what is written there is run later."""


class Call(NamedTuple):
    """What of a call decides on the words of a command line."""

    briefing: str
    """Path of the file that holds the briefing."""
    model: str | None
    args: tuple[str, ...]
    files: tuple[str, ...]
    """The tracked files in scope."""
    keys: Mapping[str, str]
    walled: bool = False
    """Whether swarm's own walls are around it: a sandbox inside another cannot be built."""


@dataclass(frozen=True)
class Cli:
    """One coding agent."""

    name: CliName
    title: str
    install: str
    """What installs it."""
    argv: Callable[[Call], list[str]]
    parse: Callable[[str], Report]
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    """Set for every call."""
    home: tuple[HomePath, ...] = ()
    logins: tuple[str, ...] = ()
    """Files below the home, of which each says that somebody has logged in."""
    login: str = ""
    """How to log in."""
    unlocking: tuple[str, ...] = ()
    """Variables of which each is enough instead of a login."""
    key_suffices: bool = False
    """With one of them set nothing of the home is handed over."""
    keychain: bool = False
    """On a Mac the login is in the keychain, where it cannot be seen."""
    litter: tuple[str, ...] = ()
    """Globs of what it may leave behind at the top of its working directory."""
    stdin: bool = True
    """Whether it reads the briefing there."""


# --- the command lines -------------------------------------------------------------------------


def _model(call: Call, flag: str = "--model") -> list[str]:
    return [] if call.model is None else [flag, call.model]


def _claude(call: Call) -> list[str]:
    # `--bare` has no Write, Glob and Grep and cannot log in; `--safe-mode` drops the user's and
    # the repository's hooks, plugins, servers and CLAUDE.md all the same. `--tools` is all that
    # the model has: no shell, no network. `acceptEdits` works for root too.
    return [
        *("claude", "--print", "--output-format", "stream-json", "--verbose", "--safe-mode"),
        *("--tools", "Read,Edit,Write,Glob,Grep", "--permission-mode", "acceptEdits"),
        *("--strict-mcp-config", "--no-session-persistence"),
        *_model(call),
        *call.args,
    ]


def _codex(call: Call) -> list[str]:
    # It reads files by running commands, so it keeps its shell, inside its own sandbox or ours.
    base = call.keys.get("OPENAI_BASE_URL")
    sandbox = "danger-full-access" if call.walled else "workspace-write"
    return [
        *("codex", "exec", "--json", "--sandbox", sandbox, "--skip-git-repo-check"),
        *("--ephemeral", "--color", "never"),
        *(() if base is None else ("-c", f"openai_base_url={json.dumps(base)}")),
        *_model(call),
        *call.args,
        "-",
    ]


def _gemini(call: Call) -> list[str]:
    # Without a screen, tools that would have to be approved are not offered: the shell is one.
    return [
        *("gemini", "--output-format", "json", "--approval-mode", "auto_edit", "--skip-trust"),
        *_model(call),
        *call.args,
        *("--prompt", "Do what is asked above."),
    ]


def _opencode(call: Call) -> list[str]:
    return ["opencode", "run", "--format", "json", *_model(call), *call.args]


_CLAUDE_JSON = (
    *("oauthAccount", "primaryApiKey", "userID", "hasCompletedOnboarding"),
    *("lastOnboardingVersion", "installMethod"),
)
_OPENCODE = {
    "autoupdate": False,
    "share": "disabled",
    "permission": {"edit": "allow", "bash": "deny", "webfetch": "deny"},
}


def _aider(call: Call) -> list[str]:
    return [
        *("aider", "--message-file", call.briefing, "--yes-always", "--no-git", "--no-gitignore"),
        *("--no-auto-commits", "--no-stream", "--no-pretty", "--no-fancy-input", "--no-auto-lint"),
        *("--no-suggest-shell-commands", "--no-detect-urls", "--no-check-update"),
        *("--no-show-release-notes", "--no-show-model-warnings", "--analytics-disable"),
        *_model(call),
        *call.args,
        *(word for name in call.files[:AIDER_FILES] for word in ("--file", name)),
    ]


# --- their output ------------------------------------------------------------------------------


def _whole(value: object) -> int:
    return int(value) if isinstance(value, int | float) and value > 0 else 0


def _money(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and 0 <= value < 1e9 else None


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _dict(value: object) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _events(output: str) -> Iterator[dict[str, Any]]:
    """Give the JSON objects among the lines; warnings and what was cut out are passed over."""
    for line in output.splitlines():
        if line.startswith("{"):
            try:
                yield _dict(json.loads(line))
            except (ValueError, RecursionError):
                continue


def _anthropic(usage: object) -> Tokens:
    told = _dict(usage)
    return Tokens(
        _whole(told.get("input_tokens")),
        _whole(told.get("output_tokens")),
        _whole(told.get("cache_read_input_tokens")),
        _whole(told.get("cache_creation_input_tokens")),
    )


def _sum(all_tokens: Iterator[Tokens]) -> Tokens:
    return Tokens(*(sum(kind) for kind in zip(NONE, *all_tokens, strict=True)))


def parse_claude(output: str) -> Report:
    """Read the events of `claude --print --output-format stream-json`."""
    by_message: dict[str, Tokens] = {}
    for event in _events(output):
        if event.get("type") == "result":
            failed = bool(event.get("is_error"))
            text = _text(event.get("result"))
            why = text or _text(event.get("subtype")) or "it failed"
            status = event.get("api_error_status")
            return Report(
                text,
                _anthropic(event.get("usage")),
                _money(event.get("total_cost_usd")),
                why if failed else None,
                status if isinstance(status, int) else None,
            )
        if event.get("type") == "assistant":
            message = _dict(event.get("message"))
            by_message[_text(message.get("id"))] = _anthropic(message.get("usage"))
    return Report(tokens=_sum(iter(by_message.values())), ended=False)


def parse_codex(output: str) -> Report:
    """Read the events of `codex exec --json`."""
    text, error, ended = "", None, False
    tokens: list[Tokens] = []
    for event in _events(output):
        match event.get("type"):
            case "item.completed":
                item = _dict(event.get("item"))
                if item.get("type") == "agent_message":
                    text = _text(item.get("text")) or text
            case "turn.completed":
                used = _dict(event.get("usage"))
                cached = _whole(used.get("cached_input_tokens"))
                read = max(0, _whole(used.get("input_tokens")) - cached)
                tokens.append(Tokens(read, _whole(used.get("output_tokens")), cached))
                ended, error = True, None  # the errors before were mended by trying again
            case "turn.failed":
                error = _text(_dict(event.get("error")).get("message")) or "the turn failed"
                ended = True
            case "error":
                error = _text(event.get("message")) or error
            case _:
                pass
    return Report(text, _sum(iter(tokens)), error=error, ended=ended)


def parse_gemini(output: str) -> Report:
    """Read the one object of `gemini --output-format json`."""
    start = output.find("{")
    try:
        told = _dict(json.JSONDecoder().raw_decode(output[start:])[0]) if start >= 0 else {}
    except (ValueError, RecursionError):
        told = {}
    if not told:
        return Report(ended=False)
    tokens: list[Tokens] = []
    for model in _dict(_dict(told.get("stats")).get("models")).values():
        used = _dict(_dict(model).get("tokens"))
        cached = _whole(used.get("cached"))
        written = _whole(used.get("candidates")) + _whole(used.get("thoughts"))
        tokens.append(Tokens(max(0, _whole(used.get("prompt")) - cached), written, cached))
    error = _dict(told.get("error"))
    why = _text(error.get("message")) or ("it failed" if error else None)
    return Report(_text(told.get("response")), _sum(iter(tokens)), error=why)


def parse_opencode(output: str) -> Report:
    """Read the events of `opencode run --format json`."""
    text, error, ended, usd = "", None, False, None
    tokens: list[Tokens] = []
    for event in _events(output):
        part = _dict(event.get("part"))
        match event.get("type"):
            case "text":
                text = _text(part.get("text")) or text
            case "step_finish":
                used = _dict(part.get("tokens"))
                cache = _dict(used.get("cache"))
                written = _whole(used.get("output")) + _whole(used.get("reasoning"))
                read, stored = _whole(cache.get("read")), _whole(cache.get("write"))
                tokens.append(Tokens(_whole(used.get("input")), written, read, stored))
                cost = _money(part.get("cost"))
                usd = usd if cost is None else (usd or 0.0) + cost
                ended = True
            case "error":
                told = _dict(event.get("error"))
                why = _text(_dict(told.get("data")).get("message")) or _text(told.get("name"))
                error, ended = why or "it failed", True
            case _:
                pass
    return Report(text, _sum(iter(tokens)), usd, error, ended=ended)


_AIDER_TOKENS = re.compile(
    r"^Tokens: ([\d.]+k?) sent"
    r"(?:, ([\d.]+k?) cache write)?(?:, ([\d.]+k?) cache hit)?, ([\d.]+k?) received\."
    r"(?:\s+Cost: \$([\d.]+) message)?",
    re.MULTILINE,
)
_AIDER_FAILED = re.compile(
    r"^(?:litellm\.\w+(?:Error|Timeout)|The API provider.*|.*requires an .*API key.*).*$",
    re.MULTILINE,
)


def _thousands(told: str | None) -> int:
    if told is None:
        return 0
    return round(float(told.rstrip("k")) * (1000 if told.endswith("k") else 1))


def parse_aider(output: str) -> Report:
    """Read what aider prints for people: it has nothing for programs."""
    tokens: list[Tokens] = []
    usd: float | None = None
    last = None
    for last in _AIDER_TOKENS.finditer(output):
        sent, stored, hit, received, cost = last.groups()
        write = _thousands(stored)  # which is counted as sent, too
        read = max(0, _thousands(sent) - write)
        tokens.append(Tokens(read, _thousands(received), _thousands(hit), write))
        usd = usd if cost is None else (usd or 0.0) + float(cost)
    failed = _AIDER_FAILED.search(output)
    why = failed.group().strip() if failed is not None and last is None else None
    text = output if last is None else output[: last.start()]
    return Report(text.strip(), _sum(iter(tokens)), usd, why, ended=bool(output.strip()))


# --- what a refusal means ----------------------------------------------------------------------

_HTTP = r"(?:status|error|code|http)\S{0,3}\W{0,6}"
_LOCKED = re.compile(
    _HTTP + r"40[13]\b|unauthori[sz]ed|not logged in|/login\b|failed to authenticate|"
    r"authentication[_ ](?:error|failed|required)|"
    r"(?:invalid|incorrect|wrong|missing|requires an?)\W[\w\s-]{0,20}\bapi[ _-]?key|"
    r"api[ _-]?key (?:not|is)\b|set an auth method|credit balance|insufficient[_ ]quota|"
    r"permission[_ ]denied_error|\bmodel\b.{0,80}(?:not exist|not found|not have access)|"
    r"unknown model|issue with the selected model",
    re.IGNORECASE,
)
_BUSY = re.compile(
    _HTTP + r"(?:429|50[0234]|529)\b|rate.?limit|too many requests|overloaded|quota|"
    r"resource.?exhausted|limit reached|(?:usage|session|weekly|hit your)[\w\s]{0,12} limit|"
    r"at capacity",
    re.IGNORECASE,
)
_PLAINLY_BUSY = re.compile(r"\b(?:429|529)\b")


def diagnose(text: str, status: int | None = None) -> Literal["locked", "busy"] | None:
    """Tell a refusal that will not pass by itself from one that will, and both from the rest."""
    if status is not None:
        if status in (401, 402, 403, 404):
            return "locked"
        if status in (408, 429) or status >= 500:
            return "busy"
    # A 429 may speak of keys, but it is never about a wrong one.
    if _PLAINLY_BUSY.search(text) and "insufficient_quota" not in text:
        return "busy"
    if _LOCKED.search(text):
        return "locked"
    return "busy" if _BUSY.search(text) else None


_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SPAN = re.compile(
    r"(?:retry|again|resets?|wait|reset)\b[\w\s:,'\"-]{0,24}?((?:\d+(?:\.\d+)?\s*"
    r"(?:seconds?|secs?|minutes?|mins?|hours?|hrs?|days?|[smhd])\b[\s,and]*)+)",
    re.IGNORECASE,
)
_PIECE = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd])", re.IGNORECASE)
_SECONDS = re.compile(r"(?:retry[-_ ]after|resets?_in_seconds)\W{1,4}(\d+)", re.IGNORECASE)
_EPOCH = re.compile(r"(?:\||resets?_at\W{1,4})(1\d{9})\b")
_CLOCK = re.compile(
    r"(?:resets?|again)\s+(?:at\s+)?(\d{1,2})(?::(\d\d))?\s*([ap]m)\b(?:\s*\(([\w/+-]+)\))?",
    re.IGNORECASE,
)


def wait_of(text: str, now: datetime) -> float:
    """Give how long a refusal asks to wait, in seconds.

    Args:
        text: the refusal.
        now: the present, with a time zone: that in which clock times without one are meant.
    """
    if found := _SECONDS.search(text):
        wait = float(found[1])
    elif found := _EPOCH.search(text):
        wait = float(found[1]) - now.timestamp()
    elif found := _CLOCK.search(text):
        wait = _until(found, now)
    elif found := _SPAN.search(text):
        wait = sum(float(n) * _UNITS[unit.lower()] for n, unit in _PIECE.findall(found[1]))
    else:
        wait = WAIT_S
    return min(max(wait, 1.0), LONGEST_WAIT_S)


def _until(clock: re.Match[str], now: datetime) -> float:
    hour, minute, half, zone = clock.groups()
    if int(hour) > 12 or int(minute or 0) > 59:
        return WAIT_S
    try:
        there = now if zone is None else now.astimezone(ZoneInfo(zone))
    except (KeyError, ValueError, OSError):
        return WAIT_S
    hours = int(hour) % 12 + (12 if half.lower() == "pm" else 0)
    then = there.replace(hour=hours, minute=int(minute or 0), second=0, microsecond=0)
    if then <= there:
        then += timedelta(days=1)
    return (then - there).total_seconds()


# --- the summary -------------------------------------------------------------------------------

_SUMMARY = re.compile(r"^[\W_]*summary[\W_]+(\S.*)$", re.IGNORECASE | re.MULTILINE)


def summary_of(text: str) -> str:
    """Take the one line out of a model's last words: what `SUMMARY:` says, else the first."""
    marked = _SUMMARY.findall(text)
    line = marked[-1] if marked else next((t for t in text.splitlines() if t.strip()), "")
    return plain(line).strip("*_` ")


def last_line(text: str) -> str:
    """Give the last line that is not empty: a plain program's summary."""
    return plain(next((t for t in reversed(text.splitlines()) if t.strip()), ""))


def plain(line: str, limit: int = 200) -> str:
    """Make text from elsewhere one printable line."""
    return printable(line).strip()[:limit]


# --- the table ---------------------------------------------------------------------------------

TABLE: Mapping[CliName, Cli] = {
    "claude": Cli(
        name="claude",
        title="Claude Code",
        install="npm install -g @anthropic-ai/claude-code",
        argv=_claude,
        parse=parse_claude,
        env={"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "DISABLE_AUTOUPDATER": "1"},
        home=(
            HomePath(
                ".claude",
                "CLAUDE_CONFIG_DIR",
                logins=(".credentials.json",),
                settings=("settings.json",),
            ),
            HomePath(".claude.json", copied=True, fields=_CLAUDE_JSON),
            HomePath("Library/Keychains"),
        ),
        logins=(".claude/.credentials.json",),
        login="run `claude` once and log in",
        unlocking=("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN"),
        key_suffices=True,
        keychain=True,
        litter=(".claude", ".claude.json"),
    ),
    "codex": Cli(
        name="codex",
        title="Codex",
        install="npm install -g @openai/codex",
        argv=_codex,
        parse=parse_codex,
        home=(HomePath(".codex", "CODEX_HOME", logins=("auth.json",), settings=("config.toml",)),),
        logins=(".codex/auth.json",),
        login="run `codex login`",
        unlocking=("CODEX_API_KEY", "OPENAI_API_KEY"),
        litter=(".codex",),
    ),
    "gemini": Cli(
        name="gemini",
        title="Gemini CLI",
        install="npm install -g @google/gemini-cli",
        argv=_gemini,
        parse=parse_gemini,
        home=(
            HomePath(
                ".gemini",
                logins=("oauth_creds.json",),
                settings=("google_accounts.json", "installation_id", "settings.json"),
            ),
        ),
        logins=(".gemini/oauth_creds.json",),
        login="run `gemini` once and log in",
        unlocking=("GEMINI_API_KEY", "GOOGLE_API_KEY", "GOOGLE_GENAI_USE_VERTEXAI"),
        litter=(".gemini",),
    ),
    "opencode": Cli(
        name="opencode",
        title="opencode",
        install="npm install -g opencode-ai",
        argv=_opencode,
        parse=parse_opencode,
        env={"OPENCODE_CONFIG_CONTENT": json.dumps(_OPENCODE), "OPENCODE_DISABLE_AUTOUPDATE": "1"},
        home=(
            HomePath(
                ".config/opencode",
                "XDG_CONFIG_HOME",
                settings=("config.json", "opencode.json", "opencode.jsonc"),
            ),
            HomePath(".local/share/opencode", "XDG_DATA_HOME", logins=("auth.json",)),
        ),
        logins=(".local/share/opencode/auth.json", ".config/opencode/opencode.json"),
        login="run `opencode auth login`",
        unlocking=(
            *("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY"),
            "OPENROUTER_API_KEY",
        ),
        litter=(".opencode",),
    ),
    "aider": Cli(
        name="aider",
        title="aider",
        install="uv tool install aider-chat",
        argv=_aider,
        parse=parse_aider,
        home=(
            HomePath(".aider.conf.yml"),
            HomePath(".aider.model.settings.yml"),
            HomePath(".aider.model.metadata.json"),
            HomePath(".env"),
        ),
        logins=(".aider.conf.yml", ".env"),
        login="put the key into ~/.aider.conf.yml",
        unlocking=(
            *("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY"),
            *("OPENROUTER_API_KEY", "DEEPSEEK_API_KEY"),
        ),
        litter=(".aider*",),
        stdin=False,
    ),
}
