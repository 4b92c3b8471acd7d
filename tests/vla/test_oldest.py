"""The oldest versions that `make oldest` installs are the lower bounds of pyproject.toml, all of them."""

import subprocess
import sys
from pathlib import Path

from packaging.version import Version

ROOT = Path(__file__).parents[2]


def pins(*arguments: str) -> dict[str, str]:
    command = [sys.executable, str(ROOT / "scripts/oldest.py"), *arguments]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return dict(line.split("==") for line in lines)


def test_every_package_has_a_lower_bound_that_the_tested_versions_keep() -> None:
    text = (ROOT / "constraints.txt").read_text().replace("_", "-").lower()
    tested = dict(line.split("==") for line in text.splitlines() if "==" in line)
    oldest = pins()
    assert {"torch", "numpy", "h5py", "websockets", "onnx", "pytest"} <= oldest.keys()
    for name, version in oldest.items():
        assert Version(version) <= Version(tested[name.replace("_", "-").lower()]), name


def test_a_package_can_be_pinned_otherwise() -> None:
    assert pins("torch==9.9") == {**pins(), "torch": "9.9"}
