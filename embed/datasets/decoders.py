"""Decode the images of several blocks at a time: begin, go on to the next block, and wait only then.

Single images share a pool. The videos of a camera have a thread of their own, in which block after block is
decoded: no file is read twice, and no camera waits for another at the end of a block. Frames are resized in
the pool, whichever they come from: nobody waits for it but who needs them.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import numpy as np
from jaxtyping import UInt8

from vla.embed.datasets.folder import DatasetFolder
from vla.embed.datasets.images import (
    FrameError,
    Picture,
    Sizes,
    decode_depth,
    decode_image,
    fit,
    fit_alike,
    stack,
    stored_image,
)
from vla.embed.datasets.video import Timing, VideoFile, VideoSpan

Decoded = Callable[[], np.ndarray]
"""Waits for one stream of a block, [n, ...]; raises DatasetError if a frame cannot be decoded."""
Where = Callable[[int], str]
"""Names camera, episode and frame of a block's k-th frame, for messages."""
MOST_THREADS = 16
RESIZED_TOGETHER = 4
"""Frames of a camera's video; one by one is 1.1 times as slow, four of 480 x 640 are 4 MB."""
MOST_WAITING = 2
"""Of these handfuls, until they are resized; a frame that waits long has left the processor's cache."""


class Decoders:
    """The threads and open files of one pass through a dataset; a context manager.

    Args:
        folder: the dataset.
        timing: which frame of a video is meant.
        video_cameras: those that have videos.
        depth: streams that are distances, not colours; they are not resized.
        workers: threads for single images and for resizing; videos share as many, at least one a camera.
        sizes: holds every frame against its camera's size.
        size: (height, width) [pixel] of the frames that come out; None leaves each as it is.
    """

    def __init__(
        self,
        folder: DatasetFolder,
        timing: Timing,
        video_cameras: Iterable[str],
        depth: Collection[str],
        workers: int,
        sizes: Sizes,
        size: tuple[int, int] | None = None,
    ) -> None:
        self._folder, self._size, self._sizes, self._depth = folder, size, sizes, depth
        cameras = list(video_cameras)
        # More threads than cores only get in each other's way, and FFmpeg advises no more than 16 a file.
        each = min(MOST_THREADS, max(1, workers // max(1, len(cameras))))
        self._tracks = {camera: VideoTrack(folder, timing, each, depth=camera in depth) for camera in cameras}
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

    def begin_images(self, camera: str, cells: Sequence[object], where: Where) -> Decoded:
        """Begin to decode encoded images, in either form that the `datasets` library stores them."""
        check = partial(self._sizes.check, camera)
        decode = self._decode_depth if camera in self._depth else self._decode
        return partial(stack, self._pool.map(decode, cells), len(cells), where, check)

    def begin_video(self, camera: str, spans: Sequence[tuple[VideoSpan, range]], where: Where) -> Decoded:
        """Begin to decode a camera's next frames; see `VideoTrack.frames`."""
        track, count = self._tracks[camera], sum(len(frames) for _, frames in spans)
        check = partial(self._sizes.check, camera)
        fitted = _as_they_are
        if self._size is not None and camera not in self._depth:
            fitted = partial(self._fitted, self._size)
        return (
            self._threads[camera]
            .submit(lambda: stack(fitted(track.frames(spans)), count, where, check))
            .result
        )

    def _decode(self, cell: object) -> Picture:
        return fit(decode_image(stored_image(self._folder, cell)), self._size)

    def _decode_depth(self, cell: object) -> Picture:
        return fit(decode_depth(stored_image(self._folder, cell)), None)

    def _fitted(
        self, size: tuple[int, int], frames: Iterator[UInt8[np.ndarray, "h w 3"]]
    ) -> Iterator[Picture]:
        """Yield decoded frames, resized in the pool; what goes wrong is raised at its frame's place."""
        waiting: deque[Future[list[Picture]]] = deque()
        alike: list[np.ndarray] = []
        failed: FrameError | None = None

        def hand_over() -> None:
            if alike:
                waiting.append(self._pool.submit(fit_alike, tuple(alike), size))
                alike.clear()

        try:
            for frame in frames:
                if frame.shape[:2] == size:
                    hand_over()
                    yield from _results(waiting)
                    yield fit(frame, None)
                    continue
                if len(alike) == RESIZED_TOGETHER or (alike and alike[0].shape != frame.shape):
                    hand_over()
                alike.append(frame)
                if len(waiting) > MOST_WAITING:
                    yield from waiting.popleft().result()
        except FrameError as error:
            failed = error
        hand_over()
        yield from _results(waiting)
        if failed is not None:
            raise failed


def _as_they_are(frames: Iterator[np.ndarray]) -> Iterator[Picture]:
    return (fit(frame, None) for frame in frames)


def _results(waiting: deque[Future[list[Picture]]]) -> Iterator[Picture]:
    while waiting:
        yield from waiting.popleft().result()


def missing_video(name: str) -> str:
    """Say that a file is not there, and what helps."""
    return f"{name} is missing; download the rest, or leave that camera out: --set dataset.cameras=[…]"


class VideoTrack:
    """One camera; keeps the file open that it is in, so that a pass decodes every file once.

    Args:
        folder: the dataset.
        timing: which frame is meant.
        threads: that decode a file; 0 lets FFmpeg choose.
        depth: it shows distances, not colours.
    """

    def __init__(
        self, folder: DatasetFolder, timing: Timing, threads: int = 0, *, depth: bool = False
    ) -> None:
        self._folder, self._timing, self._threads, self._depth = folder, timing, threads, depth
        self._name = ""
        self._file: VideoFile | None = None

    def frames(self, spans: Sequence[tuple[VideoSpan, range]]) -> Iterator[np.ndarray]:
        """Yield frames as `VideoFile.frames_at` does, given as frame numbers within episodes.

        Raises:
            DatasetError: a file is missing, or leads out of the dataset.
            FrameError: a frame is missing or cannot be decoded.
        """
        for span, frames in spans:
            video = self._open(span.file)
            shown_s = video.shown_s if self._timing.align == "index" else None
            times_s = self._timing.due_s(span, np.arange(frames.start, frames.stop), shown_s)
            yield from video.frames_at(times_s.tolist(), self._timing.tolerance_s)

    def close(self) -> None:
        """Close the file that is open, if any."""
        if self._file is not None:
            self._file.close()
        self._file, self._name = None, ""

    def _open(self, name: str) -> VideoFile:
        if self._file is None or name != self._name:
            self.close()
            if not self._folder.has(name):
                raise FrameError(f"cannot be read: {missing_video(name)}")
            path = self._folder.file(name)
            self._file, self._name = VideoFile(path, self._threads, depth=self._depth), name
        return self._file
