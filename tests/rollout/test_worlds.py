"""Worlds are found by their folders, and cost nothing before they are used."""

import subprocess
import sys
from pathlib import Path

import gymnasium
import pytest

from vla.rollout import worlds
from vla.rollout.worlds.expert import EXPERT_TASKS, find_task

WORLDS = Path(worlds.__file__).parent


def test_importing_the_room_knows_all_worlds_and_imports_no_simulator() -> None:
    program = "import sys, gymnasium, vla.rollout; print(*gymnasium.registry, *sys.modules)"
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    found = set(finished.stdout.split())
    assert {"vla/SimTransfer-v0", "vla/AlohaTransferCube-v0", "vla/AlohaInsertion-v0"} <= found
    assert not {"mujoco", "torch", "av", "PIL"} & found


def test_every_folder_is_a_world() -> None:
    folders = [folder for folder in WORLDS.iterdir() if (folder / "__init__.py").is_file()]
    assert folders and all((folder / "world.py").is_file() for folder in folders)


@pytest.mark.parametrize("name", sorted(EXPERT_TASKS.members()))
def test_a_tasks_environment_is_registered_under_its_id(name: str) -> None:
    task = find_task(name)
    assert gymnasium.spec(task.env_id).max_episode_steps
    assert len(set(task.state_names)) == len(task.state_names)
