"""Progress where there is no terminal: lines that a log file can hold."""

import io
import re

import pytest

from vla.base.progress import Progress


def test_a_log_gets_lines_now_and_then_with_rate_and_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("vla.base.progress.SECONDS_BETWEEN_LINES", 0.0)
    with Progress("train", 100, done=90, unit="steps") as progress:
        progress.update(5, loss=0.25)
    first, last = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"train: 95/100 steps \(95%\)  [0-9.]+ steps/s  00:00 left, loss=0\.25", first)
    assert last.startswith("train: 95/100 steps")


def test_work_shorter_than_the_time_between_lines_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("embed", 3, unit="frames") as progress:
        for _ in range(3):
            progress.update()
    said = capsys.readouterr().err
    assert said.startswith("embed: 3/3 frames (100%)") and said.count("\n") == 1


def test_quiet_work_and_work_that_fails_say_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("embed", 3, quiet=True) as progress:
        progress.update(3, loss=1.0)
    with pytest.raises(ValueError), Progress("embed", 3):
        raise ValueError
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    with Progress("embed", 3, unit="frames") as progress:
        progress.update(3)
    assert "100%|" in terminal.getvalue() and " frames/s]" in terminal.getvalue()
