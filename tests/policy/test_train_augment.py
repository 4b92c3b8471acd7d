"""Augmentation in training: what moves and what does not, and that a step always draws the same."""

from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import CAMERAS, fake_identity, fake_spec, write_cache
from test_train import losses, settings
from torch import Tensor

from vla.base.errors import ConfigError
from vla.cache import FeatureCache, Stream
from vla.config import PipelineConfig
from vla.policy.agents.vla_agent import VLAAgentConfig
from vla.policy.batch import Batch
from vla.policy.random import RowRandom, generator_for
from vla.policy.training.augment import TrainAugment, augment, colour, shift
from vla.policy.training.run import RunDirectory
from vla.policy.training.train import train

CPU = torch.device("cpu")
IMAGES = tuple(Stream(name=name, kind="image", dtype="uint8", shape=(12, 20, 3)) for name in ("top", "front"))


def frames(count: int = 4) -> Tensor:
    return torch.randint(
        0, 256, (count, 2, 12, 20, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


def batch_of(count: int = 4) -> Batch:
    observation = {"top": frames(count), "front": frames(count), "state": torch.zeros(count, 2, 5)}
    pad = torch.zeros(count, 16, dtype=torch.bool)
    return Batch(observation=observation, action=torch.zeros(count, 16, 3), action_is_pad=pad)


def random_of(step: int = 0, rank: int = 0, world: int = 1) -> RowRandom:
    return RowRandom(generator_for(0, "augment", step, CPU), rank, world)


def test_a_shift_is_padding_with_the_edge_and_a_crop() -> None:
    found = shift(frames(), torch.tensor([[2 / 12, 0.0], [-1 / 12, 3 / 20], [0.0, 0.0], [1.0, 0.0]]))
    for row, (down, right) in enumerate([(2, 0), (-1, 3), (0, 0), (12, 0)]):
        padded = np.pad(frames()[row].numpy(), ((0, 0), (12, 12), (3, 3), (0, 0)), mode="edge")
        slow = padded[:, 12 - down : 24 - down, 3 - right : 23 - right]
        assert torch.equal(found[row], torch.from_numpy(slow)), row


def test_colours_change_about_grey_and_stay_in_range() -> None:
    grey = torch.full((1, 1, 1, 1, 3), 100, dtype=torch.uint8)
    gain, offset = torch.tensor([[2.0, 1.0, 1.0]]), torch.tensor([[0.0, 20.0, -200.0]])
    assert colour(grey, gain, offset).flatten().tolist() == [72, 120, 0]


def test_no_change_is_the_identity() -> None:
    assert not TrainAugment().is_on
    found = augment(batch_of(), IMAGES, TrainAugment(), random_of())
    assert torch.equal(found.observation["top"], frames())


def test_all_frames_of_a_window_move_alike_and_cameras_and_windows_do_not() -> None:
    batch = batch_of()
    for name in ("top", "front"):
        batch.observation[name][:, 1] = batch.observation[name][:, 0]
        batch.observation[name][:] = batch.observation[name][:1].clone()
    found = augment(batch, IMAGES, TrainAugment(shift=0.2, gain=0.2, offset=0.1), random_of()).observation
    assert found["top"].dtype == torch.uint8 and found["state"] is batch.observation["state"]
    assert torch.equal(found["top"][:, 0], found["top"][:, 1])
    assert not torch.equal(found["top"], found["front"])
    assert not torch.equal(found["top"][0], found["top"][1])


def test_a_step_draws_the_same_whoever_shares_the_batch_and_the_next_one_others() -> None:
    changes = TrainAugment(shift=0.2)
    whole = augment(batch_of(), IMAGES, changes, random_of()).observation["top"]
    half = augment(batch_of().part(1, 2), IMAGES, changes, random_of(0, 1, 2)).observation["top"]
    assert torch.equal(half, whole[1::2])
    assert not torch.equal(augment(batch_of(), IMAGES, changes, random_of(1)).observation["top"], whole)


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    made_by = fake_identity(type="pixels", id="pixels", weights_sha256=None, dtype="uint8")
    spec = fake_spec(lengths=(12, 9, 10), encoder=made_by)
    image = {"kind": "image", "dtype": "uint8", "shape": (8, 8, 3)}
    streams = tuple(s.model_copy(update=image) if s.name in CAMERAS else s for s in spec.streams)
    return write_cache(tmp_path / "cache", fake_spec(lengths=(12, 9, 10), encoder=made_by, streams=streams))


def test_a_run_with_augmentation_repeats_itself_and_differs_from_one_without(
    cache: FeatureCache, tmp_path: Path
) -> None:
    trunk = {"type": "conv", "channels": [4]}
    sizes = {"per_view_dim": 4, "cond_dim": 8, "n_emb": 16, "n_layer": 1, "n_head": 2}
    config = VLAAgentConfig.model_validate({**sizes, "trunks": dict.fromkeys(CAMERAS, trunk)})
    found = []
    for number, changes in enumerate(({"shift": 0.3}, {"shift": 0.3}, {})):
        run = RunDirectory.create(tmp_path / str(number))
        train(run, cache, config, settings(steps=2, tracker="none", augment=changes))
        found.append(losses(run))
    assert found[0] == found[1] != found[2]


def test_augmentation_is_named_by_its_keys(tmp_path: Path) -> None:
    loaded = PipelineConfig.load(None, {"train.augment.shift": 0.05}, [], base={})
    assert loaded.train.augment == TrainAugment(shift=0.05)
    with pytest.raises(ConfigError, match=r"unknown key 'train\.augment\.shfit'; did you mean 'shift'"):
        PipelineConfig.load(None, {"train.augment.shfit": 0.05}, [], base={})
