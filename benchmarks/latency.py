"""How long does one decision take, part by part, and what does one-step sampling save?

    python benchmarks/latency.py                 # on a CPU at reduced size, in at most 10 minutes
    python benchmarks/latency.py --device cuda   # at full size

decision     three views of 480 x 640 -> 256 x 256 -> features -> 16 actions, for 1 robot and for 16:
             render, preprocess (resize, upload, normalise), encode, head; medians, by themselves
heads        the same network, 12 layers of 384: one step of improved MeanFlow against 10 and 100 steps
             of DDIM and 100 of DDPM

A decision encodes the newest observation; `vla rollout`, which executes 8 actions before it looks again,
encodes both of its 2 observations.
"""

from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import numpy as np
import torch
from demonstrations import (
    CAMERAS,
    FULL,
    SMALL,
    VECTORS,
    features,
    load_encoder,
    siglip,
    untrained_agent,
    untrained_identity,
)
from measure import parser, rounded, save, synchronise, take_turns

from vla.base.compiling import Compile, compile_module
from vla.embed import FrozenEncoder
from vla.embed.transforms import normalise, resize
from vla.policy.agents.vla_agent import VLAAgentConfig
from vla.policy.heads.ddpm import DdpmConfig
from vla.policy.heads.head import HeadConfig
from vla.policy.heads.imf import ImfConfig
from vla.rollout.worlds.sim_transfer.env import SimTransferEnv

REDUCED = "few repetitions; the full-size encoder on a CPU; no torch.compile and no CUDA graphs"
SAMPLERS: tuple[tuple[str, HeadConfig, int], ...] = (
    ("imf, 1 step", ImfConfig(), 1),
    ("ddim, 10 steps", DdpmConfig(), 10),
    ("ddim, 100 steps", DdpmConfig(), 100),
    ("ddpm, 100 steps", DdpmConfig(eta=1.0), 100),
)


def main() -> None:
    arguments = parser(__doc__, "latency").parse_args()
    device, gpu = torch.device(arguments.device), arguments.device == "cuda"
    repeats = 2 if arguments.tiny else 200 if gpu else 5
    policy = VLAAgentConfig(n_emb=16, n_layer=1, n_head=2) if arguments.tiny else VLAAgentConfig()
    figures: dict[str, Any] = {}
    compilings: tuple[Compile, ...] = ("off", "graphs") if gpu else ("off",)
    with torch.inference_mode():
        render_ms = render(repeats)
        for robots in (1, 16):
            figures[f"{robots} robots" if robots > 1 else "1 robot"] = {
                "render_ms": rounded(robots * render_ms),
                **{
                    f"{name}, {how(compiling)}": encoder_parts(
                        load_encoder(SMALL if arguments.tiny else name, device, compiling), robots, repeats
                    )
                    for name in (FULL, SMALL)
                    for compiling in compilings
                },
                **{
                    f"head, {how(compiling)}": heads(policy, device, robots, min(repeats, 20), compiling)
                    for compiling in compilings
                },
            }
            save(arguments, "latency", figures, REDUCED, whole=False)
            torch.compiler.reset()
    save(arguments, "latency", figures, REDUCED)


def how(compiling: Compile) -> str:
    return "eager" if compiling == "off" else compiling


def render(repeats: int) -> float:
    """Return milliseconds of rendering three views for one robot."""
    env = SimTransferEnv()
    env.reset(seed=0)
    seconds = take_turns({"render": lambda: _ignore(env.observe())}, max(5, repeats // 10))
    env.close()
    return 1000 * median(seconds["render"])


def _ignore(value: object) -> None:
    del value


def encoder_parts(encoder: FrozenEncoder, robots: int, repeats: int) -> dict[str, float]:
    """Return milliseconds of preprocessing and of encoding three views a robot."""
    rng = np.random.default_rng(0)
    frames = {camera: rng.integers(0, 256, (robots, 480, 640, 3), dtype=np.uint8) for camera in CAMERAS}
    tower, spec, device = siglip(encoder).tower, siglip(encoder).preprocessing, encoder.device
    dtype = next(tower.parameters()).dtype

    def resized_views(views: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {camera: resize(view, encoder.eval_image_resize_shape) for camera, view in views.items()}

    def preprocess() -> None:
        upload(resized_views(frames))
        synchronise(device)

    def upload(views: Mapping[str, np.ndarray]) -> None:
        batches = [torch.from_numpy(view) for view in views.values()]
        if device.type == "cuda":  # as the encoder does
            batches = [batch.pin_memory().to(device, non_blocking=True) for batch in batches]
        normalise(torch.cat(batches), spec).to(dtype)

    resized = resized_views(frames)

    def all_but_resizing() -> None:
        encoder.encode(resized)
        synchronise(device)

    def normalising() -> None:
        upload(resized)
        synchronise(device)

    seconds = take_turns(
        {"preprocess": preprocess, "all_but_resizing": all_but_resizing, "normalising": normalising}, repeats
    )
    encode = [a - b for a, b in zip(seconds["all_but_resizing"], seconds["normalising"], strict=True)]
    return {
        "preprocess_ms": rounded(1000 * median(seconds["preprocess"])),
        "encode_ms": rounded(1000 * median(encode)),
    }


def heads(
    policy: VLAAgentConfig, device: torch.device, robots: int, repeats: int, compiling: Compile
) -> dict[str, float]:
    """Return milliseconds from features to actions in the host's memory, for each sampler."""
    identity = untrained_identity()
    observation = {
        stream.name: torch.zeros(robots, policy.obs_horizon, *stream.shape, device=device)
        for stream in (*features(identity), VECTORS[0])
    }

    def sampler(head: HeadConfig, steps: int) -> Callable[[], None]:
        agent = untrained_agent(policy.model_copy(update={"head": head}), identity).to(device).eval()
        for network in agent.networks():
            compile_module(network, compiling)

        def sample() -> None:
            agent.predict_action_chunk(observation, steps).float().cpu()

        return sample

    variants = {name: sampler(head, steps) for name, head, steps in SAMPLERS}
    seconds = take_turns(variants, repeats)
    milliseconds = {f"{name}, ms": rounded(1000 * median(values)) for name, values in seconds.items()}
    one, *others = (median(values) for values in seconds.values())
    names = list(seconds)[1:]
    return milliseconds | {
        f"{name}, times as long": rounded(other / one) for name, other in zip(names, others, strict=True)
    }


if __name__ == "__main__":
    main()
