"""Follow one camera through the video files of a dataset."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import UInt8

from vla.embed.datasets.folder import DatasetFolder
from vla.embed.datasets.lerobot.places import VideoSpan
from vla.embed.datasets.video import VideoFile


class VideoTrack:
    """One camera; keeps the file open that it is in, so that a pass decodes every file once.

    Args:
        folder: the dataset.
        tolerance_s: how far a frame may lie from its due time [s]; less than half a frame period.
        threads: that decode a file; 0 lets FFmpeg choose.
    """

    def __init__(self, folder: DatasetFolder, tolerance_s: float, threads: int = 0) -> None:
        self._folder, self._tolerance_s, self._threads = folder, tolerance_s, threads
        self._name = ""
        self._file: VideoFile | None = None

    def frames(
        self, spans: Sequence[tuple[VideoSpan, range]], fps: float
    ) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
        """Yield RGB frames, given as frame numbers within episodes.

        Raises:
            DatasetError: a file is missing, or leads out of the dataset.
            FrameError: a frame is missing or cannot be decoded.
        """
        for span, frames in spans:
            times_s = [span.start_s + frame / fps for frame in frames]
            yield from self._open(span.file).frames_at(times_s, self._tolerance_s)

    def close(self) -> None:
        """Close the file that is open, if any."""
        if self._file is not None:
            self._file.close()
        self._file, self._name = None, ""

    def _open(self, name: str) -> VideoFile:
        if self._file is None or name != self._name:
            self.close()
            self._file, self._name = VideoFile(self._folder.file(name), self._threads), name
        return self._file
