"""What is done to camera frames before an encoder sees them, in stage one, by the recorder and live alike.

    frames  uint8 [n, h, w, 3]  RGB, any size
       │ resize: on the CPU, in uint8, where a frame is decoded, rendered or received; one that already has
       │ the encoder's size passes through untouched
    frames  uint8 [n, H, W, 3]
       │ augment: stage one only; shifts and colours, so that caching does not cost augmentation
    frames  uint8 [n, H, W, 3]
       │ normalise: on the encoder's device; uploading uint8 moves a quarter of the bytes
    pixels  float [n, 3, H, W]  (value / 255 - mean) / std, per channel, of all of the frame or of its middle

Resizing squashes, as with `eval_image_resize_shape`, or keeps the aspect ratio and cuts off what is too long,
as the checkpoint's own image processor does. Many processors then cut a smaller square out of that one
(DINOv2: 224 of 256); this is left to `normalise`, so that a frame of the encoder's size always is one that
needs no resizing, whether it comes from here or from a camera. Resizing runs in uint8 on the CPU
everywhere, because the CUDA kernel takes floats only and would round some pixels the other way; a frame
must have the same feature wherever it is encoded.
"""

import zlib
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

from vla.base.strict import StrictModel, Width
from vla.cache.metadata import Augmentation

Interpolation = Literal["bilinear-antialias-uint8", "bicubic-antialias-uint8"]
BILINEAR: Interpolation = "bilinear-antialias-uint8"
BICUBIC: Interpolation = "bicubic-antialias-uint8"


class ImageSize(tuple[int, int]):
    """The (height, width) [pixel] of an encoder's input, which also says how frames get there.

    Any other pair of numbers is a size that frames are squashed to bilinearly.
    """

    interpolation: Interpolation
    squashes: bool
    """False keeps the aspect ratio: the shorter edge gets its size, the longer one is cut at both ends."""
    pads: bool
    """True keeps the aspect ratio and the whole frame; what is left over at the left and the top is black."""

    def __new__(
        cls,
        size: tuple[int, int],
        interpolation: Interpolation = BILINEAR,
        squashes: bool = True,
        pads: bool = False,
    ) -> "ImageSize":
        made = super().__new__(cls, size)
        made.interpolation, made.squashes, made.pads = interpolation, squashes, pads
        return made


class Preprocessing(StrictModel):
    """How a uint8 RGB frame becomes encoder input."""

    image_size: tuple[Width, Width]
    """Height and width [pixel] that frames are brought to."""
    interpolation: Interpolation = BILINEAR
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    crop: tuple[Width, Width] | None = None
    """Height and width [pixel] of the middle of the frame, which is all that the encoder sees; frames then
    keep their aspect ratio. None squashes them, and the encoder sees them whole."""

    @property
    def size(self) -> ImageSize:
        """The size that `resize` takes."""
        return ImageSize(self.image_size, self.interpolation, self.crop is None)

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width [pixel] of what the encoder sees."""
        return self.crop or self.image_size

    def settings(self) -> dict[str, Any]:
        """Return what an encoder's identity says of it: `crop`, which came later, only where there is one."""
        return self.model_dump(mode="json", exclude_none=True)


def resize(frames: UInt8[np.ndarray, "n h w 3"], size: tuple[int, int]) -> UInt8[np.ndarray, "n H W 3"]:
    """Resize frames with antialiasing.

    Frames of that size are returned as they are, the same object.

    Args:
        frames: RGB.
        size: (height, width) [pixel]; squashed bilinearly, unless it is an `ImageSize` that says otherwise.
    """
    if frames.shape[1:3] == size:
        return frames
    frames = frames if frames.flags.writeable else frames.copy()  # torch takes no other
    # NumPy's frame[None] has the stride 0, which torch does not take for channels-last: 2.5 times as slow.
    channels_first = torch.from_numpy(frames).view(frames.shape).permute(0, 3, 1, 2)
    if getattr(size, "pads", False):
        return _fitted(frames, size)
    mode = getattr(size, "interpolation", BILINEAR).partition("-")[0]
    whole = tuple(size) if getattr(size, "squashes", True) else _covering(frames.shape[1:3], size)
    if whole != frames.shape[1:3]:
        channels_first = functional.interpolate(channels_first, size=whole, mode=mode, antialias=True)
    resized = middle(channels_first.permute(0, 2, 3, 1), size)
    return np.ascontiguousarray(resized.numpy())


