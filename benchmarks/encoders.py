"""Vision towers in their real architectures: speed, memory, and whether features are those of transformers.

    python benchmarks/encoders.py        # one of each kind; DINOv3's processor needs torchvision
    python benchmarks/encoders.py --names clip-vit-large-patch14

Each is written as a checkpoint with the processor file of the published one, and goes through `vla` in a
process of its own: images of 240 x 320, resized, one batch at a time. Weights are random, so the features
mean nothing; the arithmetic, its speed and its memory are those of the published weights.

cosine           to plain transformers with the checkpoint's own image processor, the least of the images
between images   the same of different images in plain transformers: what a wrong feature could pass as
images/s         on a CPU: of one core, by its own time, so that other work on the machine does not count
memory           of the process at most, torch and transformers included
"""

import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from measure import parser, rounded, save

from vla.base.strict import StrictModel
from vla.embed import ENCODERS, FrozenEncoder

BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}
TINY = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
CLIP_COLOURS = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
IMAGENET_COLOURS = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}


class Tower(StrictModel):
    """How a published checkpoint is built."""

    model: str
    config: str
    sizes: dict[str, Any]
    pooled: str = "pooler_output"
    processor: dict[str, Any]


def siglip(sizes: Mapping[str, Any], size: int) -> Tower:
    return Tower(
        model="SiglipVisionModel",
        config="SiglipVisionConfig",
        sizes={**sizes, "intermediate_size": 4 * sizes["hidden_size"], "image_size": size, "patch_size": 16},
        processor={
            "image_processor_type": "SiglipImageProcessor",
            "size": {"height": size, "width": size},
            "resample": 2,
        },
    )


def clip(sizes: Mapping[str, Any], patch: int, projected: int) -> Tower:
    wide = {"intermediate_size": 4 * sizes["hidden_size"], "projection_dim": projected}
    crop = {
        "crop_size": {"height": 224, "width": 224},
        "size": {"shortest_edge": 224},
        "do_center_crop": True,
    }
    return Tower(
        model="CLIPVisionModelWithProjection",
        config="CLIPVisionConfig",
        sizes={**sizes, **wide, "image_size": 224, "patch_size": patch},
        pooled="image_embeds",
        processor={"image_processor_type": "CLIPImageProcessor", **crop, "resample": 3, **CLIP_COLOURS},
    )


def dinov2(sizes: Mapping[str, Any], registers: int = 0) -> Tower:
    kind = "Dinov2WithRegisters" if registers else "Dinov2"
    crop = {
        "crop_size": {"height": 224, "width": 224},
        "size": {"shortest_edge": 256},
        "do_center_crop": True,
    }
    return Tower(
        model=f"{kind}Model",
        config=f"{kind}Config",
        sizes={
            **sizes,
            "image_size": 518,
            "patch_size": 14,
            **({"num_register_tokens": registers} if registers else {}),
        },
        processor={"image_processor_type": "BitImageProcessor", **crop, "resample": 3, **IMAGENET_COLOURS},
    )


def dinov3(sizes: Mapping[str, Any]) -> Tower:
    wide = {"intermediate_size": 4 * sizes["hidden_size"], "num_register_tokens": 4}
    return Tower(
        model="DINOv3ViTModel",
        config="DINOv3ViTConfig",
        sizes={**sizes, **wide, "image_size": 224, "patch_size": 16},
        processor={
            "image_processor_type": "DINOv3ViTImageProcessorFast",
            "size": {"height": 224, "width": 224},
            "resample": 2,
            **IMAGENET_COLOURS,
        },
    )


TOWERS = {
    "siglip2-base-patch16-256": siglip(BASE, 256),
    "clip-vit-base-patch16": clip(BASE, 16, 512),
    "dinov2-base": dinov2(BASE),
    "dinov2-with-registers-base": dinov2(BASE, registers=4),
    "dinov3-vitb16": dinov3(BASE),
    "siglip2-large-patch16-256": siglip(LARGE, 256),
    "clip-vit-large-patch14": clip(LARGE, 14, 768),
    "dinov2-large": dinov2(LARGE),
    "dinov3-vitl16": dinov3(LARGE),
}
DEFAULT = ("siglip2-base-patch16-256", "clip-vit-base-patch16", "dinov2-base", "dinov3-vitb16")


