"""Meta-World in vla. In an environment of its own: make metaworld."""

import json
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from fakes import fake_spec, write_cache

from vla.base.errors import ConfigError
from vla.cli import main
from vla.embed import FrozenEncoder, SiglipConfig
from vla.embed.datasets import open_source
from vla.embed.datasets.dataset_config import DatasetConfig
from vla.policy.agents.vla_agent import VLAAgent, VLAAgentConfig
from vla.rollout.worlds.expert import find_task
from vla.rollout.worlds.metaworld.metaworld_env import MetaWorldEnv
from vla.rollout.worlds.metaworld.tasks import TASKS
from vla.rollout.worlds.metaworld.world import (
    ACTION_NAMES,
    CAMERAS,
    MAX_EPISODE_STEPS,
    STATE_NAMES,
    env_id,
)

pytestmark = [
    pytest.mark.metaworld,
    # What metaworld and gymnasium's MuJoCo environments warn about is theirs.
    pytest.mark.filterwarnings("ignore"),
]
ENCODER = "siglip2-tiny-random"
SEED = 7
KWARGS = "{ render_height = 24, render_width = 32, shadows = false }"


def make(task: str = "reach", size: tuple[int, int] = (24, 32), **arguments: Any) -> MetaWorldEnv:
    height, width = size
    arguments = {"shadows": False, **arguments}
    return MetaWorldEnv(task=task, render_height=height, render_width=width, **arguments)


def test_the_package_has_an_environment_and_an_expert_for_each_task() -> None:
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS
    from metaworld.policies import ENV_POLICY_MAP

    ours = {f"{task}-v3" for task in TASKS}
    assert ours == set(ALL_V3_ENVIRONMENTS) == set(ENV_POLICY_MAP)


@pytest.mark.parametrize("task", ["reach", "drawer-open", "sweep-into", "push", "stick-push"])
def test_the_expert_solves_the_task(task: str) -> None:
    env, solved = make(task), 0
    env.render_observations = False
    for seed in range(3):
        env.reset(seed=seed)
        expert = find_task(f"metaworld/{task}").make_expert(env, np.random.default_rng(seed), noise=0.0)
        for _ in range(MAX_EPISODE_STEPS):
            command = expert.act()
            assert np.abs(command.label).max() <= 1 and np.array_equal(command.label, command.executed)
            _, _, over, _, info = env.step(command.executed)
        solved += find_task(f"metaworld/{task}").is_solved(0.0, info)
        assert over == info["is_success"]
    assert solved >= 2


def test_an_episode_is_decided_by_its_seed_whatever_came_before() -> None:
    env, action = make("door-open"), np.array([0.3, -0.8, 0.1, 1.0])

    def episode(seed: int) -> list[np.ndarray]:
        env.reset(seed=seed)
        return [np.concatenate([env.everything, env.step(action)[0]["agent_pos"]]) for _ in range(5)]

    env.render_observations = False
    first, other, again = episode(SEED), episode(SEED + 1), episode(SEED)
    np.testing.assert_array_equal(first, again)
    assert np.abs(np.subtract(first, other)).max() > 0.01


def test_the_camera_is_moved_from_the_first_image_on() -> None:
    env = make()
    first, again = (env.reset(seed=SEED)[0]["pixels"]["corner2"] for _ in range(2))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose(env._inner.data.camera("corner2").xpos, [0.6, 0.295, 0.8])


def test_a_view_is_the_package_s_turned_by_180_degrees() -> None:
    from vla.rollout.worlds.gl import mujoco

    env = make()
    seen = env.reset(seed=SEED)[0]["pixels"]["corner2"]
    env.close()
    with mujoco.Renderer(env._inner.model, 24, 32) as renderer:
        renderer.update_scene(env._inner.data, "corner2")
        np.testing.assert_array_equal(np.rot90(renderer.render(), 2), seen)


