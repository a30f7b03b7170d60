"""The connection to the provider: through a proxy if there is one, to be cut at any time."""

from __future__ import annotations

import socket
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator
from email.message import Message
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, unquote, urlsplit

if TYPE_CHECKING:
    from swarm.metering.meter import Meter

BODY_LIMIT, LARGE, STRANGERS_LIMIT = 32 * 2**20, 2**20, 2**16
IDLE_S, CONNECT_S, UPSTREAM_S, LEAVE_S = 60.0, 30.0, 600.0, 5.0
_SENT_BACK = ("content-type", "retry-after", "request-id")
_LIMITS_BACK = "anthropic-ratelimit-"


def connect(base_url: str, meter: Meter, hold: Callable[[socket.socket], None]) -> HTTPConnection:
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


def whole_lines(answer: HTTPResponse) -> Iterator[bytes]:
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


def safe_headers(headers: Message) -> Iterator[tuple[str, str]]:
    for name, value in headers.items():
        if name.lower() in _SENT_BACK or name.lower().startswith(_LIMITS_BACK):
            yield name, value.replace("\r", " ").replace("\n", " ")
