"""The two sides of a policy server, for fuzzing: what each does with any bytes of the other.

request    bytes for the server: its answer must be a message, an error one line, and then a good
           request must be answered as before
greeting   bytes for the client, in place of the server's first message
reply      bytes for the client, in place of actions
websocket  bytes on the wire, handshake and frames, for a server that serves others meanwhile
"""

import asyncio
import base64
import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from fakes import CAMERAS, fake_spec, write_cache, write_vision_checkpoint

from vla.base.wire import PolicyInfo, StreamInfo, hello, pack, unpack
from vla.client import PolicyClient, to_streams
from vla.embed import FrozenEncoder, SiglipConfig
from vla.policy.agents.vla_agent import VLAAgent, VLAAgentConfig
from vla.rollout.live import LivePolicy
from vla.rollout.rollout_config import ServeConfig
from vla.rollout.serve.server import PolicyServer
from vla.rollout.serve.session import Session

POLICY = VLAAgentConfig(per_view_dim=2, cond_dim=4, n_emb=8, n_layer=1, n_head=2)
PIXELS = {camera: np.zeros((4, 5, 3), np.uint8) for camera in CAMERAS}
OBSERVATION = {"pixels": PIXELS, "agent_pos": np.zeros(16, np.float32)}
REQUEST = pack("act", observation=to_streams(OBSERVATION), seed=1)
INFO = PolicyInfo(
    streams=[
        *(StreamInfo(name=camera, kind="image", dtype="uint8", shape=[0, 0, 3]) for camera in CAMERAS),
        StreamInfo(name="state", kind="vector", dtype="float32", shape=[16]),
    ],
    action_dim=16,
    fps=25.0,
    obs_horizon=2,
    pred_horizon=16,
    num_action_steps=8,
    encoder="e",
)
GREETING = hello(INFO)
TIMING = {"wait_s": 0.0, "encode_s": 0.1, "head_s": 0.1}
REPLY = pack("actions", actions=np.zeros((8, 16), np.float32), timing=TIMING)
LONGEST_ERROR = 1000


class Server:
    """A server's answers, without a connection; a small real policy makes the decisions."""

    def __init__(self, root: Path) -> None:
        self.server = make_server(root)
        self._loop = asyncio.new_event_loop()
        self._expected = self._ask(self._fresh(), REQUEST)["actions"]

    def answer(self, data: bytes) -> None:
        """Let the server answer bytes, and then a good request.

        Raises:
            AssertionError: an answer is not what clients may expect.
        """
        session = self._fresh()
        answer = self._ask(session, data)
        if answer["type"] == "error":
            said = answer["message"]
            assert said and "\n" not in said and len(said) <= LONGEST_ERROR, f"no short line: {said[:300]!r}"
            assert "the policy failed" not in said, said
        elif answer["type"] == "actions":
            assert np.isfinite(answer["actions"]).all(), "actions that are not finite"
        else:
            assert answer["type"] == "done", answer
        session.reset()
        assert np.array_equal(self._ask(session, REQUEST)["actions"], self._expected), (
            "other actions than before"
        )

    def _fresh(self) -> Session:
        return self.server.new_session()

    def _ask(self, session: Session, data: bytes) -> dict[str, Any]:
        return unpack(self._loop.run_until_complete(self.server._answer(session, data)))


class Connection:
    """A connection whose other side says what it was told to."""

    def __init__(self, *messages: bytes) -> None:
        self._messages = list(messages)

    def send(self, data: bytes) -> None:
        pass

    def recv(self, timeout: float) -> bytes:
        return self._messages.pop(0)


def greet(data: bytes) -> None:
    """Let a client be greeted with bytes, and then get eight actions."""
    converse(data, REPLY)


def reply(data: bytes) -> None:
    """Let a client get bytes for actions."""
    converse(GREETING, data)


def converse(*messages: bytes) -> None:
    """Let a client ask for an action of messages that a server sends.

    Raises:
        ServerError: they are not right.
        AssertionError: the client took something for actions that no robot should get.
    """

    @contextmanager
    def connect(*_: Any, **__: Any) -> Iterator[Connection]:
        yield Connection(*messages)

    with patch("vla.client.connect", connect), PolicyClient() as client:
        action = client.select_action(OBSERVATION)
        info = client.info
        assert action.dtype == np.float32 and action.shape == (info.action_dim,), action
        assert np.isfinite(action).all(), action
        assert 0 < info.fps < float("inf") and all(isinstance(name, str) for name in info.camera_names), info


HANDSHAKE = b"\r\n".join(
    [
        b"GET / HTTP/1.1",
        b"Host: 127.0.0.1",
        b"Upgrade: websocket",
        b"Connection: Upgrade",
        b"Sec-WebSocket-Key: " + base64.b64encode(b"0" * 16),
        b"Sec-WebSocket-Version: 13",
        b"",
        b"",
    ]
)
RESET = pack("reset")
# Final binary frame, masked with zeros.
TALK = HANDSHAKE + bytes([0x82, 0x80 | len(RESET), 0, 0, 0, 0]) + RESET


class LiveServer:
    """A server on a port of this machine, in a thread that ends with the process."""

    def __init__(self, root: Path) -> None:
        self._server, self._ready = make_server(root), threading.Event()
        self._url = ""
        threading.Thread(target=self._run, daemon=True).start()
        assert self._ready.wait(60), "the server does not start"

    def talk(self, data: bytes) -> None:
        """Send bytes, hang up, and be served as another client.

        Raises:
            AssertionError: the server keeps the connection open.
            ServerError: it serves nobody any more.
        """
        port = int(self._url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=10) as raw:
            try:
                raw.sendall(data)
                raw.shutdown(socket.SHUT_WR)
                while raw.recv(1 << 16):
                    pass
            except TimeoutError as error:
                raise AssertionError("the server does not hang up") from error
            except OSError:
                pass  # it hung up first
        with PolicyClient(self._url) as client:
            client.reset()

    def _run(self) -> None:
        def started(url: str) -> None:
            self._url = url
            self._ready.set()

        asyncio.run(self._server.run(asyncio.Event(), started))


def make_server(root: Path) -> PolicyServer:
    """Return a server of a small policy; it writes no log."""
    logging.getLogger("vla.serve").addHandler(logging.NullHandler())
    logging.getLogger("vla.serve").propagate = False
    torch.manual_seed(0)
    torch.set_num_threads(1)
    checkpoint = write_vision_checkpoint(root / "encoder")
    encoder = FrozenEncoder.load(SiglipConfig(id=str(checkpoint), device="cpu"), CAMERAS)
    spec = fake_spec(encoder=encoder.identity, dim=encoder.writes[0].channels, lengths=(3, 2))
    agent = VLAAgent.for_cache(POLICY, write_cache(root / "cache", spec).metadata)
    return PolicyServer(LivePolicy(agent, encoder), ServeConfig(port=0, max_clients=64, max_message_mib=1))
