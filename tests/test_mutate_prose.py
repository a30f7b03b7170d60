"""mutate on prompts and skills: what it offers, and that nothing it does breaks a text."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proposer_contract import ProposerContract, brief, plant, snapshot, workspace
from targets import fold, launch_inline, make_repo

from swarm.briefing import Idea
from swarm.config import parse
from swarm.errors import PreconditionError
from swarm.proposers import ExhaustedError, NoProposalError, mutate_prose
from swarm.proposers.examples import Example, ExamplesError, read
from swarm.proposers.mutate import Mutate, sites
from swarm.proposers.mutate_sites import Edit, Site
from swarm.proposers.ready import check
from swarm.records import Attempt
from swarm.scope import Scope

SKILL = """---
name: reply
description: Should be short. Try to help. Takes 3 steps.
---

# Reply skill

You write replies to customers. You should be polite, and must name the order. See [a](https://x.y/must).

## Tone

Try to be brief. Avoid jargon. **Never promise a refund.** Use e.g. plain words.

- You may use a list.
- Prefer using short words
- Keep `you should` as it is.

## Steps

Do this:

1. Read the message.
2. Write the reply, if possible.
   - keep the name
3. Check it. See [tone](#tone).

```sh
echo "you should not touch this." # Never.
```

| a | b |
|---|---|
| must | should |

## Input

The message is {{input}}. You should answer it.
"""
C3 = Example("c3", "Where is my order?", "Hello,\n\nit is on its way.")
PROMPT = (
    "You are a helpful clerk. Answer in English.\n\nKeep it short. Do not joke.\n\n"
    "Rules:\n- never guess\n- be exact\n\n{{input}}\n"
)


def edits(text: str, kind: str = "", *examples: Example, path: str = "p.md") -> dict[str, Edit]:
    """Give the edits of a kind by their summaries, without the file's name."""
    found = [
        e for s in sites(path, text, examples) if s.kind == kind or not kind for e in s.edits()
    ]
    return {e.summary().removesuffix(f" in {path}"): e for e in found}


class TestContract(ProposerContract):
    files: ClassVar[dict[str, str]] = {
        "train.py": "",
        "conf/SKILL.md": SKILL,
        "README.md": "Not me.",
    }

    def make(self, tmp_path: Path) -> Mutate:
        return Mutate("a1")


# --- what is offered ---------------------------------------------------------------------------


def test_sections_can_go_unless_something_hangs_on_them() -> None:
    found = edits(SKILL, "section")
    # `Tone` is linked from elsewhere, `Input` holds the placeholder, the title holds everything.
    assert set(found) == {"delete the section `Steps`"}
    new = found["delete the section `Steps`"].apply(SKILL)
    assert new == SKILL[: SKILL.index("## Steps")] + SKILL[SKILL.index("## Input") :]
    unlinked = SKILL.replace("[tone](#tone)", "above")
    assert "delete the section `Tone`" in edits(unlinked, "section")


def test_sections_move_whole_and_the_blank_lines_stay() -> None:
    found = edits("# T\n\nHi.\n\n## A\n\na.\n\n## B\nb.\n### B1\nb1.\n\n\n## C\n\nc.", "move")
    assert found["move `C` before `A`"].apply(SKILL[:0] + "# T\n\nHi.\n\n## A\n\na.\n\n## B\nb.\n"
        "### B1\nb1.\n\n\n## C\n\nc.") == (
        "# T\n\nHi.\n\n## C\n\nc.\n\n## A\n\na.\n\n\n## B\nb.\n### B1\nb1."
    )  # fmt: skip
    assert {"move `A` to the end", "move `A` before `C`", "move `C` before `B`"} <= set(found)
    assert not any("`B1`" in name.split(" before ")[0] for name in found)  # an only child
    assert not any(name.startswith("move `Input`") for name in edits(SKILL, "move"))


def test_paragraphs_stand_for_sections_where_there_are_none() -> None:
    assert list(edits(PROMPT, "section", path="p.txt")) == [
        "delete the section `You are a helpful clerk. Answer in English.`",
        "delete the section `Keep it short. Do not joke.`",
        "delete the section `Rules:`",
    ]
    rules = edits(PROMPT, "section", path="p.txt")["delete the section `Rules:`"]
    assert rules.apply(PROMPT).endswith("Do not joke.\n\n{{input}}\n")


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("You write replies to customers.", "# Reply skill\n\nYou should be polite"),
        ("**Never promise a refund.**", "Avoid jargon. Use e.g. plain words.\n"),
        ("Use e.g. plain words.", "**Never promise a refund.**\n\n- You"),
        ("Prefer using short words", "- You may use a list.\n- Keep `you"),
        ("Read the message.", "this:\n\n1. Write the reply, if possible.\n   - keep the name\n2. "),
        ("You should answer it.", "The message is {{input}}.\n"),
    ],
)  # fmt: skip
def test_a_sentence_goes_and_the_rest_is_as_if_it_had_never_been(said: str, left: str) -> None:
    edit = edits(SKILL, "sentence")[f"delete the sentence `{said}`"]
    assert left in edit.apply(SKILL)
    assert said not in edit.apply(SKILL)


