"""`vla adapt`: trunks learn from images, are frozen and cached, and a head is trained on that."""

from typing import Annotated

import typer

from vla.commands.options import Assign, Config, Device, Encoder, Json, settings_from, show


def adapt(
    dataset: Annotated[
        str | None, typer.Option(help="LeRobotDataset v2.0 to v3.0, or HDF5 episodes.")
    ] = None,
    out: Annotated[
        str | None, typer.Option(help="Run directory of the head; OUT-pixels is the run on images.")
    ] = None,
    encoder: Encoder = None,
    steps: Annotated[int | None, typer.Option(help="Updates of the head on features.")] = None,
    adapt_steps: Annotated[int | None, typer.Option(help="Updates on images, end to end.")] = None,
    device: Device = None,
    config: Config = None,
    set_: Assign = None,
    json_: Json = False,
) -> None:
    """Train trunks on images once, freeze and cache them, and train a head on their features.

    The four steps are vla embed --encoder pixels, vla train, vla embed --encoder RUN and vla train. Run
    again, it goes on where it stopped. The trunks of the images are those of policy.trunks.

    Example: vla adapt --config pipeline.toml --encoder pixels --set policy.trunks.top=resnet --out runs/box
    """
    named = {
        "dataset.path": dataset,
        "train.out": out,
        "train.steps": steps,
        "train.adapt_steps": adapt_steps,
        "train.device": device,
        "encoder.id": encoder,
        "encoder.device": device,
    }
    settings = settings_from(config, named, set_)
    from vla.stages.adapting import adapt as run

    show(run(settings), json_)
