"""How a classifier fares when images get worse: blur, noise, contrast, JPEG and resolution, beside people where they saw such."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from seewhy.classifier import Classifier
from seewhy.data.images import Images
from seewhy.data.sets import DataSet
from seewhy.engine import Cost, Meter
from seewhy.errors import DataError, InputError, SpecError, nearest
from seewhy.humans import say
from seewhy.humans.estimate import Estimate, share
from seewhy.humans.match import LabelMap
from seewhy.humans.paired import mcnemar
from seewhy.result import save, shown
from seewhy.rng import generator

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: how many images are in memory at once
PART = 64


def blurred(pixels: Tensor, level: float) -> Tensor:
    """Images (N, 3, H, W) under a Gaussian of σ = `level` times their shorter side, their edges repeated outwards."""
    sigma = level * min(pixels.shape[-2:])
    radius = max(1, math.ceil(4 * sigma))
    at = torch.arange(-radius, radius + 1, dtype=pixels.dtype)
    kernel = torch.exp(-0.5 * (at / sigma).square())
    kernel = (kernel / kernel.sum()).expand(pixels.shape[1], 1, -1)
    for side in (2, 3):
        line = kernel[..., None] if side == 2 else kernel[:, :, None]
        room = (0, 0, radius, radius) if side == 2 else (radius, radius, 0, 0)
        pixels = F.conv2d(F.pad(pixels, room, mode="replicate"), line, groups=pixels.shape[1])
    return pixels.clamp(0, 1)


def noisy(pixels: Tensor, level: float, noise: Tensor) -> Tensor:
    """Images plus Gaussian `noise` of standard deviation 1 (as `pixels`) times `level`, cut to [0, 1]."""
    return (pixels + level * noise).clamp(0, 1)


def faded(pixels: Tensor, level: float) -> Tensor:
    """Images with `level` times their contrast around mid-grey: 0.5 + level · (x − 0.5), as in Geirhos et al. 2018."""
    return 0.5 + level * (pixels - 0.5)


def compressed(pixels: Tensor, level: float) -> Tensor:
    """Images after JPEG of quality `level` (1 to 95, Pillow's, colours at half the resolution)."""
    found = []
    for image in pixels:
        picture = Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy())
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=int(level), subsampling=2)
        with Image.open(buffer) as read:
            found.append(torch.from_numpy(np.array(read.convert("RGB"))).permute(2, 0, 1))
    return torch.stack(found).to(pixels.dtype) / 255


def coarsened(pixels: Tensor, level: float) -> Tensor:
    """Images reduced to `level` times their sides (means of areas), and enlarged again (bilinear)."""
    height, width = pixels.shape[-2:]
    small = F.adaptive_avg_pool2d(pixels, (max(1, round(level * height)), max(1, round(level * width))))
    return F.interpolate(small, (height, width), mode="bilinear", align_corners=False).clamp(0, 1)


@final
@dataclass(frozen=True)
class Kind:
    """A way in which images get worse: its levels, from mild to strong, and what a level means."""

    name: str
    unit: str
    levels: tuple[float, ...]
    make: Callable[..., Tensor]
    scale: float = 100.0

    def told(self, level: float) -> str:
        """A level as people read it.

        >>> KINDS["contrast"].told(0.3), KINDS["jpeg"].told(10)
        ('contrast 30 %', 'JPEG quality 10')
        """
        return self.unit.replace("#", f"{self.scale * level:g}")


#: the ways that there are; levels are shares of the side, of the range [0, 1], of the contrast, of the resolution, or a quality
KINDS = {
    kind.name: kind
    for kind in (
        Kind("blur", "blur σ # % of the side", (0.005, 0.01, 0.02, 0.04, 0.08), blurred),
        Kind("noise", "noise σ # % of the range", (0.03, 0.06, 0.12, 0.2, 0.35), noisy),
        Kind("contrast", "contrast # %", (0.5, 0.3, 0.15, 0.1, 0.05), faded),
        Kind("jpeg", "JPEG quality #", (80, 40, 20, 10, 5), compressed, 1.0),
        Kind("resolution", "# % of the resolution", (0.5, 0.25, 0.125, 0.0625, 0.03125), coarsened),
    )
}


