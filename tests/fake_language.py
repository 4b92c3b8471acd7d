"""Two tasks that nothing but their words tells apart, and what is made of them."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from fakes import fake_images, write_tokenizer, write_two_tower_checkpoint
from safetensors.numpy import load_file, save_file

from vla.config import PipelineConfig
from vla.embed.report import EmbedReport
from vla.policy.training.run import find_policy
from vla.rollout.live import LivePolicy
from vla.stages import embed, load_live, train

PICK, HAND = "Pick the red box", "Hand it over"
ACTION = {PICK: 1.0, HAND: -1.0}
LENGTH = 12


def write_two_tasks(folder: Path, tasks: Sequence[str] = (PICK, HAND, HAND, PICK)) -> Path:
    """Episodes with equal frames and equal states; only the text says which way to go."""
    folder.mkdir(parents=True)
    frames = fake_images(0, LENGTH, (32, 32))
    state = np.linspace(0, 1, LENGTH)[:, None] * np.ones(3)
    for episode, task in enumerate(tasks):
        with h5py.File(folder / f"episode_{episode}.hdf5", "w") as file:
            file.attrs["task"] = task
            file["observations/images/top"] = frames
            file["observations/qpos"] = state
            file["action"] = np.full((LENGTH, 2), ACTION.get(task, 0.0)) * [1.0, 3.0]
    return folder


@dataclass(frozen=True)
class Bench:
    """Where the dataset, the encoder and the caches of a test lie."""

    root: Path
    dataset: Path
    encoder: Path

    def settings(self, **changes: Any) -> PipelineConfig:
        values = {
            "dataset.path": str(self.dataset),
            "dataset.fps": 25,
            "encoder.id": str(self.encoder),
            "encoder.device": "cpu",
            "encoder.language": True,
            "cache.path": str(self.root / "features"),
            "cache.shard_frames": 20,
            "policy.per_view_dim": 4,
            "policy.cond_dim": 16,
            "policy.language_dim": 8,
            "policy.head": {"type": "mlp", "width": 32},
            "policy.n_emb": 16,
            "policy.n_layer": 1,
            "policy.n_head": 2,
            "train.device": "cpu",
            "train.steps": 60,
            "train.batch_size": 16,
            "train.lr": 1e-2,
            "train.warmup_steps": 5,
            "train.ema_decay": 0.9,
            "train.log_every": 1,
            "train.val_episodes": 2,
            "train.rollout_every": 0,
            "train.tracker": "none",
        }
        return PipelineConfig.load(None, {**values, **changes}, [], base={})

    def embed(self, **changes: Any) -> EmbedReport:
        return embed(self.settings(**changes))

    def train(self, name: str, **changes: Any) -> tuple[Path, float]:
        """Return the policy's folder and its loss on the held-out episodes, one of each task."""
        out = self.root / name
        report = train(self.settings(**{"train.out": str(out), **changes}))
        assert report.val_loss is not None
        return find_policy(out), report.val_loss


def make_bench(root: Path) -> Bench:
    """Write dataset and encoder, and embed with language."""
    encoder = write_tokenizer(write_two_tower_checkpoint(root / "siglip2"))
    bench = Bench(root, write_two_tasks(root / "demos"), encoder)
    bench.embed()
    return bench


def live(bench: Bench, policy: Path, **changes: Any) -> LivePolicy:
    return load_live(bench.settings(**changes), policy)


def first_observation() -> dict[str, Any]:
    """Return what every episode begins with."""
    return {"pixels": {"top": fake_images(0, LENGTH, (32, 32))[0]}, "agent_pos": np.zeros(3, np.float32)}


def act(policy: LivePolicy, task: str = "") -> np.ndarray:
    """Return the actions for what every episode begins with."""
    frames = np.repeat(first_observation()["pixels"]["top"][None, None], 2, axis=1)
    observation = {"top": frames, "state": np.zeros((1, 2, 3), np.float32)}
    return policy.act(observation, [0], task).actions[0]


def with_other_text_tower(encoder: Path, folder: Path) -> Path:
    """Copy a checkpoint; its text features are all greater by 1."""
    shutil.copytree(encoder, folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["text_model.head.bias"] = tensors["text_model.head.bias"] + 1
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
