"""What commands share: common options, the configuration they amount to, and printing."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from vla.config import PipelineConfig

Config = Annotated[
    Path | None, typer.Option("--config", help="Configuration file; ./pipeline.toml if there is one.")
]
Preset = Annotated[
    str | None,
    typer.Option(
        "--preset", help="Comes with vla, below file and options: small, for a CPU; vla_model, with words."
    ),
]
Assign = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="TABLE.KEY=VALUE", help="Any key of docs/configuration.md; repeatable."),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object on stdout.")]
Encoder = Annotated[
    str | None, typer.Option("--encoder", help="Vision encoder: Hub id, directory, run, or built-in name.")
]
Policy = Annotated[
    str, typer.Argument(help="A run, a checkpoint or a policy folder; or owner/name with --revision.")
]
Revision = Annotated[
    str | None, typer.Option("--revision", help="Branch, tag or commit of a policy on the Hub, such as main.")
]
Checkpoint = Annotated[
    str | None, typer.Option("--checkpoint", help="best, last or a step; else best if any.")
]
NumSteps = Annotated[int | None, typer.Option("--num-steps", help="Sampling steps of the action head.")]
Task = Annotated[str | None, typer.Option("--task", help="What to do, in words, for a policy with language.")]
Device = Annotated[str | None, typer.Option("--device", help="auto, cuda, cuda:1, mps, cpu.")]


def settings_from(
    file: Path | None,
    options: Mapping[str, Any],
    assignments: list[str] | None,
    base: Mapping[str, Any] | None = None,
    preset: str | None = None,
) -> "PipelineConfig":
    from vla.config import PipelineConfig

    return PipelineConfig.load(file, options, assignments or [], base, preset)


def show(result: Mapping[str, Any], as_json: bool) -> None:
    """Print a result for people, a line a fact, or as one JSON object."""
    if os.environ.get("RANK", "0") != "0":
        return  # one of several processes that torchrun started
    if as_json:
        print(json.dumps(result, default=str))
        return
    width = max(map(len, result))
    for key, value in result.items():
        shown = ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
        print(f"{key:<{width}}  {shown}")
