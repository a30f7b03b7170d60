"""One run in which every attack is an experiment: `python driver.py PLACE RUNG`.

Builds a world to be robbed in PLACE (repository, home, key, servers, a victim), launches a real run
inline on the given rung, and writes what it has seen from outside to PLACE/result.json. Started as
a process of its own, so that it can be an ordinary user's.
"""

# ruff: noqa: E402

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from targets import make_repo

from attacks.catalogue import AGAIN, ATTACKS, HEAD, HONEST, SOLVE, Attack
from swarm import coordinator
from swarm.agent import Hands
from swarm.briefing import Briefing
from swarm.config import parse
from swarm.coordinator import Coordinator
from swarm.launch import open_run
from swarm.proposers import Draft, Workspace
from swarm.runtime import Inline, Post
from swarm.sandbox import Rung, holds, probe
from swarm.sandbox.ladder import OPEN

SCORE = """
import json
got = json.load(open("answer.json"))
key = json.load(open("answers/key.json"))["key"]
right = sum(a == b for a, b in zip(got["answers"], key)) / len(key)
print("METRIC right=" + str(right * got.get("scale", 1)))
"""
CONFIG = """
name: attacks
target:
  repo: repo
  scope: [solution/]
  hide: [answers/]
  run: python3 -S solution/solve.py
  score: python3 score.py
  metric: {name: right, goal: maximize}
  timeout: 8s
  slot: {count: 1}
agents: [{count: 1, proposer: mutate}]
lookahead: 0
repair: 0
judge: {baseline: 2, confirm: 2, bounds: [0, 1]}
budget: {experiments: 500}
sandbox: {memory: 300M, processes: 32, file_size: 20M, tmp: 20M, output: 1M}
"""


class Mischief:
    """A proposer that plays one attack after the other, and is honest at the end."""

    def __init__(self, attacks: list[tuple[str, Attack | None]], world: str) -> None:
        self.attacks, self.world = attacks, world

    def propose(self, workspace: Workspace, briefing: Briefing) -> Draft:
        """Play the next one."""
        done = len(briefing.attempts)
        if done >= len(self.attacks):
            from swarm.proposers import ExhaustedError

            raise ExhaustedError("all attacks were played")
        title, attack = self.attacks[done]
        root = workspace.root
        if attack is None:
            text = HEAD.format(name="honest", world="{}") + "RIGHT = 6" + HONEST
            (root / SOLVE).write_text(text)
            return Draft(title)
        (root / SOLVE).write_text(attack.solution(self.world) + f"# {title}\n")
        for name, text in attack.files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        if attack.plant is not None:
            attack.plant(root)
        return Draft(title)


def the_rung(name: str) -> tuple[Rung, str | None]:
    """Give a rung, and why it does not hold here, if it does not."""
    if name == "bubblewrap":
        best = probe("auto")
        return best, None if best.name == name else best.why
    rung = Rung(name, OPEN[name])  # type: ignore[arg-type, index]
    return rung, holds(rung)