def test_every_camera_of_the_scene_can_be_looked_through() -> None:
    env = make(cameras=CAMERAS)
    views = env.reset(seed=0)[0]["pixels"]
    assert list(views) == list(CAMERAS)
    assert len({view.tobytes() for view in views.values()}) == len(CAMERAS)


def test_nothing_is_rendered_while_nobody_looks() -> None:
    env = make()
    first = env.reset(seed=0)[0]["pixels"]["corner2"]
    env.render_observations = False
    observation, _, _, _, info = env.step(np.ones(4))
    assert info["render_s"] == 0
    assert np.array_equal(observation["pixels"]["corner2"], first)


def test_wrong_names_are_refused() -> None:
    with pytest.raises(ConfigError, match="Meta-World has no task 'reech'; did you mean 'reach'"):
        make("reech")
    with pytest.raises(ConfigError, match=r"Meta-World has no camera 'corner5'; did you mean 'corner"):
        make(cameras=["corner5"])


def test_a_recording_replays_to_the_same_states(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = [f"env.id={env_id('reach')}", f"env.kwargs={KWARGS}", "record.noise=0"]
    settings += ["record.image_size=[24, 32]", "record.workers=1"]
    command = [
        "record",
        "--task",
        "metaworld/reach",
        "--episodes",
        "1",
        "--out",
        "demos",
        "--seed",
        str(SEED),
    ]
    with pytest.raises(SystemExit) as ended:
        main([*command, *(f"--set={value}" for value in settings)])
    assert not ended.value.code
    info = json.loads(Path("demos/meta/info.json").read_bytes())
    assert (info["robot_type"], info["fps"], info["total_frames"]) == ("sawyer", 80, MAX_EPISODE_STEPS)
    assert info["features"]["observation.state"]["names"] == list(STATE_NAMES)
    assert info["features"]["action"]["names"] == list(ACTION_NAMES)
    source = open_source(DatasetConfig(path="demos"), workers=1)
    block = next(source.read(range(MAX_EPISODE_STEPS), block=MAX_EPISODE_STEPS))
    assert block.streams["corner2"].shape[1:] == (24, 32, 3)
    env = make()
    env.render_observations = False
    observation = env.reset(seed=SEED)[0]
    for state, action in zip(block.streams["state"], block.streams["action"], strict=True):
        np.testing.assert_array_equal(observation["agent_pos"], state)
        observation = env.step(action)[0]


def test_a_policy_is_rolled_out_headless(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    encoder = FrozenEncoder.load(SiglipConfig(id=ENCODER, device="cpu"), ("corner2",))
    spec = fake_spec(
        encoder=encoder.identity,
        dim=encoder.writes[0].channels,
        cameras=("corner2",),
        state_dim=len(STATE_NAMES),
        action_dim=len(ACTION_NAMES),
    )
    torch.manual_seed(0)
    small = VLAAgentConfig(per_view_dim=4, cond_dim=8, n_emb=16, n_layer=1, n_head=2)
    VLAAgent.for_cache(small, write_cache(tmp_path / "cache", spec).metadata).save_pretrained(
        tmp_path / "policy"
    )
    arguments = ["--env", env_id("reach"), "--episodes", "1", "--num-envs", "1", "--device", "cpu"]
    settings = [f"env.kwargs={KWARGS}", "env.kwargs.max_episode_steps=16", "rollout.videos=1"]
    with pytest.raises(SystemExit) as stopped:
        main(
            ["rollout", "policy", *arguments, "--out", "results", "--json", *(f"--set={s}" for s in settings)]
        )
    captured = capsys.readouterr()
    assert not stopped.value.code, captured.err
    assert json.loads(captured.out)["aggregated"]["n_episodes"] == 1
    assert Path("results/videos/eval_episode_0.mp4").stat().st_size > 0


def test_the_ids_are_registered() -> None:
    assert all(gymnasium.spec(env_id(task)).max_episode_steps == MAX_EPISODE_STEPS for task in TASKS)
