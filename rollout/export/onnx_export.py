"""Export encoder and agent as one ONNX graph, and check it against PyTorch.

    pixels.<camera>  uint8    [B, T_obs, H, W, 3]   RGB at the encoder's size, oldest first
    state            float32  [B, T_obs, S]         in the robot's units
    noise            float32  [B, T, A]             standard normal; the only randomness
    actions          float32  [B, num_action_steps, A]   out, in the robot's units, the first for now

A policy with language is exported for one task, whose feature is a constant of the graph.
Normalisation of pixels, state and actions is inside. Resizing is not: ONNX has no resize that gives the
same bytes as `vla.embed.preprocess.resize`, and cameras often deliver the right size.
The graph computes in float32, whatever arithmetic made the training features.
"""

import contextlib
import io
import json
import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from vla.base.errors import ConfigError, MissingPackageError, VlaError
from vla.base.files import write_atomically, write_json
from vla.embed.encoder import FrozenEncoder
from vla.embed.encoders.pooling import pool
from vla.embed.preprocess import normalise
from vla.policy.agent import VLAAgent
from vla.rollout.export.export_notes import notes
from vla.rollout.task_features import TaskFeatures

try:
    # torch.onnx.export asks for the first and the last, and would say so in many lines.
    import onnx  # noqa: F401
    import onnxruntime
    import onnxscript  # noqa: F401
except ImportError as error:
    raise MissingPackageError(str(error.name), "onnx") from error

OPSET = 20
MAX_DIFFERENCE = 1e-2
"""In standard deviations of an action: more is another function, not another order of sums."""


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """What `export` did."""

    onnx: str
    notes: str
    metadata: str
    mib: float
    checked: int
    """Random inputs that were run through both."""
    max_abs_difference: float
    """Of any action between ONNX Runtime and PyTorch, in the robot's units."""
    max_difference_std: float
    """The same in standard deviations of each action dimension."""


class PolicyGraph(nn.Module):
    """Encoder, projectors, condition and sampling as one function of tensors.

    Args:
        agent: on the CPU.
        encoder: on the CPU, in float32.
        num_steps: of the sampler.
        language: feature of the task text, a constant of the graph; None for an agent that takes none.
    """

    language: Tensor | None

    def __init__(
        self, agent: VLAAgent, encoder: FrozenEncoder, num_steps: int, language: Tensor | None
    ) -> None:
        super().__init__()
        self.register_buffer("language", language)
        self.agent, self.tower = agent, encoder.tower
        self._preprocessing, self._pooling = encoder.preprocessing, encoder.identity.pooling
        self._num_steps = num_steps

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the actions to execute; inputs are one tensor a camera, state and noise."""
        *views, state, noise = inputs
        features = {
            camera: self._encode(frames)
            for camera, frames in zip(self.agent.camera_names, views, strict=True)
        }
        language = None if self.language is None else self.language.expand(state.shape[0], -1)
        chunk = self.agent.predict_action_chunk(features, state, self._num_steps, lambda: noise, language)
        policy = self.agent.config.policy
        return chunk[:, policy.obs_horizon - 1 :][:, : policy.num_action_steps]

    def _encode(self, frames: UInt8[Tensor, "B T_obs H W 3"]) -> Tensor:
        pixels = normalise(frames.flatten(0, 1), self._preprocessing)
        tokens = pool(self.tower(pixel_values=pixels), self._pooling)
        # The cache and the live policy hold features in float16: the policy knows no finer ones.
        return tokens.to(torch.float16).to(torch.float32).unflatten(0, (-1, frames.shape[1]))


def export(
    agent: VLAAgent, encoder: FrozenEncoder, path: Path, *, num_steps: int, checks: int, task: str = ""
) -> ExportReport:
    """Write `<path>`, and beside it `.json` and `.md` which say what goes in and comes out.

    Args:
        agent: the policy.
        encoder: the one it was trained on; float32 on the CPU.
        path: of the ONNX file.
        num_steps: of the sampler; 0 takes the head's own.
        checks: random inputs to compare with PyTorch.
        task: the one task that the graph does, for an agent with language; empty is the only one it knows.

    Raises:
        ConfigError: the head cannot be exported, or the agent knows several tasks and none is chosen.
        VlaError: PyTorch cannot export it, or ONNX Runtime gives other actions; nothing is written.
    """
    if agent.config.policy.head == "ddpm":
        raise ConfigError("head 'ddpm' picks its noise levels as it goes; vla exports imf, flow and mlp")
    steps = num_steps or agent.head.default_num_steps
    tasks = TaskFeatures(agent.to("cpu").eval(), encoder.identity, task)
    graph = PolicyGraph(agent, encoder, steps, tasks.feature()).eval()
    names = [*(f"pixels.{camera}" for camera in agent.camera_names), "state", "noise"]
    example = random_inputs(agent, encoder, batch=2, seed=0)
    model = _trace(graph, example, names)
    description = describe(agent, encoder, steps, names, example)
    description |= {"task": tasks.text()} if agent.language is not None else {}
    for key, value in description.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = f"vla.{key}", json.dumps(value)
    data = model.SerializeToString()
    difference, relative = compare(graph, encoder, data, names, checks)
    if relative > MAX_DIFFERENCE:
        raise VlaError(
            f"ONNX Runtime's actions differ from PyTorch's by {relative:.2g} standard deviations, at most "
            f"{MAX_DIFFERENCE:g} is rounding; {path} was not written"
        )
    description["check"] = {
        "inputs": checks,
        "max_abs_difference": difference,
        "max_difference_std": relative,
        "onnxruntime": onnxruntime.__version__,
        "torch": torch.__version__,
    }
    write_atomically(path, data)
    write_json(path.with_suffix(".json"), description)
    write_atomically(path.with_suffix(".md"), notes(path.name, description).encode())
    return ExportReport(
        onnx=str(path),
        notes=str(path.with_suffix(".md")),
        metadata=str(path.with_suffix(".json")),
        mib=round(len(data) / 2**20, 1),
        checked=checks,
        max_abs_difference=difference,
        max_difference_std=relative,
    )


def random_inputs(agent: VLAAgent, encoder: FrozenEncoder, batch: int, seed: int) -> tuple[Tensor, ...]:
    """Draw inputs of the graph: noise images, states and noise as in the training data's spread."""
    policy, random = agent.config.policy, torch.Generator().manual_seed(seed)
    shape = (batch, policy.obs_horizon, *encoder.eval_image_resize_shape, 3)
    views = [torch.randint(0, 256, shape, dtype=torch.uint8, generator=random) for _ in agent.camera_names]
    state = torch.randn(batch, policy.obs_horizon, agent.config.state_dim, generator=random)
    noise = torch.randn(batch, policy.pred_horizon, agent.config.action_dim, generator=random)
    return (*views, agent.state_standardize.invert(state), noise)


