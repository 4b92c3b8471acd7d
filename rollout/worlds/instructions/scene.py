"""The model of the world `instructions`: a table, two pads, four objects, a hand with a magnet above them.

The hand slides over the table at one height. Objects slide in x, y and z and do not turn; gravity and
friction keep them where they are put. What the magnet holds hangs on it by a `connect` constraint, which
lifts it clear of the others.
"""

from vla.rollout.worlds.instructions.wordings import OBJECTS, PADS
from vla.rollout.worlds.instructions.world import CAMERA

TABLE = 0.30
"""Half of its side [m]."""
REACH = 0.25
"""How far from the middle, in x and in y, things stand and the hand gets [m]."""
HALF_HEIGHT, BOX_HALF, CYLINDER_RADIUS = 0.025, 0.042, 0.036
"""Of objects [m]. A box is wider: 64 pixels of a camera show it, whatever its colour."""
PAD_HALF = 0.06
"""Radius of the disc, half the side of the square [m]."""
HANGS_AT = 0.06
"""Height of the lower side of an object on the magnet [m]: clear of the others, 5 cm high."""
TIMESTEP = 0.01
"""Of the physics [s]."""
COLOURS = {
    "red": ".95 .05 .05",
    "blue": ".05 .10 .95",
    "pink": ".95 .10 .90",
    "white": ".97 .97 .97",
    "green": ".05 .80 .15",
    "yellow": ".97 .92 .05",
}
"""Corners of the RGB cube, on a grey table. Where two objects were red and two blue, and shape alone told a
box from a cylinder, a small policy learned 480 scenes by heart: held-out loss rose from update 1,000 on."""


def body(name: str) -> str:
    """Return what the model calls an object or a pad."""
    return name.replace(" ", "_")


def scene(height: int, width: int) -> str:
    """Return the model, for images of this size [pixel]."""
    objects, pads, magnets = "", "", ""
    for name in OBJECTS:
        colour, shape = name.split()
        size = f"{BOX_HALF} {BOX_HALF}" if shape == "box" else f"{CYLINDER_RADIUS}"
        joints = "".join(
            f'<joint type="slide" axis="{axis}" damping=".2"/>' for axis in ("1 0 0", "0 1 0", "0 0 1")
        )
        objects += f"""
  <body name="{body(name)}" pos="0 0 {HALF_HEIGHT}">
    {joints}<geom type="{shape}" size="{size} {HALF_HEIGHT}" mass="0.1" rgba="{COLOURS[colour]} 1"/>
  </body>"""
        magnets += f"""
  <connect body1="hand" body2="{body(name)}" anchor="0 0 0" active="false"/>"""
    for name in PADS:
        colour, shape = name.split()
        form, size = ("cylinder", f"{PAD_HALF}") if shape == "disc" else ("box", f"{PAD_HALF} {PAD_HALF}")
        pads += f"""
  <body name="{body(name)}" mocap="true">
    <geom type="{form}" size="{size} .001" rgba="{COLOURS[colour]} 1" contype="0" conaffinity="0"/>
  </body>"""
    return f"""
<mujoco model="instructions">
<option timestep="{TIMESTEP}" integrator="implicitfast" cone="pyramidal" iterations="20"/>
<visual>
  <global offwidth="{width}" offheight="{height}"/>
  <quality shadowsize="0" offsamples="0"/>
  <headlight ambient=".5 .5 .5" diffuse=".5 .5 .5" specular="0 0 0"/>
</visual>
<worldbody>
  <geom type="box" size="{TABLE} {TABLE} 0.01" pos="0 0 -0.01" rgba=".50 .49 .47 1"/>
  <camera name="{CAMERA}" pos="0 0 0.92" xyaxes="0 -1 0 1 0 0" fovy="38"/>{pads}{objects}
  <body name="hand" pos="0 0 {HANGS_AT + 2 * HALF_HEIGHT + 0.01}">
    <joint name="x" type="slide" axis="1 0 0" damping="1"/>
    <joint name="y" type="slide" axis="0 1 0" damping="1"/>
    <geom type="cylinder" size="0.015 0.01" mass="0.4" rgba=".15 .15 .15 1" contype="0" conaffinity="0"/>
  </body>
</worldbody>
<equality>{magnets}
</equality>
<actuator>
  <position joint="x" kp="120" dampratio="1"/>
  <position joint="y" kp="120" dampratio="1"/>
</actuator>
</mujoco>"""
