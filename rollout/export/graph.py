"""Encoder and policy as one function of tensors, the graph that is exported.

    pixels.<camera>  uint8    [B, T_obs, H, W, 3]   RGB at the encoder's size, oldest first
    state, sensors   float32  [B, T_obs, ...]       in the robot's units
    noise            float32  [B, T, P]             standard normal; the only randomness. P is A but where
                                                    `policy.actions` has rotations
    actions          float32  [B, num_action_steps, A]   out, in the robot's units, the first for now

A policy with language does one task, whose feature is a constant of the graph. Normalisation of pixels, state
and actions is inside. Resizing is not: ONNX has no resize that gives the same bytes as
`vla.embed.transforms.resize`, and cameras often deliver the right size. The graph computes in float32,
whatever arithmetic made the training features.
"""

import torch
from torch import Tensor, nn

from vla.cache.stream import TASK
from vla.embed.encoders.encoder import PerViewEncoder
from vla.policy.random import GivenNoise
from vla.rollout.live import LivePolicy

UNSEEN = (0, 0)
"""The size of images that there are none of."""


class PolicyGraph(nn.Module):
    """From what a robot observes to the actions it executes.

    Args:
        live: policy and encoder, on the CPU, in float32.
        num_steps: of the sampler.
        task: feature of the task text; None for a policy that takes none.

    Attributes:
        names: of the inputs, in order.
    """

    task: Tensor | None

    def __init__(self, live: LivePolicy, num_steps: int, task: Tensor | None) -> None:
        super().__init__()
        self.register_buffer("task", task)
        self.policy, self.encoder = live.policy, live.encoder.encoder if live.encoder else None
        self._streams, self._instants, self._num_steps = live.observes, live.horizons.obs_horizon, num_steps
        self._dtypes = {stream.name: stream.torch_dtype for stream in live.policy.observes}
        views = {stream.name for stream in live.observes if stream.kind == "image"}
        self.names = [f"pixels.{s.name}" if s.name in views else s.name for s in live.observes] + ["noise"]

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the actions to execute; inputs are in the order of `names`."""
        *arrays, noise = inputs
        given = {stream.name: array for stream, array in zip(self._streams, arrays, strict=True)}
        known = {name: array for name, array in given.items() if name in self._dtypes} | self._encode(given)
        if self.task is not None:
            known[TASK] = self.task.expand(noise.shape[0], self._instants, -1)
        actions, _ = self.policy.act(known, None, GivenNoise(noise), self._num_steps)
        return actions

    def _encode(self, given: dict[str, Tensor]) -> dict[str, Tensor]:
        if self.encoder is None:
            return {}
        views = {camera: given[camera].flatten(0, 1) for camera in self.encoder.reads}
        if isinstance(self.encoder, PerViewEncoder):  # one by one, so that the graph has a free batch size
            written = {camera: self.encoder.encode_view(view) for camera, view in views.items()}
        else:
            written = self.encoder.encode(views)
        # In the type that the cache and the live policy hold: the policy knows no finer features.
        return {
            name: array.to(self._dtypes[name]).unflatten(0, (-1, self._instants))
            for name, array in written.items()
            if name in self._dtypes
        }

    def random_inputs(self, batch: int, seed: int, image_size: tuple[int, int]) -> tuple[Tensor, ...]:
        """Draw inputs: noise images, numbers with the spread of the training data, noise."""
        random, horizons = torch.Generator().manual_seed(seed), self.policy.horizons
        arrays = []
        for stream in self._streams:
            leading = (batch, horizons.obs_horizon)
            if stream.kind == "image":
                shape = (*leading, *image_size, 3)
                arrays.append(torch.randint(0, 256, shape, dtype=torch.uint8, generator=random))
            else:
                normal = torch.randn(*leading, *stream.shape, generator=random)
                arrays.append(self.policy.typical(stream.name, normal))
        noise = torch.randn(batch, horizons.pred_horizon, self.policy.action_form.dim, generator=random)
        return (*arrays, noise)
