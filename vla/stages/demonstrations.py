"""`record`, `embed` and `compact`: demonstrations, and what frozen encoders say of them."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vla.advice import advised
from vla.base.kept_encoder import FOLDER
from vla.config import PipelineConfig

if TYPE_CHECKING:
    from vla.embed.report import EmbedReport
    from vla.rollout.record.record import RecordReport


def record(settings: PipelineConfig) -> "RecordReport":
    """Record demonstrations into `record.out`; see `vla.rollout.record`."""
    from vla.rollout.record.record import record as run

    made_by = settings.to_toml(["env", "record"], without=["record.out", "record.workers", "record.append"])
    return run(settings.env, settings.record, {"pipeline.toml": made_by})


@advised
def embed(settings: PipelineConfig, *, dry_run: bool = False) -> "EmbedReport":
    """Encode what is new in `dataset` into a cache below `cache.path`; see `vla.embed.engine`."""
    from vla.embed.engine import embed as run

    notes = {"pipeline.toml": _made_by(settings)}
    if not dry_run:
        kept = settings.encoder.files()
        notes |= {f"{FOLDER}/{settings.encoder.name}/{file}": data for file, data in kept.items()}
    return run(settings.dataset, settings.encoder, settings.cache, settings.augment, notes, dry_run=dry_run)


@advised
def compact(path: Path) -> dict[str, Any]:
    """Rewrite a cache as one part; see `vla.cache.compact`."""
    from vla.base.lock import exclusive
    from vla.cache.compact import compact as run
    from vla.cache.reader import find_cache, read_metadata

    folder = find_cache(path)
    with exclusive(folder):
        before = len(read_metadata(folder).parts)
        made = run(folder)
    return {
        "cache": str(folder),
        "fingerprint": made.fingerprint,
        "episodes": len(made.episodes),
        "frames": made.num_frames,
        "parts_before": before,
        "parts": len(made.parts),
        "next": f"vla train --cache {shlex.quote(str(folder))}",
    }


def _made_by(settings: PipelineConfig) -> bytes:
    """Return the settings that the command which mends a cache names.

    They make the same cache from any directory and on any device, where `auto` would be other arithmetic.
    """
    from vla.base.device import choose_device, choose_dtype

    dataset, encoder = settings.dataset, settings.encoder
    chosen = choose_dtype(encoder.dtype, choose_device(encoder.device))
    dtype = chosen if chosen in encoder.dtypes else "auto"
    path = Path(dataset.path)
    place = str(path.absolute()) if path.is_dir() else dataset.path
    resolved = settings.model_copy(
        update={
            "dataset": dataset.model_copy(update={"path": place}),
            "encoder": encoder.model_copy(update={"dtype": dtype}),
        }
    )
    return resolved.to_toml(
        ["dataset", "encoder", "augment", "cache"],
        without=["cache.path", "encoder.workers", "encoder.device"],
    )
