"""OpenVLA's network, tokens and files, held against a slow forward pass written from its description."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_openvla import PATCHES, TEXT, VISION_DIM, VOCABULARY, WORDS, random_weights, write_openvla
from fakes import fake_identity, fake_spec, write_cache
from torch import Tensor
from torch.nn import functional

from vla.base.errors import CheckpointError, ConfigError
from vla.base.openvla import OpenVLAFiles
from vla.cache import FeatureCache
from vla.embed.encoders.openvla_towers import as_dino, as_siglip
from vla.policy.agents.policy import load_policy
from vla.policy.batch import Batch
from vla.policy.policy_config import policy_config
from vla.policy.pretrained.openvla import OpenVLAConfig, OpenVLAPolicy
from vla.policy.pretrained.openvla_network import OpenVLANetwork, load_network, own_name
from vla.policy.pretrained.openvla_tokens import ActionTokens, Prompt

PUBLISHED = Path(__file__).parent / "data/openvla-7b.txt"
LONG, SHORT = "Pick up the RED box", "Hand it over"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_openvla(tmp_path_factory.mktemp("openvla") / "openvla-tiny")


@pytest.fixture(scope="module")
def files(checkpoint: Path) -> OpenVLAFiles:
    return OpenVLAFiles.open(str(checkpoint))


def patch_cache(
    root: Path, files: OpenVLAFiles, cameras: tuple[str, ...] = ("top",), **changes: Any
) -> FeatureCache:
    """Write a cache of random patches that says it was made with the checkpoint's towers."""
    identity = fake_identity(
        type="openvla", id=files.name, weights_sha256=files.sha256(files.vision()), settings={}
    )
    values: dict[str, Any] = {
        "cameras": cameras,
        "tokens": PATCHES,
        "dim": VISION_DIM,
        "action_dim": 3,
        "state_dim": 2,
    }
    return write_cache(root, fake_spec((8, 7), encoder=identity, **{**values, **changes}))


@pytest.fixture(scope="module")
def cache(files: OpenVLAFiles, tmp_path_factory: pytest.TempPathFactory) -> FeatureCache:
    return patch_cache(tmp_path_factory.mktemp("cache") / "cache", files)


def made(cache: FeatureCache, checkpoint: Path, **changes: Any) -> OpenVLAPolicy:
    chosen: dict[str, Any] = {"model": str(checkpoint), "dtype": "float32", "tune": "projector", **changes}
    return OpenVLAPolicy.for_cache(OpenVLAConfig(**chosen), cache.metadata)


def some_patches(rows: int = 1) -> Tensor:
    return torch.randn(rows, PATCHES, VISION_DIM, generator=torch.Generator().manual_seed(3))


# --- the published files


def published() -> dict[str, tuple[int, ...]]:
    """Return the shapes of the published checkpoint's tensors, by name."""
    found = {}
    for line in PUBLISHED.read_text().splitlines():
        if not line.startswith("#"):
            name, count, shape = line.split()
            for number in range(int(count)):
                found[name.replace("*", str(number))] = tuple(map(int, shape.split("x")))
    assert len(found) == 982 and sum(int(np.prod(shape)) for shape in found.values()) == 7_541_237_184
    return found


def test_the_network_is_what_the_published_names_and_shapes_say() -> None:
    due = {own_name(n): s for n, s in published().items() if n.startswith(("projector.", "language_model."))}
    with torch.device("meta"):
        network = OpenVLANetwork({"model_type": "llama", "vocab_size": 32064}, 2176)
    assert {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()} == due


@pytest.mark.parametrize(("prefix", "width"), [("featurizer", 1024), ("fused_featurizer", 1152)])
def test_each_tower_takes_the_published_tensors_but_those_after_its_last_patches(
    prefix: str, width: int
) -> None:
    from transformers import Dinov2WithRegistersModel, SiglipVisionModel

    prefix = f"vision_backbone.{prefix}."
    shapes = {name.removeprefix(prefix): s for name, s in published().items() if name.startswith(prefix)}
    last = max(int(name.split(".")[1]) for name in shapes if name.startswith("blocks."))
    unused = (f"blocks.{last}.", "norm.", "attn_pool.")
    used: set[str] = set()

    class Tower(dict[str, Tensor]):
        def __getitem__(self, name: str) -> Tensor:
            used.add(name)
            return super().__getitem__(name)

    tower = Tower({n: torch.empty(s, device="meta") for n, s in shapes.items() if not n.startswith(unused)})
    is_dino = "cls_token" in shapes
    config, named = (as_dino if is_dino else as_siglip)(tower, 16, 224)
    assert used == set(tower) and config.hidden_size == width and config.num_hidden_layers == last
    with torch.device("meta"):
        model = (Dinov2WithRegistersModel if is_dino else SiglipVisionModel)(config)
    assert sum(t.numel() for t in named.values()) == sum(t.numel() for t in model.state_dict().values())