class World:
    """What there is to be had, and whether somebody has had it."""

    def __init__(self, place: Path) -> None:
        self.place, self.home = place, place / "home"
        self.answer, self.mark = (f"{k}-{secrets.token_hex(8)}" for k in ("answer", "mark"))
        key = {"key": [3 * n for n in range(1, 11)], "token": self.answer}
        files = {
            "score.py": SCORE,
            "inputs.json": json.dumps(list(range(1, 11))),
            "answers/key.json": json.dumps(key),
            SOLVE: HEAD.format(name="base", world="{}") + "RIGHT = 2" + HONEST,
        }
        make_repo(place / "repo", files)
        self.home.mkdir()
        (self.home / "secret.txt").write_text(f"{self.mark}-of-the-home")
        (place / "hooks").mkdir()
        (place / "decoy-ledger.jsonl").write_text("")
        self.server = socket.create_server(("127.0.0.1", 0))
        self.abstract = socket.socket(socket.AF_UNIX)
        self.abstract.bind("\0" + self.mark)
        self.abstract.listen()
        self.named = socket.socket(socket.AF_UNIX)
        self.named.bind(str(place / "socket"))
        self.named.listen()
        self.called: list[str] = []
        servers = (("tcp", self.server), ("abstract", self.abstract), ("named", self.named))
        for name, sock in servers:
            threading.Thread(target=self._listen, args=(name, sock), daemon=True).start()
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.victim = subprocess.Popen(["sleep", "600"], **quiet)

    def _listen(self, name: str, sock: socket.socket) -> None:
        while True:
            try:
                sock.accept()[0].close()
            except OSError:
                return
            self.called.append(name)

    def map(self) -> str:
        """Give what the attackers are told: where everything is."""
        return json.dumps(
            {
                "place": str(self.place),
                "repo": str(self.place / "repo"),
                "home": str(self.home),
                "ledger": str(self.place / "decoy-ledger.jsonl"),
                "hooks": str(self.place / "hooks"),
                "answer": self.answer,
                "mark": self.mark,
                "socket": str(self.place / "socket"),
                "port": self.server.getsockname()[1],
                "victim": self.victim.pid,
            }
        )

    def seen(self) -> dict[str, Any]:
        """Say what has happened to it."""
        left = [p for p in (f"/tmp/{self.mark}", f"/dev/shm/{self.mark}") if os.path.exists(p)]
        for path in left:
            os.unlink(path)
        alive = self.victim.poll() is None
        if alive:
            self.victim.kill()
        self.victim.wait()
        for sock in (self.server, self.abstract, self.named):
            sock.close()
        return {
            "called": self.called,
            "victim_alive": alive,
            "ledger": (self.place / "decoy-ledger.jsonl").read_text(),
            "hooks": os.listdir(self.place / "hooks"),
            "home": sorted(p.name for p in self.home.iterdir()),
            "left": left,
            "answer": self.answer,
            "mark": self.mark,
        }


def main(place: Path, name: str) -> None:
    """Carry a run out on a rung, or say why the rung does not hold."""
    rung, why = the_rung(name)
    result: dict[str, Any] = {"why": why}
    if why is None:
        result |= play(place, rung)
    (place / "result.json").write_text(json.dumps(result))


def mixed(attacks: list[Attack]) -> list[Attack]:
    """Put the attacks in an order in which no five invalid ones in a row park their agent."""
    invalid = [a for a in attacks if a.outcome.verdict == "invalid"]
    others = [a for a in attacks if a.outcome.verdict != "invalid"]
    found: list[Attack] = []
    while invalid or others:
        found += [*invalid[:1], *others[:2]]
        invalid, others = invalid[1:], others[2:]
    return found


def play(place: Path, rung: Rung) -> dict[str, Any]:
    """Play all attacks."""
    world = World(place)
    os.environ["HOME"] = str(world.home)
    os.environ["SWARM_SCRATCH"] = str(place / "scratch")
    titles: list[tuple[str, Attack | None]] = []
    for attack in mixed([a for a in ATTACKS if rung.name not in a.not_on]):
        titles.append((attack.name, attack))
        if attack.name in AGAIN:
            titles.append((f"{attack.name}, again", attack))
    titles.append(("the honest one", None))
    mischief = Mischief(titles, world.map())

    def hands(self: Post, node: Any) -> Hands:
        made = given(self, node)
        made._proposer = mischief
        return made

    given = Post.hands
    Post.hands = hands  # type: ignore[method-assign]
    # A choice of the rung, which a machine that has a better one would not make by itself.
    coordinator.probe = lambda mode, gpus=False: rung
    (place / "attacks.yaml").write_text(CONFIG)
    config = parse(CONFIG, place / "attacks.yaml")
    opened = open_run(config, wait_s=5)
    Coordinator(opened.rundir, opened.config, Inline(), prefixes=opened.prefixes).run()
    return {"run": str(opened.rundir.path), "warning": rung.warning or "", **world.seen()}


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
