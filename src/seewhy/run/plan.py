"""What an audit will do: which images, which methods with which settings, and what the budget leaves no room for."""

from __future__ import annotations

import hashlib
import importlib.util
import math
import os
import platform
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from seewhy.attack.why_it_fails import passes
from seewhy.classifier import Classifier
from seewhy.data.folders import photos
from seewhy.data.load import load
from seewhy.data.photo import SUFFIXES
from seewhy.data.sets import DataSet, Files, Item
from seewhy.errors import DataError, LayerError, NothingToExplain, RunError, SeewhyError, SpecError, UnknownOperation
from seewhy.explain.base import Explainer
from seewhy.explain.occlusion import Occlusion
from seewhy.lens.capture import stages
from seewhy.look.activations import Activations
from seewhy.look.filters import Filters
from seewhy.method import Method, from_json, parse, registry
from seewhy.rng import generator
from seewhy.units import seconds as in_words

#: where the photographs come from that scikit-image ships, and on what terms
DEMONSTRATION: Mapping[str, str] = {
    "astronaut.png": "Eileen Collins, NASA Great Images; public domain (shipped with scikit-image)",
    "chelsea.png": "Chelsea the cat, Stéfan van der Walt; CC0 (shipped with scikit-image)",
    "coffee.png": "Cup of coffee, Rachel Michetti, courtesy of Pikolo Espresso Bar; CC0 (shipped with scikit-image)",
    "rocket.jpg": "Falcon 9 with DSCOVR, SpaceX; public domain (shipped with scikit-image)",
}

#: images at most, where nothing else was said: a report of more is not read
MOST = 24

#: images that get the cheap methods whatever the budget: what is asked of few photographs is not thrown away
FEW = 4

#: the share of the budget that steps may take by reckoning; the rest is for the report and for a busy machine
SHARE = 0.6

#: images in a batch on a CPU, where 16 is the fastest of most networks, and on a GPU
BATCH_CPU, BATCH_GPU = 16, 64

#: what a step costs besides its passes, in seconds: arrays, pictures, the row
OVERHEAD = 0.05

#: one or two explainers of each family, those first that a reader needs most: what an audit runs where nothing else is said
REPRESENTATIVE = (
    *("grad-cam", "lrp", "occlusion", "lime", "gradient", "integrated-gradients", "guided-backprop", "deep-taylor"),
    *("deconvolution", "deep-shap", "shap", "smoothgrad"),
)

#: the attacks of an audit where nothing else is said: the first always, its images are explained again; the others where
#: there is time
ATTACKS = ("fgsm", "deepfool:candidates=5,steps=10", "pgd:eps=0.5/255+2/255+8/255,refine=2")

#: random directions, and explainers whose maps are compared, in the diagnosis of why an attack succeeds
NOISES, MAPS = 3, 2

#: evaluations, samples or steps below which a method is left out instead: with gradients, and without
FEWEST_GRADIENTS, FEWEST_PASSES = 8, 100

_TABLES = (".csv", ".tsv", ".npz", ".tgz", ".tar.gz", ".tar")


@dataclass(frozen=True)
class Planned:
    """One image of a plan: `position` counts from 0 in all the data that was given."""

    id: str
    position: int
    name: str
    path: str | None
    sha256: str
    label: int | None
    credit: str | None


