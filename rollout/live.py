"""The live policy: camera images and robot state in, actions to execute out.

The same preprocessing and the same encoder as in stage one; the policy refuses any other.
"""

import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, UInt8

from vla.base.compiling import Compile, compile_module
from vla.base.errors import EncoderError, EnvironmentSetupError
from vla.cache import CacheMetadata
from vla.embed import FrozenEncoder
from vla.policy.agent import AgentConfig, VLAAgent
from vla.policy.heads.head import Noise
from vla.rollout.task_features import TaskFeatures


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds of one decision, for the whole batch of robots."""

    encode_s: float
    """Resizing, normalising and encoding all views of all observations."""
    head_s: float
    """Projectors, condition and sampling."""


class LivePolicy:
    """An agent together with its encoder.

    Args:
        agent: a trained agent.
        encoder: must be the encoder that the agent was trained on.
        num_steps: sampling steps of the action head; 0 takes the head's own.
        compiling: how the head's network is compiled; see `vla.base.compiling`.
        task: what to do, in words, where `act` is not told; empty is the only task the agent knows.

    Attributes:
        tasks: features of task texts.

    Raises:
        EncoderError: the encoder is another one; the message names both.
        ConfigError: the agent takes no task text and is given one.
    """

    def __init__(
        self,
        agent: VLAAgent,
        encoder: FrozenEncoder,
        num_steps: int = 0,
        compiling: Compile = "off",
        task: str = "",
    ) -> None:
        require_same_encoder(agent.config, encoder)
        for network in agent.head.children():
            compile_module(network, compiling)
        self.agent, self.encoder, self.num_steps = agent.eval(), encoder, num_steps
        self.tasks = TaskFeatures(agent, encoder.identity, task)
        policy = agent.config.policy
        self.obs_horizon, self.num_action_steps = policy.obs_horizon, policy.num_action_steps

    def act(
        self,
        pixels: dict[str, UInt8[np.ndarray, "B T_obs _h _w 3"]],
        state: Float32[np.ndarray, "B T_obs S"],
        seeds: Sequence[int] | None = None,
        task: str = "",
    ) -> tuple[Float32[np.ndarray, "B num_action_steps A"], Timing]:
        """Choose the next actions of a batch of robots.

        Args:
            pixels: observation history of each camera, RGB, any size, oldest first.
            state: robot state at the same instants, in its units.
            seeds: one a row, for repeatable noise whatever else is in the batch; None draws anew.
            task: what to do, in words, for an agent with language; empty takes the policy's own.

        Raises:
            EnvironmentSetupError: a camera that the policy looks through is missing.
            ConfigError, EncoderError: the task is refused; see `vla.rollout.task_features`.
        """
        language = self.tasks.feature(task)
        missing = [camera for camera in self.agent.camera_names if camera not in pixels]
        if missing:
            raise EnvironmentSetupError(
                f"the policy looks through camera '{missing[0]}', the robot has: {', '.join(pixels)}"
            )
        began = time.perf_counter()
        features = self._encode({camera: pixels[camera] for camera in self.agent.camera_names})
        encoded = time.perf_counter()
        device = self.agent.device
        chunk = self.agent.predict_action_chunk(
            {camera: array.to(device) for camera, array in features.items()},
            torch.from_numpy(state).to(device),
            self.num_steps,
            self._noise(seeds),
            None if language is None else language.expand(len(state), -1),
        )
        # The chunk starts at the first observation; the current one is the last.
        actions = chunk[:, self.obs_horizon - 1 :][:, : self.num_action_steps].float().cpu().numpy()
        timing = Timing(encode_s=encoded - began, head_s=time.perf_counter() - encoded)
        return actions, timing

    def _encode(self, pixels: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
        """Encode histories as one batch: features [B, T_obs, tokens, dim] of each camera."""
        flat = {camera: frames.reshape(-1, *frames.shape[2:]) for camera, frames in pixels.items()}
        features = self.encoder.encode_views(flat)
        return {
            camera: torch.from_numpy(array).unflatten(0, pixels[camera].shape[:2])
            for camera, array in features.items()
        }

    def _noise(self, seeds: Sequence[int] | None) -> Noise | None:
        """Draw each row's noise from its own generator, on the CPU: the same on every device."""
        if seeds is None:
            return None
        shape = (self.agent.config.policy.pred_horizon, self.agent.config.action_dim)
        rows = [torch.Generator().manual_seed(seed) for seed in seeds]
        device = self.agent.device
        return lambda: torch.stack([torch.randn(shape, generator=row) for row in rows]).to(device)


def require_same_encoder(trained_on: AgentConfig | CacheMetadata, encoder: FrozenEncoder) -> None:
    """Check that an encoder gives the features that an agent was, or will be, trained on.

    Arithmetic may differ, as between a GPU that embedded and a CPU that rolls out; weights, pooling
    and preprocessing may not.

    Raises:
        EncoderError: they differ; the message names both encoders.
    """
    trained, found = trained_on.encoder, encoder.identity
    same = (trained.weights_sha256, trained.pooling) == (found.weights_sha256, found.pooling)
    if same and trained_on.preprocessing == encoder.preprocessing:
        return
    raise EncoderError(
        f"the policy was trained on features of {trained.describe()}, the encoder named is "
        f"{found.describe()}; roll out with --encoder {shlex.quote(trained.id)}"
    )
