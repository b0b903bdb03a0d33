"""The audit: every image through every step of a plan, each kept as soon as it is done."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from seewhy.classifier import Classifier
from seewhy.data.images import Images
from seewhy.data.sets import Item
from seewhy.engine import Meter, out_of_memory
from seewhy.errors import DataError, SeewhyError, SpecError
from seewhy.explain.base import Explainer
from seewhy.look.base import Look
from seewhy.method import parse
from seewhy.run import pace
from seewhy.run import plan as planning
from seewhy.run.attacking import attacked, why
from seewhy.run.comparing import Comparing
from seewhy.run.explaining import Answers, explain_after, explained
from seewhy.run.identity import identity
from seewhy.run.job import Found, Job, remembered
from seewhy.run.learning import Whole, other_identity
from seewhy.run.looking import activations, filters
from seewhy.run.material import Given, Material, gather, masked, untrained
from seewhy.run.people import Asked, People
from seewhy.run.plan import Plan, Planned
from seewhy.run.reading import predict, read
from seewhy.run.sets import PlannedSet
from seewhy.run.store import MODEL, Run, Timing, printable

#: told (units done, units in all, what is being done); a unit is about one pass of one image
Progress = Callable[[float, float, str], None]

#: what stands among the times besides steps
PASSES = ("forward pass", "forward and backward pass")


def audit(
    net: Classifier,
    sources: Sequence[Given] = (),
    out: str | os.PathLike[str] = "seewhy-run",
    *,
    spec: str = "",
    classes: Sequence[int | str] = (),
    methods: Sequence[str] = (),
    budget: float | None = 120.0,
    limit: int | None = None,
    split: str | None = None,
    people: Asked | None = None,
    masks: str | os.PathLike[str] | None = None,
    machine: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Run:
    """Run everything there is on these images and keep it in the directory `out`; the run comes back open for reading.

    Where `out` holds a run of the same plan it goes on with it, and does nothing again that is done. An image that
    cannot be read, or a method that fails, is a row that says so; the others go on.

    Args:
        sources: photographs, folders and data sets by their specs; none for the photographs that scikit-image ships.
        spec: the model's spec string, for the record.
        classes: classes to explain besides the predicted (and the true) one, by index or name.
        methods: the specs of the methods to run, instead of all.
        budget: seconds that it may take; what does not fit is left out, and the plan says so. None for everything.
        limit: images that are explained one by one, at most; what it learned is looked at on more where there are more.
        split: the part of a data set, such as test.
        people: votes and published results that the model's answers on all labelled images are compared with.
        masks: a folder of masks under the images' names, or of one subfolder for each concept, for the units' names.
        machine: what a command said of how passes run, {device, batch, trust_pickle}, for the record.
        progress: told (units done, units in all, what is being done).

    Raises `RunError` where `out` cannot be used, `DataError` where no image can be read or has a mask of its own in
    `masks`, `InputError`, `SpecError` and `LayerError` for classes, methods, published results and layers that don't exist.
    """
    if (budget is not None and not budget > 0) or (limit is not None and limit < 1):
        raise SpecError(f"expected a budget of more than 0 seconds and at least 1 image, got {budget} and {limit}")
    chosen = [net.index(each) for each in classes]
    wanted = [parse(each) for each in methods]
    for method in wanted:
        if isinstance(method, Explainer | Look):
            method.check(net)  # a run belongs to its methods: what can only fail must not bind a directory
    material = untrained(masked(gather(sources, net.labels, split), masks, wanted), spec)
    theirs = People(net, material, people) if people else None
    said = planning.asked(
        net,
        material,
        sources=sources,
        spec=printable(spec or net.name),
        classes=list(dict.fromkeys(chosen)),
        methods=wanted,
        budget=budget,
        limit=limit,
        split=split,
        people=theirs,
        machine=machine,
    )
    directory = Path(out).expanduser()
    there = Run.planned(directory)
    speed = None
    if there is not None:
        plan = Plan.from_json(there)
        planning.fitting(plan, said, material, directory)
    else:
        first = _readable(material)
        speed = pace.pace(net, read=partial(first.read, net.preprocess)) if budget is not None else None
        many = (
            pace.together(net, speed, planning.batch(net)) if speed and len(material.entries) > planning.MOST else speed
        )
        plan = planning.make(net, material, said, wanted, speed, theirs, many)
    with Run.create(directory, plan.to_json() if there is None else there, planning.software(net)) as run:
        _paced(run, net, speed)
        with _pinned(net, plan):
            job = Job(net, plan, material, run)
            compared = Comparing(job, theirs, plan.people) if theirs and plan.people else None
            _Audit(job, compared, progress or (lambda done, total, what: None)).go()
    return Run.open(directory)


def _readable(material: Material) -> Item:
    """The first image that can be read; raises the first one's `DataError` where none can."""
    first: DataError | None = None
    for entry in material.entries:
        try:
            entry.item.open()
        except DataError as error:
            first = first or error
        else:
            return entry.item
    count = len(material.entries)
    raise DataError(str(first) if count == 1 else f"none of the {count} images can be read; the first: {first}")


