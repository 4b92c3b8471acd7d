"""The fusion that keeps tokens: what comes out, and heads that read it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import fake_spec, write_cache
from torch import nn

from vla.policy.agents.vla_agent import VLAAgent
from vla.policy.batch import Batch
from vla.policy.fusion.fusion import FusionSizes
from vla.policy.fusion.tokens import TokensFusion
from vla.policy.policy_config import policy_config
from vla.policy.random import RowRandom

SIZES = FusionSizes(tokens={"top": (3, 4), "imu": (1, 6)}, state_dim=5, task_dim=2, cond_dim=8)


def test_every_token_the_state_and_the_text_are_a_token_of_each_instant() -> None:
    torch.manual_seed(0)
    fusion = TokensFusion(SIZES)
    nn.init.zeros_(fusion.token_embedding)
    tokens = {"top": torch.randn(2, 2, 3, 4), "imu": torch.randn(2, 2, 1, 6)}
    state, task = torch.randn(2, 2, 5), torch.randn(2, 2, 2)
    found = fusion(tokens, state, task)
    assert fusion.num_tokens == 6 and found.shape == (2, 12, 8)
    assert fusion.state_in is not None and fusion.task_in is not None
    for instant in range(2):
        mine = found[:, 6 * instant : 6 * instant + 6]
        torch.testing.assert_close(mine[:, :3], fusion.stream_in[0](tokens["top"][:, instant]))
        torch.testing.assert_close(mine[:, 3], fusion.stream_in[1](tokens["imu"][:, instant, 0]))
        torch.testing.assert_close(mine[:, 4], fusion.state_in(state[:, instant]))
        torch.testing.assert_close(mine[:, 5], fusion.task_in(task[:, instant]))


def test_the_state_keeps_its_digits_under_autocast() -> None:
    fusion = TokensFusion(FusionSizes(tokens={"imu": (1, 6)}, state_dim=5, task_dim=0, cond_dim=8))
    tokens, state = {"imu": torch.zeros(1, 1, 1, 6)}, torch.randn(1, 1, 5)
    exact = fusion(tokens, state, None)[:, 1]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(fusion(tokens, state, None)[:, 1], exact)


@pytest.mark.parametrize("head", ["imf", "flow", "ddpm", "mlp", "gaussian", "autoregressive"])
def test_every_head_reads_tokens_and_an_agent_of_them_is_saved(head: str, tmp_path: Path) -> None:
    sizes: dict[str, Any] = {"per_view_dim": 4, "cond_dim": 8, "n_emb": 16, "n_layer": 1, "n_head": 2}
    torch.manual_seed(0)
    spec = fake_spec(lengths=(20, 9))
    agent = VLAAgent.for_cache(
        policy_config(**sizes, head=head, fusion="tokens"), write_cache(tmp_path / "cache", spec).metadata
    )
    observation = {c: torch.randn(3, 2, 1, 8).half() for c in agent.camera_names}
    batch = Batch(
        observation={**observation, "state": torch.randn(3, 2, 16)},
        action=torch.randn(3, 16, 16),
        action_is_pad=torch.zeros(3, 16, dtype=torch.bool),
    )
    loss, _ = agent.loss(batch, agent.draw(batch, RowRandom(torch.Generator().manual_seed(0))))
    loss.backward()
    assert [name for name, p in agent.named_parameters() if p.grad is None] == []
    agent.save_pretrained(tmp_path / "policy")
    loaded = VLAAgent.from_pretrained(tmp_path / "policy")
    chunks = [
        a.eval().predict_action_chunk(batch.observation, random=RowRandom(torch.Generator().manual_seed(1)))
        for a in (agent, loaded)
    ]
    assert torch.equal(*chunks) and chunks[0].shape == (3, 16, 16)
