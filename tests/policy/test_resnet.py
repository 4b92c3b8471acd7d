"""The ResNet trunk: the paper's network, weights of torchvision's format, keypoints, shared trunks."""

from pathlib import Path

import pytest
import torch
from fakes import CAMERAS, fake_identity, fake_spec, write_cache
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from vla.base.errors import ConfigError
from vla.cache import FeatureCache, Stream
from vla.policy.agents.policy import load_policy
from vla.policy.agents.vla_agent import VLAAgent, VLAAgentConfig
from vla.policy.nn.resnet import DEPTHS, FrozenBatchNorm2d, ResNet, strides
from vla.policy.nn.resnet_weights import load_weights
from vla.policy.training.optimizer import build_optimizer
from vla.policy.training.train_config import TrainConfig
from vla.policy.trunks.resnet import MEAN, STD, ResNetConfig, ResNetTrunk

CPU = torch.device("cpu")
WIDTH = 8


def torchvision_state(layers: int = 18, width: int = WIDTH) -> dict[str, Tensor]:
    """Make the state dict that torchvision's ResNet has, by its names, with random values."""
    random = torch.Generator().manual_seed(0)
    state: dict[str, Tensor] = {}

    def conv(name: str, out: int, into: int, kernel: int) -> None:
        state[f"{name}.weight"] = 0.1 * torch.randn(out, into, kernel, kernel, generator=random)

    def norm(name: str, channels: int) -> None:
        for key in ("weight", "bias", "running_mean", "running_var"):
            state[f"{name}.{key}"] = 0.5 + torch.rand(channels, generator=random)
        state[f"{name}.num_batches_tracked"] = torch.tensor(7)

    conv("conv1", width, 3, 7)
    norm("bn1", width)
    before = width
    for stage, depth in enumerate(DEPTHS[layers]):
        channels = width << stage
        for block in range(depth):
            name = f"layer{stage + 1}.{block}"
            conv(f"{name}.conv1", channels, before, 3)
            norm(f"{name}.bn1", channels)
            conv(f"{name}.conv2", channels, channels, 3)
            norm(f"{name}.bn2", channels)
            if before != channels:
                conv(f"{name}.downsample.0", channels, before, 1)
                norm(f"{name}.downsample.1", channels)
            before = channels
    state["fc.weight"], state["fc.bias"] = torch.randn(10, before), torch.randn(10)
    return state


def torchvision_forward(state: dict[str, Tensor], images: Tensor, layers: int = 18) -> Tensor:
    """Compute what torchvision's ResNet computes in evaluation mode, before its pooling."""

    def norm(name: str, x: Tensor) -> Tensor:
        keys = ("running_mean", "running_var", "weight", "bias")
        mean, var, weight, bias = (state[f"{name}.{key}"] for key in keys)
        return functional.batch_norm(x, mean, var, weight, bias)

    x = norm("bn1", functional.conv2d(images, state["conv1.weight"], stride=2, padding=3)).relu()
    x = functional.max_pool2d(x, 3, 2, 1)
    for stage, depth in enumerate(DEPTHS[layers]):
        for block in range(depth):
            name, step = f"layer{stage + 1}.{block}", 2 if stage and not block else 1
            past = x
            if f"{name}.downsample.0.weight" in state:
                past = functional.conv2d(x, state[f"{name}.downsample.0.weight"], stride=step)
                past = norm(f"{name}.downsample.1", past)
            y = functional.conv2d(x, state[f"{name}.conv1.weight"], stride=step, padding=1)
            y = functional.conv2d(norm(f"{name}.bn1", y).relu(), state[f"{name}.conv2.weight"], padding=1)
            x = (norm(f"{name}.bn2", y) + past).relu()
    return x


def images(size: int = 64) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))


def stream(name: str = "top", size: int = 32) -> Stream:
    return Stream(name=name, kind="image", dtype="uint8", shape=(size, size, 3), made_by=None)


