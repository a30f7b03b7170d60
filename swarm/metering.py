"""The metering proxy: how a measurement asks models without a key and without a network.

Owns one token for each measurement, what may be asked, what it has used and what that costs. The
key stays in this process. Where the candidate has a network of its own, its listening socket is
handed out to us through a door (`sandbox/door.py`); else we listen on the loopback.
"""

from __future__ import annotations

import json
import os
import secrets
import selectors
import socket
import ssl
import stat
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from email.message import Message
from fnmatch import fnmatchcase
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, NamedTuple, Self, cast
from urllib.parse import urlsplit

from swarm.errors import SwarmError
from swarm.keys import blot_bytes
from swarm.prices import Price, price_at

DOOR_PORT = 8377
"""The port on which a command with a network of its own finds the models."""
WORD = b"swarm-door"
BODY_LIMIT = 32 * 2**20
MOST_DOORS, MOST_CALLS = 8, 64
IDLE_S, UPSTREAM_S, LEAVE_S = 60.0, 600.0, 5.0
_ANTHROPIC = ("/v1/messages", "/v1/messages/count_tokens")
_OPENAI = ("/v1/chat/completions", "/v1/responses")
_SENT_ON = ("content-type", "accept", "anthropic-version", "anthropic-beta", "user-agent")
_SENT_BACK = ("content-type", "retry-after", "request-id")
_LIMITS_BACK = "anthropic-ratelimit-"


@dataclass(frozen=True)
class Provider:
    """Whom a target's harness may ask; picklable."""

    base_url: str
    key: str = field(default="", repr=False)
    models: tuple[str, ...] = ()
    """Globs of the models that may be asked; empty for any."""
    prices: Price | None = None
    """None for those of the price table."""
    usd: float | None = None
    """Most USD for one measurement."""
    tokens: int | None = None


class Metered(NamedTuple):
    """What one measurement has used."""

    usd: float = 0.0
    tokens: int = 0
    requests: int = 0
    refused: int = 0
    unpriced: tuple[str, ...] = ()
    """Models that were asked and whose price is not known."""


