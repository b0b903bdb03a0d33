"""What units could be called: by the classes that they answer to, and by concepts where images come with masks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from seewhy.classifier import Classifier
from seewhy.data.images import Images
from seewhy.data.sets import DataSet
from seewhy.engine import Cost, Meter
from seewhy.errors import InputError, SpecError, UnknownOperation
from seewhy.lens.capture import capture, trace
from seewhy.lens.receptive import receptive_fields
from seewhy.look import concepts
from seewhy.look.base import Look
from seewhy.look.concepts import Masks
from seewhy.look.exemplars import chosen_layers
from seewhy.look.stream import left_out, one_of, parts, unread, watched
from seewhy.look.tally import Tally
from seewhy.result import save, shown
from seewhy.rng import generator

if TYPE_CHECKING:
    import os

    from matplotlib.figure import Figure

#: how many maps are enlarged at a time
_AT_ONCE = 256

#: matrices (H, h) and (W, w) that enlarge a map
Ways = tuple[Tensor, Tensor]

#: how far below its ceiling a unit counts as on, as a share: enlarging rounds
_BELOW = 1e-6

#: the sheet: how many units at most, images of each, and their side
UNITS, SHOWN, SIDE = 6, 5, 96


@dataclass(frozen=True)
class NamedUnits:
    """What each of C units of a layer answers to.

    `selectivity` (C,) is in [0, 1], for class `best` (C,); `floor` (C,) what 95 % of random labellings stay below, and
    `chance` (C,) the share of random labellings that do as well. With masks of K concepts: `threshold` (C,), and `iou` and
    `overlap` (C, K), IoU and common pixels; without, None. `count` images were looked at. `drawn` (U,) are the units of the
    sheet, best overlaps first and no concept more than twice; `sheet` (U, k, 3, side, side), 8 bits, the images with their
    concept that excite each most, what the unit is on for being ringed.
    """

    method: str
    layer: str
    classes: tuple[str, ...]
    concepts: tuple[str, ...]
    count: int
    selectivity: Tensor
    best: Tensor
    floor: Tensor
    chance: Tensor
    threshold: Tensor | None
    iou: Tensor | None
    overlap: Tensor | None
    least: float
    drawn: Tensor
    sheet: Tensor
    cost: Cost
    notes: tuple[str, ...]

    def name(self, unit: int) -> str:
        """The concept of a unit where one overlaps enough, else its class where that is above the floor, else ""."""
        if not 0 <= unit < len(self.selectivity):
            raise InputError(f"{self.layer} has units 0 to {len(self.selectivity) - 1}; there is no unit {unit}")
        if self.iou is not None and float(self.iou[unit].max()) > self.least:
            return self.concepts[int(self.iou[unit].argmax())]
        return self.classes[int(self.best[unit])] if self.selectivity[unit] > self.floor[unit] else ""

    def facts(self) -> dict[str, Any]:
        """Every unit that has a name, as plain values, the most selective first."""
        rows = []
        for unit in self.selectivity.argsort(descending=True, stable=True).tolist():
            row: dict[str, Any] = {
                "unit": unit,
                "name": self.name(unit),
                "class": self.classes[int(self.best[unit])],
                "selectivity": float(self.selectivity[unit]),
                "floor": float(self.floor[unit]),
            }
            if self.iou is not None:
                concept = int(self.iou[unit].argmax())
                row |= {"concept": self.concepts[concept], "iou": float(self.iou[unit, concept])}
            if row["name"]:
                rows.append(row)
        return {"images": self.count, "units": len(self.selectivity), "named": rows}

    def plot(self) -> Figure:
        """Every unit's selectivity over its floor; with masks, the best units of the concepts."""
        from seewhy.report.learned import units

        return units(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to one open file, see `seewhy.result.save`."""
        save(self, path)

    def _repr_html_(self) -> str:
        return shown(self.plot(), self.method)


@dataclass(frozen=True)
class Units(Look):
    """For each unit its class selectivity (μ_max − μ_rest) / (μ_max + μ_rest), and with masks its concept by IoU.

    μ is the mean, over the images of a class, of the unit's mean positive response; μ_max of the class that has the largest,
    μ_rest the mean of the others'. The floor is the same with labels shuffled `shuffles` times: with few images a class,
    any unit is selective. Without labels, the classes that the model predicts stand in.

    `masks` (network dissection): for each concept (N, H, W), true where an image shows it, or (H, W) by the place of each image
    that has a mask of it, as `seewhy.data.masks` reads them. A unit is on where its map, enlarged bilinearly between its
    receptive fields' centres, is above the value that the share `quantile` of all its responses exceeds; where a larger
    share reaches its largest value, as under a ceiling such as ReLU6's, it is on at that value, with a note. Its concept is
    the one with the largest IoU = |on ∧ mask| / |on ∨ mask| over all images, if above `iou`; a unit that is on everywhere
    has none.

    `layer`: an address as `seewhy model` prints it (none: the last spatial map). Answers a `NamedUnits`.
    Raises `InputError` for masks that don't fit the images. One class alone is a note, and selectivity 0.
    Cost: one forward pass an image, one more for predicted classes, with masks a second one and enlarging each map; memory
    4 bytes an image and unit, with masks the top `quantile` of all responses, and the masks themselves.
    Limits: what a unit answers to need not be what it is for; a concept that no mask has is not found.
    Deviation: maps with negative values count by their positive part. Source: Morcos et al. 2018, arXiv 1803.06959;
    Bau et al. 2017, arXiv 1704.05796.

    >>> from torch import nn
    >>> module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    >>> images = Images(torch.rand(6, 3, 8, 8), labels=torch.tensor([0, 0, 0, 1, 1, 1]))
    >>> Units(shuffles=19)(Classifier(module, size=8), images).selectivity.shape
    torch.Size([4])
    """

    layer: str | None = None
    quantile: float = 0.005
    iou: float = 0.04
    shuffles: int = 100
    seed: int = 0

    name = "units"
    needs_images = True
    of_sets = True
    shows = "Which class, or which concept, each unit answers to."
    reading = (
        "A unit says something about a class only where it stands above its floor, which is what labels drawn by lot "
        "reach. An IoU of 0.04 is little, and is what is usually called a detector."
    )
    source = "Morcos et al. 2018, arXiv 1803.06959; Bau et al. 2017, arXiv 1704.05796"

    def __post_init__(self) -> None:
        if not (0 < self.quantile < 1 and 0 <= self.iou < 1 and self.shuffles >= 1):
            raise SpecError(
                "expected quantile between 0 and 1, iou from 0 to below 1, and shuffles ≥ 1, "
                f"got quantile={self.quantile}, iou={self.iou}, shuffles={self.shuffles}"
            )

    @property
    def passes(self) -> tuple[int, int]:
        return 2, 0

    def check(self, net: Classifier) -> None:
        self._layer(net)

    def _layer(self, net: Classifier) -> str:
        return chosen_layers(net, (self.layer,) if self.layer else ())[0]

    def __call__(
        self,
        net: Classifier,
        images: Tensor | Images | DataSet | None = None,
        masks: Masks | None = None,
    ) -> NamedUnits:
        if images is None:
            raise InputError("units are named by images: give some")
        names = concepts.checked(masks, len(images), net.size)
        classes = tuple(images.classes) if isinstance(images, DataSet) and images.classes else net.labels
        layer = self._layer(net)
        notes: list[str] = []
        with Meter(net.engine.device) as meter:
            responses, labels, indices, top, classes = self._seen(net, images, layer, classes, bool(names), notes)
            known = labels >= 0
            if not known.all() and known.any():
                notes.append(
                    f"{int((~known).sum())} of {len(labels)} images have no class, and do not count for selectivity"
                )
            found = self._selective(responses[known], labels[known], len(classes), notes)
            dissected = None
            drawn, sheet = torch.zeros(0, dtype=torch.int64), torch.zeros(0, SHOWN, 3, SIDE, SIDE, dtype=torch.uint8)
            if top is not None and masks is not None:
                dissected, ways = self._dissected(net, images, layer, classes, masks, top, notes)
                drawn = _best(dissected[1], self.iou)
                sheet = _sheet(net, images, layer, masks, dissected, ways, drawn, (responses, indices))
        above = int((found[0] > found[2]).sum())
        expected = f"{0.05 * len(responses[0]):.0f}"
        notes.append(f"{above} of {len(responses[0])} units are above their floor; about {expected} would be by chance")
        threshold, iou, overlap = dissected or (None, None, None)
        return NamedUnits(
            self.spec,
            layer,
            classes,
            names,
            len(responses),
            *found,
            threshold=threshold,
            iou=iou,
            overlap=overlap,
            least=self.iou,
            drawn=drawn,
            sheet=sheet,
            cost=meter.cost,
            notes=tuple(notes),
        )

    def _seen(
        self,
        net: Classifier,
        images: Tensor | Images | DataSet,
        layer: str,
        classes: tuple[str, ...],
        keep: bool,
        notes: list[str],
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None, tuple[str, ...]]:
        """Mean positive responses (N, C), labels and places (N,); with `keep`, each unit's threshold (C,); the labels' names."""
        shape = next(each.shape for each in trace(net) if each.address == layer)
        places = shape[2] * shape[3] if len(shape) == 4 else 1
        most = int(self.quantile * len(images) * places) + 1
        top = torch.full((shape[1], 0), -torch.inf) if keep else None
        responses, labels, indices, failed = [], [], [], []
        strange: list[tuple[int, str]] = []

        def run(batch: Tensor, where: slice) -> Tensor:
            maps = capture(net, batch, [layer])[layer].float().reshape(len(batch), shape[1], -1)
            best = maps.topk(min(most, maps.shape[2]), dim=2).values if keep else maps[:, :, :0]
            known = maps.isfinite().all(2, keepdim=True)
            return torch.cat([maps.relu().mean(2, keepdim=True).where(known, torch.nan), best], 2).cpu()

        with watched(net, images) as tell:
            for part in parts(net, images, 0, Tally.empty(classes)):
                failed += part.failed
                if part.images is None:
                    continue
                answer = net.engine.map(run, part.images.pixels, "forward")
                good = answer[:, :, 0].isfinite().all(1)
                for place in (~good).nonzero()[:, 0].tolist():
                    because = f"{layer} answers infinite values or no numbers to {part.names[place]}"
                    strange.append((int(part.indices[place]), because))
                answer = answer[good]
                responses.append(answer[:, :, 0])
                labels.append(part.labels[good])
                indices.append(part.indices[good])
                if top is not None:
                    came = answer[:, :, 1:].transpose(0, 1).flatten(1)
                    top = torch.cat([top, came], 1)
                    top = top.topk(min(most, top.shape[1]), dim=1).values
                tell(sum(map(len, labels)) + len(failed) + len(strange))
        if failed:
            notes.append(f"{len(failed)} of {len(images):,} images could not be read: {failed[0][1]}")
        if not responses:
            raise unread(failed)
        joined, classed = torch.cat(responses), torch.cat(labels)
        if not len(joined):
            raise InputError(f"{layer} answers infinite values or no numbers to every image; choose another layer")
        if strange:
            notes.append(left_out(strange, len(images)))
        if (classed < 0).all():
            notes.append("no true classes are known: those that the model predicts stand in")
            classes = net.labels
            guesses = [
                net.predict(part.images).argmax(1).cpu()[torch.isin(part.indices, torch.cat(indices))]
                for part in parts(net, images, 0, Tally.empty(classes))
                if part.images is not None
            ]
            classed = torch.cat(guesses)
        # one more than the share, so that the share lies above it
        rank = int(self.quantile * len(joined) * places)
        threshold = None if top is None else self._threshold(top, min(rank, top.shape[1] - 1), layer, notes)
        return joined, classed, torch.cat(indices), threshold, classes

    def _threshold(self, top: Tensor, rank: int, layer: str, notes: list[str]) -> Tensor:
        """What each unit is on above (C,), of its largest responses (C, r), the highest first."""
        threshold = top[:, rank]
        cut = (threshold == top[:, 0]) & (threshold > 0)
        if bool(cut.any()):
            notes.append(
                f"{int(cut.sum())} of {len(cut)} units of {layer} answer their largest value in more than "
                f"{100 * self.quantile:g} % of all places, and are on in all of these: the places are few, or something cuts "
                "the units off; choose what goes into it"
            )
        return torch.where(cut, threshold * (1 - _BELOW), threshold)

    def _selective(
        self, responses: Tensor, labels: Tensor, classes: int, notes: list[str]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Selectivity, class, floor and chance, each (C,)."""
        units = responses.shape[1]
        there = labels.unique()
        if len(there) < 2:
            notes.append("all images are of one class, so no unit can be selective")
            return torch.zeros(units), there.expand(units).clone(), torch.zeros(units), torch.ones(units)
        wide = responses.double()
        found, best = _index(wide, labels, classes)
        draw = generator(self.seed, self.name)
        shuffled = [
            _index(wide, labels[torch.randperm(len(labels), generator=draw)], classes)[0] for _ in range(self.shuffles)
        ]
        drawn = torch.stack(shuffled)
        floor = drawn.quantile(0.95, dim=0, interpolation="higher")
        chance = ((drawn >= found).sum(0) + 1) / (self.shuffles + 1)
        if int(torch.bincount(labels)[labels].median()) == 1:
            notes.append(
                "most images are alone in their class, so that labels drawn by lot do as well: name few units, or none"
            )
        elif int(torch.bincount(labels)[there].min()) < 5:
            notes.append("some classes have fewer than 5 images: look at the floor, not at the selectivity alone")
        return found.float(), best, floor.float(), chance.float()

    def _dissected(
        self,
        net: Classifier,
        images: Tensor | Images | DataSet,
        layer: str,
        classes: tuple[str, ...],
        masks: Masks,
        threshold: Tensor,
        notes: list[str],
    ) -> tuple[tuple[Tensor, Tensor, Tensor], Ways]:
        """Thresholds (C,), IoU and common pixels (C, K); and how maps are enlarged."""
        common = torch.zeros(len(threshold), len(masks), dtype=torch.float64)
        on = torch.zeros(len(threshold), 1, dtype=torch.float64)
        total = 0
        shown_by = torch.zeros(1, len(masks), dtype=torch.float64)
        ways: Ways | None = None
        for part in parts(net, images, 0, Tally.empty(classes)):
            if part.images is None:
                continue
            for place, index in enumerate(part.indices.tolist()):
                maps = capture(net, part.images.pixels[place : place + 1], [layer])[layer].float().cpu()[0]
                maps = maps.reshape(len(maps), *(maps.shape[1:] or (1, 1)))
                if not bool(maps.isfinite().all()):
                    continue  # left out above, too
                if ways is None:
                    ways = _between(net, layer, (maps.shape[1], maps.shape[2]), notes)
                places, pixels = concepts.shown(masks, index, net.size)
                shown_by[0, places] += pixels.sum(1)
                total += net.size[0] * net.size[1]
                for start in range(0, len(maps), _AT_ONCE):
                    some = slice(start, start + _AT_ONCE)
                    active = (ways[0] @ maps[some] @ ways[1].T > threshold[some, None, None]).flatten(1).float()
                    common[some, places] += active @ pixels.T
                    on[some] += active.sum(1, keepdim=True)
        silent = [name for name, pixels in zip(masks, shown_by[0].tolist(), strict=True) if not pixels]
        if silent:
            notes.append(f"no image shows {', '.join(silent)}")
        iou = (common / (on + shown_by - common).clamp_min(1)).masked_fill(on == total, 0)
        named = int((iou.max(1).values > self.iou).sum())
        notes.append(f"{named} of {len(iou)} units overlap a concept by an IoU above {self.iou:g}")
        if ways is None:
            raise unread([])
        return (threshold, iou.float(), common.long()), ways


def _best(iou: Tensor, least: float) -> Tensor:
    """The units (U,) whose concepts overlap most, no concept more than twice."""
    value, concept = iou.max(1)
    chosen: list[int] = []
    for unit in value.argsort(descending=True, stable=True).tolist():
        before = sum(int(concept[other]) == int(concept[unit]) for other in chosen)
        if len(chosen) < UNITS and value[unit] > least and before < 2:
            chosen.append(unit)
    return torch.tensor(chosen, dtype=torch.int64)


def _sheet(
    net: Classifier,
    images: Tensor | Images | DataSet,
    layer: str,
    masks: Masks,
    dissected: tuple[Tensor, Tensor, Tensor],
    ways: Ways,
    drawn: Tensor,
    seen: tuple[Tensor, Tensor],
) -> Tensor:
    """The images that show each drawn unit's concept and excite it most, what it is on for ringed."""
    from seewhy.report import pictures

    threshold, iou, _ = dissected
    responses, indices = seen
    sheet = torch.full((len(drawn), SHOWN, 3, SIDE, SIDE), 255, dtype=torch.uint8)
    every = list(masks.values())
    has = {concept: concepts.showing(every[concept], indices) for concept in set(iou.argmax(1)[drawn].tolist())}
    for row, unit in enumerate(drawn.tolist()):
        showing = has[int(iou[unit].argmax())]
        order = responses[:, unit].masked_fill(~showing, -1).argsort(descending=True, stable=True)
        for slot, place in enumerate(order[: min(SHOWN, int(showing.sum()))].tolist()):
            pixels = one_of(images, int(indices[place]), net)
            maps = capture(net, pixels[None].to(net.engine.device), [layer])[layer].float().cpu()[0, unit]
            on = ways[0] @ maps.reshape(*(maps.shape or (1, 1))) @ ways[1].T > threshold[unit]
            both = torch.cat([pixels, on[None].float()])[None]
            small = F.interpolate(both, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)[0]
            picture = (small[:3].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
            ringed = pictures.ringed(picture, (small[3] > 0.5).numpy())
            sheet[row, slot] = torch.from_numpy(ringed).permute(2, 0, 1)
    return sheet


def _index(responses: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """The selectivity index (C,) and its class, of responses (N, C)."""
    sums = responses.new_zeros(classes, responses.shape[1]).index_add_(0, labels, responses)
    counts = torch.bincount(labels, minlength=classes)
    there = counts.nonzero().flatten()
    means = sums[there] / counts[there, None]
    highest, where = means.max(0)
    rest = (means.sum(0) - highest) / (len(there) - 1)
    return ((highest - rest) / (highest + rest)).nan_to_num(0), there[where]


def _between(net: Classifier, layer: str, shape: tuple[int, int], notes: list[str]) -> tuple[Tensor, Tensor]:
    """Matrices (H, h) and (W, w) that enlarge a map linearly between the centres of its windows."""
    centres: tuple[Tensor, ...] = ()
    try:
        centres = receptive_fields(net)[layer].windows.centres
    except (UnknownOperation, KeyError):
        notes.append("the units' windows are not known: their maps are spread evenly over the image")
    found = []
    for axis, (length, pixels) in enumerate(zip(shape, net.size, strict=True)):
        at = (torch.arange(length) + 0.5) * (pixels / length)
        if centres and centres[axis].ndim == 4 and centres[axis].shape[2 + axis] == length:
            at = centres[axis].amax([dim for dim in range(4) if dim != 2 + axis])
        upper = torch.searchsorted(at, torch.arange(pixels) + 0.5).clamp(1, length - 1) if length > 1 else None
        if upper is None:
            found.append(torch.ones(pixels, 1))
            continue
        share = ((torch.arange(pixels) + 0.5 - at[upper - 1]) / (at[upper] - at[upper - 1])).clamp(0, 1)[:, None]
        found.append((1 - share) * F.one_hot(upper - 1, length) + share * F.one_hot(upper, length))
    return found[0], found[1]
