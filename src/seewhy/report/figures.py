"""Figures for notebooks and papers, drawn by matplotlib; the `plot()` of every result ends here.

Figures are made without pyplot: nothing global is touched, no window opens, and none has to be closed. Names are set
as they are, never read as formulas.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from seewhy.errors import InputError
from seewhy.report import pictures, words
from seewhy.report.pictures import Sign

if TYPE_CHECKING:
    import os

    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

    from seewhy.attack.base import Adversarial
    from seewhy.attack.compare import Comparison, Transfer
    from seewhy.attack.defences import Detector
    from seewhy.attack.why_it_fails import Diagnosis
    from seewhy.data.images import Images
    from seewhy.explain.base import Attribution
    from seewhy.explain.compare import Agreement
    from seewhy.look.activations import ActivationMaps
    from seewhy.look.exemplars import ExemplarSet
    from seewhy.look.filters import FilterGrid
    from seewhy.look.maximize import Maximized
    from seewhy.look.units import NamedUnits

_BLUE, _ORANGE = "#0b62b8", "#c25a00"

#: colours and dashes of several lines, apart in every common kind of colour blindness
_SERIES = (_BLUE, _ORANGE, "#3a7d44", "#8a3ea8", "#555555", "#b3123f")
_DASHES = ("-", "--", "-.", ":")


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

    def told(eps: float) -> str:
        return words.epsilon(eps, adversarial.norm, original.size)

    figure = _figure(11.5, 3.3)
    shown = (
        (pictures.to_picture(original), f"{names[now]}, {words.percent(float(start[now]))}"),
        (pictures.to_picture(changed), f"{names[after]}, {words.percent(float(end[after]))}\n{told(size)}"),
        (difference, f"difference × {factor}\n(grey: none)"),
    )
    for place, (picture, title) in enumerate(shown):
        axes = _bare(figure.add_subplot(1, 4, place + 1))
        axes.imshow(np.asarray(picture))
        axes.set_title(title, fontsize=9, parse_math=False)
    axes = figure.add_subplot(1, 4, 4)
    eps, probabilities = adversarial.curve(index)
    scale, label = words.axis(adversarial.norm, original.size)
    steps = scale * eps.numpy()
    axes.plot(steps, probabilities[:, before].numpy(), "o-", color=_BLUE, markersize=3, label=names[before])
    if after != before:
        axes.plot(steps, probabilities[:, after].numpy(), "s--", color=_ORANGE, markersize=3, label=names[after])
    if fooled:
        axes.axvline(scale * float(adversarial.smallest_eps[index]), color="0.4", linewidth=1, linestyle=":")
    title = f"fooled at {told(size)}" if fooled else f"not fooled up to {told(float(eps.max()))}"
    if bool(adversarial.wrong_at_start[index]):
        title = "wrong before the attack"
    axes.set_title(title, fontsize=9, parse_math=False)
    axes.set_ylabel("probability", fontsize=8)
    axes.set_ylim(-0.02, 1.02)
    _size_axis(axes, label, float(steps.max()))
    _legend(axes)
    return figure


def strip(adversarial: Adversarial, index: int, count: int = 6) -> Figure:
    """One image at several sizes of the change, from none on, each with what the model says of it."""
    _inside([index], len(adversarial.labels))
    levels = adversarial.strip(index, count)
    names, values = adversarial.names, adversarial.original.pixels[index].numel()
    figure = _figure(1.75 * (len(levels) + 1), 2.35)
    for place, level in enumerate([None, *levels]):
        axes = _bare(figure.add_subplot(1, len(levels) + 1, place + 1))
        pixels = adversarial.original.pixels[index] if level is None else adversarial.images[level, index]
        says = adversarial.clean_probabilities[index] if level is None else adversarial.probabilities[level, index]
        axes.imshow(np.asarray(pictures.to_picture(pixels.numpy())))
        size = (
            "no change"
            if level is None
            else words.epsilon(float(adversarial.eps[level, index]), adversarial.norm, values)
        )
        axes.set_title(size, fontsize=8, parse_math=False)
        fooled = level is not None and bool(adversarial.success[level, index] & adversarial.success_8bit[level, index])
        told = f"{names[int(says.argmax())]}\n{words.percent(float(says.max()))}"
        axes.set_xlabel(told, fontsize=8, color=_ORANGE if fooled else "black", parse_math=False)
    return figure


def accuracy(found: Comparison) -> Figure:
    """The share of images right at the start that stay right, against ε: every attack, with Wilson's interval of 95 %.

    A plot for each norm: sizes in different norms cannot be compared.
    """
    norms = list(dict.fromkeys(found.norms))
    figure = _figure(5.2 * len(norms), 3.6)
    values = found.images.pixels[0].numel()
    for place, norm in enumerate(norms):
        axes = figure.add_subplot(1, len(norms), place + 1)
        chosen = [number for number, each in enumerate(found.norms) if each == norm]
        scale, label = words.axis(norm, values)
        there = found.smallest[chosen]
        largest = 1.25 * float(there[there.isfinite()].max()) if bool(there.isfinite().any()) else 1.0
        for order, number in enumerate(chosen):
            colour, dash = _SERIES[order % len(_SERIES)], _DASHES[order % len(_DASHES)]
            standing = found.smallest[number, ~found.wrong_at_start].isinf().any()
            end = min(largest, float(found.tried[number])) if standing else largest  # beyond it is not known
            sizes = torch.cat([torch.zeros(1), torch.logspace(-3, 0, 200) * end])
            share, low, high = found.accuracy(number, sizes).T.numpy()
            steps = scale * sizes.numpy()
            axes.plot(steps, share, dash, color=colour, label=found.attacks[number], drawstyle="steps-post")
            axes.fill_between(steps, low, high, step="post", color=colour, alpha=0.13, linewidth=0)
        axes.set_ylim(-0.02, 1.02)
        axes.set_ylabel("share that stays right", fontsize=8)
        _size_axis(axes, label, scale * largest)
        _legend(axes)
    figure.suptitle(f"{words.many(found.fair, 'image')} right at the start; bands: 95 % (Wilson)", fontsize=9)
    return figure


def distances(found: Comparison) -> Figure:
    """Each attack's smallest distances, an image a dot, with their median over all; those not fooled stand at the right."""
    figure = _figure(6.4, 0.9 + 0.55 * len(found.attacks))
    axes = figure.add_subplot()
    kept = ~found.wrong_at_start
    every = 255 * found.distances["rms"][:, kept].numpy()
    finite = every[np.isfinite(every)]
    low, high = (finite.min() / 1.3, finite.max() * 1.3) if finite.size else (0.1, 10.0)
    aside = high * (high / low) ** 0.07
    for row, values in enumerate(every):
        there, colour = np.isfinite(values), _SERIES[row % len(_SERIES)]
        # dots are moved up and down by their rank, so that equal ones can be told apart
        lift = (np.argsort(np.argsort(values, kind="stable")) % 5 - 2) * 0.09
        axes.plot(values[there], row + lift[there], "o", color=colour, markersize=3.5, alpha=0.6)
        middle = float(np.median(np.where(there, values, np.inf))) if values.size else np.inf
        if np.isfinite(middle):
            axes.plot([middle, middle], [row - 0.32, row + 0.32], color=colour, linewidth=2)
        axes.text(aside, row, f"{int((~there).sum())}", fontsize=8, va="center", ha="center")
    axes.axvline(high, color="0.7", linewidth=0.8)
    axes.text(aside, -0.62, "not fooled", fontsize=7, ha="center")
    axes.set_xscale("log")
    _plain(axes.xaxis)
    axes.set_xlim(low, high * (high / low) ** 0.14)
    axes.set_ylim(len(every) - 0.5, -0.8)
    axes.set_yticks(range(len(every)), found.attacks, fontsize=8)
    for label in axes.get_yticklabels():
        label.set_parse_math(False)
    axes.set_xlabel(
        "smallest change that fools, root mean square in steps of 1/255; line: median of all images", fontsize=8
    )
    axes.tick_params(labelsize=8)
    return figure


