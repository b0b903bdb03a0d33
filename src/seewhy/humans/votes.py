"""What people answered: votes counted for each image, and the single answers where a file tells them apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np

from seewhy.errors import DataError, InputError, nearest

Integers = np.ndarray[Any, np.dtype[np.int64]]
Floats = np.ndarray[Any, np.dtype[np.float64]]


@final
@dataclass(frozen=True, eq=False, repr=False)
class Trials:
    """Single answers, T of them in the file's order; a field that the file does not tell is None.

    `image` (T,) is a place in `Votes.images`, `annotator` (T,) one in `annotators`, `answer` (T,) one in `Votes.classes`,
    or −1 where somebody looked and gave no answer. `condition` (T,) is a place in `conditions` (blurred, 30 % contrast, …),
    `seconds` and `confidence` (T,) are NaN where they are missing, `session` (T,) counts from 0.
    """

    image: Integers
    annotator: Integers
    answer: Integers
    annotators: tuple[str, ...]
    condition: Integers | None = None
    conditions: tuple[str, ...] = ()
    seconds: Floats | None = None
    confidence: Floats | None = None
    session: Integers | None = None

    def __post_init__(self) -> None:
        for word in ("annotator", "answer", "condition", "seconds", "confidence", "session"):
            held = getattr(self, word)
            if held is not None and held.shape != self.image.shape:
                raise InputError(f"expected {word} of shape {self.image.shape}, as image has, got {held.shape}")
        _within("annotator", self.annotator, len(self.annotators))
        if self.condition is not None:
            _within("condition", self.condition, len(self.conditions))

    def __len__(self) -> int:
        return len(self.image)

    def __repr__(self) -> str:
        return f"Trials({len(self):,} answers of {len(self.annotators):,} annotators)"

    def take(self, chosen: np.ndarray[Any, Any]) -> Trials:
        """The answers at these places, or where this mask (T,) is true; annotators and conditions keep their numbers."""

        def part(held: Any) -> Any:
            return None if held is None else held[chosen]

        return replace(
            self,
            **{
                word: part(getattr(self, word))
                for word in ("image", "annotator", "answer", "condition", "seconds", "confidence", "session")
            },
        )


@final
@dataclass(frozen=True, eq=False, repr=False)
class Votes:
    """Votes of people for N images in K categories.

    `counts` (N, K) says how many voted for each category, over all conditions; where there are `trials` it is counted from
    them. `labels` holds the true category of each image (None: unknown) where the file tells it. `notes` says what was read,
    what was dropped and why.

    >>> votes = Votes("two looks", ("a.png", "b.png"), ("cat", "dog"), np.array([[3, 1], [0, 4]]))
    >>> votes.shares().tolist()
    [[0.75, 0.25], [0.0, 1.0]]
    >>> votes.subset([1])
    Votes('two looks', 1 image, 2 classes, 4 votes)
    """

    name: str
    images: tuple[str, ...]
    classes: tuple[str, ...]
    counts: Integers
    labels: tuple[int | None, ...] | None = None
    trials: Trials | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        n, k = len(self.images), len(self.classes)
        if not n or not k:
            raise DataError(f"{self.name} holds no votes: expected at least one image and one class, got {n} and {k}")
        if self.counts.shape != (n, k):
            raise DataError(
                f"{self.name}: expected counts of shape ({n}, {k}), images by classes, got {self.counts.shape}"
            )
        if (self.counts < 0).any():
            raise DataError(f"{self.name}: expected counts of votes, got a negative one")
        for word, names in (("images", self.images), ("classes", self.classes)):
            if len(set(names)) < len(names):
                twice = next(name for name in names if names.count(name) > 1)
                raise DataError(f'{self.name}: expected {word} of different names, got "{twice}" twice')
        if self.labels is not None and len(self.labels) != n:
            raise DataError(f"{self.name} has {n} images and {len(self.labels)} labels; expected as many")
        if self.trials is not None:
            _within("image", self.trials.image, n)
            _within("answer", self.trials.answer, k, lowest=-1)
            if (counted(self.trials, n, k) != self.counts).any():
                raise InputError(f"{self.name}: the counts are not those of the single answers")

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        images = f"{len(self):,} image" + ("s" if len(self) != 1 else "")
        people = f", {len(self.trials.annotators):,} annotators" if self.trials else ""
        return f"Votes({self.name!r}, {images}, {len(self.classes)} classes, {int(self.counts.sum()):,} votes{people})"

    @property
    def annotators(self) -> tuple[str, ...]:
        """The names of those who answered; empty where only counts are known."""
        return self.trials.annotators if self.trials else ()

    @property
    def conditions(self) -> tuple[str, ...]:
        """The names of the conditions that images were shown in; empty where the file tells of none."""
        return self.trials.conditions if self.trials else ()

    def shares(self) -> Floats:
        """The share (N, K) of each category in an image's votes; NaN for an image without votes."""
        total = self.counts.sum(1, keepdims=True)
        return np.divide(self.counts, total, out=np.full(self.counts.shape, np.nan), where=total > 0)

    def subset(self, indices: Sequence[int] | Integers) -> Votes:
        """The images at these places, in this order, each at most once; annotators keep their numbers."""
        chosen = np.asarray(indices, dtype=np.int64).reshape(-1)
        if len(chosen) and not (chosen.min() >= 0 and chosen.max() < len(self)):
            raise InputError(
                f"{self.name} has {len(self)} images, counted from 0; got {chosen.min()} to {chosen.max()}"
            )
        trials = self.trials
        if trials is not None:
            place = np.full(len(self), -1)
            place[chosen] = np.arange(len(chosen))
            trials = trials.take(place[trials.image] >= 0)
            trials = replace(trials, image=place[trials.image])
        return replace(
            self,
            images=tuple(self.images[index] for index in chosen),
            counts=self.counts[chosen],
            labels=None if self.labels is None else tuple(self.labels[index] for index in chosen),
            trials=trials,
        )

    def of_annotators(self, names: Sequence[str]) -> Votes:
        """What these annotators answered, numbered in this order; images that they never saw stay, without votes."""
        trials = self._told("annotators")
        kept = [_named("annotator", name, trials.annotators) for name in names]
        place = np.full(len(trials.annotators), -1)
        place[kept] = np.arange(len(kept))
        trials = trials.take(place[trials.annotator] >= 0)
        return self._with(replace(trials, annotator=place[trials.annotator], annotators=tuple(names)))

    def of_condition(self, name: str) -> Votes:
        """What was answered in one condition, of which nothing is told any more; images never shown in it stay, without votes."""
        trials = self._told("conditions")
        if trials.condition is None:
            raise InputError(f"{self.name} tells of no conditions")
        part = trials.take(trials.condition == _named("condition", name, trials.conditions))
        return self._with(replace(part, condition=None, conditions=()))

    def of_trials(self, chosen: np.ndarray[Any, Any]) -> Votes:
        """Only the answers at these places, or where this mask (T,) is true; the counts are theirs."""
        return self._with(self._told("answers").take(chosen))

    def _with(self, trials: Trials) -> Votes:
        return replace(self, counts=counted(trials, len(self), len(self.classes)), trials=trials)

    def _told(self, what: str) -> Trials:
        if self.trials is None:
            raise InputError(f"{self.name} holds counts only, which tell no {what} apart")
        return self.trials


def counted(trials: Trials, images: int, classes: int) -> Integers:
    """Count answers (T,) into votes (images, classes); those who gave no answer have no vote."""
    voted = trials.answer >= 0
    flat = trials.image[voted] * classes + trials.answer[voted]
    return np.bincount(flat, minlength=images * classes).reshape(images, classes).astype(np.int64)


def _named(what: str, name: str, names: Sequence[str]) -> int:
    if name not in names:
        raise InputError(f'there is no {what} "{name}"{nearest(name, names)}')
    return list(names).index(name)


def _within(word: str, held: Integers, limit: int, lowest: int = 0) -> None:
    if len(held) and not (lowest <= held.min() and held.max() < limit):
        raise InputError(f"expected {word} from {lowest} to {limit - 1}, got {held.min()} to {held.max()}")
