"""`vla embed` again, `--dry-run` and `vla compact` from the command line."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from fake_growth import demos, frames_of, run

from vla.cli import main


def vla(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, dict[str, Any]]:
    """Run a command; return its exit code and what it printed as JSON."""
    with pytest.raises(SystemExit) as ended:
        main([*map(str, words), "--json"])
    return int(ended.value.code or 0), json.loads(capsys.readouterr().out)


def test_a_dry_run_says_what_the_command_then_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command: list[object] = ["embed", "--encoder", "pixels", "--set", "encoder.image_size=[8, 8]"]
    command += ["--dataset", demos(tmp_path / "demos", range(4)), "--out", tmp_path / "out"]
    command += ["--device", "cpu"]
    assert vla(capsys, *command)[0] == 0
    demos(tmp_path / "demos", [1, 2, 3, 6])
    planned, done = (vla(capsys, *command, *more)[1] for more in (["--dry-run"], []))
    counts = ("episodes_new", "episodes_kept", "episodes_dropped", "frames_encoded", "images_encoded")
    assert [planned[key] for key in counts] == [1, 3, 1, frames_of([6]), 2 * frames_of([6])]
    assert [done[key] for key in counts] == [planned[key] for key in counts]
    assert (planned["dry_run"], done["dry_run"], done["parts"]) == (True, False, 2)
    assert done["hours_encoded"] == planned["hours_encoded"] and done["mib_encoded"] > 0
    assert vla(capsys, *command)[1]["shards_encoded"] == 0


def test_parts_are_joined(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for count in (2, 4):
        grown = run(demos(tmp_path / "demos", range(count)), tmp_path / "out")
    code, said = vla(capsys, "compact", tmp_path / "out")
    assert (code, said["parts_before"], said["parts"], said["episodes"]) == (0, 2, 1, 4)
    assert said["fingerprint"] == grown.fingerprint
    assert said["next"] == f"vla train --cache {grown.cache}"


def test_there_is_nothing_to_join_in_an_old_cache(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = shutil.copytree(Path(__file__).parents[1] / "cache/format2", tmp_path / "old")
    code, said = vla(capsys, "compact", old)
    assert code == 1 and "is of format 2, which has no parts; nothing to do" in said["error"]
