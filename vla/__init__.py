"""Train robot manipulation policies on cached features of a frozen vision encoder.

    vla record   expert demonstrations in MuJoCo     -> a LeRobotDataset v3.0 directory
    vla embed    each frame once, a frozen encoder   -> a feature cache
    vla train    trunks, fusion, action head         -> a run directory
    vla rollout  the policy live, in simulation      -> eval_info.json and videos

`import vla` is quick: torch, transformers and mujoco come with the first name that needs them. The functions
and classes of docs/api.md are there as `vla.NAME`.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

PUBLIC = {
    "record": "vla.api",
    "embed": "vla.api",
    "train": "vla.api",
    "adapt": "vla.api",
    "pretrain": "vla.api",
    "rollout": "vla.api",
    "load_live": "vla.api",
    "FeatureCache": "vla.cache",
    "Stream": "vla.cache",
    "FrozenEncoder": "vla.embed.frozen_encoder",
    "Encoder": "vla.embed.encoders.encoder",
    "PerViewEncoder": "vla.embed.encoders.encoder",
    "EncoderConfig": "vla.embed.encoders.encoder",
    "Policy": "vla.policy.agents.policy",
    "PolicyConfig": "vla.policy.policy_config",
    "VLAAgent": "vla.policy.agents.vla_agent",
    "Trunk": "vla.policy.trunks.trunk",
    "TrunkConfig": "vla.policy.trunks.trunk",
    "OneToken": "vla.policy.trunks.trunk",
    "ActionHead": "vla.policy.heads.head",
    "RegressionHead": "vla.policy.heads.mlp",
    "HeadConfig": "vla.policy.heads.head",
    "LivePolicy": "vla.rollout.live",
    "PolicyClient": "vla.client",
    "PipelineConfig": "vla.config",
    "VlaError": "vla.base.errors",
}
"""Public names, and the module each comes from; docs/api.md says what they are."""

__all__ = sorted(PUBLIC)

if TYPE_CHECKING:
    from vla.api import adapt as adapt
    from vla.api import embed as embed
    from vla.api import load_live as load_live
    from vla.api import pretrain as pretrain
    from vla.api import record as record
    from vla.api import rollout as rollout
    from vla.api import train as train
    from vla.base.errors import VlaError as VlaError
    from vla.cache import FeatureCache as FeatureCache
    from vla.cache import Stream as Stream
    from vla.client import PolicyClient as PolicyClient
    from vla.config import PipelineConfig as PipelineConfig
    from vla.embed.encoders.encoder import Encoder as Encoder
    from vla.embed.encoders.encoder import EncoderConfig as EncoderConfig
    from vla.embed.encoders.encoder import PerViewEncoder as PerViewEncoder
    from vla.embed.frozen_encoder import FrozenEncoder as FrozenEncoder
    from vla.policy.agents.policy import Policy as Policy
    from vla.policy.agents.vla_agent import VLAAgent as VLAAgent
    from vla.policy.heads.head import ActionHead as ActionHead
    from vla.policy.heads.head import HeadConfig as HeadConfig
    from vla.policy.heads.mlp import RegressionHead as RegressionHead
    from vla.policy.policy_config import PolicyConfig as PolicyConfig
    from vla.policy.trunks.trunk import OneToken as OneToken
    from vla.policy.trunks.trunk import Trunk as Trunk
    from vla.policy.trunks.trunk import TrunkConfig as TrunkConfig
    from vla.rollout.live import LivePolicy as LivePolicy


class _Room(ModuleType):
    """A room that is also a function: `vla.embed(...)` is the stage, `vla.embed.engine` its module."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from vla import api

        return getattr(api, self.__name__.rpartition(".")[2])(*args, **kwargs)


class _Package(ModuleType):
    """This package; a name that nobody has asked for yet is imported when it is."""

    def __getattr__(self, name: str) -> Any:
        if name not in PUBLIC:
            raise AttributeError(f"module 'vla' has no attribute '{name}'")
        if name in ("embed", "rollout"):
            return importlib.import_module(f"vla.{name}")
        return getattr(importlib.import_module(PUBLIC[name]), name)

    def __setattr__(self, name: str, value: object) -> None:
        if name in ("embed", "rollout") and isinstance(value, ModuleType):
            value.__class__ = _Room  # the import system sets a room as an attribute when it is imported
        super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *PUBLIC})


sys.modules[__name__].__class__ = _Package
