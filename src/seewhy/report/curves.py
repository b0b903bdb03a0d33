"""Curves with bands, and intervals in table cells, as inline SVG that the page colours in its light and in its dark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from seewhy.report.charts import SERIES

_WIDTH, _HEIGHT = 460, 290
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 20, 14, 52

_SHARES = ((0.0, "0%"), (0.25, "25%"), (0.5, "50%"), (0.75, "75%"), (1.0, "100%"))

#: width and height of an interval in a table cell
_CELL, _LINE = 150, 16


@dataclass(frozen=True)
class Curve:
    """A line through points (x, y, low, high), ends None where nothing is known of them; x and y within the axes."""

    name: str
    points: tuple[tuple[float, float, float | None, float | None], ...]


def curves(
    key: str,
    lines: Sequence[Curve],
    title: str,
    description: str,
    *,
    across: str,
    ticks: Sequence[tuple[float, str]] = _SHARES,
    low: float = 0.0,
    diagonal: bool = False,
    level: float | None = None,
) -> Markup:
    """Shares from `low` to 1 against x, with bands of 95 %; `across` names the x axis, whose `ticks` span it.

    `diagonal` draws where both are the same, `level` a share that is reached by chance.
    """
    first, last = ticks[0][0], ticks[-1][0]
    floor, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT

    def x(value: float) -> float:
        return _LEFT + (right - _LEFT) * (value - first) / (last - first)

    def y(value: float) -> float:
        return _TOP + (floor - _TOP) * (1 - (min(max(value, low), 1) - low) / (1 - low))

    parts = [
        f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y(share):.1f}" y2="{y(share):.1f}"/>'
        f'<text x="{_LEFT - 7}" y="{y(share) + 4:.1f}" text-anchor="end">{share:.0%}</text>'
        for share in (low + (1 - low) * step / 4 for step in range(5))
    ]
    parts += [
        f'<line class="tick" x1="{x(at):.1f}" x2="{x(at):.1f}" y1="{floor}" y2="{floor + 4}"/>'
        f'<text x="{x(at):.1f}" y="{floor + 18}" text-anchor="middle">{escape(name)}</text>'
        for at, name in ticks
    ]
    parts.append(f'<text x="{(_LEFT + right) / 2}" y="{_HEIGHT - 8}" text-anchor="middle">{escape(across)}</text>')
    if diagonal:
        parts.append(f'<line class="mark" x1="{x(low)}" y1="{y(low)}" x2="{x(last)}" y2="{y(1)}"/>')
    if level is not None:
        parts.append(f'<line class="mark" x1="{_LEFT}" x2="{right}" y1="{y(level):.1f}" y2="{y(level):.1f}"/>')
    for number, line in enumerate(lines):
        place = number % SERIES
        known = [(at, bottom, top) for at, _, bottom, top in line.points if bottom is not None and top is not None]
        if known:
            edge = [f"{x(at):.1f},{y(top):.1f}" for at, _, top in known]
            edge += [f"{x(at):.1f},{y(bottom):.1f}" for at, bottom, _ in reversed(known)]
            parts.append(f'<polygon class="band s{place}" points="{" ".join(edge)}"/>')
    for number, line in enumerate(lines):
        place = number % SERIES
        points = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value, *_ in line.points)
        parts.append(f'<polyline class="s{place}" points="{points}"/>')
        parts += [
            f'<circle class="s{place}" cx="{x(at):.1f}" cy="{y(value):.1f}" r="2.6"/>' for at, value, *_ in line.points
        ]
    named, told = escape(f"{key}-t"), escape(f"{key}-d")
    return Markup(
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-labelledby="{named} {told}">'
        f'<title id="{named}">{escape(title)}</title><desc id="{told}">{escape(description)}</desc>'
        f"{''.join(parts)}</svg>"
    )


def interval(
    value: float | None,
    low: float | None,
    high: float | None,
    span: tuple[float, float],
    *,
    series: int = 0,
    mark: float | None = None,
) -> Markup:
    """A value with its interval on a line that spans (from, to); `mark` is a line to compare it with. Numbers stand beside it."""
    if value is None:
        return Markup()
    start, end = span

    def x(at: float) -> float:
        return 4 + (_CELL - 8) * (min(max(at, start), end) - start) / (end - start)

    middle = _LINE / 2
    parts = [f'<line class="grid" x1="4" x2="{_CELL - 4}" y1="{middle}" y2="{middle}"/>']
    if mark is not None:
        parts.append(f'<line class="mark" x1="{x(mark):.1f}" x2="{x(mark):.1f}" y1="0" y2="{_LINE}"/>')
    if low is not None and high is not None:
        parts.append(
            f'<line class="reach s{series}" x1="{x(low):.1f}" x2="{x(high):.1f}" y1="{middle}" y2="{middle}"/>'
        )
    parts.append(f'<circle class="s{series}" cx="{x(value):.1f}" cy="{middle}" r="4"/>')
    return Markup(
        f'<svg class="chart cell" viewBox="0 0 {_CELL} {_LINE}" width="{_CELL}" height="{_LINE}" aria-hidden="true">'
        f"{''.join(parts)}</svg>"
    )