def transfer(found: Transfer) -> Figure:
    """Whose fooling images fool whom, in colours, with the counts."""
    figure = _figure(2.4 + 1.0 * len(found.victims), 1.6 + 0.6 * len(found.sources))
    axes = figure.add_subplot()
    share = found.share.numpy()
    axes.imshow(np.rint(pictures.white_to(np.nan_to_num(share), "positive")).astype(np.uint8), aspect="auto")
    for row in range(len(found.sources)):
        for column in range(len(found.victims)):
            of = int(found.of[row, column])
            text = f"{share[row, column]:.0%}\n{int(found.fooled[row, column])} of {of}" if of else "–"
            ink = "white" if share[row, column] > 0.6 else "black"
            axes.text(column, row, text, ha="center", va="center", fontsize=8, color=ink)
    axes.set_xticks(range(len(found.victims)), found.victims, fontsize=8)
    axes.set_yticks(range(len(found.sources)), found.sources, fontsize=8)
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        label.set_parse_math(False)
    axes.set_xlabel("shown to", fontsize=8)
    axes.set_ylabel("made for", fontsize=8)
    axes.set_title(f"{found.method}: fooled of those that the victim had right", fontsize=9, parse_math=False)
    return figure


def detector(found: Detector) -> Figure:
    """Detections against false alarms, with what chance gives."""
    figure = _figure(3.8, 3.8)
    axes = figure.add_subplot()
    alarms, detections = found.curve()
    axes.plot([0, 1], [0, 1], ":", color="0.5", label="chance")
    axes.plot(alarms.numpy(), detections.numpy(), "-", color=_BLUE, label=", ".join(found.squeezers))
    axes.set_xlabel(f"false alarms, of {words.many(len(found.clean), 'clean image')}", fontsize=8)
    axes.set_ylabel(f"detections, of {words.many(len(found.adversarial), 'adversarial image')}", fontsize=8)
    axes.set_title(f"area {found.auc:.3f}; {words.percent(found.detections())} at 5 % false alarms", fontsize=9)
    axes.tick_params(labelsize=8)
    _legend(axes)
    return figure


