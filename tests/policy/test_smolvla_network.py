"""SmolVLA's network and files by themselves; tests/interop holds them against LeRobot's."""

from pathlib import Path
from typing import Any

import pytest
import torch
from fake_smolvla import CHUNK, HIDDEN, LAYERS, MAX_ACTION, MAX_STATE, TOKENS, write_smolvla
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import LlamaConfig, LlamaModel

from vla.base.errors import ConfigError
from vla.policy.pretrained.smolvla_files import SmolVLAFiles
from vla.policy.pretrained.smolvla_network import Prefix, SmolVLANetwork, published_weights
from vla.policy.training.recompute import parts_of, recompute_activations

WORDS = torch.tensor([[3, 4, 2, -1, -1], [3, 4, 5, 6, 2]])


def loaded(folder: Path) -> SmolVLANetwork:
    files = SmolVLAFiles.open(str(folder))
    network = SmolVLANetwork(files)
    network.load_state_dict(published_weights(network, files))
    return network


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> SmolVLANetwork:
    return loaded(write_smolvla(tmp_path_factory.mktemp("network")))


@pytest.fixture
def observation() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "images": torch.randn(2, 2 * TOKENS, HIDDEN, generator=generator) / HIDDEN**0.5,
        "words": WORDS,
        "state": torch.randn(2, MAX_STATE, generator=generator),
    }


def drawn() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, CHUNK, MAX_ACTION, generator=generator), torch.rand(2, generator=generator)


def row(prefix_of: dict[str, Tensor], number: int) -> dict[str, Tensor]:
    return {name: tensor[number : number + 1] for name, tensor in prefix_of.items()}


def test_a_short_text_in_a_batch_has_the_velocity_it_has_alone(
    network: SmolVLANetwork, observation: Any
) -> None:
    x_t, time = drawn()
    together = network.velocity(x_t, time, network.read(**observation))
    alone = {**row(observation, 0), "words": WORDS[:1, :3]}
    by_itself = network.velocity(x_t[:1], time[:1], network.read(**alone))
    torch.testing.assert_close(together[:1], by_itself, rtol=0, atol=1e-5)


def test_an_action_sees_no_later_one(network: SmolVLANetwork, observation: Any) -> None:
    x_t, time = drawn()
    prefix = network.read(**observation)
    before, changed = network.velocity(x_t, time, prefix), x_t.clone()
    changed[:, 3] += 1
    after = network.velocity(changed, time, prefix)
    assert torch.equal(before[:, :3], after[:, :3])
    assert not torch.allclose(before[:, 3:], after[:, 3:])


def test_images_and_text_see_no_state_so_they_are_read_without_a_gradient(
    network: SmolVLANetwork, observation: Any
) -> None:
    first = network.read(**observation)
    other = network.read(**{**observation, "state": observation["state"] + 1})
    for one, two in zip(memories(first), memories(other), strict=True):
        assert torch.equal(one[:, :-1], two[:, :-1]) and not torch.equal(one[:, -1], two[:, -1])
    network.zero_grad()
    network.velocity(*drawn(), first).sum().backward()
    trained = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    assert trained == {name for name, _ in network.named_parameters() if not name.startswith("language.")}


def memories(prefix: Prefix) -> list[Tensor]:
    """Return the keys that are the language model's own: those of the layers that the expert reads along."""
    return [memory.keys for memory in prefix.memories[::2]]


