"""Inverse kinematics against forward kinematics."""

import numpy as np
import pytest

from vla.rollout.worlds.ik import ArmKinematics, Pose
from vla.rollout.worlds.sim_transfer.arm import HOME, JOINT_LIMITS, kinematics
from vla.rollout.worlds.sim_transfer.physics import TransferPhysics


@pytest.fixture(scope="module", params=["left", "right"])
def arm(request: pytest.FixtureRequest) -> ArmKinematics:
    return kinematics(TransferPhysics(32, 32).model, request.param)


def test_inverse_kinematics_finds_the_pose_of_other_joint_angles(arm: ArmKinematics) -> None:
    rng = np.random.default_rng(0)
    for _ in range(10):
        target = arm.forward(HOME + rng.uniform(-0.3, 0.3, 7))
        found = arm.forward(arm.inverse(HOME, target))
        np.testing.assert_allclose(found.position, target.position, atol=2e-4)
        assert abs(found.orientation @ target.orientation) == pytest.approx(1, abs=1e-5)


def test_angles_stay_within_the_limits_when_the_target_is_out_of_reach(arm: ArmKinematics) -> None:
    joints = arm.inverse(HOME, Pose(np.array([3.0, 0, 0]), np.array([1.0, 0, 0, 0])))
    assert (joints > JOINT_LIMITS[:, 0]).all()
    assert (joints < JOINT_LIMITS[:, 1]).all()


def test_the_hands_start_side_by_side_above_the_table() -> None:
    model = TransferPhysics(32, 32).model
    left, right = (kinematics(model, side).forward(HOME).position for side in ("left", "right"))
    np.testing.assert_allclose(left - right, [0, 0.7, 0], atol=1e-9)
    assert left[2] > 0.3
