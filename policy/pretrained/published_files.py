"""Find files that somebody published: in a directory, or on the Hub and then on this machine."""

from collections.abc import Iterable
from pathlib import Path

from vla.base.errors import ConfigError


def find_files(name: str, revision: str, files: Iterable[str], what: str, example: str) -> Path:
    """Return the folder of some files, downloaded from the Hub where they are not on this machine.

    Args:
        name: a directory, or `owner/name` on the Hub.
        revision: branch, tag or commit on the Hub.
        files: their names, or patterns of names; what is named in full must be there.
        what: they are, for messages.
        example: of a name.

    Raises:
        ConfigError: there is no such directory, and the Hub cannot be reached or has nothing of that name.
    """
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    from vla.base.hub import HUB_ERRORS, HUB_ID, TIMEOUT_S, first_line, refusal

    if not HUB_ID.fullmatch(name):
        raise ConfigError(f"{what}: no directory '{name}'; name one, or an id on the Hub such as {example}")
    patterns = list(files)
    try:  # what is here is taken without a word with the Hub
        here = Path(snapshot_download(name, revision=revision, local_files_only=True))
        if all((here / file).is_file() for file in patterns if "*" not in file):
            return here
    except LocalEntryNotFoundError:
        pass
    try:
        return Path(
            snapshot_download(name, revision=revision, allow_patterns=patterns, etag_timeout=TIMEOUT_S)
        )
    except HUB_ERRORS as error:
        reason = refusal(error, what, name, revision) or (
            "HF_HUB_OFFLINE is set"
            if constants.HF_HUB_OFFLINE
            else f"the Hub cannot be reached ({first_line(error)[:200]})"
        )
        raise ConfigError(
            f"{what}: '{name}' is no directory, is not on this machine, and {reason}; with a network: "
            f"hf download {name} --local-dir DIR, then name DIR"
        ) from None
