"""Families: parts that are chosen by name, such as action heads, each a strict config beside its class.

A member is a subclass of the family's base config whose field `type` has its name as default. Defining the
class is all it takes: in a file of one of the family's folders, in a module of `[plugins] modules`, or behind
an entry point of the group `vla.plugins`. A name that is read from a cache or a checkpoint is looked up among
members only; it cannot name a module.

    class HeadConfig(StrictModel): ...
    HEADS = Family("action head", HeadConfig, "vla.policy.heads", default="imf")

    class FlowConfig(HeadConfig):            # policy/heads/flow.py
        type: Literal["flow"] = "flow"

    class PolicyConfig(StrictModel):         # accepts "flow", {"type": "flow"}, FlowConfig()
        head: Annotated[HeadConfig, HEADS.choice()] = HEADS.by_default()
"""

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar, cast

from pydantic import Field, GetCoreSchemaHandler, ValidationError
from pydantic_core import CoreSchema, core_schema

from vla.base.errors import ConfigError, nearest
from vla.base.strict import MemberError, StrictModel

PLUGIN_GROUP = "vla.plugins"
Config = TypeVar("Config", bound=StrictModel)


class Family(Generic[Config]):
    """The members of one kind.

    Args:
        what: a member, in words, for messages.
        base: the config that all members extend.
        packages: folders whose modules define members; the file is usually named as the member.
        default: the member that a table without `type` is.
    """

    # `base` is a class, but an abstract one, and those have no `type[...]`.
    def __init__(self, what: str, base: Callable[..., Config], *packages: str, default: str) -> None:
        self.what, self.packages, self.default = what, packages, default
        self.base = cast(type[Config], base)

    def members(self) -> dict[str, type[Config]]:
        """Return all members by name; imports every module of the family's folders, and plugins."""
        for package in self.packages:
            for module in _modules(package):
                importlib.import_module(f"{package}.{module}")
        load_plugins()
        return dict(sorted(self._defined().items()))

    def member(self, name: str) -> type[Config]:
        """Look a member up.

        Raises:
            ConfigError: there is none of that name; the message lists those there are.
        """
        if (found := self._defined().get(name)) is not None:
            return found
        for package in self.packages:  # the usual place, so that nothing else has to be imported
            modules = {
                module.name for module in pkgutil.iter_modules(importlib.import_module(package).__path__)
            }
            if name in modules:
                importlib.import_module(f"{package}.{name}")
        found = self._defined().get(name) or self.members().get(name)
        if found is None:
            raise ConfigError(
                f"there is no {self.what} '{name}'; {nearest(name, self.members())}; one of a plugin needs "
                "its package installed, or its module in [plugins] modules"
            )
        return found

    def parse(self, value: object) -> Config:
        """Turn a name, a table with `type`, or a config into a config; raises MemberError, a ValueError."""
        if isinstance(value, self.base):
            return value
        table = {"type": value} if isinstance(value, str) else value
        if not isinstance(table, Mapping):
            raise ValueError(f"expected the name of one kind of {self.what}, or a table with 'type'")
        name = table.get("type", self.default)
        if not isinstance(name, str):
            raise ValueError(f"'type' must be the name of one kind of {self.what}")
        try:
            member = self.member(name)
        except ConfigError as error:
            raise ValueError(str(error)) from error
        try:
            return member.model_validate({**table, "type": name})
        except ValidationError as error:
            raise MemberError(error, member) from error

    def choice(self) -> "Choice":
        """Return what lets an annotated field of the base config hold any member: `parse` reads it."""
        return Choice(self)

    def by_default(self) -> Any:
        """Return a field's default value: the default member, which is imported when it is needed."""
        return Field(default=self.default, validate_default=True)

    def _defined(self) -> dict[str, type[Config]]:
        found: dict[str, type[Config]] = {}
        waiting = list(self.base.__subclasses__())
        while waiting:
            config = waiting.pop()
            waiting += config.__subclasses__()
            name = config.model_fields["type"].default if "type" in config.model_fields else None
            if isinstance(name, str):
                found[name] = config
        return found


class Choice:
    """Mark of a pydantic field that holds a member of a family; its dump is the member's, `type` included."""

    def __init__(self, family: Family[Any]) -> None:
        self.family = family

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        def dump(member: StrictModel, info: Any) -> dict[str, Any]:
            mode = "json" if info.mode == "json" else "python"
            return member.model_dump(mode=mode, exclude_none=info.exclude_none)

        return core_schema.no_info_plain_validator_function(
            self.family.parse,
            serialization=core_schema.plain_serializer_function_ser_schema(dump, info_arg=True),
        )


def as_table(value: object) -> object:
    """Turn a member's bare name into its table, so that a key can be set in it; anything else stays.

    `--set policy.head.loss_power=0` over a file with `head = "imf"` means that member.
    """
    return {"type": value} if isinstance(value, str) else value


def _modules(package: str) -> list[str]:
    return [module.name for module in pkgutil.iter_modules(importlib.import_module(package).__path__)]


_loaded: set[str] = set()


def load_plugins(modules: tuple[str, ...] = ()) -> None:
    """Import plugins, each once: those installed as entry points, and modules that the user named.

    Raises:
        ConfigError: one cannot be imported; the message names it.
    """
    installed = (point.module for point in entry_points(group=PLUGIN_GROUP))
    for name in (*installed, *modules):
        if name in _loaded:
            continue
        try:
            importlib.import_module(name)
        except Exception as error:  # whoever wrote it may raise anything
            raise ConfigError(
                f"plugin '{name}' cannot be imported ({type(error).__name__}: {error}); mend it, or leave "
                "it out"
            ) from error
        _loaded.add(name)


def loaded_plugins() -> tuple[str, ...]:
    """Return the modules of all plugins so far, for a process that is started to load them too."""
    return tuple(sorted(_loaded))
