"""The metering proxy, over real sockets: who is let in, what is counted, what never comes out."""

from __future__ import annotations

import http.client
import json
import os
import pickle
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import rungs
from messages_server import MessagesServer, Reply
from targets import check_nobody_left, make_config, make_patches, make_repo
from test_sandbox import wait_until

import swarm.sandbox
from swarm.coordinator import Coordinator
from swarm.errors import SwarmError
from swarm.keys import take
from swarm.launch import open_run
from swarm.ledger import read
from swarm.metering import Meter, Provider, Tally, Tokens
from swarm.prices import Price
from swarm.records import Measured
from swarm.runtime import Inline
from swarm.sandbox import Command, Door, Mount, Sandbox, View
from swarm.sandbox.ladder import RungName

KEY = "sk-planted-provider-key-0123456789"
PRICE = Price(input=1e-6, output=5e-6, cache_read=1e-7, cache_write=1.25e-6)


def ask(
    meter: Meter, body: dict[str, Any] | None = None, *, token: str | None = None, **more: Any
) -> tuple[int, bytes]:
    """Send one request as a harness would; give the status and all bytes of the body."""
    host, port = meter.url.removeprefix("http://").split(":")
    link = http.client.HTTPConnection(host, int(port), timeout=10)
    try:
        content = body or {"model": "m", "max_tokens": 50, "messages": [words("hello")]}
        headers = {"content-type": "application/json", "anthropic-version": "2023-06-01"}
        headers[more.pop("header", "x-api-key")] = meter.token if token is None else token
        path = more.pop("path", "/v1/messages")
        link.request(more.pop("method", "POST"), path, json.dumps(content), headers)
        answer = link.getresponse()
        return answer.status, answer.read()
    finally:
        link.close()


def raw(meter: Meter, *lines: str, body: bytes = b"", seconds: float = 5) -> bytes:
    """Send bytes, and give all that come back until the other side ends it."""
    with dial(meter) as link:
        link.sendall("\r\n".join((*lines, "", "")).encode() + body)
        return until_end(link, seconds)


def dial(meter: Meter) -> socket.socket:
    host, port = meter.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=10)


def until_end(link: socket.socket, seconds: float = 5) -> bytes:
    link.settimeout(seconds)
    told = b""
    with suppress(ConnectionError):
        while piece := link.recv(65536):
            told += piece
    return told


def at_once(count: int, work: Callable[[], object]) -> None:
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def words(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


@pytest.fixture
def server() -> Iterator[MessagesServer]:
    with MessagesServer(lambda _: Reply.saying("yes"), key=KEY) as running:
        yield running


@pytest.fixture(autouse=True)
def _no_thread_left() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert wait_until(lambda: threading.active_count() <= before, 5)


@contextmanager
def nothing_left() -> Iterator[None]:
    """Check that neither a handle nor a thread of a meter outlives it, from its first moment on."""
    before = handles()
    yield
    # What a server of ours still holds for a moment is none of the meter's.
    assert wait_until(lambda: handles() <= before, 3)
    assert not [t for t in threading.enumerate() if t.name.startswith("meter")]


def handles() -> int:
    return len(os.listdir("/proc/self/fd"))


# --- who is let in -----------------------------------------------------------------------------


def test_a_request_with_the_token_is_answered_and_counted_to_the_token(
    server: MessagesServer,
) -> None:
    with Meter(Provider(server.url, KEY, prices=PRICE)) as meter:
        status, body = ask(meter)
        assert status == 200
        assert json.loads(body)["content"][0]["text"] == "yes"
        assert ask(meter, header="authorization", token=f"Bearer {meter.token}")[0] == 200
    used, counted = meter.used, server.usage
    assert used.tokens == counted.tokens
    assert used.requests == 2
    assert used.usd == pytest.approx(counted.input * 1e-6 + counted.output * 5e-6)
    for asked in server.requests:
        assert asked.headers["x-api-key"] == KEY
        assert asked.headers["anthropic-version"] == "2023-06-01"
        assert meter.token not in str(asked)


@pytest.mark.parametrize("token", ["", "wrong", KEY])
def test_without_the_token_nothing_is_asked(server: MessagesServer, token: str) -> None:
    with Meter(Provider(server.url, KEY)) as meter:
        status, body = ask(meter, token=token)
        assert status == 401
        assert b"SWARM_MODEL_TOKEN" in body
    assert meter.used[:4] == (0.0, 0, 0, 1)
    assert server.requests == ()


def test_only_what_asks_a_model_is_passed_on(server: MessagesServer) -> None:
    with Meter(Provider(server.url, KEY, models=("claude-haiku-*", "m"))) as meter:
        assert ask(meter, path="/v1/files")[0] == 404
        assert ask(meter, path="/v1/messages/batches")[0] == 404
        assert ask(meter, method="GET", path="/v1/organizations")[0] == 404
        status, body = ask(meter, {"model": "claude-opus-5", "messages": []})
        assert status == 403
        assert b"claude-haiku-*" in body
        assert ask(meter, {"messages": []})[0] == 400
        assert ask(meter)[0] == 200
    assert meter.used.refused == 5
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "target",
    [
        "/v1/models/../files",
        "/v1/models/%2e%2e/files",
        "/v1/models/..%2ffiles",
        "/v1/models/.",
        "/v1/modelsx",
        "/v1/models?a=/../%0d%0a",
        "http://elsewhere.example/v1/models",
        "//elsewhere.example/v1/models",
        "http://[/v1/models",
    ],
)
def test_no_way_of_writing_an_address_leads_elsewhere(target: str) -> None:
    with Upstream(echo) as upstream, Meter(Provider(upstream.url, KEY)) as meter:
        told = raw(meter, f"GET {target} HTTP/1.0", f"x-api-key: {meter.token}")
        assert told.startswith(b"HTTP/1.1 404 "), told
    assert upstream.seen == []


