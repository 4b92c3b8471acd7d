"""One preprocessing for dataset frames and live renders."""

from typing import Any

import numpy as np
import pytest
import torch
from fakes import fake_images
from PIL import Image
from torch.nn import functional

from vla.embed.transforms import Preprocessing, normalise, resize


def test_frames_of_the_encoders_size_pass_through_untouched() -> None:
    frames = fake_images(0, 2)
    assert resize(frames, (256, 256)) is frames


def test_larger_frames_are_resized_like_pillow_does() -> None:
    frames = fake_images(1, 2, size=(480, 640))
    found = resize(frames, (256, 256)).astype(int)
    expected = np.stack(
        [np.asarray(Image.fromarray(f).resize((256, 256), Image.Resampling.BILINEAR)) for f in frames]
    )
    assert found.shape == (2, 256, 256, 3)
    assert np.abs(found - expected).max() <= 1


def test_a_single_frame_reaches_torch_as_channels_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """NumPy gives the axis that frame[None] adds a stride of 0, with which torch takes its slow way."""
    layouts, interpolate = [], functional.interpolate

    def watched(pixels: torch.Tensor, **options: Any) -> torch.Tensor:
        layouts.append(pixels.is_contiguous(memory_format=torch.channels_last) and pixels.stride(0) > 0)
        return interpolate(pixels, **options)

    frames = fake_images(1, 2, size=(480, 640))
    together = resize(frames, (256, 256))
    monkeypatch.setattr(functional, "interpolate", watched)
    assert np.array_equal(resize(frames[1][None], (256, 256))[0], together[1])
    assert layouts == [True]


def test_pixels_are_scaled_to_minus_one_and_one() -> None:
    frames = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 4, 4, 3)
    pixels = normalise(frames, Preprocessing(image_size=(4, 4)))
    assert pixels.shape == (2, 3, 4, 4)
    assert torch.equal(pixels[0], torch.full((3, 4, 4), -1.0))
    assert torch.equal(pixels[1], torch.full((3, 4, 4), 1.0))


def test_each_channel_has_its_own_mean_and_std() -> None:
    spec = Preprocessing(image_size=(1, 1), mean=(0.0, 0.5, 1.0), std=(1.0, 0.5, 0.25))
    pixels = normalise(torch.full((1, 1, 1, 3), 255, dtype=torch.uint8), spec)
    assert pixels.flatten().tolist() == [1.0, 1.0, 0.0]
