"""A copy of the encoder beside what was made with it: in caches, runs and shared policies.

    encoders/<name>/    whatever `EncoderConfig.files` says; a folder that `--encoder` takes

A trunk that a run adapted lies in no public place. Without a copy, a policy would be lost with the run
that its eyes are from.
"""

from pathlib import Path

from vla.base.files import write_atomically

FOLDER = "encoders"


def kept_encoder(*places: Path | None) -> Path | None:
    """Return the encoder's folder of the first place that keeps one; None where none does."""
    for place in places:
        if place is not None:
            found = sorted(path.parent for path in (place / FOLDER).glob("*/config.json"))
            if found:
                return found[0]
    return None


def keep_encoder(encoder: Path | None, place: Path) -> None:
    """Copy an encoder's folder to a place; None is nothing to copy.

    Raises:
        WriteError: the disk is full, or may not be written.
    """
    if encoder is None:
        return
    # `config.json` last: with it the folder is whole.
    for file in sorted(encoder.iterdir(), key=lambda path: path.name == "config.json"):
        write_atomically(place / FOLDER / encoder.name / file.name, file.read_bytes())
