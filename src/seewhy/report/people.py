"""Figures of a network beside people: who is right, what is taken for what, who doubts where; the `plot()` of an agreement."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from seewhy.humans.estimate import Estimate
from seewhy.report import pictures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from seewhy.humans.accuracy import Part
    from seewhy.humans.agreement import Agreement
    from seewhy.humans.coverage import Curve

_NETWORK, _PEOPLE, _GREY, _BOTH = "#0b62b8", "#c25a00", "#8a8a8a", "#3a7d44"

#: rows, and sides of matrices, up to which everything is named
_ROWS, _SIDE = 24, 20


def overview(found: Agreement) -> Figure:
    """The main findings: accuracies, κ, calibration, abstaining, and both together, with the verdict above."""
    figure = _figure(11.5, 7.4)
    figure.suptitle(found.verdict.headline, fontsize=9, wrap=True).set_parse_math(False)
    draws: tuple[Callable[[Axes, Agreement], None], ...] = (
        _observers,
        _consistency,
        _reliability,
        _abstaining,
        _deferring,
        _classes,
    )
    for place, drawn in enumerate(draws):
        drawn(figure.add_subplot(2, 3, place + 1), found)
    return figure


def observers(found: Agreement) -> Figure:
    """The accuracy of the network, the mean annotator, the majority and each annotator, with intervals."""
    people = min(sum(each.kind == "annotator" for each in found.rates.observers), _ROWS)
    return _single(_observers, found, 6.2, 1.9 + 0.2 * people)


def classes(found: Agreement) -> Figure:
    """The recall of each class, network and mean annotator, with intervals; where there are many, those that differ most."""
    return _single(_classes, found, 6.2, 1.6 + 0.28 * min(len(found.rates.classes), _ROWS))


def conditions(found: Agreement) -> Figure:
    """Accuracy over the conditions in their order, network and mean annotator, with intervals."""
    return _single(_conditions, found, 6.2, 3.6)


def confusions(found: Agreement) -> Figure:
    """The network's confusions, the people's, and the difference: rows are true classes, columns answers."""
    held = found.confusion
    size = len(held.classes)
    figure = _figure(13.0, 5.0)
    named = size <= _SIDE
    panels: tuple[tuple[str, Any], ...] = (
        (found.model, held.network),
        ("people, votes shared out", held.people),
        ("network less people", held.difference),
    )
    for place, (title, matrix) in enumerate(panels):
        axes = figure.add_subplot(1, 3, place + 1)
        last = place == 2
        values = np.nan_to_num(matrix)
        scale = max(float(abs(values).max()), 1e-9) if last else 1.0
        shown = values / scale if last else np.sqrt(values)  # small shares are what one looks for
        colours = np.rint(pictures.white_to(shown, "signed" if last else "positive")).astype(np.uint8)
        axes.imshow(colours, aspect="auto")
        axes.set_title(title, fontsize=9, parse_math=False)
        axes.set_xlabel("answer", fontsize=8)
        if place == 0:
            axes.set_ylabel("true class", fontsize=8)
        if named:
            labels = [_short(name) for name in held.classes]
            axes.set_xticks(range(size), labels, fontsize=7, rotation=50, ha="right", rotation_mode="anchor")
            axes.set_yticks(range(size), labels if place == 0 else [""] * size, fontsize=7)
            _numbers(axes, matrix, colours, signed=last)
    figure.supxlabel(
        "percent of the images of a true class; colours of the first two go with the root of the share, "
        "those of the difference from blue (people more) to orange (network more)",
        fontsize=7.5,
    )
    return figure


def consistency(found: Agreement) -> Figure:
    """Error consistency of people with people and of the network with people, with the network's κ with each annotator."""
    return _single(_consistency, found, 6.2, 2.4)


def reliability(found: Agreement) -> Figure:
    """Confidence against what came of it, for the network and for people."""
    return _single(_reliability, found, 4.6, 4.4)


def abstaining(found: Agreement) -> Figure:
    """Accuracy over the share of images answered, the surest first."""
    return _single(_abstaining, found, 5.6, 4.2)


