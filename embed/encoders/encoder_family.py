"""Which encoder: by name, by what a checkpoint calls itself, or by what a cache or policy remembers."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from vla.base.errors import ConfigError, EncoderError
from vla.base.family import Family
from vla.base.strict import explain
from vla.cache.metadata import EncoderIdentity
from vla.embed.encoders.encoder import EncoderConfig
from vla.embed.encoders.policy_folder import holds_policy

MAX_CONFIG_BYTES = 1 << 20


class EncoderFamily(Family[EncoderConfig]):
    """Frozen encoders; one that is not named by `type` is recognised by `id`."""

    def parse(self, value: object) -> EncoderConfig:
        if isinstance(value, str):
            value = {"type": value} if value == self.default else {"id": value}
        if isinstance(value, Mapping) and "type" not in value:
            value = {**value, "type": self._recognised(value.get("id"))}
        return super().parse(value)

    def _recognised(self, name: object) -> str:
        default = self.member(self.default)
        if not isinstance(name, str) or name == default.model_fields["id"].default:
            return self.default
        model_type = model_type_of(Path(name))
        if model_type in default.model_types:
            return self.default
        if "/" not in name and not Path(name).is_dir() and name in self.members():
            return name
        if model_type is not None or "/" in name:
            for member, config in self.members().items():
                if model_type in config.model_types or (
                    model_type is None and name.startswith(config.hub_names)
                ):
                    return member
        return "trunk" if holds_policy(Path(name)) else self.default


# A trunk is a policy's: the encoder made of one is in the room that knows both.
ENCODERS = EncoderFamily(
    "encoder", EncoderConfig, "vla.embed.encoders", "vla.rollout.encoders", default="siglip"
)


def encoder_config(identity: EncoderIdentity, **where: Any) -> EncoderConfig:
    """Return the configuration of the encoder that a cache or a policy names.

    Args:
        identity: which encoder.
        where: keys of `[encoder]` that are this machine's business: device, dtype, batch_size, compile,
            workers, language; `id` where it lies elsewhere, at revision main unless that is named too.
            Without dtype, arithmetic is the device's.

    Raises:
        EncoderError: the identity does not describe one.
        ConfigError: no encoder of its type is installed, or `where` is not valid.
    """
    member = ENCODERS.member(identity.type)
    here = where.get("id", identity.id) == identity.id
    named = {"id": identity.id} | ({"revision": identity.revision} if identity.revision and here else {})
    try:
        made = member.model_validate({**named, **member.settings_of(identity)})
    except (ValidationError, KeyError, TypeError, ValueError) as error:
        what = explain(error, member, "encoder") if isinstance(error, ValidationError) else repr(error)
        raise EncoderError(f"{identity.describe()} cannot be loaded: {what[:200]}") from error
    try:
        return member.model_validate({**made.model_dump(), **where})
    except ValidationError as error:
        raise ConfigError(explain(error, member, "encoder")) from None


def model_type_of(folder: Path) -> str | None:
    """Return what a checkpoint says it is; None where there is none, or it does not say."""
    table = read_config(folder / "config.json")
    found = table.get("model_type", table.get("type"))  # LeRobot's policies say `type`
    return found if isinstance(found, str) else None


def read_config(path: Path) -> dict[str, Any]:
    """Read the config.json of a checkpoint; empty where there is none that can be read."""
    try:
        if not path.is_file() or path.stat().st_size > MAX_CONFIG_BYTES:
            return {}
        config = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return config if isinstance(config, dict) else {}
