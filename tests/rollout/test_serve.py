"""The policy server: another process gets the local policy's actions, and no client can bring it down."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
import torch
from fakes import CAMERAS, awake_agent, fake_spec, write_cache
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from vla.base.errors import ServerError
from vla.base.horizons import Horizons
from vla.base.wire import PolicyInfo, StreamInfo, hello, pack, read_hello, unpack
from vla.client import PolicyClient, to_streams
from vla.embed import FrozenEncoder, SiglipConfig
from vla.policy.agents.vla_agent import VLAAgent, VLAAgentConfig
from vla.policy.random import GivenNoise
from vla.rollout.live import LivePolicy
from vla.rollout.rollout_config import ServeConfig
from vla.rollout.serve.server import PolicyServer

ROOT = Path(__file__).parents[2]
SMALL = VLAAgentConfig(per_view_dim=4, cond_dim=8, n_emb=16, n_layer=1, n_head=2)
LIMITS = ServeConfig(port=0, max_clients=2, max_message_mib=1, timeout_s=0.5)

INFO = PolicyInfo(
    streams=[StreamInfo(name="top", kind="image", dtype="uint8", shape=[0, 0, 3])],
    action_dim=2,
    fps=25.0,
    obs_horizon=2,
    pred_horizon=16,
    num_action_steps=8,
    encoder="",
)

Observation = dict[str, Any]


@pytest.fixture(scope="module")
def policy(encoder_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> LivePolicy:
    encoder = FrozenEncoder.load(SiglipConfig(id=str(encoder_dir), device="cpu"), CAMERAS)
    spec = fake_spec(encoder=encoder.identity, dim=encoder.writes[0].channels)
    cache = write_cache(tmp_path_factory.mktemp("cache"), spec)
    return LivePolicy(awake_agent(VLAAgent.for_cache(SMALL, cache.metadata)), encoder)


@contextmanager
def serving(policy: LivePolicy, config: ServeConfig = LIMITS) -> Iterator[str]:
    """Run a server in a thread; yields its url."""
    loop, stop, urls, ready = asyncio.new_event_loop(), asyncio.Event(), [""], threading.Event()

    def started(url: str) -> None:
        urls[0] = url
        ready.set()

    thread = threading.Thread(
        target=loop.run_until_complete, args=(PolicyServer(policy, config).run(stop, started),)
    )
    thread.start()
    try:
        assert ready.wait(30)
        yield urls[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)
        assert not thread.is_alive()
        loop.close()


@pytest.fixture(scope="module")
def url(policy: LivePolicy) -> Iterator[str]:
    with serving(policy) as url:
        yield url


def observation(step: int, size: tuple[int, int] = (48, 64)) -> Observation:
    rng = np.random.default_rng(step)
    return {
        "pixels": {c: rng.integers(0, 256, (*size, 3), dtype=np.uint8) for c in CAMERAS},
        "agent_pos": rng.normal(size=16).astype(np.float32),
    }


def local(policy: LivePolicy, observations: list[Observation], seed: int) -> np.ndarray:
    """Let the policy itself decide on a history."""
    streams = [to_streams(observation) for observation in observations]
    history = {name: np.stack([seen[name] for seen in streams])[None] for name in streams[0]}
    return policy.act(history, [seed]).actions[0]


def assert_same(actions: np.ndarray, expected: np.ndarray) -> None:
    """Compare actions of two threads or processes, whose sums may differ in their last bits."""
    np.testing.assert_allclose(actions, expected, atol=5e-3)


def test_a_client_learns_what_the_policy_takes(url: str) -> None:
    with PolicyClient(url) as client:
        assert (client.info.camera_names, client.info.state_dim) == (list(CAMERAS), 16)
        assert client.info.horizons == Horizons(obs_horizon=2, pred_horizon=16, num_action_steps=8)
        assert client.info.streams[-1] == StreamInfo(name="state", kind="vector", dtype="float32", shape=[16])


def test_the_first_observation_of_an_episode_stands_for_the_earlier_one(url: str, policy: LivePolicy) -> None:
    with PolicyClient(url) as client:
        chunk = client.act(observation(0), seed=3)
        client.act(observation(1))
        client.reset()
        again = client.act(observation(0), seed=3)
    assert_same(chunk.actions, local(policy, [observation(0)] * 2, 3))
    assert_same(again.actions, chunk.actions)
    assert chunk.timing.keys() == {"wait_s", "encode_s", "head_s"}


def test_each_client_has_its_own_history(url: str, policy: LivePolicy) -> None:
    with PolicyClient(url) as one, PolicyClient(url) as other:
        one.observe(observation(0))
        other.observe(observation(10))
        chunks = one.act(observation(1), seed=1), other.act(observation(11), seed=1)
    assert np.abs(chunks[0].actions - chunks[1].actions).max() > 0.01  # same noise, other observations
    for first, chunk in zip((0, 10), chunks, strict=True):
        expected = local(policy, [observation(first), observation(first + 1)], 1)
        assert_same(chunk.actions, expected)


def test_select_action_decides_on_consecutive_observations(
    url: str, policy: LivePolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    ones = GivenNoise(torch.ones(1, 16, 16))
    monkeypatch.setattr("vla.rollout.live.SeededRows", lambda *_: ones)
    monkeypatch.setattr("vla.policy.agents.vla_agent.RowRandom", lambda **_: ones)
    with PolicyClient(url) as client:
        actions = [client.select_action(observation(step)) for step in range(17)]
    expected = [local(policy, [observation(max(step - 1, 0)), observation(step)], 0) for step in (0, 8, 16)]
    assert_same(np.stack(actions), np.stack([*expected[0], *expected[1], expected[2][0]]))


CLIENT = """
import json, sys
import numpy as np
from vla.client import PolicyClient, to_streams

