"""The program before a candidate: it leaves it with its own files and the system's, by Landlock.

Started by path, `python -S -E -I walls.py SPEC`; uses the standard library only. SPEC is JSON:
`argv`, `walled` (or none are put up), `read` and `write` (paths). Whoever is left with some paths
cannot get others back, and can neither look into processes that are not its own nor, from Linux
6.12 on, send them signals. What they leave open: that a path is there can still be asked.

Needs no right and no namespace, so it also stands inside swarm's own sandbox, where none can be
made any more.
"""

import ctypes
import json
import os
import struct
import sys
from collections.abc import Mapping
from typing import Any

SYS_LANDLOCK = 444
"""create_ruleset; add_rule and restrict_self follow it. The same on all machines."""
PR_SET_NO_NEW_PRIVS = 38
READ = 1 << 0 | 1 << 2 | 1 << 3  # execute, read files, read directories
FILE_ONLY = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 14
ALL = (1 << 15) - 1
"""Of version 3; what came later are devices, which nothing here gives out."""
NEEDED, NETWORK, SCOPES = 3, 4, 6
"""Versions: without the first (Linux 6.2) a file that may not be written can still be emptied."""
SYSTEM = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/nix/store"),
    *("/etc/alternatives", "/etc/ld.so.cache", "/etc/localtime", "/etc/ssl", "/etc/passwd"),
    *("/etc/group", "/etc/nsswitch.conf", "/sys/devices/system/cpu", "/proc/cpuinfo"),
    *("/proc/meminfo", "/dev/zero", "/dev/random", "/dev/urandom"),
)
DEVICES = ("/dev/null",)


def missing() -> str | None:
    """Say why there can be no walls here, or None."""
    if sys.platform != "linux":
        return f"{sys.platform} has no Landlock"
    version = _call(0, None, 0, 1)
    if version < NEEDED:
        return f"this kernel's Landlock is version {max(0, version)}, and {NEEDED} is needed"
    return None


def restrict(read: list[str], write: list[str]) -> None:
    """Leave this process, and all that come of it, with these paths only.

    Raises:
        OSError: the kernel refuses.
    """
    version = _call(0, None, 0, 1)
    network = 3 if version >= NETWORK else 0  # bind and connect
    scopes = 3 if version >= SCOPES else 0  # abstract sockets, and signals
    fields = (ALL, network, scopes)[: 3 if scopes else 2 if network else 1]
    attributes = struct.pack(f"{len(fields)}Q", *fields)
    rules = _done(_call(0, attributes, len(attributes), 0))
    for paths, access in ((read, READ), (write, ALL)):
        for path in paths:
            _allow(rules, path, access)
    libc = ctypes.CDLL(None, use_errno=True)
    _done(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _done(_call(2, rules, 0))
    os.close(rules)


def _allow(rules: int, path: str, access: int) -> None:
    try:
        handle = os.open(path, os.O_PATH)
    except OSError:
        return
    try:
        if not os.path.isdir(f"/proc/self/fd/{handle}"):
            access &= FILE_ONLY
        _done(_call(1, rules, 1, struct.pack("=QI", access, handle), 0))
    finally:
        os.close(handle)


def _call(number: int, *arguments: Any) -> int:
    return ctypes.CDLL(None, use_errno=True).syscall(SYS_LANDLOCK + number, *arguments)


def _done(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def main() -> int:
    """Put the walls up and become the candidate."""
    spec: Mapping[str, Any] = json.loads(sys.argv[1])
    if spec["walled"]:
        restrict([*SYSTEM, *spec["read"]], [*DEVICES, *spec["write"]])
    argv: list[str] = spec["argv"]
    try:
        os.execvp(argv[0], argv)
    except OSError as error:
        what = f"cannot run {argv[0]!r}: {error.strerror}"
        print(f"{what}; name the folder of a program with --read", file=sys.stderr)
        return 127


if __name__ == "__main__":
    sys.exit(main())
