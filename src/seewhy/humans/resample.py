"""Images drawn again, and people: the bootstrap, for statistics that are functions of sums over images."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch

from seewhy.errors import InputError
from seewhy.humans.estimate import CONFIDENCE, UNKNOWN, Array, Estimate, Floats, quantile
from seewhy.rng import generator

#: rounds that are worked on at a time
_BLOCK = 100


def numbers(seed: int, *words: object) -> np.random.Generator:
    """A generator of NumPy's that depends on `seed` and `words` alone."""
    return np.random.default_rng(int(torch.randint(2**62, (), generator=generator(seed, *words))))


@final
@dataclass(frozen=True, eq=False)
class Draws:
    """How often each image (R, N) and each annotator (R, A) is drawn in each of R rounds; A = 0 if they are not told apart."""

    images: np.ndarray[Any, np.dtype[np.uint8]]
    annotators: np.ndarray[Any, np.dtype[np.uint8]]

    @property
    def rounds(self) -> int:
        """R."""
        return len(self.images)

    def blocks(self) -> Iterator[slice]:
        """The rounds in parts that fit into memory."""
        for start in range(0, self.rounds, _BLOCK):
            yield slice(start, start + _BLOCK)

    def sums(self, columns: Array) -> Floats:
        """The sums (R, M) of each round over its images of columns (N, M)."""
        held = np.ascontiguousarray(columns, dtype=np.float32)
        return np.concatenate([self.images[block].astype(np.float32) @ held for block in self.blocks()]).astype(float)


def draw(images: int, annotators: int, rounds: int, seed: int) -> Draws:
    """Draw as many images as there are, with replacement, `rounds` times, and annotators likewise."""
    if rounds < 100:
        raise InputError(f"expected at least 100 rounds of the bootstrap, got {rounds}; 1000 are usual")
    return Draws(
        _drawn(images, rounds, numbers(seed, "images drawn again")),
        _drawn(annotators, rounds, numbers(seed, "annotators drawn again")),
    )


def _drawn(count: int, rounds: int, random: np.random.Generator) -> np.ndarray[Any, np.dtype[np.uint8]]:
    weights = np.zeros((rounds, count), dtype=np.uint8)
    for start in range(0, rounds if count else 0, _BLOCK):
        part = weights[start : start + _BLOCK]
        chosen = random.integers(count, size=part.shape) + count * np.arange(len(part))[:, None]
        part[:] = np.bincount(chosen.ravel(), minlength=part.size).reshape(part.shape)
    return weights


@final
@dataclass(frozen=True, eq=False)
class Replicates:
    """How far M statistics move in each round (R, M) with images drawn again, and with annotators drawn again.

    `answers` (M,) is the variance that single answers bring: it is a part of both. `count` is the number of images drawn from,
    or those (M,) that each statistic looks at, and `people` that of annotators; 0 where they are not told apart.
    """

    images: Floats
    annotators: Floats
    answers: Floats
    count: int | Floats
    people: int

    def spread(self) -> Spread:
        """How the statistics scatter over samples of images and of people.

        With images and annotators crossed, the variance is that of drawing images, plus that of drawing annotators, less that of
        single answers, which both bring (the two-way variance of studies with many readers and many cases, Gallas 2006, and of
        regression with two-way clusters, Cameron, Gelbach & Miller 2011); drawing both at once would count it three times (Owen
        2007). The first two are enlarged by n / (n − 1), the sum is never less than one of them; degrees of freedom by
        Satterthwaite.
        """
        images, people = np.maximum(np.asarray(self.count, dtype=np.float64) - 1, 1), max(self.people - 1, 0)
        first = self.images * np.sqrt((images + 1) / images)
        second = self.annotators * math.sqrt((people + 1) / people if people else 1.0)
        of_images, of_people = variance(first), variance(second)
        total = np.maximum(np.maximum(of_images, of_people), of_images + of_people - self.answers)
        with np.errstate(divide="ignore", invalid="ignore"):
            scale = np.sqrt(np.where(total > 0, total / (of_images + of_people), 1.0))
            freedom = total**2 / (of_images**2 / images + (of_people**2 / people if people else 0.0))
        return Spread(
            deviations=(first + second) * scale,
            error=np.sqrt(total),
            freedom=np.where(total > 0, freedom, math.inf),
            of_images=of_images,
            of_people=of_people,
            of_answers=self.answers,
        )


