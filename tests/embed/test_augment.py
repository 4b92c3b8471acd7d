"""Cached augmentation: repeatable, consistent within an episode, within its ranges."""

from pathlib import Path

import numpy as np
from fakes import fake_images

from vla.cache import Augmentation, CacheConfig, FeatureCache
from vla.embed import DatasetConfig, SiglipConfig, embed
from vla.embed.transforms import augment

ONE, OTHER = bytes(32), bytes([1] * 32)
"""Contents of two episodes."""


def test_variant_zero_is_the_frame_itself() -> None:
    frames = fake_images(0, 3, size=(32, 32))
    assert augment(frames, ONE, "top", 0, Augmentation(variants=2)) is frames


def test_a_variant_is_the_same_every_time_and_differs_between_variants_cameras_and_episodes() -> None:
    frames = np.repeat(fake_images(0, 1, size=(64, 64)), 2, axis=0)
    spec = Augmentation(variants=2)
    first = augment(frames, ONE, "top", 1, spec)
    assert np.array_equal(first, augment(frames, ONE, "top", 1, spec))
    assert np.array_equal(first[0], first[1])  # two frames of one episode do not jump
    others = [(ONE, "top", 2), (ONE, "front", 1), (OTHER, "top", 1)]
    assert all(not np.array_equal(first, augment(frames, *other, spec)) for other in others)


def test_frames_of_an_episode_do_not_depend_on_the_block_they_come_in() -> None:
    frames, spec = fake_images(1, 3, size=(32, 32)), Augmentation(variants=1)
    whole = augment(frames, ONE, "top", 1, spec)
    assert np.array_equal(whole[1:], augment(frames[1:], ONE, "top", 1, spec))


def test_a_shift_moves_the_image_by_at_most_its_share_and_repeats_the_edge() -> None:
    spec = Augmentation(variants=50, shift=0.1, gain=0, offset=0)
    rows = np.arange(100, dtype=np.uint8)
    frame = np.broadcast_to(rows[None, :, None, None], (1, 100, 100, 3)).copy()
    moved = [augment(frame, ONE, "top", v, spec)[0, :, 0, 0].astype(int) for v in range(1, 51)]
    shifts = [int(column[50]) - 50 for column in moved]
    assert min(shifts) < -5 and max(shifts) > 5 and max(map(abs, shifts)) <= 10
    for column, shift in zip(moved, shifts, strict=True):
        assert np.array_equal(column, np.clip(rows.astype(int) + shift, 0, 99))


def test_colours_stay_within_their_ranges() -> None:
    spec = Augmentation(variants=30, shift=0, gain=0.2, offset=0.1)
    grey = np.full((1, 8, 8, 3), 100, np.uint8)
    levels = [augment(grey, ONE, "top", v, spec)[0, 0, 0].astype(float) for v in range(1, 31)]
    largest = 0.2 * 27.5 + 25.5 + 1
    assert all(np.abs(level - 100).max() <= largest for level in levels)
    assert np.ptp(levels) > 20


def test_a_cache_holds_the_frame_and_its_variants(dataset: Path, encoder_dir: Path, tmp_path: Path) -> None:
    def run(variants: int) -> FeatureCache:
        report = embed(
            DatasetConfig(path=str(dataset)),
            SiglipConfig(id=str(encoder_dir), device="cpu"),
            CacheConfig(path=str(tmp_path)),
            Augmentation(variants=variants),
        )
        return FeatureCache(Path(report.cache))

    plain, augmented = run(0), run(2)
    assert plain.metadata.fingerprint != augmented.metadata.fingerprint
    stored = augmented.all("top").float()
    np.testing.assert_allclose(stored[:, 0], plain.all("top")[:, 0].float(), atol=2e-3)
    assert (stored[:, 1] - stored[:, 0]).abs().amax() > 0.05
