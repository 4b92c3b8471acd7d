"""What a checkpoint's image processor says is done to the letter, or refused."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from fakes import fake_images, write_tokenizer, write_vision_checkpoint
from transformers import (
    AutoTokenizer,
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModel,
    Dinov2Config,
    Dinov2Model,
    Siglip2VisionConfig,
    Siglip2VisionModel,
    SiglipImageProcessor,
    SiglipProcessor,
    SiglipVisionModel,
)

from vla.base.errors import EncoderError
from vla.embed import FrozenEncoder, SiglipConfig
from vla.embed.encoders.encoder_family import encoder_config
from vla.embed.encoders.processor_files import FLAT, NESTED, TowerInput, read_preprocessing
from vla.embed.transforms import BICUBIC, BILINEAR, ImageSize, Preprocessing, normalise, resize

SIZE = {"height": 256, "width": 256}
CLIP = TowerInput(processors=("CLIPImageProcessor",), size=224, patch=32)
DINOV2 = TowerInput(processors=("BitImageProcessor", "DINOv3ViTImageProcessor"), size=None, patch=14)
SMALL = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


def load(folder: Path, **settings: object) -> FrozenEncoder:
    return FrozenEncoder.load(
        SiglipConfig.model_validate({"id": str(folder), "device": "cpu", **settings}), ("top",)
    )


def write(folder: Path, **changes: Any) -> Path:
    """Write a checkpoint whose processor wants what `changes` say."""
    write_vision_checkpoint(folder)
    SiglipImageProcessor(size=SIZE).save_pretrained(folder)
    table = json.loads((folder / FLAT).read_text())
    (folder / FLAT).write_text(json.dumps({**table, **changes}))
    return folder


def require_the_same_features(folder: Path) -> None:
    """Hold features of frames that must be resized against plain transformers, with its own processor."""
    frames = np.random.default_rng(0).integers(0, 256, (2, 120, 200, 3), np.uint8)  # any blur shows in noise
    processor = SiglipImageProcessor.from_pretrained(folder)
    with torch.no_grad():
        pixels = processor(images=list(frames), return_tensors="pt")
        expected = SiglipVisionModel.from_pretrained(folder).eval()(**pixels).pooler_output
    found = load(folder).encode({"top": frames})["top"][:, 0].float()
    assert torch.nn.functional.cosine_similarity(found, expected).min() >= 0.9999
    torch.testing.assert_close(found, expected, rtol=5e-3, atol=5e-3)


@pytest.mark.parametrize(
    "wants",
    [
        {"resample": 2},
        {"resample": 3},
        {"image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28]},
        {"do_normalize": False},
        {"do_center_crop": False, "do_convert_rgb": True},
    ],
    ids=str,
)
def test_features_are_those_of_the_checkpoints_own_processor(wants: dict[str, Any], tmp_path: Path) -> None:
    require_the_same_features(write(tmp_path, **wants))


@pytest.mark.skipif(transformers.__version__ < "5", reason="transformers 4 writes no processor_config.json")
def test_the_processor_that_transformers_5_writes_is_read(tmp_path: Path) -> None:
    write_tokenizer(write_vision_checkpoint(tmp_path))
    images = SiglipImageProcessor(size=SIZE, resample=2, image_mean=[0.1, 0.2, 0.3])
    SiglipProcessor(
        image_processor=images, tokenizer=AutoTokenizer.from_pretrained(tmp_path)
    ).save_pretrained(tmp_path)
    assert (tmp_path / NESTED).is_file()
    require_the_same_features(tmp_path)


def test_the_nested_table_goes_before_the_older_file(tmp_path: Path) -> None:
    write(tmp_path, resample=3)
    (tmp_path / NESTED).write_text(json.dumps({"image_processor": {"resample": 2}}))
    assert load(tmp_path).identity.settings["interpolation"] == BILINEAR
    (tmp_path / NESTED).write_text(json.dumps({"processor_class": "SiglipProcessor"}))  # of transformers 4
    assert load(tmp_path).identity.settings["interpolation"] == BICUBIC


@pytest.mark.parametrize(
    ("wants", "told"),
    [
        ({"resample": 1}, r"resample = 1, vla does bilinear .*--set encoder.interpolation=bicubic"),
        ({"do_resize": False}, r"do_resize = false, vla does resize to the input"),
        ({"size": {"height": 224, "width": 224}}, r'size = {"height": 224.*the input of the tower'),
        ({"size": {"shortest_edge": 256}}, r"shortest_edge"),
        ({"do_rescale": False}, r"do_rescale = false"),
        ({"rescale_factor": 1.0}, r"rescale_factor = 1.0, vla does 1 / 255"),
        ({"do_center_crop": True}, r"crop_size = null, vla does cut out 256 x 256, the input of the tower"),
        ({"do_pad": True}, r"do_pad = true, vla does nothing of that kind"),
        (
            {"image_processor_type": "CLIPImageProcessor"},
            r"of CLIPImageProcessor, but .* by SiglipImageProcessor",
        ),
        ({"resample": [3]}, r"resample = \[3\]"),
        ({"rescale_factor": "x"}, r"rescale_factor"),
        ({"image_std": 5}, r"cannot be read"),
    ],
    ids=str,
)
def test_what_vla_would_do_otherwise_is_refused_in_one_line(
    wants: dict[str, Any], told: str, tmp_path: Path
) -> None:
    with pytest.raises(EncoderError, match=f"{FLAT}.*{told}") as caught:
        load(write(tmp_path, **wants))
    assert "\n" not in str(caught.value)


def test_an_interpolation_that_is_named_takes_the_place_of_the_checkpoints(tmp_path: Path) -> None:
    encoder = load(write(tmp_path, resample=1), interpolation="bilinear")
    assert encoder.identity.settings["interpolation"] == BILINEAR


def test_what_was_embedded_with_another_interpolation_goes_on_with_it(tmp_path: Path) -> None:
    before = load(write(tmp_path, resample=3), interpolation="bilinear").identity
    assert before != load(tmp_path).identity
    config = encoder_config(before, device="cpu")
    assert FrozenEncoder.load(config, ("top",)).identity == before


def test_a_size_keeps_its_interpolation_on_the_way_to_another_process() -> None:
    size = ImageSize((32, 48), BICUBIC)
    sent = pickle.loads(pickle.dumps(size))
    assert (sent, sent.interpolation) == ((32, 48), BICUBIC)
    frames = fake_images(0, 1, size=(64, 64))
    assert np.array_equal(resize(frames, sent), resize(frames, size))
    assert not np.array_equal(resize(frames, size), resize(frames, (32, 48)))


@pytest.mark.parametrize(
    ("model", "told"),
    [
        (
            lambda: Siglip2VisionModel(Siglip2VisionConfig(**SMALL, num_patches=16)),
            "of SigLIP2 NaFlex, which takes seq.*docs/plugins.md",
        ),
        (
            lambda: CLIPVisionModel(CLIPVisionConfig(**SMALL, image_size=64, patch_size=16)),
            "that encoder 'clip' takes, not 'SigLIP': --set encoder.type=clip",
        ),
        (
            lambda: Dinov2Model(
                Dinov2Config(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=64)
            ),
            "that encoder 'dino' takes, not 'SigLIP': --set encoder.type=dino",
        ),
    ],
    ids=["naflex", "clip", "dinov2"],
)
def test_a_checkpoint_of_another_kind_is_called_what_it_is(model: Any, told: str, tmp_path: Path) -> None:
    model().save_pretrained(tmp_path)
    with pytest.raises(EncoderError, match=f"is a checkpoint {told}") as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_of_a_kind_that_nobody_knows_is_named_by_its_own_word(tmp_path: Path) -> None:
    write_vision_checkpoint(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "newer_vit"}))
    with pytest.raises(EncoderError, match="is a checkpoint of newer_vit, which no encoder here takes"):
        load(tmp_path)


def test_the_first_files_of_clip_say_sizes_as_bare_numbers(tmp_path: Path) -> None:
    old = {
        "feature_extractor_type": "CLIPFeatureExtractor",
        "do_resize": True,
        "size": 224,
        "resample": 3,
        "do_center_crop": True,
        "crop_size": 224,
        "do_normalize": True,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
    }
    (tmp_path / FLAT).write_text(json.dumps(old))
    found = read_preprocessing("clip", {FLAT: str(tmp_path / FLAT)}, CLIP)
    (tmp_path / FLAT).write_text(json.dumps({"image_processor_type": "CLIPImageProcessorFast"}))
    assert found == read_preprocessing("clip", {FLAT: str(tmp_path / FLAT)}, CLIP)
    assert (found.image_size, found.crop, found.interpolation) == ((224, 224), (224, 224), BICUBIC)
    assert list(found.mean) == list(CLIPImageProcessor().image_mean)


@pytest.mark.parametrize(
    ("wants", "told"),
    [
        (
            {"size": {"shortest_edge": 225}},
            r'size = {"shortest_edge": 225}, vla does cut 224 x 224 with equal',
        ),
        ({"size": {"shortest_edge": 200}}, r"size = .*equal margins"),
        ({"size": {"height": 256, "width": 256}}, r"bring the shorter edge to a size and cut after that"),
        ({"crop_size": {"height": 224, "width": 256}}, r"crop_size = .*a square of whole patches of 14"),
        ({"crop_size": 220}, r"crop_size = 220, vla does cut out a square of whole patches of 14"),
        (
            {"image_processor_type": "ViTImageProcessor"},
            r"of ViTImageProcessor, but .* by BitImageProcessor or DINOv3",
        ),
    ],
    ids=str,
)
def test_a_square_that_cannot_be_cut_is_refused(wants: dict[str, Any], told: str, tmp_path: Path) -> None:
    table = {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 256}, "crop_size": 224}
    (tmp_path / FLAT).write_text(json.dumps({**table, **wants}))
    with pytest.raises(EncoderError, match=f"dinov2: {FLAT} .*{told}") as caught:
        read_preprocessing("dinov2", {FLAT: str(tmp_path / FLAT)}, DINOV2)
    assert "\n" not in str(caught.value)


def test_a_tower_of_one_size_may_leave_a_margin_without_patches(tmp_path: Path) -> None:
    (tmp_path / FLAT).write_text(json.dumps({"size": {"height": 384, "width": 384}}))  # SigLIP so400m
    found = read_preprocessing("so400m", {FLAT: str(tmp_path / FLAT)}, TowerInput(size=384, patch=14))
    assert (found.image_size, found.crop) == ((384, 384), None)


def test_a_tower_that_is_no_siglip_needs_its_processors_file() -> None:
    with pytest.raises(EncoderError, match=f"does not say how its images are prepared; put the {FLAT}"):
        read_preprocessing("dinov2", {}, DINOV2)


def test_a_frame_of_the_size_of_the_crop_is_enlarged_as_any_other() -> None:
    spec = Preprocessing(image_size=(8, 8), crop=(4, 4), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    small, large = fake_images(0, 1, size=(4, 4)), fake_images(0, 1, size=(8, 8))
    assert resize(small, spec.size).shape == (1, 8, 8, 3)
    assert resize(large, spec.size) is large
    pixels = normalise(torch.from_numpy(large), spec)
    torch.testing.assert_close(255 * pixels[0].permute(1, 2, 0), torch.from_numpy(large[0, 2:6, 2:6]).float())


def test_a_wide_frame_keeps_its_aspect_and_loses_its_ends() -> None:
    wide = fake_images(1, 2, size=(8, 21))
    assert np.array_equal(resize(wide, ImageSize((8, 8), squashes=False)), wide[:, :, 6:14])
    sent = pickle.loads(pickle.dumps(ImageSize((8, 8), BICUBIC, squashes=False)))
    assert (sent, sent.squashes) == ((8, 8), False)
