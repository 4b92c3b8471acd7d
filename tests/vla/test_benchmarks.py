"""The figures in the documents are those in benchmarks/results."""

import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return runpy.run_path(str(BENCHMARKS / "tables.py"))


def test_tables_in_the_documents_are_what_was_measured() -> None:
    command = [sys.executable, str(BENCHMARKS / "tables.py"), "--check"]
    finished = subprocess.run(command, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr


def test_a_document_says_which_gpu_figures_are_missing_and_how_to_get_them(tables: dict[str, Any]) -> None:
    machine = {"cpu": "a CPU", "cores": 2, "gpu": None, "torch": "2", "date": "2026-01-01"}
    results = {"rollout-cpu": {"machine": machine, "parallel_over_plain": 1.75}}
    text = tables["all_speed_tables"](results)
    assert "| parallel, over one through Gymnasium | 1.7 x | 1.75 x |" in text
    assert "| 50,000 steps, CUDA graphs |" not in text  # nothing is known of it
    assert "benchmarks/train.py --device cuda`: step, over a fixed batch (goal: at most 1.05)" in text
    assert "50,000 steps, CUDA graphs (goal: 10 min)" in text
    assert "rollout: a CPU, 2 cores, torch 2, 2026-01-01." in text


def test_a_table_has_a_column_for_a_gpu_that_was_measured(tables: dict[str, Any]) -> None:
    machine = {"cpu": "a CPU", "cores": 2, "gpu": "a GPU", "torch": "2", "date": "2026-01-01"}
    results = {"train-cuda": {"machine": machine, "compiled": {"graphs": {"minutes_for_50000_steps": 9.5}}}}
    table = tables["speed_table"](results)
    assert "| goal | GPU |" in table
    assert "| `vla train`: 50,000 steps, CUDA graphs | 10 min | 9.5 min |" in table
    assert (
        "CUDA graphs (goal"
        not in tables["all_speed_tables"](results).partition("train.py --device")[2].partition("TF32")[0]
    )


def test_storage_is_computed_from_the_format(tables: dict[str, Any]) -> None:
    scale = runpy.run_path(str(BENCHMARKS / "scale_tables.py"))
    assert scale["frame_bytes"](1) == 3 * 768 * 2 + 4 * (16 + 16) + 4 * 2