def test_models_are_listed_and_tokens_counted_for_nothing(server: MessagesServer) -> None:
    with Meter(Provider(server.url, KEY, tokens=1)) as meter:
        assert ask(meter)[0] == 200
        assert ask(meter)[0] == 403
        assert ask(meter, method="GET", path="/v1/models?limit=20")[0] == 200
        assert ask(meter, method="GET", path="/v1/models/meta-llama/Llama-3.3:70b")[0] == 200
        assert ask(meter, path="/v1/messages/count_tokens")[0] == 200
    assert meter.used.requests == 1


@pytest.mark.parametrize(
    "body",
    [
        b'{"model": "dear", "model": "m"}',
        b'{"Model": "dear", "model": "m"}',
        b'{"model": ["m"]}',
        b'["model", "m"]',
        b"{" * 100_000,
        b"\xff",
    ],
)
def test_a_request_that_two_may_read_differently_is_refused(body: bytes) -> None:
    with Upstream(echo) as upstream, Meter(Provider(upstream.url, KEY, models=("m",))) as meter:
        head = f"x-api-key: {meter.token}", f"content-length: {len(body)}"
        told = raw(meter, "POST /v1/messages HTTP/1.0", *head, body=body)
        assert told.startswith(b"HTTP/1.1 400 ")
    assert upstream.seen == []


def test_what_is_too_large_or_of_unknown_length_is_refused() -> None:
    with Upstream(echo) as upstream, Meter(Provider(upstream.url, KEY)) as meter:
        post, token = "POST /v1/messages HTTP/1.1", f"x-api-key: {meter.token}"
        for length, status in ((f"{2**25 + 1}", 413), ("-1", 413), ("9" * 5000, 413), ("²", 413)):
            told = raw(meter, post, token, f"content-length: {length}")
            assert told.startswith(b"HTTP/1.1 %d " % status), (length, told)
        assert raw(meter, post, token, "transfer-encoding: chunked").startswith(b"HTTP/1.1 411 ")
        assert raw(meter, post, f"content-length: {2**20}").startswith(b"HTTP/1.1 401 ")
        assert raw(meter, "DELETE /v1/messages HTTP/1.1", token).startswith(b"HTTP/1.1 404 ")
        assert b"invalid_request_error" in raw(meter, "what is this?")
        body = json.dumps({"model": "m", "text": "a" * 2**21}).encode()
        head = token, f"content-length: {len(body)}"
        told: list[bytes] = []
        post = "POST /v1/messages HTTP/1.0"
        at_once(12, lambda: told.append(raw(meter, post, *head, body=body, seconds=10)))
        assert all(t.startswith(b"HTTP/1.1 200 ") for t in told)
    assert upstream.seen == ["/v1/messages"] * 12


def test_a_connection_serves_many_requests(server: MessagesServer) -> None:
    with Meter(Provider(server.url, KEY)) as meter, dial(meter) as link:
        body = json.dumps({"model": "m", "max_tokens": 9, "messages": [words("?")]}).encode()
        head = f"POST /v1/messages HTTP/1.1\r\ncontent-length: {len(body)}\r\nx-api-key: "
        right, wrong = (f"{head}{t}\r\n\r\n".encode() + body for t in (meter.token, "wrong"))
        link.sendall(right + wrong + right)
        told = b""
        while told.count(b'"stop_reason"') < 2 and (piece := link.recv(65536)):
            told += piece
    assert re.findall(rb"HTTP/1.1 (\d+)", told) == [b"200", b"401", b"200"]


# --- what it costs -----------------------------------------------------------------------------


