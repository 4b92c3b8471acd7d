"""The house: links, arrows between rooms, what is installed."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHARED = {"base"}
"""What every room may use: it knows no room itself."""
ARROWS = {
    "cache": set(),
    "embed": {"cache"},
    "policy": {"cache"},
    "rollout": {"embed", "policy", "cache"},
}


def imported_rooms(file: Path) -> set[str]:
    """Return the second part of every `vla.x` that a file imports."""
    modules: list[str] = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{file} imports relatively"
            modules.append(node.module)
    return {module.split(".")[1] for module in modules if module.startswith("vla.")}


@pytest.mark.parametrize("room", sorted(ARROWS))
def test_a_room_is_linked_into_the_import_package(room: str) -> None:
    link = ROOT / "vla" / room
    assert link.resolve() == ROOT / room, (
        f"{link} should be a symbolic link to ../{room}; "
        "on Windows run `git config core.symlinks true` and check out again"
    )


@pytest.mark.parametrize("room", sorted(ARROWS))
def test_a_room_imports_only_along_the_arrows(room: str) -> None:
    for file in (ROOT / room).rglob("*.py"):
        assert imported_rooms(file) <= ARROWS[room] | SHARED | {room}, file


def test_what_rooms_share_imports_no_room() -> None:
    for file in (ROOT / "vla/base").rglob("*.py"):
        assert imported_rooms(file) <= SHARED, file


def loaded_by(module: str, suspects: set[str]) -> set[str]:
    """Return which of some modules a fresh interpreter has loaded after importing one."""
    program = f"import sys, {module}; print(*sorted({suspects!r} & set(sys.modules)))"
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(finished.stdout.split())


def test_the_command_line_starts_without_torch_or_mujoco() -> None:
    heavy = {"torch", "transformers", "mujoco", "datasets", "numpy", "gymnasium", "pydantic"}
    assert loaded_by("vla.cli", heavy) == set()


def test_training_imports_no_encoder_decoder_or_simulator() -> None:
    heavy = {"transformers", "mujoco", "datasets", "PIL", "av", "vla.embed", "vla.rollout"}
    assert loaded_by("vla.policy.training.train", heavy) == set()


def test_files_are_short_enough_to_read() -> None:
    for folder in (*ARROWS, "vla"):
        for file in (ROOT / folder).rglob("*.py"):
            assert len(file.read_text().splitlines()) <= 300, f"{file}: is it still one idea?"


def test_the_client_of_the_policy_server_imports_no_torch() -> None:
    heavy = {"torch", "transformers", "mujoco", "datasets", "gymnasium", "pydantic", "safetensors"}
    assert loaded_by("vla.client", heavy) == set()


def test_every_script_that_is_named_is_there() -> None:
    named = re.compile(r"(?<![\w/])(?:benchmarks|examples|scripts|tests)/[\w/-]+\.(?:py|toml|sh)\b")
    folders = (*ARROWS, "vla", "benchmarks", "examples", "scripts", "docs", "tests")
    files = [file for folder in folders for file in (ROOT / folder).rglob("*") if file.is_file()]
    history = {ROOT / "docs/log.md"}  # says what was true then
    for file in {*files, ROOT / "README.md", ROOT / "Makefile", ROOT / "pipeline.toml"} - history:
        if file.suffix in {".py", ".md", ".toml", ".sh", ""}:
            for name in named.findall(file.read_text()):
                assert (ROOT / name).is_file(), f"{file} names {name}"
