"""How much memory a process can still take: what the machine has left, and what its control groups leave it.

Page cache counts as left, since the kernel gives it up when asked: right after a cache was written, hardly
anything is "free" and nearly all is available.
"""

import os
from collections.abc import Iterator
from pathlib import Path


def available_memory(root: Path = Path("/")) -> int | None:
    """Return the bytes that can be taken; None where the system does not say.

    Containers and schedulers such as SLURM limit a process by control groups, of which every one above it
    counts. Where there is no `/proc`, as on macOS, it is all the memory that the machine has.

    Args:
        root: where `proc` and `sys` lie.
    """
    left = [*_of_machine(root), *_of_groups(root)]
    if left:
        return max(0, min(left))
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return None


def _of_machine(root: Path) -> Iterator[int]:
    for line in _lines(root / "proc/meminfo"):
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            yield int(value.split()[0]) * 1024  # "kB"


def _of_groups(root: Path) -> Iterator[int]:
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers == "":  # version 2
            yield from _left(root / "sys/fs/cgroup", path, "memory.max", "memory.current", "")
        elif "memory" in controllers.split(","):  # version 1
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")
            yield from _left(root / "sys/fs/cgroup/memory", path, *names)


def _left(base: Path, path: str, limit: str, usage: str, prefix: str) -> Iterator[int]:
    """Yield what a group and those above it leave; a container may see its own as `base` itself."""
    inside = Path(path.strip("/"))
    for folder in [base / part for part in (inside, *inside.parents)]:
        most, used = _number(folder / limit), _number(folder / usage)
        if most is not None and used is not None:
            yield most - used + _page_cache(folder / "memory.stat", prefix)


def _page_cache(stat: Path, prefix: str) -> int:
    rows = dict(line.split(maxsplit=1) for line in _lines(stat))
    return sum(int(rows.get(f"{prefix}{kind}_file", 0)) for kind in ("active", "inactive"))


def _number(path: Path) -> int | None:
    """Return what a file says; None without one, or where it says "max"."""
    text = "".join(_lines(path)).strip()
    return int(text) if text.isdigit() else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
