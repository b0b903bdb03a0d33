"""What an audit will do: which images, which methods with which settings, and what the budget leaves no room for."""

from __future__ import annotations

import hashlib
import math
import os
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from seewhy.classifier import Classifier
from seewhy.data.sets import DataSet
from seewhy.errors import LayerError, NothingToExplain, RunError, SeewhyError, SpecError, UnknownOperation
from seewhy.explain.base import Explainer
from seewhy.explain.cam import GradCAM
from seewhy.lens.capture import stages, trace
from seewhy.look.activations import Activations
from seewhy.look.base import Look
from seewhy.look.filters import Filters
from seewhy.method import Method, from_json, parse, registry
from seewhy.rng import generator
from seewhy.run import sets
from seewhy.run.material import Entry, Given, Material, draw, how, whole
from seewhy.run.pace import Pace, affordable, cheap, diagnosis, offer, targets
from seewhy.run.people import People, planned
from seewhy.run.sets import PlannedSet
from seewhy.units import seconds as in_words

#: images at most, where nothing else was said: each has a section of 1 to 3 MB in the report, and one of more is not read
MOST = 12

#: images that get the cheap methods whatever the budget: what is asked of few photographs is not thrown away
FEW = 4

#: the share of the budget that steps may take by reckoning, which is at most; the rest is for the report and a busy machine
SHARE = 0.8

#: the share of that which is kept for what it learned, where there are more images than can be explained one by one
LEARNED = 0.25

#: images in a batch on a CPU, where 16 is the fastest of most networks, and on a GPU
BATCH_CPU, BATCH_GPU = 16, 64

#: one or two explainers of each family, those first that a reader needs most: what an audit runs where nothing else is said
REPRESENTATIVE = (
    *("grad-cam", "lrp", "occlusion", "lime", "gradient", "integrated-gradients", "guided-backprop", "deep-taylor"),
    *("deconvolution", "deep-shap", "shap", "smoothgrad"),
)

#: the attacks of an audit where nothing else is said: the first always, its images are explained again; the others where
#: there is time
ATTACKS = ("fgsm", "deepfool:candidates=5,steps=10", "pgd:eps=0.5/255+2/255+8/255,refine=2")


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
    """All that decides a run's results; `asked` is what the command said, the rest what was made of it.

    `half` says whether samples of methods that bear it run in bfloat16; None in older plans, where each process measures it.
    """

    asked: dict[str, Any]
    images: tuple[Planned, ...]
    look: tuple[Method, ...]
    explain: tuple[Method, ...]
    attack: tuple[Method, ...]
    after: tuple[Method, ...]
    batch: int
    sets: tuple[PlannedSet, ...] = ()
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    people: dict[str, Any] | None = None
    half: bool | None = None

    def to_json(self) -> dict[str, Any]:
        """The plan as plain values, every field of every method written out."""
        return {
            "asked": self.asked,
            "images": [asdict(image) for image in self.images],
            "methods": {
                room: [{"spec": method.spec, **method.to_json()} for method in getattr(self, room)] for room in _ROOMS
            },
            "batch": self.batch,
            "sets": [each.to_json() for each in self.sets],
            "left_out": list(self.left_out),
            "notes": list(self.notes),
            "people": self.people,
            "half": self.half,
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
                sets=tuple(map(PlannedSet.from_json, plain.get("sets", ()))),
                left_out=tuple(plain["left_out"]),
                notes=tuple(plain["notes"]),
                people=plain.get("people"),
                half=plain.get("half"),
            )
        except (KeyError, TypeError, SpecError) as error:
            raise RunError(
                f"the plan in run.json was made by another seewhy, or changed ({type(error).__name__}: {error}); "
                "choose another directory with --out"
            ) from None


_ROOMS = ("look", "explain", "attack", "after")


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


