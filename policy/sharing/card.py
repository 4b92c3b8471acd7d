"""The model card of a shared policy: its data, its encoder, how good it is and how to train it again."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from vla.base.success import format_success
from vla.policy.agent import AgentConfig

MAX_TASKS = 10


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One measured evaluation of the policy."""

    env: str
    """Gymnasium id."""
    info: Mapping[str, Any]
    """The contents of its `eval_info.json`."""
    num_steps: int | None = None
    """Sampling steps; None where they go without saying: the head's own, as in the policy's settings."""


def model_card(name: str, config: AgentConfig, evaluations: Sequence[Evaluation], has_settings: bool) -> str:
    """Write `README.md`, with the header that the Hub reads.

    Args:
        name: what the policy is called.
        config: the policy's.
        evaluations: of these very weights.
        has_settings: whether `pipeline.toml` lies beside it.
    """
    parts = [
        f"# {_inline(name)}",
        "A robot policy trained with vla on cached features of a frozen vision encoder.",
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


def _header(name: str, config: AgentConfig, evaluations: Sequence[Evaluation]) -> ModelCardData:
    data = config.data
    on_hub = data is not None and data.dataset.revision is not None
    return ModelCardData(
        library_name="vla",
        pipeline_tag="robotics",
        tags=["robotics", "imitation-learning", "vla", config.policy.head],
        datasets=[data.dataset.path] if data and on_hub else None,
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


def _use(config: AgentConfig) -> str:
    views = ", ".join(f"`{_inline(camera)}`" for camera in config.camera_names)
    policy = config.policy
    return f"""## Use

    vla rollout DIRECTORY                          # of these files
    vla rollout OWNER/NAME --revision main         # on the Hub

Sees {views} and a state of {config.state_dim} numbers, the last {policy.obs_horizon} of each
at {config.fps:g} Hz.
Answers with {policy.num_action_steps} actions of {config.action_dim} numbers.{_language(config)}"""


def _language(config: AgentConfig) -> str:
    """Say how to tell the policy what to do."""
    if config.text_encoder is None or len(config.tasks) == 0:
        return ""
    known = "the text of its task" if len(config.tasks) == 1 else "the texts of the tasks below"
    return f"""

It is told what to do in words, `--task "..."`. It holds the features of {known}.
Others, which it was not trained on, need the encoder's text tower
(SHA-256 `{config.text_encoder.weights_sha256}`)."""


def _data(config: AgentConfig) -> str:
    rows = {"feature cache": f"`{config.cache_fingerprint}`"}
    if config.data is not None:
        dataset = config.data.dataset
        rows = {
            "dataset": f"`{_inline(dataset.path)}`"
            + (f" at `{dataset.revision}`" if dataset.revision else ""),
            "format": dataset.format,
            "content": f"SHA-256 `{dataset.content_sha256}`",
            "episodes": f"{config.data.num_episodes} ({config.data.num_frames} frames)",
            "tasks": "; ".join(_inline(task) for task in config.data.tasks[:MAX_TASKS]),
            **rows,
        }
    encoder = config.encoder
    size = "x".join(map(str, config.preprocessing.image_size))
    return (
        "## Data\n\n"
        + _table(rows)
        + "\n\n## Encoder\n\n"
        + _table(
            {
                "id": f"`{_inline(encoder.id)}`" + (f" at `{encoder.revision}`" if encoder.revision else ""),
                "weights": f"SHA-256 `{encoder.weights_sha256}` of architecture and float32 tensors",
                "features": f"{encoder.pooling}, {encoder.tokens} x {encoder.feature_dim} a view",
                "images": f"{size}, {encoder.dtype}",
            }
        )
        + "\n\nvla loads it by its id and refuses other weights."
    )


def _policy(config: AgentConfig) -> str:
    policy = config.policy
    return "## Policy\n\n" + _table(
        {
            "head": f"{policy.head}, {policy.residual} residuals",
            "network": f"width {policy.n_emb}, {policy.n_layer} layers",
            "condition": f"{policy.per_view_dim} a view, and the state"
            + (f", {policy.language_dim} of the task text" if policy.language else "")
            + f", to {policy.cond_dim}",
            "horizons": f"{policy.obs_horizon} observed, {policy.pred_horizon} predicted, "
            f"{policy.num_action_steps} executed",
        }
    )


def _results(evaluations: Sequence[Evaluation]) -> str:
    if not evaluations:
        return "## Results\n\nNo evaluation of these weights was at hand."
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
    return (f": {_inline(task)}" if task else "") + steps


def _command(one: Evaluation) -> str:
    rows = one.info["per_episode"]
    seed = min(row["seed"] for row in rows)
    told = f" --task {shlex.quote(_inline(one.info['task']))}" if one.info.get("task") else ""
    told += f" --num-steps {one.num_steps}" if one.num_steps else ""
    env = shlex.quote(_inline(one.env))
    return f"vla rollout DIRECTORY --env {env} --episodes {len(rows)} --seed {seed}{told}"


def _table(rows: Mapping[str, str]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows.items())])


def _inline(text: str) -> str:
    """Keep names from a dataset from breaking the page."""
    return " ".join(text.split()).replace("|", "/").replace("`", "'").replace("<", "&lt;")
