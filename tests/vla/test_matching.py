"""What is asked of a cache and of a run is held against them before training begins."""

import shutil
from pathlib import Path

import pytest
from fake_env import ENV_ID
from fake_language import Bench
from fakes import write_two_tower_checkpoint

from vla.base.errors import ConfigError, EncoderError, EnvironmentSetupError
from vla.config import PipelineConfig
from vla.policy.training.run import RunDirectory
from vla.policy.training.run_log import read_metrics
from vla.saved import run_tables
from vla.stages import train


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
        ({"env.id": "vla/SimTransfer-v0"}, r"observes state \(vector, float32 \[3\]\), .* as float32 \[16\]"),
        ({"env.id": ENV_ID, "env.kwargs": {"cameras": ["wrist"]}}, "camera 'top', .* has: state, wrist"),
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


@pytest.fixture(scope="module")
def begun(bench: Bench) -> RunDirectory:
    """Return a run of one step."""
    bench.train("begun", **{"policy.head": "flow", "train.steps": 1})
    return RunDirectory(bench.root / "begun")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        # Weights of a flow fit a DDPM: nothing but the configuration tells them apart.
        ({"policy.head": "ddpm"}, r"policy\.head = flow, .* says ddpm; .*\(--set policy\.head=flow\)"),
        ({"policy.n_emb": 32}, r"policy\.n_emb = 16, .* says 32; .*\(--set policy\.n_emb=16\)"),
        ({"train.device": "cuda:99"}, "'cuda:99' is not available here"),
        ({"train.val_episodes": 4}, r"train\.val_episodes = 2, .* says 4; .*\(--set train\.val_episodes=2\)"),
        ({"train.lr": 0.5}, r"was begun with train\.lr = .*, the configuration says 0\.5"),
        ({"train.betas": [0.5, 0.5]}, r"train\.betas = \[0\.9, 0\.95\], .* says \[0\.5, 0\.5\]"),
        ({"train.steps": 2}, r"train\.steps = 1, .* says 2; .*\(--extend\)"),
    ],
)
def test_what_a_resumed_run_refuses_does_not_change_its_configuration(
    bench: Bench, begun: RunDirectory, change: dict[str, object], words: str
) -> None:
    before = begun.config.read_bytes()
    same = {"policy.head": "flow", "train.steps": 1, "train.out": str(begun.path)}
    with pytest.raises(ConfigError, match=words) as caught:
        train(bench.settings(**{**same, **change}), resume=True)
    assert "\n" not in str(caught.value)
    assert begun.config.read_bytes() == before
    assert train(bench.settings(**same), resume=True).resumed_from == 1


def test_a_new_run_that_is_refused_leaves_nothing_to_go_on_with(bench: Bench) -> None:
    with pytest.raises(ConfigError, match="'cuda:99' is not available here"):
        bench.train("mended", **{"train.device": "cuda:99"})
    bench.train("mended", **{"train.steps": 1})


def test_a_run_is_extended_by_name_and_its_configuration_says_so(bench: Bench) -> None:
    bench.train("longer", **{"train.steps": 1})
    longer = {"train.out": str(bench.root / "longer"), "train.steps": 3}
    with pytest.raises(ConfigError, match="so it needs --resume"):
        train(bench.settings(**longer), extend=True)
    report = train(bench.settings(**longer), resume=True, extend=True)
    assert (report.resumed_from, report.steps) == (1, 3)
    tables = run_tables(bench.root / "longer")
    assert (tables["train"]["steps"], tables["train"]["extended"]) == (3, [1])
    same = {**longer, "train.extended": [1]}
    for extend in (False, True):  # the same command again, as after a kill
        assert train(bench.settings(**same), resume=True, extend=extend).resumed_from == 3


def test_what_only_says_where_a_run_computes_may_change(bench: Bench, begun: RunDirectory) -> None:
    same = {"policy.head": "flow", "train.steps": 1, "train.out": str(begun.path)}
    free = {"train.accumulate": 2, "train.log_every": 7, "train.max_cache_gib": 1.0, "train.patience": 3}
    assert train(bench.settings(**same, **free), resume=True).resumed_from == 1
