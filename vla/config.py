"""The configuration of a whole pipeline: `pipeline.toml`, one table a stage.

The order is defaults < file < options; the resolved configuration is saved with every output.
"""

import copy
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import tomli_w
from pydantic import ValidationError

from vla.base.errors import ConfigError, nearest
from vla.base.family import as_table, load_plugins
from vla.base.files import write_atomically
from vla.base.progress import say
from vla.base.strict import StrictModel, explain
from vla.cache.metadata import Augmentation
from vla.cache.writer import CacheConfig
from vla.embed.datasets.dataset_config import DatasetConfig
from vla.embed.encoders.encoder import EncoderConfig
from vla.embed.encoders.encoder_family import ENCODERS
from vla.policy.policy_config import POLICIES, PolicyConfig
from vla.policy.pretrain.pretrain_config import PretrainConfig
from vla.policy.training.train_config import TrainConfig
from vla.rollout.rollout_config import EnvConfig, RecordConfig, RolloutConfig, ServeConfig

DEFAULT_FILE = Path("pipeline.toml")
PRESETS = Path(__file__).parent / "presets"


class PluginsConfig(StrictModel):
    """Members of families that live outside of vla: encoders, trunks, fusions, heads, policies, worlds."""

    modules: tuple[str, ...] = ()
    """Python modules that define some; imported first. Installed packages need no mention: their entry points
    of the group `vla.plugins` are found. What a run or a shared policy saved here is not imported."""


class PipelineConfig(StrictModel):
    """All tables; a table that is not given has its defaults."""

    env: EnvConfig = EnvConfig()
    record: RecordConfig = RecordConfig()
    dataset: DatasetConfig = DatasetConfig()
    encoder: Annotated[EncoderConfig, ENCODERS.choice()] = ENCODERS.by_default()
    augment: Augmentation = Augmentation()
    cache: CacheConfig = CacheConfig()
    policy: Annotated[PolicyConfig, POLICIES.choice()] = POLICIES.by_default()
    train: TrainConfig = TrainConfig()
    pretrain: PretrainConfig = PretrainConfig()
    rollout: RolloutConfig = RolloutConfig()
    serve: ServeConfig = ServeConfig()
    plugins: PluginsConfig = PluginsConfig()

    @classmethod
    def load(
        cls,
        file: Path | None,
        options: Mapping[str, Any],
        assignments: Sequence[str],
        base: Mapping[str, Any] | None = None,
        preset: str | None = None,
    ) -> "PipelineConfig":
        """Resolve the configuration of one command.

        Args:
            file: `--config`; None takes `pipeline.toml` of the working directory if there is one.
            options: values of named options by dotted key; None values were not given.
            assignments: `--set` arguments such as `train.lr=3e-4`; the value is read as TOML, or
                else as a string.
            base: tables of an earlier configuration; takes the place of `pipeline.toml`. It may be a
                stranger's, so the plugins that it names are not imported.
            preset: name of a set of values that comes with vla, below all others.

        Raises:
            ConfigError: the file is missing or not TOML, no preset has that name, or a key or value is not
                valid.
        """
        if file is None and base is None and DEFAULT_FILE.is_file():
            file = DEFAULT_FILE
        tables: dict[str, Any] = read_preset(preset) if preset else {}
        _merge(tables, {key: copy.deepcopy(value) for key, value in (base or {}).items() if key != "plugins"})
        if file is not None:
            given = read_tables(file)
            if preset and (taken := list(_replaced(read_preset(preset), given))):
                say(f"{file} takes the place of --preset {preset} in {', '.join(taken)}")
            _merge(tables, given)
        for assignment in assignments:
            key, found, text = assignment.partition("=")
            if not found:
                raise ConfigError(f"--set takes table.key=value, found '{assignment}'")
            _assign(tables, key.strip(), _value(text.strip()))
        for key, value in options.items():
            if value is not None:
                _assign(tables, key, value)
        try:
            named = PluginsConfig.model_validate(tables.get("plugins", {}))
        except ValidationError as error:
            raise ConfigError(explain(error, PluginsConfig, "plugins")) from None
        load_plugins(named.modules)
        try:
            return cls.model_validate(tables)
        except ValidationError as error:
            where = f"{file}: " if file else ""
            raise ConfigError(f"{where}{explain(error, cls)}") from None

    def save(self, path: Path, tables: Sequence[str] = (), without: Sequence[str] = ()) -> None:
        """Write the configuration as TOML; see `to_toml`."""
        write_atomically(path, self.to_toml(tables, without))

    def to_toml(self, tables: Sequence[str] = (), without: Sequence[str] = ()) -> bytes:
        """Return the configuration as TOML.

        Args:
            tables: only these tables; empty writes all.
            without: dotted keys to leave out, those that do not change the output.
        """
        dumped = self.model_dump(mode="json", exclude_none=True, include=set(tables) or None)
        for key in without:
            table, _, name = key.partition(".")
            dumped.get(table, {}).pop(name, None)
        return tomli_w.dumps(dumped).encode()


def read_preset(name: str) -> dict[str, Any]:
    """Read a set of values that comes with vla, by its name: those in `vla/presets`.

    Raises:
        ConfigError: there is none of that name.
    """
    known = sorted(path.stem for path in PRESETS.glob("*.toml"))
    if name not in known:
        raise ConfigError(f"there is no preset '{name}'; {nearest(name, known)}")
    return read_tables(PRESETS / f"{name}.toml")


def read_tables(path: Path) -> dict[str, Any]:
    """Read the tables of a configuration file, unchecked.

    Raises:
        ConfigError: the file is missing or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise ConfigError(f"no configuration file {path}; name another with --config") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read as TOML: {error}") from None


def _value(text: str) -> Any:
    """Read a TOML value; a bare word is a string, so that `--set encoder.id=some/model` works."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        return text


def _assign(tables: dict[str, Any], key: str, value: Any) -> None:
    *folders, name = key.split(".")
    for depth, folder in enumerate(folders):
        # `head = "flow"` of a file stands for the table { type = "flow" }.
        found = tables.setdefault(folder, {})
        table = as_table(found) if depth else found
        if not isinstance(table, dict):
            raise ConfigError(f"--set {key}: '{folder}' is a value, not a table")
        tables[folder] = table
        tables = table
    tables[name] = value


def _replaced(below: Mapping[str, Any], above: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the dotted keys of one configuration that another gives other values."""
    for key in sorted(below.keys() & above.keys()):
        if isinstance(below[key], Mapping) and isinstance(above[key], Mapping):
            yield from _replaced(below[key], above[key], f"{prefix}{key}.")
        elif below[key] != above[key]:
            yield f"{prefix}{key}"


def _merge(into: dict[str, Any], other: Mapping[str, Any]) -> None:
    for key, value in other.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value
