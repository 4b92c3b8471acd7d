"""The evaluations of a run: success with its interval, latency, videos."""

import base64
import html
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vla.base.success import format_success
from vla.report.charts import absent, interval_bars, stacked_bar
from vla.report.page import Section, card, grid, table

# A page that mail programs and browsers still take: base64 makes a third more of this.
MAX_VIDEO_BYTES, MAX_VIDEOS_BYTES = 8 << 20, 24 << 20


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One `eval_info.json`."""

    folder: Path
    info: dict[str, Any]

    @property
    def name(self) -> str:
        return self.folder.name


def read_evaluations(run: Path) -> list[Evaluation]:
    """Return the evaluations below a run, the oldest first; those that cannot be read are left out."""
    found = []
    for path in (run / "eval").glob("*/eval_info.json"):
        try:
            info = json.loads(path.read_bytes())
            info["aggregated"]["pc_success_ci95"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        found.append((path.stat().st_mtime_ns, Evaluation(folder=path.parent, info=info)))
    return [evaluation for _, evaluation in sorted(found, key=lambda pair: (pair[0], pair[1].name))]


def success_row(label: str, info: dict[str, Any]) -> tuple[str, tuple[float, float, float] | None, str]:
    """Return a row of `interval_bars`."""
    aggregated = info["aggregated"]
    rate, interval = aggregated["pc_success"], aggregated["pc_success_ci95"]
    words = f"{format_success(rate, interval, digits=0)}, n = {aggregated['n_episodes']}"
    return (label, None if rate is None else (rate, *interval), words)


def success_section(evaluations: list[Evaluation]) -> Section:
    """Show each evaluation's success rate with its 95 % interval."""
    if not evaluations:
        return Section(
            title="Success", body=absent("Not rolled out yet: vla rollout RUN measures the policy live.")
        )
    bars = interval_bars([success_row(one.name, one.info) for one in evaluations])
    rows = [
        [one.name, f"{one.info['avg_reward']:.2f}", f"{one.info['aggregated']['avg_max_reward']:.2f}"]
        for one in evaluations
    ]
    body = card("success rate, Wilson 95 % interval", bars)
    return Section(title="Success", body=body + table(["evaluation", "avg_reward", "avg_max_reward"], rows))


def latency_section(evaluations: list[Evaluation]) -> Section:
    """Show how long a decision takes, and in which part."""
    latest = next((one for one in reversed(evaluations) if one.info.get("latency_ms")), None)
    if latest is None:
        return Section(title="Latency", body=absent("Not measured: no rollout with latencies was found."))
    parts = latest.info["latency_ms"]
    bar = stacked_bar([(name, figures["p50"]) for name, figures in parts.items()], "ms")
    keys = ["p50", "p90", "p99", "mean"]
    rows = [[name, *[f"{figures[key]:.2f}" for key in keys]] for name, figures in parts.items()]
    note = f"Milliseconds a decision, medians; measured in {latest.name}."
    return Section(title="Latency", body=card("one decision", bar + table(["part", *keys], rows)), note=note)


def video_section(evaluations: list[Evaluation]) -> Section:
    """Embed the videos of the latest evaluation that has some."""
    latest = next((one for one in reversed(evaluations) if one.info["aggregated"]["video_paths"]), None)
    if latest is None:
        return Section(title="Videos", body=absent("No videos: no rollout has recorded any."))
    figures, left, episodes = "", MAX_VIDEOS_BYTES, latest.info["per_episode"]
    for number, name in enumerate(latest.info["aggregated"]["video_paths"]):
        path = latest.folder / name
        size = path.stat().st_size if path.is_file() else None
        if size is None:
            figures += absent(f"{name} is gone.")
        elif size > min(MAX_VIDEO_BYTES, left):
            figures += absent(f"{name} ({size / 2**20:.0f} MiB) is too large to embed.")
        else:
            left -= size
            data = base64.b64encode(path.read_bytes()).decode()
            one = episodes[number] if number < len(episodes) else {}
            success = one.get("success")
            ended = "" if success is None else ", success" if success else ", no success"
            told = f"seed {one.get('seed')}{ended}"
            figures += (
                f'<figure><video controls muted loop playsinline src="data:video/mp4;base64,{data}"></video>'
                f"<figcaption>{html.escape(told)}</figcaption></figure>"
            )
    return Section(title="Videos", body=grid(figures, kind="shots"), note=f"Episodes of {latest.name}.")
