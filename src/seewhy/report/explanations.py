"""Figures of explanations: a map over its photograph, many side by side, how far they agree."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from seewhy.errors import InputError
from seewhy.report import drawing, pictures, words
from seewhy.report.pictures import Sign

if TYPE_CHECKING:
    import os

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from seewhy.explain.base import Attribution
    from seewhy.explain.compare import Agreement


def explanation(
    attribution: Attribution, indices: Iterable[int], sign: Sign, smooth: float = 0.0, contour: float | None = None
) -> Figure:
    """For each image its photograph and the map over it in grey, each on its own scale, which its colour bar says.

    Where the geometry is known, both have the shape of what the model saw on the original photograph. Raises
    `InputError` for an image that is not there.
    """
    chosen = list(indices)
    drawing.inside(chosen, len(attribution))
    maps = _maps(attribution, sign, smooth)
    figure = drawing.canvas(7.4, 3.5 * len(chosen))
    for row, index in enumerate(chosen):
        photo = drawing.photo(attribution.images, index)
        laid = pictures.overlay(photo, maps[index], sign)
        left = drawing.bare(figure.add_subplot(len(chosen), 2, 2 * row + 1))
        left.imshow(np.asarray(photo))
        left.set_title(attribution.images.names[index], parse_math=False)
        right = drawing.bare(figure.add_subplot(len(chosen), 2, 2 * row + 2))
        right.imshow(np.asarray(laid.picture))
        right.set_title(f"{words.title(attribution.method)}: {attribution.labels[index]}", parse_math=False)
        about = [f"layer {attribution.layer}"] if attribution.layer else []
        about += [words.measure(key, float(value[index])) for key, value in attribution.measures.items()]
        about += [_smoothed(smooth)] if smooth else []
        about += [_outlined(right, attribution, index, smooth, contour, photo.size)] if contour is not None else []
        right.set_xlabel(", ".join(about), fontsize=8, parse_math=False, wrap=True)
        drawing.bar(figure, right, sign, laid.scale)
    return figure


def multiples(
    attributions: Sequence[Attribution], index: int, sign: Sign | None, smooth: float, contour: float | None
) -> Figure:
    """One photograph and many explanations of it: a row a method where one has several, else as many as fit in a row.

    Maps of one method share a scale, those of different methods have each their own; every panel says it.
    """
    images = attributions[0].images
    drawing.inside([index], len(images))
    photo = drawing.photo(images, index)
    rows: dict[str, list[Attribution]] = {}
    for each in attributions:
        rows.setdefault(each.method, []).append(each)
    several = max(map(len, rows.values())) > 1
    panels: list[Attribution | None] = []
    columns = 1 + max(map(len, rows.values())) if several else min(5, 1 + len(attributions))
    for position, found in enumerate(
        rows.values()
    ):  # the photograph comes first, alone in its column where rows are methods
        if several:
            panels += [None, *found, *[None] * (columns - 1 - len(found))]
        else:
            panels += [*[None] * (position == 0), *found]
    lines = -(-len(panels) // columns)
    figure = drawing.canvas(2.15 * columns, 2.6 * lines * photo.height / photo.width + 0.35 * lines)
    scales = {
        method: pictures.robust_scale(np.stack([_maps(each, sign or each.sign, smooth)[index] for each in found]))
        for method, found in rows.items()
    }
    for place, panel in enumerate(panels):
        axes = drawing.bare(figure.add_subplot(lines, columns, place + 1))
        if panel is None:
            if place == 0:
                axes.imshow(np.asarray(photo))
                axes.set_title(images.names[index], fontsize=8, parse_math=False)
            else:
                axes.set_visible(False)
            continue
        scale, shown = scales[panel.method], sign or panel.sign
        values = _maps(panel, shown, smooth)[index]
        axes.imshow(np.asarray(pictures.on_white(values, scale, shown, photo.size)))
        for spine in axes.spines.values():
            spine.set_visible(True)
            spine.set_color("0.8")
        named = words.title(panel.method)
        axes.set_title(f"{named}\n{panel.labels[index]}", fontsize=8, parse_math=False)
        own = "one scale for this method" if len(rows[panel.method]) > 1 else "its own scale"
        about = [f"{words.bounds(shown, scale)}, {own}"]
        about += [_outlined(axes, panel, index, smooth, contour, photo.size)] if contour is not None else []
        axes.set_xlabel("\n".join(about), fontsize=7, parse_math=False)
    ends = "zero is white, orange for the class, blue against it; colours end where 99.9 % of the values lie"
    figure.supxlabel(ends + (f"; {_smoothed(smooth)}" if smooth else ""), fontsize=7.5)
    return figure


def agreement(found: Agreement, index: int) -> Figure:
    """The rank correlations of one image's maps in colours, with their numbers."""
    drawing.inside([index], len(found.images))
    matrix = found.correlations[index].numpy()
    count = len(found.methods)
    figure = drawing.canvas(2.6 + 0.52 * count, 1.9 + 0.42 * count)
    axes = figure.add_subplot()
    colours = np.rint(pictures.white_to(np.nan_to_num(matrix), "signed")).astype(np.uint8)
    axes.imshow(colours, aspect="auto")
    for row in range(count):
        for column in range(count):
            value = matrix[row, column]
            text = "–" if np.isnan(value) else f"{value:.2f}".replace("-", "−")
            ink = pictures.ink(colours[row, column])
            axes.text(column, row, text, ha="center", va="center", fontsize=7, color=ink)
    axes.set_xticks(range(count), found.methods, fontsize=7, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(count), found.methods, fontsize=7)
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        label.set_parse_math(False)
    axes.set_title(f"{found.images[index]}: rank correlation on {found.grid} × {found.grid} cells", fontsize=9)
    axes.title.set_parse_math(False)
    return figure