def deferring(found: Agreement) -> Figure:
    """Accuracy of the network with people for the images that it is least sure of."""
    return _single(_deferring, found, 5.6, 4.2)


def _single(drawn: Callable[[Axes, Agreement], None], found: Agreement, width: float, height: float) -> Figure:
    figure = _figure(width, height)
    drawn(figure.add_subplot(), found)
    return figure


def _observers(axes: Axes, found: Agreement) -> None:
    annotators = sorted(
        (each for each in found.rates.observers if each.kind == "annotator"), key=lambda each: -each.accuracy.value
    )
    step = -(-len(annotators) // _ROWS) if annotators else 1
    shown = [*(each for each in found.rates.observers if each.kind != "annotator"), *annotators[::step]]
    colours = {"network": _NETWORK, "mean annotator": _PEOPLE, "majority": _PEOPLE, "annotator": _GREY}
    for row, each in enumerate(shown):
        _bar(axes, row, each.accuracy, colours[each.kind], "o" if each.kind != "majority" else "D")
    _names(axes, [each.name for each in shown])
    axes.axvline(found.rates.main.network.value, color=_NETWORK, linewidth=0.7, linestyle=":")
    axes.set_title("accuracy" + (f", every {step}th annotator" if step > 1 else ""), fontsize=9)
    _percent(axes.xaxis)


def _consistency(axes: Axes, found: Agreement) -> None:
    held = found.consistency
    rows = [("people with people", held.people, _PEOPLE), ("network with people", held.network, _NETWORK)]
    for row, (_, each, colour) in enumerate(rows):
        if each.known:
            _bar(axes, row, each, colour, "o")
    each_one = np.array([value for value in held.each if np.isfinite(value)])
    if len(each_one) > 1:
        axes.plot(each_one, np.full(len(each_one), 1.0) + 0.16, "|", color=_NETWORK, markersize=7)
    axes.axvline(0, color="#555555", linewidth=0.8)
    _names(axes, [name for name, _, _ in rows])
    axes.set_ylim(1.6, -0.6)
    axes.set_title("error consistency κ" + ("; marks: each annotator" if len(each_one) > 1 else ""), fontsize=9)
    if not held.people.known and not held.network.known:
        axes.text(0.5, 0.5, "not defined", transform=axes.transAxes, ha="center", fontsize=8)


def _reliability(axes: Axes, found: Agreement) -> None:
    axes.plot([0, 1], [0, 1], color="#555555", linewidth=0.8, linestyle=":")
    looks = {"network": (_NETWORK, "o"), "people": (_PEOPLE, "D")}
    for each in found.calibration:
        if each.who not in looks:
            continue
        colour, mark = looks[each.who]
        across = [part.confidence for part in each.bins]
        _line(
            axes, across, [part.accuracy for part in each.bins], colour, mark, f"{each.who}: ECE {each.width.value:.3f}"
        )
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel("confidence: probability, or share of votes", fontsize=8)
    axes.set_title("share right, by confidence", fontsize=9)
    _percent(axes.xaxis)
    _percent(axes.yaxis)
    _legend(axes)


def _abstaining(axes: Axes, found: Agreement) -> None:
    _curves(axes, found.coverage.abstain, (_NETWORK, _PEOPLE, _BOTH))
    axes.set_xlabel("share answered, the surest first", fontsize=8)
    axes.set_title("accuracy where the rest is left out", fontsize=9)


def _deferring(axes: Axes, found: Agreement) -> None:
    _curves(axes, found.coverage.deferred, (_BOTH, _PEOPLE))
    axes.set_xlabel("share answered by the network, the surest first", fontsize=8)
    axes.set_title("accuracy where people answer the rest", fontsize=9)


def _classes(axes: Axes, found: Agreement) -> None:
    parts = [part for part in found.rates.classes if part.images]
    chosen = sorted(parts, key=lambda part: -abs(part.difference.value))[:_ROWS]
    _dumbbells(axes, [part for part in parts if part in chosen])
    more = f", the {_ROWS} of {len(parts)} that differ most" if len(parts) > _ROWS else ""
    axes.set_title(f"recall by class{more}", fontsize=9)


def _conditions(axes: Axes, found: Agreement) -> None:
    parts = found.rates.conditions
    axes.set_title("accuracy by condition", fontsize=9)
    if not parts:
        axes.text(0.5, 0.5, "one condition only", transform=axes.transAxes, ha="center", fontsize=8)
        return
    across = list(range(len(parts)))
    _line(axes, across, [part.network for part in parts], _NETWORK, "o", "network")
    _line(axes, across, [part.people for part in parts], _PEOPLE, "D", "mean annotator")
    axes.set_xticks(across, [_short(part.name) for part in parts], fontsize=7, rotation=30, ha="right")
    for tick in axes.get_xticklabels():
        tick.set_parse_math(False)
    _percent(axes.yaxis)
    _legend(axes)


def _dumbbells(axes: Axes, parts: Sequence[Part]) -> None:
    for row, part in enumerate(parts):
        _bar(axes, row - 0.14, part.network, _NETWORK, "o")
        _bar(axes, row + 0.14, part.people, _PEOPLE, "D")
    _names(axes, [part.name for part in parts])
    axes.plot([], [], "o-", color=_NETWORK, markersize=4, label="network")
    axes.plot([], [], "D-", color=_PEOPLE, markersize=4, label="mean annotator")
    _percent(axes.xaxis)
    axes.legend(fontsize=7, frameon=False, ncols=2, loc="upper center", bbox_to_anchor=(0.45, -0.05))


def _curves(axes: Axes, curves: Sequence[Curve], colours: Sequence[str]) -> None:
    for curve, colour, dash in zip(curves, colours, ("-", "--", "-."), strict=False):
        values = [each.value for each in curve.accuracy]
        axes.plot(curve.coverage, values, dash, color=colour, label=curve.name, linewidth=1.4)
        axes.fill_between(
            curve.coverage,
            [each.low for each in curve.accuracy],
            [each.high for each in curve.accuracy],
            color=colour,
            alpha=0.15,
            linewidth=0,
        )
    axes.set_xlim(0, 1.01)
    _percent(axes.xaxis)
    _percent(axes.yaxis)
    _legend(axes)


def _line(axes: Axes, across: Sequence[float], values: Sequence[Estimate], colour: str, mark: str, label: str) -> None:
    middle = [each.value for each in values]
    sides = [[each.value - each.low for each in values], [each.high - each.value for each in values]]
    axes.errorbar(
        across,
        middle,
        yerr=np.maximum(sides, 0),
        color=colour,
        marker=mark,
        markersize=4,
        linewidth=1.2,
        capsize=2,
        label=label,
    )


def _bar(axes: Axes, row: float, each: Estimate, colour: str, mark: str) -> None:
    if each.bounded:
        axes.plot([each.low, each.high], [row, row], color=colour, linewidth=1.6, solid_capstyle="butt")
    axes.plot([each.value], [row], mark, color=colour, markersize=4.5)


def _names(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), [_short(name) for name in names], fontsize=7)
    for tick in axes.get_yticklabels():
        tick.set_parse_math(False)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="x", labelsize=7)
    axes.grid(axis="x", color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)


def _numbers(axes: Axes, matrix: Any, colours: Any, *, signed: bool) -> None:
    """Percent in each cell that rounds to something, on its colour."""
    for row, column in np.argwhere(np.rint(100 * np.nan_to_num(matrix))).tolist():
        value = 100 * matrix[row, column]
        text = (f"{value:+.0f}" if signed else f"{value:.0f}").replace("-", "−")
        ink = pictures.ink(colours[row, column])
        axes.text(column, row, text, ha="center", va="center", fontsize=6, color=ink)


def _percent(axis: Any) -> None:
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    axis.set_major_locator(MaxNLocator(5))
    axis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    axis.set_tick_params(labelsize=7)


def _legend(axes: Axes) -> None:
    axes.legend(fontsize=7, frameon=False)


def _short(name: str, most: int = 26) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure as Drawn

    return Drawn(figsize=(width, height), dpi=110, layout="constrained")
