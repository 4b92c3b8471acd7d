"""The user's contract of the full-AttnRes vision trunk: names, shapes, stages, and what zero queries mean."""

import math

import pytest
import torch
from torch import Tensor, nn

from vla.cache import Stream
from vla.policy.nn.attnres2d import (
    AttnResImageBlock2D,
    AttnResResNetLikeBackbone2D,
    ConvMixer,
    positions_2d,
    to_map,
    to_tokens,
)
from vla.policy.nn.residual import AttnResStack
from vla.policy.trunks.resnet import ResNetConfig


def images(size: int = 32, count: int = 2) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def small(**changes: object) -> AttnResResNetLikeBackbone2D:
    torch.manual_seed(0)
    return AttnResResNetLikeBackbone2D((32, 32), width=8, **changes)  # type: ignore[arg-type]


def test_the_backbone_has_a_resnets_stages_and_ends_at_a_32th_of_the_image() -> None:
    with torch.device("meta"):
        backbone = AttnResResNetLikeBackbone2D((224, 224))
    blocks = [stage for stage in backbone.stages if isinstance(stage, AttnResImageBlock2D)]
    assert [block.size for block in blocks] == [(56, 56), (28, 28), (14, 14), (7, 7)]
    assert backbone.channels == 512
    assert 10e6 < sum(parameter.numel() for parameter in backbone.parameters()) < 11e6
    assert AttnResResNetLikeBackbone2D((64, 96), width=8)(torch.zeros(2, 3, 64, 96)).shape == (2, 64, 2, 3)


def test_every_residual_unit_is_one_of_attention_residuals() -> None:
    backbone = small(layers=34)
    assert all(isinstance(stage, AttnResImageBlock2D) for stage in backbone.stages)
    stacks = [stage.get_submodule("stack") for stage in backbone.stages]
    assert all(isinstance(stack, AttnResStack) for stack in stacks)
    assert [len(stack.get_parameter("queries")) for stack in stacks] == [7, 9, 13, 7]


@pytest.mark.parametrize("attention", [0, 2, 4])
def test_with_zero_queries_it_is_the_same_trunk_with_plain_residual_sums(attention: int) -> None:
    mixed, plain = small(attention=attention), small(attention=attention, residual="plain")
    state = {name: tensor for name, tensor in mixed.state_dict().items() if not name.endswith("queries")}
    plain.load_state_dict(state)
    torch.testing.assert_close(mixed(images()), plain(images()), rtol=1e-3, atol=1e-4)
    for stage in mixed.stages:
        nn.init.normal_(stage.get_parameter("stack.queries"))
    assert (mixed(images()) - plain(images())).abs().max() > 0.01


def test_a_block_reads_a_softmax_over_depth_at_each_position() -> None:
    torch.manual_seed(0)
    block = AttnResImageBlock2D(8, (3, 5), depth=2)
    stack = block.stack
    assert isinstance(stack, AttnResStack)
    nn.init.normal_(stack.queries)
    maps = torch.randn(2, 8, 3, 5)
    sources = [maps]

    def mix(query: Tensor) -> Tensor:
        scores = [
            (s / s.square().mean(1, keepdim=True).sqrt() * query[:, None, None]).sum(1) for s in sources
        ]
        weights = torch.stack(scores).softmax(0)
        return sum((w[:, None] * s for w, s in zip(weights, sources, strict=True)), torch.zeros(()))

    for query, norm, sublayer in zip(stack.queries, stack.norms, stack.sublayers, strict=False):
        sources.append(to_map(sublayer(norm(to_tokens(mix(query)))), (3, 5)))
    slow = to_map(stack.final_norm(to_tokens(mix(stack.queries[-1]))), (3, 5))
    torch.testing.assert_close(block(maps), slow, rtol=1e-3, atol=1e-3)


def test_a_map_survives_being_tokens() -> None:
    maps = torch.randn(2, 4, 3, 5)
    assert torch.equal(to_map(to_tokens(maps), (3, 5)), maps)
    assert torch.equal(to_tokens(maps)[:, 5 * 1 + 2], maps[:, :, 1, 2])


def test_positions_say_row_and_column() -> None:
    grid = to_map(positions_2d((3, 5), 9)[None], (3, 5))[0]
    assert grid.shape == (9, 3, 5)
    assert torch.equal(grid[:4, 1, 0], grid[:4, 1, 4]) and torch.equal(grid[4:, 0, 2], grid[4:, 2, 2])
    torch.testing.assert_close(grid[0, 2, 0], torch.tensor(math.sin(2)))
    assert len({tuple(column.tolist()) for column in grid.flatten(1).T}) == 15


def test_attention_can_tell_where_something_is() -> None:
    torch.manual_seed(0)
    block = AttnResImageBlock2D(16, (4, 4), depth=1, heads=4)
    maps = torch.randn(1, 16, 4, 4)
    assert (block(maps).flip(3) - block(maps.flip(3))).abs().max() > 1e-3


def test_a_convolution_mixes_neighbours_alone() -> None:
    mixer = ConvMixer(4, (7, 7))
    mixer.norm = nn.Identity()  # type: ignore[assignment]
    maps = torch.zeros(1, 4, 7, 7)
    maps[0, :, 3, 3] = 1.0
    reached = to_map(mixer(to_tokens(maps)), (7, 7)).abs().sum(1)[0] > 0
    assert reached[1:6, 1:6].any() and not reached[0].any() and not reached[:, 6].any()


def test_the_trunk_is_chosen_by_one_key_and_says_sixty_four_numbers_a_camera() -> None:
    stream = Stream(name="top", kind="image", dtype="uint8", shape=(32, 32, 3))
    frames = torch.randint(0, 256, (2, 3, 32, 32, 3), dtype=torch.uint8)
    for blocks, backbone in (("attnres", "AttnResResNetLikeBackbone2D"), ("basic", "ResNet")):
        trunk = ResNetConfig.model_validate({"blocks": blocks, "width": 8}).build(stream, 64)
        assert type(trunk.network).__name__ == backbone
        assert (trunk.keypoints.out_channels, trunk.num_tokens, trunk.dim) == (32, 1, 64)
        tokens = trunk(frames)
        assert tokens.shape == (2, 3, 1, 64)
        tokens.square().sum().backward()
        assert [name for name, weight in trunk.named_parameters() if weight.grad is None] == []