def asked(
    net: Classifier,
    material: Material,
    *,
    sources: Sequence[Given],
    spec: str,
    classes: Sequence[int],
    methods: Sequence[Method],
    budget: float | None,
    limit: int | None,
    split: str | None = None,
    people: People | None = None,
    machine: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What a command said, as plain values, with the hashes of what it means here."""
    return {
        "model": spec,
        "fingerprint": net.fingerprint,
        "code": net.code,
        "operations": _hash([(each.address, each.op, each.shape) for each in trace(net)]),
        "mean": list(net.mean),
        "std": list(net.std),
        "preprocess": {**asdict(net.preprocess), "size": list(net.preprocess.size)},
        "labels": _hash(net.labels),
        "data": [source.name if isinstance(source, DataSet) else os.fspath(source) for source in sources],
        "names": _hash([(entry.item.name, entry.item.label) for entry in material.entries]),
        "classes": list(classes),
        "methods": [method.spec for method in methods],
        "outside": {method.spec: held for method in methods if (held := method.outside())},
        "budget": budget,
        "limit": limit,
        "precision": net.engine.precision,
        "split": split,
        "masks": None if material.masks is None else str(material.masks),
        "concepts": sets.concepts(material),
        "votes": None if people is None else people.spec,
        "label_map": None if people is None else people.map_spec,
        "people": None if people is None else people.said(),
        "machine": dict(machine or {}),
    }


def _hash(value: object) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()


_WORDS = {
    "model": "the model",
    "fingerprint": "the model's weights",
    "code": "the file that the model is made from",
    "operations": "the model's operations",
    "mean": "the model's normalisation",
    "std": "the model's normalisation",
    "preprocess": "how photographs become the model's input",
    "labels": "the names of the classes",
    "names": "the images",
    "classes": "the classes that were asked for",
    "methods": "the methods",
    "outside": "the methods' composites, label maps or references",
    "budget": "the budget",
    "limit": "the number of images",
    "precision": "the precision",
    "people": "the votes, the label map or the baselines",
    "concepts": "the masks",
}

#: the parts that older plans lack
LATER = ("code", "operations", "outside")


def fitting(plan: Plan, now: Mapping[str, Any], material: Material, directory: Path) -> None:
    """Check that a run's plan is that of this command; raises `RunError` with the part that differs.

    Where the data lie may differ, what they are may not. Older plans do not say what the model computes and what methods read,
    which is not checked then; the run's notes say so of the model.
    """
    for part, words in _WORDS.items():
        if part in LATER and part not in plan.asked:
            continue
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
    for each in plan.sets:
        if each.model is None and each.images and each.drawn(whole(material)).fingerprint() != each.sha256:
            raise RunError(
                f"{directory} belongs to another run: images of {each.name} have other contents there; "
                "choose another directory with --out"
            )


def make(
    net: Classifier,
    material: Material,
    said: dict[str, Any],
    methods: Sequence[Method],
    speed: Pace | None,
    people: People | None = None,
    many: Pace | None = None,
) -> Plan:
    """Choose images and methods. `methods`: those that were asked for, empty for all; `speed` None: without a budget.

    `many` is the speed of images in batches, where it was measured.

    The comparison with `people` may take half of the time; what it leaves is the photographs'.

    Whatever the budget, a few images get the cheap methods. Dear ones come with fewer samples or steps, or not at all,
    where there is no time for them; what was left out is said.
    """
    notes = list(material.notes)
    budget, total = said["budget"], len(material.entries)
    look = _of(methods, "look") if methods else _looks(net, notes)
    asked_sets = [each for each in look if isinstance(each, Look) and sets.of_a_set(each)]
    explain, left_out = (_of(methods, "explain"), []) if methods else _explainers(net, everything=budget is None)
    attack, unasked = (_of(methods, "attack"), []) if methods else _attacks(everything=budget is None)
    left_out += unasked
    few = [method for method in explain if methods or cheap(method)]
    dear = [method for method in explain if method not in few]
    more = [] if methods else attack[1:]
    after = [method for method in explain if cheap(method)] if attack else []
    left_out += [
        f"{method.name}: an audit has no place for it yet; `seewhy look` shows it"
        for method in look
        if not isinstance(method, Activations | Filters) and method not in asked_sets
    ]
    room = None if budget is None else SHARE * budget
    compared = None
    if people is not None:
        explainer = next((each for each in explain if isinstance(each, Explainer) and cheap(each)), GradCAM())
        compared = planned(net, material, people, None if room is None else room / 2, explainer)
        left_out += compared.pop("left_out")
        room = None if room is None else room - compared.pop("seconds")
    count = min(total, said["limit"] or (MOST if budget is not None else total))
    candidates = sets.candidates(net, material, asked_sets if methods else None, speed, many)
    if speed is not None and budget is not None and room is not None:
        classes = targets(said["classes"], any(entry.item.label is not None for entry in material.entries))
        each = speed.read + speed.forward + sum(speed.cost(method, classes) for method in few)
        certain = [method for method in attack if method not in more]
        of_photos = [method for method in look if method not in asked_sets]
        each += sum(map(speed.cost, (*certain, *2 * after, *2 * of_photos)))
        each += diagnosis(after) * speed.forward if attack else 0
        count = min(count, max(FEW, math.floor((1 - LEARNED * bool(candidates)) * room / each)))
        if count * each > room:
            needed = in_words(count * each)
            notes.append(f"the budget of {in_words(budget)} is short: even the cheap methods take about {needed} here")

        def cost(method: Method) -> float:
            return count * speed.cost(method, classes if method.room == "explain" else 1)

        certain_seconds = count * each + sum(candidate.seconds(candidate.fewest(count)) for candidate in candidates)
        learned = [(candidate, each) for candidate in candidates for each in candidate.offers(count)]
        offers = [*(each for _, each in learned), *(offer(method, cost, net.size) for method in (*more, *dear))]
        found, told = affordable(offers, max(0.0, room - certain_seconds))
        left_out += told
        together = sets.chosen(candidates, count, learned, found)
        both = [each for each in found[len(learned) :] if each is not None]
        attack, dear = [*certain, *_of(both, "attack")], _of(both, "explain")
    else:
        together = [each.planned(len(each.data), each.made) for each in candidates]
    left_out += [because for each in together for _, because in each.without]
    if material.demonstration and not methods and len(candidates) == 1:
        left_out.append(sets.FETCH)
    if count < total:
        left_out.append(f"{count} of {total:,} images were taken{how(material)}; --limit or --full for more")
    drawn = [(position, material.entries[position]) for position in draw(material, count)]
    return Plan(
        asked=said,
        images=tuple(_planned(number, *each) for number, each in enumerate(drawn, 1)),
        look=tuple(method for method in look if isinstance(method, Activations | Filters)),
        explain=tuple(sorted([*few, *dear], key=lambda method: sum(method.passes))),
        attack=tuple(attack),
        after=tuple(sorted(after, key=lambda method: sum(method.passes))),
        batch=batch(net),
        sets=tuple(each for each in together if each.look),
        left_out=tuple(left_out),
        notes=tuple(dict.fromkeys(notes)),
        people=compared,
        half=net.engine.halves,
    )


def batch(net: Classifier) -> int:
    """How many images a batch of the run holds."""
    return net.engine.batch or (BATCH_CPU if net.engine.device.type == "cpu" else BATCH_GPU)


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
    if not cheap(method):
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


def _of(methods: Sequence[Method], room: str) -> list[Method]:
    return [method for method in methods if method.room == room]


def _defaults(room: str) -> list[Method]:
    return sorted((parse(name) for name in registry(room)), key=lambda method: (sum(method.passes), method.name))


def _looks(net: Classifier, notes: list[str]) -> list[Method]:
    found: list[Method] = [method for method in _defaults("look") if isinstance(method, Filters)]
    try:
        found += [Activations(layer=layer) for layer in stages(net)]
    except (LayerError, UnknownOperation) as error:
        notes.append(f"no activation maps: {error}")
    return found


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
