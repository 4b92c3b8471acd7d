"""The frozen vision encoder: uint8 frames in, one feature vector a view out.

Each view is encoded independently by one shared tower, in eval mode and without gradients.
Stage one and the live policy both come through `FrozenEncoder.encode`.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float16, UInt8
from torch import nn
from transformers import SiglipVisionConfig, SiglipVisionModel

from vla.base.compiling import Compile, compile_module
from vla.base.device import choose_device, choose_dtype
from vla.base.errors import EncoderError
from vla.base.progress import say
from vla.cache.metadata import EncoderIdentity, Preprocessing
from vla.embed.encoders.encoder_config import EncoderConfig
from vla.embed.encoders.pooling import num_tokens, pool
from vla.embed.encoders.siglip_activations import lay_out_activations
from vla.embed.encoders.siglip_checkpoint import load_checkpoint, uses_head, weights_sha256
from vla.embed.preprocess import normalise, resize

CPU_BATCH, GPU_BATCH = 8, 512
SMALL_TOWER_BATCH, SMALL_TOWER_BYTES = 16, 1 << 18
"""What a CPU core is quickest with depends on its cache: 8 images of SigLIP2-base, whose widest activation is
3 MB each (16: 0.96 of the rate), and 16 of a tower with up to 256 kB (8: 0.93; 4 and 64 are slower)."""


class FrozenEncoder:
    """A SigLIP vision tower that is never trained.

    Args:
        model: the tower; called with `pixel_values`, answers with `pooler_output`.
        preprocessing: size, mean and std of its input.
        identity: what it is called in caches and policies.
        device: where it runs.
        batch_size: images a forward pass.
        compiling: how the tower is compiled; see `vla.base.compiling`.

    Attributes:
        dataset_image_resize_shape: None; dataset frames are stored at the encoder's size, readers do
            not resize them.
        eval_image_resize_shape: (height, width) [pixel] that larger live renders are resized to.
        output_dim: length of a view's feature vector.
    """

    dataset_image_resize_shape: None = None

    def __init__(
        self,
        model: nn.Module,
        preprocessing: Preprocessing,
        identity: EncoderIdentity,
        *,
        device: torch.device,
        batch_size: int = CPU_BATCH,
        compiling: Compile = "off",
    ) -> None:
        self.preprocessing, self.identity = preprocessing, identity
        self.device, self.batch_size = device, batch_size
        self._dtype: torch.dtype = getattr(torch, identity.dtype)
        self._model = model.eval().requires_grad_(False).to(device=device, dtype=self._dtype)
        lay_out_activations(self._model)
        self._pads = compiling != "off"
        self._streams: list[torch.cuda.Stream] = []
        self._compiled: set[int] = set()
        self._compiling, self._halving = threading.Lock(), threading.Lock()
        compile_module(self._model, compiling)

    @classmethod
    def load(cls, config: EncoderConfig) -> "FrozenEncoder":
        """Load the encoder that a configuration names.

        Raises:
            EncoderError: its weights cannot be reached or are not a SigLIP vision tower's.
        """
        checkpoint = load_checkpoint(config.id, config.revision)
        device = choose_device(config.device)
        model: SiglipVisionModel = checkpoint.model
        if config.pool == "pooled" and not uses_head(model):
            raise EncoderError(
                f"{config.id} has no pooling head, so no pooler_output; use --pool mean or another checkpoint"
            )
        identity = EncoderIdentity(
            id=config.id,
            revision=checkpoint.commit,
            weights_sha256=weights_sha256(model),
            pooling=config.pool,
            dtype=choose_dtype(config.dtype, device),
            feature_dim=model.config.hidden_size,
            tokens=num_tokens(config.pool, (model.config.image_size // model.config.patch_size) ** 2),
        )
        batch_size = config.batch_size or images_a_pass(model.config, device)
        return cls(
            model,
            checkpoint.preprocessing,
            identity,
            device=device,
            batch_size=batch_size,
            compiling=config.compile,
        )

    @property
    def tower(self) -> nn.Module:
        """The vision tower: called with normalised `pixel_values`, for those who build graphs of it."""
        return self._model

    @property
    def eval_image_resize_shape(self) -> tuple[int, int]:
        return self.preprocessing.image_size

    @property
    def output_dim(self) -> int:
        return self.identity.feature_dim

    @torch.inference_mode()
    def encode(self, frames: UInt8[np.ndarray, "n h w 3"]) -> Float16[np.ndarray, "n tokens dim"]:
        """Encode frames of any size; they may come from different cameras.

        On a GPU calls from several threads work on streams of their own: while one computes, another may
        upload. A batch that there is no memory for is halved, for this call and all that follow.
        """
        frames = resize(frames, self.preprocessing.image_size)
        outputs: list[torch.Tensor] = []
        start = 0
        while start < len(frames):
            size = self.batch_size
            try:
                outputs.append(self.forward(frames[start : start + size]))
            except RuntimeError as error:  # torch.OutOfMemoryError is one
                if not _is_out_of_memory(error):
                    raise
                self._halve_batch(size)
                continue
            start += len(outputs[-1])
        return torch.cat(outputs).numpy()

    def join(self, pieces: Sequence[UInt8[np.ndarray, "_n h w 3"]]) -> UInt8[np.ndarray, "n h w 3"]:
        """Return frames of one size as one array; a single one is copied only if it is a flipped view.

        For a GPU it is page-locked, so that `forward` uploads it as it lies.
        """
        if len(pieces) == 1:
            return np.ascontiguousarray(pieces[0])
        rows = sum(len(piece) for piece in pieces)
        gpu = self.device.type == "cuda"
        joined = torch.empty((rows, *pieces[0].shape[1:]), dtype=torch.uint8, pin_memory=gpu).numpy()
        return np.concatenate(pieces, out=joined)

    @torch.inference_mode()
    def forward(self, frames: UInt8[np.ndarray, "n h w 3"]) -> Float16[torch.Tensor, "n tokens dim"]:
        """Encode frames of the encoder's size in one pass, however many they are.

        Raises:
            RuntimeError: the device has no memory for so many; torch.OutOfMemoryError on a GPU.
        """
        rows = padded_size(len(frames)) if self._pads else len(frames)
        with self._stream(), self._first_pass(rows):
            batch = torch.from_numpy(frames)
            if self.device.type == "cuda":
                # Only page-locked memory is uploaded beside other work; what is so already is not copied.
                batch = batch.pin_memory()
            batch = batch.to(self.device, non_blocking=True)
            if rows > len(frames):  # as bytes: padded floats would lie in memory in another order than others
                batch = torch.cat([batch, batch[-1:].expand(rows - len(frames), -1, -1, -1)])
            pixels = normalise(batch, self.preprocessing).to(self._dtype)
            tokens = pool(self._model(pixel_values=pixels), self.identity.pooling)[: len(frames)]
            return tokens.to(torch.float16).cpu()

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
        """Let one thread compile the tower for a number of rows: two at a time would both do it."""
        if not self._pads or rows in self._compiled:
            yield
            return
        with self._compiling:
            yield
            self._compiled.add(rows)

    def forget_passes(self) -> None:
        """Take no number of rows for compiled any more."""
        self._compiled.clear()

    def _halve_batch(self, full: int) -> None:
        """Go on with half as many images a pass, and say so.

        Args:
            full: images a pass that there is no memory for; if another thread has found that out and
                halved already, nothing is left to do.

        Raises:
            EncoderError: there is no memory for a single one.
        """
        if full == 1:
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

    def encode_views(
        self, images: dict[str, UInt8[np.ndarray, "n _h _w 3"]]
    ) -> dict[str, Float16[np.ndarray, "n tokens dim"]]:
        """Encode the same instants seen by several cameras, in one pass.

        Cameras may differ in size; every view is a row of the batch, so views never meet.
        """
        resized = [resize(frames, self.preprocessing.image_size) for frames in images.values()]
        features = self.encode(self.join(resized))
        return dict(zip(images, np.split(features, len(images)), strict=True))


def images_a_pass(tower: SiglipVisionConfig, device: torch.device) -> int:
    """Return how many images a forward pass takes, where it is not configured."""
    if device.type != "cpu":
        return GPU_BATCH
    patches = (tower.image_size // tower.patch_size) ** 2
    widest = 4 * patches * tower.intermediate_size
    return SMALL_TOWER_BATCH if widest <= SMALL_TOWER_BYTES else CPU_BATCH


def _is_out_of_memory(error: RuntimeError) -> bool:
    """Tell; on the CPU torch raises a plain RuntimeError that only its text gives away."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def padded_size(images: int) -> int:
    """Return how many images a compiled pass of so many takes: four sizes an octave, up to a quarter more.

    Each size is compiled by itself, which takes tens of seconds.
    """
    step = 1 << max(0, images.bit_length() - 3)
    return -(-images // step) * step
