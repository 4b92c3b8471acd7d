"""Train `siglip2-tiny-sim`: a small SigLIP vision tower whose pooled feature tells where things are.

    python scripts/tiny_sim/render.py --scenes 20000 --out data/tiny_sim
    python scripts/tiny_sim/train.py --data data/tiny_sim --out data/siglip2-tiny-sim

and once more from there, at the look of demonstrations as often as at shaken ones:

    python scripts/tiny_sim/render.py --scenes 10000 --nominal 1 --seed 50000 --out data/tiny_sim_nominal
    python scripts/tiny_sim/train.py --data data/tiny_sim data/tiny_sim_nominal --init data/siglip2-tiny-sim \
        --lr 1e-3 --near 0.02 --out data/siglip2-tiny-sim-2

Supervised: one linear layer on `pooler_output` regresses the labels of `scenes.py`, in each view by
itself. It is no general image encoder. The layer is thrown away; what is written is a standard
checkpoint, config.json and model.safetensors, in float16.
"""

import argparse
import copy
import itertools
import json
import math
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from queue import Queue

import numpy as np
import torch
from scenes import LABELS
from torch import Tensor, nn
from torch.nn import functional
from transformers import SiglipImageProcessor, SiglipVisionConfig, SiglipVisionModel

from vla.base.progress import Progress
from vla.embed.transforms import Preprocessing, normalise

HELD_OUT = 0.02
POINTS = 3
FOVY = torch.tensor([48.0, 42.0, 44.0])
"""Of r_vis, top and front [degree]; the shaken cameras are off by a pixel or two."""
PATCH_LOSS, LOOK_LOSS = 0.2, 0.1
# Relative weights of the label groups of scenes.py: positions, offsets, near offsets, openings, yaw.
WEIGHTS = torch.tensor([1.0] * 9 + [1.0] * 6 + [1.0] * 6 + [0.5] * 2 + [0.3] * 2)


