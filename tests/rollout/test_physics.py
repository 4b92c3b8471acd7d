"""The simulated world: limits, collisions and the stages of the task."""

import numpy as np
import pytest

from vla.rollout.worlds.sim_transfer.physics import (
    ACTION_LIMITS,
    BOX_X,
    BOX_Y,
    MAX_JOINT_SPEED,
    TransferPhysics,
)
from vla.rollout.worlds.sim_transfer.world import CONTROL_HZ, SIDES


@pytest.fixture
def physics() -> TransferPhysics:
    world = TransferPhysics(32, 32)
    world.reset(np.random.default_rng(0))
    return world


def put_box_into_hand(physics: TransferPhysics, side: str) -> None:
    """Place the box between open fingers, then close them and wait until they hold it."""
    hand = physics.gripper_positions[SIDES.index(side)]
    action = physics.state.astype(float)
    action[SIDES.index(side) * 8 + 7] = 0
    for step in range(15):
        if step < 5:  # until the fingers reach it, the box would fall
            physics.data.joint("box").qpos[:3] = hand
            physics.data.joint("box").qvel[:] = 0
        physics.advance(action)


def test_the_box_starts_on_the_table_within_its_region(physics: TransferPhysics) -> None:
    for seed in range(20):
        physics.reset(np.random.default_rng(seed))
        x, y, z = physics.box_position
        assert BOX_X[0] <= x <= BOX_X[1]
        assert BOX_Y[0] <= y <= BOX_Y[1]
        assert z == pytest.approx(0.024)
        assert physics.stage == 0


def test_arms_hold_still_at_their_start_pose(physics: TransferPhysics) -> None:
    start = physics.state
    for _ in range(25):
        physics.advance(start.astype(float))
    np.testing.assert_allclose(physics.state, start, atol=2e-3)


def test_a_command_moves_no_faster_than_the_limit(physics: TransferPhysics) -> None:
    start = physics.state
    physics.advance(ACTION_LIMITS[1])
    moved = np.abs(physics.state - start).reshape(2, 8)[:, :7]
    assert moved.max() <= MAX_JOINT_SPEED / CONTROL_HZ + 1e-6


def test_commands_beyond_the_joint_limits_are_clipped(physics: TransferPhysics) -> None:
    for _ in range(100):
        physics.advance(np.full(16, 100.0))
    low, high = ACTION_LIMITS
    assert (physics.state >= low - 0.05).all()
    assert (physics.state <= high + 0.05).all()


def test_the_table_stops_a_hand(physics: TransferPhysics) -> None:
    action = physics.state.astype(float)
    action[9] = 1.0  # the right shoulder leans forward and down
    for _ in range(50):
        physics.advance(action)
    assert physics.gripper_positions[1, 2] > 0
    assert physics.state[9] < 0.9


def test_a_hand_is_stopped_by_its_own_shoulder(physics: TransferPhysics) -> None:
    action = physics.state.astype(float)
    action[8:15] = [0, 0, 0, -3.0, 0, 0, 0.785]  # fold the right arm until the hand would be inside it
    for _ in range(75):
        physics.advance(action)
    assert physics.state[13] > 0.5


def test_the_right_hand_holding_the_box_is_stage_two(physics: TransferPhysics) -> None:
    put_box_into_hand(physics, "right")
    assert physics.stage == 2


def test_the_left_hand_earns_nothing_before_the_right_hand_has_lifted_the_box(
    physics: TransferPhysics,
) -> None:
    put_box_into_hand(physics, "left")
    assert physics.stage == 0


def test_the_left_hand_alone_holding_the_box_after_the_right_one_is_stage_four(
    physics: TransferPhysics,
) -> None:
    put_box_into_hand(physics, "right")
    put_box_into_hand(physics, "left")
    assert physics.stage == 4


def test_yaw_of_the_box_is_measured(physics: TransferPhysics) -> None:
    physics.data.joint("box").qpos[3:] = [np.cos(0.2), 0, 0, np.sin(0.2)]
    assert physics.box_yaw == pytest.approx(0.4)
