"""What the model learned: the looks at a set of images as a whole, and images that are optimised."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from PIL import Image as Picture
from torch import Tensor

from seewhy.classifier import Classifier
from seewhy.data.masks import masks
from seewhy.data.sets import DataSet
from seewhy.engine import Meter
from seewhy.errors import RunError
from seewhy.look.base import Look
from seewhy.look.embed import CodeMap
from seewhy.look.exemplars import Exemplars, ExemplarSet
from seewhy.look.maximize import Maximize
from seewhy.look.statistics import Statistics
from seewhy.look.units import Units
from seewhy.run.identity import identity
from seewhy.run.job import Found, Job, Plain, number, picture_of, remembered
from seewhy.run.material import whole
from seewhy.run.sets import CLASSES, FEWEST_NAMED, MADE, PlannedSet, opened, other_data
from seewhy.run.store import key_of

#: pixels of a side of an exemplar's picture and between two, and units with names that a record lists
SIDE, GAP, NAMED = 112, 6, 24

#: exemplars in a row, so that many of them stay large enough to be seen
ROW = 9

#: units of one class that are named before those of others
ALIKE = 3

#: classes whose units a record lists, and units of each in each layer
TOLD, EXCITED = 12, 3


@dataclass(frozen=True)
class Whole:
    """A set that is looked at as a whole, and by which model; both are opened when a step asks for them."""

    job: Job
    planned: PlannedSet

    @cached_property
    def net(self) -> Classifier:
        if self.planned.model is None:
            return self.job.net
        return remembered(self._opened(self.planned.model, self.planned.fingerprint))

    @cached_property
    def data(self) -> DataSet:
        return self.planned.drawn(whole(self.job.material) if self.planned.model is None else other_data())

    @cached_property
    def masks(self) -> dict[str, dict[int, Tensor]] | None:
        """What the images show, where masks of them were given."""
        root = self.job.material.masks
        return masks(root, self.data, self.net.preprocess) if root is not None and self.planned.model is None else None

    @cached_property
    def others(self) -> tuple[Classifier, ...]:
        """Models that are asked about optimised images of classes."""
        return tuple(self._opened(spec, fingerprint) for spec, fingerprint in self.planned.others)

    def _opened(self, spec: str, fingerprint: str) -> Classifier:
        net = opened(spec, self.job.net)
        if net.fingerprint != fingerprint:
            raise RunError(f"the weights of {spec} are not those of the plan any more")
        return net

    def steps(self) -> Iterator[tuple[str, float, Callable[[], Found]]]:
        """(step, units, work) in order.

        Which images are optimised follows from what is there by then: the classes that were predicted, and the units whose
        exemplars were found.
        """
        for look in self.planned.look:
            work = next((work for kind, work in _WORKS if isinstance(look, kind)), None)
            if work is not None:
                yield look.spec, self.planned.images, partial(work, self, look)
        for look in self.planned.look:
            if isinstance(look, Maximize):
                for made in dict.fromkeys(self._made(look)):
                    yield made.spec, sum(made.passes), partial(_maximized, self, made)

    def _made(self, look: Maximize) -> Iterator[Maximize]:
        if look.objective is not None:
            yield look
            return
        run = self.job.run
        explained = [image.id for image in self.job.plan.images if run.done(image.id, "predict")]
        predicted = [run.record(image, "predict")["top"][0]["index"] for image in explained]
        classes = list(dict.fromkeys(predicted))[:CLASSES]
        if classes:
            yield replace(look, objective=f"logit({';'.join(map(str, classes))})")
        for each in self.planned.look:
            if isinstance(each, Exemplars) and run.done(self.planned.id, each.spec):
                for layer in run.record(self.planned.id, each.spec)["layers"]:
                    units = sorted(unit["unit"] for unit in layer["drawn"][:MADE])
                    yield replace(look, objective="channel(" + ";".join([layer["layer"], *map(str, units)]) + ")")


def other_identity(held: Whole) -> Found:
    """Who the other model is."""
    net = held.net
    with Meter(net.engine.device) as meter:
        record, notes = identity(net, held.planned.model or "")
    return Found(record, meter.cost, notes)


def _statistics(held: Whole, method: Statistics) -> Found:
    found = method(held.net, held.data)
    arrays = {
        f"{name}.{place}": getattr(found, name)[layer].numpy()
        for place, layer in enumerate(found.layers)
        for name in ("mean", "deviation", "zero", "silent")
    }
    return Found({"method": method.spec, **found.facts()}, found.cost, found.notes, arrays)


def _exemplars(held: Whole, method: Exemplars) -> Found:
    found = method(held.net, held.data)
    layers, pictures = [], {}
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    for place, layer in enumerate(found.layers):
        told = []
        for unit in _shown(method, found, layer):
            file = f"{held.planned.id}-{key_of(method.spec)}-{place}-{unit}.png"
            crops = [squared(crop, SIDE) for crop in found.cut(layer, unit, held.data, held.net)]
            if crops:
                pictures[file] = side_by_side(crops)
            told.append(_unit(found, layer, unit) | {"picture": file if crops else None})
        layers.append({"layer": layer, "units": len(found.values[layer]), "drawn": told})
        there = found.images[layer] >= 0
        arrays |= {
            f"values.{place}": found.values[layer].masked_fill(~there, 0).numpy(),
            f"images.{place}": found.images[layer].numpy(),
            f"windows.{place}": found.windows[layer].numpy(),
            f"histogram.{place}": found.histogram[layer][[each["unit"] for each in told]].numpy(),
        }
    arrays["edges"] = found.edges.numpy()
    failed = [{"image": index, "error": sentence} for index, sentence in found.failed]
    record = {"method": method.spec, "images": found.count, "k": method.k, "layers": layers, "failed": failed}
    record["by_class"] = _by_class(found)
    return Found(record, found.cost, found.notes, arrays, pictures)


def _shown(method: Exemplars, found: ExemplarSet, layer: str) -> list[int]:
    """The units to show: those that the method draws; of few images those that answer to one of them alone, to each in turn."""
    if method.units or found.count >= FEWEST_NAMED:
        return [int(unit) for unit in found.drawn[layer]]
    first = found.values[layer][:, 0].double()
    alone = ((first - found.mean[layer]) / found.deviation[layer]).nan_to_num(0, posinf=0).masked_fill(first <= 0, -1)
    order = alone.argsort(descending=True, stable=True).tolist()
    order = [unit for unit in order if found.images[layer][unit, 0] >= 0] or order
    chosen: list[int] = []
    while order and len(chosen) < method.limit:
        seen: set[int] = set()
        for unit in list(order):
            best = int(found.images[layer][unit, 0])
            if best not in seen and len(chosen) < method.limit:
                seen.add(best)
                chosen.append(unit)
                order.remove(unit)
    return sorted(chosen)


def _unit(found: ExemplarSet, layer: str, unit: int) -> Plain:
    """A unit's exemplars, the best first, and what is known of their classes."""
    slots = [slot for slot, image in enumerate(found.images[layer][unit].tolist()) if image >= 0]
    return {
        "unit": unit,
        "purity": number(float(found.purity[layer][unit])),
        "mean": number(float(found.mean[layer][unit])),
        "deviation": number(float(found.deviation[layer][unit])),
        "classes": [
            {"label": name, "exemplars": count, "mean": mean} for name, count, mean in found.classes_of(layer, unit)
        ],
        "exemplars": [
            {
                "image": found.name(int(found.images[layer][unit, slot])),
                "label": None if (label := int(found.labels[layer][unit, slot])) < 0 else found.classes[label],
                "value": float(found.values[layer][unit, slot]),
                "window": found.windows[layer][unit, slot].tolist(),
            }
            for slot in slots
        ],
    }


