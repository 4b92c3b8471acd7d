"""Training on several caches: figures of each, exact resuming, equal rows for any number of processes."""

import shutil
from pathlib import Path

import pytest
import torch
from fakes import written
from test_train import POLICY, losses, settings

from vla.base.errors import ConfigError
from vla.cache import FeatureCache
from vla.policy.agents.answering import answer_for
from vla.policy.agents.policy import Policy, load_policy
from vla.policy.mixture import Mixture
from vla.policy.random import GivenNoise
from vla.policy.saved_policy import read_config
from vla.policy.training import supply
from vla.policy.training.run import RunDirectory
from vla.policy.training.run_log import read_metrics
from vla.policy.training.sampling import EpochSampler, MixtureSampler
from vla.policy.training.supply import Supply
from vla.policy.training.train import train

CPU = torch.device("cpu")


@pytest.fixture
def pair(tmp_path: Path) -> list[FeatureCache]:
    return [
        written(tmp_path / "a", 0, "a", lengths=(12, 9)),
        written(tmp_path / "b", 1, "b", lengths=(7, 6, 5)),
    ]


def trained(path: Path, mixture: Mixture, **changes: object) -> RunDirectory:
    run = RunDirectory.create(path)
    train(run, mixture, POLICY, settings(**{"tracker": "none", **changes}))
    return run


def test_a_mixture_is_trained_on_and_a_resumed_run_has_its_losses(
    pair: list[FeatureCache], tmp_path: Path
) -> None:
    mixture = Mixture(pair, (2, 1))
    run = trained(tmp_path / "run", mixture, steps=4, save_every=2, val_every=4)
    whole = losses(run)
    (val,) = read_metrics(run, "val")
    assert {"a_loss", "a_action_rmse", "b_loss", "b_action_rmse"} <= val.keys()
    assert val["loss"] == pytest.approx((2 * val["a_loss"] + val["b_loss"]) / 3)
    saved = read_config(run.policy_folder("last"))
    assert [(made.cache, made.fingerprint, made.weight) for made in saved.data] == [
        ("a", pair[0].metadata.fingerprint, 2),
        ("b", pair[1].metadata.fingerprint, 1),
    ]
    shutil.rmtree(run.checkpoint(4))
    train(run, mixture, POLICY, settings(tracker="none", steps=4, save_every=2, val_every=4))
    assert losses(run) == whole
    assert losses(trained(tmp_path / "disk", mixture, steps=2, max_cache_gib=1e-9)) == whole[:2]


def test_a_step_draws_the_same_rows_in_every_process_and_none_that_is_held_out(
    pair: list[FeatureCache],
) -> None:
    mixture = Mixture(pair, (2, 1))
    policy = Policy.for_cache(POLICY, mixture.metadata)
    rows = [Supply(mixture, policy, settings(), CPU, resident=True).sampler.draw(3) for _ in range(2)]
    held_out = torch.cat([torch.arange(12, 21), 21 + torch.arange(7, 13)])
    assert torch.equal(rows[0], rows[1])
    assert not set(rows[0].tolist()) & set(held_out.tolist())


def test_one_cache_keeps_its_order_unless_it_is_too_large_for_a_list(
    pair: list[FeatureCache], monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = Policy.for_cache(POLICY, pair[1].metadata)
    listed = Supply(pair[1], policy, settings(batch_size=12), CPU, resident=True)
    assert isinstance(listed.sampler, EpochSampler)
    monkeypatch.setattr(supply, "MAX_LISTED", 12)
    computed = Supply(pair[1], policy, settings(batch_size=12), CPU, resident=True)
    assert isinstance(computed.sampler, MixtureSampler)
    drawn = [one.sampler.draw(0).sort().values for one in (listed, computed)]
    assert torch.equal(drawn[0], drawn[1])  # all windows but those of the held-out episode


def test_too_few_episodes_of_one_cache_are_named(pair: list[FeatureCache], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"val_episodes = 2 leaves none of 2 episodes of cache a"):
        trained(tmp_path / "run", Mixture(pair), val_episodes=2)


def test_actions_are_answered_by_the_standard_of_the_cache_that_is_chosen(
    pair: list[FeatureCache], tmp_path: Path
) -> None:
    run = trained(tmp_path / "run", Mixture(pair, normalise="each"), steps=2)
    folder = run.policy_folder("last")
    observation = {stream.name: torch.zeros(1, 2, *stream.shape) for stream in load_policy(folder).observes}
    standard = load_policy(folder).act(observation, random=GivenNoise(torch.zeros(1, 16, 2)))[0]
    for cache in pair:
        policy = load_policy(folder)
        answer_for(policy, cache.folder.name)
        found = policy.act(observation, random=GivenNoise(torch.zeros(1, 16, 2)))[0]
        statistics = next(made.action for made in policy.config.data if made.cache == cache.folder.name)
        assert statistics is not None  # of the episodes that were trained on
        torch.testing.assert_close(
            found, standard * torch.tensor(statistics.std) + torch.tensor(statistics.mean)
        )
    with pytest.raises(ConfigError, match=r"rollout\.cache is not chosen; caches: a, b"):
        answer_for(load_policy(folder), "")
    with pytest.raises(ConfigError, match=r"rollout\.cache is 'c'; caches: a, b"):
        answer_for(load_policy(folder), "c")
    alone = Policy.for_cache(POLICY, pair[0].metadata)
    answer_for(alone, "")
    with pytest.raises(ConfigError, match="all actions have one standard; leave it out"):
        answer_for(alone, "a")
