"""Open a dataset to look at it, where nobody has said yet what it does not say of itself."""

from pathlib import Path
from typing import Any

from vla.embed.datasets import open_source
from vla.embed.datasets.dataset_config import NONE, DatasetConfig
from vla.embed.datasets.source import NoFps, NoState


def config_to_look(path: Path) -> tuple[DatasetConfig, dict[str, str]]:
    """Return a configuration that opens a dataset, and a line for each key that had to be made up.

    Raises:
        DatasetError: it cannot be opened.
    """
    made_up: dict[str, Any] = {}
    lines: dict[str, str] = {}
    while True:
        config = DatasetConfig.model_validate({"path": str(path), **made_up})
        try:
            open_source(config)
        except NoFps as error:
            made_up["fps"], lines["fps"] = 1, str(error)
        except NoState as error:
            made_up["state_key"], lines["state_key"] = NONE, str(error)
        else:
            return config, lines
