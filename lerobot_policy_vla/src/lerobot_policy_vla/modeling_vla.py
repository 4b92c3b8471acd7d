"""A policy that vla trained, as LeRobot drives policies.

    select_action           one action a control step; decides anew when a chunk is used up
    predict_action_chunk    the whole chunk, for LeRobot's policy server

Both go through `vla.rollout.live.LivePolicy`, with its encoder: what `vla rollout` and `vla serve` run.
"""

import shutil
from collections import deque
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from huggingface_hub import snapshot_download
from lerobot.configs import PreTrainedConfig
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot_policy_vla.configuration_vla import TRAINING, VlaConfig
from lerobot_policy_vla.observations import task_of, to_streams
from torch import Tensor

import vla
from vla.base.device import choose_device
from vla.base.errors import CheckpointError, ConfigError, VlaError
from vla.embed.transforms import resize
from vla.policy.training.run import INSIDE_LEROBOT
from vla.rollout.live import LivePolicy, noise_seeds

HOW_TO_EXPORT = "name one with --policy.path=DIR, from: vla export RUN --lerobot DIR"


class VlaPolicy(PreTrainedPolicy):
    """A trained policy with its encoder.

    Args:
        config: from the folder's `config.json`, with the options of LeRobot's command.
        folder: that `vla export RUN --lerobot` wrote.

    Attributes:
        live: the policy itself.

    Raises:
        CheckpointError: there is no folder, or no policy in it.
        EncoderError: its encoder cannot be loaded.
    """

    config_class = VlaConfig
    name = "vla"

    def __init__(self, config: VlaConfig, folder: Path | None = None, **_: Any) -> None:
        super().__init__(config)
        if folder is None:
            raise CheckpointError(f"a policy of type vla is not made by LeRobot; {HOW_TO_EXPORT}")
        self._folder = folder
        self.live = self._load(config.device)
        _require_action(config, self.live.action_dim)
        self._episodes = self._rows = 0
        self.reset()

    @classmethod
    def from_pretrained(
        cls,
        pretrained_name_or_path: str | Path | None,
        *,
        config: PreTrainedConfig | None = None,
        revision: str | None = None,
        **_: Any,
    ) -> "VlaPolicy":
        """Load a folder that `vla export RUN --lerobot` wrote.

        Args:
            pretrained_name_or_path: of the folder, or `owner/name` on the Hub.
            config: None takes the folder's.
            revision: on the Hub.

        Raises:
            CheckpointError: it is no such folder.
            EncoderError: the policy's encoder cannot be loaded.
        """
        if pretrained_name_or_path is None:
            raise CheckpointError(f"no policy is named; {HOW_TO_EXPORT}")
        folder = Path(pretrained_name_or_path)
        if not folder.is_dir():
            folder = Path(snapshot_download(str(pretrained_name_or_path), revision=revision))
        if not (folder / INSIDE_LEROBOT).is_dir():
            raise CheckpointError(f"{folder} has no folder '{INSIDE_LEROBOT}' with a policy; {HOW_TO_EXPORT}")
        return cls(config or PreTrainedConfig.from_pretrained(folder), folder).eval()

    def reset(self) -> None:
        """Begin an episode of every robot that acts: forget observations and actions."""
        self._episodes += self._rows
        self._rows = self._decision = 0
        self._seen: deque[dict[str, np.ndarray]] = deque(maxlen=self.live.horizons.obs_horizon)
        self._actions: deque[Tensor] = deque()
        self._memory: Any = None

    def select_action(self, batch: dict[str, Any], **_: Any) -> Tensor:
        """Choose the actions of this control step.

        Args:
            batch: observations of this step, [B, ...].

        Returns:
            float32 [B, A], in the robot's units.

        Raises:
            VlaError: the batch lacks something, or the actions are not finite.
        """
        horizons = self.live.horizons
        led_here = horizons.num_action_steps - len(self._actions) - 1  # the action of this chunk that did
        if not self._actions:
            self._observe(batch)
            self._actions.extend(self._decide(task_of(batch)).unbind(1))
        elif horizons.is_seen(led_here):
            self._observe(batch)
        return self._actions.popleft()

    def predict_action_chunk(self, batch: dict[str, Any], **_: Any) -> Tensor:
        """Choose the actions from this step on; the observation stands for those before it.

        LeRobot's policy server asks now and then, and does not say how long ago it asked before: earlier
        observations are no control step apart.

        Args:
            batch: observations of this step, [B, ...].

        Returns:
            float32 [B, num_action_steps, A], in the robot's units.

        Raises:
            VlaError: the batch lacks something, or the actions are not finite.
        """
        self._seen.clear()
        self._observe(batch)
        return self._decide(task_of(batch))

    def to(self, device: str | torch.device, *_: Any, **__: Any) -> "VlaPolicy":
        """Load the policy again if it shall compute elsewhere."""
        if choose_device(str(device)) != self.live.device:
            self.config.device = str(device)
            self.live = self._load(str(device))
        return self

    def get_optim_params(self) -> NoReturn:
        raise ConfigError(TRAINING)

    def forward(self, batch: dict[str, Tensor]) -> NoReturn:
        """Refuse: training is `vla train`."""
        raise ConfigError(TRAINING)

    def _save_pretrained(self, save_directory: Path, state_dict: Any = None) -> None:
        self.config._save_pretrained(save_directory)
        shutil.copytree(self._folder / INSIDE_LEROBOT, save_directory / INSIDE_LEROBOT)

    def _load(self, device: str) -> LivePolicy:
        steps = {"rollout.num_steps": self.config.num_steps}
        folder = self._folder / INSIDE_LEROBOT
        return vla.load_live(folder, device=device, task=self.config.task, settings=steps)

    def _observe(self, batch: dict[str, Any]) -> None:
        """Take an observation; the first of an episode stands for those before it."""
        seen = to_streams(batch, self.live.observes, self.config.streams)
        sizes = self.live.image_sizes
        kept = {name: resize(value, sizes[name]) if name in sizes else value for name, value in seen.items()}
        self._seen.extend([kept] * (1 if self._seen else self.live.horizons.obs_horizon))

    def _decide(self, task: str) -> Tensor:
        history = {name: np.stack([seen[name] for seen in self._seen], axis=1) for name in self._seen[0]}
        self._rows = len(next(iter(history.values())))
        # LeRobot tells every policy the task; one without language has no use for it.
        told = task if self.live.tasks.known else ""
        chosen = self.live.act(history, self._noise(), told, self._memory)
        if not np.isfinite(chosen.actions).all():
            raise VlaError(
                "the policy's actions are not finite, none is executed; vla verify says if its weights are"
            )
        self._decision, self._memory = self._decision + 1, chosen.memory
        return torch.from_numpy(chosen.actions)

    def _noise(self) -> list[int] | None:
        if self.config.seed is None:
            return None
        first = self.config.seed + self._episodes
        return noise_seeds(range(first, first + self._rows), self._decision)


def _require_action(config: VlaConfig, action_dim: int) -> None:
    """Check that a robot or an environment takes the policy's actions, where LeRobot says what it takes."""
    for feature in (config.output_features or {}).values():
        if tuple(feature.shape) != (action_dim,):
            raise ConfigError(
                f"the policy answers with {action_dim} values, the environment takes {list(feature.shape)}: "
                "name the environment of the demonstrations"
            )
