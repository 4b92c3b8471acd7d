"""Check what a path holds: a dataset, a feature cache, or a run; down to every byte and value."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from vla.base.errors import VlaError

if TYPE_CHECKING:
    from vla.embed.datasets.dataset_config import DatasetConfig


def verify(
    path: Path,
    *,
    reencode: int = 0,
    dataset: str | None = None,
    encoder: str | None = None,
    device: str = "auto",
    settings: "DatasetConfig | None" = None,
) -> dict[str, Any]:
    """Look for damage.

    Args:
        path: a dataset, cache or run.
        reencode: of a cache, frames to encode again and compare; 0 is none.
        dataset: where a cache's demonstrations lie, if not where it says.
        encoder: where its encoder lies, if not where it says.
        device: where to encode.
        settings: how a dataset is to be read; its path is `path`.

    Returns:
        `kind`, `path` and `problems`, a line each with what to run next; empty is good. Of a dataset also
        `remarks` and `resting`, which are worth knowing and no damage. After `reencode`
        also `reencoded_frames` and `largest_difference`, 1 being what is allowed.

    Raises:
        VlaError: nothing there is known to vla, or is not what `reencode` needs.
    """
    from vla.embed.datasets.recognise import is_dataset

    if reencode < 0:
        raise VlaError(f"--reencode takes a number of frames, found {reencode}")
    if (path / "cache.json").exists() or list(path.glob("*/cache.json")):
        return _cache(path, reencode, dataset, encoder, device)
    if reencode:
        raise VlaError(f"{path} is no feature cache; --reencode compares the frames of one")
    if (path / "pipeline.toml").is_file() and (path / "checkpoints").is_dir():
        from vla.policy.training.run_damage import run_problems

        return {"kind": "training run", "path": str(path), "problems": run_problems(path)}
    if is_dataset(path):
        return _dataset(path, settings)
    found = "an empty or unknown folder" if path.is_dir() else "a file" if path.exists() else "nothing"
    raise VlaError(
        f"{path} is {found}; vla verify takes a cache (cache.json), a run (pipeline.toml) or a dataset "
        "(meta/info.json, *.hdf5 or a replay buffer in zarr)"
    )


def _cache(
    path: Path, reencode: int, dataset: str | None, encoder: str | None, device: str
) -> dict[str, Any]:
    from vla.advice import advise
    from vla.base.kept_encoder import kept_encoder
    from vla.cache.cache_damage import cache_problems

    problems = [advise(problem) for problem in cache_problems(path)]
    report: dict[str, Any] = {"kind": "feature cache", "path": str(path), "problems": problems}
    if not reencode or problems:  # what is damaged already need not be encoded to be known
        return report
    from vla.cache import FeatureCache
    from vla.embed.datasets.dataset_config import dataset_of
    from vla.embed.encoders.encoder_family import encoder_config
    from vla.embed.reencode import reencode_problems

    cache = FeatureCache(path)
    made_by = cache.metadata.encoder
    if made_by is None:
        raise VlaError(f"{path} holds no stream of an encoder; --reencode has nothing to compare")
    where = {"device": device, "dtype": made_by.dtype if made_by.dtype != "uint8" else "auto"}
    place = encoder or kept_encoder(cache.folder)
    named = {"id": str(place), "revision": "main"} if place else {}
    config = encoder_config(made_by, **where, **named)
    differing, worst = reencode_problems(cache, dataset_of(cache, dataset), config, reencode)
    frames = min(reencode, cache.num_frames)
    figures = {"reencoded_frames": frames, "largest_difference": round(worst, 4)}
    return {**report, "problems": differing, **figures}


def _dataset(path: Path, settings: "DatasetConfig | None") -> dict[str, Any]:
    from vla.embed.datasets.dataset_config import DatasetConfig
    from vla.embed.datasets.looking import config_to_look
    from vla.embed.reencode import check_dataset

    config, _ = config_to_look(settings or DatasetConfig(path=str(path)))
    return {"kind": "dataset", "path": str(path), **check_dataset(config)}
