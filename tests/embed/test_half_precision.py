"""bfloat16 on a CPU: close to float32, named where it pays, and never chosen behind anybody's back."""

from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import fake_images

from vla.base import device
from vla.embed import ENCODERS, FrozenEncoder, half_precision

XEON = "processor : 0\nflags\t\t: fpu avx512f avx512_bf16 amx_tile amx_bf16\n"


def cpu(monkeypatch: pytest.MonkeyPatch, folder: Path, text: str) -> None:
    (folder / "cpuinfo").write_text(text)
    monkeypatch.setattr(device, "CPUINFO", folder / "cpuinfo")


CPU, LARGE = torch.device("cpu"), 30_000_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (XEON, True),
        ("Features : fp asimd bf16 i8mm\n", True),
        ("flags : fpu avx2 avx512f\nmodel name : amx_bf16\n", False),
        ("", False),
    ],
)
def test_what_multiplies_bfloat16_is_read_from_the_processors_flags(
    text: str, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpu(monkeypatch, tmp_path, text)
    assert device.multiplies_bfloat16() is expected
    monkeypatch.setattr(device, "CPUINFO", tmp_path / "missing")
    assert not device.multiplies_bfloat16()


@pytest.mark.parametrize(
    ("config", "where", "weights", "text"),
    [
        ({"dtype": "float32"}, "cpu", LARGE, XEON),
        ({"id": "pixels"}, "cpu", LARGE, XEON),
        ({}, "cpu", 2_000_000, XEON),
        ({}, "cuda", LARGE, XEON),
        ({}, "cpu", LARGE, "flags : avx2\n"),
    ],
    ids=["chosen", "no weights", "small", "on a GPU", "another CPU"],
)
def test_nothing_is_said_where_it_would_not_help(
    config: dict[str, Any],
    where: str,
    weights: int,
    text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cpu(monkeypatch, tmp_path, text)
    half_precision.say_what_bfloat16_saves(ENCODERS.parse(config), torch.device(where), weights)
    assert capsys.readouterr().err == ""


def test_a_large_tower_on_such_a_cpu_is_told_the_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cpu(monkeypatch, tmp_path, XEON)
    half_precision.say_what_bfloat16_saves(ENCODERS.parse({}), CPU, LARGE)
    said = capsys.readouterr().err
    assert "--set encoder.dtype=bfloat16" in said and said.count("\n") == 1


def test_arithmetic_stays_float32_on_such_a_cpu_unless_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpu(monkeypatch, tmp_path, XEON)
    assert device.choose_dtype("auto", CPU) == "float32"
    assert device.choose_dtype("bfloat16", CPU) == "bfloat16"


def cosine_to_float32(frames: Any) -> float:
    """Return the least cosine of features in bfloat16 to those in float32."""
    full, half = (
        FrozenEncoder.load(
            ENCODERS.parse({"id": "siglip2-tiny-sim", "device": "cpu", "dtype": dtype}), ("top",)
        ).encode({"top": frames})["top"][:, 0]
        for dtype in ("float32", "bfloat16")
    )
    return float(torch.nn.functional.cosine_similarity(full.float(), half.float()).min())


def test_features_in_bfloat16_point_where_those_in_float32_do() -> None:
    assert cosine_to_float32(fake_images(0, 2)) > 0.999


@pytest.mark.skipif(
    not device.multiplies_bfloat16(), reason="this CPU does not multiply bfloat16 in hardware"
)
def test_the_products_of_the_processor_itself_keep_to_that_too() -> None:
    assert cosine_to_float32(fake_images(1, 16)) > 0.999
