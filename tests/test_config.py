"""The config: what is read, what is refused, and how that is said."""

from __future__ import annotations

import importlib.util
import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.config import (
    RunConfig,
    changed_keys,
    dump,
    load,
    parse,
    restore,
    schema,
)
from swarm.errors import ConfigError
from swarm.groups import HeadlessProposer, MessagesProposer, MutateProposer, ScriptedProposer

ROOT = Path(__file__).parent.parent
CONFIGS = sorted((ROOT / "configs").glob("**/*.yaml"))

BASE = """\
target:
  scope: train.py
  run: python train.py
  metric: {name: loss, goal: minimize}
"""


def good(text: str, *overrides: str) -> RunConfig:
    config = parse(text, Path("run.yaml"), overrides)
    assert restore(dump(config)) == config
    return config


def bad(text: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(text, Path("run.yaml"), overrides)
    return caught.value.message


# --- what is read ------------------------------------------------------------------------------


def test_defaults() -> None:
    config = good(BASE)
    target = config.target
    assert config.name == "run"
    assert config.source == Path("run.yaml").absolute()
    assert config.targets == (target,)
    assert (target.name, target.base, target.dirty) == ("main", "HEAD", "refuse")
    assert target.repo == Path.cwd()
    assert target.scope == ("train.py",)
    assert (target.setup, target.guard, target.run) == (None, (), "python train.py")
    assert target.timeout == 600
    assert (target.slot.gpus, target.slot.cpus, target.slot.count) == (0, 1, "auto")
    assert target.metric.spec.sign == -1
    assert config.agent_names() == [("a1", 0), ("a2", 0)]
    assert config.agents[0].proposer == MutateProposer(kind="mutate")
    assert config.budget.model_dump() == dict.fromkeys(
        ("experiments", "time", "usd", "tokens", "stale", "target")
    )
    assert config.agents[0].budget.model_dump() == config.budget.model_dump()
    assert (config.repair, config.warm_start, config.agents[0].role) == (1, None, None)
    assert (config.lookahead, config.sandbox.mode, config.merge.sync) == (1, "auto", "best")


def test_everything() -> None:
    config = good(
        """\
name: tiny-gpt
target:
  name: gpt
  base: v1.0
  dirty: snapshot
  scope: [train.py, 'src/**/*.py']
  program: Make it fast.
  setup: pip install -r requirements.txt
  guard: [pytest -q, [ruff, check]]
  run: [python, train.py, --lr, 1e-3]
  metric: {name: val_bpb, goal: maximize, pattern: '^val_bpb:\\s*(\\S+)', unit: bpb}
  constraints: [{metric: vram, max: 40000}, {metric: p95, max_regression: 5.5%}]
  change: {max_files: 2, max_lines: 100}
  timeout: 1.5h
  slot: {gpus: 0.5, cpus: 4, count: 3}
agents:
  - {count: 2, proposer: {kind: mutate}, scope: src/, budget: {experiments: 1k}}
  - {proposer: mutate}
lookahead: 0
judge: {keep_above: 2.5}
merge: {sync: none}
budget: {experiments: 5M, time: 2d, stale: 1e3, target: -0.95}
sandbox: off
cluster: {address: head:6379}
"""
    )
    target, budget = config.target, config.budget
    assert target.guard == ("pytest -q", ("ruff", "check"))
    assert target.run == ("python", "train.py", "--lr", "1e-3")
    assert target.constraints[1].max_regression == 0.055
    assert target.timeout == 5400
    assert config.agent_names() == [("a1", 0), ("a2", 0), ("a3", 1)]
    assert config.agents[0].budget.experiments == 1000
    values = (budget.experiments, budget.time, budget.stale, budget.target)
    assert values == (5_000_000, 172800, 1000, -0.95)
    assert config.sandbox.mode == "off"
    assert config.merge.sync == "none"


def test_proposers_that_think() -> None:
    config = good(
        BASE
        + """\
agents:
- count: 6
  proposer: {kind: messages, model: claude-opus-5-5, effort: high, thinking: 2048, timeout: 5m}
  role: explore
  budget: {usd: 12.5, tokens: 5M, time: 3h, stale: 9, target: 0.5}
- proposer:
    kind: messages
    model: qwen
    base_url: http://localhost:11434
    key: MY_KEY
    thinking: adaptive
    stream: false
    extra: {temperature: 0.8}
    prices: {input: 3, output: 15, cache_read: 0.3}
- proposer: {kind: headless, cli: claude}
- proposer: {kind: headless, cli: aider, model: openai/gpt-5.6, args: [--yes], env: [MY_KEY]}
- proposer: {kind: headless, cli: [python, tools/mine.py, --fast], prices: {proposal: 0.2}}
repair: 3
warm_start: last-night
budget: {usd: 20, tokens: 5M}
"""
    )
    labels = [g.proposer.label for g in config.agents]
    assert labels == [
        "messages/claude-opus-5-5",
        "messages/qwen",
        "headless/claude",
        "headless/aider/openai/gpt-5.6",
        "headless/mine.py",
    ]
    assert all(g.proposer.thinks for g in config.agents)
    first, second, _, _, program = config.agents
    assert isinstance(first.proposer, MessagesProposer)
    assert (first.proposer.timeout, first.proposer.key_name) == (300, "ANTHROPIC_API_KEY")
    assert (first.role, first.budget.usd, first.budget.time) == ("explore", 12.5, 10800)
    assert (first.budget.tokens, first.budget.stale, first.budget.target) == (5_000_000, 9, 0.5)
    assert isinstance(second.proposer, MessagesProposer)
    assert second.proposer.extra == {"temperature": 0.8}
    assert second.proposer.prices is not None
    assert (second.proposer.prices.cache_read, second.proposer.prices.cache_write) == (0.3, None)
    assert isinstance(program.proposer, HeadlessProposer)
    assert program.proposer.cli == ("python", "tools/mine.py", "--fast")
    assert (config.repair, config.warm_start) == (3, "last-night")
    assert (config.budget.usd, config.budget.tokens) == (20, 5_000_000)


def test_mutate_has_a_label_too() -> None:
    assert good(BASE).agents[0].proposer.label == "mutate"
    assert not good(BASE).agents[0].proposer.thinks


# --- the judge ---------------------------------------------------------------------------------

SUITE = BASE.replace("{name: loss, goal: minimize}", "{name: cases, goal: maximize}")


def thresholds(*overrides: str, judge: str = "{}") -> tuple[float, float, float, int]:
    judged = good(BASE + f"judge: {judge}\n", *overrides).rule()
    return judged.drop_below, judged.keep_above, judged.once, judged.runs


@pytest.mark.parametrize(
    ("judge", "wanted"),
    [
        ("{}", (1.0, 2.0, 3.0, 5)),
        ("{preset: default}", (1.0, 2.0, 3.0, 5)),
        ("{preset: explore}", (0.0, 1.0, 3.0, 5)),
        ("{preset: strict}", (1.0, 2.5, 3.0, 5)),
        ("{preset: suite}", (0.25, 2.5, 3.0, 12)),
        ("{preset: llm-judged}", (0.25, 2.0, 3.0, 12)),
        ("{preset: strict, keep_above: 1.5}", (1.0, 1.5, 3.0, 5)),
        ("{runs: 3, preset: llm-judged}", (0.25, 2.0, 3.0, 3)),
    ],
)
def test_a_preset_is_where_the_other_keys_start_from(judge: str, wanted: tuple[float, ...]) -> None:
    assert thresholds(judge=judge) == wanted


@pytest.mark.parametrize(
    ("judge", "wanted"),
    [
        ("{}", (0.25, 2.5, 3.0, 12)),
        ("{runs: 4, keep_above: 2}", (0.25, 2.0, 3.0, 4)),
        ("{preset: default}", (1.0, 2.0, 3.0, 5)),
        ("{preset: explore}", (0.0, 1.0, 3.0, 5)),
    ],
)
def test_a_suite_starts_from_a_preset_of_its_own(judge: str, wanted: tuple[float, ...]) -> None:
    judged = parse(SUITE + f"judge: {judge}\n", Path("run.yaml")).rule()
    assert (judged.drop_below, judged.keep_above, judged.once, judged.runs) == wanted


def test_a_preset_can_be_set_and_what_the_file_says_still_wins() -> None:
    assert thresholds("judge.preset=strict") == (1.0, 2.5, 3.0, 5)
    assert thresholds("judge.preset=strict", judge="{keep_above: 2}") == (1.0, 2.0, 3.0, 5)
    assert thresholds("judge.keep_above=2.75", judge="{preset: strict}") == (1.0, 2.75, 3.0, 5)
    old, new = good(BASE), good(BASE, "judge.preset=strict")
    assert changed_keys(old, new) == ["judge.preset", "judge.keep_above"]


def test_every_key_of_the_judge() -> None:
    judged = good(
        SUITE
        + """\
judge:
  preset: llm-judged
  min_delta: 0.50%
  window: 5
  aggregate: median
  keep_if_equal: simpler
  bounds: [0, null]
  max_gain: 30%
  points: [cases, {improves: seconds}, {improves: usd}]
  must_pass: [c1, c2]
"""
    ).rule()
    assert (judged.min_delta, judged.max_gain, judged.window) == ("0.5%", "30%", 5)
    assert judged.bounds == (0.0, None)
    assert judged.points is not None
    assert judged.points.trade == "lexicographic"
    names = [part if isinstance(part, str) else part.name for part in judged.points.of]
    assert names == ["cases", "seconds", "usd"]
    assert judged.must_pass == ("c1", "c2")
    literal = good(SUITE + "judge: {points: {of: [{improves: seconds}, cases], trade: literal}}\n")
    assert literal.rule().points is not None
    assert literal.rule().points.trade == "literal"


@pytest.mark.parametrize(
    ("judge", "message"),
    [
        ("{preset: stric}", "run.yaml:5:17: judge.preset: one of default, suite, explore, strict"),
        ("{preset: stric}", "did you mean `strict`?"),
        ("{preset: [strict]}", "run.yaml:5:17: judge.preset:"),
        ("{presets: strict}", "did you mean `preset`?"),
        ("{windw: 5}", "did you mean `window`?"),
        ("{window: 1}", "judge.window: `all` or a whole number above 1 is wanted, not 1"),
        ("{window: al}", "run.yaml:5:17: judge.window: `all` or a whole number above 1"),
        ("{min_delta: -1}", "judge.min_delta: a number from 0 up or a percentage"),
        ("{min_delta: 5 percent}", "judge.min_delta: a number from 0 up or a percentage"),
        ("{max_gain: 0.0%}", "run.yaml:5:19: judge.max_gain: it must be above 0, or null"),
        ("{bounds: [1]}", "run.yaml:5:17: judge.bounds: two numbers are wanted, [lowest, highest]"),
        ("{bounds: [1, 1]}", "judge.bounds: the lowest, 1, is not below the highest"),
        ("{bounds: [0, true]}", "run.yaml:5:21: judge.bounds.1: a number is wanted, not true"),
        ("{bounds: [0, .inf]}", "run.yaml:5:21: judge.bounds.1: a finite number is wanted"),
        ("{points: []}", "judge.points.of: at least one is needed"),
        ("{points: [cases, cases]}", "judge.points: 'cases' is counted twice"),
        (
            "{points: [case]}",
            "judge.points.of.0: `cases` or `{improves: name}` is wanted, not 'case'",
        ),
        ("{points: [{improvs: seconds}]}", "judge.points.of.0.improvs: unknown key"),
        ("{points: [{improvs: seconds}]}", "did you mean `improves`?"),
        ("{points: {of: [cases], trade: litera}}", "did you mean `literal`?"),
        ("{must_pass: c1}", "judge.must_pass: a list is wanted, not 'c1'"),
        ("{aggregate: avg}", "judge.aggregate: one of last, min, max, mean, median is wanted"),
        ("{keep_if_equal: simple}", "did you mean `simpler`?"),
        (
            "{preset: strict, drop_below: 2.7}",
            "`drop_below` (2.7) must not be above `keep_above` (2.5)",
        ),
        (
            "{preset: strict, once: 2.2}",
            "run.yaml:5:31: judge.once: `keep_above` (2.5) must not be",
        ),
    ],
)
def test_what_the_judge_cannot_use(judge: str, message: str) -> None:
    assert message in bad(SUITE + f"judge: {judge}\n")


def test_points_need_cases() -> None:
    message = bad(BASE + "judge: {points: [cases, {improves: seconds}]}\n")
    assert "run.yaml:5:8: judge: `points` count" in message
    assert "so target.metric is `cases`" in message


def test_empty_sections_are_not_given() -> None:
    config = good(BASE + "budget:\njudge:\n  # all of it commented out\nsandbox:\nname:\n")
    assert config.rule().baseline == 5
    assert config.name == "run"


def test_env_is_text_as_written() -> None:
    env = good(
        BASE + "  env: {A: 3.10, B: no, C: 007, D: true, E: 1e-3, F: 'x', G: 1_000, H: 12:30:00}\n"
    ).target.env
    assert list(env.values()) == ["3.10", "no", "007", "true", "1e-3", "x", "1_000", "12:30:00"]


def test_single_commands_and_words() -> None:
    config = good(BASE + "  guard: pytest -q\nagents: [{proposer: mutate}]\n")
    assert config.target.guard == ("pytest -q",)
    assert config.agents[0].count == 1


def test_anchors_and_merge_keys() -> None:
    config = good(
        BASE + "agents:\n"
        "  - &group {count: 3, scope: src/}\n"
        "  - <<: *group\n    count: 4\n"
        "  - <<: [{count: 7}, *group]\n"
        "  - *group\n",
        "agents.3.count=5",
    )
    assert [g.count for g in config.agents] == [3, 4, 7, 5]
    assert {g.scope for g in config.agents} == {("src/",)}


def test_paths_are_relative_to_the_config(tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf/program.md").write_text("goal")
    (tmp_path / "patches").mkdir()
    for name in ("b.patch", "a.diff", "c.json", "notes.txt"):
        (tmp_path / "patches" / name).write_text("")
    path = tmp_path / "conf/My run.yaml"
    path.write_text(
        BASE + "  repo: ../code\n  program: program.md\nname: x\n"
        "agents:\n- {proposer: {kind: scripted, patches: ../patches, loop: true}}\n"
        "- {proposer: {kind: scripted, patches: [../patches/b.patch]}}\n"
    )
    config = load(path)
    assert config.target.repo == tmp_path / "code"
    assert config.target.program_file == tmp_path / "conf/program.md"
    first, second = (g.proposer for g in config.agents)
    assert isinstance(first, ScriptedProposer)
    assert isinstance(second, ScriptedProposer)
    assert [p.name for p in first.patches] == ["a.diff", "b.patch", "c.json"]
    assert second.patches == (tmp_path / "patches/b.patch",)
    assert config.source == path
    (tmp_path / "conf/program.md").unlink()
    assert restore(dump(config)) == config


def test_a_program_is_a_text_or_an_existing_file() -> None:
    assert good(BASE, "target.program=Be quick").target.program_file is None
    text = "/ is slow:\nfix it"
    assert good(BASE, f"target.program={json.dumps(text)}").target.program_file is None
    for typo in ("progam.md", "./nothing", "/nothing/here"):
        assert "no such file: /" in bad(BASE, f"target.program={typo}")


# --- YAML 1.1's traps --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "value"),
    [("1e-3", 0.001), ("-2.5E+2", -250.0), ("3", 3.0), (".5", 0.5), ("+7.", 7.0)],
)
def test_numbers(written: str, value: float) -> None:
    assert good(BASE + f"budget: {{target: {written}}}\n").budget.target == value


@pytest.mark.parametrize("written", ["no", "on", "yes", "off", "017", "0o17", "0x1f", "1:30", "y"])
def test_text_that_yaml_1_1_reads_otherwise(written: str) -> None:
    assert good(BASE + f"  program: {written}\n").target.program == written
    message = bad(BASE + f"budget: {{target: {written}}}\n")
    assert f"budget.target: a number is wanted, not '{written}'" in message


@pytest.mark.parametrize("written", [".inf", "-.inf", ".nan", "1e999"])
def test_numbers_are_finite(written: str) -> None:
    message = bad(BASE + f"budget: {{target: {written}}}\n")
    assert "run.yaml:5:18: budget.target: a finite number is wanted, not" in message


def test_booleans_are_no_numbers_and_text_is_no_number() -> None:
    assert "a whole number is wanted, not true" in bad(BASE + "lookahead: true\n")
    assert "a whole number is wanted, not '1'" in bad(BASE + "lookahead: '1'\n")
    assert "a number is wanted, not false" in bad(BASE + "budget: {target: false}\n")
    assert "a text is wanted, not 123; quote it" in bad(BASE + "name: 123\n")
    assert "a whole number is wanted, not 1.0" in bad(BASE + "lookahead: 1.0\n")
    huge = "9" * 5000
    assert f"lookahead: a whole number is wanted, not '{huge[:57]}...'" in bad(
        BASE + f"lookahead: {huge}\n"
    )


# --- files that are no config ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "run.yaml: the file is empty; a config needs a `target`"),
        ("# nothing\n", "run.yaml: the file is empty; a config needs a `target`"),
        ("- a\n", "run.yaml:1:1: a config is a mapping of `key: value` lines, not a list"),
        ("word\n", "run.yaml:1:1: a config is a mapping of `key: value` lines, not a single value"),
        ("a:\n\tb: 1\n", "run.yaml:2:1: a tab cannot indent YAML: use spaces"),
        ("a: b: c\n", "run.yaml:1:5: a `:` is not allowed here: quote the text, or check the"),
        ("a: [1, 2\nb: 3\n", "run.yaml:2:2: expected ',' or ']', but got ':'"),
        ("a: 1\n  b: 2\n", "run.yaml:2:4: a `:` is not allowed here"),
        ("  a: 1\nb: 2\n", "run.yaml:2:1: this does not fit what is above it"),
        ("a: 'x\n\n\n", "run.yaml:1:4: a quote is opened here and never closed"),
        ("a: @x\n", "run.yaml:1:4: a text cannot start with this character: quote it"),
        ("a: *x\n", "run.yaml:1:4: found undefined alias 'x'"),
        ("a: 1\n---\nb: 2\n", "run.yaml:2:1: a config is one YAML document, and here begins"),
        ("a: 1\nb: \x07\n", "run.yaml:2:4: the character #x0007 is not allowed in YAML"),
        ("a: " + "[" * 5000, "run.yaml:1:53: nested more than 50 levels deep"),
        ("x" * 2_000_000, "run.yaml: larger than 1 MiB"),
        ("? [a]\n: 1\n", "run.yaml:1:3: a key is one word, not a list or a mapping"),
        ("a: &a [*a]\n", "run.yaml:1:4: a.0: an alias here contains itself"),
        ("a: &a {<<: *a}\n", "run.yaml:1:4: a.<<: an alias here contains itself"),
        ("<<: 3\n", "run.yaml:1:5: <<: `<<` merges mappings only"),
        ("a: !!python/name:os.system x\n", "run.yaml:1:4: a: the tag `!!python/name:os.system`"),
        ('a: "\\ud800"\n', "run.yaml:1:4: half of a surrogate pair is no character"),
        ("a: !!int x\n", "run.yaml:1:4: a: 'x' is not what its tag says"),
    ],
)
def test_not_a_config(text: str, message: str) -> None:
    assert message in bad(text)


