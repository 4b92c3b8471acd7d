"""Rotations: known answers, and every form there and back."""

import math

import pytest
import torch
from torch import Tensor

from vla.policy.actions.rotations import RotationForm, from_matrix, from_six, numbers_of, to_matrix, to_six

FORMS: tuple[RotationForm, ...] = ("quaternion_xyzw", "quaternion_wxyz", "rotation_vector", "euler_xyz")
HALF = math.sqrt(0.5)
QUARTER = math.pi / 2


def some(form: RotationForm, count: int = 500) -> Tensor:
    """Draw numbers of a form, all in the half that comes back."""
    random = torch.Generator().manual_seed(0)
    numbers = torch.randn(count, numbers_of(form), generator=random, dtype=torch.float64)
    if form.startswith("quaternion"):
        real = numbers[:, 3:] if form == "quaternion_xyzw" else numbers[:, :1]
        return numbers / numbers.norm(dim=1, keepdim=True) * torch.where(real < 0, -1, 1)
    if form == "rotation_vector":
        angle = math.pi * torch.rand(count, 1, generator=random, dtype=torch.float64)
        return numbers / numbers.norm(dim=1, keepdim=True) * angle
    return (numbers / 3).clamp(-1.5, 1.5)


@pytest.mark.parametrize(
    ("form", "numbers"),
    [
        ("quaternion_xyzw", [0, 0, HALF, HALF]),
        ("quaternion_wxyz", [HALF, 0, 0, HALF]),
        ("quaternion_wxyz", [-2 * HALF, 0, 0, -2 * HALF]),  # the same, of another sign and length
        ("rotation_vector", [0, 0, QUARTER]),
        ("euler_xyz", [0, 0, QUARTER]),
    ],
)
def test_a_quarter_turn_about_z_takes_x_to_y(form: RotationForm, numbers: list[float]) -> None:
    matrix = to_matrix(torch.tensor(numbers, dtype=torch.float64), form)
    due = torch.tensor([[0, -1, 0], [1, 0, 0], [0, 0, 1]], dtype=torch.float64)
    torch.testing.assert_close(matrix, due)


def test_euler_angles_turn_about_x_then_y_then_z() -> None:
    matrix = to_matrix(torch.tensor([QUARTER, QUARTER, 0], dtype=torch.float64), "euler_xyz")
    # y goes to z by the first turn, and to x by the second.
    torch.testing.assert_close(matrix[:, 1], torch.tensor([1.0, 0, 0], dtype=torch.float64))


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_a_rotation_and_comes_back(form: RotationForm) -> None:
    numbers = some(form)
    matrix = to_matrix(numbers, form)
    eye = torch.eye(3, dtype=torch.float64).expand_as(matrix)
    torch.testing.assert_close(matrix @ matrix.mT, eye)
    torch.testing.assert_close(torch.linalg.det(matrix), torch.ones(len(matrix), dtype=torch.float64))
    torch.testing.assert_close(from_matrix(matrix, form), numbers)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "vector", [[0, 0, 0], [math.pi, 0, 0], [0, math.pi, 0], [0, 0, math.pi], [1e-9, 0, 0], [0, QUARTER, 0]]
)
def test_no_turn_half_turns_and_a_locked_pitch_are_rotations_too(
    form: RotationForm, vector: list[float]
) -> None:
    matrix = to_matrix(torch.tensor(vector, dtype=torch.float32), "rotation_vector")
    numbers = from_matrix(matrix, form)
    assert torch.isfinite(numbers).all()
    torch.testing.assert_close(to_matrix(numbers, form), matrix, atol=1e-6, rtol=0)


def test_six_numbers_come_back_and_others_become_the_nearest_rotation() -> None:
    matrix = to_matrix(some("quaternion_xyzw"), "quaternion_xyzw")
    torch.testing.assert_close(from_six(to_six(matrix)), matrix)
    skewed = to_six(matrix) * 3  # lengths mean nothing
    skewed[:, 3:] += skewed[:, :3]  # nor does a second column that leans towards the first
    torch.testing.assert_close(from_six(skewed), matrix)


def test_a_network_that_answers_nothing_gives_finite_numbers() -> None:
    for form in FORMS:
        assert torch.isfinite(from_matrix(from_six(torch.zeros(1, 6)), form)).all()
