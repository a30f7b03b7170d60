"""A server that speaks Anthropic's Messages API on loopback, with a script for a model.

Owns the wire format (plain and streamed), an exact token count with a simulated prompt cache, and
faults. A script is a pure function of a request's body, so that it serves any number of agents at
once and the same conversation again after a resume:

    def script(request):
        if turns(request) == 0:
            return Reply.calling("edit_file", path="train.py", old="0.1", new="0.2")
        return Reply.calling("submit", summary="lr 0.1 -> 0.2", rationale="larger steps")

    with MessagesServer(script) as server:
        ...  # base_url=server.url, or ANTHROPIC_BASE_URL for a program
        assert server.usage.output == ...

Conversations that Anthropic would refuse (a tool call without its result, empty text, more than
four cache breakpoints) are refused with 400 here too.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, NamedTuple, Self
from urllib.parse import urlsplit

Json = dict[str, Any]
Kind = Literal["status", "garbage", "cut", "truncate", "event", "hang", "trickle"]
_IDS = itertools.count(1)
LOOK_BACK = 20
"""Blocks before a breakpoint at which an earlier one is found, as with Anthropic."""
BREAKPOINTS = 4


@dataclass(frozen=True)
class Fault:
    """What goes wrong instead of, or in the middle of, an answer."""

    kind: Kind
    """`status`: an HTTP error. `garbage`: 200 and no JSON. `cut`: the connection breaks in
    mid-answer. `truncate`: the stream ends properly, but half-way. `event`: an error event in
    mid-stream. `hang`: no answer until `release()`. `trickle`: pings until `release()`."""
    status: int = 500
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    message: str = "something is wrong"
    type: str | None = None


@dataclass(frozen=True)
class Reply:
    """One answer of the model."""

    content: tuple[Json, ...] = ()
    stop_reason: str | None = None
    """None: `tool_use` if there is a call among the content, else `end_turn`."""
    output_tokens: int | None = None
    """None: a quarter of the content's characters."""
    fault: Fault | None = None
    stop_details: Json | None = None

    @classmethod
    def saying(cls, text: str, **rest: Any) -> Self:
        """Answer with a text."""
        return cls((said(text),), **rest)

    @classmethod
    def calling(cls, name: str, /, **given: Any) -> Self:
        """Answer with one call of a tool."""
        return cls((call(name, given),))

    @classmethod
    def failing(cls, status: int, message: str = "no", **headers: Any) -> Self:
        """Answer with an HTTP error; `retry_after="1"` becomes the header `retry-after`."""
        named = {name.replace("_", "-"): str(value) for name, value in headers.items()}
        return cls(fault=Fault("status", status, named, message))


def said(text: str) -> Json:
    """Give a block of text."""
    return {"type": "text", "text": text}


def call(name: str, given: Any) -> Json:
    """Give a block that calls a tool; the server gives it an id."""
    return {"type": "tool_use", "name": name, "input": given}


def thought(text: str, signature: str = "c2ln") -> Json:
    """Give a block of thinking."""
    return {"type": "thinking", "thinking": text, "signature": signature}


Script = Callable[[Json], Reply]


# --- what scripts and tests ask of a request -----------------------------------------------------


def turns(request: Json) -> int:
    """Count the answers that the conversation already holds."""
    return sum(message["role"] == "assistant" for message in request["messages"])


def blocks(content: object) -> list[Json]:
    """Give a message's content as blocks, whichever way it was written."""
    return [said(content)] if isinstance(content, str) else list(content)  # type: ignore[arg-type]


def texts(value: object) -> str:
    """Give all text of a content, results of tools included."""
    if isinstance(value, str):
        return value
    found: list[str] = []
    for block in value or ():  # type: ignore[attr-defined]
        found.append(block.get("text", "") if block["type"] == "text" else "")
        if block["type"] == "tool_result":
            found.append(texts(block.get("content", "")))
    return "\n".join(found)


def conversation(request: Json) -> str:
    """Give all text of system and messages."""
    parts = [texts(request.get("system", ""))]
    return "\n".join(parts + [texts(message["content"]) for message in request["messages"]])


def results(request: Json) -> list[Json]:
    """Give the tool results in the last message."""
    last = blocks(request["messages"][-1]["content"])
    return [block for block in last if block["type"] == "tool_result"]


def tool_names(request: Json) -> list[str]:
    """Give the names of the tools that are offered."""
    return [tool["name"] for tool in request.get("tools", ())]


