"""`vla report`: a page to look at."""

from pathlib import Path
from typing import Annotated

import typer

from vla.commands.options import Json, show


def report(
    path: Annotated[Path, typer.Argument(help="A run or a suite.")],
    out: Annotated[Path | None, typer.Option(help="The page; report.html in the run by default.")] = None,
    json_: Json = False,
) -> None:
    """Write one self-contained HTML page: curves, success, latency, frames, features, chunks, videos.

    Example: vla report runs/demo --out demo.html
    """
    from vla.report.report import report as run

    show(run(path, out), json_)
