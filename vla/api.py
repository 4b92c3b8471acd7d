"""What a notebook needs, function by function: the commands without a command line.

    import vla

    cache = vla.embed("data/demos", encoder="siglip2-tiny-sim", out="data/features")
    vla.train(cache, "runs/mine", steps=2000, settings={"policy.n_layer": 4})
    info = vla.rollout("runs/mine", env="vla/SimTransfer-v0", episodes=20)

`settings` takes any key of docs/configuration.md by its dotted name, `config` a file of them;
`./pipeline.toml` is not read. Errors are `vla.VlaError`s of one line.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from vla.cache import FeatureCache
    from vla.config import PipelineConfig
    from vla.policy.pretrain.pretrain import PretrainReport
    from vla.policy.training.train import TrainReport
    from vla.rollout.live import LivePolicy
    from vla.rollout.record.record import RecordReport

Settings = Mapping[str, Any]


def record(
    task: str = "sim_transfer",
    out: str | Path = "data/sim_transfer",
    episodes: int = 50,
    *,
    seed: int = 0,
    append: bool = False,
    settings: Settings | None = None,
    config: str | Path | None = None,
) -> "RecordReport":
    """Record expert demonstrations in simulation, as a LeRobotDataset v3.0.

    Args:
        task: one with a scripted expert.
        out: folder of the dataset.
        episodes: to keep, in all.
        seed: attempt k is reset with seed + k.
        append: continue the dataset at `out`, if there is one.
        settings: further keys of the configuration.
        config: a configuration file.
    """
    from vla.stages import record as run

    named = {
        "record.task": task,
        "record.out": str(out),
        "record.episodes": episodes,
        "record.seed": seed,
        "record.append": append or None,
    }
    return run(_resolved(config, named, settings))


def embed(
    dataset: str | Path,
    encoder: str | Path = "google/siglip2-base-patch16-256",
    out: str | Path = "data/features",
    *,
    settings: Settings | None = None,
    config: str | Path | None = None,
) -> "FeatureCache":
    """Encode every frame of a dataset once; called again, it goes on, and encodes what is new.

    Args:
        dataset: a directory, or `owner/name` on the Hub.
        encoder: a Hub id, a directory, or the name of an encoder that comes with vla.
        out: folder in which the cache is made.
        settings: further keys of the configuration, such as `{"encoder.pool": "grid2"}`.
        config: a configuration file.
    """
    from vla.cache import FeatureCache
    from vla.stages import embed as run

    named = {"dataset.path": str(dataset), "encoder.id": str(encoder), "cache.path": str(out)}
    return FeatureCache(run(_resolved(config, named, settings)).cache)


def train(
    cache: "FeatureCache | str | Path | Sequence[FeatureCache | str | Path]",
    out: str | Path,
    *,
    weights: Sequence[float | int] = (),
    steps: int | None = None,
    per_view_dim: int | None = None,
    env: str | None = None,
    seed: int | None = None,
    resume: bool = False,
    extend: bool = False,
    preset: str | None = None,
    settings: Settings | None = None,
    config: str | Path | None = None,
) -> "TrainReport":
    """Train a policy on a cache alone, or on several.

    Args:
        cache: from `embed`, or its folder; or a list of several, which must agree in streams and encoders.
        out: run directory; it must not exist, unless `resume`.
        weights: how often windows of each of several caches are drawn, such as (2, 1); empty is all alike.
        steps: updates.
        per_view_dim: width that each view is projected to.
        env: Gymnasium id for validation rollouts; None is none.
        seed: of weights, order and noise.
        resume: continue the run in `out` with its own configuration.
        extend: with `resume`, more `steps` than it was begun with; the learning rate rises and falls again.
        preset: sizes that come with vla, below all else: "small", for a CPU.
        settings: further keys of the configuration.
        config: a configuration file.
    """
    from vla.saved import run_tables
    from vla.stages import train as run

    several = not hasattr(cache, "folder") and not isinstance(cache, str | Path)
    folders = [str(getattr(one, "folder", one)) for one in (cache if several else [cache])]  # type: ignore[union-attr]
    named = {
        "cache.path": folders[0],
        "train.caches": folders if several else [],
        "train.weights": list(weights) or None,
        "train.out": str(out),
        "train.steps": steps,
        "policy.per_view_dim": per_view_dim,
        "train.seed": seed,
        "env.id": env,
    }
    base = run_tables(Path(out)) if resume else {} if env else {"train": {"rollout_every": 0}}
    resolved = _resolved(config, named, settings, base, preset)
    return run(resolved, resume=resume, extend=extend)


def adapt(
    dataset: str | Path,
    out: str | Path,
    *,
    trunks: Mapping[str, Any] | None = None,
    image_size: tuple[int, int] | None = None,
    adapt_steps: int | None = None,
    steps: int | None = None,
    seed: int | None = None,
    settings: Settings | None = None,
    config: str | Path | None = None,
) -> dict[str, Any]:
    """Train trunks on images once, freeze and cache them, and train a head on their features.

    Called again, it goes on where it stopped.

    Args:
        dataset: a directory, or `owner/name` on the Hub.
        out: run directory of the head; `OUT-pixels` beside it is the run on images.
        trunks: of each camera, such as `{"top": "resnet"}` or `{"top": {"type": "tower", "id": DIR}}`.
        image_size: height and width [pixel] of the cached frames.
        adapt_steps: updates on images, end to end.
        steps: updates of the head on features.
        seed: of weights, order and noise.
        settings: further keys of the configuration.
        config: a configuration file.

    Returns:
        Where the caches and runs lie, and how long each step took [s].
    """
    from vla.stages.adapting import adapt as run

    named = {
        "dataset.path": str(dataset),
        "encoder.type": "pixels",
        "encoder.id": "pixels",
        "encoder.image_size": list(image_size) if image_size else None,
        "train.out": str(out),
        "train.adapt_steps": adapt_steps,
        "train.steps": steps,
        "train.seed": seed,
        **{f"policy.trunks.{camera}": trunk for camera, trunk in (trunks or {}).items()},
    }
    base = {"train": {"rollout_every": 0}}
    return run(_resolved(config, named, settings, base))


def pretrain(
    method: Literal["lewm"],
    cache: "FeatureCache | str | Path",
    out: str | Path,
    *,
    steps: int | None = None,
    seed: int | None = None,
    resume: bool = False,
    settings: Settings | None = None,
    config: str | Path | None = None,
) -> "PretrainReport":
    """Train an encoder on cached frames; `embed(..., encoder=OUT)` freezes it afterwards.

    Args:
        method: `lewm`, LeWorldModel.
        cache: of frames, `embed(..., encoder="pixels")`.
        out: run directory; it must not exist, unless `resume`.
        steps: updates.
        seed: of weights, order and dropout.
        resume: continue the run in `out` with its own configuration.
        settings: further keys of the configuration, such as `{"pretrain.image_size": 96}`.
        config: a configuration file.
    """
    from vla.saved import run_tables
    from vla.stages import pretrain as run

    named = {
        "cache.path": str(getattr(cache, "folder", cache)),
        "pretrain.out": str(out),
        "pretrain.steps": steps,
        "pretrain.seed": seed,
    }
    base = run_tables(Path(out)) if resume else {}
    return run(_resolved(config, named, settings, base), resume=resume)


def rollout(
    policy: str | Path,
    *,
    env: str | None = None,
    episodes: int | None = None,
    seed: int | None = None,
    task: str | None = None,
    out: str | Path | None = None,
    force: bool = False,
    settings: Settings | None = None,
) -> dict[str, Any]:
    """Drive a trained policy live in simulation and measure it.

    Args:
        policy: a run, a checkpoint or a policy folder.
        env: Gymnasium id; None takes the run's.
        episodes: how many.
        seed: episode k has seed + k.
        task: what to do, in words, for a policy that takes it.
        out: folder for results; None makes one below the run.
        force: replace earlier results there.
        settings: further keys of the configuration.

    Returns:
        The contents of `eval_info.json`, and where it lies.
    """
    from vla.saved import policy_settings
    from vla.stages import rollout as run

    named = {"env.id": env, "rollout.episodes": episodes, "rollout.seed": seed, "rollout.task": task}
    chosen = policy_settings(Path(policy), {**named, **(settings or {})})
    return run(chosen, Path(policy), out=Path(out) if out else None, force=force)


def load_live(
    policy: str | Path, *, device: str = "auto", task: str = "", settings: Settings | None = None
) -> "LivePolicy":
    """Load a policy with its encoder: camera images and state in, actions out.

    Args:
        policy: a run, a checkpoint or a policy folder.
        device: of both.
        task: what to do, in words, for a policy that takes it.
        settings: further keys of the configuration, such as `{"rollout.num_steps": 4}`.
    """
    from vla.policy.training.run import find_policy
    from vla.saved import policy_settings
    from vla.stages import load_live as run

    folder = find_policy(Path(policy))
    named = {"encoder.device": device, "rollout.task": task or None}
    return run(policy_settings(folder, {**named, **(settings or {})}), folder)


def _resolved(
    config: str | Path | None,
    named: Mapping[str, Any],
    settings: Settings | None,
    base: Mapping[str, Any] | None = None,
    preset: str | None = None,
) -> "PipelineConfig":
    from vla.config import PipelineConfig

    options = {**named, **(settings or {})}
    return PipelineConfig.load(Path(config) if config else None, options, [], base or {}, preset)
