"""A harness for what models are told: a skill, a prompt, or all files of an agent's set-up.

    python skill.py measure suite.yaml                    run every case and score it
    python skill.py run suite.yaml --out outcomes         only run: one file for each run of a case
    python skill.py score suite.yaml --out outcomes       only score what lies there
    python skill.py check suite.yaml                      is the suite right? asks no model
    python skill.py import evals.json > suite.yaml        another tool's file as a suite

It owns the order of things, and the exit status: 0, 1 when no answer can be had (a model's server
or the judge is broken), 2 when the suite or the command line is wrong. A model that fails at its
task is no error: its case fails, and the feedback says why. It does not know who changes what is
under test.

    SWARM_CASES     a file with one case id a line: only these are run and reported
    SWARM_SEED      passed on to the commands of a run, as SWARM_SEED
    SWARM_RESULT    receives cases, metrics and feedback, as JSON
    SWARM_MODEL_URL, SWARM_MODEL_TOKEN    where models are asked, unless the suite says
"""

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Event
from typing import NamedTuple

sys.dont_write_bytecode = True  # the checkout may be read-only, and must stay clean when it is not
sys.path.append(str(Path(__file__).resolve().parent.parent / "checklist"))

import checks  # noqa: E402
import headless  # noqa: E402
import messages  # noqa: E402
import outcome as outcomes  # noqa: E402
import readers  # noqa: E402
import results  # noqa: E402
import suite as suites  # noqa: E402
import tools  # noqa: E402
import transcript as transcripts  # noqa: E402
import writers  # noqa: E402
from ending import leave_on  # noqa: E402
from form import FormError  # noqa: E402
from model import Judge, ModelError, Server  # noqa: E402
from outcome import Outcome, OutcomeError  # noqa: E402
from parallel import in_parallel  # noqa: E402
from questions import QuestionError  # noqa: E402
from results import Graded, Result, Ruled  # noqa: E402
from suite import Case, Headless, Messages, Suite  # noqa: E402
from workspace import TooMuch, build, changes, lay, snapshot  # noqa: E402

SEED_STEP = 1_000_003
"""Between the seeds of repeats, so that they do not meet those of other measurements."""


class Asked(NamedTuple):
    """What of a suite is measured now."""

    cases: Sequence[Case]
    ids: frozenset[str] | None
    """Of the reported cases; None for all."""

    def wants(self, name: str) -> bool:
        return self.ids is None or name in self.ids


# --- which cases ------------------------------------------------------------------------------


def asked(suite: Suite, held_out: bool) -> Asked:
    """Choose the cases that are measured."""
    cases = [case for case in suite.cases if case.held_out is held_out]
    if not cases:
        kind = "no case is held out" if held_out else "all cases are held out"
        remedy = "`held_out: true` for those that only `final` runs"
        raise FormError(f"{suite.cases_at}: cases: {kind}; say {remedy}")
    file = os.environ.get("SWARM_CASES")
    if not file:
        return Asked(cases, None)
    try:
        ids = frozenset(Path(file).read_text(encoding="utf-8").splitlines()) - {""}
    except (OSError, UnicodeDecodeError) as error:
        raise FormError(f"SWARM_CASES: cannot be read: {error}") from None
    chosen = [c for c in cases if any(i == c.id or i.endswith(f"/{c.id}") for i in ids)]
    known = {name for case in chosen for name in names_of(suite, case)}
    if not suite.questions:  # they may be hidden here
        known |= {i for i in ids for c in chosen if i.endswith(f"/{c.id}")}
    for unknown in sorted(ids - known):
        print(f"skill: SWARM_CASES: there is no case {unknown!r}", file=sys.stderr)
    return Asked(chosen, ids)


def names_of(suite: Suite, case: Case) -> list[str]:
    return [case.id, *(f"{question.name}/{case.id}" for question in suite.questions)]


def seeds(repeats: int) -> list[int]:
    given = os.environ.get("SWARM_SEED", "0")
    try:
        return [int(given) + SEED_STEP * n for n in range(repeats)]
    except ValueError:
        raise FormError(f"SWARM_SEED: a whole number is wanted, not {given!r}") from None


