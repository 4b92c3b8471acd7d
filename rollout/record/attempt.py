"""Run the expert once, from reset to the last step."""

import io
from collections import defaultdict
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image

from vla.embed.preprocess import resize
from vla.rollout.record.attempt_table import Outcome, encode_attempt
from vla.rollout.record.plan import Plan
from vla.rollout.worlds.expert_tasks import find_task

PNG_LEVEL = 4
"""A view of 256x256: level 1 29 kB in 2.0 ms, 4 25 kB in 2.7 ms, 6 23 kB in 5.3 ms, 9 22 kB in 27 ms."""
SOLVED = 4
"""The reward while the left hand holds the box in the air."""
EXPERT_STREAM = 1
"""Second number of the seed of the expert's random stream, which sets it apart from the environment's."""


class AttemptRunner:
    """Runs attempts in one environment; close it when done.

    Args:
        plan: what to record.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._task = find_task(plan.task)
        self._env = self._task.open_env(plan.env.kwargs)

    def run(self, number: int) -> bytes:
        """Run attempt `number` and return its table; see `vla.rollout.record.attempt_table`."""
        seed = self._plan.seed + number
        observation, info = self._env.reset(seed=seed)
        rng = np.random.default_rng([seed, EXPERT_STREAM])
        expert = self._task.make_expert(self._env.physics, rng, self._plan.noise)
        rows: dict[str, list[Any]] = defaultdict(list)
        histograms: dict[str, Any] = defaultdict(lambda: np.zeros((3, 256), np.int64))
        for step in range(self._task.num_steps):
            for camera, view in observation["pixels"].items():
                column = f"observation.images.{camera}"
                frame = resize(view[None], self._plan.image_size)[0]
                histograms[column] += histogram(frame)
                rows[column].append({"bytes": encode_png(frame), "path": None})
            command = expert.act()
            rows["observation.state"].append(observation["agent_pos"])
            rows["action"].append(command.label)
            observation, reward, _, _, info = self._env.step(command.executed)
            rows["next.reward"].append(reward)
            rows["next.success"].append(info["is_success"])
            rows["timestamp"].append(step / self._task.control_hz)
            rows["frame_index"].append(step)
        outcome = Outcome(
            seed=seed,
            success=info["is_success"] and rows["next.reward"][-1] == SOLVED,
            max_stage=int(max(rows["next.reward"])),
            histograms={column: counts.tolist() for column, counts in histograms.items()},
        )
        return encode_attempt(rows if outcome.success or self._plan.keep_failures else {}, outcome)

    def close(self) -> None:
        """Free the environment."""
        self._env.close()


def encode_png(frame: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """Encode an RGB image without loss."""
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "PNG", compress_level=PNG_LEVEL)
    return buffer.getvalue()


def histogram(frame: UInt8[np.ndarray, "h w 3"]) -> Int64[np.ndarray, "3 256"]:
    """Count the pixels of each channel that have each value; exact statistics follow from that."""
    return np.stack([np.bincount(frame[..., channel].ravel(), minlength=256) for channel in range(3)])
