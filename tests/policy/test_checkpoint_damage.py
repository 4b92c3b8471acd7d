"""Checkpoints that are damaged or come from strangers: named, never run, and they take no memory."""

import copy
import json
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_faults import flip_bit, truncate
from fakes import fake_spec, write_cache
from safetensors.torch import load_file, save_file
from test_train import POLICY, settings

from vla.base.errors import CheckpointError
from vla.cache import FeatureCache
from vla.policy.agents.policy import load_policy
from vla.policy.training.run import RunDirectory
from vla.policy.training.run_damage import run_problems
from vla.policy.training.train import train

STEP = "checkpoints/000008"
WEIGHTS = f"{STEP}/pretrained_model/model.safetensors"
CONFIG = f"{STEP}/pretrained_model/config.json"
OPTIMIZER = f"{STEP}/training_state/optimizer_state.safetensors"
NUMBER = f"{STEP}/training_state/training_step.json"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, FeatureCache]:
    """Return a run of 8 steps and its cache; copy it, do not change it."""
    root = tmp_path_factory.mktemp("trained")
    cache = write_cache(root / "cache", fake_spec(lengths=(12, 9, 10)))
    run = RunDirectory.create(root / "run")
    run.config.write_text("[train]\nsteps = 8\n")
    train(run, cache, POLICY, settings())
    return run.path, cache


@pytest.fixture
def run(trained: tuple[Path, FeatureCache], tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained[0], tmp_path / "run", symlinks=True))


def point_best_at(run: Path, step: str) -> None:
    (run / "checkpoints/best").unlink()
    (run / "checkpoints/best").symlink_to(step)


def without_checksums(run: Path) -> None:
    """Do as somebody who made the checkpoint up: there is nothing to hold its bytes against."""
    (run / STEP / "checksums.json").unlink()


def test_a_whole_run_has_no_problems(run: Path) -> None:
    assert run_problems(run) == []


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda r: flip_bit(r / WEIGHTS), r"model\.safetensors has other bytes than were written"),
        (lambda r: truncate(r / OPTIMIZER), r"optimizer_state\.safetensors has other bytes"),
        (lambda r: (r / CONFIG).unlink(), r"config\.json is missing"),
        (lambda r: (r / STEP / "checksums.json").write_text("[]"), "is no table of checksums"),
        (lambda r: (r / STEP / "checksums.json").write_text("{"), "cannot be read"),
        (
            lambda r: (r / STEP / "checksums.json").write_text('{"../../x": "0"}'),
            "leads out of the checkpoint",
        ),
    ],
)
def test_a_damaged_checkpoint_is_named_by_verify_and_by_resume(
    run: Path, trained: tuple[Path, FeatureCache], harm: Callable[[Path], object], message: str
) -> None:
    harm(run)
    with pytest.raises(CheckpointError, match=message):
        raise CheckpointError("\n".join(run_problems(run)))
    with pytest.raises(CheckpointError, match=rf"{message}.*rm -r .*000008"):
        train(RunDirectory(run), trained[1], POLICY, settings())


def test_the_command_that_removes_a_checkpoint_means_that_one_whatever_the_runs_name(
    run: Path, trained: tuple[Path, FeatureCache]
) -> None:
    run = run.rename(run.with_name("all my runs; 2"))
    flip_bit(run / WEIGHTS)
    point_best_at(run, "000006")
    with pytest.raises(CheckpointError) as caught:
        train(RunDirectory(run), trained[1], POLICY, settings())
    damaged, dangling = run_problems(run)
    for line in (str(caught.value), damaged):
        assert shlex.split(line.rpartition(": ")[2]) == ["rm", "-r", str(run / STEP)]
    assert shlex.split(dangling.rpartition(": ")[2]) == ["rm", str(run / "checkpoints/best")]


def test_without_the_damaged_checkpoint_resume_goes_on_from_the_one_before(
    run: Path, trained: tuple[Path, FeatureCache]
) -> None:
    good = (run / WEIGHTS).read_bytes()
    flip_bit(run / WEIGHTS)
    shutil.rmtree(run / STEP)
    assert train(RunDirectory(run), trained[1], POLICY, settings()).resumed_from == 4
    assert (run / WEIGHTS).read_bytes() == good


def test_weights_that_are_not_finite_are_found(run: Path) -> None:
    tensors = load_file(run / WEIGHTS)
    tensors["fusion.cond_projector.bias"][0] = float("nan")
    save_file(tensors, run / WEIGHTS)
    without_checksums(run)
    missing, bad = run_problems(run)
    assert "has no checksums.json" in missing
    assert "a value in 'fusion.cond_projector.bias' that is not finite" in bad


def test_lines_that_are_no_figures_and_links_to_nowhere_are_found(run: Path) -> None:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    (run / "metrics.jsonl").write_text("\n".join([lines[0], "###", *lines[1:], '{"step": 9, "lo']))
    point_best_at(run, "000006")
    problems = run_problems(run)
    assert "has 1 lines that are no figures" in problems[0]  # a torn last line is what a kill leaves
    assert "best leads to a checkpoint that is gone" in problems[1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "has no number 'step'"),
        ('{"step": "8"}', "has no number 'step'"),
        ('{"step": -1}', "has no number 'step'"),
        ("[" * 100_000, "is no JSON"),
        ("{", "Expecting"),
    ],
)
def test_a_step_that_is_none_is_refused(
    run: Path, trained: tuple[Path, FeatureCache], text: str, message: str
) -> None:
    (run / NUMBER).write_text(text)
    without_checksums(run)
    with pytest.raises(CheckpointError, match=f"cannot be continued from: .*{message}"):
        train(RunDirectory(run), trained[1], POLICY, settings())


