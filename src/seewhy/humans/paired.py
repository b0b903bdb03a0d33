"""The network against people on the same images: differences, exact tests, and what sample would tell them apart."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from scipy.special import bdtr, ndtri  # type: ignore[import-untyped]

from seewhy.humans.estimate import CONFIDENCE, Array, Estimate, combined, doubt, share
from seewhy.humans.resample import Spread

#: a share as a function of the confidence of its interval
Ends = Callable[[float], Estimate]

#: the chance of telling a difference, for which samples are planned
POWER = 0.8


@final
@dataclass(frozen=True)
class Difference:
    """The network's share less the people's on the same images, with the p-value of no difference."""

    network: Estimate
    people: Estimate
    difference: Estimate
    p: float


@final
@dataclass(frozen=True)
class McNemar:
    """The network against one observer on the same images: how often only one of the two was right, and the exact test.

    `adjusted` is p after Holm's correction for all observers that were compared; `difference` is Newcombe's interval.
    """

    observer: str
    images: int
    only_network: int
    only_observer: int
    difference: Estimate
    p: float
    adjusted: float


@final
@dataclass(frozen=True)
class Needed:
    """How many images or annotators would tell a difference as large as the one seen (80 % power, 5 % level, two-sided).

    `images` with as many annotators as now, `annotators` with as many images as now; infinite where more of them alone
    never suffice. `least` is the smallest difference that this sample tells with that power.
    """

    images: float
    annotators: float
    least: float


def compared(network: Ends, people: Ends, correlation: float) -> Difference:
    """The difference of two shares with the interval made of theirs, and the p-value that goes with it."""
    matrix = np.array([[1.0, correlation], [correlation, 1.0]])

    def difference(confidence: float) -> Estimate:
        return combined([network(confidence), people(confidence)], [1, -1], matrix)

    return Difference(network(CONFIDENCE), people(CONFIDENCE), difference(CONFIDENCE), doubt(difference))


def mcnemar(only_one: int, only_other: int) -> float:
    """The exact two-sided p-value of McNemar's test: as many heads in so many tosses of a fair coin.

    >>> mcnemar(0, 5)
    0.0625
    """
    tosses = only_one + only_other
    return min(1.0, 2 * float(bdtr(min(only_one, only_other), tosses, 0.5))) if tosses else 1.0


def against(observers: Sequence[str], who: Array, mine: Array, theirs: Array) -> tuple[McNemar, ...]:
    """McNemar's test of the network against each observer, from answers to images in any order.

    `who` (T,) is the observer's place, `mine` and `theirs` (T,) say whether the network and the observer are right.
    Observers without an answer are left out.
    """
    kinds = np.bincount(who * 4 + mine * 2 + theirs, minlength=4 * len(observers)).reshape(-1, 2, 2)
    found = []
    for name, ((none, other), (one, both)) in zip(observers, kinds.tolist(), strict=True):
        count = both + one + other + none
        if not count:
            continue
        margins = math.sqrt(float(both + one) * (both + other) * (none + one) * (none + other))
        phi = (both * none - one * other) / margins if margins else 0.0
        shares = [share((both + each) / count, count) for each in (one, other)]
        difference = combined(shares, [1, -1], np.array([[1.0, phi], [phi, 1.0]]))
        found.append((name, count, one, other, difference, mcnemar(one, other)))
    adjusted = holm([each[-1] for each in found])
    return tuple(McNemar(*each, corrected) for each, corrected in zip(found, adjusted, strict=True))


def holm(values: Sequence[float]) -> list[float]:
    """Holm's (1979) correction of p-values for their number; NaN stays and does not count.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    result, highest = [math.nan] * len(values), 0.0
    there = sorted(
        (place for place, value in enumerate(values) if math.isfinite(value)), key=lambda place: values[place]
    )
    for rank, place in enumerate(there):
        highest = max(highest, min(1.0, (len(there) - rank) * values[place]))
        result[place] = highest
    return result


def needed(difference: float, spread: Spread, place: int, images: int, annotators: int) -> Needed:
    """What sample would tell `difference`, from the scatter of that difference in this one."""
    reach = float(ndtri((1 + CONFIDENCE) / 2) + ndtri(POWER))
    of_images, of_people = float(spread.of_images[place]), float(spread.of_people[place])
    answers = min(float(spread.of_answers[place]), of_images, of_people) if annotators > 1 else 0.0
    least = reach * float(spread.error[place])
    bound = (difference / reach) ** 2
    if not bound > 0 or not spread.error[place] > 0:
        return Needed(math.inf, math.inf, least)

    def more(scaled: float, fixed: float, count: int) -> float:
        # the scatter of single answers falls with both numbers: it is part of both variances, and counted once
        return max(1.0, math.ceil(count * scaled / (bound - fixed))) if bound > fixed else math.inf

    return Needed(
        images=more(of_images, max(of_people - answers, 0.0), images),
        annotators=more(of_people, max(of_images - answers, 0.0), annotators) if annotators > 1 else math.inf,
        least=least,
    )
