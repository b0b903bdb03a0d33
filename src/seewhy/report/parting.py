"""Figures of where people and a network part."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from seewhy.report import drawing, pictures, words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from seewhy.humans.gallery import Case, Gallery
    from seewhy.humans.parting import Parting
    from seewhy.humans.performance import Performance

#: classes that are named at most
MOST = 40


def effects(found: Parting) -> Figure:
    """What goes with each set: a plot a set, the properties' AUC with their intervals, clear ones filled."""
    from seewhy.humans.parting import SETS

    groups = list(dict.fromkeys(each.group for each in found.effects))
    if not groups:
        return _counts(found)
    names = list(dict.fromkeys(each.measure for each in found.effects))
    figure = drawing.canvas(1.6 + 2.7 * len(groups), 1.3 + 0.32 * len(names))
    for column, group in enumerate(groups):
        axes = figure.add_subplot(1, len(groups), column + 1)
        axes.axvline(0.5, color="0.6", linewidth=1)
        held = {each.measure: each for each in found.effects if each.group == group}
        for row, name in enumerate(names):
            each = held.get(name)
            if each is None:
                continue
            colour = drawing.SERIES[column % len(drawing.SERIES)]
            axes.plot(each.interval, (row, row), color=colour, linewidth=1.6)
            axes.plot(each.auc, row, "o", color=colour, markerfacecolor=colour if each.clear else "white", markersize=5)
        axes.set_xlim(0, 1)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_yticks(range(len(names)), names if column == 0 else [""] * len(names), fontsize=8)
        axes.tick_params(labelsize=8)
        size = next(each.images for each in found.effects if each.group == group)
        title = f"{SETS[group].format(model=found.model)}\n{words.many(size, 'image')}"
        axes.set_title(title, fontsize=8, parse_math=False, wrap=True)
    text = "chance that an image has more of it than one that both get right, of the same class; filled: told from ½"
    figure.supxlabel(text, fontsize=8)
    return figure


def _counts(found: Parting) -> Figure:
    from seewhy.humans.parting import SETS

    rows = found.rows()
    figure = drawing.canvas(6.4, 2.6)
    axes = figure.add_subplot()
    shares = [row["share"] for row in rows]
    axes.barh(range(len(rows)), shares, color=drawing.BLUE)
    labels = [f"{SETS[row['set']].format(model=found.model)}: {row['images']:,}" for row in rows]
    axes.set_yticks(range(len(rows)), labels, fontsize=8)
    for tick in axes.get_yticklabels():
        tick.set_parse_math(False)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of the images", fontsize=8)
    axes.tick_params(labelsize=8)
    return figure


def performance(found: Performance) -> Figure:
    """Each class's recall and precision with their intervals, and the confusion matrix in shares of the true class."""
    kept = [each for each in found.classes if each.images or each.answers][:MOST]
    figure = drawing.canvas(11, 1.6 + 0.3 * max(len(kept), 6))
    left, right = figure.add_subplot(1, 2, 1), figure.add_subplot(1, 2, 2)
    for row, each in enumerate(kept):
        for shift, part, colour, label in (
            (-0.14, each.recall, drawing.BLUE, "recall"),
            (0.14, each.precision, drawing.ORANGE, "precision"),
        ):
            if part.known:
                left.plot((part.low, part.high), (row + shift,) * 2, color=colour, linewidth=1.6)
                left.plot(part.value, row + shift, "o", color=colour, markersize=4, label=label if row == 0 else None)
    left.set_yticks(range(len(kept)), [f"{each.name} ({each.images:,})" for each in kept], fontsize=8)
    for tick in left.get_yticklabels():
        tick.set_parse_math(False)
    left.set_xlim(0, 1)
    left.set_ylim(len(kept) - 0.5, -0.5)
    left.tick_params(axis="x", labelsize=8)
    if kept and left.get_legend_handles_labels()[0]:
        left.legend(fontsize=8, frameon=False)
    shares = found.confusion / np.maximum(found.confusion.sum(1, keepdims=True), 1)
    colours = np.rint(pictures.white_to(shares, "absolute")).astype(np.uint8)
    right.imshow(colours, aspect="auto")
    names = [each.name for each in found.classes]
    if len(names) <= MOST:
        for set_ticks, turn in ((right.set_xticks, 40), (right.set_yticks, 0)):
            for text in set_ticks(range(len(names)), names, fontsize=7, rotation=turn):
                text.label1.set_parse_math(False)
        for row, column in np.argwhere(shares >= 0.005):
            ink = pictures.ink(colours[row, column])
            right.text(column, row, f"{100 * shares[row, column]:.0f}", ha="center", va="center", fontsize=7, color=ink)
    right.set_title("answers, in per cent of each true class (rows)", fontsize=8)
    balanced, accuracy = (f"{100 * each.value:.1f} %" for each in (found.balanced, found.accuracy))
    title = (
        f"{found.model} on {found.images:,} images of {found.data}: balanced accuracy {balanced}, accuracy {accuracy}"
    )
    figure.suptitle(title, fontsize=9).set_parse_math(False)
    return figure


def gallery(found: Gallery) -> Figure:
    """A row a case: the photograph, an explanation of each class, and votes beside probabilities."""
    maps = max(map(len, found.explanations))
    figure = drawing.canvas(2.1 * (1 + maps) + 3.4, 2.25 * len(found))
    grid = figure.add_gridspec(len(found), 2 + maps, width_ratios=[1] * (1 + maps) + [1.5])
    for row, case in enumerate(found.cases):
        photo = drawing.photo(found.images, row)
        axes = drawing.bare(figure.add_subplot(grid[row, 0]))
        axes.imshow(np.asarray(photo))
        axes.set_title(f"{case.image}\ntruly {case.truth}", fontsize=8, parse_math=False)
        axes.set_ylabel(case.group, fontsize=8)
        for column, each in enumerate(found.explanations[row], 1):
            axes = drawing.bare(figure.add_subplot(grid[row, column]))
            laid = pictures.overlay(
                photo, each.heatmap(size=(each.values.shape[2], each.values.shape[3]))[0].numpy(), each.sign
            )
            axes.imshow(np.asarray(laid.picture))
            axes.set_title(f"{words.title(each.method)}\n{each.labels[0]}", fontsize=8, parse_math=False)
            axes.set_xlabel(f"up to {words.figure(laid.scale)}", fontsize=7)
        bars(figure.add_subplot(grid[row, 1 + maps]), case, found.model)
    handles, names = figure.axes[-1].get_legend_handles_labels()
    for text in figure.legend(
        handles, names, fontsize=8, frameon=False, ncols=2, loc="outside upper right"
    ).get_texts():
        text.set_parse_math(False)
    return figure


def bars(axes: Axes, case: Case, model: str) -> None:
    """People's votes and the network's probabilities, class by class."""
    places = np.arange(len(case.votes))
    axes.barh(places - 0.2, [share for _, share in case.votes], 0.38, color=drawing.BLUE, label="people")
    axes.barh(places + 0.2, [chance for _, chance in case.chances], 0.38, color=drawing.ORANGE, label=model)
    names = [f"{name} ✓" if name == case.truth else name for name, _ in case.votes]
    axes.set_yticks(places, names, fontsize=8)
    for tick in axes.get_yticklabels():
        tick.set_parse_math(False)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.tick_params(axis="x", labelsize=7)
