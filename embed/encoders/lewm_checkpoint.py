"""Read the vision half of a LEWM checkpoint; what else it holds, such as predictor and optimiser, is left.

    epoch=99.ckpt                    Lightning: `state_dict` with `model.encoder.*`, `model.projector.*`
    weights.pt                       a plain state dict: `encoder.*`, `projector.*`
    config.json, model.safetensors   what `vla pretrain lewm` writes

Or a folder with one of these. Sizes are read off the tensors. Nothing is unpickled but tensors.
"""

import hashlib
import json
import pickle
import shlex
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from vla.base.errors import EncoderError
from vla.base.lewm import HEAD_DIM, LewmInput, LewmVision, VisionSizes
from vla.base.strict import explain
from vla.base.vit_names import load_named, named_tensors, new_name
from vla.embed.encoders.encoder_family import model_type_of

ANCHOR = "encoder.embeddings.cls_token"
LAST = "checkpoints/last"
"""In a run of `vla pretrain lewm`."""
NAMES = ("model.safetensors", "weights.pt")
ADVICE = (
    "name a .ckpt of Lightning, a weights.pt or a .safetensors file, or a folder with one; or train one: "
    "vla pretrain lewm"
)


@dataclass(frozen=True)
class LewmCheckpoint:
    """A ViT with its projector, in float32 on the CPU."""

    vision: LewmVision
    sha256: str
    """Over its tensors; the same for every form of a checkpoint and every version of transformers."""
    looks_at: LewmInput | None
    """What it was trained to look at; None where the checkpoint does not say."""


def load_lewm(name: str) -> LewmCheckpoint:
    """Load a LEWM checkpoint.

    Args:
        name: a file or a folder.

    Raises:
        EncoderError: there is none, or it lacks something, or it holds more than tensors.
    """
    path = _find(Path(name))
    tensors = _vision_tensors(path, _read(path))
    vision = LewmVision(_sizes(path, tensors))
    due = named_tensors(vision)
    wrong = sorted(due.keys() ^ tensors.keys()) or sorted(n for n in due if due[n].shape != tensors[n].shape)
    if wrong:
        what = "lacks" if wrong[0] in due and wrong[0] not in tensors else "has an unexpected"
        raise EncoderError(f"{path} {what} '{wrong[0]}': it is no ViT with a projector as LEWM's; {ADVICE}")
    load_named(vision, tensors)
    return LewmCheckpoint(vision, _hash(tensors), _looks_at(path.parent))


def _find(path: Path) -> Path:
    """Return the file that a name means."""
    if path.is_file():
        return path
    if not path.is_dir():
        raise EncoderError(f"no LEWM checkpoint at {path}; {ADVICE}")
    for name in (*NAMES, f"{LAST}/{NAMES[0]}"):
        if (path / name).is_file():
            return path / name
    found = sorted(path.glob("*.ckpt"))
    if len(found) == 1:
        return found[0]
    there = f"{len(found)} checkpoints ({', '.join(p.name for p in found[:3])})" if found else "no weights"
    raise EncoderError(f"{path} holds {there}; {ADVICE}")


def _read(path: Path) -> Mapping[str, Any]:
    """Return the tensors of a file by name; no code in it is run."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings(action="ignore"):  # of other protocols, before it refuses what they hold
            found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        quoted = shlex.quote(str(path))
        raise EncoderError(
            f"{path} holds more than tensors, which vla does not run. Where it was trained, save them alone: "
            f'python -c "import sys, torch; f = torch.load(sys.argv[1], weights_only=False); '
            f"torch.save(f.get('state_dict', f), 'weights.pt')\" {quoted}"
        ) from error
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, SafetensorError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise EncoderError(f"{path} cannot be read as a checkpoint: {reason}") from error
    inner = found.get("state_dict", found) if isinstance(found, dict) else None
    if not isinstance(inner, dict):
        raise EncoderError(f"{path} holds no table of tensors; {ADVICE}")
    return inner


def _vision_tensors(path: Path, state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return what belongs to encoder and projector, in float32, as transformers 5 spells their names."""
    prefixes = {str(key).removesuffix(ANCHOR) for key in state if str(key).endswith(ANCHOR)}
    if len(prefixes) != 1:
        found = f"{len(prefixes)} of them" if prefixes else "none"
        raise EncoderError(f"{path} should have one ViT, '{ANCHOR}', and has {found}; {ADVICE}")
    (prefix,) = prefixes
    parts = tuple(f"{prefix}{part}." for part in ("encoder", "projector"))
    kept = {str(key): value for key, value in state.items() if str(key).startswith(parts)}
    return {
        new_name(key.removeprefix(prefix)): value.float() if value.is_floating_point() else value
        for key, value in kept.items()
        if isinstance(value, Tensor)
    }


def _sizes(path: Path, tensors: Mapping[str, Tensor]) -> VisionSizes:
    """Read the sizes off the tensors."""
    try:
        width, _, patch, _ = tensors["encoder.embeddings.patch_embeddings.projection.weight"].shape
        positions = tensors["encoder.embeddings.position_embeddings"].shape[1] - 1
        mlp = tensors["encoder.layers.0.mlp.fc1.weight"].shape[0]
        hidden = tensors["projector.net.1.running_mean"].shape[0]  # of BatchNorm; other norms have none
        dim = tensors["projector.net.3.weight"].shape[0]
    except (KeyError, IndexError, ValueError) as error:
        raise EncoderError(f"{path} lacks {error} of a LEWM encoder with its projector; {ADVICE}") from error
    grid = round(positions**0.5)
    if grid**2 != positions or width % HEAD_DIM:
        raise EncoderError(
            f"{path} has a ViT of width {width} for {positions} patches; LEWM's have heads of {HEAD_DIM} "
            "numbers and square images"
        )
    depth = 1 + max(int(name.split(".")[2]) for name in tensors if name.startswith("encoder.layers."))
    return VisionSizes(width=width, depth=depth, mlp=mlp, patch=patch, grid=grid, projector=hidden, dim=dim)


def _hash(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        if tensor.is_floating_point():  # not how many batches BatchNorm has seen
            digest.update(f"{name}{list(tensor.shape)}".encode())
            digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()


def _looks_at(folder: Path) -> LewmInput | None:
    """Read what `vla pretrain lewm` wrote beside the weights; others write no such file."""
    if model_type_of(folder) != "lewm":
        return None
    path = folder / "config.json"
    try:
        return LewmInput.model_validate(json.loads(path.read_bytes()))
    except ValidationError as error:
        raise EncoderError(f"{path}: {explain(error, LewmInput)[:300]}") from error
