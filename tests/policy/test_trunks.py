"""Trunks: what every one owes, and what each can tell."""

import pytest
import torch
from fakes import fake_identity
from torch import Tensor

from vla.base.errors import ConfigError
from vla.cache import Statistics, Stream
from vla.policy.agents.vla_agent import VLAAgentConfig
from vla.policy.fusion.concat import ConcatConfig
from vla.policy.fusion.fusion import FusionSizes
from vla.policy.heads.mlp import MlpConfig
from vla.policy.random import GivenNoise
from vla.policy.trunks.attention_pool import AttentionPool, AttentionPoolConfig
from vla.policy.trunks.conv import spatial_softmax
from vla.policy.trunks.linear import LinearConfig
from vla.policy.trunks.trunk import TRUNKS, Trunk, trunk_for

ENCODER = fake_identity().digest
STREAMS = {
    "pooled": Stream(name="top", kind="tokens", dtype="float16", shape=(1, 8), made_by=ENCODER),
    "grid": Stream(name="top", kind="tokens", dtype="float16", shape=(4, 8), made_by=ENCODER),
    "touch": Stream(name="touch", kind="vector", dtype="float32", shape=(5,)),
    "pixels": Stream(name="top", kind="image", dtype="uint8", shape=(32, 48, 3), made_by=ENCODER),
    "lidar": Stream(name="lidar", kind="points", dtype="float32", shape=(20, 4)),
    "imu": Stream(name="imu", kind="series", dtype="float32", shape=(10, 6)),
    "range": Stream(name="range", kind="depth", dtype="float32", shape=(32, 48, 1)),
}


