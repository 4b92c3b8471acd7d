"""Windows of several caches: batches of rows from each, named by a frame number that runs through all."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Int64
from torch import Tensor

from vla.base.horizons import Horizons
from vla.cache import Stream
from vla.policy.batch import Batch
from vla.policy.mixture import Mixture
from vla.policy.random import Random
from vla.policy.windows import Numbering, Windows

MANY = 1 << 30
"""Numbers that variants are drawn from: caches may have different counts of them."""


class MixedWindows:
    """Training windows over the caches of a mixture; see `vla.policy.windows.Windows`.

    Args:
        mixture: the caches. The frames of each come after those of the ones before.
        horizons: instants that are observed and predicted.
        observes: the streams to cut, by the mixture's names.
        device: where batches are wanted.
        resident: hold all streams on the device.
        texts: cut what says the task texts too.
        read: see there.

    Attributes:
        members: the windows of each cache, by its name.
    """

    def __init__(
        self,
        mixture: Mixture,
        horizons: Horizons,
        observes: Sequence[Stream],
        *,
        device: torch.device,
        resident: bool,
        texts: bool = False,
        read: Callable[[Sequence[str]], Tensor | None] | None = None,
    ) -> None:
        self.device, self.resident = device, resident
        self.members = {
            member.name: Windows(
                member.cache,
                horizons,
                observes,
                device=device,
                resident=resident,
                texts=texts,
                read=read,
                calls=member.calls,
                scale=member.action if mixture.metadata.normalise == "each" else None,
            )
            for member in mixture.members
        }
        self._mixture = mixture
        lengths = torch.tensor([member.cache.num_frames for member in mixture.members])
        self._ends = lengths.cumsum(0)
        self._starts = self._ends - lengths
        self._variants = torch.tensor([windows.variants for windows in self.members.values()])

    def numbering(self, member: int, episodes: Sequence[int]) -> Numbering:
        """Number the windows of some episodes of a cache, given by position in it."""
        known = self._mixture.members[member].cache.metadata.episodes
        return Numbering(known, episodes, int(self._starts[member]))

    def batch(self, current: Int64[Tensor, "B"], random: Random | None = None) -> Batch:
        """Cut the windows with these current frames, in this order.

        Args:
            current: frame numbers, best on the CPU: which rows are whose is worked out there.
            random: draws one cached variant a window; None takes the frames themselves.
        """
        current = current.cpu().contiguous()  # every n-th row of a batch, in one of n processes
        whose = torch.searchsorted(self._ends, current, right=True)
        variants = None
        if random is not None and int(self._variants.max()) > 1:
            drawn = random.integers(MANY, len(current), 1)
            variants = drawn % self._variants[whose][:, None].to(drawn.device)
        parts, places = [], []
        for number, windows in enumerate(self.members.values()):
            rows = torch.nonzero(whose == number).flatten()
            if len(rows):
                chosen = None if variants is None else variants[rows.to(variants.device)]
                parts.append(windows.cut(current[rows] - self._starts[number], chosen))
                places.append(rows)
        return _in_order(parts, torch.cat(places).argsort().to(self.device))


def _in_order(parts: Sequence[Batch], order: Int64[Tensor, "B"]) -> Batch:
    """Put parts of a batch together, row k of it being row `order[k]` of all of them one after the other."""
    return Batch(
        observation={
            name: torch.cat([part.observation[name] for part in parts])[order]
            for name in parts[0].observation
        },
        action=torch.cat([part.action for part in parts])[order],
        action_is_pad=torch.cat([part.action_is_pad for part in parts])[order],
    )