def middle(frames: UInt8[Tensor, "n h w 3"], size: tuple[int, int]) -> UInt8[Tensor, "n H W 3"]:
    """Cut the middle (height, width) [pixel] out of frames; a view of them."""
    top, left = ((there - kept) // 2 for there, kept in zip(frames.shape[1:3], size, strict=True))
    return frames[:, top : top + size[0], left : left + size[1]]


def _fitted(frames: UInt8[np.ndarray, "n h w 3"], size: tuple[int, int]) -> UInt8[np.ndarray, "n H W 3"]:
    """Resize frames to the largest size that fits in, bilinearly and without antialiasing, as LeRobot does.

    It computes in floats; rounded to uint8 here, a value is off by half a step of 255 at most.
    """
    (height, width), (most_high, most_wide) = frames.shape[1:3], size
    ratio = max(width / most_wide, height / most_high)
    fitting = int(height / ratio), int(width / ratio)
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
    resized = functional.interpolate(pixels, size=fitting, mode="bilinear", align_corners=False)
    padded = functional.pad(resized, (most_wide - fitting[1], 0, most_high - fitting[0], 0))
    return np.ascontiguousarray(padded.round().to(torch.uint8).permute(0, 2, 3, 1).numpy())


def _covering(there: tuple[int, int], square: tuple[int, int]) -> tuple[int, int]:
    """Return the size at which the shorter edge of a frame is that of a square; as transformers rounds it."""
    (height, width), edge = there, square[0]
    if height <= width:
        return edge, int(edge * width / height)
    return int(edge * height / width), edge


def resize_images(
    observation: Mapping[str, np.ndarray], sizes: Mapping[str, tuple[int, int]]
) -> dict[str, np.ndarray]:
    """Resize the images of one instant, each [h, w, 3], where (height, width) is given for them.

    What has its size already, and all other streams, are the same objects afterwards.
    """
    return {
        name: resize(value[None], sizes[name])[0]
        if name in sizes and value.shape[:2] != sizes[name]
        else value
        for name, value in observation.items()
    }


def normalise(frames: UInt8[Tensor, "n h w 3"], spec: Preprocessing) -> Float[Tensor, "n 3 H W"]:
    """Scale to [0, 1], subtract the mean and divide by the standard deviation of `spec`.

    What `spec` crops is left out. Runs in float32 on the device of `frames`.
    """
    frames = frames if spec.crop is None else middle(frames, spec.crop)
    mean, std = (
        255 * torch.tensor(values, device=frames.device).repeat(frames.shape[2])
        for values in (spec.mean, spec.std)
    )
    # Rows of all channels side by side, as they lie in memory: 1.40 -> 0.85 ms for 8 frames on a CPU core.
    # The result is channels-last, which convolutions read as well.
    pixels = frames.flatten(2).float().sub_(mean).div_(std)
    return pixels.unflatten(2, (-1, 3)).permute(0, 3, 1, 2)


def augment(
    frames: UInt8[np.ndarray, "n h w 3"], content: bytes, camera: str, variant: int, spec: Augmentation
) -> UInt8[np.ndarray, "n h w 3"]:
    """Return one variant of some frames of an episode.

    It is the same for all frames of an episode and camera: a policy sees two frames of it at a time, and the
    world does not jump between them. Its parameters are functions of (seed, variant, episode, camera), the
    episode by its content: it keeps its variants when it gets another number.

    Args:
        frames: of one camera.
        content: the identity of their episode.
        camera: its name.
        variant: 0 is the frames themselves.
        spec: ranges and seed.
    """
    if variant == 0:
        return frames
    episode = int.from_bytes(content[:8], "little")
    rng = np.random.default_rng([spec.seed, variant, episode, zlib.crc32(camera.encode())])
    return _colour(_shift(frames, rng, spec), rng, spec)


def _shift(frames: np.ndarray, rng: np.random.Generator, spec: Augmentation) -> np.ndarray:
    """Move the image by whole pixels; what comes in repeats the edge."""
    height, width = frames.shape[1:3]
    largest = np.round(spec.shift * np.array([height, width])).astype(int)
    down, right = rng.integers(-largest, largest + 1)
    rows = np.clip(np.arange(height) - down, 0, height - 1)
    columns = np.clip(np.arange(width) - right, 0, width - 1)
    return frames[:, rows][:, :, columns]


def _colour(frames: np.ndarray, rng: np.random.Generator, spec: Augmentation) -> np.ndarray:
    """Change contrast about mid-grey and brightness of each channel, by a table of 256 values."""
    gain = 1 + rng.uniform(-spec.gain, spec.gain, 3)
    offset = 255 * rng.uniform(-spec.offset, spec.offset, 3)
    levels = np.arange(256)[:, None]
    table = np.clip(np.round((levels - 127.5) * gain + 127.5 + offset), 0, 255).astype(np.uint8)
    return np.stack([table[:, channel][frames[..., channel]] for channel in range(3)], axis=-1)
