"""No name in a dataset leads out of it."""

from pathlib import Path

import pytest

from vla.base.errors import DatasetError
from vla.embed.datasets.folder import DatasetFolder, fill_template


@pytest.fixture
def folder(tmp_path: Path) -> DatasetFolder:
    root = tmp_path / "demos"
    (root / "data").mkdir(parents=True)
    (root / "data/table").write_text("rows")
    (tmp_path / "secret").write_text("not for you")
    return DatasetFolder("demos", root)


def test_a_file_inside_is_found(folder: DatasetFolder) -> None:
    assert folder.file("data/table").read_text() == "rows"
    assert (folder.has("data/table"), folder.has("data/other"), folder.has("data")) == (True, False, False)


def test_a_missing_file_is_named(folder: DatasetFolder) -> None:
    with pytest.raises(DatasetError, match="demos: data/other is missing; the dataset is incomplete"):
        folder.file("data/other")


@pytest.mark.parametrize("name", ["../secret", "data/../../secret", "/etc/hostname", "data/../../demos2/x"])
def test_names_that_lead_out_are_refused(folder: DatasetFolder, name: str) -> None:
    with pytest.raises(DatasetError, match="leads out of the dataset"):
        folder.file(name)


def test_links_that_lead_out_are_refused_and_links_inside_are_not(folder: DatasetFolder) -> None:
    (folder.root / "data/out").symlink_to(folder.root.parent / "secret")
    (folder.root / "up").symlink_to("..")
    (folder.root / "data/in").symlink_to("table")
    assert folder.file("data/in").read_text() == "rows"
    for name in ("data/out", "up/secret"):
        with pytest.raises(DatasetError, match=r"leads out of the dataset, to .*secret"):
            folder.file(name)


def test_the_directory_itself_may_be_a_link(folder: DatasetFolder, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder.root)
    assert DatasetFolder("link", tmp_path / "link").file("data/table").read_text() == "rows"


def test_in_the_hubs_cache_links_lead_to_the_blobs_of_the_same_repository(tmp_path: Path) -> None:
    snapshot = tmp_path / "datasets--a--b/snapshots/abc"
    snapshot.mkdir(parents=True)
    (tmp_path / "datasets--a--b/blobs").mkdir()
    (tmp_path / "datasets--a--b/blobs/123").write_text("rows")
    (tmp_path / "secret").write_text("not for you")
    (snapshot / "table").symlink_to("../../blobs/123")
    (snapshot / "out").symlink_to("../../../secret")
    folder = DatasetFolder("a/b", snapshot)
    assert folder.file("table").read_text() == "rows"
    with pytest.raises(DatasetError, match="leads out of the dataset"):
        folder.file("out")


@pytest.mark.parametrize("name", ["a\0b", "x" * 300, "loop/x"])
def test_what_is_no_file_name_is_refused(folder: DatasetFolder, name: str) -> None:
    (folder.root / "loop").symlink_to("loop")
    with pytest.raises(DatasetError, match=r"is no file name|is missing"):
        folder.file(name)


def test_hidden_files_are_not_listed(folder: DatasetFolder) -> None:
    (folder.root / "data/.cache").mkdir()
    (folder.root / "data/.cache/lock").touch()
    assert folder.files_below("data") == ["data/table"]


def test_templates_are_filled_as_lerobot_fills_them() -> None:
    template = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
    fields: dict[str, int | str] = {
        "video_key": "observation.images.top",
        "chunk_index": 2,
        "file_index": 1234,
    }
    assert fill_template(template, fields) == template.format(**fields)


@pytest.mark.parametrize(
    "template",
    [
        "{chunk_index.__class__.__mro__}",
        "{chunk_index[0]}",
        "{chunk_index!r}",
        "{chunk_index:>99999999d}",
        "{0}",
        "{}",
        "{chunk_index:03d",
    ],
)
def test_templates_cannot_reach_into_objects(template: str) -> None:
    with pytest.raises(DatasetError, match="path template"):
        fill_template(template, {"chunk_index": 1})


def test_an_unknown_field_is_answered_with_the_nearest() -> None:
    with pytest.raises(DatasetError, match="unknown field; did you mean 'chunk_index'"):
        fill_template("data/{chunk_indx:03d}", {"chunk_index": 1, "file_index": 0})
