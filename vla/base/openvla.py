"""The files of an OpenVLA (arXiv 2406.09246), for those who encode with it and those who train it.

    config.json                       sizes, size of images, statistics of the actions it was trained on
    dataset_statistics.json           further such statistics; fine-tuned ones have it
    model.safetensors.index.json      which file holds which tensor
    model-00001-of-00003.safetensors
    tokenizer.json                    Llama 2's

    vision_backbone.featurizer.*        DINOv2 with registers, by timm's names
    vision_backbone.fused_featurizer.*  SigLIP, by timm's names
    projector.fc1 … fc3                 fused patches to the width of the language model
    language_model.*                    Llama 2, by transformers' names

Tensors are read by name, out of those files alone that hold them. The Python files beside them are never run.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vla.base.errors import ConfigError, nearest
from vla.base.hub_folder import find_folder
from vla.base.strict import StrictModel, Width, explain

EXAMPLE = "openvla/openvla-7b"
DINO, SIGLIP = "vision_backbone.featurizer.", "vision_backbone.fused_featurizer."
PROJECTOR, LANGUAGE = "projector.", "language_model."
WEIGHTS, INDEX, STATISTICS = "model.safetensors", "model.safetensors.index.json", "dataset_statistics.json"


class ActionStatistics(StrictModel):
    """Of one dataset that an OpenVLA was trained on, in the robot's units."""

    q01: tuple[float, ...]
    """What 1 % of the actions are below: -1 to the model."""
    q99: tuple[float, ...]
    """What 1 % of them are above: 1 to the model."""
    mask: tuple[bool, ...] = ()
    """False where the model's own number is the robot's, as of a gripper; none given is True throughout."""


class OpenVLASettings(StrictModel):
    """What vla heeds of an OpenVLA's `config.json`, under its own names."""

    model_type: Literal["openvla"]
    use_fused_vision_backbone: Literal[True] = True
    timm_model_ids: tuple[str, str]
    timm_override_act_layers: tuple[None, None] = (None, None)
    image_sizes: tuple[Width, Width]
    image_resize_strategy: Literal["resize-naive"] = "resize-naive"
    n_action_bins: Annotated[int, Field(ge=2, le=4096)] = 256
    pad_to_multiple_of: Annotated[int, Field(ge=0)] = 64
    """Rows of the table of words past the tokeniser's vocabulary."""
    text_config: dict[str, Any] = Field(default_factory=dict)
    """Of the Llama; what it leaves out is transformers' default, which is Llama 2's 7B but for
    `rms_norm_eps` = 1e-6. OpenVLA was published and is used with that."""
    norm_stats: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True)
