"""What a measurement says besides its cases: steps, prices, corrections, aborts; and programs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from messages_server import (
    Json,
    MessagesServer,
    Reply,
    blocks,
    call,
    conversation,
    said,
    tool_names,
    turns,
)
from skill_suite import PROGRAM, Done, plant, skill, tried, using
from targets import git, launch_inline

from swarm import config as configs

STEPPED = """
under: {path: SKILL.md}
runner: {base_url: URL, model: small, usd_per_mtok: {input: 1, output: 10, cache_read: 0.1}}
steps: [explore, plan, execute]
cases:
  - {id: c, request: go, workspace: work, checks: [{contains: end}]}
"""


def measure(folder: Path, suite: str, *replies: Reply, **env: str) -> tuple[Done, MessagesServer]:
    """Measure with a model that gives these answers, one a turn."""
    with MessagesServer(lambda body: replies[min(turns(body), len(replies) - 1)]) as server:
        done = skill("measure", tried(folder, suite, server.url), **env)
        assert done.status == 0, done.stderr
        return done, server


def test_what_is_used_is_booked_on_its_step(tmp_path: Path) -> None:
    done, server = measure(
        tmp_path,
        STEPPED,
        using(("list_files", {}), text="Hello."),
        using(("list_files", {}), ("run", {"command": "sleep 0.3"}), text="## 1. Explore\nI look."),
        Reply((said("still\n```\n## Plan\n```\n"), call("read_file", {"path": "hello.py"}))),
        Reply.saying(
            "**Step: plan**\nA plan.\n\n### Execute: now\nAll of it.\n" + "x" * 300 + " end"
        ),
    )
    used = server.usage.requests
    m = done.metrics
    names = ("explore", "plan", "execute", "other")
    assert sum(m[f"tokens.{n}"] for n in names) == m["tokens"] == server.usage.tokens
    assert sum(m[f"tool_calls.{n}"] for n in names) == m["tool_calls"] == 4
    assert sum(m[f"usd.{n}"] for n in names) == pytest.approx(m["usd"])
    assert sum(m[f"seconds.{n}"] for n in names) == pytest.approx(m["seconds"], abs=0.01)
    assert m["tokens.other"] == sum(used[0])
    assert m["tokens.explore"] == sum(used[1]) + sum(used[2]), "a heading in a fence is none"
    assert m["tokens.plan"] + m["tokens.execute"] == sum(used[3])
    assert m["tokens.plan"] > m["tokens.execute"], "what was read goes where the answer begins"
    assert m["seconds.explore"] > 0.3
    assert (m["tool_calls.other"], m["tool_calls.explore"]) == (1, 3)
    paid = sum(t.input + t.cache_creation + 0.1 * t.cache_read + 10 * t.output for t in used)
    assert m["usd"] == pytest.approx(paid / 1e6)
    assert done.result["cases"][0]["usd"] == m["usd"]
    assert done.feedback.startswith("steps: explore ")
    assert "explore " in done.stdout


@pytest.mark.parametrize(
    ("line", "begins"),
    [
        ("## Plan", True), ("# PLAN:", True), ("###### plan - what I do", True),
        ("## Step 2: Plan", True), ("## 2) Plan", True), ("Step: plan", True),
        ("**Step 2: Plan**", True), ("step 2. plan", True), ("  ## **Plan**", True),
        ("Plan", False), ("## Planning", False), ("## Plan of the house", False),
        ("The ## Plan", False), ("## Execution plan", False), ("####### Plan", False),
    ],
)  # fmt: skip
def test_where_a_step_begins(tmp_path: Path, line: str, begins: bool) -> None:
    done, _ = measure(tmp_path, STEPPED, Reply.saying(f"{line}\nend"))
    assert (done.metrics["tokens.plan"] > 0) is begins
    assert (done.metrics["tokens.other"] == 0) is begins


def _run(command: str) -> Reply:
    return using(("run", {"command": command}))


def _write(path: str) -> Reply:
    return using(("write_file", {"path": path, "content": path}))


FAIL, PASS = _run("test -f flag"), _run("touch flag")


@pytest.mark.parametrize(
    ("replies", "errors", "corrections"),
    [
        ([FAIL], 1, 0),
        ([FAIL, PASS], 1, 0),
        ([FAIL, PASS, FAIL], 1, 1),
        ([FAIL, FAIL, FAIL, PASS, FAIL], 3, 1),
        ([_write("a"), FAIL, _write("a")], 1, 1),
        ([_write("a"), FAIL, _write("a"), PASS, FAIL], 1, 1),
        ([_write("a"), FAIL, _write("b")], 1, 0),
        ([FAIL, _write("a"), _write("a")], 1, 1),
        ([_write("/no"), _write("a")], 1, 0),
        (
            [
                using(("edit_file", {"path": "hello.py", "old": "xx", "new": "y"})),
                using(("edit_file", {"path": "hello.py", "old": "nothing", "new": "y"})),
            ],
            1,
            1,
        ),
    ],
)
def test_self_corrections(
    tmp_path: Path, replies: list[Reply], errors: int, corrections: int
) -> None:
    done, _ = measure(tmp_path, STEPPED, *replies, Reply.saying("end"))
    assert done.metrics["errors"] == errors
    assert done.metrics["self_corrections"] == corrections
    assert f"tool calls failed, {corrections} self-corrections, most: `" in done.feedback


@pytest.mark.parametrize(
    ("check", "reply", "why"),
    [
        ("{created: [a]}", Reply.saying("Which file do you mean?"), "it asks a person"),
        ("{created: [a]}", Reply.saying("I looked.\n\nShould I write it?**"), "it asks a person"),
        ("{created: [a]}", Reply.saying("Please confirm the name."), "it asks a person"),
        ("{created: [a]}", Reply.saying("What is it? I cannot say."), None),
        ("{unchanged: [b]}", Reply.saying("Shall I go on?"), None),
        ("{contains: x}", Reply.saying("Which file?"), None),
        ("{created: [a]}", Reply.saying("no", stop_reason="refusal"), "the model refused"),
        ("{contains: x}", _run("true"), "it was not done after 3 turns"),
        ("{contains: x}", Reply.saying("cut", stop_reason="max_tokens"), None),
    ],
)
def test_aborts(tmp_path: Path, check: str, reply: Reply, why: str | None) -> None:
    suite = STEPPED.replace("{contains: end}", check).replace("small,", "small, max_turns: 3,")
    done, _ = measure(tmp_path, suite, reply)
    assert done.metrics["aborts"] == (why is not None)
    assert (f"1 of 1 runs aborted (c: {why}" in done.feedback) is (why is not None)


def test_who_is_done_may_ask_what_is_next(tmp_path: Path) -> None:
    suite = STEPPED.replace("{contains: end}", "{created: [a]}")
    done, _ = measure(tmp_path, suite, _write("a"), Reply.saying("Done. More?"))
    assert (done.passed, done.metrics["aborts"]) == ({"c": True}, 0)


def test_an_answer_that_was_cut_off_says_so(tmp_path: Path) -> None:
    cut = Reply((said("I beg"), call("run", {"command": "touch a"})), stop_reason="max_tokens")
    done, _ = measure(tmp_path, STEPPED, cut)
    assert done.metrics["tool_calls"] == 0, "half a call is none"
    assert "its last answer was cut off at `max_tokens`" in done.feedback


# --- programs -----------------------------------------------------------------------------------

HARNESS = """
under: {kind: harness, path: ['.claude/**', CLAUDE.md]}
runner: {kind: headless, cli: [python3, AGENT], args: [--fast]}
steps: [explore, execute]
cases:
  - id: greet
    request: Say hello.
    workspace: work
    checks: [{contains: hello, file: said.txt}, {calls: Bash}, {regex: '^All done'}]
