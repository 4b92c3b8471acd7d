"""The live policy: what a robot observes in, actions to execute out.

    observation ─ images ─> encoder ─┐
         └─────── all other streams ─┴─> policy ─> actions

The same resizing and the same encoder as in stage one; the policy refuses any other. Features stay on the
device from one to the other. Images may come at the encoder's size already: who keeps a history resizes each
frame once, when it comes, by `image_sizes`.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float32

from vla.base.compiling import Compile, compile_module
from vla.base.errors import EncoderMismatch, EnvironmentSetupError
from vla.cache.metadata import EncoderIdentity
from vla.cache.stream import TASK
from vla.embed.encoders.encoder import EncoderConfig
from vla.embed.frozen_encoder import FrozenEncoder
from vla.policy.agents.policy import Policy
from vla.policy.random import SeededRows
from vla.policy.saved_policy import SavedPolicy
from vla.rollout.execution.chunk import ChunkConfig
from vla.rollout.execution.execution import ExecutionConfig
from vla.rollout.robot_streams import cameras_of, missing_stream, robot_streams
from vla.rollout.task_features import TaskFeatures


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds of one decision, for the whole batch of robots."""

    encode_s: float
    """Normalising and encoding all views of all observations; resizing those that have another size."""
    head_s: float
    """From features to actions in the host's memory."""


class Decision(NamedTuple):
    """What to do next."""

    actions: Float32[np.ndarray, "B num_action_steps A"]
    """In the robot's units; the first is for the newest observation."""
    timing: Timing
    memory: Any
    """What is remembered of the episode for its next decision; None if nothing is."""


