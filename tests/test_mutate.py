from __future__ import annotations

import ast
import json
import math
import random
import re
import statistics
import time
import tomllib
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from proposer_contract import ProposerContract, brief, plant, snapshot, workspace

from swarm.briefing import Idea
from swarm.proposers import Draft, ExhaustedError, NoProposalError, Workspace
from swarm.proposers.mutate import Mutate, sites
from swarm.proposers.mutate_sites import (
    Edit,
    Scale,
    Site,
    move,
    position,
    read_number,
    write_number,
)
from swarm.records import Attempt, Verdict
from swarm.scope import Scope

TRAIN = '''"""A training script, version 1.2 of 2024."""

import math
from typing import Literal

import torch
from torch import nn

# The model
DEPTH = 4
WIDTH = 64  # a power of two
DROPOUT = 0.2
CONTEXT = 96
STD = 0.02
ACTIVATION = "relu"
NORM = "pre"  # pre | post

# The optimiser
LEARNING_RATE = 1e-4
WEIGHT_DECAY = 0.1
BETAS = (0.9, 0.999)
MOMENTUM = 0.9
CLIP = 1.0
BATCH = 2**6
WARMUP = 0
SCHEDULE: Literal["constant", "cosine"] = "constant"
FUSED = False
SEED = 42
PATH = "data/train.bin"

TABLE = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU}


def act(name: str = ACTIVATION) -> nn.Module:
    """Look the activation up, with 3 words of text."""
    return TABLE[ACTIVATION]()


class Block(nn.Module):
    def __init__(self, width: int, *, expansion: int = 4) -> None:
        super().__init__()
        self.up = nn.Linear(width, expansion * width, bias=True)
        self.down = nn.Linear(expansion * width, width, bias=False)
        self.drop = nn.Dropout(p=DROPOUT)

    def forward(self, x):
        x = self.down(act()(self.up(x)))  # the MLP
        x = self.drop(x)
        return x[:, 0, 1:]


def rate(step: int, steps: int) -> float:
    if step < WARMUP:
        return LEARNING_RATE * step / WARMUP
    if SCHEDULE == "cosine" and steps > 0:
        return LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * step / steps))
    return LEARNING_RATE


def train(model, data, steps=1_000):
    torch.manual_seed(7)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=BETAS, eps=1e-8)
    unused = model.state_dict()
    for step in range(steps):
        loss = model(next(data)).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        torch.cuda.synchronize()
        print(f"step {step} of 10", "loss", 5)
    return loss


if __name__ == "__main__":
    train(Block(WIDTH), iter([torch.zeros(2, 3)]))
'''
CONF = """# depth 9
model:
  depth: 4  # layers
  act: 'relu'  # relu | gelu
  bias: true
optimizer: {lr: 1.0e-3, betas: [0.9, 0.999]}
name: run-7
seed: 3
notes: |
  keep 5 of these
"""
TOML = """top = 3 # of 5
[tool.fit]
lr = 1e-3
shuffle = true
act = "gelu"  # relu | gelu
rates = [1, 2.5,
  3]
inline = { a = 1, b.c = 2.0 }
text = '''x = 3'''
day = 2024-01-01
[[items]]
count = 10_000
"""
JSON = """{"fit": {"lr": 0.001, "layers": [1, {"depth": 3}], "fused": true, "opt": "adam"},
 "version": 3}"""
SHELL = "#!/bin/sh\n# lr 5\nLR=0.01\npython fit.py --depth=4 --tag 1.2.3  # 16\n"
PROSE = "# Step 1\n1. Take at most 3 files (see v1.2.3, http://x.y/3).\nGive 10 examples.\n"
FILES = {
    "train.py": TRAIN,
    "a/conf.yaml": CONF,
    "fit.toml": TOML,
    "fit.json": JSON + "\n",
    "run.sh": SHELL,
    "SKILL.md": PROSE,
    "broken.py": "def f(:\n    RATE = 0.5  # 7\n",
    "crlf.py": TRAIN.replace("\n", "\r\n"),
    "unicode.py": "\ufeff" + TRAIN.replace("# The", "# Ünïcödé 🙂 The").replace("act(", "äct("),
}


