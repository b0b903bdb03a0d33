"""What a data set is: names, labels, classes and groups in memory, pictures read one at a time."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, final

import numpy as np
import torch

from seewhy.data.images import Images, Preprocess
from seewhy.data.photo import Picture, open_photo, picture_of, prepared
from seewhy.errors import DataError, InputError, nearest
from seewhy.rng import generator

#: what stands for the bytes of a picture that is not there
UNREADABLE = b"unreadable"


class Source(Protocol):
    """Where the pictures of a data set come from."""

    def picture(self, position: int) -> Picture:
        """The picture in RGB, with notes; raises `DataError` where it cannot be read."""

    def content(self, position: int) -> bytes:
        """The bytes that the picture is made of."""


@final
@dataclass(frozen=True)
class Files:
    """Pictures in files."""

    paths: tuple[Path, ...]

    def picture(self, position: int) -> Picture:
        return open_photo(self.paths[position])

    def content(self, position: int) -> bytes:
        try:
            return self.paths[position].read_bytes()
        except OSError:  # the picture is an error then, which no bytes of a file look like
            return UNREADABLE


@final
@dataclass(frozen=True, eq=False)
class Arrays:
    """Pictures in one array: (N, H, W, 3) or (N, H, W), uint8."""

    array: np.ndarray[Any, Any]

    def picture(self, position: int) -> Picture:
        return picture_of(self.array[position]), ()

    def content(self, position: int) -> bytes:
        return bytes(self.array[position].tobytes())


@final
@dataclass(frozen=True)
class Item:
    """One picture of a data set; `open()` reads it. `label` is None where the true class is not known."""

    name: str
    open: Callable[[], Picture]
    label: int | None = None
    group: str | None = None

    def read(self, preprocess: Preprocess) -> Images:
        """The picture as a model sees it, a batch of one; raises `DataError` where it cannot be read."""
        picture, notes = self.open()
        return prepared(picture, preprocess, self.name, notes, self.label)


@final
@dataclass(frozen=True, eq=False, repr=False)
class DataSet:
    """Named pictures, their true classes and groups where they are known; each picture is read when it is asked for.

    `labels` holds a class's index for each picture (None: unknown), `classes` the classes' names in that order.
    Pictures of one group show the same thing (a lesion, a patient): `split` and `sample` never part them.
    `notes` says what a reader should know of how the set was read. `positions` are the pictures' places in `source`.
    """

    name: str
    names: tuple[str, ...]
    source: Source
    labels: tuple[int | None, ...] | None = None
    classes: tuple[str, ...] | None = None
    groups: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    positions: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        n = len(self.names)
        if not n:
            raise DataError(f"{self.name} holds no images")
        object.__setattr__(self, "positions", self.positions or tuple(range(n)))
        for word, held in (("labels", self.labels), ("groups", self.groups), ("positions", self.positions)):
            if held is not None and len(held) != n:
                raise DataError(f"{self.name} has {n} images and {len(held)} {word}; expected as many")
        known = [label for label in self.labels or () if label is not None]
        limit = max(known, default=0) + 1 if self.classes is None else len(self.classes)
        wrong = [label for label in known if not 0 <= label < limit]
        if wrong:
            raise DataError(f"{self.name} has the label {wrong[0]}; expected 0 to {limit - 1}")

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[Item]:
        return map(self.item, range(len(self)))

    def __repr__(self) -> str:
        classes = f", {len(self.classes)} classes" if self.classes else ""
        return f"DataSet({self.name!r}, {len(self):,} images{classes})"

    def item(self, index: int) -> Item:
        """One picture, not read yet."""
        index = self._index(index)
        return Item(
            self.names[index],
            partial(self.source.picture, self.positions[index]),
            None if self.labels is None else self.labels[index],
            None if self.groups is None else self.groups[index],
        )

    def images(self, indices: Sequence[int] | slice, preprocess: Preprocess) -> Images:
        """A batch of pictures as a model sees them, with labels if all have one; raises the first `DataError`."""
        chosen = range(len(self))[indices] if isinstance(indices, slice) else indices
        return Images.join([self.item(index).read(preprocess) for index in chosen])

    def each(self, preprocess: Preprocess) -> Iterator[tuple[Item, Images | DataError]]:
        """Every picture in turn as a batch of one, or the `DataError` that says why it cannot be read."""
        for item in self:
            try:
                yield item, item.read(preprocess)
            except DataError as error:
                yield item, error

    def counts(self) -> dict[str, int]:
        """How many pictures each class has, by name (by index where classes have none), the unlabelled last."""
        if self.labels is None:
            return {}
        found = Counter(self.labels)
        unknown = found.pop(None, 0)
        indices = range(len(self.classes)) if self.classes else sorted(label for label in found if label is not None)
        counts = {self.classes[index] if self.classes else str(index): found[index] for index in indices}
        return counts | ({"(unknown)": unknown} if unknown else {})

    def subset(self, indices: Sequence[int] | slice) -> DataSet:
        """The pictures at these places, in this order."""
        chosen = list(range(len(self))[indices] if isinstance(indices, slice) else map(self._index, indices))
        return replace(
            self,
            names=tuple(self.names[index] for index in chosen),
            labels=None if self.labels is None else tuple(self.labels[index] for index in chosen),
            groups=None if self.groups is None else tuple(self.groups[index] for index in chosen),
            positions=tuple(self.positions[index] for index in chosen),
        )

    def sample(self, count: int, seed: int = 0) -> DataSet:
        """Up to `count` pictures by chance, each class with its share, in the set's order.

        Groups come whole, so that a few pictures less may come. Raises `InputError` unless 1 ≤ count ≤ len(self).
        """
        return self.subset(self._draw(count, seed))

    def split(self, share: float, seed: int = 0) -> tuple[DataSet, DataSet]:
        """Two parts by chance, the first with this share of each class; no group is in both.

        Raises `InputError` where a part would be empty.
        """
        count = round(share * len(self)) if 0 < share < 1 else 0
        first = self._draw(count, seed) if 0 < count < len(self) else []
        if not 0 < len(first) < len(self):
            raise InputError(f"expected a share that leaves images in both parts of {len(self)}, got {share}")
        taken = set(first)
        return self.subset(first), self.subset([index for index in range(len(self)) if index not in taken])

    def aligned(self, labels: Sequence[str]) -> DataSet:
        """The same pictures with a model's class indices, found by the classes' names.

        Case and underscores don't count, and of a label such as "tench, Tinca tinca" the first name will do. A set
        without class names must fit by number. Raises `DataError` where a class is not among the labels, or twice.
        """
        if self.classes is None:
            highest = max((label for label in self.labels or () if label is not None), default=0)
            if highest >= len(labels):
                raise DataError(f"{self.name} has the label {highest}, and the model only {len(labels)} classes")
            return replace(self, classes=tuple(labels)) if self.labels is not None else self
        moved: dict[int | None, int | None] = {None: None}
        if list(self.classes) == list(labels):
            return self
        full, first = _places(labels), _places([label.partition(",")[0] for label in labels])
        for index in {label for label in self.labels or () if label is not None}:
            name = self.classes[index]
            found = full.get(_plain(name)) or first.get(_plain(name)) or []
            if not found:
                raise DataError(f'the model has no class "{name}", which {self.name} has{nearest(name, labels)}')
            if len(found) > 1:
                raise DataError(f'the model has several classes "{name}" ({found}); label {self.name} by their numbers')
            moved[index] = found[0]
        relabelled = None if self.labels is None else tuple(moved[label] for label in self.labels)
        return replace(self, labels=relabelled, classes=tuple(labels))

    def aligned_or_bare(self, labels: Sequence[str]) -> tuple[DataSet, tuple[str, ...]]:
        """As `aligned`; where that cannot be, the set without its true classes, and a note that says why."""
        try:
            return self.aligned(labels), ()
        except DataError as error:
            bare = replace(self, labels=None, classes=None)
            return bare, (f"the true classes of {self.name} are not used: {error}",)

    def fingerprint(self) -> str:
        """SHA-256 of names, labels, classes and the pictures' bytes, wherever the set lies. Reads all of it once."""
        digest = hashlib.sha256(repr(self.classes).encode())
        for index, (name, position) in enumerate(zip(self.names, self.positions, strict=True)):
            content = hashlib.sha256(self.source.content(position)).hexdigest()
            label = None if self.labels is None else self.labels[index]
            digest.update(repr((name, label, content)).encode())
        return digest.hexdigest()

    def stamp(self) -> str:
        """SHA-256 of names, labels, classes, and of the sizes and times of pictures that are files: no picture is read."""
        files = self.source.paths if isinstance(self.source, Files) else ()
        seen = [_stamped(files[position]) for position in self.positions] if files else []
        return hashlib.sha256(repr((self.name, self.names, self.labels, self.classes, seen)).encode()).hexdigest()

    def _index(self, index: int) -> int:
        if not -len(self) <= index < len(self):
            raise InputError(f"{self.name} has {len(self)} images, counted from 0; there is no image {index}")
        return int(index) % len(self)

    def _draw(self, count: int, seed: int) -> list[int]:
        """Places of up to `count` pictures: classes by largest remainder, groups whole."""
        if not 1 <= count <= len(self):
            raise InputError(f"expected 1 to {len(self)} images of {self.name}, got {count}")
        groups: dict[object, list[int]] = {}
        for index in range(len(self)):
            groups.setdefault(index if self.groups is None else self.groups[index], []).append(index)
        strata: dict[int | None, list[list[int]]] = {}
        for members in groups.values():
            labels = Counter(None if self.labels is None else self.labels[index] for index in members)
            label = labels.most_common(1)[0][0]
            strata.setdefault(label, []).append(members)
        for label, bundles in strata.items():
            strata[label] = [bundles[place] for place in _shuffled(len(bundles), seed, "stratum", label)]
        sizes = {label: sum(map(len, bundles)) for label, bundles in strata.items()}
        quotas = {label: count * size // len(self) for label, size in sizes.items()}
        order = [list(sizes)[place] for place in _shuffled(len(sizes), seed, "ties")]
        order.sort(key=lambda label: -(count * sizes[label] % len(self)))
        for label in order[: count - sum(quotas.values())]:
            quotas[label] += 1
        chosen: list[int] = []
        spare: list[list[int]] = []
        for label in order:
            room = quotas[label]
            for members in strata[label]:
                if len(members) <= room:
                    chosen += members
                    room -= len(members)
                else:
                    spare.append(members)
        for members in spare:  # what groups left of their class's share goes to whatever fits
            if len(members) <= count - len(chosen):
                chosen += members
        if not chosen:
            smallest = min(map(len, groups.values()))
            raise InputError(f"no group of {self.name} fits into {count} images; the smallest has {smallest}")
        return sorted(chosen)


def _shuffled(n: int, seed: int, *words: object) -> list[int]:
    order: list[int] = torch.randperm(n, generator=generator(seed, "data", *words)).tolist()
    return order


def _stamped(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:  # the picture is an error then
        return None
    return found.st_size, found.st_mtime_ns


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").lower().split())


def _places(labels: Sequence[str]) -> dict[str, list[int]]:
    places: dict[str, list[int]] = {}
    for index, label in enumerate(labels):
        places.setdefault(_plain(label), []).append(index)
    return places