class Tokens(NamedTuple):
    """Tokens of one answer; `input` neither come from nor go to the cache."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0


class Meter:
    """One measurement's way to the provider."""

    def __init__(self, provider: Provider, *, door: Path | None = None) -> None:
        """Start to listen: on the loopback, or for sockets that come through a door."""
        self.provider, self.token = provider, secrets.token_urlsafe(24)
        self._lock, self._used, self._reserved = threading.Lock(), Metered(), (0.0, 0)
        self._closing = False
        self._calls: dict[threading.Thread, _Call] = {}
        self._selector = selectors.DefaultSelector()
        self._wake, wake_in = socket.socketpair()
        self._selector.register(wake_in, selectors.EVENT_READ, self._woken)
        self._door = door
        if door is None:
            listener = socket.create_server(("127.0.0.1", 0), backlog=128)
            self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            self._take(listener)
        else:
            self.url = f"http://127.0.0.1:{DOOR_PORT}"
            self._selector.register(_listen_at(door), selectors.EVENT_READ, self._knock)
        self._doors = 0
        self._thread = threading.Thread(target=self._accept, name="meter", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def used(self) -> Metered:
        """What has been used so far."""
        with self._lock:
            return self._used

    def close(self) -> None:
        """Cut what is under way; what it had reported by then is counted."""
        if self._closing:
            return
        self._closing = True
        self._wake.sendall(b"x")
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            cast("socket.socket", key.fileobj).close()
        self._selector.close()
        self._wake.close()
        if self._door is not None:
            self._door.unlink(missing_ok=True)
        for thread, call in list(self._calls.items()):
            call.cut()
            thread.join(LEAVE_S)

    # --- listening

    def _take(self, listener: socket.socket) -> None:
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ, self._called)

    def _accept(self) -> None:
        while not self._closing:
            for key, _ in self._selector.select():
                if not self._closing:
                    cast("Callable[[socket.socket], None]", key.data)(
                        cast("socket.socket", key.fileobj)
                    )

    def _woken(self, wake: socket.socket) -> None:
        wake.recv(64)

    def _knock(self, door: socket.socket) -> None:
        """Somebody is at the door: its words are waited for beside all else."""
        with suppress(OSError):
            visitor, _ = door.accept()
            visitor.setblocking(False)
            if self._doors >= MOST_DOORS:
                visitor.close()
                return
            self._doors += 1
            self._selector.register(visitor, selectors.EVENT_READ, self._admit)

    def _admit(self, visitor: socket.socket) -> None:
        self._selector.unregister(visitor)
        with visitor, suppress(OSError):
            said, handles, _, _ = socket.recv_fds(visitor, 64, 4)
            found = [socket.socket(fileno=handle) for handle in handles]
            good = [s for s in found if said == WORD and _is_loopback_listener(s)]
            for sock in found:
                if sock not in good[:1]:
                    sock.close()
            if good:
                self._take(good[0])
                visitor.send(b"ok")

    def _called(self, listener: socket.socket) -> None:
        with suppress(OSError):
            connection, _ = listener.accept()
            self._calls = {t: c for t, c in self._calls.items() if t.is_alive()}
            if len(self._calls) >= MOST_CALLS:
                connection.close()
                return
            connection.setblocking(True)
            call = _Call(self, connection)
            thread = threading.Thread(target=call.serve, name="metered", daemon=True)
            self._calls[thread] = call
            thread.start()

    # --- counting

    def admits(self, model: str) -> bool:
        """Tell whether a model may be asked."""
        globs = self.provider.models
        return not globs or any(fnmatchcase(model, glob) for glob in globs)

    def reserve(self, most: Tokens, model: str) -> tuple[float, int] | str:
        """Set aside what a request may take at most; the limit that is in the way, if one is."""
        usd = self._price(model, most) or 0.0
        claim = usd, sum(most)
        with self._lock:
            held_usd, held_tokens = self._reserved
            limits = (
                ("usd", self.provider.usd, self._used.usd + held_usd),
                ("tokens", self.provider.tokens, self._used.tokens + held_tokens),
            )
            for name, limit, taken in limits:
                if limit is not None and taken >= limit:
                    self._used = self._used._replace(refused=self._used.refused + 1)
                    return f"target.provider.{name} ({limit:g} for each measurement) is used up"
            self._reserved = held_usd + claim[0], held_tokens + claim[1]
        return claim

    def settle(self, claim: tuple[float, int], took: Tokens, model: str) -> None:
        """Count what a request has taken in place of what was set aside for it."""
        usd = self._price(model, took)
        with self._lock:
            self._reserved = self._reserved[0] - claim[0], self._reserved[1] - claim[1]
            used = self._used
            unknown = usd is None and sum(took) > 0 and model not in used.unpriced
            self._used = used._replace(
                usd=used.usd + (usd or 0.0),
                tokens=used.tokens + sum(took),
                requests=used.requests + 1,
                unpriced=(*used.unpriced, model) if unknown else used.unpriced,
            )

    def refuse(self) -> None:
        """Count a request that was not sent on."""
        with self._lock:
            self._used = self._used._replace(refused=self._used.refused + 1)

    def _price(self, model: str, tokens: Tokens) -> float | None:
        price = self.provider.prices or price_at(model, self.provider.base_url)
        return None if price is None else price.usd(**tokens._asdict())


def _listen_at(door: Path) -> socket.socket:
    """Listen on a unix socket, whose path may be longer than a socket's may."""
    door.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        folder = os.open(door.parent, os.O_PATH)
        try:
            listener.bind(f"/proc/self/fd/{folder}/{door.name}")
        finally:
            os.close(folder)
        door.chmod(0o600)
        listener.listen(MOST_DOORS)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise SwarmError(f"cannot open a door to the models at {door}: {error}") from error
    return listener


def _is_loopback_listener(sock: socket.socket) -> bool:
    """Tell whether a stranger's socket listens on its own loopback."""
    try:
        return (
            stat.S_ISSOCK(os.fstat(sock.fileno()).st_mode)
            and sock.family == socket.AF_INET
            and sock.type == socket.SOCK_STREAM
            and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
            and sock.getsockname()[0] == "127.0.0.1"
        )
    except OSError:
        return False


# --- one connection ----------------------------------------------------------------------------