def test_sentences_on_which_something_hangs_stay() -> None:
    offered = " ".join(edits(SKILL, "sentence"))
    for kept in ("Do this", "keep the name", "{{input}}", "echo", "description", "Write the reply"):
        assert kept not in offered
    # A list of one item, a section of one sentence, one bracket too many, an abbreviation.
    for text in ("Rules:\n\n- be kind\n\nBye now.", "# A\n\nBe kind.\n\n# B\n\nOh. No (one."):
        found = edits(text, "sentence")
        assert "delete the sentence `be kind`" not in found
        assert "delete the sentence `Be kind.`" not in found
        assert "delete the sentence `No (one.`" not in found


@pytest.mark.parametrize(
    ("said", "new"),
    [
        ("It should work.", {"It must work.", "It may work."}),
        ("It MAY work.", {"It SHOULD work.", "It MUST work."}),
        ("You must work.", {"You should work.", "You MUST work."}),
        ("Try to be kind.", {"Be kind."}),
        ("You must try to be kind.",
         {"You must be kind.", "You should try to be kind.", "You MUST try to be kind."}),
        ("Avoid jargon.", {"Never use jargon."}),
        ("Avoid repeating words.", {"Never repeat words."}),
        ("Avoid fiddling.", set()),
        ("Prefer short words.", {"Always use short words."}),
        ("Don't joke.", {"Never joke."}),
        ("Never joke.", {"Try not to joke.", "NEVER joke."}),
        ("We usually joke.", {"We always joke."}),
        ("Cite it, where possible.", {"Cite it."}),
        ("Ideally, cite it.", {"Cite it."}),
        ("If they may go, say `you should`.", set()),
        ("In May it rains.", set()),
        ("- **You should** go", {"- **You must** go", "- **You may** go"}),
        ("Say {{you_must}} or see [must](a/must.md).", set()),
    ],
)  # fmt: skip
def test_modal_words_get_stronger_and_weaker(said: str, new: set[str]) -> None:
    text = f"Hello there.\n\n{said}\n"
    assert {e.apply(text).splitlines()[2] for e in edits(text, "modal").values()} == new


def test_the_summary_says_what_changes() -> None:
    found = list(edits("# A\n\nYou SHOULD answer in one line.\n", "modal"))
    assert found[0] == "SHOULD -> MUST in `You SHOULD answer in one line.`"
    assert "drop `, if possible` in `Write the reply, if possible.`" in edits(SKILL, "modal")


def test_the_site_of_a_modal_word_survives_its_change() -> None:
    text = "# A\n\nYou may answer.\n"
    key = next(s.key for s in sites("p.md", text) if s.kind == "modal")
    stronger = edits(text, "modal")["may -> should in `You may answer.`"].apply(text)
    assert next(s.key for s in sites("p.md", stronger) if s.kind == "modal") == key


def test_a_number_is_changed_in_a_sentence_only() -> None:
    text = SKILL.replace("# Never.", "3 # Never.").replace("| must |", "| 4 |")
    text = text.replace("Avoid jargon.", "Use at most 7 words.")
    assert [s.text for s in sites("p.md", text) if s.kind == "number"] == ["7"]


def test_a_very_long_text_is_left_alone() -> None:
    part = "## Part {n}\n\nYou should do {n} things. Then rest.\n\n- one. Two.\n\n"
    long = "".join(part.format(n=n) for n in range(1_400))
    found = mutate_prose.sites("p.md", long)
    assert {s.kind for s in found} == {"section", "sentence", "modal"}  # too many to be moved
    assert {s.kind for s in sites("p.md", long * 2)} == {"number"}


def test_lists_of_words_are_no_prose() -> None:
    text = "You should pin this. Really now.\n\nIt must be here. Yes it must.\n"
    for path in ("requirements.txt", "dev-requirements.txt", "CMakeLists.txt", "notes.rst"):
        assert not edits(text, path=path)
    assert edits(text, path="prompts/system.txt")


# --- nothing breaks ----------------------------------------------------------------------------

