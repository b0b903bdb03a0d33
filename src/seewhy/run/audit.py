"""The audit: every image through every step of a plan, each kept as soon as it is done."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as Picture
from torch import Tensor

from seewhy.attack.base import Adversarial, Attack
from seewhy.attack.why_it_fails import between
from seewhy.classifier import Classifier
from seewhy.data.images import Images
from seewhy.data.photo import prepared
from seewhy.engine import Cost, Meter, out_of_memory
from seewhy.errors import DataError, NothingToExplain, SeewhyError, SpecError
from seewhy.explain.base import Attribution, Explainer, flatten
from seewhy.explain.compare import rank_correlations
from seewhy.lens.capture import capture, trace
from seewhy.look.activations import Activations
from seewhy.look.filters import Filters
from seewhy.method import parse
from seewhy.run import plan as planning
from seewhy.run.identity import identity
from seewhy.run.plan import Plan, Planned
from seewhy.run.store import MODEL, ImageRow, Run, Timing, key_of

#: told (units done, units in all, what is being done); a unit is about one pass of one image
Progress = Callable[[float, float, str], None]

#: the longer side of the photographs that a run keeps, in pixels
LONGEST = 800

#: sizes of an attack that a strip shows
STRIP = 6

#: how many classes `predict` lists
TOP = 5

Plain = dict[str, Any]


@dataclass(frozen=True)
class Found:
    """What a step found: its record, its cost, and what is kept beside the row."""

    record: Plain
    cost: Cost
    notes: tuple[str, ...] = ()
    arrays: Mapping[str, np.ndarray[Any, Any]] = field(default_factory=dict)
    pictures: Mapping[str, Picture.Image] = field(default_factory=dict)


def audit(
    net: Classifier,
    sources: Sequence[str | os.PathLike[str]] = (),
    out: str | os.PathLike[str] = "seewhy-run",
    *,
    spec: str = "",
    classes: Sequence[int | str] = (),
    methods: Sequence[str] = (),
    budget: float | None = 120.0,
    limit: int | None = None,
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
        limit: images at most.
        progress: told (units done, units in all, what is being done).

    Raises `RunError` where `out` cannot be used, `DataError` where no image can be read, `InputError` and `SpecError`
    for classes and methods that don't exist.
    """
    if (budget is not None and not budget > 0) or (limit is not None and limit < 1):
        raise SpecError(f"expected a budget of more than 0 seconds and at least 1 image, got {budget} and {limit}")
    chosen = [net.index(each) for each in classes]
    wanted = [parse(each) for each in methods]
    material = planning.gather(sources, net.labels)
    said = planning.asked(
        net,
        material,
        sources=sources,
        spec=spec or net.name,
        classes=list(dict.fromkeys(chosen)),
        methods=wanted,
        budget=budget,
        limit=limit,
    )
    directory = Path(out)
    there = Run.planned(directory)
    speed = None
    if there is not None:
        plan = Plan.from_json(there)
        planning.fitting(plan, said, material, directory)
    else:
        _readable(material)
        speed = planning.pace(net) if budget is not None else None
        plan = planning.make(net, material, said, wanted, speed)
    with Run.create(directory, plan.to_json() if there is None else there, planning.software(net)) as run:
        if speed is not None:
            run.time(MODEL, "forward pass", Timing(speed.forward))
            run.time(MODEL, "forward and backward pass", Timing(speed.both))
        with _pinned(net, plan.batch):
            _Audit(net, plan, material, run, progress or (lambda done, total, what: None)).go()
    return Run.open(directory)


def _readable(material: planning.Material) -> None:
    """Check that there is anything to do; raises the first image's `DataError` where none can be read."""
    first: DataError | None = None
    for entry in material.entries:
        try:
            entry.item.open()
        except DataError as error:
            first = first or error
        else:
            return
    count = len(material.entries)
    raise DataError(str(first) if count == 1 else f"none of the {count} images can be read; the first: {first}")


@contextmanager
def _pinned(net: Classifier, batch: int) -> Iterator[None]:
    """Inside, batches have the plan's size, so that a run that is gone on with gives the same digits."""
    before = net.engine
    net.engine = replace(before, batch=batch, progress=None, measured={})
    try:
        yield
    finally:
        net.engine = before


