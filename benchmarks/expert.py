"""How often does a scripted expert solve its task? Physics without images, on seeds of its own.

    python benchmarks/expert.py --task sim_transfer --episodes 500
    python benchmarks/expert.py --task aloha_transfer_cube --noise 0 1

Solved is what `vla record` stores, such as: the left hand holds the box at the last step. Adds the task to
benchmarks/results/expert.json.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from machine import machine

from vla.base.files import write_json
from vla.base.progress import Progress
from vla.base.success import format_success, wilson_interval
from vla.rollout.record.attempt import EXPERT_STREAM
from vla.rollout.worlds.expert import EXPERT_TASKS, find_task


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--task", choices=sorted(EXPERT_TASKS.members()), default="sim_transfer")
    parser.add_argument("--noise", type=float, nargs="+", default=[1.0], help="`record.noise`")
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0, help="of the first")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/expert.json"))
    arguments = parser.parse_args()
    seeds = range(arguments.seed, arguments.seed + arguments.episodes)
    rows = [solve(arguments.task, noise, seeds) for noise in arguments.noise]
    results = json.loads(arguments.out.read_text()) if arguments.out.is_file() else {}
    results[arguments.task] = {"machine": machine(), "first_seed": arguments.seed, "rows": rows}
    write_json(arguments.out, results)


def solve(name: str, noise: float, seeds: range) -> dict[str, object]:
    """Let the expert try every seed once."""
    task = find_task(name)
    env = task.open_env({})
    if hasattr(env, "render_observations"):
        env.render_observations = False
    failed = []
    with Progress(f"{name}, noise {noise:g}", len(seeds), unit="episodes") as progress:
        for seed in seeds:
            env.reset(seed=seed)
            expert = task.make_expert(env, np.random.default_rng([seed, EXPERT_STREAM]), noise)
            for _ in range(task.num_steps):
                _, reward, _, _, info = env.step(expert.act().executed)
            if not task.is_solved(float(reward), info):
                failed.append(seed)
            progress.update()
    env.close()
    solved = len(seeds) - len(failed)
    interval = [100 * bound for bound in wilson_interval(solved, len(seeds))]
    rate = format_success(100 * solved / len(seeds), interval)
    print(f"{name}, noise {noise:g}: {solved} of {len(seeds)}, {rate}, failed: {failed}")
    return {"noise": noise, "episodes": len(seeds), "solved": solved, "failed_seeds": failed}


if __name__ == "__main__":
    main()
