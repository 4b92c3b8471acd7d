"""A policy with a language model drives: two tasks that only their words tell apart, live and served."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_env import ENV_ID
from fake_language import HAND, PICK, Bench, act, first_observation, live
from fake_language_model import write_language_model
from test_task_text import serving

from vla.base.errors import ConfigError
from vla.client import PolicyClient
from vla.inspect import inspect
from vla.stages import export, rollout


@pytest.fixture(scope="module")
def told(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a policy whose language model is frozen and never saw a text before."""
    model = write_language_model(tmp_path_factory.mktemp("model") / "tiny")
    fusion = {"type": "language_model", "model": str(model), "queries": 2}
    policy, loss = bench.train("language-model", **{"policy.fusion": fusion, "train.max_cache_gib": 1e-9})
    assert loss < 0.1  # without the words nothing is better than 1
    return policy


def test_the_words_decide_what_is_done_and_new_ones_are_read(bench: Bench, told: Path) -> None:
    policy = live(bench, told)
    np.testing.assert_allclose(act(policy, PICK), [[1, 3]] * 8, atol=0.8)
    np.testing.assert_allclose(act(policy, HAND), [[-1, -3]] * 8, atol=0.8)
    new = act(policy, "Pick the red box, and hand it over")
    assert np.isfinite(new).all() and np.abs(new - act(policy, PICK)).max() > 1e-3
    with pytest.raises(ConfigError, match="knows 2 tasks and none is chosen"):
        act(policy)


def test_robots_side_by_side_are_told_texts_of_any_lengths(bench: Bench, told: Path) -> None:
    policy, texts = (
        live(bench, told),
        (PICK, "Pick the red box, and hand it over, and then pick it again", HAND),
    )
    frames = np.repeat(first_observation()["pixels"]["top"][None, None], 2, axis=1)
    seen = {"top": np.repeat(frames, 3, axis=0), "state": np.zeros((3, 2, 3), np.float32)}
    together = policy.act(seen, [0, 0, 0], texts).actions
    np.testing.assert_allclose(together, [act(policy, text) for text in texts], atol=5e-3)


def test_a_client_says_what_to_do_to_a_language_model(bench: Bench, told: Path) -> None:
    policy, seen = live(bench, told), first_observation()
    with serving(policy) as url, PolicyClient(url, timeout_s=60.0) as client:
        for task in (PICK, "Pick it"):
            client.reset()
            found = client.act(seen, seed=0, task=task).actions
            np.testing.assert_allclose(found, act(policy, task), atol=5e-3)


@pytest.mark.slow
def test_it_is_rolled_out_and_inspected_and_not_exported(bench: Bench, told: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "env.id": ENV_ID,
        "env.kwargs": {"cameras": ["top"], "state_dim": 3, "action_dim": 2},
        "rollout.task": PICK,
        "rollout.episodes": 1,
        "rollout.num_envs": 1,
        "rollout.videos": 0,
    }
    found = rollout(bench.settings(**settings), told, out=tmp_path / "rollout")
    assert found["task"] == PICK and found["aggregated"]["pc_success"] == 100
    assert inspect(told)["fusion"] == "language_model"
    with pytest.raises(ConfigError, match="a language model and its tokeniser are more than a graph"):
        export(bench.settings(**{"rollout.task": PICK}), told, tmp_path / "policy.onnx")
