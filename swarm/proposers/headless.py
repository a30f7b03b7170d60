"""A coding agent from the command line, or any program that edits files, as a proposer.

Owns one call: the briefing on its way in, the environment and home of the process, its end, and
what is made of its output. `clis` knows the programs, `sandbox` how a process is run and ended.
The program sees the worktree, its own files of the user's home and its own keys, no GPU, nothing
else of the launcher's environment, and of the machine what the sandbox shows to all.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path

from swarm import keys as all_keys
from swarm.briefing import Briefing, render
from swarm.groups import HeadlessProposer
from swarm.prices import price_of
from swarm.proposers import (
    Draft,
    LockedOutError,
    NoProposalError,
    UnavailableError,
    Workspace,
)
from swarm.proposers.clis import (
    TABLE,
    Call,
    Report,
    diagnose,
    last_line,
    plain,
    summary_of,
    wait_of,
)
from swarm.proposers.homes import XDG, Login, bring_home, furnish, login_of
from swarm.records import Usage
from swarm.removal import remove_tree
from swarm.sandbox import Command, Limits, Mount, Outcome, Rung, Sandbox, View, program_at

OUTPUT = 32 * 2**20
"""Bytes that are kept of stdout and of stderr: the first and the last half of it."""
RATIONALE = 4000
"""Characters that are kept of the last words."""
TAIL = 600
"""Characters of stderr in the reason of a failure."""

LIMITS = Limits(processes=1024, file_size=2 * 2**30)
"""Of a program with all that it starts; what it may take of memory is its own affair."""

_CONTRACT = """
# How to hand in

