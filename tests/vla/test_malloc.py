"""Memory of many threads comes from one place. Each case is a process: the setting cannot be taken back."""

import os
import platform
import re
import subprocess
import sys

import pytest

# Threads that are all alive take memory; glibc then lists the arenas that it has.
COUNT_ARENAS = """
import ctypes, threading
from vla.base.malloc import share_one_arena
share_one_arena()
malloc, barrier = ctypes.CDLL(None).malloc, threading.Barrier(5)
malloc.restype = ctypes.c_void_p
def take():
    malloc(1000)
    barrier.wait()
threads = [threading.Thread(target=take) for _ in range(5)]
for thread in threads: thread.start()
for thread in threads: thread.join()
ctypes.CDLL(None).malloc_stats()
"""


def arenas(**environment: str) -> int:
    clean = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"}
    finished = subprocess.run(
        [sys.executable, "-c", COUNT_ARENAS], capture_output=True, text=True, env={**clean, **environment}
    )
    assert finished.returncode == 0, finished.stderr
    return len(re.findall(r"^Arena \d+", finished.stderr, re.MULTILINE))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc's")
def test_all_threads_share_one_arena_unless_the_user_has_set_a_number() -> None:
    assert arenas() == 1
    assert 1 < arenas(MALLOC_ARENA_MAX="3") <= 3
