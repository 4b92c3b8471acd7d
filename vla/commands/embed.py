"""`vla embed`: stage one."""

from dataclasses import asdict
from typing import Annotated

import typer

from vla.commands.options import Assign, Config, Device, Encoder, Json, settings_from, show


def embed(
    dataset: Annotated[
        str | None, typer.Option(help="LeRobotDataset v2.0 to v3.0, or HDF5 episodes.")
    ] = None,
    encoder: Encoder = None,
    out: Annotated[str | None, typer.Option(help="Folder in which the cache directory is made.")] = None,
    pool: Annotated[str | None, typer.Option(help="pooled, mean, grid2, grid4, grid6x8 …, patches.")] = None,
    augment: Annotated[int | None, typer.Option(help="Augmented variants of each frame.")] = None,
    language: Annotated[
        bool | None, typer.Option("--language/--no-language", help="Encode the task texts too.")
    ] = None,
    text_encoder: Annotated[
        str | None,
        typer.Option(help="Encode the task texts with another encoder: minilm, a directory or a Hub id."),
    ] = None,
    device: Device = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be encoded, kept and dropped.")
    ] = False,
    config: Config = None,
    set_: Assign = None,
    json_: Json = False,
) -> None:
    """Encode every frame of a dataset once, into a feature cache.

    Run again, it encodes what is new in the dataset, leaves out what is gone, and goes on with interrupted
    work.

    Example: vla embed --dataset data/sim_transfer --encoder siglip2-tiny-sim --out data/features
    """
    named = {
        "dataset.path": dataset,
        "encoder.id": encoder,
        "encoder.pool": pool,
        "encoder.language": language,
        "encoder.text_encoder": text_encoder,
        "encoder.device": device,
        "augment.variants": augment,
        "cache.path": out,
    }
    settings = settings_from(config, named, set_)
    from vla.stages import embed as run

    show(asdict(run(settings, dry_run=dry_run)), json_)
