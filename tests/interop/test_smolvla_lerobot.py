"""SmolVLA here and in LeRobot: the same loss, gradient and actions; folders that both read. make interop."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_datasets import TASK as TASK_TEXT
from fake_datasets import write_dataset
from fake_smolvla import CHUNK, MAX_ACTION, SIDE, write_smolvla

from vla.cache import STATE, TASK, FeatureCache
from vla.config import PipelineConfig
from vla.embed.datasets import open_source
from vla.embed.datasets.dataset_config import DatasetConfig
from vla.embed.transforms import ImageSize, resize
from vla.policy.batch import Batch
from vla.policy.pretrained.smolvla import SmolVLA
from vla.policy.pretrained.smolvla_files import SmolVLAFiles, lerobot_name
from vla.policy.random import GivenNoise
from vla.policy.training.run import find_policy
from vla.policy.windows import Windows
from vla.rollout.encoders.smolvla import SmolVLAEncoderConfig
from vla.stages import embed, export_lerobot, train

pytestmark = [pytest.mark.interop, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(1800)]

CAMERAS = ("r_vis", "top", "front")
LENGTHS = (12, 9)
CURRENT = [3, 11, 17]  # frames; the last two are near the end of their episodes


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a SmolVLA, demonstrations, their cache, a run, and what is exported of it."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    root = tmp_path_factory.mktemp("smolvla")
    write_smolvla(root, cameras=CAMERAS)
    write_dataset(root / "demos", lengths=LENGTHS, size=(SIDE, SIDE), state_dim=4)
    embed(settings(root))
    train(settings(root))
    export_lerobot(settings(root), root / "run", root / "exported")
    return root


def settings(root: Path) -> PipelineConfig:
    values = {
        "dataset.path": str(root / "demos"),
        "encoder.id": str(root / "smolvla"),
        "encoder.device": "cpu",
        "cache.path": str(root / "features"),
        "policy.type": "smolvla",
        "policy.path": str(root / "smolvla"),
        "policy.pred_horizon": CHUNK,
        "policy.num_action_steps": 3,
        "train.out": str(root / "run"),
        "train.device": "cpu",
        "train.steps": 3,
        "train.batch_size": 4,
        "train.val_episodes": 0,
        "train.rollout_every": 0,
        "train.tracker": "none",
    }
    return PipelineConfig.load(None, values, [], base={})


def lerobots(folder: Path) -> tuple[Any, Any, Any]:
    """Load a folder as LeRobot's commands do: the policy, and what goes before and after it."""
    from lerobot.policies.factory import make_pre_post_processors
    from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy

    policy = SmolVLAPolicy.from_pretrained(folder)
    return policy, *make_pre_post_processors(policy.config, pretrained_path=str(folder))


def frames(root: Path) -> dict[str, np.ndarray]:
    """Return the dataset's frames through each camera."""
    source = open_source(DatasetConfig(path=str(root / "demos")))
    (block,) = source.read(range(sum(LENGTHS)), sum(LENGTHS))
    return {camera: block.streams[camera][CURRENT] for camera in CAMERAS}


def cached_batch(root: Path, policy: SmolVLA) -> Batch:
    cache = FeatureCache(root / "features")
    windows = Windows(
        cache, policy.horizons, policy.observes, device=torch.device("cpu"), resident=True, texts=True
    )
    return windows.batch(torch.tensor(CURRENT))


def exact_batch(root: Path, policy: SmolVLA) -> Batch:
    """The same, with what the tower says in float32: a cache keeps it in float16."""
    batch = cached_batch(root, policy)
    encoder = SmolVLAEncoderConfig(id=str(root / "smolvla")).build(CAMERAS, torch.device("cpu"))
    with torch.no_grad():
        for camera, view in frames(root).items():
            pixels = torch.from_numpy(view).permute(0, 3, 1, 2) / 255 * 2 - 1
            batch.observation[camera] = encoder.vision(pixels)[:, None]
    return batch


def for_lerobot(root: Path, batch: Batch) -> dict[str, Any]:
    """The same windows as LeRobot's loader gives them, in the robot's units."""
    images = {
        f"observation.images.{camera}": torch.from_numpy(view).permute(0, 3, 1, 2) / 255
        for camera, view in frames(root).items()
    }
    texts = {"task": [TASK_TEXT] * len(CURRENT), "action_is_pad": batch.action_is_pad}
    return {**images, "observation.state": batch.observation[STATE][:, 0], "action": batch.action, **texts}


