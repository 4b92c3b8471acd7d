"""`pretrain`: an encoder of one's own, from cached frames."""

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from vla.advice import advised
from vla.base.errors import ConfigError
from vla.config import PipelineConfig, read_tables

if TYPE_CHECKING:
    from vla.base.lewm import LewmInput
    from vla.cache import FeatureCache
    from vla.policy.pretrain.pretrain import PretrainReport
    from vla.policy.pretrain.pretrain_config import PretrainConfig
    from vla.policy.training.run import RunDirectory

FREE = {"out", "device", "tracker", "log_every", "val_every", "save_every"}
"""Keys of `[pretrain]` that a resumed run may have otherwise: they do not change what is learned."""
NOTE = "pretrain.json"
"""In the run: which cache it was begun with."""


@advised
def pretrain(settings: PipelineConfig, *, resume: bool = False) -> "PretrainReport":
    """Train an encoder on a cache of frames into `pretrain.out`; see `vla.policy.pretrain`.

    Args:
        settings: `cache.path` and `pretrain` are used.
        resume: go on with the run that is there.

    Raises:
        CacheError: there is no cache.
        ConfigError: it holds no frames, a camera is not in it, or a resumed run was begun otherwise.
    """
    from vla.base.distributed import World
    from vla.base.interrupt import Interrupted
    from vla.base.lock import exclusive
    from vla.cache import FeatureCache
    from vla.policy.pretrain.pretrain import pretrain as run
    from vla.policy.training.run import RunDirectory
    from vla.policy.training.trackers import require_tracker

    if World.join().size > 1:
        raise ConfigError(
            "vla pretrain runs in one process: SIGReg looks at a whole batch; leave torchrun out"
        )
    require_tracker(settings.pretrain.tracker)
    cache = FeatureCache(Path(settings.cache.path))
    looks_at = _looks_at(cache, settings.pretrain)
    # What is saved is true: cameras by name, and the cache that was found.
    config = settings.pretrain.model_copy(update={"cameras": looks_at.cameras})
    table = settings.cache.model_copy(update={"path": str(cache.folder)})
    saved = settings.model_copy(update={"pretrain": config, "cache": table})
    directory = RunDirectory(Path(config.out))
    with exclusive(directory.path):
        if resume:
            _require_same(RunDirectory.open(directory.path), cache, config)
        else:
            RunDirectory.create(directory.path)

        def begun() -> None:
            from vla.base.files import write_json

            write_json(directory.path / NOTE, {"cache_fingerprint": cache.metadata.fingerprint})
            saved.save(directory.config, ["cache", "pretrain"])

        try:
            return run(directory, cache, looks_at, config, begun)
        except Interrupted as stop:
            stop.options = ("--resume",) if directory.config.is_file() else ()
            raise


def _looks_at(cache: "FeatureCache", config: "PretrainConfig") -> "LewmInput":
    """Return which views of a cache are looked at, and how.

    Raises:
        ConfigError: it holds none, or not those that are named, or they differ in size.
    """
    from vla.base.lewm import LewmInput

    there = {name: stream for name, stream in cache.streams.items() if stream.kind == "image"}
    if not there:
        dataset = shlex.quote(cache.metadata.dataset.path)
        found = ", ".join(stream.describe() for stream in cache.streams.values())
        raise ConfigError(
            f"{cache.folder} holds no frames, but {found}; make a cache of frames: "
            f"vla embed --dataset {dataset} --encoder pixels --out FRAMES"
        )
    chosen = config.cameras or tuple(there)
    if unknown := [camera for camera in chosen if camera not in there]:
        raise ConfigError(f"pretrain.cameras names '{unknown[0]}', {cache.folder} has {', '.join(there)}")
    if len(sizes := {there[camera].shape[:2] for camera in chosen}) > 1:
        raise ConfigError(
            f"the views of {', '.join(chosen)} have {len(sizes)} sizes, and one image is made of them; name "
            "fewer in pretrain.cameras, or embed them at one size"
        )
    height, width = sizes.pop()
    return LewmInput(
        cameras=chosen,
        layout=config.layout,
        view_size=(height, width),
        image_size=config.image_size,
    )


def _require_same(run: "RunDirectory", cache: "FeatureCache", config: "PretrainConfig") -> None:
    """Check that a run goes on as it was begun.

    Raises:
        ConfigError: with another cache, or other keys that change what is learned.
    """
    begun = read_tables(run.config).get("pretrain", {})
    asked = config.model_dump(mode="json")
    for key in asked.keys() - FREE:
        if key in begun and begun[key] != asked[key]:
            raise ConfigError(
                f"{run.path} was begun with pretrain.{key} = {json.dumps(begun[key])}, not "
                f"{json.dumps(asked[key])}; leave it out, or begin anew with another --out"
            )
    try:
        noted = json.loads((run.path / NOTE).read_bytes())["cache_fingerprint"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{run.path} does not say which frames it was trained on ({NOTE})") from error
    if noted != cache.metadata.fingerprint:
        raise ConfigError(
            f"{run.path} was begun on other frames than {cache.folder} holds; name theirs, --cache, or begin "
            "anew with another --out"
        )
