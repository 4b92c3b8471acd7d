"""What the rooms share of talking to the Hugging Face Hub: which names are ids, and what a refusal means.

Imported only where the Hub may be asked: huggingface_hub takes a third of a second.
"""

import re

from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
TIMEOUT_S = 10

# A connection that fails raises the HTTP library's own error, and huggingface_hub has changed its library
# twice. That error is a base of HfHubHTTPError whichever it is.
HUB_ERRORS: tuple[type[Exception], ...] = (
    OSError,
    ValueError,
    RuntimeError,
    *(base for base in HfHubHTTPError.__bases__ if issubclass(base, Exception)),
)


def refusal(error: Exception, noun: str, name: str, revision: str) -> str | None:
    """Say what the Hub answered.

    Args:
        error: one of HUB_ERRORS.
        noun: what was asked for: encoder, dataset or policy.
        name: its id, `owner/name`.
        revision: branch, tag or commit.

    Returns:
        A sentence without a full stop; None if there was no answer.
    """
    if isinstance(error, GatedRepoError):  # a kind of RepositoryNotFoundError
        return f"{noun} '{name}' asks for access: accept its terms on the Hub, then hf auth login"
    if isinstance(error, RevisionNotFoundError):
        return f"{noun} '{name}' has no revision '{revision}' on the Hub"
    if isinstance(error, RepositoryNotFoundError):
        return f"'{name}' is no path here and no {noun} on the Hub; if it is private: hf auth login"
    return None


def first_line(error: Exception) -> str:
    """Shorten an error of the Hub's library, which may span many lines."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