def keyed(path: str, text: str | None = None) -> dict[str, Site]:
    found = sites(path, FILES[path] if text is None else text)
    return {site.key.partition(":")[2]: site for site in found}


def parses(path: str, text: str) -> bool:
    match path.rpartition(".")[2]:
        case "py":
            ast.parse(text.removeprefix("\ufeff"))
        case "yaml":
            yaml.safe_load(text)
        case "toml":
            tomllib.loads(text)
        case "json":
            json.loads(text)
        case _:
            pass
    return True


class TestContract(ProposerContract):
    def make(self, tmp_path: Path) -> Mutate:
        return Mutate("a1")


# --- sites -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", FILES)
def test_every_edit_is_an_exact_splice_that_parses(path: str) -> None:
    text = FILES[path]
    found = sites(path, text)
    assert found
    assert len({site.key for site in found}) == len(found)
    for site in found:
        assert text[site.start : site.end] == site.text
        assert 0 < site.weight <= 1.5
        for edit in site.edits():
            new = edit.apply(text)
            assert new != text
            # All but the token is byte for byte what it was, so putting the token back restores.
            end = site.start + len(edit.new)
            assert new[: site.start] + site.text + new[end:] == text
            assert path == "broken.py" or parses(path, new), edit.summary()
            assert edit.summary().isprintable()
            assert json.loads(json.dumps(edit.to_json())) == edit.to_json()
            if site.kind == "number":
                value = read_number(edit.new)
                assert value is not None
                assert type(value) is type(site.value)
                assert value == edit.to


def test_the_constants_of_a_script_come_first_and_keep_their_notation() -> None:
    found = keyed("train.py")
    new = {key: [edit.new for edit in site.edits()] for key, site in found.items()}
    assert new["LEARNING_RATE"][:4] == ["2e-4", "5e-5", "1.4e-4", "7.1e-5"]
    assert new["DROPOUT"][:3] == ["0.0", "0.4", "0.1"]
    assert new["BETAS[0]"][:2] == ["0.95", "0.8"]
    assert new["BETAS[1]"][:2] == ["0.9995", "0.998"]
    assert new["WIDTH"][:2] == ["128", "32"]
    assert set(new["DEPTH"]) == {"8", "2", "6", "3", "16", "1", "5"}
    assert "7" in new["BATCH"]
    assert "5" in new["BATCH"]  # 2**6: the exponent, never the base
    assert not any(site.text == "2" for site in found.values())
    assert new["WARMUP"] == ["1"]
    assert "2_000" in new["train().steps"]
    assert new["FUSED"] == ["True"]
    assert new["ACTIVATION"] == ['"gelu"', '"silu"']
    assert new["NORM"] == ['"post"']
    assert new["SCHEDULE"] == ['"cosine"']
    assert new["Block.__init__().Linear.bias"] == ["False"]
    assert new["Block.__init__().Linear#2.bias"] == ["True"]
    assert new["Block.__init__().expansion"][:2] == ["8", "2"]
    telling = max(found.values(), key=lambda site: site.weight)
    assert telling.label == "LEARNING_RATE"


def test_what_must_not_be_touched_is_no_site() -> None:
    found = list(keyed("train.py").values())
    lines = {TRAIN.count("\n", 0, site.start): site for site in found}
    untouched = (
        '"""A training script',
        "import math",
        "SEED = 42",
        'PATH = "data',
        '"""Look the',
        "super().__init__()",
        "return x[:, 0, 1:]",
        "torch.manual_seed(7)",
        "print(f",
        "    return loss",
        "if __name__",
        "    train(Block(WIDTH)",
    )
    for number, line in enumerate(TRAIN.splitlines()):
        if any(part in line for part in untouched):
            assert number not in lines, lines[number]


