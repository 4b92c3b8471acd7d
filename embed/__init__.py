"""Stage one: every dataset frame through the frozen encoder, once, into a feature cache."""

from vla.embed.datasets.dataset_config import DatasetConfig
from vla.embed.encoder import FrozenEncoder
from vla.embed.encoders.encoder_config import EncoderConfig
from vla.embed.engine import EmbedReport, embed

__all__ = ["DatasetConfig", "EmbedReport", "EncoderConfig", "FrozenEncoder", "embed"]