def in_order(*replies: Reply) -> Script:
    """Give a script: the n-th answer is the n-th reply, and the last from then on."""
    return lambda request: replies[min(turns(request), len(replies) - 1)]


FAULTS: Mapping[str, Fault] = {
    "429": Fault("status", 429, {"retry-after": "0.05"}, "slow down", "rate_limit_error"),
    "529": Fault("status", 529, {}, "Overloaded", "overloaded_error"),
    "500": Fault("status", 500, {}, "Internal server error", "api_error"),
    "garbage": Fault("garbage"),
    "cut": Fault("cut"),
    "truncate": Fault("truncate"),
    "event": Fault("event", message="Overloaded", type="overloaded_error"),
}


def faults(
    share: float, seed: int = 0, kinds: Sequence[str] = ("429", "529", "garbage", "cut")
) -> Callable[[Script], Script]:
    """Make a script fail at a share of all requests, chosen by the request's ordinal."""

    def wrap(script: Script) -> Script:
        lock, dice = threading.Lock(), random.Random(seed)

        def faulty(request: Json) -> Reply:
            reply = script(request)
            with lock:
                fails, kind = dice.random() < share, dice.choice(kinds)
            return replace(reply, fault=FAULTS[kind]) if fails else reply

        return faulty

    return wrap


# --- tokens ---------------------------------------------------------------------------------------


class Tokens(NamedTuple):
    """The tokens of one request or of many, as Anthropic tells them apart."""

    input: int = 0
    cache_creation: int = 0
    cache_read: int = 0
    output: int = 0

    def plus(self, other: Tokens) -> Tokens:
        """Add up."""
        return Tokens(*(a + b for a, b in zip(self, other, strict=True)))


@dataclass(frozen=True)
class Counted:
    """All that the server has answered in full."""

    total: Tokens
    requests: tuple[Tokens, ...]
    """In order of arrival."""
    by_model: Mapping[str, Tokens]

    @property
    def input(self) -> int:
        """Read, neither from nor into the cache."""
        return self.total.input

    @property
    def cache_creation(self) -> int:
        """Read and put into the cache."""
        return self.total.cache_creation

    @property
    def cache_read(self) -> int:
        """Read from the cache."""
        return self.total.cache_read

    @property
    def output(self) -> int:
        """Written."""
        return self.total.output

    @property
    def tokens(self) -> int:
        """All of them."""
        return sum(self.total)


def _bare(value: Any) -> Any:
    """Take out every `cache_control`: it is no part of the prompt."""
    if isinstance(value, dict):
        return {k: _bare(v) for k, v in value.items() if k != "cache_control"}
    return [_bare(v) for v in value] if isinstance(value, list) else value


def _pieces(body: Json) -> Iterator[tuple[str, bool]]:
    """Give the prompt in the order in which it is cached: a text, and whether a breakpoint follows
    it.
    """
    for tool in body.get("tools", ()):
        yield _text(tool), "cache_control" in tool
    for block in blocks(body.get("system") or []):
        yield _text(block), "cache_control" in block
    for message in body["messages"]:
        for block in blocks(message["content"]):
            yield message["role"] + _text(block), "cache_control" in block


def _text(block: Json) -> str:
    return json.dumps(_bare(block), sort_keys=True)


