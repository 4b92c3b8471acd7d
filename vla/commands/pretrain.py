"""`vla pretrain`: an encoder of one's own, trained on cached frames."""

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from vla.commands.options import Assign, Config, Device, Json, settings_from, show


class Method(StrEnum):
    """What is trained."""

    LEWM = "lewm"


def pretrain(
    method: Annotated[Method, typer.Argument(help="lewm: a world model, LeWorldModel.")],
    cache: Annotated[str | None, typer.Option(help="Cache of frames: vla embed --encoder pixels.")] = None,
    out: Annotated[str | None, typer.Option(help="Run directory to make.")] = None,
    steps: Annotated[int | None, typer.Option(help="Updates.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights, order and dropout.")] = None,
    device: Device = None,
    tracker: Annotated[
        str | None, typer.Option(help="tensorboard, wandb, swanlab, trackio or none; metrics.jsonl always.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out.")] = False,
    config: Config = None,
    set_: Assign = None,
    json_: Json = False,
) -> None:
    """Train an encoder on cached frames; freeze it afterwards with vla embed --encoder RUN.

    Figures say whether its features collapse: effective_rank, embedding_std, and the prediction error over
    that of who always says the mean (over_mean) or that nothing changes (over_copy).

    Example: vla pretrain lewm --cache data/frames --out runs/lewm
    """
    named = {
        "cache.path": cache,
        "pretrain.out": out,
        "pretrain.steps": steps,
        "pretrain.seed": seed,
        "pretrain.device": device,
        "pretrain.tracker": tracker,
    }
    settings = settings_from(config, named, set_)
    from vla.stages import pretrain as run

    if resume:  # the run's own configuration takes the place of ./pipeline.toml
        from vla.saved import run_tables

        settings = settings_from(config, named, set_, base=run_tables(Path(settings.pretrain.out)))
    show(asdict(run(settings, resume=resume)), json_)
