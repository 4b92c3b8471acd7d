"""The simulated world of `sim_transfer`, without images: reset, command, advance, and ask what is true."""

from typing import Any

import numpy as np
from jaxtyping import Float, Float32

from vla.rollout.worlds.gl import mujoco
from vla.rollout.worlds.sim_transfer.arm import FINGER_TRAVEL, HOME, JOINT_LIMITS
from vla.rollout.worlds.sim_transfer.scene import BOX_HALF, TIMESTEP, scene_xml
from vla.rollout.worlds.sim_transfer.world import CONTROL_HZ, NUM_JOINTS, SIDES

SUBSTEPS = round(1 / (CONTROL_HZ * TIMESTEP))

BOX_X, BOX_Y, BOX_YAW = (0.40, 0.60), (-0.28, -0.08), (-0.6, 0.6)
"""Where the box starts [m, m, rad], uniform."""
HOME_SPREAD = 0.05
"""Half-width of the uniform start-pose variation of every joint [rad]."""

MAX_JOINT_SPEED = 5.0
"""How fast a commanded joint may move [rad/s]."""
MAX_OPENING_SPEED = 5.0
"""How fast a commanded gripper opening may change [1/s]."""


class TransferPhysics:
    """Two arms, a table and a box.

    Vectors of length 16 are ordered left joints 1 to 7 [rad], left gripper opening [0 closed, 1 open],
    then the same of the right arm.

    Args:
        height: of the offscreen buffer that renderers of `model` may use [pixel].
        width: likewise.
        shape: of what is handed over: a box, or a cylinder of the same width, height and mass.
    """

    def __init__(self, height: int, width: int, shape: str = "box") -> None:
        self.model = mujoco.MjModel.from_xml_string(scene_xml(height, width, shape))
        self.data = mujoco.MjData(self.model)
        self._joints = self._joint_addresses([f"joint_{n + 1}" for n in range(NUM_JOINTS)])
        self._fingers = self._joint_addresses(["finger_1", "finger_2"])
        self._box = int(self.model.joint("box").qposadr[0])
        self._hands = [self.model.site(f"{side}_tcp").id for side in SIDES]
        self._box_geom = self.model.geom("box").id
        self._table_geom = self.model.geom("table").id
        self._finger_geoms = [[self.model.geom(f"{side}_finger_{n}").id for n in (1, 2)] for side in SIDES]
        self._command = np.zeros(16)
        self._lifted_by_right = False
        self._stage = 0

    def reset(self, rng: np.random.Generator) -> None:
        """Put the box somewhere within the right arm's reach and the arms near `HOME`."""
        mujoco.mj_resetData(self.model, self.data)
        x, y, yaw = rng.uniform(*np.transpose([BOX_X, BOX_Y, BOX_YAW]))
        joints = HOME + rng.uniform(-HOME_SPREAD, HOME_SPREAD, (len(SIDES), NUM_JOINTS))
        self.data.qpos[self._joints] = joints
        self.data.qpos[self._fingers] = FINGER_TRAVEL
        self.data.qpos[self._box : self._box + 7] = [
            *(x, y, BOX_HALF),
            *(np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)),
        ]
        self._command = np.column_stack([joints, np.ones(len(SIDES))]).ravel()
        self._send(self._command)
        self._lifted_by_right = False
        mujoco.mj_forward(self.model, self.data)
        self._stage = self._judge()

    def advance(self, action: Float[np.ndarray, "16"]) -> None:
        """Command joint positions and gripper openings for one control period (1 / `CONTROL_HZ`).

        The command is kept within the joint limits, and moves from the previous command no faster than
        `MAX_JOINT_SPEED` and `MAX_OPENING_SPEED`.
        """
        change = np.clip(action - self._command, -MAX_CHANGE, MAX_CHANGE)
        self._command = np.clip(self._command + change, *ACTION_LIMITS)
        self._send(self._command)
        mujoco.mj_step(self.model, self.data, SUBSTEPS)
        # Positions of sites and geoms lag one substep behind the joints until recomputed.
        mujoco.mj_forward(self.model, self.data)
        self._stage = self._judge()

    @property
    def state(self) -> Float32[np.ndarray, "16"]:
        """Measured joint positions [rad] and gripper openings."""
        openings = self.data.qpos[self._fingers].mean(axis=1) / FINGER_TRAVEL
        joints = self.data.qpos[self._joints]
        return np.column_stack([joints, openings]).ravel().astype(np.float32)

    @property
    def box_position(self) -> Float[np.ndarray, "3"]:
        """Centre of the box [m]."""
        return np.array(self.data.qpos[self._box : self._box + 3])

    @property
    def box_yaw(self) -> float:
        """Turn of the box about the vertical [rad], in (-pi, pi]."""
        w, x, y, z = self.data.qpos[self._box + 3 : self._box + 7]
        return float(np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z)))

    @property
    def gripper_positions(self) -> Float[np.ndarray, "2 3"]:
        """Grasp centres of the left and the right hand [m]."""
        return np.array(self.data.site_xpos[self._hands])

    @property
    def stage(self) -> int:
        """How far the task is at this moment.

        0 nothing; 1 the right fingers touch the box; 2 and it is off the table; 3 the left fingers
        touch it as well, in the air; 4 the left hand alone holds it in the air. Stages 3 and 4 count
        only once the right hand has lifted the box: the left arm cannot earn them by itself.
        """
        return self._stage

    def _judge(self) -> int:
        pairs = self.data.contact.geom
        touching = set(pairs[(pairs == self._box_geom).any(axis=1)].ravel().tolist())
        left, right = (not touching.isdisjoint(fingers) for fingers in self._finger_geoms)
        on_table = self._table_geom in touching
        self._lifted_by_right |= right and not on_table
        if on_table or not (left or right):
            return int(right)
        if left and self._lifted_by_right:
            return 3 if right else 4
        return 2 if right else 0

    def _joint_addresses(self, names: list[str]) -> Any:
        """Return indices into `qpos`, one row an arm."""
        return np.array([[self.model.joint(f"{s}_{name}").qposadr[0] for name in names] for s in SIDES])

    def _send(self, command: Float[np.ndarray, "16"]) -> None:
        arms = command.reshape(len(SIDES), NUM_JOINTS + 1)
        fingers = np.repeat(arms[:, -1:] * FINGER_TRAVEL, 2, axis=1)
        self.data.ctrl[:] = np.hstack([arms[:, :-1], fingers]).ravel()


_one_arm = np.vstack([JOINT_LIMITS, [0.0, 1.0]])
ACTION_LIMITS = np.vstack([_one_arm, _one_arm]).T
"""Lowest and highest command, [2, 16]."""
MAX_CHANGE = np.tile([*[MAX_JOINT_SPEED] * NUM_JOINTS, MAX_OPENING_SPEED], 2) / CONTROL_HZ
"""Largest change of a command in one control period, [16]."""
