"""The picture of a classifier's accuracy over worse and worse images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

if TYPE_CHECKING:
    from seewhy.humans.worse import Point, Worse

_MODEL, _PEOPLE, _CHANCE = "#0b62b8", "#c25a00", "#8a8a8a"
_AXES = {
    "blur": "σ in % of the side",
    "noise": "σ in % of the range",
    "contrast": "contrast in %",
    "jpeg": "quality",
    "resolution": "% of the resolution",
}


def worse(found: Worse) -> Figure:
    """A panel for each kind, from mild to strong, with intervals of 95 %; people's conditions in a panel of their own."""
    from seewhy.humans.worse import KINDS

    panels = len(found.curves) + bool(found.people)
    across = min(3, panels)
    down = -(-panels // across)
    figure = Figure(figsize=(3.5 * across, 2.9 * down + 0.5), layout="constrained")
    axes = figure.subplots(down, across, sharey=True, squeeze=False).ravel()
    for axis, (kind, points) in zip(axes, found.curves.items(), strict=False):
        scale = KINDS[kind].scale
        ticks = ["as is" if point.level is None else f"{scale * point.level:g}" for point in points]
        _course(axis, points, _MODEL, found.model)
        _axis(axis, kind, ticks, _AXES[kind], found.chance)
    if found.people:
        axis = axes[len(found.curves)]
        _course(axis, found.people, _PEOPLE, "people")
        if found.beside:
            _course(axis, found.beside, _MODEL, found.model)
        _axis(axis, "as people saw them", [point.name for point in found.people], "condition", found.chance)
        axis.legend(frameon=False, fontsize=8)
    for axis in axes[panels:]:
        axis.set_visible(False)
    for axis in axes[::across]:
        axis.set_ylabel("share right")
    count = next(iter(found.curves.values()))[0].count
    figure.suptitle(f"{found.model} on worse images ({count:,} images, 95 % intervals; dotted: chance)", fontsize=10)
    return figure


def _course(axis: Any, points: tuple[Point, ...], colour: str, label: str) -> None:
    places = range(len(points))
    axis.fill_between(
        places, [p.right.low for p in points], [p.right.high for p in points], color=colour, alpha=0.18, linewidth=0
    )
    axis.plot(places, [point.right.value for point in points], color=colour, marker="o", markersize=3.5, label=label)


def _axis(axis: Any, title: str, ticks: list[str], label: str, chance: float) -> None:
    axis.axhline(chance, color=_CHANCE, linestyle=":", linewidth=1)
    turned = any(len(tick) > 6 for tick in ticks)
    axis.set_xticks(
        range(len(ticks)), ticks, fontsize=8, rotation=40 if turned else 0, ha="right" if turned else "center"
    )
    axis.set_ylim(0, 1)
    axis.set_title(title, fontsize=10)
    axis.set_xlabel(label, fontsize=9)
    axis.grid(axis="y", color="#dddddd", linewidth=0.6)
    axis.set_axisbelow(True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
