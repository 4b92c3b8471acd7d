"""Environments: each world is a folder with its expert; how any other environment is made to fit.

A folder here is a world. Its `world.py` registers environments with Gymnasium and defines the tasks that have
an expert (`vla.rollout.worlds.expert`); it imports no simulator. A world of another package does the same in
a module that is a plugin.
"""

import importlib
import pkgutil


def import_worlds() -> None:
    """Import `world.py` of every folder, so that its environments and experts are known by name."""
    for module in pkgutil.iter_modules(__path__):
        if module.ispkg:
            importlib.import_module(f"{__name__}.{module.name}.world")