def test_the_line_with_a_caret() -> None:
    assert bad(BASE + "lookahaed: 2\n") == (
        "run.yaml:5:1: lookahaed: unknown key\n    lookahaed: 2\n    ^\n  did you mean `lookahead`?"
    )


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    def message(path: Path) -> str:
        with pytest.raises(ConfigError) as caught:
            load(path)
        return caught.value.message

    assert message(tmp_path / "no.yaml") == f"{tmp_path}/no.yaml: no such file"
    assert message(tmp_path) == f"{tmp_path}: this is a directory; name a config file in it"
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"a: 1\nname: caf\xe9\n")
    assert message(latin) == f"{latin}:2:10: not UTF-8: byte 0xe9; save the file as UTF-8"
    latin.write_bytes(BASE.encode("utf-16"))
    assert message(latin).startswith(f"{latin}:1:1: not UTF-8")
    latin.write_bytes(b"\xef\xbb\xbf" + BASE.encode())
    assert load(latin).name == "latin"


@pytest.mark.parametrize("link", ["[{previous}]", "{{<<: [{previous}]}}"])
def test_a_billion_laughs_end(link: str) -> None:
    lines = ["a0: &a0 {k: 1}"]
    for i in range(1, 40):
        nine = ", ".join([f"*a{i - 1}"] * 9)
        lines.append(f"a{i}: &a{i} " + link.format(previous=nine))
    start = time.monotonic()
    assert "more than 10000 values, aliases expanded" in bad("\n".join(lines))
    assert time.monotonic() - start < 5


