"""What layers answer to all of a set of images: means, sparsity, and units that say nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor

from seewhy.classifier import Classifier
from seewhy.data.sets import DataSet
from seewhy.engine import Cost, Meter
from seewhy.errors import InputError
from seewhy.lens.capture import capture, named, stages, trace
from seewhy.look.base import Look
from seewhy.look.exemplars import chosen_layers
from seewhy.look.stream import Pictures, left_out, parts, unread, watched
from seewhy.look.tally import Tally
from seewhy.result import save, shown

if TYPE_CHECKING:
    import os

    from matplotlib.figure import Figure


@dataclass(frozen=True)
class ActivationStatistics:
    """What is kept of each layer of C units over `count` images, by address, each (C,):

    `mean` and `deviation` of all values, `lowest` and `highest`, `zero`, the share of values at zero or below, `silent`, the
    share of images with no value above zero, and `dead`, whether every value was the same.
    """

    method: str
    count: int
    shapes: Mapping[str, tuple[int, ...]]
    mean: Mapping[str, Tensor]
    deviation: Mapping[str, Tensor]
    lowest: Mapping[str, Tensor]
    highest: Mapping[str, Tensor]
    zero: Mapping[str, Tensor]
    silent: Mapping[str, Tensor]
    dead: Mapping[str, Tensor]
    failed: tuple[tuple[int, str], ...]
    cost: Cost
    notes: tuple[str, ...]

    @property
    def layers(self) -> tuple[str, ...]:
        """The addresses, in the order in which they run."""
        return tuple(self.mean)

    @property
    def layer(self) -> str:
        """The addresses in one string."""
        return ", ".join(self.layers)

    def facts(self) -> dict[str, Any]:
        """A row for each layer as plain values."""
        rows = [
            {
                "layer": layer,
                "shape": list(self.shapes[layer]),
                "units": len(self.mean[layer]),
                "mean": float(self.mean[layer].mean()),
                "at or below zero": float(self.zero[layer].mean()),
                "silent": float(self.silent[layer].mean()),
                "dead": self.dead[layer].nonzero()[:, 0].tolist(),
                "lowest": float(self.lowest[layer].min()),
                "highest": float(self.highest[layer].max()),
            }
            for layer in self.layers
        ]
        return {"images": self.count, "layers": rows}

    def plot(self) -> Figure:
        """Each layer's units: the share of values at zero or below, the share that is dead, and the means."""
        from seewhy.report.looks import statistics

        return statistics(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to one open file, see `seewhy.result.save`."""
        save(self, path)

    def _repr_html_(self) -> str:
        return shown(self.plot(), self.method)


@final
@dataclass
class _Sums:
    """What a pass keeps of a layer of C units: of one size from the first image to the last."""

    total: Tensor
    squares: Tensor
    lowest: Tensor
    highest: Tensor
    zero: Tensor
    silent: Tensor
    values: int = 0

    @staticmethod
    def empty(units: int) -> _Sums:
        none = torch.zeros(units, dtype=torch.float64)
        ends = torch.full((units,), torch.inf)
        return _Sums(none, none.clone(), ends, -ends, none.clone(), none.clone())

    def add(self, found: Tensor, places: int) -> None:
        """Take in (N, C, 6), N 0 too: each image's sum, squares, lowest, highest, values at zero or below, and silence."""
        self.total += found[:, :, 0].sum(0)
        self.squares += found[:, :, 1].sum(0)
        self.lowest = torch.cat([self.lowest[None], found[:, :, 2].float()]).amin(0)
        self.highest = torch.cat([self.highest[None], found[:, :, 3].float()]).amax(0)
        self.zero += found[:, :, 4].sum(0)
        self.silent += found[:, :, 5].sum(0)
        self.values += len(found) * places


@dataclass(frozen=True)
class Statistics(Look):
    """For each unit (channel) of each layer, over all images and places: mean and deviation of a, min a, max a, P(a ≤ 0).

    Also the share of images to which it is silent (no value above zero), and whether it is dead: the same value everywhere,
    to every image, be it zero or a ceiling. `layers`: addresses as `seewhy model` prints them (none: what the last rectifier
    at each resolution answers). Answers an `ActivationStatistics`, each number (C,) a layer. The images may be a tensor,
    `Images`, a `DataSet` or a stream of batches.

    Raises `LayerError` for a layer that answers no maps or vectors. A picture that cannot be read, or that a layer does not
    answer in numbers, is a note.
    Cost: one forward pass an image, ended after the last layer; memory for one part of images, whatever their number.
    Limits: dead to these images is not dead to all: the fewer they are, the more units seem so. Zero and below is what a
    rectifier cuts away; of a layer without one it says only the sign.
    Source: lifetime sparseness as in Willmore & Tolhurst 2001; dead units as in Zeiler & Fergus 2014.

    >>> from torch import nn
    >>> module = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 2))
    >>> found = Statistics()(Classifier(module, size=8), torch.rand(5, 3, 8, 8))
    >>> found.layers, found.count, bool((found.lowest["1"] >= 0).all())
    (('1',), 5, True)
    """

    layers: tuple[str, ...] = ()

    name = "statistics"
    needs_images = True
    of_sets = True
    shows = "How much the units of each layer say over many images, and which say nothing."
    reading = (
        "Deep layers are sparse: most units are silent to most images. A dead unit says the same to every image; many of them "
        "are capacity that was paid for and is not used."
    )
    source = "Willmore & Tolhurst 2001; Zeiler & Fergus 2014"

    def check(self, net: Classifier) -> None:
        chosen_layers(net, self.layers or rectified(net))

    def __call__(self, net: Classifier, images: Pictures | None = None) -> ActivationStatistics:
        if images is None:
            raise InputError("statistics are of answers to images: give some")
        with Meter(net.engine.device) as meter:
            asked = chosen_layers(net, self.layers or rectified(net))
            shapes = {each.address: tuple(each.shape[1:]) for each in trace(net) if each.address in asked}
            sums = {layer: _Sums.empty(shape[0]) for layer, shape in shapes.items()}
            places = {layer: math.prod(shape[1:]) for layer, shape in shapes.items()}
            failed, strange, count = self._pass(net, images, sums, places)
        if strange and not count:
            raise InputError(f"{strange[0][1]}, and no image is left; choose another layer")
        if not count:
            raise unread(failed)
        mean = {layer: each.total / each.values for layer, each in sums.items()}
        variance = {layer: each.squares / each.values - mean[layer].square() for layer, each in sums.items()}
        dead = {layer: each.lowest == each.highest for layer, each in sums.items()}
        return ActivationStatistics(
            method=self.spec,
            count=count,
            shapes=shapes,
            mean={layer: value.float() for layer, value in mean.items()},
            deviation={layer: value.clamp_min(0).sqrt().float() for layer, value in variance.items()},
            lowest={layer: each.lowest for layer, each in sums.items()},
            highest={layer: each.highest for layer, each in sums.items()},
            zero={layer: (each.zero / each.values).float() for layer, each in sums.items()},
            silent={layer: (each.silent / count).float() for layer, each in sums.items()},
            dead=dead,
            failed=tuple(sorted([*failed, *strange])),
            cost=meter.cost,
            notes=tuple(_said(failed, strange, count, dead)),
        )

    def _pass(
        self, net: Classifier, images: Pictures, sums: dict[str, _Sums], places: Mapping[str, int]
    ) -> tuple[list[tuple[int, str]], list[tuple[int, str]], int]:
        """Take in every image; answers those that could not be read, those not answered in numbers, and how many are left."""
        failed: list[tuple[int, str]] = []
        strange: list[tuple[int, str]] = []
        count = 0
        classes = images.classes if isinstance(images, DataSet) and images.classes else net.labels

        def run(batch: Tensor, where: slice) -> Tensor:
            maps = capture(net, batch, list(sums))
            return torch.cat([_each(maps[layer]) for layer in sums], 1).cpu()

        with watched(net, images) as tell:
            for part in parts(net, images, 0, Tally.empty(classes)):
                failed += part.failed
                if part.images is not None:
                    answer = net.engine.map(run, part.images.pixels, "forward")
                    good = answer.isfinite().flatten(1).all(1)
                    own = answer.split([len(each.total) for each in sums.values()], 1)
                    for place in (~good).nonzero()[:, 0].tolist():
                        layer = next(a for a, found in zip(sums, own, strict=True) if not found[place].isfinite().all())
                        because = f"{layer} answers infinite values or no numbers to {part.names[place]}"
                        strange.append((int(part.indices[place]), because))
                    for (layer, each), found in zip(sums.items(), own, strict=True):
                        each.add(found[good], places[layer])
                    count += int(good.sum())
                tell(count + len(failed) + len(strange))
        return failed, strange, count


def rectified(net: Classifier) -> tuple[str, ...]:
    """What the last rectifier at each resolution answers, from shallow to deep; without rectifiers the stages' maps."""
    last = {each.shape[2:]: each for each in trace(net) if each.kind == "rectifier" and each.spatial}
    order = [each.address for each in trace(net)]
    return tuple(
        named(net, each.address) for each in sorted(last.values(), key=lambda each: order.index(each.address))
    ) or stages(net)


def _said(
    failed: list[tuple[int, str]], strange: list[tuple[int, str]], count: int, dead: Mapping[str, Tensor]
) -> Iterator[str]:
    """What a reader should know."""
    total = count + len(failed) + len(strange)
    if failed:
        index, sentence = failed[0]
        more = f", and {len(failed) - 1} more" if len(failed) > 1 else ""
        yield f"{len(failed)} of {total:,} images could not be read: number {index}, {sentence}{more}"
    if strange:
        yield left_out(strange, total)
    for layer, which in dead.items():
        if bool(which.any()):
            numbers = [str(each) for each in which.nonzero()[:, 0].tolist()]
            told = ", ".join(numbers[:12]) + (f" and {len(numbers) - 12} more" if len(numbers) > 12 else "")
            yield f"{len(numbers)} of {len(which)} units of {layer} answer the same to every image: {told}"
    if count < 100:
        yield f"{count} {'image is' if count == 1 else 'images are'} few: units that look dead may answer to others"


def _each(maps: Tensor) -> Tensor:
    """Of answers (N, C, …) each image's and unit's (N, C, 6) sum, squares, lowest, highest, number at zero or below, silence."""
    flat = maps.float().reshape(*maps.shape[:2], -1)
    low, high = flat.aminmax(dim=2)
    found = (flat.sum(2), flat.square().sum(2), low, high, (flat <= 0).sum(2), high <= 0)
    return torch.stack([each.double() for each in found], 2)
