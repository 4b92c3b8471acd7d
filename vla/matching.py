"""Do a cache and a run fit what is asked of them? Checked before a run is started or continued."""

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from vla.base.errors import CacheError, ConfigError, EnvironmentSetupError

if TYPE_CHECKING:
    from vla.cache import FeatureCache
    from vla.config import PipelineConfig
    from vla.policy.policy_config import PolicyConfig


def with_encoder_of(settings: "PipelineConfig", cache: "FeatureCache") -> "PipelineConfig":
    """Return the settings with the encoder that made a cache, unless they name another.

    Raises:
        CacheError: they do; the message names both.
    """
    made_by, named = cache.metadata.encoder, settings.encoder
    if "id" not in named.model_fields_set:
        same = {"id": made_by.id} | ({"revision": made_by.revision} if made_by.revision else {})
        return settings.model_copy(update={"encoder": named.model_copy(update=same)})
    if made_by.id != named.id:
        raise CacheError(
            f"{cache.folder} holds features of encoder '{made_by.id}', the configuration names "
            f"'{named.id}'; add --encoder {shlex.quote(made_by.id)}, or name another --cache"
        )
    return settings


def require_fit(settings: "PipelineConfig", cache: "FeatureCache") -> None:
    """Check that a policy can be trained on a cache as the configuration says.

    Raises:
        CacheError: the policy takes the task text, and the cache has no features of its texts.
        ConfigError: validation rollouts could not tell what to do.
    """
    if settings.policy.language:
        cache.language()
    if settings.train.rollout_every:
        _require_task(settings, cache)


def _require_task(settings: "PipelineConfig", cache: "FeatureCache") -> None:
    """Hours later is too late: validation rollouts follow one of the tasks that are trained on."""
    from vla.policy.trunks.text import choose_task, name_tasks

    asked, known = settings.rollout.task, cache.metadata.tasks
    if not settings.policy.language:
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


def with_rollouts_that_fit(settings: "PipelineConfig", cache: "FeatureCache") -> "PipelineConfig":
    """Try the environment of validation rollouts before hours of training.

    Who trains on their own data and names no environment gets none, and is told so.

    Raises:
        EnvironmentSetupError: an environment is named, and it cannot be made or is not that of the cache.
    """
    from vla.base.progress import say
    from vla.rollout.evaluate.evaluate import require_environment

    try:
        require_environment(settings.env, settings.policy, cache.metadata)
    except EnvironmentSetupError as error:
        if "env" in settings.model_fields_set:
            raise EnvironmentSetupError(f"{error}, or none: --set train.rollout_every=0") from error
        say(f"no validation rollouts: no environment is named (env.id), and {error}")
        return settings.model_copy(update={"train": settings.train.model_copy(update={"rollout_every": 0})})
    return settings


def require_same_cache(checkpoint: Path, cache: "FeatureCache") -> None:
    """Check that a checkpoint was trained on a cache.

    Raises:
        CacheError: it was trained on another one, or with another text tower's features.
    """
    from vla.policy.agent import AgentConfig, read_config
    from vla.policy.training.run import POLICY_FOLDER

    trained: AgentConfig = read_config(checkpoint / POLICY_FOLDER)
    if trained.cache_fingerprint != cache.metadata.fingerprint:
        raise CacheError(
            f"{checkpoint} was trained on cache {trained.cache_fingerprint}, {cache.folder} is "
            f"{cache.metadata.fingerprint}; continue with the former (--cache), or start a new run"
        )
    language = cache.metadata.language
    if trained.text_encoder not in (None, language and language.encoder):
        raise CacheError(
            f"{checkpoint} was trained with another text tower's features than {cache.folder} has; "
            "make those again with that encoder, or start a new run"
        )


def require_same_policy(checkpoint: Path, policy: "PolicyConfig") -> None:
    """Check that a checkpoint's policy is the one that is to be trained on.

    Weights of the same shapes are no proof: another head, or another objective, may fit them.

    Raises:
        ConfigError: a setting differs; the message names the first one.
    """
    from vla.policy.agent import read_config
    from vla.policy.training.run import POLICY_FOLDER
    from vla.suite.config import flatten

    trained = flatten({"policy": read_config(checkpoint / POLICY_FOLDER).policy.model_dump(mode="json")})
    named = flatten({"policy": policy.model_dump(mode="json")})
    for key, value in trained.items():
        if named[key] != value:
            former = shlex.quote(f"{key}={_spell(value)}")
            raise ConfigError(
                f"{checkpoint} was trained with {key} = {_spell(value)}, the configuration says "
                f"{_spell(named[key])}; continue with the former (--set {former}), or start a new run: "
                "another --out, without --resume"
            )


def _spell(value: object) -> str:
    """Write a value as `--set` reads it."""
    return value if isinstance(value, str) else json.dumps(value)
