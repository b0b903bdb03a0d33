"""What an audit looks at as a whole: the images that were given, and for the demonstration a set that has classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from seewhy.classifier import Classifier
from seewhy.data.cifar10 import CLASSES as CLASSES_10
from seewhy.data.cifar10 import cifar10
from seewhy.data.fetch import cached
from seewhy.data.masks import fingerprint, mask_files
from seewhy.data.sets import DataSet
from seewhy.errors import SeewhyError
from seewhy.lens.capture import stages, trace
from seewhy.look.base import Look
from seewhy.look.embed import CodeMap
from seewhy.look.exemplars import Exemplars, chosen_layers, uncut
from seewhy.look.maximize import Maximize
from seewhy.look.statistics import Statistics
from seewhy.look.units import Units
from seewhy.method import from_json
from seewhy.run.material import Material, whole
from seewhy.run.pace import Offer, Pace, pace
from seewhy.run.store import SET, STAND_IN
from seewhy.zoo import load, models
from seewhy.zoo.builtin import imagenet_labels

#: the model that stands in where only the demonstration's photographs are there, and the set that it looks at
OTHER_MODEL, OTHER_DATA = "cifar10-resnet20", "cifar10"

#: what is said where that set is not there
FETCH = (
    f"{OTHER_MODEL} on CIFAR-10, as an example of a set with classes: it has not been fetched; `seewhy data get {OTHER_DATA}` "
    "fetches it"
)

#: layers whose units are shown, units of each, exemplars of each, units of each that get an optimised image, and classes
LAYERS, UNITS, BEST, MADE, CLASSES = 3, 4, 9, 2, 4

#: images below which a map of codes, or names of units, would show nothing
FEWEST_MAPPED, FEWEST_NAMED = 50, 20

#: images that a set is thriftiest and, where the budget allows it, better looked at with
_SIZES = (50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000)

#: images of the set that stands in, at least: fewer would be no example
_LEAST_OTHER = 500

#: what one of several images that are optimised together takes, over what it would take alone
_TOGETHER = 0.6

#: steps of an image that is optimised, the best first
_STEPS = (256, 128, 64, 32)

#: images in a batch of the model that stands in, whose images are small
_AT_ONCE = 64

#: seconds that a unit's map takes to be enlarged and laid over the masks, for each pixel
_OVERLAID = 6e-9

#: seconds that t-SNE takes: to begin with, and for each point
_LAYOUT = (2.0, 0.004)


@dataclass(frozen=True)
class PlannedSet:
    """A set that is looked at as a whole, under `id`: `images` of the `of` there are, drawn by chance where they are fewer.

    `wanted` is how many were asked of the draw, which never parts what belongs together, so that a few less may have come.

    `model` is the spec of another model than the audited one, or None; `fingerprint` the model's. `sha256` is the images'.
    `others` are specs and fingerprints of models that are asked about optimised images of classes. `without` says what
    was left out here, by the method's name, and why.
    """

    id: str
    name: str
    model: str | None
    fingerprint: str
    wanted: int
    images: int
    of: int
    sha256: str
    look: tuple[Look, ...]
    others: tuple[tuple[str, str], ...] = ()
    without: tuple[tuple[str, str], ...] = ()

    @property
    def units(self) -> float:
        """About how many passes of one image its steps take."""
        made = [each for each in self.look if isinstance(each, Maximize)]
        layers = sum(max(1, len(each.layers)) for each in self.look if isinstance(each, Exemplars))
        images = [1 if each.objective else CLASSES + MADE * layers for each in made]
        optimised = sum(count * (2 * each.steps + 3) for count, each in zip(images, made, strict=True))
        return 4 * (self.model is not None) + self.images * (len(self.look) - len(made)) + optimised

    def drawn(self, data: DataSet) -> DataSet:
        """Those images of the set that are looked at."""
        return data.sample(self.wanted, seed=0) if 0 < self.wanted < len(data) else data

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        plain["look"] = [{"spec": look.spec, **look.to_json()} for look in self.look]
        return plain | {
            "others": [list(each) for each in self.others],
            "without": [list(each) for each in self.without],
        }

    @staticmethod
    def from_json(plain: Mapping[str, Any]) -> PlannedSet:
        """The inverse of `to_json`."""
        look = [from_json({key: value for key, value in each.items() if key != "spec"}) for each in plain["look"]]
        return PlannedSet(
            **{
                **plain,
                "look": tuple(each for each in look if isinstance(each, Look)),
                "others": tuple((spec, mark) for spec, mark in plain["others"]),
                "without": tuple((name, because) for name, because in plain["without"]),
            }
        )


@dataclass(frozen=True, eq=False)
class Candidate:
    """A set that may be looked at as a whole: the data, the model, its looks, and what one image takes (None: no budget).

    `explicit` says that the looks were asked for, so that few images are no reason to leave them out; `masks` is the number
    of concepts that masks of the images show. `many` is what one of many images takes, where they gain by batches.
    """

    id: str
    data: DataSet
    net: Classifier
    model: str | None
    look: tuple[Look, ...]
    speed: Pace | None
    others: tuple[tuple[str, str], ...] = ()
    explicit: bool = False
    masks: int = 0
    many: Pace | None = None

    @property
    def made(self) -> tuple[Maximize, ...]:
        """How images are optimised, at best."""
        return tuple(dict.fromkeys(each for each in self.look if isinstance(each, Maximize)))

    def fewest(self, explained: int) -> int:
        """How many images are looked at whatever the budget: those of the given set that are explained one by one."""
        return min(explained, len(self.data)) if self.id == SET else 0

    def seconds(self, images: int) -> float:
        """What looking at so many images takes, by reckoning."""
        speed = self.many or self.speed
        if speed is None or not images:
            return 0.0
        passes, besides = 0, 0.0
        for each in self._fitting(self.look, images)[0]:
            if isinstance(each, CodeMap):
                besides += _LAYOUT[0] + _LAYOUT[1] * images
            elif isinstance(each, Exemplars):
                besides += max(1, len(each.layers)) * each.limit * each.k * speed.read
            passes += 0 if isinstance(each, Maximize) else 2 if isinstance(each, Units) and not self.data.labels else 1
            if isinstance(each, Units) and self.masks:
                pixels = _width(self.net, each.layer) * self.net.size[0] * self.net.size[1]
                besides += images * ((2 + self.masks) * speed.read + speed.forward + _OVERLAID * pixels)
        return images * passes * (speed.read + speed.forward) + besides

    def offers(self, explained: int) -> list[Offer[Any]]:
        """How many images may be looked at, and how long images may be optimised."""
        if self.speed is None:
            return []
        found: list[Offer[Any]] = []
        fewest, total, name = self.fewest(explained), len(self.data), self.data.name
        if any(not isinstance(each, Maximize) for each in self.look) and total > fewest:
            floor = self.seconds(fewest)
            least = fewest if self.id == SET else _LEAST_OTHER - 1
            ways = [total, *(size for size in reversed(_SIZES) if least < size < total)]
            whose = "" if self.model is None else f" with {self.model}"
            told = [(f"{size:,} images of {name}", self.seconds(size) - floor, size) for size in ways]
            found.append(Offer(f"looking at images of {name} as a whole{whose}", tuple(told), "are looked at"))
        layers = sum(max(1, len(each.layers)) for each in self.look if isinstance(each, Exemplars))
        for made in self.made:
            one = replace(made, objective=made.objective or _ONE)
            images = CLASSES + MADE * layers if made.objective is None else 1
            variants = [each for each in _STEPS if each < made.steps]
            ways_on = [replace(made, steps=steps) for steps in (made.steps, *variants)]
            costs = [_TOGETHER * images * self.speed.cost(replace(one, steps=each.steps)) for each in ways_on]
            name = made.name if len(self.made) == 1 else made.spec
            found.append(Offer(name, tuple(zip((each.spec for each in ways_on), costs, ways_on, strict=True))))
        return found

    def planned(self, images: int, made: tuple[Maximize, ...]) -> PlannedSet:
        """The set as it will be looked at."""
        planned = PlannedSet(
            self.id,
            self.data.name,
            self.model,
            self.net.fingerprint,
            images,
            images,
            len(self.data),
            "",
            made,
            self.others if made else (),
        )
        if not images:
            return planned
        others = [each for each in self.look if not isinstance(each, Maximize)]
        look, without = self._fitting(others, images)
        held = planned.drawn(self.data)
        return replace(planned, images=len(held), sha256=held.fingerprint(), look=(*look, *made), without=without)

    def _fitting(self, look: Sequence[Look], images: int) -> tuple[tuple[Look, ...], tuple[tuple[str, str], ...]]:
        """The looks that so many images bear, fitted to them, and why others are left out."""
        kept: list[Look] = []
        without: list[tuple[str, str]] = []
        for each in look:
            fewest = {CodeMap: FEWEST_MAPPED, Units: 0 if self.masks else FEWEST_NAMED}.get(type(each), 0)
            if images < fewest and not self.explicit:
                what = "a map" if isinstance(each, CodeMap) else "names of units"
                here = f"here {'is' if images == 1 else 'are'} {images:,}"
                without.append((each.name, f"{what} would show nothing with fewer than {fewest} images, and {here}"))
            elif isinstance(each, Exemplars) and each.k > images:
                kept.append(replace(each, k=images))
            else:
                kept.append(each)
        return tuple(kept), tuple(without)


def concepts(material: Material) -> str | None:
    """What the masks of all images that were given are, as a hash; None where there are none."""
    return None if material.masks is None else fingerprint(mask_files(material.masks, whole(material)))


def candidates(
    net: Classifier,
    material: Material,
    asked: Sequence[Look] | None,
    speed: Pace | None,
    many: Pace | None = None,
) -> list[Candidate]:
    """The sets that may be looked at; `asked` are the looks that were asked for, None for all.

    What was given, as one set; and where that is the demonstration and CIFAR-10 is in the cache, another model on it.
    """
    look = usual(net) if asked is None else tuple(asked)
    if not look:
        return []
    makes = any(isinstance(each, Maximize) for each in look)
    data = whole(material)
    shown = 0 if material.masks is None else len(mask_files(material.masks, data))
    found = [Candidate(SET, data, net, None, look, speed, others(net) if makes else (), asked is not None, shown, many)]
    if asked is None and material.demonstration and cached(OTHER_DATA) is not None:
        try:
            other, data = opened(OTHER_MODEL, net), other_data()
        except SeewhyError:
            return found
        if other.fingerprint != net.fingerprint:
            kept = tuple(each for each in usual(other) if not isinstance(each, Statistics | Maximize))
            here = pace(other, _AT_ONCE, lambda: data.item(0).read(other.preprocess)) if speed is not None else None
            found.append(Candidate(STAND_IN, data, other, OTHER_MODEL, kept, here))
    return found


def chosen(
    candidates: Sequence[Candidate], explained: int, learned: Sequence[tuple[Candidate, Any]], found: Sequence[Any]
) -> list[PlannedSet]:
    """The sets as they will be looked at, by what was `found` affordable of the offers in `learned`."""
    planned = []
    for candidate in candidates:
        own = [value for (owner, _), value in zip(learned, found, strict=False) if owner is candidate]
        images = next((value for value in own if isinstance(value, int)), candidate.fewest(explained))
        made = dict.fromkeys(value for value in own if isinstance(value, Maximize))
        planned.append(candidate.planned(images, tuple(made)))
    return planned


def other_data() -> DataSet:
    """The set that stands in; raises `DataError` where it was not fetched."""
    return cifar10()


def opened(spec: str, net: Classifier) -> Classifier:
    """A model by its spec, where and as the audited one runs."""
    engine = replace(net.engine, batch=_AT_ONCE, progress=None, measured={}, halved={})
    return load(spec, device=net.engine.device, engine=engine, check=False)


def of_a_set(look: Look) -> bool:
    """Whether an audit shows a look under "What did it learn?", for all images together."""
    return isinstance(look, Statistics | Exemplars | Maximize | CodeMap | Units)


def usual(net: Classifier) -> tuple[Look, ...]:
    """What an audit looks at where nothing else was said."""
    deep = depths(net)
    return (
        Statistics(),
        Exemplars(layers=deep, limit=UNITS, k=BEST),
        Maximize(snapshots=0),
        CodeMap(),
        Units(),
    )


def depths(net: Classifier) -> tuple[str, ...]:
    """A few layers from shallow to deep."""
    try:
        return tuple(dict.fromkeys((*stages(net)[-LAYERS:-1], uncut(net))))
    except SeewhyError:
        return ()


def _width(net: Classifier, layer: str | None) -> int:
    """How many units a layer has; none: the layer that they are named of."""
    try:
        (chosen,) = chosen_layers(net, (layer,) if layer else ())
        return next(each.shape[1] for each in trace(net) if each.address == chosen)
    except SeewhyError:
        return 0


def others(net: Classifier) -> tuple[tuple[str, str], ...]:
    """Models at hand that know the same classes: (spec, fingerprint) of each."""
    found = []
    for listed in models():
        classes = imagenet_labels() if "lite" in listed.spec else CLASSES_10
        if not listed.installed or ":" in listed.spec or set(net.labels) != set(classes):
            continue
        try:
            other = opened(listed.spec, net)
        except SeewhyError:
            continue
        if other.fingerprint != net.fingerprint:
            found.append((listed.spec, other.fingerprint))
    return tuple(found)


#: an objective of a single image
_ONE = "logit(0)"