def diagnosis(found: Diagnosis, index: int) -> Figure:
    """The fall of the gap, the growth through the layers, the spectrum and the units that changed most, each with noise."""
    from seewhy.attack.why_it_fails import BANDS, SHARES

    _inside([index], len(found.before))
    figure = _figure(12.5, 3.4)
    axes = figure.add_subplot(1, 4, 1)
    gaps = found.gaps[:, index].numpy()
    axes.axhline(0, color="0.7", linewidth=0.8)
    axes.plot(SHARES, gaps, "o-", color=_BLUE, markersize=3, label="the attack")
    axes.plot([0, 1], [gaps[0], gaps[0] - float(found.linear[0, index])], "--", color="0.4", label="by the gradient")
    for fall in found.falls[1:, index].tolist():
        axes.plot([0, 1], [gaps[0], gaps[0] - fall], "-", color=_ORANGE, linewidth=1, label="noise")
    names = [found.names[int(each[index])] for each in (found.before, found.after)]
    axes.set_title(f"logit of {names[0]} − {names[1]}", fontsize=8, parse_math=False, wrap=True)
    axes.set_xlabel("share of the change", fontsize=8)
    axes = figure.add_subplot(1, 4, 2)
    growth = 100 * found.growth[:, :, index].numpy()
    axes.semilogy(growth[:, 0], "o-", color=_BLUE, markersize=3, label="the attack")
    axes.semilogy(growth[:, 1:], "-", color=_ORANGE, linewidth=1, label="noise")
    axes.set_xticks(range(len(found.layers)), found.layers, rotation=60, ha="right", rotation_mode="anchor")
    axes.set_title("change of each answer, % of its length", fontsize=8)
    _plain(axes.yaxis)
    axes = figure.add_subplot(1, 4, 3)
    places = (np.array(BANDS[:-1]) + BANDS[1]) - BANDS[1] / 2
    shares = 100 * found.spectrum[:, index].numpy()
    axes.bar(places, shares[0], 0.8 * BANDS[1], color=_BLUE, label="the attack")
    axes.plot(places, shares[1:].T, "_", color=_ORANGE, markersize=12, label="noise")
    axes.set_title("share of the energy, %", fontsize=8)
    axes.set_xlabel("cycles a pixel", fontsize=8)
    axes = figure.add_subplot(1, 4, 4)
    channels = [str(each) for each in found.units[index].tolist()]
    if channels:
        answers = found.answers[index].numpy()
        axes.plot(answers[:, 0], "o", color="0.4", markersize=4, label="before")
        axes.plot(answers[:, 1], "o", color=_BLUE, markersize=4, label="the attack")
        axes.plot(answers[:, 2:], "_", color=_ORANGE, markersize=9, label="noise")
        axes.set_xticks(range(len(channels)), channels)
        axes.set_title(f"mean answer of {found.layer}'s channels", fontsize=8, parse_math=False)
    else:
        axes.set_visible(False)
    for each in figure.axes:
        each.tick_params(labelsize=7, which="both")
        for label in each.get_xticklabels():
            label.set_parse_math(False)
        if each.get_visible():
            handles = dict(zip(*reversed(each.get_legend_handles_labels()), strict=True))
            for text in each.legend(handles.values(), handles.keys(), fontsize=7, frameon=False).get_texts():
                text.set_parse_math(False)
    figure.suptitle(f"{found.method} on {found.images.names[index]}", fontsize=9).set_parse_math(False)
    return figure


