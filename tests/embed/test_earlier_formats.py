"""A finished cache of format 1 or 2 is not made again."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_faults import flip_bit
from fakes import write_tokenizer, write_two_tower_checkpoint
from safetensors.numpy import load_file, save_file

from vla.base.files import sha256_of
from vla.cache import Augmentation, CacheConfig, CacheMetadata, FeatureCache, version1, version2
from vla.embed import DatasetConfig, EmbedReport, FrozenEncoder, SiglipConfig, embed, encoder_config
from vla.embed.datasets import open_source
from vla.embed.datasets.dataset_config import dataset_of
from vla.embed.reencode import reencode_problems


def run(dataset: Path, encoder: Path, out: Path, variants: int = 0, **settings: Any) -> EmbedReport:
    return embed(
        DatasetConfig(path=str(dataset)),
        SiglipConfig.model_validate({"id": str(encoder), "device": "cpu", **settings}),
        CacheConfig(path=str(out), shard_frames=4),
        Augmentation(variants=variants),
    )


def header_of(made: CacheMetadata, dataset: Path, version: int) -> dict[str, Any]:
    """Return the header that format 1 or 2 had for a cache, but for its shards."""
    files = open_source(DatasetConfig(path=str(dataset))).files_sha256()
    identity = made.dataset.model_copy(update={"content_sha256": files})
    statistics = {name: found.model_dump(mode="json") for name, found in made.statistics.items()}
    header = {
        "format_version": version,
        "augmentation": made.augmentation.model_dump(mode="json"),
        "num_frames": made.num_frames,
        "frames_per_shard": made.parts[0].frames_per_shard,
        "episodes": [episode.model_dump(mode="json") for episode in made.episodes],
    }
    encoder, (tokens, dim) = made.encoder, made.stream("top").shape
    assert encoder is not None
    if version == 2:
        return header | {
            "fingerprint": version2.fingerprint(identity, made.streams, made.augmentation),
            "dataset": identity.model_dump(mode="json"),
            "streams": [stream.model_dump(mode="json") for stream in made.streams],
            "encoders": {key: value.model_dump(mode="json") for key, value in made.encoders.items()},
            "statistics": statistics,
        }
    vectors = ("state", "action")
    return header | {
        "fingerprint": version1.fingerprint(identity, encoder, made.encoded, made.augmentation),
        "dataset": identity.model_dump(mode="json", exclude={"keys"})
        | {f"{name}_key": made.dataset.keys[name] for name in vectors},
        "encoder": encoder.model_dump(mode="json", include={"id", "revision", "weights_sha256", "dtype"})
        | {"pooling": encoder.settings["pooling"], "feature_dim": dim, "tokens": tokens},
        "preprocessing": {key: value for key, value in encoder.settings.items() if key != "pooling"},
        "camera_names": list(made.encoded),
        **{f"{name}_dim": made.stream(name).shape[0] for name in vectors},
        **{f"{name}_statistics": statistics[name] for name in vectors},
        "feature_statistics": {
            name: {key: statistics[name][key] for key in ("mean", "std")} for name in made.encoded
        },
    }


@pytest.fixture(params=[1, 2])
def old(request: pytest.FixtureRequest, dataset: Path, encoder_dir: Path, tmp_path: Path) -> FeatureCache:
    """Return a cache of format 1 or 2, in a folder of its own."""
    made = FeatureCache(run(dataset, encoder_dir, tmp_path / "new", variants=0).cache)
    header = header_of(made.metadata, dataset, request.param)
    folder = tmp_path / "features" / f"demos-siglip-{header['fingerprint']}"
    (folder / "shards").mkdir(parents=True)
    header["shards"] = []
    prefix = "features." if request.param == 1 else ""
    for number, file in enumerate(made.files()):
        tensors = load_file(file)
        named = {f"{prefix}{k}" if k in made.metadata.encoded else k: v for k, v in tensors.items()}
        frames = len(tensors["state"])
        place = {"fingerprint": header["fingerprint"], "first_frame": 4 * number, "frames": frames}
        path = folder / f"shards/{file.name}"
        save_file(named, path, metadata={"shard": json.dumps(place)})
        header["shards"].append({"file": f"shards/{file.name}", "frames": frames, "sha256": sha256_of(path)})
    (folder / "cache.json").write_text(json.dumps(header))
    return FeatureCache(folder)


def test_it_is_named_and_nothing_is_encoded(
    old: FeatureCache, dataset: Path, encoder_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FrozenEncoder, "forward", lambda *_: pytest.fail("encoded"))
    report = run(dataset, encoder_dir, old.folder.parent)
    assert (report.cache, report.shards_encoded) == (str(old.folder), 0)
    assert report.fingerprint == old.metadata.fingerprint
    assert [path.name for path in old.folder.parent.glob("[!.]*")] == [old.folder.name]


def test_it_is_what_its_dataset_and_its_encoder_give_now(old: FeatureCache) -> None:
    assert old.metadata.encoder is not None
    config = encoder_config(old.metadata.encoder, device="cpu")
    problems, worst = reencode_problems(old, dataset_of(old), config, count=2)
    assert problems == [] and worst < 0.5


def test_one_that_is_damaged_is_made_anew(
    old: FeatureCache, dataset: Path, encoder_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flip_bit(old.folder / "shards/00001.safetensors")
    report = run(dataset, encoder_dir, old.folder.parent)
    assert report.cache != str(old.folder) and report.shards_encoded == 3
    assert "of an earlier format and damaged" in capsys.readouterr().err


@pytest.mark.parametrize("variants", [0, 1])
def test_where_texts_are_asked_for_features_are_copied_unless_their_variants_are_others_now(
    variants: int, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = write_tokenizer(write_two_tower_checkpoint(tmp_path / "two-tower"))
    made = FeatureCache(run(dataset, encoder, tmp_path / "new", variants=variants).cache)
    assert made.metadata.texts is None
    monkeypatch.setattr("vla.embed.engine.earlier_cache", lambda *_: made)
    if not variants:
        monkeypatch.setattr(FrozenEncoder, "forward", lambda *_: pytest.fail("encoded"))
    report = run(dataset, encoder, tmp_path / "features", variants=variants, language=True)
    assert report.texts == 1 and report.shards_encoded == 3 * variants
    found = FeatureCache(report.cache)
    assert all(np.array_equal(found.all(name), made.all(name)) for name in made.streams)