def test_long_chains_of_aliases_end() -> None:
    chain = "\n".join(f"a{i}: &a{i} [*a{i - 1}]" for i in range(1, 100))
    assert "nested more than 50 levels deep" in bad("a0: &a0 1\n" + chain)


# --- keys --------------------------------------------------------------------------------------


def test_all_problems_at_once_in_the_order_of_the_file() -> None:
    message = bad(
        "target:\n"
        "  scop: train.py\n"
        "  run: python train.py\n"
        "  metric: {name: loss, goal: min}\n"
        "  timeout: 1:30\n"
        "  timeout: 5m\n"
        "sandbox: strict\n"
        "agents:\n"
        "- {count: 2, proposer: {kind: messages}}\n"
    )
    assert [line for line in message.splitlines() if line.startswith("run.yaml")] == [
        "run.yaml:1:1: target.scope: this key is required",
        "run.yaml:2:3: target.scop: unknown key",
        "run.yaml:4:30: target.metric.goal: one of minimize, maximize is wanted, not 'min'",
        "run.yaml:5:12: target.timeout: a duration such as 90s, 3m or 4h is wanted, not '1:30'",
        "run.yaml:6:3: target.timeout: the key is given twice, first on line 5",
        "run.yaml:7:10: sandbox.mode: one of auto, require, off is wanted, not 'strict'",
        "run.yaml:9:14: agents.0.proposer.model: this key is required",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("agents:\n- count: 1\n- modle: x\n", "run.yaml:7:3: agents.1.modle: unknown key"),
        ("agents: [{count: 1}, {cuont: 2}]\n", "run.yaml:5:23: agents.1.cuont: unknown key"),
        ("agents: [{}, {proposer: mutat}]\n", "run.yaml:5:25: agents.1.proposer.kind: there is no"),
        ("agents:\n- {}\n- proposer: 3\n", "run.yaml:7:13: agents.1.proposer: a mapping of keys"),
        (
            "agents: [{proposer: {kind: scripted}}]\n",
            "run.yaml:5:11: agents.0.proposer.patches: this key is required",
        ),
        (
            "agents: [{proposer: {loop: true}}]\n",
            "run.yaml:5:11: agents.0.proposer.kind: this key is required",
        ),
        ("agents: []\n", "run.yaml:5:9: agents: at least one is needed"),
        ("agents: {count: 3}\n", "run.yaml:5:9: agents: a list is wanted, not a mapping"),
        ("agents: [{count: 0}]\n", "run.yaml:5:18: agents.0.count: 1 or more is wanted, not 0"),
        ("agents: [{role: explor}]\n", "did you mean `explore`?"),
        ("agents: [{budget: {dollars: 3}}]\n", "5:20: agents.0.budget.dollars: unknown key"),
        ("agents: [{budget: {tokens: 0.5}}]\n", "agents.0.budget.tokens: a whole number above 0"),
        ("repair: 6\n", "run.yaml:5:9: repair: 5 or less is wanted, not 6"),
        ("repair: true\n", "repair: a whole number is wanted, not true"),
        ("budget: {usd: -1}\n", "run.yaml:5:15: budget.usd: a number above 0"),
        ("budget: {usd: $20}\n", "budget.usd: a number is wanted, not '$20'"),
        ("warm_start: 3\n", "run.yaml:5:13: warm_start: a text is wanted, not 3"),
        ("source: x\n", "run.yaml:5:1: source: unknown key"),
        ("merge: best\n", "run.yaml:5:8: merge: a mapping of keys is wanted, not 'best'"),
        ("name: Best\n", "run.yaml:5:7: name: 'Best' cannot be used: a name becomes part of a git"),
        ("name: a..b\n", "'a..b' cannot be used"),
        ("name: a.lock\n", "'a.lock' cannot be used"),
        ("name: ''\n", "'' cannot be used"),
        ("judge: {drop_below: 3}\n", "judge.drop_below: `drop_below` (3) must not be above `keep"),
        ("judge: {keep_above: 4}\n", "run.yaml:5:21: judge.keep_above: `keep_above` (4) must not"),
        ("judge: {baseline: 1}\n", "judge.baseline: 2 or more is wanted, not 1"),
        ("lookahead: 2\n", "lookahead: 1 or less is wanted, not 2"),
        ("sandbox: false\n", "sandbox.mode: one of auto, require, off is wanted, not false"),
        ("sandbox: {network: yes}\n", "sandbox.network: one of off, on is wanted, not 'yes'"),
        ("sandbox: {memory: much}\n", "sandbox.memory: a size such as 512M or 8G is wanted"),
        ("sandbox: {processes: 1}\n", "sandbox.processes: 4 or more is wanted, not 1"),
        ("sandbox: {file_size: 0}\n", "sandbox.file_size: a size such as 512M or 8G is wanted"),
        ("sandbox: {strict: 1}\n", "sandbox.strict: unknown key"),
        ("cluster: {address: h:99999}\n", "`local` or `host:port` is wanted, not 'h:99999'"),
        ("budget: {experiments: 0.5}\n", "a whole number above 0 such as 100, 10k or 5M is wanted"),
        ("budget: {time: -3}\n", "a duration such as 90s, 3m or 4h is wanted, not -3"),
    ],
)
def test_refused_at_top_level(text: str, message: str) -> None:
    assert message in bad(BASE + text)


