"""Rotations as robots write them, as matrices, and as the six numbers that a network learns.

    quaternion_xyzw    4 numbers, the real part last; q and -q are the same rotation
    quaternion_wxyz    4 numbers, the real part first
    rotation_vector    3 numbers, axis times angle [rad]
    euler_xyz          3 angles [rad] about the fixed axes x, then y, then z: R = Rz Ry Rx

The six numbers are the first two columns of the matrix (Zhou et al. 2019, arXiv 1812.07035): near rotations
have near numbers, which no form of three or four has everywhere. What a network answers is made a rotation
again by Gram-Schmidt.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

RotationForm = Literal["quaternion_xyzw", "quaternion_wxyz", "rotation_vector", "euler_xyz"]
SIX = 6
"""Numbers of a rotation as it is learned."""
SMALLEST = 1e-12
"""Length below which a vector has no direction."""
LOCKED = 1e-6
"""Cosine of the pitch below which x and z turn about the same axis."""


def numbers_of(form: RotationForm) -> int:
    """Return how many numbers a form has."""
    return 4 if form.startswith("quaternion") else 3


def to_matrix(numbers: Float[Tensor, "*batch n"], form: RotationForm) -> Float[Tensor, "*batch 3 3"]:
    """Turn a robot's numbers into rotation matrices; a quaternion need not have unit length."""
    if form == "euler_xyz":
        return _from_euler(numbers)
    if form == "rotation_vector":
        angle = numbers.norm(dim=-1, keepdim=True)
        # sin(a / 2) / a, which is 1/2 at 0.
        share = torch.where(angle > SMALLEST, (angle / 2).sin() / angle.clamp(min=SMALLEST), 0.5)
        return _from_quaternion((angle / 2).cos(), numbers * share)
    unit = normalize(numbers, dim=-1, eps=SMALLEST)
    if form == "quaternion_wxyz":
        return _from_quaternion(unit[..., :1], unit[..., 1:])
    return _from_quaternion(unit[..., 3:], unit[..., :3])


def from_matrix(matrix: Float[Tensor, "*batch 3 3"], form: RotationForm) -> Float[Tensor, "*batch n"]:
    """Turn rotation matrices into a robot's numbers.

    Of two quaternions the one of non-negative real part, of rotation vectors that of at most pi, of Euler
    angles those of a pitch within [-pi/2, pi/2], and a roll of 0 where the pitch is at an end of that.
    """
    if form == "euler_xyz":
        return _to_euler(matrix)
    real, imaginary = _to_quaternion(matrix)
    if form == "rotation_vector":
        length = imaginary.norm(dim=-1, keepdim=True)
        angle = 2 * torch.atan2(length, real)
        # a / sin(a / 2), which is 2 at 0.
        return imaginary * torch.where(length > SMALLEST, angle / length.clamp(min=SMALLEST), 2.0)
    return torch.cat([real, imaginary] if form == "quaternion_wxyz" else [imaginary, real], dim=-1)


def to_six(matrix: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 6"]:
    """Return the first column, then the second."""
    return torch.cat([matrix[..., 0], matrix[..., 1]], dim=-1)


def from_six(six: Float[Tensor, "*batch 6"]) -> Float[Tensor, "*batch 3 3"]:
    """Return the rotation whose first two columns are nearest in turn."""
    first = normalize(six[..., :3], dim=-1, eps=SMALLEST)
    rest = six[..., 3:] - (first * six[..., 3:]).sum(-1, keepdim=True) * first
    second = normalize(rest, dim=-1, eps=SMALLEST)
    return torch.stack([first, second, torch.linalg.cross(first, second)], dim=-1)


def _from_quaternion(w: Tensor, xyz: Tensor) -> Tensor:
    """Return 1 + 2 w [v] + 2 [v] [v], where [v] u = v x u."""
    x, y, z = xyz.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
    return torch.eye(3, dtype=xyz.dtype, device=xyz.device) + 2 * (w[..., None] * cross + cross @ cross)


def _to_quaternion(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return (w, xyz) with w >= 0, from whichever of the four is largest: the others are divided by it."""
    m = [[matrix[..., row, column] for column in range(3)] for row in range(3)]
    xx, yy, zz = m[0][0], m[1][1], m[2][2]
    wx, wy, wz = m[2][1] - m[1][2], m[0][2] - m[2][0], m[1][0] - m[0][1]
    xy, xz, yz = m[1][0] + m[0][1], m[2][0] + m[0][2], m[2][1] + m[1][2]
    rows = [
        [1 + xx + yy + zz, wx, wy, wz],  # 4 w (w, x, y, z)
        [wx, 1 + xx - yy - zz, xy, xz],  # 4 x (w, x, y, z)
        [wy, xy, 1 - xx + yy - zz, yz],
        [wz, xz, yz, 1 - xx - yy + zz],
    ]
    table = torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)
    largest = torch.stack([rows[place][place] for place in range(4)], dim=-1).argmax(dim=-1)
    chosen = table.gather(-2, largest[..., None, None].expand(*largest.shape, 1, 4))[..., 0, :]
    unit = normalize(chosen, dim=-1, eps=SMALLEST)
    unit = torch.where(unit[..., :1] < 0, -unit, unit)
    return unit[..., :1], unit[..., 1:]


def _from_euler(angles: Tensor) -> Tensor:
    (cx, cy, cz), (sx, sy, sz) = angles.cos().unbind(-1), angles.sin().unbind(-1)
    entries = [
        *(cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx),
        *(sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx),
        *(-sy, cy * sx, cy * cx),
    ]
    return torch.stack(entries, dim=-1).unflatten(-1, (3, 3))


def _to_euler(matrix: Tensor) -> Tensor:
    cosine = (matrix[..., 0, 0] ** 2 + matrix[..., 1, 0] ** 2).sqrt()
    pitch = torch.atan2(-matrix[..., 2, 0], cosine)
    locked = cosine < LOCKED
    roll = torch.where(locked, 0.0, torch.atan2(matrix[..., 2, 1], matrix[..., 2, 2]))
    free = torch.atan2(matrix[..., 1, 0], matrix[..., 0, 0])
    yaw = torch.where(locked, torch.atan2(-matrix[..., 0, 1], matrix[..., 1, 1]), free)
    return torch.stack([roll, pitch, yaw], dim=-1)
