"""The command line: what can be typed, and the one place where an error becomes an exit code.

Owns names, options and help of all commands. Each is a few lines that import what does the work
when it is called, so that `swarm --help` loads nothing else. Knows no ledger, no git and no Ray.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from swarm import __version__
from swarm.errors import PreconditionError, SwarmError, UsageError
from swarm.terminal import ReaderGone, emit, emit_json, say, silence_stdout

app = typer.Typer(
    help="Parallel agents that search over git branches: propose, measure, keep or discard, "
    "and merge the wins.",
    epilog="RUN is a run's name, the newest run by default. stdout is data, stderr is talk; "
    "every command takes --json. Start with: swarm demo",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# --- parameters that many commands share --------------------------------------------------------

Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
Dir = Annotated[
    Path | None,
    typer.Option("--dir", metavar="DIR", help="A run directory, or where to search for runs."),
]
RunArgument = Annotated[
    str | None, typer.Argument(metavar="RUN", help="Name of the run.", show_default="the newest")
]
RunOption = Annotated[
    str | None,
    typer.Option("--run", "-r", metavar="RUN", help="Name of the run.", show_default="the newest"),
]
Number = Annotated[int, typer.Argument(metavar="N", help="Number of the experiment.")]
Out = Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write it there instead.")]
Target = Annotated[
    str | None,
    typer.Option("--target", metavar="NAME", help="Which target, where there are several."),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done; touch nothing.")]
Inline = Annotated[
    bool,
    typer.Option("--inline", help="Run everything in this process, without Ray; for debugging."),
]
Overrides = Annotated[
    list[str],
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Set a key of the config, as in budget.experiments=20."
    ),
]


def _print_version(wanted: bool) -> None:
    if wanted:
        emit(f"swarm {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        emit(context.get_help())
    elif os.name != "posix":
        raise PreconditionError(
            f"swarm cannot work on {sys.platform}", hint="run it on Linux, macOS or inside WSL 2"
        )


# --- starting -----------------------------------------------------------------------------------

RunName = Annotated[
    str | None,
    typer.Option("--name", metavar="RUN", help="Name of the run, instead of the config's."),
]
Address = Annotated[
    str | None,
    typer.Option(
        "--address", metavar="HOST:PORT", help="Join this Ray cluster instead of an own one."
    ),
]
Agent = Annotated[
    str | None,
    typer.Option(
        "--agent",
        metavar="WHO",
        help="Who proposes: mutate, a coding agent (claude, codex, ...), or a model's name.",
    ),
]
Door = Annotated[
    Path,
    typer.Argument(metavar="CONFIG", help="A config file, an improve.md, or a directory."),
]


@app.command()
def launch(
    config: Door,
    set_: Overrides = [],  # noqa: B006  typer copies it
    agent: Agent = None,
    name: RunName = None,
    address: Address = None,
    inline: Inline = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Start a run, or resume it where it stopped.

    A directory is launched by its swarm.yaml, improve.md, .auto/, or prepare.py, train.py and
    program.md.

    Example: swarm launch swarm.yaml --set budget.experiments=50
    """
    from swarm.foreground import Order, dry_run_of, launch_config

    order = Order(
        config, tuple(set_), agent=agent, name=name, address=address, inline=inline, json=json
    )
    if dry_run:
        dry_run_of(order)
    else:
        raise typer.Exit(launch_config(order))


