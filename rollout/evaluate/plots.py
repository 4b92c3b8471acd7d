"""An evaluation as a picture: `<out>/plots/rewards.png`."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from vla.rollout.evaluate.summary import format_success


def plot_evaluation(info: dict[str, Any], out: Path) -> Path:
    """Draw each episode's reward, successes marked, and the latency of a decision by part."""
    figure = Figure(figsize=(12, 3.5), layout="constrained")
    rewards, latency = figure.subplots(1, 2, width_ratios=(3, 1))
    episodes = sorted(info["per_episode"], key=lambda episode: episode["sum_reward"])
    colours = ["tab:green" if episode["success"] else "tab:grey" for episode in episodes]
    aggregated = info["aggregated"]
    success = format_success(aggregated["pc_success"], aggregated["pc_success_ci95"])
    rewards.bar(range(len(episodes)), [episode["sum_reward"] for episode in episodes], color=colours)
    rewards.set(
        title=f"success {success}, avg_reward {info['avg_reward']:.1f}",
        xlabel="episodes, sorted; green: success",
        ylabel="sum of rewards",
    )
    parts = list(info["latency_ms"])
    latency.bar(parts, [info["latency_ms"][part]["p50"] for part in parts])
    latency.set(title="latency, median [ms]")
    path = out / "plots" / "rewards.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return path
