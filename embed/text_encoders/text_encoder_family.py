"""Which text encoder: by name, by what a checkpoint calls itself, or by what a cache or policy remembers."""

from pathlib import Path

from vla.base.errors import EncoderError
from vla.base.family import Family
from vla.cache.metadata import EncoderIdentity, TextIdentity
from vla.embed.encoders.encoder import EncoderConfig
from vla.embed.encoders.encoder_family import encoder_config, model_type_of
from vla.embed.text_encoders.siglip import ADVICE
from vla.embed.text_encoders.text_encoder import TextEncoder, TextEncoderConfig

TEXT_ENCODERS: Family[TextEncoderConfig] = Family(
    "text encoder", TextEncoderConfig, "vla.embed.text_encoders", "vla.rollout.encoders", default="siglip"
)


def named(name: str) -> TextEncoderConfig:
    """Return the text encoder of a name: a member's, a directory or a Hub id.

    Raises:
        ConfigError: no member is called so.
        EncoderError: a directory or a Hub id is none that a member reads.
    """
    if "/" not in name and not Path(name).is_dir():
        return TEXT_ENCODERS.member(name).model_validate({})  # members give every field a value
    model_type = model_type_of(Path(name))
    for member in TEXT_ENCODERS.members().values():
        if model_type in member.model_types or (model_type is None and name.startswith(member.hub_names)):
            return member.model_validate({"id": name})
    what = f"says model_type '{model_type}'" if model_type else "has no config.json that says what it is"
    known = ", ".join(sorted({kind for m in TEXT_ENCODERS.members().values() for kind in m.model_types}))
    raise EncoderError(f"text encoder {name} {what}; those that vla reads say: {known}")


def of_encoder(encoder: EncoderConfig) -> TextEncoderConfig:
    """Return the text encoder of a configuration: `text_encoder`, or else the tower of its checkpoint.

    Raises:
        ConfigError: no text encoder has that name.
        EncoderError: the encoder's checkpoint has no text tower.
    """
    if encoder.text_encoder:
        return named(encoder.text_encoder)
    if encoder.type not in TEXT_ENCODERS.members():
        raise EncoderError(f"{encoder.id} has no text tower that encoder '{encoder.type}' reads; {ADVICE}")
    return TEXT_ENCODERS.member(encoder.type).model_validate({"id": encoder.id, "revision": encoder.revision})


def load_again(texts: TextIdentity, encoder: EncoderIdentity | None) -> TextEncoder:
    """Load the text encoder that made features.

    Args:
        texts: which one.
        encoder: whose checkpoint it is the tower of, where it has no place of its own.

    Raises:
        EncoderError: it cannot be had.
    """
    if texts.id:
        return TEXT_ENCODERS.member(texts.type).model_validate({"id": texts.id}).load()
    if encoder is None:
        raise EncoderError("it has no encoder whose text tower could read others")
    return of_encoder(encoder_config(encoder)).load()
