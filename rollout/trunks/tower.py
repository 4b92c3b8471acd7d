"""A vision transformer that learns with the policy: SigLIP, CLIP or DINO, from its checkpoint.

    image ─ the checkpoint's mean and spread ─ tower ─ pooling ─ linear ─> N tokens of width D

    [policy.trunks.top]
    type = "tower"
    id = "facebook/dinov2-base"

The tower is that of the encoder of the same checkpoint, in float32, so an untrained trunk says what
`vla embed --encoder ID` caches. It learns at a tenth of the rate; `layer_decay` makes the first layers slower
still (ELECTRA, arXiv 2003.10555; BEiT, 2106.08254), and `frozen_layers` keeps them as they are.

B batch, T_obs obs_horizon, N tokens, D width.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

from jaxtyping import Float, UInt8
from pydantic import Field
from torch import Tensor, nn

from vla.base.errors import ConfigError, EncoderError
from vla.base.strict import Positive, StrictModel
from vla.cache.metadata import EncoderIdentity, Statistics
from vla.cache.stream import Kind, Stream
from vla.embed.encoders.encoder_family import ENCODERS
from vla.embed.encoders.pooling import Pooling
from vla.embed.encoders.vision_tower import VisionTower, VisionTowerConfig
from vla.embed.transforms import Preprocessing
from vla.policy.trunks.trunk import Trunk, TrunkConfig


class Architecture(StrictModel):
    """What a checkpoint was found to be, so that a saved policy is whole without it."""

    encoder: str
    """Which family of encoders."""
    config: dict[str, Any]
    """The checkpoint's config.json."""
    preprocessing: Preprocessing


class TowerConfig(TrunkConfig):
    """A vision transformer with the weights of a checkpoint, trained further."""

    kinds: ClassVar[tuple[Kind, ...]] = ("image",)
    type: Literal["tower"] = "tower"
    id: str = "google/siglip2-base-patch16-256"
    """Hub id or local directory of the checkpoint to start from."""
    revision: str = "main"
    """Branch, tag or commit on the Hub."""
    pool: Pooling = "pooled"
    """What is kept of a view: pooled, mean, a grid such as grid4, or all patches."""
    lr_scale: Positive = 0.1
    """Of the tower's learning rate, as a share of `train.lr`; what follows it learns at the whole rate."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Rate of a layer as a share of the next one's; 0.75 is usual."""
    frozen_layers: Annotated[int, Field(ge=0)] = 0
    """First layers, with the embedding of patches, that stay as they are."""
    architecture: Architecture | None = None
    """Filled in when the policy is made."""

    def settled(self) -> "TowerConfig":
        """Return the settings with the checkpoint's architecture.

        Raises:
            ConfigError: the checkpoint cannot be loaded, or is none of a vision tower.
        """
        if self.architecture is not None:
            return self
        encoder, checkpoint = self._checkpoint()
        found = Architecture(
            encoder=encoder.type,
            config=checkpoint.model.config.to_dict(),
            preprocessing=checkpoint.preprocessing,
        )
        return self.model_copy(update={"architecture": found})

    def without_start(self) -> "TowerConfig":
        kept = {key: getattr(self, key) for key in ("pool", "architecture")}
        return TowerConfig(**kept, id="", lr_scale=1.0)

    def build(self, stream: Stream, dim: int) -> "TowerTrunk":
        return TowerTrunk(stream, dim, self.settled())

    def start(self) -> nn.Module:
        """Load the tower to start from."""
        tower: nn.Module = self._checkpoint()[1].model
        return tower

    def _checkpoint(self) -> tuple[VisionTowerConfig, Any]:
        try:
            named = ENCODERS.parse({"id": self.id, "revision": self.revision})
            if not isinstance(named, VisionTowerConfig):
                raise ConfigError(
                    f"trunk 'tower' starts from a checkpoint of SigLIP, CLIP or DINO, and {self.id} is read "
                    f"by encoder '{named.type}'"
                )
            return named, named.model_copy(update={"pool": self.pool}).load_checkpoint()
        except (EncoderError, ValueError) as error:
            raise ConfigError(f"trunk 'tower': {error}") from error


