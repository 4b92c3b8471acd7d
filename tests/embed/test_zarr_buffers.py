"""Replay buffers in zarr: what vla reads itself, compared with what the package zarr reads."""

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr
from fake_formats import (
    LENGTHS,
    UMI_HAND,
    jpegxl_images,
    pictures,
    pusht_arrays,
    whole,
    write_pusht,
    write_umi,
    write_zarr,
)

from vla.base.errors import DatasetError
from vla.embed.datasets import FrameSource, open_source
from vla.embed.datasets.dataset_config import DatasetConfig


def opened(path: Path, **settings: Any) -> FrameSource:
    return open_source(DatasetConfig.model_validate({"path": str(path), "fps": 10, **settings}), workers=2)


def read(source: FrameSource, name: str, block: int = 2) -> np.ndarray:
    frames = range(sum(episode.length for episode in source.episodes))
    return np.concatenate([b.streams[name] for b in source.read(frames, block=block)])


def contents(source: FrameSource) -> list[bytes]:
    return source.contents(range(len(source.episodes)))


PACKED = {
    "blosc": numcodecs.Blosc(cname="zstd", shuffle=numcodecs.Blosc.BITSHUFFLE),
    "zstd": numcodecs.Zstd(),
    "lz4": numcodecs.LZ4(),
    "zlib": numcodecs.Zlib(),
    "gzip": numcodecs.GZip(),
    "plain": None,
}


@pytest.mark.parametrize("packed_by", PACKED)
@pytest.mark.parametrize("rows", [1, 4, 100])
def test_what_is_read_is_what_zarr_reads(packed_by: str, rows: int, tmp_path: Path) -> None:
    demos = write_pusht(tmp_path / "pusht.zarr", rows=rows, packed_by=PACKED[packed_by])
    source, there = opened(demos), zarr.open_group(str(demos), mode="r")
    assert np.array_equal(read(source, "img"), np.asarray(there["data/img"][:], np.uint8))
    assert np.array_equal(read(source, "state"), there["data/state"][:])
    assert np.array_equal(read(source, "action"), there["data/action"][:])
    assert (source.format, source.camera_names, source.keys["state"]) == ("zarr", ("img",), "state")
    assert [(e.index, e.first_frame, e.length) for e in source.episodes] == [(0, 0, 5), (1, 5, 4)]


@pytest.mark.parametrize(
    "packed_by", [None, zarr.codecs.ZstdCodec(), zarr.codecs.BloscCodec(), zarr.codecs.GzipCodec()]
)
def test_zarr_3_is_read_too(packed_by: Any, tmp_path: Path) -> None:
    three = opened(write_pusht(tmp_path / "3.zarr", version=3, packed_by=packed_by))
    two = opened(write_pusht(tmp_path / "2.zarr"))
    assert contents(three) == contents(two)


def test_chunks_may_be_cut_along_every_axis_and_stored_in_either_order(tmp_path: Path) -> None:
    demos = write_pusht(tmp_path / "pusht.zarr")
    images = pictures(0)
    shutil.rmtree(demos / "data/img")
    options: dict[str, Any] = {
        "shape": images.shape,
        "dtype": ">f4",
        "chunks": (2, 3, 5, 2),
        "zarr_format": 2,
    }
    zarr.create_array(str(demos), name="data/img", order="F", **options)[:] = images
    assert np.array_equal(read(opened(demos), "img"), images)


def test_an_episode_is_the_same_however_it_is_packed_and_wherever_it_lies(tmp_path: Path) -> None:
    demos = contents(opened(write_pusht(tmp_path / "a.zarr")))
    arrays = {name: values[LENGTHS[0] :] for name, values in pusht_arrays().items()}
    arrays["img"] = arrays["img"].astype(np.uint8)
    assert contents(opened(write_zarr(tmp_path / "b.zarr", arrays, LENGTHS[1:], rows=1))) == demos[1:]


def test_umi_is_read_from_its_archive(tmp_path: Path) -> None:
    archive = write_umi(tmp_path / "dataset.zarr.zip")
    source = opened(archive, action_key=list(UMI_HAND))
    hand = np.hstack([whole(name, dim) for name, dim in UMI_HAND.items()])
    assert np.array_equal(read(source, "camera0_rgb"), jpegxl_images(tmp_path / "umi.zarr"))
    assert np.array_equal(read(source, "state"), hand) and np.array_equal(read(source, "action"), hand)
    assert (source.files(), source.place(1)[0]) == (["dataset.zarr.zip"], ("dataset.zarr.zip",))
    folder = opened(tmp_path / "umi.zarr", action_key=list(UMI_HAND))
    assert contents(folder) == contents(source)


def test_umi_has_no_actions_and_says_what_they_may_be(tmp_path: Path) -> None:
    archive = write_umi(tmp_path / "dataset.zarr.zip")
    with pytest.raises(DatasetError, match=r"no array 'action'; name what is to be learnt, .*robot0_eef_pos"):
        opened(archive)


def test_floats_that_are_no_whole_numbers_are_refused_by_frame(tmp_path: Path) -> None:
    arrays = pusht_arrays()
    arrays["img"][6] /= 255
    source = opened(write_zarr(tmp_path / "demos.zarr", arrays))
    message = r"camera 'img' at episode 1, frame 1 is float32 from .*; vla takes floats only where"
    with pytest.raises(DatasetError, match=message):
        read(source, "img")
    with pytest.raises(DatasetError, match="camera 'img' at episode 1: a frame is float32 from"):
        contents(source)