def draws(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(len(CURRENT), CHUNK, MAX_ACTION, generator=generator)
    return {"noise": noise, "time": torch.rand(len(CURRENT), generator=generator)}


def test_losses_and_gradients_are_lerobots(root: Path) -> None:
    theirs, before, _ = lerobots(root / "exported")
    ours = SmolVLA.from_pretrained(find_policy(root / "run")).train()
    batch, drawn = exact_batch(root, ours), draws(0)
    due, _ = theirs.train().forward(before(for_lerobot(root, batch)), drawn["noise"], drawn["time"])
    loss, _ = ours.loss(batch, drawn)
    assert abs(loss.item() - due.item()) < 1e-4
    due.backward()
    loss.backward()
    gradients = {lerobot_name(name): p.grad for name, p in ours.network.named_parameters() if p.requires_grad}
    trained = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    assert gradients.keys() == trained.keys()
    for name, gradient in trained.items():
        torch.testing.assert_close(
            gradients[name], gradient, rtol=1e-3, atol=1e-4 * float(gradient.abs().max())
        )


def test_a_cache_in_float16_changes_the_loss_by_less_than_a_thousandth(root: Path) -> None:
    ours = SmolVLA.from_pretrained(find_policy(root / "run"))
    exact, cached = (
        ours.loss(batch, draws(0))[0] for batch in (exact_batch(root, ours), cached_batch(root, ours))
    )
    print("\nfloat16:", abs(exact.item() - cached.item()) / exact.item())
    assert abs(exact.item() - cached.item()) < 1e-3 * exact.item()


def test_actions_are_lerobots(root: Path) -> None:
    theirs, before, after = lerobots(root / "exported")
    ours = SmolVLA.from_pretrained(find_policy(root / "run"))
    batch, noise = exact_batch(root, ours), draws(1)["noise"]
    due = after(theirs.predict_action_chunk(before(for_lerobot(root, batch)), noise))
    chunk = ours.predict_action_chunk(batch.observation, random=GivenNoise(noise))
    torch.testing.assert_close(chunk, due, rtol=0, atol=1e-4)


def test_what_lerobot_saves_is_read_here_with_the_same_numbers(root: Path, tmp_path: Path) -> None:
    theirs, _, _ = lerobots(root / "exported")
    theirs.save_pretrained(tmp_path / "theirs")
    again, first = SmolVLAFiles.open(str(tmp_path / "theirs")), SmolVLAFiles.open(str(root / "smolvla"))
    assert again.frozen_sha256() == first.frozen_sha256()  # the cache is still good for it
    ours = SmolVLA.from_pretrained(find_policy(root / "run"))
    names = {lerobot_name(name): tensor for name, tensor in ours.network.state_dict().items()}
    tensors = again.read(names)
    assert all(torch.equal(tensors[name], tensor) for name, tensor in names.items())


def test_the_tokens_of_a_task_are_lerobots(root: Path) -> None:
    _, before, _ = lerobots(root / "exported")
    batch = exact_batch(root, SmolVLA.from_pretrained(find_policy(root / "run")))
    due = before(for_lerobot(root, batch))
    tokens, there = due["observation.language.tokens"], due["observation.language.attention_mask"]
    ours = batch.observation[TASK][:, 0, : tokens.shape[1]].long()
    assert torch.equal(torch.where(there, tokens, -1), ours)
    assert (batch.observation[TASK][:, 0, tokens.shape[1] :] == -1).all()


@pytest.mark.parametrize("height, width", [(48, 64), (64, 48), (20, 30), (64, 64)])
def test_images_are_resized_as_lerobot_does_to_half_a_step(height: int, width: int) -> None:
    from lerobot.policies.common.vla_utils import resize_with_pad

    image = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    floats = torch.from_numpy(image).permute(0, 3, 1, 2) / 255
    due = resize_with_pad(floats, SIDE, SIDE, pad_value=0).permute(0, 2, 3, 1).numpy()
    ours = resize(image, ImageSize((SIDE, SIDE), pads=True)) / 255
    assert ours.shape == due.shape
    assert np.abs(ours - due).max() <= 0.5 / 255 + 1e-6
