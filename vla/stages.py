"""The stages as functions of one configuration: what each command calls, and what a notebook can call.

Stages talk through files; the only thing passed along here is where they lie.
"""

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vla.base.errors import CheckpointError, WriteError
from vla.base.files import NO_ROOM, cannot_write
from vla.config import PipelineConfig
from vla.matching import (
    require_fit,
    require_same_cache,
    require_same_policy,
    with_encoder_of,
    with_rollouts_that_fit,
)
from vla.saved import default_rollout_folder, saved_tables

if TYPE_CHECKING:
    from vla.base.distributed import World
    from vla.cache import FeatureCache
    from vla.embed import EmbedReport
    from vla.policy.training.run import RunDirectory
    from vla.policy.training.train import TrainReport
    from vla.rollout.evaluate.validation import ValidationRollouts
    from vla.rollout.export.onnx_export import ExportReport
    from vla.rollout.live import LivePolicy
    from vla.rollout.record.record import RecordReport


def record(settings: PipelineConfig) -> "RecordReport":
    """Record demonstrations into `record.out`; see `vla.rollout.record.record`."""
    from vla.rollout.record.record import record as run

    made_by = settings.to_toml(["env", "record"], without=["record.out", "record.workers"])
    return run(settings.env, settings.record, {"pipeline.toml": made_by})


def embed(settings: PipelineConfig) -> "EmbedReport":
    """Encode `dataset` into a cache below `cache.path`; see `vla.embed.engine`."""
    from vla.embed import embed as run

    notes = {"pipeline.toml": _made_by(settings)}
    return run(settings.dataset, settings.encoder, settings.cache, settings.augment, notes)


def _made_by(settings: PipelineConfig) -> bytes:
    """Return the settings that the command which mends a cache names.

    They make the same cache from any directory and on any device, where `auto` would be other arithmetic.
    """
    from vla.base.device import choose_device, choose_dtype

    dataset, encoder = settings.dataset, settings.encoder
    dtype = choose_dtype(encoder.dtype, choose_device(encoder.device))
    path = Path(dataset.path)
    place = str(path.absolute()) if path.is_dir() else dataset.path
    resolved = settings.model_copy(
        update={
            "dataset": dataset.model_copy(update={"path": place}),
            "encoder": encoder.model_copy(update={"dtype": dtype}),
        }
    )
    return resolved.to_toml(
        ["dataset", "encoder", "augment", "cache"],
        without=["cache.path", "encoder.workers", "encoder.device"],
    )


def train(settings: PipelineConfig, *, resume: bool = False) -> "TrainReport":
    """Train a policy on the cache into `train.out`; see `vla.policy.training.train`.

    Raises:
        CacheError: the cache holds another encoder's features than the configuration names, lacks those of
            its task texts where the policy takes them, or is not the one that a resumed run was trained on.
        ConfigError: validation rollouts could not tell what to do, or a resumed run was trained with another
            policy.
        EnvironmentSetupError: the environment named for validation rollouts is not that of the cache.
        WriteError: the disk is full; the last checkpoint is kept.
    """
    from vla.base.distributed import World
    from vla.base.lock import exclusive
    from vla.cache import FeatureCache
    from vla.policy.training.run import RunDirectory
    from vla.policy.training.trackers import require_tracker

    require_tracker(settings.train.tracker)
    cache = FeatureCache(Path(settings.cache.path))
    settings = with_encoder_of(settings, cache)
    require_fit(settings, cache)
    world = World.join()
    if world.is_main and settings.train.rollout_every:
        settings = with_rollouts_that_fit(settings, cache)
    directory = RunDirectory(Path(settings.train.out))
    with exclusive(directory.path) if world.is_main else nullcontext(), _resumable(directory, resume):
        return _train(settings, cache, directory, world, resume)