with PolicyClient(sys.argv[1]) as policy:
    rng = np.random.default_rng(0)
    pixels = {c: rng.integers(0, 256, (48, 64, 3), dtype=np.uint8) for c in policy.info.camera_names}
    state = rng.normal(size=policy.info.state_dim).astype(np.float32)
    chunk = policy.act({"pixels": pixels, "agent_pos": state}, seed=7)
print(json.dumps({"actions": chunk.actions.tolist(), "torch": "torch" in sys.modules}))
"""


def test_another_process_without_torch_gets_the_policys_actions_and_the_server_ends_cleanly(
    policy: LivePolicy, encoder_dir: Path, tmp_path: Path
) -> None:
    policy.policy.save_pretrained(tmp_path / "policy")
    command = [sys.executable, "-m", "vla", "serve", str(tmp_path / "policy"), "--port", "0", "--json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    server = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert server.stdout is not None
        url = json.loads(server.stdout.readline())["url"]
        assert url.startswith("ws://127.0.0.1:")
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as raw:
            raw.sendall(b"\x16\x03\x01 this is no handshake\r\n\r\n")
            while raw.recv(1024):
                pass
        finished = subprocess.run(
            [sys.executable, "-c", CLIENT, url], capture_output=True, text=True, env=environment, timeout=60
        )
        assert finished.returncode == 0, finished.stderr
        staying = PolicyClient(url)
        server.send_signal(signal.SIGTERM)
        out, err = server.communicate(timeout=30)
    finally:
        server.kill()
    answer = json.loads(finished.stdout)
    expected = local(policy, [observation(0)] * 2, 7)
    assert_same(np.array(answer["actions"]), expected)
    assert answer["torch"] is False
    assert (server.returncode, out) == (0, "")
    # websockets before 17 also says that the caller without handshake had none.
    known = ("vla serve: client", "vla serve: opening handshake failed")
    assert all(line.startswith(known) for line in err.splitlines()), err
    with pytest.raises(ServerError, match="closed the connection"):
        staying.reset()
    staying.close()


def raw_answer(url: str, data: bytes | str) -> str:
    """Send bytes and return the server's complaint."""
    with connect(url, compression=None) as raw:
        assert unpack(raw.recv(timeout=5))["type"] == "hello"
        raw.send(data)
        answer = unpack(raw.recv(timeout=5))
        assert answer["type"] == "error"
        raw.send(pack("reset"))  # the same connection goes on
        assert unpack(raw.recv(timeout=5))["type"] == "done"
    assert "\n" not in answer["message"]
    return str(answer["message"])


def streams(step: int) -> dict[str, Any]:
    return to_streams(observation(step))


