"""Beside published figures: Meta-World by the protocol of 3D Diffusion Policy, one policy a task.

    make metaworld
    .venv-metaworld/bin/python benchmarks/meta_world.py --tasks all --seeds 0 1 2
    .venv-metaworld/bin/python benchmarks/meta_world.py --config examples/benchmarks/metaworld_small.toml
    .venv-metaworld/bin/python benchmarks/meta_world.py --one-policy --tasks all --seeds 0 1 2

10 demonstrations a task from the package's own experts, one camera, the state of hand and fingers, 200 steps,
20 evaluation episodes that no demonstration began like.

adapted       one trunk learns from the images of all tasks together, is frozen, and what it says is cached; a
              head a task is trained on that
end to end    trunk and head of one task on its images, for each of --end-to-end
one policy    (--one-policy) the same encoder, and one head for all tasks that is told which it is:
              examples/benchmarks/metaworld_mt50.toml, 50 demonstrations a task

Of every training the last checkpoint counts. Published figures are means of the five best evaluations during
training: a lead that ours do not have. Writes benchmarks/results/meta-world.json (one policy:
meta-world-one-policy.json) after every evaluation; started again, it goes on. Ends with the table.
"""

import argparse
import json
import random
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from machine import machine
from meta_world_table import ADAPTED, END_TO_END, ONE_POLICY, metaworld_table

import vla
from vla.base.files import write_json
from vla.config import read_tables
from vla.policy.training.run import RunDirectory, find_policy
from vla.rollout.worlds.metaworld.tasks import TASKS, TIERS
from vla.rollout.worlds.metaworld.world import PREFIX, env_id

MT10 = (
    "reach",
    "push",
    "pick-place",
    "door-open",
    "drawer-open",
    "drawer-close",
    "button-press-topdown",
    "peg-insert-side",
    "window-open",
    "window-close",
)
"""The package's MT10."""
SHIFT = 0.05
"""Share of an image by which training moves it."""


def drawn(each: int) -> list[str]:
    """Return so many tasks of every tier, in turn, by chance: none was picked for its figures."""
    rng = random.Random(0)
    tiers = [[name for name in TASKS if TASKS[name].tier == tier] for tier in TIERS]
    for names in tiers:
        rng.shuffle(names)
    return [names[number] for number in range(each) for names in tiers]


