"""Write a feature cache shard by shard, so that interrupted work goes on where it stopped.

writer = CacheWriter(folder, spec)
for shard in writer.missing_shards():
    writer.write(shard, frames)        # frames spec.first_frame(shard) .. spec.last_frame(shard)
writer.finish()                        # statistics and checksums; cache.json comes last
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from vla.base.errors import CacheError
from vla.base.files import remove_leftovers, sha256_of, write_json
from vla.cache.metadata import (
    FORMAT_VERSION,
    Augmentation,
    CacheMetadata,
    DatasetIdentity,
    EncoderIdentity,
    Episode,
    Language,
    Preprocessing,
    Shard,
    fingerprint,
)
from vla.cache.reader import checksum_damage, read_metadata
from vla.cache.shard import Frames, ShardHeader, ShardLayout, damage, map_shard, write_shard
from vla.cache.statistics import feature_statistics, vector_statistics

MAX_SHARD_BYTES = 256 << 20
NOT_AUGMENTED = Augmentation()


@dataclass(frozen=True, kw_only=True)
class CacheSpec:
    """Everything about a cache that is known before the first frame is encoded."""

    dataset: DatasetIdentity
    encoder: EncoderIdentity
    preprocessing: Preprocessing
    camera_names: tuple[str, ...]
    state_dim: int
    action_dim: int
    episodes: tuple[Episode, ...]
    shard_frames: int
    augmentation: Augmentation = NOT_AUGMENTED

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint(
            self.dataset, self.encoder, self.preprocessing, self.camera_names, self.augmentation
        )

    @property
    def variants(self) -> int:
        """Variants of each frame, the frame itself among them."""
        return 1 + self.augmentation.variants

    @property
    def num_frames(self) -> int:
        return self.episodes[-1].first_frame + self.episodes[-1].length

    @property
    def frames_per_shard(self) -> int:
        """`shard_frames`, or fewer where a shard would outgrow 256 MiB (patch tokens do)."""
        values = len(self.camera_names) * self.variants * self.encoder.tokens * self.encoder.feature_dim
        bytes_per_frame = 2 * values + 4 * (self.state_dim + self.action_dim + 2)
        return max(1, min(self.shard_frames, MAX_SHARD_BYTES // bytes_per_frame))

    @property
    def num_shards(self) -> int:
        return -(-self.num_frames // self.frames_per_shard)

    def frame_range(self, shard: int) -> range:
        """Frames of a shard."""
        first = shard * self.frames_per_shard
        return range(first, min(first + self.frames_per_shard, self.num_frames))

    def layout(self, shard: int) -> ShardLayout:
        """Return what the file of a shard must hold."""
        frames = self.frame_range(shard)
        header = ShardHeader(fingerprint=self.fingerprint, first_frame=frames.start, frames=len(frames))
        shape = (self.variants, self.encoder.tokens, self.encoder.feature_dim)
        return ShardLayout.planned(header, self.camera_names, shape, self.state_dim, self.action_dim)


class CacheWriter:
    """Fill one cache directory; finished shards of an earlier run are kept."""

    def __init__(self, folder: Path, spec: CacheSpec) -> None:
        self.folder, self.spec = folder, spec

    def remove_leftovers(self) -> None:
        """Delete half-written files of killed processes; only whoever holds the folder's lock may."""
        remove_leftovers(self.folder)
        remove_leftovers(self.folder / "shards")

    def missing_shards(self) -> list[int]:
        """Shards that are not there yet, or are damaged.

        Headers and sizes are held against the plan. Once `cache.json` is there it has a checksum of every
        shard, and all bytes are held against it: reading a cache is little beside reading its dataset,
        which `embed` does as well.
        """
        planned = range(self.spec.num_shards)
        wrong = {k for k in planned if damage(self._path(k), self.spec.layout(k)) is not None}
        finished = self.finished()
        if finished is not None:
            wrong |= set(checksum_damage(self.folder, finished, [k for k in planned if k not in wrong]))
        return sorted(wrong)

    def finished(self) -> CacheMetadata | None:
        """Return the contents of `cache.json` if it is there, can be read and is this cache's."""
        try:
            found = read_metadata(self.folder)
        except CacheError:
            return None
        frames = [len(self.spec.frame_range(shard)) for shard in range(self.spec.num_shards)]
        same = found.fingerprint == self.spec.fingerprint and [s.frames for s in found.shards] == frames
        return found if same else None

    def write(self, shard: int, frames: Frames) -> None:
        """Write one shard.

        Raises:
            CacheError: a feature, state or action is NaN or infinite; nothing is written.
        """
        self.require_finite(frames)
        write_shard(self._path(shard), self.spec.layout(shard).header, frames)

    def finish(self, language: Language | None = None) -> CacheMetadata:
        """Compute checksums and statistics of the finished shards and write `cache.json`.

        Args:
            language: what `write_language` returned; None keeps what there was.
        """
        spec, before = self.spec, self.finished()
        paths = [self._path(shard) for shard in range(spec.num_shards)]
        mapped = [map_shard(path, spec.layout(k)) for k, path in enumerate(paths)]
        state = np.concatenate([shard["state"].numpy() for shard in mapped])
        action = np.concatenate([shard["action"].numpy() for shard in mapped])
        metadata = CacheMetadata(
            format_version=FORMAT_VERSION,
            fingerprint=spec.fingerprint,
            dataset=spec.dataset,
            encoder=spec.encoder,
            preprocessing=spec.preprocessing,
            camera_names=spec.camera_names,
            augmentation=spec.augmentation,
            state_dim=spec.state_dim,
            action_dim=spec.action_dim,
            num_frames=spec.num_frames,
            frames_per_shard=spec.frames_per_shard,
            episodes=spec.episodes,
            state_statistics=vector_statistics(state),
            action_statistics=vector_statistics(action),
            feature_statistics={
                camera: feature_statistics(shard[f"features.{camera}"].numpy() for shard in mapped)
                for camera in spec.camera_names
            },
            shards=tuple(
                Shard(file=f"shards/{path.name}", frames=len(spec.frame_range(i)), sha256=sha256_of(path))
                for i, path in enumerate(paths)
            ),
            language=language or (before.language if before else None),
        )
        if before != metadata:
            write_json(self.folder / "cache.json", metadata.to_json())
        return metadata

    def add_language(self, language: Language) -> None:
        """Note in the `cache.json` of a finished cache what `write_language` returned."""
        finished = self.finished()
        if finished is not None and finished.language != language:
            metadata = finished.model_copy(update={"language": language})
            write_json(self.folder / "cache.json", metadata.to_json())

    def _path(self, shard: int) -> Path:
        return self.folder / "shards" / f"{shard:05d}.safetensors"

    def require_finite(self, frames: Frames) -> None:
        """Refuse NaN and infinity, by dataset, episode, frame and camera.

        Raises:
            CacheError: there is one.
        """
        named = {f"camera '{camera}'": array for camera, array in frames.features.items()}
        for name, array in {**named, "state": frames.state, "action": frames.action}.items():
            bad = ~np.isfinite(array.reshape(len(array), -1)).all(axis=1)
            if bad.any():
                row = int(bad.argmax())
                raise CacheError(
                    f"{self.spec.dataset.path}: {name} is not finite at episode {frames.episode_index[row]}, "
                    f"frame {frames.frame_index[row]}; look at it, or try --set encoder.dtype=float32"
                )
