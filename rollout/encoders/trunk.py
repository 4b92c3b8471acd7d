"""The trunks of a finished run, frozen: adapt once on images, then cache what they say.

    vla embed --encoder runs/adapted

Each camera goes through the trunk that was trained for it, and its tokens are cached, all in float32: those
that the run's own policy computes. The identity is the hash of the weights with the trunks' settings, so
a copy of the run, or its trunks in a folder of their own, are the same encoder.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from vla.base.errors import EncoderError
from vla.cache.metadata import EncoderIdentity
from vla.cache.stream import Stream
from vla.embed.encoders.encoder import Encoder, EncoderConfig, hash_of
from vla.rollout.encoders.trunk_files import MODEL_TYPE, Trunks, TrunkSettings, load_trunks, trunk_files


class TrunkEncoderConfig(EncoderConfig):
    """The trunks that a run trained on images."""

    model_types: ClassVar[tuple[str, ...]] = (MODEL_TYPE,)
    type: Literal["trunk"] = "trunk"
    id: str
    """A run, a checkpoint or a policy folder, or a copy of its trunks in `encoders/` of a cache or a run."""

    def build(self, cameras: tuple[str, ...], device: torch.device) -> "TrunkEncoder":
        settings, trunks = load_trunks(Path(self.id))
        if unknown := [camera for camera in cameras if camera not in settings.views]:
            raise EncoderError(
                f"{self.id} has trunks for {', '.join(settings.views)}, none for camera '{unknown[0]}'; "
                f"choose cameras: --set 'dataset.cameras={list(settings.views)}'"
            )
        identity = EncoderIdentity(
            type=self.type,
            id=self.id,
            weights_sha256=hash_of(trunks),
            dtype="float32",
            settings=settings.model_dump(mode="json", exclude={"model_type"}),
        )
        return TrunkEncoder(settings, trunks, identity, cameras)

    def files(self) -> dict[str, bytes]:
        return trunk_files(*load_trunks(Path(self.id)))

    @property
    def name(self) -> str:
        return Path(self.id).resolve().name


class TrunkEncoder(Encoder):
    """A trunk a camera, or one for several.

    Args:
        settings: which trunk is whose.
        trunks: trained.
        identity: says the same, and the hash of their weights.
        cameras: those it reads.
    """

    joint = False

    def __init__(
        self, settings: TrunkSettings, trunks: Trunks, identity: EncoderIdentity, cameras: tuple[str, ...]
    ) -> None:
        of_camera = {camera: trunks.at(settings.views[camera]) for camera in cameras}
        writes = tuple(
            Stream(
                name=camera,
                kind="tokens",
                dtype="float32",
                shape=(trunk.num_tokens, trunk.dim),
                made_by=identity.digest,
            )
            for camera, trunk in of_camera.items()
        )
        super().__init__(identity, cameras, writes, settings.image_size)
        self.trunks, self._places = trunks, {camera: settings.views[camera] for camera in cameras}

    def encode(
        self, observation: Mapping[str, UInt8[Tensor, "_n h w 3"]]
    ) -> dict[str, Float[Tensor, "_n tokens dim"]]:
        return {
            camera: self.trunks.at(self._places[camera])(observation[camera][:, None])[:, 0]
            for camera in self.reads
            if camera in observation
        }

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile the trunks: `encode` takes whichever cameras there are."""
        for trunk in self.trunks:
            trunk.compile(*args, **kwargs)
