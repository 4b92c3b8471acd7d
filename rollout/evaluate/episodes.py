"""Episodes in groups of environments, which run in processes of their own.

    take_turns          one thread: while a group is stepped and rendered, another's images are encoded. For
                        encoders on a GPU, which want large batches and leave the CPU alone
    run_side_by_side    a thread a group, with its share of the cores for encoding. For encoders on a CPU: an
                        operation split over all cores would wait for those that render

An episode's course does not depend on the clock: in turns, the order of turns says which seeds share a batch;
side by side, each environment is a group of its own.
"""

import queue
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32

from vla.base.errors import VlaError
from vla.base.threads import compute_threads
from vla.rollout.evaluate.environment_processes import EnvironmentProcesses
from vla.rollout.evaluate.summary import EpisodeResult
from vla.rollout.live import LivePolicy, noise_seeds
from vla.rollout.worlds.observations import not_finite

Latency = dict[str, list[float]]
"""Durations [s] of the parts render, encode and head; extended by whoever runs episodes."""


def take_turns(
    policy: LivePolicy,
    groups: Sequence[EnvironmentProcesses],
    seeds: Iterator[int],
    videos: dict[int, str],
    latency: Latency,
) -> Iterator[list[EpisodeResult]]:
    """Run all episodes; yield those that have ended.

    Args:
        policy: chooses the actions.
        groups: of environments, each stepped as one.
        seeds: of the episodes; whichever group is free takes the next ones.
        videos: mp4 file by seed, for the episodes to record.
        latency: extended.

    Raises:
        EnvironmentSetupError: an environment failed, or gave numbers that are not finite.
        VlaError: the policy's actions are not finite.
    """
    turns = deque(_run_group(policy, group, seeds, videos, latency) for group in groups)
    while turns:
        group = turns.popleft()
        ended = next(group, None)
        if ended is not None:
            turns.append(group)
            yield ended


def run_side_by_side(
    policy: LivePolicy,
    groups: Sequence[EnvironmentProcesses],
    seeds: Iterator[int],
    videos: dict[int, str],
    latency: Latency,
) -> Iterator[list[EpisodeResult]]:
    """Run all episodes, each group in a thread of its own; yield those that have ended.

    Whoever stops early, by an error here or in any group, ends the environments' processes.

    Args:
        policy: chooses the actions; called from all threads, computes on the CPU.
        groups: of environments, each stepped as one.
        seeds: of the episodes; whichever group is free takes the next. No generator: threads share it.
        videos: mp4 file by seed, for the episodes to record.
        latency: extended.

    Raises:
        EnvironmentSetupError: an environment failed, or gave numbers that are not finite.
        VlaError: the policy's actions are not finite.
    """
    results: queue.Queue[list[EpisodeResult] | BaseException | None] = queue.Queue()
    stopped = threading.Event()

    def run(group: EnvironmentProcesses) -> None:
        try:
            for ended in _run_group(policy, group, seeds, videos, latency):
                if stopped.is_set():
                    return
                results.put(ended)
            results.put(None)
        except BaseException as error:
            results.put(error)

    with compute_threads(torch.device("cpu"), len(groups)) as pool:
        at_work = len(groups)
        try:
            for group in groups:
                pool.submit(run, group)
            while at_work:
                ended = results.get()
                if isinstance(ended, BaseException):
                    raise ended
                if ended is None:
                    at_work -= 1
                else:
                    yield ended
        finally:
            stopped.set()
            for group in groups if at_work else ():
                group.abort()  # or its thread may wait for an answer that never comes


def _run_group(
    policy: LivePolicy,
    group: EnvironmentProcesses,
    seeds: Iterator[int],
    videos: dict[int, str],
    latency: Latency,
) -> Iterator[list[EpisodeResult]]:
    while batch := list(islice(seeds, group.num_envs)):
        yield from _run_batch(policy, group, batch, videos, latency)


