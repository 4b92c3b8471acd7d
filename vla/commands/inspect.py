"""`vla inspect`: what a path holds."""

from pathlib import Path
from typing import Annotated

import typer

from vla.commands.options import Assign, Config, Json, settings_from, show


def inspect(
    path: Annotated[Path, typer.Argument(help="A dataset, cache, run, policy, suite or evaluation.")],
    config: Config = None,
    set_: Assign = None,
    json_: Json = False,
) -> None:
    """Say in plain words what a path holds.

    Of a dataset that needs settings, such as the name of its state, say them as to `vla embed`.

    Example: vla inspect data/sim_transfer
    """
    from vla.inspect import inspect as run

    show(run(path, settings_from(config, {"dataset.path": str(path)}, set_, base={}).dataset), json_)
