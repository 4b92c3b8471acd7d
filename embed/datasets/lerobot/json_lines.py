"""Read lists of JSON values: one a line as LeRobot writes them, or formatted over several lines."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from vla.base.errors import DatasetError
from vla.embed.datasets.folder import DatasetFolder
from vla.embed.datasets.lerobot.info import one_line

MAX_BYTES = 1 << 30
M = TypeVar("M", bound=BaseModel)


def read_json_lines(folder: DatasetFolder, name: str) -> Iterator[tuple[int, Any]]:
    """Yield each value with the line that it begins in, counted from 1.

    Raises:
        DatasetError: the file is missing, cannot be read, or holds something else.
    """
    path = folder.file(name)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DatasetError(
                f"{path} has more than {MAX_BYTES >> 20} MiB; it is no list of episodes or tasks"
            )
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} cannot be read: {error}") from error
    decoder, place, line = json.JSONDecoder(), 0, 1
    while True:
        begin = place
        while place < len(text) and text[place].isspace():
            place += 1
        line += text.count("\n", begin, place)
        if place == len(text):
            return
        try:
            value, stop = decoder.raw_decode(text, place)
        except (ValueError, RecursionError) as error:
            raise DatasetError(f"{path}, line {line}: is not JSON ({str(error)[:100]})") from error
        yield line, value
        line += text.count("\n", place, stop)
        place = stop


def validated(path: Path, line: int, model: type[M], value: Any) -> M:
    """Check one value.

    Raises:
        DatasetError: it is not of the model's form.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise DatasetError(f"{path}, line {line}: {one_line(error, model)}") from error
