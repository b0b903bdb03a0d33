"""Figures of attacks: what an image became, how far it had to go, whom it fools, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from seewhy.report import drawing, pictures, words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

    from seewhy.attack.base import Adversarial
    from seewhy.attack.compare import Comparison, Transfer
    from seewhy.attack.defences import Detector
    from seewhy.attack.why_it_fails import Diagnosis


def attack(adversarial: Adversarial, index: int) -> Figure:
    """The original, the adversarial image, their difference (the factor is said), and confidence against ε.

    Shown is the smallest size that fools, or the largest that was tried where none does.
    """
    drawing.inside([index], len(adversarial.labels))
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

    figure = drawing.canvas(11.5, 3.3)
    shown = (
        (pictures.to_picture(original), f"{names[now]}, {words.percent(float(start[now]))}"),
        (pictures.to_picture(changed), f"{names[after]}, {words.percent(float(end[after]))}\n{told(size)}"),
        (difference, f"difference × {factor}\n(grey: none)"),
    )
    for place, (picture, title) in enumerate(shown):
        axes = drawing.bare(figure.add_subplot(1, 4, place + 1))
        axes.imshow(np.asarray(picture))
        axes.set_title(title, fontsize=9, parse_math=False)
    axes = figure.add_subplot(1, 4, 4)
    eps, probabilities = adversarial.curve(index)
    scale, label = words.axis(adversarial.norm, original.size)
    steps = scale * eps.numpy()
    axes.plot(steps, probabilities[:, before].numpy(), "o-", color=drawing.BLUE, markersize=3, label=names[before])
    if after != before:
        axes.plot(steps, probabilities[:, after].numpy(), "s--", color=drawing.ORANGE, markersize=3, label=names[after])
    if fooled:
        axes.axvline(scale * float(adversarial.smallest_eps[index]), color="0.4", linewidth=1, linestyle=":")
    title = f"fooled at {told(size)}" if fooled else f"not fooled up to {told(float(eps.max()))}"
    if bool(adversarial.wrong_at_start[index]):
        title = "wrong before the attack"
    axes.set_title(title, fontsize=9, parse_math=False)
    axes.set_ylabel("probability", fontsize=8)
    axes.set_ylim(-0.02, 1.02)
    _size_axis(axes, label, float(steps.max()))
    drawing.legend(axes)
    return figure


def strip(adversarial: Adversarial, index: int, count: int = 6) -> Figure:
    """One image at several sizes of the change, from none on, each with what the model says of it."""
    drawing.inside([index], len(adversarial.labels))
    levels = adversarial.strip(index, count)
    names, values = adversarial.names, adversarial.original.pixels[index].numel()
    figure = drawing.canvas(1.75 * (len(levels) + 1), 2.35)
    for place, level in enumerate([None, *levels]):
        axes = drawing.bare(figure.add_subplot(1, len(levels) + 1, place + 1))
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
        axes.set_xlabel(told, fontsize=8, color=drawing.ORANGE if fooled else "black", parse_math=False)
    return figure


def accuracy(found: Comparison) -> Figure:
    """The share of images right at the start that stay right, against ε: every attack, with Wilson's interval of 95 %.

    A plot for each norm: sizes in different norms cannot be compared.
    """
    norms = list(dict.fromkeys(found.norms))
    figure = drawing.canvas(5.2 * len(norms), 3.6)
    values = found.images.pixels[0].numel()
    for place, norm in enumerate(norms):
        axes = figure.add_subplot(1, len(norms), place + 1)
        chosen = [number for number, each in enumerate(found.norms) if each == norm]
        scale, label = words.axis(norm, values)
        there = found.smallest[chosen]
        largest = 1.25 * float(there[there.isfinite()].max()) if bool(there.isfinite().any()) else 1.0
        for order, number in enumerate(chosen):
            colour, dash = drawing.SERIES[order % len(drawing.SERIES)], drawing.DASHES[order % len(drawing.DASHES)]
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
        drawing.legend(axes)
    figure.suptitle(f"{words.many(found.fair, 'image')} right at the start; bands: 95 % (Wilson)", fontsize=9)
    return figure


def distances(found: Comparison) -> Figure:
    """Each attack's smallest distances, an image a dot, with their median over all; those not fooled stand at the right."""
    figure = drawing.canvas(6.4, 0.9 + 0.55 * len(found.attacks))
    axes = figure.add_subplot()
    kept = ~found.wrong_at_start
    every = 255 * found.distances["rms"][:, kept].numpy()
    finite = every[np.isfinite(every)]
    low, high = (finite.min() / 1.3, finite.max() * 1.3) if finite.size else (0.1, 10.0)
    aside = high * (high / low) ** 0.07
    for row, values in enumerate(every):
        there, colour = np.isfinite(values), drawing.SERIES[row % len(drawing.SERIES)]
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
    figure = drawing.canvas(2.4 + 1.0 * len(found.victims), 1.6 + 0.6 * len(found.sources))
    axes = figure.add_subplot()
    share = found.share.numpy()
    colours = np.rint(pictures.white_to(np.nan_to_num(share), "positive")).astype(np.uint8)
    axes.imshow(colours, aspect="auto")
    for row in range(len(found.sources)):
        for column in range(len(found.victims)):
            of = int(found.of[row, column])
            text = f"{share[row, column]:.0%}\n{int(found.fooled[row, column])} of {of}" if of else "–"
            ink = pictures.ink(colours[row, column])
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
    figure = drawing.canvas(3.8, 3.8)
    axes = figure.add_subplot()
    alarms, detections = found.curve()
    axes.plot([0, 1], [0, 1], ":", color="0.5", label="chance")
    axes.plot(alarms.numpy(), detections.numpy(), "-", color=drawing.BLUE, label=", ".join(found.squeezers))
    axes.set_xlabel(f"false alarms, of {words.many(len(found.clean), 'clean image')}", fontsize=8)
    axes.set_ylabel(f"detections, of {words.many(len(found.adversarial), 'adversarial image')}", fontsize=8)
    axes.set_title(f"area {found.auc:.3f}; {words.percent(found.detections())} at 5 % false alarms", fontsize=9)
    axes.tick_params(labelsize=8)
    drawing.legend(axes)
    return figure