PIECES = st.sampled_from(
    [
        "---\na: must be.\n---\n", "# Title\n", "## Part\n", "### Deep\n", "Part\n----\n", "\n",
        "You should go. Then [stop](#part).\n", "Try to see `x. Y` now. Or (perhaps\nnot). Yes.\n",
        "Rules:\n", "- never lie\n", "- one\n  two. Three.\n", "  - below it\n", "1. First.\n",
        "2. Second.\n", "10) Tenth. More.\n", "```py\nx = 'You must.'\n```\n",
        "~~~\n# must. Yes.\n~~~\n", "- item:\n  ```\n  must. X\n  ```\n",
        "| a | b |\n|---|---|\n| must. | c |\n",
        "> You must. Quote.\n", "<example>\nYou must.\n\nX. Y.\n</example>\n",
        "<rules>\nObey. You must.\n</rules>\n",
        "<rules>\n",
        "Say {{input}}. You may.\n", "{{other}}\n", "<!-- must.\n\nnow. -->\n", "@AGENTS.md\n",
        "    code must. X\n", "[a]: http://x.y/must\n", "Hi {name}! You must. \"A. B\" c.\n",
        "他应该走。必须停！\n", "***\n", "**Bold. Always** so. Never so.\n",
        "Dr. No must. E.g. this. Etc. Yes.\n",
    ]
)  # fmt: skip
LINKS = re.compile(r"\[[^\]\n]*\]\([^)\n]*\)")


def fixed(text: str) -> tuple[object, ...]:
    """Give what no edit may break: fences, tables, marks and what programs fill in."""
    lines = text.splitlines()
    matter = text[: text.index("---\n", 4) + 4] if text.startswith("---\na") else ""
    return (
        matter,
        Counter(re.findall(r"\{\{.*?\}\}|\{name\}", text)),
        Counter(line for line in lines if line.startswith(("@", "[a]:", "<!--", "now. -->"))),
    )


def kept_or_gone_whole(old: str, new: str) -> None:
    """Check that of what is sealed each is there whole, or not at all."""
    pieces = (
        "```py\nx = 'You must.'\n```\n", "~~~\n# must. Yes.\n~~~\n", "  ```\n  must. X\n  ```\n",
        "| a | b |\n|---|---|\n| must. | c |\n",
        "> You must. Quote.\n", "<example>\nYou must.\n\nX. Y.\n</example>\n", "    code must. X\n",
    )  # fmt: skip
    for piece in pieces:
        first, last = piece.splitlines()[0], piece.splitlines()[-1]
        for line in (first, last):
            lost = old.count(line) - new.count(line)
            assert lost == (old.count(piece) - new.count(piece)) * (1 + (first == last)) or (
                piece.count("\n") == 1
            ), (piece, new)


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES, min_size=1, max_size=14), st.sampled_from(["\n", "\r\n"]))
def test_no_edit_breaks_a_text(parts: list[str], end: str) -> None:
    joined = "".join(parts)
    text = joined.replace("\n", end)
    found = [s for s in sites("p.md", text, (C3,)) if s.kind != "number"]
    assert len({site.key for site in found}) == len(found)
    for site in found:
        assert text[site.start : site.end] == site.text
        for edit in site.edits():
            new = edit.apply(text)
            assert new != text
            assert new.strip()
            assert edit.summary().isprintable()
            assert "\r" not in new.replace("\r\n", "") if end == "\r\n" else "\r" not in new
            plain = new.replace("\r\n", "\n")
            if site.kind == "example":
                plain = plain.replace("\n\n## Examples", "")
            assert fixed(plain)[1:] == fixed(joined)[1:] or "<!--" in joined, edit.summary()
            assert plain.startswith(str(fixed(joined)[0]))
            assert len(LINKS.findall(plain)) == plain.count("](")
            if site.kind in ("sentence", "modal"):
                kept_or_gone_whole(joined, plain)
            if site.kind == "move":
                words = [re.findall(r"\S+", t) for t in (joined, plain)]
                assert Counter(words[0]) == Counter(words[1])


# --- examples ----------------------------------------------------------------------------------