class TowerTrunk(Trunk):
    """Look at an image with a vision transformer and project what it says.

    Args:
        stream: of kind image, of the size that the checkpoint takes.
        dim: D.
        config: settled.

    Raises:
        ConfigError: images have another size, or more layers are frozen than there are.
    """

    def __init__(self, stream: Stream, dim: int, config: TowerConfig) -> None:
        made = config.architecture
        assert made is not None  # settled
        size = made.preprocessing.image_size
        if stream.shape[:2] != size:
            height, width = stream.shape[:2]
            raise ConfigError(
                f"policy.trunks: the tower of {config.id or 'this policy'} takes images of {size[0]} x "
                f"{size[1]}, and stream '{stream.name}' has {height} x {width}; cache them anew: vla embed "
                f"--encoder pixels --set 'encoder.image_size=[{size[0]}, {size[1]}]'"
            )
        member = _family(made)
        view = _view(member, made, config.pool)
        tokens, width = view.writes[0].shape
        super().__init__(tokens, dim)
        self.config, self.kind = config, member.kind
        self.view, self.project = view, nn.Linear(width, dim)
        self._share_out_learning()
        self.train()

    def _share_out_learning(self) -> None:
        """Give the layers their rates, and freeze what is not to be trained."""
        config, tower = self.config, self.view.tower
        layers, embeddings = layers_of(tower), embeddings_of(tower)
        if config.frozen_layers > len(layers):
            raise ConfigError(
                f"policy.trunks: frozen_layers = {config.frozen_layers}, and the tower of "
                f"{config.id or 'this policy'} has {len(layers)} layers"
            )
        rates = [config.lr_scale * config.layer_decay**above for above in range(len(layers) + 1, -1, -1)]
        tower.lr_scale = config.lr_scale  # type: ignore[assignment]  # read by build_optimizer
        for part, rate in zip([embeddings, *layers], rates, strict=False):
            part.lr_scale = rate  # type: ignore[assignment]
        for part in [embeddings, *layers[: config.frozen_layers]] if config.frozen_layers else []:
            part.requires_grad_(False)
        for parameter in self._idle():
            parameter.requires_grad_(False)

    def _idle(self) -> Iterator[nn.Parameter]:
        """Yield what nothing flows through: a gradient that never comes stops distributed training."""
        kind = self.kind
        names = kind.unused + (kind.pooled_only if self.config.pool != "pooled" else ())
        for name, parameter in self.view.tower.named_parameters():
            if any(f".{part}." in f".{name}." for part in names):
                yield parameter

    def fit(self, statistics: Statistics) -> None:
        """Start from the checkpoint; later the policy's own weights are loaded.

        Raises:
            ConfigError: the checkpoint cannot be loaded.
        """
        if self.config.id:
            self.view.tower.load_state_dict(self.config.start().state_dict())

    def train(self, mode: bool = True) -> "TowerTrunk":
        """Change the mode, but of the tower: what it draws in training (dropout, DINOv3's random positions)
        would come from no seed of the step."""
        super().train(mode)
        self.view.eval()
        return self

    def forward(self, stream: UInt8[Tensor, "B T_obs H W 3"]) -> Float[Tensor, "B T_obs N D"]:
        said = self.view.features(stream.flatten(0, 1))
        return self.project(said).unflatten(0, stream.shape[:2])


def _family(made: Architecture) -> type[VisionTowerConfig]:
    member = ENCODERS.member(made.encoder)
    if not issubclass(member, VisionTowerConfig):
        raise ConfigError(f"policy.trunks: encoder '{made.encoder}' is no vision tower")
    return member


def _view(member: type[VisionTowerConfig], made: Architecture, pooling: Pooling) -> VisionTower:
    """Build a tower, untrained, with what its family does before and after it."""
    import transformers  # seconds: trunks are listed without it

    kind, model_type = member.kind, str(made.config.get("model_type"))
    if model_type not in kind.classes:
        raise ConfigError(f"policy.trunks: {kind.name} has no tower of model_type '{model_type}'")
    model_class: Any = getattr(transformers, kind.classes[model_type])
    tower = model_class._from_config(model_class.config_class.from_dict(dict(made.config)))
    identity = EncoderIdentity(
        type=made.encoder,
        id="trunk",
        weights_sha256=None,  # they change with every update
        dtype="float32",
        settings={"pooling": pooling, **made.preprocessing.settings()},
    )
    return member.encoder(tower, identity, ("image",))


def layers_of(tower: nn.Module) -> list[nn.Module]:
    """Return the layers of a vision transformer of transformers, the first one first."""
    lists = [[*module] for module in tower.modules() if isinstance(module, nn.ModuleList)]
    return max(lists, key=len)


def embeddings_of(tower: nn.Module) -> nn.Module:
    """Return what turns pixels into the tokens that the first layer reads."""
    found: Mapping[str, nn.Module] = dict(tower.named_modules())
    return next(module for name, module in found.items() if name.rpartition(".")[2] == "embeddings")
