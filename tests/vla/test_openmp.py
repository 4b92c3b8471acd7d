"""OpenMP's threads soon sleep. libgomp reads the setting once, when torch is loaded."""

import os
import subprocess
import sys

import pytest

from vla.base.openmp import spin_briefly
from vla.suite.devices import child_environment

VARIABLES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
A_COMMAND = """
import sys
from vla.cli import main
assert "torch" not in sys.modules
try:
    main(["train", "--cache", "nowhere"])
except SystemExit:
    assert "torch" in sys.modules
"""


@pytest.fixture(autouse=True)
def nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.setenv(name, "")  # so that whatever comes is taken back
        monkeypatch.delenv(name)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="libgomp is what torch has on Linux")
def test_a_command_sets_it_before_torch_is_loaded() -> None:
    shown = {**os.environ, "OMP_DISPLAY_ENV": "verbose"}  # libgomp prints what it has read
    finished = subprocess.run([sys.executable, "-c", A_COMMAND], capture_output=True, text=True, env=shown)
    assert "GOMP_SPINCOUNT = '3000'" in finished.stderr


def test_what_a_command_starts_inherits_it() -> None:
    spin_briefly()
    assert child_environment(["cpu", "cpu"])["GOMP_SPINCOUNT"] == "3000"
    program = "import os; print(os.environ['GOMP_SPINCOUNT'])"
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "3000\n"


@pytest.mark.parametrize(("name", "value"), [("GOMP_SPINCOUNT", "5"), ("OMP_WAIT_POLICY", "passive")])
def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    spin_briefly()
    assert {key: os.environ.get(key) for key in VARIABLES} == dict.fromkeys(VARIABLES) | {name: value}
