"""Windows of a cache, cut on the training device by index arithmetic.

A window is named by its current frame. Episode borders are handled by clamping frame numbers, so that
no window is ever copied or stored: the whole data path of a training step is a few gathers.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Int64
from torch import Tensor

from vla.base.errors import ConfigError
from vla.base.horizons import Horizons
from vla.base.memory import available_memory
from vla.cache import ACTION, TASK, FeatureCache, Stream
from vla.policy.batch import Batch
from vla.policy.random import Random

FREE_MEMORY_SHARE = 0.5


class Windows:
    """Training windows over some episodes of a cache.

    Vectors, such as state and action, are always on the device; larger streams too when `resident`, otherwise
    they are gathered from the memory-mapped shards batch by batch.

    Args:
        cache: the streams.
        horizons: instants that are observed and predicted.
        observes: the streams to cut.
        device: where batches are wanted.
        resident: hold all streams on the device.
        texts: cut the features of the task texts too.

    Raises:
        CacheError: `texts` is asked for and the cache has none.
    """

    def __init__(
        self,
        cache: FeatureCache,
        horizons: Horizons,
        observes: Sequence[Stream],
        *,
        device: torch.device,
        resident: bool,
        texts: bool = False,
    ) -> None:
        self._cache, self._streams = cache, tuple(observes)
        self.device, self.resident = device, resident
        self._observed = torch.tensor(horizons.observed, device=device)
        self._predicted = torch.tensor(horizons.predicted, device=device)
        self._action = cache.all(ACTION).to(device)
        self._held = {
            stream.name: cache.all(stream.name).to(device)
            for stream in self._streams
            if resident or stream.kind == "vector"
        }
        if not resident:
            cache.expect_random_reads()
        lengths = torch.tensor([episode.length for episode in cache.metadata.episodes])
        starts = torch.tensor([episode.first_frame for episode in cache.metadata.episodes])
        self._first = starts.repeat_interleave(lengths).to(device)
        self._last = (starts + lengths - 1).repeat_interleave(lengths).to(device)
        self._texts = cache.text_features().to(device) if texts else None
        rows = {task: row for row, task in enumerate(cache.metadata.tasks)}
        tasks = torch.tensor([rows[episode.task] for episode in cache.metadata.episodes])
        self._task = tasks.repeat_interleave(lengths).to(device)

    def frames_of(self, episodes: Sequence[int]) -> Int64[Tensor, "windows"]:
        """Return the current frames of all windows of some episodes, given by position in the cache."""
        chosen = [self._cache.metadata.episodes[position] for position in episodes]
        ranges = [torch.arange(e.first_frame, e.first_frame + e.length) for e in chosen]
        return torch.cat([torch.empty(0, dtype=torch.int64), *ranges]).to(self.device)

    def batch(self, current: Int64[Tensor, "B"], random: Random | None = None) -> Batch:
        """Cut the windows with these current frames.

        Frames before an episode's start repeat its first observation; actions outside the
        episode repeat the nearest one and are marked as padding.

        Args:
            current: frame numbers.
            random: draws one cached variant a window, the same for its observations and streams; None
                takes the frames themselves.
        """
        first, last = self._first[current, None], self._last[current, None]
        observed = torch.clamp(current[:, None] + self._observed, min=first, max=last)
        wanted = current[:, None] + self._predicted
        predicted = torch.clamp(wanted, min=first, max=last)
        variant = torch.zeros_like(observed)
        if random is not None and self._cache.variants > 1:
            variant += random.integers(self._cache.variants, len(current), 1)
        observation = {stream.name: self._gather(stream, observed, variant) for stream in self._streams}
        if self._texts is not None:
            observation[TASK] = self._texts[self._task[observed]]
        return Batch(
            observation=observation, action=self._action[predicted], action_is_pad=wanted != predicted
        )

    def _gather(
        self, stream: Stream, frames: Int64[Tensor, "B T_obs"], variant: Int64[Tensor, "B T_obs"]
    ) -> Tensor:
        """Return a stream of some frames, [B, T_obs, *shape]."""
        if (held := self._held.get(stream.name)) is not None:
            return held[frames] if stream.made_by is None else held[frames, variant]
        rows = self._cache.rows(stream.name, frames.flatten().cpu(), variant.flatten().cpu())
        if self.device.type == "cuda":
            rows = rows.pin_memory()
        return rows.to(self.device, non_blocking=True).view(*frames.shape, *rows.shape[1:])


def fits_in_memory(cache: FeatureCache, device: torch.device, max_gib: float) -> bool:
    """Decide whether a cache is held on the device.

    Args:
        cache: the streams.
        device: where they would go.
        max_gib: largest size [GiB] that is held; 0 allows half of what is available on the device, and
            any size where the system does not say what is.
    """
    if max_gib:
        return cache.nbytes <= max_gib * 2**30
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else available_memory()
    return free is None or cache.nbytes <= FREE_MEMORY_SHARE * free


def split_episodes(count: int, held_out: int) -> tuple[list[int], list[int]]:
    """Split episode positions into training and validation, the latter spread evenly.

    Raises:
        ConfigError: nothing would be left to train on.
    """
    if held_out >= count:
        raise ConfigError(f"train.val_episodes = {held_out} leaves none of {count} episodes to train on")
    validation = [(2 * i + 1) * count // (2 * held_out) for i in range(held_out)]
    return [i for i in range(count) if i not in set(validation)], validation
