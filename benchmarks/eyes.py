"""Does the policy use its eyes? Give every robot another robot's features, and see.

    python benchmarks/eyes.py runs/demo --episodes 50

State and environment stay a robot's own; only what its cameras showed is swapped with the robot beside it,
which is in another episode. A policy that had learned motions by heart would not mind.
"""

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from machine import machine

from vla.base.files import write_json
from vla.base.success import format_success
from vla.config import PipelineConfig
from vla.policy.training.run import find_policy
from vla.rollout.evaluate.evaluate import evaluate
from vla.rollout.live import LivePolicy
from vla.saved import saved_tables
from vla.stages import load_live


class SwappedEyes(LivePolicy):
    """A live policy in which each robot sees what the one beside it sees."""

    def _encode(self, observation: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
        seen = super()._encode(observation)
        return {name: torch.roll(features, 1, dims=0) for name, features in seen.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("policy", type=Path)
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/eyes.json"))
    arguments = parser.parse_args()
    settings = PipelineConfig.load(None, {"rollout.videos": 0}, [], base=saved_tables(arguments.policy))
    # An even number side by side, so that nobody is left alone with its own eyes.
    count = arguments.episodes // 2 * 2
    rollout = settings.rollout.model_copy(update={"episodes": count, "num_envs": 2})
    live = load_live(settings, find_policy(arguments.policy))
    result = {"machine": machine(), "policy": str(arguments.policy), "episodes": count}
    for name, kind in (("own eyes", LivePolicy), ("swapped eyes", SwappedEyes)):
        with tempfile.TemporaryDirectory() as out:  # no evaluation of the run itself
            info = evaluate(kind(live.policy, live.encoder), settings.env, rollout, Path(out))
        found = info["aggregated"]
        result[name] = {"pc_success": found["pc_success"], "avg_reward": info["avg_reward"]}
        success = format_success(found["pc_success"], found["pc_success_ci95"])
        print(f"{name}: success {success}, avg_reward {info['avg_reward']:.1f}")
    write_json(arguments.out, result)


if __name__ == "__main__":
    main()
