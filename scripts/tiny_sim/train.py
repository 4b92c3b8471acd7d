"""Train `siglip2-tiny-sim`: a small SigLIP vision tower whose pooled feature tells where things are.

    python scripts/tiny_sim/render.py --scenes 30000 --out data/tiny_sim
    python scripts/tiny_sim/train.py --data data/tiny_sim --out data/siglip2-tiny-sim --epochs 12

Supervised: one linear layer on `pooler_output` regresses the labels of `scenes.py`, in each view by
itself. It is no general image encoder. The layer is thrown away; what is written is a standard
checkpoint, config.json and model.safetensors, in float16.
"""

import argparse
import copy
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
from transformers import SiglipVisionConfig, SiglipVisionModel

from vla.cache import Preprocessing
from vla.embed.preprocess import normalise
from vla.progress import Progress

HELD_OUT = 0.02
# Relative weights of the label groups of scenes.py: positions, offsets, near offsets, openings, yaw.
WEIGHTS = torch.tensor([1.0] * 9 + [1.0] * 6 + [1.0] * 6 + [0.5] * 2 + [0.3] * 2)


class PooledRegressor(nn.Module):
    """A vision tower with a linear layer on its pooled feature."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        super().__init__()
        self.tower = SiglipVisionModel(
            SiglipVisionConfig(
                hidden_size=arguments.width,
                intermediate_size=4 * arguments.width,
                num_hidden_layers=arguments.layers,
                num_attention_heads=arguments.width // 64,
                image_size=256,
                patch_size=arguments.patch,
            )
        )
        self.head = nn.Linear(arguments.width, LABELS)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.head(self.tower(pixel_values=pixels).pooler_output)


def batches(images: np.ndarray, order: np.ndarray, size: int) -> Iterator[tuple[np.ndarray, Tensor]]:
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


def jitter(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Vary brightness, contrast and noise of each image a little."""
    shape = (len(pixels), 3, 1, 1)
    gain = 1 + 0.1 * torch.randn(shape, generator=generator).to(pixels.device)
    shift = 0.1 * torch.randn(shape, generator=generator).to(pixels.device)
    return pixels * gain + shift + 0.02 * torch.randn_like(pixels)


def evaluate(
    model: PooledRegressor, images: np.ndarray, labels: Tensor, scale: Tensor, device: str
) -> dict[str, float]:
    """Return median errors on held-out views."""
    model.eval()
    found = []
    with torch.inference_mode():
        for start in range(0, len(images), 64):
            batch = torch.from_numpy(images[start : start + 64]).to(device)
            found.append(model(normalise(batch, Preprocessing(image_size=(256, 256)))).float().cpu())
    model.train()
    error = (torch.cat(found) - labels).abs() * scale
    mm = {"box_mm": slice(0, 3), "hands_mm": slice(3, 9), "offset_mm": slice(9, 15)}
    figures = {name: 1000 * float(error[:, part].norm(dim=1).median()) for name, part in mm.items()}
    return {**figures, "near": float(error[:, 15:21].mean()), "yaw": float(error[:, 23:].mean())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data/tiny_sim"))
    parser.add_argument("--out", type=Path, default=Path("data/siglip2-tiny-sim"))
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--patch", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    rng, generator = np.random.default_rng(arguments.seed), torch.Generator().manual_seed(arguments.seed)
    device = arguments.device

    images = np.load(arguments.data / "images.npy", mmap_mode="r")
    labels = torch.from_numpy(np.load(arguments.data / "labels.npy"))
    split = int(len(images) * (1 - HELD_OUT))
    scale = labels[:split].std(0)
    mean = labels[:split].mean(0)
    standard = (labels - mean) / scale

    model = PooledRegressor(arguments).to(device)
    nn.init.zeros_(model.head.bias)
    groups = [
        {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": 0.05},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=arguments.lr, betas=(0.9, 0.95))
    steps = arguments.epochs * (split // arguments.batch_size)
    step, started = 0, time.monotonic()
    weights = WEIGHTS.to(device)
    with Progress("train", steps, unit="steps") as progress:
        for epoch in range(arguments.epochs):
            for rows, batch in batches(images, rng.permutation(split), arguments.batch_size):
                rate = min(1, (step + 1) / 500) * (0.51 + 0.49 * math.cos(math.pi * step / steps))
                for group in optimizer.param_groups:
                    group["lr"] = arguments.lr * rate
                pixels = normalise(batch.to(device), Preprocessing(image_size=(256, 256)))
                with torch.autocast(device, torch.bfloat16):
                    found = model(jitter(pixels, generator))
                target = standard[torch.from_numpy(rows)].to(device)
                loss = (
                    functional.smooth_l1_loss(found.float(), target, beta=0.1, reduction="none") * weights
                ).mean()
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                step += 1
                progress.update(1, loss=loss.item())
            row = {"epoch": epoch + 1, "seconds": round(time.monotonic() - started), "loss": loss.item()}
            row |= evaluate(model, images[split:], standard[split:], scale, device)
            print(json.dumps(row), flush=True)
            copy.deepcopy(model.tower).to(torch.float16).save_pretrained(arguments.out)


if __name__ == "__main__":
    main()