def _paced(run: Run, net: Classifier, speed: pace.Pace | None) -> None:
    """Keep what a pass of one image takes, measured here unless it is known; a model without a way back has no such times."""
    if all(run.timing(MODEL, name) for name in PASSES):
        return
    if speed is None:
        try:
            speed = pace.pace(net)
        except Exception:  # noqa: BLE001  the steps that need such passes say why they fail
            return
    for name, seconds in zip(PASSES, (speed.forward, speed.both), strict=True):
        run.time(MODEL, name, Timing(seconds))


@contextmanager
def _pinned(net: Classifier, plan: Plan) -> Iterator[None]:
    """Inside, batches have the plan's size, and samples its precision, so that going on with a run gives the same digits."""
    before = net.engine
    net.engine = replace(before, batch=plan.batch, progress=None, measured={}, halved={}, half_paid=plan.half)
    try:
        yield
    finally:
        net.engine = before


class _Audit:
    """One pass over a plan. Steps are addressed and done in the plan's order; those that are done are skipped."""

    def __init__(self, job: Job, compared: Comparing | None, progress: Progress) -> None:
        self.job, self.plan, self.run, self.compared = job, job.plan, job.run, compared
        self._tell = progress
        self._done = self._ahead = 0.0
        self._total = self._model_units() + len(self.plan.images) * self._image_units()
        self._total += sum(each.units for each in self.plan.sets)
        self._total += compared.units() if compared else 0

    def go(self) -> None:
        self._ahead = self._model_units()
        remembered(self.job.net)
        self._step(MODEL, "identity", 4, self._identity)
        for method in self.job.filters:
            self._step(MODEL, method.spec, sum(method.passes), partial(filters, self.job, method))
        for planned in self.plan.images:
            self._done, self._ahead = self._ahead, self._ahead + self._image_units()
            self._image(planned)
        for each in self.plan.sets:
            self._done, self._ahead = self._ahead, self._ahead + each.units
            self._set(each)
        if self.compared is not None:
            self._done, self._ahead = self._ahead, self._total
            self.compared.go(partial(self._step, MODEL))
        self._tell(self._total, self._total, "done")

    def _identity(self) -> Found:
        with Meter(self.job.net.engine.device) as meter:
            record, notes = identity(self.job.net, self.plan.asked["model"])
        return Found(record, meter.cost, notes)

    # Progress: an image's units are reckoned beforehand, and made up for when it is done

    def _model_units(self) -> float:
        return 4 + sum(sum(method.passes) for method in self.job.filters)

    def _image_units(self) -> float:
        labelled = any(image.label is not None for image in self.plan.images)
        targets = pace.targets(self.plan.asked["classes"], labelled)
        return (
            1
            + targets * sum(self._units(method, targets) for method in self.job.explainers)
            + sum(sum(method.passes) for method in self.job.attacks)
            + (pace.diagnosis(self.plan.after) if self.job.attacks else 0)
            + 2 * sum(sum(method.passes) for method in self.job.after)
            + 2 * len(self.job.activations)
        )

    def _units(self, method: Explainer, targets: int) -> float:
        """Units of one class's step, where so many are explained."""
        return sum(method.passes_on(self.job.net.size)) / (targets if pace.shared(method) else 1)

    def _step(self, image: str, step: str, units: float, work: Callable[[], Found], name: str = "") -> bool:
        """Do a step unless it is done, and keep what it found or why it failed; answers whether it is there."""
        self._tell(min(self._done, self._ahead), self._total, f"{name}: {step}" if name else step)
        well = self.run.done(image, step)
        if not well:
            found = self._tried(image, step, work)
            well = found is not None and self._kept(image, step, found)
        self._done += units
        return well

    def _kept(self, image: str, step: str, found: Found) -> bool:
        """Keep what a step found; one whose numbers are none has failed."""
        cost = {"forward": found.cost.forward, "backward": found.cost.backward}
        record = {**found.record, "cost": cost, "notes": [*found.notes, *self.job.net.engine.notes]}
        timing = Timing(found.cost.seconds, found.cost.peak_bytes)
        try:
            self.run.put(image, step, record, found.arrays, found.pictures, timing)
        except ValueError as error:
            self.run.failed(image, step, f"what it found cannot be kept: {error}")
            return False
        return True

    def _tried(self, image: str, step: str, work: Callable[[], Found]) -> Found | None:
        try:
            return work()
        except SeewhyError as error:
            sentence = " ".join(str(error).split())
        except Exception as error:  # noqa: BLE001  a model or a method of the user's fails in its own ways
            lines = str(error).strip().splitlines() or [""]
            told = f"{type(error).__name__}: {lines[0]}".removesuffix(": ")
            sentence = f"memory ran out ({told})" if out_of_memory(error) else told
        self.run.failed(image, step, sentence)
        return None

    # An image

    def _image(self, planned: Planned) -> None:
        images = read(self.job, planned)
        if images is None:
            return
        asked = partial(predict, self.job, planned, images)
        if not self._step(planned.id, "predict", 1, asked, planned.name):
            return
        logits = torch.from_numpy(self.run.array(planned.id, "predict", "logits"))
        top = [each["index"] for each in self.run.record(planned.id, "predict")["top"]]
        predicted = top[0]
        roles = pace.roles(top, planned.label, self.plan.asked["classes"])
        for method in self.job.explainers:
            answers = Answers(self.job.net, method, images, list(roles))
            for index, role in roles.items():
                self._step(
                    planned.id,
                    f"{method.spec}@{index}",
                    self._units(method, len(roles)),
                    partial(explained, self.job, answers, index, role, logits),
                    planned.name,
                )
        for attack in self.job.attacks:
            self._step(
                planned.id,
                attack.spec,
                sum(attack.passes),
                partial(attacked, self.job, attack, planned, images, predicted),
                planned.name,
            )
        if self.job.attacks and self.run.done(planned.id, self.job.attacks[0].spec):
            outcome = self.run.record(planned.id, self.job.attacks[0].spec)
            if outcome["fooled"]:
                self._step(
                    planned.id,
                    f"why {self.job.attacks[0].spec}",
                    pace.diagnosis(self.plan.after),
                    partial(why, self.job, outcome, planned, images),
                    planned.name,
                )
        for look in self.job.activations:
            self._step(planned.id, look.spec, 2, partial(activations, self.job, look, planned, images), planned.name)
        self._again(planned, images, predicted)

    def _again(self, planned: Planned, images: Images, predicted: int) -> None:
        """The cheap explanations once more, on the adversarial image: of the class before and of the one after."""
        if not self.job.attacks:
            return
        roles = {predicted: "predicted"}
        attack = self.job.attacks[0].spec
        if self.run.done(planned.id, attack):
            outcome = self.run.record(planned.id, attack)
            if outcome["fooled"]:
                roles[outcome["after"]["index"]] = "adversarial"
        for index, role in roles.items():
            for method in self.job.after:
                self._step(
                    planned.id,
                    f"after {method.spec}@{index}",
                    sum(method.passes),
                    partial(explain_after, self.job, method, planned, images, index, role),
                    planned.name,
                )

    # A set as a whole

    def _set(self, planned: PlannedSet) -> None:
        whole = Whole(self.job, planned)
        name = "all images" if planned.model is None else planned.name
        if planned.model is not None:
            self._step(planned.id, "identity", 4, partial(other_identity, whole), name)
        for step, units, work in whole.steps():
            self._step(planned.id, step, units, work, name)
