"""SmolVLA's files, in LeRobot's format: where they are, what they say, what their tensors are called.

    config.json         LeRobot's settings; `vlm_model_name` is the SmolVLM that it is built on
    model.safetensors   every weight: the SmolVLM, the action expert, the projections

Of the SmolVLM only `config.json` and the tokeniser are read: its weights are in the file above. A name is a
directory or an id on the Hub; what is on this machine is taken without a word with the Hub.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vla.base.errors import ConfigError
from vla.base.hub_folder import find_folder
from vla.base.strict import explain
from vla.policy.pretrained.smolvla_settings import SmolVLASettings, require_known

EXAMPLE = "lerobot/smolvla_base"
WEIGHTS = "model.safetensors"
VLM = "model.vlm_with_expert.vlm.model."
NAMES = {"language.": f"{VLM}text_model.", "expert.": "model.vlm_with_expert.lm_expert.", "": "model."}
"""What LeRobot calls the tensors of a `SmolVLANetwork`, by the beginning of their names."""
TIED = {f"{VLM}text_model.embed_tokens.weight": "model.vlm_with_expert.vlm.lm_head.weight"}
"""Of two names of one tensor safetensors keeps the first."""
VLM_EXAMPLE = "HuggingFaceTB/SmolVLM2-500M-Video-Instruct"
TOKENISER = ("*.json", "*.txt", "tokenizer*")
"""Whatever a SmolVLM's tokeniser has."""


@dataclass(frozen=True)
class SmolVLAFiles:
    """An opened SmolVLA; weights are read when they are asked for.

    Attributes:
        name: as it was asked for.
        folder: of its `config.json` and weights.
        table: the whole of `config.json`.
        settings: what vla heeds of it.
        vlm: folder of the SmolVLM's sizes and tokeniser.
        vlm_table: the whole of that one's `config.json`.
        shapes: of every tensor, by LeRobot's names.
    """

    name: str
    folder: Path
    table: dict[str, Any]
    settings: SmolVLASettings
    vlm: Path
    vlm_table: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]

    @classmethod
    def open(cls, name: str, revision: str = "main") -> "SmolVLAFiles":
        """Find a SmolVLA and read what it says of itself.

        Args:
            name: a directory, or `owner/name` on the Hub.
            revision: branch, tag or commit on the Hub.

        Raises:
            ConfigError: it is not there, is none, or is one that cannot be trained from a cache.
        """
        folder = find_folder(name, revision, ["config.json", WEIGHTS], "SmolVLA", EXAMPLE)
        table = _read_json(folder / "config.json", name)
        if table.get("type") != "smolvla":
            said = table.get("type") or table.get("model_type") or "nothing"
            raise ConfigError(
                f"{name}: config.json says that it is {said}, not smolvla; name a SmolVLA such as {EXAMPLE}"
            )
        known = {key: table[key] for key in SmolVLASettings.model_fields if key in table}
        try:
            settings = SmolVLASettings.model_validate(known)
        except ValidationError as error:
            raise ConfigError(f"{name}: config.json: {explain(error, SmolVLASettings)[:300]}") from None
        require_known(name, settings)
        vlm_name = settings.vlm_model_name
        what = f"SmolVLM of {name}"
        vlm = find_folder(vlm_name, "main", ["config.json"], what, VLM_EXAMPLE, patterns=TOKENISER)
        vlm_table = _read_json(vlm / "config.json", vlm_name)
        try:
            with safe_open(folder / WEIGHTS, framework="pt") as file:
                shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise ConfigError(f"{folder / WEIGHTS} cannot be read as safetensors ({error})") from None
        for own, kept in TIED.items():
            if own not in shapes and kept in shapes:
                shapes[own] = shapes[kept]
        return cls(name, folder, table, settings, vlm, vlm_table, shapes)

    def shape(self, tensor: str) -> tuple[int, ...]:
        """Return the shape of a tensor, by LeRobot's name.

        Raises:
            ConfigError: it is not there.
        """
        if tensor not in self.shapes:
            raise ConfigError(
                f"{self.folder / WEIGHTS} lacks tensor '{tensor}' of a SmolVLA; download it again"
            )
        return self.shapes[tensor]

    def read(self, tensors: Iterable[str]) -> dict[str, Tensor]:
        """Read tensors in float32, by LeRobot's names.

        Raises:
            ConfigError: one is not there.
        """
        with safe_open(self.folder / WEIGHTS, framework="pt") as file:
            there = set(file.keys())
            for name in tensors:
                self.shape(name)
            return {
                name: file.get_tensor(name if name in there else TIED[name]).to(torch.float32)
                for name in tensors
            }

    @property
    def commit(self) -> str | None:
        """The commit on the Hub that it was downloaded from; None elsewhere."""
        return self.folder.name if self.folder.parent.name == "snapshots" else None

    @property
    def frozen(self) -> list[str]:
        """Names of the tensors of the vision tower, its connector and the language model: never trained."""
        return sorted(name for name in self.shapes if name.startswith(VLM))

    def frozen_sha256(self) -> str:
        """Identify the frozen part by the names, shapes and float32 values of its tensors.

        A fine-tuned SmolVLA, whose expert alone was trained, has that of the one it began with.
        """
        digest = hashlib.sha256()
        for name in self.frozen:  # one at a time: 400 million numbers
            tensor = self.read([name])[name]
            digest.update(f"{name}{list(tensor.shape)}".encode())
            digest.update(tensor.contiguous().numpy().data)
        return digest.hexdigest()


def lerobot_name(tensor: str) -> str:
    """Return what LeRobot calls a tensor of the network."""
    begins = next(start for start in NAMES if tensor.startswith(start))
    return NAMES[begins] + tensor.removeprefix(begins)


def _read_json(path: Path, name: str) -> dict[str, Any]:
    try:
        table = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{name}: {path.name} cannot be read ({str(error)[:200]})") from None
    if not isinstance(table, dict):
        raise ConfigError(f"{name}: {path.name} holds no table")
    return table
