"""What a finite number of images leaves open."""

from __future__ import annotations

import math
from collections.abc import Sequence

_Z = 1.959963984540054  # of 95 %


def wilson(count: float, total: float, z: float = _Z) -> tuple[float, float]:
    """Wilson's interval (1927) of 95 % for a share of which `count` of `total` were seen; all of [0, 1] where nothing was seen.

    `z` is the normal quantile of another confidence.

    >>> [round(end, 3) for end in wilson(4, 4)]
    [0.51, 1.0]
    """
    if total == 0:
        return 0.0, 1.0
    share, square = count / total, z**2
    middle = (share + square / (2 * total)) / (1 + square / total)
    half = z / (1 + square / total) * math.sqrt(share * (1 - share) / total + square / (4 * total**2))
    return 0.0 if count == 0 else middle - half, 1.0 if count == total else middle + half


def wilson_mean(counts: Sequence[float], totals: Sequence[float]) -> tuple[float, float]:
    """The interval of 95 % for the plain mean of independent shares, made of Wilson's of each (MOVER: Zou & Donner 2008).

    Each end lies √(Σ d²)/K from the mean, d being the distances of the K shares from their own ends.

    >>> [round(end, 3) for end in wilson_mean([4, 1], [4, 2])]
    [0.432, 0.953]
    """
    shares = [count / total for count, total in zip(counts, totals, strict=True)]
    ends = [wilson(count, total) for count, total in zip(counts, totals, strict=True)]
    mean = sum(shares) / len(shares)
    below, above = (
        math.hypot(*(share - pair[side] for share, pair in zip(shares, ends, strict=True))) / len(shares)
        for side in (0, 1)
    )
    return mean - below, mean + above
