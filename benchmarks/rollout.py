"""How many episodes a second, in parallel processes and in one environment?

    python benchmarks/rollout.py                 # on a CPU at reduced size, in at most 10 minutes
    python benchmarks/rollout.py --device cuda   # at full size

parallel      `vla rollout`: a process an environment, driven as it chooses for the device
one group     all are rendered, then all are encoded, with all cores
two groups    one is rendered while the other is encoded (on a GPU)
side by side  a thread an environment, each with its share of the cores (on a CPU)
plain         one environment in the policy's own process, stepped through Gymnasium's interface: every step
              is rendered, also those that no policy looks at
serial        the same, but as vla steps it: only what the policy sees is rendered; with all cores for
              rendering and for the network
one core      side by side, of one environment and on one core; divided by the cores it is the most that they
              could do, if nobody ever waited

The policy is untrained: an episode of `sim_transfer` lasts 200 steps whatever it does. Rendered at 480 x 640.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from statistics import median

import numpy as np
import torch
from demonstrations import FULL, SMALL, load_encoder, untrained_agent
from measure import paired_ratio, parser, rounded, save, take_turns

from vla.policy.agents.vla_agent import VLAAgentConfig
from vla.rollout.evaluate.chunk_env import ChunkEnv, make_chunk_env
from vla.rollout.evaluate.episodes import run_side_by_side
from vla.rollout.evaluate.episodes import take_turns as run_in_turns
from vla.rollout.evaluate.evaluate import group_sizes, make_groups
from vla.rollout.live import LivePolicy
from vla.rollout.rollout_config import EnvConfig

REDUCED = "the small encoder that comes with vla and the demo's policy; two environments a core are not tried"
DEMO_POLICY = VLAAgentConfig(per_view_dim=96, cond_dim=192, n_emb=128, n_layer=4, n_head=4)


def main() -> None:
    arguments = parser(__doc__, "rollout").parse_args()
    device, gpu = torch.device(arguments.device), arguments.device == "cuda"
    encoder = load_encoder(FULL if gpu else SMALL, device)
    width = encoder.writes[0].channels
    agent = untrained_agent(VLAAgentConfig() if gpu else DEMO_POLICY, encoder.identity, width)
    policy = LivePolicy(agent.to(device), encoder)
    cores = os.cpu_count() or 1
    rounds = 1 if arguments.tiny else 3
    steps = 16 if arguments.tiny else 200
    env = EnvConfig(kwargs={"max_episode_steps": steps})
    with ExitStack() as stack:
        # First of all, so that its OpenGL is set up as a user's own script would: with threads.
        serial = make_chunk_env(env, policy.horizons)
        stack.callback(serial.close)
        run_serial(policy, serial, 0)
        chosen = "two_groups" if gpu else "side_by_side"
        ways = {"one_group": [cores], chosen: group_sizes(cores, device)}
        groups = {name: make_groups(policy, env, sizes) for name, sizes in ways.items()}
        for group in (group for way in groups.values() for group in way):
            stack.callback(group.close)

        def parallel(name: str) -> float:
            """Return seconds an episode; the latency figures are not of interest here."""
            latency: dict[str, list[float]] = {"render": [], "encode": [], "head": []}
            run_episodes = run_side_by_side if name == "side_by_side" else run_in_turns
            began = time.perf_counter()
            for _ in run_episodes(policy, groups[name], iter(range(1000, 1000 + 2 * cores)), {}, latency):
                pass
            return (time.perf_counter() - began) / (2 * cores)

        def on_one_core() -> float:
            """Return seconds an episode, of which every core could have one at the same time."""
            threads = torch.get_num_threads()
            torch.set_num_threads(1)
            latency: dict[str, list[float]] = {"render": [], "encode": [], "head": []}
            began = time.perf_counter()
            for _ in run_side_by_side(policy, groups[chosen][:1], iter([1000]), {}, latency):
                pass
            torch.set_num_threads(threads)
            return time.perf_counter() - began

        cores_busy: list[float] = []

        def alone() -> float:
            used, seconds = time.process_time(), run_serial(policy, serial, 1000)
            cores_busy.append((time.process_time() - used) / seconds)
            return seconds

        variants: dict[str, Callable[[], float]] = {
            "one_group": lambda: parallel("one_group"),
            chosen: lambda: parallel(chosen),
            "serial": alone,
            "plain": lambda: run_plain(policy, serial, 1000),
        }
        if not gpu:
            variants["one_core"] = on_one_core
        seconds = take_turns(variants, rounds)
    figures = {
        "cores": cores,
        "environments": cores,
        "steps_an_episode": steps,
        "encoder": encoder.identity.describe(),
        **{f"episodes_per_s_{name}": rounded(1 / median(taken)) for name, taken in seconds.items()},
        "parallel": chosen,
        "parallel_over_serial": rounded(paired_ratio(seconds["serial"], seconds[chosen])),
        "cores_busy_serial": rounded(median(cores_busy), 3),
        "parallel_over_plain": rounded(paired_ratio(seconds["plain"], seconds[chosen])),
        **at_most(seconds, chosen, cores),
        "parallel_over_one_group": rounded(paired_ratio(seconds["one_group"], seconds[chosen])),
    }
    save(arguments, "rollout", figures, REDUCED)


def at_most(seconds: Mapping[str, list[float]], chosen: str, cores: int) -> dict[str, float]:
    """Compare with cores that never wait for each other; on a GPU the network needs none of them."""
    if "one_core" not in seconds:
        return {}
    ideal = [one / cores for one in seconds["one_core"]]
    return {
        "parallel_over_ideal": rounded(paired_ratio(ideal, seconds[chosen])),
        "ideal_over_serial": rounded(paired_ratio(seconds["serial"], ideal)),
    }


def run_serial(policy: LivePolicy, env: ChunkEnv, seed: int) -> float:
    """Drive one environment through an episode; return seconds."""
    began, over = time.perf_counter(), False
    observation, _ = env.reset(seed=seed)
    while not over:
        actions = policy.act({name: array[None] for name, array in observation.items()}, [seed]).actions
        low, high = env.action_space.low, env.action_space.high  # type: ignore[attr-defined]
        observation, _, terminated, truncated, _ = env.step(actions[0].clip(low, high))
        over = terminated or truncated
    return time.perf_counter() - began


def run_plain(policy: LivePolicy, env: ChunkEnv, seed: int) -> float:
    """Drive one environment step by step, as a script would that knows Gymnasium only; return seconds."""
    began, over = time.perf_counter(), False
    steps = env.env
    env.unwrapped.render_observations = True  # type: ignore[attr-defined]
    observation, _ = steps.reset(seed=seed)
    instants = policy.horizons.obs_horizon
    history = deque([observation] * instants, maxlen=instants)
    low, high = env.action_space.low, env.action_space.high  # type: ignore[attr-defined]
    while not over:
        stacked = {name: np.stack([seen[name] for seen in history])[None] for name in observation}
        actions = policy.act(stacked, [seed]).actions
        for action in actions[0].clip(low, high):
            observation, _, terminated, truncated, _ = steps.step(action)
            history.append(observation)
            if over := terminated or truncated:
                break
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
