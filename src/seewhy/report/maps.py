"""The map of codes as figures: its points with some thumbnails on them, and its thumbnails on a grid."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from seewhy.errors import InputError
from seewhy.look.grid import arrange
from seewhy.report import drawing, words
from seewhy.report.pictures import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from seewhy.look.embed import MappedCodes, PlacedCodes

#: colours of categories on white, and on black: ten, and then what is left together (after Petroff 2021, arXiv 2107.02270,
#: darkened and lightened until each stands out 3 : 1 against its ground)
LIGHT = ("#2f6fb5", "#b86e00", "#bd1f01", "#6f7f7d", "#832db6", "#a0584a", "#d95c00", "#857a2c", "#4c4f5e", "#00878f")
DARK = ("#5aa6ee", "#ffa90e", "#ff6a4d", "#a9b8b6", "#c07be8", "#cf917f", "#ff8a3d", "#c9bf7c", "#8f93a6", "#92dadd")
REST_LIGHT, REST_DARK = "#8a8f96", "#7d838b"

#: what an image is coloured by
COLOURS = ("class", "prediction", "error")

#: categories with a colour of their own
MOST = len(LIGHT)


def categories(found: MappedCodes, colour: str) -> tuple[Tensor, tuple[str, ...], tuple[str, ...]]:
    """The category (N,) of each image, the categories' names and their colours on white; the last may be "other …".

    Where there are more classes than colours, the most frequent have one. Raises `InputError` for a colour that is none.
    """
    if colour not in COLOURS:
        raise InputError(f'expected the colour to be one of {", ".join(COLOURS)}, got "{colour}"')
    if colour == "error":
        kind = torch.tensor([2, 0, 1])[found.wrong + 1]
        told = 3 if bool((kind == 2).any()) else 2
        return kind, ("right", "wrong", "not known")[:told], (LIGHT[0], LIGHT[6], REST_LIGHT)[:told]
    index, labels = (found.labels, found.classes) if colour == "class" else (found.predictions, found.outputs)
    counts = torch.bincount(index[index >= 0], minlength=len(labels))
    own = counts.nonzero()[:, 0]
    if len(own) > MOST:
        own = counts.argsort(descending=True, stable=True)[: MOST - 1].sort().values
    place = torch.full((len(labels) + 1,), len(own))
    place[own] = torch.arange(len(own))
    kind = place[index.where(index >= 0, len(labels))]
    names = [labels[each] for each in own.tolist()]
    colours = list(LIGHT[: len(names)])
    if (kind == len(names)).any():
        left = int((counts > 0).sum()) - len(names)
        unknown = bool((index < 0).any())
        names.append(" or ".join([f"{left} other classes"] * (left > 0) + ["class not known"] * unknown))
        colours.append(REST_LIGHT)
    return kind, tuple(names), tuple(colours)


def points(found: MappedCodes, colour: str, thumbnails: int, placed: PlacedCodes | None = None) -> Figure:
    """The points of a map, and as many thumbnails on them as fit beside each other, framed in their colour."""
    kind, names, colours = categories(found, colour)
    where = found.coordinates.numpy()
    figure = drawing.canvas(7.6, 6.6)
    axes = drawing.bare(figure.add_subplot())
    pale = placed is not None
    for number, (name, shade) in enumerate(zip(names, colours, strict=True)):
        own = where[(kind == number).numpy()]
        if len(own):
            size = float(np.clip(14_000 / max(len(found), 1), 1.5, 26))
            axes.scatter(
                own[:, 0],
                own[:, 1],
                s=size,
                c=shade,
                alpha=0.25 if pale else 0.75,
                linewidths=0,
                label=_short(name),
                rasterized=True,
            )
    low, high = _square(where if placed is None else np.concatenate([where, placed.coordinates.numpy()]))
    axes.set_xlim(low[0], high[0])
    axes.set_ylim(low[1], high[1])
    axes.set_aspect("equal")
    if placed is not None:
        new = placed.coordinates.numpy()
        axes.scatter(new[:, 0], new[:, 1], s=34, c="black", marker="x", linewidths=1.2, label="new")
        _stamp(axes, placed.coordinates, placed.thumbnails, ["#000000"] * len(placed), spread(placed.coordinates, 40))
    elif thumbnails and len(found.thumbnails):
        shades = [colours[each] for each in kind.tolist()]
        _stamp(axes, found.coordinates, found.thumbnails, shades, spread(found.coordinates, thumbnails))
    legend = axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=8, frameon=False, title=f"by {colour}")
    for handle in legend.legend_handles:
        if handle is not None:
            handle.set_alpha(1)
            handle.set(sizes=[30])
    for text in legend.get_texts():
        text.set_parse_math(False)
    title = f"{len(found):,} images by {found.layer} of {found.model}, {LAYOUTS[found.layout]}"
    axes.set_title(title, fontsize=10, parse_math=False)
    axes.set_xlabel(numbers(found), fontsize=8, parse_math=False)
    return figure


#: layouts as they are written
LAYOUTS = {"tsne": "t-SNE", "umap": "UMAP", "pca": "principal axes"}


def numbers(found: MappedCodes) -> str:
    """The numbers that say how far a map can be read, on one line."""
    said = []
    if found.knn_map is not None and found.knn_codes is not None:
        told = "class" if bool((found.labels >= 0).any()) else "predicted class"
        said.append(
            f"{told} by {found.k} neighbours: {words.percent(found.knn_map)} right in the map, "
            f"{words.percent(found.knn_codes)} by code"
        )
    if found.trustworthiness is not None:
        said.append(f"trustworthiness {found.trustworthiness:.3f}")
    if found.divergence is not None:
        said.append(f"KL {found.divergence:.2f} nats")
    return " · ".join(said)


def tiled(found: MappedCodes, limit: int, colour: str) -> tuple[Image.Image, str]:
    """The thumbnails on a grid, none over another, framed in the colour of their category, and which they are, in words."""
    if not len(found.thumbnails):
        raise InputError("the map came without thumbnails, so there is nothing to lay on a grid")
    laid = arrange(found.coordinates, limit)
    kind, _, colours = categories(found, colour)
    rows, columns = laid.shape
    height, width = found.thumbnails.shape[2:]
    frame = max(1, max(height, width) // 16)
    side = (height + 2 * frame + 1, width + 2 * frame + 1)
    canvas = np.zeros((rows * side[0] - 1, columns * side[1] - 1, 4), np.uint8)  # transparent between them
    shades = np.array([_rgb(shade) for shade in colours], np.uint8)
    for image, cell in zip(laid.chosen.tolist(), laid.cells.tolist(), strict=True):
        top, left = cell // columns * side[0], cell % columns * side[1]
        tile = canvas[top : top + side[0] - 1, left : left + side[1] - 1]
        tile[..., :3], tile[..., 3] = shades[int(kind[image])], 255
        tile[frame:-frame, frame:-frame, :3] = found.thumbnails[image].numpy().transpose(1, 2, 0)
    drawn = (
        f"all {laid.total:,} images"
        if len(laid.chosen) == laid.total
        else f"{len(laid.chosen):,} of {laid.total:,} images, drawn by lot"
    )
    return Image.fromarray(canvas), drawn


def sheet(found: MappedCodes, limit: int, colour: str) -> Figure:
    """The thumbnails on a grid, none over another, framed in the colour of their category."""
    picture, drawn = tiled(found, limit, colour)
    _, names, colours = categories(found, colour)
    figure = drawing.canvas(8.2, 8.2 * picture.height / picture.width + 0.7)
    axes = drawing.bare(figure.add_subplot())
    axes.imshow(np.asarray(picture), interpolation="nearest")
    for name, shade in zip(names, colours, strict=True):
        axes.plot([], [], "s", color=shade, label=_short(name))
    legend = axes.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.01), ncols=min(len(names), 5), fontsize=8, frameon=False
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    axes.set_title(
        f"{drawn}, moved from the map to a grid by Jonker and Volgenant’s assignment; framed by {colour}", fontsize=9
    )
    return figure


def spread(coordinates: Tensor, count: int) -> list[int]:
    """At most `count` points spread over the map, each at least a twentieth of its width from the others."""
    where = coordinates.double().numpy()
    low, high = _square(where)
    at = (where - low) / (high - low)
    chosen: list[int] = []
    for point in by_cover(coordinates)[:4096]:
        if len(chosen) == count:
            break
        if not chosen or np.abs(at[chosen] - at[point]).max(1).min() >= 0.05:
            chosen.append(point)
    return chosen


def by_cover(coordinates: Tensor) -> list[int]:
    """All points in an order in which any beginning is spread over the map: cell by cell of ever finer lattices."""
    where = coordinates.double().numpy()
    low, high = _square(where)
    at = (where - low) / (high - low)
    left = np.ones(len(at), bool)
    order: list[int] = []
    cells = 8
    while left.any() and cells <= 1024:
        some = np.flatnonzero(left)
        cell = np.clip(np.floor(at[some] * cells), 0, cells - 1).astype(int)
        off = ((at[some] * cells - cell - 0.5) ** 2).sum(1)
        ranked = np.argsort(off, kind="stable")
        _, first = np.unique(cell[ranked] @ (1, cells), return_index=True)
        taken = some[ranked[first]]
        order += taken.tolist()
        left[taken] = False
        cells *= 2
    return order + np.flatnonzero(left).tolist()


def _square(where: Array) -> tuple[Array, Array]:
    """The corners of a square around points, with some room."""
    middle = (where.min(0) + where.max(0)) / 2
    half = 0.53 * float((where.max(0) - where.min(0)).max()) or 1.0
    return middle - half, middle + half


def _stamp(axes: Axes, coordinates: Tensor, thumbnails: Tensor, shades: list[str], chosen: list[int]) -> None:
    from matplotlib.offsetbox import AnnotationBbox, OffsetImage

    for point in chosen:
        picture = thumbnails[point].numpy().transpose(1, 2, 0)
        zoom = 14 / max(picture.shape[:2])
        box = AnnotationBbox(
            OffsetImage(picture, zoom=zoom, interpolation="bilinear"),
            tuple(coordinates[point].tolist()),
            pad=0.12,
            bboxprops={"edgecolor": shades[point], "facecolor": shades[point], "linewidth": 0.8},
        )
        axes.add_artist(box)


def atlas(thumbnails: Tensor, columns: int) -> Image.Image:
    """Thumbnails (n, 3, h, w) of 8 bits side by side, row by row."""
    tiles = thumbnails.numpy().transpose(0, 2, 3, 1)
    rows = -(-len(tiles) // columns)
    height, width = tiles.shape[1:3]
    canvas = np.zeros((rows, columns, height, width, 3), np.uint8)
    canvas.reshape(-1, height, width, 3)[: len(tiles)] = tiles
    return Image.fromarray(canvas.transpose(0, 2, 1, 3, 4).reshape(rows * height, columns * width, 3))


def _rgb(shade: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(shade.removeprefix("#")))


def _short(name: str, most: int = 28) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"
