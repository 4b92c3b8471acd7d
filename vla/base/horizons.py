"""The arithmetic of a window, in one place, for training, evaluation, server, client, export. No torch here.

As in Diffusion Policy (arXiv 2303.04137) the predicted chunk starts at the first of the observations, and
execution at the current one, which is the last:

    observations    o-1  o0                  obs_horizon = 2
    predicted       a-1  a0  a1 … a14        pred_horizon = 16
    executed             a0  a1 … a7         num_action_steps = 8
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Horizons:
    """How many instants a policy sees, predicts and executes.

    Raises:
        ValueError: more is executed than is predicted from the current instant on.
    """

    obs_horizon: int
    pred_horizon: int
    num_action_steps: int

    def __post_init__(self) -> None:
        most = self.pred_horizon - self.obs_horizon + 1
        if not 1 <= self.num_action_steps <= most:
            raise ValueError(
                f"num_action_steps {self.num_action_steps} must be at most "
                f"pred_horizon - obs_horizon + 1 = {most}"
            )

    @property
    def observed(self) -> range:
        """Instants of the observations, relative to the current one."""
        return range(1 - self.obs_horizon, 1)

    @property
    def predicted(self) -> range:
        """Instants of the predicted actions, relative to the current one."""
        return range(1 - self.obs_horizon, 1 - self.obs_horizon + self.pred_horizon)

    @property
    def executed(self) -> slice:
        """Rows of a predicted chunk that are executed."""
        return slice(self.obs_horizon - 1, self.obs_horizon - 1 + self.num_action_steps)

    def is_seen(self, step: int) -> bool:
        """Tell whether the next decision looks at the observation after action `step` of a chunk."""
        return step >= self.num_action_steps - self.obs_horizon
