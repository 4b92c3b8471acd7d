"""Drive a policy through LIBERO's suites and print it beside published rows.

    .venv-libero/bin/python benchmarks/libero.py runs/libero
    .venv-libero/bin/python benchmarks/libero.py runs/libero --suites spatial --tasks 0 1 --episodes 5

Each task of each suite, 50 episodes from its 50 stored initial states, as in OpenVLA (arXiv 2406.09246).
Results of a task are kept in RUN/eval/libero; started again, it goes on. Published rows are means over three
training seeds of one policy a suite (first three) or over one policy for all suites (SmolVLA).
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from machine import machine

from vla import stages
from vla.base.files import write_json
from vla.base.success import format_success, wilson_interval
from vla.config import PipelineConfig
from vla.rollout.worlds.libero.world import SUITES, env_id
from vla.saved import saved_tables

PUBLISHED = {
    "Diffusion Policy, from scratch (arXiv 2406.09246)": (78.3, 92.5, 68.3, 50.5),
    "Octo, fine-tuned (arXiv 2406.09246)": (78.9, 85.7, 84.6, 51.1),
    "OpenVLA, fine-tuned (arXiv 2406.09246)": (84.7, 88.4, 79.2, 53.7),
    "SmolVLA 0.45B (arXiv 2506.01844)": (90, 96, 92, 71),
}
"""Success [%] on spatial, object, goal, 10."""
COLUMNS = ("spatial", "object", "goal", "10")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path, help="a run, a checkpoint or a policy folder")
    parser.add_argument("--suites", nargs="+", default=COLUMNS, choices=list(SUITES))
    parser.add_argument("--tasks", type=int, nargs="+", help="numbers; all without it")
    parser.add_argument("--episodes", type=int, default=50, help="a task")
    parser.add_argument("--checkpoint", default="last")
    parser.add_argument("--set", action="append", default=[], metavar="TABLE.KEY=VALUE")
    arguments = parser.parse_args()
    began, found = time.monotonic(), {}
    for suite in arguments.suites:
        tasks = [k for k in arguments.tasks or range(SUITES[suite]) if k < SUITES[suite]]
        found[suite] = [evaluate(arguments, suite, task) for task in tasks]
    print(table(found, str(arguments.run)))
    told, minutes = machine(), (time.monotonic() - began) / 60
    print(f"\n{told['gpu'] or told['cpu']}, {minutes:.0f} minutes for what was not there yet.")


def evaluate(arguments: argparse.Namespace, suite: str, task: int) -> dict[str, Any]:
    """Roll a task out, unless that has been done; return its successes and episodes."""
    run = arguments.run
    name = f"{suite}-{task}-{arguments.checkpoint}-{arguments.episodes}"
    file = run / "eval/libero" / f"{name}.json"
    if file.is_file():
        return dict(json.loads(file.read_text()))
    options = {"env.id": env_id(suite, task), "rollout.episodes": arguments.episodes, "rollout.seed": 0}
    settings = PipelineConfig.load(None, options, arguments.set, base=saved_tables(run))
    info = stages.rollout(
        settings, run, checkpoint=arguments.checkpoint, out=run / "eval/libero" / name, force=True
    )
    successes = sum(bool(episode["success"]) for episode in info["per_episode"])
    row = {"successes": successes, "episodes": arguments.episodes, "weights": info["weights_sha256"]}
    write_json(file, row)
    return row


def table(found: dict[str, list[dict[str, Any]]], name: str) -> str:
    """Return a Markdown table: this policy, and the published rows of the same suites."""
    suites = list(found)
    lines = [f"| policy | {' | '.join(suites)} |", "|---" * (len(suites) + 1) + "|"]
    cells = []
    for rows in found.values():
        successes, episodes = (sum(row[key] for row in rows) for key in ("successes", "episodes"))
        interval = [100 * bound for bound in wilson_interval(successes, episodes)]
        cells.append(f"{format_success(100 * successes / episodes, interval)}, {len(rows)} tasks")
    lines.append(f"| {name} | {' | '.join(cells)} |")
    for policy, values in PUBLISHED.items():
        shown = dict(zip(COLUMNS, values, strict=True))
        lines.append(f"| {policy} | {' | '.join(str(shown.get(suite, '')) for suite in suites)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
