"""What a pass over images keeps: each unit's best, a sketch of its values, and which images came; of one size, to be merged."""

from __future__ import annotations

import json
import math
import os
import re
import reprlib
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from seewhy.errors import InputError

#: the sketch: a zero bin, and on either side four bins an octave from 2^-16 to 2^16; a value is off by at most 12.5 %
_LOWEST, _OCTAVES = -16, 32
_SIDE = 4 * _OCTAVES
BINS = 2 * _SIDE + 1

#: the share up to which marks of one image differ, read here and there
_ALIKE = 1e-5

#: what images are called that came without names
_UNNAMED = re.compile(r"image \d+")


def edges() -> Tensor:
    """The borders (BINS + 1,) of the histogram's bins; the outermost ones hold what lies beyond, too."""
    octave = 2.0 ** torch.arange(_LOWEST, _LOWEST + _OCTAVES, dtype=torch.float64)
    up = torch.cat([(octave[:, None] * torch.tensor([1, 1.25, 1.5, 1.75])).flatten(), 2 * octave[-1:]])
    return torch.cat([-up.flip(0), up]).float()


def bins(values: Tensor) -> Tensor:
    """The bin of each value: exponent and two bits of the mantissa are the key, as the number is written in memory."""
    key = (values.abs().float().contiguous().view(torch.int32) >> 21).long() - ((_LOWEST + 127) << 2)
    key = key.clamp(-1, _SIDE - 1) + 1  # 0: too small to tell from zero
    return torch.where(values < 0, _SIDE - key, _SIDE + key)


@final
@dataclass
class Rows:
    """What is kept of one layer of C units, however many images came: the k best places, and sums.

    `values`, `images`, `places`, `labels` (C, k), the best first, −∞ and −1 where there are fewer; equal values in the
    order of the images. `counts` (C, BINS) is the histogram of each unit's peak in each image, `total` and `squares` (C,)
    its sums, `classes` (C, classes) its sums by class, over `members`
    (C, classes) images each. Answers that are no numbers are in none of these. `size` is the map's (height, width).
    """

    size: tuple[int, int]
    values: Tensor
    images: Tensor
    places: Tensor
    labels: Tensor
    counts: Tensor
    total: Tensor
    squares: Tensor
    classes: Tensor
    members: Tensor

    @staticmethod
    def empty(units: int, size: tuple[int, int], k: int, classes: int) -> Rows:
        """Nothing seen yet."""
        none = torch.full((units, k), -1)
        return Rows(
            size,
            torch.full((units, k), -torch.inf),
            none,
            none.clone(),
            none.clone(),
            torch.zeros(units, BINS, dtype=torch.int64),
            torch.zeros(units, dtype=torch.float64),
            torch.zeros(units, dtype=torch.float64),
            torch.zeros(units, classes, dtype=torch.float64),
            torch.zeros(units, classes, dtype=torch.int32),
        )

    @property
    def summed(self) -> tuple[Tensor, ...]:
        """What adds up when two are merged."""
        return self.counts, self.total, self.squares, self.classes, self.members

    def rivals(self, peaks: Tensor, first: int) -> Tensor:
        """Which of peaks (N, C), of images from `first` on, would be among the best."""
        worst, when = self.values[:, -1], self.images[:, -1]
        peaks = peaks.masked_fill(~peaks.isfinite(), -torch.inf)
        index = torch.arange(first, first + len(peaks))[:, None]
        better = (peaks > worst) | ((peaks == worst) & (index < when))
        k = self.values.shape[1]
        if len(peaks) > k:  # nor will what is not among the best of its own batch
            better &= peaks >= peaks.topk(k, dim=0).values[-1]
        return better

    def add(self, peaks: Tensor, places: Tensor, indices: Tensor, labels: Tensor) -> None:
        """Take in the peaks (N, C, p) of images, each with its place on the map."""
        best = peaks[:, :, 0]
        known = best.isfinite()
        safe = best.masked_fill(~known, 0).double()
        self.counts.scatter_add_(1, bins(safe).T, known.T.long())
        self.total += safe.sum(0)
        self.squares += safe.square().sum(0)
        labelled = labels >= 0
        self.classes.index_add_(1, labels[labelled], safe[labelled].T)
        self.members.index_add_(1, labels[labelled], known[labelled].T.int())
        peaks = peaks.masked_fill(~peaks.isfinite() | (places < 0), -torch.inf)
        changed = (peaks[:, :, 0] > -torch.inf).any(0).nonzero().flatten()
        if len(changed):
            n, _, several = peaks.shape
            shape = (len(changed), n * several)
            chosen = peaks[:, changed].permute(1, 0, 2).reshape(shape)
            where = places[:, changed].permute(1, 0, 2).reshape(shape)
            self._take(changed, chosen, _spread(indices, several, shape), where, _spread(labels, several, shape))

    def merge(self, other: Rows) -> None:
        """Take in what was kept of other images."""
        for mine, theirs in zip(self.summed, other.summed, strict=True):
            mine += theirs
        everyone = torch.arange(len(self.values))
        self._take(everyone, other.values, other.images, other.places, other.labels)

    def _take(self, units: Tensor, values: Tensor, images: Tensor, places: Tensor, labels: Tensor) -> None:
        """Keep the best of what is there and what comes; of equals the earlier image, so that no order matters."""
        value = torch.cat([self.values[units], values], 1)
        image = torch.cat([self.images[units], images], 1)
        place = torch.cat([self.places[units], places], 1)
        label = torch.cat([self.labels[units], labels], 1)
        order = (image * (self.size[0] * self.size[1]) + place).argsort(dim=1, stable=True)
        order = order.gather(1, value.gather(1, order).argsort(dim=1, descending=True, stable=True))
        order = order[:, : self.values.shape[1]]
        none = value.gather(1, order) == -torch.inf
        self.values[units] = value.gather(1, order)
        for held, found in ((self.images, image), (self.places, place), (self.labels, label)):
            held[units] = found.gather(1, order).masked_fill(none, -1)


