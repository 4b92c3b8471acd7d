"""Paths of a hand: timed waypoints, joined by minimum-jerk moves."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from vla.rollout.worlds.gl import mujoco
from vla.rollout.worlds.ik import Pose


class Waypoint(NamedTuple):
    """Where a hand comes to rest."""

    time: float
    """[s]"""
    pose: Pose
    opening: float
    """Of the gripper: 0 closed, 1 open."""
    freedom: float
    """How far the hand may be off here without harm, from 0 (a grasp) to 1 (free flight)."""


def interpolate(path: Sequence[Waypoint], time: float) -> Waypoint:
    """Return where the hand is at `time` [s]; before the first and after the last waypoint it rests.

    Position, orientation and opening follow the minimum-jerk profile (Flash and Hogan, 1985) from
    rest to rest; freedom changes linearly.
    """
    if time <= path[0].time:
        return path[0]
    for start, end in pairwise(path):
        if time <= end.time:
            linear = (time - start.time) / (end.time - start.time)
            s = minimum_jerk(linear)
            pose = Pose(
                start.pose.position + s * (end.pose.position - start.pose.position),
                slerp(start.pose.orientation, end.pose.orientation, s),
            )
            opening = start.opening + s * (end.opening - start.opening)
            freedom = start.freedom + linear * (end.freedom - start.freedom)
            return Waypoint(time, pose, opening, freedom)
    return path[-1]


def minimum_jerk(fraction: float) -> float:
    """Map the fraction of time gone to the fraction of way gone: rest to rest, least jerk.

    >>> [minimum_jerk(t) for t in (0.0, 0.5, 1.0)]
    [0.0, 0.5, 1.0]
    """
    return fraction**3 * (10 - 15 * fraction + 6 * fraction**2)


def slerp(
    start: Float[np.ndarray, "4"], end: Float[np.ndarray, "4"], fraction: float
) -> Float[np.ndarray, "4"]:
    """Turn from one unit quaternion to another at constant speed, the short way."""
    cosine = float(start @ end)
    if cosine < 0:  # the same orientation has two quaternions
        end, cosine = -end, -cosine
    angle = np.arccos(min(cosine, 1.0))
    if angle < 1e-6:
        return end
    weighted = np.sin((1 - fraction) * angle) * start + np.sin(fraction * angle) * end
    return np.asarray(weighted / np.sin(angle))


def orientation(approach: Float[np.ndarray, "3"], jaws: Float[np.ndarray, "3"]) -> Float[np.ndarray, "4"]:
    """Return the quaternion of a hand that points along `approach` and closes along `jaws`, unit vectors."""
    axes = np.column_stack([np.cross(jaws, approach), jaws, approach])
    quaternion = np.empty(4)
    mujoco.mju_mat2Quat(quaternion, axes.ravel())
    return quaternion
