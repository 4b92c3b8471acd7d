"""The live policy is told what to do: by configuration, by a client, in an exported graph."""

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from fake_language import (
    HAND,
    PICK,
    Bench,
    act,
    first_observation,
    live,
    with_other_text_tower,
    write_two_tasks,
)

from vla.base.errors import ConfigError, EncoderError, ServerError
from vla.base.wire import pack
from vla.client import PolicyClient, to_streams
from vla.embed.encoders.siglip_checkpoint import load_checkpoint
from vla.inspect import inspect
from vla.policy.sharing.share import share
from vla.rollout.live import LivePolicy
from vla.rollout.rollout_config import ServeConfig
from vla.rollout.serve.server import PolicyServer
from vla.saved import default_rollout_folder
from vla.stages import export

ROOT = Path(__file__).parents[2]


def message(error: pytest.ExceptionInfo[Exception]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_of_several_tasks_one_must_be_chosen(bench: Bench, trained: tuple[Path, float]) -> None:
    policy = live(bench, trained[0])
    with pytest.raises(ConfigError, match=f"none is chosen .*'{PICK}', '{HAND}'") as caught:
        act(policy)
    message(caught)
    np.testing.assert_array_equal(act(live(bench, trained[0], **{"rollout.task": HAND})), act(policy, HAND))


def test_a_task_of_the_training_needs_no_text_tower_and_another_one_does(
    bench: Bench, trained: tuple[Path, float], tmp_path: Path
) -> None:
    load_checkpoint(str(bench.encoder), "main").model.save_pretrained(tmp_path / "vision")
    blind = live(bench, trained[0], **{"encoder.id": str(tmp_path / "vision")})
    told = live(bench, trained[0])
    np.testing.assert_array_equal(act(blind, HAND), act(told, HAND))
    np.testing.assert_array_equal(act(blind, PICK.upper()), act(told, PICK))
    with pytest.raises(EncoderError, match=r"not trained on the task 'Pick it' but on: .*has no text tower"):
        act(blind, "Pick it")
    new = act(told, "Pick it")
    assert np.isfinite(new).all() and np.abs(new - act(told, PICK)).max() > 1e-3


def test_another_text_tower_is_refused(bench: Bench, trained: tuple[Path, float], tmp_path: Path) -> None:
    other = with_other_text_tower(bench.encoder, tmp_path / "siglip2-other")
    policy = live(bench, trained[0], **{"encoder.id": str(other)})
    act(policy, PICK)
    with pytest.raises(
        EncoderError, match="has another text tower than the policy was trained with"
    ) as caught:
        act(policy, "Pick it")
    message(caught)


def test_a_single_task_is_the_default(bench: Bench, tmp_path: Path) -> None:
    one = Bench(tmp_path, write_two_tasks(tmp_path / "one", [PICK, PICK, PICK]), bench.encoder)
    one.embed()
    policy, _ = one.train("run", **{"policy.language": True, "train.steps": 2})
    told = live(one, policy)
    assert told.tasks.text() == PICK
    np.testing.assert_array_equal(act(told), act(told, PICK))


def test_a_policy_without_language_takes_no_task(bench: Bench) -> None:
    policy, _ = bench.train("mute", **{"train.steps": 1})
    with pytest.raises(ConfigError, match="takes no task text"):
        live(bench, policy, **{"rollout.task": PICK})


def test_rollouts_of_different_tasks_go_to_different_folders(
    bench: Bench, trained: tuple[Path, float]
) -> None:
    folders = [
        default_rollout_folder(bench.settings(**{"rollout.task": task}), trained[0]).name
        for task in ("", PICK, HAND)
    ]
    assert folders[1:] == [f"{folders[0]}_pick-the-red-box", f"{folders[0]}_hand-it-over"]


# --- other programs


@contextmanager
def serving(policy: LivePolicy) -> Iterator[str]:
    """Run a server in a thread; yields its url."""
    loop, stop, urls, ready = asyncio.new_event_loop(), asyncio.Event(), [""], threading.Event()

    def started(url: str) -> None:
        urls[0] = url
        ready.set()

    server = PolicyServer(policy, ServeConfig(port=0))
    thread = threading.Thread(target=loop.run_until_complete, args=(server.run(stop, started),))
    thread.start()
    try:
        assert ready.wait(60)
        yield urls[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)
        loop.close()


def test_a_client_says_what_to_do(bench: Bench, trained: tuple[Path, float]) -> None:
    policy, seen = live(bench, trained[0]), first_observation()
    with serving(policy) as url, PolicyClient(url, timeout_s=60.0) as client:
        for task in (PICK, HAND, "Pick it"):
            client.reset()
            found = client.act(seen, seed=0, task=task).actions
            np.testing.assert_allclose(found, act(policy, task), atol=5e-3)
        client.reset()
        np.testing.assert_allclose(client.select_action(seen, task=HAND), act(policy, HAND)[0], atol=5e-3)


def test_what_is_wrong_with_a_clients_task_is_answered_in_one_line_and_changes_nothing(
    bench: Bench, trained: tuple[Path, float]
) -> None:
    policy = live(bench, trained[0])
    other = {**first_observation(), "agent_pos": np.ones(3, np.float32)}
    with serving(policy) as url, PolicyClient(url, timeout_s=60.0) as client:
        with pytest.raises(ServerError, match="knows 2 tasks and none is chosen"):
            client.act(other, seed=0)
        with pytest.raises(ServerError, match="'task' must be a text, found 7"):
            client._ask(pack("act", observation=to_streams(other), task=7), "actions")
        found = client.act(first_observation(), seed=0, task=PICK).actions
        np.testing.assert_allclose(found, act(policy, PICK), atol=5e-3)  # none of them was observed


def test_a_served_policy_without_language_refuses_a_task(bench: Bench) -> None:
    policy, _ = bench.train("deaf", **{"train.steps": 1})
    with serving(live(bench, policy)) as url, PolicyClient(url, timeout_s=60.0) as client:
        with pytest.raises(ServerError, match="takes no task text"):
            client.act(first_observation(), task=PICK)
        assert client.act(first_observation()).actions.shape == (8, 2)


@pytest.mark.slow
def test_a_graph_is_exported_for_one_task(bench: Bench, trained: tuple[Path, float], tmp_path: Path) -> None:
    path = tmp_path / "policy.onnx"
    with pytest.raises(ConfigError, match="knows 2 tasks and none is chosen"):
        export(bench.settings(), trained[0], path)
    options = ["--onnx", str(path), "--task", HAND, "--check", "2", "--json"]
    # In a process of its own: tracing does not go through checks of array shapes.
    finished = subprocess.run(
        [sys.executable, "-m", "vla", "export", str(trained[0]), *options],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
    )
    assert finished.returncode == 0, finished.stderr
    assert json.loads(finished.stdout)["max_difference_std"] < 1e-2
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    frames = np.zeros((2, 2, 256, 256, 3), np.uint8)
    state = np.zeros((2, 2, 3), np.float32)
    feed = {"pixels.top": frames, "state": state}
    (actions,) = session.run(None, {**feed, "noise": np.zeros((2, 16, 2), np.float32)})
    expected = live(bench, trained[0]).act({"top": frames, "state": state}, [0, 0], HAND).actions
    np.testing.assert_allclose(actions, expected, atol=1e-4)
    assert json.loads(path.with_suffix(".json").read_text())["task"] == HAND
    assert f"It does one task: '{HAND}'" in path.with_suffix(".md").read_text()


def test_inspect_and_the_card_say_which_texts_the_policy_knows(
    bench: Bench, trained: tuple[Path, float], tmp_path: Path
) -> None:
    assert inspect(bench.root / "features")["texts"] == "2 task texts, 32 values each"
    assert inspect(trained[0])["tasks"] == f"'{PICK}', '{HAND}'"
    share(trained[0], tmp_path / "shared", {}, name="told")
    card = (tmp_path / "shared/README.md").read_text()
    assert '`--task "..."`' in card and "| language_dim | 8 |" in card
    assert f"| {PICK}; {HAND} |" in card
    np.testing.assert_array_equal(
        act(live(bench, tmp_path / "shared"), PICK), act(live(bench, trained[0]), PICK)
    )