def _spread(each: Tensor, several: int, shape: tuple[int, int]) -> Tensor:
    return each.repeat_interleave(several).expand(shape)


@final
@dataclass
class Tally:
    """What a pass over images has kept so far: of one size from the first image to the last; to be merged and saved.

    `layers` holds the `Rows` by address; `seen` the stretches [start, stop) of images that came; `names` those of the
    images that are among the best, `marks` how each of these is known again; `failed` (image, sentence) of those that could
    not be read; `per_class` how many images each class has. `key` says of which method, model and layers it is: only like
    goes with like.
    """

    key: dict[str, Any]
    classes: tuple[str, ...]
    layers: dict[str, Rows]
    per_class: Tensor
    seen: list[tuple[int, int]] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=dict)
    marks: dict[int, float] = field(default_factory=dict)
    failed: list[tuple[int, str]] = field(default_factory=list)
    strange: int = 0

    @staticmethod
    def empty(
        classes: Sequence[str], key: Mapping[str, Any] | None = None, layers: dict[str, Rows] | None = None
    ) -> Tally:
        """Nothing seen yet."""
        return Tally(dict(key or {}), tuple(classes), layers or {}, torch.zeros(len(classes), dtype=torch.int64))

    def __len__(self) -> int:
        """How many images came, those that could not be read included."""
        return sum(stop - start for start, stop in self.seen)

    @property
    def images(self) -> int:
        """How many images could be read."""
        return len(self) - len(self.failed)

    def fits(self, key: Mapping[str, Any], classes: Sequence[str]) -> None:
        """Check that it is of a pass with this key and these classes; raises `InputError` with the first part that differs."""
        wanted, there = {**key, "classes": [*classes]}, {**self.key, "classes": [*self.classes]}
        for part in dict.fromkeys([*wanted, *there]):
            if wanted.get(part) != there.get(part):
                raise InputError(
                    f"expected a state of this method, model and layers, got one with other {part}: "
                    f"{_differing(there.get(part), wanted.get(part))}"
                )

    def recognise(self, index: int, name: str = "", pixels: Tensor | None = None) -> None:
        """Check an image that has been seen, where it is among the best: by its pixels where they are there, else by its name.

        Raises `InputError` where it is another.
        """
        known = self.names.get(index)
        if known is None:
            return
        if pixels is None:
            same = name == known or _UNNAMED.fullmatch(known) is not None
        else:
            same = math.isclose(mark(pixels), self.marks[index], rel_tol=_ALIKE, abs_tol=1e-9)
        if not same:
            raise InputError(
                f"the state is of other images: number {index}, {known}, is not the one that is given"
                + (f", {name}" if name and name != known else "")
            )

    def merge(self, other: Tally) -> Tally:
        """Take in another pass over other images; answers itself. Raises `InputError` unless they go together."""
        self.fits(other.key, other.classes)
        stretches = sorted([*self.seen, *other.seen])
        for before, after in pairwise(stretches):
            if after[0] < before[1]:
                raise InputError(f"both states have seen image {after[0]}; give each pass images of its own")
        for address, rows in other.layers.items():
            self.layers[address].merge(rows)
        self.per_class += other.per_class
        self.names |= other.names
        self.marks |= other.marks
        self.failed = sorted([*self.failed, *other.failed])
        self.strange += other.strange
        for start, stop in other.seen:
            self.saw(start, stop)
        self.forget()
        return self

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to one `.npz` file, whole or not at all."""
        about = {
            "key": self.key,
            "classes": self.classes,
            "seen": self.seen,
            "names": list(self.names.items()),
            "marks": list(self.marks.items()),
            "failed": self.failed,
            "strange": self.strange,
            "layers": {address: rows.size for address, rows in self.layers.items()},
        }
        arrays = {
            f"{number}.{name}": value.numpy()
            for number, rows in enumerate(self.layers.values())
            for name, value in vars(rows).items()
            if name != "size"
        }
        target = Path(path)
        staged = target.with_name(target.name + ".part")
        with staged.open("wb") as file:
            np.savez(file, about=np.array(json.dumps(about)), per_class=self.per_class.numpy(), **arrays)
        os.replace(staged, target)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Tally:
        """Read what `save` wrote; raises `InputError` where it is something else."""
        try:
            with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as held:
                about = json.loads(str(held["about"]))
                arrays = {name: torch.from_numpy(held[name]) for name in held.files if name != "about"}
            layers = {}
            for number, (address, size) in enumerate(about["layers"].items()):
                start = f"{number}."
                own = {name.removeprefix(start): value for name, value in arrays.items() if name.startswith(start)}
                layers[address] = Rows(size=(size[0], size[1]), **own)
            return Tally(
                about["key"],
                tuple(about["classes"]),
                layers,
                arrays["per_class"],
                [(start, stop) for start, stop in about["seen"]],
                dict(about["names"]),
                dict(about["marks"]),
                [(index, sentence) for index, sentence in about["failed"]],
                about["strange"],
            )
        except (OSError, ValueError, LookupError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise InputError(
                f"{os.fspath(path)} is not the whole state of a pass over exemplars: {error}; without it the pass begins anew"
            ) from None

    def saw(self, start: int, stop: int) -> None:
        joined: list[tuple[int, int]] = []
        for low, high in sorted([*self.seen, (start, stop)]):
            low = joined.pop()[0] if joined and joined[-1][1] == low else low
            joined.append((low, high))
        self.seen = joined

    def has(self, index: int) -> bool:
        return any(start <= index < stop for start, stop in self.seen)

    def forget(self) -> None:
        """Drop the names and marks of images that are among the best no more."""
        best = {index for rows in self.layers.values() for index in rows.images.unique().tolist()}
        self.names = {index: name for index, name in self.names.items() if index in best}
        self.marks = {index: value for index, value in self.marks.items() if index in best}


def mark(pixels: Tensor) -> float:
    """A number by which an image (3, H, W) is known again: the mean of its values, each weighed by its place."""
    flat = pixels.detach().cpu().flatten().double()
    return float(flat @ torch.linspace(0, 1, len(flat), dtype=torch.float64)) / len(flat)


def _differing(there: object, here: object) -> str:
    """Two values that differ, in short; of lists of one length, the first entries that do."""
    if isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        there, here = next(pair for pair in zip(there, here, strict=True) if pair[0] != pair[1])
    return f"{reprlib.repr(there)} there, {reprlib.repr(here)} here"