class _Refusal(Exception):
    """A request that is not sent on."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status, self.kind = status, kind


class _Call:
    """A connection of the harness, and that to the provider on its behalf."""

    def __init__(self, meter: Meter, connection: socket.socket) -> None:
        self.meter, self._connection = meter, connection
        self.upstream: HTTPConnection | None = None
        self.cutting = False

    def serve(self) -> None:
        """Answer until the connection ends."""
        with self._connection, suppress(OSError, ValueError):
            _Handler(self._connection, ("127.0.0.1", 0), cast("Any", self))

    def cut(self) -> None:
        """End it from another thread."""
        self.cutting = True
        for connection in (self._connection, self.upstream and self.upstream.sock):
            if connection is not None:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    """HTTP between the harness and the provider."""

    protocol_version = "HTTP/1.1"
    timeout = IDLE_S
    server: Any

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing: what is asked is the harness's own business."""

    def do_GET(self) -> None:
        """List models."""
        self._answer()

    def do_POST(self) -> None:
        """Ask a model."""
        self._answer()

    @property
    def _call(self) -> _Call:
        return cast("_Call", self.server)

    def _answer(self) -> None:
        meter = self._call.meter
        try:
            path = urlsplit(self.path).path
            body = self._body()
            self._check_token()
            listing = self.command == "GET" and path.startswith("/v1/models")
            if not listing and (self.command, path) not in _ASKED:
                raise _Refusal(404, "not_found_error", f"{self.command} {path} is not passed on")
            asked = _Asked.of(body) if not listing else _Asked()
            if not listing and not meter.admits(asked.model):
                allowed = ", ".join(meter.provider.models)
                message = f"{asked.model!r} may not be asked; target.provider.models: {allowed}"
                raise _Refusal(403, "permission_error", message)
            self._pass_on(path, body, asked, listing=listing)
        except _Refusal as refusal:
            meter.refuse()
            self._tell(refusal)
        except (OSError, HTTPException) as error:
            if self._call.cutting:
                self.close_connection = True
                return
            words = f"the provider cannot be reached: {type(error).__name__}"
            self._tell(_Refusal(502, "api_error", words))

    def _body(self) -> bytes:
        length = self.headers.get("content-length", "0")
        if not length.isdigit() or int(length) > BODY_LIMIT:
            self.close_connection = True
            raise _Refusal(413, "request_too_large", "a request has 32 MiB at most")
        return self.rfile.read(int(length))

    def _check_token(self) -> None:
        given = self.headers.get("x-api-key") or ""
        bearer = self.headers.get("authorization") or ""
        if bearer.lower().startswith("bearer "):
            given = given or bearer[7:].strip()
        if not secrets.compare_digest(given.encode(), self._call.meter.token.encode()):
            raise _Refusal(401, "authentication_error", "use $SWARM_MODEL_TOKEN as the key")

    def _pass_on(self, path: str, body: bytes, asked: _Asked, *, listing: bool) -> None:
        meter = self._call.meter
        counts = path not in ("/v1/messages/count_tokens",) and not listing
        claim: tuple[float, int] | str = (0.0, 0)
        if counts:
            claim = meter.reserve(asked.most, asked.model)
            if isinstance(claim, str):
                self._tell(_Refusal(403, "permission_error", claim))
                return
        tally = Tally()
        upstream = self._call.upstream = _connect(meter.provider.base_url)
        try:
            upstream.request(self.command, _prefix(meter) + self.path, body, self._headers(path))
            answer = upstream.getresponse()
            self._send_back(answer, tally)
        finally:
            upstream.close()
            self._call.upstream = None
            if counts and not isinstance(claim, str):
                meter.settle(claim, tally.tokens, asked.model)

    def _headers(self, path: str) -> dict[str, str]:
        sent = {name: v for name in _SENT_ON if (v := self.headers.get(name)) is not None}
        key = self._call.meter.provider.key
        if key and path in _OPENAI:
            sent["authorization"] = f"Bearer {key}"
        elif key:
            sent["x-api-key"] = key
        return sent

    def _send_back(self, answer: HTTPResponse, tally: Tally) -> None:
        secret = [k for k in (self._call.meter.provider.key,) if k]
        if (answer.getheader("content-type") or "").startswith("text/event-stream"):
            self._stream(answer, tally, secret)
            return
        data = answer.read(BODY_LIMIT)
        tally.whole(data)
        data = blot_bytes(data, secret)
        self._begin(answer, secret, ("content-length", str(len(data))))
        self.wfile.write(data)

    def _begin(self, answer: HTTPResponse, secret: list[str], how: tuple[str, str]) -> None:
        self.send_response(answer.status)
        for name, value in (*_safe(answer.headers), how):
            safe = blot_bytes(value.encode("latin-1", "replace"), secret)
            self.send_header(name, safe.decode("latin-1"))
        self.end_headers()

    def _stream(self, answer: HTTPResponse, tally: Tally, secret: list[str]) -> None:
        """Pass a stream on line by line: a key has no line end in it, so none is cut in two."""
        self._begin(answer, secret, ("transfer-encoding", "chunked"))
        try:
            for line in _lines(answer):
                tally.line(line)
                line = blot_bytes(line, secret)
                self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")
        except (OSError, HTTPException):
            # It broke off, and so must ours: an end in good order would pass for a whole answer.
            self.close_connection = True

    def _tell(self, refusal: _Refusal) -> None:
        error = {"type": refusal.kind, "message": f"swarm: {refusal}"}
        data = json.dumps({"type": "error", "error": error}).encode()
        with suppress(OSError):
            self.send_response(refusal.status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)


