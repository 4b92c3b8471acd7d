"""Decode the frames of an mp4 file that belong to given instants, exactly and forward.

A frame belongs to an instant when its own presentation time lies within a tolerance of less than half a
frame period, so there is never a choice. Reading goes on from where it is when the next frame lies ahead, and
jumps to the keyframe before it when it does not; what comes out does not depend on which it was.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from jaxtyping import UInt8

from vla.embed.datasets.images import MAX_PIXELS, FrameError, check_size

JUMP_S = 2.0
"""Frames up to so far ahead are decoded and dropped; beyond, seeking is cheaper."""
BACK_OFF_S = (0.0, 1.0, 10.0)
"""Seeking may land behind what was asked, as with open groups of pictures; then try further back."""


@dataclass(frozen=True)
class VideoSpan:
    """The part of a video file that shows one episode."""

    file: str
    """Relative to the dataset."""
    start_s: float
    """Time of the episode's first frame on the file's clock [s]."""


class VideoFile:
    """One mp4 file; a position in it.

    Args:
        path: an absolute path: FFmpeg would take other strings for protocols.
        threads: that decode it; 0 lets FFmpeg choose.

    Raises:
        FrameError: it is no video that can be decoded, or its frames are absurdly large.
    """

    def __init__(self, path: Path, threads: int = 0) -> None:
        try:
            # The demuxer is named: guessing would also accept playlists, which name further files and hosts.
            self._container = av.open(str(path), format="mp4")
        except (av.FFmpegError, OSError) as error:
            raise FrameError(f"is no mp4 video ({_reason(error)})") from error
        try:
            if not self._container.streams.video:
                raise FrameError("has a file without a video stream")
            self._stream = self._container.streams.video[0]
            check_size(self._stream.codec_context.width, self._stream.codec_context.height)
            # The header's size is what it claims; this holds for every frame.
            self._stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
            self._stream.thread_type = "AUTO"
            self._stream.codec_context.thread_count = threads
        except FrameError:
            self.close()
            raise
        # One for all frames: each frame's own would set up its conversion anew, half the time of decoding.
        self._converter = VideoReformatter()
        self._decoder = self._decode()
        self._ahead: av.VideoFrame | None = None
        self._position_s = 0.0
        self._jumped = False

    def frames_at(self, times_s: Sequence[float], tolerance_s: float) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
        """Yield the RGB frames shown at these instants.

        Args:
            times_s: instants on the file's own clock [s].
            tolerance_s: a frame's time may differ by so much [s].

        Raises:
            FrameError: there is no frame at an instant, or it cannot be decoded.
        """
        for time_s in times_s:
            frame = self._find(time_s, tolerance_s)
            # One thread: FFmpeg's own choice starts some for every file, and is slower (22 against 70 us).
            yield self._converter.reformat(frame, format="rgb24", threads=1).to_ndarray()

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def _find(self, time_s: float, tolerance_s: float) -> av.VideoFrame:
        if not self._position_s - tolerance_s <= time_s <= self._position_s + JUMP_S:
            self._jump(time_s, tolerance_s)
        frame = self._advance(time_s - tolerance_s)
        if self._jumped and (frame is None or frame.time > time_s + tolerance_s):
            # Frames that precede a keyframe may be missing after a jump; from the start there are all.
            self._seek(0.0)
            self._jumped = False
            frame = self._advance(time_s - tolerance_s)
        if frame is None:
            raise FrameError(f"is missing: the video ends before {time_s:.4f} s")
        if frame.time > time_s + tolerance_s:
            raise FrameError(
                f"is missing: the video has no frame within {tolerance_s:g} s of {time_s:.4f} s, the next "
                f"is at {frame.time:.4f} s; if that is meant, raise --set dataset.tolerance_s=…"
            )
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
        self._decoder, self._ahead, self._position_s = self._decode(), None, 0.0

    def _advance(self, earliest_s: float) -> av.VideoFrame | None:
        """Decode until a frame is not earlier than an instant; None at the end of the file."""
        while self._ahead is None or self._ahead.time < earliest_s:
            self._ahead = next(self._decoder, None)
            self._position_s = float("inf") if self._ahead is None else self._ahead.time
            if self._ahead is None:
                return None
        return self._ahead

    def _decode(self) -> Iterator[av.VideoFrame]:
        """Yield intact frames in the order of their times."""
        try:
            for frame in self._container.decode(self._stream):
                if frame.pts is not None and not frame.is_corrupt:
                    yield frame
        except (av.FFmpegError, OSError) as error:
            raise FrameError(f"cannot be decoded ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
