"""How often the network, each annotator, the mean annotator and the majority are right: in all, by class, by condition."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, final

import numpy as np

from seewhy.humans.estimate import CONFIDENCE, UNKNOWN, Array, Estimate, Floats, combined, doubt, mean_known, share
from seewhy.humans.paired import Difference, Needed, compared, holm, needed
from seewhy.humans.resample import Draws, alone, correlation, draw, less
from seewhy.humans.sample import Sample

Kind = Literal["network", "mean annotator", "majority", "annotator"]


@final
@dataclass(frozen=True)
class Observer:
    """How often somebody is right about `images` images; `balanced` is the mean recall, unknown for single people."""

    name: str
    kind: Kind
    images: int
    accuracy: Estimate
    balanced: Estimate


@final
@dataclass(frozen=True)
class Part:
    """The images of one class, or those shown in one condition: network, mean annotator, majority, and their difference.

    `difference` is the network less the mean annotator; `p` of no difference, `adjusted` by Holm for the number of parts.
    """

    name: str
    images: int
    network: Estimate
    people: Estimate
    majority: Estimate
    difference: Estimate
    p: float
    adjusted: float


@final
@dataclass(frozen=True)
class Rates:
    """Everything that is said of shares right; `main` compares the network with the mean annotator."""

    observers: tuple[Observer, ...]
    main: Difference
    balanced: Difference
    needed: Needed
    classes: tuple[Part, ...]
    conditions: tuple[Part, ...]
    tied: int


def majority(counts: Array) -> tuple[Floats, Array]:
    """What the most voted classes of each image share of one vote (N, K), and how many are tied (N,); 0 where nobody voted.

    >>> majority(np.array([[3, 1], [2, 2]]))[0].tolist()
    [[1.0, 0.0], [0.5, 0.5]]
    """
    best = (counts == counts.max(1, keepdims=True)) & (counts > 0)
    tied = best.sum(1)
    return best / np.maximum(tied, 1)[:, None], tied


def rates(given: Sample, draws: Draws, model: str, seed: int) -> Rates:
    """Accuracies of all observers, by class and by condition, and the network against the mean annotator.

    The mean annotator is somebody drawn at random for each image: the mean over images of the share of people who are right.
    The majority gets 1/m of a point where m classes are tied and the true one is among them.
    """
    count, labels = len(given), given.labels
    chosen, tied = majority(given.votes.counts)
    credit = chosen[np.arange(count), labels]
    masks = np.column_stack([np.ones(count), given.truth])
    table = _Table(given, draws, masks, credit)
    names = ["", *given.classes]
    parts = [table.part(place, name) for place, name in enumerate(names)]
    main, classes = parts[0], _adjusted(parts[1:])
    conditions = [
        _Table(part, draw(len(part), len(part.annotators), draws.rounds, seed), np.ones((len(part), 1)), None).part(
            0, name
        )
        for name, part in ((name, given.of_condition(name)) for name in given.conditions)
    ]
    everyone = [
        Observer(model, "network", count, main.network, table.balanced("network")),
        Observer("mean annotator", "mean annotator", count, main.people, table.balanced("people")),
        Observer("majority", "majority", count, main.majority, table.balanced("majority")),
        *_annotators(given),
    ]
    spread = table.difference.spread()
    people = len(given.annotators)
    return Rates(
        observers=tuple(everyone),
        main=Difference(main.network, main.people, main.difference, main.p),
        balanced=table.balanced_difference(),
        needed=needed(main.difference.value, spread, 0, count, people),
        classes=tuple(classes),
        conditions=tuple(_adjusted(conditions)) if len(conditions) > 1 else (),
        tied=int((tied > 1).sum()),
    )


def _annotators(given: Sample) -> list[Observer]:
    if given.right is None:
        return []
    right, seen = (np.asarray(held.sum(1)).ravel() for held in (given.right, given.seen))
    return [
        Observer(name, "annotator", int(all_), share(float(hit / all_), float(all_)), UNKNOWN)
        for name, hit, all_ in zip(given.annotators, right, seen, strict=True)
        if all_
    ]


def _adjusted(parts: list[Part]) -> list[Part]:
    corrected = holm([part.p for part in parts])
    return [replace(part, adjusted=p) for part, p in zip(parts, corrected, strict=True)]


@final
class _Table:
    """Shares right over masks (N, M) of images, the first of which holds all, and how they move together."""

    def __init__(self, given: Sample, draws: Draws, masks: Floats, credit: Floats | None) -> None:
        if credit is None:
            chosen, _ = majority(given.votes.counts)
            credit = chosen[np.arange(len(given)), given.labels]
        self.counts = masks.sum(0)
        hits = given.hits
        with np.errstate(divide="ignore", invalid="ignore"):
            self.network, self.people, self.majority = (
                (right @ masks) / self.counts for right in (hits, given.shares, credit)
            )
            drawn = draws.sums(masks)
            mine = alone(draws.sums(masks * hits[:, None]) / drawn - self.network, self.counts)
            theirs = alone(draws.sums(masks * credit[:, None]) / drawn - self.majority, self.counts)
        moved = given.moved(draws, masks)
        self.spread, self.of_majority, self.difference = moved.spread(), theirs.spread(), less(mine, moved)
        self.correlation = correlation(mine.images, self.spread.deviations)

    def ends(self, who: str, place: int, confidence: float = CONFIDENCE) -> Estimate:
        """One observer's share with its interval."""
        count = float(self.counts[place])
        if who == "network":
            return share(float(self.network[place]), count, confidence=confidence)
        values, spread = (self.people, self.spread) if who == "people" else (self.majority, self.of_majority)
        return share(
            float(values[place]), count, float(spread.error[place]), float(spread.freedom[place]), confidence=confidence
        )

    def part(self, place: int, name: str) -> Part:
        found = compared(
            lambda confidence: self.ends("network", place, confidence),
            lambda confidence: self.ends("people", place, confidence),
            float(self.correlation[place]),
        )
        return Part(
            name,
            int(self.counts[place]),
            found.network,
            found.people,
            self.ends("majority", place),
            found.difference,
            found.p,
            found.p,
        )

    @property
    def _there(self) -> list[int]:
        """The classes that have images."""
        return [place for place in range(1, len(self.counts)) if self.counts[place]]

    def balanced(self, who: str, confidence: float = CONFIDENCE) -> Estimate:
        """The mean of the recalls; classes without an image have none and are left out."""
        there = self._there
        parts = [self.ends(who, place, confidence) for place in there]
        return combined(parts, [1 / len(there)] * len(there), self._together(there) if who == "people" else None)

    def balanced_difference(self) -> Difference:
        """The network's balanced accuracy less the mean annotator's."""
        there = self._there
        size = len(there)
        across = np.diag(self.correlation[there])
        matrix = np.block([[np.eye(size), across], [across, self._together(there)]])

        def difference(confidence: float) -> Estimate:
            parts = [self.ends(who, place, confidence) for who in ("network", "people") for place in there]
            return combined(parts, [1 / size] * size + [-1 / size] * size, matrix)

        network, people = self.balanced("network"), self.balanced("people")
        return Difference(network, people, difference(CONFIDENCE), doubt(difference))

    def _together(self, there: list[int]) -> Floats:
        """How the people's recalls move together: they are the same people; images of different classes are drawn apart."""
        deviations = self.spread.deviations[:, there]
        shared = np.nan_to_num(deviations - mean_known(deviations))
        scale = np.sqrt((shared**2).sum(0))
        scale[scale == 0] = 1.0
        return (shared / scale).T @ (shared / scale)
