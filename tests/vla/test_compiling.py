"""Compiling: the same numbers and names; the training loss, derivative and all, is one graph."""

import copy
import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fakes import fake_images
from torch._dynamo.exc import TorchDynamoException

from vla.base.compiling import (
    LONG_TRAINING,
    compile_module,
    for_serving,
    for_training,
    require_graphs_in_threads,
    say_compiling,
)
from vla.base.errors import ConfigError
from vla.embed.encoders.siglip import SiglipConfig
from vla.embed.frozen_encoder import FrozenEncoder, padded_size


def test_a_compiled_module_keeps_its_names_weights_and_copies() -> None:
    plain = torch.nn.Sequential(Twice(), torch.nn.Linear(3, 2))
    compiled = copy.deepcopy(plain)
    compile_module(compiled, "on", backend="eager")
    x = torch.randn(4, 3)
    assert torch.equal(compiled(x), plain(x))
    assert compiled.state_dict().keys() == plain.state_dict().keys()
    assert torch.equal(copy.deepcopy(compiled)(x), plain(x))


class Twice(torch.nn.Module):
    """Of our own: torch leaves its own layers alone where they are called by themselves."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x


def test_what_auto_compiles_goes_on_uncompiled_where_the_compiler_fails(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def failing(graph: object, inputs: object) -> None:
        raise TypeError("Expected a number but got Mul")

    asked, chosen, one = Twice(), Twice(), torch.ones(1)
    compile_module(asked, "on", failing)
    with pytest.raises(TorchDynamoException, match="got Mul"):
        asked(one)
    compile_module(chosen, "on", failing, else_eager=True)
    assert (chosen(one), chosen(one)) == (2, 2)
    said = capsys.readouterr().err
    assert said.count("goes on uncompiled") == 1 and "Expected a number but got Mul" in said


@pytest.mark.slow
def test_the_loss_and_its_gradient_are_one_graph_and_the_same_numbers(tmp_path: Path) -> None:
    tests = Path(__file__).parents[1]
    finished = subprocess.run(
        [sys.executable, tests / "compiled_loss.py", tmp_path],
        env={**os.environ, "PYTHONPATH": f"{tests}:{tests.parent}"},
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    for difference in json.loads(finished.stdout).values():
        assert difference["loss"] < 1e-5 and difference["gradient"] < 1e-4
        assert difference["du_dt_rms"] > 0.1


def test_a_compiled_encoder_fills_up_passes_and_gives_the_same_features(
    encoder_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "vla.embed.frozen_encoder.compile_module", functools.partial(compile_module, backend="eager")
    )
    config = SiglipConfig(id=str(encoder_dir), device="cpu")
    plain = FrozenEncoder.load(config, ("top",))
    compiled = FrozenEncoder.load(config.model_copy(update={"compile": "on"}), ("top",))
    frames = {"top": fake_images(0, 9)}
    assert padded_size(9) > 9
    assert (compiled.encode(frames)["top"] - plain.encode(frames)["top"]).abs().max() < 2e-3


def test_filled_up_passes_have_few_sizes_and_little_waste() -> None:
    sizes = range(1, 1025)
    assert all(n <= padded_size(n) <= 1.25 * n for n in sizes)
    assert len({padded_size(n) for n in sizes}) < 40
    assert [padded_size(n) for n in (1, 3, 6, 48, 510)] == [1, 3, 6, 48, 512]


def test_graphs_in_a_thread_need_a_torch_that_makes_them_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", "2.12.1+cu130")
    require_graphs_in_threads("on", "rollout.compile")
    with pytest.raises(ConfigError, match=r"needs torch 2\.13 or later.*--set rollout\.compile=on"):
        require_graphs_in_threads("graphs", "rollout.compile")
    monkeypatch.setattr(torch, "__version__", "2.13.0+cu130")
    require_graphs_in_threads("graphs", "rollout.compile")


CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


def test_long_trainings_on_a_gpu_are_compiled_unless_something_else_is_asked() -> None:
    assert for_training("auto", GPU, LONG_TRAINING) == "graphs"
    assert for_training("auto", GPU, LONG_TRAINING - 1) == "off"
    assert for_training("auto", CPU, 10**6) == "off"
    assert for_training("off", GPU, 10**6) == "off"
    assert for_training("on", CPU, 1) == "on"


def test_a_policy_is_served_with_graphs_where_there_can_be_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", "2.13.0+cu130")
    assert (for_serving("auto", GPU), for_serving("auto", CPU)) == ("graphs", "off")
    monkeypatch.setattr(torch, "__version__", "2.12.1+cu130")
    assert (for_serving("auto", GPU), for_serving("graphs", GPU)) == ("on", "graphs")
    require_graphs_in_threads("auto", "rollout.compile")


def test_what_auto_has_chosen_is_said_with_how_to_switch_it_off(capsys: pytest.CaptureFixture[str]) -> None:
    say_compiling("graphs", "graphs", "train.compile")
    say_compiling("auto", "off", "train.compile")
    assert not capsys.readouterr().err
    say_compiling("auto", "graphs", "train.compile")
    assert "CUDA graphs" in (said := capsys.readouterr().err) and "--set train.compile=off" in said
