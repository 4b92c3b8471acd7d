"""Randomised scenes of `sim_transfer`, far beyond its demonstrations, with what is true of them.

Poses come from expert episodes that were disturbed more than demonstrations are, or from nowhere; the
box is where physics left it, on any place of the table, or near a hand. Cameras, lights and colours
are shaken. A scene is only posed (forward kinematics), not simulated: it need not be possible.

Labels of a view, all in the frame of its camera (x right, y up, z backward), in metres:

    0:9     box, left grasp centre, right grasp centre
    9:15    box - left grasp centre, box - right grasp centre
    15:21   the same two, as tanh(offset / 4 cm): precision where it counts
    21:23   gripper openings, left and right
    23:25   cos and sin of four times the box's yaw
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from vla.rollout.worlds.cameras import CameraRig
from vla.rollout.worlds.gl import mujoco
from vla.rollout.worlds.sim_transfer.arm import FINGER_TRAVEL, HOME, JOINT_LIMITS
from vla.rollout.worlds.sim_transfer.physics import TransferPhysics
from vla.rollout.worlds.sim_transfer.scene import BOX_HALF
from vla.rollout.worlds.sim_transfer.transfer_expert import TransferExpert
from vla.rollout.worlds.sim_transfer.world import CAMERAS, MAX_EPISODE_STEPS

LABELS = 25
SIZE = 256
NEAR = 0.04
"""Scale of the near-contact offsets [m]."""
STRIDE = 10
"""Every so many steps of an episode give a scene."""


@dataclass(frozen=True)
class Scene:
    """One randomised instant."""

    images: dict[str, np.ndarray]
    """uint8 [256, 256, 3] of each camera."""
    labels: dict[str, np.ndarray]
    """float32 [25] of each camera."""


class SceneGenerator:
    """Yield randomised scenes.

    Args:
        seed: of everything.
        randomise: False keeps nominal looks and physical poses, as in demonstrations (for probing).
        nominal: share of scenes with shaken poses that keep the nominal look.
    """

    def __init__(self, seed: int, *, randomise: bool = True, nominal: float = 0.2) -> None:
        self._rng, self._randomise, self._nominal_share = np.random.default_rng(seed), randomise, nominal
        self._physics = TransferPhysics(SIZE, SIZE)
        self._rig = CameraRig(self._physics.model, SIZE, SIZE)
        self._posed = mujoco.MjData(self._physics.model)
        model = self._physics.model
        self._nominal = {
            name: np.array(getattr(model, name))
            for name in (
                "mat_rgba",
                "mat_texrepeat",
                "light_diffuse",
                "light_dir",
                "cam_pos",
                "cam_quat",
                "cam_fovy",
            )
        }
        self._headlight = {
            name: np.array(getattr(model.vis.headlight, name)) for name in ("ambient", "diffuse")
        }
        self._arms = np.array(
            [
                [model.joint(f"{side}_joint_{n + 1}").qposadr[0] for n in range(7)]
                for side in ("left", "right")
            ]
        )
        self._fingers = np.array(
            [[model.joint(f"{side}_finger_{n}").qposadr[0] for n in (1, 2)] for side in ("left", "right")]
        )
        self._box = int(model.joint("box").qposadr[0])
        self._hands = [model.site(f"{side}_tcp").id for side in ("left", "right")]

    def scenes(self) -> Iterator[Scene]:
        """Yield scenes without end."""
        while True:
            for qpos in self._episode():
                if self._randomise:
                    qpos = self._shake_pose(qpos)
                    self._shake_look()
                yield self._scene(qpos)

    def close(self) -> None:
        """Free the OpenGL context."""
        self._rig.close()

    def _episode(self) -> Iterator[np.ndarray]:
        """Yield joint vectors along an expert episode."""
        rng = self._rng
        self._physics.reset(rng)
        expert = TransferExpert(self._physics, rng, noise=rng.uniform(0, 2.5) if self._randomise else 1.0)
        first = int(rng.integers(STRIDE))
        for step in range(MAX_EPISODE_STEPS):
            if step % STRIDE == first:
                yield np.array(self._physics.data.qpos)
            self._physics.advance(expert.act().executed.astype(np.float64))

    def _shake_pose(self, qpos: np.ndarray) -> np.ndarray:
        rng, qpos = self._rng, qpos.copy()
        limits = JOINT_LIMITS.T
        if rng.random() < 0.2:
            qpos[self._arms] = HOME + rng.normal(0, 0.4, (2, 7))
        if rng.random() < 0.7:
            qpos[self._arms] += rng.normal(0, rng.choice([0.03, 0.1, 0.2]), (2, 7))
        qpos[self._arms] = np.clip(qpos[self._arms], limits[0] + 0.01, limits[1] - 0.01)
        if rng.random() < 0.3:
            qpos[self._fingers] = FINGER_TRAVEL * rng.random((2, 1))
        kind = rng.choice(["kept", "table", "hand"], p=[0.4, 0.35, 0.25])
        if kind != "kept":
            qpos[self._box : self._box + 7] = self._anywhere(kind, qpos)
        return qpos

    def _anywhere(self, kind: str, qpos: np.ndarray) -> np.ndarray:
        """Return a position and orientation of the box on the table, or near a hand."""
        rng = self._rng
        if kind == "table":
            yaw = rng.uniform(-np.pi, np.pi)
            place = [rng.uniform(0.25, 0.75), rng.uniform(-0.5, 0.5), BOX_HALF]
            return np.array([*place, np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)])
        self._posed.qpos[:] = qpos
        mujoco.mj_kinematics(self._physics.model, self._posed)
        place = self._posed.site_xpos[rng.choice(self._hands)] + rng.normal(0, 0.03, 3)
        place[2] = max(place[2], BOX_HALF)
        turn = rng.normal([1, 0, 0, 0], [1, 0.3, 0.3, 0.6])
        return np.array([*place, *(turn / np.linalg.norm(turn))])

    def _shake_look(self) -> None:
        """Randomise colours, lights and cameras, but for a share of the scenes."""
        rng, model = self._rng, self._physics.model
        for name, value in self._nominal.items():
            getattr(model, name)[:] = value
        for name, value in self._headlight.items():
            getattr(model.vis.headlight, name)[:] = value
        if rng.random() < self._nominal_share:
            return
        colours = self._nominal["mat_rgba"].copy()
        colours[:, :3] += rng.normal(0, 0.10, (len(colours), 3))
        box = model.mat("red").id
        colours[box, :3] = self._nominal["mat_rgba"][box, :3] + rng.normal(0, 0.05, 3)
        model.mat_rgba[:] = np.clip(colours, 0, 1)
        model.mat_texrepeat[:] = self._nominal["mat_texrepeat"] * rng.uniform(0.5, 2)
        model.light_diffuse[:] = self._nominal["light_diffuse"] * rng.uniform(0.5, 1.5)
        model.light_dir[:] = self._nominal["light_dir"] + rng.normal(0, 0.2, model.light_dir.shape)
        model.vis.headlight.ambient[:] = self._headlight["ambient"] * rng.uniform(0.7, 1.3)
        model.vis.headlight.diffuse[:] = self._headlight["diffuse"] * rng.uniform(0.5, 1.5)
        model.cam_pos[:] = self._nominal["cam_pos"] + rng.normal(0, 0.015, model.cam_pos.shape)
        model.cam_fovy[:] = self._nominal["cam_fovy"] + rng.normal(0, 0.7, model.cam_fovy.shape)
        for camera in range(model.ncam):
            turn, quat = rng.normal(0, np.radians(1.2), 3), self._nominal["cam_quat"][camera].copy()
            mujoco.mju_quatIntegrate(quat, turn, 1.0)
            model.cam_quat[camera] = quat

    def _scene(self, qpos: np.ndarray) -> Scene:
        model, data = self._physics.model, self._posed
        data.qpos[:] = qpos
        mujoco.mj_forward(model, data)
        points = np.array([data.qpos[self._box : self._box + 3], *data.site_xpos[self._hands]])
        openings = data.qpos[self._fingers].mean(axis=1) / FINGER_TRAVEL
        w, x, y, z = data.qpos[self._box + 3 : self._box + 7]
        yaw = np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
        labels = {}
        for camera in CAMERAS:
            index = model.camera(camera).id
            seen = (points - data.cam_xpos[index]) @ data.cam_xmat[index].reshape(3, 3)
            offsets = (seen[0] - seen[1:]).ravel()
            yaws = [np.cos(4 * yaw), np.sin(4 * yaw)]
            label = np.concatenate([seen.ravel(), offsets, np.tanh(offsets / NEAR), openings, yaws])
            labels[camera] = label.astype(np.float32)
        return Scene(images=self._rig.render(data, CAMERAS), labels=labels)
