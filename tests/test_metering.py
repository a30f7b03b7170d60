"""The metering proxy, over real sockets: who is let in, what is counted, what never comes out."""

from __future__ import annotations

import http.client
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import rungs
from messages_server import MessagesServer, Reply
from targets import check_nobody_left, make_config, make_patches, make_repo
from test_sandbox import wait_until

from swarm.coordinator import Coordinator
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
    assert (
        [dict(r.headers)["x-api-key"] for r in server.requests] == [KEY, KEY]
        if hasattr(server.requests[0], "headers")
        else True
    )


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


def test_a_burst_does_not_overrun_a_limit(server: MessagesServer) -> None:
    with Meter(Provider(server.url, KEY, prices=PRICE, usd=0.001)) as meter:
        body = {"model": "m", "max_tokens": 100, "messages": [words("hello")]}
        found: list[int] = []
        threads = [
            threading.Thread(target=lambda: found.append(ask(meter, body)[0])) for _ in range(12)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found.count(200) + found.count(403) == 12
    assert found.count(403) > 0  # each may take half of it, so two at most are under way at once
    assert meter.used.usd < 0.001


def test_many_at_once_are_counted_to_the_token(server: MessagesServer) -> None:
    with Meter(Provider(server.url, KEY)) as meter:

        def work() -> None:
            for _ in range(5):
                assert ask(meter)[0] == 200

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert meter.used.requests == 40
    assert meter.used.tokens == server.usage.tokens


# --- a provider that misbehaves ------------------------------------------------------------------


class Upstream:
    """A server whose answers are written by hand; it can echo what it got."""

    def __init__(self, answer: Callable[[BaseHTTPRequestHandler], None]) -> None:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                answer(self)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Upstream:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def test_an_echo_of_the_key_is_blotted_out() -> None:
    def echo(handler: BaseHTTPRequestHandler) -> None:
        data = json.dumps({"got": dict(handler.headers)}).encode()
        handler.send_response(400)
        handler.send_header("content-type", "application/json")
        handler.send_header("x-echo", KEY)
        handler.send_header("request-id", f"for {KEY}")
        handler.send_header("content-length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    def stream(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("content-type", "text/event-stream")
        handler.send_header("connection", "close")
        handler.end_headers()
        for piece in (b"data: {}\n\n", b"data: " + KEY[:9].encode(), KEY[9:].encode() + b"\n\n"):
            handler.wfile.write(piece)
            handler.wfile.flush()
            time.sleep(0.05)
        handler.close_connection = True

    for answer in (echo, stream):
        with Upstream(answer) as upstream, Meter(Provider(upstream.url, KEY)) as meter:
            host, port = meter.url.removeprefix("http://").split(":")
            with socket.create_connection((host, int(port)), timeout=10) as link:
                body = json.dumps({"model": "m"}).encode()
                head = f"x-api-key: {meter.token}\r\ncontent-length: {len(body)}\r\n"
                link.sendall(f"POST /v1/messages HTTP/1.0\r\n{head}\r\n".encode() + body)
                link.settimeout(3)
                told = b""
                while piece := link.recv(65536):
                    told += piece
        assert b"HTTP/1.1 " in told
        assert b"[key]" in told
        assert KEY.encode() not in told
    assert KEY not in repr(Provider("http://x", KEY))


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
    release = threading.Event()
    with Upstream(lambda _: release.wait(20) and None) as upstream:
        meter = Meter(Provider(upstream.url, KEY))
        asking = threading.Thread(target=lambda: _swallow(meter))
        asking.start()
        host, port = meter.url.removeprefix("http://").split(":")
        silent = socket.create_connection((host, int(port)))
        time.sleep(0.3)
        start = time.monotonic()
        meter.close()
        assert time.monotonic() - start < 3
        asking.join(5)
        assert not asking.is_alive()
        silent.close()
        release.set()


def _swallow(meter: Meter) -> None:
    with suppress(OSError, http.client.HTTPException):
        ask(meter)


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


def test_strangers_at_the_door_are_turned_away(tmp_path: Path, server: MessagesServer) -> None:
    with Meter(Provider(server.url, KEY), door=tmp_path / "door") as meter:
        held: list[socket.socket] = []
        for send in ((b"", []), (b"swarm-door", []), (b"swarm-door", ["udp"]), (b"hm", ["tcp"])):
            link = socket.socket(socket.AF_UNIX)
            link.connect(str(tmp_path / "door"))
            sent = [_socket(kind) for kind in send[1]]
            if send[0]:
                socket.send_fds(link, [send[0]], [s.fileno() for s in sent])
            for sock in sent:
                sock.close()
            held.append(link)
        honest = socket.create_server(("127.0.0.1", 0))
        link = socket.socket(socket.AF_UNIX)
        link.connect(str(tmp_path / "door"))
        socket.send_fds(link, [b"swarm-door"], [honest.fileno()])
        link.settimeout(5)
        assert link.recv(2) == b"ok"
        meter.url = f"http://127.0.0.1:{honest.getsockname()[1]}"
        honest.close()
        assert ask(meter)[0] == 200
        for other in (*held, link):
            other.close()


def _socket(kind: str) -> socket.socket:
    if kind == "udp":
        return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    return socket.socket(socket.AF_INET, socket.SOCK_STREAM)


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
    state = Coordinator(opened.rundir, config, runtime, prefix=opened.prefix, keys=keys).run()
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
