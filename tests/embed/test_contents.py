"""The identity of an episode: what it survives, what changes it, and how it is remembered."""

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from fake_datasets import FPS, Kind, camera_images, write_dataset, write_video

from vla.base.distributed import World
from vla.base.errors import DatasetError
from vla.embed import DatasetConfig
from vla.embed.datasets import FrameSource, open_source
from vla.embed.datasets.packets import read_packets
from vla.embed.identities import episode_contents

LENGTHS = (5, 12, 3, 7)
KINDS: dict[str, Kind] = {"top": "image", "front": "image"}
SIZE = (16, 16)


def contents(path: Path, **settings: Any) -> list[bytes]:
    source = open_source(DatasetConfig.model_validate({"path": str(path), **settings}))
    return source.contents(range(len(source.episodes)))


def joined_by_ffmpeg(parts: Sequence[Path], target: Path) -> Path:
    """Join videos as LeRobot's tools do, by FFmpeg's reader of lists, which changes packets of H.264."""
    target.parent.mkdir(parents=True, exist_ok=True)
    (names := target.with_suffix(".ffconcat")).write_text(
        "ffconcat version 1.0\n" + "".join(f"file '{part}'\n" for part in parts)
    )
    with (
        av.open(str(names), format="concat", options={"safe": "0"}) as container,
        av.open(str(target), "w") as out,
    ):
        video = container.streams.video[0]
        stream = out.add_stream_from_template(video, opaque=True)
        stream.time_base = video.time_base
        for packet in container.demux(video):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    return target


def joined(parts: Sequence[Path], target: Path) -> Path:
    """Join videos packet after packet, nothing is encoded again."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(target), "w") as out:
        stream, base = None, 0
        for part in parts:
            with av.open(str(part)) as container:
                video = container.streams.video[0]
                stream = stream or out.add_stream_from_template(video, opaque=True)
                frames = 0
                for packet in container.demux(video):
                    if packet.pts is None or packet.dts is None:
                        continue
                    packet.pts, packet.dts = packet.pts + base, packet.dts + base
                    packet.stream, frames = stream, frames + 1
                    out.mux(packet)
                base += round(frames / FPS / video.time_base)
    return target


CODECS = [
    ("libx264rgb", {"qp": "0", "g": "6", "preset": "ultrafast"}),
    ("libx264", {"g": "4", "bf": "2", "crf": "30"}),
    ("libsvtav1", {"g": "2", "crf": "30"}),
]


@pytest.mark.parametrize("join", [joined, joined_by_ffmpeg])
@pytest.mark.parametrize(("codec", "options"), CODECS)
def test_packets_of_an_episode_stay_the_same_when_its_video_is_joined_to_others(
    codec: str, options: dict[str, str], join: Callable[[Sequence[Path], Path], Path], tmp_path: Path
) -> None:
    parts = [
        write_video(tmp_path / f"{e}.mp4", camera_images(e, 0, n, (32, 32)), codec=codec, options=options)
        for e, n in enumerate(LENGTHS)
    ]
    alone = [
        read_packets(part).needed(np.arange(n) / FPS, 1e-4) for part, n in zip(parts, LENGTHS, strict=True)
    ]
    whole = read_packets(join(parts, tmp_path / "whole.mp4"))
    starts = np.cumsum(LENGTHS) - LENGTHS
    together = [
        whole.needed((first + np.arange(n)) / FPS, 1e-4) for first, n in zip(starts, LENGTHS, strict=True)
    ]
    assert together == alone and len(set(alone)) == len(LENGTHS)
    # A frame more, a frame less, a frame later: other episodes.
    assert len({whole.needed((5 + np.arange(n)) / FPS, 1e-4) for n in (11, 12)}) == 2
    assert whole.needed((6 + np.arange(11)) / FPS, 1e-4) not in together


@pytest.mark.parametrize("version", ["v3.0", "v2.1"])
def test_episodes_are_the_same_in_any_packing_order_and_version(version: str, tmp_path: Path) -> None:
    one = write_dataset(tmp_path / "one", LENGTHS, SIZE, 3, cameras=KINDS, episodes_per_file=3)
    shows = (2, 0, 3)
    lengths = [LENGTHS[k] for k in shows]
    other = write_dataset(tmp_path / "other", lengths, SIZE, 3, cameras=KINDS, version=version, shows=shows)
    first = contents(one)
    assert contents(other) == [first[k] for k in shows] and len(set(first)) == 4


def test_another_value_camera_or_order_of_cameras_is_another_episode(tmp_path: Path) -> None:
    demos = write_dataset(tmp_path / "demos", LENGTHS, SIZE, 3, cameras=KINDS)
    whole = contents(demos)
    for settings in ({"cameras": ["top"]}, {"cameras": ["front", "top"]}, {"state_key": "action"}):
        assert not set(contents(demos, **settings)) & set(whole)
    assert contents(demos, episodes=[3, 1]) == [whole[1], whole[3]]


def test_rows_that_are_missing_are_named(tmp_path: Path) -> None:
    demos = write_dataset(tmp_path / "demos", LENGTHS, SIZE, 3, cameras=KINDS)
    shutil.copy(demos / "data/chunk-000/file-002.parquet", demos / "data/chunk-000/file-001.parquet")
    with pytest.raises(DatasetError, match=r"file-001.* holds 0 rows with index from 5 to 16, not 12"):
        contents(demos)


class Reads:
    """A source that notes which episodes are read."""

    def __init__(self, source: FrameSource, monkeypatch: pytest.MonkeyPatch) -> None:
        self.read: list[int] = []
        known = source.contents

        def noted(positions: Sequence[int]) -> list[bytes]:
            self.read += positions
            return known(positions)

        monkeypatch.setattr(source, "contents", noted)


def test_unchanged_files_are_not_read_again_and_changed_ones_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    demos = write_dataset(tmp_path / "demos", LENGTHS, SIZE, 3, cameras=KINDS)

    def looked_at() -> tuple[list[int], tuple[bytes, ...]]:
        source = open_source(DatasetConfig(path=str(demos)))
        reads = Reads(source, monkeypatch)
        return reads.read, episode_contents(source, source.watch(), tmp_path / "features", World())

    first, found = looked_at()
    again, same = looked_at()
    assert (first, again) == ([0, 1, 2, 3], []) and found == same == tuple(contents(demos))
    os.utime(demos / "data/chunk-000/file-002.parquet", ns=(1, 1))
    changed, same = looked_at()
    assert changed == [2] and same == found
    for path in (tmp_path / "features").rglob("*.parquet"):
        path.write_bytes(b"damaged")
    assert looked_at() == ([0, 1, 2, 3], found)
