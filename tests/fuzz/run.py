"""Fuzz every reader for about two minutes: `make fuzz`, or `python tests/fuzz/run.py --seconds 60`.

Each target runs in a process of its own, twice: property-based (hypothesis), and guided by coverage where
atheris is installed. A finding, or a process that dies, makes the exit code 1; its bytes are left in the
folder that is printed, and belong into tests/fuzz/test_findings.py once mended.
"""

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

NAMES = (
    *(
        "cache.json",
        "shard",
        "info.json",
        "episodes.jsonl",
        "episodes.parquet",
        "data.parquet",
        "mp4",
        "hdf5",
    ),
    *("config.json", "model.safetensors", "pipeline.toml"),
    *("request", "greeting", "reply", "websocket"),
)
START_S = 300
"""A process may take so long beside its fuzzing: imports, on a busy machine."""


def fuzz(name: str, engine: str, seconds: float, folder: Path) -> dict[str, Any]:
    """Fuzz one target with one engine; return its row."""
    one = str(Path(__file__).with_name("one.py"))
    command = [sys.executable, one, name, engine, str(seconds), str(folder)]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=seconds + START_S)
    except subprocess.TimeoutExpired:
        return {"target": name, "engine": engine, "cases": 0, "taken": 0, "finding": "does not end"}
    rows = [line for line in ended.stdout.splitlines() if line.startswith('{"target"')]
    if rows:
        return dict(json.loads(rows[-1]))
    died = f"process ended with {ended.returncode}: {ended.stderr.strip().splitlines()[-1:]}"
    return {"target": name, "engine": engine, "cases": 0, "taken": 0, "finding": died}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--seconds", type=float, default=60, help="of fuzzing, all targets together; starts come on top"
    )
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    parser.add_argument("--targets", nargs="*", default=NAMES, choices=NAMES, metavar="NAME")
    chosen = parser.parse_args()
    engines = ["hypothesis", *(["atheris"] if importlib.util.find_spec("atheris") else [])]
    if len(engines) == 1:
        print("atheris is not installed: not guided by coverage (pip install vla[fuzz])")
    work = [(name, engine) for name in chosen.targets for engine in engines]
    seconds = chosen.jobs * chosen.seconds / len(work)
    folder = Path(tempfile.mkdtemp(prefix="vla-fuzz-findings-"))
    began = time.monotonic()
    print(f"{'target':20} {'engine':12} {'cases':>8} {'taken':>8}  finding")
    with ThreadPoolExecutor(chosen.jobs) as pool:
        rows = list(pool.map(lambda job: fuzz(job[0], job[1], seconds, folder), work))
    for row in rows:
        counts = f"{row['cases']:8} {row['taken']:8}"
        print(f"{row['target']:20} {row['engine']:12} {counts}  {row['finding'] or '-'}")
    findings = sum(row["finding"] is not None for row in rows)
    cases = sum(row["cases"] for row in rows)
    print(
        f"{cases} cases, {findings} findings, {time.monotonic() - began:.0f} s; bytes of findings in {folder}"
    )
    if findings:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