def _size_axis(axes: Axes, label: str, reach: float) -> None:
    """Sizes in even steps up to one unit of the axis, logarithmic from there on."""
    unit = min(1.0, 10.0 ** np.floor(np.log10(max(reach, 1e-9) / 2)))
    axes.set_xlabel(label, fontsize=8)
    axes.set_xscale("symlog", linthresh=unit, linscale=0.5)
    axes.set_xlim(0, max(unit, reach) * 1.1)
    ticks = [0.0, *(unit * 2.0**k for k in range(12) if unit * 2**k <= reach * 1.001)]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.tick_params(labelsize=8)


def _plain(axis: Axis) -> None:
    """Numbers of a logarithmic axis as people write them, at 1, 2 and 5 times a power of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _legend(axes: Axes) -> None:
    for text in axes.legend(fontsize=7, frameon=False).get_texts():
        text.set_parse_math(False)


def filters(grid: FilterGrid) -> Figure:
    """The filters side by side on one scale, which its bar says, with their numbers where there is room; dead ones marked."""
    tiles = pictures.filter_tiles(grid.tiles.numpy(), grid.scale, 60)
    columns = min(16, len(tiles))
    numbers, dead = grid.numbers.tolist(), set(grid.dead.tolist())
    noun = "slices of filters" if grid.view == "slices" and grid.weights.shape[1] > 1 else "filters"
    shown = f"{len(tiles)} {noun}" if len(tiles) > 1 else "1 filter"
    left = "" if len(set(numbers)) == len(grid.norms) else f", of {len(grid.norms)}"
    figure = _sheet(pictures.montage(tiles, columns, 14), columns, f"{grid.layer}: {shown}{left}")
    axes = figure.axes[0]
    step = (tiles[0].width + 14, tiles[0].height + 14)
    for place, number in enumerate(numbers):
        x, y = place % columns * step[0] + tiles[0].width / 2, place // columns * step[1] + tiles[0].height + 2
        colour = _ORANGE if number in dead else "#555555"
        said = f"{number} dead" if number in dead else str(number)
        axes.text(x, y, said, fontsize=5, ha="center", va="top", color=colour)
    said = "colour" if grid.view == "colour" else "weight" if grid.view == "slices" else "norm over the inputs"
    _bar(figure, axes, "ramp-grey" if grid.view == "norm" else "grey", grid.scale, said)
    return figure


def activations(maps: ActivationMaps, index: int, over: bool = False) -> Figure:
    """The image and the maps that respond most to it, or with `over` those laid over it, all on the colour bar's scale."""
    _inside([index], len(maps.maps))
    values = maps.maps[index].numpy()
    scale = pictures.robust_scale(values)
    below = float(values.min()) < 0
    if over:
        photo = pictures.fitted(_photo(maps.images, index), 160)
        tiles = [pictures.overlay(photo, each, "signed" if below else "positive", scale).picture for each in values]
    else:
        tiles = pictures.map_tiles(values, scale, 112)
    columns = 4 if len(tiles) <= 16 else math.ceil(math.sqrt(len(tiles)))
    figure = _figure(8.2, 4.4)
    left = _bare(figure.add_subplot(1, 2, 1))
    left.imshow(np.asarray(_photo(maps.images, index)))
    left.set_title(maps.images.names[index], parse_math=False)
    right = _bare(figure.add_subplot(1, 2, 2))
    right.imshow(np.asarray(pictures.montage(tiles, columns, 5)))
    channels = words.some([str(channel) for channel in maps.channels[index].tolist()], 8)
    right.set_title(f"{maps.layer}: channels {channels}", fontsize=9, parse_math=False)
    kind = ("signed" if below else "positive") if over else ("layer" if below else "ramp")
    _bar(figure, right, kind, scale)
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


def _bar(figure: Figure, axes: Axes | list[Axes], kind: str, scale: float, label: str = "") -> None:
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


