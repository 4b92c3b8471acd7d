"""What is asked of a cache is held against it before a run begins."""

import shutil
from pathlib import Path

import pytest
from fake_env import ENV_ID
from fake_language import Bench, make_bench
from fakes import write_two_tower_checkpoint

from vla.config import PipelineConfig
from vla.errors import EncoderError, EnvironmentSetupError
from vla.policy.run import RunDirectory
from vla.policy.run_log import read_metrics


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """One camera `top`, three state and two action values: not what `sim_transfer` has."""
    return make_bench(tmp_path_factory.mktemp("own"))


def test_own_data_without_an_environment_is_trained_on_without_validation_rollouts(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.train("own", **{"train.steps": 2, "train.rollout_every": 1})
    said = capsys.readouterr().err
    assert "no validation rollouts: no environment is named (env.id)" in said
    run = RunDirectory(bench.root / "own")
    assert read_metrics(run, "rollout") == []
    assert PipelineConfig.load(run.config, {}, []).train.rollout_every == 0  # --resume asks nothing


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"env.id": "vla/SimTransfer-v0"}, "have 3 state and 2 action values, .* has 16 and 16"),
        ({"env.id": ENV_ID, "env.kwargs": {"cameras": ["wrist"]}}, "camera 'top', .* has: wrist"),
        ({"env.id": "vla/Nowhere-v0"}, "no environment is registered as 'vla/Nowhere-v0'"),
    ],
)
def test_a_named_environment_that_does_not_fit_is_refused_before_the_run_begins(
    bench: Bench, env: dict[str, object], words: str
) -> None:
    with pytest.raises(EnvironmentSetupError, match=words) as caught:
        bench.train("never", **{"train.rollout_every": 10, **env})
    assert "train.rollout_every=0" in str(caught.value) and "\n" not in str(caught.value)
    assert not Path(bench.root / "never").exists()


def test_an_encoder_that_changed_since_the_cache_was_made_is_refused_before_the_first_step(
    bench: Bench, tmp_path: Path
) -> None:
    moved = Bench(tmp_path, bench.dataset, tmp_path / "siglip2")
    shutil.copytree(bench.encoder, moved.encoder)
    moved.embed()
    write_two_tower_checkpoint(moved.encoder, seed=1)
    env = {"env.id": ENV_ID, "env.kwargs": {"cameras": ["top"], "state_dim": 3, "action_dim": 2}}
    with pytest.raises(EncoderError, match=r"features of .*, the encoder named is"):
        moved.train("never", **{"train.rollout_every": 10, **env})
    assert RunDirectory(moved.root / "never").last_step() is None
