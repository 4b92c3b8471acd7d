"""Find a dataset: a directory, or a repository on the Hub of which only what is needed is downloaded.

The Hub is asked only when a revision is named. A mistyped directory such as `data/sim` has the form of
a Hub id too, and must not become somebody else's dataset.
"""

import glob
import re
import shlex
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError

from vla.base.errors import DatasetError
from vla.base.hub import HUB_ERRORS, HUB_ID, TIMEOUT_S, first_line, refusal
from vla.embed.datasets.dataset_config import DatasetConfig
from vla.embed.datasets.folder import DatasetFolder
from vla.embed.datasets.lerobot.info import INFO

COMMIT = re.compile(r"[0-9a-f]{40}")
MAX_PATTERNS = 500
"""Every file of the repository is compared with every pattern; more files are asked for by folder."""


def find_dataset(config: DatasetConfig) -> DatasetFolder:
    """Return where the demonstrations are; of a dataset on the Hub the metadata at least.

    Raises:
        DatasetError: there is no such directory or file, or the Hub or the dataset on it cannot be reached.
    """
    path = Path(config.path)
    if path.is_dir():
        return DatasetFolder(config.path, path)
    if path.is_file():
        return DatasetFolder(config.path, path.parent, only=path.name)
    is_id = HUB_ID.fullmatch(config.path) is not None
    if not is_id or config.revision is None:
        hint = "; if it is on the Hub, name the revision: --set dataset.revision=main" if is_id else ""
        raise DatasetError(
            f"no dataset at {config.path} (there is no such directory or file); "
            f"record one: vla record --task sim_transfer --out {shlex.quote(config.path)}{hint}"
        )
    root = _metadata(config.path, config.revision)
    folder = DatasetFolder(config.path, root, revision=root.name)
    if not folder.has(INFO):
        raise DatasetError(
            f"dataset '{config.path}' at {config.revision} is no LeRobotDataset (it has no {INFO}); "
            f"vla reads other formats from directories: {_download_command(config.path)}"
        )
    return folder


def complete(folder: DatasetFolder, files: Sequence[str]) -> None:
    """Download the files of a dataset on the Hub that are not on this machine yet.

    Raises:
        DatasetError: they cannot be had.
    """
    missing = [name for name in files if not folder.has(name)]
    if not missing:
        return
    if constants.HF_HUB_OFFLINE:
        raise DatasetError(
            f"{len(missing)} files of dataset '{folder.name}', such as {missing[0]}, are not on this machine "
            f"and HF_HUB_OFFLINE is set; {_download_command(folder.name)}"
        )
    patterns = [glob.escape(name) for name in missing]
    if len(patterns) > MAX_PATTERNS:
        patterns = sorted({f"{glob.escape(str(PurePosixPath(name).parent))}/*" for name in missing})
    _snapshot(folder.name, str(folder.revision), patterns)
    if absent := [name for name in missing if not folder.has(name)]:
        raise DatasetError(
            f"dataset '{folder.name}' lacks {absent[0]} on the Hub, which its metadata name; it is incomplete"
        )


def _metadata(name: str, revision: str) -> Path:
    """Return the snapshot folder of a revision, with at least its metadata in it."""
    if COMMIT.fullmatch(revision) or constants.HF_HUB_OFFLINE:  # cannot have changed, or must not be asked
        local = _local(name, revision)
        if local is not None:
            return local
    if constants.HF_HUB_OFFLINE:
        raise DatasetError(
            f"dataset '{name}' is not on this machine and HF_HUB_OFFLINE is set; {_download_command(name)}"
        )
    try:
        HfApi().dataset_info(name, revision=revision, timeout=TIMEOUT_S)
    except HUB_ERRORS as error:
        if reason := refusal(error, "dataset", name, revision):
            raise DatasetError(reason) from error
        local = _local(name, revision)
        if local is not None:
            return local
        raise DatasetError(
            f"dataset '{name}' is no directory, is not downloaded, and the Hub cannot be reached; "
            f"{_download_command(name)}"
        ) from error
    return _snapshot(name, revision, ["meta/*"])


def _local(name: str, revision: str) -> Path | None:
    """Return the snapshot that was downloaded earlier, if it has metadata."""
    try:
        root = Path(snapshot_download(name, repo_type="dataset", revision=revision, local_files_only=True))
    except (LocalEntryNotFoundError, OSError, ValueError):
        return None
    return root if (root / INFO).is_file() else None


def _snapshot(name: str, revision: str, patterns: Sequence[str]) -> Path:
    try:
        return Path(
            snapshot_download(name, repo_type="dataset", revision=revision, allow_patterns=list(patterns))
        )
    except HUB_ERRORS as error:
        raise DatasetError(
            f"dataset '{name}' cannot be downloaded ({first_line(error)}); run the same command "
            f"again, it goes on; or elsewhere: {_download_command(name)}"
        ) from error


def _download_command(name: str) -> str:
    target = name.rpartition("/")[2]
    return (
        f"hf download {name} --repo-type dataset --local-dir {target}, then name the directory: "
        f"--dataset {target}"
    )
