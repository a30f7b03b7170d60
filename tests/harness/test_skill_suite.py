"""Suites that are wrong: each mistake is said with its line and its remedy, all at once."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from messages_server import Json, MessagesServer, Reply
from skill_suite import SKILL, SUITE, TOP, editor, plant, skill, tried

GOOD = """\
under: {kind: skill, path: SKILL.md}
runner: {base_url: URL, model: small}
steps: [explore, plan]
questions:
  short: {max_words: 9}
cases:
  - id: a
    request: ask a
    workspace: work
    checks: [{contains: a}]
  - id: b
    request: ask b
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("under:", "undr:", "1: undr: unknown key; did you mean `under`?"),
        ("kind: skill", "kind: skil", "1: under.kind: `skill`, `prompt` or `harness`, not 'skil'"),
        ("SKILL.md", "NO.md", "1: under.path: cannot be read: "),
        ("kind: skill, path", "kind: harness, path", "1: under.kind: a harness is found by a"),
        ("SKILL.md}", "SKILL.md, files: [no/*]}", "1: under.files: no such file: no/* (paths"),
        ("SKILL.md}", "SKILL.md, files: [../x]}", "1: under.files: ../x: give a path below"),
        ("SKILL.md}", "plain.md, offered: true}", "plain.md has no `description:` to offer it by"),
        ("SKILL.md}", "SKILL.md, offered: 1}", "1: under.offered: true or false is wanted, not 1"),
        ("model: small", "kind: message", "2: runner.kind: `messages` or `headless`"),
        ("model: small", "modle: small", "2: runner.modle: unknown key; did you mean `model`?"),
        ("model: small", "max_turns: 0", "2: runner.max_turns: a whole number from 1 up"),
        ("[explore, plan]", "[a b]", "3: steps: a step's name is one word, not 'a b'"),
        ("[explore, plan]", "[plan, Plan]", "3: steps: two steps have the same name"),
        ("[explore, plan]", "[other]", "3: steps: `other` is what is outside of all steps"),
        ("[explore, plan]", f"[{', '.join('abcdefghijklmn')}]", "3: steps: at most 12"),
        ("max_words: 9", "max_word: 9", "5: questions.short.max_word: unknown key; did you mean"),
        ("id: b", "id: a", "11: the id `a` is taken by the case at"),
        ("id: b", "id: short/a", "11: the id `short/a` is taken by the case at"),
        ("id: b", "id: ' b'", "11: cases.2.id: one printable line"),
        ("request: ask b", "reqest: ask b", "12: cases.2.reqest: unknown key; did you mean"),
        ("    request: ask b\n", "", "11: cases.2.request: a text is wanted, not nothing"),
        ("workspace: work", "workspace: wrk", "9: cases.1.workspace: no such directory: wrk"),
        ("workspace: work", "reference: ref", "9: cases.1.reference: no such directory: ref"),
        ("workspace: work", "files: [no.csv]", "9: cases.1.files: no such file: no.csv"),
        ("contains: a", "contain: a", "10: cases.1.checks.1: checks nothing; did you mean"),
        ("contains: a", "contains: a, regex: b", "10: cases.1.checks.1: one kind is wanted"),
        ("contains: a", "contains: a, fil: b", "10: cases.1.checks.1.fil: unknown key; did you"),
        ("contains: a", "contains: a, file: ../b", "10: cases.1.checks.1.file: a path inside"),
        ("contains: a", "same_as: no.py, file: b", "10: cases.1.checks.1.same_as: no such file"),
        ("contains: a", "same_as: SKILL.md", "10: cases.1.checks.1: which `file` of the workspace"),
        ("contains: a", "regex: '('", "10: cases.1.checks.1.regex: not a regular expression"),
        ("contains: a", "json_schema: {type: 3}", "json_schema: not a JSON schema: 3 is not"),
        ("contains: a", "within: {token: 3}", "within.token: unknown key; did you mean `tokens`?"),
        ("contains: a", "within: {}", "10: cases.1.checks.1.within: limits nothing"),
        ("contains: a", "calls: a, at_most: 1, at_least: 2", "at_most: below `at_least` (2)"),
        ("contains: a", "score: x, min: 101", "10: cases.1.checks.1.min: a score is from 0 to"),
        ("contains: a", "command: {}", "10: cases.1.checks.1.command: a text for the shell or"),
        ("[{contains: a}]", "no.yaml", "10: cases.1.checks: "),
        ("[{contains: a}]", "{contains: a}", "10: cases.1.checks: a list of checks, or the path"),
        ("questions:\n  short: {max_words: 9}\n", "", "9: case `b` asks for nothing"),
        ("  short: {max_words: 9}", "  {}", "4: questions: at least one is needed"),
        ("cases:", "cases: {file: no/*.yaml}\nkases:", "6: cases.1.file: no such file: no/*.yaml"),
        ("  - id: a", "  - {file: bad.yaml}\n  - id: a", "bad.yaml:2: 1.chekcs: unknown key"),
        ("  - id: a", "  - {file: twice.yaml}\n  - id: a", "8: the id `a` is taken by the case at"),
        (GOOD, "a: [", "suite.yaml:1: not YAML"),
        (GOOD, "- a", "suite.yaml: a mapping (`key: value`) is wanted, not a list"),
    ],
)  # fmt: skip
def test_a_mistake_is_said_with_its_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in GOOD
    files = {
        "plain.md": "no front matter",
        "bad.yaml": "id: x\nchekcs: []\nrequest: y\n",
        "twice.yaml": "- {id: a, request: x}\n",
    }
    plant(tmp_path, files)
    path = tried(tmp_path, GOOD.replace(old, new, 1))
    done = skill("measure", path)
    assert done.status == 2, done.stderr
    assert message in done.stderr
    assert all(line.startswith(f"skill: {tmp_path}") for line in done.stderr.splitlines())


