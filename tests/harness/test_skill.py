"""Suites for skills: a real server for the model, real files and commands, every way to fail."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from messages_server import (
    Fault,
    Json,
    MessagesServer,
    Reply,
    Script,
    conversation,
    results,
    tool_names,
    turns,
)
from skill_suite import SKILL, SUITE, Done, editor, plant, request_of, skill, tried, using
from targets import check_nobody_left

ONE = """
under: {kind: skill, path: SKILL.md}
runner: {base_url: URL, model: small}
timeout: 60s
cases:
  - id: c
    request: Do it.
    workspace: work
    checks: [CHECK]
"""


def measure(folder: Path, suite: str, script: Script, **env: str) -> Done:
    """Measure a suite with a scripted model."""
    with MessagesServer(script) as server:
        return skill("measure", tried(folder, suite, server.url), **env)


def one(folder: Path, check: str, script: Script, **env: str) -> tuple[bool, str]:
    """Make one check of one case; give whether it passes, and the feedback."""
    done = measure(folder, ONE.replace("CHECK", check), script, **env)
    assert done.status == 0, done.stderr
    return done.passed["c"], done.feedback


def saying(text: str) -> Script:
    """Give a model that says one thing."""
    return lambda request: Reply.saying(text)


def doing(*calls: tuple[str, dict[str, Any]], text: str = "Done.") -> Script:
    """Give a model that makes some calls, one an answer, and ends with a text."""

    def script(request: Json) -> Reply:
        n = turns(request)
        return using(calls[n]) if n < len(calls) else Reply.saying(text)

    return script


def write(path: str, content: str) -> tuple[str, dict[str, Any]]:
    return "write_file", {"path": path, "content": content}


def run(command: str) -> tuple[str, dict[str, Any]]:
    return "run", {"command": command}


# --- the whole ----------------------------------------------------------------------------------


def test_a_skill_is_measured(weird_path: Path) -> None:
    with MessagesServer(editor) as server:
        done = skill("measure", tried(weird_path, SUITE, server.url))
        requests = server.requests
        used = server.usage
    assert (done.status, done.stderr) == (0, "")
    assert done.passed == {"greet": True, "answer": True}
    assert done.metrics["tokens"] == used.tokens
    assert done.metrics["output_tokens"] == used.output
    assert done.metrics["length"] == len(SKILL)
    assert done.metrics["tool_calls"] == 3
    assert 0 < done.metrics["seconds"] < 60
    assert "usd" not in done.metrics, "nobody said a price"
    assert done.feedback == ""
    assert "2 of 2 cases pass" in done.stdout
    assert all(SKILL in conversation(asked.body) for asked in requests)
    assert all("temperature" not in asked.body for asked in requests)
    assert used.cache_read > 0, "a conversation is sent again and again"
    assert (weird_path / "work" / "hello.py").read_text() == "print('nothing')\n"


def test_two_stages_say_the_same_as_one(tmp_path: Path) -> None:
    with MessagesServer(editor) as server:
        suite = tried(tmp_path, SUITE.replace("keep/**", "hello.py"), server.url)
        whole = skill("measure", suite)
        ran = skill("run", suite, "--out", tmp_path / "out")
        count = len(server.requests)
        scored = skill("score", suite, "--out", tmp_path / "out")
        assert len(server.requests) == count, "no model is asked to score"
    assert (ran.status, ran.result) == (0, {})
    assert scored.passed == whole.passed == {"greet": False, "answer": True}
    assert scored.feedback == whole.feedback
    assert "greet: unchanged hello.py: changed: hello.py" in whole.feedback
    same = [k for k in whole.metrics if not k.startswith("seconds")]
    assert {k: scored.metrics[k] for k in same} == {k: whole.metrics[k] for k in same}


def test_what_is_hidden_is_not_needed_to_run(tmp_path: Path) -> None:
    suite = """
    under: {path: SKILL.md}
    runner: {base_url: URL, model: small}
    questions: evals.md
    cases:
      - {id: greet, request: Make hello.py say hello., workspace: work, checks: hidden/greet.yaml}
      - {file: hidden/held.yaml, held_out: true}
    """
    hidden = {
        "hidden/greet.yaml": "- {same_as: hidden/hello.py, file: hello.py}\n",
        "hidden/hello.py": "# greets\nprint( 'hello' )\n",
        "hidden/held.yaml": "[{id: held, request: A number please, checks: [{contains: '42'}]}]",
        "evals.md": "EVAL 1: Short\nQuestion: Is it short?\nPass: few words\nFail: many words\n",
    }

    def script(body: Json) -> Reply:
        if "mark" in conversation(body) and "Is it short?" in conversation(body):
            return Reply.saying("yes")
        return editor(body)

    with MessagesServer(script) as server:
        path = tried(tmp_path, suite, server.url)
        assert skill("run", path, "--out", tmp_path / "out").status == 0
        plant(tmp_path, hidden)
        done = skill("score", path, "--out", tmp_path / "out")
        assert done.passed == {"greet": True, "short/greet": True}, done.stderr
        final = skill("measure", path, "--held-out")
    assert final.passed == {"held": True, "short/held": True}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"files": {"../../out.txt": {"text": "x"}}}, "leads out of the workspace"),
        ({"files": {"/tmp/out.txt": {"text": "x"}}}, "leads out of the workspace"),
        ({"deleted": ["../SKILL.md"]}, "leads out of the workspace"),
        ({"case": "answer"}, "it is of another case"),
        ({"turns": -1}, "a number from 0 up is wanted"),
        ({"steps": {"a": {"input": float("nan")}}}, "a number from 0 up is wanted"),
        ({"answer": 3}, "a text is wanted"),
        ({"stopped": "well"}, "`stopped` is none of the words"),
    ],
)
def test_an_outcome_of_a_stranger_is_checked(
    tmp_path: Path, change: dict[str, Any], why: str
) -> None:
    with MessagesServer(editor) as server:
        path = tried(tmp_path, SUITE, server.url)
        skill("run", path, "--out", tmp_path / "out")
    (file,) = (tmp_path / "out").glob("greet*.json")
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    done = skill("score", path, "--out", tmp_path / "out")
    assert done.passed == {"greet": False, "answer": True}
    assert why in done.feedback
    assert not (tmp_path / "out.txt").exists()
    file.unlink()
    done = skill("score", path, "--out", tmp_path / "out")
    assert (done.status, done.result) == (1, {})
    assert "case `greet` has no outcome" in done.stderr
    assert "say `artefacts: [" in done.stderr


# --- what is under test -------------------------------------------------------------------------


def test_a_prompt_with_a_place_for_the_input_is_the_message(tmp_path: Path) -> None:
    suite = ONE.replace("skill, path: SKILL.md", "prompt, path: p.txt").replace(
        "model: small", "model: small, tools: false, temperature: 0.5"
    )
    plant(tmp_path, {"p.txt": "Translate: {{input}}!"})
    with MessagesServer(saying("Fais-le.")) as server:
        path = tried(tmp_path, suite.replace("CHECK", "exact: ' Fais-le.'"), server.url)
        done = skill("measure", path)
        (asked,) = server.requests
    assert done.passed == {"c": True}
    assert asked.body["messages"] == [{"role": "user", "content": "Translate: Do it.!"}]
    assert "system" not in asked.body
    assert tool_names(asked.body) == []
    assert asked.body["temperature"] == 0.5


def test_an_offered_skill_is_opened_or_not(tmp_path: Path) -> None:
    suite = """
    under: {kind: skill, path: SKILL.md, offered: true}
    runner: {base_url: URL, model: small, tools: false}
    cases:
      - {id: wants, request: edit this, checks: [{calls: [Skill]}]}
      - {id: not, request: sing, checks: [{not_calls: [Skill]}]}
      - {id: wrong, request: sing too, checks: [{calls: Skill}]}
    """
    told: list[str] = []

    def script(body: Json) -> Reply:
        assert "Work in small steps" not in str(body.get("system"))
        assert "- editor: Edits small programs" in conversation(body)
        assert tool_names(body) == ["Skill"]
        if "edit" in request_of(body) and not turns(body):
            return Reply.calling("Skill", skill="editor")
        told.extend(str(block["content"]) for block in results(body))
        return Reply.saying("ok")

    done = measure(tmp_path, suite, script)
    assert done.passed == {"wants": True, "not": True, "wrong": False}
    assert told == [SKILL], "opening it shows it"
    assert "0 calls of Skill, and at least 1 are wanted" in done.feedback


def test_without_the_skill_the_model_is_alone(tmp_path: Path) -> None:
    with MessagesServer(saying("42")) as server:
        path = tried(tmp_path, ONE.replace("CHECK", "contains: '42'"), server.url)
        done = skill("measure", path, "--without")
        assert "system" not in server.requests[0].body
    assert done.passed == {"c": True}
    assert done.metrics["length"] == 0


# --- checks -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("check", "good", "bad", "why"),
    [
        ("contains: [a, b]", "b a", "a", "does not contain 'b'"),
        ("not_contains: x", "a", "x", "contains 'x'"),
        ("exact: 'yes'", " yes\n", "yes!", "the answer is not exactly 'yes'"),
        ("not_exact: 'yes'", "no", "yes", "the answer is exactly 'yes'"),
        ("regex: '^b$'", "a\nb", "ab", "`^b$` matches nothing"),
        ("regex: b, expect: no", "a", "b", "the answer is yes, and no is wanted"),
        ("max_words: 2", "a b", "a b c", "3 words, and at most 2 are wanted"),
        ("json_schema: {type: array}", "[1]", "{}", "is not of type 'array'"),
        ("regex: '(x+x+)+y', timeout: 1", "xxy", "x" * 40, "took longer than 1 s"),
        ("python: 'own.py:good'", "good", "bad", "good says no"),
        ("command: 'grep -q yes $OUTPUT'", "yes", "no", "exit 1"),
        ("command: 'echo broken here; exit 3'", None, "a", "exit 3: broken here"),
        ("command: 'kill -9 $$'", None, "a", "killed by SIGKILL"),
        ("command: 'sleep 60', timeout: 1", None, "a", "took longer than 1 s"),
        ("command: [no-such-program]", None, "a", "cannot be started"),
        ("score: 'wc -c < $OUTPUT', min: 3", "abc", "ab", "score 2, and at least 3 is wanted"),
        ("score: 'echo talk; echo SCORE: 7/100', min: 8", None, "a", "score 7, and"),
        ("score: 'echo 101'", None, "a", "no score from 0 to 100 in its last line: 101"),
        ("score: 'echo nan'", None, "a", "no score from 0 to 100"),
        ("score: 'exit 4'", None, "a", "no score: exit 4"),
        ("score: 'test -d $WORKSPACE && test -f SKILL.md && echo 100'", "a", None, ""),
        ("contains: it is, file: keep/me.txt", "a", None, ""),
        ("contains: gone, file: keep/no.txt", None, "a", "there is no file keep/no.txt"),
        ("within: {output_tokens: 10}", "abcd", "a" * 90, "output tokens, and at most 10"),
        ("within: {turns: 1, tool_calls: 0}", "a", None, ""),
        ("created: [hello.py]", None, "a", "not created: hello.py"),
    ],
)  # fmt: skip
def test_checks_of_texts(
    tmp_path: Path, check: str, good: str | None, bad: str | None, why: str
) -> None:
    plant(tmp_path, {"own.py": "def good(output): return output == 'good'\n"})
    if good is not None:
        # A limit is for the one that hangs.
        asked = check.replace("timeout: 1", "timeout: 60")
        assert one(tmp_path, f"{{{asked}}}", saying(good)) == (True, "")
    if bad is not None:
        passed, feedback = one(tmp_path, f"{{{check}}}", saying(bad))
        assert not passed
        assert why in feedback


@pytest.mark.parametrize(
    ("check", "calls", "why"),
    [
        ("created: ['notes/**/*.md']", [write("notes/deep/a.md", "a")], None),
        ("created: [hello.py]", [write("hello.py", "a")], "not created: hello.py"),
        ("unchanged: ['keep/']", [write("new.txt", "a")], None),
        ("unchanged: ['keep/']", [run("rm keep/me.txt")], "changed: keep/me.txt"),
        ("unchanged: ['keep/*']", [write("keep/me.txt", "as it is\n")], None),
        ("same_as: ref.py, file: a.py", [write("a.py", "x = [1,\n 2]  # two\n")], None),
        ("same_as: ref.py, file: a.py", [write("a.py", "x = [1, 3]\n")], "at line 1: `x = [1, 3]`"),
        ("same_as: ref.py, file: a.py", [write("a.py", "x = [1, 2\n")], "a.py is not Python"),
        ("same_as: ref.py, file: a.py", [write("a.py", "")], "less than the reference"),
        ("same_as: ref.js, file: a.js", [write("a.js", "f(a,'b // c')\n// more\n")], None),
        ("same_as: ref.js, file: a.js", [write("a.js", "f(a,\n'b')\n")], "line 2: `'b')`"),
        ("same_as: ref.json, file: a.json", [write("a.json", '{"b":2,  "a":1}')], None),
        ("same_as: ref.json, file: a.json", [write("a.json", '{"a": 2}')], "differs from the"),
        ("same_as: ref.txt, file: a.txt", [write("a.txt", "one  two\n\n")], None),
        ("command: 'test -x tool.sh && ./tool.sh'",
         [run("printf '#!/bin/sh\\n' > tool.sh; chmod +x tool.sh")], None),
        ("command: 'test ! -e keep/me.txt'", [run("rm keep/me.txt")], None),
        ("command: 'cmp bytes other'", [run("printf '\\377\\0' | tee bytes > other")], None),
        ("calls: [run, write_file], at_least: 2, at_most: 2", [run("true"), write("a", "a")], None),
        ("calls: run, at_most: 1", [run("true")] * 2, "2 calls of run, and at most 1 are wanted"),
        ("command: 'true'", [run("head -c 2000000 /dev/zero > big")], "big has 2000000 bytes"),
        ("command: 'true'", [run("ln -s /etc etc; ln -s $PWD/keep own")], None),
    ],
)  # fmt: skip
def test_checks_of_files(tmp_path: Path, check: str, calls: list[Any], why: str | None) -> None:
    refs = {
        "ref.py": '"""Doc."""\n\nx = [1, 2]\n',
        "ref.js": "/* head */ f(a, 'b // c')",
        "ref.json": '{"a": 1, "b": 2}',
        "ref.txt": "one two\n",
    }
    plant(tmp_path, refs)
    passed, feedback = one(tmp_path, f"{{{check}}}", doing(*calls))
    assert passed is (why is None), feedback
    assert (why or "") in feedback


def test_a_broken_reference_is_no_ones_failure(tmp_path: Path) -> None:
    plant(tmp_path, {"ref.py": "def f(:\n"})
    suite = ONE.replace("CHECK", "{same_as: ref.py, file: hello.py}")
    done = measure(tmp_path, suite, saying("a"))
    assert done.status == 1
    assert "ref.py is not Python" in done.stderr
    assert done.result == {}


def test_made_code_sees_neither_tokens_nor_the_result(tmp_path: Path) -> None:
    script = doing(run("env > seen.txt; true"), write("t.sh", "env"))
    seen = "{not_regex: 'secret|SWARM_RESULT|SWARM_CASES|SWARM_MODEL', file: seen.txt}"
    suite = ONE.replace("CHECK", seen).replace("small}", "small, key_env: KEY}")
    suite += "      - {command: '! sh t.sh | grep -E \"secret|SWARM_RESULT|SWARM_MODEL\"'}\n"
    env = {"KEY": "secret-1", "SWARM_MODEL_TOKEN": "secret-2", "SWARM_MODEL_URL": "http://x"}
    suite = suite.replace("checks: [", "checks:\n      - ").replace("seen.txt}]", "seen.txt}")
    done = measure(tmp_path, suite, script, **env)
    assert done.passed == {"c": True}, done.feedback


def test_tools_stay_in_the_workspace(tmp_path: Path) -> None:
    told: list[str] = []
    calls = [
        ("read_file", {"path": "../../secret"}),
        ("write_file", {"path": "/tmp/x", "content": "a"}),
        ("run", {"command": "ln -s / away"}),
        ("read_file", {"path": "away/etc/passwd"}),
        ("edit_file", {"path": "hello.py", "old": "n", "new": "m"}),
        ("edit_file", {"path": "hello.py"}),
        ("fly", {}),
        ("read_file", {"path": "hello.py"}),
        ("run", {"command": "echo out; echo err >&2; exit 4"}),
    ]

    def script(body: Json) -> Reply:
        told.extend(f"{b.get('is_error', False)} {b['content']}" for b in results(body))
        return doing(*calls)(body)

    assert one(tmp_path, "{unchanged: ['**']}", script)[0]
    assert told == [
        "True '../../secret': give a path inside the working directory",
        "True '/tmp/x': give a path inside the working directory",
        "False (no output, exit 0)",
        "True 'away/etc/passwd': give a path inside the working directory",
        "True `old` is in 'hello.py' 3 times; it must be there once",
        "True edit_file needs the text `old`",
        "True there is no tool 'fly'",
        "False print('nothing')\n",
        "True out\nerr\n\n[exit 4]",
    ]


# --- the model and its server -------------------------------------------------------------------


def test_a_run_that_takes_too_long_fails_alone(tmp_path: Path) -> None:
    def script(body: Json) -> Reply:
        if "number" in request_of(body):
            return Reply.saying("42")
        return doing(run("sleep 60"))(body)

    started = time.monotonic()
    done = measure(tmp_path, SUITE + "timeout: 8s\n", script)
    assert time.monotonic() - started < 36
    assert done.passed == {"greet": False, "answer": True}
    assert "greet: the run: took longer than 8 s" in done.feedback


@pytest.mark.parametrize(
    ("fault", "status", "why"),
    [
        (Fault("status", 500), 1, "no answer from"),
        (Fault("status", 401, message="bad key sekret"), 1, "refuses: 401"),
        (Fault("garbage"), 1, "the answer is not JSON"),
        (Fault("status", 400, message="temperature"), 1, "set `runner: {temperature: null}`"),
    ],
)
def test_a_broken_server_is_no_failed_case(
    tmp_path: Path, fault: Fault, status: int, why: str
) -> None:
    suite = ONE.replace("CHECK", "contains: a").replace("small}", "small, retries: 0}")
    done = measure(tmp_path, suite, lambda request: Reply(fault=fault))
    assert done.status == status
    assert done.stderr.startswith("skill: no answer: ")
    assert why in done.stderr
    assert done.result == {}


def test_a_busy_server_is_waited_for(tmp_path: Path) -> None:
    said_no: list[bool] = []

    def script(body: Json) -> Reply:
        if not said_no:
            said_no.append(True)
            return Reply(fault=Fault("status", 529, {"retry-after": "0.05"}))
        return Reply.saying("a")

    assert one(tmp_path, "{contains: a}", script)[0]


def test_a_conversation_that_outgrows_the_model_is_the_runs_own_end(tmp_path: Path) -> None:
    def script(body: Json) -> Reply:
        if turns(body):
            return Reply(fault=Fault("status", 400, message="prompt is too long"))
        return using(run("true"))

    passed, feedback = one(tmp_path, "{contains: a}", script)
    assert not passed
    assert "c: the run: the server refuses to go on" in feedback
    assert "prompt is too long" in feedback


def test_no_server_and_no_key_are_said(tmp_path: Path) -> None:
    path = tried(tmp_path, ONE.replace("CHECK", "contains: a").replace("base_url: URL, ", ""))
    done = skill("measure", path)
    assert done.status == 2
    assert "runner: no server; set `runner.base_url` or $SWARM_MODEL_URL" in done.stderr


# --- which cases --------------------------------------------------------------------------------

MANY = """
under: {path: SKILL.md}
runner: {base_url: URL, model: small}
questions:
  short: {max_words: 3}
  digit: {regex: '[0-9]'}
