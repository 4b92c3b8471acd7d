"""Which checkpoint is the best without a simulator, and training that ends by itself."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from fakes import fake_spec, write_cache
from test_train import POLICY as FULL
from test_train import losses, settings

from vla.base.errors import ConfigError
from vla.cache import FeatureCache
from vla.policy.agents.policy import Policy
from vla.policy.heads.mlp import MlpConfig
from vla.policy.training import trainer
from vla.policy.training.run import RunDirectory
from vla.policy.training.run_log import read_metrics
from vla.policy.training.train import TrainReport, train

POLICY = FULL.model_copy(update={"head": MlpConfig(width=16)})  # the quickest


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    return write_cache(tmp_path / "cache", fake_spec(lengths=(12, 9, 10)))


def measure(monkeypatch: pytest.MonkeyPatch, losses: Sequence[float], errors: Sequence[float] = ()) -> None:
    """Let validations after steps 1, 2, … find these figures."""
    found = iter(zip(losses, errors or losses, strict=True))

    def validate_all(*_: object, **__: object) -> dict[str, float]:
        loss, error = next(found)
        return {"loss": loss, "action_rmse": error}

    monkeypatch.setattr(trainer, "validate_all", validate_all)


def trained(path: Path, cache: FeatureCache, **changes: object) -> tuple[RunDirectory, TrainReport]:
    run = RunDirectory.create(path) if not path.exists() else RunDirectory(path)
    quick = {"steps": 6, "val_every": 1, "save_every": 3, "tracker": "none"}
    return run, train(run, cache, POLICY, settings(**{**quick, **changes}))


def checkpoints(run: RunDirectory) -> list[str]:
    return sorted(path.name for path in (run.path / "checkpoints").iterdir())


def test_the_best_checkpoint_is_that_of_the_lowest_held_out_loss(
    cache: FeatureCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure(monkeypatch, [5.0, 3.0, 4.0, 2.0, 2.0, 6.0])
    run, report = trained(tmp_path / "run", cache)
    assert report.best_step == 4
    # 1 and 2 were the best of their time, and are there for nothing else.
    assert checkpoints(run) == ["000003", "000004", "000006", "best", "last"]
    assert run.policy_folder() == run.checkpoint(4) / "pretrained_model"


def test_the_best_checkpoint_can_be_that_of_the_lowest_action_error(
    cache: FeatureCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure(monkeypatch, [5.0, 4.0, 3.0, 2.0, 1.0, 0.5], [0.9, 0.8, 0.2, 0.3, 0.4, 0.5])
    assert trained(tmp_path / "run", cache, best="action_error")[1].best_step == 3


def test_rollouts_judge_where_there_are_some_unless_another_measure_is_named(
    cache: FeatureCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rollout(policy: Policy, step: int) -> Mapping[str, float]:
        return {"avg_reward": {3: 1.0, 6: 0.0}[step]}

    for best, step in (("auto", 3), ("reward", 3), ("val_loss", 5)):
        measure(monkeypatch, [5.0, 4.0, 3.0, 2.0, 1.0, 6.0])
        run = RunDirectory.create(tmp_path / best)
        config = settings(steps=6, val_every=1, save_every=3, rollout_every=3, best=best, tracker="none")
        assert train(run, cache, POLICY, config, rollout).best_step == step


def test_training_ends_when_nothing_becomes_better(
    cache: FeatureCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measure(monkeypatch, [5.0, 3.0, 4.0, 3.5, 1.0, 1.0])
    run, report = trained(tmp_path / "run", cache, patience=2)
    assert (report.steps, report.best_step, run.last_step()) == (4, 2, 4)
    says = "stopped at step 4 of 6: val_loss has been best at step 2 (3), 2 measurements ago; go on: --resume"
    assert says in capsys.readouterr().err
    assert trained(tmp_path / "run", cache, patience=2)[1].steps == 4  # nothing has changed
    measure(monkeypatch, [1.0, 1.5])
    assert trained(tmp_path / "run", cache)[1].best_step == 5


def test_a_run_that_keeps_its_best_has_the_losses_of_one_that_does_not(
    cache: FeatureCache, tmp_path: Path
) -> None:
    judged, _ = trained(tmp_path / "judged", cache, val_every=1)
    plain, _ = trained(tmp_path / "plain", cache, val_every=100)
    assert losses(judged) == losses(plain)


def test_a_kill_before_the_best_is_saved_measures_again(
    cache: FeatureCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure(monkeypatch, [5.0, 4.0])

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as inside, pytest.raises(KeyboardInterrupt):
        inside.setattr(trainer.Trainer, "_save", killed)
        trained(tmp_path / "run", cache)
    measure(monkeypatch, [5.0, 4.0, 3.0, 2.0, 1.0, 0.5])
    run, report = trained(tmp_path / "run", cache)
    assert report.best_step == 6
    assert [row["step"] for row in read_metrics(run, "val")] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"best": "reward"}, r"train\.best = reward needs validation rollouts"),
        ({"best": "val_loss", "val_episodes": 0}, r"train\.best = val_loss needs held-out episodes"),
        ({"patience": 2, "val_episodes": 0}, r"train\.patience = 2 needs something that is measured"),
    ],
)
def test_a_measure_that_is_not_taken_is_refused(
    cache: FeatureCache, tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        trained(tmp_path / "run", cache, **changes)


def test_without_anything_measured_there_is_no_best(cache: FeatureCache, tmp_path: Path) -> None:
    run, report = trained(tmp_path / "run", cache, val_episodes=0)
    assert report.best_step is None and not (run.path / "checkpoints/best").exists()
