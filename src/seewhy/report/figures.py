"""Figures for notebooks and papers, drawn by matplotlib; the `plot()` of every result ends here.

Figures are made without pyplot: nothing global is touched, no window opens, and none has to be closed. Names are set
as they are, never read as formulas.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from seewhy.errors import InputError
from seewhy.report import pictures, words
from seewhy.report.pictures import Sign

if TYPE_CHECKING:
    import os

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from seewhy.attack.base import Adversarial
    from seewhy.data.images import Images
    from seewhy.explain.base import Attribution
    from seewhy.explain.compare import Agreement
    from seewhy.look.activations import ActivationMaps
    from seewhy.look.filters import FilterGrid

_BLUE, _ORANGE = "#0b62b8", "#c25a00"


def explanation(
    attribution: Attribution, indices: Iterable[int], sign: Sign, smooth: float = 0.0, contour: float | None = None
) -> Figure:
    """For each image its photograph and the map over it in grey, each on its own scale, which its colour bar says.

    Where the geometry is known, both have the shape of what the model saw on the original photograph. Raises
    `InputError` for an image that is not there.
    """
    chosen = list(indices)
    _inside(chosen, len(attribution))
    maps = _maps(attribution, sign, smooth)
    figure = _figure(7.4, 3.5 * len(chosen))
    for row, index in enumerate(chosen):
        photo = _photo(attribution.images, index)
        laid = pictures.overlay(photo, maps[index], sign)
        left = _bare(figure.add_subplot(len(chosen), 2, 2 * row + 1))
        left.imshow(np.asarray(photo))
        left.set_title(attribution.images.names[index], parse_math=False)
        right = _bare(figure.add_subplot(len(chosen), 2, 2 * row + 2))
        right.imshow(np.asarray(laid.picture))
        right.set_title(f"{words.title(attribution.method)}: {attribution.labels[index]}", parse_math=False)
        about = [f"layer {attribution.layer}"] if attribution.layer else []
        about += [words.measure(key, float(value[index])) for key, value in attribution.measures.items()]
        about += [_smoothed(smooth)] if smooth else []
        about += [_outlined(right, attribution, index, smooth, contour, photo.size)] if contour is not None else []
        right.set_xlabel(", ".join(about), fontsize=8, parse_math=False, wrap=True)
        _bar(figure, right, sign, laid.scale)
    return figure


def multiples(
    attributions: Sequence[Attribution], index: int, sign: Sign | None, smooth: float, contour: float | None
) -> Figure:
    """One photograph and many explanations of it: a row a method where one has several, else as many as fit in a row.

    Maps of one method share a scale, those of different methods have each their own; every panel says it.
    """
    images = attributions[0].images
    _inside([index], len(images))
    photo = _photo(images, index)
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
    figure = _figure(2.15 * columns, 2.6 * lines * photo.height / photo.width + 0.35 * lines)
    scales = {
        method: pictures.robust_scale(np.stack([_maps(each, sign or each.sign, smooth)[index] for each in found]))
        for method, found in rows.items()
    }
    for place, panel in enumerate(panels):
        axes = _bare(figure.add_subplot(lines, columns, place + 1))
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
        low = "±" if shown == "signed" else "0 to "
        about = [f"{low}{words.figure(scale)}, {own}"]
        about += [_outlined(axes, panel, index, smooth, contour, photo.size)] if contour is not None else []
        axes.set_xlabel("\n".join(about), fontsize=7, parse_math=False)
    ends = "zero is white, orange for the class, blue against it; colours end where 99.9 % of the values lie"
    figure.supxlabel(ends + (f"; {_smoothed(smooth)}" if smooth else ""), fontsize=7.5)
    return figure


def agreement(found: Agreement, index: int) -> Figure:
    """The rank correlations of one image's maps in colours, with their numbers."""
    _inside([index], len(found.images))
    matrix = found.correlations[index].numpy()
    count = len(found.methods)
    figure = _figure(2.6 + 0.52 * count, 1.9 + 0.42 * count)
    axes = figure.add_subplot()
    colours = np.rint(pictures.white_to(np.nan_to_num(matrix), "signed")).astype(np.uint8)
    axes.imshow(colours, aspect="auto")
    for row in range(count):
        for column in range(count):
            value = matrix[row, column]
            text = "–" if np.isnan(value) else f"{value:.2f}".replace("-", "−")
            axes.text(
                column, row, text, ha="center", va="center", fontsize=7, color="white" if abs(value) > 0.6 else "black"
            )
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
    """A map over the whole original photograph, in grey, at its own size; darker where the model did not look."""
    from seewhy.data.photo import original

    whole = photo.convert("RGB") if isinstance(photo, Image.Image) else original(photo)
    values = attribution.on_photo(index, sign, smooth).numpy()
    if values.shape != (whole.height, whole.width):
        raise InputError(
            f"expected the photograph that was explained, {values.shape[1]} × {values.shape[0]} pixels, "
            f"got one of {whole.width} × {whole.height}"
        )
    seen = ~np.isnan(values)
    laid = np.asarray(pictures.overlay(whole, np.where(seen, values, 0), sign).picture)
    dark = np.where(seen[..., None], laid, np.rint(0.45 * laid)).astype(np.uint8)
    if contour is not None:
        region = attribution.region(contour, smooth)[index].float()
        geometry = attribution.images.geometry[index]
        mask = (region if geometry is None else geometry.project(region, 0.0)).numpy() >= 0.5
        dark = pictures.ringed(dark, mask)
    return Image.fromarray(dark)