def diagnosis(found: Diagnosis, index: int) -> Figure:
    """The fall of the gap, the growth through the layers, the spectrum and the units that changed most, each with noise."""
    from seewhy.attack.why_it_fails import BANDS, SHARES

    drawing.inside([index], len(found.before))
    figure = drawing.canvas(12.5, 3.4)
    axes = figure.add_subplot(1, 4, 1)
    gaps = found.gaps[:, index].numpy()
    axes.axhline(0, color="0.7", linewidth=0.8)
    axes.plot(SHARES, gaps, "o-", color=drawing.BLUE, markersize=3, label="the attack")
    axes.plot([0, 1], [gaps[0], gaps[0] - float(found.linear[0, index])], "--", color="0.4", label="by the gradient")
    for fall in found.falls[1:, index].tolist():
        axes.plot([0, 1], [gaps[0], gaps[0] - fall], "-", color=drawing.ORANGE, linewidth=1, label="noise")
    names = [found.names[int(each[index])] for each in (found.before, found.after)]
    axes.set_title(f"logit of {names[0]} − {names[1]}", fontsize=8, parse_math=False, wrap=True)
    axes.set_xlabel("share of the change", fontsize=8)
    axes = figure.add_subplot(1, 4, 2)
    growth = 100 * found.growth[:, :, index].numpy()
    axes.semilogy(growth[:, 0], "o-", color=drawing.BLUE, markersize=3, label="the attack")
    axes.semilogy(growth[:, 1:], "-", color=drawing.ORANGE, linewidth=1, label="noise")
    axes.set_xticks(range(len(found.layers)), found.layers, rotation=60, ha="right", rotation_mode="anchor")
    axes.set_title("change of each answer, % of its length", fontsize=8)
    _plain(axes.yaxis)
    axes = figure.add_subplot(1, 4, 3)
    places = (np.array(BANDS[:-1]) + BANDS[1]) - BANDS[1] / 2
    shares = 100 * found.spectrum[:, index].numpy()
    axes.bar(places, shares[0], 0.8 * BANDS[1], color=drawing.BLUE, label="the attack")
    axes.plot(places, shares[1:].T, "_", color=drawing.ORANGE, markersize=12, label="noise")
    axes.set_title("share of the energy, %", fontsize=8)
    axes.set_xlabel("cycles a pixel", fontsize=8)
    axes = figure.add_subplot(1, 4, 4)
    channels = [str(each) for each in found.units[index].tolist()]
    if channels:
        answers = found.answers[index].numpy()
        axes.plot(answers[:, 0], "o", color="0.4", markersize=4, label="before")
        axes.plot(answers[:, 1], "o", color=drawing.BLUE, markersize=4, label="the attack")
        axes.plot(answers[:, 2:], "_", color=drawing.ORANGE, markersize=9, label="noise")
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
