"""Numbers as sentences have them, and none that was not measured."""

from __future__ import annotations

import math

from seewhy.humans.estimate import Estimate

#: a space at which no line breaks
NBSP = "\u00a0"


def percent(value: float) -> str:
    """A share in percent; where rounding would make all or none of nearly all or few, with more digits.

    >>> [percent(value).replace(NBSP, " ") for value in (0.9234, 1.0, 0.9998, 0.0)]
    ['92.3 %', '100 %', '99.98 %', '0 %']
    """
    if not math.isfinite(value):
        return "unknown"
    if value in (0.0, 1.0):
        return f"{100 * value:.0f}{NBSP}%"
    digits = 1
    while digits < 4 and f"{100 * value:.{digits}f}" in (f"{100:.{digits}f}", f"{0:.{digits}f}"):
        digits += 1
    return f"{100 * value:.{digits}f}{NBSP}%".replace("-", "−")


def shares(found: Estimate) -> str:
    """A share with its interval.

    >>> shares(Estimate(0.5, 0.4, 0.6)).replace(NBSP, " ")
    '50.0 % (95 %: 40.0 to 60.0)'
    """
    if not found.known:
        return "unknown"
    if not found.bounded:
        return f"{percent(found.value)} (no interval)"
    ends = (percent(end).removesuffix(f"{NBSP}%") for end in (found.low, found.high))
    return f"{percent(found.value)} (95{NBSP}%: {' to '.join(ends)})"


def points(value: float) -> str:
    """A difference of shares in points, with its sign.

    >>> points(-0.0312).replace(NBSP, " ")
    '−3.1 points'
    """
    return f"{_signed(100 * value)}{NBSP}points"


def difference(found: Estimate) -> str:
    """A difference of shares with its interval, in points.

    >>> difference(Estimate(-0.03, -0.041, 0.002)).replace(NBSP, " ")
    '−3.0 points (95 %: −4.1 to +0.2)'
    """
    if not found.known:
        return "unknown"
    if not found.bounded:
        return f"{points(found.value)} (no interval)"
    return f"{points(found.value)} (95{NBSP}%: {_signed(100 * found.low)} to {_signed(100 * found.high)})"


def number(found: Estimate, digits: int = 2) -> str:
    """A number with its interval.

    >>> number(Estimate(0.318, 0.25, 0.39)).replace(NBSP, " ")
    '0.32 (95 %: 0.25 to 0.39)'
    """
    if not found.known:
        return "unknown"
    value, low, high = (f"{each:.{digits}f}".replace("-", "−") for each in (found.value, found.low, found.high))
    return f"{value} (95{NBSP}%: {low} to {high})" if found.bounded else f"{value} (no interval)"


def p_value(value: float) -> str:
    """A p-value.

    >>> p_value(0.0312), p_value(1e-9)
    ('p = 0.031', 'p < 0.0001')
    """
    if not math.isfinite(value):
        return "p unknown"
    return "p < 0.0001" if value < 1e-4 else f"p = {value:.2g}"


def about(value: float) -> str:
    """A number of images or people, of two digits that mean something.

    >>> about(12345.0), about(7)
    ('about 12,000', '7')
    """
    if value < 100:
        return f"{value:.0f}"
    size = 10 ** (math.floor(math.log10(value)) - 1)
    return f"about {round(value / size) * size:,.0f}"


def counted(count: int, one: str, many: str = "") -> str:
    """A number with its noun.

    >>> counted(1, "image"), counted(1200, "image")
    ('1 image', '1,200 images')
    """
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def _signed(value: float) -> str:
    text = f"{value:+.1f}"
    return "0.0" if float(text) == 0 else text.replace("-", "−")
