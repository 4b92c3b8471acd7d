"""Which vectors of a dataset are the robot's state, where nobody has said so."""

import re
from collections.abc import Mapping

from vla.embed.datasets.source import NoState

HANDS = (
    ("eef_pos", "eef_quat", "gripper_qpos"),  # robosuite
    ("eef_pos", "eef_quat", "gripper_pos"),  # Isaac Lab
    ("eef_pos", "eef_rot_axis_angle", "gripper_width"),  # UMI
)
"""Where a hand is, how it is turned and how far it is open."""
ROBOT = re.compile(r"(robot\d+_)eef_pos")


def robot_state(dataset: str, vectors: Mapping[str, int]) -> str:
    """Return the columns of the state: `state`, the hand of each robot, or the only vector there is.

    Args:
        dataset: its name, for messages.
        vectors: sizes of what is observed as vectors, by name.

    Raises:
        NoState: it could be one or another.
    """
    if "state" in vectors:
        return "state"
    robots = sorted(match[1] for match in map(ROBOT.fullmatch, vectors) if match) or [""]
    for hand in HANDS:
        names = [f"{robot}{part}" for robot in robots for part in hand]
        if all(name in vectors for name in names):
            return ",".join(names)
    if len(vectors) == 1:
        return next(iter(vectors))
    raise NoState(dataset, vectors)
