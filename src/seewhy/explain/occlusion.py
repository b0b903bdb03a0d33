"""Occlusion: what the score loses when a window of the image is covered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from seewhy.classifier import Classifier
from seewhy.engine import count
from seewhy.errors import InputError, SpecError, UnknownOperation
from seewhy.explain.base import Explainer, Map, Question
from seewhy.explain.baseline import baseline, known
from seewhy.lens.incremental import Batch, Incremental, Spans, Value, checked

#: positions that are computed together, as the lens orders them: more fill the caches, fewer make small products slow
TOGETHER = 32
#: whole maps from which on what is left of the network runs on them, so that they need not be kept
JOINED = 128
#: the share of a dense pass's multiply-adds from which on the dense pass is the faster one
PAYS = 0.9
#: by how much logits may differ from the dense pass's, relative to the largest
TOLERANCE = 1e-4


class Grid(NamedTuple):
    """The corners of one window's positions; the last ones flush with the border."""

    window: int
    rows: list[int]
    columns: list[int]


@dataclass(frozen=True)
class Occlusion(Explainer):
    """The fall of the score under a square window, f_c(x) − f_c(x with the window covered), averaged over the windows on a pixel.

    `window` is its side in pixels, or several (`16+32`), whose maps are averaged; by default a 14th of the image's shorter side,
    at least 4. It moves by `stride`, by default half of it; the last positions are flush with the border, so that every pixel is
    covered. `fill` (black, white, grey, mean, blur, noise) is what covers it; `seed` is that of the noise. Positive where the
    class loses by covering, negative where it gains.
    It is exact: what a window does not change is taken from the clean pass by the incremental lens, checked at two positions
    (`measures["difference from dense passes"]`, relative to the largest logit); where that saves less than a tenth of
    the multiply-adds, or the lens cannot follow the network, dense passes are run, and a note says so.
    `measures["share of dense multiply-adds"]` is what was computed. Any number of targets cost what one costs.

    Values (N, 1, H, W), in logits. Raises `InputError` for a window that is larger than the image, or smaller than the stride.
    Cost: 1 + 2 + one forward pass a position, 729 at 224 × 224 pixels by default; `passes_on` counts them for another size.
    Limits: it sees one region at a time, so what is there twice seems not to matter; the covered image is unlike
    any photograph, and another fill gives another map.
    Source: Zeiler & Fergus 2014, arXiv 1311.2901, section 4.2.

    >>> from torch import nn
    >>> net = Classifier(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)), size=8)
    >>> found = Occlusion(window=(4,), fill="black")(net, torch.rand(1, 3, 8, 8), target=1)
    >>> found.values.shape, found.method
    (torch.Size([1, 1, 8, 8]), 'occlusion:window=4,fill=black')
    """

    window: tuple[int, ...] | None = None
    stride: int | None = None
    fill: str = "grey"
    seed: int = 0

    name = "occlusion"
    shows = "How much the score falls when a window of the image is covered, for every place of the window."
    reading = "Positive: the class rests on what was covered. Negative: what was covered spoke against it. In logits."
    source = "Zeiler & Fergus 2014, arXiv 1311.2901"

    def __post_init__(self) -> None:
        known(self.fill, "fill")
        given: object = self.window
        if isinstance(given, int):  # one number is as good as a tuple of one
            object.__setattr__(self, "window", (given,))
        sides = (1,) if self.window is None else self.window
        if not sides or min(sides) < 1:
            raise SpecError(f"expected windows of at least 1 pixel, got window={'+'.join(map(str, sides)) or 'none'}")
        if self.stride is not None and self.stride < 1:
            raise SpecError(f"expected a stride of at least 1 pixel, got stride={self.stride}")
        if self.stride is not None and self.window is not None and self.stride > min(sides):
            raise SpecError(
                f"expected a stride of at most the window, got stride={self.stride} for window={min(sides)}: pixels between "
                "the windows would never be covered"
            )

    @property
    def passes(self) -> tuple[int, int]:
        if self.window is None and self.stride is None:
            return 3 + 31**2, 0  # whatever the size of a square image
        return self.passes_on((224, 224))

    def passes_on(self, size: tuple[int, int]) -> tuple[int, int]:
        return 3 + sum(len(grid.rows) * len(grid.columns) for grid in self.grids(size, strict=False)), 0

    def grids(self, size: tuple[int, int], *, strict: bool = True) -> list[Grid]:
        """Where the windows go on an image of (height, width); `strict` refuses what cannot be covered so."""
        sides = self.window or (max(4, round(min(size) / 14)),)
        if strict and max(sides) > min(size):
            raise InputError(
                f"expected a window within the image of {size[0]} × {size[1]} pixels, got window={max(sides)}"
            )
        found = []
        for side in sides:
            stride = self.stride or (side + 1) // 2
            if strict and stride > side:
                raise InputError(f"expected a stride of at most the window of {side} pixels, got stride={stride}")
            found.append(Grid(side, *(_positions(length, side, stride) for length in size)))
        return found

    def attribute(self, net: Classifier, pixels: Tensor, question: Question) -> Map:
        return self.attribute_each(net, pixels, [question])[0]

    def attribute_each(self, net: Classifier, pixels: Tensor, questions: Sequence[Question]) -> list[Map]:
        size = (pixels.shape[2], pixels.shape[3])
        grids = self.grids(size)
        fills = baseline(self.fill, pixels, self.seed)
        maps: list[list[Tensor]] = [[] for _ in questions]
        shares, differences, notes = [], [], dict[str, None]()
        for index, (image, fill) in enumerate(zip(pixels.split(1), fills.split(1), strict=True)):
            found = _Covered(net, image, fill, grids).run()
            where = slice(index, index + 1)
            for question, values in zip(questions, maps, strict=True):
                question(found.clean, where)
                target = int(question.target[index])
                drops = [found.clean[0, target] - logits[..., target] for logits in found.logits]
                values.append(
                    torch.stack([_spread(drop, grid, size) for drop, grid in zip(drops, grids, strict=True)]).mean(0)
                )
            shares.append(found.share)
            differences.append(found.difference)
            notes[found.note] = None
        measures = {
            "share of dense multiply-adds": torch.tensor(shares),
            "difference from dense passes": torch.tensor(differences),
        }
        return [Map(torch.stack(values)[:, None], notes=tuple(notes), measures=measures) for values in maps]


