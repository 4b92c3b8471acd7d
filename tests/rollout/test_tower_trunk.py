"""A vision transformer as a trunk: the frozen encoder at first, rates by layer, whole when saved."""

import shutil
from pathlib import Path

import pytest
import torch
from fake_towers import KINDS, write_tower
from fakes import CAMERAS, fake_identity, fake_spec, write_cache
from torch import Tensor, nn

from vla.base.errors import ConfigError
from vla.cache import FeatureCache, Stream
from vla.cache.metadata import Statistics
from vla.embed.encoders.encoder_family import ENCODERS
from vla.embed.encoders.vision_tower import VisionTower
from vla.policy.agents.policy import load_policy
from vla.policy.agents.vla_agent import VLAAgent, VLAAgentConfig
from vla.policy.training.optimizer import build_optimizer
from vla.policy.training.train_config import TrainConfig
from vla.policy.trunks.trunk import TRUNKS
from vla.rollout.trunks.tower import TowerConfig, TowerTrunk, embeddings_of, layers_of

POOLINGS = ("pooled", "mean", "patches")


def stream(height: int, width: int) -> Stream:
    return Stream(name="top", kind="image", dtype="uint8", shape=(height, width, 3))


def trunk_of(folder: Path, **settings: object) -> TowerTrunk:
    """Build the trunk of a checkpoint and start it there."""
    config = TRUNKS.parse({"type": "tower", "id": str(folder), **settings})
    assert isinstance(config, TowerConfig)
    config = config.settled()
    assert config.architecture is not None
    trunk = config.build(stream(*config.architecture.preprocessing.image_size), dim=8)
    trunk.fit(Statistics(count=1, mean=(0.0,), std=(1.0,)))
    return trunk


def frames(trunk: TowerTrunk, count: int = 2) -> Tensor:
    size = trunk.view.preprocessing.image_size
    random = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 1, *size, 3), generator=random, dtype=torch.uint8)


