"""The user's contract of the agent: condition dimensions, the head's interface, horizons, save and load."""

from pathlib import Path

import pytest
import torch
from fakes import CAMERAS, fake_identity, fake_spec, write_cache
from torch import nn

from vla.base.errors import CheckpointError
from vla.cache import Stream
from vla.config import PipelineConfig
from vla.policy.agents.vla_agent import VLAAgent, VLAAgentConfig
from vla.policy.batch import Batch
from vla.policy.heads.imf import ImfHead
from vla.policy.random import GivenNoise, RowRandom

ROOT = Path(__file__).parents[2]


def user_agent(tmp_path: Path, per_view_dim: int = 192, n_layer: int = 1) -> VLAAgent:
    """The user's agent, with fewer layers where depth does not matter."""
    cache = write_cache(tmp_path / "cache", fake_spec(dim=768))
    return VLAAgent.for_cache(VLAAgentConfig(per_view_dim=per_view_dim, n_layer=n_layer), cache.metadata)


def observation(batch: int = 3) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    features = {camera: torch.randn(batch, 2, 1, 768, generator=generator).half() for camera in CAMERAS}
    return {**features, "state": torch.randn(batch, 2, 16, generator=generator)}


def joint_agent(tmp_path: Path, n_emb: int) -> VLAAgent:
    """The user's agent on a joint encoder of three views: 192 numbers an instant."""
    joint = fake_identity(type="lewm", reads=CAMERAS, settings={"layout": "row"})
    vectors = tuple(stream for stream in fake_spec().streams if stream.kind == "vector")
    seen = Stream(name="lewm", kind="tokens", dtype="float16", shape=(1, 192), made_by=joint.digest)
    spec = fake_spec(streams=(seen, *vectors), encoders={joint.digest: joint})
    settings = VLAAgentConfig(per_view_dim=192, cond_dim=208, n_emb=n_emb, n_layer=1)
    return VLAAgent.for_cache(settings, write_cache(tmp_path / "cache", spec).metadata)


@pytest.mark.parametrize("n_emb", [384, 256])
def test_a_joint_encoder_sizes_the_condition_by_its_own_dim_and_not_by_cameras(
    tmp_path: Path, n_emb: int
) -> None:
    agent = joint_agent(tmp_path, n_emb)
    assert (agent.camera_names, agent.num_cameras) == (("r_vis", "top", "front"), 3)
    assert agent.raw_per_step_cond_dim == 192 + 16 == 208
    assert agent.per_step_cond_dim == agent.head.cond_dim == 208
    assert agent.global_cond_dim == 2 * 208
    generator = torch.Generator().manual_seed(0)
    seen = {"lewm": torch.randn(3, 2, 1, 192, generator=generator).half(), "state": torch.randn(3, 2, 16)}
    assert agent._build_cond(seen).shape == (3, 2, 208)
    assert agent.predict_action_chunk(seen).shape == (3, 16, 16)


@pytest.mark.parametrize(("per_view_dim", "raw"), [(96, 304), (192, 592)])
def test_raw_condition_dim_is_three_views_and_state(tmp_path: Path, per_view_dim: int, raw: int) -> None:
    agent = user_agent(tmp_path, per_view_dim)
    assert agent.raw_per_step_cond_dim == 3 * per_view_dim + 16 == raw


def test_projected_dim_is_384_and_so_is_the_heads(tmp_path: Path) -> None:
    agent = user_agent(tmp_path)
    assert agent.per_step_cond_dim == 384
    assert agent.head.cond_dim == 384
    assert agent.global_cond_dim == 2 * 384
    projector = agent.get_submodule("fusion.cond_projector")
    assert isinstance(projector, nn.Linear)
    assert (projector.in_features, projector.out_features) == (592, 384)


def test_build_cond_gives_384_numbers_a_step(tmp_path: Path) -> None:
    agent = user_agent(tmp_path)
    assert agent._build_cond(observation()).shape == (3, 2, 384)


def test_cameras_are_those_of_the_cache(tmp_path: Path) -> None:
    agent = user_agent(tmp_path)
    assert (agent.camera_names, agent.num_cameras) == (("r_vis", "top", "front"), 3)


def test_the_head_is_imf_on_attention_residuals_of_the_users_size(tmp_path: Path) -> None:
    agent = user_agent(tmp_path, n_layer=12)
    assert isinstance(agent.head, ImfHead)
    parameters = dict(agent.head.get_submodule("network.stack").named_parameters())
    assert parameters["queries"].shape == (25, 384)
    assert not parameters["queries"].any()
    assert abs(sum(parameter.numel() for parameter in parameters.values()) - 21.25e6) < 0.05e6


