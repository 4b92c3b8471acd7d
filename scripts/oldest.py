"""Print the oldest versions that pyproject.toml allows, as constraints for pip: what `make oldest` installs.

python scripts/oldest.py                  # all of them
python scripts/oldest.py torch==2.13.0    # but this one of torch
"""

import re
import sys
import tomllib
from pathlib import Path

PROJECT = Path(__file__).parents[1] / "pyproject.toml"
EXTRAS = ("hdf5", "lora", "zarr", "serve", "onnx", "slurm", "dev")
"""Those that the tests need."""
BOUND = re.compile(r"(?P<name>[\w.-]+)>=(?P<version>[\d.]+)")


def oldest(project: Path = PROJECT) -> dict[str, str]:
    """Return the lower bound of each package, by name.

    Raises:
        ValueError: a requirement has none.
    """
    table = tomllib.loads(project.read_text())["project"]
    asked = [
        *table["dependencies"],
        *(one for extra in EXTRAS for one in table["optional-dependencies"][extra]),
    ]
    bounds = {}
    for requirement in asked:
        if requirement.startswith(f"{table['name']}["):
            continue  # its own extras
        found = BOUND.match(requirement)
        if found is None:
            raise ValueError(f"'{requirement}' of {project} has no lower bound, such as {requirement}>=1.0")
        bounds[found["name"]] = found["version"]
    return bounds


def main() -> None:
    pins = oldest() | dict(argument.split("==") for argument in sys.argv[1:])
    print("\n".join(f"{name}=={version}" for name, version in sorted(pins.items())))


if __name__ == "__main__":
    main()