# --- tokens


def test_numbers_are_the_tokens_that_counting_edges_gives() -> None:
    tokens = ActionTokens(32_000, 256)
    numbers = torch.cat([torch.linspace(-1.2, 1.2, 1001), torch.tensor([-1.0, 0.0, 1.0])])
    edges = torch.linspace(-1, 1, 256)
    due = [32_000 - int((edges <= min(max(float(number), -1.0), 1.0)).sum()) for number in numbers]
    assert tokens.encode(numbers).tolist() == due
    assert tokens.encode(torch.tensor([-1.0, 1.0])).tolist() == [31_999, 31_744] and tokens.first == 31_744
    torch.testing.assert_close(
        tokens.decode(torch.tensor([31_999, 31_744])), torch.tensor([-1, 1]) * 254 / 255
    )


def test_a_token_comes_back_from_its_number_and_a_number_to_half_an_interval() -> None:
    tokens = ActionTokens(300, 256)
    ids = torch.arange(45, 300)  # of 256 tokens the largest number's has no middle of its own
    assert tokens.encode(tokens.decode(ids)).tolist() == ids.tolist()
    numbers = torch.rand(500, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert (tokens.decode(tokens.encode(numbers)) - numbers).abs().max() <= 1 / 255 + 1e-6


def test_the_prompt_is_the_published_one_in_lower_case_with_the_empty_word_at_its_end(
    checkpoint: Path,
) -> None:
    words = [
        "In",
        ":",
        "What",
        "action",
        "should",
        "the",
        "robot",
        "take",
        "to",
        "pick",
        "up",
        "the",
        "red",
        "box",
        "?",
        "Out",
        ":",
        "▁",
    ]
    assert Prompt(checkpoint / "tokenizer.json")("Pick up the RED box")["input_ids"] == [
        WORDS.index(w) for w in words
    ]


# --- the network


def slow_logits(weights: dict[str, Tensor], patches: Tensor, prompt: list[int], actions: list[int]) -> Tensor:
    """Compute what is expected of each action token of one sequence, head by head, in float64.

    Args:
        weights: of the whole checkpoint, by its names.
        patches: [N, V] of one image.
        prompt: token ids after <s>.
        actions: token ids.
    """
    w = {name: tensor.double() for name, tensor in weights.items()}

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0.0)

    def norm(x: Tensor, name: str) -> Tensor:
        return x / (x.square().mean(dim=-1, keepdim=True) + TEXT["rms_norm_eps"]).sqrt() * w[f"{name}.weight"]

    def turned(x: Tensor) -> Tensor:  # [S, D]: pair d, d + D/2 by position * 10000^(-2d/D)
        half = x.shape[1] // 2
        angle = torch.arange(len(x))[:, None] * 10_000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
        a, b = x[:, :half], x[:, half:]
        return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], dim=1)

    seen = linear(functional.gelu(linear(patches.double(), "projector.fc1")), "projector.fc2")
    seen = linear(functional.gelu(seen), "projector.fc3")
    table, root = w["language_model.model.embed_tokens.weight"], "language_model.model.layers"
    x = torch.cat([table[[1]], seen, table[prompt], table[actions[:-1]]])
    heads, groups = TEXT["num_attention_heads"], TEXT["num_key_value_heads"]
    future = torch.full((len(x), len(x)), -torch.inf, dtype=torch.float64).triu(1)
    for layer in range(TEXT["num_hidden_layers"]):
        at = f"{root}.{layer}"
        normed = norm(x, f"{at}.input_layernorm")
        read: list[Tensor] = []
        for head in range(heads):
            size = x.shape[1] // heads
            group = head // (heads // groups)
            query = turned(linear(normed, f"{at}.self_attn.q_proj")[:, head * size : (head + 1) * size])
            key = turned(linear(normed, f"{at}.self_attn.k_proj")[:, group * size : (group + 1) * size])
            value = linear(normed, f"{at}.self_attn.v_proj")[:, group * size : (group + 1) * size]
            read.append((query @ key.T / size**0.5 + future).softmax(dim=-1) @ value)
        x = x + linear(torch.cat(read, dim=1), f"{at}.self_attn.o_proj")
        normed = norm(x, f"{at}.post_attention_layernorm")
        gate = linear(normed, f"{at}.mlp.gate_proj")
        x = x + linear(gate * gate.sigmoid() * linear(normed, f"{at}.mlp.up_proj"), f"{at}.mlp.down_proj")
    return linear(norm(x, "language_model.model.norm"), "language_model.lm_head")[-len(actions) :]


