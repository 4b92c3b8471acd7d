"""How a checkpoint wants its images, from the file that its image processor left.

processor_config.json      what transformers 5 writes, under `image_processor`; it goes first
preprocessor_config.json   what it wrote before

Two geometries are known: squashed to the tower's size (SigLIP, DINOv3), and the shorter edge brought to a
size and a square cut out of the middle (CLIP, DINOv2). What vla would do otherwise is refused.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from vla.base.errors import EncoderError
from vla.base.strict import explain
from vla.embed.transforms import BICUBIC, BILINEAR, Interpolation, Preprocessing

NESTED, FLAT = "processor_config.json", "preprocessor_config.json"
Table = dict[str, Any]
COMMON: Table = {
    "do_resize": True,
    "do_rescale": True,
    "do_normalize": True,
    "do_convert_rgb": True,
    "do_center_crop": False,
    "rescale_factor": 1 / 255,
    "crop_size": None,
}
SQUASHED: Table = {**COMMON, "size": {"height": 224, "width": 224}}
CROPPED: Table = {
    **COMMON,
    "size": {"shortest_edge": 224},
    "do_center_crop": True,
    "crop_size": 224,
    "resample": 3,
}
CLIP_COLOURS: Table = {
    "image_mean": (0.48145466, 0.4578275, 0.40821073),
    "image_std": (0.26862954, 0.26130258, 0.27577711),
}
IMAGENET_COLOURS: Table = {"image_mean": (0.485, 0.456, 0.406), "image_std": (0.229, 0.224, 0.225)}
SIGLIP: Table = {**COMMON, "image_mean": (0.5, 0.5, 0.5), "image_std": (0.5, 0.5, 0.5), "resample": 3}
PROCESSORS: Mapping[str, Table] = {
    "SiglipImageProcessor": SIGLIP,
    "CLIPImageProcessor": CROPPED | CLIP_COLOURS,
    "BitImageProcessor": CROPPED | CLIP_COLOURS,
    "DINOv3ViTImageProcessor": SQUASHED | IMAGENET_COLOURS | {"resample": 2},
}
"""What a missing key means to each image processor of transformers; its fast and its PIL variant agree.
SigLIP's without `size` means the tower's."""
OLD_NAMES = {"CLIPFeatureExtractor": "CLIPImageProcessor"}
RESAMPLE: Mapping[int, Interpolation] = {2: BILINEAR, 3: BICUBIC}
"""By Pillow's numbers."""
CHOICES: Mapping[str, Interpolation] = {"bilinear": BILINEAR, "bicubic": BICUBIC}
Choice = Literal["auto", "bilinear", "bicubic"]


@dataclass(frozen=True, kw_only=True)
class TowerInput:
    """What a vision tower takes."""

    processors: tuple[str, ...] = ("SiglipImageProcessor",)
    """Image processors that go with it; the first is meant where a file names none."""
    size: int | None
    """Height and width [pixel] of its input; None is any square of whole patches: the processor decides."""
    patch: int = 1
    """Height and width [pixel] of a patch; a tower of one size may leave a margin without any."""


def read_preprocessing(
    name: str, files: Mapping[str, str | None], takes: TowerInput, interpolation: Choice = "auto"
) -> Preprocessing:
    """Read what is done to an image before the tower sees it.

    Args:
        name: of the checkpoint, for messages.
        files: where `NESTED` and `FLAT` lie; None for one that is not there.
        takes: what the tower takes.
        interpolation: takes the place of the checkpoint's; `auto` is the checkpoint's.

    Raises:
        EncoderError: a file is missing or not of the right form, or wants what vla does not do.
    """
    file, table = _read(name, files)
    chosen = CHOICES.get(interpolation)
    if table is None:
        if takes.processors[0] == "SiglipImageProcessor" and takes.size:  # squashed, as SigLIP2's own does
            return Preprocessing(image_size=(takes.size, takes.size), interpolation=chosen or BILINEAR)
        raise EncoderError(
            f"{name} does not say how its images are prepared; put the {FLAT} of its repository beside the "
            "weights"
        )
    kind = _kind(table, takes.processors[0])
    wants: dict[str, Any] = {
        "size": {"height": takes.size, "width": takes.size},
        **PROCESSORS.get(kind, SIGLIP),
    }
    wants |= {key: value for key, value in table.items() if value is not None}
    wants["image_processor_type"] = kind
    if kind not in takes.processors:
        raise EncoderError(
            f"{name}: {file} is of {kind}, but images of its tower are prepared by "
            f"{' or '.join(takes.processors)}; name another checkpoint"
        )
    for key, due in (*_differences(wants, chosen is None), *_wrong_sizes(wants, takes)):
        told = ", or choose: --set encoder.interpolation=bicubic" if key == "resample" else ""
        raise EncoderError(
            f"{name}: {file} has {key} = {json.dumps(wants[key])[:100]}, vla does {due}; its features would "
            f"not be the checkpoint's, so name another{told}"
        )
    resized, seen = _edges(wants)
    assert resized is not None and seen is not None
    try:
        return Preprocessing(
            image_size=(resized, resized),
            interpolation=chosen or RESAMPLE[wants["resample"]],
            mean=tuple(wants["image_mean"]) if wants["do_normalize"] else (0.0, 0.0, 0.0),
            std=tuple(wants["image_std"]) if wants["do_normalize"] else (1.0, 1.0, 1.0),
            crop=(seen, seen) if wants["do_center_crop"] else None,
        )
    except ValidationError as error:
        raise EncoderError(f"{name}: {file}: {explain(error, Preprocessing)[:300]}") from error
    except TypeError as error:
        raise EncoderError(f"{name}: {file} cannot be read ({str(error)[:200]})") from error