def test_an_example_is_added_before_the_input_and_can_be_dropped_again() -> None:
    added = edits(SKILL, "example", C3)["example added from case c3"].apply(SKILL)
    head, _, tail = added.partition("## Examples\n\n")
    assert tail.startswith(
        "<example>\n<input>\nWhere is my order?\n</input>\n<output>\nHello,\n\nit"
    )
    assert tail.endswith("</example>\n\n" + SKILL[SKILL.index("## Input") :])
    assert head == SKILL[: SKILL.index("## Input")]
    other = Example("c4", "And?", "Yes.")
    both = edits(added, "example", C3, other)["example added from case c4"].apply(added)
    assert both.count("## Examples") == 1
    assert both.index("Where is") < both.index("And?") < both.index("## Input")
    dropped = edits(both, "example", C3, other)["example c4 dropped"].apply(both)
    assert dropped == added
    # Nothing else changes a word, or a number, of an example.
    inside = added[added.index("<example>") : added.index("</example>")]
    others = [e for e in edits(added).values() if e.site.kind not in ("example", "section")]
    assert all(inside in e.apply(added) for e in others)


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("You are kind. Be brief.\n", "Be brief.\n\n<example>"),
        ("You are kind. Be brief.", "Be brief.\n\n<example>"),
        ("Be brief.\n\n{{input}}\n", "Be brief.\n\n<example>"),
        ("# A\n\nBe brief. Now.\n\n## B\n\nHi.\n", "Hi.\n\n## Examples\n\n<example>"),
        ("# A\n\nBe brief.\n\n## Examples\n\nHere:\n\n## B\n\nHi.\n", "Here:\n\n<example>"),
    ],
)
def test_an_example_has_its_place(text: str, end: str) -> None:
    added = edits(text, "example", C3)["example added from case c3"].apply(text)
    assert end in added
    assert "</example>\n" in added


def test_an_example_that_would_be_taken_for_something_else_is_not_offered() -> None:
    bad = [
        Example(str(n), "q", said) for n, said in enumerate(("{{x}}", "a</example>", "</output>"))
    ]
    assert not edits(SKILL, "example", *bad)
    braces = Example("j", "q", '{"a": 1}')
    assert edits(SKILL, "example", braces)
    assert not edits("Hello {name}. Be brief.\n", "example", braces)


def test_no_more_than_five_examples_are_put_in() -> None:
    many = tuple(Example(f"c{n}", f"q{n}", f"a{n}") for n in range(9))
    text = SKILL
    for n in range(5):
        text = edits(text, "example", *many)[f"example added from case c{n}"].apply(text)
    assert all(name.endswith("dropped") for name in edits(text, "example", *many))


CASES = {
    "cases/train.jsonl": '{"id": "c1", "input": "one?", "output": "1"}\n\n'
    '{"request": "two?", "good": "2"}\n',
    "cases/suite.yaml": "under: {kind: skill}\ncases:\n- {id: s1, request: go, reference: ref/s1}\n"
    "- {id: s2, request: stop, reference: ref/s2}\n- {id: s3, request: x, good: y, "
    "held_out: true}\n"
    "- {id: s4, request: no answer}\n",
    "cases/ref/s1/a.py": "a = 1\n",
    "cases/ref/s2/b.py": "b = 2\n",
    "secret/held.yaml": "- {id: h1, request: never, output: seen}\n",
    "more/index.yaml": "cases: {file: 'each/*.yaml'}\n",
    "more/each/e1.yaml": "id: e1\nrequest: eins\nanswer: {a: 1}\n",
}  # fmt: skip


def test_examples_come_from_training_cases_of_many_forms(tmp_path: Path) -> None:
    root = plant(tmp_path / "w", CASES)
    hidden = Scope(["secret/", "cases/ref/s2/"], guarded=False)
    found = read(root, ["cases/*.jsonl", "**/*.yaml"], hidden)
    assert {e.id: e.answer for e in found} == {
        "c1": "1",
        "train-2": "2",
        "s1": "a.py:\na = 1",
        "e1": '{\n "a": 1\n}',
    }


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.jsonl", '{"a": 1}\n{oops\n', "a.jsonl:2: not JSON"),
        ("a.json", "[1,", "a.json:1: not JSON"),
        ("a.yaml", "a: [\n", "a.yaml:2: not YAML"),
        ("a.yaml", "text", "a.yaml: a list of cases"),
        ("a.yaml", "- text", "a.yaml: case 1 is no mapping"),
        ("b.yaml", "- {request: a, output: b}", "no file in `w` fits `a.*`"),
        ("a.hidden", "- {request: a, output: b}", "`hide` names all that fits `a.*`"),
    ],
)
def test_examples_that_cannot_be_read_are_named(
    tmp_path: Path, name: str, text: str, said: str
) -> None:
    root = plant(tmp_path / "w", {name: text, "p.md": SKILL})
    hidden = Scope(["a.hidden"], guarded=False)
    with pytest.raises(ExamplesError, match=re.escape(said)):
        read(root, ["a.*"], hidden)
    space = replace(workspace(root, ("p.md",)), hidden=hidden)
    with pytest.raises(NoProposalError, match=re.escape(said)):
        Mutate("a1", ("a.*",)).propose(space, brief())


