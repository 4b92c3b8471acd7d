"""The picture of a training, which other tests leave out."""

from pathlib import Path

import pytest
from fake_language import Bench
from PIL import Image

from vla.policy.training import plots
from vla.policy.training.plots import plot_training
from vla.policy.training.run import RunDirectory


def test_a_training_ends_with_a_picture_of_its_curves(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[RunDirectory] = []

    def draw(run: RunDirectory) -> Path:
        drawn.append(run)
        return plot_training(run)

    monkeypatch.setattr(plots, "plot_training", draw)
    bench.train("pictured", **{"policy.language": True})
    run = bench.root / "pictured"
    assert [one.path for one in drawn] == [run]
    with Image.open(run / "plots/training.png") as picture:
        assert picture.size == (1440, 420)
        assert (
            len(picture.convert("RGB").getcolors(1 << 20) or []) > 50
        )  # curves in colour, not an empty page


def test_a_run_that_logged_nothing_has_a_picture_too(tmp_path: Path) -> None:
    assert plot_training(RunDirectory.create(tmp_path / "run")).is_file()
