"""Write mp4 videos that browsers play."""

from pathlib import Path
from types import TracebackType

import av
import numpy as np
from jaxtyping import UInt8

QUALITY = "23"


class VideoWriter:
    """Encode frames as H.264 while they come; a context manager.

    Args:
        path: the mp4 file.
        fps: frames a second.
    """

    def __init__(self, path: Path, fps: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._container = av.open(str(path), "w")
        self._stream = self._container.add_stream("h264", rate=fps, options={"crf": QUALITY})
        # yuv420p is the one pixel format that every browser decodes; it needs even sizes.
        self._stream.pix_fmt = "yuv420p"
        self._sized = False

    def add(self, frame: UInt8[np.ndarray, "h w 3"]) -> None:
        """Append an RGB frame; an odd last row or column is cut off."""
        height, width = frame.shape[0] // 2 * 2, frame.shape[1] // 2 * 2
        if not self._sized:
            self._stream.height, self._stream.width = height, width
            self._sized = True
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame[:height, :width]), format="rgb24")
        self._container.mux(self._stream.encode(picture))

    def close(self) -> None:
        """Finish the file."""
        if self._sized:
            self._container.mux(self._stream.encode())
        self._container.close()

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
