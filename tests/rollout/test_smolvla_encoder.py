"""SmolVLA's vision tower and tokeniser as an encoder: its numbers, its images, its identity."""

from pathlib import Path

import numpy as np
import pytest
import torch
from fake_datasets import fake_images
from fake_smolvla import SIDE, TEXT, TOKENS, VISION, write_smolvla
from safetensors.torch import load_file, save_file
from transformers import SmolVLMConfig
from transformers.models.smolvlm.modeling_smolvlm import SmolVLMForConditionalGeneration

from vla.base.errors import EncoderError
from vla.embed.encoders.encoder_family import encoder_config
from vla.embed.frozen_encoder import FrozenEncoder
from vla.embed.text_encoders.text_encoder_family import of_encoder
from vla.embed.transforms import ImageSize, resize
from vla.rollout.encoders.smolvla import SmolVLAEncoder, SmolVLAEncoderConfig

CPU = torch.device("cpu")
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_smolvla(tmp_path_factory.mktemp("encoder"))


def built(folder: Path, cameras: tuple[str, ...] = ("top",)) -> SmolVLAEncoder:
    return SmolVLAEncoderConfig(id=str(folder), device="cpu").build(cameras, CPU)


def changed(folder: Path, copy: Path, name: str) -> Path:
    """Copy a SmolVLA; all of one tensor's numbers are greater by 1."""
    copy.mkdir()
    (copy / "config.json").write_bytes((folder / "config.json").read_bytes())
    tensors = load_file(folder / WEIGHTS)
    tensors[name] = tensors[name] + 1
    save_file(tensors, copy / WEIGHTS)
    return copy


def test_features_are_those_of_the_whole_model_in_transformers(folder: Path) -> None:
    config = SmolVLMConfig(vision_config=VISION, text_config=TEXT, scale_factor=2, tie_word_embeddings=False)
    model = SmolVLMForConditionalGeneration(config).eval()
    start = "model.vlm_with_expert.vlm."
    tensors = {
        n.removeprefix(start): t for n, t in load_file(folder / WEIGHTS).items() if n.startswith(start)
    }
    lacks = model.load_state_dict(tensors, strict=False)  # the upper layers
    assert not lacks.unexpected_keys and all(".layers.4." in name for name in lacks.missing_keys)
    frames = fake_images(0, 3, (SIDE, SIDE))
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2) / 255 * 2 - 1
    with torch.no_grad():
        due = model.model.connector(model.model.vision_model(pixel_values=pixels).last_hidden_state)
    ours = FrozenEncoder(built(folder), device=CPU).encode({"top": frames})["top"]
    assert ours.dtype == torch.float16 and ours.shape[1] == TOKENS
    torch.testing.assert_close(ours.float(), due, rtol=2e-3, atol=2e-3 * float(due.abs().max()))


def test_a_wide_image_is_fitted_in_and_black_above(folder: Path) -> None:
    size = built(folder).image_size
    wide = resize(np.full((1, 48, 64, 3), 200, np.uint8), size)[0]
    assert (wide[: SIDE // 4] == 0).all() and (wide[SIDE // 4 :] == 200).all()
    high = resize(np.full((1, 64, 48, 3), 200, np.uint8), size)[0]
    assert (high[:, : SIDE // 4] == 0).all() and (high[:, SIDE // 4 :] == 200).all()
    square = np.full((1, SIDE, SIDE, 3), 7, np.uint8)
    assert resize(square, size) is square


def test_a_value_between_two_pixels_is_their_mean() -> None:
    image = np.array([[[0, 0, 0], [100, 100, 100], [200, 200, 200], [50, 50, 50]]] * 4, np.uint8)[None]
    half = resize(image, ImageSize((2, 2), pads=True))[0, 0, :, 0]
    assert half.tolist() == [50, 125]


def test_the_identity_is_of_all_that_is_frozen_and_of_nothing_else(folder: Path, tmp_path: Path) -> None:
    vlm = "model.vlm_with_expert.vlm.model."
    expert = changed(folder, tmp_path / "expert", "model.vlm_with_expert.lm_expert.norm.weight")
    language = changed(folder, tmp_path / "language", f"{vlm}text_model.layers.0.mlp.up_proj.weight")
    tower = changed(folder, tmp_path / "tower", f"{vlm}vision_model.post_layernorm.weight")
    first = built(folder).identity
    assert built(expert).identity.weights_sha256 == first.weights_sha256
    hashes = {built(other).identity.weights_sha256 for other in (folder, language, tower)}
    assert len(hashes) == 3
    again = encoder_config(first, device="cpu").build(("top",), CPU)
    assert again.identity == first


def test_texts_end_with_a_newline_once_and_are_cut(folder: Path) -> None:
    texts = of_encoder(SmolVLAEncoderConfig(id=str(folder))).load()
    plain, ended, long = texts.encode(["pick up", "pick up\n", "the red box " * 9])
    assert plain.tolist() == ended.tolist() == [3, 4, 2, *[-1] * 7]
    assert long.tolist() == [5, 6, 7, 5, 6, 7, 5, 6, 7, 5]
    assert texts.identity.feature_dim == 10


def test_weights_of_another_tower_than_the_configuration_means_are_refused(
    folder: Path, tmp_path: Path
) -> None:
    copy = changed(folder, tmp_path / "copy", "model.state_proj.bias")
    tensors = load_file(copy / WEIGHTS)
    name = "model.vlm_with_expert.vlm.model.connector.modality_projection.proj.weight"
    tensors[name] = tensors[name][:, :-1].contiguous()
    save_file(tensors, copy / WEIGHTS)
    with pytest.raises(EncoderError, match=r"do not fit together: .*size mismatch") as error:
        built(copy)
    assert "\n" not in str(error.value)
