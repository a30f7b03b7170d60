"""Whether the proposers of a config can work on this machine: programs, logins and keys.

Asked before anything is started, and by `swarm doctor`. Looks only; starts no program, sends
nothing, and never shows a key, only the name of the variable that holds it.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from swarm.config import RunConfig, TargetConfig
from swarm.errors import PreconditionError
from swarm.groups import (
    AgentGroup,
    HeadlessProposer,
    MessagesProposer,
    MutateProposer,
    ProposerConfig,
)
from swarm.keys import is_local, wanted
from swarm.proposers import examples
from swarm.proposers.clis import TABLE, Cli
from swarm.proposers.homes import login_of

KNOCK_S = 2.0
_OFFLINE = "or use `proposer: mutate`, which needs no key"


class Lack(NamedTuple):
    """One thing that a group of agents cannot work without."""

    what: str
    remedy: str


def check(config: RunConfig, keys: Mapping[str, str]) -> None:
    """Refuse to launch agents that could not make a single proposal here.

    `keys` are those that `keys.take` has gathered. What a provider will say to them is not known
    before the first request.

    Raises:
        PreconditionError: naming everything that any group lacks.
    """
    lacks = {
        index: found
        for index, group in enumerate(config.agents)
        if (found := lack(group.proposer, keys) or _no_examples(group, config))
    }
    if not lacks:
        return
    lines = [f"agents.{index}: {found.what}" for index, found in lacks.items()]
    head = "the agents cannot work: " if len(lines) == 1 else "the agents cannot work:\n  "
    remedies = dict.fromkeys(found.remedy for found in lacks.values())
    raise PreconditionError(head + "\n  ".join(lines), hint="; ".join(remedies))


def lack(
    proposer: ProposerConfig, keys: Mapping[str, str], environ: Mapping[str, str] = os.environ
) -> Lack | None:
    """Say what a proposer lacks, or None."""
    match proposer:
        case MessagesProposer():
            return _no_key(proposer, keys)
        case HeadlessProposer(cli=str() as cli):
            known = TABLE[cli]
            return _no_program(known, environ) or _no_access(known, proposer, keys, environ)
        case HeadlessProposer(cli=argv):
            return _no_command(argv[0], environ)
        case _:
            return None


def _no_examples(group: AgentGroup, config: RunConfig) -> Lack | None:
    """Read the examples once in the user's own trees; what counts later is the worktree's."""
    proposer = group.proposer
    if not isinstance(proposer, MutateProposer) or not proposer.examples:
        return None
    lacks = (_without(proposer, t) for t in config.targets if group.serves(t.name))
    return next((found for found in lacks if found is not None), None)


def _without(proposer: MutateProposer, target: TargetConfig) -> Lack | None:
    try:
        found = examples.read(target.repo, proposer.examples, target.hidden)
    except examples.ExamplesError as error:
        return Lack(f"`mutate`: {error}", "correct `examples`, or leave it out")
    if found:
        return None
    what = f"`mutate`: no case in {', '.join(proposer.examples)} has a request and an answer"
    keys = " and ".join(
        f"one of {', '.join(names)}"
        for names in (examples.REQUESTS, (*examples.ANSWERS, examples.REFERENCE))
    )
    return Lack(what, f"give each case {keys}, of at most {examples.LARGEST} characters")


def _no_key(proposer: MessagesProposer, keys: Mapping[str, str]) -> Lack | None:
    server = proposer.base_url or keys.get("ANTHROPIC_BASE_URL") or ""
    name = proposer.key_name
    if is_local(server) and proposer.key is None:
        return _no_server(proposer, server)
    if name is None:
        what = f"`{proposer.label}`: it is not said which key {server} is to be shown"
        return Lack(what, "name the environment variable that holds it: `key: MY_KEY`")
    if keys.get(name) or (proposer.key is None and keys.get("ANTHROPIC_AUTH_TOKEN")):
        return _no_server(proposer, server)
    what = f"`{proposer.label}` needs a key, and {name} is not set"
    remedy = f"export {name}=..., or set `base_url` to a local server, {_OFFLINE}"
    return Lack(what, remedy)


def _no_server(proposer: MessagesProposer, server: str) -> Lack | None:
    """Knock at a server on this very machine; others may be slow, or behind a proxy."""
    parts = urlsplit(server)
    if parts.hostname not in ("localhost", "127.0.0.1", "::1"):
        return None
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname, port), KNOCK_S).close()
    except OSError as error:
        why = error.strerror or str(error)
        what = f"`{proposer.label}`: nothing answers at {server} ({why})"
        return Lack(what, f"start the server, or correct `base_url`, {_OFFLINE}")
    return None


def _no_program(cli: Cli, environ: Mapping[str, str]) -> Lack | None:
    if program(cli, environ) is not None:
        return None
    return Lack(f"{cli.title} (`{cli.name}`) is not on PATH", f"install it: {cli.install}")


def _no_command(word: str, environ: Mapping[str, str]) -> Lack | None:
    # A path is relative to the worktree, which does not exist yet.
    if ("/" in word and not os.path.isabs(word)) or shutil.which(word, path=_path(environ)):
        return None
    return Lack(f"there is no program `{word}`", "correct `cli`, or put the program on PATH")


def _no_access(
    cli: Cli, proposer: HeadlessProposer, keys: Mapping[str, str], environ: Mapping[str, str]
) -> Lack | None:
    # A variable that the config adds is taken for a way in: there are more than swarm knows.
    enough = (*cli.unlocking, *proposer.env)
    if any(keys.get(name) for name in enough) or has_login(cli, environ):
        return None
    either = " or ".join(cli.unlocking)
    what = f"{cli.title} (`{cli.name}`) is not logged in, and {either} is not set"
    return Lack(what, f"{cli.login}, or export {cli.unlocking[0]}=..., {_OFFLINE}")


# --- what `swarm doctor` shows ------------------------------------------------------------------


def programs(environ: Mapping[str, str] = os.environ) -> Iterator[tuple[Cli, Path]]:
    """Give the coding agents that are installed."""
    for cli in TABLE.values():
        if (path := program(cli, environ)) is not None:
            yield cli, path


def program(cli: Cli, environ: Mapping[str, str] = os.environ) -> Path | None:
    """Find a coding agent's program."""
    found = shutil.which(cli.name, path=_path(environ))
    return Path(found) if found else None


def has_login(cli: Cli, environ: Mapping[str, str] = os.environ) -> bool:
    """Tell whether somebody seems to have logged in; yes where that cannot be seen."""
    return (cli.keychain and sys.platform == "darwin") or login_of(cli, environ) is not None


def key_names(environ: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Give the names of the variables for providers that are set."""
    names = dict.fromkeys(
        name for cli in TABLE for name in wanted(HeadlessProposer(kind="headless", cli=cli))
    )
    return tuple(name for name in names if environ.get(name))


def _path(environ: Mapping[str, str]) -> str:
    return environ.get("PATH") or os.defpath