def test_removals_and_arguments_leave_a_program_that_resolves() -> None:
    found = list(keyed("train.py").values())
    removed = {s.label.split("(")[0].split(" = ")[0] for s in found if s.kind == "remove"}
    assert {"torch.cuda.synchronize", "unused", "x"} <= removed
    assert not removed & {"loss", "optimizer", "self.up", "TABLE", "train"}
    dropped = {s.label: s for s in found if s.kind == "drop"}
    assert "betas=BETAS of AdamW(...)" in dropped
    after = dropped["eps=1e-8 of AdamW(...)"].edits()[0].apply(TRAIN)
    assert "lr=LEARNING_RATE, betas=BETAS)\n" in after
    assert not any(label.startswith("bias=") for label in dropped)  # flipping does the same


@pytest.mark.parametrize(
    ("path", "key", "first"),
    [
        ("a/conf.yaml", "model.depth", "8"),
        ("a/conf.yaml", "model.act", "'gelu'"),
        ("a/conf.yaml", "model.bias", "false"),
        ("a/conf.yaml", "optimizer.lr", "2.0e-3"),
        ("a/conf.yaml", "optimizer.betas[1]", "0.9995"),
        ("fit.toml", "tool.fit.lr", "2e-3"),
        ("fit.toml", "tool.fit.act", '"relu"'),
        ("fit.toml", "tool.fit.rates[2]", "6"),
        ("fit.toml", "tool.fit.inline.b.c", "4.0"),
        ("fit.toml", "items.count", "20_000"),
        ("fit.json", "fit.layers[1].depth", "6"),
        ("fit.json", "fit.opt", '"sgd"'),
        ("fit.json", "fit.fused", "false"),
        ("run.sh", "LR", "0.02"),
        ("run.sh", "depth", "8"),
        ("SKILL.md", "at most", "6"),
    ],
)
def test_settings_have_key_paths(path: str, key: str, first: str) -> None:
    assert keyed(path)[key].edits()[0].new == first


def test_comments_names_dates_and_versions_are_no_settings() -> None:
    assert set(keyed("a/conf.yaml")) == {
        *("model.depth", "model.act", "model.bias"),
        *("optimizer.lr", "optimizer.betas[0]", "optimizer.betas[1]"),
    }
    assert not {"tool.fit.day", "tool.fit.text"} & set(keyed("fit.toml"))
    assert "version" not in keyed("fit.json")
    assert set(keyed("run.sh")) == {"LR", "depth"}
    numbers = {site.text for site in keyed("SKILL.md").values() if site.kind == "number"}
    assert numbers == {"3", "10"}


def test_a_script_that_does_not_parse_is_read_as_text() -> None:
    assert [site.text for site in sites("broken.py", FILES["broken.py"])] == ["0.5"]


def test_arrays_of_data_are_no_settings() -> None:
    assert not sites("data.json", json.dumps({"rows": list(range(100, 200))}))


def test_keys_survive_unrelated_edits() -> None:
    before = set(keyed("train.py"))
    grown = TRAIN.replace("import math", "import math\nimport sys\n\nEXTRA = 7.5\n")
    grown = grown.replace("DEPTH = 4", "DEPTH = 6").replace(
        "        loss.backward()", "        loss.backward()  # why"
    )
    assert before <= set(keyed("train.py", grown)) | {"FUSED"}
    assert set(keyed("train.py", grown)) - before == {"EXTRA"}


NUMBERS = st.one_of(
    st.integers(min_value=1, max_value=10**9),
    st.floats(min_value=1e-9, max_value=1e9, allow_subnormal=False),
    st.floats(min_value=1e-6, max_value=0.999999),
)


@given(
    NUMBERS, st.floats(min_value=-4, max_value=4), st.sampled_from(["log", "share"]), st.booleans()
)
def test_steps_of_numbers_stay_finite_typed_and_on_their_side(
    value: float, step: float, scale: str, scientific: bool
) -> None:
    if scale == "share" and not (isinstance(value, float) and value < 1):
        scale = "log"
    moved = move(value, step, scale)  # type: ignore[arg-type]
    if moved is None:
        return
    assert type(moved) is type(value)
    assert math.isfinite(moved)
    assert moved > 0
    if abs(step) > 0.5:
        assert (moved > value) == (step > 0)
    if scale == "share":
        assert moved < 1
        assert position(moved, "share") is not None
    text = write_number(moved, f"{value:e}" if scientific and isinstance(value, float) else "1.0")
    assert read_number(text) == pytest.approx(moved, rel=1e-6)
    assert type(read_number(text)) is type(moved) or scientific