def _positions(length: int, side: int, stride: int) -> list[int]:
    """Corners along an axis, the last one flush with the border."""
    last = max(0, length - side)
    return [*range(0, last, stride), last]


def _cover(starts: list[int], side: int, length: int) -> Tensor:
    """1 where a position (row) covers a pixel (column)."""
    pixel = torch.arange(length)
    start = torch.tensor(starts)[:, None]
    return ((pixel >= start) & (pixel < start + side)).float()


def _spread(drops: Tensor, grid: Grid, size: tuple[int, int]) -> Tensor:
    """The mean (H, W) of the drops (rows, columns) over the windows that cover a pixel."""
    rows, columns = (_cover(starts, grid.window, length) for starts, length in zip(grid[1:], size, strict=True))
    return (rows.T @ drops @ columns) / torch.outer(rows.sum(0), columns.sum(0))


@dataclass
class _Found:
    """Logits (1, C) of an image, and (rows, columns, C) of it covered, for each window; and how they were found."""

    clean: Tensor
    logits: list[Tensor]
    share: float
    difference: float
    note: str


class _Covered:
    """One image, covered by every window."""

    def __init__(self, net: Classifier, image: Tensor, fill: Tensor, grids: list[Grid]) -> None:
        self.net, self.image, self.fill, self.grids = (
            net,
            image.to(net.engine.device),
            fill.to(net.engine.device),
            grids,
        )
        height, width = image.shape[2:]
        # windows that the fill leaves as they are change nothing
        differs = (image != fill).any(1)[0].float().cpu()
        self.changes = [
            _cover(grid.rows, grid.window, height) @ differs @ _cover(grid.columns, grid.window, width).T > 0
            for grid in grids
        ]
        lows = [np.concatenate([np.array(grid[axis]) for grid in grids]) for axis in (1, 2)]
        highs = [np.concatenate([np.array(grid[axis]) + grid.window for grid in grids]) for axis in (1, 2)]
        self.rows, self.columns = Spans(lows[0], highs[0], height), Spans(lows[1], highs[1], width)

    def run(self) -> _Found:
        with torch.no_grad():
            if not any(bool(changes.any()) for changes in self.changes):
                clean = self.net.logits(self.image).float().cpu()
                return self._found(clean, [], 0.0, 0.0, "the fill is the image itself: nothing was taken away")
            try:
                return self._incremental()
            except UnknownOperation as error:
                return self._dense(self.net.logits(self.image).float().cpu(), f"in dense passes, because {error}")

    def _incremental(self) -> _Found:
        net, engine = self.net, self.net.engine
        lens = Incremental(net, self.image, self.rows, self.columns)
        clean = lens.clean.cpu()
        batches, start = [], [0, 0]
        for changes in self.changes:
            rows, columns = (
                np.arange(first, first + length) for first, length in zip(start, changes.shape, strict=True)
            )
            for batch in lens.batches(rows, columns, TOGETHER):
                kept = changes.numpy()[batch.rows - start[0], batch.columns - start[1]]
                if kept.any():
                    batches.append(Batch(batch.rows[kept], batch.columns[kept]))
            start = [start[0] + changes.shape[0], start[1] + changes.shape[1]]
        share = sum(map(lens.multiply_adds, batches)) / max(1, lens.dense * sum(map(len, batches)))
        if share > PAYS:
            return self._dense(clean, f"in dense passes: windows would take {share:.0%} of their multiply-adds")
        filled = lens.filled(net.normalise(self.fill))
        difference = self._difference(lens, filled, batches[len(batches) // 2])
        if difference > TOLERANCE:
            return self._dense(clean, f"in dense passes: the lens differed from them by {difference:.0e}", difference)
        engine.measured.setdefault("incremental", TOGETHER)
        joints: list[Tensor] = []
        answers, pairs = [], []
        for batch in batches:
            both = torch.from_numpy(np.stack([batch.rows, batch.columns], 1))

            def run(part: Tensor, _: slice) -> Tensor:
                return lens.windows(filled, Batch(*part.numpy().T.copy()))

            joints.append(engine.map(run, both, "incremental"))
            pairs.append(both)
            count(forward=len(both))
            if batch is batches[-1] or sum(map(len, joints)) >= JOINED:
                answers.append(lens.answer(torch.cat(joints)).float().cpu())
                joints.clear()
        note = f"computed in windows, exactly: {share:.0%} of the multiply-adds of dense passes"
        return self._found(clean, [(torch.cat(pairs), torch.cat(answers))], share, difference, note)

    def _difference(self, lens: Incremental, filled: Value, batch: Batch) -> float:
        """How far two positions are from their dense passes, relative to the largest logit."""
        two = Batch(batch.rows[[0, -1]], batch.columns[[0, -1]])
        ours = checked(lens, filled, two).float()
        dense = self.net.logits(self._images(torch.from_numpy(np.stack([two.rows, two.columns], 1)))).float()
        return float((ours - dense).abs().max() / dense.abs().max().clamp_min(1e-30))

    def _images(self, pairs: Tensor) -> Tensor:
        images = self.image.repeat(len(pairs), 1, 1, 1)
        for image, (row, column) in zip(images, pairs.tolist(), strict=True):
            down = slice(int(self.rows.low[row]), int(self.rows.high[row]))
            right = slice(int(self.columns.low[column]), int(self.columns.high[column]))
            image[:, down, right] = self.fill[0, :, down, right]
        return images

    def _dense(self, clean: Tensor, note: str, difference: float = 0.0) -> _Found:
        def run(part: Tensor, _: slice) -> Tensor:
            return self.net.logits(self._images(part)).float().cpu()

        found, start = [], [0, 0]
        for changes in self.changes:
            pairs = changes.nonzero() + torch.tensor(start)
            if len(pairs):
                found.append((pairs, self.net.engine.map(run, pairs, "forward")))
            start = [start[0] + changes.shape[0], start[1] + changes.shape[1]]
        return self._found(clean, found, 1.0, difference, note)

    def _found(
        self, clean: Tensor, parts: list[tuple[Tensor, Tensor]], share: float, difference: float, note: str
    ) -> _Found:
        """What was computed, put where it belongs; where nothing changes, the clean logits."""
        rows, columns = len(self.rows.low), len(self.columns.low)
        logits = clean.expand(rows, columns, -1).clone()
        for pairs, answers in parts:
            logits[pairs[:, 0], pairs[:, 1]] = answers
        each, start = [], [0, 0]
        for changes in self.changes:
            stop = [start[0] + changes.shape[0], start[1] + changes.shape[1]]
            each.append(logits[start[0] : stop[0], start[1] : stop[1]])
            start = stop
        return _Found(clean, each, share, difference, note)
