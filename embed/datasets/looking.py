"""Open a dataset to look at it, where nobody has said yet what it does not say of itself."""

from typing import Any

from vla.embed.datasets import open_source
from vla.embed.datasets.dataset_config import NONE, DatasetConfig
from vla.embed.datasets.source import NoFps, NoState


def config_to_look(config: DatasetConfig) -> tuple[DatasetConfig, dict[str, str]]:
    """Return a configuration that opens a dataset, and a line for each key that had to be made up.

    Args:
        config: what is known of it.

    Raises:
        DatasetError: it cannot be opened.
    """
    made_up: dict[str, Any] = {}
    lines: dict[str, str] = {}
    while True:
        whole = config.model_copy(update=made_up)
        try:
            open_source(whole)
        except NoFps as error:
            made_up["fps"], lines["fps"] = 1.0, str(error)
        except NoState as error:
            made_up["state_key"], lines["state_key"] = NONE, str(error)
        else:
            return whole, lines
