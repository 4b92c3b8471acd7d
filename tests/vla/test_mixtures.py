"""`vla train --cache A --cache B`: options, what a run saves, and what --resume compares."""

from pathlib import Path
from typing import Any

import pytest
import tomli_w
from fakes import written

import vla
from vla.base.errors import CacheError, ConfigError
from vla.cli import main
from vla.config import PipelineConfig
from vla.policy.training.run import RunDirectory

SMALL: dict[str, Any] = {
    "policy": {
        "per_view_dim": 4,
        "cond_dim": 8,
        "n_emb": 16,
        "n_layer": 1,
        "n_head": 2,
        "head": {"type": "mlp"},
    },
    "train": {
        "steps": 1,
        "batch_size": 8,
        "device": "cpu",
        "tracker": "none",
        "val_episodes": 1,
        "rollout_every": 0,
    },
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working directory: two caches, `a` and `b`, and a small pipeline.toml."""
    monkeypatch.chdir(tmp_path)
    written(Path("a"), 0, "a")
    written(Path("b"), 1, "b")
    Path("pipeline.toml").write_text(tomli_w.dumps(SMALL))
    return tmp_path


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["train", "--out", "run", *words])
    return int(ended.value.code or 0)


def test_a_run_saves_its_caches_and_resumes_with_no_other(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--cache", "a", "--cache", "b", "--weights", "2,1") == 0
    saved = PipelineConfig.load(RunDirectory(Path("run")).config, {}, []).train
    assert (saved.caches, saved.weights) == (("a", "b"), (2, 1))
    assert run("--resume") == 0
    capsys.readouterr()
    for words, said in (
        (["--weights", "1,1"], "was trained with weights 2,1 of a ("),
        (["--cache", "b", "--cache", "a"], "continue with the former, in that order (--cache)"),
        (["--cache", "a"], "was trained on a ("),
        (["--set", "train.normalise=each"], "with another train.rename or train.normalise"),
    ):
        assert run("--resume", *words) == 1
        assert said in capsys.readouterr().err


def test_the_python_call_takes_a_list_of_caches(here: Path) -> None:
    caches: list[vla.FeatureCache | str | Path] = [vla.FeatureCache("a"), "b"]
    keys = {f"{table}.{key}": value for table, keys in SMALL.items() for key, value in keys.items()}
    report = vla.train(caches, "run", weights=(2, 1), settings=keys)
    assert report.steps == 1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"train.weights": [2.0, 1.0]}, r"train\.weights is for several caches, and there is one"),
        ({"train.rename": {"a": {"top": "front"}}}, r"train\.rename is for several caches"),
        ({"train.normalise": "each"}, r"train\.normalise = each is for several caches"),
    ],
)
def test_settings_of_mixtures_need_one(here: Path, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        vla.train("a", "run", settings=settings)
    assert not Path("run").exists()


def test_a_cache_that_is_missing_is_named_with_advice(here: Path) -> None:
    with pytest.raises(CacheError, match="no feature cache at c; make one"):
        vla.train(["a", "c"], "run")