def _kind(table: Table, default: str) -> str:
    """Return the class of an image processor, whichever variant of it wrote the file."""
    said = str(table.get("image_processor_type") or table.get("feature_extractor_type") or default)
    said = OLD_NAMES.get(said, said)
    return said.removesuffix("Fast").removesuffix("Pil")


def _edges(wants: Table) -> tuple[int | None, int | None]:
    """Return the edges [pixel] of the square that a frame is brought to, and of the one that the tower sees.

    None is what is no square. A bare number is both edges of a crop, and the shorter edge of a size: that is
    how the first files of CLIP were written.
    """
    if not wants["do_center_crop"]:
        square = _square(wants["size"])
        return square, square
    size, crop = wants["size"], wants["crop_size"]
    if isinstance(size, Mapping):
        size = size.get("shortest_edge") if set(size) == {"shortest_edge"} else None
    seen = _square({"height": crop, "width": crop} if isinstance(crop, int) else crop)
    return (size if isinstance(size, int) and size > 0 else None), seen


def _square(size: object) -> int | None:
    if not isinstance(size, Mapping) or set(size) != {"height", "width"}:
        return None
    height, width = size["height"], size["width"]
    return height if isinstance(height, int) and height == width and height > 0 else None


def _wrong_sizes(wants: Table, takes: TowerInput) -> Iterator[tuple[str, str]]:
    """Yield a key whose size is none that the tower takes, with what would be one."""
    (resized, seen), crops = _edges(wants), wants["do_center_crop"]
    if takes.size is None:
        due, fits = (
            f"a square of whole patches of {takes.patch}",
            seen is not None and seen % takes.patch == 0,
        )
    else:
        due, fits = f"{takes.size} x {takes.size}, the input of the tower", seen == takes.size
    if seen is None or not fits:
        yield "crop_size" if crops else "size", f"{'cut out' if crops else 'resize to'} {due}"
    elif resized is None:
        yield "size", "bring the shorter edge to a size and cut after that"
    elif resized < seen or (resized - seen) % 2:
        yield "size", f"cut {seen} x {seen} with equal margins"


def _differences(wants: Table, takes_resample: bool) -> Iterator[tuple[str, str]]:
    """Yield each key that wants something else than vla does, with what that is."""
    if not wants["do_resize"]:
        yield "do_resize", "resize to the input of the tower"
    if takes_resample and wants["resample"] not in (*RESAMPLE,):
        yield "resample", "bilinear (2) and bicubic (3)"
    if not wants["do_rescale"]:
        yield "do_rescale", "divide by 255"
    factor = wants["rescale_factor"]
    if not isinstance(factor, int | float) or abs(255 * factor - 1) > 1e-6:
        yield "rescale_factor", "1 / 255"
    for key, value in wants.items():
        if key.startswith("do_") and key not in COMMON and value:
            yield key, "nothing of that kind"


def _read(name: str, files: Mapping[str, str | None]) -> tuple[str, dict[str, Any] | None]:
    """Return the table of the image processor and the file that it is in; None where there is none.

    Raises:
        EncoderError: a file cannot be read, or holds no table.
    """
    for file in (NESTED, FLAT):
        path = files.get(file)
        if path is None:
            continue
        try:
            table = json.loads(Path(path).read_bytes())
            if file == NESTED and isinstance(table, dict):
                if "image_processor" not in table:
                    continue  # of transformers 4, which kept it in the other file
                table = table["image_processor"]
            if not isinstance(table, dict):
                raise ValueError("it is no table")
        except (OSError, ValueError, RecursionError) as error:
            raise EncoderError(f"{name}: {file} cannot be read ({str(error)[:200]})") from error
        return file, table
    return FLAT, None
