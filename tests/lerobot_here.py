"""Import lerobot 0.4.4 with PyAV as its decoder.

lerobot's `pyav` backend uses `torchvision.io.VideoReader`, which torchvision has removed. `VideoReader` takes
its place: PyAV decodes, and lerobot's own code still chooses which frame is whose.
"""

from collections.abc import Iterator
from typing import Any

import av
import torch


class VideoReader:
    """What lerobot uses of the removed class: seek to a keyframe, then frames with their times."""

    def __init__(self, path: str, stream: str = "video") -> None:
        self.container = av.open(path)

    def seek(self, time_s: float, keyframes_only: bool = False) -> "VideoReader":
        self.container.seek(int(time_s * av.time_base), any_frame=not keyframes_only)
        return self

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for frame in self.container.decode(video=0):
            pixels = torch.from_numpy(frame.to_ndarray(format="rgb24"))
            yield {"data": pixels.permute(2, 0, 1).contiguous(), "pts": frame.time}


def import_lerobot_dataset() -> Any:
    """Return the class `LeRobotDataset`."""
    import torchvision

    if not hasattr(torchvision.io, "VideoReader"):
        torchvision.io.VideoReader = VideoReader
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    return LeRobotDataset