class OpenVLAFiles:
    """An opened OpenVLA; weights are read when they are asked for.

    Attributes:
        name: as it was asked for.
        revision: branch, tag or commit on the Hub.
        folder: of its files.
        settings: what vla heeds of config.json.
        files: which file holds each tensor.
    """

    name: str
    revision: str
    folder: Path
    settings: OpenVLASettings
    files: dict[str, str]

    @classmethod
    def open(cls, name: str, revision: str = "main") -> "OpenVLAFiles":
        """Find an OpenVLA and read what it says of itself; its weights are not downloaded yet.

        Args:
            name: a directory, or `owner/name` on the Hub.
            revision: branch, tag or commit on the Hub.

        Raises:
            ConfigError: it is not there, or is none that vla computes as it was trained.
        """
        folder = find_folder(name, revision, ["config.json"], "OpenVLA", EXAMPLE, patterns=["*.json"])
        table = _read_json(folder / "config.json")
        if (said := table.get("model_type")) != "openvla":
            raise ConfigError(
                f"{name}: config.json says that it is {said or 'nothing'}, not openvla; name one such as "
                f"{EXAMPLE}"
            )
        known = {key: table[key] for key in OpenVLASettings.model_fields if key in table}
        try:
            settings = OpenVLASettings.model_validate(known)
        except ValidationError as error:
            raise ConfigError(f"{name}: config.json: {explain(error, OpenVLASettings)[:300]}") from None
        if (folder / STATISTICS).is_file():
            both = {**settings.norm_stats, **_read_json(folder / STATISTICS)}
            settings = settings.model_copy(update={"norm_stats": both})
        if (folder / INDEX).is_file():
            files = _read_json(folder / INDEX).get("weight_map", {})
        else:
            find_folder(name, revision, [WEIGHTS], "OpenVLA", EXAMPLE)
            with _opened(folder / WEIGHTS) as weights:
                files = dict.fromkeys(weights.keys(), WEIGHTS)
        return cls(name, revision, folder, settings, {str(key): str(value) for key, value in files.items()})

    @property
    def commit(self) -> str | None:
        """The commit on the Hub; None of a directory."""
        return None if Path(self.name).is_dir() else self.folder.name

    def below(self, prefix: str) -> list[str]:
        """Return the names of the tensors that begin with something, sorted.

        Raises:
            ConfigError: there are none.
        """
        if not (names := sorted(name for name in self.files if name.startswith(prefix))):
            raise ConfigError(
                f"{self.name} has no tensor '{prefix}*' of an OpenVLA; name one such as {EXAMPLE}"
            )
        return names

    def vision(self) -> list[str]:
        """Return the tensors that the fused patches depend on: not the last blocks, nor what follows them.

        Raises:
            ConfigError: a tower is missing.
        """
        kept: list[str] = []
        for tower in (DINO, SIGLIP):
            names = self.below(tower)
            last = max((int(n.split(".")[3]) for n in names if n.startswith(f"{tower}blocks.")), default=0)
            left_out = tuple(f"{tower}{part}." for part in (f"blocks.{last}", "norm", "attn_pool"))
            kept += [name for name in names if not name.startswith(left_out)]
        return kept

    def language(self) -> list[str]:
        """Return the tensors of the projector and the language model.

        Raises:
            ConfigError: one of them is missing.
        """
        return [*self.below(PROJECTOR), *self.below(LANGUAGE)]

    def shape(self, name: str) -> list[int]:
        """Return the shape of a tensor without reading it.

        Raises:
            ConfigError: it is not there.
        """
        with _opened(self._path_of(name)) as weights:
            return list(weights.get_slice(name).get_shape())

    def tensors(self, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        """Yield tensors as they are stored, one at a time, file by file.

        Raises:
            ConfigError: one is not there, or its file is not.
        """
        wanted: dict[Path, list[str]] = {}
        for name in names:
            wanted.setdefault(self._path_of(name), []).append(name)
        for path, inside in sorted(wanted.items()):
            with _opened(path) as weights:
                there = set(weights.keys())
                for name in inside:
                    if name not in there:
                        raise ConfigError(f"{path} lacks tensor '{name}'; download it again")
                    yield name, weights.get_tensor(name)

    def _path_of(self, name: str) -> Path:
        """Return the file of a tensor, downloaded if need be."""
        if (file := self.files.get(name)) is None:
            raise ConfigError(f"{self.name} lacks tensor '{name}' of an OpenVLA; download it again")
        if not (path := self.folder / file).is_file():
            path = find_folder(self.name, self.revision, [file], "OpenVLA", EXAMPLE) / file
        return path

    def read(self, names: Iterable[str], dtype: torch.dtype) -> dict[str, Tensor]:
        """Read tensors in one arithmetic."""
        return {name: tensor.to(dtype) for name, tensor in self.tensors(names)}

    def sha256(self, names: Iterable[str]) -> str:
        """Identify tensors by name, shape and value as stored, whichever files hold them."""
        digests: dict[str, bytes] = {}
        for name, tensor in self.tensors(names):
            digest = hashlib.sha256(f"{name}{list(tensor.shape)}{tensor.dtype}".encode())
            digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
            digests[name] = digest.digest()
        return hashlib.sha256(b"".join(digests[name] for name in sorted(digests))).hexdigest()

    def action_statistics(self, key: str) -> ActionStatistics:
        """Return the statistics of the actions of a dataset.

        Raises:
            ConfigError: it was not trained on one of that name.
        """
        stats = self.settings.norm_stats
        if key not in stats:
            raise ConfigError(f"{self.name} has no action statistics '{key}'; {nearest(key, stats)}")
        action = stats[key].get("action", {}) if isinstance(stats[key], dict) else {}
        known = {name: action[name] for name in ActionStatistics.model_fields if name in action}
        try:
            return ActionStatistics.model_validate(known)
        except ValidationError as error:
            raise ConfigError(
                f"{self.name}: action statistics '{key}': {explain(error, ActionStatistics)[:300]}"
            ) from None


def _opened(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{path} cannot be read as safetensors ({error})") from None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        table = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read ({str(error)[:200]})") from None
    if not isinstance(table, dict):
        raise ConfigError(f"{path} holds no table")
    return table
