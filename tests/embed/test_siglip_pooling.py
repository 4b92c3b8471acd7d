"""Richer features: grids keep where things are, patches keep everything."""

from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import fake_images
from transformers import SiglipVisionModel

from vla.base.errors import EncoderError
from vla.embed import FrozenEncoder, SiglipConfig
from vla.embed.encoders.pooling import canonical, num_tokens, pool


def patches_of(side: int, dim: int = 3) -> torch.Tensor:
    return torch.arange(side * side * dim, dtype=torch.float32).view(1, side * side, dim)


def test_a_grid_cell_is_the_mean_of_its_patches() -> None:
    patches = patches_of(side=4)
    cells = pool(patches, "grid2")
    rows = patches.view(4, 4, 3)
    assert cells.shape == (1, 4, 3)
    torch.testing.assert_close(cells[0, 1], rows[:2, 2:].flatten(0, 1).mean(0))  # top right
    torch.testing.assert_close(cells[0, 2], rows[2:, :2].flatten(0, 1).mean(0))  # bottom left


def test_the_mean_is_over_all_patches_and_patches_are_as_they_are() -> None:
    patches = patches_of(side=4)
    torch.testing.assert_close(pool(patches, "mean")[:, 0], patches.mean(1))
    assert torch.equal(pool(patches, "patches"), patches)


def test_a_grid_of_48_tokens_has_six_rows_of_eight() -> None:
    patches = torch.randn(2, 24 * 24, 3, generator=torch.Generator().manual_seed(0))
    cells = pool(patches, "grid6x8")
    blocks = patches.view(2, 6, 4, 8, 3, 3).mean(dim=(2, 4)).flatten(1, 2)
    torch.testing.assert_close(cells, blocks)
    assert cells.shape[1] == num_tokens("grid6x8", side=24) == 48


def test_cells_share_a_row_of_patches_where_they_do_not_divide_them() -> None:
    patches = patches_of(side=5)
    rows = patches.view(5, 5, 3)
    torch.testing.assert_close(pool(patches, "grid2")[0, 0], rows[:3, :3].flatten(0, 1).mean(0))


def test_tokens_of_a_frame_do_not_depend_on_its_batch() -> None:
    patches = torch.randn(7, 256, 96, generator=torch.Generator().manual_seed(1))
    whole = pool(patches, "grid6x8")
    assert torch.equal(whole, torch.cat([pool(one[None], "grid6x8") for one in patches]))


def test_each_pooling_has_one_name() -> None:
    assert [canonical(name) for name in ("grid4x4", "grid1", "grid6x8", "grid1x2")] == [
        "grid4",
        "mean",
        "grid6x8",
        "grid1x2",
    ]
    assert SiglipConfig.model_validate({"pool": "grid4x4"}) == SiglipConfig(pool="grid4")


@pytest.mark.parametrize("name", ["grid0", "grid", "tokens48", "grid2x", "Grid2", "grid100", ""])
def test_a_pooling_that_there_is_none_of_names_those_there_are(name: str) -> None:
    with pytest.raises(ValueError, match=r"pooled, mean, patches, or a grid .*grid4 \(16 tokens\)"):
        SiglipConfig.model_validate({"pool": name})


def test_a_grid_finer_than_the_patches_is_refused(encoder_dir: Path) -> None:
    with pytest.raises(EncoderError, match=r"grid6x8 has more cells .* the 4 x 4 patches .*--pool patches"):
        FrozenEncoder.load(SiglipConfig(id=str(encoder_dir), device="cpu", pool="grid6x8"), ("top",))


@pytest.mark.parametrize("pooling", ["pooled", "mean", "grid2", "grid4", "patches"])
def test_the_number_of_tokens_is_known_beforehand(pooling: str, encoder_dir: Path) -> None:
    config = SiglipConfig.model_validate({"id": str(encoder_dir), "device": "cpu", "pool": pooling})
    encoder = FrozenEncoder.load(config, ("top",))
    features = encoder.encode({"top": fake_images(0, 2)})["top"]
    assert encoder.writes[0].shape == features.shape[1:] == (num_tokens(config.pool, side=4), 32)


def test_patches_are_those_of_plain_transformers(encoder_dir: Path) -> None:
    encoder = FrozenEncoder.load(SiglipConfig(id=str(encoder_dir), device="cpu", pool="patches"), ("top",))
    frames = fake_images(1, 2)
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        expected = (
            SiglipVisionModel.from_pretrained(encoder_dir).eval()(pixel_values=pixels).last_hidden_state
        )
    np.testing.assert_allclose(encoder.encode({"top": frames})["top"], expected.numpy(), atol=5e-3)
