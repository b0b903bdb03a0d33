"""The network's probabilities against all that people said: how far from the votes, how much of it is people's doubt."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy as np
from scipy.special import digamma, xlogy  # type: ignore[import-untyped]

from seewhy.humans.estimate import UNKNOWN, Array, Estimate, Floats, share
from seewhy.humans.resample import Draws, alone, numbers
from seewhy.humans.sample import Sample

#: probabilities below this count as this much in logarithms
_LEAST = 1e-12
#: how often people are split in halves at random
_HALVES = 10


@final
@dataclass(frozen=True)
class Score:
    """A proper score of predictions of a vote: the network's, the best possible (people's own), the difference, other votes'.

    `floor` is what somebody who knew the people's distribution would get, `excess` = `network` − `floor` how far the network is
    from that distribution; `people` is what an image's other votes get when they predict one that is left out.
    """

    network: Estimate
    floor: Estimate
    excess: Estimate
    people: Estimate


@final
@dataclass(frozen=True)
class Soft:
    """Cross-entropy (nats; its excess is KL) and Brier's score, choices in common, whether the same images are unclear to both.

    `first` and `second` are the shares of the images (`firsts`, `seconds`) where people's first or second choice is untied and is
    the network's; `entropies` is Spearman's correlation of the network's and the people's entropy, `reach` the highest that a
    finite number of votes lets a perfect network reach; `unlike` the total variation ½ Σ |q − p|, which votes' noise enlarges.
    """

    images: int
    cross_entropy: Score
    brier: Score
    unlike: Estimate
    first: Estimate
    second: Estimate
    firsts: int
    seconds: int
    entropies: Estimate
    reach: float
    notes: tuple[str, ...]


def entropy(counts: Array) -> Floats:
    """Entropy (nats) of each row of votes (N, K), almost without the bias of finite votes: Σ_k (n_k / n)(ψ(n) − ψ(n_k)).

    The plain −Σ p log p is too small by about (K − 1) / 2n; this falls short by a term that vanishes exponentially in n
    (Zhang 2012; Schürmann 2015).

    >>> [round(float(value), 3) for value in entropy(np.array([[2, 0], [1, 1], [26, 25]]))]
    [0.0, 1.0, 0.703]
    """
    held = np.asarray(counts, dtype=np.float64)
    total = held.sum(-1, keepdims=True)
    return np.where(held > 0, held / total * (digamma(total) - digamma(np.maximum(held, 1))), 0.0).sum(-1)


def soft(given: Sample, draws: Draws, seed: int) -> Soft | None:
    """Scores of the network against the votes of images that have two or more; None where there is none.

    A score over votes is unbiased however few they are; so are the floors, of Brier's score Σ_k n_k (n − n_k) / n (n − 1), of
    cross-entropy by `entropy`. A distance to the plain shares of votes would be too large, by their noise. Votes left out
    are predicted with one vote's worth of equal chances added, as the logarithm of nothing is infinite.
    """
    counts = given.votes.counts
    kept = counts.sum(1) >= 2
    if not kept.any():
        return None
    held = np.where(kept[:, None], counts, 0).astype(np.float64)
    total = np.where(kept, counts.sum(1), 2).astype(np.float64)
    shares, said = held / total[:, None], given.probabilities
    logs = np.log(np.maximum(said, _LEAST))
    cross, floor = -(shares * logs).sum(1), entropy(np.where(kept[:, None], counts, 1)) * kept
    square = (said**2).sum(1)
    brier, pure = square - 2 * (shares * said).sum(1) + 1, (held * (held - 1)).sum(1) / (total * (total - 1))
    others = _left_out(held, total)
    unlike = abs(said - shares).sum(1) / 2
    columns = np.column_stack(
        [cross, floor, cross - floor, others[0], brier, 1 - pure, brier - 1 + pure, others[1], unlike]
    )
    columns *= kept[:, None]
    columns = np.column_stack([columns, kept])

    def means(sums: Floats) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore"):
            return sums[..., :-1] / sums[..., -1:]

    values = means(columns.sum(0))
    spread = alone(means(draws.sums(columns)) - values, int(kept.sum())).spread()
    found = [spread.estimate(float(value), place) for place, value in enumerate(values)]
    first, second, firsts, seconds = _choices(held[kept], said[kept])
    entropies, reach = _entropies(given, kept, draws, seed)
    notes = []
    if not kept.all():
        notes.append(f"soft labels: {int((~kept).sum()):,} images with fewer than two votes are left out")
    if cut := int(((said < _LEAST) & (held > 0)).any(1).sum()):
        notes.append(
            f"cross-entropy: for {cut:,} images the network gives no chance to a class that people voted for; counted as 1e-12"
        )
    return Soft(
        int(kept.sum()),
        Score(*found[:4]),
        Score(*found[4:8]),
        found[8],
        first,
        second,
        firsts,
        seconds,
        entropies,
        reach,
        tuple(notes),
    )


def _left_out(held: Floats, total: Floats) -> tuple[Floats, Floats]:
    """The scores, logarithmic and Brier's, of an image's other votes when they predict one that is left out."""
    classes, n = held.shape[1], total[:, None]
    logarithmic = -(held / n * np.log(np.maximum(held - 1, 0) / n + 1 / (classes * n))).sum(1)
    square = (held**2).sum(1, keepdims=True)
    brier = (square - 2 * held + 1) / (n - 1) ** 2 - 2 * (held - 1) / (n - 1) + 1
    return logarithmic, (held / n * brier).sum(1)


def _choices(held: Floats, said: Floats) -> tuple[Estimate, Estimate, int, int]:
    """How often the first choices are the same, and the second ones, where people's is untied."""
    if held.shape[1] < 2:
        return UNKNOWN, UNKNOWN, 0, 0
    votes = -np.sort(-held, 1)
    order, mine = np.argsort(-held, 1, kind="stable"), np.argsort(-said, 1, kind="stable")
    third = votes[:, 2] if held.shape[1] > 2 else np.zeros(len(held))
    clear = votes[:, 0] > votes[:, 1]
    for_second = clear & (votes[:, 1] > third)
    found = []
    for place, kept in ((0, clear), (1, for_second)):
        count = int(kept.sum())
        found.append(
            (share(float((order[kept, place] == mine[kept, place]).mean()) if count else math.nan, count), count)
        )
    return found[0][0], found[1][0], found[0][1], found[1][1]


