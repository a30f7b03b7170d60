"""How well a candidate foretells events whose outcomes it does not know: walk-forward.

    python backtest.py score events.jsonl outcomes.jsonl --files model -- python model/main.py
    python backtest.py score events.jsonl outcomes.jsonl --files model --python model.main:predict
    python backtest.py score events.jsonl outcomes.jsonl --prompt prompt.md --model NAME
    python backtest.py rehearse past/events.jsonl past/outcomes.jsonl --files model -- ...
    python backtest.py check events.jsonl outcomes.jsonl

`score` and its files belong into the trusted stage: it runs the candidate there, behind walls of
its own. `rehearse` belongs into `run`, with events that everybody knows. `score` writes the metrics
to the file named by SWARM_RESULT and prints them as METRIC lines.

It owns the command line, the names of the metrics, the feedback, and the exit status: 0 measured,
or invalid, 1 the candidate failed, 2 the command line or a file cannot be used.

    SWARM_SEED      passed on to the candidate
    SWARM_RESULT    receives the metrics, or why there are none
"""

import argparse
import json
import os
import secrets
import signal
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from io import TextIOWrapper
from pathlib import Path
from typing import NamedTuple, cast

sys.dont_write_bytecode = True  # the checkout may be read-only, and must stay clean when it is not
sys.path.append(str(Path(__file__).resolve().parent.parent / "checklist"))

import asked  # noqa: E402
import files  # noqa: E402
import program  # noqa: E402
import scores  # noqa: E402
import walk  # noqa: E402
from ending import UsageError, leave_on  # noqa: E402
from files import Field  # noqa: E402
from form import FormError, ModelForm  # noqa: E402
from model import ModelError  # noqa: E402
from scores import Guessed, Judged  # noqa: E402
from walk import BreachError, NoAnswerError, Question  # noqa: E402

PARTS, FEWEST = 4, 20
"""Of the time in the feedback; and the fewest events of each: none is to tell of one event."""
FEWEST_IN_BIN = 10
LONG = 1e6
"""A figure from here on is written with an exponent."""

UNSHOWN = "how, where, and what it printed is not shown, as it has seen outcomes (`rehearse` does)"

Given = argparse.Namespace


class Measured(NamedTuple):
    """All that a walk has brought."""

    field: Field
    counted: Sequence[tuple[Question, Judged | Guessed]]
    """The events that count, each with its forecast."""
    metrics: Mapping[str, float]


# --- the walk ---------------------------------------------------------------------------------


def measure(given: Given, *, hidden: Sequence[Path] = ()) -> Measured:
    """Walk the candidate through the events; `hidden` are files that it must not get at.

    Raises:
        UsageError: a file or the command line cannot be used.
        BreachError: the candidate broke a rule.
        NoAnswerError: it failed.
    """
    field, walked = _questions(given)
    go = _candidate(given, field, hidden)
    said = go(walked)
    if given.prompt is None and not given.once and len(walked) > 1:
        # Not from the seed, which the candidate has: it would know what is never compared.
        far = 1 + secrets.randbelow(len(walked) - 1)
        walk.compare(said, go(walked[:far]))
    pairs = zip(walked, walk.judged(field, walked, said), strict=True)
    counted = [(q, one) for q, one in pairs if _counts(q, field, given.since)]
    return Measured(field, counted, _figures(field, [one for _, one in counted]))


def _questions(given: Given) -> tuple[Field, list[Question]]:
    field = files.read(given.events, given.outcomes)
    until: datetime | None = given.until
    walked = walk.questions([e for e in field.events if until is None or e.at < until])
    if given.cases and not field.labels:
        raise UsageError("--cases: a number is neither right nor wrong; cases are for labels")
    if not any(given.since is None or q.event.at >= given.since for q in walked):
        raise UsageError(f"{given.events}: no event lies between --from and --until")
    if not any(_counts(question, field, given.since) for question in walked):
        raise UsageError(f"{given.events}: of no event that counts is an earlier outcome known")
    return field, walked


def _counts(question: Question, field: Field, since: datetime | None) -> bool:
    """Tell whether an event is judged; a number only where the past has a mean to compare with."""
    known = question.past > 0 or bool(field.labels)
    return known and (since is None or question.event.at >= since)


