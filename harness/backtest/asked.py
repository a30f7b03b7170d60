"""A candidate that is a text: a model is asked about each event, by the harness itself.

Owns what the model is shown and what counts as its forecast. No code of the candidate runs, so
there is nothing to be walled in; what the model has read about the time of the events nobody knows.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event as Flag
from typing import Any, cast

from ending import UsageError
from files import NO, YES, Event, Field
from form import ModelForm
from model import Server, text_of
from parallel import in_parallel
from walk import BreachError, Forecast, Question, forecast

PLACES = ("{event}", "{history}", "{labels}")


@dataclass(frozen=True)
class Asking:
    """Who is asked, and with what."""

    template: str
    form: ModelForm
    history: int
    """Most events of the past that are shown, the latest."""
    at_once: int


def template(path: Path) -> str:
    """Read the text.

    Raises:
        UsageError: it cannot be read.
        BreachError: it has no place for the event.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--prompt: {path} cannot be read: {error}") from None
    if PLACES[0] not in text:
        what = f"{path} has no {PLACES[0]}, so that the model would not see the event"
        raise BreachError(what, "in the text")
    return text


def walk(asking: Asking, field: Field, questions: Sequence[Question]) -> list[Forecast]:
    """Ask about every event; no answer depends on another, so several are asked at once.

    Raises:
        UsageError: nothing says where there is a model.
        ModelError: the server cannot be reached, or refuses.
    """
    if not os.environ.get("SWARM_MODEL_URL"):
        raise UsageError(
            "--prompt: there is no model to ask; swarm sets $SWARM_MODEL_URL where the target has "
            "a `provider`, and by hand it is the address of a server with the Messages API"
        )
    cancel = Flag()
    server = Server(asking.form, cancel)
    known: list[Event] = []
    bodies: list[dict[str, Any]] = []
    for question in questions:
        known += question.known
        shown = known[max(0, len(known) - asking.history) :]
        bodies.append(_request(asking, field, question.event, shown))

    def ask(question: Question, body: dict[str, Any]) -> Forecast:
        return _forecast(text_of(server.send(body)), field, question.number)

    work = [partial(ask, *each) for each in zip(questions, bodies, strict=True)]
    return in_parallel(asking.at_once, work, cancel)


def _request(
    asking: Asking, field: Field, event: Event, history: Sequence[Event]
) -> dict[str, Any]:
    lines = [json.dumps({**_shown(each), "outcome": each.outcome}) for each in history]
    values = {
        "{event}": json.dumps(_shown(event)),
        "{history}": "\n".join(lines) or "(nothing is known yet)",
        "{labels}": ", ".join(field.labels),
    }
    # In one step: what an event says is never taken for another place.
    text = re.sub("|".join(map(re.escape, PLACES)), lambda m: values[m[0]], asking.template)
    body: dict[str, Any] = {
        "model": asking.form.model,
        "max_tokens": asking.form.max_tokens,
        "messages": [{"role": "user", "content": text}],
    }
    if asking.form.temperature is not None:
        body["temperature"] = asking.form.temperature
    return body


def _shown(event: Event) -> Mapping[str, Any]:
    return {"at": event.said_at, **event.given}


def _forecast(said: str, field: Field, number: int) -> Forecast:
    """Read the last JSON object of an answer, or its last line if that is a number."""
    for text in reversed(re.findall(r"\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\}", said)):
        try:
            found: object = json.loads(text)
            if isinstance(found, dict):
                return forecast(_keyed(cast("dict[str, Any]", found), field), field, number)
        except (ValueError, RecursionError, BreachError):
            continue
    last = said.strip().rsplit("\n", 1)[-1].strip()
    try:
        return forecast({"p" if field.labels else "value": float(last)}, field, number)
    except (ValueError, BreachError):
        return None


def _keyed(found: dict[str, Any], field: Field) -> dict[str, Any]:
    """Take probabilities by label that are not under `p` for what they are."""
    return {"p": found} if found and found.keys() <= {*field.labels, YES, NO} else found
