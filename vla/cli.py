"""The `vla` command: it gathers the commands of `vla/commands` and turns known errors into one line.

Only the standard library, typer and the error tree are imported here; torch, transformers and mujoco
come in with the command that needs them, so that `vla --help` is quick.
"""

import json
import os
import shlex
import sys
from collections.abc import Sequence
from importlib import metadata
from platform import python_version
from typing import Annotated

import typer

from vla.base.errors import VlaError
from vla.base.interrupt import Interrupted, interruptible
from vla.base.malloc import share_one_arena
from vla.base.openmp import spin_briefly
from vla.commands.adapt import adapt
from vla.commands.compact import compact
from vla.commands.embed import embed
from vla.commands.export import export
from vla.commands.inspect import inspect
from vla.commands.pretrain import pretrain
from vla.commands.record import record
from vla.commands.report import report
from vla.commands.rollout import rollout
from vla.commands.serve import serve
from vla.commands.share import share
from vla.commands.sweep import sweep
from vla.commands.train import train
from vla.commands.verify import verify

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Train robot manipulation policies on cached features of a frozen vision encoder.",
)


def show_versions(asked: bool) -> bool:
    """Print what a report of a fault should say, and end; not asked, say so."""
    if asked:
        names = ("vla", "torch", "transformers", "mujoco")
        print(", ".join(f"{name} {metadata.version(name)}" for name in names), f"(python {python_version()})")
        raise typer.Exit
    return asked


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=show_versions, is_eager=True, help="Print versions, for reports, and exit."
        ),
    ] = False,
) -> None:
    pass


for command in (
    record,
    embed,
    compact,
    pretrain,
    train,
    adapt,
    rollout,
    sweep,
    report,
    serve,
    export,
    share,
    inspect,
    verify,
):
    app.command()(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line.

    Errors a user can mend are one line and exit code 1. SIGINT and SIGTERM end it with 130 and 143, and
    a line that says how to go on.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    share_one_arena()
    spin_briefly()  # before a command imports torch
    try:
        with interruptible():
            app(words, prog_name="vla")
    except (VlaError, OSError) as error:
        line = str(error) if isinstance(error, VlaError) else _one_line(error)
        if "--json" in words:
            _answer({"error": line})
        print(f"error: {line}", file=sys.stderr)
        raise SystemExit(1) from None
    except Interrupted as stop:
        added = [option for option in stop.options if option not in words]
        again = shlex.join(["vla", *words, *added])
        if "--json" in words:
            _answer({"stopped": stop.signal.name, "kept": stop.kept, "next": again})
        print(f"stopped by {stop.signal.name}; {stop.kept}; go on: {again}", file=sys.stderr)
        raise SystemExit(stop.exit_code) from None


def _answer(fields: dict[str, str]) -> None:
    """Print an answer of --json; whoever was to read it may have gone."""
    try:
        print(json.dumps(fields), flush=True)
    except BrokenPipeError:
        # Python flushes once more when it ends, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _one_line(error: OSError) -> str:
    """Describe what the system refused: a full disk, say, while something else than our files was written."""
    name = f"{error.filename}: " if error.filename else ""
    reason = " ".join((error.strerror or str(error)).split())
    return f"{name}{reason}; finished work is kept, run the same command when that is mended"
