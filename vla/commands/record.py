"""`vla record`: demonstrations."""

from dataclasses import asdict
from typing import Annotated

import typer

from vla.commands.options import Assign, Config, Json, settings_from, show


def record(
    task: Annotated[
        str | None, typer.Option(help="A task with a scripted expert, such as sim_transfer.")
    ] = None,
    episodes: Annotated[int | None, typer.Option(help="Episodes to keep.")] = None,
    seed: Annotated[int | None, typer.Option(help="Attempt k is reset with seed + k.")] = None,
    out: Annotated[str | None, typer.Option(help="Dataset directory to make.")] = None,
    append: Annotated[
        bool | None, typer.Option("--append", help="Continue the dataset at --out up to --episodes in all.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Processes; 0 is one per core.")] = None,
    config: Config = None,
    set_: Assign = None,
    json_: Json = False,
) -> None:
    """Record expert demonstrations in simulation, as a LeRobotDataset v3.0.

    Interrupted work continues where it stopped when the same command is run again. A finished dataset grows
    with --append and a larger --episodes, to the bytes that it would have, had it been recorded at once.

    Example: vla record --task sim_transfer --episodes 50 --seed 0 --out data/sim_transfer
    """
    named = {
        "task": task,
        "episodes": episodes,
        "seed": seed,
        "out": out,
        "append": append,
        "workers": workers,
    }
    settings = settings_from(config, {f"record.{key}": value for key, value in named.items()}, set_)
    from vla.stages import record as run

    show(asdict(run(settings)), json_)
