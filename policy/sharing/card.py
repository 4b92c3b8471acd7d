"""The model card of a shared policy: its data, its encoders, how good it is and how to train it again."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from vla.base.horizons import Horizons
from vla.base.success import format_success
from vla.cache.metadata import EncoderIdentity
from vla.policy.saved_policy import SavedPolicy, TrainingData

MAX_TASKS = 10


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One measured evaluation of the policy."""

    env: str
    """Gymnasium id."""
    info: Mapping[str, Any]
    """The contents of its `eval_info.json`."""
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the environment that are not those of the policy's settings."""
    num_steps: int | None = None
    """Sampling steps; None where they go without saying: the head's own, as in the policy's settings."""


def model_card(name: str, config: SavedPolicy, evaluations: Sequence[Evaluation], has_settings: bool) -> str:
    """Write `README.md`, with the header that the Hub reads.

    Args:
        name: what the policy is called.
        config: the policy's.
        evaluations: of these very weights.
        has_settings: whether `pipeline.toml` lies beside it.
    """
    parts = [
        f"# {_inline(name)}",
        "A robot policy trained with vla on a cache of what frozen encoders and sensors say of each frame.",
        _use(config),
        _data(config),
        _policy(config),
        _results(evaluations),
    ]
    if has_settings:
        parts.append(
            "## Reproduce\n\n`pipeline.toml` beside this page holds every setting; name your own paths.\n\n"
            "    vla embed --config pipeline.toml\n    vla train --config pipeline.toml"
            + "".join(f"\n    {line}" for line in sorted({_command(one) for one in evaluations}))
        )
    header, body = _header(name, config, evaluations).to_yaml(), "\n\n".join(parts)
    return str(ModelCard(f"---\n{header}\n---\n\n{body}\n"))  # which reads the header as the Hub does


def _header(name: str, config: SavedPolicy, evaluations: Sequence[Evaluation]) -> ModelCardData:
    on_hub = [made.dataset.path for made in config.data if made.dataset.revision is not None]
    return ModelCardData(
        library_name="vla",
        pipeline_tag="robotics",
        tags=["robotics", "imitation-learning", "vla", config.policy.type, *_parts(config)],
        datasets=on_hub or None,
        model_name=name,
        eval_results=[
            EvalResult(
                task_type="robotics",
                dataset_type=one.env,
                dataset_name=one.env,
                metric_type="success_rate",
                metric_name="success rate [%]",
                metric_value=one.info["aggregated"]["pc_success"],
                metric_args={"num_steps": one.num_steps} if one.num_steps else None,
            )
            for one in evaluations
            if one.info["aggregated"]["pc_success"] is not None
        ]
        or None,
    )


def _parts(config: SavedPolicy) -> list[str]:
    """Name the members of families that a policy is made of, such as its head."""
    settings = config.policy.model_dump()
    return [value["type"] for value in settings.values() if isinstance(value, dict) and "type" in value]


def _use(config: SavedPolicy) -> str:
    sensors = [
        stream.describe() for stream in config.streams if not stream.made_by and stream.kind != "image"
    ]
    seen = [f"`{_inline(camera)}`" for camera in config.camera_names] + [_inline(name) for name in sensors]
    policy = config.policy
    return f"""## Use

    vla rollout DIRECTORY                          # of these files
    vla rollout OWNER/NAME --revision main         # on the Hub

Sees {", ".join(seen)}: the last {policy.obs_horizon} of each
at {config.fps:g} Hz.
Answers with {policy.num_action_steps} actions of {config.action.channels} numbers.{_language(config)}"""


def _language(config: SavedPolicy) -> str:
    """Say how to tell the policy what to do."""
    if not config.tasks:
        return ""
    if config.text_encoder is None:
        return """

It is told what to do in words, `--task "..."`, and reads them by a language
model, which is not in these files: `policy.fusion` below says which."""
    known = "the text of its task" if len(config.tasks) == 1 else "the texts of the tasks below"
    return f"""

It is told what to do in words, `--task "..."`. It holds the features of {known}.
Others, which it was not trained on, need the encoder's text tower
(SHA-256 `{config.text_encoder.weights_sha256}`)."""


def _data(config: SavedPolicy) -> str:
    tables = [_table(_demonstrations(made, config)) for made in config.data]
    tables = tables or [_table({"feature cache": f"`{config.cache_fingerprint}`"})]
    encoders = "".join(f"\n\n## Encoder\n\n{_encoder(one)}" for one in config.encoders.values())
    return "## Data\n\n" + "\n\n".join(tables) + encoders


