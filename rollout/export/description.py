"""What stands beside an exported graph: a description for programs, and a page for people."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from vla.rollout.live import LivePolicy


@dataclass(frozen=True)
class Kind:
    """What was made of a policy, in the words of its page."""

    what: str
    compared: str
    """With what, after the version of PyTorch; the key of that version in braces."""
    code: str
    """How it is run; the names in braces are filled in."""


ONNX = Kind(
    "one ONNX graph",
    " against ONNX Runtime {onnxruntime}",
    """import numpy as np, onnxruntime

session = onnxruntime.InferenceSession("{file}")
noise = np.random.randn(1, *session.get_inputs()[-1].shape[1:]).astype(np.float32)
inputs = {{"noise": noise, {numbers}}}
inputs |= {{f"pixels.{{camera}}": frames for camera, frames in images.items()}}
(actions,) = session.run(None, inputs)""",
)
TORCH = Kind(
    "one program of PyTorch's operators",
    " against the archive",
    """import torch

program = torch.export.load("{file}").module()
noise = torch.randn(1, {noise})
with torch.no_grad():
    actions = program({arguments})  # in the order of the table""",
)


def describe(
    live: LivePolicy, num_steps: int, names: list[str], example: tuple[Tensor, ...]
) -> dict[str, Any]:
    """Say what a program that runs the graph must know.

    Args:
        live: policy and encoder.
        num_steps: of the sampler.
        names: of the inputs.
        example: an input each.
    """
    policy, encoder, horizons = live.policy, live.encoder, live.horizons
    shapes = {
        name: {"dtype": str(tensor.dtype).removeprefix("torch."), "shape": ["batch", *tensor.shape[1:]]}
        for name, tensor in zip(names, example, strict=True)
    }
    actions = ["batch", horizons.num_action_steps, policy.action_dim]
    seen = (
        {
            "image_size": list(encoder.eval_image_resize_shape),
            "encoder": encoder.identity.describe(),
            "preprocessing": encoder.identity.settings,
        }
        if encoder
        else {}
    )
    return {
        "inputs": shapes,
        "outputs": {"actions": {"dtype": "float32", "shape": actions}},
        "fps": policy.fps,
        "obs_horizon": horizons.obs_horizon,
        "num_action_steps": horizons.num_action_steps,
        "num_steps": num_steps,
        **seen,
        "cache_fingerprint": policy.config.cache_fingerprint,
        **({"task": live.tasks.text()} if live.tasks.known else {}),
    }


def page(file: str, description: Mapping[str, Any], kind: Kind) -> str:
    """Write the page.

    Args:
        file: name of what was written.
        description: what `describe` says, and the result of the check.
        kind: what it is.
    """
    tensors = [("in", description["inputs"]), ("out", description["outputs"])]
    rows = "\n".join(
        f"| `{name}` | {way} | {tensor['dtype']} | {tensor['shape']} |"
        for way, group in tensors
        for name, tensor in group.items()
    )
    check, horizon = description["check"], description["obs_horizon"]
    difference = (
        f"{check['inputs']} random inputs: largest difference of an action {check['max_abs_difference']:.2g} "
        f"({check['max_difference_std']:.2g} standard deviations)"
        if check["inputs"]
        else "not checked"
    )
    numbers = [f"`{name}`" for name in description["inputs"] if not name.startswith(("pixels.", "noise"))]
    told = f"\n- It does one task: {description['task']!r}." if "task" in description else ""
    code = kind.code.format(
        file=file,
        numbers=", ".join(f'"{name[1:-1]}": {name[1:-1]}' for name in numbers),
        noise=", ".join(map(str, description["inputs"]["noise"]["shape"][1:])),
        arguments=", ".join(name.replace("pixels.", "images.") for name in description["inputs"]),
    )
    return f"""# {file}

A policy trained with vla: frozen vision encoder, projectors and action head as {kind.what}.

| tensor | | dtype | shape |
|---|---|---|---|
{rows}
{_images(description)}
- {", ".join([*numbers, "`actions`"])} are in the robot's units; their normalisation is in the graph.
- The {horizon} observations are consecutive control steps ({description["fps"]:g} a second), oldest first.
  In the first step of an episode repeat the only one.
- `noise` is standard normal. The same noise gives the same actions; draw it anew for each decision.
- Execute the {description["num_action_steps"]} actions in order, the first one now, then decide again.
- Encoder: {description.get("encoder", "none")}. Sampling steps: {description["num_steps"]}.{told}
- PyTorch {check["torch"]}{kind.compared.format(**check)}, {difference}.

```python
{code}
```
"""


def _images(description: Mapping[str, Any]) -> str:
    if "image_size" not in description:
        return ""
    height, width = description["image_size"]
    return f"""
- Images are RGB in [0, 255], {height}x{width} pixels. Others are resized before: bilinear with antialiasing
  (torch's interpolate on uint8, or Pillow), squashed to that size. Scaling of values is in the graph."""