Your working directory holds the files. Edit them there, and only those in scope; make one change.
Leave no notes, copies or other new files behind that the change does not need. There is no git
repository: do not commit. Do not measure: that is done for you afterwards, elsewhere.
"""
_LAST_WORDS = {
    True: "End your answer with one line that says what you changed: `SUMMARY: lr 1e-3 -> 2e-3`.\n",
    False: "Print one line at the end that says what was changed.\n",
}
_OWN_HINT = (
    "correct `cli` in the config; in the sandbox a program finds what is on PATH, and files that "
    "`cli` names in full"
)
_GIVE_UP = "If it cannot be mended, change nothing and say why.\n"


class Headless:
    """One agent's program."""

    def __init__(self, config: HeadlessProposer, agent: str, keys: Mapping[str, str]) -> None:
        self.config, self.agent = config, agent
        self.keys = all_keys.of(config, keys)
        self._cli = TABLE[config.cli] if isinstance(config.cli, str) else None
        self._secrets = all_keys.secrets(self.keys)

    def propose(self, workspace: Workspace, briefing: Briefing) -> Draft:
        """Have the program make one change.

        Raises:
            LockedOutError: it is not installed, or its provider refuses the key or the login.
            UnavailableError: its provider asks to be left alone for a while.
            NoProposalError: it failed, took too long, or changed nothing.
        """
        with _scratch(workspace) as scratch, _hidden(workspace, scratch / "hidden"):
            before, litter = _stand(workspace), set(self._litter(workspace))
            ending = self._run(workspace, briefing, scratch)
            if ending.usage != Usage():
                workspace.spent(ending.usage)
            for path in list(self._litter(workspace)):
                if path not in litter:
                    remove_tree(path)
            changed = _stand(workspace) != before
        return self._judge(ending, briefing, changed)

    # --- the call

    def _run(self, workspace: Workspace, briefing: Briefing, scratch: Path) -> _Ending:
        told = scratch / "briefing.md"
        told.write_text(self._words(briefing), encoding="utf-8")
        home = scratch / "home"
        logins = self._home(home, workspace.rung)
        command = Command(
            argv=self._argv(told, workspace),
            cwd=workspace.root,
            env=self._environment(told, home),
            timeout_s=self.config.timeout,
            log=scratch / "stdout",
            errors=scratch / "stderr",
            output_limit=OUTPUT,
            stdin=told if self._cli is None or self._cli.stdin else None,
            view=self._view(workspace, told, home, logins),
        )
        with Sandbox(workspace.rung, scratch=scratch / "box", limits=LIMITS) as box:
            outcome = box.run(command)
        bring_home(logins)
        # Before anything is cut: half a key would be found no more.
        output, errors = (self._blot(_text(f)) for f in (command.log, scratch / "stderr"))
        report = Report(output.strip()) if self._cli is None else self._cli.parse(output)
        usage = Usage() if outcome.unstarted else self._usage(report)
        return _Ending(outcome, report, errors, last_line(output), usage)

    def _words(self, briefing: Briefing) -> str:
        parts = [render(briefing).whole.rstrip() + "\n", _CONTRACT, _LAST_WORDS[bool(self._cli)]]
        if briefing.crash is not None:
            parts.append(_GIVE_UP)
        return "\n".join(parts)

    def _argv(self, told: Path, workspace: Workspace) -> tuple[str, ...]:
        if self._cli is None:
            return tuple(self.config.cli)
        given, files = self.config, workspace.files
        call = Call(
            str(told), given.model, given.args, files, self.keys, walled=workspace.rung.walls
        )
        return tuple(self._cli.argv(call))

    def _environment(self, told: Path, home: Path) -> dict[str, str]:
        env = {n: v for n, v in os.environ.items() if _PASSED.fullmatch(n)}
        env.setdefault("PATH", os.defpath)
        env |= {"TERM": "dumb", "NO_COLOR": "1", "CUDA_VISIBLE_DEVICES": "", "HOME": str(home)}
        for name, below in XDG.items():
            env[name] = str(home / below)
        env["SWARM_BRIEFING"] = str(told)
        if self._cli is not None:
            env |= self._cli.env
        env |= self.keys
        key = self.keys.get("OPENAI_API_KEY")
        if self.config.cli == "codex" and key and login_of(TABLE["codex"], os.environ) is None:
            # It uses that variable to log in only; a login that exists is not to be overruled.
            env.setdefault("CODEX_API_KEY", key)
        return env

    def _home(self, home: Path, rung: Rung) -> tuple[Login, ...]:
        """Make a home that holds the program's own files of the user's, and nothing else."""
        home.mkdir(mode=0o700)
        cli = self._cli
        if cli is None or (cli.key_suffices and any(name in self.keys for name in cli.unlocking)):
            return ()
        return furnish(home, cli, rung)

    def _view(
        self, workspace: Workspace, told: Path, home: Path, logins: tuple[Login, ...]
    ) -> View:
        """Show the worktree, the briefing, its home, and the files that its own words name."""
        own = self.config.cli if self._cli is None else self.config.args
        mounts = (
            *(Mount(Path(path)) for word in own for path in _named(word, workspace.shielded)),
            Mount(workspace.root, writable=True),
            Mount(told),
            Mount(home, writable=True),
            *(login.mount for login in logins),
        )
        return View(mounts, network=True, shielded=workspace.shielded, home=str(home))

    def _litter(self, workspace: Workspace) -> Iterator[Path]:
        """Find what the program itself leaves beside the files, deepest first.

        What a pattern of the scope names is no litter: somebody improves the program's own files.
        """
        globs = () if self._cli is None else self._cli.litter
        if not workspace.root.is_dir():  # it may have removed that, too
            return
        named = {pattern.split("/", 1)[0] for pattern in workspace.scope.patterns}
        for entry in sorted(workspace.root.iterdir()) if globs else ():
            if not any(fnmatchcase(entry.name, glob) for glob in globs):
                continue
            # A link that it has planted leads out: it goes, what it leads to does not.
            inside = () if entry.is_symlink() else os.walk(entry, topdown=False)
            for folder, folders, names in inside:
                for name in (*names, *folders):
                    path = Path(folder, name)
                    if entry.name not in named or _relative(path, workspace) not in workspace.scope:
                        yield path
            if entry.name not in named:
                yield entry

    # --- what is made of it

    def _judge(self, ending: _Ending, briefing: Briefing, changed: bool) -> Draft:
        outcome, report, usage = ending.outcome, ending.report, ending.usage
        if outcome.unstarted:
            raise LockedOutError(
                self._blot(f"{self._name} cannot be started: {outcome.error}"),
                f"install it: {self._cli.install}" if self._cli else _OWN_HINT,
                usage,
            )
        failure = self._failure(ending)
        if failure is not None:
            self._refused(ending, usage)
            raise NoProposalError(self._blot(f"{self._name} {failure}"), usage)
        own = self._cli is None and "SUMMARY:" not in report.text
        said = ending.last_line if own else summary_of(report.text)
        if not changed:
            done = "gave up mending" if briefing.crash is not None else "changed nothing"
            words = f": {said}" if said else ""
            raise NoProposalError(self._blot(f"{self._name} {done}{words}"), usage)
        return Draft(
            summary=plain(self._blot(said)),
            rationale=self._blot(report.text)[-RATIONALE:],
            usage=usage,
            port_of=briefing.port.number if briefing.port is not None else None,
        )

    def _failure(self, ending: _Ending) -> str | None:
        """Say how it failed, or None if it did not."""
        outcome, report, tail = ending.outcome, ending.report, _tail(ending.errors)
        if outcome.timed_out:
            return f"took longer than {self.config.timeout:g} s{_after(report.error or tail)}"
        if outcome.error is not None:
            return f"could not be run: {outcome.error}"
        if report.error is not None:
            return f"failed{_after(report.error)}"
        if outcome.status != 0:
            words = tail or plain(report.text[-TAIL:], TAIL) or ending.last_line
            return f"ended with status {outcome.status}{_after(words)}"
        if not report.ended:
            return f"printed something else than its result{_after(tail or ending.last_line)}"
        return None

    def _refused(self, ending: _Ending, usage: Usage) -> None:
        """Tell a refusal of the provider from a failure of the program."""
        cli, report = self._cli, ending.report
        if cli is None or ending.outcome.error is not None:
            return
        if report.error is None and ending.outcome.timed_out:
            return
        words = report.error or f"{ending.last_line} {_tail(ending.errors)}"
        reason = self._blot(f"{self._name} failed{_after(words)}")
        match diagnose(words, report.status):
            case "locked":
                keys = " or ".join(cli.unlocking)
                hint = f"{cli.login}, or export {keys}; and see that `model` is right"
                raise LockedOutError(reason, hint, usage)
            case "busy":
                wait = wait_of(f"{words} {_tail(ending.errors)}", datetime.now().astimezone())
                raise UnavailableError(reason, wait, usage)
            case None:
                return

    def _usage(self, report: Report) -> Usage:
        tokens = report.tokens
        return Usage(
            usd=self._usd(report),
            input_tokens=tokens.input + tokens.cache_write,
            cached_tokens=tokens.cache_read,
            output_tokens=tokens.output,
        )

    def _usd(self, report: Report) -> float:
        """Give the cost by the config's prices, by the program's word, or by the price table.

        A program does not know that a server on this machine costs nothing.
        """
        local = all_keys.is_local(self.keys.get("ANTHROPIC_BASE_URL", ""))
        if self.config.prices is None and report.usd is not None and not local:
            return report.usd
        if self._cli is None and self.config.prices is None:
            return 0.0
        price = price_of(self.config, self.keys)
        if price is None:
            return report.usd or 0.0
        return price.proposal + price.usd(**report.tokens._asdict())

    @property
    def _name(self) -> str:
        return self._cli.title if self._cli is not None else f"`{self.config.cli[0]}`"

    def _blot(self, text: str) -> str:
        return all_keys.blot(text, self._secrets)


