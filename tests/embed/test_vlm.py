"""A vision-language model as encoder: its hidden states are transformers' own, and policies train on them."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_datasets import write_dataset
from fake_env import ENV_ID
from fake_language_model import write_language_model
from fake_vlm import IMAGE, WRITERS, write_vlm
from pydantic import ValidationError
from torch import Tensor
from transformers import AutoModel, Qwen2VLImageProcessor

from vla.base.errors import EncoderError
from vla.embed.encoders.encoder_family import ENCODERS, encoder_config
from vla.embed.encoders.vlm import VlmConfig, VlmEncoder

CPU = torch.device("cpu")
CAMERAS = ("top", "wrist")
MEAN, STD = [0.5] * 3, [0.4] * 3


def made(folder: Path, **changes: Any) -> VlmEncoder:
    kind = {"image_size": 32} if "qwen" in folder.name else {}
    return VlmConfig.model_validate({"id": str(folder), "layer": 2, **kind, **changes}).build(CAMERAS, CPU)


def seen(encoder: VlmEncoder, count: int = 2) -> dict[str, Tensor]:
    rng = np.random.default_rng(0)
    size = (count, *encoder.image_size, 3)
    return {camera: torch.from_numpy(rng.integers(0, 256, size, np.uint8)) for camera in CAMERAS}


def by_transformers(folder: Path, encoder: VlmEncoder, frames: dict[str, Tensor]) -> Tensor:
    """Return the hidden states after the second layer of the whole model, with nothing of ours in between."""
    model, ids = AutoModel.from_pretrained(folder).eval(), encoder.ids.expand(2, -1)
    views = torch.stack([frames[camera] for camera in CAMERAS], dim=1)
    pixels = ((views.permute(0, 1, 4, 2, 3) / 255 - torch.tensor(MEAN)[:, None, None]) / STD[0]).contiguous()
    inputs: dict[str, Any] = {"pixel_values": pixels}
    if "paligemma" in folder.name:
        inputs = {"pixel_values": pixels.flatten(0, 1), "token_type_ids": torch.zeros_like(ids)}
    elif "qwen" in folder.name:
        sizes = {"patch_size": 8, "merge_size": 2, "temporal_patch_size": 2, "do_resize": False}
        processor = Qwen2VLImageProcessor(**sizes, image_mean=MEAN, image_std=STD)
        inputs = dict(processor(list(views.flatten(0, 1).numpy()), return_tensors="pt"))
        if "mm_token_type_ids" in inspect.signature(model.forward).parameters:  # not in transformers 4
            inputs["mm_token_type_ids"] = (ids == IMAGE).int()
    with torch.no_grad():
        found = model(input_ids=ids, attention_mask=torch.ones_like(ids), output_hidden_states=True, **inputs)
    return found.hidden_states[2]


@pytest.mark.parametrize("kind", WRITERS)
def test_tokens_are_the_hidden_states_of_the_layer_each_over_its_size(kind: str, tmp_path: Path) -> None:
    folder = write_vlm(tmp_path / kind, kind)
    encoder = made(folder)
    frames = seen(encoder)
    found = encoder.encode(frames)["vlm"]
    places = (encoder.ids == IMAGE).nonzero().flatten().tolist()
    assert len(places) == 8
    kept = [*places, *range(places[-1] + 1, len(encoder.ids))]
    due = by_transformers(folder, encoder, frames)[:, kept]
    due = due / due.square().mean(-1, keepdim=True).sqrt()
    assert found.shape == (2, *encoder.writes[0].shape) and found.dtype is torch.float16
    torch.testing.assert_close(found.float(), due, atol=5e-3, rtol=0)


def test_the_prompts_tokens_see_all_cameras_and_those_of_a_camera_the_ones_before(tmp_path: Path) -> None:
    encoder = made(write_vlm(tmp_path / "smolvlm"))
    frames = seen(encoder, 1)
    before = encoder.encode(frames)["vlm"]
    for camera, changed in (("top", [True, True, True]), ("wrist", [False, True, True])):
        moved = (encoder.encode({**frames, camera: 255 - frames[camera]})["vlm"] != before).any(-1)[0]
        assert [bool(part.all()) for part in (moved[:4], moved[4:8], moved[8:])] == changed
    assert not torch.equal(
        made(tmp_path / "smolvlm", prompt="Stop.").encode(frames)["vlm"][:, -1], before[:, -1]
    )


def test_image_tokens_can_be_pooled_and_all_layers_kept(tmp_path: Path) -> None:
    folder = write_vlm(tmp_path / "smolvlm")
    whole, pooled = made(folder), made(folder, pool="mean")
    assert whole.writes[0].shape[0] - pooled.writes[0].shape[0] == 2 * 3
    assert len(made(folder, layer=0).model.text_model.layers) == 2
    last = made(folder, layer=4)
    assert len(last.model.text_model.layers) == 4 and "RMSNorm" in type(last.model.text_model.norm).__name__


def test_an_identity_leads_back_to_the_same_encoder(tmp_path: Path) -> None:
    folder = write_vlm(tmp_path / "smolvlm")
    assert ENCODERS.parse(str(folder)).type == "vlm"
    assert ENCODERS.parse("HuggingFaceTB/SmolVLM2-500M-Video-Instruct").type == "vlm"
    encoder = made(folder, pool="mean", prompt="Go.")
    again = encoder_config(encoder.identity).build(CAMERAS, CPU)
    assert again.identity == encoder.identity
    others = [made(folder, layer=1), made(write_vlm(tmp_path / "other", seed=1))]
    assert len({e.identity.digest for e in (encoder, *others)}) == 3
    (folder / "tokenizer.json").unlink()
    with pytest.raises(EncoderError, match="has no tokeniser"):
        made(folder)


def test_what_does_not_fit_is_refused_in_one_line(tmp_path: Path) -> None:
    smol, qwen = write_vlm(tmp_path / "smolvlm"), write_vlm(tmp_path / "qwen2_vl", "qwen2_vl")
    words = write_language_model(tmp_path / "words")
    cases: list[tuple[Path, dict[str, Any], str]] = [
        (smol, {"layer": 9}, "has 4 layers, and encoder.layer is 9"),
        (smol, {"image_size": 32}, "takes no images of 32 x 32; set encoder.image_size to its own, 64"),
        (smol, {"pool": "grid3"}, "grid3 has more cells along an edge than the 2 x 2 patches"),
        (qwen, {"image_size": 40}, "takes no images of 40 x 40; set encoder.image_size to a multiple of 16"),
        (words, {}, "is a checkpoint of qwen2; encoder 'vlm' reads smolvlm, idefics3, paligemma"),
    ]
    for folder, changes, said in cases:
        with pytest.raises(EncoderError, match=said) as caught:
            made(folder, **changes)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValidationError, match="a VLM has no feature of the whole image"):
        made(smol, pool="pooled")


@pytest.mark.slow
def test_a_policy_of_groots_kind_is_trained_on_the_cache_and_drives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vla: Callable[..., dict[str, Any]]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_dataset(tmp_path / "demos", (6, 5), (32, 32))
    write_vlm(tmp_path / "smolvlm")
    vla("embed", "--dataset", "demos", "--encoder", "smolvlm", "--pool", "mean", "--out", "features")
    sizes = {"per_view_dim": 4, "cond_dim": 8, "n_emb": 16, "n_layer": 1, "n_head": 2}
    policy = {**sizes, "fusion": "tokens", "trunks.vlm": "linear"}
    sets = [f"--set=policy.{key}={value}" for key, value in policy.items()]
    sets += ["--set=train.rollout_every=0", "--set=train.val_episodes=1", "--set=train.batch_size=4"]
    assert vla("train", "--cache", "features", "--out", "run", "--steps", 2, *sets)["steps"] == 2
    options = ["--episodes", 1, "--set=rollout.videos=0", "--set=rollout.num_envs=1"]
    assert vla("rollout", "run", "--env", ENV_ID, *options)["aggregated"]["n_episodes"] == 1
