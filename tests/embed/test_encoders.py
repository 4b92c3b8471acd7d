"""The family of encoders: how one is chosen, and what an identity says of it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from vla.base.errors import ConfigError, EncoderError
from vla.cache import EncoderIdentity
from vla.embed import ENCODERS, FrozenEncoder, PixelsConfig, SiglipConfig, encoder_config
from vla.embed.text_encoders.text_encoder_family import of_encoder


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({}, SiglipConfig()),
        ("pixels", PixelsConfig()),
        ({"id": "pixels", "image_size": [96, 64]}, PixelsConfig(image_size=(96, 64))),
        ({"type": "pixels"}, PixelsConfig()),
        ({"id": "siglip2-tiny-sim", "pool": "grid2"}, SiglipConfig(id="siglip2-tiny-sim", pool="grid2")),
        ({"id": "somebody/dinov3"}, SiglipConfig(id="somebody/dinov3")),
        (PixelsConfig(device="cpu"), PixelsConfig(device="cpu")),
    ],
)
def test_an_encoder_is_chosen_by_its_type_its_id_or_else_is_a_siglip(value: Any, expected: object) -> None:
    assert ENCODERS.parse(value) == expected


def test_a_directory_that_says_what_it_holds_needs_no_type(encoder_dir: Path, tmp_path: Path) -> None:
    assert json.loads((encoder_dir / "config.json").read_text())["model_type"] in SiglipConfig.model_types
    assert ENCODERS.parse({"id": str(encoder_dir)}).type == "siglip"
    for text in ('{"model_type": "newer_vit"}', "{", "[]", '{"model_type": 3}'):
        (tmp_path / "config.json").write_text(text)
        assert ENCODERS.parse({"id": str(tmp_path)}).type == "siglip"  # which then says what is missing
    (tmp_path / "config.json").write_text('{"model_type": "dinov3_vit"}')
    assert ENCODERS.parse({"id": str(tmp_path)}).type == "dino"


def test_members_are_listed_and_an_unknown_one_names_them() -> None:
    assert {"pixels", "siglip"} <= ENCODERS.members().keys()
    with pytest.raises(ValueError, match=r"there is no encoder 'siglib'; did you mean 'siglip'"):
        ENCODERS.parse({"type": "siglib"})


def test_a_key_of_another_member_is_refused() -> None:
    with pytest.raises(ValueError, match="pool"):
        ENCODERS.parse({"id": "pixels", "pool": "grid4"})


@pytest.mark.parametrize(
    "made",
    [{"id": "siglip2-tiny-sim", "pool": "grid2"}, {"id": "pixels", "image_size": (32, 48)}],
)
def test_the_configuration_of_an_identity_loads_the_same_encoder(made: dict[str, Any]) -> None:
    first = FrozenEncoder.load(ENCODERS.parse({**made, "device": "cpu"}), ("top",))
    identity = EncoderIdentity.model_validate_json(first.identity.model_dump_json())
    config = encoder_config(identity, device="cpu", batch_size=3)
    again = FrozenEncoder.load(config, ("top",))
    assert again.identity == first.identity and again.writes == first.writes
    assert (config.device, config.batch_size, config.dtype) == ("cpu", 3, "auto")


def test_an_identity_that_describes_no_encoder_is_one_line() -> None:
    made = {"id": "somewhere", "weights_sha256": None, "dtype": "float32"}
    with pytest.raises(EncoderError, match=r"somewhere .* cannot be loaded") as caught:
        encoder_config(EncoderIdentity.model_validate({"type": "siglip", **made}))
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="there is no encoder 'os'"):
        encoder_config(EncoderIdentity.model_validate({"type": "os", **made}))
    pixels = EncoderIdentity.model_validate({"type": "siglip", **made, "settings": {"pooling": "mean"}})
    with pytest.raises(ConfigError, match=r"unknown key 'encoder\.devise'; did you mean 'device'"):
        encoder_config(pixels, devise="cpu")


def test_other_settings_are_another_encoder() -> None:
    cpu = torch.device("cpu")
    small, large = (PixelsConfig(image_size=(n, n)).build(("top",), cpu) for n in (8, 16))
    assert small.identity.digest != large.identity.digest
    assert small.writes[0].made_by == small.identity.digest


def test_pixels_have_no_text_tower() -> None:
    with pytest.raises(EncoderError, match="pixels has no text tower"):
        of_encoder(PixelsConfig()).load()


@pytest.mark.parametrize("size", [[0, 8], [8], [8, 1 << 20]])
def test_sizes_out_of_range_are_refused(size: list[int]) -> None:
    with pytest.raises(ValidationError):
        PixelsConfig.model_validate({"image_size": size})


def test_reading_a_configuration_imports_no_encoder_and_no_decoder() -> None:
    heavy = {"transformers", "datasets", "av", "PIL", "h5py", "pandas"}
    program = (
        "import sys; from vla.embed import ENCODERS, DatasetConfig; ENCODERS.parse({}); "
        f"print(*sorted({heavy!r} & set(sys.modules)))"
    )
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert finished.stdout.split() == []
