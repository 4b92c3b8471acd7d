"""Drive a policy live in several environments side by side and write down how it went.

Environments run in processes of their own, one each; all of them are encoded as one batch. Episode k
has seed `seed + k` for the scene and for the policy's noise, so its course does not depend on how many
others run beside it.
"""

import functools
import os
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode

from vla.errors import EnvironmentSetupError
from vla.files import write_json
from vla.progress import Progress
from vla.rollout.config import EnvConfig, RolloutConfig
from vla.rollout.live import LivePolicy
from vla.rollout.make_env import make_env
from vla.rollout.summary import EpisodeResult, summarise


def evaluate(policy: LivePolicy, env: EnvConfig, config: RolloutConfig, out: Path) -> dict[str, Any]:
    """Roll out a policy and write `<out>/eval_info.json` and `<out>/videos/`.

    Returns:
        The contents of `eval_info.json`; see `vla.rollout.summary`.

    Raises:
        EnvironmentSetupError: the environment cannot be made, or does not fit the policy.
    """
    out.mkdir(parents=True, exist_ok=True)
    num_envs = min(config.num_envs or os.cpu_count() or 1, config.episodes)
    videos = {
        config.seed + k: str(out / "videos" / f"eval_episode_{k}.mp4")
        for k in range(min(config.videos, config.episodes))
    }
    latency: dict[str, list[float]] = {"render": [], "encode": [], "head": []}
    episodes: list[EpisodeResult] = []
    started = time.monotonic()
    vector = make_vector_env(policy, env, num_envs)
    try:
        with Progress("rollout", config.episodes, unit="episodes") as progress:
            while len(episodes) < config.episodes:
                first = config.seed + len(episodes)
                count = min(num_envs, config.episodes - len(episodes))
                episodes += run_episodes(policy, vector, range(first, first + count), videos, latency)
                successes = sum(episode.success for episode in episodes)
                progress.update(count, success=successes / len(episodes))
    finally:
        vector.close()
    paths = [str(Path(path).relative_to(out)) for path in videos.values()]
    info = summarise(episodes, latency, time.monotonic() - started, paths)
    write_json(out / "eval_info.json", info)
    return info


def make_vector_env(policy: LivePolicy, env: EnvConfig, num_envs: int) -> AsyncVectorEnv:
    """Start environments in processes of their own.

    Raises:
        EnvironmentSetupError: they do not fit the policy: cameras, state or action differ.
    """
    make = functools.partial(make_env, env, policy.obs_horizon, policy.num_action_steps)
    # llvmpipe's own threads only get in the way of one process a core (15.8 against 16.6 ms a frame).
    os.environ.setdefault("LP_NUM_THREADS", "0")
    # spawn: a forked child would inherit torch's threads and the GL context in an unusable state.
    vector = AsyncVectorEnv([make] * num_envs, context="spawn", autoreset_mode=AutoresetMode.DISABLED)
    try:
        require_fit(policy, vector, env.id)
    except EnvironmentSetupError:
        vector.close()
        raise
    return vector


def require_fit(policy: LivePolicy, vector: AsyncVectorEnv, env_id: str) -> None:
    """Check that an environment has what a policy was trained with.

    Raises:
        EnvironmentSetupError: it does not; the message names both sides.
    """
    config, space = policy.agent.config, vector.single_observation_space
    assert isinstance(space, gymnasium.spaces.Dict) and vector.single_action_space.shape is not None
    pixels, position = space["pixels"], space["agent_pos"]
    assert isinstance(pixels, gymnasium.spaces.Dict) and position.shape is not None
    for camera in config.camera_names:
        if camera not in pixels.spaces:
            raise EnvironmentSetupError(
                f"the policy looks through camera '{camera}', '{env_id}' has: {', '.join(pixels.spaces)}"
            )
    found = (position.shape[-1], vector.single_action_space.shape[-1])
    if found != (config.state_dim, config.action_dim):
        raise EnvironmentSetupError(
            f"the policy was trained with {config.state_dim} state and {config.action_dim} action values, "
            f"'{env_id}' has {found[0]} and {found[1]}; name the environment of its demonstrations: --env ID"
        )


def run_episodes(
    policy: LivePolicy,
    vector: AsyncVectorEnv,
    seeds: range,
    videos: dict[int, str],
    latency: dict[str, list[float]],
) -> list[EpisodeResult]:
    """Run one episode in each of the first `len(seeds)` environments, to their ends.

    Args:
        policy: chooses the actions.
        vector: at least as many environments as seeds; the others stand still.
        seeds: of the episodes.
        videos: mp4 file by seed, for the episodes to record.
        latency: durations [s] by part; extended.
    """
    used = np.arange(vector.num_envs) < len(seeds)
    all_seeds: list[int | None] = [*seeds, *[None] * (vector.num_envs - len(seeds))]
    observation, info = vector.reset(seed=all_seeds, options={"reset_mask": used, "videos": videos})
    over, sum_reward = ~used, np.zeros(vector.num_envs)
    low, high = vector.action_space.low, vector.action_space.high  # type: ignore[attr-defined]
    decision = 0
    while not over.all():
        pixels = {camera: frames[used] for camera, frames in observation["pixels"].items()}
        # A seed a row and decision: no two chunks of a run share their noise.
        noise = [seed * 100_003 + decision for seed in seeds]
        actions, timing = policy.act(pixels, observation["agent_pos"][used], noise)
        chunk = np.zeros_like(low)
        chunk[used] = actions
        observation, reward, terminated, truncated, info = vector.step(np.clip(chunk, low, high))
        sum_reward += np.where(over, 0.0, reward)
        over |= terminated | truncated
        latency["encode"].append(timing.encode_s)
        latency["head"].append(timing.head_s)
        latency["render"] += [seconds for seconds in info["render_s"][used].tolist() if seconds > 0]
        decision += 1
    return [
        EpisodeResult(
            seed=seed,
            sum_reward=float(sum_reward[row]),
            max_reward=float(info["max_reward"][row]),
            success=bool(info["is_success"][row]),
        )
        for row, seed in enumerate(seeds)
    ]
