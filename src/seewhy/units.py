"""Numbers as people write them: pixel steps such as `8/255`, counts and times."""

from __future__ import annotations

import math
import re

from seewhy.errors import SpecError


def number(text: str | float) -> float:
    """Read a number or a fraction.

    >>> number("8/255") == 8 / 255
    True
    """
    if isinstance(text, int | float):
        return float(text)
    above, slash, below = text.partition("/")
    try:
        value = float(above) / float(below) if slash else float(above)
    except (ValueError, ZeroDivisionError):
        raise SpecError(f'expected a number such as 0.03 or 8/255, got "{text}"') from None
    if not math.isfinite(value):
        raise SpecError(f'expected a finite number, got "{text}"')
    return value


def duration(text: str) -> float:
    """Read a time, in seconds where no unit is given.

    >>> duration("5m"), duration("1h30m"), duration("90")
    (300.0, 5400.0, 90.0)
    """
    whole = re.fullmatch(r"(?:([\d.]+)h)?(?:([\d.]+)m(?:in)?)?(?:([\d.]+)s?)?", text.replace(" ", "").lower())
    try:
        parts = [float(part or 0) for part in whole.groups()] if whole and text.strip() else [0.0]
    except ValueError:
        parts = [0.0]
    value = sum(part * unit for part, unit in zip(parts, (3600, 60, 1), strict=False))
    if value <= 0:
        raise SpecError(f'expected a time such as 90s, 5m or 1h30m, got "{text}"')
    return value


def pixels(value: float) -> str:
    """Write a distance in [0, 1] pixels the way people read it.

    >>> pixels(8 / 255), pixels(0.03)
    ('8/255', '7.65/255')
    """
    return f"{value * 255:.3g}/255"


def count(value: float) -> str:
    """Write a large number with a metric prefix.

    >>> count(4_089_000_000)
    '4.09 G'
    """
    for size, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g} {prefix}"
    return f"{value:.3g}"


def seconds(value: float) -> str:
    """Write a time the way people read it.

    >>> seconds(0.0123), seconds(75)
    ('12 ms', '1 min 15 s')
    """
    if value < 1:
        return f"{value * 1e3:.2g} ms" if value < 0.01 else f"{value * 1e3:.0f} ms"
    if value < 60:
        return f"{value:.1f} s"
    return f"{int(value // 60)} min {int(value % 60)} s"
