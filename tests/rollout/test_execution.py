"""Ways of executing chunks: known answers, and the same in evaluation and server."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_env import ENV_ID
from fakes import awake_agent, fake_spec, write_cache
from jaxtyping import Float
from test_serve import LIMITS, serving
from torch import Tensor

from vla.base.errors import ConfigError
from vla.cache import FeatureCache
from vla.cache.stream import Observation
from vla.client import PolicyClient
from vla.policy.agents.chunk_policy import ChunkPolicy, Joint
from vla.policy.agents.vla_agent import VLAAgent, VLAAgentConfig
from vla.policy.heads.joining import Target, sample_joined
from vla.policy.random import Random, SeededRows
from vla.rollout.evaluate.evaluate import evaluate
from vla.rollout.execution.execution import EXECUTIONS
from vla.rollout.execution.real_time import soft_mask
from vla.rollout.live import LivePolicy
from vla.rollout.rollout_config import EnvConfig, RolloutConfig

CPU = torch.device("cpu")
SMALL: dict[str, Any] = {"per_view_dim": 4, "cond_dim": 8, "n_emb": 16, "n_layer": 1, "n_head": 2}
OTHERS: list[Any] = [
    {"type": "ensemble", "temporal_ensemble_coeff": 0.3},
    {"type": "real_time", "delay": 2},
    {"type": "self_verify", "candidates": 3},
]


class Scripted(VLAAgent):
    """A policy whose chunks are given, one call after the other."""

    def script(self, chunks: list[Tensor]) -> "Scripted":
        self.chunks, self.joints = list(chunks), list[Joint | None]()
        return self

    def samples(
        self,
        observation: Observation,
        random: Random | None,
        num_steps: int,
        *,
        count: int = 1,
        joint: Joint | None = None,
    ) -> Float[Tensor, "N B T A"]:
        self.joints.append(joint)
        return torch.stack([self.chunks.pop(0) for _ in range(count)])


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> FeatureCache:
    spec = fake_spec(cameras=(), state_dim=2, action_dim=2)
    return write_cache(tmp_path_factory.mktemp("cache"), spec)


def scripted(cache: FeatureCache, chunks: list[Tensor], **changes: Any) -> Scripted:
    sizes = {**SMALL, "pred_horizon": 6, "num_action_steps": 2, **changes}
    config = VLAAgentConfig.model_validate(sizes)
    agent = VLAAgent.for_cache(config, cache.metadata)
    found = Scripted(agent.config, config)
    found.load_state_dict(agent.state_dict())
    return found.script(chunks)


def run(policy: ChunkPolicy, execution: Any, decisions: int) -> list[Tensor]:
    """Decide several times, and return what was executed."""
    way, memory, done = EXECUTIONS.parse(execution).build(policy), None, []
    for _ in range(decisions):
        actions, memory = way.decide({}, memory, None, 0)
        assert actions.shape[1] == way.num_action_steps
        done.append(actions)
    return done


@pytest.mark.parametrize("coeff", [0.01, 0.0, -0.2])
def test_an_ensemble_is_the_mean_that_a_slow_loop_finds(cache: FeatureCache, coeff: float) -> None:
    random = torch.Generator().manual_seed(0)
    chunks = [torch.randn(3, 6, 2, generator=random) for _ in range(8)]
    found = run(scripted(cache, chunks), {"type": "ensemble", "temporal_ensemble_coeff": coeff}, len(chunks))
    for step, actions in enumerate(found):
        said = [chunks[k][:, 1 + step - k] for k in range(step + 1) if 1 + step - k < 6]  # the oldest first
        weights = [math.exp(-coeff * i) for i in range(len(said))]
        due = sum(w * a for w, a in zip(weights, said, strict=True)) / sum(weights)
        torch.testing.assert_close(actions[:, 0], due)


def test_an_ensemble_of_one_step_chunks_is_the_chunks(cache: FeatureCache) -> None:
    chunks = [torch.randn(1, 2, 2) for _ in range(3)]
    policy = scripted(cache, chunks, pred_horizon=2, num_action_steps=1)
    for actions, chunk in zip(run(policy, "ensemble", 3), list(chunks), strict=True):
        torch.testing.assert_close(actions, chunk[:, 1:])


def test_real_time_keeps_what_is_under_way_and_says_what_is_left(cache: FeatureCache) -> None:
    random = torch.Generator().manual_seed(0)
    first, second, third = (torch.randn(2, 6, 2, generator=random) for _ in range(3))
    policy = scripted(cache, [first, second, third])
    done = run(policy, {"type": "real_time", "delay": 1}, 3)
    assert torch.equal(done[0], first[:, 1:3])
    assert torch.equal(done[1], torch.stack([first[:, 3], second[:, 2]], dim=1))
    assert torch.equal(done[2], torch.stack([second[:, 3], third[:, 2]], dim=1))
    assert policy.joints[0] is None
    joint = policy.joints[1]
    assert joint is not None
    # The instant before now, now, and two after it that the old chunk reaches; it says nothing of the rest.
    assert torch.equal(joint.actions[:, 1:4], first[:, 3:6])
    torch.testing.assert_close(joint.weight, torch.tensor([0.0, *soft_mask(3, 1), 0, 0]))


def test_the_soft_mask_is_the_papers() -> None:
    horizon, executed, delay = 10, 3, 2
    c = [(horizon - executed - i) / (horizon - executed - delay + 1) for i in range(horizon)]
    due = [
        1.0 if i < delay else c[i] * (math.e ** c[i] - 1) / (math.e - 1) for i in range(horizon - executed)
    ]
    assert soft_mask(horizon - executed, delay) == pytest.approx(due)


def test_self_verification_takes_the_candidate_whose_past_was_executed(cache: FeatureCache) -> None:
    chunks = [torch.full((2, 6, 2), value) for value in (0.0, 5.0, 1.0, -3.0)]
    chunks[2][1, 0] = 9.0  # the second robot's; it finds the third candidate nearer
    chunks[3][1, 0] = 0.1
    policy = scripted(cache, chunks)
    done = run(policy, {"type": "self_verify", "candidates": 3}, 2)
    assert torch.equal(done[0], torch.zeros(2, 2, 2))
    assert torch.equal(done[1][0], torch.full((2, 2), 1.0))
    assert torch.equal(done[1][1], torch.full((2, 2), -3.0))


@pytest.mark.parametrize(
    ("changes", "execution", "says"),
    [
        ({"obs_horizon": 1}, "self_verify", "obs_horizon = 1 predicts none; train with 2"),
        ({"head": "mlp"}, "real_time", "guides velocities; of the heads here imf and flow"),
        ({}, {"type": "real_time", "delay": 3}, "delay = 3 is more than the 3 .* the 2 .*; take at most 2"),
        ({"num_action_steps": 5}, "real_time", "more than the 0 actions that are left"),
    ],
)
def test_what_a_policy_does_not_predict_is_refused(
    cache: FeatureCache, changes: dict[str, Any], execution: Any, says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        EXECUTIONS.parse(execution).build(scripted(cache, [], **changes))


def smooth_velocity(covariance: Tensor) -> Any:
    """Return the velocity of flow matching for a Gaussian, in closed form."""
    values, vectors = torch.linalg.eigh(covariance)

    def velocity(x_t: Tensor, t: Tensor, h: Tensor) -> Tensor:
        time = t[:, None]
        shrink = (1 - time) * values / ((1 - time) ** 2 * values + time**2)
        x = ((x_t[..., 0] @ vectors) * shrink) @ vectors.T
        return (x_t - x[..., None]) / t[:, None, None]

    return velocity


def test_guidance_joins_what_would_not_join_by_itself() -> None:
    time = torch.arange(12, dtype=torch.float64)
    covariance = torch.exp(-(((time[:, None] - time) / 4) ** 2) / 2) + 1e-3 * torch.eye(12)
    random = torch.Generator().manual_seed(0)
    drawn = torch.randn(64, 12, generator=random, dtype=torch.float64)
    old = drawn @ torch.linalg.cholesky(covariance).T
    chunk = torch.cat([old[:, 6:], old[:, -1:].expand(-1, 6)], dim=1)[..., None]
    weight = torch.tensor([*soft_mask(6, 2), *[0.0] * 6], dtype=torch.float64)
    noise = torch.randn(64, 12, 1, generator=random, dtype=torch.float64)
    jumps = []
    for beta in (0.0, 5.0):
        new = sample_joined(smooth_velocity(covariance), noise, 10, Target(chunk, weight, beta))
        jumps.append(float((new[:, 2] - chunk[:, 1]).square().mean().sqrt()))
    steps = float(old.diff(dim=1).square().mean().sqrt())
    assert jumps[0] > 4 * steps  # unguided
    assert jumps[1] < 2 * steps


def test_no_guidance_is_the_usual_sample(cache: FeatureCache) -> None:
    for head in ("flow", "imf"):
        config = VLAAgentConfig.model_validate({**SMALL, "head": head})
        agent = awake_agent(VLAAgent.for_cache(config, cache.metadata))
        seen = {"state": torch.randn(2, 2, 2)}
        joint = Joint(torch.randn(2, 16, 2), torch.ones(16), 0.0)
        plain, joined = (agent.samples(seen, SeededRows([1, 2], CPU), 3, joint=one) for one in (None, joint))
        torch.testing.assert_close(joined, plain)


def live(cache: FeatureCache, execution: Any, **changes: Any) -> LivePolicy:
    agent = awake_agent(VLAAgent.for_cache(VLAAgentConfig(**SMALL, **changes), cache.metadata))
    return LivePolicy(agent, None, execution=EXECUTIONS.parse(execution))


@pytest.mark.parametrize("execution", OTHERS, ids=lambda one: one["type"])
def test_a_robot_is_told_the_same_whoever_else_is_in_the_batch(cache: FeatureCache, execution: Any) -> None:
    policy = live(cache, execution)
    states = torch.randn(3, 2, 2, 2, generator=torch.Generator().manual_seed(0)).numpy()
    both, alone = None, None
    for decision, state in enumerate(states):
        among, _, both = policy.act({"state": state}, [decision, 100 + decision], memory=both)
        single, _, alone = policy.act({"state": state[1:]}, [100 + decision], memory=alone)
        np.testing.assert_allclose(single[0], among[1], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("execution", OTHERS, ids=lambda one: one["type"])
def test_rollouts_do_not_depend_on_how_many_run_beside(
    cache: FeatureCache, tmp_path: Path, execution: Any
) -> None:
    sizes = {"cameras": ("top",), "size": 8, "state_dim": 2, "action_dim": 2, "ends_after": 9}
    infos = []
    for num_envs in (1, 2):
        config = RolloutConfig(episodes=2, num_envs=num_envs, videos=0)
        out = tmp_path / str(num_envs)
        infos.append(evaluate(live(cache, execution), EnvConfig(id=ENV_ID, kwargs=sizes), config, out))
    for one, other in zip(*(info["per_episode"] for info in infos), strict=True):
        assert one == pytest.approx(other, rel=1e-3)


@pytest.mark.parametrize("execution", OTHERS, ids=lambda one: one["type"])
def test_a_client_gets_what_the_policy_itself_decides_and_clients_do_not_mix(
    cache: FeatureCache, execution: Any
) -> None:
    policy = live(cache, execution)
    states = [np.full(2, 0.1 * step, np.float32) for step in range(4)]
    memory, due = None, list[np.ndarray]()
    for before, state in zip([states[0], *states], states, strict=False):
        history = {"state": np.stack([before, state])[None]}
        actions, _, memory = policy.act(history, [len(due)], memory=memory)
        due.append(actions[0])
    with serving(policy, LIMITS) as url, PolicyClient(url) as client, PolicyClient(url) as other:
        assert client.info.num_action_steps == policy.horizons.num_action_steps
        for step, state in enumerate(states):
            other.act({"agent_pos": state + 3}, seed=9)
            chunk = client.act({"agent_pos": state}, seed=step)
            np.testing.assert_allclose(chunk.actions, due[step], atol=1e-4)
