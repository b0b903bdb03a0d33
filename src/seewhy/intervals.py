"""What a finite number of images leaves open."""

from __future__ import annotations

import math

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
