"""How long a training will take is said early, on a CPU, with a size that would be shorter."""

import pytest
import torch

from vla.policy.training.outlook import ADVICE, Outlook, forecast, spell

CPU = torch.device("cpu")


def test_a_long_training_names_a_smaller_size_and_a_short_one_does_not() -> None:
    assert forecast(0.25, 1200) == "a step takes 0.25 s, all 1,200 about 5 minutes"
    assert forecast(52.0, 50_000) == f"a step takes 52 s, all 50,000 about 30.1 days; {ADVICE}"


def test_durations_are_spelt_in_a_unit_that_people_use() -> None:
    assert [spell(s) for s in (3.0, 130.0, 8000.0, 2e5)] == ["3 seconds", "2 minutes", "2 hours", "2.31 days"]


def test_it_is_said_once_after_a_slow_step_or_some_quick_ones(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr("vla.policy.training.outlook.time.monotonic", lambda: now[0])
    for step_s, due in ((40.0, 1), (0.1, 10)):
        outlook = Outlook(CPU, 1000, 64, 100)
        said: list[str] = []
        for _ in range(12):
            now[0] += step_s
            outlook.step()
            said.append(capsys.readouterr().err)
        assert [bool(line) for line in said].index(True) == due - 1
        assert sum(map(bool, said)) == 1
        assert f"a step takes {step_s:.2g} s" in said[due - 1]


def test_a_full_size_policy_on_a_cpu_is_named_before_its_first_step(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Outlook(CPU, 22_000_000, 256, 50_000)
    assert "22 million weights and batches of 256 on a CPU" in capsys.readouterr().err
    Outlook(CPU, 1_000_000, 64, 2500)
    Outlook(CPU, 22_000_000, 256, 0)  # nothing is trained
    Outlook(CPU, 22_000_000, 256, 50_000, quiet=True)
    Outlook(torch.device("meta"), 22_000_000, 256, 50_000)
    assert capsys.readouterr().err == ""
