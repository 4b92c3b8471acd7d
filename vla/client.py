"""A client of `vla serve`: action chunks from a policy that runs in another process.

Needs NumPy, websockets and msgpack, not torch; in a robot's own environment:

    pip install --no-deps DIRECTORY_OF_VLA && pip install numpy websockets msgpack

    with PolicyClient("ws://127.0.0.1:8000") as policy:
        policy.reset()
        for _ in range(200):
            robot.send(policy.select_action(robot.observe()))

An observation is LeRobot's: {"pixels": {camera: uint8 [h, w, 3]}, "agent_pos": float32 [S]}, and further
sensors under their names; `policy.info.streams` lists what the policy looks at, the rest stays here.
"""

from collections import deque
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np

from vla.base.errors import MissingPackageError, ServerError
from vla.base.wire import Message, PolicyInfo, pack, read_actions, read_hello, unpack

try:
    from websockets.exceptions import ConnectionClosed, WebSocketException
    from websockets.sync.client import connect
except ImportError as error:
    raise MissingPackageError("websockets", "serve") from error

MAX_REPLY_BYTES = 16 << 20
PIXELS, AGENT_POS, STATE, ONLY_CAMERA = "pixels", "agent_pos", "state", "image"
"""LeRobot's keys, and what they become; simulations do the same in `vla.rollout.worlds.observations`."""


@dataclass(frozen=True, kw_only=True)
class ActionChunk:
    """The answer to an observation."""

    actions: np.ndarray
    """float32 [num_action_steps, A], in the robot's units; the first belongs to the observation."""
    timing: dict[str, float]
    """Seconds at the server: wait_s for other clients, encode_s, head_s."""


class PolicyClient:
    """A connection to a policy server; the server keeps this client's last observations.

    Args:
        url: of the server.
        timeout_s: for connecting, and for an answer [s].

    Attributes:
        info: what the policy takes and gives.

    Raises:
        ServerError: nobody answers there, or somebody else does.
    """

    def __init__(self, url: str = "ws://127.0.0.1:8000", timeout_s: float = 10.0) -> None:
        self._url, self._timeout_s = url, timeout_s
        self._queue: deque[np.ndarray] = deque()
        self._open = ExitStack()
        try:
            self._socket = self._open.enter_context(
                connect(
                    url,
                    compression=None,  # images would cost more time than they save
                    proxy=None,  # a robot's server is near
                    open_timeout=timeout_s,
                    close_timeout=1,
                    max_size=MAX_REPLY_BYTES,
                )
            )
        except (OSError, WebSocketException, ValueError) as error:
            raise ServerError(
                f"no policy server at {url} ({error}); start one: vla serve RUN, or name another url"
            ) from error
        try:
            self.info: PolicyInfo = read_hello(self._receive())
        except ServerError:
            self.close()
            raise

    def reset(self) -> None:
        """Start an episode: the server forgets this client's observations.

        Raises:
            ServerError: the server does not answer.
        """
        self._queue.clear()
        self._ask(pack("reset"), "done")

    def observe(self, observation: Mapping[str, Any]) -> None:
        """Send an observation without asking for actions.

        A decision looks at the last `info.obs_horizon` observations, one control step apart. Before the
        first `act` of an episode none is needed: its observation stands for the earlier ones.

        Raises:
            ServerError: the server refuses it, or does not answer.
        """
        self._ask(self._with("observe", observation), "done")

    def act(
        self, observation: Mapping[str, Any], seed: int | None = None, task: str | None = None
    ) -> ActionChunk:
        """Send the current observation and get the actions to execute from it on.

        Args:
            observation: of this moment.
            seed: for repeatable noise; None draws anew.
            task: what to do, in words, for a policy with language; None is the server's own.

        Raises:
            ServerError: the server refuses it, or does not answer.
        """
        told = {} if task is None else {"task": task}
        reply = self._ask(self._with("act", observation, seed=seed, **told), "actions")
        actions, timing = read_actions(reply, self.info)
        return ActionChunk(actions=actions, timing=timing)

    def select_action(self, observation: Mapping[str, Any], task: str | None = None) -> np.ndarray:
        """Return the action [A] of this control step; called once a step with its observation.

        Asks the server when the last chunk is used up, and sends the observations before that which the
        decision will look at; the others stay here. A `task` is heard when the server is next asked.

        Raises:
            ServerError: the server refuses the observation, or does not answer.
        """
        if not self._queue:
            self._queue.extend(self.act(observation, task=task).actions)
        else:
            last = self.info.num_action_steps - len(self._queue) - 1  # the action that led here
            if self.info.horizons.is_seen(last):
                self.observe(observation)
        return self._queue.popleft()

    def close(self) -> None:
        """Close the connection."""
        self._open.close()

    def __enter__(self) -> "PolicyClient":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _with(self, kind: str, observation: Mapping[str, Any], **fields: Any) -> bytes:
        """Write a message with what the policy looks at of an observation.

        Raises:
            ServerError: it lacks a stream.
        """
        found = to_streams(observation)
        streams = {}
        for stream in self.info.streams:
            if stream.name not in found:
                needed = f"'{AGENT_POS}'" if stream.name == STATE else f"{stream.kind} '{stream.name}'"
                given = ", ".join(map(str, found)) or "nothing"
                raise ServerError(
                    f"the policy needs {needed}, the observation has: {given}; it must be "
                    "{'pixels': {camera: image}, 'agent_pos': state, sensor: numbers}"
                )
            value = found[stream.name]
            # Numbers may come in any type, pixels in one: others would be another picture.
            streams[stream.name] = np.asarray(value, None if stream.kind == "image" else np.float32)
        return pack(kind, observation=streams, **fields)

    def _ask(self, request: bytes, expected: str) -> Message:
        try:
            self._socket.send(request)
        except ConnectionClosed as error:
            raise self._closed(error) from error
        reply = self._receive()
        if reply["type"] != expected:
            self.close()  # what comes next would answer another question
            raise ServerError(f"the server at {self._url} answered '{reply['type']}' instead of '{expected}'")
        return reply

    def _receive(self) -> Message:
        try:
            message = unpack(self._socket.recv(timeout=self._timeout_s))
        except TimeoutError as error:
            self.close()  # a late answer would be taken for the next one
            raise ServerError(
                f"the server at {self._url} did not answer within {self._timeout_s:g} s; "
                "connect again, with a longer timeout_s if it is busy"
            ) from error
        except ConnectionClosed as error:
            raise self._closed(error) from error
        except ServerError:
            self.close()  # who cannot write a message cannot be talked to
            raise
        if message["type"] == "error":
            raise ServerError(f"the server at {self._url} refused: {message.get('message')!s:.1000}")
        return message

    def _closed(self, error: ConnectionClosed) -> ServerError:
        reason = (error.rcvd and error.rcvd.reason) or str(error)
        return ServerError(f"the server at {self._url} closed the connection: {reason}; connect again")


def to_streams(observation: Mapping[str, Any]) -> dict[str, Any]:
    """Return an observation in LeRobot's form as arrays by stream name."""
    pixels = observation.get(PIXELS, {})
    views = dict(pixels) if isinstance(pixels, Mapping) else {ONLY_CAMERA: pixels}
    others = {name: value for name, value in observation.items() if name not in (PIXELS, AGENT_POS)}
    state = {STATE: observation[AGENT_POS]} if AGENT_POS in observation else {}
    return others | views | state