def test_the_files_of_an_episode_are_those_that_hold_its_rows(tmp_path: Path) -> None:
    source = opened(write_pusht(tmp_path / "demos.zarr", rows=4))
    places = [
        [file for file in source.place(k)[0] if file.startswith("data/state/") and file[11] != "."]
        for k in range(2)
    ]
    assert places == [["data/state/0.0", "data/state/1.0"], ["data/state/1.0", "data/state/2.0"]]
    assert "data/n_contacts/.zarray" not in source.files()
    source.watch().require_unchanged()


def test_frames_a_second_must_be_given_and_episodes_can_be_chosen(tmp_path: Path) -> None:
    demos = write_pusht(tmp_path / "demos.zarr")
    with pytest.raises(DatasetError, match=r"do not say how many frames a second .* --set dataset\.fps=10"):
        opened(demos, fps=None)
    assert np.array_equal(read(opened(demos, episodes=[1]), "img"), pictures(0)[5:])
    with pytest.raises(DatasetError, match="has no camera 'wrist'; its cameras: img"):
        opened(demos, cameras=["wrist"])
    with pytest.raises(DatasetError, match="has no array 'stat' below data/; did you mean 'state'"):
        opened(demos, state_key="stat")


def test_a_missing_chunk_is_not_taken_for_zeros(tmp_path: Path) -> None:
    demos = write_pusht(tmp_path / "demos.zarr")
    (demos / "data/img/1.0.0.0").unlink()
    with pytest.raises(DatasetError, match=r"data/img/1\.0\.0\.0 is missing; the dataset is incomplete"):
        read(opened(demos), "img")


@pytest.mark.parametrize("packed_by", [name for name in PACKED if name != "plain"])
def test_a_chunk_that_claims_or_holds_another_size_is_refused(packed_by: str, tmp_path: Path) -> None:
    codec = PACKED[packed_by]
    demos = write_pusht(tmp_path / "demos.zarr", packed_by=codec)
    chunk = demos / "data/state/1.0"
    for other in (codec.encode(bytes(1 << 26)), codec.encode(bytes(8)), b"", b"\xff" * 40):
        chunk.write_bytes(bytes(other))
        with pytest.raises(DatasetError, match=r"data/state/1\.0 (is damaged|has \d+ bytes, at most)"):
            read(opened(demos), "state")


def changed(demos: Path, array: str, **values: Any) -> None:
    path = demos / array / ".zarray"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"compressor": {"id": "pickle"}},
            "is packed by 'pickle', which vla does not unpack; write it again",
        ),
        ({"filters": [{"id": "pickle"}]}, "uses filter 'pickle', which vla does not read"),
        ({"dtype": "|O"}, "is no array of numbers"),
        ({"dtype": ",<f4"}, "does not describe an array"),
        ({"chunks": [1 << 30, 1 << 10]}, r"claims chunks of \d+ MiB; vla reads up to 1024"),
        ({"chunks": [0, 5]}, "is no array of numbers"),
        ({"shape": [-1, 5]}, "does not describe an array"),
        ({"shape": [9, 1 << 20]}, r"'state' is float32 \[9, 1048576\]"),
        ({"shape": [8, 5]}, "mend the file|the dataset is damaged"),
    ],
)
def test_metadata_that_want_other_code_or_endless_memory_are_refused(
    values: dict[str, Any], message: str, tmp_path: Path
) -> None:
    demos = write_pusht(tmp_path / "demos.zarr")
    changed(demos, "data/state", **values)
    with pytest.raises(DatasetError, match=message):
        opened(demos)


@pytest.mark.parametrize("ends", [[5, 5], [5, 3], [0, 9], [-1, 9], [5, 2**40]])
def test_ends_of_episodes_that_do_not_rise_are_refused(ends: list[int], tmp_path: Path) -> None:
    demos = write_pusht(tmp_path / "demos.zarr")
    zarr.open_array(str(demos / "meta/episode_ends"), mode="r+")[:] = np.array(ends)
    with pytest.raises(DatasetError, match=r"episode \d ends at frame .*; meta/episode_ends is damaged"):
        opened(demos)


def test_links_that_lead_out_are_refused(tmp_path: Path) -> None:
    demos = write_pusht(tmp_path / "demos.zarr")
    (tmp_path / "secret").write_bytes(b"not for you")
    (demos / "data/state/1.0").unlink()
    (demos / "data/state/1.0").symlink_to(tmp_path / "secret")
    with pytest.raises(DatasetError, match="leads out of the dataset"):
        read(opened(demos), "state")


def test_an_archive_that_is_cut_short_or_unpacks_to_too_much_is_refused(tmp_path: Path) -> None:
    archive = write_umi(tmp_path / "dataset.zarr.zip")
    data = archive.read_bytes()
    archive.write_bytes(data[: len(data) // 2])
    with pytest.raises(DatasetError, match="is no zip archive that can be read"):
        opened(archive, action_key=list(UMI_HAND))
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as bomb:
        for file in sorted((tmp_path / "umi.zarr").rglob("*")):
            if file.is_file():
                large = file.name == "3.0.0.0"
                bomb.writestr(
                    file.relative_to(tmp_path / "umi.zarr").as_posix(),
                    bytes(1 << 25) if large else file.read_bytes(),
                )
    with pytest.raises(DatasetError, match=r"3\.0\.0\.0 has 33554432 bytes, at most \d+ are due"):
        read(opened(archive, action_key=list(UMI_HAND)), "camera0_rgb")
