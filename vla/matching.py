"""Do a cache and a run fit what is asked of them? Checked before a run is started or continued."""

import json
import re
import shlex
from collections.abc import Container, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vla.base.errors import CacheError, ConfigError, EnvironmentSetupError
from vla.base.kept_encoder import kept_encoder

if TYPE_CHECKING:
    from vla.base.strict import StrictModel
    from vla.cache import CacheConfig, FeatureCache
    from vla.config import PipelineConfig
    from vla.policy.mixture import AnyCache
    from vla.policy.policy_config import PolicyConfig
    from vla.policy.saved_policy import SavedPolicy

PLACES = {"dataset.path", "encoder.id"}
"""Keys whose values name a place, which may be spelled in several ways."""
HERE = ("device", "batch_size", "compile", "workers", "language", "text_encoder")
"""Keys of `[encoder]` that say where and how it runs, not what the streams are."""
OPEN: tuple[object, ...] = ("", "auto", (), None, {})
"""Values that leave it to the dataset, the machine or the cache."""
COMMIT = re.compile(r"[0-9a-f]{40}")


def open_caches(settings: "PipelineConfig") -> "AnyCache":
    """Open the cache that is named, or the mixture of those in `train.caches`.

    Raises:
        CacheError: one is missing or damaged, or they do not agree.
        ConfigError: a weight or a name is not valid.
    """
    from vla.cache import FeatureCache
    from vla.policy.mixture import Mixture

    train = settings.train
    if len(train.caches) > 1:
        caches = [FeatureCache(Path(path)) for path in train.caches]
        return Mixture(caches, train.weights, train.rename, settings.policy.streams, train.normalise)
    for key, given in (("weights", train.weights), ("rename", train.rename)):
        if given:
            raise ConfigError(
                f"train.{key} is for several caches, and there is one; name them all: --cache A --cache B"
            )
    if train.normalise == "each":
        raise ConfigError("train.normalise = each is for several caches, and there is one; leave it out")
    return FeatureCache(Path(train.caches[0] if train.caches else settings.cache.path))


def of_caches(settings: "PipelineConfig", cache: "AnyCache") -> "PipelineConfig":
    """Return the settings as the opened cache, or caches, have them; see `of_cache`.

    `[dataset]`, `[augment]` and `[cache]` have room for one cache only: of a mixture they are the first
    one's, and nothing is held against them.
    """
    from vla.policy.mixture import Mixture

    if not isinstance(cache, Mixture):
        named = of_cache(settings, cache)
        return named.model_copy(update={"train": named.train.model_copy(update={"caches": ()})})
    folders = tuple(str(member.cache.folder) for member in cache.members)
    train = settings.train.model_copy(update={"caches": folders})
    return of_cache(settings, cache.members[0].cache, ("encoder",)).model_copy(update={"train": train})


def of_cache(
    settings: "PipelineConfig",
    cache: "FeatureCache",
    held_against: Container[str] = ("dataset", "encoder", "augment", "cache"),
) -> "PipelineConfig":
    """Return the settings with `dataset`, `encoder`, `augment` and `cache` as the opened cache has them.

    What a run saves is true because of this: it never comes from a default.

    Args:
        settings: as they were given.
        cache: opened.
        held_against: tables that may not say otherwise.

    Raises:
        ConfigError: a key was given that says otherwise; the message names it, and both values.
    """
    from vla.embed.datasets.dataset_config import dataset_of
    from vla.embed.encoders.encoder_family import encoder_config

    tables: dict[str, StrictModel] = {
        "dataset": dataset_of(cache),
        "augment": cache.metadata.augmentation,
        "cache": _cache_table(cache),
    }
    if (identity := cache.metadata.encoder) is not None:
        where: dict[str, Any] = {key: getattr(settings.encoder, key) for key in HERE}
        encoder = encoder_config(identity, **where)
        dtype = identity.dtype if identity.dtype in encoder.dtypes else "auto"
        tables["encoder"] = encoder.model_copy(update={"dtype": dtype})
    for name, made in tables.items():
        asked = getattr(settings, name)
        for key in _contradictions(name, asked, made) if name in held_against else ():
            raise ConfigError(
                f"[{name}] {key} = {spell(getattr(asked, key))}, but {cache.folder} was made with "
                f"{spell(getattr(made, key, None))}; leave it out, or name another --cache"
            )
    if kept := kept_encoder(cache.folder):  # the place it was made from may be gone, or hold another by now
        tables["encoder"] = tables["encoder"].model_copy(update={"id": str(kept)})
    return settings.model_copy(update=tables)


