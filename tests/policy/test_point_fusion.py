"""The fusion that looks where the text says: what it computes, that it chooses, and what it needs."""

import pytest
import torch
from torch import nn

from vla.base.errors import ConfigError
from vla.cache.stream import Stream
from vla.policy.fusion.fusion import FusionSizes
from vla.policy.fusion.point import PointConfig, PointFusion, grid_places
from vla.policy.trunks.conv import ConvConfig

SIZES = FusionSizes(tokens={"top": (4, 3), "imu": (1, 2)}, state_dim=2, task_dim=5, cond_dim=8)


def test_a_grid_is_read_row_by_row_from_the_upper_left() -> None:
    places = grid_places(4, torch.zeros(1, 1, 1, 4))[0, 0]
    assert places.tolist() == [[-1, -1], [1, -1], [-1, 1], [1, 1]]


def test_a_point_is_the_mean_place_and_value_under_the_softmax_of_the_query() -> None:
    torch.manual_seed(0)
    fusion = PointFusion(SIZES, points=2, key_dim=6)
    tokens = {"imu": torch.randn(2, 3, 1, 2), "top": torch.randn(2, 3, 4, 3)}
    state, task = torch.randn(2, 3, 2), torch.randn(2, 3, 5)
    found = fusion(tokens, state, task)
    cells = tokens["top"][1, 2]
    points = []
    for query in fusion.queries[0](task[1, 2]).split(6):
        weights = torch.stack([query @ fusion.keys[0](cell) / 6**0.5 for cell in cells]).softmax(dim=0)
        for weighed in (grid_places(4, torch.zeros(1, 1, 1, 4))[0, 0], fusion.values[0](cells)):
            points.append(sum(weight * row for weight, row in zip(weights, weighed, strict=True)))
    expected = fusion.cond_projector(torch.cat([tokens["imu"][1, 2, 0], *points, state[1, 2]]))
    assert found.shape == (2, 3, 8)
    torch.testing.assert_close(found[1, 2], expected)


def test_it_learns_to_point_at_what_the_text_names_wherever_it_lies() -> None:
    """Four kinds of things on 16 cells, one of which is named: where is it?"""
    torch.manual_seed(0)
    fusion = PointFusion(FusionSizes(tokens={"top": (16, 4)}, state_dim=0, task_dim=4, cond_dim=2), 2, 8)
    optimizer = torch.optim.Adam(fusion.parameters(), lr=5e-2)
    everywhere = grid_places(16, torch.zeros(1, 1, 1, 16))[0, 0]
    for _ in range(90):
        cells = torch.rand(64, 16).argsort(dim=1)[:, :4]
        kinds = torch.zeros(64, 16, 4)
        kinds[torch.arange(64)[:, None], cells, torch.arange(4)] = 1
        named = torch.randint(4, (64,))
        told = nn.functional.one_hot(named, 4).float()[:, None]
        answer = fusion({"top": kinds[:, None]}, None, told)[:, 0]
        loss = (answer - everywhere[cells[torch.arange(64), named]]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.detach() < 0.05


@pytest.mark.parametrize(
    ("tokens", "task_dim", "message"),
    [
        ({"top": (4, 3)}, 0, r"steered by the task text.*policy\.language=true"),
        ({"top": (1, 3)}, 5, "every stream has one token"),
        ({"top": (6, 3)}, 5, "needs square grids, and 'top' has 6 tokens"),
    ],
)
def test_what_it_cannot_point_into_is_refused(
    tokens: dict[str, tuple[int, int]], task_dim: int, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        PointConfig().build(FusionSizes(tokens=tokens, state_dim=2, task_dim=task_dim, cond_dim=4))


@pytest.mark.parametrize(("size", "count"), [((32, 32), 64), ((48, 32), 96), ((30, 30), 225)])
def test_a_conv_trunk_gives_its_last_map_as_a_grid(size: tuple[int, int], count: int) -> None:
    stream = Stream(name="top", kind="image", dtype="uint8", shape=(*size, 3))
    trunk = ConvConfig(channels=(8, 8), output="grid").build(stream, 5)
    image = torch.zeros(2, 1, *size, 3, dtype=torch.uint8)
    assert trunk(image).shape == (2, 1, count, 5) and trunk.num_tokens == count
