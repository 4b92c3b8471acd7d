"""What is remembered beside caches, by several processes and after kills."""

from pathlib import Path

from vla.base.lock import exclusive
from vla.cache.memory import FOLDER, remember, tidy_memory


def test_half_written_files_of_killed_processes_go(tmp_path: Path) -> None:
    left = tmp_path / FOLDER / ".shards.parquet.1.tmp"
    left.parent.mkdir()
    left.write_bytes(b"half")
    tidy_memory(tmp_path)
    assert not left.exists()
    left.write_bytes(b"half")
    remember(tmp_path / FOLDER / "a", b"b")
    assert not left.exists()
    assert sorted(path.name for path in tmp_path.rglob("*")) == [FOLDER, "a"]


def test_whoever_finds_another_at_it_does_without(tmp_path: Path) -> None:
    remember(tmp_path / FOLDER / "a", b"old")
    left = tmp_path / FOLDER / ".a.1.tmp"
    left.write_bytes(b"half")  # the other one's
    with exclusive(tmp_path / FOLDER):
        remember(tmp_path / FOLDER / "a", b"new")
        tidy_memory(tmp_path)
    assert (tmp_path / FOLDER / "a").read_bytes() == b"old" and left.exists()
