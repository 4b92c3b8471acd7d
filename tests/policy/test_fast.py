"""FAST tokens: the code of chunks, and the head that speaks it."""

import math
from pathlib import Path

import pytest
import torch
from fakes import fake_spec, write_cache
from test_train import POLICY as SMALL
from test_train import settings
from torch import Tensor

from vla.base.errors import ConfigError
from vla.policy.agents.policy import load_policy
from vla.policy.agents.vla_agent import VLAAgent, VLAAgentConfig
from vla.policy.heads.fast import FastConfig, FastHead
from vla.policy.nn.action_tokens import END, PAD, ActionTokens, dct_matrix
from vla.policy.random import RowRandom, StillWhere
from vla.policy.training.run import RunDirectory
from vla.policy.training.train import train
from vla.policy.windows import Windows

POLICY = VLAAgentConfig(cond_dim=8, n_emb=32, n_layer=2, n_head=4, pred_horizon=16, head=FastConfig())


def smooth(rows: int, dims: int = 2, seed: int = 0) -> Tensor:
    """Return chunks within [-1, 1] that rise or fall, quickly or slowly."""
    random = torch.Generator().manual_seed(seed)
    slope = torch.rand(rows, 1, dims, generator=random) * 2 - 1
    return slope * torch.linspace(0, 1, 16)[None, :, None]


def learned(scale: float = 10.0, vocabulary: int = 256) -> ActionTokens:
    tokens = ActionTokens((16, 2), scale, vocabulary)
    tokens.learn([smooth(200)])
    return tokens


def test_the_transform_is_orthonormal_and_that_of_its_definition() -> None:
    matrix = dct_matrix(5)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(5), atol=1e-6, rtol=0)
    slow = [
        [math.sqrt((1 if k == 0 else 2) / 5) * math.cos(math.pi * (2 * t + 1) * k / 10) for t in range(5)]
        for k in range(5)
    ]
    torch.testing.assert_close(matrix, torch.tensor(slow))


def test_tokens_come_back_as_the_rounded_chunk() -> None:
    tokens, chunk = learned(), smooth(20, seed=1)
    index = tokens.encode(chunk)
    torch.testing.assert_close(tokens.decode(index), tokens.dequantise(tokens.quantise(chunk)))
    # A coefficient is off by half a step at most, and the transform keeps the sum of squares.
    assert (tokens.decode(index) - chunk).square().sum(dim=(1, 2)).max() <= 32 * 0.05**2


def test_a_larger_scale_loses_less() -> None:
    chunk = smooth(20, seed=1)
    off = [(code.decode(code.encode(chunk)) - chunk).abs().max() for code in (learned(), learned(80.0, 1024))]
    assert off[1] < off[0] / 4


def test_no_chunk_within_the_range_is_clipped() -> None:
    tokens = ActionTokens((16, 2), 10.0, 256)
    for corner in (
        torch.ones(1, 16, 2),
        -torch.ones(1, 16, 2),
        dct_matrix(16)[3].sign().expand(2, 16).T[None],
    ):
        torch.testing.assert_close(tokens.dequantise(tokens.quantise(corner)), corner, atol=0.1, rtol=0)


def test_learned_pairs_make_smooth_chunks_short() -> None:
    assert ActionTokens((16, 2), 10.0, 256).encode(smooth(20)).shape == (20, 33)
    assert (learned().encode(smooth(20, seed=1)) > END).sum(dim=1).float().mean() < 12


def test_an_end_stands_behind_every_chunk_and_padding_behind_it() -> None:
    index = learned().encode(smooth(20, seed=1))
    for row in index.tolist():
        end = row.index(END)
        assert min(row[:end]) > END and set(row[end + 1 :]) <= {PAD}


def test_what_is_drawn_too_short_or_too_long_is_still_a_chunk() -> None:
    tokens = learned()
    zero = tokens.encode(torch.zeros(1, 16, 2))[0].tolist()
    assert not tokens.decode(torch.tensor([[END]])).any()
    assert not tokens.decode(torch.tensor([[*zero[:-1], *zero]])).any()


def test_the_code_is_saved_with_the_weights() -> None:
    tokens, other, chunk = learned(), ActionTokens((16, 2), 10.0, 256), smooth(5, seed=2)
    assert other.encode(chunk).shape != tokens.encode(chunk).shape
    other.load_state_dict(tokens.state_dict())
    assert torch.equal(other.encode(chunk), tokens.encode(chunk))
    assert torch.equal(other.decode(tokens.encode(chunk)), tokens.decode(tokens.encode(chunk)))


