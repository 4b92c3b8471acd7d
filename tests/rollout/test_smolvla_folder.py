"""What `vla export --lerobot` writes of a SmolVLA; tests/interop loads it with LeRobot."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_smolvla import CHUNK, MAX_ACTION, write_smolvla
from safetensors.torch import load_file, save_file

from vla.cache import DatasetIdentity, Stream
from vla.embed.text_encoders.text_encoder_family import of_encoder
from vla.policy.batch import Batch
from vla.policy.pretrained.smolvla import SmolVLA, SmolVLAConfig
from vla.policy.random import RowRandom
from vla.policy.saved_policy import SavedPolicy, TrainingData
from vla.rollout.encoders.smolvla import SmolVLAEncoderConfig
from vla.rollout.export.smolvla_folder import write_smolvla_folder

FROZEN = "model.vlm_with_expert.vlm."
INPUTS = {
    "observation.state": {"type": "STATE", "shape": [3]},
    "observation.images.top": {"type": "VISUAL", "shape": [3, 48, 64]},
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a SmolVLA whose frozen part is in bfloat16, as in published files, beside statistics of old."""
    folder = write_smolvla(tmp_path_factory.mktemp("folder"))
    tensors = {
        name: tensor.bfloat16() if name.startswith(FROZEN) else tensor
        for name, tensor in load_file(folder / "model.safetensors").items()
    }
    tensors["normalize_inputs.buffer_observation_state.mean"] = torch.zeros(3)
    save_file(tensors, folder / "model.safetensors")
    return folder


@pytest.fixture
def policy(source: Path) -> SmolVLA:
    """Return an untrained policy of one camera, three numbers of state and two of action."""
    config = SmolVLAEncoderConfig(id=str(source), device="cpu")
    encoder = config.build(("top",), torch.device("cpu"))
    state, action = (
        Stream(name=name, kind="vector", dtype="float32", shape=(size,), key=name)
        for name, size in (("state", 3), ("action", 2))
    )
    dataset = DatasetIdentity(path="demos", format="lerobot-v3.0", content_sha256="a" * 64, fps=30, keys={})
    saved = SavedPolicy(
        policy=SmolVLAConfig(path=str(source), pred_horizon=CHUNK + 2, num_action_steps=4),
        streams=(*encoder.writes, state),
        action=action,
        fps=30,
        encoders={encoder.identity.digest: encoder.identity},
        cache_fingerprint="",
        data=(TrainingData(dataset=dataset, num_episodes=1, num_frames=9, tasks=("pick up",)),),
        text_encoder=of_encoder(config).load().identity,
    )
    built = saved.policy.build(saved)
    assert isinstance(built, SmolVLA)
    built.action_standardize.fit([1.0, 5.0], [2.0, 0.0])
    built.action_moves.copy_(torch.tensor([True, False]))
    return built


def test_frozen_weights_stay_as_they_were_and_trained_ones_are_in_float32(
    policy: SmolVLA, source: Path, tmp_path: Path
) -> None:
    with torch.no_grad():
        policy.network.expert.norm.weight.add_(1)
    write_smolvla_folder(policy, tmp_path, INPUTS)
    before, after = (load_file(folder / "model.safetensors") for folder in (source, tmp_path))
    assert before.keys() - after.keys() == {"normalize_inputs.buffer_observation_state.mean"}
    norm = "model.vlm_with_expert.lm_expert.norm.weight"
    for name, tensor in after.items():
        assert tensor.dtype == (torch.bfloat16 if name.startswith(FROZEN) else torch.float32)
        assert torch.equal(tensor, before[name] + (name == norm)), name


def test_the_configuration_is_the_old_one_with_this_robots_numbers(policy: SmolVLA, tmp_path: Path) -> None:
    write_smolvla_folder(policy, tmp_path, INPUTS)
    config = json.loads((tmp_path / "config.json").read_bytes())
    assert config["input_features"] == INPUTS
    assert config["output_features"] == {"action": {"type": "ACTION", "shape": [2]}}
    assert (config["chunk_size"], config["n_action_steps"], config["num_steps"]) == (CHUNK + 2, 4, 3)
    assert config["vlm_model_name"] == policy.files.settings.vlm_model_name


def test_an_action_that_never_moved_is_commanded_to_be_what_it_was(policy: SmolVLA, tmp_path: Path) -> None:
    write_smolvla_folder(policy, tmp_path, INPUTS)
    steps = json.loads((tmp_path / "policy_postprocessor.json").read_bytes())["steps"]
    statistics = load_file(tmp_path / steps[0]["state_file"])
    chunk = torch.randn(1, CHUNK + 2, 2)
    theirs = chunk * statistics["action.std"] + statistics["action.mean"]
    torch.testing.assert_close(theirs, policy.in_robot_units(chunk, None))
    assert (theirs[..., 1] == 5).all()


def batch_of(policy: SmolVLA, rows: int) -> Batch:
    (top,) = policy.camera_names
    (features,) = [stream for stream in policy.observes if stream.name == top]
    words = torch.tensor([3.0, 4.0, 2.0, *[-1.0] * 7])
    observation: dict[str, Any] = {
        top: torch.randn(rows, 1, *features.shape).half(),
        "state": torch.randn(rows, 1, 3),
        "task": words.expand(rows, 1, -1),
    }
    pad = torch.zeros(rows, CHUNK + 2, dtype=torch.bool)
    return Batch(observation=observation, action=torch.randn(rows, CHUNK + 2, 2), action_is_pad=pad)


def test_times_are_beta_and_noise_covers_the_padding(policy: SmolVLA) -> None:
    drawn = policy.draw(batch_of(policy, 20_000), RowRandom(torch.Generator().manual_seed(0)))
    assert drawn["noise"].shape == (20_000, CHUNK + 2, MAX_ACTION)
    time = (drawn["time"] - 0.001) / 0.999
    assert time.min() >= 0 and time.max() <= 1
    for at in (0.2, 0.5, 0.8):
        assert abs(float((time < at).float().mean()) - at**1.5) < 0.01


def test_nothing_past_the_end_of_an_episode_is_learned(policy: SmolVLA) -> None:
    policy.tokens.copy_(torch.tensor([3.0, 4.0, 2.0, *[-1.0] * 7]))
    policy.load_saved(policy.saved_state())
    batch = batch_of(policy, 2)
    drawn = policy.draw(batch, RowRandom(torch.Generator().manual_seed(0)))
    batch.action_is_pad[:, 4:] = True
    before = policy.loss(batch, drawn)[0]
    batch.action[:, 4:] += 9  # later than all that counts, so that what is before does not see it
    torch.testing.assert_close(policy.loss(batch, drawn)[0], before)
    batch.action[:, 3] += 9
    assert abs((policy.loss(batch, drawn)[0] - before).item()) > 0.1
