"""What every figure is drawn with: sheets without axes, colour bars, photographs, colours that can be told apart.

Figures are made by matplotlib without pyplot: nothing global is touched, no window opens, and none has to be closed.
Names are set as they are, never read as formulas.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from seewhy.errors import InputError
from seewhy.report import pictures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from seewhy.data.images import Images

BLUE, ORANGE = "#0b62b8", "#c25a00"

#: colours and dashes of several lines, apart in every common kind of colour blindness
SERIES = (BLUE, ORANGE, "#3a7d44", "#8a3ea8", "#555555", "#b3123f")
DASHES = ("-", "--", "-.", ":")


def canvas(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", dpi=110)


def bare(axes: Axes) -> Axes:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    return axes


def sheet(picture: Image.Image, columns: int, title: str) -> Figure:
    width = 0.55 * columns + 0.6
    figure = canvas(max(width, 4.5), max(width, 4.5) * picture.height / picture.width + 0.5)
    axes = bare(figure.add_subplot())
    axes.imshow(np.asarray(picture), interpolation="nearest")
    axes.set_title(title, fontsize=9, parse_math=False)
    return figure


def legend(axes: Axes) -> None:
    for text in axes.legend(fontsize=7, frameon=False).get_texts():
        text.set_parse_math(False)


def bar(figure: Figure, axes: Axes | list[Axes], kind: str, scale: float, label: str = "") -> None:
    """A colour bar whose colours are those of the picture beside it."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    low = -1.0 if kind in ("signed", "layer", "grey", "white") else 0.0
    strength = np.linspace(low, 1, 256)
    if kind in ("grey", "ramp-grey"):
        rgb = np.repeat((strength[:, None] * 0.5 + 0.5) * 255, 3, axis=1)
    elif kind == "white":
        rgb = pictures.white_to(strength, "signed")
    elif kind in ("ramp", "layer"):
        rgb = pictures.map_colours(strength)
    else:
        mixed, opacity = pictures.colours(strength, "signed" if kind == "signed" else "positive")
        rgb = sum(pictures.GREY) / 2 * (1 - opacity[:, None]) + mixed * opacity[:, None]
    shades = ScalarMappable(Normalize(low * (scale or 1), scale or 1), ListedColormap(rgb / 255))
    bar = figure.colorbar(shades, ax=axes, shrink=0.8, pad=0.03)
    bar.ax.tick_params(labelsize=7)
    if label:
        bar.set_label(label, fontsize=7)


def photo(images: Images, index: int) -> Image.Image:
    """What the model saw, stretched back to the shape that it has on the original photograph, at a good size."""
    picture = pictures.to_picture(images.pixels[index].numpy())
    geometry = images.geometry[index]
    width, height = picture.size
    if geometry is not None:
        left, top, right, bottom = geometry.box
        if right > left and bottom > top:
            height = max(1, round(width * (bottom - top) / (right - left)))
    times = max(1.0, 320 / max(width, height))
    size = (max(1, round(width * times)), max(1, round(height * times)))
    way = Image.Resampling.NEAREST if times >= 3 else Image.Resampling.BICUBIC
    return picture.resize(size, way)


def inside(indices: Sequence[int], count: int) -> None:
    for index in indices:
        if not 0 <= index < count:
            raise InputError(f"expected an image from 0 to {count - 1}, got {index}")
    if not indices:
        raise InputError("expected at least one image to draw, got none")
