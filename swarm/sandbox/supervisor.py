"""The program beside each slot: runs one command at a time and leaves no process behind.

Owns detaching from its owner, the descendants of a command, its clock, its memory and its output.
Knows nothing of swarm: it is started by path (`python -S -E -I supervisor.py FD GRACE`), uses the
standard library only, and is spoken to over the inherited socket FD in frames of a four byte
length and JSON. End of file on that socket means that the owner is gone, by SIGKILL too: then all
descendants are ended and the program leaves.

Being a child subreaper (Linux), it inherits every orphan below it, so "no child is left" says that
no descendant is left, whatever sessions they made. Elsewhere only the process group is ended.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import resource
import select
import signal
import sys
import time
from contextlib import suppress
from typing import Any, TypedDict

LINUX = sys.platform.startswith("linux")
PR_SET_CHILD_SUBREAPER = 36
KEYCTL = {"x86_64": 250, "aarch64": 219}
"""The number of the system call."""
CHUNK = 256 * 1024
ALIGN = 64 * 1024
"""Cuts in a capped log are moved to a line end that is at most this far away."""
STUBBORN_S = 5.0
"""A killed process can stay for ever in the kernel (a dead file server, a hung driver)."""
NAMED = 5
"""Most of those that are named."""
OURS = "cannot set the limits"
"""How a reason begins that is no fault of the command."""
OOM_SCORE_ADJ = 900
STATUS_FD = 3
STATUS_BYTES = 16 * 1024
FIRST_SAMPLE_S = 0.02
SLOWEST_SAMPLE_S = 0.25
CLOSE_LOOK_S = 0.5
PAGE = resource.getpagesize()
MAXRSS_UNIT = 1024 if LINUX else 1


class Order(TypedDict):
    """A command as it arrives."""

    argv: list[str]
    cwd: str
    env: dict[str, str]
    timeout_s: float
    log: str
    errors: str | None
    """Where stderr goes, when it does not go to the log too."""
    output_limit: int
    append: bool
    stdin: str | None
    walls: bool
    """Whether the program around it says on `STATUS_FD` that its walls stand."""
    memory: int | None
    """Bytes that we have to watch over, as the kernel does not."""
    processes: int | None
    file_size: int | None
    tasks: int | None
    """Most threads of this user, where the kernel is to keep to it by user."""
    joins: list[str]
    """Files of its cgroup, to which it writes itself. We stay outside: who is in it may wait long
    for memory that its crowd has taken."""
    memory_events: str | None
    """Where the kernel counts whom it has killed for memory in that cgroup, if it does."""


class OwnerGoneError(Exception):
    """The owner closed its end, died, or asked by signal to leave."""


# --- processes ---------------------------------------------------------------------------------


def read(path: str) -> bytes:
    """Read a small file of /proc; empty when the process is gone."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(fd, 65536)
    except OSError:
        return b""
    finally:
        os.close(fd)


def children(pid: int) -> list[int]:
    """List the children of all threads of a process; may miss some while they come and go."""
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []
    return [int(c) for t in tasks for c in read(f"/proc/{pid}/task/{t}/children").split()]


def parents() -> dict[int, int]:
    """Map every process to its parent, for kernels without /proc/.../children."""
    found: dict[int, int] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            stat = read(f"/proc/{name}/stat")
            # The name in parentheses may itself hold spaces and parentheses.
            fields = stat[stat.rfind(b")") + 2 :].split()
            if len(fields) > 1:
                found[int(name)] = int(fields[1])
    return found


def descendants(most: int | None = None) -> list[int]:
    """List all processes below this one, parents first, about `most` of them at the most.

    Empty where there is no /proc.
    """
    if not LINUX:
        return []
    of: dict[int, list[int]] | None = None
    if not HAS_CHILDREN:
        of = {}
        for pid, parent in parents().items():
            of.setdefault(parent, []).append(pid)
    found: list[int] = []
    queue = [os.getpid()]
    while queue and (most is None or len(found) <= most):
        pid = queue.pop(0)
        below = children(pid) if of is None else of.get(pid, [])
        found += below
        queue += below
    return found


HAS_CHILDREN = os.path.exists(f"/proc/self/task/{os.getpid()}/children")


def resident(pids: list[int]) -> int:
    """Sum the resident memory of processes, in bytes."""
    total = 0
    for pid in pids:
        fields = read(f"/proc/{pid}/statm").split()
        if len(fields) > 1:
            total += int(fields[1]) * PAGE
    return total


