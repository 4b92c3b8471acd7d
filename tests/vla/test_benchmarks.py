"""The figures in the documents are those in benchmarks/results."""

import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def tables() -> dict[str, Any]:
    return runpy.run_path(str(BENCHMARKS / "tables.py"))


def test_tables_in_the_documents_are_what_was_measured() -> None:
    command = [sys.executable, str(BENCHMARKS / "tables.py"), "--check"]
    finished = subprocess.run(command, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr


def test_a_table_says_which_gpu_figures_are_missing_and_how_to_get_them() -> None:
    machine = {"cpu": "a CPU", "cores": 2, "gpu": None, "torch": "2", "date": "2026-01-01"}
    results = {"rollout-cpu": {"machine": machine, "parallel_over_plain": 1.75}}
    table = tables()["speed_table"](results)
    assert "| 1.7 x | 1.75 x |\n" in table
    assert "CUDA graphs |" not in table  # nothing is known of it
    assert "50,000 steps of 256, CUDA graphs (10 min)" in table
    assert "python benchmarks/rollout.py --device cuda" in table
    assert "rollout: a CPU, 2 cores, torch 2, 2026-01-01." in table


def test_a_table_has_a_column_for_a_gpu_that_was_measured() -> None:
    machine = {"cpu": "a CPU", "cores": 2, "gpu": "a GPU", "torch": "2", "date": "2026-01-01"}
    results = {"train-cuda": {"machine": machine, "compiled": {"graphs": {"minutes_for_50000_steps": 9.5}}}}
    table = tables()["speed_table"](results)
    assert "| goal | GPU |" in table
    assert "| 50,000 steps of 256, CUDA graphs | 10 min | 9.5 min |" in table
    assert "not measured on a gpu yet" in table.lower() and "over a bare loop" in table


def test_storage_is_computed_from_the_format() -> None:
    assert tables()["frame_bytes"](1) == 3 * 768 * 2 + 4 * (16 + 16) + 4 * 2
