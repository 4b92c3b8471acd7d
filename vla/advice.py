"""What to run next: the command that helps against an error which only says what is wrong.

`cache/` is read by programs that know no command line, so its errors carry facts; the commands print them
with advice.
"""

import shlex
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

from vla.base.errors import CacheError

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def repair_command(cache: Path) -> str:
    """Return the command that makes a cache whole again; it encodes what is missing or damaged, no more."""
    made_by = cache / "pipeline.toml"
    options = ["--config", str(made_by), "--out", str(cache.parent)] if made_by.is_file() else []
    return shlex.join(["vla", "embed", *options])


def advise(error: CacheError) -> str:
    """Return an error's line, with what helps."""
    if error.folder is None or not error.remedy:
        return str(error)
    folder, again = error.folder, repair_command(error.folder)
    advice = {
        "make": f"make one: vla embed --dataset DIR --out {shlex.quote(str(folder))}",
        "finish": "run the same `vla embed` again, it goes on",
        "choose": f"name one: --cache {shlex.quote(str(folder))}",
        "mend": f"mend it, only damaged shards are encoded again: {again}",
        "rewrite": f"delete it and make it again, nothing is encoded twice: {again}",
        "texts": f"make them, no image is encoded again: {again} --language",
        "stray": "if no `vla embed` is at work here, delete it",
        "not finite": "look at it, or try --set encoder.dtype=float32",
    }[error.remedy]
    return f"{error}; {advice}"


def advised(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Let a stage raise its cache errors with advice."""

    @wraps(function)
    def call(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        try:
            return function(*args, **kwargs)
        except CacheError as error:
            raise CacheError(advise(error)) from error

    return call