class Meter:
    """Counts prompts, and remembers prefixes as a prompt cache does."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def count(self, body: Json) -> tuple[Tokens, set[str]]:
        """Give a request's tokens, and the prefixes to be remembered once its answer begins."""
        digest = hashlib.sha256(str(body.get("model")).encode())
        size, sizes, names, marks = 0, [0], [""], list[int]()
        for place, (text, mark) in enumerate(_pieces(body), start=1):
            digest.update(text.encode() + b"\0")
            size += len(text)
            sizes.append(size)
            names.append(digest.hexdigest())
            if mark:
                marks.append(place)
        known = 0
        for mark in marks:
            near = range(mark, max(0, mark - LOOK_BACK), -1)
            known = max(known, next((p for p in near if names[p] in self._known), 0))
        read, last = sizes[known] // 4, sizes[max([*marks, known])] // 4
        return Tokens(size // 4 - last, last - read, read), {names[mark] for mark in marks}

    def learn(self, prefixes: set[str]) -> None:
        """Remember prefixes."""
        self._known |= prefixes


# --- the server -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """One request as it came."""

    path: str
    headers: Mapping[str, str]
    """With names in lower case."""
    body: Json


class MessagesServer:
    """The server. Requests other than to /v1/messages are answered, but not recorded."""

    def __init__(self, script: Script, *, key: str | None = None) -> None:
        """Answer as the script says; with `key`, only those who show it."""
        self.script, self.key = script, key
        self.errors: list[str] = []
        """Tracebacks of scripts that failed."""
        self._requests: list[Asked] = []
        self._counted: dict[int, tuple[str, Tokens]] = {}
        self._meter = Meter()
        self._idle = threading.Condition()
        self._busy = 0
        self._stalled: set[int] = set()
        self._released = threading.Event()
        self._http = _Http(("127.0.0.1", 0), _Handler)
        self._http.messages = self
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.release()
        self._http.shutdown()
        self._thread.join()
        self._settle()
        self._http.server_close()
        if self.errors and kind is None:
            raise AssertionError("the script failed:\n" + "\n".join(self.errors))

    @property
    def url(self) -> str:
        """Where it listens, for a client's `base_url`."""
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    @property
    def requests(self) -> tuple[Asked, ...]:
        """All requests for messages so far, the refused ones too, in order of arrival."""
        with self._idle:
            return tuple(self._requests)

    @property
    def usage(self) -> Counted:
        """The count of all that was answered in full."""
        self._settle()
        with self._idle:
            counted = [self._counted[ordinal] for ordinal in sorted(self._counted)]
            total, by_model = Tokens(), dict[str, Tokens]()
            for model, tokens in counted:
                total = total.plus(tokens)
                by_model[model] = by_model.get(model, Tokens()).plus(tokens)
            return Counted(total, tuple(tokens for _, tokens in counted), by_model)

    def release(self) -> None:
        """Let go of what hangs or trickles: the connections are closed."""
        with self._idle:
            self._released.set()
            self._stalled.clear()

    def _settle(self) -> None:
        """Wait until nothing is being answered but what waits for `release`."""
        with self._idle:
            self._idle.wait_for(lambda: self._busy == len(self._stalled), timeout=60)

    # The handler's side.

    def begin(self, asked: Asked) -> int:
        """Take note of a request, and give its ordinal."""
        with self._idle:
            self._requests.append(asked)
            self._busy += 1
            return len(self._requests)

    def learn(self, prefixes: set[str]) -> None:
        """Remember prefixes: with Anthropic, too, they can be read once an answer begins.

        A client that has its answer may ask again before this one's thread goes on.
        """
        with self._idle:
            self._meter.learn(prefixes)

    def stall(self, ordinal: int) -> None:
        """Take note that an answer ends with `release` only, or when the client goes away."""
        with self._idle:
            if not self._released.is_set():
                self._stalled.add(ordinal)
            self._idle.notify_all()

    def end(self, ordinal: int, model: str, tokens: Tokens | None) -> None:
        """Count a request if it was answered in full."""
        with self._idle:
            self._busy -= 1
            self._stalled.discard(ordinal)
            if tokens is not None:
                self._counted[ordinal] = model, tokens
            self._idle.notify_all()

    def count(self, body: Json) -> tuple[Tokens, set[str]]:
        """Count a prompt."""
        with self._idle:
            return self._meter.count(body)

    def released(self, seconds: float) -> bool:
        """Wait for `release`."""
        return self._released.wait(seconds)


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    messages: MessagesServer

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is none of our business."""


class _Broken(Exception):
    """The answer ends here, on purpose."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60
    server: _Http

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""

    def do_HEAD(self) -> None:
        self._head(200, "application/json", 0)

    def do_GET(self) -> None:
        self._json(200, {"data": [], "has_more": False})

    def do_POST(self) -> None:
        path = urlsplit(self.path).path.rstrip("/")
        raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        if not path.endswith(("/messages", "/count_tokens")):
            self._json(200, {})
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = json.loads(raw)
        if path.endswith("/count_tokens"):
            tokens, _ = self.server.messages.count(body | {"messages": body.get("messages", [])})
            self._json(200, {"input_tokens": sum(tokens)})
            return
        self._messages(Asked(path, headers, body))

    def _messages(self, asked: Asked) -> None:
        owner = self.server.messages
        ordinal = owner.begin(asked)
        done: Tokens | None = None
        try:
            reply = self._reply(asked)
            tokens, prefixes = owner.count(asked.body) if reply.content else (Tokens(), set[str]())
            tokens = tokens._replace(output=_written(reply))
            if reply.fault is None:
                owner.learn(prefixes)
            elif reply.fault.kind in ("hang", "trickle"):
                owner.stall(ordinal)
            self._answer(asked.body, reply, tokens)
            done = tokens if reply.fault is None else None
        except (_Broken, OSError):
            self.close_connection = True
        finally:
            owner.end(ordinal, str(asked.body.get("model")), done)

    def _reply(self, asked: Asked) -> Reply:
        owner = self.server.messages
        shown = asked.headers.get("x-api-key") or asked.headers.get("authorization", "")
        if owner.key is not None and shown.removeprefix("Bearer ") != owner.key:
            return Reply.failing(401, f"invalid x-api-key {shown}")
        try:
            if (wrong := refusal(asked.body)) is not None:
                return Reply.failing(400, wrong)
            reply = owner.script(asked.body)
        except Exception:
            owner.errors.append(traceback.format_exc())
            return Reply.failing(400, "the script failed")
        if not reply.content and reply.fault is None:
            reply = replace(reply, content=(said("."),))
        return replace(reply, content=_named(reply.content, asked.body))

    def _answer(self, body: Json, reply: Reply, tokens: Tokens) -> None:
        fault = reply.fault
        if fault is not None and fault.kind == "status":
            self._error(fault)
        elif fault is not None and fault.kind == "hang":
            self.server.messages.released(120)
            raise _Broken
        elif fault is not None and fault.kind == "garbage":
            self._garbage()
        elif body.get("stream"):
            self._stream(body, reply, tokens)
        else:
            self._plain(body, reply, tokens)

    def _error(self, fault: Fault) -> None:
        kind = fault.type or ERROR_TYPES.get(fault.status, "api_error")
        error = {"type": "error", "error": {"type": kind, "message": fault.message}}
        self._json(fault.status, error | {"request_id": "req_1"}, fault.headers)

    def _garbage(self) -> None:
        data = b'<html>{"type": "message", "content": [{"ty'
        self._head(200, "application/json", len(data))
        self.wfile.write(data)

    def _plain(self, body: Json, reply: Reply, tokens: Tokens) -> None:
        data = json.dumps(_message(body, reply, tokens)).encode()
        match reply.fault and reply.fault.kind:
            case None:
                self._head(200, "application/json", len(data))
                self.wfile.write(data)
            case "truncate":
                self._head(200, "application/json", len(data) // 2)
                self.wfile.write(data[: len(data) // 2])
            case "event":
                self._error(replace(reply.fault or Fault("event"), status=529))
            case "trickle":
                self._head(200, "application/json", 10**9)
                while not self.server.messages.released(0.05):
                    self.wfile.write(b" ")
                    self.wfile.flush()
                raise _Broken
            case _:
                self._head(200, "application/json", len(data))
                self.wfile.write(data[: len(data) // 2])
                raise _Broken

    def _stream(self, body: Json, reply: Reply, tokens: Tokens) -> None:
        self.send_response(200)
        for name, value in (
            ("content-type", "text/event-stream; charset=utf-8"),
            ("transfer-encoding", "chunked"),
            ("connection", "close"),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.close_connection = True
        events = list(_events(body, reply, tokens))
        if reply.fault is not None:
            self._break(events, reply.fault)
        for name, data in events if reply.fault is None else ():
            self._event(name, data)
        self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()

    def _break(self, events: list[tuple[str, Json]], fault: Fault) -> None:
        """Send a stream's first half, never with the final usage, and then what goes wrong."""
        for name, data in events[: max(1, (len(events) - 2) // 2)]:
            self._event(name, data)
        match fault.kind:
            case "event":
                error = {"type": fault.type or "api_error", "message": fault.message}
                self._event("error", {"type": "error", "error": error})
            case "trickle":
                while not self.server.messages.released(0.05):
                    self._event("ping", {"type": "ping"})
                raise _Broken
            case "cut":
                raise _Broken
            case _:
                return

    def _event(self, name: str, data: Json) -> None:
        text = f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(text), text))
        self.wfile.flush()

    def _json(self, status: int, value: Json, headers: Mapping[str, str] | None = None) -> None:
        data = json.dumps(value).encode()
        self._head(status, "application/json", len(data), headers)
        self.wfile.write(data)

    def _head(
        self, status: int, kind: str, size: int, headers: Mapping[str, str] | None = None
    ) -> None:
        self.send_response(status)
        named = {"content-type": kind, "content-length": str(size), "connection": "close"}
        for name, value in (named | {"request-id": "req_1"} | dict(headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        self.close_connection = True

    def finish(self) -> None:
        with suppress(OSError):
            super().finish()


ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    529: "overloaded_error",
}


def _written(reply: Reply) -> int:
    if reply.output_tokens is not None:
        return reply.output_tokens
    return sum(len(_text(block)) for block in reply.content) // 4


def _named(content: tuple[Json, ...], body: Json) -> tuple[Json, ...]:
    """Give every call an id that follows from the conversation."""
    base = hashlib.sha256(json.dumps(_bare(body["messages"]), sort_keys=True).encode()).hexdigest()
    return tuple(
        {"type": "tool_use", "id": f"toolu_{base[:16]}_{n}", **block}
        if block["type"] == "tool_use"
        else block
        for n, block in enumerate(content)
    )


def _usage(tokens: Tokens, output: int) -> Json:
    return {
        "input_tokens": tokens.input,
        "cache_creation_input_tokens": tokens.cache_creation,
        "cache_read_input_tokens": tokens.cache_read,
        "output_tokens": output,
    }


def _stop(reply: Reply) -> str:
    calls = any(block["type"] == "tool_use" for block in reply.content)
    return reply.stop_reason or ("tool_use" if calls else "end_turn")


def _message(body: Json, reply: Reply, tokens: Tokens) -> Json:
    return {
        "id": f"msg_{next(_IDS)}",
        "type": "message",
        "role": "assistant",
        "model": body.get("model"),
        "content": list(reply.content),
        "stop_reason": _stop(reply),
        "stop_sequence": None,
        "stop_details": reply.stop_details,
        "usage": _usage(tokens, tokens.output),
    }


_EMPTY: Mapping[str, Json] = {
    "text": {"text": ""},
    "tool_use": {"input": {}},
    "thinking": {"thinking": "", "signature": ""},
}


def _events(body: Json, reply: Reply, tokens: Tokens) -> Iterator[tuple[str, Json]]:
    """Give the events of a streamed answer."""
    message = _message(body, reply, tokens) | {"content": [], "stop_reason": None}
    message |= {"usage": _usage(tokens, 1), "stop_details": None}
    yield "message_start", {"type": "message_start", "message": message}
    yield "ping", {"type": "ping"}
    for index, block in enumerate(reply.content):
        start = block | _EMPTY.get(block["type"], {})
        at = {"index": index}
        yield "content_block_start", {"type": "content_block_start", **at, "content_block": start}
        for delta in _deltas(block):
            yield "content_block_delta", {"type": "content_block_delta", **at, "delta": delta}
        yield "content_block_stop", {"type": "content_block_stop", **at}
    delta = {"stop_reason": _stop(reply), "stop_sequence": None, "stop_details": reply.stop_details}
    usage = _usage(tokens, tokens.output)
    yield "message_delta", {"type": "message_delta", "delta": delta, "usage": usage}
    yield "message_stop", {"type": "message_stop"}


def _deltas(block: Json) -> Iterator[Json]:
    match block["type"]:
        case "text":
            yield from ({"type": "text_delta", "text": t} for t in _slices(block["text"]))
        case "tool_use":
            given = json.dumps(block["input"])
            yield from ({"type": "input_json_delta", "partial_json": t} for t in _slices(given))
        case "thinking":
            text = block["thinking"]
            yield from ({"type": "thinking_delta", "thinking": t} for t in _slices(text))
            yield {"type": "signature_delta", "signature": block["signature"]}
        case _:
            return


def _slices(text: str, size: int = 200) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]


def refusal(body: Json) -> str | None:
    """Say why Anthropic would refuse a request, None if it would not."""
    if not body.get("messages"):
        return "messages: at least one message is required"
    if "max_tokens" not in body:
        return "max_tokens: Field required"
    if sum(mark for _, mark in _pieces(body)) > BREAKPOINTS:
        return "A maximum of 4 blocks with cache_control may be provided."
    open_calls: set[str] = set()
    for at, message in enumerate(body["messages"]):
        content = blocks(message["content"])
        if not content:
            return f"messages.{at}: content must not be empty"
        if any(b["type"] == "text" and not b["text"].strip() for b in content):
            return f"messages.{at}: text content blocks must be non-empty"
        if any(
            b["type"] in ("thinking", "redacted_thinking") and "cache_control" in b for b in content
        ):
            return f"messages.{at}: cache_control is not allowed on thinking blocks"
        answered = [b["tool_use_id"] for b in content if b["type"] == "tool_result"]
        if set(answered) != open_calls or len(answered) != len(open_calls):
            return f"messages.{at}: `tool_use` ids and `tool_result` blocks do not match"
        open_calls = {b["id"] for b in content if b["type"] == "tool_use"}
    return "the last message has unanswered tool calls" if open_calls else None
