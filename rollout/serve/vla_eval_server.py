"""A policy as a model server of vla-eval, the harness that runs benchmarks in containers of their own.

    vla serve runs/mine --set serve.protocol=vla-eval        where the policy is
    vla-eval run --config BENCHMARK.yaml                     where the benchmark is

The harness sends each observation, {"images": {camera: uint8 [h, w, 3]}, "states": [S], "task_description":
text}, and takes one action, {"actions": float32 [A]}. A chunk is predicted, executed and followed by the next
as in `vla rollout`: episode k of a connection has the noise of seed + k.

vla-eval 0.8, protocol 1 (https://pypi.org/project/vla-eval): its package serves, this is what it asks.
"""

import signal
from collections.abc import Callable, Mapping
from typing import Any

import anyio
import numpy as np
from jaxtyping import Float32

from vla.base.errors import MissingPackageError, ServerError
from vla.cache.stream import STATE
from vla.rollout.live import LivePolicy, noise_seeds
from vla.rollout.rollout_config import ServeConfig
from vla.rollout.serve.session import Session

try:
    from vla_eval.model_servers.base import ModelServer, SessionContext
    from vla_eval.model_servers.serve import serve_async
    from vla_eval.specs import IMAGE_RGB, LANGUAGE, RAW, DimSpec
except ImportError as error:
    raise MissingPackageError("vla-eval", "vla-eval") from error

STATES = ("states", "state")
"""What benchmarks of vla-eval call the state; most say the former."""
STOPS = (signal.SIGINT, signal.SIGTERM)


class Episode:
    """What is kept of one episode.

    Args:
        policy: decides.
        seed: of the episode's noise.
    """

    def __init__(self, policy: LivePolicy, seed: int) -> None:
        self._policy, self._seed, self._decision = policy, seed, 0
        self._session = Session(policy.observes, policy.horizons, policy.image_sizes)
        self._waiting: list[np.ndarray] = []

    def act(self, observation: Mapping[str, Any], task: str) -> Float32[np.ndarray, "A"]:
        """Return the action for an observation, of which the episode has seen all before.

        Args:
            observation: streams by name.
            task: what to do, in words; empty for a policy that takes none.

        Raises:
            ServerError: a stream is missing or of another shape, or the actions are not finite.
            ConfigError, EncoderError: the task is refused.
        """
        self._session.observe({"observation": observation})
        if not self._waiting:
            decision = self._policy.act(
                self._session.history(),
                noise_seeds([self._seed], self._decision),
                task,
                self._session.memory,
            )
            if not np.isfinite(decision.actions).all():
                raise ServerError("the policy's actions for this observation are not finite; none is sent")
            self._waiting, self._session.memory = list(decision.actions[0]), decision.memory
            self._decision += 1
        return self._waiting.pop(0)


# vla-eval is not there where types are checked.
class VlaEvalServer(ModelServer):  # type: ignore[misc]
    """Answers the harness; several connections may be open at once.

    Args:
        policy: decides, one observation at a time.
        cameras: the policy's name of a camera -> the benchmark's; empty takes the benchmark's own names.
        seed: of the first episode of a connection.
    """

    def __init__(self, policy: LivePolicy, cameras: Mapping[str, str], seed: int) -> None:
        self._policy, self._cameras, self._seed = policy, dict(cameras), seed
        self._episodes: dict[str, Episode] = {}
        self._begun: dict[str, int] = {}
        self._alone = anyio.CapacityLimiter(1)

    async def on_episode_start(self, config: dict[str, Any], ctx: SessionContext) -> None:
        """Forget the connection's last episode."""
        number = self._begun.get(ctx.session_id, 0)
        self._begun[ctx.session_id] = number + 1
        self._episodes[ctx.session_id] = Episode(self._policy, self._seed + number)

    async def on_observation(self, obs: dict[str, Any], ctx: SessionContext) -> None:
        """Answer an observation with an action; the harness reports what is raised here."""
        if (episode := self._episodes.get(ctx.session_id)) is None:
            raise ServerError("an observation came before the start of an episode")
        # In a thread, so that the server answers others meanwhile.
        action = await anyio.to_thread.run_sync(self._decide, episode, obs, limiter=self._alone)
        await ctx.send_action({"actions": action})

    async def on_episode_end(self, result: dict[str, Any], ctx: SessionContext) -> None:
        """Forget the episode."""
        self._episodes.pop(ctx.session_id, None)

    def get_action_spec(self) -> dict[str, DimSpec]:
        """Say that actions are in whatever units the demonstrations had."""
        return {"actions": DimSpec("actions", self._policy.action_dim, RAW.format)}

    def get_observation_spec(self) -> dict[str, DimSpec]:
        """Say what an observation must hold."""
        kinds = {stream.kind for stream in self._policy.observes}
        told = {"image": IMAGE_RGB} if "image" in kinds else {}
        told |= {"state": RAW} if any(stream.name == STATE for stream in self._policy.observes) else {}
        return told | ({"language": LANGUAGE} if self._policy.tasks.known else {})

    def _decide(self, episode: Episode, obs: Mapping[str, Any]) -> Float32[np.ndarray, "A"]:
        task = str(obs.get("task_description", "")) if self._policy.tasks.known else ""
        return episode.act(to_streams(obs, self._cameras), task)


def to_streams(obs: Mapping[str, Any], cameras: Mapping[str, str]) -> dict[str, Any]:
    """Turn an observation of vla-eval into streams by name.

    Args:
        obs: with `images`, `states` or `state`; further arrays are sensors of the same name.
        cameras: the policy's name of a camera -> the benchmark's; empty takes the benchmark's own names.

    Raises:
        ServerError: a camera is named that the benchmark does not send.
    """
    images = obs.get("images") or {}
    if missing := next((name for name in cameras.values() if name not in images), None):
        raise ServerError(
            f"env.cameras names the camera '{missing}', the benchmark sends: {', '.join(images) or 'none'}"
        )
    seen = {name: images[of] for name, of in (cameras or {name: name for name in images}).items()}
    others = {key: value for key, value in obs.items() if isinstance(value, np.ndarray)}
    state = next((obs[key] for key in STATES if obs.get(key) is not None), None)
    if state is not None:
        others[STATE] = state
    numbers = {name: np.asarray(value, np.float32) for name, value in others.items()}
    return {**numbers, **seen}


def serve(
    policy: LivePolicy,
    config: ServeConfig,
    ready: Callable[[str], None],
    cameras: Mapping[str, str],
    seed: int,
) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        policy: decides.
        config: address.
        ready: called with the server's url once the harness can connect.
        cameras: see `VlaEvalServer`.
        seed: likewise.

    Raises:
        ServerError: the address cannot be listened on.
    """

    async def run() -> None:
        server = VlaEvalServer(policy, cameras, seed)
        async with anyio.create_task_group() as tasks:
            with anyio.open_signal_receiver(*STOPS) as signals:
                port = await tasks.start(serve_async, server, config.host, config.port)
                ready(f"ws://{config.host}:{port}")
                async for _ in signals:
                    break
            tasks.cancel_scope.cancel()

    try:
        anyio.run(run)
    except ExceptionGroup as errors:
        if errors.split(OSError)[1] is not None:
            raise
        raise ServerError(
            f"cannot listen on {config.host} port {config.port}; choose another --port, or 0 for a free one"
        ) from errors
