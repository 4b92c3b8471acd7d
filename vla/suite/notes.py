"""The results of a suite as a table: `notes.md`. What the user writes around it is kept."""

from collections.abc import Iterator, Sequence
from statistics import mean, stdev
from typing import Any

from vla.base.files import write_atomically
from vla.base.success import format_success
from vla.suite.folder import SuiteFolder
from vla.suite.manifest import read_manifest
from vla.suite.results import RunResult, read_result
from vla.suite.status import SuiteStatus

BEGIN = "<!-- results: begin. Written by vla sweep; text outside these marks is kept. -->"
END = "<!-- results: end -->"
NOT_MEASURED = "-"


def write_notes(folder: SuiteFolder, status: SuiteStatus) -> None:
    """Write the table of results into `notes.md`, in place of the earlier one."""
    table = "\n".join([BEGIN, "", *_tables(folder, status), "", END])
    text = folder.notes.read_text() if folder.notes.is_file() else f"# {status.name}\n\n{BEGIN}\n{END}\n"
    before, begun, rest = text.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not begun or not ended:  # a mark was removed: the user's text stays whole
        before, after = text.rstrip("\n") + "\n\n", "\n"
    write_atomically(folder.notes, (before + table + after).encode())


def _tables(folder: SuiteFolder, status: SuiteStatus) -> Iterator[str]:
    asked = read_manifest(folder)["runs"]
    results = {name: read_result(folder, name) for name in status.runs}
    keys = list(dict.fromkeys(key for name in status.runs for key in asked[name]["settings"]))
    titles = [key.split(".")[-1] for key in keys]
    rows = []
    for name, run in status.runs.items():
        result, settings = results[name], asked[name]["settings"]
        rows.append(
            [
                name,
                run.state,
                *[str(settings.get(key, "")) for key in keys],
                f"{run.step}/{run.steps}",
                _figure(result.val_loss, 4),
                _figure(result.best_avg_reward, 2),
                _success(result),
                ", ".join(run.trackers.values()) or NOT_MEASURED,
            ]
        )
    head = ["run", "state", *titles, "steps", "held-out loss", "best avg_reward", "success (95 %)", "tracker"]
    yield from _markdown(head, rows)
    groups: dict[str, list[str]] = {}
    for name in status.runs:
        groups.setdefault(name.rpartition("-seed")[0], []).append(name)
    if any(len(names) > 1 for names in groups.values()):
        yield ""
        head = ["over seeds, mean ± standard deviation", "seeds", "held-out loss", "avg_reward", "success %"]
        yield from _markdown(
            head,
            [
                [
                    group,
                    str(len(names)),
                    _spread([results[name].val_loss for name in names], 4),
                    _spread([results[name].avg_reward for name in names], 2),
                    _spread([results[name].pc_success for name in names], 1),
                ]
                for group, names in groups.items()
            ],
        )


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', '/') for cell in row)} |"


def _figure(value: float | None, digits: int) -> str:
    return NOT_MEASURED if value is None else f"{value:.{digits}f}"


def _success(result: RunResult) -> str:
    words = format_success(result.pc_success, result.interval, digits=0, missing=NOT_MEASURED)
    return words if result.pc_success is None else f"{words}, n = {result.episodes}"


def _spread(values: Sequence[Any], digits: int) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return NOT_MEASURED
    spread = f" ± {stdev(known):.{digits}f}" if len(known) > 1 else ""
    missing = "" if len(known) == len(values) else f" ({len(known)} of {len(values)})"
    return f"{mean(known):.{digits}f}{spread}{missing}"
