"""Policies for others: a folder with a model card, the same actions after loading, the Hub."""

import json
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tomli_w
import torch
import yaml
from fakes import awake_agent, write_cache
from huggingface_hub.errors import LocalEntryNotFoundError

from vla.base.errors import CheckpointError
from vla.base.files import sha256_of
from vla.config import PipelineConfig
from vla.policy.agents.vla_agent import VLAAgent, VLAAgentConfig
from vla.policy.random import GivenNoise
from vla.policy.sharing.hub import locate
from vla.policy.training.run import find_policy, find_run
from vla.saved import default_rollout_folder, saved_tables
from vla.stages import share

SMALL = VLAAgentConfig(per_view_dim=4, cond_dim=8, n_emb=16, n_layer=1, n_head=2)
EVALUATION = {
    "per_episode": [{"episode_ix": i, "seed": 1000 + i, "success": i < 3} for i in range(4)],
    "aggregated": {"pc_success": 75.0, "pc_success_ci95": [30.1, 95.4], "n_episodes": 4},
    "avg_reward": 12.5,
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Return a run with one checkpoint and one evaluation of it."""
    cache = write_cache(tmp_path / "cache")
    folder = tmp_path / "run"
    policy = folder / "checkpoints/000004/pretrained_model"
    awake_agent(VLAAgent.for_cache(SMALL, cache.metadata)).save_pretrained(policy)
    (folder / "checkpoints/last").symlink_to("000004")
    settings = {
        "env": {"id": "my/Env-v3"},
        "train": {"out": "/home/me/run", "device": "cuda:3", "lr": 1e-3},
        "cache": {"path": "/home/me/features"},
        "encoder": {"device": "cuda:3", "workers": 60, "batch_size": 4096, "compile": "graphs"},
        "rollout": {"weights": "raw", "seed": 7},
    }
    (folder / "pipeline.toml").write_text(tomli_w.dumps(settings))
    evaluation = folder / "eval/rollout_000004_seed1000_episodes4"
    evaluation.mkdir(parents=True)
    (evaluation / "eval_info.json").write_text(json.dumps(EVALUATION))
    return folder


def card_of(folder: Path) -> tuple[dict[str, Any], str]:
    """Return the header and the body of a model card."""
    _, header, body = (folder / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(header), body


def test_a_shared_policy_gives_the_same_actions(run: Path, tmp_path: Path) -> None:
    share(run, tmp_path / "shared")
    original = VLAAgent.from_pretrained(find_policy(run))
    loaded = VLAAgent.from_pretrained(str(tmp_path / "shared"))
    assert loaded.config == original.config
    observation = {stream.name: torch.randn(2, 2, *stream.shape) for stream in original.observes}
    noise = GivenNoise(torch.randn(2, 16, 16))
    chunks = [agent.predict_action_chunk(observation, 1, noise) for agent in (original, loaded)]
    torch.testing.assert_close(chunks[0], chunks[1], rtol=0, atol=0)
    assert {path.name for path in (tmp_path / "shared").iterdir()} == {
        "README.md",
        "config.json",
        "model.safetensors",
        "pipeline.toml",
    }


def test_the_card_says_data_encoder_results_with_intervals_and_commands(run: Path, tmp_path: Path) -> None:
    share(run, tmp_path / "shared")
    header, body = card_of(tmp_path / "shared")
    assert (header["library_name"], header["pipeline_tag"]) == ("vla", "robotics")
    assert "imitation-learning" in header["tags"]
    assert "datasets" not in header  # a directory is no dataset of the Hub
    metric = header["model-index"][0]["results"][0]["metrics"][0]
    assert (metric["type"], metric["value"]) == ("success_rate", 75.0)
    for said in (
        "`data/fake`",
        "2 (21 frames)",
        "b" * 64,
        "| `my/Env-v3` | 1000 to 1003 | 4 | 75.0 % (30.1 to 95.4) | 12.50 |",
        "vla embed --config pipeline.toml",
        "vla rollout DIRECTORY --env my/Env-v3 --episodes 4 --seed 1000",
    ):
        assert said in body


def test_the_card_says_where_success_was_not_measured(run: Path, tmp_path: Path) -> None:
    figures = {"pc_success": None, "pc_success_ci95": None, "n_episodes": 4}
    path = run / "eval/rollout_000004_seed1000_episodes4/eval_info.json"
    path.write_text(json.dumps({**EVALUATION, "aggregated": figures}))
    share(run, tmp_path / "shared")
    header, body = card_of(tmp_path / "shared")
    assert "model-index" not in header
    assert "| `my/Env-v3` | 1000 to 1003 | 4 | not measured | 12.50 |" in body


def add_evaluation(run: Path, name: str, env: str = "my/Env-v3", **rollout: object) -> None:
    """Write an evaluation with its settings, as `vla rollout` does."""
    folder = run / "eval" / f"rollout_000004_{name}"
    folder.mkdir()
    (folder / "eval_info.json").write_text(json.dumps(EVALUATION))
    (folder / "pipeline.toml").write_text(tomli_w.dumps({"env": {"id": env}, "rollout": rollout}))


def test_the_card_tells_other_sampling_and_leaves_out_weights_that_are_not_shared(
    run: Path, tmp_path: Path
) -> None:
    add_evaluation(run, "own", weights="ema", num_steps=0)
    add_evaluation(run, "more", weights="ema", num_steps=7)
    add_evaluation(run, "raw", "my/Raw-v1", weights="raw")
    assert share(run, tmp_path / "shared")["evaluations"] == 3
    header, body = card_of(tmp_path / "shared")
    assert "my/Raw-v1" not in body
    rows = [line for line in body.splitlines() if line.startswith("| `my/Env-v3`")]
    assert sum(line.startswith("| `my/Env-v3`, 7 sampling steps | 1000") for line in rows) == 1
    assert sum(line.startswith("| `my/Env-v3` | 1000") for line in rows) == 2
    assert "--seed 1000 --num-steps 7\n" in body
    metrics = header["model-index"][0]["results"][0]["metrics"]
    assert [metric.get("args") for metric in metrics].count({"num_steps": 7}) == 1


def evaluate(folder: Path, weights: str, seed: int = 1000, **settings: object) -> Path:
    """Write an evaluation that says whose it is, as `vla rollout --out` does."""
    folder.mkdir(parents=True)
    rows = [{"episode_ix": i, "seed": seed + i, "success": i < 3} for i in range(4)]
    info = {**EVALUATION, "per_episode": rows, "weights_sha256": weights}
    (folder / "eval_info.json").write_text(json.dumps(info))
    (folder / "pipeline.toml").write_text(tomli_w.dumps({"env": {"id": "my/Env-v3"}, **settings}))
    return folder


def weights_of(run: Path) -> str:
    return sha256_of(find_policy(run) / "model.safetensors")


def results(folder: Path) -> list[str]:
    return [line for line in card_of(folder)[1].splitlines() if line.startswith("| `my/Env-v3`")]


def test_validation_rollouts_chose_the_checkpoint_and_are_no_result(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "eval/rollout_000004_seed1000_episodes4").rename(run / "eval/step_000004")
    assert share(run, tmp_path / "shared")["evaluations"] == 0
    assert "No evaluation of these weights was at hand" in card_of(tmp_path / "shared")[1]
    assert f"measure them: vla rollout {run}" in capsys.readouterr().err


def test_evaluations_are_found_by_their_weights_wherever_they_lie_below_the_run(
    run: Path, tmp_path: Path
) -> None:
    evaluate(run / "eval/demo", weights_of(run), 2000)
    evaluate(run / "figures/final/unseen", weights_of(run), 3000)
    evaluate(run / "eval/rollout_000004_seed4000_episodes4", "0" * 64, 4000)  # of a checkpoint that is gone
    assert share(run, tmp_path / "shared")["evaluations"] == 3
    assert [row.split("|")[2].strip() for row in results(tmp_path / "shared")] == [
        "2000 to 2003",
        "1000 to 1003",
        "3000 to 3003",
    ]


def test_seeds_that_chose_the_checkpoint_are_no_result_wherever_they_were_run_again(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate(run / "eval/step_000002", "1" * 64, 5002)
    again = evaluate(run / "eval/again", weights_of(run), 5000)
    assert share(run, tmp_path / "shared")["evaluations"] == 1
    assert f"{again} has seeds that chose the checkpoint, such as 5002; it is left out" in (
        capsys.readouterr().err
    )


def test_evaluations_elsewhere_are_named_and_held_against_the_weights(run: Path, tmp_path: Path) -> None:
    elsewhere = evaluate(tmp_path / "results/unseen", weights_of(run), 2000)
    assert share(run, tmp_path / "without")["evaluations"] == 1
    assert share(run, tmp_path / "shared", evaluations=[elsewhere])["evaluations"] == 2
    assert any("| 2000 to 2003 |" in row for row in results(tmp_path / "shared"))
    wrong = {
        evaluate(tmp_path / "other", "0" * 64): "is an evaluation of other weights",
        tmp_path: r"holds no eval_info\.json that can be read",
    }
    silent = evaluate(tmp_path / "silent", weights_of(run))
    (silent / "eval_info.json").write_text(json.dumps(EVALUATION))
    wrong[silent] = "does not say whose evaluation it is"
    for folder, told in wrong.items():
        with pytest.raises(CheckpointError, match=f"{folder} {told}.*vla rollout"):
            share(run, tmp_path / "refused", evaluations=[folder])
    assert not (tmp_path / "refused").exists()


def test_the_card_tells_an_environment_that_is_another_than_in_training(run: Path, tmp_path: Path) -> None:
    env = {"id": "my/Env-v3", "kwargs": {"shape": "cylinder"}}
    evaluate(run / "eval/cylinder", weights_of(run), 2000, env=env)
    share(run, tmp_path / "shared")
    assert any(
        row.startswith("| `my/Env-v3`, shape = cylinder | 2000") for row in results(tmp_path / "shared")
    )
    assert """--seed 2000 --set 'env.kwargs.shape="cylinder"'""" in card_of(tmp_path / "shared")[1]


def test_an_evaluation_that_is_damaged_is_left_out(run: Path, tmp_path: Path) -> None:
    (run / "eval/rollout_000004_seed1000_episodes4/eval_info.json").write_text("{")
    assert share(run, tmp_path / "shared")["evaluations"] == 0


def test_rollouts_that_differ_go_to_different_folders(run: Path) -> None:
    plain = {"env.id": "my/Env-v3"}
    changes: list[dict[str, Any]] = [
        {},
        {"rollout.weights": "raw"},
        {"env.id": "pkg:Other/Env-v0"},
        {"rollout.num_steps": 2},
    ]
    settings = [PipelineConfig.load(None, {**plain, **change}, [], base={}) for change in changes]
    names = [default_rollout_folder(one, find_policy(run)).name for one in settings]
    own = "rollout_000004_seed1000_episodes50"
    assert names == [own, f"{own}_raw", f"{own}_pkg-other-env-v0", f"{own}_steps2"]


def test_a_shared_policy_keeps_its_settings_without_the_machines_paths(run: Path, tmp_path: Path) -> None:
    share(run, tmp_path / "shared")
    tables = saved_tables(tmp_path / "shared")
    settings = PipelineConfig.load(None, {}, [], base=tables)
    assert (settings.env.id, settings.train.lr) == ("my/Env-v3", 1e-3)
    assert (settings.encoder.id, settings.encoder.compile) == ("fake-encoder", "graphs")
    assert (settings.rollout.seed, settings.rollout.weights) == (7, "ema")  # raw ones are not in the folder
    shared = (tmp_path / "shared/pipeline.toml").read_text()
    for of_the_machine in ("/home/me", "cuda", "workers", "batch_size"):
        assert of_the_machine not in shared


def test_a_policy_that_stands_alone_is_shared_without_results(run: Path, tmp_path: Path) -> None:
    VLAAgent.from_pretrained(find_policy(run)).save_pretrained(tmp_path / "alone")
    assert share(tmp_path / "alone", tmp_path / "shared")["evaluations"] == 0
    assert "No evaluation" in card_of(tmp_path / "shared")[1]
    assert not (tmp_path / "shared/pipeline.toml").exists()


def test_a_project_that_keeps_policies_is_not_taken_for_their_run(run: Path, tmp_path: Path) -> None:
    assert find_run(find_policy(run)) == run
    (tmp_path / "pipeline.toml").write_text('[env]\nid = "my/Project-v0"\n')
    policies = [tmp_path / "models/me" / name for name in "ab"]
    for policy in policies:
        VLAAgent.from_pretrained(find_policy(run)).save_pretrained(policy)
    folder = default_rollout_folder(PipelineConfig(), policies[0])
    assert folder.is_relative_to(policies[0])
    folder.mkdir(parents=True)
    (folder / "eval_info.json").write_text(json.dumps(EVALUATION))
    assert share(policies[1], tmp_path / "shared")["evaluations"] == 0
    assert not (tmp_path / "shared/pipeline.toml").exists()


def test_a_task_cannot_break_the_card(run: Path, tmp_path: Path) -> None:
    folder = find_policy(run)
    config = json.loads((folder / "config.json").read_text())
    config["data"][0]["tasks"] = ["a | b\n---\n<script>`x`"]
    (folder / "config.json").write_text(json.dumps(config))
    share(run, tmp_path / "shared")
    assert "| tasks | a / b --- &lt;script>'x' |" in card_of(tmp_path / "shared")[1]


def test_sharing_onto_something_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not empty; choose another --out"):
        share(run, run)


def test_a_damaged_policy_is_not_handed_on(run: Path, tmp_path: Path) -> None:
    (find_policy(run) / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        share(run, tmp_path / "shared")
    assert not (tmp_path / "shared").exists()


def test_the_hub_is_asked_for_a_revision_and_never_for_pickles(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    share(run, tmp_path / "shared")
    asked: dict[str, Any] = {}

    def download(name: str, **options: Any) -> str:
        asked.update(options, name=name)
        return str(tmp_path / "shared")

    monkeypatch.setattr("vla.policy.sharing.hub.snapshot_download", download)
    agent = VLAAgent.from_pretrained("me/policy", revision="v1")
    assert agent.config == VLAAgent.from_pretrained(find_policy(run)).config
    assert (asked["name"], asked["revision"]) == ("me/policy", "v1")
    assert all(
        pattern.endswith((".md", ".json", ".safetensors", ".toml")) for pattern in asked["allow_patterns"]
    )


def test_a_mistyped_directory_is_not_looked_for_on_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("vla.policy.sharing.hub.snapshot_download")
    with pytest.raises(CheckpointError, match=r"no run and no policy at runs/dmeo; .* --revision main"):
        locate("runs/dmeo")


def test_offline_says_how_to_get_the_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: Any, **__: Any) -> str:
        raise LocalEntryNotFoundError("not cached")

    monkeypatch.setattr("vla.policy.sharing.hub.snapshot_download", download)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match=r"HF_HUB_OFFLINE is set; .* hf download me/policy") as caught:
        locate("me/policy", "main")
    assert "\n" not in str(caught.value)


class FakeHub:
    """Records what was published."""

    calls: list[tuple[str, dict[str, Any]]] = []  # noqa: RUF012

    def create_repo(self, repo_id: str, **options: Any) -> None:
        self.calls.append((repo_id, options))

    def upload_folder(self, **options: Any) -> SimpleNamespace:
        self.calls.append((options["repo_id"], options))
        return SimpleNamespace(commit_url="https://hub/me/policy/commit/1")


def test_push_publishes_the_folder(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vla.policy.sharing.hub.HfApi", FakeHub)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    report = share(run, tmp_path / "shared", push="me/policy", private=True)
    assert report["url"] == "https://hub/me/policy/commit/1"
    (created, options), (_, upload) = FakeHub.calls
    assert (created, options["private"], upload["folder_path"]) == ("me/policy", True, tmp_path / "shared")
    assert card_of(tmp_path / "shared")[0]["model-index"][0]["name"] == "policy"


@pytest.mark.parametrize("private", [False, True])
def test_a_push_that_fails_keeps_the_folder_and_says_how_to_go_on(
    private: bool, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError("no route")

    monkeypatch.setattr("vla.policy.sharing.hub.HfApi", lambda: SimpleNamespace(create_repo=fail))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    out = tmp_path / "my shared"
    with pytest.raises(
        CheckpointError, match=r"pushing it to 'me/policy' failed \(no route\); log in"
    ) as caught:
        share(run, out, push="me/policy", private=private)
    assert (out / "README.md").is_file()
    *options, repository, folder = (
        word for word in shlex.split(str(caught.value).rpartition(": ")[2]) if "--include" not in word
    )
    assert (options, repository) == (["hf", "upload"] + ["--private"] * private, "me/policy")
    assert folder == str(out)
    for path in out.iterdir():
        assert f" --include={path.name}" in str(caught.value)