def _cache_table(cache: "FeatureCache") -> "CacheConfig":
    from vla.cache import CacheConfig
    from vla.config import read_tables

    saved = cache.folder / "pipeline.toml"
    table = read_tables(saved).get("cache", {}) if saved.is_file() else {}
    asked = table.get("shard_frames") if isinstance(table, dict) else None
    return CacheConfig(path=str(cache.folder), shard_frames=asked or cache.metadata.parts[0].frames_per_shard)


def _contradictions(name: str, asked: "StrictModel", made: "StrictModel") -> Iterator[str]:
    """Yield the keys that were given and say something else than the cache."""
    for key in type(asked).model_fields:
        if key not in asked.model_fields_set or key in HERE or f"{name}.{key}" == "cache.path":
            continue
        mine, its = getattr(asked, key), getattr(made, key, None)
        if mine == its or mine in OPEN:
            continue
        if f"{name}.{key}" in PLACES and _same_place(str(mine), str(its)):
            continue
        if key == "revision" and not COMMIT.fullmatch(mine):  # a branch may have been that commit
            continue
        if (
            f"{name}.{key}" == "encoder.type" and "id" not in asked.model_fields_set
        ):  # it was not named either
            continue
        if name == "augment" and key != "variants" and not getattr(made, "variants", 0):
            continue
        yield key


def _same_place(one: str, other: str) -> bool:
    """Tell whether two names may be one place: datasets and encoders are moved and copied."""
    if Path(one).absolute() == Path(other).absolute():
        return True
    return Path(one).name == Path(other).name and not (Path(one).exists() and Path(other).exists())


def require_fit(settings: "PipelineConfig", cache: "AnyCache") -> None:
    """Check that a policy can be trained on a cache as the configuration says.

    Raises:
        CacheError: the policy takes the task text, and the cache has no features of its texts.
        ConfigError: validation rollouts could not tell what to do, or whose actions are wanted.
    """
    if settings.policy.takes_text_features:
        cache.text_features()
    if settings.train.rollout_every:
        _require_task(settings, cache)
        if settings.train.normalise == "each" and not settings.rollout.cache:
            raise ConfigError(
                "validation rollouts answer with the actions of one cache where train.normalise = each; "
                "choose it: --set rollout.cache=NAME, or none at all: --set train.rollout_every=0"
            )


def _require_task(settings: "PipelineConfig", cache: "AnyCache") -> None:
    """Hours later is too late: validation rollouts follow one of the tasks that are trained on."""
    from vla.policy.trunks.text import choose_task, name_tasks

    asked, known = settings.rollout.task, cache.metadata.tasks
    if not settings.policy.takes_task:
        if asked:
            raise ConfigError(
                f"rollout.task is '{asked:.80}', but the policy takes no task text; leave it out, or add "
                "--set policy.language=true"
            )
    elif choose_task(known, asked) not in known:
        raise ConfigError(
            f"rollout.task is '{asked:.80}', validation rollouts take a task that is trained on: "
            f"{name_tasks(known)}; or none at all: --set train.rollout_every=0"
        )


def with_rollouts_that_fit(settings: "PipelineConfig", cache: "AnyCache") -> "PipelineConfig":
    """Try the environment of validation rollouts before hours of training.

    Who trains on their own data and names no environment gets none, and is told so.

    Raises:
        EnvironmentSetupError: an environment is named, and it cannot be made or is not that of the cache.
    """
    from vla.base.progress import say
    from vla.policy.saved_policy import SavedPolicy
    from vla.rollout.evaluate.evaluate import require_environment

    trained_on = SavedPolicy.for_cache(settings.policy, cache.metadata)
    try:
        require_environment(settings.env, trained_on)
    except EnvironmentSetupError as error:
        if "env" in settings.model_fields_set:
            raise EnvironmentSetupError(f"{error}, or none: --set train.rollout_every=0") from error
        say(f"no validation rollouts: no environment is named (env.id), and {error}")
        return settings.model_copy(update={"train": settings.train.model_copy(update={"rollout_every": 0})})
    return settings


