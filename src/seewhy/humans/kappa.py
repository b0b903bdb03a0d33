"""Whether observers are wrong about the same images (error consistency), and how far people agree at all."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations
from typing import final

import numpy as np

from seewhy.humans.estimate import UNKNOWN, Array, Estimate, Floats, mean_known
from seewhy.humans.resample import Draws, Replicates, alone, crossed, draw, numbers, variance
from seewhy.humans.sample import Sample

#: images that two annotators must have in common to be a pair
COMMON = 20
#: products of rounds, images and pairs above which pairs are drawn by lot
_WORK = 1e10
_PAIRS = 20_000


@final
@dataclass(frozen=True)
class Consistency:
    """Error consistency κ: people with people (what one person reaches), the network with people, and the difference.

    `pairs` counts the pairs of annotators, 0 where κ is pooled over people who are not told apart, or who share too few images.
    `each` holds κ of the network with each annotator, in their order. NaN where it is not defined.
    """

    people: Estimate
    network: Estimate
    difference: Estimate
    pairs: int
    each: tuple[float, ...]
    notes: tuple[str, ...]


@final
@dataclass(frozen=True)
class Raters:
    """How far people agree, whatever is true: the share of pairs that do, and beyond chance Fleiss' κ and Krippendorff's α."""

    agree: Estimate
    fleiss: Estimate
    krippendorff: Estimate
    images: int


def kappa(one: Floats, other: Floats, both: Floats) -> Floats:
    """Error consistency of two observers, from how often each is right and how often both are (arrays of any one shape).

    κ = (c_obs − c_exp) / (1 − c_exp), with c_obs = P(both right) + P(both wrong) and c_exp = p₁ p₂ + (1 − p₁)(1 − p₂): 0 where
    errors fall independently, 1 where they are the same, NaN where c_exp is 1 (nobody is ever wrong). Geirhos, Meding & Wichmann
    2020, arXiv 2006.16736.

    >>> round(float(kappa(np.array(0.8), np.array(0.7), np.array(0.65))), 4)
    0.4737
    """
    expected = one * other + (1 - one) * (1 - other)
    observed = 1 - one - other + 2 * both
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(expected < 1 - 1e-12, (observed - expected) / (1 - expected), math.nan)


def consistency(given: Sample, draws: Draws, seed: int) -> Consistency:
    """κ of people with people and of the network with people, the mean over pairs; with conditions, the mean of those.

    Pairs are those who answered at least 20 images in common, if every annotator has one and more than half of all pairs do.
    Else, and where only counts are known, κ is pooled: that of two people drawn at random for each image. Annotators are drawn
    again as well as images; a person is never paired with himself. With ten people or fewer the intervals are a little wide:
    they hold the truth in about 97 % of cases.
    """
    names = given.conditions
    parts = [given.of_condition(name) for name in names] if len(names) > 1 else [given]
    parts = [part for part in parts if len(part)]
    if given.annotators and _alone(given):
        only = _network_alone(given, draws)
        return Consistency(
            UNKNOWN, only, UNKNOWN, 0, (only.value,), ("one annotator only: no κ of people with people",)
        )
    found: list[_Found] = []
    notes: list[str] = []
    for place, part in enumerate(parts):
        own = draws if len(parts) == 1 else draw(len(part), draws.annotators.shape[1], draws.rounds, seed + place)
        found.append((_pairs(part, own, seed, notes) if part.right is not None else None) or _pooled(part, own))
    if len(parts) > 1:
        notes.append("κ is the mean over the conditions, as their difficulty alone makes errors coincide")
    values = mean_known(np.array([each.values for each in found]))
    spread = _mean([each.moved for each in found], len(given)).spread()
    people, network, difference = (
        spread.estimate(float(value), place, bounds=(-2.0, 2.0) if place == 2 else (-1.0, 1.0))
        for place, value in enumerate(values)
    )
    each = mean_known(np.array([part.each for part in found if part.each.size])) if found[0].each.size else np.zeros(0)
    if not found[0].pairs and given.annotators:
        notes.append(
            "few annotators saw the same images: κ is pooled, that of two people drawn at random for each image"
        )
    if not people.known:
        notes.append("κ is not defined where nobody is ever wrong, or no image has two answers")
    return Consistency(
        people, network, difference, found[0].pairs, tuple(float(value) for value in each), tuple(dict.fromkeys(notes))
    )


@dataclass(frozen=True, eq=False)
class _Found:
    """κ of people, of the network, and the difference (3,), how they move, κ with each annotator, and the number of pairs."""

    values: Floats
    moved: Replicates
    each: Floats
    pairs: int


def _pairs(given: Sample, draws: Draws, seed: int, notes: list[str]) -> _Found | None:
    """The mean of κ over pairs of annotators; None where too few share their images."""
    people, count = len(given.annotators), len(given)
    if people > 2000:
        return None
    shared = np.asarray((given.seen > 0).astype(np.float32) @ (given.seen > 0).astype(np.float32).T.toarray())
    able = [(one, other) for one, other in combinations(range(people), 2) if shared[one, other] >= COMMON]
    if len(able) <= people * (people - 1) / 4 or len({place for pair in able for place in pair}) < people:
        return None
    most = int(min(_PAIRS, max(_WORK / (draws.rounds * count), 100)))
    if len(able) > most:
        notes.append(f"κ of people with people is that of {most:,} of {len(able):,} pairs, drawn by lot")
        able = [able[place] for place in sorted(numbers(seed, "pairs").choice(len(able), most, replace=False))]
    seen = (given.seen.toarray() > 0).astype(np.float32)
    right = (given.right.toarray() >= np.maximum(given.seen.toarray(), 1) / 2).astype(np.float32)
    first, second = np.array(able).T
    hits = np.broadcast_to(given.hits.astype(np.float32), right.shape)
    drawn = draws.annotators.astype(np.float32)
    sides = (
        (right[first], right[second], seen[first] * seen[second], drawn[:, first] * drawn[:, second]),
        (hits, right, seen, drawn),
    )
    found = [_side(draws, *side) for side in sides]
    values = np.array([value for value, _, _ in found])
    images, annotators, both = (
        _with_difference(np.column_stack(kind)) for kind in zip(*(kinds for _, kinds, _ in found), strict=True)
    )
    # what only drawing both adds; a round repeats some people and images, which makes it smaller by (A − 1) / A and (N − 1) / N
    answers = variance(both - images - annotators) * people / (people - 1) * count / max(count - 1, 1)
    moved = Replicates(images, annotators, answers, count, people)
    return _Found(_with_difference(values), moved, found[1][2], len(able))


def _with_difference(values: Floats) -> Floats:
    """κ of people and of the network (…, 2), and the second less the first."""
    return np.concatenate([values, values[..., 1:] - values[..., :1]], -1)


def _side(
    draws: Draws, one: Array, other: Array, common: Array, weights: Array
) -> tuple[float, tuple[Floats, Floats, Floats], Floats]:
    """The mean κ of P pairs of observers, how it moves with images, annotators and both drawn again, and κ of each pair.

    `one`, `other` and `common` (P, N) say who is right and which images both saw, `weights` (R, P) how often a pair is drawn.
    """
    columns = [each.T for each in (common, one * common, other * common, one * other * common)]
    plain = _kappas([held.sum(0, dtype=np.float64)[None] for held in columns])
    drawn = _kappas([draws.sums(held) for held in columns])
    value = float(_weighted(plain, np.ones_like(plain))[0])
    images = _weighted(drawn, np.ones_like(drawn)) - value
    annotators, both = (_weighted(np.broadcast_to(held, weights.shape), weights) - value for held in (plain, drawn))
    return value, (images, annotators, both), plain[0]


def _kappas(sums: list[Floats]) -> Floats:
    """κ from sums: of images in common, of one right, of the other right, of both right."""
    common, one, other, both = sums
    with np.errstate(divide="ignore", invalid="ignore"):
        return kappa(one / common, other / common, both / common)


def _weighted(values: Array, weights: Array) -> Floats:
    """The weighted mean over pairs of each round, of those pairs that have a κ."""
    there = np.isfinite(values)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (np.where(there, values, 0) * weights).sum(1) / (there * weights).sum(1)


def _pooled(given: Sample, draws: Draws) -> _Found:
    """κ of two people drawn at random for each image, and of one such person with the network."""
    hits, count = given.hits, len(given)
    columns = _columns(hits, given.correct, given.total)
    total = columns.sum(0)
    values = _from_sums(total)
    images = _from_sums(draws.sums(columns)) - values
    if given.right is None:
        return _Found(values, alone(images, count), np.zeros(0), 0)
    who, image, asked = given.cells
    rest = _columns(hits[image], given.correct[image] - given.right.data, given.total[image] - asked)
    change = rest - columns[image]
    by_person = np.stack([np.bincount(who, part, len(given.annotators)) for part in change.T], -1)
    without, lacking = (_from_sums(total + part) - values for part in (by_person, change))
    answers = (given.independent[:, None] * np.nan_to_num(lacking) ** 2).sum(0)
    return _Found(values, crossed(images, draws, without, answers, count), np.zeros(0), 0)


def _columns(hits: Floats, right: Floats, asked: Floats) -> Floats:
    """Of each image: asked, share right, network right, alike; asked twice, share right, pairs that agree (…, 7)."""
    there, pairs = asked > 0, asked * (asked - 1)
    twice = pairs > 0
    share = np.where(there, right / np.where(there, asked, 1), 0)
    wrong = asked - right
    agreeing = np.where(twice, (right * (right - 1) + wrong * (wrong - 1)) / np.where(twice, pairs, 1), 0)
    alike = there * (hits * share + (1 - hits) * (1 - share))
    return np.stack([there * 1.0, share, there * hits, alike, twice * 1.0, twice * share, agreeing], -1)


def _from_sums(sums: Floats) -> Floats:
    """κ of people, of the network, and the difference, from sums of `_columns`."""
    asked, share, network, alike, pairs, of_pairs, agreeing = np.moveaxis(sums, -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        one, mine, theirs = of_pairs / pairs, network / asked, share / asked
        people = kappa(one, one, (agreeing / pairs - 1 + 2 * one) / 2)
        return _with_difference(np.stack([people, kappa(mine, theirs, (alike / asked - 1 + mine + theirs) / 2)], -1))


def _alone(given: Sample) -> bool:
    """Whether only one annotator answered."""
    return int((np.asarray(given.seen.sum(1)) > 0).sum()) == 1


def _network_alone(given: Sample, draws: Draws) -> Estimate:
    """κ of the network with the only annotator."""
    right = (given.shares >= 0.5).astype(np.float64)
    sums = np.column_stack([np.ones(len(given)), given.hits, right, given.hits * right])
    value = _kappas(list(sums.sum(0)[:, None]))[0]
    moved = _kappas(list(draws.sums(sums).T))[:, None] - value
    return alone(moved, len(given)).spread().estimate(float(value), bounds=(-1.0, 1.0))


def _mean(parts: list[Replicates], count: int) -> Replicates:
    """The rounds of a mean over conditions."""
    if len(parts) == 1:
        return parts[0]
    images, annotators = (
        mean_known(np.stack([getattr(part, kind) for part in parts])) for kind in ("images", "annotators")
    )
    answers = np.stack([part.answers for part in parts]).sum(0) / len(parts) ** 2
    return Replicates(images, annotators, answers, count, parts[0].people)


def raters(counts: Array, draws: Draws) -> Raters:
    """Fleiss' κ (1971; each image weighs the same, whatever its number of votes) and Krippendorff's α (nominal).

    Of images with two votes or more. α allows for missing answers and small samples; both are 1 where all agree, 0 where they
    agree as often as chance would make them. NaN where everybody always gives the same answer: chance alone agrees then.
    """
    votes = counts.sum(1)
    kept = votes >= 2
    if not kept.any():
        return Raters(UNKNOWN, UNKNOWN, UNKNOWN, 0)
    total = np.where(kept, votes, 2).astype(np.float64)
    held = np.where(kept[:, None], counts, 0).astype(np.float64)
    alike = (held * (held - 1)).sum(1)
    columns = np.column_stack([kept * 1.0, alike / (total * (total - 1)), alike / (total - 1), kept * total, held])

    def three(sums: Floats) -> Floats:
        images, agree, coincide, answers = (sums[..., place] for place in range(4))
        by_class = sums[..., 4:]
        with np.errstate(divide="ignore", invalid="ignore"):
            seen = agree / images
            chance = ((by_class / answers[..., None]) ** 2).sum(-1)
            fleiss = np.where(chance < 1 - 1e-9, (seen - chance) / (1 - chance), math.nan)
            unlike = 1 - (by_class * (by_class - 1)).sum(-1) / (answers * (answers - 1))
            alpha = np.where(unlike > 1e-9, 1 - (1 - coincide / answers) / unlike, math.nan)
        return np.stack([seen, fleiss, alpha], -1)

    values = three(columns.sum(0))
    spread = alone(three(draws.sums(columns)) - values, int(kept.sum())).spread()
    agree, fleiss, alpha = (spread.estimate(float(values[place]), place, bounds=(-1.0, 1.0)) for place in range(3))
    return Raters(agree, fleiss, alpha, int(kept.sum()))