def over_photo(
    attribution: Attribution,
    photo: Image.Image | str | os.PathLike[str],
    index: int,
    sign: Sign,
    smooth: float,
    contour: float | None,
) -> Image.Image:
    """A map over the whole original photograph, in grey, at its own size; darker where the model did not look.

    Its colours' scale, of what the model saw, is the picture's `info["scale"]`.
    """
    from seewhy.data.photo import original

    whole = photo.convert("RGB") if isinstance(photo, Image.Image) else original(photo)
    values = attribution.on_photo(index, sign, smooth).numpy()
    if values.shape != (whole.height, whole.width):
        raise InputError(
            f"expected the photograph that was explained, {values.shape[1]} × {values.shape[0]} pixels, "
            f"got one of {whole.width} × {whole.height}"
        )
    seen = ~np.isnan(values)
    scale = pictures.robust_scale(values[seen])
    laid = np.asarray(pictures.overlay(whole, np.where(seen, values, 0), sign, scale).picture)
    dark = np.where(seen[..., None], laid, np.rint(0.45 * laid)).astype(np.uint8)
    if contour is not None:
        region = attribution.region(contour, smooth)[index].float()
        geometry = attribution.images.geometry[index]
        mask = (region if geometry is None else geometry.project(region, 0.0)).numpy() >= 0.5
        dark = pictures.ringed(dark, mask)
    drawn = Image.fromarray(dark)
    drawn.info["scale"] = scale
    return drawn


def _maps(attribution: Attribution, sign: Sign, smooth: float) -> pictures.Array:
    """The maps (N, h, w), at their own size unless they are smoothed: enlarging is left to the picture."""
    height, width = attribution.values.shape[2:]
    return attribution.heatmap(sign, None if smooth else (height, width), smooth).numpy()


def _smoothed(smooth: float) -> str:
    return f"smoothed by a Gaussian of {smooth:g} pixels"


def _outlined(
    axes: Axes, attribution: Attribution, index: int, smooth: float, share: float, size: tuple[int, int]
) -> str:
    """Outline the region that holds a share of the positive values, and say so."""
    region = attribution.region(share, smooth)[index].numpy().astype(float)
    if not region.any():
        return "nothing positive to outline"
    height, width = region.shape
    across = (np.arange(width) + 0.5) / width * size[0] - 0.5
    down = (np.arange(height) + 0.5) / height * size[1] - 0.5
    for colour, thick in (("white", 1.8), ("black", 0.8)):
        axes.contour(across, down, region, levels=[0.5], colors=colour, linewidths=thick)
    return f"outlined: {words.percent(share)} of what speaks for it"
