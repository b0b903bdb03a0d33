"""The set-level steps of an audit: the model's answers on all labelled images, people's beside them, and where they part."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
import torch

from seewhy.data.images import Images
from seewhy.data.sets import DataSet
from seewhy.engine import Meter
from seewhy.errors import DataError, NothingToExplain, SpecError
from seewhy.explain.base import Explainer
from seewhy.humans.agreement import agreement
from seewhy.humans.baselines import Baseline
from seewhy.humans.estimate import Estimate
from seewhy.humans.gallery import Case, cases, explained
from seewhy.humans.parting import PARTED, Parting, parting
from seewhy.humans.performance import performance
from seewhy.humans.properties import PROPERTIES, measured
from seewhy.humans.tables import TABLES
from seewhy.humans.votes import Floats, Votes
from seewhy.humans.worse import Point, worse
from seewhy.method import from_json
from seewhy.run.job import Found, Job, picture_of
from seewhy.run.people import WORSE_PASSES, People, drawn
from seewhy.run.store import MODEL

#: images that are answered between two rows, so that a stop loses no more
PART = 500


class _Both(NamedTuple):
    """Votes, probabilities (N, K), true categories, properties (N, P), and the images' places in the material."""

    votes: Votes
    chances: Floats
    labels: list[int]
    properties: Floats
    positions: list[int]