@dataclass(frozen=True)
class Plan:
    """All that decides a run's results; `asked` is what the command said, the rest what was made of it."""

    asked: dict[str, Any]
    images: tuple[Planned, ...]
    look: tuple[Method, ...]
    explain: tuple[Method, ...]
    attack: tuple[Method, ...]
    after: tuple[Method, ...]
    batch: int
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The plan as plain values, every field of every method written out."""
        return {
            "asked": self.asked,
            "images": [asdict(image) for image in self.images],
            "methods": {
                room: [{"spec": method.spec, **method.to_json()} for method in getattr(self, room)] for room in _ROOMS
            },
            "batch": self.batch,
            "left_out": list(self.left_out),
            "notes": list(self.notes),
        }

    @staticmethod
    def from_json(plain: Mapping[str, Any]) -> Plan:
        """The inverse of `to_json`; raises `RunError` for a plan that this seewhy does not understand."""
        try:
            rooms = {
                room: tuple(
                    from_json({key: value for key, value in each.items() if key != "spec"})
                    for each in plain["methods"][room]
                )
                for room in _ROOMS
            }
            return Plan(
                asked=plain["asked"],
                images=tuple(Planned(**image) for image in plain["images"]),
                **rooms,
                batch=plain["batch"],
                left_out=tuple(plain["left_out"]),
                notes=tuple(plain["notes"]),
            )
        except (KeyError, TypeError, SpecError) as error:
            raise RunError(
                f"the plan in run.json was made by another seewhy, or changed ({type(error).__name__}: {error}); "
                "choose another directory with --out"
            ) from None


_ROOMS = ("look", "explain", "attack", "after")


@dataclass(frozen=True)
class Entry:
    """One image that was given, not read yet."""

    item: Item
    path: str | None
    content: Callable[[], bytes]
    credit: str | None


class Material(NamedTuple):
    """The images that were given, and what a reader should know of them."""

    entries: tuple[Entry, ...]
    sets: tuple[DataSet, ...]
    notes: tuple[str, ...]


class Pace(NamedTuple):
    """Seconds of one image's forward pass, and of a forward and a backward pass."""

    forward: float
    both: float

    def cost(self, method: Method, targets: int = 1) -> float:
        """Seconds of a method on one image, for so many classes, at most."""
        backward = max(0.0, self.both - self.forward)
        together = method.passes[0] * self.forward + method.passes[1] * backward
        return targets * OVERHEAD + (1 if shared(method) else targets) * together


def shared(method: Method) -> bool:
    """Whether a method's passes answer for several classes at once."""
    return isinstance(method, Explainer) and type(method).attribute_each is not Explainer.attribute_each


def diagnosis(after: Sequence[Method]) -> float:
    """Passes, forward and backward, of the diagnosis of one image, at most; `after` are the cheap explainers."""
    return sum(passes(NOISES)) + (2 + NOISES) * sum(sum(method.passes) for method in after[:MAPS])


def roles(logits: Tensor, label: int | None, classes: Sequence[int]) -> dict[int, str]:
    """The classes that are explained for an image, and what each is to it."""
    order = logits.argsort(descending=True, stable=True).tolist()
    found = {order[0]: "predicted"}
    if len(order) > 1:
        found[order[1]] = "runner-up"
    if label is not None:
        found.setdefault(label, "true")
    for index in classes:
        found.setdefault(index, "asked")
    return found


def targets(classes: Sequence[int], labelled: bool) -> int:
    """How many classes are explained for an image, at most."""
    return 2 + len(classes) + labelled


def software(net: Classifier) -> dict[str, Any]:
    """What the last digits of a result depend on beside the plan: versions, device, threads."""
    from seewhy import __version__

    device = net.engine.device
    return {
        "seewhy": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
    }


def gather(sources: Sequence[str | os.PathLike[str]], labels: Sequence[str]) -> Material:
    """The images of photographs, folders and data sets, in order; without any, the photographs that scikit-image ships.

    True classes come with a model's class indices where the names of the classes allow it.
    """
    if not sources:
        return _demonstration()
    sets: list[DataSet] = []
    notes: list[str] = []
    single: list[str | os.PathLike[str]] = []
    for source in sources:
        if _is_photo(source):
            single.append(source)
            continue
        if single:
            sets.append(photos(single))
            single = []
        sets.append(load(source))
    if single:
        sets.append(photos(single))
    entries: list[Entry] = []
    for number, data in enumerate(sets):
        notes += data.notes
        try:
            fitting = data.aligned(labels)
        except DataError as error:
            fitting = replace(data, labels=None, classes=None)
            notes.append(f"the true classes of {data.name} are not used: {error}")
        sets[number] = fitting
        entries += [_entry(fitting, index) for index in range(len(fitting))]
    return Material(tuple(entries), tuple(sets), tuple(notes))


def _is_photo(source: str | os.PathLike[str]) -> bool:
    path = Path(source).expanduser()
    if path.is_dir():
        return False
    return path.suffix.lower() in SUFFIXES or (path.is_file() and not path.name.lower().endswith(_TABLES))