@pytest.mark.parametrize(
    ("proposer", "message"),
    [
        ("messages", "5:21: agents.0.proposer.model: this key is required"),
        ("{kind: messages}", "5:11: agents.0.proposer.model: this key is required"),
        (
            "{kind: messages, modle: x}",
            "modle: unknown key\n    agents: [{proposer: {kind: messages",
        ),
        ("{kind: messages, modle: x}", "did you mean `model`?"),
        (
            "{kind: mesages, model: x}",
            "proposer.kind: there is no 'mesages', only messages, headle",
        ),
        ("{kind: mesages, model: x}", "did you mean `messages`?"),
        ("{kind: messages, model: x, effort: hgih}", "did you mean `high`?"),
        ("{kind: messages, model: x, thinking: 20000}", "thinking: must be below `max_tokens` (16"),
        ("{kind: messages, model: x, key: a b}", "proposer.key: an environment variable's name is"),
        ("{kind: messages, model: x, base_url: host}", "5:58: agents.0.proposer.base_url: "),
        ("headless", "5:21: agents.0.proposer.cli: this key is required"),
        ("{kind: headless}", "5:11: agents.0.proposer.cli: this key is required"),
        (
            "{kind: headless, cli: cluade}",
            "5:43: agents.0.proposer.cli: one of claude, codex, gemini, opencode, aider, or a list "
            "of words (argv), is wanted, not 'cluade'; did you mean `claude`?",
        ),
        ("{kind: headless, cli: ./mine}", "or a list of words (argv), is wanted, not './mine'"),
        ("{kind: headless, cli: [a], model: x}", "cli: put `model` and `args` into the command"),
        (
            "{kind: headless, cli: claude, prices: {input: 1}}",
            "5:59: agents.0.proposer.prices: prices by token need both `input` and `output`",
        ),
        ("{kind: messages, model: x, prices: {output: 1, proposal: 2}}", "need both `input` and"),
        (
            "{kind: headless, cli: claude, prices: {}}",
            "prices: give `input` and `output` (USD for a million tokens), or `proposal`",
        ),
        ("{kind: headless, cli: claude, prices: {cache_read: 1}}", "prices: give `input` and `out"),
        ("{kind: messages, model: x, prices: {proposal: -1}}", "prices.proposal: 0"),
        ("{kind: mutate, model: x}", "5:36: agents.0.proposer.model: unknown key"),
    ],
)
def test_refused_proposers(proposer: str, message: str) -> None:
    assert message in bad(BASE + f"agents: [{{proposer: {proposer}}}]\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: best", "run.yaml:5:9: target.name: a target cannot be called `best`"),
        ("weight: 0", "run.yaml:5:11: target.weight: a number above 0 is wanted, not 0"),
        ("hide: [../x]", "target.hide.0: '../x' must lie below `repo`: relative, with `/`"),
        ("read_only: [/no/such]", "target.read_only: no such file or directory: /no/such"),
        ("read_only: [1]", "target.read_only: a path is wanted, not 1"),
        ("score: ''", "target.score: a command is wanted"),
        ("artefacts: [/etc]", "target.artefacts.0: '/etc' must lie below `repo`"),
        ("provider: {base_url: x}", "target.provider.base_url: an address such as http://"),
        ("provider: {usd: 0}", "target.provider.usd: a number above 0 is wanted, not 0"),
        ("env: {SWARM_X: 1}", "run.yaml:5:9: target.env.SWARM_X: swarm sets this variable itself"),
        ("env: {CUDA_VISIBLE_DEVICES: 1}", "swarm sets this variable itself"),
        ("env: {a b: 1}", "an environment variable's name is made of letters, digits and `_`"),
        ("env: {A: [1]}", "target.env.A: a text is wanted, not a list"),
        ("env: {A: }", 'target.env.A: a text is wanted, not nothing; use "" for an empty one'),
        ("guard: [pytest, -q]", "target.guard: this is a list of commands, and '-q' is none"),
        ("guard: ['']", "target.guard.0: a command is wanted: a text for the shell, or a list"),
        ("slot: {gpus: 1.5}", "a share of one GPU or a whole number of them is wanted, not 1.5"),
        ("slot: {count: 0}", "`auto` or a whole number above 0 is wanted, not 0"),
        ("constraints: [{metric: a}]", "a constraint needs `max`, `min` or `max_regression`"),
        ("constraints: [{metric: a, max: 1, min: 2}]", "target.constraints.0.min: above `max` (1)"),
        ("constraints: [{metric: a, max_regression: 5}]", "a percentage such as 5% is wanted"),
        ("constraints: [{metric: a, max: 1, pattern: 'a+'}]", "must have exactly one group"),
        ("constraints: [{metric: loss, max: 1, pattern: '(a)'}]", "`pattern` is for others"),
        (
            "constraints: [{metric: a, max: 1, pattern: (a)}, {metric: a, min: 0, pattern: (b)}]",
            "'a' is read by two patterns",
        ),
        ("exclude: [../x]", "target.exclude"),
        ("change: {max_files: 0}", "target.change.max_files: 1 or more is wanted, not 0"),
        ("setup: [pip, {a: b}]", "target.setup: a command is wanted"),
        ("repo: [x]", "target.repo: a path is wanted, not a list"),
        ("dirty: refsue", "one of refuse, snapshot is wanted, not 'refsue'"),
    ],
)
def test_refused_in_target(text: str, message: str) -> None:
    assert message in bad(BASE + f"  {text}\n")


