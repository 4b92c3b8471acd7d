"""Charts as inline SVG: lines over steps, bars with intervals. Colours come from the page's style."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 460.0, 250.0
LEFT, RIGHT, TOP, BOTTOM = 56.0, 14.0, 12.0, 34.0
MAX_POINTS = 600
COLOURS = 6
"""Colours of series, `--c0` to `--c5` of the page's style; more series begin again with dashes."""


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line."""

    label: str
    x: Sequence[int | float]
    y: Sequence[int | float]
    colour: int | None = None
    """Number of its colour; None takes the next one."""


def line_chart(series: Sequence[Series], *, x_label: str, y_label: str, logarithmic: bool = False) -> str:
    """Draw lines with axes, ticks and a legend.

    Args:
        series: lines; those without a label are not in the legend. Values that are not finite, or not
            positive on a logarithmic axis, are left out.
        x_label: title of the horizontal axis.
        y_label: title of the vertical axis, also what a screen reader says.
        logarithmic: vertical axis.
    """
    lines = [(one, _points(one, logarithmic)) for one in series]
    known = [point for _, points in lines for point in points]
    if not known:
        return absent("No finite values to draw.")
    x_low, x_high = _range([x for x, _ in known])
    y_low, y_high = _range([y for _, y in known], margin=0.06)
    body = _axes((x_low, x_high), (y_low, y_high), x_label, y_label, logarithmic)
    for number, (one, points) in enumerate(lines):
        place = [
            (_scale(x, x_low, x_high, LEFT, WIDTH - RIGHT), _scale(y, y_low, y_high, HEIGHT - BOTTOM, TOP))
            for x, y in points
        ]
        dash = ' stroke-dasharray="5 4"' if number >= COLOURS and one.colour is None else ""
        colour = _colour(one, number)
        style = f'style="stroke:{colour}"{dash}'
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in place)
        body += f'<polyline class="line" {style} points="{path}"/>'
        if len(place) <= 30:
            body += "".join(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" style="fill:{colour}"/>' for x, y in place
            )
    legend = "".join(
        f'<span><i style="background:{_colour(one, number)}"></i>{html.escape(one.label)}</span>'
        for number, (one, _) in enumerate(lines)
        if one.label
    )
    # One line is named by the title of its chart.
    return _svg(body, y_label) + (f'<p class="legend">{legend}</p>' if len(series) > 1 else "")


def interval_bars(rows: Sequence[tuple[str, tuple[float, float, float] | None, str]]) -> str:
    """Draw success rates with their intervals, one row each.

    Args:
        rows: label; rate, low and high [%], None where there is none; what is written beside it.
    """
    body = ""
    for label, rate, note in rows:
        # The figure is stretched, its text is not: it stays readable on a telephone.
        body += (
            f'<div class="rate"><span>{html.escape(label)}</span>'
            '<svg viewBox="0 0 100 16" preserveAspectRatio="none" role="img" aria-label="success rate">'
            '<path class="grid" d="M0 0V16M25 0V16M50 0V16M75 0V16M100 0V16"/>'
            f"{_bar(*rate) if rate else ''}</svg><span>{html.escape(note)}</span></div>"
        )
    scale = "".join(f"<i>{percent} %</i>" for percent in (0, 25, 50, 75, 100))
    return (
        f'{body}<div class="rate scale"><span></span><span class="percent">{scale}</span><span></span></div>'
    )


def _bar(rate: float, low: float, high: float) -> str:
    return (
        f'<rect class="bar" x="0" y="2" width="{rate:.1f}" height="12"/>'
        f'<path class="whisker" d="M{low:.1f} 8H{high:.1f}M{low:.1f} 3v10M{high:.1f} 3v10"/>'
    )


def stacked_bar(parts: Sequence[tuple[str, float]], unit: str) -> str:
    """Draw parts of a whole beside each other, widths in proportion."""
    total = sum(value for _, value in parts) or 1.0
    body, legend, x = "", "", 0.0
    for number, (label, value) in enumerate(parts):
        width = 760 * value / total
        body += f'<rect x="{x:.1f}" y="0" width="{width:.1f}" height="26" style="fill:var(--c{number})"/>'
        share = f"{label} {value:.1f} {unit} ({100 * value / total:.0f} %)"
        legend += f'<span><i style="background:var(--c{number})"></i>{html.escape(share)}</span>'
        x += width
    svg = f'<svg class="wide" viewBox="0 0 760 26" role="img" aria-label="parts">{body}</svg>'
    return f'{svg}<p class="legend">{legend}</p>'


def absent(reason: str) -> str:
    """Say that something is not there, and why."""
    return f'<p class="absent">{html.escape(reason)}</p>'


def _colour(series: Series, number: int) -> str:
    return f"var(--c{(number if series.colour is None else series.colour) % COLOURS})"


def _points(series: Series, logarithmic: bool) -> list[tuple[float, float]]:
    points = [
        (float(x), math.log10(y) if logarithmic else float(y))
        for x, y in zip(series.x, series.y, strict=True)
        if math.isfinite(y) and (y > 0 or not logarithmic)
    ]
    if len(points) <= MAX_POINTS:
        return points
    stride = -(-len(points) // MAX_POINTS)  # the last point is always shown
    return [*points[:-1:stride], points[-1]]


def _range(values: Sequence[float], margin: float = 0.0) -> tuple[float, float]:
    low, high = min(values), max(values)
    if low == high:
        return low - 0.5, high + 0.5
    return low - margin * (high - low), high + margin * (high - low)


def _scale(value: float, low: float, high: float, first: float, last: float) -> float:
    return first + (value - low) / (high - low) * (last - first)


def _axes(
    x_range: tuple[float, float], y_range: tuple[float, float], x_label: str, y_label: str, logarithmic: bool
) -> str:
    body = ""
    for value in log_ticks(*y_range) if logarithmic else ticks(*y_range):
        y = _scale(value, *y_range, HEIGHT - BOTTOM, TOP)
        shown = spell(10**value if logarithmic else value)
        body += f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        body += f'<text class="tick" x="{LEFT - 7}" y="{y + 3.5:.1f}" text-anchor="end">{shown}</text>'
    for value in ticks(*x_range):
        x = _scale(value, *x_range, LEFT, WIDTH - RIGHT)
        body += f'<text class="tick" x="{x:.1f}" y="{HEIGHT - 16}" text-anchor="middle">{spell(value)}</text>'
    middle = (LEFT + WIDTH - RIGHT) / 2
    body += (
        f'<text class="tick" x="{middle}" y="{HEIGHT - 2}" text-anchor="middle">{html.escape(x_label)}</text>'
    )
    return body + f"<title>{html.escape(y_label)}</title>"


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Return round numbers between two bounds.

    >>> ticks(0, 1000)
    [0.0, 200.0, 400.0, 600.0, 800.0, 1000.0]
    """
    raw = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(number * step, 12) for number in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Return logarithms of round numbers between two logarithms.

    >>> [round(10**value, 6) for value in log_ticks(-1, 1)]
    [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0]
    """
    whole = range(math.floor(low), math.ceil(high) + 1)
    for factors in ((1,), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):  # as many as needed to read the axis by
        chosen = [power + math.log10(factor) for power in whole for factor in factors]
        inside = [value for value in chosen if low - 1e-9 <= value <= high + 1e-9]
        if len(inside) >= 4:
            return inside
    return inside if len(inside) > 1 else ticks(low, high)


def spell(value: float) -> str:
    """Write a number short.

    >>> spell(12000), spell(0.25), spell(-0.0)
    ('12k', '0.25', '0')
    """
    if abs(value) >= 1000:
        return f"{value / 1000:g}k"
    return f"{value:.3g}" if value else "0"


def _svg(body: str, label: str) -> str:
    title = html.escape(label, quote=True)
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">{body}</svg>'