def test_all_mistakes_are_said_at_once(tmp_path: Path) -> None:
    text = GOOD.replace("id: b", "id: a").replace("work\n", "wrk\n").replace("explore", "a b")
    done = skill("check", tried(tmp_path, text))
    assert (done.status, len(done.stderr.splitlines())) == (2, 3), done.stderr


def test_a_good_suite_has_nothing_to_say(tmp_path: Path) -> None:
    done = skill("check", tried(tmp_path, GOOD))
    assert (done.status, done.stderr) == (0, "")
    assert done.stdout == "ok: 2 cases, 1 question\n"


PROVEN = """\
under: {path: SKILL.md}
runner: {base_url: URL, model: small}
cases:
  - id: greet
    request: Say hello.
    workspace: work
    reference: ref
    checks:
      - {command: 'python3 hello.py | grep -q hello'}
      - {same_as: ref/hello.py, file: hello.py}
      - {created: [notes.md]}
      - {contains: done}
  - id: all
    request: Say hello.
    workspace: work
    reference: ref
"""


def test_a_reference_must_pass_its_own_checks(tmp_path: Path) -> None:
    plant(tmp_path, {"ref/hello.py": "print('hello')\n", "ref/notes.md": "a\n"})
    done = skill("check", tried(tmp_path, PROVEN))
    assert (done.status, done.stderr) == (0, "")
    assert "ok: 2 cases, 2 references passing" in done.stdout
    plant(tmp_path, {"ref/hello.py": "print('hallo')\n"})
    (tmp_path / "ref" / "notes.md").unlink()
    done = skill("check", tried(tmp_path, PROVEN))
    assert done.status == 2
    first, second = done.stderr.splitlines()
    assert first.startswith(
        f"skill: {tmp_path}/suite.yaml:9: case `greet`: its own reference fails the check command"
    )
    assert "exit 1; mend the one or the other" in first
    assert "suite.yaml:11: case `greet`: its own reference fails the check created" in second


def test_a_case_that_passes_by_itself_is_an_error(tmp_path: Path) -> None:
    text = GOOD.replace("{contains: a}", "{command: 'python3 hello.py'}")
    done = skill("check", tried(tmp_path, text))
    assert done.status == 2
    assert "suite.yaml:7: case `a` passes on its untouched workspace" in done.stderr


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("It is 42.", "suite.yaml:4: cases: all 1 pass on the base: there is nothing to gain; add"),
        ("It is.", "suite.yaml:4: cases: none of 1 passes on the base: no change will be seen"),
    ],
)
def test_cases_that_all_pass_or_fail_on_the_base_tell_nothing(
    tmp_path: Path, answer: str, message: str
) -> None:
    text = SUITE[: SUITE.index("  - id: greet")] + SUITE[SUITE.index("  - id: answer") :]
    with MessagesServer(lambda _: Reply.saying(answer)) as server:
        done = skill("check", "--base", tried(tmp_path, text, server.url))
    assert done.status == 2
    assert message in done.stderr
    assert "1 cases pass" in done.stdout


