"""A robot of LeRobot's with the joints of an SO-101 and two cameras, which show how often it was moved.

Commands find it by `--robot.discover_packages_path=fake_arm`. It appends each action to the file `log`.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from lerobot.robots import Robot, RobotConfig

JOINTS = tuple(
    f"{part}.pos"
    for part in ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
)
VIEWS = ("front", "wrist")
SIZE = (48, 64)
FPS = 30


def seen(step: int) -> dict[str, Any]:
    """Return what the arm observes after some actions."""
    rng = np.random.default_rng(step)
    shade = [step * 37 % 256, step * 91 % 256, step * 53 % 256]
    views = {view: np.full((*SIZE, 3), np.roll(shade, k), np.uint8) for k, view in enumerate(VIEWS)}
    return {**dict(zip(JOINTS, rng.normal(size=len(JOINTS)).tolist(), strict=True)), **views}


@RobotConfig.register_subclass("fake_arm")
@dataclass(kw_only=True)
class FakeArmConfig(RobotConfig):
    log: Path


class FakeArm(Robot):
    config_class = FakeArmConfig
    name = "fake_arm"

    def __init__(self, config: FakeArmConfig) -> None:
        super().__init__(config)
        self.log, self.steps, self._connected = config.log, 0, False

    @cached_property
    def observation_features(self) -> dict[str, Any]:
        return {**dict.fromkeys(JOINTS, float), **dict.fromkeys(VIEWS, (*SIZE, 3))}

    @cached_property
    def action_features(self) -> dict[str, Any]:
        return dict.fromkeys(JOINTS, float)

    @property
    def is_connected(self) -> bool:
        return self._connected

    @property
    def is_calibrated(self) -> bool:
        return True

    def connect(self, calibrate: bool = True) -> None:
        self._connected = True

    def calibrate(self) -> None: ...

    def configure(self) -> None: ...

    def get_observation(self) -> dict[str, Any]:
        return seen(self.steps)

    def send_action(self, action: dict[str, Any]) -> dict[str, Any]:
        with self.log.open("a") as log:
            print(json.dumps([float(action[joint]) for joint in JOINTS]), file=log)
        self.steps += 1
        return action

    def disconnect(self) -> None:
        self._connected = False
