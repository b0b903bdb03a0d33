"""What is compared: the images that have a true class, votes and the network's probabilities, row by row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from scipy import sparse  # type: ignore[import-untyped]
from torch import Tensor

from seewhy.errors import InputError
from seewhy.humans.estimate import Array, Floats
from seewhy.humans.resample import Draws, Replicates, alone, crossed
from seewhy.humans.votes import Integers, Votes

#: how far a row of probabilities may be from adding up to one: half precision and rounded tables are
_OFF = 2e-3


@final
@dataclass(frozen=True, eq=False)
class Sample:
    """N images with labels (N,), probabilities (N, K), counts of votes (N, K), and where people are told apart who was right.

    `right` and `seen` are sparse (A, N): how often an annotator was right about an image, and asked about it; no answer is
    a wrong one. `total` (N,) counts who was asked, `correct` (N,) who was right.
    """

    votes: Votes
    labels: Integers
    probabilities: Floats
    right: Any
    seen: Any
    total: Floats
    correct: Floats
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the K categories."""
        return self.votes.classes

    @property
    def annotators(self) -> tuple[str, ...]:
        """Who answered; empty where only counts are known."""
        return self.votes.annotators

    @property
    def conditions(self) -> tuple[str, ...]:
        """The conditions in which any of the images were shown."""
        trials = self.votes.trials
        if trials is None or trials.condition is None:
            return ()
        return tuple(trials.conditions[place] for place in np.unique(trials.condition))

    @property
    def answers(self) -> Integers:
        """The network's most probable category (N,)."""
        return self.probabilities.argmax(1)

    @property
    def hits(self) -> Floats:
        """1 where the network is right, else 0 (N,)."""
        return (self.answers == self.labels).astype(np.float64)

    @property
    def shares(self) -> Floats:
        """The share of people who are right about an image (N,)."""
        return self.correct / self.total

    @property
    def truth(self) -> Floats:
        """The true class as ones and zeros (N, K)."""
        return np.eye(len(self.classes))[self.labels]

    def moved(self, draws: Draws, masks: Array, table: Array | None = None) -> Replicates:
        """How the people's mean share right moves in each round, over the images of each of M masks (N, M).

        A `table` (N, K + 1) says what each answer to each image counts, and in its last column what none does, instead of 1
        for the true class and else 0.
        """
        held = np.asarray(masks, dtype=np.float64)
        shares = self.shares if table is None else self.shares_of(table)
        top, bottom = shares @ held, held.sum(0)
        with np.errstate(divide="ignore", invalid="ignore"):
            value = top / bottom
            images = draws.sums(held * shares[:, None]) / draws.sums(held) - value
            if not draws.annotators.shape[1]:
                return alone(images, bottom)
            points = (self.right if table is None else self._points(table)).data
            who, image, asked = self.cells
            before = self.total[image]
            rest = before - asked
            last = rest == 0  # without this answer nobody is left, and the image goes
            change = np.where(last, 0.0, (shares[image] * before - points) / np.where(last, 1, rest)) - shares[image]
            shape = (len(self.annotators), len(self))
            tops, bottoms = (
                sparse.csr_matrix((each, (who, image)), shape=shape) @ held
                for each in (change, last.astype(np.float64))
            )
            without = (top + tops) / (bottom - bottoms) - value
            # an answer less moves the mean by its change, or, with its image, by what that is off the mean
            squares = np.bincount(image, np.where(last, 0.0, self.independent * change**2), len(self))
            answers = squares @ (held / bottom) ** 2
            gone = held[image[last]]
            answers += (((top - shares[image[last], None] * gone) / (bottom - gone) - value) ** 2).sum(0)
        return crossed(images, draws, without, answers, bottom)

    @property
    def cells(self) -> tuple[Integers, Integers, Floats]:
        """Annotator, image and number of answers (T,) of every annotator to every image, in the order of `right`'s data."""
        who = np.repeat(np.arange(self.seen.shape[0]), np.diff(self.seen.indptr))
        return who, self.seen.indices, self.seen.data.astype(np.float64)

    @property
    def independent(self) -> Floats:
        """(n − 1) / n (T,) for n people who answered the image of each cell; 1 where there is only one."""
        _, image, _ = self.cells
        people = np.bincount(image, minlength=len(self))[image]
        return np.where(people > 1, (people - 1) / people, 1.0)

    def shares_of(self, table: Array) -> Floats:
        """What people's answers to an image count in the mean (N,), by a table (N, K + 1), see `moved`."""
        counts = self.votes.counts
        return ((counts * table[:, :-1]).sum(1) + (self.total - counts.sum(1)) * table[:, -1]) / self.total

    def _points(self, table: Array) -> Any:
        trials = self.votes.trials
        if trials is None:
            raise InputError("expected single answers, got counts only")
        points = table[trials.image, trials.answer]  # no answer is −1: the last column
        return _by_cell(points, trials.annotator, trials.image, self.seen.shape)

    def of_condition(self, name: str) -> Sample:
        """What was answered in one condition, with the images shown in it."""
        votes = self.votes.of_condition(name)
        asked = np.bincount(votes.trials.image, minlength=len(self)) > 0 if votes.trials else np.zeros(len(self), bool)
        kept = np.flatnonzero(asked)
        return _counted(votes.subset(kept), self.labels[kept], self.probabilities[kept], ())


