"""`vla train`: stage two."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from vla.base.errors import ConfigError
from vla.commands.options import Assign, Config, Device, Encoder, Json, Preset, settings_from, show


def train(
    cache: Annotated[
        list[str] | None,
        typer.Option(help="Feature cache, or the folder that holds one; several train on all of them."),
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="How often each of several caches is drawn from, such as 2,1.")
    ] = None,
    out: Annotated[str | None, typer.Option(help="Run directory to make.")] = None,
    per_view_dim: Annotated[int | None, typer.Option(help="Width that each view is projected to.")] = None,
    steps: Annotated[int | None, typer.Option(help="Updates; 0 saves the untrained policy.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights, order and noise.")] = None,
    encoder: Encoder = None,
    env: Annotated[str | None, typer.Option(help="Gymnasium id for validation rollouts.")] = None,
    device: Device = None,
    tracker: Annotated[
        str | None, typer.Option(help="tensorboard, wandb, swanlab, trackio or none; metrics.jsonl always.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out.")] = False,
    extend: Annotated[
        bool,
        typer.Option("--extend", help="With --resume: go on beyond the steps that the run was begun with."),
    ] = False,
    preset: Preset = None,
    config: Config = None,
    set_: Assign = None,
    json_: Json = False,
) -> None:
    """Train a policy on a feature cache alone.

    Without --resume the run directory must not exist. The encoder is only needed for
    validation rollouts (train.rollout_every). A run goes on with its own configuration;
    more steps than it was begun with need --extend.

    Without a GPU: vla train --preset small, a policy and a run of a size that two cores train in minutes.

    Several caches, which must agree in streams and encoders: vla train --cache A --cache B --weights 2,1

    Example: vla train --cache data/features --out runs/demo --per-view-dim 192
    """
    named = {
        **_named_caches(cache, weights),
        "train.out": out,
        "policy.per_view_dim": per_view_dim,
        "train.steps": steps,
        "train.seed": seed,
        "train.device": device,
        "train.tracker": tracker,
        "encoder.id": encoder,
        "env.id": env,
    }
    if resume and preset:
        raise ConfigError("a resumed run goes on with its own sizes; leave --preset out")
    settings = settings_from(config, named, set_, preset=preset)
    from vla.saved import run_tables
    from vla.stages import train as run

    if resume:  # the run's own configuration takes the place of ./pipeline.toml
        settings = settings_from(config, named, set_, base=run_tables(Path(settings.train.out)))
    show(asdict(run(settings, resume=resume, extend=extend)), json_)


def _named_caches(caches: list[str] | None, weights: str | None) -> dict[str, Any]:
    """Return the keys that caches and weights are given by; one that is named takes the place of several."""
    named: dict[str, Any] = {"train.weights": weights.split(",") if weights else None}
    if not caches:
        return named
    if len(caches) > 1:
        return {**named, "cache.path": caches[0], "train.caches": caches}
    alone: dict[str, Any] = {
        "train.caches": [],
        "train.weights": [],
        "train.rename": {},
        "train.normalise": "union",
    }
    return {**alone, "cache.path": caches[0], **({} if weights is None else named)}
