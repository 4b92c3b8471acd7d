"""Datasets that lerobot's own tools edit: what they leave as it was is not encoded again. make interop."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_lerobot import LENGTHS, VIEWS, record_episodes, video_encoder, write_with_lerobot

from vla.cache import CacheConfig, FeatureCache
from vla.embed import DatasetConfig, EmbedReport, PixelsConfig, embed

pytestmark = [pytest.mark.interop, pytest.mark.filterwarnings("ignore")]

CODINGS = ("png", "libsvtav1", "h264")


@pytest.fixture(scope="session")
def lerobot_dataset() -> Any:
    """Return the class `LeRobotDataset` of the installed lerobot, offline."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    return LeRobotDataset


@pytest.fixture(params=CODINGS)
def coding(request: pytest.FixtureRequest) -> str:
    """Return how images are stored: each by itself, or as videos."""
    return request.param


@pytest.fixture
def write(coding: str, lerobot_dataset: Any) -> Callable[..., Any]:
    """Return what records some episodes with lerobot, and opens them."""

    def recorded(root: Path, *episodes: int) -> Any:
        videos = coding != "png"
        codec = coding if videos else "libsvtav1"
        write_with_lerobot(lerobot_dataset, root, videos, codec, episodes)
        return lerobot_dataset("someone/demos", root=root, video_backend="pyav")

    return recorded


def run(dataset: Path, out: Path) -> EmbedReport:
    encoder = PixelsConfig(image_size=(8, 8), device="cpu")
    return embed(DatasetConfig(path=str(dataset)), encoder, CacheConfig(path=str(out), shard_frames=7))


def images(*episodes: int) -> int:
    return len(VIEWS) * sum(LENGTHS[episode] for episode in episodes)


def indices(report: EmbedReport) -> list[int]:
    """Return which of the four episodes a cache has: their states say so."""
    states = FeatureCache(report.cache).all("state")[:, 0].tolist()
    return [int(number) for number in dict.fromkeys(states)]


def test_of_episodes_that_are_recorded_later_only_they_are_encoded(
    write: Callable[..., Any], tmp_path: Path
) -> None:
    write(tmp_path / "demos", 0)
    assert run(tmp_path / "demos", tmp_path / "out").images_encoded == images(0)
    dataset = write(tmp_path / "again", 0, 1)  # the same file, joined to by lerobot
    assert run(dataset.root, tmp_path / "out").images_encoded == images(1)


def test_a_recording_that_goes_on_another_day_costs_what_is_new(
    write: Callable[..., Any], coding: str, tmp_path: Path
) -> None:
    dataset = write(tmp_path / "demos", 0, 1)
    run(dataset.root, tmp_path / "out")
    encoder = None if coding == "png" else video_encoder(coding)
    record_episodes(dataset.resume("someone/demos", root=dataset.root, rgb_encoder=encoder), [2, 3])
    report = run(dataset.root, tmp_path / "out")
    assert (report.images_encoded, indices(report)) == (images(2, 3), [0, 1, 2, 3])


def test_what_lerobot_merges_is_not_encoded(write: Callable[..., Any], tmp_path: Path) -> None:
    from lerobot.datasets.dataset_tools import merge_datasets

    parts = [write(tmp_path / "monday", 0), write(tmp_path / "tuesday", 1, 2, 3)]
    for part in parts:
        run(part.root, tmp_path / "out")
    merged = merge_datasets(parts[::-1], "someone/merged", tmp_path / "merged")
    report = run(merged.root, tmp_path / "out")
    assert (report.images_encoded, indices(report)) == (0, [1, 2, 3, 0])


def test_what_lerobot_deletes_and_splits_is_not_encoded_unless_lerobot_encodes_videos(
    write: Callable[..., Any], coding: str, tmp_path: Path
) -> None:
    from lerobot.datasets.dataset_tools import delete_episodes, split_dataset

    dataset = write(tmp_path / "demos", 0, 1, 2, 3)
    run(dataset.root, tmp_path / "out")
    less = delete_episodes(dataset, [1], tmp_path / "less", "someone/less")
    halves = split_dataset(dataset, {"first": [0, 1], "second": [2, 3]}, tmp_path / "halves")
    kept = {less.root: [0, 2, 3], halves["first"].root: [0, 1], halves["second"].root: [2, 3]}
    for root, episodes in kept.items():
        report = run(root, tmp_path / "out")
        # lerobot decodes and encodes a video of which it takes a part: those are other episodes.
        assert (report.images_encoded > 0) == (coding != "png")
        assert indices(report) == episodes