def _candidate(given: Given, field: Field, hidden: Sequence[Path]) -> walk.Walk:
    """Find out what the candidate is: a function, a program, or a text for a model."""
    forms = (given.python is not None, given.prompt is not None, bool(given.command))
    if sum(forms) != 1:
        raise UsageError("say what the candidate is: --python, --prompt, or `-- COMMAND`")
    if given.prompt is not None:
        if given.model is None:
            raise UsageError("--prompt: name the model that is asked with --model")
        model = ModelForm(model=given.model, max_tokens=given.tokens, timeout_s=given.timeout,
                          temperature=given.temperature)  # fmt: skip
        asking = asked.Asking(asked.template(given.prompt), model, given.history, given.at_once)
        return lambda walked: asked.walk(asking, field, walked)
    start = program.Start(
        argv=tuple(given.command) or program.function(given.python, hidden),
        files=tuple(given.files),
        timeout_s=given.timeout,
        read=tuple(given.read),
        hidden=tuple(hidden),
        walled=not given.open,
    )
    program.check(start)
    return lambda walked: program.walk(start, field, walked)


def _figures(field: Field, judged: Sequence[Judged | Guessed]) -> dict[str, float]:
    if field.labels:
        return scores.of(cast("Sequence[Judged]", judged), field.binary)
    return scores.of_numbers(cast("Sequence[Guessed]", judged))


# --- what is said of it -----------------------------------------------------------------------


def score(given: Given) -> None:
    """Measure, or say why the measurement is invalid."""
    try:
        found = measure(given, hidden=(given.events, given.outcomes))
    except BreachError as error:
        print(f"backtest: invalid: {error}")
        _leave({"invalid": str(error)})
        return
    told: dict[str, object] = {"metrics": found.metrics, "feedback": _feedback(found, given)}
    if given.cases:
        pairs = cast("Sequence[tuple[Question, Judged]]", found.counted)
        told["cases"] = [
            {"id": q.event.id, "pass": scores.right(one.chances, one.label) == 1}
            for q, one in pairs
        ]
    for name, value in found.metrics.items():
        print(f"METRIC {name}={value:.6g}")
    print(told["feedback"])
    _leave(told)


def rehearse(given: Given) -> None:
    """Measure where nothing is secret, and show all; the number counts for nothing."""
    try:
        found = measure(given)
    except BreachError as error:
        print(f"backtest: rehearsal: `score` will call this invalid: {error}: {error.detail}")
        return
    shown = ", ".join(f"{name} {value:.4g}" for name, value in found.metrics.items())
    print(f"rehearsal on {given.events}: {shown}")


def check(given: Given) -> None:
    """Say what the files have."""
    field, walked = _questions(given)
    counted = [q for q in walked if _counts(q, field, given.since)]
    kind = f"one of {', '.join(field.labels)}" if field.labels else "a number"
    print(f"{len(field.events)} events; an outcome is {kind}")
    print(f"{len(walked)} are walked, the last {len(counted)} of them count: {_span(counted)}")
    print(f"at the last of them {walked[-1].past} outcomes are known")


def _leave(told: Mapping[str, object]) -> None:
    if place := os.environ.get("SWARM_RESULT"):
        try:
            Path(place).write_text(json.dumps(told), encoding="utf-8")
        except OSError as error:
            what = f"{place} cannot be written: {error.strerror}"
            raise UsageError(f"SWARM_RESULT: {what}") from None


