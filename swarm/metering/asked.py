"""What is asked of a model, and what the answer says that it took. Pure."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple, cast
from urllib.parse import urlsplit

from swarm.metering.purse import Refusal, Tokens

UNSAID = 4096
"""Tokens set aside for an answer whose request names no limit."""
LETTERS = 4
"""Of a token, about; by which what no server has reported is reckoned."""
OPENAI = ("/v1/chat/completions", "/v1/responses")
FREE = "/v1/messages/count_tokens"
ASKED = frozenset(("POST", path) for path in ("/v1/messages", FREE, *OPENAI))
_MODELS = re.compile(r"/v1/models(/[\w:@+-][\w.:@+-]*)*", re.ASCII)
"""No `..` and no `%`: what a server makes of them could be any page of it."""
_QUERY = re.compile(r"[\w.,:=&-]*", re.ASCII)
_PARSING = threading.Lock()
"""A small document can be large when it is read: one at a time."""


def target_of(method: str, asked: str) -> tuple[str, str]:
    """Give the path, and with its query, of a request that may be passed on."""
    try:
        scheme, netloc, path, query, _ = urlsplit(asked)
    except ValueError:
        scheme = netloc = path = query = ""
    known = (method, path) in ASKED or (method == "GET" and _MODELS.fullmatch(path))
    if not known or scheme or netloc or not _QUERY.fullmatch(query):
        raise Refusal(404, "not_found_error", f"{method} {path} is not passed on")
    return path, f"{path}?{query}" if query else path


class Asked(NamedTuple):
    """What of a request decides whether it is passed on, and what is."""

    path: str
    target: str
    body: bytes = b""
    model: str = ""
    most: Tokens = Tokens()
    """About as much as it can take."""
    hides: bool = False
    """Whether usage is asked for by us, and is not for the harness."""

    @property
    def counts(self) -> bool:
        """Tell whether it costs anything."""
        return self.model != "" and self.path != FREE

    @classmethod
    def of(cls, path: str, target: str, body: bytes) -> Asked:
        """Read a request."""
        with _PARSING:
            try:
                found: object = json.loads(body, object_pairs_hook=_once)
            except (ValueError, RecursionError):
                found = None
            if not isinstance(found, dict):
                words = "the request is not a JSON object, or one that says a thing twice"
                raise Refusal(400, "invalid_request_error", words)
            fields = cast("dict[str, Any]", found)
            model = fields.get("model")
            # Some servers do not tell `Model` from `model`.
            named = [name for name in fields if name.lower() == "model"]
            if not isinstance(model, str) or not model or len(named) > 1:
                raise Refusal(400, "invalid_request_error", "the request names no one `model`")
            names = ("max_tokens", "max_completion_tokens", "max_output_tokens")
            said = [n for name in names if type(n := fields.get(name)) is int and n >= 0]
            most = Tokens(input=len(body) // LETTERS, output=max(said, default=UNSAID))
            hides = path == OPENAI[0] and fields.get("stream") is True
            options = _part(fields, "stream_options")
            if hides and options.get("include_usage") is not True:
                fields["stream_options"] = options | {"include_usage": True}
                return cls(path, target, json.dumps(fields).encode(), model, most, hides=True)
            return cls(path, target, body, model, most)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse an object with a name twice: of which the server goes by, we could not tell."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError
    return found


class Tally:
    """Tokens of one answer, as it comes in."""

    def __init__(self) -> None:
        self.tokens = Tokens()
        """As reported."""
        self.open = False
        """Whether more may have been used than was reported."""
        self._letters = 0

    def whole(self, data: bytes) -> None:
        """Take an answer that is one JSON document."""
        self._letters += len(data)
        with suppress(ValueError, RecursionError):
            self._take(json.loads(data))

    def lines(self, data: bytes, *, hides: bool) -> Iterator[bytes]:
        """Take lines of a stream, and give them again; without the usage that `hides` hides."""
        for line in data.splitlines(keepends=True):
            if not (self.line(line) and hides):
                yield line

    def line(self, line: bytes) -> bool:
        """Take a line of a stream of events; tell whether there was nothing but usage in it."""
        if not line.startswith(b"data:"):
            return False
        try:
            found = json.loads(line[5:])
        except (ValueError, RecursionError):
            return False
        self._take(found)
        return isinstance(found, dict) and cast("dict[str, Any]", found).get("choices") == []

    def end(self) -> None:
        """The answer is whole, and what it has reported all there is; if it has reported any."""
        self.open = self.open and not any(self.tokens)

    def took(self, asked: int) -> Tokens:
        """Give what was used; what was not reported is reckoned by the letters, never as nothing.

        Args:
            asked: tokens of the request, about.
        """
        told = self.tokens
        if not self.open:
            return told
        unread = not (told.input or told.cache_read or told.cache_write)
        return told._replace(
            input=asked if unread else told.input,
            output=max(told.output, self._letters // LETTERS),
        )

    def _take(self, found: object) -> None:
        """Take what a document says of usage; later words replace earlier ones, larger ones."""
        if not isinstance(found, dict):
            return
        fields = cast("dict[str, Any]", found)
        for holder in (fields, _part(fields, "message"), _part(fields, "response")):
            usage = _part(holder, "usage")
            if usage:
                self.tokens = Tokens(*map(max, self.tokens, _tokens(usage)))
        self._letters += _letters(fields.get("delta")) + _letters(fields.get("choices"))


def _letters(part: object) -> int:
    """Count what is written in a part of an answer."""
    if isinstance(part, str):
        return len(part)
    if isinstance(part, dict):
        fields = cast("dict[str, Any]", part)
        return sum(_letters(inner) for name, inner in fields.items() if name != "type")
    return sum(map(_letters, cast("list[Any]", part))) if isinstance(part, list) else 0


def _part(found: object, name: str) -> dict[str, Any]:
    inner = cast("dict[str, Any]", found).get(name) if isinstance(found, dict) else None
    return cast("dict[str, Any]", inner) if isinstance(inner, dict) else {}


def _tokens(usage: dict[str, Any]) -> Tokens:
    """Read usage as Anthropic's servers give it, or as OpenAI's, which include the cached ones."""

    def count(holder: dict[str, Any], *names: str) -> int:
        return max((n for name in names if type(n := holder.get(name)) is int and n > 0), default=0)

    read = count(usage, "cache_read_input_tokens")
    details = _part(usage, "prompt_tokens_details") or _part(usage, "input_tokens_details")
    included = count(details, "cached_tokens")
    taken = count(usage, "input_tokens", "prompt_tokens")
    return Tokens(
        input=max(0, taken - included),
        output=count(usage, "output_tokens", "completion_tokens"),
        cache_read=read + included,
        cache_write=count(usage, "cache_creation_input_tokens"),
    )
