"""Decode the images of several blocks at a time: begin, go on to the next block, and wait only then.

Single images share a pool. The videos of a camera have a thread of their own, in which block after block is
decoded: no file is read twice, and no camera waits for another at the end of a block.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import UInt8

from vla.embed.datasets.folder import DatasetFolder
from vla.embed.datasets.images import decode_image, stack
from vla.embed.datasets.lerobot.places import VideoSpan
from vla.embed.datasets.video_track import VideoTrack

Decoded = Callable[[], UInt8[np.ndarray, "n h w 3"]]
"""Waits for the frames of one camera in a block, RGB; raises DatasetError if one cannot be decoded."""
Where = Callable[[int], str]
"""Names camera, episode and frame of a block's k-th frame, for messages."""
MOST_THREADS = 16


class Decoders:
    """The threads and open files of one pass through a dataset; a context manager.

    Args:
        folder: the dataset.
        tolerance_s: how far a video's frame may lie from its due time [s].
        video_cameras: those that have videos.
        workers: threads for single images; videos share as many, at least one a camera.
    """

    def __init__(
        self, folder: DatasetFolder, tolerance_s: float, video_cameras: Iterable[str], workers: int
    ) -> None:
        cameras = list(video_cameras)
        # More threads than cores only get in each other's way, and FFmpeg advises no more than 16 a file.
        each = min(MOST_THREADS, max(1, workers // max(1, len(cameras))))
        self._tracks = {camera: VideoTrack(folder, tolerance_s, each) for camera in cameras}
        self._threads = {camera: ThreadPoolExecutor(1, f"video {camera}") for camera in self._tracks}
        self._pool = ThreadPoolExecutor(workers, "images")

    def __enter__(self) -> "Decoders":
        return self

    def __exit__(self, *_: object) -> None:
        pools = (self._pool, *self._threads.values())
        for pool in pools:  # nobody begins anything more, while one is waited for
            pool.shutdown(wait=False, cancel_futures=True)
        for pool in pools:
            pool.shutdown()
        for track in self._tracks.values():
            track.close()  # not if waiting was broken off: its thread may still read the file

    def begin_images(self, cells: Sequence[object], where: Where) -> Decoded:
        """Begin to decode encoded images."""
        images = self._pool.map(decode_image, cells)
        return lambda: stack(images, len(cells), where)

    def begin_video(
        self, camera: str, spans: Sequence[tuple[VideoSpan, range]], fps: float, where: Where
    ) -> Decoded:
        """Begin to decode a camera's next frames; see `VideoTrack.frames`."""
        track, count = self._tracks[camera], sum(len(frames) for _, frames in spans)
        return self._threads[camera].submit(lambda: stack(track.frames(spans, fps), count, where)).result
