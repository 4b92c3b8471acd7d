"""How fast is `vla embed`, next to what the encoder alone could do?

    python benchmarks/embed.py                   # on a CPU at reduced size, in at most 10 minutes
    python benchmarks/embed.py --device cuda     # at full size

engine        images/s from frames in memory to shards on disk, over a bare loop `model(x)` of the tower as
              transformers builds it, on one float batch that is on the device already, at that loop's best
              batch size
end to end    images/s from PNG and mp4 on disk, of the encoder's size and of 480 x 640 pixels, over the
              slower of decoding (with resizing) alone and encoding alone
scaling       memory and time of the command `vla embed` on datasets of three sizes

Encoders: the full-size SigLIP2-base (real shape, random weights) and the small one that comes with vla.
"""

import contextlib
import io
import json
import multiprocessing as mp
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import torch
from demonstrations import (
    FULL,
    SMALL,
    MemorySource,
    bare_tower,
    cache_spec,
    load_encoder,
    siglip,
    write_images,
    write_videos,
)
from measure import matrix_rate, paired_ratio, parser, rounded, save, synchronise, take_turns
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vla.base.compiling import Compile
from vla.base.interrupt import Signals
from vla.base.prefetch import prefetch
from vla.cache import CacheSpec
from vla.cache.part_writer import PartWriter
from vla.cli import main as main_of_vla
from vla.embed import DatasetConfig, FrozenEncoder
from vla.embed.batch_size import best_batch_size, block_frames, measured_rate
from vla.embed.datasets import FrameBlock, FrameSource, open_source
from vla.embed.encode import encode_shards

LARGE = (480, 640)
REDUCED = "fewer images; batches of at most 16; the full-size encoder's end to end from few frames"


class Sizes:
    """How much is measured."""

    def __init__(self, device: str, tiny: bool) -> None:
        gpu = device == "cuda"
        self.rounds = 1 if tiny else 3
        self.batches: tuple[int, ...] = (64, 128, 256, 512, 1024) if gpu else (8, 16)
        # Frames of three cameras a turn, by encoder.
        self.frames = {FULL: 8192 if gpu else 16, SMALL: 16_384 if gpu else 1536}
        self.disk_frames = {FULL: 4096 if gpu else 8, SMALL: 4096 if gpu else 400}
        self.large_frames = 1024 if gpu else 60
        """Of 480 x 640 pixels; a PNG of that size takes four times as long to write and to decode."""
        self.scaling = (600, 1200, 2400)
        if tiny:
            self.batches, self.scaling, self.large_frames = (4,), (20, 40, 60), 4
            self.frames, self.disk_frames = {FULL: 2, SMALL: 16}, {FULL: 2, SMALL: 16}


def main() -> None:
    arguments = parser(__doc__, "embed").parse_args()
    device = torch.device(arguments.device)
    sizes = Sizes(arguments.device, arguments.tiny)
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        most = max(sizes.disk_frames.values())
        disk = {
            "images": write_images(Path(folder) / "images", most),
            "mp4": write_videos(Path(folder) / "videos", most),
            "images_480x640": write_images(Path(folder) / "large images", sizes.large_frames, LARGE),
            "mp4_480x640": write_videos(Path(folder) / "large videos", sizes.large_frames, LARGE),
        }
        for name in (FULL, SMALL):
            figures[name] = encoder_figures(name, device, sizes)
            batch = figures[name]["engine"]["batch_size"]
            encoder = load_encoder(name, device, "on" if device.type == "cuda" else "off", batch)
            for kind, path in disk.items():
                source = open_source(DatasetConfig(path=str(path)))
                there = sizes.large_frames if kind.endswith("480x640") else most
                frames = range(min(sizes.disk_frames[name], there))
                figures[name][f"from_{kind}"] = end_to_end(source, frames, encoder, sizes.rounds)
            del encoder
            torch.compiler.reset()  # towers share their code, and so the number of shapes that are compiled
            save(arguments, "embed", figures, REDUCED, whole=False)
        if device.type == "cuda":
            torch.cuda.empty_cache()  # the command has a process of its own
        figures["scaling"] = scaling(Path(folder), sizes.scaling, arguments.device)
    save(arguments, "embed", figures, REDUCED)


