"""Stage one: every dataset frame through the frozen encoder, once, into a feature cache."""

from vla.embed.config import DatasetConfig, EncoderConfig
from vla.embed.encoder import FrozenEncoder
from vla.embed.engine import EmbedReport, embed

__all__ = ["DatasetConfig", "EmbedReport", "EncoderConfig", "FrozenEncoder", "embed"]