def values_of(stream: Stream, seed: int = 0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    if stream.dtype == "uint8":
        return torch.randint(0, 256, (2, 3, *stream.shape), generator=random, dtype=torch.uint8)
    return torch.randn(2, 3, *stream.shape, generator=random).to(stream.torch_dtype)


def trunk_of(stream: Stream, dim: int = 16) -> Trunk:
    torch.manual_seed(0)
    return trunk_for(stream, None).build(stream, dim)


@pytest.mark.parametrize("name", STREAMS)
def test_every_kind_of_stream_has_a_trunk_that_says_its_shape_and_trains_all_of_itself(name: str) -> None:
    stream = STREAMS[name]
    trunk = trunk_of(stream)
    tokens = trunk(values_of(stream))
    assert tokens.shape == (2, 3, trunk.num_tokens, trunk.dim) == (2, 3, 1, 16)
    tokens.square().sum().backward()
    assert [n for n, parameter in trunk.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("name", STREAMS)
def test_a_trunk_reads_each_instant_by_itself(name: str) -> None:
    stream = STREAMS[name]
    trunk, values = trunk_of(stream), values_of(stream)
    alone = trunk(values[1:, 2:])
    torch.testing.assert_close(trunk(values)[1:, 2:], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["pooled", "grid", "touch", "lidar", "imu"])
def test_a_trunk_standardises_with_the_statistics_of_its_stream(name: str) -> None:
    stream = STREAMS[name]
    shifted = 5 + 3 * values_of(stream).float()
    fitted = trunk_of(stream)
    ones = (1.0,) * stream.channels
    fitted.fit(Statistics(count=1, mean=tuple(5 * one for one in ones), std=tuple(3 * one for one in ones)))
    torch.testing.assert_close(fitted(shifted), trunk_of(stream)(values_of(stream)), rtol=1e-3, atol=1e-4)


def test_one_token_is_projected_linearly() -> None:
    trunk, view = trunk_of(STREAMS["pooled"]), values_of(STREAMS["pooled"])
    zero = trunk(0 * view)
    torch.testing.assert_close(trunk(2 * view) - zero, 2 * (trunk(view) - zero), rtol=1e-3, atol=1e-4)


def test_several_tokens_stay_several_where_a_linear_trunk_is_named() -> None:
    trunk = LinearConfig().build(STREAMS["grid"], 16)
    assert trunk(values_of(STREAMS["grid"])).shape == (2, 3, 4, 16)


def test_attention_over_tokens_is_a_weighted_mean_of_values() -> None:
    torch.manual_seed(0)
    pool = AttentionPool(feature_dim=8, tokens=4, output_dim=16)
    tokens = values_of(STREAMS["grid"]).float()
    slow = torch.zeros(2, 3, 16)
    weights = (pool.key(tokens) + pool.key_position).softmax(dim=2)
    values = pool.value(tokens) + pool.value_position
    for head in range(8):
        part = slice(2 * head, 2 * head + 2)
        slow[..., part] = (weights[..., head, None] * values[..., part]).sum(dim=2)
    torch.testing.assert_close(pool(tokens)[..., 0, :], pool.out(slow))


def test_attention_can_tell_where_a_token_was() -> None:
    torch.manual_seed(0)
    pool = AttentionPool(feature_dim=8, tokens=4, output_dim=16)
    torch.nn.init.normal_(pool.value_position)
    tokens = values_of(STREAMS["grid"]).float()
    assert (pool(tokens) - pool(tokens.flip(2))).abs().max() > 0.01


def test_the_heads_of_attention_share_its_width_evenly() -> None:
    trunk = AttentionPoolConfig(heads=4).build(STREAMS["grid"], 6)
    assert trunk(values_of(STREAMS["grid"])).shape == (2, 3, 1, 6)


def test_the_spatial_softmax_finds_a_bright_spot() -> None:
    maps = torch.zeros(1, 2, 5, 9)
    maps[0, 0, 0, 8] = maps[0, 1, 2, 4] = 100.0
    torch.testing.assert_close(spatial_softmax(maps), torch.tensor([[[1.0, -1.0], [0.0, 0.0]]]))


def test_black_and_white_are_the_ends_of_what_the_convolutions_see() -> None:
    trunk, seen = trunk_of(STREAMS["pixels"]), []
    trunk.get_submodule("layers").register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    for value in (0, 255):
        trunk(torch.full((1, 1, 32, 48, 3), value, dtype=torch.uint8))
    assert [float(pixels.unique()) for pixels in seen] == [-1.0, 1.0]


@pytest.mark.parametrize("size", [(4, 4), (16, 16), (256, 256)])
def test_images_of_any_size_are_told_apart(size: tuple[int, int]) -> None:
    stream = Stream(name="top", kind="image", dtype="uint8", shape=(*size, 3), made_by=ENCODER)
    trunk = trunk_of(stream)
    assert (trunk(values_of(stream, 0)) - trunk(values_of(stream, 1))).abs().max() > 1e-3


def test_the_order_of_points_makes_no_difference() -> None:
    trunk, scan = trunk_of(STREAMS["lidar"]), values_of(STREAMS["lidar"])
    torch.testing.assert_close(trunk(scan.flip(2)), trunk(scan))


def test_the_order_of_samples_makes_one() -> None:
    trunk, series = trunk_of(STREAMS["imu"]), values_of(STREAMS["imu"])
    assert (trunk(series.flip(2)) - trunk(series)).abs().max() > 1e-3


OTHERS = [
    ("grid", "mlp", {"width": 8}, 4),
    ("touch", "mlp", {"width": 8, "layers": 2}, 1),
    ("grid", "attention_pool", {"queries": 3}, 3),
    ("grid", "perceiver", {"latents": 2, "layers": 2}, 2),
    ("lidar", "perceiver", {"latents": 2}, 2),
    ("imu", "perceiver", {"latents": 2}, 2),
]


@pytest.mark.parametrize(("name", "type_", "settings", "tokens"), OTHERS)
def test_trunks_that_are_named_say_their_shape_and_train_all_of_themselves(
    name: str, type_: str, settings: dict[str, int], tokens: int
) -> None:
    torch.manual_seed(0)
    stream = STREAMS[name]
    trunk = trunk_for(stream, TRUNKS.parse({"type": type_, **settings})).build(stream, 16)
    values = values_of(stream)
    found = trunk(values)
    assert found.shape == (2, 3, trunk.num_tokens, trunk.dim) == (2, 3, tokens, 16)
    found.square().sum().backward()
    assert [n for n, parameter in trunk.named_parameters() if parameter.grad is None] == []
    torch.testing.assert_close(found[1:, 2:], trunk(values[1:, 2:]), rtol=1e-4, atol=1e-5)


def test_a_perceiver_does_not_mind_the_order_of_points_but_that_of_tokens() -> None:
    for name, same in (("lidar", True), ("grid", False)):
        torch.manual_seed(0)
        stream = STREAMS[name]
        trunk = trunk_for(stream, TRUNKS.parse("perceiver")).build(stream, 16)
        values = values_of(stream)
        assert torch.allclose(trunk(values), trunk(values.flip(2)), atol=1e-5) is same


def test_a_trunk_for_another_kind_of_stream_is_refused_and_those_that_can_are_named() -> None:
    with pytest.raises(
        ConfigError, match=r"trunk 'conv' reads image and depth, not stream lidar .*there are: .*pointnet"
    ):
        trunk_for(STREAMS["lidar"], TRUNKS.parse("conv"))


def test_a_size_of_zero_is_refused_with_its_path() -> None:
    with pytest.raises(ValueError, match="channels"):
        TRUNKS.parse({"type": "conv", "channels": [0]})


@pytest.mark.parametrize("name", ["state", "touch"])
def test_state_and_vectors_of_sensors_keep_their_digits_under_autocast(name: str) -> None:
    shape = (32,)
    stream = Stream(name=name, kind="vector", dtype="float32", shape=shape, key=name)
    trunk = trunk_for(stream, None).build(stream, 16)
    sizes = FusionSizes(tokens={"touch": (1, 16)}, state_dim=32, task_dim=0, cond_dim=8)
    fusion = ConcatConfig().build(sizes)
    value = 3 * torch.randn(4, 2, *shape, generator=torch.Generator().manual_seed(0))

    def condition() -> torch.Tensor:
        touch = trunk(value if name == "touch" else torch.zeros_like(value))
        return fusion({"touch": touch}, value, None)

    exact = condition()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(condition(), exact)


def test_regressed_actions_keep_their_digits_under_autocast() -> None:
    sizes = {"cond_dim": 8, "n_emb": 16, "n_head": 2, "n_layer": 1}
    head = MlpConfig(width=16).build(VLAAgentConfig.model_validate(sizes), 3, 2)
    with torch.autocast("cpu", torch.bfloat16):
        chunk = head.sample(torch.randn(2, 2, 8), GivenNoise(torch.zeros(2, 16, 3)), 1)
    assert chunk.dtype == torch.float32
