"""Decode the frames of an mp4 file that belong to given instants, exactly and forward.

The frame of an instant is the one whose own presentation time is nearest to it, and it must lie within a
tolerance. Reading goes on from where it is when the next frame lies ahead, and jumps to the keyframe before
it when it does not; what comes out does not depend on which it was.

A frame that its file's display matrix turns is turned, as FFmpeg's own programs do. Damage is an error: the
decoder is told to stop at what it cannot read, instead of making up for it. A stream without checksums cannot
show every damage: where other bytes are as valid as the right ones, nobody can tell.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from jaxtyping import Float32, Float64, Int, UInt8

from vla.embed.datasets.images import MAX_PIXELS, FrameError, check_size

JUMP_S = 2.0
"""Frames up to so far ahead are decoded and dropped; beyond, seeking is cheaper."""
DEPTH_FORMATS = (
    "gray9le",
    "gray10le",
    "gray12le",
    "gray14le",
    "gray16le",
    "gray16be",
    "gray12be",
    "gray10be",
)
"""Pixel formats of one channel with more than 8 bits."""
BACK_OFF_S = (0.0, 1.0, 10.0)
"""Seeking may land behind what was asked, as with open groups of pictures; then try further back."""


@dataclass(frozen=True)
class VideoSpan:
    """The part of a video file that shows one episode."""

    file: str
    """Relative to the dataset."""
    start_s: float
    """Time of the episode's first frame on the file's clock [s]."""


@dataclass(frozen=True)
class Timing:
    """Which frame of a video belongs to which frame of an episode."""

    fps: float
    """Frames a second."""
    tolerance_s: float
    """How far a frame's time may lie from its due time [s]."""
    align: Literal["time", "index"] = "time"
    """time: frame k is due at k / fps. index: it is the k-th of the video, whenever that is shown."""

    def due_s(
        self, span: VideoSpan, frames: Int[np.ndarray, "n"], shown_s: Float64[np.ndarray, "m"] | None
    ) -> Float64[np.ndarray, "n"]:
        """Return when frames of an episode are shown [s]; infinite beyond the end of the video.

        Args:
            span: the episode's part of the file.
            frames: their numbers within the episode.
            shown_s: times of all frames of the file, in order; needed by index.
        """
        if shown_s is None:
            return span.start_s + frames / self.fps
        first = int(np.searchsorted(shown_s, span.start_s - 0.5 / self.fps))
        return np.append(shown_s, np.inf)[np.minimum(first + frames, len(shown_s))]