@pytest.mark.parametrize(
    ("scope", "message"),
    [
        ("[]", "target.scope: at least one is needed"),
        ("[a, /etc/x]", "target.scope.1: '/etc/x' must lie below `repo`"),
        ("../x", "target.scope.0: '../x' must lie below `repo`"),
        ("['!a']", "what may not goes to `exclude`"),
        ("['']", "a path or glob is wanted"),
        ("{a: b}", "a glob or a list of globs is wanted, not a mapping"),
    ],
)
def test_refused_scopes(scope: str, message: str) -> None:
    assert message in bad(BASE.replace("train.py\n", f"{scope}\n", 1))


@pytest.mark.parametrize(
    ("rest", "message"),
    [
        (", pattern: '(a'", "run.yaml:4:49: target.metric.pattern: not a regular expression: miss"),
        (", pattern: abc", "must have exactly one group, the number: this has none"),
        (", pattern: '(a)(b)'", "must have exactly one group, the number: this has 2"),
        (", pattern: '(a)', json: x", "target.metric.json: give `pattern` or `json`, not both"),
        (", unit: 3", "target.metric.unit: a text is wanted, not 3"),
    ],
)
def test_refused_metrics(rest: str, message: str) -> None:
    assert message in bad(BASE.replace("minimize", f"minimize{rest}"))