def test_a_chunk_has_sixteen_actions_in_the_robots_units(tmp_path: Path) -> None:
    agent = user_agent(tmp_path)
    agent.action_standardize.fit([5.0] * 16, [0.001] * 16)
    chunk = agent.predict_action_chunk(observation())
    assert chunk.shape == (3, 16, 16)
    assert (chunk - 5).abs().max() < 0.01


def test_the_same_noise_gives_the_same_chunk(tmp_path: Path) -> None:
    agent, noise = user_agent(tmp_path), GivenNoise(torch.randn(3, 16, 16))
    chunks = [agent.predict_action_chunk(observation(), random=noise) for _ in range(2)]
    assert torch.equal(*chunks)


def test_only_trunks_fusion_and_head_train_and_all_of_them_do(tmp_path: Path) -> None:
    agent = user_agent(tmp_path)
    for name, parameter in agent.head.named_parameters():
        if ".outputs." in name and name.endswith(
            "weight"
        ):  # zero at the start: nothing before them would get a gradient
            nn.init.normal_(parameter)
    pad = torch.zeros(3, 16, dtype=torch.bool)
    batch = Batch(observation=observation(), action=torch.randn(3, 16, 16), action_is_pad=pad)
    loss, _ = agent.loss(batch, agent.draw(batch, RowRandom()))
    loss.backward()
    without = [name for name, parameter in agent.named_parameters() if parameter.grad is None]
    assert without == []
    assert {name.split(".")[0] for name, _ in agent.named_parameters()} == {
        "trunks",
        "fusion",
        "head",
    }


def test_a_saved_policy_comes_back_with_statistics_and_encoder_identity(tmp_path: Path) -> None:
    agent = user_agent(tmp_path)
    agent.save_pretrained(tmp_path / "policy")
    loaded = VLAAgent.from_pretrained(tmp_path / "policy")
    noise = GivenNoise(torch.randn(3, 16, 16))
    assert torch.equal(
        loaded.predict_action_chunk(observation(), random=noise),
        agent.eval().predict_action_chunk(observation(), random=noise),
    )
    assert loaded.config.encoders == fake_spec(dim=768).encoders
    assert loaded.state_standardize is not None and agent.state_standardize is not None
    assert torch.equal(loaded.state_standardize.mean, agent.state_standardize.mean)


def test_a_folder_without_a_policy_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no policy at .*: config\.json cannot be read"):
        VLAAgent.from_pretrained(tmp_path)


def test_a_constant_state_dimension_is_shifted_only(tmp_path: Path) -> None:
    agent = user_agent(tmp_path)
    assert agent.state_standardize is not None
    agent.state_standardize.fit([2.0] * 16, [0.0] * 16)
    assert torch.equal(agent.state_standardize(torch.full((1, 16), 2.5)), torch.full((1, 16), 0.5))


def test_the_repositorys_pipeline_is_the_users_experiment() -> None:
    settings = PipelineConfig.load(ROOT / "pipeline.toml", {}, [])
    policy, train = settings.policy, settings.train
    assert isinstance(policy, VLAAgentConfig)
    assert settings.encoder.id == "google/siglip2-base-patch16-256"
    assert settings.dataset.cameras == ("r_vis", "top", "front")
    assert (policy.per_view_dim, policy.cond_dim, policy.n_emb, policy.n_layer) == (192, 384, 384, 12)
    assert (policy.obs_horizon, policy.pred_horizon, policy.num_action_steps) == (2, 16, 8)
    assert (policy.head.type, policy.residual) == ("imf", "attnres")
    assert (train.steps, train.rollout_episodes) == (50_000, 10)
    narrower = PipelineConfig.load(ROOT / "pipeline.toml", {"policy.per_view_dim": 96}, [])
    assert narrower.model_copy(update={"policy": policy}) == settings


@pytest.mark.parametrize("blocks", ["basic", "attnres"])
def test_raw_condition_dim_stays_208_with_a_resnet_of_either_kind(blocks: str, tmp_path: Path) -> None:
    features = fake_spec(dim=768)
    image = {"kind": "image", "dtype": "uint8", "shape": (32, 32, 3)}
    streams = tuple(s.model_copy(update=image) if s.name in CAMERAS else s for s in features.streams)
    cache = write_cache(tmp_path / "cache", fake_spec(streams=streams))
    trunks = {camera: {"type": "resnet", "blocks": blocks, "width": 8} for camera in CAMERAS}
    config = VLAAgentConfig.model_validate({"per_view_dim": 64, "n_layer": 1, "trunks": trunks})
    agent = VLAAgent.for_cache(config, cache.metadata)
    assert agent.raw_per_step_cond_dim == 3 * 64 + 16 == 208
    assert (agent.per_step_cond_dim, agent.head.cond_dim) == (384, 384)
    frames = {camera: torch.zeros(2, 2, 32, 32, 3, dtype=torch.uint8) for camera in CAMERAS}
    assert agent._build_cond({**frames, "state": torch.zeros(2, 2, 16)}).shape == (2, 2, 384)
