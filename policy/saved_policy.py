"""What a policy is: `config.json` beside its weights, and how both are read.

    format_version    2
    policy            its configuration, `type` included
    streams           what it sees, in order: the encoders' first, then sensors, then the state
    action            what it answers with
    fps               control rate of the demonstrations [Hz]
    encoders          those that made the streams, by digest: features of others are refused
    cache_fingerprint, data    what it was trained on; `data` has an entry a cache
    text_encoder      of policies that take the task text: features of another text tower are refused

Policies written before there were streams have no `format_version`; see `vla.policy.version1`.
"""

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, ValidationError, field_validator, model_validator
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from vla.base.errors import CheckpointError, ConfigError, nearest
from vla.base.strict import StrictModel, explain
from vla.cache.metadata import CacheMetadata, DatasetIdentity, EncoderIdentity, Statistics, TextIdentity
from vla.cache.stream import ACTION, STATE, Kind, Stream
from vla.policy.mixture import AnyMetadata, MixtureMetadata
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
RANKS: dict[Kind, int] = {"image": 3, "tokens": 2, "vector": 1, "points": 2, "series": 2, "depth": 3}


class TrainingData(StrictModel):
    """The demonstrations of one cache that a policy learned from."""

    cache: str = ""
    """Name of the cache in a mixture; empty where there was but one."""
    fingerprint: str = ""
    """Of the cache; empty in files from before there were mixtures, where `cache_fingerprint` has it."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """How many windows were drawn from it, in the unit of the others' weights."""
    action: Statistics | None = None
    """Its own statistics of the actions, where each cache's were standardised by themselves."""
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
    """The cache, or the mixture of caches, that the policy was trained on."""
    data: tuple[TrainingData, ...] = ()
    """What the caches were made of; empty if nobody knows."""
    text_encoder: TextIdentity | None = None
    """Of policies that take features of the task text."""

    @field_validator("data", mode="before")
    @classmethod
    def _was_one(cls, data: Any) -> Any:
        """Take what was written before there were mixtures: one table, or null."""
        return () if data is None else (data,) if isinstance(data, dict) else data

    @model_validator(mode="after")
    def _is_complete(self) -> "SavedPolicy":
        takes_task = self.policy.takes_task
        if takes_task and not self.tasks:
            raise ValueError("a policy that takes the task text needs tasks in data")
        if self.policy.takes_text_features and self.text_encoder is None:
            raise ValueError("a policy that takes features of the task text needs text_encoder")
        for stream in (*self.streams, self.action):
            if len(stream.shape) != RANKS[stream.kind] or 0 in stream.shape:
                raise ValueError(f"stream {stream.describe()} has no such shape")
            if stream.made_by is not None and stream.made_by not in self.encoders:
                raise ValueError(f"encoder {stream.made_by} of stream '{stream.name}' is missing")
        return self

    @classmethod
    def for_cache(cls, policy: PolicyConfig, cache: AnyMetadata) -> "SavedPolicy":
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
            fps=cache.fps if isinstance(cache, MixtureMetadata) else cache.dataset.fps,
            encoders={digest: encoder for digest, encoder in cache.encoders.items() if digest in used},
            cache_fingerprint=cache.fingerprint,
            data=tuple(_training_data(cache)),
            text_encoder=_text_encoder(cache) if policy.takes_text_features else None,
        )

    @property
    def tasks(self) -> tuple[str, ...]:
        """The task texts that the policy tells apart; none if it takes none."""
        if not self.policy.takes_task:
            return ()
        return tuple(dict.fromkeys(task for made in self.data for task in made.tasks))

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


def _training_data(cache: AnyMetadata) -> Iterator[TrainingData]:
    """Describe what caches were made of."""
    if isinstance(cache, CacheMetadata):
        yield _of_one(cache, fingerprint=cache.fingerprint)
        return
    for member in cache.members:
        made = member.cache.metadata
        yield _of_one(
            made,
            cache=member.name,
            fingerprint=made.fingerprint,
            weight=member.share,
            action=member.statistics(ACTION) if cache.normalise == "each" else None,
        )


def _of_one(header: CacheMetadata, **further: Any) -> TrainingData:
    return TrainingData(
        dataset=header.dataset,
        num_episodes=len(header.episodes),
        num_frames=header.num_frames,
        tasks=header.tasks,
        **further,
    )


def _text_encoder(cache: AnyMetadata) -> TextIdentity | None:
    if isinstance(cache, MixtureMetadata):
        return cache.text_encoder
    return cache.texts.encoder if cache.texts else None


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


def require_shapes(saved: SavedPolicy, path: Path) -> None:
    """Hold a file of weights against a configuration, before memory is taken for either.

    Args:
        saved: from the `config.json` beside the file.
        path: of the weights.

    Raises:
        CheckpointError: the file is missing or damaged, or its tensors are not those of such a policy.
    """
    try:
        with torch.device("meta"):
            state = saved.policy.build(saved).saved_state()
            due = {n: tuple(tensor.shape) for n, tensor in state.items()}
    except ConfigError as error:
        raise CheckpointError(f"{path.parent / CONFIG_FILE}: {error}") from error
    rename = names_today(path.parent)
    try:
        with safe_open(path, framework="pt") as file:
            found = {rename(n): tuple(file.get_slice(n).get_shape()) for n in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors ({error})") from error
    found |= {name: due[name] for name in added_since(state, found.keys())}
    for name in sorted(due.keys() | found.keys()):
        if due.get(name) != found.get(name):
            shapes = [
                list(shape) if shape is not None else "none" for shape in (found.get(name), due.get(name))
            ]
            raise CheckpointError(
                f"{path} does not fit {CONFIG_FILE}: tensor '{name}' is {shapes[0]}, not {shapes[1]}"
            )
