"""Several caches as one: what must agree, statistics of the union, and which windows are drawn."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import fake_identity, fake_spec, write_cache, written

from vla.base.errors import CacheError, ConfigError
from vla.base.horizons import Horizons
from vla.cache import ACTION, Augmentation, CacheSpec, DatasetIdentity, Episodes, FeatureCache
from vla.policy.mixed_windows import MixedWindows
from vla.policy.mixture import Mixture
from vla.policy.random import RowRandom
from vla.policy.training.permutation import mixed, permuted
from vla.policy.training.sampling import MixtureSampler
from vla.policy.windows import Numbering, Windows

CPU = torch.device("cpu")
HORIZONS = Horizons(obs_horizon=2, pred_horizon=4, num_action_steps=2)


@pytest.fixture
def pair(tmp_path: Path) -> list[FeatureCache]:
    return [
        written(tmp_path / "a", 0, "a", lengths=(12, 9)),
        written(tmp_path / "b", 1, "b", lengths=(7, 6, 5)),
    ]


def values(caches: Sequence[FeatureCache], stream: str) -> np.ndarray:
    return np.concatenate([cache.all(stream).flatten(0, -2).double().numpy() for cache in caches])


def test_statistics_are_those_of_the_union(pair: list[FeatureCache]) -> None:
    for name, found in Mixture(pair).metadata.statistics.items():
        every = values(pair, name)
        assert found.count == len(every)
        np.testing.assert_allclose(found.mean, every.mean(0), rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(found.std, every.std(0), rtol=1e-12)
        np.testing.assert_array_equal(np.array([found.min, found.max]), [every.min(0), every.max(0)])
        if name in ("state", "action"):
            quantiles = np.array([found.q01, found.q99])
            np.testing.assert_allclose(quantiles, np.quantile(every, [0.01, 0.99], axis=0), rtol=1e-12)
        else:
            assert (found.q01, found.q99) == (None, None)


def test_statistics_of_vectors_are_those_of_the_episodes_that_are_trained_on(
    pair: list[FeatureCache],
) -> None:
    whole = Mixture(pair)
    some = whole.of_episodes([[0], [1, 2]])
    seen = torch.cat([pair[0].all(ACTION)[:12], pair[1].all(ACTION)[7:]]).double().numpy()
    found = some.metadata.statistics[ACTION]
    np.testing.assert_allclose(found.mean, seen.mean(0), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(np.array(found.q99), np.quantile(seen, 0.99, axis=0), rtol=1e-12)
    assert some.metadata.statistics["top"] == whole.metadata.statistics["top"]
    assert some.metadata.fingerprint == whole.metadata.fingerprint


def test_actions_standardised_by_each_cache_have_unit_scale_in_all(pair: list[FeatureCache]) -> None:
    mixture = Mixture(pair, normalise="each")
    found = mixture.metadata.statistics[ACTION]
    np.testing.assert_allclose(found.mean, 0, atol=1e-6)
    np.testing.assert_allclose(found.std, 1, rtol=1e-5)
    cut = MixedWindows(mixture, HORIZONS, mixture.metadata.observed, device=CPU, resident=True)
    batch = cut.batch(torch.tensor([22, 5]))  # frame 1 of the second cache, 5 of the first
    assert torch.allclose(mixture.members[1].action.invert(batch.action[0, 0]), pair[1].all(ACTION)[0])
    assert torch.allclose(mixture.members[0].action.invert(batch.action[1, 0]), pair[0].all(ACTION)[4])
    assert torch.equal(batch.observation["state"][0, 1], pair[1].all("state")[1])  # the robot's units


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"action_dim": 3}, r"caches a and b do not agree: action \(.*\[2\]\) and action \(.*\[3\]\)"),
        ({"dim": 5}, r"caches a and b do not agree: r_vis \(tokens, .*\[1, 4\]\) and r_vis .*\[1, 5\]"),
        (
            {"encoder": fake_identity(dtype="bfloat16")},
            r"'r_vis' is of fake-encoder .*float32.* and of .*bfloat16",
        ),
        (
            {"cameras": ("top", "front", "hand_cam")},
            r"cache a has a stream 'r_vis' that b has not, .*: top, front, hand_cam, state, action; map it",
        ),
        ({"cameras": ("r_vis", "top", "front", "more")}, r"cache b has a stream 'more' that a has not"),
    ],
)
def test_caches_that_do_not_agree_are_both_named(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    caches = [written(tmp_path / "a", 0, "a"), written(tmp_path / "b", 1, "b", **changes)]
    with pytest.raises(CacheError, match=words) as said:
        Mixture(caches)
    assert "\n" not in str(said.value)


def test_another_control_rate_is_refused(tmp_path: Path) -> None:
    spec = fake_spec()
    slow = DatasetIdentity.model_validate(
        {**spec.dataset.model_dump(), "fps": 50, "content_sha256": "c" * 64}
    )
    caches = [write_cache(tmp_path / "a", spec), write_cache(tmp_path / "b", replace(spec, dataset=slow))]
    with pytest.raises(CacheError, match="caches a and b do not agree: 25 and 50 frames a second"):
        Mixture(caches)


def test_a_stream_is_mapped_by_name_or_left_out(tmp_path: Path) -> None:
    cameras = ("hand_cam", "top", "front")
    caches = [written(tmp_path / "a", 0, "a"), written(tmp_path / "b", 1, "b", cameras=cameras)]
    mixture = Mixture(caches, rename={"b": {"r_vis": "hand_cam"}})
    assert [stream.name for stream in mixture.metadata.observed] == ["r_vis", "top", "front", "state"]
    cut = MixedWindows(mixture, HORIZONS, mixture.metadata.observed, device=CPU, resident=False)
    seen = cut.batch(torch.tensor([caches[0].num_frames + 3])).observation["r_vis"]
    assert torch.equal(seen[0], caches[1].all("hand_cam")[2:4, 0])
    assert [stream.name for stream in Mixture(caches, streams=("top", "state")).metadata.observed] == [
        "top",
        "state",
    ]
    with pytest.raises(ConfigError, match=r"maps 'r_vis' to 'hand' of cache b, .*did you mean 'hand_cam'"):
        Mixture(caches, rename={"b": {"r_vis": "hand"}})
    with pytest.raises(ConfigError, match="names 'c', which is none of the caches"):
        Mixture(caches, rename={"c": {"r_vis": "hand_cam"}})


def test_weights_that_make_no_sense_and_a_cache_named_twice_are_refused(pair: list[FeatureCache]) -> None:
    assert [member.share for member in Mixture(pair, (0.5, 1.5)).members] == [1, 3]
    with pytest.raises(ConfigError, match=r"train\.weights has 3 values for 2 caches \(a, b\)"):
        Mixture(pair, (1, 2, 3))
    with pytest.raises(ConfigError, match="no small common measure"):
        Mixture(pair, (1, 0.123457))
    with pytest.raises(ConfigError, match="hold the same cache"):
        Mixture([pair[0], pair[0]])


@pytest.mark.parametrize("resident", [True, False])
def test_a_batch_holds_the_rows_of_each_cache_in_the_order_asked_for(tmp_path: Path, resident: bool) -> None:
    more = Augmentation(variants=2)
    caches = [
        written(tmp_path / "a", 0, "a", lengths=(12, 9)),
        written(tmp_path / "b", 1, "b", lengths=(8, 5), augmentation=more),
    ]
    mixture = Mixture(caches)
    observes = mixture.metadata.observed
    cut = MixedWindows(mixture, HORIZONS, observes, device=CPU, resident=resident)
    current = torch.tensor([25, 0, 33, 20, 21])
    batch = cut.batch(current)
    for row, frame in enumerate(current.tolist()):
        which, own = (0, frame) if frame < 21 else (1, frame - 21)
        one = Windows(caches[which], HORIZONS, observes, device=CPU, resident=resident)
        alone = one.batch(torch.tensor([own]))
        assert torch.equal(batch.action[row], alone.action[0])
        assert torch.equal(batch.action_is_pad[row], alone.action_is_pad[0])
        for name, found in batch.observation.items():
            assert torch.equal(found[row], alone.observation[name][0])
    everything = caches[1].all("top")
    whole = cut.batch(current[:4], RowRandom(torch.Generator().manual_seed(0))).observation["top"]
    assert torch.equal(whole[1], caches[0].all("top")[[0, 0], 0])  # that cache has no variants
    assert any(torch.equal(whole[0, 1], everything[4, variant]) for variant in range(3))
    for rank in range(2):  # each process sees what one would
        random = RowRandom(torch.Generator().manual_seed(0), rank, 2)
        assert torch.equal(cut.batch(current[:4][rank::2], random).observation["top"], whole[rank::2])


@pytest.mark.parametrize("size", [1, 2, 3, 10, 64, 65, 1000])
def test_a_computed_order_is_an_order(size: int) -> None:
    places, sizes = np.arange(size), np.full(size, size)
    orders = [permuted(places, sizes, np.repeat(mixed(7, epoch), size)) for epoch in range(4)]
    assert all(sorted(order.tolist()) == places.tolist() for order in orders)
    if size > 9:
        assert len({tuple(order.tolist()) for order in orders}) == 4


def test_every_thing_comes_to_every_place_about_equally_often() -> None:
    size, orders = 10, 4000
    keys = np.repeat(mixed(0, np.arange(orders)), size)
    found = permuted(np.tile(np.arange(size), orders), np.full(size * orders, size), keys).reshape(
        orders, size
    )
    counts = np.stack([np.bincount(column, minlength=size) for column in found.T])
    chi2 = ((counts - orders / size) ** 2 / (orders / size)).sum()
    assert chi2 < 140  # 81 degrees of freedom: more happens once in 20,000 times


def sampler(
    lengths: Sequence[Sequence[int]], shares: Sequence[int], size: int, seed: int = 0
) -> MixtureSampler:
    numberings, offset = [], 0
    for counts in lengths:
        spec: CacheSpec = fake_spec(lengths=counts)
        numberings.append(Numbering(Episodes.of(spec.episodes), range(len(spec.episodes)), offset))
        offset += spec.num_frames
    return MixtureSampler(numberings, shares, size, seed)


def test_windows_are_drawn_by_weight_and_each_once_an_epoch() -> None:
    drawing = sampler([(6, 4), (5,)], (2, 1), size=7)
    frames = torch.cat([drawing.draw(step) for step in range(30)])  # 210 rows: 140 and 70
    assert [int((frames < 10).sum()), int((frames >= 10).sum())] == [140, 70]
    first, second = frames[frames < 10], frames[frames >= 10]
    assert all(sorted(epoch.tolist()) == list(range(10)) for epoch in first.split(10))
    assert all(sorted(epoch.tolist()) == list(range(10, 15)) for epoch in second.split(5))
    assert len({tuple(epoch.tolist()) for epoch in first.split(10)}) > 10
    for step in range(30):  # evenly spread, not in one run after the other
        assert abs(int((drawing.draw(step) >= 10).sum()) - 7 / 3) < 1


def test_a_step_draws_the_same_windows_whatever_was_drawn_before() -> None:
    drawing = sampler([(30,), (20,)], (1, 1), size=8)
    drawn = [drawing.draw(step) for step in range(5)]
    fresh = sampler([(30,), (20,)], (1, 1), size=8)
    assert torch.equal(fresh.draw(4), drawn[4])
    assert not torch.equal(sampler([(30,), (20,)], (1, 1), size=8, seed=1).draw(4), drawn[4])


def test_three_weights_are_kept_at_every_cycle() -> None:
    drawing = sampler([(9,), (9,), (9,)], (3, 2, 5), size=10)
    for step in range(3):
        counts = Counter((drawing.draw(step) // 9).tolist())
        assert counts == {0: 3, 1: 2, 2: 5}
