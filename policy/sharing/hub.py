"""Policies on the Hub: found by name and revision, and published.

The Hub is asked only when a revision is named. A mistyped `runs/demo` has the form of a Hub id too, and
must not become somebody else's policy. Weights are safetensors; nothing else is downloaded.
"""

import shlex
from pathlib import Path

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError

from vla.base.errors import CheckpointError
from vla.base.hub import HUB_ERRORS, HUB_ID, TIMEOUT_S, first_line, refusal

SHARED_FILES = (
    "README.md",
    "config.json",
    "model.safetensors",
    "pipeline.toml",
    "encoders/*.json",
    "encoders/*.safetensors",
)


def locate(name: str | Path, revision: str | None = None) -> Path:
    """Return where a run or a policy lies on this machine; one on the Hub is downloaded.

    Args:
        name: a path, or `owner/name` on the Hub.
        revision: branch, tag or commit on the Hub; None never asks the Hub.

    Raises:
        CheckpointError: there is no such path, or the Hub or the policy on it cannot be reached.
    """
    path, name = Path(name), str(name)
    if path.exists():
        return path
    is_id = HUB_ID.fullmatch(name) is not None
    if not is_id or revision is None:
        hint = "; if it is on the Hub, name the revision: --revision main" if is_id else ""
        train = f"vla train --out {shlex.quote(name)}"
        raise CheckpointError(f"no run and no policy at {name}; train one: {train}{hint}")
    return _snapshot(name, revision)


def push(folder: Path, repo_id: str, *, private: bool) -> str:
    """Publish a shared policy's files; makes the repository if it is not there.

    Returns:
        The url of the commit.

    Raises:
        CheckpointError: the Hub cannot be reached, or refuses.
    """
    if constants.HF_HUB_OFFLINE:
        raise CheckpointError(f"{folder} was written, not pushed: HF_HUB_OFFLINE is set")
    api = HfApi()
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            allow_patterns=list(SHARED_FILES),
            commit_message="Policy trained with vla",
        )
    except HUB_ERRORS as error:
        # No more than would have been published, and to no more people.
        again = ["hf", "upload", *(["--private"] if private else []), repo_id, str(folder)]
        again += [f"--include={name}" for name in SHARED_FILES]
        raise CheckpointError(
            f"{folder} was written, pushing it to '{repo_id}' failed ({first_line(error)}); log in with "
            f"`hf auth login` and push again: {shlex.join(again)}"
        ) from error
    return str(commit.commit_url)


def _snapshot(name: str, revision: str) -> Path:
    try:
        return Path(
            snapshot_download(
                name, revision=revision, allow_patterns=list(SHARED_FILES), etag_timeout=TIMEOUT_S
            )
        )
    except LocalEntryNotFoundError as error:
        reason = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "the Hub cannot be reached"
        raise CheckpointError(
            f"policy '{name}' at '{revision}' is not on this machine and {reason}; where there is a network: "
            f"hf download {name} --revision {shlex.quote(revision)} --local-dir DIR, then name the directory"
        ) from error
    except HUB_ERRORS as error:
        refused = refusal(error, "policy", name, revision)
        raise CheckpointError(
            refused or f"policy '{name}' cannot be downloaded: {first_line(error)}"
        ) from error