def _entry(data: DataSet, index: int, credit: str | None = None) -> Entry:
    place = data.positions[index]
    path = str(data.source.paths[place]) if isinstance(data.source, Files) else None
    return Entry(data.item(index), path, lambda: data.source.content(place), credit)


def _demonstration() -> Material:
    found = importlib.util.find_spec("skimage")
    if found is None or found.origin is None:
        raise DataError("the photographs of the demonstration come with scikit-image: install it, or name your own")
    data = photos([Path(found.origin).parent / "data" / name for name in DEMONSTRATION])
    credits = list(DEMONSTRATION.values())
    return Material(tuple(_entry(data, index, credits[index]) for index in range(len(data))), (data,), ())


def asked(
    net: Classifier,
    material: Material,
    *,
    sources: Sequence[str | os.PathLike[str]],
    spec: str,
    classes: Sequence[int],
    methods: Sequence[Method],
    budget: float | None,
    limit: int | None,
) -> dict[str, Any]:
    """What a command said, as plain values, with the hashes of what it means here."""
    return {
        "model": spec,
        "fingerprint": net.fingerprint,
        "mean": list(net.mean),
        "std": list(net.std),
        "preprocess": {**asdict(net.preprocess), "size": list(net.preprocess.size)},
        "labels": _hash(net.labels),
        "data": [os.fspath(source) for source in sources],
        "names": _hash([(entry.item.name, entry.item.label) for entry in material.entries]),
        "classes": list(classes),
        "methods": [method.spec for method in methods],
        "budget": budget,
        "limit": limit,
        "precision": net.engine.precision,
    }


def _hash(value: object) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()


_WORDS = {
    "model": "the model",
    "fingerprint": "the model's weights",
    "mean": "the model's normalisation",
    "std": "the model's normalisation",
    "preprocess": "how photographs become the model's input",
    "labels": "the names of the classes",
    "names": "the images",
    "classes": "the classes that were asked for",
    "methods": "the methods",
    "budget": "the budget",
    "limit": "the number of images",
    "precision": "the precision",
}


def fitting(plan: Plan, now: Mapping[str, Any], material: Material, directory: Path) -> None:
    """Check that a run's plan is that of this command; raises `RunError` with the part that differs.

    Where the data lie may differ, what they are may not.
    """
    for part, words in _WORDS.items():
        there, wanted = plan.asked.get(part), now.get(part)
        if there != wanted:
            short = max(len(str(there)), len(str(wanted))) <= 60
            told = f" ({there} there, {wanted} here)" if short else ""
            raise RunError(
                f"{directory} belongs to another run: {words} differ{'' if words.endswith('s') else 's'}{told}; "
                "choose another directory with --out"
            )
    for image in plan.images:
        if hashlib.sha256(material.entries[image.position].content()).hexdigest() != image.sha256:
            raise RunError(
                f"{directory} belongs to another run: the image {image.name} has other contents there; "
                "choose another directory with --out"
            )


def pace(net: Classifier) -> Pace:
    """How long one image takes here, forward and backward: the best of three tries each, after one to warm up."""
    image = torch.full((1, 3, *net.size), 0.5)

    def forward() -> None:
        net.predict(image)

    def both() -> None:
        net.gradient(image, lambda logits, _: logits[:, 0])

    both()
    return Pace(*(min(_timed(run) for _ in range(3)) for run in (forward, both)))