@pytest.mark.parametrize("pool", POOLINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_it_begins_as_the_frozen_encoder_of_its_checkpoint(tmp_path: Path, kind: str, pool: str) -> None:
    folder = write_tower(tmp_path / "checkpoint", kind)
    trunk = trunk_of(folder, pool=pool)
    encoder = ENCODERS.parse({"id": str(folder), "pool": pool}).build(("top",), torch.device("cpu"))
    assert isinstance(encoder, VisionTower)
    images = frames(trunk)
    with torch.no_grad():
        said = trunk.view.features(images[:, 0])
        assert torch.equal(said.half(), encoder.encode_view(images[:, 0]))
        assert torch.equal(trunk(images)[:, 0], trunk.project(said))


@pytest.mark.parametrize("pool", POOLINGS)
@pytest.mark.parametrize("kind", [*KINDS, "siglip2-tiny-random"])
def test_every_parameter_that_is_trained_has_a_gradient(tmp_path: Path, kind: str, pool: str) -> None:
    place = kind if kind.startswith("siglip") else str(write_tower(tmp_path / "checkpoint", kind))
    trunk = trunk_of(Path(place), pool=pool)
    trunk(frames(trunk)).square().sum().backward()
    without = [name for name, p in trunk.named_parameters() if p.requires_grad and p.grad is None]
    assert not without
    idle = [name for name, p in trunk.named_parameters() if not p.requires_grad]
    assert all("mask_token" in name for name in idle) or pool != "pooled"


def test_training_draws_nothing_inside_the_tower(tmp_path: Path) -> None:
    trunk = trunk_of(write_tower(tmp_path / "checkpoint", "dinov3")).train()
    images = frames(trunk)
    with torch.no_grad():
        assert torch.equal(trunk(images), trunk(images))  # DINOv3 would move its positions at random


def test_layers_learn_the_more_slowly_the_earlier_they_are(tmp_path: Path) -> None:
    trunk = trunk_of(write_tower(tmp_path / "checkpoint", "dinov2"), lr_scale=0.5, layer_decay=0.1)
    groups = build_optimizer(trunk, TrainConfig()).param_groups
    rates = {id(p): group["lr_scale"] for group in groups for p in group["params"]}

    def rates_of(part: nn.Module) -> list[float]:
        return sorted({round(rates[id(p)], 9) for p in part.parameters() if p.requires_grad})

    first, second = layers_of(trunk.view.tower)
    assert rates_of(embeddings_of(trunk.view.tower)) == [0.0005]
    assert [rates_of(first), rates_of(second)] == [[0.005], [0.05]]
    assert rates_of(trunk.view.tower.layernorm) == [0.5]  # type: ignore[arg-type]
    assert rates_of(trunk.project) == [1.0]


def test_first_layers_stay_as_they_are_where_asked(tmp_path: Path) -> None:
    folder = write_tower(tmp_path / "checkpoint", "dinov2")
    trunk = trunk_of(folder, frozen_layers=1)
    first, second = layers_of(trunk.view.tower)
    still = [*embeddings_of(trunk.view.tower).parameters(), *first.parameters()]
    assert not any(parameter.requires_grad for parameter in still)
    assert all(parameter.requires_grad for parameter in second.parameters())
    with pytest.raises(ConfigError, match=r"frozen_layers = 3, and the tower of .* has 2 layers"):
        trunk_of(folder, frozen_layers=3)


@pytest.fixture
def pixels(tmp_path: Path) -> FeatureCache:
    """Write a cache of random frames of the size that the small DINOv2 takes."""
    made_by = fake_identity(type="pixels", id="pixels", weights_sha256=None, dtype="uint8")
    seen = tuple(
        stream(64, 64).model_copy(update={"name": name, "made_by": made_by.digest}) for name in CAMERAS
    )
    others = tuple(one for one in fake_spec(encoder=made_by).streams if one.name not in CAMERAS)
    return write_cache(tmp_path / "cache", fake_spec(encoder=made_by, streams=(*seen, *others)))


def agent_of(cache: FeatureCache, **trunk: object) -> VLAAgent:
    torch.manual_seed(0)
    sizes = {"per_view_dim": 8, "cond_dim": 8, "n_emb": 16, "n_layer": 1, "n_head": 2, "share_views": True}
    trunks = {camera: {"type": "tower", **trunk} for camera in CAMERAS}
    return VLAAgent.for_cache(VLAAgentConfig.model_validate({**sizes, "trunks": trunks}), cache.metadata)


def test_a_saved_policy_is_whole_without_the_checkpoint(pixels: FeatureCache, tmp_path: Path) -> None:
    folder = write_tower(tmp_path / "checkpoint", "dinov2")
    agent = agent_of(pixels, id=str(folder), pool="grid2")
    agent.save_pretrained(tmp_path / "policy")
    shutil.rmtree(folder)
    loaded = load_policy(tmp_path / "policy")
    assert isinstance(loaded, VLAAgent)
    image = torch.randint(0, 256, (1, 1, 64, 64, 3), dtype=torch.uint8)
    (_, ours), (_, theirs) = next(iter(agent.named_trunks())), next(iter(loaded.named_trunks()))
    with torch.no_grad():
        assert torch.equal(ours(image), theirs(image)) and ours(image).shape == (1, 1, 4, 8)
    frozen = ENCODERS.parse({"type": "trunk", "id": str(tmp_path / "policy")})
    encoder = frozen.build(CAMERAS, torch.device("cpu"))
    assert torch.equal(encoder.encode({"top": image[0]})["top"], ours(image)[0])


def test_images_of_another_size_are_refused_with_what_to_run(pixels: FeatureCache, tmp_path: Path) -> None:
    folder = write_tower(tmp_path / "checkpoint", "clip")  # 64 x 64 too
    agent_of(pixels, id=str(folder))
    small = write_tower(tmp_path / "small", "dinov3")
    with pytest.raises(ConfigError, match=r"takes images of 48 x 48, .* has 64 x 64; .*\[48, 48\]"):
        agent_of(pixels, id=str(small))


def test_a_checkpoint_that_is_no_vision_tower_is_refused(pixels: FeatureCache, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is read by encoder 'pixels'"):
        agent_of(pixels, id="pixels")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"trunk 'tower': .*empty holds no SigLIP checkpoint"):
        agent_of(pixels, id=str(tmp_path / "empty"))
