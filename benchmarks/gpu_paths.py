"""The paths that `gpu_check` runs: each is built for a device and returns a call that gives its results.

On a CPU a path does the same without what only a GPU has: streams, page-locked memory, graphs, bfloat16.
"""

import copy
import functools
import importlib
import importlib.util
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from demonstrations import CAMERAS, SMALL, VECTORS, write_random_cache
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vla.base.compiling import Compile, compile_module
from vla.base.distributed import World
from vla.base.interrupt import Signals
from vla.base.threads import compute_threads
from vla.cache import FeatureCache
from vla.embed import FrozenEncoder, SiglipConfig
from vla.policy.agents.vla_agent import VLAAgent, VLAAgentConfig
from vla.policy.batch import Batch, Draws
from vla.policy.random import GivenNoise, RowRandom
from vla.policy.training.meter import Meter
from vla.policy.training.run import RunDirectory
from vla.policy.training.sampling import load_ahead
from vla.policy.training.train_config import TrainConfig
from vla.policy.training.trainer import Trainer
from vla.policy.windows import Windows

Results = Callable[[], list[Tensor]]
POLICY = VLAAgentConfig(per_view_dim=16, cond_dim=32, n_emb=64, n_layer=1, n_head=4)
ROWS, DIM = 16, 32
HALVING_MIB, HALVED = 100, 256
"""Memory that the encoder is left with; the pixels of so many images alone take twice that."""


class Skipped(Exception):
    """A path needs something that is not installed."""


@dataclass(frozen=True)
class Path_:
    """One path."""

    name: str
    run: Callable[[torch.device], Results]
    allowed: float
    """Largest difference from the CPU, as a share."""
    warm_ups: int = 1


@functools.cache
def _folder() -> Path:
    folder = tempfile.TemporaryDirectory()
    _kept.append(folder)
    return Path(folder.name)


_kept: list[tempfile.TemporaryDirectory[str]] = []


@functools.cache
def _cache() -> FeatureCache:
    return write_random_cache(_folder() / "cache", 400, DIM)


@functools.cache
def _frames(count: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (len(CAMERAS), count, 8, 8, 3), dtype=np.uint8)
    large = coarse.repeat(32, axis=2).repeat(32, axis=3)
    return dict(zip(CAMERAS, large, strict=True))


def _encoder(
    device: torch.device, dtype: str = "float32", compiling: Compile = "off", batch: int = 32
) -> FrozenEncoder:
    chosen = dtype if device.type == "cuda" else "float32"
    config = {"id": SMALL, "device": str(device), "dtype": chosen, "batch_size": batch}
    how: Compile = compiling if device.type == "cuda" else "off"
    return FrozenEncoder.load(SiglipConfig.model_validate({**config, "compile": how}), CAMERAS)


def streams_and_uploads(device: torch.device, dtype: str = "float32") -> Results:
    """Encode passes in two threads, each with a CUDA stream of its own and page-locked uploads."""
    encoder, views = _encoder(device, dtype), _frames(40)
    rows = {camera: range(40) for camera in CAMERAS}

    def run() -> list[Tensor]:
        out = {s.name: np.empty((40, *s.shape), np.float16) for s in encoder.writes}
        with compute_threads(encoder.device, 2) as pool:
            begun = [pool.submit(encoder.encode_into, views, part, out) for part in encoder.passes(rows)]
            for encoded in begun:
                encoded.result()
        return [torch.from_numpy(out[name]) for name in CAMERAS]

    return run


def encoder_compiled(device: torch.device, compiling: Compile) -> Results:
    """Encode three views as a robot sees them."""
    encoder, views = _encoder(device, "bfloat16", compiling), _frames(2)
    return lambda: list(encoder.encode(views).values())


def halving(device: torch.device) -> Results:
    """Let a pass be too large for what memory is left."""
    views = _frames(86)
    if device.type == "cpu":
        encoder = _encoder(device, batch=32)
        return lambda: list(encoder.encode(views).values())
    encoder = _encoder(device, batch=HALVED)

    def run() -> list[Tensor]:
        torch.cuda.empty_cache()
        total = torch.cuda.mem_get_info(device)[1]
        left = torch.cuda.memory_reserved(device) + (HALVING_MIB << 20)
        torch.cuda.set_per_process_memory_fraction(left / total, device)
        try:
            features = list(encoder.encode(views).values())
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0, device)
        if encoder.batch_size == HALVED:
            raise RuntimeError("there was memory enough: nothing was halved")
        return features

    return run


def float8(device: torch.device) -> Results:
    """Encode with the products of the tower in float8, as torchao makes them."""
    encoder, views = _encoder(device, "bfloat16"), _frames(40)
    if importlib.util.find_spec("torchao") is None:
        raise Skipped("torchao is not installed")
    if device.type == "cuda":
        torchao = importlib.import_module("torchao.quantization")
        by_row = torchao.Float8DynamicActivationFloat8WeightConfig(granularity=torchao.PerRow())
        torchao.quantize_(encoder.encoder, by_row, filter_fn=_is_product)
    return lambda: list(encoder.encode(views).values())


def _is_product(module: nn.Module, name: str) -> bool:
    return isinstance(module, nn.Linear) and "layers" in name


@functools.cache
def _agent() -> VLAAgent:
    torch.manual_seed(0)
    agent = VLAAgent.for_cache(POLICY, _cache().metadata)
    for name, parameter in agent.named_parameters():
        if "outputs" in name:  # zero at first, which would hide the derivative
            nn.init.normal_(parameter, std=0.1)
    return agent


