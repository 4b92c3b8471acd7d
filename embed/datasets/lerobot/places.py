"""Where the episodes of a LeRobotDataset lie: what v3.0 and v2.1 differ in."""

from collections.abc import Mapping
from dataclasses import dataclass

from vla.embed.datasets.lerobot.tables import Rows


@dataclass(frozen=True)
class VideoSpan:
    """The part of a video file that shows one episode."""

    file: str
    """Relative to the dataset."""
    start_s: float
    """Time of the episode's first frame on the file's clock [s]."""


@dataclass(frozen=True)
class EpisodeFiles:
    """One episode and its places."""

    index: int
    length: int
    task: str
    rows: Rows
    videos: Mapping[str, VideoSpan]
    """By feature key."""
