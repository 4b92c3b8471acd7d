"""Configuration: order of sources, strictness, messages."""

import os
from pathlib import Path

import pytest

from vla.base.errors import ConfigError
from vla.config import PRESETS, PipelineConfig, read_tables
from vla.policy.agents.vla_agent import VLAAgentConfig

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def somewhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_options_win_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    Path("pipeline.toml").write_text("[train]\nsteps = 7\nseed = 3\n")
    settings = PipelineConfig.load(None, {"train.steps": 9, "train.out": None}, ["train.lr=1e-5"])
    assert (settings.train.steps, settings.train.seed, settings.train.lr) == (9, 3, 1e-5)
    assert settings.train.batch_size == 256


def test_a_named_file_takes_the_place_of_pipeline_toml() -> None:
    Path("pipeline.toml").write_text("[train]\nsteps = 7\n")
    Path("other.toml").write_text("[train]\nseed = 5\n")
    settings = PipelineConfig.load(Path("other.toml"), {}, [])
    assert (settings.train.steps, settings.train.seed) == (50_000, 5)


def test_a_preset_lies_below_the_file_the_options_and_what_is_set(capsys: pytest.CaptureFixture[str]) -> None:
    small = PipelineConfig.load(None, {}, [], preset="small")
    assert (small.train.steps, small.train.batch_size, small.policy.model_dump()["n_emb"]) == (2500, 64, 128)
    assert capsys.readouterr().err == ""
    Path("pipeline.toml").write_text("[train]\nsteps = 7\nbatch_size = 64\n[policy]\nn_layer = 12\n")
    settings = PipelineConfig.load(None, {"train.lr": 0.5}, ["policy.n_emb=64"], preset="small")
    assert (settings.train.steps, settings.train.lr, settings.train.batch_size) == (7, 0.5, 64)
    assert capsys.readouterr().err == (
        "pipeline.toml takes the place of --preset small in policy.n_layer, train.steps\n"
    )


def test_a_preset_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(ConfigError, match="there is no preset 'smal'; did you mean 'small'"):
        PipelineConfig.load(None, {}, [], preset="smal")


def test_the_small_preset_has_the_sizes_of_the_demo() -> None:
    preset, demo = read_tables(PRESETS / "small.toml"), read_tables(ROOT / "examples/demo.toml")
    demo["policy"].pop("head")
    demo["train"].pop("out")
    assert preset == {table: demo[table] for table in ("policy", "train")}


def test_the_preset_of_one_camera_and_words_is_made_of_the_parts_there_are() -> None:
    policy = PipelineConfig.load(None, {}, [], preset="vla_model").policy
    assert isinstance(policy, VLAAgentConfig) and policy.language and policy.takes_task
    assert (policy.fusion.type, policy.head.type, policy.obs_horizon) == ("concat", "mlp", 1)


def test_a_saved_configuration_comes_back() -> None:
    settings = PipelineConfig.load(None, {}, ["policy.head.loss_power=0", "env.kwargs.render_height=64"])
    settings.save(Path("saved.toml"))
    assert PipelineConfig.load(Path("saved.toml"), {}, []) == settings


def test_tables_and_keys_can_be_left_out_of_what_is_saved() -> None:
    PipelineConfig().save(Path("saved.toml"), ["record", "env"], without=["record.out", "record.workers"])
    tables = read_tables(Path("saved.toml"))
    assert sorted(tables) == ["env", "record"]
    assert not {"out", "workers"} & tables["record"].keys()


def test_a_bare_word_is_a_string() -> None:
    settings = PipelineConfig.load(None, {}, ["encoder.id=some/model", "dataset.cameras=['top']"])
    assert (settings.encoder.id, settings.dataset.cameras) == ("some/model", ("top",))


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("policy.per_view_dims=96", "unknown key 'policy.per_view_dims'; did you mean 'per_view_dim'?"),
        ("polcy.n_emb=96", "unknown key 'polcy'; did you mean 'policy'?"),
        ("train.zzz=1", "unknown key 'train.zzz'; valid names: accumulate, adapt_steps, augment, autocast"),
        ("train.steps=-1", "'train.steps' = -1 is not valid: input should be greater than or equal to 0"),
        ("train.steps=many", "'train.steps' = 'many' is not valid"),
        ("train.lr=nan", "'train.lr' = nan is not valid"),
        ("policy.n_head=7", "n_emb 384 must be a multiple of 2 * n_head = 14"),
        (
            "policy.num_action_steps=16",
            "num_action_steps 16 must be at most pred_horizon - obs_horizon + 1 = 15",
        ),
        ("train.lr", "--set takes table.key=value, found 'train.lr'"),
        ("train.lr.x=1", "'train.lr' is not valid"),
    ],
)
def test_a_wrong_setting_is_refused_in_one_line(assignment: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        PipelineConfig.load(None, {}, [assignment])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_key_in_a_file_names_the_file() -> None:
    Path("mine.toml").write_text("[rollout]\nepisode = 3\n")
    with pytest.raises(
        ConfigError, match=r"mine\.toml: unknown key 'rollout\.episode'; did you mean 'episodes'"
    ):
        PipelineConfig.load(Path("mine.toml"), {}, [])


def test_a_file_that_is_no_toml_is_named() -> None:
    Path("mine.toml").write_text("steps = = 3")
    with pytest.raises(ConfigError, match=r"mine\.toml cannot be read as TOML"):
        PipelineConfig.load(Path("mine.toml"), {}, [])


def test_a_missing_file_is_named() -> None:
    with pytest.raises(ConfigError, match=r"no configuration file nothing\.toml; name another with --config"):
        PipelineConfig.load(Path("nothing.toml"), {}, [])


def test_every_documented_example_configuration_is_valid() -> None:
    root = Path(__file__).parents[2]
    files = [root / "pipeline.toml", *sorted((root / "examples").glob("*.toml"))]
    for file in files:
        PipelineConfig.load(file, {}, [])
    assert os.fspath(root / "pipeline.toml") in map(os.fspath, files)
