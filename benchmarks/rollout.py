"""How many episodes a second, in parallel processes and in one environment?

    python benchmarks/rollout.py                 # on a CPU at reduced size, in at most 10 minutes
    python benchmarks/rollout.py --device cuda   # at full size

parallel      `vla rollout`: a process an environment, in one group or in two, as it chooses for the device
one group     all are rendered, then all are encoded
two groups    one is rendered while the other is encoded
serial        one environment in the policy's own process, with all cores for rendering and for the network

The policy is untrained: an episode of `sim_transfer` lasts 200 steps whatever it does. Rendered at 480 x 640.
"""

import os
import time
from contextlib import ExitStack
from statistics import median
from typing import Any

import torch
from demonstrations import FULL, SMALL, load_encoder, untrained_agent
from measure import paired_ratio, parser, rounded, save, take_turns

from vla.policy.config import PolicyConfig
from vla.rollout.chunk_env import ChunkEnv
from vla.rollout.config import EnvConfig
from vla.rollout.episodes import take_turns as run_episodes
from vla.rollout.evaluate import group_sizes, make_vector_env
from vla.rollout.live import LivePolicy
from vla.rollout.make_env import make_env

REDUCED = "the small encoder that comes with vla and the demo's policy; two environments a core are not tried"
DEMO_POLICY = PolicyConfig(per_view_dim=96, cond_dim=192, n_emb=128, n_layer=4, n_head=4)


def main() -> None:
    arguments = parser(__doc__, "rollout").parse_args()
    device, gpu = torch.device(arguments.device), arguments.device == "cuda"
    encoder = load_encoder(FULL if gpu else SMALL, device)
    agent = untrained_agent(PolicyConfig() if gpu else DEMO_POLICY, encoder.identity)
    policy = LivePolicy(agent.to(device), encoder)
    cores = os.cpu_count() or 1
    rounds = 1 if arguments.tiny else 3
    steps = 16 if arguments.tiny else 200
    env = EnvConfig(kwargs={"max_episode_steps": steps})
    with ExitStack() as stack:
        # First of all, so that its OpenGL is set up as a user's own script would: with threads.
        serial = make_env(env, policy.obs_horizon, policy.num_action_steps)
        stack.callback(serial.close)
        run_serial(policy, serial, 0)
        sizes = {"one_group": [cores], "two_groups": [cores - cores // 2, cores // 2]}
        groups = {name: [make_vector_env(policy, env, size) for size in sizes[name]] for name in sizes}
        for group in (*groups["one_group"], *groups["two_groups"]):
            stack.callback(group.close)
        chosen = "one_group" if len(group_sizes(cores, device)) == 1 else "two_groups"

        def parallel(vectors: list[Any]) -> float:
            """Return seconds an episode; the latency figures are not of interest here."""
            latency: dict[str, list[float]] = {"render": [], "encode": [], "head": []}
            began = time.perf_counter()
            for _ in run_episodes(policy, vectors, iter(range(1000, 1000 + 2 * cores)), {}, latency):
                pass
            return (time.perf_counter() - began) / (2 * cores)

        seconds = take_turns(
            {
                "one_group": lambda: parallel(groups["one_group"]),
                "two_groups": lambda: parallel(groups["two_groups"]),
                "serial": lambda: run_serial(policy, serial, 1000),
            },
            rounds,
        )
    figures = {
        "cores": cores,
        "environments": cores,
        "steps_an_episode": steps,
        "encoder": encoder.identity.describe(),
        "episodes_per_s_one_group": rounded(1 / median(seconds["one_group"])),
        "episodes_per_s_two_groups": rounded(1 / median(seconds["two_groups"])),
        "episodes_per_s_serial": rounded(1 / median(seconds["serial"])),
        "parallel": chosen,
        "parallel_over_serial": rounded(paired_ratio(seconds["serial"], seconds[chosen])),
        "two_groups_over_one": rounded(paired_ratio(seconds["one_group"], seconds["two_groups"])),
    }
    save(arguments, "rollout", figures, REDUCED)


def run_serial(policy: LivePolicy, env: ChunkEnv, seed: int) -> float:
    """Drive one environment through an episode; return seconds."""
    began, over = time.perf_counter(), False
    observation, _ = env.reset(seed=seed)
    while not over:
        pixels = {camera: frames[None] for camera, frames in observation["pixels"].items()}
        actions, _ = policy.act(pixels, observation["agent_pos"][None], [seed])
        low, high = env.action_space.low, env.action_space.high  # type: ignore[attr-defined]
        observation, _, terminated, truncated, _ = env.step(actions[0].clip(low, high))
        over = terminated or truncated
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
