"""What a policy asks of a fusion.

B batch, T_obs obs_horizon, N tokens of a stream, D their width, S state size, L width of the projected text,
C condition width.
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Float
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

    @property
    def raw_dim(self) -> int:
        """Numbers that come in."""
        return sum(count * dim for count, dim in self.tokens.values()) + self.state_dim + self.task_dim


class Fusion(nn.Module):
    """Build the condition of each instant.

    Attributes:
        num_tokens: K, condition tokens of each instant.
    """

    num_tokens = 1

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
    """Which fusion, and its settings."""

    type: str

    @abstractmethod
    def build(self, sizes: FusionSizes) -> Fusion:
        """Build the fusion, untrained."""


FUSIONS: Family[FusionConfig] = Family("fusion", FusionConfig, "vla.policy.fusion", default="concat")
