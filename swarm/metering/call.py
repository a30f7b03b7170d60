"""One connection of a harness, and the one to the provider on its behalf."""

from __future__ import annotations

import json
import secrets
import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse, IncompleteRead
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from swarm.keys import blot_bytes
from swarm.metering.asked import OPENAI, Asked, Tally, target_of
from swarm.metering.purse import Refusal
from swarm.metering.upstream import (
    BODY_LIMIT,
    IDLE_S,
    LARGE,
    STRANGERS_LIMIT,
    connect,
    safe_headers,
    whole_lines,
)

if TYPE_CHECKING:
    from swarm.metering.meter import Meter

_SENT_ON = ("content-type", "accept", "anthropic-version", "anthropic-beta", "user-agent")


class Call:
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
                    shut(sock)

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
        self._upstream = connect(self.meter.provider.base_url, self.meter, self._hold)
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
        self._tell(Refusal(status, kind, message or explain or ""))

    def do_GET(self) -> None:
        """List models."""
        self._answer()

    def do_POST(self) -> None:
        """Ask a model."""
        self._answer()

    @property
    def _call(self) -> Call:
        return cast("Call", self.server)

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
        except Refusal as refusal:
            if refusal.status < 500:
                self._meter.purse.refuse()
            self._tell(refusal)

    def _size(self) -> int:
        """Give the length of the body; what is refused for it is not read, so that ends it all."""
        length = self.headers.get("content-length", "0")
        close, self.close_connection = self.close_connection, True
        if "transfer-encoding" in self.headers:
            raise Refusal(411, "invalid_request_error", "a request needs its content-length")
        if not length.isdecimal() or len(length) > 12 or int(length) > BODY_LIMIT:
            raise Refusal(413, "request_too_large", "a request has 32 MiB at most")
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

    def _asked(self, body: bytes) -> Asked:
        """Read a request, and refuse it unless it may be passed on."""
        if not self._is_known():
            raise _unknown()
        path, target = target_of(self.command, self.path)
        if self.command == "GET":
            return Asked(path, target)
        asked = Asked.of(path, target, body)
        if not self._meter.purse.admits(asked.model):
            allowed = ", ".join(self._meter.provider.models)
            words = f"{asked.model!r} may not be asked; target.provider.models: {allowed}"
            raise Refusal(403, "permission_error", words)
        return asked

    def _pass_on(self, asked: Asked) -> None:
        purse, tally = self._meter.purse, Tally()
        claim = purse.claim(asked.model, asked.most) if asked.counts else None
        try:
            with self._ask(asked, tally) as answer:
                self._send_back(answer, asked, tally)
        finally:
            self._call.hang_up()
            if claim is not None:
                purse.settle(claim, asked.model, tally.took(asked.most.input))

    def _ask(self, asked: Asked, tally: Tally) -> HTTPResponse:
        prefix = urlsplit(self._meter.provider.base_url).path.rstrip("/")
        with _reaching():
            upstream = self._call.connect()
            tally.open = True
            body, headers = asked.body or None, self._headers(asked)
            upstream.request(self.command, prefix + asked.target, body, headers)
            return upstream.getresponse()

    def _headers(self, asked: Asked) -> dict[str, str]:
        sent = {name: v for name in _SENT_ON if (v := self.headers.get(name)) is not None}
        listing = asked.model == "" and "anthropic-version" not in sent
        if self._meter.key and (asked.path in OPENAI or listing):
            sent["authorization"] = f"Bearer {self._meter.key}"
        elif self._meter.key:
            sent["x-api-key"] = self._meter.key
        return sent | {"connection": "close"}

    def _send_back(self, answer: HTTPResponse, asked: Asked, tally: Tally) -> None:
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
        for name, value in (*safe_headers(answer.headers), how):
            safe = blot_bytes(value.encode("latin-1", "replace"), self._meter.secret)
            self.send_header(name, safe.decode("latin-1"))
        self.end_headers()

    def _stream(self, answer: HTTPResponse, asked: Asked, tally: Tally) -> None:
        """Pass a stream on in whole lines: a key has no line end in it, so none is cut in two."""
        chunked = self.request_version != "HTTP/1.0"
        self._begin(
            answer, ("transfer-encoding", "chunked") if chunked else ("connection", "close")
        )
        try:
            for piece in whole_lines(answer):
                told = b"".join(tally.lines(piece, hides=asked.hides))
                told = blot_bytes(told, self._meter.secret)
                if told:
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(told), told) if chunked else told)
            tally.end()
            self.wfile.write(b"0\r\n\r\n" if chunked else b"")
        except (OSError, HTTPException, ValueError):
            # It broke off, and so must ours: an end in good order would pass for a whole answer.
            self.close_connection = True

    def _tell(self, refusal: Refusal) -> None:
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


def _unknown() -> Refusal:
    return Refusal(401, "authentication_error", "use $SWARM_MODEL_TOKEN as the key")


@contextmanager
def _reaching() -> Generator[None]:
    """Turn what goes wrong with the provider into an answer that has no word of it."""
    try:
        yield
    except (OSError, HTTPException, ValueError) as error:
        words = f"the provider cannot be reached: {type(error).__name__}"
        raise Refusal(502, "api_error", words) from None


def shut(sock: socket.socket) -> None:
    """Wake whoever waits for a socket; it is closed by its owner."""
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