def test_missing_keys_point_at_the_parents_key() -> None:
    message = bad("name: x\ntarget:\n  metric: {}\n")
    assert "run.yaml:2:1: target.scope: this key is required\n    target:\n    ^" in message
    assert "run.yaml:3:3: target.metric.name: this key is required" in message
    assert "run.yaml:1:1: target: this key is required" in bad("name: x\n")


def test_a_file_with_an_unusable_stem_needs_a_name() -> None:
    with pytest.raises(ConfigError, match="the file's stem 'My run' cannot be used, so give one"):
        parse(BASE, Path("My run.yaml"))
    assert parse(BASE, Path("My run.yaml"), ["name=x"]).name == "x"


# --- overrides ---------------------------------------------------------------------------------


def test_overrides() -> None:
    config = good(
        BASE + "agents: [{count: 1}]\n",
        "agents.0.count=3",
        "agents.1.scope=[src/]",
        "target.env.V=3.10",
        "target.metric.pattern='^x: (.*)=$'",
        "budget.time=90s",
        "budget.time=2m",
        "sandbox=off",
        "name=",
    )
    assert [g.count for g in config.agents] == [3, 1]
    assert config.agents[1].scope == ("src/",)
    assert config.target.env == {"V": "3.10"}
    assert config.target.metric.pattern == "^x: (.*)=$"
    assert config.budget.time == 120
    assert good(BASE, "agents.0.count=3").agent_names()[-1] == ("a3", 0)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("lookahead", "write `path.to.key=value`"),
        ("a..b=1", "write `path.to.key=value`"),
        ("sandbx=off", "sandbx: unknown key\n  did you mean `sandbox`?"),
        ("budget.time=1z", "budget.time: a duration such as 90s, 3m or 4h is wanted, not '1z'"),
        ("judge.runs=[", "judge.runs: not YAML: expected the node content"),
        (
            "target.run.0=x",
            "`target.run` is 'python train.py', which has no keys; set `target.run`",
        ),
        ("agents.1.count=2", "`agents` is a list: use index 0 first, not '1'"),
        ("target.scope=", "target.scope: a glob or a list of globs is wanted, not nothing"),
        ("budget={time: 3, time: 4}", "budget.time: the key is given twice"),
        ("budget.\x1b[2J=1", "unknown key"),
    ],
)
def test_refused_overrides(override: str, message: str) -> None:
    text = bad(BASE, override)
    assert message in text
    assert text.startswith(f"run.yaml: in `--set {override}`: ".replace("\x1b", " "))


