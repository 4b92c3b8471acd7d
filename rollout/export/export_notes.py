"""The page beside an exported graph: how to run it without vla."""

from collections.abc import Mapping
from typing import Any


def notes(file: str, description: Mapping[str, Any]) -> str:
    """Write the page.

    Args:
        file: name of the ONNX file.
        description: what `vla.rollout.export.onnx_export.describe` says, and the result of the check.
    """
    tensors = [("in", description["inputs"]), ("out", description["outputs"])]
    rows = "\n".join(
        f"| `{name}` | {way} | {tensor['dtype']} | {tensor['shape']} |"
        for way, group in tensors
        for name, tensor in group.items()
    )
    height, width = description["image_size"]
    check, horizon = description["check"], description["obs_horizon"]
    difference = (
        f"{check['inputs']} random inputs: largest difference of an action {check['max_abs_difference']:.2g} "
        f"({check['max_difference_std']:.2g} standard deviations)"
        if check["inputs"]
        else "not checked"
    )
    told = f"\n- It does one task: {description['task']!r}." if "task" in description else ""
    return f"""# {file}

A policy trained with vla: frozen vision encoder, projectors and action head as one ONNX graph.

| tensor | | dtype | shape |
|---|---|---|---|
{rows}

- Images are RGB in [0, 255], {height}x{width} pixels. Others are resized before: bilinear with antialiasing
  (torch's interpolate on uint8, or Pillow), squashed to that size. Scaling of values is in the graph.
- `state` and `actions` are in the robot's units; their normalisation is in the graph.
- The {horizon} observations are consecutive control steps ({description["fps"]:g} a second), oldest first.
  In the first step of an episode repeat the only one.
- `noise` is standard normal. The same noise gives the same actions; draw it anew for each decision.
- Execute the {description["num_action_steps"]} actions in order, the first one now, then decide again.
- Encoder: {description["encoder"]}. Sampling steps: {description["num_steps"]}.{told}
- PyTorch {check["torch"]} against ONNX Runtime {check["onnxruntime"]}, {difference}.

```python
import numpy as np, onnxruntime

session = onnxruntime.InferenceSession("{file}")
noise = np.random.randn(1, *session.get_inputs()[-1].shape[1:]).astype(np.float32)
inputs = {{"state": state, "noise": noise}}
inputs |= {{f"pixels.{{camera}}": frames for camera, frames in images.items()}}
(actions,) = session.run(None, inputs)
```
"""
