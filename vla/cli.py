"""The `vla` command: parse, one call, print.

Only the standard library, typer and the error tree are imported here; torch, transformers and mujoco
come in with the command that needs them, so that `vla --help` is quick.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vla.errors import VlaError

if TYPE_CHECKING:
    from vla.config import PipelineConfig

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Train robot manipulation policies on cached features of a frozen vision encoder.",
)

Config = Annotated[
    Path | None, typer.Option("--config", help="Configuration file; ./pipeline.toml if there is one.")
]
Assign = Annotated[
    list[str] | None, typer.Option("--set", metavar="TABLE.KEY=VALUE", help="Any setting; may be repeated.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object on stdout.")]
Encoder = Annotated[
    str | None, typer.Option("--encoder", help="Vision encoder: Hub id, directory, or built-in name.")
]
Device = Annotated[str | None, typer.Option("--device", help="auto, cuda, cuda:1, mps, cpu.")]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; errors a user can mend are one line and exit code 1."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        app(words, prog_name="vla")
    except VlaError as error:
        if "--json" in words:
            print(json.dumps({"error": str(error)}))
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None


@app.command()
def record(
    task: Annotated[
        str | None, typer.Option(help="A task with a scripted expert, such as sim_transfer.")
    ] = None,
    episodes: Annotated[int | None, typer.Option(help="Episodes to keep.")] = None,
    seed: Annotated[int | None, typer.Option(help="Attempt k is reset with seed + k.")] = None,
    out: Annotated[str | None, typer.Option(help="Dataset directory to make.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes; 0 is one a core.")] = None,
    config: Config = None,
    set_: Assign = None,
    json_: Json = False,
) -> None:
    """Record expert demonstrations in simulation, as a LeRobotDataset v3.0.

    Interrupted work goes on where it stopped when the same command is run again.

    Example: vla record --task sim_transfer --episodes 50 --seed 0 --out data/sim_transfer
    """
    named = {"task": task, "episodes": episodes, "seed": seed, "out": out, "workers": workers}
    settings = _settings(config, {f"record.{key}": value for key, value in named.items()}, set_)
    from vla.stages import record as run

    _print(asdict(run(settings)), json_)


@app.command()
def embed(
    dataset: Annotated[str | None, typer.Option(help="Directory of a LeRobotDataset v3.0.")] = None,
    encoder: Encoder = None,
    out: Annotated[str | None, typer.Option(help="Folder in which the cache directory is made.")] = None,
    device: Device = None,
    config: Config = None,
    set_: Assign = None,
    json_: Json = False,
) -> None:
    """Encode every frame of a dataset once, into a feature cache.

    Interrupted work goes on where it stopped when the same command is run again.

    Example: vla embed --dataset data/sim_transfer --encoder siglip2-tiny-random --out data/features
    """
    named = {"dataset.path": dataset, "encoder.id": encoder, "cache.path": out, "encoder.device": device}
    settings = _settings(config, named, set_)
    from vla.stages import embed as run

    _print(asdict(run(settings)), json_)


@app.command()
def train(
    cache: Annotated[str | None, typer.Option(help="Feature cache, or the folder that holds one.")] = None,
    out: Annotated[str | None, typer.Option(help="Run directory to make.")] = None,
    per_view_dim: Annotated[int | None, typer.Option(help="Width that each view is projected to.")] = None,
    steps: Annotated[int | None, typer.Option(help="Updates; 0 saves the untrained policy.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights, order and noise.")] = None,
    encoder: Encoder = None,
    device: Device = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out.")] = False,
    config: Config = None,
    set_: Assign = None,
    json_: Json = False,
) -> None:
    """Train a policy on a feature cache alone.

    Without --resume the run directory must not exist. The encoder is only needed for
    validation rollouts (train.rollout_every).

    Example: vla train --cache data/features --out runs/demo --per-view-dim 192
    """
    named = {
        "cache.path": cache,
        "train.out": out,
        "policy.per_view_dim": per_view_dim,
        "train.steps": steps,
        "train.seed": seed,
        "train.device": device,
        "encoder.id": encoder,
    }
    settings = _settings(config, named, set_)
    from vla.stages import run_tables
    from vla.stages import train as run

    if resume:  # the run's own configuration takes the place of ./pipeline.toml
        settings = _settings(config, named, set_, base=run_tables(Path(settings.train.out)))
    _print(asdict(run(settings, resume=resume)), json_)


@app.command()
def rollout(
    policy: Annotated[Path, typer.Argument(help="A run, a checkpoint or a policy folder.")],
    env: Annotated[str | None, typer.Option(help="Registered Gymnasium id, or module:id.")] = None,
    episodes: Annotated[int | None, typer.Option(help="Evaluation episodes.")] = None,
    seed: Annotated[int | None, typer.Option(help="Episode k has seed + k.")] = None,
    num_steps: Annotated[int | None, typer.Option(help="Sampling steps of the action head.")] = None,
    num_envs: Annotated[int | None, typer.Option(help="Environments side by side; 0 is one a core.")] = None,
    checkpoint: Annotated[str | None, typer.Option(help="best, last or a step; else best if any.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for results; below the run by default.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace earlier results in --out.")] = False,
    encoder: Encoder = None,
    device: Device = None,
    config: Config = None,
    set_: Assign = None,
    json_: Json = False,
) -> None:
    """Drive a trained policy live in simulation and measure it.

    Environment and encoder are those of the run unless named; another encoder than the policy's is refused.

    Example: vla rollout runs/demo --episodes 50 --seed 1000
    """
    named = {
        "env.id": env,
        "rollout.episodes": episodes,
        "rollout.seed": seed,
        "rollout.num_steps": num_steps,
        "rollout.num_envs": num_envs,
        "encoder.id": encoder,
        "encoder.device": device,
    }
    from vla.stages import rollout as run
    from vla.stages import saved_tables

    settings = _settings(config, named, set_, base=saved_tables(policy))
    result = run(settings, policy, checkpoint=checkpoint, out=out, force=force)
    _print(result if json_ else _readable(result), json_)


@app.command()
def inspect(
    path: Annotated[Path, typer.Argument(help="A dataset, cache, run, policy or evaluation.")],
    json_: Json = False,
) -> None:
    """Say in plain words what a path holds.

    Example: vla inspect data/sim_transfer
    """
    from vla.inspect import inspect as run

    _print(run(path), json_)


def _settings(
    file: Path | None,
    options: Mapping[str, Any],
    assignments: list[str] | None,
    base: Mapping[str, Any] | None = None,
) -> "PipelineConfig":
    from vla.config import PipelineConfig

    return PipelineConfig.load(file, options, assignments or [], base)


def _readable(result: Mapping[str, Any]) -> dict[str, Any]:
    """Pick what a person wants to know of an evaluation."""
    aggregated = result["aggregated"]
    low, high = aggregated["pc_success_ci95"]
    return {
        "policy": result["policy"],
        "episodes": aggregated["n_episodes"],
        "success": f"{aggregated['pc_success']:.1f} %  (95 % interval {low:.1f} to {high:.1f})",
        "avg_reward": f"{result['avg_reward']:.2f}",
        "latency_ms": {part: values["p50"] for part, values in result["latency_ms"].items()},
        "seconds": f"{aggregated['eval_s']:.1f}",
        "results": result["out"],
    }


def _print(result: Mapping[str, Any], as_json: bool) -> None:
    """Print a result for people, a line a fact, or as one JSON object."""
    if as_json:
        print(json.dumps(result, default=str))
        return
    width = max(map(len, result))
    for key, value in result.items():
        shown = ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
        print(f"{key:<{width}}  {shown}")