def test_the_language_model_is_a_llama_of_transformers(network: SmolVLANetwork, observation: Any) -> None:
    """Its keys in a lower layer follow from everything below: a whole pass with a mask of our own."""
    sizes = {"hidden_size": HIDDEN, "intermediate_size": 96, "num_hidden_layers": LAYERS, "vocab_size": 40}
    heads = {"num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 16, "rms_norm_eps": 1e-5}
    llama = LlamaModel(LlamaConfig(**sizes, **heads, rope_theta=10_000.0)).eval()
    llama.load_state_dict(network.language.state_dict())
    seen: list[Tensor] = []
    llama.layers[2].self_attn.v_proj.register_forward_hook(lambda *parts: seen.append(parts[2]))
    tokens = torch.cat([observation["images"], llama.embed_tokens(WORDS.clamp(min=0))], 1) * HIDDEN**0.5
    there = torch.cat([torch.ones(2, 2 * TOKENS, dtype=torch.bool), WORDS >= 0], 1)
    sees = there[:, None, None].expand(-1, 1, tokens.shape[1], -1)
    mask = torch.zeros(sees.shape).masked_fill(~sees, torch.finfo(torch.float32).min)
    with torch.no_grad():
        llama(inputs_embeds=tokens, attention_mask=mask, use_cache=False)
    values = network.read(**observation).memories[2].values.flatten(-2)[:, :-1]
    torch.testing.assert_close(values[there], seen[0][there], rtol=1e-4, atol=1e-4)


def test_sampling_a_straight_flow_ends_at_its_actions(network: SmolVLANetwork, monkeypatch: Any) -> None:
    noise, target = drawn()[0], torch.full((2, CHUNK, MAX_ACTION), 0.5)
    monkeypatch.setattr(network, "velocity", lambda x_t, time, prefix: (x_t - target) / time[:, None, None])
    chunk = network.sample(noise, Prefix([], WORDS >= 0), 7)
    torch.testing.assert_close(chunk, target, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "changes, says",
    [
        (
            {"type": "pi0"},
            "config.json says that it is pi0, not smolvla; name a SmolVLA such as lerobot/smolvla_base",
        ),
        (
            {"train_expert_only": False},
            "train_expert_only = false: then the connector and the language model are",
        ),
        ({"adapt_to_pi_aloha": True}, "adapt_to_pi_aloha = true: vla does not convert ALOHA's joints"),
        ({"num_expert_layers": 2}, "num_expert_layers = 2: the expert must have a layer for each"),
        ({"chunk_size": 0}, "chunk_size"),
        (
            {"vlm_model_name": "nowhere"},
            "no directory 'nowhere'; name one, or an id on the Hub such as Hugging",
        ),
    ],
)
def test_what_cannot_be_run_is_refused_by_name(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    folder = write_smolvla(tmp_path, **changes)
    with pytest.raises(ConfigError) as error:
        SmolVLAFiles.open(str(folder))
    assert says in str(error.value) and "\n" not in str(error.value)


def test_a_tensor_of_another_shape_is_named(tmp_path: Path) -> None:
    folder = write_smolvla(tmp_path, max_state_dim=MAX_STATE + 1)
    with pytest.raises(ConfigError, match=r"'model.state_proj.weight' is \[48, 8\], where config.json means"):
        loaded(folder)


def test_gradients_are_the_same_where_activations_are_computed_again(
    tmp_path: Path, observation: Any
) -> None:
    network = loaded(write_smolvla(tmp_path))
    gradients = []
    for again in (False, True):
        if again:
            recompute_activations(network)
        network.zero_grad()
        network.velocity(*drawn(), network.read(**observation)).square().mean().backward()
        gradients.append([p.grad.clone() for p in network.parameters() if p.grad is not None])
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))
    assert len(list(parts_of(network))) == 2 * LAYERS  # the MLPs, the widest there is


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    folder = write_smolvla(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.state_proj.weight"]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ConfigError, match=r"lacks tensor 'model.state_proj.weight' of a SmolVLA"):
        loaded(folder)


def test_a_name_that_is_not_here_asks_the_hub_once_and_says_what_to_run(monkeypatch: Any) -> None:
    import huggingface_hub

    from vla.policy.pretrained import smolvla_files

    def unreachable(*_: Any, local_files_only: bool = False, **__: Any) -> str:
        if local_files_only:
            raise huggingface_hub.errors.LocalEntryNotFoundError("not downloaded")
        raise OSError("no route to host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(
        ConfigError, match=r"no route to host.*hf download lerobot/smolvla_base --local-dir DIR"
    ):
        smolvla_files.SmolVLAFiles.open("lerobot/smolvla_base")


def test_words_and_their_table_may_be_one_tensor(tmp_path: Path) -> None:
    """Of tied weights, safetensors keeps the first name: that of the output layer."""
    folder = write_smolvla(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    words = tensors.pop("model.vlm_with_expert.vlm.model.text_model.embed_tokens.weight")
    tensors["model.vlm_with_expert.vlm.lm_head.weight"] = words.clone()
    before = SmolVLAFiles.open(str(folder)).frozen_sha256()
    save_file(tensors, folder / "model.safetensors")
    assert SmolVLAFiles.open(str(folder)).frozen_sha256() == before
    assert torch.equal(loaded(folder).language.embed_tokens.weight, words)
