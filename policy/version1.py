"""Policies written before there were streams: their `config.json` and the names of their tensors.

They knew SigLIP features of cameras, one state, one action, and all heads' settings side by side. They are
read in the words of today; nothing is trained again, and no file is changed. The same for the table
`[policy]` of a run's `pipeline.toml`.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, JsonValue

from vla.base.strict import StrictModel, Width
from vla.cache.metadata import Sha256
from vla.cache.stream import ACTION, STATE, Stream
from vla.cache.version1 import dataset_keys, encoder_identity

HEADS_WITH_SETTINGS = ("imf", "ddpm", "mlp")
RENAMED = (
    (re.compile(r"^projector\.(standardize|project)\.(\d+)\."), r"trunks.\2.\1."),
    (re.compile(r"^cond_projector\."), "fusion.cond_projector."),
)


class OldEncoder(StrictModel):
    """What was said of the vision tower."""

    id: str
    revision: str | None
    weights_sha256: Sha256
    pooling: str
    dtype: str
    feature_dim: Width
    tokens: Width


class OldPreprocessing(StrictModel):
    """How an image became its input."""

    image_size: tuple[Width, Width]
    interpolation: str = "bilinear-antialias-uint8"
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)


class OldDataset(StrictModel):
    """What was said of the demonstrations."""

    path: str
    revision: str | None = None
    format: str
    content_sha256: Sha256
    episodes: tuple[int, ...] | None = None
    fps: float
    state_key: str
    action_key: str


class OldData(StrictModel):
    """What the cache was made of."""

    dataset: OldDataset
    num_episodes: int
    num_frames: int
    tasks: tuple[str, ...]


class OldConfig(StrictModel):
    """The whole of an old `config.json`."""

    policy: dict[str, JsonValue]
    camera_names: Annotated[tuple[str, ...], Field(min_length=1)]
    state_dim: Width
    action_dim: Width
    fps: float
    encoder: OldEncoder
    preprocessing: OldPreprocessing
    cache_fingerprint: str
    data: OldData | None = None
    text_encoder: JsonValue = None


def is_version1(config: object) -> bool:
    """Tell whether the contents of a `config.json` are of the old form."""
    return isinstance(config, dict) and "format_version" not in config and "encoder" in config


def upgrade_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Say in the words of today what an old `config.json` says.

    Raises:
        ValidationError: it is not of the old form.
    """
    old = OldConfig.model_validate(config)
    encoder = encoder_identity(old.encoder.model_dump(), old.preprocessing.model_dump(mode="json"))
    made = old.data.dataset if old.data else None
    keys = dataset_keys(made.format, old.camera_names, made.state_key, made.action_key) if made else {}
    shape = (old.encoder.tokens, old.encoder.feature_dim)
    state, action = (
        Stream(name=name, kind="vector", dtype="float32", shape=(dim,), key=keys.get(name, ""))
        for name, dim in ((STATE, old.state_dim), (ACTION, old.action_dim))
    )
    features = [
        Stream(name=name, kind="tokens", dtype="float16", shape=shape, made_by=encoder.digest)
        for name in old.camera_names
    ]
    data = None
    if old.data is not None and made is not None:
        dataset = {**made.model_dump(exclude={"state_key", "action_key"}), "keys": keys}
        data = {**old.data.model_dump(), "dataset": dataset}
    return {
        "format_version": 2,
        "policy": upgrade_policy(old.policy),
        "streams": (*features, state),
        "action": action,
        "fps": old.fps,
        "encoders": {encoder.digest: encoder},
        "cache_fingerprint": old.cache_fingerprint,
        "data": data,
        "text_encoder": old.text_encoder,
    }


def upgrade_policy(table: Mapping[str, Any]) -> dict[str, Any]:
    """Say in the words of today what a table `[policy]` says; one of today stays as it is.

    The settings of all heads stood side by side, `[policy.imf]` and others; those of the chosen one are the
    head's now, and the others were of no effect.
    """
    kept = {key: value for key, value in table.items() if key not in HEADS_WITH_SETTINGS}
    head = table.get("head", "imf")
    if isinstance(head, str) and isinstance(settings := table.get(head), Mapping):
        kept["head"] = {"type": head, **settings}
    return kept


def current_name(name: str) -> str:
    """Return what a tensor of an old policy is called today."""
    for pattern, today in RENAMED:
        name = pattern.sub(today, name)
    return name
