"""What is gained by leaving the unsure images out, or to somebody else: accuracy over coverage, and both together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from seewhy.humans.accuracy import majority
from seewhy.humans.estimate import Array, Estimate, Floats, share
from seewhy.humans.resample import Draws, alone, numbers
from seewhy.humans.sample import Sample

#: the shares of the images that are answered, from few to all
GRID = tuple(round(0.05 * step, 2) for step in range(1, 21))
#: categories up to which one person and the network are combined by the person's confusions
_MOST = 100


@final
@dataclass(frozen=True)
class Curve:
    """Accuracy where a share of the images, the surest, is answered by one and the rest left out, or left to another."""

    name: str
    coverage: tuple[float, ...]
    accuracy: tuple[Estimate, ...]


@final
@dataclass(frozen=True)
class Together:
    """How accurate network and people are when both are asked, beside each alone.

    `mean` is the most probable class of the mean of the network's distribution and the people's (all of an image's votes);
    `one` a single person's answer combined with the network's distribution, by how people confuse classes (Kerrigan, Smyth &
    Steyvers 2021: p(class) ∝ network's probability × how often people say that answer for that class); `deferred` the
    network with a person for its least sure images, at the share of those that was best on other images.
    `gain` is `one` less the better of the two alone.
    """

    mean: Estimate
    one: Estimate
    deferred: Estimate
    to_people: float
    gain: Estimate


@final
@dataclass(frozen=True)
class Coverage:
    """Curves of who may abstain, and of the network with people for its least sure images; and both together."""

    abstain: tuple[Curve, ...]
    deferred: tuple[Curve, ...]
    together: Together


def surest(confidence: Floats, grid: Array) -> Floats:
    """How much of each image (N, G) belongs to the surest shares of a grid; images equally sure belong to them in equal parts.

    >>> surest(np.array([0.9, 0.5, 0.5, 0.1]), np.array([0.5])).ravel().tolist()
    [1.0, 0.5, 0.5, 0.0]
    """
    _, group, sizes = np.unique(-confidence, return_inverse=True, return_counts=True)
    before = np.concatenate([[0], sizes.cumsum()[:-1]])
    wanted = np.asarray(grid)[None] * len(confidence)
    return np.clip((wanted - before[:, None]) / sizes[:, None], 0.0, 1.0)[group]


def coverage(given: Sample, draws: Draws, seed: int) -> Coverage:
    """Accuracy over the share answered, for network, people and both, and of the network with people for the rest.

    The surest images are those with the highest probability, or share of votes. Intervals are over images, at the threshold of
    confidence that gives that share; which point of a curve is best is not known beforehand, so look at no single one.
    """
    counts, labels, count = given.votes.counts, given.labels, len(given)
    votes = counts.sum(1, keepdims=True)
    shares = np.divide(counts, votes, out=np.full(counts.shape, 1 / counts.shape[1]), where=votes > 0)
    places, hits, right = np.arange(count), given.hits, given.shares
    crowd = majority(counts)[0][places, labels]
    both = (given.probabilities + shares) / 2
    grid = np.array(GRID)
    together = (both.argmax(1) == labels).astype(np.float64)
    abstain = [
        _curve("network", surest(given.probabilities.max(1), grid), hits, draws),
        _curve("majority of people", surest(shares.max(1), grid), crowd, draws),
        _curve("both: mean of the two distributions", surest(both.max(1), grid), together, draws),
    ]
    steps = np.array((0.0, *GRID))
    kept = surest(given.probabilities.max(1), steps)
    deferred = [
        _mixed(f"network, then {name}", steps, kept, hits, theirs, draws)
        for name, theirs in (("one person", right), ("majority of people", crowd))
    ]
    return Coverage(tuple(abstain), tuple(deferred), _together(given, draws, seed, together, kept, steps))


def _curve(name: str, kept: Floats, right: Floats, draws: Draws) -> Curve:
    """Accuracy among the surest."""
    values = (kept * right[:, None]).sum(0) / kept.sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        moved = draws.sums(kept * right[:, None]) / draws.sums(kept) - values
    return Curve(name, GRID, _shares(values, moved, kept.sum(0)))


def _mixed(name: str, steps: Floats, kept: Floats, mine: Floats, theirs: Floats, draws: Draws) -> Curve:
    """Accuracy over all images where the rest is answered by others."""
    right = kept * mine[:, None] + (1 - kept) * theirs[:, None]
    values = right.mean(0)
    return Curve(
        name,
        tuple(steps.tolist()),
        _shares(values, draws.sums(right) / len(mine) - values, np.full(len(steps), len(mine))),
    )


def _shares(values: Floats, moved: Floats, images: Floats) -> tuple[Estimate, ...]:
    spread = alone(moved, images).spread()
    return tuple(
        share(float(value), float(count), float(error), float(freedom))
        for value, count, error, freedom in zip(values, images, spread.error, spread.freedom, strict=True)
    )


def _together(given: Sample, draws: Draws, seed: int, mean: Floats, kept: Floats, steps: Floats) -> Together:
    hits, right, count = given.hits, given.shares, len(given)
    half = numbers(seed, "two halves of the images").permutation(count) % 2
    mixed = kept * hits[:, None] + (1 - kept) * right[:, None]
    deferred, to_people = hits.copy(), 0.0
    for side in (0, 1):
        other = mixed[half != side]
        best = int(other.mean(0).argmax()) if len(other) else len(steps) - 1
        deferred[half == side] = mixed[half == side, best]
        to_people += (1 - float(steps[best])) * float((half == side).mean())
    one = _with_one(given, half)
    alone_best = hits if hits.mean() >= right.mean() else right
    rows = [mean, one, deferred, one - alone_best]
    values = np.array([row.mean() for row in rows])
    moved = draws.sums(np.column_stack(rows)) / count - values
    found = _shares(values[:3], moved[:, :3], np.full(3, count))
    gain = alone(moved, count).spread().estimate(float(values[3]), 3, bounds=(-1.0, 1.0))
    return Together(found[0], found[1], found[2], to_people, gain)


def _with_one(given: Sample, half: Array) -> Floats:
    """How often one person's answer and the network's distribution, combined, are right (N,); confusions are the other half's."""
    counts, labels, classes = given.votes.counts, given.labels, len(given.classes)
    votes = counts.sum(1)
    right = np.full(len(labels), np.nan)
    if classes > _MOST:
        return right
    for side in (0, 1):
        mine = np.flatnonzero(half == side)
        others = half != side
        said = np.zeros((classes, classes))
        np.add.at(said, labels[others], counts[others] / np.maximum(votes[others], 1)[:, None])
        # a class that the other half lacks, or an answer never given, gets one answer's worth of equal chances
        said = (said + 1 / classes) / (said.sum(1, keepdims=True) + 1)
        best = np.stack([(given.probabilities[mine] * said[:, answer]).argmax(1) for answer in range(classes)], 1)
        hit = best == labels[mine][:, None]
        right[mine] = (hit * counts[mine]).sum(1) / np.maximum(votes[mine], 1)
    return np.where(votes > 0, right, given.hits)
