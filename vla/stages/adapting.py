"""`adapt`: a trunk learns from images, is frozen, and a head is trained on what it says.

    images ─ vla embed ─> pixel cache ─ vla train ─> OUT-pixels        trunks, fusion, head, end to end
    images ─ vla embed --encoder OUT-pixels ─> features ─ vla train ─> OUT         fusion and head anew

Images are moved and coloured anew at each step (`train.augment`); features cannot be, so their cache may
hold variants of each frame (`augment`), and that of images does not.

Each step is the command's own and goes on where it stopped, so the whole does too.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vla.base.errors import ConfigError
from vla.base.progress import say
from vla.config import PipelineConfig


def adapt(settings: PipelineConfig) -> dict[str, Any]:
    """Train on images for `train.adapt_steps`, freeze and cache the trunks, train a head for `train.steps`.

    Args:
        settings: `encoder` is of type pixels, `policy.trunks` are those of images; `train.out` is the run of
            the head, and the run on images is beside it, `OUT-pixels`.

    Returns:
        Where the caches and runs lie, and how long each step took [s].

    Raises:
        ConfigError: the encoder is no `pixels`, or several caches are named.
    """
    from vla.cache import Augmentation
    from vla.embed.encoders.encoder_family import ENCODERS

    if settings.encoder.type != "pixels":
        raise ConfigError(
            f"vla adapt begins with images, and the encoder is '{settings.encoder.id}'; set "
            'encoder = { type = "pixels", id = "pixels", image_size = [96, 96] }'
        )
    if settings.train.caches:
        raise ConfigError("vla adapt makes its own caches; leave train.caches out")
    out = Path(settings.train.out)
    on_images = out.with_name(f"{out.name}-pixels")
    seconds: dict[str, float] = {}

    plain = settings.model_copy(update={"augment": Augmentation()})
    pixels = _timed(seconds, "embed_pixels", lambda: _embed(plain))
    end_to_end = _train_settings(plain, pixels, on_images, settings.train.adapt_steps)
    _timed(seconds, "train_on_pixels", lambda: _train(end_to_end))

    where = settings.encoder.model_dump(
        include={"device", "batch_size", "compile", "workers", "language", "text_encoder"}
    )
    encoder = ENCODERS.parse({"type": "trunk", "id": str(on_images), **where})
    frozen = settings.model_copy(update={"encoder": encoder})
    features = _timed(seconds, "embed_features", lambda: _embed(frozen))
    head = _on_features(_train_settings(frozen, features, out, settings.train.steps), features)
    _timed(seconds, "train_on_features", lambda: _train(head))
    return {
        "pixels": pixels,
        "adapted": str(on_images),
        "features": features,
        "run": str(out),
        "seconds": {name: round(took, 1) for name, took in seconds.items()},
        "next": f"vla rollout {out}",
    }


def _timed(seconds: dict[str, float], name: str, step: Callable[[], str]) -> str:
    began = time.monotonic()
    made = step()
    seconds[name] = time.monotonic() - began
    say(f"adapt: {name.replace('_', ' ')} took {seconds[name]:.0f} s: {made}")
    return made


def _embed(settings: PipelineConfig) -> str:
    from vla.stages.demonstrations import embed

    return embed(settings).cache


def _train(settings: PipelineConfig) -> str:
    """Train, or go on with the run that is there."""
    from vla.policy.training.run import RunDirectory
    from vla.stages.training import train

    run = Path(settings.train.out)
    return train(settings, resume=RunDirectory(run).config.is_file()).run


def _train_settings(settings: PipelineConfig, cache: str, out: Path, steps: int) -> PipelineConfig:
    return settings.model_copy(
        update={
            "cache": settings.cache.model_copy(update={"path": cache}),
            "train": settings.train.model_copy(update={"out": str(out), "steps": steps}),
        }
    )


def _on_features(settings: PipelineConfig, features: str) -> PipelineConfig:
    """Return the settings without what is for images: their trunks, and how those are changed."""
    from vla.cache import FeatureCache
    from vla.policy.training.augment import TrainAugment

    encoded = FeatureCache(features).metadata.encoded
    trunks = {name: trunk for name, trunk in _trunks_of(settings).items() if name not in encoded}
    policy = settings.policy.model_copy(update={"trunks": trunks})
    train = settings.train.model_copy(update={"augment": TrainAugment()})
    return settings.model_copy(update={"policy": policy, "train": train})


def _trunks_of(settings: PipelineConfig) -> dict[str, Any]:
    trunks = getattr(settings.policy, "trunks", None)
    if not isinstance(trunks, dict):
        raise ConfigError(f"vla adapt freezes trunks, and policy.type = '{settings.policy.type}' has none")
    return trunks