def test_some_that_pass_and_some_that_fail_are_fine(tmp_path: Path) -> None:
    def script(body: Json) -> Reply:
        return Reply.saying("no") if "hello" in str(body["messages"][0]) else editor(body)

    with MessagesServer(script) as server:
        done = skill("check", "--base", tried(tmp_path, SUITE, server.url))
    assert (done.status, done.stderr) == (0, "")


# --- files of other tools -----------------------------------------------------------------------

EVALS = {
    "skill_name": "editor",
    "evals": [
        {
            "id": 1,
            "prompt": "Sum up data.csv",
            "expected_output": "a sum",
            "files": ["evals/files/data.csv"],
            "expectations": ["It names the sum", "It is short"],
        },
        {"id": 2, "prompt": "Say hello", "expected_output": "a greeting"},
    ],
}
TRIGGERS = [
    {"query": "edit this file", "should_trigger": True},
    {"query": "sing a song", "should_trigger": False},
]
TESTS = """\
name: editor tests
skill: SKILL.md
agent: {type: system-prompt, max_turns: 3, timeout: 60}
min_pass_rate: 0.8
tests:
  - name: writes
    category: files
    input: write it
    expected:
      files_created: [a.txt]
      tool_calls_contain: [write_file]
      output_contains: [Done]
      max_output_tokens: 500
    rubric: {prompt: is it good, min_score: 70}
"""
BLOCKS = """\
# Loop

Test inputs:
1. "greet Ann"
2. greet Bob

EVAL 1: Kind words
Question: Is it kind?
Pass condition: it greets
Fail condition: it is rude

**EVAL 2: Short**
- Question: Is it short?
"""


def model(body: Json) -> Reply:
    """Be both the model and its judge."""
    text = str(body)
    if "You answer one question" in text:
        return Reply.saying("no" if "is short" in text else "yes")
    if "Skill" in str(body.get("tools")) and "edit this" in text and "tool_result" not in text:
        return Reply.calling("Skill", skill="editor")
    if "write it" in text and "tool_result" not in text:
        return Reply.calling("write_file", path="a.txt", content="a")
    return Reply.saying("Done: 42")


