"""`vla share`: a policy for others, on disk or on the Hub."""

from pathlib import Path
from typing import Annotated

import typer

from vla.commands.options import Checkpoint, Json, show


def share(
    policy: Annotated[Path, typer.Argument(help="A run, a checkpoint or a policy folder.")],
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    evaluation: Annotated[
        list[Path] | None,
        typer.Option(help="Results of `vla rollout` that do not lie below the run; repeatable."),
    ] = None,
    push: Annotated[str | None, typer.Option(help="owner/name on the Hub to publish it as.")] = None,
    private: Annotated[bool, typer.Option("--private", help="Only you can see it there.")] = False,
    checkpoint: Checkpoint = None,
    json_: Json = False,
) -> None:
    """Write a policy with its model card into one folder, and publish it if asked.

    The card states the evaluations of these very weights, wherever they lie below the run. Validation
    rollouts chose the checkpoint and are no results.

    The folder goes wherever a policy is named: vla rollout, vla serve, vla export, vla inspect.

    Example: vla share runs/demo --out shared/demo
    """
    from vla.stages import share as run

    report = run(policy, out, evaluations=evaluation or (), push=push, private=private, checkpoint=checkpoint)
    show(report, json_)
