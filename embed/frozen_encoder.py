"""An encoder at work, in stage one and live: device, forward passes, uploads, memory and compiling.

Frames are cut into passes as they lie: those of the first camera, then those of the second, and so on; the
last digits of a feature depend on which frames share its pass, so nothing else may decide that.
"""

import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from vla.base.compiling import Compile, compile_module
from vla.base.device import choose_device
from vla.base.errors import EncoderError
from vla.base.progress import say
from vla.cache.metadata import EncoderIdentity
from vla.cache.stream import Stream
from vla.embed.encoders.encoder import Encoder, EncoderConfig
from vla.embed.transforms import resize

Rows = dict[str, range]
"""Which rows of each camera."""
Views = Mapping[str, UInt8[np.ndarray, "_n h w 3"]]


class FrozenEncoder:
    """An encoder that is never trained, on its device.

    Args:
        encoder: any; it is put into eval mode and moved.
        device: where it runs.
        batch_size: images a forward pass; 0 takes the encoder's own.
        compiling: how it is compiled; see `vla.base.compiling`.

    Attributes:
        encoder: the encoder itself.
        dataset_image_resize_shape: None; dataset frames are stored at the encoder's size, readers do
            not resize them.
    """

    dataset_image_resize_shape: None = None

    def __init__(
        self, encoder: Encoder, *, device: torch.device, batch_size: int = 0, compiling: Compile = "off"
    ) -> None:
        self.encoder: Encoder = encoder.eval().requires_grad_(False).to(device=device)
        self.device, self.batch_size = device, batch_size or encoder.images_a_pass(device)
        self._pads = compiling != "off"
        self._streams: list[torch.cuda.Stream] = []
        self._compiled: set[int] = set()
        self._compiling, self._halving = threading.Lock(), threading.Lock()
        compile_module(self.encoder, compiling)

    @classmethod
    def load(cls, config: EncoderConfig, cameras: tuple[str, ...]) -> "FrozenEncoder":
        """Load the encoder that a configuration names.

        Args:
            config: which, and how it runs.
            cameras: that it reads, in order.

        Raises:
            EncoderError: its weights cannot be reached or are not what they should be.
        """
        device = choose_device(config.device)
        encoder = config.build(cameras, device)
        return cls(encoder, device=device, batch_size=config.batch_size, compiling=config.compile)

    @property
    def identity(self) -> EncoderIdentity:
        return self.encoder.identity

    @property
    def reads(self) -> tuple[str, ...]:
        """Cameras, in order."""
        return self.encoder.reads

    @property
    def writes(self) -> tuple[Stream, ...]:
        return self.encoder.writes

    @property
    def num_weights(self) -> int:
        return sum(parameter.numel() for parameter in self.encoder.parameters())

    @property
    def eval_image_resize_shape(self) -> tuple[int, int]:
        """(height, width) [pixel] that larger live renders are resized to."""
        return self.encoder.image_size

    @torch.inference_mode()
    def encode(self, observation: Mapping[str, UInt8[np.ndarray, "n _h _w 3"]]) -> dict[str, Tensor]:
        """Encode the same instants seen by all cameras; frames may have any size.

        Returns:
            Each stream that the encoder writes [n, *shape], on its device.
        """
        views = {camera: resize(observation[camera], self.encoder.image_size) for camera in self.reads}
        parts: dict[str, list[Tensor]] = {stream.name: [] for stream in self.writes}
        for _, results in self._results(views, {camera: range(len(v)) for camera, v in views.items()}):
            for name, result in results.items():
                parts[name].append(result)
        # A copy, even of a single part: a CUDA graph writes its next result to the same memory.
        return {name: torch.cat(results) for name, results in parts.items()}

    @torch.inference_mode()
    def encode_into(self, views: Views, rows: Rows, out: Mapping[str, np.ndarray]) -> None:
        """Encode some rows of frames of the encoder's size, and write each result to its row of an array.

        May be called from several threads: on a GPU each works on a stream of its own, so that one uploads
        while another computes. A batch that there is no memory for is halved, for this call and all later.

        Args:
            views: frames of each camera.
            rows: which of them; see `passes`.
            out: an array of each stream that the encoder writes, with as many rows as the cameras have.
        """
        with self._stream():
            for part, results in self._results(views, rows):
                for name, result in results.items():
                    here = part[self._rows_of(name)]
                    torch.from_numpy(out[name][here.start : here.stop]).copy_(result)

    def passes(self, rows: Rows) -> Iterator[Rows]:
        """Cut rows of cameras into forward passes, in order; the last may be smaller.

        A joint encoder's hold the same rows of all cameras. Any other's hold so many images, camera after
        camera: where one ends in the middle of a pass, the next goes on.
        """
        size = self.batch_size
        if self.encoder.joint:
            whole, step = next(iter(rows.values())), max(1, size // len(rows))
            for start in range(whole.start, whole.stop, step):
                yield dict.fromkeys(rows, range(start, min(start + step, whole.stop)))
            return
        part: Rows = {}
        room = size
        for camera, whole in rows.items():
            start = whole.start
            while start < whole.stop:
                part[camera] = range(start, min(start + room, whole.stop))
                start, room = part[camera].stop, room - len(part[camera])
                if not room:
                    yield part
                    part, room = {}, size
        if part:
            yield part

    def forward(self, views: Views) -> dict[str, Tensor]:
        """Encode frames of the encoder's size in one pass, however many they are.

        Raises:
            RuntimeError: the device has no memory for so many; torch.OutOfMemoryError on a GPU.
        """
        images: dict[str, Tensor] = {}
        for camera, frames in views.items():  # copied on a CPU only if they are a flipped view
            host = torch.from_numpy(np.ascontiguousarray(frames))
            # Only page-locked memory is uploaded beside other work.
            host = host.pin_memory() if self.device.type == "cuda" else host
            images[camera] = host.to(self.device, non_blocking=True)
        rows = max(map(len, images.values())) if self.encoder.joint else sum(map(len, images.values()))
        if self._pads:
            missing, rows = padded_size(rows) - rows, padded_size(rows)
            for camera in images if self.encoder.joint else list(images)[-1:]:
                images[camera] = torch.cat([images[camera], images[camera][-1:].expand(missing, -1, -1, -1)])
        with self._first_pass(rows):
            results = self.encoder.encode(images)
        return {name: result[: len(views[self._rows_of(name)])] for name, result in results.items()}

    def forget_passes(self) -> None:
        """Take no number of rows for compiled any more."""
        self._compiled.clear()

    def _results(self, views: Views, rows: Rows) -> Iterator[tuple[Rows, dict[str, Tensor]]]:
        """Yield pass after pass, smaller ones once the device has no memory for more."""
        waiting = deque(self.passes(rows))
        while waiting:
            part, size = waiting.popleft(), self.batch_size
            try:
                results = self.forward({name: views[name][r.start : r.stop] for name, r in part.items()})
            except RuntimeError as error:  # torch.OutOfMemoryError is one
                if not _is_out_of_memory(error):
                    raise
                self._halve_batch(size)
                waiting.extendleft(reversed(list(self.passes(part))))
                continue
            yield part, results

    def _rows_of(self, stream: str) -> str:
        """Return the camera whose rows are those of a stream; of a joint encoder's, all are."""
        return self.reads[0] if self.encoder.joint else stream

    @contextmanager
    def _stream(self) -> Iterator[None]:
        """Work on a stream that no other thread has; they are kept, because memory is kept for each."""
        if self.device.type != "cuda":
            yield
            return
        try:
            stream = self._streams.pop()
        except IndexError:
            stream = torch.cuda.Stream(self.device)
            stream.wait_stream(torch.cuda.current_stream(self.device))  # which has moved the weights
        try:
            with torch.cuda.stream(stream):
                yield
        finally:
            self._streams.append(stream)

    @contextmanager
    def _first_pass(self, rows: int) -> Iterator[None]:
        """Let one thread compile the encoder for a number of rows: two at a time would both do it."""
        if not self._pads or rows in self._compiled:
            yield
            return
        with self._compiling:
            yield
            self._compiled.add(rows)

    def _halve_batch(self, full: int) -> None:
        """Go on with half as many images a pass, and say so.

        Args:
            full: images a pass that there is no memory for; if another thread has found that out and
                halved already, nothing is left to do.

        Raises:
            EncoderError: there is no memory for a single one.
        """
        if full <= (len(self.reads) if self.encoder.joint else 1):
            raise EncoderError(
                f"{self.device} has no memory for a single image of {self.identity.id}; free some, or choose "
                "another device: --device cpu"
            )
        with self._halving:
            if self.batch_size < full:
                return
            self.batch_size = full // 2
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        say(
            f"out of memory at {full} images a pass; going on with {self.batch_size}, "
            f"next time: --set encoder.batch_size={self.batch_size}"
        )


def _is_out_of_memory(error: RuntimeError) -> bool:
    """Tell; on the CPU torch raises a plain RuntimeError that only its text gives away."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def padded_size(images: int) -> int:
    """Return how many images a compiled pass of so many takes: four sizes an octave, up to a quarter more.

    Each size is compiled by itself, which takes tens of seconds.
    """
    step = 1 << max(0, images.bit_length() - 3)
    return -(-images // step) * step
