"""Files of a checkpoint: in a directory, on this machine from an earlier download, or on the Hub.

What is on this machine is taken without a word with the Hub.
"""

import shlex
from collections.abc import Sequence
from pathlib import Path

from vla.base.errors import ConfigError


def find_folder(
    name: str, revision: str, due: Sequence[str], what: str, example: str, patterns: Sequence[str] = ()
) -> Path:
    """Return the folder that holds some files, downloaded where they are not here yet.

    Args:
        name: a directory, or `owner/name` on the Hub; tried in this order.
        revision: branch, tag or commit on the Hub.
        due: names of the files that must be there.
        what: they belong to, for messages.
        example: of a name that would do.
        patterns: what else is downloaded with them where it exists.

    Raises:
        ConfigError: a file is not there, and the Hub cannot be reached or does not have it.
    """
    folder = Path(name)
    if folder.is_dir():
        return _require(folder, due, what)
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    from vla.base.hub import HUB_ERRORS, HUB_ID, TIMEOUT_S, first_line, refusal

    if not HUB_ID.fullmatch(name):
        raise ConfigError(f"{what}: no directory '{name}'; name one, or an id on the Hub such as {example}")
    wanted = [*due, *patterns]
    try:
        known = snapshot_download(name, revision=revision, allow_patterns=wanted, local_files_only=True)
        if all((Path(known) / file).is_file() for file in due):
            return Path(known)
    except LocalEntryNotFoundError:
        pass  # never downloaded
    try:
        found = snapshot_download(name, revision=revision, allow_patterns=wanted, etag_timeout=TIMEOUT_S)
    except HUB_ERRORS as error:
        reason = refusal(error, what, name, revision) or (
            "HF_HUB_OFFLINE is set"
            if constants.HF_HUB_OFFLINE
            else f"the Hub cannot be reached ({first_line(error)[:200]})"
        )
        raise ConfigError(
            f"{what}: '{name}' is no directory, is not whole on this machine, and {reason}; where there is a "
            f"network: hf download {shlex.quote(name)} --local-dir DIR, then name DIR"
        ) from None
    return _require(Path(found), due, what)


def _require(folder: Path, due: Sequence[str], what: str) -> Path:
    for file in due:
        if not (folder / file).is_file():
            raise ConfigError(f"{what}: {folder} has no {file}; download it again, or name another directory")
    return folder
