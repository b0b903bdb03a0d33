"""The images, and the windows of them, that excite each unit most: one pass over any number of images."""

from __future__ import annotations

import json
import math
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from seewhy.classifier import Classifier
from seewhy.data.images import Images
from seewhy.data.sets import DataSet
from seewhy.engine import Cost, Meter
from seewhy.errors import InputError, LayerError, SpecError, UnknownOperation
from seewhy.lens.capture import capture, find, last_map, trace
from seewhy.lens.receptive import Field, receptive_fields
from seewhy.look.base import Look
from seewhy.look.crops import crops
from seewhy.look.stream import Part, Pictures, one_of, parts, unread, watched
from seewhy.look.tally import BINS, Rows, Tally, edges, mark
from seewhy.result import save, shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: after how many seconds at least a state is written
EVERY = 10.0

#: two units whose sets have more than this share in common are not both drawn
_SHARED = 1 / 3

#: the share of the mean square up to which a variance is rounding: values are float32 of passes of any size
_ROUNDING = 1e-12

#: operations with a ceiling, where peaks are cut off
_CEILINGS = frozenset({"hardtanh", "sigmoid", "hardsigmoid", "tanh"})


@dataclass(frozen=True)
class ExemplarSet:
    """The images that excite each unit most. Of each layer of C units, by address, the best first:

    `values`, `images`, `labels` (C, k): the response, the image's place in the data and its class (−1: unknown); −∞ and −1
    where fewer images excite it;
    `positions` (C, k, 2): row and column on the map; `windows` (C, k, 4): (top, left, bottom, right) in the pixels that
    the model sees, the unit's receptive field there, inside the image. `purity` (C,): the share of the commonest class
    among the labelled exemplars, NaN without. `histogram` (C, BINS) counts each unit's peaks in all images between
    `edges` (BINS + 1,); `mean` and `deviation` (C,) are theirs; `class_means` (C, classes) by class, NaN where a class
    has no image. Answers that are no numbers count nowhere. `names` are those of the images `named` (M,). `drawn` are the
    units whose crops `crops` (U, k, 3, side, side), 8 bits, hold for the figure; None where the images came as a
    stream that ends.
    """

    method: str
    classes: tuple[str, ...]
    count: int
    values: Mapping[str, Tensor]
    images: Mapping[str, Tensor]
    labels: Mapping[str, Tensor]
    positions: Mapping[str, Tensor]
    windows: Mapping[str, Tensor]
    purity: Mapping[str, Tensor]
    histogram: Mapping[str, Tensor]
    edges: Tensor
    mean: Mapping[str, Tensor]
    deviation: Mapping[str, Tensor]
    class_means: Mapping[str, Tensor]
    named: Tensor
    names: tuple[str, ...]
    drawn: Mapping[str, Tensor]
    crops: Mapping[str, Tensor] | None
    failed: tuple[tuple[int, str], ...]
    cost: Cost
    notes: tuple[str, ...]

    @property
    def layers(self) -> tuple[str, ...]:
        """The addresses."""
        return tuple(self.values)

    @property
    def layer(self) -> str:
        """The addresses in one string."""
        return ", ".join(self.layers)

    def name(self, image: int) -> str:
        """The name of an image that is among the best; raises `InputError` for another."""
        place = int(torch.searchsorted(self.named, image))
        if place == len(self.named) or int(self.named[place]) != image:
            raise InputError(f"image {image} is no unit's exemplar")
        return self.names[place]

    def cut(self, layer: str, unit: int, images: Images | Tensor | DataSet, net: Classifier) -> list[Tensor]:
        """The exact crops (3, h, w) of one unit, the best first, out of the images that were looked at."""
        layer = self._checked(layer, unit)
        found = []
        for index, window in zip(self.images[layer][unit].tolist(), self.windows[layer][unit].tolist(), strict=True):
            if index >= 0:
                top, left, bottom, right = window
                found.append(one_of(images, index, net)[:, top:bottom, left:right])
        return found

    def classes_of(self, layer: str, unit: int) -> list[tuple[str, int, float]]:
        """A unit's classes: (name, how many of its exemplars, the class's mean response), the most exemplars first."""
        layer = self._checked(layer, unit)
        counted = Counter(label for label in self.labels[layer][unit].tolist() if label >= 0)
        means = self.class_means[layer][unit]
        order = sorted(counted, key=lambda label: (-counted[label], -float(means[label])))
        return [(self.classes[label], counted[label], float(means[label])) for label in order]

    def units_of(self, layer: str, label: int, count: int = 8) -> list[tuple[int, float]]:
        """A class's units: (unit, score), the highest first; (the class's mean response − mean) / deviation."""
        layer = self._checked(layer, 0)
        if not 0 <= label < len(self.classes):
            raise InputError(f"expected a class from 0 to {len(self.classes) - 1}, got {label}")
        score = (self.class_means[layer][:, label] - self.mean[layer]) / self.deviation[layer]
        score = score.masked_fill(~score.isfinite(), -torch.inf)  # a unit that answers alike to all images
        best = score.topk(min(count, len(score)))
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return [(unit, value) for unit, value in pairs if value > -torch.inf]

    def facts(self) -> dict[str, Any]:
        """The drawn units of each layer as plain values: their exemplars with places, and their classes."""
        return {
            "images": self.count,
            "layers": {
                layer: {"units": len(self.values[layer]), "drawn": [self._unit(layer, u) for u in drawn.tolist()]}
                for layer, drawn in self.drawn.items()
            },
            "failed": [{"image": index, "error": sentence} for index, sentence in self.failed],
        }

    def _unit(self, layer: str, unit: int) -> dict[str, Any]:
        there = [slot for slot, image in enumerate(self.images[layer][unit].tolist()) if image >= 0]
        purity = float(self.purity[layer][unit])
        return {
            "unit": unit,
            "purity": None if math.isnan(purity) else purity,
            "classes": [
                {"class": name, "exemplars": count, "mean": mean} for name, count, mean in self.classes_of(layer, unit)
            ],
            "exemplars": [
                {
                    "image": self.name(int(self.images[layer][unit, slot])),
                    "value": float(self.values[layer][unit, slot]),
                    "window": self.windows[layer][unit, slot].tolist(),
                }
                for slot in there
            ],
        }

    def _checked(self, layer: str, unit: int) -> str:
        if layer not in self.values:
            raise LayerError(f'these are exemplars of {self.layer}; there are none of "{layer}"')
        units = len(self.values[layer])
        if not 0 <= unit < units:
            raise InputError(f"{layer} has units 0 to {units - 1}; there is no unit {unit}")
        return layer

    def plot(self, layer: str | None = None) -> Figure:
        """The crops of the drawn units of a layer (None: the last), each row with its histogram."""
        from seewhy.report.learned import exemplars

        return exemplars(self, self._checked(layer or self.layers[-1], 0))

    def plot_classes(self, layer: str | None = None, count: int = 3, limit: int = 12) -> Figure:
        """Units by class: the `count` units that answer most to each of the `limit` most clearly answered classes.

        Raises `InputError` where no image had a class.
        """
        from seewhy.report.looks import units_by_class

        return units_by_class(self, self._checked(layer or self.layers[-1], 0), count, limit)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to one open file, see `seewhy.result.save`."""
        save(self, path)

    def _repr_html_(self) -> str:
        return shown(self.plot(), self.method)


@dataclass(frozen=True)
class Exemplars(Look):
    """For each unit (channel) c of each layer the k images x, and the windows of them, with the largest max over p of a_c,p(x).

    Of a rectified layer, whose answers are never below zero, images that leave a unit at zero are none of its exemplars.

    `layers`: addresses as `seewhy model` prints them, all of them in one pass; none: the last spatial map, or what goes into
    it where a ceiling such as ReLU6's would make many peaks the same. `k`: how many.
    `per_image`: at most so many of one picture; then a place is taken only if its window overlaps none of the higher ones
    (non-maximum suppression). `units`: which to draw; none: the `limit` units whose exemplars lie, on average, farthest
    beyond what nine of ten images reach, in units of the range of the middle eight tenths, passing over units that share
    more than a third of their images with one already chosen. Classes have no say in it, so that purity is not picked.
    Answers an `ExemplarSet`. The images may be a tensor, `Images`, a `DataSet` or a stream; a vector's units have one
    place, and the whole image for a window.

    Raises `LayerError` for a layer that answers no maps or vectors, `InputError` for images of another size than the
    model's, or labels that it has no class for; a picture that cannot be read is a note.
    Cost: one forward pass an image, ended after the last layer, one to carry windows and one for each drawn image; memory
    for `PART` images and, whatever their number, about 4 kB and 12 bytes a class for each unit.
    Limits: windows are bounding; where gates bring in the whole image, they are those without the gates. Values are
    float32 of one batch: images whose responses agree to the last digits may change places with the batch's size.
    Deviation: the histogram is of each image's peak, not of all places, in bins of at most 12.5 % of the value.
    Source: Girshick et al. 2014, arXiv 1311.2524, section 3.1; Zeiler & Fergus 2014.

    >>> from torch import nn
    >>> module = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 2))
    >>> found = Exemplars(k=2)(Classifier(module, size=8), torch.rand(5, 3, 8, 8))
    >>> found.layers, found.windows["1"].shape
    (('1',), torch.Size([2, 2, 4]))
    """

    layers: tuple[str, ...] = ()
    k: int = 9
    per_image: int = 1
    units: tuple[int, ...] = ()
    limit: int = 8

    name = "exemplars"
    needs_images = True
    of_sets = True
    shows = "Which parts of which images excite each unit most."
    reading = (
        "A row is one unit. What its crops have in common is what it looks for; where they have nothing in common, it "
        "looks for nothing that has a name. The histogram says how rare such a response is."
    )
    source = "Girshick et al. 2014, arXiv 1311.2524"

    def __post_init__(self) -> None:
        if self.k < 1 or self.per_image < 1 or self.limit < 1:
            raise SpecError(
                f"expected k, per_image and limit ≥ 1, got k={self.k}, per_image={self.per_image}, limit={self.limit}"
            )

    @property
    def passes(self) -> tuple[int, int]:
        return 2, 0  # of one image: its own, and the one that carries windows

    def check(self, net: Classifier) -> None:
        self._layers(net)

    def __call__(self, net: Classifier, images: Pictures | None = None) -> ExemplarSet:
        if images is None:
            raise InputError("exemplars are found among images: give some")
        with Meter(net.engine.device) as meter:
            fields = _fields(net)
            state = self._tallied(net, images, None, 0, fields[0])
        return self._found(net, state, images, fields, meter.cost)

    def tally(
        self,
        net: Classifier,
        images: Pictures,
        state: Tally | None = None,
        *,
        first: int = 0,
        path: str | os.PathLike[str] | None = None,
    ) -> Tally:
        """The pass alone: what it keeps, to be gone on with, merged with another's, and read by `result`.

        Image i of `images` is number `first` + i; those that `state` has seen are passed over. With `path`, the state is
        written there as it goes, and is where a pass that was stopped goes on from.

        Raises `InputError`, naming what differs, for a state of another model, of other settings, or of images that are not
        those that are given: a data set's are compared by their names, others by their pixels.
        """
        if path is not None and state is None and Path(path).exists():
            state = Tally.load(path)
        fields = _fields(net)[0] if self.per_image > 1 else {}
        return self._tallied(net, images, state, first, fields, path)

    def result(self, net: Classifier, state: Tally, images: Pictures | None = None) -> ExemplarSet:
        """What a state has found; `images` are all that it has seen, for the crops of the figure.

        Raises `InputError` as `tally` does.
        """
        named = images.classes if isinstance(images, DataSet) else ()
        state.fits(self._key(net), named or state.classes)
        if isinstance(images, DataSet):
            for index in [each for each in state.names if each < len(images)]:
                state.recognise(index, images.names[index])
        with Meter(net.engine.device) as meter:
            fields = _fields(net)
        return self._found(net, state, images, fields, meter.cost)

    def _tallied(
        self,
        net: Classifier,
        images: Pictures,
        state: Tally | None,
        first: int,
        fields: Mapping[str, Field],
        path: str | os.PathLike[str] | None = None,
    ) -> Tally:
        key = self._key(net)
        layers = key["layers"]
        classes = images.classes if isinstance(images, DataSet) and images.classes else net.labels
        if state is None:
            seen = {each.address: each.shape for each in trace(net)}
            shapes = {address: (*seen[address][1:], 1, 1)[:3] for address in layers}
            rows = {a: Rows.empty(s[0], (s[1], s[2]), self.k, len(classes)) for a, s in shapes.items()}
            state = Tally.empty(classes, key, rows)
        else:
            state.fits(key, classes)
        apart = (
            {a: _overlaps(fields.get(a), rows.size) for a, rows in state.layers.items()} if self.per_image > 1 else {}
        )
        given, saved = len(state), time.monotonic()
        with watched(net, images) as tell:
            for part in parts(net, images, first, state):
                self._step(net, part, state, apart)
                tell(len(state))
                if path is not None and time.monotonic() - saved > EVERY:
                    state.save(path)
                    saved = time.monotonic()
        if not state.images:
            raise unread(state.failed)
        if path is not None and len(state) > given:
            state.save(path)
        return state

    def _layers(self, net: Classifier) -> list[str]:
        """The addresses of the layers, checked to have the units that are asked for."""
        layers = chosen_layers(net, self.layers or (uncut(net),))
        for each in trace(net):
            wrong = [unit for unit in self.units if not 0 <= unit < each.shape[1]] if each.address in layers else []
            if wrong:
                raise InputError(f"{each.address} has units 0 to {each.shape[1] - 1}; there is no unit {wrong[0]}")
        return layers

    def _key(self, net: Classifier) -> dict[str, Any]:
        """What a state depends on beside the images, as plain values."""
        own = {"method": self.name, "k": self.k, "per_image": self.per_image, "layers": self._layers(net)}
        given = {**asdict(net.preprocess), "size": net.size, "mean": net.mean, "std": net.std}
        plain: dict[str, Any] = json.loads(json.dumps({**own, "model": net.fingerprint, **given}))
        return plain

    def _step(self, net: Classifier, part: Part, state: Tally, apart: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """One part, whole or not at all: the state changes after the pass has been done."""
        pixels = part.images.pixels if part.images else None
        if pixels is not None:
            layers = list(state.layers)

            def run(batch: Tensor, where: slice) -> Tensor:
                maps = capture(net, batch, layers)
                first = int(part.indices[where.start])  # of a batch, the earliest: at worst a rival too many
                found = [self._peaks(maps[a], state.layers[a], apart.get(a), first) for a in layers]
                return torch.cat(found, 1)

            answer = net.engine.map(run, pixels, "forward")
            start = 0
            for rows in state.layers.values():
                own = answer[:, start : start + len(rows.values)]
                start += len(rows.values)
                state.strange += int((~own[..., 0, 0].isfinite()).sum())
                rows.add(own[:, :, 0].float(), own[:, :, 1].long(), part.indices, part.labels)
            state.per_class += torch.bincount(part.labels[part.labels >= 0], minlength=len(state.per_class))
            state.names |= zip(part.indices.tolist(), part.names, strict=True)
            state.forget()
            for index, image in zip(part.indices.tolist(), pixels, strict=True):
                if index in state.names:
                    state.marks[index] = mark(image)
        state.failed += part.failed
        for start, stop in part.stretches:
            state.saw(start, stop)

    def _peaks(self, maps: Tensor, rows: Rows, apart: tuple[Tensor, Tensor] | None, first: int) -> Tensor:
        """Peaks and places (N, C, 2, p) of maps (N, C, h, w); of those that are no rivals the places are −1."""
        if maps.ndim == 2:
            maps = maps[:, :, None, None]
        if maps.shape[2:] != rows.size:
            raise LayerError(f"expected maps of {rows.size} as for a single image, got {tuple(maps.shape[2:])}")
        if apart is None:
            peaks = maps.amax((2, 3)).double().cpu()
            rivals = rows.rivals(peaks, first).nonzero()
            places = torch.full_like(peaks, -1)
            image, unit = rivals[:, 0], rivals[:, 1]
            held = maps[image.to(maps.device), unit.to(maps.device)].flatten(1)
            places[image, unit] = held.argmax(1).double().cpu()
            return torch.stack([peaks, places], 2)[..., None]
        flat, (rows_apart, columns_apart) = maps.float().clone(), apart
        found = []
        for _ in range(self.per_image):
            best = flat.flatten(2).max(2)
            found.append(torch.stack([best.values.double(), best.indices.double()], 2).cpu())
            down, across = best.indices // maps.shape[3], best.indices % maps.shape[3]
            near = rows_apart.to(maps.device)[down][..., None] & columns_apart.to(maps.device)[across][:, :, None]
            flat.masked_fill_(near, -torch.inf)
        return torch.stack(found, 3)

    def _found(
        self,
        net: Classifier,
        state: Tally,
        images: Pictures | None,
        fields: tuple[Mapping[str, Field], tuple[str, ...]],
        cost: Cost,
    ) -> ExemplarSet:
        windows_of, notes = fields[0], [*fields[1]]
        held = {address: _answering(rows) for address, rows in state.layers.items()}
        positions, windows = {}, {}
        for address, rows in held.items():
            width = rows.size[1]
            none = rows.images < 0
            down, across = rows.places // width, rows.places % width
            positions[address] = torch.stack([down, across], -1).masked_fill(none[..., None], -1)
            windows[address] = _windows(windows_of.get(address), down, across, net.size).masked_fill(none[..., None], 0)
            known = windows_of.get(address)
            if known is not None and known.gated:
                notes.append(f"{address}: gates bring in the whole image; the windows are those without the gates")
        numbers = {address: rows.counts.sum(1) for address, rows in held.items()}
        mean = {address: rows.total / numbers[address] for address, rows in held.items()}
        deviation = {a: _deviation(rows.squares / numbers[a], mean[a]) for a, rows in held.items()}
        purity = {address: _purity(rows.labels, len(state.classes)) for address, rows in held.items()}
        drawn = {a: self._chosen(state.layers[a], rows.images) for a, rows in held.items()}
        rereadable = isinstance(images, Tensor | Images | DataSet)
        pictures = None
        if isinstance(images, Tensor | Images | DataSet):
            pictures = crops(net, images, state, held, windows, drawn)
        best = {index for rows in held.values() for index in rows.images.unique().tolist()}
        order = sorted(best & set(state.names))
        return ExemplarSet(
            method=self.spec,
            classes=state.classes,
            count=state.images,
            values={address: rows.values.clone() for address, rows in held.items()},
            images={address: rows.images.clone() for address, rows in held.items()},
            labels={address: rows.labels.clone() for address, rows in held.items()},
            positions=positions,
            windows=windows,
            purity=purity,
            histogram={address: rows.counts.clone() for address, rows in held.items()},
            edges=edges(),
            mean={address: value.float() for address, value in mean.items()},
            deviation={address: value.float() for address, value in deviation.items()},
            class_means={address: (rows.classes / rows.members).float() for address, rows in held.items()},
            named=torch.tensor(order, dtype=torch.int64),
            names=tuple(state.names[index] for index in order),
            drawn=drawn,
            crops=pictures,
            failed=tuple(state.failed),
            cost=cost,
            notes=(*notes, *self._said(state, held, rereadable)),
        )

    def _chosen(self, rows: Rows, exciting: Tensor) -> Tensor:
        """The units to draw: as asked for, or those that stand out most, no two with much the same images."""
        if self.units:
            return torch.tensor(self.units)
        beyond = _beyond(rows).masked_fill(exciting[:, 0] < 0, -torch.inf)  # silent ones come last
        order = beyond.argsort(descending=True, stable=True).tolist()
        images = [{index for index in line if index >= 0} for line in exciting.tolist()]
        chosen: list[int] = []
        for unit in order:
            if len(chosen) == self.limit:
                break
            if images[unit] and all(
                len(images[unit] & images[other]) <= _SHARED * len(images[unit]) for other in chosen
            ):
                chosen.append(unit)
        left = (unit for unit in order if unit not in set(chosen))
        return torch.tensor(sorted([*chosen, *left][: self.limit] if len(chosen) < self.limit else chosen))

    def _said(self, state: Tally, held: Mapping[str, Rows], rereadable: bool) -> Iterator[str]:
        """What a reader should know."""
        if state.failed:
            index, sentence = state.failed[0]
            more = f", and {len(state.failed) - 1} more" if len(state.failed) > 1 else ""
            yield f"{len(state.failed)} of {len(state):,} images could not be read: number {index}, {sentence}{more}"
        if self.k > state.images * self.per_image:
            yield f"k = {self.k} of {state.images} {'image' if state.images == 1 else 'images'}: fewer exemplars than asked for"
        if state.strange:
            yield f"{state.strange} responses were infinite or not a number, and are not counted"
        if int((state.per_class > 0).sum()) == 1:
            name = state.classes[int(state.per_class.argmax())]
            yield f'all labelled images are of one class, "{name}": purity says nothing'
        for address, rows in state.layers.items():
            dead = int((rows.values[:, 0] <= 0).sum())
            if dead:
                yield f"{dead} of {len(rows.values)} units of {address} answer above zero to no image"
            some = held[address].images >= 0
            fewer = int((some[:, 0] & (some.sum(1) < (rows.images >= 0).sum(1))).sum())
            if fewer:
                told = f"{fewer} of {len(rows.values)} units of {address} have fewer exemplars than asked for"
                yield f"{told}: all else leaves them at zero"
            tied = int(((rows.values[:, :1] == rows.values[:, 1:2]) & (rows.values[:, :1] > 0)).any(1).sum())
            if self.per_image == 1 and 20 * tied > len(rows.values):
                yield (
                    f"{tied} of {len(rows.values)} units of {address} answer their largest value to several images, which "
                    "come in the order of the data: the images are the same, or something cuts them off; choose what goes into it"
                )
        if not rereadable:
            yield "the images came as a stream, so no crops are drawn; cut() takes them out of the data set"


def chosen_layers(net: Classifier, asked: Sequence[str]) -> list[str]:
    """The addresses asked for (none: the last spatial map), checked to answer maps or vectors."""
    layers = [find(net, layer) for layer in dict.fromkeys(asked)] if asked else [last_map(net)]
    for each in trace(net):
        if each.address in layers and not (each.channels_first and len(each.shape) in (2, 4)):
            raise LayerError(
                f"{each.address} answers {tuple(each.shape[1:])} for an image, not maps (C, H, W) or units (C,); "
                "choose another"
            )
    return layers


def uncut(net: Classifier) -> str:
    """The last spatial map, or what goes into it where a ceiling (ReLU6, a sigmoid) would make many peaks the same."""
    layer = last_map(net)
    seen = trace(net)
    place = next(i for i, each in enumerate(seen) if each.address == layer)
    maker = seen[place].made_by or layer
    place = next(i for i, each in enumerate(seen) if each.address == maker)
    before = next((each for each in reversed(seen[:place]) if each.op), None)
    if before is None or seen[place].op not in _CEILINGS or before.shape != seen[place].shape:
        return layer
    return next((each.address for each in seen if not each.op and each.made_by == before.address), before.address)


def _answering(rows: Rows) -> Rows:
    """The rows without the zeros of a rectifier: what leaves a unit silent is no exemplar of it, and only came first."""
    if rows.counts[:, : BINS // 2].any():  # values below zero
        return rows
    none = rows.values == 0
    images, places, labels = (each.masked_fill(none, -1) for each in (rows.images, rows.places, rows.labels))
    return replace(rows, values=rows.values.masked_fill(none, -torch.inf), images=images, places=places, labels=labels)


def _beyond(rows: Rows) -> Tensor:
    """How far each unit's exemplars lie, on average, beyond what nine of ten images reach, in the spread of the other peaks."""
    count = (rows.images >= 0).sum(1).clamp_min(1)
    top = rows.values.masked_fill(rows.images < 0, 0).double().sum(1) / count
    borders = edges().double()
    share = rows.counts.cumsum(1) / rows.counts.sum(1, keepdim=True).clamp_min(1)
    low, high = ((borders[1:] + borders[:-1])[(share >= q).int().argmax(1)] / 2 for q in (0.1, 0.9))
    spread = (high - low).clamp_min(1e-9)
    return ((top - high) / spread).masked_fill(high - low <= 0, 0)


