"""Decode the images of several blocks at a time: begin, go on to the next block, and wait only then.

Single images share a pool. The videos of a camera have a thread of their own, in which block after block is
decoded: no file is read twice, and no camera waits for another at the end of a block. Frames are resized in
the pool, whichever they come from: nobody waits for it but who needs them.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import numpy as np
from jaxtyping import UInt8

from vla.embed.datasets.folder import DatasetFolder
from vla.embed.datasets.images import FrameError, Picture, decode_image, fit, stack
from vla.embed.datasets.video import VideoFile, VideoSpan

Decoded = Callable[[], np.ndarray]
"""Waits for one stream of a block, [n, ...]; raises DatasetError if a frame cannot be decoded."""
Where = Callable[[int], str]
"""Names camera, episode and frame of a block's k-th frame, for messages."""
MOST_THREADS = 16
MOST_RESIZING = 32
"""Frames of a camera's video that wait to be resized."""


class Decoders:
    """The threads and open files of one pass through a dataset; a context manager.

    Args:
        folder: the dataset.
        tolerance_s: how far a video's frame may lie from its due time [s].
        video_cameras: those that have videos.
        workers: threads for single images and for resizing; videos share as many, at least one a camera.
        size: (height, width) [pixel] of the frames that come out; None leaves each as it is.
    """

    def __init__(
        self,
        folder: DatasetFolder,
        tolerance_s: float,
        video_cameras: Iterable[str],
        workers: int,
        size: tuple[int, int] | None = None,
    ) -> None:
        self._size = size
        cameras = list(video_cameras)
        # More threads than cores only get in each other's way, and FFmpeg advises no more than 16 a file.
        each = min(MOST_THREADS, max(1, workers // max(1, len(cameras))))
        self._tracks = {camera: VideoTrack(folder, tolerance_s, each) for camera in cameras}
        self._threads = {camera: ThreadPoolExecutor(1, f"video {camera}") for camera in self._tracks}
        self._pool = ThreadPoolExecutor(workers, "images")

    def __enter__(self) -> "Decoders":
        return self

    def __exit__(self, *_: object) -> None:
        pools = (*self._threads.values(), self._pool)
        for pool in pools:  # nobody begins anything more, while one is waited for
            pool.shutdown(wait=False, cancel_futures=True)
        for pool in pools:
            pool.shutdown()
        for track in self._tracks.values():
            track.close()  # not if waiting was broken off: its thread may still read the file

    def begin_images(self, cells: Sequence[object], where: Where) -> Decoded:
        """Begin to decode encoded images, in either form that the `datasets` library stores them."""
        encoded = [cell.get("bytes") if isinstance(cell, dict) else cell for cell in cells]
        return partial(stack, self._pool.map(self._decode, encoded), len(cells), where)

    def begin_video(
        self, camera: str, spans: Sequence[tuple[VideoSpan, range]], fps: float, where: Where
    ) -> Decoded:
        """Begin to decode a camera's next frames; see `VideoTrack.frames`."""
        track, count = self._tracks[camera], sum(len(frames) for _, frames in spans)
        return (
            self._threads[camera]
            .submit(lambda: stack(self._fitted(track.frames(spans, fps)), count, where))
            .result
        )

    def _decode(self, encoded: object) -> Picture:
        return fit(decode_image(encoded), self._size)

    def _fitted(self, frames: Iterator[UInt8[np.ndarray, "h w 3"]]) -> Iterator[Picture]:
        """Yield decoded frames, resized in the pool; what goes wrong is raised at its frame's place."""
        waiting: deque[Future[Picture]] = deque()
        failed: FrameError | None = None
        try:
            for frame in frames:
                if self._size in (None, frame.shape[:2]):
                    yield from _results(waiting)
                    yield fit(frame, None)
                    continue
                waiting.append(self._pool.submit(fit, frame, self._size))
                if len(waiting) > MOST_RESIZING:
                    yield waiting.popleft().result()
        except FrameError as error:
            failed = error
        yield from _results(waiting)
        if failed is not None:
            raise failed


def _results(waiting: deque[Future[Picture]]) -> Iterator[Picture]:
    while waiting:
        yield waiting.popleft().result()


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