cases:
  - {id: a, request: ask a, checks: [{contains: a}], group: left}
  - {id: b, request: ask b, checks: [{contains: b}], group: left}
  - {id: c, request: ask c}
  - {id: held, request: ask held, held_out: true}
"""


def echo(body: Json) -> Reply:
    """Give the last word back."""
    word = request_of(body).split()[-1]
    return Reply.saying(f"{word} 1" if word != "b" else "x y z 2")


def test_each_question_is_asked_of_each_case(tmp_path: Path) -> None:
    done = measure(tmp_path, MANY, echo)
    assert done.passed == {
        "a": True, "short/a": True, "digit/a": True,
        "b": False, "short/b": False, "digit/b": True,
        "short/c": True, "digit/c": True,
    }  # fmt: skip
    assert {c["id"]: c.get("question") for c in done.result["cases"]}["short/b"] == "short"
    assert done.feedback == (
        "2 of 8 cases fail\n"
        "b: contains `b`: does not contain 'b'\n"
        "  its answer: x y z 2\n"
        "short: 1 of 3 cases fail\n"
        "  short/b: 4 words, and at most 3 are wanted"
    )
    assert "group left: 4 of 6" in done.stdout
    assert "question short: 2 of 3" in done.stdout


def test_only_the_cases_that_are_named_are_run(tmp_path: Path) -> None:
    (tmp_path / "named").write_text("short/b\na\ngone\n")
    with MessagesServer(echo) as server:
        path = tried(tmp_path, MANY, server.url)
        done = skill("measure", path, SWARM_CASES=str(tmp_path / "named"))
        assert len(server.requests) == 2
        skill("run", path, "--out", tmp_path / "out", SWARM_CASES=str(tmp_path / "named"))
        assert len(server.requests) == 4
        again = skill("score", path, "--out", tmp_path / "out", SWARM_CASES=str(tmp_path / "named"))
    assert done.passed == again.passed == {"a": True, "short/b": False}
    assert "there is no case 'gone'" in done.stderr
    missing = skill("measure", path, SWARM_CASES=str(tmp_path / "no"))
    assert (missing.status, "SWARM_CASES: cannot be read" in missing.stderr) == (2, True)


def test_held_out_cases_are_run_when_they_are_asked_for(tmp_path: Path) -> None:
    with MessagesServer(echo) as server:
        path = tried(tmp_path, MANY, server.url)
        done = skill("measure", path, "--held-out")
        assert done.passed == {"short/held": True, "digit/held": True}
        none = MANY.replace("held_out: true", "group: x")
        done = skill("measure", tried(tmp_path, none, server.url), "--held-out")
    assert done.status == 2
    assert "suite.yaml:7: cases: no case is held out" in done.stderr


def test_the_majority_of_repeats_decides(tmp_path: Path) -> None:
    script = doing(run("echo $SWARM_SEED > seed"))
    suite = ONE.replace("CHECK", "{regex: '^41$', file: seed}") + "repeats: 3\n"
    done = measure(tmp_path, suite, script, SWARM_SEED="41")
    assert done.passed == {"c": False}
    assert done.metrics["tool_calls"] == 3
    done = measure(tmp_path, suite.replace("regex", "not_regex"), script, SWARM_SEED="41")
    assert done.passed == {"c": True}
    assert done.feedback == "", "a case that passes has nothing to say"


def test_jobs_bound_what_runs_at_once(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    busy = f"d={shared}; mkdir $d/busy.$$; ls -d $d/busy.* | wc -l >> $d/seen; sleep 0.2; "
    cases = "".join(f"  - {{id: c{n}, request: go, checks: [{{calls: run}}]}}\n" for n in range(6))
    suite = MANY[: MANY.index("questions")] + f"jobs: 2\ncases:\n{cases}"
    done = measure(tmp_path, suite, doing(run(busy + "rmdir $d/busy.$$")))
    assert all(done.passed.values())
    seen = [int(n) for n in (shared / "seen").read_text().split()]
    assert (len(seen), max(seen)) == (6, 2)


# --- the judge ----------------------------------------------------------------------------------

JUDGED = """
under: {path: SKILL.md}
runner: {base_url: URL, model: small}
judge: {base_url: URL, model: JUDGE, retries: 0, usd_per_mtok: {input: 1, output: 10}}
questions:
  kind: {ask: "Is it kind?"}
