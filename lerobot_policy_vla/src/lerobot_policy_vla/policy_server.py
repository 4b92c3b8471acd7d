"""LeRobot's policy server, which itself knows the types of a fixed list only.

python -m lerobot_policy_vla.policy_server --host=127.0.0.1 --port=8080
"""

import lerobot_policy_vla.configuration_vla  # noqa: F401  registers the type
from lerobot.async_inference.constants import SUPPORTED_POLICIES
from lerobot.async_inference.policy_server import serve


def support_vla() -> None:
    """Let the server load policies of type `vla`."""
    if "vla" not in SUPPORTED_POLICIES:
        SUPPORTED_POLICIES.append("vla")


if __name__ == "__main__":
    support_vla()
    serve()