"""
AGENT = """\
import json, os, sys, time
from pathlib import Path
part = Path("CLAUDE.md").read_text().strip()
request = sys.stdin.read()
assert request == os.environ["PROMPT"] == "Say hello.", request
assert sys.argv[1:] == ["--fast"]
assert Path(".claude/skills/a/SKILL.md").exists()
def tell(**event): print(json.dumps(event), flush=True)
def says(key, *content):
    usage = {"input_tokens": 10, "output_tokens": 6}
    tell(type="assistant", message={"id": key, "usage": usage, "content": list(content)})
if part == "plain":
    Path("said.txt").write_text("hello")
    print("All done, plainly.")
    raise SystemExit
if part == "crash":
    print("no luck", file=sys.stderr)
    raise SystemExit(3)
if part == "sleep":
    time.sleep(60)
says("1", {"type": "text", "text": "## Explore"})
says("1", {"type": "tool_use", "id": "t", "name": "Bash", "input": {"command": "ls"}})
time.sleep(0.5)
tell(type="user", message={"content": [{"type": "tool_result", "tool_use_id": "t",
     "is_error": part == "error", "content": "x"}]})
if part == "half":
    raise SystemExit
Path("said.txt").write_text("hello")
says("2", {"type": "text", "text": "## Execute"})
end = {"turns": "error_max_turns"}.get(part, "success")
tell(type="result", subtype=end, is_error=end != "success" or part == "api",
     api_error_status=401 if part == "api" else None,
     result="All done." if end == "success" else "",
     total_cost_usd=0.04, usage={"input_tokens": 20, "output_tokens": 12})