def _by_class(found: ExemplarSet) -> Plain:
    """The units of each layer that each class excites most, of the clearest classes; `of` is how many classes images have."""
    known = [~means.isnan().all(0) for means in found.class_means.values()]
    there = torch.stack(known).any(0).nonzero()[:, 0].tolist()
    rows: list[tuple[float, Plain]] = []
    for label in there if len(there) > 1 else ():
        units = [
            [{"unit": unit, "score": score} for unit, score in found.units_of(layer, label, EXCITED) if score > 0]
            for layer in found.layers
        ]
        clear = max((each["score"] for line in units for each in line), default=0.0)
        rows.append((clear, {"label": found.classes[label], "units": units}))
    rows.sort(key=lambda row: -row[0])
    return {"of": len(there), "classes": [row for _, row in rows[:TOLD]] if rows and rows[0][0] > 0 else []}


def _named(held: Whole, method: Units) -> Found:
    found = method(held.net, held.data, held.masks)
    above = (found.selectivity > found.floor).nonzero()[:, 0].tolist()
    best = _mixed(
        sorted(above, key=lambda unit: (-float(found.selectivity[unit] - found.floor[unit]), unit)), found.best.tolist()
    )
    record = {
        "method": method.spec,
        "layer": found.layer,
        "images": found.count,
        "units": len(found.selectivity),
        "above": len(above),
        "true_classes": any(label is not None for label in held.data.labels or ()),
        "classes": len(found.best.unique()),
        "named": [
            {
                "unit": unit,
                "label": found.classes[int(found.best[unit])],
                "selectivity": float(found.selectivity[unit]),
                "floor": float(found.floor[unit]),
                "chance": float(found.chance[unit]),
            }
            for unit in best[:NAMED]
        ],
    }
    arrays = {name: getattr(found, name).numpy() for name in ("selectivity", "best", "floor", "chance")}
    if found.threshold is None or found.iou is None or found.overlap is None:
        return Found(record, found.cost, found.notes, arrays)
    most, concept = found.iou.max(1)
    pictures = {}
    drawn = []
    for row, unit in enumerate(found.drawn.tolist()):
        file = f"{held.planned.id}-{key_of(method.spec)}-{unit}.png"
        pictures[file] = side_by_side([Picture.fromarray(each.permute(1, 2, 0).numpy()) for each in found.sheet[row]])
        drawn.append(
            {"unit": unit, "concept": found.concepts[int(concept[unit])], "iou": float(most[unit]), "picture": file}
        )
    record |= {
        "concepts": list(found.concepts),
        "least": found.least,
        "detectors": int((most > found.least).sum()),
        "drawn": drawn,
    }
    arrays |= {"threshold": found.threshold.numpy(), "iou": found.iou.numpy(), "overlap": found.overlap.numpy()}
    return Found(record, found.cost, found.notes, arrays, pictures)


