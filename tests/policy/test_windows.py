"""Windows: the horizon diagram, episode borders, residency, sampling."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fakes import fake_identity, fake_spec, write_cache

from vla.base.errors import CacheError, ConfigError
from vla.base.horizons import Horizons
from vla.cache import Augmentation, FeatureCache, Stream
from vla.cache.stream import TASK
from vla.policy.random import RowRandom
from vla.policy.training.sampling import EpochSampler
from vla.policy.windows import Windows, fits_in_memory, split_episodes

CPU = torch.device("cpu")


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    return write_cache(tmp_path, fake_spec(lengths=(20, 9)))


def windows(cache: FeatureCache, resident: bool = True, texts: bool = False) -> Windows:
    horizons = Horizons(obs_horizon=2, pred_horizon=16, num_action_steps=8)
    return Windows(cache, horizons, cache.metadata.observed, device=CPU, resident=resident, texts=texts)


def test_actions_start_at_the_first_observation(cache: FeatureCache) -> None:
    batch = windows(cache).batch(torch.tensor([3]))
    assert torch.equal(batch.observation["state"][0], cache.all("state")[2:4])
    assert torch.equal(batch.action[0], cache.all("action")[2:18])
    assert torch.equal(batch.observation["top"][0], cache.all("top")[2:4, 0])
    assert not batch.action_is_pad.any()


def test_the_first_frame_repeats_itself_as_history(cache: FeatureCache) -> None:
    batch = windows(cache).batch(torch.tensor([20]))  # the second episode starts there
    assert torch.equal(batch.observation["state"][0], cache.all("state")[[20, 20]])
    assert batch.action_is_pad[0].tolist() == [True] + [False] * 9 + [True] * 6
    assert torch.equal(batch.action[0, 1:10], cache.all("action")[20:29])


def test_actions_beyond_the_end_repeat_the_last_one_and_are_marked(cache: FeatureCache) -> None:
    batch = windows(cache).batch(torch.tensor([19]))
    assert torch.equal(batch.action[0, :2], cache.all("action")[18:20])
    assert torch.equal(batch.action[0, 2:], cache.all("action")[19].expand(14, 16))
    assert batch.action_is_pad[0].tolist() == [False] * 2 + [True] * 14


def test_memory_mapped_windows_are_the_resident_ones(cache: FeatureCache) -> None:
    frames = torch.randperm(29, generator=torch.Generator().manual_seed(0))
    here, there = windows(cache).batch(frames), windows(cache, resident=False).batch(frames)
    for name in ("r_vis", "top", "front", "state"):
        assert torch.equal(here.observation[name], there.observation[name])


def test_windows_never_cross_into_another_episode(cache: FeatureCache) -> None:
    chosen = windows(cache).frames_of([1])
    assert chosen.tolist() == list(range(20, 29))
    batch = windows(cache).batch(chosen)
    second = {tuple(row) for row in cache.all("action")[20:].tolist()}
    assert all(tuple(row) in second for row in batch.action.flatten(0, 1).tolist())


def test_a_cache_larger_than_allowed_stays_on_disk(cache: FeatureCache) -> None:
    assert fits_in_memory(cache, cache.streams, CPU, max_gib=0.0)
    assert fits_in_memory(cache, cache.streams, CPU, max_gib=1.0)
    assert not fits_in_memory(cache, cache.streams, CPU, max_gib=1e-6)
    assert fits_in_memory(cache, ["action"], CPU, max_gib=3e-6)  # what a policy does not see is not counted
    assert not fits_in_memory(cache, cache.streams, CPU, max_gib=3e-6)


def test_a_cache_of_up_to_half_of_what_is_available_is_held_and_any_where_that_is_unknown(
    cache: FeatureCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    for available, held in ((2 * cache.nbytes, True), (2 * cache.nbytes - 1, False), (None, True)):
        monkeypatch.setattr("vla.policy.windows.available_memory", lambda left=available: left)
        assert fits_in_memory(cache, cache.streams, CPU, max_gib=0.0) == held


def test_held_out_episodes_are_spread_and_disjoint() -> None:
    training, validation = split_episodes(10, 2)
    assert validation == [2, 7]
    assert sorted([*training, *validation]) == list(range(10))
    assert split_episodes(3, 0) == ([0, 1, 2], [])


def test_holding_out_everything_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"train\.val_episodes = 2 leaves none of 2 episodes"):
        split_episodes(2, 2)


def test_an_epoch_visits_every_window_once_whatever_was_drawn_before() -> None:
    frames = torch.arange(100, 130)
    sampler = EpochSampler(frames, batch_size=10, seed=1)
    drawn = torch.cat([sampler.draw(step) for step in range(3)])
    assert sorted(drawn.tolist()) == frames.tolist()
    assert torch.equal(EpochSampler(frames, 10, seed=1).draw(2), drawn[20:])
    assert not torch.equal(sampler.draw(3), sampler.draw(0))


def test_fewer_windows_than_a_batch_are_repeated() -> None:
    assert len(EpochSampler(torch.arange(3), batch_size=8, seed=0).draw(5)) == 8


SENSORS = (
    Stream(name="lidar", kind="points", dtype="float32", shape=(5, 4), key="observation.lidar"),
    Stream(name="imu", kind="series", dtype="float32", shape=(7, 6), key="observation.imu"),
)


@pytest.mark.parametrize("resident", [True, False])
def test_sensors_are_cut_like_features_and_have_no_variants(tmp_path: Path, resident: bool) -> None:
    spec = fake_spec(lengths=(20, 9), sensors=SENSORS, augmentation=Augmentation(variants=2))
    cache = write_cache(tmp_path / "sensors", spec)
    observation = windows(cache, resident).batch(torch.tensor([3, 20])).observation
    assert torch.equal(observation["lidar"], cache.all("lidar")[torch.tensor([[2, 3], [20, 20]])])
    assert torch.equal(observation["imu"], cache.all("imu")[torch.tensor([[2, 3], [20, 20]])])


@pytest.mark.parametrize("resident", [True, False])
def test_images_stay_bytes(tmp_path: Path, resident: bool) -> None:
    encoder = fake_identity(type="pixels", id="pixels", weights_sha256=None, dtype="uint8", settings={})
    image = Stream(name="top", kind="image", dtype="uint8", shape=(8, 8, 3), made_by=encoder.digest)
    plain = fake_spec(lengths=(20, 9), cameras=())
    spec = replace(plain, streams=(image, *plain.streams), encoders={encoder.digest: encoder})
    cache = write_cache(tmp_path / "pixels", spec)
    found = windows(cache, resident).batch(torch.tensor([3])).observation["top"]
    assert found.dtype == torch.uint8
    assert torch.equal(found[0], cache.all("top")[2:4, 0])


def test_only_what_a_policy_observes_is_cut(cache: FeatureCache) -> None:
    horizons = Horizons(obs_horizon=2, pred_horizon=16, num_action_steps=8)
    chosen = [cache.metadata.stream("front")]
    cut = Windows(cache, horizons, chosen, device=CPU, resident=True)
    assert cut.batch(torch.tensor([3])).observation.keys() == {"front"}


def test_each_observed_frame_has_the_task_of_its_own_instant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = fake_spec(lengths=(20, 9))
    first, second = spec.episodes
    episodes = (
        first.model_copy(update={"task": "reach", "changes": ((5, "lift"),)}),
        second.model_copy(update={"task": "lift"}),
    )
    cache = write_cache(tmp_path / "tasks", replace(spec, episodes=episodes))
    assert cache.metadata.tasks == ("reach", "lift")
    monkeypatch.setattr(FeatureCache, "text_features", lambda self: torch.tensor([[0.0], [1.0]]))
    found = windows(cache, texts=True).batch(torch.tensor([0, 4, 5, 6, 20])).observation[TASK]
    assert found[..., 0].tolist() == [[0, 0], [0, 0], [0, 1], [1, 1], [1, 1]]


def test_task_texts_that_a_cache_does_not_have_are_refused(cache: FeatureCache) -> None:
    with pytest.raises(CacheError, match="no features of its task texts"):
        windows(cache, texts=True)


def test_variants_are_drawn_a_window_and_only_for_training(tmp_path: Path) -> None:
    cache = write_cache(tmp_path / "many", fake_spec(lengths=(20, 9), augmentation=Augmentation(variants=3)))
    frames, everything = torch.arange(29), cache.all("top")
    for resident in (True, False):
        cut = windows(cache, resident)
        plain = cut.batch(frames).observation["top"]
        assert torch.equal(plain[:, 1], everything[:, 0])
        drawn = cut.batch(frames, RowRandom(torch.Generator().manual_seed(0))).observation["top"]
        which = (drawn[:, 1, None] == everything).all(dim=(2, 3)).long().argmax(dim=1)
        assert torch.equal(drawn[:, 1], everything[frames, which])
        assert set(which.tolist()) == {0, 1, 2, 3}
        earlier = (frames - 1).clamp(min=torch.where(frames < 20, 0, 20))
        assert torch.equal(drawn[:, 0], everything[earlier, which])  # the same one for both observations