@contextmanager
def _resumable(directory: "RunDirectory", resume: bool) -> Iterator[None]:
    """Say of a disk that is full what the same command needs besides, once there is a run to go on with."""
    try:
        yield
    except (WriteError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in NO_ROOM:
            raise
        # Figures, tracker and plots write through libraries, which know nothing of our errors.
        line = cannot_write(directory.path, error) if isinstance(error, OSError) else str(error)
        again = " with --resume" if directory.config.is_file() and not resume else ""
        raise WriteError(line + again) from error


def _train(
    settings: PipelineConfig, cache: "FeatureCache", directory: "RunDirectory", world: "World", resume: bool
) -> "TrainReport":
    """Train in a run directory that nobody else writes to."""
    from vla.base.interrupt import Interrupted
    from vla.policy.training.plots import plot_training
    from vla.policy.training.run import RunDirectory
    from vla.policy.training.train import train as run

    if resume:
        RunDirectory.open(directory.path)
        if (step := directory.last_step()) is not None:
            require_same_cache(directory.checkpoint(step), cache)
            require_same_policy(directory.checkpoint(step), settings.policy)
    elif world.is_main:
        RunDirectory.create(directory.path)
    rollouts = None
    if world.is_main and settings.train.rollout_every:
        rollouts = _validation_rollouts(settings, cache, directory)
    world.barrier()
    try:
        # Saved once nothing is left to refuse: a refused --resume leaves the run's configuration as it was.
        report = run(
            directory,
            cache,
            settings.policy,
            settings.train,
            rollouts,
            begun=lambda: settings.save(directory.config),
        )
    except Interrupted as stop:
        stop.options = ("--resume",) if directory.config.is_file() else ()
        raise
    if world.is_main:
        plot_training(directory)
    return report


def rollout(
    settings: PipelineConfig,
    policy: Path,
    *,
    checkpoint: str | None = None,
    out: Path | None = None,
    force: bool = False,
) -> dict[str, Any]:
    """Drive a trained policy live and write `eval_info.json`; see `vla.rollout.evaluate.evaluate`.

    Args:
        settings: `env`, `encoder` and `rollout` are used.
        policy: a run, a checkpoint or a policy folder.
        checkpoint: of a run: best, last or a step; None takes best if there is one, else last.
        out: folder for results; None makes one below the run.
        force: write over earlier results in that folder.
    """
    from vla.policy.training.run import find_policy
    from vla.rollout.evaluate.evaluate import evaluate
    from vla.rollout.evaluate.plots import plot_evaluation

    folder = find_policy(policy, checkpoint)
    target = out or default_rollout_folder(settings, folder)
    if (target / "eval_info.json").exists() and not force:
        raise CheckpointError(f"{target} holds an evaluation; choose another --out, or --force to replace it")
    info = evaluate(load_live(settings, folder), settings.env, settings.rollout, target)
    plot_evaluation(info, target)
    settings.save(target / "pipeline.toml", ["env", "encoder", "rollout"])
    return {"out": str(target), "policy": str(folder), **info}


def serve(
    settings: PipelineConfig,
    policy: Path,
    ready: Callable[[dict[str, object]], None],
    *,
    checkpoint: str | None = None,
) -> None:
    """Serve a trained policy to clients until SIGINT or SIGTERM; see `vla.rollout.serve.server`.

    Args:
        settings: `encoder`, `rollout` and `serve` are used.
        policy: a run, a checkpoint or a policy folder.
        ready: called with `url` and `policy` once clients can connect.
        checkpoint: of a run: best, last or a step; None takes best if there is one, else last.

    Raises:
        ConfigError: CUDA graphs are asked for, and this torch makes them in the main thread only.
    """
    from vla.base.compiling import require_graphs_in_threads
    from vla.policy.training.run import find_policy
    from vla.rollout.serve.server import serve as run

    for table, how in (("encoder", settings.encoder.compile), ("rollout", settings.rollout.compile)):
        require_graphs_in_threads(how, f"{table}.compile")
    folder = find_policy(policy, checkpoint)
    live = load_live(settings, folder)
    run(live, settings.serve, lambda url: ready({"url": url, "policy": str(folder)}))


def export(
    settings: PipelineConfig,
    policy: Path,
    onnx: Path,
    *,
    checks: int = 8,
    checkpoint: str | None = None,
    force: bool = False,
) -> "ExportReport":
    """Write a policy and its encoder as one ONNX graph; see `vla.rollout.export.onnx_export`.

    Args:
        settings: `encoder` and `rollout` are used; device and dtype are cpu and float32.
        policy: a run, a checkpoint or a policy folder.
        onnx: the file to write.
        checks: random inputs to compare with PyTorch.
        checkpoint: of a run: best, last or a step; None takes best if there is one, else last.
        force: replace an existing file.
    """
    from vla.policy.training.run import find_policy
    from vla.rollout.export.onnx_export import export as run

    folder = find_policy(policy, checkpoint)
    if onnx.exists() and not force:
        raise CheckpointError(f"{onnx} exists; choose another --onnx, or --force to replace it")
    encoder = settings.encoder.model_copy(update={"device": "cpu", "dtype": "float32"})
    live = load_live(settings.model_copy(update={"encoder": encoder}), folder)
    chosen = settings.rollout
    return run(live.agent, live.encoder, onnx, num_steps=chosen.num_steps, checks=checks, task=chosen.task)


def share(
    policy: Path, out: Path, *, push: str | None = None, private: bool = False, checkpoint: str | None = None
) -> dict[str, Any]:
    """Write a policy folder with a model card, and publish it if asked; see `vla.policy.sharing.share`.

    Args:
        policy: a run, a checkpoint or a policy folder.
        out: the folder to make.
        push: `owner/name` on the Hub.
        private: whether only its owner sees it there.
        checkpoint: of a run: best, last or a step; None takes best if there is one, else last.
    """
    from vla.policy.sharing.hub import push as publish
    from vla.policy.sharing.share import share as run
    from vla.policy.training.run import find_policy, find_run

    folder = find_policy(policy, checkpoint)
    alone = find_run(folder) is None and not (folder / "pipeline.toml").is_file()
    name = (push or out.resolve().name).rpartition("/")[2]
    evaluations = run(folder, out, {} if alone else saved_tables(folder), name=name)
    url = publish(out, push, private=private) if push else None
    return {
        "out": str(out),
        "policy": str(folder),
        "evaluations": len(evaluations),
        **({"url": url} if url else {}),
        "next": f"vla rollout {shlex.quote(str(out))}",
    }


def load_live(settings: PipelineConfig, folder: Path) -> "LivePolicy":
    """Load a policy folder together with its encoder, on the encoder's device."""
    from vla.embed import FrozenEncoder
    from vla.policy.training.checkpoint import load_agent
    from vla.rollout.live import LivePolicy

    agent = load_agent(folder, settings.rollout.weights)
    encoder = FrozenEncoder.load(settings.encoder)
    chosen = settings.rollout
    return LivePolicy(agent.to(encoder.device), encoder, chosen.num_steps, chosen.compile, chosen.task)


def _validation_rollouts(
    settings: PipelineConfig, cache: "FeatureCache", directory: "RunDirectory"
) -> "ValidationRollouts":
    from vla.rollout.evaluate.validation import ValidationRollouts

    encoder = settings.encoder.model_copy(update={"pool": cache.metadata.encoder.pooling})
    episodes = settings.train.rollout_episodes
    return ValidationRollouts(directory, settings.env, settings.rollout, encoder, cache.metadata, episodes)