class _Answers:
    """A method's answers for the classes of one image; passes that serve all of them run when the first is wanted.

    A run that was stopped between two classes runs them all again, so that what it keeps is the same to the bit. Where they
    fail together each class is tried alone: one that fails takes no other with it.
    """

    def __init__(self, net: Classifier, method: Explainer, images: Images, classes: Sequence[int]) -> None:
        self.net, self.method, self.images, self.classes = net, method, images, list(classes)
        self.found: dict[int, Attribution] | None = None if planning.shared(method) else {}

    def of(self, index: int) -> Attribution:
        """The answer for a class; its cost counts the passes of all, and its share of their time."""
        if self.found is None:
            self.found = {}
            with suppress(Exception):
                together = self.method.each(self.net, self.images, self.classes)
                self.found = {
                    index: replace(each, cost=replace(each.cost, seconds=each.cost.seconds / len(together)))
                    for index, each in zip(self.classes, together, strict=True)
                }
        return self.found.get(index) or self.method(self.net, self.images, target=index)

    def together(self, index: int) -> int:
        """How many classes the passes of this one's answer served."""
        return len(self.classes) if self.found and index in self.found else 1


class _Audit:
    """One pass over a plan. Steps are addressed and done in the plan's order; those that are done are skipped."""

    def __init__(self, net: Classifier, plan: Plan, material: planning.Material, run: Run, progress: Progress) -> None:
        self.net, self.plan, self.material, self.run = net, plan, material, run
        self.explainers = [method for method in plan.explain if isinstance(method, Explainer)]
        self.after = [method for method in plan.after if isinstance(method, Explainer)]
        self.attacks = [method for method in plan.attack if isinstance(method, Attack)]
        self.activations = [method for method in plan.look if isinstance(method, Activations)]
        self.filters = [method for method in plan.look if isinstance(method, Filters)]
        self._tell = progress
        self._done = self._ahead = 0.0
        self._total = self._model_units() + len(plan.images) * self._image_units()

    def go(self) -> None:
        self._ahead = self._model_units()
        trace(self.net)  # remembered from here on, so that no step's cost depends on which one comes first
        self._step(MODEL, "identity", 4, self._identity)
        for method in self.filters:
            self._step(MODEL, method.spec, sum(method.passes), partial(self._filters, method))
        for planned in self.plan.images:
            self._done, self._ahead = self._ahead, self._ahead + self._image_units()
            self._image(planned)
        self._tell(self._total, self._total, "done")

    # Progress: an image's units are reckoned beforehand, and made up for when it is done

    def _model_units(self) -> float:
        return 4 + sum(sum(method.passes) for method in self.filters)

    def _image_units(self) -> float:
        labelled = any(image.label is not None for image in self.plan.images)
        targets = planning.targets(self.plan.asked["classes"], labelled)
        return (
            1
            + targets * sum(self._units(method, targets) for method in self.explainers)
            + sum(sum(method.passes) for method in self.attacks)
            + (planning.diagnosis(self.plan.after) if self.attacks else 0)
            + 2 * sum(sum(method.passes) for method in self.after)
            + 2 * len(self.activations)
        )

    def _units(self, method: Explainer, targets: int) -> float:
        """Units of one class's step, where so many are explained."""
        return sum(method.passes) / (targets if planning.shared(method) else 1)

    def _step(self, image: str, step: str, units: float, work: Callable[[], Found], name: str = "") -> bool:
        """Do a step unless it is done, and keep what it found or why it failed; answers whether it is there."""
        self._tell(min(self._done, self._ahead), self._total, f"{name}: {step}" if name else step)
        well = self.run.done(image, step)
        if not well:
            found = self._tried(image, step, work)
            if found is not None:
                well = True
                cost = {"forward": found.cost.forward, "backward": found.cost.backward}
                self.run.put(
                    image,
                    step,
                    {**found.record, "cost": cost, "notes": [*found.notes, *self._memory_notes()]},
                    found.arrays,
                    found.pictures,
                    Timing(found.cost.seconds, found.cost.peak_bytes),
                )
        self._done += units
        return well

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

    def _memory_notes(self) -> list[str]:
        return [
            f"memory ran out: {kind} passes ran in batches of {size}"
            for kind, size in self.net.engine.measured.items()
            if size < self.plan.batch
        ]

    # The model

    def _identity(self) -> Found:
        with Meter() as meter:
            record, notes = identity(self.net, self.plan.asked["model"])
        return Found(record, meter.cost, notes)

    def _filters(self, method: Filters) -> Found:
        found = method(self.net)
        return Found(
            {
                "method": method.spec,
                "layer": found.layer,
                "view": found.view,
                "scale": found.scale,
                "titles": list(found.titles),
            },
            found.cost,
            found.notes,
            {"weights": found.weights.numpy(), "tiles": found.tiles.numpy()},
        )

    # An image

    def _image(self, planned: Planned) -> None:
        images = self._read(planned)
        if images is None:
            return
        predict = partial(self._predict, planned, images)
        if not self._step(planned.id, "predict", 1, predict, planned.name):
            return
        logits = torch.from_numpy(self.run.array(planned.id, "predict", "logits"))
        predicted = int(logits.argmax())
        roles = planning.roles(logits, planned.label, self.plan.asked["classes"])
        for method in self.explainers:
            answers = _Answers(self.net, method, images, list(roles))
            for index, role in roles.items():
                self._step(
                    planned.id,
                    f"{method.spec}@{index}",
                    self._units(method, len(roles)),
                    partial(self._explained, answers, index, role, logits),
                    planned.name,
                )
        for attack in self.attacks:
            self._step(
                planned.id,
                attack.spec,
                sum(attack.passes),
                partial(self._attack, attack, planned, images, predicted),
                planned.name,
            )
        if self.attacks and self.run.done(planned.id, self.attacks[0].spec):
            outcome = self.run.record(planned.id, self.attacks[0].spec)
            if outcome["fooled"]:
                self._step(
                    planned.id,
                    f"why {self.attacks[0].spec}",
                    planning.diagnosis(self.plan.after),
                    partial(self._why, outcome, planned, images),
                    planned.name,
                )
        for look in self.activations:
            self._step(planned.id, look.spec, 2, partial(self._activations, look, planned, images), planned.name)
        self._again(planned, images, predicted)

    def _again(self, planned: Planned, images: Images, predicted: int) -> None:
        """The cheap explanations once more, on the adversarial image: of the class before and of the one after."""
        if not self.attacks:
            return
        roles = {predicted: "predicted"}
        attack = self.attacks[0].spec
        if self.run.done(planned.id, attack):
            outcome = self.run.record(planned.id, attack)
            if outcome["fooled"]:
                roles[outcome["after"]["index"]] = "adversarial"
        for index, role in roles.items():
            for method in self.after:
                self._step(
                    planned.id,
                    f"after {method.spec}@{index}",
                    sum(method.passes),
                    partial(self._explain_after, method, planned, images, index, role),
                    planned.name,
                )

    def _read(self, planned: Planned) -> Images | None:
        item = self.material.entries[planned.position].item
        row = ImageRow(planned.id, planned.position, planned.name, planned.path, planned.sha256, "ok", None, {})
        try:
            picture, notes = item.open()
            images = prepared(picture, self.net.preprocess, planned.name, notes)
        except SeewhyError as error:
            self.run.put_image(replace(row, status="failed", error=str(error)))
            return None
        if not self.run.read_before(planned.id):
            geometry = images.geometry[0]
            files = {"original": f"{planned.id}.png", "seen": f"{planned.id}-seen.png"}
            record = {
                **({} if geometry is None else {key: list(value) for key, value in asdict(geometry).items()}),
                "notes": list(images.notes[0]),
                "label": planned.label,
                "credit": planned.credit,
                "pictures": files,
            }
            kept = {files["original"]: _smaller(picture), files["seen"]: _picture(images.pixels[0])}
            self.run.put_image(replace(row, record=record), kept)
        return images

    def _predict(self, planned: Planned, images: Images) -> Found:
        with Meter() as meter:
            logits = self.net.predict(images)[0].cpu()
        if not bool(torch.isfinite(logits).all()):
            raise NothingToExplain(f"{self.net.name} answers {planned.name} with NaN or infinity")
        order = logits.argsort(descending=True, stable=True)[:TOP].tolist()
        record = {
            "top": [self._class(logits, index) for index in order],
            "truth": None if planned.label is None else self._class(logits, planned.label),
        }
        return Found(record, meter.cost, (), {"logits": logits.numpy()})

    def _explained(self, answers: _Answers, index: int, role: str, logits: Tensor) -> Found:
        found = self._explain(answers.of(index), index, role, logits)
        return replace(found, record={**found.record, "together": answers.together(index)})

    def _explain(self, found: Attribution, index: int, role: str, logits: Tensor) -> Found:
        record = {
            "method": found.method,
            "target": self._class(logits, index),
            "role": role,
            "layer": found.layer,
            "sign": found.sign,
            "score": float(found.score[0]),
            "measures": {name: _number(float(value[0])) for name, value in found.measures.items()},
        }
        arrays = {"values": found.values[0].numpy()}
        if found.standard_error is not None and bool(torch.isfinite(found.standard_error).all()):
            arrays["standard_error"] = found.standard_error[0].numpy()
        return Found(record, found.cost, found.notes, arrays)

    def _attack(self, method: Attack[Any], planned: Planned, images: Images, predicted: int) -> Found:
        found = method(self.net, images, labels=predicted)
        level = int(found.best[0])
        fooled = level >= 0
        if not fooled:
            level = int(found.eps[:, 0].argmax())
        after = int(found.predictions[level, 0])
        eps, probabilities = found.curve(0)
        order = found.eps[:, 0].argsort(stable=True)
        file = f"{planned.id}-{key_of(method.spec)}.png"
        strip = found.strip(0, STRIP)
        strip_file = f"{planned.id}-{key_of(method.spec)}-strip.png"
        clean = found.clean_probabilities[0]
        notes = list(found.notes)
        if planned.label not in (None, predicted):
            notes.append("wrong from the start: the attack leads away from the prediction, not from the true class")
        record = {
            "method": method.spec,
            "norm": found.norm,
            "before": {"index": predicted, "label": self.net.labels[predicted], "probability": float(clean[predicted])},
            "after": {
                "index": after,
                "label": self.net.labels[after],
                "probability": float(found.probabilities[level, 0, after]),
            },
            "eps": [float(size) for size in eps],
            "p_before": [float(p) for p in probabilities[:, predicted]],
            "p_after": [float(p) for p in probabilities[:, after]],
            "success": [False, *map(bool, found.success[order, 0])],
            "success_8bit": [False, *map(bool, found.success_8bit[order, 0])],
            "fooled": fooled,
            "smallest_eps": _number(float(found.smallest_eps[0])),
            "shown_eps": float(found.eps[level, 0]),
            "distances": {name: float(values[level, 0]) for name, values in found.distances.items()},
            "strip": [self._seen(found, each) for each in strip],
            "pictures": {"adversarial": file, "strip": strip_file},
        }
        adversarial = found.images[level, 0]
        pictures = {file: _picture(adversarial), strip_file: _picture(torch.cat([*found.images[strip, 0]], 2))}
        return Found(record, found.cost, tuple(notes), {"adversarial": adversarial.numpy()}, pictures)

    def _seen(self, found: Adversarial, level: int) -> Plain:
        """What the model says of one size of the strip."""
        return {
            "eps": float(found.eps[level, 0]),
            **self._class(found.probabilities[level, 0].log(), int(found.predictions[level, 0])),
            "fools": bool(found.success[level, 0] & found.success_8bit[level, 0]),
        }

    def _why(self, outcome: Plain, planned: Planned, images: Images) -> Found:
        """Why the first attack's image fools, against noise of the same size."""
        found = between(
            self.net,
            images,
            torch.from_numpy(self.run.array(planned.id, outcome["method"], "adversarial"))[None],
            torch.tensor([outcome["before"]["index"]]),
            method=outcome["method"],
            norm=outcome["norm"],
            explainers=self.after[: planning.MAPS],
            noises=planning.NOISES,
        )
        return Found({"attack": outcome["method"], "diagnosis": found.rows()[0]}, found.cost, found.notes)

    def _adversarial(self, planned: Planned, images: Images) -> Images | None:
        """The first attack's image; None where it failed, or where there was no attack."""
        if not self.attacks or not self.run.done(planned.id, self.attacks[0].spec):
            return None
        pixels = torch.from_numpy(self.run.array(planned.id, self.attacks[0].spec, "adversarial"))
        return images.with_pixels(pixels[None])

    def _activations(self, method: Activations, planned: Planned, images: Images) -> Found:
        found = method(self.net, images)
        channels = found.channels[0]
        arrays = {"before": found.maps[0].numpy()}
        cost, after = found.cost, None
        adversarial = self._adversarial(planned, images)
        if adversarial is not None:
            with Meter() as meter:
                maps = capture(self.net, adversarial.pixels, [found.layer])[found.layer].float().cpu()[0]
            cost = cost + meter.cost
            arrays["after"] = maps[channels].numpy()
            after = float((maps <= 0).float().mean())
        record = {
            "method": method.spec,
            "layer": found.layer,
            "channels": channels.tolist(),
            "zero": float(found.zero[0]),
            "zero_after": after,
        }
        return Found(record, cost, found.notes, arrays)

    def _explain_after(self, method: Explainer, planned: Planned, images: Images, index: int, role: str) -> Found:
        adversarial = self._adversarial(planned, images)
        if adversarial is None:
            raise NothingToExplain(f"there is no adversarial image: {self.attacks[0].spec} failed")
        with Meter() as meter:
            logits = self.net.predict(adversarial)[0].cpu()
        found = self._explain(method(self.net, adversarial, target=index), index, role, logits)
        before = f"{method.spec}@{index}"
        correlation = None
        if self.run.done(planned.id, before):
            values = torch.from_numpy(self.run.array(planned.id, before, "values"))
            sign = method.default_sign
            both = flatten(torch.stack([values, torch.from_numpy(found.arrays["values"])]), sign)
            correlation = _number(float(rank_correlations(both.flatten(1))[0, 1]))
        return replace(found, record={**found.record, "correlation": correlation}, cost=found.cost + meter.cost)

    def _class(self, logits: Tensor, index: int) -> Plain:
        return {
            "index": index,
            "label": self.net.labels[index],
            "probability": float(logits.softmax(-1)[index]),
        }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _picture(pixels: Tensor) -> Picture.Image:
    """Pixels (3, H, W) in [0, 1] as a picture of 8 bits."""
    return Picture.fromarray((pixels * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy())


def _smaller(picture: Picture.Image) -> Picture.Image:
    kept = picture.convert("RGB")
    kept.info = {}  # a photograph's own data, such as where it was taken, are nobody's business
    kept.thumbnail((LONGEST, LONGEST), Picture.Resampling.LANCZOS)
    return kept


def summary(run: Run) -> Plain:
    """What a run found, in short, as plain values: predictions, the attacks' outcomes, and what failed."""
    images: list[Plain] = []
    failed = [
        {"image": result.image, "step": result.step, "error": result.error}
        for image in (MODEL, *(row.id for row in run.images()))
        for result in run.results(image)
        if not result.ok
    ]
    for row in run.images():
        found = {result.step: result.record for result in run.results(row.id) if result.ok}
        predicted = found.get("predict", {})
        images.append(
            {
                "id": row.id,
                "name": row.name,
                "status": row.status,
                "error": row.error,
                "top": predicted.get("top", []),
                "truth": predicted.get("truth"),
                "steps": len(found),
                "attacks": [
                    {key: record.get(key) for key in ("method", "norm", "fooled", "smallest_eps", "before", "after")}
                    for record in found.values()
                    if "fooled" in record
                ],
            }
        )
    identities = [result.record for result in run.results() if result.step == "identity" and result.ok]
    short = ("name", "spec", "fingerprint", "parameters", "classes", "size", "multiply_adds")
    return {
        "directory": str(run.directory),
        "model": {key: identities[0][key] for key in short} if identities else {"spec": run.plan["asked"]["model"]},
        "images": images,
        "failed": failed,
        "left_out": run.plan["left_out"],
        "notes": [*run.plan["notes"], *run.notes()],
        "seconds": round(run.seconds(), 3),
    }
