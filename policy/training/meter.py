"""Collect the figures of training steps without waiting for the device; explain one that is not finite."""

import shlex
import time

import torch
from torch import Tensor

from vla.base.distributed import World
from vla.base.errors import VlaError
from vla.policy.mixture import AnyCache, caches_of
from vla.policy.training.run import RunDirectory


class NotFiniteError(VlaError):
    """A figure of training is NaN or infinite.

    Args:
        figure: its name.
        value: what it is.
        step: number of the update, from 1.
    """

    def __init__(self, figure: str, value: float, step: int) -> None:
        super().__init__(f"the {figure} is {value} at step {step}")


class Meter:
    """Average figures between log lines.

    Tensors are kept as they are until they are read: reading one would make the host wait for the device
    at every step.

    Args:
        batch_size: windows a step, of all processes together.
        world: the processes; figures are averaged over them.
    """

    def __init__(self, batch_size: int, world: World) -> None:
        self._batch_size, self._world = batch_size, world
        self._tensors: list[dict[str, Tensor]] = []
        self._floats: list[dict[str, float]] = []
        self._began = time.perf_counter()
        self._restored = 0

    def add(self, tensors: dict[str, Tensor], **floats: float) -> None:
        """Add one step's figures."""
        self._tensors.append(tensors)
        self._floats.append(floats)

    def state(self) -> dict[str, Tensor]:
        """Return what was added since the last reading, [n] a figure; `restore` takes it back."""
        if not self._tensors:
            return {}
        floats = {
            name: torch.tensor([row[name] for row in self._floats], dtype=torch.float64)
            for name in self._floats[0]
        }
        return {name: self._series(name).cpu() for name in self._tensors[0]} | floats

    def restore(self, state: dict[str, Tensor], device: torch.device) -> None:
        """Go on where another process stood, so that its next line is the one it would have written."""
        names = [name for name, values in state.items() if values.dtype != torch.float64]
        rows = max((len(values) for values in state.values()), default=0)
        self._tensors = [{name: state[name][k].to(device) for name in names} for k in range(rows)]
        self._floats = [
            {name: float(values[k]) for name, values in state.items() if name not in names}
            for k in range(rows)
        ]
        self._restored = rows

    def require_finite(self, step: int) -> None:
        """Check what was added since the last reading; waits for the device.

        Args:
            step: updates done.

        Raises:
            NotFiniteError: a loss or gradient is not finite; the message names the first step.
        """
        for name in ("loss", "grad_norm") if self._tensors else ():
            bad = ~torch.isfinite(self._series(name))
            if bad.any():
                first = int(bad.int().argmax())
                number = step - len(self._tensors) + first + 1
                raise NotFiniteError(name, float(self._series(name)[first]), number)

    def _series(self, name: str) -> Tensor:
        return torch.stack([row[name] for row in self._tensors])

    def read(self, step: int) -> dict[str, float]:
        """Return the means since the last reading, and forget them.

        Raises:
            NotFiniteError: a loss or gradient is not finite.
        """
        self.require_finite(step)
        means = self._world.mean({name: float(self._series(name).mean()) for name in self._tensors[0]})
        for name in self._floats[0]:
            means[name] = sum(row[name] for row in self._floats) / len(self._floats)
        now = time.perf_counter()
        means["samples_per_s"] = (len(self._floats) - self._restored) * self._batch_size / (now - self._began)
        self._tensors, self._floats, self._began, self._restored = [], [], now, 0
        return means


def explain_not_finite(what: str, run: RunDirectory, cache: AnyCache) -> str:
    """Say where a figure that is NaN or infinite comes from, what is kept, and what to do.

    Args:
        what: the figure and the step.
        run: whose last checkpoint is kept.
        cache: all of it is read for the cause.
    """
    last = run.last_step()
    kept = "there is no checkpoint yet" if last is None else f"the last checkpoint, {last:06d}, is kept"
    for one in caches_of(cache):
        if (cause := one.not_finite()) is not None:
            verify = f"vla verify {shlex.quote(str(one.folder))}"
            return f"{what}; {kept}. The cause: {cause}; look closer: {verify}"
    return f"{what}; {kept}. The cache is finite; begin anew, at a lower rate: --set train.lr=1e-4 --out NEW"
