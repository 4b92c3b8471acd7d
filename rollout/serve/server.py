"""The policy server: a `LivePolicy` behind a websocket, for robots whose process is another one.

Messages are in `vla.base.wire`, the client in `vla.client`. Decisions are made one at a time, in a thread of
their own, so that the server answers pings and other clients meanwhile. What a client does wrong is
answered in one line and never harms the others.
"""

import asyncio
import logging
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

from vla.base.errors import MissingPackageError, ServerError, VlaError
from vla.base.wire import PolicyInfo, StreamInfo, hello, pack, unpack
from vla.rollout.live import LivePolicy
from vla.rollout.rollout_config import ServeConfig
from vla.rollout.serve.session import Session

try:
    from websockets.asyncio.server import ServerConnection
    from websockets.asyncio.server import serve as listen
    from websockets.exceptions import ConnectionClosed
except ImportError as error:
    raise MissingPackageError("websockets", "serve") from error

MIB = 1 << 20
TRY_AGAIN_LATER = 1013
UNSEEN = (256, 256)
"""Height and width of an image that stands for those of an encoder which takes any size."""
WARM_UPS = 3
"""CUDA graphs are made in the second decision and replayed from the third on."""
Result = TypeVar("Result")
log = logging.getLogger("vla.serve")
protocol_log = logging.getLogger("vla.serve.websocket")


