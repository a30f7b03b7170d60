"""A harness of yes/no questions: every question is asked of the output made from every input.

    python checklist.py run checklist.yaml
    python checklist.py discriminate checklist.yaml OUTPUT OUTPUT OUTPUT OUTPUT OUTPUT

`run` makes one output from each input with the command `generate`, asks, and writes the cases to
the file named by SWARM_RESULT, one for each pair, with the id `question/input`. `discriminate` asks
every question of outputs that lie there already, and names those that tell none of them apart.

It owns the order of things, the cases, the feedback and the exit status: 0, 1 when an answer cannot
be had (a broken judge) or a question does not discriminate, 2 when the checklist or the command
line cannot be used. A candidate that crashes is no error: its cases fail, and the feedback says
why. It does not know who changes what `generate` runs.

    SWARM_CASES     a file with one case id a line: only these are asked, and only their inputs used
    SWARM_SEED      passed on to `generate`
    SWARM_RESULT    receives the cases, as JSON
"""

import argparse
import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from threading import Event
from typing import NamedTuple

sys.dont_write_bytecode = True  # the checkout may be read-only, and must stay clean when it is not

import form  # noqa: E402
import processes  # noqa: E402
from ending import leave_on  # noqa: E402
from form import Checklist, FormError, Input, Question  # noqa: E402
from model import Judge, ModelError, Usage  # noqa: E402
from parallel import in_parallel  # noqa: E402
from questions import Answer, QuestionError, Room, ask  # noqa: E402

FEWEST_OUTPUTS = 5
SHOWN_FAILURES = 3
"""For each question; the rest is more of the same."""
EXCERPT = 200
SEED_STEP = 1_000_003
"""Between the seeds of repeats, so that they do not meet those of other measurements."""


class Output(NamedTuple):
    """What `generate` made from an input, once."""

    input: Input
    seed: int
    text: str
    problem: str | None
    """Why there is none, in words."""
    seconds: float


class Case(NamedTuple):
    """One question about one input."""

    id: str
    question: str
    passed: bool
    seconds: float
    usd: float | None
    failures: list[tuple[str, str]]
    """Why it failed, and the beginning of the output, for each repeat that did."""


class Pair(NamedTuple):
    """A question and an input."""

    question: Question
    input: Input

    @property
    def id(self) -> str:
        return f"{self.question.name}/{self.input.id}"


# --- measuring --------------------------------------------------------------------------------


def run(path: Path) -> None:
    """Measure the candidate that lies here."""
    checklist = load(path)
    every = [Pair(q, i) for q in checklist.questions for i in checklist.inputs]
    pairs = named(every)
    cancel = Event()
    wanted = any(isinstance(pair.question.check, form.Asks) for pair in pairs)
    judge = Judge(checklist.judge, cancel) if wanted else None
    with tempfile.TemporaryDirectory() as folder:
        room = Room(checklist.folder, environment(checklist), judge, cancel)
        outputs = generated(checklist, pairs, room, Path(folder))
        answers = answered(checklist, pairs, outputs, room, Path(folder))
    cases = [case_of(pair, outputs[pair.input.id], answers[pair.id], judge) for pair in pairs]
    usage = total(answer for found in answers.values() for answer in found)
    said = feedback(cases)
    report(cases, metrics(checklist, judge, usage), said)
    print(table(cases))
    if said:
        print(f"\n{said}")


def load(path: Path) -> Checklist:
    checklist = form.load(path)
    count = len(checklist.questions)
    if not form.FEWEST <= count <= form.MOST:
        what = f"{count} question{'s' * (count != 1)}; {form.FEWEST} to {form.MOST} work best"
        print(f"checklist: {path}: {what}", file=sys.stderr)
    return checklist


