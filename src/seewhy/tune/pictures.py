"""The pictures of a data set, read once and kept as bytes on the disk; who trains and who is held out."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from seewhy.data.images import Preprocess
from seewhy.data.sets import DataSet
from seewhy.errors import DataError

Tell = Callable[[int, int, str], None]


@final
@dataclass(frozen=True, eq=False)
class Pictures:
    """The readable, labelled pictures of a set as a model sees them: (N, H, W, 3) uint8, mapped from the disk.

    `data` is the set without what could not be read, which `left_out` lists with the reasons. `digests` name the pictures by
    their pixels.
    """

    data: DataSet
    array: np.ndarray[Any, Any]
    digests: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...]

    @property
    def labels(self) -> tuple[int, ...]:
        return tuple(label for label in self.data.labels or () if label is not None)

    def batch(self, places: Sequence[int]) -> Tensor:
        """Pictures (n, 3, H, W) of uint8, channels last."""
        return torch.from_numpy(self.array[np.asarray(places, dtype=np.int64)]).permute(0, 3, 1, 2)


def keep(data: DataSet, preprocess: Preprocess, file: Path, tell: Tell = lambda done, total, what: None) -> Pictures:
    """Read every picture once into `file`, or take what an earlier call left there; pictures without a class are left out.

    The file is whole or not there: a call that was stopped begins again. Raises `DataError` where nothing can be read.
    """
    if data.labels is None or data.classes is None:
        raise DataError(
            f"{data.name} does not say its pictures' classes: expected a folder for each class, or a table with a column "
            "label"
        )
    about = file.with_suffix(".json")
    whose = hashlib.sha256(repr((data.names, data.labels, data.classes, preprocess)).encode()).hexdigest()
    if file.is_file() and about.is_file():
        known = json.loads(about.read_text(encoding="utf-8"))
        if known.get("whose") == whose:
            return _opened(data, file, known)
    height, width = preprocess.size
    staged = file.with_suffix(".part")
    digests: list[str] = []
    kept: list[int] = []
    left_out: list[tuple[str, str]] = []
    array = np.lib.format.open_memmap(staged, mode="w+", dtype=np.uint8, shape=(len(data), height, width, 3))
    for place, (item, images) in enumerate(data.each(preprocess)):
        if isinstance(images, DataError):
            left_out.append((item.name, str(images)))
        elif item.label is None:
            left_out.append((item.name, "its class is not known"))
        else:
            pixels = (images.pixels[0] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
            array[len(kept)] = pixels
            digests.append(hashlib.sha256(pixels.tobytes()).hexdigest())
            kept.append(place)
        tell(place + 1, len(data), "reading")
    if not kept:
        raise DataError(
            f"none of the {len(data):,} pictures of {data.name} can be used: {left_out[0][0]}: {left_out[0][1]}"
        )
    array.flush()
    del array
    os.replace(staged, file)
    known = {"whose": whose, "kept": kept, "digests": digests, "left_out": left_out}
    half = about.with_suffix(".half")
    half.write_text(json.dumps(known), encoding="utf-8")
    os.replace(half, about)
    return _opened(data, file, known)


def _opened(data: DataSet, file: Path, known: dict[str, Any]) -> Pictures:
    array = np.load(file, mmap_mode="r")[: len(known["kept"])]
    left_out = tuple((name, why) for name, why in known["left_out"])
    return Pictures(data.subset(known["kept"]), array, tuple(known["digests"]), left_out)


@final
@dataclass(frozen=True)
class Split:
    """Places of the pictures that train, that are watched for early stopping, and that are held out; `notes` in sentences."""

    train: tuple[int, ...]
    watch: tuple[int, ...]
    held: tuple[int, ...]
    notes: tuple[str, ...]


def without_empty_classes(data: DataSet) -> tuple[DataSet, tuple[str, ...]]:
    """A set whose classes all have pictures, and what was left out. Raises `DataError` for fewer than two classes."""
    if data.classes is None or data.labels is None:
        raise DataError(f"{data.name} does not say its pictures' classes")
    used = sorted({label for label in data.labels if label is not None})
    if len(used) < 2:
        named = f'only "{data.classes[used[0]]}"' if used else "none"
        raise DataError(f"expected pictures of at least two classes in {data.name}, got {named}")
    empty = [name for index, name in enumerate(data.classes) if index not in used]
    if not empty:
        return data, ()
    moved: dict[int | None, int | None] = {None: None, **{old: new for new, old in enumerate(used)}}
    answer = replace(
        data,
        labels=tuple(moved[label] for label in data.labels),
        classes=tuple(data.classes[index] for index in used),
    )
    return answer, (f"no picture shows {', '.join(empty)}: the classifier has no such class",)


def split(
    pictures: Pictures, hold_out: float, seed: int, *, watched: bool = False, spent: frozenset[str] = frozenset()
) -> Split:
    """Part the pictures by chance: whole groups, each class with its share.

    A class of one group alone trains and is not held out, which is said; pictures of the same pixels never end on both sides.
    Every class trains: a group of it comes back if need be. `watched` sets a tenth of the training part aside. `spent` are the
    digests of pictures that trained the model before: they are not held out either.
    """
    data = replace(pictures.data, positions=tuple(range(len(pictures.data))))
    classes = data.classes or ()
    notes: list[str] = []
    if data.groups is None:
        notes.append(
            "nothing says which pictures show the same thing: if some do, the numbers on the hold-out are too good; name it in "
            "a column group, patient or lesion_id"
        )
    bound = _one_group(data)
    if bound:
        names = ", ".join(classes[label] for label in sorted(bound))
        notes.append(
            f"all pictures of {names} are of one group, so they train and are not held out: nothing is known there"
        )
    free = [place for place, label in enumerate(pictures.labels) if label not in bound]
    held = set(data.subset(free).split(hold_out, seed)[0].positions) if free else set()
    training = set(range(len(data))) - held
    _come_back(data, training, held)
    watch: set[int] = set()
    if watched and len(training) > 1:
        watch = set(data.subset(sorted(training)).split(0.1, seed + 1)[0].positions)
        training -= watch
        _come_back(data, training, watch)
    twins = {pictures.digests[place] for place in training | watch}
    kept = tuple(place for place in sorted(held) if pictures.digests[place] not in twins | spent)
    again = sum(pictures.digests[place] in spent for place in held)
    if again:
        notes.append(f"{again:,} pictures of the hold-out trained the model that is tuned here, and are left out")
    if not kept:
        raise DataError(
            f"nothing of {data.name} can be held out, so nobody could say how good the classifier is: give more pictures, of at "
            "least two groups a class"
        )
    if len(kept) + again < len(held):
        notes.append(
            f"{len(held) - len(kept) - again:,} pictures of the hold-out are, pixel for pixel, among those that train, and "
            "are left out"
        )
    unseen = [
        name
        for index, name in enumerate(classes)
        if index not in bound and index not in {pictures.labels[place] for place in kept}
    ]
    if unseen:
        notes.append(f"no picture of {', '.join(unseen)} is held out: nothing is known there")
    return Split(tuple(sorted(training)), tuple(sorted(watch)), kept, tuple(notes))


def _come_back(data: DataSet, training: set[int], aside: set[int]) -> None:
    """Move a group of each class that has nothing to train on back from what was set aside."""
    labels = data.labels or ()
    lacking = {labels[place] for place in aside} - {labels[place] for place in training}
    for label in sorted(each for each in lacking if each is not None):
        first = min(place for place in aside if labels[place] == label)
        group = (
            {first} if data.groups is None else {place for place in aside if data.groups[place] == data.groups[first]}
        )
        aside -= group
        training |= group


def _one_group(data: DataSet) -> set[int]:
    """The classes whose pictures are all of one group."""
    groups: dict[int, set[object]] = {}
    for place, label in enumerate(data.labels or ()):
        if label is not None:
            groups.setdefault(label, set()).add(place if data.groups is None else data.groups[place])
    return {label for label, found in groups.items() if len(found) == 1}