def share(pid: int) -> int:
    """Give the memory of a process in bytes, shared pages divided among those that share them."""
    rows = read(f"/proc/{pid}/smaps_rollup").splitlines()
    found = next((row for row in rows if row.startswith(b"Pss:")), None)
    return resident([pid]) if found is None else int(found.split()[1]) * 1024


def send_signal(pids: list[int], number: int) -> None:
    """Signal processes, ignoring those that are gone or not ours."""
    for pid in pids:
        with suppress(OSError):
            os.kill(pid, number)


class Brood:
    """The descendants of one command, and what those that ended have used."""

    def __init__(self) -> None:
        self.main: int | None = None
        self.status: int | None = None
        self.cpu_s = 0.0
        self.largest = 0
        """Largest single process, as the kernel saw it, in bytes."""

    def reap(self) -> bool:
        """Collect who has ended. True when nobody is left below this process."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return True
            if pid == 0:
                return False
            self.cpu_s += usage.ru_utime + usage.ru_stime
            self.largest = max(self.largest, usage.ru_maxrss * MAXRSS_UNIT)
            if pid == self.main:
                self.status = os.waitstatus_to_exitcode(status)

    def end(self, grace_s: float = 0.0) -> list[int]:
        """End every descendant; give the pids that could not be ended."""
        start = time.monotonic()
        if grace_s > 0:
            send_signal(descendants() or self._main(), signal.SIGTERM)
            while not self.reap() and time.monotonic() < start + grace_s:
                time.sleep(0.01)
        if self.main is not None and (self.status is None or not LINUX):
            # One atomic stroke for the whole group: what forks cannot slip through it. It is also
            # all that there is without /proc.
            with suppress(OSError):
                os.killpg(self.main, signal.SIGKILL)
        until = time.monotonic() + STUBBORN_S
        pause = 0.0002
        while not self.reap():
            self._strike(until)
            if time.monotonic() > until:
                return descendants() or self._main()
            time.sleep(pause)
            pause = min(2 * pause, 0.01)
        return []

    def _strike(self, until: float) -> None:
        """Kill all that is there, until a look finds nobody new.

        Nobody is reaped in between: the dead keep their places, and a bomb that a limit holds has
        none to fork into. Reaped one by one, it grows again as fast as it is cut.
        """
        struck: set[int] = set()
        while fresh := [p for p in descendants() or self._main() if p not in struck]:
            send_signal(fresh, signal.SIGKILL)
            struck.update(fresh)
            if time.monotonic() > until:
                return

    def _main(self) -> list[int]:
        return [self.main] if self.main is not None and self.status is None else []


class Guard:
    """Watches the limits of one command, as far as the kernel does not keep to them."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._killed = self._oom_kills()
        self._count = 0
        self.resident = 0
        """The most memory that its processes were seen to have together, in bytes."""

    def look(self) -> str | None:
        """Look once; name the limit that the command is over."""
        pids = descendants(self._order["processes"])
        grows, self._count = len(pids) > self._count, len(pids)
        now = resident(pids)
        self.resident = max(self.resident, now)
        processes, memory = self._order["processes"], self._order["memory"]
        if processes is not None and len(pids) > processes:
            return "processes"
        if self._oom_kills() > self._killed:
            return "memory"  # who waits for the one that was killed would wait till the timeout
        # Pages that a thousand forks share are one page: looked at closely only when it matters,
        # and not in a crowd that grows. Who forks keeps its memory map locked, and a reader waits
        # for seconds where hundreds fork; it will be too many soon, or hold still.
        if memory is not None and now > memory and not grows and takes_more(pids, memory):
            return "memory"
        return None

    def _oom_kills(self) -> int:
        """Count whom the kernel has killed for memory in the cgroup of the command, ever."""
        for row in read(self._order["memory_events"] or "").splitlines():
            if row.startswith(b"oom_kill "):
                return int(row.split()[1])
        return 0


def takes_more(pids: list[int], most: int) -> bool:
    """Tell whether processes take more than `most` bytes, shared pages divided among the sharers.

    The largest come first, and it is a short look: reading takes long where much is mapped.
    """
    until, total = time.monotonic() + CLOSE_LOOK_S, 0
    for pid in sorted(pids, key=lambda pid: resident([pid]), reverse=True):
        total += share(pid)
        if total > most or time.monotonic() > until:
            break
    return total > most


# --- output ------------------------------------------------------------------------------------


