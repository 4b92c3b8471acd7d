"""Checkpoints of CLIP and DINO: chosen without `type`, one identity, refused in one line, embedded."""

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from fake_towers import CLIP, write_tower
from safetensors.torch import load_file, save_file
from transformers import CLIPVisionConfig, CLIPVisionModel, CLIPVisionModelWithProjection

from vla.base.errors import EncoderError
from vla.cache import FeatureCache
from vla.embed import ENCODERS, FrozenEncoder
from vla.embed.encoders.checkpoint import published, weights_sha256
from vla.embed.encoders.clip import KIND as CLIP_KIND
from vla.embed.encoders.dino import KIND as DINO_KIND
from vla.embed.encoders.vision_tower import TowerKind
from vla.embed.text_encoders.text_encoder_family import of_encoder


def load(folder: Path, **settings: object) -> FrozenEncoder:
    return FrozenEncoder.load(ENCODERS.parse({"id": str(folder), "device": "cpu", **settings}), ("top",))


def refused(folder: Path, **settings: object) -> str:
    with pytest.raises(EncoderError) as caught:
        load(folder, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("openai/clip-vit-base-patch16", "clip"),
        ("facebook/dinov2-with-registers-large", "dino"),
        ("facebook/dinov3-vitb16-pretrain-lvd1689m", "dino"),
        ("google/siglip2-base-patch16-256", "siglip"),
        ("somebody/clip-vit-base-patch16", "siglip"),
    ],
)
def test_a_published_name_chooses_its_encoder_without_type(name: str, expected: str) -> None:
    assert ENCODERS.parse({"id": name}).type == expected


def test_both_published_forms_of_clip_have_one_identity(tmp_path: Path) -> None:
    whole = write_tower(tmp_path / "two-towers", "clip-two-towers")
    tower = CLIPVisionModelWithProjection.from_pretrained(whole, projection_dim=24)
    tower.save_pretrained(tmp_path / "vision")
    processor = (whole / "preprocessor_config.json").read_bytes()
    (tmp_path / "vision/preprocessor_config.json").write_bytes(processor)
    first, second = (load(tmp_path / name).identity for name in ("two-towers", "vision"))
    assert first.same_as(second) and first.settings["crop"] == [64, 64]


SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 16,
}


@pytest.mark.parametrize(
    ("kind", "model", "sizes", "expected"),
    [
        (
            CLIP_KIND,
            "CLIPVisionModelWithProjection",
            {"intermediate_size": 16, "projection_dim": 8},
            "99370b19d4e0",
        ),
        (DINO_KIND, "Dinov2Model", {"mlp_ratio": 2}, "4362c7cc687e"),
        (DINO_KIND, "Dinov2WithRegistersModel", {"mlp_ratio": 2, "num_register_tokens": 2}, "ac7e1efe0ebc"),
        (DINO_KIND, "DINOv3ViTModel", {"intermediate_size": 16, "num_register_tokens": 2}, "32a381dbe4bd"),
    ],
    ids=["clip", "dinov2", "dinov2 with registers", "dinov3"],
)
def test_a_tower_has_one_identity_whichever_transformers_loads_it(
    kind: TowerKind, model: str, sizes: dict[str, int], expected: str
) -> None:
    # The names of its tensors and the order of its parameters have changed from transformers 4 to 5.
    config = model.replace("ModelWithProjection", "Config").replace("Model", "Config")
    tower = getattr(transformers, model)(getattr(transformers, config)(**SMALL, **sizes))
    with torch.no_grad():
        for name, tensor in tower.state_dict().items():
            tensor.fill_(zlib.crc32(published(name, kind).encode()) / 2**32)
    assert weights_sha256(tower, kind)[:12] == expected


def test_a_tensor_that_no_image_reaches_may_be_missing(tmp_path: Path) -> None:
    write_tower(tmp_path, "dinov2")
    before = load(tmp_path).identity
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["embeddings.mask_token"]
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    assert load(tmp_path).identity == before
    tensors["embeddings.cls_token"] += 1
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    assert load(tmp_path).identity != before


def test_missing_tensors_are_counted_and_one_is_named(tmp_path: Path) -> None:
    CLIPVisionModel(CLIPVisionConfig(**CLIP)).save_pretrained(tmp_path)
    assert "tensors of a CLIP vision tower, such as v" in refused(tmp_path)
    write_tower(tmp_path, "dinov3")
    tensors = load_file(tmp_path / "model.safetensors")
    whole = {name: tensor for name, tensor in tensors.items() if "layer.1." not in name}
    save_file(whole, tmp_path / "model.safetensors", {"format": "pt"})
    assert f"lacks {len(tensors) - len(whole)} tensors of a DINO vision tower" in refused(tmp_path)


def test_a_pickle_is_not_loaded_and_says_what_to_do(tmp_path: Path) -> None:
    write_tower(tmp_path, "dinov2")
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    assert "its weights are a pickle (pytorch_model.bin)" in refused(tmp_path)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"hidden_size": "wide"}, "is no DINO checkpoint that can be read"),
        ({"image_size": [70, 70]}, r"image_size = [70, 70] and patch_size = 14; towers here take squares"),
    ],
    ids=str,
)
def test_a_configuration_that_makes_no_tower_is_one_line(
    change: dict[str, Any], told: str, tmp_path: Path
) -> None:
    config = json.loads((write_tower(tmp_path, "dinov2") / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    assert told in refused(tmp_path)


def test_weights_that_were_cut_off_are_one_line(tmp_path: Path) -> None:
    weights = write_tower(tmp_path, "dinov3") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    assert "is no DINO checkpoint that can be read" in refused(tmp_path)


def test_another_kind_than_the_one_asked_for_names_the_right_one(tmp_path: Path) -> None:
    write_tower(tmp_path, "dinov2")
    told = refused(tmp_path, type="clip")
    assert "is a checkpoint that encoder 'dino' takes, not 'CLIP': --set encoder.type=dino" in told
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "dinov3_convnext"}))
    assert "is a checkpoint of DINOv3 ConvNeXt, which no encoder here takes" in refused(tmp_path, type="dino")


def test_a_directory_without_processor_file_asks_for_it(tmp_path: Path) -> None:
    (write_tower(tmp_path, "dinov2") / "preprocessor_config.json").unlink()
    assert "put the preprocessor_config.json of its repository beside the weights" in refused(tmp_path)


def test_texts_need_a_siglip(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="has no text tower that encoder 'clip' reads; language needs"):
        of_encoder(ENCODERS.parse({"id": str(write_tower(tmp_path, "clip-two-towers"))})).load()


@pytest.mark.parametrize("kind", ["clip-two-towers", "dinov2-registers", "dinov3"])
def test_the_command_embeds_with_every_kind_and_goes_on(
    kind: str,
    tmp_path: Path,
    dataset: Path,
    vla: Callable[..., dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    command = [
        "embed",
        "--dataset",
        dataset,
        "--encoder",
        write_tower(tmp_path / kind, kind),
        "--pool",
        "grid2",
    ]
    made = vla(*command, "--out", tmp_path / "features")
    cache = FeatureCache(Path(made["cache"]))
    assert cache.metadata.encoder is not None
    assert {cache.metadata.stream(name).shape for name in cache.metadata.encoded} == {(4, 32)}
    assert vla(*command, "--out", tmp_path / "features")["images_encoded"] == 0