def _timed(run: Callable[[], None]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def make(
    net: Classifier, material: Material, said: dict[str, Any], methods: Sequence[Method], speed: Pace | None
) -> Plan:
    """Choose images and methods. `methods`: those that were asked for, empty for all; `speed` None: without a budget.

    Whatever the budget, a few images get the cheap methods. Dear ones come with fewer samples or steps, or not at all,
    where there is no time for them; what was left out is said.
    """
    notes = list(material.notes)
    budget, total = said["budget"], len(material.entries)
    look = _of(methods, "look") if methods else _looks(net, notes)
    explain, left_out = (_of(methods, "explain"), []) if methods else _explainers(net, everything=budget is None)
    attack, unasked = (_of(methods, "attack"), []) if methods else _attacks(everything=budget is None)
    left_out += unasked
    cheap = [method for method in explain if methods or _cheap(method)]
    dear = [method for method in explain if method not in cheap]
    more = [] if methods else attack[1:]
    after = [method for method in explain if _cheap(method)] if attack else []
    left_out += [
        f"{method.name}: an audit has no place for it yet; `seewhy look` shows it"
        for method in look
        if not isinstance(method, Activations | Filters)
    ]
    count = min(total, said["limit"] or (MOST if budget is not None else total))
    if speed is not None and budget is not None:
        classes = targets(said["classes"], any(entry.item.label is not None for entry in material.entries))
        each = speed.forward + sum(speed.cost(method, classes) for method in cheap)
        certain = [method for method in attack if method not in more]
        each += sum(map(speed.cost, (*certain, *2 * after, *2 * look)))
        each += diagnosis(after) * speed.forward if attack else 0
        room = SHARE * budget
        count = min(count, max(FEW, math.floor(room / each)))
        if count * each > room:
            needed = in_words(count * each)
            notes.append(f"the budget of {in_words(budget)} is short: even the cheap methods take about {needed} here")
        both, told = _affordable(
            [*more, *dear],
            lambda method: count * speed.cost(method, classes if method.room == "explain" else 1),
            room - count * each,
            net.size,
        )
        left_out += told
        attack, dear = [*certain, *_of(both, "attack")], _of(both, "explain")
    if count < total:
        left_out.append(f"{count} of {total:,} images were taken{_how(material)}; --limit or --full for more")
    drawn = [(position, material.entries[position]) for position in _draw(material, count)]
    return Plan(
        asked=said,
        images=tuple(_planned(number, *each) for number, each in enumerate(drawn, 1)),
        look=tuple(method for method in look if isinstance(method, Activations | Filters)),
        explain=tuple(sorted([*cheap, *dear], key=lambda method: sum(method.passes))),
        attack=tuple(attack),
        after=tuple(sorted(after, key=lambda method: sum(method.passes))),
        batch=net.engine.batch or (BATCH_CPU if net.engine.device.type == "cpu" else BATCH_GPU),
        left_out=tuple(left_out),
        notes=tuple(dict.fromkeys(notes)),
    )


def _explainers(net: Classifier, everything: bool) -> tuple[list[Method], list[str]]:
    """All explainers, or the representative ones, without those that refuse this network; and what that leaves out."""
    known = _defaults("explain")
    wanted = (
        known
        if everything
        else sorted(
            (method for method in known if method.name in REPRESENTATIVE),
            key=lambda each: REPRESENTATIVE.index(each.name),
        )
    )
    refused = {method.name: sentence for method in wanted if (sentence := refusal(net, method))}
    left_out = [f"{name}: {sentence}" for name, sentence in refused.items()]
    others = [method.name for method in known if method not in wanted]
    if others:
        left_out.append(
            f"methods of families that others stand for: {', '.join(others)}; --method NAME or --full runs them"
        )
    return [method for method in wanted if method.name not in refused], left_out


def _attacks(everything: bool) -> tuple[list[Method], list[str]]:
    """All attacks, or the few of an audit, the first of which leads; and what that leaves out."""
    known = registry("attack")
    chosen = [parse(spec) for spec in ATTACKS if spec.partition(":")[0] in known]
    named = {method.name for method in chosen}
    if everything:
        return [*chosen, *(method for method in _defaults("attack") if method.name not in named)], []
    others = [name for name in known if name not in named]
    told = f"attacks that others stand for: {', '.join(others)}; --method NAME or --full runs them, and so does `seewhy attack`"
    return chosen, [told] if others else []


def refusal(net: Classifier, method: Method) -> str:
    """The sentence with which a method refuses a network, empty where it doesn't; tried on an image of noise.

    Only methods of a few passes are tried: they are those that need a rule for each operation.
    """
    if not _cheap(method):
        return ""
    image = torch.rand(1, 3, *net.size, generator=generator(0, "refusal"))
    try:
        method(net, image, target=0)
    except NothingToExplain:
        return ""
    except SeewhyError as error:
        return " ".join(str(error).split())
    except Exception:  # noqa: BLE001  what else fails becomes a row of the run
        return ""
    return ""


def _affordable(
    methods: Sequence[Method], cost: Callable[[Method], float], spare: float, size: tuple[int, int] = (224, 224)
) -> tuple[list[Method], list[str]]:
    """Those of these methods, or of their thriftier variants, that fit into the seconds to spare.

    First as many methods as possible, each at its thriftiest, then each in turn one step dearer while there is time.
    """
    variants = {method: _thriftier(method, size)[::-1] for method in methods}
    chosen: dict[Method, int] = {}
    left_out: list[str] = []
    for method, (first, *_) in variants.items():
        if cost(first) <= spare:
            chosen[method] = 0
            spare -= cost(first)
        else:
            needed = in_words(cost(first))
            at = "" if first == method else f" even as {first.spec}"
            left_out.append(f"{method.name} would take about {needed}{at}, more than the budget leaves")
    rising = list(chosen)
    while rising:
        for method in list(rising):
            steps, place = variants[method], chosen[method]
            more = cost(steps[place + 1]) - cost(steps[place]) if place + 1 < len(steps) else math.inf
            if more <= spare:
                chosen[method], spare = place + 1, spare - more
            else:
                rising.remove(method)
    found = {method: variants[method][place] for method, place in chosen.items()}
    left_out += [
        f"{variant.spec} runs instead of {method.spec}, to stay within the budget"
        for method, variant in found.items()
        if variant != method
    ]
    return list(found.values()), left_out


def _of(methods: Sequence[Method], room: str) -> list[Method]:
    return [method for method in methods if method.room == room]


def _defaults(room: str) -> list[Method]:
    return sorted((parse(name) for name in registry(room)), key=lambda method: (sum(method.passes), method.name))


def _cheap(method: Method) -> bool:
    return sum(method.passes) <= 3


def _looks(net: Classifier, notes: list[str]) -> list[Method]:
    found: list[Method] = [method for method in _defaults("look") if isinstance(method, Filters)]
    try:
        found += [Activations(layer=layer) for layer in stages(net)]
    except (LayerError, UnknownOperation) as error:
        notes.append(f"no activation maps: {error}")
    return found


def _thriftier(method: Method, size: tuple[int, int] = (224, 224)) -> list[Method]:
    """A method, then with a third of its samples, steps or evaluations again and again, while enough remain.

    Occlusion comes with larger windows: an eighth, a sixth and a fourth of the image's shorter side.
    """
    variants = [method]
    if isinstance(method, Occlusion) and method.window is None and method.stride is None and min(size) >= 64:
        variants += [replace(method, window=(min(size) // part,)) for part in (8, 6, 4)]
    enough = FEWEST_GRADIENTS if method.passes[1] else FEWEST_PASSES
    for name in ("samples", "steps", "evaluations"):
        if any(field.name == name and field.type in ("int", int) for field in fields(method)):
            while getattr(variants[-1], name) // 3 >= enough:
                variants.append(replace(variants[-1], **{name: getattr(variants[-1], name) // 3}))
    return variants


def _draw(material: Material, count: int) -> list[int]:
    """The positions of the images that are taken: of one set by chance, each class with its share; else evenly."""
    total = len(material.entries)
    if count >= total:
        return list(range(total))
    if len(material.sets) > 1:
        return [number * total // count for number in range(count)]
    data = material.sets[0]
    places = {place: index for index, place in enumerate(data.positions)}
    return [places[place] for place in data.sample(count, seed=0).positions]


def _how(material: Material) -> str:
    return " evenly" if len(material.sets) > 1 else " by chance (seed 0)"


def _planned(number: int, position: int, entry: Entry) -> Planned:
    stem = re.sub(r"[^A-Za-z0-9]+", "-", Path(entry.item.name).stem).strip("-")[:40]
    return Planned(
        id=f"{number:04d}" + (f"-{stem}" if stem else ""),
        position=position,
        name=entry.item.name,
        path=entry.path,
        sha256=hashlib.sha256(entry.content()).hexdigest(),
        label=entry.item.label,
        credit=entry.credit,
    )