def _entropies(given: Sample, kept: Array, draws: Draws, seed: int) -> tuple[Estimate, float]:
    """Spearman's correlation of the network's and people's entropies, and the highest that the votes' noise allows."""
    counts, said = given.votes.counts[kept], given.probabilities[kept]
    theirs, mine = entropy(counts), -xlogy(said, said).sum(1)
    weights = draws.images[:, kept]
    value = float(spearman(mine, theirs, np.ones((1, len(mine))))[0])
    moved = np.concatenate([spearman(mine, theirs, weights[block]) for block in draws.blocks()])
    found = alone(moved[:, None] - value, len(mine)).spread().estimate(value, bounds=(-1.0, 1.0))
    if counts.sum(1).min() < 4:
        return found, math.nan
    random = numbers(seed, "halves of the votes")
    halves = []
    for _ in range(_HALVES):
        one = halved(counts, random)
        halves.append(float(spearman(entropy(one), entropy(counts - one), np.ones((1, len(counts))))[0]))
    half = float(np.mean(halves))
    # Spearman–Brown: the reliability of all votes from that of halves; its root bounds the correlation with anything else
    return found, math.sqrt(2 * half / (1 + half)) if half > 0 else math.nan


def halved(counts: Array, random: np.random.Generator) -> Array:
    """Half of each image's votes (N, K), drawn without replacement."""
    left, wanted = counts.sum(1), counts.sum(1) // 2
    half = np.zeros_like(counts)
    for place in range(counts.shape[1]):
        left = left - counts[:, place]
        half[:, place] = random.hypergeometric(counts[:, place], left, wanted)
        wanted = wanted - half[:, place]
    return half


def spearman(one: Floats, other: Floats, weights: Array) -> Floats:
    """Spearman's rank correlation (R,) of two variables (N,) where each image counts as often as `weights` (R, N) say.

    >>> float(spearman(np.array([1.0, 2.0, 3.0]), np.array([1.0, 4.0, 9.0]), np.ones((1, 3)))[0])
    1.0
    """
    held = np.asarray(weights, dtype=np.float32)
    total = held.sum(1, dtype=np.float64)
    first, second = (_ranks(each, held) for each in (one, other))
    weighted = held * first

    def summed(a: Array, b: Array) -> Floats:
        return np.einsum("rn,rn->r", a, b).astype(np.float64)

    left, right = weighted.sum(1, dtype=np.float64), summed(held, second)
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = (summed(weighted, first) - left**2 / total) * (summed(held * second, second) - right**2 / total)
        found = (summed(weighted, second) - left * right / total) / np.sqrt(scale)
    return np.where(scale > 1e-9, np.clip(found, -1, 1), math.nan)


def _ranks(values: Floats, weights: Array) -> Array:
    """Mean ranks (R, N) of values that are there several times, less the middle rank, as single floats: exact to millions."""
    _, group = np.unique(np.round(values, 12), return_inverse=True)
    order = np.argsort(group, kind="stable")
    ends = np.searchsorted(group[order], np.arange(group.max() + 1), side="right") - 1
    reached = np.ascontiguousarray(weights[:, order]).cumsum(1)[:, ends]
    middle = (reached + np.concatenate([np.zeros((len(weights), 1), np.float32), reached[:, :-1]], 1)) / 2
    return (middle - len(values) / 2).astype(np.float32)[:, group]