GOOD = pack("act", observation=streams(0))


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"\xc1\xff garbage", "no msgpack map"),
        (b"", "no msgpack map"),
        ("act", "found text"),
        (GOOD[: len(GOOD) // 2], "no msgpack map"),
        (GOOD + b"\x00", "no msgpack map"),
        (b"\x91" * 5000 + b"\x00", "no msgpack map"),
        (msgpack.packb({"type": "x" * 5000}), "no msgpack map"),
        (msgpack.packb(msgpack.ExtType(1, b"x")), "no msgpack map"),
        (msgpack.packb([1, 2]), "a text 'type'"),
        (pack("shutdown"), "must be act, observe or reset, not 'shutdown'"),
        (pack("act"), "'observation' must be a map of arrays by stream name, found NoneType"),
        (pack("act", **observation(0)), "the client speaks protocol 1 of vla, this server protocol 2"),
        (pack("act", observation={}), "looks through camera 'r_vis', the observation has: none"),
        (
            pack("act", observation={c: streams(0)[c] for c in CAMERAS}),
            "observes state (vector, float32 [16])",
        ),
        (pack("act", observation=streams(0), seed=-1), "'seed' must be an integer"),
        (pack("act", observation=streams(0), seed=True), "'seed' must be an integer"),
    ],
)
def test_a_message_that_is_not_right_is_answered_in_one_line(
    url: str, data: bytes | str, complaint: str
) -> None:
    assert complaint in raw_answer(url, data)


def array(dtype: str, shape: Any, data: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data": data}


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("state", np.zeros(15, np.float32), "float32 array [16], found float32 [15]"),
        ("state", np.zeros(16, np.uint8), "found uint8 [16]"),
        ("state", [0.0] * 16, "found list"),
        ("state", np.full(16, np.nan, np.float32), "not finite: value 0"),
        ("r_vis", np.zeros((48, 64), np.uint8), "[height, width, 3], found [48, 64]"),
        ("r_vis", np.zeros((0, 64, 3), np.uint8), "found [0, 64, 3]"),
        ("r_vis", np.zeros((3, 48, 64), np.uint8), "found [3, 48, 64]"),
        ("r_vis", np.zeros((48, 64, 3), np.float32), "must be a uint8 array"),
        ("r_vis", "image", "must be a uint8 array"),
        ("r_vis", array("uint8", [48, 64, 3], b"short"), "cannot hold 5 bytes"),
        ("r_vis", array("object", [1], b"\x00" * 8), "dtype must be uint8 or float32"),
        ("r_vis", array("uint8", [2**30, 0], b""), "found [1073741824, 0]"),
        ("r_vis", array("uint8", [2**63, 0], b""), "list of sizes"),  # NumPy: OverflowError
        ("r_vis", array("uint8", [-1, -1], b"x"), "list of sizes"),
        ("r_vis", array("uint8", "48", b""), "list of sizes"),
    ],
)
def test_an_observation_of_another_form_is_refused_naming_what_is_wrong(
    url: str, key: str, value: Any, complaint: str
) -> None:
    assert complaint in raw_answer(url, pack("act", observation={**streams(0), key: value}))


def test_a_server_of_another_protocol_is_refused_with_what_to_do() -> None:
    greeting = unpack(hello(INFO))
    with pytest.raises(
        ServerError, match="speaks protocol 1 of vla, this client protocol 2; install the same"
    ):
        read_hello({**greeting, "protocol": 1})
    with pytest.raises(ServerError, match="speaks no protocol of vla"):
        read_hello({"type": "done"})


@pytest.mark.parametrize(
    "wrong",
    [
        {"streams": []},
        {"streams": [{"name": "top", "kind": "image", "dtype": "uint8", "shape": [-1, 0, 3]}]},
        {"streams": [{"name": "top", "kind": 1, "dtype": "uint8", "shape": [0, 0, 3]}]},
        {"fps": 0},
        {"num_action_steps": 16},
    ],
)
def test_a_greeting_that_says_nonsense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ServerError, match="greeting is of another vla"):
        read_hello({**unpack(hello(INFO)), **wrong})


def test_a_refused_observation_leaves_the_history_as_it_was(url: str, policy: LivePolicy) -> None:
    with PolicyClient(url) as client:
        client.observe(observation(0))
        with pytest.raises(ServerError, match="sizes may change after a reset"):
            client.act(observation(5, size=(24, 32)))
        chunk = client.act(observation(1), seed=1)
    assert_same(chunk.actions, local(policy, [observation(0), observation(1)], 1))


