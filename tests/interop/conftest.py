"""Fixtures of the environment in which lerobot is installed: make interop."""

import os
from typing import Any

import pytest


@pytest.fixture(scope="session")
def lerobot_dataset() -> Any:
    """Return the class `LeRobotDataset` of the installed lerobot, offline."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    from lerobot_here import import_lerobot_dataset

    return import_lerobot_dataset()