def test_what_is_expected_is_what_the_slow_forward_pass_expects(files: OpenVLAFiles) -> None:
    network = load_network(files, torch.float32).eval()
    patches, actions = some_patches(2), torch.tensor([[299, 100, 44], [50, 51, 298]])
    prompts = [[4, 6, 15, 3], [4, 20, 3]]
    padded = torch.tensor([prompts[0], [*prompts[1], -1]])
    found = network.logits(patches, padded, actions)
    for row, prompt in enumerate(prompts):
        due = slow_logits(random_weights(), patches[row], prompt, actions[row].tolist())
        torch.testing.assert_close(found[row].double(), due, rtol=1e-3, atol=1e-3)
    assert (found[0] - found[1]).abs().max() > 0.1


def test_generation_takes_the_likeliest_token_each_time_and_padding_changes_none(files: OpenVLAFiles) -> None:
    network, allowed = load_network(files, torch.float32).eval(), range(44, 300)
    patches, prompts = some_patches(2), [[4, 6, 15, 3], [4, 20, 3]]
    together = network.generate(patches, torch.tensor([prompts[0], [*prompts[1], -1]]), 4, allowed)
    for row, prompt in enumerate(prompts):
        drawn: list[int] = []
        for _ in range(4):
            logits = slow_logits(random_weights(), patches[row], prompt, [*drawn, 0])[-1]
            drawn.append(int(logits[44:300].argmax()) + 44)
        assert together[row].tolist() == drawn
        alone = network.generate(patches[row : row + 1], torch.tensor([prompt]), 4, allowed)
        assert alone[0].tolist() == drawn


# --- the policy


def batch_of(policy: OpenVLAPolicy, cache: FeatureCache, texts: tuple[str, ...] = (LONG, SHORT)) -> Batch:
    ids = policy.read_tasks(texts)
    action = torch.tensor(np.array(cache.all("action")[: len(texts)]))[:, None]
    observation = {"top": some_patches(len(texts))[:, None].half(), "task": ids[:, None]}
    return Batch(
        observation=observation, action=action, action_is_pad=torch.zeros(len(texts), 1, dtype=torch.bool)
    )


def test_the_loss_is_the_cross_entropy_of_the_tokens_over_all_words(
    cache: FeatureCache, checkpoint: Path
) -> None:
    policy = made(cache, checkpoint)
    batch = batch_of(policy, cache)
    low, high = (
        torch.tensor(v)
        for v in (cache.metadata.statistics["action"].q01, cache.metadata.statistics["action"].q99)
    )
    scaled = 2 * (batch.action[:, 0] - low) / (high - low) - 1
    edges = torch.linspace(-1, 1, 256)
    errors: list[Tensor] = []
    for row, text in enumerate((LONG, SHORT)):
        tokens = [VOCABULARY - int((edges <= number.clamp(-1, 1)).sum()) for number in scaled[row]]
        prompt = Prompt(checkpoint / "tokenizer.json")(text)["input_ids"]
        logits = slow_logits(random_weights(), batch.observation["top"][row, 0], prompt, tokens)
        errors += [-logits[number].log_softmax(dim=0)[token] for number, token in enumerate(tokens)]
    loss, figures = policy.loss(batch, {})
    torch.testing.assert_close(loss.double(), torch.stack(errors).mean(), rtol=1e-4, atol=1e-4)
    assert 0 <= figures["token_accuracy"] <= 1


def test_actions_are_of_the_caches_quantiles_or_of_the_checkpoints_own_dataset(
    cache: FeatureCache, checkpoint: Path
) -> None:
    policy = made(cache, checkpoint)
    ends = torch.tensor([[[-1.0] * 3, [1.0] * 3]])
    statistics = cache.metadata.statistics["action"]
    torch.testing.assert_close(
        policy.in_robot_units(ends, None)[0], torch.tensor([statistics.q01, statistics.q99])
    )
    published = made(cache, checkpoint, tune="frozen", unnorm_key="bridge_orig")
    # The gripper's mask is False: the model's own number is the robot's.
    due = torch.tensor([[-2.0, 0.5, -1.0], [2.0, 1.5, 1.0]])
    torch.testing.assert_close(published.in_robot_units(ends, None)[0], due)


