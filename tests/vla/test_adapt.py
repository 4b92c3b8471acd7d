"""A trunk that a run adapted is an encoder: the same features, copies that travel, one command for it all."""

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_datasets import write_dataset
from fake_env import ENV_ID

import vla as library
from vla.base.errors import ConfigError, EncoderError
from vla.cache import FeatureCache
from vla.config import PipelineConfig
from vla.embed.encoders.encoder_family import ENCODERS
from vla.embed.frozen_encoder import FrozenEncoder
from vla.policy.agents.policy import load_policy
from vla.policy.agents.vla_agent import VLAAgent
from vla.policy.training.run import RunDirectory
from vla.stages.adapting import adapt

CAMERAS = ("r_vis", "top")
Run = Callable[..., dict[str, Any]]
SETTINGS = """
[dataset]
path = "demos"
[encoder]
type = "pixels"
id = "pixels"
image_size = [24, 24]
[augment]
variants = 1
[cache]
path = "features"
[policy]
per_view_dim = 4
cond_dim = 8
n_emb = 16
n_layer = 1
n_head = 2
head = "flow"
[policy.trunks]
r_vis = { type = "resnet", width = 8 }
top = { type = "conv", channels = [8] }
[train]
out = "runs/box"
steps = 3
adapt_steps = 2
batch_size = 4
val_episodes = 1
rollout_every = 0
tracker = "none"
augment = { shift = 0.1 }
[rollout]
videos = 0
num_envs = 1
"""


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Adapt once; return the folder and what was made."""
    folder = tmp_path_factory.mktemp("adapt")
    with contextlib.chdir(folder):
        write_dataset(folder / "demos", (6, 5), (32, 32), 16, cameras=dict.fromkeys(CAMERAS, "image"))
        Path("pipeline.toml").write_text(SETTINGS)
        return folder, adapt(PipelineConfig.load(Path("pipeline.toml"), {}, []))


@pytest.fixture
def adapted(
    once: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """Return what was made, in a copy that a test may change; it is the working directory."""
    shutil.copytree(once[0], tmp_path / "copy", symlinks=True)
    monkeypatch.chdir(tmp_path / "copy")
    return once[1]


def encoder_of(place: object, cameras: tuple[str, ...] = CAMERAS) -> FrozenEncoder:
    return FrozenEncoder.load(ENCODERS.parse(str(place)), cameras)


def test_one_command_adapts_freezes_caches_and_trains_and_goes_on_where_it_stopped(
    adapted: dict[str, Any], vla: Run
) -> None:
    made = adapted
    assert list(made["seconds"]) == ["embed_pixels", "train_on_pixels", "embed_features", "train_on_features"]
    assert [RunDirectory(Path(made[name])).last_step() for name in ("adapted", "run")] == [2, 3]
    assert [FeatureCache(made[name]).variants for name in ("pixels", "features")] == [1, 2]
    streams = FeatureCache(made["features"]).streams
    assert [(streams[c].kind, streams[c].dtype, streams[c].shape) for c in CAMERAS] == [
        ("tokens", "float32", (1, 4))
    ] * 2
    again = vla("adapt")
    assert {name: again[name] for name in ("pixels", "features", "run")} == {
        name: made[name] for name in ("pixels", "features", "run")
    }


def test_the_function_is_the_command(adapted: dict[str, Any]) -> None:
    trunks = {"r_vis": {"type": "resnet", "width": 8}, "top": {"type": "conv", "channels": [8]}}
    again = library.adapt(
        "demos",
        "runs/box",
        trunks=trunks,
        image_size=(24, 24),
        adapt_steps=2,
        steps=3,
        config="pipeline.toml",
    )
    assert {**again, "seconds": None} == {**adapted, "seconds": None}


@pytest.mark.slow
def test_the_policy_drives_when_the_run_its_eyes_are_from_is_gone(adapted: dict[str, Any], vla: Run) -> None:
    shutil.rmtree(adapted["adapted"])
    shutil.rmtree(adapted["features"])
    options = ["--env", ENV_ID, "--episodes", 1, f"--set=env.kwargs.cameras={json.dumps(CAMERAS)}"]
    assert vla("rollout", adapted["run"], *options)["aggregated"]["n_episodes"] == 1
    vla("share", adapted["run"], "--out", "shared")
    shutil.rmtree(adapted["run"])
    assert vla("rollout", "shared", *options)["aggregated"]["n_episodes"] == 1


def test_cached_features_are_the_trunks_own_to_the_bit(adapted: dict[str, Any]) -> None:
    pixels, features = FeatureCache(adapted["pixels"]), FeatureCache(adapted["features"])
    policy = load_policy(RunDirectory(Path(adapted["adapted"])).policy_folder())
    assert isinstance(policy, VLAAgent)
    frames = torch.arange(6)
    encoder = encoder_of(adapted["adapted"])
    encoder.batch_size = 6
    views = {camera: pixels.rows(camera, frames) for camera in CAMERAS}
    found = encoder.encode({camera: view.numpy() for camera, view in views.items()})
    for camera, trunk in policy.named_trunks():
        with torch.no_grad():
            own = trunk(views[camera][:, None])[:, 0]
        assert torch.equal(found[camera], own)
        torch.testing.assert_close(features.rows(camera, frames), own, rtol=1e-4, atol=1e-5)


def test_a_run_its_policy_and_its_copy_are_one_encoder(adapted: dict[str, Any]) -> None:
    run = RunDirectory(Path(adapted["adapted"]))
    places = [run.path, run.policy_folder(), Path(adapted["run"], "encoders", run.path.name)]
    digests = {encoder_of(place).identity.digest for place in places}
    assert digests == set(FeatureCache(adapted["features"]).metadata.encoders)


def test_images_of_any_size_are_resized_as_the_pixels_were(adapted: dict[str, Any]) -> None:
    encoder = encoder_of(adapted["adapted"])
    assert encoder.eval_image_resize_shape == (24, 24)
    large = {
        camera: np.random.default_rng(0).integers(0, 256, (2, 48, 64, 3), np.uint8) for camera in CAMERAS
    }
    found = encoder.encode(large)
    assert [tuple(found[camera].shape) for camera in CAMERAS] == [(2, 1, 4)] * 2


def test_what_cannot_be_an_encoder_is_refused_by_name(adapted: dict[str, Any]) -> None:
    with pytest.raises(EncoderError, match=r"trunks for r_vis, top, none for camera 'front'"):
        encoder_of(adapted["adapted"], ("front",))
    with pytest.raises(EncoderError, match="trained no trunk on images"):
        encoder_of(adapted["run"])
    gone = ENCODERS.parse({"type": "trunk", "id": "runs/gone"})
    with pytest.raises(EncoderError, match=r"'runs/gone' is not there: .* in encoders/gone"):
        FrozenEncoder.load(gone, CAMERAS)


def test_other_trunks_are_another_encoder(adapted: dict[str, Any]) -> None:
    copy = Path(adapted["run"], "encoders", "box-pixels")
    config = json.loads((copy / "config.json").read_text())
    config["views"] = {"r_vis": 1, "top": 1}
    (copy / "config.json").write_text(json.dumps(config))
    assert encoder_of(copy).identity.digest not in FeatureCache(adapted["features"]).metadata.encoders
    config["views"] = {"r_vis": 2}
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(EncoderError, match="views name a trunk beyond the 2 that there are"):
        encoder_of(copy)


def test_adapting_begins_with_images() -> None:
    other = PipelineConfig.load(None, {"encoder.id": "siglip2-tiny-sim"}, [], base={})
    with pytest.raises(
        ConfigError, match="vla adapt begins with images, and the encoder is 'siglip2-tiny-sim'"
    ):
        adapt(other)
