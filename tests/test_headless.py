"""Programs as proposers: real processes that behave as each coding agent is known to."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import rungs
import targets
from proposer_contract import ProposerContract, brief, plant, snapshot
from targets import processes_with

from swarm.briefing import Crash, Idea
from swarm.doctor import examine
from swarm.errors import PreconditionError
from swarm.groups import HeadlessProposer, MessagesProposer
from swarm.keys import take
from swarm.proposers import (
    Draft,
    LockedOutError,
    NoProposalError,
    Proposer,
    UnavailableError,
    Workspace,
    make,
)
from swarm.proposers import clis as known
from swarm.proposers.headless import OUTPUT
from swarm.proposers.homes import login_of
from swarm.proposers.ready import Lack, check, key_names, lack
from swarm.records import Usage
from swarm.sandbox import PROCESS, Rung
from swarm.sandbox.ladder import RungName
from swarm.scope import Scope

FAKES = Path(__file__).with_name("fake_clis")
KEY = "sk-very-secret-0123456789"
EDITS = {"train.py": "LEARNING_RATE = 0.002\n"}
NAMES = ("claude", "codex", "gemini", "opencode", "aider")


class Stage:
    """A worktree, a user's home, and fake programs on PATH."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.bin, self.home = root / "worktree", root / "bin", root / "home"
        shutil.copytree(FAKES, self.bin)
        for name in (*NAMES, "propose"):
            # This very Python: what is first on PATH may be a shim that adds to the environment.
            program = self.bin / name
            body = program.read_text().partition("\n")[2]
            program.write_text(f"#!{sys.executable} -SE\n{body}")
        self.home.mkdir()
        plant(self.root, {"train.py": "LEARNING_RATE = 0.001\n", "README.md": "out of scope\n"})
        self.scratch = root / "scratch"
        self.scratch.mkdir()
        self.told: list[Usage] = []
        for name in list(os.environ):
            if name != "PATH" and not name.startswith(("PYTEST", "COV", "SWARM_SCRATCH")):
                monkeypatch.delenv(name)
        monkeypatch.setenv("PATH", f"{self.bin}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setenv("HOME", str(self.home))
        self.play()

    def play(self, do: str = "edit", **part: Any) -> None:
        fields: dict[str, Any] = {"do": do, "edits": EDITS} | part
        (self.bin / "part.json").write_text(json.dumps(fields))

    @property
    def seen(self) -> dict[str, Any]:
        return json.loads((self.bin / "seen.json").read_text())

    def proposer(self, cli: Any, keys: dict[str, str] | None = None, **fields: Any) -> Proposer:
        config = HeadlessProposer(kind="headless", cli=cli, **fields)
        return make(config, agent="a1", index=0, count=1, keys=keys or {})

    rung: Rung = PROCESS

    def space(self, patterns: tuple[str, ...] = ("train.py",), hidden: str = "") -> Workspace:
        files = tuple(n for n in sorted(snapshot(self.root)) if n in Scope(patterns))
        return Workspace(
            self.root,
            Scope(patterns),
            files,
            lambda: None,
            hidden=Scope((hidden,) if hidden else ()),
            rung=self.rung,
            shielded=(str(self.root.parent / "repo"),),
            scratch=self.scratch,
            spent=self.told.append,
        )

    def propose(self, cli: Any, keys: dict[str, str] | None = None, **fields: Any) -> Draft:
        return self.proposer(cli, keys, **fields).propose(self.space(), brief())

    def refusal(self, cli: Any, keys: dict[str, str] | None = None, **fields: Any) -> Any:
        with pytest.raises(NoProposalError) as caught:
            self.propose(cli, keys, **fields)
        return caught.value


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(tmp_path, monkeypatch)


# --- the contract ------------------------------------------------------------------------------


class TestContract(ProposerContract):
    @pytest.fixture(autouse=True)
    def _program(self, tmp_path: Path) -> None:
        program = (
            "import os, sys\n"
            "lines = sys.stdin.read().splitlines()\n"
            "name = 'train.py' if os.path.exists('train.py') else 'nothing/new.py'\n"
            "os.makedirs(os.path.dirname(name) or '.', exist_ok=True)\n"
            "open(name, 'a').write(f'# {len(lines) > 3}\\n')\n"
            "print(f'one more line in {name}')\n"
        )
        (tmp_path / "propose.py").write_text(program)

    def make(self, tmp_path: Path) -> Proposer:
        argv = (sys.executable, "-S", "-E", str(tmp_path / "propose.py"))
        config = HeadlessProposer(kind="headless", cli=argv)
        return make(config, agent="a1", index=0, count=1, keys={})


def test_a_program_gets_the_briefing_twice_and_says_in_its_last_line_what_it_did(
    stage: Stage,
) -> None:
    draft = stage.propose(["propose", "--fast", "a b"])
    assert draft == Draft("lr 0.001 -> 0.002", "reading\nlr 0.001 -> 0.002")
    seen = stage.seen
    assert seen["argv"][1:] == ["--fast", "a b"]
    assert seen["cwd"] == str(stage.root)
    assert "Make the loss smaller." in seen["stdin"]
    assert seen["stdin"] == seen["file"]
    assert snapshot(stage.root)["train.py"].decode() == EDITS["train.py"]
    assert list(stage.scratch.iterdir()) == []


def test_a_program_may_remove_its_directory_and_is_paid_for(stage: Stage) -> None:
    program = stage.bin / "claude"
    body = program.read_text()
    program.write_text(f"{body.rstrip()}\nimport shutil\nshutil.rmtree(os.getcwd())\n")
    program.write_text(program.read_text().replace("import json\n", "import json\nimport os\n", 1))
    assert stage.propose("claude").usage.tokens > 0
    assert [usage.tokens > 0 for usage in stage.told] == [True]


@pytest.mark.parametrize("parse", [known.parse_claude, known.parse_codex, known.parse_gemini])
def test_output_that_is_nested_without_end_is_no_result(parse: Any) -> None:
    assert not parse('{"a":' * 200_000 + "\n").ended


@pytest.mark.parametrize("cli", [*NAMES, ["propose"]])
def test_a_program_sees_its_own_keys_and_files_only(
    stage: Stage, cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = HeadlessProposer(kind="headless", cli=cli, env=("MY_TOKEN",))
    for name in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "GEMINI_API_KEY", "AWS_SECRET", "MY_TOKEN"):
        monkeypatch.setenv(name, f"{name}-0123456789")
    for name in ("RAY_ADDRESS", "PYTHONPATH", "GIT_DIR", "XDG_CONFIG_HOME", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.setenv(name, "/somewhere")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    monkeypatch.setenv("https_proxy", "http://proxy:1")
    plant(stage.home, {".ssh/id_rsa": "secret", ".netrc": "secret"})
    keys = take([config], os.environ)
    make(config, agent="a1", index=0, count=1, keys={**keys, "AWS_SECRET": "no"}).propose(
        stage.space(), brief()
    )
    env, home = stage.seen["env"], Path(stage.seen["env"]["HOME"])
    own = {"XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"}
    always = {"PATH", "HOME", "TMPDIR", "TERM", "NO_COLOR", "CUDA_VISIBLE_DEVICES", *own}
    always |= {"SWARM_BRIEFING", "SWARM_MEASUREMENT", "LC_ALL", "https_proxy", "LC_CTYPE"}
    set_by_table = set(known.TABLE[cli].env) if isinstance(cli, str) else set()
    handed = set(keys) | ({"CODEX_API_KEY"} if cli == "codex" else set())
    assert set(env) | {"LC_CTYPE"} == always | set_by_table | handed
    assert (env["CUDA_VISIBLE_DEVICES"], env["TERM"]) == ("", "dumb")
    assert all(Path(env[name]).is_relative_to(home) for name in own)
    assert not home.is_relative_to(stage.home)
    assert stage.seen["home"] == []
    assert not home.exists()


def test_a_login_is_lent_by_link_and_nothing_beside_it(stage: Stage) -> None:
    plant(stage.home, {".claude/.credentials.json": "{}", ".claude.json": "{}", ".netrc": "x"})
    plant(stage.home, {".codex/auth.json": "{}", ".config/opencode/opencode.json": "{}"})
    plant(stage.home, {".config/gh/hosts.yml": "x", ".local/share/opencode/auth.json": "{}"})
    stage.propose("claude")
    assert stage.seen["home"] == [f".claude -> {stage.home}/.claude", ".claude.json"]
    stage.play(edits={"train.py": "2\n"})
    stage.propose("codex", {"OPENAI_API_KEY": KEY})
    assert stage.seen["home"] == [f".codex -> {stage.home}/.codex"]
    assert "CODEX_API_KEY" not in stage.seen["env"]
    stage.play(edits={"train.py": "3\n"})
    stage.propose("opencode")
    links = [line for line in stage.seen["home"] if "->" in line]
    assert links == [
        f".config/opencode -> {stage.home}/.config/opencode",
        f".local/share/opencode -> {stage.home}/.local/share/opencode",
    ]
    assert not any("gh" in line for line in stage.seen["home"])
    assert (stage.home / ".codex/auth.json").read_text() == "{}"


def test_a_login_is_found_where_a_variable_has_moved_it(tmp_path: Path) -> None:
    plant(tmp_path, {"c/auth.json": "{}", "x/opencode/auth.json": "{}"})
    env = {"HOME": str(tmp_path), "CODEX_HOME": str(tmp_path / "c")}
    assert login_of(known.TABLE["codex"], env) == tmp_path / "c/auth.json"
    assert login_of(known.TABLE["claude"], env) is None
    env = {"HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path / "x")}
    assert login_of(known.TABLE["opencode"], env) == tmp_path / "x/opencode/auth.json"


def test_with_a_key_claude_is_handed_nothing_of_the_home(stage: Stage) -> None:
    plant(stage.home, {".claude/.credentials.json": "{}", ".claude.json": "{}"})
    stage.propose("claude", {"ANTHROPIC_API_KEY": KEY})
    assert stage.seen["home"] == []


# --- what each says ----------------------------------------------------------------------------


def used(usd: float, read: int, cached: int, written: int) -> Usage:
    return Usage(usd=usd, input_tokens=read, cached_tokens=cached, output_tokens=written)


SAID = {
    "claude": ("lr 1 -> 2", used(0.0123, 210, 3000, 40)),
    "codex": ("deeper", used(0, 100, 900, 50)),
    "gemini": ("wider", used(0, 400, 100, 60)),
    "opencode": ("narrower", used(0.004, 300, 2000, 30)),
    "aider": ("a rate", used(0.0031, 2500, 1200, 37)),
}


@pytest.mark.parametrize("cli", NAMES)
def test_summary_and_usage_of_each(stage: Stage, cli: str) -> None:
    draft = stage.propose(cli)
    summary, usage = SAID[cli]
    assert draft.summary == summary
    assert draft.usage.model_dump() == pytest.approx(usage.model_dump())
    assert stage.told == [draft.usage]
    assert f"{summary}" in draft.rationale


def test_prices_of_the_config_come_before_the_programs_own_word(stage: Stage) -> None:
    prices = {"input": 1.0, "output": 10.0, "cache_read": 0.1, "cache_write": 2.0, "proposal": 0.5}
    draft = stage.propose("claude", prices=prices)
    assert draft.usage.usd == pytest.approx((10 + 400 + 300 + 400) / 1e6 + 0.5)
    stage.play(edits={"train.py": "3\n"})
    assert stage.propose(["propose"], prices={"proposal": 0.25}).usage.usd == 0.25
    stage.play("fail")
    assert stage.refusal("claude").usage.usd == 0.01


@pytest.mark.parametrize("cli", NAMES)
def test_models_and_words_reach_the_command_line(stage: Stage, cli: str) -> None:
    stage.propose(cli, model="some-model", args=("--more", "x y"))
    argv = stage.seen["argv"][1:]
    at = argv.index("--more")
    assert argv[argv.index("--model") + 1] == "some-model"
    assert argv[at + 1] == "x y"
    if cli == "aider":
        assert argv[-2:] == ["--file", "train.py"]
    else:
        assert "Make the loss smaller." in stage.seen["stdin"]


def test_no_command_line_gives_a_shell_away() -> None:
    call = known.Call("b.md", None, (), ("a.py",), {"OPENAI_BASE_URL": 'http://x/"v1'})
    words = {name: cli.argv(call) for name, cli in known.TABLE.items()}
    assert words["claude"][words["claude"].index("--tools") + 1] == "Read,Edit,Write,Glob,Grep"
    assert words["codex"][words["codex"].index("--sandbox") + 1] == "workspace-write"
    assert 'openai_base_url="http://x/\\"v1"' in words["codex"]
    assert words["gemini"][words["gemini"].index("--approval-mode") + 1] == "auto_edit"
    assert json.loads(known.TABLE["opencode"].env["OPENCODE_CONFIG_CONTENT"])["permission"] == {
        "edit": "allow",
        "bash": "deny",
        "webfetch": "deny",
    }
    for argv in words.values():
        joined = " ".join(argv)
        assert "yolo" not in joined
        assert "dangerously" not in joined


# --- how it goes wrong -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cli", "part"),
    [
        ("claude", {"do": "auth"}),
        ("claude", {"do": "401"}),
        ("codex", {"do": "auth", "say": "exceeded retry limit, last status: 401 Unauthorized"}),
        ("gemini", {"do": "auth"}),
        ("opencode", {"do": "auth", "say": "invalid x-api-key"}),
        ("aider", {"do": "auth"}),
    ],
)
def test_a_refused_login_locks_the_group_out(stage: Stage, cli: str, part: Any) -> None:
    stage.play(**part)
    error = stage.refusal(cli)
    assert type(error) is LockedOutError
    assert known.TABLE[cli].title in error.reason  # type: ignore[index]
    assert known.TABLE[cli].unlocking[0] in error.hint  # type: ignore[index]


@pytest.mark.parametrize(
    ("cli", "say", "status", "wait"),
    [
        ("claude", "API Error: Request rejected (429) · slow down", 429, 300),
        ("claude", "API Error: 529 Overloaded. Try again in 90 seconds.", 529, 90),
        ("codex", "exceeded retry limit, last status: 429 Too Many Requests", None, 300),
        ("codex", "You've hit your usage limit. Try again in 1 hour 20 minutes.", None, 4800),
        ("gemini", "Quota exceeded for requests per minute; retry in 17s", None, 17),
        ("opencode", "rate limit: retry-after: 44", None, 44),
    ],
)
def test_a_provider_that_is_busy_is_waited_for(
    stage: Stage, cli: str, say: str, status: int | None, wait: float
) -> None:
    stage.play("rate", say=say, status=status)
    error = stage.refusal(cli)
    assert type(error) is UnavailableError
    assert error.wait_s == pytest.approx(wait)


@pytest.mark.parametrize("cli", NAMES)
def test_a_program_that_is_missing_says_how_to_install_it(stage: Stage, cli: str) -> None:
    (stage.bin / cli).unlink()
    error = stage.refusal(cli)
    assert type(error) is LockedOutError
    assert error.hint == f"install it: {known.TABLE[cli].install}"  # type: ignore[index]
    assert error.usage == Usage()
    assert stage.told == []


def test_a_failing_program_is_an_ordinary_failure_without_its_keys(stage: Stage) -> None:
    stage.play(error=f"429 rate limit of {KEY}\n" * 3, status=7)
    error = stage.refusal(["propose"], {"MY_TOKEN": KEY}, env=("MY_TOKEN",))
    assert type(error) is NoProposalError
    assert error.reason.startswith("`propose` ended with status 7: 429 rate limit of [key]")
    stage.play("401", say=KEY)
    error = stage.refusal("claude", {"ANTHROPIC_API_KEY": KEY})
    assert KEY not in error.reason
    assert "[key]" in error.reason
    stage.play(say=f"used {KEY}\nkey is {KEY}", edits={"train.py": "9\n"})
    draft = stage.propose(["propose"], {"MY_TOKEN": KEY}, env=("MY_TOKEN",))
    assert (draft.summary, draft.rationale) == ("key is [key]", "used [key]\nkey is [key]")


@pytest.mark.parametrize("cli", ["claude", "codex", "gemini", "opencode"])
def test_garbage_is_no_result(stage: Stage, cli: str) -> None:
    stage.play("garbage")
    error = stage.refusal(cli)
    assert type(error) is NoProposalError
    assert "something else than its result" in error.reason
    assert error.reason.isprintable()
    stage.play("garbage", status=3)
    assert "ended with status 3" in stage.refusal(cli).reason


@pytest.mark.parametrize("cli", ["claude", ["propose"]])
def test_a_timeout_leaves_nothing_running_and_what_was_spent_is_told(
    stage: Stage, cli: Any, tmp_path: Path
) -> None:
    stage.play("hang", mark=str(tmp_path))
    error = stage.refusal(cli, timeout=6, prices={"input": 1.0, "output": 10.0})
    assert type(error) is NoProposalError
    assert "took longer than 6 s" in error.reason
    left = [line for line in processes_with(str(tmp_path)) if "pytest" not in line]
    assert left == []
    assert list(stage.scratch.iterdir()) == []
    assert stage.told == ([error.usage] if cli == "claude" else [])
    assert error.usage.tokens == (3250 if cli == "claude" else 0)


def test_a_flood_is_capped_and_the_result_at_its_end_is_found(stage: Stage) -> None:
    stage.play("flood", bytes=OUTPUT + 3_000_000)
    assert stage.propose("claude").summary == "lr 1 -> 2"
    stage.play("flood", bytes=OUTPUT + 3_000_000, edits={"train.py": "5\n"})
    draft = stage.propose(["propose"])
    assert draft.summary == "lr 0.001 -> 0.002"
    assert len(draft.rationale) <= 4000


def test_what_a_program_leaves_lying_about_is_no_change(stage: Stage) -> None:
    plant(stage.root, {".claude/settings.json": "{}", ".claude/skills/a.md": "a"})
    plant(stage.root, {".aider.conf.yml": "x"})
    litter = {
        ".claude/new/settings.local.json": "{}",
        ".aider.chat.history.md": "",
        "notes.txt": "its own doing",
    }
    stage.play(litter=litter)
    stage.propose("claude")
    left = {n for n in snapshot(stage.root) if n not in ("train.py", "README.md")}
    kept = {".claude/settings.json", ".claude/skills/a.md", ".aider.conf.yml", "notes.txt"}
    assert left == kept | {".aider.chat.history.md"}
    assert not (stage.root / ".claude/new").exists()
    (stage.root / ".aider.chat.history.md").unlink()
    stage.play(litter=litter, edits={"train.py": "4\n"})
    stage.proposer("aider").propose(stage.space(("**",)), brief())
    assert {n for n in snapshot(stage.root) if n.startswith(".aider")} == {".aider.conf.yml"}


def test_the_programs_own_files_can_be_what_is_improved(stage: Stage) -> None:
    plant(stage.root, {".claude/skills/a.md": "a"})
    stage.play(edits={".claude/skills/b.md": "b", ".claude/x.json": "x"})
    stage.proposer("claude").propose(stage.space((".claude/skills/",)), brief())
    assert {n for n in snapshot(stage.root) if n.startswith(".claude")} == {
        ".claude/skills/a.md",
        ".claude/skills/b.md",
    }


def test_what_is_hidden_is_not_there_and_comes_back(stage: Stage) -> None:
    plant(stage.root, {"answers/a.txt": "42", "answers/deep/b.txt": "43"})
    before = snapshot(stage.root)
    stage.play(edits={**EDITS, "answers/a.txt": "forged"})
    stage.proposer(["propose"]).propose(stage.space(hidden="answers/"), brief())
    assert not [name for name in stage.seen["files"] if name.endswith(".txt")]
    assert snapshot(stage.root) == before | {"train.py": EDITS["train.py"].encode()}


def test_an_idea_to_port_is_named(stage: Stage) -> None:
    idea = Idea(number=4, summary="x", rationale="", diff="")
    draft = stage.proposer("claude").propose(stage.space(), brief(port=idea))
    assert draft.port_of == 4


def test_whoever_changes_nothing_has_given_up(stage: Stage) -> None:
    crash = Crash(number=3, summary="s", rationale="", diff="", reason="exit 1", tail="boom")
    stage.play(edits={}, say="it cannot be mended")
    with pytest.raises(NoProposalError, match="gave up mending: it cannot be mended"):
        stage.proposer("claude").propose(stage.space(), brief(crash=crash))
    assert "cannot be mended" in stage.seen["stdin"]
    assert "changed nothing" in stage.refusal(["propose"]).reason
    assert type(stage.refusal("claude")) is NoProposalError


# --- behind walls ------------------------------------------------------------------------------

ON_EACH = pytest.mark.parametrize("name", rungs.NAMES)
WALLED = pytest.mark.parametrize("name", ["bubblewrap", "landlock"])
CODEX = """#!{python} -SE
import json, os, pathlib
home = pathlib.Path(os.environ["HOME"])
{body}
pathlib.Path("train.py").write_text("LEARNING_RATE = 0.003\\n")
message = {{"type": "item.completed", "item": {{"type": "agent_message", "text": "SUMMARY: x"}}}}
print(json.dumps(message))
print(json.dumps({{"type": "turn.completed", "usage": {{"input_tokens": 1, "output_tokens": 1}}}}))
"""


def codex(stage: Stage, name: RungName, body: str) -> None:
    """Have a Codex that does something of its own first."""
    stage.rung = rungs.rung(name)
    (stage.bin / "codex").write_text(CODEX.format(python=sys.executable, body=body))


@ON_EACH
def test_a_planted_link_does_not_lead_the_cleaning_up_astray(stage: Stage, name: RungName) -> None:
    theirs = plant(stage.home / "theirs", {"key.txt": "mine", "deep/b.txt": "mine"})
    plant(stage.root, {"answers/key.txt": "42"})
    gone = "import shutil; shutil.rmtree('answers', ignore_errors=True)\n"
    codex(stage, name, gone + f"for n in ('.codex', 'answers'): os.symlink({str(theirs)!r}, n)")
    stage.proposer("codex").propose(stage.space(hidden="answers/"), brief())
    assert snapshot(theirs) == {"key.txt": b"mine", "deep/b.txt": b"mine"}
    assert (stage.root / "answers/key.txt").read_text() == "42"
    assert not (stage.root / "answers").is_symlink()
    assert not os.path.lexists(stage.root / ".codex")


@ON_EACH
def test_hidden_files_come_back_where_a_file_is_in_the_way(stage: Stage, name: RungName) -> None:
    plant(stage.root, {"answers/deep/key.txt": "42"})
    gone = "import shutil; shutil.rmtree('answers', ignore_errors=True)\n"
    codex(stage, name, gone + "pathlib.Path('answers').write_text('in the way')")
    stage.proposer("codex").propose(stage.space(hidden="answers/"), brief())
    assert (stage.root / "answers/deep/key.txt").read_text() == "42"


@WALLED
def test_settings_are_copies_and_other_work_is_not_seen(stage: Stage, name: RungName) -> None:
    files = {".codex/config.toml": "x = 1", ".codex/auth.json": "old", ".codex/history.jsonl": "h"}
    before = snapshot(plant(stage.home, files))
    body = """
assert (home / ".codex/config.toml").read_text() == "x = 1"
assert sorted(os.listdir(home / ".codex")) == ["auth.json", "config.toml"]
for place in (home, pathlib.Path(USERS)):
    for name in (".codex/config.toml", ".codex/AGENTS.md", ".codex/history.jsonl"):
        try:
            (place / name).write_text("notify = ['sh', '-c', 'evil']")
        except OSError:
            pass
"""
    codex(stage, name, body.replace("USERS", repr(str(stage.home))))
    stage.propose("codex")
    assert snapshot(stage.home) == before


@ON_EACH
@pytest.mark.parametrize("how", ["write", "replace"])
def test_a_renewed_login_is_the_users(stage: Stage, name: RungName, how: str) -> None:
    plant(stage.home, {".codex/auth.json": "old"})
    (stage.home / ".codex/auth.json").chmod(0o600)
    renew = {
        "write": "(home / '.codex/auth.json').write_text('new')",
        "replace": "(home / '.codex/n').write_text('new')\n"
        "(home / '.codex/n').replace(home / '.codex/auth.json')",
    }
    codex(stage, name, "assert (home / '.codex/auth.json').read_text() == 'old'\n" + renew[how])
    stage.propose("codex")
    assert (stage.home / ".codex/auth.json").read_text() == "new"
    if stage.rung.walls:
        assert snapshot(stage.home) == {".codex/auth.json": b"new"}
        assert (stage.home / ".codex/auth.json").stat().st_mode & 0o777 == 0o600


@WALLED
def test_no_file_of_the_users_is_taken_for_a_renewed_login(stage: Stage, name: RungName) -> None:
    plant(stage.home, {".codex/auth.json": "old", "other/auth.json": "of another"})
    body = "import shutil; shutil.rmtree(home / '.codex')\n"
    codex(stage, name, body + f"os.symlink({str(stage.home / 'other')!r}, home / '.codex')")
    stage.propose("codex")
    assert (stage.home / ".codex/auth.json").read_text() == "old"


@ON_EACH
def test_of_what_claude_remembers_only_the_account_is_handed_over(
    stage: Stage, name: RungName
) -> None:
    stage.rung = rungs.rung(name)
    told: dict[str, Any] = {
        "oauthAccount": {"a": 1},
        "projects": {"/x": {"y": 2}},
        "mcpServers": {"key": KEY},
    }
    plant(stage.home, {".claude/.credentials.json": "{}", ".claude.json": json.dumps(told)})
    body = """
held = json.loads((home / ".claude.json").read_text())
assert held == {"oauthAccount": {"a": 1}}, held
"""
    program = stage.bin / "claude"
    body = f"import json, os, pathlib\nhome = pathlib.Path(os.environ['HOME']){body}"
    program.write_text(f"#!{sys.executable} -SE\n{body}raise SystemExit('seen as it should be')\n")
    assert "seen as it should be" in stage.refusal("claude").reason


@WALLED
def test_a_file_named_in_full_is_seen_and_nothing_beside_it(stage: Stage, name: RungName) -> None:
    stage.rung = rungs.rung(name)
    text = '#!/bin/sh\ncat "$(dirname $0)"/../lib/other "$(dirname $0)"/other 2>&1 | grep mine\n'
    text += "echo changed > train.py; cat $1; echo done\n"
    for top in ("repo", "own"):
        files = {
            "bin/mine": text,
            "bin/other": "mine",
            "lib/other": "mine",
            "notes": "from notes\n",
        }
        folder = plant(stage.root.parent / top, files)
        (folder / "bin/mine").chmod(0o755)
        draft = stage.propose([str(folder / "bin/mine"), str(folder / "notes")])
        assert draft.rationale == "from notes\ndone"
        (stage.root / "train.py").write_text("again\n")


def test_walls_that_cannot_be_built_do_not_lock_a_group_out(stage: Stage) -> None:
    rungs.rung("bubblewrap")
    broken = stage.bin / "broken-bwrap"
    broken.write_text("#!/bin/sh\necho 'bwrap: Cannot mkdir /x/login: Unauthorized' >&2; exit 1\n")
    broken.chmod(0o755)
    stage.rung = Rung("bubblewrap", (), program=str(broken))
    error = stage.refusal("claude")
    assert type(error) is NoProposalError
    assert "the sandbox cannot be set up" in error.reason


@WALLED
def test_a_program_that_is_not_seen_says_where_it_would_be(stage: Stage, name: RungName) -> None:
    stage.rung = rungs.rung(name)
    error = stage.refusal(["no/such/propose"])
    assert type(error) is LockedOutError
    assert "on PATH" in error.hint


# --- the words of refusals ---------------------------------------------------------------------

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Claude AI usage limit reached|1795266000", 1795266000 - NOW.timestamp()),
        ('{"resets_at":1795266000}', 1795266000 - NOW.timestamp()),
        ('{"resets_in_seconds":444}', 444),
        ("You've hit your limit · resets 2:10pm (Europe/Paris)", 70 * 60),
        ("You've hit your limit · resets 8am (UTC)", 20 * 3600),
        ("resets 99pm", 300),
        ("resets 3pm (No/Where)", 300),
        ("please retry in 1.5s", 1.5),
        ("Try again in 3 days 4 hours 1 minute.", 3 * 86400 + 4 * 3600 + 60),
        ("Please wait 5 minutes and try again", 300),
        ("try again in 400 days", 7 * 86400),
        ("no", 300),
    ],
)
def test_how_long_to_wait(text: str, seconds: float) -> None:
    assert known.wait_of(text, NOW) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("There's an issue with the selected model (x). It may not exist", "locked"),
        ("unexpected status 401 Unauthorized: Incorrect API key provided", "locked"),
        ("Your credit balance is too low to access the API", "locked"),
        ("429 insufficient_quota: check your plan", "locked"),
        ("429: API key is over its limit", "busy"),
        ("HTTP 503 Service Unavailable", "busy"),
        ("5-hour limit reached ∙ resets 3pm", "busy"),
        ("TypeError at main.js:401:429x", None),
        ("cannot read 500 lines", None),
        ("The file does not exist", None),
    ],
)
def test_what_a_refusal_means(text: str, kind: str | None) -> None:
    assert known.diagnose(text) == kind


