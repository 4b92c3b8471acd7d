"""Let lerobot be imported (`lerobot_import`), and torchvision where its compiled half does not load.

Python imports this first in every process that has this folder on PYTHONPATH; `make interop` sees to that.
The compiled half does not load beside a CPU-only torch. torchvision describes its operators `nms` and `qnms`
to torch while it is imported, and transformers imports torchvision wherever it is installed. Neither is
needed here, so they are declared without code behind them.
"""

import importlib.util
from pathlib import Path

import lerobot_import  # noqa: F401
import torch

spec = importlib.util.find_spec("torchvision")
if spec is not None and spec.origin is not None:
    try:
        torch.ops.load_library(Path(spec.origin).with_name("_C.so"))
    except OSError:
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
