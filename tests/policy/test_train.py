"""Training: continue exactly, run directory, averages, refusals."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from fakes import fake_spec, write_cache
from safetensors.torch import load_file

from vla.base.errors import CheckpointError, ConfigError, VlaError
from vla.cache import FeatureCache
from vla.policy.agents.policy import Policy, load_policy
from vla.policy.agents.vla_agent import VLAAgentConfig
from vla.policy.training.optimizer import learning_rate
from vla.policy.training.run import RunDirectory
from vla.policy.training.run_log import RunLog, read_metrics
from vla.policy.training.train import TrainReport, train
from vla.policy.training.train_config import TrainConfig

POLICY = VLAAgentConfig(per_view_dim=4, cond_dim=8, n_emb=16, n_layer=1, n_head=2)


def settings(**changes: object) -> TrainConfig:
    values = {
        "steps": 8,
        "batch_size": 8,
        "device": "cpu",
        "warmup_steps": 2,
        "lr": 1e-3,
        "val_episodes": 1,
        "log_every": 1,
        "val_every": 4,
        "save_every": 4,
        "rollout_every": 0,
    }
    return TrainConfig.model_validate({**values, **changes})


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    return write_cache(tmp_path / "cache", fake_spec(lengths=(12, 9, 10)))


def losses(run: RunDirectory) -> list[float]:
    return [row["loss"] for row in read_metrics(run, "train")]


def trained(path: Path, cache: FeatureCache, **changes: object) -> RunDirectory:
    run = RunDirectory.create(path)
    train(run, cache, POLICY, settings(**changes))
    return run


def test_a_resumed_run_has_the_losses_and_weights_of_an_uninterrupted_one(
    cache: FeatureCache, tmp_path: Path
) -> None:
    whole = trained(tmp_path / "whole", cache)
    stopped = trained(tmp_path / "stopped", cache)
    shutil.rmtree(stopped.checkpoint(8))  # as if killed at step 6: figures of 5 and 6, checkpoint of 4
    kept = [line for line in stopped.metrics.read_text().splitlines() if json.loads(line)["step"] <= 6]
    stopped.metrics.write_text("\n".join(kept) + '\n{"step": 7, "lo')
    report = train(stopped, cache, POLICY, settings())
    assert (report.resumed_from, report.steps) == (4, 8)
    assert losses(stopped) == losses(whole)
    assert [row["step"] for row in read_metrics(stopped, "train")] == list(range(1, 9))
    for name in ("pretrained_model/model.safetensors", "training_state/optimizer_state.safetensors"):
        expected, found = (load_file(run.checkpoint(8) / name) for run in (whole, stopped))
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[key], found[key]) for key in expected)


def test_the_same_seed_gives_the_same_losses_and_another_seed_others(
    cache: FeatureCache, tmp_path: Path
) -> None:
    runs = [trained(tmp_path / str(i), cache, steps=3, seed=seed) for i, seed in enumerate((0, 0, 1))]
    assert losses(runs[0]) == losses(runs[1]) != losses(runs[2])


def test_a_memory_mapped_cache_gives_the_losses_of_a_resident_one(
    cache: FeatureCache, tmp_path: Path
) -> None:
    resident = trained(tmp_path / "a", cache, steps=3)
    mapped = trained(tmp_path / "b", cache, steps=3, max_cache_gib=1e-9)
    assert losses(resident) == losses(mapped)


def test_the_run_directory_has_lerobots_layout(cache: FeatureCache, tmp_path: Path) -> None:
    run = trained(tmp_path / "run", cache)
    assert sorted(p.name for p in (run.path / "checkpoints").iterdir()) == [
        "000004",
        "000008",
        "best",
        "last",
    ]
    assert (run.path / "checkpoints/last").readlink() == Path("000008")
    policy = run.checkpoint(8) / "pretrained_model"
    assert sorted(p.name for p in policy.iterdir()) == [
        "config.json",
        "model.safetensors",
        "model_raw.safetensors",
    ]
    row = read_metrics(run, "train")[-1]
    assert {"step", "loss", "grad_norm", "lr", "dataloading_s", "update_s", "samples_per_s"} <= row.keys()
    assert list((run.path / "tensorboard").glob("events.*"))


def test_averaged_and_plain_weights_are_both_saved(cache: FeatureCache, tmp_path: Path) -> None:
    folder = trained(tmp_path / "run", cache).policy_folder()
    averaged, plain = (load_file(folder / name) for name in ("model.safetensors", "model_raw.safetensors"))
    assert averaged.keys() == plain.keys()
    assert not torch.equal(averaged["fusion.cond_projector.weight"], plain["fusion.cond_projector.weight"])


def test_zero_steps_save_the_untrained_policy(cache: FeatureCache, tmp_path: Path) -> None:
    run = trained(tmp_path / "run", cache, steps=0)
    assert len(load_policy(run.policy_folder("last")).observes) == 4


def test_training_lowers_the_loss(cache: FeatureCache, tmp_path: Path) -> None:
    run = trained(tmp_path / "run", cache, steps=60, lr=3e-3, batch_size=16, ema_decay=0.9)
    figures = [row["v_mse"] for row in read_metrics(run, "train")]
    assert sum(figures[-10:]) < 0.7 * sum(figures[:10])


def test_rollouts_choose_the_best_checkpoint(cache: FeatureCache, tmp_path: Path) -> None:
    rewards = {4: 2.0, 8: 1.0}

    def rollout(policy: Policy, step: int) -> Mapping[str, float]:
        return {"avg_reward": rewards[step]}

    run = RunDirectory.create(tmp_path / "run")
    report = train(run, cache, POLICY, settings(rollout_every=4), rollout)
    assert (report.best_step, report.best_avg_reward) == (4, 2.0)
    assert (run.path / "checkpoints/best").readlink() == Path("000004")
    assert run.policy_folder() == run.checkpoint(4) / "pretrained_model"


def test_the_last_checkpoint_is_the_newest_wherever_the_link_leads(
    cache: FeatureCache, tmp_path: Path
) -> None:
    run = trained(tmp_path / "run", cache)
    run.link("last", 4)  # as if killed before the link was set
    assert run.policy_folder("last") == run.checkpoint(8) / "pretrained_model"
    train(run, cache, POLICY, settings())
    assert (run.path / "checkpoints/last").readlink() == Path("000008")
    shutil.rmtree(run.checkpoint(8))  # as `vla verify` advises of a damaged one
    assert run.policy_folder() == run.checkpoint(4) / "pretrained_model"


def test_a_best_checkpoint_that_is_gone_counts_as_absent_until_training_goes_on(
    cache: FeatureCache, tmp_path: Path
) -> None:
    rewards = {4: 2.0, 8: 1.0, 12: 0.5}

    def rollout(policy: Policy, step: int) -> Mapping[str, float]:
        return {"avg_reward": rewards[step]}

    run = RunDirectory.create(tmp_path / "run")
    train(run, cache, POLICY, settings(rollout_every=4), rollout)
    shutil.rmtree(run.checkpoint(4))
    assert run.policy_folder() == run.checkpoint(8) / "pretrained_model"
    with pytest.raises(CheckpointError, match=r"no checkpoint 'best'; checkpoints: 000008, last$"):
        run.policy_folder("best")
    train(run, cache, POLICY, settings(rollout_every=4, steps=12), rollout)
    assert (run.path / "checkpoints/best").readlink() == Path("000008")


def test_rollouts_missed_by_a_kill_are_made_up_for(cache: FeatureCache, tmp_path: Path) -> None:
    run, calls = RunDirectory.create(tmp_path / "run"), []

    def killed(policy: Policy, step: int) -> Mapping[str, float]:
        raise KeyboardInterrupt

    def rollout(policy: Policy, step: int) -> Mapping[str, float]:
        calls.append(step)
        return {"avg_reward": 0.0}

    with pytest.raises(KeyboardInterrupt):
        train(run, cache, POLICY, settings(rollout_every=4), killed)
    train(run, cache, POLICY, settings(rollout_every=4), rollout)
    assert calls == [4, 8]


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(
    cache: FeatureCache, tmp_path: Path
) -> None:
    run = trained(tmp_path / "run", cache, steps=4)
    with pytest.raises(
        VlaError,
        match=r"the \w+ is \w+ at step \d+; the last checkpoint, 000004, is kept\. The cache is finite",
    ):
        train(run, cache, POLICY, settings(steps=20, lr=1e30, grad_clip=1e30, warmup_steps=0))
    assert run.last_step() == 4


def test_an_existing_run_is_not_overwritten(cache: FeatureCache, tmp_path: Path) -> None:
    trained(tmp_path / "run", cache, steps=1)
    with pytest.raises(CheckpointError, match="exists; continue it with --resume, or choose another --out"):
        RunDirectory.create(tmp_path / "run")


def test_an_unknown_checkpoint_lists_those_there_are(cache: FeatureCache, tmp_path: Path) -> None:
    run = trained(tmp_path / "run", cache)
    with pytest.raises(CheckpointError, match="no checkpoint '5'; checkpoints: 000004, 000008, best, last"):
        run.policy_folder("5")


def test_a_checkpoint_of_another_shape_is_refused(cache: FeatureCache, tmp_path: Path) -> None:
    run = trained(tmp_path / "run", cache, steps=1)
    wider = POLICY.model_copy(update={"n_emb": 32})
    with pytest.raises(CheckpointError, match="cannot be continued from"):
        train(run, cache, wider, settings())


def test_the_learning_rate_warms_up_and_ends_at_its_floor() -> None:
    config = settings(steps=100, warmup_steps=10, lr=1.0, min_lr_share=0.1)
    assert learning_rate(0, config) == pytest.approx(0.1)
    assert learning_rate(9, config) == learning_rate(10, config) == pytest.approx(1.0)
    assert learning_rate(55, config) == pytest.approx(0.55)
    assert learning_rate(100, config) == pytest.approx(0.1)


def test_a_report_is_plain_data(cache: FeatureCache, tmp_path: Path) -> None:
    report = train(RunDirectory.create(tmp_path / "run"), cache, POLICY, settings(steps=2))
    assert isinstance(report, TrainReport)
    json.dumps(vars(report))


def test_the_passes_of_an_update_add_up_to_the_loss_of_one(cache: FeatureCache, tmp_path: Path) -> None:
    runs = [trained(tmp_path / str(n), cache, steps=4, accumulate=n) for n in (1, 2, 4)]
    for shared in runs[1:]:
        assert losses(shared) == pytest.approx(losses(runs[0]), rel=1e-5)
        norms = [[row["grad_norm"] for row in read_metrics(run, "train")] for run in (runs[0], shared)]
        assert norms[1] == pytest.approx(norms[0], rel=1e-4)


def test_passes_that_cannot_share_a_batch_are_refused(cache: FeatureCache, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="batch_size 8 cannot be shared by 1 processes in 3 passes"):
        trained(tmp_path / "run", cache, accumulate=3)


def test_only_the_main_process_writes_a_log(cache: FeatureCache, tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run")
    with RunLog(run, 0, writes=False) as log:
        log.write("train", 1, {"loss": 1.0})
    assert not run.metrics.exists()
