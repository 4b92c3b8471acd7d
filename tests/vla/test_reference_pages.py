"""The generated pages are what the code says: every key, every command, every public name."""

import inspect
import runpy
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import vla
from vla.config import PipelineConfig

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts/reference.py"


@pytest.fixture(scope="module")
def reference() -> dict:  # type: ignore[type-arg]
    return runpy.run_path(str(SCRIPT))


@pytest.mark.skipif(
    f"typer=={version('typer')}" not in (ROOT / "constraints.txt").read_text().split(),
    reason="another typer words its help otherwise",
)
@pytest.mark.parametrize("name", ["configuration.md", "commands.md", "api.md"])
def test_the_pages_are_up_to_date(reference: dict, name: str) -> None:  # type: ignore[type-arg]
    text = (ROOT / "docs" / name).read_text()
    assert text == reference["PAGES"][name](), "run python scripts/reference.py"


def test_every_key_is_there_with_its_meaning(reference: dict) -> None:  # type: ignore[type-arg]
    models = []
    for field in PipelineConfig.model_fields.values():
        family = reference["family_of"](field)
        models += list(family.members().values()) if family else [field.annotation]
    rows = [row for model in models for row in reference["keys"](model)]
    assert len(rows) > 80
    for key, kind, _, meaning in rows:
        assert key.endswith("type") or (kind.strip() and meaning.endswith(".")), key


@pytest.mark.parametrize("name", sorted(vla.PUBLIC))
def test_every_public_name_is_documented_and_typed(name: str, reference: dict) -> None:  # type: ignore[type-arg]
    thing = reference["public"](name)
    assert inspect.getdoc(thing)
    if inspect.isfunction(thing):
        assert "return" in thing.__annotations__
        assert thing.__annotations__.keys() - {"return"} == inspect.signature(thing).parameters.keys()


def test_rooms_are_functions_too_and_modules_still(tmp_path: Path) -> None:
    program = "import vla, vla.embed.engine, vla.rollout; print(callable(vla.embed), callable(vla.rollout))"
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert finished.stdout.split() == ["True", "True"]
