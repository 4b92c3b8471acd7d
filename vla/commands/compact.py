"""`vla compact`: many small parts of a cache into one."""

from pathlib import Path
from typing import Annotated

import typer

from vla.commands.options import Json, show


def compact(
    cache: Annotated[Path, typer.Argument(help="A feature cache, or a folder that holds one.")],
    json_: Json = False,
) -> None:
    """Rewrite a cache that has grown as one part, with the bytes of one made at once.

    Nothing is encoded. Episodes that were dropped from the dataset go for good. Not while a training reads
    the cache from disk.

    Example: vla compact data/features
    """
    from vla.stages import compact as run

    show(run(cache), json_)
