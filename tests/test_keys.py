"""Keys stay where they belong: whole runs on Ray with planted keys, and a look everywhere.

The provider repeats the key in its errors, a model writes it wherever it can, a program prints its
token, and what is measured looks into every process of its own run. One place is known to be open
to a candidate without a container: the process of a program that proposes has its token in its
environment while it runs. Even from there it gets into no file.
"""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil
import pytest
from messages_server import Json, MessagesServer, Reply, call, said, texts, turns
from model import agent_of, searcher
from targets import PARTS, check_nobody_left, git, make_repo, measure_by_hand
from test_ray import events_of, pid_of
from test_search import CONFIG, KEY, Freeze, check_spend, usd

from swarm.keys import BLOT
from swarm.records import Decided, Parked, Proposed, Spent, Started
from swarm.rundir import RunDir
from swarm.state import RunState

pytestmark = [pytest.mark.ray, pytest.mark.timeout(200)]

TOKEN = "tok-very-secret-9876543210"
OTHER = "sk-ant-another-0123456789abcdef"
"""A key that the provider does not take."""
PLANTED = {"ANTHROPIC_API_KEY": KEY, "OTHER_KEY": OTHER, "MY_TOKEN": TOKEN}


@pytest.fixture
def top(tmp_path: Path) -> Path:
    return make_repo(tmp_path / "repo")


@pytest.fixture(autouse=True)
def gone() -> Iterator[None]:
    """Afterwards nothing of the run may be alive; a launch that a failed test left is ended."""
    yield
    while LAUNCHED:
        with LAUNCHED.pop() as process:
            process.kill()
    check_nobody_left()


LAUNCHED: list[subprocess.Popen[str]] = []


def launch(top: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "swarm", "launch", str(top.parent / "toy.yaml")],
        cwd=top,
        env={**os.environ, **PLANTED},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    LAUNCHED.append(process)
    return process