def _mixed(units: Sequence[int], classes: Sequence[int]) -> list[int]:
    """Units in their order, but of each class the first few before any more: of uneven sets one class would take all places."""
    seen: Counter[int] = Counter()
    later = []
    for unit in units:
        later.append(seen[classes[unit]] >= ALIKE)
        seen[classes[unit]] += 1
    return [unit for last in (False, True) for unit, after in zip(units, later, strict=True) if after is last]


def _mapped(held: Whole, method: CodeMap) -> Found:
    found = method(held.net, held.data)
    file = f"{held.planned.id}-{key_of(method.spec)}-thumbnails.png"
    names = ("coordinates", "labels", "predictions", "confidence", "indices", "right_map", "right_codes")
    record = {
        "method": method.spec,
        "model": found.model,
        "layer": found.layer,
        "layout": found.layout,
        "images": len(found),
        "classes": list(found.classes),
        "outputs": list(found.outputs),
        "comparable": found.comparable,
        "names": list(found.names),
        "k": found.k,
        "perplexity": float(found.perplexity),
        "chance": found.chance,
        "knn_map": found.knn_map,
        "knn_codes": found.knn_codes,
        "trustworthiness": found.trustworthiness,
        "kept": found.kept,
        "divergence": found.divergence,
        "thumbnail": list(found.thumbnails.shape[2:]),
        "failed": [{"image": index, "error": sentence} for index, sentence in found.failed],
        "pictures": {"thumbnails": file},
    }
    arrays = {name: getattr(found, name).numpy() for name in names}
    return Found(record, found.cost, found.notes, arrays, {file: _sheet(found.thumbnails)})


