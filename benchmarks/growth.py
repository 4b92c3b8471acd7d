"""What a day more costs: a dataset that grows, shrinks, is merged and packed otherwise, embedded each time.

    python benchmarks/growth.py

First an encoder of SigLIP2-base's shape over 100 episodes of 12 frames, one camera, and what is done to them
afterwards; then 100,000 episodes of two tiny frames, twice. Seconds are those of whole commands, Python's
start and imports among them.
"""

import io
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from demonstrations import SIGLIP2_BASE
from fake_datasets import write_dataset
from measure import parser, rounded, save
from PIL import Image
from transformers import SiglipVisionConfig, SiglipVisionModel

FRAMES, SIZE, TINY_SIZE = 12, (96, 128), (8, 8)
COUNTED = ("episodes", "frames", "episodes_new", "episodes_dropped", "images_encoded", "parts")


def demos(root: Path, shows: Sequence[int], per_file: int) -> Path:
    """Write some of endless episodes in place of what was there."""
    shutil.rmtree(root, ignore_errors=True)
    lengths = [FRAMES] * len(shows)
    return write_dataset(
        root, lengths, SIZE, 7, cameras={"top": "image"}, episodes_per_file=per_file, shows=shows
    )


def vla(*words: object) -> tuple[dict[str, Any], float]:
    """Run a command; return its report and its seconds."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "vla", *map(str, words), "--json"]
    # Not where a pipeline.toml lies, which would name other cameras.
    place = tempfile.gettempdir()
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=place)
    return json.loads(ended.stdout), time.perf_counter() - began


def growing(work: Path, episodes: int) -> dict[str, Any]:
    """Return what each change of a dataset costs."""
    work.mkdir()
    SiglipVisionModel(SiglipVisionConfig(**SIGLIP2_BASE)).save_pretrained(work / "encoder")
    options = ["--encoder", work / "encoder", "--out", work / "out", "--device", "cpu"]
    figures: dict[str, Any] = {}

    def embed(what: str, root: Path, *more: str) -> None:
        report, seconds = vla("embed", "--dataset", root, *options, *more)
        figures[what] = {
            "seconds": rounded(seconds, 3),
            "without_imports_s": rounded(report["seconds"], 3),
            **{name: report[name] for name in COUNTED},
        }
        print(f"{what}: {figures[what]}", flush=True)

    ten, all_of_them = episodes // 10, range(episodes)
    root = demos(work / "demos", all_of_them, ten)
    embed("first", root)
    embed("unchanged", root)
    more = range(episodes + ten)
    embed("a tenth more, dry run", demos(root, more, ten), "--dry-run")
    embed("a tenth more", root)
    embed("a tenth less", demos(root, more[ten:], ten))
    embed("a copy that is packed otherwise", demos(work / "packed", more[::-1], 7))
    other = [*range(episodes + ten, episodes + 2 * ten)]
    embed("another dataset", demos(work / "tuesday", other, ten))
    embed("both merged", demos(work / "merged", [*other, *more[ten:]], 4 * ten))
    embed("every second of them", root, "--set", f"dataset.episodes={list(range(0, episodes, 2))}")
    (cache,) = (path for path in (work / "out").glob("demos-*") if path.is_dir())
    report, seconds = vla("compact", cache)
    parts = {name: report[name] for name in ("parts_before", "parts")}
    figures["compact"] = {"seconds": rounded(seconds, 3), **parts}
    for key in ("seconds", "without_imports_s"):
        share = figures["a tenth more"][key] / figures["first"][key]
        figures[f"share_of_a_tenth_more_{key}"] = rounded(share, 3)
    return figures


def many(work: Path, episodes: int) -> dict[str, Any]:
    """Return what it costs to embed many episodes, and to look at them again."""
    root = write_many(work / "many", episodes)
    options = ["--encoder", "pixels", "--set", f"encoder.image_size={list(TINY_SIZE)}", "--out", work / "out"]
    figures: dict[str, Any] = {"episodes": episodes}
    for what in ("first", "unchanged", "unchanged, dry run"):
        more = ["--dry-run"] if "dry" in what else []
        report, seconds = vla("embed", "--dataset", root, *options, *more, "--device", "cpu")
        figures[what] = {"seconds": rounded(seconds, 3), "images_encoded": report["images_encoded"]}
        print(f"{episodes} episodes, {what}: {figures[what]}", flush=True)
    return figures


def write_many(root: Path, episodes: int, per_file: int = 1000, length: int = 2) -> Path:
    """Write a LeRobotDataset v3.0 of many short episodes, quickly."""
    rng = np.random.default_rng(0)
    write_dataset(root, [length], TINY_SIZE, 3, cameras={"top": "image"})
    schema = pq.read_schema(root / "data/chunk-000/file-000.parquet")
    pictures = []
    for image in rng.integers(0, 256, (256, *TINY_SIZE, 3), dtype=np.uint8):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG")
        pictures.append({"bytes": buffer.getvalue(), "path": None})
    rows: list[dict[str, Any]] = []
    for first in range(0, episodes, per_file):
        count = min(per_file, episodes - first)
        index = np.arange(first * length, (first + count) * length)
        vectors = rng.normal(size=(2, len(index), 3)).astype(np.float32)
        columns: dict[str, Any] = {
            "observation.images.top": [pictures[k % 256] for k in index],
            "observation.state": list(vectors[0]),
            "action": list(vectors[1]),
            "timestamp": (index % length / 25).astype(np.float32),
            "frame_index": index % length,
            "episode_index": index // length,
            "index": index,
            "task_index": np.zeros(len(index), np.int64),
        }
        table = pa.table({name: columns[name] for name in schema.names}, schema=schema)
        pq.write_table(table, root / f"data/chunk-000/file-{first // per_file:03d}.parquet")
        rows += [
            {
                "episode_index": number,
                "tasks": ["Move."],
                "length": length,
                "data/chunk_index": 0,
                "data/file_index": first // per_file,
                "dataset_from_index": number * length,
                "dataset_to_index": (number + 1) * length,
            }
            for number in range(first, first + count)
        ]
    pq.write_table(pa.Table.from_pylist(rows), root / "meta/episodes/chunk-000/file-000.parquet")
    info = json.loads((root / "meta/info.json").read_text())
    info |= {"total_episodes": episodes, "total_frames": episodes * length}
    (root / "meta/info.json").write_text(json.dumps(info))
    return root


def main() -> None:
    options = parser(__doc__, "growth")
    options.add_argument(
        "--episodes", type=int, default=100, help="that are encoded by the full-size encoder"
    )
    options.add_argument("--many", type=int, default=100_000, help="tiny episodes")
    arguments = options.parse_args()
    if arguments.tiny:
        arguments.episodes, arguments.many = 10, 2000
    with tempfile.TemporaryDirectory(prefix="vla-growth-") as work:
        figures = {"many": many(Path(work), arguments.many)}
        figures["growing"] = growing(Path(work) / "growing", arguments.episodes)
    save(arguments, "growth", figures, "one camera, short episodes")


if __name__ == "__main__":
    main()
