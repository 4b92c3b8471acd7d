"""What stands beside an exported graph: a description for programs, and a page for people."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vla.rollout.live import LivePolicy


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


def page(file: str, description: Mapping[str, Any]) -> str:
    """Write the page.

    Args:
        file: name of the ONNX file.
        description: what `describe` says, and the result of the check.
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
    return f"""# {file}

A policy trained with vla: frozen vision encoder, projectors and action head as one ONNX graph.

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
- PyTorch {check["torch"]} against ONNX Runtime {check["onnxruntime"]}, {difference}.

```python
import numpy as np, onnxruntime

session = onnxruntime.InferenceSession("{file}")
noise = np.random.randn(1, *session.get_inputs()[-1].shape[1:]).astype(np.float32)
inputs = {{"noise": noise, {", ".join(f'"{name[1:-1]}": {name[1:-1]}' for name in numbers)}}}
inputs |= {{f"pixels.{{camera}}": frames for camera, frames in images.items()}}
(actions,) = session.run(None, inputs)
```
"""


def _images(description: Mapping[str, Any]) -> str:
    if "image_size" not in description:
        return ""
    height, width = description["image_size"]
    return f"""
- Images are RGB in [0, 255], {height}x{width} pixels. Others are resized before: bilinear with antialiasing
  (torch's interpolate on uint8, or Pillow), squashed to that size. Scaling of values is in the graph."""
