"""The program of the rung `landlock`: namespaces and Landlock around one command.

Started by path, `python -S -E -I confine.py SPEC`, with the command's own environment; uses the
standard library only. SPEC is JSON: `argv`, `cwd`, `read` and `write` (paths), `devices`, `tmp`
(bytes or null), `network`, `home`, `locale` (whether `LC_CTYPE` is the command's), and `status`,
a descriptor on which `{"stand": true}` is written once all walls do. Its exit status is the
command's, or 128 + the signal that ended it.

Three processes: the outermost waits; the first of the new pid namespace reaps, and takes everybody
along when it ends; the third becomes the command. It cannot do away with file names: what may not
be read can still be asked for by `stat`. Nor with sockets that have one.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import socket
import struct
import sys
from contextlib import suppress
from typing import Any, NoReturn

NEWNS, NEWCGROUP, NEWUTS, NEWIPC = 0x00020000, 0x02000000, 0x04000000, 0x08000000
NEWUSER, NEWPID, NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND = 1, 2, 4, 8, 32, 4096
MS_NOATIME, MS_NODIRATIME, MS_REC, MS_PRIVATE, MS_RELATIME = 1024, 2048, 16384, 1 << 18, 1 << 21
PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 1, 24, 38, 47
SYS_CAPSET = {"x86_64": 126, "aarch64": 91}
SYS_LANDLOCK = 444
"""create_ruleset; add_rule and restrict_self follow it. The same on all machines."""
READ = 1 << 0 | 1 << 2 | 1 << 3  # execute, read files, read directories
FILE_ONLY = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 14 | 1 << 15
TRUNCATE_ABI = 3
"""Without it (Linux 6.2) a file that may not be written can still be emptied."""
ALL = {3: (1 << 15) - 1, 4: (1 << 15) - 1}
PLAIN_DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts")

libc = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str) -> int:
    """Turn a failed call into an OSError that says what failed."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def mount(source: str, target: str, kind: str | None, flags: int, data: str = "") -> None:
    """Mount a file system, or say what is wrong."""
    fs = None if kind is None else kind.encode()
    args = (os.fsencode(source), os.fsencode(target), fs, ctypes.c_ulong(flags), data.encode())
    check(libc.mount(*args), f"mount {target}")


# --- namespaces --------------------------------------------------------------------------------