def swarm(top: Path, *words: str) -> str:
    argv = [sys.executable, "-m", "swarm", *words]
    done = subprocess.run(argv, cwd=top, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def rundir_of(top: Path) -> RunDir:
    return RunDir(top / ".swarm" / "runs" / "toy")


def program(top: Path, name: str, body: str) -> Path:
    """Write a program of the user's."""
    path = top.parent / name
    path.write_text(f"#!{sys.executable} -SE\n{body}")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


# --- a run in which everybody tells ---------------------------------------------------------------

PRY = """
import json, math, os, sys
values = {}
for name in sorted(os.listdir("parts")):
    exec(open(f"parts/{name}").read(), {}, values)

def pry(pid):
    try:
        return open(f"/proc/{pid}/environ", "rb").read().decode("utf-8", "replace")
    except OSError:
        return ""

print("OWN", json.dumps(dict(os.environ)))
chain, pid = set(), os.getpid()
while pid > 1:
    chain.add(pid)
    pid = int(open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[1])
for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
    try:
        words = open(f"/proc/{pid}/cmdline").read().replace("\\0", " ")[:300]
    except OSError:
        continue
    found = pry(pid)
    if pid in chain or SCRATCH in found + words or "supervisor.py" in words:
        print("PROCESS", json.dumps([pid, words, found]))
print(f"METRIC loss={1.0 + sum(math.log(v / 2.0) ** 2 for v in values.values())!r}")
"""

TELLING = """
groups:
  - count: 2
    proposer:
      kind: messages
      model: scripted
      key: ANTHROPIC_API_KEY
      base_url: {url}
      prices: {{input: 3, output: 15}}
  - proposer:
      kind: messages
      model: refused
      key: OTHER_KEY
      base_url: {url}
      prices: {{input: 3, output: 15}}
  - count: 2
    proposer: {{kind: headless, cli: [{program}], env: [MY_TOKEN]}}
"""

BLABBER = """
import os, sys, time, zlib
token = os.environ["MY_TOKEN"]
dice = zlib.crc32(sys.stdin.read().encode())
turn = dice % 6
print("my token is", token)
print("my token is", token, file=sys.stderr)
time.sleep(0.5)  # so that what is measured can look at this process
if turn == 0:
    sys.exit(f"{'x' * (600 - len(token) // 2)}{token}")
if turn == 1:
    open(f"parts/{token}.py", "w").write("SPARE = 2.0\\n")
elif turn == 2:
    open("parts/c.py", "a").write(f"# {token}\\n")
elif turn == 3:
    os.symlink(token, "parts/link.py")
else:
    value = 0.1 + dice % 1000 / 500
    open("parts/c.py", "w").write(f"GAMMA = {value}\\n")
print("x" * (200 - len(token) // 2) + token)
print(f"{token} it is: GAMMA {token}")
"""


KINDS = {"a1": 3, "a2": 0}
"""With which of its five ways an agent's model begins."""


def teller(begun: dict[str, int], request: Json) -> Reply:
    """A model that knows the key, and writes it everywhere; `begun` counts its conversations."""
    told = texts(request["messages"][0]["content"])
    turn, agent = turns(request), agent_of(request)
    if request["model"] == "refused":
        return Reply.failing(401, f"invalid x-api-key {OTHER}")
    if "ZeroDivisionError" in told and "call `skip`" in told:
        return Reply.calling("skip", reason=f"{'k' * (200 - len(KEY) // 2)}{KEY}")
    begun[agent] = begun.get(agent, KINDS[agent] - 1) + (not turn)
    kind = begun[agent] % 5
    submit = Reply.calling(
        "submit",
        summary=f"try {kind}: {KEY} {'s' * 150}{KEY}",
        rationale=f"{'r' * (4000 - len(KEY) // 2)}{KEY}",
    )
    if turn:
        return Reply.failing(400, f"enough, says {KEY}") if kind == 2 or turn > 3 else submit
    path = f"parts/{'ab'[int(agent[1:]) % 2]}.py"
    number = 0.5 + hash_of(told) % 4000 / 1000
    files = {path: f"ALPHA = {number}\n"}
    if kind == 0:
        files = {path: f"ALPHA = 1.0  # {KEY}\n"}
    if kind == 1:
        files = {f"parts/{KEY}.py": "SPARE = 1.0\n"}
    if kind == 3:
        files = {path: f"ALPHA = {number}\n1 / 0\n"}
    calls = [call("write_file", {"path": p, "content": text}) for p, text in files.items()]
    odd = call(f"tool_{KEY}", {KEY: KEY})
    return Reply((said(f"The key is {KEY}."), odd, *calls))


def hash_of(text: str) -> int:
    return zlib.crc32(text.encode())


def test_keys_are_nowhere_but_where_they_are_needed(tmp_path: Path) -> None:
    scratch = os.environ["SWARM_SCRATCH"]
    measure = f"SCRATCH = {scratch!r}\n{PRY}"
    top = make_repo(
        tmp_path / "repo", {"measure.py": measure, **{f"parts/{n}": t for n, t in PARTS.items()}}
    )
    blabber = program(top, "blabber", BLABBER)
    with MessagesServer(partial(teller, {})) as server:
        text = CONFIG.format(repo="repo", url=server.url, experiments=20)
        agents = TELLING.format(url=server.url, program=blabber).replace("groups:", "agents:")
        before, _, after = text.partition("agents:")
        text = before.strip() + "\n" + agents.strip() + "\njudge:" + after.partition("judge:")[2]
        # Behind walls a candidate sees nobody's process, and could not look for keys here.
        (tmp_path / "toy.yaml").write_text(f"{text}\nsandbox: off\n")
        process = launch(top)
        alive = Watch(top, process)
        out, err = process.communicate(timeout=120)
        alive.join()
        assert process.returncode == 0, err
        shown = [str(dict(asked.headers)) for asked in server.requests]
    assert sum(KEY in headers for headers in shown) > 4
    assert sum(OTHER in headers for headers in shown) == 1
    assert alive.looks > 2
    assert alive.found == [], "in Ray's own folder, or in the environment of a process"
    for planted in PLANTED.values():
        assert planted not in out + err
        halves(planted, out + err)
    check_events(top)
    check_places(top)
    check_pages(top)
    check_logs(top)


class Watch(threading.Thread):
    """Looks at what is there only while a run is alive: Ray's folder, and every process."""

    def __init__(self, top: Path, process: subprocess.Popen[str]) -> None:
        super().__init__(daemon=True)
        self.top, self.process = top, process
        self.looks, self.found = 0, list[str]()
        self.start()

    def run(self) -> None:
        while self.process.poll() is None:
            events = events_of(self.top)
            if any(isinstance(e, Started) for e in events):
                self.look()
            time.sleep(1)

    def look(self) -> None:
        folders = list(Path("/tmp").glob(f"swarm-ray-{self.process.pid}-*"))
        self.looks += bool(folders)
        for folder in folders:
            self.found += found_in(folder)
        children: list[psutil.Process] = []
        with suppress(psutil.Error):
            children = psutil.Process(self.process.pid).children(recursive=True)
        for other in children:
            with_key = readable(other.pid)
            if with_key and b"SWARM_BRIEFING" not in with_key:
                self.found += [n for n, v in PLANTED.items() if v.encode() in with_key]
        own = readable(self.process.pid)
        self.found += [f"launch: {n}" for n, v in PLANTED.items() if v.encode() in own]


def readable(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def found_in(place: Path) -> list[str]:
    """Look for the planted keys in all files below a place, as they are."""
    words = [w for value in PLANTED.values() for w in ("-e", value)]
    argv = ["grep", "-rlaF", "--devices=skip", *words, str(place)]
    listing = subprocess.run(argv, capture_output=True, text=True, check=False).stdout
    # Not `rglob`, which fails where a folder of Ray's goes away while it is looked at.
    every = (Path(top, name) for top, dirs, files in os.walk(place) for name in (*dirs, *files))
    names = [str(p) for p in every if any(v in p.name for v in PLANTED.values())]
    return listing.splitlines() + names


def halves(planted: str, text: str) -> None:
    """Half a key at the place where a text was cut is a leak too."""
    for size in range(len(planted) // 2 - 1, len(planted)):
        assert planted[:size] not in text
        assert planted[-size:] not in text


def check_events(top: Path) -> None:
    events = events_of(top)
    names = ("ledger.jsonl", "swarm.log", "ray.log", "results.tsv", "summary.md", "lessons.md")
    for name in names:
        for planted in PLANTED.values():
            halves(planted, (rundir_of(top).path / name).read_text())
    verdicts = [e.verdict for e in events if isinstance(e, Decided)]
    assert {"invalid", "crash"} <= set(verdicts)
    reasons = {e.proposal.invalid for e in events if isinstance(e, Proposed)}
    assert "the change contains a key" in reasons
    assert any(BLOT in (reason or "") for reason in reasons)
    told = [e.proposal for e in events if isinstance(e, Proposed) and not e.proposal.invalid]
    assert all(BLOT in proposal.summary for proposal in told)
    assert {proposal.rationale.count(BLOT) > 0 for proposal in told} == {True}
    parked = [e for e in events if isinstance(e, Parked)]
    assert any(e.agent == "a3" and "OTHER_KEY" in (e.hint or "") for e in parked)


def check_places(top: Path) -> None:
    rundir, scratch = rundir_of(top), Path(os.environ["SWARM_SCRATCH"])
    for place in (top, scratch, top.parent / "toy.yaml"):
        assert found_in(place) == []
    repositories = [top, rundir.hub, *scratch.rglob("mirror.git")]
    assert len(repositories) == 3
    for repository in repositories:
        argv = ["git", "cat-file", "--batch-all-objects", "--batch", "--buffer"]
        objects = subprocess.run(argv, cwd=repository, capture_output=True, check=True).stdout
        assert b"DELTA = 7.0" in objects
        for planted in PLANTED.values():
            assert planted.encode() not in objects, repository


def check_pages(top: Path) -> None:
    state = RunState(events_of(top))
    pages = [swarm(top, "status", "--json"), swarm(top, "status"), swarm(top, "lessons")]
    pages += [swarm(top, "experiments"), swarm(top, "experiments", "--json")]
    for number in state.experiments:
        pages += [swarm(top, "show", str(number), "--json"), swarm(top, "show", str(number))]
    for planted in PLANTED.values():
        halves(planted, "\n".join(pages))


def check_logs(top: Path) -> None:
    """What candidates saw: themselves and all of the run, and a token only where it must be."""
    seen: set[str] = set()
    for log in rundir_of(top).logs.rglob("*.log"):
        for line in log.read_text(errors="replace").splitlines():
            if line.startswith("OWN"):
                own = json.loads(line[4:])
                assert not PLANTED.keys() & own.keys()
                assert BLOT not in line
            if line.startswith("PROCESS"):
                _, words, environ = json.loads(line[8:])
                role = next((r for r in ROLES if r in words), "other")
                role = "program" if "SWARM_BRIEFING=" in environ else role
                seen.add(role)
                assert BLOT not in environ or role == "program", line
    assert {"swarm launch", "raylet", "supervisor.py", "ray::"} <= seen


ROLES = ("swarm launch", "raylet", "gcs_server", "supervisor.py", "ray::")


def test_a_key_is_wiped_from_where_a_process_began_with_it() -> None:
    code = (
        "import os\nfrom swarm.keys import take\nfrom swarm.groups import MessagesProposer\n"
        "found = take([MessagesProposer(kind='messages', model='m')], os.environ)\n"
        "print(found, 'ANTHROPIC_API_KEY' in os.environ, os.environ['AFTER'])\n"
        "print(open('/proc/self/environ').read().split(chr(0)))\n"
    )
    env = {"BEFORE": "1", "ANTHROPIC_API_KEY": KEY, "AFTER": "2", "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    told, environ = done.stdout.splitlines()
    assert told == f"{ {'ANTHROPIC_API_KEY': KEY} } False 2"
    assert KEY not in environ
    assert "'BEFORE=1'" in environ
    assert "'AFTER=2'" in environ


# --- processes that die in mid-conversation -------------------------------------------------------

SEARCH = 16
DEADLINE_S = 60.0


class Hold(Freeze):
    """Lets the conversations of some agents hang."""

    def __init__(self, agents: tuple[str, ...]) -> None:
        super().__init__(searcher(trouble=False))
        self.agents = agents

    def __call__(self, request: Json) -> Reply:
        if self.frozen and agent_of(request) not in self.agents:
            return self.script(request)
        return super().__call__(request)


@pytest.mark.parametrize(
    ("role", "held"),
    [
        pytest.param("a1", ("a1",), marks=pytest.mark.slow),
        pytest.param("coordinator", ("a1", "a2", "a3", "a4"), marks=pytest.mark.slow),
    ],
)
def test_a_kill_of_an_actor_in_mid_conversation_loses_no_spend(
    top: Path, role: str, held: tuple[str, ...]
) -> None:
    script = Hold(held)
    with MessagesServer(script, key=KEY) as server:
        text = CONFIG.format(repo="repo", url=server.url, experiments=SEARCH)
        (top.parent / "toy.yaml").write_text(text)
        process = launch(top)
        await_(process, lambda: sum(isinstance(e, Decided) for e in events_of(top)) >= 3)
        script.frozen = True
        await_(process, lambda: script.hung >= len(held))
        time.sleep(0.5)  # what was answered has reached the disk
        before = events_of(top)
        os.kill(pid_of(role)(top, process), signal.SIGKILL)
        script.frozen = False
        server.release()
        out, err = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 0, err
        events = events_of(top)
        check_spend(RunState(events), server)
    assert events[: len(before)] == before
    decided = [e.number for e in events if isinstance(e, Decided)]
    assert sorted(decided) == list(range(1, SEARCH + 1))
    later = events[len(before) :]
    assert {e.agent for e in later if isinstance(e, Spent)} >= set(held), "what was cut off"
    assert {e.agent for e in later if isinstance(e, Proposed)} & set(held), "it is ready again"
    ups = [e.process.pid for e in events if isinstance(e, Started) and e.process.role == "a1"]
    assert len(set(ups)) == 2
    assert "Autoresearch Summary" in out


def await_(process: subprocess.Popen[str], done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not done():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


# --- kinds of agents together ---------------------------------------------------------------------

STEPPER = """
import os, re, sys, zlib
dice = zlib.crc32(sys.stdin.read().encode())
text = open("parts/c.py").read()
value = float(text.split("= ")[1])
new = round((value * 2) ** 0.5 + dice % 100 / 1e4, 5)
open("parts/c.py", "w").write(f"GAMMA = {new}\\n")
print(f"GAMMA {value} -> {new}")
"""


@pytest.mark.slow
def test_models_programs_and_mutation_search_together(top: Path, tmp_path: Path) -> None:
    stepper = program(top, "stepper", STEPPER)
    with MessagesServer(searcher(trouble=False), key=KEY) as server:
        text = CONFIG.format(repo="repo", url=server.url, experiments=20)
        text = text.replace("count: 4", "count: 2").replace(
            "judge:",
            f"  - count: 2\n    proposer: {{kind: headless, cli: [{stepper}], "
            "prices: {proposal: 0.01}}\n  - proposer: mutate\njudge:",
        )
        (top.parent / "toy.yaml").write_text(text)
        process = launch(top)
        out, err = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 0, err
        state = RunState(events_of(top))
        of_models = usd(server)
        tokens = server.usage.tokens
    assert state.phase == "finished"
    assert state.spend.experiments == 20
    assert "Autoresearch Summary" in out
    status = json.loads(swarm(top, "status", "--json"))
    lines = {entry["proposer"]: entry for entry in status["proposers"]}
    assert set(lines) == {"messages/scripted", "headless/stepper", "mutate"}
    by_eye = swarm(top, "status")
    assert all(re.search(rf"^\s*{label}\b", by_eye, re.MULTILINE) for label in lines), by_eye
    called = [n for n in ("a3", "a4") for _ in range(state.agents[n].proposals)]
    assert state.agents["a3"].usd + state.agents["a4"].usd == pytest.approx(0.01 * len(called))
    assert state.spend.usd == pytest.approx(of_models + 0.01 * len(called))
    assert state.spend.tokens == tokens
    assert state.agents["a5"].usd == 0
    target = state.targets["main"]
    assert len({state.experiments[p.number].agent for p in target.promotions}) >= 2, "wins merge"
    base, best = (measure_by_hand(top, c, tmp_path / "by-hand") for c in ("main", target.best))
    assert best < base - 1
    git(rundir_of(top).hub, "fsck", "--strict")
