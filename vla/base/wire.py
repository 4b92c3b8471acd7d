"""What a policy server and its clients say to each other; needs NumPy, no torch.

Every message is one binary websocket message: a msgpack map whose `type` decides its other keys.

    server  hello    protocol, and the fields of `PolicyInfo`; once, when a client has connected
    client  observe  observation {stream: array}                                      answer: done
    client  act      the same, and seed (an integer, or nil for fresh noise)          answer: actions
                     and, for a policy with language, task (a text; none is the server's own)
    client  reset    starts an episode: forgets the client's observations             answer: done
    server  done
    server  actions  actions float32 [num_action_steps, A], timing {wait_s, encode_s, head_s}
    server  error    message; the connection stays usable

An observation holds the streams that `hello` lists: an image is uint8 [h, w, 3] of any size, all else float32
of the stream's shape. Protocol 1 had `pixels` and `agent_pos` in their place.

An array is a map {dtype, shape, data}: "uint8" or "float32", a list of sizes, the values in rows,
little-endian. Nothing that is received can name code to run.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any, get_type_hints

import numpy as np

from vla.base.errors import MissingPackageError, ServerError
from vla.base.horizons import Horizons

try:
    import msgpack
except ImportError as error:
    raise MissingPackageError("msgpack", "serve") from error

PROTOCOL = 2
DTYPES: dict[str, np.dtype[Any]] = {"uint8": np.dtype("u1"), "float32": np.dtype("<f4")}
MAX_ITEMS, MAX_TEXT = 64, 4096
"""Of maps and lists, of texts [bytes]; only arrays are long."""
MAX_SIZE = 2**31
"""Of an array along one axis."""

Message = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class StreamInfo:
    """One array of an observation, as `vla.cache.stream` has it."""

    name: str
    kind: str
    """image, tokens, vector, points or series."""
    dtype: str
    """uint8 or float32."""
    shape: list[int]
    """Of one observation; an image may have any height and width, which are 0 here."""


@dataclass(frozen=True, kw_only=True)
class PolicyInfo:
    """What a served policy takes and gives."""

    streams: list[StreamInfo]
    """What an observation must hold; further streams are not looked at."""
    action_dim: int
    fps: float
    """Control rate of the demonstrations [Hz]."""
    obs_horizon: int
    """Observations, one control step apart, that a decision looks at."""
    pred_horizon: int
    """Actions that it predicts, from the first of these observations on."""
    num_action_steps: int
    """Actions of a chunk, from the last of these observations on."""
    encoder: str
    """What the policy sees with; empty for one that sees nothing."""

    @property
    def camera_names(self) -> list[str]:
        return [stream.name for stream in self.streams if stream.kind == "image"]

    @property
    def state_dim(self) -> int:
        """Values of the state; 0 for a policy that does not observe it."""
        return next((stream.shape[0] for stream in self.streams if stream.name == "state"), 0)

    @property
    def horizons(self) -> Horizons:
        return Horizons(
            obs_horizon=self.obs_horizon,
            pred_horizon=self.pred_horizon,
            num_action_steps=self.num_action_steps,
        )


def hello(info: PolicyInfo) -> bytes:
    """Write the server's first message."""
    return pack("hello", protocol=PROTOCOL, **asdict(info))


def read_hello(message: Message) -> PolicyInfo:
    """Read the server's first message.

    Raises:
        ServerError: it speaks another protocol, or none.
    """
    if message["type"] != "hello" or message.get("protocol") != PROTOCOL:
        found = message.get("protocol") if message["type"] == "hello" else None
        spoken = f"protocol {found!r:.20} of vla" if found is not None else "no protocol of vla"
        raise ServerError(
            f"the server speaks {spoken}, this client protocol {PROTOCOL}; install the same vla on both sides"
        )
    fields: dict[str, Any] = {name: message.get(name) for name in get_type_hints(PolicyInfo)}
    fields["streams"] = _read_streams(fields["streams"])
    for name, kind in get_type_hints(PolicyInfo).items():
        if name != "streams" and not _is(fields[name], kind):
            raise ServerError(f"the server's greeting is of another vla: '{name}' is {fields[name]!r:.40}")
    info = PolicyInfo(**fields)
    try:
        _ = info.horizons
    except ValueError as error:
        raise ServerError(f"the server's greeting is of another vla: {error}") from error
    return info


