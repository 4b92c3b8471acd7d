"""Load a vision tower from the Hub or a directory, by transformers' own classes, whichever kind it is of.

    find       config.json says what it is; another kind than the one that was asked for is named
    load       float32, safetensors only; a tensor that is missing or of another shape is named
    prepare    the image processor's file, by `processor_files`
    identify   architecture and float32 tensors, whatever file held them

What is on this machine is loaded without a word with the Hub.
"""

import hashlib
import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import HfApi, constants
from torch import nn
from transformers.utils import cached_file

from vla.base.errors import EncoderError
from vla.base.hub import HUB_ERRORS, TIMEOUT_S, first_line, refusal
from vla.embed.encoders.encoder_family import ENCODERS, read_config
from vla.embed.encoders.processor_files import FLAT, NESTED, Choice, TowerInput, read_preprocessing
from vla.embed.encoders.vision_tower import TowerKind
from vla.embed.transforms import Preprocessing

NAFLEX = "SigLIP2 NaFlex, which takes sequences of patches, not images of one size"
OTHER_TYPES = {"siglip2": NAFLEX, "siglip2_vision_model": NAFLEX, "dinov3_convnext": "DINOv3 ConvNeXt"}
"""What checkpoints that people may name are, by `model_type`, where no encoder takes them."""


@dataclass(frozen=True)
class VisionCheckpoint:
    """A loaded vision tower, in float32 on the CPU, with where it came from."""

    model: Any
    preprocessing: Preprocessing
    commit: str | None
    """Commit on the Hub; None elsewhere."""


def load_tower(name: str, revision: str, kind: TowerKind, interpolation: Choice = "auto") -> VisionCheckpoint:
    """Load a vision tower.

    Args:
        name: a directory or a Hub id; tried in this order.
        revision: branch, tag or commit on the Hub.
        kind: what it must be.
        interpolation: how images are resized; `auto` is as the checkpoint says.

    Raises:
        EncoderError: the weights cannot be reached, are not a whole tower of that kind, or want images
            prepared as vla does not.
    """
    try:
        return _load(name, revision, kind, interpolation, local=True)  # downloaded: no word with the Hub
    except _NotFoundError:
        require_on_hub(name, revision)
        return _load(name, revision, kind, interpolation, local=False)


class _NotFoundError(EncoderError):
    """The files are not on this machine."""


def _load(
    name: str, revision: str, kind: TowerKind, interpolation: Choice, *, local: bool
) -> VisionCheckpoint:
    transformers.logging.set_verbosity_error()  # it lists a text tower's tensors as unexpected
    transformers.logging.disable_progress_bar()

    def find(file: str) -> str | None:
        found: str | None = cached_file(
            name,
            file,
            revision=revision,
            local_files_only=local,
            _raise_exceptions_for_missing_entries=False,
        )
        return found

    try:
        config = find("config.json")
        table = read_config(Path(config)) if config else {}
        model_type = _require_kind(name, table.get("model_type"), kind)
        model, report = getattr(transformers, kind.classes[model_type]).from_pretrained(
            name,
            revision=revision,
            local_files_only=local,
            dtype=torch.float32,
            use_safetensors=True,  # never a pickle
            output_loading_info=True,
            **{key: table[key] for key in kind.of_both_towers if key in table and "vision_config" in table},
            **names_in_files(kind),
        )
        files = {file: find(file) for file in (NESTED, FLAT)}
    except EncoderError:
        raise
    except OSError as error:
        raise _not_there(name, kind, error, local=local) from error
    except Exception as error:  # transformers, its validators and safetensors have errors of their own kinds
        raise EncoderError(
            f"{name} is no {kind.name} checkpoint that can be read: {first_line(error)}"
        ) from error
    lacks = {str(key) for key in [*report["missing_keys"], *report["mismatched_keys"]]} - {*kind.unused}
    if lacks:
        raise EncoderError(
            f"{name} lacks {len(lacks)} tensors of a {kind.name} vision tower, such as {min(lacks)}; "
            f"name a {kind.name} checkpoint, for example {kind.example}"
        )
    if not isinstance(model.config.image_size, int) or not isinstance(model.config.patch_size, int):
        raise EncoderError(
            f"{name}: config.json has image_size = {model.config.image_size} and patch_size = "
            f"{model.config.patch_size}; towers here take squares of square patches, so both must be a number"
        )
    takes = TowerInput(
        processors=kind.processors,
        size=None if kind.any_size else model.config.image_size,
        patch=model.config.patch_size,
    )
    preprocessing = read_preprocessing(name, files, takes, interpolation)
    return VisionCheckpoint(model, preprocessing, getattr(model.config, "_commit_hash", None))


