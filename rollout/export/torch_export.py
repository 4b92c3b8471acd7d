"""Write a policy and its encoder as a `torch.export` archive, and check it against the policy.

A program of PyTorch's own operators that needs no code of vla: `torch.export.load(FILE).module()` is called
with the inputs of `PolicyGraph`. It takes the place of TorchScript, which PyTorch has deprecated.
"""

import contextlib
import io
import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor, nn

from vla.base.errors import ConfigError, VlaError
from vla.base.files import write_atomically, write_json
from vla.rollout.export.description import TORCH, describe, page
from vla.rollout.export.graph import UNSEEN, PolicyGraph
from vla.rollout.export.parity import largest_difference, require_parity
from vla.rollout.live import LivePolicy

DESCRIPTION = "vla.json"
"""The file inside the archive that says what goes in and comes out."""


@dataclass(frozen=True, kw_only=True)
class TorchReport:
    """What `export_torch` did."""

    torch: str
    notes: str
    metadata: str
    mib: float
    checked: int
    """Random inputs that were run through both."""
    max_abs_difference: float
    """Of any action between the archive and the policy, in the robot's units."""
    max_difference_std: float
    """The same in standard deviations of each action dimension."""


def export_torch(live: LivePolicy, path: Path, *, checks: int) -> TorchReport:
    """Write `<path>`, and beside it `<path>.json` and `<path>.md` which say what goes in and comes out.

    A policy with language is exported for the task that it follows where none is named.

    Args:
        live: policy and encoder, in float32 on the CPU.
        path: of the archive, usually `.pt2`.
        checks: random inputs to compare with the policy.

    Raises:
        ConfigError: the policy cannot be exported, or it knows several tasks and none is chosen.
        VlaError: PyTorch cannot export it, or the archive gives other actions; nothing is written.
    """
    if problem := live.policy.export_problem:
        raise ConfigError(problem)
    steps = live.num_steps or live.policy.default_num_steps
    graph = PolicyGraph(live, steps, live.tasks.feature()).eval()
    size = live.encoder.eval_image_resize_shape if live.encoder else UNSEEN
    example = graph.random_inputs(batch=2, seed=0, image_size=size)
    description = describe(live, steps, graph.names, example)
    data, program = _archive(graph, example, json.dumps(description))

    def answer(inputs: tuple[Tensor, ...]) -> Tensor:
        with torch.no_grad():
            found: Tensor = program(*inputs)
        return found

    difference, relative = largest_difference(graph, answer, size, checks)
    require_parity("the archive", relative, path)
    description["check"] = {
        "inputs": checks,
        "max_abs_difference": difference,
        "max_difference_std": relative,
        "torch": torch.__version__,
    }
    notes, metadata = (path.with_name(path.name + ending) for ending in (".md", ".json"))
    write_atomically(path, data)
    write_json(metadata, description)
    write_atomically(notes, page(path.name, description, TORCH).encode())
    return TorchReport(
        torch=str(path),
        notes=str(notes),
        metadata=str(metadata),
        mib=round(len(data) / 2**20, 1),
        checked=checks,
        max_abs_difference=difference,
        max_difference_std=relative,
    )


def _archive(graph: PolicyGraph, example: tuple[Tensor, ...], description: str) -> tuple[bytes, nn.Module]:
    """Trace the graph with a free batch size; return the bytes of the archive, and what comes out of them."""
    batch = torch.export.Dim("batch", min=1, max=1024)
    shapes = (tuple({0: batch} for _ in example),)  # of *inputs: one tuple
    archive = io.BytesIO()
    try:
        # Without gradients all along: else the program would switch them off and on again inside.
        with warnings.catch_warnings(), torch.no_grad(), patch.object(torch, "autocast", _NoAutocast):
            warnings.simplefilter("ignore")
            program = torch.export.export(graph, example, dynamic_shapes=shapes, strict=False)
            torch.export.save(program, archive, extra_files={DESCRIPTION: description})
            loaded = torch.export.load(io.BytesIO(archive.getvalue())).module()
    except Exception as error:  # its tracer raises errors of many kinds
        reason = str(error).strip().partition("\n")[0]
        raise VlaError(f"PyTorch {torch.__version__} cannot export this policy: {reason}") from error
    return archive.getvalue(), loaded


class _NoAutocast(contextlib.nullcontext[None]):
    """In place of torch.autocast, which layers use to stay in float32: all is float32 here anyhow.

    PyTorch 2.13 writes each into the archive as a call that its own loader refuses: "wrap_with_autocast is
    missing val field".
    """

    def __init__(self, *_: object, **__: object) -> None:
        super().__init__()
