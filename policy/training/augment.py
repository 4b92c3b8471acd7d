"""Random shifts and colours of the images of a batch, on the training device, drawn anew at each step.

A window's frames are moved and coloured alike, so that the world does not jump between them; each camera by
itself. Evaluation sees images as they are: a shifted image has the size of the image, so nothing is cropped
there. What comes in at the edge repeats it, as in DrQ (arXiv 2004.13649), which pads and crops at random.

`[augment]` of `vla embed` is for frozen encoders, and draws a fixed number of variants in the same way.

B windows, T_obs obs_horizon.
"""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from vla.base.strict import Share, StrictModel
from vla.cache import Stream
from vla.policy.batch import Batch
from vla.policy.random import Random


class TrainAugment(StrictModel):
    """How much the images of a batch are changed: table `[train.augment]`; 0 everywhere is not at all."""

    shift: Share = 0.0
    """Largest shift of an image, as a share of its height and width; DrQ's is 4 of 84 pixels, 0.05."""
    gain: Share = 0.0
    """Largest relative change of each colour channel's contrast."""
    offset: Share = 0.0
    """Largest change of each colour channel's brightness, as a share of full scale."""

    @property
    def is_on(self) -> bool:
        return any((self.shift, self.gain, self.offset))


def augment(batch: Batch, streams: tuple[Stream, ...], config: TrainAugment, random: Random) -> Batch:
    """Return the batch with other images, of the same type and size; all else stays.

    Args:
        batch: windows.
        streams: what they observe; those of kind image are changed.
        config: how much.
        random: draws eight numbers a window and camera.
    """
    observation = dict(batch.observation)
    for name in (stream.name for stream in streams if stream.kind == "image"):
        frames = observation[name]
        draws = 2 * random.uniform(len(frames), 8) - 1
        frames = shift(frames, config.shift * draws[:, :2])
        if config.gain or config.offset:
            frames = colour(frames, 1 + config.gain * draws[:, 2:5], 255 * config.offset * draws[:, 5:])
        observation[name] = frames
    return Batch(observation=observation, action=batch.action, action_is_pad=batch.action_is_pad)


def shift(frames: UInt8[Tensor, "B T_obs H W 3"], by: Float[Tensor, "B 2"]) -> UInt8[Tensor, "B T_obs H W 3"]:
    """Move images by whole pixels; what comes in repeats the edge.

    Args:
        frames: of one camera.
        by: down and to the right, as shares of height and width.
    """
    height, width = frames.shape[2:4]
    size = torch.tensor([height, width], device=frames.device)
    down, right = (by * size).round().long().unbind(1)
    rows = (torch.arange(height, device=frames.device) - down[:, None]).clamp(0, height - 1)
    columns = (torch.arange(width, device=frames.device) - right[:, None]).clamp(0, width - 1)
    window = torch.arange(len(frames), device=frames.device)[:, None, None]
    # Window, row and column together are one index, which leaves [B, H, W, T_obs, 3].
    moved = frames.permute(0, 2, 3, 1, 4)[window, rows[:, :, None], columns[:, None]]
    return moved.permute(0, 3, 1, 2, 4)


def colour(
    frames: UInt8[Tensor, "B T_obs H W 3"], gain: Float[Tensor, "B 3"], offset: Float[Tensor, "B 3"]
) -> UInt8[Tensor, "B T_obs H W 3"]:
    """Change contrast about mid-grey and brightness of each channel.

    Args:
        frames: of one camera.
        gain: factor of each channel.
        offset: added to it, in [0, 255].
    """
    gain, offset = gain[:, None, None, None], offset[:, None, None, None]
    return ((frames.float() - 127.5) * gain + 127.5 + offset).round().clamp(0, 255).to(torch.uint8)
