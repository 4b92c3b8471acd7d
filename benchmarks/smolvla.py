"""A training step of SmolVLA from the cache, and LeRobot's own on images: the same batch, sizes and weights.

    make interop    # makes .venv-interop, which has LeRobot
    export PYTHONPATH=tests/interop
    .venv-interop/bin/python benchmarks/smolvla.py
    .venv-interop/bin/python benchmarks/smolvla.py --device cuda --batch 64 --cameras 3

The network has the sizes of lerobot/smolvla_base (SmolVLM2-500M, 16 layers) and random weights: no download.
LeRobot's class gets images of 512 x 512 that are in memory and need no resizing: its reading, decoding and
resizing of every step are not timed. Both compute in float32 on a CPU, in bfloat16 autocast on a GPU. Loss,
gradient, clipping and AdamW are in the time of both.

samples_per_s            of the wall clock
samples_per_cpu_s        of processor time, all threads: what other work on the machine hardly changes
loss_difference          of the first batch, same noise and times
"""

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from measure import paired_ratio, parser, rounded, save, synchronise, take_turns
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
os.environ["HF_HUB_OFFLINE"] = "1"
TEXT = "Pick up the red box and hand it over."
VISION = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
LANGUAGE = {
    "model_type": "llama",
    "hidden_size": 960,
    "intermediate_size": 2560,
    "num_attention_heads": 15,
    "num_key_value_heads": 5,
    "head_dim": 64,
    "num_hidden_layers": 16,
    "vocab_size": 49280,
    "rms_norm_eps": 1e-5,
    "pad_token_id": 2,
}
STATE, ACTIONS, CHUNK = 6, 6, 50


def write_policy(root: Path, cameras: list[str], *, tiny: bool) -> Any:
    """Let LeRobot build its policy with random weights and save it; return it."""
    import lerobot_import  # noqa: F401
    from fake_smolvla import TEXT as SMALL_LANGUAGE
    from fake_smolvla import VISION as SMALL_VISION
    from fake_smolvla import write_smolvlm
    from lerobot.configs import FeatureType, PolicyFeature
    from lerobot.policies.smolvla.configuration_smolvla import SmolVLAConfig
    from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy

    side = SMALL_VISION["image_size"] if tiny else 512
    vision = SMALL_VISION if tiny else {**VISION, "image_size": 512, "patch_size": 16}
    vlm = write_smolvlm(root / "vlm", vision, SMALL_LANGUAGE if tiny else LANGUAGE, 2 if tiny else 4)
    images = {f"observation.images.{c}": PolicyFeature(FeatureType.VISUAL, (3, side, side)) for c in cameras}
    config = SmolVLAConfig(
        input_features={"observation.state": PolicyFeature(FeatureType.STATE, (STATE,)), **images},
        output_features={"action": PolicyFeature(FeatureType.ACTION, (ACTIONS,))},
        vlm_model_name=str(vlm),
        num_vlm_layers=4 if tiny else 16,
        resize_imgs_with_padding=(side, side),
        device="cpu",
    )
    torch.manual_seed(0)
    policy = SmolVLAPolicy(config)
    policy.save_pretrained(root / "smolvla")
    return policy


def ours(root: Path, cameras: list[str]) -> tuple[Any, Any]:
    """Return vla's policy of the same weights, and its encoder."""
    from vla.cache import DatasetIdentity, Stream
    from vla.embed.text_encoders.text_encoder_family import of_encoder
    from vla.policy.pretrained.smolvla import SmolVLA, SmolVLAConfig
    from vla.policy.saved_policy import SavedPolicy, TrainingData
    from vla.rollout.encoders.smolvla import SmolVLAEncoderConfig

    config = SmolVLAEncoderConfig(id=str(root / "smolvla"))
    encoder = config.build(tuple(cameras), torch.device("cpu"))
    dataset = DatasetIdentity(path="", format="lerobot-v3.0", content_sha256="0" * 64, fps=30, keys={})
    vectors = [
        Stream(name=name, kind="vector", dtype="float32", shape=(size,), key=name)
        for name, size in (("state", STATE), ("action", ACTIONS))
    ]
    saved = SavedPolicy(
        policy=SmolVLAConfig(path=str(root / "smolvla"), pred_horizon=CHUNK),
        streams=(*encoder.writes, vectors[0]),
        action=vectors[1],
        fps=30,
        encoders={encoder.identity.digest: encoder.identity},
        cache_fingerprint="",
        data=(TrainingData(dataset=dataset, num_episodes=1, num_frames=1, tasks=(TEXT,)),),
        text_encoder=of_encoder(config).load().identity,
    )
    policy = saved.policy.build(saved)
    assert isinstance(policy, SmolVLA)
    policy.tokens.copy_(torch.from_numpy(of_encoder(config).load().encode([TEXT])))
    policy.load_saved(policy.saved_state())
    return policy.train(), encoder


def train_step(
    loss_of: Callable[[], Tensor], optimizer: torch.optim.Optimizer, device: torch.device
) -> Callable[[], float]:
    """Return what makes one update and answers with its processor time [s]."""
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]

    def step() -> float:
        began = time.process_time()
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            loss = loss_of()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 10.0, foreach=True)
        optimizer.step()
        synchronise(device)
        return time.process_time() - began

    return step


