"""The encode loop: whole path, resuming, identity of stage-one and live features."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_faults import digests
from fakes import fake_images, shard_file, write_dataset

from vla.base.errors import VlaError
from vla.base.lock import exclusive
from vla.base.prefetch import prefetch
from vla.cache import CacheConfig, FeatureCache
from vla.embed import DatasetConfig, FrozenEncoder, SiglipConfig, embed


def run(dataset: Path, encoder: Path, out: Path, shard_frames: int = 4, **settings: object) -> FeatureCache:
    report = embed(
        DatasetConfig.model_validate({"path": str(dataset), **settings}),
        SiglipConfig(id=str(encoder), device="cpu"),
        CacheConfig(path=str(out), shard_frames=shard_frames),
    )
    return FeatureCache(Path(report.cache))


def test_cached_features_are_the_live_features_of_the_same_frames(
    dataset: Path, encoder_dir: Path, tmp_path: Path
) -> None:
    cache = run(dataset, encoder_dir, tmp_path)
    live = FrozenEncoder.load(SiglipConfig(id=str(encoder_dir), device="cpu"), ("front",))
    frames = np.concatenate([fake_images(2, 5), fake_images(102, 4)])
    stored = cache.all("front")[:, 0].numpy()
    for i, frame in enumerate(frames):  # one at a time, as a robot sees them
        found = live.encode({"front": frame[None]})["front"]
        np.testing.assert_allclose(found[0], stored[i], atol=2e-3)


def test_the_cache_tells_where_it_comes_from(dataset: Path, encoder_dir: Path, tmp_path: Path) -> None:
    metadata = run(dataset, encoder_dir, tmp_path).metadata
    assert metadata.dataset.path == str(dataset)
    assert metadata.encoder is not None and metadata.encoder.id == str(encoder_dir)
    assert [episode.length for episode in metadata.episodes] == [5, 4]
    assert (metadata.num_frames, metadata.parts[0].num_shards, metadata.stream("top").shape) == (
        9,
        3,
        (1, 32),
    )


def test_embedding_again_encodes_nothing(dataset: Path, encoder_dir: Path, tmp_path: Path) -> None:
    folder = run(dataset, encoder_dir, tmp_path).folder
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    run(dataset, encoder_dir, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_several_threads_write_the_bytes_of_one_in_the_same_order(
    dataset: Path, encoder_dir: Path, tmp_path: Path
) -> None:
    one = run(dataset, encoder_dir, tmp_path / "one")
    torch.set_num_threads(3)
    try:
        several = run(dataset, encoder_dir, tmp_path / "several")
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(1)
    assert digests(several.folder) == digests(one.folder)


def test_a_lost_shard_alone_is_encoded_again_with_the_same_bytes(
    dataset: Path, encoder_dir: Path, tmp_path: Path
) -> None:
    folder = run(dataset, encoder_dir, tmp_path).folder
    before = digests(folder)
    kept = shard_file(folder).stat().st_mtime_ns
    shard_file(folder, 1).unlink()
    (folder / "cache.json").unlink()
    run(dataset, encoder_dir, tmp_path)
    assert digests(folder) == before
    assert shard_file(folder).stat().st_mtime_ns == kept


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_with_the_bytes_of_an_undisturbed_one(
    encoder_dir: Path, tmp_path: Path
) -> None:
    demos = write_dataset(tmp_path / "demos", lengths=(40, 40))
    command = [sys.executable, "-m", "vla", "embed", "--dataset", str(demos), "--encoder", str(encoder_dir)]
    command += ["--device", "cpu", "--set", "cache.shard_frames=4"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run([*command, "--out", whole], check=True, capture_output=True, cwd=tmp_path)
    process = subprocess.Popen([*command, "--out", killed], stderr=subprocess.DEVNULL, cwd=tmp_path)
    while len(list(killed.glob("*/parts/*/shards/0*"))) < 3:  # some shards done, others not
        assert process.poll() is None, "finished before it could be killed"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = {path: path.stat().st_mtime_ns for path in killed.glob("*/parts/*/shards/0*")}
    assert 3 <= len(finished) < 20
    subprocess.run([*command, "--out", killed], check=True, capture_output=True, cwd=tmp_path)
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert digests(killed) == digests(whole)


def test_a_second_writer_is_refused_and_told_who_is_first(tmp_path: Path) -> None:
    refused = pytest.raises(VlaError, match=f"written by process {os.getpid()}")
    with exclusive(tmp_path / "cache"), refused, exclusive(tmp_path / "cache"):
        pass


def test_a_lock_file_left_by_a_killed_process_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "cache.lock").write_text("99999999\n")
    with exclusive(tmp_path / "cache"):
        pass
    assert not (tmp_path / "cache.lock").exists()


def test_prefetch_keeps_order_and_passes_errors_on_at_their_place() -> None:
    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise VlaError("the third is broken")

    found = []
    with pytest.raises(VlaError, match="the third is broken"):
        for item in prefetch(items(), depth=1):
            found.append(item)
    assert found == [1, 2]
