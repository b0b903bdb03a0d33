"""Votes that are made up, and simulated people whose accuracies are known, for tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit, ndtri  # type: ignore[import-untyped]

from seewhy.humans.votes import Trials, Votes, counted

Array = np.ndarray[Any, np.dtype[Any]]


def counts(table: Any, labels: Any = None, name: str = "made up") -> Votes:
    """Votes from counts alone."""
    held = np.array(table)
    return Votes(
        name,
        tuple(f"{place}.png" for place in range(len(held))),
        tuple("abcdefghijklmnopqrstuvwxyz"[: held.shape[1]]),
        held,
        None if labels is None else tuple(int(label) for label in labels),
    )


def answers(table: Any, labels: Any, classes: int, conditions: Any = None) -> Votes:
    """Votes from what each annotator (row) answered to each image (column); −1 no answer, −2 never asked."""
    held = np.array(table)
    who, image = np.nonzero(held > -2)
    trials = Trials(image, who, held[who, image], tuple(f"annotator {place + 1}" for place in range(len(held))))
    if conditions is not None:
        names = tuple(dict.fromkeys(conditions))
        places = np.array([names.index(each) for each in conditions])
        trials = Trials(image, who, held[who, image], trials.annotators, places[image], names)
    return Votes(
        "made up",
        tuple(f"{place}.png" for place in range(held.shape[1])),
        tuple("abcdefghijklmnopqrstuvwxyz"[:classes]),
        counted(trials, held.shape[1], classes),
        tuple(int(label) for label in labels),
        trials,
    )


def sure(said: Any, classes: int, confidence: float = 0.9) -> Array:
    """Probabilities (N, K) of a network that says this."""
    held = np.full((len(said), classes), (1 - confidence) / (classes - 1))
    held[np.arange(len(said)), np.asarray(said)] = confidence
    return held


@dataclass(frozen=True)
class World:
    """People and a network whose logits of being right are sums of what an image and a person add; both are drawn at random.

    `people` and `images` are the standard deviations of the two; `network` how the network's images go with the people's.
    """

    people: float
    images: float
    mean: float = 1.2
    network: float = 0.5

    def draw(self, seed: int, images: int, annotators: int, each: int | None = None) -> tuple[Votes, Array]:
        """A sample: votes for two classes, of which the first is true, and the network's probabilities.

        Every annotator answers every image, or `each` drawn by lot for each image.
        """
        random = np.random.default_rng(seed)
        shared, own = random.normal(0, self.images, (2, images))
        person = random.normal(0, self.people, annotators)
        right = random.random((annotators, images)) < expit(self.mean + person[:, None] + shared)
        hit = random.random(images) < expit(self._of_network(shared, own))
        table = np.where(right, 0, 1)
        if each is not None:
            asked = random.random((annotators, images)).argsort(0) < each
            table = np.where(asked, table, -2)
        return answers(table, [0] * images, 2), sure(np.where(hit, 0, 1), 2)

    def _of_network(self, shared: Array, own: Array) -> Array:
        return self.mean - 0.2 + self.network * shared + np.sqrt(1 - self.network**2) * own

    def truth(self) -> dict[str, float]:
        """What an endless sample would show."""
        grid = ndtri((np.arange(400) + 0.5) / 400)
        images, people = self.images * grid, self.people * ndtri((np.arange(60) + 0.5) / 60)
        by = expit(self.mean + people[:, None] + images)
        network = expit(self._of_network(images[:, None], images[None])).mean(1)
        accuracy, mine = by.mean(1), network.mean()
        together = by @ by.T / len(grid)
        apart = ~np.eye(len(people), dtype=bool) if self.people else np.ones_like(together, dtype=bool)
        one, other = np.broadcast_arrays(accuracy[:, None], accuracy[None])
        mean = by.mean(0)
        return {
            "network": float(mine),
            "people": float(accuracy.mean()),
            "difference": float(mine - accuracy.mean()),
            "pairs": float(_kappa(one, other, together)[apart].mean()),
            "network pairs": float(_kappa(accuracy, mine, by @ network / len(grid)).mean()),
            "pooled": float(_kappa(mean.mean(), mean.mean(), (mean**2).mean())),
            "network pooled": float(_kappa(mean.mean(), mine, (mean * network).mean())),
        }


def _kappa(one: Any, other: Any, both: Any) -> Any:
    expected = one * other + (1 - one) * (1 - other)
    return (both + (1 - one - other + both) - expected) / (1 - expected)
