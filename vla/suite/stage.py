"""What a run needs next: the same question on this machine and on a node of a cluster."""

from vla.suite.folder import SuiteFolder
from vla.suite.plan import RunPlan
from vla.suite.status import RunStatus

Stage = tuple[str, list[str]]
"""Its name and its command."""


def stage_of(folder: SuiteFolder, plan: RunPlan, run: RunStatus, device: str) -> Stage | None:
    """Return what a run needs next: training, from its last checkpoint if it has one, then a rollout."""
    directory = folder.run(plan.name)
    if "train" not in run.completed:
        resume = ["--resume"] if (directory / "pipeline.toml").is_file() else []
        # The encoder of validation rollouts goes beside the policy, not to the first GPU.
        where = ["--device", device, f"--set=encoder.device={device}"]
        return "train", [*plan.train, *where, *resume]
    if plan.rollout and not (folder.final_rollout(plan.name) / "eval_info.json").is_file():
        return "rollout", [*plan.rollout, "--device", device]
    return None
