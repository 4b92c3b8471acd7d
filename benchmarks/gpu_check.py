"""Does every path that only a GPU takes work? Each runs once at small size and is compared with the CPU.

    python -m benchmarks.gpu_check                # at most two minutes
    python -m benchmarks.gpu_check --only loss    # those whose name contains it

    path         | passed, failed, or why it is not here | difference from the CPU | milliseconds, once warm

The difference is that of all results as one vector, over the length of the CPU's. Without a GPU the CPU's
side of each comparison runs all the same, which shows that the check itself works. Exits with 1 if one has
failed.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vla.base.openmp import spin_briefly

spin_briefly()  # before torch: the machine may have other work

import torch  # noqa: E402
from torch import Tensor  # noqa: E402

sys.path.insert(0, str(Path(__file__).parent))
from gpu_paths import PATHS, Path_, Skipped  # noqa: E402

LIMIT_S = 110.0
"""No path is begun later; each takes seconds, and compiling up to half a minute."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of one path."""

    name: str
    verdict: str
    difference: float | None = None
    allowed: float | None = None
    ms: float | None = None

    def line(self) -> str:
        number = "" if self.difference is None else f"{self.difference:.1e}"
        allowed = "" if self.allowed is None else f"{self.allowed:.0e}"
        ms = "" if self.ms is None else f"{self.ms:.1f}"
        return f"{self.name:<46} {number:>9} {allowed:>8} {ms:>9}  {self.verdict}"


def check(path: Path_, device: torch.device) -> Outcome:
    """Run one path on a device and on the CPU; whatever goes wrong is its verdict."""
    try:
        expected = _one(path.run(torch.device("cpu"))())
        if device.type == "cpu":
            return Outcome(name=path.name, verdict="not here: no GPU; the CPU's side ran")
        again = path.run(device)
        for _ in range(path.warm_ups):
            again()
        torch.cuda.synchronize(device)
        began = time.perf_counter()
        found = _one(again())
        torch.cuda.synchronize(device)
        ms = 1000 * (time.perf_counter() - began)
    except Skipped as reason:
        return Outcome(name=path.name, verdict=f"not here: {reason}")
    except Exception as error:  # the table says of every path what came of it
        words = " ".join(f"{type(error).__name__}: {error}".split())
        return Outcome(name=path.name, verdict=f"failed: {words[:300]}")
    difference = float((found - expected).norm() / expected.norm())
    verdict = "passed" if difference <= path.allowed else "failed: too far from the CPU"
    return Outcome(name=path.name, verdict=verdict, difference=difference, allowed=path.allowed, ms=ms)


def _one(results: Iterable[Tensor]) -> Tensor:
    return torch.cat([result.detach().double().cpu().flatten() for result in results])


def main(words: list[str] | None = None, say: Callable[..., Any] = print) -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--only", default="", help="paths whose name contains this")
    only = options.parse_args(words).only
    here = torch.cuda.is_available()
    device = torch.device("cuda", 0) if here else torch.device("cpu")
    if not here:
        say("no CUDA device here: the CPU's side of each comparison runs, nothing is compared")
    else:
        say(f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}")
    say(f"{'path':<46} {'differs':>9} {'allowed':>8} {'ms':>9}")
    began, failed = time.monotonic(), 0
    for path in PATHS:
        if only not in path.name:
            continue
        if time.monotonic() - began > LIMIT_S:
            outcome = Outcome(
                name=path.name, verdict=f"not run: {LIMIT_S:.0f} s are over; --only '{path.name}'"
            )
        else:
            outcome = check(path, device)
        failed += outcome.verdict.startswith("failed")
        say(outcome.line(), flush=True)
    say(f"{time.monotonic() - began:.0f} s, {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
