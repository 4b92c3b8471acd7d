"""Load the vision tower of a SigLIP checkpoint from the Hub, a directory, or vla itself.

Both published forms load: the vision tower alone, and the two-tower `SiglipModel` as it stands
under `google/siglip2-base-patch16-256`, of which only the vision half is read. Two come with vla, in the
architecture of the real checkpoint but small:

siglip2-tiny-sim      trained on renders of `sim_transfer` (scripts/tiny_sim); knows that task and no other
siglip2-tiny-random   random weights from a fixed seed: for trying the pipeline on data of any kind
"""

import hashlib
import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import HfApi, constants
from transformers import SiglipVisionConfig, SiglipVisionModel
from transformers.utils import cached_file

from vla.base.errors import EncoderError
from vla.base.hub import HUB_ERRORS, TIMEOUT_S, first_line, refusal
from vla.embed.encoders.encoder import model_type_of
from vla.embed.encoders.siglip import SiglipConfig
from vla.embed.encoders.siglip_preprocessing import FLAT, NESTED, Choice, read_preprocessing
from vla.embed.transforms import Preprocessing

TINY_SIM = "siglip2-tiny-sim"
TINY_SIM_FOLDER = Path(__file__).parents[1] / "assets" / TINY_SIM
TINY_RANDOM = "siglip2-tiny-random"

TINY_CONFIG = {
    "hidden_size": 128,
    "intermediate_size": 512,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "image_size": 256,
    # 64 patches instead of 256: 527 images/s on two CPU cores, 116 with patches of 16.
    "patch_size": 32,
}
OTHER_TYPES = {
    "siglip2": "SigLIP2 NaFlex, which takes sequences of patches, not images of one size",
    "siglip2_vision_model": "SigLIP2 NaFlex, which takes sequences of patches, not images of one size",
    "clip": "CLIP",
    "clip_vision_model": "CLIP",
    "dinov2": "DINOv2",
    "dinov2_with_registers": "DINOv2",
    "dinov3_vit": "DINOv3",
}
"""What checkpoints that people may name are, by `model_type`."""
# transformers 4 keeps the tower in an attribute `vision_model`, transformers 5 saves it without that prefix.
BARE_NAMES: dict[str, Any] = (
    {"key_mapping": {r"^(?!vision_model\.)": "vision_model."}} if transformers.__version__ < "5" else {}
)
# What decides the function besides the tensors; everything else in a config is bookkeeping.
ARCHITECTURE_KEYS = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_channels",
    "image_size",
    "patch_size",
    "hidden_act",
    "layer_norm_eps",
    "vision_use_head",
)


@dataclass(frozen=True)
class VisionCheckpoint:
    """A loaded vision tower, in float32 on the CPU, with where it came from."""

    model: SiglipVisionModel
    preprocessing: Preprocessing
    commit: str | None
    """Commit on the Hub; None elsewhere."""


def load_checkpoint(name: str, revision: str, interpolation: Choice = "auto") -> VisionCheckpoint:
    """Load a vision tower.

    Args:
        name: a directory, a built-in name, or a Hub id; tried in this order.
        revision: branch, tag or commit on the Hub.
        interpolation: how images are resized; `auto` is as the checkpoint says.

    Raises:
        EncoderError: the weights cannot be reached, are not a whole SigLIP vision tower, or want images
            prepared as vla does not.
    """
    if Path(name).is_dir():
        return _load(name, revision, interpolation, local=True)
    if name == TINY_SIM:
        return _load(str(TINY_SIM_FOLDER), revision, interpolation, local=True)
    if name == TINY_RANDOM:
        model = tiny_random()
        spec = read_preprocessing(name, {}, model.config.image_size, interpolation)
        return VisionCheckpoint(model, spec, None)
    try:
        return _load(name, revision, interpolation, local=True)  # already downloaded: no word with the Hub
    except _NotFoundError:
        require_on_hub(name, revision)
        return _load(name, revision, interpolation, local=False)


class _NotFoundError(EncoderError):
    """The files are not on this machine."""


def _load(name: str, revision: str, interpolation: Choice, *, local: bool) -> VisionCheckpoint:
    transformers.logging.set_verbosity_error()  # it lists the text tower's tensors as unexpected
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
        _require_siglip(name, find("config.json"))
        model, report = SiglipVisionModel.from_pretrained(
            name,
            revision=revision,
            local_files_only=local,
            dtype=torch.float32,
            use_safetensors=True,  # never a pickle
            output_loading_info=True,
            **BARE_NAMES,
        )
        files = {file: find(file) for file in (NESTED, FLAT)}
    except OSError as error:
        if Path(name).is_dir():
            raise EncoderError(
                f"{name} holds no SigLIP checkpoint (config.json and model.safetensors): {first_line(error)}"
            ) from error
        raise _NotFoundError(f"encoder '{name}' is not on this machine") from error
    except (ValueError, RuntimeError, KeyError, TypeError) as error:
        raise EncoderError(f"{name} is no SigLIP checkpoint that can be read: {first_line(error)}") from error
    if report["missing_keys"] or report["mismatched_keys"]:
        missing = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
        raise EncoderError(
            f"{name} lacks {len(missing)} tensors of a SigLIP vision tower, such as {missing[0]}; "
            "name a SigLIP checkpoint, for example google/siglip2-base-patch16-256"
        )
    preprocessing = read_preprocessing(name, files, model.config.image_size, interpolation)
    return VisionCheckpoint(model, preprocessing, getattr(model.config, "_commit_hash", None))


def _require_siglip(name: str, config: str | None) -> None:
    """Look at what a checkpoint calls itself before transformers fills a SigLIP tower with what it lacks.

    Raises:
        EncoderError: it is of another kind.
    """
    found = model_type_of(Path(config).parent) if config else None
    if found is None or found in SiglipConfig.model_types:
        return
    raise EncoderError(
        f"{name} is a checkpoint of {OTHER_TYPES.get(found, found)}; the encoder 'siglip' takes SigLIP "
        "towers for images of one size, for example google/siglip2-base-patch16-256; other kinds can be "
        "plugins: docs/plugins.md"
    )


def require_on_hub(name: str, revision: str) -> None:
    """Ask the Hub once, with a short wait: transformers would retry for half a minute."""
    advice = (
        f"download it where there is a network (hf download {shlex.quote(name)}) and name the directory, "
        f"--encoder DIR; to try vla without weights: --encoder {TINY_RANDOM}"
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


def uses_head(model: SiglipVisionModel) -> bool:
    """Return whether a vision tower has a pooling head; transformers 4 leaves the key out where it has."""
    return bool(getattr(model.config, "vision_use_head", True))


def weights_sha256(model: SiglipVisionModel) -> str:
    """Identify a vision tower by architecture and float32 tensors, whatever file held them.

    The two-tower checkpoint and the vision tower saved from it have the same identity.
    """
    digest = hashlib.sha256()
    architecture: dict[str, Any] = {key: getattr(model.config, key, None) for key in ARCHITECTURE_KEYS}
    architecture["vision_use_head"] = uses_head(model)
    digest.update(json.dumps(architecture, sort_keys=True).encode())
    for name, tensor in sorted(model.state_dict().items()):
        # transformers 4 keeps the tower in an attribute of that name, transformers 5 does not.
        digest.update(f"{name.removeprefix('vision_model.')}{list(tensor.shape)}".encode())
        digest.update(tensor.detach().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def tiny_random() -> SiglipVisionModel:
    """Build a SigLIP vision tower with random weights; the same ones every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SiglipVisionModel(SiglipVisionConfig(**TINY_CONFIG))
