"""Make the environment that a configuration names, whoever wrote it."""

import importlib
import sys
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.wrappers import TransformAction

# Sets MUJOCO_GL where nobody has: environments of other packages render without a display as well.
import vla.rollout.worlds.gl  # noqa: F401
from vla.base.errors import EnvironmentSetupError, VlaError
from vla.base.family import load_plugins
from vla.rollout.rollout_config import EnvConfig
from vla.rollout.worlds.observations import Observation, Observations

CAMERAS_AND_STATE = "pixels_agent_pos"
"""What LeRobot's environments (gym_aloha, gym_pusht, gym_xarm) call the observations of a policy."""


def make_env(config: EnvConfig) -> gymnasium.Env[Observation, np.ndarray]:
    """Make an environment whose observations are streams by name.

    Args:
        config: id, arguments and cameras.

    Raises:
        EnvironmentSetupError: no environment has that id, it cannot be built with the given
            arguments, or nothing that it observes is a stream.
    """
    spec = find_spec(config.id)
    arguments = dict(config.kwargs)
    if "obs_type" in spec.kwargs:
        arguments.setdefault("obs_type", CAMERAS_AND_STATE)
    try:
        env: gymnasium.Env[Any, Any] = gymnasium.make(spec, render_mode="rgb_array", **arguments)
    except VlaError:
        raise
    except Exception as error:  # whoever wrote it may refuse an argument with any error
        given = f" with env.kwargs {arguments}" if arguments else ""
        raise EnvironmentSetupError(
            f"environment '{config.id}' cannot be made{given}: {type(error).__name__}: {error}"
        ) from error
    named = Observations(env, config.cameras)
    return named if config.clip_actions else _unlimited(named)


def find_spec(env_id: str) -> EnvSpec:
    """Look an environment up; import the package that registers it, if that is needed.

    `module:id` names the module. Without one, an id that nobody has registered is looked for in the package
    that its namespace names: `gym_aloha/AlohaTransferCube-v0` in `gym_aloha`.

    Raises:
        EnvironmentSetupError: no environment has that id, or its package is not installed.
    """
    load_plugins()
    module, _, name = env_id.rpartition(":")
    namespace = name.partition("/")[0] if "/" in name else ""
    package = module or ("" if name in gymnasium.registry else namespace)
    if package:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise EnvironmentSetupError(
                f"environment '{env_id}' is registered by a package '{package}', which cannot be imported "
                f"({error}); install it into {sys.prefix}, or name another as module:id"
            ) from error
    try:
        return gymnasium.spec(name)
    except gymnasium.error.Error as error:
        raise EnvironmentSetupError(
            f"no environment is registered as '{name}' ({error}); name one as module:id, for example "
            "gym_aloha:gym_aloha/AlohaTransferCube-v0, so that its module is imported first"
        ) from error


def _unlimited(env: gymnasium.Env[Any, Any]) -> gymnasium.Env[Any, Any]:
    """Declare that any action will do."""
    assert env.action_space.shape is not None
    everything = spaces.Box(-np.inf, np.inf, env.action_space.shape, np.float32)
    return TransformAction(env, lambda action: action, everything)
