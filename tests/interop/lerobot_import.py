"""Let lerobot 0.6 be imported by Python 3.11 and beside PyAV 18; it asks for 3.12 and for av < 16.

Five of its files use the syntax of PEP 695:

    type Name = X                   Name = X
    class Name[T](Base):            class Name(Base, Generic[T]):
    def name[T: X](...):            def name(...):

The type parameters themselves are put into the module before it runs. One file checks the options of a video
codec by a list that PyAV has no more: here the codec itself is all that is in it, so that nothing is checked.
SmolVLA cuts its cache of keys and values back to a length, which transformers 5.23 does no more; lerobot asks
for less than 5.6. Here the layers are cut one by one, to the same length.
"""

import re
import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, ModuleType
from typing import Any, Generic, TypeVar

ALIAS = re.compile(r"^type (?=\w+ = )", re.MULTILINE)
CLASS = re.compile(r"^class (\w+)\[([\w, ]+)\](?:\((.*)\))?:", re.MULTILINE)
FUNCTION = re.compile(r"^def (\w+)\[([^\]]+)\](?=\()", re.MULTILINE)
WITH_PYAV_15 = {"av.option.Option": "object", "in codec.descriptor.options": "in (codec,)"}
BEFORE_TRANSFORMERS_5_6 = {
    "past_key_values.crop(prefix_len)": (
        "[setattr(layer, kept, getattr(layer, kept)[..., :prefix_len, :]) "
        "for layer in past_key_values.layers for kept in ('keys', 'values')]"
    )
}


class LerobotFinder:
    """Finds lerobot's modules; first in `sys.meta_path`."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: Any = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target) if name.startswith("lerobot.") else None
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = LerobotLoader(spec.loader.name, spec.loader.path)
        return spec


class LerobotLoader(SourceFileLoader):
    """Loads a module as it is spelled for what is installed."""

    def exec_module(self, module: ModuleType) -> None:
        for name in type_parameters(self.get_data(self.path).decode()):
            setattr(module, name, TypeVar(name))
            module.__dict__["Generic"] = Generic
        super().exec_module(module)

    def path_stats(self, path: Any) -> Any:
        """Say nothing of the file, so that what pip compiled of the other spelling is not taken."""
        raise OSError(f"{path} is compiled anew")

    def source_to_code(self, data: Any, path: Any, **options: Any) -> CodeType:  # type: ignore[override]
        return super().source_to_code(respelled(bytes(data).decode()).encode(), path, **options)


def respelled(source: str) -> str:
    """Spell a module of lerobot for what is installed."""
    source = FUNCTION.sub(r"def \1", ALIAS.sub("", source))
    source = CLASS.sub(lambda match: _class(*match.groups()), source)
    for theirs, here in {**WITH_PYAV_15, **BEFORE_TRANSFORMERS_5_6}.items():
        source = source.replace(theirs, here)
    return source


def type_parameters(source: str) -> Iterator[str]:
    """Yield the names that classes and functions declare in brackets."""
    for match in (*CLASS.finditer(source), *FUNCTION.finditer(source)):
        for parameter in match.group(2).split(","):
            yield parameter.partition(":")[0].strip()


def _class(name: str, parameters: str, bases: str | None) -> str:
    return f"class {name}({f'{bases}, ' if bases else ''}Generic[{parameters}]):"


sys.meta_path.insert(0, LerobotFinder)