def test_an_oversized_message_is_refused_and_the_client_is_told(url: str) -> None:
    client = PolicyClient(url)
    with pytest.raises(ServerError, match=r"closed the connection: .*1048576"):
        client.act(observation(0, size=(700, 700)))
    with pytest.raises(ServerError, match="closed the connection"):
        client.reset()
    client.close()
    with PolicyClient(url) as next_client:
        next_client.act(observation(0))


def test_one_client_too_many_is_refused(url: str) -> None:
    with PolicyClient(url), PolicyClient(url), pytest.raises(ServerError, match="its 2 clients already"):
        PolicyClient(url)


def test_a_web_page_is_refused(url: str) -> None:
    with pytest.raises(InvalidStatus):
        connect(url, origin=Origin("https://example.com")).__enter__()


def test_slow_and_vanished_clients_are_dropped_and_make_room(url: str) -> None:
    slow = connect(url, ping_interval=None).__enter__()
    slow.recv(timeout=5)
    vanished = socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])))
    vanished.sendall(b"GET / HTTP/1.1\r\n")  # and never the rest of the handshake
    # A frame header that promises 1000 bytes, of which one comes: no pong can follow it.
    slow.socket.sendall(b"\x82\xfe\x03\xe8\x00\x00\x00\x00x")
    with pytest.raises(ConnectionClosed):
        slow.recv(timeout=10)
    vanished.settimeout(5)
    while vanished.recv(1024):  # until the server hangs up
        pass
    vanished.close()
    with PolicyClient(url) as one, PolicyClient(url) as two:
        one.reset()
        two.reset()


def test_a_failing_policy_is_an_answer_not_an_end(
    url: str, policy: LivePolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("out of\nmemory")

    with PolicyClient(url) as client:
        with monkeypatch.context() as broken:
            broken.setattr(policy.encoder, "encode", fail)
            with pytest.raises(ServerError, match="the policy failed: RuntimeError: out of memory"):
                client.act(observation(0))
        client.act(observation(1))


def test_a_state_far_outside_the_demonstrations_is_answered_as_one_at_their_edge(url: str) -> None:
    with PolicyClient(url) as client:
        answers = []
        for state in (3e38, 1e6):
            client.reset()
            seen = {**observation(0), "agent_pos": np.full(16, state, np.float32)}
            answers.append(client.act(seen, seed=1).actions)
    assert_same(answers[0], answers[1])
    assert np.isfinite(answers[0]).all()


def test_actions_that_are_not_finite_are_not_sent(url: str, policy: LivePolicy) -> None:
    mean = policy.policy.action_standardize.mean
    before = mean.clone()
    with PolicyClient(url) as client:
        mean.fill_(torch.inf)
        try:
            with pytest.raises(ServerError, match="actions for this observation are not finite"):
                client.act(observation(0))
        finally:
            mean.copy_(before)
        client.reset()
        chunk = client.act(observation(1), seed=1)
    np.testing.assert_array_equal(chunk.actions, local(policy, [observation(1)] * 2, 1))


def test_no_server_says_how_to_start_one() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"ws://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(ServerError, match="start one: vla serve RUN"):
            PolicyClient(url)


def test_a_server_that_does_not_answer_is_an_error_after_the_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf, pytest.raises(ServerError, match="no policy server"):
        PolicyClient(f"ws://127.0.0.1:{deaf.getsockname()[1]}", timeout_s=0.2)


def test_a_taken_port_is_one_line(policy: LivePolicy) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = ServeConfig(port=taken.getsockname()[1])
        with pytest.raises(ServerError, match="choose another --port"):
            asyncio.run(PolicyServer(policy, config).run(asyncio.Event(), print))


def test_an_observation_that_is_no_observation_is_refused_at_the_client(url: str) -> None:
    with PolicyClient(url) as client:
        with pytest.raises(
            ServerError, match="policy needs image 'r_vis', the observation has: state; it must"
        ):
            client.act({"pixels": {}, "agent_pos": np.zeros(16)})
        with pytest.raises(
            ServerError, match="policy needs 'agent_pos', the observation has: r_vis, top, front"
        ):
            client.act({"pixels": observation(0)["pixels"]})
        with pytest.raises(ServerError, match="only arrays of uint8 and float32"):
            client.act({**observation(0), "pixels": {c: np.zeros((4, 4, 3)) for c in CAMERAS}})
        client.act(observation(0))
