"""A policy answers vla-eval: through its own client, the actions of a rollout. Run by make metaworld."""

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import gymnasium
import numpy as np
import pytest
import torch
from fakes import awake_agent, fake_spec, write_cache

from vla.base.errors import ServerError
from vla.embed import FrozenEncoder, SiglipConfig
from vla.policy.agents.vla_agent import VLAAgent, VLAAgentConfig
from vla.rollout.evaluate.chunk_env import ChunkEnv
from vla.rollout.live import LivePolicy, noise_seeds
from vla.rollout.rollout_config import EnvConfig, ServeConfig
from vla.rollout.worlds.make_env import make_env
from vla.rollout.worlds.metaworld.world import ACTION_NAMES, STATE_NAMES, env_id

pytestmark = [
    pytest.mark.metaworld,
    # What metaworld, gymnasium's MuJoCo environments and vla-eval warn about is theirs.
    pytest.mark.filterwarnings("ignore"),
]
SEED, STEPS = 7, 20
KWARGS: dict[str, Any] = {"render_height": 24, "render_width": 32, "shadows": False}


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> LivePolicy:
    """Return an untrained policy that looks through the moved camera."""
    encoder = FrozenEncoder.load(SiglipConfig(id="siglip2-tiny-random", device="cpu"), ("corner2",))
    spec = fake_spec(
        encoder=encoder.identity,
        dim=encoder.writes[0].channels,
        cameras=("corner2",),
        state_dim=len(STATE_NAMES),
        action_dim=len(ACTION_NAMES),
    )
    torch.manual_seed(0)
    small = VLAAgentConfig(per_view_dim=4, cond_dim=8, n_emb=16, n_layer=1, n_head=2)
    cache = write_cache(tmp_path_factory.mktemp("cache"), spec)
    return LivePolicy(awake_agent(VLAAgent.for_cache(small, cache.metadata)), encoder)


@contextmanager
def served(policy: LivePolicy, cameras: dict[str, str] | None = None) -> Iterator[str]:
    """Serve with vla-eval's own server, in a thread; yields the url."""
    from anyio.from_thread import start_blocking_portal
    from vla_eval.model_servers.serve import serve_async

    from vla.rollout.serve.vla_eval_server import VlaEvalServer

    with start_blocking_portal() as portal:
        server = VlaEvalServer(policy, cameras or {}, SEED)
        serving, port = portal.start_task(serve_async, server, "127.0.0.1", 0)
        try:
            yield f"ws://127.0.0.1:{port}"
        finally:
            serving.cancel()


def asked(url: str, env: gymnasium.Env[Any, Any], steps: int, camera: str = "corner2") -> np.ndarray:
    """Let vla-eval's client drive an environment, step by step."""
    from vla_eval.connection import Connection

    async def drive() -> list[np.ndarray]:
        actions: list[np.ndarray] = []
        async with Connection(url, max_retries=1) as connection:
            observation, _ = env.reset(seed=SEED)
            await connection.start_episode({"task": {"name": "reach"}})
            for _ in range(steps):
                images = {camera: observation["corner2"]}
                told = {"images": images, "states": observation["state"], "task_description": "Reach."}
                actions.append((await connection.act(told))["actions"])
                observation = env.step(actions[-1])[0]
            await connection.end_episode({})
        return actions

    return np.array(anyio.run(drive))


def rolled_out(policy: LivePolicy, env: gymnasium.Env[Any, Any], steps: int) -> np.ndarray:
    """Drive an environment as `vla rollout` does, chunk by chunk."""
    chunks = ChunkEnv(env, policy.horizons, policy.image_sizes)
    actions: list[np.ndarray] = []
    observation, memory = chunks.reset(seed=SEED)[0], None
    while len(actions) < steps:
        seen = {name: value[None] for name, value in observation.items()}
        decided = policy.act(seen, noise_seeds([SEED], len(actions) // 8), memory=memory)
        actions += list(decided.actions[0])
        observation, memory = chunks.step(decided.actions[0])[0], decided.memory
    return np.array(actions[:steps])


def test_vla_eval_gets_the_actions_of_a_rollout(policy: LivePolicy) -> None:
    env = make_env(EnvConfig(id=env_id("reach"), kwargs=KWARGS))
    with served(policy) as url:
        actions = asked(url, env, STEPS)
    assert actions.shape == (STEPS, len(ACTION_NAMES)) and actions.dtype == np.float32
    assert np.abs(np.diff(actions, axis=0)).max() > 1e-3
    np.testing.assert_allclose(actions, rolled_out(policy, env, STEPS), atol=1e-5)


def test_a_camera_may_have_another_name_in_the_benchmark(policy: LivePolicy) -> None:
    env = make_env(EnvConfig(id=env_id("reach"), kwargs=KWARGS))
    with served(policy) as url, served(policy, {"corner2": "agentview"}) as renamed:
        np.testing.assert_array_equal(asked(url, env, 1), asked(renamed, env, 1, camera="agentview"))
        with pytest.raises(RuntimeError, match="names the camera 'agentview', the benchmark sends: corner2"):
            asked(renamed, env, 1)  # under its old name


def test_what_is_wrong_with_an_observation_reaches_the_harness(policy: LivePolicy) -> None:
    from vla_eval.connection import Connection

    async def drive(url: str, observation: dict[str, Any]) -> None:
        async with Connection(url, max_retries=1) as connection:
            await connection.start_episode({"task": {}})
            await connection.act(observation)

    image = np.zeros((24, 32, 3), np.uint8)
    with served(policy) as url:
        with pytest.raises(RuntimeError, match=r"the policy observes .*state"):
            anyio.run(drive, url, {"images": {"corner2": image}})
        with pytest.raises(RuntimeError, match="'state' must be a float32 array"):
            anyio.run(drive, url, {"images": {"corner2": image}, "states": np.zeros(3)})


def test_a_taken_port_is_one_line(policy: LivePolicy) -> None:
    from vla.rollout.serve.vla_eval_server import serve

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            ServerError, match=f"cannot listen on 127.0.0.1 port {port}; choose another --port"
        ):
            serve(policy, ServeConfig(port=port), print, {}, 0)


def test_vla_serve_speaks_to_vla_eval(policy: LivePolicy, tmp_path: Path) -> None:
    """The whole path: a process of its own, by its command."""
    policy.policy.save_pretrained(tmp_path / "policy")
    command = [sys.executable, "-m", "vla", "serve", str(tmp_path / "policy"), "--port", "0", "--json"]
    command += ["--set", "serve.protocol=vla-eval", "--set", f"rollout.seed={SEED}", "--device", "cpu"]
    env = make_env(EnvConfig(id=env_id("reach"), kwargs=KWARGS))
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url = json.loads(server.stdout.readline())["url"]
            actions = asked(url, env, 2)
        finally:
            server.send_signal(signal.SIGTERM)
        assert server.wait(240) == 0  # a busy machine takes its time
    np.testing.assert_allclose(actions, rolled_out(policy, env, 2), atol=1e-4)
