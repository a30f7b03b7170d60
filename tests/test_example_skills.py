"""The worked examples of the skill harness come out as planned: each patch meets its known fate.

The model is the obedient one, asked over loopback through swarm's metering proxy; everything else
is what a person's own run would have: the shipped configs, patches and suites, real git, the
sandbox. Suites are cut down where all of a suite would take too long.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from messages_server import MessagesServer
from obedient_model import answer
from targets import check_nobody_left, git, launch_inline

from swarm.config import parse
from swarm.entities import Target
from swarm.ledger import read
from swarm.records import AnyEvent, Measured
from swarm.state import RunState

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "harness/skill/examples"


class Ran(NamedTuple):
    """A run of an example, and what its ledger says."""

    state: RunState
    events: list[AnyEvent]
    target: Target

    @property
    def fates(self) -> dict[str, str]:
        """Verdicts by the names of the patches."""
        return {
            str((e.proposal.edit or {})["patch"])[3:].removesuffix(".patch"): e.verdict or "open"
            for e in self.state.experiments.values()
        }

    def mean(self, commit: str, metric: str) -> float:
        """Give the mean of a metric of a commit."""
        kind = self.target.machine(commit)
        assert kind is not None
        return self.target.record(commit, kind).others[metric].mean


def run(folder: Path, example: str, *sets: str, cases: tuple[str, ...] = ()) -> Ran:
    """Launch a shipped config on a copy of its example, perhaps with some cases of it only."""
    text = (ROOT / f"configs/skill-{example}.yaml").read_text(encoding="utf-8")
    state, events = launched(folder, text, {example: cases}, ("target",), sets)
    (target,) = state.targets.values()
    return Ran(state, events, target)


def launched(
    folder: Path,
    text: str,
    examples: dict[str, tuple[str, ...]],
    targets: tuple[str, ...],
    sets: tuple[str, ...],
) -> tuple[RunState, list[AnyEvent]]:
    """Launch a config on copies of examples, each with those of its cases that are named."""
    top = folder / "clone"
    for example, cases in examples.items():
        shutil.copytree(EXAMPLES / example, top / "harness/skill/examples" / example)
        suite = top / "harness/skill/examples" / example / "suite.yaml"
        if cases:
            value = yaml.safe_load(suite.read_text(encoding="utf-8"))
            value["cases"] = [case for case in value["cases"] if case["id"] in cases]
            suite.write_text(yaml.safe_dump(value, sort_keys=False), encoding="utf-8")
    file = top / "configs" / "skill.yaml"
    file.parent.mkdir()
    file.write_text(text, encoding="utf-8")
    git(top, "init", "-q", "-b", "main")
    git(top, "add", "-A")
    git(top, "commit", "-q", "-m", "base")
    with MessagesServer(answer) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWARM_SCRATCH", str(folder / "scratch"))
        urls = [f"{target}.provider.base_url={server.url}" for target in targets]
        opened, state = launch_inline(parse(text, file, (*urls, *sets)))
        check_nobody_left()
    assert state.phase == "finished", state.reason
    return state, list(read(opened.rundir.ledger))


def test_three_skills_side_by_side_each_find_their_wins(tmp_path: Path) -> None:
    text = (ROOT / "configs/skills.yaml").read_text(encoding="utf-8")
    cases = {
        "copy": ("lampwick", "rootbox"),
        "commit": ("retry", "utc"),
        "coding": ("rename-count", "low-items"),
    }
    targets = tuple(f"targets.{i}" for i in range(3))
    finals = tuple(
        f"{target}.final=null" for target in targets
    )  # what is held out is left out here
    state, _ = launched(tmp_path, text, cases, targets, (*QUICK, *finals))
    for name in cases:
        target = state.targets[name]
        assert target.promotions
        assert target.result is not None
        assert target.result.gain > 0
        assert target.busy_seconds > 0
    assert len({e.agent for e in state.experiments.values()}) == 3


# --- copy -----------------------------------------------------------------------------------------

QUICK = ("judge.baseline=2", "judge.confirm=1")
"""The model is deterministic: more would say the same."""
BRIEFS = ("lampwick", "rootbox", "hushdoor", "pennyleaf", "brisk", "quillpad", "snugfit", "inkwell")
"""The last two are held out."""
COPY_FATES = {
    "ask-for-a-number": "keep",
    "limit-the-words": "keep",
    "tell-our-story": "discard",
    "drop-the-origins": "keep",
    "no-buzzwords": "keep",
    "twenty-two-words": "discard",
    "say-it-again": "discard",
    "lead-with-the-gain": "keep",
}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return run(tmp_path_factory.mktemp("copy"), "copy", *QUICK, cases=BRIEFS)


def test_the_copy_patches_meet_their_fates(copy: Ran) -> None:
    assert copy.fates == COPY_FATES
    best = copy.target.primary(copy.target.best)
    assert best.mean == 1.0
    assert copy.target.primary(copy.target.info.base).mean < 0.3


def test_no_lost_case_is_bought_by_fewer_tokens(copy: Ran) -> None:
    cheap = experiment(copy, "twenty-two-words")
    assert cheap.broken == ("number/pennyleaf",)
    assert copy.mean(cheap.proposal.commit or "", "tokens") < copy.mean(cheap.base, "tokens")


def test_an_equal_and_cheaper_skill_is_kept_by_points(copy: Ran) -> None:
    shorter = experiment(copy, "drop-the-origins")
    assert (shorter.fixed, shorter.broken) == ((), ())
    assert "tokens" in shorter.reason
    assert copy.mean(shorter.proposal.commit or "", "tokens") < copy.mean(shorter.base, "tokens")


def test_longer_without_a_gain_is_discarded(copy: Ran) -> None:
    longer = experiment(copy, "tell-our-story")
    assert longer.broken == ()
    assert copy.mean(longer.proposal.commit or "", "tokens") > copy.mean(longer.base, "tokens")


def test_held_out_briefs_confirm_the_gain(copy: Ran) -> None:
    result = copy.target.result
    assert result is not None
    assert result.confirmed is not None
    assert result.confirmed.best_mean == 1.0
    assert result.confirmed.base_mean < 0.3
    seen = {case.id.split("/")[1] for m in measurements(copy) for case in m.measurement.cases}
    assert seen == set(BRIEFS[:6])


def test_mutate_drops_what_costs_and_does_nothing(tmp_path: Path) -> None:
    """The control arm works on prose: a shorter skill that loses no case is kept."""
    cases = ("lampwick", "rootbox")
    agents = "agents=[{count: 1, proposer: mutate}]"
    ran = run(tmp_path, "copy", agents, *QUICK, "budget.experiments=3", cases=cases)
    kept = [e for e in ran.state.experiments.values() if e.verdict == "keep"]
    assert kept
    assert all(e.proposal.summary.startswith("delete") and not e.broken for e in kept)
    assert all("tokens" in e.reason for e in kept)


# --- coding ---------------------------------------------------------------------------------------

REQUESTS = ("rename-count", "low-items", "total-worth", "rename-item")
"""One for each thing that the patches are about, and one held out."""
PATCHES = ("01-run-the-tests", "03-go-on", "04-drop-the-remains", "05-read-the-notes")
PATCHES += ("06-edit-at-once",)
CODING_FATES = {
    "run-the-tests": "keep",
    "narrate": "discard",
    "go-on": "keep",
    "drop-the-remains": "keep",
    "read-the-notes": "keep",
    "edit-at-once": "discard",
    "mind-the-edges": "keep",
    "write-a-test": "keep",
}


@pytest.fixture(scope="module")
def coding(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("coding")
    files = [f"../harness/skill/examples/coding/patches/{name}.patch" for name in PATCHES]
    agents = f"agents=[{{proposer: {{kind: scripted, patches: {json.dumps(files)}}}}}]"
    return run(folder, "coding", agents, *QUICK, cases=REQUESTS)


def test_the_coding_patches_meet_their_fates(coding: Ran) -> None:
    assert coding.fates == {name[3:]: CODING_FATES[name[3:]] for name in PATCHES}
    assert coding.target.primary(coding.target.info.base).mean == 0.0
    assert coding.target.primary(coding.target.best).mean == 1.0
    fixed = {name: experiment(coding, name).fixed for name in ("run-the-tests", "go-on")}
    assert fixed == {"run-the-tests": ("rename-count",), "go-on": ("low-items",)}


def test_what_skips_a_step_is_cheaper_and_discarded(coding: Ran) -> None:
    hasty = experiment(coding, "edit-at-once")
    assert hasty.broken == ("total-worth",)
    assert coding.mean(hasty.proposal.commit or "", "tokens") < coding.mean(hasty.base, "tokens")


def test_each_step_tells_its_tokens_and_seconds(coding: Ran) -> None:
    best, base = coding.target.best, coding.target.info.base
    for step in ("explore", "plan", "execute", "review"):
        for metric in ("tokens", "seconds"):
            assert coding.mean(best, f"{metric}.{step}") > 0
    assert (coding.mean(base, "aborts"), coding.mean(best, "aborts")) == (1, 0)
    assert coding.mean(best, "self_corrections") >= 1
    feedback = measurements(coding)[0].measurement.feedback
    assert all(word in feedback for word in ("explore", "plan", "execute", "review", "aborted"))


def test_a_held_out_request_confirms_it(coding: Ran) -> None:
    result = coding.target.result
    assert result is not None
    assert result.confirmed is not None
    assert (result.confirmed.base_mean, result.confirmed.best_mean) == (0.0, 1.0)


# --- in full --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_whole_copy_example(tmp_path: Path) -> None:
    ran = run(tmp_path, "copy", "judge.confirm=1")
    assert ran.fates == COPY_FATES
    assert ran.target.primary(ran.target.best).mean == 1.0
    assert ran.target.result is not None
    assert ran.target.result.confirmed is not None
    assert ran.target.result.confirmed.gain > 0.7
    used = [e.tokens for e in ran.state.experiments.values()]
    assert 0 < sum(used) / len(used) <= 18_000


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_whole_coding_example(tmp_path: Path) -> None:
    ran = run(tmp_path, "coding", "judge.confirm=1")
    assert ran.fates == CODING_FATES
    assert ran.target.primary(ran.target.best).mean == 1.0
    assert ran.target.result is not None
    assert ran.target.result.confirmed is not None
    assert ran.target.result.confirmed.gain == 1.0


# --- what both share ------------------------------------------------------------------------------


def experiment(ran: Ran, patch: str) -> Any:
    return ran.state.experiments[list(ran.fates).index(patch) + 1]


def measurements(ran: Ran) -> list[Measured]:
    return [e for e in ran.events if isinstance(e, Measured) and e.measurement.failure is None]