def test_an_action_is_the_middles_of_the_likeliest_tokens(cache: FeatureCache, checkpoint: Path) -> None:
    policy = made(cache, checkpoint).eval()
    batch = batch_of(policy, cache)
    actions, memory = policy.act(batch.observation)
    tokens = policy.network.generate(
        batch.observation["top"][:, 0], batch.observation["task"][:, 0], 3, range(44, 300)
    )
    torch.testing.assert_close(actions, policy.in_robot_units(policy.tokens.decode(tokens)[:, None], None))
    assert actions.shape == (2, 1, 3) and memory is None
    assert policy.samples(batch.observation, None, 0, count=2).shape == (2, 2, 1, 3)


def test_adapters_are_trained_and_saved_alone(cache: FeatureCache, checkpoint: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    policy = made(cache, checkpoint, tune="lora", lora={"r": 2, "alpha": 4.0})
    batch, plain = batch_of(policy, cache), made(cache, checkpoint, tune="frozen").eval()
    torch.testing.assert_close(policy.loss(batch, {})[0], plain.loss(batch, {})[0])  # they begin as nothing
    policy.train()
    policy.loss(batch, {})[0].backward()
    trained = {name for name, parameter in policy.named_parameters() if parameter.requires_grad}
    assert {name.split(".")[1] for name in trained} == {"projector", "model"} and all(
        "lora_" in n for n in trained
    )
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if name in trained:
                assert parameter.grad is not None
                parameter.add_(0.3 * torch.ones_like(parameter))
    assert not any("base_layer" in name or "lm_head" in name for name in policy.saved_state())
    policy.save_pretrained(tmp_path)
    again = load_policy(tmp_path)
    torch.testing.assert_close(again.act(batch.observation)[0], policy.eval().act(batch.observation)[0])
    assert (again.loss(batch, {})[0] - plain.loss(batch, {})[0]).abs() > 1e-3


def test_another_model_under_the_name_is_refused(cache: FeatureCache, tmp_path: Path) -> None:
    folder = write_openvla(tmp_path / "model")
    made(cache, folder).save_pretrained(tmp_path / "policy")
    load_policy(tmp_path / "policy")
    folder.rename(tmp_path / "former")
    write_openvla(folder, seed=1)
    with pytest.raises(
        CheckpointError, match=r"trained on the OpenVLA \w{12}, and .*model is \w{12} today; bring"
    ):
        load_policy(tmp_path / "policy")


def test_what_does_not_fit_is_named(
    cache: FeatureCache, files: OpenVLAFiles, checkpoint: Path, tmp_path: Path
) -> None:
    assert policy_config(type="openvla", model=str(checkpoint)).horizons.pred_horizon == 1
    with pytest.raises(ValueError, match=r"obs_horizon\n.*should be 1"):
        OpenVLAConfig.model_validate({"obs_horizon": 2, "pred_horizon": 2})
    with pytest.raises(ConfigError, match="no action statistics 'bridge'; did you mean 'bridge_orig'"):
        made(cache, checkpoint, unnorm_key="bridge")
    two = patch_cache(tmp_path / "two", files, ("top", "wrist"))
    with pytest.raises(
        ConfigError, match=r"sees one camera, and the cache has top, wrist; choose one: --set 'policy"
    ):
        made(two, checkpoint)
    assert [s.name for s in made(two, checkpoint, streams=("wrist",)).observes] == ["wrist"]
    with pytest.raises(ConfigError, match=f"vla embed --encoder {checkpoint}"):
        made(write_cache(tmp_path / "other", fake_spec()), checkpoint)
    with pytest.raises(ConfigError, match=r"whose vision towers are not those of .*other"):
        made(cache, write_openvla(tmp_path / "model" / "other", seed=1))
    with pytest.raises(ConfigError, match="the action has 3 numbers, those of 'kitchen' have 2"):
        made(cache, checkpoint, unnorm_key="kitchen")
    frozen = made(cache, checkpoint, tune="frozen").train()
    with pytest.raises(ConfigError, match="frozen leaves nothing to train; set it to lora"):
        frozen.loss(batch_of(frozen, cache), {})