def _read_streams(streams: Any) -> list[StreamInfo]:
    """Read what an observation must hold."""
    if not isinstance(streams, list) or not streams or not all(map(_is_stream, streams)):
        raise ServerError(f"the server's greeting is of another vla: 'streams' is {streams!r:.80}")
    return [StreamInfo(**{name: stream[name] for name in get_type_hints(StreamInfo)}) for stream in streams]


def _is_stream(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("shape"), list):
        return False
    texts = all(isinstance(value.get(name), str) for name in ("name", "kind", "dtype"))
    sizes = value["shape"]
    return texts and len(sizes) > 0 and all(type(n) is int and 0 <= n < MAX_SIZE for n in sizes)


def read_actions(message: Message, info: PolicyInfo) -> tuple[np.ndarray, dict[str, float]]:
    """Read the answer to `act`: the actions, and the timing.

    Raises:
        ServerError: it holds nothing that a robot should execute.
    """
    actions, timing = message.get("actions"), message.get("timing")
    shape = (info.num_action_steps, info.action_dim)
    if not isinstance(actions, np.ndarray) or actions.dtype != np.float32 or actions.shape != shape:
        found = f"{actions.dtype} {list(actions.shape)}" if isinstance(actions, np.ndarray) else "none"
        raise ServerError(f"the server must answer with float32 actions {list(shape)}, found {found}")
    if not np.isfinite(actions).all():
        raise ServerError("the server's actions are not finite")
    if not isinstance(timing, dict) or not all(s == 0 or _is(s, float) for s in timing.values()):
        raise ServerError("the server's answer has no timing")
    return actions, timing


def pack(kind: str, **fields: Any) -> bytes:
    """Write a message; NumPy arrays among its fields are written as arrays."""
    return msgpack.packb({"type": kind, **fields}, default=_array_to_map)


def unpack(data: bytes | str) -> Message:
    """Read a message; its arrays become NumPy arrays that share the message's memory, read-only.

    Raises:
        ServerError: it is no message; the line says why.
    """
    if isinstance(data, str):
        raise ServerError("a message must be binary msgpack, found text")
    try:
        message = msgpack.unpackb(
            data,
            object_hook=_map_to_array,
            max_array_len=MAX_ITEMS,
            max_map_len=MAX_ITEMS,
            max_str_len=MAX_TEXT,
            max_ext_len=0,
        )
    # What msgpack raises depends on what is wrong; all of it means the same to a user.
    except (ValueError, TypeError, KeyError, RecursionError, msgpack.UnpackException) as error:
        raise ServerError(f"a message of {len(data)} bytes is no msgpack map: {_line(error)}") from error
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise ServerError("a message must be a msgpack map with a text 'type'")
    return message


def _is(value: object, kind: object) -> bool:
    """Tell whether a received value is of a kind; numbers must be positive, and finite."""
    if kind is int:
        return type(value) is int and 0 < value < MAX_SIZE
    if kind is float:
        return type(value) in (int, float) and 0 < float(value) < math.inf  # type: ignore[arg-type]
    return isinstance(value, str)


def _array_to_map(value: Any) -> dict[str, Any]:
    name = value.dtype.name if isinstance(value, np.ndarray) else ""
    if name not in DTYPES:
        raise ServerError(f"only arrays of uint8 and float32 can be sent, not {name or type(value).__name__}")
    return {
        "dtype": name,
        "shape": list(value.shape),
        "data": np.ascontiguousarray(value, DTYPES[name]).tobytes(),
    }


def _map_to_array(value: dict[str, Any]) -> Any:
    if value.keys() != {"dtype", "shape", "data"}:
        return value
    dtype, shape, data = DTYPES.get(str(value["dtype"])), value["shape"], value["data"]
    if dtype is None:
        raise ValueError(f"an array's dtype must be uint8 or float32, not {value['dtype']!r:.40}")
    sizes_are_right = isinstance(shape, list) and all(type(n) is int and 0 <= n < MAX_SIZE for n in shape)
    if not sizes_are_right or not isinstance(data, bytes):
        raise ValueError("an array needs a list of sizes and binary data")
    if math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError(f"{value['dtype']} array of shape {shape} cannot hold {len(data)} bytes")
    return np.frombuffer(data, dtype).reshape(shape)


def _line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
