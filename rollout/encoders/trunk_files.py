"""The trunks of a run as an encoder: read from a policy, or from the folder of copies that caches keep.

    config.json          which trunk reads which camera, and their settings
    model.safetensors    their weights, `<trunk>.<tensor>`

It holds no module names and no pickle; trunks are looked up among those that are installed.
"""

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from vla.base.errors import CheckpointError, ConfigError, EncoderError
from vla.base.strict import StrictModel, Width, explain
from vla.cache.stream import Stream
from vla.policy.agents.policy import load_policy
from vla.policy.agents.vla_agent import VLAAgent
from vla.policy.saved_policy import CONFIG_FILE, WEIGHTS_FILE
from vla.policy.training.run import find_policy
from vla.policy.trunks.trunk import TRUNKS, Trunk, TrunkConfig, trunk_for

MODEL_TYPE = "vla_trunk"


class TrunkSettings(StrictModel):
    """All that decides what trunks compute, beside their weights."""

    model_type: Literal["vla_trunk"] = "vla_trunk"
    image_size: tuple[Width, Width]
    """Height and width [pixel] of the frames that they were trained on."""
    interpolation: str
    """How frames are resized to that."""
    dim: Width
    """What trunks were built for, `policy.per_view_dim`."""
    trunks: Annotated[tuple[Annotated[TrunkConfig, TRUNKS.choice()], ...], Field(min_length=1, max_length=64)]
    views: dict[str, Annotated[int, Field(ge=0)]]
    """Place in `trunks` of each camera's."""

    @model_validator(mode="after")
    def _places_are_there(self) -> "TrunkSettings":
        if any(place >= len(self.trunks) for place in self.views.values()):
            raise ValueError(f"views name a trunk beyond the {len(self.trunks)} that there are")
        return self

    def build(self) -> "Trunks":
        """Build the trunks, untrained."""
        stream = Stream(name="view", kind="image", dtype="uint8", shape=(*self.image_size, 3))
        return Trunks(trunk_for(stream, trunk).build(stream, self.dim) for trunk in self.trunks)


class Trunks(nn.ModuleList):
    """Trunks in the order of `TrunkSettings.trunks`."""

    def at(self, place: int) -> Trunk:
        """Return the one of a place."""
        trunk = self[place]
        assert isinstance(trunk, Trunk)
        return trunk


def load_trunks(place: Path) -> tuple[TrunkSettings, Trunks]:
    """Load the trunks of a run, a checkpoint, a policy, or a folder that `trunk_files` wrote.

    Raises:
        EncoderError: there is nothing of the kind, it cannot be read, or the policy has no trunk of images.
    """
    try:
        is_copy = json.loads((place / CONFIG_FILE).read_bytes()).get("model_type") == MODEL_TYPE
    except (OSError, ValueError, AttributeError, RecursionError):
        is_copy = False
    return _of_folder(place) if is_copy else _of_policy(place)


def trunk_files(settings: TrunkSettings, trunks: Trunks) -> dict[str, bytes]:
    """Return the files of a folder that `load_trunks` takes, by name."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in trunks.state_dict().items()}
    config = json.dumps(settings.model_dump(mode="json"), indent=2).encode()
    return {WEIGHTS_FILE: save(state), CONFIG_FILE: config + b"\n"}


def _of_folder(folder: Path) -> tuple[TrunkSettings, Trunks]:
    try:
        settings = TrunkSettings.model_validate_json((folder / CONFIG_FILE).read_bytes())
        trunks = settings.build()
        trunks.load_state_dict(load_file(folder / WEIGHTS_FILE))
    except ValidationError as error:
        raise EncoderError(f"{folder / CONFIG_FILE}: {explain(error, TrunkSettings)}") from error
    except (OSError, SafetensorError, RuntimeError, ConfigError) as error:
        raise EncoderError(
            f"{folder} is no encoder that can be read: {str(error).splitlines()[0]}"
        ) from error
    return settings, trunks


def _of_policy(place: Path) -> tuple[TrunkSettings, Trunks]:
    if not place.is_dir():
        raise EncoderError(
            f"encoder '{place}' is not there: it is a run whose trunks were trained; caches and runs "
            f"made with it keep a copy, in encoders/{place.name}: name that folder with --encoder"
        )
    try:
        policy = load_policy(find_policy(place))
    except CheckpointError as error:
        raise EncoderError(f"{place} cannot be an encoder: {error}") from error
    images = [stream for stream in policy.observes if stream.kind == "image"]
    if not isinstance(policy, VLAAgent) or not images:
        raise EncoderError(
            f"{place} trained no trunk on images, so it cannot be an encoder; train one on a cache of them: "
            "vla embed --encoder pixels, then vla train"
        )
    if len({stream.shape for stream in images}) > 1:
        sizes = ", ".join(stream.describe() for stream in images)
        raise EncoderError(f"{place} cannot be an encoder: its images have several sizes: {sizes}")
    height, width, _ = images[0].shape
    named, chosen = dict(policy.named_trunks()), policy.settings
    places: dict[int, int] = {}
    configs, trunks = [], Trunks()
    for stream in images:
        trunk = named[stream.name]
        if id(trunk) not in places:
            places[id(trunk)] = len(trunks)
            trunks.append(trunk)
            configs.append(trunk_for(stream, chosen.trunks.get(stream.name)).without_start())
    made_by = policy.config.encoders.get(images[0].made_by or "")
    settings = TrunkSettings(
        image_size=(height, width),
        interpolation=str(made_by.settings["interpolation"]) if made_by else "",
        dim=chosen.per_view_dim,
        trunks=tuple(configs),
        views={stream.name: places[id(named[stream.name])] for stream in images},
    )
    return settings, trunks
