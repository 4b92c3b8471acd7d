"""LEWM checkpoints as people have them: layouts, sizes, names, and what is refused in which words."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_lewm import old_names, small_vision, write_lightning
from fakes import CAMERAS
from safetensors.torch import save_file

from vla.base.errors import EncoderError
from vla.base.lewm import LewmInput, LewmVision, VisionSizes, fuse, prepare
from vla.base.vit_names import load_named, named_tensors, new_name
from vla.cache import EncoderIdentity
from vla.embed import ENCODERS, FrozenEncoder, encoder_config
from vla.embed.encoders.lewm_checkpoint import load_lewm


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder as `vla pretrain lewm` leaves it."""
    folder = tmp_path_factory.mktemp("lewm") / "run"
    last = folder / "checkpoints/000010"
    last.mkdir(parents=True)
    looks_at = LewmInput(cameras=CAMERAS, layout="column", view_size=(16, 16), image_size=16)
    for place in (folder, last):
        (place / "config.json").write_text(looks_at.model_dump_json())
    save_file(named_tensors(small_vision()), last / "model.safetensors")
    (folder / "checkpoints/last").symlink_to("000010")
    return folder


def load(path: Path, cameras: tuple[str, ...] = CAMERAS, **changes: Any) -> FrozenEncoder:
    return FrozenEncoder.load(ENCODERS.parse({"id": str(path), "device": "cpu", **changes}), cameras)


def test_views_are_fused_in_order() -> None:
    views = [torch.full((1, 2, 3, 3), value, dtype=torch.uint8) for value in (1, 2, 3)]
    assert fuse(views, "row")[0, 0, :, 0].tolist() == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert fuse(views, "column")[0, :, 0, 0].tolist() == [1, 1, 2, 2, 3, 3]
    grid = fuse(views, "grid")[0, :, :, 0]
    assert grid.tolist() == [[1, 1, 1, 2, 2, 2]] * 2 + [[3, 3, 3, 0, 0, 0]] * 2
    assert fuse(views[:1], "grid").shape == (1, 2, 6, 3) and torch.equal(fuse(views[:1], "row"), views[0])


def test_the_shorter_side_gets_the_size_and_colours_are_normalised() -> None:
    image = torch.full((1, 20, 50, 3), 255, dtype=torch.uint8)
    pixels = prepare(image, 16)
    assert pixels.shape == (1, 3, 16, 40)
    due = (1 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(pixels[0, :, 5, 5], due)
    assert prepare(torch.zeros(1, 50, 20, 3, dtype=torch.uint8), 16).shape == (1, 3, 40, 16)


def test_both_spellings_of_a_vit_are_one() -> None:
    state = small_vision().state_dict()
    assert {new_name(name) for name in old_names(state)} == {new_name(name) for name in state}
    filled = LewmVision(small_vision().sizes)
    load_named(filled, {new_name(name): tensor for name, tensor in old_names(state).items()})
    assert all(torch.equal(tensor, state[name]) for name, tensor in filled.state_dict().items())


def test_a_run_is_recognised_and_says_what_it_looks_at(run: Path) -> None:
    found = load(run)
    assert found.identity.type == "lewm"
    assert found.identity.settings == {"layout": "column", "view_size": [16, 16], "image_size": 16}
    assert load(run / "checkpoints/000010").identity.digest == found.identity.digest
    identity = EncoderIdentity.model_validate_json(found.identity.model_dump_json())
    again = FrozenEncoder.load(encoder_config(identity, device="cpu"), identity.reads)
    assert again.identity == found.identity and again.writes == found.writes


def test_other_views_or_another_layout_than_it_was_trained_with_are_refused(run: Path) -> None:
    with pytest.raises(EncoderError, match=r"front, in this order, not through top, r_vis: --set"):
        load(run, ("top", "r_vis"))
    with pytest.raises(EncoderError, match=r'layout = "column", not "row"; leave encoder\.layout out'):
        load(run, layout="row")
    assert load(run, layout="column").identity == load(run).identity


class Trap:
    """What a pickle would run."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("trapped"),))


def test_a_pickle_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": small_vision().state_dict(), "hyper": Trap()}, "more.ckpt")
    Path("bare.ckpt").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(EncoderError, match=r"more\.ckpt holds more than tensors, .*: python -c"):
        load_lewm("more.ckpt")
    with pytest.raises(EncoderError, match=r"bare\.ckpt"):
        load_lewm("bare.ckpt")
    assert not Path("trapped").exists()


def broken(folder: Path, **changes: Any) -> str:
    """Write a checkpoint with some tensors replaced, or left out if None."""
    state = {**small_vision().state_dict(), **changes}
    torch.save({k: v for k, v in state.items() if v is not None}, folder / "weights.pt")
    return str(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"projector.net.1.running_mean": None}, r"lacks 'projector\.net\.1\.running_mean'"),
        ({"encoder.layernorm.bias": None}, r"lacks 'encoder\.layernorm\.bias'"),
        ({"encoder.pooler.dense.bias": torch.zeros(3)}, r"has an unexpected 'encoder\.pooler\.dense\.bias'"),
        ({"projector.net.3.bias": torch.zeros(3)}, r"has an unexpected 'projector\.net\.3\.bias'"),
        ({"encoder.embeddings.cls_token": None}, r"should have one ViT, .* and has none"),
        ({"more.encoder.embeddings.cls_token": torch.zeros(3)}, r"one ViT, .* and has 2 of them"),
        ({"encoder.embeddings.position_embeddings": torch.zeros(1, 16, 64)}, r"for 15 patches; LEWM's have"),
    ],
)
def test_what_is_no_lewm_encoder_is_refused_naming_the_tensor(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(EncoderError, match=message) as caught:
        load_lewm(broken(tmp_path, **changes))
    assert "\n" not in str(caught.value)


def test_a_place_without_one_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=r"no LEWM checkpoint at .*nowhere; name a \.ckpt of Lightning"):
        load_lewm(str(tmp_path / "nowhere"))
    with pytest.raises(EncoderError, match="holds no weights"):
        load_lewm(str(tmp_path))
    for name in ("a.ckpt", "b.ckpt"):
        write_lightning(tmp_path / name, small_vision())
    with pytest.raises(EncoderError, match=r"holds 2 checkpoints \(a\.ckpt, b\.ckpt\)"):
        load_lewm(str(tmp_path))
    for name, data in (("x.pt", b"nothing"), ("x.safetensors", b"nothing"), ("y.pt", b"")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(EncoderError, match=rf"{name} (cannot be read|holds more)"):
            load_lewm(str(tmp_path / name))
    torch.save([1, 2], tmp_path / "z.pt")
    with pytest.raises(EncoderError, match="holds no table of tensors"):
        load_lewm(str(tmp_path / "z.pt"))


def test_a_description_that_is_not_valid_is_refused(tmp_path: Path) -> None:
    save_file(small_vision().state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "lewm", "cameras": ["top"]}))
    with pytest.raises(EncoderError, match=r"config\.json: key 'layout' is missing"):
        load_lewm(str(tmp_path))


def test_the_papers_sizes_are_the_defaults() -> None:
    vision = LewmVision(VisionSizes())
    counts = [sum(p.numel() for p in part.parameters()) for part in (vision.encoder, vision.projector)]
    assert counts == [5_501_376, 792_768]