def test_a_launch_is_refused_when_its_examples_are_no_examples(tmp_path: Path) -> None:
    top = make_repo(tmp_path / "repo", {"p.md": SKILL, "cases.yaml": "- {request: a}\n"})
    text = """
target: {{repo: {repo}, scope: [p.md], run: 'true', metric: {{name: x, goal: minimize}}}}
agents: [{{proposer: {{kind: mutate, examples: {examples}}}}}]
"""
    for examples, said in (
        ("cases.yaml", "no case in cases.yaml"),
        ("no.yaml", "no file in `repo`"),
    ):
        config = parse(text.format(repo=top, examples=examples), tmp_path / "c.yaml")
        with pytest.raises(PreconditionError, match=re.escape(said)):
            check(config, {})
    (top / "cases.yaml").write_text("- {request: a, output: b}\n")
    check(parse(text.format(repo=top, examples="cases.yaml"), tmp_path / "c.yaml"), {})


# --- as a proposer -----------------------------------------------------------------------------


def test_no_text_comes_twice_and_the_end_is_told(tmp_path: Path) -> None:
    files = {"p.md": SKILL, "cases.jsonl": '{"id": "c3", "input": "Where?", "output": "Here."}\n'}
    root = plant(tmp_path / "w", files)
    seen: list[object] = []
    summaries: list[str] = []
    end = ""
    for seed in range(200):
        plant(root, files)
        space = workspace(root, ("p.md",), seen)
        try:
            draft = Mutate("a1", ("cases.jsonl",)).propose(space, brief(seed))
        except ExhaustedError as error:
            end = error.reason
            break
        assert snapshot(root) not in seen
        seen.append(snapshot(root))
        summaries.append(draft.summary)
    possible = {e.apply(SKILL) for e in edits(SKILL, "", Example("c3", "Where?", "Here.")).values()}
    assert "every edit" in end
    assert len(possible) == len(seen)
    assert len(set(summaries)) == len(summaries)


def test_what_lost_is_not_tried_again_and_a_win_is_carried_over(tmp_path: Path) -> None:
    root = plant(tmp_path / "w", {"p.md": SKILL})

    def propose(seed: int, attempts: tuple[Attempt, ...] = (), port: Idea | None = None) -> str:
        plant(root, {"p.md": SKILL})
        draft = Mutate("a1").propose(workspace(root, ("p.md",)), brief(seed, attempts, port=port))
        return draft.summary

    found: dict[str, Site] = {s.kind: s for s in sites("p.md", SKILL)}
    edit = found["move"].edits()[0]
    lost = tuple(
        Attempt(number=n, agent="a2", base="c0", summary="x", verdict="discard", gain=-0.3,
                edit=e.to_json())
        for n, e in enumerate((e for s in sites("p.md", SKILL) if s.kind in ("modal", "section")
                               for e in s.edits()), start=1)
    )  # fmt: skip
    assert not any(" -> " in propose(s, lost) or "section" in propose(s, lost) for s in range(12))
    idea = Idea(number=9, summary="", rationale="", diff="", edit=edit.to_json())
    assert propose(1, (), idea) == edit.summary()


def test_a_run_improves_a_prompt_without_a_model(tmp_path: Path) -> None:
    """A measure that likes firm words and an example: mutate finds both, through a whole run."""
    make_repo(
        tmp_path / "repo",
        {
            "prompt.md": "# Task\n\nYou should answer in English. Try to be brief.\n\n{{input}}\n",
            "cases.yaml": "- {id: c1, request: Hi, output: Hello.}\n",
            "measure.py": "text = open('prompt.md').read()\nassert '{{input}}' in text\n"
            "print('METRIC good=%d' % (text.count('must') + 2 * text.count('<example>')))\n",
        },
    )
    text = """
target:
  {repo: repo, scope: [prompt.md], run: python3 measure.py, metric: {name: good, goal: maximize}}
agents: [{proposer: {kind: mutate, examples: cases.yaml}}]
judge: {baseline: 2, runs: 2, confirm: 1}
budget: {experiments: 20, target: 3}
sandbox: "off"
"""
    opened, _ = launch_inline(parse(text, tmp_path / "prompt.yaml"))
    state = fold(opened)
    kept = [e.proposal.summary for e in state.experiments.values() if e.verdict == "keep"]
    assert {"example added from case c1 in prompt.md"} < set(kept)
    assert any(s.startswith("should -> must in ") for s in kept)
    assert json.loads(json.dumps([e.proposal.edit for e in state.experiments.values()]))