def names_in_files(kind: TowerKind) -> dict[str, Any]:
    """Return what else transformers 4 must be told to read files that transformers 5 wrote."""
    if kind.names_in_transformers_4 and transformers.__version__ < "5":
        return {"key_mapping": dict(kind.names_in_transformers_4)}
    return {}


def _not_there(name: str, kind: TowerKind, error: OSError, *, local: bool) -> EncoderError:
    """Say what is missing; on this machine only, it may still be on the Hub."""
    folder = Path(name)
    if not folder.is_dir():
        if local:
            return _NotFoundError(f"encoder '{name}' is not on this machine")
        return EncoderError(
            f"{name} cannot be loaded from the Hub ({first_line(error)}); if its weights are a pickle, "
            "choose a revision with safetensors, --set encoder.revision=refs/pr/NUMBER of a conversion"
        )
    if pickles := sorted(folder.glob("*.bin")):
        return EncoderError(
            f"{name} is no {kind.name} checkpoint that is read: its weights are a pickle "
            f"({pickles[0].name}), which may run any code; save it as safetensors, with "
            "transformers' model.save_pretrained(DIR)"
        )
    return EncoderError(
        f"{name} holds no {kind.name} checkpoint (config.json and model.safetensors): {first_line(error)}"
    )


def _require_kind(name: str, found: object, kind: TowerKind) -> str:
    """Look at what a checkpoint calls itself before transformers fills a tower with what it lacks.

    Raises:
        EncoderError: it is of another kind.
    """
    if found is None:
        return next(iter(kind.classes))
    if isinstance(found, str) and found in kind.classes:
        return found
    for member, config in ENCODERS.members().items():
        if found in config.model_types:
            raise EncoderError(
                f"{name} is a checkpoint that encoder '{member}' takes, not '{kind.name}': "
                f"--set encoder.type={member}"
            )
    raise EncoderError(
        f"{name} is a checkpoint of {OTHER_TYPES.get(str(found), found)}, which no encoder here takes; those "
        f"of {kind.name} are for example {kind.example}; other kinds can be plugins: docs/plugins.md"
    )


def require_on_hub(name: str, revision: str) -> None:
    """Ask the Hub once, with a short wait: transformers would retry for half a minute."""
    advice = (
        f"download it where there is a network (hf download {shlex.quote(name)}) and name the directory, "
        "--encoder DIR; to try vla without weights: --encoder siglip2-tiny-random"
    )
    if constants.HF_HUB_OFFLINE:
        raise EncoderError(f"encoder '{name}' is not on this machine and HF_HUB_OFFLINE is set; {advice}")
    try:
        HfApi().model_info(name, revision=revision, timeout=TIMEOUT_S)
    except HUB_ERRORS as error:
        reason = refusal(error, "encoder", name, revision) or (
            f"encoder '{name}' is no directory, is not downloaded, and the Hub cannot be reached"
        )
        raise EncoderError(f"{reason}; {advice}") from error


def weights_sha256(model: nn.Module, kind: TowerKind) -> str:
    """Identify a vision tower by architecture and float32 tensors, whatever file held them.

    The two-tower checkpoint and the vision tower saved from it have the same identity, in transformers 4
    and 5.
    """
    digest = hashlib.sha256()
    architecture = {key: getattr(model.config, key, absent) for key, absent in kind.architecture.items()}
    digest.update(json.dumps(architecture, sort_keys=True).encode())
    tensors = {
        published(name, kind): tensor
        for name, tensor in model.state_dict().items()
        if name not in kind.unused
    }
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}{list(tensor.shape)}".encode())
        digest.update(tensor.detach().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def published(name: str, kind: TowerKind) -> str:
    """Return what files call a tensor that this transformers may call otherwise."""
    # transformers 4 keeps SigLIP's tower in `vision_model`, transformers 5 the layers of DINOv3 in `model`.
    name = re.sub(r"^(vision_model|model)\.", "", name)
    for now, published in kind.published_names.items():
        name = name.replace(now, published)
    return name
