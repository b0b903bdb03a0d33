"""Figures of what a network learned: filters, maps, exemplars, optimised images, units."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from seewhy.report import drawing, pictures, words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from seewhy.data.images import Images
    from seewhy.look.activations import ActivationMaps
    from seewhy.look.exemplars import ExemplarSet
    from seewhy.look.filters import FilterGrid
    from seewhy.look.maximize import Maximized
    from seewhy.look.units import NamedUnits


def filters(grid: FilterGrid) -> Figure:
    """The filters side by side on one scale, which its bar says, with their numbers where there is room; dead ones marked."""
    tiles = pictures.filter_tiles(grid.tiles.numpy(), grid.scale, 60)
    columns = min(16, len(tiles))
    numbers, dead = grid.numbers.tolist(), set(grid.dead.tolist())
    noun = "slices of filters" if grid.view == "slices" and grid.weights.shape[1] > 1 else "filters"
    shown = f"{len(tiles)} {noun}" if len(tiles) > 1 else "1 filter"
    left = "" if len(set(numbers)) == len(grid.norms) else f", of {len(grid.norms)}"
    figure = drawing.sheet(pictures.montage(tiles, columns, 14), columns, f"{grid.layer}: {shown}{left}")
    axes = figure.axes[0]
    step = (tiles[0].width + 14, tiles[0].height + 14)
    for place, number in enumerate(numbers):
        x, y = place % columns * step[0] + tiles[0].width / 2, place // columns * step[1] + tiles[0].height + 2
        colour = drawing.ORANGE if number in dead else "#555555"
        said = f"{number} dead" if number in dead else str(number)
        axes.text(x, y, said, fontsize=5, ha="center", va="top", color=colour)
    said = "colour" if grid.view == "colour" else "weight" if grid.view == "slices" else "norm over the inputs"
    drawing.bar(figure, axes, "ramp-grey" if grid.view == "norm" else "grey", grid.scale, said)
    return figure


def activations(maps: ActivationMaps, index: int, over: bool = False) -> Figure:
    """The image and the maps that respond most to it, or with `over` those laid over it, all on the colour bar's scale."""
    drawing.inside([index], len(maps.maps))
    values = maps.maps[index].numpy()
    scale = pictures.robust_scale(values)
    below = float(values.min()) < 0
    if over:
        photo = pictures.fitted(drawing.photo(maps.images, index), 160)
        tiles = [pictures.overlay(photo, each, "signed" if below else "positive", scale).picture for each in values]
    else:
        tiles = pictures.map_tiles(values, scale, 112)
    columns = 4 if len(tiles) <= 16 else math.ceil(math.sqrt(len(tiles)))
    figure = drawing.canvas(8.2, 4.4)
    left = drawing.bare(figure.add_subplot(1, 2, 1))
    left.imshow(np.asarray(drawing.photo(maps.images, index)))
    left.set_title(maps.images.names[index], parse_math=False)
    right = drawing.bare(figure.add_subplot(1, 2, 2))
    right.imshow(np.asarray(pictures.montage(tiles, columns, 5)))
    channels = words.some([str(channel) for channel in maps.channels[index].tolist()], 8)
    right.set_title(f"{maps.layer}: channels {channels}", fontsize=9, parse_math=False)
    kind = ("signed" if below else "positive") if over else ("layer" if below else "ramp")
    drawing.bar(figure, right, kind, scale)
    right.set_xlabel(f"{words.percent(float(maps.zero[index]))} of all values at or below zero", fontsize=8)
    return figure


