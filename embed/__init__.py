"""Stage one: each frame of a dataset through a frozen encoder, once, into a cache.

datasets        readers, one folder a format
encoders        frozen encoders, one file each
engine          the loop from a dataset to a cache
frozen_encoder  an encoder on its device; live policies use it too
transforms      resizing, augmentation, normalisation
"""

from vla.embed.datasets.dataset_config import DatasetConfig
from vla.embed.encoders.encoder import Encoder, EncoderConfig
from vla.embed.encoders.encoder_family import ENCODERS, encoder_config
from vla.embed.encoders.pixels import PixelsConfig
from vla.embed.encoders.siglip import SiglipConfig
from vla.embed.engine import embed
from vla.embed.frozen_encoder import FrozenEncoder
from vla.embed.report import EmbedReport

__all__ = [
    "ENCODERS",
    "DatasetConfig",
    "EmbedReport",
    "Encoder",
    "EncoderConfig",
    "FrozenEncoder",
    "PixelsConfig",
    "SiglipConfig",
    "embed",
    "encoder_config",
]
