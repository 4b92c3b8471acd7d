"""Curves over training steps, of one run or of several beside each other."""

from collections.abc import Mapping
from pathlib import Path

from vla.policy.training.run import RunDirectory
from vla.policy.training.run_log import read_metrics
from vla.report.charts import Series, absent, line_chart
from vla.report.page import Section, card, grid

CURVES = [
    ("training loss", "train", "loss", True),
    ("held-out loss", "val", "loss", True),
    ("held-out action error [std]", "val", "action_rmse", False),
    ("rollout avg_reward", "rollout", "avg_reward", False),
]
"""Title, kind of log line, figure, logarithmic."""
WHY_NOT = {
    "train": "No training step has been logged yet.",
    "val": "Not measured: no episodes were held out, or no validation was due yet.",
    "rollout": "Not measured: no validation rollouts (train.rollout_every), or none was due yet.",
}


def curves_section(runs: Mapping[str, Path]) -> Section:
    """Draw losses, action error and rewards; what was not measured says so."""
    cards = []
    for title, kind, figure, logarithmic in CURVES:
        series = []
        for name, path in runs.items():
            rows = [row for row in read_metrics(RunDirectory(path), kind) if figure in row]
            if rows:
                series.append(
                    Series(label=name, x=[row["step"] for row in rows], y=[row[figure] for row in rows])
                )
        chart = (
            line_chart(series, x_label="step", y_label=title, logarithmic=logarithmic)
            if series
            else absent(WHY_NOT[kind])
        )
        cards.append(card(title, chart))
    return Section(title="Training", body=grid(*cards))
