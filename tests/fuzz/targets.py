"""What is fuzzed: everything of vla that reads bytes which strangers may have made.

A target takes bytes, puts them in the place of one file of something small and whole, or of one message,
and reads that. It may end well or with a `VlaError` of one short line; anything else is a finding.
"""

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import messages
import torch
from fake_datasets import write_dataset, write_hdf5
from fake_formats import UMI_HAND, write_pusht, write_robomimic, write_umi
from fakes import fake_spec, write_cache

from vla.base.errors import VlaError
from vla.cache import ACTION, STATE, FeatureCache, Stream
from vla.cache.cache_damage import cache_problems
from vla.config import PipelineConfig
from vla.embed.datasets import open_source
from vla.embed.datasets.dataset_config import DatasetConfig
from vla.policy.agents.policy import load_policy
from vla.policy.agents.vla_agent import VLAAgent, VLAAgentConfig
from vla.policy.saved_policy import read_config

OLD_CACHE = Path(__file__).parents[1] / "cache/format1"
POLICY = VLAAgentConfig(per_view_dim=2, cond_dim=4, n_emb=8, n_layer=1, n_head=2)
LONGEST_MESSAGE = 2000


@dataclass(frozen=True)
class Target:
    """One file, or message, of something that is read."""

    read: Callable[[bytes], object]
    seed: bytes
    """Whole and good bytes: where mutations start."""
    is_message: bool = False
    """They are msgpack."""

    def __call__(self, data: bytes) -> bool:
        """Read with other bytes; tell whether they were taken.

        Raises:
            Exception: a finding.
        """
        try:
            self.read(data)
        except VlaError as error:
            message = str(error)
            if "\n" in message or len(message) > LONGEST_MESSAGE:
                raise AssertionError(f"no single short line: {message[:300]!r}") from error
            return False
        return True


def _file(file: Path, read: Callable[[], object]) -> Target:
    """Return the target of one file of something that `read` reads."""

    def put_and_read(data: bytes) -> None:
        file.write_bytes(data)
        read()

    return Target(put_and_read, file.read_bytes())


def _cache(root: Path, file: str) -> Target:
    sensors = (Stream(name="imu", kind="series", dtype="float32", shape=(3, 2), key="observation.imu"),)
    folder = write_cache(root, fake_spec(lengths=(3, 2), dim=2, shard_frames=3, sensors=sensors)).folder
    return _file(next(folder.glob(file)), lambda: _read_cache(folder))


def _old_cache(root: Path, file: str) -> Target:
    folder = shutil.copytree(OLD_CACHE, root / "old")
    return _file(next(folder.glob(file)), lambda: _read_cache(folder))


def _read_cache(folder: Path) -> None:
    cache_problems(folder)
    cache = FeatureCache(folder)
    frames = torch.arange(min(cache.num_frames, 5))
    for name in cache.streams:
        cache.rows(name, frames, torch.zeros_like(frames))
    for name in (STATE, ACTION):
        if name in cache.streams:
            cache.all(name)
    cache.frame(0)
    if cache.metadata.texts is not None:
        cache.text_features()


def _dataset(root: Path, file: str, version: str = "v3.0") -> Target:
    kinds = {"top": "image", "front": "video"}
    demos = write_dataset(
        root / "demos",
        *((2, 3), (16, 16), 2),
        version=version,
        cameras=kinds,  # type: ignore[arg-type]
        sensors={"scan": (3, 2)},
    )
    sensors = {"scan": {"key": "observation.scan", "kind": "points"}}
    return _file(demos / file, lambda: _read_all(demos, streams=sensors))


def _read_all(path: Path, **settings: Any) -> None:
    source = open_source(DatasetConfig.model_validate({"path": str(path), **settings}), workers=1)
    source.identity()
    frames = sum(episode.length for episode in source.episodes)
    for block in source.read(range(min(frames, 50)), 4):
        for stream in source.streams:
            block.streams[stream.name].sum()


def _hdf5(root: Path) -> Target:
    demos = write_hdf5(root / "demos", (2,), (8, 8), 2, storage="padded")
    return _file(demos / "episode_0.hdf5", lambda: _read_all(demos, fps=50))


def _robomimic(root: Path) -> Target:
    demos = write_robomimic(root / "demo.hdf5", (2,), masks={"train": ["demo_0"]})
    return _file(demos, lambda: _read_all(demos, subset="train", fps=20))


def _zarr(root: Path, file: str) -> Target:
    demos = write_pusht(root / "demos.zarr")
    return _file(demos / file, lambda: _read_all(demos, fps=10))


