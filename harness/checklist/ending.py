"""How a program that measures ends: its errors, its exit status, and its end by a signal.

0 is done, 1 no answer, 2 what the person gave cannot be used, 130 Ctrl-C, and above 128 a signal.
"""

import signal
import sys
from collections.abc import Callable
from typing import NoReturn


class UsageError(Exception):
    """A file or a tool of the person who measures, or the command line, cannot be used: exit 2."""


class NoAnswerError(Exception):
    """What is measured gave nothing that can be used, which is its own fault: exit 1."""


def status_of(name: str, work: Callable[[], None]) -> int:
    """Do the work; say on stderr, after the program's name, why it could not be done."""
    try:
        work()
    except UsageError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    except NoAnswerError as error:
        print(f"{name}: no answer: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def leave_on(*signals: signal.Signals) -> None:
    """End by these signals as by an exception: all children first."""
    for each in signals:
        signal.signal(each, _leave)


def _leave(number: int, _: object) -> NoReturn:
    sys.exit(128 + number)
