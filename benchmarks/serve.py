"""What does a socket cost? Decisions through `vla serve` against calls of the same policy in this process.

    python benchmarks/serve.py runs/demo --decisions 100

Every decision is a new pair of observations: the client sends the first with `observe` and the second with
`act`. The round trip is that of `act`: one observation over, the chunk back. Both processes are on one
machine, so the network is the loopback device. Local call and server take turns; on a machine where others
compute, set OMP_NUM_THREADS=1, or threads that wait for a core are what is measured.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine

from vla.base.files import write_json
from vla.cache import Stream
from vla.client import PolicyClient
from vla.config import PipelineConfig
from vla.policy.training.run import find_policy
from vla.rollout.evaluate.summary import percentiles_ms
from vla.saved import saved_tables
from vla.stages import load_live

SIZES = ((256, 256), (480, 640))
WARM_UP = 5


def observations(streams: Sequence[Stream], size: tuple[int, int], count: int) -> list[dict[str, np.ndarray]]:
    """Draw random observations, so that nothing can be reused."""
    rng = np.random.default_rng(0)
    return [
        {
            stream.name: rng.integers(0, 256, (*size, 3), dtype=np.uint8)
            if stream.kind == "image"
            else rng.normal(size=stream.shape).astype(np.float32)
            for stream in streams
        }
        for _ in range(count)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("policy", type=Path)
    parser.add_argument("--decisions", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/serve.json"))
    arguments = parser.parse_args()
    settings = PipelineConfig.load(None, {}, [], base=saved_tables(arguments.policy))
    live = load_live(settings, find_policy(arguments.policy))
    views = sum(stream.kind == "image" for stream in live.observes)
    command = [sys.executable, "-m", "vla", "serve", str(arguments.policy), "--port", "0", "--json"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    result: dict[str, Any] = {"machine": machine(), "policy": str(arguments.policy)}
    seen_with = live.encoder.identity.describe() if live.encoder else ""
    result |= {"encoder": seen_with, "decisions": arguments.decisions}
    try:
        assert server.stdout is not None
        with PolicyClient(json.loads(server.stdout.readline())["url"], timeout_s=60) as client:
            for size in SIZES:
                draws = observations(live.observes, size, 2 * (WARM_UP + arguments.decisions))
                seconds: dict[str, list[float]] = {
                    "local": [],
                    "round_trip": [],
                    "server_encode": [],
                    "server_head": [],
                    "transport": [],
                }
                client.reset()
                for before, now in zip(draws[::2], draws[1::2], strict=True):
                    both = {name: np.stack([before[name], now[name]])[None] for name in now}
                    began = time.perf_counter()
                    live.act(both)
                    seconds["local"].append(time.perf_counter() - began)
                    client.observe(before)
                    began = time.perf_counter()
                    timing = client.act(now).timing
                    seconds["round_trip"].append(time.perf_counter() - began)
                    seconds["server_encode"].append(timing["encode_s"])
                    seconds["server_head"].append(timing["head_s"])
                    computing = timing["encode_s"] + timing["head_s"]
                    seconds["transport"].append(seconds["round_trip"][-1] - computing)
                name = f"{views} views of {size[0]}x{size[1]}"
                result[name] = {part: percentiles_ms(values[WARM_UP:]) for part, values in seconds.items()}
                print(name, json.dumps({part: row["p50"] for part, row in result[name].items()}))
    finally:
        server.terminate()
        server.wait()
    write_json(arguments.out, result)


if __name__ == "__main__":
    main()
