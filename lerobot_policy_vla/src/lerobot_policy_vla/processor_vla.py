"""LeRobot's steps before and after the policy; they normalise nothing, the statistics are inside it."""

from typing import Any

from lerobot.processor import (
    AddBatchDimensionProcessorStep,
    DeviceProcessorStep,
    RenameObservationsProcessorStep,
    make_policy_processor_pipelines,
)
from lerobot_policy_vla.configuration_vla import VlaConfig


def make_vla_pre_post_processors(config: VlaConfig, dataset_stats: Any = None) -> tuple[Any, Any]:
    """Make the processors that `vla export` writes down.

    Args:
        config: of the policy.
        dataset_stats: not used.

    Returns:
        LeRobot's pipelines for observations and for actions.
    """
    before = [
        RenameObservationsProcessorStep(rename_map={}),
        AddBatchDimensionProcessorStep(),
        DeviceProcessorStep(device=config.device),
    ]
    before_and_after: tuple[Any, Any] = make_policy_processor_pipelines(
        before, [DeviceProcessorStep(device="cpu")]
    )
    return before_and_after
