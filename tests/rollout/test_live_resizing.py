"""Live, a frame is resized once: when it comes, or where it is rendered, and not at every decision."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_env import ENV_ID
from fakes import CAMERAS, fake_images

from vla.base.horizons import Horizons
from vla.cache.stream import STATE, Stream
from vla.embed.encoders.siglip import SiglipConfig
from vla.embed.frozen_encoder import FrozenEncoder
from vla.embed.transforms import resize
from vla.rollout.evaluate.chunk_env import make_chunk_env
from vla.rollout.rollout_config import EnvConfig
from vla.rollout.serve.session import Session

HORIZONS = Horizons(obs_horizon=2, pred_horizon=16, num_action_steps=1)
OBSERVES = (
    *(Stream(name=name, kind="image", dtype="uint8", shape=(0, 0, 3)) for name in CAMERAS),
    Stream(name=STATE, kind="vector", dtype="float32", shape=(4,)),
)
SIZES = dict.fromkeys(CAMERAS, (16, 24))


@pytest.fixture
def resized(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, ...]]]:
    """Shapes of the frames that are resized."""
    shapes: list[tuple[int, ...]] = []

    def watched(frames: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        shapes.append(frames.shape)
        return resize(frames, size)

    monkeypatch.setattr("vla.embed.transforms.resize", watched)
    yield shapes


def sent(step: int) -> dict[str, object]:
    views = {name: fake_images(10 * step + k, 1, (48, 64))[0] for k, name in enumerate(CAMERAS)}
    return {"observation": {**views, STATE: np.zeros(4, np.float32)}}


def test_a_session_resizes_one_view_a_camera_when_a_frame_comes(resized: list[tuple[int, ...]]) -> None:
    session = Session(OBSERVES, HORIZONS, SIZES)
    for step in range(3):
        session.observe(sent(step))
        assert len(resized) == len(CAMERAS) * (step + 1)
    history = session.history()
    expected = np.concatenate([fake_images(10 * step, 1, (48, 64)) for step in (1, 2)])
    assert np.array_equal(history[CAMERAS[0]][0], resize(expected, (16, 24)))
    assert len(resized) == 3 * len(CAMERAS)


def test_an_environment_resizes_each_frame_that_is_seen_once(resized: list[tuple[int, ...]]) -> None:
    env = make_chunk_env(EnvConfig(id=ENV_ID), HORIZONS, image_sizes=SIZES)
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation) and observation["top"].shape == (2, 16, 24, 3)
    assert len(resized) == len(CAMERAS)
    for step in range(1, 4):
        observation, *_ = env.step(np.zeros((1, 16), np.float32))
        assert len(resized) == len(CAMERAS) * (step + 1)
    assert observation["top"][:, 0, 0, 0].tolist() == [2, 3]


def test_what_is_not_rendered_is_not_resized(resized: list[tuple[int, ...]]) -> None:
    horizons = Horizons(obs_horizon=2, pred_horizon=16, num_action_steps=8)
    env = make_chunk_env(EnvConfig(id=ENV_ID), horizons, image_sizes=SIZES)
    env.reset(seed=0)
    env.step(np.zeros((8, 16), np.float32))
    assert len(resized) == len(CAMERAS) * (1 + 2)


def test_frames_of_the_encoders_size_have_the_features_of_those_before(encoder_dir: Path) -> None:
    encoder = FrozenEncoder.load(SiglipConfig(id=str(encoder_dir), device="cpu"), CAMERAS)
    views = {name: fake_images(k, 2, (48, 64)) for k, name in enumerate(CAMERAS)}
    small = {name: resize(frames, encoder.eval_image_resize_shape) for name, frames in views.items()}
    whole, parts = encoder.encode(views), encoder.encode(small)
    assert all(torch.equal(whole[name], parts[name]) for name in CAMERAS)