def encoder_figures(name: str, device: torch.device, sizes: Sizes) -> dict[str, Any]:
    """Compare the engine with the bare loop, eager and, on a GPU, compiled."""
    gpu = device.type == "cuda"
    figures: dict[str, Any] = {}
    eager, tower = load_encoder(name, device), bare_tower(name, device)
    bare_rates = {size: bare_rate(tower, pixels_of(eager, size)) for size in sizes.batches}
    best = max(bare_rates, key=lambda size: bare_rates[size])
    chosen = best_batch_size(lambda size: measured_rate(eager, size)) if gpu else eager.batch_size
    figures["bare_images_per_s_by_batch"] = {str(k): rounded(v) for k, v in bare_rates.items()}
    compilings: tuple[Compile, ...] = ("off", "on") if gpu else ("off",)
    for compiling in compilings:
        encoder = load_encoder(name, device, compiling, chosen)
        figures["engine" if compiling == compilings[-1] else "engine_eager"] = engine_figures(
            encoder, tower, best, sizes.frames[name], sizes.rounds
        )
    flops = flops_of_an_image(eager)
    peak = matrix_rate(device, torch.bfloat16 if gpu else torch.float32)
    achieved = flops * figures["engine"]["images_per_s"] / 1e12
    figures["compute"] = {
        "gflop_an_image": rounded(flops / 1e9),
        "achieved_tflop_per_s": rounded(achieved),
        "matrix_product_tflop_per_s": rounded(peak),
        "share_of_matrix_product": rounded(achieved / peak),
    }
    return figures


def pixels_of(encoder: FrozenEncoder, batch: int) -> torch.Tensor:
    dtype = next(siglip(encoder).tower.parameters()).dtype
    return torch.randn(batch, 3, *encoder.encoder.image_size, device=encoder.device, dtype=dtype)


def bare_rate(tower: nn.Module, pixels: torch.Tensor) -> float:
    """Return images/s of the model alone on one batch."""

    def run() -> None:
        tower(pixel_values=pixels)
        synchronise(pixels.device)

    return len(pixels) / min(take_turns({"bare": run}, 2)["bare"])


