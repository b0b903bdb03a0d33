"""People's side of an audit: whose votes, which images, which published results, and how much a budget has room for."""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from seewhy.classifier import Classifier
from seewhy.data.images import Images
from seewhy.errors import DataError, SpecError
from seewhy.explain.base import Explainer
from seewhy.humans.baselines import Baseline, baseline
from seewhy.humans.flags import flagged
from seewhy.humans.load import load as votes_of
from seewhy.humans.match import Combine, LabelMap, matched, truth
from seewhy.humans.properties import measured
from seewhy.humans.votes import Votes
from seewhy.rng import generator
from seewhy.run.material import Material

#: cases of each set in the gallery
GALLERY = 3

#: bootstrap rounds
ROUNDS = 1000

#: images that are answered at least, and seconds that the statistics take for ten thousand
LEAST, STATISTICS = 200, 30.0

#: images that are made worse, fewer of which say too little, and passes that each takes
WORSE, WORSE_LEAST, WORSE_PASSES = 300, 50, 26


@dataclass(frozen=True)
class Asked:
    """What a command said of people: votes and a label map by their specs, published results by name.

    `who` voted and where the `truth` comes from are words that stand among the limits. `whole` takes all images whatever
    the budget; `worse` of each data set's are made worse, 0 for none.
    """

    votes: str | os.PathLike[str] | Votes | None = None
    label_map: str | os.PathLike[str] | None = None
    combine: Combine = "mean"
    baselines: tuple[str, ...] = ()
    who: str = ""
    truth: str = ""
    whole: bool = False
    worse: int = WORSE

    def __bool__(self) -> bool:
        return self.votes is not None or self.label_map is not None or bool(self.baselines)


class People:
    """People's side of an audit: votes for the material's images, their true categories, and the published results.

    `positions` are the images that count, by their place in the material, `labels` their true categories in `classes`.
    """

    def __init__(self, net: Classifier, material: Material, asked: Asked) -> None:
        if asked.label_map is not None and asked.votes is None:
            raise SpecError(
                "a label map takes the model's classes to people's categories, and needs their votes: give --votes"
            )
        self.asked = asked
        self.baselines: tuple[Baseline, ...] = tuple(baseline(name) for name in dict.fromkeys(asked.baselines))
        self.notes: list[str] = []
        self.votes: Votes | None = None
        self.map: LabelMap | None = None
        self.classes: tuple[str, ...] = tuple(net.labels)
        self.positions: list[int]
        self.labels: dict[int, int]
        if asked.votes is None:
            self._alone(net, material)
        else:
            self._voted(net, material, asked.votes)
        if not self.positions:
            raise DataError(
                "the comparison with people needs images whose true class is known, and there are none; give labelled data"
            )

    def _alone(self, net: Classifier, material: Material) -> None:
        """The true classes as the model numbers them; by their order where the model came without names."""
        self.labels = {}
        start = 0
        for data, fitting in zip(material.given, material.sets, strict=True):
            if not net.labels_given and data.classes is not None and len(data.classes) == net.classes:
                fitting, self.classes = data, data.classes
            for place, label in enumerate(fitting.labels or ()):
                if label is not None:
                    self.labels[start + place] = label
            start += len(data)
        self.positions = list(self.labels)

    def _voted(self, net: Classifier, material: Material, given: str | os.PathLike[str] | Votes) -> None:
        names = [entry.item.name for entry in material.entries]
        one = material.given[0] if len(material.given) == 1 else None
        votes = given if isinstance(given, Votes) else votes_of(given, names, one.classes if one else None)
        found = matched(votes, names)
        self.map = _map(net, votes.classes, self.asked)
        known, notes = self._truth(found.votes, found.places.tolist(), material, self.map)
        missing = sorted({votes.classes[label] for label in known if label is not None} & set(self.map.missing))
        if missing:
            raise DataError(
                f"no class of the model belongs to {', '.join(missing)}, which images show: it could never be right about "
                "them; complete the label map, or leave these images out"
            )
        odd = [flag.sentence for flag in flagged(found.votes, known)]
        self.notes += [*votes.notes, *found.notes(), *self.map.notes(), *notes, *odd]
        kept = [index for index, label in enumerate(known) if label is not None]
        self.votes = found.votes.subset(kept)
        self.positions = [int(found.places[index]) for index in kept]
        self.labels = {place: int(known[index] or 0) for place, index in zip(self.positions, kept, strict=True)}
        self.classes = votes.classes

    @staticmethod
    def _truth(
        votes: Votes, places: Sequence[int], material: Material, map: LabelMap
    ) -> tuple[list[int | None], list[str]]:
        """Each voted image's true category, set by set: their classes need not have the same names."""
        known: list[int | None] = [None] * len(places)
        notes: list[str] = []
        start = 0
        for data in material.given:
            inside = [index for index, place in enumerate(places) if start <= place < start + len(data)]
            if inside:
                labels = [None if data.labels is None else data.labels[places[index] - start] for index in inside]
                found, told = truth(votes.subset(inside), labels, map, data.classes)
                notes += told
                for index, label in zip(inside, found, strict=True):
                    known[index] = label
            start += len(data)
        return known, notes

    @property
    def spec(self) -> str | None:
        """Where the votes came from; None where there are none."""
        votes = self.asked.votes
        return votes if votes is None else votes.name if isinstance(votes, Votes) else os.fspath(votes)

    @property
    def map_spec(self) -> str | None:
        """Where the label map came from; None where there is none."""
        return None if self.asked.label_map is None else os.fspath(self.asked.label_map)

    def said(self) -> dict[str, Any]:
        """What it depends on, as plain values: hashes of votes and label map, and the names of published results."""
        path = self.asked.label_map
        return {
            "votes": None if self.votes is None else _votes_hash(self.votes),
            "label_map": None if path is None else hashlib.sha256(Path(path).expanduser().read_bytes()).hexdigest(),
            "combine": self.asked.combine,
            "baselines": [each.name for each in self.baselines],
            "who": self.asked.who,
            "truth": self.asked.truth,
            "whole": self.asked.whole,
            "worse": self.asked.worse,
        }