"""


def headless(folder: Path, part: str) -> Done:
    """Measure a program that plays a part; it finds it in what is under test."""
    files = {"CLAUDE.md": part, ".claude/skills/a/SKILL.md": "x", "agent.py": AGENT}
    plant(folder, files)
    suite = HARNESS.replace("AGENT", "agent.py")
    limit = "timeout: 3s\n" if part == "sleep" else ""
    return skill("measure", tried(folder, suite + limit))


def test_a_program_finds_its_harness_and_is_understood(tmp_path: Path) -> None:
    done = headless(tmp_path, "good")
    assert (done.status, done.passed) == (0, {"greet": True}), done.feedback
    m = done.metrics
    assert (m["tokens"], m["output_tokens"], m["tool_calls"], m["errors"]) == (32, 12, 1, 0)
    assert (m["tokens.explore"], m["tokens.execute"]) == (16, 16)
    assert (m["usd"], m["usd.explore"]) == (0.04, 0.02)
    assert m["seconds.explore"] >= 0.2
    assert m["length"] == len("good") + 1
    assert headless(tmp_path, "error").metrics["errors"] == 1


@pytest.mark.parametrize(
    ("part", "why"),
    [
        ("plain", "calls `Bash`: 0 calls of Bash"),
        ("crash", "the run: the program exit 3: no luck"),
        ("half", "the run: the program ended in mid-work"),
        ("sleep", "the run: the program took longer than 3 s"),
        ("turns", "regex `^All done`: `^All done` matches nothing; it was not done after 2 turns"),
    ],
)
def test_a_program_that_fails_fails_its_case(tmp_path: Path, part: str, why: str) -> None:
    done = headless(tmp_path, part)
    assert (done.status, done.passed) == (0, {"greet": False})
    assert f"greet: {why}" in done.feedback


def test_a_program_that_cannot_ask_its_model_is_no_failed_case(tmp_path: Path) -> None:
    done = headless(tmp_path, "api")
    assert (done.status, done.result) == (1, {})
    assert "the program cannot ask its model" in done.stderr
    suite = HARNESS.replace("[python3, AGENT]", "no-such-agent")
    done = skill("measure", tried(tmp_path, suite))
    assert done.status == 2
    assert "runner.cli: no program `no-such-agent` on the PATH" in done.stderr


def test_a_signal_ends_the_programs_too(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    plant(tmp_path, {"CLAUDE.md": "x", ".claude/skills/a/SKILL.md": "x"})
    script = (
        f"import os, time\nopen({str(pids)!r}, 'a').write(f'{{os.getpid()}}\\n')\ntime.sleep(60)"
    )
    plant(tmp_path, {"agent.py": script})
    path = tried(tmp_path, HARNESS.replace("AGENT", str(tmp_path / "agent.py")))
    process = subprocess.Popen(
        [*PROGRAM, "measure", str(path)],
        env={"PATH": os.environ["PATH"]},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 20
    while not (pids.exists() and pids.read_text().strip()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 128 + signal.SIGTERM
    deadline = time.monotonic() + 10
    while any(_alive(int(pid)) for pid in pids.read_text().split()):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _alive(pid: int) -> bool:
    """Tell whether a process is there, and no mere entry that nobody has fetched yet."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


