"""Richer features: grids keep where things are, patches keep everything."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fakes import fake_images
from transformers import SiglipVisionModel

from vla.embed import FrozenEncoder, SiglipConfig
from vla.embed.encoders.siglip import num_tokens, pool


def output_of(side: int, dim: int = 3) -> SimpleNamespace:
    tokens = torch.arange(side * side * dim, dtype=torch.float32).view(1, side * side, dim)
    return SimpleNamespace(last_hidden_state=tokens, pooler_output=torch.full((1, dim), 7.0))


def test_a_grid_cell_is_the_mean_of_its_patches() -> None:
    output = output_of(side=4)
    cells = pool(output, "grid2")
    rows = output.last_hidden_state.view(4, 4, 3)
    assert cells.shape == (1, 4, 3)
    torch.testing.assert_close(cells[0, 1], rows[:2, 2:].flatten(0, 1).mean(0))  # top right
    torch.testing.assert_close(cells[0, 2], rows[2:, :2].flatten(0, 1).mean(0))  # bottom left


def test_the_mean_is_over_all_patches_and_patches_are_as_they_are() -> None:
    output = output_of(side=4)
    torch.testing.assert_close(pool(output, "mean")[:, 0], output.last_hidden_state.mean(1))
    assert torch.equal(pool(output, "patches"), output.last_hidden_state)
    assert torch.equal(pool(output, "pooled"), torch.full((1, 1, 3), 7.0))


@pytest.mark.parametrize("pooling", ["pooled", "mean", "grid2", "grid4", "patches"])
def test_the_number_of_tokens_is_known_beforehand(pooling: str, encoder_dir: Path) -> None:
    config = SiglipConfig.model_validate({"id": str(encoder_dir), "device": "cpu", "pool": pooling})
    encoder = FrozenEncoder.load(config, ("top",))
    features = encoder.encode({"top": fake_images(0, 2)})["top"]
    assert encoder.writes[0].shape == features.shape[1:] == (num_tokens(config.pool, patches=16), 32)


def test_patches_are_those_of_plain_transformers(encoder_dir: Path) -> None:
    encoder = FrozenEncoder.load(SiglipConfig(id=str(encoder_dir), device="cpu", pool="patches"), ("top",))
    frames = fake_images(1, 2)
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        expected = (
            SiglipVisionModel.from_pretrained(encoder_dir).eval()(pixel_values=pixels).last_hidden_state
        )
    np.testing.assert_allclose(encoder.encode({"top": frames})["top"], expected.numpy(), atol=5e-3)