@pytest.mark.parametrize("layers", [18, 34])
def test_frozen_batch_normalisation_computes_what_torchvision_does(layers: int, tmp_path: Path) -> None:
    state = torchvision_state(layers)
    save_file(state, tmp_path / "resnet.safetensors")
    network = ResNet((64, 64), layers, WIDTH, "batch")  # type: ignore[arg-type]
    load_weights(network, tmp_path / "resnet.safetensors")
    # In float64: after 34 layers of random weights float32 differs by 2e-4 from one order of sums to another.
    exact = {name: value.double() for name, value in state.items()}
    expected = torchvision_forward(exact, images().double(), layers)
    torch.testing.assert_close(network.double()(images().double()), expected, rtol=1e-9, atol=1e-9)
    trained = {name.rpartition(".")[0] for name, _ in network.named_parameters()}
    assert not any(isinstance(network.get_submodule(name), FrozenBatchNorm2d) for name in trained)


def test_group_normalisation_takes_the_filters_and_the_affine_map_and_leaves_statistics_out(
    tmp_path: Path,
) -> None:
    state = torchvision_state()
    torch.save(state, tmp_path / "resnet.pth")
    network = ResNet((64, 64), 18, WIDTH, "group")
    load_weights(network, tmp_path / "resnet.pth")
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, state[name.replace("norm", "bn")]), name
    assert len(network.state_dict()) == len([n for n in state if n.endswith((".weight", ".bias"))]) - 2


def test_a_file_of_another_network_is_refused(tmp_path: Path) -> None:
    save_file(torchvision_state(34), tmp_path / "34.safetensors")
    with pytest.raises(ConfigError, match=r"not of this ResNet: it has 'layer1\.2\.conv1\.weight' besides"):
        load_weights(ResNet((64, 64), 18, WIDTH), tmp_path / "34.safetensors")
    with pytest.raises(
        ConfigError, match=r"'conv1\.weight' is \[8, 3, 7, 7\], and should be \[16, 3, 7, 7\]"
    ):
        load_weights(ResNet((64, 64), 18, 2 * WIDTH), tmp_path / "34.safetensors")


@pytest.mark.parametrize(
    ("data", "said"), [(b"no tensors", "cannot be read"), (None, "there are no weights at")]
)
def test_a_file_that_is_no_weights_is_refused(data: bytes | None, said: str, tmp_path: Path) -> None:
    path = tmp_path / "resnet.pth"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(ConfigError, match=said):
        load_weights(ResNet((64, 64), 18, WIDTH), path)


def test_a_pickle_that_runs_code_is_not_run(tmp_path: Path) -> None:
    torch.save({"conv1.weight": Path("x")}, tmp_path / "resnet.pth")
    with pytest.raises(ConfigError, match="cannot be read as safetensors or as a plain state dict"):
        load_weights(ResNet((64, 64), 18, WIDTH), tmp_path / "resnet.pth")


def test_weights_for_other_blocks_are_refused() -> None:
    with pytest.raises(ValidationError, match="weights are for basic blocks, and blocks = attnres"):
        ResNetConfig(weights="a.pth", blocks="attnres")


