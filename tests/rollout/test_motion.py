"""Paths of a hand."""

import numpy as np
import pytest

from vla.rollout.worlds.ik import Pose
from vla.rollout.worlds.motion import Waypoint, interpolate, minimum_jerk, orientation, slerp

QUARTER_ABOUT_Z = np.array([np.sqrt(0.5), 0, 0, np.sqrt(0.5)])
IDENTITY = np.array([1.0, 0, 0, 0])
PATH = [
    Waypoint(0.0, Pose(np.zeros(3), IDENTITY), 1.0, 0.0),
    Waypoint(2.0, Pose(np.array([0.0, 0, 4]), QUARTER_ABOUT_Z), 0.0, 1.0),
    Waypoint(3.0, Pose(np.array([1.0, 0, 4]), QUARTER_ABOUT_Z), 0.0, 0.5),
]


def test_a_path_passes_through_its_waypoints() -> None:
    for waypoint in PATH:
        there = interpolate(PATH, waypoint.time)
        np.testing.assert_allclose(there.pose.position, waypoint.pose.position)
        assert (there.opening, there.freedom) == (waypoint.opening, waypoint.freedom)


def test_half_the_time_is_half_the_way() -> None:
    half = interpolate(PATH, 1.0)
    np.testing.assert_allclose(half.pose.position, [0, 0, 2])
    np.testing.assert_allclose(half.pose.orientation, [np.cos(np.pi / 8), 0, 0, np.sin(np.pi / 8)])
    assert (half.opening, half.freedom) == (0.5, 0.5)


def test_a_hand_rests_before_and_after_its_path() -> None:
    assert interpolate(PATH, -1.0) is PATH[0]
    assert interpolate(PATH, 99.0) is PATH[-1]


def test_moves_begin_and_end_at_rest() -> None:
    assert minimum_jerk(1e-3) == pytest.approx(0, abs=1e-7)
    assert minimum_jerk(1 - 1e-3) == pytest.approx(1, abs=1e-7)


def test_slerp_takes_the_short_way_between_quaternions_of_opposite_sign() -> None:
    np.testing.assert_allclose(slerp(IDENTITY, -QUARTER_ABOUT_Z, 1.0), QUARTER_ABOUT_Z, atol=1e-12)
    np.testing.assert_allclose(slerp(IDENTITY, -IDENTITY, 0.3), IDENTITY, atol=1e-12)


def test_a_hand_pointing_up_with_its_jaws_along_y_is_not_turned() -> None:
    up, y = np.array([0.0, 0, 1]), np.array([0.0, 1, 0])
    np.testing.assert_allclose(orientation(up, y), IDENTITY, atol=1e-12)