def describe(
    agent: VLAAgent, encoder: FrozenEncoder, num_steps: int, names: list[str], example: tuple[Tensor, ...]
) -> dict[str, Any]:
    """Say what a program that runs the graph must know."""
    config = agent.config
    shapes = {
        name: {"dtype": str(tensor.dtype).removeprefix("torch."), "shape": ["batch", *tensor.shape[1:]]}
        for name, tensor in zip(names, example, strict=True)
    }
    actions = ["batch", config.policy.num_action_steps, config.action_dim]
    return {
        "inputs": shapes,
        "outputs": {"actions": {"dtype": "float32", "shape": actions}},
        "image_size": list(encoder.eval_image_resize_shape),
        "fps": config.fps,
        "obs_horizon": config.policy.obs_horizon,
        "num_action_steps": config.policy.num_action_steps,
        "num_steps": num_steps,
        "encoder": config.encoder.describe(),
        "preprocessing": config.preprocessing.model_dump(mode="json"),
        "cache_fingerprint": config.cache_fingerprint,
    }


def _trace(graph: PolicyGraph, example: tuple[Tensor, ...], names: list[str]) -> Any:
    """Turn the graph into an ONNX model with a free batch size."""
    batch = torch.export.Dim("batch", min=1, max=1024)
    # The exporter tells its progress on stdout and in warnings; the check is what counts.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                graph,
                example,
                input_names=names,
                output_names=["actions"],
                dynamic_shapes=(tuple({0: batch} for _ in example),),  # of *inputs: one tuple
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        reason = str(error).strip().splitlines()[0]
        raise VlaError(f"PyTorch {torch.__version__} cannot export this policy: {reason}") from error
    assert program is not None
    return program.model_proto


def compare(
    graph: PolicyGraph, encoder: FrozenEncoder, data: bytes, names: list[str], checks: int
) -> tuple[float, float]:
    """Run random inputs through ONNX Runtime and PyTorch.

    Returns:
        The largest difference of an action: in the robot's units, and in standard deviations.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # it warns of initialisers that it removes itself
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    largest, largest_std = 0.0, 0.0
    for check in range(checks):
        inputs = random_inputs(graph.agent, encoder, batch=1 + check % 2, seed=1 + check)
        with torch.no_grad():
            expected = graph(*inputs)
        feed = {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)}
        found = torch.from_numpy(session.run(None, feed)[0])
        difference = (found - expected).abs()
        largest = max(largest, float(difference.max()))
        largest_std = max(largest_std, float((difference / graph.agent.action_standardize.std).max()))
    return largest, largest_std
