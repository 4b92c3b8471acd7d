"""The demonstrations that a cache was made from, to be opened as they were then."""

import tomllib

from pydantic import ValidationError

from vla.base.errors import ConfigError
from vla.base.strict import explain
from vla.cache import FeatureCache
from vla.embed.datasets.dataset_config import DatasetConfig


def dataset_of(cache: FeatureCache, named: str | None = None) -> DatasetConfig:
    """Return the configuration of a cache's dataset.

    `cache.json` says what was read; how it was read, such as the order of colours, is in the settings beside
    it, which a cache made from Python may lack.

    Args:
        cache: the features.
        named: where the dataset lies, if not where it did.

    Raises:
        ConfigError: the settings cannot be read.
    """
    made, saved = cache.metadata.dataset, _saved(cache)
    path = saved.path if "path" in saved.model_fields_set else made.path
    return saved.model_copy(
        update={
            "path": named or path,
            "revision": None if named else made.revision,  # the commit, where the settings name a branch
            "cameras": cache.camera_names,
            "state_key": made.state_key,
            "action_key": made.action_key,
            "episodes": made.episodes or (),
            "fps": made.fps,
        }
    )


def _saved(cache: FeatureCache) -> DatasetConfig:
    path = cache.folder / "pipeline.toml"
    try:
        tables = tomllib.loads(path.read_text()) if path.is_file() else {}
        return DatasetConfig.model_validate(tables.get("dataset", {}))
    except ValidationError as error:
        raise ConfigError(f"{path}: {explain(error, DatasetConfig, 'dataset')}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read as TOML: {error}") from None
