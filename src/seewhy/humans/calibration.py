"""Whether confidence means what it says: the network's, the people's, and the network's taken as a share of people."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, final

import numpy as np

from seewhy.humans.accuracy import majority
from seewhy.humans.estimate import Array, Estimate, Floats, share
from seewhy.humans.resample import Draws, alone, numbers
from seewhy.humans.sample import Sample

#: bins of a reliability diagram
BINS = 15

Who = Literal["network", "people", "network as people"]


@final
@dataclass(frozen=True)
class Bin:
    """The images whose confidence lies from `low` to `high`: how many, their mean confidence, and what came of it."""

    low: float
    high: float
    images: int
    confidence: float
    accuracy: Estimate


@final
@dataclass(frozen=True)
class Reliability:
    """Confidence against what came of it, in bins of equal width and of equal mass.

    `width` and `mass` are the expected calibration errors Σ_b (n_b / n) |accuracy_b − confidence_b|; `perfect` is what the first
    comes to, in the mean, for a perfectly calibrated observer with these confidences and as few images, `over` the mean
    confidence less the accuracy: above 0 where confidence promises too much.
    """

    who: Who
    bins: tuple[Bin, ...]
    equal: tuple[Bin, ...]
    width: Estimate
    mass: Estimate
    perfect: float
    over: Estimate


def calibration(given: Sample, draws: Draws, seed: int) -> tuple[Reliability, ...]:
    """The reliability of three things: the network's probability of its answer, the people's share of votes for theirs as a
    confidence in being right, and the network's probability of its answer as a prediction of the share of people who give it.

    Intervals of the errors are basic bootstrap intervals over images: calibration errors are too large by their own noise,
    and the rounds' again, so their quantiles are taken to the other side. Images that nobody voted for are left out.
    """
    counts = given.votes.counts
    votes = counts.sum(1)
    kept = votes > 0
    if not kept.any():
        return ()
    counts, votes, labels = counts[kept], votes[kept], given.labels[kept]
    places = np.arange(len(labels))
    said, answers = given.probabilities[kept].max(1), given.answers[kept]
    credit = majority(counts)[0][places, labels]
    weights = draws.images[:, kept]
    own = Draws(weights, draws.annotators)
    cases: tuple[tuple[Who, Floats, Floats], ...] = (
        ("network", said, given.hits[kept]),
        ("people", counts.max(1) / votes, credit),
        ("network as people", said, counts[places, answers] / votes),
    )
    return tuple(_reliability(who, confidence, came, own, seed) for who, confidence, came in cases)


def error(confidence: Floats, came: Floats, bins: Array) -> float:
    """The expected calibration error, given each image's bin.

    >>> round(error(np.array([0.9, 0.9, 0.6]), np.array([1.0, 0.0, 1.0]), np.array([1, 1, 0])), 4)
    0.4
    """
    gaps = np.bincount(bins, came - confidence)
    return float(abs(gaps).sum() / len(bins))


def equal_width(confidence: Floats, count: int = BINS) -> tuple[Array, Floats]:
    """The bin of each confidence and the bins' edges, equally wide; an edge belongs to the bin below it."""
    edges = np.linspace(0, 1, count + 1)
    return np.clip(np.ceil(np.round(confidence * count, 9)).astype(int) - 1, 0, count - 1), edges


def equal_mass(confidence: Floats, count: int = BINS) -> tuple[Array, Floats]:
    """The bin of each confidence and the edges, as many images in each bin as can be where equal ones stay together."""
    edges = np.unique(np.quantile(confidence, np.linspace(0, 1, count + 1), method="inverted_cdf"))
    if len(edges) == 1:
        return np.zeros(len(confidence), dtype=int), np.array([edges[0], edges[0]])
    return np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, len(edges) - 2), edges


def _reliability(who: Who, confidence: Floats, came: Floats, draws: Draws, seed: int) -> Reliability:
    tables, found = [], []
    for bins, edges in (equal_width(confidence), equal_mass(confidence)):
        inside = np.eye(len(edges) - 1)[bins]
        gap = came - confidence
        moved = abs(draws.sums(inside * gap[:, None])).sum(1) / draws.sums(np.ones((len(gap), 1)))[:, 0]
        value = error(confidence, came, bins)
        spread = alone(moved[:, None] - value, len(gap)).spread()
        found.append(spread.estimate(value, reflected=True, bounds=(0.0, 1.0)))
        tables.append(_bins(bins, edges, confidence, came))
    bins, _ = equal_width(confidence)
    over = alone(
        (draws.sums((confidence - came)[:, None]) / draws.sums(np.ones((len(came), 1)))) - (confidence - came).mean(),
        len(came),
    )
    random = numbers(seed, "perfectly calibrated", who)
    ideal = [error(confidence, (random.random(len(came)) < confidence).astype(float), bins) for _ in range(100)]
    return Reliability(
        who,
        tables[0],
        tables[1],
        found[0],
        found[1],
        float(np.mean(ideal)),
        over.spread().estimate(float((confidence - came).mean()), bounds=(-1.0, 1.0)),
    )


def _bins(bins: Array, edges: Floats, confidence: Floats, came: Floats) -> tuple[Bin, ...]:
    table = []
    for place in np.unique(bins).tolist():
        inside = bins == place
        count = int(inside.sum())
        binary = bool(np.isin(came[inside], (0.0, 1.0)).all())
        scatter = None if binary or count < 2 else float(came[inside].std(ddof=1)) / math.sqrt(count)
        accuracy = share(float(came[inside].mean()), count, scatter)
        table.append(
            Bin(float(edges[place]), float(edges[place + 1]), count, float(confidence[inside].mean()), accuracy)
        )
    return tuple(table)
