"""What decides the content of a recording; two recordings with equal plans hold the same attempts."""

from typing import Annotated

from pydantic import Field

import vla
from vla.errors import ConfigError, nearest
from vla.rollout.config import EnvConfig, RecordConfig
from vla.rollout.gl import backend, mujoco, require_rendering
from vla.rollout.sim_transfer import SimTransferEnv
from vla.rollout.task import ENV_ID, TASK_NAME
from vla.strict import StrictModel


class Plan(StrictModel):
    """Settings of a recording, without those that decide only how much of it is made, where, or how fast."""

    task: str
    env: EnvConfig
    seed: Annotated[int, Field(ge=0)]
    """Attempt k is reset with seed + k."""
    noise: Annotated[float, Field(ge=0)]
    image_size: tuple[int, int]
    keep_failures: bool
    vla_version: str
    mujoco_version: str
    gl_backend: str
    """Another renderer draws other pixels."""

    def open_env(self) -> SimTransferEnv:
        """Make the environment.

        Raises:
            ConfigError: it does not take these arguments.
        """
        try:
            return SimTransferEnv(**self.env.kwargs)
        except TypeError as error:
            raise ConfigError(
                f"env.kwargs do not fit {self.env.id}: {error}; "
                "valid names: render_height, render_width, cameras, render_mode"
            ) from error


def make_plan(env: EnvConfig, config: RecordConfig) -> Plan:
    """Check the configuration of `vla record` and complete it with the versions in use.

    Raises:
        ConfigError: there is no expert for this task or environment, or the environment cannot be built.
        EnvironmentSetupError: this machine cannot render.
    """
    require_rendering()
    if config.task != TASK_NAME:
        raise ConfigError(f"no expert for task '{config.task}'; {nearest(config.task, [TASK_NAME])}")
    if env.id.split(":")[-1] != ENV_ID:
        raise ConfigError(
            f"the expert of task '{config.task}' acts in {ENV_ID}, but env.id is '{env.id}'; "
            f"run: vla record --set env.id={ENV_ID}"
        )
    if env.cameras:
        raise ConfigError(
            "env.cameras renames cameras for rollouts, a recording keeps their own names; remove it, "
            "and choose with --set 'env.kwargs.cameras=[\"top\"]' or, when embedding, dataset.cameras"
        )
    plan = Plan(
        task=config.task,
        env=env,
        seed=config.seed,
        noise=config.noise,
        image_size=config.image_size,
        keep_failures=config.keep_failures,
        vla_version=vla.__version__,
        mujoco_version=mujoco.__version__,
        gl_backend=backend(),
    )
    plan.open_env().close()
    return plan
