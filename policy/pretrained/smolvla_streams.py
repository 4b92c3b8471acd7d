"""What a SmolVLA can be trained on: tokens of its own vision tower, a state, and the tokens of task texts."""

from vla.base.errors import ConfigError
from vla.cache.stream import STATE
from vla.policy.pretrained.smolvla_files import SmolVLAFiles
from vla.policy.saved_policy import SavedPolicy


def require_streams(saved: SavedPolicy, files: SmolVLAFiles, width: int, *, look_at_weights: bool) -> None:
    """Check that a policy's streams are what the language model was trained to read.

    Args:
        saved: all that is known of the policy.
        files: of the SmolVLA.
        width: of an image's tokens.
        look_at_weights: hash the frozen ones too, which takes seconds.

    Raises:
        ConfigError: a stream is missing, was made by something else, or is too wide.
    """
    settings, again = files.settings, f"vla embed --encoder {files.name}"
    if saved.state is None:
        raise ConfigError("SmolVLA needs the robot's state, which is none of the policy's streams")
    cameras = [stream for stream in saved.streams if stream.name != STATE]
    if not cameras:
        raise ConfigError(f"SmolVLA has no camera among its streams; make a cache with {again}")
    made = {stream.name: saved.encoders.get(stream.made_by or "") for stream in cameras}
    good = [name for name, encoder in made.items() if encoder is not None and encoder.type == "smolvla"]
    frozen = files.frozen_sha256() if look_at_weights else None
    for stream in cameras:
        encoder = made[stream.name]
        if encoder is None or encoder.type != "smolvla" or stream.shape[-1] != width:
            choose = f"; or leave it out: --set 'policy.streams={[*good, STATE]}'" if good else ""
            raise ConfigError(
                f"stream '{stream.name}' was not made by encoder smolvla of {files.name}; make a cache with "
                f"{again}{choose}"
            )
        if frozen is not None and encoder.weights_sha256 != frozen:
            raise ConfigError(
                f"stream '{stream.name}' was made by {encoder.id}, whose frozen weights are not those of "
                f"{files.name}; name that one as policy.path, or make a cache with {again}"
            )
    for what, found, most in (
        ("state", saved.state.channels, settings.max_state_dim),
        ("action", saved.action.channels, settings.max_action_dim),
    ):
        if found > most:
            raise ConfigError(f"the {what} has {found} numbers, and {files.name} takes at most {most}")
    length = saved.text_encoder.feature_dim if saved.text_encoder else 0
    if length != settings.tokenizer_max_length:
        raise ConfigError(
            f"the cache's task texts are {length} numbers each, not the {settings.tokenizer_max_length} "
            f"tokens that {files.name} reads; make a cache with {again} --language"
        )
