"""Hypothesis strategies: files changed a little, in their bytes or in their structure."""

import copy
import json
from typing import Any

import msgpack
from hypothesis import strategies as st

ODD_NUMBERS = [0, -1, 1, 2**31, 2**63, 10**30, 0.5, -0.0, float("nan"), float("inf")]
ODD_WORDS = ["", "../../etc/passwd", "/etc/passwd", "{x}", "{0.__class__}", "\0", "é\ud800", "a" * 5000]
ODD: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(ODD_NUMBERS),
    st.sampled_from(ODD_WORDS),
    st.text(max_size=8),
    st.just([]),
    st.just({}),
    st.lists(st.integers(), max_size=3),
)


@st.composite
def changed_bytes(draw: st.DrawFn, seed: bytes) -> bytes:
    """Cut, overwrite or repeat parts of a file."""
    data = bytearray(seed)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        length = draw(st.sampled_from([1, 1, 1, 2, 4, 8, 64]))
        action = draw(st.sampled_from(["overwrite", "overwrite", "cut", "truncate", "repeat"]))
        if action == "overwrite":
            data[at : at + length] = draw(st.binary(min_size=length, max_size=length))
        elif action == "cut":
            del data[at : at + length]
        elif action == "truncate":
            del data[at:]
        else:
            data[at:at] = data[at : at + length]
    return bytes(data)


MESSAGE_NUMBERS = [0, -1, 1, 2**31, 2**63 - 1, 2**63, 2**64 - 1, -(2**63), 0.5, float("nan"), float("inf")]
ODD_IN_MESSAGES: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(MESSAGE_NUMBERS),
    st.sampled_from([b"", b"\0" * 8, b"\xff" * 64, "", "a" * 5000, "line\nline", "float64", "object"]),
    st.just([]),
    st.just({}),
    st.lists(st.sampled_from(MESSAGE_NUMBERS), max_size=40),
    st.just(msgpack.ExtType(1, b"x")),
    st.just(msgpack.Timestamp(1)),
)


@st.composite
def changed_json(draw: st.DrawFn, seed: bytes) -> bytes:
    """Replace, remove or add entries anywhere in a JSON file."""
    return json.dumps(_changed(draw, json.loads(seed), ODD)).encode()


@st.composite
def changed_message(draw: st.DrawFn, seed: bytes) -> bytes:
    """Replace, remove or add entries anywhere in a msgpack message."""
    return bytes(msgpack.packb(_changed(draw, msgpack.unpackb(seed), ODD_IN_MESSAGES)))


def _changed(draw: st.DrawFn, tree: Any, odd: st.SearchStrategy[Any]) -> Any:
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, 3))):
        parent: Any = None
        key: Any = None
        node = tree
        for _ in range(draw(st.integers(1, 5))):
            if isinstance(node, dict) and node:
                parent, key = node, draw(st.sampled_from(sorted(node)))
            elif isinstance(node, list) and node:
                parent, key = node, draw(st.integers(0, len(node) - 1))
            else:
                break
            node = parent[key]
        if parent is None:
            tree = draw(odd)
        elif draw(st.integers(0, 3)) == 0:
            del parent[key]
        else:
            parent[key] = draw(odd)
    return tree
