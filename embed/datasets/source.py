"""What stage one asks of a dataset: episodes, and frames decoded in order.

Another format is another subclass; nothing else in `vla` knows about files of
demonstrations.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int32, UInt8

from vla.cache.metadata import DatasetIdentity, Episode
from vla.embed.datasets.watch import FileWatch


@dataclass(frozen=True, kw_only=True)
class FrameBlock:
    """Consecutive decoded frames of all cameras; cameras may differ in size."""

    images: dict[str, UInt8[np.ndarray, "n _h _w 3"]]
    """RGB, in [0, 255]."""
    state: Float32[np.ndarray, "n state_dim"]
    action: Float32[np.ndarray, "n action_dim"]
    episode_index: Int32[np.ndarray, "n"]
    """The dataset's own number of the episode."""
    frame_index: Int32[np.ndarray, "n"]
    """Counted within the episode."""


class FrameSource(ABC):
    """Demonstrations on disk.

    Attributes:
        state_key: what the dataset calls the robot state.
        action_key: what it calls the action.
    """

    state_key: str
    action_key: str

    @property
    @abstractmethod
    def format(self) -> str:
        """Name of the format, such as `lerobot-v3.0`."""

    @property
    @abstractmethod
    def fps(self) -> float:
        """Frames a second."""

    @property
    @abstractmethod
    def camera_names(self) -> tuple[str, ...]:
        """Cameras that `read` delivers, in order."""

    @property
    @abstractmethod
    def episodes(self) -> tuple[Episode, ...]:
        """The chosen episodes; frames are numbered 0, 1, 2, … through them."""

    @property
    @abstractmethod
    def state_dim(self) -> int:
        """Size of the robot state."""

    @property
    @abstractmethod
    def action_dim(self) -> int:
        """Size of the action."""

    @abstractmethod
    def files(self) -> list[str]:
        """List the files that decide what `read` delivers, relative to the dataset's directory."""

    @abstractmethod
    def watch(self) -> FileWatch:
        """Watch `files` from now on."""

    @abstractmethod
    def identity(self) -> DatasetIdentity:
        """Identify the dataset by its content; reads each of `files` once.

        Raises:
            DatasetError: a file is missing or cannot be read.
        """

    @abstractmethod
    def read(self, frames: range, block: int) -> Iterator[FrameBlock]:
        """Yield the frames with these numbers, `block` at a time (the last block may be shorter).

        The same frames are the same bytes, wherever reading began.

        Raises:
            DatasetError: a frame cannot be read; the message names episode, frame and camera.
        """
