"""The program before a command that may ask models and has no network: it hands out a door to it.

Started by path inside the sandbox, `python -S -E -I door.py DOOR PORT -- ARGV...`; standard library
only. It listens on 127.0.0.1:PORT in its own network, sends the listening socket to the unix socket
DOOR, and becomes ARGV. A socket belongs to the network in which it was made, so whoever takes it
answers from outside what the command asks on its own loopback, and no process stays in between.
"""

from __future__ import annotations

import array
import os
import signal
import socket
import sys
from contextlib import suppress

WORD = b"swarm-door"
WAIT_S = 10.0


def hand_out(door: str, port: int) -> None:
    """Listen, and give the socket away."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(128)
        # By way of its directory: the path of a socket has 107 bytes at most.
        folder = os.open(os.path.dirname(door), os.O_PATH)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
                link.settimeout(WAIT_S)
                link.connect(f"/proc/self/fd/{folder}/{os.path.basename(door)}")
                rights = array.array("i", [listener.fileno()])
                link.sendmsg([WORD], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
                link.recv(2)
        finally:
            os.close(folder)


def main() -> None:
    """Hand out the door, then become the command."""
    door, port, argv = sys.argv[1], int(sys.argv[2]), sys.argv[4:]
    try:
        hand_out(door, port)
    except OSError as error:
        print(f"swarm: no way to the models: {error}", file=sys.stderr, flush=True)
    # What Python ignores would be ignored by the command; what it has set is not the command's.
    with open("/proc/self/environ", "rb") as given:
        if b"LC_CTYPE=" not in given.read():
            os.environ.pop("LC_CTYPE", None)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        with suppress(OSError):
            signal.signal(number, signal.SIG_DFL)
    try:
        os.execvp(argv[0], argv)
    except OSError as error:
        print(f"swarm: cannot run {argv[0]!r}: {error.strerror}", file=sys.stderr, flush=True)
        os._exit(127)


if __name__ == "__main__":
    main()