def main() -> None:
    options = parser(__doc__, "smolvla")
    options.add_argument("--batch", type=int, default=2)
    options.add_argument("--cameras", type=int, default=1)
    options.add_argument("--rounds", type=int, default=5)
    arguments = options.parse_args()
    device, batch = torch.device(arguments.device), arguments.batch
    cameras = [f"camera{number + 1}" for number in range(arguments.cameras)]
    root = Path(tempfile.mkdtemp())
    try:
        figures = measured(root, cameras, batch, device, arguments)
    finally:
        shutil.rmtree(root)
    views = f"{len(cameras)} camera{'s' * (len(cameras) > 1)}"
    reduced = f"batches of {batch} with {views}, the network at full size"
    save(arguments, "smolvla", figures, reduced)


def measured(
    root: Path, cameras: list[str], batch: int, device: torch.device, arguments: Any
) -> dict[str, Any]:
    """Time both, in turns."""
    from vla.policy.batch import Batch
    from vla.policy.training.optimizer import build_optimizer
    from vla.policy.training.train_config import TrainConfig

    theirs = write_policy(root, cameras, tiny=arguments.tiny)
    policy, encoder = ours(root, cameras)
    side = encoder.image_size[0]
    random = torch.Generator().manual_seed(0)
    frames = {
        camera: torch.randint(0, 256, (batch, side, side, 3), generator=random, dtype=torch.uint8)
        for camera in cameras
    }
    began = time.process_time()
    with torch.inference_mode():
        features = {camera: encoder.encode_view(view) for camera, view in frames.items()}
    encoding = (time.process_time() - began) / (batch * len(cameras))
    state, actions = (
        torch.randn(batch, STATE, generator=random),
        torch.randn(batch, CHUNK, ACTIONS, generator=random),
    )
    words = policy.tokens.expand(batch, -1)
    used = int((words[0] >= 0).sum())
    drawn = {
        "noise": torch.randn(batch, CHUNK, policy.files.settings.max_action_dim, generator=random),
        "time": torch.rand(batch, generator=random),
    }
    images = {
        f"observation.images.{camera}": (view.permute(0, 3, 1, 2) / 255).to(device)
        for camera, view in frames.items()
    }
    on_images = {
        **images,
        "observation.state": state.to(device),
        "action": actions.to(device),
        "observation.language.tokens": words[:, :used].long().to(device),
        "observation.language.attention_mask": torch.ones(batch, used, dtype=torch.bool, device=device),
    }
    from_cache = Batch(
        observation={
            **{camera: view.clone()[:, None].to(device) for camera, view in features.items()},
            "state": state[:, None].to(device),
            "task": words[:, None].to(device),
        },
        action=actions.to(device),
        action_is_pad=torch.zeros(batch, CHUNK, dtype=torch.bool, device=device),
    )
    drawn = {name: tensor.to(device) for name, tensor in drawn.items()}
    theirs, policy = theirs.to(device).train(), policy.to(device)

    def loss_theirs() -> Tensor:
        loss: Tensor = theirs.forward(dict(on_images), drawn["noise"], drawn["time"])[0]
        return loss

    def loss_ours() -> Tensor:
        loss: Tensor = policy.loss(from_cache, drawn)[0]
        return loss

    with torch.no_grad():
        first = {"lerobot": float(loss_theirs()), "vla": float(loss_ours())}
    trained = [p for p in theirs.parameters() if p.requires_grad]
    preset = theirs.config.get_optimizer_preset()
    steps = {
        "lerobot": train_step(loss_theirs, preset.build(trained), device),
        "vla": train_step(
            loss_ours, build_optimizer(policy, TrainConfig(lr=1e-4, weight_decay=1e-10)), device
        ),
    }
    seconds: dict[str, list[float]] = {name: [] for name in steps}

    def timed(name: str) -> Callable[[], None]:
        return lambda: seconds[name].append(steps[name]())

    clocks = take_turns({name: timed(name) for name in steps}, arguments.rounds)
    of_processor = {name: values[1:] for name, values in seconds.items()}  # the first one warmed up
    return {
        "batch_size": batch,
        "cameras": len(cameras),
        "threads": torch.get_num_threads(),
        "trained_parameters": sum(p.numel() for p in trained),
        "loss_difference": rounded(abs(first["lerobot"] - first["vla"])),
        "loss": rounded(first["lerobot"]),
        "samples_per_s": {name: rounded(batch / median(values)) for name, values in clocks.items()},
        "samples_per_cpu_s": {name: rounded(batch / median(values)) for name, values in of_processor.items()},
        "factor": rounded(paired_ratio(clocks["lerobot"], clocks["vla"])),
        "factor_cpu": rounded(paired_ratio(of_processor["lerobot"], of_processor["vla"])),
        "encode_cpu_s_per_image": rounded(encoding),
        "bytes_per_frame_and_camera": features[cameras[0]][0].numel() * 2,
    }


if __name__ == "__main__":
    main()