class PooledRegressor(nn.Module):
    """A vision tower with a linear layer on its pooled feature, and one on its patches.

    The second finds the patch that shows each point, and where in it. Both layers are thrown away; but
    without the second, which teaches patches what they show, the first had learned nothing after 90,000
    images (box off by 200 mm in the median, as by guessing). One head of the pooling's attention a
    point is asked to look at the point's patch.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        super().__init__()
        self.tower = SiglipVisionModel(
            SiglipVisionConfig(
                hidden_size=arguments.width,
                intermediate_size=4 * arguments.width,
                num_hidden_layers=arguments.layers,
                num_attention_heads=arguments.width // 16,
                image_size=256,
                patch_size=arguments.patch,
                # Written out: on a CPU the fused kernel's backward took a third of the step, this a tenth.
                attn_implementation="eager",
            )
        )
        self.head = nn.Linear(arguments.width, LABELS)
        self.patch_head = nn.Linear(arguments.width, POINTS * 3)
        self.side = 256 // arguments.patch

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what is regressed and attended.

        Labels [n, 25]; of each patch and point a score and an offset [n, patches, 3, 3]; of each point
        and patch the attention before the softmax [n, 3, patches].
        """
        output = self.tower(pixel_values=pixels)
        patches = self.patch_head(output.last_hidden_state).unflatten(-1, (POINTS, 3))
        return self.head(output.pooler_output), patches, self.looks(output.last_hidden_state)

    def looks(self, hidden: Tensor) -> Tensor:
        """Return the pooling's attention to patches, of its first three heads."""
        pooling: nn.MultiheadAttention = self.tower.head.attention
        weights, biases = pooling.in_proj_weight.chunk(3)[:2], pooling.in_proj_bias.chunk(3)[:2]
        query, key = (
            functional.linear(tokens, weight, bias).unflatten(-1, (pooling.num_heads, -1))[:, :, :POINTS]
            for tokens, weight, bias in zip((self.tower.head.probe, hidden), weights, biases, strict=True)
        )
        return torch.einsum("nphd,qhd->nhp", key, query[0]) / pooling.head_dim**0.5

    def patch_loss(self, patches: Tensor, looks: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """Compare with where the points are in the image, [n, 3, 2] in [0, 1] if they are inside.

        Returns:
            The loss of the patches, and that of the pooling's looks.
        """
        inside = ((points > 0) & (points < 1)).all(dim=-1)
        cell = (points.clamp(0, 0.999) * self.side).floor()
        index = (cell[..., 1] * self.side + cell[..., 0]).long()
        found = patches[..., 0].transpose(1, 2)[inside]
        chosen = index[:, None, :, None].expand(-1, 1, -1, 2)
        offset = patches[..., 1:].gather(1, chosen)[:, 0][inside]
        wanted = (points * self.side - cell)[inside] - 0.5
        patch_loss = functional.cross_entropy(found, index[inside]) + functional.l1_loss(offset, wanted)
        return patch_loss, functional.cross_entropy(looks[inside], index[inside])


class Views:
    """Rendered views of several folders, one after the other.

    Args:
        folders: of `render.py`.
    """

    def __init__(self, folders: list[Path]) -> None:
        self._parts = [np.load(folder / "images.npy", mmap_mode="r") for folder in folders]
        self._ends = np.cumsum([len(part) for part in self._parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def last_of_each(self, share: float) -> np.ndarray:
        """Tell which views are among the last of their folder; those are of episodes of their own."""
        return np.concatenate([np.arange(len(part)) >= int(len(part) * (1 - share)) for part in self._parts])

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Read views, uint8 [n, 256, 256, 3]; rows ascend."""
        of_part = np.searchsorted(self._ends, rows, side="right")
        starts = np.concatenate([[0], self._ends])
        return np.concatenate(
            [
                part[rows[of_part == k] - starts[k]]
                for k, part in enumerate(self._parts)
                if (of_part == k).any()
            ]
        )


def batches(images: Views, order: np.ndarray, size: int) -> Iterator[tuple[np.ndarray, Tensor]]:
    """Read batches ahead, in a thread; yields row numbers and uint8 images."""
    ready: Queue[tuple[np.ndarray, Tensor] | None] = Queue(maxsize=4)

    def read() -> None:
        for start in range(0, len(order) - size + 1, size):
            rows = np.sort(order[start : start + size])
            ready.put((rows, torch.from_numpy(images[rows])))
        ready.put(None)

    threading.Thread(target=read, daemon=True).start()
    while (item := ready.get()) is not None:
        yield item


def image_points(labels: Tensor, rows: np.ndarray) -> Tensor:
    """Project box and hands into their view: [n, 3, 2], from the left and from the top, in [0, 1]."""
    points = labels[:, :9].unflatten(1, (POINTS, 3))
    reach = torch.tan(torch.deg2rad(FOVY[torch.from_numpy(rows % 3)]) / 2)[:, None]
    right, up = points[..., 0] / -points[..., 2] / reach, points[..., 1] / -points[..., 2] / reach
    return torch.stack([(1 + right) / 2, (1 - up) / 2], dim=-1)


def jitter(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Vary brightness and contrast of each channel a little."""
    shape = (len(pixels), 3, 1, 1)
    gain = 1 + 0.1 * torch.randn(shape, generator=generator).to(pixels.device)
    shift = 0.1 * torch.randn(shape, generator=generator).to(pixels.device)
    return torch.addcmul(shift, pixels, gain)


def evaluate(
    model: PooledRegressor, images: Views, rows: np.ndarray, labels: Tensor, scale: Tensor, device: str
) -> dict[str, float]:
    """Return median errors on held-out views."""
    model.eval()
    found = []
    with torch.inference_mode():
        for start in range(0, len(rows), 64):
            batch = torch.from_numpy(images[rows[start : start + 64]]).to(device)
            pixels = normalise(batch, Preprocessing(image_size=(256, 256)))
            found.append(model(pixels)[0].float().cpu())
    model.train()
    error = (torch.cat(found) - labels[torch.from_numpy(rows)]).abs() * scale
    mm = {"box_mm": slice(0, 3), "hands_mm": slice(3, 9), "offset_mm": slice(9, 15)}
    figures = {name: 1000 * float(error[:, part].norm(dim=1).median()) for name, part in mm.items()}
    return {**figures, "near": float(error[:, 15:21].mean()), "yaw": float(error[:, 23:].mean())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", default=[Path("data/tiny_sim")])
    parser.add_argument("--init", type=Path, help="a checkpoint to go on from; new layers are drawn on top")
    parser.add_argument("--out", type=Path, default=Path("data/siglip2-tiny-sim"))
    parser.add_argument("--epochs", type=int, default=0, help="instead of --steps")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--patch", type=int, default=32)
    parser.add_argument("--near", type=float, default=0.1, help="errors below weigh less, in deviations")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    rng, generator = np.random.default_rng(arguments.seed), torch.Generator().manual_seed(arguments.seed)
    device = arguments.device

    images = Views(arguments.data)
    labels = torch.from_numpy(np.concatenate([np.load(folder / "labels.npy") for folder in arguments.data]))
    held_out = images.last_of_each(HELD_OUT)
    train_rows, test_rows = np.flatnonzero(~held_out), np.flatnonzero(held_out)
    scale, mean = labels.std(0), labels.mean(0)
    standard = (labels - mean) / scale
    points = image_points(labels, np.arange(len(labels)))

    model = PooledRegressor(arguments).to(device)
    if arguments.init:
        model.tower.load_state_dict(SiglipVisionModel.from_pretrained(arguments.init).float().state_dict())
    nn.init.zeros_(model.head.bias)
    groups = [
        {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": 0.05},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=arguments.lr, betas=(0.9, 0.95))
    steps = arguments.epochs * (len(train_rows) // arguments.batch_size) or arguments.steps
    step, started = 0, time.monotonic()
    weights = WEIGHTS.to(device)
    with Progress("train", steps, unit="steps") as progress:
        for epoch in itertools.count(1):
            if step == steps:
                break
            for rows, batch in batches(images, rng.permutation(train_rows), arguments.batch_size):
                rate = min(1, (step + 1) / 500) * (0.51 + 0.49 * math.cos(math.pi * step / steps))
                for group in optimizer.param_groups:
                    group["lr"] = arguments.lr * rate
                pixels = normalise(batch.to(device), Preprocessing(image_size=(256, 256)))
                with torch.autocast(device, torch.bfloat16):
                    found, patches, looks = model(jitter(pixels, generator))
                target = standard[torch.from_numpy(rows)].to(device)
                loss = (
                    functional.smooth_l1_loss(found.float(), target, beta=arguments.near, reduction="none")
                    * weights
                ).mean()
                patch_loss, look_loss = model.patch_loss(
                    patches.float(), looks.float(), points[torch.from_numpy(rows)].to(device)
                )
                auxiliary = PATCH_LOSS * patch_loss + LOOK_LOSS * look_loss
                optimizer.zero_grad()
                (loss + auxiliary).backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                step += 1
                if step == steps:
                    break
                progress.update(1, loss=loss.item(), patch=patch_loss.item(), look=look_loss.item())
            row = {
                "epoch": epoch,
                "step": step,
                "seconds": round(time.monotonic() - started),
                "loss": loss.item(),
            }
            row |= evaluate(model, images, test_rows, standard, scale, device)
            print(json.dumps(row), flush=True)
            copy.deepcopy(model.tower).to(torch.float16).save_pretrained(arguments.out)
            SiglipImageProcessor(size={"height": 256, "width": 256}, resample=2).save_pretrained(
                arguments.out
            )


if __name__ == "__main__":
    main()
