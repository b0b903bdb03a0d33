"""How well a network does on labelled images, when there is nobody beside it: what a published result is laid beside."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np

from seewhy.errors import InputError
from seewhy.humans.baselines import Baseline
from seewhy.humans.calibration import equal_width, error
from seewhy.humans.estimate import Array, Estimate, combined, share
from seewhy.humans.votes import Integers
from seewhy.result import save, shown

if TYPE_CHECKING:
    import os

    from matplotlib.figure import Figure

#: how many times its even share the commonest class has where classes count as unequal
UNEQUAL = 1.5


@final
@dataclass(frozen=True)
class OneClass:
    """One class: its images, how often they are found (recall), and how often the answer is right (precision)."""

    name: str
    images: int
    answers: int
    recall: Estimate
    precision: Estimate


@final
@dataclass(frozen=True, eq=False, repr=False)
class Performance:
    """How well a network does on N labelled images of K classes.

    `accuracy` is the share right, `balanced` the mean of the recalls of the classes that have images, with intervals of 95 %
    (Wilson's; for the mean that made of theirs), `among_five` the share whose true class is among the five most probable.
    `confusion` (K, K) counts answers in columns, true classes in rows. `always`
    is the share right of who always answers the commonest class. `calibration` is the expected calibration error in 15 bins
    of equal width, `confidence` the mean probability of the answers.
    """

    data: str
    model: str
    images: int
    accuracy: Estimate
    balanced: Estimate
    among_five: Estimate
    classes: tuple[OneClass, ...]
    confusion: Integers
    commonest: str
    always: float
    calibration: float
    confidence: float
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return (
            f"Performance({self.model!r} on {self.data!r}, {self.images:,} images, accuracy {self.accuracy.value:.1%})"
        )

    @property
    def unequal(self) -> bool:
        """Whether the commonest class is so common that accuracy alone says little."""
        there = sum(each.images > 0 for each in self.classes)
        return self.always * there > UNEQUAL

    def measure(self, metric: str) -> Estimate | None:
        """The value that a published `metric` can be laid beside; None for a measure that is not taken here."""
        five = self.among_five
        wrong = Estimate(1 - five.value, 1 - five.high, 1 - five.low)
        known = {"accuracy": self.accuracy, "balanced accuracy": self.balanced, "top-5 error": wrong}
        return known.get(metric)

    def beside(self, published: Baseline) -> str:
        """What can be said of this beside a published result, in words; never more.

        Where classes are unequal, accuracy is that of their mix here, which is not the mix of the published number: then no
        verdict is given, only where accuracy and balanced accuracy lie.
        """
        if self.unequal and published.of_people and published.metric == "accuracy":
            return self._unlike(published)
        same = self.measure(published.metric)
        found, metric = (self.accuracy, "accuracy") if same is None else (same, published.metric)
        return published.compare(found, metric)

    def _unlike(self, published: Baseline) -> str:
        low, high = published.interval or (published.value, published.value)
        both = (self.balanced, self.accuracy)
        lie = (
            "both lie above it" if all(each.above(high) for each in both) else "they do not both lie on one side of it"
        )
        lie = "both lie below it" if all(each.below(low) for each in both) else lie
        return (
            f"{published.title}: {published.told()}. The model’s balanced accuracy is {told(self.balanced)} and its accuracy "
            f"{told(self.accuracy)}: {lie}. Neither is the same measure, as the mix of classes is another (here “"
            f"{self.commonest}” alone makes {self.always:.1%}), nor are the people and the images the same: indirect, and no "
            "verdict."
        )

    def rows(self) -> list[dict[str, Any]]:
        """A row for accuracy, balanced accuracy and each class, as plain values; None for what is not known."""
        return [
            {"what": "balanced accuracy", "images": self.images, **_plain(self.balanced)},
            {"what": "accuracy", "images": self.images, **_plain(self.accuracy)},
            *(
                {
                    "what": f"recall of {each.name}",
                    "class": each.name,
                    "images": each.images,
                    **_plain(each.recall),
                    "answers": each.answers,
                    "precision": _plain(each.precision),
                }
                for each in self.classes
            ),
        ]

    def record(self) -> dict[str, Any]:
        """Everything as plain values."""
        return {
            "data": self.data,
            "model": self.model,
            "images": self.images,
            "rows": self.rows(),
            "confusion": self.confusion.tolist(),
            "commonest": self.commonest,
            "always": self.always,
            "unequal": self.unequal,
            "calibration": self.calibration,
            "confidence": self.confidence,
            "words": self.words(),
        }

    def words(self) -> str:
        """The numbers in sentences; balanced accuracy and recalls lead where classes are unequal."""
        accuracy = f"accuracy {told(self.accuracy)}"
        balanced = f"balanced accuracy {told(self.balanced)}, the mean of the classes' recalls"
        said = [
            f"{self.model} on {self.images:,} images of {self.data}: {balanced if self.unequal else accuracy}; "
            f"{accuracy if self.unequal else balanced}."
        ]
        if self.unequal:
            said.append(
                f"Who always answers “{self.commonest}” is right on {self.always:.1%}: accuracy alone says little here."
            )
        there = [each for each in self.classes if each.images]
        if len(there) > 2:
            worst, best = (pick(there, key=lambda each: each.recall.value) for pick in (min, max))
            said.append(
                f"Recall goes from {told(worst.recall)} for {worst.name} ({worst.images:,} images) to "
                f"{told(best.recall)} for {best.name} ({best.images:,} images)."
            )
        empty = [each.name for each in self.classes if not each.images]
        if empty:
            said.append(f"No image shows {', '.join(empty)}.")
        return " ".join(said)

    def plot(self) -> Figure:
        """Recall and precision of each class with their intervals, and the confusion matrix."""
        from seewhy.report.parting import performance

        return performance(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to one open file, see `seewhy.result.save`."""
        save(self, path)

    def _repr_html_(self) -> str:
        return shown(self.plot(), self.words())


def performance(
    probabilities: Array,
    labels: Sequence[int] | Array,
    classes: Sequence[str],
    *,
    data: str = "the data",
    model: str = "the CNN",
    notes: Sequence[str] = (),
) -> Performance:
    """Measure a network by its probabilities (N, K) on images whose true classes (N,) are known.

    Raises `InputError` where shapes do not fit, where a label is no class, and where there is no image. Cost: no passes.

    >>> found = performance(np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]]), [0, 1, 1], ["cat", "dog"])
    >>> found.accuracy.value, found.balanced.value
    (0.6666666666666666, 0.75)
    """
    chances, truth = np.asarray(probabilities, np.float64), np.asarray(labels, np.int64)
    if chances.ndim != 2 or chances.shape[1] != len(classes) or truth.shape != chances.shape[:1] or not len(truth):
        raise InputError(
            f"expected probabilities (N, {len(classes)}) and N true classes, at least one, got {chances.shape} and {truth.shape}"
        )
    if not np.isfinite(chances).all():
        raise InputError("expected finite probabilities, got NaN or infinity")
    if not (truth.min() >= 0 and truth.max() < len(classes)):
        raise InputError(f"expected true classes from 0 to {len(classes) - 1}, got {truth.min()} to {truth.max()}")
    answers, count = chances.argmax(1), len(classes)
    confusion = np.bincount(truth * count + answers, minlength=count**2).reshape(count, count).astype(np.int64)
    held, said, right = confusion.sum(1), confusion.sum(0), confusion.diagonal()
    each = tuple(
        OneClass(
            name,
            int(held[k]),
            int(said[k]),
            share(right[k] / held[k] if held[k] else math.nan, int(held[k])),
            share(right[k] / said[k] if said[k] else math.nan, int(said[k])),
        )
        for k, name in enumerate(classes)
    )
    there = [part.recall for part in each if part.images]
    sure = chances.max(1)
    own = chances[np.arange(len(truth)), truth]
    five = float(((chances > own[:, None]).sum(1) < 5).mean())
    commonest = int(held.argmax())
    return Performance(
        data=data,
        model=model,
        images=len(truth),
        accuracy=share(float(right.sum() / len(truth)), len(truth)),
        balanced=combined(there, [1 / len(there)] * len(there)),
        among_five=share(five, len(truth)),
        classes=each,
        confusion=confusion,
        commonest=classes[commonest],
        always=float(held[commonest] / len(truth)),
        calibration=error(sure, (answers == truth).astype(np.float64), equal_width(sure)[0]),
        confidence=float(sure.mean()),
        notes=tuple(notes),
    )


def told(found: Estimate) -> str:
    """An estimate in per cent with its interval.

    >>> told(share(0.9, 100))
    '90.0 % (82.6 to 94.5 %)'
    """
    return f"{100 * found.value:.1f} % ({100 * found.low:.1f} to {100 * found.high:.1f} %)"


def _plain(found: Estimate) -> dict[str, float | None]:
    return {key: value if math.isfinite(value) else None for key, value in asdict(found).items()}
