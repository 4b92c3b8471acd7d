"""`vla verify`: look for damage."""

import json
from pathlib import Path
from typing import Annotated

import typer

from vla.commands.options import Assign, Config, Encoder, Json, settings_from, show


def verify(
    path: Annotated[Path, typer.Argument(help="A feature cache, a run, or a dataset.")],
    reencode: Annotated[int, typer.Option(help="Frames of a cache to encode again and compare.")] = 0,
    dataset: Annotated[
        str | None, typer.Option(help="Where a cache's dataset lies, if it was moved.")
    ] = None,
    encoder: Encoder = None,
    device: Annotated[str, typer.Option(help="auto, cuda, cuda:1, mps, cpu.")] = "auto",
    config: Config = None,
    set_: Assign = None,
    json_: Json = False,
) -> None:
    """Check every byte and value of a cache, run or dataset; exit with 1 if there is damage.

    Checksums, headers against content, finite values, the place of every frame. What is wrong is named, a
    line each, with what to run next.

    Example: vla verify data/features --reencode 100
    """
    from vla.verify import verify as run

    how = settings_from(config, {"dataset.path": str(path)}, set_, base={}).dataset
    found = run(path, reencode=reencode, dataset=dataset, encoder=encoder, device=device, settings=how)
    problems = found["problems"]
    if json_:
        print(json.dumps(found))
    else:
        show({**found, "problems": len(problems)}, as_json=False)
        for problem in problems:
            print(problem)
    if problems:
        raise typer.Exit(1)
