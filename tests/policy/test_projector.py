"""Projectors: one token is linear, several are attended to and know where they are."""

import torch

from vla.policy.projector import AttentionPool, ViewProjector


def features(tokens: int, dim: int = 8) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {camera: torch.randn(2, 3, tokens, dim, generator=generator) for camera in ("a", "b.c")}


def test_one_token_is_projected_linearly() -> None:
    projector = ViewProjector(("a", "b.c"), feature_dim=8, tokens=1, per_view_dim=4)
    views = features(1)
    doubled = projector({camera: 2 * view for camera, view in views.items()})
    zero = projector({camera: 0 * view for camera, view in views.items()})
    torch.testing.assert_close(doubled - zero, 2 * (projector(views) - zero))
    assert projector(views).shape == (2, 3, 8)


def test_attention_over_tokens_is_a_weighted_mean_of_values() -> None:
    torch.manual_seed(0)
    pool = AttentionPool(feature_dim=8, tokens=4, output_dim=16)
    tokens = features(4)["a"]
    slow = torch.zeros(2, 3, 16)
    weights = (pool.key(tokens) + pool.key_position).softmax(dim=2)
    values = pool.value(tokens) + pool.value_position
    for head in range(8):
        part = slice(2 * head, 2 * head + 2)
        slow[..., part] = (weights[..., head, None] * values[..., part]).sum(dim=2)
    torch.testing.assert_close(pool(tokens), pool.out(slow))


def test_attention_can_tell_where_a_token_was() -> None:
    torch.manual_seed(0)
    pool = AttentionPool(feature_dim=8, tokens=4, output_dim=16)
    torch.nn.init.normal_(pool.value_position)
    tokens = features(4)["a"]
    assert (pool(tokens) - pool(tokens.flip(2))).abs().max() > 0.01


def test_several_tokens_have_the_same_output_shape() -> None:
    projector = ViewProjector(("a", "b.c"), feature_dim=8, tokens=4, per_view_dim=6)
    assert projector(features(4)).shape == (2, 3, 12)
    assert projector.output_dim == 12
