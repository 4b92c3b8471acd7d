"""What LeRobot knows of a policy that vla trained: `config.json` of an exported folder."""

from dataclasses import dataclass, field
from typing import NoReturn

from lerobot.configs import PreTrainedConfig

from vla.base.errors import ConfigError

TRAINING = "LeRobot does not train policies of type vla; vla train does, then: vla export RUN --lerobot DIR"


@PreTrainedConfig.register_subclass("vla")
@dataclass
class VlaConfig(PreTrainedConfig):
    """Options of LeRobot's commands, `--policy.NAME`, and what `vla export` wrote of the policy."""

    streams: dict[str, str] = field(default_factory=dict)
    """LeRobot's name of each stream that the policy observes, such as {"top": "observation.images.top"}."""
    num_steps: int = 0
    """Sampling steps of the action head; 0 takes the head's own."""
    task: str = ""
    """What to do, in words, for a policy with language, where the command gives no task."""
    seed: int | None = None
    """Makes the noise of actions repeatable: the k-th episode since the start has seed + k, as in `vla
    rollout`. None draws anew."""

    @property
    def observation_delta_indices(self) -> None:
        return None

    @property
    def action_delta_indices(self) -> None:
        return None

    @property
    def reward_delta_indices(self) -> None:
        return None

    def get_optimizer_preset(self) -> NoReturn:
        raise ConfigError(TRAINING)

    def get_scheduler_preset(self) -> NoReturn:
        raise ConfigError(TRAINING)

    def validate_features(self) -> None:
        """Accept whatever `vla export` wrote; the policy checks observations when they come."""
