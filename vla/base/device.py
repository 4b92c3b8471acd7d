"""Choose where and in which arithmetic to compute."""

import os
from pathlib import Path
from typing import Literal

import torch

from vla.base.errors import ConfigError

DtypeName = Literal["float32", "bfloat16", "float16"]
CPUINFO = Path("/proc/cpuinfo")
BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
"""As Linux calls what multiplies bfloat16: AVX-512, AMX, and the same of ARM."""


def choose_device(name: str) -> torch.device:
    """Turn `auto`, `cuda`, `cuda:1`, `mps` or `cpu` into a device that this machine has.

    A GPU without number is that of this process, if torchrun has started several. It always has a number
    afterwards: "the current one" is another in another thread.

    Raises:
        ConfigError: the device does not exist here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"no device is called '{name}'; use auto, cuda, cuda:N, mps or cpu") from None
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not available.get(device.type, False):
        raise ConfigError(f"device '{device}' is not available here; use auto or cpu")
    return device


def choose_dtype(name: Literal["auto"] | DtypeName, device: torch.device) -> DtypeName:
    """Turn `auto` into bfloat16 on a GPU and float32 elsewhere."""
    if name != "auto":
        return name
    return "bfloat16" if device.type == "cuda" else "float32"


def autocasts(asked: Literal["auto", "bfloat16", "float32"], device: torch.device) -> bool:
    """Decide whether large products of a training are made in bfloat16.

    Args:
        asked: auto is bfloat16 on a GPU and float32 elsewhere.
        device: of the training.

    Raises:
        ConfigError: bfloat16 is asked for, and the device has no instructions for it.
    """
    if asked == "auto":
        return device.type == "cuda"
    if asked == "float32" or device.type == "cuda":
        return asked == "bfloat16"
    if device.type != "cpu" or not multiplies_bfloat16():
        raise ConfigError(
            f"train.autocast = bfloat16, and device '{device}' has no instructions for it; leave it out"
        )
    return True


def multiplies_bfloat16() -> bool:
    """Tell whether this CPU multiplies bfloat16 in hardware; False where nobody says so, as outside Linux."""
    try:
        lines = CPUINFO.read_text().splitlines()
    except OSError:
        return False
    flags = (line.partition(":")[2].split() for line in lines if line.startswith(("flags", "Features")))
    return bool(BFLOAT16_FLAGS & set(next(flags, [])))