def crossed(images: Floats, draws: Draws, without: Floats, answers: Floats, count: int | Floats) -> Replicates:
    """The rounds of M statistics whose images were drawn (R, M), from the jackknife over people and over single answers.

    `without` (A, M) are the differences that leaving out an annotator makes: annotators are drawn by what each adds, so that a
    round costs a product of matrices. `answers` (M,) is the variance that single answers bring, of the jackknife too.
    """
    people = len(without)
    adds = np.where(np.isfinite(without), without, 0.0)
    adds = (adds.mean(0) - adds) * (people - 1) / people
    return Replicates(images, draws.annotators.astype(np.float64) @ adds, answers, count, people)


@final
@dataclass(frozen=True, eq=False)
class Spread:
    """The scatter of M statistics: deviations (R, M), standard error, degrees of freedom and the three variances (M,)."""

    deviations: Floats
    error: Floats
    freedom: Floats
    of_images: Floats
    of_people: Floats
    of_answers: Floats

    def estimate(
        self,
        value: float,
        place: int = 0,
        *,
        reflected: bool = False,
        bounds: tuple[float, float] = (-math.inf, math.inf),
        confidence: float = CONFIDENCE,
    ) -> Estimate:
        """A value with the interval between quantiles of its rounds, widened as Student's t is for few people.

        `reflected` takes the rounds' quantiles to the other side of the value (the basic bootstrap), for statistics that
        are biased upwards the more they scatter.
        """
        moved = self.deviations[:, place]
        moved = moved[np.isfinite(moved)]
        if not math.isfinite(value):
            return UNKNOWN
        if len(moved) < len(self.deviations) / 2 or not self.error[place] > 0:
            return Estimate(value, math.nan, math.nan)
        low, high = np.quantile(moved, [(1 - confidence) / 2, (1 + confidence) / 2], method="weibull")
        if reflected:
            low, high = -high, -low
        wider = quantile(confidence, float(self.freedom[place])) / quantile(confidence)
        least, most = bounds
        ends = (min(max(value + wider * float(end), least), most) for end in (low, high))
        return Estimate(value, *ends)


def variance(rounds: Floats) -> Floats:
    """The variance (M,) of each statistic over the rounds (R, M) in which it is defined; 0 where it never is."""
    there = np.isfinite(rounds)
    count = np.maximum(there.sum(0), 1)
    held = np.where(there, rounds, 0.0)
    mean = held.sum(0) / count
    return (np.where(there, held - mean, 0.0) ** 2).sum(0) / count


def alone(moved: Floats, count: int | Floats) -> Replicates:
    """The rounds of statistics that people have no part in, or whose people are not told apart."""
    return Replicates(moved, np.zeros_like(moved), np.zeros(moved.shape[1]), count, 0)


def less(one: Replicates, other: Replicates) -> Replicates:
    """The rounds of a difference of statistics, people having no part in the first."""
    return Replicates(
        one.images - other.images, one.annotators - other.annotators, other.answers, other.count, other.people
    )


def correlation(one: Floats, other: Floats) -> Floats:
    """Pearson's correlation (M,) over the rounds of two sets of statistics (R, M); 0 where one does not move."""
    there = np.isfinite(one) & np.isfinite(other)
    count = np.maximum(there.sum(0), 1)
    first, second = (np.where(there, each, 0.0) for each in (one, other))
    first, second = (np.where(there, each - each.sum(0) / count, 0.0) for each in (first, second))
    scale = np.sqrt((first**2).sum(0) * (second**2).sum(0))
    return np.divide((first * second).sum(0), scale, out=np.zeros_like(scale), where=scale > 0)