@pytest.mark.parametrize(
    ("text", "summary"),
    [
        ("I did it.\n\nSUMMARY: lr up", "lr up"),
        ("**Summary:** `lr` up\nmore", "lr` up"),
        ("\n\nFirst line.\nSecond.", "First line."),
        ("summary: one\nSUMMARY: two\x1b[31m", "two"),
        ("", ""),
    ],
)
def test_the_summary_is_found(text: str, summary: str) -> None:
    assert known.summary_of(text) == summary


# --- before a launch ---------------------------------------------------------------------------


def headless(cli: Any, **fields: Any) -> HeadlessProposer:
    return HeadlessProposer(kind="headless", cli=cli, **fields)


def test_what_a_group_lacks_is_said_before_anything_starts(stage: Stage) -> None:
    messages = MessagesProposer(kind="messages", model="m")
    found = lack(messages, {})
    assert found is not None
    assert "ANTHROPIC_API_KEY is not set" in found.what
    assert "proposer: mutate" in found.remedy
    assert "base_url" in found.remedy
    assert lack(messages, {"ANTHROPIC_API_KEY": "k"}) is None
    there = {"ANTHROPIC_BASE_URL": "http://127.0.0.1:9"}
    found = lack(messages, there)
    assert found is not None
    assert "nothing answers at http://127.0.0.1:9" in found.what
    with socket.create_server(("127.0.0.1", 0)) as server:
        there = {"ANTHROPIC_BASE_URL": f"http://127.0.0.1:{server.getsockname()[1]}"}
        assert lack(messages, there) is None
    foreign = messages.model_copy(update={"base_url": "https://models.invalid"})
    found = lack(foreign, {"ANTHROPIC_API_KEY": "k"})
    assert found is not None
    assert "`key: MY_KEY`" in found.remedy, "Anthropic's key is not for whoever asks"
    own = foreign.model_copy(update={"key": "MY_KEY"})
    assert lack(own, {"MY_KEY": "k"}) is None
    own_net = messages.model_copy(update={"base_url": "http://10.0.0.9:11434"})
    assert lack(own_net, {}) is None, "it is not knocked at from here"
    for cli in NAMES:
        missing = lack(headless(cli), {})
        assert missing is not None
        assert "is not logged in" in missing.what
        assert all(name in missing.what for name in known.TABLE[cli].unlocking)
        assert lack(headless(cli), {known.TABLE[cli].unlocking[0]: "k"}) is None
    assert lack(headless("claude", env=("AWS_TOKEN",)), {"AWS_TOKEN": "k"}) is None
    plant(stage.home, {".codex/auth.json": "{}"})
    assert lack(headless("codex"), {}) is None
    (stage.bin / "codex").unlink()
    assert lack(headless("codex"), {}) == Lack(
        "Codex (`codex`) is not on PATH", "install it: npm install -g @openai/codex"
    )
    assert lack(headless(["propose"]), {}) is None
    assert lack(headless(["./own"]), {}) is None
    assert "no program `nowhere`" in str(lack(headless(["nowhere"]), {}))