def write(tower: Tower, root: Path, *, tiny: bool) -> int:
    """Write a checkpoint with random weights; return how many there are."""
    torch.manual_seed(0)
    small = {key: value // 24 if key == "intermediate_size" else value for key, value in tower.sizes.items()}
    sizes = {**small, **TINY} if tiny else tower.sizes
    model = getattr(transformers, tower.model)(getattr(transformers, tower.config)(**sizes))
    with torch.no_grad():  # as they are first drawn, features hardly depend on the image
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.mul_(10 if "embed" in name else 2)
    model.save_pretrained(root)
    common = {"do_resize": True, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True}
    (root / "preprocessor_config.json").write_text(json.dumps({**common, **tower.processor}))
    return sum(parameter.numel() for parameter in model.parameters())


def frames(count: int) -> np.ndarray:
    """Return pictures with coarse and fine structure."""
    rng = np.random.default_rng(0)
    coarse = np.kron(rng.integers(0, 256, (count, 15, 20, 3)), np.ones((1, 16, 16, 1)))
    return np.clip(coarse + rng.normal(0, 20, coarse.shape), 0, 255).astype(np.uint8)


def through_vla(
    folder: Path, images: np.ndarray, device: str, rounds: int
) -> tuple[dict[str, Any], np.ndarray]:
    """Load and encode; alone in its process, and on a CPU on one core."""
    torch.set_num_threads(1)
    clock = time.process_time if device == "cpu" else time.perf_counter
    began = clock()
    config = ENCODERS.parse({"id": str(folder), "device": device})
    encoder = FrozenEncoder.load(config, ("top",))
    loaded = clock() - began
    found = encoder.encode({"top": images})["top"][:, 0].float().cpu().numpy()
    seconds = []
    for _ in range(rounds):
        began = clock()
        encoder.encode({"top": images})["top"].cpu()
        seconds.append(clock() - began)
    return {
        "encoder": config.type,
        "width": found.shape[1],
        "arithmetic": encoder.identity.dtype,
        "load_s": rounded(loaded, 3),
        "images_per_s": rounded(len(images) / min(seconds), 3),
        "memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }, found


def plain(tower: Tower, folder: Path, images: np.ndarray) -> torch.Tensor:
    """Return the pooled features of plain transformers, in float32 on the CPU."""
    pixels = transformers.AutoImageProcessor.from_pretrained(folder)(images=list(images), return_tensors="pt")
    model = getattr(transformers, tower.model).from_pretrained(folder).eval()
    with torch.inference_mode():
        feature: torch.Tensor = model(pixel_values=pixels["pixel_values"])[tower.pooled]
    return feature


def measured(name: str, device: str, images: np.ndarray, rounds: int, *, tiny: bool) -> dict[str, Any]:
    tower = TOWERS[name]
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        weights = write(tower, folder, tiny=tiny)
        with multiprocessing.get_context("spawn").Pool(1) as alone:
            figures, found = alone.apply(through_vla, (folder, images, device, rounds))
        expected = plain(tower, folder, images)
    cosine = torch.nn.functional.cosine_similarity
    return {
        **figures,
        "weights": f"random, {weights / 1e6:.0f} million",
        "cosine": round(float(cosine(torch.from_numpy(found), expected, dim=1).min()), 6),
        "between_images": round(float(cosine(expected[1:], expected[:-1], dim=1).max()), 3),
    }


def main() -> None:
    options = parser(__doc__, "encoders")
    options.add_argument("--names", nargs="+", choices=TOWERS, default=DEFAULT)
    options.add_argument("--images", type=int, default=8, help="a batch")
    options.add_argument("--rounds", type=int, default=3, help="the quickest counts")
    arguments = options.parse_args()
    transformers.logging.set_verbosity_error()
    images, figures = frames(2 if arguments.tiny else arguments.images), {}
    for name in arguments.names:
        figures[name] = measured(name, arguments.device, images, arguments.rounds, tiny=arguments.tiny)
        print(name, figures[name], flush=True)
        save(arguments, "encoders", {"batch": len(images), "towers": figures}, "a batch", whole=False)
    save(arguments, "encoders", {"batch": len(images), "towers": figures}, "a batch of a few images")


if __name__ == "__main__":
    main()
