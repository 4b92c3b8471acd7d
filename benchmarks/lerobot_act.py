"""LeRobot's ACT on Meta-World's demonstrations: what do the same updates take, and what do they solve?

    make metaworld-lerobot
    .venv-metaworld/bin/python benchmarks/meta_world.py --config examples/benchmarks/metaworld_small.toml
    PYTHONPATH=tests/interop .venv-metaworld-lerobot/bin/python benchmarks/lerobot_act.py

Reads the demonstrations that `meta_world.py` recorded, by LeRobotDataset, and trains LeRobot's own class with
its own processors. Its ResNet-18 is LeRobot's; the transformer is as wide as --width says (LeRobot's own is
512); chunk and executed actions, batch, updates, images and evaluation are those of the configuration.
Weights of ImageNet are not loaded, and the learning rate is ACT's times ten, since the updates are few.
Minutes are of processor time: data (reading, decoding) and updates apart. Writes
benchmarks/results/lerobot-act.json after every task; started again, it goes on.
"""

import argparse
import json
import os
import time
from itertools import count
from pathlib import Path
from typing import Any

import gymnasium
import torch
from machine import machine
from torch.utils.data import DataLoader

from vla.base.files import write_json
from vla.config import read_tables
from vla.rollout.worlds.metaworld.world import DEFAULT_CAMERAS, env_id

os.environ["HF_HUB_OFFLINE"] = "1"
CHUNK, EXECUTED, LEARNING_RATE = 16, 8, 1e-4


def train(
    demonstrations: Path, tables: dict[str, Any], updates: int, width: int
) -> tuple[Any, Any, Any, dict[str, float]]:
    """Train LeRobot's ACT; return it, its processors, and minutes of processor time."""
    from lerobot.configs import FeatureType, PolicyFeature
    from lerobot.datasets.lerobot_dataset import LeRobotDataset
    from lerobot.policies.act.configuration_act import ACTConfig
    from lerobot.policies.act.modeling_act import ACTPolicy
    from lerobot.policies.act.processor_act import make_act_pre_post_processors

    fps = json.loads((demonstrations / "meta/info.json").read_text())["fps"]
    window = {"action": [step / fps for step in range(CHUNK)]}
    dataset = LeRobotDataset("local", root=demonstrations, delta_timestamps=window)
    camera = f"observation.images.{DEFAULT_CAMERAS[0]}"
    config = ACTConfig(
        input_features={
            "observation.state": PolicyFeature(FeatureType.STATE, (9,)),
            camera: PolicyFeature(FeatureType.VISUAL, (3, *tables["record"]["image_size"])),
        },
        output_features={"action": PolicyFeature(FeatureType.ACTION, (4,))},
        chunk_size=CHUNK,
        n_action_steps=EXECUTED,
        pretrained_backbone_weights=None,
        dim_model=width,
        dim_feedforward=4 * width,
        device="cpu",
    )
    policy = ACTPolicy(config)
    before, after = make_act_pre_post_processors(config, dataset_stats=dataset.meta.stats)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=LEARNING_RATE, weight_decay=1e-4)
    loader = DataLoader(dataset, tables["train"]["batch_size"], shuffle=True, drop_last=True)
    spent = {"data": 0.0, "updates": 0.0}
    policy.train()
    batches = cycle_epochs(loader)
    for number in range(updates):
        began = time.process_time()
        batch = next(batches)
        read = time.process_time()
        loss, _ = policy.forward(before(batch))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 10.0)
        optimizer.step()
        optimizer.zero_grad()
        spent["data"] += (read - began) / 60
        spent["updates"] += (time.process_time() - read) / 60
        if number % 25 == 0:
            print(f"{number}/{updates} updates, loss {loss.item():.3f}, {spent}", flush=True)
    return policy.eval(), before, after, spent


def cycle_epochs(loader: DataLoader[Any]) -> Any:
    """Yield batches for ever, each epoch in an order of its own."""
    for _ in count():
        yield from loader


def evaluate(policy: Any, before: Any, after: Any, task: str, tables: dict[str, Any]) -> int:
    """Return how many episodes it solves, from the same seeds as ours."""
    env, solved = gymnasium.make(env_id(task), **tables["env"]["kwargs"]), 0
    rollout, camera = tables["rollout"], DEFAULT_CAMERAS[0]
    for seed in range(rollout["seed"], rollout["seed"] + rollout["episodes"]):
        observation, _ = env.reset(seed=seed)
        policy.reset()
        ended = done = False
        while not ended:
            image = torch.from_numpy(observation["pixels"][camera]).permute(2, 0, 1) / 255
            state = torch.from_numpy(observation["agent_pos"])
            seen = before({f"observation.images.{camera}": image, "observation.state": state})
            action = after(policy.select_action(seen)).squeeze(0).numpy()
            observation, _, terminated, truncated, info = env.step(action)
            done, ended = bool(info["is_success"]), terminated or truncated
        solved += done
    env.close()
    return solved


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("examples/benchmarks/metaworld_small.toml"))
    parser.add_argument("--tasks", nargs="+", default=["bin-picking"])
    parser.add_argument("--work", type=Path, default=Path("runs/benchmark-metaworld"))
    parser.add_argument("--width", type=int, default=128, help="of the transformer")
    parser.add_argument("--updates", type=int, help="those on images of the configuration")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/lerobot-act.json"))
    arguments = parser.parse_args()
    tables = read_tables(arguments.config)
    updates = arguments.updates or tables["train"]["adapt_steps"]
    rows = json.loads(arguments.out.read_text())["rows"] if arguments.out.is_file() else []
    for task in arguments.tasks:
        if any(row["task"] == task for row in rows):
            continue
        torch.manual_seed(0)
        policy, before, after, spent = train(
            arguments.work / "demos" / task, tables, updates, arguments.width
        )
        began = time.process_time()
        solved = evaluate(policy, before, after, task, tables)
        spent["evaluate"] = (time.process_time() - began) / 60
        minutes = {stage: round(value, 2) for stage, value in spent.items()}
        row = {"task": task, "successes": solved, "episodes": tables["rollout"]["episodes"]}
        rows.append({**row, "updates": updates, "width": arguments.width, "minutes": minutes})
        write_json(arguments.out, {"machine": machine(), "rows": rows})
        print(rows[-1])


if __name__ == "__main__":
    main()
