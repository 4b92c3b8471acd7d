"""`vla rollout`: the policy live."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from vla.base.success import format_success
from vla.commands.options import (
    Assign,
    Checkpoint,
    Config,
    Device,
    Encoder,
    Json,
    NumSteps,
    Policy,
    Revision,
    Task,
    show,
)


def rollout(
    policy: Policy,
    env: Annotated[str | None, typer.Option(help="Registered Gymnasium id, or module:id.")] = None,
    episodes: Annotated[int | None, typer.Option(help="Evaluation episodes.")] = None,
    seed: Annotated[int | None, typer.Option(help="Episode k has seed + k.")] = None,
    task: Task = None,
    num_steps: NumSteps = None,
    num_envs: Annotated[
        int | None, typer.Option(help="Environments side by side; 0 is one per core.")
    ] = None,
    revision: Revision = None,
    checkpoint: Checkpoint = None,
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
        "rollout.task": task,
        "rollout.num_steps": num_steps,
        "rollout.num_envs": num_envs,
        "encoder.id": encoder,
        "encoder.device": device,
    }
    from vla.policy.sharing.hub import locate
    from vla.saved import policy_settings
    from vla.stages import rollout as run

    folder = locate(policy, revision)
    settings = policy_settings(folder, named, set_ or [], config)
    result = run(settings, folder, checkpoint=checkpoint, out=out, force=force)
    show(result if json_ else _readable(result), json_)


def _readable(result: Mapping[str, Any]) -> dict[str, Any]:
    """Pick what a person wants to know of an evaluation."""
    aggregated = result["aggregated"]
    return {
        "policy": result["policy"],
        "episodes": aggregated["n_episodes"],
        "success (95 % interval)": format_success(aggregated["pc_success"], aggregated["pc_success_ci95"]),
        "avg_reward": f"{result['avg_reward']:.2f}",
        "latency_ms": {part: values["p50"] for part, values in result["latency_ms"].items()},
        "seconds": f"{aggregated['eval_s']:.1f}",
        "results": result["out"],
    }
