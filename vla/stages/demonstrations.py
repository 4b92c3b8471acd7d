"""`record` and `embed`: demonstrations, and what frozen encoders say of them."""

from pathlib import Path
from typing import TYPE_CHECKING

from vla.advice import advised
from vla.config import PipelineConfig

if TYPE_CHECKING:
    from vla.embed.engine import EmbedReport
    from vla.rollout.record.record import RecordReport


def record(settings: PipelineConfig) -> "RecordReport":
    """Record demonstrations into `record.out`; see `vla.rollout.record`."""
    from vla.rollout.record.record import record as run

    made_by = settings.to_toml(["env", "record"], without=["record.out", "record.workers", "record.append"])
    return run(settings.env, settings.record, {"pipeline.toml": made_by})


@advised
def embed(settings: PipelineConfig) -> "EmbedReport":
    """Encode `dataset` into a cache below `cache.path`; see `vla.embed.engine`."""
    from vla.embed.engine import embed as run

    notes = {"pipeline.toml": _made_by(settings)}
    return run(settings.dataset, settings.encoder, settings.cache, settings.augment, notes)


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
