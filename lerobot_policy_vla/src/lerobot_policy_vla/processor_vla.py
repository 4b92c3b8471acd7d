"""LeRobot's steps before and after the policy; they normalise nothing, the statistics are inside it."""

from typing import Any

from lerobot.processor import (
    AddBatchDimensionProcessorStep,
    DeviceProcessorStep,
    PolicyAction,
    PolicyProcessorPipeline,
    RenameObservationsProcessorStep,
    make_policy_processor_pipelines,
)
from lerobot_policy_vla.configuration_vla import VlaConfig

Observations = PolicyProcessorPipeline[dict[str, Any], dict[str, Any]]
Actions = PolicyProcessorPipeline[PolicyAction, PolicyAction]


def make_vla_pre_post_processors(
    config: VlaConfig, dataset_stats: Any = None
) -> tuple[Observations, Actions]:
    """Make the processors that `vla export` writes down.

    Args:
        config: of the policy.
        dataset_stats: not used.
    """
    before = [
        RenameObservationsProcessorStep(rename_map={}),
        AddBatchDimensionProcessorStep(),
        DeviceProcessorStep(device=config.device),
    ]
    pipelines: tuple[Observations, Actions] = make_policy_processor_pipelines(
        before, [DeviceProcessorStep(device="cpu")]
    )
    return pipelines
