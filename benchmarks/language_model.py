"""What does it cost to train a language model as fusion: frozen, with adapters, or whole?

    python benchmarks/language_model.py                   # a small one, on a CPU
    python benchmarks/language_model.py --device cuda     # of the sizes of Qwen2.5-0.5B

The weights are random: time and memory do not depend on them. Policy, cache and head are the same for all;
three views of 16 tokens, 2 observations, 8 queries. The variants take turns.

trained       parameters that an optimiser step changes, those of projections and head among them
checkpoint    both sets of weights that a checkpoint holds, averaged and raw, and the optimiser's state
memory        weights, their moving average, gradients and optimiser state, and what the loss keeps for its
              gradient: counted tensor by tensor, without what the library takes besides
step          an update on a batch from memory; on a CPU its processor time, which other work does not change
"""

import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from demonstrations import write_random_cache
from fake_language_model import write_byte_pairs
from measure import paired_ratio, parser, rounded, save, synchronise, take_turns
from torch import Tensor
from transformers import Qwen2Config, Qwen2Model

from vla.base.distributed import World
from vla.base.interrupt import Signals
from vla.cache import FeatureCache
from vla.policy.agents.vla_agent import VLAAgentConfig
from vla.policy.training.meter import Meter
from vla.policy.training.run import RunDirectory
from vla.policy.training.train_config import TrainConfig
from vla.policy.training.trainer import Trainer

FULL = {
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "vocab_size": 151_936,
}
SMALL = {
    "hidden_size": 256,
    "intermediate_size": 1392,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "vocab_size": 2048,
}
TINY = {**SMALL, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "vocab_size": 280}
VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "frozen": ({"tune": "frozen"}, {}),
    "frozen, recomputed": ({"tune": "frozen"}, {"gradient_checkpointing": True}),
    "LoRA, r = 16": ({"tune": "lora"}, {}),
    "LoRA, recomputed": ({"tune": "lora"}, {"gradient_checkpointing": True}),
    "full": ({"tune": "full", "lr_scale": 0.03}, {}),
}
"""Settings of the fusion, and of the training."""
REDUCED = "6 layers of 256 instead of 24 of 896, 2,048 words instead of 151,936; head of 2 layers"
INSTRUCTION = "Pick the red box, and hand it over."
"""Episodes of the random cache have no text of their own."""
MIB = 1 << 20


def trainer_for(
    variant: str,
    model: Path,
    cache: FeatureCache,
    folder: Path,
    device: torch.device,
    batch: int,
    layers: int,
) -> Trainer:
    """Build a training run that is stepped from here."""
    fusion, training = VARIANTS[variant]
    reads = {"type": "language_model", "model": str(model), "prompt": INSTRUCTION + "{task}"}
    policy = VLAAgentConfig.model_validate(
        {"n_layer": layers, "fusion": {**reads, **fusion}}
        | {"trunks": dict.fromkeys(cache.metadata.encoded, "linear")}
    )
    values = {"batch_size": batch, "device": str(device), "rollout_every": 0, "steps": 1000, "compile": "off"}
    config = TrainConfig.model_validate({**values, "val_episodes": 1, **training})
    return Trainer(RunDirectory(folder / variant), cache, policy, config, None, World(), Signals())


def size_of(tensors: Iterable[Tensor]) -> int:
    """Return the bytes of tensors, those that share memory once."""
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())


def memory_of(trainer: Trainer, meter: Meter) -> dict[str, float]:
    """Make an update and count what is held where its gradient is complete, and what the loss kept for it."""
    state, kept = trainer.state, dict[int, int]()

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        trainer.step(meter)
    weights = [*state.policy.parameters(), *state.ema_policy.parameters()]
    held = {tensor.untyped_storage().data_ptr() for tensor in weights}
    trained = [p for p in state.policy.parameters() if p.requires_grad]
    moments = [value for p in trained for value in state.optimizer.state[p].values()]
    activations = sum(size for place, size in kept.items() if place not in held)
    parts = {"weights": size_of(weights), "activations": activations}
    parts |= {
        "gradients": size_of(p.grad for p in trained if p.grad is not None),
        "moments": size_of(moments),
    }
    saved = sum(tensor.nbytes for tensor in state.policy.saved_state().values())
    return {
        "trained_millions": rounded(sum(p.numel() for p in trained) / 1e6),
        "checkpoint_mib": rounded((2 * saved + size_of(moments)) / MIB),
        "memory_mib": rounded(sum(parts.values()) / MIB),
        **{f"{name}_mib": rounded(size / MIB) for name, size in parts.items()},
    }


def main() -> None:
    options = parser(__doc__, "language_model")
    options.add_argument("--rounds", type=int, default=3)
    arguments = options.parse_args()
    device = torch.device(arguments.device)
    full = device.type == "cuda"
    clock = time.perf_counter if full else time.process_time
    sizes, batch, layers = (FULL, 64, 12) if full else (SMALL, 4, 2)
    if arguments.tiny:
        sizes, batch, layers = TINY, 2, 1
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.manual_seed(0)
        model = Qwen2Model(Qwen2Config(**sizes))
        model.save_pretrained(folder / "model")
        millions = rounded(sum(p.numel() for p in model.parameters()) / 1e6)
        write_byte_pairs(folder / "model")
        cache = write_random_cache(folder / "cache", 800, 64 if arguments.tiny else 768, tokens=16)
        figures: dict[str, Any] = {}
        updates: dict[str, Callable[[], float]] = {}
        for variant in VARIANTS:
            trainer = trainer_for(variant, folder / "model", cache, folder, device, batch, layers)
            meter = Meter(batch, World())
            figures[variant] = memory_of(trainer, meter)
            print(variant, figures[variant], flush=True)

            def update(trainer: Trainer = trainer, meter: Meter = meter) -> float:
                began = clock()
                trainer.step(meter)
                synchronise(device)
                return clock() - began

            updates[variant] = update
        seconds = take_turns(updates, 1 if arguments.tiny else arguments.rounds)
    for variant, taken in seconds.items():
        figures[variant]["step_s"] = rounded(median(taken))
        figures[variant]["step_over_frozen"] = rounded(paired_ratio(taken, seconds["frozen"]))
    head = {"batch_size": batch, "model_millions": millions, "sequence": 2 * (3 * 16 + 1 + 8)}
    save(arguments, "language_model", {**head, "variants": figures}, REDUCED)


if __name__ == "__main__":
    main()
