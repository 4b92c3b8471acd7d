"""One 7-joint arm with a parallel gripper, as MJCF: the kinematics of a Franka Panda, drawn with capsules.

What is drawn is what collides. An arm has two collision groups, near (base to elbow) and far
(forearm to fingers); a group collides with everything but itself, so the hand meets its own
shoulder, the table, the box and the other arm, while overlapping neighbours stay quiet.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from vla.rollout.worlds.ik import ArmKinematics
from vla.rollout.worlds.sim_transfer.world import NUM_JOINTS

HOME = np.array([0.0, -0.30, 0.0, -2.30, 0.0, 2.0, 0.785])
"""Start pose of both arms [rad]."""
FINGER_TRAVEL = 0.045
"""How far each finger moves [m]; opening 1 is 9 cm between the pads, opening 0 is closed."""

GROUPS = {("left", "near"): 1, ("left", "far"): 2, ("right", "near"): 4, ("right", "far"): 8}
BOX_GROUP = 16
ALL_GROUPS = 31

BASE_Y = {"left": 0.35, "right": -0.35}
"""Bases stand side by side, both facing +x. Facing each other, as in ALOHA, this arm cannot hold
its hand level 0.25 to 0.45 m above the table."""
ACCENT = {"left": "blue", "right": "orange"}

FINGER_LENGTH = 0.056
HAND_TO_FINGERS = 0.0584
GRASP_CENTRE = HAND_TO_FINGERS + FINGER_LENGTH - 0.010
"""Distance of the grasp centre (`tcp`) from the hand's origin [m]: 1 cm behind the fingertips."""


@dataclass(frozen=True)
class Link:
    """A moving link and the joint that carries it."""

    position: str
    """In the previous link [m]."""
    quaternion: str
    limits: tuple[float, float]
    """Joint range [rad]."""
    stiffness: float
    """Of the position servo [N m/rad]."""
    damping: float
    """Of the position servo [N m s/rad]; given outright, because `dampratio` resolves to another
    value in MuJoCo 3 than in 4."""
    max_torque: float
    mass: float
    capsules: tuple[tuple[str, float, bool], ...]
    """Ends [m], radius [m], and whether it has the arm's accent colour."""


LINKS = (
    Link("0 0 0.333", "1 0 0 0", (-2.8973, 2.8973), 4000.0, 55.0, 120.0, 3.0,
         (("0 0 -0.19 0 0 -0.02", 0.060, False), ("0 -0.06 0 0 0.06 0", 0.062, True))),
    Link("0 0 0", "1 -1 0 0", (-1.7628, 1.7628), 4000.0, 130.0, 120.0, 3.0,
         (("0 0 -0.05 0 0 0.05", 0.056, False), ("0 -0.02 0 0 -0.18 0", 0.056, False))),
    Link("0 -0.316 0", "1 1 0 0", (-2.8973, 2.8973), 3000.0, 45.0, 120.0, 2.5,
         (("0 0 -0.12 0 0 0", 0.055, False), ("0.0825 0.055 0 0.0825 -0.055 0", 0.056, True),
          ("0 0 -0.03 0.0825 0 0", 0.050, False))),
    Link("0.0825 0 0", "1 1 0 0", (-3.0718, -0.0698), 3000.0, 60.0, 120.0, 2.5,
         (("0 0 -0.05 0 0 0.05", 0.052, False), ("0 0 0 -0.0825 0.09 0", 0.050, False))),
    Link("-0.0825 0.384 0", "1 -1 0 0", (-2.8973, 2.8973), 1500.0, 28.0, 60.0, 2.0,
         (("0 0 -0.27 0 0 -0.10", 0.052, False), ("0 0 -0.10 0 0.045 0", 0.044, False))),
    Link("0 0 0", "1 1 0 0", (-0.0175, 3.7525), 1500.0, 28.0, 60.0, 1.2,
         (("0 0 -0.05 0 0 0.05", 0.047, True), ("0 0 0 0.088 0 0", 0.042, False))),
    Link("0.088 0 0", "1 1 0 0", (-2.8973, 2.8973), 1000.0, 20.0, 60.0, 0.6,
         (("0 0 -0.02 0 0 0.085", 0.042, False),)),
)  # fmt: skip
NUM_NEAR_LINKS = 4
JOINT_LIMITS = np.array([link.limits for link in LINKS])
"""Lower and upper limit of each joint [rad], [7, 2]."""