def exemplars(found: ExemplarSet, layer: str) -> Figure:
    """The drawn units of a layer, one a row: the windows that excite it most, the best on the left, and its histogram."""
    units, crops = found.drawn[layer].tolist(), None if found.crops is None else found.crops[layer].numpy()
    shown = found.values[layer].shape[1]
    figure = drawing.canvas(8.6, 0.95 * len(units) + 0.7)
    grid = figure.add_gridspec(len(units), 2, width_ratios=(max(4, min(shown, 9)), 2.6))
    figure.suptitle(f"{layer}: {len(units)} of {len(found.values[layer])} units", fontsize=10, parse_math=False)
    for row, unit in enumerate(units):
        left = drawing.bare(figure.add_subplot(grid[row, 0]))
        if crops is None:
            names = [found.name(image) for image in found.images[layer][unit].tolist() if image >= 0]
            left.text(0.02, 0.5, words.some(names, 4), va="center", fontsize=7, wrap=True, parse_math=False)
        else:
            tiles = [Image.fromarray(crop.transpose(1, 2, 0)) for crop in crops[row]]
            left.imshow(np.asarray(pictures.montage(tiles, shown, 4)), interpolation="bilinear")
        left.set_ylabel(f"unit {unit}", fontsize=8)
        classes = found.classes_of(layer, unit)
        if classes:
            pure = words.percent(float(found.purity[layer][unit]))
            said = words.some([f"{name} {count}" for name, count, _ in classes], 4)
            left.set_xlabel(f"{said} · {pure} of one class", fontsize=7, parse_math=False)
        right = figure.add_subplot(grid[row, 1])
        _peaks(right, found, layer, unit)
    return figure


def _peaks(axes: Axes, found: ExemplarSet, layer: str, unit: int) -> None:
    """How often a unit's peak in an image is how strong, and where the exemplars lie."""
    edges, counts = found.edges.numpy(), found.histogram[layer][unit].numpy().astype(float)
    there = counts.nonzero()[0]
    axes.tick_params(labelsize=6)
    axes.set_yticks([])
    axes.set_xlabel("peak of an image", fontsize=6, labelpad=1)
    best = [value for value in found.values[layer][unit].tolist() if np.isfinite(value)]
    if not len(there) or not best:
        return
    # bins grow with the value, and are drawn equally wide: a bar's height is the number of images
    first, last = int(there[0]), int(there[-1]) + 1
    axes.stairs(counts[first:last], np.arange(first, last + 1), fill=True, color=drawing.BLUE)
    for place in np.interp(best, edges, np.arange(len(edges))):
        axes.axvline(place, 0, 0.18, color=drawing.ORANGE, linewidth=1)
    ticks = _round_values(float(edges[first]), float(edges[last]), (last - first) / 5, edges)
    axes.set_xticks(np.interp(ticks, edges, np.arange(len(edges))), [f"{tick:.6g}".replace("-", "−") for tick in ticks])


def _round_values(low: float, high: float, apart: float, edges: pictures.Array) -> list[float]:
    """A few round values between two, at least so many bins apart, on an axis whose bins have these edges."""
    places = np.arange(len(edges))
    kept: list[float] = []
    # the roundest are set first: zero, powers of ten, then fives, twos and others, the largest before the smaller
    for digit in (0, 1, 5, 2, 3, 7, 1.5):
        sizes = [digit * 10.0**power for power in range(5, -5, -1)] if digit else [0.0]
        for value in (sign * size for size in sizes for sign in ((1, -1) if size else (1,))):
            near = np.abs(np.interp(kept, edges, places) - np.interp(value, edges, places)) if kept else np.array([])
            if low <= value <= high and (not len(near) or near.min() >= apart):
                kept.append(value)
    return sorted(kept)