@functools.cache
def _batch() -> tuple[Batch, Draws]:
    agent, cpu = _agent(), torch.device("cpu")
    windows = Windows(_cache(), agent.horizons, agent.observes, device=cpu, resident=True)
    batch = windows.batch(torch.arange(0, 20 * ROWS, 20))
    return batch, agent.draw(batch, RowRandom(torch.Generator().manual_seed(1)))


def _moved(batch: Batch, device: torch.device) -> Batch:
    return Batch(
        observation={name: tensor.to(device) for name, tensor in batch.observation.items()},
        action=batch.action.to(device),
        action_is_pad=batch.action_is_pad.to(device),
    )


def loss(
    device: torch.device, *, autocast: bool = False, compiling: Compile = "off", shared: bool = False
) -> Results:
    """Compute a training loss with its gradient; `shared` through DistributedDataParallel of one rank."""
    gpu = device.type == "cuda"
    agent = copy.deepcopy(_agent()).to(device).train()
    batch, draws = _batch()
    batch, draws = _moved(batch, device), {name: tensor.to(device) for name, tensor in draws.items()}
    compile_module(agent, compiling if gpu else "off")

    def run() -> list[Tensor]:
        with _one_rank(shared and gpu):
            model = DistributedDataParallel(agent, broadcast_buffers=False) if shared and gpu else agent
            for _ in range(3 if gpu and compiling == "graphs" else 1):  # recorded in the second
                agent.zero_grad(set_to_none=True)
                with torch.autocast(device.type, torch.bfloat16, enabled=gpu and autocast):
                    value, _figures = model(batch, draws)
                value.backward()
            gradients = [p.grad.clone() for p in agent.parameters() if p.grad is not None]
            return [value.detach().clone(), *gradients]

    return run


@contextmanager
def _one_rank(wanted: bool) -> Iterator[None]:
    if not wanted:
        yield
        return
    store = torch.distributed.HashStore()  # type: ignore[attr-defined]
    torch.distributed.init_process_group("nccl", store=store, rank=0, world_size=1)
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()


def updates(device: torch.device, compiling: Compile) -> Results:
    """Train a few updates as `vla train` does: losses fall whatever the device's random numbers."""
    how = compiling if device.type == "cuda" else "off"
    config = TrainConfig.model_validate(
        {
            "device": str(device),
            "batch_size": ROWS,
            "rollout_every": 0,
            "val_episodes": 0,
            "compile": how,
            "steps": 1000,
            "lr": 1e-3,
        }
    )
    run = RunDirectory(_folder() / f"run-{device.type}-{how}")
    trainer = Trainer(run, _cache(), POLICY, config, None, World(), Signals())

    def train() -> list[Tensor]:
        meter = Meter(ROWS, World())
        for _ in range(20):
            trainer.step(meter)
        return [torch.tensor([meter.read(trainer.state.step)["loss"]])]

    return train


def windows(device: torch.device, resident: bool) -> Results:
    """Cut batches from a cache in memory, or from disk by a thread with a stream of its own."""
    agent = _agent()
    cut = Windows(_cache(), agent.horizons, agent.observes, device=device, resident=resident)

    def run() -> list[Tensor]:
        numbers = [torch.arange(k, 20 * ROWS, 20, device=device) for k in range(5)]
        batches = (cut.batch(current) for current in numbers)
        return [t.float() for b in load_ahead(batches, device) for t in b.tensors()]

    return run


def decisions(device: torch.device, compiling: Compile) -> Results:
    """Sample chunks for two robots, one after the other."""
    agent = copy.deepcopy(_agent()).to(device).eval()
    for network in agent.networks():
        compile_module(network, compiling if device.type == "cuda" else "off")
    batch, _ = _batch()
    seen = {name: tensor[:2].to(device) for name, tensor in batch.observation.items()}
    noise = torch.randn(2, 16, VECTORS[1].channels, generator=torch.Generator().manual_seed(2))

    @torch.inference_mode()
    def run() -> list[Tensor]:
        return [agent.act(seen, None, GivenNoise(noise.to(device)), steps)[0].clone() for steps in (1, 2)]

    return run


F32, BF16 = 2e-3, 5e-2
# What a user meets first comes first: the last ones may be left out for want of time.
PATHS: tuple[Path_, ...] = (
    Path_("encoder: streams, page-locked uploads", streams_and_uploads, F32),
    Path_("encoder: the same in bfloat16", functools.partial(streams_and_uploads, dtype="bfloat16"), BF16),
    Path_("encoder: halving on out of memory", halving, F32, warm_ups=0),
    Path_("encoder: float8", float8, 0.1),
    Path_("cache in memory", functools.partial(windows, resident=True), 0.0),
    Path_("cache on disk, a stream of its own", functools.partial(windows, resident=False), 0.0),
    Path_("loss and gradient, float32", loss, F32),
    Path_("loss and gradient, autocast", functools.partial(loss, autocast=True), BF16),
    Path_("loss, one rank", functools.partial(loss, autocast=True, shared=True), BF16),
    Path_("decisions", functools.partial(decisions, compiling="off"), F32),
    Path_("20 updates", functools.partial(updates, compiling="off"), 0.3),
    Path_("20 updates, graphs", functools.partial(updates, compiling="graphs"), 0.3),
    Path_("decisions, graphs", functools.partial(decisions, compiling="graphs"), F32, 3),
    Path_(
        "loss, graphs, one rank",
        functools.partial(loss, autocast=True, compiling="graphs", shared=True),
        BF16,
    ),
    Path_("encoder: graphs", functools.partial(encoder_compiled, compiling="graphs"), BF16, 3),
)