def attack(adversarial: Adversarial, index: int) -> Figure:
    """The original, the adversarial image, their difference (the factor is said), and confidence against ε.

    Shown is the smallest size that fools, or the largest that was tried where none does.
    """
    _inside([index], len(adversarial.labels))
    best = int(adversarial.best[index])
    fooled = best >= 0
    level = best if fooled else int(adversarial.eps[:, index].argmax())
    original, changed = adversarial.original.pixels[index].numpy(), adversarial.images[level, index].numpy()
    difference, factor = pictures.amplified(original, changed)
    before, after = int(adversarial.labels[index]), int(adversarial.predictions[level, index])
    names, size = adversarial.names, float(adversarial.eps[level, index])
    start, end = adversarial.clean_probabilities[index], adversarial.probabilities[level, index]
    now = int(start.argmax())
    figure = _figure(11.5, 3.3)
    shown = (
        (pictures.to_picture(original), f"{names[now]}, {words.percent(float(start[now]))}"),
        (pictures.to_picture(changed), f"{names[after]}, {words.percent(float(end[after]))}\n{words.epsilon(size)}"),
        (difference, f"difference × {factor}\n(grey: none)"),
    )
    for place, (picture, title) in enumerate(shown):
        axes = _bare(figure.add_subplot(1, 4, place + 1))
        axes.imshow(np.asarray(picture))
        axes.set_title(title, fontsize=9, parse_math=False)
    axes = figure.add_subplot(1, 4, 4)
    eps, probabilities = adversarial.curve(index)
    steps = 255 * eps.numpy()
    axes.plot(steps, probabilities[:, before].numpy(), "o-", color=_BLUE, markersize=3, label=names[before])
    if after != before:
        axes.plot(steps, probabilities[:, after].numpy(), "s--", color=_ORANGE, markersize=3, label=names[after])
    if fooled:
        axes.axvline(255 * float(adversarial.smallest_eps[index]), color="0.4", linewidth=1, linestyle=":")
    title = f"fooled at {words.epsilon(size)}" if fooled else f"not fooled up to {words.epsilon(float(eps.max()))}"
    if bool(adversarial.wrong_at_start[index]):
        title = "wrong before the attack"
    axes.set_title(title, fontsize=9, parse_math=False)
    axes.set_xlabel("ε, in steps of 1/255", fontsize=8)
    axes.set_ylabel("probability", fontsize=8)
    axes.set_ylim(-0.02, 1.02)
    axes.set_xscale("symlog", linthresh=1, linscale=0.5)
    axes.set_xlim(0, max(1.0, float(steps.max())) * 1.1)
    ticks = [0.0, *(2.0**k for k in range(9) if 2**k <= steps.max() * 1.001)]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.tick_params(labelsize=8)
    for text in axes.legend(fontsize=7, frameon=False).get_texts():
        text.set_parse_math(False)
    return figure