def keys_of(suite: Suite) -> frozenset[str | None]:
    runner = suite.runner.model.key_env if isinstance(suite.runner, Messages) else None
    return frozenset({runner, suite.judge.key_env})


# --- running ----------------------------------------------------------------------------------


def ran(suite: Suite, chosen: Asked, cancel: Event) -> dict[str, list[Outcome]]:
    """Run every case as often as the suite says, some at a time."""
    server = None
    if isinstance(suite.runner, Messages):
        server = Server(suite.runner.model, cancel, at="runner")
    elif shutil.which(suite.runner.cli[0]) is None:
        what = f"no program `{suite.runner.cli[0]}` on the PATH"
        raise FormError(f"{suite.path}: runner.cli: {what}; install it, or name its path")
    numbered = list(enumerate(seeds(suite.repeats), start=1))
    work = [
        partial(one, suite, case, repeat, seed, server, cancel)
        for case in chosen.cases
        for repeat, seed in numbered
    ]
    found: dict[str, list[Outcome]] = {case.id: [] for case in chosen.cases}
    for outcome in in_parallel(suite.jobs, work, cancel):
        found[outcome.case].append(outcome)
    return found


def one(
    suite: Suite, case: Case, repeat: int, seed: int, server: Server | None, cancel: Event
) -> Outcome:
    """Run a case once, in a scratch copy of its workspace."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        place, home = Path(folder, "work"), Path(folder, "home")
        home.mkdir()
        build(place, case, suite.under)
        if isinstance(suite.runner, Headless):
            headless.install(place, suite.under, suite.runner)
        before = snapshot(place)
        env = tools.environment(place, home, set(keys_of(suite)), SWARM_SEED=str(seed))
        if isinstance(suite.runner, Messages):
            assert server is not None
            room = tools.Room(place, env, cancel, suite.under)
            told = messages.work(case, suite.under, suite.runner, server, room, suite.timeout_s)
        else:
            told = headless.work(
                case, suite.under, suite.runner, place, env, suite.timeout_s, cancel
            )
        booked = transcripts.book(told.turns, suite.steps)
        found = Outcome(
            case=case.id,
            repeat=repeat,
            answer=told.last_words,
            stopped=told.stopped,
            problem=told.problem,
            turns=len(told.turns),
            steps=booked.steps,
            calls=booked.calls,
            corrections=transcripts.corrections(told.turns),
        )
        try:
            left = changes(place, before)
        except (TooMuch, OSError) as error:
            return replace(found, problem=found.problem or str(error))
        return replace(found, files=left.files, deleted=left.deleted)


# --- scoring ----------------------------------------------------------------------------------


def graded(
    suite: Suite, chosen: Asked, found: Mapping[str, Sequence[Outcome]], cancel: Event
) -> dict[str, list[Graded]]:
    """Make all checks of all runs, some at a time."""
    judge = Judge(suite.judge, cancel) if suite.judged else None
    room = checks.Room(suite, judge, cancel, keys_of(suite))
    work = [
        partial(graded_one, suite, chosen, case, outcome, room)
        for case in chosen.cases
        for outcome in found[case.id]
    ]
    done: dict[str, list[Graded]] = {case.id: [] for case in chosen.cases}
    for grade in in_parallel(suite.jobs, work, cancel):
        done[grade.outcome.case].append(grade)
    return done


def graded_one(
    suite: Suite, chosen: Asked, case: Case, outcome: Outcome, room: checks.Room
) -> Graded:
    """Make the checks of one run; where it has none of its own to show, all of them fail."""

    def failing(label: str) -> Ruled:
        return Ruled(label, False, outcome.problem or "")

    ruled: list[Ruled] | None = None
    if case.checks and chosen.wants(case.id):
        ruled = []
        for check in case.checks:
            if outcome.problem is not None:
                ruled.append(failing(check.label)._replace(check=check))
                continue
            found = checks.check(check, case, outcome, room)
            ruled.append(
                Ruled(check.label, found.holds, found.reason, found.usage, found.score, check)
            )
    answers: dict[str, Ruled] = {}
    for question in suite.questions:
        if not chosen.wants(f"{question.name}/{case.id}"):
            continue
        if outcome.problem is not None:
            answers[question.name] = failing(question.name)
            continue
        said = checks.ask(question, case, outcome, room)
        answers[question.name] = Ruled(question.name, said.holds, said.reason, said.usage)
    return Graded(outcome, ruled, answers)


class Measured(NamedTuple):
    """A measurement as a whole."""

    graded: Mapping[str, Sequence[Graded]]
    results: Sequence[Result]
    metrics: Mapping[str, float]
    feedback: str


def told(
    suite: Suite, chosen: Asked, found: Mapping[str, Sequence[Outcome]], cancel: Event
) -> Measured:
    """Score, report, and print."""
    grades = graded(suite, chosen, found, cancel)
    cases = results.results(suite, grades)
    usd = Judge(suite.judge, cancel).cost(results.judged(grades)) if suite.judged else None
    numbers = results.metrics(suite, grades, usd)
    said = results.feedback(suite, grades, cases)
    file = os.environ.get("SWARM_RESULT")
    if file:
        listed = [results.as_case(case) for case in cases]
        result = {"cases": listed, "metrics": numbers, "feedback": said}
        Path(file).write_text(json.dumps(result), encoding="utf-8")
    print(results.table(suite, grades, cases))
    figures = ", ".join(f"{k} {v:g}" for k, v in numbers.items() if "." not in k)
    print(f"  {figures}")
    if said:
        print(f"\n{said}")
    return Measured(grades, cases, numbers, said)


# --- commands ---------------------------------------------------------------------------------


def measure(given: argparse.Namespace) -> int:
    suite = suites.load(given.suite)
    if given.without:
        # The same cases with nothing under test: what the model can do by itself.
        suite = replace(suite, under=replace(suite.under, text="", files={}, offered=False))
    chosen, cancel = asked(suite, given.held_out), Event()
    measured = told(suite, chosen, ran(suite, chosen, cancel), cancel)
    if given.write is not None:
        writers.write(
            given.write, suite, measured.results, measured.graded, measured.metrics,
            description=given.description, without=given.without,
        )  # fmt: skip
    return 0


def run(given: argparse.Namespace) -> int:
    suite = suites.load(given.suite, hidden=True)
    chosen = asked(suite, given.held_out)
    found = ran(suite, chosen, Event())
    for done in found.values():
        for outcome in done:
            outcomes.write(given.out, outcome)
    count = sum(map(len, found.values()))
    print(f"{count} runs of {len(found)} cases; their outcomes are in {given.out}")
    return 0


def score(given: argparse.Namespace) -> int:
    suite = suites.load(given.suite)
    chosen = asked(suite, given.held_out)
    found = {
        case.id: [kept(given.out, suite, case, n) for n in counted(suite)] for case in chosen.cases
    }
    told(suite, chosen, found, Event())
    return 0


def counted(suite: Suite) -> range:
    return range(1, suite.repeats + 1)


def kept(folder: Path, suite: Suite, case: Case, repeat: int) -> Outcome:
    """Read an outcome; one that is broken is a run that failed.

    Raises:
        OutcomeError: there is none: `run` was not here, or its files did not come along.
    """
    try:
        found = outcomes.read(folder, case.id, repeat)
    except OutcomeError as error:
        return Outcome(case.id, repeat, stopped="failed", problem=str(error))
    if found is None:
        raise OutcomeError(
            f"case `{case.id}` has no outcome {folder / outcomes.name_of(case.id, repeat)}; run "
            f"`skill.py run` with the same `--out`, and say `artefacts: [{folder}/]` in the target"
        )
    return found


def check(given: argparse.Namespace) -> int:
    """Say whether a suite is right: its form, its references, and with `--base` what it tells."""
    suite = suites.load(given.suite)
    room = checks.Room(suite, None, Event(), keys_of(suite))
    work = [partial(proof, case, room) for case in suite.cases]
    found = in_parallel(suite.jobs, work, room.cancel)
    problems = [problem for case in found for problem in case]
    if problems:
        raise FormError("\n".join(problems))
    proven = sum(case.reference is not None for case in suite.cases)
    held = sum(case.held_out for case in suite.cases)
    said = [some(len(suite.cases), "case") + (f" ({held} held out)" if held else "")]
    if suite.questions:
        said.append(some(len(suite.questions), "question"))
    if proven:
        said.append(f"{some(proven, 'reference')} passing")
    print(f"ok: {', '.join(said)}")
    return telling(suite) if given.base else 0


def some(n: int, what: str) -> str:
    return f"{n} {what}{'s' * (n != 1)}"


def proof(case: Case, room: checks.Room) -> list[str]:
    """Lay a case's reference over its workspace, and find the checks that it fails."""
    wanted = [check for check in case.checks if check.of_files]
    if not wanted:
        return []
    problems: list[str] = []
    if case.reference is not None:
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder, "work")
            build(place, case, room.suite.under)
            before = snapshot(place)
            lay(place, case.reference)
            left = changes(place, before)
        outcome = Outcome(case.id, 1, files=left.files, deleted=left.deleted)
        for what in wanted:
            ruling = checks.check(what, case, outcome, room)
            if not ruling.holds:
                problems.append(
                    f"{what.where}: case `{case.id}`: its own reference fails the check "
                    f"{what.label}: {ruling.reason}; mend the one or the other"
                )
    if len(wanted) == len(case.checks):
        rulings = (checks.check(what, case, Outcome(case.id, 1), room) for what in wanted)
        if all(ruling.holds for ruling in rulings):
            problems.append(
                f"{case.where}: case `{case.id}` passes on its untouched workspace: whatever a "
                "model does is right; add a check that only holds when the request is met"
            )
    return problems