_ASKED = {("POST", path) for path in (*_ANTHROPIC, *_OPENAI)}


def _lines(answer: HTTPResponse) -> Iterator[bytes]:
    """Give the lines of an answer as they come; a stream that breaks off raises.

    (`readline` of a chunked answer takes a connection that is cut for its end.)
    """
    rest = b""
    while piece := answer.read1(65536):
        *lines, rest = (rest + piece).split(b"\n")
        yield from (line + b"\n" for line in lines)
    if rest:
        yield rest


def _safe(headers: Message) -> Iterator[tuple[str, str]]:
    for name, value in headers.items():
        if name.lower() in _SENT_BACK or name.lower().startswith(_LIMITS_BACK):
            yield name, value.replace("\r", " ").replace("\n", " ")


def _prefix(meter: Meter) -> str:
    return urlsplit(meter.provider.base_url).path.rstrip("/")


def _connect(base_url: str) -> HTTPConnection:
    """Open a connection to the provider, through swarm's own proxy if there is one."""
    parts = urlsplit(base_url)
    host, secure = parts.hostname or "", parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    proxy = None
    if not urllib.request.proxy_bypass(host):
        proxy = urllib.request.getproxies().get(parts.scheme)
    near = urlsplit(proxy if "://" in proxy else f"http://{proxy}") if proxy else None
    where = (near.hostname or "", near.port or 80) if near else (host, port)
    if not secure:
        return HTTPConnection(host, port, timeout=UPSTREAM_S)
    connection = HTTPSConnection(*where, timeout=UPSTREAM_S, context=ssl.create_default_context())
    if near:
        connection.set_tunnel(host, port)
    return connection


# --- what is asked, and what it took -----------------------------------------------------------


class _Asked(NamedTuple):
    """What of a request decides whether it is passed on."""

    model: str = ""
    most: Tokens = Tokens()
    """About as much as it can take."""

    @classmethod
    def of(cls, body: bytes) -> _Asked:
        """Read a request."""
        try:
            found: object = json.loads(body)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise _Refusal(400, "invalid_request_error", "the request is not a JSON object")
        fields = cast("dict[str, Any]", found)
        model = fields.get("model")
        if not isinstance(model, str) or not model:
            raise _Refusal(400, "invalid_request_error", "the request names no `model`")
        names = ("max_tokens", "max_completion_tokens", "max_output_tokens")
        most = max((n for name in names if type(n := fields.get(name)) is int), default=0)
        return cls(model, Tokens(input=len(body) // 4, output=max(0, most)))


class Tally:
    """Tokens of one answer, as it comes in."""

    def __init__(self) -> None:
        self.tokens = Tokens()

    def whole(self, data: bytes) -> None:
        """Take an answer that is one JSON document."""
        with suppress(ValueError, RecursionError):
            self._take(json.loads(data))

    def line(self, line: bytes) -> None:
        """Take a line of a stream of events."""
        if line.startswith(b"data:"):
            with suppress(ValueError, RecursionError):
                self._take(json.loads(line[5:]))

    def _take(self, found: object) -> None:
        """Take what a document says of usage; later words replace earlier ones, larger ones."""
        for holder in (found, _part(found, "message"), _part(found, "response")):
            usage = _part(holder, "usage")
            if usage:
                self.tokens = Tokens(*map(max, self.tokens, _tokens(usage)))


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
