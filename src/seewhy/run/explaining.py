"""Why the model decided: each explainer for each class, and the cheap ones again after the attack."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import torch
from torch import Tensor

from seewhy.classifier import Classifier
from seewhy.data.images import Images
from seewhy.engine import Meter
from seewhy.errors import NothingToExplain
from seewhy.explain.base import Attribution, Explainer, flatten
from seewhy.explain.compare import rank_correlations
from seewhy.run.attacking import adversarial_of
from seewhy.run.job import Found, Job, class_of, number
from seewhy.run.pace import shared
from seewhy.run.plan import Planned


class Answers:
    """A method's answers for the classes of one image; passes that serve all of them run when the first is wanted.

    A run that was stopped between two classes runs them all again, so that what it keeps is the same to the bit. Where they
    fail together each class is tried alone: one that fails takes no other with it.
    """

    def __init__(self, net: Classifier, method: Explainer, images: Images, classes: Sequence[int]) -> None:
        self.net, self.method, self.images, self.classes = net, method, images, list(classes)
        self.found: dict[int, Attribution] | None = None if shared(method) else {}

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


def explained(job: Job, answers: Answers, index: int, role: str, logits: Tensor) -> Found:
    found = explain(job, answers.of(index), index, role, logits)
    return replace(found, record={**found.record, "together": answers.together(index)})


def explain(job: Job, found: Attribution, index: int, role: str, logits: Tensor) -> Found:
    record = {
        "method": found.method,
        "target": class_of(job.net, logits, index),
        "role": role,
        "layer": found.layer,
        "sign": found.sign,
        "score": float(found.score[0]),
        "measures": {name: number(float(value[0])) for name, value in found.measures.items()},
    }
    arrays = {"values": found.values[0].numpy()}
    if found.standard_error is not None and bool(torch.isfinite(found.standard_error).all()):
        arrays["standard_error"] = found.standard_error[0].numpy()
    return Found(record, found.cost, found.notes, arrays)


def explain_after(job: Job, method: Explainer, planned: Planned, images: Images, index: int, role: str) -> Found:
    changed = adversarial_of(job, planned, images)
    if changed is None:
        raise NothingToExplain(f"there is no adversarial image: {job.attacks[0].spec} failed")
    with Meter(job.net.engine.device) as meter:
        logits = job.net.predict(changed)[0].cpu()
    found = explain(job, method(job.net, changed, target=index), index, role, logits)
    before = f"{method.spec}@{index}"
    correlation = None
    if job.run.done(planned.id, before):
        values = torch.from_numpy(job.run.array(planned.id, before, "values"))
        sign = method.default_sign
        both = flatten(torch.stack([values, torch.from_numpy(found.arrays["values"])]), sign)
        correlation = number(float(rank_correlations(both.flatten(1))[0, 1]))
    return replace(found, record={**found.record, "correlation": correlation}, cost=found.cost + meter.cost)