def _demonstrations(made: TrainingData, config: SavedPolicy) -> dict[str, str]:
    """Describe the demonstrations of one cache."""
    dataset, several = made.dataset, len(config.data) > 1
    return {
        "dataset": f"`{_inline(dataset.path)}`" + (f" at `{dataset.revision}`" if dataset.revision else ""),
        "format": dataset.format,
        "content": f"SHA-256 `{dataset.content_sha256}`",
        "episodes": f"{made.num_episodes} ({made.num_frames} frames)",
        "tasks": "; ".join(_inline(task) for task in made.tasks[:MAX_TASKS]),
        "feature cache": f"`{made.fingerprint or config.cache_fingerprint}`",
        **({"weight": f"{made.weight:g}", "name": f"`{_inline(made.cache)}`"} if several else {}),
        **({"actions": "by the standard of this cache: `rollout.cache`"} if made.action else {}),
    }


def _encoder(encoder: EncoderIdentity) -> str:
    weights = encoder.weights_sha256
    rows = {
        "id": f"`{_inline(encoder.id)}`" + (f" at `{encoder.revision}`" if encoder.revision else ""),
        "type": encoder.type,
        "weights": f"SHA-256 `{weights}` of architecture and float32 tensors" if weights else "none",
        "arithmetic": encoder.dtype,
        **{_inline(key): _inline(json.dumps(value)) for key, value in encoder.settings.items()},
    }
    return _table(rows) + "\n\nvla loads it by its id and refuses other weights."


def _policy(config: SavedPolicy) -> str:
    policy = config.policy
    rows = {
        "horizons": f"{policy.obs_horizon} observed, {policy.pred_horizon} predicted, "
        f"{policy.num_action_steps} executed",
        "streams": "; ".join(_inline(stream.describe()) for stream in config.streams),
    }
    settings = policy.model_dump(mode="json", exclude={"streams", *Horizons.__dataclass_fields__})
    told = {key: _setting(value) for key, value in settings.items() if value != {}}
    return "## Policy\n\n" + _table({**rows, **told})


def _setting(value: Any) -> str:
    """Write a setting, or the table of a part, in one line."""
    if isinstance(value, dict):
        return ", ".join(
            ([str(value["type"])] if "type" in value else [])
            + [f"{key} {_setting(one)}" for key, one in value.items() if key != "type"]
        )
    return _inline(value if isinstance(value, str) else json.dumps(value))


def _results(evaluations: Sequence[Evaluation]) -> str:
    if not evaluations:
        return "## Results\n\nNo evaluation of these weights was at hand; `vla rollout DIRECTORY` makes one."
    lines = [
        "| environment | seeds | episodes | success (95 % interval) | average reward |",
        "|---|---|---|---|---|",
    ]
    for one in evaluations:
        figures, seeds = one.info["aggregated"], [row["seed"] for row in one.info["per_episode"]]
        success = format_success(figures["pc_success"], figures["pc_success_ci95"])
        lines.append(
            f"| `{_inline(one.env)}`{_told(one)} | {min(seeds)} to {max(seeds)} | {figures['n_episodes']} | "
            f"{success} | {one.info['avg_reward']:.2f} |"
        )
    return "## Results\n\n" + "\n".join(lines)


def _told(one: Evaluation) -> str:
    task = one.info.get("task")
    steps = f", {one.num_steps} sampling steps" if one.num_steps else ""
    kwargs = "".join(f", {_inline(f'{key} = {value}')}" for key, value in one.kwargs.items())
    return (f": {_inline(task)}" if task else "") + kwargs + steps


def _command(one: Evaluation) -> str:
    rows = one.info["per_episode"]
    seed = min(row["seed"] for row in rows)
    told = f" --task {shlex.quote(_inline(one.info['task']))}" if one.info.get("task") else ""
    told += f" --num-steps {one.num_steps}" if one.num_steps else ""
    for key, value in one.kwargs.items():
        told += f" --set {shlex.quote(_inline(f'env.kwargs.{key}={json.dumps(value)}'))}"
    env = shlex.quote(_inline(one.env))
    return f"vla rollout DIRECTORY --env {env} --episodes {len(rows)} --seed {seed}{told}"


def _table(rows: Mapping[str, str]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows.items())])


def _inline(text: str) -> str:
    """Keep names from a dataset from breaking the page."""
    return " ".join(text.split()).replace("|", "/").replace("`", "'").replace("<", "&lt;")