PARTS = r"""A = 1
b = -0.5e-3
C = True
d = 'relu'
if A < 3:; b += 2.5
# é
f(x=1, y=0.9)
f(;    x=1,  # é;    y=2,;)
print('ü', 3)
a = b = 4
def g(k=2, *, m=0.99):;    f(k);    return k ** 3
x = [1, (2.5, 'adam')]
class K:;    lr: float = 1e-3;    def h(self):;        self.z()
w = x + y // 2
match A:;    case 1:;        f(2)
s = 'é' 'b'
v = {'é': 1, 'lr': .5}
t = 1_0.0""".replace(";", "\n")
TOKENS = st.sampled_from(re.split(r"\n(?=[^\s)])", PARTS)).map(lambda part: part + "\n")


@settings(max_examples=60, deadline=None)
@given(st.lists(TOKENS, max_size=12), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_any_edit_of_any_program_is_a_program(parts: list[str], end: str, mark: bool) -> None:
    text = ("\ufeff" if mark else "") + "".join(parts).replace("\n", end)
    for site in sites("p.py", text):
        assert text[site.start : site.end] == site.text
        for edit in site.edits():
            new = edit.apply(text)
            assert new != text
            assert parses("p.py", new), edit.summary()


def test_blanks_that_the_parser_loses_shift_nothing() -> None:
    text = "try:\n    f(3)\nexcept (E, F) :\n    g(k=4)\nüü = a - 5\nLR = 0.25\n"
    found = keyed("p.py", text)
    assert found["LR"].text == "0.25"
    assert found["g.k"].text == "4"
    assert found["üü -"].text == "-"


# --- one proposal ------------------------------------------------------------------------------


def attempt(
    number: int, draft: Draft, verdict: Verdict | None, gain: float | None, **more: str
) -> Attempt:
    fields = {"agent": "a1", "base": "c0", "tree": f"t{number}", "summary": draft.summary} | more
    return Attempt.model_validate(
        {"number": number, "verdict": verdict, "gain": gain, "edit": draft.edit, **fields}
    )


def only(text: str, tmp_path: Path, name: str = "train.py") -> Workspace:
    return workspace(plant(tmp_path / "only", {name: text}), (name,))


def test_summaries_name_the_change(tmp_path: Path) -> None:
    space = only("import torch\n\ndef f():\n    g()\n    torch.cuda.synchronize()\n", tmp_path)
    drafts: list[str] = []
    seen: list[object] = []
    for seed in range(2):
        plant(
            space.root,
            {"train.py": "import torch\n\ndef f():\n    g()\n    torch.cuda.synchronize()\n"},
        )
        again = Workspace(
            space.root, space.scope, space.files, workspace(space.root, seen=seen).measured
        )
        drafts.append(Mutate("a1").propose(again, brief(seed=seed)).summary)
        seen.append(snapshot(space.root))
    assert sorted(drafts) == [
        "remove statement `g()` in train.py",
        "remove statement `torch.cuda.synchronize()` in train.py",
    ]


def test_a_direction_that_paid_is_continued_and_said_so(tmp_path: Path) -> None:
    first = Edit(keyed("train.py", "LR = 0.001\n")["LR"], "0.002", 0.002, "up", 1.0)
    won = attempt(7, Draft("x", edit=first.to_json()), "keep", 0.036)
    drafts = [
        Mutate("a1").propose(only("LR = 0.002\n", tmp_path), brief(seed, (won,), incumbent="c7"))
        for seed in range(10)
    ]
    up = [d for d in drafts if d.edit and d.edit["direction"] == "up"]
    assert len(up) >= 8
    assert up[0].rationale == "Raising it won by 1.8 % in experiment 7; going further."
    assert re.fullmatch(r"LR 0\.002 -> 0\.00\d+ in train\.py", up[0].summary)


def test_a_loss_turns_the_direction_and_two_losses_shorten_the_step(tmp_path: Path) -> None:
    site = keyed("train.py", "LR = 0.001\n")["LR"]

    def lost(number: int, step: float) -> Attempt:
        edit = site.moved(step)
        assert edit is not None
        return attempt(number, Draft("x", edit=edit.to_json()), "discard", -0.08)

    def steps(*attempts: Attempt) -> list[float]:
        drafts = [
            Mutate("a1").propose(only("LR = 0.001\n", tmp_path), brief(seed, attempts))
            for seed in range(12)
        ]
        return [math.log2(d.edit["to"] / 0.001) for d in drafts if d.edit]

    assert sum(step < 0 for step in steps(lost(1, 1.0))) >= 10
    both = steps(lost(1, 1.0), lost(2, -1.0))
    assert statistics.median(abs(step) for step in both) <= 0.5


def test_crashes_and_idle_constants_are_left_alone(tmp_path: Path) -> None:
    text = "WIDTH = 64\nDEPTH = 4\nOTHER = 3\n"
    attempts: list[Attempt] = []
    found = keyed("train.py", text)
    for step in (1.0, -1.0):
        for name, verdict, gain in (("WIDTH", "crash", None), ("DEPTH", "discard", 0.0)):
            edit = found[name].moved(step)
            assert edit is not None
            made = Draft("x", edit=edit.to_json())
            attempts.append(attempt(len(attempts) + 1, made, verdict, gain))  # type: ignore[arg-type]
    for seed in range(10):
        draft = Mutate("a1").propose(only(text, tmp_path), brief(seed, tuple(attempts)))
        assert draft.summary.startswith("OTHER ")


def test_agents_at_the_same_time_do_not_repeat_each_other(tmp_path: Path) -> None:
    space = only(TRAIN, tmp_path)
    flying: list[Attempt] = []
    for number in range(1, 13):
        plant(space.root, {"train.py": TRAIN})
        draft = Mutate(f"a{number}").propose(space, brief(5, tuple(flying), agent=f"a{number}"))
        flying.append(attempt(number, draft, None, None, agent=f"a{number}"))
    tried = [(a.edit["site"], a.edit["direction"]) for a in flying if a.edit]
    assert len(set(tried)) == 12


def test_no_tree_is_measured_twice_and_the_end_is_told(tmp_path: Path) -> None:
    files = {"train.py": "DEPTH = 3\nFUSED = True\n", "conf.yaml": "act: relu # relu | gelu\n"}
    root = plant(tmp_path / "small", files)
    possible = sum(len(s.edits()) for path, text in files.items() for s in sites(path, text))
    trees: list[object] = []
    end = ""
    for seed in range(100):
        plant(root, files)
        space = workspace(root, ("train.py", "conf.yaml"), trees)
        try:
            Mutate("a1").propose(space, brief(seed))
        except ExhaustedError as error:
            end = error.reason
            break
        assert space.measured() is None
        trees.append(snapshot(root))
    assert "every edit" in end
    assert possible <= len(trees) <= possible + 4
    assert snapshot(root) == {n: t.encode() for n, t in files.items()}  # nothing half done is left


def test_gives_up_on_a_proposal_when_all_it_looked_at_is_measured(tmp_path: Path) -> None:
    text = "".join(f"RATE_{n} = {n}.5\n" for n in range(1, 60))
    root = plant(tmp_path / "w", {"train.py": text})
    space = Workspace(root, Scope(["train.py"]), ("train.py",), lambda: 3)
    with pytest.raises(NoProposalError, match="new") as caught:
        Mutate("a1").propose(space, brief())
    assert not isinstance(caught.value, ExhaustedError)
    assert (root / "train.py").read_text() == text


@pytest.mark.parametrize(
    ("key", "to", "expected"),
    [
        ("train.py:LEARNING_RATE", 3e-4, "LEARNING_RATE = 3e-4\n"),
        ("train.py:ACTIVATION", "silu", 'ACTIVATION = "silu"\n'),
        ("train.py:FUSED", True, "FUSED = True\n"),
    ],
)
def test_an_idea_is_carried_over(tmp_path: Path, key: str, to: object, expected: str) -> None:
    idea = Idea(number=9, summary="", rationale="", diff="", edit={"site": key, "to": to})
    space = only(TRAIN, tmp_path)
    draft = Mutate("a1").propose(space, brief(port=idea))
    assert draft.port_of == 9
    assert "experiment 9" in draft.rationale
    assert expected in (space.root / "train.py").read_text()
    # An incumbent that has it already gets a proposal of its own.
    carried = (space.root / "train.py").read_text()
    other = Mutate("a1").propose(only(carried, tmp_path), brief(port=idea))
    assert other.port_of is None


def test_a_removal_is_carried_over(tmp_path: Path) -> None:
    site = next(s for s in keyed("train.py").values() if s.label.startswith("torch.cuda.sync"))
    idea = Idea(number=9, summary="", rationale="", diff="", edit=site.edits()[0].to_json())
    space = only(TRAIN.replace("DEPTH = 4", "DEPTH = 5"), tmp_path)
    assert Mutate("a1").propose(space, brief(port=idea)).port_of == 9
    assert "synchronize" not in (space.root / "train.py").read_text()


def test_odd_files_are_passed_over(tmp_path: Path) -> None:
    root = plant(tmp_path / "odd", {"big.txt": "depth = 3\n" * 200_000, "zero.txt": "a = 3\0"})
    (root / "latin.py").write_bytes(b"# \xe9\nLR = 0.1\n")
    (root / "link.py").symlink_to(tmp_path / "elsewhere.py")
    (tmp_path / "elsewhere.py").write_text("LR = 0.1\n")
    with pytest.raises(ExhaustedError, match="no file in scope"):
        Mutate("a1").propose(workspace(root, (".",)), brief())
    assert (tmp_path / "elsewhere.py").read_text() == "LR = 0.1\n"


def test_a_proposal_is_quick_on_a_long_file_with_a_long_history(tmp_path: Path) -> None:
    text = TRAIN + "".join(
        f"\n\ndef f{n}(a, b={n}.5):\n    return a * b + {n}\n" for n in range(57)
    )
    assert 290 <= text.count("\n") <= 310
    space = only(text, tmp_path)
    found = sites("train.py", text)
    rng = random.Random(1)
    history = tuple(
        attempt(
            n, Draft("x", edit=rng.choice(rng.choice(found).edits()).to_json()), "discard", -0.01
        )
        for n in range(1, 501)
    )
    durations: list[float] = []
    for seed in range(7):
        plant(space.root, {"train.py": text})
        started = time.process_time()
        Mutate("a1").propose(space, brief(seed, history))
        durations.append(time.process_time() - started)
    assert sorted(durations)[3] < 0.06  # 25 ms on a quiet machine


# --- learning ----------------------------------------------------------------------------------

BODY = TRAIN.partition("TABLE")[2]


class Landscape:
    """A made-up training run: the loss is a smooth function of the script's constants, plus noise.

    Each constant has a best value at random; most matter, some do not. Code that was changed
    crashes or makes things worse, as it does in life.
    """

    def __init__(self, seed: int) -> None:
        rng = random.Random(f"landscape {seed}")
        self.best: dict[str, tuple[float, float]] = {}
        for name, value in self.constants(TRAIN).items():
            if isinstance(value, float | int) and value and name != "SEED":
                best = (position(value, self.scale(name)) or 0.0) + rng.gauss(0, 1.6)
                matters = 0.01 * math.exp(rng.gauss(-0.5, 1)) if rng.random() < 0.7 else 0.0
                self.best[name] = (best, matters)
        self.choices = {
            "ACTIVATION": {c: abs(rng.gauss(0, 0.02)) for c in ("relu", "gelu", "silu")},
            "SCHEDULE": {c: abs(rng.gauss(0, 0.02)) for c in ("constant", "cosine")},
        }
        self.floor = 2.0 + sum(min(table.values()) for table in self.choices.values())

    def constants(self, text: str) -> dict[str, object]:
        head = re.findall(r"^([A-Z_]+)(?:: [^=]+)? = (.+?)(?:  #.*)?$", text, re.MULTILINE)
        return {k: ast.literal_eval(v) for k, v in head if re.fullmatch(r'[\d.e-]+|"\w+"', v)}

    def scale(self, name: str) -> Scale:
        return "share" if name in ("DROPOUT", "MOMENTUM") else "log"

    def loss(self, text: str) -> float | None:
        """Give the true loss; None for a crash."""
        found = self.constants(text)
        total = 2.0
        for name, (best, matters) in self.best.items():
            value = found[name]
            d = (position(value, self.scale(name)) or -6.0) - best  # type: ignore[arg-type]
            total += matters * min(d * d, 4 * abs(d))
        for name, table in self.choices.items():
            total += table[str(found[name])]
        body = text.partition("TABLE")[2]
        if body != BODY:
            luck = random.Random(body).random()
            if luck < 0.4:
                return None
            total += 0.1 * luck if luck < 0.8 else 0.0
        return total


def search(kind: str, seed: int, root: Path, tries: int) -> float:
    """Run one agent under a judge; give the share of the reachable gain that it reached."""
    land = Landscape(seed)
    rng = random.Random(seed)
    sigma = 0.003
    incumbent, name = TRAIN, "c0"
    start = land.loss(TRAIN)
    assert start is not None
    known = {TRAIN: [start + rng.gauss(0, sigma) for _ in range(5)]}
    crashed: set[str] = set()
    history: list[Attempt] = []
    file = root / "train.py"
    space = Workspace(
        root,
        Scope(["train.py"]),
        ("train.py",),
        lambda: 1 if (now := file.read_text()) in known or now in crashed else None,
    )
    for number in range(1, tries + 1):
        file.write_text(incumbent)
        mean = statistics.mean(known[incumbent])
        told = brief(seed * 1000 + number, tuple(history), incumbent=name, incumbent_mean=mean)
        told = told.model_copy(update={"noise": sigma})
        if kind == "blind":
            draft = blind(space, random.Random(told.seed))
        elif kind == "forgetful":
            draft = Mutate("a1").propose(space, told.model_copy(update={"attempts": ()}))
        else:
            draft = Mutate("a1").propose(space, told)
        text = file.read_text()
        true = land.loss(text)
        if true is None:
            crashed.add(text)
            history.append(attempt(number, draft, "crash", None, base=name))
            continue
        known[text] = [true + rng.gauss(0, sigma)]
        verdict, gain = judge(known[incumbent], known[text], true, sigma, rng)
        history.append(attempt(number, draft, verdict, gain, base=name))
        if verdict == "keep":
            incumbent, name = text, f"c{number}"
    end = land.loss(incumbent)
    assert end is not None
    return (start - end) / (start - land.floor)


def judge(
    old: list[float], new: list[float], true: float, sigma: float, rng: random.Random
) -> tuple[Verdict, float]:
    """Decide as the real judge does: z, and more measurements while it is undecided."""
    while True:
        gain = statistics.mean(old) - statistics.mean(new)
        z = gain / (sigma * math.sqrt(1 / len(old) + 1 / len(new)))
        if z < 1 or (len(new) == 5 and z < 2):
            return "discard", gain
        if z >= (3 if len(new) == 1 else 2):
            return "keep", gain
        new.append(true + rng.gauss(0, sigma))


def blind(space: Workspace, rng: random.Random) -> Draft:
    """Any edit of any site with equal chance, but never a tree that was measured."""
    file = space.root / "train.py"
    text = file.read_text()
    edits = [edit for site in sites("train.py", text) for edit in site.edits()]
    while True:
        edit = rng.choice(edits)
        file.write_text(edit.apply(text))
        if space.measured() is None:
            return Draft(edit.summary(), edit=edit.to_json())


def test_it_learns_far_faster_than_blind_search(tmp_path: Path) -> None:
    reached = {
        kind: statistics.mean(search(kind, seed, tmp_path, tries=30) for seed in range(8))
        for kind in ("mutate", "forgetful", "blind")
    }
    assert reached["mutate"] > 0.8, reached
    assert reached["mutate"] > reached["blind"] + 0.2, reached
    # The names alone are not the reason: without the history the same hints do worse.
    assert reached["mutate"] > reached["forgetful"] + 0.05, reached
