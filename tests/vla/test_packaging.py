"""What gets installed: one import package, `vla`, with all its rooms as real folders."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
ENCODER = [
    f"embed/assets/siglip2-tiny-sim/{name}" for name in ("config.json", "model.safetensors", "README.md")
]


def test_wheel_and_sdist_hold_the_rooms_and_nothing_else_is_importable(tmp_path: Path) -> None:
    # --no-isolation: the build must not download anything in a test.
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    finished = subprocess.run(command, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr[-2000:]

    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        names = wheel.namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"vla"}
    for room in (
        "cache/reader.py",
        "embed/engine.py",
        "policy/heads/imf.py",
        "rollout/live.py",
        "py.typed",
        "presets/small.toml",
        *ENCODER,
    ):
        assert f"vla/{room}" in names

    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as sdist:
        sources = {name.partition("/")[2] for name in sdist.getnames()}
    assert {"pyproject.toml", "pipeline.toml", "constraints.txt", "LICENSE", "vla/cli.py"} <= sources
