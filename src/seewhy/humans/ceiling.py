"""How well anything could predict what people say: the noise ceiling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from seewhy.humans.estimate import UNKNOWN, Array, Estimate, Floats, share
from seewhy.humans.resample import Draws, alone, numbers
from seewhy.humans.sample import Sample
from seewhy.humans.soft import halved


@final
@dataclass(frozen=True)
class Ceiling:
    """The share of people's answers that are predicted, of images with two votes or more.

    `network` by the network's answer; `others` by the majority of the image's other votes (what people's agreement allows at
    least); `most` by the image's own majority (at most: it has seen the votes that it predicts). `truth` is by the true class,
    and `halves` how often the majorities of two random halves of the votes are the same, ties counting in parts.
    """

    network: Estimate
    others: Estimate
    most: Estimate
    truth: Estimate
    halves: Estimate
    images: int


def left_out(counts: Array) -> Floats:
    """How often the majority of an image's other votes is the one left out (N,); ties count as one part of those tied.

    >>> left_out(np.array([[3, 0], [2, 1], [1, 1]])).round(3).tolist()
    [1.0, 0.333, 0.0]
    """
    ordered = -np.sort(-counts, 1)
    first = ordered[:, 0].astype(np.float64)
    second = ordered[:, 1] if counts.shape[1] > 1 else np.zeros(len(counts))
    # only a vote for a sole majority can be foretold: without it that class has one vote less, and is tied with equals
    tied = (counts == (first - 1)[:, None]).sum(1) * (first > 1)
    alone_first = first > second
    won = np.where(alone_first, 1 / (1 + np.where(first - 1 == second, tied, 0)), 0.0)
    return np.divide(first * won, counts.sum(1), out=np.zeros(len(counts)), where=counts.sum(1) > 1)


def ceiling(given: Sample, draws: Draws, seed: int) -> Ceiling:
    """How often the network foretells a person's answer, between what others foretell and what the majority itself reaches."""
    counts, votes = given.votes.counts, given.votes.counts.sum(1)
    kept = votes >= 2
    images = int(kept.sum())
    if not images:
        return Ceiling(UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, 0)
    places, total = np.arange(len(counts)), np.maximum(votes, 1)
    random = numbers(seed, "halves of the votes")
    agreed = np.zeros(len(counts))
    rounds = 10
    for _ in range(rounds):
        one = halved(counts, random)
        sides = [_winners(side) for side in (one, counts - one)]
        agreed += (sides[0] * sides[1]).sum(1) / rounds
    rows = [
        counts[places, given.answers] / total,
        left_out(counts),
        counts.max(1) / total,
        counts[places, given.labels] / total,
        agreed,
    ]
    columns = np.column_stack(rows) * kept[:, None]
    values = columns.sum(0) / images
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = alone(draws.sums(columns) / draws.sums(kept[:, None]) - values, images).spread()
    found = [
        share(float(value), images, float(error), float(freedom))
        for value, error, freedom in zip(values, spread.error, spread.freedom, strict=True)
    ]
    return Ceiling(found[0], found[1], found[2], found[3], found[4], images)


def _winners(counts: Array) -> Floats:
    """The majority's classes, each with its part where several are tied."""
    best = (counts == counts.max(1, keepdims=True)) & (counts > 0)
    return best / np.maximum(best.sum(1, keepdims=True), 1)
