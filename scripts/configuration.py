"""Write docs/configuration.md: every key of a configuration file, from the models that read it.

python scripts/configuration.py            # after a key or its docstring has changed
python scripts/configuration.py --check    # complain if the page is not what the models say
"""

import ast
import inspect
import json
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from vla.config import PipelineConfig

PAGE = Path(__file__).parents[1] / "docs/configuration.md"
HEAD = """\
# Configuration

One file, one table per stage: `pipeline.toml` in the working directory, or `--config FILE`. Every key can be
given on the command line too, `--set train.lr=3e-4`; the order is defaults < file < options. An unknown key
is an error that names the nearest valid one. What a command resolved is saved with its output. This page is
written by `python scripts/configuration.py`.
"""


def page() -> str:
    """Return the whole page."""
    sections = [HEAD]
    for table, field in PipelineConfig.model_fields.items():
        model = field.annotation
        assert isinstance(model, type) and issubclass(model, BaseModel)
        rows = "\n".join(
            f"| `{key}` | {kind} | {default} | {text} |" for key, kind, default, text in keys(model)
        )
        about = first_paragraph(model)
        sections.append(
            f"## [{table}]\n\n{about}\n\n| key | values | default | |\n|---|---|---|---|\n{rows}\n"
        )
    return "\n".join(sections)


def keys(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str, str, str]]:
    """Yield key, values, default and meaning of all fields, nested ones by their dotted names."""
    properties = model.model_json_schema()["properties"]
    meanings = attribute_docstrings(model)
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from keys(field.annotation, f"{prefix}{name}.")
            continue
        default = field.get_default(call_default_factory=True)
        shown = "" if default is None else f"`{json.dumps(default)}`"
        yield f"{prefix}{name}", values(properties[name]), shown, meanings.get(name, "")


def values(schema: dict[str, Any]) -> str:
    """Say in few words what a key takes."""
    options = [option for option in schema.get("anyOf", [schema]) if option.get("type") != "null"]
    said = [words for option in options if (words := _one(option))]
    return ", ".join(dict.fromkeys(said))


def _one(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    names = {"integer": "whole number", "number": "number", "boolean": "true, false", "array": "list"}
    kind = names.get(
        schema.get("type", ""), {"string": "text", "object": "table"}.get(schema.get("type", ""), "")
    )
    bounds = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    return " ".join([kind, *(f"{sign} {schema[name]:g}" for name, sign in bounds.items() if name in schema)])


def attribute_docstrings(model: type[BaseModel]) -> dict[str, str]:
    """Return the strings that stand below fields, as one line each."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(model))).body
    assert isinstance(body, ast.ClassDef)
    found = {}
    for field, below in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
            assert isinstance(field.target, ast.Name) and isinstance(below.value, ast.Constant)
            found[field.target.id] = " ".join(str(below.value.value).split()).replace("|", "\\|")
    return found


def first_paragraph(model: type[BaseModel]) -> str:
    """Return what a table is for."""
    return " ".join((inspect.getdoc(model) or "").partition("\n\n")[0].split())


if __name__ == "__main__":
    text = page()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(text)
    elif PAGE.read_text() != text:
        sys.exit("docs/configuration.md is not what the models say; run python scripts/configuration.py")