@dataclass(frozen=True)
class _Ending:
    """How a call went."""

    outcome: Outcome
    report: Report
    errors: str
    last_line: str
    usage: Usage


_PASSED = re.compile(
    r"PATH|LANG|LC_[A-Z]+|TZ|(?:HTTPS?|NO|ALL)_PROXY|(?:https?|no|all)_proxy|"
    r"SSL_CERT_(?:FILE|DIR)|NODE_EXTRA_CA_CERTS|REQUESTS_CA_BUNDLE"
)
"""What a program needs of the launcher's environment to find files, words and the network."""


# --- the worktree ------------------------------------------------------------------------------


@contextmanager
def _scratch(workspace: Workspace) -> Generator[Path]:
    """Give an empty private directory; what programs wrote there may hold keys and is removed."""
    parent = workspace.scratch
    path = Path(tempfile.mkdtemp(prefix="headless-", dir=parent))
    try:
        yield path
    finally:
        with suppress(OSError):
            remove_tree(path)


@contextmanager
def _hidden(workspace: Workspace, shelf: Path) -> Generator[None]:
    """Put away what the program must not read."""
    moved: list[tuple[Path, Path]] = []
    try:
        if workspace.hidden.patterns:
            for path in list(_walk(workspace.root)):
                if _relative(path, workspace) in workspace.hidden:
                    place = shelf / str(len(moved))
                    place.parent.mkdir(exist_ok=True)
                    shutil.move(path, place)
                    moved.append((path, place))
        yield
    finally:
        for path, place in moved:
            _make_way(path, workspace.root)
            shutil.move(place, path)


def _make_way(path: Path, root: Path) -> None:
    """Remove what lies at a path, and make directories of all above it; no link is followed."""
    for parent in reversed(path.relative_to(root).parents):
        folder = root / parent
        if folder.is_symlink() or not folder.is_dir():
            remove_tree(folder)
            folder.mkdir(parents=True)
    remove_tree(path)


def _named(word: str, shielded: tuple[str, ...]) -> list[str]:
    """Give what has to be seen of a program, or of a file, that a command names in full."""
    if not os.path.isabs(word) or not os.path.isfile(word):
        return []
    # The interpreter of a virtual environment is nothing without it.
    environment = Path(word).parent.parent / "pyvenv.cfg"
    return program_at(word, shielded) if environment.is_file() else [word]


def _stand(workspace: Workspace) -> dict[str, tuple[int, int, int, int]]:
    """Say how the worktree stands, closely enough to see whether anything was written."""
    found: dict[str, tuple[int, int, int, int]] = {}
    for path in _walk(workspace.root):
        with suppress(OSError):
            state = path.lstat()
            size, stamp = state.st_size, state.st_mtime_ns
            found[str(path)] = (size, stamp, state.st_mode, state.st_ino)
    return found


def _walk(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        links = [name for name in folders if Path(folder, name).is_symlink()]
        yield from (Path(folder, name) for name in (*names, *links))


def _relative(path: Path, workspace: Workspace) -> str:
    return path.relative_to(workspace.root).as_posix()


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _tail(errors: str) -> str:
    """Give the end of stderr in one line."""
    return plain(" ".join(errors.split())[-TAIL:], TAIL)


def _after(words: str) -> str:
    return f": {plain(words, TAIL)}" if words.strip() else ""