@final
@dataclass(frozen=True)
class Point:
    """A share right, of `count` images; `level` is None for the images as they are, and for people's conditions."""

    name: str
    level: float | None
    right: Estimate
    count: int


@final
@dataclass(frozen=True, eq=False)
class Worse:
    """A classifier's accuracy over kinds and levels of worse images.

    `curves` holds, for each kind, a point for the images as they are and one for each level (Wilson's intervals of 95 %).
    `right` (kinds, 1 + levels, N) says which of N `images` are right, −1 where a kind has fewer levels. `people` are the
    people's points for the conditions of their votes, `beside` the classifier's on the same images in the same conditions,
    where its images are those that people saw.
    """

    model: str
    images: tuple[str, ...]
    curves: Mapping[str, tuple[Point, ...]]
    right: Tensor
    chance: float
    cost: Cost
    people: tuple[Point, ...] = ()
    beside: tuple[Point, ...] = ()
    notes: tuple[str, ...] = ()

    def table(self) -> list[dict[str, Any]]:
        """Plain rows: who, kind, level, what was shown, accuracy, low, high and count."""
        rows = [("model", kind, point) for kind, points in self.curves.items() for point in points]
        rows += [("people", "condition", point) for point in self.people]
        rows += [("model", "condition", point) for point in self.beside]
        return [
            {
                "who": who,
                "kind": kind,
                "level": point.level,
                "shown": point.name,
                "accuracy": point.right.value,
                "accuracy low": point.right.low,
                "accuracy high": point.right.high,
                "images": point.count,
            }
            for who, kind, point in rows
        ]

    def words(self) -> tuple[str, ...]:
        """What is left of the accuracy, kind by kind, a sentence or two each."""
        clean = next(iter(self.curves.values()))[0]
        said = [
            f"{self.model} is right on {say.shares(clean.right)} of {say.counted(clean.count, 'image')} as they are."
        ]
        for row, points in enumerate(self.curves.values()):
            lost = next((point for level, point in enumerate(points) if self._lost(row, level)), None)
            above = clean.right.value - self.chance
            half = next((point for point in points[1:] if point.right.value - self.chance <= above / 2), None)
            left = f"With {points[-1].name} it is right on {say.shares(points[-1].right)}"
            if lost is None:
                said.append(f"{left}; no level tried costs more than these images can show.")
                continue
            gone = f", and half of what it has above chance is gone at {half.name}" if half else ""
            said.append(f"{left}; the loss is clear from {lost.name} on (exact McNemar test){gone}.")
        for mine, theirs in zip(self.beside, self.people, strict=False):
            said.append(
                f"In the condition {theirs.name} people are right on {say.shares(theirs.right)}, it on {say.shares(mine.right)}."
            )
        return (*said, *(f"Note: {note}." for note in self.notes))

    def _lost(self, row: int, level: int) -> bool:
        """Whether fewer of the same images are right than without the change."""
        before, after = self.right[row, 0], self.right[row, level]
        lost, won = int((before > after).sum()), int((after > before).sum())
        return lost > won and mcnemar(won, lost) < 0.05

    def plot(self) -> Figure:
        """A panel for each kind, people's in one of their own."""
        from seewhy.report.worse import worse

        return worse(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to one open file, see `seewhy.result.save`."""
        save(self, path)

    def _repr_html_(self) -> str:
        return shown(self.plot(), " ".join(self.words()))


def worse(
    net: Classifier,
    data: DataSet,
    labels: Sequence[int | None],
    map: LabelMap | None = None,
    *,
    kinds: Sequence[str] = tuple(KINDS),
    limit: int | None = 500,
    seed: int = 0,
    people: Sequence[Point] = (),
    beside: Sequence[Point] = (),
    progress: Callable[[float, float, str], None] | None = None,
) -> Worse:
    """Measure a classifier's accuracy on images that get worse, kind by kind and level by level.

    `labels` are the images' true categories, None where unknown (left out), and `map` takes the model's classes to them
    (None: they are the same). Pixels are worsened as the model sees them, after its own resizing, in [0, 1]. Of more than
    `limit` images so many are drawn by `seed`. Noise belongs to an image and the seed: the same at every level and in every
    batch. Cost: 1 + levels forward passes an image, summed over the kinds (26 for all).
    """
    chosen = _kinds(kinds)
    known = [index for index, label in enumerate(labels) if label is not None]
    if len(labels) != len(data):
        raise InputError(f"expected a label for each of {len(data)} images, got {len(labels)}")
    if not known:
        raise DataError(f"no image of {data.name} has a true class, so that nothing can be right or wrong")
    notes = []
    if limit is not None and len(known) > limit:
        order = torch.randperm(len(known), generator=generator(seed, "worse"))[:limit].sort().values.tolist()
        notes.append(f"{limit:,} of {len(known):,} images, drawn by the seed {seed}")
        known = [known[index] for index in order]
    depth = 1 + max(len(kind.levels) for kind in chosen)
    parts: list[Tensor] = []
    names: list[str] = []
    unreadable = 0
    with Meter(net.engine.device) as meter:
        for start in range(0, len(known), PART):
            held, truth = [], []
            for index in known[start : start + PART]:
                try:
                    held.append(data.item(index).read(net.preprocess))
                    truth.append(labels[index])
                except DataError:
                    unreadable += 1
            if held:
                images = Images.join(held)
                parts.append(_right(net, images, torch.tensor(truth), map, chosen, depth, seed))
                names += images.names
            if progress is not None:
                progress(start + PART, len(known), "images")
    if not parts:
        raise DataError(f"none of {len(known)} images of {data.name} can be read")
    if unreadable:
        notes.append(f"{say.counted(unreadable, 'image')} could not be read and were left out")
    right = torch.cat(parts, 2)
    curves = {}
    for row, kind in enumerate(chosen):
        points = []
        for column, level in enumerate((None, *kind.levels)):
            count = int(right[row, column].sum())
            told = "the images as they are" if level is None else kind.told(level)
            points.append(Point(told, level, share(count / len(names), len(names)), len(names)))
        curves[kind.name] = tuple(points)
    chance = 1 / (len(map.categories) if map else net.classes)
    return Worse(net.name, tuple(names), curves, right, chance, meter.cost, tuple(people), tuple(beside), tuple(notes))


def _right(
    net: Classifier, images: Images, truth: Tensor, map: LabelMap | None, kinds: Sequence[Kind], depth: int, seed: int
) -> Tensor:
    """Whether each image (kinds, depth, N) is right, int8, −1 where a kind has no such level."""

    def hits(pixels: Tensor) -> Tensor:
        probabilities = net.predict(pixels).softmax(1).cpu()
        if map is not None:
            probabilities = torch.from_numpy(map(probabilities.numpy()))
        return (probabilities.argmax(1) == truth).to(torch.int8)

    found = torch.full((len(kinds), depth, len(images)), -1, dtype=torch.int8)
    found[:, 0] = hits(images.pixels)
    for row, kind in enumerate(kinds):
        more: tuple[Tensor, ...] = ()
        if kind.make is noisy:
            drawn = [
                torch.randn(images.pixels.shape[1:], generator=generator(seed, "worse", "noise", name))
                for name in images.names
            ]
            more = (torch.stack(drawn),)
        for column, level in enumerate(kind.levels, 1):
            found[row, column] = hits(kind.make(images.pixels, level, *more))
    return found


def _kinds(names: Sequence[str]) -> list[Kind]:
    strange = [name for name in names if name not in KINDS]
    if strange:
        raise SpecError(
            f'images get worse by {", ".join(KINDS)}; there is no "{strange[0]}"{nearest(strange[0], KINDS)}'
        )
    if not names:
        raise SpecError(f"expected at least one of {', '.join(KINDS)}, got none")
    return [KINDS[name] for name in dict.fromkeys(names)]
