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
    *("cache.json", "shard", "old-cache.json", "old-shard", "old-texts"),
    *("info.json", "episodes.jsonl", "episodes.parquet", "data.parquet", "mp4", "hdf5"),
    *("robomimic", "zarray", "zarr-chunk", "zarr-ends", "jpegxl", "zarr.zip"),
    *("config.json", "old-config.json", "model.safetensors", "pipeline.toml"),
    *("request", "greeting", "reply", "websocket"),
)
START_S = 90
"""A process may take so long beside its fuzzing: 5 s on a quiet machine, up to a minute on a busy one, and
`CASE_S` of `one.py` for a case that does not end."""


def fuzz(name: str, engine: str, seconds: float, folder: Path) -> dict[str, Any]:
    """Fuzz one target with one engine; return its row."""
    one = str(Path(__file__).with_name("one.py"))
    command = [sys.executable, one, name, engine, str(seconds), str(folder)]
    log = folder / f"{name}-{engine}.log"
    try:
        with log.open("w") as stderr:
            ended = subprocess.run(
                command, stdout=subprocess.PIPE, stderr=stderr, text=True, timeout=seconds + START_S
            )
    except subprocess.TimeoutExpired:
        return _died(name, engine, f"no end after {seconds + START_S:.0f} s", folder)
    rows = [line for line in ended.stdout.splitlines() if line.startswith('{"target"')]
    if rows:
        log.unlink()
        return dict(json.loads(rows[-1]))
    if "Timeout (" in log.read_text():  # of faulthandler
        return _died(name, engine, "one case does not end", folder)
    return _died(name, engine, f"process ended with {ended.returncode}", folder)


def _died(name: str, engine: str, how: str, folder: Path) -> dict[str, Any]:
    """Return the row of a process that could not report; how many cases it tried is not known."""
    last = folder / f"{name}-{engine}.last"
    given = f"given {last.name}" if last.exists() else "before its first case"
    finding = f"{how}, {given}; where it was: {name}-{engine}.log"
    return {"target": name, "engine": engine, "cases": None, "taken": None, "finding": finding}


def _count(number: int | None) -> str:
    return f"{'?' if number is None else number:>8}"


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
        counts = f"{_count(row['cases'])} {_count(row['taken'])}"
        print(f"{row['target']:20} {row['engine']:12} {counts}  {row['finding'] or '-'}")
    findings = sum(row["finding"] is not None for row in rows)
    cases = sum(row["cases"] or 0 for row in rows)
    print(
        f"{cases} cases, {findings} findings, {time.monotonic() - began:.0f} s; bytes of findings in {folder}"
    )
    if findings:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