class Spool:
    """A log file that keeps the first and the last half of its limit, and says what it left out.

    The first half reaches the file at once; the last half waits in memory until the end.
    """

    def __init__(self, path: str, limit: int, append: bool) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._fd = os.open(path, flags | (0 if append else os.O_TRUNC), 0o644)
        self._size = self._line_end = os.lseek(self._fd, 0, os.SEEK_END)
        self._head_left = limit - limit // 2
        self._keep = limit // 2
        self._tail = bytearray()
        self.dropped = 0
        self.problem: str | None = None

    def feed(self, data: bytes) -> None:
        """Take the next piece of output."""
        head, rest = data[: self._head_left], data[self._head_left :]
        if head:
            self._head_left -= len(head)
            end = max(head.rfind(b"\n"), head.rfind(b"\r")) + 1
            if end:
                self._line_end = self._size + end
            self._write(head)
        self._tail += rest
        if len(self._tail) > 2 * self._keep:
            self._trim(len(self._tail) - self._keep)

    def close(self) -> None:
        """Write the last half, after a marker when something lies between."""
        if len(self._tail) > self._keep:
            self._trim(len(self._tail) - self._keep)
        if self.dropped:
            self._align()
            newline = "" if self._line_end == self._size else "\n"
            marker = f"{newline}[swarm: {self.dropped} bytes of output left out]\n"
            self._write(marker.encode())
        self._write(bytes(self._tail))
        os.close(self._fd)

    def _trim(self, count: int) -> None:
        del self._tail[:count]
        self.dropped += count

    def _align(self) -> None:
        # Half a line must not pass for a whole one: `loss: 0.98` cut to `loss: 0.9` is a number.
        if 0 < self._size - self._line_end <= ALIGN:
            self.dropped += self._size - self._line_end
            os.ftruncate(self._fd, self._line_end)
            self._size = self._line_end
        ends = [e for e in (self._tail.find(c, 0, ALIGN) for c in (b"\n", b"\r")) if e >= 0]
        if ends:
            self._trim(min(ends) + 1)

    def _write(self, data: bytes) -> None:
        # After a failure (a full disk) output is still drained, so that the command goes on.
        view = memoryview(data)
        while view and self.problem is None:
            try:
                count = os.write(self._fd, view)
            except OSError as error:
                self.problem = f"cannot write the log: {error.strerror}"
                return
            self._size += count
            view = view[count:]


class Outlet:
    """A pipe from a command to a log file."""

    def __init__(self, path: str, order: Order) -> None:
        self.spool = Spool(path, order["output_limit"], order["append"])
        self.end, self.inlet = os.pipe()
        os.set_blocking(self.end, False)
        widen(self.end)

    def pump(self) -> bool:
        """Move what is there, at most one chunk. False at the end of the output."""
        try:
            data = os.read(self.end, CHUNK)
        except BlockingIOError:
            return True
        self.spool.feed(data)
        return bool(data)

    def drain(self) -> None:
        """Move all that is left. Its writers are dead, so what is there now is all."""
        try:
            while data := os.read(self.end, CHUNK):
                self.spool.feed(data)
        except BlockingIOError:
            pass

    def close(self) -> None:
        """Close the pipe and write the rest of the log."""
        os.close(self.end)
        self.spool.close()


def said_on(status: int) -> str:
    """Read what was said on a status descriptor whose writers are dead, and close it."""
    os.set_blocking(status, False)
    try:
        return os.read(status, STATUS_BYTES).decode("utf-8", "replace")
    except BlockingIOError:
        return ""
    finally:
        os.close(status)


def paths(order: Order) -> list[str]:
    """Give the log of stdout and that of stderr; one path if they are the same."""
    return [order["log"]] if order["errors"] is None else [order["log"], order["errors"]]


def widen(pipe: int) -> None:
    """Let a talkative command run ahead, so that its time is its own."""
    if LINUX:
        with suppress(OSError):
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 4 * CHUNK)


# --- starting a command ------------------------------------------------------------------------


def spawn(order: Order, output: int, errors: int, status: int | None) -> tuple[int, str]:
    """Fork and execute; give the pid and, if the program could not be executed, the reason."""
    report, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            become(order, output, errors, status)
        except BaseException as error:
            os.write(told, str(error).encode("utf-8", "replace")[:4000])
        finally:
            os._exit(127)
    os.close(told)
    reason = bytearray()
    # The pipe closes by itself when the program is executed.
    while piece := os.read(report, 4096):
        reason += piece
    os.close(report)
    return pid, reason.decode("utf-8", "replace")


