"""Keys: which environment variables each proposer needs, gathering them, and blotting them out.

The variables leave the environment of a launch before anything is started from it, and travel to
agents only. Nothing here writes them anywhere.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable, Mapping, MutableMapping
from contextlib import suppress
from urllib.parse import urlsplit

from swarm.groups import HeadlessProposer, MessagesProposer, ProposerConfig
from swarm.trust import ProviderConfig

_ANTHROPIC = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL")
_GOOGLE = (
    *("GEMINI_API_KEY", "GOOGLE_API_KEY", "GOOGLE_GEMINI_BASE_URL", "GOOGLE_CLOUD_PROJECT"),
    *("GOOGLE_CLOUD_LOCATION", "GOOGLE_GENAI_USE_VERTEXAI", "GOOGLE_APPLICATION_CREDENTIALS"),
)
_OPENAI = ("OPENAI_API_KEY", "OPENAI_BASE_URL")
OF_CLI: Mapping[str, tuple[str, ...]] = {
    "claude": (*_ANTHROPIC, "CLAUDE_CODE_OAUTH_TOKEN"),
    "codex": (*_OPENAI, "CODEX_API_KEY"),
    "gemini": _GOOGLE,
    "opencode": (*_ANTHROPIC, *_OPENAI, *_GOOGLE, "OPENROUTER_API_KEY"),
    "aider": (*_ANTHROPIC, *_OPENAI, *_GOOGLE, "OPENROUTER_API_KEY", "DEEPSEEK_API_KEY"),
}
"""The variables with which each coding agent finds its provider."""
_KNOWN = frozenset(name for names in OF_CLI.values() for name in names)
_PUBLIC = ("_BASE_URL", "_PROJECT", "_LOCATION", "_USE_VERTEXAI", "_APPLICATION_CREDENTIALS")
"""Endings of variables that are settings, not secrets."""
SHORTEST = 8
"""Shorter values are no keys, and blotting them out would garble honest text."""
BLOT = "[key]"


Asker = ProposerConfig | ProviderConfig
"""Who asks a provider: a proposer, or the harness."""


def wanted(proposer: Asker) -> tuple[str, ...]:
    """Give the variables that a proposer, or the harness's proxy, is handed, where they are set."""
    match proposer:
        case MessagesProposer() | ProviderConfig():
            names = [proposer.key_name] if proposer.key_name else []
            if proposer.key is None and names:
                names.append("ANTHROPIC_AUTH_TOKEN")
            if proposer.base_url is None:
                names.append("ANTHROPIC_BASE_URL")
            return tuple(names)
        case HeadlessProposer(cli=str() as cli):
            return tuple(dict.fromkeys((*OF_CLI[cli], *proposer.env)))
        case HeadlessProposer():
            return proposer.env
        case _:
            return ()


def take(proposers: Iterable[Asker], environ: MutableMapping[str, str]) -> dict[str, str]:
    """Take the variables that any of the proposers needs out of an environment."""
    names = dict.fromkeys(name for proposer in proposers for name in wanted(proposer))
    found = {name: environ[name] for name in names if environ.get(name)}
    # What nobody here needs is no business of anything that is started, either.
    for name in {*found, *_KNOWN}:
        if is_secret(name) and name in environ:
            if environ is os.environ:
                _wipe(name)
            del environ[name]
    return found


def _wipe(name: str) -> None:
    """Overwrite a variable where it lies: /proc/PID/environ shows what a process began with."""
    with suppress(OSError, AttributeError):
        getenv = ctypes.CDLL(None).getenv
        getenv.restype = ctypes.c_void_p
        place = getenv(os.fsencode(name))
        if place:
            ctypes.memset(place, ord("x"), len(ctypes.string_at(place)))


def of(proposer: Asker, keys: Mapping[str, str]) -> dict[str, str]:
    """Give one proposer's share."""
    return {name: keys[name] for name in wanted(proposer) if name in keys}


def is_secret(name: str) -> bool:
    """Tell a key from a setting."""
    return not name.endswith(_PUBLIC)


def secrets(keys: Mapping[str, str]) -> tuple[str, ...]:
    """Give the values that must not be seen, the longest first."""
    found = {v.strip() for n, v in keys.items() if is_secret(n) and len(v.strip()) >= SHORTEST}
    return tuple(sorted(found, key=len, reverse=True))


def blot(text: str, secret: Iterable[str]) -> str:
    """Replace every key in a text."""
    for value in secret:
        text = text.replace(value, BLOT)
    return text


def blot_bytes(data: bytes, secret: Iterable[str]) -> bytes:
    """Replace every key in what need not be text."""
    for value in secret:
        data = data.replace(value.encode(), BLOT.encode())
    return data


def is_local(url: str) -> bool:
    """Tell whether a server is on this machine or in a private network by its address."""
    import ipaddress

    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.endswith((".local", ".localhost")):
        return True
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return False
