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
import secrets
import selectors
import socket
import ssl
import struct
import threading
import time
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Self, cast

from swarm.errors import SwarmError
from swarm.keys import SHORTEST
from swarm.metering.call import Call, shut
from swarm.metering.purse import Metered, Provider, Purse
from swarm.metering.upstream import LEAVE_S

DOOR_PORT = 8377
"""The port on which a command with a network of its own finds the models."""
WORD = b"swarm-door"
MOST_DOORS, MOST_VISITORS, MOST_CALLS, MOST_LARGE = 4, 16, 64, 8
_GONE = (errno.EINVAL, errno.EBADF, errno.ENOTSOCK, errno.EOPNOTSUPP)


class Meter:
    """One measurement's way to the provider."""

    def __init__(self, provider: Provider, *, door: Path | None = None) -> None:
        """Start to listen: on the loopback, or for sockets that come through a door."""
        self.provider, self.token = provider, secrets.token_urlsafe(24)
        self.purse = Purse(provider)
        self.large = threading.BoundedSemaphore(MOST_LARGE)
        self._door, self._closing, self._visitors = door, False, 0
        self._calls: dict[threading.Thread, Call] = {}
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
                shut(listener)
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
        call = Call(self, connection)
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
