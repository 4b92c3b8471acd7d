"""Strict, frozen records: configuration tables and metadata files.

Unknown keys and wrong types are refused. `explain` turns what pydantic found into one line that
names the key, the value and the nearest valid name.
"""

from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vla.base.errors import nearest

# Metadata and configurations may come from strangers: no number in them may ask for endless work, or for
# tensors whose size overflows.
MAX_WIDTH = 1 << 16
Width = Annotated[int, Field(ge=1, le=MAX_WIDTH)]
Depth = Annotated[int, Field(ge=1, le=1024)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]


class StrictModel(BaseModel):
    """A frozen record without unknown keys; NaN and infinity are refused too."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)


class MemberError(ValueError):
    """A member of a family whose table is not valid; keeps what pydantic found, for `explain`."""

    def __init__(self, error: ValidationError, model: type[BaseModel]) -> None:
        super().__init__(str(error))
        self.error, self.model = error, model


def explain(error: ValidationError, model: type[BaseModel], prefix: str = "") -> str:
    """Describe the first problem of a failed validation in one line.

    Args:
        error: what pydantic raised.
        model: the model that was being built.
        prefix: the dotted path of the model inside the file, such as "train".
    """
    first = error.errors(include_url=False)[0]
    path = [str(part) for part in first["loc"]]
    dotted = ".".join([prefix, *path] if prefix else path)
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, MemberError):
        return explain(cause.error, cause.model, dotted)
    if first["type"] == "extra_forbidden":
        owner = _owner(model, path[:-1])
        hint = nearest(path[-1], owner.model_fields) if owner else "remove it"
        return f"unknown key '{dotted}'; {hint}"
    if first["type"] == "missing":
        return f"key '{dotted}' is missing"
    found, problem = first["input"], first["msg"].lower()
    if isinstance(found, BaseModel | Mapping):  # its parts do not fit together: all of it is no hint
        return f"'{dotted}' is not valid: {problem}" if dotted else problem
    return f"'{dotted}' = {found!r} is not valid: {problem}"


def _owner(model: type[BaseModel], path: list[str]) -> type[BaseModel] | None:
    """Find the nested model that a dotted path leads to."""
    for part in path:
        field = model.model_fields.get(part)
        if field is None or not isinstance(field.annotation, type):
            return None
        if not issubclass(field.annotation, BaseModel):
            return None
        model = field.annotation
    return model