@app.command("try")
def try_(
    objective: Annotated[str, typer.Argument(metavar="OBJECTIVE", help="What is to get better.")],
    measure: Annotated[
        str, typer.Argument(metavar="MEASURE", help="A command whose last line has the number.")
    ],
    scope: Annotated[
        str,
        typer.Argument(metavar="SCOPE", help="What may change: a file, a directory, or globs."),
    ],
    timeout: Annotated[
        str, typer.Argument(metavar="TIMEOUT", help="Longest time for one measurement.")
    ] = "5m",
    goal: Annotated[
        str | None,
        typer.Option(
            "--goal", metavar="GOAL", help="minimize or maximize, where OBJECTIVE does not tell."
        ),
    ] = None,
    metric: Annotated[
        str | None, typer.Option("--metric", metavar="NAME", help="What to call the number.")
    ] = None,
    save: Annotated[
        Path | None, typer.Option("--save", metavar="FILE", help="Write the config there, too.")
    ] = None,
    set_: Overrides = [],  # noqa: B006  typer copies it
    agent: Agent = None,
    name: RunName = None,
    address: Address = None,
    inline: Inline = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Start a run without a config: what is to get better, how it is measured, what may change.

    Example: swarm try "improve accuracy" "python benchmark.py 2>&1 | grep accuracy" model.py
    """
    from swarm.doors.wish import Wish, goal_of
    from swarm.foreground import Order, dry_run_of, launch_config

    wish = Wish(objective, measure, scope, timeout, goal_of(goal), metric, save)
    order = Order(
        wish, tuple(set_), agent=agent, name=name, address=address, inline=inline, json=json
    )
    if dry_run:
        dry_run_of(order)
    else:
        raise typer.Exit(launch_config(order))


@app.command()
def check(
    config: Door,
    set_: Overrides = [],  # noqa: B006  typer copies it
    json: Json = False,
) -> None:
    """Try a target out before a run: noise, time, cost, and what is wrong with it.

    Measures the base a few times, as a run would, and leaves nothing.

    Example: swarm check swarm.yaml
    """
    from swarm.check import check_config

    raise typer.Exit(check_config(config, tuple(set_), as_json=json))


@app.command()
def init(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="A directory of a repository.", show_default=".")
    ] = Path(),
    goal: Annotated[
        str, typer.Option("--goal", metavar="TEXT", help="What is to get better, in your words.")
    ] = "",
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Take the default of every question.")
    ] = False,
    launch: Annotated[
        bool, typer.Option("--launch", help="Go on to launch, if the check finds no error.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", help="Where the config goes.", show_default="DIR/swarm.yaml"
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite what is there.")] = False,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="NAME", help="The model that drafts and proposes."),
    ] = None,
    json: Json = False,
) -> None:
    """Look at a repository and write a config for it, with guard tests, and check it.

    Asks three questions at most. Bugs that the drafted tests find are reported.

    Example: swarm init --yes --launch
    """
    from swarm.init import MODEL, Wish, start

    wish = Wish(directory, goal, yes, launch, out, force, json, model or MODEL)
    raise typer.Exit(start(wish))


@app.command("golden")
def golden_(
    queries: Annotated[
        Path, typer.Argument(metavar="QUERIES", help="A text file, a query a line; or JSON lines.")
    ],
    search: Annotated[
        list[str],
        typer.Option(
            "--search",
            metavar="COMMAND",
            help="The search: reads queries on stdin, or has {query} in it. Several are pooled.",
        ),
    ] = [],  # noqa: B006  typer copies it
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="The golden set; what is in it is not asked again.",
            show_default="golden.jsonl",
        ),
    ] = None,
    k: Annotated[
        int, typer.Option("--k", metavar="N", min=1, help="Results of a search that are shown.")
    ] = 10,
    held_out: Annotated[
        str, typer.Option("--held-out", metavar="SHARE", help="Share of queries held out.")
    ] = "25%",
    again: Annotated[
        list[str], typer.Option("--again", metavar="ID", help="Ask this query once more.")
    ] = [],  # noqa: B006  typer copies it
    timeout: Annotated[
        str, typer.Option("--timeout", metavar="TIME", help="Longest time for one start.")
    ] = "5m",
    check: Annotated[
        bool, typer.Option("--check", help="Only look at a golden set: QUERIES, or --out.")
    ] = False,
    json: Json = False,
) -> None:
    """Make a golden set for retrieval: your queries, a search's results, and your grades.

    Each answer is saved at once; the same command goes on where you stopped.

    Example: swarm golden queries.txt --search "python -m search"
    """
    from swarm.golden import Wish, start

    wish = Wish(
        queries,
        tuple(search),
        out=out,
        k=k,
        held_out=held_out,
        timeout=timeout,
        again=tuple(again),
        check=check,
        json=json,
    )
    raise typer.Exit(start(wish))


@app.command()
def demo(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="Where to make it.", show_default="./swarm-demo")
    ] = Path("swarm-demo"),
    set_: Overrides = [],  # noqa: B006  typer copies it
    inline: Inline = False,
    json: Json = False,
) -> None:
    """Try swarm on a small bundled target: no key, no GPU needed.

    Example: swarm demo /tmp/swarm-demo
    """
    from swarm.demo import LAST_WORDS, prepare
    from swarm.foreground import Order, launch_config
    from swarm.terminal import say

    config = prepare(directory)
    code = launch_config(Order(config, tuple(set_), inline=inline, json=json))
    if code == 0:
        say(LAST_WORDS.format(directory=directory))
    raise typer.Exit(code)


# --- looking ------------------------------------------------------------------------------------


@app.command()
def status(run: RunArgument = None, directory: Dir = None, json: Json = False) -> None:
    """Show how far a run has come: baseline, best, agents, spend.

    Example: swarm status
    """
    from swarm import commands

    commands.status(commands.look(run, directory), json=json)


@app.command()
def watch(run: RunArgument = None, directory: Dir = None, json: Json = False) -> None:
    """Follow a run until it ends; Ctrl-C leaves it running. With --json, its events as they come.

    Example: swarm watch demo
    """
    from swarm import commands

    commands.watch(commands.look(run, directory), json=json)


@app.command()
def experiments(
    run: RunArgument = None,
    verdict: Annotated[
        str | None,
        typer.Option("--verdict", metavar="VERDICT", help="Only those with this verdict."),
    ] = None,
    directory: Dir = None,
    json: Json = False,
) -> None:
    """List the experiments of a run, one a line.

    Example: swarm experiments --verdict keep
    """
    from swarm import commands

    commands.experiments(commands.look(run, directory), verdict=verdict, json=json)


@app.command()
def show(number: Number, run: RunOption = None, directory: Dir = None, json: Json = False) -> None:
    """Show one experiment: its idea, values, verdict and why.

    Example: swarm show 12
    """
    from swarm import commands

    commands.show(commands.look(run, directory), number, json=json)


@app.command()
def diff(number: Number, run: RunOption = None, directory: Dir = None, json: Json = False) -> None:
    """Print the change of one experiment as a patch.

    Example: swarm diff 12 | git apply
    """
    from swarm import commands

    commands.diff(commands.look(run, directory), number, json=json)


@app.command()
def logs(
    number: Annotated[
        int, typer.Argument(metavar="N", help="Number of the experiment; 0 for the base.")
    ],
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Wait for more until the verdict.")
    ] = False,
    every: Annotated[
        bool, typer.Option("--all", "-a", help="All measurements, not the newest only.")
    ] = False,
    run: RunOption = None,
    directory: Dir = None,
    json: Json = False,
) -> None:
    """Print what the harness printed for an experiment.

    Example: swarm logs 12 --all
    """
    from swarm import commands

    seen = commands.look(run, directory)
    commands.logs(seen, number, follow=follow, every=every, json=json)


@app.command()
def lessons(run: RunArgument = None, directory: Dir = None, json: Json = False) -> None:
    """Say what a run has learned: what worked, what did not, and why it was tried.

    Example: swarm lessons > lessons.md
    """
    from swarm import commands

    commands.lessons(commands.look(run, directory), json=json)


@app.command()
def report(
    run: RunArgument = None,
    html: Annotated[
        bool, typer.Option("--html", help="One HTML file with the picture in it.")
    ] = False,
    out: Out = None,
    directory: Dir = None,
    json: Json = False,
) -> None:
    """Report what a run has found, and how far it can be believed, as Markdown.

    Example: swarm report --html --out report.html
    """
    from swarm import commands

    if html and json:
        raise UsageError("--html and --json are two forms of one report", hint="give one of them")
    form = "html" if html else "json" if json else "markdown"
    commands.report(commands.look(run, directory), form=form, out=out)


@app.command()
def export(
    form: Annotated[
        str,
        typer.Argument(
            metavar="FORM",
            help="program.md, karpathy, labclaw, pi, uditgoenka, leo, "
            "autoimprove, skill or agenthub.",
        ),
    ],
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="CONFIG|RUN",
            help="A config file, or the name of a run.",
            show_default="the newest run",
        ),
    ] = None,
    set_: Overrides = [],  # noqa: B006  typer copies it
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="PATH", help="The file, or the directory of several."),
    ] = None,
    target: Target = None,
    metric: Annotated[
        str | None,
        typer.Option("--metric", metavar="NAME", help="What the metric is to be called there."),
    ] = None,
    directory: Dir = None,
    json: Json = False,
) -> None:
    """Put a config or a run into a form that others can read.

    program.md: the whole protocol, to be handed to one coding agent without swarm. All other
    forms: the results of a run, as that tool writes them.

    Example: swarm export pi tiny-gpt --out .
    """
    from swarm.exporting import export

    export(
        form,
        source,
        directory=directory,
        overrides=tuple(set_),
        target=target,
        metric=metric,
        out=out,
        as_json=json,
    )


@app.command("import")
def import_(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="A results file, or the directory it lies in.")
    ],
    form: Annotated[
        str | None,
        typer.Option(
            "--form",
            metavar="FORM",
            help="karpathy, labclaw, pi, uditgoenka, leo, autoimprove, skill, coral or agenthub.",
            show_default="what it looks like",
        ),
    ] = None,
    goal: Annotated[
        str | None,
        typer.Option(
            "--goal", metavar="GOAL", help="minimize or maximize, where the file does not say it."
        ),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option("--metric", metavar="NAME", help="What the metric is called in your config."),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Name of the history.")
    ] = None,
    dry_run: DryRun = False,
    directory: Annotated[
        Path | None,
        typer.Option("--dir", metavar="DIR", help="The repository that is to have it."),
    ] = None,
    json: Json = False,
) -> None:
    """Read the history of another tool, so that a run can be started from it.

    A config names it with `warm_start`. It is no run: `swarm status` does not know it.

    Example: swarm import results.tsv --name march
    """
    from swarm.doors.wish import goal_of
    from swarm.importing import Wish, import_history

    import_history(Wish(path, form, goal_of(goal), metric, name, directory, dry_run, json))


# --- steering -----------------------------------------------------------------------------------


@app.command()
def pause(run: RunArgument = None, directory: Dir = None, json: Json = False) -> None:
    """Start nothing new until `swarm resume`.

    What is being measured is finished.

    Example: swarm pause
    """
    from swarm import commands

    commands.ask(commands.look(run, directory), "pause", json=json)


@app.command()
def resume(run: RunArgument = None, directory: Dir = None, json: Json = False) -> None:
    """Go on after `swarm pause`. A run that is not alive is resumed by `swarm launch`.

    Example: swarm resume
    """
    from swarm import commands

    commands.ask(commands.look(run, directory), "resume", json=json)


@app.command()
def stop(run: RunArgument = None, directory: Dir = None, json: Json = False) -> None:
    """Finish a run in good order.

    What is in flight is measured, what waits is merged, and the result is measured afresh.

    Example: swarm stop demo
    """
    from swarm import commands

    commands.ask(commands.look(run, directory), "stop", json=json)


@app.command()
def apply(
    run: RunArgument = None,
    onto: Annotated[
        str | None,
        typer.Option("--onto", metavar="BRANCH", help="Make this new branch instead."),
    ] = None,
    target: Target = None,
    directory: Dir = None,
    json: Json = False,
) -> None:
    """Fast-forward your branch to the best of a run.

    With --onto, make a new branch there instead and leave yours alone.

    Example: swarm apply --onto faster
    """
    from swarm import commands

    commands.apply_best(commands.look(run, directory), onto=onto, target=target, json=json)


# --- housekeeping -------------------------------------------------------------------------------


@app.command()
def clean(
    run: Annotated[
        str | None, typer.Argument(metavar="RUN", help="Only this run.", show_default="all runs")
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Unfinished runs too; a live run is never removed.")
    ] = False,
    keep_gb: Annotated[
        float | None,
        typer.Option(
            "--keep-gb",
            metavar="GB",
            min=0,
            help="Keep the newest runs that fit in this much disk.",
        ),
    ] = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    directory: Dir = None,
    json: Json = False,
) -> None:
    """Remove finished runs, and scratch files not in use.

    Example: swarm clean --keep-gb 5 --dry-run
    """
    from swarm.clean import clean_up

    clean_up(run, directory, every=every, keep_gb=keep_gb, yes=yes, dry_run=dry_run, as_json=json)


@app.command()
def schema(json: Json = False) -> None:
    """Print the JSON Schema of the config file.

    Example: swarm schema > swarm.schema.json
    """
    from swarm import config

    emit_json(config.schema())


@app.command()
def doctor(json: Json = False) -> None:
    """Check what swarm needs on this machine, with remedies.

    Example: swarm doctor
    """
    from swarm.doctor import examine

    raise typer.Exit(examine(as_json=json))


# --- the error boundary -------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command line and exit: every way in leads here, and every way out."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in words
    try:
        code = _run(words, as_json=as_json)
        sys.stdout.flush()
    except (ReaderGone, BrokenPipeError):
        silence_stdout()
        code = 0
    sys.exit(code)


def _run(words: list[str], *, as_json: bool) -> int:
    try:
        outcome: Any = app(args=words, prog_name="swarm", standalone_mode=False)
        return outcome if isinstance(outcome, int) else 0
    except SwarmError as error:
        return _report(error, as_json=as_json)
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        command = "swarm" if context is None else context.command_path
        usage = UsageError(error.format_message(), hint=f"`{command} --help` shows what it takes")
        return _report(usage, as_json=as_json)
    except typer.Abort:
        say("swarm: nothing done")
        return 1
    except KeyboardInterrupt:
        return 130
    except (ReaderGone, BrokenPipeError):
        raise
    except Exception as error:
        return _report_unexpected(error, as_json=as_json)


def _report(error: SwarmError, *, as_json: bool) -> int:
    if as_json:
        emit_json(error.to_json(), line=True)
    else:
        say(f"swarm: {error}")
    return error.exit_code


def _report_unexpected(error: Exception, *, as_json: bool) -> int:
    say("".join(traceback.format_exception(error)).rstrip())
    # Whoever knows where the log is has noted it on the exception.
    hint = "; ".join(["this is a fault of swarm's own", *getattr(error, "__notes__", [])])
    wrapped = SwarmError(f"unexpected {type(error).__name__}: {error}", hint=hint)
    return _report(wrapped, as_json=as_json)


if __name__ == "__main__":
    main()
