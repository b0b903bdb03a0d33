"""What is taken for what: the network's confusions beside the people's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from seewhy.humans.estimate import Floats
from seewhy.humans.sample import Sample


@final
@dataclass(frozen=True, eq=False)
class Confusion:
    """Confusion matrices (K, K): the share of each answer (column) among images of each true class (row).

    NaN stands in the row of a class without images. An image counts once: its votes are shared out over the answers.
    `difference` is the network's less the people's.
    """

    classes: tuple[str, ...]
    images: tuple[int, ...]
    network: Floats
    people: Floats

    @property
    def difference(self) -> Floats:
        """Where the network gives an answer more often than people (above 0) or less often."""
        return self.network - self.people

    def most_different(self, count: int = 10) -> list[tuple[str, str, float, float]]:
        """The confusions (true class, answer, network's share, people's share) that differ most, right answers left out.

        They are the largest by selection: what is picked from many looks more different than it is.
        """
        apart = np.nan_to_num(abs(self.difference))
        np.fill_diagonal(apart, 0.0)
        order = np.argsort(-apart, axis=None, kind="stable")[:count]
        cells = [(int(place) // len(self.classes), int(place) % len(self.classes)) for place in order]
        return [
            (self.classes[row], self.classes[column], float(self.network[row, column]), float(self.people[row, column]))
            for row, column in cells
            if apart[row, column] > 0
        ]


def confusion(given: Sample) -> Confusion:
    """The confusions of the network and of people, on the images that people voted for."""
    counts, classes = given.votes.counts, len(given.classes)
    votes = counts.sum(1)
    kept = votes > 0
    network, people = np.zeros((2, classes, classes))
    np.add.at(network, (given.labels[kept], given.answers[kept]), 1.0)
    np.add.at(people, given.labels[kept], counts[kept] / votes[kept, None])
    images = np.bincount(given.labels[kept], minlength=classes)
    with np.errstate(divide="ignore", invalid="ignore"):
        return Confusion(given.classes, tuple(images.tolist()), network / images[:, None], people / images[:, None])