def filters(grid: FilterGrid) -> Figure:
    """The filters side by side on one scale, which is said: grey is zero, white and black are ±scale."""
    tiles = pictures.filter_tiles(grid.tiles.numpy(), grid.scale, 60)
    columns = min(16, len(tiles))
    ends = words.figure(grid.scale)
    title = f"{grid.layer}: {len(tiles)} filters; grey 0, white +{ends}, black −{ends}"
    return _sheet(pictures.montage(tiles, columns, 6), columns, title)


def activations(maps: ActivationMaps, index: int) -> Figure:
    """The image and the maps that respond most to it, all maps on one scale, which its colour bar says."""
    _inside([index], len(maps.maps))
    values = maps.maps[index].numpy()
    scale = pictures.robust_scale(values)
    tiles = pictures.map_tiles(values, scale, 112)
    columns = min(4, len(tiles))
    figure = _figure(8.2, 4.4)
    left = _bare(figure.add_subplot(1, 2, 1))
    left.imshow(np.asarray(_photo(maps.images, index)))
    left.set_title(maps.images.names[index], parse_math=False)
    right = _bare(figure.add_subplot(1, 2, 2))
    right.imshow(np.asarray(pictures.montage(tiles, columns, 5)))
    channels = words.some([str(channel) for channel in maps.channels[index].tolist()], 8)
    right.set_title(f"{maps.layer}: channels {channels}", fontsize=9, parse_math=False)
    below = float(values.min()) < 0
    _bar(figure, right, "layer" if below else "ramp", scale)
    right.set_xlabel(f"{words.percent(float(maps.zero[index]))} of all values at or below zero", fontsize=8)
    return figure


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


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", dpi=110)


def _bare(axes: Axes) -> Axes:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    return axes


def _sheet(picture: Image.Image, columns: int, title: str) -> Figure:
    width = 0.55 * columns + 0.6
    figure = _figure(max(width, 4.5), max(width, 4.5) * picture.height / picture.width + 0.5)
    axes = _bare(figure.add_subplot())
    axes.imshow(np.asarray(picture), interpolation="nearest")
    axes.set_title(title, fontsize=9, parse_math=False)
    return figure


def _bar(figure: Figure, axes: Axes, kind: str, scale: float) -> None:
    """A colour bar whose colours are those of the picture beside it."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    low = -1.0 if kind in ("signed", "layer") else 0.0
    strength = np.linspace(low, 1, 256)
    if kind in ("ramp", "layer"):
        rgb = pictures.map_colours(strength)
    else:
        mixed, opacity = pictures.colours(strength, "signed" if kind == "signed" else "positive")
        rgb = sum(pictures.GREY) / 2 * (1 - opacity[:, None]) + mixed * opacity[:, None]
    shades = ScalarMappable(Normalize(low * (scale or 1), scale or 1), ListedColormap(rgb / 255))
    bar = figure.colorbar(shades, ax=axes, shrink=0.8, pad=0.03)
    bar.ax.tick_params(labelsize=7)


def _photo(images: Images, index: int) -> Image.Image:
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


def _inside(indices: Sequence[int], count: int) -> None:
    for index in indices:
        if not 0 <= index < count:
            raise InputError(f"expected an image from 0 to {count - 1}, got {index}")
    if not indices:
        raise InputError("expected at least one image to draw, got none")