# --- the real Claude Code -----------------------------------------------------------------------


def _claude() -> str | None:
    own = Path(__file__).parents[2] / ".npm/node_modules/.bin/claude"
    named = os.environ.get("SWARM_TEST_CLAUDE")
    return named or (str(own) if own.exists() else None) or shutil.which("claude")


CLAUDE = _claude()
REAL = """
under: {kind: KIND, path: PATH}
runner: {kind: headless, cli: claude, model: claude-haiku-5-5, max_turns: 9}
steps: [explore, execute]
cases:
  - id: greet
    request: Make hello.py say hello.
    workspace: work
    checks: [{command: 'python3 hello.py | grep -q hello'}, {calls: Skill}, {created: [n.md]}]
"""


def _answers(request: Json) -> list[Json]:
    found = [block for message in request["messages"] for block in blocks(message["content"])]
    return [block for block in found if block["type"] == "tool_result"]


def _working(request: Json) -> Reply:
    """Work as Claude Code's model would; it merges messages, so results count and turns do not."""
    if not tool_names(request):
        return Reply.saying("a title")
    replies = [
        using(("Bash", {"command": "cat hello.py; exit 3", "description": "x"}), text="## Explore"),
        using(("Skill", {"skill": "editor"}), text="## Execute"),
        using(("Write", {"file_path": "n.md", "content": "note\n"})),
        using(("Bash", {"command": "sed -i s/nothing/hello/ hello.py", "description": "x"})),
        Reply.saying("All done."),
    ]
    return replies[min(len(_answers(request)), 4)]


@pytest.mark.skipif(CLAUDE is None, reason="NO CLAUDE CODE: `make claude` installs it")
@pytest.mark.parametrize("kind", ["skill", "harness"])
def test_the_real_claude_code(tmp_path: Path, kind: str) -> None:
    assert CLAUDE is not None
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "claude").symlink_to(CLAUDE)
    hook = {"hooks": {"PreToolUse": [{"matcher": "Bash", "hooks": [
        {"type": "command", "command": f"echo ran >> {tmp_path}/hooked"}]}]}}  # fmt: skip
    plant(tmp_path, {".claude/settings.json": json.dumps(hook), "CLAUDE.md": "Say PINEAPPLE."})
    own = ".claude/skills/editor/SKILL.md"
    plant(tmp_path, {own: "---\nname: editor\ndescription: Edits.\n---\nSmall steps.\n"})
    suite = REAL.replace("KIND", kind)
    suite = suite.replace("PATH", "SKILL.md" if kind == "skill" else "['.claude/**', CLAUDE.md]")
    with MessagesServer(_working) as server:
        done = skill(
            "measure",
            tried(tmp_path, suite),
            PATH=f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}",
            SWARM_MODEL_URL=server.url,
            SWARM_MODEL_TOKEN="for-this-measurement",
        )
        assert done.passed == {"greet": True}, done.stderr or done.feedback
        assert done.metrics["tokens"] == server.usage.tokens
        asked = "\n".join(conversation(r.body) for r in server.requests)
        keys = {r.headers.get("x-api-key") for r in server.requests}
    assert keys == {"for-this-measurement"}
    assert ("PINEAPPLE" in asked, (tmp_path / "hooked").exists()) == (kind == "harness",) * 2
    assert (done.metrics["errors"], done.metrics["tool_calls.execute"]) == (1, 3)


