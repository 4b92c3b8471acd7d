"""Memory that is left, read from files as Linux, containers and schedulers write them."""

import os
from pathlib import Path

import pytest

from vla.base.memory import available_memory

GIB = 1 << 30


def write(root: Path, files: dict[str, object]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return root


def machine(root: Path) -> Path:
    """A machine with hardly anything free, because the rest is page cache."""
    meminfo = f"MemTotal: 32000000 kB\nMemFree: 50000 kB\nMemAvailable: {16 * GIB // 1024} kB"
    return write(root, {"proc/meminfo": meminfo})


def test_page_cache_counts_as_available(tmp_path: Path) -> None:
    assert available_memory(machine(tmp_path)) == 16 * GIB


def test_the_control_group_of_a_container_limits_it(tmp_path: Path) -> None:
    write(machine(tmp_path), {"proc/self/cgroup": "0::/", "sys/fs/cgroup/memory.max": 4 * GIB})
    write(tmp_path, {"sys/fs/cgroup/memory.current": 3 * GIB})
    assert available_memory(tmp_path) == 1 * GIB
    write(tmp_path, {"sys/fs/cgroup/memory.stat": f"anon 5\ninactive_file {GIB}\nactive_file {GIB // 2}"})
    assert available_memory(tmp_path) == 1 * GIB + GIB + GIB // 2


def test_every_group_above_a_job_counts_and_max_is_no_limit(tmp_path: Path) -> None:
    job = "sys/fs/cgroup/slurm/job_7"
    write(machine(tmp_path), {"proc/self/cgroup": "0::/slurm/job_7/step_0"})
    write(tmp_path, {f"{job}/memory.max": 6 * GIB, f"{job}/memory.current": 1 * GIB})
    write(tmp_path, {f"{job}/step_0/memory.max": "max", f"{job}/step_0/memory.current": 1 * GIB})
    assert available_memory(tmp_path) == 5 * GIB


def test_version_1_groups_are_read_and_their_unlimited_is_the_machines(tmp_path: Path) -> None:
    group = "sys/fs/cgroup/memory/job"
    write(machine(tmp_path), {"proc/self/cgroup": "4:memory:/job\n1:cpu,cpuacct:/job\n0::/"})
    write(tmp_path, {f"{group}/memory.limit_in_bytes": 2**63 - 4096, f"{group}/memory.usage_in_bytes": GIB})
    assert available_memory(tmp_path) == 16 * GIB
    write(tmp_path, {f"{group}/memory.limit_in_bytes": 3 * GIB})
    write(tmp_path, {f"{group}/memory.stat": f"cache 9\ninactive_file 7\ntotal_inactive_file {GIB}"})
    assert available_memory(tmp_path) == 3 * GIB


def test_without_proc_it_is_all_the_machine_has_or_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": 1000, "SC_PAGE_SIZE": 4096}.__getitem__)
    assert available_memory(tmp_path) == 4_096_000

    def unknown(name: str) -> int:
        raise ValueError("unrecognized configuration name")

    monkeypatch.setattr(os, "sysconf", unknown)
    assert available_memory(tmp_path) is None