def test_the_names_of_keys_are_shown_and_never_their_values() -> None:
    names = key_names({"ANTHROPIC_API_KEY": KEY, "GEMINI_API_KEY": "", "HOME": "/"})
    assert names == ("ANTHROPIC_API_KEY",)


def test_one_error_lists_what_all_groups_lack(stage: Stage, tmp_path: Path) -> None:
    groups = "agents: [{proposer: mutate}, {proposer: {kind: headless, cli: codex}}]"
    two = (
        "agents: [{proposer: {kind: headless, cli: codex}}, {proposer: {kind: messages, model: m}}]"
    )
    text = targets.CONFIG.replace("agents: [{count: 3, proposer: mutate}]", groups)
    targets.make_repo(tmp_path)
    check(targets.make_config(tmp_path), {})
    with pytest.raises(PreconditionError, match=r"cannot work: agents\.1: Codex") as one:
        check(targets.make_config(tmp_path, text), {})
    assert "codex login" in str(one.value.hint)
    with pytest.raises(PreconditionError) as both:
        check(targets.make_config(tmp_path, text.replace(groups, two)), {})
    assert "agents.0: Codex" in both.value.message
    assert "agents.1: `messages/m` needs a key" in both.value.message
    assert both.value.exit_code == 3
    check(targets.make_config(tmp_path, text), {"OPENAI_API_KEY": KEY})