class Benchmark:
    """All that one call runs, each step where it stopped.

    Args:
        arguments: of the command line.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.config, self.work, self.out = arguments.config, arguments.work, arguments.out
        self.device = arguments.device or "auto"
        self.tables = read_tables(self.config)
        for key in ("adapt_steps", "steps"):
            self.tables["train"][key] = getattr(arguments, key) or self.tables["train"][key]
        self.image_size = self.tables["record"]["image_size"]
        self.saved: dict[str, Any] = {"rows": [], "minutes_of": {}}
        if self.out.is_file():
            self.saved = json.loads(self.out.read_text())
        train, (height, width) = self.tables["train"], self.image_size
        self.saved |= {
            "machine": machine(),
            "command": " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
            "updates": {"images": train["adapt_steps"], "head": train["steps"]},
            "sizes": f"Images of {height} x {width} pixels; {train['adapt_steps']:,} updates of "
            f"{train['batch_size']} on images, {train['steps']:,} of each head; `{self.config.name}`",
        }

    def record(self, task: str) -> Path:
        """Record the demonstrations of a task; of experts only what succeeds is kept."""
        out: Path = self.work / "demos" / task
        if not (out / "meta/info.json").is_file():
            with self.timed("record"):
                settings = {"env.id": env_id(task)}
                vla.record(
                    PREFIX + task,
                    out,
                    self.tables["record"]["episodes"],
                    settings=settings,
                    config=self.config,
                )
        return out

    def pixels(self, task: str) -> Path:
        """Cache a task's images as they are."""
        return self.embed(task, "pixels", "pixels", **{"encoder.image_size": self.image_size})

    def embed(self, task: str, encoder: str | Path, kind: str, **settings: Any) -> Path:
        """Encode a task's demonstrations, or find that they are; return the cache."""
        demonstrations, chosen = self.record(task), {"encoder.device": self.device, **settings}
        with self.timed("embed"):
            out = self.work / kind / task
            return vla.embed(demonstrations, encoder, out, settings=chosen, config=self.config).folder

    def train(self, stage: str, caches: Sequence[Path], out: Path, seed: int, **settings: Any) -> Path:
        """Train, or go on."""
        settings = {"train.steps": self.tables["train"]["steps"], **settings}
        with self.timed(stage):
            vla.train(
                caches if len(caches) > 1 else caches[0],
                out,
                seed=seed,
                resume=RunDirectory(out).config.is_file(),
                settings={"train.tracker": "none", "train.device": self.device, **settings},
                config=self.config,
            )
        return out

    def on_images(self, stage: str, tasks: Sequence[str], out: Path, seed: int) -> Path:
        """Train a trunk and a head on the images of some tasks together."""
        steps = {"train.steps": self.tables["train"]["adapt_steps"], "train.augment.shift": SHIFT}
        caches = [self.pixels(task) for task in tasks]
        return self.train(stage, caches, out, seed, **steps)

    def adapted(self, tasks: Sequence[str], seed: int) -> None:
        """Adapt on all tasks, freeze, cache, train a head a task, evaluate each."""
        missing = [task for task in tasks if not self.has(ADAPTED, task, seed)]
        if not missing:
            return
        encoder = self.on_images("adapt", tasks, self.work / f"adapted-seed{seed}", seed)
        for task in missing:
            features = self.embed(task, encoder, f"features-seed{seed}")
            run = self.work / f"{task}-seed{seed}"
            self.train("heads", [features], run, seed, **{"policy.trunks": {}})
            self.evaluate(ADAPTED, task, seed, run)

    def one_policy(self, tasks: Sequence[str], seed: int) -> None:
        """Adapt on all tasks, freeze, cache, train one head for all of them, evaluate it on each."""
        if missing := [task for task in tasks if not self.has(ONE_POLICY, task, seed)]:
            encoder = self.on_images("adapt", tasks, self.work / f"adapted-seed{seed}", seed)
            features = [self.embed(task, encoder, f"features-seed{seed}") for task in tasks]
            run = self.work / f"one-policy-seed{seed}"
            self.train("heads", features, run, seed, **{"policy.trunks": {}})
            for task in missing:
                self.evaluate(ONE_POLICY, task, seed, run)

    def end_to_end(self, task: str, seed: int) -> None:
        """Train on the images of one task, and evaluate."""
        if not self.has(END_TO_END, task, seed):
            run = self.on_images("end to end", [task], self.work / f"{task}-images-seed{seed}", seed)
            self.evaluate(END_TO_END, task, seed, run)

    def evaluate(self, variant: str, task: str, seed: int, run: Path) -> None:
        """Drive a run's last checkpoint live, and add a row to the results."""
        rollout, kwargs = self.tables["rollout"], self.tables["env"]["kwargs"]
        with self.timed("evaluate"):
            info = vla.rollout(
                find_policy(run, "last"),
                env=env_id(task),
                out=run / "eval" / task,
                force=True,
                settings={
                    "encoder.device": self.device,
                    "env.kwargs": kwargs,
                    **{f"rollout.{key}": value for key, value in rollout.items()},
                },
            )
        rate, episodes = info["aggregated"]["pc_success"], info["aggregated"]["n_episodes"]
        row = {"variant": variant, "task": task, "tier": TASKS[task].tier, "seed": seed}
        row |= {"successes": round(rate * episodes / 100), "episodes": episodes}
        self.saved["rows"].append(row)
        write_json(self.out, self.saved)
        print(f"{variant}: {task}, seed {seed}: {row['successes']} of {episodes}", flush=True)

    def has(self, variant: str, task: str, seed: int) -> bool:
        """Tell whether an evaluation is done."""
        wanted = {"variant": variant, "task": task, "seed": seed}
        return any(wanted.items() <= row.items() for row in self.saved["rows"])

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the minutes of processor time and by the clock that a step takes to its stage's."""
        cpu, clock = _processor_s(), time.monotonic()
        yield
        spent = self.saved["minutes_of"].setdefault(stage, [0.0, 0.0])
        spent[0] += (_processor_s() - cpu) / 60
        spent[1] += (time.monotonic() - clock) / 60
        write_json(self.out, self.saved)


def _processor_s() -> float:
    """Return seconds of this process and of those that it started and that have ended."""
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--config", type=Path, help="examples/benchmarks/metaworld.toml or metaworld_mt50.toml"
    )
    parser.add_argument("--tasks", nargs="+", help="names, mt10 or all; without it --each of them are drawn")
    parser.add_argument("--each", type=int, default=3, choices=range(1, 6), help="tasks of each tier")
    parser.add_argument("--end-to-end", nargs="*", default=[], metavar="TASK")
    parser.add_argument("--one-policy", action="store_true", help="one head for all tasks")
    parser.add_argument("--adapt-steps", type=int, help="updates on images")
    parser.add_argument("--steps", type=int, help="updates of a head")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of training")
    parser.add_argument("--device", help="cuda, cpu; by default the best there is")
    parser.add_argument("--work", type=Path, help="runs/benchmark-metaworld, or -one-policy")
    parser.add_argument("--out", type=Path, help="by default in benchmarks/results")
    arguments = parser.parse_args()
    name = "-one-policy" if arguments.one_policy else ""
    protocol = "metaworld_mt50.toml" if arguments.one_policy else "metaworld.toml"
    arguments.config = arguments.config or Path("examples/benchmarks") / protocol
    arguments.work = arguments.work or Path(f"runs/benchmark-metaworld{name}")
    arguments.out = arguments.out or Path(f"benchmarks/results/meta-world{name}.json")
    tasks = drawn(arguments.each) if arguments.tasks is None else arguments.tasks
    tasks = {"all": list(TASKS), "mt10": list(MT10)}.get(tasks[0], tasks)
    if unknown := [task for task in (*tasks, *arguments.end_to_end) if task not in TASKS]:
        parser.error(f"Meta-World has no task {unknown[0]}; there are: {', '.join(TASKS)}")
    benchmark = Benchmark(arguments)
    for seed in arguments.seeds:
        (benchmark.one_policy if arguments.one_policy else benchmark.adapted)(tasks, seed)
        for task in arguments.end_to_end:
            benchmark.end_to_end(task, seed)
    print(metaworld_table(benchmark.saved))


if __name__ == "__main__":
    main()
