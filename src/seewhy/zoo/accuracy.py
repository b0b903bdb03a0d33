"""How often a classifier is right, with what the number of images allows to say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from seewhy.classifier import Classifier
from seewhy.data.images import Images
from seewhy.data.sets import DataSet
from seewhy.errors import DataError
from seewhy.intervals import wilson


@dataclass(frozen=True)
class Accuracy:
    """`right` of `total` images, `among_five` with the true class among the five most probable.

    `notes` says what was left out or taken for granted.
    """

    right: int
    among_five: int
    total: int
    notes: tuple[str, ...] = ()

    @property
    def top1(self) -> float:
        return self.right / self.total

    @property
    def top5(self) -> float:
        return self.among_five / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the top-1 accuracy."""
        return wilson(self.right, self.total)

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"top-1 {self.top1:.2%} ({self.right:,} of {self.total:,} images, 95 % interval {low:.2%} to {high:.2%}), "
            f"top-5 {self.top5:.2%}"
        )


def accuracy(net: Classifier, data: DataSet | Images | Iterable[Images]) -> Accuracy:
    """Measure the accuracy on a data set, or on labelled images given at once or in parts. One forward pass an image.

    A data set's classes are found among the model's by name; by number where the model came without names. Pictures
    that cannot be read, and those without a true class, are left out and counted in the notes.
    """
    notes: list[str] = []
    if isinstance(data, DataSet):
        data = _parts(net, data, notes)
    right = among_five = total = 0
    for part in (data,) if isinstance(data, Images) else data:
        if part.labels is None:
            raise DataError("expected images with their true classes to measure accuracy, and these have none")
        outside = part.labels[(part.labels < 0) | (part.labels >= net.classes)]
        if len(outside):
            raise DataError(f"expected true classes from 0 to {net.classes - 1} for {net.name}, got {int(outside[0])}")
        ranked = net.predict(part).cpu().topk(min(5, net.classes), dim=1).indices
        hits = ranked == part.labels[:, None]
        right += int(hits[:, 0].sum())
        among_five += int(hits.any(1).sum())
        total += len(part)
    if not total:
        raise DataError("expected at least one labelled image that can be read, got none")
    return Accuracy(right, among_five, total, tuple(notes))


def numbered(net: Classifier, data: DataSet) -> tuple[DataSet, tuple[str, ...]]:
    """A data set with a model's class indices: found by name; by number where the model came without names, which a note says.

    Raises `DataError` where the model has no such class.
    """
    if data.classes is None or net.labels_given:
        return data.aligned(net.labels), ()
    note = f"{net.name} came without names: its outputs are taken for {data.name}'s classes in their order"
    return replace(data, classes=None).aligned(net.labels), (note,)


def _parts(net: Classifier, data: DataSet, notes: list[str], size: int = 64) -> Iterator[Images]:
    """The readable and labelled pictures in parts; what the notes should say is known after the last one."""
    if data.labels is None:
        raise DataError(f"expected the true classes to measure accuracy, and {data.name} has none")
    data, said = numbered(net, data)
    notes += said
    unreadable = unknown = 0
    held: list[Images] = []
    for item, images in data.each(net.preprocess):
        if isinstance(images, DataError):
            unreadable += 1
        elif item.label is None:
            unknown += 1
        else:
            held.append(images)
        if len(held) == size:
            yield Images.join(held)
            held = []
    if held:
        yield Images.join(held)
    for number, why in ((unreadable, "cannot be read"), (unknown, "have no true class")):
        if number:
            notes.append(f"{number:,} of {len(data):,} images {why} and are left out")