def telling(suite: Suite) -> int:
    """Measure what is there: cases that all pass, or all fail, tell nothing."""
    chosen, cancel = asked(suite, held_out=False), Event()
    measured = told(suite, chosen, ran(suite, chosen, cancel), cancel)
    passed, count = sum(result.passed for result in measured.results), len(measured.results)
    if passed == count:
        raise FormError(
            f"{suite.cases_at}: cases: all {count} pass on the base: there is nothing to gain; add "
            "cases that fail now and should pass"
        )
    if not passed:
        raise FormError(
            f"{suite.cases_at}: cases: none of {count} passes on the base: no change will be seen "
            "that does not win a whole case; make some easier, or see above what is broken"
        )
    return 0


def bring(given: argparse.Namespace) -> int:
    print(readers.as_yaml(given.file), end="")
    return 0


# --- the command line -------------------------------------------------------------------------


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="skill", description="Cases for a skill, prompt or harness.")
    commands = top.add_subparsers(dest="command", required=True)

    def add(
        name: str, does: object, says: str, *, held_out: bool = True
    ) -> argparse.ArgumentParser:
        own = commands.add_parser(name, help=says)
        own.set_defaults(does=does)
        if name != "import":
            own.add_argument("suite", type=Path)
        if held_out:
            own.add_argument("--held-out", action="store_true", help="the held-out cases, only")
        return own

    one_go = add("measure", measure, "run and score")
    one_go.add_argument("--without", action="store_true", help="with nothing under test")
    one_go.add_argument("--write", type=Path, metavar="FOLDER", help="also as other tools' files")
    one_go.add_argument("--description", default="", help="of this experiment, for --write")
    runs = add("run", run, "only run; what is hidden may be missing")
    runs.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    scores = add("score", score, "only score what `run` has left")
    scores.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    proves = add("check", check, "say whether the suite is right", held_out=False)
    proves.add_argument("--base", action="store_true", help="also measure, and see what it tells")
    brings = add("import", bring, "print another tool's file as a suite", held_out=False)
    brings.add_argument("file", type=Path)
    return top


def main() -> int:
    given = parser().parse_args()
    leave_on(signal.SIGTERM)
    try:
        return given.does(given)
    except FormError as error:
        print("\n".join(f"skill: {line}" for line in str(error).splitlines()), file=sys.stderr)
        return 2
    except (ModelError, QuestionError, OutcomeError) as error:
        print(f"skill: no answer: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
