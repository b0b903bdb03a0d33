"""A number with what a sample of images and of people leaves open about it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from scipy.special import ndtri, stdtrit  # type: ignore[import-untyped]

from seewhy.intervals import wilson

Array = np.ndarray[Any, np.dtype[Any]]
Floats = np.ndarray[Any, np.dtype[np.float64]]

#: the confidence of every interval
CONFIDENCE = 0.95


@final
@dataclass(frozen=True)
class Estimate:
    """A value and its interval of 95 %; NaN where there is no such value, the ends alone where nothing is known of them."""

    value: float
    low: float
    high: float

    @property
    def known(self) -> bool:
        """Whether there is a value at all."""
        return math.isfinite(self.value)

    @property
    def bounded(self) -> bool:
        """Whether there is an interval."""
        return self.known and math.isfinite(self.low) and math.isfinite(self.high)

    def above(self, value: float) -> bool:
        """Whether the whole interval lies above a value."""
        return self.bounded and self.low > value

    def below(self, value: float) -> bool:
        """Whether the whole interval lies below a value."""
        return self.bounded and self.high < value


UNKNOWN = Estimate(math.nan, math.nan, math.nan)


def quantile(confidence: float = CONFIDENCE, freedom: float = math.inf) -> float:
    """How many standard errors an interval reaches to each side: Student's t, the normal distribution's for infinite freedom.

    >>> round(quantile(), 3), round(quantile(freedom=9), 3)
    (1.96, 2.262)
    """
    tail = (1 + confidence) / 2
    return float(stdtrit(freedom, tail) if math.isfinite(freedom) else ndtri(tail))


def share(
    value: float,
    images: float,
    error: float | None = None,
    freedom: float = math.inf,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """A share in [0, 1] with Wilson's interval, from `images` independent ones.

    Where the images' answers are shares themselves, or are given by the same people, the sample counts as if it had
    p (1 − p) / `error`² images (the effective sample size of surveys), with Student's quantile of `freedom`. So the
    interval keeps inside [0, 1], and is not empty where everything was right.

    >>> found = share(0.9, 100)
    >>> round(found.low, 4), round(found.high, 4)
    (0.8256, 0.9448)
    """
    if images == 0 or not math.isfinite(value):
        return UNKNOWN
    total = images
    if error is not None and error > 0 and 0 < value < 1:
        total = value * (1 - value) / error**2
    return Estimate(value, *wilson(value * total, total, quantile(confidence, freedom)))


def combined(parts: Sequence[Estimate], weights: Sequence[float], correlation: Floats | None = None) -> Estimate:
    """A weighted sum of estimates, its interval made of theirs (MOVER: Zou & Donner 2008).

    Each end lies √(Σ ρ_jk d_j d_k) from the value, d_j being the weighted distance to the end of part j that moves the sum
    that way, and ρ the `correlation` of the parts (independent where not given). For two shares and weights 1, −1 this is
    Newcombe's interval of a difference (1998, methods 8 and 10).

    >>> found = combined([share(0.5, 100), share(0.5, 100)], [1, -1])
    >>> round(found.low, 4), round(found.high, 4)
    (-0.136, 0.136)
    """
    there = [(part, weight, place) for place, (part, weight) in enumerate(zip(parts, weights, strict=True)) if weight]
    if not there or not all(part.known for part, _, _ in there):
        return UNKNOWN
    places = [place for _, _, place in there]
    rho = np.eye(len(there)) if correlation is None else np.nan_to_num(correlation[np.ix_(places, places)])
    np.fill_diagonal(rho, 1.0)
    below = np.array([part.value - part.low for part, _, _ in there])
    above = np.array([part.high - part.value for part, _, _ in there])
    factors = np.array([weight for _, weight, _ in there], dtype=np.float64)
    signs = np.sign(factors)
    down = abs(factors) * np.where(signs > 0, below, above)
    up = abs(factors) * np.where(signs > 0, above, below)
    rho = rho * np.outer(signs, signs)
    value = float(sum(weight * part.value for part, weight, _ in there))
    low, high = (math.sqrt(max(float(side @ rho @ side), 0.0)) for side in (down, up))
    return Estimate(value, value - low, value + high)


def doubt(interval: Callable[[float], Estimate], at: float = 0.0) -> float:
    """The two-sided p-value of a value: one minus the confidence at which an interval just reaches it.

    >>> doubt(lambda confidence: share(0.5, 40, confidence=confidence), at=0.5)
    1.0
    """
    first = interval(CONFIDENCE)
    if not first.bounded:
        return math.nan
    if first.value == at:
        return 1.0
    low, high = 1e-15, 1.0
    for _ in range(60):  # the interval of confidence 1 − low holds the value, that of 1 − high does not
        middle = math.sqrt(low * high)
        held = interval(1 - middle)
        low, high = (middle, high) if held.low <= at <= held.high else (low, middle)
    return high


def mean_known(values: Array) -> Floats:
    """The mean over the first axis of what is not NaN; NaN where nothing is."""
    there = np.isfinite(values)
    count = there.sum(0)
    return np.divide(
        np.where(there, values, 0.0).sum(0), count, out=np.full(values.shape[1:], math.nan), where=count > 0
    )
