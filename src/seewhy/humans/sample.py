"""What is compared: the images that have a true class, votes and the network's probabilities, row by row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import torch
from scipy import sparse  # type: ignore[import-untyped]
from torch import Tensor

from seewhy.errors import InputError
from seewhy.humans.estimate import Array, Floats
from seewhy.humans.resample import Draws, Replicates, alone
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

    def of_condition(self, name: str) -> Sample:
        """What was answered in one condition, with the images shown in it."""
        votes = self.votes.of_condition(name)
        asked = np.bincount(votes.trials.image, minlength=len(self)) > 0 if votes.trials else np.zeros(len(self), bool)
        kept = np.flatnonzero(asked)
        return _counted(votes.subset(kept), self.labels[kept], self.probabilities[kept], ())

    def moved(self, draws: Draws, masks: Array) -> Replicates:
        """How the people's mean share right moves in each round, over the images of each of M masks (N, M)."""
        held = np.ascontiguousarray(masks, dtype=np.float32)
        value = (self.shares @ held) / held.sum(0)
        share = self.shares.astype(np.float32)
        with np.errstate(divide="ignore", invalid="ignore"):
            images = draws.sums(held * share[:, None]) / draws.sums(held) - value
            if not draws.annotators.shape[1]:
                return alone(images, held.sum(0).astype(np.float64))
            parts: list[tuple[Floats, Floats]] = []
            right, seen = self.right.T.tocsr(), self.seen.T.tocsr()
            for block in draws.blocks():
                drawn = np.ascontiguousarray(draws.annotators[block].T, dtype=np.float32)
                asked = (seen @ drawn).T
                there = (asked > 0).astype(np.float32)
                shares = np.where(asked > 0, (right @ drawn).T / asked, 0.0).astype(np.float32)
                weights = draws.images[block].astype(np.float32)
                parts.append(
                    (
                        (shares @ held) / (there @ held) - value,
                        ((weights * shares) @ held) / ((weights * there) @ held) - value,
                    )
                )
        annotators, both = (np.concatenate(part).astype(np.float64) for part in zip(*parts, strict=True))
        return Replicates(images, annotators, both, held.sum(0).astype(np.float64), draws.annotators.shape[1])


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
    notes = []
    for lacking, what in ((asked == 0, "votes"), ((true < 0) & (asked > 0), "a true class")):
        if lacking.any():
            names = [votes.images[place] for place in np.flatnonzero(lacking)[:3]]
            left = f" and {int(lacking.sum()) - 3} more" if lacking.sum() > 3 else ""
            notes.append(f"without {what}, left out: {', '.join(names)}{left} ({int(lacking.sum())} of {len(votes)})")
    kept = np.flatnonzero((asked > 0) & (true >= 0))
    if not len(kept):
        raise InputError(f"{votes.name} has no image with both votes and a true class; there is nothing to compare")
    chosen = votes if len(kept) == len(votes) else votes.subset(kept)
    return _counted(chosen, true[kept], found[kept], tuple(notes))


def checked(probabilities: Array | Tensor, votes: Votes) -> Floats:
    """Probabilities as float64 rows that add up to one; raises `InputError` for what is none."""
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
    if not np.isfinite(held).all():
        row = int(np.flatnonzero(~np.isfinite(held).all(1))[0])
        raise InputError(f"expected finite probabilities, got {held[row].max():g} for {votes.images[row]}")
    sums = held.sum(1)
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
        hit = (trials.answer == labels[trials.image]).astype(np.float32)
        places = (trials.annotator, trials.image)
        right = sparse.csr_matrix((hit, places), shape=shape)
        seen = sparse.csr_matrix((np.ones(len(trials), dtype=np.float32), places), shape=shape)
        total = np.bincount(trials.image, minlength=len(labels)).astype(np.float64)
        unanswered = int((trials.answer < 0).sum())
        if unanswered and notes is not None:
            notes = (
                *notes,
                f"{unanswered:,} of {len(trials):,} times nobody answered: counted as wrong, and as no vote",
            )
    return Sample(votes, labels, probabilities, right, seen, total, correct, notes)


def without_annotators(given: Sample) -> Sample:
    """The same as counts alone."""
    return replace(given, votes=replace(given.votes, trials=None), right=None, seen=None)
