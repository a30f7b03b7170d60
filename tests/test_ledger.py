"""The ledger: what was acknowledged is there, whatever happened, and nothing else is believed."""

from __future__ import annotations

import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from swarm.errors import LedgerError, RunInUseError
from swarm.ledger import Ledger, Tail, is_live, is_written, launched, read
from swarm.records import (
    AnyEvent,
    Attempt,
    Noun,
    Parked,
    Paused,
    Prepared,
    Proposal,
    Proposed,
    Resumed,
    Returned,
    Twin,
)

texts = st.text(st.characters(), max_size=8)  # surrogates and line ends of all kinds included
edits = st.dictionaries(texts, st.none() | st.integers() | texts, max_size=2)
proposals = st.builds(
    Proposal, base=texts, summary=texts, edit=st.none() | edits, files=st.tuples(texts)
)
anything: st.SearchStrategy[AnyEvent] = st.one_of(
    st.just(Paused()),
    st.just(Resumed()),
    st.builds(Parked, agent=texts, reason=texts),
    st.builds(Prepared, agent=texts, proposal=proposals),
)
batches = st.lists(anything, min_size=1, max_size=4)


def parked(n: int) -> Parked:
    return Parked(agent=f"a{n}", reason=f"reason {n}")


def filled(path: Path, count: int = 3) -> list[AnyEvent]:
    with Ledger(path) as ledger:
        return ledger.append([parked(n) for n in range(count)])


