"""Line charts as inline SVG: small, readable aloud, and coloured by the page, in its light and in its dark."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from markupsafe import Markup, escape

from seewhy.intervals import wilson
from seewhy.report import words
from seewhy.report.pictures import Array

#: styles that the page has for lines side by side, each its own in colour and dash: `s0`, `s1`, … in style.css
SERIES = 8

_WIDTH, _HEIGHT = 460, 262
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 26, 44


def confidence(
    key: str,
    eps: Sequence[float],
    before: Sequence[float],
    after: Sequence[float],
    fooled: Sequence[bool],
    smallest: float | None,
    title: str,
    description: str,
    norm: str = "linf",
    values: int = 0,
) -> Markup:
    """Confidence against ε for the class before (solid) and the class that it becomes (dashed; none where empty).

    Between neighbouring sizes that both fool (`fooled`) the ground is coloured; the `smallest` one is marked. `eps` is
    in [0, 1] pixels, from 0 on; the axis is in steps of 1/255 (see `words.axis` for other norms), log(1 + steps), so that 0
    has its place. `key` makes the ids unique in the page.
    """
    scale, label = words.axis(norm, values)
    steps = [scale * value for value in eps]
    reach = max(steps)
    x = _log1p(reach)

    def y(probability: float) -> float:
        return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - probability)

    parts = [
        f'<rect class="fooled" x="{x(low):.1f}" y="{_TOP}" width="{x(high) - x(low):.1f}" '
        f'height="{_HEIGHT - _TOP - _BOTTOM}"/>'
        for (low, first), (high, second) in pairwise(zip(steps, fooled, strict=True))
        if first and second and high > low
    ]
    if smallest is not None:
        at = x(scale * smallest)
        right = at < _WIDTH * 0.62
        parts.append(
            f'<line class="mark" x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP - 6}" y2="{_HEIGHT - _BOTTOM}"/>'
            f'<text class="marked" x="{at + (5 if right else -5):.1f}" y="{_TOP - 8}" '
            f'text-anchor="{"start" if right else "end"}">fooled at {words.size(smallest, norm)}</text>'
        )
    parts += _shares(y) + _sizes(x, reach, label)
    for name, course in (("after", after), ("before", before)):
        if not course:
            continue
        points = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in zip(steps, course, strict=True))
        parts.append(f'<polyline class="{name}" points="{points}"/>')
        parts.extend(
            f'<circle class="{name}" cx="{x(step):.1f}" cy="{y(value):.1f}" r="2.6"/>'
            for step, value in zip(steps, course, strict=True)
        )
    return _drawn(key, parts, title, description)


@dataclass(frozen=True)
class Course:
    """An attack on several images: the smallest sizes that fool, None where none did, and the largest size tried."""

    name: str
    smallest: tuple[float | None, ...]
    tried: float


def accuracy(key: str, courses: Sequence[Course], norm: str, values: int, title: str, description: str) -> Markup:
    """The share of images that stay right, against ε, each attack with Wilson's interval of 95 %.

    A line ends where its attack tried nothing larger and some images still stood.
    """
    scale, label = words.axis(norm, values)
    fooled = [scale * size for course in courses for size in course.smallest if size is not None]
    reach = 1.3 * max(fooled, default=1.0)
    x = _log1p(reach)

    def y(share: float) -> float:
        return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - share)

    bands, lines = [], []
    for number, course in enumerate(courses):
        count = len(course.smallest)
        sizes = sorted(scale * size for size in course.smallest if size is not None)
        end = reach if len(sizes) == count else min(reach, scale * course.tried)
        sizes = [size for size in sizes if size <= end]
        corners = [
            (0.0, count),
            *((size, count - place) for place, size in enumerate(sizes, 1)),
            (end, count - len(sizes)),
        ]
        low, high, middle = [], [], []
        for (start, stand), (stop, _) in pairwise(corners):
            ends = wilson(stand, count)
            for at in (start, stop):
                middle.append(f"{x(at):.1f},{y(stand / count):.1f}")
                low.append(f"{x(at):.1f},{y(ends[0]):.1f}")
                high.append(f"{x(at):.1f},{y(ends[1]):.1f}")
        place = number % SERIES
        bands.append(f'<polygon class="band s{place}" points="{" ".join([*low, *reversed(high)])}"/>')
        lines.append(f'<polyline class="s{place}" points="{" ".join(middle)}"/>')
    return _drawn(key, [*bands, *_shares(y), *_sizes(x, reach, label), *lines], title, description)


def growth(
    key: str, layers: Sequence[str], attack: Sequence[float], noise: Sequence[float], title: str, description: str
) -> Markup:
    """How a change grows from layer to layer, beside noise of the same size: shares of the answers' lengths, logarithmic."""
    found = [value for value in (*attack, *noise) if value > 0]
    if not found:
        return Markup()
    low, high = math.floor(math.log10(min(found))), math.ceil(math.log10(max(found)))
    high = max(high, low + 1)
    bottom = 92

    def x(place: int) -> float:
        return _LEFT + 8 + (_WIDTH - _LEFT - _RIGHT - 16) * place / max(len(layers) - 1, 1)

    def y(value: float) -> float:
        at = (math.log10(max(value, 10.0**low)) - low) / (high - low)
        return _TOP + (_HEIGHT - _TOP - bottom) * (1 - at)

    parts = [
        f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(10.0**power):.1f}" y2="{y(10.0**power):.1f}"/>'
        f'<text x="{_LEFT - 7}" y="{y(10.0**power) + 4:.1f}" text-anchor="end">{100 * 10.0**power:g}%</text>'
        for power in range(low, high + 1)
    ]
    floor = _HEIGHT - bottom
    parts += [
        f'<text class="small" transform="translate({x(place) + 4:.1f},{floor + 12}) rotate(-50)" text-anchor="end">'
        f"{escape(name if len(name) <= 14 else '…' + name[-13:])}</text>"
        for place, name in enumerate(layers)
    ]
    for name, course in (("after", noise), ("before", attack)):
        points = [(x(place), y(value)) for place, value in enumerate(course)]
        parts.append(f'<polyline class="{name}" points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in points)}"/>')
        parts += [f'<circle class="{name}" cx="{a:.1f}" cy="{b:.1f}" r="2.6"/>' for a, b in points]
    return _drawn(key, parts, title, description)


