"""Write the pages that are generated: docs/configuration.md, docs/commands.md and docs/api.md.

python scripts/reference.py            after a key, a command, a public function or its docstring has changed
python scripts/reference.py --check    complain if a page is not what the code says
"""

import ast
import inspect
import json
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import click
import typer.main
from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo

import vla
from vla.base.family import Choice, Family
from vla.cli import app
from vla.config import PipelineConfig

DOCS = Path(__file__).parents[1] / "docs"
CONFIGURATION = """\
# Configuration

One file, one table per stage: `pipeline.toml` in the working directory, or `--config FILE`. Every key can be
given on the command line too, `--set train.lr=3e-4`; the order is defaults < file < options. An unknown key
is an error that names the nearest valid one. What a command resolved is saved with its output.

Parts that are chosen by name have a key `type`: `head = "flow"` and `head = { type = "flow" }` are the same,
and the latter takes the member's own keys too. Each member is a file of its own; plugins add more.

This page is written by `python scripts/reference.py`.
"""
COMMANDS = """\
# Commands

Every command has `--json` (one object on stdout; progress and errors go to stderr) and exits with 0, with 1
and one line that says what to do, with 2 for a wrong option, or with 130 or 143 when it was interrupted. This
page is written by `python scripts/reference.py` from `vla COMMAND --help`.
"""
API = """\
# Python

`import vla` is quick; torch and the rest come with the first name that needs them. Every name below is
`vla.NAME`. This page is written by `python scripts/reference.py` from the docstrings.
"""


def configuration() -> str:
    """Return the page of all keys."""
    sections = [CONFIGURATION]
    for table, field in PipelineConfig.model_fields.items():
        if (family := family_of(field)) is not None:
            sections.append(family_section(f"[{table}]", "##", family, ""))
        else:
            model = field.annotation
            assert isinstance(model, type) and issubclass(model, BaseModel)
            sections.append(f"## [{table}]\n\n{first_paragraph(model)}\n\n{table_of(keys(model))}\n")
            sections += nested_sections(table, model)
    return "\n".join(sections)


def own_members(family: Family[Any]) -> dict[str, Any]:
    """Return the members that come with vla, and none of a plugin that happens to be installed or defined."""
    return {name: one for name, one in family.members().items() if one.__module__.startswith("vla.")}


def family_section(title: str, level: str, family: Family[Any], path: str) -> str:
    """Describe a family: what all members share, then each member's own keys."""
    members = own_members(family)
    shared = [row for row in keys(family.base, path) if row[0] != f"{path}type"]
    text = f"{level} {title}\n\n{first_paragraph(family.base)} Default: `{family.default}`.\n"
    if shared:
        text += f"\n{table_of(shared)}\n"
    nested: dict[str, str] = {}
    known = {row[0] for row in shared}
    for name, member in members.items():
        own = [row for row in keys(member, path) if row[0] not in known and row[0] != f"{path}type"]
        text += f'\n{level}# {title} `type = "{name}"`\n\n{first_paragraph(member)}\n'
        text += f"\n{table_of(own)}\n" if own else ""
        for section in nested_sections(title.strip("[]"), member):
            nested.setdefault(section.partition("\n")[0], section)
    return text + "".join(f"\n{section}" for section in nested.values())


def nested_sections(table: str, model: type[BaseModel]) -> Iterator[str]:
    """Describe the families that fields of a model choose from."""
    for name, field in model.model_fields.items():
        if (family := family_of(field)) is not None:
            yield family_section(f"{table}.{name}", "###", family, "")


def family_of(field: FieldInfo) -> Family[Any] | None:
    """Return the family that a field chooses a member of, or a table of members."""
    found = [mark for mark in field.metadata if isinstance(mark, Choice)]
    found += [
        mark
        for part in getattr(field.annotation, "__args__", ())
        for mark in getattr(part, "__metadata__", ())
    ]
    return next((mark.family for mark in found if isinstance(mark, Choice)), None)


