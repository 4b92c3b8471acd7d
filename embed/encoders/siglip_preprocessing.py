"""How a SigLIP checkpoint wants its images, from the file that its image processor left.

processor_config.json      what transformers 5 writes, under `image_processor`; it goes first
preprocessor_config.json   what it wrote before

What vla would do otherwise is refused. A checkpoint without either file wants what SigLIP2 wants: squashed to
its size, bilinear, mean and standard deviation 0.5.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from vla.base.errors import EncoderError
from vla.base.strict import explain
from vla.embed.transforms import BICUBIC, BILINEAR, Interpolation, Preprocessing

NESTED, FLAT = "processor_config.json", "preprocessor_config.json"
PROCESSOR = "SiglipImageProcessor"
"""Those of this name, its fast and its PIL variants agree in what a missing key means."""
DEFAULTS: Mapping[str, Any] = {
    "image_processor_type": PROCESSOR,
    "do_resize": True,
    "do_rescale": True,
    "do_normalize": True,
    "do_convert_rgb": True,
    "resample": 3,
    "rescale_factor": 1 / 255,
    "image_mean": (0.5, 0.5, 0.5),
    "image_std": (0.5, 0.5, 0.5),
}
RESAMPLE: Mapping[int, Interpolation] = {2: BILINEAR, 3: BICUBIC}
"""By Pillow's numbers."""
CHOICES: Mapping[str, Interpolation] = {"bilinear": BILINEAR, "bicubic": BICUBIC}
Choice = Literal["auto", "bilinear", "bicubic"]


def read_preprocessing(
    name: str, files: Mapping[str, str | None], size: int, interpolation: Choice = "auto"
) -> Preprocessing:
    """Read what is done to an image before the tower sees it.

    Args:
        name: of the checkpoint, for messages.
        files: where `NESTED` and `FLAT` lie; None for one that is not there.
        size: height and width [pixel] of the tower's input.
        interpolation: takes the place of the checkpoint's; `auto` is the checkpoint's.

    Raises:
        EncoderError: a file is not of the right form, or wants what vla does not do.
    """
    file, table = _read(name, files)
    chosen = CHOICES.get(interpolation)
    if table is None:
        return Preprocessing(image_size=(size, size), interpolation=chosen or BILINEAR)
    wants = {**DEFAULTS, "size": {"height": size, "width": size}}
    wants |= {key: value for key, value in table.items() if value is not None}
    for key, due in _differences(wants, size, chosen is None):
        told = ", or choose: --set encoder.interpolation=bicubic" if key == "resample" else ""
        raise EncoderError(
            f"{name}: {file} has {key} = {json.dumps(wants[key])[:100]}, vla does {due}; its features would "
            f"not be the checkpoint's, so name another, such as google/siglip2-base-patch16-256{told}"
        )
    try:
        return Preprocessing(
            image_size=(size, size),
            interpolation=chosen or RESAMPLE[wants["resample"]],
            mean=tuple(wants["image_mean"]) if wants["do_normalize"] else (0.0, 0.0, 0.0),
            std=tuple(wants["image_std"]) if wants["do_normalize"] else (1.0, 1.0, 1.0),
        )
    except ValidationError as error:
        raise EncoderError(f"{name}: {file}: {explain(error, Preprocessing)[:300]}") from error
    except TypeError as error:
        raise EncoderError(f"{name}: {file} cannot be read ({str(error)[:200]})") from error


def _differences(wants: Mapping[str, Any], size: int, takes_resample: bool) -> Iterator[tuple[str, str]]:
    """Yield each key that wants something else than vla does, with what that is."""
    if not str(wants["image_processor_type"]).startswith(PROCESSOR):
        yield "image_processor_type", f"what {PROCESSOR} does"
    if not wants["do_resize"]:
        yield "do_resize", f"resize to {size} x {size}"
    if wants["size"] != {"height": size, "width": size}:
        yield "size", f"resize to {size} x {size}, the input of the tower"
    if takes_resample and wants["resample"] not in (*RESAMPLE,):
        yield "resample", "bilinear (2) and bicubic (3)"
    if not wants["do_rescale"]:
        yield "do_rescale", "divide by 255"
    factor = wants["rescale_factor"]
    if not isinstance(factor, int | float) or abs(255 * factor - 1) > 1e-6:
        yield "rescale_factor", "1 / 255"
    for key, value in wants.items():
        if key.startswith("do_") and key not in DEFAULTS and value:
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
