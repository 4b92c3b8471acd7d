"""How each kind of vision-language model wants its images and its prompt; one entry a `model_type`.

    before │ open, image tokens, close │ of each camera │ after

n instants, C cameras, L tokens of the sequence.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

Inputs = dict[str, Tensor]
HALF = (0.5, 0.5, 0.5)
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, kw_only=True)
class VlmKind:
    """What there is to know of a kind."""

    language: str
    """Attribute of the model that is its language model."""
    before: str
    open: str
    close: str
    after: str
    """Text around the images; `{prompt}` stands in `after`."""
    cell: Callable[[Any], int]
    """Pixels along the edge of what becomes one image token, by the model's configuration."""
    size: Callable[[Any], int | None]
    """Pixels along the edge of an image; None is any multiple of a cell."""
    inputs: Callable[[Float[Tensor, "n C 3 h w"], Int64[Tensor, "n L"], Any], Inputs]
    """What the model takes beside ids and mask."""
    mean: tuple[float, float, float] = HALF
    std: tuple[float, float, float] = HALF
    """Of pixels, where the checkpoint's files do not say."""


def _idefics(pixels: Tensor, ids: Tensor, config: Any) -> Inputs:
    return {"pixel_values": pixels.contiguous()}  # it takes views of them, and images come channels-last


def _paligemma(pixels: Tensor, ids: Tensor, config: Any) -> Inputs:
    # Zeros: all of it is prefix, which attends both ways.
    return {"pixel_values": pixels.flatten(0, 1), "token_type_ids": torch.zeros_like(ids)}


def _qwen(pixels: Tensor, ids: Tensor, config: Any) -> Inputs:
    vision = config.vision_config
    patch, merge, frames = vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size
    images = pixels.flatten(0, 1)
    rows, columns = (size // (patch * merge) for size in images.shape[2:])
    # Patches that are merged to one token are neighbours in the list; an image is a film of equal frames.
    cut = images.unflatten(3, (columns, merge, patch)).unflatten(2, (rows, merge, patch))
    cut = cut.permute(0, 2, 5, 3, 6, 1, 4, 7)  # image, row, column, two of merging, channel, two of a patch
    film = cut[..., None, :, :].expand(*cut.shape[:6], frames, patch, patch)
    grid = torch.tensor([1, rows * merge, columns * merge], device=ids.device)
    return {
        "pixel_values": film.flatten(5).flatten(0, 4),
        "image_grid_thw": grid.expand(len(images), -1),
        "position_ids": _qwen_positions(ids[0] == config.image_token_id, rows, columns)[:, None].expand(
            -1, len(ids), -1
        ),
    }


def _qwen_positions(is_image: Tensor, rows: int, columns: int) -> Int64[Tensor, "3 L"]:
    """Return time, row and column of each token: an image is one instant, and words go on after its edge."""
    positions: list[list[int]] = []
    at, inside = 0, 0
    for image in is_image.tolist():
        if not image:
            positions.append([at, at, at])
            at += 1
            continue
        positions.append([at, at + inside // columns, at + inside % columns])
        inside += 1
        if inside == rows * columns:
            at, inside = at + max(rows, columns), 0
    return torch.tensor(positions, device=is_image.device).T


IDEFICS = VlmKind(
    language="text_model",
    before="<|im_start|>User:",
    open="<fake_token_around_image><global-img>",
    close="<fake_token_around_image>",
    after="{prompt}<end_of_utterance>\nAssistant:",
    cell=lambda config: config.vision_config.patch_size * config.scale_factor,
    size=lambda config: config.vision_config.image_size,
    inputs=_idefics,
)
PALIGEMMA = VlmKind(
    language="language_model",
    before="",
    open="",
    close="",
    after="<bos>{prompt}\n",
    cell=lambda config: config.vision_config.patch_size,
    size=lambda config: config.vision_config.image_size,
    inputs=_paligemma,
)
QWEN = VlmKind(
    language="language_model",
    before="<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n",
    open="<|vision_start|>",
    close="<|vision_end|>",
    after="{prompt}<|im_end|>\n<|im_start|>assistant\n",
    cell=lambda config: config.vision_config.patch_size * config.vision_config.spatial_merge_size,
    size=lambda config: None,
    inputs=_qwen,
    mean=CLIP_MEAN,
    std=CLIP_STD,
)
KINDS: Mapping[str, VlmKind] = {
    "smolvlm": IDEFICS,
    "idefics3": IDEFICS,
    "paligemma": PALIGEMMA,
    "qwen2_vl": QWEN,
    "qwen2_5_vl": QWEN,
}