def become(order: Order, output: int, errors: int, status: int | None) -> None:
    """Turn this forked process into the command. Returns only by an exception.

    All other descriptors close on execution: Python opens everything that way.
    """
    os.setsid()
    leave_keyring()
    signal.set_wakeup_fd(-1)
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(ignored, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    source = order["stdin"] or os.devnull
    try:
        os.dup2(os.open(source, os.O_RDONLY), 0)
    except OSError as error:
        raise RuntimeError(f"cannot open {source!r}: {error.strerror}") from None
    os.dup2(output, 1)
    os.dup2(errors, 2)
    if status is not None:
        # The pipe's own end may have this very number, and is closed on execution then.
        os.dup2(os.dup(status), STATUS_FD)
    try:
        os.chdir(order["cwd"])
    except OSError as error:
        raise RuntimeError(f"cannot enter {order['cwd']!r}: {error.strerror}") from None
    try:
        confine(order)
    except (OSError, ValueError) as error:
        raise RuntimeError(f"{OURS} of the command: {error}") from None
    execute(order["argv"], order["env"])


def leave_keyring() -> None:
    """Take an empty session keyring: the user's holds tickets, and would carry notes from one
    command to the next.
    """
    number = KEYCTL.get(os.uname().machine) if LINUX else None
    if number is not None:
        ctypes.CDLL(None).syscall(number, 1, None)  # KEYCTL_JOIN_SESSION_KEYRING


def confine(order: Order) -> None:
    """Set the limits that the kernel keeps for each process, and for all of them together."""
    for path in order["joins"]:
        with open(path, "w") as file:
            file.write("0")
    if LINUX:
        # When memory runs out, the kernel is to end the command and neither us nor others.
        with suppress(OSError), open("/proc/self/oom_score_adj", "r+") as file:
            if int(file.read()) < OOM_SCORE_ADJ:
                file.write(str(OOM_SCORE_ADJ))
    if order["tasks"] is not None:
        hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
        most = order["tasks"] if hard == resource.RLIM_INFINITY else min(order["tasks"], hard)
        resource.setrlimit(resource.RLIMIT_NPROC, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    limit, (_, hard) = order["file_size"], resource.getrlimit(resource.RLIMIT_FSIZE)
    if limit is not None:
        most = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))


def execute(argv: list[str], env: dict[str, str]) -> None:
    """Execute a program by path, or by name along the PATH of the given environment."""
    name = argv[0]
    if "/" in name:
        paths = [name]
    else:
        paths = [os.path.join(d, name) for d in env.get("PATH", os.defpath).split(os.pathsep)]
    reason = os.strerror(errno.ENOENT)
    for path in paths:
        try:
            os.execve(path, argv, env)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            reason = error.strerror
        except ValueError as error:
            reason = str(error)
    raise RuntimeError(f"cannot run {name!r}: {reason}")


# --- one command -------------------------------------------------------------------------------


