"""How blocks become batches: every frame once, in order, without a copy."""

import numpy as np
import pytest
from fakes import fake_images
from hypothesis import given
from hypothesis import strategies as st

from vla.embed import EncoderConfig
from vla.embed.engine import for_large_batches
from vla.embed.pipeline import cut


@given(lengths=st.lists(st.integers(0, 40), max_size=4), size=st.integers(1, 50))
def test_batches_are_the_frames_of_all_cameras_in_order_cut_to_size(lengths: list[int], size: int) -> None:
    views = [
        np.full((n, 1, 1, 3), camera, np.uint8) + np.arange(n, dtype=np.uint8)[:, None, None, None]
        for camera, n in enumerate(lengths)
    ]
    batches = list(cut(views, size))
    assert all(sum(map(len, pieces)) == size for pieces in batches[:-1])
    assert all(len(piece) for pieces in batches for piece in pieces)
    if sum(lengths):
        found = np.concatenate([piece for pieces in batches for piece in pieces])
        assert np.array_equal(found, np.concatenate(views))
        assert 1 <= sum(map(len, batches[-1])) <= size
    else:
        assert not batches


def test_a_camera_that_fills_its_batches_is_not_copied() -> None:
    views = [fake_images(seed, 16, (4, 4)) for seed in range(3)]
    for pieces in cut(views, 8):
        (piece,) = pieces
        assert any(np.shares_memory(piece, frames) for frames in views)


@pytest.mark.parametrize(("asked", "taken"), [("off", "off"), ("on", "on"), ("graphs", "on")])
def test_large_batches_are_compiled_without_graphs(asked: str, taken: str) -> None:
    assert for_large_batches(EncoderConfig.model_validate({"compile": asked})).compile == taken
