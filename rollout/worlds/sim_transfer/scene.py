"""The scene of `sim_transfer` as MJCF: table, red box, two arms, three cameras.

World frame: x away from the arms, y to their left, z up, origin on the table top between the bases.

Rendering is the expensive part, so the scene is plain: no shadows, no multisampling, few slices.
256x256, three cameras, one core of a CPU renderer: 11-14 ms this way; 36-46 ms with 4x multisampling,
100 ms with 1024-texel shadows, 650 ms with MuJoCo's defaults.
"""

import numpy as np
from jaxtyping import Float

from vla.rollout.worlds.sim_transfer.arm import ALL_GROUPS, BOX_GROUP, arm_actuators, arm_body
from vla.rollout.worlds.sim_transfer.world import SIDES

TIMESTEP = 0.002
"""Of the physics [s]."""
BOX_HALF = 0.024
"""Half the edge of the box [m]."""
RENDER_QUALITY = {"shadowsize": 0, "offsamples": 0, "numslices": 16, "numstacks": 8, "numquads": 2}
"""MuJoCo's `visual/quality`. At 256x256 vertex work is what rendering costs, so facets are few."""

SOFT_CONTACT = 'condim="4" solref="0.01 1" solimp="0.95 0.99 0.001"'


def scene_xml(height: int, width: int, shape: str = "box") -> str:
    """Return the whole model.

    Args:
        height: of the offscreen buffer [pixel]; a buffer larger than the image costs up to twice the time.
        width: likewise.
        shape: of what is handed over, one of `SHAPES`.
    """
    return f"""
<mujoco model="sim_transfer">
<compiler angle="radian" autolimits="true"/>
<option timestep="{TIMESTEP}" integrator="implicitfast" cone="elliptic" impratio="10" iterations="20"/>
<visual>
  <global offwidth="{width}" offheight="{height}"/>
  <quality {" ".join(f'{name}="{value}"' for name, value in RENDER_QUALITY.items())}/>
  <headlight ambient=".34 .34 .34" diffuse=".22 .22 .22" specular="0 0 0"/>
  <map znear="0.02" zfar="10"/>
</visual>
<statistic center="0.4 0 0.2" extent="1"/>
<asset>
  <texture type="skybox" builtin="gradient" rgb1=".75 .80 .86" rgb2=".55 .60 .68" width="64" height="64"/>
  <texture name="wood" type="2d" builtin="checker" rgb1=".74 .66 .55" rgb2=".70 .62 .51"
           width="128" height="128"/>
  <material name="table" texture="wood" texrepeat="10 8" specular=".1" shininess=".1"/>
  <material name="shell" rgba=".90 .91 .92 1" specular=".3" shininess=".4"/>
  <material name="dark" rgba=".20 .21 .24 1" specular=".3" shininess=".3"/>
  <material name="finger" rgba=".10 .10 .12 1" specular=".1" shininess=".1"/>
  <material name="blue" rgba=".16 .40 .85 1" specular=".3" shininess=".4"/>
  <material name="orange" rgba=".95 .55 .10 1" specular=".3" shininess=".4"/>
  <material name="red" rgba=".88 .10 .12 1" specular=".2" shininess=".2"/>
  <material name="floor" rgba=".42 .44 .47 1" specular="0" shininess="0"/>
</asset>
<default>
  <geom mass="0" friction="0.6 0.005 0.0001"/>
  <default class="arm"><joint axis="0 0 1" armature="0.1" damping="1"/></default>
  <default class="finger"><joint type="slide" axis="0 1 0" armature="0.1" damping="2"/></default>
  <default class="pad"><geom friction="1.2 0.02 0.0002" {SOFT_CONTACT}/></default>
  <default class="scenery"><geom contype="0" conaffinity="0"/></default>
</default>
<worldbody>
  <light directional="true" pos="0.6 -0.4 2" dir="-0.35 0.25 -1" diffuse=".42 .42 .42"
         specular=".15 .15 .15" castshadow="false"/>
  <light directional="true" pos="-1 1 1.5" dir="0.6 -0.5 -0.8" diffuse=".16 .16 .16" castshadow="false"/>
  <geom class="scenery" type="plane" size="3 3 0.1" pos="0 0 -0.75" material="floor"/>
  <geom class="scenery" type="box" size="0.30 0.45 0.355" pos="0.30 0 -0.395" material="dark"/>
  <geom name="table" type="box" size="0.50 0.70 0.02" pos="0.35 0 -0.02" material="table"
        contype="0" conaffinity="{ALL_GROUPS}" friction="1 0.005 0.0001"/>
  {_camera("r_vis", (1.00, -0.72, 0.62), (0.44, -0.09, 0.19), 48.0)}
  {_camera("top", (0.44, 0.0, 1.40), (0.44, 0.0, 0.0), 42.0, up=(1.0, 0.0, 0.0))}
  {_camera("front", (1.45, 0.0, 0.66), (0.42, 0.0, 0.22), 44.0)}
  {"".join(arm_body(side) for side in SIDES)}
  <body name="box">
    <freejoint name="box"/>
    <geom name="box" type="{shape}" size="{BOX_HALF} {BOX_HALF} {BOX_HALF}" mass="0.06" material="red"
          contype="{BOX_GROUP}" conaffinity="{ALL_GROUPS}" friction="1 0.01 0.0002" {SOFT_CONTACT}/>
  </body>
</worldbody>
<actuator>{"".join(arm_actuators(side) for side in SIDES)}</actuator>
</mujoco>"""


def _camera(
    name: str,
    position: tuple[float, float, float],
    target: tuple[float, float, float],
    fovy: float,
    up: tuple[float, float, float] = (0.0, 0.0, 1.0),
) -> str:
    """Return a camera at `position` [m] that looks at `target` [m]; `fovy` is its vertical angle [degree]."""
    backward = _unit(np.subtract(position, target))
    rightward = _unit(np.cross(up, backward))
    upward = np.cross(backward, rightward)
    axes = " ".join(f"{value:.6f}" for value in (*rightward, *upward))
    place = " ".join(str(value) for value in position)
    return f'<camera name="{name}" pos="{place}" xyaxes="{axes}" fovy="{fovy}"/>'


def _unit(vector: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3"]:
    return vector / np.linalg.norm(vector)
