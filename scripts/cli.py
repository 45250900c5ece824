"""The `rankloop` command. Each command's module is imported only when that command runs, so that help is quick."""

from __future__ import annotations

import importlib
import os
import sys
from dataclasses import dataclass
from typing import Annotated, Any

import typer
import typer.core
import typer.main

from runtime.errors import RankloopError

DISTRIBUTION = "rankloop-server"


@dataclass(frozen=True, slots=True)
class Entry:
    """A command: where it is, and what it is good for."""

    place: str
    """`module:name` of a function, or of a Typer with commands of its own."""

    summary: str
    """One line for the list of commands."""


COMMANDS = {
    "up": Entry("scripts.up:up", "Start the whole stack on this machine, with a MongoDB if you bring none."),
    "demo": Entry("scripts.demo:demo", "See it learn: start, simulate, train, simulate again, compare."),
    "server": Entry("scripts.processes:server", "Run the public endpoint."),
    "ranker": Entry("scripts.processes:ranker", "Run a ranking worker."),
    "collector": Entry("scripts.processes:collector", "Run the worker that folds the ledger, and takes interactions in."),
    "train": Entry("scripts.train:train", "Train a model on what happened, and let it serve if it is not worse."),
    "models": Entry("scripts.models:app", "List, show, promote, roll back and import models."),
    "experiments": Entry("scripts.experiments.command:app", "Plan, run and read out A/B tests of rankings."),
    "simulate": Entry("scripts.simulate:simulate", "Let people with known tastes use a running server."),
    "import": Entry("scripts.importing.command:import_files", "Bring in records, or logs of the Open Bandit Dataset."),
    "export": Entry("scripts.exporting.command:export", "Write what is kept into a file: JSON Lines, CSV, Parquet or SQL."),
    "rebuild": Entry("scripts.rebuild:rebuild_derived", "Derive attributions and tallies anew from the ledger."),
    "doctor": Entry("scripts.doctor:doctor", "Say what is wrong with the data, and whether every count is right."),
    "quarantine": Entry("scripts.quarantine:app", "List, show and replay refused entries."),
    "bench": Entry("benchmarks.command:app", "Measure speed beside a peer or a limit in the same run."),
    "config": Entry("scripts.config:config", "Print the configuration in force, every setting explained."),
}


class LazyGroup(typer.core.TyperGroup):
    """Commands that are loaded when they are run; until then a name and a line."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Finds the command and loads it."""
        name, found, rest = super().resolve_command(ctx, args)
        return name, load(name) if name in COMMANDS else found, rest


def load(name: str) -> Any:
    """The command of that name, ready to run."""
    module, _, attribute = COMMANDS[name].place.partition(":")
    target = getattr(importlib.import_module(module), attribute)
    if isinstance(target, typer.Typer):
        return typer.main.get_command(target)
    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    single.command(name)(target)
    return typer.main.get_command(single)


app = typer.Typer(
    cls=LazyGroup,
    name="rankloop",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _name, _entry in COMMANDS.items():
    app.command(_name, help=_entry.summary)(lambda: None)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"rankloop {version(DISTRIBUTION)}")
        raise typer.Exit


@app.callback()
def rankloop(
    version: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """A feedback loop for recommendations: track, rank, measure, learn.

    rankloop up        starts everything on this machine

    rankloop demo      shows in minutes what it is for

    Settings come from rankloop.toml and RANKLOOP_* variables; `rankloop config` prints them all.
    """


def first_failure(error: BaseException) -> RankloopError | None:
    """The failure in `error` that a person can be told of, looking into groups; None if there is another kind in it."""
    if isinstance(error, BaseExceptionGroup):
        found = [first_failure(inner) for inner in error.exceptions]
        return found[0] if found and all(found) else None
    return error if isinstance(error, RankloopError) else None


def main() -> None:
    """Runs the command line. Exit code 0: success; 1: it failed, and a sentence says why; 2: wrong usage."""
    # gRPC's own lines, such as the one about a port in use, would stand beside the sentence that says so, and are not JSON.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    command = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    try:
        app()
    except Exception as error:
        failure = first_failure(error)
        if failure is None:
            raise
        for sentence in failure.message.splitlines():
            print(f"rankloop {command}: {sentence}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
