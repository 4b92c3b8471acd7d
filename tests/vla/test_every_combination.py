"""Every trunk that reads tokens with every head and fusion: trained for a few steps and rolled out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_bert import write_bert
from fake_datasets import write_dataset
from fake_env import SENSORS_ID
from fake_language_model import write_language_model

from vla.policy.fusion.fusion import FUSIONS
from vla.policy.heads.head import HEADS
from vla.policy.trunks.trunk import TRUNKS

TOKEN_TRUNKS = [name for name, config in TRUNKS.members().items() if "tokens" in config.kinds]
SMALL = {"per_view_dim": 4, "cond_dim": 8, "n_emb": 16, "n_layer": 1, "n_head": 2}


@pytest.mark.slow
@pytest.mark.parametrize("fusion", FUSIONS.members())
@pytest.mark.parametrize("head", HEADS.members())
def test_every_trunk_trains_and_drives_with_this_head_and_fusion(
    head: str,
    fusion: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    vla: Callable[..., dict[str, Any]],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_dataset(tmp_path / "demos", (12, 9), (32, 32), 3, cameras={"top": "image"})
    encoder = ["--encoder", "siglip2-tiny-random", "--pool", "grid2"]
    own: dict[str, Any] = {}
    trunks = TOKEN_TRUNKS
    if fusion == "language_model":
        own = {"policy.fusion.model": write_language_model(tmp_path / "tiny")}
    if fusion == "point":  # the task text points at a place in a grid, which other trunks do not leave
        trunks = ["linear"]
        own = {"policy.language": "true"}
        encoder += ["--language", f"--set=encoder.text_encoder={write_bert(tmp_path / 'bert')}"]
    vla("embed", "--dataset", tmp_path / "demos", *encoder, "--out", tmp_path / "features")
    for trunk in trunks:
        policy = {**SMALL, "head": head, "fusion": fusion, "trunks.top": trunk}
        sets = [f"--set=policy.{key}={value}" for key, value in policy.items()]
        sets += [f"--set={key}={value}" for key, value in own.items()]
        sets += ["--set=train.rollout_every=0", "--set=train.val_episodes=1"]
        run = tmp_path / trunk
        vla("train", "--cache", tmp_path / "features", "--out", run, "--steps", 20, *sets)
        options = ["--episodes", 1, "--set=rollout.videos=0", "--set=rollout.num_envs=1"]
        found = vla("rollout", run, "--env", SENSORS_ID, *options)
        assert found["aggregated"]["n_episodes"] == 1
