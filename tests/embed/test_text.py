"""The text tower: as SigLIP2 was trained, once a text, and only where there is one."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import WORDS, write_tokenizer, write_two_tower_checkpoint, write_vision_checkpoint
from tokenizers import Tokenizer, models, normalizers, processors
from transformers import SiglipModel

from vla.base.errors import EncoderError
from vla.embed import SiglipConfig
from vla.embed.text_encoders.siglip import SiglipText
from vla.embed.text_encoders.text_encoder_family import of_encoder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_two_tower_checkpoint(tmp_path_factory.mktemp("two-tower"))
    write_tokenizer(folder)
    return folder


def load(folder: Path) -> SiglipText:
    encoder = of_encoder(SiglipConfig(id=str(folder), device="cpu")).load()
    assert isinstance(encoder, SiglipText)
    return encoder


def test_a_texts_feature_is_the_whole_models_on_padded_lower_case_tokens(checkpoint: Path) -> None:
    encoder = load(checkpoint)
    tokens = [3, 4, 5, 6] + [0] * (encoder.identity.max_length - 4)
    model = SiglipModel.from_pretrained(checkpoint).eval()
    with torch.no_grad():
        expected = model.text_model(input_ids=torch.tensor([tokens])).pooler_output.numpy()
    np.testing.assert_allclose(encoder.encode(["Pick the RED box"]), expected, atol=1e-6)
    assert encoder.identity.feature_dim == expected.shape[1]


def test_the_last_position_is_padding_whatever_side_the_tokeniser_prefers(
    checkpoint: Path, tmp_path: Path
) -> None:
    write_tokenizer(write_two_tower_checkpoint(tmp_path), padding_side="left")
    texts = ["Pick the RED box"]
    np.testing.assert_array_equal(load(tmp_path).encode(texts), load(checkpoint).encode(texts))


def test_tokens_of_the_published_form_end_in_eos_and_padding(tmp_path: Path) -> None:
    """As under google/siglip2-base-patch16-256: Gemma's byte pairs, told to end in <eos>, padded with 0."""
    words = ["<pad>", "<eos>", "<bos>", "<unk>", "▁", *"pickthe"]
    vocabulary = {word: index for index, word in enumerate(dict.fromkeys(words))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <eos>", pair="$A <eos> $B <eos>", special_tokens=[("<eos>", 1)]
    )
    write_two_tower_checkpoint(tmp_path)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    special = {f"{name}_token": f"<{name}>" for name in ("pad", "eos", "bos", "unk")}
    config = {"tokenizer_class": "GemmaTokenizer", "add_bos_token": False, "add_eos_token": True, **special}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    encoder = load(tmp_path)
    pick = [vocabulary[letter] for letter in "pick"]
    assert encoder._tokens("PICK pick") == [*pick, 4, *pick, 1, *[0] * 54]
    assert encoder._tokens("pick" * 20) == [*pick * 15, *pick[:3], 1]


def test_a_long_text_is_cut_off(checkpoint: Path) -> None:
    encoder = load(checkpoint)
    whole, cut = "pick " * 100, "pick " * encoder.identity.max_length
    np.testing.assert_array_equal(*encoder.encode([whole, cut]))


def test_each_text_is_encoded_once(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = load(checkpoint)
    first = encoder.encode(["pick the box", "hand it over", "pick the box"])
    np.testing.assert_array_equal(first[0], first[2])
    assert np.abs(first[0] - first[1]).max() > 1e-4
    monkeypatch.delattr(encoder, "_model")
    np.testing.assert_array_equal(encoder.encode(["hand it over"])[0], first[1])


def test_identity_follows_weights_and_tokeniser(checkpoint: Path, tmp_path: Path) -> None:
    same = write_two_tower_checkpoint(tmp_path / "same")
    write_tokenizer(same)
    other = write_two_tower_checkpoint(tmp_path / "other", seed=1)
    write_tokenizer(other)
    cut = write_two_tower_checkpoint(tmp_path / "cut")
    write_tokenizer(cut, [*WORDS[:3], *reversed(WORDS[3:])])
    identities = [load(folder).identity.weights_sha256 for folder in (checkpoint, same, other, cut)]
    assert identities[0] == identities[1]
    assert len(set(identities)) == 3


def test_a_vision_only_checkpoint_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="two-tower checkpoint") as caught:
        load(write_vision_checkpoint(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["siglip2-tiny-sim", "siglip2-tiny-random"])
def test_the_encoders_that_come_with_vla_have_no_text_tower(name: str) -> None:
    with pytest.raises(EncoderError, match=f"{name} has no text tower; language needs a two-tower") as caught:
        of_encoder(SiglipConfig(id=name)).load()
    assert "\n" not in str(caught.value)


def test_a_checkpoint_without_tokeniser_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="no tokeniser beside its weights"):
        load(write_two_tower_checkpoint(tmp_path))