def maximized(found: Maximized, limit: int = 36) -> Figure:
    """The optimised images: with those of the way before them where there are few, else side by side."""
    count = min(len(found.images), limit)
    way = len(found.snapshots) if count <= 6 else 0
    columns = way + 1 if way else min(6, count)
    lines = count if way else -(-count // columns)
    figure = drawing.canvas(1.75 * columns + 0.4, 2.15 * lines + 0.3)
    for row in range(count):
        shown = [(found.snapshots[step, row], f"step {int(found.steps[step])}") for step in range(way)]
        for column, (pixels, below) in enumerate([*shown, (found.images.pixels[row], _said(found, row))]):
            place = row * columns + column if way else row
            axes = drawing.bare(figure.add_subplot(lines, columns, place + 1))
            axes.imshow(np.asarray(pictures.to_picture(pixels.numpy())))
            if column == way:
                axes.set_title(found.images.names[row], fontsize=8, parse_math=False, wrap=True)
            axes.set_xlabel(below, fontsize=7, parse_math=False)
    left = f"; {count} of {len(found.images)} images" if count < len(found.images) else ""
    figure.suptitle(f"{found.objective}{left}", fontsize=9, wrap=True).set_parse_math(False)
    return figure


def _said(found: Maximized, row: int) -> str:
    """The value reached, or what the model says of an image of a class."""
    index = int(found.wanted[row])
    if index < 0:
        return f"{words.figure(float(found.start[row]))} → {words.figure(float(found.scores[row]))}"
    said = found.probabilities[row]
    best = int(said.argmax())
    own = f"{words.percent(float(said[index]))}" + ("" if best == index else f"; rather {found.labels[best]}")
    others = [
        f"{name}: {_percent(float(found.others_probability[place, row]))}" for place, name in enumerate(found.others)
    ]
    return "\n".join([own, *others])


def _percent(probability: float) -> str:
    return "no such class" if math.isnan(probability) else words.percent(probability)


def pairs(images: Images, others: torch.Tensor, title: str, said: Sequence[str], limit: int = 6) -> Figure:
    """Each photograph beside what was made of it, with what is said of that."""
    rows = min(len(images), limit)
    figure = drawing.canvas(5.4, 2.75 * rows + 0.3)
    for row in range(rows):
        for column, pixels in enumerate((images.pixels[row], others[row])):
            axes = drawing.bare(figure.add_subplot(rows, 2, 2 * row + column + 1))
            axes.imshow(np.asarray(pictures.to_picture(pixels.numpy())))
            axes.set_xlabel(said[row] if column else images.names[row], fontsize=8, parse_math=False)
    left = f"; {rows} of {len(images)} images" if rows < len(images) else ""
    figure.suptitle(f"{title}{left}", fontsize=9, wrap=True).set_parse_math(False)
    return figure


def units(found: NamedUnits) -> Figure:
    """Every unit's class selectivity, sorted, over what labels drawn by lot reach; with masks, the best overlaps beside it."""
    rows = len(found.drawn)
    figure = drawing.canvas(8.6, 4.2 + 0.95 * rows)
    grid = figure.add_gridspec(1 + rows, 2, height_ratios=(4.2, *[0.95] * rows))
    left = figure.add_subplot(grid[0, :] if found.iou is None else grid[0, 0])
    order = found.selectivity.argsort(descending=True)
    across = np.arange(len(order))
    left.fill_between(
        across, found.floor[order].numpy(), color="#cccccc", step="mid", label="95 % of random labellings"
    )
    left.step(across, found.selectivity[order].numpy(), where="mid", color=drawing.BLUE, label="selectivity")
    left.set_xlabel(f"{len(order)} units of {found.layer}, the most selective first", fontsize=8, parse_math=False)
    left.set_ylabel("class selectivity", fontsize=8)
    left.set_ylim(0, 1.02)
    drawing.legend(left)
    above = [unit for unit in order.tolist() if found.selectivity[unit] > found.floor[unit]]
    names = [f"{unit}: {found.classes[int(found.best[unit])]}" for unit in above]
    left.set_title(words.some(names, 3) if names else "no unit is above its floor", fontsize=8, parse_math=False)
    if found.iou is not None:
        right = figure.add_subplot(grid[0, 1])
        best = found.iou.max(1)
        shown = best.values.argsort(descending=True)[:12].tolist()
        right.barh(np.arange(len(shown)), best.values[shown].numpy(), color=drawing.ORANGE)
        labels = [f"{unit}: {found.concepts[int(best.indices[unit])]}" for unit in shown]
        right.set_yticks(np.arange(len(shown)), labels, fontsize=8)
        for tick in right.get_yticklabels():
            tick.set_parse_math(False)
        right.invert_yaxis()
        right.axvline(found.least, color="#555555", linestyle="--", linewidth=1)
        right.set_xlabel("IoU of the unit's strongest places with a concept", fontsize=8)
        for row, unit in enumerate(found.drawn.tolist()):
            line = drawing.bare(figure.add_subplot(grid[1 + row, :]))
            tiles = [Image.fromarray(each.transpose(1, 2, 0)) for each in found.sheet[row].numpy()]
            line.imshow(np.asarray(pictures.montage(tiles, len(tiles), 4)), interpolation="bilinear")
            name = f"unit {unit}: {found.concepts[int(best.indices[unit])]}\nIoU {float(best.values[unit]):.2f}"
            line.set_ylabel(name, fontsize=8, rotation=0, ha="right", va="center", parse_math=False)
    return figure