class LivePolicy:
    """A policy together with its encoder.

    Args:
        policy: trained; best on the device of the encoder.
        encoder: must be the encoder that the policy was trained on; None for a policy that sees no images.
        num_steps: sampling steps of the action head; 0 takes the head's own.
        compiling: how the policy's networks are compiled; see `vla.base.compiling`.
        task: what to do, in words, where `act` is not told; empty is the only task the policy knows.
        execution: what is executed of the chunks that it predicts; None is one after the other.

    Attributes:
        horizons: of the policy, with the actions that are executed between decisions.
        observes: the streams that an observation must hold.
        image_sizes: (height, width) [pixel] of the cameras that only the encoder looks through.
        tasks: features of task texts.

    Raises:
        EncoderMismatch: the encoder is another one.
        ConfigError: the policy takes no task text and is given one, or predicts too little for `execution`.
    """

    def __init__(
        self,
        policy: Policy,
        encoder: FrozenEncoder | None,
        num_steps: int = 0,
        compiling: Compile = "off",
        task: str = "",
        execution: ExecutionConfig | None = None,
    ) -> None:
        require_same_encoder(policy.config.encoders, encoder)
        for network in policy.networks():
            compile_module(network, compiling)
        self.policy, self.encoder, self.num_steps = policy.eval(), encoder, num_steps
        self._execution = (execution or ChunkConfig()).build(self.policy)
        self.horizons = replace(policy.horizons, num_action_steps=self._execution.num_action_steps)
        self.action_dim, self.fps = policy.action_dim, policy.fps
        self.observes = robot_streams(policy.observes, policy.config.encoders)
        self.tasks = TaskFeatures(policy, encoder.identity if encoder else None, task)
        raw = {stream.name for stream in policy.observes if stream.made_by is None}
        self.image_sizes: dict[str, tuple[int, int]] = {
            camera: encoder.eval_image_resize_shape
            for camera in (encoder.reads if encoder else ())
            if encoder and camera not in raw
        }
        self._computed = {stream.name for stream in policy.observes if stream.made_by is not None}

    @property
    def device(self) -> torch.device:
        """Where the policy computes."""
        return self.policy.device

    def act(
        self,
        observation: Mapping[str, np.ndarray],
        seeds: Sequence[int] | None = None,
        task: str | Sequence[str] = "",
        memory: Any = None,
    ) -> Decision:
        """Choose the next actions of a batch of robots.

        Args:
            observation: history of each stream, [B, T_obs, ...], oldest first: images RGB of any size, all
                else float32 in the robot's units. Streams that the policy does not observe are left out.
            seeds: one a row, for repeatable noise whatever else is in the batch; None draws anew.
            task: what to do, in words, for a policy with language: of all rows, or one a row; empty takes the
                policy's own.
            memory: of the last decision of these episodes; None in their first one.

        Raises:
            EnvironmentSetupError: a stream that the policy observes is missing.
            ConfigError, EncoderError: the task is refused; see `vla.rollout.task_features`.
        """
        told = self.tasks.features([task] if isinstance(task, str) else task)
        if missing := missing_stream(self.observes, observation):
            raise EnvironmentSetupError(f"{missing}, the robot has: {', '.join(observation)}")
        began = time.perf_counter()
        known = self._encode(observation)
        encoded = time.perf_counter()
        for stream in self.policy.observes:
            if stream.made_by is None:
                known[stream.name] = torch.from_numpy(observation[stream.name]).to(self.device)
        rows, instants = next(iter(known.values())).shape[:2]
        if told is not None:
            known[TASK] = told.to(self.device)[:, None].expand(rows, instants, -1)
        random = None if seeds is None else SeededRows(seeds, self.device)
        actions, memory = self._execution.decide(known, memory, random, self.num_steps)
        chosen = actions.float().cpu().numpy()
        timing = Timing(encode_s=encoded - began, head_s=time.perf_counter() - encoded)
        return Decision(chosen, timing, memory)

    def _encode(self, observation: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
        """Encode histories as one batch; return what the policy observes of it, on its device."""
        if self.encoder is None or not self._computed:
            return {}
        views = {camera: observation[camera] for camera in self.encoder.reads}
        instants = next(iter(views.values())).shape[:2]
        flat = {camera: frames.reshape(-1, *frames.shape[2:]) for camera, frames in views.items()}
        return {
            name: features.unflatten(0, instants).to(self.device)
            for name, features in self.encoder.encode(flat).items()
            if name in self._computed
        }


def noise_seeds(seeds: Sequence[int], decision: int) -> list[int]:
    """Give each row of a decision a seed of its own: no two chunks of a run share their noise.

    Args:
        seeds: of the episodes, one a row.
        decision: of the episode, from 0 on.
    """
    return [seed * 100_003 + decision for seed in seeds]


def load_encoder(config: EncoderConfig, trained_on: SavedPolicy) -> FrozenEncoder | None:
    """Load the encoder of a policy; None for one that observes nothing which is computed from images.

    Args:
        config: which encoder is at hand, and how it runs.
        trained_on: what the policy, trained or not, observes.

    Raises:
        EncoderMismatch: it is not the one that wrote the streams.
        EncoderError: it cannot be loaded.
    """
    streams, encoders = trained_on.streams, trained_on.encoders
    cameras = dict.fromkeys(camera for stream in streams for camera in cameras_of(stream, encoders))
    if not cameras:
        return None
    encoder = FrozenEncoder.load(config, tuple(cameras))
    require_same_encoder(encoders, encoder)
    return encoder


def require_same_encoder(trained: Mapping[str, EncoderIdentity], encoder: FrozenEncoder | None) -> None:
    """Check that an encoder gives the features that a policy was, or will be, trained on.

    Arithmetic may differ, as between a GPU that embedded and a CPU that rolls out; weights, pooling
    and preprocessing may not.

    Args:
        trained: the encoders of the policy or the cache, by digest.
        encoder: the one that is there.

    Raises:
        EncoderMismatch: they differ, or there is none.
    """
    for identity in trained.values():
        if encoder is None or not identity.same_as(encoder.identity):
            raise EncoderMismatch(identity, encoder.identity if encoder else None)