def _feedback(found: Measured, given: Given) -> str:
    """Tell where it is weak; of no single event, as a candidate could learn it by heart."""
    name = "log_loss" if found.field.labels else "absolute_error"
    metrics, counted = found.metrics, found.counted
    lines = [
        f"{len(counted)} events, {_span([q for q, _ in counted])}: {name} {_short(metrics[name])} "
        f"(standard error {_short(metrics[f'{name}_se'])}), "
        f"of the base rate {_short(metrics[f'base_{name}'])}"
    ]
    parts = min(PARTS, len(counted) // FEWEST)
    for n in range(parts if parts > 1 else 0):
        some = counted[n * len(counted) // parts : (n + 1) * len(counted) // parts]
        figures = _figures(found.field, [one for _, one in some])
        where = _span([q for q, _ in some])
        base = _short(figures[f"base_{name}"])
        lines.append(f"{where}: {_short(figures[name])}, base rate {base}")
    if found.field.labels:
        judged = cast("Sequence[Judged]", [one for _, one in counted])
        lines += [
            f"{b.events} events with {b.said:.2f} for the most probable label: "
            f"it came in {b.came:.2f} of them"
            for b in scores.bins(judged)
            if b.events >= FEWEST_IN_BIN
        ]
    if given.open:
        lines.append("walked without walls: that nothing was looked up is not proven")
    return "\n".join(lines)


def _short(value: float) -> str:
    return f"{value:.4f}" if abs(value) < LONG else f"{value:.4g}"


def _span(counted: Sequence[Question]) -> str:
    first, last = counted[0].event.at, counted[-1].event.at
    return f"{first:%Y-%m-%d} to {last:%Y-%m-%d}"


# --- the command line -------------------------------------------------------------------------


def _moment(text: str) -> datetime:
    try:
        return files.moment(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no date as 2024-05-31") from None


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of at least 1")
    return int(text)


def _number(text: str) -> int:
    return 0 if text == "0" else _positive(text)


def _seconds(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 < found < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return found


def _temperature(text: str) -> float | None:
    if text == "none":
        return None
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 <= found < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither none nor a number from 0 up")
    return found


def parser() -> argparse.ArgumentParser:
    """Give the command line."""
    top = argparse.ArgumentParser(
        prog="backtest",
        description="How well a candidate foretells. A program comes last, after `--`.",
    )
    top.set_defaults(cases=False)
    modes = top.add_subparsers(required=True)
    about = {
        "score": (score, "walk a candidate through hidden events, and judge it"),
        "rehearse": (rehearse, "walk it through events that everybody knows, and show all"),
        "check": (check, "read the files, and say what is wrong"),
    }
    for name, (does, said) in about.items():
        mode = modes.add_parser(name, help=said)
        mode.add_argument("events", type=Path)
        mode.add_argument("outcomes", type=Path)
        first = "the first moment that counts; what is earlier is walked and not judged"
        mode.add_argument("--from", dest="since", type=_moment, metavar="DATE", help=first)
        last = "the first moment that is not walked any more"
        mode.add_argument("--until", type=_moment, metavar="DATE", help=last)
        if does is not check:
            _walks(mode)
        if does is score:
            mode.add_argument("--cases", action="store_true", help="report each event as a case")
        mode.set_defaults(does=does)
    return top


def _walks(mode: argparse.ArgumentParser) -> None:
    mode.add_argument("--timeout", type=_seconds, default=30.0, help="for each answer [30]")

    code = mode.add_argument_group("a program or a function")
    code.add_argument("--python", metavar="MODULE:FUNCTION", help="instead of `-- COMMAND`")
    mine = "a file or folder of the candidate; it finds a copy at the same place, and no other file"
    code.add_argument("--files", type=Path, action="append", default=[], help=mine)
    also = "what else of this machine it may read"
    code.add_argument("--read", type=Path, action="append", default=[], metavar="PATH", help=also)
    code.add_argument("--once", action="store_true", help="do not walk a part a second time")
    code.add_argument("--open", action="store_true", help="without walls; nothing is proven then")

    text = mode.add_argument_group("a text for a model")
    text.add_argument("--prompt", type=Path, metavar="FILE", help="with {event} and {history}")
    text.add_argument("--model", help="who is asked")
    text.add_argument("--history", type=_number, default=20, help="past events it is shown [20]")
    text.add_argument("--temperature", type=_temperature, default=0.0, help="or none [0]")
    text.add_argument("--tokens", type=_positive, default=1024, help="most of an answer [1024]")
    text.add_argument("--at-once", type=_positive, default=4, help="events [4]")


def main() -> int:
    """Do what the command line says."""
    words = sys.argv[1:]
    at = words.index("--") if "--" in words else len(words)
    given = parser().parse_args(words[:at])
    given.command = words[at + 1 :]
    leave_on(signal.SIGTERM)
    cast("TextIOWrapper", sys.stdout).reconfigure(errors="backslashreplace")
    try:
        given.does(given)
    except (UsageError, FormError) as error:
        print(f"backtest: {error}", file=sys.stderr)
        return 2
    except NoAnswerError as error:
        shown = f": {error.detail}" if given.does is rehearse else f"; {UNSHOWN}"
        print(f"backtest: no answer: {error}{shown}", file=sys.stderr)
        return 1
    except ModelError as error:
        print(f"backtest: no answer: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
