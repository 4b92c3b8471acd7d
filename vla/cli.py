"""The `vla` command: it gathers the commands of `vla/commands` and turns known errors into one line.

Only the standard library, typer and the error tree are imported here; torch, transformers and mujoco
come in with the command that needs them, so that `vla --help` is quick.
"""

import json
import sys
from collections.abc import Sequence

import typer

from vla.commands.embed import embed
from vla.commands.inspect import inspect
from vla.commands.record import record
from vla.commands.rollout import rollout
from vla.commands.serve import serve
from vla.commands.train import train
from vla.errors import VlaError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Train robot manipulation policies on cached features of a frozen vision encoder.",
)
for command in (record, embed, train, rollout, serve, inspect):
    app.command()(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; errors a user can mend are one line and exit code 1."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        app(words, prog_name="vla")
    except VlaError as error:
        if "--json" in words:
            print(json.dumps({"error": str(error)}))
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
