"""What a policy is: `config.json` beside its weights."""

import json
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError, model_validator

from vla.base.errors import CheckpointError
from vla.base.strict import StrictModel, Width, explain
from vla.cache.metadata import DatasetIdentity, EncoderIdentity, Preprocessing, TextIdentity
from vla.policy.policy_config import PolicyConfig

CONFIG_FILE = "config.json"


class TrainingData(StrictModel):
    """The demonstrations that a policy learned from."""

    dataset: DatasetIdentity
    num_episodes: int
    num_frames: int
    tasks: tuple[str, ...]
    """Different task texts, in order of appearance."""


class AgentConfig(StrictModel):
    """What a policy is: `config.json` beside its weights."""

    policy: PolicyConfig
    camera_names: tuple[str, ...]
    state_dim: Width
    action_dim: Width
    fps: Annotated[float, Field(gt=0)]
    """Control rate of the demonstrations [Hz]."""
    encoder: EncoderIdentity
    """Features of another encoder are refused."""
    preprocessing: Preprocessing
    cache_fingerprint: str
    """The cache that the policy was trained on."""
    data: TrainingData | None = None
    """What the cache was made of."""
    text_encoder: TextIdentity | None = None
    """Of policies that take the task text: features of another text tower are refused."""

    @model_validator(mode="after")
    def _language_is_known(self) -> "AgentConfig":
        if self.policy.language and (self.text_encoder is None or self.data is None or not self.data.tasks):
            raise ValueError("policy.language needs text_encoder and data.tasks")
        return self

    @property
    def tasks(self) -> tuple[str, ...]:
        """The task texts that the policy tells apart; none without language."""
        return self.data.tasks if self.policy.language and self.data else ()


def read_config(folder: Path) -> AgentConfig:
    """Read a saved policy's `config.json`.

    Raises:
        CheckpointError: it is missing, damaged or of another form.
    """
    path = folder / CONFIG_FILE
    try:
        return AgentConfig.model_validate(json.loads(path.read_bytes()))
    except ValidationError as error:
        raise CheckpointError(f"{path}: {explain(error, AgentConfig)[:300]}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"no policy at {folder}: {CONFIG_FILE} cannot be read ({error})") from error
