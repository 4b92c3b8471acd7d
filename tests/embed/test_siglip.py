"""The SigLIP encoder: the real checkpoint format, the real processor, identity, refusals."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import VISION, fake_images, write_two_tower_checkpoint, write_vision_checkpoint
from safetensors.torch import load_file, save_file
from transformers import SiglipImageProcessor, SiglipVisionModel

from vla.base.errors import ConfigError, EncoderError
from vla.embed import FrozenEncoder, SiglipConfig
from vla.embed.encoders.checkpoint import names_in_files
from vla.embed.encoders.siglip import KIND, SiglipEncoder
from vla.embed.encoders.siglip_checkpoint import TINY_SIM_FOLDER
from vla.embed.transforms import Preprocessing


def load(path: Path | str, cameras: tuple[str, ...] = ("top",), **settings: object) -> FrozenEncoder:
    config = SiglipConfig.model_validate({"id": str(path), "device": "cpu", **settings})
    return FrozenEncoder.load(config, cameras)


def preprocessing(path: Path) -> Preprocessing:
    encoder = load(path).encoder
    assert isinstance(encoder, SiglipEncoder)
    return encoder.preprocessing


def features(encoder: FrozenEncoder, frames: np.ndarray) -> np.ndarray:
    """Features [n, dim] of a single camera's frames."""
    found: np.ndarray = encoder.encode({"top": frames})["top"][:, 0].numpy()
    return found


@pytest.mark.parametrize("write", [write_vision_checkpoint, write_two_tower_checkpoint])
def test_features_equal_those_of_plain_transformers(write, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    checkpoint = write(tmp_path)
    processor = SiglipImageProcessor(size={"height": 256, "width": 256})
    processor.save_pretrained(checkpoint)
    frames = fake_images(seed=3, count=4)
    with torch.no_grad():
        pixels = processor(images=list(frames), return_tensors="pt")
        expected = SiglipVisionModel.from_pretrained(checkpoint).eval()(**pixels).pooler_output
    found = torch.from_numpy(features(load(checkpoint), frames)).float()
    assert torch.nn.functional.cosine_similarity(found, expected).min() >= 0.9999
    torch.testing.assert_close(found, expected, rtol=2e-3, atol=2e-3)


def test_mean_and_std_come_from_the_checkpoints_processor(tmp_path: Path) -> None:
    write_vision_checkpoint(tmp_path)
    size = {"height": 256, "width": 256}
    processor = SiglipImageProcessor(size=size, image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6])
    processor.save_pretrained(tmp_path)
    spec = preprocessing(tmp_path)
    assert (spec.mean, spec.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def test_a_checkpoint_without_processor_uses_one_half(encoder_dir: Path) -> None:
    spec = preprocessing(encoder_dir)
    assert (spec.mean, spec.std, spec.image_size) == ((0.5,) * 3, (0.5,) * 3, (256, 256))


def test_both_published_forms_have_one_identity(tmp_path: Path) -> None:
    whole = write_two_tower_checkpoint(tmp_path / "two-tower")
    SiglipVisionModel.from_pretrained(whole).save_pretrained(tmp_path / "vision")
    identities = [load(tmp_path / name).identity.weights_sha256 for name in ("two-tower", "vision")]
    assert identities[0] == identities[1]


def test_other_weights_are_another_identity(tmp_path: Path) -> None:
    identities = {
        load(write_vision_checkpoint(tmp_path / str(seed), seed)).identity.weights_sha256 for seed in (0, 1)
    }
    assert len(identities) == 2


def test_the_same_weights_with_another_activation_are_another_identity(tmp_path: Path) -> None:
    write_vision_checkpoint(tmp_path)
    before = load(tmp_path).identity.weights_sha256
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "hidden_act": "relu"}))
    assert load(tmp_path).identity.weights_sha256 != before


