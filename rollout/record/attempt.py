"""One attempt of an expert, from reset to the last step, and the table that it becomes.

A table is what a worker sends and the staging folder keeps: one row a step, with those columns of the dataset
that do not depend on other attempts.

    observation.images.<camera>  struct{bytes, path}  PNG, lossless
    observation.state            float32 [S]  what the robot measured when the step began
    observation.<sensor>         float32 [N] or [N, C]  of every further stream of the environment
    action                       float32 [S]  the expert's undisturbed command at that moment
    next.reward                  float32       what the step earned
    next.success                 bool          whether the task counted as solved after the step
    timestamp, frame_index       float32 [s], int64

The metadata of the schema holds, under `vla`, an `Outcome` as JSON. A table may have no rows: a
failed attempt that is not to be kept leaves only its outcome.
"""

import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int64, UInt8
from PIL import Image

from vla.base.strict import StrictModel
from vla.cache.stream import STATE
from vla.embed.transforms import resize
from vla.rollout.record.plan import Plan
from vla.rollout.worlds.expert import find_task
from vla.rollout.worlds.observations import Observations, not_finite

PNG_LEVEL = 4
"""A view of 256x256: level 1 29 kB in 2.0 ms, 4 25 kB in 2.7 ms, 6 23 kB in 5.3 ms, 9 22 kB in 27 ms."""
EXPERT_STREAM = 1
"""Second number of the seed of the expert's random stream, which sets it apart from the environment's."""
METADATA_KEY = b"vla"
IMAGE_TYPE = pa.struct({"bytes": pa.binary(), "path": pa.string()})
IMAGE_COLUMN, STATE_COLUMN = "observation.images.", "observation.state"


class Outcome(StrictModel):
    """How an attempt went."""

    seed: int
    success: bool
    """The task was solved, and still was at the end."""
    max_stage: int
    histograms: dict[str, tuple[tuple[int, ...], ...]]
    """Per image column, how many pixels of each channel have each of the 256 values."""
    instruction: str = ""
    """What the environment asked for in this episode; empty where it asks for what the task says."""


class AttemptRunner:
    """Runs attempts in one environment; close it when done.

    Args:
        plan: what to record.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._task = find_task(plan.task)
        self._world = self._task.open_env(plan.env.kwargs)
        self._env = Observations(self._world, {})
        self._cameras = self._env.camera_names

    def run(self, number: int) -> bytes:
        """Run attempt `number` and return its table.

        Raises:
            EnvironmentSetupError: the environment gives what it does not declare, or what is not finite.
        """
        seed = self._plan.seed + number
        observation, info = self._env.reset(seed=seed)
        expert = self._task.make_expert(
            self._world, np.random.default_rng([seed, EXPERT_STREAM]), self._plan.noise
        )
        instruction = str(info.get("task", ""))
        rows: dict[str, list[Any]] = defaultdict(list)
        histograms: dict[str, Any] = defaultdict(lambda: np.zeros((3, 256), np.int64))
        for step in range(self._task.num_steps):
            for name, value in observation.items():
                if name in self._cameras:
                    column = IMAGE_COLUMN + name
                    frame = resize(value[None], self._plan.image_size)[0]
                    histograms[column] += histogram(frame)
                    rows[column].append({"bytes": encode_png(frame), "path": None})
                else:
                    when = f"step {step} of attempt {number}, seed {seed}"
                    if (error := not_finite(self._task.env_id, name, value, when)) is not None:
                        raise error
                    rows[STATE_COLUMN if name == STATE else f"observation.{name}"].append(value)
            command = expert.act()
            rows["action"].append(command.label)
            observation, reward, _, _, info = self._env.step(command.executed)
            rows["next.reward"].append(reward)
            rows["next.success"].append(info["is_success"])
            rows["timestamp"].append(step / self._task.control_hz)
            rows["frame_index"].append(step)
        outcome = Outcome(
            seed=seed,
            success=self._task.is_solved(float(rows["next.reward"][-1]), info),
            max_stage=int(max(rows["next.reward"])),
            histograms={column: counts.tolist() for column, counts in histograms.items()},
            instruction=instruction,
        )
        return encode_attempt(rows if outcome.success or self._plan.keep_failures else {}, outcome)

    def close(self) -> None:
        """Free the environment."""
        self._env.close()


def encode_attempt(rows: Mapping[str, Sequence[Any]], outcome: Outcome) -> bytes:
    """Return the parquet file of an attempt.

    Args:
        rows: one sequence a column; all empty, or of equal length.
        outcome: how the attempt went.
    """
    sensors = [name for name in rows if name.startswith("observation.") and name not in outcome.histograms]
    types = {
        **dict.fromkeys(outcome.histograms, IMAGE_TYPE),
        **{name: _array_type(rows[name]) for name in [STATE_COLUMN, *sensors, "action"] if name in rows},
        "next.reward": pa.float32(),
        "next.success": pa.bool_(),
        "timestamp": pa.float32(),
        "frame_index": pa.int64(),
    }
    schema = pa.schema(types, metadata={METADATA_KEY: outcome.model_dump_json()})
    columns = {name: [_plain(value) for value in rows.get(name, ())] for name in types}
    buffer = io.BytesIO()
    pq.write_table(
        pa.table(columns, schema=schema),
        buffer,
        compression="none",
        use_dictionary=False,
        write_statistics=False,
    )
    return buffer.getvalue()


def read_outcome(schema: pa.Schema) -> Outcome:
    """Return the outcome that a table of an attempt carries."""
    return Outcome.model_validate_json(schema.metadata[METADATA_KEY])


def encode_png(frame: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """Encode an RGB image without loss."""
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "PNG", compress_level=PNG_LEVEL)
    return buffer.getvalue()


def histogram(frame: UInt8[np.ndarray, "h w 3"]) -> Int64[np.ndarray, "3 256"]:
    """Count the pixels of each channel that have each value; exact statistics follow from that."""
    return np.stack([np.bincount(frame[..., channel].ravel(), minlength=256) for channel in range(3)])


def _array_type(values: Sequence[Any]) -> pa.DataType:
    """Return the type of a column of arrays: a list of fixed size, or a list of such lists."""
    arrow = pa.float32()
    for size in reversed(np.shape(values[0])):
        arrow = pa.list_(arrow, size)
    return arrow


def _plain(value: Any) -> Any:
    """Return a value as Arrow takes it: of more than one axis, as lists."""
    return value.tolist() if isinstance(value, np.ndarray) and value.ndim > 1 else value
