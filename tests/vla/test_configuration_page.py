"""docs/configuration.md is what the models say, and says something of every key."""

import runpy
import subprocess
import sys
from pathlib import Path

from vla.config import PipelineConfig

SCRIPT = Path(__file__).parents[2] / "scripts/configuration.py"


def test_the_page_is_up_to_date() -> None:
    finished = subprocess.run([sys.executable, SCRIPT, "--check"], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr


def test_every_key_is_there_with_its_meaning() -> None:
    keys = runpy.run_path(str(SCRIPT))["keys"]
    rows = [row for field in PipelineConfig.model_fields.values() for row in keys(field.annotation)]
    assert len(rows) > 80
    for key, kind, _, meaning in rows:
        assert kind.strip() and meaning.endswith("."), key