def named(pairs: list[Pair]) -> list[Pair]:
    """Keep the pairs that SWARM_CASES names; all of them when it is not set."""
    file = os.environ.get("SWARM_CASES")
    if not file:
        return pairs
    try:
        ids = set(Path(file).read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise FormError(f"SWARM_CASES: cannot be read: {error}") from None
    for unknown in sorted(ids - {pair.id for pair in pairs} - {""}):
        print(f"checklist: SWARM_CASES: there is no case {unknown!r}", file=sys.stderr)
    return [pair for pair in pairs if pair.id in ids]


def environment(checklist: Checklist) -> dict[str, str]:
    """Give what commands see: neither the judge's key, nor where the result goes."""
    withheld = {"SWARM_RESULT", "SWARM_CASES", checklist.judge.key_env}
    return {name: value for name, value in os.environ.items() if name not in withheld}


def seeds(repeats: int) -> list[int]:
    given = os.environ.get("SWARM_SEED", "0")
    try:
        return [int(given) + SEED_STEP * n for n in range(repeats)]
    except ValueError:
        raise FormError(f"SWARM_SEED: a whole number is wanted, not {given!r}") from None


def generated(
    checklist: Checklist, pairs: Sequence[Pair], room: Room, folder: Path
) -> dict[str, list[Output]]:
    """Make the outputs of all inputs that are asked about, by the input's id."""
    inputs = {pair.input.id: pair.input for pair in pairs}
    plans = [(entry, seed) for entry in inputs.values() for seed in seeds(checklist.repeats)]
    numbers = {name: n for n, name in enumerate(inputs)}

    def make(entry: Input, seed: int) -> Output:
        file = folder / f"{numbers[entry.id]}-{seed}" / entry.filename
        file.parent.mkdir()
        file.write_bytes(entry.content)
        ended = processes.run(
            checklist.generate,
            cwd=checklist.folder,
            env={**room.env, "SWARM_SEED": str(seed), "INPUT": str(file)},
            stdin=entry.content,
            timeout_s=checklist.timeout_s,
            cancel=room.cancel,
        )
        return Output(entry, seed, ended.output, ended.problem, ended.seconds)

    made = in_parallel(checklist.jobs, [lambda p=p: make(*p) for p in plans], room.cancel)
    return {name: [output for output in made if output.input.id == name] for name in inputs}


def answered(
    checklist: Checklist,
    pairs: Sequence[Pair],
    outputs: Mapping[str, list[Output]],
    room: Room,
    folder: Path,
) -> dict[str, list[Answer]]:
    """Ask each pair's question of each of its outputs, by the pair's id."""

    def one(pair: Pair, output: Output) -> Answer:
        if output.problem is not None:
            return Answer(None, f"no output: `generate` {output.problem}")
        # A copy of its own: the candidate could reach the one that it was given.
        with tempfile.TemporaryDirectory(dir=folder) as own:
            file = Path(own, pair.input.filename)
            file.write_bytes(pair.input.content)
            env = {**room.env, "SWARM_SEED": str(output.seed), "INPUT": str(file)}
            return ask(pair.question, output.text, room._replace(env=env))

    plans = [(pair, output) for pair in pairs for output in outputs[pair.input.id]]
    found = in_parallel(checklist.jobs, [lambda p=p: one(*p) for p in plans], room.cancel)
    answers: dict[str, list[Answer]] = {pair.id: [] for pair in pairs}
    for (pair, _), answer in zip(plans, found, strict=True):
        answers[pair.id].append(answer)
    return answers


# --- what came of it --------------------------------------------------------------------------


def case_of(
    pair: Pair, outputs: Sequence[Output], answers: Sequence[Answer], judge: Judge | None
) -> Case:
    """Make a case of its answers: it passes when more than half of the repeats do."""
    passes = [answer.passes(pair.question) for answer in answers]
    failures = [
        (reason_of(pair.question, answer), excerpt(output.text))
        for output, answer, passed in zip(outputs, answers, passes, strict=True)
        if not passed
    ]
    usage = total(answers)
    return Case(
        id=pair.id,
        question=pair.question.name,
        passed=2 * sum(passes) > len(passes),
        seconds=sum(output.seconds for output in outputs),
        usd=judge.cost(usage) if judge is not None else None,
        failures=failures,
    )


def reason_of(question: Question, answer: Answer) -> str:
    if answer.yes is None or question.expect:
        return answer.reason
    return answer.reason or "the answer is yes, and no is wanted"


def total(answers: Iterable[Answer]) -> Usage:
    usage = Usage()
    for answer in answers:
        usage = usage.plus(answer.usage)
    return usage


def metrics(checklist: Checklist, judge: Judge | None, usage: Usage) -> dict[str, float]:
    """Give what judging cost; with a judge in the checklist also when nobody asked it this time."""
    if not checklist.asks:
        return {}
    found: dict[str, float] = {"tokens": usage.input + usage.output}
    if checklist.judge.usd_per_mtok is not None:
        found["usd"] = (judge.cost(usage) if judge is not None else None) or 0.0
    return found


def report(cases: Sequence[Case], numbers: Mapping[str, float], said: str) -> None:
    file = os.environ.get("SWARM_RESULT")
    if not file:
        return
    result = {"cases": [written(case) for case in cases], "metrics": numbers, "feedback": said}
    Path(file).write_text(json.dumps(result), encoding="utf-8")


def written(case: Case) -> dict[str, object]:
    found: dict[str, object] = {
        "id": case.id,
        "question": case.question,
        "pass": case.passed,
        "seconds": round(case.seconds, 6),
    }
    return found if case.usd is None else {**found, "usd": case.usd}


def feedback(cases: Sequence[Case]) -> str:
    """Say what failed and why, question by question."""
    parts: list[str] = []
    for question in dict.fromkeys(case.question for case in cases):
        own = [case for case in cases if case.question == question]
        failed = [case for case in own if not case.passed]
        if not failed:
            continue
        parts.append(f"{question}: {len(failed)} of {len(own)} inputs fail")
        for case in failed[:SHOWN_FAILURES]:
            reason, text = case.failures[0]
            parts.append(f"  {case.id}: {reason}")
            # One is enough: the next question may well fail with the same text.
            if text and case is failed[0]:
                parts.append(f"    output: {text}")
        if len(failed) > SHOWN_FAILURES:
            rest = ", ".join(case.id for case in failed[SHOWN_FAILURES:])
            parts.append(f"  also: {rest[:EXCERPT]}")
    return "\n".join(parts)


def excerpt(text: str) -> str:
    """Give the beginning of an output on one line, without what a terminal would obey."""
    flat = "".join(c if c.isprintable() else " " for c in " ".join(text[: 4 * EXCERPT].split()))
    return flat if len(flat) <= EXCERPT else f"{flat[:EXCERPT]}..."


def table(cases: Sequence[Case]) -> str:
    lines = [f"{sum(case.passed for case in cases)} of {len(cases)} cases pass"]
    names = list(dict.fromkeys(case.question for case in cases))
    width = max((len(name) for name in names), default=0)
    for name in names:
        own = [case.passed for case in cases if case.question == name]
        lines.append(f"  {name:{width}}  {sum(own)} of {len(own)}")
    return "\n".join(lines)


# --- questions that tell nothing apart --------------------------------------------------------


def discriminate(path: Path, files: Sequence[Path]) -> int:
    """Ask all questions of given outputs; give 1 if one has the same answer for all of them."""
    checklist = load(path)
    outputs = [read_output(file) for file in files]
    if len(set(outputs)) < FEWEST_OUTPUTS:
        what = f"{FEWEST_OUTPUTS} different outputs are needed, not {len(set(outputs))}"
        raise FormError(f"discriminate: {what}; fewer agree by chance")
    cancel = Event()
    judge = Judge(checklist.judge, cancel) if checklist.asks else None
    room = Room(checklist.folder, environment(checklist), judge, cancel)
    work = [lambda q=q, o=o: ask(q, o, room) for q in checklist.questions for o in outputs]
    answers = in_parallel(checklist.jobs, work, cancel)
    rows = {
        question.name: [a.yes is True for a in answers[n * len(files) : (n + 1) * len(files)]]
        for n, question in enumerate(checklist.questions)
    }
    print(discriminate_table(rows, files))
    flat = {name: row[0] for name, row in rows.items() if len(set(row)) == 1}
    for name, yes in flat.items():
        said = "yes" if yes else "no"
        print(f"does not discriminate: `{name}`: {said} for all {len(files)} outputs")
    return 1 if flat else 0


def read_output(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8", "replace")
    except OSError as error:
        raise FormError(f"{file}: cannot be read: {error}") from None


def discriminate_table(rows: Mapping[str, Sequence[bool]], files: Sequence[Path]) -> str:
    width = max(map(len, rows))
    columns = range(1, len(files) + 1)
    lines = [" " * width + "".join(f"{n:>5}" for n in columns)]
    for name, row in rows.items():
        lines.append(f"{name:{width}}" + "".join(f"{'yes' if yes else 'no':>5}" for yes in row))
    return "\n".join([*lines, *(f"{n} is {file}" for n, file in zip(columns, files, strict=True))])


# --- the command line -------------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(prog="checklist", description="Yes/no questions, as cases.")
    commands = parser.add_subparsers(dest="command", required=True)
    runs = commands.add_parser("run", help="measure: write the cases to $SWARM_RESULT")
    runs.add_argument("checklist", type=Path)
    tells = commands.add_parser("discriminate", help="name questions that tell nothing apart")
    tells.add_argument("checklist", type=Path)
    tells.add_argument("outputs", type=Path, nargs="+", metavar="OUTPUT")
    given = parser.parse_args()
    leave_on(signal.SIGTERM)
    try:
        if given.command == "discriminate":
            return discriminate(given.checklist, given.outputs)
        run(given.checklist)
    except FormError as error:
        lines = str(error).splitlines()
        print("\n".join(f"checklist: {line}" for line in lines), file=sys.stderr)
        return 2
    except (ModelError, QuestionError) as error:
        print(f"checklist: no answer: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
