"""`rollout`, `serve` and `export`: a trained policy with its encoder."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vla.advice import advised
from vla.base.errors import CheckpointError, ConfigError
from vla.config import PipelineConfig
from vla.saved import default_rollout_folder

if TYPE_CHECKING:
    from vla.base.compiling import AutoCompile, Compile
    from vla.rollout.export.onnx_export import ExportReport
    from vla.rollout.export.torch_export import TorchReport
    from vla.rollout.live import LivePolicy


def load_live(settings: PipelineConfig, folder: Path, *, serving: bool = False) -> "LivePolicy":
    """Load a policy folder together with its encoder, on the encoder's device.

    Args:
        settings: `encoder` and `rollout` are used.
        folder: of the policy.
        serving: it is going to decide often, for whoever asks.

    Raises:
        CheckpointError: there is no policy, or it is damaged.
        EncoderError: its encoder cannot be loaded, or is another one than it was trained on.
    """
    from vla.base.compiling import for_serving, say_compiling
    from vla.base.device import choose_device
    from vla.policy.agents.answering import answer_for
    from vla.policy.heads.head import set_temperature
    from vla.policy.training.checkpoint import load_trained
    from vla.rollout.live import LivePolicy, load_encoder

    chosen = settings.rollout
    policy = load_trained(folder, chosen.weights)
    answer_for(policy, chosen.cache)
    set_temperature(policy, chosen.temperature)
    encoder = load_encoder(settings.encoder, policy.config)
    device = encoder.device if encoder else choose_device(settings.encoder.device)
    how = for_serving(chosen.compile, device) if serving else _unless_auto(chosen.compile)
    say_compiling(chosen.compile, how, "rollout.compile")
    return LivePolicy(policy.to(device), encoder, chosen.num_steps, how, chosen.task, chosen.execution)


def _unless_auto(asked: "AutoCompile") -> "Compile":
    return "off" if asked == "auto" else asked


@advised
def rollout(
    settings: PipelineConfig,
    policy: Path,
    *,
    checkpoint: str | None = None,
    out: Path | None = None,
    force: bool = False,
) -> dict[str, Any]:
    """Drive a trained policy live and write `eval_info.json`; see `vla.rollout.evaluate`.

    Args:
        settings: `env`, `encoder` and `rollout` are used.
        policy: a run, a checkpoint or a policy folder.
        checkpoint: of a run: best, last or a step; None takes best if there is one, else last.
        out: folder for results; None makes one below the run.
        force: write over earlier results in that folder.
    """
    from vla.base.files import sha256_of
    from vla.policy.training.checkpoint import weights_file
    from vla.policy.training.run import find_policy
    from vla.rollout.evaluate.evaluate import evaluate
    from vla.rollout.evaluate.plots import plot_evaluation

    folder = find_policy(policy, checkpoint)
    target = out or default_rollout_folder(settings, folder)
    if (target / "eval_info.json").exists() and not force:
        raise CheckpointError(f"{target} holds an evaluation; choose another --out, or --force to replace it")
    live = load_live(settings, folder)
    notes = {"weights_sha256": sha256_of(weights_file(folder, settings.rollout.weights))}
    info = evaluate(live, settings.env, settings.rollout, target, notes)
    plot_evaluation(info, target)
    settings.save(target / "pipeline.toml", ["env", "encoder", "rollout"])
    return {"out": str(target), "policy": str(folder), **info}


@advised
def serve(
    settings: PipelineConfig,
    policy: Path,
    ready: Callable[[dict[str, object]], None],
    *,
    checkpoint: str | None = None,
) -> None:
    """Serve a trained policy to clients until SIGINT or SIGTERM; see `vla.rollout.serve`.

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

    for table, how in (("encoder", settings.encoder.compile), ("rollout", settings.rollout.compile)):
        require_graphs_in_threads(how, f"{table}.compile")
    folder = find_policy(policy, checkpoint)
    live = load_live(settings, folder, serving=True)

    def listening(url: str) -> None:
        ready({"url": url, "policy": str(folder)})

    if settings.serve.protocol == "vla-eval":
        from vla.rollout.serve.vla_eval_server import serve as answer

        answer(live, settings.serve, listening, settings.env.cameras, settings.rollout.seed)
    else:
        from vla.rollout.serve.server import serve as run

        run(live, settings.serve, listening)


@advised
def export(
    settings: PipelineConfig,
    policy: Path,
    onnx: Path,
    *,
    checks: int = 8,
    checkpoint: str | None = None,
    force: bool = False,
) -> "ExportReport":
    """Write a policy and its encoder as one ONNX graph; see `vla.rollout.export`.

    Args:
        settings: `encoder` and `rollout` are used; device and dtype are cpu and float32.
        policy: a run, a checkpoint or a policy folder.
        onnx: the file to write.
        checks: random inputs to compare with PyTorch.
        checkpoint: of a run: best, last or a step; None takes best if there is one, else last.
        force: replace an existing file.
    """
    from vla.rollout.export.onnx_export import export as run

    return run(_to_export(settings, policy, onnx, "onnx", checkpoint, force), onnx, checks=checks)


@advised
def export_torch(
    settings: PipelineConfig,
    policy: Path,
    archive: Path,
    *,
    checks: int = 8,
    checkpoint: str | None = None,
    force: bool = False,
) -> "TorchReport":
    """Write a policy and its encoder as a `torch.export` archive; see `vla.rollout.export`.

    Args:
        settings: `encoder` and `rollout` are used; device and dtype are cpu and float32.
        policy: a run, a checkpoint or a policy folder.
        archive: the file to write.
        checks: random inputs to compare with the policy.
        checkpoint: of a run: best, last or a step; None takes best if there is one, else last.
        force: replace an existing file.
    """
    from vla.rollout.export.torch_export import export_torch as run

    return run(_to_export(settings, policy, archive, "torch", checkpoint, force), archive, checks=checks)


def _to_export(
    settings: PipelineConfig, policy: Path, path: Path, option: str, checkpoint: str | None, force: bool
) -> "LivePolicy":
    """Load a policy for a file that is not there yet."""
    from vla.policy.training.run import find_policy

    require_plain_chunks(settings, option)
    folder = find_policy(policy, checkpoint)
    if path.exists() and not force:
        raise CheckpointError(f"{path} exists; choose another --{option}, or --force to replace it")
    encoder = settings.encoder.model_copy(update={"device": "cpu", "dtype": "float32"})
    return load_live(settings.model_copy(update={"encoder": encoder}), folder)


def require_plain_chunks(settings: PipelineConfig, option: str) -> None:
    """Check that a policy is exported which decides without remembering anything.

    Raises:
        ConfigError: the run says otherwise.
    """
    if (way := settings.rollout.execution.type) != "chunk":
        raise ConfigError(
            f"--{option} writes a policy that executes chunk after chunk, and rollout.execution = {way}, as "
            "vla rollout and vla serve can; export with --set rollout.execution=chunk"
        )