class VideoFile:
    """One mp4 file; a position in it.

    Args:
        path: an absolute path: FFmpeg would take other strings for protocols.
        threads: that decode it; 0 lets FFmpeg choose.
        depth: it shows distances, which are handed out as they are stored.

    Raises:
        FrameError: it is no video that can be decoded, or its frames are absurdly large.
    """

    def __init__(self, path: Path, threads: int = 0, *, depth: bool = False) -> None:
        self._path, self._depth = path, depth
        # One for all frames: each frame's own would set up its conversion anew, half the time of decoding.
        self._converter = VideoReformatter()
        self._open(threads)

    def _open(self, threads: int) -> None:
        try:
            # The demuxer is named: guessing would also accept playlists, which name further files and hosts.
            self._container = av.open(str(self._path), format="mp4")
        except (av.FFmpegError, OSError) as error:
            raise FrameError(f"is no mp4 video ({_reason(error)})") from error
        try:
            if not self._container.streams.video:
                raise FrameError("has a file without a video stream")
            self._stream = self._container.streams.video[0]
            check_size(self._stream.codec_context.width, self._stream.codec_context.height)
            # The header's size is what it claims; max_pixels holds for every frame.
            options = {"max_pixels": str(MAX_PIXELS), "err_detect": "explode"}
            self._stream.codec_context.options = options
            self._stream.thread_type = "AUTO"
            self._stream.codec_context.thread_count = threads
        except FrameError:
            self.close()
            raise
        self._threads = threads
        self._decoder = self._decode()
        self._ahead: av.VideoFrame | None = None
        self._further: av.VideoFrame | None = None
        self._damage = ""
        self._position_s = 0.0
        self._jumped = False

    def frames_at(
        self, times_s: Sequence[float], tolerance_s: float
    ) -> Iterator[UInt8[np.ndarray, "h w 3"] | Float32[np.ndarray, "h w 1"]]:
        """Yield the frames shown at these instants: RGB, or distances as they are stored.

        Args:
            times_s: instants on the file's own clock [s].
            tolerance_s: a frame's time may differ by so much [s].

        Raises:
            FrameError: there is no frame at an instant, or it cannot be decoded.
        """
        for time_s in times_s:
            if math.isinf(time_s):
                raise FrameError(f"is missing: the video has {len(self.shown_s)} frames")
            frame = self._find(time_s, tolerance_s)
            yield turned(self._distances(frame) if self._depth else self._colours(frame), frame.rotation)

    @cached_property
    def shown_s(self) -> Float64[np.ndarray, "frames"]:
        """When each frame is shown, in order [s]; read from the packets, nothing is decoded."""
        times = []
        try:
            self._container.seek(0)
            for packet in self._container.demux(self._stream):
                if packet.pts is not None and packet.size and not packet.is_discard:
                    times.append(float(packet.pts * packet.time_base))
        except (av.FFmpegError, OSError) as error:
            raise FrameError(f"cannot be decoded ({_reason(error)})") from error
        self._seek(0.0)
        return np.sort(np.array(times, np.float64))

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def _colours(self, frame: av.VideoFrame) -> UInt8[np.ndarray, "h w 3"]:
        if frame.format.name in DEPTH_FORMATS:
            raise FrameError(
                f"is a depth map ({frame.format.name}), not a colour image; leave it out of the cameras"
            )
        # One thread: FFmpeg's own choice starts some for every file, and is slower (22 against 70 us).
        return self._converter.reformat(frame, format="rgb24", threads=1).to_ndarray()

    def _distances(self, frame: av.VideoFrame) -> Float32[np.ndarray, "h w 1"]:
        if frame.format.name not in (*DEPTH_FORMATS, "gray"):
            raise FrameError(f"is no depth map: it has colours ({frame.format.name})")
        return frame.to_ndarray().astype(np.float32)[..., None]

    def _find(self, time_s: float, tolerance_s: float) -> av.VideoFrame:
        if not self._position_s - tolerance_s <= time_s <= self._position_s + JUMP_S:
            self._jump(time_s, tolerance_s)
        frame = self._nearest(time_s, tolerance_s)
        if self._jumped and (frame is None or frame.time > time_s + tolerance_s):
            # Frames that precede a keyframe may be missing after a jump; from the start there are all.
            self._seek(0.0)
            self._jumped = False
            frame = self._nearest(time_s, tolerance_s)
        if self._damage and (frame is None or frame.time > time_s + tolerance_s):
            if self._threads != 1:  # several threads lose the intact frames that are just before the damage
                self.close()
                self._open(1)
                return self._find(time_s, tolerance_s)
            raise FrameError(
                f"cannot be decoded: the video is damaged there ({self._damage}); copy the file anew, or "
                "leave the episode out: --set dataset.episodes=[…]"
            )
        if frame is None:
            raise FrameError(f"is missing: the video ends before {time_s:.4f} s")
        if frame.time > time_s + tolerance_s:
            raise FrameError(
                f"is missing: the video has no frame within {tolerance_s:g} s of {time_s:.4f} s, the next "
                f"is at {frame.time:.4f} s; if that is meant, raise --set dataset.tolerance_s=…, or take row "
                "k as frame k: --set dataset.align=index"
            )
        return frame

    def _nearest(self, time_s: float, tolerance_s: float) -> av.VideoFrame | None:
        """Return the frame nearest to an instant, of those not too early; None at the end of the file."""
        frame = self._advance(time_s - tolerance_s)
        tick_s = float(self._stream.time_base or 0)
        while frame is not None and frame.time < time_s - tick_s:
            following = self._peek()
            if following is None or following.time - time_s >= time_s - frame.time:
                break
            frame = self._advance(following.time)
        return frame

    def _jump(self, time_s: float, tolerance_s: float) -> None:
        """Go to a keyframe before an instant."""
        for back_s in BACK_OFF_S:
            self._seek(max(0.0, time_s - back_s))
            self._jumped = True
            frame = self._advance(float("-inf"))
            if frame is not None and frame.time <= time_s + tolerance_s:
                return
        self._seek(0.0)
        self._jumped = False

    def _seek(self, time_s: float) -> None:
        try:
            self._container.seek(int(time_s / self._stream.time_base), stream=self._stream)
        except (av.FFmpegError, OSError) as error:
            raise FrameError(f"cannot be decoded ({_reason(error)})") from error
        self._decoder, self._ahead, self._further = self._decode(), None, None
        self._position_s, self._damage = 0.0, ""

    def _advance(self, earliest_s: float) -> av.VideoFrame | None:
        """Decode until a frame is not earlier than an instant; None at the end of the file."""
        while self._ahead is None or self._ahead.time < earliest_s:
            self._ahead, self._further = self._peek(), None
            self._position_s = float("inf") if self._ahead is None else self._ahead.time
            if self._ahead is None:
                return None
        return self._ahead

    def _peek(self) -> av.VideoFrame | None:
        """Return the frame after the current one; None at the end of what can be decoded."""
        if self._further is None:
            self._further = next(self._decoder, None)
        return self._further

    def _decode(self) -> Iterator[av.VideoFrame]:
        """Yield intact frames in the order of their times; note the damage that ends them or is left out."""
        try:
            for frame in self._container.decode(self._stream):
                if frame.is_corrupt:
                    self._damage = "a frame is incomplete"
                elif frame.pts is not None:
                    yield frame
        except (av.FFmpegError, OSError) as error:
            self._damage = _reason(error)


def turned(frame: np.ndarray, degrees: int) -> np.ndarray:
    """Turn a frame as its file says.

    Args:
        frame: as it is stored, [height, width, channels].
        degrees: counterclockwise, a multiple of 90.

    Raises:
        FrameError: another angle.
    """
    if degrees % 90:
        raise FrameError(
            f"is to be turned by {degrees} degrees; vla turns by multiples of 90, encode it upright"
        )
    return np.ascontiguousarray(np.rot90(frame, degrees // 90)) if degrees % 360 else frame


def _reason(error: Exception) -> str:
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return said.splitlines()[0] if said else type(error).__name__