def _maximized(held: Whole, method: Maximize) -> Found:
    found = method(held.net, also=held.others)
    images, pictures = [], {}
    for row, name in enumerate(found.images.names):
        file = f"{held.planned.id}-{key_of(method.spec)}-{row}.png"
        pictures[file] = picture_of(found.images.pixels[row])
        wanted = int(found.wanted[row])
        told: Plain = {
            "for": name,
            "start": float(found.start[row]),
            "score": float(found.scores[row]),
            "picture": file,
        }
        if wanted >= 0:
            told |= {
                "class": {
                    "index": wanted,
                    "label": found.labels[wanted],
                    "probability": float(found.probabilities[row, wanted]),
                },
                "recognised": bool(found.recognised[row]),
                "others": [
                    {
                        "model": other,
                        "probability": number(float(found.others_probability[at, row])),
                        "recognised": bool(found.others_recognise[at, row]),
                    }
                    for at, other in enumerate(found.others)
                ],
            }
        images.append(told)
    record = {
        "method": method.spec,
        "layer": found.layer,
        "objective": found.objective,
        "steps": method.steps,
        "images": images,
    }
    arrays = {"images": found.images.pixels.numpy(), "history": found.history.numpy()}
    return Found(record, found.cost, found.notes, arrays, pictures)


_WORKS: tuple[tuple[type[Look], Any], ...] = (
    (Statistics, _statistics),
    (Exemplars, _exemplars),
    (Units, _named),
    (CodeMap, _mapped),
)


def squared(crop: Tensor, side: int) -> Picture.Image:
    """A crop (3, h, w) in a transparent square, as large as fits; tiny ones enlarged as the pixels that they have."""
    picture = picture_of(crop)
    ratio = side / max(picture.size)
    size = (max(1, round(picture.width * ratio)), max(1, round(picture.height * ratio)))
    way = Picture.Resampling.NEAREST if ratio >= 3 else Picture.Resampling.LANCZOS
    square = Picture.new("RGBA", (side, side), (0, 0, 0, 0))
    square.paste(picture.resize(size, way), ((side - size[0]) // 2, (side - size[1]) // 2))
    return square


def side_by_side(pictures: Sequence[Picture.Image]) -> Picture.Image:
    """Pictures of one size in rows of up to `ROW`, with gaps that are transparent."""
    width, height = pictures[0].size
    columns, rows = min(ROW, len(pictures)), -(-len(pictures) // ROW)
    sheet = Picture.new("RGBA", ((width + GAP) * columns - GAP, (height + GAP) * rows - GAP), (0, 0, 0, 0))
    for place, picture in enumerate(pictures):
        sheet.paste(picture, (place % ROW * (width + GAP), place // ROW * (height + GAP)))
    return sheet


def _sheet(thumbnails: Tensor) -> Picture.Image:
    """Thumbnails (N, 3, h, w) in rows of as many as there are columns, in order."""
    count, _, height, width = thumbnails.shape
    columns = max(1, int(np.ceil(np.sqrt(count))))
    rows = -(-count // columns)
    sheet = torch.zeros(rows * columns, 3, height, width, dtype=torch.uint8)
    sheet[:count] = thumbnails
    laid = sheet.view(rows, columns, 3, height, width).permute(0, 3, 1, 4, 2).reshape(rows * height, columns * width, 3)
    return Picture.fromarray(laid.contiguous().numpy())
