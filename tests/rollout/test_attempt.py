"""One attempt, and the table it becomes."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from vla.rollout.record.attempt import AttemptRunner, Outcome, read_outcome
from vla.rollout.record.plan import Plan, make_plan
from vla.rollout.rollout_config import EnvConfig, RecordConfig
from vla.rollout.worlds.expert import find_task
from vla.rollout.worlds.sim_transfer.env import SimTransferEnv
from vla.rollout.worlds.sim_transfer.transfer_expert import TransferExpert
from vla.rollout.worlds.sim_transfer.world import MAX_EPISODE_STEPS

ENV = EnvConfig(kwargs={"render_height": 24, "render_width": 32, "cameras": ["top"]})
CAMERA = "observation.images.top"
HOPELESS = 20.0
"""So much noise that no attempt succeeds."""


def run_attempt(plan: Plan, number: int) -> tuple[pa.Table, Outcome]:
    runner = AttemptRunner(plan)
    table = pq.read_table(pa.BufferReader(runner.run(number)))
    runner.close()
    return table, read_outcome(table.schema)


def test_a_row_holds_what_was_seen_and_the_clean_command_given_there() -> None:
    plan = make_plan(ENV, RecordConfig(seed=5, image_size=(24, 32)))
    table, outcome = run_attempt(plan, number=2)
    assert (outcome.seed, outcome.success, len(table)) == (7, True, MAX_EPISODE_STEPS)
    env = find_task(plan.task).open_env(plan.env.kwargs)
    observation, _ = env.reset(seed=7)
    assert isinstance(env, SimTransferEnv)
    expert = TransferExpert(env.physics, np.random.default_rng([7, 1]), noise=1.0)
    for row in table.slice(0, 3).to_pylist():
        stored = np.asarray(Image.open(io.BytesIO(row[CAMERA]["bytes"])))
        np.testing.assert_array_equal(stored, observation["pixels"]["top"])
        np.testing.assert_array_equal(row["observation.state"], observation["agent_pos"])
        command = expert.act()
        np.testing.assert_array_equal(row["action"], command.label)
        observation, _, _, _, _ = env.step(command.executed)
    env.close()


def test_histograms_count_every_pixel() -> None:
    _, outcome = run_attempt(make_plan(ENV, RecordConfig(image_size=(12, 10))), number=0)
    assert np.sum(outcome.histograms[CAMERA], axis=1).tolist() == [12 * 10 * MAX_EPISODE_STEPS] * 3


def test_a_failed_attempt_leaves_only_its_outcome() -> None:
    table, outcome = run_attempt(make_plan(ENV, RecordConfig(noise=HOPELESS)), number=0)
    assert (outcome.success, len(table)) == (False, 0)


def test_a_failed_attempt_is_kept_if_asked() -> None:
    config = RecordConfig(noise=HOPELESS, keep_failures=True, image_size=(24, 32))
    table, outcome = run_attempt(make_plan(ENV, config), number=0)
    assert (outcome.success, len(table)) == (False, MAX_EPISODE_STEPS)