cases:
  - {id: a, request: greet me, checks: [{ask: "Does it greet?", expect: no}]}
"""


def test_the_judge_is_another_model(tmp_path: Path) -> None:
    def script(body: Json) -> Reply:
        if body["model"] == "small":
            return Reply.saying("Good day!")
        assert "Good day!" in conversation(body)
        assert "greet me" not in conversation(body)
        return Reply.saying("yes")

    with MessagesServer(script) as server:
        path = tried(tmp_path, JUDGED.replace("JUDGE", "large"), server.url)
        done = skill("measure", path)
        own = [t for t, r in zip(server.usage.requests, server.requests, strict=True)
               if r.body["model"] == "large"]  # fmt: skip
    assert done.passed == {"a": False, "kind/a": True}
    assert "the judge says yes to 'Does it greet?'" in done.feedback
    assert done.metrics["judge_tokens"] == sum(sum(t) for t in own)
    paid = sum(t.input + t.cache_creation + 10 * t.output for t in own)
    assert done.metrics["judge_usd"] == pytest.approx(paid / 1e6)


def test_a_model_does_not_judge_itself(tmp_path: Path) -> None:
    done = skill("measure", tried(tmp_path, JUDGED.replace("JUDGE", "small")))
    assert done.status == 2
    assert "suite.yaml:4: judge.model: the judge is 'small', and so is the model" in done.stderr
    same = JUDGED.replace("JUDGE", "small, same_model: true")
    assert measure(tmp_path, same, saying("yes")).status == 0


def test_the_judge_may_see_the_request_and_the_files(tmp_path: Path) -> None:
    ask = "{ask: 'Is this done? {{request}}', with_files: true}"
    suite = JUDGED.replace("JUDGE", "large").replace('{ask: "Does it greet?", expect: no}', ask)
    suite = suite[: suite.index("questions:")] + suite[suite.index("cases:") :]
    seen: list[str] = []

    def script(body: Json) -> Reply:
        if body["model"] == "small":
            return doing(write("a.txt", "Hi you"), run("printf '\\377' > b.bin"))(body)
        seen.append(conversation(body))
        return Reply.saying("yes")

    assert measure(tmp_path, suite, script).passed == {"a": True}
    (told,) = seen
    assert "Is this done? greet me" in told
    assert "Done.\n\n--- the file a.txt ---\nHi you\n\n--- the file b.bin ---\n(1 bytes" in told


def test_a_judge_without_an_answer_is_no_failed_case(tmp_path: Path) -> None:
    done = measure(tmp_path, JUDGED.replace("JUDGE", "large"), saying("well, perhaps"))
    assert done.status == 1
    assert "large answers neither yes nor no to 'Does it greet?', twice" in done.stderr
    assert done.result == {}


def test_nothing_stays_behind(tmp_path: Path) -> None:
    nap = f"sleep 7712.{os.getpid():08}"
    assert one(tmp_path, "{contains: Done}", doing(run(f"{nap} & echo started")))[0]
    check_nobody_left(nap)


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("a.js", "/*" * 100_000, "differs from the reference"),
        ("a.js", '\\"' * 100_000, "differs from the reference"),
        ("a.js", "`\\" * 100_000, "differs from the reference"),
        ("a.js", "f\n" * 100_000, "differs from the reference"),
        ("a.py", "x = " + "-" * 5_000 + "1", "a.py is "),
        ("a.py", "x = " + "f(" * 90 + ")" * 90, "differs from the reference"),
        ("a.json", "[" * 100_000, "a.json is not JSON"),
        ("a.yaml", "a0: &a0 [x, x]\n" + "".join(
            f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
        ), "is too large to be compared"),
        ("a.yaml", "&a [*a]", "is nested too deeply"),
    ],
)  # fmt: skip
def test_what_a_model_leaves_cannot_hold_up_its_comparison(
    tmp_path: Path, name: str, content: str, why: str
) -> None:
    plant(tmp_path, {f"ref{Path(name).suffix}": "1"})
    check = f"{{same_as: ref{Path(name).suffix}, file: {name}}}"
    started = time.monotonic()
    passed, feedback = one(tmp_path, check, doing(write(name, content)))
    assert time.monotonic() - started < 30
    assert not passed
    assert why in feedback


def test_files_that_take_the_place_of_others_are_laid_out_again(tmp_path: Path) -> None:
    done = doing(run("rm -r keep; echo new > keep; rm hello.py; mkdir hello.py; touch hello.py/a"))
    assert one(tmp_path, "{command: 'grep -q new keep && test -f hello.py/a'}", done)[0]


@pytest.mark.parametrize("name", ["x" * 300, "keep/me.txt/below", "a/" * 2_500 + "a"])
def test_odd_names_of_a_stranger_fail_their_case_and_nothing_else(
    tmp_path: Path, name: str
) -> None:
    with MessagesServer(editor) as server:
        path = tried(tmp_path, SUITE, server.url)
        skill("run", path, "--out", tmp_path / "out")
    (file,) = (tmp_path / "out").glob("greet*.json")
    told = json.loads(file.read_text())
    told["files"] = {name: {"text": "x"}}
    told["answer"] = "half a character: \ud800" if name.startswith("x") else ""
    file.write_text(json.dumps(told))
    done = skill("score", path, "--out", tmp_path / "out")
    assert done.status == 0, done.stderr
    assert done.passed == {"greet": False, "answer": True}


def test_an_answer_may_hold_anything(tmp_path: Path) -> None:
    text = "half \ud83d, a bell \x07, \x1b[31mred\x1b[0m"
    passed, feedback = one(tmp_path, "{contains: nothing}", saying(text))
    assert not passed
    assert feedback.endswith("its answer: half ?, a bell  ,  [31mred [0m")