def histogram(counts: Array, edges: Array, low: float, high: float, description: str) -> Markup:
    """How often a unit's peak in an image has each size: `counts` (B,) between `edges` (B + 1,), from zero or below to `high`.

    Bars are as high as the root of their count, so that rare ones are seen; those of images at or above `low` are marked.
    """
    bars, width, height = 24, 150, 40
    least = min(0.0, float(edges[int(np.flatnonzero(counts)[0])]) if counts.any() else 0.0)
    borders = np.linspace(least, max(high, least + 1e-9), bars + 1)
    ends = np.clip(edges, least, borders[-1])
    total = np.interp(borders, ends, np.concatenate([[0], np.cumsum(counts)]))
    size = np.sqrt(np.maximum(np.diff(total), 0))
    size = size / (size.max() or 1)
    step = width / bars
    drawn = "".join(
        f'<rect class="{"best" if borders[k + 1] > low else "bar"}" x="{k * step:.1f}" y="{height - each * height:.1f}" '
        f'width="{step - 1:.1f}" height="{max(each * height, 0.6 if each else 0):.1f}"/>'
        for k, each in enumerate(size)
    )
    return Markup(
        f'<svg class="histogram" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(description)}">{drawn}</svg>'
    )


def _unit(reach: float) -> float:
    """The size up to which an axis is about even; it is logarithmic beyond."""
    return min(1.0, 10.0 ** math.floor(math.log10(max(reach, 1e-9) / 2)))


def _log1p(reach: float) -> Callable[[float], float]:
    unit = _unit(reach)
    whole = math.log1p(max(reach, unit) / unit)  # an attack that found nothing, or tried nothing, has sizes of zero
    return lambda step: _LEFT + (_WIDTH - _LEFT - _RIGHT) * math.log1p(step / unit) / whole


def _shares(y: Callable[[float], float]) -> list[str]:
    return [
        f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(share):.1f}" y2="{y(share):.1f}"/>'
        f'<text x="{_LEFT - 7}" y="{y(share) + 4:.1f}" text-anchor="end">{share:.0%}</text>'
        for share in (0, 0.25, 0.5, 0.75, 1)
    ]


def _sizes(x: Callable[[float], float], reach: float, label: str) -> list[str]:
    floor, middle = _HEIGHT - _BOTTOM, (_LEFT + _WIDTH - _RIGHT) / 2
    ticks = [
        f'<line class="tick" x1="{x(step):.1f}" x2="{x(step):.1f}" y1="{floor}" y2="{floor + 4}"/>'
        f'<text x="{x(step):.1f}" y="{floor + 18}" text-anchor="middle">{step:g}</text>'
        for step in (0.0, *(_unit(reach) * 2.0**k for k in range(9) if _unit(reach) * 2**k <= reach * 1.001))
    ]
    return [*ticks, f'<text x="{middle}" y="{_HEIGHT - 6}" text-anchor="middle">{label} (logarithmic)</text>']


def _drawn(key: str, parts: Sequence[str], title: str, description: str) -> Markup:
    named, told = escape(f"{key}-t"), escape(f"{key}-d")
    return Markup(
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-labelledby="{named} {told}">'
        f'<title id="{named}">{escape(title)}</title><desc id="{told}">{escape(description)}</desc>'
        f"{''.join(parts)}</svg>"
    )