class Supervisor:
    """Serves one owner: a command, its answer, the next command."""

    def __init__(self, control: int, grace_s: float) -> None:
        self._control = control
        self._grace_s = grace_s
        self._brood = Brood()
        self._leaving = False
        self._own_rss = 0
        self._wake, wake_in = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(wake_in, False)
        signal.set_wakeup_fd(wake_in, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, self._note)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._leave)

    def serve(self) -> None:
        """Answer the owner until it is gone; then end whatever still runs."""
        try:
            self._send({"pid": os.getpid()})
            while True:
                poll = select.poll()
                poll.register(self._control, select.POLLIN)
                poll.register(self._wake, select.POLLIN)
                if self._control in self._wait(poll, None):
                    message = self._receive()
                    # A cancellation that crossed with the answer finds nothing to cancel.
                    if message["op"] == "run":
                        self._send(self._run(message["order"]))
        except (OwnerGoneError, BrokenPipeError):
            pass
        finally:
            self._brood.end(self._grace_s)

    def _run(self, order: Order) -> dict[str, Any]:
        self._brood = brood = Brood()
        # Memory that a forked child still shared with this process counts as its own maximum.
        self._own_rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MAXRSS_UNIT
        answer: dict[str, Any] = {"status": None, "error": None, "unstarted": False, "walls": ""}
        answer["spent"] = False
        outlets: list[Outlet] = []
        for path in paths(order):
            try:
                outlets.append(Outlet(path, order))
            except OSError as error:
                for outlet in outlets:
                    os.close(outlet.inlet)
                    outlet.close()
                return answer | {"error": f"cannot write the log {path!r}: {error.strerror}"}
        told, tell = os.pipe() if order["walls"] else (None, None)
        try:
            brood.main, reason = spawn(order, outlets[0].inlet, outlets[-1].inlet, tell)
        except OSError as error:
            for outlet in outlets:
                outlet.close()
            if told is not None:
                os.close(told)
            # Something of an earlier command is in the way, perhaps: with another of us it is not.
            return answer | {"error": f"cannot fork: {error.strerror}", "spent": True}
        finally:
            for inlet in (*(outlet.inlet for outlet in outlets), *((tell,) if tell else ())):
                os.close(inlet)
        guard, start = Guard(order), time.monotonic()  # it has just become the command
        try:
            ending = self._watch(brood, outlets, guard, start + order["timeout_s"])
            seconds = time.monotonic() - start
            stubborn = brood.end()
            for outlet in outlets:
                outlet.drain()
        finally:
            for outlet in outlets:
                outlet.close()
        problems = [outlet.spool.problem for outlet in outlets if outlet.spool.problem]
        error = reason or (problems[0] if problems else None)
        if stubborn:
            more = f" and {len(stubborn) - NAMED} more" if len(stubborn) > NAMED else ""
            error = f"cannot end process {', '.join(map(str, stubborn[:NAMED]))}{more}"
        return answer | {
            "spent": bool(stubborn),
            "status": None if reason else brood.status,
            "timed_out": ending == "timeout",
            "cancelled": ending == "cancel",
            "over": ending if ending in ("memory", "processes") else None,
            "walls": "" if told is None else said_on(told),
            "seconds": 0.0 if reason else seconds,
            "cpu_seconds": 0.0 if reason else brood.cpu_s,
            "peak_memory_mb": 0.0 if reason else self._peak(guard.resident) / 2**20,
            "truncated": any(outlet.spool.dropped for outlet in outlets),
            "error": error,
            "unstarted": bool(reason) and not reason.startswith(OURS),
        }

    def _watch(self, brood: Brood, outlets: list[Outlet], guard: Guard, deadline: float) -> str:
        """Wait for the end of the main process, and say why it is over."""
        poll = select.poll()
        open_ends = {outlet.end: outlet for outlet in outlets}
        for fd in (self._control, self._wake, *open_ends):
            poll.register(fd, select.POLLIN)
        start = time.monotonic()
        next_sample = start + FIRST_SAMPLE_S
        while True:
            now = time.monotonic()
            if now >= deadline:
                return "timeout"
            if now >= next_sample:
                spent = time.thread_time()
                if (limit := guard.look()) is not None:
                    return limit
                cost = time.thread_time() - spent
                pace = max(FIRST_SAMPLE_S, (now - start) / 10, 20 * cost)
                next_sample = now + min(pace, max(SLOWEST_SAMPLE_S, 5 * cost))
            ready = self._wait(poll, min(deadline, next_sample))
            for end in ready & open_ends.keys():
                if not open_ends[end].pump():
                    poll.unregister(end)
            if self._wake in ready:
                brood.reap()
            if brood.status is not None:
                return "exit"
            if self._control in ready:
                self._receive()  # the only message in mid-command is a cancellation
                return "cancel"

    def _peak(self, sampled: int) -> int:
        largest = self._brood.largest
        return sampled if sampled and largest <= self._own_rss else max(sampled, largest)

    def _wait(self, poll: select.poll, until: float | None) -> set[int]:
        limit_ms = None if until is None else max(0.0, until - time.monotonic()) * 1000
        # Rounded up by poll itself; days are cut to what fits into a C int.
        ready = {fd for fd, _ in poll.poll(None if limit_ms is None else min(limit_ms, 2**30))}
        if self._wake in ready:
            with suppress(BlockingIOError):
                os.read(self._wake, 4096)
        if self._leaving:
            raise OwnerGoneError
        return ready

    def _leave(self, *_: object) -> None:
        self._leaving = True

    def _note(self, *_: object) -> None:
        """Do nothing: that there is a handler makes the signal reach the wake-up pipe."""

    def _receive(self) -> dict[str, Any]:
        return json.loads(self._exactly(int.from_bytes(self._exactly(4), "big")))

    def _exactly(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            piece = os.read(self._control, count - len(data))
            if not piece:
                raise OwnerGoneError
            data += piece
        return bytes(data)

    def _send(self, message: dict[str, Any]) -> None:
        body = json.dumps(message).encode()
        view = memoryview(len(body).to_bytes(4, "big") + body)
        while view:
            view = view[os.write(self._control, view) :]


def detach() -> None:
    """Become nobody's child: what ends the owner's children must not end this process."""
    if os.fork():
        os._exit(0)
    os.setsid()
    # What the launcher ignores (nohup: SIGHUP) would be ignored by every command.
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE}:
        try:
            signal.signal(number, signal.SIG_DFL)
        except OSError:
            continue
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    if LINUX:
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def main() -> None:
    """Serve on the descriptor given as the first argument."""
    control, grace_s = int(sys.argv[1]), float(sys.argv[2])
    os.set_inheritable(control, False)
    detach()
    Supervisor(control, grace_s).serve()


if __name__ == "__main__":
    main()
