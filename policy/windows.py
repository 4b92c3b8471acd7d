"""Windows of a cache, cut on the training device by index arithmetic.

A window is named by its current frame. Episode borders are handled by clamping frame numbers, so that
no window is ever copied or stored: the whole data path of a training step is a few gathers.
"""

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from vla.base.errors import ConfigError
from vla.base.horizons import Horizons
from vla.base.memory import available_memory
from vla.cache import ACTION, TASK, Episodes, FeatureCache, Stream
from vla.policy.batch import Batch
from vla.policy.mixture import AnyCache
from vla.policy.nn.normalize import Standardize
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
        texts: cut `task` too: the features of the task texts that the cache has, or what `read` says.
        read: makes rows of texts, for a policy that reads the words itself; see `Policy.read_tasks`.
        calls: what the cache calls a stream, where it calls it otherwise.
        scale: of actions, where batches do not hold them in the robot's units.

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
        read: Callable[[Sequence[str]], Tensor | None] | None = None,
        calls: Mapping[str, str] | None = None,
        scale: Standardize | None = None,
    ) -> None:
        self._cache, self._streams, self._calls = cache, tuple(observes), dict(calls or {})
        self.device, self.resident, self.variants = device, resident, cache.variants
        self._observed = torch.tensor(horizons.observed, device=device)
        self._predicted = torch.tensor(horizons.predicted, device=device)
        action = cache.all(ACTION)
        self._action = (action if scale is None else scale(action)).to(device)
        self._held = {
            stream.name: cache.all(self._own(stream)).to(device)
            for stream in self._streams
            if resident or stream.kind == "vector"
        }
        if not resident:
            cache.expect_random_reads()
        episodes = cache.metadata.episodes
        # Copies: columns may lie in a mapped file, which cannot be written to.
        self._first = torch.tensor(episodes.first_frame, device=device)
        self._last = self._first + torch.tensor(episodes.length, device=device) - 1
        self._texts: Tensor | None = None
        if texts:
            words = read(cache.metadata.tasks) if read is not None else None
            self._texts = (cache.text_features() if words is None else words).to(device)
        starts, rows = (torch.tensor(values, device=device) for values in episodes.runs())
        self._task_from, self._task = starts, rows

    def frames_of(self, episodes: Sequence[int]) -> Int64[Tensor, "windows"]:
        """Return the current frames of all windows of some episodes, given by position in the cache."""
        chosen = self.numbering(episodes)
        return chosen.frames(torch.arange(len(chosen))).to(self.device)

    def numbering(self, episodes: Sequence[int]) -> "Numbering":
        """Number the windows of some episodes, given by position in the cache."""
        return Numbering(self._cache.metadata.episodes, episodes)

    def batch(self, current: Int64[Tensor, "B"], random: Random | None = None) -> Batch:
        """Cut the windows with these current frames.

        Frames before an episode's start repeat its first observation; actions outside the
        episode repeat the nearest one and are marked as padding.

        Args:
            current: frame numbers.
            random: draws one cached variant a window, the same for its observations and streams; None
                takes the frames themselves.
        """
        variant = None
        if random is not None and self.variants > 1:
            variant = random.integers(self.variants, len(current), 1)
        return self.cut(current, variant)

    def cut(self, current: Int64[Tensor, "B"], variant: Int64[Tensor, "B 1"] | None = None) -> Batch:
        """Cut the windows with these current frames; see `batch`.

        Args:
            current: frame numbers.
            variant: which cached variant each window sees; None is the frames themselves.
        """
        current = current.to(self.device).contiguous()
        episode = torch.searchsorted(self._first, current, right=True) - 1
        first, last = self._first[episode, None], self._last[episode, None]
        observed = torch.clamp(current[:, None] + self._observed, min=first, max=last)
        wanted = current[:, None] + self._predicted
        predicted = torch.clamp(wanted, min=first, max=last)
        variants = torch.zeros_like(observed) if variant is None else variant.expand_as(observed)
        observation = {stream.name: self._gather(stream, observed, variants) for stream in self._streams}
        if self._texts is not None:
            run = torch.searchsorted(self._task_from, observed, right=True) - 1
            observation[TASK] = self._texts[self._task[run]]
        return Batch(
            observation=observation, action=self._action[predicted], action_is_pad=wanted != predicted
        )

    def _gather(
        self, stream: Stream, frames: Int64[Tensor, "B T_obs"], variant: Int64[Tensor, "B T_obs"]
    ) -> Tensor:
        """Return a stream of some frames, [B, T_obs, *shape]."""
        if (held := self._held.get(stream.name)) is not None:
            return held[frames] if stream.made_by is None else held[frames, variant]
        rows = self._cache.rows(self._own(stream), frames.flatten().cpu(), variant.flatten().cpu())
        if self.device.type == "cuda":
            rows = rows.pin_memory()
        return rows.to(self.device, non_blocking=True).view(*frames.shape, *rows.shape[1:])

    def _own(self, stream: Stream) -> str:
        """Return what the cache calls a stream."""
        return self._calls.get(stream.name, stream.name)


class Numbering:
    """The windows of some episodes, numbered through; a number becomes a frame without a list of all.

    Args:
        episodes: of one cache.
        chosen: positions of some of them.
        offset: frames of other caches before it.
    """

    def __init__(self, episodes: Episodes, chosen: Sequence[int], offset: int = 0) -> None:
        places = np.asarray(chosen, np.int64)
        lengths = torch.from_numpy(episodes.length[places].astype(np.int64))
        firsts = torch.from_numpy(episodes.first_frame[places])
        self._ends = lengths.cumsum(0)
        self._shift = firsts - (self._ends - lengths) + offset

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def frames(self, numbers: Int64[Tensor, "n"]) -> Int64[Tensor, "n"]:
        """Return the current frames of windows with these numbers."""
        return numbers + self._shift[torch.searchsorted(self._ends, numbers.contiguous(), right=True)]


def fits_in_memory(cache: AnyCache, streams: Collection[str], device: torch.device, max_gib: float) -> bool:
    """Decide whether streams of a cache are held on the device.

    Args:
        cache: one, or several.
        streams: those that are cut into windows.
        device: where they would go.
        max_gib: largest size [GiB] that is held; 0 allows half of what is available on the device, and
            any size where the system does not say what is.
    """
    size = cache.nbytes_of(streams)
    if max_gib:
        return size <= max_gib * 2**30
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else available_memory()
    return free is None or size <= FREE_MEMORY_SHARE * free


def split_episodes(count: int, held_out: int, of: str = "") -> tuple[list[int], list[int]]:
    """Split episode positions into training and validation, the latter spread evenly.

    Args:
        count: of the cache.
        held_out: how many are for validation.
        of: what the message calls the cache.

    Raises:
        ConfigError: nothing would be left to train on.
    """
    if held_out >= count:
        raise ConfigError(f"train.val_episodes = {held_out} leaves none of {count} episodes{of} to train on")
    validation = [(2 * i + 1) * count // (2 * held_out) for i in range(held_out)]
    held = set(validation)
    return [i for i in range(count) if i not in held], validation
