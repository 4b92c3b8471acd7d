"""The errors a user can act on.

    VlaError                 base; the commands print its one line and exit with code 1
    ├── ConfigError          an unknown key, a value out of range
    ├── DatasetError         demonstrations that are missing, incomplete or not readable
    ├── EncoderError         weights that cannot be reached, or are another encoder's
    │   └── EncoderMismatch  a policy's encoder and the one named differ
    ├── CacheError           a feature cache that is missing, damaged or of another make
    ├── CheckpointError      a run or policy that cannot be read
    ├── WriteError           a place that has no room or may not be written
    ├── EnvironmentSetupError  simulation or rendering that this machine cannot do
    ├── ServerError          a policy server or its client that is not there, or does not say what was agreed
    └── MissingPackageError  an optional package; the message holds the command that installs it

Every message says what was asked, what was found, what would be right and what to run next.
"""

import difflib
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol, runtime_checkable

MAX_HEAD, MAX_TAIL = 1000, 500
"""Characters of a message that are kept where it quotes an endless name: what was found, and what to do."""


class VlaError(Exception):
    """Something the user can mend; the message is one short line, whatever it quotes."""

    def __str__(self) -> str:
        line = " ".join(super().__str__().splitlines())
        if len(line) > MAX_HEAD + MAX_TAIL:
            return f"{line[:MAX_HEAD]} ... {line[-MAX_TAIL:]}"
        return line


class ConfigError(VlaError):
    """The configuration is not valid."""


class DatasetError(VlaError):
    """Demonstrations cannot be read as asked."""


class EncoderError(VlaError):
    """The vision encoder cannot be loaded, or is not the one expected."""


@runtime_checkable
class Identity(Protocol):
    """Whatever can say what it is, such as `vla.cache.metadata.EncoderIdentity`."""

    @property
    def id(self) -> str:
        """Where it is found."""

    def describe(self) -> str:
        """Say what it is."""


class EncoderMismatch(EncoderError):
    """A policy was trained on another encoder's features than are computed now.

    Args:
        trained: the encoder of the policy.
        found: the one that was named; None if there is none.
    """

    def __init__(self, trained: Identity, found: Identity | None) -> None:
        self.trained, self.found = trained, found
        named = found.describe() if found else "none"
        super().__init__(
            f"the policy was trained on features of {trained.describe()}, the encoder named is {named}; "
            f"name the former: --encoder {shlex.quote(trained.id)}"
        )


class CacheError(VlaError):
    """The feature cache cannot be used.

    Args:
        what: what is wrong, in words.
        folder: where.
        remedy: make (there is none), finish, choose (there are several), mend (damaged shards), rewrite (its
            header), texts, stray (a file too many), not finite (values); `vla.advice` knows the command.
    """

    def __init__(self, what: str, *, folder: Path | None = None, remedy: str = "") -> None:
        super().__init__(what)
        self.folder, self.remedy = folder, remedy


class CheckpointError(VlaError):
    """The run or the policy cannot be read or written."""


class WriteError(VlaError):
    """A file cannot be written; what was there before is untouched."""


class EnvironmentSetupError(VlaError):
    """The simulation or its rendering cannot run on this machine."""


class ServerError(VlaError):
    """A policy server and its client do not come together."""


class MissingPackageError(VlaError, ImportError):
    """An optional package is not installed.

    Args:
        package: its import name.
        extra: of vla, which brings it.
    """

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"this needs the package '{package}'; run: pip install 'vla[{extra}]'")


def nearest(name: str, valid: Iterable[str]) -> str:
    """Return a clause that names the closest valid name, or else lists all of them.

    >>> nearest("per_view_dims", ["per_view_dim", "n_emb"])
    "did you mean 'per_view_dim'?"
    """
    names = sorted(valid)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    return "valid names: " + ", ".join(names)
