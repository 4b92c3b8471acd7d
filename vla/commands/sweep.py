"""`vla sweep`: a named set of training runs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from vla.commands.options import Json, show
from vla.suite.launcher import Launcher


def sweep(
    suite: Annotated[Path, typer.Argument(help="A suite file; with --status also a suite directory.")],
    out: Annotated[Path | None, typer.Option(help="Suite directory; runs/NAME by default.")] = None,
    device: Annotated[
        list[str] | None,
        typer.Option("--device", help="May be repeated; all GPUs by default."),
    ] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Runs side by side on each device.")] = None,
    launcher: Annotated[
        Launcher, typer.Option(help="This machine's devices, or a job a run on a SLURM cluster.")
    ] = Launcher.LOCAL,
    slurm: Annotated[
        list[str] | None,
        typer.Option(
            "--slurm",
            metavar="KEY=VALUE",
            help="partition, time, gpus, cpus, memory, extra.KEY ...; may be repeated.",
        ),
    ] = None,
    status: Annotated[bool, typer.Option("--status", help="Say how the runs stand; start nothing.")] = False,
    json_: Json = False,
) -> None:
    """Train a set of runs from one shared cache, one per device, and keep a table of results.

    Run again after any interruption, it goes on: finished runs are skipped. Jobs on a cluster go on by
    themselves when this command ends.

    Example: vla sweep examples/suites/per_view_dim.toml --status

    Example: vla sweep suite.toml --launcher slurm --slurm partition=gpu --slurm time=2:00:00
    """
    from vla.suite.sweep import suite_directory, sweep_status
    from vla.suite.sweep import sweep as run

    if status:
        result = sweep_status(out or suite_directory(suite))
    else:
        result = run(suite, out=out, devices=device or [], jobs=jobs, launcher=launcher, slurm=slurm or [])
    show(result if json_ else _readable(result), json_)


def _readable(result: Mapping[str, Any]) -> dict[str, Any]:
    """Give each run one line."""
    lines = {"suite": result["suite"]}
    for name, run in result["runs"].items():
        parts = [run["state"], f"step {run['step']}/{run['steps']}"]
        if run["state"] == "running":
            parts.append(f"{run['stage']}, pid {run['pid']} on {run['device']}")
        if run["job"] and run["state"] in ("queued", "running"):
            parts.append(f"job {run['job']}" + (f" on {run['node']}" if run["node"] else ""))
        if run["error"]:
            parts.append(f"{run['error']} (log: {run['log']})")
        lines[name] = ", ".join(parts)
    return {**lines, "notes": result["notes"]}
