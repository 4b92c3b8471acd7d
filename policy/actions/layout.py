"""Which numbers of a vector hold rotations, and the vector taken apart: plain numbers, and matrices.

robot     x y z  qx qy qz qw  gripper        as the data and the robot have it
pose      plain [x y z gripper], turns [R]   to calculate with
learned   x y z gripper  r1 r2 r3 r4 r5 r6   plain numbers first, then six for each rotation
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from vla.policy.actions.rotations import (
    SIX,
    RotationForm,
    from_matrix,
    from_six,
    numbers_of,
    to_matrix,
    to_six,
)


class Pose(NamedTuple):
    """A vector taken apart."""

    plain: Float[Tensor, "*batch n"]
    turns: Float[Tensor, "*batch k 3 3"]


class Layout:
    """Where the rotations of a vector are.

    Args:
        dim: numbers of the vector.
        rotations: of each, its form and its first number.

    Attributes:
        plain: the numbers that are in no rotation, in order.
        spans: the numbers of each rotation.
        dim: numbers of the robot's vector.
        learned_dim: numbers of the learned one.

    Raises:
        ValueError: a rotation reaches beyond the vector, or two share a number.
    """

    def __init__(self, dim: int, rotations: Sequence[tuple[RotationForm, int]]) -> None:
        self.dim, self._forms = dim, [form for form, _ in rotations]
        self.spans = [range(first, first + numbers_of(form)) for form, first in rotations]
        taken = [number for span in self.spans for number in span]
        for (form, _), span in zip(rotations, self.spans, strict=True):
            if span.stop > dim:
                raise ValueError(f"the {form} from {span.start} on needs {len(span)} of {dim} numbers")
        if len(set(taken)) < len(taken):
            raise ValueError("two rotations share a number")
        self.plain = [number for number in range(dim) if number not in taken]
        self.learned_dim = len(self.plain) + SIX * len(self.spans)
        order = [*self.plain, *taken]
        self._back = [order.index(number) for number in range(dim)]

    def take_apart(self, vector: Float[Tensor, "*batch A"]) -> Pose:
        """Take a robot's vector apart."""
        turns = [
            to_matrix(vector[..., span.start : span.stop], form)
            for form, span in zip(self._forms, self.spans, strict=True)
        ]
        none = vector.new_zeros((*vector.shape[:-1], 0, 3, 3))
        return Pose(vector[..., self.plain], torch.stack(turns, dim=-3) if turns else none)

    def put_together(self, pose: Pose) -> Float[Tensor, "*batch A"]:
        """Return the robot's vector."""
        turns = [
            from_matrix(turn, form) for form, turn in zip(self._forms, pose.turns.unbind(-3), strict=True)
        ]
        return torch.cat([pose.plain, *turns], dim=-1)[..., self._back]

    @staticmethod
    def to_learned(pose: Pose) -> Float[Tensor, "*batch P"]:
        """Return the learned vector."""
        return torch.cat([pose.plain, to_six(pose.turns).flatten(-2)], dim=-1)

    def from_learned(self, learned: Float[Tensor, "*batch P"]) -> Pose:
        """Take a learned vector apart; what is no rotation becomes the nearest one."""
        plain = learned[..., : len(self.plain)]
        return Pose(plain, from_six(learned[..., len(self.plain) :].unflatten(-1, (-1, SIX))))
