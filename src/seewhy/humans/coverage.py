"""What is gained by leaving the unsure images out, or to somebody else: accuracy over coverage, and both together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from scipy.special import logsumexp  # type: ignore[import-untyped]

from seewhy.humans.accuracy import majority
from seewhy.humans.estimate import UNKNOWN, Array, Estimate, Floats, share
from seewhy.humans.resample import Draws, Replicates, alone, numbers
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
    Steyvers 2021: p(class) ∝ network's probability at a fitted temperature × how often people say that answer for that class,
    both learned on other images); `deferred` the network with a person for its least sure images, at the share of those that
    was best on other images. `gain` is `one` less the better of the two alone.
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
    alone_right = _deferred(given, draws, kept)
    values = (kept * hits[:, None] + (1 - kept) * right[:, None]).mean(0)
    deferred = [
        Curve("network, then one person", tuple(steps.tolist()), _shares(values, alone_right)),
        _mixed("network, then majority of people", steps, kept, hits, crowd, draws),
    ]
    return Coverage(tuple(abstain), tuple(deferred), _together(given, draws, seed, together, kept, steps))


def _deferred(given: Sample, draws: Draws, kept: Floats) -> Replicates:
    """How the accuracy of the network for `kept` (N, M) and one person for the rest moves."""
    count, rest = len(given), 1 - kept
    right = kept * given.hits[:, None] + rest * given.shares[:, None]
    images = draws.sums(right) / count - right.mean(0)
    moved, part = given.moved(draws, rest), rest.mean(0)
    answers = np.nan_to_num(moved.answers) * part**2
    return Replicates(images, np.nan_to_num(moved.annotators) * part, answers, count, moved.people)


def _curve(name: str, kept: Floats, right: Floats, draws: Draws) -> Curve:
    """Accuracy among the surest."""
    values = (kept * right[:, None]).sum(0) / kept.sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        moved = draws.sums(kept * right[:, None]) / draws.sums(kept) - values
    return Curve(name, GRID, _shares(values, alone(moved, kept.sum(0))))


def _mixed(name: str, steps: Floats, kept: Floats, mine: Floats, theirs: Floats, draws: Draws) -> Curve:
    """Accuracy over all images where the rest is answered by others."""
    right = kept * mine[:, None] + (1 - kept) * theirs[:, None]
    values = right.mean(0)
    return Curve(name, tuple(steps.tolist()), _shares(values, alone(draws.sums(right) / len(mine) - values, len(mine))))


def _shares(values: Floats, moved: Replicates) -> tuple[Estimate, ...]:
    spread = moved.spread()
    images = np.broadcast_to(moved.count, values.shape)
    return tuple(
        share(float(value), float(count), float(error), float(freedom))
        for value, count, error, freedom in zip(values, images, spread.error, spread.freedom, strict=True)
    )


def _together(given: Sample, draws: Draws, seed: int, mean: Floats, kept: Floats, steps: Floats) -> Together:
    hits, right, count = given.hits, given.shares, len(given)
    half = numbers(seed, "two halves of the images").permutation(count) % 2
    mixed = kept * hits[:, None] + (1 - kept) * right[:, None]
    to_network, to_people = np.ones(count), 0.0
    for side in (0, 1):
        other = mixed[half != side]
        best = int(other.mean(0).argmax()) if len(other) else len(steps) - 1
        to_network[half == side] = kept[half == side, best]
        to_people += (1 - float(steps[best])) * float((half == side).mean())
    moved = _deferred(given, draws, to_network[:, None])
    value = np.array([(to_network * hits + (1 - to_network) * right).mean()])
    deferred = _shares(value, moved)[0]
    both = _shares(np.array([mean.mean()]), alone(draws.sums(mean[:, None]) / count - mean.mean(), count))[0]
    table = _with_one(given, half) if len(given.classes) <= _MOST else None
    if table is None:
        return Together(both, UNKNOWN, deferred, to_people, UNKNOWN)
    every = np.ones((count, 1))
    one = given.moved(draws, every, table)
    person = np.column_stack([given.truth, np.zeros(count)])
    other = table - (given.hits[:, None] if hits.mean() >= right.mean() else person)
    value, apart = given.shares_of(table).mean(), given.shares_of(other).mean()
    gain = given.moved(draws, every, other).spread().estimate(float(apart), bounds=(-1.0, 1.0))
    return Together(both, _shares(np.array([value]), one)[0], deferred, to_people, gain)


def _with_one(given: Sample, half: Array) -> Floats:
    """Whether network and a person's answer, combined, are right: for each answer, and for none (N, K + 1).

    How people confuse classes, and how sure the network may be (a temperature), are learned on the other half of the images.
    """
    counts, labels, classes = given.votes.counts, given.labels, len(given.classes)
    votes = counts.sum(1)
    table = np.repeat(given.hits[:, None], classes + 1, 1)
    for side in (0, 1):
        mine, others = np.flatnonzero(half == side), half != side
        said = np.zeros((classes, classes))
        np.add.at(said, labels[others], counts[others] / np.maximum(votes[others], 1)[:, None])
        # a class that the other half lacks, or an answer never given, gets one answer's worth of equal chances
        said = (said + 1 / classes) / (said.sum(1, keepdims=True) + 1)
        logs = np.log(np.maximum(given.probabilities, 1e-12))
        cooled = logs[mine] / temperature(logs[others], labels[others])
        for answer in range(classes):
            table[mine, answer] = (cooled + np.log(said[:, answer])).argmax(1) == labels[mine]
    return table


def temperature(logs: Floats, labels: Array) -> float:
    """The temperature by which log-probabilities (N, K) are to be divided for the labels to be likeliest (Guo et al. 2017).

    >>> temperature(np.log(np.array([[0.99, 0.01]] * 4)), np.array([0, 0, 0, 1])) > 3
    True
    """
    grid = np.exp(np.linspace(np.log(1 / 8), np.log(8), 49))
    if not len(labels):
        return 1.0
    losses = []
    for each in grid:
        held = logs / each
        losses.append(float((logsumexp(held, axis=1) - held[np.arange(len(labels)), labels]).mean()))
    return float(grid[int(np.argmin(losses))])
