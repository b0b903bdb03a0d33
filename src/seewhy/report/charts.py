"""Line charts as inline SVG: small, readable aloud, and coloured by the page, in its light and in its dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from markupsafe import Markup, escape

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
) -> Markup:
    """Confidence against ε for the class before (solid) and the class that it becomes (dashed; none where empty).

    Between neighbouring sizes that both fool (`fooled`) the ground is coloured; the `smallest` one is marked. `eps` is
    in [0, 1] pixels, from 0 on; the axis is in steps of 1/255, log(1 + steps), so that 0 has its place. `key` makes the
    ids unique in the page.
    """
    steps = [255 * value for value in eps]
    reach = max(*steps, 1.0)

    def x(step: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * math.log1p(step) / math.log1p(reach)

    def y(probability: float) -> float:
        return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - probability)

    parts = [
        f'<rect class="fooled" x="{x(low):.1f}" y="{_TOP}" width="{x(high) - x(low):.1f}" '
        f'height="{_HEIGHT - _TOP - _BOTTOM}"/>'
        for (low, first), (high, second) in pairwise(zip(steps, fooled, strict=True))
        if first and second and high > low
    ]
    if smallest is not None:
        at = x(255 * smallest)
        right = at < _WIDTH * 0.62
        parts.append(
            f'<line class="mark" x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP - 6}" y2="{_HEIGHT - _BOTTOM}"/>'
            f'<text class="marked" x="{at + (5 if right else -5):.1f}" y="{_TOP - 8}" '
            f'text-anchor="{"start" if right else "end"}">fooled at {255 * smallest:.2g}/255</text>'
        )
    parts += [
        f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(share):.1f}" y2="{y(share):.1f}"/>'
        f'<text x="{_LEFT - 7}" y="{y(share) + 4:.1f}" text-anchor="end">{share:.0%}</text>'
        for share in (0, 0.25, 0.5, 0.75, 1)
    ]
    floor = _HEIGHT - _BOTTOM
    parts += [
        f'<line class="tick" x1="{x(step):.1f}" x2="{x(step):.1f}" y1="{floor}" y2="{floor + 4}"/>'
        f'<text x="{x(step):.1f}" y="{floor + 18}" text-anchor="middle">{step:g}</text>'
        for step in (0.0, *(2.0**k for k in range(9) if 2**k <= reach * 1.001))
    ]
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{_HEIGHT - 6}" text-anchor="middle">ε, in steps of 1/255 (logarithmic)</text>')
    for name, values in (("after", after), ("before", before)):
        if not values:
            continue
        points = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in zip(steps, values, strict=True))
        parts.append(f'<polyline class="{name}" points="{points}"/>')
        parts.extend(
            f'<circle class="{name}" cx="{x(step):.1f}" cy="{y(value):.1f}" r="2.6"/>'
            for step, value in zip(steps, values, strict=True)
        )
    named, told = escape(f"{key}-t"), escape(f"{key}-d")
    return Markup(
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-labelledby="{named} {told}">'
        f'<title id="{named}">{escape(title)}</title><desc id="{told}">{escape(description)}</desc>'
        f"{''.join(parts)}</svg>"
    )
