"""LeRobot's commands, run in this process: each import of LeRobot takes longer than most tests."""

import importlib
import sys
from pathlib import Path

import pytest


def run_lerobot(command: str, *options: str, cwd: Path) -> None:
    """Run `lerobot-COMMAND OPTIONS` in a folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(cwd)
        patch.setattr(sys, "argv", [f"lerobot-{command}", *options])
        importlib.import_module(f"lerobot.scripts.lerobot_{command}").main()