def test_a_stream_is_passed_on_as_it_is_and_counted(server: MessagesServer) -> None:
    body = {"model": "m", "max_tokens": 50, "stream": True, "messages": [words("hello")]}
    with Meter(Provider(server.url, KEY)) as meter:
        status, told = ask(meter, body)
    assert status == 200
    assert b"event: message_stop" in told
    assert meter.used.tokens == server.usage.tokens


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"input_tokens": 5, "output_tokens": 7}, Tokens(5, 7)),
        (
            {
                "input_tokens": 5,
                "cache_read_input_tokens": 100,
                "cache_creation_input_tokens": 20,
                "output_tokens": 7,
            },
            Tokens(5, 7, 100, 20),
        ),
        (
            {
                "prompt_tokens": 105,
                "completion_tokens": 7,
                "prompt_tokens_details": {"cached_tokens": 100},
            },
            Tokens(5, 7, 100),
        ),
        (
            {
                "input_tokens": 105,
                "output_tokens": 7,
                "input_tokens_details": {"cached_tokens": 100},
            },
            Tokens(5, 7, 100),
        ),
        ({"input_tokens": "many", "output_tokens": -3}, Tokens()),
    ],
)
def test_usage_is_read_in_every_dialect(usage: dict[str, Any], tokens: Tokens) -> None:
    tally = Tally()
    tally.whole(json.dumps({"usage": usage}).encode())
    assert tally.tokens == tokens
    streamed = Tally()
    for event in ({"message": {"usage": usage}}, {"usage": {"output_tokens": 1}}, {"x": []}, 3):
        streamed.line(b"data: " + json.dumps(event).encode())
    streamed.line(b"data: {broken")
    assert streamed.tokens == tokens._replace(output=max(1, tokens.output))


def test_a_limit_ends_the_asking(server: MessagesServer) -> None:
    with Meter(Provider(server.url, KEY, tokens=20)) as meter:
        statuses = [ask(meter)[0] for _ in range(6)]
        status, body = ask(meter)
    assert statuses[0] == 200
    assert status == 403
    assert b"target.provider.tokens" in body
    assert meter.used.requests == statuses.count(200)
    assert meter.used.refused == statuses.count(403) + 1


def test_a_burst_goes_beyond_a_limit_by_one_request_at_most(server: MessagesServer) -> None:
    with Meter(Provider(server.url, KEY, prices=PRICE)) as meter:
        assert ask(meter)[0] == 200
    each, found = meter.used.usd, list[int]()
    with Meter(Provider(server.url, KEY, prices=PRICE, usd=3.5 * each)) as meter:
        at_once(12, lambda: found.append(ask(meter)[0]))
    assert sorted(found) == [200] * 4 + [403] * 8
    assert meter.used.usd == pytest.approx(4 * each)
    assert meter.used.refused == 8


def test_what_others_may_take_is_waited_for_and_not_refused(server: MessagesServer) -> None:
    found: list[int] = []
    body = {"model": "m", "max_tokens": 400, "messages": [words("hello")]}
    with Meter(Provider(server.url, KEY, tokens=1000)) as meter:
        at_once(8, lambda: found.append(ask(meter, body)[0]))
    assert found == [200] * 8


def test_a_limit_that_cannot_be_kept_lets_nothing_through(server: MessagesServer) -> None:
    unknown = Provider("https://models.invalid", KEY, usd=1.0)
    with Meter(unknown) as meter:
        status, body = ask(meter)
    assert status == 403
    assert b"target.provider.prices" in body
    assert meter.used == (0.0, 0, 0, 1, ())


def test_a_model_without_a_price_is_named() -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        send(handler, b'{"usage": {"input_tokens": 5, "output_tokens": 2}}')

    # Written like this, nobody but the resolver knows that it is on this machine and free.
    with Upstream(answer) as upstream:
        url = upstream.url.replace("127.0.0.1", "127.1")
        with Meter(Provider(url, KEY)) as meter:
            assert [ask(meter)[0] for _ in range(2)] == [200, 200]
    assert meter.used == (0.0, 14, 2, 0, ("m",))


def test_many_at_once_are_counted_to_the_token(server: MessagesServer) -> None:
    with Meter(Provider(server.url, KEY)) as meter:

        def work() -> None:
            for _ in range(5):
                assert ask(meter)[0] == 200

        at_once(8, work)
    assert meter.used.requests == 40
    assert meter.used.tokens == server.usage.tokens


# --- a provider that misbehaves ------------------------------------------------------------------


class Upstream:
    """A server whose answers are written by hand; it knows what it was asked."""

    def __init__(
        self,
        answer: Callable[[BaseHTTPRequestHandler], None],
        secure: ssl.SSLContext | None = None,
    ) -> None:
        self.seen, self.bodies = list[str](), list[dict[str, Any]]()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

            def do_GET(handler) -> None:
                self.seen.append(handler.path)
                answer(handler)

            def do_POST(handler) -> None:
                self.seen.append(handler.path)
                body = handler.rfile.read(int(handler.headers["content-length"]))
                self.bodies.append(json.loads(body))
                with suppress(ConnectionError):
                    answer(handler)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None
        if secure is not None:
            self._server.socket = secure.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Upstream:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Relay:
    """A proxy that connects whoever has the password, whatever the name, to a port of ours."""

    def __init__(self, port: int) -> None:
        self._target, self.asked = port, list[str]()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                link, _ = self._listener.accept()
                with link:
                    self._relay(link)

    def _relay(self, link: socket.socket) -> None:
        head = link.recv(65536).decode()
        self.asked.append(head)
        if "authorization: Basic dXNAZXI6cGFzcw==" not in head:
            link.sendall(b"HTTP/1.1 407 No\r\n\r\n")
            return
        link.sendall(b"HTTP/1.1 200 Yes\r\nx: y\r\n\r\n")
        with socket.create_connection(("127.0.0.1", self._target)) as other:
            pumps = [
                threading.Thread(target=_pump, args=pair) for pair in ((link, other), (other, link))
            ]
            for pump in pumps:
                pump.start()
            for pump in pumps:
                pump.join()