def _umi(root: Path, file: str = "") -> Target:
    """Return the target of a JPEG XL image of a UMI dataset, or of its archive."""
    archive = write_umi(root / "demos.zarr.zip")
    demos = root / "umi.zarr" if file else archive
    return _file(demos / file, lambda: _read_all(demos, fps=60, action_key=list(UMI_HAND)))


def _policy(root: Path, file: str) -> Target:
    cache = write_cache(root / "cache", fake_spec(lengths=(3, 2), dim=2)).metadata
    VLAAgent.for_cache(POLICY, cache).save_pretrained(root / "policy")
    return _file(root / "policy" / file, lambda: load_policy(root / "policy"))


def _old_policy(root: Path) -> Target:
    """Return the target of a `config.json` from before there were streams; its words are the old cache's."""
    header = json.loads((OLD_CACHE / "cache.json").read_bytes())
    same = ("camera_names", "state_dim", "action_dim", "encoder", "preprocessing")
    config = {
        **{key: header[key] for key in same},
        "policy": {"per_view_dim": 2, "head": "imf", "imf": {"loss_power": 0.5}},
        "fps": header["dataset"]["fps"],
        "cache_fingerprint": header["fingerprint"],
        "data": {"dataset": header["dataset"], "num_episodes": 2, "num_frames": 7, "tasks": ["Move."]},
    }
    (root / "config.json").write_text(json.dumps(config))
    read_config(root)  # whole and good
    return _file(root / "config.json", lambda: read_config(root))


def _config(root: Path) -> Target:
    file = root / "pipeline.toml"
    sensor, trunk = '{ key = "observation.imu", kind = "series" }', '{ type = "linear" }'
    settings = [f"dataset.streams.imu={sensor}", f"policy.trunks.top={trunk}", "policy.head.loss_power=0"]
    PipelineConfig.load(None, {}, settings, base={}).save(file)
    return _file(file, lambda: PipelineConfig.load(file, {}, []))


MAKERS: dict[str, Callable[[Path], Target]] = {
    "cache.json": lambda root: _cache(root, "cache.json"),
    "episodes": lambda root: _cache(root, "episodes-*.parquet"),
    "shard": lambda root: _cache(root, "parts/*/shards/00000.safetensors"),
    "old-cache.json": lambda root: _old_cache(root, "cache.json"),
    "old-shard": lambda root: _old_cache(root, "shards/00000.safetensors"),
    "old-texts": lambda root: _old_cache(root, "language.safetensors"),
    "info.json": lambda root: _dataset(root, "meta/info.json"),
    "episodes.jsonl": lambda root: _dataset(root, "meta/episodes.jsonl", "v2.1"),
    "episodes.parquet": lambda root: _dataset(root, "meta/episodes/chunk-000/file-000.parquet"),
    "data.parquet": lambda root: _dataset(root, "data/chunk-000/file-000.parquet"),
    "mp4": lambda root: _dataset(root, "videos/observation.images.front/chunk-000/file-000.mp4"),
    "hdf5": _hdf5,
    "robomimic": _robomimic,
    "zarray": lambda root: _zarr(root, "data/state/.zarray"),
    "zarr-chunk": lambda root: _zarr(root, "data/img/1.0.0.0"),
    "zarr-ends": lambda root: _zarr(root, "meta/episode_ends/0"),
    "jpegxl": lambda root: _umi(root, "data/camera0_rgb/1.0.0.0"),
    "zarr.zip": _umi,
    "config.json": lambda root: _policy(root, "config.json"),
    "old-config.json": _old_policy,
    "model.safetensors": lambda root: _policy(root, "model.safetensors"),
    "pipeline.toml": _config,
    "request": lambda root: Target(messages.Server(root).answer, messages.REQUEST, is_message=True),
    "greeting": lambda _: Target(messages.greet, messages.GREETING, is_message=True),
    "reply": lambda _: Target(messages.reply, messages.REPLY, is_message=True),
    "websocket": lambda root: Target(messages.LiveServer(root).talk, messages.TALK),
}


def make(name: str) -> Target:
    """Set a target up in a new temporary folder."""
    return MAKERS[name](Path(tempfile.mkdtemp(prefix="vla-fuzz-")))


def is_json(seed: bytes) -> bool:
    """Tell whether a file is JSON, so that it can be changed by its structure."""
    try:
        json.loads(seed)
    except ValueError:
        return False
    return True
