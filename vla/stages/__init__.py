"""The stages as functions of one configuration: what each command calls.

Stages talk through files; the only thing passed along here is where they lie. `vla.api` has the same for
notebooks.
"""

from vla.stages.demonstrations import compact, embed, record
from vla.stages.live import export, export_torch, load_live, rollout, serve
from vla.stages.pretraining import pretrain
from vla.stages.sharing import export_lerobot, share
from vla.stages.training import train

__all__ = [
    "compact",
    "embed",
    "export",
    "export_lerobot",
    "export_torch",
    "load_live",
    "pretrain",
    "record",
    "rollout",
    "serve",
    "share",
    "train",
]