def test_a_vocabulary_without_room_for_single_symbols_is_refused() -> None:
    with pytest.raises(ConfigError, match="no room for the 82 single symbols of scale 10; take 164 or more"):
        FastHead(POLICY, 2, 2, FastConfig(vocabulary=64))


@pytest.fixture(scope="module")
def trained() -> FastHead:
    """A head that has learned to rise where the condition is 1 and to do either where it is 0."""
    torch.manual_seed(0)
    head = FastHead(POLICY, 2, 2, FastConfig(vocabulary=256, temperature=1.0))
    head.fit_range(torch.tensor([-3.0, 5.0]), torch.tensor([3.0, 5.0]))
    rise = 3 * torch.linspace(0, 1, 16)[:, None] * torch.tensor([1.0, 0.0]) + torch.tensor([0.0, 5.0])
    both = torch.stack([rise, rise * torch.tensor([-1.0, 1.0])])
    head.fit_chunks([both.repeat(4, 1, 1)])
    optimizer = torch.optim.AdamW(head.parameters(), 3e-3)
    random = torch.Generator().manual_seed(0)
    for _ in range(100):
        free = torch.rand(32, generator=random) < 0.5
        way = torch.where(free, torch.randint(0, 2, (32,), generator=random), 0)
        cond = (~free).float()[:, None, None].expand(32, 2, 8)
        loss, _ = head.compute_loss(cond, both[way], torch.ones(32, 16, dtype=torch.bool), {})
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return head


def test_the_head_keeps_both_modes_and_obeys_the_condition(trained: FastHead) -> None:
    random = RowRandom(torch.Generator().manual_seed(1))
    told = trained.sample(torch.ones(40, 2, 8), random, 1)[:, -1, 0]
    free = trained.sample(torch.zeros(200, 2, 8), random, 1)[:, -1, 0]
    assert (told > 2.5).float().mean() > 0.95
    assert (free.abs() > 2.5).float().mean() > 0.9
    assert 0.2 < (free > 0).float().mean() < 0.8


def test_a_joint_that_rests_takes_no_chance_from_the_tokens(trained: FastHead) -> None:
    still = StillWhere(RowRandom(torch.Generator().manual_seed(1)), (16, 2), torch.tensor([False, True]))
    free = trained.sample(torch.zeros(100, 2, 8), still, 1)[:, -1, 0]
    assert 0.2 < (free > 0).float().mean() < 0.8


def test_what_never_moved_comes_out_as_it_was(trained: FastHead) -> None:
    chunk = trained.sample(torch.zeros(8, 2, 8), RowRandom(torch.Generator().manual_seed(2)), 1)
    assert (chunk[..., 1] == 5).all()


def test_a_trained_policy_comes_back_with_its_code(tmp_path: Path) -> None:
    cache = write_cache(tmp_path / "cache", fake_spec(lengths=(30, 25, 20)))
    run = RunDirectory.create(tmp_path / "run")
    policy = SMALL.model_copy(update={"head": FastConfig(vocabulary=256)})
    train(run, cache, policy, settings(steps=2, val_every=2))
    loaded, again = (load_policy(run.policy_folder("last")) for _ in range(2))
    assert isinstance(loaded, VLAAgent) and isinstance(loaded.head, FastHead)
    assert loaded.head.tokens.known > loaded.head.tokens.base
    windows = Windows(cache, loaded.horizons, loaded.observes, device=torch.device("cpu"), resident=True)
    seen = windows.batch(torch.tensor([3, 4])).observation
    noise = [RowRandom(torch.Generator().manual_seed(0)) for _ in range(2)]
    first, second = (one.act(seen, random=row)[0] for one, row in zip((loaded, again), noise, strict=True))
    assert torch.equal(first, second) and first.isfinite().all()


def test_a_policy_without_demonstrations_is_refused(tmp_path: Path) -> None:
    cache = write_cache(tmp_path / "cache", fake_spec())
    with pytest.raises(ConfigError, match="head 'fast' learns its tokens from demonstrations"):
        VLAAgent.for_cache(SMALL.model_copy(update={"head": FastConfig()}), cache.metadata)
