"""Record expert demonstrations: `vla record`.

Attempts are independent of each other, numbered, and each decided by its number alone. The data set
is made of the first successes in order of number, so its bytes depend neither on how many workers
ran nor on how often the recording was interrupted.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vla.base.errors import DatasetError, EnvironmentSetupError
from vla.base.files import write_atomically, write_json
from vla.base.interrupt import deferred
from vla.base.lock import exclusive
from vla.base.progress import Progress
from vla.base.threads import usable_cores
from vla.cache.stream import Kind, Stream
from vla.embed.datasets.lerobot.writer import EpisodeTable, make_features, write_dataset
from vla.rollout.record.attempt import IMAGE_COLUMN, STATE_COLUMN, Outcome
from vla.rollout.record.attempt_pool import open_pool
from vla.rollout.record.plan import Plan, make_plan
from vla.rollout.record.recorded import Recorded
from vla.rollout.record.staging import Staging, restore
from vla.rollout.rollout_config import EnvConfig, RecordConfig
from vla.rollout.worlds.expert import find_task

MAX_ATTEMPTS_PER_EPISODE = 4
"""Beyond this the expert is not an expert: with its own noise 99.6 % succeed."""


@dataclass(frozen=True, kw_only=True)
class RecordReport:
    """What `record` has done."""

    path: Path
    episodes: int
    frames: int
    attempts: int
    """Attempts that were looked at, the failures among them included."""
    failures: int
    seconds: float
    resumed_episodes: int
    """Episodes that an earlier run had finished, interrupted or, with `append`, not."""


def record(env: EnvConfig, config: RecordConfig, notes: Mapping[str, bytes] | None = None) -> RecordReport:
    """Record demonstrations into the directory `config.out`, a LeRobotDataset v3.0.

    Work is kept in `<out>.partial/` until all of it is done; the same call takes up what is there. With
    `config.append` an earlier recording is continued, to the bytes that one of so many episodes has.

    Args:
        env: the environment, also that of later rollouts.
        config: what to record, how much, and where to.
        notes: further files of the data set, by name.

    Raises:
        ConfigError: no expert fits the task or the environment.
        DatasetError: there is something at `config.out` already that is not to be continued or cannot be,
            an unfinished recording with other settings lies beside it, or too few attempts succeed.
        EnvironmentSetupError: the environment's package is not installed, or this machine cannot render.
        VlaError: another process is recording to the same place.
        Interrupted: a signal came; the attempts at work were finished first.
    """
    started = time.monotonic()
    plan = make_plan(env, config)
    out = Path(config.out)
    with exclusive(out):
        restore(out)
        recorded = _recorded(out, plan, config)
        before = len(recorded.numbers) if recorded else 0
        outcomes = dict(recorded.outcomes) if recorded else {}
        resumed, frames = before, recorded.frames if recorded else 0
        if before < config.episodes:
            staging = Staging(out, plan)
            outcomes |= staging.outcomes()
            resumed = min(_count_kept(outcomes, plan), config.episodes)
            _run_missing(plan, config, staging, outcomes, resumed)
            chosen = _chosen(outcomes, plan, config.episodes)
            frames = _assemble(plan, staging, chosen, recorded)
            for name, data in (notes or {}).items():
                write_atomically(staging.dataset / name, data)
            staging.publish()
    last = max(_chosen(outcomes, plan, config.episodes))
    return RecordReport(
        path=out,
        episodes=config.episodes,
        frames=frames,
        attempts=last + 1,
        failures=sum(not outcomes[number].success for number in range(last + 1)),
        seconds=time.monotonic() - started,
        resumed_episodes=resumed,
    )


def _recorded(out: Path, plan: Plan, config: RecordConfig) -> Recorded | None:
    """Return the recording that is to be continued; None if there is none.

    Raises:
        DatasetError: something lies there that is not to be continued, or cannot be.
    """
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        if not config.append:
            raise DatasetError(f"{out} already exists; continue it with --append, or choose another --out")
        found = Recorded(out, plan)
        if len(found.numbers) > config.episodes:
            raise DatasetError(
                f"{out} has {len(found.numbers)} episodes already, {config.episodes} are asked for; "
                "--episodes counts all of them"
            )
        return found
    if out.resolve() == Path.cwd():
        # It is published by taking the place of what is at `out`: the shell would be left in a folder
        # that is gone.
        raise DatasetError(f"'{out}' is the working directory; name a new one, for example --out demos")
    return None


def attempts_missing(kept: Mapping[int, bool], episodes: int) -> list[int]:
    """Return the attempts still to be run, if all of them are going to be kept.

    Args:
        kept: of each finished attempt, whether it is part of the data set.
        episodes: how many are wanted.

    Raises:
        DatasetError: too many attempts failed.

    >>> attempts_missing({0: True, 2: False}, episodes=3)
    [1, 3]
    """
    missing: list[int] = []
    hoped = number = 0
    while hoped < episodes:
        if number >= MAX_ATTEMPTS_PER_EPISODE * episodes:
            raise DatasetError(
                f"only {sum(kept.values())} of {len(kept)} attempts succeeded, {episodes} are wanted; "
                "lower --set record.noise, or keep failures with --set record.keep_failures=true"
            )
        if number not in kept:
            missing.append(number)
        hoped += kept.get(number, True)
        number += 1
    return missing


def _run_missing(
    plan: Plan, config: RecordConfig, staging: Staging, outcomes: dict[int, Outcome], resumed: int
) -> None:
    """Run attempts until enough are kept; `outcomes` grows."""
    missing = attempts_missing(_kept(outcomes, plan), config.episodes)
    num_workers = min(config.workers or usable_cores(), len(missing))
    with (
        Progress("record", config.episodes, done=resumed, unit="episodes") as progress,
        open_pool(plan, num_workers) as pool,
        deferred() as signals,
    ):
        while missing:
            waiting = [number for number in missing if number not in pool.running]
            for number in waiting[: pool.num_idle] if signals.received is None else ():
                pool.start(number)
            if not pool.running:
                signals.stop_if_asked(f"{len(outcomes)} finished attempts are kept")
            try:
                for number, table in pool.finished():
                    outcomes[number] = staging.save(number, table)
                    progress.update(int(_kept(outcomes, plan)[number]))
            except EnvironmentSetupError:  # SIGTERM to the whole group ends the workers as well
                signals.stop_if_asked(f"{len(outcomes)} finished attempts are kept")
                raise
            missing = attempts_missing(_kept(outcomes, plan), config.episodes)


def _kept(outcomes: Mapping[int, Outcome], plan: Plan) -> dict[int, bool]:
    return {number: plan.keep_failures or outcome.success for number, outcome in outcomes.items()}


def _count_kept(outcomes: Mapping[int, Outcome], plan: Plan) -> int:
    return sum(_kept(outcomes, plan).values())


def _chosen(outcomes: Mapping[int, Outcome], plan: Plan, episodes: int) -> dict[int, Outcome]:
    """Return the first attempts that are kept, in order of number."""
    numbers = [number for number, keep in sorted(_kept(outcomes, plan).items()) if keep]
    return {number: outcomes[number] for number in numbers[:episodes]}


def _assemble(plan: Plan, staging: Staging, chosen: Mapping[int, Outcome], recorded: Recorded | None) -> int:
    """Put the data set together in the staging folder; return its number of frames."""
    task, newest = find_task(plan.task), max(chosen)
    cameras = [column.removeprefix(IMAGE_COLUMN) for column in chosen[newest].histograms]
    sensors = _sensors(pq.read_schema(staging.path(newest)))
    features = make_features(cameras, plan.image_size, task.state_names, sensors, task.action_names)
    frames = write_dataset(
        staging.dataset,
        features,
        task.control_hz,
        task.instruction,
        _episode_tables(staging, chosen, recorded),
        robot_type=task.robot_type,
    )
    settings = plan.model_dump(mode="json")
    episodes = [{"seed": outcome.seed, "success": outcome.success} for outcome in chosen.values()]
    provenance = {**settings, "render_quality": task.render_quality(), "episodes": episodes}
    write_json(staging.dataset / "meta/vla.json", provenance)
    return frames


def _sensors(schema: pa.Schema) -> list[Stream]:
    """Return the streams of an attempt that are neither images nor state nor action."""
    sensors = []
    for column in schema:
        if column.name not in (STATE_COLUMN, "action") and pa.types.is_fixed_size_list(column.type):
            sizes, kind = [], column.type
            while pa.types.is_fixed_size_list(kind):
                sizes.append(kind.list_size)
                kind = kind.value_type
            name = column.name.removeprefix("observation.")
            # A dataset does not say what its arrays are; whoever embeds it does: dataset.streams.
            of_kind: Kind = "vector" if len(sizes) == 1 else "points"
            sensors.append(Stream(name=name, kind=of_kind, dtype="float32", shape=tuple(sizes)))
    return sensors


def _episode_tables(
    staging: Staging, chosen: Mapping[int, Outcome], recorded: Recorded | None
) -> Iterator[EpisodeTable]:
    if recorded is not None:
        yield from recorded.episodes()
    for number, outcome in list(chosen.items())[len(recorded.numbers) if recorded else 0 :]:
        table = pq.read_table(staging.path(number)).replace_schema_metadata()
        histograms = {column: np.array(counts) for column, counts in outcome.histograms.items()}
        yield EpisodeTable(frames=table, histograms=histograms, task=outcome.instruction)
