"""Write a policy and its encoder as one ONNX graph, and check it against PyTorch."""

import contextlib
import io
import json
import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vla.base.errors import ConfigError, MissingPackageError, VlaError
from vla.base.files import write_atomically, write_json
from vla.rollout.export.description import ONNX, describe, page
from vla.rollout.export.graph import UNSEEN, PolicyGraph
from vla.rollout.export.parity import largest_difference, require_parity
from vla.rollout.live import LivePolicy

try:
    # torch.onnx.export asks for the first and the last, and would say so in many lines.
    import onnx  # noqa: F401
    import onnxruntime
    import onnxscript  # noqa: F401
except ImportError as error:
    raise MissingPackageError(str(error.name), "onnx") from error

OPSET = 20


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


def export(live: LivePolicy, path: Path, *, checks: int) -> ExportReport:
    """Write `<path>`, and beside it `.json` and `.md` which say what goes in and comes out.

    A policy with language is exported for the task that it follows where none is named.

    Args:
        live: policy and encoder, in float32 on the CPU.
        path: of the ONNX file.
        checks: random inputs to compare with PyTorch.

    Raises:
        ConfigError: the policy cannot be exported, or it knows several tasks and none is chosen.
        VlaError: PyTorch cannot export it, or ONNX Runtime gives other actions; nothing is written.
    """
    if problem := live.policy.export_problem:
        raise ConfigError(problem)
    steps = live.num_steps or live.policy.default_num_steps
    graph = PolicyGraph(live, steps, live.tasks.feature()).eval()
    size = live.encoder.eval_image_resize_shape if live.encoder else UNSEEN
    example = graph.random_inputs(batch=2, seed=0, image_size=size)
    model = _trace(graph, example)
    description = describe(live, steps, graph.names, example)
    for key, value in description.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = f"vla.{key}", json.dumps(value)
    data = model.SerializeToString()
    difference, relative = compare(graph, data, size, checks)
    require_parity("ONNX Runtime", relative, path)
    description["check"] = {
        "inputs": checks,
        "max_abs_difference": difference,
        "max_difference_std": relative,
        "onnxruntime": onnxruntime.__version__,
        "torch": torch.__version__,
    }
    write_atomically(path, data)
    write_json(path.with_suffix(".json"), description)
    write_atomically(path.with_suffix(".md"), page(path.name, description, ONNX).encode())
    return ExportReport(
        onnx=str(path),
        notes=str(path.with_suffix(".md")),
        metadata=str(path.with_suffix(".json")),
        mib=round(len(data) / 2**20, 1),
        checked=checks,
        max_abs_difference=difference,
        max_difference_std=relative,
    )


def _trace(graph: PolicyGraph, example: tuple[Tensor, ...]) -> Any:
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
                input_names=graph.names,
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


def compare(graph: PolicyGraph, data: bytes, image_size: tuple[int, int], checks: int) -> tuple[float, float]:
    """Run random inputs through ONNX Runtime and PyTorch; see `largest_difference`."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # it warns of initialisers that it removes itself
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])

    def answer(inputs: tuple[Tensor, ...]) -> Tensor:
        feed = {name: tensor.numpy() for name, tensor in zip(graph.names, inputs, strict=True)}
        return torch.from_numpy(session.run(None, feed)[0])

    return largest_difference(graph, answer, image_size, checks)
