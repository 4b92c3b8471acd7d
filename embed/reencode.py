"""Check a dataset by reading all of it, and a cache by encoding some of its frames again."""

from collections.abc import Iterator

import numpy as np

from vla.base.errors import CacheError, DatasetError
from vla.base.progress import Progress
from vla.cache import ACTION, STATE, FeatureCache
from vla.cache.jpeg import recompressed
from vla.cache.movement import describe_resting
from vla.cache.statistics import vector_statistics
from vla.embed.datasets import FrameBlock, FrameSource, open_source
from vla.embed.datasets.dataset_config import DatasetConfig
from vla.embed.encoders.encoder import EncoderConfig
from vla.embed.frozen_encoder import FrozenEncoder
from vla.embed.transforms import augment

BLOCK_FRAMES = 16
TOLERANCE = {"float32": (0.02, 2**-10), "bfloat16": (0.2, 2**-6), "float16": (0.05, 2**-9)}
"""Largest root mean square difference of a feature vector, by arithmetic: so many standard deviations of the
features, plus so much of its own root mean square for rounding. Measured on a CPU with a small encoder, other
batches and threads take 0.7% of it, lower precision at most 7% (docs/reliability.md); the rest is room for
deep encoders and GPUs, which are not measured."""


def check_dataset(config: DatasetConfig) -> dict[str, list[str]]:
    """Look for what is wrong with a dataset; every frame is decoded.

    An episode is given up at its first problem, the others are read all the same.

    Returns:
        `problems`, a line each; and where there are any `remarks` and `resting`, dimensions that hardly move.

    Raises:
        DatasetError: it cannot be opened at all.
    """
    source = open_source(config)
    problems: list[str] = []
    total = source.episodes[-1].first_frame + source.episodes[-1].length
    moved: dict[str, list[np.ndarray]] = {STATE: [], ACTION: []}
    with Progress("verify", total, unit="frames") as progress:
        for episode in source.episodes:
            frames = range(episode.first_frame, episode.first_frame + episode.length)
            try:
                for block in source.read(frames, BLOCK_FRAMES):
                    _require_finite(source, block)
                    for name in moved.keys() & block.streams.keys():
                        moved[name].append(block.streams[name])
            except DatasetError as error:
                advice = (
                    "" if "--set" in str(error) else "; mend it, or leave it out: --set dataset.episodes=[…]"
                )
                problems.append(f"{error}{advice}")
            progress.update(episode.length)
    statistics = {name: vector_statistics(found) for name, found in moved.items() if found}
    more = {"remarks": list(source.remarks), "resting": list(describe_resting(statistics, (STATE, ACTION)))}
    return {**{name: lines for name, lines in more.items() if lines}, "problems": problems}


def _require_finite(source: FrameSource, block: FrameBlock) -> None:
    for stream in source.streams:
        values = block.streams[stream.name].reshape(len(block), -1)
        bad = () if stream.kind == "image" else ~np.isfinite(values).all(axis=1)
        if np.any(bad):
            row = np.argmax(bad)
            raise DatasetError(
                f"{source.path}: {stream.name} is not finite at episode {block.episode_index[row]}, "
                f"frame {block.frame_index[row]}"
            )


def reencode_problems(
    cache: FeatureCache, dataset: DatasetConfig, encoder: EncoderConfig, count: int
) -> tuple[list[str], float]:
    """Encode random frames of a cache again and compare.

    Args:
        cache: the features.
        dataset: where its demonstrations lie.
        encoder: the one that made them, and where it lies; computes in the arithmetic that they were made in.
        count: frames; the same ones every time.

    Returns:
        Problems, a line each, and the largest difference found, as a share of what is allowed.

    Raises:
        CacheError: dataset or encoder are not those that the cache was made from.
    """
    made = cache.metadata
    source = open_source(dataset)
    whole = source.identity().content_sha256 if made.format_version > 2 else source.files_sha256()
    if whole != made.dataset.content_sha256:
        raise CacheError(
            f"{dataset.path} is not what {cache.folder} was made from, its content differs; "
            "name the one that is: --dataset DIR"
        )
    if made.encoder is None:
        raise CacheError(f"{cache.folder} holds nothing that an encoder wrote, so nothing can differ")
    arithmetic = encoder.model_copy(update={"dtype": made.encoder.dtype})
    frozen = FrozenEncoder.load(arithmetic, source.camera_names)
    if not frozen.identity.same_as(made.encoder, arithmetic=True):
        raise CacheError(
            f"{encoder.id} is {frozen.identity.describe()}, {cache.folder} was made by "
            f"{made.encoder.describe()}; name that one: --encoder DIR"
        )
    rng = np.random.default_rng(0)
    frames = np.sort(rng.choice(cache.num_frames, min(count, cache.num_frames), replace=False))
    problems, worst = [], 0.0
    with Progress("reencode", len(frames), unit="frames") as progress:
        for frame in frames.tolist():
            for what, share in _differences(cache, source, frozen, frame):
                worst = max(worst, share)
                if not share <= 1:
                    problems.append(
                        f"{cache.folder}: {what} is {share:.1f} times as far from what the encoder gives "
                        "now as is allowed; if libraries changed, make the cache anew in another folder"
                    )
            progress.update()
    return problems, worst


def _differences(
    cache: FeatureCache, source: FrameSource, encoder: FrozenEncoder, frame: int
) -> Iterator[tuple[str, float]]:
    """Yield each stream's difference as a share of what is allowed."""
    made = cache.metadata
    block = next(source.read(range(frame, frame + 1), 1, encoder.encoder.image_size))
    views = {name: block.streams[name] for name in encoder.reads}
    episode = int(made.episodes.find(np.array([frame]))[0])
    # In formats 1 and 2 an episode had its variants by its number.
    number = int(block.episode_index[0]).to_bytes(8, "little")
    content = made.episodes.content[episode].tobytes() or number
    variants = [
        encoder.encode({name: augment(v, content, name, k, made.augmentation) for name, v in views.items()})
        for k in range(made.variants)
    ]
    stored = {name: tensor.numpy() for name, tensor in cache.frame(frame).items()}
    at = f"episode {block.episode_index[0]}, frame {block.frame_index[0]}"
    for stream in made.streams:
        what, there = f"{stream.name} at {at}", stored[stream.name]
        if stream.made_by is None:
            yield what, 0.0 if np.array_equal(there, block.streams[stream.name][0]) else float("inf")
            continue
        now = np.stack([variant[stream.name][0].cpu().numpy() for variant in variants])
        if stream.jpeg_quality is not None:
            now = recompressed(now, stream.jpeg_quality)
        if stream.dtype == "uint8":
            # A level: decoders and resizing may round otherwise on another processor.
            yield what, float(np.abs(now.astype(int) - there.astype(int)).max())
            continue
        spread, rounding = TOLERANCE[made.encoders[stream.made_by].dtype]
        exact = there.astype(np.float64)
        allowed = spread * _rms(np.array(made.statistics[stream.name].std)) + rounding * _rms(exact)
        yield what, float(_rms(now.astype(np.float64) - exact) / allowed)


def _rms(values: np.ndarray) -> float:
    """Return the root mean square over the last axis, the largest of all vectors."""
    return float(np.sqrt(np.mean(values**2, axis=-1)).max())