def separate(network: bool) -> None:
    """Leave all namespaces, as the same user as before."""
    uid, gid = os.geteuid(), os.getegid()
    kinds = NEWUSER | NEWNS | NEWPID | NEWIPC | NEWUTS | NEWCGROUP
    check(libc.unshare(kinds | (0 if network else NEWNET)), "unshare")
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{uid} {uid} 1"),
        ("gid_map", f"{gid} {gid} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    socket.sethostname("swarm")


def furnish(spec: dict[str, Any]) -> None:
    """Give the new mount namespace its own /proc, /tmp and /dev/shm."""
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    for place in ("/tmp", "/dev/shm"):
        kept = [(p, os.open(p, os.O_PATH)) for p in shared(spec, place)]
        size = "" if spec["tmp"] is None else f",size={spec['tmp']}"
        mount("tmpfs", place, "tmpfs", MS_NOSUID | MS_NODEV, f"mode=1777{size}")
        for path, handle in sorted(kept, key=lambda row: row[0].count("/")):
            rebind(path, handle, writable=path in spec["write"])
            os.close(handle)
    if spec["home"].startswith("/tmp/"):
        os.makedirs(spec["home"], mode=0o700, exist_ok=True)
    if not spec["network"]:
        with suppress(OSError):
            raise_loopback()


def shared(spec: dict[str, Any], place: str) -> list[str]:
    """List the paths that the command may use below a place that is about to be hidden."""
    paths = dict.fromkeys([*spec["read"], *spec["write"]])
    return [p for p in paths if p.startswith(f"{place}/") and os.path.lexists(p)]


def rebind(path: str, handle: int, *, writable: bool) -> None:
    """Put an open file or directory back to its path.

    Landlock's rule for /tmp holds for all that is mounted below it, so the mount has to refuse.
    """
    source = f"/proc/self/fd/{handle}"
    if os.path.isdir(source):
        os.makedirs(path, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    mount(source, path, None, MS_BIND | MS_REC)
    if not writable:
        flags = os.statvfs(path).f_flag
        kept = flags & (MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME | MS_NODIRATIME)
        kept |= MS_RELATIME if flags & os.ST_RELATIME else 0
        mount("none", path, None, MS_REMOUNT | MS_BIND | MS_RDONLY | kept)


def raise_loopback() -> None:
    """Bring the loopback interface up."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, 0x8914, struct.pack("16sH14s", b"lo", 0x1 | 0x40, b""))  # SIOCSIFFLAGS


# --- Landlock ----------------------------------------------------------------------------------


def version() -> int:
    """Give the kernel's version of Landlock, 0 if it has none."""
    return max(0, libc.syscall(SYS_LANDLOCK, None, 0, 1))


def restrict(spec: dict[str, Any]) -> None:
    """Leave this process, and all that come of it, with the given paths only."""
    abi = version()
    if abi < TRUNCATE_ABI:
        raise OSError(0, f"this kernel's Landlock is version {abi}, and {TRUNCATE_ABI} is needed")
    everything = ALL.get(abi, (1 << 16) - 1)
    # Abstract sockets and signals reach beyond no wall of files.
    fields = [everything, 0, 3 if abi >= 6 else 0][: 3 if abi >= 6 else 1]
    attr = struct.pack(f"{len(fields)}Q", *fields)
    rules = check(libc.syscall(SYS_LANDLOCK, attr, len(attr), 0), "landlock_create_ruleset")
    for path in spec["read"]:
        allow(rules, path, READ)
    for path in ("/proc", "/dev"):
        allow(rules, path, READ)
    for path in (*spec["write"], "/tmp", "/dev/shm"):
        allow(rules, path, everything & ~(1 << 15))
    for path in (*(f"/dev/{name}" for name in PLAIN_DEVICES), *spec["devices"]):
        allow(rules, path, everything)
    check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    check(libc.syscall(SYS_LANDLOCK + 2, rules, 0), "landlock_restrict_self")
    os.close(rules)


def allow(rules: int, path: str, access: int) -> None:
    """Add a rule for a path, if it is there."""
    try:
        handle = os.open(path, os.O_PATH)
    except OSError:
        return
    try:
        if not os.path.isdir(f"/proc/self/fd/{handle}"):
            access &= FILE_ONLY
        rule = struct.pack("=QI", access, handle)
        check(libc.syscall(SYS_LANDLOCK + 1, rules, 1, rule, 0), f"landlock_add_rule {path}")
    finally:
        os.close(handle)


def drop_capabilities() -> None:
    """Give up what the new user namespace has given."""
    libc.prctl(PR_CAP_AMBIENT, 4, 0, 0, 0)
    for number in range(64):
        if libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0) != 0:
            break
    header, data = struct.pack("=Ii", 0x20080522, 0), struct.pack("=6I", *[0] * 6)
    check(libc.syscall(SYS_CAPSET[os.uname().machine], header, data), "capset")


# --- three processes ---------------------------------------------------------------------------


def become(spec: dict[str, Any]) -> NoReturn:
    """Turn this process into the command."""
    os.chdir(spec["cwd"])
    restrict(spec)
    drop_capabilities()
    # What Python ignores would be ignored by the command; what it has set is not the command's.
    if not spec["locale"]:
        os.environ.pop("LC_CTYPE", None)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    status: int = spec["status"]
    os.set_inheritable(status, False)
    os.write(status, b'{"stand": true}\n')
    argv: list[str] = spec["argv"]
    try:
        os.execvp(argv[0], argv)
    except OSError as error:
        report(status, {"unstarted": f"cannot run {argv[0]!r}: {error.strerror}"})
        os._exit(127)


def first(spec: dict[str, Any]) -> int:
    """Be the first process of the namespace: reap until the command has ended."""
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    furnish(spec)
    command = os.fork()
    if command == 0:
        run(spec["status"], lambda: become(spec))
    os.close(spec["status"])
    while True:
        pid, status = os.wait()
        if pid == command:
            return exit_code(status)


def run(status: int, work: Any) -> NoReturn:
    """Do the work of a forked process, and tell why it failed."""
    try:
        os._exit(work())
    except BaseException as error:
        report(status, {"error": str(error)})
        os._exit(1)


def report(status: int, message: dict[str, str]) -> None:
    """Tell whoever holds the other end of the status descriptor."""
    with suppress(OSError):
        os.write(status, json.dumps(message).encode() + b"\n")


def exit_code(status: int) -> int:
    """Give the exit status that says how a process ended, as a shell does."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def main() -> int:
    """Run the command that the first argument describes."""
    spec = json.loads(sys.argv[1])
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    try:
        separate(spec["network"])
        child = os.fork()
    except OSError as error:
        report(spec["status"], {"error": str(error)})
        return 1
    if child == 0:
        run(spec["status"], lambda: first(spec))
    os.close(spec["status"])
    _, status = os.waitpid(child, 0)
    return exit_code(status)


if __name__ == "__main__":
    sys.exit(main())
