"""The metering proxy: how a measurement asks models without a key and without a network.

Owns one token for each measurement, what may be asked, what it has used and what that costs. The
key stays in this process. Where the candidate has a network of its own, its listening socket is
handed out to us through a door (`sandbox/door.py`); else we listen on the loopback.

The candidate holds the token and both ends of that socket: nothing that it sends, or leaves unsent,
may reach another page of the provider, go uncounted, or hold up the slot.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import selectors
import socket
import ssl
import struct
import threading
import time
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.message import Message
from fnmatch import fnmatchcase
from functools import cached_property
from http.client import (
    HTTPConnection,
    HTTPException,
    HTTPResponse,
    HTTPSConnection,
    IncompleteRead,
)
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, NamedTuple, Self, cast
from urllib.parse import SplitResult, unquote, urlsplit

from swarm.errors import SwarmError
from swarm.keys import SHORTEST, blot_bytes
from swarm.prices import Price, price_at

DOOR_PORT = 8377
"""The port on which a command with a network of its own finds the models."""
WORD = b"swarm-door"
BODY_LIMIT, LARGE, STRANGERS_LIMIT = 32 * 2**20, 2**20, 2**16
MOST_DOORS, MOST_VISITORS, MOST_CALLS, MOST_LARGE = 4, 16, 64, 8
IDLE_S, CONNECT_S, UPSTREAM_S, LEAVE_S = 60.0, 30.0, 600.0, 5.0
UNSAID = 4096
"""Tokens set aside for an answer whose request names no limit."""
LETTERS = 4
"""Of a token, about; by which what no server has reported is reckoned."""
_OPENAI = ("/v1/chat/completions", "/v1/responses")
_FREE = "/v1/messages/count_tokens"
_ASKED = frozenset(("POST", path) for path in ("/v1/messages", _FREE, *_OPENAI))
_MODELS = re.compile(r"/v1/models(/[\w:@+-][\w.:@+-]*)*", re.ASCII)
"""No `..` and no `%`: what a server makes of them could be any page of it."""
_QUERY = re.compile(r"[\w.,:=&-]*", re.ASCII)
_SENT_ON = ("content-type", "accept", "anthropic-version", "anthropic-beta", "user-agent")
_SENT_BACK = ("content-type", "retry-after", "request-id")
_LIMITS_BACK = "anthropic-ratelimit-"
_GONE = (errno.EINVAL, errno.EBADF, errno.ENOTSOCK, errno.EOPNOTSUPP)


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
        self.purse = _Purse(provider)
        self.large = threading.BoundedSemaphore(MOST_LARGE)
        self._door, self._closing, self._visitors = door, False, 0
        self._calls: dict[threading.Thread, _Call] = {}
        self._listeners: list[socket.socket] = []
        first = socket.create_server(("127.0.0.1", 0), backlog=128) if door is None else None
        port = DOOR_PORT if first is None else first.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        at_door = None if door is None else _listen_at(door)
        self._selector = selectors.DefaultSelector()
        self._wake, woken = socket.socketpair()
        self._selector.register(woken, selectors.EVENT_READ, _hear)
        if first is not None:
            self._take(first)
        if at_door is not None:
            self._selector.register(at_door, selectors.EVENT_READ, self._knock)
        self._thread = threading.Thread(target=self._listen, name="meter", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def used(self) -> Metered:
        """What has been used so far."""
        return self.purse.used

    @cached_property
    def key(self) -> str:
        """The provider's key, as it goes into a header."""
        return self.provider.key.strip()

    @cached_property
    def secret(self) -> tuple[str, ...]:
        """How the key may look in what a server says; a short one is no key (`swarm.keys`)."""
        if len(self.key) < SHORTEST:
            return ()
        written = json.dumps(self.key)[1:-1]
        return tuple(dict.fromkeys((self.key, written, written.replace("/", "\\/"))))

    @cached_property
    def tls(self) -> ssl.SSLContext:
        """Whom we trust to be the provider."""
        return ssl.create_default_context()

    def close(self) -> None:
        """Cut what is under way; what it had reported by then is counted, the rest reckoned."""
        if self._closing:
            return
        self._closing = True
        self.purse.close()
        self._wake.sendall(b"x")
        until = time.monotonic() + LEAVE_S
        while self._thread.is_alive() and time.monotonic() < until:
            # Who shares a listener with us can have us wait in `accept`; this ends it.
            for listener in tuple(self._listeners):
                _shut(listener)
            self._thread.join(0.05)
        for key in list(self._selector.get_map().values()):
            cast("socket.socket", key.fileobj).close()
        self._selector.close()
        self._wake.close()
        if self._door is not None:
            with suppress(OSError):
                self._door.unlink()
        for call in self._calls.values():
            call.cut()
        for thread in self._calls:
            thread.join(max(0.0, until - time.monotonic()))

    # --- listening

    def _listen(self) -> None:
        while not self._closing:
            for key, _ in self._selector.select():
                if not self._closing:
                    with suppress(OSError):
                        key.data(key.fileobj)

    def _take(self, listener: socket.socket) -> None:
        """Answer on a listener; beyond `MOST_DOORS` the oldest is let go."""
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ, self._called)
        self._listeners.append(listener)
        if len(self._listeners) > MOST_DOORS:
            self._let_go(self._listeners[0])

    def _let_go(self, listener: socket.socket) -> None:
        if listener in self._listeners:
            self._listeners.remove(listener)
            self._selector.unregister(listener)
            listener.close()

    def _knock(self, door: socket.socket) -> None:
        """Somebody is at the door: its words are waited for beside all else."""
        visitor, _ = door.accept()
        if self._visitors >= MOST_VISITORS:
            visitor.close()
            return
        self._visitors += 1
        visitor.setblocking(False)
        self._selector.register(visitor, selectors.EVENT_READ, self._admit)

    def _admit(self, visitor: socket.socket) -> None:
        self._visitors -= 1
        self._selector.unregister(visitor)
        with visitor:
            most = len(WORD) + 1
            said, handles, _, _ = socket.recv_fds(visitor, most, 4, socket.MSG_CMSG_CLOEXEC)
            found = [_listener_of(handle) for handle in handles]
            good = [listener for listener in found if listener is not None]
            for listener in good if said != WORD else good[1:]:
                listener.close()
            if good and said == WORD:
                self._take(good[0])
                visitor.send(b"ok")

    def _called(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            return
        except OSError as error:
            # It is shared with the candidate, who may have ended it; or we are short of something.
            if error.errno in _GONE:
                self._let_go(listener)
            else:
                time.sleep(0.05)
            return
        self._calls = {t: c for t, c in self._calls.items() if t.is_alive()}
        if len(self._calls) >= MOST_CALLS:
            connection.close()
            return
        connection.setblocking(True)
        # It has the listener's options, and to linger would be to wait in `close`.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 0, 0))
        call = _Call(self, connection)
        thread = threading.Thread(target=call.serve, name="metered", daemon=True)
        self._calls[thread] = call
        thread.start()


def _listen_at(door: Path) -> socket.socket:
    """Listen on a unix socket, whose path may be longer than a socket's may."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        door.unlink(missing_ok=True)
        folder = os.open(door.parent, os.O_PATH)
        try:
            listener.bind(f"/proc/self/fd/{folder}/{door.name}")
        finally:
            os.close(folder)
        door.chmod(0o600)
        listener.listen(MOST_VISITORS)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise SwarmError(
            f"cannot open a door to the models at {door}: {error}",
            hint="set SWARM_SCRATCH to a directory on a local disk with room",
        ) from error
    return listener


def _listener_of(handle: int) -> socket.socket | None:
    """Take a stranger's handle if it is a TCP socket that listens on its own loopback."""
    try:
        sock = socket.socket(fileno=handle)
    except OSError:
        os.close(handle)
        return None
    with suppress(OSError):
        kind = sock.family, sock.type, sock.proto
        if (
            kind == (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
            and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
            and sock.getsockname()[0] == "127.0.0.1"
        ):
            return sock
    sock.close()
    return None


def _hear(wake: socket.socket) -> None:
    wake.recv(64)


def _shut(sock: socket.socket) -> None:
    """Wake whoever waits for a socket; it is closed by its owner."""
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


# --- counting ----------------------------------------------------------------------------------


class _Claim(NamedTuple):
    """What is set aside for a request under way."""

    usd: float
    tokens: int


class _Purse:
    """What one measurement has used, and may still use."""

    def __init__(self, provider: Provider) -> None:
        self._provider, self._used, self._closed = provider, Metered(), False
        self._claims: list[_Claim] = []
        self._changed = threading.Condition()

    @property
    def used(self) -> Metered:
        """What has been used so far."""
        with self._changed:
            return self._used

    def admits(self, model: str) -> bool:
        """Tell whether a model may be asked."""
        globs = self._provider.models
        return not globs or any(fnmatchcase(model, glob) for glob in globs)

    def claim(self, model: str, most: Tokens) -> _Claim:
        """Set aside what a request may take at most; refuse it if a limit is reached.

        While others are under way who may use up what is left, wait until they have settled: only
        a request that is alone can go beyond a limit, and only what fits is under way at once.
        """
        usd = None if self._provider.usd is None else self._price(model, most)
        if usd is None and self._provider.usd is not None:
            words = f"what {model!r} costs is not known, so target.provider.usd cannot be kept"
            raise _Refusal(403, "permission_error", f"{words}: give target.provider.prices")
        claim = _Claim(usd or 0.0, sum(most))
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._spent() or self._fits(claim))
            if self._closed:
                raise ConnectionAbortedError
            if spent := self._spent():
                raise _Refusal(403, "permission_error", spent)
            self._claims.append(claim)
        return claim

    def settle(self, claim: _Claim, model: str, took: Tokens) -> None:
        """Count what a request has taken in place of what was set aside for it."""
        usd = self._price(model, took) if any(took) else 0.0
        with self._changed:
            self._claims.remove(claim)
            used = self._used
            unknown = usd is None and model not in used.unpriced
            self._used = used._replace(
                usd=used.usd + (usd or 0.0),
                tokens=used.tokens + sum(took),
                requests=used.requests + 1,
                unpriced=(*used.unpriced, model) if unknown else used.unpriced,
            )
            self._changed.notify_all()

    def refuse(self) -> None:
        """Count a request that was not sent on."""
        with self._changed:
            self._used = self._used._replace(refused=self._used.refused + 1)

    def close(self) -> None:
        """Let nobody wait any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _spent(self) -> str | None:
        """Name the limit that is reached, if one is."""
        for name, limit, used in self._limits():
            if limit is not None and used >= limit:
                return f"target.provider.{name} ({limit:g} for each measurement) is used up"
        return None

    def _fits(self, claim: _Claim) -> bool:
        if not self._claims:
            return True
        held = [sum(parts) for parts in zip(claim, *self._claims, strict=True)]
        return all(
            limit is None or used + more <= limit
            for (_, limit, used), more in zip(self._limits(), held, strict=True)
        )

    def _limits(self) -> tuple[tuple[str, float | None, float], ...]:
        return (
            ("usd", self._provider.usd, self._used.usd),
            ("tokens", self._provider.tokens, self._used.tokens),
        )

    def _price(self, model: str, tokens: Tokens) -> float | None:
        price = self._provider.prices or price_at(model, self._provider.base_url)
        return None if price is None else price.usd(**tokens._asdict())


# --- one connection ----------------------------------------------------------------------------


class _Refusal(Exception):
    """A request that is not sent on, or (from 500) not answered."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status, self.kind = status, kind


class _Call:
    """A connection of the harness, and that to the provider on its behalf."""

    def __init__(self, meter: Meter, connection: socket.socket) -> None:
        self.meter, self._connection = meter, connection
        self._lock, self._cutting = threading.Lock(), False
        self._upstream: HTTPConnection | None = None
        self._line: socket.socket | None = None

    def serve(self) -> None:
        """Answer until the connection ends."""
        with suppress(OSError, ValueError):
            _Handler(self._connection, ("127.0.0.1", 0), cast("Any", self))
        with self._lock:
            self._connection.close()

    def cut(self) -> None:
        """End it from another thread."""
        with self._lock:
            self._cutting = True
            for sock in (self._connection, self._line):
                if sock is not None:
                    _shut(sock)

    @contextmanager
    def room(self, size: int) -> Generator[None]:
        """Hold a body of some size; of large ones few are held at once."""
        if size <= LARGE:
            yield
            return
        while not self.meter.large.acquire(timeout=0.5):
            if self._cutting:
                raise ConnectionAbortedError
        try:
            yield
        finally:
            self.meter.large.release()

    def connect(self) -> HTTPConnection:
        """Call the provider; `hang_up` ends it."""
        self._upstream = _connect(self.meter.provider.base_url, self.meter, self._hold)
        return self._upstream

    def hang_up(self) -> None:
        """End the connection to the provider."""
        if self._upstream is not None:
            self._upstream.close()
            self._upstream = None
        with self._lock:
            if self._line is not None:
                self._line.close()
                self._line = None

    def _hold(self, sock: socket.socket) -> None:
        """Keep a handle of a connection in the making, by which it can be cut at any time."""
        with self._lock:
            if self._cutting:
                raise ConnectionAbortedError
            if self._line is not None:
                self._line.close()
            self._line = sock.dup()


class _Handler(BaseHTTPRequestHandler):
    """HTTP between the harness and the provider."""

    protocol_version = "HTTP/1.1"
    timeout = IDLE_S
    disable_nagle_algorithm = True
    server: Any

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing: what is asked is the harness's own business."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Say what is no HTTP, or a method that nothing here has, in the provider's manner."""
        self.close_connection = True
        status, kind = (404, "not_found_error") if code == 501 else (code, "invalid_request_error")
        self._tell(_Refusal(status, kind, message or explain or ""))

    def do_GET(self) -> None:
        """List models."""
        self._answer()

    def do_POST(self) -> None:
        """Ask a model."""
        self._answer()

    @property
    def _call(self) -> _Call:
        return cast("_Call", self.server)

    @property
    def _meter(self) -> Meter:
        return self._call.meter

    def _answer(self) -> None:
        try:
            size = self._size()
            with self._call.room(size):
                body = self.rfile.read(size)
                if len(body) < size:
                    raise ConnectionAbortedError
                self._pass_on(self._asked(body))
        except _Refusal as refusal:
            if refusal.status < 500:
                self._meter.purse.refuse()
            self._tell(refusal)

    def _size(self) -> int:
        """Give the length of the body; what is refused for it is not read, so that ends it all."""
        length = self.headers.get("content-length", "0")
        close, self.close_connection = self.close_connection, True
        if "transfer-encoding" in self.headers:
            raise _Refusal(411, "invalid_request_error", "a request needs its content-length")
        if not length.isdecimal() or len(length) > 12 or int(length) > BODY_LIMIT:
            raise _Refusal(413, "request_too_large", "a request has 32 MiB at most")
        if int(length) > STRANGERS_LIMIT and not self._is_known():
            raise _unknown()
        self.close_connection = close
        return int(length)

    def _is_known(self) -> bool:
        bearer = self.headers.get("authorization") or ""
        shown = [self.headers.get("x-api-key") or "", bearer[7:].strip()]
        if not bearer.lower().startswith("bearer "):
            shown.pop()
        token = self._meter.token.encode()
        return any(secrets.compare_digest(given.encode(), token) for given in shown)

    def _asked(self, body: bytes) -> _Asked:
        """Read a request, and refuse it unless it may be passed on."""
        if not self._is_known():
            raise _unknown()
        path, target = _target(self.command, self.path)
        if self.command == "GET":
            return _Asked(path, target)
        asked = _Asked.of(path, target, body)
        if not self._meter.purse.admits(asked.model):
            allowed = ", ".join(self._meter.provider.models)
            words = f"{asked.model!r} may not be asked; target.provider.models: {allowed}"
            raise _Refusal(403, "permission_error", words)
        return asked

    def _pass_on(self, asked: _Asked) -> None:
        purse, tally = self._meter.purse, Tally()
        claim = purse.claim(asked.model, asked.most) if asked.counts else None
        try:
            with self._ask(asked, tally) as answer:
                self._send_back(answer, asked, tally)
        finally:
            self._call.hang_up()
            if claim is not None:
                purse.settle(claim, asked.model, tally.took(asked.most.input))

    def _ask(self, asked: _Asked, tally: Tally) -> HTTPResponse:
        prefix = urlsplit(self._meter.provider.base_url).path.rstrip("/")
        with _reaching():
            upstream = self._call.connect()
            tally.open = True
            body, headers = asked.body or None, self._headers(asked)
            upstream.request(self.command, prefix + asked.target, body, headers)
            return upstream.getresponse()

    def _headers(self, asked: _Asked) -> dict[str, str]:
        sent = {name: v for name in _SENT_ON if (v := self.headers.get(name)) is not None}
        listing = asked.model == "" and "anthropic-version" not in sent
        if self._meter.key and (asked.path in _OPENAI or listing):
            sent["authorization"] = f"Bearer {self._meter.key}"
        elif self._meter.key:
            sent["x-api-key"] = self._meter.key
        return sent | {"connection": "close"}

    def _send_back(self, answer: HTTPResponse, asked: _Asked, tally: Tally) -> None:
        if answer.status >= 300:
            tally.open = False
        events = (answer.getheader("content-type") or "").startswith("text/event-stream")
        if events and answer.length is None:
            self._stream(answer, asked, tally)
            return
        with _reaching():
            data = answer.read(BODY_LIMIT + 1)
            if answer.length or len(data) > BODY_LIMIT:
                raise IncompleteRead(b"")
        if events:
            data = b"".join(tally.lines(data, hides=asked.hides))
        else:
            tally.whole(data)
        tally.end()
        data = blot_bytes(data, self._meter.secret)
        self._begin(answer, ("content-length", str(len(data))))
        self.wfile.write(data)

    def _begin(self, answer: HTTPResponse, how: tuple[str, str]) -> None:
        self.send_response(answer.status)
        for name, value in (*_safe(answer.headers), how):
            safe = blot_bytes(value.encode("latin-1", "replace"), self._meter.secret)
            self.send_header(name, safe.decode("latin-1"))
        self.end_headers()

    def _stream(self, answer: HTTPResponse, asked: _Asked, tally: Tally) -> None:
        """Pass a stream on in whole lines: a key has no line end in it, so none is cut in two."""
        chunked = self.request_version != "HTTP/1.0"
        self._begin(
            answer, ("transfer-encoding", "chunked") if chunked else ("connection", "close")
        )
        try:
            for piece in _whole_lines(answer):
                told = b"".join(tally.lines(piece, hides=asked.hides))
                told = blot_bytes(told, self._meter.secret)
                if told:
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(told), told) if chunked else told)
            tally.end()
            self.wfile.write(b"0\r\n\r\n" if chunked else b"")
        except (OSError, HTTPException, ValueError):
            # It broke off, and so must ours: an end in good order would pass for a whole answer.
            self.close_connection = True

    def _tell(self, refusal: _Refusal) -> None:
        error = {"type": refusal.kind, "message": f"swarm: {refusal}"}
        data = json.dumps({"type": "error", "error": error}).encode()
        with suppress(OSError):
            self.send_response(refusal.status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            if self.close_connection:
                self.send_header("connection", "close")
            self.end_headers()
            self.wfile.write(data)


def _unknown() -> _Refusal:
    return _Refusal(401, "authentication_error", "use $SWARM_MODEL_TOKEN as the key")


@contextmanager
def _reaching() -> Generator[None]:
    """Turn what goes wrong with the provider into an answer that has no word of it."""
    try:
        yield
    except (OSError, HTTPException, ValueError) as error:
        words = f"the provider cannot be reached: {type(error).__name__}"
        raise _Refusal(502, "api_error", words) from None


def _whole_lines(answer: HTTPResponse) -> Iterator[bytes]:
    """Give an answer as it comes, cut at line ends; one that breaks off raises.

    (`readline` of a chunked answer takes a connection that is cut for its end.)
    """
    rest = b""
    while piece := answer.read1(65536):
        lines, end, rest = (rest + piece).rpartition(b"\n")
        if end:
            yield lines + end
        if len(rest) > BODY_LIMIT:
            raise HTTPException
    if rest:
        yield rest


def _safe(headers: Message) -> Iterator[tuple[str, str]]:
    for name, value in headers.items():
        if name.lower() in _SENT_BACK or name.lower().startswith(_LIMITS_BACK):
            yield name, value.replace("\r", " ").replace("\n", " ")


def _connect(base_url: str, meter: Meter, hold: Callable[[socket.socket], None]) -> HTTPConnection:
    """Open a connection to a server, if it is a secure one through swarm's own proxy if it has one.

    Args:
        base_url: the server.
        meter: has the trust in whom it is.
        hold: is shown every socket before anything is waited for.
    """
    parts = urlsplit(base_url)
    host, secure = parts.hostname or "", parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    connection = (HTTPSConnection if secure else HTTPConnection)(host, port)
    near = _proxy_for(host) if secure else None
    where = (host, port) if near is None else (near.hostname or "", near.port or 80)
    sock = _dial(*where, hold)
    try:
        if near is not None:
            _tunnel(sock, f"{host}:{port}", near)
        if secure:
            sock = meter.tls.wrap_socket(sock, server_hostname=host)
        sock.settimeout(UPSTREAM_S)
    except BaseException:
        sock.close()
        raise
    connection.sock = sock
    return connection


def _proxy_for(host: str) -> SplitResult | None:
    proxy = urllib.request.getproxies().get("https")
    if not proxy or urllib.request.proxy_bypass(host):
        return None
    return urlsplit(proxy if "://" in proxy else f"http://{proxy}")


def _dial(host: str, port: int, hold: Callable[[socket.socket], None]) -> socket.socket:
    failed = OSError(f"{host} has no address")
    for family, kind, proto, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        sock = socket.socket(family, kind, proto)
        try:
            hold(sock)
            sock.settimeout(CONNECT_S)
            sock.connect(address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return sock
        except OSError as error:
            sock.close()
            failed = error
    raise failed


def _tunnel(sock: socket.socket, where: str, near: SplitResult) -> None:
    """Have a proxy connect us."""
    head = f"CONNECT {where} HTTP/1.1\r\nhost: {where}\r\n"
    if near.username is not None:
        pair = f"{unquote(near.username)}:{unquote(near.password or '')}"
        head += f"proxy-authorization: Basic {b64encode(pair.encode()).decode()}\r\n"
    sock.sendall(f"{head}\r\n".encode())
    told = b""
    while not told.endswith(b"\r\n\r\n"):
        piece = sock.recv(1)
        if not piece or len(told) > STRANGERS_LIMIT:
            raise ConnectionAbortedError
        told += piece
    if told.split(b" ", 2)[1] != b"200":
        raise ConnectionRefusedError


# --- what is asked, and what it took -----------------------------------------------------------


def _target(method: str, asked: str) -> tuple[str, str]:
    """Give the path, and with its query, of a request that may be passed on."""
    try:
        scheme, netloc, path, query, _ = urlsplit(asked)
    except ValueError:
        scheme = netloc = path = query = ""
    known = (method, path) in _ASKED or (method == "GET" and _MODELS.fullmatch(path))
    if not known or scheme or netloc or not _QUERY.fullmatch(query):
        raise _Refusal(404, "not_found_error", f"{method} {path} is not passed on")
    return path, f"{path}?{query}" if query else path


_PARSING = threading.Lock()
"""A small document can be large when it is read: one at a time."""


class _Asked(NamedTuple):
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
        return self.model != "" and self.path != _FREE

    @classmethod
    def of(cls, path: str, target: str, body: bytes) -> _Asked:
        """Read a request."""
        with _PARSING:
            try:
                found: object = json.loads(body, object_pairs_hook=_once)
            except (ValueError, RecursionError):
                found = None
            if not isinstance(found, dict):
                words = "the request is not a JSON object, or one that says a thing twice"
                raise _Refusal(400, "invalid_request_error", words)
            fields = cast("dict[str, Any]", found)
            model = fields.get("model")
            # Some servers do not tell `Model` from `model`.
            named = [name for name in fields if name.lower() == "model"]
            if not isinstance(model, str) or not model or len(named) > 1:
                raise _Refusal(400, "invalid_request_error", "the request names no one `model`")
            names = ("max_tokens", "max_completion_tokens", "max_output_tokens")
            said = [n for name in names if type(n := fields.get(name)) is int and n >= 0]
            most = Tokens(input=len(body) // LETTERS, output=max(said, default=UNSAID))
            hides = path == _OPENAI[0] and fields.get("stream") is True
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
