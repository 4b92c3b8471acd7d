"""What decides the content of a recording; two recordings with equal plans hold the same attempts."""

from typing import Annotated

from pydantic import Field

import vla
from vla.base.errors import ConfigError
from vla.base.strict import StrictModel
from vla.rollout.rollout_config import EnvConfig, RecordConfig
from vla.rollout.worlds.expert import find_task
from vla.rollout.worlds.gl import backend, mujoco, require_rendering


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


def make_plan(env: EnvConfig, config: RecordConfig) -> Plan:
    """Check the configuration of `vla record` and complete it with the versions in use.

    Raises:
        ConfigError: there is no expert for this task or environment, or the environment cannot be built.
        EnvironmentSetupError: the environment's package is not installed, or this machine cannot render.
    """
    require_rendering()
    task = find_task(config.task)
    if env.id.split(":")[-1] != task.env_id:
        raise ConfigError(
            f"the expert of task '{config.task}' acts in {task.env_id}, but env.id is '{env.id}'; "
            f"run: vla record --task {config.task} --set env.id={task.env_id}"
        )
    if env.cameras:
        raise ConfigError(
            "env.cameras renames cameras for rollouts, a recording keeps their own names; remove it, "
            "and choose with --set 'env.kwargs.cameras=[\"top\"]' or, when embedding, dataset.cameras"
        )
    task.open_env(env.kwargs).close()
    return Plan(
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