class Comparing:
    """The set-level steps of one audit, in order; what later ones need is read from the rows of those before."""

    def __init__(self, job: Job, people: People, plan: Mapping[str, Any]) -> None:
        self.job, self.people, self.plan = job, people, plan
        self.positions = drawn(people, int(plan["images"]))

    @property
    def parts(self) -> list[slice]:
        """The images that are answered between two rows."""
        return in_parts(len(self.positions))

    def sets(self) -> Iterator[tuple[str, list[int]]]:
        """The data sets that have images here: name and places in `positions`."""
        start = 0
        for data in self.job.material.given:
            inside = [i for i, place in enumerate(self.positions) if start <= place < start + len(data)]
            if inside:
                yield data.name, inside
            start += len(data)

    def units(self) -> float:
        """About how many passes of one image it takes."""
        answers = len(self.positions)
        voted = answers // 2 if self.people.votes is not None else 0
        worse = len(list(self.sets())) * WORSE_PASSES * int(self.plan["worse"])
        return answers + voted + worse + 6 * len(PARTED) * int(self.plan["gallery"])

    def go(self, step: Callable[[str, float, Callable[[], Found]], bool]) -> None:
        """Do every step; `step(address, units, work)` does one unless it is done, and answers whether it is there."""
        for part in self.parts:
            step(answers_of(part), part.stop - part.start, partial(self.answers, part))
        sets = list(self.sets())
        for name, places in sets:
            step(f"performance:{name}", 1, partial(self.alone, name, places))
        if self.people.votes is not None:
            step("agreement", len(self.positions) / 4, self.agree)
            if step("parting", len(self.positions) / 4, self.part):
                for number, row in enumerate(self.job.run.record(MODEL, "parting")["cases"], 1):
                    step(f"case:{number}", 6, partial(self.case, row))
        if self.plan["worse"]:
            for name, places in sets:
                step(f"worse:{name}", WORSE_PASSES * int(self.plan["worse"]), partial(self.worse, name, places))

    # Answers

    def answers(self, part: slice) -> Found:
        """The model's logits of a part of the images, and the images' properties; NaN for those that cannot be read."""
        net, held, places = self.job.net, [], []
        lost: list[str] = []
        chosen = self.positions[part]
        with Meter(self.job.net.engine.device) as meter:
            for place, position in enumerate(chosen):
                item = self.job.material.entries[position].item
                try:
                    held.append(item.read(net.preprocess))
                    places.append(place)
                except DataError as error:
                    lost.append(f"{item.name}: {error}")
            logits = np.full((len(chosen), net.classes), np.nan, np.float32)
            properties = np.full((len(chosen), len(PROPERTIES)), np.nan, np.float32)
            if held:
                images = Images.join(held)
                logits[places] = net.predict(images).cpu().numpy()
                properties[places] = measured(images.pixels).numpy()
        record = {"first": part.start, "images": len(chosen), "unreadable": lost, "properties": list(PROPERTIES)}
        notes = (f"{len(lost)} of {len(chosen)} images cannot be read",) if lost else ()
        return Found(record, meter.cost, notes, {"logits": logits, "properties": properties})

    @cached_property
    def answered(self) -> tuple[Floats, Floats]:
        """Probabilities (N, K) of the categories and properties (N, P), NaN for images that could not be read."""
        run = self.job.run
        steps = [answers_of(part) for part in self.parts if run.done(MODEL, answers_of(part))]
        if len(steps) < len(self.parts):
            raise NothingToExplain("the model's answers on the whole set failed, so there is nothing to compare")
        logits = torch.from_numpy(np.concatenate([run.array(MODEL, step, "logits") for step in steps]))
        chances = logits.double().softmax(1).numpy()
        known = np.isfinite(chances).all(1)
        if self.people.map is not None:
            mapped = np.full((len(chances), len(self.people.classes)), np.nan)
            mapped[known] = self.people.map(chances[known])
            chances = mapped
        properties = np.concatenate([run.array(MODEL, step, "properties") for step in steps]).astype(np.float64)
        return chances, properties

    def readable(self, places: Sequence[int]) -> list[int]:
        """Those of these places whose answers are known."""
        chances, _ = self.answered
        found = [place for place in places if np.isfinite(chances[place]).all()]
        if not found:
            raise NothingToExplain("the model's answers are NaN or infinite, or no image can be read")
        return found

    # What is made of them

    def alone(self, name: str, places: Sequence[int]) -> Found:
        """The model's own numbers on one data set."""
        with Meter(self.job.net.engine.device) as meter:
            kept = self.readable(places)
            chances, _ = self.answered
            labels = [self.people.labels[self.positions[place]] for place in kept]
            notes = (f"{len(places) - len(kept)} images are left out",) if len(kept) < len(places) else ()
            found = performance(
                chances[kept], labels, self.people.classes, data=name, model=self.job.net.name, notes=notes
            )
            beside = [{**_published(each), "words": found.beside(each)} for each in self.people.baselines]
        return Found({**found.record(), "beside": beside}, meter.cost, notes)

    @cached_property
    def both(self) -> _Both:
        """What people and the model answered, for the images that have both."""
        votes = self.people.votes
        if votes is None:
            raise NothingToExplain("there are no votes")
        rows = {place: row for row, place in enumerate(self.people.positions)}
        kept = self.readable(range(len(self.positions)))
        chances, properties = self.answered
        chosen = [self.positions[place] for place in kept]
        return _Both(
            votes.subset([rows[place] for place in chosen]),
            chances[kept],
            [self.people.labels[place] for place in chosen],
            properties[kept],
            chosen,
        )

    @cached_property
    def parting(self) -> Parting:
        """Where the model and people part."""
        held = self.both
        return parting(
            held.votes,
            held.chances,
            held.labels,
            properties=dict(zip(PROPERTIES, held.properties.T, strict=True)),
            rounds=int(self.plan["rounds"]),
            model=self.job.net.name,
        )

    def part(self) -> Found:
        """Where they part, what goes with it, and the cases of the gallery."""
        with Meter(self.job.net.engine.device) as meter:
            found = self.parting
            shown = [case for group in PARTED for case in cases(found, group, int(self.plan["gallery"]))]
            record = {
                "votes": found.name,
                "images": len(found),
                "rule": found.rule,
                "rounds": found.rounds,
                "rows": found.rows(),
                "words": found.words(),
                "properties": dict(PROPERTIES),
                "cases": [{**case.row(), "position": self.both.positions[case.place]} for case in shown],
            }
        return Found(record, meter.cost, found.notes)

    def case(self, row: Mapping[str, Any]) -> Found:
        """One case of the gallery, explained."""
        net, case = self.job.net, Case.of(row)
        explainer = from_json({key: value for key, value in self.plan["explainer"].items() if key != "spec"})
        if not isinstance(explainer, Explainer):
            raise SpecError(f"expected an explainer for the gallery, got {explainer.spec}")
        images = self.job.material.entries[row["position"]].item.read(net.preprocess)
        found, notes, cost = explained(net, images, case, explainer)
        file = f"people-{row['position']}.png"
        record = {
            "case": case.row(),
            "picture": file,
            "maps": [
                {"method": each.method, "label": each.labels[0], "layer": each.layer, "sign": each.sign}
                for each in found
            ],
        }
        arrays = {f"values-{number}": each.values[0].numpy() for number, each in enumerate(found)}
        return Found(record, cost, notes, arrays, {file: picture_of(images.pixels[0])})

    def agree(self) -> Found:
        """How the model and people answer the same images."""
        with Meter(self.job.net.engine.device) as meter:
            held = self.both
            found = agreement(
                held.votes,
                held.chances,
                held.labels,
                rounds=int(self.plan["rounds"]),
                model=self.job.net.name,
                people=self.people.asked.who,
                truth=self.people.asked.truth,
            )
            record = plain(
                {
                    "votes": found.data,
                    "images": found.images,
                    "annotators": found.annotators,
                    "count": found.votes,
                    "rounds": found.rounds,
                    "outcome": found.verdict.outcome,
                    "headline": found.verdict.headline,
                    "sample": found.verdict.sample,
                    "limits": found.verdict.limits,
                    "words": found.words(),
                    "tables": {name: found.rows(name) for name in TABLES},
                    "confusion": {
                        "classes": found.confusion.classes,
                        "images": found.confusion.images,
                        "network": found.confusion.network.tolist(),
                        "people": found.confusion.people.tolist(),
                    },
                    "reliability": [
                        {"who": each.who, "bins": [vars(bin) | {"accuracy": vars(bin.accuracy)} for bin in each.bins]}
                        for each in found.calibration
                    ],
                }
            )
        return Found(record, meter.cost, found.notes)

    def worse(self, name: str, places: Sequence[int]) -> Found:
        """The model's accuracy, and its balanced accuracy, on images of one data set that are made worse."""
        start, data = self._set(name)
        chosen = [self.positions[place] for place in places]
        labels = [self.people.labels[position] for position in chosen]
        found = worse(
            self.job.net,
            data.subset([position - start for position in chosen]),
            labels,
            self.people.map,
            limit=int(self.plan["worse"]),
            people=self._conditions("mean annotator"),
            beside=self._conditions("network"),
        )
        truth = dict(zip((data.names[position - start] for position in chosen), labels, strict=True))
        classes = np.array([truth[image] for image in found.images])
        rows = found.table()
        for kind, right in zip(found.curves, found.right.numpy(), strict=True):
            balanced = [
                float(np.mean([level[classes == label].mean() for label in np.unique(classes)])) for level in right
            ]
            for row, value in zip((row for row in rows if row["kind"] == kind), balanced, strict=False):
                row["balanced"] = value
        record = {
            "data": name,
            "images": len(found.images),
            "rows": rows,
            "words": " ".join(found.words()),
        }
        return Found(plain(record), found.cost, found.notes)

    def _conditions(self, who: str) -> list[Point]:
        """Somebody's points in the conditions of the votes, where there are any."""
        if not self.job.run.done(MODEL, "agreement"):
            return []
        found = []
        for row in self.job.run.record(MODEL, "agreement")["tables"]["conditions"]:
            value, low, high = (row[f"{who}{end}"] for end in ("", " low", " high"))
            if value is not None:
                ends = (math.nan if end is None else end for end in (low, high))
                found.append(Point(row["condition"], None, Estimate(value, *ends), row["images"]))
        return found

    def _set(self, name: str) -> tuple[int, DataSet]:
        """Where a data set begins in the material, and the set."""
        start = 0
        for data in self.job.material.given:
            if data.name == name:
                return start, data
            start += len(data)
        raise DataError(f"there is no data set {name}")


def _published(each: Baseline) -> dict[str, Any]:
    """A published result as plain values."""
    held: dict[str, Any] = plain(asdict(each))
    return {**held, "of_people": each.of_people, "told": each.told(), "links": list(each.links)}


def plain(value: Any) -> Any:
    """Values as JSON has them: tuples as lists, what is not finite as null."""
    if isinstance(value, Mapping):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, tuple | list):
        return [plain(part) for part in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value


def in_parts(count: int) -> list[slice]:
    """So many images in the parts that are answered between two rows."""
    return [slice(first, min(first + PART, count)) for first in range(0, count, PART)]


def answers_of(part: slice) -> str:
    """The step that holds the answers of a part."""
    return f"answers:{part.start}-{part.stop - 1}"