def engine_figures(
    encoder: FrozenEncoder, tower: nn.Module, bare_batch: int, frames: int, rounds: int
) -> dict[str, Any]:
    """Let engine and bare loop take turns on the same number of images."""
    source = MemorySource(frames)
    spec = cache_spec(source, encoder)
    images = frames * len(source.camera_names)
    pixels = pixels_of(encoder, bare_batch)
    passes = -(-images // bare_batch)

    def bare() -> float:
        began = time.perf_counter()
        for _ in range(passes):
            tower(pixel_values=pixels)
        synchronise(encoder.device)
        return (time.perf_counter() - began) / (passes * bare_batch)

    def engine() -> float:
        return encode_to_disk(source, encoder, spec) / images

    seconds = take_turns({"bare": bare, "engine": engine}, rounds)
    return {
        "batch_size": encoder.batch_size,
        "bare_batch_size": bare_batch,
        "images_a_turn": images,
        "images_per_s": rounded(1 / median(seconds["engine"])),
        "bare_images_per_s": rounded(1 / median(seconds["bare"])),
        "engine_over_bare": rounded(paired_ratio(seconds["bare"], seconds["engine"])),
        "engine_over_bare_by_turn": [
            rounded(b / e) for b, e in zip(seconds["bare"], seconds["engine"], strict=True)
        ],
    }


def encode_to_disk(source: FrameSource, encoder: FrozenEncoder, spec: CacheSpec) -> float:
    """Encode a whole source into a new cache; return seconds."""
    with tempfile.TemporaryDirectory() as folder:
        writer = PartWriter(Path(folder), spec.part)
        began = time.perf_counter()
        encode_shards(
            source,
            spec.contents,
            encoder,
            [(writer, shard) for shard in range(spec.num_shards)],
            source.watch(),
            Signals(),
            spec.augmentation,
            quiet=True,
        )
        return time.perf_counter() - began


class Excerpt(MemorySource):
    """The first frames of a dataset on disk.

    Args:
        whole: the dataset.
        frames: the first so many.
    """

    def __init__(self, whole: FrameSource, frames: int) -> None:
        super().__init__(frames)
        self._whole = whole

    def read(self, frames: range, block: int, size: tuple[int, int] | None = None) -> Iterator[FrameBlock]:
        return self._whole.read(frames, block, size)


def end_to_end(whole: FrameSource, frames: range, encoder: FrozenEncoder, rounds: int) -> dict[str, Any]:
    """Let decoding alone, encoding alone and both at once take turns on the same frames."""
    on_disk, in_memory = Excerpt(whole, len(frames)), MemorySource(len(frames))
    images = len(frames) * len(in_memory.camera_names)

    def decode() -> None:
        size = encoder.encoder.image_size
        for _ in prefetch(whole.read(frames, block_frames(encoder.batch_size, 3), size), 8):
            pass

    spec = cache_spec(in_memory, encoder)
    seconds = take_turns(
        {
            "decode": decode,
            "encode": lambda: encode_to_disk(in_memory, encoder, spec),
            "both": lambda: encode_to_disk(on_disk, encoder, spec),
        },
        rounds,
    )
    slower = [max(d, e) for d, e in zip(seconds["decode"], seconds["encode"], strict=True)]
    # Where both need the same cores all the time, nothing can be quicker than one after the other.
    sums = [d + e for d, e in zip(seconds["decode"], seconds["encode"], strict=True)]
    return {
        "images_a_turn": images,
        "decode_images_per_s": rounded(images / median(seconds["decode"])),
        "encode_images_per_s": rounded(images / median(seconds["encode"])),
        "images_per_s": rounded(images / median(seconds["both"])),
        "over_slower": rounded(paired_ratio(slower, seconds["both"])),
        "over_one_after_the_other": rounded(paired_ratio(sums, seconds["both"])),
    }


def scaling(folder: Path, counts: tuple[int, ...], device: str) -> dict[str, Any]:
    """Embed datasets of three sizes by the command, a process each."""
    seconds, peaks = [], []
    for count in counts:
        dataset = write_videos(folder / f"videos{count}", count)
        spent, peak = embed_by_command(dataset, folder / f"cache{count}", device)
        seconds.append(spent)
        peaks.append(peak)
    first = (seconds[1] - seconds[0]) / (counts[1] - counts[0])
    second = (seconds[2] - seconds[1]) / (counts[2] - counts[1])
    return {
        "frames": list(counts),
        "seconds": [rounded(value) for value in seconds],
        "peak_memory_mib": [round(peak) for peak in peaks],
        "largest_over_smallest_memory": rounded(peaks[-1] / peaks[0]),
        "ms_a_further_frame": [rounded(1000 * first), rounded(1000 * second)],
        "late_over_early": rounded(second / first),
    }


def embed_by_command(dataset: Path, out: Path, device: str) -> tuple[float, float]:
    """Return the seconds of `vla embed` without its start, and the most memory of its process [MiB]."""
    options = ["--encoder", SMALL, "--device", device, "--set", "cache.shard_frames=256"]
    words = ["embed", "--dataset", str(dataset), "--out", str(out), *options, "--json"]
    with ProcessPoolExecutor(1, mp.get_context("spawn")) as process:
        return process.submit(_run_command, words).result()


def _run_command(words: list[str]) -> tuple[float, float]:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        main_of_vla(words)
    status = Path("/proc/self/status").read_text().split("VmHWM:")[1]
    return float(json.loads(printed.getvalue())["seconds"]), int(status.split()[0]) / 1024


def flops_of_an_image(encoder: FrozenEncoder) -> float:
    """Count floating-point operations of one image, a multiplication and an addition as two."""
    with FlopCounterMode(display=False) as counter:
        siglip(encoder).tower(pixel_values=pixels_of(encoder, 1))
    return float(counter.get_total_flops())


if __name__ == "__main__":
    main()