def arm_body(side: str) -> str:
    """Return the `<body>` of one arm; joints, sites and finger geoms are named `<side>_...`."""
    near = _collides(side, "near")
    far = _collides(side, "far")
    lines = [
        f'<body name="{side}_base" pos="0 {BASE_Y[side]} 0">',
        f'<geom type="cylinder" size="0.085 0.02" pos="0 0 0.02" material="dark" {near}/>',
        f'<geom type="capsule" fromto="0 0 0.04 0 0 0.16" size="0.068" material="shell" {near}/>',
    ]
    for number, link in enumerate(LINKS, start=1):
        group = near if number <= NUM_NEAR_LINKS else far
        inertia = f"{0.008 * link.mass:g} {0.008 * link.mass:g} {0.006 * link.mass:g}"
        lines += [
            # gravcomp: a real arm compensates its own weight; without it the servos would sag.
            f'<body pos="{link.position}" quat="{link.quaternion}" gravcomp="1">',
            f'<inertial pos="0 0 0" mass="{link.mass}" diaginertia="{inertia}"/>',
            f'<joint name="{side}_joint_{number}" class="arm" range="{link.limits[0]} {link.limits[1]}"/>',
        ]
        for ends, radius, accent in link.capsules:
            material = ACCENT[side] if accent else "shell"
            lines.append(
                f'<geom type="capsule" fromto="{ends}" size="{radius}" material="{material}" {group}/>'
            )
    lines.append(_hand(side, far))
    lines.append("</body>" * (NUM_JOINTS + 1))
    return "\n".join(lines)


def arm_actuators(side: str) -> str:
    """Return the position servos of one arm, `<side>_joint_1` to `_7`, then the two fingers."""
    servos = [
        f'<position name="{side}_joint_{number}" joint="{side}_joint_{number}" '
        f'kp="{link.stiffness}" kv="{link.damping}" '
        f'forcerange="-{link.max_torque} {link.max_torque}" inheritrange="1"/>'
        for number, link in enumerate(LINKS, start=1)
    ]
    servos += [
        f'<position name="{side}_finger_{n}" joint="{side}_finger_{n}" kp="1000" kv="40" '
        'forcerange="-40 40" inheritrange="1"/>'
        for n in (1, 2)
    ]
    return "\n".join(servos)


def _hand(side: str, group: str) -> str:
    """Return the hand; it approaches along its z axis and its jaws move along its y axis."""
    fingers = [
        f'<body pos="0 0 {HAND_TO_FINGERS}" quat="{quaternion}" gravcomp="1">'
        '<inertial pos="0 0.01 0.03" mass="0.05" diaginertia="2e-5 2e-5 1e-5"/>'
        f'<joint name="{side}_finger_{n}" class="finger" range="0 {FINGER_TRAVEL}"/>'
        f'<geom name="{side}_finger_{n}" class="pad" type="box" size="0.010 0.006 {FINGER_LENGTH / 2}" '
        f'pos="0 0.006 {FINGER_LENGTH / 2}" material="finger" {group}/></body>'
        for n, quaternion in ((1, "1 0 0 0"), (2, "0 0 0 1"))
    ]
    return "\n".join(
        [
            # Turned by -45 degrees about the flange, as the Panda's hand is mounted.
            '<body pos="0 0 0.107" quat="0.9238795 0 0 -0.3826834" gravcomp="1">',
            '<inertial pos="0 0 0.03" mass="0.6" diaginertia="0.002 0.0015 0.001"/>',
            f'<site name="{side}_tcp" pos="0 0 {GRASP_CENTRE}" size="0.005" rgba="0 0 0 0"/>',
            f'<geom type="box" size="0.025 0.085 0.028" pos="0 0 0.028" material="dark" {group}/>',
            f'<geom type="box" size="0.0265 0.03 0.02" pos="0 0 0.03" material="{ACCENT[side]}" {group}/>',
            *fingers,
            "</body>",
        ]
    )


def _collides(side: str, part: str) -> str:
    group = GROUPS[side, part]
    return f'contype="{group}" conaffinity="{ALL_GROUPS ^ group}"'


def kinematics(model: Any, side: str) -> ArmKinematics:
    """Return the kinematics of the arm `left` or `right`, with the grasp centre as its hand."""
    joints = [f"{side}_joint_{n + 1}" for n in range(NUM_JOINTS)]
    return ArmKinematics(model, joints, f"{side}_tcp", posture=HOME)