def exemplars(found: ExemplarSet, layer: str) -> Figure:
    """The drawn units of a layer, one a row: the windows that excite it most, the best on the left, and its histogram."""
    units, crops = found.drawn[layer].tolist(), None if found.crops is None else found.crops[layer].numpy()
    shown = found.values[layer].shape[1]
    figure = _figure(8.6, 0.95 * len(units) + 0.7)
    grid = figure.add_gridspec(len(units), 2, width_ratios=(max(4, min(shown, 9)), 2.6))
    figure.suptitle(f"{layer}: {len(units)} of {len(found.values[layer])} units", fontsize=10, parse_math=False)
    for row, unit in enumerate(units):
        left = _bare(figure.add_subplot(grid[row, 0]))
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
    axes.stairs(counts[first:last], np.arange(first, last + 1), fill=True, color=_BLUE)
    for place in np.interp(best, edges, np.arange(len(edges))):
        axes.axvline(place, 0, 0.18, color=_ORANGE, linewidth=1)
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
    figure = _figure(1.75 * columns + 0.4, 2.15 * lines + 0.3)
    for row in range(count):
        shown = [(found.snapshots[step, row], f"step {int(found.steps[step])}") for step in range(way)]
        for column, (pixels, below) in enumerate([*shown, (found.images.pixels[row], _said(found, row))]):
            place = row * columns + column if way else row
            axes = _bare(figure.add_subplot(lines, columns, place + 1))
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
        f"{name}: {words.percent(float(found.others_probability[place, row]))}"
        for place, name in enumerate(found.others)
    ]
    return "\n".join([own, *others])


def pairs(images: Images, others: torch.Tensor, title: str, said: Sequence[str], limit: int = 6) -> Figure:
    """Each photograph beside what was made of it, with what is said of that."""
    rows = min(len(images), limit)
    figure = _figure(5.4, 2.75 * rows + 0.3)
    for row in range(rows):
        for column, pixels in enumerate((images.pixels[row], others[row])):
            axes = _bare(figure.add_subplot(rows, 2, 2 * row + column + 1))
            axes.imshow(np.asarray(pictures.to_picture(pixels.numpy())))
            axes.set_xlabel(said[row] if column else images.names[row], fontsize=8, parse_math=False)
    left = f"; {rows} of {len(images)} images" if rows < len(images) else ""
    figure.suptitle(f"{title}{left}", fontsize=9, wrap=True).set_parse_math(False)
    return figure


def units(found: NamedUnits) -> Figure:
    """Every unit's class selectivity, sorted, over what labels drawn by lot reach; with masks, the best overlaps beside it."""
    rows = len(found.drawn)
    figure = _figure(8.6, 4.2 + 0.95 * rows)
    grid = figure.add_gridspec(1 + rows, 2, height_ratios=(4.2, *[0.95] * rows))
    left = figure.add_subplot(grid[0, :] if found.iou is None else grid[0, 0])
    order = found.selectivity.argsort(descending=True)
    across = np.arange(len(order))
    left.fill_between(
        across, found.floor[order].numpy(), color="#cccccc", step="mid", label="95 % of random labellings"
    )
    left.step(across, found.selectivity[order].numpy(), where="mid", color=_BLUE, label="selectivity")
    left.set_xlabel(f"{len(order)} units of {found.layer}, the most selective first", fontsize=8, parse_math=False)
    left.set_ylabel("class selectivity", fontsize=8)
    left.set_ylim(0, 1.02)
    _legend(left)
    above = [unit for unit in order.tolist() if found.selectivity[unit] > found.floor[unit]]
    names = [f"{unit}: {found.classes[int(found.best[unit])]}" for unit in above]
    left.set_title(words.some(names, 3) if names else "no unit is above its floor", fontsize=8, parse_math=False)
    if found.iou is not None:
        right = figure.add_subplot(grid[0, 1])
        best = found.iou.max(1)
        shown = best.values.argsort(descending=True)[:12].tolist()
        right.barh(np.arange(len(shown)), best.values[shown].numpy(), color=_ORANGE)
        labels = [f"{unit}: {found.concepts[int(best.indices[unit])]}" for unit in shown]
        right.set_yticks(np.arange(len(shown)), labels, fontsize=8)
        for tick in right.get_yticklabels():
            tick.set_parse_math(False)
        right.invert_yaxis()
        right.axvline(found.least, color="#555555", linestyle="--", linewidth=1)
        right.set_xlabel("IoU of the unit's strongest places with a concept", fontsize=8)
        for row, unit in enumerate(found.drawn.tolist()):
            line = _bare(figure.add_subplot(grid[1 + row, :]))
            tiles = [Image.fromarray(each.transpose(1, 2, 0)) for each in found.sheet[row].numpy()]
            line.imshow(np.asarray(pictures.montage(tiles, len(tiles), 4)), interpolation="bilinear")
            name = f"unit {unit}: {found.concepts[int(best.indices[unit])]}\nIoU {float(best.values[unit]):.2f}"
            line.set_ylabel(name, fontsize=8, rotation=0, ha="right", va="center", parse_math=False)
    return figure