def test_an_override_can_mend_the_file() -> None:
    assert good(BASE + "budget: {time: soon}\n", "budget.time=1h").budget.time == 3600


# --- stored and compared -----------------------------------------------------------------------


def test_changed_keys() -> None:
    old = good(BASE + "  env: {A: 1}\n")
    same = parse("# a comment\n" + BASE + "  env: {A: '1'}\nname: other\n", Path("other.yaml"))
    assert changed_keys(old, same) == []
    free = good(BASE + "  env: {A: 1}\nbudget: {time: 3}\nagents: [{count: 9}]\n")
    assert changed_keys(old, free) == []
    new = good(
        BASE.replace("train.py\n", "[train.py, b.py]\n", 1) + "  env: {B: 1}\njudge: {runs: 4}\n"
    )
    assert changed_keys(old, new) == ["target.scope", "target.env.A", "target.env.B", "judge.runs"]


def test_a_stored_config_of_another_version() -> None:
    data = json.loads(dump(good(BASE)))
    data["judge"]["magic"] = 1
    with pytest.raises(ConfigError, match=r"judge\.magic") as caught:
        restore(json.dumps(data))
    assert caught.value.hint is not None


words = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)
durations = st.tuples(st.integers(1, 10_000), st.sampled_from(["ms", "s", "m", "h", "d"]))
numbers = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a config as plain data; JSON is YAML."""
    thresholds = sorted(draw(st.tuples(numbers, numbers, numbers)))
    percent = draw(st.decimals(0, 1000, places=draw(st.integers(0, 4))))
    return {
        "target": {
            "scope": draw(
                st.lists(st.from_regex(r"[a-z*]{1,5}(/[a-z*]{1,5})?", fullmatch=True), min_size=1)
            ),
            "run": draw(words.filter(str.strip) | st.lists(words, min_size=1)),
            "program": draw(words.map(lambda w: f"Goal:\n{w}")),
            "metric": {"name": "m", "goal": "maximize", "unit": draw(words | st.none())},
            "constraints": [{"metric": "c", "max": draw(numbers), "max_regression": f"{percent}%"}],
            "timeout": "{}{}".format(*draw(durations)),
            "slot": {"count": draw(st.just("auto") | st.integers(1))},
            "env": draw(
                st.dictionaries(
                    st.from_regex(r"[A-R_][A-Z0-9_]*", fullmatch=True).filter(
                        lambda n: not n.startswith("CUDA")
                    ),
                    words,
                )
            ),
        },
        "agents": [{"count": draw(st.integers(1, 50))}],
        "judge": dict(zip(("drop_below", "keep_above", "once"), thresholds, strict=True)),
        "budget": {
            "time": draw(st.none() | numbers.filter(lambda n: n > 0)),
            "usd": draw(st.none() | numbers.filter(lambda n: n > 0)),
        },
    }


@settings(max_examples=60, deadline=None)
@given(configs())
def test_dump_and_restore_are_inverse(data: dict[str, Any]) -> None:
    config = parse(json.dumps(data), Path("run.yaml"))
    again = restore(dump(config))
    assert again == config
    assert changed_keys(config, again) == []
    assert dump(again) == dump(config)
    assert dict(config.target.env) == data["target"]["env"]


@settings(max_examples=60, deadline=None)
@given(durations)
def test_durations(duration: tuple[int, str]) -> None:
    amount, unit = duration
    seconds = amount * {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}[unit]
    assert good(BASE, f"budget.time={amount}{unit}").budget.time == pytest.approx(seconds)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_mistyped_key_is_guessed(data: st.DataObject) -> None:
    key = data.draw(st.sampled_from(["lookahead", "sandbox", "cluster", "budget", "agents"]))
    at = data.draw(st.integers(0, len(key) - 1))
    typo = key[:at] + data.draw(st.sampled_from("qvz")) + key[at + 1 :]
    message = bad(BASE + f"{typo}: 1\n")
    assert f"run.yaml:5:1: {typo}: unknown key" in message
    assert f"did you mean `{key}`?" in message


@settings(max_examples=150, deadline=None)
@given(st.text(st.sampled_from("ab:-[]{}&*!'\"#|>%@ \n\t,?<=1.~"), max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    for overrides in ((), (text,)):
        with pytest.raises(ConfigError):
            parse(text if not overrides else BASE, Path("run.yaml"), [*overrides, "repiar=1"])


# --- what is committed -------------------------------------------------------------------------


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.name)
def test_every_config_in_the_repository_loads(path: Path) -> None:
    # One names a socket that only machines with a container engine have.
    engine = path.name == "image-size.yaml" and not Path("/var/run/docker.sock").exists()
    config = load(path, ["target.read_only=[]"] if engine else [])
    assert all(target.scope and target.repo.is_dir() for target in config.targets)


def _generator() -> Any:
    spec = importlib.util.spec_from_file_location("docs", ROOT / "scripts/make_config_docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_committed_schema_and_page_are_current() -> None:
    text = (ROOT / "configs/schema.json").read_text(encoding="utf-8")
    assert text == json.dumps(schema(), indent=2) + "\n", "run scripts/make_config_docs.py"
    page = (ROOT / "docs/config.md").read_text(encoding="utf-8")
    assert page == _generator().page(), "run scripts/make_config_docs.py"


def test_every_key_has_a_doc_line() -> None:
    whole = schema()
    for section in (whole, *whole["$defs"].values()):
        for key, value in section["properties"].items():
            assert value.get("description") or "$ref" in value, key
    assert "source" not in whole["properties"]
    assert whole["oneOf"] == [{"required": ["target"]}, {"required": ["targets"]}]


def test_the_schema_agrees_with_the_loader() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    check = jsonschema.Draft202012Validator(schema())
    example = {
        "target": {
            "scope": "a.py",
            "run": ["python", "a.py"],
            "guard": ["pytest -q", ["ruff", "check"]],
            "metric": {"name": "m", "goal": "minimize", "json": "a.b"},
            "timeout": "10m",
            "slot": {"count": "auto", "gpus": 0.5},
            "env": {"A": "1"},
        },
        "agents": [
            {"proposer": "mutate", "role": "refine", "budget": {"usd": 3, "stale": 4}},
            {"proposer": {"kind": "mutate"}},
            {"proposer": {"kind": "messages", "model": "x", "thinking": 2048, "prices": None}},
            {"proposer": {"kind": "headless", "cli": "codex"}},
            {"proposer": {"kind": "headless", "cli": ["a", "b"], "prices": {"proposal": 1}}},
        ],
        "budget": {"experiments": "10k", "time": 90, "stale": None, "usd": 20, "tokens": "5M"},
        "repair": 0,
        "warm_start": "earlier",
        "sandbox": "off",
    }
    check.validate(example)
    good(json.dumps(example))
    for path, value in (("timeout", "soon"), ("scope", []), ("nothing", 1), ("env", [1])):
        wrong = {**example, "target": {**example["target"], path: value}}
        assert not check.is_valid(wrong)
        bad(json.dumps(wrong))


# --- several targets ----------------------------------------------------------------------------

SEVERAL = """\
targets:
  - {name: a, scope: [x], run: ls, metric: {name: m, goal: minimize}}
  - {name: b, scope: [y], run: ls, metric: {name: cases, goal: maximize}}
