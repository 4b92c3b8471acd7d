"""What the task `sim_transfer` is called and how its vectors are ordered. Imports nothing heavy."""

TASK_NAME = "sim_transfer"
ENV_ID = "vla/SimTransfer-v0"
INSTRUCTION = "Pick the red box with the right arm and hand it over to the left arm."
CAMERAS = ("r_vis", "top", "front")
CONTROL_HZ = 25
"""Actions a second."""
MAX_EPISODE_STEPS = 200
SIDES = ("left", "right")
NUM_JOINTS = 7
STATE_NAMES = tuple(
    f"{side}_{part}.pos"
    for side in SIDES
    for part in (*(f"joint_{n + 1}" for n in range(NUM_JOINTS)), "gripper")
)
"""The 16 numbers of a state or an action: joint angles [rad], gripper openings [0 closed, 1 open]."""
