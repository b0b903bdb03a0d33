"""Figures of looks that put several layers, classes or images side by side; those of one are in `learned`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from seewhy.errors import InputError
from seewhy.report import drawing, pictures, words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from seewhy.look.before_after import BeforeAfterMaps
    from seewhy.look.exemplars import ExemplarSet
    from seewhy.look.statistics import ActivationStatistics


def units_by_class(found: ExemplarSet, layer: str, count: int, limit: int) -> Figure:
    """How far each class's mean response lies from all images', in deviations: classes down, their best units across."""
    means = found.class_means[layer].numpy()
    there = np.flatnonzero(~np.isnan(means).all(0))
    if not len(there):
        raise InputError("no image had a class, so there are no units by class; label the images")
    score = {label: found.units_of(layer, int(label), count) for label in there}
    clear = sorted((label for label in there if score[label]), key=lambda label: -score[label][0][1])[:limit]
    if not clear:
        raise InputError(f"the units of {layer} answer alike to all images, so no class has units of its own")
    labels = sorted(clear)
    units = list(dict.fromkeys(unit for label in labels for unit, _ in score[label]))
    mean, deviation = (each[layer].numpy()[units, None] for each in (found.mean, found.deviation))
    grid = np.nan_to_num((means[units][:, labels] - mean) / np.where(deviation > 0, deviation, 1)).T
    reach = float(np.abs(grid).max()) or 1.0
    figure = drawing.canvas(min(14.0, 2.4 + 0.27 * len(units)), 1.3 + 0.3 * len(labels))
    axes = figure.add_subplot()
    axes.imshow(np.rint(pictures.white_to(grid / reach, "signed")).astype(np.uint8), aspect="auto")
    axes.set_yticks(range(len(labels)), [found.classes[label] for label in labels], fontsize=8)
    for tick in axes.get_yticklabels():
        tick.set_parse_math(False)
    axes.set_xticks(range(len(units)), [str(unit) for unit in units], fontsize=6, rotation=90)
    axes.set_xlabel(f"units of {layer}: the {count} that answer most to each class", fontsize=8, parse_math=False)
    left = f"; the {len(labels)} clearest of {len(there)} classes" if len(labels) < len(there) else ""
    axes.set_title(f"mean peak of a class, in deviations from all images' (orange above){left}", fontsize=8)
    drawing.bar(figure, axes, "white", reach, "deviations")
    return figure


def statistics(found: ActivationStatistics) -> Figure:
    """For each layer, from shallow to deep: how the units' shares of silence spread, the dead ones, and their means."""
    layers = found.layers
    figure = drawing.canvas(8.6, 1.5 + 0.42 * len(layers))
    left, right = figure.subplots(1, 2, sharey=True)
    rows = np.arange(len(layers))
    for row, layer in enumerate(layers):
        zero, mean = found.zero[layer].numpy(), found.mean[layer].numpy()
        for axes, values in ((left, zero), (right, mean)):
            low, quarter, middle, most, high = np.quantile(values, (0, 0.25, 0.5, 0.75, 1))
            axes.plot((low, high), (row, row), color="#999999", linewidth=1)
            axes.plot((quarter, most), (row, row), color=drawing.BLUE, linewidth=6, solid_capstyle="butt")
            axes.plot(middle, row, "|", color="white", markersize=7)
        dead = float(found.dead[layer].float().mean())
        left.plot(dead, row, "D", color=drawing.ORANGE, markersize=5)
    left.set_xlim(-0.02, 1.02)
    left.set_ylim(len(layers) - 0.5, -0.5)
    names = [f"{layer}\n{len(found.mean[layer])} units" for layer in layers]
    left.set_yticks(rows, names, fontsize=7)
    for tick in left.get_yticklabels():
        tick.set_parse_math(False)
    left.set_xlabel("blue: share of values at zero or below; orange: share of dead units", fontsize=7)
    right.set_xlabel("mean response", fontsize=7)
    right.tick_params(labelsize=7)
    left.tick_params(axis="x", labelsize=7)
    title = f"{words.many(found.count, 'image')}; each bar is the middle half of a layer's units, each line all of them"
    figure.suptitle(title, fontsize=9)
    return figure


def before_after(found: BeforeAfterMaps) -> Figure:
    """Both images, and below each the maps that change most, with their difference, on one scale."""
    count = len(found.channels)
    before, after = found.before.numpy(), found.after.numpy()
    scale = pictures.robust_scale(np.concatenate([before, after]))
    reach = pictures.robust_scale(after - before)
    figure = drawing.canvas(1.35 * (count + 1) + 1.6, 4.9)
    grid = figure.add_gridspec(3, count + 1, width_ratios=(1.25, *[1] * count))
    kept = []
    for row, (said, maps) in enumerate((("before", before), ("after", after), ("after − before", after - before))):
        axes = drawing.bare(figure.add_subplot(grid[row, 0]))
        if row < 2:
            axes.imshow(np.asarray(drawing.photo(found.images, row)))
            axes.set_xlabel(f"{said}: {found.said[row]}", fontsize=8, parse_math=False)
        else:
            growth = [f"{name or 'pixels'} {100 * value:.3g} %" for name, value in found.growth.items()]
            axes.text(0, 1, "relative change\n" + "\n".join(growth), fontsize=7, va="top", parse_math=False)
        line = []
        for column, channel in enumerate(found.channels.tolist()):
            place = drawing.bare(figure.add_subplot(grid[row, column + 1]))
            values = maps[column]
            if row < 2:
                rgb = pictures.map_colours(values / (scale or 1))
            else:
                rgb = pictures.white_to(values / (reach or 1), "signed")
            place.imshow(np.rint(rgb).astype(np.uint8), interpolation="nearest")
            if row == 0:
                place.set_title(f"channel {channel}", fontsize=8)
            line.append(place)
        kept.append(line)
    below = float(min(before.min(), after.min())) < 0
    drawing.bar(figure, kept[0] + kept[1], "layer" if below else "ramp", scale)
    drawing.bar(figure, kept[2], "white", reach)
    figure.suptitle(f"{found.layer}: the channels that change most", fontsize=9).set_parse_math(False)
    return figure