class PolicyServer:
    """Serve one policy to several clients.

    Args:
        policy: makes the decisions.
        config: address and limits.

    Attributes:
        info: what clients are told of the policy.
    """

    def __init__(self, policy: LivePolicy, config: ServeConfig) -> None:
        self._policy, self._config = policy, config
        horizons = policy.horizons
        self.info = PolicyInfo(
            streams=[
                StreamInfo(
                    name=stream.name,
                    kind=stream.kind,
                    dtype="uint8" if stream.kind == "image" else "float32",
                    shape=list(stream.shape),
                )
                for stream in policy.observes
            ],
            action_dim=policy.action_dim,
            fps=policy.fps,
            obs_horizon=horizons.obs_horizon,
            pred_horizon=horizons.pred_horizon,
            num_action_steps=horizons.num_action_steps,
            encoder=policy.encoder.identity.describe() if policy.encoder else "",
        )
        self._clients = 0
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="decide")

    async def run(self, stop: asyncio.Event, ready: Callable[[str], None]) -> None:
        """Serve until `stop` is set, then close all connections.

        Args:
            stop: ends the server.
            ready: called with the server's url once clients can connect.

        Raises:
            ServerError: the address cannot be listened on.
        """
        config = self._config
        for _ in range(WARM_UPS):
            await self._work(self._warm_up)  # in the thread that decides: CUDA graphs belong to theirs
            if stop.is_set():
                break
        try:
            listening = await listen(
                self._serve_client,
                config.host,
                config.port,
                origins=[None],  # no web page that happens to be open on this machine
                compression=None,
                max_size=int(config.max_message_mib * MIB),
                max_queue=2,
                open_timeout=config.timeout_s,
                ping_interval=config.timeout_s,
                ping_timeout=config.timeout_s,
                close_timeout=1,
                logger=protocol_log,
            )
        except OSError as error:
            raise ServerError(
                f"cannot listen on {config.host} port {config.port} ({error.strerror or error}); "
                "choose another --port, or 0 for a free one"
            ) from error
        async with listening:
            host = f"[{config.host}]" if ":" in config.host else config.host
            ready(f"ws://{host}:{listening.sockets[0].getsockname()[1]}")
            await stop.wait()
        self._worker.shutdown()

    def new_session(self) -> Session:
        """Return what is kept of a client that has just come."""
        return Session(self._policy.observes, self._policy.horizons, self._policy.image_sizes)

    async def _serve_client(self, socket: ServerConnection) -> None:
        """Answer one client until it goes."""
        if self._clients >= self._config.max_clients:
            message = f"the server has its {self._config.max_clients} clients already (serve.max_clients)"
            await socket.send(pack("error", message=message))
            await socket.close(TRY_AGAIN_LATER, "too many clients")
            return
        self._clients += 1
        session = self.new_session()
        log.info("client %s connected", socket.remote_address)
        try:
            await self._send(socket, hello(self.info))
            async for request in socket:
                await self._send(socket, await self._answer(session, request))
        except (ConnectionClosed, TimeoutError) as error:
            log.warning("client %s is lost: %s", socket.remote_address, error or "it takes no reply")
        finally:
            self._clients -= 1
            log.info("client %s is gone", socket.remote_address)

    async def _send(self, socket: ServerConnection, message: bytes) -> None:
        async with asyncio.timeout(self._config.timeout_s):
            await socket.send(message)

    async def _answer(self, session: Session, request: bytes | str) -> bytes:
        """Carry out one request; whatever goes wrong is the answer."""
        try:
            message = unpack(request)
            if message["type"] == "reset":
                session.reset()
                return pack("done")
            if message["type"] == "observe":
                await asyncio.to_thread(session.observe, message)  # large images take a while
                return pack("done")
            if message["type"] == "act":
                seed, task = session.seed(message), session.task(message)
                # Refused before the observation is taken; a text that is new may take seconds.
                await self._work(lambda: self._policy.tasks.feature(task))
                await asyncio.to_thread(session.observe, message)  # large images take a while
                actions, timing = await self._decide(session, seed, task)
                return pack("actions", actions=actions, timing=timing)
            raise ServerError(f"a message's type must be act, observe or reset, not {message['type']!r:.40}")
        except VlaError as error:
            log.info("refused: %s", error)
            return pack("error", message=str(error)[:1000])
        except Exception as error:  # the server outlives it: a robot may be under way with another client
            log.error("a request failed", exc_info=True)
            line = " ".join(f"the policy failed: {type(error).__name__}: {error}".split())
            return pack("error", message=line[:1000])

    async def _decide(
        self, session: Session, seed: int | None, task: str
    ) -> tuple[np.ndarray, dict[str, float]]:
        asked = time.perf_counter()
        seeds = None if seed is None else [seed]

        def act() -> tuple[np.ndarray, dict[str, float]]:
            began = time.perf_counter()
            actions, timing, memory = self._policy.act(session.history(), seeds, task, session.memory)
            if not np.isfinite(actions).all():  # of a state far from all demonstrations, say
                raise ServerError("the policy's actions for this observation are not finite; none is sent")
            session.memory = memory
            return actions[0], {
                "wait_s": began - asked,
                "encode_s": timing.encode_s,
                "head_s": timing.head_s,
            }

        return await self._work(act)

    async def _work(self, function: Callable[[], Result]) -> Result:
        """Call a function in the thread that decides."""
        return await asyncio.get_running_loop().run_in_executor(self._worker, function)

    def _warm_up(self) -> None:
        """Decide for nobody: the first decisions take longer, and no client should wait for them."""
        encoder, steps = self._policy.encoder, self._policy.horizons.obs_horizon
        size = encoder.eval_image_resize_shape if encoder else None
        nothing = {
            stream.name: np.zeros((1, steps, *(size or UNSEEN), 3), np.uint8)
            if stream.kind == "image"
            else np.zeros((1, steps, *stream.shape), np.float32)
            for stream in self._policy.observes
        }
        known = self._policy.tasks.known
        self._policy.act(nothing, [0], known[0] if known else "")


def serve(policy: LivePolicy, config: ServeConfig, ready: Callable[[str], None]) -> None:
    """Serve a policy until SIGINT or SIGTERM.

    Args:
        policy: makes the decisions.
        config: address and limits.
        ready: called with the server's url once clients can connect.

    Raises:
        ServerError: the address cannot be listened on.
    """

    async def until_signalled() -> None:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        await PolicyServer(policy, config).run(stop, ready)

    handler = logging.StreamHandler()
    handler.setFormatter(OneLine())
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    protocol_log.setLevel(logging.WARNING)
    asyncio.run(until_signalled())


class OneLine(logging.Formatter):
    """A line an event: of an exception what it says, not where it was raised."""

    def format(self, record: logging.LogRecord) -> str:
        error: Any = record.exc_info[1] if record.exc_info else None
        line = f"vla serve: {record.getMessage()}"
        return " ".join((f"{line}: {type(error).__name__}: {error}" if error else line).split())
