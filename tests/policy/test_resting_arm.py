"""A robot of which one arm rests: what never moved stays where it was, whatever the head."""

from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import awake_agent, fake_frames, fake_spec, write_cache
from safetensors.torch import load_file, save_file
from test_train import POLICY, settings

from vla.cache import CacheWriter, FeatureCache
from vla.cache.movement import describe_resting, movement
from vla.policy.agents.policy import load_policy
from vla.policy.agents.vla_agent import VLAAgent, VLAAgentConfig
from vla.policy.batch import Batch
from vla.policy.heads.head import masked_mean_square
from vla.policy.nn.bounds import Bounds
from vla.policy.nn.normalize import Standardize
from vla.policy.random import RowRandom, SeededRows
from vla.policy.training.run import RunDirectory
from vla.policy.training.train import train
from vla.policy.windows import Windows

CPU = torch.device("cpu")
HEADS = ["imf", "flow", "ddpm", "mlp", "gaussian", "autoregressive"]
RESTS = slice(8, 15)
POSE = torch.tensor([0.3, -1.2, 0.0, 2.5, 0.1, 1e4, -0.7])  # of the arm that rests [rad]; one counts ticks
TREMBLES = 15  # [rad], with a spread of 10 microradians


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    spec = fake_spec(lengths=(12, 9, 10))
    writer = CacheWriter(tmp_path / "cache", spec)
    for shard in writer.missing_shards():
        arrays = fake_frames(spec, shard)
        tremor = torch.randn(len(arrays["state"]), generator=torch.Generator().manual_seed(shard))
        for name in ("state", "action"):
            arrays[name][:, RESTS] = POSE.numpy()
            arrays[name][:, TREMBLES] = 1 + 1e-5 * tremor.numpy()
        writer.write(shard, arrays)
    writer.finish()
    return FeatureCache(tmp_path / "cache")


def agent_with(head: str, cache: FeatureCache) -> VLAAgent:
    policy = VLAAgentConfig.model_validate({**POLICY.model_dump(), "head": head})
    return awake_agent(VLAAgent.for_cache(policy, cache.metadata)).eval()


def batch_of(cache: FeatureCache, agent: VLAAgent) -> Batch:
    windows = Windows(cache, agent.horizons, agent.observes, device=CPU, resident=True)
    return windows.batch(torch.arange(4, 10))


def chunk(agent: VLAAgent, observation: dict[str, torch.Tensor], steps: int = 0) -> torch.Tensor:
    return agent.predict_action_chunk(observation, steps, SeededRows(range(6), CPU))


@pytest.mark.parametrize("steps", [0, 3])
@pytest.mark.parametrize("head", HEADS)
def test_a_joint_that_never_moved_is_commanded_to_be_exactly_where_it_was(
    head: str, steps: int, cache: FeatureCache
) -> None:
    agent = agent_with(head, cache)
    found = chunk(agent, batch_of(cache, agent).observation, steps)
    assert torch.equal(found[..., RESTS], POSE.expand(6, 16, -1))
    assert found[..., :8].std() > 0.01
    assert (found[..., TREMBLES] - 1).abs().max() < 0.05  # of weights that are noise


