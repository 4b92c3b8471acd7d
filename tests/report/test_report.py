"""The page: what it shows, what it says is missing, that it needs nothing outside, and a real browser."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from fake_datasets import CAMERAS, camera_images, write_hdf5
from fake_language import make_bench
from fakes import fake_spec, write_cache

from vla.base.errors import VlaError
from vla.cache import FeatureCache
from vla.config import PipelineConfig
from vla.policy.agents.vla_agent import VLAAgent
from vla.report.charts import Series, line_chart, ticks
from vla.report.episode import chunks_section, frames_section, principal_components
from vla.report.report import report
from vla.rollout.evaluate.summary import EpisodeResult, summarise
from vla.stages import train

SMALL = [
    "policy.per_view_dim=4",
    "policy.cond_dim=8",
    "policy.n_emb=16",
    "policy.n_layer=1",
    "policy.n_head=2",
]
SMALL += ["train.steps=6", "train.batch_size=8", "train.val_episodes=1", "train.rollout_every=0"]
SMALL += ["train.log_every=1", "train.val_every=3", "train.device=cpu"]
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run on a cache whose demonstrations are gone; read it, do not change it."""
    root = tmp_path_factory.mktemp("report")
    write_cache(root / "cache", fake_spec(lengths=(30, 28, 26)))
    options = {"cache.path": str(root / "cache"), "train.out": str(root / "run")}
    train(PipelineConfig.load(None, options, SMALL, base={}))
    return root / "run"


def add_rollout(run: Path, video: bytes, *, told: bool = True) -> None:
    """Add an evaluation of 4 episodes, 3 of them successes."""
    episodes = [
        EpisodeResult(seed=k, sum_reward=float(k), max_reward=1.0, success=k > 0 if told else None)
        for k in range(4)
    ]
    latency = {"render": [0.004], "encode": [0.02], "head": [0.001]}
    folder = run / "eval/<final>"
    (folder / "videos").mkdir(parents=True)
    (folder / "videos/eval_episode_0.mp4").write_bytes(video)
    info = summarise(episodes, latency, 1.0, ["videos/eval_episode_0.mp4"])
    info["per_episode"][0]["seed"] = "<final>"  # written by somebody else
    (folder / "eval_info.json").write_text(json.dumps(info))


def text_of(run: Path, out: Path) -> str:
    report(run, out)
    return out.read_text()


def test_what_a_run_lacks_is_said_not_hidden(run: Path, tmp_path: Path) -> None:
    page = text_of(run, tmp_path / "page.html")
    for words in ("Not rolled out yet", "No videos", "no rollout with latencies", "no validation rollouts"):
        assert words in page
    assert "The demonstrations cannot be read any more" in page
    assert page.count('class="line"') >= 3 + 4 * 2  # losses and error, then components and chunks


def test_a_run_whose_cache_is_gone_has_a_page(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy, symlinks=True)
    text = (copy / "pipeline.toml").read_text()
    (copy / "pipeline.toml").write_text(re.sub(r'(?m)^path = ".*cache"', 'path = "gone"', text))
    assert "The feature cache of this run is not there any more" in text_of(copy, tmp_path / "page.html")


def test_success_latency_and_videos_are_shown_and_nothing_is_fetched(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy, symlinks=True)
    add_rollout(copy, b"not really a video")
    page = text_of(copy, tmp_path / "page.html")
    assert "75 % (30 to 95), n = 4" in page and "encode 20.0 ms (80 %)" in page
    assert "data:video/mp4;base64,bm90IHJlYWxseSBhIHZpZGVv" in page
    assert "&lt;final&gt;" in page and "<final>" not in page  # names are text, not markup
    assert "<script" not in page and not re.findall(r"(?:src|href)=[\"'](?!data:)", page)


def test_success_that_was_not_measured_is_said_and_no_bar_of_zero(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy, symlinks=True)
    add_rollout(copy, b"", told=False)
    page = text_of(copy, tmp_path / "page.html")
    assert "not measured, n = 4" in page and 'class="bar"' not in page
    assert "seed &lt;final&gt;</figcaption>" in page


def test_frames_have_the_colours_that_were_embedded_and_names_are_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    demos, name = write_hdf5(tmp_path / "demos", (5, 4)), '<b>"top"'
    for path in demos.iterdir():
        with h5py.File(path, "r+") as file:
            file.move("observations/images/top", f"observations/images/{name}")
    plain = fake_spec((5, 4), cameras=(name,))
    keys = {name: f"observations/images/{name}", "state": "observations/qpos", "action": "action"}
    made = plain.dataset.model_copy(update={"path": str(demos), "format": "hdf5-act", "keys": keys})
    spec = fake_spec((5, 4), cameras=(name,), dataset=made)
    cache = write_cache(tmp_path / "cache", spec)
    (cache.folder / "pipeline.toml").write_text('[dataset]\ncolor = "bgr"\n')
    shown: list[np.ndarray] = []
    monkeypatch.setattr("vla.report.episode._jpeg", lambda image: shown.append(np.asarray(image)))
    page = frames_section(cache, cache.metadata.episodes[1]).body
    stored = camera_images(1, CAMERAS.index("top"), 4, (48, 64))[..., ::-1]
    assert [np.array_equal(image, stored[k]) for image, k in zip(shown, (0, 2, 3), strict=True)] == [True] * 3
    assert "<b>" not in page and 'alt="&lt;b&gt;&quot;top&quot;"' in page and ">&lt;b&gt;" in page


def test_chunks_of_a_policy_with_language_are_shown(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)
    cache = FeatureCache(tmp_path / "features")
    policy = bench.settings(**{"policy.language": True}).policy
    VLAAgent.for_cache(policy, cache.metadata, cache.text_features()).save_pretrained(tmp_path / "policy")
    section = chunks_section(cache, cache.metadata.episodes[0], tmp_path / "policy")
    assert 'class="line"' in section.body


def test_a_path_without_run_or_suite_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VlaError, match="no run and no suite at"):
        report(tmp_path)


def test_principal_components_find_the_line_that_points_lie_on() -> None:
    along = torch.linspace(-1, 1, 11)
    points = along[:, None] * torch.tensor([3.0, 4.0]) + torch.tensor([7.0, -2.0])
    scores, shares = principal_components(points, 2)
    assert shares[0] == pytest.approx(1.0)
    assert torch.allclose(scores[:, 0].abs(), 5 * along.abs(), atol=1e-5)


def test_ticks_are_round_and_values_that_are_not_finite_are_left_out() -> None:
    assert ticks(0.13, 0.87) == [0.2, 0.4, 0.6, 0.8]
    nan, inf = float("nan"), float("inf")
    chart = line_chart([Series(label="a", x=[0, 1, 2, 3], y=[1, nan, inf, 2])], x_label="x", y_label="y")
    assert "nan" not in chart and "inf" not in chart and chart.count("<circle") == 2
    assert "No finite values" in line_chart([Series(label="a", x=[0], y=[nan])], x_label="x", y_label="y")


@pytest.mark.skipif(BROWSER is None, reason="no chromium here; apt-get install chromium")
def test_a_real_browser_shows_the_page_without_a_console_error(run: Path, tmp_path: Path) -> None:
    assert BROWSER is not None
    page = tmp_path / "page.html"
    report(run, page)
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=2000", "--dump-dom"]
    shown = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=120)
    assert shown.returncode == 0, shown.stderr[-2000:]
    assert "Action chunks against the demonstration" in shown.stdout
    assert "CONSOLE" not in shown.stderr, shown.stderr[-2000:]