@pytest.mark.parametrize(
    ("name", "content", "passed"),
    [
        ("evals/evals.json", json.dumps(EVALS), {"1": False, "2": True}),
        ("evals/triggers.json", json.dumps(TRIGGERS), {"1": True, "2": True}),
        ("tests.yaml", TESTS, {"writes": True}),
        (
            "loop.md",
            BLOCKS,
            {"kind_words/1": True, "short/1": True, "kind_words/2": True, "short/2": True},
        ),
    ],
)
def test_files_of_other_tools_are_suites(
    tmp_path: Path, name: str, content: str, passed: dict[str, bool]
) -> None:
    plant(tmp_path, {"SKILL.md": SKILL, name: content, "evals/files/data.csv": "1,2\n"})
    with MessagesServer(model) as server:
        here = {"SWARM_MODEL_URL": server.url}
        done = skill("import", tmp_path / name)
        assert (done.status, done.stderr) == (0, "")
        made = (tmp_path / name).parent / "made.yaml"
        made.write_text(done.stdout)
        plain = skill("measure", tmp_path / name, **here)
        if "ask" in done.stdout:
            made.write_text(done.stdout + "judge: {model: large}\n")
        done = skill("measure", made, **here)
    assert done.passed == passed, done.feedback or done.stderr
    assert plain.passed == passed, plain.stderr


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("e.json", '{"evals": [{"id": 1, "prompt": "a", "grader": "x"}]}',
         "evals.1: `grader` has no counterpart in a suite; take it out, or write"),
        ("e.json", '{"evals": []}', "evals: a list of mappings is wanted"),
        ("e.json", '{"evals": [\n{"id": 1, "prompt": "a"},\n{"id": 1, "prompt": "b"}]}',
         "e.json:3: the id `1` is taken by the case at"),
        ("t.yaml", "tests:\n  - {name: a, input: b, expected: {mood: good}}\n",
         "tests.1.expected: `mood` has no counterpart"),
        ("l.md", "EVAL 1: a\nQuestion: b?\n", "no inputs to ask about: list them below a line"),
        ("l.md", "# nothing\n", "it has no `EVAL 1: ...` block"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_said(tmp_path: Path, name: str, content: str, message: str) -> None:
    plant(tmp_path, {"SKILL.md": SKILL, name: content})
    done = skill("measure", tmp_path / name)
    assert done.status == 2
    assert message in done.stderr


def test_cases_of_another_tool_can_be_part_of_a_suite(tmp_path: Path) -> None:
    suite = """
    under: {path: SKILL.md, offered: true}
    runner: {base_url: URL, model: small}
    cases: {file: triggers.json}
    """
    plant(tmp_path, {"triggers.json": json.dumps(TRIGGERS)})
    with MessagesServer(model) as server:
        done = skill("measure", tried(tmp_path, suite, server.url))
    assert done.passed == {"1": True, "2": True}


def test_results_are_written_as_other_tools_do(tmp_path: Path) -> None:
    text, out = SUITE, tmp_path / "out"
    said = ["It is 42.", "It is.", "It is 7."]
    with MessagesServer(lambda b: Reply.saying(said[0])) as server:
        path = tried(tmp_path, text, server.url)
        for description in ("", "fewer\twords", "more words"):
            done = skill("measure", path, "--write", out, "--description", description)
            assert done.status == 0, done.stderr
            said.pop(0)
            said.append("")
        skill("measure", path, "--write", out, "--without")
    assert (out / "results.tsv").read_text() == (
        "experiment\tscore\tmax_score\tpass_rate\tstatus\tdescription\n"
        "0\t1\t2\t50.0%\tbaseline\tbaseline\n"
        "1\t0\t2\t0.0%\tdiscard\tfewer words\n"
        "2\t1\t2\t50.0%\tdiscard\tmore words\n"
    )
    told = json.loads((out / "results.json").read_text())
    assert (told["skill_name"], told["baseline_score"], told["best_score"]) == ("editor", 50, 50)
    assert told["current_experiment"] == 2
    assert [e["status"] for e in told["experiments"]] == ["baseline", "discard", "discard"]
    assert told["eval_breakdown"] == [{"name": "checks", "pass_count": 1, "total": 2}]
    log = (out / "changelog.md").read_text()
    assert "## Experiment 1 — discard\n\n**Score:** 0/2 (0.0%)\n**Change:** fewer words" in log
    assert "- greet: command `python3 hello.py | grep -q hello`: exit 1" in log
    bench = json.loads((out / "benchmark.json").read_text())
    configurations = [run["configuration"] for run in bench["runs"]]
    assert configurations == ["with_skill"] * 3 + ["without_skill"]
    assert bench["run_summary"]["with_skill"]["pass_rate"]["mean"] == pytest.approx(1 / 3)
    grading = json.loads((out / "grading.json").read_text())
    assert grading["summary"]["total"] == 4
    assert {e["passed"] for e in grading["expectations"]} == {True, False}
    (out / "results.tsv").write_text("a\tb\nc\n")
    with MessagesServer(editor) as server:
        done = skill("measure", tried(tmp_path, text, server.url), "--write", out)
    assert (done.status, "results.tsv:2: not a line of experiment" in done.stderr) == (2, True)


def test_the_suite_of_the_page_is_right(tmp_path: Path) -> None:
    page = (TOP / "docs" / "skills.md").read_text()
    block = page.split("```yaml\n")[1].split("```")[0]
    assert block.startswith("# suite.yaml")
    test = "from wordtool import count\n\n\ndef test_count():\n    assert count('a b') == 2\n"
    flagged = "def count(text):\n    return len(text.split())\n"
    files = {
        "SKILL.md": SKILL,
        "suite.yaml": block,
        "workspaces/wordtool/wordtool.py": "def words(text):\n    return text.split()\n",
        "workspaces/wordtool/docs/a.md": "a\n",
        "reference/add-flag/wordtool.py": flagged,
        "reference/add-flag/tests/test_count.py": f"import sys\n\nsys.path.insert(0, '.')\n{test}",
        "held_out/one.yaml": "{id: one, request: Add a flag., workspace: workspaces/wordtool}\n",
    }
    plant(tmp_path, files)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = skill("check", tmp_path / "suite.yaml", PATH=path)
    assert (done.status, done.stderr) == (0, "")
    assert done.stdout == "ok: 2 cases (1 held out), 2 questions, 1 reference passing\n"
