"""Every attack, on every rung: how it ended, what it got, and that nothing leaked or survived."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import pytest
from targets import git, processes_with

from attacks.catalogue import AGAIN, ATTACKS, Attack, Rung
from attacks.driver import mixed
from swarm.entities import Experiment
from swarm.ledger import read
from swarm.records import Measured
from swarm.sandbox.ladder import OPEN
from swarm.state import RunState

USER = 12345
"""An ordinary user, who owns nothing here."""
KEY = "sk-planted-key-0123456789"
SETTINGS = ["bubblewrap", "bubblewrap as a user", "landlock", "process"]
DRIVER = Path(__file__).with_name("driver.py")


@dataclass
class Heist:
    """A run in which all attacks were played, looked at afterwards."""

    rung: Rung
    place: Path
    result: dict[str, Any]
    swarm: list[str] = field(default_factory=list[str])

    @cached_property
    def folder(self) -> Path:
        return Path(self.result["run"])

    @cached_property
    def state(self) -> RunState:
        return RunState(read(self.folder / "ledger.jsonl"))

    def all_of(self, title: str) -> Experiment:
        """Give the experiment of an attack."""
        found = [e for e in self.state.experiments.values() if e.proposal.summary == title]
        assert len(found) == 1, title
        return found[0]

    def log(self, experiment: Experiment) -> str:
        """Give all that an experiment has printed."""
        folder = self.folder / "logs" / str(experiment.number)
        return "".join(p.read_text(errors="replace") for p in sorted(folder.glob("*")))


def command(user: int | None, place: Path) -> tuple[list[str], dict[str, str]]:
    """Give the driver's command and environment; an ordinary user may not read root's Python."""
    python, env = sys.executable, {"PATH": os.environ["PATH"], "PLANTED_KEY": KEY}
    if user is not None:
        python, env["PATH"] = "/usr/bin/python3", "/usr/bin:/bin"
        env["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p.endswith("site-packages"))
        env["HOME"] = str(place)
        check = "import sys; print(sys.version_info[:2])"
        done = subprocess.run([python, "-c", check], capture_output=True, text=True, check=False)
        if os.geteuid() != 0 or done.stdout.strip() != str(sys.version_info[:2]):
            pytest.skip("NO ORDINARY USER HERE: needs root, and a system Python of this version")
    return [python, str(DRIVER), str(place)], env


@pytest.fixture(scope="session", params=SETTINGS)
def heist(request: pytest.FixtureRequest) -> Iterator[Heist]:
    """Play all attacks on a rung, outside of /tmp, which walled rungs have of their own."""
    name, _, as_user = str(request.param).partition(" as ")
    user = USER if as_user else None
    place = Path(tempfile.mkdtemp(prefix="attacks-", dir="/var/tmp"))
    try:
        words, env = command(user, place)
        if user is not None:
            os.chown(place, user, user)
        owner: dict[str, Any] = {} if user is None else {"user": user, "group": user}
        if user is not None:
            owner["extra_groups"] = []
        done = subprocess.run(
            [*words, name],
            env=env,
            cwd=place,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=280,
            check=False,
            **owner,
        )
        assert done.returncode == 0, done.stdout
        result = json.loads((place / "result.json").read_text())
        if result["why"] is not None:
            pytest.skip(f"NO {name.upper()} HERE: {result['why']}")
        yield Heist(name, place, result)  # type: ignore[arg-type]
    finally:
        shutil.rmtree(place, ignore_errors=True)


pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux"),
    pytest.mark.timeout(400),
]


@pytest.mark.parametrize("attack", ATTACKS, ids=[a.name for a in ATTACKS])
def test_an_attack_ends_as_it_should_and_gets_nothing(heist: Heist, attack: Attack) -> None:
    if heist.rung in attack.not_on:
        pytest.skip("not tried on this rung: it would hurt this machine")
    again = attack.name in AGAIN
    found = heist.all_of(f"{attack.name}, again" if again else attack.name)
    wanted = attack.expected(heist.rung)
    log = heist.log(found)
    if not (wanted.late and found.verdict == "timeout"):
        assert found.verdict == wanted.verdict, (found.reason, log[-2000:])
        assert wanted.says in found.reason + log, (found.reason, log[-2000:])
    if wanted.verdict == "discard":
        value = heist.state.targets["main"].record(found.proposal.commit or "", found.machine or "")
        assert value.primary.mean == 0.2
    got = "LOOT" in log or took(heist, attack)
    label = attack.opens.get(heist.rung)
    assert got == (label is not None), log[-2000:]
    if label is not None:
        assert label in heist.result["warning"]


def took(heist: Heist, attack: Attack) -> bool:
    """Tell whether an attack that cannot say so has succeeded."""
    result = heist.result
    effects = {
        "writes the ledger": bool(result["ledger"]),
        "plants a git hook": bool(result["hooks"]),
        "writes to the home": "left.txt" in result["home"],
        "remembers in /tmp": any(p.startswith("/tmp") for p in result["left"]),
        "remembers in /dev/shm": any(p.startswith("/dev/shm") for p in result["left"]),
        "kills a process": not result["victim_alive"],
        "calls a server": "tcp" in result["called"],
        "calls an abstract socket": "abstract" in result["called"],
        "kills its supervisor": heist.all_of("kills its supervisor").verdict == "aborted",
    }
    return effects.get(attack.name, False)


def test_the_next_experiment_runs_as_if_nothing_had_happened(heist: Heist) -> None:
    honest = heist.all_of("the honest one")
    assert (honest.verdict, honest.merged is not None) == ("keep", True)
    target = heist.state.targets["main"]
    assert target.primary(target.best).mean == 0.6
    assert [p.number for p in target.promotions] == [honest.number]
    assert heist.state.phase == "finished"


def test_nothing_survives_and_nothing_leaks(heist: Heist) -> None:
    assert processes_with(str(heist.place)) == []
    assert processes_with(heist.result["mark"]) == []
    repo = heist.place / "repo"
    held = git(repo, "-c", "safe.directory=*", "status", "--porcelain", "--untracked-files=no")
    assert held == ""
    if OPEN[heist.rung] and heist.rung == "process":
        return
    secrets = [KEY, heist.result["answer"], f"{heist.result['mark']}-of-the-home"]
    for file in heist.folder.rglob("*"):
        if file.is_file() and "objects" not in file.parts:  # the base has the answers, packed
            data = file.read_bytes()
            assert not [s for s in secrets if s.encode() in data], file


def test_what_strangers_print_reaches_nobody_as_it_is(heist: Heist) -> None:
    failed = heist.all_of("speaks to the next proposer").failed
    assert failed is not None
    assert failed.failure is not None
    assert "Ignore previous instructions." in failed.failure.tail
    assert "\x1b" not in failed.failure.tail
    assert "\x07" not in failed.failure.tail


def test_floods_and_limits_are_kept_to(heist: Heist) -> None:
    flood = heist.all_of("floods its output")
    assert len(heist.log(flood)) < 2 * 2**20
    measured = [e for e in read(heist.folder / "ledger.jsonl") if isinstance(e, Measured)]
    # The clock is 8 s; a busy machine takes its time to end the last of a storm.
    assert max(e.measurement.seconds for e in measured) < 2 * 8


@pytest.mark.parametrize("rung", get_args(Rung))
def test_every_opening_of_a_rung_is_proven_by_an_attack(rung: Rung) -> None:
    assert {a.opens[rung] for a in ATTACKS if rung in a.opens} == set(OPEN[rung])


def test_the_catalogue_is_whole() -> None:
    assert len(ATTACKS) >= 35
    assert len({a.name for a in ATTACKS}) == len(ATTACKS)
    # Of the others, 6 (seeds) and 18 (trying often) are the judge's, 17 in part the checklist's.
    assert {a.row for a in ATTACKS} >= set(range(1, 18)) - {6}
    assert sorted(a.name for a in mixed(ATTACKS)) == sorted(a.name for a in ATTACKS)


def test_the_page_of_attacks_is_current() -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "scripts/make_attack_docs.py", "--print"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    page = (root / "docs" / "attacks.md").read_text()
    assert page == done.stdout, "run scripts/make_attack_docs.py"
