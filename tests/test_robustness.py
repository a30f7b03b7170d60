"""What a run has to survive: kills between two steps, races, full disks, hostile leftovers."""

from __future__ import annotations

import json
from pathlib import Path

from targets import CONFIG, git, launch_inline, make_config, make_patches, make_repo

from swarm.agent import ProposeJob
from swarm.config import RunConfig
from swarm.coordinator import Coordinator
from swarm.launch import open_run
from swarm.runtime import Inline, Lost


def countdown(tmp_path: Path, wins: int, *sets: str) -> tuple[Path, RunConfig]:
    """Make a target whose value is a file, and one agent that lowers it `wins` times."""
    top = make_repo(tmp_path / "repo", {"v.txt": "20\n", "m.sh": "echo METRIC loss=$(cat v.txt)\n"})
    patches = [{"summary": f"step {i}", "files": {"v.txt": f"{19 - i}\n"}} for i in range(wins)]
    folder = make_patches(tmp_path / "patches", patches)
    agents = f"[{{count: 1, proposer: {{kind: scripted, patches: {json.dumps(str(folder))}}}}}]"
    text = CONFIG.replace("[{count: 3, proposer: mutate}]", agents)
    return top, make_config(top, text, "target.scope=[v.txt]", "target.run=sh m.sh", *sets)


def test_refs_that_move_twice_before_they_are_settled(tmp_path: Path) -> None:
    top, config = countdown(tmp_path, 4)
    opened, state = launch_inline(config)
    assert [e.verdict for e in state.experiments.values()] == ["keep"] * 4
    best = state.targets["main"].best
    assert git(top, "rev-parse", "swarm/toy/best") == best
    assert git(opened.rundir.hub, "rev-parse", "swarm/toy/a1") == state.agents["a1"].incumbent


class OneDies(Inline):
    """Agents of which the first that is sent objects dies before it has stored them."""

    died = False

    def propose(self, job: ProposeJob) -> None:
        if job.pack is None or self.died:
            super().propose(job)
        else:
            self.died = True
            self._outbox.put(Lost(job.agent, "killed"))


def test_objects_are_sent_again_when_their_receiver_died(tmp_path: Path) -> None:
    _, config = countdown(tmp_path, 3)
    opened = open_run(config)
    runtime = OneDies()
    state = Coordinator(opened.rundir, opened.config, runtime, prefix=opened.prefix).run()
    assert runtime.died
    assert [e.verdict for e in state.experiments.values()] == ["keep"] * 3
