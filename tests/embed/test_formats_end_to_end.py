"""Each format, embedded; a small policy trained on the cache; and the cache's dataset opened again."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_datasets import write_hdf5
from fake_formats import UMI_HAND, write_pusht, write_robomimic, write_umi

from vla.cache import FeatureCache
from vla.config import PipelineConfig
from vla.embed.datasets import open_source
from vla.embed.datasets.dataset_config import dataset_of
from vla.policy.agents.policy import load_policy
from vla.policy.training.run import find_policy
from vla.stages import embed, train

CASES: dict[str, tuple[Callable[[Path], Path], dict[str, Any], tuple[str, ...]]] = {
    "act": (lambda root: write_hdf5(root / "act", (6, 5), (8, 8)), {"fps": 50}, ("front", "r_vis", "top")),
    "act-joined": (
        lambda root: write_hdf5(root / "act", (6, 5), (8, 8)),
        {"fps": 50, "cameras": ["top"], "state_key": ["observations/qpos", "observations/qvel"]},
        ("top",),
    ),
    "act-stateless": (
        lambda root: write_hdf5(root / "act", (6, 5), (8, 8)),
        {"fps": 50, "cameras": ["top"], "state_key": []},
        ("top",),
    ),
    "robomimic": (
        lambda root: write_robomimic(root / "lift.hdf5", (6, 5), masks={"train": ["demo_0", "demo_1"]}),
        {"subset": "train"},
        ("agentview_image", "robot0_eye_in_hand_image"),
    ),
    "pusht": (lambda root: write_pusht(root / "pusht.zarr"), {"fps": 10}, ("img",)),
    "umi": (
        lambda root: write_umi(root / "cup.zarr.zip"),
        {"fps": 60, "action_key": list(UMI_HAND)},
        ("camera0_rgb",),
    ),
}
SMALL = {
    "encoder": {"type": "pixels", "image_size": (8, 8), "device": "cpu"},
    "policy.per_view_dim": 4,
    "policy.cond_dim": 8,
    "policy.head": {"type": "mlp", "width": 8},
    "policy.n_emb": 8,
    "policy.n_layer": 1,
    "policy.n_head": 2,
    "policy.obs_horizon": 1,
    "policy.pred_horizon": 2,
    "policy.num_action_steps": 1,
    "train.device": "cpu",
    "train.steps": 2,
    "train.batch_size": 4,
    "train.val_episodes": 1,
    "train.rollout_every": 0,
    "train.tracker": "none",
}


@pytest.mark.parametrize("name", CASES)
def test_a_policy_is_trained_on_what_was_embedded(name: str, tmp_path: Path) -> None:
    write, dataset, cameras = CASES[name]
    values = {
        **SMALL,
        "dataset": {"path": str(write(tmp_path)), **dataset},
        "cache.path": str(tmp_path / "features"),
        "cache.shard_frames": 4,
        "train.out": str(tmp_path / "run"),
    }
    settings = PipelineConfig.load(None, values, [], base={})
    cache = FeatureCache(embed(settings).cache)
    train(settings)
    policy = load_policy(find_policy(tmp_path / "run"))
    assert policy.camera_names == cameras
    assert (policy.config.state is None) == (dataset.get("state_key") == [])
    source = open_source(dataset_of(cache), workers=1)
    assert source.identity() == cache.metadata.dataset
    blocks = list(source.read(range(cache.num_frames), 4))
    for stream in source.streams:
        if stream.kind != "image":
            read = torch.cat([torch.as_tensor(block.streams[stream.name]) for block in blocks])
            assert torch.equal(cache.all(stream.name), read)
