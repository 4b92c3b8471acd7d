"""`vla share`: a policy for others, on disk or on the Hub."""

from pathlib import Path
from typing import Annotated

import typer

from vla.commands.options import Checkpoint, Json, show


def share(
    policy: Annotated[Path, typer.Argument(help="A run, a checkpoint or a policy folder.")],
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    push: Annotated[str | None, typer.Option(help="owner/name on the Hub to publish it as.")] = None,
    private: Annotated[bool, typer.Option("--private", help="Only you can see it there.")] = False,
    checkpoint: Checkpoint = None,
    json_: Json = False,
) -> None:
    """Write a policy with its model card into one folder, and publish it if asked.

    The folder goes wherever a policy is named: vla rollout, vla serve, vla export, vla inspect.

    Example: vla share runs/demo --out shared/demo
    """
    from vla.stages import share as run

    show(run(policy, out, push=push, private=private, checkpoint=checkpoint), json_)