def test_doctor_shows_programs_logins_and_names_of_keys(
    stage: Stage, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(stage.home, {".codex/auth.json": "{}"})
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    (stage.bin / "aider").unlink()
    (stage.bin / "opencode").write_text(f"#!{sys.executable} -SE\nimport time; time.sleep(1000)\n")
    monkeypatch.setattr("swarm.doctor.VERSION_S", 0.5)
    examine(as_json=True)
    out = capsys.readouterr().out
    found = {f["name"]: f for f in json.loads(out)["findings"]}
    assert KEY not in out
    assert found["provider keys"]["found"] == "set: ANTHROPIC_API_KEY"
    assert found["claude"]["level"] == "ok"
    assert found["claude"]["found"].startswith("2.1.197 (Claude Code) at ")
    assert found["claude"]["found"].endswith("with ANTHROPIC_API_KEY")
    assert found["codex"]["found"].endswith("with a login")
    assert (found["gemini"]["level"], found["gemini"]["remedy"]) == (
        "info",
        "run `gemini` once and log in, or export GEMINI_API_KEY=...",
    )
    assert found["opencode"]["found"].startswith("version unknown at ")
    assert "uv tool install aider-chat" in found["aider"]["found"]
    assert not processes_with(str(stage.bin / "opencode"))