@pytest.mark.parametrize(
    ("size", "smallest", "expected"),
    [
        ((224, 224), 4, [2, 2, 2, 2, 2]),
        ((96, 128), 1, [2, 2, 2, 2, 2]),
        ((96, 128), 4, [2, 2, 2, 2, 1]),
        ((16, 16), 4, [2, 2, 1, 1, 1]),
        ((4, 4), 4, [1, 1, 1, 1, 1]),
    ],
)
def test_a_map_keeps_positions_to_tell_apart(
    size: tuple[int, int], smallest: int, expected: list[int]
) -> None:
    assert strides(size, smallest) == expected
    network = ResNet(size, 18, 8, smallest_map=smallest)
    height, width = network(torch.zeros(1, 3, *size)).shape[2:]
    scale = torch.tensor(expected).prod()
    assert (height, width) == (-(-size[0] // scale), -(-size[1] // scale))


def test_pixels_are_normalised_as_imagenets() -> None:
    trunk, seen = ResNetConfig(width=WIDTH).build(stream(), 64), []
    trunk.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    trunk(torch.full((1, 1, 32, 32, 3), 255, dtype=torch.uint8))
    white = (1 - torch.tensor(MEAN)) / torch.tensor(STD)
    torch.testing.assert_close(seen[0][0, :, 0, 0], white)


@pytest.fixture
def pixels(tmp_path: Path) -> FeatureCache:
    """Write a cache of random frames of three cameras."""
    made_by = fake_identity(type="pixels", id="pixels", weights_sha256=None, dtype="uint8")
    spec = fake_spec(encoder=made_by)
    frames = tuple(stream(name).model_copy(update={"made_by": made_by.digest}) for name in CAMERAS)
    others = tuple(one for one in spec.streams if one.name not in CAMERAS)
    return write_cache(tmp_path / "cache", fake_spec(encoder=made_by, streams=(*frames, *others)))


def agent_of(cache: FeatureCache, *, share_views: bool = False, **trunk: object) -> VLAAgent:
    torch.manual_seed(0)
    sizes = {"per_view_dim": 8, "cond_dim": 8, "n_emb": 16, "n_layer": 1, "n_head": 2}
    trunks = {camera: {"type": "resnet", "width": WIDTH, **trunk} for camera in CAMERAS}
    config = VLAAgentConfig.model_validate({**sizes, "share_views": share_views, "trunks": trunks})
    return VLAAgent.for_cache(config, cache.metadata)


def test_cameras_share_one_trunk_or_have_one_each(pixels: FeatureCache, tmp_path: Path) -> None:
    apart, shared = agent_of(pixels), agent_of(pixels, share_views=True)
    assert (len(apart.trunks), len(shared.trunks)) == (3, 1)
    assert apart.raw_per_step_cond_dim == shared.raw_per_step_cond_dim == 3 * 8 + 16
    frame = torch.randint(0, 256, (1, 1, 32, 32, 3), dtype=torch.uint8)
    views = [[trunk(frame) for _, trunk in agent.named_trunks()] for agent in (apart, shared)]
    assert torch.equal(views[1][0], views[1][2]) and not torch.equal(views[0][0], views[0][2])
    shared.save_pretrained(tmp_path / "policy")
    loaded = load_policy(tmp_path / "policy")
    assert isinstance(loaded, VLAAgent)
    assert torch.equal(next(trunk for _, trunk in loaded.named_trunks())(frame), views[1][0])


def test_cameras_with_other_settings_have_a_trunk_of_their_own(pixels: FeatureCache) -> None:
    agent = agent_of(pixels, share_views=True)
    trunks = {**agent.config.policy.model_dump()["trunks"], "top": {"type": "conv"}}
    config = VLAAgentConfig.model_validate({**agent.config.policy.model_dump(), "trunks": trunks})
    assert len(VLAAgent.for_cache(config, pixels.metadata).trunks) == 2


def test_the_file_of_weights_is_read_for_a_new_policy_and_never_again(
    pixels: FeatureCache, tmp_path: Path
) -> None:
    path = tmp_path / "resnet.safetensors"
    state = torchvision_state()
    save_file(state, path)
    agent = agent_of(pixels, weights=str(path), norm="batch")
    trunk = agent.trunks[0]
    assert isinstance(trunk, ResNetTrunk)
    assert torch.equal(trunk.network.get_buffer("norm1.running_var"), state["bn1.running_var"])
    agent.save_pretrained(tmp_path / "policy")
    path.unlink()
    loaded = load_policy(tmp_path / "policy")
    assert torch.equal(loaded.get_buffer("trunks.0.network.norm1.running_var"), state["bn1.running_var"])


def test_batch_normalisation_without_a_file_is_refused(pixels: FeatureCache) -> None:
    with pytest.raises(ConfigError, match="norm = batch takes its statistics from a file"):
        agent_of(pixels, norm="batch")


def test_a_trunk_may_learn_more_slowly(pixels: FeatureCache) -> None:
    agent = agent_of(pixels, lr_scale=0.1)
    scales = {group["lr_scale"] for group in build_optimizer(agent, TrainConfig()).param_groups}
    assert scales == {1.0, 0.1}
