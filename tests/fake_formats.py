"""Small demonstrations in robomimic's HDF5 and in zarr, written without vla's own code."""

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import imagecodecs
import numcodecs
import numpy as np
import zarr
from fake_datasets import camera_images
from imagecodecs.numcodecs import Jpegxl

LENGTHS = (5, 4)
SIZE = (8, 12)
HAND = {"robot0_eef_pos": 3, "robot0_eef_quat": 4, "robot0_gripper_qpos": 2}
UMI_HAND = {"robot0_eef_pos": 3, "robot0_eef_rot_axis_angle": 3, "robot0_gripper_width": 1}


def column(name: str, episode: int, length: int, dim: int) -> np.ndarray:
    """What a column holds in an episode, float64 [length, dim]."""
    return np.random.default_rng([episode, *name.encode()]).normal(size=(length, dim))


def whole(name: str, dim: int, lengths: Sequence[int] = LENGTHS) -> np.ndarray:
    """The same of all episodes, float32 [frames, dim]."""
    rows = [column(name, episode, length, dim) for episode, length in enumerate(lengths)]
    return np.concatenate(rows).astype(np.float32)


def pictures(camera: int, lengths: Sequence[int] = LENGTHS, size: tuple[int, int] = SIZE) -> np.ndarray:
    """What a camera sees in all episodes, uint8 [frames, H, W, 3]."""
    return np.concatenate([camera_images(e, camera, length, size) for e, length in enumerate(lengths)])


def write_robomimic(
    path: Path,
    lengths: Sequence[int] = LENGTHS,
    *,
    cameras: Sequence[str] = ("agentview_image", "robot0_eye_in_hand_image"),
    state: Mapping[str, int] | None = None,
    env_args: Mapping[str, Any] | None = None,
    masks: Mapping[str, Sequence[str]] | None = None,
    first: int = 0,
) -> Path:
    """Write one file of demonstrations; the k-th shows what episode `first + k` of a fake dataset does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    env = {"env_name": "Lift", "type": 1, "env_kwargs": {"control_freq": 20}}
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps(env if env_args is None else env_args)
        for k, length in enumerate(lengths):
            demo, episode = data.create_group(f"demo_{k}"), first + k
            demo.attrs["num_samples"] = length
            demo["actions"] = column("actions", episode, length, 7)
            demo["states"] = column("states", episode, length, 32)
            for name, dim in (HAND if state is None else state).items():
                demo[f"obs/{name}"] = column(name, episode, length, dim)
            for number, camera in enumerate(cameras):
                demo[f"obs/{camera}"] = camera_images(episode, number, length, SIZE)
        for subset, names in (masks or {}).items():
            file[f"mask/{subset}"] = np.array([name.encode() for name in names])
    return path


def write_zarr(
    path: Path,
    arrays: Mapping[str, np.ndarray],
    lengths: Sequence[int] = LENGTHS,
    *,
    version: int = 2,
    rows: int = 4,
    packed_by: Any = "auto",
) -> Path:
    """Write a replay buffer, `rows` frames a chunk."""
    root = zarr.open_group(str(path), mode="w", zarr_format=version)
    options: dict[str, Any] = {"compressors": packed_by, "config": {"write_empty_chunks": True}}
    for name, values in arrays.items():
        chunks = (rows, *values.shape[1:])
        made = root.create_array(
            f"data/{name}", shape=values.shape, dtype=values.dtype, chunks=chunks, **options
        )
        made[:] = values
    ends = np.cumsum(lengths).astype(np.int64)
    root.create_array("meta/episode_ends", shape=ends.shape, dtype=ends.dtype, chunks=(64,))[:] = ends
    return path


def pusht_arrays() -> dict[str, np.ndarray]:
    """Return the arrays of a replay buffer as PushT's: images are floats."""
    return {
        "img": pictures(0).astype(np.float32),
        "state": whole("state", 5),
        "action": whole("action", 2),
        "n_contacts": np.ones((sum(LENGTHS), 1), np.float32),
    }


def write_pusht(path: Path, **options: Any) -> Path:
    """Write a replay buffer as diffusion_policy does."""
    return write_zarr(path, pusht_arrays(), **options)


def write_umi(path: Path) -> Path:
    """Write a zip archive as UMI does: a JPEG-XL image a chunk, no actions."""
    numcodecs.register_codec(Jpegxl)
    folder = path.parent / "umi.zarr"
    write_zarr(folder, {name: whole(name, dim) for name, dim in UMI_HAND.items()})
    images = pictures(0, size=(16, 16))
    made = zarr.create_array(
        str(folder),
        name="data/camera0_rgb",
        shape=images.shape,
        dtype=images.dtype,
        chunks=(1, 16, 16, 3),
        compressors=Jpegxl(level=99, lossless=False),
        zarr_format=2,
    )
    made[:] = images
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(folder).as_posix())
    return path


def jpegxl_images(folder: Path) -> np.ndarray:
    """Decode the images of a UMI hierarchy without zarr."""
    chunks = sorted((folder / "data/camera0_rgb").glob("*.0.0.0"), key=lambda p: int(p.name.split(".")[0]))
    return np.stack([imagecodecs.jpegxl_decode(chunk.read_bytes()) for chunk in chunks])
