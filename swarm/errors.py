"""Every error that swarm raises on purpose. One class for each different thing a caller does.

    SwarmError                  exit 1   unexpected
    ├── UsageError              exit 2   the command line is wrong
    ├── ConfigError             exit 2   the config is wrong: a list of `Problem`s with places
    ├── PreconditionError       exit 3   the world is not ready: fix it, launch again
    │   ├── RepositoryError     exit 3   the user's repository cannot be used as it is
    │   ├── HarnessError        exit 3   the target cannot be measured on its base
    │   ├── LedgerError         exit 3   the ledger cannot be read or written
    │   └── RunInUseError       exit 3   another process holds the run
    ├── GitError                exit 1   a git command of swarm's own failed
    ├── RunFailedError          exit 4   the run cannot go on (it can be resumed)
    └── BudgetRefusedError      exit 5   the budget cannot be honoured

A crash of an experiment is never an exception: it is a verdict (`swarm.records`).
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class SwarmError(Exception):
    """An error with a remedy: `message` says what failed, where and why, `hint` what to do next."""

    exit_code = 1
    kind = "unexpected"

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        path: Path | str | None = None,
        line: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.path = str(path) if path is not None else None
        self.line = line

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions cross process borders; the default reduce would drop keyword arguments.
        return (_rebuild, (type(self), dict(self.__dict__)))

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\n  hint: {self.hint}"

    def to_json(self) -> dict[str, Any]:
        """Give the `{"error": {...}}` envelope that `--json` prints."""
        return {
            "error": {
                "kind": self.kind,
                "message": self.message,
                "hint": self.hint,
                "path": self.path,
                "line": self.line,
            }
        }


def _rebuild(cls: type[SwarmError], fields: dict[str, Any]) -> SwarmError:
    error = cls.__new__(cls)
    Exception.__init__(error, fields["message"])
    error.__dict__.update(fields)
    return error


class UsageError(SwarmError):
    """The command line is wrong."""

    exit_code = 2
    kind = "usage"


@dataclass(frozen=True)
class Problem:
    """One thing wrong in a config file; `line` and `column` count from 1."""

    message: str
    line: int | None = None
    column: int | None = None
    source: str | None = None
    """The offending line of the file, for the caret."""
    suggestion: str | None = None


class ConfigError(SwarmError):
    """The config is wrong. All problems are reported at once, each with its place."""

    exit_code = 2
    kind = "config"

    def __init__(
        self, path: Path | str, problems: list[Problem], *, hint: str | None = None
    ) -> None:
        self.problems = tuple(problems)
        text = "\n".join(_render(str(path), p) for p in problems)
        super().__init__(text, hint=hint, path=path, line=problems[0].line if problems else None)


def _render(path: str, problem: Problem) -> str:
    place = path
    if problem.line is not None:
        place += f":{problem.line}"
        if problem.column is not None:
            place += f":{problem.column}"
    lines = [f"{place}: {problem.message}"]
    if problem.source is not None and problem.column is not None:
        lines += [f"    {problem.source}", "    " + " " * (problem.column - 1) + "^"]
    if problem.suggestion is not None:
        lines.append(f"  did you mean `{problem.suggestion}`?")
    return "\n".join(lines)


class PreconditionError(SwarmError):
    """The world is not ready for the command."""

    exit_code = 3
    kind = "precondition"


class RepositoryError(PreconditionError):
    """The user's repository cannot be used as it is."""

    kind = "repository"


class HarnessError(PreconditionError):
    """The target cannot be measured on its base commit."""

    kind = "harness"


class LedgerError(PreconditionError):
    """The ledger cannot be read or written."""

    kind = "ledger"


class RunInUseError(PreconditionError):
    """Another process holds the run."""

    kind = "run_in_use"


class GitError(SwarmError):
    """A git command of swarm's own failed; `status` is git's exit status."""

    kind = "git"

    def __init__(self, message: str, *, status: int, stderr: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.stderr = stderr


class RunFailedError(SwarmError):
    """The run cannot go on; what it has done so far is on the ledger, and it can be resumed."""

    exit_code = 4
    kind = "run_failed"


class BudgetRefusedError(SwarmError):
    """The budget cannot be honoured (a price is unknown, say), so nothing was started."""

    exit_code = 5
    kind = "budget"


_REMEDIES = {
    errno.ENOSPC: "free some disk space",
    errno.EDQUOT: "free some of your disk quota",
    errno.EFBIG: "raise the limit on file sizes (`ulimit -f`)",
    errno.EROFS: "make the disk writable",
}


def remedy(error: OSError, then: str = "launch the run again: it resumes") -> str | None:
    """Say what helps against a file that cannot be written, where that is known.

    `then` is what goes on where it stopped.
    """
    known = _REMEDIES.get(error.errno or 0)
    return known and f"{known}, then {then}"
