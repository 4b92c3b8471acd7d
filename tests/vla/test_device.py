"""Which device a name means."""

import pytest
import torch

from vla.base.device import choose_device
from vla.base.errors import ConfigError


@pytest.fixture
def four_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)


@pytest.mark.parametrize("name", ["auto", "cuda"])
def test_a_gpu_without_number_is_that_of_this_process(
    name: str, four_gpus: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert choose_device(name) == torch.device("cuda", 0)
    monkeypatch.setenv("LOCAL_RANK", "2")
    assert choose_device(name) == torch.device("cuda", 2)
    assert choose_device("cuda:1") == torch.device("cuda", 1)


def test_a_process_that_there_is_no_gpu_for_is_refused(
    four_gpus: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "4")
    with pytest.raises(ConfigError, match="device 'cuda:4' is not available here"):
        choose_device("auto")


def test_a_device_that_is_not_there_or_not_known_is_refused(four_gpus: None) -> None:
    with pytest.raises(ConfigError, match="device 'cuda:4' is not available here; use auto or cpu"):
        choose_device("cuda:4")
    with pytest.raises(ConfigError, match="no device is called 'gpu'; use auto, cuda, cuda:N, mps or cpu"):
        choose_device("gpu")
