"""The check of a GPU: on a machine without one it says so and runs the CPU's side."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def gpu_check(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    import gpu_check

    return gpu_check


def test_without_a_gpu_it_says_so_and_runs_the_cpus_side(gpu_check: Any) -> None:
    lines: list[str] = []
    code = gpu_check.main(["--only", "loss"], lambda line, **_: lines.append(line))
    assert code == 0
    assert lines[0].startswith("no CUDA device here")
    assert len(lines) == 2 + 4 + 1  # two of the head, the paths, one of the end
    assert all(line.endswith("not here: no GPU; the CPU's side ran") for line in lines[2:-1])


def test_what_goes_wrong_is_a_line_of_the_table(gpu_check: Any) -> None:
    gpu_paths = sys.modules["gpu_paths"]

    def broken(device: torch.device) -> Any:
        raise RuntimeError("no kernel\nfor this")

    outcome = gpu_check.check(gpu_paths.Path_("a path", broken, 0.0), torch.device("cpu"))
    assert outcome.verdict == "failed: RuntimeError: no kernel for this"
