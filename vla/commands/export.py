"""`vla export`: a policy for other programs: an ONNX graph, a PyTorch archive, or a folder for LeRobot."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from vla.commands.options import (
    Assign,
    Checkpoint,
    Config,
    Encoder,
    Json,
    NumSteps,
    Policy,
    Revision,
    Task,
    show,
)


def export(
    policy: Policy,
    onnx: Annotated[Path | None, typer.Option("--onnx", help="ONNX file to write.")] = None,
    torch: Annotated[
        Path | None, typer.Option("--torch", help="torch.export archive to write, a .pt2 file.")
    ] = None,
    lerobot: Annotated[Path | None, typer.Option("--lerobot", help="Folder to make for LeRobot.")] = None,
    check: Annotated[int, typer.Option(min=0, help="Random inputs compared with PyTorch.")] = 8,
    task: Task = None,
    num_steps: NumSteps = None,
    revision: Revision = None,
    checkpoint: Checkpoint = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace an existing file of --onnx or --torch.")
    ] = False,
    encoder: Encoder = None,
    config: Config = None,
    set_: Assign = None,
    json_: Json = False,
) -> None:
    """Write a policy for other programs.

    --onnx FILE writes encoder and policy as one graph: uint8 images, state and noise in, actions out.
    Beside it go a .md and a .json file that say what goes in and comes out.

    --torch FILE writes the same as a torch.export archive, which needs PyTorch but not vla.

    --lerobot DIR writes a folder for lerobot-eval, lerobot-rollout and the like: --policy.path=DIR.

    Example: vla export runs/demo --onnx runs/demo/policy.onnx --check 8
    """
    if [onnx, torch, lerobot].count(None) != 2:
        raise typer.BadParameter("name what to write, one of --onnx FILE, --torch FILE, --lerobot DIR")
    named = {"rollout.task": task, "rollout.num_steps": num_steps, "encoder.id": encoder}
    from vla.policy.sharing.hub import locate
    from vla.saved import policy_settings
    from vla.stages import export as run
    from vla.stages import export_lerobot, export_torch

    folder = locate(policy, revision)
    settings = policy_settings(folder, named, set_ or [], config)
    if lerobot is not None:
        show(export_lerobot(settings, folder, lerobot, checkpoint=checkpoint), json_)
    elif torch is not None:
        report = export_torch(settings, folder, torch, checks=check, checkpoint=checkpoint, force=force)
        show(asdict(report), json_)
    elif onnx is not None:
        show(asdict(run(settings, folder, onnx, checks=check, checkpoint=checkpoint, force=force)), json_)