def _map(net: Classifier, categories: tuple[str, ...], asked: Asked) -> LabelMap:
    """The model's classes as people's categories: by the table, by name, or by number where the model has no names."""
    if asked.label_map is not None:
        return LabelMap.read(Path(asked.label_map).expanduser(), net.labels, categories, asked.combine)
    if not net.labels_given and net.classes == len(categories):
        return LabelMap(net.labels, categories, np.arange(net.classes), source="their order: the model has no names")
    return replace(LabelMap.by_name(net.labels, categories), combine=asked.combine)


def _votes_hash(votes: Votes) -> str:
    digest = hashlib.sha256(repr((votes.images, votes.classes)).encode())
    digest.update(votes.counts.tobytes())
    trials = votes.trials
    if trials is not None:
        for held in (trials.image, trials.annotator, trials.answer, trials.condition):
            digest.update(b"" if held is None else held.tobytes())
    return digest.hexdigest()


def planned(
    net: Classifier, material: Material, people: People, room: float | None, explainer: Explainer
) -> dict[str, Any]:
    """How many images are answered and made worse within `room` seconds (None: everything), as plain values.

    `left_out` and `seconds`, what it will take by reckoning, are for the plan that it becomes part of.
    """
    total = len(people.positions)
    made: dict[str, Any] = {
        "of": total,
        "images": total,
        "rounds": ROUNDS,
        "gallery": GALLERY if people.votes is not None else 0,
        "worse": min(people.asked.worse, total),
        "explainer": {"spec": explainer.spec, **explainer.to_json()},
        "left_out": [],
        "seconds": 0.0,
        "notes": people.notes,
    }
    if room is None or people.asked.whole:
        return made
    each = _pace(net, material, people.positions)
    both = each + (STATISTICS / 10_000 if people.votes is not None else 0.0)
    made["images"] = count = min(total, max(min(LEAST, total), math.floor(room / both)))
    if count < total:
        made["left_out"].append(
            f"the comparison with people takes {count:,} of {total:,} labelled images by chance (seed 0); "
            "a larger --budget or --full takes more"
        )
    sets = max(1, len(material.given))
    left = math.floor(max(0.0, room - count * both) / (sets * WORSE_PASSES * each))
    made["worse"] = worse = min(people.asked.worse, count, left)
    made["seconds"] = count * both + sets * worse * WORSE_PASSES * each
    if worse < min(WORSE_LEAST, count, people.asked.worse):
        made["worse"] = 0
        made["left_out"].append(
            "the accuracy on images made worse; a larger --budget, --full or `seewhy versus --worse` measures it"
        )
    return made


def _pace(net: Classifier, material: Material, positions: Sequence[int]) -> float:
    """Seconds to read one image and answer it, in a batch."""
    chosen = positions[:: max(1, len(positions) // 16)][:16]
    held = []
    started = time.perf_counter()
    for place in chosen:
        try:
            held.append(material.entries[place].item.read(net.preprocess))
        except DataError:
            continue
    reading = time.perf_counter() - started
    if not held:
        return reading / len(chosen)
    images = Images.join(held)
    net.predict(images).cpu()
    started = time.perf_counter()
    net.predict(images).cpu()
    measured(images.pixels)
    return reading / len(chosen) + (time.perf_counter() - started) / len(held)


def drawn(people: People, count: int) -> list[int]:
    """The positions that are answered: all, or so many by chance."""
    if count >= len(people.positions):
        return people.positions
    order = torch.randperm(len(people.positions), generator=generator(0, "people")).tolist()
    return sorted(people.positions[place] for place in order[:count])