def test_an_optimiser_state_that_lacks_something_is_not_silently_begun_anew(
    run: Path, trained: tuple[Path, FeatureCache]
) -> None:
    tensors = load_file(run / OPTIMIZER)
    del tensors["fusion.cond_projector.bias/exp_avg"]
    save_file(tensors, run / OPTIMIZER)
    without_checksums(run)
    with pytest.raises(CheckpointError, match=r"optimiser state of 'fusion\.cond_projector\.bias' is"):
        train(RunDirectory(run), trained[1], POLICY, settings())


def test_sizes_that_a_policy_claims_take_no_memory(run: Path) -> None:
    path = run / CONFIG
    config = json.loads(path.read_bytes())
    config["policy"] |= {"n_emb": 1 << 16, "n_layer": 64}  # 16 TB of weights
    path.write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"model\.safetensors does not fit config\.json: tensor"):
        load_policy(path.parent)


TEXT_ENCODER = {"weights_sha256": "c" * 64, "feature_dim": 8, "max_length": 64}
WIDTHS = (
    *("text_encoder.feature_dim", "policy.per_view_dim", "policy.language_dim", "policy.cond_dim"),
    "policy.n_emb",
)


def places_of_integers(tree: Any, prefix: str = "") -> Iterator[str]:
    """Yield the dotted name of each, with positions in lists."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        if type(value) is int:
            yield f"{prefix}{key}"
        else:
            yield from places_of_integers(value, f"{prefix}{key}.")


def put(tree: Any, place: str, value: int) -> None:
    *path, key = place.split(".")
    for part in path:
        tree = tree[int(part) if isinstance(tree, list) else part]
    tree[int(key) if isinstance(tree, list) else key] = value


@pytest.mark.parametrize("head", ["imf", "flow", "ddpm", "mlp", "autoregressive", "fast"])
def test_no_size_that_a_policy_claims_is_beyond_what_is_answered_in_one_line(run: Path, head: str) -> None:
    folder = (run / CONFIG).parent
    config = json.loads((run / CONFIG).read_bytes()) | {"text_encoder": TEXT_ENCODER}
    config["policy"] |= {"head": head, "language": True}
    if head == "mlp":
        config["policy"]["head"] = {"type": "mlp", "width": 32}
    config["encoders"] = {digest: {**one, "settings": {}} for digest, one in config["encoders"].items()}

    def load(changes: Mapping[str, int]) -> None:
        changed = copy.deepcopy(config)
        for place, value in changes.items():
            put(changed, place, value)
        (run / CONFIG).write_text(json.dumps(changed))
        load_policy(folder)

    places = list(places_of_integers(config))
    widths = WIDTHS + (("policy.head.width",) if head == "mlp" else ())
    sizes = [place for place in places if ".shape." in place]
    assert {*places} >= {*widths} and {"streams.0.shape.1", "streams.3.shape.0", "action.shape.0"} <= {*sizes}
    for place in places:
        for value in (2**31, 2**63 - 1, 10**30):
            with pytest.raises(CheckpointError):
                load({place: value})
    for place in widths:
        with pytest.raises(CheckpointError, match=f"'{place}' = 65537 is not valid"):
            load({place: 65537})
    for place in sizes:
        with pytest.raises(CheckpointError, match=r"does not fit|no such shape"):
            load({place: 1 << 24})
        with pytest.raises(CheckpointError, match="no such shape"):
            load({place: 0})
    with pytest.raises(CheckpointError, match=r"does not fit config\.json: tensor"):
        load({**dict.fromkeys(widths, 65536), **dict.fromkeys(sizes, 1 << 24)})


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("policy", {"type": "os"}, "there is no policy 'os'"),
        ("policy", {"head": "os"}, "there is no action head 'os'"),
        ("policy", {"trunks": {"top": "conv"}}, "trunk 'conv' reads image"),
        ("encoders", {}, "is missing"),
        ("format_version", 3, "'format_version' = 3 is not valid"),
        ("streams", [], "streams"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused_in_one_line(
    run: Path, place: str, value: object, message: str
) -> None:
    path = run / CONFIG
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {place: value}))
    with pytest.raises(CheckpointError, match=message):
        load_policy(path.parent)


def test_endless_work_is_not_asked_for(run: Path) -> None:
    path = run / CONFIG
    config = json.loads(path.read_bytes())
    config["policy"] |= {"n_layer": 10**9}
    path.write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"'policy\.n_layer' = 1000000000 is not valid"):
        load_policy(path.parent)


def test_a_pickle_in_the_place_of_weights_is_not_opened(run: Path, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "sprung",))  # type: ignore[return-value]

    torch.save({"weights": Trap()}, run / WEIGHTS)
    with pytest.raises(CheckpointError, match="cannot be read as safetensors"):
        load_policy(run / STEP / "pretrained_model")
    assert not (tmp_path / "sprung").exists()