def keys(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str, str, str]]:
    """Yield key, values, default and meaning of all fields, nested ones by their dotted names."""
    meanings = attribute_docstrings(model)
    for name, field in model.model_fields.items():
        family = family_of(field)
        if family is None and isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from keys(field.annotation, f"{prefix}{name}.")
            continue
        default = None
        if not field.is_required():
            default = field.get_default(call_default_factory=True, validated_data={})
        shown = "" if default is None else f"`{json.dumps(default, default=str)}`"
        if family is not None:
            kind = ", ".join(f"`{member}`" for member in own_members(family))
        else:
            annotated: Any = (
                Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
            )
            kind = values(TypeAdapter(annotated).json_schema())
        yield f"{prefix}{name}", kind, shown, meanings.get(name, "")


def table_of(rows: Any) -> str:
    """Write rows as a table."""
    lines = [f"| `{key}` | {kind} | {default} | {text} |" for key, kind, default, text in rows]
    return "\n".join(["| key | values | default | |", "|---|---|---|---|", *lines])


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
    """Return the strings that stand below fields, inherited ones too, as one line each."""
    found: dict[str, str] = {}
    for owner in reversed(model.__mro__):
        if not (issubclass(owner, BaseModel) and owner.__module__.startswith("vla.")):
            continue
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
        assert isinstance(body, ast.ClassDef)
        for field, below in zip(body.body, body.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
                assert isinstance(field.target, ast.Name) and isinstance(below.value, ast.Constant)
                found[field.target.id] = " ".join(str(below.value.value).split()).replace("|", "\\|")
    return found


def first_paragraph(model: type[Any]) -> str:
    """Return what something is for."""
    return " ".join((inspect.getdoc(model) or "").partition("\n\n")[0].split())


def commands() -> str:
    """Return the page of all commands, as `--help` has them."""
    group = typer.main.get_command(app)
    assert isinstance(group, click.Group) or hasattr(group, "commands")
    sections = [COMMANDS]
    for name, command in group.commands.items():
        context = click.Context(command, info_name=f"vla {name}", terminal_width=100, max_content_width=100)
        sections.append(f"## vla {name}\n\n```\n{command.get_help(context).strip()}\n```\n")
    return "\n".join(sections)


def api() -> str:
    """Return the page of all public names."""
    sections = [API]
    for name in sorted(vla.PUBLIC):
        thing = public(name)
        sections.append(f"## {name}\n\n```python\n{signature(name, thing)}\n```\n\n{described(thing)}\n")
    return "\n".join(sections)


def public(name: str) -> Any:
    """Return what a public name stands for; of a room, its function."""
    import importlib

    return getattr(importlib.import_module(vla.PUBLIC[name]), name)


def signature(name: str, thing: Any) -> str:
    """Write how something is called."""
    if isinstance(thing, type) and issubclass(thing, BaseModel | Exception):
        return f"class vla.{name}"
    parameters = inspect.signature(thing).parameters.values()
    named = ", ".join(str(p) for p in parameters if p.name != "self")
    return f"{'class ' if isinstance(thing, type) else ''}vla.{name}({named})"


def described(thing: Any) -> str:
    """Return a docstring as Markdown: its sections as lists."""
    text = inspect.getdoc(thing) or ""
    lines: list[str] = []
    for line in text.splitlines():
        if line in ("Args:", "Returns:", "Raises:", "Attributes:"):
            lines += ["", f"*{line.rstrip(':')}*", ""]
        elif line.startswith("    ") and not line.startswith("     "):
            lines.append(f"- {line.strip()}")
        else:
            lines.append(line.strip() if line.startswith("     ") else line)
    return "\n".join(lines)


PAGES = {"configuration.md": configuration, "commands.md": commands, "api.md": api}


if __name__ == "__main__":
    for name, page in PAGES.items():
        path, text = DOCS / name, page()
        if "--check" not in sys.argv[1:]:
            path.write_text(text)
        elif not path.is_file() or path.read_text() != text:
            sys.exit(f"docs/{name} is not what the code says; run python scripts/reference.py")
