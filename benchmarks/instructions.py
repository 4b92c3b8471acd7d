"""Do instructions matter? One policy, the same tasks, four lists of wordings.

    vla record --config examples/instructions.toml
    vla embed --config examples/instructions.toml
    vla train --config examples/instructions.toml --cache data/instructions/features/...
    python benchmarks/instructions.py runs/instructions

    trained     sentences of the list that demonstrations were given
    unseen      sentences and nouns that occur in no demonstration
    shuffled    a sentence of a task drawn by itself: chance is one in eight
    wrong       a sentence of another task than the one that counts

Writes benchmarks/results/instructions.json after every list and prints the table; what it means is in
docs/instructions.md.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from instructions_table import instructions_table
from machine import machine

from vla import stages
from vla.base.files import write_json
from vla.config import PipelineConfig
from vla.policy.training.run import find_policy
from vla.rollout.evaluate.evaluate import evaluate
from vla.rollout.worlds.instructions.wordings import TASKS, WORDINGS, sentences

RESULTS = Path("benchmarks/results/instructions.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--config", type=Path, default=Path("examples/instructions.toml"))
    parser.add_argument("--episodes", type=int, default=100, help="a list; seeds as in the configuration")
    parser.add_argument("--wordings", nargs="+", choices=WORDINGS, default=WORDINGS)
    parser.add_argument("--set", action="append", default=[], metavar="TABLE.KEY=VALUE")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    saved = json.loads(arguments.out.read_text()) if arguments.out.is_file() else {"wordings": {}}
    for wordings in arguments.wordings:
        changes = [
            *arguments.set,
            f'env.kwargs.wordings="{wordings}"',
            f"rollout.episodes={arguments.episodes}",
        ]
        settings = PipelineConfig.load(arguments.config, {}, changes)
        live = stages.load_live(settings, find_policy(arguments.run))
        info = evaluate(live, settings.env, settings.rollout, arguments.run / f"eval_{wordings}")
        saved["wordings"][wordings] = {
            "episodes": len(info["per_episode"]),
            "successes": sum(bool(episode["success"]) for episode in info["per_episode"]),
            "did_as_told": did_as_told(info),
            "first_environment_seed": settings.rollout.seed,
            "asked": info["aggregated"]["asked"],
        }
        policy = live.policy.config
        saved["policy"] = {
            "parameters": sum(parameter.numel() for parameter in live.policy.parameters()),
            "trained_texts": len(policy.tasks),
            "demonstrations": sum(data.num_episodes for data in policy.data),
        }
        saved |= {"command": " ".join(["python", *sys.argv]), "machine": machine()}
        write_json(arguments.out, saved)
    print(instructions_table(saved))


def did_as_told(info: Mapping[str, Any]) -> int:
    """Count the episodes in which the first thing that was put on a pad is what the instruction named."""
    task_of = {
        text: task.name
        for task in TASKS
        for unseen in (False, True)
        for text in sentences(task, unseen=unseen)
    }
    return sum(episode.get("mode") == task_of[episode["task"]] for episode in info["per_episode"])


if __name__ == "__main__":
    main()
