"""Fixtures: one small dataset and one small encoder for the whole session."""

from pathlib import Path

import pytest
import torch
from fakes import write_dataset, write_vision_checkpoint

torch.set_num_threads(1)  # small tensors: threads only wait for each other


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a dataset of two episodes of 5 and 4 frames; read it, do not change it."""
    return write_dataset(tmp_path_factory.mktemp("dataset") / "demos")


@pytest.fixture(scope="session")
def encoder_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a small vision-only checkpoint; read it, do not change it."""
    return write_vision_checkpoint(tmp_path_factory.mktemp("encoder") / "siglip-small")
