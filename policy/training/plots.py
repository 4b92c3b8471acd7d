"""Training curves as a picture, for a look without TensorBoard: `<run>/plots/training.png`."""

from pathlib import Path

from matplotlib.figure import Figure

from vla.policy.training.run import RunDirectory
from vla.policy.training.run_log import read_metrics


def plot_training(run: RunDirectory) -> Path:
    """Draw losses, action error and rollout rewards over steps, whichever the run has logged."""
    train, val, rollouts = (read_metrics(run, kind) for kind in ("train", "val", "rollout"))
    curves = [
        ("loss", [("training", train, "loss"), ("held-out", val, "loss")]),
        ("action error [std]", [("held-out, one step", val, "action_rmse")]),
        ("avg_reward", [("rollouts", rollouts, "avg_reward")]),
    ]
    figure = Figure(figsize=(12, 3.5))
    figure.subplots_adjust(
        left=0.05, right=0.99, bottom=0.15, top=0.9, wspace=0.15
    )  # a third quicker than fitted
    for axes, (title, series) in zip(figure.subplots(1, len(curves)), curves, strict=True):
        for label, rows, key in series:
            if rows:
                marker = "o" if len(rows) < 30 else None
                axes.plot(
                    [row["step"] for row in rows], [row[key] for row in rows], label=label, marker=marker
                )
        axes.set(title=title, xlabel="step")
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
        else:
            axes.text(0.5, 0.5, "not measured", ha="center", transform=axes.transAxes)
    path = run.path / "plots" / "training.png"
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=120)
    return path