def _pump(source: socket.socket, to: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(65536):
            to.sendall(piece)
    with suppress(OSError):
        to.shutdown(socket.SHUT_WR)


def send(
    handler: BaseHTTPRequestHandler, data: bytes, *, status: int = 200, **headers: str
) -> None:
    handler.send_response(status)
    handler.send_header("content-type", "application/json")
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("content-length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data)


def stream(*pieces: bytes, pause: float = 0.0) -> Callable[[BaseHTTPRequestHandler], None]:
    """Send the pieces of a stream one by one; None breaks it off."""
    return lambda handler: send_stream(handler, pieces, pause)


def send_stream(handler: BaseHTTPRequestHandler, pieces: Iterable[bytes], pause: float = 0) -> None:
    handler.send_response(200)
    handler.send_header("content-type", "text/event-stream")
    handler.send_header("transfer-encoding", "chunked")
    handler.end_headers()
    for piece in chain(pieces, [b""]):
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        time.sleep(pause)


def event(**fields: Any) -> bytes:
    return b"data: %s\n\n" % json.dumps(fields).encode()


def echo(handler: BaseHTTPRequestHandler) -> None:
    """Give away whatever was in the headers, in the headers and the body."""
    got = json.dumps({"got": dict(handler.headers)}).encode()
    key = handler.headers.get("x-api-key") or handler.headers.get("authorization") or ""
    more = {"x_echo": key, "request_id": f"for {key}", "set_cookie": key, "location": f"/{key}"}
    send(handler, got, **more, anthropic_ratelimit_requests_remaining="7", retry_after="3")


def split_echo(handler: BaseHTTPRequestHandler) -> None:
    stream(b"data: {}\n\n", b"data: " + KEY[:9].encode(), KEY[9:].encode() + b"\n\n", pause=0.05)(
        handler
    )


def echo_status(handler: BaseHTTPRequestHandler) -> None:
    send(handler, f"no {KEY} here".encode(), status=307, location=f"http://x/{KEY}")


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/chat/completions", "/v1/responses"])
@pytest.mark.parametrize("answer", [echo, split_echo, echo_status])
def test_an_echo_of_the_key_is_blotted_out(
    answer: Callable[[BaseHTTPRequestHandler], None], path: str
) -> None:
    with Upstream(answer) as upstream, Meter(Provider(upstream.url, f"{KEY}\n")) as meter:
        body = b'{"model": "m"}'
        head = f"authorization: bearer {meter.token}", f"content-length: {len(body)}"
        told = raw(meter, f"POST {path} HTTP/1.0", *head, body=body)
    assert told.startswith(b"HTTP/1.1 ")
    assert b"[key]" in told
    assert KEY.encode() not in told
    assert meter.token.encode() not in told
    for header in (b"x-echo", b"set-cookie", b"location"):
        assert header not in told.lower()
    assert len(upstream.seen) == 1


def test_a_key_stays_where_it_is() -> None:
    provider = Provider("http://x", KEY, models=("m",))
    assert KEY not in repr(provider)
    assert pickle.loads(pickle.dumps(provider)) == provider
    with Upstream(echo) as upstream, Meter(Provider(upstream.url, "sk\r\nx: \u2603")) as meter:
        status, body = ask(meter)
    assert status == 502
    assert b"sk" not in body


@pytest.mark.parametrize("status", [429, 529, 500, 400])
def test_what_the_provider_refuses_is_passed_on_and_costs_nothing(status: int) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        send(handler, b'{"type": "error"}', status=status, retry_after="3")

    with Upstream(answer) as upstream, Meter(Provider(upstream.url, KEY)) as meter:
        body = b'{"model": "m"}'
        head = f"x-api-key: {meter.token}", f"content-length: {len(body)}"
        told = raw(meter, "POST /v1/messages HTTP/1.0", *head, body=body)
    assert told.startswith(b"HTTP/1.1 %d " % status)
    assert b"retry-after: 3\r\n" in told
    assert told.endswith(b'{"type": "error"}')
    assert meter.used == (0.0, 0, 1, 0, ())


@pytest.mark.parametrize("asks", [True, False])
def test_usage_of_an_openai_stream_is_asked_for_and_shown_only_to_who_asks(asks: bool) -> None:
    said = event(choices=[{"delta": {"content": "yes"}}], usage=None)
    usage = event(choices=[], usage={"prompt_tokens": 30, "completion_tokens": 4})
    done = b"data: [DONE]\n\n"
    body: dict[str, Any] = {"model": "m", "stream": True}
    body |= {"stream_options": {"include_usage": True}} if asks else {}
    with Upstream(stream(said, usage, done)) as upstream:
        with Meter(Provider(upstream.url, KEY)) as meter:
            status, told = ask(meter, body, path="/v1/chat/completions")
        assert upstream.bodies == [body | {"stream_options": {"include_usage": True}}]
    assert status == 200
    assert told.split() == (said + usage * asks + done).split()
    assert meter.used.tokens == 34


def test_the_responses_api_is_counted() -> None:
    usage = {"input_tokens": 30, "output_tokens": 4, "input_tokens_details": {"cached_tokens": 10}}
    events = event(type="response.output_text.delta", delta="yes"), event(response={"usage": usage})
    with Upstream(stream(*events)) as upstream, Meter(Provider(upstream.url, KEY)) as meter:
        told = ask(meter, {"model": "m", "stream": True}, path="/v1/responses")
    assert told == (200, b"".join(events))
    assert meter.used.tokens == 34


def test_what_is_not_reported_is_reckoned() -> None:
    body = {"model": "m", "text": "a" * 400}
    size = len(json.dumps(body)) // 4
    text = event(delta={"type": "text_delta", "text": "b" * 800})
    with Upstream(stream(text)) as upstream, Meter(Provider(upstream.url, KEY)) as meter:
        assert ask(meter, body)[0] == 200
    assert meter.used.tokens == size + 200


def test_who_hangs_up_before_the_count_is_counted() -> None:
    start = event(message={"usage": {"input_tokens": 33, "output_tokens": 1}})
    text = event(delta={"type": "text_delta", "text": "b" * 800})
    gone = threading.Event()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        def pieces() -> Iterator[bytes]:
            yield from (start, *[text] * 20)
            gone.wait(20)
            yield from [text] * 180

        send_stream(handler, pieces())

    with Upstream(answer) as upstream, Meter(Provider(upstream.url, KEY)) as meter:
        with dial(meter) as link:
            body = b'{"model": "m", "stream": true}'
            head = f"x-api-key: {meter.token}\r\ncontent-length: {len(body)}"
            link.sendall(f"POST /v1/messages HTTP/1.1\r\n{head}\r\n\r\n".encode() + body)
            told = b""
            while told.count(b"text_delta") < 5:
                told += link.recv(65536)
        gone.set()
        assert wait_until(lambda: meter.used.requests == 1, 5)
    assert 33 + 5 * 200 <= meter.used.tokens < 33 + 200 * 200


def test_a_whole_answer_that_is_cut_is_no_answer() -> None:
    def cut(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("content-type", "application/json")
        handler.send_header("content-length", "100")
        handler.end_headers()
        handler.wfile.write(b'{"usage": ')
        handler.close_connection = True

    with Upstream(cut) as upstream, Meter(Provider(upstream.url, KEY)) as meter:
        assert ask(meter)[0] == 502
    assert meter.used.tokens > 0


def test_a_stream_that_is_cut_counts_what_it_had_said() -> None:
    def cut(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("content-type", "text/event-stream")
        handler.send_header("transfer-encoding", "chunked")
        handler.end_headers()
        event = b'data: {"message": {"usage": {"input_tokens": 33, "output_tokens": 1}}}\n\n'
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
        handler.wfile.flush()
        handler.connection.shutdown(socket.SHUT_RDWR)

    with (
        Upstream(cut) as upstream,
        Meter(Provider(upstream.url, KEY)) as meter,
        pytest.raises((http.client.HTTPException, OSError)),
    ):
        ask(meter)
    assert meter.used.tokens == 34


def test_a_provider_that_is_not_there_is_said_so_without_the_key() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        url = f"http://127.0.0.1:{gone.getsockname()[1]}"
    with Meter(Provider(url, KEY)) as meter:
        status, body = ask(meter)
    assert status == 502
    assert b"cannot be reached" in body
    assert KEY.encode() not in body


def test_closing_cuts_what_is_under_way() -> None:
    release, told = threading.Event(), list[bytes]()
    start = event(message={"usage": {"input_tokens": 33, "output_tokens": 1}})

    def hang(handler: BaseHTTPRequestHandler) -> None:
        if handler.path == "/v1/messages":
            with suppress(OSError):
                stream(start, *[b": \n\n"] * 200, pause=0.05)(handler)
        release.wait(20)
        handler.close_connection = True

    with Upstream(hang) as upstream:
        body = b'{"model": "m", "stream": true}'
        with nothing_left():
            meter = Meter(Provider(upstream.url, KEY, tokens=10_000))
            head = f"x-api-key: {meter.token}", f"content-length: {len(body)}"
            links = [dial(meter) for _ in range(4)]
            for link, path in zip(links, ("messages", "responses", "responses"), strict=False):
                lines = f"POST /v1/{path} HTTP/1.1", *head, "", ""
                link.sendall("\r\n".join(lines).encode() + body)
                assert wait_until(lambda: "/v1/messages" in upstream.seen, 5)
            assert wait_until(lambda: len(upstream.seen) == 2, 5)  # the third has to wait
            heard = b""
            while b"input_tokens" not in heard:  # what comes through here was counted before
                heard += links[0].recv(65536)
            assert b" 200 " in heard
            begun = time.monotonic()
            meter.close()
            assert time.monotonic() - begun < 2
            told = [until_end(link) for link in links]
            for link in links:
                link.close()
            release.set()
            time.sleep(0.2)
    assert told[1:] == [b"", b"", b""]
    assert meter.used == (0.0, 34 + len(body) // 4, 2, 0, ())
    with pytest.raises(OSError):
        dial(meter)


def test_closing_does_not_wait_for_a_provider_that_does_not_answer_the_phone() -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        fill = [socket.socket() for _ in range(3)]
        for sock in fill:
            sock.setblocking(False)
            sock.connect_ex(deaf.getsockname())
        with nothing_left():
            meter = Meter(Provider(f"http://127.0.0.1:{deaf.getsockname()[1]}", KEY))
            with dial(meter) as link:
                body = b'{"model": "m"}'
                head = f"x-api-key: {meter.token}\r\ncontent-length: {len(body)}"
                link.sendall(f"POST /v1/messages HTTP/1.1\r\n{head}\r\n\r\n".encode() + body)
                time.sleep(0.3)
                begun = time.monotonic()
                meter.close()
                assert time.monotonic() - begun < 2
        for sock in fill:
            sock.close()


def test_a_slow_client_holds_nobody_up(server: MessagesServer) -> None:
    with nothing_left(), Meter(Provider(server.url, KEY)) as meter:
        slow = [dial(meter) for _ in range(30)]
        for link in slow[:20]:
            link.sendall(b"POST /v1/mess")
        for _ in range(3):
            assert ask(meter)[0] == 200
            for link in slow[:10]:
                link.sendall(b"a")
        begun = time.monotonic()
        meter.close()
        assert time.monotonic() - begun < 2
        for link in slow:
            link.close()


def test_more_connections_than_there_may_be_are_closed(server: MessagesServer) -> None:
    with nothing_left(), Meter(Provider(server.url, KEY)) as meter:
        links = [dial(meter) for _ in range(64)]
        with dial(meter) as late:
            assert until_end(late) == b""
        for link in links:
            link.close()
        assert wait_until(lambda: _answers(meter), 5)


def _answers(meter: Meter) -> bool:
    with suppress(OSError, http.client.HTTPException):
        return ask(meter)[0] == 200
    return False


def test_a_secure_provider_is_reached_through_a_proxy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("NO OPENSSL HERE: the secure way to a provider is not tried")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    alt = "subjectAltName=DNS:models.test"
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    argv += ["-nodes", "-keyout", str(key), "-out", str(cert), "-days", "2"]
    subprocess.run([*argv, "-subj", "/CN=x", "-addext", alt], check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    with Upstream(echo, context) as upstream, Relay(upstream.port) as relay:
        for name in ("no_proxy", "NO_PROXY", "https_proxy"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HTTPS_PROXY", f"http://us%40er:pass@127.0.0.1:{relay.port}")
        for trusted, status in (("/dev/null", 502), (str(cert), 200)):
            monkeypatch.setenv("SSL_CERT_FILE", trusted)
            monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
            url = "https://models.test"
            with Meter(Provider(f"{url}/base", KEY)) as meter:
                found, body = ask(meter)
                assert found == status, body
                assert KEY.encode() not in body
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{relay.port}")
        with Meter(Provider(url, KEY)) as meter:
            assert ask(meter)[0] == 502  # it wants a password
    assert upstream.seen == ["/base/v1/messages"]
    assert relay.asked[0].startswith("CONNECT models.test:443 HTTP/1.1\r\n")


# --- the door ----------------------------------------------------------------------------------

ASK = """
import json, os, sys, urllib.request
body = json.dumps({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "?"}]})
request = urllib.request.Request(
    os.environ["SWARM_MODEL_URL"] + "/v1/messages",
    body.encode(),
    {"x-api-key": os.environ["SWARM_MODEL_TOKEN"], "content-type": "application/json"},
)
answer = json.load(urllib.request.urlopen(request, timeout=10))
print("METRIC loss=" + str(len(answer["content"][0]["text"])))
"""


@pytest.mark.parametrize("name", ["bubblewrap", "landlock"])
def test_a_command_without_a_network_asks_through_the_door(
    tmp_path: Path, server: MessagesServer, name: RungName
) -> None:
    deep = tmp_path / ("deep" * 30)
    deep.mkdir()
    with (
        Meter(Provider(server.url, KEY), door=deep / "door") as meter,
        Sandbox(rungs.rung(name), scratch=tmp_path / "scratch") as box,
    ):
        work = tmp_path / "work"
        work.mkdir()
        env = {"PATH": os.environ["PATH"], "SWARM_MODEL_URL": meter.url}
        env["SWARM_MODEL_TOKEN"] = meter.token
        view = View((Mount(work, writable=True),), door=Door(deep / "door", 8377))
        for _ in range(2):
            argv = ("python3", "-S", "-c", ASK)
            outcome = box.run(Command(argv, work, env, 20, tmp_path / "log", view=view))
            assert outcome.status == 0, (tmp_path / "log").read_text()
            assert (tmp_path / "log").read_text() == "METRIC loss=3\n"
        assert meter.used.requests == 2
    assert not (deep / "door").exists()


def knock(door: Path, said: bytes = b"swarm-door", *sent: int) -> socket.socket:
    link = socket.socket(socket.AF_UNIX)
    link.connect(str(door))
    link.settimeout(5)
    if said:
        socket.send_fds(link, [said], list(sent))
    return link


@contextmanager
def admitted(meter: Meter, door: Path) -> Iterator[socket.socket]:
    """Hand out a listener, and have the meter's own helpers ask by it."""
    with socket.create_server(("127.0.0.1", 0)) as honest:
        with knock(door, b"swarm-door", honest.fileno()) as link:
            assert link.recv(2) == b"ok"
        meter.url = f"http://127.0.0.1:{honest.getsockname()[1]}"
        yield honest


def test_strangers_at_the_door_are_turned_away(tmp_path: Path, server: MessagesServer) -> None:
    door = tmp_path / "door"
    anywhere = socket.create_server(("0.0.0.0", 0))
    loose, listening = socket.socket(), socket.create_server(("127.0.0.1", 0))
    local, joined = socket.socket(socket.AF_UNIX), socket.create_connection(listening.getsockname())
    local.bind(str(tmp_path / "local"))
    local.listen()
    datagram = socket.socket(type=socket.SOCK_DGRAM)
    datagram.bind(("127.0.0.1", 0))
    bad = [s.fileno() for s in (anywhere, loose, local, joined, datagram)]
    with open("/dev/null") as file, nothing_left():
        with Meter(Provider(server.url, KEY), door=door) as meter:
            assert door.stat().st_mode & 0o777 == 0o600
            held = [knock(door, b"") for _ in range(10)]
            for handle in (*bad, file.fileno()):
                with knock(door, b"swarm-door", *[handle] * 4) as link:
                    assert link.recv(2) == b""
            for said in (b"hm", b"swarm-door!", b"swarm-door" * 50):
                with knock(door, said, listening.fileno()) as link, suppress(ConnectionError):
                    assert link.recv(2) == b""
            with knock(door, b"swarm-door") as link:
                assert link.recv(2) == b""
            with admitted(meter, door):
                assert ask(meter)[0] == 200
        for other in held:
            assert other.recv(2) == b""
            other.close()
    for sock in (anywhere, loose, listening, local, joined, datagram):
        sock.close()
    assert not door.exists()


def test_silent_visitors_give_way_when_they_go(tmp_path: Path, server: MessagesServer) -> None:
    door = tmp_path / "door"
    with nothing_left(), Meter(Provider(server.url, KEY), door=door) as meter:
        before = handles()
        held = [knock(door, b"") for _ in range(16)]
        with knock(door, b"") as late:
            assert late.recv(2) == b""
        for link in held:
            link.close()
        assert wait_until(lambda: handles() == before, 5)
        for _ in range(7):  # each stage, and more than are answered at once
            with admitted(meter, door):
                assert ask(meter)[0] == 200


def test_a_listener_that_its_owner_ends_is_let_go(tmp_path: Path, server: MessagesServer) -> None:
    door = tmp_path / "door"
    with nothing_left(), Meter(Provider(server.url, KEY), door=door) as meter:
        with admitted(meter, door) as honest:
            before = time.process_time()
            honest.shutdown(socket.SHUT_RDWR)
            time.sleep(0.5)
            assert time.process_time() - before < 0.2
        with admitted(meter, door):
            assert ask(meter)[0] == 200


def test_an_owner_who_takes_connections_away_cannot_have_us_wait(
    tmp_path: Path, server: MessagesServer
) -> None:
    door, stop = tmp_path / "door", time.monotonic() + 1
    with nothing_left():
        meter = Meter(Provider(server.url, KEY), door=door)
        with admitted(meter, door) as shared:

            def steal() -> None:
                while time.monotonic() < stop:
                    # Blocking is a property of the listener, which both hold.
                    os.set_blocking(shared.fileno(), True)
                    shared.settimeout(0.001)
                    os.set_blocking(shared.fileno(), True)
                    with suppress(OSError):
                        shared.accept()[0].close()

            thief = threading.Thread(target=steal)
            thief.start()
            while thief.is_alive():  # as it may wait for a connection that we have taken
                with suppress(OSError), dial(meter):
                    pass
            thief.join()
            begun = time.monotonic()
            meter.close()
            assert time.monotonic() - begun < 2


def test_a_door_that_cannot_be_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with nothing_left():
        for door in (tmp_path / "file" / "door", tmp_path / ("long" * 50), tmp_path):
            with pytest.raises(SwarmError, match="cannot open a door to the models"):
                Meter(Provider("http://127.0.0.1:1", KEY), door=door)


LOOK = """
import json, os, signal, sys
ignored = [s.name for s in signal.Signals if signal.getsignal(s) == signal.SIG_IGN]
seen = {"env": dict(os.environ), "cwd": os.getcwd(), "in": sys.stdin.read(), "argv": sys.argv[1:]}
open_ = [int(n) for n in os.listdir("/proc/self/fd")]
ignored = int(next(x for x in open("/proc/self/status") if x.startswith("SigIgn")).split()[1], 16)
print(json.dumps(seen | {"ignored": ignored, "handles": sum(n > 2 for n in open_)}))
"""


def test_the_program_at_the_door_leaves_a_command_as_it_would_be(
    tmp_path: Path, server: MessagesServer
) -> None:
    """In a real network namespace, whose loopback is not ours."""
    if subprocess.run(["unshare", "-Urn", "true"], capture_output=True).returncode:
        pytest.skip("NO NETWORK NAMESPACES HERE: `unshare -Urn` fails")
    look, ask_it = tmp_path / "look.py", tmp_path / "ask.py"
    look.write_text(LOOK)
    ask_it.write_text(ASK)
    program = Path(swarm.sandbox.__file__).with_name("door.py")
    with Meter(Provider(server.url, KEY), door=tmp_path / "door") as meter:
        env = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "SWARM_MODEL_URL": meter.url}
        env["SWARM_MODEL_TOKEN"] = meter.token
        door = [sys.executable, "-S", "-E", "-I", str(program), str(tmp_path / "door"), "8377"]
        script = 'ip link set lo up && exec "$@"'
        space = ["unshare", "-Urn", "sh", "-c", script, "-"]

        def run(*argv: str, through: list[str], said: str = "") -> tuple[str, str]:
            # A shell leaves the signals of what it starts alone; Python would not.
            done = subprocess.run(
                [*space, *through, *argv],
                env=env,
                cwd=tmp_path,
                input=said,
                capture_output=True,
                text=True,
                timeout=20,
            )
            return done.stdout, done.stderr

        python = ("python3", "-S")
        assert run(*python, str(ask_it), through=[*door, "--"]) == ("METRIC loss=3\n", "")
        bare = run(*python, str(look), "a b", through=[], said="words")
        assert run(*python, str(look), "a b", through=[*door, "--"], said="words") == bare
        lost = [*door[:-2], str(tmp_path / "nowhere" / "door"), "8377", "--"]
        told, complaint = run(*python, str(look), "a b", through=lost, said="words")
        assert told == bare[0]
        assert complaint.startswith("swarm: no way to the models: ")
        assert complaint.count("\n") == 1
        assert "cannot run" in run("no-such-program", through=[*door, "--"])[1]


# --- a run -------------------------------------------------------------------------------------

RUN = """
target:
  scope: [value.txt]
  hide: [answers/]
  run: python3 -S ask.py
  metric: {name: loss, goal: minimize}
  timeout: 20s
  slot: {count: 1}
  provider: {base_url: %s, key: PLANTED, models: [m], prices: {input: 1, output: 5}}
agents: [{count: 1, proposer: {kind: scripted, patches: patches}}]
judge: {baseline: 2}
budget: {experiments: 1}
"""


def test_what_measuring_costs_is_on_the_ledger_and_the_key_is_nowhere(
    tmp_path: Path, server: MessagesServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLANTED", KEY)
    top = make_repo(tmp_path / "repo", {"ask.py": ASK, "value.txt": "1\n"})
    make_patches(top.parent / "patches", [{"summary": "two", "files": {"value.txt": "2\n"}}])
    config = make_config(top.parent, (RUN % server.url).replace("scope", "repo: repo\n  scope"))
    opened = open_run(config, wait_s=5)
    keys = {"PLANTED": KEY}
    runtime = Inline()
    state = Coordinator(opened.rundir, config, runtime, prefixes=opened.prefixes, keys=keys).run()
    measured = [e for e in read(opened.rundir.ledger) if isinstance(e, Measured)]
    assert len(measured) >= 3
    assert all(e.measurement.failure is None for e in measured)
    counted = server.usage
    assert state.spend.tokens == counted.tokens == sum(e.measurement.tokens for e in measured)
    assert state.spend.usd == pytest.approx(counted.input * 1e-6 + counted.output * 5e-6)
    assert state.experiments[1].tokens > 0
    for folder in (opened.rundir.path, Path(os.environ["SWARM_SCRATCH"])):
        for file in folder.rglob("*"):
            if file.is_file():
                assert KEY.encode() not in file.read_bytes()
    check_nobody_left()


def test_launching_takes_the_providers_key_from_the_environment(
    server: MessagesServer, tmp_path: Path
) -> None:
    config = make_config(
        tmp_path,
        (RUN % server.url).replace(
            "proposer: {kind: scripted, patches: patches}", "proposer: mutate"
        ),
    )
    environ = {"PLANTED": KEY, "ANTHROPIC_API_KEY": "sk-ant-other-key", "PATH": "/bin"}
    assert take(config.askers, environ) == {"PLANTED": KEY}
    assert environ == {"PATH": "/bin"}