# --- through swarm ------------------------------------------------------------------------------

CONFIG = """
name: skills
target:
  repo: REPO
  scope: [SKILL.md]
  hide: [hidden/]
  artefacts: [outcomes/]
  run: PYTHON "$SWARM_HARNESS/skill/skill.py" run suite.yaml --out outcomes
  score: PYTHON "$SWARM_HARNESS/skill/skill.py" score suite.yaml --out outcomes
  final: PYTHON "$SWARM_HARNESS/skill/skill.py" measure suite.yaml --held-out
  metric: {name: cases, goal: maximize}
  constraints: [{metric: length, max: 400}]
  provider: {base_url: 'URL'}
agents:
  - count: 1
    proposer: {kind: scripted, patches: PATCHES}
budget: {experiments: 2}
judge: {baseline: 2}
"""
SWARMED = """
under: {path: SKILL.md}
runner: {model: small}
cases:
  - {id: greet1, request: Say hello., workspace: work, checks: hidden/greet.yaml}
  - {id: greet2, request: Say hello twice., workspace: work, checks: hidden/greet.yaml}
  - {id: greet3, request: Say hello softly., workspace: work, checks: hidden/greet.yaml}
  - {id: greet4, request: Say hello aloud., workspace: work, checks: hidden/greet.yaml}
  - {id: plain, request: Say a number., checks: hidden/plain.yaml}
  - {file: hidden/held.yaml, held_out: true}
"""


def test_a_skill_is_improved_by_swarm(tmp_path: Path) -> None:
    def script(body: Json) -> Reply:
        better = "BOLDLY" in conversation(body)
        if "number" in str(body["messages"][0]):
            return Reply.saying("42")
        if not turns(body) and better:
            return using(("run", {"command": "sed -i s/nothing/hello/ hello.py"}))
        return Reply.saying("hello")

    top = tmp_path / "repo"
    hidden = {
        "hidden/greet.yaml": "[{same_as: hidden/hello.py, file: hello.py}]",
        "hidden/hello.py": "print('hello')",
        "hidden/plain.yaml": "[{regex: '[0-9]'}]",
        "hidden/held.yaml": "- {id: held, request: Say hello., workspace: work, "
        "checks: hidden/greet.yaml}",
    }
    plant(top, hidden)
    tried(top, SWARMED)
    git(top, "init", "-q", "-b", "main")
    git(top, "add", "-A")
    git(top, "commit", "-q", "-m", "base")
    better = {"summary": "bold", "files": {"SKILL.md": "Work BOLDLY.\n"}}
    longer = {"summary": "long", "files": {"SKILL.md": "BOLDLY " * 80}}
    changes = {"patches/1.json": json.dumps(longer), "patches/2.json": json.dumps(better)}
    plant(tmp_path, changes)
    with MessagesServer(script) as server:
        text = CONFIG.replace("REPO", json.dumps(str(top))).replace("URL", server.url)
        text = text.replace("PYTHON", sys.executable).replace("PATCHES", str(tmp_path / "patches"))
        _, state = launch_inline(configs.parse(text, tmp_path / "skills.yaml"))
    target = state.targets["main"]
    assert state.phase == "finished"
    verdicts = [e.verdict for e in state.experiments.values()]
    assert verdicts == ["constraint_failed", "keep"]
    assert target.result is not None
    assert target.result.gain == pytest.approx(0.8)
    assert state.spend.tokens == server.usage.tokens > 0