def _run_batch(
    policy: LivePolicy,
    group: EnvironmentProcesses,
    seeds: Sequence[int],
    videos: dict[int, str],
    latency: Latency,
) -> Iterator[list[EpisodeResult]]:
    """Run one episode in each of the first `len(seeds)` environments, to their ends.

    Yields an empty list whenever the environments are at work, and the results at last.
    """
    used = np.arange(group.num_envs) < len(seeds)
    all_seeds: list[int | None] = [*seeds, *[None] * (group.num_envs - len(seeds))]
    group.reset_async(seed=all_seeds, options={"reset_mask": used, "videos": videos})
    yield []
    observation, info = group.reset_wait()
    over, sum_reward = ~used, np.zeros(group.num_envs)
    low, high = group.action_space.low, group.action_space.high  # type: ignore[attr-defined]
    decision, memory = 0, None
    tasks = _instructions(policy, group, info, len(seeds))
    while not over.all():
        seen = {name: array[: len(seeds)] for name, array in observation.items()}  # no copy
        _require_finite_numbers(policy, group.env_id, seen, seeds, over, decision)
        actions, timing, memory = policy.act(seen, noise_seeds(seeds, decision), tasks, memory)
        _require_finite(actions, seeds, decision)
        chunk = np.zeros_like(low)
        chunk[used] = actions
        group.step_async(np.clip(chunk, low, high))
        yield []
        observation, reward, terminated, truncated, info = group.step_wait()
        sum_reward += np.where(over, 0.0, reward)
        over |= terminated | truncated
        latency["encode"].append(timing.encode_s)
        latency["head"].append(timing.head_s)
        latency["render"] += [seconds for seconds in info["render_s"][used].tolist() if seconds > 0]
        decision += 1
    yield [
        EpisodeResult(
            seed=seed,
            sum_reward=float(sum_reward[row]),
            max_reward=float(info["max_reward"][row]),
            success=bool(info["is_success"][row]) if info["tells_success"][row] else None,
            mode=info["mode"][row] or None,
            task=info["task"][row] or None if "task" in info else None,
            asked=info["asked"][row] or None if "asked" in info else None,
        )
        for row, seed in enumerate(seeds)
    ]


def tells_task(group: EnvironmentProcesses) -> bool:
    """Tell whether the environments say in `info["task"]` what to do in each episode."""
    return bool((getattr(group, "metadata", None) or {}).get("tells_task"))


def _instructions(
    policy: LivePolicy, group: EnvironmentProcesses, info: Mapping[str, Any], count: int
) -> str | list[str]:
    """Return what the environments ask for, one a row; empty where the policy follows its own text."""
    if not tells_task(group) or not policy.tasks.is_open:
        return ""
    return [str(text) for text in info["task"][:count]]


def _require_finite_numbers(
    policy: LivePolicy,
    env_id: str,
    seen: Mapping[str, np.ndarray],
    seeds: Sequence[int],
    over: np.ndarray,
    decision: int,
) -> None:
    """Check what a policy is going to see; else its actions would be blamed.

    Raises:
        EnvironmentSetupError: a number of an episode that is not over is NaN or infinite.
    """
    for stream in policy.observes:
        values = seen[stream.name]
        if stream.kind == "image" or np.isfinite(values).all():
            continue
        for row, seed in enumerate(seeds):
            if over[row]:
                continue
            for age, instant in enumerate(reversed(values[row])):
                step = max(0, decision * policy.horizons.num_action_steps - age)
                when = f"step {step} of the episode of seed {seed}"
                if (error := not_finite(env_id, stream.name, instant, when)) is not None:
                    raise error


def _require_finite(
    actions: Float32[np.ndarray, "B num_action_steps A"], seeds: Sequence[int], decision: int
) -> None:
    """Check a decision; limits of the action space let NaN through, and no robot should get it."""
    finite = np.isfinite(actions).all(axis=(1, 2))
    if not finite.all():
        seed = seeds[int(finite.argmin())]
        raise VlaError(
            f"the policy's actions in the episode of seed {seed}, decision {decision + 1}, are not finite; "
            "none is executed. vla verify RUN says whether its weights are"
        )
