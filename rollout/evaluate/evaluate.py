"""Drive a policy live in several environments side by side and write down how it went.

Environments run in processes of their own, one each. Episode k has seed `seed + k` for the scene and for
the policy's noise, so its course does not depend on how many others run beside it.
"""

import functools
import math
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Any

import gymnasium
import torch

from vla.base.errors import EnvironmentSetupError
from vla.base.family import loaded_plugins
from vla.base.files import write_json
from vla.base.openmp import spin_briefly
from vla.base.progress import Progress, say
from vla.base.threads import usable_cores
from vla.cache.stream import Stream
from vla.policy.saved_policy import SavedPolicy
from vla.rollout.evaluate.chunk_env import make_chunk_env
from vla.rollout.evaluate.environment_processes import EnvironmentProcesses
from vla.rollout.evaluate.episodes import Latency, run_side_by_side, take_turns, tells_task
from vla.rollout.evaluate.summary import EpisodeResult, success_rate, summarise
from vla.rollout.live import LivePolicy
from vla.rollout.robot_streams import missing_stream, robot_streams
from vla.rollout.rollout_config import EnvConfig, RolloutConfig
from vla.rollout.worlds.make_env import find_spec
from vla.rollout.worlds.observations import SUCCESS_KEYS, is_image


def evaluate(
    policy: LivePolicy,
    env: EnvConfig,
    config: RolloutConfig,
    out: Path,
    notes: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """Roll out a policy and write `<out>/eval_info.json` and `<out>/videos/`.

    Args:
        policy: to drive.
        env: the environment.
        config: seeds, episodes, environments side by side.
        out: folder for the results.
        notes: further entries of `eval_info.json`, such as whose evaluation it is.

    Returns:
        The contents of `eval_info.json`; see `vla.rollout.evaluate.summary`.

    Raises:
        EnvironmentSetupError: the environment cannot be made, does not fit the policy, or fails.
        VlaError: the policy's actions are not finite.
        ConfigError: the policy knows several tasks and none is chosen.
    """
    # Refused before an environment is started, unless that might say what to do.
    task = "" if policy.tasks.is_open else policy.tasks.text()
    out.mkdir(parents=True, exist_ok=True)
    num_envs = min(config.num_envs or usable_cores(), config.episodes)
    videos = {
        config.seed + k: str(out / "videos" / f"eval_episode_{k}.mp4")
        for k in range(min(config.videos, config.episodes))
    }
    latency: Latency = {"render": [], "encode": [], "head": []}
    episodes: list[EpisodeResult] = []
    seeds = iter(range(config.seed, config.seed + config.episodes))
    started = time.monotonic()
    with ExitStack() as stack, Progress("rollout", config.episodes, unit="episodes") as progress:
        device = policy.device
        groups = make_groups(policy, env, group_sizes(num_envs, device))
        for group in groups:
            stack.callback(group.close)
        if not tells_task(groups[0]) and policy.tasks.is_open:
            policy.tasks.text()  # raises: nobody says which task it is
        _say_what_may_be_wrong(env, groups[0].metadata.get("render_fps"), policy.fps)
        run_episodes = run_side_by_side if device.type == "cpu" else take_turns
        try:
            for ended in run_episodes(policy, groups, seeds, videos, latency):
                if ended:
                    episodes += ended
                    rate = success_rate(episodes)
                    progress.update(len(ended), **({} if rate is None else {"success": rate}))
        except EnvironmentSetupError as error:
            raise EnvironmentSetupError(
                f"{error}; {len(episodes)} of {config.episodes} episodes had ended, none of them is kept"
            ) from error
    episodes.sort(key=lambda episode: episode.seed)
    paths = [str(Path(path).relative_to(out)) for path in videos.values()]
    info = summarise(episodes, latency, time.monotonic() - started, paths)
    info |= ({"task": task} if task else {}) | dict(notes)
    write_json(out / "eval_info.json", info)
    if info["aggregated"]["pc_success"] is None:
        keys = " nor ".join(f"info['{key}']" for key in SUCCESS_KEYS)
        say(f"success was not measured: '{env.id}' has neither {keys}; its rewards are what there is")
    return info


def _say_what_may_be_wrong(env: EnvConfig, env_fps: float | int | None, fps: float) -> None:
    """Say what an evaluation can be run with, but seldom should."""
    if find_spec(env.id).max_episode_steps is None and "max_episode_steps" not in env.kwargs:
        say(
            f"'{env.id}' is registered without max_episode_steps: an episode that does not end by itself "
            "goes on for ever; limit it: --set env.kwargs.max_episode_steps=N"
        )
    if env_fps is not None and not math.isclose(env_fps, fps, rel_tol=0.01):
        say(
            f"the demonstrations have {fps:g} actions a second, '{env.id}' declares {env_fps:g} "
            "(render_fps); if that is its control rate, the policy moves at another speed than it was shown"
        )


def group_sizes(num_envs: int, device: torch.device) -> list[int]:
    """Split environments into groups whose images are encoded together; see `vla.rollout.evaluate.episodes`.

    On a CPU batches gain nothing (16 images: 1.0 to 1.1 times as many a second as 4 or 8), on a GPU much.

    Args:
        num_envs: how many there are.
        device: of the encoder.
    """
    if device.type == "cpu" or num_envs == 1:
        return [1] * num_envs
    return [num_envs - num_envs // 2, num_envs // 2]


def make_groups(policy: LivePolicy, env: EnvConfig, sizes: Sequence[int]) -> list[EnvironmentProcesses]:
    """Start environments in processes of their own, all at the same time.

    Args:
        policy: that is going to drive them.
        env: of what kind.
        sizes: environments in each group.

    Raises:
        EnvironmentSetupError: they cannot be made, or do not fit the policy: a stream or the action differs.
    """
    make = functools.partial(make_chunk_env, env, policy.horizons, loaded_plugins(), policy.image_sizes)
    # llvmpipe's own threads only get in the way of one process a core (15.8 against 16.6 ms a frame).
    os.environ.setdefault("LP_NUM_THREADS", "0")
    spin_briefly()  # for these processes; in this one OpenMP is loaded already
    with ThreadPoolExecutor(len(sizes)) as pool:
        starts = [
            pool.submit(EnvironmentProcesses, make, size, env.id, 1 + sum(sizes[:index]), sum(sizes))
            for index, size in enumerate(sizes)
        ]
    groups = [start.result() for start in starts if start.exception() is None]
    try:
        for start in starts:
            start.result()
        found = groups[0].single_observation_space, groups[0].single_action_space
        require_fit(policy.observes, policy.action_dim, *found, env.id)
    except EnvironmentSetupError:
        for group in groups:
            group.close()
        raise
    return groups


def require_environment(env: EnvConfig, trained_on: SavedPolicy) -> None:
    """Make an environment once and check that a policy can be driven in it.

    Args:
        env: of what kind.
        trained_on: what the policy, trained or not, observes and answers with.

    Raises:
        EnvironmentSetupError: it cannot be made, lacks a stream, or a stream or the action has another size.
    """
    observes = robot_streams(trained_on.streams, trained_on.encoders)
    tried = make_chunk_env(env, trained_on.policy.horizons)
    try:
        require_fit(observes, trained_on.action.channels, tried.observation_space, tried.action_space, env.id)
    finally:
        tried.close()


def require_fit(
    observes: Sequence[Stream],
    action_dim: int,
    observation: gymnasium.Space[Any],
    action: gymnasium.Space[Any],
    env_id: str,
) -> None:
    """Check that an environment has what a policy is, or will be, trained with.

    Args:
        observes: what the policy is told of an instant by a robot.
        action_dim: numbers of an action.
        observation: space of observation histories by stream name.
        action: space of action chunks.
        env_id: what errors call the environment.

    Raises:
        EnvironmentSetupError: it does not; the message names both sides.
    """
    assert isinstance(observation, gymnasium.spaces.Dict) and action.shape is not None
    which = "name the environment of the demonstrations: --set env.id=ID"
    if missing := missing_stream(observes, observation.spaces):
        raise EnvironmentSetupError(
            f"{missing}, '{env_id}' has: {', '.join(observation.spaces)}; {which}, or its cameras under the "
            "policy's names: --set env.cameras.NAME=VIEW"
        )
    for stream in observes:
        space = observation[stream.name]
        found = () if space.shape is None else space.shape[1:]  # without the instants
        if not (is_image(space, 4) if stream.kind == "image" else found == stream.shape):
            raise EnvironmentSetupError(
                f"the policy observes {stream.describe()}, '{env_id}' has '{stream.name}' as {space.dtype} "
                f"{list(found)}; {which}"
            )
    if action.shape[-1] != action_dim:
        raise EnvironmentSetupError(
            f"the demonstrations have {action_dim} action values, '{env_id}' has {action.shape[-1]}; {which}"
        )