agents: [{count: 2}, {targets: [a]}]
judge: {baseline: 3}
"""


def test_each_target_has_its_own_judge_key_by_key() -> None:
    config = good(SEVERAL, "targets.0.judge={min_delta: 2}", "targets.1.judge={drop_below: 2.2}")
    assert (config.rule("a").min_delta, config.rule("a").baseline) == (2.0, 3)
    assert (config.rule("b").preset, config.rule("b").baseline) == ("suite", 3)
    assert config.rule("b").drop_below == 2.2, "below the 2.5 of its preset"
    other = good(SEVERAL, "judge={keep_above: 4, once: 5}", "targets.0.judge={drop_below: 3}")
    assert (other.rule("a").drop_below, other.rule("a").keep_above) == (3.0, 4.0)
    assert config.only("b").targets == (config.named("b"),)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("targets.1.name=a", "targets.1.name: targets.0 is called `a` too"),
        ("targets.1.name=logs", "targets.1.name: `logs` is a file or folder of the run"),
        ("targets.1.name=hub.git", "targets.1.name: `hub.git` is a file or folder of the run"),
        ("targets.1.slot={cpus: 2}", "targets.1.slot: targets share their slots"),
        ("agents.1.targets=[z]", "agents.1.targets.0: there is no target `z`, only a, b"),
        ("agents=[{targets: [a]}]", "agents: no group works on `b`"),
        ("budget={target: 3}", "budget.target: the targets have metrics of their own"),
        ("agents.0.budget={target: 3}", "agents.0.budget.target: the targets have metrics"),
        ("targets.0.judge={points: [cases]}", "targets.0.judge: `points` count cases that pass"),
        (
            "targets.0.judge={drop_below: 2.5}",
            "targets.0.judge.drop_below: `drop_below` (2.5) must",
        ),
        ("targets=[]", "targets: at least one is needed"),
    ],
)
def test_targets_that_do_not_go_together_are_refused(override: str, said: str) -> None:
    assert said in bad(SEVERAL, override)


def test_one_target_or_several() -> None:
    assert "targets: give `target` or `targets`, not both" in bad(SEVERAL + BASE)
    assert "target: this key is required (or `targets`, a list)" in bad("agents: [{count: 1}]\n")


def test_what_differs_between_several_targets_is_named_with_its_place() -> None:
    old = good(SEVERAL)
    assert changed_keys(old, good(SEVERAL, "targets.1.weight=2")) == ["targets.1.weight"]
    assert changed_keys(old, good(SEVERAL, "judge.baseline=4")) == ["judge.baseline"]
    assert changed_keys(old, good(SEVERAL, "targets.0.budget={experiments: 4}")) == []
