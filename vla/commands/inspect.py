"""`vla inspect`: what a path holds."""

from pathlib import Path
from typing import Annotated

import typer

from vla.commands.options import Json, show


def inspect(
    path: Annotated[Path, typer.Argument(help="A dataset, cache, run, policy, suite or evaluation.")],
    json_: Json = False,
) -> None:
    """Say in plain words what a path holds.

    Example: vla inspect data/sim_transfer
    """
    from vla.inspect import inspect as run

    show(run(path), json_)
