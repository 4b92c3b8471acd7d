"""`vla pretrain lewm`: known answers of its parts, continuing exactly, a run that `vla embed` takes."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import CAMERAS, fake_spec, write_cache
from torch import Tensor

from vla.base.errors import CheckpointError, ConfigError
from vla.base.lewm import LewmInput
from vla.cache import FeatureCache
from vla.policy.pretrain.clips import ClipCutter
from vla.policy.pretrain.health import collapse, effective_rank, health
from vla.policy.pretrain.predictor import Predictor
from vla.policy.pretrain.pretrain import pretrain
from vla.policy.pretrain.pretrain_config import PretrainConfig
from vla.policy.pretrain.sigreg import random_directions, sigreg
from vla.policy.pretrain.world_model import WorldModel
from vla.policy.training.run import RunDirectory
from vla.policy.training.run_log import read_metrics

CPU = torch.device("cpu")
LOOKS_AT = LewmInput(cameras=CAMERAS, layout="row", view_size=(16, 16), image_size=16)
SMALL: dict[str, Any] = {
    "image_size": 16,
    "patch": 8,
    "width": 64,
    "depth": 1,
    "dim": 12,
    "predictor_depth": 1,
    "predictor_heads": 1,
    "predictor_mlp": 16,
    "history": 2,
    "frameskip": 3,
    "projections": 16,
    "steps": 4,
    "batch_size": 4,
    "lr": 1e-3,
    "device": "cpu",
    "tracker": "none",
    "val_episodes": 1,
    "log_every": 1,
    "val_every": 2,
    "save_every": 2,
}


def settings(**changes: Any) -> PretrainConfig:
    return PretrainConfig.model_validate({**SMALL, **changes})


@pytest.fixture
def frames(tmp_path: Path) -> FeatureCache:
    """Return a cache of frames of 16 x 16."""
    spec = fake_spec(lengths=(12, 9, 14), action_dim=2)
    streams = tuple(
        stream.model_copy(update={"kind": "image", "dtype": "uint8", "shape": (16, 16, 3)})
        if stream.name in CAMERAS
        else stream
        for stream in spec.streams
    )
    return write_cache(tmp_path / "frames", fake_spec(lengths=(12, 9, 14), action_dim=2, streams=streams))


def slow_sigreg(features: np.ndarray, directions: np.ndarray) -> float:
    """Integrate the statistic of Epps and Pulley over [-3, 3], one instant and direction after the other."""
    total, t = 0.0, np.linspace(-3, 3, 33)
    for instant in range(features.shape[1]):
        for direction in directions.T:
            projected = features[:, instant] @ direction
            found = np.exp(1j * np.outer(t, projected)).mean(axis=1)
            distance = np.abs(found - np.exp(-(t**2) / 2)) ** 2 * np.exp(-(t**2) / 2)
            total += len(projected) * float(np.trapezoid(distance, t))
    return total / (features.shape[1] * directions.shape[1])


def test_sigreg_is_the_statistic_computed_slowly() -> None:
    torch.manual_seed(0)
    features, directions = torch.randn(20, 2, 5) * 1.3 + 0.2, random_directions(5, 7, CPU)
    torch.testing.assert_close(directions.norm(dim=0), torch.ones(7))
    due = slow_sigreg(features.double().numpy(), directions.double().numpy())
    assert float(sigreg(features, directions)) == pytest.approx(due, rel=1e-4)


def test_sigreg_is_low_for_a_standard_normal_and_high_for_anything_else() -> None:
    torch.manual_seed(0)
    normal, directions = torch.randn(128, 1, 16), random_directions(16, 256, CPU)
    assert 0.7 < float(sigreg(normal, directions)) < 1.5
    assert float(sigreg(torch.zeros(128, 1, 16), directions)) == pytest.approx(51.5, abs=1)
    for other in (0.5 * normal, 2 * normal, normal + 1):
        assert float(sigreg(other, directions)) > 10


def test_effective_rank_counts_directions() -> None:
    torch.manual_seed(0)
    spread = torch.randn(4000, 1, 6)
    assert effective_rank(spread) == pytest.approx(6, abs=0.05)
    assert effective_rank(spread[..., :2] @ torch.randn(2, 6)) <= 2
    assert effective_rank(torch.ones(8, 1, 6)) == pytest.approx(1, abs=0.01)


def test_who_predicts_the_mean_or_no_change_has_a_ratio_of_one() -> None:
    torch.manual_seed(0)
    embedded = torch.randn(50, 3, 4)
    mean = embedded[:, 1:].mean(dim=(0, 1)).expand(50, 2, 4)
    assert float(health(embedded, mean)["over_mean"]) == pytest.approx(1)
    assert float(health(embedded, embedded[:, :-1])["over_copy"]) == pytest.approx(1)
    assert float(health(embedded, embedded[:, 1:])["over_mean"]) == 0


def test_a_collapse_is_said_with_what_to_do() -> None:
    assert collapse({"effective_rank": 30.0, "embedding_std": 0.9}, 0.09) == ""
    assert "--set pretrain.sigreg=0.18" in collapse({"effective_rank": 1.1, "embedding_std": 0.9}, 0.09)
    assert "--set pretrain.sigreg=0.1" in collapse({"effective_rank": 9.0, "embedding_std": 0.0}, 0.0)


def awake(predictor: Predictor) -> Predictor:
    for parameter in predictor.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return predictor.eval()


def test_the_predictor_sees_the_past_alone_and_the_actions() -> None:
    torch.manual_seed(0)
    predictor = awake(Predictor(3, 8, depth=2, heads=2, hidden=16, dropout=0.1))
    features, actions = torch.randn(2, 3, 8), torch.randn(2, 3, 8)
    before = predictor(features, actions)
    last = torch.tensor([0.0, 0.0, 1.0])[:, None]
    for changed in ((features, actions + last), (features + last * torch.randn(8), actions)):
        after = predictor(*changed)
        torch.testing.assert_close(after[:, :2], before[:, :2])
        assert (after[:, 2] - before[:, 2]).abs().max() > 1e-3


def test_at_the_start_actions_do_not_matter() -> None:
    torch.manual_seed(0)
    predictor = Predictor(3, 8, depth=2, heads=2, hidden=16, dropout=0.0)
    features = torch.randn(2, 3, 8)
    assert torch.equal(predictor(features, torch.randn(2, 3, 8)), predictor(features, torch.randn(2, 3, 8)))


def test_clips_lie_within_episodes_and_hold_the_actions_between_their_instants(frames: FeatureCache) -> None:
    cutter = ClipCutter(frames, CAMERAS, settings(), CPU)
    starts = cutter.starts([0, 1, 2])
    assert starts.tolist() == [*range(6), *range(12, 15), *range(21, 29)]  # 7 frames each, of 12, 9, 14
    clips = cutter.cut(starts[6:8])
    assert [tuple(view.shape) for view in clips.views] == [(2, 3, 16, 16, 3)] * 3
    due = frames.rows("top", torch.tensor([12, 15, 18]))
    assert torch.equal(clips.views[CAMERAS.index("top")][0], due)
    actions: Tensor = frames.all("action")
    torch.testing.assert_close(clips.actions[1], actions[13:19].unflatten(0, (2, 3)))


def test_episodes_that_are_too_short_are_refused(frames: FeatureCache) -> None:
    with pytest.raises(ConfigError, match=r"a clip takes 41 frames, and the longest of 2 episodes has 12"):
        ClipCutter(frames, CAMERAS, settings(frameskip=20), CPU).starts([0, 1])


def test_every_weight_is_trained_and_targets_are_not_detached(frames: FeatureCache) -> None:
    torch.manual_seed(0)
    model = WorldModel(settings(), 2)
    for parameter in model.predictor.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    clips = ClipCutter(frames, CAMERAS, settings(), CPU).cut(torch.tensor([0, 13, 21, 25]))
    outcome = model.loss(clips)
    outcome.loss.backward()
    assert [name for name, weight in model.named_parameters() if weight.grad is None] == []
    alone = float(outcome.figures["prediction"] + 0.09 * outcome.figures["sigreg"])
    assert float(outcome.loss.detach()) == pytest.approx(alone, rel=1e-5)
    last = model.embed(clips.views)[:, -1]  # seen by nothing but the targets
    assert last.requires_grad


def trained(path: Path, cache: FeatureCache, **changes: Any) -> RunDirectory:
    run = RunDirectory.create(path)
    pretrain(run, cache, LOOKS_AT, settings(**changes))
    return run


def losses(run: RunDirectory) -> list[float]:
    return [row["loss"] for row in read_metrics(run, "train")]


def test_a_resumed_run_has_the_losses_and_weights_of_an_uninterrupted_one(
    frames: FeatureCache, tmp_path: Path
) -> None:
    whole, stopped = (trained(tmp_path / name, frames) for name in ("whole", "stopped"))
    assert losses(whole) == losses(stopped) and len(losses(whole)) == 4
    shutil.rmtree(stopped.checkpoint(4))  # as if killed after step 3
    kept = [line for line in stopped.metrics.read_text().splitlines() if json.loads(line)["step"] <= 3]
    stopped.metrics.write_text("\n".join(kept) + '\n{"step": 4, "lo')
    report = pretrain(stopped, frames, LOOKS_AT, settings())
    assert (report.resumed_from, report.steps) == (2, 4)
    assert losses(stopped) == losses(whole)
    for name in ("model.safetensors", "training_state/optimizer_state.safetensors"):
        assert (stopped.checkpoint(4) / name).read_bytes() == (whole.checkpoint(4) / name).read_bytes()


def test_figures_say_how_the_features_are(frames: FeatureCache, tmp_path: Path) -> None:
    run = trained(tmp_path / "run", frames)
    signs = {"prediction", "sigreg", "embedding_std", "over_mean", "over_copy", "effective_rank"}
    assert all(signs <= row.keys() for row in read_metrics(run, "train"))
    assert [row["step"] for row in read_metrics(run, "val")] == [2, 4]
    assert signs <= read_metrics(run, "val")[0].keys()


def test_another_seed_is_another_run_and_old_checkpoints_go(frames: FeatureCache, tmp_path: Path) -> None:
    runs = [trained(tmp_path / str(seed), frames, seed=seed, save_every=1) for seed in (0, 1)]
    assert losses(runs[0]) != losses(runs[1])
    there = sorted(path.name for path in (runs[0].path / "checkpoints").iterdir())
    assert there == ["000003", "000004", "last"]


def test_a_damaged_checkpoint_is_refused_naming_what_helps(frames: FeatureCache, tmp_path: Path) -> None:
    run = trained(tmp_path / "run", frames, steps=2)
    weights = run.checkpoint(2) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(CheckpointError, match=r"remove the checkpoint, .*: rm -r .*000002"):
        pretrain(run, frames, LOOKS_AT, settings(steps=2))


@pytest.mark.parametrize(
    ("key", "value", "what"),
    [
        ("width", 100, "width 100 is no multiple of 64"),
        ("image_size", 100, "image_size 100 is no multiple of patch"),
        ("batch_size", 1, "greater than or equal to 2"),
        ("layout", "pile", "'row', 'column' or 'grid'"),
    ],
)
def test_sizes_that_cannot_be_are_refused(key: str, value: object, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        settings(**{key: value})