def test_views_are_encoded_independently(encoder_dir: Path) -> None:
    encoder = load(encoder_dir, ("r_vis", "top", "front"))
    views = {camera: fake_images(seed, 2) for seed, camera in enumerate(encoder.reads)}
    together = encoder.encode(views)
    views["top"] = 255 - views["top"]
    changed = encoder.encode(views)
    assert torch.equal(together["r_vis"], changed["r_vis"])
    assert torch.equal(together["front"], changed["front"])
    assert not torch.equal(together["top"], changed["top"])


def test_batches_do_not_change_features(encoder_dir: Path) -> None:
    frames = fake_images(seed=5, count=7)
    whole, parts = load(encoder_dir), load(encoder_dir, batch_size=2)
    np.testing.assert_allclose(features(whole, frames), features(parts, frames), atol=2e-3)


def test_the_encoder_is_frozen_and_stays_in_eval_mode(encoder_dir: Path) -> None:
    model = load(encoder_dir).encoder
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_the_random_tiny_encoder_is_the_same_every_time_and_says_what_it_is() -> None:
    first, second = load("siglip2-tiny-random"), load("siglip2-tiny-random")
    assert first.identity == second.identity
    assert "random" in first.identity.describe()
    assert first.encode({"top": fake_images(0, 2)})["top"].shape == (2, *first.writes[0].shape)


def test_the_trained_tiny_encoder_is_a_plain_checkpoint_of_at_most_12_mb() -> None:
    assert sum(file.stat().st_size for file in TINY_SIM_FOLDER.iterdir()) < 12e6
    frames = fake_images(seed=6, count=3)
    # transformers 4, left to itself, does not know the names that transformers 5 saved.
    model = SiglipVisionModel.from_pretrained(
        TINY_SIM_FOLDER, dtype=torch.float32, **names_in_files(KIND)
    ).eval()
    with torch.inference_mode():
        pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 127.5 - 1
        expected = model(pixel_values=pixels).pooler_output.numpy()
    found = features(load("siglip2-tiny-sim"), frames)
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_the_trained_tiny_encoders_card_says_what_it_was_taught() -> None:
    card = (TINY_SIM_FOLDER / "README.md").read_text()
    assert "supervised by the" in card and "no general image encoder" in card


def test_an_encoder_that_cannot_be_reached_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(EncoderError, match=r"hf download nobody/nothing.*--encoder DIR.*siglip2-tiny-random"):
        load("nobody/nothing")


def test_a_hub_that_does_not_answer_is_named_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    with pytest.raises(EncoderError, match=r"the Hub cannot be reached; .*--encoder DIR"):
        load("nobody/nothing")


def test_a_directory_without_weights_is_named(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="holds no SigLIP checkpoint"):
        load(tmp_path)


def test_a_checkpoint_that_lacks_tensors_is_refused(tmp_path: Path) -> None:
    write_vision_checkpoint(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file(
        {name: t for name, t in tensors.items() if "layers.1" not in name}, tmp_path / "model.safetensors"
    )
    with pytest.raises(EncoderError, match="lacks 16 tensors of a SigLIP vision tower"):
        load(tmp_path)


def test_a_checkpoint_without_pooling_head_is_refused(tmp_path: Path) -> None:
    from transformers import SiglipVisionConfig

    SiglipVisionModel(SiglipVisionConfig(**VISION, vision_use_head=False)).save_pretrained(tmp_path)
    with pytest.raises(EncoderError, match="no pooling head"):
        load(tmp_path)


def test_pickled_weights_are_not_loaded(tmp_path: Path) -> None:
    write_vision_checkpoint(tmp_path)
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(EncoderError, match="no SigLIP checkpoint"):
        load(tmp_path)


def test_a_device_that_is_not_here_is_named(encoder_dir: Path) -> None:
    with pytest.raises(ConfigError, match="device 'cuda:99' is not available here"):
        load(encoder_dir, device="cuda:99")
    with pytest.raises(ConfigError, match="no device is called 'toaster'"):
        load(encoder_dir, device="toaster")
