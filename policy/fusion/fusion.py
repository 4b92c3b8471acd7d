"""What a policy asks of a fusion.

B batch, T_obs obs_horizon, N tokens of a stream, D their width, S state size, L width of the projected text,
C condition width.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float, Int64
from torch import Tensor, nn

from vla.base.family import Family
from vla.base.strict import StrictModel


@dataclass(frozen=True, kw_only=True)
class FusionSizes:
    """What comes in and goes out at each instant."""

    tokens: Mapping[str, tuple[int, int]]
    """(N, D) of each stream, in order."""
    state_dim: int
    """S; 0 where the policy sees no state."""
    task_dim: int
    """L; 0 where it is not told what to do."""
    cond_dim: int
    """C."""
    obs_horizon: int = 1
    """T_obs."""
    tasks: tuple[str, ...] = ()
    """The task texts of the demonstrations, for a fusion that reads words."""

    @property
    def raw_dim(self) -> int:
        """Numbers that come in."""
        return sum(count * dim for count, dim in self.tokens.values()) + self.state_dim + self.task_dim


class Fusion(nn.Module):
    """Build the condition of each instant.

    Attributes:
        num_tokens: K, condition tokens of each instant.
        export_problem: why a graph for other programs cannot be made of it; empty where it can.
    """

    num_tokens = 1
    export_problem = ""

    def is_saved(self, name: str) -> bool:
        """Tell whether a tensor of its state is written to files; see `Policy.is_saved`."""
        return True

    def read_tasks(self, texts: Sequence[str]) -> Int64[Tensor, "n L"] | None:
        """Return what a fusion that reads words takes as `task`, a row a text; None of any other."""
        return None

    @abstractmethod
    def forward(
        self,
        tokens: Mapping[str, Float[Tensor, "B T_obs _N _D"]],
        state: Float[Tensor, "B T_obs S"] | None,
        task: Float[Tensor, "B T_obs L"] | None,
    ) -> Float[Tensor, "B T_obs_K C"]:
        """Fuse what is known, to K tokens of each instant, one instant after the other.

        Args:
            tokens: of each stream.
            state: standardised; None where the policy sees none.
            task: the projected text; None where it is not told what to do.
        """


class FusionConfig(StrictModel):
    """Which fusion, and its settings.

    Attributes:
        reads_task: whether it reads the words of the task text, and `task` is what its `read_tasks` says.
    """

    reads_task: ClassVar[bool] = False
    type: str

    @abstractmethod
    def build(self, sizes: FusionSizes) -> Fusion:
        """Build the fusion, untrained."""


FUSIONS: Family[FusionConfig] = Family("fusion", FusionConfig, "vla.policy.fusion", default="concat")
