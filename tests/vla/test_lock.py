"""One writer at a time, between real processes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from fake_faults import read_only

from vla.base.errors import VlaError
from vla.base.lock import exclusive

HOLD = """
import sys, time
from pathlib import Path
from vla.base.lock import exclusive
with exclusive(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_another_process_is_refused_and_told_who_is_first_until_that_one_dies(tmp_path: Path) -> None:
    target = tmp_path / "cache"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, target], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    with pytest.raises(VlaError, match=rf"is being written by process {holder.pid} on "), exclusive(target):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    assert (tmp_path / "cache.lock").exists()  # the file is left, the lock is not
    with exclusive(target):
        pass


def test_the_working_directory_is_locked_under_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path / "run")
    with exclusive(Path()):
        assert (tmp_path / "run.lock").is_file()


def test_a_stale_file_with_the_number_of_a_living_process_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "cache.lock").write_text(f"{os.getppid()} on elsewhere\n")
    with exclusive(tmp_path / "cache"):
        pass
    assert not (tmp_path / "cache.lock").exists()


def test_a_place_that_may_not_be_written_is_one_line(tmp_path: Path) -> None:
    refused = pytest.raises(VlaError, match=r"cache cannot be written \(Permission denied\); .*another --out")
    with refused, read_only(tmp_path), exclusive(tmp_path / "cache"):
        pass