def child(code: str, *args: object) -> subprocess.Popen[str]:
    """Start a Python of its own that says a line when it is ready."""
    argv = [sys.executable, "-c", code, *map(str, args)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.jsonl"


@settings(max_examples=60, deadline=None)
@given(st.lists(batches, max_size=4))
def test_what_is_appended_is_read_back(all_batches: list[list[AnyEvent]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.jsonl"
        written: list[AnyEvent] = []
        with Ledger(path) as ledger:
            for batch in all_batches:
                written += ledger.append(batch)
        assert list(read(path)) == written
        assert [e.seq for e in written] == list(range(len(written)))
        assert all(e.at is not None and e.at.tzinfo is not None for e in written)
        assert path.read_bytes().count(b"\n") == len(written), "one line for each event"


def test_text_that_is_not_unicode_can_be_written(path: Path) -> None:
    """A file's name need not be UTF-8, and it must not end the run."""
    proposal = Proposal(base="b", summary="\ud800x", files=("\udcff.py",), edit={"\udcff": None})
    with Ledger(path) as ledger:
        [event] = ledger.append([Proposed(number=1, target="t", agent="a1", proposal=proposal)])
    assert isinstance(event, Proposed)
    assert event.proposal.summary == "?x"
    assert list(read(path)) == [event]


def test_appending_nothing_writes_nothing(path: Path) -> None:
    with Ledger(path) as ledger:
        assert ledger.append([]) == []
    assert path.read_bytes() == b""


def test_a_line_torn_at_any_byte_is_dropped_and_appending_goes_on(path: Path) -> None:
    first = filled(path)
    whole = path.read_bytes()
    start = whole.rindex(b"\n", 0, -1) + 1
    for cut in range(start, len(whole)):
        path.write_bytes(whole[:cut])
        assert list(read(path)) == first[:2], "readers leave it out"
        with Ledger(path) as ledger:
            assert path.read_bytes() == whole[:start]
            [new] = ledger.append([Paused()])
        assert new.seq == 2
        assert list(read(path)) == [*first[:2], new]


def test_a_tail_of_zeros_is_a_torn_line(path: Path) -> None:
    """A file system may grow a file before its data; after a power cut that reads as NULs."""
    first = filled(path)
    with open(path, "ab") as file:
        file.write(b"\0" * 4096)
    with Ledger(path) as ledger:
        ledger.append([Paused()])
    assert [e.seq for e in read(path)] == [0, 1, 2, 3]
    assert list(read(path))[:3] == first


@pytest.mark.parametrize("line", [1, 2, 3])
@pytest.mark.parametrize("damage", [b"", b"{}", b"\xff\xfe", b"[]", b'{"v":1,"kind":"nonsense"}'])
def test_damage_before_the_last_line_names_the_line(path: Path, line: int, damage: bytes) -> None:
    filled(path, 4)
    lines = path.read_bytes().splitlines()
    lines[line - 1] = damage
    broken = b"\n".join(lines) + b"\n"
    path.write_bytes(broken)
    for attempt in (lambda: Ledger(path), lambda: list(read(path))):
        with pytest.raises(LedgerError, match=f":{line}: not an event") as caught:
            attempt()
        assert caught.value.line == line
        assert caught.value.hint
    assert path.read_bytes() == broken, "a damaged ledger is left as it is"
    assert not is_live(path), "and is not held"


@pytest.mark.parametrize("order", [(0, 2, 3), (0, 1, 1, 2), (1, 0)])
def test_missing_doubled_and_swapped_lines_are_damage(path: Path, order: tuple[int, ...]) -> None:
    filled(path, 4)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[i] for i in order))
    with pytest.raises(LedgerError, match="stands where"):
        Ledger(path)


@pytest.mark.parametrize("extra", ["", ', "something_new": 1'])
def test_another_version_is_refused_naming_both(path: Path, extra: str) -> None:
    path.write_text(f'{{"v": 2, "seq": 0, "kind": "paused"{extra}}}\n')
    for attempt in (lambda: Ledger(path), lambda: list(read(path))):
        with pytest.raises(LedgerError, match="version 2; this swarm reads 1") as caught:
            attempt()
        assert caught.value.line == 1


def test_an_absent_ledger_is_said_to_be_absent(path: Path) -> None:
    with pytest.raises(LedgerError, match="does not exist"):
        list(read(path))
    assert list(Tail(path).poll()) == []
    assert not is_live(path)


def test_a_ledger_that_cannot_be_opened_is_a_ledger_error(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="cannot open"):
        Ledger(tmp_path / "absent" / "ledger.jsonl")
    (tmp_path / "ledger.jsonl").mkdir()
    with pytest.raises(LedgerError, match="cannot open"):
        Ledger(tmp_path / "ledger.jsonl")


# --- one writer ---------------------------------------------------------------------------------


def test_a_second_writer_is_refused_and_readers_are_not(path: Path) -> None:
    with Ledger(path) as ledger:
        with pytest.raises(RunInUseError, match="in use") as caught:
            Ledger(path)
        assert caught.value.exit_code == 3
        assert is_live(path)
        ledger.append([Paused()])
        assert len(list(read(path))) == 1
    assert not is_live(path)


def test_a_second_writer_waits_for_the_first_to_go(path: Path) -> None:
    first = Ledger(path)
    timer = threading.Timer(0.2, first.close)
    timer.start()
    with Ledger(path, wait_s=10) as second:
        assert second.append([Paused()])
    timer.join()


def test_a_run_lives_from_its_launch_on(path: Path) -> None:
    filled(path)
    with launched(path):
        assert (is_live(path), is_written(path)) == (True, False)
        with pytest.raises(RunInUseError, match="in use"), launched(path):
            pass
        with Ledger(path):
            assert is_written(path)
    assert not is_live(path)
    with launched(path):
        pass


def test_looking_whether_a_run_lives_never_looks_like_a_run(path: Path) -> None:
    filled(path)
    seen: list[bool] = []
    probes = [
        threading.Thread(target=lambda: seen.extend(is_live(path) for _ in range(200)))
        for _ in range(4)
    ]
    for probe in probes:
        probe.start()
    for probe in probes:
        probe.join()
    assert not any(seen)


HOLD = """
import sys, time
from pathlib import Path
from swarm.ledger import Ledger
from swarm.records import Paused
ledger = Ledger(Path(sys.argv[1]))
ledger.append([Paused()])
print("ready", flush=True)
time.sleep(60)
"""


def test_kill_9_gives_the_run_back(path: Path) -> None:
    with child(HOLD, path) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n"
        with pytest.raises(RunInUseError):
            Ledger(path)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with Ledger(path) as ledger:
        [event] = ledger.append([Resumed()])
    assert event.seq == 1, "what the killed one wrote is there"


# --- reading while it grows ---------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(batches, st.data())
def test_a_tail_gives_each_event_once_however_the_file_grows(
    batch: list[AnyEvent], data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source, path = Path(folder) / "source.jsonl", Path(folder) / "ledger.jsonl"
        with Ledger(source) as ledger:
            written = ledger.append(batch)
        whole = source.read_bytes()
        cuts = sorted(data.draw(st.sets(st.integers(0, len(whole)), max_size=6)) | {len(whole)})
        tail, seen, done = Tail(path), list[AnyEvent](), 0
        for cut in cuts:
            with open(path, "ab") as file:
                file.write(whole[done:cut])
            done = cut
            seen += tail.poll()
            assert seen == written[: whole[:cut].count(b"\n")]
        assert seen == written
        assert list(tail.poll()) == []


def test_a_tail_that_is_left_halfway_goes_on_there(path: Path) -> None:
    written = filled(path)
    tail = Tail(path)
    assert next(tail.poll()) == written[0]
    assert list(tail.poll()) == written[1:]


def test_a_tail_follows_a_living_writer(path: Path) -> None:
    written: list[AnyEvent] = []

    def write() -> None:
        with Ledger(path) as ledger:
            for n in range(60):
                written.extend(ledger.append([parked(n), Paused()]))

    writer = threading.Thread(target=write)
    tail, seen = Tail(path), list[AnyEvent]()
    writer.start()
    deadline = time.monotonic() + 30
    while len(seen) < 120 and time.monotonic() < deadline:
        seen += tail.poll()
    writer.join()
    assert seen == written


# --- a full disk --------------------------------------------------------------------------------

FILL = """
import resource, sys
from pathlib import Path
from swarm.errors import LedgerError
from swarm.ledger import Ledger, read
from swarm.records import Parked, Paused
path = Path(sys.argv[1])
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
ledger = Ledger(path)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
done = 0
try:
    while True:
        done += len(ledger.append([Parked(agent="a", reason="r" * 60)] * 3))
except LedgerError as error:
    print(error.kind, error.hint)
print(done, len(list(read(path))), path.read_bytes().endswith(b"\\n"))
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
print(ledger.append([Paused()])[0].seq)
"""


@pytest.mark.skipif(
    resource.getrlimit(resource.RLIMIT_FSIZE)[0] != resource.RLIM_INFINITY,
    reason="file sizes are limited already",
)
def test_a_write_that_fails_halfway_leaves_no_trace(path: Path) -> None:
    with child(FILL, path) as writer:
        output, _ = writer.communicate(timeout=60)
    said, counts, seq = output.splitlines()
    assert said.startswith("ledger raise the limit on file sizes")
    done, found, whole = counts.split()
    assert int(done) > 0
    assert (found, whole) == (done, "True"), "neither half a line nor half a batch"
    assert seq == done, "and the next write goes on from there"
    assert len(list(read(path))) == int(done) + 1


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if mount is None or umount is None:
        pytest.skip("no mount")
    argv = [mount, "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(place)]
    if subprocess.run(argv, capture_output=True, check=False).returncode:
        pytest.skip("not allowed to mount")
    yield place
    subprocess.run([umount, "-l", str(place)], check=True)


def test_a_full_disk_is_said_with_a_remedy_and_leaves_the_file_valid(tiny_disk: Path) -> None:
    path = tiny_disk / "ledger.jsonl"
    with Ledger(path) as ledger:
        written: list[AnyEvent] = []

        def fill() -> None:
            while True:
                written.extend(ledger.append([parked(1)] * 5))

        with pytest.raises(LedgerError, match="No space left") as caught:
            fill()
        assert caught.value.hint is not None
        assert "disk space" in caught.value.hint
        assert list(read(path)) == written
    with Ledger(path):
        assert list(read(path)) == written


# --- everything together ------------------------------------------------------------------------


class LedgerMachine(RuleBasedStateMachine):
    """Appends, crashes and comes back; what was acknowledged must stay."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.path = self.folder / "ledger.jsonl"
        self.ledger: Ledger | None = Ledger(self.path)
        self.tail = Tail(self.path)
        self.expected: list[AnyEvent] = []
        self.seen: list[AnyEvent] = []

    @precondition(lambda self: self.ledger is not None)
    @rule(batch=batches)
    def append(self, batch: list[AnyEvent]) -> None:
        assert self.ledger is not None
        self.expected += self.ledger.append(batch)

    @precondition(lambda self: self.ledger is not None)
    @rule(batch=batches, data=st.data())
    def crash_in_a_write(self, batch: list[AnyEvent], data: st.DataObject) -> None:
        """Die when only a part of a batch has reached the disk; nobody was told of it."""
        assert self.ledger is not None
        before = self.path.stat().st_size
        written = self.ledger.append(batch)
        self.ledger.close()
        self.ledger = None
        whole = self.path.read_bytes()
        cut = data.draw(st.integers(before, len(whole)))
        with open(self.path, "r+b") as file:
            file.truncate(cut)
        self.expected += written[: whole[before:cut].count(b"\n")]

    @precondition(lambda self: self.ledger is not None)
    @rule()
    def close(self) -> None:
        assert self.ledger is not None
        self.ledger.close()
        self.ledger = None

    @precondition(lambda self: self.ledger is None)
    @rule()
    def open(self) -> None:
        self.ledger = Ledger(self.path)

    @rule()
    def follow(self) -> None:
        self.seen += self.tail.poll()
        assert self.seen == self.expected

    @invariant()
    def all_that_was_acknowledged_is_there_in_order(self) -> None:
        events = list(read(self.path))
        assert events == self.expected
        assert [e.seq for e in events] == list(range(len(events)))

    def teardown(self) -> None:
        if self.ledger is not None:
            self.ledger.close()
        shutil.rmtree(self.folder)


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)


def nouns(kind: object, known: frozenset[object] = frozenset()) -> Iterator[type[Noun]]:
    """Give every noun that a type is made of; one may hold another of its own kind."""
    if isinstance(kind, type) and issubclass(kind, Noun) and kind not in known:
        yield kind
        for field in kind.model_fields.values():
            yield from nouns(field.annotation, known | {kind})
    for inner in get_args(kind):
        yield from nouns(inner, known)


def test_what_may_be_nothing_may_be_left_out() -> None:
    """A line leaves out what is None, and has to be read back."""
    found = set(nouns(AnyEvent))
    assert {Returned, Twin, Attempt} <= found
    for noun in found:
        for name, field in noun.model_fields.items():
            if type(None) in get_args(field.annotation):
                assert not field.is_required(), f"{noun.__name__}.{name}"