def _fields(net: Classifier) -> tuple[Mapping[str, Field], tuple[str, ...]]:
    try:
        return receptive_fields(net), ()
    except UnknownOperation as error:
        return {}, (f"the windows are not known, so whole images are shown: {error}",)


def _axes(known: Field, size: tuple[int, int]) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Starts and stops of each row's and each column's window."""
    rows, columns = (
        (axis.start.expand(length), axis.stop.expand(length))
        for axis, length in zip((known.local_rows, known.local_columns), size, strict=True)
    )
    return rows, columns


def _overlaps(known: Field | None, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Whether the windows of two rows, and of two columns, overlap: (h, h) and (w, w); a place overlaps itself."""
    if known is None or len(known.shape) != 4:
        return torch.ones(size[0], size[0], dtype=torch.bool), torch.ones(size[1], size[1], dtype=torch.bool)
    found = []
    for start, stop in _axes(known, size):
        touching = torch.maximum(start[:, None], start) < torch.minimum(stop[:, None], stop)
        found.append(touching | torch.eye(len(start), dtype=torch.bool))
    return found[0], found[1]


def _windows(known: Field | None, down: Tensor, across: Tensor, image: tuple[int, int]) -> Tensor:
    """(top, left, bottom, right) at places; the whole image where windows are not known or there are no places."""
    if known is None or len(known.shape) != 4:
        return torch.tensor([0, 0, *image]).expand(*down.shape, 4).clone()
    (top, bottom), (left, right) = _axes(known, (known.shape[2], known.shape[3]))
    down, across = down.clamp_min(0), across.clamp_min(0)
    return torch.stack([top[down], left[across], bottom[down], right[across]], -1)


def _deviation(square: Tensor, mean: Tensor) -> Tensor:
    """The deviation (C,) by mean square and mean; none where it is no more than their rounding: all images are answered alike."""
    variance = square - mean.square()
    return variance.masked_fill(variance <= _ROUNDING * square, 0).sqrt()


def _purity(labels: Tensor, classes: int) -> Tensor:
    """The share of the commonest class among the labelled (C,)."""
    commonest = torch.zeros(len(labels), dtype=torch.int64)
    for column in labels.T:  # k of them: no table of units by classes
        commonest = torch.maximum(commonest, (labels == column[:, None]).sum(1) * (column >= 0))
    return commonest / (labels >= 0).sum(1)
