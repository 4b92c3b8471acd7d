"""Numbers and shapes that training must name, or take: NaN, constants, short episodes, unequal sizes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_faults import flip_bit
from fakes import fake_frames, fake_spec, reseal, shard_file, write_cache
from safetensors.numpy import load_file, save_file
from test_train import POLICY, settings

from vla.base.errors import CacheError, VlaError
from vla.cache import CacheWriter, FeatureCache
from vla.policy.agents.vla_agent import VLAAgent
from vla.policy.training.meter import Meter
from vla.policy.training.run import RunDirectory
from vla.policy.training.run_log import read_metrics
from vla.policy.training.train import train
from vla.policy.training.trainer import Trainer

LENGTHS = (12, 9, 10)


def spoil(cache: FeatureCache, name: str, at: tuple[int, ...], value: float) -> FeatureCache:
    """Put a value into the second shard, as a writer that checks nothing would."""
    path = shard_file(cache.folder, 1)
    raw = path.read_bytes()
    metadata = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])["__metadata__"]
    tensors = {key: array.copy() for key, array in load_file(path).items()}
    tensors[name][at] = value
    save_file(tensors, path, metadata=metadata)
    reseal(cache.folder)
    return FeatureCache(cache.folder)


@pytest.mark.parametrize("changes", [{}, {"max_cache_gib": 1e-9}])  # in memory, and mapped
@pytest.mark.parametrize(
    ("name", "at", "what"),
    [
        ("top", (5, 0, 0, 3), "'top'"),
        ("state", (5, 2), "'state'"),
        ("action", (5, 2), "'action'"),
    ],
)
def test_a_value_of_the_cache_that_is_not_finite_is_named_by_the_step_that_meets_it(
    name: str, at: tuple[int, ...], what: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    cache = spoil(write_cache(tmp_path / "cache", fake_spec(lengths=LENGTHS)), name, at, np.nan)
    run = RunDirectory.create(tmp_path / "run")
    with pytest.raises(
        VlaError, match=r"the loss is nan at step \d+; there is no checkpoint yet\."
    ) as caught:
        train(run, cache, POLICY, settings(batch_size=32, val_episodes=0, **changes))
    assert f"{what} is not finite at episode 1, frame 1; look closer: vla verify" in str(caught.value)


def test_nothing_is_saved_between_a_bad_step_and_the_next_log_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = write_cache(tmp_path / "cache", fake_spec(lengths=LENGTHS))
    step = Trainer.step

    def broken(self: Trainer, meter: Meter) -> None:
        step(self, meter)
        if self.state.step == 5:
            self.state.meter._tensors[-1]["loss"] = torch.tensor(float("inf"))

    monkeypatch.setattr(Trainer, "step", broken)
    run = RunDirectory.create(tmp_path / "run")
    with pytest.raises(VlaError, match="the loss is inf at step 5; the last checkpoint, 000004, is kept"):
        train(run, cache, POLICY, settings(steps=20, save_every=2, log_every=10, val_every=100))
    assert run.last_step() == 4


def test_a_weight_that_is_not_finite_is_never_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = write_cache(tmp_path / "cache", fake_spec(lengths=LENGTHS))
    step = Trainer.step

    def broken(self: Trainer, meter: Meter) -> None:
        step(self, meter)
        if self.state.step == 3:
            torch.nn.init.constant_(
                self.state.policy.get_parameter("fusion.cond_projector.bias"), float("nan")
            )

    monkeypatch.setattr(Trainer, "step", broken)
    run = RunDirectory.create(tmp_path / "run")
    with pytest.raises(VlaError, match=r"weight 'fusion\.cond_projector\.bias' is not finite at step 3"):
        train(run, cache, POLICY, settings(steps=20, save_every=3, log_every=10, val_every=100))
    assert run.last_step() is None


def test_a_flipped_bit_in_a_shard_is_found_before_the_first_step(tmp_path: Path) -> None:
    cache = write_cache(tmp_path / "cache", fake_spec(lengths=LENGTHS))
    flip_bit(shard_file(cache.folder, 2))
    with pytest.raises(CacheError, match=r"00002\.safetensors has other bytes than cache\.json promises"):
        train(RunDirectory.create(tmp_path / "run"), FeatureCache(cache.folder), POLICY, settings())


@pytest.mark.parametrize(
    "changes",
    [
        {"lengths": (1, 1)},
        {"lengths": (2, 3, 5)},  # all shorter than the 16 predicted actions
        {"cameras": ("top",), "lengths": LENGTHS},
        {"action_dim": 7, "lengths": LENGTHS},
        {"state_dim": 3, "action_dim": 3, "lengths": LENGTHS},
    ],
)
def test_unusual_shapes_are_trained_on_and_answered_with_finite_actions(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    cache = write_cache(tmp_path / "cache", fake_spec(**changes))
    run = RunDirectory.create(tmp_path / "run")
    train(run, cache, POLICY, settings(steps=2, val_episodes=1))
    assert all(np.isfinite(row["loss"]) for row in read_metrics(run))
    agent = VLAAgent.from_pretrained(run.policy_folder("last"))
    observation = {s.name: torch.zeros(1, 2, *s.shape, dtype=s.torch_dtype) for s in agent.observes}
    chunk = agent.predict_action_chunk(observation)
    assert chunk.shape == (1, 16, cache.metadata.action.channels) and torch.isfinite(chunk).all()


def test_dimensions_that_never_move_are_trained_on(tmp_path: Path) -> None:
    spec = fake_spec(lengths=LENGTHS)
    writer = CacheWriter(tmp_path / "cache", spec)
    for shard in writer.missing_shards():
        arrays = fake_frames(spec, shard)
        arrays["state"][:, 3], arrays["action"][:, 5] = 1e6, -2.5
        writer.write(shard, arrays)
    writer.finish()
    run = RunDirectory.create(tmp_path / "run")
    train(run, FeatureCache(tmp_path / "cache"), POLICY, settings(steps=2))
    assert all(0 < row["loss"] < 100 for row in read_metrics(run, "train"))
