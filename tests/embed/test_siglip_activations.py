"""Activations laid out for their readers: the same values, where they are read."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import SiglipVisionModel

from vla.embed.encoders.siglip import lay_out_activations
from vla.embed.encoders.siglip_checkpoint import TINY_SIM_FOLDER


@pytest.fixture(params=["checkpoint", "tiny-sim"])
def tower(request: pytest.FixtureRequest, encoder_dir: Path) -> nn.Module:
    folder = encoder_dir if request.param == "checkpoint" else TINY_SIM_FOLDER
    return SiglipVisionModel.from_pretrained(folder, dtype=torch.float32).eval()


@torch.inference_mode()
def test_features_are_those_of_the_tower_as_it_was(tower: nn.Module) -> None:
    pixels = torch.randn(5, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    expected = copy.deepcopy(tower)(pixel_values=pixels)
    lay_out_activations(tower)
    found = tower(pixel_values=pixels)
    assert torch.equal(found.last_hidden_state, expected.last_hidden_state)
    torch.testing.assert_close(found.pooler_output, expected.pooler_output)


@torch.inference_mode()
def test_no_layer_norm_copies_its_input_and_keys_are_one_matrix_product(tower: nn.Module) -> None:
    def inputs_are_adjacent(transformed: nn.Module) -> tuple[bool, bool]:
        norms: list[bool] = []
        keys: list[bool] = []
        for module in transformed.modules():
            if isinstance(module, nn.LayerNorm):
                module.register_forward_pre_hook(lambda _, x: norms.append(x[0].is_contiguous()))
            elif isinstance(module, nn.MultiheadAttention):
                module.register_forward_pre_hook(lambda _, x: keys.append(tokens_first(x[1])))
        transformed(pixel_values=torch.zeros(2, 3, 256, 256))
        assert norms and keys
        return all(norms), all(keys)

    def tokens_first(key: Tensor) -> bool:
        return key.transpose(0, 1).is_contiguous()

    assert inputs_are_adjacent(copy.deepcopy(tower)) == (False, False)  # else transformers has mended it
    lay_out_activations(tower)
    assert inputs_are_adjacent(tower) == (True, True)
