"""Which devices a sweep uses, and what its children are told about them."""

import os
from collections.abc import Sequence

import torch

from vla.base.device import choose_device
from vla.base.threads import usable_cores


def choose_slots(devices: Sequence[str], jobs: int) -> list[str]:
    """Return the device of each slot.

    Args:
        devices: names; empty is every CUDA device, or else the CPU.
        jobs: slots on each device.

    Raises:
        ConfigError: a device is not there.
    """
    found = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    chosen = list(devices) or found or ["cpu"]
    for name in chosen:
        choose_device(name)
    # Round about the devices: with fewer runs than slots each device gets one first.
    return [name for _ in range(jobs) for name in chosen]


def child_environment(slots: Sequence[str]) -> dict[str, str]:
    """Return the environment of the children; on the CPU they share the cores evenly."""
    environment = dict(os.environ)
    cores = usable_cores()
    if "cpu" in slots and len(slots) > 1:
        environment.setdefault("OMP_NUM_THREADS", str(max(1, cores // len(slots))))
    return environment