def require_same_cache(checkpoint: Path, cache: "AnyCache") -> None:
    """Check that a checkpoint was trained on a cache, or on a mixture.

    Raises:
        CacheError: it was trained on another one, or with another text tower's features.
    """
    from vla.policy.mixture import Mixture
    from vla.policy.saved_policy import read_config
    from vla.policy.training.run import POLICY_FOLDER

    trained = read_config(checkpoint / POLICY_FOLDER)
    if isinstance(cache, Mixture) or len(trained.data) > 1:
        _require_same_mixture(checkpoint, trained, cache)
        return
    if trained.cache_fingerprint != cache.metadata.fingerprint:
        raise CacheError(
            f"{checkpoint} was trained on cache {trained.cache_fingerprint}, {cache.folder} is "
            f"{cache.metadata.fingerprint}; continue with the former (--cache), or start a new run"
        )
    texts = cache.metadata.texts
    if trained.text_encoder not in (None, texts and texts.encoder):
        raise CacheError(
            f"{checkpoint} was trained with another text tower's features than {cache.folder} has; "
            "make those again with that encoder, or start a new run"
        )


def _require_same_mixture(checkpoint: Path, trained: "SavedPolicy", cache: "AnyCache") -> None:
    """Compare all caches of a run, their order and their weights."""
    from vla.policy.mixture import Mixture, caches_of

    before = [f"{made.cache or 'cache'} ({made.fingerprint})" for made in trained.data]
    now = [f"{one.folder.name} ({one.metadata.fingerprint})" for one in caches_of(cache)]
    if [made.fingerprint for made in trained.data] != [one.metadata.fingerprint for one in caches_of(cache)]:
        raise CacheError(
            f"{checkpoint} was trained on {', '.join(before)}, named are {', '.join(now)}; continue with the "
            "former, in that order (--cache), or start a new run"
        )
    assert isinstance(cache, Mixture)  # the fingerprints are those of several
    weights = [[made.weight for made in trained.data], [float(one.share) for one in cache.members]]
    if weights[0] != weights[1]:
        old, new = (",".join(f"{weight:g}" for weight in row) for row in weights)
        raise CacheError(
            f"{checkpoint} was trained with weights {old} of {', '.join(before)}, named are {new}; continue "
            f"with --weights {old}, or start a new run"
        )
    if trained.cache_fingerprint != cache.metadata.fingerprint:
        raise CacheError(
            f"{checkpoint} was trained with another train.rename or train.normalise on these caches; "
            "continue with those of its pipeline.toml, or start a new run"
        )
    if trained.text_encoder not in (None, cache.metadata.text_encoder):
        raise CacheError(
            f"{checkpoint} was trained with another text tower's features than {', '.join(now)} have; make "
            "those again with that encoder, or start a new run"
        )


def require_same_policy(checkpoint: Path, policy: "PolicyConfig") -> None:
    """Check that a checkpoint's policy is the one that is to be trained on.

    Weights of the same shapes are no proof: another head, or another objective, may fit them.

    Raises:
        ConfigError: a setting differs; the message names the first one.
    """
    from vla.policy.saved_policy import read_config
    from vla.policy.training.run import POLICY_FOLDER
    from vla.suite.config import flatten

    trained = flatten({"policy": read_config(checkpoint / POLICY_FOLDER).policy.model_dump(mode="json")})
    named = flatten({"policy": policy.model_dump(mode="json")})
    # Which member a part is comes first: its keys follow from that.
    for key in sorted(trained, key=lambda key: not key.endswith(".type")):
        if named.get(key) != trained[key]:
            name, before, now = key.removesuffix(".type"), spell(trained[key]), spell(named.get(key))
            raise ConfigError(
                f"{checkpoint} was trained with {name} = {before}, the configuration says {now}; continue "
                f"with the former (--set {shlex.quote(f'{name}={before}')}), or start a new run: another "
                "--out, without --resume"
            )


def spell(value: object) -> str:
    """Write a value as `--set` reads it."""
    if isinstance(value, float):
        return f"{value:.15g}"
    return value if isinstance(value, str) else json.dumps(value, default=str)
