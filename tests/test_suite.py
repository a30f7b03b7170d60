"""A run of a suite of yes/no cases as its readers show it: table, picture, the branch itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from suite_story import SuiteStory, evening
from targets import git, launch_inline, make_config, make_patches, make_repo

from swarm.formats import results_tsv
from swarm.picture import gather, progress_png


def test_the_table_has_the_share_of_whole_runs_only() -> None:
    story = SuiteStory("1100", "1100")
    one = story.propose("a1", "Show an example")
    story.candidate(one, "1110", "--1-", "--0-", "1100")
    story.ruled(one, "discard", 0.4, fixed="c3")
    rows = results_tsv.parse(results_tsv.table(story.state))
    assert [(r.value, r.extra["n"], r.status) for r in rows] == [
        (0.5, "2", "keep"),
        (pytest.approx(0.625), "2", "discard"),
    ]
    assert float(rows[1].extra["seconds"]) == 4 * story.seconds, "a part of the suite takes time"


def test_an_experiment_that_only_crashed_has_no_share() -> None:
    story = SuiteStory("1100", "1100")
    one = story.propose("a1", "Break it")
    story.fail(one, "crash", "exit status 1")
    story.decide(one, "crash", "exit status 1")
    assert results_tsv.parse(results_tsv.table(story.state))[1].value is None
    assert gather(story.state, story.target).crashes == [1]


def test_the_picture_draws_shares(tmp_path: Path) -> None:
    story = evening()
    five = story.propose("a2", "Split it", on=story.target.best)
    story.candidate(five, "1111010000", "---1-1----")
    story.ruled(five, "keep", fixed="c6")
    data = gather(story.state, story.target)
    assert data.baseline == pytest.approx(0.36)
    assert [(d.x, d.y) for d in sorted(data.dots)] == [
        (1, 0.2),
        (2, 0.4),
        (3, 0.4),
        (4, 0.4),
        (5, 0.5),
    ]
    assert [x for x, _ in data.steps] == [0, 2, 5]
    path = tmp_path / "progress.png"
    progress_png(story.state, "main", path)
    assert path.read_bytes().startswith(b"\x89PNG")


SUITE = """
import json, os
skill = open("skill.txt").read().split()
asked = os.environ.get("SWARM_CASES")
names = open(asked).read().split() if asked else ["salt", "oil", "heat", "time"]
cases = [{"id": name, "pass": name in skill} for name in names]
with open(os.environ["SWARM_RESULT"], "w") as file:
    json.dump({"cases": cases}, file)
"""

CONFIG = """
target:
  repo: .
  scope: [skill.txt]
  run: python3 -S -E suite.py
  metric: {{name: cases, goal: maximize}}
  timeout: 20s
agents: [{{count: 1, proposer: {{kind: scripted, patches: {patches}}}}}]
judge: {{baseline: 2, confirm: 2}}
budget: {{experiments: 2}}
"""


def test_the_branch_says_which_cases_a_promotion_has_fixed(tmp_path: Path) -> None:
    top = make_repo(tmp_path / "repo", {"suite.py": SUITE, "skill.txt": "salt\n"})
    patches = make_patches(
        tmp_path / "patches",
        [
            {"summary": "Forget it all", "files": {"skill.txt": "nothing\n"}},
            {"summary": "Mind heat and time", "files": {"skill.txt": "salt heat time\n"}},
        ],
    )
    config = make_config(top, CONFIG.format(patches=json.dumps(str(patches))))
    _, state = launch_inline(config)
    assert [e.verdict for e in state.experiments.values()] == ["discard", "keep"]
    assert state.experiments[1].broken == ("salt",)
    said = git(top, "log", "-1", "--format=%B", "swarm/toy/best").splitlines()
    assert said[0] == "Mind heat and time"
    assert "Swarm-Cases: fixed heat, time" in said
    words = "cases 0.75 ± 0 (3 of 4, n=2) against 0.25 ± 0 (1 of 4, n=2)"
    assert f"Swarm-Metric: {words}" in said
