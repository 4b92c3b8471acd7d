"""What a policy is: `config.json` beside its weights, and how both are read.

    format_version    2
    policy            its configuration, `type` included
    streams           what it sees, in order: the encoders' first, then sensors, then the state
    action            what it answers with
    fps               control rate of the demonstrations [Hz]
    encoders          those that made the streams, by digest: features of others are refused
    cache_fingerprint, data    what it was trained on
    text_encoder      of policies that take the task text: features of another text tower are refused

Policies written before there were streams have no `format_version`; see `vla.policy.version1`.
"""

import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, ValidationError, model_validator
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from vla.base.errors import CheckpointError, ConfigError, nearest
from vla.base.strict import StrictModel, explain
from vla.cache.metadata import CacheMetadata, DatasetIdentity, EncoderIdentity, TextIdentity
from vla.cache.stream import STATE, Kind, Stream
from vla.policy.nn.bounds import UNBOUNDED
from vla.policy.policy_config import POLICIES, PolicyConfig
from vla.policy.version1 import OldConfig, current_name, is_version1, upgrade_config

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
LATER: dict[str, float] = {
    "action_moves": True,
    "state_bounds.lowest": -UNBOUNDED,
    "state_bounds.highest": UNBOUNDED,
}
"""Tensors that policies did not have at first, and what stands for one that is missing."""
RANKS: dict[Kind, int] = {"image": 3, "tokens": 2, "vector": 1, "points": 2, "series": 2}


class TrainingData(StrictModel):
    """The demonstrations that a policy learned from."""

    dataset: DatasetIdentity
    num_episodes: int
    num_frames: int
    tasks: tuple[str, ...]
    """Different task texts, in order of appearance."""


class SavedPolicy(StrictModel):
    """The whole of `config.json`."""

    format_version: Literal[2] = 2
    policy: Annotated[PolicyConfig, POLICIES.choice()]
    streams: Annotated[tuple[Stream, ...], Field(min_length=1)]
    action: Stream
    fps: Annotated[float, Field(gt=0)]
    """Control rate of the demonstrations [Hz]."""
    encoders: dict[str, EncoderIdentity]
    """Those that made the streams, by digest."""
    cache_fingerprint: str
    """The cache that the policy was trained on."""
    data: TrainingData | None = None
    """What the cache was made of."""
    text_encoder: TextIdentity | None = None
    """Of policies that take the task text."""

    @model_validator(mode="after")
    def _is_complete(self) -> "SavedPolicy":
        takes_task = self.policy.takes_task
        if takes_task and (self.text_encoder is None or self.data is None or not self.data.tasks):
            raise ValueError("a policy that takes the task text needs text_encoder and data.tasks")
        for stream in (*self.streams, self.action):
            if len(stream.shape) != RANKS[stream.kind] or 0 in stream.shape:
                raise ValueError(f"stream {stream.describe()} has no such shape")
            if stream.made_by is not None and stream.made_by not in self.encoders:
                raise ValueError(f"encoder {stream.made_by} of stream '{stream.name}' is missing")
        return self

    @classmethod
    def for_cache(cls, policy: PolicyConfig, cache: CacheMetadata) -> "SavedPolicy":
        """Describe a policy that is trained on a cache.

        Raises:
            ConfigError: it asks for a stream that the cache does not have.
        """
        observed = {stream.name: stream for stream in cache.observed}
        for name in policy.streams:
            if name not in observed:
                raise ConfigError(
                    f"policy.streams names '{name}', which the cache does not have; {nearest(name, observed)}"
                )
        streams = tuple(
            stream for stream in observed.values() if not policy.streams or stream.name in policy.streams
        )
        used = {stream.made_by for stream in streams}
        return cls(
            policy=policy,
            streams=streams,
            action=cache.action,
            fps=cache.dataset.fps,
            encoders={digest: encoder for digest, encoder in cache.encoders.items() if digest in used},
            cache_fingerprint=cache.fingerprint,
            data=TrainingData(
                dataset=cache.dataset,
                num_episodes=len(cache.episodes),
                num_frames=cache.num_frames,
                tasks=cache.tasks,
            ),
            text_encoder=cache.texts.encoder if policy.takes_task and cache.texts else None,
        )

    @property
    def tasks(self) -> tuple[str, ...]:
        """The task texts that the policy tells apart; none if it takes none."""
        return self.data.tasks if self.policy.takes_task and self.data else ()

    @property
    def state(self) -> Stream | None:
        """The robot's state; None where the policy sees none."""
        return next((stream for stream in self.streams if stream.name == STATE), None)

    @property
    def encoder(self) -> EncoderIdentity | None:
        """The one encoder of the streams; None if there is none, or several."""
        return next(iter(self.encoders.values())) if len(self.encoders) == 1 else None

    @property
    def camera_names(self) -> tuple[str, ...]:
        """Cameras that must be there for the streams to be made, in order."""
        names: dict[str, None] = {}
        for stream in self.streams:
            if stream.made_by is not None:
                names |= dict.fromkeys(self.encoders[stream.made_by].reads or (stream.name,))
            elif stream.kind == "image":
                names[stream.name] = None
        return tuple(names)


def read_config(folder: Path) -> SavedPolicy:
    """Read a saved policy's `config.json`, of this format or the one before.

    Raises:
        CheckpointError: it is missing, damaged or of another form.
    """
    path = folder / CONFIG_FILE
    raw = _read_json(folder)
    model: type[StrictModel] = SavedPolicy
    try:
        if is_version1(raw):
            model = OldConfig
            raw = upgrade_config(raw)
            model = SavedPolicy
        return SavedPolicy.model_validate(raw)
    except ValidationError as error:
        raise CheckpointError(f"{path}: {explain(error, model)[:300]}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: {str(error)[:300]}") from error


def read_tensors(folder: Path, path: Path) -> dict[str, Tensor]:
    """Read tensors that belong to a policy: its weights, or an optimiser's state, by their names of today.

    Args:
        folder: of the policy's `config.json`.
        path: a safetensors file.

    Raises:
        CheckpointError: it cannot be read.
    """
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors ({error})") from error
    rename = names_today(folder)
    return {rename(name): tensor for name, tensor in tensors.items()}


def added_since(due: Mapping[str, Tensor], there: Collection[str]) -> dict[str, Tensor]:
    """Return what older policies of this format lack, with values that change nothing.

    Args:
        due: the tensors of such a policy.
        there: names of those that its file has.
    """
    return {
        name: torch.full_like(due[name], value)
        for name, value in LATER.items()
        if name in due and name not in there
    }


def is_of_today(folder: Path) -> bool:
    """Tell whether a policy's files are of the format that is written today."""
    return not is_version1(_read_json(folder))


def names_today(folder: Path) -> Callable[[str], str]:
    """Return what tells the name of today of a tensor in a policy's files.

    Raises:
        CheckpointError: there is no policy.
    """
    return str if is_of_today(folder) else current_name


def _read_json(folder: Path) -> Any:
    try:
        return json.loads((folder / CONFIG_FILE).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"no policy at {folder}: {CONFIG_FILE} cannot be read ({error})") from error
