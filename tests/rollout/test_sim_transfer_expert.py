"""The scripted expert, without images."""

import numpy as np
import pytest

from vla.rollout.worlds.expert import Command
from vla.rollout.worlds.sim_transfer.env import SimTransferEnv
from vla.rollout.worlds.sim_transfer.physics import MAX_JOINT_SPEED
from vla.rollout.worlds.sim_transfer.transfer_expert import TransferExpert
from vla.rollout.worlds.sim_transfer.world import CONTROL_HZ, MAX_EPISODE_STEPS


def run_episode(seed: int, noise: float, shape: str = "box") -> tuple[list[Command], list[float], bool]:
    """Return commands, rewards and success of one episode."""
    env = SimTransferEnv(render_height=32, render_width=32, shape=shape)
    env.render_observations = False
    env.reset(seed=seed)
    expert = TransferExpert(env.physics, np.random.default_rng(seed), noise)
    commands, rewards, success = [], [], False
    for _ in range(MAX_EPISODE_STEPS):
        commands.append(expert.act())
        _, reward, _, _, info = env.step(commands[-1].executed)
        rewards.append(reward)
        success = info["is_success"]
    return commands, rewards, success


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_the_expert_hands_the_box_over_and_keeps_it(seed: int, noise: float) -> None:
    _, rewards, success = run_episode(seed, noise)
    assert success
    assert rewards[-30:] == [4.0] * 30


def test_the_expert_hands_a_cylinder_over_too() -> None:
    _, rewards, success = run_episode(0, 1.0, "cylinder")
    assert success
    assert rewards[-30:] == [4.0] * 30


def test_stages_come_one_after_the_other() -> None:
    _, rewards, _ = run_episode(0, noise=0.0)
    order = [rewards.index(float(stage)) for stage in range(5)]
    assert order == sorted(order)


def test_without_noise_the_label_is_what_is_executed() -> None:
    commands, _, _ = run_episode(0, noise=0.0)
    for label, executed in commands:
        np.testing.assert_array_equal(label, executed)


def test_noise_disturbs_what_is_executed_but_never_the_grippers() -> None:
    commands, _, _ = run_episode(0, noise=1.0)
    off = np.array([executed - label for label, executed in commands]).reshape(-1, 2, 8)
    assert 0.01 < off[..., :7].std() < 0.05
    assert not off[..., 7].any()


def test_labels_are_smooth() -> None:
    labels = np.array([label for label, _ in run_episode(1, noise=1.0)[0]])
    assert np.abs(np.diff(labels, axis=0)).max() < MAX_JOINT_SPEED / CONTROL_HZ


def test_the_same_random_numbers_give_the_same_demonstration() -> None:
    once, again = (run_episode(2, noise=1.0)[0] for _ in range(2))
    np.testing.assert_array_equal([c.label for c in once], [c.label for c in again])