def sample(votes: Votes, probabilities: Array | Tensor, labels: Sequence[int | None] | Array | Tensor | None) -> Sample:
    """Check votes, probabilities (N, K) and labels (N,) against each other, and keep the images that have all three.

    Raises `InputError` for shapes that do not fit, for probabilities that are none (logits, say), for labels outside the
    categories, and where no image is left.
    """
    found = checked(probabilities, votes)
    given = votes.labels if labels is None else labels
    if given is None:
        raise InputError(
            f"{votes.name} has no true classes: give labels, one an image, to say who is right "
            "(what people agree on is no truth to judge people by)"
        )
    true = _labels(given, votes)
    asked = votes.counts.sum(1) if votes.trials is None else np.bincount(votes.trials.image, minlength=len(votes))
    unread = np.isnan(found).all(1)
    notes, left = [], np.ones(len(votes), dtype=bool)
    for there, what in ((asked > 0, "votes"), (true >= 0, "a true class"), (~unread, "a prediction of the network")):
        lacking = left & ~there
        left &= there
        if lacking.any():
            names = [votes.images[place] for place in np.flatnonzero(lacking)[:3]]
            more = f" and {int(lacking.sum()) - 3:,} more" if lacking.sum() > 3 else ""
            notes.append(
                f"left out, without {what}: {int(lacking.sum()):,} of {len(votes):,} images ({', '.join(names)}{more})"
            )
    kept = np.flatnonzero(left)
    if not len(kept):
        raise InputError(
            f"{votes.name} has no image with votes, a true class and a prediction; there is nothing to compare"
        )
    chosen = votes if len(kept) == len(votes) else votes.subset(kept)
    return _counted(chosen, true[kept], found[kept], tuple(notes))


def checked(probabilities: Array | Tensor, votes: Votes) -> Floats:
    """Probabilities as float64 rows that add up to one, or are all NaN; raises `InputError` for what is none."""
    held = (
        probabilities.detach().cpu().numpy() if isinstance(probabilities, torch.Tensor) else np.asarray(probabilities)
    )
    expected = (len(votes), len(votes.classes))
    if held.shape != expected:
        raise InputError(
            f"expected probabilities of shape {expected}, an image a row and a category of {votes.name} a column, "
            f"got {tuple(held.shape)}; map the network's classes to the people's categories first"
        )
    held = held.astype(np.float64)
    missing = np.isnan(held).all(1)
    broken = ~np.isfinite(held).all(1) & ~missing
    if broken.any():
        row = int(broken.argmax())
        raise InputError(
            f"expected finite probabilities, or NaN all along the row of an image that cannot be read, got "
            f"{int((~np.isfinite(held[row])).sum())} that are not finite for {votes.images[row]}"
        )
    sums = np.where(missing, 1.0, held.sum(1))
    off = (held < 0).any(1) | (held > 1 + _OFF).any(1)
    if off.any():
        row = int(off.argmax())
        raise InputError(
            f"expected probabilities between 0 and 1, got {held[row].min():.3g} to {held[row].max():.3g} for "
            f"{votes.images[row]}; these look like logits: take their softmax first"
        )
    off = abs(sums - 1) > _OFF
    if off.any():
        row = int(abs(sums - 1).argmax())
        raise InputError(
            f"expected probabilities that add up to 1, got {sums[row]:.3g} for {votes.images[row]} "
            f"({int(off.sum())} of {len(votes)} images are off); divide each row by its sum, if some of the network's "
            "classes belong to no category of the people"
        )
    return held / sums[:, None]


def _labels(given: Sequence[int | None] | Array | Tensor, votes: Votes) -> Integers:
    """Labels as whole numbers, −1 where unknown."""
    if isinstance(given, torch.Tensor):
        given = given.detach().cpu().numpy()
    if len(given) != len(votes):
        raise InputError(f"expected {len(votes)} labels, one an image of {votes.name}, got {len(given)}")
    try:
        true = np.array([-1 if label is None else int(label) for label in given], dtype=np.int64)
    except (TypeError, ValueError):
        raise InputError(f"expected labels that are places in {votes.name}'s classes, got {given[0]!r}") from None
    if len(true) and not (true.min() >= -1 and true.max() < len(votes.classes)):
        raise InputError(
            f"expected labels from 0 to {len(votes.classes) - 1}, or −1 where unknown, got {true.min()} to {true.max()}"
        )
    return true


def _counted(votes: Votes, labels: Integers, probabilities: Floats, notes: tuple[str, ...]) -> Sample:
    total = votes.counts.sum(1).astype(np.float64)
    correct = votes.counts[np.arange(len(labels)), labels].astype(np.float64)
    right = seen = None
    if votes.trials is not None:
        trials, shape = votes.trials, (len(votes.annotators), len(labels))
        hit = (trials.answer == labels[trials.image]).astype(np.float64)
        right = _by_cell(hit, trials.annotator, trials.image, shape)
        seen = _by_cell(np.ones(len(trials)), trials.annotator, trials.image, shape)
        total = np.bincount(trials.image, minlength=len(labels)).astype(np.float64)
        unanswered = int((trials.answer < 0).sum())
        if unanswered and notes is not None:
            notes = (
                *notes,
                f"{unanswered:,} of {len(trials):,} times nobody answered: counted as wrong, and as no vote",
            )
    return Sample(votes, labels, probabilities, right, seen, total, correct, notes)


def _by_cell(values: Floats, annotators: Integers, images: Integers, shape: tuple[int, int]) -> Any:
    """Answers' values added up for each annotator and image: sparse (A, N), zeros kept, so that all have the same cells."""
    held = sparse.csr_matrix((values, (annotators, images)), shape=shape)
    held.sum_duplicates()
    held.sort_indices()
    return held