@pytest.mark.parametrize("head", HEADS)
def test_it_is_so_after_training_and_when_loaded(head: str, cache: FeatureCache, tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run")
    policy = VLAAgentConfig.model_validate({**POLICY.model_dump(), "head": head})
    train(run, cache, policy, settings(steps=2))
    agent = VLAAgent.from_pretrained(run.policy_folder("last"))
    found = chunk(agent, batch_of(cache, agent).observation)
    assert torch.equal(found[..., RESTS], POSE.expand(6, 16, -1))


@pytest.mark.parametrize("head", [head for head in HEADS if head != "autoregressive"])  # one output for all
def test_what_never_moves_is_no_part_of_the_loss(head: str, cache: FeatureCache) -> None:
    agent = agent_with(head, cache)
    batch = batch_of(cache, agent)
    changed = batch.action.clone()
    losses = []
    for action in (batch.action, changed):
        draws = agent.draw(batch, RowRandom(torch.Generator().manual_seed(0)))
        losses.append(agent.loss(Batch(**{**vars(batch), "action": action}), draws)[0])
    assert torch.equal(*losses)
    losses[0].backward()
    last = [p for n, p in agent.head.named_parameters() if n.endswith("bias")][-1].grad
    assert last is not None
    assert not last.reshape(-1, 16)[..., RESTS].any() and last.any()


def test_a_loss_without_such_dimensions_is_what_it_was_to_the_bit() -> None:
    error, pad = torch.randn(64, 16, 14), torch.arange(16).expand(64, 16) > torch.arange(64)[:, None] % 16
    before = (error.square() * (~pad)[:, :, None].float()).sum(dim=(1, 2)) / ((~pad).sum(1) * 14).clamp(min=1)
    everything = ~pad[:, :, None] & torch.ones(14, dtype=torch.bool)
    assert torch.equal(masked_mean_square(error, everything), before)
    assert torch.equal(masked_mean_square(error, ~pad), before)


@pytest.mark.parametrize("head", HEADS)
def test_a_live_state_is_bounded_to_the_demonstrations(head: str, cache: FeatureCache) -> None:
    agent = agent_with(head, cache)
    observation = batch_of(cache, agent).observation
    usual = chunk(agent, observation)
    pushed = {**observation, "state": observation["state"].clone()}
    pushed["state"][..., RESTS] += 0.5
    assert torch.equal(chunk(agent, pushed), usual)  # it was always the same: it says nothing
    pushed["state"][..., TREMBLES] += 1e-3
    assert agent.state_standardize is not None and agent.state_bounds is not None
    told = agent.state_standardize(agent.state_bounds(pushed["state"]))
    assert told[..., TREMBLES].abs().max() < 1  # by its own standard deviation it would be 100
    pushed["state"][..., 0] = 1e3
    assert agent.state_bounds(pushed["state"])[..., 0].max() < 1.3


def test_training_sees_states_as_they_are(cache: FeatureCache) -> None:
    agent = agent_with("mlp", cache)
    batch = batch_of(cache, agent)
    far = {**batch.observation, "state": batch.observation["state"] + 100}
    loss, far_loss = (
        agent.loss(Batch(**{**vars(batch), "observation": o}), {})[0] for o in (batch.observation, far)
    )
    assert not torch.equal(loss, far_loss)


@pytest.mark.parametrize("unit", [1.0, 180 / torch.pi, 1e-3, 1e6])
def test_what_counts_as_moving_has_no_unit(unit: float) -> None:
    mean, std = [0.3, 0.0, 1.0, 5.0, -2.0], [0.0, 0.0, 1e-5, 0.4, 0.2]
    found = movement([unit * m for m in mean], [unit * s for s in std])
    assert found.constant == (True, True, False, False, False)
    assert found.slight == (False, False, True, False, False)
    assert found.scale == pytest.approx([unit * s for s in (0.4, 0.4, 4e-4, 0.4, 0.2)])


@pytest.mark.parametrize(
    ("mean", "std", "moves"),
    [
        ([1e6, 0.0], [0.05, 1.0], [False, True]),  # below the steps of float32 at a million
        ([0.0] * 4, [1e-9, 1e-9, 1e-9, 1e-9], [True] * 4),  # small, and all alike: metres of an atom
        ([0.0] * 3, [1e5, 0.3, 0.2], [True] * 3),  # a counter beside joints
    ],
)
def test_only_what_has_no_spread_at_all_is_constant(
    mean: list[float], std: list[float], moves: list[bool]
) -> None:
    assert [not still for still in movement(mean, std).constant] == moves


def test_a_robot_of_which_most_joints_tremble_keeps_the_scale_of_the_others() -> None:
    found = movement([0.0] * 14, [1e-5] * 10 + [0.3] * 4)
    assert found.slight == (True,) * 10 + (False,) * 4


def test_scales_of_dimensions_that_move_are_their_standard_deviations() -> None:
    std = torch.rand(30, generator=torch.Generator().manual_seed(0)).double() + 0.01
    standardize = Standardize(30)
    standardize.fit([5.0] * 30, std.tolist())
    assert torch.equal(standardize.std, std.float())


def test_the_moving_average_of_bounds_that_bound_nothing_is_a_number() -> None:
    bounds = Bounds(2)
    assert torch.lerp(bounds.highest, bounds.highest, 0.1).equal(bounds.highest)
    assert torch.equal(bounds(torch.tensor([1e30, -1e30])), torch.tensor([1e30, -1e30]))


def test_a_policy_saved_before_has_no_bounds_and_acts_as_it_did(tmp_path: Path) -> None:
    agent = awake_agent(VLAAgent.for_cache(POLICY, write_cache(tmp_path / "cache", fake_spec()).metadata))
    agent.save_pretrained(tmp_path / "old")
    path = tmp_path / "old/model.safetensors"
    later = ("action_moves", "state_bounds.lowest", "state_bounds.highest")
    tensors = load_file(path)
    save_file({name: tensor for name, tensor in tensors.items() if name not in later}, path)
    loaded = load_policy(tmp_path / "old")
    assert isinstance(loaded, VLAAgent) and loaded.state_bounds is not None
    assert loaded.action_moves.all()
    far = torch.full((1, 2, 16), 1e9)
    assert torch.equal(loaded.state_bounds(far), far)
    agent.load_saved(load_file(path))
    assert agent.state_bounds is not None and torch.equal(agent.state_bounds(far), far)


def test_what_rests_is_told_by_stream_and_number(cache: FeatureCache) -> None:
    lines = list(describe_resting(cache.metadata.statistics, ("state", "action", "lidar")))
    assert lines == [
        f"{name} (of 16 dimensions, from 0): 8 to 14 never moved, 15 hardly moved"
        for name in ("state", "action")
    ]
    assert list(describe_resting(write_statistics(), ("state",))) == []


def write_statistics() -> dict[str, Any]:
    from vla.cache import Statistics

    return {"state": Statistics(count=3, mean=(0.0, 1.0), std=(1.0, 2.0))}
