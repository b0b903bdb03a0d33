"""How good a tuned classifier is, class by class, with what the number of pictures leaves open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import torch
from torch import Tensor

from seewhy.intervals import wilson, wilson_mean

#: the bars of the reliability diagram and of the calibration error
BARS = 15


@final
@dataclass(frozen=True, eq=False)
class Marks:
    """What the logits (N, C) on pictures of known classes (N,) say of a classifier. Intervals are of 95 %.

    Balanced accuracy, the mean of the classes' recalls, comes first: accuracy alone praises a classifier that knows the
    largest class only. Classes without a picture have no recall, and no part in the mean.
    """

    logits: Tensor
    labels: Tensor
    classes: tuple[str, ...]

    @cached_property
    def confusion(self) -> Tensor:
        """(C, C): how many pictures of a row's class were taken for a column's."""
        count = len(self.classes)
        return torch.bincount(self.labels * count + self.logits.argmax(1), minlength=count**2).view(count, count)

    @property
    def accuracy(self) -> float:
        return float(self.confusion.diagonal().sum()) / len(self.labels)

    @property
    def accuracy_interval(self) -> tuple[float, float]:
        """Wilson's."""
        return wilson(int(self.confusion.diagonal().sum()), len(self.labels))

    @property
    def recalls(self) -> tuple[float | None, ...]:
        """The share of each class that was recognised; None where there is no picture."""
        rights, totals = self.confusion.diagonal().tolist(), self.confusion.sum(1).tolist()
        return tuple(right / total if total else None for right, total in zip(rights, totals, strict=True))

    @property
    def recall_intervals(self) -> tuple[tuple[float, float], ...]:
        """Wilson's, for each class."""
        rights, totals = self.confusion.diagonal().tolist(), self.confusion.sum(1).tolist()
        return tuple(wilson(right, total) for right, total in zip(rights, totals, strict=True))

    @property
    def precisions(self) -> tuple[float | None, ...]:
        """The share of right ones among those that were taken for each class; None where none was."""
        rights, totals = self.confusion.diagonal().tolist(), self.confusion.sum(0).tolist()
        return tuple(right / total if total else None for right, total in zip(rights, totals, strict=True))

    @property
    def balanced_accuracy(self) -> float:
        known = [recall for recall in self.recalls if recall is not None]
        return sum(known) / len(known)

    @cached_property
    def balanced_interval(self) -> tuple[float, float]:
        """Made of Wilson's of each recall."""
        pairs = [
            (right, total)
            for right, total in zip(self.confusion.diagonal().tolist(), self.confusion.sum(1).tolist(), strict=True)
            if total
        ]
        return wilson_mean(*zip(*pairs, strict=True))

    @cached_property
    def bars(self) -> tuple[tuple[int, float, float], ...]:
        """(pictures, mean confidence, accuracy) in equal parts of the confidence, for a reliability diagram."""
        confidence, chosen = self.logits.double().softmax(1).max(1)
        right = (chosen == self.labels).double()
        bar = (confidence * BARS).long().clamp(max=BARS - 1)
        found = []
        for each in range(BARS):
            inside = bar == each
            count = int(inside.sum())
            found.append(
                (count, float(confidence[inside].mean()), float(right[inside].mean())) if count else (0, 0.0, 0.0)
            )
        return tuple(found)

    @property
    def calibration_error(self) -> float:
        """The expected calibration error (Guo et al. 2017): the mean of |confidence − accuracy| over the pictures' bars."""
        return sum(count * abs(confidence - right) for count, confidence, right in self.bars) / len(self.labels)

    @property
    def log_loss(self) -> float:
        """The mean of −log of the true class's probability, in nats."""
        return float(torch.nn.functional.cross_entropy(self.logits.double(), self.labels))

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values."""
        return {
            "pictures": len(self.labels),
            "balanced_accuracy": self.balanced_accuracy,
            "balanced_accuracy_interval": list(self.balanced_interval),
            "accuracy": self.accuracy,
            "accuracy_interval": list(self.accuracy_interval),
            "always_the_largest_class": float(self.confusion.sum(1).max()) / len(self.labels),
            "classes": [
                {
                    "name": name,
                    "pictures": int(total),
                    "recall": recall,
                    "recall_interval": list(interval) if total else None,
                    "precision": precision,
                }
                for name, total, recall, interval, precision in zip(
                    self.classes,
                    self.confusion.sum(1).tolist(),
                    self.recalls,
                    self.recall_intervals,
                    self.precisions,
                    strict=True,
                )
            ],
            "confusion": self.confusion.tolist(),
            "calibration_error": self.calibration_error,
            "log_loss": self.log_loss,
            "reliability": [list(bar) for bar in self.bars],
        }


def marks(logits: Tensor, labels: Sequence[int] | Tensor, classes: Sequence[str]) -> Marks:
    """The marks of logits (N, C) beside the true classes (N,)."""
    return Marks(logits.detach().cpu().float(), torch.as_tensor(labels, dtype=torch.long), tuple(classes))
